//! Partition tables as sfdisk writes them, and as nobody should.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on ends")]

mod support;

use guest_info::{Guest, Point, TableKind, Verdict, inspect};
use serde_json::Value;
use support::{Lab, MIB, finding, has};

/// Compares what is found with what sfdisk says of the same disk.
fn compare(lab: &Lab, name: &str) -> Guest {
    let (guest, _) = lab.look(name);
    let said: Value = serde_json::from_str(&lab.run(&format!("sfdisk --json {name}"))).unwrap();
    let table = &said["partitiontable"];
    assert_eq!(table["label"], if guest.partition_table.kind == TableKind::Gpt { "gpt" } else { "dos" });
    let id = |text: &str| text.to_lowercase();
    assert_eq!(guest.partition_table.id.as_deref().map(id), table["id"].as_str().map(id));
    let theirs = table["partitions"].as_array().unwrap();
    assert_eq!(guest.partitions.len(), theirs.len());
    for (ours, theirs) in guest.partitions.iter().zip(theirs) {
        assert_eq!(theirs["node"].as_str().unwrap(), format!("{name}{}", ours.number));
        assert_eq!(
            (ours.start / 512, ours.size / 512),
            (theirs["start"].as_u64().unwrap(), theirs["size"].as_u64().unwrap())
        );
        let kind = theirs["type"].as_str().unwrap().to_lowercase();
        assert!(ours.type_id == kind || ours.type_id == format!("0x{kind:0>2}"), "{} {kind}", ours.type_id);
        assert_eq!(ours.name.as_deref(), theirs["name"].as_str());
        let marked =
            theirs["bootable"] == true || theirs["attrs"].as_str().is_some_and(|a| a.contains("LegacyBIOS"));
        assert_eq!(ours.active, marked);
    }
    guest
}

const GPT: &str = "label: gpt\nsize=1M, type=21686148-6449-6E6F-744E-656564454649\nsize=2M, type=U, name=\"EFI — system\"\n\
                   size=3M, type=L, name=root, attrs=LegacyBIOSBootable\n";

#[test]
fn a_gpt_is_read_and_so_is_its_backup() {
    if !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.empty("d", 16 * MIB);
    lab.run_with("sfdisk -q d", GPT);
    let guest = compare(&lab, "d");
    assert_eq!((guest.partition_table.backup, guest.partition_table.hybrid), (Some(true), false));
    assert_eq!((guest.boot.bios_boot, guest.boot.efi_system), (Some(1), Some(2)));
    assert!(!guest.boot.bios && !guest.boot.uefi, "{:?}", guest.boot);

    // A byte of an entry, then one of the header.
    for (at, what) in [(1024 + 60, "the checksum of its entries"), (512 + 30, "the checksum of its header")] {
        lab.poke("d", at, b"\x5a");
        let (guest, _) = lab.look("d");
        assert_eq!(guest.partitions.len(), 3, "{:?}", guest.notes);
        assert!(
            guest.notes.iter().any(|note| note.contains(what) && note.contains("its backup is")),
            "{:?}",
            guest.notes
        );
    }
    lab.poke("d", 16 * MIB - 512, &[0; 512]);
    let (guest, _) = lab.look("d");
    assert_eq!((guest.partition_table.kind, guest.partitions.len()), (TableKind::None, 0));
    assert!(guest.notes.iter().any(|note| note.contains("protective MBR")), "{:?}", guest.notes);
}

#[test]
fn a_disk_that_has_grown_has_its_backup_in_the_middle() {
    if !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.empty("d", 16 * MIB);
    lab.run_with("sfdisk -q d", GPT);
    std::fs::OpenOptions::new().write(true).open(lab.path("d")).unwrap().set_len(20 * MIB).unwrap();
    let (guest, _) = lab.look("d");
    assert_eq!((guest.partition_table.backup, guest.partitions.len()), (Some(true), 3));
    assert!(guest.notes.iter().any(|note| note.contains("has grown")), "{:?}", guest.notes);
}

#[test]
fn a_hybrid_and_sectors_of_4096_bytes() {
    if !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.empty("d", 16 * MIB);
    lab.run_with("sfdisk -q d", GPT);
    lab.poke("d", 446 + 16, b"\x80\0\0\0\x83\0\0\0\x00\x18\0\0\x00\x18\0\0");
    let (guest, _) = lab.look("d");
    assert_eq!((guest.partition_table.kind, guest.partition_table.hybrid), (TableKind::Gpt, true));

    // One entry, by hand: not every sfdisk knows such sectors.
    let mut disk = vec![0; 8 << 20];
    disk[446..462].copy_from_slice(b"\0\0\x02\0\xee\xff\xff\xff\x01\0\0\0\xff\x07\0\0");
    disk[510..512].copy_from_slice(b"\x55\xaa");
    disk[8192..8192 + 16].fill(7);
    disk[8192 + 32] = 5;
    disk[8192 + 41] = 1;
    let sum = crc32fast::hash(&disk[8192..8192 + 128]);
    disk[4096..4096 + 92].copy_from_slice(&header(1, 128, sum));
    let guest = inspect(Box::new(disk)).unwrap();
    assert_eq!((guest.partition_table.sector_size, guest.partition_table.backup), (4096, Some(false)));
    assert_eq!((guest.partitions[0].start, guest.partitions[0].size), (5 * 4096, 252 * 4096));
}

/// A header with so many entries of such a length, which lie in the sector behind it.
fn header(count: u32, len: u32, sum: u32) -> Vec<u8> {
    let mut header = b"EFI PART\0\0\x01\0\x5c\0\0\0".to_vec();
    header.resize(92, 0);
    header[24] = 1;
    header[72] = 2;
    header[80..84].copy_from_slice(&count.to_le_bytes());
    header[84..88].copy_from_slice(&len.to_le_bytes());
    header[88..92].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

#[test]
fn an_mbr_is_read_with_its_logical_partitions() {
    if !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.empty("d", 64 * MIB);
    let script = "label: dos\nd1 : size=4M, type=7, bootable\nd2 : size=40M, type=5\nd5 : size=2M, type=82\n\
                  d6 : size=3M, type=8e\nd7 : size=4M, type=83\n";
    lab.run_with("sfdisk -q d", script);
    let guest = compare(&lab, "d");
    assert_eq!(guest.partitions.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2, 5, 6, 7]);
    assert!(guest.notes.is_empty(), "{:?}", guest.notes);

    // The second record points back at the first, then far away.
    let second = guest.partitions[3].start - MIB;
    for (next, note) in [(0_u32, "turns back"), (0x7fff_ffff, "leaves the disk")] {
        let mut entry = b"\0\0\0\0\x05\0\0\0".to_vec();
        entry.extend(next.max(1).to_le_bytes());
        entry.extend(100_u32.to_le_bytes());
        lab.poke("d", second + 462, &entry);
        let (guest, _) = lab.look("d");
        assert!(guest.partitions.len() >= 4, "{guest:?}");
        assert!(guest.notes.iter().any(|found| found.contains(note)), "{note}: {:?}", guest.notes);
    }
}

#[test]
fn no_table_is_no_table() {
    for (disk, notes) in [(vec![0; 100], 1), (vec![0; 1 << 20], 0), (vec![0xff; 1 << 20], 0)] {
        let guest = inspect(Box::new(disk)).unwrap();
        assert_eq!(
            (guest.partition_table.kind, guest.partitions.len(), guest.notes.len()),
            (TableKind::None, 0, notes)
        );
    }
    let fat = support::fat::with_files(16 * MIB, &[]);
    let guest = inspect(Box::new(fat)).unwrap();
    assert_eq!(
        (guest.partition_table.kind, guest.partitions.len()),
        (TableKind::None, 1),
        "a volume, not a table"
    );
    assert_eq!(guest.partitions[0].number, 0);
}

/// What is not looked into may be encrypted, be what is mounted, or have the loader in it.
#[test]
fn of_partitions_beyond_the_limit_nothing_is_said() {
    if !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    for (count, verdicts) in [(128, [Verdict::Pass, Verdict::Warn]), (129, [Verdict::Unknown; 2])] {
        lab.empty("d", 140 * MIB);
        let script = format!("label: gpt\ntable-length: 132\n{}", "size=1M, type=L\n".repeat(count));
        lab.run_with("sfdisk -q d", &script);
        lab.poke("d", MIB, b"XFSB");
        let (guest, _) = lab.look("d");
        assert_eq!(guest.partitions.len(), 128);
        let found = [Point::Encryption, Point::Boot].map(|point| finding(&guest, point).clone());
        assert_eq!(found.each_ref().map(|found| found.verdict), verdicts, "{found:#?}");
        assert_eq!(found[0].found.contains("of 129 the first 128"), count > 128, "{found:#?}");
        assert_eq!(guest.notes.len(), usize::from(count > 128), "{:?}", guest.notes);
        std::fs::remove_file(lab.path("d")).unwrap();
    }

    // Logical partitions by hand: sfdisk makes no more of them than Linux has names for.
    let record = |disk: &mut Vec<u8>, at: usize, entries: [(u8, u32, u32); 2]| {
        for (place, (kind, start, sectors)) in [446, 462].into_iter().zip(entries) {
            disk[at * 512 + place + 4] = kind;
            disk[at * 512 + place + 8..][..4].copy_from_slice(&start.to_le_bytes());
            disk[at * 512 + place + 12..][..4].copy_from_slice(&sectors.to_le_bytes());
        }
        disk[at * 512 + 510..][..2].copy_from_slice(b"\x55\xaa");
    };
    for (count, verdict) in [(60, Verdict::Pass), (61, Verdict::Unknown)] {
        let mut disk = vec![0; 1 << 20];
        record(&mut disk, 0, [(0x83, 1, 7), (5, 8, 2000)]);
        disk[512..516].copy_from_slice(b"XFSB");
        for number in 0..count {
            let next = if number + 1 < count { (5, (number + 1) * 4, 4) } else { (0, 0, 0) };
            record(&mut disk, 8 + number as usize * 4, [(0x83, 1, 3), next]);
        }
        let guest = inspect(Box::new(disk)).unwrap();
        assert_eq!(guest.partitions.len(), 62);
        assert_eq!(finding(&guest, Point::Encryption).verdict, verdict, "{:?}", guest.notes);
    }
}

/// What takes memory or time from those who believe it.
#[test]
fn a_gpt_that_asks_for_much_is_not_believed() {
    let mut disk = vec![0; 1 << 20];
    disk[446..462].copy_from_slice(b"\0\0\x02\0\xee\xff\xff\xff\x01\0\0\0\xff\x07\0\0");
    disk[510..512].copy_from_slice(b"\x55\xaa");
    for (count, len, why) in [
        (u32::MAX, 128_u32, "its list of partitions is too long"),
        (1, 1 << 30, "no sensible length"),
        (128, 100, "no sensible length"),
    ] {
        disk[512..512 + 92].copy_from_slice(&header(count, len, 0));
        let guest = inspect(Box::new(disk.clone())).unwrap();
        assert_eq!(guest.partition_table.kind, TableKind::None);
        assert!(guest.notes.iter().any(|note| note.contains(why)), "{why}: {:?}", guest.notes);
        let is_cut = why.contains("too long");
        let boot = finding(&guest, Point::Boot);
        assert_eq!(boot.verdict == Verdict::Unknown, is_cut, "{boot:?}");
    }
}
