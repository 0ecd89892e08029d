//! The createType of a descriptor: what kind of disk this is.
//!
//! Source: *Virtual Disk Format 5.0*, "createType"; the types that came after it by VMware's knowledge base and open-vmdk. Which
//! extents a disk has is said by its extent lines alone; the type only tells whether all of its kind is read here.

/// The kinds of VMDK that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CreateType {
    /// One growing file, as hosted VMware products use it.
    MonolithicSparse,
    /// One file as long as the disk, and a descriptor.
    MonolithicFlat,
    /// Growing files of up to 2 GiB, and a descriptor.
    TwoGbMaxExtentSparse,
    /// Files of up to 2 GiB that are as long as their share of the disk, and a descriptor.
    TwoGbMaxExtentFlat,
    /// One compressed file that can be written and read as a stream, as in OVA.
    StreamOptimized,
    /// On ESX: a flat file.
    Vmfs,
    /// On ESX: a flat file, allocated.
    VmfsPreallocated,
    /// On ESX: a flat file, allocated and written.
    VmfsEagerZeroedThick,
    /// On ESX: a flat file that the file system allocates as it is written.
    VmfsThin,
    /// On ESX: a delta (COWD).
    VmfsSparse,
    /// On ESX since 5.5: a delta that takes more than 2 TiB, and gives back what the guest discards.
    SeSparse,
    /// Extents of any kinds.
    Custom,
}

/// Names of those that are read.
const READ: &[(&str, CreateType)] = &[
    ("monolithicSparse", CreateType::MonolithicSparse),
    ("monolithicFlat", CreateType::MonolithicFlat),
    ("twoGbMaxExtentSparse", CreateType::TwoGbMaxExtentSparse),
    ("2GbMaxExtentSparse", CreateType::TwoGbMaxExtentSparse),
    ("twoGbMaxExtentFlat", CreateType::TwoGbMaxExtentFlat),
    ("2GbMaxExtentFlat", CreateType::TwoGbMaxExtentFlat),
    ("streamOptimized", CreateType::StreamOptimized),
    ("vmfs", CreateType::Vmfs),
    ("vmfsPreallocated", CreateType::VmfsPreallocated),
    ("vmfsEagerZeroedThick", CreateType::VmfsEagerZeroedThick),
    ("vmfsThin", CreateType::VmfsThin),
    ("vmfsSparse", CreateType::VmfsSparse),
    ("seSparse", CreateType::SeSparse),
    ("custom", CreateType::Custom),
];

/// Names of those that are refused: a device of the host is no file, and vSAN's objects are no public format.
const REFUSED: &[&str] = &[
    "fullDevice",
    "partitionedDevice",
    "vmfsRDM",
    "vmfsRawDeviceMap",
    "vmfsRDMP",
    "vmfsPassthroughRawDeviceMap",
    "vmfsRaw",
    "vsanSparse",
];

/// A createType as a descriptor has it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named {
    /// It is read.
    Read(CreateType),
    /// It is known, and not read.
    Refused(&'static str),
    /// It is in no list.
    Unknown,
}

impl CreateType {
    /// The name, as descriptors have it.
    pub(super) fn name(self) -> &'static str {
        READ.iter().find(|(_, read)| *read == self).map_or("custom", |(name, _)| name)
    }

    /// True if such a disk has its descriptor inside of its only file.
    pub(super) fn is_one_file(self) -> bool {
        matches!(self, Self::MonolithicSparse | Self::StreamOptimized)
    }
}

impl std::fmt::Display for CreateType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Named {
    pub(super) fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if let Some((_, read)) = READ.iter().find(|(known, _)| is(known)) {
            return Self::Read(*read);
        }
        REFUSED.iter().find(|known| is(known)).map_or(Self::Unknown, |known| Self::Refused(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_name() {
        for (name, read) in READ {
            let expected = name.replace("2Gb", "twoGb");
            assert_eq!(read.to_string(), expected);
            assert!(
                matches!(Named::of(name.to_lowercase().as_bytes()), Named::Read(found) if found == *read)
            );
        }
        for name in REFUSED {
            assert!(matches!(Named::of(name.as_bytes()), Named::Refused(found) if found == *name));
        }
        assert!(matches!(Named::of(b"monolithic"), Named::Unknown));
    }
}
