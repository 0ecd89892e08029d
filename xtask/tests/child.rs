//! The launcher of children: how they end, what limits them, and that what they are said to use is their own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

struct Limits {
    wall: Duration,
    cpu_seconds: Option<u64>,
}

const LONG: Limits = Limits { wall: Duration::from_secs(60), cpu_seconds: None };

/// Runs words as `Job` does, and gives what the launcher says.
fn launch(folder: &Path, words: &[&str], limits: &Limits) -> Value {
    // As serde writes them.
    let words: Vec<Value> = words.iter().map(|word| json!({ "Unix": word.as_bytes() })).collect();
    let wall = json!({ "secs": limits.wall.as_secs(), "nanos": limits.wall.subsec_nanos() });
    let job = json!({
        "words": words,
        "variables": [],
        "folder": folder,
        "stdout": folder.join("out"),
        "stderr": folder.join("err"),
        "limits": { "wall": wall, "cpu_seconds": limits.cpu_seconds, "address_space": 1_u64 << 30 },
    });
    let mut launcher = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let mut launcher = launcher.arg("launch").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    launcher.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
    let said = launcher.wait_with_output().unwrap();
    serde_json::from_slice(&said.stdout).unwrap()
}

#[test]
fn endings_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let sh = |script: &str, limits: &Limits| launch(folder.path(), &["sh", "-c", script], limits);
    assert_eq!(sh("pwd; echo no >&2; exit 7", &LONG)["Ok"]["ended"], json!({ "Exit": 7 }));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!((read("out").trim_end(), read("err").as_str()), (folder.path().to_str().unwrap(), "no\n"));
    assert_eq!(sh("kill -SEGV $$", &LONG)["Ok"]["ended"], json!({ "Signal": 11 }));
    let short = Limits { cpu_seconds: Some(1), ..LONG };
    assert_eq!(sh("while :; do :; done", &short)["Ok"]["ended"], "OutOfTime");
    let impatient = Limits { wall: Duration::from_millis(50), ..LONG };
    assert_eq!(sh("sleep 60 & exec sleep 60", &impatient)["Ok"]["ended"], "OutOfTime");
    let words = ["image-prep-no-such-program"];
    let error = launch(folder.path(), &words, &LONG)["Err"].to_string();
    assert!(error.contains("cannot run image-prep-no-such-program"), "{error}");
}

#[test]
fn what_a_child_used_is_its_own() {
    // What exec would hand on, were there no launcher.
    let held = std::hint::black_box(vec![1_u8; 100 << 20]);
    let folder = tempfile::tempdir().unwrap();
    let peak = |script: &str| {
        let used = launch(folder.path(), &["sh", "-c", script], &LONG);
        assert_eq!(used["Ok"]["ended"], json!({ "Exit": 0 }), "{used}");
        used["Ok"]["peak"].as_u64().unwrap()
    };
    let little = peak(":");
    assert!(little < 16 * MIB, "{little}");
    // 64 MiB of a shell variable.
    let much = peak("x=$(head -c 67108864 /dev/zero | tr '\\0' x); [ ${#x} = 67108864 ]");
    assert!(much > 64 * MIB && much < 512 * MIB, "{much}");
    drop(held);
}
