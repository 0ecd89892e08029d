//! RAW: the disk's bytes, nothing else.
//!
//! A length that is not a multiple of 512 is filled up with zeroes, as QEMU does. What of the file is allocated is known only to
//! its file system, so it comes from the source. Cost: none.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::limits::MAX_VIRTUAL_SIZE;
use crate::span::Window;
use crate::{Details, ExtentMapBuilder, FileId, Image, Item, OpenError, Span, State, Warning};

/// Guest disks are made of sectors of this size.
const SECTOR: u64 = 512;

/// The raw image of a file of `file_len` bytes. `allocation` lists, ascending, the runs that may hold data; all of it when `None`.
///
/// # Errors
///
/// [`OpenError::Empty`], and [`OpenError::Limit`] above [`MAX_VIRTUAL_SIZE`].
pub fn open(file_len: u64, allocation: Option<&[Span]>) -> Result<Image, OpenError> {
    open_window(Window::file(FileId::IMAGE, file_len), allocation)
}

/// The same in a window.
pub(crate) fn open_window(window: Window, allocation: Option<&[Span]>) -> Result<Image, OpenError> {
    let file_len = window.len;
    let whole = [Span::new(0, file_len)];
    let mut map = ExtentMapBuilder::new();
    for run in allocation.unwrap_or(&whole) {
        let run = run.intersect(Span::between(map.guest_len(), file_len));
        if !run.is_empty() {
            map.push(run.start.saturating_sub(map.guest_len()), State::Hole);
            map.push(run.len, State::Data(window.stored(run)));
        }
    }
    with_map(file_len, map)
}

/// The raw image of `len` bytes that are stored as `map` says.
pub(crate) fn with_map(len: u64, map: ExtentMapBuilder) -> Result<Image, OpenError> {
    if len == 0 {
        return Err(OpenError::Empty);
    }
    if len > MAX_VIRTUAL_SIZE {
        return Err(OpenError::Limit { what: Item::The("file length"), found: len, limit: MAX_VIRTUAL_SIZE });
    }
    let virtual_size = len.next_multiple_of(SECTOR);
    let mut image = Image::new(virtual_size, map.finish(virtual_size), Details::Raw);
    if virtual_size != len {
        image.warnings.push(Warning::PartialSector(len));
    }
    Ok(image)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn odd_length_ends_in_a_hole() {
        let image = open(1000, None).unwrap();
        assert_eq!(image.virtual_size(), 1024);
        let states: Vec<_> = image.map().iter().map(|e| (e.guest, e.state.is_stored())).collect();
        assert_eq!(states, [(Span::new(0, 1000), true), (Span::new(1000, 24), false)]);
        assert_eq!(image.warnings(), [Warning::PartialSector(1000)]);
    }

    #[test]
    fn unallocated_runs_are_holes() {
        let image = open(1 << 20, Some(&[Span::new(4096, 4096), Span::new(65536, 1 << 30)])).unwrap();
        let data: Vec<_> = image.map().iter().filter(|e| e.state.is_stored()).map(|e| e.guest).collect();
        assert_eq!(data, [Span::new(4096, 4096), Span::between(65536, 1 << 20)]);
    }

    #[test]
    fn empty_and_oversized_are_refused() {
        assert_eq!(open(0, None).unwrap_err(), OpenError::Empty);
        assert!(matches!(open(MAX_VIRTUAL_SIZE + 1, None), Err(OpenError::Limit { .. })));
    }
}
