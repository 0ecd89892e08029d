//! `convert --to gce`: GNU tar, Python and gzip read the archive as the disk, and so do we; it is the same each time.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on ends")]

mod support;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use support::{Bench, MIB, noise};

const GIB: u64 = 1 << 30;
const UNIT: u64 = 256 << 10;

/// Bytes at an offset of a disk.
type Piece<'a> = (u64, &'a [u8]);

/// What a program in the folder says; `None`, said aloud, where there is none; under `CI` that is a failure.
fn tool(bench: &Bench, program: &str, args: &[&str]) -> Option<String> {
    let folder = bench.path("");
    match Command::new(program).args(args).current_dir(folder).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program} {args:?}: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{program} is the oracle and cannot run: {error}");
            eprintln!("SKIPPED: {program} is the oracle and cannot run: {error}");
            None
        }
    }
}

/// Says of each member of an archive what it is, and unpacks it.
const PYTHON: &str = "
import sys, tarfile, gzip
with tarfile.open(sys.argv[1], 'r:gz') as tar:
    for member in tar.getmembers():
        print(member.name, member.size, member.issparse(), oct(member.mode), member.mtime, member.uid)
        if sys.argv[2] == 'unpack':
            tar.extract(member, 'python')
with gzip.open(sys.argv[1]) as stream:
    length = 0
    while block := stream.read(1 << 20):
        length += len(block)
    print(length % 10240)
";

/// Makes the archive twice, on one thread and on two; GNU tar, Python and we unpack it to the disk.
fn judge(bench: &Bench, raw: &str, len: u64) {
    let args = ["convert", "--format", "raw", raw, "out.tar.gz", "--to", "gce", "-j"];
    bench.ok([&args[..], &["1"]].concat());
    let bytes = fs::read(bench.path("out.tar.gz")).unwrap();
    bench.ok([&args[..], &["2"]].concat());
    assert!(bytes == fs::read(bench.path("out.tar.gz")).unwrap(), "{raw}: threads change the bytes");
    bench.ok(["info", "--check", "out.tar.gz"]);

    let padded = len.next_multiple_of(GIB);
    File::options().write(true).open(bench.path(raw)).unwrap().set_len(padded).unwrap();
    let same = |found: &str| {
        let meta = fs::metadata(bench.path(found)).unwrap();
        assert_eq!(meta.len(), padded, "{found}");
        assert!(meta.blocks() * 512 < 256 * MIB, "{found} takes {} blocks", meta.blocks());
        bench.ok(["compare", "--format", "raw", "--second-format", "raw", raw, found]);
        if let Some(judged) = bench.qemu_img(&["compare", "-q", "-f", "raw", "-F", "raw", raw, found]) {
            assert_eq!(judged.code, 0, "{found}: {judged:?}");
        }
        fs::remove_file(bench.path(found)).unwrap();
    };
    if let Some(list) = tool(bench, "tar", &["-tvzf", "out.tar.gz"]) {
        assert!(list.ends_with(" disk.raw\n") && list.lines().count() == 1, "{list}");
        tool(bench, "tar", &["-xSzf", "out.tar.gz"]);
        same("disk.raw");
    }
    if let Some(list) = tool(bench, "python3", &["-c", PYTHON, "out.tar.gz", "unpack"]) {
        assert_eq!(list, format!("disk.raw {padded} True 0o644 0 0\n0\n"));
        same("python/disk.raw");
    }
    // What is not installed everywhere.
    for program in ["bsdtar", "pigz"] {
        if Command::new(program).arg("--version").output().is_err() {
            continue;
        }
        match program {
            "bsdtar" => drop(tool(bench, program, &["-xSf", "out.tar.gz"])),
            _ => drop(tool(bench, "tar", &["-I", "pigz", "-xSf", "out.tar.gz"])),
        }
        same("disk.raw");
    }
    bench.ok(["convert", "out.tar.gz", "back.raw"]);
    same("back.raw");
    for file in [raw, "out.tar.gz"] {
        fs::remove_file(bench.path(file)).unwrap();
    }
}

/// A disk of `len` bytes with these pieces.
fn disk(bench: &Bench, name: &str, len: u64, pieces: &[Piece]) {
    let file = File::create(bench.path(name)).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in pieces {
        let room = usize::try_from(len - at).unwrap_or(usize::MAX).min(bytes.len());
        file.write_all_at(&bytes[..room], *at).unwrap();
    }
}

#[test]
fn disks_of_every_size() {
    let bench = Bench::new();
    let (noise, text) = (noise(MIB, 3), b"image-prep ".repeat(30_000));
    let (noise, text) = (&noise[..], &text[..]);
    let tib = 1 << 40;
    let disks: [(u64, Vec<Piece>); 9] = [
        (512, vec![]),
        (512, vec![(0, noise)]),
        (UNIT + 512, vec![(UNIT, text)]),
        (GIB, vec![(0, noise), (5 * MIB - 7, text), (GIB - 512, text)]),
        (GIB + 512, vec![(GIB, text)]),
        // The last size in octal, and the first in binary.
        (7 * GIB, vec![(6 * GIB, noise)]),
        (8 * GIB, vec![(4 * GIB - 512, text), (8 * GIB - 3, text)]),
        (20 * GIB, vec![(0, text), (8 * GIB - 1, noise), (19 * GIB, text)]),
        (2 * tib, vec![(GIB, noise), (tib, text), (2 * tib - 512, noise)]),
    ];
    for (len, pieces) in disks {
        disk(&bench, "disk", len, &pieces);
        judge(&bench, "disk", len);
    }
}

/// More runs than the header has, so that its map goes on in blocks.
#[test]
fn a_disk_in_many_pieces() {
    let bench = Bench::new();
    for count in [4, 5, 25, 26, 120] {
        let text = b"piece ".repeat(20);
        let pieces: Vec<Piece> = (0..count).map(|i| (i * 3 * UNIT + 5, &text[..])).collect();
        // With and without a hole at the end.
        for len in [GIB, (count - 1) * 3 * UNIT + 512] {
            disk(&bench, "disk", len, &pieces);
            judge(&bench, "disk", len);
        }
    }
}

#[test]
fn an_archive_is_no_longer_than_that_of_tar() {
    let bench = Bench::new();
    let program = fs::read(env!("CARGO_BIN_EXE_image-prep")).unwrap();
    let program = &program[..program.len().min(24 << 20)];
    disk(&bench, "disk.raw", GIB, &[(MIB, program), (36 * MIB, &noise(MIB, 4))]);
    let made = bench.ok(["convert", "--format", "raw", "disk.raw", "ours", "--to", "gce", "--json"]).json();
    let Some(_) = tool(&bench, "tar", &["--format=oldgnu", "-Sczf", "theirs", "disk.raw"]) else { return };
    let len = |name: &str| fs::metadata(bench.path(name)).unwrap().len();
    assert_eq!((&made["fileSize"], &made["format"]), (&len("ours").into(), &"gce".into()));
    assert!(len("ours") * 100 <= len("theirs") * 103, "{} of {}", len("ours"), len("theirs"));
    // Theirs is one stream, and nothing says where anything is in it.
    let run = bench.fails(3, ["info", "theirs"]);
    assert!(
        run.stderr.contains("a gzip file without an index") && run.stderr.contains("tar -xSzf"),
        "{run:?}"
    );
    let _ = tool(&bench, "tar", &["--format=oldgnu", "-Scf", "plain.tar", "disk.raw"]);
    bench.ok(["compare", "ours", "plain.tar"]);
    let info = bench.ok(["info", "--json", "plain.tar"]).json();
    assert_eq!((&info["member"], &info["format"]), (&"disk.raw".into(), &"raw".into()));
    let map = bench.ok(["map", "--json", "plain.tar"]).json();
    assert_eq!((&map[0]["present"], &map[0]["data"]), (&false.into(), &false.into()), "{map}");
}

/// Zeroes that a raw disk stores are looked for, unless that is declined; in other formats what is stored is stored.
#[test]
fn stored_zeroes_are_left_out() {
    let bench = Bench::new();
    disk(&bench, "disk", 8 * MIB, &[(0, &vec![0; 8 << 20]), (MIB, b"image-prep")]);
    let encodes = |more: &[&str]| {
        let args = ["convert", "--format", "raw", "disk", "out", "--to", "gce", "--json"];
        let made = bench.ok([&args[..], more].concat()).json();
        made["counters"]["converting"]["encodes"].as_u64().unwrap()
    };
    assert_eq!((encodes(&[]), encodes(&["--no-scan"])), (1, 32));
}
