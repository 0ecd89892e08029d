//! A block device as image and as output.

mod support;
use std::path::Path;
use std::process::Command;

use support::{Bench, MIB};

/// A loop device over a file; detached when dropped.
struct Loop(String);

impl Loop {
    /// `None`, said aloud, where this user may not have one.
    fn over(file: &Path) -> Option<Self> {
        let run = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        match run {
            Ok(run) if run.status.success() => {
                Some(Self(String::from_utf8_lossy(&run.stdout).trim().to_owned()))
            }
            other => {
                eprintln!("SKIPPED: no loop device to be had: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn written_in_place_after_a_size_check() {
    let bench = Bench::new();
    bench.sample();
    // What was there must not show through.
    bench.raw("backing", 24 * MIB, &[(20 * MIB, b"old")]);
    bench.raw("small", 16 * MIB, &[(0, b"precious")]);
    let (Some(device), Some(small)) = (Loop::over(&bench.path("backing")), Loop::over(&bench.path("small")))
    else {
        return;
    };
    bench.ok(["convert", "sample.raw", &device.0]);
    bench.ok(["compare", "sample.raw", &device.0]);
    assert_eq!(bench.ok(["info", "--json", &device.0]).json()["virtualSize"], 24 * MIB);

    let run = bench.fails(1, ["convert", "sample.raw", &small.0]);
    assert!(run.stderr.contains("holds 16777216 bytes, the disk needs 25165824"), "{run:?}");
    bench.ok(["compare", "small", &small.0]);
    bench.fails(2, ["convert", &device.0, &device.0]);
}
