//! What is no image, or a bad one: one error, the right code, nothing left behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::{Bench, MIB, truncate};

/// `info`, `map` and `convert` refuse it with this code and this text; no output appears.
fn refused(bench: &Bench, image: &str, code: i32, text: &str) {
    let before = bench.names();
    for args in [&["info", image][..], &["map", image], &["convert", image, "out"]] {
        let run = bench.fails(code, args);
        assert!(run.stderr.contains(text), "{text}: {run:?}");
        assert!(run.stdout.is_empty(), "{run:?}");
    }
    assert_eq!(bench.names(), before);
}

#[test]
fn empty() {
    let bench = Bench::new();
    fs::write(bench.path("empty"), "").unwrap();
    refused(&bench, "empty", 3, "caused by: the file is empty");
}

#[test]
fn text() {
    let bench = Bench::new();
    fs::write(bench.path("text"), "hello\n".repeat(1000)).unwrap();
    refused(&bench, "text", 3, "hint: if this is a raw disk, say so with --format raw");
    bench.ok(["info", "--format", "raw", "text"]);
}

#[test]
fn missing_directory_and_device() {
    let bench = Bench::new();
    fs::create_dir(bench.path("folder")).unwrap();
    refused(&bench, "missing", 1, "not found");
    refused(&bench, "folder", 1, "neither a regular file nor a block device");
    refused(&bench, "/dev/null", 1, "neither a regular file nor a block device");
}

#[test]
fn unreadable() {
    let bench = Bench::new();
    let path = bench.raw("secret", MIB, &[]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        eprintln!("SKIPPED: this user may read everything, so there is no unreadable file");
        return;
    }
    refused(&bench, "secret", 1, "access denied");
}

#[test]
fn other_formats_are_named() {
    let bench = Bench::new();
    for (magic, name) in [
        (&b"WithoutFreeSpace"[..], "Parallels"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"QED\0", "QED"),
    ] {
        let mut bytes = magic.to_vec();
        bytes.resize(100_000, 0);
        fs::write(bench.path("other"), bytes).unwrap();
        refused(&bench, "other", 3, name);
    }
}

#[test]
fn unsupported_features_are_named() {
    let bench = Bench::new();
    for (name, options, feature) in [
        ("aes", "encrypt.format=aes,encrypt.key-secret=s", "AES encryption"),
        ("luks", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "LUKS encryption"),
    ] {
        let secret = ["create", "-q", "--object", "secret,id=s,data=123456", "-f", "qcow2", "-o"];
        let args = [&secret[..], &[options, name, "1M"]].concat();
        let Some(made) = bench.qemu_img(&args) else { return };
        assert_eq!(made.code, 0, "{made:?}");
        refused(&bench, name, 3, feature);
    }
}

#[test]
fn the_named_format_is_binding() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    for format in ["qcow2", "vmdk"] {
        let run = bench.fails(3, ["info", "--format", format, "disk"]);
        assert!(run.stderr.contains("first bytes") || run.stderr.contains("not a"), "{run:?}");
    }
}

/// Cut anywhere, an image is refused or fails; it never becomes an output. Only what no guest byte depends on may be missing.
fn never_truncated(format: &str, options: &[&str]) {
    let bench = Bench::new();
    let Some(path) = bench.sample_as("image", &[&["-O", format], options].concat()) else { return };
    let whole = fs::read(&path).unwrap();
    let sample = fs::read(bench.path("sample.raw")).unwrap();
    let before = bench.names();
    let len = whole.len() as u64;
    // Every table lies at the start or the end; the rest is data.
    let cuts = [1, 4, 100, 512, 1024, 65_536, 65_537, 131_072, 200_000, 262_145]
        .into_iter()
        .chain((1..20).map(|step| len * step / 20))
        .chain([len - 65_536, len - 1536, len - 1024, len - 512])
        .filter(|cut| *cut < len);
    for cut in cuts {
        fs::write(&path, &whole).unwrap();
        truncate(&path, cut);
        let run = bench.run(["convert", "image", "out"]);
        // The padding of the last grain of a VMDK, which ends the file.
        if run.code == 0 && format == "vmdk" && len - cut < 64 << 10 {
            assert!(fs::read(bench.path("out")).unwrap() == sample, "cut to {cut} of {len}");
            fs::remove_file(bench.path("out")).unwrap();
            continue;
        }
        assert!(matches!(run.code, 1 | 3), "cut to {cut} of {len}: {run:?}");
        assert_eq!(run.stderr.matches("error: ").count(), 1, "{run:?}");
        assert_eq!(bench.names(), before, "cut to {cut}");
    }
}

#[test]
fn truncated_qcow2() {
    never_truncated("qcow2", &[]);
}

#[test]
fn truncated_qcow2_zlib() {
    never_truncated("qcow2", &["-c"]);
}

#[test]
fn truncated_vmdk_sparse() {
    never_truncated("vmdk", &[]);
}

#[test]
fn truncated_vmdk_stream_optimized() {
    never_truncated("vmdk", &["-o", "subformat=streamOptimized"]);
}

#[test]
fn a_file_name_cannot_steer_the_terminal() {
    let bench = Bench::new();
    let run = bench.fails(1, ["info", "a\u{1b}[31mb\nc"]);
    assert!(!run.stderr.contains('\u{1b}') && !run.stderr.contains("b\nc"), "{run:?}");
}
