//! `compare`: 0 for the same, 1 for different with the first offset, above that for failures.

mod support;
use support::{Bench, MIB};

#[test]
fn same_and_different() {
    let bench = Bench::new();
    bench.raw("a", 8 * MIB, &[(5 * MIB, b"x")]);
    bench.raw("b", 8 * MIB, &[(5 * MIB, b"x")]);
    bench.raw("c", 8 * MIB, &[(5 * MIB, b"x"), (6 * MIB + 3, b"y"), (7 * MIB, b"z")]);
    assert_eq!(bench.ok(["compare", "a", "b"]).stdout, "the disks are the same\n");
    assert_eq!(bench.ok(["compare", "a", "b", "--json"]).json()["same"], true);
    let run = bench.run(["compare", "a", "c"]);
    assert_eq!((run.code, run.stderr.as_str()), (1, ""));
    assert_eq!(run.stdout, "the disks differ at offset 6291459 (0x600003)\n");
    let json = bench.run(["compare", "--json", "c", "a"]);
    assert_eq!((json.code, &json.json()["firstDifference"]), (1, &6291459.into()));
}

#[test]
fn a_longer_disk_differs_where_the_shorter_ends() {
    let bench = Bench::new();
    bench.raw("a", 8 * MIB, &[]);
    bench.raw("b", 9 * MIB, &[]);
    bench.raw("c", 9 * MIB, &[(8 * MIB + 5, b"x")]);
    for other in ["b", "c"] {
        let run = bench.run(["compare", "--json", "a", other]);
        assert_eq!((run.code, &run.json()["firstDifference"]), (1, &(8 * MIB).into()));
    }
}

#[test]
fn failures_are_above_1() {
    let bench = Bench::new();
    bench.raw("a", MIB, &[]);
    std::fs::write(bench.path("text"), "not a disk\n").unwrap();
    bench.fails(2, ["compare", "a", "missing"]);
    bench.fails(3, ["compare", "a", "text"]);
    bench.fails(1, ["info", "missing"]);
    assert_eq!(bench.run(["compare", "a", "text", "--second-format", "raw"]).code, 1);
}

#[test]
fn formats_do_not_matter() {
    let bench = Bench::new();
    let Some(_) = bench.sample_as("z.qcow2", &["-O", "qcow2", "-c"]) else { return };
    let Some(_) = bench.sample_as("s.vmdk", &["-O", "vmdk", "-o", "subformat=streamOptimized"]) else {
        return;
    };
    for (a, b) in [("sample.raw", "z.qcow2"), ("s.vmdk", "z.qcow2"), ("s.vmdk", "sample.raw")] {
        bench.ok(["compare", a, b]);
    }
}
