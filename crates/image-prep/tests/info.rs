//! `info`: what it prints, and what its sizes mean.

mod support;
use support::{Bench, MIB, noise};

#[test]
fn json_has_the_fields_that_scripts_use() {
    let bench = Bench::new();
    let text = noise(5000, 3);
    // One byte in block 1, a boot sector in block 0, zeroes stored in block 3.
    bench.raw("disk", 18 * MIB + 512, &[(5 * MIB, &text), (13 * MIB, &[0; 100_000])]);
    let quick = bench.ok(["info", "disk", "--json"]).json();
    assert_eq!(quick["format"], "raw");
    assert_eq!(quick["virtualSize"], 18 * MIB + 512);
    assert_eq!(quick["fileSize"], 18 * MIB + 512);
    assert_eq!(quick["minDiskSize"], 20 * MIB);
    assert_eq!(quick["storageSize"], 12 * MIB, "an upper bound: block 3 is stored");
    assert_eq!(quick["storageSizeExact"], false);
    assert_eq!(quick["warnings"], serde_json::json!([]));
    assert!(quick.get("guestDigest").is_none());
    assert!(quick["allocatedSize"].as_u64().unwrap() < MIB);

    let exact = bench.ok(["info", "disk", "--json", "--digest"]).json();
    assert_eq!(exact["storageSize"], 8 * MIB, "block 3 holds zeroes only");
    assert_eq!(exact["storageSizeExact"], true);
    assert_eq!(exact["guestDigest"].as_str().unwrap().len(), 64);
}

#[test]
fn the_digest_is_what_the_documentation_says() {
    let bench = Bench::new();
    bench.raw("disk", 5 * MIB, &[(4 * MIB, b"x")]);
    let found = bench.ok(["info", "disk", "--json", "--digest"]).json();
    // python3: h(size.to_bytes(8, "little") + h(block 0) + h(block 1)) with h = hashlib.sha256(..).digest()
    assert_eq!(found["guestDigest"], "7632f48b93234f83b324d99768157bb2292ab760c1e6a1ada974097166012e07");
}

#[test]
fn the_digest_does_not_depend_on_the_format() {
    let bench = Bench::new();
    let digest = |name: &str| bench.ok(["info", name, "--json", "--digest"]).json()["guestDigest"].clone();
    let Some(_) = bench.sample_as("z.qcow2", &["-O", "qcow2", "-c"]) else { return };
    let Some(_) = bench.sample_as("s.vmdk", &["-O", "vmdk", "-o", "subformat=streamOptimized"]) else {
        return;
    };
    let raw = digest("sample.raw");
    assert_eq!((&digest("z.qcow2"), &digest("s.vmdk")), (&raw, &raw));
}

#[test]
fn text_is_aligned_and_warnings_go_to_standard_error() {
    let bench = Bench::new();
    bench.raw("odd", MIB + 100, &[]);
    let run = bench.ok(["info", "odd"]);
    assert!(run.stdout.contains("\nvirtual size  1.00 MiB (1049088 bytes)\n"), "{run:?}");
    assert!(run.stdout.contains("\nminimum disk  4 MiB (4194304 bytes)\n"), "{run:?}");
    assert!(run.stderr.starts_with("warning: `odd`: "), "{run:?}");
    let run = bench.ok(["info", "odd", "--quiet", "--json"]);
    assert_eq!(run.stderr, "");
    assert_eq!(run.json()["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    let mut child = bench.command(["info", "disk"]).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
