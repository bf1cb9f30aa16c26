//! The states of RFC 9293 §3.3.2, and what a connection tells its owner.

use std::time::Duration;

/// The state of a connection. LISTEN is the host's: it makes a connection of each SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// We sent a SYN.
    SynSent,
    /// SYNs have crossed or we answered one; ours is not acknowledged yet.
    SynReceived,
    /// Data flows.
    Established,
    /// We closed; our FIN is not acknowledged yet.
    FinWait1,
    /// We closed and the peer knows; it may still send.
    FinWait2,
    /// The peer closed; we may still send.
    CloseWait,
    /// Both closed at once; our FIN is not acknowledged yet.
    Closing,
    /// The peer closed, then we did; our FIN is not acknowledged yet.
    LastAck,
    /// Over, lingering for stray segments.
    TimeWait,
    /// Over. The host can forget the connection.
    Closed,
}

impl State {
    /// The peer may still send data.
    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// Data (or a FIN) may be on its way to the peer.
    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::CloseWait | Self::Closing | Self::LastAck)
    }
}

/// What happened. An event that is still queued is not queued again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The handshake is done.
    Connected,
    /// There is data to [`read`](crate::Connection::read).
    Readable,
    /// [`write`](crate::Connection::write) has room again: a third of the buffer is free after less was, or everything
    /// written has been acknowledged.
    Writable,
    /// The peer will send no more. What it sent before can still be read.
    PeerClosed,
    /// Both sides have closed and know it, or we aborted. The host drops the connection when
    /// [`is_closed`](crate::Connection::is_closed), which after TIME-WAIT comes later.
    Closed,
    /// The peer reset the connection (refused it, before [`Connected`](Event::Connected)).
    Reset,
    /// The peer did not answer for too long.
    TimedOut,
    /// An ICMP error said that the peer cannot be reached, before [`Connected`](Event::Connected).
    Unreachable,
}

/// Figures about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// The state.
    pub state: State,
    /// Smoothed round-trip time.
    pub srtt: Option<Duration>,
    /// Lowest round-trip time of the last minutes.
    pub min_rtt: Option<Duration>,
    /// Retransmission time-out now, with back-off.
    pub rto: Duration,
    /// Congestion window, segments.
    pub cwnd: u32,
    /// Slow-start threshold, segments; `u32::MAX` before the first loss.
    pub ssthresh: u32,
    /// The largest payload of a segment that we send, bytes.
    pub mss: usize,
    /// Segments believed to be in the network.
    pub in_flight: u32,
    /// The peer's window, bytes.
    pub peer_window: u64,
    /// Data accepted by `write` and not acknowledged, bytes.
    pub send_queue: usize,
    /// Data received and not read, bytes.
    pub receive_queue: usize,
    /// What the receive buffer has grown to, bytes.
    pub receive_buffer: usize,
    /// Segments sent, retransmissions and bare ACKs included.
    pub segments_sent: u64,
    /// Segments handled.
    pub segments_received: u64,
    /// Segments sent again, tail-loss probes included.
    pub retransmits: u64,
    /// Retransmission time-outs.
    pub timeouts: u64,
    /// Fast recoveries.
    pub recoveries: u64,
    /// Tail-loss probes.
    pub tail_probes: u64,
    /// Recoveries that proved to be unnecessary and were undone.
    pub undone: u64,
    /// Payload acknowledged by the peer, bytes.
    pub bytes_acked: u64,
    /// Payload received in order, bytes.
    pub bytes_received: u64,
}
