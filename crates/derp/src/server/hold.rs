//! Packets for clients that are not back yet, in the first moments of a relay.
//!
//! The clients of a relay that restarts come back one after the other. What the first of them send to the others would be lost,
//! and that is all that had gathered at the senders in the meantime. So it waits for a moment.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Instant;

use crate::frame::recv_packet_parts;
use crate::keys::PublicKey;
use crate::queue::{Class, QUEUE_LEN};

/// Bytes that wait for clients in all, at most. Ours: a thousand packets.
pub const HELD_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Hold {
    until: Option<Instant>,
    bytes: usize,
    packets: BTreeMap<PublicKey, Vec<(Class, Bytes)>>,
}

impl Hold {
    pub(super) fn until(until: Option<Instant>) -> Hold {
        Hold { until, ..Hold::default() }
    }

    /// Keeps a packet, as the frame that its receiver will get. What there is no room for comes back.
    pub(super) fn push(&mut self, dst: PublicKey, class: Class, frame: Bytes, now: Instant) -> Option<Bytes> {
        let waiting = self.packets.get(&dst).map_or(0, Vec::len);
        let fits = waiting < QUEUE_LEN && self.bytes + frame.len() <= HELD_BYTES;
        if !fits || self.until.is_none_or(|until| until <= now) {
            return Some(frame);
        }
        self.bytes += frame.len();
        self.packets.entry(dst).or_default().push((class, frame));
        None
    }

    /// What waited for a client, the oldest first.
    pub(super) fn take(&mut self, dst: &PublicKey) -> Vec<(Class, Bytes)> {
        let packets = self.packets.remove(dst).unwrap_or_default();
        self.bytes -= packets.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        packets
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Sender, receiver, class and length of all that waited in vain, once it is time.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(PublicKey, PublicKey, Class, usize)> {
        if self.until.is_none_or(|until| until > now) {
            return Vec::new();
        }
        let held = std::mem::take(self);
        let each = held.packets.into_iter().flat_map(|(dst, packets)| {
            packets.into_iter().filter_map(move |(class, frame)| {
                let (src, bytes) = recv_packet_parts(&frame)?;
                Some((src, dst, class, bytes))
            })
        });
        each.collect()
    }
}
