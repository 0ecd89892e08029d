//! The header of a sparse member in the old GNU format, as the archive has it: one block, and those that its map goes on in.
//!
//! What does not come from the disk is the same in every archive: no time, no owner.

#![allow(clippy::arithmetic_side_effects, reason = "sizes of a disk that was checked")]

use crate::Span;
use crate::archive::RAW_DISK;
use crate::archive::tar::BLOCK_LEN;

/// Entries of the map in the header, and in each block behind it.
const ENTRIES: usize = 4;
const MORE_ENTRIES: usize = 21;

/// The largest number that 11 octal digits have; others are binary.
const MAX_OCTAL: u64 = (1 << 33) - 1;

/// The blocks before the content of a disk of `len` bytes, of which `runs` are stored.
pub(super) fn encode(len: u64, runs: &[Span]) -> Vec<u8> {
    let stored = runs.iter().map(|run| run.len).sum();
    // A file that ends in a hole has an empty run there, or else a reader that only looks at the map would cut it.
    let end = Some(Span::new(len, 0)).filter(|end| runs.last().is_none_or(|last| last.end() < end.start));
    let mut entries = runs.iter().copied().chain(end).peekable();
    let mut block = Block::default();
    block.put(0, RAW_DISK.as_bytes());
    for (at, octal) in [(100, "0000644"), (108, "0000000"), (116, "0000000")] {
        block.put(at, octal.as_bytes());
    }
    block.number(124, stored);
    block.number(136, 0);
    block.put(156, b"S");
    block.put(257, b"ustar  ");
    for (i, entry) in entries.by_ref().take(ENTRIES).enumerate() {
        block.entry(386 + 24 * i, entry);
    }
    block.put(482, &[u8::from(entries.peek().is_some())]);
    block.number(483, len);
    // The checksum counts itself as blanks.
    block.put(148, &[b' '; 8]);
    let sum: u64 = block.0.iter().map(|&byte| u64::from(byte)).sum();
    block.put(148, format!("{sum:06o}\0").as_bytes());

    let mut head = block.0;
    while entries.peek().is_some() {
        let mut block = Block::default();
        for (i, entry) in entries.by_ref().take(MORE_ENTRIES).enumerate() {
            block.entry(24 * i, entry);
        }
        block.put(504, &[u8::from(entries.peek().is_some())]);
        head.extend(block.0);
    }
    head
}

struct Block(Vec<u8>);

impl Default for Block {
    fn default() -> Self {
        Self(vec![0; BLOCK_LEN])
    }
}

impl Block {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(field) = self.0.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }

    /// A number in 12 bytes: octal digits while they suffice, else binary, marked by the highest bit.
    fn number(&mut self, at: usize, number: u64) {
        if number <= MAX_OCTAL {
            self.put(at, format!("{number:011o}").as_bytes());
        } else {
            self.put(at, &[0x80, 0, 0, 0]);
            self.put(at + 4, &number.to_be_bytes());
        }
    }

    fn entry(&mut self, at: usize, run: Span) {
        self.number(at, run.start);
        self.number(at + 12, run.len);
    }
}
