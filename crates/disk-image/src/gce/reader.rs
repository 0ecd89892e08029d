//! Opens an archive by its index: header and end are decoded, the units become the encoded units of a map.
//!
//! Refused besides what [`index`](super::index) and [`sparse`](crate::archive::sparse) refuse: another name than `disk.raw`, a second
//! member of the tar, units that are not all of one length or do not lie at its multiples, members so short that no
//! deflate stream of theirs has that much content or longer than any has to be, and headers in more than 256 members.
//!
//! Cost: a read and a decode for each 256 KiB of tar header, of which a disk in 10,000 pieces has one; about 10 bytes of map a unit.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::index::Members;
use super::layout::max_member_len;
use crate::archive::RAW_DISK;
use crate::archive::sparse::SparseMap;
use crate::archive::tar::{BLOCK, BLOCK_LEN, Header};
use crate::decode::gzip;
use crate::limits::{MAX_GCE_UNIT, METADATA_STEP};
use crate::map::check_memory;
use crate::span::Window;
use crate::{Encoding, ExtentMapBuilder, Feature, Image, Item, Layer, Open, OpenError, Span, State, raw};

/// Content bytes for each byte of a deflate stream at most: two bits for the longest match, 258 bytes.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Most members that the tar header may take: one for each 256 KiB of the 24 MiB that it has at most, and room.
const MAX_HEAD_MEMBERS: usize = 256;

/// Opens the disk in a gzip file; only under its own name, where a name is given.
pub(crate) fn open(file: Window, layer: &Layer, name: Option<String>) -> Result<Open<Image>, OpenError> {
    let has_snapshot = layer.snapshot.is_some();
    // A file without an index may hold whatever was asked for.
    Members::read(file)?.and_then(move |members| {
        if has_snapshot {
            return Err(OpenError::NoSnapshot);
        }
        if name.is_some_and(|name| name != RAW_DISK) {
            return Err(OpenError::NoMember(vec![RAW_DISK.to_owned()]));
        }
        Head { file, members, next: 0, map: None }.ask()
    })
}

/// The tar header while it is read.
struct Head {
    file: Window,
    members: Members,
    /// The member that comes next.
    next: usize,
    /// Bytes that the header says are stored, and which those are, as far as that is known.
    map: Option<(u64, SparseMap)>,
}

impl Head {
    fn ask(self) -> Result<Open<Image>, OpenError> {
        if self.next >= MAX_HEAD_MEMBERS {
            let (found, limit) = ((self.next as u64).saturating_add(1), MAX_HEAD_MEMBERS as u64);
            return Err(OpenError::Limit {
                what: Item::The("number of members of the tar header"),
                found,
                limit,
            });
        }
        let (member, what) = (self.members.iter().nth(self.next), member_item(self.next));
        let Some(member) = member else {
            return Err(OpenError::Missing { what, span: Span::new(0, self.file.len) });
        };
        check_len(member.len, what)?;
        Ok(Open::need_one(self.file.stored(member), move |bytes| self.blocks(&content(&bytes, what)?)))
    }

    /// Reads the blocks of a member.
    fn blocks(mut self, content: &[u8]) -> Result<Open<Image>, OpenError> {
        let what = member_item(self.next);
        self.next = self.next.saturating_add(1);
        let (blocks, rest) = content.as_chunks::<BLOCK_LEN>();
        let mut more = true;
        for block in blocks {
            if !more {
                let found = content.len() as u64;
                return Err(OpenError::Field { what, found, expected: "as long as the tar header is" });
            }
            more = match &mut self.map {
                Some((_, map)) => map.add_block(block)?,
                None => {
                    let header = Header::parse(block, Item::Entry("tar header", 0))?;
                    if header.kind != b'S' {
                        return Err(OpenError::Unsupported(Feature::ArchiveMember(char::from(header.kind))));
                    }
                    if header.name != RAW_DISK {
                        return Err(OpenError::Unsupported(Feature::OtherFormat("tar")));
                    }
                    let (map, more) = SparseMap::of_header(block)?;
                    self.map = Some((header.size, map));
                    more
                }
            };
        }
        match (self.map.take(), more) {
            (Some((stored, map)), false) if rest.is_empty() => {
                map.check(stored)?;
                Self::content(self.file, &self.members, self.next, &map, stored)
            }
            (map, true) if rest.is_empty() && !blocks.is_empty() => Self { map, ..self }.ask(),
            _ => {
                let found = content.len() as u64;
                Err(OpenError::Field { what, found, expected: "a multiple of 512 bytes" })
            }
        }
    }

    /// Lays the units into a map, and looks at the end of the tar.
    fn content(
        file: Window,
        members: &Members,
        head: usize,
        sparse: &SparseMap,
        stored: u64,
    ) -> Result<Open<Image>, OpenError> {
        // The last member is the end of the tar.
        let units = members.count().saturating_sub(head as u64).checked_sub(1);
        let unit = match units {
            Some(0) if stored == 0 => 1,
            Some(units) => stored.checked_div(units).unwrap_or(0),
            None => 0,
        };
        let is_unit = unit.is_power_of_two()
            && unit <= MAX_GCE_UNIT
            && units
                .and_then(|units| units.checked_mul(unit))
                .is_some_and(|all| all == stored || stored == 0);
        if !is_unit {
            let (what, expected) = (Item::The("length of a unit"), "a power of two in all of them alike");
            return Err(OpenError::Field { what, found: unit, expected });
        }
        let mut map = ExtentMapBuilder::new();
        let index = members.memory();
        let mut numbered = members.iter().enumerate().skip(head);
        for run in &sparse.runs {
            if !run.start.is_multiple_of(unit) || !run.len.is_multiple_of(unit) {
                let (what, found) = (Item::The("run of the sparse map"), run.start);
                return Err(OpenError::Field { what, found, expected: "at a multiple of a unit" });
            }
            map.push(run.start.saturating_sub(map.guest_len()), State::Hole);
            while map.guest_len() < run.end() {
                // There are as many as the runs hold.
                let Some((number, member)) = numbered.next() else { break };
                // A reader holds what is stored of a unit, by the length that the index says.
                let fits = member.len.saturating_mul(MAX_DEFLATE_RATIO) >= unit
                    && member.len <= max_member_len(unit);
                if !fits {
                    let (what, found) = (member_item(number), member.len);
                    return Err(OpenError::Field { what, found, expected: "as long as a unit can be" });
                }
                let (stored, encoding) = (file.stored(member), Encoding::Gzip);
                map.push(unit, State::Encoded { stored, encoding, unit_len: unit, skip: 0 });
                // The index is held as long; a run may be the whole disk.
                check_memory(map.memory().saturating_add(index))?;
            }
        }
        let mut image = raw::with_map(sparse.real_size, map)?;
        image.member = Some(RAW_DISK.to_owned());
        let Some((number, end)) = numbered.next() else { return Err(OpenError::Answer) };
        let what = member_item(number);
        check_len(end.len, what)?;
        Ok(Open::need_one(file.stored(end), move |bytes| {
            let content = content(&bytes, what)?;
            let is_end = content.len() as u64 >= 2 * BLOCK && content.iter().all(|&byte| byte == 0);
            match is_end {
                true => Ok(Open::Ready(image)),
                false => {
                    let found = content.len() as u64;
                    Err(OpenError::Field { what, found, expected: "the end of the tar archive" })
                }
            }
        }))
    }
}

fn member_item(number: usize) -> Item {
    Item::Numbered("gzip member", number as u64)
}

fn check_len(len: u64, what: Item) -> Result<(), OpenError> {
    if len > METADATA_STEP {
        return Err(OpenError::Limit { what, found: len, limit: METADATA_STEP });
    }
    Ok(())
}

/// What is in a member of header or end.
fn content(member: &[u8], what: Item) -> Result<Vec<u8>, OpenError> {
    let found = member.last_chunk().map_or(0, |&len| u64::from(u32::from_le_bytes(len)));
    check_len(found, what)?;
    let mut content = vec![0; usize::try_from(found).unwrap_or_default()];
    match gzip(&mut libdeflater::Decompressor::new(), member, &mut content) {
        Ok(len) if len == content.len() => Ok(content),
        _ => Err(OpenError::Field { what, found, expected: "the length of what its deflate stream holds" }),
    }
}
