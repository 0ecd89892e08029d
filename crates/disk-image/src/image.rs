//! An opened disk image.

use crate::{ExtentMap, OpenError, Reference, qcow2, vhd, vhdx, vmdk};

/// A disk image format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The disk's bytes, nothing else.
    Raw,
    /// QEMU copy-on-write, versions 2 and 3.
    Qcow2,
    /// VMware virtual disk.
    Vmdk,
    /// Virtual PC and Hyper-V virtual hard disk, which QEMU calls vpc.
    Vhd,
    /// Hyper-V virtual hard disk, version 2.
    Vhdx,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
        })
    }
}

/// An opened disk image: every pointer, count and size that leads to guest bytes has been checked.
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) virtual_size: u64,
    pub(crate) map: ExtentMap,
    pub(crate) details: Details,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) references: Vec<Reference>,
    pub(crate) partial: bool,
    pub(crate) member: Option<String>,
}

impl Image {
    /// The format.
    pub fn format(&self) -> Format {
        match self.details {
            Details::Raw => Format::Raw,
            Details::Qcow2(_) => Format::Qcow2,
            Details::Vmdk(_) => Format::Vmdk,
            Details::Vhd(_) => Format::Vhd,
            Details::Vhdx(_) => Format::Vhdx,
        }
    }

    /// Bytes that the guest sees: a multiple of 512, above zero.
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Where each guest byte is stored.
    pub fn map(&self) -> &ExtentMap {
        &self.map
    }

    /// The same image with a refined map, for example one in which stored zeroes are marked.
    ///
    /// # Panics
    ///
    /// If the map is not as long as the virtual size.
    #[must_use]
    pub fn with_map(mut self, map: ExtentMap) -> Self {
        assert_eq!(map.guest_len(), self.virtual_size, "a map covers exactly the virtual disk");
        self.map = map;
        self
    }

    /// What only this format has.
    pub fn details(&self) -> &Details {
        &self.details
    }

    /// What a user should know and may ignore.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The files that the image names, and those that they name.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// True if some of them were passed over: then what they hold counts as holes, and the map is good for information only.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// The member that it is of an archive, an OVA or one for Compute Engine, if it is one. Errors count from the start of the member, runs of the map from
    /// that of the file.
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }

    pub(crate) fn new(virtual_size: u64, map: ExtentMap, details: Details) -> Self {
        Self {
            virtual_size,
            map,
            details,
            warnings: Vec::new(),
            references: Vec::new(),
            partial: false,
            member: None,
        }
    }

    /// This layer over the one beneath it, as long as this one is.
    pub(crate) fn over(mut self, below: Self) -> Result<Self, OpenError> {
        self.map = self.map.over(&below.map)?;
        self.warnings.extend(below.warnings);
        self.references.extend(below.references);
        self.partial |= below.partial;
        Ok(self)
    }
}

/// What only one format has.
#[derive(Debug, Clone)]
pub enum Details {
    /// Nothing.
    Raw,
    /// From the QCOW2 header.
    Qcow2(qcow2::Details),
    /// From the VMDK header and descriptor.
    Vmdk(vmdk::Details),
    /// From the VHD footer and header.
    Vhd(vhd::Details),
    /// From the VHDX metadata.
    Vhdx(vhdx::Details),
}

/// Something odd about an image that can still be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The file's length is not a multiple of 512.
    #[error("the length {0} is not a multiple of 512; the last sector is filled up with zeroes")]
    PartialSector(u64),
    /// QCOW2 dirty bit: refcounts may be stale. Reading needs none.
    #[error("the image was not closed cleanly (dirty bit); its guest data is read as it stands")]
    Dirty,
    /// QCOW2 corrupt bit.
    #[error("the image is marked corrupt; what the checks here can prove was proved")]
    Corrupt,
    /// QCOW2 internal snapshots, which are not converted.
    #[error("the image has {0} internal snapshots; only the current state is read")]
    Snapshots(u32),
    /// QCOW2 snapshot table with damage that does not touch what is read.
    #[error("entry {0} of the internal snapshot table is damaged; what is read here needs none of it")]
    SnapshotTable(u32),
    /// VMDK marked as being in use.
    #[error("the image was not closed cleanly (unclean shutdown flag)")]
    UncleanShutdown,
    /// VMDK stream that was read through to find its directory.
    #[error(
        "no footer at the end of the stream; its directory was found by following all markers up to the end of the stream"
    )]
    NoFooter,
    /// VMDK whose redundant directory was used.
    #[error("the grain directory is damaged; its redundant copy was read")]
    RedundantDirectory,
}
