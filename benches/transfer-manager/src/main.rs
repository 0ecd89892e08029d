//! An uploader made of AWS's transfer manager for Rust: what somebody would write with it in an afternoon, with its checksums on.
//!
//! `peer-transfer-manager FILE BUCKET KEY`; endpoint, region and keys are those of the environment. Parts of 8 MiB, eight at a time:
//! what it took least time with on two cores.

use anyhow::{Context as _, Result};
use aws_sdk_s3_transfer_manager::io::InputStream;
use aws_sdk_s3_transfer_manager::operation::upload::ChecksumStrategy;
use aws_sdk_s3_transfer_manager::types::{ConcurrencyMode, PartSize};
use aws_sdk_s3_transfer_manager::{Client, Config};

const PART_LEN: u64 = 8 << 20;
const IN_FLIGHT: usize = 8;

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mut next = |name: &str| words.next().with_context(|| format!("{name} is missing"));
    let (file, bucket, key) = (next("FILE")?, next("BUCKET")?, next("KEY")?);
    let config = aws_config::load_from_env().await;
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true);
    let config = Config::builder()
        .s3_config(s3)
        .part_size(PartSize::Target(PART_LEN))
        .concurrency(ConcurrencyMode::Explicit(IN_FLIGHT))
        .build();
    let upload = Client::new(config)
        .upload()
        .bucket(bucket)
        .key(key)
        .checksum_strategy(ChecksumStrategy::with_calculated_crc32())
        .body(InputStream::from_path(file)?)
        .initiate()?;
    upload.join().await?;
    Ok(())
}
