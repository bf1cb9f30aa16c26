//! One connection: the state machine of RFC 9293 around a sender and a receiver.

mod ack;
mod icmp;
mod receive;
mod segments;
mod send;
pub(crate) mod state;
mod timers;

use crate::config::Config;
use crate::segment::{Flags, Segment};
use bytes::Bytes;
use receive::Receiver;
use send::{HandshakeLimits, Sender};
use state::{Event, State, Stats};
use std::collections::VecDeque;
use std::time::Instant;

/// A TCP connection. See the crate's front page for how to drive it.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    state: State,
    /// When the connection was made: where its timestamps count from.
    epoch: Instant,
    sender: Sender,
    /// From the moment that the peer's SYN is known.
    receiver: Option<Receiver>,
    /// TS.Recent (RFC 7323 §4.3); `None` without timestamps.
    recent_timestamp: Option<u32>,
    /// The offset of the last ACK sent (Last.ACK.sent).
    last_ack_sent: u64,
    /// How far the peer's windows are shifted.
    peer_shift: u8,
    /// Offered in the SYN, until the peer's SYN decides.
    offered: Offered,
    events: VecDeque<Event>,
    /// Segments that go before all others: resets and challenge ACKs.
    reset: Option<Segment>,
    /// When an ACK was last sent for something unacceptable.
    last_challenge: Option<Instant>,
    time_wait_until: Option<Instant>,
    fin_wait_2_until: Option<Instant>,
    segments_sent: u64,
    segments_received: u64,
}

/// Which options a SYN of ours carries.
#[derive(Debug, Clone, Copy)]
struct Offered {
    sack: bool,
    timestamps: bool,
    window_scaling: bool,
}

impl Connection {
    /// Opens a connection: the first segment to be transmitted is a SYN. `iss` is the initial sequence number, which the
    /// caller draws (RFC 9293 §3.4.1).
    #[must_use]
    pub fn connect(config: Config, iss: u32, now: Instant) -> Self {
        let limits = HandshakeLimits { retries: config.syn_retries, linear: config.syn_linear_timeouts };
        Self::new(config, State::SynSent, iss, limits, now)
    }

    /// Answers a SYN that arrived for a listening port: the first segment to be transmitted is a SYN-ACK.
    /// A segment that is no SYN, or not only a SYN, gives a closed connection; data in the SYN is left to be repeated.
    #[must_use]
    pub fn accept(config: Config, iss: u32, syn: &Segment, now: Instant) -> Self {
        let limits = HandshakeLimits { retries: config.synack_retries, linear: 0 };
        let mut connection = Self::new(config, State::SynReceived, iss, limits, now);
        connection.segments_received = 1;
        if syn.flags.syn() && !syn.flags.ack() && !syn.flags.rst() {
            connection.take_syn(syn, now);
        } else {
            connection.state = State::Closed;
        }
        connection
    }

    fn new(config: Config, state: State, iss: u32, limits: HandshakeLimits, now: Instant) -> Self {
        let offered = Offered {
            sack: config.sack,
            timestamps: config.timestamps,
            window_scaling: config.window_scaling,
        };
        Self {
            sender: Sender::new(&config, iss, limits, now),
            config,
            state,
            epoch: now,
            receiver: None,
            recent_timestamp: None,
            last_ack_sent: 0,
            peer_shift: 0,
            offered,
            events: VecDeque::new(),
            reset: None,
            last_challenge: None,
            time_wait_until: None,
            fin_wait_2_until: None,
            segments_sent: 0,
            segments_received: 0,
        }
    }

    /// Queues data to be sent and returns how many bytes of it were taken: all of it, or what
    /// [`writable`](Self::writable) had room for. The rest is to be offered again after [`Event::Writable`].
    /// Nothing is taken after [`close`](Self::close). Data may be written before the connection is established.
    pub fn write(&mut self, data: Bytes) -> usize {
        if self.state == State::Closed { 0 } else { self.sender.write(data) }
    }

    /// How many bytes [`write`](Self::write) would take now.
    #[must_use]
    pub fn writable(&self) -> usize {
        if self.state == State::Closed { 0 } else { self.sender.writable() }
    }

    /// The next data received, in order, in pieces of any size. Still works after the connection has ended.
    pub fn read(&mut self) -> Option<Bytes> {
        self.receiver.as_mut()?.read()
    }

    /// How many bytes can be read now.
    #[must_use]
    pub fn readable(&self) -> usize {
        self.receiver.as_ref().map_or(0, Receiver::unread)
    }

    /// Closes our direction: a FIN follows the data already written. The peer may go on sending.
    pub fn close(&mut self) {
        if self.sender.is_closing() || self.state == State::Closed {
            return;
        }
        self.sender.close();
        match self.state {
            // RFC 9293 §3.10.4: without anything to deliver, there is no need to connect first.
            State::SynSent if !self.sender.has_unsent_data() => self.finish(Event::Closed),
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            // The handshake comes first.
            _ => {}
        }
    }

    /// Ends the connection at once; the peer is sent a RST if it knows of the connection (RFC 9293 §3.10.5).
    pub fn abort(&mut self) {
        if !matches!(self.state, State::SynSent | State::TimeWait | State::Closed) {
            let ack = self.receiver.as_ref().map_or(0, |receiver| receiver.space.wire(receiver.next));
            self.reset =
                Some(Segment::bare(self.sender.space.wire(self.sender.next), ack, Flags::RST | Flags::ACK));
        }
        if self.state != State::Closed {
            self.finish(Event::Closed);
        }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// True once nothing remains to be done, TIME-WAIT included, when [`poll_transmit`](Self::poll_transmit) and
    /// [`poll_event`](Self::poll_event) have been drained.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed && self.reset.is_none()
    }

    /// Whether a SYN for this connection's addresses and ports may replace it: only in TIME-WAIT, and only if it is
    /// surely new (RFC 9293 §3.10.7.4, RFC 6191 §2). The host then calls [`accept`](Self::accept) anew.
    #[must_use]
    pub fn is_replaceable_by(&self, syn: &Segment) -> bool {
        if self.state != State::TimeWait || !syn.flags.syn() || syn.flags.ack() || syn.flags.rst() {
            return false;
        }
        let newer_number = self
            .receiver
            .as_ref()
            .is_none_or(|receiver| crate::seq::distance(receiver.space.wire(receiver.next), syn.seq) > 0);
        let newer_time = syn
            .options
            .timestamps
            .zip(self.recent_timestamp)
            .is_some_and(|(theirs, recent)| crate::seq::distance(recent, theirs.value) > 0);
        newer_number || newer_time
    }

    /// What happened since, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Figures for a log or a test.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let sender = &self.sender;
        let receiver = self.receiver.as_ref();
        Stats {
            state: self.state,
            srtt: sender.rtt.smoothed(),
            min_rtt: sender.rtt.minimum(),
            rto: sender.rtt.timeout(),
            cwnd: sender.congestion.window(),
            ssthresh: sender.congestion.threshold(),
            mss: sender.mss,
            in_flight: sender.flight.in_network(),
            peer_window: sender.window,
            send_queue: sender.queued(),
            receive_queue: self.readable(),
            receive_buffer: receiver.map_or(0, Receiver::buffer),
            segments_sent: self.segments_sent,
            segments_received: self.segments_received,
            retransmits: sender.counters.retransmits,
            timeouts: sender.counters.timeouts,
            recoveries: sender.counters.recoveries,
            tail_probes: sender.counters.tail_probes,
            undone: sender.counters.undone,
            bytes_acked: sender.counters.bytes_acked,
            bytes_received: receiver.map_or(0, |receiver| receiver.bytes),
        }
    }

    fn event(&mut self, event: Event) {
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    /// To CLOSED, telling the owner why.
    fn finish(&mut self, event: Event) {
        self.state = State::Closed;
        self.sender.stop();
        self.time_wait_until = None;
        self.fin_wait_2_until = None;
        self.event(event);
    }

    fn enter_time_wait(&mut self, now: Instant) {
        if self.state != State::TimeWait {
            self.state = State::TimeWait;
            self.event(Event::Closed);
        }
        self.fin_wait_2_until = None;
        self.time_wait_until = Some(now + self.config.time_wait);
    }
}
