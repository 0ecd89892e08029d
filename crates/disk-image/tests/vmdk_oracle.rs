//! VMDK files made and judged by qemu-img: every guest byte, every extent, every truncation.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};

use support::vmdk::Builder;
use support::{Numbers, assert_gapless, open, qemu, read_all};

const MIB: u64 = 1 << 20;
const GRAIN: u64 = 64 << 10;

/// Opens a file and compares its bytes and its extents with what qemu-img says of it.
fn assert_agrees(path: &Path) {
    let file = std::fs::read(path).unwrap();
    let image = open(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_gapless(&image);
    let ours = read_all(&image, &file).unwrap();
    let theirs = qemu::raw("vmdk", path);
    assert_eq!(ours.len(), theirs.len(), "{}", path.display());
    let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{}", path.display());
    assert_eq!(qemu::our_map(&image), qemu::map("vmdk", path), "{}", path.display());
}

/// A raw disk with runs of every sort: random, repeating, single sectors, and long holes.
fn raw_disk(dir: &Path, len: u64) -> PathBuf {
    let mut numbers = Numbers::seeded(len);
    let mut disk = vec![0; len as usize];
    let mut at = 0;
    while at < len {
        let run = [512, 4096, GRAIN, 3 * GRAIN + 512, MIB][numbers.below(5) as usize].min(len - at) as usize;
        let into = &mut disk[at as usize..][..run];
        match numbers.below(4) {
            0 => into.copy_from_slice(&numbers.bytes(run)),
            1 => into.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i >> 5) as u8),
            _ => {}
        }
        at += run as u64;
    }
    // The last sector is data, so that the last grain exists, and is odd where the length is.
    disk[len as usize - 512..].copy_from_slice(&numbers.bytes(512));
    let path = dir.join(format!("{len}.raw"));
    std::fs::write(&path, disk).unwrap();
    path
}

#[test]
fn converted_images_agree() {
    if !qemu::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for len in [512, GRAIN, GRAIN + 512, 3 * MIB, 33 * MIB + 5 * 512, 70 * MIB - 512] {
        let raw = raw_disk(dir.path(), len);
        for options in [
            "subformat=monolithicSparse",
            "subformat=monolithicSparse,zeroed_grain=on",
            "subformat=streamOptimized",
            "subformat=streamOptimized,zeroed_grain=on",
        ] {
            let path = dir.path().join("converted.vmdk");
            qemu::img(&[
                "convert",
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                options,
                qemu::text(&raw),
                qemu::text(&path),
            ]);
            assert_agrees(&path);
        }
    }
}

/// Writes in any order scatter the grains; zeroes are written with and without zero grains.
#[test]
fn written_images_agree() {
    if !qemu::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let len = 70 * MIB + 512;
    for seed in 0..6 {
        let path = dir.path().join("written.vmdk");
        let zeroed = if seed % 2 == 0 { "on" } else { "off" };
        let options = format!("subformat=monolithicSparse,zeroed_grain={zeroed}");
        qemu::img(&["create", "-q", "-f", "vmdk", "-o", &options, qemu::text(&path), &len.to_string()]);
        let mut numbers = Numbers::seeded(seed);
        let commands: Vec<String> = (0..60)
            .map(|i| {
                let at = numbers.below(len / 512) * 512;
                let run = (numbers.below(400) * 512 + 512).min(len - at);
                match numbers.below(3) {
                    0 => {
                        let at = at / GRAIN * GRAIN;
                        format!("write -z {at} {}", (run.next_multiple_of(GRAIN)).min(len - at))
                    }
                    _ => format!("write -P {} {at} {run}", i + 1),
                }
            })
            .collect();
        qemu::io("vmdk", &path, &commands);
        assert_agrees(&path);
    }
}

/// An image over two tables of which only the second is used, and one without any grain.
#[test]
fn sparse_images_agree() {
    if !qemu::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for options in ["subformat=monolithicSparse", "subformat=streamOptimized"] {
        let path = dir.path().join("sparse.vmdk");
        qemu::img(&["create", "-q", "-f", "vmdk", "-o", options, qemu::text(&path), "100M"]);
        assert_agrees(&path);
        qemu::io("vmdk", &path, &["write -P 5 70M 64k".into()]);
        assert_agrees(&path);
    }
}

/// qemu-img reads footers and never writes them: it judges the files that are made by hand.
#[test]
fn hand_made_images_agree() {
    if !qemu::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let capacity = 700 * 128 + 3;
    for empty in [
        Builder::sparse(capacity),
        Builder { flags: 5, ..Builder::sparse(capacity) },
        Builder::stream(capacity),
        Builder { footer: false, ..Builder::stream(capacity) },
        Builder { flags: 0x30005, ..Builder::stream(capacity) },
    ] {
        let mut numbers = Numbers::seeded(capacity);
        let mut builder = [0, 1, 2, 511, 512, 513, 700]
            .into_iter()
            .fold(empty, |builder, grain| builder.grain(grain, numbers.bytes(GRAIN as usize)));
        if builder.flags & 4 != 0 {
            builder = builder.zero_grain(3).zero_grain(4).zero_grain(600);
        }
        for order in [vec![], vec![700, 0, 513, 2, 1, 512, 511]] {
            let builder = Builder { order, ..builder.clone() };
            let path = dir.path().join("hand.vmdk");
            std::fs::write(&path, builder.build().bytes).unwrap();
            assert_agrees(&path);
            assert_eq!(qemu::raw("vmdk", &path), builder.guest());
        }
    }
}

/// qemu-img reads a cut image as if nothing were wrong; here a cut that takes guest bytes is an error while opening.
#[test]
fn cut_images_are_refused() {
    if !qemu::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_disk(dir.path(), 5 * MIB + 512);
    let guest = std::fs::read(&raw).unwrap();
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let path = dir.path().join("whole.vmdk");
        let options = format!("subformat={subformat}");
        qemu::img(&[
            "convert",
            "-f",
            "raw",
            "-O",
            "vmdk",
            "-o",
            &options,
            qemu::text(&raw),
            qemu::text(&path),
        ]);
        let file = std::fs::read(&path).unwrap();
        // QEMU fills the last grain up, also a compressed one. A cut that takes only that takes nothing from the guest.
        let (mut theirs, mut ours) = (0, 0);
        for percent in 0..100 {
            let cut = file.len() * percent / 100;
            match open(&file[..cut]) {
                Err(_) => ours += 1,
                Ok(image) => {
                    assert!(cut >= file.len() - GRAIN as usize, "{subformat} cut to {percent} %");
                    assert_eq!(
                        read_all(&image, &file[..cut]).unwrap(),
                        guest,
                        "{subformat} cut to {percent} %"
                    );
                }
            }
            let path = dir.path().join("cut.vmdk");
            std::fs::write(&path, &file[..cut]).unwrap();
            theirs += u32::from(!qemu::accepts("vmdk", &path));
        }
        eprintln!("{subformat} cut to 0..99 %: {ours} refused here, {theirs} by qemu-img");
    }
}

/// An extent of a split disk alone is told from a damaged file; so is its descriptor.
#[test]
fn split_images_are_named() {
    if !qemu::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let unsupported = |file: &Path| open(&std::fs::read(file).unwrap()).unwrap_err();
    for (subformat, extent) in [
        ("twoGbMaxExtentSparse", Some("split-s001.vmdk")),
        ("monolithicFlat", None),
        ("twoGbMaxExtentFlat", None),
    ] {
        let path = dir.path().join("split.vmdk");
        let options = format!("subformat={subformat}");
        qemu::img(&["create", "-q", "-f", "vmdk", "-o", &options, qemu::text(&path), "8M"]);
        assert!(unsupported(&path).to_string().contains(subformat), "{}", unsupported(&path));
        if let Some(extent) = extent {
            let found = unsupported(&dir.path().join(extent));
            assert!(found.to_string().contains("descriptor"), "{found}");
        }
    }
    let base = dir.path().join("base.vmdk");
    let delta = dir.path().join("delta.vmdk");
    qemu::img(&["create", "-q", "-f", "vmdk", qemu::text(&base), "8M"]);
    qemu::img(&["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", qemu::text(&base), qemu::text(&delta)]);
    assert!(unsupported(&delta).to_string().contains("a backing file"));
}
