//! The beginning of a physical volume of LVM made by hand: the tools that make it want block devices.

use super::MIB;

/// Bytes of an extent.
const EXTENT: u64 = 4 * MIB;

/// What lies before the volumes, which begin at 1 MiB, one behind the other; each with its name and length in extents. The text goes
/// on at the beginning of its ring, as it does where many have been written.
pub(crate) fn with_volumes(volumes: &[(&str, u64)]) -> Vec<u8> {
    let mut text = format!(
        "vg {{\nextent_size = {}\nphysical_volumes {{\npv0 {{\nid = \"abcdef-0000-1111-2222-3333-4444-ghijkl\"\npe_start = \
         2048\n}}\n}}\nlogical_volumes {{\n",
        EXTENT / 512
    );
    let mut first = 0;
    for (name, extents) in volumes {
        text += &format!(
            "{name} {{\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = {extents}\t# MiB\ntype = \
             \"striped\"\nstripe_count = 1\nstripes = [\n\"pv0\", {first}\n]\n}}\n}}\n"
        );
        first += extents;
    }
    text += "}\n}\n";

    let (area, area_len) = (4096, MIB as usize - 4096);
    let mut disk = vec![0; MIB as usize];
    let at = |place: usize, number: u64| (place, number.to_le_bytes());
    disk[512..520].copy_from_slice(b"LABELONE");
    disk[532] = 32;
    disk[536..544].copy_from_slice(b"LVM2 001");
    disk[544..576].copy_from_slice(b"abcdef00001111222233334444ghijkl");
    disk[area + 4..area + 20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    let start = area_len - 100;
    for (place, number) in [
        at(544 + 40, MIB),
        at(544 + 40 + 32, area as u64),
        at(544 + 40 + 40, area_len as u64),
        at(area + 40, start as u64),
        at(area + 48, text.len() as u64),
    ] {
        disk[place..place + 8].copy_from_slice(&number);
    }
    let (head, rest) = text.as_bytes().split_at(100);
    disk[area + start..][..100].copy_from_slice(head);
    disk[area + 512..][..rest.len()].copy_from_slice(rest);
    disk
}
