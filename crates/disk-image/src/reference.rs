//! Files that an image names: its backing file, a data file, the extent files of a descriptor.
//!
//! A parser never opens what it reads a name of. It says what is named and what for ([`Refer`]), and whoever drives it decides: by
//! opening the file, by refusing, or by passing over it, where only the names are wanted.

use crate::{FileId, Format, Open, OpenError, Span};

/// A file that an image names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The file that names it; a relative name starts from that file's folder.
    pub by: FileId,
    /// The name as it is written, bytes that are no UTF-8 replaced. Comes from the image: hostile.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The format that it is declared to have; never guessed from its content.
    pub format: Format,
}

/// What a named file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The layer beneath: a QCOW2 backing file, a VMDK, VHD or VHDX parent.
    BackingFile,
    /// The file that holds the clusters of a QCOW2 image.
    DataFile,
    /// One of the files that a VMDK descriptor lists.
    ExtentFile,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BackingFile => "backing file",
            Self::DataFile => "data file",
            Self::ExtentFile => "extent file",
        })
    }
}

/// What became of a [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Referred {
    /// It was opened.
    File {
        /// What runs stored in it are called from now on; no two files share an id.
        file: FileId,
        /// Its length in bytes.
        len: u64,
        /// The runs of it that may hold data, ascending and apart, where that is known; the rest is zero.
        allocation: Option<Vec<Span>>,
    },
    /// It was not opened, as only the names are wanted. What it would hold counts as a hole, and the image is
    /// [partial](crate::Image::is_partial).
    Skipped,
}

type Next<T> = Box<dyn FnOnce(Vec<Referred>) -> Result<Open<T>, OpenError> + Send>;

/// The files that a parse needs next, and the rest of the parse.
pub struct Refer<T> {
    references: Vec<Reference>,
    next: Next<T>,
}

impl<T> Refer<T> {
    /// The files, each named once.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Continues with what became of each of [`Refer::references`], in that order.
    ///
    /// # Errors
    ///
    /// Whatever the parser finds wrong, and [`OpenError::Answer`] if the number does not match.
    pub fn resume(self, referred: Vec<Referred>) -> Result<Open<T>, OpenError> {
        if referred.len() != self.references.len() {
            return Err(OpenError::Answer);
        }
        (self.next)(referred)
    }

    pub(crate) fn new(
        references: Vec<Reference>,
        next: impl FnOnce(Vec<Referred>) -> Result<Open<T>, OpenError> + Send + 'static,
    ) -> Self {
        Self { references, next: Box::new(next) }
    }
}
