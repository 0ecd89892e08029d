//! Peak memory of a command.
//!
//! `VmHWM` of /proc is the high-water mark of everything resident: anonymous memory, and the pages of the binary and its
//! libraries. Local files are read with pread, so no page of an image is mapped; what is read here is an upper bound of the peak
//! anonymous memory. The mark never falls, so it is read every few milliseconds and once more as late as can be; what the
//! process grows by in its last milliseconds is missed.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::repo::name;

const EVERY: Duration = Duration::from_millis(3);

/// Runs a command to its end; gives its peak memory in bytes.
pub(super) fn peak(command: &mut Command) -> Result<u64> {
    let mut child =
        command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {}", name(command)))?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        peak = peak.max(high_water(&fs::read_to_string(&status_file).unwrap_or_default()).unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(EVERY);
    };
    if !status.success() {
        bail!("{} failed: {status}", name(command));
    }
    Ok(peak)
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_touches_is_seen() {
        // 64 MiB of a shell variable, held for as long as the reader needs.
        let script = "x=$(head -c 67108864 /dev/zero | tr '\\0' x); sleep 0.1";
        let peak = peak(Command::new("sh").args(["-c", script])).unwrap();
        assert!(peak > 64 << 20, "{peak}");
        assert!(high_water("Name: x\n").is_none());
    }
}
