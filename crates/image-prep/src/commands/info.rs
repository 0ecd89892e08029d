//! `info`: what an image is.

use disk_convert::{BLOCK_SIZE, Summary, digest};
use disk_image::{Details, Encoding, ExtentMap, Image};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::InfoArgs;
use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::open::open;
use crate::sizes::min_disk_size;

/// What is known of an image; sizes in bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    image: String,
    format: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
    #[serde(skip)]
    details_text: String,
    virtual_size: u64,
    file_size: u64,
    allocated_size: u64,
    storage_size: u64,
    storage_size_exact: bool,
    min_disk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_digest: Option<String>,
    warnings: Vec<String>,
}

/// Prints what is known.
pub(crate) async fn run(args: &InfoArgs, context: &Context) -> Result<Exit, Error> {
    let disk = open(context, &args.image, &args.open).await?;
    let mut summary = None;
    if args.digest {
        let options = context.options();
        let _shown = context.progress.bytes("reading", options.counters.clone());
        summary = Some(digest(&disk, &options, &context.cancel).await?);
    }
    let info = Info::new(disk.source().name(), disk.source().len(), disk.image(), summary);
    if context.output.is_json() {
        context.output.json(&info)?;
    } else {
        context.output.fields(&info.fields())?;
    }
    Ok(Exit::Done)
}

impl Info {
    fn new(name: &str, file_size: u64, image: &Image, summary: Option<Summary>) -> Self {
        let stats = image.map().stats();
        let (details, details_text) = details(image);
        Self {
            image: name.to_owned(),
            format: image.format().to_string(),
            details,
            details_text,
            virtual_size: image.virtual_size(),
            file_size,
            allocated_size: stats.data + stats.encoded,
            storage_size: summary.map_or_else(|| touched_blocks(image.map()), |summary| summary.storage_size),
            storage_size_exact: summary.is_some(),
            min_disk_size: min_disk_size(image.virtual_size()),
            guest_digest: summary.map(|summary| summary.guest_digest.to_string()),
            warnings: image.warnings().iter().map(ToString::to_string).collect(),
        }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let size = |bytes| format!("{} ({bytes} bytes)", Size(bytes));
        let bound = if self.storage_size_exact { "" } else { "at most " };
        let mut fields = vec![
            ("image", self.image.clone()),
            ("format", format!("{}{}", self.format, self.details_text)),
            ("virtual size", size(self.virtual_size)),
            ("file size", size(self.file_size)),
            ("allocated", size(self.allocated_size)),
            ("storage", format!("{bound}{}", size(self.storage_size))),
            ("minimum disk", size(self.min_disk_size)),
        ];
        fields.extend(self.guest_digest.iter().map(|digest| ("guest digest", digest.clone())));
        fields
    }
}

/// What only this format has: for programs, and for people in parentheses.
fn details(image: &Image) -> (Value, String) {
    match image.details() {
        Details::Raw => (Value::Null, String::new()),
        Details::Qcow2(details) => {
            let compression = if details.compression == Encoding::Zstd { "zstd" } else { "zlib" };
            let (version, clusters) = (details.version, Size(details.cluster_size));
            let value = json!({
                "version": version,
                "clusterSize": details.cluster_size,
                "compressionType": compression,
                "refcountBits": details.refcount_bits,
                "lazyRefcounts": details.lazy_refcounts,
                "snapshots": details.snapshots,
                "bitmaps": details.bitmaps,
            });
            let is_compressed = image.map().stats().encoded > 0;
            let compressed = if is_compressed { format!(", {compression}") } else { String::new() };
            (value, format!(" (version {version}, clusters of {clusters}{compressed})"))
        }
        Details::Vmdk(details) => {
            let (kind, sparse) = (details.create_type, details.sparse);
            let value = json!({
                "createType": kind.to_string(),
                "extents": details.extents,
                "version": sparse.map(|sparse| sparse.version),
                "grainSize": sparse.map(|sparse| sparse.grain_size),
                "compressed": sparse.is_some_and(|sparse| sparse.compressed),
            });
            let extents =
                if details.extents > 1 { format!(", {} extents", details.extents) } else { String::new() };
            let grains = sparse.map(|sparse| format!(", grains of {}", Size(sparse.grain_size)));
            (value, format!(" ({kind}{extents}{})", grains.unwrap_or_default()))
        }
    }
}

/// Bytes of the blocks in which anything is stored: what the cloud stores, unless some of it is zero.
fn touched_blocks(map: &ExtentMap) -> u64 {
    // First block that is not counted yet.
    let mut next = 0;
    let mut bytes = 0;
    for extent in map.iter().filter(|extent| extent.state.is_stored()) {
        let first = (extent.guest.start / BLOCK_SIZE).max(next);
        let end = extent.guest.end().div_ceil(BLOCK_SIZE);
        if first < end {
            bytes += (end * BLOCK_SIZE).min(map.guest_len()) - first * BLOCK_SIZE;
            next = end;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use disk_image::{ExtentMapBuilder, State, Stored};

    use super::*;

    #[test]
    fn a_block_counts_once_and_the_last_one_as_long_as_it_is() {
        let mut map = ExtentMapBuilder::new();
        for at in 0..4 {
            map.push(512, State::Data(Stored::image(at << 20, 512)));
            map.push(512, State::Zero);
        }
        map.push(BLOCK_SIZE * 3 - 4096 + 1024, State::Hole);
        map.push(512, State::Data(Stored::image(0, 512)));
        let map = map.finish(BLOCK_SIZE * 3 + 2048);
        assert_eq!(touched_blocks(&map), BLOCK_SIZE + 2048);
    }
}
