//! `map` says byte for byte what `qemu-img map` says.

mod support;
use support::{Bench, MIB, Run, finish, noise};

/// The same output for an image that qemu-img made of the sample.
fn agrees(format: &str, options: &[&str]) {
    let bench = Bench::new();
    let Some(_) = bench.sample_as("image", &[&["-O", format], options].concat()) else { return };
    let Some(expected) = bench.qemu_img(&["map", "--output=json", "-f", format, "image"]) else { return };
    let found = bench.ok(["map", "--json", "image"]);
    assert_eq!(found.stdout, expected.stdout);
    assert!(found.json().as_array().is_some_and(|entries| entries.len() > 3));
    // qemu-img has no table for compressed clusters.
    let Some(table) = bench.qemu_img(&["map", "-f", format, "image"]) else { return };
    if table.code == 0 {
        assert_eq!(bench.ok(["map", "image"]).stdout, table.stdout);
    } else {
        assert!(bench.ok(["map", "image"]).stdout.contains("compressed"));
    }
}

#[test]
fn raw() {
    agrees("raw", &[]);
}

#[test]
fn qcow2() {
    agrees("qcow2", &[]);
}

#[test]
fn qcow2_of_512_byte_clusters() {
    agrees("qcow2", &["-o", "cluster_size=512"]);
}

#[test]
fn qcow2_of_2_mib_clusters() {
    agrees("qcow2", &["-o", "cluster_size=2M"]);
}

#[test]
fn qcow2_of_version_2() {
    agrees("qcow2", &["-o", "compat=0.10"]);
}

#[test]
fn qcow2_zlib() {
    agrees("qcow2", &["-c"]);
}

#[test]
fn qcow2_zstd() {
    agrees("qcow2", &["-c", "-o", "compression_type=zstd"]);
}

#[test]
fn vmdk_sparse() {
    agrees("vmdk", &[]);
}

#[test]
fn vmdk_stream_optimized() {
    agrees("vmdk", &["-o", "subformat=streamOptimized"]);
}

#[test]
fn raw_of_an_odd_length() {
    let bench = Bench::new();
    bench.raw("odd", 3 * MIB + 100, &[(MIB, &noise(5000, 1)), (3 * MIB, b"end")]);
    let Some(expected) = bench.qemu_img(&["map", "--output=json", "-f", "raw", "odd"]) else { return };
    assert_eq!(bench.ok(["map", "--json", "odd"]).stdout, expected.stdout);
}

/// The disk of testdata, drawn.
fn picture(bench: &Bench, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let image = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/disk.qcow2");
    std::fs::copy(image, bench.path("disk.qcow2")).unwrap();
    let mut command = bench.command([&["map", "disk.qcow2"], args].concat());
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    let run = finish(command.envs(variables.iter().copied()).spawn().unwrap());
    assert!(run.code == 0 && run.stderr.is_empty(), "{run:?}");
    run
}

#[test]
fn a_picture_without_a_terminal_has_no_colours() {
    let bench = Bench::new();
    let plain = picture(&bench, &["--picture"], &[]).stdout;
    insta::assert_snapshot!(plain);
    let forced = picture(&bench, &["--picture"], &[("CLICOLOR_FORCE", "1")]).stdout;
    assert!(forced.contains("\u{1b}[") && !plain.contains('\u{1b}'), "{forced}");
    assert_eq!(picture(&bench, &["--picture"], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).stdout, plain);
}

#[test]
fn a_picture_in_a_file_and_not_over_the_image() {
    let bench = Bench::new();
    let run = picture(&bench, &["--picture=map.svg"], &[]);
    assert_eq!(run.stdout, "");
    let svg = std::fs::read_to_string(bench.path("map.svg")).unwrap();
    assert!(
        svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("fill=\"#1f6f8b\""),
        "{svg}"
    );
    let before = std::fs::read(bench.path("disk.qcow2")).unwrap();
    let run = bench.fails(2, ["map", "disk.qcow2", "--picture=./disk.qcow2"]);
    assert!(run.stderr.contains("both the output and a file of the image"), "{run:?}");
    assert_eq!(std::fs::read(bench.path("disk.qcow2")).unwrap(), before);
}
