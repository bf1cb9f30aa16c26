//! What is still to happen, in order.
//!
//! A binary heap of small keys beside a slab of payloads: measured faster than a heap of payloads, a B-tree or a radix
//! heap at every size that occurs. Ties are broken by the order in which entries were made, never by what they hold.

use slab::Slab;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bits of a key that name a slot of the slab: 268 million entries may be pending.
const SLOT_BITS: u32 = 28;
/// Bits of a key that say when an entry was made: 68 thousand million entries, where a run ends after
/// [`MAX_EVENTS`](super::MAX_EVENTS).
const MADE_BITS: u32 = 64 - SLOT_BITS;

/// Entries to come, each with its time in nanoseconds since the start of the run.
#[derive(Debug)]
pub struct Agenda<T> {
    /// Time, number of the entry and slot in one integer: compared at once, and a third smaller than a tuple.
    heap: BinaryHeap<Reverse<u128>>,
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
    ///
    /// # Panics
    /// If 2^28 entries are pending, or 2^36 have been made.
    pub fn push(&mut self, at_ns: u64, entry: T) {
        let slot = self.entries.insert(entry) as u64;
        assert!(slot >> SLOT_BITS == 0 && self.made >> MADE_BITS == 0, "the agenda is full");
        self.heap.push(Reverse(u128::from(at_ns) << 64 | u128::from(self.made << SLOT_BITS | slot)));
        self.made += 1;
    }

    /// Removes the first entry.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse(key) = self.heap.pop()?;
        let slot = key as usize & ((1 << SLOT_BITS) - 1);
        Some(((key >> 64) as u64, self.entries.remove(slot)))
    }

    /// Time of the first entry.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(key)| (key >> 64) as u64)
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
