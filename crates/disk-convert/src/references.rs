//! What happens to the files that an image names.
//!
//! An image may come from anybody, so nothing that it names is opened unless the user allows it, and then only beneath one folder:
//! the path is followed component by component, and neither `..` nor a link leads out. Never a device, never a URL, never
//! another scheme; and no file twice, so that no chain can go round.

use std::collections::HashSet;
use std::fs::{File, canonicalize};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptionsExt};
use disk_image::{FileId, Reference, Span};
use rustix::fs::OFlags;

use crate::{FileSource, SourceError};

/// What to do with the files that an image names.
#[derive(Debug, Clone, Default)]
pub enum References {
    /// Refuse the image.
    #[default]
    Deny,
    /// Pass over them: the image is then good for information only.
    List,
    /// Open them beneath a folder.
    Beneath(ReferenceFolder),
}

/// Most files of one disk: a VMDK of 4096 extent files, and as many again in its backing files.
const MAX_FILES: usize = 8192;

/// Why a file that an image names is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceFault {
    /// No reference is followed.
    #[error("files that an image names are not opened")]
    Denied,
    /// A scheme, as in `nbd://host` or `json:{}`.
    #[error("it is not the path of a file")]
    Scheme,
    /// It lies elsewhere, or a link leads there.
    #[error("it is outside of the folder that is allowed")]
    Outside,
    /// A device, a FIFO, a folder.
    #[error("it is not a regular file")]
    NotAFile,
    /// More files than any disk has.
    #[error("the image names more than {MAX_FILES} files")]
    TooMany,
    /// The same file twice in one disk.
    #[error("it is in use by this image already")]
    Twice,
    /// The system refused.
    #[error("it cannot be opened")]
    Io(#[source] io::Error),
}

impl ReferenceFault {
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Denied => {
                Some("if you trust the image, name the folder of these files with --allow-references")
            }
            Self::Outside => Some("name another folder with --allow-references=DIR"),
            _ => None,
        }
    }
}

/// A folder beneath which the files of one image are opened.
#[derive(Debug, Clone)]
pub struct ReferenceFolder {
    /// The image, without links.
    image: PathBuf,
    /// The folder, without links.
    root: PathBuf,
}

impl ReferenceFolder {
    /// For the image at `image`: the folder `root`, or the image's own.
    ///
    /// # Errors
    ///
    /// If one of the two does not exist.
    pub fn new(image: &Path, root: Option<&Path>) -> Result<Self, SourceError> {
        let real = |path: &Path| {
            canonicalize(path)
                .map_err(|error| SourceError::io(path.to_string_lossy(), Span::default(), error))
        };
        let image = real(image)?;
        let root = match root {
            Some(root) => real(root)?,
            None => folder_of(&image).to_owned(),
        };
        Ok(Self { image, root })
    }
}

/// The files of one image, opened while the image is.
pub(crate) struct Opener {
    folder: ReferenceFolder,
    root: Dir,
    /// Where each file lies that was opened.
    places: Vec<PathBuf>,
    /// Device and inode of each.
    seen: HashSet<(u64, u64)>,
}

impl Opener {
    pub(crate) fn new(folder: &ReferenceFolder) -> Result<Self, SourceError> {
        let failed = |path: &Path, error| SourceError::io(path.to_string_lossy(), Span::default(), error);
        let root = Dir::open_ambient_dir(&folder.root, ambient_authority())
            .map_err(|error| failed(&folder.root, error))?;
        let image = std::fs::metadata(&folder.image).map_err(|error| failed(&folder.image, error))?;
        let seen = HashSet::from([(image.dev(), image.ino())]);
        Ok(Self { folder: folder.clone(), root, places: vec![folder.image.clone()], seen })
    }

    /// Opens what `reference` names. Its id is the number of files opened before it.
    pub(crate) fn open(&mut self, reference: &Reference) -> Result<FileSource, ReferenceFault> {
        if self.places.len() > MAX_FILES {
            return Err(ReferenceFault::TooMany);
        }
        let by = self.places.get(usize::from(reference.by.0)).unwrap_or(&self.folder.image);
        let place = resolve(folder_of(by), &reference.name)?;
        let inside = place.strip_prefix(&self.folder.root).map_err(|_| ReferenceFault::Outside)?;
        let mut how = cap_std::fs::OpenOptions::new();
        // Opening a FIFO would wait for a writer.
        how.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let file = self.root.open_with(inside, &how).map_err(|error| match error.kind() {
            // What cap-std says of a path that leads out.
            io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => ReferenceFault::Outside,
            _ => ReferenceFault::Io(error),
        })?;
        let file: File = file.into_std();
        let metadata = file.metadata().map_err(ReferenceFault::Io)?;
        if !metadata.is_file() {
            return Err(ReferenceFault::NotAFile);
        }
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Err(ReferenceFault::Twice);
        }
        let source = FileSource::of(file, &place.to_string_lossy()).map_err(|error| {
            ReferenceFault::Io(error.cause.map_or_else(|| io::ErrorKind::Other.into(), io::Error::other))
        })?;
        self.places.push(place);
        Ok(source)
    }

    /// The id of the file that was opened last.
    pub(crate) fn last(&self) -> FileId {
        FileId(u16::try_from(self.places.len() - 1).unwrap_or(u16::MAX))
    }
}

/// The path that `name` means in a file in `folder`, without `.` and `..`. Whether links on the way change what those mean does
/// not matter: the path is followed beneath the root whatever it says.
fn resolve(folder: &Path, name: &str) -> Result<PathBuf, ReferenceFault> {
    let first = name.split('/').next().unwrap_or_default();
    if name.is_empty() || name.contains('\0') || first.contains(':') {
        return Err(ReferenceFault::Scheme);
    }
    let mut place = PathBuf::new();
    for component in folder.join(name).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                place.pop();
            }
            other => place.push(other),
        }
    }
    Ok(place)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use disk_image::{Format, Role};

    use super::*;

    fn reference(name: &str) -> Reference {
        Reference { by: FileId::IMAGE, name: name.into(), role: Role::BackingFile, format: Format::Raw }
    }

    fn opener(image: &Path, root: Option<&Path>) -> Opener {
        Opener::new(&ReferenceFolder::new(image, root).unwrap()).unwrap()
    }

    #[test]
    fn only_regular_files_beneath_the_folder_are_opened() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir_all(inner.join("deep")).unwrap();
        for name in ["secret", "inner/image", "inner/base", "inner/deep/base"] {
            std::fs::write(outer.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("../secret", inner.join("out")).unwrap();
        std::os::unix::fs::symlink("/dev", inner.join("devices")).unwrap();
        std::os::unix::fs::symlink("base", inner.join("in")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, inner.join("fifo"), rustix::fs::Mode::RUSR).unwrap();
        let image = inner.join("image");
        let open = |name: &str| opener(&image, None).open(&reference(name));

        for name in ["base", "./base", "deep/../base", "deep/base", "in"] {
            assert!(open(name).is_ok(), "{name}");
        }
        let absolute = inner.canonicalize().unwrap().join("base");
        assert!(open(absolute.to_str().unwrap()).is_ok());
        for name in ["../secret", "out", "devices/null", "/etc/passwd", "deep/../../secret"] {
            assert!(matches!(open(name), Err(ReferenceFault::Outside)), "{name}");
        }
        for name in ["json:{\"driver\":\"file\"}", "nbd://host/disk", "file:base", "", "C:\\disk.vhd"] {
            assert!(matches!(open(name), Err(ReferenceFault::Scheme)), "{name}");
        }
        assert!(matches!(open("fifo"), Err(ReferenceFault::NotAFile)));
        assert!(matches!(open("deep"), Err(ReferenceFault::NotAFile)));
        assert!(matches!(open("image"), Err(ReferenceFault::Twice)));
        assert!(matches!(open("nothing"), Err(ReferenceFault::Io(_))));

        let mut wider = opener(&image, Some(outer.path()));
        assert!(wider.open(&reference("../secret")).is_ok());
        assert!(matches!(wider.open(&reference("../secret")), Err(ReferenceFault::Twice)));
    }

    #[test]
    fn names_start_from_the_file_that_has_them() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        for name in ["image", "deep/middle", "deep/base"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let mut opener = opener(&folder.path().join("image"), None);
        opener.open(&reference("deep/middle")).unwrap();
        let by = opener.last();
        assert_eq!(by, FileId(1));
        assert!(opener.open(&Reference { by, ..reference("base") }).is_ok());
    }
}
