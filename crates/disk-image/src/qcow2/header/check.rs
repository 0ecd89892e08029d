//! What must hold of the fields of a QCOW2 header.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{CLUSTER_BITS, ENTRY, Header, RAW_DATA_FILE, Root, field, incompatible, limit};
use crate::limits::{MAX_L1_LEN, MAX_QCOW2_SNAPSHOTS, MAX_REFCOUNT_TABLE_LEN, MAX_VIRTUAL_SIZE};
use crate::{Feature, Item, OpenError, Span};

/// Least `cluster_bits` with subclusters: 32 of them, a sector each.
const SUBCLUSTERS_FROM: u32 = 14;

impl Header {
    /// Refuses what is not read here, by name.
    pub(super) fn check_features(&self) -> Result<(), OpenError> {
        let bits = self.incompatible_features;
        let unknown = bits & !incompatible::KNOWN;
        let has = |bit| bits & bit != 0;
        let missing = if unknown != 0 {
            #[expect(clippy::cast_possible_truncation, reason = "a bit number is at most 63")]
            Feature::IncompatibleBit(unknown.trailing_zeros() as u8)
        } else if has(incompatible::COMPRESSION_TYPE) && self.compression_type > 1 {
            Feature::CompressionType(self.compression_type)
        } else if self.crypt_method == 1 {
            Feature::Aes
        } else if self.crypt_method == 2 {
            Feature::Luks
        } else {
            return Ok(());
        };
        Err(OpenError::Unsupported(missing))
    }

    pub(super) fn check_values(&self) -> Result<(), OpenError> {
        if self.crypt_method != 0 {
            return Err(field("crypt_method of the QCOW2 header", self.crypt_method, "0, 1 or 2"));
        }
        let non_default = self.incompatible_features & incompatible::COMPRESSION_TYPE != 0;
        if non_default != (self.compression_type != 0) {
            let expected =
                if non_default { "1, as feature bit 3 is set" } else { "0, as feature bit 3 is clear" };
            return Err(field("compression_type of the QCOW2 header", self.compression_type, expected));
        }
        if self.refcount_order > 6 {
            return Err(field("refcount_order of the QCOW2 header", self.refcount_order, "at most 6"));
        }
        if !CLUSTER_BITS.contains(&self.cluster_bits) {
            return Err(field("cluster_bits of the QCOW2 header", self.cluster_bits, "9 to 21"));
        }
        if self.has_subclusters() && self.cluster_bits < SUBCLUSTERS_FROM {
            let expected = "14 to 21, as there are extended L2 entries";
            return Err(field("cluster_bits of the QCOW2 header", self.cluster_bits, expected));
        }
        if u64::from(self.header_length) > self.cluster_size() {
            return Err(field(
                "header_length of the QCOW2 header",
                self.header_length,
                "at most the cluster size",
            ));
        }
        check_size("size of the QCOW2 header", self.size)?;
        self.check_data_file()
    }

    /// Checks what does not go together with a data file.
    fn check_data_file(&self) -> Result<(), OpenError> {
        let raw = self.autoclear_features & RAW_DATA_FILE != 0;
        if raw && !self.has_data_file() {
            let expected = "bit 1 clear, as incompatible feature bit 2 is clear";
            return Err(field("autoclear_features of the QCOW2 header", self.autoclear_features, expected));
        }
        if raw && self.backing_file_offset != 0 {
            let expected = "0, as the external data file is raw";
            return Err(field("backing_file_offset of the QCOW2 header", self.backing_file_offset, expected));
        }
        if self.has_data_file() && self.nb_snapshots != 0 {
            let expected = "0, as there is an external data file";
            return Err(field("nb_snapshots of the QCOW2 header", self.nb_snapshots, expected));
        }
        Ok(())
    }

    /// Checks every table that the header points to.
    pub(super) fn check_geometry(&self, file_len: u64) -> Result<(), OpenError> {
        let root = self.root();
        self.check_l1_len(&root, "l1_size of the QCOW2 header", self.l1_size)?;
        self.check_table("L1 table", "l1_table_offset of the QCOW2 header", root.l1, file_len)?;

        let refcount_table = self.refcount_table();
        if self.refcount_table_clusters == 0 {
            return Err(field("refcount_table_clusters of the QCOW2 header", 0_u32, "at least 1"));
        }
        if refcount_table.len > MAX_REFCOUNT_TABLE_LEN {
            let most = MAX_REFCOUNT_TABLE_LEN >> self.cluster_bits;
            return Err(limit(
                "refcount_table_clusters of the QCOW2 header",
                self.refcount_table_clusters,
                most,
            ));
        }
        self.check_table(
            "refcount table",
            "refcount_table_offset of the QCOW2 header",
            refcount_table,
            file_len,
        )?;

        if self.nb_snapshots > MAX_QCOW2_SNAPSHOTS {
            return Err(limit(
                "nb_snapshots of the QCOW2 header",
                self.nb_snapshots,
                MAX_QCOW2_SNAPSHOTS.into(),
            ));
        }
        if self.nb_snapshots > 0 {
            // How long it is, is known only by walking it.
            let start = Span::new(self.snapshots_offset, 1);
            self.check_table("snapshot table", "snapshots_offset of the QCOW2 header", start, file_len)?;
        }
        Ok(())
    }

    /// Checks that an L1 table of `entries` entries maps its disk, and is none that only asks for memory.
    pub(in crate::qcow2) fn check_l1_len(
        &self,
        root: &Root,
        entries_name: &'static str,
        entries: u32,
    ) -> Result<(), OpenError> {
        if root.l1.len > MAX_L1_LEN {
            return Err(limit(entries_name, entries, MAX_L1_LEN / ENTRY));
        }
        if u64::from(entries) < self.l1_needed(root.guest_len) {
            return Err(field(entries_name, entries, "enough entries for the virtual size"));
        }
        Ok(())
    }

    /// Checks that a table lies in a cluster of its own, inside the file.
    pub(in crate::qcow2) fn check_table(
        &self,
        name: &'static str,
        pointer: &'static str,
        span: Span,
        file_len: u64,
    ) -> Result<(), OpenError> {
        if span.start == 0 || !span.start.is_multiple_of(self.cluster_size()) {
            return Err(field(pointer, span.start, "a multiple of the cluster size, above 0"));
        }
        if span.end() > file_len {
            return Err(OpenError::Truncated { what: Item::The(name), span, file_len });
        }
        Ok(())
    }
}

/// Checks a virtual size.
pub(in crate::qcow2) fn check_size(name: &'static str, size: u64) -> Result<(), OpenError> {
    if size == 0 {
        return Err(field(name, size, "a disk that has bytes"));
    }
    if size > MAX_VIRTUAL_SIZE {
        return Err(limit(name, size, MAX_VIRTUAL_SIZE));
    }
    Ok(())
}
