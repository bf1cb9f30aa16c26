//! Segments arriving (RFC 9293 §3.10.7), with the checks of RFC 5961 and RFC 7323.

use super::Connection;
use super::ack::Acknowledgement;
use super::receive::Receiver;
use super::state::{Event, State};
use crate::segment::Segment;
use crate::seq::distance;
use std::time::{Duration, Instant};

/// How often at most an unacceptable segment without data is answered with an ACK, so that two confused peers do not
/// answer each other for ever (Linux `tcp_invalid_ratelimit`; RFC 5961 §7).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

impl Connection {
    /// Takes a segment from the peer.
    pub fn handle(&mut self, segment: &Segment, now: Instant) {
        self.segments_received += 1;
        match self.state {
            State::Closed => {}
            State::SynSent => self.handle_syn_sent(segment, now),
            _ => {
                self.handle_synchronized(segment, now);
                if let (State::FinWait2, Some(limit)) = (self.state, self.config.fin_wait_2) {
                    self.fin_wait_2_until = Some(now + limit);
                }
            }
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn handle_syn_sent(&mut self, segment: &Segment, now: Instant) {
        let acks_syn =
            segment.flags.ack() && self.sender.next == 1 && segment.ack == self.sender.space.wire(1);
        if segment.flags.ack() && !acks_syn {
            // An old connection's: its end should know that it is over.
            if !segment.flags.rst() {
                self.reset = Segment::reset_for(segment);
            }
            return;
        }
        if segment.flags.rst() {
            if acks_syn {
                self.finish(Event::Reset);
            }
            return;
        }
        if !segment.flags.syn() {
            return;
        }
        self.take_syn(segment, now);
        if acks_syn {
            self.take_ack(segment, 0, 1, now);
            self.establish(now);
            if let Some(receiver) = &mut self.receiver {
                receiver.acknowledge_now();
            }
        } else {
            // SYNs have crossed (RFC 9293 §3.5 figure 7): ours goes again, with an ACK.
            self.state = State::SynReceived;
            self.sender.resend_syn();
        }
    }

    /// Learns the peer's numbers and options from its SYN.
    pub(super) fn take_syn(&mut self, syn: &Segment, now: Instant) {
        let options = &syn.options;
        let timestamps = options.timestamps.filter(|_| self.offered.timestamps);
        self.recent_timestamp = timestamps.map(|timestamps| timestamps.value);
        let scale = options.window_scale.filter(|_| self.offered.window_scaling);
        // RFC 7323 §2.3: more than 14 means 14.
        self.peer_shift = scale.unwrap_or(0).min(14);
        let own_shift = if scale.is_some() { self.config.own_window_scale() } else { 0 };
        self.sender.sack = options.sack_permitted && self.offered.sack;
        self.sender.mss = self.config.payload_limit(options.mss, timestamps.is_some());
        // An answer offers only what was offered.
        self.offered.sack = self.sender.sack;
        self.offered.timestamps = timestamps.is_some();
        self.offered.window_scaling = scale.is_some();
        self.receiver = Some(Receiver::new(&self.config, syn.seq, own_shift, self.sender.mss, now));
        self.sender.window = u64::from(syn.window);
        self.sender.max_window = self.sender.window;
    }

    fn establish(&mut self, now: Instant) {
        self.sender.handshake_done();
        self.state = if self.sender.is_closing() { State::FinWait1 } else { State::Established };
        if let (Some(receiver), Some(rtt)) = (&mut self.receiver, self.sender.rtt.smoothed()) {
            receiver.rtt_sample(rtt);
        }
        self.event(Event::Connected);
        self.take_fin(now);
    }

    /// RFC 9293 §3.10.7.4.
    fn handle_synchronized(&mut self, segment: &Segment, now: Instant) {
        let Some(receiver) = &mut self.receiver else { return };
        let payload_len = segment.payload.len() as u64;
        let Some(mut start) = receiver.offset_of(segment.seq) else { return self.challenge(now) };
        let mut len = segment.sequence_len();
        if segment.flags.syn() && !segment.flags.rst() {
            let first = start == 0 && self.state == State::SynReceived;
            if first && !segment.flags.ack() {
                // Our answer was lost.
                return self.sender.resend_syn();
            }
            if !first {
                // RFC 5961 §4.2.
                return self.challenge(now);
            }
            // The other half of crossed SYNs: the SYN is known, the ACK is news. It may be our ACK that was lost.
            receiver.acknowledge_now();
            start += 1;
            len -= 1;
        }
        let old_time = match (segment.options.timestamps, self.recent_timestamp) {
            (Some(timestamps), Some(recent)) => distance(recent, timestamps.value) < 0,
            _ => false,
        };
        // PAWS (RFC 7323 §5.3). A bare ACK that was overtaken is let through, as Linux does.
        if old_time && len > 0 && !segment.flags.rst() {
            receiver.old_data(start, start + payload_len);
            return receiver.acknowledge_now();
        }
        if !receiver.acceptable(start, len) {
            if segment.flags.rst() {
                return;
            }
            if len > 0 {
                if start + len <= receiver.next {
                    receiver.old_data(start, start + payload_len);
                }
                receiver.acknowledge_now();
                // A FIN again: our last ACK was lost (RFC 9293 §3.10.7.4, TIME-WAIT).
                if self.state == State::TimeWait && segment.flags.fin() {
                    self.enter_time_wait(now);
                }
                return;
            }
            return self.challenge(now);
        }
        if segment.flags.rst() {
            // RFC 5961 §3.2: only the exact number resets.
            if start == receiver.next {
                self.take_reset();
            } else {
                self.challenge(now);
            }
            return;
        }
        if !segment.flags.ack() {
            return;
        }
        // RFC 7323 §4.3 (2): only a segment that the last ACK asked for, so that its echo measures the slowest.
        if let (Some(timestamps), Some(_)) = (segment.options.timestamps, self.recent_timestamp)
            && start <= self.last_ack_sent
            && !old_time
        {
            self.recent_timestamp = Some(timestamps.value);
        }
        let Some(ack) = self.acceptable_ack(segment, now) else { return };
        let known = self.sender.syn_acked();
        self.take_ack(segment, start, ack, now);
        if !known && self.sender.syn_acked() {
            self.establish(now);
        }
        if self.state != State::SynReceived {
            self.take_data(segment, start, now);
        }
        self.after_acked_fin(now);
    }

    fn take_reset(&mut self) {
        match self.state {
            // Both sides are done already; only the waiting ends.
            State::TimeWait => {
                self.state = State::Closed;
                self.time_wait_until = None;
            }
            _ => self.finish(Event::Reset),
        }
    }

    /// RFC 5961 §5.2: the offset acknowledged if it is neither too new nor far too old.
    fn acceptable_ack(&mut self, segment: &Segment, now: Instant) -> Option<u64> {
        let ack = self.sender.space.offset(segment.ack, self.sender.una);
        if self.state == State::SynReceived && !ack.is_some_and(|ack| ack > 0 && ack <= self.sender.next) {
            // RFC 9293 §3.10.7.4: not for this connection.
            self.reset = Segment::reset_for(segment);
            return None;
        }
        match ack {
            Some(ack) if ack <= self.sender.next && ack + self.sender.max_window >= self.sender.una => {
                Some(ack)
            }
            _ => {
                self.challenge(now);
                None
            }
        }
    }

    fn take_ack(&mut self, segment: &Segment, start: u64, ack: u64, now: Instant) {
        let echoed = self.echoed(segment, now);
        let shift = if segment.flags.syn() { 0 } else { self.peer_shift };
        let advanced = self.sender.on_ack(
            &Acknowledgement {
                ack,
                window: u64::from(segment.window) << shift,
                seq: start,
                sack: &segment.options.sack,
                echoed,
                bare: segment.payload.is_empty() && !segment.flags.fin(),
            },
            now,
        );
        if advanced && self.sender.room_regained() {
            self.event(Event::Writable);
        }
    }

    fn take_data(&mut self, segment: &Segment, start: u64, now: Instant) {
        if segment.payload.is_empty() && !segment.flags.fin() {
            return;
        }
        let echoed = self.echoed(segment, now);
        let Some(receiver) = &mut self.receiver else { return };
        if !self.state.receives() {
            // After its FIN a peer has nothing to say.
            return receiver.acknowledge_now();
        }
        if let Some(echoed) =
            echoed.filter(|_| segment.payload.len() == self.sender.mss || !receiver.has_rtt())
        {
            receiver.rtt_sample(now.saturating_duration_since(echoed));
        }
        if receiver.data(start, &segment.payload, segment.flags.fin(), now) {
            self.event(Event::Readable);
        }
        self.take_fin(now);
    }

    /// The peer's FIN, once everything before it is here.
    fn take_fin(&mut self, now: Instant) {
        if !self.receiver.as_ref().is_some_and(Receiver::finished) || !self.state.receives() {
            return;
        }
        self.event(Event::PeerClosed);
        match self.state {
            State::Established => self.state = State::CloseWait,
            State::FinWait1 if self.sender.fin_acked() => self.enter_time_wait(now),
            State::FinWait1 => self.state = State::Closing,
            _ => self.enter_time_wait(now),
        }
    }

    /// Our FIN, once it is acknowledged.
    fn after_acked_fin(&mut self, now: Instant) {
        if !self.sender.fin_acked() {
            return;
        }
        match self.state {
            State::FinWait1 => self.state = State::FinWait2,
            State::Closing => self.enter_time_wait(now),
            State::LastAck => self.finish(Event::Closed),
            _ => {}
        }
    }

    /// An ACK that tells a confused or malicious sender where we are (RFC 5961), at a bounded rate.
    fn challenge(&mut self, now: Instant) {
        let recently =
            self.last_challenge.is_some_and(|last| now.saturating_duration_since(last) < CHALLENGE_INTERVAL);
        if recently || self.state == State::SynReceived {
            return;
        }
        self.last_challenge = Some(now);
        if let Some(receiver) = &mut self.receiver {
            receiver.acknowledge_now();
        }
    }
}
