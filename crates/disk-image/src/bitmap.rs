//! Sector bitmaps: which sectors of a block a VHD or VHDX file holds.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// Which bit of a byte stands for the first of its eight sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BitOrder {
    /// The highest, as in VHD.
    HighFirst,
    /// The lowest, as in VHDX.
    LowFirst,
}

/// Says of the first `count` bits, run by run, how many there are and whether they are set. Bits that are not there are clear.
pub(crate) fn each_run(bytes: &[u8], count: u64, order: BitOrder, mut run: impl FnMut(u64, bool)) {
    let mut current = (0_u64, false);
    let mut left = count;
    let mut add = |len: u64, set: bool| {
        if current.1 == set {
            current.0 = current.0.saturating_add(len);
        } else {
            if current.0 > 0 {
                run(current.0, current.1);
            }
            current = (len, set);
        }
    };
    for &byte in bytes {
        if left == 0 {
            break;
        }
        let mut byte = match order {
            BitOrder::HighFirst => byte,
            BitOrder::LowFirst => byte.reverse_bits(),
        };
        let mut bits = left.min(8);
        left = left.saturating_sub(bits);
        while bits > 0 {
            let set = byte & 0x80 != 0;
            let same = if set { byte.leading_ones() } else { byte.leading_zeros() };
            let len = bits.min(same.into());
            add(len, set);
            bits = bits.saturating_sub(len);
            byte = byte.checked_shl(same).unwrap_or(0);
        }
    }
    if left > 0 {
        add(left, false);
    }
    if current.0 > 0 {
        run(current.0, current.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(bytes: &[u8], count: u64, order: BitOrder) -> Vec<(u64, bool)> {
        let mut runs = Vec::new();
        each_run(bytes, count, order, |len, set| runs.push((len, set)));
        runs
    }

    #[test]
    fn every_pattern_of_two_bytes() {
        for pattern in 0..=u16::MAX {
            for (order, bytes) in [
                (BitOrder::HighFirst, pattern.to_be_bytes()),
                (BitOrder::LowFirst, pattern.reverse_bits().to_le_bytes()),
            ] {
                let runs = runs(&bytes, 13, order);
                let bits: Vec<bool> = runs.iter().flat_map(|&(len, set)| vec![set; len as usize]).collect();
                let expected: Vec<bool> = (0..13).map(|bit| pattern << bit & 0x8000 != 0).collect();
                assert_eq!(bits, expected, "{pattern:016b} {order:?}");
                assert!(runs.iter().zip(runs.iter().skip(1)).all(|(a, b)| a.1 != b.1));
            }
        }
    }

    #[test]
    fn missing_bits_are_clear() {
        assert_eq!(runs(&[0xff; 3], 30, BitOrder::HighFirst), [(24, true), (6, false)]);
        assert_eq!(runs(&[], 7, BitOrder::LowFirst), [(7, false)]);
        assert_eq!(runs(&[1], 0, BitOrder::LowFirst), []);
    }
}
