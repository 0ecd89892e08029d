//! What only some QCOW2 images have, against QEMU: subclusters, data files, internal snapshots, every combination of options.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;

use disk_image::{Details, OpenError, OpenOptions, Role, Warning, qcow2};
use driver::Disk;
use qemu::{Dice, Lab, seen};

/// Every guest byte and every extent, by us and by QEMU.
fn agrees(lab: &Lab, file: &str, what: &str) -> Disk {
    let disk = Disk::open(&lab.path(file));
    let guest = disk.guest().unwrap_or_else(|error| panic!("{what}: {error}"));
    let expected = lab.guest(file);
    assert_eq!(guest.len(), expected.len(), "{what}");
    let first = guest.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "{what}: first different byte");
    assert_eq!(seen(disk.image.map().iter()), lab.map(file), "{what}");
    disk
}

fn details(disk: &Disk) -> &qcow2::Details {
    let Details::Qcow2(details) = disk.image.details() else { panic!() };
    details
}

/// Every combination that qemu-img accepts, empty and filled.
#[test]
fn every_combination_of_options() {
    let Some(lab) = Lab::new() else { return };
    let len = 5_000_704;
    lab.raw("in.raw", &Dice(21).disk(len));
    let mut made = 0;
    for (n, options) in combinations().into_iter().enumerate() {
        lab.remove(&["a.qcow2", "d.raw"]);
        if lab.try_img(&format!("create -q -f qcow2 -o {options} a.qcow2 {len}")).is_err() {
            continue;
        }
        made += 1;
        // Partly filled with writes of every kind, then as a whole.
        let has_data_file = options.contains("data_file");
        let mut writes =
            vec!["write -P 1 100k 70k", "write -P 2 3000320 1k", "write -z 1M 300k", "discard 160k 128k"];
        writes.push(if has_data_file { "write -P 3 4915200 85504" } else { "write -c -P 3 4M 512k" });
        writes.push("write -P 4 5000192 512");
        lab.io_where_possible("a.qcow2", &writes);
        let disk = agrees(&lab, "a.qcow2", &options);
        assert_eq!(details(&disk).data_file, has_data_file);
        assert_eq!(details(&disk).subclusters, options.contains("extended_l2=on"));
        // Conversion to all of them would take minutes.
        if n % 5 == 0 {
            lab.remove(&["a.qcow2", "d.raw"]);
            let packed = !has_data_file && options.ends_with("zstd") && options.contains("tion=off");
            let how = if packed { "-c -m 16 -W" } else { "" };
            lab.img(&format!("convert {how} -f raw -O qcow2 -o {options} in.raw a.qcow2"));
            let disk = agrees(&lab, "a.qcow2", &format!("{options}, converted {how}"));
            assert_eq!(disk.image.map().stats().encoded > 0, packed, "{options}");
        }
    }
    assert!(made > 70, "{made} combinations");
}

/// Every combination of what may matter to a reader; the other options go round.
fn combinations() -> Vec<String> {
    let mut all = Vec::new();
    let mut widths = [1, 2, 4, 8, 16, 32, 64].into_iter().cycle();
    let mut compressions = ["zlib", "zstd"].into_iter().cycle();
    let mut lazies = ["off", "on", "on", "off", "off"].into_iter().cycle();
    for cluster_size in ["512", "4k", "16k", "64k", "2M"] {
        for extended_l2 in ["off", "on"] {
            for preallocation in ["off", "metadata", "falloc", "full"] {
                if [("falloc", "on"), ("full", "off")].contains(&(preallocation, extended_l2)) {
                    // These two write the same tables.
                    continue;
                }
                for data_file in ["", ",data_file=d.raw", ",data_file=d.raw,data_file_raw=on"] {
                    let (width, compression) = (widths.next().unwrap(), compressions.next().unwrap());
                    let lazy = lazies.next().unwrap();
                    all.push(format!(
                            "cluster_size={cluster_size},extended_l2={extended_l2},preallocation={preallocation},\
                             lazy_refcounts={lazy},refcount_bits={width},compression_type={compression}{data_file}"
                        ));
                }
            }
        }
        for preallocation in ["off", "metadata", "falloc", "full"] {
            all.push(format!("cluster_size={cluster_size},compat=0.10,preallocation={preallocation}"));
        }
        // So that the codecs meet the other half of the combinations.
        compressions.next();
    }
    all
}

/// The data file is as long as the disk, whatever was written where.
#[test]
fn data_files() {
    let Some(lab) = Lab::new() else { return };
    for options in ["", ",data_file_raw=on", ",extended_l2=on", ",preallocation=metadata"] {
        for len in [1_000_448, 1 << 20, 512] {
            lab.remove(&["a.qcow2", "d.raw"]);
            lab.img(&format!("create -q -f qcow2 -o data_file=d.raw{options} a.qcow2 {len}"));
            let what = format!("{options} {len}");
            agrees(&lab, "a.qcow2", &what);
            lab.io("a.qcow2", &[&format!("write -P 9 {} 512", len - 512)]);
            let disk = agrees(&lab, "a.qcow2", &what);
            assert!(disk.others[0].len() >= len, "{what}");
            let named: Vec<_> = disk.image.references().iter().map(|r| (r.role, r.name.as_str())).collect();
            assert_eq!(named, [(Role::DataFile, "d.raw")]);
            // With its last sector gone it cannot be read.
            std::fs::write(lab.path("d.raw"), &disk.others[0][..len - 512]).unwrap();
            let error = Disk::try_open(&lab.path("a.qcow2"), &OpenOptions::default()).err().unwrap();
            assert!(matches!(error.located(), (file, OpenError::Truncated { .. }) if file.0 == 1), "{what}");
            std::fs::write(lab.path("d.raw"), &disk.others[0]).unwrap();
            lab.img("resize a.qcow2 3M");
            lab.io("a.qcow2", &["write -P 8 2M 1k"]);
            agrees(&lab, "a.qcow2", &what);
        }
    }
    // On a backing file.
    lab.remove(&["a.qcow2", "d.raw"]);
    lab.raw("base.raw", &Dice(5).disk(700_416));
    for extended in ["on", "off"] {
        lab.remove(&["a.qcow2", "d.raw"]);
        let options = format!("data_file=d.raw,extended_l2={extended}");
        lab.img(&format!("create -q -f qcow2 -F raw -b base.raw -o {options} a.qcow2 1000448"));
        lab.io("a.qcow2", &["write -P 8 100k 1k", "write -z 300k 10k", "write -P 7 699k 2k"]);
        let disk = Disk::open(&lab.path("a.qcow2"));
        assert!(disk.guest().unwrap() == lab.guest("a.qcow2"));
        let roles: Vec<_> = disk.image.references().iter().map(|r| r.role).collect();
        assert_eq!(roles, [Role::DataFile, Role::BackingFile]);
    }
}

#[test]
fn internal_snapshots() {
    let Some(lab) = Lab::new() else { return };
    for options in ["", "-o cluster_size=512", "-o extended_l2=on", "-o compat=0.10"] {
        lab.remove(&["a.qcow2"]);
        lab.img(&format!("create -q -f qcow2 {options} a.qcow2 3M"));
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for (name, resize, writes) in [
            ("first", None, ["write -P 1 0 1M", "write -P 2 2900k 100k"]),
            ("2", Some("5M"), ["write -P 3 500k 1M", "write -P 4 2700k 64k"]),
            ("third of them", None, ["write -z 0 2M", "discard 2M 1M"]),
        ] {
            if let Some(size) = resize.filter(|_| !options.contains("0.10")) {
                lab.img(&format!("resize -q a.qcow2 {size}"));
            }
            lab.io("a.qcow2", &writes);
            lab.io_where_possible("a.qcow2", &["write -c -P 6 2M 64k"]);
            expected.push(lab.guest("a.qcow2"));
            lab.img_with("snapshot", &["-c", name, "a.qcow2"]);
        }
        lab.io("a.qcow2", &["write -P 5 100k 2900k"]);

        let disk = agrees(&lab, "a.qcow2", options);
        assert_eq!(disk.image.warnings(), [Warning::Snapshots(3)]);
        let listed = &details(&disk).snapshots;
        let names: Vec<_> = listed.iter().map(|one| (one.id.as_str(), one.name.as_str())).collect();
        assert_eq!(names, [("1", "first"), ("2", "2"), ("3", "third of them")]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        for (number, (one, expected)) in listed.iter().zip(&expected).enumerate() {
            assert_eq!((one.virtual_size, one.vm_state_size), (expected.len() as u64, 0));
            assert!(now - u64::from(one.date_seconds) < 3600);
            for wanted in [&one.id, &one.name] {
                let how = OpenOptions { snapshot: Some(wanted.clone()), ..OpenOptions::default() };
                let disk = Disk::open_with(&lab.path("a.qcow2"), &how);
                assert!(disk.guest().unwrap() == *expected, "{options}: snapshot {number} as {wanted}");
                assert!(disk.image.warnings().is_empty());
            }
        }
        let how = OpenOptions { snapshot: Some("4".into()), ..OpenOptions::default() };
        assert_eq!(Disk::try_open(&lab.path("a.qcow2"), &how).err(), Some(OpenError::NoSnapshot));
        // QEMU allows names to repeat.
        lab.img_with("snapshot", &["-c", "first", "a.qcow2"]);
        let how = OpenOptions { snapshot: Some("first".into()), ..OpenOptions::default() };
        assert_eq!(Disk::try_open(&lab.path("a.qcow2"), &how).err(), Some(OpenError::SeveralSnapshots));
        lab.img("snapshot -d first a.qcow2");
        lab.img("snapshot -a 2 a.qcow2");
        let disk = agrees(&lab, "a.qcow2", options);
        assert_eq!(details(&disk).snapshots.len(), 3);
    }
}

/// Streams that QEMU reads and a strict decoder does not: those that yield more than a cluster, and those that are not ended.
#[test]
fn streams_that_do_not_end_with_the_cluster() {
    let Some(lab) = Lab::new() else { return };
    let mut dice = Dice(9);
    let mut half_noise = |len: usize| -> Vec<u8> { (0..len).map(|_| dice.roll(16) as u8).collect() };
    let cluster = half_noise(4096);
    let more = [&cluster[..], &half_noise(2000)].concat();
    lab.raw("in.raw", &cluster);
    lab.img("convert -c -f raw -O qcow2 -o cluster_size=4k in.raw a.qcow2");
    let good = std::fs::read(lab.path("a.qcow2")).unwrap();
    let number = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().unwrap());
    let l2 = (number(number(40) as usize) & 0x00ff_ffff_ffff_fe00) as usize;
    let block = |content: &[u8], header: u8| {
        let len = content.len() as u16;
        [&[header][..], &len.to_le_bytes(), &(!len).to_le_bytes(), content].concat()
    };
    let packed = |content: &[u8]| {
        let mut out = vec![0; 2 * content.len()];
        let mut encoder = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let len = encoder.deflate_compress(content, &mut out).unwrap();
        out.truncate(len);
        out
    };
    let (stored, long) = (block(&cluster, 0), packed(&more));
    let mut accepted = 0;
    for (what, stream) in [
        ("ended", block(&cluster, 1)),
        ("two blocks", [&stored[..], &block(b"more", 0)].concat()),
        ("two blocks, ended", [&stored[..], &block(b"more", 1)].concat()),
        ("a block that does not end", stored.clone()),
        ("a damaged block", [&stored[..], &[7; 300]].concat()),
        ("more than a cluster", long.clone()),
        ("more than a cluster, cut", long[..long.len() - 300].to_vec()),
        ("less than a cluster", block(&cluster[..4095], 1)),
        ("less than a cluster, not ended", block(&cluster[..4095], 0)),
    ] {
        let mut file = good.clone();
        let start = file.len().next_multiple_of(512);
        let sectors = (stream.len() - 1) / 512;
        file.resize(start, 0);
        file.extend(&stream);
        file.resize(file.len().next_multiple_of(4096), 0);
        let entry = 1 << 62 | (sectors as u64) << 58 | start as u64;
        file[l2..l2 + 8].copy_from_slice(&entry.to_be_bytes());
        std::fs::write(lab.path("b.qcow2"), file).unwrap();
        let ours = Disk::open(&lab.path("b.qcow2")).guest();
        let theirs = lab.accepts("b.qcow2");
        assert_eq!(ours.is_ok(), theirs, "{what}: {:?}", ours.err());
        if let Ok(guest) = ours {
            assert!(guest == lab.guest("b.qcow2") && guest == cluster, "{what}");
            accepted += 1;
        }
    }
    assert!(accepted > 3, "{accepted}");
}
