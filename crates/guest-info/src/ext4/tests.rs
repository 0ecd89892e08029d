//! The reader against mkfs.ext4, with ext4-view for a second opinion, and against file systems that lie.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::limits::MAX_FILE;
use crate::source::{Budget, View};

/// Makes a file system of a folder; `None`, said aloud, where that cannot be done.
fn make(folder: &Path, how: &str) -> Option<Vec<u8>> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("fs");
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-d"])
        .arg(folder)
        .args(how.split_whitespace())
        .arg(&file)
        .arg("16m")
        .env("PATH", path);
    let Ok(output) = make.output() else {
        assert!(std::env::var_os("CI").is_none(), "mkfs.ext4 is needed under CI");
        eprintln!("SKIPPED: mkfs.ext4 is not installed");
        return None;
    };
    assert!(output.status.success(), "{how}: {}", String::from_utf8_lossy(&output.stderr));
    Some(fs::read(file).unwrap())
}

/// Files of every kind that is stored in another way.
fn sample() -> TempDir {
    let dir = TempDir::new().unwrap();
    let write = |path: &str, bytes: &[u8]| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let link = |path: &str, target: &str| std::os::unix::fs::symlink(target, dir.path().join(path)).unwrap();
    write("empty", b"");
    write("short", b"short\n");
    write("deep/er/and/deeper/file", b"found");
    let long: Vec<u8> = (0..1_500_000_u32).flat_map(|n| n.to_le_bytes()).take(1_500_000).collect();
    write("long", &long);
    let mut holes = vec![0; 900_000];
    holes[300_000..300_010].fill(7);
    write("holes", &holes);
    for number in 0..700 {
        write(&format!("many/a file with a long name, number {number}"), format!("{number}").as_bytes());
    }
    link("fast", "deep/er");
    link("absolute", "/deep/er/and");
    link("up", "deep/er/../../short");
    link("slow", &format!("{}short", "./".repeat(60)));
    link("nowhere", "not/there");
    link("circle", "circle");
    dir
}

const HOW: [&str; 6] = [
    "",
    "-t ext2 -b 1024",
    "-t ext3 -b 4096",
    "-b 2048 -O ^64bit",
    "-b 1024 -O ^metadata_csum",
    "-I 128 -g 1024 -b 1024 -O ^metadata_csum",
];

const PATHS: [&str; 12] = [
    "/empty",
    "/short",
    "/deep/er/and/deeper/file",
    "/long",
    "/holes",
    "/many/a file with a long name, number 699",
    "/many/a file with a long name, number 700",
    "/fast/and/deeper/file",
    "/absolute/deeper/file",
    "/up",
    "/slow",
    "/nowhere",
];

#[test]
fn files_are_what_another_reader_finds() {
    let sample = sample();
    for how in HOW {
        let Some(bytes) = make(sample.path(), how) else { return };
        let other = ext4_view::Ext4::load(Box::new(bytes.clone())).unwrap();
        let view = View::new(Box::new(bytes), Budget::default());
        let ours = Ext4::open(view.disk()).unwrap();
        for path in PATHS {
            let found = ours.file(path, MAX_FILE).unwrap();
            // The other one knows no hole that a whole block of pointers is missing for.
            match other.read(path) {
                Ok(theirs) => assert!(found == Some(theirs), "{how}: {path}"),
                Err(_) => assert!(found.is_none() || path == "/holes", "{how}: {path}"),
            }
            let expected = fs::read(sample.path().join(&path[1..])).ok();
            if !path.starts_with("/absolute") {
                assert!(found == expected, "{how}: {path}");
            }
        }
        let names = ours.names("/many").unwrap();
        assert_eq!(names.len(), 700, "{how}");
        let mut theirs: Vec<_> =
            other.read_dir("/many").unwrap().map(|e| e.unwrap().file_name().display().to_string()).collect();
        theirs.retain(|name| name != "." && name != "..");
        theirs.sort_unstable();
        assert_eq!(names, theirs, "{how}");
        assert!(ours.exists("/nowhere").unwrap() && ours.exists("/circle").unwrap());
        assert_eq!(ours.file("/circle", MAX_FILE), Err(Trouble::TooLong("a symbolic link")));
        assert_eq!(ours.head("/long", 5).unwrap().unwrap().len(), 5);
        assert_eq!(ours.file("/deep", MAX_FILE).unwrap(), None, "a directory is no file");
        assert_eq!(ours.file("/short/x", MAX_FILE).unwrap(), None);
        assert!(ours.is_clean());
    }
}

/// Where `/short` has its inode, bytes from the start.
fn inode_at(bytes: &[u8], path: &str) -> usize {
    let view = View::new(Box::new(bytes.to_vec()), Budget::default());
    let files = Ext4::open(view.disk()).unwrap();
    let content = files.file(path, MAX_FILE).unwrap().unwrap();
    let block = bytes.chunks(4096).position(|block| block.starts_with(&content)).unwrap();
    let pointer = u32::try_from(block).unwrap().to_le_bytes();
    let is_it = |inode: &[u8]| inode[0x28..0x2a] == *b"\x0a\xf3" && inode[0x3c..0x40] == pointer;
    bytes.chunks(256).position(is_it).unwrap() * 256
}

#[test]
fn trees_that_lie_take_no_time() {
    let sample = sample();
    let Some(mut bytes) = make(sample.path(), "-b 4096 -O ^metadata_csum") else { return };
    let inode = inode_at(&bytes, "/short");
    // Four entries at one node, whose 340 entries point at a node whose entries ... five levels down, and every extent empty.
    let node = |depth: u16, entries: u16, child: u32| {
        let mut node = [
            &0xf30a_u16.to_le_bytes()[..],
            &entries.to_le_bytes(),
            &340_u16.to_le_bytes(),
            &depth.to_le_bytes(),
            &[0; 4],
        ]
        .concat();
        for _ in 0..entries {
            node.extend([0; 4]);
            node.extend(if depth == 0 { 0 } else { child }.to_le_bytes());
            node.extend(if depth == 0 { child } else { 0 }.to_le_bytes());
        }
        node
    };
    let free = u32::try_from(bytes.len() / 4096 - 8).unwrap();
    bytes[inode + 0x28..inode + 0x64].copy_from_slice(&node(5, 4, free + 4));
    for depth in 0..5_u16 {
        let at = (free as usize + usize::from(depth)) * 4096;
        let node = node(depth, 340, (free + u32::from(depth)).saturating_sub(1));
        bytes[at..at + node.len()].copy_from_slice(&node);
    }
    // As long as a file may be.
    bytes[inode + 4..inode + 8].fill(0xff);
    bytes[inode + 0x6c..inode + 0x70].copy_from_slice(&[0xff, 0x0f, 0, 0]);
    let view = View::new(Box::new(bytes.clone()), Budget::default());
    let files = Ext4::open(view.disk()).unwrap();
    assert_eq!(files.file("/short", MAX_FILE), Err(Trouble::TooLong("a file")));
    assert_eq!(
        files.head("/short", 10_000).unwrap().unwrap(),
        vec![0; 10_000],
        "an extent of no length holds nothing"
    );
    let asked = view.bytes_read();
    assert!(asked < 4 << 20, "{asked}");

    // A link that is longer than memory.
    bytes[inode..inode + 2].copy_from_slice(&0xa1ff_u16.to_le_bytes());
    let view = View::new(Box::new(bytes.clone()), Budget::default());
    let files = Ext4::open(view.disk()).unwrap();
    assert_eq!(files.file("/short", MAX_FILE), Err(Trouble::TooLong("a symbolic link")));

    // A directory that is longer than the disk.
    bytes[inode..inode + 2].copy_from_slice(&0x41ff_u16.to_le_bytes());
    let view = View::new(Box::new(bytes), Budget::default());
    let files = Ext4::open(view.disk()).unwrap();
    assert_eq!(files.names("/short"), Err(Trouble::TooLong("a directory")));
}

#[test]
fn any_byte_may_be_wrong() {
    let sample = sample();
    let Some(bytes) = make(sample.path(), "-b 1024 -O ^metadata_csum") else { return };
    let mut refused = 0;
    let mut seed = 1_u32;
    for _ in 0..60 {
        let mut bytes = bytes.clone();
        for _ in 0..400 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // The superblock, the descriptors and the first inodes are in the first 300 KiB.
            let at = 1024 + (seed >> 8) as usize % 300_000;
            bytes[at] = (seed >> 3).to_le_bytes()[0];
        }
        let view = View::new(Box::new(bytes), Budget::default());
        match Ext4::open(view.disk()) {
            Ok(files) => refused += PATHS.iter().filter(|path| files.file(path, MAX_FILE).is_err()).count(),
            Err(_) => refused += PATHS.len(),
        }
    }
    assert!(refused > 0, "nothing that was read was wrong");
}

#[test]
fn what_is_not_read_is_said() {
    let sample = TempDir::new().unwrap();
    let Some(bytes) = make(sample.path(), "-b 4096 -O ^metadata_csum") else { return };
    for (at, value, why) in [
        (0x38, 0, DAMAGED),
        (0x18, 9, DAMAGED),
        (0x28, 0, DAMAGED),
        (0x58, 0, DAMAGED),
        (0xfe, 7, DAMAGED),
        (0x60, bytes[1024 + 0x60] | 0x10, Trouble::Unsupported("an ext4 whose group descriptors lie apart")),
        (0x60, bytes[1024 + 0x60] | 0x8, Trouble::Unsupported("a journal without its file system")),
    ] {
        let mut bytes = bytes.clone();
        let len = if at == 0x28 { 4 } else { 2 };
        bytes[1024 + at..1024 + at + len].fill(0);
        bytes[1024 + at] = value;
        if at == 0x60 {
            bytes[1024 + 0x61] = 2;
        }
        let view = View::new(Box::new(bytes), Budget::default());
        assert_eq!(Ext4::open(view.disk()).err(), Some(why), "{at:#x}");
    }
}
