//! A bucket: its objects and uploads, in memory and on disk, always changed together.
//!
//! The index is read by every request and locked only for moments. A change takes `changes` first, for as
//! long as it checks its condition and renames its record, so a condition holds at the instant of the change.
//! All that here touches the disk blocks: call it on the blocking pool.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use s3s::S3Result;

use crate::data::{DataDir, DataFile};
use crate::error::Error;
use crate::errors::{internal, no_such_bucket, no_such_upload};
use crate::folder::{Folder, read_record, record_name, sync_dir};
use crate::records::{BucketRecord, FileId, Object, ObjectRecord, Part, UploadRecord};

/// A bucket that exists, or did when the request began.
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) record: BucketRecord,
    path: PathBuf,
    folder: Arc<Folder>,
    data: Arc<DataDir>,
    objects: RwLock<BTreeMap<Key, Arc<Object>>>,
    uploads: RwLock<HashMap<String, Arc<Upload>>>,
    /// Held while a change is made; says whether the bucket still takes any.
    changes: Mutex<Life>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// Deleted, completed or aborted.
    Over,
}

/// An object key. Looks up by bytes too, so that a listing can start between keys.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Box<str>);

impl Borrow<[u8]> for Key {
    // `str` and `[u8]` agree in equality and order.
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Bucket {
    /// Makes the folder of a new bucket under `path`, where there is none yet.
    pub(crate) fn create(
        folder: &Arc<Folder>,
        path: PathBuf,
        name: String,
        record: BucketRecord,
    ) -> io::Result<Self> {
        let scratch = folder.scratch();
        fs::create_dir(&scratch)?;
        for sub in ["objects", "uploads", "data"] {
            fs::create_dir(scratch.join(sub))?;
        }
        folder.stage(&record)?.publish(&scratch.join("bucket.json"))?;
        sync_dir(&scratch)?;
        fs::rename(&scratch, &path)?;
        sync_dir(&folder.buckets())?;
        Ok(Self::empty(folder, path, name, record))
    }

    fn empty(folder: &Arc<Folder>, path: PathBuf, name: String, record: BucketRecord) -> Self {
        Self {
            data: DataDir::new(path.join("data"), folder.reaper()),
            folder: Arc::clone(folder),
            name,
            record,
            path,
            objects: RwLock::default(),
            uploads: RwLock::default(),
            changes: Mutex::new(Life::Open),
        }
    }

    /// Reads every record of a bucket and removes what no record names.
    pub(crate) fn open(folder: &Arc<Folder>, path: PathBuf, name: String) -> Result<Self, Error> {
        let record = read_record(&path.join("bucket.json"))?;
        let mut bucket = Self::empty(folder, path, name, record);
        let mut objects = BTreeMap::new();
        for path in children(&bucket.objects_dir())? {
            let ObjectRecord { key, object } = read_record::<ObjectRecord<Object<FileId>>>(&path)?;
            let object = object.map_files(|id| DataFile::recorded(&bucket.data, id));
            objects.insert(Key(key.into()), Arc::new(object));
        }
        bucket.objects = RwLock::new(objects);
        let mut uploads = HashMap::new();
        for dir in children(&bucket.path.join("uploads"))? {
            if let Some(upload) = Upload::open(&bucket, dir)? {
                uploads.insert(upload.id.clone(), Arc::new(upload));
            }
        }
        bucket.uploads = RwLock::new(uploads);
        bucket.sweep()?;
        Ok(bucket)
    }

    /// Removes the data files that no record names.
    fn sweep(&self) -> Result<(), Error> {
        let mut named = HashSet::new();
        for object in read(&self.objects).values() {
            named.extend(object.files().map(DataFile::id));
        }
        for upload in read(&self.uploads).values() {
            for part in upload.lock().parts.values() {
                named.extend(part.files().map(DataFile::id));
            }
        }
        for path in children(self.data.path())? {
            let id = path.file_name().and_then(|name| FileId::from_name(name.to_str()?));
            if id.is_none_or(|id| !named.contains(&id)) {
                tracing::debug!(path = %path.display(), "removing a leftover");
                fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
            }
        }
        Ok(())
    }

    /// Takes the bucket out of the folder if it is empty; `false` if it is not.
    pub(crate) fn delete(&self) -> S3Result<bool> {
        let mut life = self.begin()?;
        if !read(&self.objects).is_empty() {
            return Ok(false);
        }
        let scratch = self.folder.scratch();
        fs::rename(&self.path, &scratch).map_err(internal)?;
        *life = Life::Over;
        drop(life);
        sync_dir(&self.folder.buckets()).map_err(internal)?;
        for upload in self.uploads() {
            upload.lock().life = Life::Over;
        }
        if let Err(error) = fs::remove_dir_all(&scratch) {
            tracing::warn!(%error, "cannot remove a deleted bucket; the next start will");
        }
        Ok(true)
    }

    fn objects_dir(&self) -> PathBuf {
        self.path.join("objects")
    }

    pub(crate) fn data(&self) -> &Arc<DataDir> {
        &self.data
    }

    pub(crate) fn object(&self, key: &str) -> Option<Arc<Object>> {
        read(&self.objects).get(key.as_bytes()).cloned()
    }

    /// The first object whose key lies beyond the bound, in the order of bytes.
    pub(crate) fn next_object(&self, after: Bound<&[u8]>) -> Option<(String, Arc<Object>)> {
        let objects = read(&self.objects);
        let (key, object) = objects.range::<[u8], _>((after, Bound::Unbounded)).next()?;
        Some((key.0.to_string(), Arc::clone(object)))
    }

    /// Puts an object in place of what is under the key, if `condition` holds of that.
    pub(crate) fn put(
        &self,
        key: &str,
        object: Object,
        condition: impl FnOnce(Option<&Object>) -> S3Result<()>,
    ) -> S3Result<Arc<Object>> {
        let (dir, name) = (self.objects_dir(), record_name(key));
        let record = ObjectRecord { key: key.to_owned(), object: &object };
        let staged = self.folder.stage(&record).map_err(internal)?;
        let object = Arc::new(object);
        let replaced = {
            let _change = self.begin()?;
            condition(self.object(key).as_deref())?;
            staged.publish(&dir.join(name)).map_err(internal)?;
            object.files().for_each(DataFile::record);
            write(&self.objects).insert(Key(key.into()), Arc::clone(&object))
        };
        self.folder.sync(&dir).map_err(internal)?;
        if let Some(replaced) = replaced {
            // A Complete that is asked for again replaces an object of the very same files.
            forget_all_but(&object, replaced.files());
        }
        Ok(object)
    }

    /// Removes an object, if `condition` holds of it. That there is none is not an error.
    pub(crate) fn remove(
        &self,
        key: &str,
        condition: impl FnOnce(Option<&Object>) -> S3Result<()>,
    ) -> S3Result<()> {
        let (dir, name) = (self.objects_dir(), record_name(key));
        let removed = {
            let _change = self.begin()?;
            let current = self.object(key);
            condition(current.as_deref())?;
            if current.is_none() {
                return Ok(());
            }
            fs::remove_file(dir.join(name)).map_err(internal)?;
            write(&self.objects).remove(key.as_bytes())
        };
        self.folder.sync(&dir).map_err(internal)?;
        if let Some(removed) = removed {
            removed.files().for_each(DataFile::forget);
        }
        Ok(())
    }

    fn begin(&self) -> S3Result<MutexGuard<'_, Life>> {
        let life = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *life == Life::Over { Err(no_such_bucket()) } else { Ok(life) }
    }

    pub(crate) fn uploads(&self) -> Vec<Arc<Upload>> {
        read(&self.uploads).values().cloned().collect()
    }

    /// The upload of this id, if it is of this key.
    pub(crate) fn upload(&self, key: &str, id: &str) -> S3Result<Arc<Upload>> {
        let upload = read(&self.uploads).get(id).filter(|upload| upload.record.key == key).cloned();
        upload.ok_or_else(no_such_upload)
    }

    pub(crate) fn create_upload(&self, record: UploadRecord) -> S3Result<Arc<Upload>> {
        // Ids made later compare greater, which listings need.
        let id = FileId::fresh().to_string();
        let dir = self.path.join("uploads").join(&id);
        let staged = self.folder.stage(&record).map_err(internal)?;
        let upload = Arc::new(Upload { id: id.clone(), record, dir, state: Mutex::default() });
        let _change = self.begin()?;
        fs::create_dir(&upload.dir)
            .and_then(|()| staged.publish(&upload.dir.join(UPLOAD_RECORD)))
            .and_then(|()| sync_dir(&upload.dir))
            .and_then(|()| sync_dir(&self.path.join("uploads")))
            .map_err(internal)?;
        write(&self.uploads).insert(id, Arc::clone(&upload));
        Ok(upload)
    }

    /// Adds a part to an upload, or replaces it.
    pub(crate) fn put_part(&self, upload: &Upload, number: u16, part: Part) -> S3Result<Arc<Part>> {
        let staged = self.folder.stage_part(&part).map_err(internal)?;
        let part = Arc::new(part);
        let replaced = {
            let mut state = upload.lock_open()?;
            staged.publish(&upload.dir.join(part_record(number))).map_err(internal)?;
            part.files().for_each(DataFile::record);
            state.parts.insert(number, Arc::clone(&part))
        };
        if let Some(replaced) = replaced {
            // The record before must not come back when its file is gone. Where the folder is gone, so is the
            // upload.
            match sync_dir(&upload.dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(internal(error)),
                _ => replaced.files().for_each(DataFile::forget),
            }
        }
        Ok(part)
    }

    /// Ends an upload: those of its files that are not in `kept` go. The caller holds the upload's lock.
    pub(crate) fn end_upload(
        &self,
        upload: &Upload,
        state: &mut UploadState,
        kept: Option<&Object>,
    ) -> io::Result<()> {
        state.life = Life::Over;
        write(&self.uploads).remove(&upload.id);
        // Without this record the folder is a leftover, whatever else is in it.
        fs::remove_file(upload.dir.join(UPLOAD_RECORD))?;
        sync_dir(&upload.dir)?;
        for part in std::mem::take(&mut state.parts).into_values() {
            match kept {
                Some(kept) => forget_all_but(kept, part.files()),
                None => part.files().for_each(DataFile::forget),
            }
        }
        fs::remove_dir_all(&upload.dir)
    }
}

/// Forgets those of `files` that `kept` does not name.
fn forget_all_but<'a>(kept: &Object, files: impl Iterator<Item = &'a DataFile>) {
    let kept: HashSet<FileId> = kept.files().map(DataFile::id).collect();
    files.filter(|file| !kept.contains(&file.id())).for_each(DataFile::forget);
}

const UPLOAD_RECORD: &str = "upload.json";

fn part_record(number: u16) -> String {
    format!("{number:05}.json")
}

/// A multipart upload in progress.
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) record: UploadRecord,
    dir: PathBuf,
    state: Mutex<UploadState>,
}

/// The parts so far.
pub(crate) struct UploadState {
    life: Life,
    pub(crate) parts: BTreeMap<u16, Arc<Part>>,
}

impl Default for UploadState {
    fn default() -> Self {
        Self { life: Life::Open, parts: BTreeMap::new() }
    }
}

impl Upload {
    /// Reads an upload's records; `None`, and the folder removed, where the upload was over.
    fn open(bucket: &Bucket, dir: PathBuf) -> Result<Option<Self>, Error> {
        let id = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let path = dir.join(UPLOAD_RECORD);
        let io_error = |action| {
            let path = dir.clone();
            move |source| Error::Io { action, path, source }
        };
        let over = if path.try_exists().map_err(io_error("read"))? {
            let record: UploadRecord = read_record(&path)?;
            // Completed, and killed before the upload could be ended.
            let completed =
                bucket.object(&record.key).is_some_and(|object| object.upload.as_deref() == Some(&*id));
            (!completed).then_some(record)
        } else {
            None
        };
        let Some(record) = over else {
            fs::remove_dir_all(&dir).map_err(io_error("remove"))?;
            return Ok(None);
        };
        let mut parts = BTreeMap::new();
        for path in children(&dir)? {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let Some(number) = stem.and_then(|stem| stem.parse().ok()) else { continue };
            let part: Part<FileId> = match read_record(&path) {
                Ok(part) => part,
                Err(Error::Record { path, source }) => {
                    tracing::warn!(path = %path.display(), %source, "a part was lost; it can be sent again");
                    fs::remove_file(&path).map_err(io_error("remove a part from"))?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            parts.insert(number, Arc::new(part.map_files(|file| DataFile::recorded(&bucket.data, file))));
        }
        let state = Mutex::new(UploadState { life: Life::Open, parts });
        Ok(Some(Self { id, record, dir, state }))
    }

    /// The parts, whether or not the upload is over.
    pub(crate) fn lock(&self) -> MutexGuard<'_, UploadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts, for a change.
    pub(crate) fn lock_open(&self) -> S3Result<MutexGuard<'_, UploadState>> {
        let state = self.lock();
        if state.life == Life::Over { Err(no_such_upload()) } else { Ok(state) }
    }
}

/// What is in a folder.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>();
    list().map_err(|source| Error::Io { action: "list", path: dir.to_owned(), source })
}

// A panic elsewhere leaves these maps whole: each is changed by single insertions and removals.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::{Attributes, Moment, Slice, Tag};

    fn object(file: &DataFile, upload: &str) -> Object {
        let slices = [Slice { file: file.clone(), offset: 0, len: 4 }].into();
        let part = Part { size: 4, md5: [0; 16], digests: [].into(), modified: Moment::now(), slices };
        Object {
            modified: Moment::now(),
            etag: Tag { md5: [0; 16], parts: Some(1) },
            checksum: None,
            attributes: Box::new(Attributes::default()),
            upload: Some(upload.into()),
            parts: [part].into(),
        }
    }

    /// The folder's sync fails after the rename; the client hears of a failure and asks again, as it should.
    #[test]
    fn an_object_that_is_put_twice_keeps_its_data() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        let record = BucketRecord { created: Moment::now() };
        let path = folder.buckets().join("images");
        let bucket = Bucket::create(&folder, path.clone(), "images".into(), record).unwrap();
        let id = FileId::fresh();
        fs::write(bucket.data().path().join(id.to_string()), b"data").unwrap();
        let file = DataFile::recorded(bucket.data(), id);

        folder.fail_next_sync();
        assert!(bucket.put("disk", object(&file, "u"), |_| Ok(())).is_err());
        bucket.put("disk", object(&file, "u"), |_| Ok(())).unwrap();
        drop((bucket, file));
        // Only when the reaper has done its work is the lock given back.
        let released = folder.released();
        drop(folder);
        for _ in 0..1000 {
            if released.is_cancelled() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        let bucket = Bucket::open(&folder, path, "images".into()).unwrap();
        assert!(bucket.object("disk").is_some());
        assert_eq!(fs::read(bucket.data().path().join(id.to_string())).unwrap(), b"data");
    }
}
