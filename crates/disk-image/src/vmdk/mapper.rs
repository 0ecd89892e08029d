//! Grains in guest order, checked, into an extent map.
//!
//! What is uncertain is how long a compressed grain is: only its marker says, and markers lie among the data. So a grain is held
//! back until the next one's start bounds it. Without such a bound it may take [`MAX_ENCODED_GRAINS`] grains.
//!
//! Whatever lies in the file is claimed once: headers, descriptor, directory, tables, and grains; of a compressed grain the sector of
//! its marker, which is what tells it from others.

use super::SECTOR;
use super::shape::Shape;
use crate::claims::Claims;
use crate::map::check_memory;
use crate::span::Window;
use crate::{Encoding, ExtentMap, ExtentMapBuilder, Item, OpenError, Span, State};

/// Bytes of a grain marker: sector number (8), length of the stream (4).
pub(super) const MARKER_LEN: u64 = 12;

/// How long a compressed grain and its marker may be, in grains. The worst stream that zlib makes with any setting is 9/8 of its
/// input and a few bytes; QEMU reads two grains, so no writer that was tried against it needs more.
pub(super) const MAX_ENCODED_GRAINS: u64 = 2;

pub(super) struct Mapper {
    shape: Shape,
    file: Window,
    /// The guest bytes of the whole disk that lie in this file.
    extent: Span,
    map: ExtentMapBuilder,
    /// Guest bytes of this file pushed, held back ones included.
    guest: u64,
    /// A compressed grain whose stored length is not known yet.
    held: Option<Held>,
    /// The compressed grain with the highest start.
    last: Option<Placed>,
    claims: Claims,
    /// Bytes of what is claimed most.
    unit: u64,
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
    /// Starts with headers, descriptor and directory claimed.
    pub(super) fn new(shape: Shape, file: Window, extent: Span) -> Result<Self, OpenError> {
        let unit = if shape.compressed { SECTOR } else { shape.grain_len };
        let (fixed, directory) = (shape.fixed.clone(), shape.directory());
        let mut mapper = Self {
            shape,
            file,
            extent,
            map: ExtentMapBuilder::new(),
            guest: 0,
            held: None,
            last: None,
            claims: Claims::new(unit),
            unit,
        };
        for (span, what) in fixed {
            mapper.claim(span, what)?;
        }
        mapper.claim(directory, Item::The("VMDK grain directory"))?;
        Ok(mapper)
    }

    /// Claims what is no grain. What happens to be as long as a unit is claimed in two runs: the first unit tells the phase of all,
    /// and that is for grains to tell.
    pub(super) fn claim(&mut self, span: Span, what: Item) -> Result<(), OpenError> {
        if span.len == self.unit && !self.shape.compressed {
            let half = span.len / 2;
            self.claims.claim(Span::new(span.start, half), what)?;
            return self.claims.claim(Span::between(span.start.saturating_add(half), span.end()), what);
        }
        self.claims.claim(span, what)
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Guest bytes that are still to be pushed.
    pub(super) fn remaining(&self) -> u64 {
        self.shape.guest_len.saturating_sub(self.guest)
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

    /// Appends the grain that `entry`, whose value is `found`, says is stored at `start`.
    pub(super) fn grain(&mut self, start: u64, found: u64, entry: Item) -> Result<(), OpenError> {
        if start < self.shape.first_grain {
            return Err(OpenError::Field { what: entry, found, expected: "0 or a sector past the metadata" });
        }
        let guest_len = self.shape.grain_len.min(self.remaining());
        let at_least = if self.shape.compressed { MARKER_LEN } else { guest_len };
        let span = Span::new(start, at_least);
        if span.end() > self.file.len {
            return Err(OpenError::Truncated { what: entry, span, file_len: self.file.len });
        }
        if self.shape.compressed {
            self.claims.claim(Span::new(start, SECTOR), entry)?;
            self.stream(start, guest_len, entry);
        } else {
            self.claims.claim(span, entry)?;
            self.map.push(guest_len, State::Data(self.file.at(start, guest_len)));
        }
        self.guest = self.guest.saturating_add(guest_len);
        Ok(())
    }

    fn stream(&mut self, start: u64, guest_len: u64, entry: Item) {
        if let Some(held) = self.held.take() {
            self.release(held, Some(start));
        }
        self.held = Some(Held { start, guest_len, gap: None });
        if self.last.is_none_or(|last| last.start < start) {
            self.last = Some(Placed { start, guest: self.guest, entry });
        }
    }

    /// Pushes the grain that was held back; `next` is where the next grain in guest order starts.
    fn release(&mut self, held: Held, next: Option<u64>) {
        let most = self.shape.grain_len.saturating_mul(MAX_ENCODED_GRAINS);
        let to_next = next.and_then(|next| next.checked_sub(held.start)).filter(|&len| len > 0);
        let len = most.min(to_next.unwrap_or(most)).min(self.file.len.saturating_sub(held.start));
        let state = State::Encoded {
            stored: self.file.at(held.start, len),
            encoding: Encoding::Grain { extent: self.extent },
            unit_len: self.shape.grain_len,
            skip: 0,
        };
        self.map.push(held.guest_len, state);
        if let Some((len, state)) = held.gap {
            self.map.push(len, state);
        }
    }

    pub(super) fn check_memory(&self) -> Result<(), OpenError> {
        check_memory(self.map.memory().saturating_add(self.claims.memory()))
    }

    /// The map of the guest bytes in this file, and the compressed grain with the highest start.
    pub(super) fn finish(mut self) -> (ExtentMap, Option<Placed>) {
        if let Some(held) = self.held.take() {
            self.release(held, None);
        }
        (self.map.finish(self.shape.guest_len), self.last)
    }
}
