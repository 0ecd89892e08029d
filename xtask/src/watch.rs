//! Runs one command under limits and says how it ended, what it took, and what it opened.
//!
//! Limits are the kernel's: processor time and address space by `ulimit` of the shell that becomes the command, so that a busy
//! machine makes nothing fail; a wall clock stops what waits for ever. Peak memory is `ru_maxrss` of wait4. It starts from the
//! peak of this process, which forks it, so nothing here may hold images in memory. Opened files and connections are what strace
//! saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use wait4::Wait4;

use crate::repo::name;

/// What a command may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Processor time, whole seconds.
    pub(crate) seconds: u64,
    /// By the clock on the wall: only for what waits instead of working.
    pub(crate) wall: Duration,
    /// Address space, bytes.
    pub(crate) address_space: u64,
}

impl Limits {
    /// For work that is known to end.
    pub(crate) const GENEROUS: Self =
        Self { seconds: 60, wall: Duration::from_secs(120), address_space: 16 << 30 };
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// It was stopped, being out of time.
    OutOfTime,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfTime => f.write_str("out of time"),
        }
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Watched {
    /// How it ended.
    pub(crate) ended: Ended,
    /// What it said on standard error.
    pub(crate) said: String,
    /// Processor time.
    pub(crate) time: Duration,
    /// Peak resident memory, bytes.
    pub(crate) peak: u64,
    /// Files it opened, and addresses it connected to or tried to; nothing if nobody looked.
    pub(crate) opened: BTreeSet<String>,
}

/// Whether somebody looks at what is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eyes {
    /// strace.
    Open,
    /// Nobody.
    Shut,
}

/// Sets the limits, then becomes the command. What it can write is bounded by its time.
const SCRIPT: &str = r#"ulimit -v "$1"; ulimit -t "$2"; ulimit -c 0; shift 2; exec "$@""#;

const SIGXCPU: i32 = 24;
const SIGKILL: i32 = 9;

/// Runs a command of `words` in `folder`. Beside it, in `notes`, two files are written and removed.
pub(crate) fn watch(
    words: &[&str],
    folder: &Path,
    notes: &Path,
    limits: Limits,
    eyes: Eyes,
) -> Result<Watched> {
    let (said, log) = (notes.with_extension("said"), notes.with_extension("log"));
    let mut command = match eyes {
        Eyes::Shut => Command::new("sh"),
        Eyes::Open => {
            let mut strace = Command::new("strace");
            strace.args(["-f", "--seccomp-bpf", "-qq", "-s", "4096", "-e", "signal=none"]);
            strace.args(["-e", "trace=open,openat,openat2,connect", "-o"]).arg(&log).arg("sh");
            strace
        }
    };
    command.args(["-c", SCRIPT, "sh"]);
    command.arg((limits.address_space >> 10).to_string()).arg(limits.seconds.to_string()).args(words);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
    // A group of its own: what strace watches must not outlive it.
    command.process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", name(&command)))?;
    let group = Pid::from_child(&child);
    let started = Instant::now();
    let mut out_of_time = false;
    let used = loop {
        if let Some(used) = child.try_wait4()? {
            break used;
        }
        if started.elapsed() > limits.wall && !out_of_time {
            out_of_time = true;
            kill_process_group(group, Signal::KILL)?;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let time = used.rusage.utime + used.rusage.stime;
    let ended = match (used.status.code(), used.status.signal()) {
        _ if out_of_time => Ended::OutOfTime,
        (_, Some(SIGXCPU)) => Ended::OutOfTime,
        // The hard limit is the soft one, and the clock of either is not to the millisecond.
        (_, Some(SIGKILL)) if time * 10 >= Duration::from_secs(limits.seconds) * 9 => Ended::OutOfTime,
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    };
    let opened = match eyes {
        Eyes::Shut => BTreeSet::new(),
        Eyes::Open => opened(&fs::read_to_string(&log).context("strace wrote nothing")?),
    };
    let text = String::from_utf8_lossy(&fs::read(&said)?).into_owned();
    for file in [said, log] {
        let _ = fs::remove_file(file);
    }
    Ok(Watched { ended, said: text, time, peak: used.rusage.maxrss, opened })
}

/// The paths and addresses in a log of strace: of files that were opened, and of all connections that were tried.
fn opened(log: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // What a thread waits for while others go on.
    let mut pending = BTreeMap::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some((_, address)) = call.split_once("connect(") {
            found.insert(address.to_owned());
            continue;
        }
        let path = match call.split('"').nth(1) {
            Some(path) if call.ends_with("<unfinished ...>") => {
                pending.insert(thread, path);
                continue;
            }
            Some(path) => Some(path),
            None if call.starts_with("<...") => pending.remove(thread),
            None => None,
        };
        if let Some(path) = path.filter(|_| !call.contains(") = -1 ")) {
            found.insert(path.to_owned());
        }
    }
    found.extend(pending.into_values().map(str::to_owned));
    found
}

/// Whether strace works here. Where it does not that is said, and under `CI` it is an error.
pub(crate) fn eyes(folder: &Path) -> Result<Eyes> {
    let notes = folder.join("eyes");
    let seen = watch(&["cat", "/etc/hostname"], folder, &notes, Limits::GENEROUS, Eyes::Open);
    match seen {
        Ok(watched) if watched.opened.contains("/etc/hostname") => Ok(Eyes::Open),
        other => {
            let why = match other {
                Ok(watched) => watched.said,
                Err(error) => format!("{error:#}"),
            };
            if std::env::var_os("CI").is_some() {
                bail!("strace (Debian package strace) cannot watch: {why}");
            }
            println!(
                "SKIPPED: which files are opened, as strace (Debian package strace) cannot watch: {why}"
            );
            Ok(Eyes::Shut)
        }
    }
}

/// Does something to each item, on as many threads as there are processors; gives the results in order.
pub(crate) fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(at)
                {
                    let result = work(at, item);
                    // Nothing panics while the lock is held.
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A folder that is empty, whatever it held.
pub(crate) fn fresh(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str], limits: Limits) -> Watched {
        let folder = tempfile::tempdir().unwrap();
        watch(words, folder.path(), &folder.path().join("notes"), limits, Eyes::Shut).unwrap()
    }

    #[test]
    fn endings_and_limits() {
        let limits = Limits { seconds: 1, wall: Duration::from_secs(20), address_space: 1 << 30 };
        let run_sh = |script: &str, limits| run(&["sh", "-c", script], limits);
        let watched = run_sh("echo no >&2; exit 7", limits);
        assert_eq!((watched.ended, watched.said.as_str()), (Ended::Exit(7), "no\n"));
        assert_eq!(run_sh("kill -SEGV $$", limits).ended, Ended::Signal(11));
        assert_eq!(run_sh("while :; do :; done", limits).ended, Ended::OutOfTime);
        let wall = Limits { wall: Duration::from_millis(100), ..limits };
        assert_eq!(run(&["sleep", "60"], wall).ended, Ended::OutOfTime);
        let peak = run_sh("x=$(head -c 67108864 /dev/zero | tr '\\0' x)", limits).peak;
        assert!(peak > 64 << 20, "{peak}");
    }

    #[test]
    fn paths_and_addresses_of_a_log() {
        let log = "12 openat(AT_FDCWD, \"/a\", O_RDONLY) = 3\n\
                   12 openat2(3, \"b\", {flags=O_RDONLY}, 24 <unfinished ...>\n\
                   12 <... openat2 resumed>) = 4\n\
                   12 openat(AT_FDCWD, \"/c\", O_RDONLY) = -1 ENOENT (No such file or directory)\n\
                   12 openat(AT_FDCWD, \"/d\", O_RDONLY <unfinished ...>\n\
                   12 <... openat resumed>) = -1 EACCES (Permission denied)\n\
                   14 openat(AT_FDCWD, \"/e\", O_RDONLY <unfinished ...>\n\
                   13 connect(5, {sa_family=AF_INET, sin_port=htons(80)}, 16) = 0\n";
        let found: Vec<String> = opened(log).into_iter().collect();
        assert_eq!(found, ["/a", "/e", "5, {sa_family=AF_INET, sin_port=htons(80)}, 16) = 0", "b"]);
    }

    #[test]
    fn results_come_in_order() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(parallel(&items, |at, item| at + item), (0..200).step_by(2).collect::<Vec<_>>());
    }
}
