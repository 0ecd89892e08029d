//! One child, run to its end or to its time limit, and what it used.
//!
//! Times and peak memory are the kernel's, from the wait4 of this one child. Two things to know about `ru_maxrss`: it counts
//! mapped files that were touched, and it starts from the peak of the process that spawned, because exec inherits that. So
//! nothing here may hold images in memory.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wait4::Wait4 as _;

use crate::repo::name;

/// What a child used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// From before it was spawned until it had exited.
    pub(super) wall: Duration,
    /// User and system time of all its threads.
    pub(super) cpu: Duration,
    /// Peak resident memory, bytes.
    pub(super) peak: u64,
}

/// Where children write what they print: files on tmpfs, so that a pipe's reader is not measured with them.
#[derive(Debug, Clone)]
pub(super) struct Printed {
    /// Results.
    pub(super) stdout: PathBuf,
    /// Complaints.
    pub(super) stderr: PathBuf,
}

/// Runs a command; one that fails or outlasts the limit is an error with what it said.
pub(super) fn run(command: &mut Command, printed: &Printed, limit: Duration) -> Result<Usage> {
    command.stdin(Stdio::null());
    command.stdout(File::create(&printed.stdout)?).stderr(File::create(&printed.stderr)?);
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {}", name(command)))?;
    let ended = ends_within(&child, limit);
    let wall = started.elapsed();
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let used = child.wait4()?;
    ensure!(ended?, "{} was stopped after {} s", name(command), limit.as_secs());
    if !used.status.success() {
        let said = fs::read(&printed.stderr).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim_end().to_owned();
        bail!("{} failed: {}\n{said}", name(command), used.status);
    }
    Ok(Usage { wall, cpu: used.rusage.utime + used.rusage.stime, peak: used.rusage.maxrss })
}

/// Waits for the exit of a child without reaping it: wait4 itself has no time limit, and asking again and again would put its
/// interval into every measurement.
fn ends_within(child: &Child, limit: Duration) -> Result<bool> {
    let exit = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    let ready = retry_on_intr(|| {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        poll(&mut [PollFd::new(&exit, PollFlags::IN)], Some(&timeout))
    })?;
    Ok(ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<(Usage, String)> {
        let folder = tempfile::tempdir().unwrap();
        let printed = Printed { stdout: folder.path().join("out"), stderr: folder.path().join("err") };
        let usage = run(Command::new("sh").args(["-c", script]), &printed, limit)?;
        Ok((usage, fs::read_to_string(printed.stdout).unwrap()))
    }

    #[test]
    fn what_a_child_used_is_its_own() {
        // 64 MiB of a shell variable.
        let script = "x=$(head -c 67108864 /dev/zero | tr '\\0' x); echo ${#x}";
        let (usage, said) = sh(script, Duration::from_secs(60)).unwrap();
        assert_eq!(said, "67108864\n");
        assert!(usage.peak > 64 << 20, "{usage:?}");
        assert!(usage.cpu > Duration::ZERO);
    }

    #[test]
    fn a_child_that_hangs_is_stopped() {
        let error = sh("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("was stopped"), "{error:#}");
    }

    #[test]
    fn a_child_that_fails_is_quoted() {
        let error = sh("echo why >&2; exit 3", Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().ends_with("exit status: 3\nwhy"), "{error:#}");
    }
}
