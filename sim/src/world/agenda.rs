//! What is still to happen, in order.
//!
//! A binary heap of small keys beside a slab of payloads: measured faster than a heap of payloads, a B-tree or a radix
//! heap at every size that occurs. Ties are broken by the order in which entries were made, never by what they hold.

use slab::Slab;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries to come, each with its time in nanoseconds since the start of the run.
#[derive(Debug)]
pub struct Agenda<T> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    entries: Slab<T>,
    made: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Agenda { heap: BinaryHeap::new(), entries: Slab::new(), made: 0 }
    }
}

impl<T> Agenda<T> {
    /// Adds an entry at `at_ns`; among equal times the one added first comes first.
    pub fn push(&mut self, at_ns: u64, entry: T) {
        let slot = u32::try_from(self.entries.insert(entry)).expect("fewer than 2^32 pending entries");
        self.heap.push(Reverse((at_ns, self.made, slot)));
        self.made += 1;
    }

    /// Removes the first entry.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at_ns, _, slot)) = self.heap.pop()?;
        Some((at_ns, self.entries.remove(slot as usize)))
    }

    /// Time of the first entry.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ns, ..))| *at_ns)
    }

    /// How many entries are pending.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_times_come_in_the_order_they_were_made() {
        let mut agenda = Agenda::default();
        for name in ["c", "a", "b"] {
            agenda.push(5, name);
        }
        agenda.push(1, "first");
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(order, [(1, "first"), (5, "c"), (5, "a"), (5, "b")]);
    }

    proptest! {
        #[test]
        fn comes_out_as_a_stable_sort(times in prop::collection::vec(0u64..20, 0..200)) {
            let mut agenda = Agenda::default();
            for (i, t) in times.iter().enumerate() {
                agenda.push(*t, i);
            }
            let mut expected: Vec<(u64, usize)> = times.iter().copied().zip(0..).collect();
            expected.sort_by_key(|(t, _)| *t);
            let got: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
