//! What a volume holds, as the tools that make file systems make it; blkid is the judge.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on ends")]

mod support;

use std::process::Command;

use guest_info::{FileSystem, Kind, inspect};
use support::{Lab, MIB, ROOT_ID, has};

/// What is found on a volume without a table.
fn probe(lab: &Lab, name: &str) -> FileSystem {
    let (guest, _) = lab.look(name);
    guest.partitions[0].file_system.clone().unwrap_or_else(|| panic!("{name}: {guest:?}"))
}

/// Holds what is found against blkid.
fn compare(lab: &Lab, name: &str, kind: Kind, theirs: &str) {
    let found = probe(lab, name);
    assert_eq!(found.kind, kind, "{name}");
    let said = lab.run(&format!("blkid -p -o export {name}"));
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    assert_eq!(value("TYPE"), Some(theirs), "{said}");
    assert_eq!(value("UUID"), found.uuid.as_deref(), "{name}: {said}");
    assert_eq!(value("LABEL").map(|label| label.replace("\\ ", " ")), found.label, "{name}: {said}");
}

#[test]
fn ext_in_its_three_kinds() {
    if !has("mkfs.ext4") {
        return;
    }
    let lab = Lab::new();
    for (kind, name) in [(Kind::Ext2, "ext2"), (Kind::Ext3, "ext3"), (Kind::Ext4, "ext4")] {
        lab.run(&format!("mkfs.ext4 -q -F -t {name} -L a-{name} -U {ROOT_ID} {name} 16m"));
        compare(&lab, name, kind, name);
    }
}

#[test]
fn swap_and_fat() {
    let lab = Lab::new();
    if has("mkswap") {
        lab.empty("swap", 8 * MIB);
        lab.run(&format!("mkswap -q -L swapped -U {ROOT_ID} swap"));
        compare(&lab, "swap", Kind::Swap, "swap");
    }
    lab.empty("fat", 32 * MIB);
    lab.poke("fat", 0, &support::fat::with_files(32 * MIB, &["A/B.TXT"]));
    let found = probe(&lab, "fat");
    let expected = (Kind::Fat16, Some("EFI SYS"), Some("1234-ABCD"));
    assert_eq!((found.kind, found.label.as_deref(), found.uuid.as_deref()), expected);
    if has("blkid") {
        let said = lab.run("blkid -p -o export fat");
        assert!(said.contains("TYPE=vfat") && said.contains("UUID=1234-ABCD"), "{said}");
    }
}

/// Where these are installed; what follows has them by hand.
#[test]
fn what_is_not_installed_everywhere() {
    let lab = Lab::new();
    let installed = |tool: &str| Command::new(tool).arg("-V").output().is_ok();
    if installed("mkfs.xfs") {
        lab.empty("xfs", 320 * MIB);
        lab.run(&format!("mkfs.xfs -q -L rooted -m uuid={ROOT_ID} xfs"));
        compare(&lab, "xfs", Kind::Xfs, "xfs");
    }
    if installed("mkfs.btrfs") {
        lab.empty("btrfs", 128 * MIB);
        lab.run(&format!("mkfs.btrfs -q -L butter -U {ROOT_ID} btrfs"));
        compare(&lab, "btrfs", Kind::Btrfs, "btrfs");
    }
    if installed("cryptsetup") {
        for (version, kind) in [(1, Kind::Luks1), (2, Kind::Luks2)] {
            let name = format!("luks{version}");
            lab.empty(&name, 32 * MIB);
            let label = if version == 2 { "--label secret" } else { "" };
            let how = "-q --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000";
            let command =
                format!("cryptsetup luksFormat {how} --type luks{version} --uuid {ROOT_ID} {label} {name} -");
            lab.run_with(&command, "passphrase");
            compare(&lab, &name, kind, "crypto_LUKS");
        }
    }
}

/// Volumes of which only what is looked at is there.
#[test]
fn signatures() {
    let volume = |parts: &[(usize, &[u8])]| {
        let mut disk = vec![0; 2 * MIB as usize];
        for (at, bytes) in parts {
            disk[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        inspect(Box::new(disk)).unwrap().partitions.pop().and_then(|partition| partition.file_system)
    };
    let id: &[u8] =
        &[0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x43, 0x33, 0x84, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55];
    let said = |found: Option<FileSystem>| {
        found.map(|found| (found.kind, found.label.unwrap_or_default(), found.uuid.unwrap_or_default()))
    };
    let expect = |parts: &[(usize, &[u8])], kind, label: &str, uuid: &str| {
        assert_eq!(said(volume(parts)), Some((kind, label.to_owned(), uuid.to_owned())));
    };
    expect(&[(0, b"XFSB"), (32, id), (108, b"rooted")], Kind::Xfs, "rooted", ROOT_ID);
    expect(&[(0x10040, b"_BHRfS_M"), (0x10020, id), (0x1012b, b"butter")], Kind::Btrfs, "butter", ROOT_ID);
    expect(&[(0, b"LUKS\xba\xbe\0\x01"), (168, ROOT_ID.as_bytes())], Kind::Luks1, "", ROOT_ID);
    expect(
        &[(0, b"LUKS\xba\xbe\0\x02"), (24, b"key"), (168, ROOT_ID.as_bytes())],
        Kind::Luks2,
        "key",
        ROOT_ID,
    );
    let (pv, dashed) = (b"0123456789abcdefghijklmnopqrstuv", "012345-6789-abcd-efgh-ijkl-mnop-qrstuv");
    expect(&[(512, b"LABELONE"), (536, b"LVM2 001"), (544, pv)], Kind::LvmPv, "", dashed);
    expect(
        &[(4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0"), (4112, id), (4128, b"host:0")],
        Kind::MdRaid,
        "host:0",
        ROOT_ID,
    );
    expect(&[(3, b"-FVE-FS-"), (510, b"\x55\xaa")], Kind::Bitlocker, "", "");
    expect(&[(3, b"EXFAT   "), (100, &[1, 2, 3, 4]), (510, b"\x55\xaa")], Kind::Exfat, "", "0403-0201");
    expect(&[(0x8000, b"\x01CD001"), (0x8028, b"DISC")], Kind::Iso9660, "DISC", "");
    expect(&[(0, b"hsqs"), (28, b"\x04")], Kind::Squashfs, "", "");
    let ntfs: &[(usize, &[u8])] = &[
        (0, b"\xeb\x52\x90NTFS    \0\x02\x08"),
        (48, &[4]),
        (64, b"\xf6"),
        (72, &[8, 7, 6, 5, 4, 3, 2, 1]),
        (510, b"\x55\xaa"),
        // The record with number 3, with an attribute before the label.
        (4 * 4096 + 3 * 1024, b"FILE"),
        (4 * 4096 + 3 * 1024 + 20, &[56]),
        (4 * 4096 + 3 * 1024 + 56, b"\x10\0\0\0\x20\0\0\0"),
        (4 * 4096 + 3 * 1024 + 88, b"\x60\0\0\0\x28\0\0\0"),
        (4 * 4096 + 3 * 1024 + 104, b"\x0c\0\0\0\x18"),
        (4 * 4096 + 3 * 1024 + 112, b"S\0y\0s\0t\0e\0m\0"),
    ];
    expect(ntfs, Kind::Ntfs, "System", "0102030405060708");
    assert_eq!(said(volume(&[])), None);
}
