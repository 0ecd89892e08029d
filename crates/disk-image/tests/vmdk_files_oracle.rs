//! VMDK disks in several files, and deltas, made or judged by qemu-img.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/esx.rs"]
mod esx;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/vmdk.rs"]
mod vmdk;

use std::collections::BTreeMap;

use disk_image::{Details, Feature, ObjectMap, OpenError, OpenOptions, Span};
use driver::Disk;
use esx::{SeGrain, cowd, sesparse};
use qemu::{Dice, Lab, seen};
use vmdk::{Builder, GRAIN};

const MIB: usize = 1 << 20;

/// Compares guest bytes with what QEMU says of a file.
fn assert_bytes_agree(lab: &Lab, file: &str) -> Disk {
    let disk = Disk::open(&lab.path(file));
    let ours = disk.guest().unwrap_or_else(|error| panic!("{file}: {error}"));
    let theirs = lab.guest(file);
    assert_eq!(ours.len(), theirs.len(), "{file}");
    let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{file}: first different byte");
    disk
}

/// The same, and the extents.
fn assert_agrees(lab: &Lab, file: &str) -> Disk {
    let disk = assert_bytes_agree(lab, file);
    assert_eq!(seen(disk.image.map().iter()), lab.map(file), "{file}");
    disk
}

fn create_type(disk: &Disk) -> String {
    match disk.image.details() {
        Details::Vmdk(details) => details.create_type.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A descriptor with these extent lines.
fn descriptor(create_type: &str, lines: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\n\
         # Extent description\n{lines}\n\n# The Disk Data Base\n#DDB\nddb.adapterType = \"ide\"\n"
    )
}

/// All that qemu-img can be asked for.
#[test]
fn every_option_of_qemu_img_agrees() {
    let Some(lab) = Lab::new() else { return };
    let mut content = Dice(11).disk(5 * MIB + 512);
    *content.last_mut().unwrap() = 1;
    lab.raw("in.raw", &content);
    for subformat in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        for more in [
            "adapter_type=ide",
            "adapter_type=buslogic",
            "adapter_type=lsilogic",
            "adapter_type=legacyESX",
            "hwversion=13",
            "compat6=on",
            "toolsversion=2147483647",
            "zeroed_grain=on",
        ] {
            if more == "zeroed_grain=on" && subformat.ends_with("Flat") {
                continue;
            }
            lab.img(&format!("convert -f raw -O vmdk -o subformat={subformat},{more} in.raw made.vmdk"));
            let disk = assert_bytes_agree(&lab, "made.vmdk");
            assert!(disk.guest().unwrap() == content, "{subformat},{more}");
            assert_eq!(create_type(&disk), subformat);
            let named =
                if subformat.starts_with("monolithicS") || subformat.starts_with("stream") { 0 } else { 1 };
            assert_eq!(disk.others.len(), named, "{subformat}");
            if !subformat.ends_with("Flat") {
                assert_eq!(seen(disk.image.map().iter()), lab.map("made.vmdk"), "{subformat},{more}");
            }
        }
    }
}

/// Three files of up to 2 GiB, with data at their ends and across them.
#[test]
fn split_disks_agree() {
    let Some(lab) = Lab::new() else { return };
    lab.img("create -q -f vmdk -o subformat=twoGbMaxExtentSparse split.vmdk 4500M");
    let two = 4_192_256_u64 * 512;
    let spots = [0, two - 65536, two, two + (1 << 30), 2 * two - 4096, 4500 * MIB as u64 - 512];
    let commands: Vec<String> =
        spots.iter().zip(1..).map(|(at, pattern)| format!("write -P {pattern} {at} 512")).collect();
    lab.io("split.vmdk", &commands.iter().map(String::as_str).collect::<Vec<_>>());
    let disk = Disk::open(&lab.path("split.vmdk"));
    assert_eq!(disk.image.virtual_size(), 4500 * MIB as u64);
    assert!(disk.others.len() > 1);
    assert_eq!(seen(disk.image.map().iter()), lab.map("split.vmdk"));
    let layout = ObjectMap::raw(disk.image.virtual_size());
    for (at, pattern) in spots.into_iter().zip(1..) {
        assert_eq!(disk.part(&layout, Span::new(at, 512)).unwrap(), [pattern; 512], "{at:#x}");
    }
    // One of its files alone.
    let alone = Disk::try_open(&lab.path("split-s002.vmdk"), &OpenOptions::default());
    assert_eq!(alone.map(|disk| disk.image).unwrap_err(), OpenError::Unsupported(Feature::VmdkExtentAlone));
}

/// Extents whose files are made by qemu-img; streams lie at other places than their markers say.
#[test]
fn extents_side_by_side_agree() {
    let Some(lab) = Lab::new() else { return };
    side_by_side(&lab, [3 * MIB, MIB + GRAIN, 2 * MIB, 5 * MIB]);
    assert_bytes_agree(&lab, "side.vmdk");
    // Where an extent ends inside of a grain QEMU 10.0 asks its file for the whole grain, and fails: what was put in is the judge.
    side_by_side(&lab, [3 * MIB + 512, MIB + 1024, 2 * MIB - 512, 5 * MIB - 4096]);
}

fn side_by_side(lab: &Lab, lens: [usize; 4]) {
    let mut dice = Dice(31);
    let parts: Vec<Vec<u8>> = lens
        .into_iter()
        .map(|len| {
            let mut part = dice.disk(len);
            *part.last_mut().unwrap() = 9;
            part
        })
        .collect();
    let subformats =
        ["streamOptimized", "monolithicSparse", "streamOptimized,zeroed_grain=on", "monolithicFlat"];
    let mut lines = String::new();
    for (index, (part, subformat)) in parts.iter().zip(subformats).enumerate() {
        lab.raw("part.raw", part);
        lab.img(&format!("convert -f raw -O vmdk -o subformat={subformat} part.raw p{index}.vmdk"));
        let sectors = part.len() / 512;
        lines += &match subformat {
            "monolithicFlat" => {
                let flat = format!("FLAT \"p{index}-flat.vmdk\"");
                format!("RW {} {flat} 40\nRW 40 {flat} 0\n", sectors - 40)
            }
            _ => format!("RW {sectors} SPARSE \"p{index}.vmdk\"\n"),
        };
    }
    lines += "RW 1 VMFS \"part.raw\"\n";
    lab.raw("side.vmdk", descriptor("twoGbMaxExtentSparse", &lines).as_bytes());
    let disk = Disk::open(&lab.path("side.vmdk"));
    let last = parts.last().unwrap();
    let sparse = parts[..3].concat();
    let expected = [&sparse, &last[40 * 512..], &last[..40 * 512], &last[..512]].concat();
    assert!(disk.guest().unwrap() == expected);
}

#[test]
fn deltas_agree() {
    let Some(lab) = Lab::new() else { return };
    let len = 6 * MIB as u64 + 512;
    let write = |file: &str, seed: u64, zeroes: bool| {
        let mut dice = Dice(seed);
        let commands: Vec<String> = (1..30)
            .map(|pattern| {
                let at = dice.roll(len / 512) * 512;
                let run = (dice.roll(300) * 512 + 512).min(len - at);
                if zeroes && dice.roll(3) == 0 {
                    let at = at / GRAIN as u64 * GRAIN as u64;
                    format!("write -z {at} {}", run.next_multiple_of(GRAIN as u64).min(len - at))
                } else {
                    format!("write -P {pattern} {at} {run}")
                }
            })
            .collect();
        lab.io(file, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    };
    lab.img(&format!("create -q -f vmdk base.vmdk {len}"));
    write("base.vmdk", 1, false);
    lab.img("create -q -f vmdk -o zeroed_grain=on -b base.vmdk -F vmdk middle.vmdk");
    write("middle.vmdk", 2, true);
    lab.img("create -q -f vmdk -o subformat=twoGbMaxExtentSparse -b middle.vmdk -F vmdk top.vmdk");
    write("top.vmdk", 3, false);
    for (file, files) in [("base.vmdk", 0), ("middle.vmdk", 1), ("top.vmdk", 3)] {
        let disk = assert_agrees(&lab, file);
        assert_eq!(disk.others.len(), files, "{file}");
    }
    // A stream beneath, shorter than its delta, with a short grain at its end.
    lab.raw("in.raw", &[vec![7; 3 * GRAIN], vec![9; 512]].concat());
    lab.img("convert -f raw -O vmdk -o subformat=streamOptimized in.raw stream.vmdk");
    lab.img(&format!("create -q -f vmdk -b stream.vmdk -F vmdk over.vmdk {len}"));
    lab.io("over.vmdk", &["write -P 3 64k 4k"]);
    assert_bytes_agree(&lab, "over.vmdk");
    // A base that was written to after the delta was made is another disk: QEMU finds out when it reads from it.
    lab.img("create -q -f vmdk -b base.vmdk -F vmdk stale.vmdk");
    lab.io("base.vmdk", &["write -P 1 0 512"]);
    assert!(!lab.accepts("stale.vmdk"));
    let stale = Disk::try_open(&lab.path("stale.vmdk"), &OpenOptions::default());
    let (file, error) = stale.map(|disk| disk.image).unwrap_err().located();
    assert!(file.0 == 1 && matches!(error, OpenError::ParentCid { .. }), "{error:?}");
}

/// Files of ESX, which qemu-img reads and does not write.
#[test]
fn files_of_esx_agree() {
    let Some(lab) = Lab::new() else { return };
    for seed in 0..4 {
        let mut dice = Dice(seed + 100);
        let sectors = 33_000 + dice.roll(9000);
        for grain_sectors in [1, 8] {
            let count = sectors / grain_sectors;
            let grains: BTreeMap<u64, Vec<u8>> =
                (0..300).map(|_| (dice.roll(count), dice.disk(grain_sectors as usize * 512))).collect();
            lab.raw("x-delta.vmdk", &cowd(sectors as u32, grain_sectors as u32, &grains));
            let line = format!("RW {sectors} VMFSSPARSE \"x-delta.vmdk\"");
            lab.raw("cowd.vmdk", descriptor("vmfsSparse", &line).as_bytes());
            assert_agrees(&lab, "cowd.vmdk");
        }
        // As long as whole grains: QEMU reads the last one in full.
        let sectors = sectors / 8 * 8;
        let grains: BTreeMap<u64, SeGrain> = (0..300)
            .map(|_| {
                let grain = match dice.roll(4) {
                    0 => SeGrain::Zero,
                    1 => SeGrain::Unmapped,
                    _ => SeGrain::Data(dice.disk(4096)),
                };
                (dice.roll(sectors / 8), grain)
            })
            .collect();
        lab.raw("x-sesparse.vmdk", &sesparse(sectors, &grains));
        let line = format!("RW {sectors} SESPARSE \"x-sesparse.vmdk\"");
        lab.raw("se.vmdk", descriptor("seSparse", &line).as_bytes());
        assert_agrees(&lab, "se.vmdk");

        // Over a base: what the guest discarded in the delta is zero.
        lab.raw("base.raw", &vec![0x55; sectors as usize * 512]);
        lab.img("convert -f raw -O vmdk base.raw base.vmdk");
        let base = std::fs::read(lab.path("base.vmdk")).unwrap();
        let text = String::from_utf8_lossy(&base[512..1024]).into_owned();
        let cid = text.split_once("CID=").unwrap().1.split_once('\n').unwrap().0.to_owned();
        let keys = format!("parentCID={cid}\nparentFileNameHint=\"base.vmdk\"");
        let over = descriptor("seSparse", &line).replace("parentCID=ffffffff", &keys);
        lab.raw("over.vmdk", over.as_bytes());
        assert_agrees(&lab, "over.vmdk");
    }
}

/// qemu-img passes over the lines that it does not know, and all that follows moves down: there the specification decides.
#[test]
fn lines_that_qemu_drops_keep_their_place() {
    let Some(lab) = Lab::new() else { return };
    let flat = Dice(3).disk(MIB);
    lab.raw("flat.bin", &flat);
    lab.raw("sparse.vmdk", &Builder::sparse(256).grain(1, vec![5; GRAIN]).build().bytes);
    for (line, len) in
        [("RW 2048 ZERO", 2048), ("NOACCESS 8 ZERO", 8), ("RDONLY 100 FLAT \"flat.bin\" 0", 100)]
    {
        let lines = format!("{line}\nRW 1000 FLAT \"flat.bin\" 1000");
        lab.raw("mixed.vmdk", descriptor("monolithicFlat", &lines).as_bytes());
        let disk = Disk::open(&lab.path("mixed.vmdk"));
        let ours = disk.guest().unwrap();
        let theirs = lab.guest("mixed.vmdk");
        assert_eq!((ours.len(), theirs.len()), ((1000 + len) * 512, 1000 * 512), "{line}");
        assert!(ours[len * 512..] == theirs && ours[len * 512..] == flat[1000 * 512..2000 * 512]);
        let expected = if line.contains("FLAT") { flat[..len * 512].to_vec() } else { vec![0; len * 512] };
        assert!(ours[..len * 512] == expected, "{line}");
    }
}
