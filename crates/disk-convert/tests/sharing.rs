//! Outputs that share what their source stores: on a file system that can, and with a sink that takes as much as it likes.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use disk_convert::*;
use disk_image::{Format, ObjectMap, Span, qcow2};
use support::{noise, open};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;
const DISK: u64 = 32 * MIB;

/// Two runs: one of whole blocks, and one that begins and ends inside of one.
const RUNS: [Span; 2] = [Span::new(3 * MIB, 9 * MIB), Span::new(20 * MIB + 100, 5 * MIB + 1000)];

fn make_disk(folder: &Path) -> PathBuf {
    let path = folder.join("disk.raw");
    let file = File::create(&path).unwrap();
    file.set_len(DISK).unwrap();
    for run in RUNS {
        file.write_all_at(&noise(run.len, run.start + 1), run.start).unwrap();
    }
    path
}

/// Takes into memory of what could be shared at most so many bytes a run, and refuses some runs.
struct Greedy {
    bytes: Arc<Mutex<Vec<u8>>>,
    most: u64,
    put: Arc<Mutex<u64>>,
}

#[async_trait]
impl Sink for Greedy {
    type Output = ();

    fn rules(&self) -> PartRules {
        PartRules { size: PartSize::AtLeast(1 << 20), zeroes: Zeroes::SkipRuns, in_flight: 2 }
    }

    async fn put(&self, part: Part) -> Result<(), SinkError> {
        unreachable!("{part:?}: runs are put")
    }

    fn blocking(&self) -> Option<&dyn PutNow> {
        Some(self)
    }

    async fn finish(&self, _len: u64) -> Result<(), SinkError> {
        Ok(())
    }

    async fn abort(&self) {}
}

impl PutNow for Greedy {
    fn put_now(&self, part: &FilledPart<'_>) -> Result<u64, SinkError> {
        for run in part.runs {
            let (from, to) = (usize::try_from(run.start).unwrap(), usize::try_from(run.end()).unwrap());
            let at = usize::try_from(part.offset).unwrap();
            self.bytes.lock().unwrap()[at + from..at + to].copy_from_slice(&part.bytes[from..to]);
            *self.put.lock().unwrap() += run.len;
        }
        Ok(0)
    }

    fn share(&self, file: &File, span: Span, offset: u64) -> u64 {
        assert!(span.start.is_multiple_of(4096) && span.len.is_multiple_of(4096), "{span:?}");
        assert!(offset.is_multiple_of(4096) && span.len >= 64 << 10, "{offset} {span:?}");
        let taken = usize::try_from(span.len.min(self.most)).unwrap();
        let at = usize::try_from(offset).unwrap();
        file.read_exact_at(&mut self.bytes.lock().unwrap()[at..at + taken], span.start).unwrap();
        taken as u64
    }
}

#[tokio::test]
async fn what_a_sink_takes_is_not_put_and_what_it_leaves_is() {
    let folder = TempDir::new().unwrap();
    let path = make_disk(folder.path());
    let disk = open(Arc::new(FileSource::open(&path).unwrap()), Some(Format::Raw)).await;
    let expected = fs::read(&path).unwrap();
    for most in [0, 4096, 100_000, u64::MAX] {
        let bytes = Arc::new(Mutex::new(vec![0; expected.len()]));
        let put = Arc::new(Mutex::new(0));
        let sink = Greedy { bytes: bytes.clone(), most, put: put.clone() };
        let (layout, options) = (ObjectMap::raw(DISK), Options::default());
        convert(&disk, &layout, sink, &options, &CancellationToken::new()).await.unwrap();
        assert!(*bytes.lock().unwrap() == expected, "sharing {most} a run");
        let (shared, put) = (options.counters.bytes_shared(), *put.lock().unwrap());
        assert_eq!(options.counters.bytes_read(), put, "sharing {most} a run");
        assert_eq!(options.counters.total(), shared + put, "sharing {most} a run");
        assert_eq!(options.counters.done(), options.counters.total());
        assert_eq!(shared > 0, most > 0);
    }
}

/// An XFS of its own, mounted until it is dropped.
struct Xfs {
    folder: TempDir,
}

impl Xfs {
    /// # Errors
    ///
    /// Why there is none: it takes root, a loop device, and mkfs.xfs.
    fn mount() -> Result<Self, String> {
        let folder = TempDir::new().unwrap();
        let image = folder.path().join("image");
        // XFS wants 300 MiB; nearly all of it stays a hole.
        File::create(&image).unwrap().set_len(320 * MIB).unwrap();
        let (xfs, place) = (Self { folder }, "xfs");
        fs::create_dir(xfs.folder.path().join(place)).unwrap();
        for words in ["mkfs.xfs -q image", "mount -o loop image xfs"] {
            let mut words = words.split(' ');
            let mut command = Command::new(words.next().unwrap());
            let done = command.args(words).current_dir(&xfs.folder).stdin(Stdio::null()).output();
            let done = done.map_err(|error| format!("{command:?}: {error}"))?;
            if !done.status.success() {
                return Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)));
            }
        }
        Ok(xfs)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("xfs")
    }

    /// Bytes that all files together take.
    fn used(&self) -> u64 {
        let there = rustix::fs::statvfs(self.path()).unwrap();
        (there.f_blocks - there.f_bfree) * there.f_frsize
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).stderr(Stdio::null()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_xfs_a_conversion_takes_no_space_and_reads_next_to_nothing() {
    let xfs = match Xfs::mount() {
        Ok(xfs) => xfs,
        Err(why) => {
            eprintln!("NOT TESTED: sharing on XFS, because there is none here: {why}");
            return;
        }
    };
    let path = make_disk(&xfs.path());
    File::open(&path).unwrap().sync_all().unwrap();
    let disk = open(Arc::new(FileSource::open(&path).unwrap()), Some(Format::Raw)).await;
    let how = qcow2::LayoutOptions { cluster_size: 64 << 10 };
    let packed = qcow2::Layout::new(disk.image().map(), &how).unwrap();
    for (layout, format) in [(ObjectMap::raw(DISK), Format::Raw), (ObjectMap::qcow2(packed), Format::Qcow2)] {
        let out = xfs.path().join("out");
        let before = xfs.used();
        let options = Options::default();
        let sink = FileSink::create(&out, layout.len()).unwrap();
        convert(&disk, &layout, sink, &options, &CancellationToken::new()).await.unwrap();
        let counters = &options.counters;
        assert!(counters.bytes_read() < MIB, "{} of {} read", counters.bytes_read(), counters.total());
        assert!(counters.bytes_shared() > 13 * MIB, "{} shared", counters.bytes_shared());
        let taken = xfs.used() - before;
        assert!(taken < 2 * MIB, "{taken} bytes of the disk");
        let made = open(Arc::new(FileSource::open(&out).unwrap()), Some(format)).await;
        let same = compare(&disk, &made, &options, &CancellationToken::new()).await.unwrap();
        assert_eq!(same, Comparison::Same);
        fs::remove_file(&out).unwrap();
    }
}
