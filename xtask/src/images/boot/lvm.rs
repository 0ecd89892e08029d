//! A physical volume of LVM with a logical one in it.
//!
//! lvm takes block devices only, so a loop device is wanted, and with it root. No volume is activated: the kernel's device mapper is
//! not everywhere. The logical volume comes with metadata that are restored, as after a loss.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::disk::MIB;
use super::tools::tool;
use crate::repo::output;

/// Ids as lvm makes them.
const PV: &str = "0GtVbP-n0Qj-d2Fl-qJ5K-cSgT-x9Rk-u1OaZe";
const VG: &str = "1HsWcQ-m1Pk-e3Gm-rI6L-dThU-y8Sl-v2NbYf";
const LV: &str = "2JrXdR-k2Ol-f4Hn-sH7M-eUiV-z7Tm-w3McXg";

/// Bytes of an extent: lvm's default.
const EXTENT: u64 = 4 * MIB;

/// Length of the logical volume in one of this length; it begins at 1 MiB.
pub(super) fn size(len: u64) -> u64 {
    (len - MIB) / EXTENT * EXTENT
}

/// Makes one of a file of this length.
pub(super) fn make(file: &Path, len: u64) -> Result<String> {
    let extents = size(len) / EXTENT;
    let metadata = format!(
        "contents = \"Text Format Volume Group\"\nversion = 1\nvg {{\nid = \"{VG}\"\nseqno = 2\nformat = \"lvm2\"\nstatus = \
         [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\nextent_size = {}\nmax_lv = 0\nmax_pv = 0\nphysical_volumes {{\npv0 \
         {{\nid = \"{PV}\"\nstatus = [\"ALLOCATABLE\"]\nflags = []\ndev_size = {}\npe_start = 2048\npe_count = \
         {extents}\n}}\n}}\nlogical_volumes {{\nroot {{\nid = \"{LV}\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = \
         []\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = {extents}\ntype = \"striped\"\nstripe_count = \
         1\nstripes = [\"pv0\", 0]\n}}\n}}\n}}\n}}\n",
        EXTENT / 512,
        len / 512,
    );
    let saved = file.with_extension("vg");
    fs::write(&saved, metadata)?;
    let device = output(tool("losetup").args(["--find", "--show"]).arg(file));
    let device = device.context("LVM wants a loop device, and with it root; `--only` leaves it out")?;
    let device = device.trim();
    let config = format!(
        "devices {{ filter=[\"a|^{device}$|\",\"r|.*|\"] use_devicesfile=0 }} backup {{ backup=0 archive=0 }}"
    );
    let lvm =
        |words: &[&str]| output(tool("lvm").arg(words[0]).args(["--config", &config]).args(&words[1..]));
    let saved = saved.display().to_string();
    let made = lvm(&["pvcreate", "--quiet", "--uuid", PV, "--restorefile", &saved, device])
        .and_then(|_| lvm(&["vgcfgrestore", "--quiet", "--force", "--file", &saved, "vg"]));
    output(tool("losetup").args(["--detach", device]))?;
    fs::remove_file(saved)?;
    made
}
