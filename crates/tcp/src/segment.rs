//! TCP segments as typed values. Ports and addresses are the caller's.

use bytes::Bytes;
use std::fmt;
use std::ops::BitOr;

/// The most SACK blocks that fit in a header (RFC 2018 §3: 40 bytes of options, 8n + 2 each).
pub const MAX_SACK_BLOCKS: usize = 4;

/// The control bits that this TCP uses (RFC 9293 §3.1), with their wire values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No flag at all: never valid on a wire, useful as a start.
    pub const NONE: Self = Self(0);
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push: the sender has nothing more queued at the moment.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number is valid.
    pub const ACK: Self = Self(0x10);

    /// The flags as in byte 13 of the header; bits that this TCP does not use are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0x1f)
    }

    /// The value of byte 13 of the header.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// True if every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if SYN is set.
    #[must_use]
    pub const fn syn(self) -> bool {
        self.contains(Self::SYN)
    }

    /// True if ACK is set.
    #[must_use]
    pub const fn ack(self) -> bool {
        self.contains(Self::ACK)
    }

    /// True if FIN is set.
    #[must_use]
    pub const fn fin(self) -> bool {
        self.contains(Self::FIN)
    }

    /// True if RST is set.
    #[must_use]
    pub const fn rst(self) -> bool {
        self.contains(Self::RST)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Flags, &str); 5] = [
            (Flags::SYN, "SYN"),
            (Flags::FIN, "FIN"),
            (Flags::RST, "RST"),
            (Flags::PSH, "PSH"),
            (Flags::ACK, "ACK"),
        ];
        let mut separator = "";
        for (flag, name) in NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if separator.is_empty() { f.write_str("NONE") } else { Ok(()) }
    }
}

/// Up to four SACK blocks, each a half-open range of wire sequence numbers (RFC 2018 §3).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [(u32, u32); MAX_SACK_BLOCKS],
    len: u8,
}

impl SackBlocks {
    /// Appends a block. Returns false, and changes nothing, if there are four already.
    pub fn push(&mut self, left: u32, right: u32) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *slot = (left, right);
        self.len += 1;
        true
    }

    /// The blocks in the order they were pushed.
    #[must_use]
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// True without any block.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// The timestamps option (RFC 7323 §3), in the sender's ticks; this TCP ticks in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the peer's clock as last seen, 0 without ACK.
    pub echo: u32,
}

/// The options of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size in bytes, only with SYN (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// Window scale as a shift count, only with SYN (RFC 7323 §2.2).
    pub window_scale: Option<u8>,
    /// SACK permitted, only with SYN (RFC 2018 §2).
    pub sack_permitted: bool,
    /// SACK blocks.
    pub sack: SackBlocks,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
}

impl Options {
    /// The options as they stand in a header, padded with NOPs to whole 32-bit words.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Some(mss) = self.mss {
            out.extend_from_slice(&[2, 4]);
            out.extend_from_slice(&mss.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            out.extend_from_slice(&[1, 3, 3, shift]);
        }
        if self.sack_permitted {
            out.extend_from_slice(&[1, 1, 4, 2]);
        }
        if let Some(timestamps) = self.timestamps {
            out.extend_from_slice(&[1, 1, 8, 10]);
            out.extend_from_slice(&timestamps.value.to_be_bytes());
            out.extend_from_slice(&timestamps.echo.to_be_bytes());
        }
        if !self.sack.is_empty() {
            out.extend_from_slice(&[1, 1, 5, 2 + 8 * self.sack.len]);
            for (left, right) in self.sack.as_slice() {
                out.extend_from_slice(&left.to_be_bytes());
                out.extend_from_slice(&right.to_be_bytes());
            }
        }
    }

    /// How many bytes [`encode`](Self::encode) writes.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        4 * usize::from(self.mss.is_some())
            + 4 * usize::from(self.window_scale.is_some())
            + 4 * usize::from(self.sack_permitted)
            + 12 * usize::from(self.timestamps.is_some())
            + if self.sack.is_empty() { 0 } else { 4 + 8 * usize::from(self.sack.len) }
    }
}

/// One TCP segment, without ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Acknowledgement number, meaningful with [`Flags::ACK`].
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// The window as on the wire: still to be shifted by the negotiated scale, except in a SYN.
    pub window: u16,
    /// Options.
    pub options: Options,
    /// The data.
    pub payload: Bytes,
}

impl Segment {
    /// Bytes of the TCP header with its options.
    #[must_use]
    pub fn header_len(&self) -> usize {
        20 + self.options.wire_len()
    }

    /// Bytes of the whole segment: what an IP packet would carry.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.header_len() + self.payload.len()
    }

    /// How much sequence space the segment takes: its data, and one each for SYN and FIN (RFC 9293 §3.4).
    #[must_use]
    pub fn sequence_len(&self) -> u64 {
        self.payload.len() as u64 + u64::from(self.flags.syn()) + u64::from(self.flags.fin())
    }

    /// The RST that a host without a matching connection answers with (RFC 9293 §3.5.2 group 1), `None` for a RST.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are modulo 2^32")]
    pub fn reset_for(segment: &Self) -> Option<Self> {
        if segment.flags.rst() {
            return None;
        }
        let (seq, ack, flags) = if segment.flags.ack() {
            (segment.ack, 0, Flags::RST)
        } else {
            (0, segment.seq.wrapping_add(segment.sequence_len() as u32), Flags::RST | Flags::ACK)
        };
        Some(Self::bare(seq, ack, flags))
    }

    /// A segment without data, options or window.
    pub(crate) fn bare(seq: u32, ack: u32, flags: Flags) -> Self {
        Self { seq, ack, flags, window: 0, options: Options::default(), payload: Bytes::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9293_3_5_2_reset_takes_its_number_from_the_ack() {
        let stray = Segment { payload: Bytes::from_static(b"abc"), ..Segment::bare(7, 99, Flags::ACK) };

        let reset = Segment::reset_for(&stray).unwrap();

        assert_eq!((reset.seq, reset.flags), (99, Flags::RST));
    }

    #[test]
    fn rfc9293_3_5_2_reset_without_ack_acknowledges_the_segment() {
        let reset = Segment::reset_for(&Segment::bare(7, 0, Flags::SYN)).unwrap();

        assert_eq!((reset.seq, reset.ack, reset.flags), (0, 8, Flags::RST | Flags::ACK));
    }

    #[test]
    fn rfc9293_3_5_2_a_reset_is_never_answered() {
        assert_eq!(Segment::reset_for(&Segment::bare(7, 0, Flags::RST)), None);
    }

    #[test]
    fn options_are_as_long_as_they_say_and_whole_words() {
        let mut sack = SackBlocks::default();
        assert!(sack.push(1, 2) && sack.push(3, 4));
        let options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            sack,
            timestamps: Some(Timestamps { value: 1, echo: 2 }),
        };

        let mut bytes = Vec::new();
        options.encode(&mut bytes);

        assert_eq!(bytes.len(), options.wire_len());
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_fifth_sack_block_is_refused() {
        let mut sack = SackBlocks::default();
        for i in 0..4 {
            assert!(sack.push(i, i + 1));
        }

        assert!(!sack.push(9, 10));
        assert_eq!(sack.as_slice().len(), 4);
    }
}
