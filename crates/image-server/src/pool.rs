//! Copies of the Images that are `pooled`: sparse raw files in a folder, of which a disk is made by a reflink or a plain copy,
//! without the store of blocks.
//!
//! A copy is made as a part of the creation, behind the last block and before READY: from the blocks, each compared with its id
//! again, under a temporary name, synced, renamed to `IMAGE-ID.raw` (`disk_convert::FileSink`). Room for it is taken before the
//! first byte of the source is read, for the most that the Image can come to; the quota counts what files take on disk, and what is
//! being copied as it was reserved. Cost: one read of what was stored.
//!
//! A pool belongs to one server, which has a lock on the folder. The copy of an Image is in the pool of the server that made it: of
//! several servers on one catalog all have a pool, or what `pooled` asks for is refused by those that have none. Limit: where a
//! server died between a copy and READY and another one made the Image, the first copy stays, and counts, until the Image is deleted. Which copies
//! are needed the catalog says, to each server for its own folder: after a deletion on this one, and once a minute for all
//! others ([`PoolFolder::sweep`]); and whose folder it is, a file in it says, as a sweep by another catalog would find that nobody
//! needs anything.
//!
//! What a crash leaves is a temporary file, which the next start removes, or a copy that the
//! repeated creation replaces.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use disk_convert::{
    ByteSource, ConvertError, FileSink, FileSource, GuestDigest, Options, References, Workers, convert,
    open_image,
};
use disk_image::{Format, ObjectMap, OpenOptions};
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use crate::{
    ServerError,
    catalog::{Catalog, CatalogError},
    server::{self, DirLock},
};

/// What the name of a copy ends with, behind the identifier of its Image.
const SUFFIX: &str = ".raw";
/// The file that says which catalog's the folder is.
const OWNER: &str = "owner";
/// That file until it is whole; named as a sink names what is not finished, so that the next start removes it.
const NEW_OWNER: &str = ".image-prep-owner.part";
/// Who may read a copy: the folder may be one that others look into.
const COPY_MODE: u32 = 0o600;
/// Bytes of what `st_blocks` counts, whatever the file system's blocks are.
const STAT_BLOCK: u64 = 512;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// This server has none.
    #[error("pooled: this server keeps no pool of disks, its quota is 0")]
    None,
    /// Others fill it.
    #[error(
        "pooled: the pool stores {used} bytes and its quota is {quota}: there is no room for {needed} more"
    )]
    Full { used: u64, needed: u64, quota: u64 },
    /// The folder cannot be used.
    #[error("the pool cannot be {action}")]
    Folder { action: &'static str, source: io::Error },
    /// It has copies, and does not say that they are this catalog's.
    #[error("the pool is not this catalog's any more")]
    Foreign,
    /// The copy could not be made.
    #[error("the copy for the pool cannot be made")]
    Copy { source: ConvertError },
    /// The catalog does not say which copies are needed.
    #[error(transparent)]
    Catalog(CatalogError),
}

/// A copy that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskCopy {
    pub(crate) image_id: String,
    pub(crate) path: PathBuf,
    /// What the guest would see.
    pub(crate) len: u64,
    /// What it takes on disk.
    pub(crate) allocated: u64,
}

/// Whose a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Nobodys,
    Anothers,
}

/// The folder, for whoever looks at it or tidies it up.
#[derive(Clone, Debug)]
pub(crate) struct PoolFolder {
    dir: PathBuf,
    /// The identity of the catalog whose images these are.
    owner: String,
}

impl PoolFolder {
    /// The folder as it is, if it is this catalog's, or nobody's and without copies.
    pub(crate) fn open(dir: &Path, owner: &str) -> Result<Self, ServerError> {
        let folder = Self { dir: dir.to_owned(), owner: owner.to_owned() };
        let is_usable = match folder.whose().map_err(ServerError::io("read", dir))? {
            Whose::Ours => true,
            Whose::Nobodys => folder.copies().map_err(ServerError::io("read", dir))?.is_empty(),
            Whose::Anothers => false,
        };
        if is_usable { Ok(folder) } else { Err(ServerError::ForeignPool { dir: dir.to_owned() }) }
    }

    fn whose(&self) -> io::Result<Whose> {
        match fs::read(self.dir.join(OWNER)) {
            Ok(found) if found == self.owner.as_bytes() => Ok(Whose::Ours),
            Ok(_) => Ok(Whose::Anothers),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Whose::Nobodys),
            Err(error) => Err(error),
        }
    }

    /// Says durably whose it is, before there is a copy. Only for who has the lock.
    fn take(&self) -> io::Result<()> {
        let unfinished = self.dir.join(NEW_OWNER);
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(self.owner.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, self.dir.join(OWNER))?;
        fs::File::open(&self.dir)?.sync_all()
    }

    fn path(&self, image_id: &str) -> PathBuf {
        self.dir.join(format!("{image_id}{SUFFIX}"))
    }

    /// All copies, by their images.
    pub(crate) fn copies(&self) -> io::Result<Vec<DiskCopy>> {
        let mut copies = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(image_id) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
            let metadata = match entry.metadata() {
                // Removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            // No copy of ours, and nothing that could be removed as one.
            if !metadata.is_file() {
                continue;
            }
            let (len, allocated) = (metadata.len(), metadata.blocks() * STAT_BLOCK);
            copies.push(DiskCopy { image_id: image_id.to_owned(), path: entry.path(), len, allocated });
        }
        copies.sort_by(|one, other| one.image_id.cmp(&other.image_id));
        Ok(copies)
    }

    /// Copies that no image needs.
    pub(crate) async fn strays(&self, catalog: &Catalog) -> Result<Vec<DiskCopy>, PoolError> {
        // First the files: a copy that comes later is not looked at. A copy is there only behind its owner's name.
        let mut copies = self.copies().map_err(unreadable)?;
        if !copies.is_empty() && self.whose().map_err(unreadable)? != Whose::Ours {
            return Err(PoolError::Foreign);
        }
        let ids: Vec<String> = copies.iter().map(|copy| copy.image_id.clone()).collect();
        let needed: HashSet<String> = catalog.with_content(ids).await.map_err(PoolError::Catalog)?;
        copies.retain(|copy| !needed.contains(&copy.image_id));
        Ok(copies)
    }

    /// Removes the copies that no image needs. After an error all are removed that can be.
    pub(crate) async fn sweep(&self, catalog: &Catalog) -> Result<(), PoolError> {
        remove(&self.strays(catalog).await?)
    }
}

/// A folder that cannot be read.
pub(crate) fn unreadable(source: io::Error) -> PoolError {
    PoolError::Folder { action: "read", source }
}

fn remove(copies: &[DiskCopy]) -> Result<(), PoolError> {
    let mut failed = None;
    for copy in copies {
        match fs::remove_file(&copy.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                failed.get_or_insert(PoolError::Folder { action: "tidied up", source: error });
            }
            _ => info!(image_id = %copy.image_id, bytes = copy.allocated, "copy removed from the pool"),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Of which image a copy is being made, and the most that it can come to.
struct Room {
    image_id: String,
    bytes: u64,
}

/// The pool of a server.
pub(crate) struct Pool {
    pub(crate) folder: PoolFolder,
    /// Bytes on disk.
    quota: u64,
    /// Copies that are being made, by their attempts: two of one image may overlap, where one has not noticed yet that it lost its lease.
    reserved: Mutex<HashMap<Uuid, Room>>,
}

impl Pool {
    /// Takes the folder for the catalog `owner`, which is made where it is missing, and removes what was not finished. The lock ends
    /// with the server, which may be before the last task has let go of the pool.
    pub(crate) fn open(dir: &Path, quota: u64, owner: &str) -> Result<(Self, DirLock), ServerError> {
        let lock = server::make_dir(dir)?;
        let folder = PoolFolder::open(dir, owner)?;
        let unfinished = || -> io::Result<()> {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if FileSink::is_unfinished(&entry.file_name()) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        unfinished().map_err(ServerError::io("tidy up", dir))?;
        folder.take().map_err(ServerError::io("write `owner` in", dir))?;
        Ok((Self { folder, quota, reserved: Mutex::default() }, lock))
    }

    fn reserved(&self) -> MutexGuard<'_, HashMap<Uuid, Room>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a copy of at most so many bytes, as long as what is given lives. An earlier one of the same image counts no more.
    pub(crate) fn reserve(self: &Arc<Self>, image_id: &str, needed: u64) -> Result<Reserved, PoolError> {
        let mut reserved = self.reserved();
        let copies = self.folder.copies().map_err(unreadable)?;
        let making: HashSet<&str> = reserved.values().map(|room| room.image_id.as_str()).collect();
        let there = copies.iter().filter(|copy| !making.contains(copy.image_id.as_str()));
        let there = there.filter(|copy| copy.image_id != image_id).map(|copy| copy.allocated);
        let others = reserved.values().filter(|room| room.image_id != image_id).map(|room| room.bytes);
        let used = there.chain(others).fold(0, u64::saturating_add);
        if used.saturating_add(needed) > self.quota {
            return Err(PoolError::Full { used, needed, quota: self.quota });
        }
        let attempt = Uuid::new_v4();
        reserved.insert(attempt, Room { image_id: image_id.to_owned(), bytes: needed });
        Ok(Reserved { pool: Arc::clone(self), attempt, image_id: image_id.to_owned() })
    }
}

/// The guest digest of a copy.
pub(crate) async fn digest(
    copy: &DiskCopy,
    workers: &Workers,
    cancel: &CancellationToken,
) -> Result<GuestDigest, ConvertError> {
    let options = Options { workers: workers.clone(), ..Options::default() };
    let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    let file = Arc::new(FileSource::open_as(&copy.path, &copy.image_id)?);
    let disk = open_image(file, &raw, &References::Deny, &options, cancel).await?;
    Ok(disk_convert::digest(&disk, &options, cancel).await?.guest_digest)
}

/// Room for a copy.
pub(crate) struct Reserved {
    pool: Arc<Pool>,
    attempt: Uuid,
    image_id: String,
}

impl Reserved {
    /// Fills it with this raw disk. After an error there is no copy, or the one that there was.
    pub(crate) async fn fill(
        self,
        disk: Arc<dyn ByteSource>,
        options: &Options,
        cancel: &CancellationToken,
    ) -> Result<(), PoolError> {
        let copied = async {
            let len = disk.len();
            let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
            let disk = open_image(disk, &raw, &References::Deny, options, cancel).await?;
            let sink = FileSink::create_with(&self.pool.folder.path(&self.image_id), len, COPY_MODE)?;
            convert(&disk, &ObjectMap::raw(len), sink, options, cancel).await
        };
        copied.await.map_err(|source: ConvertError| PoolError::Copy { source })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.pool.reserved().remove(&self.attempt);
    }
}

#[cfg(test)]
mod tests {
    use disk_convert::MemorySource;

    use super::*;

    async fn fill(pool: &Arc<Pool>, id: &str, content: Vec<u8>) -> Result<(), PoolError> {
        let reserved = pool.reserve(id, content.len() as u64)?;
        let source = Arc::new(MemorySource::new(id, content));
        reserved.fill(source, &Options::default(), &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn copies_within_the_quota() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".image-prep-x.part"), b"of a server that died").unwrap();
        let (pool, _lock) = Pool::open(dir.path(), 3 << 20, "catalog").unwrap();
        let pool = Arc::new(pool);
        assert_eq!(pool.folder.copies().unwrap(), []);
        assert!(!dir.path().join(".image-prep-x.part").exists());
        assert!(
            matches!(Pool::open(dir.path(), 0, "catalog"), Err(ServerError::Locked { .. })),
            "one server"
        );

        let mut content = vec![0; 2 << 20];
        content[..1 << 20].fill(7);
        fill(&pool, "a", content.clone()).await.unwrap();
        let copies = pool.folder.copies().unwrap();
        assert_eq!((copies.len(), copies[0].len, fs::read(&copies[0].path).unwrap()), (1, 2 << 20, content));
        assert_eq!(fs::metadata(&copies[0].path).unwrap().mode() & 0o777, 0o600);
        assert!(copies[0].allocated < 2 << 20, "holes stay holes: {}", copies[0].allocated);

        // What is being copied counts as it was reserved.
        let first = pool.reserve("b", 1 << 20).unwrap();
        let full = pool.reserve("c", (1 << 20) + 1).err().unwrap();
        assert!(
            matches!(full, PoolError::Full { needed, quota, .. } if (needed, quota) == ((1 << 20) + 1, 3 << 20))
        );
        drop(first);
        drop(pool.reserve("c", (1 << 20) + 1).unwrap());
        // The same image once more takes the place of its own, and an attempt that ends late takes none from the next one.
        let late = pool.reserve("a", 3 << 20).unwrap();
        let next = pool.reserve("a", 3 << 20).unwrap();
        drop(late);
        assert!(matches!(pool.reserve("b", 1 << 20), Err(PoolError::Full { used, .. }) if used == 3 << 20));
        drop(next);
        pool.reserve("b", 1 << 20).unwrap();
    }

    #[test]
    fn a_folder_is_one_catalogs() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = |opened: Result<_, ServerError>| {
            assert!(matches!(opened, Err(ServerError::ForeignPool { dir: named }) if named == dir.path()));
        };
        // Disks of which nobody says whose they are.
        fs::write(dir.path().join("mine.raw"), b"x").unwrap();
        foreign(Pool::open(dir.path(), 0, "catalog").map(drop));
        foreign(PoolFolder::open(dir.path(), "catalog").map(drop));
        fs::remove_file(dir.path().join("mine.raw")).unwrap();
        // Who only looks takes nothing.
        PoolFolder::open(dir.path(), "other").unwrap();
        drop(Pool::open(dir.path(), 0, "catalog").unwrap());
        fs::write(dir.path().join("a.raw"), b"x").unwrap();
        fs::write(dir.path().join(".image-prep-x.part"), b"x").unwrap();
        foreign(Pool::open(dir.path(), 0, "other").map(drop));
        foreign(PoolFolder::open(dir.path(), "other").map(drop));
        assert!(dir.path().join(".image-prep-x.part").exists(), "nothing is removed that is another's");
        let (pool, _lock) = Pool::open(dir.path(), 0, "catalog").unwrap();
        assert_eq!(pool.folder.copies().unwrap().len(), 1);
    }

    #[test]
    fn one_that_stays_keeps_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (pool, _lock) = Pool::open(dir.path(), 0, "catalog").unwrap();
        for id in ["a", "b", "c"] {
            fs::write(pool.folder.path(id), b"x").unwrap();
        }
        let copies = pool.folder.copies().unwrap();
        // Two that cannot be removed, however privileged we are.
        for id in ["a", "b"] {
            fs::remove_file(pool.folder.path(id)).unwrap();
            fs::create_dir(pool.folder.path(id)).unwrap();
        }
        assert_eq!(copies.len(), 3);
        assert!(matches!(remove(&copies), Err(PoolError::Folder { action: "tidied up", .. })));
        assert!(!pool.folder.path("c").exists());
        assert_eq!(pool.folder.copies().unwrap(), [], "folders are no copies");
    }

    #[tokio::test]
    async fn a_copy_that_is_cancelled_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (pool, _lock) = Pool::open(dir.path(), 8 << 20, "catalog").unwrap();
        let pool = Arc::new(pool);
        let cancel = CancellationToken::new();
        cancel.cancel();
        let source = Arc::new(MemorySource::new("a", vec![1; 4 << 20]));
        let reserved = pool.reserve("a", 4 << 20).unwrap();
        let error = reserved.fill(source, &Options::default(), &cancel).await.unwrap_err();
        assert!(matches!(error, PoolError::Copy { source: ConvertError::Cancelled }), "{error:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "lock and owner");
        assert!(pool.reserved().is_empty());
    }
}
