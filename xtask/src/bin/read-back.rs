//! Reads a stored Image back out of its blocks into a raw file, and prints the guest digest that its manifest records.
//!
//! For `cargo xtask images` and `garage`: what the image server stored is read by the library that any other program would use,
//! while no server runs. The store is that of a local cloud's folder, or the one that the AWS variables name.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use block_store::BlockStore;
use clap::Parser;
use disk_convert::{FileSink, Options, convert, open_image};
use disk_image::{Format, ObjectMap, OpenOptions};
use object_io::{BucketUri, Credentials, Store, StoreConfig};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// Reads a stored Image back into a raw file, and prints the guest digest of its manifest.
#[derive(Debug, Parser)]
struct Cli {
    /// Folder of a local cloud
    #[arg(long, value_name = "DIR", required_unless_present = "bucket")]
    local: Option<PathBuf>,
    /// Bucket of an image server; credentials from the environment
    #[arg(long, value_name = "s3://B", requires = "s3_endpoint", conflicts_with = "local")]
    bucket: Option<BucketUri>,
    /// The bucket's store
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Identifier of the Image
    image_id: String,
    /// Raw file to write
    out: PathBuf,
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
    let blocks = BlockStore::new(store, uri.bucket(), uri.prefix());
    let read = read(&blocks, &cli.image_id, &cli.out, &stop).await;
    stop.cancel();
    if let Some(serving) = serving {
        serving.await??;
    }
    writeln!(std::io::stdout(), "{}", read?)?;
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
        force_path_style: Some(true),
        ..StoreConfig::default()
    })
    .await?;
    Ok((store, format!("s3://{}/.blocks", file.bucket).parse()?, Some(serving)))
}

/// Writes the Image's content to `out`; gives the guest digest of its manifest.
async fn read(blocks: &BlockStore, id: &str, out: &Path, cancel: &CancellationToken) -> Result<String> {
    let options = Options::default();
    let manifest = blocks.load(id, cancel).await?;
    let (digest, len) = (manifest.guest_digest(), manifest.virtual_size());
    let source = Arc::new(blocks.source(id, manifest, &options.workers));
    let disk = open_image(source, &OpenOptions { format: Some(Format::Raw) }, &options, cancel).await?;
    let sink = FileSink::create(out, len)?;
    convert(&disk, &ObjectMap::raw(len), sink, &options, cancel).await?;
    Ok(digest.to_string())
}
