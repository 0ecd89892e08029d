//! Archives: a tar with a disk in it, which is read in place.
//!
//! Two kinds. An OVA (DMTF DSP0243 *Open Virtualization Format* 2.1, section 5.3) holds a descriptor (`.ovf`), a manifest (`.mf`) and
//! disks (`.vmdk`): the VMDK parser sees the member as its file, descriptor and manifest are not read. What Compute Engine
//! imports holds a raw disk, `disk.raw`, in most cases sparse. The tar is that of POSIX.1 (`ustar`, and `pax` for long names and
//! sizes) or GNU tar; gzip around it is [`unpack`](crate::unpack)'s, or [`gce`](crate::gce)'s
//! where it was written here.
//!
//! Refused: several disks unless one is chosen; in an OVA disks that are compressed as files, cut into members, sparse or name other
//! files; links, headers with a wrong checksum, and an archive without its end: it was cut. What a raw disk holds is not
//! looked at: it is raw by its name.
//!
//! Cost: a read for each member that is not small, at most [`MAX_ARCHIVE_MEMBERS`](crate::limits::MAX_ARCHIVE_MEMBERS).

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub(crate) mod sparse;
pub(crate) mod tar;

use crate::span::Window;
use crate::{
    ExtentMapBuilder, Feature, Format, Image, Item, Layer, Open, OpenError, Span, State, open_as, raw,
};
use tar::{Archive, Member};

/// What Compute Engine calls the disk, and nothing else.
pub(crate) const RAW_DISK: &str = "disk.raw";

/// Opens the disk in an archive; the one of this name, where a name is given.
pub(crate) fn open(file: Window, layer: Layer, name: Option<String>) -> Result<Open<Image>, OpenError> {
    Archive::read(file)?.and_then(move |members| {
        let disk = choose(&members, name.as_deref(), file.len)?;
        let window = file.inside(disk.content);
        let name = disk.name.clone();
        if Kind::of(&name) == Kind::Raw {
            if layer.snapshot.is_some() {
                return Err(OpenError::NoSnapshot);
            }
            let mut image = open_raw(window, disk)?;
            image.member = Some(name);
            return Ok(Open::Ready(image));
        }
        if disk.sparse.is_some() {
            return Err(OpenError::Unsupported(Feature::OvaSparse));
        }
        let opened = open_as(Format::Vmdk, window, &layer)?;
        opened.alone(OpenError::Unsupported(Feature::OvaReference))?.and_then(move |mut image| {
            image.member = Some(name);
            Ok(Open::Ready(image))
        })
    })
}

/// The raw disk whose stored bytes are in `window`.
fn open_raw(window: Window, disk: &Member) -> Result<Image, OpenError> {
    let Some(sparse) = &disk.sparse else { return raw::open_window(window, None) };
    let mut map = ExtentMapBuilder::new();
    let mut stored = 0_u64;
    for run in &sparse.runs {
        map.push(run.start.saturating_sub(map.guest_len()), State::Hole);
        map.push(run.len, State::Data(window.at(stored, run.len)));
        stored = stored.saturating_add(run.len);
        map.check_memory()?;
    }
    raw::with_map(sparse.real_size, map)
}

/// The disk to read.
fn choose<'a>(members: &'a [Member], name: Option<&str>, file_len: u64) -> Result<&'a Member, OpenError> {
    let disks: Vec<&Member> = members.iter().filter(|member| Kind::of(&member.name) != Kind::Other).collect();
    let names = |disks: &[&Member]| disks.iter().map(|disk| disk.name.clone()).collect();
    if disks.is_empty() {
        let is_ovf = |member: &Member| has_suffix(&member.name, ".ovf");
        return Err(match members.iter().any(is_ovf) {
            true => OpenError::Missing {
                what: Item::The("disk (.vmdk) in the archive"),
                span: Span::new(0, file_len),
            },
            false => OpenError::Unsupported(Feature::OtherFormat("tar")),
        });
    }
    let chosen: Vec<&Member> = match name {
        Some(name) => disks.iter().copied().filter(|disk| disk.name == plain(name)).collect(),
        None => disks.clone(),
    };
    match (chosen.as_slice(), name) {
        ([disk], _) => match Kind::of(&disk.name) {
            Kind::Compressed => Err(OpenError::Unsupported(Feature::OvaCompressed)),
            Kind::Chunk => Err(OpenError::Unsupported(Feature::OvaChunks)),
            Kind::Disk | Kind::Raw | Kind::Other => Ok(disk),
        },
        ([], Some(_)) => Err(OpenError::NoMember(names(&disks))),
        _ if chosen.iter().any(|disk| Kind::of(&disk.name) == Kind::Chunk) => {
            Err(OpenError::Unsupported(Feature::OvaChunks))
        }
        _ => Err(OpenError::SeveralDisks(names(&chosen))),
    }
}

/// What a member is, by its name: the descriptor, which says it too, need not be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `.vmdk`, of an OVA.
    Disk,
    /// [`RAW_DISK`].
    Raw,
    /// `.vmdk.gz` and the like.
    Compressed,
    /// `.vmdk.000000000`, as OVF cuts files.
    Chunk,
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        if name == RAW_DISK {
            return Self::Raw;
        }
        if has_suffix(name, ".vmdk") {
            return Self::Disk;
        }
        match name.rsplit_once('.') {
            Some((stem, last)) if has_suffix(stem, ".vmdk") => match last {
                "gz" | "GZ" | "bz2" | "xz" | "zst" => Self::Compressed,
                last if last.bytes().all(|byte| byte.is_ascii_digit()) => Self::Chunk,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    let at = name.len().saturating_sub(suffix.len());
    name.as_bytes().get(at..).is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
}

/// A name without the folder that `tar -C folder .` puts before it.
fn plain(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}
