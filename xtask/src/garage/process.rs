//! A server that is stopped by its process id, whatever happens to us.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::repo::name;

/// How long a server may take to end after it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = name(command);
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {name}"))?;
        Ok(Self { child, name })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line of its standard output, which must be piped. `None` if it ended before.
    pub(crate) fn first_line(&mut self) -> Option<String> {
        let mut line = String::new();
        // What comes after the first line is not read, and would block a server that says much. Ours says one line.
        BufReader::new(self.child.stdout.as_mut()?).read_line(&mut line).ok()?;
        Some(line).filter(|line| !line.is_empty())
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(asked.elapsed() < ENDS_WITHIN, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
