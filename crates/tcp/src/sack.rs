//! Sets of byte ranges, and the choice of SACK blocks (RFC 2018, RFC 2883).

use std::collections::BTreeMap;

/// Disjoint, non-adjacent half-open ranges of stream offsets.
#[derive(Debug, Default)]
pub(crate) struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Adds a range and calls `new` with each part of it that was not yet in the set, in order.
    /// The cost is logarithmic, plus the ranges that are merged away, never the bytes or segments covered.
    pub(crate) fn insert(&mut self, start: u64, end: u64, mut new: impl FnMut(u64, u64)) {
        if start >= end {
            return;
        }
        let (mut merged_start, mut merged_end) = (start, end);
        let (mut covered, mut search) = (start, start);
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back()
            && before_end >= start
        {
            if before_end >= end {
                return;
            }
            merged_start = before;
            covered = before_end;
            search = before + 1;
        }
        while let Some((&next, &next_end)) = self.ranges.range(search..=end).next() {
            if next > covered {
                new(covered, next);
            }
            covered = next_end;
            merged_end = merged_end.max(next_end);
            self.ranges.remove(&next);
        }
        if covered < end {
            new(covered, end);
        }
        self.ranges.insert(merged_start, merged_end);
    }

    /// Drops everything before `offset`.
    pub(crate) fn remove_below(&mut self, offset: u64) {
        while let Some(first) = self.ranges.first_entry() {
            if *first.key() >= offset {
                break;
            }
            let end = first.remove();
            if end > offset {
                self.ranges.insert(offset, end);
                break;
            }
        }
    }

    /// The range that holds `offset`.
    pub(crate) fn containing(&self, offset: u64) -> Option<(u64, u64)> {
        self.ranges
            .range(..=offset)
            .next_back()
            .map(|(&start, &end)| (start, end))
            .filter(|&(_, end)| end > offset)
    }
}

/// Which blocks a receiver reports: the most recently changed first (RFC 2018 §4).
#[derive(Debug, Default)]
pub(crate) struct RecentBlocks {
    /// One offset inside each of the blocks, newest first.
    inside: [Option<u64>; crate::segment::MAX_SACK_BLOCKS],
}

impl RecentBlocks {
    /// Notes that the block around `offset` has just changed.
    pub(crate) fn touch(&mut self, offset: u64, ranges: &RangeSet) {
        let Some(block) = ranges.containing(offset) else { return };
        let mut kept = [None; crate::segment::MAX_SACK_BLOCKS];
        kept[0] = Some(offset);
        let others = self
            .inside
            .iter()
            .flatten()
            .filter(|&&other| ranges.containing(other).is_some_and(|other_block| other_block != block));
        for (slot, other) in kept[1..].iter_mut().zip(others) {
            *slot = Some(*other);
        }
        self.inside = kept;
    }

    /// The blocks to report, newest first, each once.
    pub(crate) fn blocks<'a>(&'a self, ranges: &'a RangeSet) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.inside.iter().flatten().filter_map(|&offset| ranges.containing(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_set_is_a_set_of_offsets(
            inserts in proptest::collection::vec((0u64..80, 0u64..20), 0..40),
            floor in 0u64..100,
        ) {
            let mut set = RangeSet::default();
            let mut model = std::collections::BTreeSet::new();
            for (start, len) in inserts {
                let mut reported = Vec::new();
                set.insert(start, start + len, |from, to| reported.extend(from..to));
                let expected: Vec<u64> = (start..start + len).filter(|offset| model.insert(*offset)).collect();
                prop_assert_eq!(reported, expected);
            }
            set.remove_below(floor);
            for offset in 0..110 {
                prop_assert_eq!(set.containing(offset).is_some(), offset >= floor && model.contains(&offset));
            }
            let mut last = None;
            for (start, end) in &set.ranges {
                prop_assert!(start < end && last < Some(*start), "touching or empty range");
                last = Some(*end);
            }
        }
    }

    #[test]
    fn rfc2018_4_newest_block_comes_first() {
        let (mut ranges, mut recent) = (RangeSet::default(), RecentBlocks::default());
        for start in [100, 300, 500, 700, 900] {
            ranges.insert(start, start + 50, |_, _| ());
            recent.touch(start, &ranges);
        }
        ranges.insert(550, 600, |_, _| ());
        recent.touch(550, &ranges);

        assert_eq!(
            recent.blocks(&ranges).collect::<Vec<_>>(),
            [(500, 600), (900, 950), (700, 750), (300, 350)]
        );
    }
}
