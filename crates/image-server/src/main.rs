//! `image-server`: arguments in, a server that runs until it is told to stop.

mod options;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use image_server::{Server, ServerError};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use options::{LogFormat, Serve};

fn main() -> ExitCode {
    let serve = match options::parse(std::env::args_os().collect()) {
        Ok(serve) => serve,
        Err(error) => {
            report(&error);
            return ExitCode::FAILURE;
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match serve.log_format() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    match run(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(serve: Serve) -> anyhow::Result<()> {
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
