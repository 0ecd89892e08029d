//! `image-server`: arguments in, a server that runs until it is told to stop, or a look at what it keeps.

mod options;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use image_server::{Collected, Depth, Server, ServerError, Upkeep};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use options::{Command, Fsck, LogFormat, Place, Serve};

fn main() -> ExitCode {
    let command = match options::parse(std::env::args_os().collect()) {
        Ok(command) => command,
        Err(error) => {
            report(&error);
            return ExitCode::FAILURE;
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match command.log_format() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(serve) => run_server(*serve).await.map(|()| ExitCode::SUCCESS),
        Command::Gc(place) => gc(place).await.map(|()| ExitCode::SUCCESS),
        Command::Fsck(fsck) => check(fsck).await,
    }
}

async fn run_server(serve: Serve) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let config = serve.into_config()?;
    let running = tokio::select! {
        started = Server::start(config) => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    writeln!(std::io::stdout(), "listening on {}", running.endpoint).context("cannot write to stdout")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    running.shutdown().await;
    Ok(())
}

async fn gc(place: Place) -> anyhow::Result<()> {
    let upkeep = Upkeep::open(place.into_config()).await?;
    let collected = upkeep.gc(&CancellationToken::new()).await;
    upkeep.close().await;
    let Collected { kept, removed, bytes, left } = collected?;
    writeln!(std::io::stdout(), "kept        {kept} blocks\nremoved     {removed} blocks, {bytes} bytes")?;
    if left > 0 {
        writeln!(std::io::stdout(), "left        {left} blocks, to another collection")?;
    }
    Ok(())
}

async fn check(fsck: Fsck) -> anyhow::Result<ExitCode> {
    let upkeep = Upkeep::open(fsck.place.into_config()).await?;
    let depth = if fsck.read { Depth::Content } else { Depth::Lengths };
    let report = upkeep.fsck(depth, &CancellationToken::new()).await;
    upkeep.close().await;
    let report = report?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The error, everything beneath it, and what would help.
fn report(error: &anyhow::Error) {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  caused by: {cause}\n"));
    }
    if let Some(hint) = error.downcast_ref::<ServerError>().and_then(ServerError::hint) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    // Where stderr is gone, nobody reads it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
