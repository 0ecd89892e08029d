//! Operations that were begun and not waited for to their end, so that `operation wait` finds them another day.
//!
//! A file each, `image-prep/operations/ID.json` in the user's state folder (XDG Base Directory Specification: `XDG_STATE_HOME`,
//! `~/.local/state` where it is not set), written when the service has accepted the operation, whole or not at all, and removed when it is
//! done. It holds no secret. Without such a folder an operation can be waited for by its identifier, and that is all.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::args::values::LONGEST;
use crate::context::Context;
use crate::folders;

/// Longest identifier: the service's own have 20 characters, Google's 55.
const ID_MAX: usize = 63;

/// How long an operation can read what it was given: no URL that is signed here lives longer.
const READ_MAX: Duration = LONGEST;

/// An operation that is not known to have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Note {
    /// Its identifier.
    pub(crate) id: String,
    /// The service that has it; of Compute Engine with the project, which an identifier belongs to there.
    pub(crate) endpoint: String,
    /// Name of the Image.
    pub(crate) name: String,
    /// The object that it reads, if that is to be removed afterwards.
    pub(crate) object: Option<Object>,
    /// Nobody wants it any more, but it could not be cancelled.
    #[serde(default)]
    pub(crate) given_up: bool,
}

/// An object in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Object {
    pub(crate) store: String,
    pub(crate) bucket: String,
    pub(crate) key: String,
    /// Its ETag.
    pub(crate) etag: String,
}

fn folder() -> Option<PathBuf> {
    Some(folders::of_user("XDG_STATE_HOME", ".local/state")?.join("operations"))
}

fn path(id: &str) -> Option<PathBuf> {
    // What a service calls an operation must not become another path.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fits = !id.is_empty() && id.len() <= ID_MAX && id.chars().all(is_plain);
    Some(folder()?.join(format!("{id}.json"))).filter(|_| fits)
}

/// Notes an operation. Where that fails it is told, and the operation goes on.
pub(crate) fn write(context: &Context, note: &Note) {
    let Some(path) = path(&note.id) else { return };
    if let Err(error) = try_write(&path, note) {
        let id = &note.id;
        context.warn(&format!("operation {id} is not noted in `{}`: {error}", path.display()));
    }
}

fn try_write(path: &Path, note: &Note) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    // Which images somebody makes is nobody else's business.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = path.with_extension("new");
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(note)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The machine may go down next.
    fs::File::open(folder)?.sync_all()
}

/// Forgets an operation of a service.
pub(crate) fn remove(id: &str, endpoint: &str) {
    // Another service may have one of the same identifier.
    if let Some(path) = path(id).filter(|_| of(id, endpoint).is_some()) {
        // What was never noted is not there.
        let _ = fs::remove_file(path);
    }
}

/// The note of an operation of a service.
pub(crate) fn of(id: &str, endpoint: &str) -> Option<Note> {
    read(&path(id)?).filter(|note| note.endpoint == endpoint)
}

/// The operations of a service that are noted, by their identifiers.
pub(crate) fn at(endpoint: &str) -> Vec<Note> {
    let mut notes: Vec<_> = all().map(|(_, note)| note).filter(|note| note.endpoint == endpoint).collect();
    notes.sort_by(|one, other| one.id.cmp(&other.id));
    notes
}

/// The operations that were given up and may still run, and since when.
pub(crate) fn given_up() -> Vec<(Note, Option<SystemTime>)> {
    let given_up = all().filter(|(_, note)| note.given_up);
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    given_up.map(|(path, note)| (note, changed(&path))).collect()
}

/// The operation that may still read an object, by the notes.
pub(crate) fn reader(store: &str, bucket: &str, key: &str) -> Option<Note> {
    let is_read = |object: &Object| object.store == store && object.bucket == bucket && object.key == key;
    let may_read = |path: &Path| {
        let age = fs::metadata(path).and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
        age.is_none_or(|age| age < READ_MAX)
    };
    all()
        .find(|(path, note)| note.object.as_ref().is_some_and(is_read) && may_read(path))
        .map(|(_, note)| note)
}

fn all() -> impl Iterator<Item = (PathBuf, Note)> {
    let entries = folder().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), read(&entry.path())?)))
}

fn read(path: &Path) -> Option<Note> {
    if path.extension()? != "json" {
        return None;
    }
    // Whatever else lies there is no note of ours.
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
