//! Whether the server is still there.

use rand::Rng;
use rand_chacha::ChaCha12Rng;
use std::time::{Duration, Instant};

use super::DeadReason;

/// Silence after which the server is pinged (`PING_INTERVAL`, iroh `iroh/src/socket/transports/relay/actor.rs`, which
/// halves QUIC's usual idle timeout so that a dead relay is left before the connection above it dies).
pub const PING_AFTER: Duration = Duration::from_secs(15);
/// Longest wait for the answer to a ping, and the wait before any was answered (`PING_TIMEOUT`,
/// iroh `iroh-relay/src/ping_tracker.rs`).
pub const PING_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Shortest wait: three round trips but not less than this, so that a moment's queue does not end a connection
/// (`MIN_HEALTH_CHECK_TIMEOUT`, iroh `iroh-relay/src/ping_tracker.rs`; iroh uses it after a change of network only).
pub const PING_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// Silence after which the connection is given up in any case: two keep-alives of the server
/// (tailscale `derp/derp_client.go`, `Client.Recv`).
pub const READ_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    PingDue,
    Dead(DeadReason),
}

#[derive(Debug)]
struct Ping {
    payload: [u8; 8],
    sent: Instant,
    /// When the connection is given up; `None` once anything came since, be it no pong: the pong may stand behind packets.
    deadline: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Liveness {
    ping_after: Option<Duration>,
    last_heard: Instant,
    ping: Option<Ping>,
    rtt: Option<Duration>,
}

impl Liveness {
    pub(super) fn new(ping_after: Option<Duration>, now: Instant) -> Self {
        Self { ping_after, last_heard: now, ping: None, rtt: None }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Anything came from the server.
    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        if let Some(ping) = &mut self.ping {
            ping.deadline = None;
        }
    }

    /// Starts a ping; an earlier one that is unanswered keeps its deadline.
    pub(super) fn ping(&mut self, rng: &mut ChaCha12Rng, now: Instant) -> [u8; 8] {
        let mut payload = [0; 8];
        rng.fill_bytes(&mut payload);
        let timeout =
            self.rtt.map_or(PING_TIMEOUT_MAX, |rtt| (3 * rtt).clamp(PING_TIMEOUT_MIN, PING_TIMEOUT_MAX));
        let earlier = self.ping.as_ref().and_then(|ping| ping.deadline);
        self.ping = Some(Ping { payload, sent: now, deadline: earlier.or(Some(now + timeout)) });
        payload
    }

    /// A pong came: the round trip, if it answers the latest ping.
    pub(super) fn pong(&mut self, payload: [u8; 8], now: Instant) -> Option<Duration> {
        let ping = self.ping.take_if(|ping| ping.payload == payload)?;
        let rtt = now.saturating_duration_since(ping.sent);
        self.rtt = Some(rtt);
        Some(rtt)
    }

    fn waiting_until(&self) -> Option<Instant> {
        self.ping.as_ref()?.deadline
    }

    pub(super) fn deadline(&self) -> (Instant, &'static str) {
        let read = (self.last_heard + READ_TIMEOUT, "read timeout");
        let next = match (self.waiting_until(), self.ping_after) {
            (Some(at), _) => (at, "ping timeout"),
            (None, Some(after)) => (self.last_heard + after, "ping"),
            (None, None) => return read,
        };
        next.min(read)
    }

    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        if self.waiting_until().is_some_and(|at| at <= now) {
            return Verdict::Dead(DeadReason::PingTimeout);
        }
        if self.last_heard + READ_TIMEOUT <= now {
            return Verdict::Dead(DeadReason::ReadTimeout);
        }
        let quiet = self.ping_after.is_some_and(|after| self.last_heard + after <= now);
        if quiet && self.waiting_until().is_none() {
            return Verdict::PingDue;
        }
        Verdict::Fine
    }
}
