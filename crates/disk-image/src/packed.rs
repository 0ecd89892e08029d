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
    /// Encoded, so many bytes. At least one, and fewer than the unit has.
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

    /// Length of the head, in which no frame lies, bytes.
    fn head_len(&self) -> u64;

    /// The object will not be longer than this, bytes.
    fn max_len(&self) -> u64;

    /// Gives the unit at `guest` a place, and tells its offset in the object. Units come in guest order, those that are zero
    /// throughout not at all.
    fn place(&mut self, guest: u64, frame: Frame) -> u64;

    /// What may still be given to frames.
    fn unsettled(&self) -> Unsettled;

    /// Ends the object: all frames have their place. Returns its length in bytes.
    fn seal(&mut self) -> u64;

    /// The first bytes of head or tail at or behind `at` that are not known to be zero, and their offset. Only of a sealed layout.
    fn literal_from(&self, at: u64) -> Option<(u64, Bytes)>;
}
