//! Entries of the L1 and L2 tables: what each says of its guest bytes.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, sections "Cluster mapping" and "Extended L2 Entries". An L2 entry points to a standard
//! cluster, stored as it is, or to a compressed one. With extended entries a standard cluster has 32 subclusters, and each of them
//! is stored, zero, or left to the layer beneath.
//!
//! Where the clusters lie in an external data file, each lies at its own guest offset. The specification wants that of every data
//! file, and QEMU refuses to read another offset.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::claims::Claims;
use crate::qcow2::header::Header;
use crate::span::Window;
use crate::{ExtentMapBuilder, Item, OpenError, Span, State};

/// Guest disks are made of sectors of this size, and compressed clusters are counted in them.
pub(super) const SECTOR: u64 = 512;

/// Bits 9-55 of an L1 entry or a standard L2 entry: the offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an L1 entry that must be 0. Bit 63 says that the refcount is 1, and need not be right.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of a standard L2 entry that must be 0.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Bit 63 of an L2 entry: the refcount is 1. With a data file it tells offset 0 from no offset.
const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry.
const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of a standard L2 entry: reads as zero. Reserved where there are subclusters.
const ZERO: u64 = 1;

/// Subclusters of a cluster.
const SUBCLUSTERS: u32 = 32;

/// How error messages call the tables.
const L2_TABLE: &str = "L2 table";
const SUBCLUSTER_BITMAP: &str = "subcluster bitmap in L2 table";

/// Where the guest clusters lie.
#[derive(Debug)]
pub(super) enum Store {
    /// In the image itself.
    Image,
    /// In the data file, at their guest offsets.
    DataFile {
        file: Window,
        /// The runs of it that may hold data, where that is known; the rest is zero.
        allocation: Option<Vec<Span>>,
    },
    /// In the data file, which was not opened.
    Skipped,
}

/// What decoding of an entry depends on.
pub(super) struct Geometry {
    header: Header,
    /// Where the tables and the compressed clusters lie.
    pub file: Window,
    /// Where the standard clusters lie.
    pub store: Store,
    /// Bytes in a cluster.
    pub cluster: u64,
    /// Guest bytes that exist, by the header.
    pub guest_len: u64,
    /// Bits of a compressed entry that hold its offset; the sector count stands above them.
    offset_bits: u32,
}

/// What the tables have come to.
pub(super) struct Output {
    pub map: ExtentMapBuilder,
    /// What of the image's own file is in use.
    pub claims: Claims,
    /// Guest bytes of compressed clusters.
    pub encoded: u64,
}

/// An L2 entry.
#[derive(Clone, Copy)]
struct Entry {
    value: u64,
    /// The second half of an extended entry.
    bitmap: u64,
    /// The L1 entry above it, and its index in the table.
    at: (u64, u64),
    /// Where its guest bytes begin, and how many of them the disk has.
    guest: Span,
}

impl Entry {
    fn item(&self) -> Item {
        Item::EntryOf(L2_TABLE, self.at.0, self.at.1)
    }

    fn fault(&self, expected: &'static str) -> OpenError {
        OpenError::Field { what: self.item(), found: self.value, expected }
    }

    fn bitmap_fault(&self, expected: &'static str) -> OpenError {
        let what = Item::EntryOf(SUBCLUSTER_BITMAP, self.at.0, self.at.1);
        OpenError::Field { what, found: self.bitmap, expected }
    }
}

impl Geometry {
    pub(super) fn new(header: Header, guest_len: u64, file: Window, store: Store) -> Self {
        Self {
            header,
            file,
            store,
            cluster: header.cluster_size(),
            guest_len,
            // `cluster_bits` was checked to be 9 to 21.
            offset_bits: 70_u32.saturating_sub(header.cluster_bits),
        }
    }

    /// Where the L2 table of an L1 entry starts; `None` if it does not exist.
    pub(super) fn l2_table(&self, entry: u64, what: Item) -> Result<Option<u64>, OpenError> {
        let start = entry & OFFSET;
        let fault = |expected| OpenError::Field { what, found: entry, expected };
        if entry & L1_RESERVED != 0 {
            return Err(fault("bits 0-8 and 56-62 to be 0"));
        }
        if start == 0 {
            return Ok(None);
        }
        if !start.is_multiple_of(self.cluster) {
            return Err(fault("a multiple of the cluster size"));
        }
        check_inside(self.file, what, Span::new(start, self.cluster))?;
        Ok(Some(start))
    }

    /// Appends the guest clusters of the L2 table that L1 entry `index` points to.
    pub(super) fn push_table(&self, out: &mut Output, table: &[u8], index: u64) -> Result<(), OpenError> {
        let first = index.saturating_mul(self.header.l2_reach());
        out.map.push(first.saturating_sub(out.map.guest_len()), State::Hole);
        let per_entry = if self.header.has_subclusters() { 2 } else { 1 };
        let mut words = entries(table);
        let mut guest = Span::new(first, 0);
        let mut number = 0_u64;
        // Most entries of a sparse disk are empty: their clusters become one run before the map hears of them.
        let mut hole = 0_u64;
        while let Some(value) = words.next() {
            guest.len = self.guest_len.saturating_sub(guest.start).min(self.cluster);
            if guest.is_empty() {
                break;
            }
            let bitmap = if per_entry == 2 { words.next().unwrap_or(0) } else { 0 };
            if value == 0 && bitmap == 0 {
                hole = hole.saturating_add(guest.len);
            } else {
                out.map.push(std::mem::take(&mut hole), State::Hole);
                self.push(out, &Entry { value, bitmap, at: (index, number), guest })?;
            }
            guest.start = guest.start.saturating_add(self.cluster);
            number = number.saturating_add(1);
        }
        out.map.push(hole, State::Hole);
        Ok(())
    }

    /// Appends the guest cluster of an entry that is not empty.
    fn push(&self, out: &mut Output, entry: &Entry) -> Result<(), OpenError> {
        if entry.value & COMPRESSED != 0 {
            return self.push_compressed(out, entry);
        }
        if self.header.has_subclusters() {
            return self.push_subclusters(out, entry);
        }
        if entry.value & L2_RESERVED != 0 {
            return Err(entry.fault("bits 1-8 and 56-61 to be 0"));
        }
        let place = self.place(out, entry)?;
        if entry.value & ZERO != 0 {
            if self.header.version == 2 {
                return Err(entry.fault("no zero flag, as this is version 2"));
            }
            // A zero cluster may keep its place in the file; nothing is read from there.
            out.map.push(entry.guest.len, State::Zero);
            return Ok(());
        }
        let place = place.ok_or_else(|| entry.fault("an offset above 0"))?;
        self.push_stored(out, entry, place, Span::new(0, entry.guest.len))
    }

    /// A cluster whose subclusters may differ.
    fn push_subclusters(&self, out: &mut Output, entry: &Entry) -> Result<(), OpenError> {
        if entry.value & (L2_RESERVED | ZERO) != 0 {
            return Err(entry.fault("bits 0-8 and 56-61 to be 0"));
        }
        let place = self.place(out, entry)?;
        if place.is_none() && entry.value != 0 {
            return Err(entry.fault("an offset above 0"));
        }
        let (stored, zero) = (entry.bitmap & u64::from(u32::MAX), entry.bitmap >> SUBCLUSTERS);
        if stored & zero != 0 {
            return Err(entry.bitmap_fault("no subcluster that is both allocated and zero"));
        }
        if stored != 0 && place.is_none() {
            return Err(entry.bitmap_fault("no allocated subcluster, as the cluster has no offset"));
        }
        // `cluster_bits` is at least 14.
        let subcluster = self.cluster >> 5;
        let mut from = 0_u32;
        while from < SUBCLUSTERS {
            let (stored, zero) = (stored >> from, zero >> from);
            let count = match (stored & 1, zero & 1) {
                (1, _) => stored.trailing_ones(),
                (_, 1) => zero.trailing_ones(),
                _ => (stored | zero).trailing_zeros(),
            };
            let to = from.saturating_add(count).min(SUBCLUSTERS);
            let run = Span::between(
                subcluster.saturating_mul(from.into()),
                subcluster.saturating_mul(to.into()).min(entry.guest.len),
            );
            match (stored & 1, zero & 1, place) {
                (1, _, Some(place)) => self.push_stored(out, entry, place, run)?,
                (_, 1, _) => out.map.push(run.len, State::Zero),
                _ => out.map.push(run.len, State::Hole),
            }
            from = to;
        }
        Ok(())
    }

    /// Where a standard cluster lies, or keeps its place; `None` if it has none. Claims it.
    fn place(&self, out: &mut Output, entry: &Entry) -> Result<Option<u64>, OpenError> {
        let start = entry.value & OFFSET;
        let is_image = matches!(self.store, Store::Image);
        if start == 0 && (is_image || entry.value & COPIED == 0) {
            return Ok(None);
        }
        if !start.is_multiple_of(self.cluster) {
            return Err(entry.fault("a multiple of the cluster size"));
        }
        if is_image {
            out.claims.claim(Span::new(start, self.cluster), entry.item())?;
        } else if start != entry.guest.start {
            return Err(entry.fault("the guest offset, as the cluster lies in an external data file"));
        }
        Ok(Some(start))
    }

    /// Appends the bytes `run` of a cluster that is stored at `place`.
    fn push_stored(&self, out: &mut Output, entry: &Entry, place: u64, run: Span) -> Result<(), OpenError> {
        let span = Span::new(place.saturating_add(run.start), run.len);
        match &self.store {
            Store::Skipped => out.map.push(run.len, State::Hole),
            Store::Image => {
                check_inside(self.file, entry.item(), span)?;
                out.map.push(run.len, State::Data(self.file.stored(span)));
            }
            Store::DataFile { file, allocation } => {
                // A raw disk may end inside a sector, and is filled up with zeroes.
                let there = span.intersect(Span::new(0, file.len));
                if span.end() > file.len.checked_next_multiple_of(SECTOR).unwrap_or(file.len) {
                    let error = check_inside(*file, entry.item(), span);
                    return error.map_err(|error| error.in_file(file.file));
                }
                push_allocated(&mut out.map, *file, allocation.as_deref(), there);
                out.map.push(run.len.saturating_sub(there.len), State::Zero);
            }
        }
        Ok(())
    }

    fn push_compressed(&self, out: &mut Output, entry: &Entry) -> Result<(), OpenError> {
        if !matches!(self.store, Store::Image) {
            return Err(entry.fault("no compressed cluster, as there is an external data file"));
        }
        if entry.bitmap != 0 {
            return Err(entry.bitmap_fault("0, as the cluster is compressed"));
        }
        let descriptor = entry.value & (COMPRESSED - 1);
        let start = descriptor & (1_u64 << self.offset_bits).saturating_sub(1);
        let more_sectors = descriptor >> self.offset_bits;
        if start >> 56 != 0 {
            return Err(entry.fault("offset bits above 55 to be 0"));
        }
        if start < self.cluster {
            return Err(entry.fault("an offset past the header's cluster"));
        }
        // At most 2 cluster sizes past an offset below 2^56.
        let sectors_end =
            (start / SECTOR).saturating_add(more_sectors).saturating_add(1).saturating_mul(SECTOR);
        // A writer need not fill up the last sector of the file, and some count one too many.
        let least = Span::between(start, sectors_end.saturating_sub(SECTOR).max(start.saturating_add(1)));
        check_inside(self.file, entry.item(), least)?;
        let span = Span::between(start, sectors_end.min(self.file.len));
        out.claims.claim_stream(span, entry.item())?;
        out.encoded = out.encoded.saturating_add(entry.guest.len);
        let stored = self.file.stored(span);
        let encoding = self.header.compression();
        out.map.push(entry.guest.len, State::Encoded { stored, encoding, unit_len: self.cluster, skip: 0 });
        Ok(())
    }
}

/// Appends a run of the data file; a preallocated one is mostly holes.
fn push_allocated(map: &mut ExtentMapBuilder, file: Window, allocation: Option<&[Span]>, span: Span) {
    let Some(allocation) = allocation else {
        return map.push(span.len, State::Data(file.stored(span)));
    };
    let first = allocation.partition_point(|run| run.end() <= span.start);
    let runs = allocation.get(first..).unwrap_or_default().iter();
    let mut at = span.start;
    for run in runs.take_while(|run| run.start < span.end()) {
        let run = run.intersect(Span::between(at, span.end()));
        map.push(run.start.saturating_sub(at), State::Zero);
        map.push(run.len, State::Data(file.stored(run)));
        at = run.end();
    }
    map.push(span.end().saturating_sub(at), State::Zero);
}

fn check_inside(file: Window, what: Item, span: Span) -> Result<(), OpenError> {
    if span.end() > file.len {
        return Err(OpenError::Truncated { what, span, file_len: file.len });
    }
    Ok(())
}

/// The 64-bit entries of a table, or of a piece of one.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|&entry| u64::from_be_bytes(entry))
}
