//! The proxy.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Credentials, MAX_FIELDS, MAX_HEAD, head_end};

/// How long a client may take with its request: nginx's `client_header_timeout`.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// How long the connection to a target may take: Squid's `connect_timeout`.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Bytes that wait for one end before the other is no longer read from, and those below which it is again: Squid's
/// `read_ahead_gap` is as much, Linux's sockets buffer the rest.
const HIGH: usize = 64 << 10;
const LOW: usize = 16 << 10;
/// Bytes that wait for one end at most: what a receive buffer may still hold when reading stops (the largest of Linux's
/// `tcp_rmem`), twice over. A tunnel beyond is closed.
const MOST: usize = 16 << 20;

/// A TCP connection. The caller numbers those that it accepts; the proxy those that it opens, from 0. No number is used
/// twice, so the caller's begin above [`ConnId::FIRST_ACCEPTED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl ConnId {
    /// The least number of an accepted connection.
    pub const FIRST_ACCEPTED: u64 = 1 << 32;
}

/// What a proxy does.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Ports that it connects to; others are answered with 403. 443 alone is what RFC 9110 §9.3.6 advises, and what Squid's
    /// `SSL_ports` holds.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Who may use it; `None` for everybody. Others are answered with 407.
    pub credentials: Option<Credentials>,
    /// Most connections of clients at a time; more are closed at once.
    pub max_clients: usize,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        // nginx's `worker_connections` is 512 by default, Squid has as many as there are file descriptors: 1024.
        ServerConfig { ports: vec![443..=443], credentials: None, max_clients: 1024 }
    }
}

/// What the proxy wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// Open a connection.
    Connect {
        /// Its number from now on.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Write to a connection, never more than it was said to take.
    Write {
        /// Which.
        conn: ConnId,
        /// The bytes.
        data: Bytes,
    },
    /// Stop reading from a connection, or go on, so that its sender is slowed down.
    Hold {
        /// Which.
        conn: ConnId,
        /// Whether to stop.
        hold: bool,
    },
    /// Close a connection once what was written has gone out. Nothing more is expected of it.
    Close(ConnId),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A tunnel is open.
    Opened {
        /// Whose.
        client: SocketAddr,
        /// Where to.
        target: SocketAddr,
    },
    /// A request was refused.
    Refused {
        /// Whose.
        client: SocketAddr,
        /// With which status.
        status: u16,
        /// What it asked for; empty if that could not be read.
        target: String,
    },
}

/// Bytes on their way to one end.
#[derive(Debug, Default)]
struct Pipe {
    queue: VecDeque<Bytes>,
    len: usize,
    credit: usize,
    /// Reading from the other end has stopped.
    held: bool,
}

impl Pipe {
    fn push(&mut self, data: Bytes) {
        self.len += data.len();
        self.queue.push_back(data);
    }

    fn pop(&mut self) -> Option<Bytes> {
        if self.credit == 0 {
            return None;
        }
        let mut data = self.queue.pop_front()?;
        if data.len() > self.credit {
            let rest = data.split_off(self.credit);
            self.queue.push_front(rest);
        }
        self.credit -= data.len();
        self.len -= data.len();
        Some(data)
    }
}

#[derive(Debug)]
enum State {
    /// The request is coming in.
    Asking { head: Vec<u8>, deadline: Instant },
    /// The connection to the target is being opened.
    Connecting { upstream: ConnId, deadline: Instant },
    /// Bytes go both ways.
    Open { upstream: ConnId },
    /// One end is gone; the other gets what is left for it.
    Draining { left: ConnId },
}

#[derive(Debug)]
struct Tunnel {
    client: ConnId,
    from: SocketAddr,
    target: Option<SocketAddr>,
    state: State,
    to_client: Pipe,
    to_upstream: Pipe,
}

/// An HTTP proxy.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    tunnels: BTreeMap<u64, Tunnel>,
    /// Which tunnel a connection is of.
    by_conn: BTreeMap<ConnId, u64>,
    next_tunnel: u64,
    next_conn: u64,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Server {
    /// A proxy without clients.
    #[must_use]
    pub fn new(config: ServerConfig) -> Server {
        Server {
            config,
            tunnels: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            next_tunnel: 0,
            next_conn: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Tunnels that are open or asked for.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    /// A client has connected.
    pub fn accepted(&mut self, conn: ConnId, from: SocketAddr, now: Instant) {
        if self.tunnels.len() >= self.config.max_clients {
            self.transmits.push_back(Transmit::Close(conn));
            return;
        }
        let id = self.next_tunnel;
        self.next_tunnel += 1;
        let state = State::Asking { head: Vec::new(), deadline: now + REQUEST_WITHIN };
        let (to_client, to_upstream) = (Pipe::default(), Pipe::default());
        self.tunnels.insert(id, Tunnel { client: conn, from, target: None, state, to_client, to_upstream });
        self.by_conn.insert(conn, id);
    }

    /// A connection that the proxy opened is established.
    pub fn connected(&mut self, conn: ConnId) {
        let Some(id) = self.by_conn.get(&conn).copied() else { return };
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        if let (State::Connecting { upstream, .. }, Some(target)) = (&tunnel.state, tunnel.target) {
            tunnel.state = State::Open { upstream: *upstream };
            // RFC 9110 §9.3.6: no content, and no field that would announce any.
            tunnel.to_client.push(Bytes::from_static(b"HTTP/1.1 200 Connection established\r\n\r\n"));
            self.events.push_back(Event::Opened { client: tunnel.from, target });
        }
        self.flush(id);
    }

    /// Bytes came in.
    pub fn handle_stream(&mut self, conn: ConnId, data: &[u8], now: Instant) {
        let Some(id) = self.by_conn.get(&conn).copied() else { return };
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        match &mut tunnel.state {
            State::Asking { head, .. } => {
                let had = head.len();
                let room = data.len().min(MAX_HEAD - had);
                head.extend_from_slice(&data[..room]);
                match head_end(head, had) {
                    Some(end) => {
                        head.truncate(end);
                        let request = std::mem::take(head);
                        let rest = &data[end - had..];
                        if !rest.is_empty() {
                            tunnel.to_upstream.push(Bytes::copy_from_slice(rest));
                        }
                        self.answer(id, &request, now);
                    }
                    None if head.len() == MAX_HEAD => self.refuse(id, Refusal::TooLarge, String::new()),
                    None => {}
                }
            }
            State::Draining { .. } => return,
            State::Connecting { .. } | State::Open { .. } => {
                let pipe =
                    if conn == tunnel.client { &mut tunnel.to_upstream } else { &mut tunnel.to_client };
                pipe.push(Bytes::copy_from_slice(data));
                if pipe.len > MOST {
                    return self.drop_tunnel(id);
                }
            }
        }
        self.flush(id);
    }

    /// A connection takes that many bytes now.
    pub fn writable(&mut self, conn: ConnId, space: usize) {
        let Some(id) = self.by_conn.get(&conn).copied() else { return };
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        let pipe = if conn == tunnel.client { &mut tunnel.to_client } else { &mut tunnel.to_upstream };
        pipe.credit = space;
        self.flush(id);
    }

    /// A connection is gone, or could not be opened.
    pub fn closed(&mut self, conn: ConnId) {
        let Some(id) = self.by_conn.remove(&conn) else { return };
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        match tunnel.state {
            State::Asking { .. } | State::Draining { .. } => {
                self.tunnels.remove(&id);
            }
            State::Connecting { upstream, .. } if conn == upstream => {
                let target = tunnel.target.map(|target| target.to_string()).unwrap_or_default();
                self.refuse(id, Refusal::BadGateway, target);
            }
            State::Connecting { upstream, .. } => {
                self.close(upstream);
                self.tunnels.remove(&id);
            }
            State::Open { upstream } => {
                let left = if conn == tunnel.client { upstream } else { tunnel.client };
                tunnel.state = State::Draining { left };
                // What the end that is gone was to get, nobody gets; and nobody is read from any more.
                let gone =
                    if left == tunnel.client { &mut tunnel.to_upstream } else { &mut tunnel.to_client };
                *gone = Pipe::default();
            }
        }
        self.flush(id);
    }

    /// Gives up what took too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .tunnels
            .iter()
            .filter(|(_, t)| t.deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(tunnel) = self.tunnels.get(&id) else { continue };
            match tunnel.state {
                State::Asking { .. } => self.refuse(id, Refusal::Slow, String::new()),
                State::Connecting { upstream, .. } => {
                    let target = tunnel.target.map(|target| target.to_string()).unwrap_or_default();
                    self.close(upstream);
                    self.refuse(id, Refusal::GatewayTimeout, target);
                }
                State::Open { .. } | State::Draining { .. } => {}
            }
            self.flush(id);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.tunnels
            .values()
            .filter_map(Tunnel::deadline)
            .min()
            .map(|at| (at, "a client or a target takes too long"))
    }

    /// The next thing to do.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // ---- requests ----------------------------------------------------------------------------------

    fn answer(&mut self, id: u64, head: &[u8], now: Instant) {
        let target = match self.judge(head) {
            Ok(target) => target,
            Err((refusal, target)) => return self.refuse(id, refusal, target),
        };
        let upstream = ConnId(self.next_conn);
        self.next_conn += 1;
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        tunnel.target = Some(target);
        tunnel.state = State::Connecting { upstream, deadline: now + CONNECT_WITHIN };
        self.by_conn.insert(upstream, id);
        self.transmits.push_back(Transmit::Connect { conn: upstream, to: target });
    }

    /// Where a request may go, or why not, and where it wanted to go.
    fn judge(&self, head: &[u8]) -> Result<SocketAddr, (Refusal, String)> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err((Refusal::TooLarge, String::new())),
            _ => return Err((Refusal::BadRequest, String::new())),
        }
        let target = request.path.unwrap_or_default().to_owned();
        if request.method != Some("CONNECT") {
            return Err((Refusal::Method, target));
        }
        if let Some(credentials) = &self.config.credentials {
            let mut given =
                request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("Proxy-Authorization"));
            let right = |value: &[u8]| is_basic(value, &credentials.header());
            if !given.next().is_some_and(|field| right(field.value)) || given.next().is_some() {
                return Err((Refusal::Unauthorized, target));
            }
        }
        // RFC 9112 §3.2.3: host and port, nothing else.
        let Some((host, port)) = target.rsplit_once(':') else { return Err((Refusal::BadRequest, target)) };
        let Ok(port) = port.parse::<u16>() else { return Err((Refusal::BadRequest, target)) };
        if host.is_empty() {
            return Err((Refusal::BadRequest, target));
        }
        if !self.config.ports.iter().any(|ports| ports.contains(&port)) {
            return Err((Refusal::Forbidden, target));
        }
        target.parse().map_err(|_| (Refusal::BadGateway, target))
    }

    fn refuse(&mut self, id: u64, refusal: Refusal, target: String) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        let (status, reason, fields) = refusal.words();
        let answer =
            format!("HTTP/1.1 {status} {reason}\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n");
        tunnel.to_client.push(answer.into());
        tunnel.to_upstream = Pipe::default();
        tunnel.state = State::Draining { left: tunnel.client };
        self.events.push_back(Event::Refused { client: tunnel.from, status, target });
    }

    // ---- bytes -------------------------------------------------------------------------------------

    fn close(&mut self, conn: ConnId) {
        self.by_conn.remove(&conn);
        self.transmits.push_back(Transmit::Close(conn));
    }

    fn drop_tunnel(&mut self, id: u64) {
        let Some(tunnel) = self.tunnels.remove(&id) else { return };
        for conn in [Some(tunnel.client), tunnel.upstream()].into_iter().flatten() {
            self.close(conn);
        }
    }

    /// Writes what the ends take, and holds whoever sends faster than that.
    fn flush(&mut self, id: u64) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        let (upstream, open) = (tunnel.upstream(), matches!(tunnel.state, State::Open { .. }));
        // An end that is gone gets nothing; a target not before it is connected.
        let client = match tunnel.state {
            State::Draining { left } if left != tunnel.client => None,
            _ => Some(tunnel.client),
        };
        let ready = match tunnel.state {
            State::Connecting { .. } => None,
            _ => upstream,
        };
        let ends = [
            (client, &mut tunnel.to_client, upstream),
            (ready, &mut tunnel.to_upstream, Some(tunnel.client)),
        ];
        for (to, pipe, from) in ends {
            if let Some(conn) = to {
                while let Some(data) = pipe.pop() {
                    self.transmits.push_back(Transmit::Write { conn, data });
                }
            }
            let hold = if pipe.held { pipe.len > LOW } else { pipe.len > HIGH };
            if let (true, Some(conn)) = (open && hold != pipe.held, from) {
                pipe.held = hold;
                self.transmits.push_back(Transmit::Hold { conn, hold });
            }
        }
        if let State::Draining { left } = tunnel.state {
            let pipe = if left == tunnel.client { &tunnel.to_client } else { &tunnel.to_upstream };
            if pipe.len == 0 {
                self.tunnels.remove(&id);
                self.close(left);
            }
        }
    }
}

impl Tunnel {
    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Asking { deadline, .. } | State::Connecting { deadline, .. } => Some(deadline),
            State::Open { .. } | State::Draining { .. } => None,
        }
    }

    fn upstream(&self) -> Option<ConnId> {
        match self.state {
            State::Connecting { upstream, .. } | State::Open { upstream } => Some(upstream),
            State::Draining { left } if left != self.client => Some(left),
            State::Asking { .. } | State::Draining { .. } => None,
        }
    }
}

/// Whether a header field holds these credentials; the name of the scheme is not case-sensitive (RFC 9110 §11.1).
fn is_basic(value: &[u8], wanted: &str) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let (Some((scheme, token)), Some((_, right))) = (value.trim().split_once(' '), wanted.split_once(' '))
    else {
        return false;
    };
    scheme.eq_ignore_ascii_case("Basic") && token.trim_start() == right
}

/// Why a request is not granted.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    BadRequest,
    Forbidden,
    Method,
    Unauthorized,
    Slow,
    TooLarge,
    BadGateway,
    GatewayTimeout,
}

impl Refusal {
    /// Status, reason, and the fields that go with it (RFC 9110 §15.5 and 15.6, RFC 6585 §5).
    fn words(self) -> (u16, &'static str, &'static str) {
        match self {
            Refusal::BadRequest => (400, "Bad Request", ""),
            Refusal::Forbidden => (403, "Forbidden", ""),
            Refusal::Method => (405, "Method Not Allowed", "Allow: CONNECT\r\n"),
            Refusal::Unauthorized => (
                407,
                "Proxy Authentication Required",
                "Proxy-Authenticate: Basic realm=\"proxy\", charset=\"UTF-8\"\r\n",
            ),
            Refusal::Slow => (408, "Request Timeout", ""),
            Refusal::TooLarge => (431, "Request Header Fields Too Large", ""),
            Refusal::BadGateway => (502, "Bad Gateway", ""),
            Refusal::GatewayTimeout => (504, "Gateway Timeout", ""),
        }
    }
}
