//! Disks and snapshots that Images are made from: what the operator has beside Images.
//!
//! A disk service plugs in by the trait. The one here is a folder of files: `ID.raw`, `ID.qcow2`, `ID.vmdk` and so on hold the volume ID. The
//! format is what the operator calls it: a guest that writes a header of another format into its raw disk gains nothing.
//! Volumes must not change while an Image is made of them.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use disk_convert::{ByteSource, FileSource, SourceError, SourceFault};
use disk_image::Format;

/// Where volumes of one kind are found.
#[async_trait]
pub trait Volumes: fmt::Debug + Send + Sync {
    /// The volume with this id; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    async fn open(&self, id: &str) -> Result<Option<Volume>, SourceError>;
}

/// The volumes that Images may be made from; none where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct VolumeSources {
    /// What `snapshot_id` names.
    pub snapshots: Option<Arc<dyn Volumes>>,
    /// What `disk_id` names.
    pub disks: Option<Arc<dyn Volumes>>,
}

/// A volume and what it is.
pub struct Volume {
    /// Its bytes. What it is called must not tell callers where it lies.
    pub source: Arc<dyn ByteSource>,
    /// Their format.
    pub format: Format,
}

/// Volumes in a folder.
#[derive(Clone, Debug)]
pub struct VolumeFolder {
    folder: PathBuf,
}

/// The names that formats have as suffixes.
const SUFFIXES: [(&str, Format); 5] = [
    ("raw", Format::Raw),
    ("qcow2", Format::Qcow2),
    ("vmdk", Format::Vmdk),
    ("vhd", Format::Vhd),
    ("vhdx", Format::Vhdx),
];

impl VolumeFolder {
    /// The volumes in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }
}

#[async_trait]
impl Volumes for VolumeFolder {
    async fn open(&self, id: &str) -> Result<Option<Volume>, SourceError> {
        // An id is one word of the folder, and no way out of it.
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.is_empty() || !id.bytes().all(is_word) {
            return Ok(None);
        }
        for (suffix, format) in SUFFIXES {
            match FileSource::open_as(&self.folder.join(format!("{id}.{suffix}")), id) {
                Ok(source) => return Ok(Some(Volume { source: Arc::new(source), format })),
                Err(error) if error.fault == SourceFault::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_id_is_a_file_and_its_suffix_the_format() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a-1.raw"), [0; 512]).unwrap();
        std::fs::write(dir.path().join("b_2.qcow2"), [0; 512]).unwrap();
        std::fs::write(dir.path().join("c"), [0; 512]).unwrap();
        std::fs::create_dir(dir.path().join("d.raw")).unwrap();
        let volumes = VolumeFolder::new(dir.path());
        assert_eq!(volumes.open("a-1").await.unwrap().unwrap().format, Format::Raw);
        assert_eq!(volumes.open("b_2").await.unwrap().unwrap().format, Format::Qcow2);
        for none in ["c", "", "a-1.raw", "../a-1", "/etc/passwd", ".", "a 1", "nothing"] {
            assert!(volumes.open(none).await.unwrap().is_none(), "{none}");
        }
        let error = volumes.open("d").await.err().unwrap();
        assert!(!format!("{error:?}").contains(dir.path().to_str().unwrap()), "{error:?}");
    }
}
