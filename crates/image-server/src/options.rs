//! The options of `image-server`, those of `serve` from one table for command line, environment and file.
//!
//! Each option `--some-name` is the variable `IMAGE_SERVER_SOME_NAME` and the key `some-name` of the TOML file of `--config`. The
//! command line wins over the environment, that over the file. The table is [`Serve`]; the file becomes arguments ([`file`]), so
//! that values have one grammar and their errors one form.

mod file;
mod values;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use image_api::Token;
use image_server::{
    Access, Config, Grant, HostRule, Limits, SourceBucket, Storage, TimeLimits, TlsFiles, VolumeFolder,
    VolumeSources, Volumes,
};
use object_io::{BucketUri, StoreConfig};
use values::{parse_bucket, parse_duration, parse_size};

/// Makes images from disk images behind pre-signed URLs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves the image service, REST and gRPC on one port, until SIGINT or SIGTERM.
    ///
    /// Without --bucket, blocks go to an S3 server inside this process, on loopback; its address and keys stand in
    /// DIR/store.json. Prints one line with its own address on stdout when it listens, logs to stderr (RUST_LOG).
    ///
    /// Each option --some-name is also the variable IMAGE_SERVER_SOME_NAME and the key some-name of the file of --config, in
    /// this order. The error of whoever meets a limit names it.
    Serve(Box<Serve>),
    /// Removes what is stored and not needed by any image. Safe beside running servers.
    Gc(Place),
    /// Compares what is stored with what the images consist of; fails if something is missing.
    Fsck(Fsck),
}

impl Command {
    /// How the log is written.
    pub(crate) fn log_format(&self) -> LogFormat {
        match self {
            Self::Serve(serve) => serve.log_format,
            Self::Gc(_) | Self::Fsck(_) => LogFormat::Text,
        }
    }
}

/// Where everything is.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Folder of the catalog, and of the store where no bucket is given.
    #[arg(long, value_name = "DIR", env = "IMAGE_SERVER_DATA_DIR", hide_env = true)]
    data_dir: PathBuf,
    /// Catalog elsewhere: sqlite:PATH, or postgres://USER@HOST/DATABASE for several servers.
    #[arg(long, value_name = "URL", env = "IMAGE_SERVER_DATABASE_URL", hide_env = true)]
    database_url: Option<String>,
    /// Bucket, or folder in one, for blocks and manifests; credentials as the AWS tools find them.
    #[arg(long, value_name = "s3://B", value_parser = parse_bucket, env = "IMAGE_SERVER_BUCKET", hide_env = true)]
    bucket: Option<BucketUri>,
    /// The bucket's store; AWS where it is not given.
    #[arg(long, value_name = "URL", requires = "bucket", env = "IMAGE_SERVER_S3_ENDPOINT", hide_env = true)]
    s3_endpoint: Option<String>,
    /// Folder for copies of pooled images, this server's own; see --pool-quota.
    #[arg(long, value_name = "DIR", env = "IMAGE_SERVER_POOL", hide_env = true)]
    pool: Option<PathBuf>,
}

/// What `fsck` looks at.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Reads every block, and compares its content with its name.
    #[arg(long)]
    pub(crate) read: bool,
}

/// The table.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// File of options, in TOML; lists for options that are repeatable.
    #[arg(long, value_name = "FILE", env = "IMAGE_SERVER_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// Address and port; port 0 takes a free one.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        env = "IMAGE_SERVER_LISTEN",
        hide_env = true
    )]
    listen: SocketAddr,
    #[command(flatten)]
    place: Place,
    /// Certificate chain in PEM; serves https.
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "IMAGE_SERVER_TLS_CERT", hide_env = true)]
    tls_cert: Option<PathBuf>,
    /// Private key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "IMAGE_SERVER_TLS_KEY", hide_env = true)]
    tls_key: Option<PathBuf>,
    /// Token that a caller must show; repeatable. Without one, only a loopback address is served.
    #[arg(long = "token", value_name = "TOKEN", env = "IMAGE_SERVER_TOKEN", hide_env = true)]
    tokens: Vec<String>,
    /// File with the public key of a service account, whose JWTs are exchanged for tokens; repeatable.
    #[arg(
        long = "account-key",
        value_name = "FILE",
        value_delimiter = ',',
        env = "IMAGE_SERVER_ACCOUNT_KEY",
        hide_env = true
    )]
    account_keys: Vec<PathBuf>,
    /// Role of a service account, in one folder or in all: viewer, user, editor or admin; repeatable.
    #[arg(
        long = "grant",
        value_name = "ACCOUNT=ROLE[@FOLDER]",
        value_delimiter = ',',
        env = "IMAGE_SERVER_GRANT",
        hide_env = true
    )]
    grants: Vec<Grant>,
    /// What a JWT may be meant for; repeatable. Without one, the cloud's own address, which the SDKs name.
    #[arg(
        long = "audience",
        value_name = "URL",
        value_delimiter = ',',
        env = "IMAGE_SERVER_AUDIENCE",
        hide_env = true
    )]
    audiences: Vec<String>,
    /// Host and port that clients are told to call; without it, those by which they came.
    #[arg(long, value_name = "HOST:PORT", env = "IMAGE_SERVER_ADVERTISE", hide_env = true)]
    advertise: Option<String>,
    /// Host that images may be read from; repeatable. Without one, only the bucket's own store.
    ///
    /// A name must lead to public addresses, at each connection; an address is taken as it is.
    #[arg(
        long = "allow-uri-host",
        value_name = "HOST[:PORT]",
        value_delimiter = ',',
        env = "IMAGE_SERVER_ALLOW_URI_HOST",
        hide_env = true
    )]
    allowed_uri_hosts: Vec<HostRule>,
    /// Read by plain http too.
    #[arg(long, env = "IMAGE_SERVER_ALLOW_HTTP", hide_env = true)]
    allow_http: bool,
    /// Let the names of these hosts lead to private networks and to this machine.
    ///
    /// Not to link-local addresses and others where clouds tell a machine its secrets.
    #[arg(long, env = "IMAGE_SERVER_ALLOW_PRIVATE_HOSTS", hide_env = true)]
    allow_private_hosts: bool,
    /// Folder of snapshots that images are made from: ID.raw, ID.qcow2, ID.vmdk, ID.vhd, ID.vhdx.
    ///
    /// They belong to no folder of the cloud: who may use the images of all folders may use them.
    #[arg(long, value_name = "DIR", env = "IMAGE_SERVER_SNAPSHOT_DIR", hide_env = true)]
    snapshot_dir: Option<PathBuf>,
    /// Folder of disks, as that of snapshots. A disk must not change while an image is made of it.
    #[arg(long, value_name = "DIR", env = "IMAGE_SERVER_DISK_DIR", hide_env = true)]
    disk_dir: Option<PathBuf>,
    /// Bucket of the store whose objects images are made from by name, gs://BUCKET/OBJECT; repeatable.
    ///
    /// They are read with the server's rights by whoever may create images, in one folder or in all. What the server keeps itself
    /// is never read so.
    #[arg(
        long = "source-bucket",
        value_name = "BUCKET[@FOLDER]",
        value_delimiter = ',',
        env = "IMAGE_SERVER_SOURCE_BUCKET",
        hide_env = true
    )]
    source_buckets: Vec<SourceBucket>,
    /// Memory of one ingest: bytes, or a number with K, M, G or T.
    #[arg(short, long, value_name = "SIZE", default_value = "192M", value_parser = parse_size, env = "IMAGE_SERVER_MEMORY", hide_env = true)]
    memory: u64,
    /// CPU workers; as many as there are cores if not given.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), env = "IMAGE_SERVER_JOBS", hide_env = true)]
    jobs: Option<u16>,
    /// Serve /metrics, /healthz and /readyz here too, by plain http and without tokens.
    #[arg(long, value_name = "ADDR", env = "IMAGE_SERVER_METRICS_LISTEN", hide_env = true)]
    metrics_listen: Option<SocketAddr>,
    /// How the log is written.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        env = "IMAGE_SERVER_LOG_FORMAT",
        hide_env = true
    )]
    log_format: LogFormat,
    #[command(flatten)]
    limits: LimitArgs,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Limits: numbers, sizes as for --memory, times as a number with ms, s, m, h or d.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Ingests that run at once.
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..), env = "IMAGE_SERVER_RUNNING_INGESTS", hide_env = true)]
    running_ingests: u16,
    /// Operations that may wait for them.
    #[arg(
        long,
        value_name = "N",
        default_value = "100",
        env = "IMAGE_SERVER_QUEUED_OPERATIONS",
        hide_env = true
    )]
    queued_operations: u32,
    /// Images that may be created in a folder each second, on average over ten.
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        env = "IMAGE_SERVER_CREATES_PER_SECOND",
        hide_env = true
    )]
    creates_per_second: u32,
    /// What the images of a folder may store [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, env = "IMAGE_SERVER_FOLDER_QUOTA", hide_env = true)]
    folder_quota: Option<u64>,
    /// What copies of pooled images may take in --pool [default: nothing, none is pooled]
    #[arg(long, value_name = "SIZE", requires = "pool", value_parser = parse_size, env = "IMAGE_SERVER_POOL_QUOTA", hide_env = true)]
    pool_quota: Option<u64>,
    /// Readers of the content of images at a time.
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..), env = "IMAGE_SERVER_CONTENT_READERS", hide_env = true)]
    content_readers: u16,
    /// Memory of all ingests [default: --running-ingests times --memory and 32M, and 256M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, env = "IMAGE_SERVER_TOTAL_MEMORY", hide_env = true)]
    total_memory: Option<u64>,
    /// Largest disk.
    #[arg(long, value_name = "SIZE", default_value = "64T", value_parser = parse_size, env = "IMAGE_SERVER_MAX_VIRTUAL_SIZE", hide_env = true)]
    max_virtual_size: u64,
    /// Memory for the map of one image.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size, env = "IMAGE_SERVER_MAX_METADATA", hide_env = true)]
    max_metadata: u64,
    /// Longest time of an ingest.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration, env = "IMAGE_SERVER_INGEST_TIME", hide_env = true)]
    ingest_time: Duration,
    /// Longest time for a connection to a source.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, env = "IMAGE_SERVER_HTTP_CONNECT_TIMEOUT", hide_env = true)]
    http_connect_timeout: Duration,
    /// Longest time until a source answers.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, env = "IMAGE_SERVER_HTTP_FIRST_BYTE_TIMEOUT", hide_env = true)]
    http_first_byte_timeout: Duration,
    /// Longest time without a byte.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, env = "IMAGE_SERVER_HTTP_IDLE_TIMEOUT", hide_env = true)]
    http_idle_timeout: Duration,
    /// Bytes a second that each answer of a source must bring.
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = parse_size, env = "IMAGE_SERVER_HTTP_MIN_RATE", hide_env = true)]
    http_min_rate: u64,
    /// Over which that is measured.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration, env = "IMAGE_SERVER_HTTP_RATE_WINDOW", hide_env = true)]
    http_rate_window: Duration,
}

impl From<LimitArgs> for Limits {
    fn from(args: LimitArgs) -> Self {
        Self {
            running_ingests: args.running_ingests.into(),
            queued_operations: args.queued_operations,
            creates_per_second: args.creates_per_second,
            folder_quota: args.folder_quota,
            pool_quota: args.pool_quota.unwrap_or_default(),
            content_readers: args.content_readers.into(),
            total_memory: args.total_memory,
            max_virtual_size: args.max_virtual_size,
            max_metadata: args.max_metadata,
            ingest_time: args.ingest_time,
            http: TimeLimits {
                connect: args.http_connect_timeout,
                first_byte: args.http_first_byte_timeout,
                idle: args.http_idle_timeout,
                min_rate: args.http_min_rate,
                rate_window: args.http_rate_window,
            },
        }
    }
}

/// Reads the arguments, the environment, and the file that they name. Ends the process where they ask for help or make no sense.
pub(crate) fn parse(mut arguments: Vec<OsString>) -> anyhow::Result<Command> {
    let command = Cli::command();
    // What is missing may stand in the file.
    let said = command.clone().ignore_errors(true).get_matches_from(&arguments);
    if let Some(("serve", said)) = said.subcommand()
        && let Some(path) = said.get_one::<PathBuf>("config")
    {
        let read = std::fs::read_to_string(path).map_err(anyhow::Error::from);
        let added = read.and_then(|text| file::arguments(&text, &command, said));
        arguments.extend(added.with_context(|| format!("cannot use `{}`", path.display()))?);
    }
    let matches = command.get_matches_from(arguments);
    Ok(Cli::from_arg_matches(&matches)?.command)
}

impl Place {
    /// What a server there is made from, with defaults for everything else.
    pub(crate) fn into_config(self) -> Config {
        let mut config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), self.data_dir);
        config.database_url = self.database_url;
        config.pool = self.pool;
        if let Some(uri) = self.bucket {
            let store = StoreConfig { endpoint_url: self.s3_endpoint, ..StoreConfig::default() };
            config.storage = Storage::Bucket { uri, config: store.into() };
        }
        config
    }
}

impl Serve {
    /// What the server is made from.
    pub(crate) fn into_config(self) -> anyhow::Result<Config> {
        let audiences = if self.audiences.is_empty() { Access::default().audiences } else { self.audiences };
        let tls = self.tls_cert.zip(self.tls_key);
        // Not by the parser of arguments: it would print what it refuses.
        let tokens: Result<Vec<Token>, _> = self.tokens.iter().map(|token| token.parse()).collect();
        let volumes = |dir: PathBuf| Arc::new(VolumeFolder::new(dir)) as Arc<dyn Volumes>;
        Ok(Config {
            listen: self.listen,
            metrics: self.metrics_listen,
            access: Access { account_keys: self.account_keys, grants: self.grants, audiences },
            advertised: self.advertise,
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
            tokens: tokens.context("what --token or IMAGE_SERVER_TOKEN holds is not a token")?,
            allowed_uri_hosts: self.allowed_uri_hosts,
            allow_http: self.allow_http,
            allow_private_hosts: self.allow_private_hosts,
            volumes: VolumeSources {
                snapshots: self.snapshot_dir.map(volumes),
                disks: self.disk_dir.map(volumes),
            },
            source_buckets: self.source_buckets,
            memory: self.memory,
            jobs: self.jobs.map(usize::from),
            limits: self.limits.into(),
            ..self.place.into_config()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve_arguments() -> Vec<clap::Arg> {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        serve.get_arguments().filter(|arg| arg.get_long().is_some()).cloned().collect()
    }

    #[test]
    fn every_option_has_its_variable() {
        for arg in serve_arguments() {
            let long = arg.get_long().unwrap();
            let variable = format!("IMAGE_SERVER_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(variable.as_str()), "{long}");
        }
    }

    #[test]
    fn every_limit_that_an_error_names_is_an_option() {
        let options = serve_arguments();
        for limit in [
            "content-readers",
            "creates-per-second",
            "folder-quota",
            "http-connect-timeout",
            "http-first-byte-timeout",
            "http-idle-timeout",
            "http-min-rate",
            "ingest-time",
            "max-metadata",
            "max-virtual-size",
            "pool-quota",
            "queued-operations",
        ] {
            assert!(options.iter().any(|arg| arg.get_long() == Some(limit)), "{limit}");
        }
    }

    #[test]
    fn what_is_not_said_is_the_librarys_default() {
        let cli = Cli::try_parse_from(["image-server", "serve", "--data-dir", "d"]).unwrap();
        let Command::Serve(serve) = cli.command else { panic!("serve") };
        let config = serve.into_config().unwrap();
        assert_eq!(format!("{:?}", config.limits), format!("{:?}", Limits::default()));
        assert_eq!(config.memory, Config::new(config.listen, "d").memory);
    }
}
