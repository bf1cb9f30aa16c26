//! The relay's side of all its connections.

mod clients;
mod conn;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use indexmap::IndexMap;
use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use rustc_hash::FxBuildHasher;
use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    frame::{Frame, FrameError, GoneReason, RawFrame, recv_packet_parts},
    http::{self, Answer},
    info::{ClientInfo, ServerInfo},
    keys::{self, PrivateKey, PublicKey},
    queue::Class,
};
use clients::Clients;
pub use clients::MAX_CORRESPONDENTS;
use conn::{Conn, Received};

/// A connection must have finished its handshake after this (tailscale `derp/derpserver/derpserver.go`, `accept`).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A frame must be written whole this long after its turn came (`DefaultTCPWiteTimeout`,
/// tailscale `derp/derpserver/derpserver.go`).
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Keep-alives are at least this far apart (`KeepAlive`, tailscale `derp/derp.go`).
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Each connection adds up to this to its keep-alive period, so that they do not fire together
/// (tailscale `derp/derpserver/derpserver.go`, `sendLoop`).
pub const KEEP_ALIVE_JITTER: Duration = Duration::from_secs(5);

/// The caller's name for a connection. Must not be used again for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Whether connections begin with the HTTP/1.1 upgrade. If not, frames come at once.
    pub upgrade: bool,
    /// Path of the upgrade.
    pub path: String,
}

impl Default for ServerConfig {
    /// Upgrade at `/derp`.
    fn default() -> Self {
        Self { upgrade: true, path: "/derp".into() }
    }
}

/// What to do with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTransmit {
    /// Append to the stream. Never more than the credit given by [`Server::writable`].
    Write {
        /// Which stream.
        conn: ConnId,
        /// Never empty.
        data: Bytes,
    },
    /// Write what was given before, then close. The server has forgotten the connection.
    Close {
        /// Which stream.
        conn: ConnId,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaveReason {
    /// The caller said that the stream is closed.
    #[error("connection closed")]
    Closed,
    /// The client did not finish its handshake within [`HANDSHAKE_TIMEOUT`].
    #[error("handshake took too long")]
    HandshakeTimeout,
    /// The client did not take a frame within [`WRITE_TIMEOUT`].
    #[error("client reads too slowly")]
    WriteTimeout,
    /// The client sent something that is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The first frame was not a ClientInfo.
    #[error("no client info where one was due")]
    NoClientInfo,
    /// The ClientInfo was not sealed by the key it names, or held no JSON object.
    #[error("client info does not open")]
    BadClientInfo,
    /// The client used a frame that is reserved for servers of one mesh.
    #[error("mesh frame from a client outside the mesh")]
    NotMesh,
    /// An HTTP request that is complete with its response: no upgrade.
    #[error("HTTP request answered")]
    Http,
    /// The server shuts down.
    #[error("server shuts down")]
    Shutdown,
}

/// Why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The receiver is not connected here.
    UnknownDestination,
    /// Newer packets of the same class filled the receiver's queue.
    QueueFull,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A client finished its handshake.
    ClientJoined {
        /// Its connection.
        conn: ConnId,
        /// Its key.
        key: PublicKey,
        /// Where it connects from.
        remote: SocketAddr,
        /// What it says of itself.
        info: ClientInfo,
    },
    /// The connection of a client ended. The client may have others.
    ClientLeft {
        /// Its connection.
        conn: ConnId,
        /// Its key.
        key: PublicKey,
        /// Why.
        why: LeaveReason,
    },
    /// A connection ended before its handshake did.
    Refused {
        /// The connection.
        conn: ConnId,
        /// Where it came from.
        remote: SocketAddr,
        /// Why.
        why: LeaveReason,
    },
    /// A client says whether this is its home relay.
    Preferred {
        /// The client.
        key: PublicKey,
        /// Whether it is.
        home: bool,
    },
    /// A packet was not delivered.
    Dropped {
        /// Its sender.
        src: PublicKey,
        /// Its receiver.
        dst: PublicKey,
        /// Its length.
        bytes: usize,
        /// Which queue it was for.
        class: Class,
        /// Why.
        why: DropReason,
    },
}

/// A relay.
///
/// Per connection it holds at most one frame being read, one being written, twice [`QUEUE_LEN`](crate::QUEUE_LEN)
/// packets, [`CONTROL_LEN`](crate::CONTROL_LEN) control frames and [`MAX_CORRESPONDENTS`] keys. A connection without
/// credit only lets its own queues fill; no other connection waits for it.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    key: PrivateKey,
    public: PublicKey,
    rng: ChaCha12Rng,
    /// The latest time the caller told.
    now: Instant,
    conns: IndexMap<ConnId, Conn, FxBuildHasher>,
    clients: Clients,
    /// Connections with output and credit, in the order in which they are served.
    ready: VecDeque<ConnId>,
    closing: VecDeque<ConnId>,
    deadlines: BTreeSet<(Instant, &'static str, ConnId)>,
    events: VecDeque<ServerEvent>,
    shutting_down: bool,
}

impl Server {
    /// A server without connections.
    pub fn new(config: ServerConfig, key: PrivateKey, rng: ChaCha12Rng, now: Instant) -> Self {
        Self {
            config,
            public: key.public(),
            key,
            rng,
            now,
            conns: IndexMap::default(),
            clients: Clients::default(),
            ready: VecDeque::new(),
            closing: VecDeque::new(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            shutting_down: false,
        }
    }

    /// The key clients know this server by.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Connections that are open, handshakes included.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Whether a client with this key is connected.
    pub fn is_connected(&self, key: &PublicKey) -> bool {
        self.clients.active(key).is_some()
    }

    /// A stream came in from `remote`. It has no credit until [`writable`](Self::writable) gives some, and is closed after
    /// [`WRITE_TIMEOUT`] without it, once there is something to write.
    pub fn accepted(&mut self, conn: ConnId, remote: SocketAddr, now: Instant) {
        self.tick(now);
        self.remove(conn, LeaveReason::Closed);
        if self.shutting_down {
            self.closing.push_back(conn);
            return;
        }
        let by = now + HANDSHAKE_TIMEOUT;
        self.conns.insert(conn, Conn::new(remote, self.config.upgrade, by, now));
        if !self.config.upgrade {
            self.control(conn, &Frame::ServerKey { key: self.public });
        }
        self.settle(conn);
    }

    /// Bytes came in. What is wrong with them ends the connection: an event and a [`ServerTransmit::Close`] say so.
    pub fn handle_stream(&mut self, conn: ConnId, data: &[u8], now: Instant) {
        self.tick(now);
        let mut input = data;
        while let Some(c) = self.conns.get_mut(&conn) {
            let result = match c.read(&mut input, &self.config.path) {
                Ok(None) => break,
                Ok(Some(Received::Request(answer))) => {
                    self.handle_request(conn, answer);
                    Ok(())
                }
                Ok(Some(Received::Frame(frame))) => match c.key {
                    Some(key) => self.handle_frame(conn, key, frame),
                    None => self.handle_client_info(conn, &frame),
                },
                Err(why) => Err(why),
            };
            if let Err(why) = result {
                self.remove(conn, why);
                self.closing.push_back(conn);
            }
        }
        self.settle(conn);
    }

    /// The stream is closed or broken. The server will not mention this connection again.
    pub fn closed(&mut self, conn: ConnId, now: Instant) {
        self.tick(now);
        self.remove(conn, LeaveReason::Closed);
        self.closing.retain(|c| *c != conn);
    }

    /// The stream can take `space` bytes now, all in all: this replaces what was said before and is used up by
    /// [`ServerTransmit::Write`]. Say it again when the stream has sent something.
    pub fn writable(&mut self, conn: ConnId, space: usize, now: Instant) {
        self.tick(now);
        if let Some(c) = self.conns.get_mut(&conn) {
            c.credit = space;
            self.settle(conn);
        }
    }

    /// Announces a restart to all clients, then closes every connection once that is written. New ones are closed at once.
    /// `reconnect_in` is how long clients should wait and `try_for` how long they should keep trying, to the millisecond.
    pub fn shutdown(&mut self, reconnect_in: Duration, try_for: Duration, now: Instant) {
        self.tick(now);
        self.shutting_down = true;
        self.clients = Clients::default(); // nobody is to be told that the others leave
        let all: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in all {
            self.leave(conn, LeaveReason::Shutdown);
            if let Some(c) = self.conns.get_mut(&conn) {
                if c.key.is_some() {
                    c.out.push_frame(&Frame::Restarting { reconnect_in, try_for });
                }
                c.drain();
                c.output_queued(now);
            }
            self.settle(conn);
        }
    }

    /// Time has passed: call it when [`poll_timeout`](Self::poll_timeout) has come. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        while let Some(&(at, _, conn)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(c) = self.conns.get_mut(&conn) else {
                continue;
            };
            c.filed = None;
            if let Some(why) = c.expired(now) {
                self.remove(conn, why);
                self.closing.push_back(conn);
                continue;
            }
            if c.keep_alive_due(now) {
                self.control(conn, &Frame::KeepAlive);
            }
            self.settle(conn);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadlines.first().map(|&(at, why, _)| (at, why))
    }

    /// What to write or close next. Connections take turns, a frame each.
    pub fn poll_transmit(&mut self) -> Option<ServerTransmit> {
        loop {
            if let Some(conn) = self.closing.pop_front() {
                return Some(ServerTransmit::Close { conn });
            }
            let conn = self.ready.pop_front()?;
            let Some(c) = self.conns.get_mut(&conn) else {
                continue;
            };
            c.scheduled = false;
            let data = c.take(self.now);
            self.settle(conn);
            if let Some(data) = data {
                return Some(ServerTransmit::Write { conn, data });
            }
        }
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn handle_request(&mut self, conn: ConnId, answer: Answer) {
        let Some(c) = self.conns.get_mut(&conn) else {
            return;
        };
        match answer {
            Answer::Upgrade { fast_start } => {
                if !fast_start {
                    http::push_switching_protocols(&mut c.out, &self.public);
                }
                c.upgraded();
                self.control(conn, &Frame::ServerKey { key: self.public });
            }
            Answer::Close(response) => {
                c.out.push_control(response);
                c.output_queued(self.now);
                self.leave(conn, LeaveReason::Http);
                if let Some(c) = self.conns.get_mut(&conn) {
                    c.drain();
                }
            }
        }
    }

    fn handle_client_info(&mut self, conn: ConnId, frame: &RawFrame) -> Result<(), LeaveReason> {
        let Frame::ClientInfo { key, nonce, sealed } = frame.parse()? else {
            return Err(LeaveReason::NoClientInfo);
        };
        if key.is_zero() {
            return Err(LeaveReason::BadClientInfo);
        }
        let shared = self.key.shared(&key);
        let json = keys::open(&shared, &nonce, sealed).ok_or(LeaveReason::BadClientInfo)?;
        let info = ClientInfo::parse(&json).ok_or(LeaveReason::BadClientInfo)?;
        let ours = ServerInfo::ours().to_json();
        let (nonce, sealed) = keys::seal(&shared, &ours, &mut self.rng).ok_or(LeaveReason::BadClientInfo)?;
        let jitter = KEEP_ALIVE_JITTER.as_nanos() as u64;
        let period = KEEP_ALIVE + Duration::from_nanos(self.rng.random_range(0..jitter));
        if let Some(c) = self.conns.get_mut(&conn) {
            c.established(key, period, self.now);
            let remote = c.remote;
            self.clients.insert(key, conn);
            self.events.push_back(ServerEvent::ClientJoined { conn, key, remote, info });
            let sealed = &sealed;
            self.control(conn, &Frame::ServerInfo { nonce, sealed });
        }
        Ok(())
    }

    fn handle_frame(&mut self, conn: ConnId, key: PublicKey, raw: RawFrame) -> Result<(), LeaveReason> {
        self.clients.note_active(&key, conn);
        match raw.parse()? {
            Frame::SendPacket { dst, packet } => {
                let class = Class::of(packet);
                let bytes = packet.len();
                self.relay(conn, key, dst, class, bytes, raw);
            }
            Frame::Ping(payload) => {
                if let Some(c) = self.conns.get_mut(&conn) {
                    c.out.push_pong(payload);
                    c.output_queued(self.now);
                }
            }
            Frame::NotePreferred(home) => {
                self.events.push_back(ServerEvent::Preferred { key, home });
            }
            Frame::ForwardPacket { .. } | Frame::WatchConns | Frame::ClosePeer { .. } => {
                return Err(LeaveReason::NotMesh);
            }
            _ => {}
        }
        Ok(())
    }

    fn relay(
        &mut self,
        from: ConnId,
        src: PublicKey,
        dst: PublicKey,
        class: Class,
        bytes: usize,
        raw: RawFrame,
    ) {
        let Some(to) = self.clients.active(&dst) else {
            let why = DropReason::UnknownDestination;
            self.events.push_back(ServerEvent::Dropped { src, dst, bytes, class, why });
            let sender = self.conns.get_mut(&from);
            let answer = class == Class::Disco && sender.is_some_and(|c| c.allow_not_here(self.now));
            if answer {
                let reason = GoneReason::NotHere;
                self.control(from, &Frame::PeerGone { key: dst, reason });
            }
            return;
        };
        self.clients.note_exchange(&src, &dst);
        let Some(c) = self.conns.get_mut(&to) else {
            return;
        };
        let dropped = c.out.push_packet(class, raw.into_recv_packet(&src));
        c.output_queued(self.now);
        if let Some((src, bytes)) = dropped.and_then(|frame| recv_packet_parts(&frame)) {
            let why = DropReason::QueueFull;
            self.events.push_back(ServerEvent::Dropped { src, dst, bytes, class, why });
        }
        self.settle(to);
    }

    fn control(&mut self, conn: ConnId, frame: &Frame<'_>) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.out.push_frame(frame);
            c.output_queued(self.now);
            self.settle(conn);
        }
    }

    /// Takes the client of `conn` off the register and tells whom it talked to, if this was its last connection.
    fn leave(&mut self, conn: ConnId, why: LeaveReason) {
        let Some(c) = self.conns.get(&conn).filter(|c| !c.is_draining()) else {
            return;
        };
        let (remote, key) = (c.remote, c.key);
        self.events.push_back(match key {
            Some(key) => ServerEvent::ClientLeft { conn, key, why },
            None => ServerEvent::Refused { conn, remote, why },
        });
        let Some(key) = key else { return };
        let reason = GoneReason::Disconnected;
        for to in self.clients.remove(&key, conn) {
            self.control(to, &Frame::PeerGone { key, reason });
        }
    }

    /// Forgets `conn`.
    fn remove(&mut self, conn: ConnId, why: LeaveReason) {
        self.leave(conn, why);
        if let Some(c) = self.conns.swap_remove(&conn)
            && let Some((at, reason)) = c.filed
        {
            self.deadlines.remove(&(at, reason, conn));
        }
    }

    /// Brings the lists of the server in line with what `conn` now waits for.
    fn settle(&mut self, conn: ConnId) {
        let Some(c) = self.conns.get_mut(&conn) else {
            return;
        };
        if c.is_drained() {
            self.remove(conn, LeaveReason::Closed);
            self.closing.push_back(conn);
            return;
        }
        if c.credit > 0 && !c.scheduled && c.has_output() {
            c.scheduled = true;
            self.ready.push_back(conn);
        }
        let deadline = c.deadline();
        if deadline != c.filed {
            if let Some((at, why)) = std::mem::replace(&mut c.filed, deadline) {
                self.deadlines.remove(&(at, why, conn));
            }
            if let Some((at, why)) = deadline {
                self.deadlines.insert((at, why, conn));
            }
        }
    }
}
