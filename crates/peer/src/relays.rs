//! Connections to relays: one to the home relay always, others while they are needed.

mod node;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coord::RelayInfo;
use derp::{Class, Client, ClientConfig, ClientEvent, PrivateKey, PublicKey};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::config::{Proxy, ServerTls};
use crate::dial::{Dial, Env, Security, Server};
use crate::io::ConnId;
use node::{Health, Old, Turn};

/// What the relays brought.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A packet for us.
    Packet { region: u16, src: [u8; 32], data: Bytes },
    /// The relay is usable. `again`: it had been before, and what waited for it then is lost.
    Up { again: bool },
    /// The relay is no longer usable.
    Down,
    /// The relay does not know the peer with this key.
    Gone { region: u16, key: [u8; 32] },
    /// The home relay cannot be reached, or will end.
    HomeFailed,
    /// A relay is ill, or well again.
    Health,
    /// The round trip to a relay is known that was not before.
    Measured,
}

struct Relay {
    /// The relays of the region, in the map's order: any of them will do, as they pass on to each other.
    nodes: Vec<RelayInfo>,
    /// The one in use.
    node: usize,
    /// How many of the others were tried since one last worked.
    tried: usize,
    name: Arc<str>,
    /// Place in the map.
    order: usize,
    dial: Dial,
    client: Client,
    /// Whether the client was told of a stream that it was not told the end of.
    streaming: bool,
    was_up: bool,
    used: Instant,
    idle_check: Instant,
    heard: Instant,
    pinged: Option<Instant>,
    tcp_rtt: Option<Duration>,
    /// It restarts; when to connect to it anew.
    restart_at: Option<Instant>,
    avoid_until: Option<Instant>,
    health: Health,
    /// What its word asks for, and when that is done: not by all of its clients at once.
    turn: Option<(Instant, Turn)>,
    /// The region's relay before this one, which serves on for a moment.
    old: Option<Old>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("name", &self.name).field("dial", &self.dial).finish_non_exhaustive()
    }
}

/// All relays of the map.
#[derive(Debug)]
pub(crate) struct Relays {
    key: [u8; 32],
    proxy: Option<Arc<Proxy>>,
    authorities: Option<tls::ClientConfig>,
    clock: tls::Clock,
    relays: BTreeMap<u16, Relay>,
    home: Option<u16>,
    /// What others are told of that: see [`advertised`](Self::advertised).
    advertised: Option<u16>,
    /// Round trips are measured by connecting, as STUN gets no answer.
    by_tcp: bool,
    /// The relay to which a connection is kept beside that to the home relay.
    standby: Option<u16>,
    incoming: VecDeque<Incoming>,
}

impl Relays {
    /// `key`: the node's private key.
    pub(crate) fn new(
        key: [u8; 32],
        proxy: Option<Arc<Proxy>>,
        authorities: Option<tls::ClientConfig>,
        clock: tls::Clock,
    ) -> Relays {
        let (relays, incoming) = (BTreeMap::new(), VecDeque::new());
        let (home, advertised, by_tcp, standby) = (None, None, false, None);
        Relays { key, proxy, authorities, clock, relays, home, advertised, by_tcp, standby, incoming }
    }

    /// The same, under another private key, with no relays yet.
    pub(crate) fn with_key(&self, key: [u8; 32]) -> Relays {
        Relays::new(key, self.proxy.clone(), self.authorities.clone(), self.clock)
    }

    /// Has its home at this relay from now on.
    pub(crate) fn begin_at(&mut self, region: u16, env: &mut Env<'_>) {
        if self.home == Some(region) {
            return;
        }
        if let Some(relay) = self.relays.get_mut(&region) {
            self.home = Some(region);
            relay.client.set_preferred(true);
            relay.dial.start(env);
        }
    }

    /// Closes all connections for good.
    pub(crate) fn stop(&mut self, reason: &str, env: &mut Env<'_>) {
        for relay in self.relays.values_mut() {
            relay.stop(reason, env);
        }
    }

    /// Whether a connection is one of these.
    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.relays.values().any(|relay| relay.dial.conn() == Some(conn))
    }

    /// Name of a relay, and the address where it is connected to or was last.
    pub(crate) fn address(&self, region: u16) -> Option<(Arc<str>, SocketAddr)> {
        let relay = self.relays.get(&region)?;
        Some((relay.name.clone(), relay.dial.address()?))
    }

    pub(crate) fn home(&self) -> Option<u16> {
        self.home
    }

    /// The relay at which others reach us: home. Before that is connected to it is the one before it, if that still is: what is
    /// sent to a relay where we are not yet would be lost.
    pub(crate) fn advertised(&self) -> Option<u16> {
        self.advertised
    }

    /// Brings that up to date; `true` if others must be told.
    pub(crate) fn advertise(&mut self) -> bool {
        let is_up = |region: &u16| self.is_up(*region);
        let waits = self.home.is_some_and(|home| !is_up(&home));
        let next = self.advertised.filter(|before| waits && is_up(before)).or(self.home);
        std::mem::replace(&mut self.advertised, next) != next
    }

    pub(crate) fn is_up(&self, region: u16) -> bool {
        self.relays.get(&region).is_some_and(Relay::is_usable)
    }

    pub(crate) fn knows(&self, region: u16) -> bool {
        self.relays.contains_key(&region)
    }

    pub(crate) fn name(&self, region: u16) -> Option<&Arc<str>> {
        self.relays.get(&region).map(|relay| &relay.name)
    }

    pub(crate) fn poll_incoming(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    /// The relays of a new map. Connections to those that did not change stay.
    pub(crate) fn set_map(&mut self, infos: &[RelayInfo], env: &mut Env<'_>) {
        let mut old = std::mem::take(&mut self.relays);
        let mut regions: BTreeMap<u16, (usize, Vec<RelayInfo>)> = BTreeMap::new();
        for (order, info) in infos.iter().enumerate().filter(|(_, info)| !info.derp_ports.is_empty()) {
            regions.entry(info.region).or_insert((order, Vec::new())).1.push(info.clone());
        }
        for (region, (order, nodes)) in regions {
            let same = |relay: &Relay| {
                let where_to = |info: &RelayInfo| {
                    (info.addr, info.addr6, info.key, info.derp_ports.clone(), info.tls.clone())
                };
                relay.nodes.iter().map(where_to).eq(nodes.iter().map(where_to))
            };
            let relay = match old.remove(&region) {
                Some(relay) if same(&relay) => Relay { order, ..relay },
                stale => {
                    if let Some(mut relay) = stale {
                        relay.stop("the relay changed", env);
                        self.incoming.push_back(Incoming::Down);
                    }
                    self.relay(nodes, order, env)
                }
            };
            self.relays.insert(region, relay);
        }
        for relay in old.values_mut() {
            relay.stop("no longer in the map", env);
            self.incoming.push_back(Incoming::Down);
        }
        if let Some(home) = self.home {
            match self.relays.get_mut(&home) {
                Some(relay) => {
                    relay.client.set_preferred(true);
                    relay.dial.start(env);
                }
                None => self.home = None,
            }
        }
    }

    fn security(&self, info: &RelayInfo) -> Option<Security> {
        let tls = info.tls.as_ref()?;
        let trust = match tls.pin {
            Some(pin) => tls::ClientConfig::pinned(tls::Pin(pin)),
            None => self.authorities.clone()?,
        };
        let name = if tls.name.is_empty() { info.addr.to_string() } else { tls.name.clone() };
        Some(Security { tls: ServerTls { ports: tls.ports.clone(), name, trust }, clock: self.clock })
    }

    /// How to connect to one relay of a region; the first is where its clients would be.
    fn endpoint(&self, nodes: &[RelayInfo], node: usize, env: &mut Env<'_>) -> (Arc<str>, Dial, Client) {
        let (info, ideal) = (&nodes[node], nodes.first().map(|first| first.name.as_str()));
        let name: Arc<str> = match info.name.as_str() {
            "" => format!("region-{}", info.region).into(),
            name => name.into(),
        };
        let ips = || info.addr6.map(IpAddr::V6).into_iter().chain([info.addr]);
        let security = self.security(info);
        // Nobody can say who answers on a port whose server is neither pinned nor vouched for.
        let unknown = info.tls.as_ref().filter(|_| security.is_none());
        let ports = info.derp_ports.iter().filter(|port| unknown.is_none_or(|tls| !tls.ports.contains(port)));
        let addresses = ports.flat_map(|&port| ips().map(move |ip| SocketAddr::new(ip, port))).collect();
        let server_key = (info.key != [0; 32]).then_some(PublicKey(info.key));
        let mut config = ClientConfig::new(PrivateKey::from_bytes(self.key), info.addr.to_string());
        config.server_key = server_key;
        config.home = self.home == Some(info.region);
        config.ideal_node = ideal.filter(|ideal| **ideal != info.name).map(str::to_owned);
        let mut seed = [0; 32];
        env.rng.fill_bytes(&mut seed);
        let dial = Dial::new(Server::Relay(name.clone()), addresses, self.proxy.clone(), security);
        (name, dial, Client::new(config, ChaCha12Rng::from_seed(seed), env.now))
    }

    /// A region, which is not empty.
    fn relay(&self, nodes: Vec<RelayInfo>, order: usize, env: &mut Env<'_>) -> Relay {
        let (name, dial, client) = self.endpoint(&nodes, 0, env);
        Relay {
            nodes,
            node: 0,
            tried: 0,
            name,
            order,
            dial,
            client,
            streaming: false,
            was_up: false,
            used: env.now,
            idle_check: env.now,
            heard: env.now,
            pinged: None,
            tcp_rtt: None,
            restart_at: None,
            avoid_until: None,
            health: Health::default(),
            turn: None,
            old: None,
        }
    }

    /// Chooses the home relay by round trip: `rtt` of STUN, else that of opening a TCP connection, else the map's order. One
    /// that is ill is chosen only if there is no other, and one that fails only if all do.
    /// Where UDP is blocked, all that is left is relayed: then the nearest relays are connected to, which measures them, and
    /// the next best stays connected beside home. `true` if home is another one than before.
    pub(crate) fn choose_home(
        &mut self,
        rtt: impl Fn(u16) -> Option<Duration>,
        udp_blocked: bool,
        env: &mut Env<'_>,
    ) -> bool {
        self.by_tcp = udp_blocked && self.relays.keys().all(|region| rtt(*region).is_none());
        if self.by_tcp {
            self.survey(env);
        }
        let by_tcp = self.by_tcp;
        let measured = |region: u16, relay: &Relay| rtt(region).or(relay.tcp_rtt.filter(|_| by_tcp));
        let score = |region: u16, relay: &Relay| {
            let known = measured(region, relay);
            let guess = known.or(relay.tcp_rtt).unwrap_or(Duration::MAX);
            (relay.standing(env.now), known.is_none(), guess, relay.order)
        };
        let mut all: Vec<_> =
            self.relays.iter().map(|(&region, relay)| (score(region, relay), region)).collect();
        all.sort_unstable();
        let Some(&((standing, ..), best)) = all.first() else { return false };
        let home = self.home.filter(|home| {
            let known = |region: u16| self.relays.get(&region).and_then(|relay| measured(region, relay));
            match (self.relays.get(home), known(*home), known(best)) {
                _ if best == *home => true,
                (None, ..) => false,
                (Some(relay), ..) if relay.standing(env.now) > standing => false,
                (_, Some(old), Some(new)) => new + env.policy.home_gain > old || new * 3 > old * 2,
                (_, None, Some(_)) => false,
                (_, _, None) => true,
            }
        });
        let chosen = home.unwrap_or(best);
        let others = all.iter().filter(|((standing, unknown, ..), region)| {
            *standing == Standing::Fine && !unknown && *region != chosen && self.is_up(*region)
        });
        self.standby = others.map(|(_, region)| *region).next().filter(|_| by_tcp);
        if home.is_some() {
            return false;
        }
        if let Some(old) = self.home.and_then(|home| self.relays.get_mut(&home)) {
            old.client.set_preferred(false);
            old.used = env.now;
            old.idle_check = env.now + env.policy.relay_idle;
            if !old.dial.is_up() {
                old.stop("no longer home", env);
            }
        }
        self.home = Some(best);
        if let Some(relay) = self.relays.get_mut(&best) {
            relay.client.set_preferred(true);
            relay.dial.start(env);
        }
        true
    }

    /// Connects to relays whose round trip is not known, the first of the map.
    fn survey(&mut self, env: &mut Env<'_>) {
        let mut first: Vec<&mut Relay> = self.relays.values_mut().collect();
        first.sort_unstable_by_key(|relay| relay.order);
        for relay in first.into_iter().take(env.policy.surveyed_relays) {
            let fails = relay.standing(env.now) == Standing::Fails;
            if relay.tcp_rtt.is_none() && !fails && relay.dial.is_idle() {
                relay.used = env.now;
                relay.idle_check = env.now + env.policy.relay_idle;
                relay.dial.start(env);
            }
        }
    }

    /// Whether a connection ends when nobody uses it. That to a relay which is ill stays: only there is it heard that it is well
    /// again.
    fn is_spare(&self, region: u16) -> bool {
        let is_ill = self.relays.get(&region).is_some_and(|relay| relay.health.is_ill());
        self.home != Some(region) && self.standby != Some(region) && !is_ill
    }

    /// Sends over a relay, and connects to it if need be. `false` if the map has no such relay.
    pub(crate) fn send(
        &mut self,
        region: u16,
        dst: [u8; 32],
        data: Bytes,
        class: Class,
        env: &mut Env<'_>,
    ) -> bool {
        let Some(relay) = self.relays.get_mut(&region) else { return false };
        let now = env.now;
        relay.used = now;
        if relay.dial.is_idle() {
            relay.idle_check = now + env.policy.relay_idle;
            relay.dial.start(env);
        }
        if let Some(old) = relay.old.as_mut().filter(|_| !relay.dial.is_up()) {
            old.client.send(PublicKey(dst), data, class, now);
            relay.flush(env);
            return true;
        }
        relay.client.send(PublicKey(dst), data, class, now);
        // The client's queue is short: what the stream takes goes at once.
        relay.flush(env);
        // The relay confirms nothing: while there is traffic, ask whether it still lives.
        let quiet = env.policy.relay_ping;
        if relay.heard + quiet <= now && relay.pinged.is_none_or(|at| at + quiet <= now) {
            relay.pinged = Some(now);
            relay.client.ping(now);
        }
        true
    }

    /// More can be reached than before: the home relay, if it could not.
    pub(crate) fn wake(&mut self, env: &mut Env<'_>) {
        if let Some(relay) = self.home.and_then(|home| self.relays.get_mut(&home)) {
            relay.dial.start(env);
        }
    }

    /// Every connection may be dead: the machine is in another network.
    pub(crate) fn restart(&mut self, reason: &str, env: &mut Env<'_>) {
        for relay in self.relays.values_mut() {
            relay.end_stream(env.now);
            relay.leave_old(reason, env);
            relay.dial.restart(reason, env);
        }
        self.incoming.push_back(Incoming::Down);
    }

    fn by_conn(&mut self, conn: ConnId) -> Option<(u16, &mut Relay)> {
        let (&region, relay) = self.relays.iter_mut().find(|(_, relay)| relay.dial.conn() == Some(conn))?;
        Some((region, relay))
    }

    pub(crate) fn connected(&mut self, conn: ConnId, env: &mut Env<'_>) {
        if let Some((_, relay)) = self.by_conn(conn)
            && let Some(took) = relay.dial.connected(env)
        {
            relay.begin_stream(took, env.now);
        }
    }

    pub(crate) fn writable(&mut self, conn: ConnId, space: usize, env: &mut Env<'_>) {
        if let Some((_, relay)) = self.by_conn(conn) {
            relay.dial.writable(space, env.out);
        } else if let Some((_, relay)) = self.old_by_conn(conn)
            && let Some(old) = &mut relay.old
        {
            old.dial.writable(space, env.out);
        }
    }

    pub(crate) fn stream(&mut self, conn: ConnId, data: &[u8], env: &mut Env<'_>) {
        if self.old_stream(conn, data, env) {
            return;
        }
        let Some((region, relay)) = self.by_conn(conn) else { return };
        relay.heard = env.now;
        let received = match relay.dial.receive(data, env) {
            Ok(received) => received,
            Err(reason) => return self.lost(region, &reason, true, env),
        };
        if let Some(took) = received.opened {
            relay.begin_stream(took, env.now);
        }
        if !relay.streaming || received.data.is_empty() {
            return;
        }
        let result = relay.client.handle_stream(&received.data, env.now);
        self.drain(region, env);
        if let Err(error) = result {
            self.lost(region, &error.to_string(), true, env);
        }
    }

    pub(crate) fn closed(&mut self, conn: ConnId, env: &mut Env<'_>) {
        if let Some((region, relay)) = self.by_conn(conn) {
            let why = relay.dial.closed_because();
            self.lost(region, why, false, env);
        } else if let Some((_, relay)) = self.old_by_conn(conn)
            && let Some(mut old) = relay.old.take()
        {
            let why = old.dial.closed_because();
            old.dial.lost(why, false, env);
            if !relay.dial.is_up() {
                self.incoming.push_back(Incoming::Down);
            }
        }
    }

    fn lost(&mut self, region: u16, reason: &str, close: bool, env: &mut Env<'_>) {
        let Some(relay) = self.relays.get_mut(&region) else { return };
        let was_up = relay.dial.is_up();
        relay.end_stream(env.now);
        relay.dial.lost(reason, close, env);
        self.after_loss(region, was_up, env);
    }

    fn after_loss(&mut self, region: u16, was_up: bool, env: &mut Env<'_>) {
        let Some(relay) = self.relays.get_mut(&region) else { return };
        if was_up {
            self.incoming.push_back(Incoming::Down);
        }
        if relay.turn.take_if(|(_, turn)| *turn == Turn::Restart).is_some() && self.move_on(region, env) {
            return;
        }
        let Some(relay) = self.relays.get(&region) else { return };
        let unreachable = relay.dial.failures() >= 2;
        if unreachable && self.next_node(region, env) {
            return;
        }
        // Who has another relay ready does not wait until all ports of this one have failed, some of which a firewall may drop.
        let ready = self.is_standby_ready(region);
        let Some(relay) = self.relays.get_mut(&region) else { return };
        let unreachable = unreachable || (ready && relay.dial.failed() > 0);
        if unreachable {
            relay.health = Health::default();
        }
        if self.home == Some(region) && unreachable {
            relay.avoid_until = Some(env.now + env.policy.relay_avoid);
            self.incoming.push_back(Incoming::HomeFailed);
        } else if self.is_spare(region)
            && let Some(relay) = self.relays.get_mut(&region)
            && relay.used + env.policy.relay_idle <= env.now
        {
            relay.stop("idle", env);
        }
    }

    /// Whether another relay is connected to that can be home at once.
    fn is_standby_ready(&self, region: u16) -> bool {
        self.standby.is_some_and(|standby| standby != region && self.is_up(standby))
    }

    fn drain(&mut self, region: u16, env: &mut Env<'_>) {
        let Some(relay) = self.relays.get_mut(&region) else { return };
        let mut dead = false;
        let mut restarts = None;
        let mut turned = false;
        while let Some(event) = relay.client.poll_event() {
            match event {
                ClientEvent::Ready { .. } => {
                    relay.dial.ready(env);
                    (relay.avoid_until, relay.tried) = (None, 0);
                    // So that the round trip is known, and with it how long to wait for a later ping.
                    relay.client.ping(env.now);
                    let again = std::mem::replace(&mut relay.was_up, true);
                    self.incoming.push_back(Incoming::Up { again });
                    if self.by_tcp {
                        self.incoming.push_back(Incoming::Measured);
                    }
                }
                ClientEvent::Packet { src, data } => {
                    relay.used = env.now;
                    self.incoming.push_back(Incoming::Packet { region, src: src.0, data });
                }
                ClientEvent::PeerGone { key, .. } => {
                    self.incoming.push_back(Incoming::Gone { region, key: key.0 });
                }
                ClientEvent::Restarting { reconnect_in, try_for } => restarts = Some((reconnect_in, try_for)),
                ClientEvent::Health { text } => relay.told_health(&text, env),
                ClientEvent::Pong { .. } => turned |= relay.health.answered(relay.node),
                ClientEvent::Dead { .. } => dead = true,
                _ => {}
            }
        }
        if turned {
            self.incoming.push_back(Incoming::Health);
        }
        if dead {
            self.lost(region, "no answer", true, env);
        } else if let Some((reconnect_in, try_for)) = restarts {
            self.restarts(region, reconnect_in, try_for, env);
        }
    }

    /// Writes what the connections take.
    pub(crate) fn flush(&mut self, env: &mut Env<'_>) {
        for relay in self.relays.values_mut() {
            relay.flush(env);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.relays
            .iter()
            .filter_map(|(&region, relay)| {
                let idle = (self.is_spare(region) && !relay.dial.is_idle())
                    .then_some((relay.idle_check, "relay idle"));
                let restart = relay.restart_at.map(|at| (at, "relay restart"));
                let old = relay.old.as_ref().map(|old| (old.until, "relay left"));
                let turn = relay.turn.map(|(at, turn)| (at, turn.as_str()));
                idle.into_iter()
                    .chain(restart)
                    .chain(old)
                    .chain(turn)
                    .chain(relay.second_chance().map(|at| (at, "relay health")))
                    .chain(relay.dial.poll_timeout())
                    .chain(relay.client.poll_timeout())
                    .min()
            })
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, env: &mut Env<'_>) {
        let regions: Vec<u16> = self.relays.keys().copied().collect();
        for region in regions {
            let spare = self.is_spare(region);
            let Some(relay) = self.relays.get_mut(&region) else { continue };
            relay.client.handle_timeout(env.now);
            if relay.old.as_ref().is_some_and(|old| old.until <= env.now) {
                relay.leave_old("another relay of the region serves", env);
            }
            if relay.restart_at.is_some_and(|at| at <= env.now) {
                relay.restart_at = None;
                // What was left of the old connection served until now.
                if relay.dial.is_up() {
                    relay.end_stream(env.now);
                    relay.dial.restart("the relay restarts", env);
                    self.incoming.push_back(Incoming::Down);
                }
            }
            self.take_turn(region, env);
            let Some(relay) = self.relays.get_mut(&region) else { continue };
            let before = (relay.dial.failures(), relay.dial.failed());
            if relay.dial.handle_timeout(env) {
                relay.end_stream(env.now);
            }
            let failed = relay.dial.failures() > before.0 || relay.dial.failed() > before.1;
            if spare && !relay.dial.is_idle() && relay.idle_check <= env.now {
                relay.idle_check = relay.used + env.policy.relay_idle;
                if relay.idle_check <= env.now {
                    relay.stop("idle", env);
                }
            }
            if failed {
                self.after_loss(region, false, env);
            }
            self.drain(region, env);
        }
    }
}

/// What is known against a relay, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Fine,
    /// It says so itself.
    Ill,
    /// It could not be reached a short time ago.
    Fails,
}

impl Relay {
    fn standing(&self, now: Instant) -> Standing {
        if self.avoid_until.is_some_and(|until| until > now) {
            Standing::Fails
        } else if self.health.is_ill() {
            Standing::Ill
        } else {
            Standing::Fine
        }
    }

    /// Whether packets get to the region now.
    fn is_usable(&self) -> bool {
        self.dial.is_up() || self.old.is_some()
    }

    fn leave_old(&mut self, reason: &str, env: &mut Env<'_>) {
        if let Some(mut old) = self.old.take() {
            old.dial.stop(reason, env);
        }
    }

    fn flush(&mut self, env: &mut Env<'_>) {
        if let Some(Old { dial, client, .. }) = &mut self.old {
            dial.write(|space| client.poll_transmit(space), env.out);
        }
        if self.streaming {
            let client = &mut self.client;
            self.dial.write(|space| client.poll_transmit(space), env.out);
        }
    }

    /// Bytes flow from now on; it took that long until they could.
    fn begin_stream(&mut self, took: Duration, now: Instant) {
        self.tcp_rtt = Some(took);
        self.restart_at = None;
        self.streaming = true;
        self.heard = now;
        self.health.begins();
        // Whoever looks into plain HTTP expects a response before anything else; inside TLS nobody does.
        self.client.set_fast_start(self.dial.is_secure());
        self.client.connected(now);
    }

    fn end_stream(&mut self, now: Instant) {
        if std::mem::take(&mut self.streaming) {
            self.client.closed(now);
        }
    }

    fn stop(&mut self, reason: &str, env: &mut Env<'_>) {
        self.end_stream(env.now);
        self.leave_old(reason, env);
        (self.health, self.turn) = (Health::default(), None);
        self.dial.stop(reason, env);
    }
}

#[cfg(test)]
mod tests;
