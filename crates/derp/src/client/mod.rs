//! One peer's end of a relay connection.

mod liveness;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use crypto_box::SalsaBox;
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    frame::{Decoder, Frame, FrameError, GoneReason, MAX_PACKET, PROTOCOL_VERSION, RawFrame, Role},
    http::{self, Head, HttpError},
    info::{ClientInfo, RateLimit, ServerInfo},
    keys::{self, MeshKey, PrivateKey, PublicKey},
    meter::Meter,
    queue::{Class, Outbound},
    websocket::{self, CLIENT_HEADER, Socket, WebSocketError},
};
use liveness::{Liveness, Verdict};
pub use liveness::{PING_AFTER, PING_TIMEOUT_MAX, PING_TIMEOUT_MIN, READ_TIMEOUT};

/// The handshake must be over this long after the stream is up (tailscale `derp/derphttp/derphttp_client.go`, whose
/// limit of 10 s also spans the dialling).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a client connects.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Private half of the name that other peers send to.
    pub key: PrivateKey,
    /// `Host` field of the upgrade request. Only printable ASCII is sent.
    pub host: String,
    /// Path of the upgrade request. Only printable ASCII is sent.
    pub path: String,
    /// Whether this relay is the client's home: see [`Client::set_preferred`].
    pub home: bool,
    /// Whether the connection begins with the HTTP/1.1 upgrade. If not, frames come at once.
    pub upgrade: bool,
    /// The only server key to accept. `None` accepts any, which leaves the relay unauthenticated.
    pub server_key: Option<PublicKey>,
    /// Send the client's part of the handshake without waiting for the server's, which saves a round trip with the
    /// upgrade and without. Has no effect unless `server_key` is known.
    pub fast_start: bool,
    /// The relay of the region to which the client would rather connect, if it is another one; the server tells those who watch.
    pub ideal_node: Option<String>,
    /// Whether the upgrade is to a WebSocket, for networks that let pass nothing else. Without fast start.
    pub web_socket: bool,
    /// The secret of the server's region: the client is another relay of it and hears of everybody who comes and goes.
    pub mesh_key: Option<MeshKey>,
    /// Ping the server after this much silence, and give the connection up if nothing comes back: see [`PING_AFTER`].
    /// `None` waits for [`READ_TIMEOUT`] only, as Tailscale's client does.
    pub ping_after: Option<Duration>,
}

impl ClientConfig {
    /// Upgrade at `/derp`, not home, any server key, pings after [`PING_AFTER`].
    pub fn new(key: PrivateKey, host: impl Into<String>) -> Self {
        Self {
            key,
            host: host.into(),
            path: "/derp".into(),
            home: false,
            upgrade: true,
            server_key: None,
            fast_start: false,
            ideal_node: None,
            web_socket: false,
            mesh_key: None,
            ping_after: Some(PING_AFTER),
        }
    }
}

/// Why the stream cannot be continued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server did not upgrade the HTTP connection.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server sent something that is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The server sent another frame where the handshake needs a certain one.
    #[error("unexpected frame in the handshake")]
    Handshake,
    /// The server's key is not the configured one, or is zero.
    #[error("server has key {0:?}, which is not the expected one")]
    WrongServerKey(PublicKey),
    /// The ServerInfo was not sealed by the key the server named, or held no JSON object.
    #[error("server info does not open")]
    BadServerInfo,
    /// The server's bytes are no WebSocket's.
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    /// The server speaks another version of the protocol.
    #[error("server speaks DERP version {0}")]
    Version(u64),
}

/// Why a connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// The handshake was not over after [`HANDSHAKE_TIMEOUT`].
    HandshakeTimeout,
    /// A ping was not answered, by a pong or anything else.
    PingTimeout,
    /// Nothing came for [`READ_TIMEOUT`].
    ReadTimeout,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The handshake is over: packets flow.
    Ready {
        /// Key of the server, proven.
        server_key: PublicKey,
        /// How much the server will take, if it limits that. Packets beyond it wait here, where the newest are kept and
        /// path discovery goes first, rather than in the connection.
        rate_limit: Option<RateLimit>,
    },
    /// A packet came.
    Packet {
        /// Its sender.
        src: PublicKey,
        /// Its bytes.
        data: Bytes,
    },
    /// A peer is not reachable through this server.
    PeerGone {
        /// The peer.
        key: PublicKey,
        /// Why.
        reason: GoneReason,
    },
    /// A client is connected to the server. Told to other relays only, of all at first and then of each that comes.
    PeerPresent {
        /// The client.
        key: PublicKey,
        /// Where it connects from, if told.
        addr: Option<SocketAddr>,
        /// As in [`Frame::PeerPresent`].
        flags: u8,
    },
    /// The server says what is wrong with this connection; empty when it is well again.
    Health {
        /// Its words.
        text: String,
    },
    /// The server is about to restart.
    Restarting {
        /// Wait this long before connecting again.
        reconnect_in: Duration,
        /// Try for this long.
        try_for: Duration,
    },
    /// The server answered a ping.
    Pong {
        /// Time from queueing the ping to its answer.
        rtt: Duration,
    },
    /// Give the connection up: close the stream, then call [`Client::closed`].
    Dead {
        /// Why.
        why: DeadReason,
    },
}

/// What became of a packet given to [`Client::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits for its turn.
    Accepted,
    /// It waits, and the oldest of its class was dropped for it.
    DroppedOldest,
    /// It is longer than [`MAX_PACKET`] and was dropped.
    TooLong,
}

enum State {
    /// No stream.
    Idle,
    /// The upgrade request is out, for a WebSocket with this key.
    Http(Head, Option<String>),
    /// The ServerKey is awaited. With fast start the answer to it is out already, sealed with this.
    ServerKey(Decoder, Option<SalsaBox>),
    /// The ClientInfo is out, the ServerInfo awaited.
    ServerInfo(Decoder, PublicKey, SalsaBox),
    Ready(Decoder),
    /// The stream is of no use any more.
    Failed,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Idle => "Idle",
            State::Http(..) => "Http",
            State::ServerKey(..) => "ServerKey",
            State::ServerInfo(..) => "ServerInfo",
            State::Ready(_) => "Ready",
            State::Failed => "Failed",
        })
    }
}

/// A client, for one connection after the other: [`connected`](Self::connected) starts one,
/// [`closed`](Self::closed) ends it. Packets given while there is none wait (the newest of them) for the next.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    public: PublicKey,
    rng: ChaCha12Rng,
    state: State,
    out: Outbound,
    socket: Option<Socket>,
    /// An answer to a WebSocket's ping.
    bare: Bytes,
    meter: Option<Meter>,
    /// The latest time the caller told.
    now: Instant,
    handshake_by: Option<Instant>,
    liveness: Liveness,
    events: VecDeque<ClientEvent>,
}

impl Client {
    /// A client without a connection.
    pub fn new(config: ClientConfig, rng: ChaCha12Rng, now: Instant) -> Self {
        Self {
            public: config.key.public(),
            liveness: Liveness::new(config.ping_after, now),
            config,
            rng,
            state: State::Idle,
            out: Outbound::default(),
            socket: None,
            bare: Bytes::new(),
            meter: None,
            now,
            handshake_by: None,
            events: VecDeque::new(),
        }
    }

    /// This client's name.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Whether packets flow.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Last measured round trip to the server, if any on this connection.
    pub fn rtt(&self) -> Option<Duration> {
        self.liveness.rtt()
    }

    /// A stream to the server is up.
    pub fn connected(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.out.drop_control();
        (self.socket, self.bare, self.meter) = (None, Bytes::new(), None);
        self.handshake_by = Some(now + HANDSHAKE_TIMEOUT);
        self.liveness = Liveness::new(self.config.ping_after, now);
        let config = &self.config;
        if config.upgrade && config.web_socket {
            let mut random = [0; 16];
            self.rng.fill_bytes(&mut random);
            let key = websocket::key(random);
            self.out.push_control(http::web_socket_request(&config.host, &config.path, &key));
            self.state = State::Http(Head::default(), Some(key));
            return;
        }
        let early = config.server_key.filter(|_| config.fast_start);
        if config.upgrade {
            let ideal = config.ideal_node.as_deref();
            let request = http::request(&config.host, &config.path, early.is_some(), ideal);
            self.out.push_control(request);
        }
        let shared = early.and_then(|key| self.push_client_info(&key));
        self.state = match config_waits_for_http(&self.config, shared.is_some()) {
            true => State::Http(Head::default(), None),
            false => State::ServerKey(Decoder::new(Role::Client), shared),
        };
    }

    /// Bytes came in. After an error the stream is useless: close it, then call [`closed`](Self::closed).
    pub fn handle_stream(&mut self, data: &[u8], now: Instant) -> Result<(), Error> {
        self.now = self.now.max(now);
        if !data.is_empty() {
            self.liveness.heard(now);
        }
        let result = match self.unframe(data) {
            Ok(None) => self.read(data, now),
            Ok(Some(carried)) => self.read(&carried, now),
            Err(error) => Err(error.into()),
        };
        if result.is_err() {
            self.fail();
        }
        result
    }

    /// The stream is closed or broken. Packets that still waited are dropped: the next connection may be long in coming.
    pub fn closed(&mut self, _now: Instant) {
        self.fail();
        self.state = State::Idle;
        self.out.drop_packets();
    }

    /// Queues a packet for `dst`. It waits until the handshake is over. Disco packets leave before data packets; of each
    /// class the newest [`QUEUE_LEN`](crate::QUEUE_LEN) wait.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the packet is the client's from here on; today it is copied, so that a frame is one write"
    )]
    pub fn send(&mut self, dst: PublicKey, packet: Bytes, class: Class, now: Instant) -> Queued {
        if packet.len() > MAX_PACKET {
            return Queued::TooLong;
        }
        self.now = self.now.max(now);
        self.push_packet(class, &Frame::SendPacket { dst, packet: &packet })
    }

    /// Hands a packet of `src` to the relay that `dst` is connected to. For another relay of its region only: the server
    /// disconnects others that try.
    pub fn forward(&mut self, src: PublicKey, dst: PublicKey, packet: &[u8], class: Class) -> Queued {
        if packet.len() > MAX_PACKET {
            return Queued::TooLong;
        }
        self.push_packet(class, &Frame::ForwardPacket { src, dst, packet })
    }

    /// Has the server disconnect a client. For another relay of its region only.
    pub fn close_peer(&mut self, key: PublicKey) {
        if self.is_ready() {
            self.out.push_frame(&Frame::ClosePeer { key });
        }
    }

    fn push_packet(&mut self, class: Class, frame: &Frame<'_>) -> Queued {
        let mut out = BytesMut::with_capacity(frame.encoded_len());
        frame.put(&mut out);
        self.out.push_packet(class, out.freeze());
        let mut queued = Queued::Accepted;
        while self.out.pop_excess(class).is_some() {
            queued = Queued::DroppedOldest;
        }
        queued
    }

    /// Tells the server, now and after each handshake, whether this relay is the client's home. Servers only count it.
    pub fn set_preferred(&mut self, home: bool) {
        let changed = std::mem::replace(&mut self.config.home, home) != home;
        if changed && self.is_ready() {
            self.out.push_frame(&Frame::NotePreferred(home));
        }
    }

    /// Whether the next connection has a fast start ([`ClientConfig::fast_start`]).
    pub fn set_fast_start(&mut self, fast: bool) {
        self.config.fast_start = fast;
    }

    /// Checks now whether the connection still works, for instance after the machine changed networks: the answer is
    /// [`ClientEvent::Pong`] or [`ClientEvent::Dead`]. Does nothing before the handshake is over.
    pub fn ping(&mut self, now: Instant) {
        if self.is_ready() {
            let payload = self.liveness.ping(&mut self.rng, now);
            self.out.push_frame(&Frame::Ping(payload));
        }
    }

    /// At most `space` bytes to append to the stream. A frame is given whole if it fits, one at a time; if not, its first
    /// `space` bytes, and the rest first thing next time.
    pub fn poll_transmit(&mut self, space: usize) -> Option<Bytes> {
        if matches!(self.state, State::Idle | State::Failed) {
            return None;
        }
        if !self.bare.is_empty() {
            return Some(self.bare.split_to(space.min(self.bare.len())));
        }
        let header = if self.socket.is_some() { CLIENT_HEADER } else { 0 };
        let packets = self.is_ready() && self.in_debt_until().is_none();
        let data = self.out.take(space.saturating_sub(header), packets)?;
        if let Some(meter) = &mut self.meter {
            meter.spend(data.len(), self.now);
        }
        if self.socket.is_none() {
            return Some(data);
        }
        let mut mask = [0; 4];
        self.rng.fill_bytes(&mut mask);
        Some(websocket::binary(&data, Some(mask)))
    }

    /// Until when packets wait because of the server's rate limit.
    fn in_debt_until(&self) -> Option<Instant> {
        self.meter.as_ref()?.in_debt_until(self.now)
    }

    /// What the frames of a WebSocket carry; `None` where there is none.
    fn unframe(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>, WebSocketError> {
        let Some(socket) = &mut self.socket else { return Ok(None) };
        let (carried, ping) = socket.read(data)?;
        if let Some(ping) = ping.filter(|_| self.bare.is_empty()) {
            let mut mask = [0; 4];
            self.rng.fill_bytes(&mut mask);
            self.bare = websocket::pong(&ping, Some(mask));
        }
        Ok(Some(carried))
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match self.state {
            State::Idle | State::Failed => None,
            State::Ready(_) => {
                let limit = self.in_debt_until().filter(|_| !self.out.is_empty(true));
                limit.map(|at| (at, "rate limit")).into_iter().chain([self.liveness.deadline()]).min()
            }
            _ => self.handshake_by.map(|at| (at, "handshake deadline")),
        }
    }

    /// Time has passed: call it when [`poll_timeout`](Self::poll_timeout) has come. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.poll_timeout().is_none_or(|(at, _)| at > now) {
            return;
        }
        let why = if self.is_ready() {
            match self.liveness.verdict(now) {
                Verdict::Fine => return,
                Verdict::PingDue => return self.ping(now),
                Verdict::Dead(why) => why,
            }
        } else {
            DeadReason::HandshakeTimeout
        };
        self.fail();
        self.events.push_back(ClientEvent::Dead { why });
    }

    fn fail(&mut self) {
        self.state = State::Failed;
        self.handshake_by = None;
        self.out.drop_control();
    }

    fn read(&mut self, mut input: &[u8], now: Instant) -> Result<(), Error> {
        loop {
            let decoder = match &mut self.state {
                State::Idle | State::Failed => return Ok(()),
                State::Http(head, key) => {
                    let Some(head) = head.read(&mut input)? else {
                        return Ok(());
                    };
                    http::check_response(&head, key.as_deref())?;
                    let is_web_socket = key.is_some();
                    self.state = State::ServerKey(Decoder::new(Role::Client), None);
                    if is_web_socket {
                        self.socket = Some(Socket::new(Role::Client));
                        let carried = self.unframe(input)?.unwrap_or_default();
                        return self.read(&carried, now);
                    }
                    continue;
                }
                State::ServerKey(decoder, _) | State::ServerInfo(decoder, ..) | State::Ready(decoder) => {
                    decoder
                }
            };
            let Some(frame) = decoder.decode(&mut input)? else {
                return Ok(());
            };
            self.handle_frame(frame, now)?;
        }
    }

    fn handle_frame(&mut self, raw: RawFrame, now: Instant) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::ServerKey(decoder, shared) => {
                let Frame::ServerKey { key } = raw.parse()? else {
                    return Err(Error::Handshake);
                };
                if key.is_zero() || self.config.server_key.is_some_and(|want| want != key) {
                    return Err(Error::WrongServerKey(key));
                }
                let shared = shared.or_else(|| self.push_client_info(&key));
                let shared = shared.ok_or(Error::Handshake)?;
                self.state = State::ServerInfo(decoder, key, shared);
            }
            State::ServerInfo(decoder, server_key, shared) => {
                let Frame::ServerInfo { nonce, sealed } = raw.parse()? else {
                    return Err(Error::Handshake);
                };
                let json = keys::open(&shared, &nonce, sealed).ok_or(Error::BadServerInfo)?;
                let info = ServerInfo::parse(&json).ok_or(Error::BadServerInfo)?;
                if info.version != PROTOCOL_VERSION {
                    return Err(Error::Version(info.version));
                }
                self.state = State::Ready(decoder);
                self.handshake_by = None;
                if self.config.home {
                    self.out.push_frame(&Frame::NotePreferred(true));
                }
                if self.config.mesh_key.is_some() {
                    self.out.push_frame(&Frame::WatchConns);
                }
                let rate_limit = info.rate_limit;
                self.meter = rate_limit.and_then(|limit| Meter::cautious(limit, now));
                self.events.push_back(ClientEvent::Ready { server_key, rate_limit });
            }
            state => {
                self.state = state;
                self.handle_ready_frame(raw, now)?;
            }
        }
        Ok(())
    }

    fn handle_ready_frame(&mut self, raw: RawFrame, now: Instant) -> Result<(), Error> {
        let event = match raw.parse()? {
            Frame::RecvPacket { src, .. } => ClientEvent::Packet { src, data: raw.into_packet() },
            Frame::Ping(payload) => {
                self.out.push_pong(payload);
                return Ok(());
            }
            Frame::Pong(payload) => match self.liveness.pong(payload, now) {
                Some(rtt) => ClientEvent::Pong { rtt },
                None => return Ok(()),
            },
            Frame::PeerGone { key, reason } => ClientEvent::PeerGone { key, reason },
            Frame::PeerPresent { key, addr, flags } => ClientEvent::PeerPresent { key, addr, flags },
            Frame::Health(text) => ClientEvent::Health { text: String::from_utf8_lossy(text).into_owned() },
            Frame::Restarting { reconnect_in, try_for } => ClientEvent::Restarting { reconnect_in, try_for },
            // A keep-alive has done its work by arriving; the others are not for plain clients.
            _ => return Ok(()),
        };
        self.events.push_back(event);
        Ok(())
    }

    /// Queues the ClientInfo for the server with this key, and gives the box shared with it.
    fn push_client_info(&mut self, server: &PublicKey) -> Option<SalsaBox> {
        let mesh_key = self.config.mesh_key.as_ref().map(|key| key.text().to_owned()).unwrap_or_default();
        let (version, can_ack_pings) = (PROTOCOL_VERSION, true);
        let info = ClientInfo { version, can_ack_pings, mesh_key, ..ClientInfo::default() };
        let shared = self.config.key.shared(server);
        let (nonce, sealed) = keys::seal(&shared, &info.to_json(), &mut self.rng)?;
        self.out.push_frame(&Frame::ClientInfo { key: self.public, nonce, sealed: &sealed });
        Some(shared)
    }
}

/// With fast start the server sends no HTTP response, so none is awaited.
fn config_waits_for_http(config: &ClientConfig, fast: bool) -> bool {
    config.upgrade && !fast
}
