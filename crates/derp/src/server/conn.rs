//! One connection of the server: what is read from it and what waits to be written to it.

use bytes::Bytes;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{LeaveReason, MESH_WRITE_TIMEOUT, WRITE_TIMEOUT};
use crate::{
    frame::{Decoder, RawFrame, Role},
    http::{self, Answer, Head},
    info::{ClientInfo, RateLimit},
    keys::PublicKey,
    meter::Meter,
    queue::Outbound,
    websocket::{self, SERVER_HEADER, Socket, WebSocketError},
};

/// "Not here" answers: one a second, at most three at once (`rate.NewLimiter(rate.Every(time.Second), 3)`,
/// tailscale `derp/derpserver/derpserver.go`).
const NOT_HERE_EVERY: Duration = Duration::from_secs(1);
const NOT_HERE_BURST: u32 = 3;

#[derive(Debug)]
enum Phase {
    /// Before the upgrade.
    Http(Head),
    /// Frames; the client is known once `key` is.
    Frames(Decoder),
    /// Nothing more is read; the connection closes when all is written.
    Draining,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Received {
    /// An HTTP request, already decided.
    Request(Answer),
    Frame(RawFrame),
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) remote: SocketAddr,
    phase: Phase,
    pub(super) key: Option<PublicKey>,
    /// Who it is, while nobody has said yet whether it may.
    pub(super) awaiting: Option<(PublicKey, ClientInfo)>,
    /// Whether it is a relay of the region.
    pub(super) is_mesh: bool,
    /// Whether it would rather be at another relay of the region.
    pub(super) not_ideal: bool,
    /// Flags of its presence, for those who watch.
    pub(super) flags: u8,
    /// Whether it was told that another connection uses its key.
    pub(super) conflict: bool,
    pub(super) out: Outbound,
    socket: Option<Socket>,
    /// What goes out as it is, before the next frame of a WebSocket: the response that opens it, or an answer to a ping.
    bare: Bytes,
    meter: Option<Meter>,
    /// Until when nothing is read.
    held_until: Option<Instant>,
    /// Bytes the caller can take now.
    pub(super) credit: usize,
    /// Whether it stands in the server's list of connections to write to.
    pub(super) scheduled: bool,
    /// When the handshake must be over; `None` once it is.
    pub(super) handshake_by: Option<Instant>,
    keep_alive: Option<(Instant, Duration)>,
    /// Since when the frame at the head waits to be written whole.
    head_since: Option<Instant>,
    not_here: Bucket,
    /// The deadline under which the server has filed this connection.
    pub(super) filed: Option<(Instant, &'static str)>,
}

impl Conn {
    pub(super) fn new(remote: SocketAddr, upgrade: bool, handshake_by: Instant, now: Instant) -> Self {
        let phase =
            if upgrade { Phase::Http(Head::default()) } else { Phase::Frames(Decoder::new(Role::Server)) };
        Self {
            remote,
            phase,
            key: None,
            awaiting: None,
            is_mesh: false,
            not_ideal: false,
            flags: 0,
            conflict: false,
            out: Outbound::default(),
            socket: None,
            bare: Bytes::new(),
            meter: None,
            held_until: None,
            credit: 0,
            scheduled: false,
            handshake_by: Some(handshake_by),
            keep_alive: None,
            head_since: None,
            not_here: Bucket::full(now),
            filed: None,
        }
    }

    /// Takes from the front of `input` until something is complete.
    pub(super) fn read(&mut self, input: &mut &[u8], path: &str) -> Result<Option<Received>, LeaveReason> {
        match &mut self.phase {
            Phase::Http(head) => match head.read(input) {
                Ok(Some(head)) => Ok(Some(Received::Request(http::answer(&head, path)))),
                Ok(None) => Ok(None),
                Err(_) => Ok(Some(Received::Request(http::too_large()))),
            },
            Phase::Frames(decoder) => Ok(decoder.decode(input)?.map(Received::Frame)),
            Phase::Draining => {
                *input = &[];
                Ok(None)
            }
        }
    }

    pub(super) fn upgraded(&mut self) {
        self.phase = Phase::Frames(Decoder::new(Role::Server));
    }

    /// From here on the stream is inside a WebSocket, after this response.
    pub(super) fn web_socket(&mut self, response: Bytes) {
        self.upgraded();
        self.bare = response;
        self.socket = Some(Socket::new(Role::Server));
    }

    pub(super) fn is_web_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// What the WebSocket's frames carry.
    pub(super) fn unframe(&mut self, data: &[u8]) -> Result<Vec<u8>, WebSocketError> {
        let Some(socket) = &mut self.socket else { return Ok(data.to_vec()) };
        let (carried, ping) = socket.read(data)?;
        // Only one answer waits (RFC 6455 §5.5.3).
        if let Some(ping) = ping.filter(|_| self.bare.is_empty()) {
            self.bare = websocket::pong(&ping, None);
        }
        Ok(carried)
    }

    /// Bytes came in. `true` if there should come no more for now.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) -> bool {
        let Some(meter) = &mut self.meter else { return false };
        meter.spend(bytes, now);
        let was_held = self.held_until.is_some();
        self.held_until = meter.in_debt_until(now).or(self.held_until);
        !was_held && self.held_until.is_some()
    }

    /// Whether more may come in again.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        let due = self.held_until.is_some_and(|at| at <= now);
        if due {
            self.held_until = None;
        }
        due
    }

    pub(super) fn established(
        &mut self,
        key: PublicKey,
        period: Duration,
        limit: Option<RateLimit>,
        now: Instant,
    ) {
        self.meter = limit.and_then(|limit| Meter::new(limit, now));
        self.key = Some(key);
        self.handshake_by = None;
        self.keep_alive = Some((now + period, period));
    }

    /// Reads no more and closes when what still must be said is written.
    pub(super) fn drain(&mut self) {
        self.phase = Phase::Draining;
        self.handshake_by = None;
        self.keep_alive = None;
        self.awaiting = None;
        self.out.drop_packets();
    }

    pub(super) fn is_drained(&self) -> bool {
        matches!(self.phase, Phase::Draining) && !self.has_output()
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining)
    }

    pub(super) fn has_output(&self) -> bool {
        !(self.bare.is_empty() && self.out.is_empty(true))
    }

    /// To be called after output was queued.
    pub(super) fn output_queued(&mut self, now: Instant) {
        if self.has_output() {
            self.head_since.get_or_insert(now);
        }
    }

    /// The next bytes to write, within the credit.
    pub(super) fn take(&mut self, now: Instant) -> Option<Bytes> {
        let data = if self.bare.is_empty() {
            let data = self.out.take(self.room(), true)?;
            if self.is_web_socket() { websocket::binary(&data, None) } else { data }
        } else {
            self.bare.split_to(self.credit.min(self.bare.len()))
        };
        self.credit -= data.len();
        if self.out.at_boundary() && self.bare.is_empty() {
            self.head_since = self.has_output().then_some(now);
        }
        Some(data)
    }

    /// What can be written of the stream with the credit there is.
    pub(super) fn room(&self) -> usize {
        let header = if self.is_web_socket() && self.bare.is_empty() { SERVER_HEADER } else { 0 };
        self.credit.saturating_sub(header)
    }

    /// Until when what waits may wait that the caller has no credit for; with credit it is about to take the bytes.
    fn stalled_until(&self) -> Option<Instant> {
        let timeout = if self.is_mesh { MESH_WRITE_TIMEOUT } else { WRITE_TIMEOUT };
        Some(self.head_since.filter(|_| self.room() == 0)? + timeout)
    }

    pub(super) fn allow_not_here(&mut self, now: Instant) -> bool {
        self.not_here.take(now)
    }

    /// The earliest of this connection's deadlines.
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let handshake = self.handshake_by.map(|at| (at, "handshake deadline"));
        let keep_alive = self.keep_alive.map(|(at, _)| (at, "keep-alive"));
        let write = self.stalled_until().map(|at| (at, "write timeout"));
        let held = self.held_until.map(|at| (at, "rate limit"));
        [handshake, keep_alive, write, held].into_iter().flatten().min()
    }

    /// Why the connection must end now, if it must.
    pub(super) fn expired(&self, now: Instant) -> Option<LeaveReason> {
        if self.handshake_by.is_some_and(|at| at <= now) {
            return Some(LeaveReason::HandshakeTimeout);
        }
        (self.stalled_until()? <= now).then_some(LeaveReason::WriteTimeout)
    }

    /// Whether a keep-alive is due; it then is due again a period later.
    pub(super) fn keep_alive_due(&mut self, now: Instant) -> bool {
        let Some((at, period)) = &mut self.keep_alive else {
            return false;
        };
        let due = *at <= now;
        if due {
            *at = now + *period;
        }
        due
    }
}

/// A token bucket counted in time: a token is [`NOT_HERE_EVERY`] of it.
#[derive(Debug)]
struct Bucket {
    saved: Duration,
    at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        let saved = NOT_HERE_EVERY * NOT_HERE_BURST;
        Self { saved, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = self.saved + now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.saved = earned.min(NOT_HERE_EVERY * NOT_HERE_BURST);
        let left = self.saved.checked_sub(NOT_HERE_EVERY);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::start;

    #[test]
    fn three_tokens_at_once_then_one_a_second() {
        let now = start();
        let mut bucket = Bucket::full(now);
        let burst: Vec<bool> = (0..4).map(|_| bucket.take(now)).collect();
        assert_eq!(burst, [true, true, true, false]);
        assert!(!bucket.take(now + Duration::from_millis(999)));
        assert!(bucket.take(now + Duration::from_secs(1)));
        assert!(!bucket.take(now + Duration::from_secs(1)));
    }
}
