//! The receiving half: reassembly, the window we advertise, and when to acknowledge.

use crate::buffer::ByteQueue;
use crate::config::Config;
use crate::sack::{RangeSet, RecentBlocks};
use crate::segment::SackBlocks;
use crate::seq::SequenceSpace;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pieces held out of order. A window of 6 MiB has 4,500 full segments; a peer that sends dust is made to repeat it.
const MAX_PIECES: usize = 16_384;
/// Segments acknowledged at once at the start, so that the peer's slow start is not held up
/// (Linux `TCP_MAX_QUICKACKS`).
const QUICK_ACKS: u32 = 16;

#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) space: SequenceSpace,
    /// The next offset expected (RCV.NXT).
    pub(crate) next: u64,
    ready: ByteQueue,
    /// Data beyond a gap, by offset, without overlap.
    early: BTreeMap<u64, Bytes>,
    ranges: RangeSet,
    recent: RecentBlocks,
    /// Where the peer's FIN stands.
    fin: Option<u64>,
    fin_reached: bool,
    /// A duplicate to be reported (RFC 2883).
    duplicate: Option<(u64, u64)>,

    /// Bytes we are ready to hold; grows up to `max_buffer`.
    buffer: usize,
    max_buffer: usize,
    /// The right edge that the peer may count on.
    promised: u64,
    mss: usize,
    pub(crate) window_shift: u8,
    tuning: Tuning,

    acks: AckState,
    delayed_ack: Duration,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct AckState {
    now: bool,
    at: Option<Instant>,
    /// Bytes received since the last ACK.
    pending: usize,
    /// The largest segment seen, as an estimate of the peer's MSS.
    largest: usize,
    quick: u32,
    last_data: Option<Instant>,
}

/// Dynamic right-sizing: the buffer follows what the reader takes in a round-trip time (Linux `tcp_rcv_space_adjust`).
#[derive(Debug)]
struct Tuning {
    rtt: Option<Duration>,
    /// What was read in the best round so far.
    space: usize,
    since: Instant,
    read: usize,
}

impl Receiver {
    pub(crate) fn new(config: &Config, irs: u32, shift: u8, mss: usize, now: Instant) -> Self {
        // With scaling, a window below one unit of the scale could not be advertised at all.
        let floor = if shift > 0 { 4096 } else { 1 };
        let max_buffer = if shift == 0 {
            config.receive_buffer.max.min(usize::from(u16::MAX))
        } else {
            config.receive_buffer.max
        };
        let max_buffer = max_buffer.max(floor);
        Self {
            space: SequenceSpace::new(irs),
            next: 1,
            ready: ByteQueue::default(),
            early: BTreeMap::new(),
            ranges: RangeSet::default(),
            recent: RecentBlocks::default(),
            fin: None,
            fin_reached: false,
            duplicate: None,
            buffer: config.receive_buffer.initial.clamp(floor, max_buffer),
            max_buffer,
            promised: 1,
            mss,
            window_shift: shift,
            tuning: Tuning { rtt: None, space: 10 * mss, since: now, read: 0 },
            acks: AckState {
                now: false,
                at: None,
                pending: 0,
                largest: 0,
                quick: QUICK_ACKS,
                last_data: None,
            },
            delayed_ack: config.delayed_ack,
            bytes: 0,
        }
    }

    /// Whether a segment lies in the window, and its offset (RFC 9293 §3.10.7.4, in Linux's slightly wider form: one
    /// that begins exactly at the right edge is let in for its ACK).
    pub(crate) fn offset_of(&self, seq: u32) -> Option<u64> {
        self.space.offset(seq, self.next)
    }

    pub(crate) fn acceptable(&self, start: u64, len: u64) -> bool {
        start <= self.right_edge() && (start + len > self.next || (len == 0 && start == self.next))
    }

    fn right_edge(&self) -> u64 {
        self.promised.max(self.next)
    }

    /// Takes a segment's data and FIN. Returns true if there is something new to read.
    pub(crate) fn data(&mut self, start: u64, payload: &Bytes, fin: bool, now: Instant) -> bool {
        let mut end = start + payload.len() as u64;
        if fin && self.fin.is_none() && end >= self.next && end <= self.right_edge() && !self.has_beyond(end)
        {
            self.fin = Some(end);
        }
        // Nothing comes after a FIN, and nothing beyond the window is kept.
        let limit = self.right_edge().min(self.fin.unwrap_or(u64::MAX));
        let beyond = end > limit;
        end = end.min(limit);
        if !payload.is_empty() {
            let idle = self.acks.last_data.map(|last| now.saturating_duration_since(last));
            // After a pause the peer may be in slow start again.
            if idle.is_some_and(|idle| idle > Duration::from_secs(1)) {
                self.acks.quick = QUICK_ACKS;
            }
            self.acks.last_data = Some(now);
            self.acks.largest = self.acks.largest.max(payload.len());
        }
        let before = self.next;
        if start < self.next && !payload.is_empty() {
            // RFC 2883 §4: the part that had arrived before.
            self.report_duplicate(start, end.min(self.next));
        }
        let from = start.max(self.next);
        if from < end {
            let slice = |from: u64, to: u64| piece(payload, start, from, to);
            if from == self.next && self.early.is_empty() {
                self.next = end;
                self.ready.push(slice(from, end));
            } else {
                self.early_or_filling(from, end, slice);
            }
        } else if beyond {
            self.acks.now = true;
        }
        let fresh = usize::try_from(self.next - before).unwrap_or(usize::MAX);
        self.bytes += fresh as u64;
        self.reach_fin();
        self.acknowledge_later(fresh, payload.len(), now);
        fresh > 0
    }

    fn has_beyond(&self, end: u64) -> bool {
        self.early.last_key_value().is_some_and(|(&start, piece)| start + piece.len() as u64 > end)
    }

    fn early_or_filling(&mut self, from: u64, end: u64, slice: impl Fn(u64, u64) -> Bytes) {
        // RFC 5681 §4.2: at once when out of order, and when it fills a gap.
        self.acks.now = true;
        if self.early.len() >= MAX_PIECES && from > self.next {
            return;
        }
        let Self { early, ranges, .. } = self;
        let mut new = 0;
        ranges.insert(from, end, |from, to| {
            new += to - from;
            early.insert(from, slice(from, to));
        });
        if new < end - from {
            self.report_duplicate(from, end);
        }
        self.recent.touch(from, &self.ranges);
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() != self.next {
                break;
            }
            let bytes = entry.remove();
            self.next += bytes.len() as u64;
            self.ready.push(bytes);
        }
        self.ranges.remove_below(self.next);
    }

    fn report_duplicate(&mut self, start: u64, end: u64) {
        self.acks.now = true;
        if start < end && self.duplicate.is_none() {
            self.duplicate = Some((start, end));
        }
    }

    fn reach_fin(&mut self) {
        if self.fin == Some(self.next) && !self.fin_reached {
            self.fin_reached = true;
            self.next += 1;
            self.acks.now = true;
        }
    }

    /// The peer's FIN has been reached: everything it sent is here.
    pub(crate) fn finished(&self) -> bool {
        self.fin_reached
    }

    fn acknowledge_later(&mut self, fresh: usize, arrived: usize, now: Instant) {
        if arrived == 0 {
            return;
        }
        self.acks.pending += fresh;
        // Every second full segment (RFC 9293 §3.8.6.3), or when half of a small buffer is in doubt.
        let enough = self.acks.pending > self.acks.largest || self.acks.pending >= self.buffer / 2;
        if self.acks.quick > 0 {
            self.acks.quick -= 1;
            self.acks.now = true;
        } else if fresh == 0 || enough || !self.early.is_empty() {
            self.acks.now = true;
        } else if self.acks.at.is_none() {
            self.acks.at = Some(now + self.delayed_ack);
        }
    }

    /// An ACK must go out with the next segment, at once.
    pub(crate) fn acknowledge_now(&mut self) {
        self.acks.now = true;
    }

    /// The peer sent something old: reports it (RFC 2883) and acknowledges at once.
    pub(crate) fn old_data(&mut self, start: u64, end: u64) {
        self.report_duplicate(start, end.min(self.next));
    }

    /// Data went out soon after data came in: the exchange is interactive and ACKs can ride along
    /// (Linux's "pingpong" mode).
    pub(crate) fn answered(&mut self, now: Instant) {
        if self.acks.last_data.is_some_and(|last| now.saturating_duration_since(last) < self.delayed_ack) {
            self.acks.quick = 0;
        }
    }

    pub(crate) fn ack_deadline(&self) -> Option<Instant> {
        self.acks.at
    }

    /// Whether an ACK should go out now even if nothing else does. `reopened`: the reader made enough room that the
    /// peer should know (Linux `__tcp_cleanup_rbuf`: the window would double).
    pub(crate) fn ack_due(&self) -> bool {
        let open = self.right_edge() - self.next;
        self.acks.now
            || (!self.fin_reached
                && self.offer() >= self.next + (2 * open).max(1)
                && self.offer() > self.promised)
    }

    /// The right edge as the buffer allows it, if that is enough more to be worth telling
    /// (silly-window avoidance, RFC 9293 §3.8.6.2.2), else the one promised.
    fn offer(&self) -> u64 {
        let room = self.buffer.saturating_sub(self.ready.len());
        let edge = self.next + (room >> self.window_shift << self.window_shift) as u64;
        if edge >= self.right_edge() + self.mss.min(self.buffer / 2).max(1) as u64 {
            edge
        } else {
            self.right_edge()
        }
    }

    /// The window field for a segment that goes out now, which thereby acknowledges everything so far.
    /// `scaled` is false in a SYN.
    pub(crate) fn advertise(&mut self, scaled: bool) -> u16 {
        let edge = self.offer();
        let shift = if scaled { self.window_shift } else { 0 };
        // Rounded down, it may seem to shrink by less than a unit; what was promised is still accepted.
        let units = ((edge - self.next) >> shift).min(u64::from(u16::MAX));
        self.promised = self.promised.max(self.next + (units << shift));
        self.acks.now = false;
        self.acks.at = None;
        self.acks.pending = 0;
        u16::try_from(units).unwrap_or(u16::MAX)
    }

    /// Writes up to `room` SACK blocks. Returns false if there are some and no room for them.
    pub(crate) fn sack(&mut self, room: usize, blocks: &mut SackBlocks) -> bool {
        if self.duplicate.is_none() && self.ranges.is_empty() {
            return true;
        }
        if room == 0 {
            return false;
        }
        let space = self.space;
        // RFC 2883 §4: the duplicate comes first.
        let duplicate = self.duplicate.take();
        for (start, end) in duplicate.into_iter().chain(self.recent.blocks(&self.ranges)).take(room) {
            blocks.push(space.wire(start), space.wire(end));
        }
        true
    }

    pub(crate) fn read(&mut self) -> Option<Bytes> {
        let piece = self.ready.pop()?;
        self.tuning.read += piece.len();
        Some(piece)
    }

    pub(crate) fn unread(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn buffer(&self) -> usize {
        self.buffer
    }

    /// A measurement of the round-trip time as the receiver sees it.
    pub(crate) fn rtt_sample(&mut self, rtt: Duration) {
        self.tuning.rtt = Some(self.tuning.rtt.map_or(rtt, |smoothed| (smoothed * 7 + rtt) / 8));
    }

    pub(crate) fn has_rtt(&self) -> bool {
        self.tuning.rtt.is_some()
    }

    /// Once a round-trip time: makes room for twice what was read in the last one, and for its growth.
    pub(crate) fn tune(&mut self, now: Instant) {
        let Some(rtt) = self.tuning.rtt else { return };
        if now.saturating_duration_since(self.tuning.since) < rtt {
            return;
        }
        let Tuning { space, read, .. } = self.tuning;
        if read > space {
            let wanted = 2 * read + 16 * self.mss;
            let growth = (wanted as u64).saturating_mul((read - space) as u64) / space.max(1) as u64;
            let wanted =
                wanted.saturating_add(usize::try_from(2 * growth.min(1 << 40)).unwrap_or(usize::MAX));
            self.buffer = self.buffer.max(wanted.min(self.max_buffer));
            self.tuning.space = read;
        }
        self.tuning.since = now;
        self.tuning.read = 0;
    }
}

/// The part `from..to` of a payload that begins at `start`.
fn piece(payload: &Bytes, start: u64, from: u64, to: u64) -> Bytes {
    let position = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX).min(payload.len());
    payload.slice(position(from)..position(to))
}
