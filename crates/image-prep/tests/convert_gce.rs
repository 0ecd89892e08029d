//! `convert --to gce`: GNU tar, Python and gzip read the archive as the disk, and so do we; it is the same each time. And theirs, and
//! whatever else they compress, is read by us.
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
    bench.ok(["compare", "ours", "theirs"]);
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

/// Archives by GNU tar in every sparse format, by what else is installed, and by ours of it: each is the disk.
#[test]
fn archives_of_others() {
    let bench = Bench::new();
    let (noise, text) = (noise(MIB, 3), b"image-prep ".repeat(30_000));
    let (noise, text) = (&noise[..], &text[..]);
    let tib = 1 << 40;
    let many: Vec<Piece> = (0..60).map(|i| (i * 5 * MIB, &text[..300_000])).collect();
    let disks: [(u64, Vec<Piece>); 4] = [
        (GIB, [&[(0, noise)], &many[..]].concat()),
        (8 * GIB, vec![(0, text), (4 * GIB - 512, text), (8 * GIB - 4096, noise)]),
        (20 * GIB, vec![(0, text), (8 * GIB - 1, noise), (19 * GIB, text)]),
        (2 * tib, vec![(GIB, noise), (tib, text), (2 * tib - 4096, noise)]),
    ];
    let mut ways: Vec<(&str, Vec<&str>)> = vec![
        ("tar", vec!["--format=oldgnu", "-Sczf"]),
        ("tar", vec!["--format=gnu", "-Sczf"]),
        ("tar", vec!["--format=posix", "--sparse-version=0.0", "-Sczf"]),
        ("tar", vec!["--format=posix", "--sparse-version=0.1", "-Sczf"]),
        ("tar", vec!["--format=posix", "--sparse-version=1.0", "-Sczf"]),
        ("tar", vec!["--format=posix", "-Scf"]),
    ];
    let more: [(&str, &str, &[&str]); 4] = [
        ("pigz", "tar", &["-I", "pigz", "--format=oldgnu", "-Scf"]),
        ("pigz", "tar", &["-I", "pigz -i -b 512", "--format=oldgnu", "-Scf"]),
        ("bsdtar", "bsdtar", &["--format=pax", "-czf"]),
        ("bsdtar", "bsdtar", &["--format=gnutar", "-czf"]),
    ];
    for (needed, program, args) in more {
        match Command::new(needed).arg("--version").output() {
            Ok(_) => ways.push((program, args.to_vec())),
            Err(error) => eprintln!("SKIPPED: {needed} is not installed everywhere: {error}"),
        }
    }
    for (len, pieces) in disks {
        disk(&bench, "disk.raw", len, &pieces);
        for (program, args) in &ways {
            // Only pax has holes there; the other one would write every zero.
            if *program == "bsdtar" && args[0] == "--format=gnutar" && len > GIB {
                continue;
            }
            let Some(_) = tool(&bench, program, &[&args[..], &["theirs", "disk.raw"]].concat()) else {
                return;
            };
            bench.ok(["compare", "--format", "raw", "disk.raw", "theirs"]);
            let info = bench.ok(["info", "--json", "--check", "theirs"]).json();
            assert_eq!(
                (&info["member"], &info["virtualSize"]),
                (&"disk.raw".into(), &len.into()),
                "{args:?}"
            );
            let is_compressed = args.iter().any(|arg| *arg == "-I" || arg.contains('z'));
            assert_eq!(info["compression"].as_str(), is_compressed.then_some("gzip"), "{args:?}");
        }
        // And what is made of the last one, by another judge.
        bench.ok(["convert", "theirs", "back.raw"]);
        if let Some(judged) =
            bench.qemu_img(&["compare", "-q", "-f", "raw", "-F", "raw", "disk.raw", "back.raw"])
        {
            assert_eq!(judged.code, 0, "{judged:?}");
        }
        fs::remove_file(bench.path("back.raw")).unwrap();
    }
}

/// Python's own writers: tar in each of its formats, dense as it has no other, and gzip alone, in one member and in several.
const PYTHON_WRITES: &str = "
import gzip, tarfile
for name, format in ('ustar', tarfile.USTAR_FORMAT), ('gnu', tarfile.GNU_FORMAT), ('pax', tarfile.PAX_FORMAT):
    with tarfile.open(f'{name}.tar.gz', 'w:gz', format=format, compresslevel=6) as tar:
        tar.add('disk.raw')
disk = open('disk.raw', 'rb').read()
for name, parts in ('one', 1), ('several', 5):
    with open(f'{name}.gz', 'wb') as out:
        for i in range(parts):
            part = disk[len(disk) * i // parts:len(disk) * (i + 1) // parts]
            with gzip.GzipFile('disk.raw', 'wb', 1 + i, out) as member:
                member.write(part)
";

/// A disk in gzip and nothing else, and other formats in it.
#[test]
fn compressed_files_of_others() {
    let bench = Bench::new();
    let (noise, text) = (noise(3 * MIB, 5), b"image-prep ".repeat(200_000));
    let pieces: [Piece; 4] = [(0, &text), (510, b"\x55\xaa"), (20 * MIB + 3, &noise), (63 * MIB, &text)];
    disk(&bench, "disk.raw", 64 * MIB, &pieces);
    if tool(&bench, "python3", &["-c", PYTHON_WRITES]).is_some() {
        for name in ["ustar.tar.gz", "gnu.tar.gz", "pax.tar.gz", "one.gz", "several.gz"] {
            bench.ok(["compare", "--format", "raw", "disk.raw", name]);
        }
    }
    // Holes that the file does not have any more are found again.
    let Some(_) = tool(&bench, "gzip", &["-k", "disk.raw"]) else { return };
    let info = bench.ok(["info", "--json", "--digest", "disk.raw.gz"]).json();
    let digest = bench.ok(["info", "--json", "--digest", "--format", "raw", "disk.raw"]).json();
    assert_eq!(info["guestDigest"], digest["guestDigest"]);
    assert_eq!(info["fileSize"], fs::metadata(bench.path("disk.raw.gz")).unwrap().len());
    let allocated = info["allocatedSize"].as_u64().unwrap();
    assert!(allocated < 10 * MIB, "{allocated}");
    let map = bench.ok(["map", "--json", "disk.raw.gz"]).json();
    let runs = map.as_array().unwrap();
    assert!(runs.iter().all(|run| run["offset"].is_null() && run["data"] == run["compressed"]), "{map}");
    assert!(
        runs.iter().any(|run| run["data"] == true) && runs.iter().any(|run| run["data"] == false),
        "{map}"
    );

    let qcow2 = ["convert", "-O", "qcow2", "-c", "disk.raw", "disk.qcow2"];
    if bench.qemu_img(&qcow2).is_some_and(|made| made.code == 0) {
        let _ = tool(&bench, "gzip", &["-k", "disk.qcow2"]);
        let info = bench.ok(["info", "--json", "disk.qcow2.gz"]).json();
        assert_eq!((&info["format"], &info["compression"]), (&"qcow2".into(), &"gzip".into()));
        bench.ok(["compare", "disk.qcow2", "disk.qcow2.gz"]);
        bench.ok(["convert", "disk.qcow2.gz", "out.vmdk", "--to", "vmdk"]);
        bench.ok(["compare", "--format", "raw", "disk.raw", "out.vmdk"]);
    }
}

/// Zstandard, where it is installed: in one frame, in several, around a tar, and in a frame that is too long to be read at random.
#[test]
fn zstandard_of_others() {
    let bench = Bench::new();
    if let Err(error) = Command::new("zstd").arg("--version").output() {
        eprintln!("SKIPPED: zstd is not installed everywhere: {error}");
        return;
    }
    let text = b"image-prep ".repeat(200_000);
    disk(&bench, "disk.raw", 40 * MIB, &[(0, &text), (510, b"\x55\xaa"), (20 * MIB + 3, &noise(3 * MIB, 5))]);
    let run = |script: &str| tool(&bench, "sh", &["-e", "-c", script]).unwrap();
    run(
        "zstd -q -k disk.raw && cat disk.raw.zst disk.raw.zst >twice.zst && cat disk.raw disk.raw >twice.raw",
    );
    run("tar --format=oldgnu -Scf disk.tar disk.raw && zstd -q disk.tar");
    for (name, raw) in
        [("disk.raw.zst", "disk.raw"), ("disk.tar.zst", "disk.raw"), ("twice.zst", "twice.raw")]
    {
        bench.ok(["compare", "--format", "raw", raw, name]);
        let info = bench.ok(["info", "--json", name]).json();
        assert_eq!(info["compression"], "Zstandard", "{name}");
    }
    run("zstd -q -k twice.raw -o long.zst");
    let run = bench.fails(3, ["info", "long.zst"]);
    assert!(
        run.stderr.contains("a Zstandard frame of more than 64 MiB") && run.stderr.contains("zstd -d"),
        "{run:?}"
    );
}

/// What a tar in gzip may hold besides a disk, and what is no tar.
#[test]
fn compressed_files_that_are_refused() {
    let bench = Bench::new();
    disk(&bench, "disk.raw", 8 * MIB, &[(0, &noise(100_000, 7))]);
    let Some(_) = tool(&bench, "tar", &["-czf", "theirs", "disk.raw"]) else { return };
    let whole = fs::read(bench.path("theirs")).unwrap();
    let refused = |bytes: &[u8], text: &str| {
        fs::write(bench.path("bad"), bytes).unwrap();
        let run = bench.fails(3, ["convert", "bad", "out.raw"]);
        assert!(run.stderr.contains(text), "{text}: {run:?}");
        assert!(!bench.path("out.raw").exists());
    };
    refused(&whole[..whole.len() - 3], "end of gzip member 0 was not found");
    refused(&whole[..whole.len() / 2], "end of gzip member 0 was not found");
    refused(&[&whole[..], b"more"].concat(), "expected 1f 8b, or zeroes up to the end of the file");
    let mut flipped = whole.clone();
    let at = whole.len() - 6;
    flipped[at] ^= 1;
    refused(&flipped, "the checksum in gzip member 0 is");
    for (link, kind) in [("-s", "symbolic"), ("-f", "hard")] {
        let _ = tool(&bench, "ln", &[link, "disk.raw", kind]);
        let _ = tool(&bench, "tar", &["-czf", "links", "disk.raw", kind]);
        refused(&fs::read(bench.path("links")).unwrap(), "a link in an archive");
    }
    let _ = tool(&bench, "mv", &["disk.raw", "other.raw"]);
    let _ = tool(&bench, "tar", &["-czf", "named", "other.raw"]);
    refused(&fs::read(bench.path("named")).unwrap(), "the tar format");
    let _ = tool(&bench, "gzip", &["-kf", "theirs"]);
    refused(&fs::read(bench.path("theirs.gz")).unwrap(), "unpacked twice");
    let _ = tool(&bench, "gzip", &["-kf", "other.raw"]);
    refused(&fs::read(bench.path("other.raw.gz")).unwrap(), "in what the gzip file unpacks to");
}
