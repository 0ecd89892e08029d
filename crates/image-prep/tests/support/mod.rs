//! What the tests of the command line share: a folder, a clean environment, images, and qemu-img as the oracle.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on ends")]

pub(crate) mod http;
pub(crate) mod schema;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// No command of these tests takes nearly as long.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) const MIB: u64 = 1 << 20;

/// A folder of its own for one test, and the program under test in a clean environment.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, in the folder, with nothing of the caller's clouds in its environment.
    pub(crate) fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-prep"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let others = ["GOOGLE_", "CLOUDSDK_", "GCE_", "STORAGE_EMULATOR_"];
            if ["AWS_", "YC_", "IMAGE_PREP_", "RUST_"]
                .iter()
                .chain(&others)
                .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_STATE_HOME", self.path("data/state"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            // Port 1 of this machine: nobody listens, and no machine's metadata are asked for.
            .env("YC_METADATA_ADDR", "127.0.0.1:1")
            .env("GCE_METADATA_HOST", "127.0.0.1:1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/nonexistent")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Run {
        let args: Vec<_> = args.into_iter().collect();
        let args: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
        let run = finish(self.command(&args).spawn().unwrap());
        schema::conforms(&args, &run);
        run
    }

    /// Runs it, and expects success.
    pub(crate) fn ok<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{run:?}");
        run
    }

    /// Runs it, and expects this exit code and one error.
    pub(crate) fn fails<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, code: i32, args: I) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, code, "{run:?}");
        assert_eq!(run.stderr.matches("error: ").count(), 1, "{run:?}");
        assert!(run.stderr.starts_with("error: ") || run.stderr.starts_with("warning: "), "{run:?}");
        run
    }

    /// The journals of uploads, where tests put them.
    pub(crate) fn journals(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("data/state/image-prep/uploads")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Names in the folder, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A raw disk of `len` bytes with a boot signature, and the bytes of `fill` at each offset.
    pub(crate) fn raw(&self, name: &str, len: u64, fills: &[(u64, &[u8])]) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        file.write_all_at(b"\x55\xaa", 510).unwrap();
        for (at, bytes) in fills {
            file.write_all_at(bytes, *at).unwrap();
        }
        path
    }

    /// A raw disk of 24 MiB with data that does not compress, data that does, and holes.
    pub(crate) fn sample(&self) -> PathBuf {
        let (noise, text) = (noise(3 * MIB, 7), b"image-prep ".repeat(100_000));
        self.raw("sample.raw", 24 * MIB, &[(MIB, &noise), (9 * MIB + 512, &text), (23 * MIB, &noise[..4096])])
    }

    /// Runs qemu-img in the folder. `None`, said aloud, where there is none; under `CI` that is a failure.
    pub(crate) fn qemu_img(&self, args: &[&str]) -> Option<Run> {
        match Command::new("qemu-img").args(args).current_dir(self.dir.path()).output() {
            Ok(output) => Some(Run::from(output)),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "qemu-img is the oracle and cannot run: {error}");
                eprintln!("SKIPPED: qemu-img is the oracle and cannot run: {error}");
                None
            }
        }
    }

    /// The sample in another format by qemu-img; `None` where there is no qemu-img.
    pub(crate) fn sample_as(&self, name: &str, options: &[&str]) -> Option<PathBuf> {
        let raw = self.sample();
        let raw = raw.to_str().unwrap();
        let args = [&["convert", "-f", "raw"], options, &[raw, name]].concat();
        let run = self.qemu_img(&args)?;
        assert_eq!(run.code, 0, "{run:?}");
        Some(self.path(name))
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Standard output as one JSON value.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            // -1 for a signal.
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits for a child, for a bounded time.
pub(crate) fn finish(mut child: Child) -> Run {
    // Drained by threads, so that a child that prints much is not stopped by a full pipe.
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || read_all(&mut stdout));
    let err = std::thread::spawn(move || read_all(&mut stderr));
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the program did not end within {TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Run::from(Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() })
}

fn read_all(from: &mut impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Bytes that look random and are the same each time (xorshift64).
pub(crate) fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len as usize + 8);
    while (bytes.len() as u64) < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}

/// Cuts a file to `len` bytes.
pub(crate) fn truncate(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}
