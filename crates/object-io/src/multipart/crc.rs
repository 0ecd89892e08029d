//! CRC32 of what is not in memory at once: runs of zeroes, and objects whose parts are hashed apart.

use std::collections::BTreeMap;

use crc32fast::Hasher;

use crate::store::PartSent;

/// The CRC32 of `len` zeroes, in as many steps as `len` has bits.
pub(crate) fn of_zeroes(len: u64) -> u32 {
    let (mut sum, mut run) = (Hasher::new(), Hasher::new());
    run.update(&[0]);
    let mut rest = len;
    while rest > 0 {
        if rest & 1 == 1 {
            sum.combine(&run);
        }
        rest >>= 1;
        run.combine(&run.clone());
    }
    sum.finalize()
}

/// The CRC32 of the object that consists of `parts`, in order.
pub(crate) fn of_object(parts: &BTreeMap<u32, PartSent>) -> u32 {
    let mut sum = Hasher::new();
    for part in parts.values() {
        sum.combine(&Hasher::new_with_initial_len(part.crc32, part.len));
    }
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_counted_not_read() {
        for len in [0_usize, 1, 2, 3, 511, 4096, 100_003] {
            assert_eq!(of_zeroes(len as u64), crc32fast::hash(&vec![0; len]), "{len}");
        }
    }

    #[test]
    fn parts_combine_in_the_order_of_their_numbers() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
        let mut parts = BTreeMap::new();
        for (number, part) in bytes.chunks(3001).enumerate().collect::<Vec<_>>().into_iter().rev() {
            let number = u32::try_from(number).unwrap();
            parts.insert(
                number,
                PartSent { etag: "".into(), crc32: crc32fast::hash(part), len: part.len() as u64, md5: None },
            );
        }
        assert_eq!(of_object(&parts), crc32fast::hash(&bytes));
    }
}
