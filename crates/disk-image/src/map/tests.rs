//! Tests of the extent map: what is merged, what lookups give, what it costs.

use super::*;

const CLUSTER: u64 = 64 << 10;

fn encoded(start: u64, len: u64, skip: u64) -> State {
    State::Encoded { stored: Stored::image(start, len), encoding: Encoding::Deflate, unit_len: CLUSTER, skip }
}

fn data(start: u64, len: u64) -> State {
    State::Data(Stored::image(start, len))
}

/// A fixed sequence of runs that has every state, forward and backward jumps, and more runs than one index entry covers.
fn runs() -> Vec<(u64, State)> {
    let mut runs =
        vec![(CLUSTER * 3, State::Hole), (CLUSTER, data(1 << 40, CLUSTER)), (CLUSTER, State::Zero)];
    let mut at = 0x5_0000;
    for i in 0..300_u64 {
        let size = 1000 + i * 37 % 60_000;
        runs.push((CLUSTER, encoded(at, stored_len(at, size), 0)));
        at += size;
        if i % 17 == 0 {
            runs.push((CLUSTER * i.max(1), State::Hole));
        }
        if i % 23 == 0 {
            at = at.next_multiple_of(CLUSTER);
            runs.push((CLUSTER, data(at, CLUSTER)));
            at += CLUSTER;
        }
    }
    runs.push((512, encoded(7, 300, 1024)));
    runs
}

fn build(runs: &[(u64, State)]) -> ExtentMap {
    let mut builder = ExtentMapBuilder::new();
    for (len, state) in runs {
        builder.push(*len, *state);
    }
    let len = builder.guest_len();
    builder.finish(len)
}

#[test]
fn gives_back_what_was_pushed() {
    let runs = runs();
    let map = build(&runs);
    let got: Vec<_> = map.iter().map(|e| (e.guest.len, e.state)).collect();
    assert_eq!(got, runs);
    let mut at = 0;
    for extent in map.iter() {
        assert_eq!(extent.guest.start, at);
        at = extent.guest.end();
    }
    assert_eq!(at, map.guest_len());
}

#[test]
fn any_start_gives_the_tail_of_the_whole() {
    let map = build(&runs());
    let all: Vec<_> = map.iter().collect();
    for (i, extent) in all.iter().enumerate() {
        for into in [0, 1, 511, extent.guest.len - 1] {
            let from = extent.guest.start + into.min(extent.guest.len - 1);
            let first = map.extents(Span::new(from, u64::MAX)).next().unwrap();
            assert_eq!(first.guest, Span::between(from, extent.guest.end()), "extent {i}");
            assert_eq!(first.state, extent.state.advanced(from - extent.guest.start), "extent {i}");
        }
    }
    assert!(map.extents(Span::new(map.guest_len(), 1)).next().is_none());
}

#[test]
fn contiguous_runs_merge_and_the_end_is_clipped() {
    let mut builder = ExtentMapBuilder::new();
    builder.push(CLUSTER, data(CLUSTER, CLUSTER));
    builder.push(CLUSTER, data(CLUSTER * 2, CLUSTER));
    builder.push(CLUSTER, data(CLUSTER * 9, CLUSTER));
    let map = builder.finish(CLUSTER * 3 - 100);
    let got: Vec<_> = map.iter().collect();
    assert_eq!(
        got,
        [
            Extent { guest: Span::new(0, CLUSTER * 2), state: data(CLUSTER, CLUSTER * 2) },
            Extent { guest: Span::new(CLUSTER * 2, CLUSTER - 100), state: data(CLUSTER * 9, CLUSTER - 100) },
        ]
    );
    assert_eq!(map.stats().data, CLUSTER * 3 - 100);
}

#[test]
fn fragmentation_is_what_costs_memory() {
    let mut builder = ExtentMapBuilder::new();
    let mut at = 0;
    for i in 0..100_000_u64 {
        let size = 20_000 + i * 7919 % 30_000;
        builder.push(CLUSTER, encoded(at, stored_len(at, size), 0));
        at += size;
    }
    let map = builder.finish(100_000 * CLUSTER);
    // 4 TiB in 64 KiB clusters are 671 such maps; within 256 MiB each may take 400,000 bytes.
    assert!(map.memory() < 400_000, "{}", map.memory());

    let mut builder = ExtentMapBuilder::new();
    builder.push(8 << 40, State::Hole);
    assert!(builder.finish(8 << 40).memory() < 64);
}
