//! The logical volumes in a physical volume of LVM2, as far as each of them is one run of it: what installers make.
//!
//! Sources: LVM2, `lib/format_text/layout.h` and what `vgcfgbackup` writes. A label in one of the first four sectors leads to an area
//! in which the group is described as text, a line for each thing. Volumes of several segments, on other disks, thin, mirrored or
//! striped ones are listed and not read. Checksums are not compared: what is read decides nothing but advice. Cost: the text, once.

use crate::filesystem::lvm_id;
use crate::limits::{MAX_LVM_DEPTH, MAX_LVM_TEXT, MAX_LVM_VOLUMES};
use crate::source::{Trouble, Volume, le32, le64, printable, slice};

const DAMAGED: Trouble = Trouble::Damaged("what LVM says of its volumes");

const SECTOR: u64 = 512;

/// Where an area's description of itself ends, and its ring of texts begins.
const HEADER: u64 = 512;

const MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";

/// Where the label of LVM is, in bytes, if the first sectors have one.
pub(crate) fn label_at(head: &[u8]) -> Option<usize> {
    [0_usize, 512, 1024, 1536]
        .into_iter()
        .find(|at| slice(head, *at, 8) == b"LABELONE" && slice(head, at.saturating_add(24), 8) == b"LVM2 001")
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logical {
    /// The group's name and its own.
    pub(crate) name: String,
    /// Length, bytes.
    pub(crate) size: u64,
    /// First byte of it in the physical volume; none if it is not one run of that.
    pub(crate) start: Option<u64>,
}

/// What is said of the volumes in a physical one.
pub(crate) fn volumes(physical: Volume<'_>) -> Result<Vec<Logical>, Trouble> {
    let head = physical.head(2048)?;
    let label = label_at(&head).ok_or(DAMAGED)?;
    let at = label.checked_add(usize::try_from(le32(&head, label.saturating_add(20))).map_err(|_| DAMAGED)?);
    let header = head.get(at.ok_or(DAMAGED)?..).ok_or(DAMAGED)?;
    let id = lvm_id(&String::from_utf8_lossy(slice(header, 0, 32)));
    // Areas of data, then areas of texts; a place of zero ends each list.
    let mut places = header.get(40..).ok_or(DAMAGED)?.chunks_exact(16).map(|at| (le64(at, 0), le64(at, 8)));
    places.by_ref().find(|(at, _)| *at == 0).ok_or(DAMAGED)?;
    let Some((area, len)) = places.next().filter(|(at, _)| *at != 0) else {
        return Err(Trouble::Unsupported("a volume of LVM that says nothing of its group"));
    };
    let text = text(physical, area, len)?;
    Group::parse(&String::from_utf8_lossy(&text))?.volumes(&id)
}

/// The text that an area holds: it goes on behind the header where the area ends.
fn text(physical: Volume<'_>, area: u64, area_len: u64) -> Result<Vec<u8>, Trouble> {
    let header = physical.bytes(area, 64)?;
    let (at, len) = (le64(&header, 40), le64(&header, 48));
    if slice(&header, 4, 16) != MAGIC || at < HEADER || at >= area_len {
        return Err(DAMAGED);
    }
    if len > MAX_LVM_TEXT {
        return Err(Trouble::TooLong("what LVM says of its volumes"));
    }
    let first = len.min(area_len.saturating_sub(at));
    let read = |at: u64, len: u64| {
        let place = area.checked_add(at).ok_or(DAMAGED)?;
        physical.bytes(place, usize::try_from(len).map_err(|_| DAMAGED)?)
    };
    let mut text = read(at, first)?;
    text.extend(read(HEADER, len.saturating_sub(first))?);
    Ok(text)
}

/// A value without the comment behind it.
fn bare(value: &str) -> &str {
    match value.strip_prefix('"') {
        Some(rest) => rest.split('"').next().unwrap_or_default(),
        None => value.split('#').next().unwrap_or_default().trim(),
    }
}

/// A group of volumes, as far as it is looked at.
#[derive(Default)]
struct Group {
    name: String,
    extent: u64,
    physical: Vec<Physical>,
    logical: Vec<Described>,
}

#[derive(Default)]
struct Physical {
    name: String,
    id: String,
    start: u64,
}

/// A logical volume as the text has it.
#[derive(Default)]
struct Described {
    name: String,
    segments: u64,
    extents: u64,
    kind: String,
    stripes: u64,
    /// Name of a physical volume, and the first extent there.
    place: Option<(String, u64)>,
}

impl Group {
    fn parse(text: &str) -> Result<Self, Trouble> {
        let mut group = Self::default();
        let mut path: Vec<&str> = Vec::new();
        let mut list = None;
        for line in text.lines() {
            let line = line.trim();
            if let Some(name) = line.strip_suffix('{') {
                path.push(name.trim());
                if path.len() > MAX_LVM_DEPTH {
                    return Err(DAMAGED);
                }
                group.section(&path)?;
            } else if line == "}" {
                path.pop().ok_or(DAMAGED)?;
            } else if line == "]" {
                list = None;
            } else if let Some(key) = list {
                group.value(&path, key, line);
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim(), bare(value.trim()));
                list = (value == "[").then_some(key);
                group.value(&path, key, value);
            }
        }
        Ok(group)
    }

    fn section(&mut self, path: &[&str]) -> Result<(), Trouble> {
        match *path {
            [name] if self.name.is_empty() => self.name = name.to_owned(),
            [_, "physical_volumes", name] => {
                self.physical.push(Physical { name: name.to_owned(), ..Physical::default() });
            }
            [_, "logical_volumes", name] => {
                self.logical.push(Described { name: name.to_owned(), ..Described::default() });
            }
            _ => {}
        }
        match self.physical.len().max(self.logical.len()) > MAX_LVM_VOLUMES {
            true => Err(Trouble::TooLong("LVM's list of volumes")),
            false => Ok(()),
        }
    }

    fn value(&mut self, path: &[&str], key: &str, value: &str) {
        let number = || value.parse::<u64>().unwrap_or(0);
        let words = || value.to_owned();
        match (path, key) {
            ([_], "extent_size") => self.extent = number(),
            ([_, "physical_volumes", _], _) => {
                let Some(volume) = self.physical.last_mut() else { return };
                match key {
                    "id" => volume.id = words(),
                    "pe_start" => volume.start = number(),
                    _ => {}
                }
            }
            ([_, "logical_volumes", _], "segment_count") => {
                if let Some(volume) = self.logical.last_mut() {
                    volume.segments = number();
                }
            }
            ([_, "logical_volumes", _, _], _) => {
                let Some(volume) = self.logical.last_mut() else { return };
                match key {
                    "extent_count" => volume.extents = volume.extents.saturating_add(number()),
                    "type" => volume.kind = words(),
                    "stripe_count" => volume.stripes = number(),
                    "stripes" => {
                        let place = value.split_once(',').and_then(|(name, at)| {
                            Some((name.trim().trim_matches('"').to_owned(), at.trim().parse().ok()?))
                        });
                        volume.place = place.or(volume.place.take());
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// The logical volumes, seen from the physical one with this id.
    fn volumes(self, id: &str) -> Result<Vec<Logical>, Trouble> {
        let extent = self.extent.checked_mul(SECTOR).filter(|extent| *extent > 0).ok_or(DAMAGED)?;
        let here = self.physical.iter().find(|physical| physical.id == id).ok_or(DAMAGED)?;
        let start = here.start.checked_mul(SECTOR).ok_or(DAMAGED)?;
        let of = |volume: &Described| {
            let is_run = volume.segments == 1 && volume.kind == "striped" && volume.stripes == 1;
            let first = volume.place.as_ref().filter(|(name, _)| is_run && *name == here.name);
            let first = first.map(|(_, first)| first.checked_mul(extent)?.checked_add(start));
            Some(Logical {
                name: printable(&format!("{}/{}", self.name, volume.name)),
                size: volume.extents.checked_mul(extent)?,
                start: match first {
                    Some(first) => Some(first?),
                    None => None,
                },
            })
        };
        self.logical.iter().map(|volume| of(volume).ok_or(DAMAGED)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"vg {
id = "1HsWcQ-m1Pk-e3Gm-rI6L-dThU-y8Sl-v2NbYf"
extent_size = 8192		# 4 Megabytes
physical_volumes {
pv0 {
id = "A"
device = "/dev/sda3"	# Hint only
pe_start = 2048
}
pv1 {
id = "B"
pe_start = 4096
}
}
logical_volumes {
root {
segment_count = 1
segment1 {
start_extent = 0
extent_count = 10
type = "striped"
stripe_count = 1	# linear
stripes = [
"pv0", 3
]
}
}
long {
segment_count = 2
segment1 {
extent_count = 1
type = "striped"
stripe_count = 1
stripes = [
"pv0", 0
]
}
segment2 {
extent_count = 2
type = "striped"
stripe_count = 1
stripes = [
"pv1", 7
]
}
}
thin {
segment_count = 1
segment1 {
extent_count = 5
type = "thin"
}
}
}
}
"#;

    #[test]
    fn volumes_that_are_one_run() {
        const MIB: u64 = 1 << 20;
        let logical = |name: &str, mib: u64, start: Option<u64>| Logical {
            name: name.to_owned(),
            size: mib * MIB,
            start: start.map(|mib| mib * MIB),
        };
        let found = Group::parse(TEXT).unwrap().volumes("A").unwrap();
        let (long, thin) = (logical("vg/long", 12, None), logical("vg/thin", 20, None));
        assert_eq!(found, [logical("vg/root", 40, Some(13)), long.clone(), thin.clone()]);
        let found = Group::parse(TEXT).unwrap().volumes("B").unwrap();
        assert_eq!(found, [logical("vg/root", 40, None), long, thin]);
        assert_eq!(Group::parse(TEXT).unwrap().volumes("C"), Err(DAMAGED));
    }

    #[test]
    fn texts_that_lie() {
        for (from, to) in
            [("8192\t", "0\t"), ("8192\t", "18446744073709551615\t"), ("= 10", "= 9223372036854775807")]
        {
            let text = TEXT.replace(from, to);
            assert_eq!(Group::parse(&text).unwrap().volumes("A"), Err(DAMAGED), "{to}");
        }
        let deep = "x {\n".repeat(MAX_LVM_DEPTH + 1);
        assert_eq!(Group::parse(&deep).err(), Some(DAMAGED));
        assert_eq!(Group::parse("}\n").err(), Some(DAMAGED));
        let many: String = (0..=MAX_LVM_VOLUMES).map(|number| format!("v{number} {{\n}}\n")).collect();
        let many = format!("vg {{\nlogical_volumes {{\n{many}}}\n}}\n");
        assert!(matches!(Group::parse(&many).err(), Some(Trouble::TooLong(_))));
    }
}
