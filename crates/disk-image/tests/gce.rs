//! Plain archives with a raw disk: made by tar in every sparse format, and by hand where tar would not.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/tar.rs"]
mod tar;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use disk_image::{Format, OpenError, OpenOptions, Span, State, Warning};
use driver::Disk;
use qemu::{Dice, Lab};
use tar::{Tar, open};

const MIB: u64 = 1 << 20;

/// What of the disk the archive stores.
fn stored(disk: &Disk) -> u64 {
    disk.image.map().stats().data
}

/// GNU tar in all its formats, of a disk in one piece, in a few, in so many that the map goes on, and of nothing.
#[test]
fn archives_of_tar() {
    let Some(lab) = Lab::new() else { return };
    for pieces in [0, 1, 3, 5, 30, 700] {
        let mut guest = vec![0; 24 << 20];
        for piece in 0..pieces {
            let at = (piece * 24 * MIB / pieces) as usize;
            guest[at / 4096 * 4096..][..4096].fill(1 + (piece % 250) as u8);
        }
        let file = File::create(lab.path("disk.raw")).unwrap();
        file.set_len(guest.len() as u64).unwrap();
        for (at, bytes) in guest.chunks(4096).enumerate().filter(|(_, bytes)| bytes.iter().any(|&b| b != 0)) {
            file.write_all_at(bytes, at as u64 * 4096).unwrap();
        }
        for (how, sparse) in [
            (&["--format=oldgnu"][..], false),
            (&["--format=posix"], false),
            (&["--format=oldgnu", "-S"], true),
            (&["--format=gnu", "-S"], true),
            (&["--format=posix", "-S", "--sparse-version=0.0"], true),
            (&["--format=posix", "-S", "--sparse-version=0.1"], true),
            (&["--format=posix", "-S", "--sparse-version=1.0"], true),
        ] {
            let mut tar = Command::new("tar");
            tar.args(how).args(["-cf", "disk.tar", "./disk.raw"]).current_dir(lab.path(""));
            let made = tar.output().unwrap();
            assert!(made.status.success(), "{made:?}");
            let archive = fs::read(lab.path("disk.tar")).unwrap();
            let disk = open(archive.clone(), None).unwrap_or_else(|error| panic!("{how:?}: {error}"));
            assert_eq!(
                (disk.image.format(), disk.image.member()),
                (Format::Raw, Some("disk.raw")),
                "{how:?}"
            );
            assert!(disk.guest().unwrap() == guest, "{how:?} {pieces}");
            assert_eq!(stored(&disk) < 24 * MIB, sparse, "{how:?} {pieces}");
            assert!(stored(&disk) < 4 * MIB || !sparse, "{how:?} {pieces}");
            // Cut anywhere it is no archive any more.
            for len in (0..archive.len()).step_by(archive.len() / 40) {
                if archive[len..].iter().any(|&byte| byte != 0) {
                    open(archive[..len].to_vec(), None).map(|_| ()).unwrap_err();
                }
            }
        }
    }
}

/// A number as headers have it.
fn octal(number: u64) -> Vec<u8> {
    format!("{number:011o}\0").into_bytes()
}

/// A sparse disk of old GNU format; what does not fit the header goes into blocks.
fn sparse(real_size: u64, entries: &[(u64, u64)], content: &[u8]) -> Tar {
    let pairs: Vec<u8> = entries.iter().flat_map(|&(at, len)| [octal(at), octal(len)].concat()).collect();
    let (head, rest) = pairs.split_at(pairs.len().min(4 * 24));
    let blocks: Vec<Vec<u8>> = rest
        .chunks(21 * 24)
        .enumerate()
        .map(|(i, entries)| {
            let mut block = entries.to_vec();
            block.resize(512, 0);
            block[504] = u8::from((i + 1) * 21 * 24 < rest.len());
            block
        })
        .collect();
    let all = [blocks.concat(), content.to_vec()].concat();
    Tar::default().with("disk.raw", b'S', &all, |header| {
        header[124..136].copy_from_slice(&octal(content.len() as u64));
        header[257..265].copy_from_slice(b"ustar  \0");
        header[386..386 + head.len()].copy_from_slice(head);
        header[482] = u8::from(!rest.is_empty());
        header[483..495].copy_from_slice(&octal(real_size));
    })
}

fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let len = (rest + 1..).find(|len| len.to_string().len() + rest == *len).unwrap();
    format!("{len} {key}={value}\n")
}

fn pax(records: &[(&str, &str)], content: &[u8]) -> Tar {
    let text: String = records.iter().map(|(key, value)| record(key, value)).collect();
    Tar::default().member("pax", b'x', text.as_bytes()).file("GNUSparseFile.7/disk.raw", content)
}

#[test]
fn a_disk_is_read_in_place() {
    let disk = Tar::default().file("./disk.raw", &[7; 1536]).open().unwrap();
    let extents: Vec<_> = disk.image.map().iter().map(|extent| extent.state).collect();
    assert_eq!(extents, [State::Data(disk_image::Stored::image(512, 1536))]);
    // As raw files are: filled up.
    let odd = Tar::default().file("disk.raw", &[7; 700]).open().unwrap();
    assert_eq!((odd.image.virtual_size(), odd.image.warnings()), (1024, &[Warning::PartialSector(700)][..]));
    let sparse = sparse(8 * MIB, &[(512, 512), (MIB, 1024), (8 * MIB, 0)], &[9; 1536]).open().unwrap();
    let runs: Vec<Span> = sparse
        .image
        .map()
        .iter()
        .filter(|extent| extent.state.is_stored())
        .map(|extent| extent.guest)
        .collect();
    assert_eq!(runs, [Span::new(512, 512), Span::new(MIB, 1024)]);
    // Whatever is in it: it is raw by its name.
    let mut qcow2 = vec![0; 4096];
    qcow2[..4].copy_from_slice(b"QFI\xfb");
    assert_eq!(Tar::default().file("disk.raw", &qcow2).open().unwrap().image.format(), Format::Raw);
    let chosen = Tar::default().file("disk.raw", &[1; 512]).file("a.vmdk", &[1; 512]).end();
    assert_eq!(open(chosen, Some("./disk.raw")).unwrap().guest().unwrap(), [1; 512]);
    let options = OpenOptions { snapshot: Some("1".to_owned()), ..OpenOptions::default() };
    let tar = Tar::default().file("disk.raw", &[1; 512]).end();
    assert_eq!(Disk::parse(tar.into(), &options).map(|_| ()).unwrap_err(), OpenError::NoSnapshot);
}

#[test]
fn maps_that_lie() {
    let field = |tar: Tar, what: &str| {
        let error = tar.open().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    field(
        sparse(4096, &[(512, 512), (512, 512)], &[1; 1024]),
        "sparse map entry 1 is 0x200, expected a run behind",
    );
    field(
        sparse(4096, &[(1024, 512), (0, 512)], &[1; 1024]),
        "sparse map entry 1 is 0x0, expected a run behind",
    );
    field(
        sparse(4096, &[(3584, 1024)], &[1; 1024]),
        "sparse map entry 0 is 0x1200, expected a run that ends",
    );
    field(sparse(4096, &[(8192, 0)], &[]), "sparse map entry 0 is 0x2000, expected a run that ends");
    let most = 0o77777777777;
    field(sparse(most, &[(most, most)], &[]), "sparse map entry 0 is 0x3fffffffe");
    for content in [511, 513, 0] {
        field(
            sparse(4096, &[(0, 512)], &vec![1; content]),
            "expected as many bytes as the runs of its map have",
        );
    }
    field(sparse(0, &[], &[]), "the file is empty");
    field(Tar::default().file("disk.raw", &[]), "the file is empty");
    let huge = sparse(4096, &[], &[]).0;
    let huge = Tar::default().with("disk.raw", b'S', &[], |header| {
        header.copy_from_slice(&huge[..512]);
        header[483..495].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    });
    field(huge, "the limit is 70368744177664");
    // A map that goes on to the end of the file.
    let long: Vec<(u64, u64)> = (0..100).map(|i| (i * 1024, 512)).collect();
    let mut endless = sparse(MIB, &long, &[]).0;
    let block = endless.len() - 512;
    endless[block + 504] = 1;
    let error = open(endless, None).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    field(sparse(MIB, &[(0, 512), (1024, 512)], &[1; 1024]).file("disk.raw", &[1]), "several disks");
}

/// Entries that make no run cost time, too.
#[test]
fn maps_without_end() {
    let most = 1 << 20;
    let refused = |tar: Tar| tar.open().map(|_| ()).unwrap_err().to_string();
    let empty = vec![(512, 0); most + 2];
    let error = refused(sparse(4096, &empty, &[]));
    assert_eq!(error, "the number of runs in a sparse map is 1048577, the limit is 1048576");
    assert_eq!(sparse(4096, &empty[..=most], &[]).open().unwrap().image.virtual_size(), 4096);
    // A block that has no entry, and says that another one follows.
    let mut hollow = sparse(4096, &[(512, 0); 5], &[]).0;
    hollow[512 + 504] = 1;
    hollow.extend([0; 512]);
    let error = refused(Tar(hollow));
    assert!(error.contains("expected an entry in each block of the map"), "{error}");
}

/// Each name is kept, and an extended header has room for a long one.
#[test]
fn names_without_end() {
    let named = |len| {
        let tar = Tar::default().member("pax", b'x', record("path", &"n".repeat(len)).as_bytes());
        tar.file("short", &[]).file("disk.raw", &[1; 512]).open().map(|disk| disk.image.virtual_size())
    };
    assert_eq!(named(12 << 10), Ok(512));
    let error = named((12 << 10) + 1).unwrap_err().to_string();
    assert_eq!(error, "the length of a name in the archive is 12289, the limit is 12288");
    let sparse = pax(&[("GNU.sparse.name", &"n".repeat(20_000)), ("GNU.sparse.size", "4096")], &[]);
    let error = sparse.open().map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "the length of a name in the archive is 20000, the limit is 12288");
}

#[test]
fn pax_maps_that_lie() {
    let field = |tar: Tar, what: &str| {
        let error = tar.open().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    let (name, size) = (("GNU.sparse.name", "disk.raw"), ("GNU.sparse.size", "4096"));
    let good = pax(&[name, size, ("GNU.sparse.map", "0,512,1024,512")], &[1; 1024]).open().unwrap();
    assert_eq!((stored(&good), good.image.virtual_size()), (1024, 4096));
    let two = |a, b| pax(&[name, size, (a, "512"), (b, "512")], &[1; 512]);
    assert_eq!(stored(&two("GNU.sparse.offset", "GNU.sparse.numbytes").open().unwrap()), 512);
    field(two("GNU.sparse.numbytes", "GNU.sparse.offset"), "expected a pax header of records");
    field(two("GNU.sparse.offset", "GNU.sparse.offset"), "expected a pax header of records");
    field(
        pax(&[name, size, ("GNU.sparse.map", "0,512,1024")], &[1; 512]),
        "the end of a sparse map is 0x400",
    );
    field(pax(&[name, size, ("GNU.sparse.map", "0;512")], &[1; 512]), "expected a pax header of records");
    field(
        pax(&[name, ("GNU.sparse.map", "0,512")], &[1; 512]),
        "the real size of a sparse member was not found",
    );
    field(
        pax(&[name, ("GNU.sparse.major", "2")], &[1; 512]),
        "version 2 of the pax format for sparse members",
    );

    let real = ("GNU.sparse.realsize", "4096");
    let version = [name, real, ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")];
    let one = |map: &str, data: usize| {
        let mut content = map.as_bytes().to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        content.resize(content.len() + data, 1);
        pax(&version, &content)
    };
    assert_eq!(stored(&one("2\n0\n512\n1024\n512\n", 1024).open().unwrap()), 1024);
    assert_eq!(stored(&one("0\n", 0).open().unwrap()), 0);
    field(one("1\n0\n512\n", 1024), "as many bytes as the runs");
    field(one("2\n0\n512\n", 0), "the sparse map of a tar member was not found");
    field(one("\n", 0), "expected a number");
    field(one("18446744073709551616\n", 0), "expected a number");
    field(one("1\n-1\n512\n", 512), "expected a number");
    field(one(&"7".repeat(2000), 0), "line of a sparse map");
    // As many entries as there is content, and more are said to come.
    let lines = format!("9999999999\n{}", "0\n0\n".repeat(128));
    field(one(&lines[..512], 0), "the sparse map of a tar member was not found");
    field(pax(&version, &[]), "sparse map");
}

#[test]
fn mutations_never_panic() {
    let entries: Vec<(u64, u64)> = (0..60).map(|i| (i * 1024, 512)).collect();
    let good = sparse(MIB, &entries, &[1; 60 * 512]);
    assert_eq!(stored(&good.open().unwrap()), 60 * 512);
    let good = good.end();
    let mut dice = Dice(9);
    let mut opened = 0;
    for _ in 0..4_000 {
        let mut file = good.clone();
        for _ in 0..=dice.roll(2) {
            let at =
                [124, 257, 386, 482, 483, 512, 1016, 1024][dice.roll(8) as usize] + dice.roll(26) as usize;
            file[at] = [0, 0x30, 0x31, 0x37, 0x80, 0xff, dice.roll(256) as u8][dice.roll(7) as usize];
        }
        file[148..156].fill(b' ');
        let sum: u32 = file[..512].iter().map(|&byte| u32::from(byte)).sum();
        file[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        if let Ok(disk) = open(file, None) {
            opened += u32::from(disk.image.virtual_size() < 64 * MIB && disk.guest().is_ok());
        }
    }
    assert!(opened > 10, "{opened}");
}
