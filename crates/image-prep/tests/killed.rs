//! kill -9 in the middle of `create --local`, then the same command again: one READY Image, nothing left over.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use std::time::Duration;

use cloud::Cloud;
use support::{Bench, MIB, noise};

#[test]
fn the_same_command_again_ends_ready() {
    let bench = Bench::new();
    let part = noise(48 * MIB, 13);
    let fills: Vec<(u64, &[u8])> = (0..4).map(|i| (i * 50 * MIB + i * 4096 + 4096, &part[..])).collect();
    bench.raw("disk", 256 * MIB, &fills);
    let args = ["create", "disk", "--name", "n", "--local=state"];
    // From before the servers run to after the operation has begun.
    for delay in [30, 250, 500, 750, 1000, 1500, 2000] {
        let mut child = bench.command(args).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let run = bench.ok(args);
    assert!(run.stdout.contains("status        READY\n"), "{run:?}");
    let digest = bench.ok(["info", "disk", "--digest", "--json"]).json();
    let cloud = Cloud::start(&bench.path("state"));
    let images = cloud.images("local");
    assert_eq!(images.len(), 1, "{images:?}");
    assert_eq!(images[0].storage_size.to_string(), digest["storageSize"].to_string());
    assert!(cloud.objects("uploads").is_empty(), "{:?}", cloud.objects("uploads"));
    assert!(cloud.uploads("uploads").is_empty() && bench.journals().is_empty());
}
