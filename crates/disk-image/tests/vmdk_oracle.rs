//! VMDK files made and judged by qemu-img: every guest byte, every extent, every truncation.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/vmdk.rs"]
mod vmdk;

use bytes::Bytes;
use disk_image::{OpenError, OpenOptions};
use driver::Disk;
use qemu::{Dice, Lab, seen};
use vmdk::{Builder, GRAIN, ODD_CAPACITY};

const MIB: usize = 1 << 20;

fn open(file: &[u8]) -> Result<Disk, OpenError> {
    Disk::parse(Bytes::copy_from_slice(file), &OpenOptions::default())
}

/// Compares guest bytes and extents with what QEMU says of a file.
fn assert_agrees(lab: &Lab, file: &str) -> Disk {
    let disk = Disk::open(&lab.path(file));
    let ours = disk.guest().unwrap_or_else(|error| panic!("{file}: {error}"));
    let theirs = lab.guest(file);
    assert_eq!(ours.len(), theirs.len(), "{file}");
    let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{file}: first different byte");
    assert_eq!(seen(disk.image.map().iter()), lab.map(file), "{file}");
    disk
}

/// A raw disk of stretches of every sort. Its last sector is data, so that the last grain exists.
fn raw_disk(len: usize) -> Vec<u8> {
    let mut disk = Dice(len as u64).disk(len);
    disk[len - 512..].fill(0xe5);
    disk
}

#[test]
fn converted_images_agree() {
    let Some(lab) = Lab::new() else { return };
    for len in [512, GRAIN, GRAIN + 512, 3 * MIB, 33 * MIB + 5 * 512, 70 * MIB - 512] {
        lab.raw("in.raw", &raw_disk(len));
        for options in [
            "subformat=monolithicSparse",
            "subformat=monolithicSparse,zeroed_grain=on",
            "subformat=streamOptimized",
            "subformat=streamOptimized,zeroed_grain=on",
        ] {
            lab.img(&format!("convert -f raw -O vmdk -o {options} in.raw converted.vmdk"));
            let disk = assert_agrees(&lab, "converted.vmdk");
            let stats = disk.image.map().stats();
            assert_eq!(stats.encoded > 0, options.contains("stream"), "{options}: {stats:?}");
        }
    }
}

/// Writes in any order scatter the grains; zeroes are written with and without zero grains.
#[test]
fn written_images_agree() {
    let Some(lab) = Lab::new() else { return };
    let len = 70 * MIB as u64 + 512;
    for seed in 0..6 {
        let zeroed = ["on", "off"][seed as usize % 2];
        let options = format!("subformat=monolithicSparse,zeroed_grain={zeroed}");
        lab.img(&format!("create -q -f vmdk -o {options} written.vmdk {len}"));
        let mut dice = Dice(seed);
        let commands: Vec<String> = (1..60)
            .map(|pattern| {
                let at = dice.roll(len / 512) * 512;
                let run = (dice.roll(400) * 512 + 512).min(len - at);
                if dice.roll(3) == 0 {
                    let at = at / GRAIN as u64 * GRAIN as u64;
                    format!("write -z {at} {}", run.next_multiple_of(GRAIN as u64).min(len - at))
                } else {
                    format!("write -P {pattern} {at} {run}")
                }
            })
            .collect();
        lab.io("written.vmdk", &commands.iter().map(String::as_str).collect::<Vec<_>>());
        let stats = assert_agrees(&lab, "written.vmdk").image.map().stats();
        assert_eq!(stats.zero > 0, zeroed == "on", "{stats:?}");
    }
}

/// An image over two tables of which only the last is used, and one without any grain.
#[test]
fn sparse_images_agree() {
    let Some(lab) = Lab::new() else { return };
    for subformat in ["monolithicSparse", "streamOptimized"] {
        lab.img(&format!("create -q -f vmdk -o subformat={subformat} sparse.vmdk 100M"));
        assert_agrees(&lab, "sparse.vmdk");
        lab.io("sparse.vmdk", &["write -P 5 70M 64k"]);
        assert_agrees(&lab, "sparse.vmdk");
    }
}

/// qemu-img reads footers and never writes them: it judges the files that are made by hand.
#[test]
fn hand_made_images_agree() {
    let Some(lab) = Lab::new() else { return };
    for empty in [
        Builder::sparse(ODD_CAPACITY),
        Builder { flags: 5, ..Builder::sparse(ODD_CAPACITY) },
        Builder::stream(ODD_CAPACITY),
        Builder { footer: false, ..Builder::stream(ODD_CAPACITY) },
        Builder { flags: 0x30005, ..Builder::stream(ODD_CAPACITY) },
    ] {
        let mut builder = [0, 1, 2, 511, 512, 513, 700]
            .into_iter()
            .fold(empty, |builder, index| builder.grain(index, Dice(index).disk(GRAIN)));
        if builder.flags & 4 != 0 {
            builder = builder.zero_grain(3).zero_grain(4).zero_grain(600);
        }
        for order in [vec![], vec![700, 0, 513, 2, 1, 512, 511]] {
            let builder = Builder { order, ..builder.clone() };
            lab.raw("hand.vmdk", &builder.build().bytes);
            let disk = assert_agrees(&lab, "hand.vmdk");
            assert!(disk.guest().unwrap() == builder.guest());
        }
    }
}

/// qemu-img reads a cut image as if nothing were wrong; here a cut that takes guest bytes is an error while opening.
#[test]
fn cut_images_are_refused() {
    let Some(lab) = Lab::new() else { return };
    let guest = raw_disk(5 * MIB + 512);
    lab.raw("in.raw", &guest);
    for subformat in ["monolithicSparse", "streamOptimized"] {
        lab.img(&format!("convert -f raw -O vmdk -o subformat={subformat} in.raw whole.vmdk"));
        let file = std::fs::read(lab.path("whole.vmdk")).unwrap();
        let (mut theirs, mut ours) = (0, 0);
        for percent in 0..100 {
            let cut = file.len() * percent / 100;
            match open(&file[..cut]) {
                Err(_) => ours += 1,
                // QEMU fills the last grain up, also a compressed one. A cut that takes only that takes nothing from the guest.
                Ok(disk) => {
                    assert!(cut >= file.len() - GRAIN, "{subformat} cut to {percent} %");
                    assert!(disk.guest().unwrap() == guest, "{subformat} cut to {percent} %");
                }
            }
            lab.raw("cut.vmdk", &file[..cut]);
            theirs += u32::from(!lab.accepts("cut.vmdk"));
        }
        eprintln!("{subformat} cut to 0..99 %: {ours} refused here, {theirs} by qemu-img");
    }
}
