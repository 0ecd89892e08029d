//! Into which parts an object of a known length is cut.

use crate::limits::{MAX_OBJECT_LEN, MAX_PARTS, PART_LEN, PART_LEN_STEP};

/// The size of all parts of an object of `len` bytes but the last: the smallest multiple of 4 MiB, from 16 MiB on, that needs at most
/// 10,000 parts. `None` above the largest object.
///
/// The largest part is never exceeded: 48.8 TiB in 10,000 parts are 5 GiB each, which is a multiple of 4 MiB.
pub(crate) fn part_len(len: u64) -> Option<u64> {
    (len <= MAX_OBJECT_LEN).then(|| len.div_ceil(MAX_PARTS).next_multiple_of(PART_LEN_STEP).max(PART_LEN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_PART_LEN;

    #[test]
    fn every_length_fits_the_limits() {
        let lens = [
            0,
            1,
            PART_LEN,
            PART_LEN + 1,
            MAX_PARTS * PART_LEN,
            MAX_PARTS * PART_LEN + 1,
            1 << 40,
            MAX_OBJECT_LEN,
        ];
        for len in lens {
            let part = part_len(len).unwrap();
            assert!((PART_LEN..=MAX_PART_LEN).contains(&part), "{len}: {part}");
            assert!(len.div_ceil(part) <= MAX_PARTS, "{len}: {part}");
            assert_eq!(part % PART_LEN_STEP, 0, "{len}: {part}");
        }
        assert_eq!(part_len(MAX_PARTS * PART_LEN), Some(PART_LEN));
        assert_eq!(part_len(MAX_PARTS * PART_LEN + 1), Some(PART_LEN + PART_LEN_STEP));
        assert_eq!(part_len(MAX_OBJECT_LEN), Some(MAX_PART_LEN));
        assert_eq!(part_len(MAX_OBJECT_LEN + 1), None);
    }
}
