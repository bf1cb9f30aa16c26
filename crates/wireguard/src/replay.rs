//! Which counters of a session were seen (paper §5.4.6; the bitmap of RFC 6479 §2).

const WORD_BITS: u64 = u64::BITS as u64;
/// 8192 bits, the size of the Linux driver's window (`COUNTER_BITS_TOTAL`).
const WORDS: u64 = 128;
/// Counters that lie further behind the newest are refused. One word less than the bitmap holds,
/// because the newest word is only partly in use (RFC 6479 §2).
pub(crate) const WINDOW: u64 = (WORDS - 1) * WORD_BITS;

/// A ring of words. Moving forward clears whole words, so no bit is ever shifted.
pub(crate) struct ReplayWindow {
    /// One past the newest counter accepted.
    next: u64,
    words: [u64; WORDS as usize],
}

impl ReplayWindow {
    pub(crate) fn new() -> ReplayWindow {
        ReplayWindow { next: 0, words: [0; WORDS as usize] }
    }

    /// Whether `counter` is new. Cheap enough to ask before decrypting.
    pub(crate) fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        // `next - 1` is the newest, and `counter` is not after it.
        if self.next - 1 - counter >= WINDOW {
            return false;
        }
        let (word, bit) = place(counter);
        self.words[word] & bit == 0
    }

    /// Marks `counter` as seen; only after its packet was authenticated. False if it was not new.
    pub(crate) fn accept(&mut self, counter: u64) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        if counter >= self.next {
            let newest_word = self.next.saturating_sub(1) / WORD_BITS;
            let steps = (counter / WORD_BITS - newest_word).min(WORDS);
            for step in 1..=steps {
                self.words[((newest_word + step) % WORDS) as usize] = 0;
            }
            // Counters end at REJECT_AFTER_MESSAGES, far below the limit.
            self.next = counter.saturating_add(1);
        }
        let (word, bit) = place(counter);
        self.words[word] |= bit;
        true
    }
}

fn place(counter: u64) -> (usize, u64) {
    ((counter / WORD_BITS % WORDS) as usize, 1 << (counter % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn in_order_once_each() {
        let mut window = ReplayWindow::new();
        for counter in 0..3 * WINDOW {
            assert!(window.accept(counter), "{counter} is new");
            assert!(!window.accept(counter), "{counter} is not new again");
        }
    }

    #[test]
    fn edge_of_the_window() {
        let mut window = ReplayWindow::new();
        assert!(window.accept(WINDOW + 99));
        assert!(!window.is_new(99));
        assert!(window.accept(100));
        assert!(!window.accept(100));
    }

    #[test]
    fn a_jump_past_the_window_clears_it() {
        let mut window = ReplayWindow::new();
        assert!(window.accept(5));
        let far = 5 + 2 * WORDS * WORD_BITS;
        assert!(window.accept(far));
        assert!(window.accept(far - WORDS * WORD_BITS / 2));
        assert!(!window.accept(5));
    }

    proptest! {
        /// Against a set that remembers everything.
        #[test]
        fn agrees_with_a_plain_set(steps in proptest::collection::vec((any::<bool>(), 0..20_000u64), 1..400)) {
            let mut window = ReplayWindow::new();
            let mut seen = BTreeSet::new();
            let mut newest = 0u64;
            for (forward, by) in steps {
                let counter = if forward { newest + by / 16 } else { newest.saturating_sub(by) };
                let expected = !seen.contains(&counter) && newest.saturating_sub(counter) < WINDOW;
                prop_assert_eq!(window.accept(counter), expected, "counter {} newest {}", counter, newest);
                if expected {
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }
}
