//! The server: any number of streams, one map.

mod admin;
mod config;
mod keys;
mod map;
mod pending;
mod registry;
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
use self::registry::{Registration, Registry, Terms};
use self::unstored::Unstored;
use crate::channel::{Channel, Incoming};
use crate::http::Door;
use crate::proof::{Use, holds};
use crate::state::{Change, Settings, Standing, State, Write};
use crate::wire::{ToClient, ToServer, frame, parse};
use crate::{DEAD_AFTER, Error, HANDSHAKE_WITHIN, KEEP_ALIVE, NodeInfo, Refusal, RelayInfo, Update};

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

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Nobody knows yet.
    Unknown,
    /// A machine's that may register.
    Machine,
    /// A node's that waits for the map, or for an administrator.
    Arriving(u32),
    /// A node's that has the map.
    Member(u32),
    Admin,
    Relay,
}

impl Role {
    fn node(self) -> Option<u32> {
        match self {
            Role::Arriving(id) | Role::Member(id) => Some(id),
            _ => None,
        }
    }

    fn is_pending(self) -> bool {
        matches!(self, Role::Unknown | Role::Machine)
    }
}

struct Conn {
    channel: Channel,
    remote: SocketAddr,
    machine: [u8; 32],
    role: Role,
    /// The map that the client says it has.
    have: Option<crate::MapVersion>,
    /// Whether it was told to wait.
    told_to_wait: bool,
    /// How many reports are taken at once now, and since when that is so.
    allowance: (u32, Instant),
    /// A report that came too soon.
    held: Option<Update>,
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

    fn opened(&mut self, conn: ConnId, remote: [u8; 32], door: Door) -> Result<(), Error> {
        let count = |role| self.conns.values().filter(|stream| stream.role == role).count();
        let role = match door {
            Door::Machine => Role::Machine,
            Door::Admin if !self.config.admins.contains(&remote) => {
                return Err(Error::Stranger("administrator"));
            }
            Door::Relay if !self.relay_map().iter().any(|relay| relay.key == remote) => {
                return Err(Error::Stranger("relay of the network"));
            }
            Door::Admin if count(Role::Admin) >= self.config.limits.admins => {
                return Err(Error::TooManyPending);
            }
            Door::Relay if count(Role::Relay) >= self.config.limits.admins => {
                return Err(Error::TooManyPending);
            }
            Door::Admin => Role::Admin,
            Door::Relay => Role::Relay,
        };
        let admitted = (role == Role::Relay).then(|| self.admitted());
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.machine = remote;
            stream.role = role;
            if !role.is_pending() {
                self.pending.leave(stream.remote);
            }
        }
        if let Some(admitted) = admitted {
            self.push(conn, admitted);
        }
        Ok(())
    }

    fn message(&mut self, conn: ConnId, message: ToServer, now: Instant) -> Result<(), Error> {
        let Some(stream) = self.conns.get_mut(&conn) else { return Ok(()) };
        match (message, stream.role) {
            (
                ToServer::Register {
                    name,
                    node_key,
                    disco_key,
                    node_proof,
                    disco_proof,
                    auth_key,
                    have,
                    update,
                },
                Role::Machine,
            ) => {
                let (private, transcript) = (&self.config.private_key, stream.channel.transcript());
                if !holds(&node_key, private, Use::Node, transcript, &node_proof)
                    || !holds(&disco_key, private, Use::Disco, transcript, &disco_proof)
                {
                    return Err(refused(Refusal::KeyNotProven));
                }
                let (machine, unix) = (stream.machine, self.unix(now));
                if let Some(stream) = self.conns.get_mut(&conn) {
                    stream.have = have;
                }
                let terms = self.terms(&machine, &node_key, auth_key.as_deref(), unix).map_err(refused)?;
                self.register(Registration { machine, conn, name, node_key, disco_key, update, terms }, now)
            }
            (ToServer::Register { .. }, _) => Err(Error::Protocol("registered twice, or at another door")),
            (ToServer::Update(update), Role::Arriving(id) | Role::Member(id)) => {
                registry::check(&update).map_err(refused)?;
                let spent =
                    now.saturating_duration_since(stream.allowance.1).as_millis() / UPDATE_EVERY.as_millis();
                let earned = u32::try_from(spent).unwrap_or(u32::MAX);
                let (left, since) = &mut stream.allowance;
                if earned > 0 {
                    (*left, *since) = (left.saturating_add(earned).min(UPDATE_BURST), now);
                }
                if *left == 0 {
                    stream.held = Some(update);
                    let at = *since + UPDATE_EVERY;
                    self.check_by(conn, at);
                } else {
                    *left -= 1;
                    stream.held = None;
                    self.update(id, update, now);
                }
                Ok(())
            }
            (ToServer::Rotate { node_key, node_proof }, Role::Arriving(id) | Role::Member(id)) => {
                let (private, transcript) = (&self.config.private_key, stream.channel.transcript());
                if !holds(&node_key, private, Use::Node, transcript, &node_proof) {
                    return Err(refused(Refusal::KeyNotProven));
                }
                self.rotate(id, node_key, now).map_err(refused)
            }
            (ToServer::Update(_) | ToServer::Rotate { .. }, _) => {
                Err(Error::Protocol("an update before the registration"))
            }
            (ToServer::KeepAlive | ToServer::Unknown, _) => Ok(()),
        }
    }

    /// On which terms a machine registers.
    fn terms(
        &self,
        machine: &[u8; 32],
        node_key: &[u8; 32],
        auth_key: Option<&str>,
        unix: u64,
    ) -> Result<Terms, Refusal> {
        let known = self.registry.of_machine(machine);
        let approved = known.filter(|node| node.record.standing == Standing::Approved);
        let settled = approved.is_some_and(|node| !node.expired);
        let names_matter = self.config.admission == Admission::Approved;
        // What let a machine in may be used up when it comes again.
        let key = match auth_key.filter(|_| !settled) {
            Some(text) => {
                let key = self.keys.check(text, unix)?;
                Some((key.id, key.ephemeral, key.tags.clone()))
            }
            None => None,
        };
        let kept = approved
            .filter(|node| node.record.info.node_key == *node_key || (settled && !self.config.renewable));
        let key_expires = match kept {
            Some(node) => node.record.info.key_expires,
            None => self.key_end(unix),
        };
        Ok(Terms {
            admitted: settled || !names_matter || key.is_some(),
            key,
            key_expires,
            names_matter,
            unix,
        })
    }

    fn key_end(&self, unix: u64) -> Option<u64> {
        self.config.key_lifetime.map(|lifetime| unix.saturating_add(lifetime.as_secs()))
    }

    fn register(&mut self, registration: Registration, now: Instant) -> Result<(), Error> {
        self.registry.check(&registration).map_err(refused)?;
        let known = self.registry.of_machine(&registration.machine).map(|node| node.record.info.id);
        if known.is_none() {
            self.make_room(registration.terms.admitted, now).map_err(refused)?;
        }
        if let Some(id) = known {
            self.note(id);
        }
        let old_key = known.and_then(|id| self.registry.get(id)).map(|node| node.record.info.node_key);
        let (conn, name, key) =
            (registration.conn, registration.name.clone(), registration.terms.key.clone());
        let rotated = old_key.is_some_and(|old| old != registration.node_key);
        let registered = self.registry.register(registration);
        let id = registered.id;
        self.note_new(id);
        if let Some((key, ..)) = key {
            self.keys.used(key);
            self.unstored.key(key);
        }
        if known.is_none() {
            self.unstored.settings();
        }
        self.unstored.node(id, registered.hard || rotated);
        if let Some(old) = registered.replaced {
            self.last_words.push_back(ServerTransmit::Close { conn: old });
            self.forget(old, LeaveReason::Replaced, now);
        }
        self.file(id);
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.role = Role::Arriving(id);
            self.pending.leave(stream.remote);
        }
        self.changes.arrivals.insert(conn);
        self.schedule_flush(now);
        if let Some(node) = self.registry.get(id) {
            let NodeInfo { tunnel_ip, .. } = node.record.info;
            self.events.push_back(match node.record.standing {
                Standing::Approved => ServerEvent::Joined { conn, id, name, tunnel_ip },
                _ => ServerEvent::Waits { conn, id, name },
            });
        }
        Ok(())
    }

    /// Forgets somebody who may go, if there is no room for a new node.
    fn make_room(&mut self, admitted: bool, now: Instant) -> Result<(), Refusal> {
        let limits = self.config.limits;
        if !admitted && self.registry.waiting() >= limits.waiting {
            let oldest = self.registry.longest_offline(|record| record.standing == Standing::Waiting);
            self.remove(oldest.ok_or(Refusal::TooManyWaiting)?, now);
        } else if self.registry.is_full() {
            let anyone = self.config.admission == Admission::Anyone;
            let oldest = self.registry.longest_offline(|record| match record.standing {
                Standing::Revoked => false,
                Standing::Waiting => true,
                Standing::Approved => anyone || record.ephemeral,
            });
            self.remove(oldest.ok_or(Refusal::Full)?, now);
        }
        Ok(())
    }

    fn update(&mut self, id: u32, update: Update, now: Instant) {
        self.note(id);
        if self.registry.update(id, update) {
            self.unstored.node(id, false);
            self.schedule_flush(now);
        }
    }

    fn rotate(&mut self, id: u32, node_key: [u8; 32], now: Instant) -> Result<(), Refusal> {
        let Some(node) = self.registry.get(id) else { return Ok(()) };
        if node.record.info.node_key == node_key {
            return Ok(());
        }
        if self.registry.has_key(&node_key) {
            return Err(Refusal::NodeKeyTaken);
        }
        let expires = match self.config.renewable {
            true => self.key_end(self.unix(now)),
            false => node.record.info.key_expires,
        };
        self.note(id);
        self.registry.set_key(id, node_key, expires, false);
        self.unstored.node(id, true);
        self.file(id);
        self.schedule_flush(now);
        Ok(())
    }

    /// Forgets a node; its stream, if it has one, is closed.
    fn remove(&mut self, id: u32, now: Instant) {
        self.note(id);
        let Some(node) = self.registry.remove(id) else { return };
        self.unstored.node(id, true);
        if let Some(conn) = node.conn {
            self.fail(conn, refused(Refusal::Removed), now);
        }
        self.schedule_flush(now);
    }

    /// Files when a node will end, if it will.
    fn file(&mut self, id: u32) {
        let Some(node) = self.registry.get(id) else { return };
        let key = node.record.info.key_expires.and_then(|end| {
            let left = Duration::from_secs(end).saturating_sub(self.config.epoch);
            self.began.checked_add(left)
        });
        let key = key.filter(|_| !node.expired);
        let gone = node.offline_at.filter(|_| node.record.ephemeral).map(|at| at + EPHEMERAL_AFTER);
        self.ends.extend(key.into_iter().chain(gone).map(|at| (at, id)));
    }

    fn check_end(&mut self, id: u32, now: Instant) {
        let unix = self.unix(now);
        let Some(node) = self.registry.get(id) else { return };
        if node.record.ephemeral && node.offline_at.is_some_and(|at| at + EPHEMERAL_AFTER <= now) {
            return self.remove(id, now);
        }
        let ends = node.record.info.key_expires;
        if !node.expired && ends.is_some_and(|end| end <= unix) {
            self.expire(id, now);
        }
    }

    fn expire(&mut self, id: u32, now: Instant) {
        self.note(id);
        if let Some(node) = self.registry.edit(id) {
            node.expired = true;
            if let Some(conn) = node.conn {
                self.fail(conn, refused(Refusal::KeyExpired), now);
            }
        }
        self.schedule_flush(now);
    }

    fn check(&mut self, conn: ConnId, now: Instant) {
        let Some(stream) = self.conns.get_mut(&conn) else { return };
        let late = if stream.role.is_pending() && now >= stream.since + HANDSHAKE_WITHIN {
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
            // A client with a backlog has enough to read, and an administrator's stream has answers only.
            if stream.channel.backlog() == 0 && stream.role != Role::Admin {
                stream.channel.push(frame(&ToClient::KeepAlive));
            }
        }
        stream.check_at = stream.keep_alive_at.min(stream.heard + DEAD_AFTER);
        if stream.role.is_pending() {
            stream.check_at = stream.check_at.min(stream.since + HANDSHAKE_WITHIN);
        }
        let held_until = stream.allowance.1 + UPDATE_EVERY;
        if stream.held.is_some() && now < held_until {
            stream.check_at = stream.check_at.min(held_until);
        }
        self.checks.insert((stream.check_at, conn));
        if now >= held_until
            && let (Some(update), Some(id)) = (stream.held.take(), stream.role.node())
        {
            stream.allowance = (0, now);
            self.update(id, update, now);
        }
        self.wake(conn);
    }

    /// Looks at a stream no later than that.
    fn check_by(&mut self, conn: ConnId, at: Instant) {
        if let Some(stream) = self.conns.get_mut(&conn)
            && at < stream.check_at
        {
            self.checks.remove(&(stream.check_at, conn));
            stream.check_at = at;
            self.checks.insert((at, conn));
        }
    }

    fn push(&mut self, conn: ConnId, message: Bytes) {
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.channel.push(message);
            self.wake(conn);
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
        if let Some(stream) = self.conns.get_mut(&conn)
            && let Error::Refused { code, reason } = &error
        {
            stream.channel.push(frame(&ToClient::Refused { code: *code, reason: reason.clone() }));
        }
        self.end(conn, LeaveReason::Failed(error), now);
    }

    /// Closes a stream after what there is credit for.
    fn end(&mut self, conn: ConnId, why: LeaveReason, now: Instant) {
        if let Some(stream) = self.conns.get_mut(&conn) {
            while let Some(data) = stream.channel.pull(stream.credit) {
                stream.credit -= data.len();
                self.last_words.push_back(ServerTransmit::Write { conn, data });
            }
            self.last_words.push_back(ServerTransmit::Close { conn });
            self.forget(conn, why, now);
        }
    }

    fn forget(&mut self, conn: ConnId, why: LeaveReason, now: Instant) {
        let Some(stream) = self.conns.remove(&conn) else { return };
        self.checks.remove(&(stream.check_at, conn));
        self.changes.arrivals.remove(&conn);
        if stream.role.is_pending() {
            self.pending.leave(stream.remote);
        }
        if let Some(id) = stream.role.node() {
            self.note(id);
            if self.registry.leave(id, conn, now) {
                self.file(id);
                self.schedule_flush(now);
            }
            self.events.push_back(ServerEvent::Left { conn, id, why });
        } else if let LeaveReason::Failed(error) = why {
            self.events.push_back(ServerEvent::Rejected { conn, remote: stream.remote, error });
        }
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
