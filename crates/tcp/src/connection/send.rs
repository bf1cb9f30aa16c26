//! The sending half: what to send next, and the timers that ask for it. What ACKs do is in `ack`.

use crate::buffer::ByteQueue;
use crate::config::Config;
use crate::congestion::Congestion;
use crate::flight::{Chunk, Flight};
use crate::rack::Rack;
use crate::rtt::RttEstimator;
use crate::seq::SequenceSpace;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// RFC 8985 §7.2: the probe's time-out before any measurement.
const PROBE_TIMEOUT_INITIAL: Duration = Duration::from_secs(1);
/// RFC 8985 §7.2 (`WCDelAckT`): the longest that a peer is expected to delay the ACK of a single segment.
const WORST_DELAYED_ACK: Duration = Duration::from_millis(200);
/// Linux `TCP_TIMEOUT_MIN_US`.
const PROBE_SLACK: Duration = Duration::from_millis(2);

/// What the sender is doing about losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery (RFC 6675), until everything sent before `until` has arrived.
    Recovery { until: u64 },
    /// After a retransmission time-out, likewise.
    Loss { until: u64 },
}

/// Proportional rate reduction (RFC 6937): segments delivered and sent since recovery began, and the window before it.
#[derive(Debug, Default)]
pub(crate) struct RateReduction {
    pub(crate) delivered: u32,
    pub(crate) out: u32,
    pub(crate) prior_window: u32,
}

/// What to restore if a recovery turns out to have been for nothing.
#[derive(Debug)]
pub(crate) struct Undo {
    pub(crate) window: u32,
    pub(crate) threshold: u32,
    /// Something was sent again since.
    pub(crate) retransmitted: bool,
    /// Retransmissions that the peer has not reported as duplicates.
    pub(crate) unexplained: usize,
}

/// A tail-loss probe in flight (RFC 8985 §7.4).
#[derive(Debug)]
pub(crate) struct TailProbe {
    pub(crate) end: u64,
    pub(crate) retransmission: bool,
}

/// How often and how fast a SYN is sent again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandshakeLimits {
    pub(crate) retries: u32,
    pub(crate) linear: u32,
}

/// The peer did not answer for too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GaveUp;

/// A segment to be sent, without the receiver's part.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) start: u64,
    pub(crate) payload: Bytes,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) push: bool,
}

impl Outgoing {
    fn again(chunk: &Chunk) -> Self {
        Self {
            start: chunk.start,
            payload: chunk.payload.clone(),
            syn: chunk.syn,
            fin: chunk.fin,
            push: true,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) retransmits: u64,
    pub(crate) timeouts: u64,
    pub(crate) recoveries: u64,
    pub(crate) tail_probes: u64,
    pub(crate) undone: u64,
    pub(crate) bytes_acked: u64,
}

#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) space: SequenceSpace,
    /// The first offset not acknowledged (SND.UNA).
    pub(crate) una: u64,
    /// The next offset to send (SND.NXT).
    pub(crate) next: u64,
    unsent: ByteQueue,
    fin_queued: bool,
    pub(crate) fin_sent: bool,

    pub(crate) window: u64,
    pub(crate) max_window: u64,
    /// SND.WL1 and SND.WL2: the segment that the window was last taken from.
    pub(crate) window_from: (u64, u64),

    pub(crate) mss: usize,
    pub(crate) sack: bool,
    nodelay: bool,
    pub(crate) handshake: HandshakeLimits,
    give_up: Duration,
    buffer_limit: usize,
    buffer_max: usize,
    /// The writer has met a buffer with little room, or has written at all, since it was last told of room.
    short: bool,
    written: bool,

    pub(crate) flight: Flight,
    pub(crate) congestion: Congestion,
    pub(crate) rtt: RttEstimator,
    pub(crate) rack: Rack,
    pub(crate) phase: Phase,
    pub(crate) reduction: RateReduction,
    pub(crate) undo: Option<Undo>,
    /// When the first of the retransmissions in flight went out.
    pub(crate) first_retransmission: Option<Instant>,
    pub(crate) tail_probe: Option<TailProbe>,
    usage: Usage,
    /// The end of the last segment sent that was not full (Minshall's variant of Nagle's algorithm).
    small_end: u64,
    last_sent: Option<Instant>,

    pub(crate) retransmit_at: Option<Instant>,
    tail_probe_at: Option<Instant>,
    pub(crate) reorder_at: Option<Instant>,
    persist_at: Option<Instant>,
    tail_probe_due: bool,
    window_probe_due: bool,
    /// A segment smaller than silly-window avoidance allows may go.
    override_silly: bool,
    pub(crate) timeouts: u32,
    window_probes: u32,
    stalled_since: Option<Instant>,
    pub(crate) counters: Counters,
}

/// How much of the congestion window is used (Linux `tcp_cwnd_validate`): one that is not must not grow (RFC 7661).
#[derive(Debug, Default)]
struct Usage {
    limited: bool,
    most: u32,
    until: u64,
    sent: bool,
}

impl Sender {
    pub(crate) fn new(config: &Config, iss: u32, handshake: HandshakeLimits, now: Instant) -> Self {
        Self {
            space: SequenceSpace::new(iss),
            una: 0,
            next: 0,
            unsent: ByteQueue::default(),
            fin_queued: false,
            fin_sent: false,
            window: 1,
            max_window: 1,
            window_from: (0, 0),
            mss: config.payload_limit(None, false),
            sack: false,
            nodelay: config.nodelay,
            handshake,
            give_up: config.give_up,
            buffer_limit: config.send_buffer.initial.clamp(1, config.send_buffer.max.max(1)),
            buffer_max: config.send_buffer.max.max(1),
            short: false,
            written: false,
            flight: Flight::default(),
            congestion: Congestion::new(config),
            rtt: RttEstimator::new(config, now),
            rack: Rack::new(),
            phase: Phase::Open,
            reduction: RateReduction::default(),
            undo: None,
            first_retransmission: None,
            tail_probe: None,
            usage: Usage::default(),
            small_end: 0,
            last_sent: None,
            retransmit_at: None,
            tail_probe_at: None,
            reorder_at: None,
            persist_at: None,
            tail_probe_due: false,
            window_probe_due: false,
            override_silly: false,
            timeouts: 0,
            window_probes: 0,
            stalled_since: None,
            counters: Counters::default(),
        }
    }

    /// Bytes written and not acknowledged.
    pub(crate) fn queued(&self) -> usize {
        self.unsent.len() + usize::try_from(self.next - self.una).unwrap_or(usize::MAX)
    }

    pub(crate) fn writable(&self) -> usize {
        if self.fin_queued { 0 } else { self.buffer_limit.saturating_sub(self.queued()) }
    }

    pub(crate) fn write(&mut self, mut data: Bytes) -> usize {
        let room = self.writable();
        let short = data.len() > room;
        data.truncate(room);
        let accepted = data.len();
        self.unsent.push(data);
        self.written |= accepted > 0;
        self.short |= short || self.is_short();
        accepted
    }

    fn is_short(&self) -> bool {
        self.writable() < self.buffer_limit / 3
    }

    /// Lets the buffer grow to twice the congestion window (Linux `tcp_sndbuf_expand`), and says whether the writer
    /// should be told that there is room.
    pub(crate) fn room_regained(&mut self) -> bool {
        let wanted = 2 * self.congestion.window() as usize * self.mss;
        self.buffer_limit = self.buffer_limit.max(wanted.min(self.buffer_max));
        let regained = (self.short && !self.is_short()) || (self.written && self.queued() == 0);
        if regained {
            self.short = false;
            self.written = false;
        }
        regained && !self.fin_queued
    }

    pub(crate) fn close(&mut self) {
        self.fin_queued = true;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.fin_queued
    }

    pub(crate) fn fin_acked(&self) -> bool {
        self.fin_sent && self.una == self.next
    }

    /// Something was written or closed that has not been sent.
    fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || (self.fin_queued && !self.fin_sent)
    }

    pub(crate) fn has_unsent_data(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn syn_acked(&self) -> bool {
        self.una > 0
    }

    /// The peer answers, so it is there: a zero window may last for ever (RFC 1122 §4.2.2.17).
    pub(crate) fn peer_is_alive(&mut self) {
        if self.flight.is_empty() {
            self.stalled_since = None;
        }
    }

    /// The next segment. `data`: the state allows data to be sent.
    pub(crate) fn poll(&mut self, data: bool, now: Instant) -> Option<Outgoing> {
        let outgoing = self.next_outgoing(data, now);
        if outgoing.is_some() {
            self.last_sent = Some(now);
        } else {
            self.after_sending(data, now);
        }
        outgoing
    }

    fn next_outgoing(&mut self, data: bool, now: Instant) -> Option<Outgoing> {
        if self.next == 0 {
            return Some(self.send_syn(now));
        }
        if std::mem::take(&mut self.window_probe_due) {
            // An old number, so that the peer must answer with its window (as Linux does; RFC 9293 §3.8.6.1 sends data).
            return Some(Outgoing {
                start: self.una - 1,
                payload: Bytes::new(),
                syn: false,
                fin: false,
                push: false,
            });
        }
        if std::mem::take(&mut self.tail_probe_due) {
            return self.send_tail_probe(data, now);
        }
        let room = self.flight.in_network() < self.congestion.window();
        if room && let Some(lost) = self.flight.next_lost() {
            let within = lost.end() <= self.una + self.window;
            if within || lost.start == self.una {
                return self.retransmit(now);
            }
            return None;
        }
        if !data {
            return None;
        }
        let len = self.next_len()?;
        if !room {
            self.usage.limited = true;
            return None;
        }
        if self.flight.is_empty()
            && let Some(last) = self.last_sent
        {
            self.congestion.on_idle(now.saturating_duration_since(last), self.rtt.timeout(), now);
        }
        Some(self.send_new(len, now))
    }

    fn send_syn(&mut self, now: Instant) -> Outgoing {
        self.flight.push(0, Bytes::new(), true, false, now);
        self.next = 1;
        self.retransmit_at = Some(now + self.rtt.timeout());
        Outgoing { start: 0, payload: Bytes::new(), syn: true, fin: false, push: false }
    }

    /// How many bytes the next new segment may carry (0 for a lone FIN); `None` if it should wait. Sender's silly-window
    /// avoidance (RFC 9293 §3.8.6.2.1) and Nagle's algorithm (§3.7.4).
    fn next_len(&self) -> Option<usize> {
        let window = (self.una + self.window).saturating_sub(self.next);
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        let unsent = self.unsent.len();
        let fin = self.fin_queued && !self.fin_sent;
        if unsent == 0 {
            return (fin && window > 0).then_some(0);
        }
        let len = unsent.min(self.mss).min(window);
        let half = usize::try_from(self.max_window / 2).unwrap_or(usize::MAX);
        let send = if len == 0 {
            false
        } else if len == self.mss {
            true
        } else if len == unsent {
            fin || self.nodelay || self.flight.is_empty() || self.una >= self.small_end
        } else {
            len >= half.max(1) || (self.override_silly && self.flight.is_empty())
        };
        send.then_some(len)
    }

    fn send_new(&mut self, len: usize, now: Instant) -> Outgoing {
        let was_empty = self.flight.is_empty();
        let start = self.next;
        let payload = self.unsent.take(len);
        let last = self.unsent.is_empty();
        let end = start + payload.len() as u64;
        // The FIN rides on the last data if the window has room for it.
        let fin = last && self.fin_queued && !self.fin_sent && end < self.una + self.window;
        if payload.len() < self.mss {
            self.small_end = end;
        }
        self.override_silly = false;
        self.flight.push(start, payload.clone(), false, fin, now);
        self.fin_sent |= fin;
        self.next = end + u64::from(fin);
        if self.phase != Phase::Open {
            self.reduction.out += 1;
        }
        if was_empty || self.retransmit_at.is_none() {
            self.retransmit_at = Some(now + self.rtt.timeout());
        }
        self.usage.sent = true;
        self.arm_tail_probe(now);
        Outgoing { start, payload, syn: false, fin, push: last }
    }

    fn retransmit(&mut self, now: Instant) -> Option<Outgoing> {
        let outgoing = Outgoing::again(self.flight.retransmit(now)?);
        self.first_retransmission.get_or_insert(now);
        self.counters.retransmits += 1;
        self.reduction.out += 1;
        if let Some(undo) = &mut self.undo {
            undo.retransmitted = true;
            undo.unexplained += 1;
        }
        if self.retransmit_at.is_none() {
            self.retransmit_at = Some(now + self.rtt.timeout());
        }
        Some(outgoing)
    }

    /// RFC 8985 §7.3: new data if there is some, else the last segment again.
    fn send_tail_probe(&mut self, data: bool, now: Instant) -> Option<Outgoing> {
        let len = if data { self.next_len() } else { None };
        let outgoing = if let Some(len) = len {
            let outgoing = self.send_new(len, now);
            self.tail_probe = Some(TailProbe { end: self.next, retransmission: false });
            outgoing
        } else {
            let outgoing = Outgoing::again(self.flight.retransmit_last(now)?);
            self.first_retransmission.get_or_insert(now);
            self.counters.retransmits += 1;
            self.tail_probe = Some(TailProbe { end: self.next, retransmission: true });
            outgoing
        };
        self.counters.tail_probes += 1;
        self.tail_probe_at = None;
        self.retransmit_at = Some(now + self.rtt.timeout());
        Some(outgoing)
    }

    /// Everything that could be sent has been.
    fn after_sending(&mut self, data: bool, now: Instant) {
        let usage = &mut self.usage;
        if usage.sent || usage.limited {
            let out = u32::try_from(self.flight.segments()).unwrap_or(u32::MAX);
            if self.una >= usage.until || usage.limited || out > usage.most {
                *usage = Usage { limited: usage.limited, most: out, until: self.next, sent: false };
            }
            usage.sent = false;
        }
        if self.flight.is_empty() && data && self.has_unsent() && self.next_len().is_none() {
            if self.persist_at.is_none() {
                self.persist_at = Some(now + self.rtt.backed_off(self.window_probes));
            }
        } else if self.persist_at.take().is_some() {
            self.window_probes = 0;
        }
    }

    /// The congestion window was used enough to grow (Linux `tcp_is_cwnd_limited`).
    pub(crate) fn window_used(&self) -> bool {
        self.usage.limited
            || (self.congestion.in_slow_start()
                && self.congestion.window() < self.usage.most.saturating_mul(2))
    }

    /// An ACK brought news: the usage of the window is to be found out again when it next runs out.
    pub(crate) fn forget_usage(&mut self) {
        if self.una >= self.usage.until {
            self.usage.limited = false;
        }
    }

    /// Schedules a probe if the tail of what is in flight could be lost without a trace (RFC 8985 §7.2).
    pub(crate) fn arm_tail_probe(&mut self, now: Instant) {
        self.tail_probe_at = None;
        let eligible = self.sack
            && self.syn_acked()
            && self.phase == Phase::Open
            && self.tail_probe.is_none()
            && !self.flight.is_empty()
            && self.flight.sacked_segments() == 0
            && !self.flight.has_lost();
        if !eligible {
            return;
        }
        let timeout = self.rtt.smoothed().map_or(PROBE_TIMEOUT_INITIAL, |smoothed| {
            let slack = if self.flight.segments() == 1 { WORST_DELAYED_ACK } else { PROBE_SLACK };
            smoothed * 2 + slack
        });
        let at = now + timeout;
        self.tail_probe_at = Some(self.retransmit_at.map_or(at, |retransmit| at.min(retransmit)));
    }

    /// RFC 6298 §5.2 and §5.3: after an ACK of new data the timer starts again, or stops with nothing in flight.
    pub(crate) fn restart_retransmission_timer(&mut self, now: Instant) {
        self.timeouts = 0;
        self.stalled_since = None;
        if self.flight.is_empty() {
            self.retransmit_at = None;
            self.tail_probe_at = None;
            self.reorder_at = None;
        } else {
            self.retransmit_at = Some(now + self.rtt.timeout());
        }
    }

    pub(crate) fn deadlines(&self) -> impl Iterator<Item = (Instant, &'static str)> {
        [
            (self.retransmit_at, "retransmission"),
            (self.tail_probe_at, "tail loss probe"),
            (self.reorder_at, "reordering window"),
            (self.persist_at, "zero-window probe"),
        ]
        .into_iter()
        .filter_map(|(at, reason)| Some((at?, reason)))
    }

    pub(crate) fn on_timeout(&mut self, now: Instant) -> Result<(), GaveUp> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.reorder_at) {
            self.reorder_at = None;
            self.detect_losses(now);
        }
        if due(self.tail_probe_at) {
            self.tail_probe_at = None;
            self.tail_probe_due = true;
            self.retransmit_at = Some(now + self.rtt.timeout());
        }
        if due(self.retransmit_at) {
            self.on_retransmission_timeout(now)?;
        }
        if due(self.persist_at) {
            self.on_persist(now)?;
        }
        Ok(())
    }

    /// RFC 6298 §5.4 to §5.7.
    fn on_retransmission_timeout(&mut self, now: Instant) -> Result<(), GaveUp> {
        if self.flight.is_empty() {
            self.retransmit_at = None;
            return Ok(());
        }
        let since = *self.stalled_since.get_or_insert(now.checked_sub(self.rtt.timeout()).unwrap_or(now));
        self.timeouts += 1;
        self.counters.timeouts += 1;
        if self.syn_acked() {
            if now.saturating_duration_since(since) >= self.give_up {
                return Err(GaveUp);
            }
            self.rtt.back_off();
        } else {
            let HandshakeLimits { retries, linear } = self.handshake;
            if self.timeouts > retries + linear {
                return Err(GaveUp);
            }
            self.rtt.set_backoff(self.timeouts.saturating_sub(linear));
        }
        self.tail_probe = None;
        self.tail_probe_due = false;
        self.tail_probe_at = None;
        self.reorder_at = None;
        self.enter_loss(now);
        self.retransmit_at = Some(now + self.rtt.timeout());
        Ok(())
    }

    fn on_persist(&mut self, now: Instant) -> Result<(), GaveUp> {
        let since = *self.stalled_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.give_up {
            return Err(GaveUp);
        }
        self.override_silly = true;
        self.persist_at = None;
        if self.next_len().is_none() {
            self.window_probes = self.window_probes.saturating_add(1);
            self.window_probe_due = true;
            self.persist_at = Some(now + self.rtt.backed_off(self.window_probes));
        }
        Ok(())
    }

    /// A SYN that was already sent is sent again at once: the peer asks for it.
    pub(crate) fn resend_syn(&mut self) {
        self.flight.mark_front_lost();
    }

    /// Stops all sending, for good.
    pub(crate) fn stop(&mut self) {
        self.retransmit_at = None;
        self.tail_probe_at = None;
        self.reorder_at = None;
        self.persist_at = None;
        self.window_probe_due = false;
        self.tail_probe_due = false;
        self.fin_queued = true;
        self.unsent = ByteQueue::default();
        self.flight = Flight::default();
    }
}
