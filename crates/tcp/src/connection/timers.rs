//! Time-outs and transmission.

use super::Connection;
use super::receive::Receiver;
use super::send::Outgoing;
use super::state::{Event, State};
use crate::segment::{Flags, Options, Segment, Timestamps};
use std::time::Instant;

impl Connection {
    /// The next deadline and what it is for: call [`handle_timeout`](Self::handle_timeout) then. It moves with every
    /// other call, so ask again after each.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let acknowledge =
            self.receiver.as_ref().filter(|_| self.state != State::Closed).and_then(Receiver::ack_deadline);
        let own = [
            (acknowledge, "delayed acknowledgement"),
            (self.time_wait_until, "time-wait"),
            (self.fin_wait_2_until, "fin-wait-2"),
        ];
        let own = own.into_iter().filter_map(|(at, reason)| Some((at?, reason)));
        self.sender.deadlines().chain(own).min_by_key(|&(at, _)| at)
    }

    /// Does what is due at `now`. Harmless if called too early.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.time_wait_until) {
            self.time_wait_until = None;
            self.state = State::Closed;
            self.sender.stop();
        }
        if due(self.fin_wait_2_until) {
            if self.readable() > 0 {
                // The peer may be waiting for our reader.
                self.fin_wait_2_until = self.config.fin_wait_2.map(|limit| now + limit);
            } else {
                self.finish(Event::TimedOut);
            }
        }
        if self.state == State::Closed {
            return;
        }
        if let Some(receiver) = &mut self.receiver
            && due(receiver.ack_deadline())
        {
            receiver.acknowledge_now();
        }
        if self.sender.on_timeout(now).is_err() {
            self.finish(Event::TimedOut);
        }
    }

    /// The next segment to send, until `None`. To be drained after every other call that changes the connection.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Segment> {
        let segment = self.next_segment(now)?;
        self.segments_sent += 1;
        Some(segment)
    }

    fn next_segment(&mut self, now: Instant) -> Option<Segment> {
        if let Some(reset) = self.reset.take() {
            return Some(reset);
        }
        if self.state == State::Closed {
            return None;
        }
        if let Some(receiver) = &mut self.receiver {
            receiver.tune(now);
        }
        if let Some(outgoing) = self.sender.poll(self.state.sends(), now) {
            return Some(self.dress(outgoing, now));
        }
        let receiver = self.receiver.as_ref()?;
        if !receiver.ack_due() || self.state == State::SynReceived {
            return None;
        }
        let start = self.sender.next;
        Some(self.dress(
            Outgoing { start, payload: bytes::Bytes::new(), syn: false, fin: false, push: false },
            now,
        ))
    }

    /// Adds the receiver's part: acknowledgement, window, options.
    fn dress(&mut self, outgoing: Outgoing, now: Instant) -> Segment {
        let Outgoing { start, payload, syn, fin, push } = outgoing;
        let mut options = if syn { self.syn_options() } else { Options::default() };
        let timestamps = if syn { self.offered.timestamps } else { self.recent_timestamp.is_some() };
        if timestamps {
            options.timestamps =
                Some(Timestamps { value: self.timestamp(now), echo: self.recent_timestamp.unwrap_or(0) });
        }
        let mut flags = Flags::NONE;
        for (set, flag) in [(syn, Flags::SYN), (fin, Flags::FIN), (push && !payload.is_empty(), Flags::PSH)] {
            if set {
                flags = flags | flag;
            }
        }
        let (mut ack, mut window) =
            (0, u16::try_from(self.config.receive_buffer.initial).unwrap_or(u16::MAX));
        if let Some(receiver) = &mut self.receiver {
            flags = flags | Flags::ACK;
            ack = receiver.space.wire(receiver.next);
            window = receiver.advertise(!syn);
            self.last_ack_sent = receiver.next;
            if !payload.is_empty() {
                receiver.answered(now);
            }
            if self.sender.sack && !syn {
                // RFC 2018 §3: as many as fit in 40 bytes of options, and beside the data in a full segment.
                let most = if timestamps { 3 } else { 4 };
                let beside = (self.sender.mss - payload.len().min(self.sender.mss)).saturating_sub(4) / 8;
                let room = if payload.is_empty() { most } else { most.min(beside) };
                if !receiver.sack(room, &mut options.sack) {
                    // They go in an ACK of their own.
                    receiver.acknowledge_now();
                }
            }
        }
        Segment { seq: self.sender.space.wire(start), ack, flags, window, options, payload }
    }

    fn syn_options(&self) -> Options {
        Options {
            mss: Some(self.config.own_mss()),
            window_scale: self.offered.window_scaling.then(|| self.config.own_window_scale()),
            sack_permitted: self.offered.sack,
            ..Options::default()
        }
    }

    /// Our clock for the timestamps option: milliseconds, from a point that the initial sequence number hides.
    #[expect(clippy::cast_possible_truncation, reason = "timestamps wrap (RFC 7323 §5.4)")]
    fn timestamp(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.epoch).as_millis() as u32;
        self.sender.space.wire(0).wrapping_add(elapsed)
    }

    /// The instant, to the millisecond, at which we sent the timestamp that a segment echoes; `None` if we never did.
    pub(super) fn echoed(&self, segment: &Segment, now: Instant) -> Option<Instant> {
        let timestamps = segment.options.timestamps.filter(|_| self.recent_timestamp.is_some())?;
        let age = self.timestamp(now).wrapping_sub(timestamps.echo);
        let elapsed = now.saturating_duration_since(self.epoch).as_millis();
        let sent = elapsed.checked_sub(u128::from(age))?;
        Some(self.epoch + std::time::Duration::from_millis(u64::try_from(sent).ok()?))
    }
}
