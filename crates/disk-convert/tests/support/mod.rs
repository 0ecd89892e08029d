//! Disks for the tests of packed outputs.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::Arc;

use bytes::Bytes;
use disk_convert::*;
use disk_image::{Format, OpenOptions, PackedLayout};
use tokio_util::sync::CancellationToken;

pub(crate) fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| byte()).collect()
}

/// Text, noise and zeroes in stretches that fall on no boundary, from a few bytes to more than a large cluster.
pub(crate) fn mixed(len: usize) -> Vec<u8> {
    let mut disk = Vec::with_capacity(len);
    let mut stretch = 37_usize;
    while disk.len() < len {
        stretch = stretch * 7 % 3_000_017 + 11;
        match disk.len() % 5 {
            0 | 1 => disk.extend((0..stretch).map(|i| b"a line of text, and another; "[(i / 2) % 29])),
            2 => disk.extend(noise(stretch as u64 / 2, stretch as u64)),
            3 => disk.resize(disk.len() + stretch, 0),
            _ => disk.resize(disk.len() + stretch / 9, 0xff),
        }
    }
    disk.truncate(len);
    disk
}

pub(crate) async fn open(source: Arc<dyn ByteSource>, format: Option<Format>) -> Disk {
    let how = OpenOptions { format, ..OpenOptions::default() };
    open_image(source, &how, &References::Deny, &Options::default(), &CancellationToken::new()).await.unwrap()
}

pub(crate) async fn raw(bytes: impl Into<Bytes>) -> Disk {
    open(Arc::new(MemorySource::new("raw", bytes)), Some(Format::Raw)).await
}

/// Whether the output holds the disk.
pub(crate) async fn same(a: &Disk, bytes: Vec<u8>, format: Format) -> Comparison {
    let b = open(Arc::new(MemorySource::new("packed", bytes)), Some(format)).await;
    compare(a, &b, &Options::default(), &CancellationToken::new()).await.unwrap()
}

/// The output that `layout` describes, which is no longer than it said.
pub(crate) async fn packed(
    disk: &Disk,
    layout: impl PackedLayout,
    sink: MemorySink,
    options: &Options,
) -> Vec<u8> {
    let most = layout.max_len();
    let made = pack(disk, layout, sink, options, &CancellationToken::new()).await.unwrap();
    assert_eq!(made.len, made.output.len() as u64);
    assert!(made.len <= most, "{} of at most {most} bytes", made.len);
    assert_eq!(options.counters.done(), options.counters.total());
    made.output
}
