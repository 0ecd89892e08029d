//! `cleanup`: removes what uploads that broke off left in a store, and ends the operations that were to read it.
//!
//! Journals say what is ours: an upload that was begun, and the object that `create` made of it. An object is deleted only if
//! its ETag is the one that was uploaded. What is in use by another process is left alone; its journal is locked. Zeroes that an
//! upload was copying holes from go with it; where there is no such upload any more, on their own.

mod operations;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use image_api::Transport;
use object_io::limits::ZEROES_PREFIX;
use object_io::{Begun, Journal, ObjectError, Scheme, Store, zeroes_key};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::CleanupArgs;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::local::Local;
use crate::notes::Note;
use crate::report::one_line;
use crate::transfer::KEY_PREFIX;
use crate::{notes, resume, times, transfer};
use operations::Service;

/// Cleans up, and prints what was removed.
pub(crate) async fn run(args: &CleanupArgs, context: &Context) -> Result<Exit, Error> {
    let folder = resume::folder();
    let place = place(args);
    match &args.local.local {
        Some(dir) => {
            let local = Local::start(dir.as_deref(), Transport::default(), context).await?;
            let store = local.store();
            let result = Cleanup { args, context, store, service: None, folder, place }.run().await;
            local.stop(context).await;
            result
        }
        // Where there is nothing to ask a store, none has to be known.
        None if place.is_none() && journals(folder.as_ref())?.is_empty() && notes::given_up().is_empty() => {
            Ok(Exit::Done)
        }
        None => {
            let scheme = match (&args.place, args.bucket.as_ref().and_then(|bucket| bucket.scheme)) {
                (Some(place), _) => place.scheme(),
                (None, Some(scheme)) => scheme,
                (None, None) => transfer::scheme_at("", &args.api, context)?,
            };
            let store = transfer::connect(&args.store, scheme, Some(&args.api), context).await?;
            let service = match notes::given_up().is_empty() {
                true => None,
                false => Service::find(args, context).await,
            };
            Cleanup { args, context, store: &store, service: service.as_ref(), folder, place }.run().await
        }
    }
}

/// The bucket that was named, and what keys begin with there; nothing, if that was not said.
fn place(args: &CleanupArgs) -> Option<(&str, &str)> {
    let typed = args.place.as_ref().map(|place| (place.bucket(), place.prefix()));
    typed.or_else(|| args.bucket.as_ref().map(|bucket| (bucket.name.as_str(), "")))
}

fn journals(folder: Option<&PathBuf>) -> Result<Vec<Arc<Journal>>, Error> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    Journal::list(folder).map_err(|source| Error::File { action: "read", path: folder.clone(), source })
}

/// Something that was found.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found<'a> {
    /// `upload`, `object` or `operation`.
    kind: &'a str,
    /// Of an operation what it reads; empty if it reads nothing that is to be removed.
    bucket: &'a str,
    key: &'a str,
    /// Of an upload.
    upload_id: Option<&'a str>,
    /// Of an operation.
    operation_id: Option<&'a str>,
    /// When something last happened to it, where that is known.
    #[schemars(extend("format" = "date-time"))]
    changed_at: Option<String>,
    /// Whether it is gone.
    removed: bool,
}

/// One run of the command.
struct Cleanup<'a> {
    args: &'a CleanupArgs,
    context: &'a Context,
    store: &'a Store,
    /// Where there is an operation to end.
    service: Option<&'a Service>,
    folder: Option<PathBuf>,
    place: Option<(&'a str, &'a str)>,
}

/// Something to remove.
struct Item {
    what: What,
    bucket: String,
    key: String,
    changed: Option<SystemTime>,
}

impl Item {
    fn of_operation((note, changed): (Note, Option<SystemTime>)) -> Self {
        // What it reads; it may read nothing that is to be removed.
        let (bucket, key) = note
            .object
            .as_ref()
            .map(|object| (object.bucket.clone(), object.key.clone()))
            .unwrap_or_default();
        Self { what: What::Operation(note), bucket, key, changed }
    }
}

enum What {
    /// An operation that was given up.
    Operation(Note),
    /// An upload with a journal, and the object that it may have become.
    Journalled(Arc<Journal>, Box<Begun>, Option<String>),
    /// An upload that only the store knows.
    Listed(String),
    /// Zeroes for an upload that nobody knows.
    Zeroes,
}

impl Cleanup<'_> {
    async fn run(&self) -> Result<Exit, Error> {
        let mut items: Vec<Item> = self.operations().into_iter().map(Item::of_operation).collect();
        items.extend(self.journalled().await?);
        items.extend(self.listed(&items).await?);
        if items.is_empty() {
            return Ok(Exit::Done);
        }
        if !self.args.dry_run && !self.args.yes {
            for item in &items {
                self.context.note(&self.text(item, "would be removed"));
            }
            if !ask(items.len())? {
                return Ok(Exit::Done);
            }
        }
        let (all, mut left) = (items.len(), 0);
        for item in items {
            let removed = !self.args.dry_run && self.remove(&item).await;
            left += usize::from(!removed && !self.args.dry_run);
            self.print(&item, removed)?;
            if self.context.cancel.is_cancelled() {
                return Err(Error::Interrupted);
            }
        }
        match left {
            0 => Ok(Exit::Done),
            left => Err(Error::CleanupLeft { left, all }),
        }
    }

    /// What journals know of in this store.
    async fn journalled(&self) -> Result<Vec<Item>, Error> {
        let (mut items, ending) = (Vec::new(), self.operations());
        for journal in journals(self.folder.as_ref())? {
            let Some(begun) = journal.begun() else { continue };
            let (bucket, key) = (begun.bucket.clone(), begun.key.clone());
            let asked = |(named, prefix): (&str, &str)| named == bucket && key.starts_with(prefix);
            if !self.place.is_none_or(asked) {
                continue;
            }
            if begun.endpoint != self.store.endpoint() {
                let at = &begun.endpoint;
                let scheme = Scheme::of_endpoint(at);
                let place = scheme.place(&bucket, &key);
                let how = match scheme {
                    Scheme::S3 => "--endpoint-url".to_owned(),
                    Scheme::Gs => scheme.place(&bucket, ""),
                };
                self.context.warn(&format!("{place} is of another store, {at}: name it with {how}"));
                continue;
            }
            let is_read = begun.of.temporary.then(|| notes::reader(&begun.endpoint, &bucket, &key)).flatten();
            // One that was given up is ended first, unless it is too young.
            let is_ended = |note: &Note| ending.iter().any(|(one, _)| one.id == note.id);
            if let Some(Note { id, .. }) = is_read.filter(|note| !is_ended(note)) {
                let place = self.store.place(&bucket, &key);
                self.context.warn(&format!(
                    "{place} is kept: operation {id} may still read it; `image-prep operation wait` removes it"
                ));
                continue;
            }
            let changed = journal.changed().ok();
            if self.is_young(changed) {
                continue;
            }
            let object = match begun.of.temporary {
                true => self.object_of(&journal, &begun).await?,
                false => None,
            };
            items.push(Item {
                what: What::Journalled(journal, Box::new(begun), object),
                bucket,
                key,
                changed,
            });
        }
        Ok(items)
    }

    /// The ETag of the object that an upload has become, if it is still there.
    async fn object_of(&self, journal: &Journal, begun: &Begun) -> Result<Option<String>, Error> {
        match self.store.head(&begun.bucket, &begun.key, &self.context.cancel).await {
            Ok(found) => Ok(found.etag.filter(|etag| journal.made(etag))),
            Err(ObjectError::AccessDenied { .. }) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What only the store knows of.
    async fn listed(&self, known: &[Item]) -> Result<Vec<Item>, Error> {
        let Some((bucket, prefix)) = self.place else { return Ok(Vec::new()) };
        // Of uploads that no journal knows, only the key says whose they are.
        let prefix = if prefix.is_empty() { KEY_PREFIX } else { prefix };
        let uploads = self.store.list_uploads(bucket, prefix, &self.context.cancel).await?;
        // Afterwards: what is begun meanwhile is in one of the journals by now.
        let journalled = self.folder.as_ref().map(|folder| Journal::upload_ids(folder)).unwrap_or_default();
        let is_known = |id: &str| {
            known
                .iter()
                .any(|item| matches!(&item.what, What::Journalled(_, begun, _) if begun.upload_id == id))
        };
        let zeroes = self.zeroes(bucket).await?;
        Ok(uploads
            .into_iter()
            .filter(|upload| !is_known(&upload.id) && !journalled.contains(&upload.id))
            .filter(|upload| !self.is_young(upload.initiated))
            .map(|upload| Item {
                what: What::Listed(upload.id),
                bucket: bucket.to_owned(),
                key: upload.key,
                changed: upload.initiated,
            })
            .chain(zeroes)
            .collect())
    }

    /// Objects of zeroes whose upload is not there any more.
    async fn zeroes(&self, bucket: &str) -> Result<Vec<Item>, Error> {
        let cancel = &self.context.cancel;
        let (mut items, mut from) = (Vec::new(), None);
        loop {
            let page = match self.store.list(bucket, ZEROES_PREFIX, from.as_ref(), cancel).await {
                // Who may see uploads need not be allowed to see objects.
                Err(ObjectError::AccessDenied { .. }) => return Ok(Vec::new()),
                page => page?,
            };
            let wanted = |key: &str| self.place.is_some_and(|(_, prefix)| key.starts_with(prefix));
            let old = page.objects.into_iter().filter(|object| !self.is_young(object.last_modified));
            items.extend(old.filter(|object| wanted(&object.key)).map(|object| Item {
                what: What::Zeroes,
                bucket: bucket.to_owned(),
                key: object.key,
                changed: object.last_modified,
            }));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        if !items.is_empty() {
            // Not before: what was put meanwhile has its upload by now.
            let uploads = self.store.list_uploads(bucket, "", cancel).await?;
            let in_use: Vec<String> = uploads.iter().map(|upload| zeroes_key(&upload.id)).collect();
            items.retain(|item| !in_use.contains(&item.key));
        }
        Ok(items)
    }

    fn is_young(&self, changed: Option<SystemTime>) -> bool {
        is_younger(self.args.older_than.0, changed)
    }

    /// False, and told, if something of it may be left.
    async fn remove(&self, item: &Item) -> bool {
        let cancel = &self.context.cancel;
        let removed = match &item.what {
            What::Operation(note) => return self.end(note).await,
            What::Zeroes => self.store.delete(&item.bucket, &item.key, cancel).await,
            What::Listed(id) => self.abort(item, id).await,
            What::Journalled(journal, begun, object) => {
                let is_read =
                    begun.of.temporary.then(|| notes::reader(&begun.endpoint, &item.bucket, &item.key));
                if let Some(Note { id, .. }) = is_read.flatten() {
                    let place = self.store.place(&item.bucket, &item.key);
                    let kept = format!("{place} is kept: operation {id} may still read it");
                    self.context.warn(&kept);
                    return false;
                }
                let deleted = match object {
                    // What was put in its place since is somebody else's.
                    Some(etag) => {
                        transfer::delete_if(self.store, &item.bucket, &item.key, Some(etag), cancel)
                            .await
                            .map(drop)
                    }
                    None => Ok(()),
                };
                match deleted {
                    Ok(()) => self.abort(item, &begun.upload_id).await.map(|()| journal.remove()),
                    Err(error) => Err(error),
                }
            }
        };
        match removed {
            Ok(()) => true,
            // The bucket has gone, and what was in it.
            Err(ObjectError::NoSuchBucket { .. }) => {
                if let What::Journalled(journal, ..) = &item.what {
                    journal.remove();
                }
                true
            }
            Err(error) => {
                self.context.warn(&format!("{}: {error}", self.store.place(&item.bucket, &item.key)));
                false
            }
        }
    }

    /// Aborts an upload, and removes the zeroes that it copied from.
    async fn abort(&self, item: &Item, id: &str) -> Result<(), ObjectError> {
        let cancel = &self.context.cancel;
        self.store.remove_zeroes(&item.bucket, id, cancel).await?;
        self.store.abort_upload(&item.bucket, &item.key, id, cancel).await
    }

    fn print(&self, item: &Item, removed: bool) -> Result<(), Error> {
        if self.context.output.is_json() {
            let id = match &item.what {
                What::Journalled(_, begun, _) => Some(&begun.upload_id),
                What::Listed(id) => Some(id),
                What::Zeroes | What::Operation(_) => None,
            };
            let operation = match &item.what {
                What::Operation(note) => Some(&note.id),
                _ => None,
            };
            return self.context.output.json(&Found {
                kind: kind(item),
                bucket: &item.bucket,
                key: &item.key,
                upload_id: id.map(String::as_str),
                operation_id: operation.map(String::as_str),
                changed_at: item.changed.map(times::rfc3339),
                removed,
            });
        }
        let done = match (removed, self.args.dry_run) {
            (true, _) => "removed",
            (false, true) => "would be removed",
            (false, false) => "left",
        };
        self.context.output.line(&self.text(item, done))
    }

    fn text(&self, item: &Item, done: &str) -> String {
        let since = item.changed.map_or_else(String::new, |time| format!(" of {}", times::rfc3339(time)));
        if let What::Operation(note) = &item.what {
            return format!("operation {}{since}: {done}", note.id);
        }
        // Keys of others are read before it is agreed to remove them.
        let place = self.store.place(&item.bucket, &item.key);
        one_line(&format!("{}{since} at {place}: {done}", kind(item)))
    }
}

/// True if it is younger than what is to be removed. What is from the future, where clocks disagree, is young, and so is what
/// nobody knows the age of.
fn is_younger(wanted: Duration, changed: Option<SystemTime>) -> bool {
    wanted > Duration::ZERO && changed.is_none_or(|changed| changed.elapsed().unwrap_or_default() < wanted)
}

fn kind(item: &Item) -> &'static str {
    match &item.what {
        What::Operation(_) => "operation",
        What::Journalled(_, _, Some(_)) | What::Zeroes => "object",
        What::Journalled(..) | What::Listed(_) => "upload",
    }
}

/// Asks a person.
fn ask(count: usize) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::NotConfirmed);
    }
    // Where the question cannot be asked, nothing is removed.
    let mut err = io::stderr().lock();
    let mut answer = String::new();
    let asked = write!(err, "remove {count}? [y/N] ").and_then(|()| err.flush());
    let answered = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    Ok(answered.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_young_is_left_alone() {
        let (day, hour) = (Duration::from_secs(86400), Duration::from_secs(3600));
        let now = SystemTime::now();
        for (wanted, changed, young) in [
            (day, Some(now - day - hour), false),
            (day, Some(now - hour), true),
            (day, Some(now + hour), true),
            (day, None, true),
            (Duration::ZERO, Some(now + hour), false),
            (Duration::ZERO, None, false),
        ] {
            assert_eq!(is_younger(wanted, changed), young, "{wanted:?} {changed:?}");
        }
    }
}
