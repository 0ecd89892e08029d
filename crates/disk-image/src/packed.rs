//! Packed layouts: outputs whose units are encoded, so that no offset is known before the content is.
//!
//! An [`ObjectMap`](crate::ObjectMap) knows each byte's place beforehand. Here a unit is given its place once its length is known, in
//! guest order, and what points to the units is known when the last one has its place. Offsets depend on nothing but the
//! lengths in guest order: not on who encoded what when.

use bytes::Bytes;

use crate::{Codec, Span};

/// A unit in its stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// As it is: it does not shrink.
    Plain,
    /// Encoded, so many bytes. At least one, and no more than [`PackedLayout::max_frame_len`].
    Encoded(u64),
}

impl Frame {
    /// Bytes of the frame of a unit of `unit_len` bytes.
    pub fn len(self, unit_len: u64) -> u64 {
        match self {
            Self::Plain => unit_len,
            Self::Encoded(len) => len,
        }
    }
}

/// A frame's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its offset in the object.
    pub offset: u64,
    /// What stands right before it, and belongs to no other frame; often nothing.
    pub lead: Bytes,
}

/// What of an object may still be given to frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    /// A run that frames may still go into although others lie behind it; often empty.
    pub gap: Span,
    /// Everything from here on, and nothing else.
    pub end: u64,
}

/// How frames are packed into an object: a head, then frames, then a tail.
///
/// Bytes that neither frames nor literals take are zero.
pub trait PackedLayout: Send + Sync + 'static {
    /// Guest bytes of a unit. Units start at its multiples; the last one is filled up with zeroes.
    fn unit_len(&self) -> u64;

    /// How units are encoded.
    fn codec(&self) -> Codec;

    /// How long the frame of a unit may be, bytes. If that is less than a unit, one whose frame would be longer is stored as it is; if it
    /// is more, it is enough for every unit.
    fn max_frame_len(&self) -> u64;

    /// Gaps that frames may still go into ([`Unsettled::gap`]) lie inside one run of so many bytes that begins at a multiple of them; 0 if
    /// there are none.
    fn gap_within(&self) -> u64;

    /// Length of the head, in which no frame lies, bytes.
    fn head_len(&self) -> u64;

    /// The object will not be longer than this, bytes.
    fn max_len(&self) -> u64;

    /// True if every unit that the map stores anything of is placed, even if it turns out to be zero: the layout has told of it before.
    fn places_zeroes(&self) -> bool;

    /// Gives the unit at `guest`, whose frame has these bytes, a place. Units come in guest order, those that are zero throughout
    /// not at all unless [`PackedLayout::places_zeroes`].
    fn place(&mut self, guest: u64, frame: Frame, bytes: &[u8]) -> Placed;

    /// What may still be given to frames. Not of a sealed layout.
    fn unsettled(&self) -> Unsettled;

    /// Ends the object: all frames have their place. Returns its length in bytes.
    fn seal(&mut self) -> u64;

    /// The first bytes of head or tail at or behind `at` that are not known to be zero, and their offset. Only of a sealed layout.
    fn literal_from(&self, at: u64) -> Option<(u64, Bytes)>;
}

impl<L: PackedLayout + ?Sized> PackedLayout for Box<L> {
    fn unit_len(&self) -> u64 {
        (**self).unit_len()
    }

    fn codec(&self) -> Codec {
        (**self).codec()
    }

    fn max_frame_len(&self) -> u64 {
        (**self).max_frame_len()
    }

    fn gap_within(&self) -> u64 {
        (**self).gap_within()
    }

    fn head_len(&self) -> u64 {
        (**self).head_len()
    }

    fn max_len(&self) -> u64 {
        (**self).max_len()
    }

    fn places_zeroes(&self) -> bool {
        (**self).places_zeroes()
    }

    fn place(&mut self, guest: u64, frame: Frame, bytes: &[u8]) -> Placed {
        (**self).place(guest, frame, bytes)
    }

    fn unsettled(&self) -> Unsettled {
        (**self).unsettled()
    }

    fn seal(&mut self) -> u64 {
        (**self).seal()
    }

    fn literal_from(&self, at: u64) -> Option<(u64, Bytes)> {
        (**self).literal_from(at)
    }
}
