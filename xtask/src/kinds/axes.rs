//! Combinations of options: few images in which all pairs of options stand together.
//!
//! Faults come from one option or from two that meet (Kuhn, Wallace, Gallo, "Software Fault Interactions", IEEE TSE 30(6), 2004).
//! All combinations of QCOW2's options are tens of thousands; all pairs stand in about a hundred. Greedy and seeded: the same
//! list each time.

use crate::seed::Seed;

/// Candidates that are weighed for each row.
const CANDIDATES: u64 = 200;

/// One value, by its index, of each axis.
pub(crate) type Row = Vec<usize>;

/// What is to stand in some row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cover {
    /// Every value.
    Values,
    /// Every two values.
    Pairs,
}

/// Rows such that everything to cover that stands in a valid row stands in one of them.
pub(crate) fn cover(sizes: &[usize], valid: impl Fn(&Row) -> bool, what: Cover) -> Vec<Row> {
    let all = every(sizes, valid);
    let mut open = Open::new(sizes, what);
    for row in &all {
        open.mark(row, true);
    }
    let mut rows = Vec::new();
    let mut seed = Seed::new(2, "axes");
    while !all.is_empty() {
        let sample = (0..CANDIDATES).filter_map(|_| {
            let at = seed.below(all.len() as u64);
            all.get(usize::try_from(at).unwrap_or_default())
        });
        let best = sample.max_by_key(|row| open.gain(row)).filter(|row| open.gain(row) > 0);
        // What is left at the end stands in few rows, which chance does not find.
        let Some(best) = best.or_else(|| all.iter().find(|row| open.gain(row) > 0)) else { break };
        open.mark(best, false);
        rows.push(best.clone());
    }
    rows
}

/// All valid rows.
pub(crate) fn every(sizes: &[usize], valid: impl Fn(&Row) -> bool) -> Vec<Row> {
    let mut row = vec![0; sizes.len()];
    let mut rows = Vec::new();
    loop {
        if valid(&row) {
            rows.push(row.clone());
        }
        // The next row, counted like a number.
        let Some(axis) = (0..row.len()).rev().find(|axis| row[*axis] + 1 < sizes[*axis]) else { return rows };
        row[axis] += 1;
        row[axis + 1..].fill(0);
    }
}

/// What no row has yet.
struct Open {
    what: Cover,
    /// Number of the first value of each axis, among all values.
    first: Vec<usize>,
    values: usize,
    /// For each two values, in the order of their axes; for a value alone, with itself.
    open: Vec<bool>,
}

impl Open {
    fn new(sizes: &[usize], what: Cover) -> Self {
        let first = (0..sizes.len()).map(|axis| sizes[..axis].iter().sum()).collect();
        let values: usize = sizes.iter().sum();
        Self { what, first, values, open: vec![false; values * values] }
    }

    fn places<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = usize> + 'a {
        let number = |axis: usize| self.first[axis] + row[axis];
        (0..row.len()).flat_map(move |a| {
            let with = match self.what {
                Cover::Values => a..a + 1,
                Cover::Pairs => a + 1..row.len(),
            };
            with.map(move |b| number(a) * self.values + number(b))
        })
    }

    fn gain(&self, row: &Row) -> usize {
        self.places(row).filter(|place| self.open[*place]).count()
    }

    fn mark(&mut self, row: &Row, open: bool) {
        for place in self.places(row).collect::<Vec<_>>() {
            self.open[place] = open;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_that_can_be_is_there_and_no_other() {
        let valid = |row: &Row| !(row[0] == 0 && row[2] == 1);
        let sizes = [3, 4, 2, 2];
        let rows = cover(&sizes, valid, Cover::Pairs);
        assert!(rows.iter().all(valid));
        assert!(rows.len() >= 12 && rows.len() < 24, "{}", rows.len());
        for (a, b) in [(0, 1), (0, 2), (1, 2), (2, 3)] {
            for (x, y) in (0..sizes[a]).flat_map(|x| (0..sizes[b]).map(move |y| (x, y))) {
                let there = rows.iter().any(|row| (row[a], row[b]) == (x, y));
                assert_eq!(there, (a, b, x, y) != (0, 2, 0, 1), "{a}={x} {b}={y}");
            }
        }
        assert_eq!(rows, cover(&sizes, valid, Cover::Pairs));
        let values = cover(&sizes, valid, Cover::Values);
        assert!(values.len() < 7 && (0..4).all(|value| values.iter().any(|row| row[1] == value)));
    }
}
