//! VHD and VHDX files made and judged by qemu-img: every guest byte, every extent that it knows, every truncation.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;

use disk_image::{Details, Format, OpenError, OpenOptions, vhd};
use driver::Disk;
use qemu::{Dice, Kind, Lab, Seen, seen};

const MIB: usize = 1 << 20;

fn named(format: Format) -> OpenOptions {
    OpenOptions { format: Some(format), ..OpenOptions::default() }
}

/// The guest bytes, by QEMU, which finds no fixed VHD by itself.
fn theirs(lab: &Lab, format: &str, file: &str) -> Vec<u8> {
    lab.img(&format!("convert -f {format} -O raw {file} judge.raw"));
    std::fs::read(lab.path("judge.raw")).unwrap()
}

#[track_caller]
fn assert_same(ours: &[u8], theirs: &[u8], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    assert_eq!(ours.iter().zip(theirs).position(|(a, b)| a != b), None, "{what}: first different byte");
}

/// Disks of stretches of every sort, and lengths that fit no block.
fn disks() -> Vec<Vec<u8>> {
    let disk = |len: usize| {
        let mut disk = Dice(len as u64).disk(len);
        // Whole blocks that are not there, in the middle and at the end.
        let hole = len / 3..len / 3 * 2;
        disk[hole].fill(0);
        disk
    };
    let mut disks: Vec<_> = [512, MIB - 512, 2 * MIB, 9 * MIB + 5 * 512, 32 * MIB].map(disk).into();
    disks.push(vec![0; 5 * MIB]);
    disks
}

/// QEMU calls what no block holds a zero that is present; here it is a hole.
fn holes(extents: Vec<Seen>) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    for mut extent in extents {
        if extent.kind == Kind::Zero {
            extent.kind = Kind::Hole;
        }
        match all.last_mut() {
            Some(last) if last.kind == Kind::Hole && extent.kind == Kind::Hole => {
                last.guest.len += extent.guest.len
            }
            _ => all.push(extent),
        }
    }
    all
}

#[test]
fn vhd_agrees() {
    let Some(lab) = Lab::new() else { return };
    for disk in disks() {
        lab.raw("in.raw", &disk);
        for subformat in ["dynamic", "fixed"] {
            for force_size in ["on", "off"] {
                let options = format!("subformat={subformat},force_size={force_size}");
                lab.img(&format!("convert -f raw -O vpc -o {options} in.raw made.vhd"));
                let what = format!("{} bytes, {options}", disk.len());
                let ours = Disk::open_with(&lab.path("made.vhd"), &named(Format::Vhd));
                let guest = ours.guest().unwrap();
                assert_same(&guest, &theirs(&lab, "vpc", "made.vhd"), &what);
                assert_same(&guest[..disk.len()], &disk, &what);
                let Details::Vhd(details) = ours.image.details() else { panic!() };
                let creator = if force_size == "on" { "qem2" } else { "qemu" };
                assert_eq!(details.creator, creator, "{what}");
                let kind = if subformat == "fixed" { vhd::DiskType::Fixed } else { vhd::DiskType::Dynamic };
                assert_eq!(details.disk_type, kind, "{what}");
                if subformat == "dynamic" {
                    assert_eq!(holes(seen(ours.image.map().iter())), holes(lab.map("made.vhd")), "{what}");
                    // Found without being named.
                    assert_eq!(Disk::open(&lab.path("made.vhd")).image.format(), Format::Vhd);
                }
            }
        }
    }
}

/// A fixed VHD is a raw disk with a footer: which of the two it is only its owner knows.
#[test]
fn a_fixed_vhd_has_to_be_named() {
    let Some(lab) = Lab::new() else { return };
    let mut disk = vec![0; 3 * MIB];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    lab.raw("in.raw", &disk);
    lab.img("convert -f raw -O vpc -o subformat=fixed,force_size=on in.raw fixed.vhd");
    let refused = Disk::try_open(&lab.path("fixed.vhd"), &OpenOptions::default()).err();
    assert_eq!(refused, Some(OpenError::Ambiguous(Format::Vhd, Format::Raw)));
    for (format, len) in [(Format::Vhd, 3 * MIB), (Format::Raw, 3 * MIB + 512)] {
        let disk = Disk::open_with(&lab.path("fixed.vhd"), &named(format));
        assert_eq!(disk.image.virtual_size(), len as u64);
    }
    // Nothing at its start, so nothing else that it could be.
    lab.img("create -q -f vpc -o subformat=fixed fixed.vhd 3M");
    assert_eq!(Disk::open(&lab.path("fixed.vhd")).image.format(), Format::Vhd);
}

#[test]
fn vhdx_agrees() {
    let Some(lab) = Lab::new() else { return };
    for disk in disks() {
        // QEMU refuses a VHDX below a block's length in some options, and pads to a MiB.
        lab.raw("in.raw", &disk);
        for options in [
            "subformat=dynamic",
            "subformat=fixed",
            "subformat=dynamic,block_size=1M,block_state_zero=off",
            "subformat=dynamic,block_size=1M,block_state_zero=on",
            "subformat=dynamic,block_size=256M",
            "subformat=dynamic,log_size=3M",
        ] {
            lab.img(&format!("convert -f raw -O vhdx -o {options} in.raw made.vhdx"));
            let what = format!("{} bytes, {options}", disk.len());
            let ours = Disk::open(&lab.path("made.vhdx"));
            assert_eq!(ours.image.format(), Format::Vhdx);
            let guest = ours.guest().unwrap();
            assert_same(&guest, &theirs(&lab, "vhdx", "made.vhdx"), &what);
            assert_same(&guest[..disk.len()], &disk, &what);
            let Details::Vhdx(details) = ours.image.details() else { panic!() };
            let kind = if options.contains("fixed") { vhd::DiskType::Fixed } else { vhd::DiskType::Dynamic };
            assert_eq!(details.disk_type, kind, "{what}");
            // What is not allocated is not stored either.
            if disk.iter().all(|&byte| byte == 0) && !options.contains("fixed") {
                assert_eq!(ours.image.map().stats().data, 0, "{what}");
            }
        }
    }
}

/// Chunks of 4 GiB: the entries of sector bitmaps stand between those of blocks.
#[test]
fn blocks_behind_sector_bitmaps() {
    let Some(lab) = Lab::new() else { return };
    lab.img("create -q -f vhdx -o block_size=1M far.vhdx 20G");
    lab.img("create -q -f vpc -o force_size=on far.vhd 20G");
    for file in ["far.vhdx", "far.vhd"] {
        let writes = [(0, 1), (4095, 2), (4096, 3), (8191, 4), (8192, 5), (20_479, 6)];
        let writes: Vec<String> =
            writes.iter().map(|(mib, byte)| format!("write -P {byte} {mib}M 64k")).collect();
        lab.io(file, &writes.iter().map(String::as_str).collect::<Vec<_>>());
        let disk = Disk::open(&lab.path(file));
        let layout = disk_image::ObjectMap::raw(disk.image.virtual_size());
        for (mib, byte) in [(0, 1), (4095, 2), (4096, 3), (8191, 4), (8192, 5), (20_479, 6)] {
            let part = disk.part(&layout, disk_image::Span::new(mib << 20, 128 << 10)).unwrap();
            assert!(part[..64 << 10].iter().all(|&found| found == byte), "{file} {mib}");
            assert!(part[64 << 10..].iter().all(|&found| found == 0), "{file} {mib}");
        }
    }
}

#[test]
fn cut_images_are_refused() {
    let Some(lab) = Lab::new() else { return };
    lab.raw("in.raw", &Dice(3).disk(5 * MIB + 512));
    for (format, options) in [
        (Format::Vhd, "vpc -o subformat=dynamic"),
        (Format::Vhd, "vpc -o subformat=fixed"),
        (Format::Vhdx, "vhdx -o subformat=dynamic,block_size=1M"),
        (Format::Vhdx, "vhdx -o subformat=fixed,block_size=1M"),
    ] {
        lab.img(&format!("convert -f raw -O {options} in.raw whole"));
        let file = std::fs::read(lab.path("whole")).unwrap();
        let whole = Disk::open_with(&lab.path("whole"), &named(format));
        let stored = whole.image.map().iter().filter_map(|extent| match extent.state {
            disk_image::State::Data(stored) => Some(stored.span.end()),
            _ => None,
        });
        let end = stored.max().unwrap() as usize;
        for percent in 0..100 {
            let cut = file.len() * percent / 100;
            let result = Disk::parse(file[..cut].to_vec().into(), &named(format));
            // A VHDX has nothing at its end: what lies behind the last guest byte may be missing.
            assert!(result.is_err() || format == Format::Vhdx && cut >= end, "{options} cut to {percent} %");
        }
    }
}

/// QCOW2 on what QEMU calls vpc and vhdx.
#[test]
fn backing_files() {
    let Some(lab) = Lab::new() else { return };
    lab.raw("in.raw", &Dice(7).disk(5 * MIB));
    for format in ["vpc", "vhdx"] {
        lab.img(&format!("convert -f raw -O {format} in.raw base"));
        lab.img(&format!("create -q -f qcow2 -F {format} -b base top.qcow2"));
        lab.io("top.qcow2", &["write -P 9 1M 100k"]);
        let ours = Disk::open(&lab.path("top.qcow2")).guest().unwrap();
        assert_same(&ours, &lab.guest("top.qcow2"), format);
    }
}
