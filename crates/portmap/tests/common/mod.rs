//! A LAN with one client and one gateway, each packet a millisecond on its way, and a NAT that is a table.
#![allow(dead_code, reason = "each test uses its part")]

use portmap::client::{self, Client, ClientConfig};
use portmap::gateway::{self, Conduct, Gateway, GatewayConfig, MapError, Request};
use portmap::{ANNOUNCE_PORT, Proto, upnp};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub(crate) const HOST: &str = "192.168.1.2:41641";
pub(crate) const ROUTER: &str = "192.168.1.1";
pub(crate) const WAN: &str = "203.0.113.7";

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn router() -> GatewayConfig {
    GatewayConfig::new(ip(ROUTER))
}

/// A gateway that speaks only these of "pcp", "nat-pmp" and "upnp".
pub(crate) fn speaks(protocols: &[&str]) -> GatewayConfig {
    GatewayConfig {
        pcp: protocols.contains(&"pcp"),
        nat_pmp: protocols.contains(&"nat-pmp"),
        upnp: protocols.contains(&"upnp").then_some(upnp::IgdVersion::V2),
        ..router()
    }
}

enum Arrival {
    ToGateway(u16, SocketAddr, Vec<u8>),
    ToClient(SocketAddr, Vec<u8>),
    Announced(SocketAddr, Vec<u8>),
    Accept(u32),
    GatewayStream(u32, Vec<u8>),
    ClientStream(u32, Vec<u8>),
    GatewayClosed(u32),
    ClientClosed(u32),
    Open(u32),
}

pub(crate) struct Lan {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) client: Client,
    pub(crate) gateway: Gateway,
    /// External port by transport, to inside.
    pub(crate) nat: BTreeMap<(Proto, u16), SocketAddr>,
    pub(crate) wan: IpAddr,
    pub(crate) events: Vec<client::Event>,
    pub(crate) log: Vec<gateway::Event>,
    /// Datagrams that the client sent, with when.
    pub(crate) sent: Vec<(Duration, SocketAddr, Vec<u8>)>,
    /// Ports that the NAT has given to others.
    pub(crate) taken: Vec<u16>,
    /// Drops everything on its way to the gateway.
    pub(crate) cut: bool,
    queue: BTreeMap<(Instant, u64), Arrival>,
    count: u64,
    http: bool,
}

impl Lan {
    pub(crate) fn new(config: GatewayConfig) -> Lan {
        Lan::with(config, ClientConfig::new(addr(HOST), ip(ROUTER)))
    }

    pub(crate) fn with(config: GatewayConfig, client: ClientConfig) -> Lan {
        Lan::behind(config, client, ip(WAN))
    }

    pub(crate) fn behind(config: GatewayConfig, client: ClientConfig, wan: IpAddr) -> Lan {
        let now = start();
        let http = config.upnp.is_some();
        let mut lan = Lan {
            now,
            start: now,
            client: Client::new(client, ChaCha12Rng::seed_from_u64(2), now),
            gateway: Gateway::new(config, ChaCha12Rng::seed_from_u64(1), now),
            nat: BTreeMap::new(),
            wan,
            events: Vec::new(),
            log: Vec::new(),
            sent: Vec::new(),
            taken: Vec::new(),
            cut: false,
            queue: BTreeMap::new(),
            count: 0,
            http,
        };
        lan.gateway.handle(gateway::Input::External(Some(wan)), now);
        lan
    }

    /// The router starts anew, with everything lost.
    pub(crate) fn reboot(&mut self) {
        let config = self.gateway.config().clone();
        self.gateway = Gateway::new(config, ChaCha12Rng::seed_from_u64(3), self.now);
        self.nat.clear();
        self.gateway.handle(gateway::Input::External(Some(self.wan)), self.now);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let timers = [self.client.poll_timeout(), self.gateway.poll_timeout()];
            let timer = timers.into_iter().flatten().map(|(at, _)| at).min();
            let Some(next) = queued.into_iter().chain(timer).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if queued.is_some_and(|at| at <= self.now) {
                let (_, arrival) = self.queue.pop_first().expect("one is due");
                self.arrive(arrival);
            } else {
                self.client.handle_timeout(self.now);
                self.gateway.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn later(&mut self, arrival: Arrival) {
        self.count += 1;
        self.queue.insert((self.now + Duration::from_millis(1), self.count), arrival);
    }

    fn arrive(&mut self, arrival: Arrival) {
        let now = self.now;
        match arrival {
            Arrival::ToGateway(..) | Arrival::Accept(_) | Arrival::GatewayStream(..) if self.cut => {}
            Arrival::ToGateway(to, from, data) => {
                self.gateway.handle(gateway::Input::Datagram { to, from, data: &data }, now);
            }
            Arrival::ToClient(from, data) => {
                self.client.handle(client::Input::Datagram { from, data: &data }, now);
            }
            Arrival::Announced(from, data) => {
                self.client.handle(client::Input::Announcement { from, data: &data }, now);
            }
            Arrival::Accept(conn) if self.http && self.gateway.config().conduct != Conduct::Silent => {
                let id = gateway::ConnId(conn.into());
                self.gateway
                    .handle(gateway::Input::Accepted { conn: id, from: addr("192.168.1.2:50000") }, now);
                self.gateway.handle(gateway::Input::Writable { conn: id, space: 1000 }, now);
                self.later(Arrival::Open(conn));
            }
            Arrival::Accept(conn) => self.later(Arrival::ClientClosed(conn)),
            Arrival::Open(conn) => {
                self.client.handle(client::Input::Writable(client::ConnId(conn), 300), now);
            }
            Arrival::GatewayStream(conn, data) => {
                let id = gateway::ConnId(conn.into());
                self.gateway.handle(gateway::Input::Stream { conn: id, data: &data }, now);
                self.later(Arrival::Open(conn));
            }
            Arrival::ClientStream(conn, data) => {
                self.client.handle(client::Input::Stream(client::ConnId(conn), &data), now);
                let id = gateway::ConnId(conn.into());
                self.gateway.handle(gateway::Input::Writable { conn: id, space: 1000 }, now);
            }
            Arrival::GatewayClosed(conn) => {
                self.gateway.handle(gateway::Input::Closed { conn: gateway::ConnId(conn.into()) }, now);
            }
            Arrival::ClientClosed(conn) => {
                self.client.handle(client::Input::Closed(client::ConnId(conn)), now);
            }
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            match transmit {
                client::Transmit::Datagram { to, data } => {
                    self.sent.push((self.elapsed(), to, data.to_vec()));
                    self.later(Arrival::ToGateway(to.port(), addr(HOST), data.to_vec()));
                }
                client::Transmit::Connect { conn, .. } => self.later(Arrival::Accept(conn.0)),
                client::Transmit::Write { conn, data } => {
                    self.later(Arrival::GatewayStream(conn.0, data.to_vec()));
                }
                client::Transmit::Close(conn) => self.later(Arrival::GatewayClosed(conn.0)),
            }
        }
        loop {
            while let Some(request) = self.gateway.poll_request() {
                self.serve(request);
            }
            let Some(transmit) = self.gateway.poll_transmit() else { break };
            match transmit {
                gateway::Transmit::Datagram { port, to, data } => {
                    let from = SocketAddr::new(ip(ROUTER), port);
                    if to.ip().is_multicast() {
                        assert!([ANNOUNCE_PORT, upnp::SSDP.port()].contains(&to.port()));
                        self.later(Arrival::Announced(from, data.to_vec()));
                    } else {
                        self.later(Arrival::ToClient(from, data.to_vec()));
                    }
                }
                gateway::Transmit::Write { conn, data } => {
                    self.later(Arrival::ClientStream(conn.0 as u32, data.to_vec()));
                }
                gateway::Transmit::Close { conn } => self.later(Arrival::ClientClosed(conn.0 as u32)),
            }
        }
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
        self.log.extend(std::iter::from_fn(|| self.gateway.poll_event()));
    }

    fn serve(&mut self, request: Request) {
        let (id, result) = match request {
            Request::Map { id, proto, inside, port, exact } => {
                let free = |port: &u16| !self.taken.contains(port) && !self.nat.contains_key(&(proto, *port));
                let wanted = port.unwrap_or(inside.port());
                let found = if free(&wanted) { Some(wanted) } else { (1024..).find(free).filter(|_| !exact) };
                (
                    id,
                    found.ok_or(MapError::Taken).map(|port| {
                        self.nat.insert((proto, port), inside);
                        SocketAddr::new(self.wan, port)
                    }),
                )
            }
            Request::Peer { id, .. } => (id, Err(MapError::Unsupported)),
            Request::Unmap { proto, external, .. } => {
                self.nat.remove(&(proto, external.port()));
                return;
            }
        };
        self.gateway.handle(gateway::Input::Answer { id, result }, self.now);
    }
}
