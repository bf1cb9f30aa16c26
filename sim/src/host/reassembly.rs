//! Putting fragments together (RFC 791 §3.2, RFC 815, RFC 8200 §4.5), as Linux does.

use super::Refusal;
use crate::packet::{Body, IpEcn, Packet, Part};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use std::net::IpAddr;

/// How long the first part of an IPv4 packet to arrive waits for the others: Linux `IP_FRAG_TIME` (include/net/ip.h), in ns.
pub(super) const TIMEOUT_V4_NS: u64 = 30_000_000_000;
/// The same for IPv6: RFC 8200 §4.5, Linux `IPV6_FRAG_TIMEOUT` (include/net/ipv6.h), in ns.
pub(super) const TIMEOUT_V6_NS: u64 = 60_000_000_000;
/// Memory for what waits, in bytes: Linux `net.ipv4.ipfrag_high_thresh`. What comes then is lost.
pub(super) const MEMORY: usize = 4 << 20;
/// What a part costs beside its bytes: `SKB_TRUESIZE(0)` of Linux on 64 bits (include/linux/skbuff.h).
const OVERHEAD: usize = 576;
/// A part for which there is no memory left, or that overlaps another.
pub(super) const LOST: Refusal = "fragment";
/// A packet of which the parts come from several: its checksum is wrong (RFC 4963).
pub(super) const MIXED: Refusal = "bad-checksum";
/// A part that waits for others.
pub(crate) const HELD: Refusal = "held";

/// What the parts of one packet have in common.
type Key = (IpAddr, IpAddr, u32);

/// Parts of one packet.
#[derive(Debug)]
struct Queue {
    until_ns: u64,
    /// The part that came first.
    first: Packet,
    /// Where the parts begin and end, sorted, without overlaps.
    spans: Vec<(usize, usize)>,
    /// Where the last part ends, once it has come.
    end: Option<usize>,
    /// Whether a router had marked one of them (RFC 3168 §5.3).
    marked: bool,
    /// Whether some are of another packet that has the same identification.
    mixed: bool,
    cost: usize,
}

/// Fragments that wait for the rest of their packets.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    queues: IndexMap<Key, Queue, FxBuildHasher>,
    /// Memory in use, in bytes.
    used: usize,
    /// When the oldest has waited too long.
    due_ns: Option<u64>,
}

impl Reassembly {
    /// Bytes that wait, with what they cost beside.
    #[cfg(test)]
    fn used(&self) -> usize {
        self.used
    }

    /// A part has arrived. Gives the whole packet if it was the missing one.
    ///
    /// # Errors
    /// Why there is none: [`HELD`], [`LOST`] or [`MIXED`].
    pub(super) fn take(&mut self, packet: Packet, now_ns: u64) -> Result<Packet, Refusal> {
        self.expire(now_ns);
        let Body::Fragment(part) = &packet.body else { return Ok(packet) };
        let key = (packet.src.ip(), packet.dst.ip(), part.ident);
        let span = (part.range().start, part.range().end);
        let (more, cost) = (part.more, usize::from(part.len) + OVERHEAD);
        if self.used + cost > MEMORY {
            return Err(LOST);
        }
        let marked = packet.ecn == IpEcn::CongestionExperienced;
        let id = packet.id;
        let queue = self.queues.entry(key).or_insert_with(|| {
            let timeout = if packet.src.is_ipv4() { TIMEOUT_V4_NS } else { TIMEOUT_V6_NS };
            let until_ns = now_ns.saturating_add(timeout);
            self.due_ns = Some(self.due_ns.map_or(until_ns, |due| due.min(until_ns)));
            Queue { until_ns, first: packet, spans: Vec::new(), end: None, marked, mixed: false, cost: 0 }
        });
        if queue.spans.contains(&span) {
            // The same again: a link has doubled it.
            return Err(HELD);
        }
        let fits = queue.add(span, more);
        if !fits {
            // RFC 5722 §4: the whole packet is given up, and so is Linux's for IPv4 (`inet_frag_queue_insert`).
            self.drop_queue(&key);
            return Err(LOST);
        }
        queue.marked |= marked;
        queue.mixed |= queue.first.id != id;
        queue.cost += cost;
        self.used += cost;
        if !queue.is_complete() {
            return Err(HELD);
        }
        match self.drop_queue(&key) {
            Some(queue) if !queue.mixed => Ok(queue.whole()),
            _ => Err(MIXED),
        }
    }

    fn drop_queue(&mut self, key: &Key) -> Option<Queue> {
        let queue = self.queues.swap_remove(key)?;
        self.used -= queue.cost;
        Some(queue)
    }

    /// Gives up what has waited too long.
    fn expire(&mut self, now_ns: u64) {
        if self.due_ns.is_none_or(|due| now_ns < due) {
            return;
        }
        self.queues.retain(|_, queue| queue.until_ns > now_ns);
        self.used = self.queues.values().map(|queue| queue.cost).sum();
        self.due_ns = self.queues.values().map(|queue| queue.until_ns).min();
    }
}

impl Queue {
    /// Writes a part down, if it agrees with those that are here.
    fn add(&mut self, (start, end): (usize, usize), more: bool) -> bool {
        let at = self.spans.partition_point(|(other, _)| *other < start);
        let apart = at.checked_sub(1).is_none_or(|before| self.spans[before].1 <= start)
            && self.spans.get(at).is_none_or(|(next, _)| end <= *next);
        let last = self.spans.last().map_or(0, |(_, end)| *end).max(end);
        let ends = match (self.end, more) {
            (None, true) => true,
            (None, false) => last <= end,
            (Some(known), true) => end <= known,
            (Some(known), false) => end == known,
        };
        if !apart || !ends || start == end {
            return false;
        }
        if !more {
            self.end = Some(end);
        }
        self.spans.insert(at, (start, end));
        true
    }

    fn is_complete(&self) -> bool {
        let mut to = 0;
        self.spans.iter().all(|(start, end)| std::mem::replace(&mut to, *end) == *start)
            && self.end == Some(to)
    }

    fn whole(self) -> Packet {
        let mut packet = self.first;
        if let Body::Fragment(part) = packet.body {
            let Part { data, .. } = *part;
            packet.body = Body::Udp(data);
        }
        if self.marked {
            packet.ecn = IpEcn::CongestionExperienced;
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn datagram(id: u64, len: usize, v6: bool) -> Packet {
        let ip = |last: u8| -> IpAddr {
            if v6 { [0x3001, 0, 0, 0, 0, 0, 0, u16::from(last)].into() } else { [33, 0, 0, last].into() }
        };
        let (src, dst) = (SocketAddr::new(ip(1), 4000), SocketAddr::new(ip(2), 5000));
        let data: Vec<u8> = (0..len).map(|i| (i as u64 ^ id) as u8).collect();
        Packet { id, dont_fragment: false, ..Packet::udp(src, dst, Bytes::from(data)) }
    }

    fn parts(packet: &Packet, mtu: usize) -> Vec<Packet> {
        packet.fragments(mtu).expect("it may be fragmented")
    }

    #[test]
    fn parts_in_order_make_the_packet_again_and_leave_nothing() {
        let mut waiting = Reassembly::default();
        let packet = datagram(7, 3000, false);
        let results: Vec<_> = parts(&packet, 1500).into_iter().map(|part| waiting.take(part, 0)).collect();
        assert_eq!(results, [Err(HELD), Err(HELD), Ok(packet)]);
        assert_eq!(waiting.used(), 0);
    }

    #[test]
    fn a_part_waits_as_long_as_linux_lets_it() {
        for (v6, timeout_ns) in [(false, TIMEOUT_V4_NS), (true, TIMEOUT_V6_NS)] {
            let packet = datagram(7, 2000, v6);
            for (at_ns, result) in [(timeout_ns - 1, Ok(packet.clone())), (timeout_ns, Err(HELD))] {
                let mut waiting = Reassembly::default();
                let mut parts = parts(&packet, 1500).into_iter();
                assert_eq!(waiting.take(parts.next().expect("a first"), 0), Err(HELD));
                assert_eq!(waiting.take(parts.next().expect("a second"), at_ns), result);
            }
        }
    }

    #[test]
    fn a_flood_of_first_parts_costs_no_more_memory_than_there_is() {
        let mut waiting = Reassembly::default();
        for id in 0..20_000 {
            let _ = waiting.take(parts(&datagram(id, 2000, true), 1500).remove(0), 0);
            assert!(waiting.used() <= MEMORY);
        }
        assert_eq!(waiting.take(parts(&datagram(20_000, 2000, true), 1500).remove(0), 0), Err(LOST));
        assert_eq!(waiting.take(parts(&datagram(1, 2000, true), 1500).remove(0), TIMEOUT_V6_NS), Err(HELD));
    }

    #[test]
    fn parts_of_two_packets_with_one_identification_make_none() {
        let mut waiting = Reassembly::default();
        let (old, new) = (datagram(5, 2000, false), datagram(5 + (1 << 16), 2000, false));
        assert_eq!(waiting.take(parts(&old, 1500).remove(0), 0), Err(HELD));
        assert_eq!(waiting.take(parts(&new, 1500).remove(1), 0), Err(MIXED));
    }

    proptest! {
        /// Any order, doubled parts, parts of parts, parts cut elsewhere, and those of a namesake.
        #[test]
        fn what_comes_out_is_what_went_in(
            len in 1_usize..6000,
            v6 in any::<bool>(),
            mtus in proptest::collection::vec(100_usize..1600, 1..4),
            picks in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..3, any::<bool>()), 1..60),
        ) {
            let packet = datagram(3, len, v6);
            let namesake = datagram(3 + (1 << 32), len, v6);
            let cut = |packet: &Packet| -> Vec<Packet> {
                let whole: Vec<Packet> = mtus.iter().flat_map(|mtu| parts(packet, *mtu)).collect();
                let again = whole.iter().flat_map(|part| parts(part, 96)).collect::<Vec<_>>();
                whole.into_iter().chain(again).collect()
            };
            let (own, others) = (cut(&packet), cut(&namesake));
            let mut waiting = Reassembly::default();
            for (index, times, other) in picks {
                let part = index.get(if other { &others } else { &own });
                for _ in 0..=times {
                    match waiting.take(part.clone(), 0) {
                        Ok(whole) => prop_assert!(whole == packet || whole == namesake),
                        Err(reason) => prop_assert!([HELD, LOST, MIXED].contains(&reason)),
                    }
                }
            }
        }

        #[test]
        fn every_order_of_the_parts_makes_the_packet(
            len in 1_usize..6000,
            v6 in any::<bool>(),
            order in proptest::collection::vec(any::<u64>(), 100),
        ) {
            let packet = datagram(3, len, v6);
            let once = parts(&packet, 1000);
            let twice = once.iter().flat_map(|part| parts(part, 333));
            let mut keyed: Vec<_> = order.iter().cycle().zip(twice).collect();
            keyed.sort_by_key(|(key, _)| **key);
            let mut waiting = Reassembly::default();
            let mut results: Vec<_> = keyed.into_iter().map(|(_, part)| waiting.take(part, 0)).collect();
            prop_assert_eq!(results.pop(), Some(Ok(packet)));
            prop_assert!(results.iter().all(|result| *result == Err(HELD)));
        }
    }
}
