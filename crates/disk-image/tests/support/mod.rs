//! What the tests of this crate share: a driver that feeds a parser from memory, a reader of guest bytes, and helpers in the
//! modules below.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

pub mod qemu;
pub mod vmdk;

use bytes::Bytes;
use disk_image::{
    DecodeError, Decoder, Image, ObjectMap, Open, OpenError, OpenOptions, Origin, Plan, Span, State, Stored,
};

/// Opens an image that lies in memory.
pub fn open(file: &[u8]) -> Result<Image, OpenError> {
    open_counted(file, &OpenOptions::default()).map(|(image, _)| image)
}

/// What opening asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub steps: u64,
    pub reads: u64,
    pub bytes: u64,
    /// The most bytes in one step.
    pub largest_step: u64,
}

/// Opens an image that lies in memory, and counts what that takes.
pub fn open_counted(file: &[u8], options: &OpenOptions) -> Result<(Image, Asked), OpenError> {
    let mut asked = Asked::default();
    let mut step = disk_image::open(file.len() as u64, options)?;
    loop {
        match step {
            Open::Ready(image) => return Ok((image, asked)),
            Open::Need(need) => {
                let answers: Vec<Bytes> =
                    need.wants().iter().map(|want| Bytes::copy_from_slice(stored(file, *want))).collect();
                let bytes = answers.iter().map(|answer| answer.len() as u64).sum();
                asked.steps += 1;
                asked.reads += answers.len() as u64;
                asked.bytes += bytes;
                asked.largest_step = asked.largest_step.max(bytes);
                step = need.resume(answers)?;
            }
        }
    }
}

/// Guest bytes, by map, plan and decoder.
pub fn read(image: &Image, file: &[u8], guest: Span) -> Result<Vec<u8>, DecodeError> {
    let layout = ObjectMap::raw(image.virtual_size());
    let plan = Plan::new(image.map(), &layout, guest);
    let mut decoder = Decoder::default();
    let mut out = vec![0; guest.len as usize];
    for piece in &plan.pieces {
        let into = &mut out[piece.at as usize..(piece.at + piece.len) as usize];
        match &piece.origin {
            Origin::Literal(bytes) => into.copy_from_slice(bytes),
            Origin::Stored(run) => into.copy_from_slice(stored(file, *run)),
            Origin::Encoded(unit, skip) => {
                let mut whole = vec![0; unit.guest.len as usize];
                decoder.decode(unit, stored(file, unit.stored), &mut whole)?;
                into.copy_from_slice(&whole[*skip as usize..][..piece.len as usize]);
            }
        }
    }
    Ok(out)
}

/// All guest bytes, in parts that cut encoded units anywhere.
pub fn read_all(image: &Image, file: &[u8]) -> Result<Vec<u8>, DecodeError> {
    const PART: u64 = (1 << 20) + 4096;
    let mut out = Vec::new();
    while (out.len() as u64) < image.virtual_size() {
        let start = out.len() as u64;
        let end = image.virtual_size().min(start + PART);
        out.extend(read(image, file, Span::between(start, end))?);
    }
    Ok(out)
}

/// Opens an image and reads what is stored in it, up to some MiB: for inputs that may be anything, where only a panic is wrong.
pub fn exercise(file: &[u8], options: &OpenOptions) -> Result<(), OpenError> {
    let (image, _) = open_counted(file, options)?;
    let stored = image.map().iter().take(10_000).filter(|extent| extent.state.is_stored());
    for extent in stored.take(64) {
        let len = extent.guest.len.min(128 << 10);
        let _ = read(&image, file, Span::new(extent.guest.start, len));
    }
    assert_gapless(&image);
    Ok(())
}

/// Checks the map's own promises: ascending, gapless, and every stored run inside the file.
pub fn assert_gapless(image: &Image) {
    let mut at = 0;
    for extent in image.map().iter().take(1_000_000) {
        assert_eq!(extent.guest.start, at);
        assert!(!extent.guest.is_empty());
        if let State::Data(stored) = extent.state {
            assert_eq!(stored.span.len, extent.guest.len);
        }
        at = extent.guest.end();
    }
}

/// The bytes of a run, which must lie inside the file.
fn stored(file: &[u8], run: Stored) -> &[u8] {
    let Span { start, len } = run.span;
    file.get(start as usize..run.span.end() as usize)
        .unwrap_or_else(|| panic!("asked for {len} bytes at {start:#x} of a file of {:#x}", file.len()))
}

/// A fixed sequence of numbers (xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 56) as u8).collect()
    }
}
