//! The refcount table, as far as reading needs it: where the refcount blocks lie.
//!
//! Source: QEMU `docs/interop/qcow2.rst`, section "Host cluster management". Refcounts themselves tell a reader nothing, and the
//! blocks are not read. But a guest cluster that lies on one is a lie, so each block is claimed. Cost: the table is read
//! once, at most [`MAX_REFCOUNT_TABLE_LEN`](crate::limits::MAX_REFCOUNT_TABLE_LEN).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::claims::Claims;
use crate::qcow2::fields::entries;
use crate::qcow2::header::{ENTRY, Header};
use crate::span::Window;
use crate::{Item, Open, OpenError, Span};

/// How error messages call it.
const TABLE: &str = "refcount table";

/// Bits of an entry that must be 0.
const RESERVED: u64 = 0x1ff;

/// Claims the refcount blocks, from table entry `first` on, about `step` bytes of the table at a time.
pub(super) fn claim(
    header: Header,
    file: Window,
    mut claims: Claims,
    first: u64,
    step: u64,
) -> Result<Open<Claims>, OpenError> {
    let whole = header.refcount_table();
    let at = whole.start.saturating_add(first.saturating_mul(ENTRY));
    let want = Span::between(at, whole.end().min(at.saturating_add(step)));
    if want.is_empty() {
        return Ok(Open::Ready(claims));
    }
    Ok(Open::need_one(file.stored(want), move |bytes| {
        for (index, entry) in (first..).zip(entries(&bytes)).filter(|(_, entry)| *entry != 0) {
            let what = Item::Entry(TABLE, index);
            let fault = |expected| OpenError::Field { what, found: entry, expected };
            if entry & RESERVED != 0 {
                return Err(fault("bits 0-8 to be 0"));
            }
            if !entry.is_multiple_of(header.cluster_size()) {
                return Err(fault("a multiple of the cluster size"));
            }
            let block = Span::new(entry, header.cluster_size());
            if block.end() > file.len {
                return Err(OpenError::Truncated { what, span: block, file_len: file.len });
            }
            claims.claim(block, what)?;
        }
        let next = first.saturating_add((want.len / ENTRY).max(1));
        claim(header, file, claims, next, step)
    }))
}
