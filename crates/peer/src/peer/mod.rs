//! The peer: hands inputs to its parts, carries what one part wants to the next, and collects what leaves.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord::KeyPair;
use coord::client::{ClientConfig, Event as CoordEvent};
use coord::{Delta, Map, MapUpdate, NodeInfo, RelayInfo, Update};
use disco::SharedKey;
use pref64::{Discovery, Outcome};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use wireguard::{Device, DeviceConfig};

use crate::access::Gate;
use crate::config::Config;
use crate::demux::{Protocol, protocol};
use crate::dial::{Env, Out, Security};
use crate::io::{Event, Input, Transmit};
use crate::nat::{Change, Nat};
use crate::policy::Policy;
use crate::portmap::PortMap;
use crate::reach::Reach;
use crate::relays::{Incoming, Relays};
use crate::remote::{Directory, Upsert};
use crate::signalling::Signalling;

/// Where something arrived.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    Udp(SocketAddr),
    Relay { region: u16, src: [u8; 32] },
}

/// One endpoint of the mesh. See the [crate's front page](crate) for how it is driven.
pub struct Peer {
    policy: Policy,
    rng: ChaCha12Rng,
    /// Unix time when it was made, and that moment.
    epoch: Duration,
    began: Instant,
    private_key: [u8; 32],
    node_key: [u8; 32],
    rotation: Rotation,
    disco_key: disco::PrivateKey,
    disco_public: disco::PublicKey,
    tunnel: Option<IpAddr>,
    tunnel6: Option<Ipv6Addr>,
    /// What the map says of ourselves, of the relays and of who may talk to whom.
    own: Option<NodeInfo>,
    relay_map: Vec<RelayInfo>,
    gate: Gate,
    /// The map of an earlier run, until there is a network to use it in.
    kept: Option<Box<Map>>,
    resolver: Option<SocketAddr>,
    /// The question for the prefix of the network's NAT64.
    prefix: Option<Discovery>,
    signalling: Signalling,
    nat: Nat,
    portmap: PortMap,
    relays: Relays,
    directory: Directory,
    device: Device,
    out: Out,
    /// When it was last called.
    called: Instant,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("tunnel", &self.tunnel).field("nat", &self.nat).finish_non_exhaustive()
    }
}

/// The surroundings, borrowed from the fields beside the part that needs them.
macro_rules! env {
    ($peer:ident, $now:expr) => {
        &mut Env { now: $now, rng: &mut $peer.rng, policy: &$peer.policy, out: &mut $peer.out }
    };
}

mod discovery;
mod rotate;
pub(crate) mod status;
mod tunnel;
use rotate::Rotation;
use tunnel::addresses_of;

impl Peer {
    /// A peer that does nothing until it gets [`Input::Addresses`].
    #[must_use]
    pub fn new(config: Config, mut rng: ChaCha12Rng, now: Instant) -> Peer {
        let mut child = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            ChaCha12Rng::from_seed(seed)
        };
        let (for_coord, for_device) = (child(), child());
        let device =
            Device::new(DeviceConfig { private_key: config.keys.node, epoch: config.epoch }, for_device, now);
        let proxy = config.proxy.map(Arc::new);
        let clock = tls::Clock::new(config.epoch, now);
        let security = config.coordinator_tls.map(|tls| Security { tls, clock });
        let disco_key = disco::PrivateKey::from_bytes(config.keys.disco);
        let disco_public = disco_key.public();
        let client = ClientConfig {
            machine_key: config.keys.machine,
            server_key: config.coordinator_key,
            name: config.name,
            node_key: KeyPair { public: device.public_key(), private: config.keys.node },
            disco_key: KeyPair { public: disco_public.0, private: config.keys.disco },
            host: config.coordinator_host,
            auth_key: config.auth_key,
        };
        // One of another identity is of no use.
        let kept = config.map.filter(|map| map.you.node_key == client.node_key.public);
        let mut signalling =
            Signalling::new(client, config.coordinator, proxy.clone(), security, for_coord, now);
        if let Some(map) = &kept {
            signalling.remember(map.version);
        }
        Peer {
            policy: config.policy,
            rng,
            epoch: config.epoch,
            began: now,
            private_key: config.keys.node,
            rotation: Rotation::default(),
            node_key: device.public_key(),
            disco_key,
            disco_public,
            tunnel: None,
            tunnel6: None,
            own: None,
            relay_map: Vec::new(),
            gate: Gate::default(),
            kept,
            resolver: None,
            prefix: None,
            signalling,
            nat: Nat::default(),
            portmap: PortMap::default(),
            relays: Relays::new(config.keys.node, proxy, config.authorities, clock),
            directory: Directory::default(),
            device,
            out: Out::default(),
            called: now,
        }
    }

    /// What the coordination server has told, to be kept for another start ([`coord::Map::to_saved`]); `None` before it has.
    /// It has changed when [`Peer::map_version`] has.
    #[must_use]
    pub fn map(&self) -> Option<coord::Map> {
        let (version, you) = (self.signalling.version()?, self.own.clone()?);
        let peers = self.directory.infos().cloned().collect();
        let (relays, access) = (self.relay_map.clone(), self.gate.rules().cloned());
        Some(Map { version, you, relays, access, peers })
    }

    /// Its WireGuard public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.node_key
    }

    /// The tunnel address of the peer of that name; `None` while the map has no such peer. Of several, the first to have
    /// registered of those online, or of all if none is.
    #[must_use]
    pub fn tunnel_address(&self, name: &str) -> Option<IpAddr> {
        self.directory.tunnel_address(name)
    }

    /// The name of the peer that has this tunnel address.
    #[must_use]
    pub fn name_at(&self, tunnel: IpAddr) -> Option<&str> {
        self.directory.of_tunnel(tunnel).and_then(|id| self.directory.get(id)).map(|remote| &*remote.name)
    }

    /// The names of all other peers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.directory.names()
    }

    /// Changes with everything that the coordination server tells of other peers, as [`Peer::tunnel_address`] may say something
    /// else then, and with the own node key.
    #[must_use]
    pub fn map_version(&self) -> u64 {
        self.directory.version()
    }

    /// Whether nothing is left to do after [`Input::Shutdown`]: a router that opened a port by UPnP is given half a second to
    /// close it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.portmap.is_finished()
    }

    /// Takes an input. Drain [`Peer::poll_transmit`] and [`Peer::poll_event`] afterwards.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.notice_sleep(now);
        match input {
            Input::Addresses(addresses) => self.addresses(addresses, now),
            Input::Resolver(resolver) => self.resolver = Some(resolver),
            Input::Gateway(gateway) => self.portmap.set_gateway(gateway),
            Input::Announcement { from, data } => self.portmap.announcement(from, data, env!(self, now)),
            Input::Shutdown => self.portmap.shutdown(env!(self, now)),
            // Its connections are open when they can be written to.
            Input::Connected(conn) if self.portmap.owns(conn) => {}
            Input::Stream(conn, data) if self.portmap.owns(conn) => {
                self.portmap.stream(data, env!(self, now));
            }
            Input::Writable(conn, space) if self.portmap.owns(conn) => {
                self.portmap.writable(space, env!(self, now));
            }
            Input::Closed(conn) if self.portmap.owns(conn) => self.portmap.closed(env!(self, now)),
            Input::Datagram { from, data } => self.datagram(from, data, now),
            Input::TooBig(to) => self.too_big(to, now),
            Input::Connected(conn) if self.signalling.owns(conn) => {
                self.signalling.connected(env!(self, now));
            }
            Input::Connected(conn) => {
                if !self.beside(conn, now, |relays, env| relays.connected(conn, env)) {
                    self.relays.connected(conn, env!(self, now));
                }
            }
            Input::Stream(conn, data) if self.signalling.owns(conn) => {
                self.signalling.stream(data, env!(self, now));
            }
            Input::Stream(conn, data) => {
                if !self.beside(conn, now, |relays, env| relays.stream(conn, data, env)) {
                    self.relays.stream(conn, data, env!(self, now));
                }
            }
            Input::Writable(conn, space) if self.signalling.owns(conn) => {
                self.signalling.writable(space, env!(self, now));
            }
            Input::Writable(conn, space) => {
                if !self.beside(conn, now, |relays, env| relays.writable(conn, space, env)) {
                    self.relays.writable(conn, space, env!(self, now));
                }
            }
            Input::Closed(conn) if self.signalling.owns(conn) => self.signalling.closed(env!(self, now)),
            Input::Closed(conn) => {
                if !self.beside(conn, now, |relays, env| relays.closed(conn, env)) {
                    self.relays.closed(conn, env!(self, now));
                }
            }
            Input::Rotate => self.rotate(now),
            Input::Packet(packet) => self.send(packet, now),
        }
        self.settle(now);
    }

    /// Does what is due. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.notice_sleep(now);
        self.signalling.handle_timeout(env!(self, now));
        self.relays.handle_timeout(env!(self, now));
        self.rotation_timeout(now);
        let active = self.nat.is_refresh_due(now) && self.is_active(now);
        self.nat.handle_timeout(self.relays.home(), active, env!(self, now));
        for id in self.directory.due(now) {
            self.with_paths(id, now, |paths, cx| paths.handle_timeout(cx));
        }
        self.portmap.handle_timeout(env!(self, now));
        self.device.handle_timeout(now);
        if let Some(prefix) = &mut self.prefix {
            prefix.handle_timeout(now);
            self.ask_for_prefix();
        }
        self.settle(now);
    }

    /// When [`Peer::handle_timeout`] is due, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let parts = [
            self.signalling.poll_timeout(),
            self.relays.poll_timeout(),
            self.rotation.poll_timeout(),
            self.next_end(),
            self.nat.poll_timeout(&self.policy),
            self.portmap.poll_timeout(),
            self.directory.poll_timeout(),
            self.device.poll_timeout(),
            self.prefix.as_ref().and_then(Discovery::poll_timeout),
        ];
        parts.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// The next thing to do.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    // ---- inputs ------------------------------------------------------------------------------------

    fn addresses(&mut self, addresses: &[SocketAddr], now: Instant) {
        let was_online = self.nat.is_online();
        // Another network has another NAT64, or none.
        let same = addresses.iter().any(|address| self.nat.local().contains(address));
        let known = self.out.reach.nat64().filter(|_| same);
        self.out.reach = Reach::of(addresses, known);
        let asking = self.prefix.is_some() && same;
        if self.out.reach.is_v6_alone() && known.is_none() && !asking {
            self.prefix = self.resolver.map(|resolver| Discovery::new(resolver, &mut self.rng, now));
            self.ask_for_prefix();
        }
        let moved = self.nat.set_local(addresses, env!(self, now));
        self.portmap.set_local(addresses, env!(self, now));
        if !self.nat.is_online() {
            return;
        }
        if moved || !was_online {
            self.start_over("other network", now);
        } else {
            self.signalling.start(env!(self, now));
        }
        if let Some(map) = self.kept.take() {
            let NodeInfo { tunnel_ip, tunnel_ip6, .. } = map.you;
            (self.tunnel, self.tunnel6) = (Some(tunnel_ip), tunnel_ip6);
            self.out.event(Event::Remembered { tunnel: tunnel_ip, tunnel6: tunnel_ip6 });
            self.whole_map(*map, now);
        }
    }

    /// A deadline that is late by [`Policy::asleep`] means that the machine has slept: its mappings may be gone, its
    /// connections dead, and it may be anywhere. One that has come up with the last call was not due before.
    fn notice_sleep(&mut self, now: Instant) {
        let last = std::mem::replace(&mut self.called, now);
        let asleep = self.policy.asleep;
        if last + asleep <= now
            && self.nat.is_online()
            && self.poll_timeout().is_some_and(|(at, _)| at.max(last) + asleep <= now)
        {
            self.nat.refresh(env!(self, now));
            self.start_over("slept", now);
        }
    }

    /// Connects to all servers anew, and trusts no path until it has answered.
    fn start_over(&mut self, reason: &str, now: Instant) {
        self.signalling.restart(reason, env!(self, now));
        self.relays.restart(reason, env!(self, now));
        self.restart_rotation(reason, now);
        self.signalling.start(env!(self, now));
        for id in self.directory.live_ids() {
            self.with_paths(id, now, |paths, cx| paths.own_changed(true, cx));
        }
    }

    /// Sends the question for the prefix, if it is due.
    fn ask_for_prefix(&mut self) {
        while let Some((to, query)) = self.prefix.as_mut().and_then(Discovery::poll_transmit) {
            self.out.datagram(to, query.into());
        }
    }

    /// IPv4 can be reached from now on, or will not be in this network.
    fn prefix_known(&mut self, outcome: Outcome, now: Instant) {
        self.prefix = None;
        let Outcome::Found(prefix) = outcome else { return };
        self.out.reach = Reach::of(self.nat.local(), Some(prefix));
        self.signalling.start(env!(self, now));
        self.relays.wake(env!(self, now));
        self.nat.ask_all(env!(self, now));
        for id in self.directory.live_ids() {
            let Some(remote) = self.directory.get(id) else { continue };
            let endpoints = remote.info.endpoints.clone();
            self.with_paths(id, now, |paths, cx| paths.set_map(&endpoints, cx));
        }
    }

    fn datagram(&mut self, from: SocketAddr, data: &[u8], now: Instant) {
        if self.portmap.datagram(from, data, env!(self, now)) {
            return;
        }
        if let Some(prefix) = &mut self.prefix
            && prefix.handle(from, data)
        {
            if let Some(outcome) = prefix.poll_event() {
                self.prefix_known(outcome, now);
            }
            return;
        }
        let from = self.out.reach.meant(from);
        match protocol(data) {
            Protocol::Stun => self.nat.handle(from, data, env!(self, now)),
            Protocol::Disco => self.disco(data, Arrival::Udp(from), now),
            Protocol::WireGuard => self.tunnelled(data, Arrival::Udp(from), now),
        }
    }

    fn send(&mut self, packet: &[u8], now: Instant) {
        let Some((source, destination)) = addresses_of(packet) else {
            return self.out.warn("not an IP packet, from a program");
        };
        if !self.is_own(source) {
            return self.out.warn(format!("packet from {source}, which is not our tunnel address"));
        }
        let Some(id) = self.directory.of_tunnel(destination) else {
            return self.out.warn(format!("no peer has tunnel address {destination}"));
        };
        let Some(wg) = self.enliven(id, now) else {
            return self.out.warn(format!("the key of the peer at {destination} has ended"));
        };
        self.gate.sent(id, packet, now);
        self.nat.keep_fresh(env!(self, now));
        if let Err(error) = self.device.send(wg, packet, now) {
            return self.out.warn(format!("packet to {destination}: {error}"));
        }
        if let Some((_, _, live)) = self.directory.live_mut(id) {
            live.sent_bytes += packet.len() as u64;
        }
        // First on its way over what there is, then look for something better.
        self.flush_tunnel(now);
        self.with_paths(id, now, |paths, cx| paths.want(cx));
        self.tell_path(id, "traffic");
    }

    // ---- from part to part -------------------------------------------------------------------------

    /// Carries everything that the parts have produced to where it belongs.
    fn settle(&mut self, now: Instant) {
        self.nat.set_mapped(self.portmap.external(), env!(self, now));
        loop {
            if let Some(event) = self.signalling.poll_event(env!(self, now)) {
                self.coordinated(event, now);
            } else if let Some(incoming) = self.relays.poll_incoming() {
                self.relayed(incoming, now);
            } else if let Some(change) = self.nat.poll_change() {
                self.nat_changed(change, now);
            } else if !self.settle_rotation(now) {
                break;
            }
        }
        self.flush_tunnel(now);
        self.signalling.flush(env!(self, now));
        self.relays.flush(env!(self, now));
        self.rotation.flush(env!(self, now));
    }

    fn coordinated(&mut self, event: CoordEvent, now: Instant) {
        match event {
            CoordEvent::Registered { tunnel_ip: tunnel, tunnel_ip6: tunnel6, .. } => {
                (self.tunnel, self.tunnel6) = (Some(tunnel), tunnel6);
                self.out.event(Event::Registered { tunnel, tunnel6 });
            }
            CoordEvent::Waiting => self.out.event(Event::Waiting),
            CoordEvent::Map(MapUpdate::Full(map)) => self.whole_map(*map, now),
            CoordEvent::Map(MapUpdate::Delta(delta)) => self.map_delta(*delta, now),
            CoordEvent::Failed(_) => {}
        }
    }

    fn whole_map(&mut self, map: Map, now: Instant) {
        let Map { relays, peers, you, access, .. } = map;
        self.own_record(you, now);
        self.gate.set_rules(access);
        self.set_relays(relays, now);
        let known: BTreeSet<u32> = peers.iter().map(|node| node.id).collect();
        for id in self.directory.ids().into_iter().filter(|id| !known.contains(id)) {
            self.forget(id);
        }
        for node in peers {
            self.learn(node, now);
        }
        self.choose_home(now);
    }

    fn map_delta(&mut self, delta: Delta, now: Instant) {
        let Delta { you, added, changed, removed, relays, access, .. } = delta;
        if let Some(you) = you {
            self.own_record(you, now);
        }
        if let Some(access) = access {
            self.gate.set_rules(access);
        }
        let other_relays = relays.is_some();
        if let Some(relays) = relays {
            self.set_relays(relays, now);
        }
        for id in removed {
            self.forget(id);
        }
        for node in added {
            self.learn(node, now);
        }
        for change in changed {
            // What is not known was removed in between, or is ourselves under a former number.
            let Some(remote) = self.directory.get(change.id) else { continue };
            let mut node = remote.info.clone();
            change.apply(&mut node);
            self.learn(node, now);
        }
        if other_relays {
            self.choose_home(now);
        }
    }

    fn own_record(&mut self, you: NodeInfo, now: Instant) {
        self.own_key(you.node_key, you.key_expires, now);
        self.own = Some(you);
        self.gate.reconsider();
    }

    fn set_relays(&mut self, relays: Vec<RelayInfo>, now: Instant) {
        self.relays.set_map(&relays, env!(self, now));
        self.nat.set_servers(&relays, env!(self, now));
        self.relay_map = relays;
    }

    fn learn(&mut self, node: NodeInfo, now: Instant) {
        if node.node_key == self.node_key {
            return;
        }
        let (id, endpoints) = (node.id, node.endpoints.clone());
        self.gate.reconsider_peer(id);
        let there = (node.online, node.home_relay);
        // A coordination server that lost its records numbers everybody anew: what was known under this number goes, and so does
        // what was known of this node, or it would take the entries of the new record with it when its number is given again.
        // One that still speaks with the same disco key has rotated its node key.
        let other = self.directory.get(id).filter(|remote| {
            remote.info.node_key != node.node_key && remote.info.disco_key != node.disco_key
        });
        let former = self.directory.of_node(&node.node_key).filter(|former| *former != id);
        for gone in [other.map(|_| id), former].into_iter().flatten() {
            self.forget(gone);
        }
        let before = self
            .directory
            .get(id)
            .map(|remote| (remote.info.endpoints.clone(), (remote.info.online, remote.info.home_relay)));
        let result = self.directory.upsert(node);
        if let Upsert::New { gone: Some(wg) } = result {
            self.device.remove_peer(wg);
        }
        let Some((info, name, live)) = self.directory.live_mut(id) else { return };
        if result == Upsert::Rotated {
            // Its sessions go on until handshakes with the new key replace them.
            live.renew = true;
            self.device.set_public_key(live.wg, info.node_key, now);
        }
        let restarted = result == Upsert::Restarted;
        if restarted {
            live.shared = SharedKey::new(&self.disco_key, &disco::PublicKey(info.disco_key));
            live.paths.forget(&self.policy);
            live.renew = true;
        }
        let (old, was_there) = before.unzip();
        if restarted || old.as_ref() != Some(&endpoints) {
            let (peer, candidates) = (name.clone(), endpoints.clone());
            self.out.event(Event::Candidates { peer, candidates, via: "coordinator" });
            self.with_paths(id, now, |paths, cx| paths.set_map(&endpoints, cx));
        }
        if restarted {
            self.tell_path(id, "the other side started anew");
            self.hasten(id, now);
        } else if there.0 && was_there != Some(there) {
            // It listens on another relay than what we sent to it went to.
            self.tell_path(id, "other home relay");
            self.repeat(id, now);
        }
    }

    /// Says again what may not have arrived over the relay.
    fn repeat(&mut self, id: u32, now: Instant) {
        self.hasten(id, now);
        self.with_paths(id, now, |paths, cx| paths.own_changed(false, cx));
    }

    fn forget(&mut self, id: u32) {
        self.gate.reconsider_peer(id);
        self.silence(id, "forgotten");
        self.directory.remove(id);
    }

    fn relayed(&mut self, incoming: Incoming, now: Instant) {
        match incoming {
            Incoming::Packet { region, src, data } => {
                let arrival = Arrival::Relay { region, src };
                match protocol(&data) {
                    Protocol::Disco => self.disco(&data, arrival, now),
                    Protocol::WireGuard => self.tunnelled(&data, arrival, now),
                    Protocol::Stun => {}
                }
            }
            Incoming::Up { again } => {
                self.advertise();
                for id in self.directory.live_ids() {
                    self.tell_path(id, "relay connected");
                    if again {
                        self.repeat(id, now);
                    }
                }
            }
            Incoming::Down => {
                self.advertise();
                for id in self.directory.live_ids() {
                    self.tell_path(id, "relay lost");
                }
            }
            Incoming::Gone { region, key } => {
                let id = self.directory.of_node(&key);
                if let Some((_, _, live)) = id.and_then(|id| self.directory.live_mut(id))
                    && live.reverse == Some(region)
                {
                    live.reverse = None;
                }
            }
            Incoming::HomeFailed | Incoming::Health | Incoming::Measured => self.choose_home(now),
        }
    }

    fn nat_changed(&mut self, change: Change, now: Instant) {
        match change {
            Change::Beliefs => {
                self.publish();
                // Where the mapping varies, new ones come all the time, and none of them is of any use to others.
                if self.nat.facts().mapping_varies != Some(true) {
                    for id in self.directory.live_ids() {
                        self.with_paths(id, now, |paths, cx| paths.own_changed(false, cx));
                    }
                }
            }
            Change::Mapped => {
                self.publish();
                for id in self.directory.live_ids() {
                    self.with_paths(id, now, |paths, cx| paths.own_changed(false, cx));
                }
            }
            Change::Settled | Change::Impatient => self.choose_home(now),
        }
    }

    fn choose_home(&mut self, now: Instant) {
        if self.nat.is_undecided() || !self.nat.is_online() {
            return;
        }
        let (nat, udp_blocked) = (&self.nat, self.nat.facts().udp_blocked);
        if self.relays.choose_home(|region| nat.rtt(region), udp_blocked, env!(self, now)) {
            self.advertise();
        }
    }

    /// Tells others where our home is, if that changed for them.
    fn advertise(&mut self) {
        if self.relays.advertise() {
            self.publish();
        }
    }

    /// Tells the coordination server how we may be reached.
    fn publish(&mut self) {
        self.signalling.update(Update {
            endpoints: self.nat.candidates().to_vec(),
            home_relay: self.relays.advertised(),
            nat: Some(self.nat.facts()),
        });
    }

    fn is_active(&self, now: Instant) -> bool {
        let live =
            self.directory.live_ids().into_iter().filter_map(|id| self.directory.get(id)?.live.as_ref());
        live.into_iter().any(|live| live.paths.active(now, &self.policy))
    }
}
