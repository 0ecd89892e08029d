//! `bench-ingest URL raw FILE` and `bench-ingest URL blocks BUCKET`: one ingest by the library, for `cargo xtask bench --ingest`.
//!
//! From the URL of a host that is trusted, with the policy and the memory that image-server has by default, into a raw file, as the
//! peers write one, or into blocks in the store that the AWS variables name. Both hash every block, which no peer does. Prints what
//! the ingest came to as JSON.

// A command line's results go to standard output.
#![allow(clippy::print_stdout)]

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use block_store::BlockStore;
use disk_convert::{Digesting, FileSink};
use image_ingest::{Ingested, Policy, UriPolicy, ingest};
use object_io::{Store, StoreConfig};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use url::Url;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, sink, to] = words.as_slice() else { bail!("expected URL, raw or blocks, and where to") };
    let policy = Policy::new(trusting(url)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ingested = match sink.as_str() {
        "raw" => runtime.block_on(into_file(url, &policy, Path::new(to)))?,
        "blocks" => runtime.block_on(into_blocks(url, &policy, to))?,
        sink => bail!("expected raw or blocks, found {sink}"),
    };
    let digest = ingested.guest_digest.to_string();
    let (stored, size) = (ingested.storage_size, ingested.virtual_size);
    println!("{}", json!({ "guestDigest": digest, "storageSize": stored, "virtualSize": size }));
    Ok(())
}

/// Only the host of this URL, by http, whatever its address.
fn trusting(url: &str) -> Result<UriPolicy> {
    let parsed = Url::parse(url)?;
    let host = parsed.host_str().context("a URL without a host")?;
    let port = parsed.port_or_known_default().context("a URL without a port")?;
    let hosts = vec![format!("{host}:{port}").parse()?];
    Ok(UriPolicy { hosts, allow_http: true, allow_private: true, ..UriPolicy::default() })
}

async fn into_file(url: &str, policy: &Policy, file: &Path) -> Result<Ingested> {
    let sink = |found: &image_ingest::Found| {
        let file = FileSink::create(file, found.virtual_size())?;
        Ok(Digesting::new(file, &policy.options.workers))
    };
    let ingested = ingest(url, policy, sink, &CancellationToken::new()).await?;
    Ok(ingested.map(|_| ()))
}

async fn into_blocks(url: &str, policy: &Policy, bucket: &str) -> Result<Ingested> {
    let never = CancellationToken::new();
    let blocks = BlockStore::new(Store::connect(StoreConfig::default()).await?, bucket, "");
    let sink = |found: &image_ingest::Found| {
        Ok(blocks.sink("image", found.virtual_size(), &policy.options.workers, &never))
    };
    let ingested = ingest(url, policy, sink, &never).await?;
    Ok(ingested.map(|_| ()))
}
