//! Internal snapshots: the table that lists them, and the L1 table of each.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, section "Snapshots". A snapshot is an L1 table of its own; the L2 tables and clusters
//! beneath are shared with the other states of the disk. An entry of the snapshot table has 40 fixed bytes, then extra data, id and
//! name, and is filled up to a multiple of 8.
//!
//! The table is always walked, because its bytes and the L1 tables in it must not be guest data as well: where it lies on something
//! else, or leads past the end of the file, the image is refused. Any other damage in it says nothing of the active state, so
//! that is read, with a [`Warning::SnapshotTable`](crate::Warning), and only the damaged snapshot is refused.
//!
//! Cost: the table is read once, in steps; ids and names are held, counted as memory of the map.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::claims::Claims;
use crate::limits::{
    MAX_MAP_MEMORY, MAX_QCOW2_SNAPSHOT_EXTRA, MAX_QCOW2_SNAPSHOT_L1, MAX_QCOW2_SNAPSHOT_TABLE,
};
use crate::qcow2::fields::Fields;
use crate::qcow2::header::check::check_size;
use crate::qcow2::header::{ENTRY, Header, Root};
use crate::span::Window;
use crate::{Item, Open, OpenError, Span};

/// How error messages call it.
const TABLE: &str = "snapshot table";

/// Fixed bytes of an entry.
const FIXED_LEN: usize = 40;

/// No entry is longer: the fixed bytes, extra data, an id and a name.
const MAX_ENTRY_LEN: u64 = 40 + MAX_QCOW2_SNAPSHOT_EXTRA as u64 + 2 * 65535 + 7;

/// About what an entry takes, to ask for neither too little nor too much.
const USUAL_ENTRY_LEN: u64 = 128;

/// An internal snapshot. Id and name come from the image: hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What tells it from the others; QEMU counts them.
    pub id: String,
    /// What the user calls it.
    pub name: String,
    /// Bytes that the guest saw.
    pub virtual_size: u64,
    /// Bytes of saved VM state; 0 if there is none.
    pub vm_state_size: u64,
    /// When it was taken, seconds since the epoch.
    pub date_seconds: u32,
}

/// What the snapshot table says.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    pub list: Vec<Snapshot>,
    /// The L1 table of each, and its number of entries.
    roots: Vec<(Root, u32)>,
    /// Bytes of all L1 tables.
    l1_len: u64,
    /// The first entry that is damaged, and what is wrong with it.
    pub damage: Option<(u32, OpenError)>,
    /// True if nothing behind the damage could be read.
    is_cut: bool,
    memory: usize,
}

/// One entry, and how many bytes it takes.
struct Entry {
    snapshot: Snapshot,
    root: Root,
    l1_entries: u32,
    len: usize,
}

impl Snapshots {
    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// The L1 table of the snapshot with this id, or else with this name.
    ///
    /// # Errors
    ///
    /// If there is none or more than one, or if it is damaged.
    pub(super) fn find(&self, wanted: &str, header: &Header) -> Result<Root, OpenError> {
        if let Some((_, error)) = self.damage.as_ref().filter(|_| self.is_cut) {
            // Another one of this name might have been listed behind the damage.
            return Err(error.clone());
        }
        let with = |key: fn(&Snapshot) -> &str| {
            let mut roots = self.list.iter().zip(&self.roots).filter(move |(one, _)| key(one) == wanted);
            match (roots.next(), roots.next()) {
                (Some(_), Some(_)) => Err(OpenError::SeveralSnapshots),
                (found, _) => Ok(found.map(|(_, root)| *root)),
            }
        };
        let found = match with(|one| &one.id)? {
            Some(root) => Some(root),
            None => with(|one| &one.name)?,
        };
        let (root, entries) = found.ok_or(OpenError::NoSnapshot)?;
        check_root(header, &root, entries)?;
        Ok(root)
    }

    fn push(&mut self, entry: Entry) {
        let Entry { snapshot, root, l1_entries, .. } = entry;
        self.memory = self
            .memory
            .saturating_add(size_of::<Snapshot>())
            .saturating_add(size_of::<(Root, u32)>())
            .saturating_add(snapshot.id.len())
            .saturating_add(snapshot.name.len());
        self.list.push(snapshot);
        self.roots.push((root, l1_entries));
    }

    fn damaged(&mut self, error: OpenError) {
        let index = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.damage.get_or_insert((index, error));
    }

    fn check_memory(&self) -> Result<(), OpenError> {
        if self.memory > MAX_MAP_MEMORY {
            return Err(limit(
                Item::The("memory of the snapshot list"),
                self.memory as u64,
                MAX_MAP_MEMORY as u64,
            ));
        }
        Ok(())
    }
}

/// Walks the table, about `step` bytes at a time.
pub(super) fn read(
    header: Header,
    file: Window,
    claims: Claims,
    step: u64,
) -> Result<Open<(Snapshots, Claims)>, OpenError> {
    if header.nb_snapshots == 0 {
        return Ok(Open::Ready((Snapshots::default(), claims)));
    }
    Walk { header, file, claims, step, at: header.snapshots_offset, found: Snapshots::default() }.next()
}

/// What is known so far. Handed from step to step.
struct Walk {
    header: Header,
    file: Window,
    claims: Claims,
    step: u64,
    /// Where the next entry starts.
    at: u64,
    found: Snapshots,
}

impl Walk {
    fn next(mut self) -> Result<Open<(Snapshots, Claims)>, OpenError> {
        let left = u64::from(self.header.nb_snapshots).saturating_sub(self.found.list.len() as u64);
        if left == 0 || self.found.is_cut {
            return self.finish();
        }
        let len = left
            .saturating_mul(USUAL_ENTRY_LEN)
            .clamp(MAX_ENTRY_LEN, self.step.max(MAX_ENTRY_LEN))
            .min(self.file.len.saturating_sub(self.at));
        let want = Span::new(self.at, len);
        if want.is_empty() {
            return Err(self.truncated(1));
        }
        Ok(Open::need_one(self.file.stored(want), move |bytes| {
            self.entries(&bytes)?;
            self.next()
        }))
    }

    /// Reads the entries that lie in `bytes` as a whole.
    fn entries(&mut self, mut bytes: &[u8]) -> Result<(), OpenError> {
        let at = self.at;
        while self.found.list.len() < self.header.nb_snapshots as usize && !self.found.is_cut {
            let read = read_entry(bytes, &self.header, self.found.list.len());
            let entry = match read {
                Ok(Some(entry)) => entry,
                // More bytes are asked for, unless these were the last ones.
                Ok(None) if self.at > at => break,
                Ok(None) => return Err(self.truncated(bytes.len() as u64)),
                Err(error) => {
                    self.found.damaged(error);
                    self.found.is_cut = true;
                    break;
                }
            };
            self.claim(&entry)?;
            self.at = self.at.saturating_add(entry.len as u64);
            let table_len = self.at.saturating_sub(self.header.snapshots_offset);
            if table_len > MAX_QCOW2_SNAPSHOT_TABLE {
                let what = Item::The("length of the snapshot table");
                self.found.damaged(limit(what, table_len, MAX_QCOW2_SNAPSHOT_TABLE));
                self.found.is_cut = true;
            }
            // The padding of the last entry may be missing.
            bytes = bytes.get(entry.len..).unwrap_or_default();
            self.found.push(entry);
        }
        self.found.check_memory()
    }

    /// Claims an L1 table. One that lies past the end shows that the file was cut.
    fn claim(&mut self, entry: &Entry) -> Result<(), OpenError> {
        let what = Item::Entry(TABLE, self.found.list.len() as u64);
        let l1 = entry.root.l1;
        if let Err(error) = check_root(&self.header, &entry.root, entry.l1_entries) {
            self.found.damaged(error);
            return Ok(());
        }
        if l1.end() > self.file.len {
            return Err(OpenError::Truncated { what, span: l1, file_len: self.file.len });
        }
        self.found.l1_len = self.found.l1_len.saturating_add(l1.len);
        if self.found.l1_len > MAX_QCOW2_SNAPSHOT_L1 {
            let what = Item::The("length of the L1 tables of all snapshots");
            return Err(limit(what, self.found.l1_len, MAX_QCOW2_SNAPSHOT_L1));
        }
        self.claims.claim(self.header.whole_clusters(l1), what)
    }

    fn finish(mut self) -> Result<Open<(Snapshots, Claims)>, OpenError> {
        // Where the table could not be walked to its end, its first byte is known at least.
        let end = self.at.max(self.header.snapshots_offset.saturating_add(1));
        let table = Span::between(self.header.snapshots_offset, end);
        self.claims.claim(self.header.whole_clusters(table), Item::The(TABLE))?;
        Ok(Open::Ready((self.found, self.claims)))
    }

    fn truncated(&self, len: u64) -> OpenError {
        let what = Item::Entry(TABLE, self.found.list.len() as u64);
        let span = Span::new(self.at, len.max(FIXED_LEN as u64));
        OpenError::Truncated { what, span, file_len: self.file.len }
    }
}

/// The entry at the start of `bytes`; `None` if they end before it does.
fn read_entry(bytes: &[u8], header: &Header, index: usize) -> Result<Option<Entry>, OpenError> {
    if bytes.len() < FIXED_LEN {
        return Ok(None);
    }
    let fixed = Fields(bytes);
    let extra_len = fixed.u32(36);
    if extra_len > MAX_QCOW2_SNAPSHOT_EXTRA {
        let what = Item::Entry("extra data of snapshot table", index as u64);
        return Err(limit(what, extra_len.into(), MAX_QCOW2_SNAPSHOT_EXTRA.into()));
    }
    let mut rest = bytes.get(FIXED_LEN..).unwrap_or_default();
    let mut next = |len: usize| {
        let (part, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(part)
    };
    let (id_len, name_len) = (usize::from(fixed.u16(12)), usize::from(fixed.u16(14)));
    let (Some(extra), Some(id), Some(name)) = (next(extra_len as usize), next(id_len), next(name_len)) else {
        return Ok(None);
    };
    let len = bytes.len().saturating_sub(rest.len());
    let extra_field =
        |at: usize| extra.get(at..).and_then(<[u8]>::first_chunk).map(|&b| u64::from_be_bytes(b));
    let virtual_size = extra_field(8).unwrap_or(header.size);
    let l1_entries = fixed.u32(8);
    let root = Root {
        name: "snapshot's L1 table",
        l1: Span::new(fixed.u64(0), u64::from(l1_entries).saturating_mul(ENTRY)),
        guest_len: virtual_size,
    };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let snapshot = Snapshot {
        id: text(id),
        name: text(name),
        virtual_size,
        vm_state_size: extra_field(0).unwrap_or(fixed.u32(32).into()),
        date_seconds: fixed.u32(16),
    };
    Ok(Some(Entry { snapshot, root, l1_entries, len: len.next_multiple_of(8) }))
}

/// The checks that the header's own L1 table passes, but for the end of the file.
fn check_root(header: &Header, root: &Root, entries: u32) -> Result<(), OpenError> {
    check_size("virtual size of the snapshot", root.guest_len)?;
    header.check_l1_len(root, "number of entries of the snapshot's L1 table", entries)?;
    header.check_table(root.name, "offset of the snapshot's L1 table", root.l1, u64::MAX)
}

fn limit(what: Item, found: u64, limit: u64) -> OpenError {
    OpenError::Limit { what, found, limit }
}
