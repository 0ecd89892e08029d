//! `image-server`: arguments in, a [`Server`] that runs until it is told to stop.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use image_api::Token;
use image_server::{
    Access, Collected, Config, Depth, Grant, HostRule, Server, ServerError, Storage, TlsFiles, Upkeep,
};
use object_io::{BucketUri, StoreConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Makes images from disk images behind pre-signed URLs.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the API of the image service, REST and gRPC on one port, until SIGINT or SIGTERM.
    ///
    /// Without --bucket, blocks go to an S3 server inside this process, on loopback; its address and keys stand in
    /// DIR/store.json. Prints one line with its own address on stdout when it listens, logs to stderr (RUST_LOG).
    Serve(Serve),
    /// Removes what no image uses, beside servers that run.
    Gc(Place),
    /// Checks that the store holds what every READY image consists of, beside servers that run.
    ///
    /// Exits with 1 if something is missing or damaged. Blocks that nobody uses are no damage: gc removes them.
    Fsck(Fsck),
}

/// A catalog and its store.
#[derive(Args)]
struct Place {
    /// Folder of the catalog, and of the store where no bucket is given.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Catalog elsewhere: sqlite:PATH, or postgres://USER@HOST/DATABASE for several servers.
    #[arg(long, value_name = "URL", env = "IMAGE_SERVER_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Bucket, or folder in one, for blocks and manifests; credentials as the AWS tools find them.
    #[arg(long, value_name = "s3://B")]
    bucket: Option<BucketUri>,
    /// The bucket's store; AWS where it is not given.
    #[arg(long, value_name = "URL", requires = "bucket")]
    s3_endpoint: Option<String>,
}

#[derive(Args)]
struct Fsck {
    #[command(flatten)]
    place: Place,
    /// Reads every block, and compares its content with its name.
    #[arg(long)]
    read: bool,
}

#[derive(Args)]
struct Serve {
    /// Address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    place: Place,
    /// Certificate chain in PEM; serves https.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Token that a caller must show; repeatable. Without one, only a loopback address is served.
    #[arg(long = "token", value_name = "TOKEN", env = "IMAGE_SERVER_TOKEN", hide_env_values = true)]
    tokens: Vec<String>,
    /// File with the public key of a service account, whose JWTs are exchanged for tokens; repeatable.
    #[arg(long = "account-key", value_name = "FILE")]
    account_keys: Vec<PathBuf>,
    /// Role of a service account, in one folder or in all: viewer, user, editor or admin; repeatable.
    #[arg(long = "grant", value_name = "ACCOUNT=ROLE[@FOLDER]")]
    grants: Vec<Grant>,
    /// What a JWT may be meant for; repeatable. Without one, the cloud's own address, which the SDKs name.
    #[arg(long = "audience", value_name = "URL")]
    audiences: Vec<String>,
    /// Host and port that clients are told to call; without it, those by which they came.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Host that images may be read from; repeatable. Without one, only the bucket's own store.
    #[arg(long = "allow-uri-host", value_name = "HOST[:PORT]")]
    allowed_uri_hosts: Vec<HostRule>,
    /// Read by plain http too.
    #[arg(long)]
    allow_http: bool,
    /// Memory of one ingest, of which four run at once: bytes, or a number with K, M or G.
    #[arg(short, long, value_name = "SIZE", default_value = "192M", value_parser = parse_size)]
    memory: u64,
    /// CPU workers; as many as there are cores if not given.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(serve) => run_server(serve).await.map(|()| ExitCode::SUCCESS),
        Command::Gc(place) => gc(place).await.map(|()| ExitCode::SUCCESS),
        Command::Fsck(fsck) => check(fsck).await,
    }
}

async fn gc(place: Place) -> anyhow::Result<()> {
    let upkeep = Upkeep::open(place.into_config(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let collected = upkeep.gc(&CancellationToken::new()).await;
    upkeep.close().await;
    let Collected { kept, removed, bytes, left } = collected?;
    writeln!(std::io::stdout(), "kept        {kept} blocks\nremoved     {removed} blocks, {bytes} bytes")?;
    if left > 0 {
        writeln!(std::io::stdout(), "left        {left} blocks, to another collection")?;
    }
    Ok(())
}

async fn check(fsck: Fsck) -> anyhow::Result<ExitCode> {
    let upkeep = Upkeep::open(fsck.place.into_config(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let depth = if fsck.read { Depth::Content } else { Depth::Lengths };
    let report = upkeep.fsck(depth, &CancellationToken::new()).await;
    upkeep.close().await;
    let report = report?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_server(serve: Serve) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let config = serve.into_config()?;
    let running = tokio::select! {
        started = Server::start(config) => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    writeln!(std::io::stdout(), "listening on {}", running.endpoint).context("cannot write to stdout")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    running.shutdown().await;
    Ok(())
}

impl Place {
    fn into_config(self, listen: SocketAddr) -> Config {
        let mut config = Config::new(listen, self.data_dir);
        config.database_url = self.database_url;
        if let Some(uri) = self.bucket {
            let store = StoreConfig { endpoint_url: self.s3_endpoint, ..StoreConfig::default() };
            config.storage = Storage::Bucket { uri, config: store.into() };
        }
        config
    }
}

impl Serve {
    fn into_config(self) -> anyhow::Result<Config> {
        let config = self.place.into_config(self.listen);
        let tls = self.tls_cert.zip(self.tls_key);
        // Not by the parser of arguments: it would print what it refuses.
        let tokens: Result<Vec<Token>, _> = self.tokens.iter().map(|token| token.parse()).collect();
        let audiences = if self.audiences.is_empty() { Access::default().audiences } else { self.audiences };
        Ok(Config {
            access: Access { account_keys: self.account_keys, grants: self.grants, audiences },
            advertised: self.advertise,
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
            tokens: tokens.context("what --token or IMAGE_SERVER_TOKEN holds is not a token")?,
            allowed_uri_hosts: self.allowed_uri_hosts,
            allow_http: self.allow_http,
            memory: self.memory,
            jobs: self.jobs.map(usize::from),
            ..config
        })
    }
}

fn parse_size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("expected bytes, or a number with K, M or G"),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    size.filter(|size| *size > 0).ok_or("expected a number above zero")
}

/// The error, everything beneath it, and what would help.
fn report(error: &anyhow::Error) {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  caused by: {cause}\n"));
    }
    if let Some(hint) = error.downcast_ref::<ServerError>().and_then(ServerError::hint) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    // Where stderr is gone, nobody reads it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
