//! What an ACK does to the sender: the scoreboard, loss detection, recovery, the congestion window.

use super::send::{Phase, RateReduction, Sender, Undo};
use crate::congestion::Acked;
use crate::flight::Delivery;
use crate::segment::SackBlocks;
use std::time::{Duration, Instant};

/// RFC 6675's DupThresh.
const DUPLICATE_THRESHOLD: usize = 3;

/// The acknowledgement in a segment.
#[derive(Debug)]
pub(crate) struct Acknowledgement<'a> {
    /// Offset acknowledged, not above what was sent.
    pub(crate) ack: u64,
    /// The window in bytes.
    pub(crate) window: u64,
    /// The segment's own offset.
    pub(crate) seq: u64,
    pub(crate) sack: &'a SackBlocks,
    /// When the segment that it answers was sent, to the millisecond, from the timestamps.
    pub(crate) echoed: Option<Instant>,
    /// The segment is nothing but an ACK.
    pub(crate) bare: bool,
}

impl Sender {
    /// Takes an acceptable ACK. Returns true if it acknowledges something new.
    pub(crate) fn on_ack(&mut self, input: &Acknowledgement<'_>, now: Instant) -> bool {
        let prior_una = self.una;
        let window_changed = self.update_window(input);
        self.peer_is_alive();
        if input.ack < prior_una {
            // Overtaken by a later one: its blocks may still be news, the rest is not.
            if self.sack && !self.flight.is_empty() {
                let mut delivery = Delivery::new(now, None, self.rtt.minimum());
                self.take_blocks(input, &mut delivery);
                self.after_delivery(&delivery, false, false, now);
            }
            return false;
        }
        let advanced = input.ack > prior_una;
        let used = self.window_used();
        let mut delivery = Delivery::new(now, input.echoed, self.rtt.minimum());
        if advanced {
            self.una = input.ack;
            self.flight.acknowledge(input.ack, &mut self.rack, &mut delivery);
            self.counters.bytes_acked += input.ack
                - prior_una
                - u64::from(prior_una == 0)
                - u64::from(self.fin_sent && input.ack == self.next);
            self.forget_usage();
        }
        let duplicates = if self.sack {
            self.take_blocks(input, &mut delivery)
        } else {
            self.count_duplicate(input, advanced, window_changed);
            false
        };
        self.measure(input, advanced, &delivery, now);
        if advanced && self.una > 0 {
            self.restart_retransmission_timer(now);
        }
        self.settle_tail_probe(input, duplicates, advanced);
        if advanced {
            self.undo_if_spurious(input);
            if self.flight.retransmitted() == 0 {
                self.first_retransmission = None;
            }
        }
        self.after_delivery(&delivery, advanced, used, now);
        if advanced {
            self.arm_tail_probe(now);
        }
        advanced
    }

    /// RFC 9293 §3.10.7.4: the window, unless the segment is older than the one it was last taken from.
    fn update_window(&mut self, input: &Acknowledgement<'_>) -> bool {
        let from = (input.seq, input.ack);
        let newer = input.ack > self.una
            || from.0 > self.window_from.0
            || from == self.window_from
            || (from.0 == self.window_from.0 && input.ack >= self.window_from.1);
        if input.ack < self.una || !newer {
            return false;
        }
        self.window_from = from;
        let changed = self.window != input.window;
        self.window = input.window;
        self.max_window = self.max_window.max(input.window);
        changed
    }

    /// Returns true if the peer reports a duplicate (RFC 2883 §4).
    fn take_blocks(&mut self, input: &Acknowledgement<'_>, delivery: &mut Delivery) -> bool {
        let mut duplicate = false;
        let mut blocks = input
            .sack
            .as_slice()
            .iter()
            .filter_map(|&(left, right)| {
                Some((self.space.offset(left, self.una)?, self.space.offset(right, self.una)?))
            })
            .peekable();
        let mut first = true;
        while let Some((start, end)) = blocks.next() {
            if start >= end || end > self.next {
                continue;
            }
            let inside_next = blocks.peek().is_some_and(|next| next.0 <= start && end <= next.1);
            if std::mem::take(&mut first) && (end <= input.ack || inside_next) {
                duplicate = true;
            } else if end > self.una {
                self.flight.sack(start.max(self.una), end, &mut self.rack, delivery);
            }
        }
        if duplicate {
            self.rack.duplicate_reported(self.una, self.next);
            if let Some(undo) = &mut self.undo {
                undo.unexplained = undo.unexplained.saturating_sub(1);
            }
        }
        duplicate
    }

    /// RFC 5681 §2's duplicate ACK, for a peer without SACK.
    fn count_duplicate(&mut self, input: &Acknowledgement<'_>, advanced: bool, window_changed: bool) {
        if advanced {
            if self.phase == Phase::Open {
                self.flight.forget_duplicates();
            }
        } else if input.bare && !window_changed && !matches!(self.phase, Phase::Loss { .. }) {
            // After a time-out duplicates only say that something was sent again in vain.
            self.flight.duplicate_ack();
        }
    }

    /// The round-trip time: from a segment sent only once (Karn), else from the timestamps (RFC 7323 §4).
    fn measure(&mut self, input: &Acknowledgement<'_>, advanced: bool, delivery: &Delivery, now: Instant) {
        let since = |sent: Instant| now.saturating_duration_since(sent);
        let rtt = match delivery.oldest.map(since) {
            Some(rtt) => Some(rtt),
            None => input.echoed.filter(|_| advanced).map(since),
        };
        if let Some(rtt) = rtt {
            self.rtt.sample(rtt, now);
        }
    }

    /// Ends a tail-loss probe; if it repaired a loss, that was a congestion event (RFC 8985 §7.4).
    fn settle_tail_probe(&mut self, input: &Acknowledgement<'_>, duplicate: bool, advanced: bool) {
        let Some(probe) = &self.tail_probe else { return };
        if input.ack < probe.end {
            return;
        }
        let repaired = probe.retransmission && !duplicate && input.ack > probe.end;
        let unneeded = !probe.retransmission || duplicate || repaired || (input.bare && !advanced);
        if repaired && self.phase == Phase::Open {
            self.congestion.on_congestion();
            self.congestion.set_window(self.congestion.threshold());
        }
        if unneeded {
            self.tail_probe = None;
        }
    }

    /// Eifel (RFC 3522): an ACK that echoes a time before the first retransmission shows that the original had arrived.
    /// Likewise if every retransmission was reported as a duplicate (RFC 3708).
    fn undo_if_spurious(&mut self, input: &Acknowledgement<'_>) {
        let Some(undo) = &self.undo else { return };
        let original = input
            .echoed
            .zip(self.first_retransmission)
            .is_some_and(|(echoed, first)| echoed + Duration::from_millis(1) <= first);
        if undo.retransmitted && (original || undo.unexplained == 0) {
            self.congestion.undo(undo.window, undo.threshold);
            self.counters.undone += 1;
            self.undo = None;
            self.phase = Phase::Open;
            self.flight.unmark_lost();
        }
    }

    /// Loss detection and the congestion window, after the scoreboard is up to date.
    fn after_delivery(&mut self, delivery: &Delivery, advanced: bool, used: bool, now: Instant) {
        let before = self.phase;
        self.finish_recovery();
        let lost = self.mark_losses(advanced, now);
        if lost > 0 {
            self.enter_recovery();
        }
        match self.phase {
            Phase::Recovery { .. } => {
                let fresh = before == self.phase;
                self.reduce(delivery.segments, advanced && lost == 0 && fresh);
            }
            Phase::Open | Phase::Loss { .. } if advanced => {
                let smoothed = self.rtt.smoothed().unwrap_or_default();
                let acked = Acked {
                    segments: delivery.segments,
                    rtt: delivery.newest.map(|sent| now.saturating_duration_since(sent)),
                    smoothed,
                    una: self.una,
                    next: self.next,
                    limited: used || self.phase != Phase::Open,
                };
                self.congestion.on_ack(acked, now);
            }
            _ => {}
        }
    }

    fn finish_recovery(&mut self) {
        match self.phase {
            Phase::Recovery { until } if self.una >= until => {
                self.congestion.set_window(self.congestion.threshold());
                self.phase = Phase::Open;
                self.undo = None;
                self.rack.recovered();
                self.flight.forget_duplicates();
            }
            Phase::Loss { until } if self.una >= until => {
                self.phase = Phase::Open;
                self.undo = None;
                self.rack.recovered();
            }
            _ => {}
        }
    }

    fn mark_losses(&mut self, advanced: bool, now: Instant) -> u32 {
        if self.sack {
            return self.rack_losses(now);
        }
        let before = u32::from(self.flight.has_lost());
        match self.phase {
            Phase::Open if self.flight.sacked_segments() >= DUPLICATE_THRESHOLD => {
                self.flight.mark_front_lost();
            }
            // RFC 6582 §3.2 step 3: a partial ACK shows the next hole.
            Phase::Recovery { .. } if advanced => self.flight.mark_front_lost(),
            _ => {}
        }
        u32::from(self.flight.has_lost()) - before.min(u32::from(self.flight.has_lost()))
    }

    fn rack_losses(&mut self, now: Instant) -> u32 {
        let eager = self.phase != Phase::Open || self.flight.sacked_segments() >= DUPLICATE_THRESHOLD;
        let window = self.rack.reordering_window(eager, self.rtt.minimum(), self.rtt.smoothed());
        let (lost, again) = self.flight.detect_losses(&self.rack, window, now);
        self.reorder_at = again;
        lost
    }

    /// RACK's timer fired.
    pub(crate) fn detect_losses(&mut self, now: Instant) {
        if self.rack_losses(now) > 0 {
            self.enter_recovery();
            if matches!(self.phase, Phase::Recovery { .. }) {
                self.reduce(0, false);
            }
        }
    }

    fn enter_recovery(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        self.remember();
        self.reduction = RateReduction { prior_window: self.congestion.window(), ..RateReduction::default() };
        self.congestion.on_congestion();
        self.phase = Phase::Recovery { until: self.next };
        self.counters.recoveries += 1;
    }

    fn remember(&mut self) {
        self.undo = Some(Undo {
            window: self.congestion.window(),
            threshold: self.congestion.threshold(),
            retransmitted: false,
            unexplained: self.flight.retransmitted(),
        });
    }

    /// Proportional rate reduction (RFC 6937 §3.1), with the slow-start part only while there is progress.
    fn reduce(&mut self, delivered: u32, progress: bool) {
        let reduction = &mut self.reduction;
        reduction.delivered += delivered;
        let threshold = self.congestion.threshold();
        let pipe = self.flight.in_network();
        let send = if pipe > threshold {
            let target = (u64::from(threshold) * u64::from(reduction.delivered))
                .div_ceil(u64::from(reduction.prior_window.max(1)));
            u32::try_from(target).unwrap_or(u32::MAX).saturating_sub(reduction.out)
        } else {
            let limit =
                reduction.delivered.saturating_sub(reduction.out).max(delivered) + u32::from(progress);
            (threshold - pipe).min(limit)
        };
        // The first retransmission always goes out.
        let send = send.max(u32::from(reduction.out == 0));
        self.congestion.set_window(pipe + send);
    }

    /// A retransmission time-out: everything is in doubt (RFC 5681 §3.1, RFC 8985 §6.3).
    pub(crate) fn enter_loss(&mut self, now: Instant) {
        // Once for each window of data (RFC 5681 §3.1): not again for a recovery that failed or a time-out that backs off.
        let first = match self.phase {
            Phase::Open => true,
            Phase::Recovery { .. } => false,
            Phase::Loss { .. } => self.timeouts == 1,
        };
        if self.syn_acked() && first {
            self.remember();
            self.congestion.on_congestion();
        }
        let window = self.rack.reordering_window(true, self.rtt.minimum(), self.rtt.smoothed());
        self.flight.mark_timed_out(&self.rack, window, now);
        self.phase = Phase::Loss { until: self.next };
        self.congestion.set_window(self.flight.in_network() + 1);
    }
}

impl Sender {
    /// The SYN is acknowledged: starts from scratch, with one segment if the SYN had to be sent more than twice
    /// (RFC 6928 §2; Linux `tcp_init_transfer`).
    pub(crate) fn handshake_done(&mut self) {
        self.phase = Phase::Open;
        self.undo = None;
        self.congestion.restart(self.counters.timeouts > 1);
        if self.counters.timeouts > 0 {
            self.rtt.after_unmeasured_handshake();
        }
    }
}
