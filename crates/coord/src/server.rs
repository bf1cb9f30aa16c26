//! The server: any number of streams, one map.

mod registry;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use serde::Serialize;
use serde_json::value::RawValue;

use self::registry::{Registration, Registry};
use crate::channel::{Channel, Incoming};
use crate::wire::{ToClient, ToServer, frame, parse};
use crate::{DEAD_AFTER, Error, HANDSHAKE_WITHIN, KEEP_ALIVE, NodeInfo, RelayInfo};

/// A stream, as the caller numbers it. Numbers are not used again while the server may still speak of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// The server's key, the relays it tells of, and its bounds.
#[derive(Clone)]
pub struct ServerConfig {
    /// The server's private key (Curve25519).
    pub private_key: [u8; 32],
    /// The relays of the network.
    pub relays: Vec<RelayInfo>,
    /// Bounds.
    pub limits: Limits,
}

/// What the server lets others cost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes to remember. Beyond it the one that is offline longest is forgotten; if none is offline, new ones are refused.
    pub nodes: usize,
    /// Streams that have not registered yet. Further ones are closed at once.
    pub pending: usize,
    /// Bytes that may wait for a client before another message is queued; a client that reads less is closed.
    pub backlog: usize,
    /// At most one delta in this time: the first change goes out at once, those that follow it closely go out together.
    pub batch: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { nodes: 10_000, pending: 1_000, backlog: 4 * 1024 * 1024, batch: Duration::from_millis(10) }
    }
}

impl ServerConfig {
    /// With default limits.
    pub fn new(private_key: [u8; 32], relays: Vec<RelayInfo>) -> ServerConfig {
        ServerConfig { private_key, relays, limits: Limits::default() }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("relays", &self.relays)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What the caller is to do with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTransmit {
    /// Write these bytes, never more than the stream's credit.
    Write {
        /// The stream.
        conn: ConnId,
        /// The bytes.
        data: Bytes,
    },
    /// Close it, after what was written. The server has forgotten it; [`Server::closed`] need not be called.
    Close {
        /// The stream.
        conn: ConnId,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A node registered.
    Joined {
        /// Its stream.
        conn: ConnId,
        /// Its number.
        id: u32,
        /// Its name.
        name: String,
        /// Its address inside the network.
        tunnel_ip: IpAddr,
    },
    /// A node's stream ended.
    Left {
        /// The stream.
        conn: ConnId,
        /// The node's number.
        id: u32,
        /// Why.
        why: LeaveReason,
    },
    /// A stream was given up before it registered.
    Rejected {
        /// The stream.
        conn: ConnId,
        /// Where it came from.
        remote: SocketAddr,
        /// Why.
        error: Error,
    },
}

/// Why a node's stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// The caller said so.
    Closed,
    /// The node came back on another stream.
    Replaced,
    /// The server gave it up.
    Failed(Error),
}

/// The server core.
pub struct Server {
    config: ServerConfig,
    rng: ChaCha12Rng,
    registry: Registry,
    generation: u64,
    conns: BTreeMap<ConnId, Conn>,
    /// Streams that have not registered.
    pending: usize,
    /// One entry per stream, possibly early: what is due is looked up when it fires.
    checks: BTreeSet<(Instant, ConnId)>,
    changed: BTreeSet<u32>,
    removed: BTreeSet<u32>,
    flush_at: Option<Instant>,
    flushed: Option<Instant>,
    /// Streams with both something to write and credit, in turn.
    ready: VecDeque<ConnId>,
    last_words: VecDeque<ServerTransmit>,
    events: VecDeque<ServerEvent>,
}

struct Conn {
    channel: Channel,
    remote: SocketAddr,
    machine: [u8; 32],
    node: Option<u32>,
    credit: usize,
    queued: bool,
    since: Instant,
    heard: Instant,
    keep_alive_at: Instant,
    check_at: Instant,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("generation", &self.generation)
            .field("streams", &self.conns.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server without nodes. `rng` makes the handshakes' ephemeral keys.
    pub fn new(config: ServerConfig, rng: ChaCha12Rng, _now: Instant) -> Server {
        Server {
            registry: Registry::new(config.limits.nodes),
            config,
            rng,
            generation: 0,
            conns: BTreeMap::new(),
            pending: 0,
            checks: BTreeSet::new(),
            changed: BTreeSet::new(),
            removed: BTreeSet::new(),
            flush_at: None,
            flushed: None,
            ready: VecDeque::new(),
            last_words: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The key that clients must know.
    pub fn public_key(&self) -> [u8; 32] {
        crate::public_key(&self.config.private_key)
    }

    /// The map's version: how many deltas were sent.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All nodes, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.registry.iter().map(|node| &node.info)
    }

    /// A stream came in. It has no credit yet.
    pub fn accepted(&mut self, conn: ConnId, remote: SocketAddr, now: Instant) {
        self.closed(conn, now);
        if self.pending >= self.config.limits.pending {
            self.last_words.push_back(ServerTransmit::Close { conn });
            self.events.push_back(ServerEvent::Rejected { conn, remote, error: Error::TooManyPending });
            return;
        }
        let check_at = now + HANDSHAKE_WITHIN;
        self.pending += 1;
        self.checks.insert((check_at, conn));
        self.conns.insert(
            conn,
            Conn {
                channel: Channel::responder(&self.config.private_key, &mut self.rng),
                remote,
                machine: [0; 32],
                node: None,
                credit: 0,
                queued: false,
                since: now,
                heard: now,
                keep_alive_at: now + KEEP_ALIVE,
                check_at,
            },
        );
    }

    /// Takes bytes from a stream. Bad input closes that stream. Unknown streams are ignored.
    pub fn handle_stream(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.channel.feed(bytes);
        }
        while let Some(stream) = self.conns.get_mut(&conn) {
            let before = stream.channel.records();
            let next = stream.channel.next();
            if stream.channel.records() > before {
                stream.heard = now;
            }
            let result = match next {
                Ok(None) => break,
                Ok(Some(Incoming::Opened { remote })) => {
                    stream.machine = remote;
                    Ok(())
                }
                Ok(Some(Incoming::Message(json))) => {
                    parse(&json).and_then(|message| self.message(conn, message, now))
                }
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                self.fail(conn, error, now);
            }
        }
        self.wake(conn);
        self.flush_if_due(now);
    }

    /// A stream has ended: its node is offline.
    pub fn closed(&mut self, conn: ConnId, now: Instant) {
        self.forget(conn, LeaveReason::Closed, now);
        self.flush_if_due(now);
    }

    /// A stream takes `space` bytes at this moment. What is then handed out is counted against it.
    pub fn writable(&mut self, conn: ConnId, space: usize, _now: Instant) {
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.credit = space;
            self.wake(conn);
        }
    }

    /// Sends keep-alives and batched deltas, and closes streams that are late or dead.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, conn)) = self.checks.first().copied().filter(|(at, _)| *at <= now) {
            self.checks.remove(&(at, conn));
            self.check(conn, now);
        }
        self.flush_if_due(now);
    }

    /// The next deadline and what it is for. It may turn out that nothing was due.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let flush = self.flush_at.map(|at| (at, "coord delta"));
        let check = self.checks.first().map(|(at, _)| (*at, "coord stream check"));
        flush.into_iter().chain(check).min()
    }

    /// The next write or close.
    pub fn poll_transmit(&mut self) -> Option<ServerTransmit> {
        if let Some(last) = self.last_words.pop_front() {
            return Some(last);
        }
        while let Some(conn) = self.ready.pop_front() {
            let Some(stream) = self.conns.get_mut(&conn) else { continue };
            stream.queued = false;
            if let Some(data) = stream.channel.pull(stream.credit) {
                stream.credit -= data.len();
                self.wake(conn);
                return Some(ServerTransmit::Write { conn, data });
            }
        }
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    fn message(&mut self, conn: ConnId, message: ToServer, now: Instant) -> Result<(), Error> {
        let Some(stream) = self.conns.get(&conn) else { return Ok(()) };
        match (message, stream.node) {
            (ToServer::Register { name, node_key, disco_key, update }, None) => {
                let machine = stream.machine;
                self.register(Registration { machine, conn, name, node_key, disco_key, update }, now)
            }
            (ToServer::Register { .. }, Some(_)) => Err(Error::Protocol("registered twice")),
            (ToServer::Update(update), Some(id)) => {
                if self.registry.update(id, update).map_err(refused)? {
                    self.touch(id, now);
                }
                Ok(())
            }
            (ToServer::Update(_), None) => Err(Error::Protocol("an update before the registration")),
            (ToServer::KeepAlive | ToServer::Unknown, _) => Ok(()),
        }
    }

    fn register(&mut self, registration: Registration, now: Instant) -> Result<(), Error> {
        let (conn, name) = (registration.conn, registration.name.clone());
        let registered = self.registry.register(registration).map_err(refused)?;
        let id = registered.id;
        if let Some(old) = registered.replaced {
            self.last_words.push_back(ServerTransmit::Close { conn: old });
            self.forget(old, LeaveReason::Replaced, now);
        }
        if let Some(gone) = registered.evicted {
            self.changed.remove(&gone);
            self.removed.insert(gone);
        }
        self.touch(id, now);
        self.pending -= 1;
        let full = self.full_map(id);
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.node = Some(id);
            stream.channel.push(full);
        }
        if let Some(node) = self.registry.get(id) {
            self.events.push_back(ServerEvent::Joined { conn, id, name, tunnel_ip: node.info.tunnel_ip });
        }
        Ok(())
    }

    fn full_map(&mut self, id: u32) -> Bytes {
        #[derive(Serialize)]
        struct Full<'a> {
            r#type: &'static str,
            generation: u64,
            you: &'a RawValue,
            peers: Vec<&'a RawValue>,
            relays: &'a [RelayInfo],
        }
        let (mine, others): (Vec<_>, Vec<_>) = self.registry.json().partition(|(node, _)| *node == id);
        let you = mine.first().expect("a node that has just registered is in the registry").1;
        let peers = others.into_iter().map(|(_, json)| json).collect();
        frame(&Full { r#type: "full", generation: self.generation, you, peers, relays: &self.config.relays })
    }

    fn check(&mut self, conn: ConnId, now: Instant) {
        let Some(stream) = self.conns.get_mut(&conn) else { return };
        let late = if stream.node.is_none() && now >= stream.since + HANDSHAKE_WITHIN {
            Some("registration")
        } else if now >= stream.heard + DEAD_AFTER {
            Some("nothing heard from the client")
        } else {
            None
        };
        if let Some(what) = late {
            return self.fail(conn, Error::TimedOut(what), now);
        }
        if now >= stream.keep_alive_at {
            stream.keep_alive_at = now + KEEP_ALIVE;
            // A client with a backlog has enough to read.
            if stream.channel.backlog() == 0 {
                stream.channel.push(frame(&ToClient::KeepAlive));
            }
        }
        stream.check_at = stream.keep_alive_at.min(stream.heard + DEAD_AFTER);
        self.checks.insert((stream.check_at, conn));
        self.wake(conn);
    }

    /// Notes a change of node `id` for the next delta.
    fn touch(&mut self, id: u32, now: Instant) {
        self.removed.remove(&id);
        self.changed.insert(id);
        let earliest = self.flushed.map_or(now, |flushed| now.max(flushed + self.config.limits.batch));
        self.flush_at.get_or_insert(earliest);
    }

    fn flush_if_due(&mut self, now: Instant) {
        #[derive(Serialize)]
        struct Delta<'a> {
            r#type: &'static str,
            generation: u64,
            upsert: Vec<&'a RawValue>,
            remove: &'a BTreeSet<u32>,
        }
        if self.flush_at.is_none_or(|at| now < at) {
            return;
        }
        self.flush_at = None;
        self.flushed = Some(now);
        self.generation += 1;
        let (changed, removed) = (std::mem::take(&mut self.changed), std::mem::take(&mut self.removed));
        let upsert = self.registry.json_of(&changed);
        let delta = frame(&Delta { r#type: "delta", generation: self.generation, upsert, remove: &removed });
        let members: Vec<ConnId> =
            self.conns.iter().filter(|(_, stream)| stream.node.is_some()).map(|(conn, _)| *conn).collect();
        for conn in members {
            let Some(stream) = self.conns.get_mut(&conn) else { continue };
            let backlog = stream.channel.backlog();
            if backlog > self.config.limits.backlog {
                self.fail(conn, Error::Backlog(backlog), now);
            } else {
                stream.channel.push(delta.clone());
                self.wake(conn);
            }
        }
    }

    fn wake(&mut self, conn: ConnId) {
        if let Some(stream) = self.conns.get_mut(&conn)
            && stream.credit > 0
            && !stream.queued
            && stream.channel.has_output()
        {
            stream.queued = true;
            self.ready.push_back(conn);
        }
    }

    /// Closes a stream for a reason, which the client is told if there is credit to say it.
    fn fail(&mut self, conn: ConnId, error: Error, now: Instant) {
        if let Some(stream) = self.conns.get_mut(&conn) {
            if let Error::Refused { code, reason } = &error {
                stream.channel.push(frame(&ToClient::Refused { code: *code, reason: reason.clone() }));
            }
            while let Some(data) = stream.channel.pull(stream.credit) {
                stream.credit -= data.len();
                self.last_words.push_back(ServerTransmit::Write { conn, data });
            }
            self.last_words.push_back(ServerTransmit::Close { conn });
            self.forget(conn, LeaveReason::Failed(error), now);
        }
    }

    fn forget(&mut self, conn: ConnId, why: LeaveReason, now: Instant) {
        let Some(stream) = self.conns.remove(&conn) else { return };
        self.checks.remove(&(stream.check_at, conn));
        match (stream.node, why) {
            (Some(id), why) => {
                if self.registry.leave(id, conn) {
                    self.touch(id, now);
                }
                self.events.push_back(ServerEvent::Left { conn, id, why });
            }
            (None, why) => {
                self.pending -= 1;
                if let LeaveReason::Failed(error) = why {
                    self.events.push_back(ServerEvent::Rejected { conn, remote: stream.remote, error });
                }
            }
        }
    }
}

fn refused(code: crate::Refusal) -> Error {
    Error::Refused { code, reason: code.to_string() }
}
