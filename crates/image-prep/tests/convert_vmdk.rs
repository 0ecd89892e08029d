//! `convert --to vmdk`: qemu-img reads the stream as the disk, and so do we; it is the same each time.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on ends")]

mod support;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use support::{Bench, MIB, noise};

const GIB: u64 = 1 << 30;
const GRAIN: u64 = 64 << 10;
/// Guest bytes of a grain table.
const TABLE: u64 = 512 * GRAIN;

/// Bytes at an offset of a disk.
type Piece<'a> = (u64, &'a [u8]);

/// Makes the stream twice, on one thread and on two; qemu-img compares it with the raw disk, and we check and compare it.
fn judge(bench: &Bench, raw: &str) {
    let args = ["convert", "--format", "raw", raw, "out.vmdk", "--to", "vmdk", "-j"];
    bench.ok([&args[..], &["1"]].concat());
    let bytes = fs::read(bench.path("out.vmdk")).unwrap();
    bench.ok([&args[..], &["2"]].concat());
    assert!(bytes == fs::read(bench.path("out.vmdk")).unwrap(), "{raw}: threads change the bytes");
    let judged = bench.qemu_img(&["compare", "-q", "-f", "raw", "-F", "vmdk", raw, "out.vmdk"]).unwrap();
    assert_eq!(judged.code, 0, "{raw}: {judged:?}");
    let info = bench.qemu_img(&["info", "--output=json", "out.vmdk"]).unwrap().json();
    assert_eq!(info["format-specific"]["data"]["create-type"], "streamOptimized", "{raw}");
    let extent = &info["format-specific"]["data"]["extents"][0];
    assert_eq!((&extent["compressed"], &extent["cluster-size"]), (&true.into(), &GRAIN.into()), "{raw}");
    bench.ok(["info", "--check", "out.vmdk"]);
    bench.ok(["compare", "--format", "raw", raw, "out.vmdk"]);
    fs::remove_file(bench.path("out.vmdk")).unwrap();
}

/// A disk of `len` bytes with these pieces; the boot signature of [`Bench::raw`] is not among them.
fn disk(bench: &Bench, name: &str, len: u64, pieces: &[Piece]) {
    let file = File::create(bench.path(name)).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in pieces {
        let room = usize::try_from(len - at).unwrap_or(usize::MAX).min(bytes.len());
        file.write_all_at(&bytes[..room], *at).unwrap();
    }
}

#[test]
fn disks_whose_ends_meet_in_every_way() {
    let bench = Bench::new();
    let Some(_) = bench.qemu_img(&["--version"]) else { return };
    let (noise, text) = (noise(MIB, 3), b"image-prep ".repeat(30_000));
    let (noise, text) = (&noise[..], &text[..]);
    let disks: [(u64, Vec<Piece>); 12] = [
        // Empty, small, and no multiple of the grain; data in the last sector or not.
        (512, vec![]),
        (512, vec![(0, noise)]),
        (GRAIN, vec![(0, noise)]),
        (GRAIN + 512, vec![(0, noise)]),
        (GRAIN + 512, vec![(GRAIN, text)]),
        (3 * MIB, vec![]),
        (5 * MIB + 1536, vec![(MIB - 700, noise), (3 * MIB + 77, text)]),
        // Around the ends of tables: the last grain of one, the first of the next, both, and a table without any.
        (TABLE, vec![(TABLE - 512, noise)]),
        (TABLE + 512, vec![(TABLE, noise)]),
        (TABLE + GRAIN, vec![(TABLE - GRAIN, noise)]),
        (4 * TABLE, vec![(5, text), (3 * TABLE + GRAIN, noise)]),
        // More bytes than 32 bits count.
        (5 * GIB + 512, vec![(4 * GIB - 512, text), (5 * GIB, noise)]),
    ];
    for (len, pieces) in disks {
        disk(&bench, "disk", len, &pieces);
        judge(&bench, "disk");
    }
}

/// Text, noise and zeroes, in stretches that fall on no boundary. `DISKS` in the environment says how many.
#[test]
fn random_disks() {
    let bench = Bench::new();
    let Some(_) = bench.qemu_img(&["--version"]) else { return };
    let disks: u64 = std::env::var("DISKS").map_or(12, |disks| disks.parse().unwrap());
    let (noise, text) = (noise(MIB, 3), b"image-prep ".repeat(100_000));
    for seed in 0..disks {
        let mut state = seed;
        let mut roll = |sides: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % sides
        };
        let len = 512 * (1 + roll(150 * 2048));
        let pieces: Vec<Piece> = (0..1 + roll(20))
            .map(|_| {
                let (from, content) = (roll(500_000) as usize, if roll(2) == 0 { &noise } else { &text });
                (roll(len), &content[from..from + 1 + roll(500_000) as usize])
            })
            .collect();
        disk(&bench, "random", len, &pieces);
        judge(&bench, "random");
    }
}

#[test]
fn a_stream_is_about_as_long_as_that_of_qemu_img() {
    let bench = Bench::new();
    let program = fs::read(env!("CARGO_BIN_EXE_image-prep")).unwrap();
    let program = &program[..program.len().min(24 << 20)];
    bench.raw("disk", 40 * MIB, &[(MIB, program), (36 * MIB, &noise(MIB, 4))]);
    let args = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk", "theirs"];
    let Some(made) = bench.qemu_img(&args) else { return };
    assert_eq!(made.code, 0, "{made:?}");
    let ours = bench.ok(["convert", "disk", "ours", "--to", "vmdk", "--json"]).json();
    let len = |name: &str| fs::metadata(bench.path(name)).unwrap().len();
    assert_eq!((&ours["fileSize"], &ours["format"]), (&len("ours").into(), &"vmdk".into()));
    assert!(len("ours") * 100 <= len("theirs") * 102, "{} of {}", len("ours"), len("theirs"));
}

/// More sectors than 32 bits count: so long a disk may be, if not the file. qemu-img would look at each grain.
#[test]
fn a_disk_of_many_tebibytes() {
    let bench = Bench::new();
    let len = 10 << 40;
    disk(&bench, "disk", len, &[(GIB, &[1; 70_000]), (3 << 40, &[2; 512]), (len - 512, &[3; 512])]);
    bench.ok(["convert", "--format", "raw", "disk", "out.vmdk", "--to", "vmdk"]);
    assert!(fs::metadata(bench.path("out.vmdk")).unwrap().len() < 3 * MIB);
    bench.ok(["info", "--check", "out.vmdk"]);
    bench.ok(["compare", "--format", "raw", "disk", "out.vmdk"]);
    let Some(info) = bench.qemu_img(&["info", "--output=json", "out.vmdk"]) else { return };
    assert_eq!(info.json()["virtual-size"], len);
}

#[test]
fn what_may_be_too_long_is_refused_before_it_is_read() {
    let bench = Bench::new();
    // Mapped throughout, and nothing written.
    let mapped = "create -q -f qcow2 -o preallocation=metadata,cluster_size=2M mapped 3T";
    let Some(made) = bench.qemu_img(&mapped.split(' ').collect::<Vec<_>>()) else { return };
    assert_eq!(made.code, 0, "{made:?}");
    let run = bench.fails(2, ["convert", "mapped", "out", "--to", "vmdk"]);
    assert!(run.stderr.contains("a stream has at most 2 TiB"), "{run:?}");
    assert_eq!(bench.names(), ["mapped"]);
}
