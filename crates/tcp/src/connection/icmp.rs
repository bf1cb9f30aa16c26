//! What ICMP errors do to a connection. Anybody may send one, so it must quote a sequence number that is in flight
//! (RFC 5927 §4.1), and ends only a connection that is still opening (§6).

use super::Connection;
use super::send::{Phase, Sender};
use super::state::{Event, State};
use crate::seq::distance;
use std::time::Instant;

impl Connection {
    /// An ICMP error says that a segment which began with the sequence number `seq` did not arrive: unreachable, forbidden,
    /// or out of hops. A connection that is still opening is given up with [`Event::Unreachable`], as in Linux
    /// (`tcp_v4_err`), which RFC 1122 §4.2.3.9 allows for hard errors only (RFC 5461 §4 on why). One that is established
    /// goes on: what it sent will be sent again, and if that goes on for too long it times out.
    pub fn unreachable(&mut self, seq: u32) {
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        if opening && self.sender.is_in_flight(seq) {
            self.finish(Event::Unreachable);
        }
    }

    /// An ICMP error says that a segment which began with the sequence number `seq` was too long for the path, which takes
    /// segments of at most `mss` bytes with the TCP options that stand in each of them, as [`Config::mss`] counts
    /// (RFC 1191, RFC 8201). What was too long is cut up and sent again, without blaming congestion for its loss
    /// (RFC 1191 §6.4).
    ///
    /// [`Config::mss`]: crate::Config::mss
    pub fn path_mss(&mut self, seq: u32, mss: u16, now: Instant) {
        if !self.sender.is_in_flight(seq) || self.state == State::Closed {
            return;
        }
        let limit = self.config.payload_limit(Some(mss), self.recent_timestamp.is_some());
        self.sender.narrow(limit, now);
    }
}

impl Sender {
    /// Whether a segment that begins there may be in the network.
    fn is_in_flight(&self, seq: u32) -> bool {
        let ahead = distance(self.space.wire(self.una), seq);
        u64::try_from(ahead).is_ok_and(|ahead| ahead < self.next - self.una)
    }

    /// The path takes no more than `mss` bytes of payload in a segment.
    fn narrow(&mut self, mss: usize, now: Instant) {
        if mss >= self.mss {
            return;
        }
        self.mss = mss;
        // As Linux's `tcp_simple_retransmit`: the window counts segments, and so is smaller already.
        if self.flight.split(mss) {
            self.phase = Phase::Loss { until: self.next };
            self.undo = None;
            self.tail_probe = None;
            self.retransmit_at = Some(now + self.rtt.timeout());
        }
    }
}
