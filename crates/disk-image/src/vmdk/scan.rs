//! A stream without a footer at its end, read through from marker to marker.
//!
//! Source: *Virtual Disk Format 5.0*, "Stream-Optimized Compressed Sparse Extents". Files get into this state when a writer leaves the
//! footer out, or when something is appended.
//!
//! What can be proved, and what not. The grains of a stream may be in any order and may be missing, so its grains alone never show
//! that none was lost: a download that was cut and filled up with zeroes ends in what looks like an end-of-stream marker. But the grain
//! directory is written after the last grain and the last table. Where the markers lead without a gap from the first one to a grain
//! directory, and from there to an end-of-stream marker, all grains are there. The directory is then read and checked as if a
//! footer had led to it; it and its tables are whole if they lead to as many grains as were passed, each to another one
//! (`mapper.rs`). So nothing is rebuilt from the grains, and what has no directory or one that lacks a grain, no end-of-stream marker,
//! a grain behind its directory, or a marker that is none, is refused.
//!
//! Cost: the file is read once, in steps of [`METADATA_STEP`]. To read markers alone would take one small read after another, each
//! depending on the last, which is slower wherever a read takes time. A file that was just cut is refused before: its last MiB has no
//! sector of zeroes.

use bytes::Bytes;

use super::SECTOR;
use super::footer::{self, FOOTER, Sector, is_zero};
use super::header::Header;
use super::mapper::{MARKER_LEN, MAX_ENCODED_GRAINS};
use crate::limits::METADATA_STEP;
use crate::span::Window;
use crate::{Item, Open, OpenError, Span};

/// Types of markers that announce a table and the directory.
pub(super) const GRAIN_TABLE: u32 = 1;
pub(super) const GRAIN_DIRECTORY: u32 = 2;

/// A marker that a slow writer sends to show that it is still there (open-vmdk); nothing follows it.
const PROGRESS: u32 = 4;

/// How far the markers have been followed.
struct Scan {
    header: Header,
    file: Window,
    /// Where the next marker is.
    at: u64,
    /// Markers passed.
    markers: u64,
    /// Markers of grains among them.
    grains: u64,
    /// First sector of the grain directory, once it was passed.
    directory: Option<u64>,
    /// The footer, once it was passed.
    footer: Option<Header>,
}

/// What the markers lead to.
pub(super) struct Found {
    /// The header with the place of the grain directory.
    pub(super) header: Header,
    /// Grains in the stream.
    pub(super) grains: u64,
}

/// What follows a marker.
enum Step {
    /// The next marker, at this byte.
    Next(u64),
    /// Nothing.
    End,
}

/// Reads the stream of `header` through, and says which header leads to the directory. `tail` are the bytes of [`footer::tail`].
pub(super) fn directory(header: Header, file: Window, tail: &[u8]) -> Result<Open<Found>, OpenError> {
    let scan = Scan {
        header,
        file,
        at: header.first_marker(),
        markers: 0,
        grains: 0,
        directory: None,
        footer: None,
    };
    if !footer::may_end(tail) {
        return Err(scan.missing("end-of-stream marker of the VMDK"));
    }
    scan.next()
}

impl Scan {
    fn next(self) -> Result<Open<Found>, OpenError> {
        let left = self.file.len.saturating_sub(self.at);
        if left < SECTOR {
            return Err(self.missing("end-of-stream marker of the VMDK"));
        }
        let want = self.file.at(self.at, left.min(METADATA_STEP));
        Ok(Open::need_one(want, move |bytes| self.window(&bytes)))
    }

    /// Follows the markers that lie in `bytes`, which start at the next one.
    fn window(mut self, bytes: &Bytes) -> Result<Open<Found>, OpenError> {
        let start = self.at;
        loop {
            let offset = usize::try_from(self.at.saturating_sub(start)).unwrap_or(usize::MAX);
            let rest = bytes.get(offset..).unwrap_or_default();
            let Some(marker) = rest.first_chunk() else { return self.next() };
            // A footer is read with its marker.
            let payload = rest.get(size_of::<Sector>()..).and_then(|rest| rest.first_chunk());
            if payload.is_none() && offset > 0 && self.file.len.saturating_sub(self.at) > SECTOR {
                return self.next();
            }
            match self.marker(marker, payload)? {
                Step::Next(at) => self.at = at,
                Step::End => return self.end().map(Open::Ready),
            }
            self.markers = self.markers.saturating_add(1);
        }
    }

    fn marker(&mut self, marker: &Sector, payload: Option<&Sector>) -> Result<Step, OpenError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *marker;
        let value = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let len = u64::from(u32::from_le_bytes([i, j, k, l]));
        let kind = u32::from_le_bytes([m, n, o, p]);
        let what = Item::Numbered("VMDK stream marker", self.markers);
        let field = |found, expected| Err(OpenError::Field { what, found, expected });
        if len > 0 {
            if value >= self.header.capacity() || value.checked_rem(self.header.grain_size()) != Some(0) {
                return field(value, "the sector of a grain");
            }
            if len > self.header.grain_size().saturating_mul(SECTOR.saturating_mul(MAX_ENCODED_GRAINS)) {
                return field(len, "a stream of no more than two grains");
            }
            if self.directory.is_some() {
                return field(value, "no grain behind the grain directory");
            }
            self.grains = self.grains.saturating_add(1);
            return self.skip(MARKER_LEN.saturating_add(len));
        }
        let whole = SECTOR.saturating_add(value.saturating_mul(SECTOR));
        let after = self.at.saturating_add(SECTOR);
        match kind {
            0 if is_zero(marker) => Ok(Step::End),
            GRAIN_TABLE | PROGRESS => self.skip(whole),
            GRAIN_DIRECTORY if self.directory.is_none() => {
                self.directory = Some(after / SECTOR);
                self.skip(whole)
            }
            GRAIN_DIRECTORY => field(value, "the only grain directory of the stream"),
            FOOTER => {
                let footer = payload.map_or(&[][..], |footer: &Sector| footer.as_slice());
                self.footer = Some(Header::parse(footer, after, self.file.len)?);
                self.skip(SECTOR.saturating_mul(2))
            }
            _ => field(kind.into(), "the marker of a grain, table, directory, footer or end of stream"),
        }
    }

    /// The marker behind `len` bytes that must be there.
    fn skip(&self, len: u64) -> Result<Step, OpenError> {
        let span = Span::new(self.at, len);
        if span.end() > self.file.len {
            let what = Item::Numbered("VMDK stream marker", self.markers);
            return Err(OpenError::Truncated { what, span, file_len: self.file.len });
        }
        Ok(Step::Next(span.end().next_multiple_of(SECTOR)))
    }

    /// What was found, at the end of the stream.
    fn end(self) -> Result<Found, OpenError> {
        let Some(directory) = self.directory else {
            return Err(self.missing("grain directory of the VMDK stream"));
        };
        let header = match self.footer {
            Some(footer) => {
                footer.check_same_disk(&self.header)?;
                footer.check_directory(directory)?;
                footer
            }
            None => self.header.with_directory(directory),
        };
        Ok(Found { header, grains: self.grains })
    }

    fn missing(&self, what: &'static str) -> OpenError {
        OpenError::Missing {
            what: Item::The(what),
            span: Span::between(self.header.first_marker(), self.file.len),
        }
    }
}
