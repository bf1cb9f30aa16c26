//! The server: any number of streams, one map.

mod admin;
mod config;
mod keys;
mod map;
mod members;
mod pending;
mod registry;
mod streams;
mod unstored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng as _;
use rand_chacha::ChaCha12Rng;

pub use self::admin::{AdminError, KeyView, NodeView, ROUTES, Status};
pub use self::config::{Admission, Limits, ServerConfig};
use self::keys::Keys;
pub use self::keys::{NewKey, record as key_record, text_of as key_text};
use self::map::Changes;
use self::pending::Pending;
use self::registry::Registry;
use self::streams::{Conn, Role};
use self::unstored::Unstored;
use crate::channel::{Channel, Incoming};
use crate::state::{Change, Settings, State, Write};
use crate::wire::parse;
use crate::{Error, HANDSHAKE_WITHIN, KEEP_ALIVE, NodeInfo, Refusal, RelayInfo};

/// An ephemeral node goes when it has been offline for so long: headscale's `ephemeral_node_inactivity_timeout`.
pub const EPHEMERAL_AFTER: Duration = Duration::from_secs(30 * 60);
/// A client's reports are taken at once as long as they come no more often than this on average; of those that come faster,
/// the last is taken when it is time.
const UPDATE_EVERY: Duration = Duration::from_millis(500);
/// So many may come at once: a peer that starts or roams learns its addresses one by one.
const UPDATE_BURST: u32 = 30;

/// A stream, as the caller numbers it. Numbers are not used again while the server may still speak of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

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
    /// A machine registered that nobody has let in: it waits for an administrator.
    Waits {
        /// Its stream.
        conn: ConnId,
        /// Its number.
        id: u32,
        /// What it calls itself.
        name: String,
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

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeaveReason::Closed => f.write_str("closed by the other side"),
            LeaveReason::Replaced => f.write_str("back on another connection"),
            LeaveReason::Failed(error) => error.fmt(f),
        }
    }
}

/// The server core.
pub struct Server {
    config: ServerConfig,
    rng: ChaCha12Rng,
    /// When the time was `config.epoch`.
    began: Instant,
    registry: Registry,
    keys: Keys,
    /// What an administrator has set.
    relays: Option<Vec<RelayInfo>>,
    access: Option<crate::Access>,
    unstored: Unstored,
    /// Which run of the server this is.
    run: u64,
    changes: Changes,
    conns: BTreeMap<ConnId, Conn>,
    /// Streams that have not registered.
    pending: Pending,
    /// One entry per stream, possibly early: what is due is looked up when it fires.
    checks: BTreeSet<(Instant, ConnId)>,
    /// The same for nodes that will end.
    ends: BTreeSet<(Instant, u32)>,
    /// Streams with both something to write and credit, in turn.
    ready: VecDeque<ConnId>,
    last_words: VecDeque<ServerTransmit>,
    events: VecDeque<ServerEvent>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("generation", &self.changes.generation)
            .field("streams", &self.conns.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server without nodes and without a store: what it knows ends with it. `rng` makes the handshakes' ephemeral keys.
    pub fn new(config: ServerConfig, rng: ChaCha12Rng, now: Instant) -> Server {
        let mut server = Server::load(config, State::default(), rng, now);
        server.unstored.ignore();
        server
    }

    /// A server that starts with what was stored, and stores what it must not forget: see [`Server::poll_store`].
    ///
    /// Of records that contradict each other, which no server writes, the first counts.
    pub fn load(config: ServerConfig, state: State, mut rng: ChaCha12Rng, now: Instant) -> Server {
        let run = rng.next_u64();
        let State { nodes, keys, settings } = state;
        let Settings { last_node, last_key, relays, access } = settings;
        let mut registry = Registry::new(config.limits.nodes, prefix6(&config.private_key));
        for record in nodes.into_values() {
            registry.load(record, now);
        }
        registry.set_last_id(last_node);
        let mut server = Server {
            config,
            rng,
            began: now,
            registry,
            keys: Keys::load(keys, last_key),
            relays,
            access,
            unstored: Unstored::default(),
            run,
            changes: Changes::default(),
            conns: BTreeMap::new(),
            pending: Pending::default(),
            checks: BTreeSet::new(),
            ends: BTreeSet::new(),
            ready: VecDeque::new(),
            last_words: VecDeque::new(),
            events: VecDeque::new(),
        };
        let unix = server.unix(now);
        for node in server.registry.iter_mut() {
            node.expired = node.record.info.key_expires.is_some_and(|end| end <= unix);
        }
        server.registry.ids().into_iter().for_each(|id| server.file(id));
        server
    }

    /// The key that clients must know.
    pub fn public_key(&self) -> [u8; 32] {
        crate::public_key(&self.config.private_key)
    }

    /// The map's version: how many deltas were sent.
    pub fn generation(&self) -> u64 {
        self.changes.generation
    }

    /// The nodes that others are told of, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.registry.iter().filter_map(|node| node.told())
    }

    /// Sets the clock: keys end by it. To be called when the system's has jumped.
    pub fn set_clock(&mut self, unix: Duration, now: Instant) {
        (self.config.epoch, self.began) = (unix, now);
        self.registry.ids().into_iter().for_each(|id| self.file(id));
    }

    /// A stream came in. It has no credit yet.
    pub fn accepted(&mut self, conn: ConnId, remote: SocketAddr, now: Instant) {
        self.closed(conn, now);
        if !self.pending.enter(remote, &self.config.limits) {
            self.last_words.push_back(ServerTransmit::Close { conn });
            self.events.push_back(ServerEvent::Rejected { conn, remote, error: Error::TooManyPending });
            return;
        }
        let check_at = now + HANDSHAKE_WITHIN;
        self.checks.insert((check_at, conn));
        self.conns.insert(
            conn,
            Conn {
                channel: Channel::responder(&self.config.private_key, &mut self.rng),
                remote,
                machine: [0; 32],
                role: Role::Unknown,
                have: None,
                told_to_wait: false,
                allowance: (UPDATE_BURST, now),
                held: None,
                credit: 0,
                queued: false,
                since: now,
                heard: now,
                keep_alive_at: now + KEEP_ALIVE,
                check_at,
            },
        );
    }

    /// Bytes that wait for the stream for which most do.
    pub fn most_queued(&self) -> usize {
        self.conns.values().map(|conn| conn.channel.backlog()).max().unwrap_or(0)
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
                Ok(Some(Incoming::Opened { remote, door })) => self.opened(conn, remote, door),
                Ok(Some(Incoming::Served)) => {
                    self.end(conn, LeaveReason::Closed, now);
                    break;
                }
                Ok(Some(Incoming::Message(message))) if stream.role == Role::Admin => {
                    self.administer(conn, &message, now);
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

    /// Sends keep-alives and batched deltas, closes streams that are late or dead, and ends what has an end.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, conn)) = self.checks.first().copied().filter(|(at, _)| *at <= now) {
            self.checks.remove(&(at, conn));
            self.check(conn, now);
        }
        while let Some((at, id)) = self.ends.first().copied().filter(|(at, _)| *at <= now) {
            self.ends.remove(&(at, id));
            self.check_end(id, now);
        }
        self.flush_if_due(now);
    }

    /// The next deadline and what it is for. It may turn out that nothing was due.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let flush = self.changes.flush_at.map(|at| (at, "coord delta"));
        let check = self.checks.first().map(|(at, _)| (*at, "coord stream check"));
        let end = self.ends.first().map(|(at, _)| (*at, "coord node end"));
        flush.into_iter().chain(check).chain(end).min()
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

    /// What is to be stored next, all of it or nothing; then [`Server::stored`] is to be called with its number. There is no
    /// other until then. Nobody is told of what is not stored yet, other than what a machine reports of itself.
    pub fn poll_store(&mut self) -> Option<Write> {
        let (id, changes) = self.unstored.begin()?;
        let node = |id: &u32| match self.registry.get(*id) {
            Some(node) => Change::Node(Box::new(node.record.clone())),
            None => Change::NodeGone(*id),
        };
        let key = |id: &u32| match self.keys.get(*id) {
            Some(key) => Change::Key(key.clone()),
            None => Change::KeyGone(*id),
        };
        let nodes = changes.hard.union(&changes.soft).map(node);
        let settings = changes.settings.then(|| {
            let (relays, access) = (self.relays.clone(), self.access.clone());
            let (last_node, last_key) = (self.registry.last_id(), self.keys.last_id);
            Change::Settings(Settings { last_node, last_key, relays, access })
        });
        let changes = nodes.chain(changes.keys.iter().map(key)).chain(settings).collect();
        Some(Write { id, changes })
    }

    /// The write of this number is stored and will survive whatever happens.
    pub fn stored(&mut self, id: u64, now: Instant) {
        for (conn, answer) in self.unstored.done(id).into_iter().flatten() {
            self.push(conn, answer);
        }
        if self.changes.is_waiting() {
            self.schedule_flush(now);
        }
        self.flush_if_due(now);
    }

    /// Unix time in seconds.
    fn unix(&self, now: Instant) -> u64 {
        (self.config.epoch + now.saturating_duration_since(self.began)).as_secs()
    }
}

fn refused(code: Refusal) -> Error {
    Error::Refused { code, reason: code.to_string() }
}

/// The network's unique local prefix (RFC 4193 §3.1): `fd`, 40 bits that no other network has, and subnet 0. They come from the
/// server's public key instead of a random number (§3.2.2), so that they are the same on every start.
fn prefix6(private_key: &[u8; 32]) -> [u8; 8] {
    use blake2::Digest as _;
    let digest = blake2::Blake2s256::digest(crate::public_key(private_key));
    let mut prefix = [0; 8];
    prefix[0] = 0xfd;
    prefix[1..6].copy_from_slice(&digest[..5]);
    prefix
}
