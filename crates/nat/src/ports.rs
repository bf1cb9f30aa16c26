//! Which external ports are taken.

use crate::PortRange;

const WORDS: usize = 1024;

/// A set of ports, one bit each.
#[derive(Debug)]
pub(crate) struct PortSet(Box<[u64; WORDS]>);

impl PortSet {
    pub(crate) fn new() -> Self {
        PortSet(Box::new([0; WORDS]))
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] >> (port & 63) & 1 == 1
    }

    pub(crate) fn insert(&mut self, port: u16) {
        self.0[usize::from(port >> 6)] |= 1 << (port & 63);
    }

    pub(crate) fn remove(&mut self, port: u16) {
        self.0[usize::from(port >> 6)] &= !(1 << (port & 63));
    }

    /// The first port of `range` that is not in the set, from `from` upwards and then from the start of the range.
    /// Looks at 64 ports at a time.
    pub(crate) fn next_free(&self, from: u16, range: PortRange) -> Option<u16> {
        self.search(from, range, u64::MAX)
    }

    /// The same among the ports that are even or odd as `like` is.
    pub(crate) fn next_free_like(&self, like: u16, from: u16, range: PortRange) -> Option<u16> {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        self.search(from, range, EVEN << (like & 1))
    }

    fn search(&self, from: u16, range: PortRange, mask: u64) -> Option<u16> {
        let from = if range.contains(from) { from } else { range.low };
        self.free_between(from, range.high, mask).or_else(|| self.free_between(range.low, from, mask))
    }

    fn free_between(&self, low: u16, high: u16, mask: u64) -> Option<u16> {
        if low > high {
            return None;
        }
        let first = usize::from(low >> 6);
        (first..=usize::from(high >> 6)).find_map(|word| {
            let mut free = !self.0[word] & mask;
            if word == first {
                free &= u64::MAX << (low & 63);
            }
            let port = word as u32 * 64 + free.trailing_zeros();
            (free != 0 && port <= u32::from(high)).then_some(port as u16)
        })
    }
}
