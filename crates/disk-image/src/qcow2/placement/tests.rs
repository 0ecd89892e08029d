//! Tests of the placement: against QEMU's rules written down step by step, and against what must hold of any.

use std::collections::BTreeMap;

use super::*;

const CLUSTER: u64 = 4096;
const START: u64 = 3 * CLUSTER;

fn placed(lens: &[u64]) -> (Placement, Vec<u64>) {
    let mut placement = Placement::new(CLUSTER, START, lens.len() as u64);
    let offsets = lens.iter().map(|len| placement.place(*len)).collect();
    (placement, offsets)
}

fn gap(lens: &[u64]) -> Span {
    placed(lens).0.gap()
}

#[test]
fn compressed_clusters_lie_one_behind_the_other() {
    let (placement, offsets) = placed(&[1000, 3000, 96, 4095, 2]);
    assert_eq!(offsets, [0, 1000, 4000, CLUSTER, 2 * CLUSTER - 1].map(|at| START + at));
    // The third one ends where its cluster does, the last one begins in one cluster and ends in the next.
    assert_eq!(placement.end(), START + 3 * CLUSTER);
    assert_eq!((0..4).map(|i| placement.refcount(i)).collect::<Vec<_>>(), [Some(3), Some(2), Some(1), None]);
}

#[test]
fn a_gap_is_filled_behind_plain_clusters_and_left_by_what_does_not_fit() {
    // The plain cluster is in between: 3096 fit, and end the gap; what is longer begins a cluster, and the gap is given up.
    assert_eq!(placed(&[1000, CLUSTER, 3096, 10]).1, [0, CLUSTER, 1000, 2 * CLUSTER].map(|at| START + at));
    assert_eq!(gap(&[1000, CLUSTER]), Span::new(START + 1000, 3096));
    assert!(gap(&[1000, CLUSTER, 3096]).is_empty() && gap(&[]).is_empty() && gap(&[CLUSTER]).is_empty());
    let (placement, offsets) = placed(&[1000, CLUSTER, 3097, 10]);
    assert_eq!(offsets, [0, CLUSTER, 2 * CLUSTER, 2 * CLUSTER + 3097].map(|at| START + at));
    assert_eq!((0..3).map(|i| placement.refcount(i)).collect::<Vec<_>>(), [Some(1), Some(1), Some(2)]);
    // Nothing in between: the next cluster is the next one.
    assert_eq!(placed(&[1000, 3097, CLUSTER]).1, [0, 1000, 2 * CLUSTER].map(|at| START + at));
}

#[test]
fn a_cluster_has_no_more_references_than_are_counted() {
    let mut placement = Placement::new(2 << 20, 4 << 20, 70_000);
    let offsets: Vec<u64> = (0..70_000).map(|_| placement.place(2)).collect();
    assert_eq!(placement.refcount(0), Some(MAX_REFCOUNT));
    assert_eq!(placement.refcount(1), Some(4465));
    assert_eq!(offsets[usize::from(MAX_REFCOUNT)], 6 << 20);
    assert!(placement.large.len() == 2);
}

/// QEMU's own way, with a refcount for each cluster and a search for a free one.
#[derive(Default)]
struct Qemu {
    refcounts: BTreeMap<u64, u64>,
    free_byte_offset: u64,
    free: u64,
}

impl Qemu {
    fn allocate(&mut self) -> u64 {
        while self.refcounts.contains_key(&self.free) {
            self.free += 1;
        }
        self.free += 1;
        (self.free - 1) * CLUSTER
    }

    fn place(&mut self, len: u64) -> u64 {
        if len == CLUSTER {
            let start = self.allocate();
            self.refcounts.insert(start / CLUSTER, 1);
            return start;
        }
        let mut offset = self.free_byte_offset;
        let mut room = CLUSTER - offset % CLUSTER;
        if offset == 0 || room < len {
            let new = self.allocate();
            if offset == 0 || offset.next_multiple_of(CLUSTER) != new {
                offset = new;
                room = CLUSTER;
            } else {
                room += CLUSTER;
            }
        }
        assert!(len <= room);
        for cluster in offset / CLUSTER..=(offset + len - 1) / CLUSTER {
            *self.refcounts.entry(cluster).or_default() += 1;
        }
        self.free_byte_offset = if (offset + len).is_multiple_of(CLUSTER) { 0 } else { offset + len };
        offset
    }
}

mod any {
    use proptest::prelude::*;

    use super::*;

    /// Short, long, on the edge, plain, left out.
    fn len() -> impl Strategy<Value = u64> {
        prop_oneof![1..CLUSTER, 1..60_u64, CLUSTER - 3..=CLUSTER, Just(CLUSTER), Just(0_u64)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn list_of_lengths(lens in proptest::collection::vec(len(), 0..600)) {
            let mut placement = Placement::new(CLUSTER, START, lens.len() as u64);
            let mut qemu = Qemu { free: START / CLUSTER, ..Qemu::default() };
            let mut spans = Vec::new();
            for (unit, len) in lens.iter().enumerate() {
                if *len == 0 {
                    placement.skip_to(unit as u64 + 1);
                    continue;
                }
                let offset = placement.place(*len);
                prop_assert_eq!(offset, qemu.place(*len));
                spans.push(Span::new(offset, *len));
            }
            // Nothing overlaps, nothing lies outside, and each cluster is referred to as often as it is touched, at least once.
            let end = placement.end();
            spans.sort_by_key(|span| span.start);
            prop_assert!(spans.windows(2).all(|pair| pair[0].end() <= pair[1].start));
            prop_assert!(spans.iter().all(|span| span.start >= START && span.end() <= end));
            let mut index = 0;
            while let Some(count) = placement.refcount(index) {
                let cluster = Span::new(START + index * CLUSTER, CLUSTER);
                let from = spans.partition_point(|span| span.end() <= cluster.start);
                let touching = spans.partition_point(|span| span.start < cluster.end()) - from;
                prop_assert_eq!(usize::from(count), touching);
                prop_assert!(count > 0);
                index += 1;
            }
            prop_assert_eq!(START + index * CLUSTER, end);
            // From any unit on, the places are found again.
            for first in [0, 1, 511, 512, 513, lens.len() / 2, lens.len()] {
                let again: Vec<_> = placement.from(first as u64).collect();
                let rest = lens.get(first..).unwrap_or_default();
                prop_assert_eq!(again.len(), rest.len());
                for (place, len) in again.iter().zip(rest) {
                    let found = match place {
                        None => 0,
                        Some(Place::Plain(_)) => CLUSTER,
                        Some(Place::Packed(span)) => span.len,
                    };
                    prop_assert_eq!(found, *len);
                    let start = match place {
                        None => continue,
                        Some(Place::Plain(start)) => *start,
                        Some(Place::Packed(span)) => span.start,
                    };
                    prop_assert!(spans.binary_search_by_key(&start, |span| span.start).is_ok());
                }
            }
        }
    }
}
