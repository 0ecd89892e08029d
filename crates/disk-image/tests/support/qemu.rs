//! qemu-img and qemu-io as oracle.

use std::path::Path;
use std::process::Command;

use disk_image::{Image, State};
use serde_json::Value;

/// True if the oracle is here. Where it is not, says so; where it must be (`CI` is set), fails.
pub fn available() -> bool {
    let found =
        ["qemu-img", "qemu-io"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok());
    if !found {
        eprintln!("SKIPPED: qemu-img or qemu-io is not installed, so nothing was compared with them");
        assert!(std::env::var_os("CI").is_none(), "qemu-img and qemu-io are needed in CI");
    }
    found
}

/// Runs `qemu-img` and returns what it prints.
pub fn img(args: &[&str]) -> Vec<u8> {
    run("qemu-img", args)
}

/// Runs commands of `qemu-io` on an image.
pub fn io(format: &str, path: &Path, commands: &[String]) {
    let mut args = vec!["-f", format];
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push(text(path));
    run("qemu-io", &args);
}

/// The guest bytes of an image as qemu-img reads them.
pub fn raw(format: &str, path: &Path) -> Vec<u8> {
    let out = path.with_extension("oracle");
    img(&["convert", "-f", format, "-O", "raw", text(path), text(&out)]);
    let raw = std::fs::read(&out).unwrap();
    std::fs::remove_file(out).unwrap();
    raw
}

/// True if qemu-img reads the whole image.
pub fn accepts(format: &str, path: &Path) -> bool {
    let out = path.with_extension("oracle");
    let args = ["convert", "-f", format, "-O", "raw", text(path), text(&out)];
    let accepted = Command::new("qemu-img").args(args).output().unwrap().status.success();
    let _ = std::fs::remove_file(out);
    accepted
}

/// What a run of guest bytes is, in the words that qemu-img and we share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Hole,
    Zero,
    /// Stored as it is, from this offset of the file on.
    Data(u64),
    Compressed,
}

/// A run: start, length, kind.
pub type Run = (u64, u64, Kind);

/// The extents of an image by `qemu-img map`, merged.
pub fn map(format: &str, path: &Path) -> Vec<Run> {
    let entries: Vec<Value> =
        serde_json::from_slice(&img(&["map", "--output=json", "-f", format, text(path)])).unwrap();
    let number = |entry: &Value, key: &str| entry[key].as_u64().unwrap();
    merged(entries.iter().map(|entry| {
        let kind = match (&entry["present"], &entry["zero"], &entry["compressed"]) {
            (Value::Bool(false), ..) => Kind::Hole,
            (_, Value::Bool(true), _) => Kind::Zero,
            (.., Value::Bool(true)) => Kind::Compressed,
            _ => Kind::Data(number(entry, "offset")),
        };
        (number(entry, "start"), number(entry, "length"), kind)
    }))
}

/// The extents of an image by our map, merged.
pub fn our_map(image: &Image) -> Vec<Run> {
    merged(image.map().iter().map(|extent| {
        let kind = match extent.state {
            State::Hole => Kind::Hole,
            State::Zero => Kind::Zero,
            State::Data(stored) => Kind::Data(stored.span.start),
            State::Encoded { .. } => Kind::Compressed,
        };
        (extent.guest.start, extent.guest.len, kind)
    }))
}

fn merged(runs: impl Iterator<Item = Run>) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::new();
    for (start, len, kind) in runs {
        match (merged.last_mut(), kind) {
            (Some((_, last_len, Kind::Data(from))), Kind::Data(to)) if *from + *last_len == to => {
                *last_len += len
            }
            (Some((_, last_len, last)), _) if *last == kind && !matches!(kind, Kind::Data(_)) => {
                *last_len += len
            }
            _ => merged.push((start, len, kind)),
        }
    }
    merged
}

fn run(tool: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(tool).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {args:?}: {errors}");
    output.stdout
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
