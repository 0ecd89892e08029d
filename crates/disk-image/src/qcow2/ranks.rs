//! A set of numbers with ranks: which numbers are in it, and which is the n-th.
//!
//! Held as runs of neighbours in ascending order, each with the count of members before it, so that both questions are a binary
//! search. Cost: 8 bytes a run, however long.

/// A set of numbers below 2^32.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranks {
    starts: Vec<Start>,
    len: u64,
}

#[derive(Debug, Clone, Copy)]
struct Start {
    /// The first member of the run.
    first: u32,
    /// Members before it. The next run's rank tells this one's length.
    rank: u32,
}

/// Neighbouring members, up to the end of their run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first of them.
    pub first: u64,
    /// How many there are.
    pub len: u64,
    /// Members of the set before the first one.
    pub rank: u64,
}

impl Ranks {
    /// Adds the numbers from `first` up to, not including, `end`. The last ones added may be among them; smaller ones may not.
    pub(super) fn add(&mut self, first: u64, end: u64) {
        let known = self.starts.last().map(|last| u64::from(last.first) + (self.len - u64::from(last.rank)));
        let first = first.max(known.unwrap_or(0));
        if first >= end {
            return;
        }
        if known != Some(first) {
            let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            self.starts.push(Start { first: narrow(first), rank: narrow(self.len) });
        }
        self.len += end - first;
    }

    /// Number of members.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        size_of_val(self.starts.as_slice())
    }

    /// The members from `number` on, or from the next member after it.
    pub(super) fn from(&self, number: u64) -> Option<Run> {
        let next = self.starts.partition_point(|start| u64::from(start.first) <= number);
        let inside =
            next.checked_sub(1).and_then(|i| self.run(i)).and_then(|run| run.after(number - run.first));
        inside.or_else(|| self.run(next))
    }

    /// The members from the one with this rank on.
    pub(super) fn at(&self, rank: u64) -> Option<Run> {
        let next = self.starts.partition_point(|start| u64::from(start.rank) <= rank);
        let run = self.run(next.checked_sub(1)?)?;
        run.after(rank - run.rank)
    }

    fn run(&self, index: usize) -> Option<Run> {
        let start = self.starts.get(index)?;
        let end = self.starts.get(index + 1).map_or(self.len, |next| next.rank.into());
        let rank = u64::from(start.rank);
        Some(Run { first: start.first.into(), len: end - rank, rank })
    }
}

impl Run {
    /// What is left after the first `count` members; `None` if nothing is.
    fn after(self, count: u64) -> Option<Self> {
        let len = self.len.checked_sub(count).filter(|&len| len > 0)?;
        Some(Self { first: self.first + count, len, rank: self.rank + count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_sorted_list() {
        let mut ranks = Ranks::default();
        for (first, end) in [(3, 5), (4, 5), (5, 6), (9, 9), (10, 11), (10, 14), (u32::MAX.into(), 1 << 32)] {
            ranks.add(first, end);
        }
        let members = [3, 4, 5, 10, 11, 12, 13, u64::from(u32::MAX)];
        assert_eq!(ranks.len(), members.len() as u64);
        assert_eq!(ranks.memory(), 3 * 8);
        for (rank, &member) in members.iter().enumerate() {
            let run = ranks.at(rank as u64).unwrap();
            assert_eq!((run.first, run.rank), (member, rank as u64));
            assert_eq!(ranks.from(member), Some(run));
        }
        assert_eq!(ranks.at(members.len() as u64), None);
        for number in 0..20 {
            let expected = members.iter().find(|&&m| m >= number);
            assert_eq!(ranks.from(number).map(|run| run.first), expected.copied(), "{number}");
        }
        assert_eq!(ranks.from(4), Some(Run { first: 4, len: 2, rank: 1 }));
        assert_eq!(ranks.from(1 << 32), None);
        assert_eq!(Ranks::default().from(0), None);
    }
}
