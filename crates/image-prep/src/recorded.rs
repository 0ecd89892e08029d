//! The guest digest that an object says it holds, and when that is believed.
//!
//! An upload records guest digest and form (see [`transfer`](crate::transfer)); to believe them saves reading the object. They are
//! believed where they fit what was opened: both are as uploads write them, the image has the format of the form, and a raw disk
//! or a plain qcow2 is exactly as long as that form of that disk is. So metadata that came with other bytes, by a copy or by hand, does
//! not count.
//!
//! It is no proof. Who may write the object may write a digest that is false and fits, and nothing short of reading finds
//! out: a verdict that rests on a digest says so.

use disk_convert::Disk;
use disk_image::{Format, ObjectMap, qcow2};

use crate::args::Form;
use crate::open::Metadata;
use crate::product::source_form;
use crate::transfer::{FORM, GUEST_DIGEST};

/// What an object says of the disk in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Nothing.
    Nothing,
    /// Something that does not fit what it is.
    Unfit,
    /// The guest digest of the disk, as it is printed.
    Digest(String),
}

impl Recorded {
    /// Of an object that was opened.
    pub(crate) fn of(metadata: &Metadata, disk: &Disk) -> Self {
        let Some(digest) = metadata.get(GUEST_DIGEST) else { return Self::Nothing };
        let form = metadata.get(FORM).map(String::as_str).unwrap_or_default();
        if form == Form::Gce.name() {
            // Of the disk before it was filled up to whole GiB, and so became another one.
            return Self::Nothing;
        }
        match is_digest(digest) && is_form_of(form, disk) {
            true => Self::Digest(digest.clone()),
            false => Self::Unfit,
        }
    }

    /// The digest, if it is believed.
    pub(crate) fn digest(&self) -> Option<&str> {
        match self {
            Self::Digest(digest) => Some(digest),
            Self::Nothing | Self::Unfit => None,
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether an object can be what an upload makes in a form, by what [`form_name`](crate::product::form_name) writes.
fn is_form_of(form: &str, disk: &Disk) -> bool {
    let format = disk.image().format();
    let is_format = |name: &str| name == format.to_string();
    let len = disk.source().len();
    // No other form is compressed as a whole, but for archives that have an index and need not be unpacked.
    if form == source_form(disk) || disk.compression().is_some() {
        return form == source_form(disk);
    }
    match *form.split('-').collect::<Vec<_>>() {
        ["source", ..] => false,
        ["raw"] => format == Format::Raw && disk.image().virtual_size() == len,
        ["qcow2", cluster_size] => {
            // The clusters that are stored are those that were: laid out again they take as much.
            let options = cluster_size.parse().map(|cluster_size| qcow2::LayoutOptions { cluster_size });
            let layout = options.ok().and_then(|o| qcow2::Layout::new(disk.image().map(), &o).ok());
            format == Format::Qcow2 && layout.is_some_and(|layout| ObjectMap::qcow2(layout).len() == len)
        }
        // What is compressed is as long as it is.
        [name, ..] => is_format(name),
        [] => false,
    }
}
