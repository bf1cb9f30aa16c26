//! The peer: hands inputs to its parts, carries what one part wants to the next, and collects what leaves.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use coord::client::{ClientConfig, Event as CoordEvent};
use coord::{MapUpdate, NodeInfo, Update};
use derp::Class;
use disco::{Message, SharedKey};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use wireguard::{Device, DeviceConfig, Kind, PeerConfig, PeerId, Source, To};

use crate::candidate::Tier;
use crate::config::Config;
use crate::demux::{Protocol, protocol};
use crate::dial::{Env, Out};
use crate::io::{Event, Input, Transmit, Via};
use crate::nat::{Change, Nat};
use crate::paths::{Action, Context, Paths, Route};
use crate::policy::Policy;
use crate::relays::{Incoming, Relays};
use crate::remote::{Directory, Live, Upsert};
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
    node_key: [u8; 32],
    disco_key: disco::PrivateKey,
    disco_public: disco::PublicKey,
    tunnel: Option<IpAddr>,
    signalling: Signalling,
    nat: Nat,
    relays: Relays,
    directory: Directory,
    device: Device,
    out: Out,
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
        let disco_key = disco::PrivateKey::from_bytes(config.keys.disco);
        let disco_public = disco_key.public();
        let client = ClientConfig {
            machine_key: config.keys.machine,
            server_key: config.coordinator_key,
            name: config.name,
            node_key: device.public_key(),
            disco_key: disco_public.0,
        };
        Peer {
            policy: config.policy,
            rng,
            node_key: device.public_key(),
            disco_key,
            disco_public,
            tunnel: None,
            signalling: Signalling::new(client, config.coordinator, for_coord, now),
            nat: Nat::default(),
            relays: Relays::new(config.keys.node),
            directory: Directory::default(),
            device,
            out: Out::default(),
        }
    }

    /// Its WireGuard public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.node_key
    }

    /// The tunnel address of the peer of that name; `None` while the map has no such peer. Of several, the first to have
    /// registered.
    #[must_use]
    pub fn tunnel_address(&self, name: &str) -> Option<IpAddr> {
        self.directory.tunnel_address(name)
    }

    /// Takes an input. Drain [`Peer::poll_transmit`] and [`Peer::poll_event`] afterwards.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Addresses(addresses) => self.addresses(addresses, now),
            Input::Datagram { from, data } => self.datagram(from, data, now),
            Input::Connected(conn) if self.signalling.owns(conn) => {
                self.signalling.connected(env!(self, now))
            }
            Input::Connected(conn) => self.relays.connected(conn, env!(self, now)),
            Input::Stream(conn, data) if self.signalling.owns(conn) => {
                self.signalling.stream(data, env!(self, now));
            }
            Input::Stream(conn, data) => self.relays.stream(conn, data, env!(self, now)),
            Input::Writable(conn, space) if self.signalling.owns(conn) => self.signalling.writable(space),
            Input::Writable(conn, space) => self.relays.writable(conn, space),
            Input::Closed(conn) if self.signalling.owns(conn) => {
                self.signalling.lost("closed by the other side", false, env!(self, now));
            }
            Input::Closed(conn) => self.relays.closed(conn, env!(self, now)),
            Input::Packet(packet) => self.send(packet, now),
        }
        self.settle(now);
    }

    /// Does what is due. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.signalling.handle_timeout(env!(self, now));
        self.relays.handle_timeout(env!(self, now));
        let active = self.nat.is_refresh_due(now) && self.is_active(now);
        self.nat.handle_timeout(self.relays.home(), active, env!(self, now));
        for id in self.directory.due(now) {
            self.with_paths(id, now, |paths, cx| paths.handle_timeout(cx));
        }
        self.device.handle_timeout(now);
        self.settle(now);
    }

    /// When [`Peer::handle_timeout`] is due, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let parts = [
            self.signalling.poll_timeout(),
            self.relays.poll_timeout(),
            self.nat.poll_timeout(&self.policy),
            self.directory.poll_timeout(),
            self.device.poll_timeout(),
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
        let moved = self.nat.set_local(addresses, env!(self, now));
        if !self.nat.is_online() {
            return;
        }
        if moved || !was_online {
            self.signalling.restart("other network", env!(self, now));
            self.relays.restart("other network", env!(self, now));
        }
        self.signalling.start(env!(self, now));
        if moved || !was_online {
            for id in self.directory.live_ids() {
                self.with_paths(id, now, |paths, cx| paths.own_changed(true, cx));
            }
        }
    }

    fn datagram(&mut self, from: SocketAddr, data: &[u8], now: Instant) {
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
        if self.tunnel.is_none_or(|own| own != source) {
            return self.out.warn(format!("packet from {source}, which is not our tunnel address"));
        }
        let Some(id) = self.directory.of_tunnel(destination) else {
            return self.out.warn(format!("no peer has tunnel address {destination}"));
        };
        let Some(wg) = self.enliven(id, now) else { return };
        self.nat.keep_fresh(env!(self, now));
        if let Err(error) = self.device.send(wg, packet, now) {
            return self.out.warn(format!("packet to {destination}: {error}"));
        }
        // First on its way over what there is, then look for something better.
        self.flush_tunnel(now);
        self.with_paths(id, now, |paths, cx| paths.want(cx));
        self.tell_path(id, "traffic");
    }

    // ---- from part to part -------------------------------------------------------------------------

    /// Carries everything that the parts have produced to where it belongs.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.signalling.poll_event(env!(self, now)) {
                self.coordinated(event, now);
            } else if let Some(incoming) = self.relays.poll_incoming() {
                self.relayed(incoming, now);
            } else if let Some(change) = self.nat.poll_change() {
                self.nat_changed(change, now);
            } else {
                break;
            }
        }
        self.flush_tunnel(now);
        self.signalling.flush(env!(self, now));
        self.relays.flush(env!(self, now));
    }

    fn coordinated(&mut self, event: CoordEvent, now: Instant) {
        match event {
            CoordEvent::Registered { tunnel_ip, .. } => {
                self.tunnel = Some(tunnel_ip);
                self.out.event(Event::Registered { tunnel: tunnel_ip });
            }
            CoordEvent::Map(MapUpdate::Full { peers, relays, .. }) => {
                self.relays.set_map(&relays, env!(self, now));
                self.nat.set_servers(&relays, env!(self, now));
                let known: std::collections::BTreeSet<u32> = peers.iter().map(|node| node.id).collect();
                for id in self.directory.ids().into_iter().filter(|id| !known.contains(id)) {
                    self.forget(id);
                }
                for node in peers {
                    self.learn(node, now);
                }
                self.choose_home(now);
            }
            CoordEvent::Map(MapUpdate::Delta { upsert, remove, .. }) => {
                for id in remove {
                    self.forget(id);
                }
                for node in upsert {
                    self.learn(node, now);
                }
            }
            CoordEvent::Failed(_) => {}
        }
    }

    fn learn(&mut self, node: NodeInfo, now: Instant) {
        if node.node_key == self.node_key {
            return;
        }
        let (id, endpoints) = (node.id, node.endpoints.clone());
        let there = (node.online, node.home_relay);
        let before = self
            .directory
            .get(id)
            .map(|remote| (remote.info.endpoints.clone(), (remote.info.online, remote.info.home_relay)));
        let result = self.directory.upsert(node);
        if let Upsert::New { gone: Some(wg) } = result {
            self.device.remove_peer(wg);
        }
        let Some((info, name, live)) = self.directory.live_mut(id) else { return };
        let (wg, active) = (live.wg, live.paths.active(now, &self.policy));
        let restarted = result == Upsert::Restarted;
        if restarted {
            live.shared = SharedKey::new(&self.disco_key, &disco::PublicKey(info.disco_key));
            live.paths.forget(&self.policy);
        }
        let (old, was_there) = before.unzip();
        if restarted || old.as_ref() != Some(&endpoints) {
            let (peer, candidates) = (name.clone(), endpoints.clone());
            self.out.event(Event::Candidates { peer, candidates, via: "coordinator" });
            self.with_paths(id, now, |paths, cx| paths.set_map(&endpoints, cx));
        }
        if restarted {
            self.tell_path(id, "the other side started anew");
            if active {
                self.device.handshake(wg, now);
            }
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
        if let Some(wg) = self.directory.remove(id) {
            self.device.remove_peer(wg);
        }
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
                for id in self.directory.live_ids() {
                    self.tell_path(id, "relay connected");
                    if again {
                        self.repeat(id, now);
                    }
                }
            }
            Incoming::Down => {
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
            Incoming::HomeFailed => self.choose_home(now),
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
            Change::Settled | Change::Impatient => self.choose_home(now),
        }
    }

    fn choose_home(&mut self, now: Instant) {
        if self.nat.is_undecided() || !self.nat.is_online() {
            return;
        }
        let nat = &self.nat;
        if self.relays.choose_home(|region| nat.rtt(region), env!(self, now)) {
            self.publish();
        }
    }

    /// Tells the coordination server how we may be reached.
    fn publish(&mut self) {
        self.signalling.update(Update {
            endpoints: self.nat.candidates().to_vec(),
            home_relay: self.relays.home(),
            nat: Some(self.nat.facts()),
        });
    }

    fn is_active(&self, now: Instant) -> bool {
        let live =
            self.directory.live_ids().into_iter().filter_map(|id| self.directory.get(id)?.live.as_ref());
        live.into_iter().any(|live| live.paths.active(now, &self.policy))
    }

    // ---- path discovery ----------------------------------------------------------------------------

    /// Makes what is needed to exchange anything with a peer. Gives its tunnel.
    fn enliven(&mut self, id: u32, now: Instant) -> Option<PeerId> {
        let remote = self.directory.get(id)?;
        if let Some(live) = &remote.live {
            return Some(live.wg);
        }
        let (candidates, peer) = (remote.info.endpoints.clone(), remote.name.clone());
        let shared = SharedKey::new(&self.disco_key, &disco::PublicKey(remote.info.disco_key));
        let public_key = remote.info.node_key;
        let wg =
            self.device.add_peer(PeerConfig { public_key, preshared_key: None, persistent_keepalive: None });
        let paths = Paths::new(&self.policy);
        self.directory.enliven(id, Live { wg, shared, paths, told: None, reverse: None, deadline: None });
        if !candidates.is_empty() {
            self.out.event(Event::Candidates { peer, candidates: candidates.clone(), via: "coordinator" });
            self.with_paths(id, now, |paths, cx| paths.set_map(&candidates, cx));
        }
        Some(wg)
    }

    /// Lets the paths of a live peer act, and does what they want.
    fn with_paths(&mut self, id: u32, now: Instant, act: impl FnOnce(&mut Paths, &mut Context<'_>)) {
        let Some((_, _, live)) = self.directory.live_mut(id) else { return };
        let own = self.nat.candidates();
        act(&mut live.paths, &mut Context { now, rng: &mut self.rng, policy: &self.policy, own });
        let deadline = live.paths.poll_timeout(now, &self.policy);
        let actions: Vec<Action> = std::iter::from_fn(|| live.paths.poll_action()).collect();
        self.directory.schedule(id, deadline);
        for action in actions {
            self.perform(id, action, now);
        }
    }

    fn perform(&mut self, id: u32, action: Action, now: Instant) {
        let Some(remote) = self.directory.get(id) else { return };
        let peer = remote.name.clone();
        match action {
            Action::Ping { to, tx, attempt, why } => {
                let ping = Message::Ping { tx, node_key: Some(self.node_key), padding: 0 };
                if let Some(data) = self.seal(id, &ping) {
                    self.out.event(Event::Probe { peer, to, attempt, why });
                    self.out.datagram(to, data);
                }
            }
            Action::Call => {
                let endpoints = self.nat.candidates().to_vec();
                if let Some(data) = self.seal(id, &Message::CallMeMaybe { endpoints }) {
                    self.send_relayed(id, data, Class::Disco, now);
                }
            }
            Action::Sample => self.nat.sample(self.relays.home(), env!(self, now)),
            Action::Seen(address) => {
                self.out.event(Event::Candidates { peer, candidates: vec![address], via: "peer-reflexive" });
            }
            Action::Validated { address, rtt } => self.out.event(Event::Validated { peer, address, rtt }),
            Action::Moved { reason } => {
                self.tell_path(id, reason);
                if self.relay_of(id).is_none_or(|region| !self.relays.is_up(region)) {
                    self.hasten(id, now);
                }
            }
        }
    }

    /// Starts a handshake that may have got lost on another path, if one is wanted.
    fn hasten(&mut self, id: u32, now: Instant) {
        if let Some(live) = self.directory.get(id).and_then(|remote| remote.live.as_ref())
            && live.paths.active(now, &self.policy)
            && !self.device.is_up(live.wg, now)
        {
            self.device.handshake(live.wg, now);
        }
    }

    fn seal(&mut self, id: u32, message: &Message) -> Option<Bytes> {
        let (_, _, live) = self.directory.live_mut(id)?;
        let mut nonce = [0; 24];
        self.rng.fill_bytes(&mut nonce);
        Some(disco::seal(message, &self.disco_public, &live.shared, nonce).into())
    }

    /// A discovery message. What does not come from a peer of the map, or does not open, is ignored: anyone may send
    /// anything to an open port.
    fn disco(&mut self, data: &[u8], arrival: Arrival, now: Instant) {
        let id = disco::source(data).and_then(|key| self.directory.of_disco(&key.0));
        let Some(id) = id else { return };
        // A relay names the sender's node key: it must be the one that the map ties to the disco key.
        let Some(remote) = self.directory.get(id) else { return };
        if matches!(arrival, Arrival::Relay { src, .. } if src != remote.info.node_key) {
            return;
        }
        let (peer, key) = (remote.name.clone(), remote.info.node_key);
        if self.enliven(id, now).is_none() {
            return;
        }
        let Some((_, _, live)) = self.directory.live_mut(id) else { return };
        let Ok(message) = disco::open(data, &live.shared) else { return };
        match (message, arrival) {
            (Message::Ping { tx, node_key, .. }, Arrival::Udp(from)) => {
                if node_key.is_some_and(|claimed| claimed != key) {
                    return;
                }
                if let Some(pong) = self.seal(id, &Message::Pong { tx, src: from }) {
                    self.out.datagram(from, pong);
                }
                self.with_paths(id, now, |paths, cx| paths.pinged(from, cx));
            }
            (Message::Pong { tx, .. }, Arrival::Udp(from)) => {
                self.with_paths(id, now, |paths, cx| paths.ponged(tx, from, cx));
            }
            (Message::CallMeMaybe { endpoints }, Arrival::Relay { region, .. }) => {
                live.reverse = Some(region);
                self.out.event(Event::Candidates { peer, candidates: endpoints.clone(), via: "relay" });
                self.with_paths(id, now, |paths, cx| paths.called(&endpoints, cx));
            }
            _ => {}
        }
    }

    // ---- the tunnel --------------------------------------------------------------------------------

    fn tunnelled(&mut self, data: &[u8], arrival: Arrival, now: Instant) {
        let (source, from) = match arrival {
            Arrival::Udp(from) => (Source::Udp(from), Some(from)),
            Arrival::Relay { src, .. } => {
                if let Some(id) = self.directory.of_node(&src) {
                    self.enliven(id, now);
                }
                (Source::Relay(src), None)
            }
        };
        let sender = match self.device.handle_datagram(data, source, now) {
            Ok(Some(sender)) => sender,
            Ok(None) => return,
            // The second copy of what went both ways, or of a session that one side has given up or lost.
            Err(wireguard::Error::Replay | wireguard::Error::UnknownIndex | wireguard::Error::Expired) => {
                return;
            }
            Err(error) => {
                let from = match arrival {
                    Arrival::Udp(from) => from.to_string(),
                    Arrival::Relay { region, .. } => format!("relay region {region}"),
                };
                return self.out.warn(format!("datagram from {from}: {error}"));
            }
        };
        let Some(id) = self.directory.of_wg(sender) else { return };
        let mut content = false;
        while let Some(event) = self.device.poll_event() {
            content |= matches!(event, wireguard::Event::Packet { .. });
            self.tunnel_event(event, Some(arrival));
        }
        if let (Arrival::Relay { region, .. }, Some((_, _, live))) = (arrival, self.directory.live_mut(id)) {
            live.reverse = Some(region);
        }
        if content {
            self.nat.keep_fresh(env!(self, now));
        }
        self.with_paths(id, now, |paths, cx| paths.received(from, content, cx));
    }

    fn tunnel_event(&mut self, event: wireguard::Event, arrival: Option<Arrival>) {
        match event {
            wireguard::Event::Packet { peer, data } => {
                let remote = self.directory.of_wg(peer).and_then(|id| self.directory.get(id));
                let (Some(remote), Some(arrival)) = (remote, arrival) else { return };
                let Some((source, destination)) = addresses_of(&data) else {
                    return self.out.warn(format!("not an IP packet, from {}", remote.name));
                };
                if source != remote.info.tunnel_ip {
                    return self.out.warn(format!("packet from {}, sent by {}", source, remote.name));
                }
                if Some(destination) != self.tunnel {
                    return self
                        .out
                        .warn(format!("packet for {}, sent to us by {}", destination, remote.name));
                }
                let Some(live) = &remote.live else { return };
                let via = match arrival {
                    Arrival::Udp(from) => direct(live.paths.tier(from), from),
                    Arrival::Relay { region, .. } => {
                        Via::Relay(self.relays.name(region).cloned().unwrap_or_else(|| "relay".into()))
                    }
                };
                self.out.event(Event::Packet { peer: remote.name.clone(), data, via });
            }
            wireguard::Event::SessionUp { peer, initiator } => {
                if let Some(remote) = self.directory.of_wg(peer).and_then(|id| self.directory.get(id)) {
                    self.out.event(Event::Session { peer: remote.name.clone(), initiator });
                }
            }
            wireguard::Event::HandshakeFailed { peer } => {
                if let Some(remote) = self.directory.of_wg(peer).and_then(|id| self.directory.get(id)) {
                    self.out.warn(format!("no answer to handshakes from {}", remote.name));
                }
            }
            wireguard::Event::SessionExpired { .. } => {}
        }
    }

    /// Sends what the tunnel has produced.
    fn flush_tunnel(&mut self, now: Instant) {
        while let Some(event) = self.device.poll_event() {
            self.tunnel_event(event, None);
        }
        while let Some(transmit) = self.device.poll_transmit() {
            match transmit.to {
                To::Peer(peer) => {
                    if let Some(id) = self.directory.of_wg(peer) {
                        self.send_tunnel(id, transmit.data, transmit.kind, now);
                    }
                }
                To::Reply(Source::Udp(to)) => self.out.datagram(to, transmit.data),
                To::Reply(Source::Relay(key)) => {
                    if let Some(id) = self.directory.of_node(&key) {
                        self.send_relayed(id, transmit.data, Class::Data, now);
                    }
                }
            }
        }
    }

    fn send_tunnel(&mut self, id: u32, data: Bytes, kind: Kind, now: Instant) {
        let Some((_, _, live)) = self.directory.live_mut(id) else { return };
        let route = live.paths.route(kind == Kind::Data, now, &self.policy);
        let deadline = live.paths.poll_timeout(now, &self.policy);
        self.directory.schedule(id, deadline);
        match route {
            Route::Direct(to) => self.out.datagram(to, data),
            Route::Both(to) => {
                self.out.datagram(to, data.clone());
                self.send_relayed(id, data, Class::Data, now);
            }
            Route::Relay => self.send_relayed(id, data, Class::Data, now),
        }
    }

    // ---- relays ------------------------------------------------------------------------------------

    /// The relay to reach a peer by: where it is at home, or where it last was heard if only that is connected.
    fn relay_of(&self, id: u32) -> Option<u16> {
        let remote = self.directory.get(id)?;
        let home = remote.info.home_relay.filter(|&region| self.relays.knows(region));
        let reverse = remote.live.as_ref().and_then(|live| live.reverse);
        let connected = home.into_iter().chain(reverse).find(|&region| self.relays.is_up(region));
        connected.or(home).or(reverse).or(self.relays.home())
    }

    fn send_relayed(&mut self, id: u32, data: Bytes, class: Class, now: Instant) {
        let region = self.relay_of(id);
        let key = self.directory.get(id).map(|remote| remote.info.node_key);
        if let (Some(region), Some(key)) = (region, key) {
            self.relays.send(region, key, data, class, env!(self, now));
        }
    }

    /// Reports the path to a peer if it is another one than was last reported.
    fn tell_path(&mut self, id: u32, reason: &'static str) {
        let Some(remote) = self.directory.get(id) else { return };
        let Some(live) = &remote.live else { return };
        let path = match live.paths.selected() {
            Some((address, tier)) => Some(direct(tier, address)),
            None if live.paths.had_traffic() => {
                let up = self.relay_of(id).filter(|&region| self.relays.is_up(region));
                up.and_then(|region| self.relays.name(region)).cloned().map(Via::Relay)
            }
            None => None,
        };
        let peer = remote.name.clone();
        let Some((_, _, live)) = self.directory.live_mut(id) else { return };
        if live.told != path {
            live.told = path.clone();
            self.out.event(Event::PathChanged { peer, path, reason });
        }
    }
}

fn direct(tier: Tier, address: SocketAddr) -> Via {
    match tier {
        Tier::Lan => Via::Lan(address),
        Tier::Direct => Via::Direct(address),
    }
}

/// Source and destination of an IP packet (RFC 791 §3.1, RFC 8200 §3).
fn addresses_of(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn at<const N: usize>(packet: &[u8], offset: usize) -> Option<[u8; N]> {
        packet.get(offset..)?.first_chunk().copied()
    }
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => Some((at::<4>(packet, 12)?.into(), at::<4>(packet, 16)?.into())),
        6 if packet.len() >= 40 => Some((at::<16>(packet, 8)?.into(), at::<16>(packet, 24)?.into())),
        _ => None,
    }
}
