//! One Binding transaction over UDP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::message::{Attribute, Class, Message, Method, TransactionId};

/// When a request is repeated and when it is given up (RFC 8489 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmit {
    /// Wait before the first repetition; each following wait is twice the one before. RFC 8489: 500 ms.
    pub rto: Duration,
    /// How many requests are sent in all (Rc), at least one. RFC 8489: 7.
    pub requests: u32,
    /// How many `rto` to wait for an answer after the last request (Rm). RFC 8489: 16.
    pub last_wait: u32,
}

impl Retransmit {
    /// RFC 8489 §6.2.1: sends at 0, 500, 1500, 3500, 7500, 15500 and 31500 ms, fails at 39500 ms.
    pub const RFC_8489: Retransmit =
        Retransmit { rto: Duration::from_millis(500), requests: 7, last_wait: 16 };
    /// For callers that ask several servers and would rather know soon: sends at 0, 100, 300 and 700 ms and fails at
    /// 1500 ms. The first wait is that of Tailscale's netcheck, which repeats every 100 ms in its first round.
    pub const FAST: Retransmit = Retransmit { rto: Duration::from_millis(100), requests: 4, last_wait: 8 };
}

impl Default for Retransmit {
    fn default() -> Retransmit {
        Retransmit::RFC_8489
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server answered.
    Mapped {
        /// The server that was asked.
        server: SocketAddr,
        /// Our address as the server sees it.
        mapped: SocketAddr,
        /// From the latest request sent to the answer. Too short if it was an earlier request that was answered:
        /// the answers of one transaction look alike. [`Client::requests_sent`] tells when that is possible.
        rtt: Duration,
        /// The server's OTHER-ADDRESS.
        other: Option<SocketAddr>,
    },
    /// No answer, or a refusal: see [`Client::failure`].
    Failed {
        /// The server that was asked.
        server: SocketAddr,
    },
}

/// Why a transaction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer to any request.
    #[error("no answer")]
    TimedOut,
    /// The server sent this error code.
    #[error("refused with code {0}")]
    Refused(u16),
    /// A success without an address, or with an attribute that must be understood and is not (RFC 8489 §6.3.3).
    #[error("unusable answer")]
    Unusable,
}

/// One transaction with one server. Asking again takes a new one, with a new transaction identifier.
#[derive(Debug)]
pub struct Client {
    server: SocketAddr,
    id: TransactionId,
    request: Vec<u8>,
    config: Retransmit,
    /// The answer must come from an address and port that differ from the server's in exactly these.
    change_ip: bool,
    change_port: bool,
    sent: u32,
    sent_at: Instant,
    wait: Duration,
    to_send: bool,
    deadline: Option<Instant>,
    event: Option<Event>,
    failure: Option<Failure>,
}

impl Client {
    /// A plain Binding request with a FINGERPRINT, due at once.
    pub fn binding(server: SocketAddr, id: TransactionId, config: Retransmit, now: Instant) -> Client {
        let request = Message { fingerprint: true, ..Message::binding_request(id) };
        Client::request(server, &request, config, now)
    }

    /// Sends any `request`, due at once. With a CHANGE-REQUEST in it, only an answer from the changed address counts.
    pub fn request(server: SocketAddr, request: &Message, config: Retransmit, now: Instant) -> Client {
        let (change_ip, change_port) = request
            .find(|attribute| match attribute {
                Attribute::ChangeRequest { ip, port } => Some((*ip, *port)),
                _ => None,
            })
            .unwrap_or_default();
        let mut client = Client {
            server,
            id: request.id,
            request: request.to_vec(),
            config,
            change_ip,
            change_port,
            sent: 0,
            sent_at: now,
            wait: config.rto,
            to_send: false,
            deadline: None,
            event: None,
            failure: None,
        };
        client.send(now);
        client
    }

    /// The server that is asked.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// How often the request was sent so far.
    pub fn requests_sent(&self) -> u32 {
        self.sent
    }

    /// Why the transaction failed, if it did.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Takes a datagram; `false` if it is no answer to this transaction, which is then left as it was.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        if self.deadline.is_none() || !self.expects(from) {
            return false;
        }
        let Ok(answer) = Message::decode(datagram) else { return false };
        if answer.id != self.id || answer.method != Method::BINDING {
            return false;
        }
        match answer.class {
            Class::Request | Class::Indication => return false,
            Class::Error => self.fail(answer.error_code().map_or(Failure::Unusable, Failure::Refused)),
            Class::Success => match answer.mapped() {
                Some(mapped) if answer.unknown_required().is_empty() => {
                    self.deadline = None;
                    self.to_send = false;
                    let rtt = now.saturating_duration_since(self.sent_at);
                    let other = answer.other_address();
                    self.event = Some(Event::Mapped { server: self.server, mapped, rtt, other });
                }
                _ => self.fail(Failure::Unusable),
            },
        }
        true
    }

    /// Repeats the request or gives up, if the deadline has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.sent < self.config.requests {
            self.send(now);
        } else {
            self.fail(Failure::TimedOut);
        }
    }

    /// The next deadline and what it is for; `None` once the transaction has ended.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let reason = if self.sent < self.config.requests { "stun retransmission" } else { "stun gives up" };
        self.deadline.map(|deadline| (deadline, reason))
    }

    /// The next datagram and where it goes.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.to_send).then(|| (self.server, self.request.clone()))
    }

    /// The outcome, once.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    fn expects(&self, from: SocketAddr) -> bool {
        let (from_ip, server_ip) = (from.ip().to_canonical(), self.server.ip().to_canonical());
        (from_ip != server_ip) == self.change_ip && (from.port() != self.server.port()) == self.change_port
    }

    fn send(&mut self, now: Instant) {
        self.to_send = true;
        self.sent += 1;
        self.sent_at = now;
        let wait = if self.sent < self.config.requests {
            let wait = self.wait;
            self.wait = wait.saturating_mul(2);
            wait
        } else {
            self.config.rto.saturating_mul(self.config.last_wait)
        };
        self.deadline = Some(now.checked_add(wait).unwrap_or(now));
    }

    fn fail(&mut self, why: Failure) {
        self.deadline = None;
        self.to_send = false;
        self.failure = Some(why);
        self.event = Some(Event::Failed { server: self.server });
    }
}
