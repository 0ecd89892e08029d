//! Raw disks from file to file: content, holes, names, and what remains after an error.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use disk_convert::*;
use disk_image::{Format, ObjectMap, OpenOptions};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

/// A sparse file: bytes that differ everywhere at 0, across a part boundary, and at the end; a stored zero run; holes.
fn make_disk(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("disk.raw");
    let file = fs::File::create(&path).unwrap();
    file.set_len(64 * MIB).unwrap();
    let noise = |seed: u64, len: u64| -> Vec<u8> {
        (0..len).map(|i| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1).collect()
    };
    file.write_all_at(&noise(1, 100_000), 0).unwrap();
    file.write_all_at(&noise(2, 3 * MIB), 5 * MIB - 4096).unwrap();
    file.write_all_at(&vec![0; 8 * MIB as usize], 32 * MIB).unwrap();
    file.write_all_at(&noise(3, 4096), 64 * MIB - 4096).unwrap();
    path
}

async fn open(path: &Path) -> Disk {
    let source = Arc::new(FileSource::open(path).unwrap());
    let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    open_image(source, &raw, &References::Deny, &Options::default(), &CancellationToken::new()).await.unwrap()
}

async fn convert_to(disk: &Disk, out: &Path, options: &Options) -> Result<(), ConvertError> {
    let layout = ObjectMap::raw(disk.image().virtual_size());
    let sink = FileSink::create(out, layout.len())?;
    convert(disk, &layout, sink, options, &CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_content_and_leaves_holes() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let disk = open(&path).await;
    let out = folder.path().join("out.raw");
    let options = Options::default();
    convert_to(&disk, &out, &options).await.unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&out).unwrap());
    let stored = fs::metadata(&out).unwrap().blocks() * 512;
    // Where files share, stored zeroes are shared with the rest: they take no space, but count.
    let shared = options.counters.bytes_shared();
    assert!(stored < 4 * MIB + shared, "{stored} bytes are allocated, {shared} shared");
    // Holes were never read.
    assert!(options.counters.bytes_read() < 13 * MIB, "{}", options.counters.bytes_read());
    assert_eq!(options.counters.done(), options.counters.total());
    assert_eq!(
        compare(&disk, &open(&out).await, &options, &CancellationToken::new()).await.unwrap(),
        Comparison::Same
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn digest_does_not_depend_on_sparseness() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let dense = folder.path().join("dense.raw");
    fs::write(&dense, fs::read(&path).unwrap()).unwrap();
    let (options, cancel) = (Options::default(), CancellationToken::new());
    let sparse = digest(&open(&path).await, &options, &cancel).await.unwrap();
    assert_eq!(sparse, digest(&open(&dense).await, &options, &cancel).await.unwrap());
    assert_eq!(
        sparse,
        digest(&scan(&open(&dense).await, &options, &cancel).await.unwrap(), &options, &cancel)
            .await
            .unwrap()
    );
    // Blocks 0, 1 (the run that begins at 5 MiB - 4096), and 15.
    assert_eq!(sparse.storage_size, 3 * BLOCK_SIZE);

    // The definition, written down a second time.
    use sha2::{Digest, Sha256};
    let content = fs::read(&path).unwrap();
    let mut whole = Sha256::new();
    whole.update((content.len() as u64).to_le_bytes());
    for block in content.chunks(4 << 20) {
        whole.update(Sha256::digest(block));
    }
    assert_eq!(sparse.guest_digest, GuestDigest(whole.finalize().into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn scan_marks_stored_zeroes() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let disk = open(&path).await;
    let (options, cancel) = (Options::default(), CancellationToken::new());
    let scanned = scan(&disk, &options, &cancel).await.unwrap();
    let (before, after) = (disk.image().map().stats(), scanned.image().map().stats());
    assert_eq!(after.zero, 8 * MIB);
    assert_eq!(before.data, after.data + after.zero);
    assert_eq!(compare(&disk, &scanned, &options, &cancel).await.unwrap(), Comparison::Same);
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_finds_the_first_difference() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let other = folder.path().join("other.raw");
    fs::copy(&path, &other).unwrap();
    let file = fs::File::options().write(true).open(&other).unwrap();
    file.write_all_at(&[0], 64 * MIB - 1).unwrap();
    file.write_all_at(&[1], 50 * MIB + 3).unwrap();
    file.write_all_at(&[1], 20 * MIB + 1).unwrap();
    let (options, cancel) = (Options::default(), CancellationToken::new());
    let found = compare(&open(&path).await, &open(&other).await, &options, &cancel).await.unwrap();
    assert_eq!(found, Comparison::DiffersAt(20 * MIB + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_leave_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let disk = open(&path).await;
    // The source shrinks after it was opened.
    fs::File::options().write(true).open(&path).unwrap().set_len(40 * MIB).unwrap();
    let out = folder.path().join("out.raw");
    let failed = convert_to(&disk, &out, &Options::default()).await.unwrap_err();
    assert!(matches!(&failed, ConvertError::Source(e) if e.fault == SourceFault::Shrunk), "{failed:?}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["disk.raw"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let disk = open(&path).await;
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&[9], 17).unwrap();
    let out = folder.path().join("out.raw");
    let failed = convert_to(&disk, &out, &Options::default()).await.unwrap_err();
    assert!(matches!(&failed, ConvertError::Source(e) if e.fault == SourceFault::Changed), "{failed:?}");
    assert!(!out.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_is_not_the_same() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let other = folder.path().join("other.raw");
    fs::copy(&path, &other).unwrap();
    let (options, cancel) = (Options::default(), CancellationToken::new());
    let (first, second) = (open(&path).await, open(&other).await);
    // What was a hole when the disk was opened is not read.
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&[9], 20 * MIB).unwrap();
    for (first, second) in [(&first, &second), (&second, &first)] {
        let failed = compare(first, second, &options, &cancel).await.unwrap_err();
        assert!(matches!(&failed, ConvertError::Source(e) if e.fault == SourceFault::Changed), "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_and_too_small_a_budget() {
    let folder = TempDir::new().unwrap();
    let disk = open(&make_disk(folder.path())).await;
    let out = folder.path().join("out.raw");
    let options = Options { memory: MIB, ..Options::default() };
    let failed = convert_to(&disk, &out, &options).await.unwrap_err();
    let ConvertError::Budget { needed, .. } = failed else { panic!("{failed:?}") };
    convert_to(&disk, &out, &Options { memory: needed, ..Options::default() }).await.unwrap();
    fs::remove_file(&out).unwrap();

    let cancel = CancellationToken::new();
    cancel.cancel();
    let layout = ObjectMap::raw(disk.image().virtual_size());
    let sink = FileSink::create(&out, layout.len()).unwrap();
    let failed = convert(&disk, &layout, sink, &Options::default(), &cancel).await.unwrap_err();
    assert!(matches!(failed, ConvertError::Cancelled));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn only_files_and_devices_are_sources() {
    let folder = TempDir::new().unwrap();
    let fault = |path: &Path| FileSource::open(path).err().map(|error| error.fault);
    assert_eq!(fault(folder.path()), Some(SourceFault::NotAFile));
    assert_eq!(fault(&folder.path().join("none")), Some(SourceFault::NotFound));
    assert_eq!(fault(Path::new("/dev/null")), Some(SourceFault::NotAFile));
}

/// A qcow2 that names a backing file is listed without it, and then nothing is made of it.
#[tokio::test]
async fn what_is_open_for_information_only_is_not_converted() {
    let mut overlay = include_bytes!("../../../testdata/disk.qcow2").to_vec();
    overlay[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 4]);
    overlay[512..516].copy_from_slice(b"base");
    let source = Arc::new(MemorySource::new("overlay", overlay));
    let how = OpenOptions { backing_format: Some(Format::Raw), ..OpenOptions::default() };
    let (options, cancel) = (Options::default(), CancellationToken::new());
    let disk = open_image(source, &how, &References::List, &options, &cancel).await.unwrap();
    assert!(disk.image().is_partial());
    let layout = ObjectMap::raw(disk.image().virtual_size());
    let error = convert(&disk, &layout, MemorySink::default(), &options, &cancel).await.unwrap_err();
    assert!(matches!(error, ConvertError::Partial { .. }), "{error}");
    let error = compare(&disk, &disk, &options, &cancel).await.unwrap_err();
    assert!(matches!(error, ConvertError::Partial { .. }), "{error}");
    let error = digest(&disk, &options, &cancel).await.unwrap_err();
    assert!(matches!(error, ConvertError::Partial { .. }), "{error}");
}

#[test]
fn a_version_is_the_file_and_not_its_name() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let version = || FileSource::open(&path).unwrap().version();
    let first = version();
    assert_eq!(version(), first);
    fs::hard_link(&path, folder.path().join("link")).unwrap();
    assert_eq!(FileSource::open(&folder.path().join("link")).unwrap().version(), first);
    // Another time, another length, another file of the same length and time.
    let file = fs::File::options().write(true).open(&path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.set_modified(time + std::time::Duration::from_nanos(1)).unwrap();
    let second = version();
    file.set_len(65 * MIB).unwrap();
    file.set_modified(time).unwrap();
    let third = version();
    file.set_len(64 * MIB).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(version(), first);
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
    fs::rename(&copy, &path).unwrap();
    for (a, b) in [(&first, &second), (&first, &third), (&second, &third), (&first, &version())] {
        assert_ne!(a, b);
    }
}
