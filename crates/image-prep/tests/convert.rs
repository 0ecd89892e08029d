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
    compressed(&bench, "image", "sample.raw", &["512", "64K", "2MiB"]);
    bench.ok(["convert", "image", "out.vmdk", "--to", "vmdk"]);
    let judged = bench.qemu_img(&["compare", "-q", "-f", "raw", "-F", "vmdk", "sample.raw", "out.vmdk"]);
    assert_eq!(judged.unwrap().code, 0);
}

/// The image becomes a compressed qcow2; qemu-img judges, and so do we.
fn compressed(bench: &Bench, image: &str, raw: &str, cluster_sizes: &[&str]) {
    for kind in ["zlib", "zstd"] {
        for size in cluster_sizes {
            let how = format!("{image}, {kind}, clusters of {size}");
            let compress = format!("--compress={kind}");
            let args = ["convert", image, "c.qcow2", "--to", "qcow2", &compress, "--cluster-size", size];
            bench.ok([&args[..], &["-j", "1"]].concat());
            let bytes = fs::read(bench.path("c.qcow2")).unwrap();
            bench.ok([&args[..], &["-j", "2"]].concat());
            assert!(bytes == fs::read(bench.path("c.qcow2")).unwrap(), "{how}: threads change the bytes");
            for args in [
                &["check", "-q", "-f", "qcow2", "c.qcow2"][..],
                &["compare", "-q", "-f", "raw", "-F", "qcow2", raw, "c.qcow2"],
            ] {
                let judged = bench.qemu_img(args).unwrap();
                assert_eq!(judged.code, 0, "{args:?}, {how}: {judged:?}");
            }
            let info = bench.qemu_img(&["info", "--output=json", "c.qcow2"]).unwrap().json();
            assert_eq!(info["format-specific"]["data"]["compression-type"], kind, "{how}");
            bench.ok(["info", "--check", "c.qcow2"]);
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

/// Disks on which the two ends of the placement, and the end of the disk, meet in every way.
#[test]
fn compressed_disks_of_every_content() {
    let bench = Bench::new();
    let Some(_) = bench.qemu_img(&["--version"]) else { return };
    let text = b"image-prep ".repeat(30_000);
    let noise = noise(MIB, 3);
    let all = ["512", "1K", "2K", "4K", "8K", "16K", "32K", "64K", "128K", "256K", "512K", "1M", "2M"];
    // Ends inside a cluster, and inside a sector of text.
    bench.raw("mixed", 5 * MIB + 512, &[(MIB, &text), (2 * MIB - 700, &noise), (3 * MIB + 77, &text)]);
    compressed(&bench, "mixed", "mixed", &all);
    // Plain and compressed clusters in turns: each plain one stands between a gap and what goes on to fill it.
    let turns: Vec<u8> = (0..60)
        .flat_map(|i| if i % 2 == 0 { &text[..70_000] } else { &noise[i * 999..][..70_000] }.to_vec())
        .collect();
    bench.raw("turns", 5 * MIB, &[(4096, &turns)]);
    compressed(&bench, "turns", "turns", &["4K", "64K"]);
    bench.raw("noise", 2 * MIB, &[(512, &noise)]);
    compressed(&bench, "noise", "noise", &["512", "64K"]);
    bench.raw("ones", 5 * MIB, &[(512, &vec![0xff; 4 << 20])]);
    compressed(&bench, "ones", "ones", &["512", "64K", "2M"]);
    fs::File::create(bench.path("zero")).unwrap().set_len(MIB + 512).unwrap();
    fs::write(bench.path("little"), [7; 512]).unwrap();
    for name in ["zero", "little"] {
        for compress in ["--compress", "-c=zstd"] {
            bench.ok(["convert", "--format", "raw", name, "c.qcow2", "--to", "qcow2", compress]);
            for args in [
                &["check", "-q", "c.qcow2"][..],
                &["compare", "-q", "-f", "raw", "-F", "qcow2", name, "c.qcow2"],
            ] {
                assert_eq!(bench.qemu_img(args).unwrap().code, 0, "{name} {args:?}");
            }
        }
    }
}

/// Not longer than what qemu-img makes of the same disk, by more than a fiftieth.
#[test]
fn compressed_files_are_about_as_long_as_those_of_qemu_img() {
    let bench = Bench::new();
    let program = fs::read(env!("CARGO_BIN_EXE_image-prep")).unwrap();
    let program = &program[..program.len().min(24 << 20)];
    bench.raw("disk", 40 * MIB, &[(MIB, program), (36 * MIB, &noise(MIB, 4))]);
    for kind in ["zlib", "zstd"] {
        let option = format!("compression_type={kind}");
        let args = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &option, "disk", "theirs"];
        let Some(made) = bench.qemu_img(&args) else { return };
        assert_eq!(made.code, 0, "{made:?}");
        let compress = format!("--compress={kind}");
        let ours = bench.ok(["convert", "disk", "ours", "--to", "qcow2", &compress, "--json"]).json();
        let len = |name: &str| fs::metadata(bench.path(name)).unwrap().len();
        assert_eq!(ours["fileSize"], len("ours"));
        assert!(len("ours") * 100 <= len("theirs") * 102, "{kind}: {} of {}", len("ours"), len("theirs"));
    }
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
        &["--compress"],
        &["--to", "vmdk", "--compress"],
        &["--to", "vmdk", "--cluster-size", "64K"],
        &["--to", "qcow2", "--compress=lzma"],
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
    full_disk("");
    full_disk("--to qcow2 --compress");
    full_disk("--to vmdk");
}

fn full_disk(how: &str) {
    let bench = Bench::new();
    bench.raw("disk", 8 * MIB, &[(MIB, &noise(4 * MIB, 9))]);
    fs::create_dir(bench.path("small")).unwrap();
    // A mount that only this shell and its children see.
    let script = format!(
        "mount -t tmpfs -o size=1m none small || exit 99; \"$0\" convert disk small/out {how}; code=$?; ls -A small; exit $code"
    );
    let template = bench.command(["--version"]);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
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
