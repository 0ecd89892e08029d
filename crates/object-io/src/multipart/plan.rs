//! Into which parts an object of a known length is cut.

use crate::config::is_yandex;
use crate::limits::{MAX_OBJECT_LEN, MAX_OBJECT_LEN_YANDEX, MAX_PARTS, PART_LEN, PART_LEN_STEP};
use crate::{ObjectError, Store};

/// How an object is cut: parts of one size, the last one as long as it is.
///
/// The size is the smallest multiple of 4 MiB, from 16 MiB on, of which the object has at most 10,000. The largest part is
/// never exceeded: 48.8 TiB in 10,000 parts are 5 GiB each, which is a multiple of 4 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartPlan {
    /// Length of the object in bytes.
    pub len: u64,
    /// Length of all parts but the last, bytes.
    pub part_len: u64,
}

impl PartPlan {
    /// The plan for an object of `len` bytes; `place` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLong`] above the largest object.
    pub fn new(place: &str, len: u64) -> Result<Self, ObjectError> {
        Self::within(MAX_OBJECT_LEN, place, len)
    }

    fn within(limit: u64, place: &str, len: u64) -> Result<Self, ObjectError> {
        if len > limit {
            return Err(ObjectError::TooLong { place: place.into(), found: len, limit });
        }
        let part_len = len.div_ceil(MAX_PARTS).next_multiple_of(PART_LEN_STEP).max(PART_LEN);
        Ok(Self { len, part_len })
    }

    /// How many parts there are; an object without bytes is one empty part.
    pub fn parts(&self) -> u64 {
        self.len.div_ceil(self.part_len).max(1)
    }
}

impl Store {
    /// As [`PartPlan::new`], within the limits of this store.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLong`] above the largest object.
    pub fn plan(&self, place: &str, len: u64) -> Result<PartPlan, ObjectError> {
        let limit = match &self.0.endpoint {
            Some(url) if is_yandex(url) => MAX_OBJECT_LEN_YANDEX,
            _ => MAX_OBJECT_LEN,
        };
        PartPlan::within(limit, place, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_PART_LEN;

    #[test]
    fn every_length_fits_the_limits() {
        let part_len = |len| PartPlan::new("s3://b/k", len).map(|plan| plan.part_len).ok();
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
            let plan = PartPlan::new("s3://b/k", len).unwrap();
            assert!((PART_LEN..=MAX_PART_LEN).contains(&plan.part_len), "{len}: {plan:?}");
            assert!((1..=MAX_PARTS).contains(&plan.parts()), "{len}: {plan:?}");
            assert_eq!(plan.part_len % PART_LEN_STEP, 0, "{len}: {plan:?}");
        }
        assert_eq!(part_len(MAX_PARTS * PART_LEN), Some(PART_LEN));
        assert_eq!(part_len(MAX_PARTS * PART_LEN + 1), Some(PART_LEN + PART_LEN_STEP));
        assert_eq!(part_len(MAX_OBJECT_LEN), Some(MAX_PART_LEN));
        assert_eq!(part_len(MAX_OBJECT_LEN + 1), None);
        let yandex = PartPlan::within(MAX_OBJECT_LEN_YANDEX, "s3://b/k", MAX_OBJECT_LEN_YANDEX + 1);
        assert_eq!(
            yandex.unwrap_err().to_string(),
            "`s3://b/k` has 5000000000001 bytes, the limit is 5000000000000"
        );
    }
}
