//! The disk that every kind is made from: small, partitioned, ext4 with files of a fixed seed.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::disk::Disk;
use crate::seed::Seed;

/// Length of the disk: small enough for 512-byte clusters, and no multiple of a larger one.
pub(super) const LEN: u64 = (14 << 20) + (512 << 10) + 3584;

/// Makes the raw disk, in `folder` and of its name.
pub(crate) fn make(folder: &Path, raw: &Path) -> Result<()> {
    let tree = crate::watch::fresh(folder.join("tree"))?;
    files(&tree)?;
    // No journal: the disk is small, and a journal is mostly zeroes.
    Disk { len: LEN, tree: &tree, start: 1 << 20, mkfs: &["-O", "^has_journal", "-b", "1024"] }.make(raw)?;
    fs::remove_dir_all(tree)?;
    Ok(())
}

/// What systems hold: text that compresses well, noise that does not, small files, a sparse one.
fn files(tree: &Path) -> Result<()> {
    let mut seed = Seed::new(1, "tree");
    for (folder, count, largest) in [("etc", 60, 4_000), ("usr/bin", 6, 300_000), ("var/log", 4, 500_000)] {
        fs::create_dir_all(tree.join(folder))?;
        for number in 0..count {
            let len = usize::try_from(1 + seed.below(largest))?;
            let bytes = if number % 2 == 0 { text(&mut seed, len) } else { seed.bytes(len) };
            fs::write(tree.join(folder).join(format!("file-{number}")), bytes)?;
        }
    }
    let sparse = fs::File::create(tree.join("var/sparse"))?;
    sparse.set_len(3 << 20)?;
    Ok(())
}

fn text(seed: &mut Seed, len: usize) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "disk",
        "image",
        "cluster",
        "grain",
        "root:x:0:0",
        "enabled=1",
        "/usr/lib",
        "kernel:",
        "listen",
        "server",
        "\n",
        "\t# ",
    ];
    let mut text = Vec::with_capacity(len + 16);
    while text.len() < len {
        text.extend_from_slice(WORDS[usize::try_from(seed.below(12)).unwrap_or(0)].as_bytes());
        text.push(b' ');
    }
    text.truncate(len);
    text
}
