//! The URL, read as the service is going to read it: one byte. What would fail there in a minute, with the words of another
//! program, is said now: not there, not allowed, and expired are three different mistakes.

use std::time::Duration;

use disk_convert::SourceFault;
use object_io::{HttpOptions, HttpSource};

use crate::context::Context;
use crate::error::Error;

/// For all attempts. Who cannot be reached from here may be from there.
const PATIENCE: Duration = Duration::from_secs(15);

/// Attempts, the first included.
const ATTEMPTS: u32 = 3;

/// Whose URL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Url {
    /// Signed here, for an object that was uploaded here.
    Ours,
    /// Typed: its host may let the service in and not us.
    Typed,
}

/// Fails if the service has no use for the URL; tells of what only this machine may not be able to.
pub(super) async fn check(context: &Context, url: &str, whose: Url) -> Result<(), Error> {
    let _shown = context.progress.waiting("reading the URL");
    let options = HttpOptions { attempts: ATTEMPTS, ..HttpOptions::default() };
    let opened = HttpSource::open(url, &options, &context.cancel);
    let error = match tokio::time::timeout(PATIENCE, opened).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => {
            context.warn("the URL was not read before the service is asked: no answer in time");
            return Ok(());
        }
    };
    match error.fault {
        SourceFault::Expired | SourceFault::NotFound => Err(Error::Preflight { source: error }),
        SourceFault::Denied if whose == Url::Ours => Err(Error::Preflight { source: error }),
        _ if context.cancel.is_cancelled() => Err(Error::Interrupted),
        _ => {
            context.warn(&format!("the image service may not be able to read the URL: {error}"));
            Ok(())
        }
    }
}
