//! `convert`: what comes out is what went in, and nothing comes out of a failure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use support::{Bench, MIB, finish, noise};

/// An image that qemu-img made of the sample becomes raw and qcow2 again; qemu-img judges.
fn round_trip(format: &str, options: &[&str]) {
    let bench = Bench::new();
    let Some(_) = bench.sample_as("image", &[&["-O", format], options].concat()) else { return };
    bench.ok(["convert", "image", "out.raw"]);
    assert!(fs::read(bench.path("out.raw")).unwrap() == fs::read(bench.path("sample.raw")).unwrap());
    for cluster_size in ["512", "64K", "2MiB"] {
        bench.ok(["convert", "image", "out.qcow2", "--to", "qcow2", "--cluster-size", cluster_size]);
        for args in [
            &["check", "-q", "-f", "qcow2", "out.qcow2"][..],
            &["compare", "-q", "-f", "raw", "-F", "qcow2", "sample.raw", "out.qcow2"],
        ] {
            let judged = bench.qemu_img(args).unwrap();
            assert_eq!(judged.code, 0, "{args:?}, clusters of {cluster_size}: {judged:?}");
        }
    }
}

#[test]
fn from_raw() {
    round_trip("raw", &[]);
}

#[test]
fn from_qcow2() {
    round_trip("qcow2", &[]);
}

#[test]
fn from_qcow2_zstd() {
    round_trip("qcow2", &["-c", "-o", "compression_type=zstd"]);
}

#[test]
fn from_vmdk_stream_optimized() {
    round_trip("vmdk", &["-o", "subformat=streamOptimized"]);
}

#[test]
fn the_output_is_sparse_and_the_same_each_time() {
    let bench = Bench::new();
    bench.raw("disk", 64 * MIB, &[(30 * MIB, &noise(MIB, 5))]);
    bench.ok(["convert", "disk", "a.raw"]);
    assert!(fs::metadata(bench.path("a.raw")).unwrap().blocks() * 512 < 2 * MIB);
    for name in ["a.qcow2", "b.qcow2"] {
        bench.ok(["convert", "--to", "qcow2", "disk", name]);
    }
    assert!(fs::read(bench.path("a.qcow2")).unwrap() == fs::read(bench.path("b.qcow2")).unwrap());
}

#[test]
fn zeroes_that_are_stored_are_left_out_of_a_qcow2_unless_declined() {
    let bench = Bench::new();
    bench.raw("disk", 32 * MIB, &[(8 * MIB, &vec![0; 8 << 20])]);
    let size = |args: &[&str]| {
        let args = [&["convert", "--json", "--to", "qcow2", "disk", "out"], args].concat();
        bench.ok(args).json()["fileSize"].as_u64().unwrap()
    };
    assert!(size(&[]) + 8 * MIB <= size(&["--no-scan"]));
}

#[test]
fn an_output_is_replaced_only_by_a_whole_one() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    fs::write(bench.path("out"), "precious").unwrap();
    bench.fails(3, ["convert", "--format", "qcow2", "disk", "out"]);
    assert_eq!(fs::read(bench.path("out")).unwrap(), b"precious");
    bench.ok(["convert", "disk", "out"]);
    assert_eq!(fs::metadata(bench.path("out")).unwrap().len(), MIB);
}

#[test]
fn the_image_is_never_the_output() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    fs::hard_link(bench.path("disk"), bench.path("hard")).unwrap();
    std::os::unix::fs::symlink("disk", bench.path("soft")).unwrap();
    for out in ["disk", "./disk", "hard", "soft"] {
        let run = bench.fails(2, ["convert", "disk", out]);
        assert!(run.stderr.contains("both the output and a file of the image"), "{run:?}");
    }
    assert_eq!(fs::metadata(bench.path("disk")).unwrap().len(), MIB);
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    for args in [
        &["--cluster-size", "64K"][..],
        &["--to", "qcow2", "--cluster-size", "3000"],
        &["--to", "qcow2", "--cluster-size", "4MiB"],
        &["--memory", "64K"],
    ] {
        bench.fails(2, [&["convert", "disk", "out"], args].concat());
    }
    bench.fails(1, ["convert", "disk", "missing/out"]);
    bench.fails(1, ["convert", "disk", "/dev/null"]);
    assert_eq!(bench.names(), ["disk"]);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let bench = Bench::new();
    bench.raw("disk", 8 * MIB, &[(MIB, &noise(4 * MIB, 9))]);
    fs::create_dir(bench.path("small")).unwrap();
    // A mount that only this shell and its children see.
    let script = "mount -t tmpfs -o size=1m none small || exit 99; \"$0\" convert disk small/out; code=$?; ls -A small; exit $code";
    let template = bench.command(["--version"]);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_image-prep"));
    command.current_dir(template.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = finish(command.spawn().unwrap());
    if run.code == 99 || run.stderr.contains("unshare") {
        eprintln!("SKIPPED: no file system of 1 MiB can be mounted here: {run:?}");
        return;
    }
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
    assert!(run.stderr.contains("no space left") && run.stderr.contains("hint: free some space"), "{run:?}");
}
