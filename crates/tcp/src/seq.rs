//! Sequence numbers: 32 bits on the wire, 64-bit stream offsets inside, so that nothing but this file knows they wrap.

/// One direction's sequence space. Offset 0 is the SYN, data starts at offset 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequenceSpace {
    initial: u32,
}

impl SequenceSpace {
    pub(crate) fn new(initial: u32) -> Self {
        Self { initial }
    }

    /// The wire number of a stream offset.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are the offset modulo 2^32")]
    pub(crate) fn wire(self, offset: u64) -> u32 {
        self.initial.wrapping_add(offset as u32)
    }

    /// The offset that a wire number means, taken as the one nearest to `near` (RFC 9293 §3.4: numbers compare
    /// modulo 2^32). `None` if that would lie before the SYN.
    pub(crate) fn offset(self, wire: u32, near: u64) -> Option<u64> {
        near.checked_add_signed(i64::from(distance(self.wire(near), wire)))
    }
}

/// How far `to` lies after `from`, negative if before.
#[expect(
    clippy::cast_possible_wrap,
    reason = "the wrap is the meaning: half the space is after, half before"
)]
pub(crate) fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_survive_the_wrap() {
        let space = SequenceSpace::new(u32::MAX - 2);

        assert_eq!(space.wire(5), 2);
        assert_eq!(space.offset(2, 1), Some(5));
        assert_eq!(space.offset(u32::MAX - 2, 5), Some(0));
        assert_eq!(space.offset(space.wire(1 << 33), (1 << 33) - 70_000), Some(1 << 33));
    }

    #[test]
    fn numbers_before_the_syn_have_no_offset() {
        assert_eq!(SequenceSpace::new(1000).offset(999, 0), None);
    }

    #[test]
    fn half_the_space_is_ahead() {
        assert!(distance(0, 0x7fff_ffff) > 0);
        assert!(distance(0, 0x8000_0001) < 0);
        assert_eq!(distance(u32::MAX, 1), 2);
    }
}
