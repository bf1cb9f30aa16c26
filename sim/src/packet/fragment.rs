//! Parts of a datagram that was too long for a link (RFC 791 §3.2, RFC 8200 §4.5).

use super::{Body, Packet};
use bytes::Bytes;
use etherparse::{Ipv4Header, Ipv6FragmentHeader, Ipv6Header, UdpHeader};
use std::ops::Range;

/// What all parts but the last are a multiple of, in bytes (RFC 791 §3.1).
const UNIT: usize = 8;

/// A part of a UDP datagram. Every part knows the whole, so that a box may change its ports and checksum wherever they
/// stand; on the wire it has but its own bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What the whole datagram carries.
    pub data: Bytes,
    /// What the parts of one packet have in common; 16 bits of it over IPv4.
    pub ident: u32,
    /// Where it begins, in bytes from the UDP header on.
    pub offset: u16,
    /// Its length in bytes.
    pub len: u16,
    /// Whether more follows.
    pub more: bool,
}

impl Part {
    /// Where its bytes stand in the datagram, UDP header included.
    pub fn range(&self) -> Range<usize> {
        let offset = usize::from(self.offset);
        offset..offset + usize::from(self.len)
    }

    /// What it has of the datagram's data.
    pub(super) fn payload(&self) -> &[u8] {
        let Range { start, end } = self.range();
        let (start, end) = (start.saturating_sub(UdpHeader::LEN), end.saturating_sub(UdpHeader::LEN));
        self.data.get(start..end).unwrap_or_default()
    }

    /// The length of its header that the whole packet does not have.
    pub(super) fn header_len(is_v4: bool) -> usize {
        if is_v4 { 0 } else { Ipv6FragmentHeader::LEN }
    }
}

impl Packet {
    /// The parts in which the packet passes a link of that MTU, in order; `None` if it passes in none: because it is no UDP,
    /// must not be fragmented, or the link has no room for eight bytes of it. A part may be fragmented again.
    pub fn fragments(&self, mtu: usize) -> Option<Vec<Packet>> {
        if self.dont_fragment {
            return None;
        }
        let v4 = self.src.is_ipv4();
        let (data, ident, whole, last) = match &self.body {
            Body::Udp(data) => (data, self.ident(), 0..UdpHeader::LEN + data.len(), true),
            Body::Fragment(part) => (&part.data, part.ident, part.range(), !part.more),
            _ => return None,
        };
        let ip = if v4 { Ipv4Header::MIN_LEN } else { Ipv6Header::LEN };
        let room = mtu.checked_sub(ip + Part::header_len(v4))?;
        let step = room / UNIT * UNIT;
        if step == 0 {
            return None;
        }
        let mut parts = Vec::new();
        let mut start = whole.start;
        while start < whole.end {
            let rest = whole.end - start;
            let len = if rest <= room && last { rest } else { rest.min(step) };
            let part = Part {
                data: data.clone(),
                ident,
                offset: u16::try_from(start).ok()?,
                len: u16::try_from(len).ok()?,
                more: !last || len < rest,
            };
            parts.push(Packet { body: Body::Fragment(Box::new(part)), ..self.clone() });
            start += len;
        }
        Some(parts)
    }

    /// The identification of the packet: its number, as far as there is room.
    pub(super) fn ident(&self) -> u32 {
        if self.src.is_ipv4() { u32::from(self.id as u16) } else { self.id as u32 }
    }
}
