//! Reads what an image server stored, by the library that any other program would use.
//!
//! For `cargo xtask images` and `garage`. The store is that of a local cloud's folder, while no server runs on it, or the one that
//! the AWS variables name.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use block_store::BlockStore;
use clap::{Parser, Subcommand};
use disk_convert::{FileSink, Options, References, convert, open_image};
use disk_image::{Format, ObjectMap, OpenOptions};
use object_io::{BucketUri, Credentials, Store, StoreConfig};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// Reads what an image server stored.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Folder of a local cloud
    #[arg(long, value_name = "DIR", required_unless_present = "bucket")]
    local: Option<PathBuf>,
    /// Bucket of an image server; credentials from the environment
    #[arg(long, value_name = "s3://B", requires = "s3_endpoint", conflicts_with = "local")]
    bucket: Option<BucketUri>,
    /// The bucket's store
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write an Image to a raw file, and print the guest digest of its manifest
    Image {
        /// Its identifier
        id: String,
        /// The file
        out: PathBuf,
    },
    /// List what the bucket holds beside blocks and manifests: objects and unfinished uploads
    Strangers,
}

/// `store.json` in the folder of a local cloud, as the image server writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoreFile {
    region: String,
    bucket: String,
    access_key: String,
    secret_key: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let stop = CancellationToken::new();
    let (store, uri, serving) = match (&cli.local, &cli.bucket) {
        (Some(folder), _) => start_local(folder, &stop).await?,
        (None, Some(uri)) => {
            let config = StoreConfig { endpoint_url: cli.s3_endpoint.clone(), ..StoreConfig::default() };
            (Store::connect(config).await?, uri.clone(), None)
        }
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let never = CancellationToken::new();
    let found = match &cli.command {
        Command::Image { id, out } => {
            let blocks = BlockStore::new(store, uri.bucket(), uri.prefix());
            read(&blocks, id, out, &never).await
        }
        Command::Strangers => strangers(&store, &uri, &never).await,
    };
    stop.cancel();
    if let Some(serving) = serving {
        serving.await??;
    }
    write!(std::io::stdout(), "{}", found?)?;
    Ok(())
}

type Serving = tokio::task::JoinHandle<Result<(), local_store::Error>>;

/// Serves the store of a local cloud on a port of its own.
async fn start_local(folder: &Path, stop: &CancellationToken) -> Result<(Store, BucketUri, Option<Serving>)> {
    let text = std::fs::read(folder.join("store.json")).context("the folder holds no local cloud")?;
    let file: StoreFile = serde_json::from_slice(&text)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let credentials =
        local_store::Credentials { access_key: file.access_key.clone(), secret_key: file.secret_key.clone() };
    let config = local_store::Config { dir: folder.join("store"), region: file.region.clone(), credentials };
    let serving = tokio::spawn(local_store::serve(listener, config, stop.clone()));
    let store = Store::connect(StoreConfig {
        endpoint_url: Some(endpoint),
        region: Some(file.region),
        credentials: Some(Credentials::new(file.access_key, file.secret_key)),
        ..StoreConfig::default()
    })
    .await?;
    Ok((store, format!("s3://{}/.blocks", file.bucket).parse()?, Some(serving)))
}

/// Writes the Image's content to `out`; gives the guest digest of its manifest.
async fn read(blocks: &BlockStore, id: &str, out: &Path, cancel: &CancellationToken) -> Result<String> {
    let options = Options::default();
    // Which of several an Image has, the catalog knows; of those of unfinished attempts none is left here.
    let names = blocks.stored_manifests(cancel).await?;
    let mut names = names.iter().filter(|name| name.rsplit_once('.').is_some_and(|(image, _)| image == id));
    let (Some(name), None) = (names.next(), names.next()) else {
        anyhow::bail!("the store has no manifest of {id}, or more than one");
    };
    let manifest = blocks.load(name, cancel).await?;
    let (digest, len) = (manifest.guest_digest(), manifest.virtual_size());
    let source = Arc::new(blocks.source(id, manifest, &options.workers));
    let how = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    let disk = open_image(source, &how, &References::Deny, &options, cancel).await?;
    let sink = FileSink::create(out, len)?;
    convert(&disk, &ObjectMap::raw(len), sink, &options, cancel).await?;
    Ok(format!("{digest}\n"))
}

/// Keys of objects outside the folder of blocks, and of unfinished uploads, a line each.
async fn strangers(store: &Store, uri: &BucketUri, cancel: &CancellationToken) -> Result<String> {
    let folder = format!("{}/", uri.prefix().trim_end_matches('/'));
    let mut found = String::new();
    let mut from = None;
    loop {
        let page = store.list(uri.bucket(), "", from.as_ref(), cancel).await?;
        for object in page.objects.iter().filter(|object| !object.key.starts_with(&folder)) {
            writeln!(found, "object {}", object.key)?;
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    for upload in store.list_uploads(uri.bucket(), "", cancel).await? {
        writeln!(found, "unfinished upload {}", upload.key)?;
    }
    Ok(found)
}
