//! The whole way: open, plan, fetch, assemble, put; the same bytes as one piece after the other.
#![no_main]

use std::sync::{Arc, LazyLock};

use disk_convert::{MemorySink, MemorySource, Options, References, Workers, convert, open_image};
use disk_image::{ObjectMap, OpenOptions, Span};
use fuzzing::{Files, part};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// Longer disks are opened, and not converted: a bounded time for each input.
const MAX_DISK: u64 = 8 << 20;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().unwrap());
static OPTIONS: LazyLock<Options> = LazyLock::new(|| Options {
    workers: Workers::new(Some(1)).unwrap(),
    max_unpacked: MAX_DISK,
    ..Options::default()
});

fuzz_target!(|input: &[u8]| {
    let cancel = CancellationToken::new();
    let source = Arc::new(MemorySource::new("input", input.to_vec()));
    let how = OpenOptions::default();
    let opened = RUNTIME.block_on(open_image(source, &how, &References::Deny, &OPTIONS, &cancel));
    let Ok(disk) = opened else { return };
    let len = disk.image().virtual_size();
    if len > MAX_DISK {
        return;
    }
    let layout = ObjectMap::raw(len);
    let converted = RUNTIME.block_on(convert(&disk, &layout, MemorySink::default(), &OPTIONS, &cancel));
    // What the input unpacks to, if it is compressed.
    let file = disk.sources().image();
    let file = RUNTIME.block_on(file.read(Span::new(0, file.len()))).unwrap();
    let expected = part(&Files::one(&file), disk.image(), &layout, Span::new(0, len));
    match (converted, expected) {
        (Ok(bytes), Ok(expected)) => assert!(bytes == expected),
        (Err(_), Err(_)) => {}
        (converted, expected) => panic!("{:?} {:?}", converted.map(|_| ()), expected.map(|_| ())),
    }
});
