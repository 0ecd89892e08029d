//! The snapshot table: what it lists, and what is wrong with it.

use super::*;

/// Behind the good file: the snapshot table, two clusters of L1 table, an L2 table, a guest cluster.
const TABLE: usize = 10 * CLUSTER;
const FIRST_L1: usize = 12 * CLUSTER;
const SECOND_L1: usize = 13 * CLUSTER;
const OTHER_L2: usize = 14 * CLUSTER;
const OTHER_DATA: usize = 15 * CLUSTER;
const LEN: usize = 16 * CLUSTER;

/// Where the second entry starts: 40 fixed bytes, 16 of extra data, "1", "first".
const SECOND: usize = TABLE + 64;

/// The good file, with two snapshots. The first one shares the active L2 table, the second one has its own.
fn file() -> File {
    let mut file = File::new();
    file.0.resize(LEN, 0);
    file.u32(60, 2).u64(64, TABLE as u64);
    file.entry(TABLE, FIRST_L1, "1", "first").entry(SECOND, SECOND_L1, "7", "second");
    file.u64(FIRST_L1, L2 as u64).u64(SECOND_L1, OTHER_L2 as u64).u64(OTHER_L2 + 8, OTHER_DATA as u64);
    file
}

impl File {
    fn entry(&mut self, at: usize, l1: usize, id: &str, name: &str) -> &mut Self {
        self.u64(at, l1 as u64).u32(at + 8, 1).u32(at + 12, (id.len() << 16 | name.len()) as u32);
        self.u32(at + 16, 1_700_000_000).u32(at + 32, 99).u32(at + 36, 16);
        self.u64(at + 40, 1 << 40).u64(at + 48, 8 * CLUSTER as u64);
        let text = [id, name].concat();
        self.0[at + 56..at + 56 + text.len()].copy_from_slice(text.as_bytes());
        self
    }

    fn snapshot(&self, wanted: &str) -> Result<Image, OpenError> {
        self.open_as(&Layer { snapshot: Some(wanted.into()), ..Layer::default() })
    }
}

fn listed(image: &Image) -> &[Snapshot] {
    let Details::Qcow2(details) = image.details() else { panic!() };
    &details.snapshots
}

#[test]
fn snapshots_are_listed() {
    let image = file().open().unwrap();
    let [first, second] = listed(&image) else { panic!() };
    let expected = Snapshot {
        id: "1".into(),
        name: "first".into(),
        virtual_size: 8 * CLUSTER as u64,
        vm_state_size: 1 << 40,
        date_seconds: 1_700_000_000,
    };
    assert_eq!(*first, expected);
    assert_eq!((second.id.as_str(), second.name.as_str()), ("7", "second"));
    assert!(image.warnings().contains(&Warning::Snapshots(2)));
    assert_eq!(states(image.map()), states(File::new().open().unwrap().map()));
}

#[test]
fn without_extra_data_the_header_tells_the_size() {
    let mut file = file();
    // What were extra data is now id and name, the padding of the last entry is missing.
    file.u32(60, 1).u32(TABLE + 36, 0).u32(TABLE + 12, 0x2_0003);
    file.0[TABLE + 40..TABLE + 45].copy_from_slice(b"42abc");
    let image = file.open().unwrap();
    let [only] = listed(&image) else { panic!() };
    assert_eq!((only.id.as_str(), only.name.as_str(), only.vm_state_size), ("42", "abc", 99));
    assert_eq!(only.virtual_size, 20 * CLUSTER as u64 - 96);
    assert_eq!(file.snapshot("abc").unwrap().virtual_size(), 20 * CLUSTER as u64);
}

#[test]
fn a_snapshot_is_chosen_by_id_and_then_by_name() {
    let first = file().snapshot("1").unwrap();
    assert_eq!(first.virtual_size(), 8 * CLUSTER as u64);
    assert_eq!(first.map().stats().data, 2 * CLUSTER as u64);
    assert!(first.warnings().is_empty(), "{:?}", first.warnings());
    assert_eq!(states(file().snapshot("first").unwrap().map()), states(first.map()));

    let second = file().snapshot("second").unwrap();
    let expected = [
        (CLUSTER as u64, State::Hole),
        (CLUSTER as u64, data(OTHER_DATA, CLUSTER)),
        (6 * CLUSTER as u64, State::Hole),
    ];
    assert_eq!(states(second.map()), expected);
    assert_eq!(file().snapshot("third").unwrap_err(), OpenError::NoSnapshot);
    assert_eq!(File::new().snapshot("1").unwrap_err(), OpenError::NoSnapshot);

    // An id goes before a name; of the same names none is meant.
    let mut named = file();
    named.entry(SECOND, SECOND_L1, "7", "1");
    assert_eq!(states(named.snapshot("1").unwrap().map()), states(first.map()));
    let mut same = file();
    same.entry(SECOND, SECOND_L1, "7", "first");
    assert_eq!(same.snapshot("first").unwrap_err(), OpenError::SeveralSnapshots);
    assert_eq!(states(same.snapshot("7").unwrap().map()), expected);
    same.entry(SECOND, SECOND_L1, "1", "second");
    assert_eq!(same.snapshot("1").unwrap_err(), OpenError::SeveralSnapshots);
}

#[test]
fn damage_is_told_and_stops_only_what_it_touches() {
    let damaged = |change: &dyn Fn(&mut File) -> &mut File, index: u32, expected: &str| {
        let mut file = file();
        change(&mut file);
        let image = file.open().unwrap();
        assert!(image.warnings().contains(&Warning::SnapshotTable(index)), "{:?}", image.warnings());
        assert_eq!(states(image.map()), states(File::new().open().unwrap().map()));
        let wanted = if index == 0 { "1" } else { "7" };
        assert_eq!(file.snapshot(wanted).unwrap_err().to_string(), expected);
        file
    };
    let aligned = "expected a multiple of the cluster size, above 0";
    damaged(&|f| f.u64(SECOND, 77), 1, &format!("the offset of the snapshot's L1 table is 0x4d, {aligned}"));
    damaged(&|f| f.u64(SECOND, 0), 1, &format!("the offset of the snapshot's L1 table is 0x0, {aligned}"));
    let entries = "number of entries of the snapshot's L1 table is";
    damaged(
        &|f| f.u32(TABLE + 8, 0),
        0,
        &format!("the {entries} 0x0, expected enough entries for the virtual size"),
    );
    damaged(
        &|f| f.u64(TABLE + 48, 32769),
        0,
        &format!("the {entries} 0x1, expected enough entries for the virtual size"),
    );
    damaged(&|f| f.u32(TABLE + 8, 1 << 23), 0, &format!("the {entries} 8388608, the limit is 4194304"));
    damaged(
        &|f| f.u64(TABLE + 48, 0),
        0,
        "the virtual size of the snapshot is 0x0, expected a disk that has bytes",
    );
    damaged(
        &|f| f.u64(TABLE + 48, u64::MAX),
        0,
        "the virtual size of the snapshot is 18446744073709551615, the limit is 70368744177664",
    );
    // The others can still be read, unless nobody knows where they are.
    let file = damaged(
        &|f| f.u64(SECOND, 77),
        1,
        &format!("the offset of the snapshot's L1 table is 0x4d, {aligned}"),
    );
    assert!(file.snapshot("1").is_ok());
    let lost = "extra data of snapshot table entry 1 is 1025, the limit is 1024";
    let file = damaged(&|f| f.u32(SECOND + 36, 1025), 1, lost);
    assert_eq!(file.snapshot("1").unwrap_err().to_string(), lost);
    assert_eq!(listed(&file.open().unwrap()).len(), 1);
}

#[test]
fn snapshots_past_the_end_or_on_something_else_are_refused() {
    let refused = |change: &dyn Fn(&mut File) -> &mut File, expected: &str| {
        let mut file = file();
        change(&mut file);
        assert_eq!(file.open().unwrap_err().to_string(), expected);
    };
    let used = |what: &str, at: usize| {
        format!("{what} points to the bytes at {at:#x}, which something else in the image uses")
    };
    refused(&|f| f.u64(TABLE, L1 as u64), &used("snapshot table entry 0", L1));
    refused(&|f| f.u64(SECOND, FIRST_L1 as u64), &used("snapshot table entry 1", FIRST_L1));
    refused(&|f| f.u64(TABLE, TABLE as u64), &used("the snapshot table", TABLE));
    refused(&|f| f.u64(64, L1 as u64), &used("the snapshot table", L1));
    refused(&|f| f.u64(L2, SECOND_L1 as u64), &used("L2 table 0 entry 0", SECOND_L1));
    refused(&|f| f.u64(L2, TABLE as u64), &used("L2 table 0 entry 0", TABLE));
    refused(
        &|f| f.u64(TABLE, LEN as u64),
        "snapshot table entry 0 points to 8 bytes at 0x2000, past the end of the file (0x2000)",
    );
    refused(
        &|f| f.u64(64, (LEN - CLUSTER) as u64).u32(60, 13),
        "snapshot table entry 12 points to 40 bytes at 0x1fe0, past the end of the file (0x2000)",
    );
    // Checked like the active one.
    let twice = file().u64(OTHER_L2, OTHER_DATA as u64).snapshot("7").unwrap_err();
    assert_eq!(twice.to_string(), used("L2 table 0 entry 1", OTHER_DATA));
    let reserved = file().u64(SECOND_L1, 1).snapshot("7").unwrap_err();
    assert_eq!(
        reserved.to_string(),
        "snapshot's L1 table entry 0 is 0x1, expected bits 0-8 and 56-62 to be 0"
    );
}

/// As many snapshots with names as long as fit: the table is walked in steps, and ends at the limit.
#[test]
fn a_table_longer_than_a_step() {
    let mut file = file();
    let count = 3000;
    let at = |i: usize| LEN + i * 2112;
    file.0.resize(at(count) + 1024 * (count + 1), 0);
    let first_l1 = at(count).next_multiple_of(CLUSTER);
    let name = "x".repeat(2046);
    for i in 0..count {
        file.entry(at(i), first_l1 + i * CLUSTER, &format!("{i:010}"), &name);
    }
    file.u64(64, LEN as u64).u32(60, count as u32);
    let image = file.open().unwrap();
    assert_eq!(listed(&image).len(), count);
    assert_eq!(listed(&image)[count - 1].id, format!("{:010}", count - 1));
    assert_eq!(image.warnings()[1..], [Warning::Snapshots(count as u32)]);
    assert!(file.snapshot("0000002999").is_ok());
}
