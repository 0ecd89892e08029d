//! The files that make up a disk image.

use std::sync::Arc;

use disk_image::{FileId, Stored};

use crate::{ByteSource, SourceError, SourceFault, SourceShape};

/// The image's file and those that it names, by [`FileId`]. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    files: Arc<[Arc<dyn ByteSource>]>,
    /// Known once: it is asked for each part, and there may be thousands of files.
    local: bool,
}

impl Sources {
    /// The files, in the order of their ids.
    pub(crate) fn new(files: Vec<Arc<dyn ByteSource>>) -> Self {
        let local = files.iter().all(|file| file.blocking().is_some());
        Self { files: files.into(), local }
    }

    /// The image's own file.
    pub fn image(&self) -> &Arc<dyn ByteSource> {
        &self.files[0]
    }

    /// A file.
    pub fn file(&self, id: FileId) -> &Arc<dyn ByteSource> {
        // Ids are handed out while the files are opened, one for each.
        &self.files[usize::from(id.0)]
    }

    /// All files, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn ByteSource>> {
        self.files.iter()
    }

    /// Which reads the files serve best.
    pub fn shape(&self) -> SourceShape {
        self.image().shape()
    }

    /// True if no read waits for a network.
    pub fn are_local(&self) -> bool {
        self.local
    }

    /// Reads a run of a file that does not wait for a network.
    pub(crate) fn read_at(&self, stored: Stored, into: &mut [u8]) -> Result<(), SourceError> {
        let source = self.file(stored.file);
        match source.blocking() {
            Some(file) => file.read_at(stored.span.start, into),
            None => Err(SourceError::new(source.name(), stored.span, SourceFault::Protocol)),
        }
    }

    /// Fails if a file is known to have changed since it was opened.
    ///
    /// # Errors
    ///
    /// [`crate::SourceFault::Changed`].
    pub async fn verify(&self) -> Result<(), SourceError> {
        for file in self.files.iter() {
            file.verify().await?;
        }
        Ok(())
    }
}
