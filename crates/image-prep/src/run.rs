//! The same start and the same end for every command: runtime, signals, report, exit code.
//!
//! The first Ctrl-C or SIGTERM fires the one cancellation token, and the command has its [`Grace`](crate::grace::Grace) to take back what it did; the
//! second ends the process at once.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, CommonArgs};
use crate::commands;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::report::{Failure, Report};

/// Threads of the I/O runtime. They wait; what computes runs on the CPU workers.
const IO_THREADS: usize = 2;

/// Runs a command to its end.
pub(crate) fn run(cli: Cli) -> Exit {
    start_log(&cli.common);
    allow_many_files();
    let report = Report::new(cli.common.json);
    // Of what fails, `compare` says so with another code than of what differs.
    let is_compare = matches!(cli.command, Command::Compare(_));
    match run_command(cli) {
        Ok(exit) => exit,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.is_broken_pipe() => Exit::Done,
        Err(error) => {
            let exit = match error.exit() {
                Exit::Failed if is_compare => Exit::Usage,
                exit => exit,
            };
            report.error(&Failure::new(&error, exit));
            exit
        }
    }
}

/// Raises the soft limit of open files to the hard one: a disk may lie in thousands of files, and shells allow 1024.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is not allowed, the files that are too many say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn run_command(cli: Cli) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("io")
        .enable_all()
        .build()
        .map_err(|source| Error::Threads { source })?;
    let cancel = CancellationToken::new();
    let context = Arc::new(Context::new(&cli.common, cancel.clone())?);
    let told = context.clone();
    let result = runtime.block_on(async {
        let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        let [interrupt, terminate] = signals;
        let interrupt = interrupt.map_err(|source| Error::Threads { source })?;
        let terminate = terminate.map_err(|source| Error::Threads { source })?;
        tokio::spawn(watch(interrupt, terminate, cancel.clone()));
        // A task of its own, so that a step which computes for long does not keep the clock below from running.
        let mut command = tokio::spawn(async move { commands::run(cli.command, &context).await });
        tokio::select! {
            done = &mut command => done.unwrap_or(Err(Error::Panicked)),
            () = told.interrupted_for(told.grace.command()) => {
                told.warn("there was no time to take back all that was begun; `image-prep cleanup` removes what is left of uploads");
                Err(Error::Interrupted)
            }
        }
    });
    // What is still running was given its time: threads that read or write are left to the end of the process.
    runtime.shutdown_background();
    match result {
        Err(_) if cancel.is_cancelled() => Err(Error::Interrupted),
        result => result,
    }
}

async fn watch(mut interrupt: Signal, mut terminate: Signal, cancel: CancellationToken) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if cancel.is_cancelled() {
            std::process::exit(Exit::Interrupted.code().into());
        }
        cancel.cancel();
    }
}

/// What the crates beneath say, on standard error: with `-v` what they do, with `-vv` how. `RUST_LOG` overrides.
fn start_log(common: &CommonArgs) {
    let ours = match common.verbose {
        0 => return,
        1 => "info",
        _ => "debug",
    };
    let crates = [
        "image_prep",
        "disk_convert",
        "object_io",
        "block_store",
        "local_store",
        "image_api",
        "image_server",
    ];
    let default = crates.map(|name| format!("{name}={ours}")).join(",");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Only a second subscriber could be in the way, and there is none.
    let _ = log.without_time().try_init();
}
