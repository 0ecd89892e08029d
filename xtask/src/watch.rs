//! Runs one command under limits and says how it ended, what it took, and what it opened.
//!
//! Limits of processor time and address space are the kernel's; a wall clock stops what waits for ever. Opened files and connections
//! are what strace saw.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::Job;
pub(crate) use crate::child::{Ended, Limits};

/// For work that is known to end.
pub(crate) const GENEROUS: Limits =
    Limits { wall: Duration::from_secs(120), cpu_seconds: Some(60), address_space: Some(16 << 30) };

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

/// Sees what is opened by a program and whatever it starts; a file's name follows.
const STRACE: [&str; 9] = [
    "strace",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-s4096",
    "-esignal=none",
    "-e",
    "trace=open,openat,openat2,connect",
    "-o",
];

/// Runs a command of `words` in `folder`. Beside it, in `notes`, two files are written and removed.
pub(crate) fn watch(
    words: &[&str],
    folder: &Path,
    notes: &Path,
    limits: Limits,
    eyes: Eyes,
) -> Result<Watched> {
    let (said, log) = (notes.with_extension("said"), notes.with_extension("log"));
    let mut all: Vec<&OsStr> = Vec::new();
    if eyes == Eyes::Open {
        all.extend(STRACE.map(OsStr::new));
        all.push(log.as_os_str());
    }
    all.extend(words.iter().map(OsStr::new));
    let (program, arguments) = all.split_first().context("a command without words")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    let used = Job::new(&command, &said, limits).run()?;
    let opened = match eyes {
        Eyes::Shut => BTreeSet::new(),
        Eyes::Open => opened(&fs::read_to_string(&log).context("strace wrote nothing")?),
    };
    let text = String::from_utf8_lossy(&fs::read(&said)?).into_owned();
    for file in [said, log] {
        let _ = fs::remove_file(file);
    }
    Ok(Watched { ended: used.ended, said: text, time: used.cpu(), peak: used.peak, opened })
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
    let seen = watch(&["cat", "/etc/hostname"], folder, &notes, GENEROUS, Eyes::Open);
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
