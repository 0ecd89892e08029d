//! One child, run to its end or to a limit, and what it used.
//!
//! Times and peak memory are the kernel's, from the wait4 of this one child. Its `ru_maxrss` starts from the peak of the process
//! that spawned it, because exec inherits that: a child of this process, which has held images and their digests, would seem to need
//! what we once needed. So a *launcher* stands between: this program again, fresh, with a job on standard input, which spawns
//! the child and says on standard output what it used. Its own memory, some 5 MiB, is the floor of what is measured. Limits are
//! the kernel's too: the launcher takes them and the child inherits them.
//!
//! Two things to know about `ru_maxrss`: it counts mapped files that were touched, and of a child that has children of its own
//! it is the largest one's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open, setrlimit};
use serde::{Deserialize, Serialize};
use wait4::Wait4 as _;

use crate::repo::name;

/// The first argument of a launcher.
pub(crate) const LAUNCH: &str = "launch";

/// What a child may take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// By the clock on the wall.
    pub(crate) wall: Duration,
    /// Processor time, whole seconds. A busy machine does not make it fail.
    pub(crate) cpu_seconds: Option<u64>,
    /// Address space, bytes.
    pub(crate) address_space: Option<u64>,
}

impl Limits {
    /// By the clock on the wall alone.
    pub(crate) const fn wall(wall: Duration) -> Self {
        Self { wall, cpu_seconds: None, address_space: None }
    }
}

/// A child to run. Its standard input is empty.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    words: Vec<OsString>,
    /// Variables that it has, or has not, unlike us.
    variables: Vec<(OsString, Option<OsString>)>,
    folder: Option<PathBuf>,
    /// A file for what it prints; a pipe's reader would be measured with it.
    stdout: Option<PathBuf>,
    /// A file for its complaints.
    stderr: PathBuf,
    limits: Limits,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a child used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Used {
    /// How it ended.
    pub(crate) ended: Ended,
    /// From before it was spawned until it had exited.
    pub(crate) wall: Duration,
    /// User time of all its threads.
    pub(crate) user: Duration,
    /// System time of all its threads.
    pub(crate) system: Duration,
    /// Peak resident memory, bytes.
    pub(crate) peak: u64,
}

impl Used {
    /// User and system time.
    pub(crate) fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

impl Job {
    /// Program, arguments, variables and folder of a command; what else it says is not looked at.
    pub(crate) fn new(command: &Command, stderr: &Path, limits: Limits) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Self {
            words: words.map(OsString::from).collect(),
            variables: command
                .get_envs()
                .map(|(name, value)| (name.to_owned(), value.map(OsString::from)))
                .collect(),
            folder: command.get_current_dir().map(Path::to_owned),
            stdout: None,
            stderr: stderr.to_owned(),
            limits,
        }
    }

    /// Keeps what it prints, in this file.
    pub(crate) fn printing_to(mut self, stdout: &Path) -> Self {
        self.stdout = Some(stdout.to_owned());
        self
    }

    /// Runs it. That it fails or is stopped is no error.
    pub(crate) fn run(&self) -> Result<Used> {
        // Not the path of this program: what lies there may have been built anew meanwhile.
        let mut launcher = Command::new("/proc/self/exe");
        launcher.arg(LAUNCH).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut launcher = launcher.spawn().context("cannot run the launcher")?;
        let mut stdin = launcher.stdin.take().context("a launcher without standard input")?;
        serde_json::to_writer(&mut stdin, self)?;
        drop(stdin);
        let done = launcher.wait_with_output()?;
        let answer: Result<Result<Used, String>, _> = serde_json::from_slice(&done.stdout);
        answer.map_err(|_| anyhow!("the launcher ended with {}", done.status))?.map_err(|why| anyhow!(why))
    }

    /// Runs it; if it does not end well, that is an error with what it said.
    pub(crate) fn succeed(&self) -> Result<Used> {
        let used = self.run()?;
        match used.ended {
            Ended::Exit(0) => Ok(used),
            Ended::OutOfTime => bail!("{} was stopped after {} s", self.name(), used.wall.as_secs()),
            ended => {
                let said = fs::read(&self.stderr).unwrap_or_default();
                let said = String::from_utf8_lossy(&said).trim_end().to_owned();
                bail!("{} failed: {ended}\n{said}", self.name())
            }
        }
    }

    fn name(&self) -> String {
        self.command().map_or_else(|_| String::new(), |command| name(&command))
    }

    fn command(&self) -> Result<Command> {
        let (program, arguments) = self.words.split_first().context("a command without words")?;
        let mut command = Command::new(program);
        command.args(arguments);
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        Ok(command)
    }

    /// What a launcher does.
    fn launch(&self) -> Result<Used> {
        let limited = |resource, current: Option<u64>, above: u64| match current {
            Some(limit) => setrlimit(resource, Rlimit { current, maximum: Some(limit + above) }),
            None => Ok(()),
        };
        limited(Resource::As, self.limits.address_space, 0)?;
        // At the lower of two limits the kernel says why, with SIGXCPU; at one limit alone it kills.
        limited(Resource::Cpu, self.limits.cpu_seconds, 1)?;
        limited(Resource::Core, Some(0), 0)?;
        let mut command = self.command()?;
        let stdout = self.stdout.as_ref().map(File::create).transpose()?;
        command.stdin(Stdio::null()).stdout(stdout.map_or_else(Stdio::null, Stdio::from));
        // A group of its own: what it starts must not outlive it.
        command.stderr(File::create(&self.stderr)?).process_group(0);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot run {}", name(&command)))?;
        let in_time = ends_within(&child, self.limits.wall);
        let wall = started.elapsed();
        if !matches!(in_time, Ok(true)) {
            kill_process_group(Pid::from_child(&child), Signal::KILL)?;
        }
        let used = child.wait4()?;
        let (user, system) = (used.rusage.utime, used.rusage.stime);
        let ended = if in_time? { ended(used.status) } else { Ended::OutOfTime };
        Ok(Used { ended, wall, user, system, peak: used.rusage.maxrss })
    }
}

fn ended(status: ExitStatus) -> Ended {
    const SIGXCPU: i32 = 24;
    match (status.code(), status.signal()) {
        (_, Some(SIGXCPU)) => Ended::OutOfTime,
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    }
}

/// What a launcher does: a job on standard input, what it used on standard output.
pub(crate) fn launch() -> ExitCode {
    let launched = || -> Result<Used> {
        let job: Job = serde_json::from_reader(io::stdin().lock())?;
        ensure!(!job.words.is_empty(), "a command without words");
        job.launch()
    };
    let answer = launched().map_err(|error| format!("{error:#}"));
    let written = serde_json::to_vec(&answer).map_err(io::Error::other);
    match written.and_then(|answer| io::stdout().write_all(&answer)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
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
