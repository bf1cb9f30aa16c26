//! The relay's side of all its connections.

mod clients;
mod conn;
mod hold;
mod mesh;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
mod types;

use bytes::Bytes;
use indexmap::IndexMap;
use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use rustc_hash::FxBuildHasher;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    frame::{Frame, GoneReason, RawFrame, recv_packet_parts},
    http::{self, Answer},
    info::{ClientInfo, ServerInfo},
    keys::{self, PrivateKey, PublicKey},
    queue::Class,
};
use clients::Clients;
pub use clients::MAX_CORRESPONDENTS;
use conn::{Conn, Received};
pub use hold::HELD_BYTES;
use hold::Hold;
use mesh::Mesh;
pub use mesh::{Forward, LinkId, MeshFull};
pub use types::{ConnId, DropReason, LeaveReason, Restart, ServerConfig, ServerEvent, ServerTransmit};

/// A connection must have finished its handshake after this (tailscale `derp/derpserver/derpserver.go`, `accept`).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A frame must be written whole this long after its turn came (`DefaultTCPWiteTimeout`,
/// tailscale `derp/derpserver/derpserver.go`).
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a relay of the region, behind which many clients wait (`meshWriteTimeout`).
pub const MESH_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Keep-alives are at least this far apart (`KeepAlive`, tailscale `derp/derp.go`).
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Each connection adds up to this to its keep-alive period, so that they do not fire together
/// (tailscale `derp/derpserver/derpserver.go`, `sendLoop`).
pub const KEEP_ALIVE_JITTER: Duration = Duration::from_secs(5);

/// What two connections with one key are told while both speak: no word about the relay's own health.
pub const CONFLICT: &str = "another connection uses the same key: packets go to the one that spoke last. Is the key on two machines?";

/// The last byte of PeerPresent (`PeerPresentFlags`, tailscale `derp/derp.go`).
fn presence_flags(is_mesh: bool, info: &ClientInfo, not_ideal: bool) -> u8 {
    let kind = match (is_mesh, info.is_prober) {
        (true, _) => 2,
        (false, true) => 4,
        (false, false) => 1,
    };
    kind | if not_ideal { 8 } else { 0 }
}

/// A relay.
///
/// Per connection it holds at most one frame being read, one being written, twice [`QUEUE_LEN`](crate::QUEUE_LEN)
/// packets of together [`QUEUE_BYTES`](crate::QUEUE_BYTES), [`CONTROL_LEN`](crate::CONTROL_LEN) control frames and
/// [`MAX_CORRESPONDENTS`] keys. A connection without
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
    holds: VecDeque<(ConnId, bool)>,
    deadlines: BTreeSet<(Instant, &'static str, ConnId)>,
    events: VecDeque<ServerEvent>,
    /// Connections by where they come from.
    sources: BTreeMap<IpAddr, usize>,
    /// Relays of the region that want to know who comes and goes.
    watchers: BTreeSet<ConnId>,
    mesh: Mesh,
    hold: Hold,
    forwards: VecDeque<Forward>,
    health: String,
    shutting_down: bool,
    /// When a server that shuts down closes what is left.
    close_at: Option<Instant>,
}

/// By what connections of one source are counted.
fn source(remote: SocketAddr) -> IpAddr {
    match remote.ip().to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

impl Server {
    /// A server without connections.
    pub fn new(config: ServerConfig, key: PrivateKey, rng: ChaCha12Rng, now: Instant) -> Self {
        let hold = Hold::until((!config.hold_at_start.is_zero()).then(|| now + config.hold_at_start));
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
            holds: VecDeque::new(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            sources: BTreeMap::new(),
            watchers: BTreeSet::new(),
            mesh: Mesh::default(),
            hold,
            forwards: VecDeque::new(),
            health: String::new(),
            shutting_down: false,
            close_at: None,
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

    /// Bytes that wait for the connection for which most do.
    pub fn most_queued(&self) -> usize {
        self.conns.values().map(|conn| conn.out.queued()).max().unwrap_or(0)
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
        let from_there = self.sources.entry(source(remote)).or_default();
        if self.conns.len() >= self.config.max_connections || *from_there >= self.config.max_per_source {
            if *from_there == 0 {
                self.sources.remove(&source(remote));
            }
            self.events.push_back(ServerEvent::Refused { conn, remote, why: LeaveReason::TooMany });
            self.closing.push_back(conn);
            return;
        }
        *from_there += 1;
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
        let Some(c) = self.conns.get_mut(&conn) else { return };
        if c.spend(data.len(), now) {
            self.holds.push_back((conn, true));
        }
        if let Err(why) = self.read(conn, data) {
            self.remove(conn, why);
            self.closing.push_back(conn);
        }
        self.settle(conn);
    }

    fn read(&mut self, conn: ConnId, data: &[u8]) -> Result<(), LeaveReason> {
        let mut carried;
        let mut input = data;
        if let Some(c) = self.conns.get_mut(&conn)
            && c.is_web_socket()
        {
            carried = c.unframe(data)?;
            input = &carried;
        }
        while let Some(c) = self.conns.get_mut(&conn) {
            match c.read(&mut input, &self.config.path)? {
                None => break,
                Some(Received::Request(answer)) => {
                    self.handle_request(conn, answer);
                    if let Some(c) = self.conns.get_mut(&conn).filter(|c| c.is_web_socket()) {
                        carried = c.unframe(input)?;
                        input = &carried;
                    }
                }
                Some(Received::Frame(frame)) => match c.key {
                    Some(key) => self.handle_frame(conn, key, frame)?,
                    // Some clients do not wait for the server's answer before they send; what they send waits for nothing.
                    None if c.awaiting.is_some() => {}
                    None => self.handle_client_info(conn, &frame)?,
                },
            }
        }
        Ok(())
    }

    /// Answers [`ServerEvent::Admission`]. A connection that is gone or was answered before is left as it is.
    pub fn admit(&mut self, conn: ConnId, admitted: bool, now: Instant) {
        self.tick(now);
        let Some((key, info)) = self.conns.get_mut(&conn).and_then(|c| c.awaiting.take()) else { return };
        let result = if admitted { self.establish(conn, key, info) } else { Err(LeaveReason::NotAdmitted) };
        if let Err(why) = result {
            self.remove(conn, why);
            self.closing.push_back(conn);
        }
        self.settle(conn);
    }

    /// Disconnects a client that is no longer admitted.
    pub fn expel(&mut self, key: &PublicKey, now: Instant) {
        self.tick(now);
        self.close_peer(key, &LeaveReason::NotAdmitted);
    }

    fn close_peer(&mut self, key: &PublicKey, why: &LeaveReason) {
        while let Some(conn) = self.clients.active(key) {
            self.remove(conn, why.clone());
            self.closing.push_back(conn);
        }
    }

    /// Tells all clients, and those to come, what is wrong with this relay; empty when it is well again.
    pub fn set_health(&mut self, text: impl Into<String>, now: Instant) {
        self.tick(now);
        self.health = text.into();
        let health = self.health.clone();
        let clients: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.key.is_some() && !c.is_draining())
            .map(|(id, _)| *id)
            .collect();
        for conn in clients {
            self.control(conn, &Frame::Health(health.as_bytes()));
        }
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

    /// Announces a restart to all clients, serves them for a while so that they find another relay, or this one once it is back,
    /// and then closes every connection. New ones are closed at once.
    pub fn shutdown(&mut self, restart: Restart, now: Instant) {
        self.tick(now);
        self.shutting_down = true;
        let Restart { reconnect_in, spread, try_for, grace } = restart;
        let all: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in all {
            if self.conns.get(&conn).is_some_and(|c| c.key.is_some()) {
                let reconnect_in = reconnect_in + self.rng.random_range(Duration::ZERO..=spread);
                self.control(conn, &Frame::Restarting { reconnect_in, try_for });
            }
        }
        self.close_at = Some(now + grace);
        if grace.is_zero() {
            self.close_all();
        }
    }

    fn close_all(&mut self) {
        self.close_at = None;
        self.clients = Clients::default(); // nobody is to be told that the others leave
        self.watchers.clear();
        let all: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in all {
            self.leave(conn, LeaveReason::Shutdown);
            if let Some(c) = self.conns.get_mut(&conn) {
                c.drain();
                c.output_queued(self.now);
            }
            self.settle(conn);
        }
    }

    /// Time has passed: call it when [`poll_timeout`](Self::poll_timeout) has come. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        if self.close_at.is_some_and(|at| at <= now) {
            self.close_all();
        }
        for (src, dst, class, bytes) in self.hold.expire(now) {
            self.drop_unknown(src, dst, bytes, class);
        }
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
            if c.release(now) {
                self.holds.push_back((conn, false));
            }
            if c.keep_alive_due(now) {
                self.control(conn, &Frame::KeepAlive);
            }
            self.settle(conn);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let conns = self.deadlines.first().map(|&(at, why, _)| (at, why));
        let hold = self.hold.deadline().map(|at| (at, "packets held at the start"));
        conns.into_iter().chain(self.close_at.map(|at| (at, "shutdown"))).chain(hold).min()
    }

    /// What to write or close next. Connections take turns, a frame each.
    pub fn poll_transmit(&mut self) -> Option<ServerTransmit> {
        loop {
            if let Some(conn) = self.closing.pop_front() {
                return Some(ServerTransmit::Close { conn });
            }
            if let Some((conn, hold)) = self.holds.pop_front() {
                if self.conns.contains_key(&conn) {
                    return Some(ServerTransmit::Hold { conn, hold });
                }
                continue;
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
            Answer::Upgrade { fast_start, not_ideal } => {
                c.not_ideal = not_ideal;
                if !fast_start {
                    c.out.push_control(http::switching_protocols(&self.public));
                }
                c.upgraded();
                self.control(conn, &Frame::ServerKey { key: self.public });
            }
            Answer::WebSocket { accept } => {
                c.web_socket(http::web_socket_response(&accept));
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
        let mut info = ClientInfo::parse(&json).ok_or(LeaveReason::BadClientInfo)?;
        let shown = std::mem::take(&mut info.mesh_key);
        let is_mesh = self.config.mesh_key.as_ref().is_some_and(|ours| ours.is(&shown));
        let Some(c) = self.conns.get_mut(&conn) else { return Ok(()) };
        c.is_mesh = is_mesh;
        if self.config.admission && !is_mesh {
            c.awaiting = Some((key, info));
            self.events.push_back(ServerEvent::Admission { conn, key, remote: c.remote });
            return Ok(());
        }
        self.establish(conn, key, info)
    }

    /// The handshake is over.
    fn establish(&mut self, conn: ConnId, key: PublicKey, info: ClientInfo) -> Result<(), LeaveReason> {
        let Some(c) = self.conns.get_mut(&conn) else { return Ok(()) };
        let limit = self.config.rate_limit.filter(|_| !c.is_mesh);
        let ours = ServerInfo::ours(limit).to_json();
        let shared = self.key.shared(&key);
        let (nonce, sealed) = keys::seal(&shared, &ours, &mut self.rng).ok_or(LeaveReason::BadClientInfo)?;
        let jitter = KEEP_ALIVE_JITTER.as_nanos() as u64;
        let period = KEEP_ALIVE + Duration::from_nanos(self.rng.random_range(0..jitter));
        c.established(key, period, limit, self.now);
        c.flags = presence_flags(c.is_mesh, &info, c.not_ideal);
        let remote = c.remote;
        let is_news = self.clients.active(&key).is_none();
        self.clients.insert(key, conn);
        self.events.push_back(ServerEvent::ClientJoined { conn, key, remote, info });
        self.control(conn, &Frame::ServerInfo { nonce, sealed: &sealed });
        if !self.health.is_empty() {
            let health = self.health.clone();
            self.control(conn, &Frame::Health(health.as_bytes()));
        }
        if is_news {
            self.tell_watchers(&key);
        }
        for (class, frame) in self.hold.take(&key) {
            self.deliver(conn, key, class, frame);
        }
        Ok(())
    }

    /// Tells the relays that watch whether a client is here now.
    fn tell_watchers(&mut self, key: &PublicKey) {
        let watchers: Vec<ConnId> = self.watchers.iter().copied().collect();
        for watcher in watchers {
            self.tell(watcher, key);
        }
    }

    fn tell(&mut self, watcher: ConnId, key: &PublicKey) {
        let present = self.clients.active(key).and_then(|conn| self.conns.get(&conn));
        let frame = match present {
            Some(c) => Frame::PeerPresent { key: *key, addr: Some(c.remote), flags: c.flags },
            None => Frame::PeerGone { key: *key, reason: GoneReason::Disconnected },
        };
        if let Some(c) = self.conns.get_mut(&watcher).filter(|c| c.key != Some(*key)) {
            if !c.out.push_presence(*key, &frame) {
                // It gets the whole list when it comes back.
                self.remove(watcher, LeaveReason::WriteTimeout);
                self.closing.push_back(watcher);
                return;
            }
            c.output_queued(self.now);
            self.settle(watcher);
        }
    }

    fn handle_frame(&mut self, conn: ConnId, key: PublicKey, raw: RawFrame) -> Result<(), LeaveReason> {
        if self.clients.note_active(&key, conn) {
            self.warn_of_conflict(&key);
        }
        let is_mesh = self.conns.get(&conn).is_some_and(|c| c.is_mesh);
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
            Frame::ForwardPacket { .. } | Frame::WatchConns | Frame::ClosePeer { .. } if !is_mesh => {
                return Err(LeaveReason::NotMesh);
            }
            Frame::ForwardPacket { src, dst, packet } => {
                let (class, bytes) = (Class::of(packet), packet.len());
                let frame = raw.forward_into_recv_packet(&src);
                if let Some(to) = self.clients.active(&dst) {
                    self.deliver(to, dst, class, frame);
                } else if self.hold.push(dst, class, frame, self.now).is_some() {
                    self.drop_unknown(src, dst, bytes, class);
                }
            }
            Frame::WatchConns => {
                self.watchers.insert(conn);
                let all: Vec<PublicKey> = self.clients.keys().collect();
                for key in all {
                    self.tell(conn, &key);
                }
            }
            Frame::ClosePeer { key } => self.close_peer(&key, &LeaveReason::ClosedByMesh),
            _ => {}
        }
        Ok(())
    }

    /// Two machines with one key take its packets from each other: both are told.
    fn warn_of_conflict(&mut self, key: &PublicKey) {
        for conn in self.clients.conns(key) {
            if let Some(c) = self.conns.get_mut(&conn)
                && !std::mem::replace(&mut c.conflict, true)
            {
                self.control(conn, &Frame::Health(CONFLICT.as_bytes()));
            }
        }
    }

    fn drop_unknown(&mut self, src: PublicKey, dst: PublicKey, bytes: usize, class: Class) {
        let why = DropReason::UnknownDestination;
        self.events.push_back(ServerEvent::Dropped { src, dst, bytes, class, why });
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
        if let Some(to) = self.clients.active(&dst) {
            self.clients.note_exchange(&src, &dst);
            return self.deliver(to, dst, class, raw.into_recv_packet(&src));
        }
        if let Some(link) = self.mesh.route(&src, &dst) {
            self.forwards.push_back(Forward { link, src, dst, packet: raw.into_packet() });
            return;
        }
        if self.hold.push(dst, class, raw.into_recv_packet(&src), self.now).is_none() {
            return;
        }
        self.drop_unknown(src, dst, bytes, class);
        let sender = self.conns.get_mut(&from);
        if class == Class::Disco && sender.is_some_and(|c| c.allow_not_here(self.now)) {
            let reason = GoneReason::NotHere;
            self.control(from, &Frame::PeerGone { key: dst, reason });
        }
    }

    fn deliver(&mut self, to: ConnId, dst: PublicKey, class: Class, frame: Bytes) {
        let Some(c) = self.conns.get_mut(&to) else {
            return;
        };
        c.out.push_packet(class, frame);
        c.output_queued(self.now);
        while let Some(dropped) = c.out.pop_excess(class) {
            if let Some((src, bytes)) = recv_packet_parts(&dropped) {
                let why = DropReason::QueueFull;
                self.events.push_back(ServerEvent::Dropped { src, dst, bytes, class, why });
            }
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
        self.watchers.remove(&conn);
        for to in self.clients.remove(&key, conn) {
            self.control(to, &Frame::PeerGone { key, reason });
        }
        match self.clients.conns(&key)[..] {
            [] => {
                self.mesh.left(&key);
                self.tell_watchers(&key);
            }
            [left] if self.conns.get_mut(&left).is_some_and(|c| std::mem::take(&mut c.conflict)) => {
                let health = self.health.clone();
                self.control(left, &Frame::Health(health.as_bytes()));
            }
            _ => {}
        }
    }

    /// Forgets `conn`.
    fn remove(&mut self, conn: ConnId, why: LeaveReason) {
        self.leave(conn, why);
        let Some(c) = self.conns.swap_remove(&conn) else { return };
        if let Some((at, reason)) = c.filed {
            self.deadlines.remove(&(at, reason, conn));
        }
        if let Some(count) = self.sources.get_mut(&source(c.remote)) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source(c.remote));
            }
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
        if c.room() > 0 && !c.scheduled && c.has_output() {
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
