//! `map` says byte for byte what `qemu-img map` says.

mod support;
use support::{Bench, MIB, noise};

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
