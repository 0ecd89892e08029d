//! Grains in guest order, checked, into an extent map.
//!
//! What is uncertain is how long a compressed grain is: only its marker says, and markers lie among the data. So a grain is held
//! back until the next one's start bounds it. Without such a bound it may take [`MAX_ENCODED_GRAINS`] grains.

use super::SECTOR;
use super::header::Valid;
use crate::limits::MAX_MAP_MEMORY;
use crate::span::Window;
use crate::{Encoding, ExtentMap, ExtentMapBuilder, Item, OpenError, Span, State};

/// Bytes of a grain marker: sector number (8), length of the stream (4).
pub(super) const MARKER_LEN: u64 = 12;

/// How long a compressed grain and its marker may be, in grains. The worst stream that zlib makes with any setting is 9/8 of its
/// input and a few bytes; QEMU reads two grains, so no writer that was tried against it needs more.
const MAX_ENCODED_GRAINS: u64 = 2;

pub(super) struct Mapper {
    disk: Valid,
    file: Window,
    map: ExtentMapBuilder,
    /// Guest bytes pushed, held back ones included.
    guest: u64,
    /// A compressed grain whose stored length is not known yet.
    held: Option<Held>,
    /// The compressed grain with the highest start.
    last: Option<Placed>,
    claimed: Claimed,
    /// Compressed grains so far.
    streams: u64,
}

/// A compressed grain, and the run without data that follows it.
#[derive(Clone, Copy)]
struct Held {
    start: u64,
    guest_len: u64,
    gap: Option<(u64, State)>,
}

/// A compressed grain and the table entry that points to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) start: u64,
    pub(super) guest: u64,
    pub(super) entry: Item,
}

impl Mapper {
    pub(super) fn new(disk: Valid, file: Window) -> Self {
        Self {
            disk,
            file,
            map: ExtentMapBuilder::new(),
            guest: 0,
            held: None,
            last: None,
            claimed: Claimed::default(),
            streams: 0,
        }
    }

    /// Guest bytes that are still to be pushed.
    pub(super) fn remaining(&self) -> u64 {
        self.disk.virtual_size.saturating_sub(self.guest)
    }

    /// Appends up to `len` guest bytes without data; what lies past the end of the disk is left out.
    pub(super) fn gap(&mut self, len: u64, state: State) {
        let len = len.min(self.remaining());
        self.guest = self.guest.saturating_add(len);
        match self.held.take() {
            None => self.map.push(len, state),
            Some(held) => match held.gap {
                None => self.held = Some(Held { gap: Some((len, state)), ..held }),
                Some((before, same)) if same == state => {
                    let gap = Some((before.saturating_add(len), state));
                    self.held = Some(Held { gap, ..held });
                }
                // Holes and zeroes by turns: not worth remembering for a tighter bound.
                Some(_) => {
                    self.release(held, None);
                    self.map.push(len, state);
                }
            },
        }
    }

    /// Appends the grain that `entry` says is stored at `sector`.
    pub(super) fn grain(&mut self, sector: u32, entry: Item) -> Result<(), OpenError> {
        let start = u64::from(sector).saturating_mul(SECTOR);
        let field = |expected| OpenError::Field { what: entry, found: u64::from(sector), expected };
        if start < self.disk.first_grain {
            return Err(field("0 or a sector past the metadata"));
        }
        let guest_len = self.disk.grain_len.min(self.remaining());
        let at_least = if self.disk.compressed { MARKER_LEN } else { guest_len };
        let span = Span::new(start, at_least);
        if span.end() > self.file.len {
            return Err(OpenError::Truncated { what: entry, span, file_len: self.file.len });
        }
        if self.disk.compressed {
            self.stream(start, guest_len, entry)?;
        } else {
            if !self.claimed.claim(start.checked_div(self.disk.grain_len).unwrap_or(0)) {
                return Err(field("a grain that no other entry points to"));
            }
            self.map.push(guest_len, State::Data(self.file.at(start, guest_len)));
        }
        self.guest = self.guest.saturating_add(guest_len);
        Ok(())
    }

    fn stream(&mut self, start: u64, guest_len: u64, entry: Item) -> Result<(), OpenError> {
        // That no two entries share a stream is seen by its marker when it is decoded; here only their number is bounded.
        self.streams = self.streams.saturating_add(1);
        if self.streams > self.file.len.div_ceil(SECTOR) {
            return Err(OpenError::Shared { what: Item::The("VMDK grains"), file_len: self.file.len });
        }
        if let Some(held) = self.held.take() {
            self.release(held, Some(start));
        }
        self.held = Some(Held { start, guest_len, gap: None });
        if self.last.is_none_or(|last| last.start < start) {
            self.last = Some(Placed { start, guest: self.guest, entry });
        }
        Ok(())
    }

    /// Pushes the grain that was held back; `next` is where the next grain in guest order starts.
    fn release(&mut self, held: Held, next: Option<u64>) {
        let most = self.disk.grain_len.saturating_mul(MAX_ENCODED_GRAINS);
        let to_next = next.and_then(|next| next.checked_sub(held.start)).filter(|&len| len > 0);
        let len = most.min(to_next.unwrap_or(most)).min(self.file.len.saturating_sub(held.start));
        let state = State::Encoded {
            stored: self.file.at(held.start, len),
            encoding: Encoding::Grain,
            unit_len: self.disk.grain_len,
            skip: 0,
        };
        self.map.push(held.guest_len, state);
        if let Some((len, state)) = held.gap {
            self.map.push(len, state);
        }
    }

    pub(super) fn check_memory(&self) -> Result<(), OpenError> {
        let found = self.map.memory().saturating_add(self.claimed.memory());
        if found > MAX_MAP_MEMORY {
            return Err(OpenError::Limit {
                what: Item::The("memory of the extent map"),
                found: found as u64,
                limit: MAX_MAP_MEMORY as u64,
            });
        }
        Ok(())
    }

    /// The map, and the compressed grain with the highest start.
    pub(super) fn finish(mut self) -> (ExtentMap, Option<Placed>) {
        if let Some(held) = self.held.take() {
            self.release(held, None);
        }
        (self.map.finish(self.disk.virtual_size), self.last)
    }
}

/// Which grain-sized slots of the file hold the start of a grain: two grains that start in one slot overlap.
#[derive(Default)]
struct Claimed {
    bits: Vec<u64>,
}

impl Claimed {
    /// Marks a slot, which lies inside the file. False if it was marked before.
    fn claim(&mut self, slot: u64) -> bool {
        let word = usize::try_from(slot / 64).unwrap_or(usize::MAX);
        if word >= self.bits.len() {
            self.bits.resize(word.saturating_add(1), 0);
        }
        let bit = 1 << (slot % 64);
        match self.bits.get_mut(word) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                true
            }
            _ => false,
        }
    }

    fn memory(&self) -> usize {
        size_of_val(self.bits.as_slice())
    }
}
