//! QCOW2 against QEMU: what qemu-img writes is read here, what is laid out here is judged by qemu-img.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;

use bytes::Bytes;
use disk_image::qcow2::{Layout, LayoutOptions};
use disk_image::{Details, Feature, Format, ObjectMap, OpenError, OpenOptions, Role, Warning};
use driver::Disk;
use qemu::{Dice, Lab, seen};

/// Every guest byte and every extent, by us and by QEMU.
fn agrees(lab: &Lab, file: &str) -> Disk {
    let disk = Disk::open(&lab.path(file));
    let guest = disk.guest().unwrap_or_else(|error| panic!("{file}: {error}"));
    let expected = lab.guest(file);
    assert_eq!(guest.len(), expected.len(), "{file}");
    let first = guest.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "{file}: first different byte");
    assert_eq!(seen(disk.image.map().iter()), lab.map(file), "{file}");
    disk
}

/// Chains of three, of every format that may lie beneath; each layer longer or shorter than the next one.
#[test]
fn backing_chains() {
    let Some(lab) = Lab::new() else { return };
    for format in ["raw", "qcow2", "vmdk"] {
        for (base, middle, top) in [("4M", "4M", "4M"), ("3M", "5M", "6M"), ("6M", "3M", "5M")] {
            lab.raw("base.raw", &Dice(3).disk(base[..1].parse::<usize>().unwrap() << 20));
            lab.img(&format!("convert -f raw -O {format} base.raw base"));
            lab.img(&format!("create -q -f qcow2 -F {format} -b base -o cluster_size=4k middle {middle}"));
            lab.io("middle", &["write -P 7 100k 300k", "write -z 1M 200k", "write -P 9 2900k 100k"]);
            lab.img(&format!("create -q -f qcow2 -F qcow2 -b middle top {top}"));
            lab.io("top", &["write -P 11 200k 100k", "write -z 64k 64k", "write -P 12 2500k 1k"]);
            let disk = Disk::open(&lab.path("top"));
            assert!(disk.guest().unwrap() == lab.guest("top"), "{format} {base} {middle} {top}");
            let named: Vec<_> = disk.image.references().iter().map(|r| (r.by.0, r.name.as_str())).collect();
            assert_eq!(named, [(0, "middle"), (1, "base")]);
            assert!(!disk.image.is_partial());
        }
    }
    // QEMU would look what the file is; here the user has to say it.
    lab.img("rebase -u -F qcow2 -b middle top");
    lab.img("create -q -f qcow2 -o compat=0.10 undeclared 4M");
    let mut bytes = std::fs::read(lab.path("undeclared")).unwrap();
    bytes[8..16].copy_from_slice(&1024_u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&4_u32.to_be_bytes());
    bytes[1024..1028].copy_from_slice(b"base");
    std::fs::write(lab.path("undeclared"), bytes).unwrap();
    let undeclared = |how| Disk::try_open(&lab.path("undeclared"), how).map(|disk| disk.guest().unwrap());
    let default = OpenOptions::default();
    let error = undeclared(&default).unwrap_err();
    assert_eq!(error, OpenError::Undeclared { role: Role::BackingFile, name: "base".into() });
    let how = OpenOptions { backing_format: Some(Format::Vmdk), ..OpenOptions::default() };
    assert!(undeclared(&how).unwrap()[..3 << 20] == lab.guest("base")[..3 << 20]);
}

/// A length that ends inside a cluster of every size above 512 bytes.
fn disk_len(cluster: &str) -> usize {
    match cluster {
        "512" => 700_000 / 512 * 512,
        "4k" => 3_000_320,
        _ => 9_000_448,
    }
}

#[test]
fn converted_images() {
    let Some(lab) = Lab::new() else { return };
    for cluster in ["512", "4k", "64k", "2M"] {
        lab.raw("in.raw", &Dice(1).disk(disk_len(cluster)));
        for (options, how) in [
            ("compat=0.10", ""),
            ("compat=1.1", ""),
            ("compat=0.10", "-c"),
            ("compat=1.1", "-c"),
            ("compression_type=zstd", "-c"),
            ("compression_type=zstd", "-c -m 16 -W"),
            ("compat=1.1", "-m 16 -W"),
            ("compat=1.1", "-c -m 16 -W"),
        ] {
            lab.img(&format!(
                "convert -f raw -O qcow2 {how} -o cluster_size={cluster},{options} in.raw a.qcow2"
            ));
            let disk = agrees(&lab, "a.qcow2");
            let stats = disk.image.map().stats();
            assert_eq!(stats.encoded > 0, how.contains("-c"), "{cluster} {options} {how}: {stats:?}");
        }
    }
}

#[test]
fn refcount_widths() {
    let Some(lab) = Lab::new() else { return };
    lab.raw("in.raw", &Dice(2).disk(2_000_384));
    for bits in [1, 2, 8, 32, 64] {
        lab.img(&format!("convert -f raw -O qcow2 -o cluster_size=4k,refcount_bits={bits} in.raw a.qcow2"));
        let disk = agrees(&lab, "a.qcow2");
        let Details::Qcow2(details) = disk.image.details() else { panic!() };
        assert_eq!(details.refcount_bits, bits);
    }
}

#[test]
fn zero_clusters_and_discards() {
    let Some(lab) = Lab::new() else { return };
    for cluster in ["512", "4k", "64k", "2M"] {
        lab.img(&format!("create -f qcow2 -o cluster_size={cluster} a.qcow2 12300800"));
        lab.io(
            "a.qcow2",
            &[
                "write -P 0x11 0 6M",
                "write -P 0x22 8M 1M",
                "write -z 64k 128k",
                "write -z -u 256k 256k",
                "write -z 7M 512k",
                "discard 1M 1M",
                "write -P 0x33 1111k 1k",
                "write -c -P 0x44 10M 1815040",
                "write -z 11M 64k",
            ],
        );
        let disk = agrees(&lab, "a.qcow2");
        assert!(disk.image.map().stats().zero > 0, "{cluster}");
    }
}

#[test]
fn snapshots_bitmaps_and_the_dirty_bit() {
    let Some(lab) = Lab::new() else { return };
    lab.img("create -f qcow2 -o lazy_refcounts=on a.qcow2 4M");
    lab.io("a.qcow2", &["write -P 1 0 2M"]);
    lab.img("snapshot -c first a.qcow2");
    lab.io("a.qcow2", &["write -P 2 1M 2M"]);
    lab.img("snapshot -c second a.qcow2");
    lab.img("bitmap --add a.qcow2 changes");
    lab.io("a.qcow2", &["write -P 3 64k 64k"]);
    let disk = agrees(&lab, "a.qcow2");
    assert_eq!(disk.image.warnings(), [Warning::Snapshots(2)]);
    let Details::Qcow2(details) = disk.image.details() else { panic!() };
    assert_eq!((details.bitmaps, details.lazy_refcounts, details.snapshots.len()), (1, true, 2));

    let mut file = disk.file.to_vec();
    file[79] |= 3;
    std::fs::write(lab.path("b.qcow2"), file).unwrap();
    let expected = disk.guest().unwrap();
    let disk = Disk::open(&lab.path("b.qcow2"));
    assert_eq!(disk.image.warnings(), [Warning::Dirty, Warning::Corrupt, Warning::Snapshots(2)]);
    assert_eq!(disk.guest().unwrap(), expected);
}

#[test]
fn preallocated_and_resized() {
    let Some(lab) = Lab::new() else { return };
    for cluster in ["512", "64k", "2M"] {
        for preallocation in ["metadata", "falloc"] {
            let options = format!("cluster_size={cluster},preallocation={preallocation}");
            lab.img(&format!("create -f qcow2 -o {options} a.qcow2 3000320"));
            agrees(&lab, "a.qcow2");
            lab.img("resize a.qcow2 8M");
            lab.io("a.qcow2", &["write -P 7 7M 4k"]);
            agrees(&lab, "a.qcow2");
            lab.img("resize --shrink a.qcow2 2000384");
            agrees(&lab, "a.qcow2");
        }
    }
}

#[test]
fn what_is_not_read_is_named() {
    let Some(lab) = Lab::new() else { return };
    let luks = "--object secret,id=key,data=secret -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
    lab.img(&format!("create -f qcow2 {luks} a.qcow2 1M"));
    let file = Bytes::from(std::fs::read(lab.path("a.qcow2")).unwrap());
    let error = Disk::parse(file, &OpenOptions::default()).err();
    assert_eq!(error, Some(OpenError::Unsupported(Feature::Luks)));
}

/// A file that lost its end is refused, or, where the last compressed cluster was cut, does not decode; it never gives other bytes.
#[test]
fn truncated_files() {
    let Some(lab) = Lab::new() else { return };
    lab.raw("in.raw", &Dice(3).disk(300_032));
    for options in
        ["-o cluster_size=512", "-o cluster_size=4k", "-c -o cluster_size=4k", "-c -o cluster_size=64k"]
    {
        lab.img(&format!("convert -f raw -O qcow2 {options} in.raw a.qcow2"));
        let whole = Disk::open(&lab.path("a.qcow2"));
        let expected = whole.guest().unwrap();
        let mut refused = 0;
        for len in (0..whole.file.len()).step_by(509) {
            let options = OpenOptions { format: Some(Format::Qcow2), ..OpenOptions::default() };
            match Disk::parse(whole.file.slice(..len), &options) {
                Err(_) => refused += 1,
                Ok(disk) => match disk.guest() {
                    Ok(guest) => assert!(guest == expected, "{options:?} cut at {len}"),
                    Err(_) => assert!(len + 1024 > whole.file.len(), "{options:?} cut at {len}"),
                },
            }
        }
        assert!(refused + 200 > whole.file.len() / 509, "{options}: {refused} refused");
    }
}

/// Bytes that change anywhere end in an error or in a disk of the same length, never in a panic.
#[test]
fn damaged_files() {
    let Some(lab) = Lab::new() else { return };
    let mut dice = Dice(5);
    lab.raw("in.raw", &dice.disk(200_192));
    for codec in ["zlib", "zstd"] {
        let options = format!("cluster_size=4k,compression_type={codec}");
        lab.img(&format!("convert -f raw -O qcow2 -c -o {options} in.raw a.qcow2"));
        let good = std::fs::read(lab.path("a.qcow2")).unwrap();
        let (mut opened, mut decoded) = (0, 0);
        for _ in 0..2000 {
            let mut file = good.clone();
            for _ in 0..=dice.roll(6) {
                let at = dice.roll(file.len() as u64) as usize;
                file[at] = dice.roll(256) as u8;
            }
            let options = OpenOptions { format: Some(Format::Qcow2), ..OpenOptions::default() };
            let Ok(disk) = Disk::parse(file.into(), &options) else { continue };
            opened += 1;
            if disk.image.virtual_size() < 1 << 30
                && let Ok(guest) = disk.guest()
            {
                assert_eq!(guest.len() as u64, disk.image.virtual_size());
                decoded += 1;
            }
        }
        assert!(opened > decoded && decoded > 100, "{codec}: {opened} opened, {decoded} decoded");
    }
}

#[test]
fn time_goes_with_the_data() {
    let Some(lab) = Lab::new() else { return };
    lab.img("create -f qcow2 a.qcow2 8T");
    let writes: Vec<String> = (0..100).map(|i| format!("write -P {} {}G 64k", i + 1, i * 80)).collect();
    lab.io("a.qcow2", &writes.iter().map(String::as_str).collect::<Vec<_>>());
    let disk = Disk::open(&lab.path("a.qcow2"));
    // L2 tables, L1 table, refcount table, header, and what probing asks for.
    let tables = 100 * (64 << 10) + (128 << 10) + 2 * (64 << 10) + (68 << 10);
    assert!(disk.asked <= tables, "{} bytes were asked for, {tables} would do", disk.asked);
    assert_eq!(seen(disk.image.map().iter()), lab.map("a.qcow2"));

    let layout = Layout::new(disk.image.map(), &LayoutOptions::default()).unwrap();
    let out = lab.path("out.qcow2");
    disk.write(&ObjectMap::qcow2(layout), 4 << 20, &out);
    lab.img("check out.qcow2");
    lab.img("compare a.qcow2 out.qcow2");
}

#[test]
fn laid_out_files_are_what_qemu_expects() {
    let Some(lab) = Lab::new() else { return };
    lab.raw("in.raw", &Dice(4).disk(9_000_448));
    lab.img("convert -f raw -O qcow2 -c -o cluster_size=4k in.raw small.qcow2");
    lab.img("convert -f raw -O qcow2 -o cluster_size=64k in.raw plain.qcow2");
    lab.img("create -f qcow2 empty.qcow2 512");
    lab.img("create -f qcow2 sparse.qcow2 100G");
    lab.io("sparse.qcow2", &["write -P 1 0 1k", "write -P 2 49G 3M", "write -P 3 107374181888 512"]);
    for source in ["small.qcow2", "plain.qcow2", "empty.qcow2", "sparse.qcow2"] {
        let disk = Disk::open(&lab.path(source));
        for cluster_size in [512, 4 << 10, 64 << 10, 2 << 20] {
            let layout = Layout::new(disk.image.map(), &LayoutOptions { cluster_size }).unwrap();
            assert_eq!(layout.len() % cluster_size, 0);
            // Parts of a length that is no multiple of anything cut tables inside an entry.
            for part in [1 << 20, 99_991] {
                disk.write(&ObjectMap::qcow2(layout.clone()), part, &lab.path("out.qcow2"));
                lab.img("check out.qcow2");
                lab.img(&format!("compare {source} out.qcow2"));
            }
            let again = Disk::open(&lab.path("out.qcow2"));
            assert_eq!(again.image.virtual_size(), disk.image.virtual_size());
        }
    }
}
