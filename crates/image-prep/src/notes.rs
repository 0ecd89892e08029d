//! Operations that were begun and not waited for to their end, so that `operation wait` finds them another day.
//!
//! A file each, `image-prep/operations/ID.json` in the user's state folder (XDG Base Directory Specification: `XDG_STATE_HOME`,
//! `~/.local/state` where it is not set), written when the service has accepted the operation, whole or not at all, and removed when it is
//! done. It holds no secret. Without such a folder an operation can be waited for by its identifier, and that is all.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::folders;

/// Longest identifier: the service's own have 20 characters.
const ID_MAX: usize = 50;

/// An operation that is not known to have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Note {
    /// Its identifier.
    pub(crate) id: String,
    /// The service that has it.
    pub(crate) endpoint: String,
    /// Name of the Image.
    pub(crate) name: String,
    /// The object that it reads, if that is to be removed afterwards.
    pub(crate) object: Option<Object>,
}

/// An object in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Object {
    pub(crate) store: String,
    pub(crate) bucket: String,
    pub(crate) key: String,
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

fn try_write(path: &std::path::Path, note: &Note) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec(note)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The machine may go down next.
    fs::File::open(folder)?.sync_all()
}

/// Forgets an operation.
pub(crate) fn remove(id: &str) {
    if let Some(path) = path(id) {
        // What was never noted is not there.
        let _ = fs::remove_file(path);
    }
}

/// The note of an operation.
pub(crate) fn of(id: &str) -> Option<Note> {
    read(&path(id)?)
}

/// The operations of a service that are noted, by their identifiers.
pub(crate) fn at(endpoint: &str) -> Vec<Note> {
    let Some(entries) = folder().and_then(|folder| fs::read_dir(folder).ok()) else { return Vec::new() };
    let mut notes: Vec<_> = entries
        .flatten()
        .filter_map(|entry| read(&entry.path()))
        .filter(|note| note.endpoint == endpoint)
        .collect();
    notes.sort_by(|one, other| one.id.cmp(&other.id));
    notes
}

fn read(path: &std::path::Path) -> Option<Note> {
    if path.extension()? != "json" {
        return None;
    }
    // Whatever else lies there is no note of ours.
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
