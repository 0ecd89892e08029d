//! gzip members, decoded one behind the other from pieces of their file.
//!
//! Source: RFC 1952, 2.2 and 2.3; the deflate streams are miniz_oxide's. Fields that a member may have or not (names, comments,
//! extra fields) are passed over, the checksum of the header is held to be right where there is one.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use libdeflater::Crc;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress_with_limit};

use super::step::Step;
use crate::limits::MAX_PADDING;
use crate::{Item, OpenError, Span};

/// How far back a deflate stream refers, bytes.
const WINDOW: usize = 32 << 10;

/// Room for what is decoded, and the window before it: what fits the second cache.
const ROOM: usize = 256 << 10;

/// What a member begins with: two bytes of magic, and deflate.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// Bytes of a header without what it may have or not, and of a trailer.
const HEAD: usize = 10;
const TRAILER: usize = 8;

/// Flags of a header: what follows it.
mod flag {
    pub(super) const CHECK: u8 = 2;
    pub(super) const EXTRA: u8 = 4;
    pub(super) const NAME: u8 = 8;
    pub(super) const COMMENT: u8 = 16;
    pub(super) const RESERVED: u8 = 0xe0;
}

/// What comes next. Numbers are bytes of it that were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head(usize),
    ExtraLen(usize),
    /// Bytes of it that are left.
    Extra(u16),
    Name,
    Comment,
    Check(usize),
    Body,
    Trailer(usize),
    /// Zeroes up to the end of the file.
    Padding(u64),
}

/// A decoder between two deflate blocks.
#[derive(Debug, Clone)]
pub(super) struct Between<W> {
    /// Bits of the last byte that belong to the next block, and how many they are.
    pub(super) bits: (u8, u8),
    /// What the member holds before, as far as the stream may refer to it.
    pub(super) window: W,
}

/// gzip members while they are decoded.
pub(super) struct Members {
    stage: Stage,
    /// Of the header that is read.
    flags: u8,
    /// The field of fixed length that is read.
    field: [u8; HEAD],
    /// Checksum of the header.
    head: Crc,
    inflate: Box<DecompressorOxide>,
    /// The last bytes of the current member, up to `end`. Nothing else: so a stream that refers to bytes before its member is refused.
    room: Vec<u8>,
    end: usize,
    /// Where the next byte is in the file.
    file: u64,
    /// Bytes decoded.
    content: u64,
    /// Members that ended.
    ended: u64,
    /// Where the current one begins in the file.
    start: u64,
    /// Bytes of its content.
    len: u64,
    /// Their checksum, if it was decoded from its start.
    sum: Option<Crc>,
}

impl Members {
    /// From the start of a member, at these offsets in the file and in the content.
    pub(super) fn new(file: u64, content: u64) -> Self {
        Self {
            stage: Stage::Head(0),
            flags: 0,
            field: [0; HEAD],
            head: Crc::new(),
            inflate: Box::default(),
            room: vec![0; ROOM],
            end: 0,
            file,
            content,
            ended: 0,
            start: file,
            len: 0,
            sum: None,
        }
    }

    /// From between two blocks.
    pub(super) fn between(file: u64, content: u64, at: &Between<Vec<u8>>) -> Self {
        let mut members = Self::new(file, content);
        let (bit_buf, num_bits) = at.bits;
        let state = BlockBoundaryState { num_bits, bit_buf, ..BlockBoundaryState::default() };
        *members.inflate = DecompressorOxide::from_block_boundary_state(&state);
        if let Some(room) = members.room.get_mut(..at.window.len()) {
            room.copy_from_slice(&at.window);
            members.end = at.window.len();
        }
        members.stage = Stage::Body;
        members
    }

    /// Where the next byte is in the file.
    pub(super) fn file(&self) -> u64 {
        self.file
    }

    /// Bytes of content before the next one.
    pub(super) fn content(&self) -> u64 {
        self.content
    }

    /// Whether the next byte is the first one of a member.
    pub(super) fn is_at_start(&self) -> bool {
        self.stage == Stage::Head(0)
    }

    /// What a step decoded.
    pub(super) fn made(&self, step: &Step) -> &[u8] {
        self.room.get(step.made.clone()).unwrap_or_default()
    }

    /// The state after a step that ended at a boundary.
    pub(super) fn boundary(&self) -> Option<Between<&[u8]>> {
        let state = self.inflate.block_boundary_state()?;
        let window = self.room.get(self.end.saturating_sub(WINDOW)..self.end)?;
        Some(Between { bits: (state.bit_buf, state.num_bits), window })
    }

    /// Goes on with `input`. Makes `most` bytes at most, and stops between blocks on demand. Neither takes nor makes anything, and is not
    /// at a boundary, only where it needs more input.
    pub(super) fn step(&mut self, input: &[u8], most: usize, stop: bool) -> Result<Step, OpenError> {
        if self.stage == Stage::Body {
            return self.body(input, most, stop);
        }
        let Some(&byte) = input.first() else { return Ok(Step::default()) };
        self.stage = self.around(byte)?;
        self.file = self.file.saturating_add(1);
        Ok(Step { taken: 1, ..Step::default() })
    }

    fn body(&mut self, input: &[u8], most: usize, stop: bool) -> Result<Step, OpenError> {
        if self.room.len().saturating_sub(self.end) < WINDOW {
            self.room.copy_within(self.end.saturating_sub(WINDOW)..self.end, 0);
            self.end = self.end.min(WINDOW);
        }
        let mut flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_HAS_MORE_INPUT;
        if stop {
            flags |= TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        }
        let (status, taken, made) =
            decompress_with_limit(&mut self.inflate, input, &mut self.room, self.end, most, flags);
        let made = self.end..self.end.saturating_add(made);
        self.end = made.end;
        self.file = self.file.saturating_add(taken as u64);
        self.content = self.content.saturating_add(made.len() as u64);
        self.len = self.len.saturating_add(made.len() as u64);
        if let Some(sum) = &mut self.sum {
            sum.update(self.room.get(made.clone()).unwrap_or_default());
        }
        match status {
            TINFLStatus::Done => self.stage = Stage::Trailer(0),
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput | TINFLStatus::BlockBoundary => {}
            _ => return Err(OpenError::Damaged { what: self.item("gzip member"), content: self.len }),
        }
        Ok(Step { taken, made, boundary: status == TINFLStatus::BlockBoundary })
    }

    /// Takes a byte of a header, a trailer or what follows them.
    fn around(&mut self, byte: u8) -> Result<Stage, OpenError> {
        let is_head = !matches!(self.stage, Stage::Trailer(_) | Stage::Check(_) | Stage::Padding(_));
        if self.stage == Stage::Head(0) {
            self.start = self.file;
            self.head = Crc::new();
            // Tapes and stores fill up what they keep.
            if byte == 0 && self.ended > 0 {
                return Ok(Stage::Padding(1));
            }
        }
        if is_head {
            self.head.update(&[byte]);
        }
        Ok(match self.stage {
            Stage::Head(seen) => {
                self.put(seen, byte);
                self.check_head(seen, byte)?;
                if seen == 3 {
                    self.flags = byte;
                }
                match seen.saturating_add(1) {
                    HEAD if self.flags & flag::EXTRA != 0 => Stage::ExtraLen(0),
                    HEAD => self.behind_extra(),
                    seen => Stage::Head(seen),
                }
            }
            Stage::ExtraLen(0) => {
                self.put(0, byte);
                Stage::ExtraLen(1)
            }
            Stage::ExtraLen(_) => {
                let [low, ..] = self.field;
                match u16::from_le_bytes([low, byte]) {
                    0 => self.behind_extra(),
                    len => Stage::Extra(len),
                }
            }
            Stage::Extra(1) => self.behind_extra(),
            Stage::Extra(left) => Stage::Extra(left.saturating_sub(1)),
            Stage::Name if byte == 0 => self.behind_name(),
            Stage::Comment if byte == 0 => self.behind_comment(),
            stage @ (Stage::Name | Stage::Comment) => stage,
            Stage::Check(0) => {
                self.put(0, byte);
                Stage::Check(1)
            }
            Stage::Check(_) => {
                let [low, ..] = self.field;
                let found = u32::from(u16::from_le_bytes([low, byte]));
                let expected = self.head.sum() & 0xffff;
                if found != expected {
                    let what = self.item("header of gzip member");
                    return Err(OpenError::Checksum { what, found, expected });
                }
                self.begin()
            }
            Stage::Trailer(seen) => {
                self.put(seen, byte);
                match seen.saturating_add(1) {
                    TRAILER => self.check_trailer()?,
                    seen => Stage::Trailer(seen),
                }
            }
            Stage::Padding(len) => {
                if byte != 0 {
                    return Err(self.behind(byte));
                }
                if len >= MAX_PADDING {
                    let (what, found) = (Item::The("length of the zeroes at the end"), len.saturating_add(1));
                    return Err(OpenError::Limit { what, found, limit: MAX_PADDING });
                }
                Stage::Padding(len.saturating_add(1))
            }
            // Not around it.
            Stage::Body => Stage::Body,
        })
    }

    fn put(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.field.get_mut(at) {
            *place = byte;
        }
    }

    fn check_head(&self, at: usize, byte: u8) -> Result<(), OpenError> {
        let found = byte.into();
        match at {
            0 | 1 if MAGIC.get(at) != Some(&byte) => Err(self.behind(byte)),
            2 if MAGIC.get(at) != Some(&byte) => {
                let what = self.item("compression method of gzip member");
                Err(OpenError::Field { what, found, expected: "8, which is deflate" })
            }
            3 if byte & flag::RESERVED != 0 => {
                let what = self.item("flags of gzip member");
                Err(OpenError::Field { what, found, expected: "none that RFC 1952 reserves" })
            }
            _ => Ok(()),
        }
    }

    /// What stands behind a member is not another one.
    fn behind(&self, byte: u8) -> OpenError {
        OpenError::Field {
            what: self.item("start of gzip member"),
            found: byte.into(),
            expected: "1f 8b, or zeroes up to the end of the file",
        }
    }

    fn behind_extra(&mut self) -> Stage {
        if self.flags & flag::NAME != 0 { Stage::Name } else { self.behind_name() }
    }

    fn behind_name(&mut self) -> Stage {
        if self.flags & flag::COMMENT != 0 { Stage::Comment } else { self.behind_comment() }
    }

    fn behind_comment(&mut self) -> Stage {
        if self.flags & flag::CHECK != 0 { Stage::Check(0) } else { self.begin() }
    }

    /// Begins the deflate stream.
    fn begin(&mut self) -> Stage {
        self.inflate.init();
        self.end = 0;
        self.len = 0;
        self.sum = Some(Crc::new());
        Stage::Body
    }

    fn check_trailer(&mut self) -> Result<Stage, OpenError> {
        let [a, b, c, d, e, f, g, h, ..] = self.field;
        let (found, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if let Some(sum) = self.sum.take() {
            let expected = sum.sum();
            if found != expected {
                return Err(OpenError::Checksum { what: self.item("gzip member"), found, expected });
            }
            // Counted modulo 2^32.
            if u64::from(len) != self.len & u64::from(u32::MAX) {
                let (what, found) = (self.item("length of gzip member"), len.into());
                return Err(OpenError::Field { what, found, expected: "that of its content" });
            }
        }
        self.ended = self.ended.saturating_add(1);
        Ok(Stage::Head(0))
    }

    /// Fails unless the file may end here.
    pub(super) fn check_end(&self) -> Result<(), OpenError> {
        match self.stage {
            Stage::Head(0) if self.ended > 0 => Ok(()),
            Stage::Padding(_) => Ok(()),
            _ => Err(OpenError::Missing {
                what: self.item("end of gzip member"),
                span: Span::between(self.start, self.file),
            }),
        }
    }

    fn item(&self, what: &'static str) -> Item {
        Item::Numbered(what, self.ended)
    }
}
