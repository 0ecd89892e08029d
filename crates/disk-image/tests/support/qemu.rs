//! qemu-img and qemu-io as judges.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::PathBuf;
use std::process::Command;

use disk_image::{Extent, Span, State};
use serde_json::Value;
use tempfile::TempDir;

/// A folder of images. `None`, said aloud, where QEMU is not installed; a failure under CI.
pub(crate) struct Lab {
    dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Option<Self> {
        let found = ["qemu-img", "qemu-io"].iter().all(|tool| {
            Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
        });
        if !found {
            assert!(std::env::var_os("CI").is_none(), "qemu-img and qemu-io are needed under CI");
            eprintln!("SKIPPED: qemu-img or qemu-io is not installed, nothing was compared");
            return None;
        }
        Some(Self { dir: TempDir::new().unwrap() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A raw file with this content.
    pub(crate) fn raw(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `qemu-img` in the folder, its arguments split at blanks; must succeed.
    pub(crate) fn img(&self, arguments: &str) -> String {
        self.run("qemu-img", &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// `qemu-img` with a command and arguments that may hold blanks; must succeed.
    pub(crate) fn img_with(&self, command: &str, arguments: &[&str]) -> String {
        self.run("qemu-img", &[&[command], arguments].concat())
    }

    /// `qemu-img`, its arguments split at blanks; what it says where it refuses.
    pub(crate) fn try_img(&self, arguments: &str) -> Result<(), String> {
        let arguments = arguments.split_whitespace();
        let output = Command::new("qemu-img").args(arguments).current_dir(self.dir.path()).output().unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Removes files, if they are there.
    pub(crate) fn remove(&self, names: &[&str]) {
        for name in names {
            let _ = std::fs::remove_file(self.path(name));
        }
    }

    /// `qemu-io` commands on an image, whose format is found by its content.
    pub(crate) fn io(&self, file: &str, commands: &[&str]) {
        let mut arguments = Vec::new();
        for command in commands {
            arguments.extend(["-c", command]);
        }
        arguments.push(file);
        self.run("qemu-io", &arguments);
    }

    /// The same where QEMU may refuse some: it writes compressed clusters only where there are none yet.
    pub(crate) fn io_where_possible(&self, file: &str, commands: &[&str]) {
        let mut qemu_io = Command::new("qemu-io");
        for command in commands {
            qemu_io.args(["-c", command]);
        }
        qemu_io.arg(file).current_dir(self.dir.path()).output().unwrap();
    }

    /// True if qemu-img reads the whole image.
    pub(crate) fn accepts(&self, file: &str) -> bool {
        let arguments = ["convert", "-O", "raw", file, "judge.raw"];
        let output = Command::new("qemu-img").args(arguments).current_dir(self.dir.path()).output().unwrap();
        output.status.success()
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> String {
        let output = Command::new(tool).args(arguments).current_dir(self.dir.path()).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {arguments:?}: {stdout}{stderr}");
        stdout
    }

    /// The guest bytes, by QEMU.
    pub(crate) fn guest(&self, file: &str) -> Vec<u8> {
        self.img(&format!("convert -O raw {file} judge.raw"));
        std::fs::read(self.path("judge.raw")).unwrap()
    }

    /// The extents, by QEMU.
    pub(crate) fn map(&self, file: &str) -> Vec<Seen> {
        let json: Value = serde_json::from_str(&self.img(&format!("map --output=json {file}"))).unwrap();
        merged(json.as_array().unwrap().iter().map(|extent| {
            let flag = |name: &str| extent[name].as_bool().unwrap();
            let kind = match (flag("present"), flag("data"), flag("compressed")) {
                (_, true, true) => Kind::Compressed,
                (_, true, false) => Kind::Data(extent["offset"].as_u64().unwrap()),
                (true, false, _) => Kind::Zero,
                (false, false, _) => Kind::Hole,
            };
            Seen {
                guest: Span::new(extent["start"].as_u64().unwrap(), extent["length"].as_u64().unwrap()),
                kind,
            }
        }))
    }
}

/// An extent as both sides see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) guest: Span,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hole,
    Zero,
    Data(u64),
    Compressed,
}

/// Our extents, in the same terms.
pub(crate) fn seen(extents: impl Iterator<Item = Extent>) -> Vec<Seen> {
    merged(extents.map(|extent| {
        let kind = match extent.state {
            State::Hole => Kind::Hole,
            State::Zero => Kind::Zero,
            State::Data(stored) => Kind::Data(stored.span.start),
            State::Encoded { .. } => Kind::Compressed,
        };
        Seen { guest: extent.guest, kind }
    }))
}

/// QEMU cuts extents where the file below has holes, and we cut at encoded units.
fn merged(extents: impl Iterator<Item = Seen>) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    for next in extents {
        match all.last_mut() {
            Some(last) if last.continues(next) => last.guest.len += next.guest.len,
            _ => all.push(next),
        }
    }
    all
}

impl Seen {
    fn continues(&self, next: Seen) -> bool {
        assert_eq!(self.guest.end(), next.guest.start, "extents have gaps");
        match (self.kind, next.kind) {
            (Kind::Data(first), Kind::Data(second)) => first + self.guest.len == second,
            (first, second) => first == second,
        }
    }
}

/// Numbers that look random and never change.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// A disk of stretches of zeroes, text and noise.
    pub(crate) fn disk(&mut self, len: usize) -> Vec<u8> {
        let mut disk = Vec::with_capacity(len);
        while disk.len() < len {
            let stretch = 1 + self.roll(150_000) as usize;
            match self.roll(3) {
                0 => disk.resize(disk.len() + stretch, 0),
                1 => disk.extend((0..stretch).map(|i| b"the quick brown fox "[(i / 3) % 20])),
                _ => disk.extend((0..stretch).map(|_| self.roll(256) as u8)),
            }
        }
        disk.truncate(len);
        disk
    }
}
