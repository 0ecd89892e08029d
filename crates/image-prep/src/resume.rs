//! Uploads that outlive a process: where their journals lie, and what a user is told of them.
//!
//! Journals are kept in `image-prep/uploads` of the user's state folder (XDG Base Directory Specification: `XDG_STATE_HOME`,
//! `~/.local/state` where it is not set). Without such a folder an upload cannot be continued, and that is all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use disk_convert::{ConvertError, Disk, SinkFault, SourceFault};
use object_io::{Journal, JournalError, ObjectUri, Progress, Restart, SourceIdentity, Store};

use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;
use crate::folders;

/// Between two looks whether a journal is free: nothing to a core, and soon enough after an upload.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);

/// The folder of the journals.
pub(crate) fn folder() -> Option<PathBuf> {
    Some(folders::of_user("XDG_STATE_HOME", ".local/state")?.join("uploads"))
}

/// The journal of uploads to `to`, where there can be one.
pub(crate) fn journal(
    context: &Context,
    store: &Store,
    to: &ObjectUri,
) -> Result<Option<Arc<Journal>>, Error> {
    let Some(folder) = folder() else {
        context.warn(&format!("{CANNOT_CONTINUE}: neither XDG_STATE_HOME nor HOME is set"));
        return Ok(None);
    };
    match Journal::open(&folder, &store.endpoint(), to.bucket(), to.key()) {
        Ok(journal) => Ok(Some(journal)),
        Err(error @ JournalError::Locked { .. }) => Err(Error::Journal(error)),
        Err(JournalError::Io { path, source }) => {
            context.warn(&format!("{CANNOT_CONTINUE}: cannot use `{}`: {source}", path.display()));
            Ok(None)
        }
        Err(error) => Err(Error::Journal(error)),
    }
}

/// The same, as soon as no other command is at it: that may be this one a second time, which then has nothing left to do.
pub(crate) async fn journal_when_free(
    context: &Context,
    store: &Store,
    to: &ObjectUri,
) -> Result<Option<Arc<Journal>>, Error> {
    let mut shown = None;
    loop {
        match journal(context, store, to) {
            Err(Error::Journal(JournalError::Locked { .. })) => {}
            opened => return opened,
        }
        if shown.is_none() {
            context.note(&format!("another command is at {to}: waiting until it is done"));
            shown = Some(context.progress.waiting("waiting"));
        }
        let waited = context.cancel.run_until_cancelled(tokio::time::sleep(LOCK_INTERVAL)).await;
        waited.ok_or(Error::Interrupted)?;
    }
}

const CANNOT_CONTINUE: &str = "if this upload breaks off, it cannot be continued";

/// Tells where a journal stopped being written.
pub(crate) fn warn_of_failure(context: &Context, journal: &Journal) {
    if let Some(error) = journal.failure() {
        context.warn(&format!("{CANNOT_CONTINUE} from where it was: its journal cannot be written: {error}"));
    }
}

/// Which files a disk is read from, and which version of each.
pub(crate) fn sources(disk: &Disk) -> Vec<SourceIdentity> {
    let identity = |file: &Arc<dyn disk_convert::ByteSource>| SourceIdentity {
        name: file.name().to_owned(),
        version: file.version(),
    };
    disk.sources().iter().map(identity).collect()
}

/// Tells what an upload goes on from.
pub(crate) fn tell(context: &Context, progress: Progress, image: &str, to: &ObjectUri) {
    match progress {
        Progress::Begun | Progress::Continued { parts: 0, .. } => {}
        Progress::Continued { parts, bytes } => {
            context.note(&format!("continuing the upload to {to}: {parts} parts, {} are there", Size(bytes)));
        }
        Progress::Restarted(why) => {
            let why = match why {
                Restart::Source => format!("`{image}` has changed since"),
                Restart::Form => "the object is to be made in another way".to_owned(),
                Restart::Forgotten => "the store does not know it any more".to_owned(),
                Restart::Hidden => "the store does not tell what it has of it".to_owned(),
                _ => "it does not fit".to_owned(),
            };
            context.warn(&format!("the upload to {to} that was interrupted starts over: {why}"));
        }
    }
}

/// What a failed conversion into an upload means for the upload: it is kept where the same command may go on with it.
pub(crate) async fn after_failure(store: &Store, journal: &Journal, error: ConvertError) -> Error {
    let Some(begun) = journal.begun() else { return error.into() };
    if may_go_on(&error) {
        let place = store.place(&begun.bucket, &begun.key);
        return Error::Kept { place, sent: journal.bytes_sent(), len: begun.len, source: error.into() };
    }
    journal.give_up(store).await;
    error.into()
}

/// True if the same parts may be sent another time, and taken.
fn may_go_on(error: &ConvertError) -> bool {
    match error {
        ConvertError::Sink(error) => matches!(
            error.fault,
            // Denied, because credentials may expire on the way.
            SinkFault::Unavailable | SinkFault::Denied | SinkFault::Checksum | SinkFault::Io
        ),
        ConvertError::Source(error) => matches!(
            error.fault,
            SourceFault::Unavailable
                | SourceFault::Stalled
                | SourceFault::Expired
                | SourceFault::Denied
                | SourceFault::Io
        ),
        _ => false,
    }
}
