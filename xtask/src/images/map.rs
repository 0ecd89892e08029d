//! `map --json` against `qemu-img map --output=json`.
//!
//! The two may cut extents differently, and ours need not lie where qemu-img's do. What must agree is what each byte is.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::repo::output;

/// An extent, as far as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Extent {
    start: u64,
    length: u64,
    zero: bool,
    data: bool,
    #[serde(default)]
    compressed: bool,
}

/// Compares the maps of one image; gives the number of runs that both have.
pub(super) fn check(image_prep: &Path, image: &Path) -> Result<String> {
    let format = if image.extension().is_some_and(|ext| ext == "raw") { &["-f", "raw"][..] } else { &[] };
    let theirs = output(Command::new("qemu-img").args(["map", "--output=json"]).args(format).arg(image))?;
    let theirs = merged(serde_json::from_str(&theirs).context("qemu-img map")?);
    let mut map = Command::new(image_prep);
    map.args(["map", "--json", "--quiet"]).arg(image);
    if !format.is_empty() {
        map.args(["--format", "raw"]);
    }
    let ours = merged(serde_json::from_str(&output(&mut map)?).context("image-prep map")?);
    compare(&ours, &theirs)?;
    Ok(format!("{} runs", ours.len()))
}

/// Compares two maps in JSON.
pub(crate) fn same(ours: &str, theirs: &str) -> Result<()> {
    let read = |map| serde_json::from_str(map).context("no map in JSON");
    compare(&merged(read(ours)?), &merged(read(theirs)?))
}

/// Joins neighbours that say the same.
fn merged(extents: Vec<Extent>) -> Vec<Extent> {
    let mut runs: Vec<Extent> = Vec::new();
    for extent in extents {
        if let Some(last) = runs.last_mut()
            && last.start + last.length == extent.start
            && (last.zero, last.data, last.compressed) == (extent.zero, extent.data, extent.compressed)
        {
            last.length += extent.length;
        } else {
            runs.push(extent);
        }
    }
    runs
}

fn compare(ours: &[Extent], theirs: &[Extent]) -> Result<()> {
    for (ours, theirs) in ours.iter().zip(theirs) {
        if ours != theirs {
            bail!("image-prep says {ours:?}, qemu-img says {theirs:?}");
        }
    }
    let end = |runs: &[Extent]| runs.last().map_or(0, |last| last.start + last.length);
    if ours.len() != theirs.len() {
        bail!("image-prep's map ends at {:#x}, qemu-img's at {:#x}", end(ours), end(theirs));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, length: u64, data: bool) -> Extent {
        Extent { start, length, zero: !data, data, compressed: false }
    }

    #[test]
    fn cuts_do_not_matter_bytes_do() {
        let whole = merged(vec![extent(0, 10, true), extent(10, 90, false)]);
        let cut = merged(vec![extent(0, 5, true), extent(5, 5, true), extent(10, 90, false)]);
        compare(&whole, &cut).unwrap();
        let other = merged(vec![extent(0, 11, true), extent(11, 89, false)]);
        compare(&whole, &other).unwrap_err();
        compare(&whole, &whole[..1]).unwrap_err();
    }
}
