//! VMDK deltas: what lies beneath, and what does not show through.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/esx.rs"]
mod esx;
#[path = "support/folder.rs"]
mod folder;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/vmdk.rs"]
mod vmdk;

use std::collections::BTreeMap;

use disk_image::{Item, OpenError, Role, Span, State};
use esx::{SeGrain, cowd, sesparse};
use folder::{Folder, assert_reads, delta, descriptor, in_file, stream_sample};
use vmdk::{Builder, content};

#[test]
fn holes_of_flat_files_hide_the_parent() {
    let flat = [vec![0; 8192], content(7, 4096), vec![0; 4096]].concat();
    let lines = ["RW 16 FLAT \"flat\" 0", "RW 8 FLAT \"flat\" 16", "RW 8 FLAT \"flat\" 24", "RW 8 ZERO"];
    let folder = Folder::default()
        .with_holes("flat", flat.clone(), vec![Span::new(4096, 100), Span::new(8192, 1 << 40)])
        .with("base.vmdk", descriptor("monolithicFlat", &["RW 40 FLAT \"base\" 0"]))
        .with("base", vec![0xee; 40 * 512]);
    let disk = folder.open(delta("1234abcd", "base.vmdk", &lines)).unwrap();
    assert_reads(&disk, &[flat.as_slice(), &[0; 4096]].concat());
    assert!(disk.image.map().iter().all(|extent| extent.state != State::Hole));
    let stats = disk.image.map().stats();
    assert_eq!((stats.data, stats.zero), (8192 + 100, 12288 - 100));
}

#[test]
fn deltas_lie_over_their_parents() {
    // A COWD delta over a seSparse delta over a stream with a short last grain, which is smaller than they are.
    let stream = stream_sample();
    let grains = BTreeMap::from([
        (0, SeGrain::Data(content(4, 4096))),
        (1, SeGrain::Zero),
        (2, SeGrain::Unmapped),
        (16, SeGrain::Zero),
    ]);
    let mut cowd_grains = BTreeMap::from([(1, content(7, 512)), (130, content(10, 512))]);
    cowd_grains.insert(199, content(13, 512));
    let stream_text = vmdk::descriptor("streamOptimized", 131).replace("CID=fffffffe", "CID=aa");
    let folder = Folder::default()
        .with("base.vmdk", Builder { descriptor: stream_text, ..stream.clone() }.build().bytes)
        .with("mid.vmdk", delta("000000aa", "base.vmdk", &["RW 200 SESPARSE \"mid-se.vmdk\""]))
        .with("mid-se.vmdk", sesparse(200, &grains))
        .with("top-delta.vmdk", cowd(200, 1, &cowd_grains));
    let top = delta("1234ABCD", "mid.vmdk", &["RW 200 VMFSSPARSE \"top-delta.vmdk\""]);
    let disk = folder.open(top.clone()).unwrap();
    let mut expected = stream.guest();
    expected.resize(200 * 512, 0);
    expected[..4096].copy_from_slice(&content(4, 4096));
    expected[4096..3 * 4096].fill(0);
    expected[16 * 4096..17 * 4096].fill(0);
    for (index, data) in &cowd_grains {
        expected[*index as usize * 512..][..512].copy_from_slice(data);
    }
    assert_reads(&disk, &expected);
    let names: Vec<&str> = disk.image.references().iter().map(|reference| reference.name.as_str()).collect();
    assert_eq!(names, ["top-delta.vmdk", "mid.vmdk", "mid-se.vmdk", "base.vmdk"]);
    let by: Vec<u16> = disk.image.references().iter().map(|reference| reference.by.0).collect();
    assert_eq!(by, [0, 0, 2, 2]);
    assert_eq!(disk.image.references()[3].role, Role::BackingFile);

    // The parent must be the disk that the delta was made on.
    let other = top.replace("parentCID=1234ABCD", "parentCID=1234ABCE");
    let error = OpenError::ParentCid { found: 0x1234_abcd, expected: 0x1234_abce };
    assert_eq!(error.to_string(), "the parent has the CID 1234abcd, and the image was made on 1234abce");
    assert_eq!(folder.refusal(other), in_file(2, error));
    let mid = delta("000000ab", "base.vmdk", &["RW 200 SESPARSE \"mid-se.vmdk\""]);
    let error = OpenError::ParentCid { found: 0xaa, expected: 0xab };
    assert_eq!(folder.clone().with("mid.vmdk", mid).refusal(top.clone()), in_file(4, error));
    let mid = descriptor("custom", &["RW 200 ZERO"]).replace("\nCID=1234abcd", "");
    let found = folder.clone().with("mid.vmdk", mid).refusal(top.clone());
    let what = Item::The("CID of the parent's descriptor");
    assert_eq!(found, in_file(2, OpenError::Missing { what, span: Span::default() }));
    // A parent is a VMDK, whatever it looks like.
    let found = folder.clone().with("mid.vmdk", vec![0; 4096]).refusal(top.clone());
    assert!(matches!(found.located().1, OpenError::Signature { .. }));
    // A disk that is its own parent has no end.
    let own = top.replace("mid.vmdk", "own.vmdk");
    let found = folder.clone().with("own.vmdk", own.clone()).refusal(own);
    assert!(matches!(found.located().1, OpenError::Limit { limit: 64, .. }));

    let skipped = Folder { skip: true, ..folder }.open(top).unwrap();
    assert!(skipped.image.is_partial());
}

#[test]
fn a_delta_needs_both_its_keys() {
    let delta = delta("1234abcd", "base.vmdk", &["RW 8 ZERO"]);
    let refusal = |text: String| Folder::default().refusal(text);
    let found = refusal(delta.replace("parentFileNameHint=\"base.vmdk\"", ""));
    assert!(
        matches!(
            found,
            OpenError::Missing { what: Item::The("parentFileNameHint of the VMDK descriptor"), .. }
        ),
        "{found:?}"
    );
    let expected = OpenError::Field {
        what: Item::The("parentCID of the VMDK descriptor"),
        found: u64::from(u32::MAX),
        expected: "the CID of the parent that parentFileNameHint names",
    };
    assert_eq!(refusal(delta.replace("1234abcd", "ffffffff")), expected);
    assert_eq!(refusal(delta.replace("parentCID=1234abcd", "")), expected);
}
