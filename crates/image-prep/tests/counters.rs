//! How much work a command does. The counts are exact: of an image that does not change they change only with the engine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Bench, MIB, finish, noise};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// What a command says that it did, and what it says with `-v`.
fn counters(bench: &Bench, args: &[&str]) -> (Value, String) {
    let run = bench.ok([args, &["--json", "-v"]].concat());
    (run.json()["counters"].clone(), run.stderr)
}

fn count(counters: &Value, name: &str) -> u64 {
    counters[name].as_u64().unwrap_or_else(|| panic!("{name}: {counters}"))
}

/// What of the disk of `testdata/` is not zero, in pages.
const FILLED: u64 = 19 * 4096;

#[test]
fn each_compressed_cluster_is_decoded_once_and_each_stored_byte_is_read_once() {
    let bench = Bench::new();
    // Units, the guest bytes of each, and what is stored of all: by the tables from the first byte of a part's first unit to the end
    // of its last one's last sector. In a QCOW2 the last unit of one part and the first of the next share sectors, read by both.
    for (name, units, guest, stored) in [
        ("disk-zlib.qcow2", 8, 16 << 10, 6090),
        ("disk-zstd.qcow2", 8, 16 << 10, 5700),
        ("disk-stream.vmdk", 3, 64 << 10, 71_168),
    ] {
        let decoded = units * guest;
        let image = testdata(name);
        let (counters, said) = counters(&bench, &["convert", image.to_str().unwrap(), "out"]);
        let done = &counters["converting"];
        assert_eq!((count(done, "decodes"), count(done, "bytesDecoded")), (units, decoded), "{name}");
        assert_eq!((count(done, "bytesCopied"), count(done, "bytesRead")), (0, stored), "{name}");
        // One read for each of two parts, one at each end of the disk.
        assert_eq!((count(done, "requests"), count(done, "parts")), (2, 2), "{name}");
        let zeroes = decoded - FILLED;
        assert_eq!((count(done, "bytesPut"), count(done, "zeroesLeftOut")), (FILLED, zeroes), "{name}");
        assert!(said.contains("converting: "), "{said}");
    }
}

#[test]
fn plain_clusters_are_copied_and_nothing_else_is_read() {
    let bench = Bench::new();
    let (plain, zlib) = (testdata("disk.qcow2"), testdata("disk-zlib.qcow2"));
    let (plain, zlib) = (plain.to_str().unwrap(), zlib.to_str().unwrap());
    let (found, said) = counters(&bench, &["convert", plain, "out"]);
    let done = &found["converting"];
    for name in ["bytesRead", "bytesCopied", "bytesPut"] {
        assert_eq!(count(done, name), FILLED, "{name}");
    }
    for name in ["decodes", "bytesDecoded", "zeroesLeftOut"] {
        assert_eq!(count(done, name), 0, "{name}");
    }
    let line = "converting: 76 KiB read in 5 requests, 0 B decoded from 0 units, 76 KiB copied, 0 B shared, 0 \
                units encoded to 0 B, 76 KiB put in 2 parts, 0 B of zeroes left out";
    assert!(said.contains(line), "{said}");

    let (found, _) = counters(&bench, &["compare", plain, zlib]);
    let done = &found["comparing"];
    assert_eq!((count(done, "decodes"), count(done, "bytesCopied")), (8, FILLED));

    let (found, _) = counters(&bench, &["info", "--digest", zlib]);
    let done = &found["reading"];
    // Whole blocks are hashed: the first and the last.
    assert_eq!((count(done, "decodes"), count(done, "bytesPut")), (8, 8 * MIB));
    let quick = bench.ok(["info", "--json", zlib]);
    assert!(quick.json().get("counters").is_none(), "metadata is not counted");
    assert_eq!(bench.ok(["convert", zlib, "out"]).stderr, "", "asked for nothing, it says nothing");
}

#[test]
fn stored_zeroes_are_left_out_before_a_qcow2_is_laid_out() {
    let bench = Bench::new();
    bench.raw("disk", 32 * MIB, &[(4 * MIB, &noise(MIB, 1)), (8 * MIB, &vec![0; 8 << 20])]);
    let (found, said) = counters(&bench, &["convert", "disk", "out", "--to", "qcow2"]);
    assert_eq!(count(&found["scanning"], "zeroesLeftOut"), 8 * MIB);
    // Metadata, the cluster with the boot sector, and the noise.
    let done = &found["converting"];
    assert!(count(done, "bytesCopied") < 4 * MIB, "{done}");
    assert!(said.contains("scanning: ") && said.contains("converting: "), "{said}");
}

/// How many workers the program has, run by the words before it.
fn workers(bench: &Bench, before: &[&str]) -> Option<u64> {
    let image = testdata("disk.qcow2");
    let program = [env!("CARGO_BIN_EXE_image-prep"), "info", "-vv", image.to_str().unwrap()];
    let words = [before, &program].concat();
    let mut command = Command::new(words[0]);
    let template = bench.command(["--version"]);
    command.args(&words[1..]).current_dir(template.get_current_dir().unwrap()).env_remove("RUST_LOG");
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = finish(command.spawn().ok()?);
    let (_, number) = run.stderr.split_once("workers: ")?;
    number.split_whitespace().next()?.parse().ok()
}

#[test]
fn workers_are_as_many_as_the_process_may_use() {
    let bench = Bench::new();
    let all = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(workers(&bench, &["env"]), Some(all));
    let allowed = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first = allowed.trim().split(['-', ',']).next().unwrap();
    assert_eq!(workers(&bench, &["taskset", "-c", first]), Some(1));
}

/// A control group that may use one CPU's time. Removed when it is dropped.
struct Group(PathBuf);

impl Group {
    /// Version 2 or 1, whichever this machine has and lets us make.
    fn of_one_cpu() -> std::io::Result<Self> {
        let name = format!("image-prep-test-{}", std::process::id());
        let (parent, file, quota) = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            true => ("/sys/fs/cgroup", "cpu.max", "100000 100000"),
            false => ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "100000"),
        };
        let group = Self(Path::new(parent).join(name));
        std::fs::create_dir(&group.0)?;
        std::fs::OpenOptions::new()
            .write(true)
            .open(group.0.join(file))
            .and_then(|mut quota_file| std::io::Write::write_all(&mut quota_file, quota.as_bytes()))?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_quota_of_the_control_group_counts() {
    let bench = Bench::new();
    let group = match Group::of_one_cpu() {
        Ok(group) => group,
        Err(error) => {
            eprintln!("SKIPPED: no control group with a quota can be made here: {error}");
            return;
        }
    };
    let join = r#"echo $$ >"$0/cgroup.procs" && exec "$@""#;
    let found = workers(&bench, &["sh", "-c", join, group.0.to_str().unwrap()]);
    assert_eq!(found, Some(1), "{}", group.0.display());
}
