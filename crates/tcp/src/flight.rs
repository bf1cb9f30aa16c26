//! What has been sent and not yet acknowledged: the scoreboard (RFC 6675 §3), with RACK's order of transmission.

use crate::rack::{Rack, Sent};
use crate::sack::RangeSet;
use bytes::{Buf, Bytes};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// A segment's worth of sequence space in flight.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) start: u64,
    pub(crate) payload: Bytes,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    /// Of the last transmission.
    sent_at: Instant,
    /// Which transmission of the connection the last one was.
    transmission: u64,
    retransmitted: bool,
    sacked: bool,
    /// Thought lost and not sent again yet.
    lost: bool,
}

impl Chunk {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.payload.len() as u64 + u64::from(self.syn) + u64::from(self.fin)
    }

    fn sent(&self) -> Sent {
        (self.sent_at, self.transmission)
    }
}

/// What one ACK delivered, gathered while the scoreboard is updated.
#[derive(Debug)]
pub(crate) struct Delivery {
    now: Instant,
    /// The time that the ACK's timestamp echoes, to the millisecond.
    echoed: Option<Instant>,
    minimum_rtt: Option<Duration>,
    /// Segments delivered: acknowledged or SACKed for the first time.
    pub(crate) segments: u32,
    /// Segments acknowledged cumulatively.
    pub(crate) acked: u32,
    /// When the oldest and the newest delivered segment was sent, of those sent once.
    pub(crate) oldest: Option<Instant>,
    pub(crate) newest: Option<Instant>,
}

impl Delivery {
    pub(crate) fn new(now: Instant, echoed: Option<Instant>, minimum_rtt: Option<Duration>) -> Self {
        Self { now, echoed, minimum_rtt, segments: 0, acked: 0, oldest: None, newest: None }
    }

    fn note(&mut self, chunk: &Chunk, rack: &mut Rack) {
        self.segments += 1;
        // RFC 8985 §6.2 step 2: this ACK may be for an earlier transmission if it echoes an older timestamp, or comes
        // sooner than any round trip.
        let ambiguous = chunk.retransmitted
            && (self.echoed.is_some_and(|echoed| echoed + Duration::from_millis(1) <= chunk.sent_at)
                || self
                    .minimum_rtt
                    .is_some_and(|rtt| self.now.saturating_duration_since(chunk.sent_at) < rtt));
        rack.delivered(chunk.sent(), chunk.end(), chunk.retransmitted, ambiguous, self.now);
        if !chunk.retransmitted {
            self.oldest = Some(self.oldest.map_or(chunk.sent_at, |oldest| oldest.min(chunk.sent_at)));
            self.newest = Some(self.newest.map_or(chunk.sent_at, |newest| newest.max(chunk.sent_at)));
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Flight {
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk; the others follow without gaps.
    first: u64,
    /// Chunk and transmission numbers in order of transmission. Stale entries are dropped when they reach the front.
    order: VecDeque<(u64, u64)>,
    transmissions: u64,
    lost: BTreeSet<u64>,
    sacked: RangeSet,
    sacked_segments: usize,
    /// Segments that were sent more than once.
    retransmitted: usize,
    /// Room to work in.
    gaps: Vec<(u64, u64)>,
    /// Without SACK: segments that duplicate ACKs tell of.
    duplicates: usize,
}

impl Flight {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn segments(&self) -> usize {
        self.chunks.len()
    }

    /// Segments believed to be in the network (RFC 6675's pipe, in segments).
    pub(crate) fn in_network(&self) -> u32 {
        let gone = self.sacked_segments + self.lost.len();
        let duplicates = self.duplicates.min(self.chunks.len().saturating_sub(1));
        u32::try_from(self.chunks.len().saturating_sub(gone).saturating_sub(duplicates)).unwrap_or(u32::MAX)
    }

    pub(crate) fn sacked_segments(&self) -> usize {
        self.sacked_segments + self.duplicates
    }

    /// Segments that were sent more than once.
    pub(crate) fn retransmitted(&self) -> usize {
        self.retransmitted
    }

    pub(crate) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Takes over a new segment that is being sent.
    pub(crate) fn push(&mut self, start: u64, payload: Bytes, syn: bool, fin: bool, now: Instant) {
        let transmission = self.next_transmission();
        self.order.push_back((self.first + self.chunks.len() as u64, transmission));
        self.chunks.push_back(Chunk {
            start,
            payload,
            syn,
            fin,
            sent_at: now,
            transmission,
            retransmitted: false,
            sacked: false,
            lost: false,
        });
    }

    fn next_transmission(&mut self) -> u64 {
        self.transmissions += 1;
        self.transmissions
    }

    fn index(&self, id: u64) -> Option<usize> {
        usize::try_from(id.checked_sub(self.first)?).ok().filter(|&index| index < self.chunks.len())
    }

    /// Everything before `una` has arrived.
    pub(crate) fn acknowledge(&mut self, una: u64, rack: &mut Rack, delivery: &mut Delivery) {
        while let Some(front) = self.chunks.front_mut() {
            if front.end() > una {
                if front.start < una {
                    let cut = usize::try_from(una - front.start).unwrap_or(usize::MAX);
                    front.payload.advance(cut.min(front.payload.len()));
                    front.start = una;
                }
                break;
            }
            let Some(chunk) = self.chunks.pop_front() else { break };
            delivery.acked += 1;
            self.retransmitted -= usize::from(chunk.retransmitted);
            if chunk.sacked {
                self.sacked_segments -= 1;
            } else {
                delivery.note(&chunk, rack);
            }
            if chunk.lost {
                self.lost.remove(&self.first);
            }
            self.first += 1;
        }
        self.sacked.remove_below(una);
        self.duplicates = self.duplicates.saturating_sub(delivery.acked.saturating_sub(1) as usize);
        if self.chunks.is_empty() {
            self.duplicates = 0;
        }
        self.drop_stale_order();
    }

    /// The peer holds `start..end` (RFC 2018).
    pub(crate) fn sack(&mut self, start: u64, end: u64, rack: &mut Rack, delivery: &mut Delivery) {
        let Self { chunks, first, lost, sacked, sacked_segments, gaps, .. } = self;
        sacked.insert(start, end, |from, to| gaps.push((from, to)));
        for (low, high) in gaps.drain(..) {
            // A segment may straddle several reports: what counts is the whole range now known.
            let covered = sacked.containing(low).unwrap_or((low, high));
            let mut index = chunks.partition_point(|chunk| chunk.end() <= low);
            while let Some(chunk) = chunks.get_mut(index).filter(|chunk| chunk.start < high) {
                if !chunk.sacked && chunk.start >= covered.0 && chunk.end() <= covered.1 {
                    chunk.sacked = true;
                    *sacked_segments += 1;
                    if chunk.lost {
                        chunk.lost = false;
                        lost.remove(&(*first + index as u64));
                    }
                    delivery.note(chunk, rack);
                }
                index += 1;
            }
        }
    }

    /// A duplicate ACK from a peer without SACK: some segment has arrived (RFC 5681 §3.2).
    pub(crate) fn duplicate_ack(&mut self) {
        self.duplicates = (self.duplicates + 1).min(self.chunks.len());
    }

    pub(crate) fn forget_duplicates(&mut self) {
        self.duplicates = 0;
    }

    /// Marks what RACK says is lost (RFC 8985 §6.2 step 5). Returns how many, and when to look again.
    pub(crate) fn detect_losses(
        &mut self,
        rack: &Rack,
        window: Duration,
        now: Instant,
    ) -> (u32, Option<Instant>) {
        let mut marked = 0;
        while let Some(&(id, _)) = self.order.front() {
            let Some(index) = self.live_front() else {
                self.order.pop_front();
                continue;
            };
            match rack.deadline(self.chunks[index].sent(), window) {
                None => break,
                Some(deadline) if deadline > now => return (marked, Some(deadline)),
                Some(_) => {
                    self.order.pop_front();
                    self.chunks[index].lost = true;
                    self.lost.insert(id);
                    marked += 1;
                }
            }
        }
        (marked, None)
    }

    /// The chunk that the front of the order speaks of, if that transmission still counts.
    fn live_front(&self) -> Option<usize> {
        let &(id, transmission) = self.order.front()?;
        let index = self.index(id)?;
        let chunk = &self.chunks[index];
        (chunk.transmission == transmission && !chunk.sacked && !chunk.lost).then_some(index)
    }

    fn drop_stale_order(&mut self) {
        while !self.order.is_empty() && self.live_front().is_none() {
            self.order.pop_front();
        }
    }

    /// Marks the first segment lost.
    pub(crate) fn mark_front_lost(&mut self) {
        if let Some(front) = self.chunks.front_mut()
            && !front.sacked
        {
            front.lost = true;
            self.lost.insert(self.first);
        }
    }

    /// After a time-out: marks the first segment lost, and all others but those sent too recently to tell
    /// (RFC 8985 §6.3). A SACKed first segment means that the peer dropped what it had SACKed (RFC 2018 §8).
    pub(crate) fn mark_timed_out(&mut self, rack: &Rack, window: Duration, now: Instant) {
        if self.chunks.front().is_some_and(|front| front.sacked) {
            self.sacked.clear();
            self.sacked_segments = 0;
            for chunk in &mut self.chunks {
                chunk.sacked = false;
            }
        }
        self.duplicates = 0;
        for (index, chunk) in self.chunks.iter_mut().enumerate() {
            let due = index == 0 || rack.deadline_after_timeout(chunk.sent(), window) <= now;
            if !chunk.sacked && due {
                chunk.lost = true;
                self.lost.insert(self.first + index as u64);
            }
        }
        self.reorder();
    }

    /// Nothing was lost after all: what was to be sent again counts as in the network.
    pub(crate) fn unmark_lost(&mut self) {
        for id in std::mem::take(&mut self.lost) {
            if let Some(index) = self.index(id) {
                self.chunks[index].lost = false;
            }
        }
        self.reorder();
    }

    /// Cuts every segment with more than `mss` bytes that has not arrived into pieces, which count as lost. Says whether
    /// there was any.
    pub(crate) fn split(&mut self, mss: usize) -> bool {
        let long = |chunk: &Chunk| chunk.payload.len() > mss && !chunk.sacked;
        if mss == 0 || !self.chunks.iter().any(long) {
            return false;
        }
        let whole = std::mem::take(&mut self.chunks);
        self.lost.clear();
        self.retransmitted = 0;
        for mut chunk in whole {
            let cut = long(&chunk);
            while cut && chunk.payload.len() > mss {
                let payload = chunk.payload.split_to(mss);
                let start = chunk.start;
                chunk.start += payload.len() as u64;
                let (syn, sent_at, transmission) = (chunk.syn, chunk.sent_at, chunk.transmission);
                let (retransmitted, sacked) = (chunk.retransmitted, false);
                self.keep(Chunk {
                    start,
                    payload,
                    syn,
                    fin: false,
                    sent_at,
                    transmission,
                    retransmitted,
                    sacked,
                    lost: true,
                });
            }
            chunk.lost |= cut;
            self.keep(chunk);
        }
        self.reorder();
        true
    }

    fn keep(&mut self, chunk: Chunk) {
        if chunk.lost {
            self.lost.insert(self.first + self.chunks.len() as u64);
        }
        self.retransmitted += usize::from(chunk.retransmitted);
        self.chunks.push_back(chunk);
    }

    /// Builds the order of transmission anew.
    fn reorder(&mut self) {
        let mut order: Vec<(u64, u64)> = (self.first..)
            .zip(&self.chunks)
            .filter(|(_, chunk)| !chunk.sacked && !chunk.lost)
            .map(|(id, chunk)| (id, chunk.transmission))
            .collect();
        order.sort_unstable_by_key(|&(_, transmission)| transmission);
        self.order = order.into();
    }

    /// The next segment to be sent again, and its mark taken away.
    pub(crate) fn retransmit(&mut self, now: Instant) -> Option<&Chunk> {
        let id = self.lost.pop_first()?;
        let index = self.index(id)?;
        Some(self.resend(index, now))
    }

    /// The first lost segment, without sending it.
    pub(crate) fn next_lost(&self) -> Option<&Chunk> {
        self.chunks.get(self.index(*self.lost.first()?)?)
    }

    /// The last segment, to be sent again as a probe (RFC 8985 §7.3).
    pub(crate) fn retransmit_last(&mut self, now: Instant) -> Option<&Chunk> {
        let index = self.chunks.len().checked_sub(1)?;
        if self.chunks[index].lost {
            self.lost.remove(&(self.first + index as u64));
        }
        Some(self.resend(index, now))
    }

    fn resend(&mut self, index: usize, now: Instant) -> &Chunk {
        let transmission = self.next_transmission();
        self.order.push_back((self.first + index as u64, transmission));
        let chunk = &mut self.chunks[index];
        chunk.sent_at = now;
        chunk.transmission = transmission;
        self.retransmitted += usize::from(!chunk.retransmitted);
        chunk.retransmitted = true;
        chunk.lost = false;
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Segments of 100 bytes from offset 1, a millisecond apart.
    fn flight(count: u32, now: Instant) -> Flight {
        let mut flight = Flight::default();
        for number in 0..count {
            let start = 1 + 100 * u64::from(number);
            flight.push(start, Bytes::from_static(&[0; 100]), false, false, now + MS * number);
        }
        flight
    }

    fn sack(flight: &mut Flight, rack: &mut Rack, start: u64, end: u64, now: Instant) -> u32 {
        let mut delivery = Delivery::new(now, None, None);
        flight.sack(start, end, rack, &mut delivery);
        delivery.segments
    }

    #[test]
    fn rfc2018_8_only_whole_segments_count_as_sacked_even_in_parts() {
        let now = start();
        let (mut flight, mut rack) = (flight(5, now), Rack::new());

        assert_eq!(sack(&mut flight, &mut rack, 101, 250, now + 50 * MS), 1);
        assert_eq!(sack(&mut flight, &mut rack, 101, 301, now + 50 * MS), 1);
        assert_eq!(sack(&mut flight, &mut rack, 101, 301, now + 50 * MS), 0);
        assert_eq!(flight.in_network(), 3);
    }

    #[test]
    fn rfc8985_6_2_a_segment_sent_before_a_sacked_one_is_lost_and_counted_out() {
        let now = start();
        let (mut flight, mut rack) = (flight(5, now), Rack::new());
        sack(&mut flight, &mut rack, 201, 501, now + 50 * MS);

        let (lost, again) = flight.detect_losses(&rack, Duration::ZERO, now + 50 * MS);

        assert_eq!((lost, again), (2, None));
        assert_eq!(flight.in_network(), 0);
        assert_eq!(flight.retransmit(now + 51 * MS).map(|chunk| chunk.start), Some(1));
        assert_eq!(flight.retransmit(now + 51 * MS).map(|chunk| chunk.start), Some(101));
        assert_eq!(flight.in_network(), 2);
    }

    #[test]
    fn a_lost_retransmission_is_found_again() {
        let now = start();
        let (mut flight, mut rack) = (flight(3, now), Rack::new());
        sack(&mut flight, &mut rack, 101, 201, now + 50 * MS);
        flight.detect_losses(&rack, Duration::ZERO, now + 50 * MS);
        flight.retransmit(now + 50 * MS);
        flight.push(301, Bytes::from_static(&[0; 100]), false, false, now + 51 * MS);

        sack(&mut flight, &mut rack, 201, 401, now + 95 * MS);
        let (lost, _) = flight.detect_losses(&rack, Duration::ZERO, now + 95 * MS);

        assert_eq!(lost, 1);
        assert_eq!(flight.next_lost().map(|chunk| chunk.start), Some(1));
    }

    #[test]
    fn rfc2018_8_reneged_blocks_are_forgotten_at_a_time_out() {
        let now = start();
        let (mut flight, mut rack) = (flight(3, now), Rack::new());
        sack(&mut flight, &mut rack, 1, 101, now + 50 * MS);
        flight.mark_timed_out(&rack, Duration::ZERO, now + 500 * MS);

        assert_eq!(flight.retransmit(now + 500 * MS).map(|chunk| chunk.start), Some(1));
        assert_eq!(flight.sacked_segments(), 0);
    }

    #[test]
    fn an_ack_inside_a_segment_trims_it() {
        let now = start();
        let (mut flight, mut rack) = (flight(2, now), Rack::new());
        flight.acknowledge(51, &mut rack, &mut Delivery::new(now, None, None));

        assert_eq!(flight.chunks.front().map(|chunk| (chunk.start, chunk.payload.len())), Some((51, 50)));
    }
}
