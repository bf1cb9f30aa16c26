//! What a host's administrator or socket options would set. The defaults are Linux's.

use std::time::Duration;

/// How the congestion window moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// NewReno (RFC 5681).
    Reno,
    /// CUBIC (RFC 9438), what Linux, macOS and Windows use.
    #[default]
    Cubic,
}

/// A buffer that starts small and grows with the path, in bytes of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// Size at the start.
    pub initial: usize,
    /// Size it may grow to.
    pub max: usize,
}

/// Everything that can be set about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The MSS option we send, and the most we send ourselves: MTU less 40 for IPv4, less 60 for IPv6.
    /// Options count against it (RFC 6691), so with timestamps a full segment carries 12 bytes less.
    pub mss: u16,
    /// Congestion control.
    pub congestion: Algorithm,
    /// HyStart++ (RFC 9406): leave slow start when the round-trip time grows, before the queue overflows.
    pub hystart: bool,
    /// Initial congestion window in segments.
    pub initial_window: u32,
    /// Offer and use SACK (RFC 2018). Without it loss is found by three duplicate ACKs or a time-out.
    pub sack: bool,
    /// Offer and use timestamps (RFC 7323).
    pub timestamps: bool,
    /// Offer and use window scaling (RFC 7323).
    pub window_scaling: bool,
    /// TCP_NODELAY: send small segments at once instead of waiting for the last one's ACK (Nagle, RFC 9293 §3.7.4).
    pub nodelay: bool,
    /// Data written but not yet acknowledged.
    pub send_buffer: Buffer,
    /// Data received but not yet read; the window that we advertise comes from it.
    pub receive_buffer: Buffer,
    /// How long an ACK may wait for company.
    pub delayed_ack: Duration,
    /// Retransmission time-out before the first measurement.
    pub rto_initial: Duration,
    /// Floor of the variance part of the retransmission time-out, as in Linux: RTO = SRTT + max(4 RTTVAR, this).
    pub rto_min: Duration,
    /// Ceiling of the retransmission time-out, also for zero-window probes.
    pub rto_max: Duration,
    /// Retransmissions of a SYN with exponential back-off before giving up.
    pub syn_retries: u32,
    /// Retransmissions of a SYN, before those, that do not back off.
    pub syn_linear_timeouts: u32,
    /// Retransmissions of a SYN-ACK before giving up.
    pub synack_retries: u32,
    /// How long data may stay unacknowledged before the connection is given up.
    pub give_up: Duration,
    /// How long a closed connection lingers for stray segments.
    pub time_wait: Duration,
    /// How long a connection that we closed may hear nothing from a peer that has not closed, once everything it sent
    /// has been read; `None` for ever.
    pub fin_wait_2: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mss: 1460,
            congestion: Algorithm::Cubic,
            hystart: true,
            // RFC 6928 §2.
            initial_window: 10,
            sack: true,
            timestamps: true,
            window_scaling: true,
            nodelay: false,
            // Linux `tcp_wmem`: 16 KiB, 4 MiB.
            send_buffer: Buffer { initial: 16 << 10, max: 4 << 20 },
            // Linux `tcp_rmem`: 128 KiB of which half is window at first, 6 MiB.
            receive_buffer: Buffer { initial: 64 << 10, max: 6 << 20 },
            // Linux `TCP_DELACK_MIN`; RFC 1122 §4.2.3.2 allows up to 500 ms.
            delayed_ack: Duration::from_millis(40),
            // RFC 6298 §2.1.
            rto_initial: Duration::from_secs(1),
            // Linux `TCP_RTO_MIN`; RFC 6298 §2.4 says 1 s.
            rto_min: Duration::from_millis(200),
            // Linux `TCP_RTO_MAX`; RFC 6298 §2.5 allows 60 s or more.
            rto_max: Duration::from_secs(120),
            // Linux `tcp_syn_retries`, `tcp_syn_linear_timeouts` (since 6.5), `tcp_synack_retries`: SYNs end after 131 s,
            // SYN-ACKs after 63 s.
            syn_retries: 6,
            syn_linear_timeouts: 4,
            synack_retries: 5,
            // Linux `tcp_retries2` = 15, which its documentation converts to 924.6 s at the smallest RTO.
            // RFC 1122 §4.2.3.5 asks for 100 s at least.
            give_up: Duration::from_millis(924_600),
            // Linux `TCP_TIMEWAIT_LEN`; RFC 9293 §3.4.2 has 4 min.
            time_wait: Duration::from_secs(60),
            // Linux `tcp_fin_timeout`.
            fin_wait_2: Some(Duration::from_secs(60)),
        }
    }
}

impl Config {
    /// The smallest MSS that is honoured (Linux `tcp_min_snd_mss`).
    const MIN_MSS: u16 = 48;
    /// RFC 7323 §2.3.
    const MAX_WINDOW_SCALE: u8 = 14;

    pub(crate) fn own_mss(&self) -> u16 {
        self.mss.max(Self::MIN_MSS)
    }

    /// What a full segment may carry, given the MSS that the peer announced.
    pub(crate) fn payload_limit(&self, peer_mss: Option<u16>, timestamps: bool) -> usize {
        // RFC 9293 §3.7.1: without the option assume 536.
        let mss = peer_mss.unwrap_or(536).clamp(Self::MIN_MSS, self.own_mss());
        usize::from(mss) - if timestamps { 12 } else { 0 }
    }

    /// The smallest shift that lets the whole receive buffer be advertised.
    pub(crate) fn own_window_scale(&self) -> u8 {
        (0..Self::MAX_WINDOW_SCALE)
            .find(|shift| self.receive_buffer.max >> shift <= usize::from(u16::MAX))
            .unwrap_or(Self::MAX_WINDOW_SCALE)
    }
}
