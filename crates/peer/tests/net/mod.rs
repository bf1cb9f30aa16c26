//! A small internet for tests: hosts behind routers, two relays with STUN, a coordination server. Real cores everywhere; the
//! network between them is a heap of deliveries. UDP may be lost, TCP is not.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coord::RelayInfo;
use peer::{Config, ConnId, Event, Input, Keys, Peer, Policy, Transmit, Via};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

pub(crate) const COORDINATOR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const RELAYS: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 2), Ipv4Addr::new(203, 0, 113, 3)];

/// Unix time at the start, in seconds.
pub(crate) const EPOCH: u64 = 1_800_000_000;

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[expect(clippy::disallowed_methods, reason = "the test world counts from some instant")]
fn start() -> Instant {
    Instant::now()
}

/// What a router does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nat {
    /// One mapping for all destinations, filtered by address and port.
    PortRestricted,
    /// A mapping per destination, filtered by address and port.
    Symmetric,
    /// No UDP at all.
    UdpBlocked,
}

#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) nat: Nat,
    ip: Ipv4Addr,
    /// (inside, destination if it matters) -> external port.
    out: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    /// External port -> host, allowed remotes.
    inside: BTreeMap<u16, (usize, BTreeSet<SocketAddr>)>,
    next_port: u16,
    /// Drops all UDP while set.
    pub(crate) dark: bool,
    /// Drops UDP to other homes on its way out while set.
    pub(crate) mute: bool,
}

impl Router {
    /// Loses every mapping and starts from other ports, as a reboot does.
    pub(crate) fn reboot(&mut self) {
        self.out.clear();
        self.inside.clear();
        self.next_port += 1000;
    }
}

pub(crate) struct Host {
    pub(crate) peer: Peer,
    pub(crate) router: usize,
    local: SocketAddr,
    credit: BTreeMap<ConnId, SocketAddr>,
    timer: Option<Instant>,
    pub(crate) tunnel: Option<IpAddr>,
}

enum Due {
    Timer(usize),
    ServerTimer(usize),
    /// To a host's outside, or to a server.
    Udp {
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    },
    /// Within a LAN.
    Lan {
        from: SocketAddr,
        host: usize,
        data: Bytes,
    },
    Open {
        host: usize,
        conn: ConnId,
        to: SocketAddr,
    },
    ToHost {
        host: usize,
        conn: ConnId,
        what: ToHost,
    },
    ToServer {
        server: usize,
        key: u64,
        data: Option<Bytes>,
    },
}

enum ToHost {
    Connected,
    Stream(Bytes),
    Closed,
}

enum Core {
    Coord(Box<coord::server::Server>),
    Relay(Box<derp::Server>),
}

struct Server {
    ip: Ipv4Addr,
    core: Core,
    timer: Option<Instant>,
    conns: BTreeMap<u64, (usize, ConnId)>,
    pub(crate) up: bool,
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    dues: BTreeMap<u64, Due>,
    seq: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) routers: Vec<Router>,
    servers: Vec<Server>,
    rng: ChaCha12Rng,
    /// One way, host to host.
    pub(crate) direct: Duration,
    /// One way, host to server; a relayed packet takes twice that.
    pub(crate) to_server: Duration,
    /// Home and server that are further apart than `to_server`, and how far.
    pub(crate) far: BTreeMap<(usize, Ipv4Addr), Duration>,
    /// Lost UDP datagrams per thousand.
    pub(crate) loss: u32,
    /// TCP ports that do not answer.
    pub(crate) silent_ports: BTreeSet<u16>,
    pub(crate) events: Vec<(Duration, usize, Event)>,
    /// Every datagram and stream byte that left a peer, in order.
    pub(crate) wire: Vec<u8>,
    /// Datagrams that each host sent, by first byte.
    pub(crate) sent: Vec<u64>,
}

impl Net {
    /// Hosts behind routers; `homes[i]` lists the routers' hosts by last octet.
    pub(crate) fn new(seed: u64, homes: &[(Nat, &[u8])], relays: usize) -> Net {
        let now = start();
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut fork = || ChaCha12Rng::seed_from_u64(rng.random());
        let infos: Vec<RelayInfo> = RELAYS
            .iter()
            .enumerate()
            .map(|(i, &ip)| RelayInfo {
                region: i as u16 + 1,
                name: format!("relay-{i}"),
                key: derp::PrivateKey::from_bytes([i as u8 + 50; 32]).public().0,
                addr: ip.into(),
                addr6: None,
                derp_ports: if i < relays { vec![443, 80] } else { vec![] },
                tls: None,
                stun: vec![SocketAddr::new(ip.into(), 3478)],
            })
            .collect();
        let epoch = Duration::from_secs(EPOCH);
        let served =
            coord::server::ServerConfig { epoch, ..coord::server::ServerConfig::new([99; 32], infos) };
        let coord = coord::server::Server::new(served, fork(), now);
        let mut servers = vec![Server::new(COORDINATOR, Core::Coord(Box::new(coord)))];
        for (i, &ip) in RELAYS.iter().enumerate() {
            let key = derp::PrivateKey::from_bytes([i as u8 + 50; 32]);
            let relay = derp::Server::new(derp::ServerConfig::default(), key, fork(), now);
            servers.push(Server::new(ip, Core::Relay(Box::new(relay))));
        }
        let (mut hosts, mut routers) = (Vec::new(), Vec::new());
        for (r, (nat, octets)) in homes.iter().enumerate() {
            for &octet in *octets {
                let n = hosts.len() as u8;
                hosts.push(Host {
                    peer: Peer::new(config(n, n + 101, ms(0)), fork(), now),
                    router: r,
                    local: SocketAddr::new(Ipv4Addr::new(192, 168, 1, octet).into(), 41641),
                    credit: BTreeMap::new(),
                    timer: None,
                    tunnel: None,
                });
            }
            routers.push(Router {
                nat: *nat,
                ip: Ipv4Addr::new(198, 51, 100, r as u8 + 1),
                out: BTreeMap::new(),
                inside: BTreeMap::new(),
                next_port: 20_000 + 500 * r as u16,
                dark: false,
                mute: false,
            });
        }
        let sent = vec![0; hosts.len()];
        let mut net = Net {
            now,
            start: now,
            heap: BinaryHeap::new(),
            dues: BTreeMap::new(),
            seq: 0,
            hosts,
            routers,
            servers,
            rng,
            direct: ms(25),
            to_server: ms(30),
            far: BTreeMap::new(),
            loss: 0,
            silent_ports: BTreeSet::new(),
            events: Vec::new(),
            wire: Vec::new(),
            sent,
        };
        for host in 0..net.hosts.len() {
            let local = net.hosts[host].local;
            net.input(host, Input::Addresses(&[local]));
        }
        net
    }

    /// A host has another address, and its connections from the old one are dead.
    pub(crate) fn relocate(&mut self, host: usize, octet: u8) {
        let local = SocketAddr::new(Ipv4Addr::new(192, 168, 1, octet).into(), 41641);
        self.hosts[host].local = local;
        self.hosts[host].credit.clear();
        self.input(host, Input::Addresses(&[local]));
    }

    /// A host's process ends and starts again, with another disco key.
    pub(crate) fn restart(&mut self, host: usize) {
        let rng = ChaCha12Rng::seed_from_u64(self.rng.random());
        let n = host as u8;
        self.close_all(host);
        self.hosts[host].peer = Peer::new(config(n, n + 201, self.elapsed()), rng, self.now);
        let local = self.hosts[host].local;
        self.input(host, Input::Addresses(&[local]));
    }

    /// The same with the map that it had, and the key.
    pub(crate) fn restart_with_map(&mut self, host: usize) {
        let (map, node) = (self.hosts[host].peer.map(), self.hosts[host].peer.private_key());
        let rng = ChaCha12Rng::seed_from_u64(self.rng.random());
        let n = host as u8;
        self.close_all(host);
        let fresh = config(n, n + 201, self.elapsed());
        let config = Config { map: map.map(Box::new), keys: Keys { node, ..fresh.keys }, ..fresh };
        self.hosts[host].peer = Peer::new(config, rng, self.now);
        let local = self.hosts[host].local;
        self.input(host, Input::Addresses(&[local]));
    }

    /// Does something to the coordination server, as its administrator.
    pub(crate) fn administer(&mut self, act: impl FnOnce(&mut coord::server::Server, Instant)) {
        let now = self.now;
        if let Core::Coord(core) = &mut self.servers[0].core {
            act(core, now);
        }
        self.drain_server(0);
    }

    /// The servers learn that a host's connections are gone.
    fn close_all(&mut self, host: usize) {
        self.hosts[host].credit.clear();
        for index in 0..self.servers.len() {
            let now = self.now;
            let server = &mut self.servers[index];
            let gone: Vec<u64> =
                server.conns.iter().filter(|(_, (owner, _))| *owner == host).map(|(key, _)| *key).collect();
            for key in gone {
                server.conns.remove(&key);
                match &mut server.core {
                    Core::Coord(core) => core.closed(coord::server::ConnId(key), now),
                    Core::Relay(core) => core.closed(derp::ConnId(key), now),
                }
            }
            self.drain_server(index);
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn input(&mut self, host: usize, input: Input<'_>) {
        self.hosts[host].peer.handle(input, self.now);
        self.drain(host);
    }

    /// Sends an IPv4 packet with `payload` from one host's program to the other's tunnel address.
    pub(crate) fn tunnel_send(&mut self, from: usize, to: usize, payload: &[u8]) {
        let (Some(IpAddr::V4(src)), Some(IpAddr::V4(dst))) = (self.hosts[from].tunnel, self.hosts[to].tunnel)
        else {
            panic!("not registered");
        };
        let packet = ipv4(src, dst, payload);
        self.input(from, Input::Packet(&packet));
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| false);
    }

    /// Runs until `done`, but not beyond `end`.
    pub(crate) fn run_until(&mut self, end: Instant, mut done: impl FnMut(&Net) -> bool) -> bool {
        while !done(self) {
            match self.heap.peek() {
                Some(Reverse((at, _))) if *at <= end => {}
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
            let Some(Reverse((at, seq))) = self.heap.pop() else { return false };
            assert!(at >= self.now, "an event in the past");
            self.now = at;
            let due = self.dues.remove(&seq).expect("each event is due once");
            self.happen(due);
        }
        true
    }

    fn push(&mut self, at: Instant, due: Due) {
        self.heap.push(Reverse((at, self.seq)));
        self.dues.insert(self.seq, due);
        self.seq += 1;
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Timer(host) => {
                if self.hosts[host].timer.is_some_and(|at| at <= self.now) {
                    self.hosts[host].timer = None;
                    self.hosts[host].peer.handle_timeout(self.now);
                    self.drain(host);
                }
            }
            Due::ServerTimer(server) => {
                let (now, server_ref) = (self.now, &mut self.servers[server]);
                if server_ref.timer.is_some_and(|at| at <= now) {
                    server_ref.timer = None;
                    match &mut server_ref.core {
                        Core::Coord(core) => core.handle_timeout(now),
                        Core::Relay(core) => core.handle_timeout(now),
                    }
                    self.drain_server(server);
                }
            }
            Due::Udp { from, to, data } => self.udp_arrives(from, to, &data),
            Due::Lan { from, host, data } => self.input(host, Input::Datagram { from, data: &data }),
            Due::Open { host, conn, to } => self.open(host, conn, to),
            Due::ToHost { host, conn, what } => {
                if !self.hosts[host].credit.contains_key(&conn) {
                    return;
                }
                match what {
                    ToHost::Connected => {
                        self.input(host, Input::Connected(conn));
                        self.input(host, Input::Writable(conn, 65_536));
                    }
                    ToHost::Stream(data) => self.input(host, Input::Stream(conn, &data)),
                    ToHost::Closed => {
                        self.hosts[host].credit.remove(&conn);
                        self.input(host, Input::Closed(conn));
                    }
                }
            }
            Due::ToServer { server, key, data } => {
                let now = self.now;
                let server_ref = &mut self.servers[server];
                if !server_ref.conns.contains_key(&key) {
                    return;
                }
                match (&mut server_ref.core, data) {
                    (Core::Coord(core), Some(data)) => {
                        core.handle_stream(coord::server::ConnId(key), &data, now);
                    }
                    (Core::Relay(core), Some(data)) => core.handle_stream(derp::ConnId(key), &data, now),
                    (Core::Coord(core), None) => core.closed(coord::server::ConnId(key), now),
                    (Core::Relay(core), None) => core.closed(derp::ConnId(key), now),
                }
                self.drain_server(server);
            }
        }
    }

    fn drain(&mut self, host: usize) {
        let now = self.now;
        while let Some(event) = self.hosts[host].peer.poll_event() {
            if let Event::Registered { tunnel, .. } | Event::Remembered { tunnel, .. } = event {
                self.hosts[host].tunnel = Some(tunnel);
            }
            self.events.push((now - self.start, host, event));
        }
        let mut written = BTreeSet::new();
        while let Some(transmit) = self.hosts[host].peer.poll_transmit() {
            match transmit {
                Transmit::Datagram { to, data } => {
                    self.wire.extend_from_slice(&data);
                    self.sent[host] += 1;
                    self.udp_leaves(host, to, data);
                }
                Transmit::Connect { conn, to } => {
                    self.hosts[host].credit.insert(conn, to);
                    let delay = self.delay(self.hosts[host].router, to.ip());
                    self.push(now + delay, Due::Open { host, conn, to });
                }
                Transmit::Write { conn, data } => {
                    self.wire.extend_from_slice(&data);
                    written.insert(conn);
                    self.stream_leaves(host, conn, Some(data));
                }
                Transmit::Close(conn) => {
                    self.stream_leaves(host, conn, None);
                    self.hosts[host].credit.remove(&conn);
                }
            }
        }
        for conn in written {
            self.hosts[host].peer.handle(Input::Writable(conn, 65_536), now);
        }
        let next = self.hosts[host].peer.poll_timeout().map(|(at, _)| at.max(now));
        if let Some(at) = next
            && self.hosts[host].timer != next
        {
            self.hosts[host].timer = next;
            self.push(at, Due::Timer(host));
        }
    }

    // ---- UDP -----------------------------------------------------------------------------------

    fn lost(&mut self) -> bool {
        self.loss > 0 && self.rng.random_range(0..1000) < self.loss
    }

    fn udp_leaves(&mut self, host: usize, to: SocketAddr, data: Bytes) {
        let (router, local) = (self.hosts[host].router, self.hosts[host].local);
        let neighbour = |other: &Host| other.router == router && other.local == to;
        if let Some(other) = self.hosts.iter().position(neighbour) {
            return self
                .push(self.now + Duration::from_micros(300), Due::Lan { from: local, host: other, data });
        }
        let IpAddr::V4(ip) = to.ip() else { return };
        let nat = &mut self.routers[router];
        if ip.is_private() || nat.nat == Nat::UdpBlocked || nat.dark || ip == nat.ip {
            return;
        }
        let destination = (nat.nat == Nat::Symmetric).then_some(to);
        let port = *nat.out.entry((local, destination)).or_insert_with(|| {
            nat.next_port += 7;
            nat.next_port
        });
        nat.inside.entry(port).or_insert_with(|| (host, BTreeSet::new())).1.insert(to);
        let from = SocketAddr::new(nat.ip.into(), port);
        if self.lost() {
            return;
        }
        let server = self.servers.iter().any(|server| server.ip == ip);
        if !server && self.routers[router].mute {
            return;
        }
        let delay = if server { self.delay(router, to.ip()) } else { self.direct };
        self.push(self.now + delay, Due::Udp { from, to, data });
    }

    fn udp_arrives(&mut self, from: SocketAddr, to: SocketAddr, data: &Bytes) {
        if let Some(server) = self.servers.iter().find(|server| to.ip() == server.ip) {
            if let (true, 3478) = (server.up, to.port())
                && let Some(response) = stun::server::Server::new().respond(to, from, data)
                && !self.lost()
            {
                let home = self
                    .routers
                    .iter()
                    .position(|router| response.to.ip() == router.ip)
                    .unwrap_or(usize::MAX);
                let (at, data) = (self.now + self.delay(home, to.ip()), response.data.into());
                self.push(at, Due::Udp { from: response.from_local, to: response.to, data });
            }
            return;
        }
        let Some(router) = self.routers.iter().find(|router| to.ip() == router.ip) else { return };
        if router.dark {
            return;
        }
        if let Some((host, allowed)) = router.inside.get(&to.port())
            && allowed.contains(&from)
        {
            self.input(*host, Input::Datagram { from, data });
        }
    }

    // ---- TCP -----------------------------------------------------------------------------------

    fn delay(&self, router: usize, server: IpAddr) -> Duration {
        let IpAddr::V4(ip) = server else { return self.to_server };
        self.far.get(&(router, ip)).copied().unwrap_or(self.to_server)
    }

    pub(crate) fn set_server(&mut self, ip: Ipv4Addr, up: bool) {
        let index = self.servers.iter().position(|server| server.ip == ip).expect("a server");
        self.servers[index].up = up;
        if up {
            return;
        }
        let now = self.now;
        for (key, (host, conn)) in std::mem::take(&mut self.servers[index].conns) {
            match &mut self.servers[index].core {
                Core::Coord(core) => core.closed(coord::server::ConnId(key), now),
                Core::Relay(core) => core.closed(derp::ConnId(key), now),
            }
            let delay = self.delay(self.hosts[host].router, ip.into());
            self.push(now + delay, Due::ToHost { host, conn, what: ToHost::Closed });
        }
    }

    fn open(&mut self, host: usize, conn: ConnId, to: SocketAddr) {
        if self.silent_ports.contains(&to.port()) {
            return;
        }
        let Some(index) = self.servers.iter().position(|server| to.ip() == server.ip) else { return };
        let at = self.now + self.delay(self.hosts[host].router, to.ip());
        if !self.servers[index].up {
            return self.push(at, Due::ToHost { host, conn, what: ToHost::Closed });
        }
        let key = (host as u64) << 32 | u64::from(conn.0);
        let from = SocketAddr::new(self.routers[self.hosts[host].router].ip.into(), 1024 + conn.0 as u16);
        let now = self.now;
        let server = &mut self.servers[index];
        server.conns.insert(key, (host, conn));
        match &mut server.core {
            Core::Coord(core) => {
                core.accepted(coord::server::ConnId(key), from, now);
                core.writable(coord::server::ConnId(key), 1 << 20, now);
            }
            Core::Relay(core) => {
                core.accepted(derp::ConnId(key), from, now);
                core.writable(derp::ConnId(key), 1 << 20, now);
            }
        }
        self.push(at, Due::ToHost { host, conn, what: ToHost::Connected });
        self.drain_server(index);
    }

    fn stream_leaves(&mut self, host: usize, conn: ConnId, data: Option<Bytes>) {
        let Some(to) = self.hosts[host].credit.get(&conn) else { return };
        let Some(server) = self.servers.iter().position(|server| to.ip() == server.ip) else { return };
        let key = (host as u64) << 32 | u64::from(conn.0);
        let delay = self.delay(self.hosts[host].router, to.ip());
        self.push(self.now + delay, Due::ToServer { server, key, data });
    }

    fn drain_server(&mut self, index: usize) {
        let ip = self.servers[index].ip;
        loop {
            let (key, data) = match &mut self.servers[index].core {
                Core::Coord(core) => match core.poll_transmit() {
                    Some(coord::server::ServerTransmit::Write { conn, data }) => {
                        core.writable(conn, 1 << 20, self.now);
                        (conn.0, Some(data))
                    }
                    Some(coord::server::ServerTransmit::Close { conn }) => (conn.0, None),
                    None => break,
                },
                Core::Relay(core) => match core.poll_transmit() {
                    Some(derp::ServerTransmit::Write { conn, data }) => {
                        core.writable(conn, 1 << 20, self.now);
                        (conn.0, Some(data))
                    }
                    Some(derp::ServerTransmit::Close { conn }) => (conn.0, None),
                    // Without a rate limit it reads from all.
                    Some(derp::ServerTransmit::Hold { .. }) => continue,
                    None => break,
                },
            };
            let Some(&(host, conn)) = self.servers[index].conns.get(&key) else { continue };
            let what = data.map_or(ToHost::Closed, ToHost::Stream);
            if matches!(what, ToHost::Closed) {
                self.servers[index].conns.remove(&key);
            }
            let at = self.now + self.delay(self.hosts[host].router, ip.into());
            self.push(at, Due::ToHost { host, conn, what });
        }
        let server = &mut self.servers[index];
        let next = match &server.core {
            Core::Coord(core) => core.poll_timeout(),
            Core::Relay(core) => core.poll_timeout(),
        };
        let next = next.map(|(at, _)| at.max(self.now));
        if let Some(at) = next
            && server.timer != next
        {
            server.timer = next;
            self.push(at, Due::ServerTimer(index));
        }
    }

    // ---- looking -------------------------------------------------------------------------------

    /// When a host first reported something after `since`, counted from then.
    pub(crate) fn first(
        &self,
        host: usize,
        since: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Option<Duration> {
        self.events
            .iter()
            .find(|(at, who, event)| *who == host && *at >= since && wanted(event))
            .map(|(at, ..)| *at - since)
    }

    /// The last path that a host reported.
    pub(crate) fn path(&self, host: usize) -> Option<Via> {
        self.events.iter().rev().find_map(|(_, who, event)| match event {
            Event::PathChanged { path, .. } if *who == host => Some(path.clone()),
            _ => None,
        })?
    }

    /// Payloads that came out of a host's tunnel since a time, in order, with their way.
    pub(crate) fn received(&self, host: usize, since: Duration) -> Vec<(Duration, Vec<u8>, Via)> {
        self.events
            .iter()
            .filter_map(|(at, who, event)| match event {
                Event::Packet { data, via, .. } if *who == host && *at >= since => {
                    Some((*at, data[20..].to_vec(), via.clone()))
                }
                _ => None,
            })
            .collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(.., event)| wanted(event)).count()
    }
}

fn config(host: u8, disco: u8, since: Duration) -> Config {
    Config {
        name: format!("host-{host}"),
        keys: Keys { node: [host + 1; 32], disco: [disco; 32], machine: [host + 151; 32] },
        coordinator: [443, 80].map(|port| SocketAddr::new(COORDINATOR.into(), port)).to_vec(),
        coordinator_key: coord::public_key(&[99; 32]),
        coordinator_host: String::new(),
        auth_key: None,
        coordinator_tls: None,
        authorities: None,
        map: None,
        epoch: Duration::from_secs(EPOCH) + since,
        proxy: None,
        policy: Policy::default(),
    }
}

impl Server {
    fn new(ip: Ipv4Addr, core: Core) -> Server {
        Server { ip, core, timer: None, conns: BTreeMap::new(), up: true }
    }
}

/// A minimal IPv4 packet of protocol 253 (experiments, RFC 3692).
pub(crate) fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 64, 253, 0, 0];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}
