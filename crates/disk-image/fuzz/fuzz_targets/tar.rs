//! Any blocks as a tar archive, plain and in an archive for Compute Engine: the checksums that would stop every input are put right.
#![no_main]

use disk_image::{Codec, Encoder};
use fuzzing::{Files, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (&kind, tar) = input.split_last().unwrap_or((&0, &[]));
    let mut tar = tar.to_vec();
    for header in tar.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    let tar = if kind & 1 == 0 { tar } else { archive(&tar, kind) };
    fuzz(&Files::one(&tar), None);
});

/// The blocks as gzip members, with their index.
fn archive(tar: &[u8], kind: u8) -> Vec<u8> {
    let head = 512 * (1 + usize::from(kind >> 1) % 4);
    let (head, units) = tar.split_at(head.min(tar.len()));
    let unit = 512 << ((kind >> 3) % 4);
    let end = [0; 1024];
    let members = std::iter::once(head).chain(units.chunks(unit)).chain([&end[..]]);
    let mut encoder = Encoder::new(Codec::Gzip);
    let (mut file, mut lengths) = (Vec::new(), Vec::new());
    for member in members.take(16_000) {
        let mut out = vec![0; member.len() + 100];
        let len = encoder.encode(member, &mut out).unwrap();
        file.extend(&out[..len]);
        lengths.extend((len as u32).to_le_bytes());
    }
    lengths.extend((lengths.len() as u32 / 4).to_le_bytes());
    file.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255]);
    file.extend((lengths.len() as u16 + 4).to_le_bytes());
    file.extend(b"DI");
    file.extend((lengths.len() as u16).to_le_bytes());
    file.extend(lengths);
    file.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file
}
