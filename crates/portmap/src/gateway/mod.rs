//! The router's side: three protocols over one table of leases.
//!
//! The gateway has no NAT. It asks its owner by [`Request`]s to open and close ports, and hears the outcome by
//! [`Input::Answer`]; the owner may take its time. A reboot is a new gateway: its epoch begins at zero, and it announces
//! itself (RFC 6886 §3.2.1, RFC 6887 §14.1.3).

mod config;
mod datagrams;
mod io;
mod leases;
mod web;

pub use config::{Conduct, GatewayConfig};
pub use io::{ConnId, Event, Input, MapError, Request, RequestId, Transmit};

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt as _;
use rand_chacha::ChaCha12Rng;

use crate::pcp::{self, Nonce};
use crate::{ANNOUNCE_PORT, Proto, Protocol, SERVER_PORT, is_public, upnp};
use leases::{Lease, Leases};

/// Why a mapping is refused, before a protocol gives it a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum No {
    NotAuthorized,
    NetworkFailure,
    Full,
    Quota,
    Taken,
    Unsupported,
}

impl From<MapError> for No {
    fn from(error: MapError) -> No {
        match error {
            MapError::Taken => No::Taken,
            MapError::Full => No::Full,
            MapError::Unsupported => No::Unsupported,
        }
    }
}

/// A mapping that somebody wants.
#[derive(Clone, Debug)]
struct Wish {
    protocol: Protocol,
    proto: Proto,
    inside: SocketAddr,
    remote: Option<SocketAddr>,
    /// 0: any.
    port: u16,
    exact: bool,
    lifetime: Option<Duration>,
    nonce: Option<Nonce>,
    text: String,
}

/// Who waits for the answer.
#[derive(Clone, Debug)]
enum Asker {
    NatPmp { from: SocketAddr, internal: u16 },
    Pcp { from: SocketAddr, op: pcp::Op, options: Vec<pcp::Opt>, request: Bytes },
    Upnp { conn: ConnId, from: SocketAddr, action: upnp::soap::Action },
}

/// Requests to the owner that may be unanswered at a time.
const MAX_PENDING: usize = 256;
/// Announcements after a start (RFC 6886 §3.2.1, RFC 6887 §14.1.3: ten, the gaps doubling from 250 ms).
const ANNOUNCEMENTS: u32 = 10;
const ANNOUNCE_GAP: Duration = Duration::from_millis(250);

/// A gateway. See the [module](self).
#[derive(Debug)]
pub struct Gateway {
    config: GatewayConfig,
    rng: ChaCha12Rng,
    external: Option<IpAddr>,
    started: Instant,
    announced: u32,
    announce_at: Option<Instant>,
    uuid: String,
    leases: Leases,
    pending: BTreeMap<RequestId, (Wish, Asker)>,
    next_request: u64,
    web: web::Web,
    transmits: VecDeque<Transmit>,
    requests: VecDeque<Request>,
    events: VecDeque<Event>,
}

impl Gateway {
    /// A gateway that starts now, with nothing mapped and its external address still unknown.
    pub fn new(config: GatewayConfig, mut rng: ChaCha12Rng, now: Instant) -> Gateway {
        // A name-based UUID (RFC 9562 §5.8 leaves its content free), without the last digit, which numbers the devices.
        let id: u64 = rng.random();
        let uuid = format!("{:08x}-{:04x}-8{:03x}-8000-00000000000", id >> 32, id >> 16 & 0xffff, id & 0xfff);
        Gateway {
            config,
            rng,
            external: None,
            started: now,
            announced: 0,
            announce_at: None,
            uuid,
            leases: Leases::default(),
            pending: BTreeMap::new(),
            next_request: 0,
            web: web::Web::default(),
            transmits: VecDeque::new(),
            requests: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &GatewayConfig {
        &self.config
    }

    /// How many mappings there are.
    pub fn mappings(&self) -> usize {
        self.leases.len()
    }

    /// Takes an input. Drain the `poll_` methods afterwards.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        let silent = self.config.conduct == Conduct::Silent;
        match input {
            Input::External(external) => self.set_external(external, now),
            Input::Answer { id, result } => self.answered(id, result, now),
            Input::Closed { conn } => self.web.closed(conn),
            Input::Writable { conn, space } => self.web.writable(conn, space, &mut self.transmits),
            Input::Accepted { .. } | Input::Stream { .. } | Input::Datagram { .. } if silent => {}
            Input::Datagram { to: SERVER_PORT, from, data } => self.datagram(from, data, now),
            Input::Datagram { to, from, data } if to == upnp::SSDP.port() => self.search(from, data),
            Input::Datagram { .. } => {}
            Input::Accepted { conn, from } => self.web.accepted(conn, from, now, &mut self.transmits),
            Input::Stream { conn, data } => self.web_stream(conn, data, now),
        }
    }

    /// Does what is due. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (lease, why) in self.leases.take_due(now) {
            self.unmap(&lease, why);
        }
        self.web.handle_timeout(now, &mut self.transmits);
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce(now);
        }
    }

    /// When [`Gateway::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let announce = self.announce_at.map(|at| (at, "gateway announcement"));
        let parts =
            [announce, self.leases.next_due().map(|at| (at, "port mapping lease")), self.web.poll_timeout()];
        parts.into_iter().flatten().min()
    }

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to do to the NAT.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn epoch(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX)
    }

    /// The external address that it tells.
    fn told_external(&self) -> Option<IpAddr> {
        self.config.claimed_external.or(self.external)
    }

    fn set_external(&mut self, external: Option<IpAddr>, now: Instant) {
        if external == self.external {
            return;
        }
        if self.external.is_some() {
            // RFC 6887 §8.5: when the address changes, the epoch begins anew, so that clients ask again.
            self.started = now;
            for lease in self.leases.take_all() {
                self.unmap(&lease, "address changed");
            }
        }
        self.external = external;
        (self.announced, self.announce_at) = (0, None);
        if self.config.conduct != Conduct::Silent {
            self.announce(now);
        }
    }

    /// Tells the LAN that the gateway is there, and since when.
    fn announce(&mut self, now: Instant) {
        let epoch = self.epoch(now);
        let group: IpAddr = match self.config.address {
            IpAddr::V4(_) => Ipv4Addr::new(224, 0, 0, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
        };
        let to = SocketAddr::new(group, ANNOUNCE_PORT);
        if self.config.nat_pmp
            && let Some(IpAddr::V4(external)) = self.told_external()
        {
            let body = crate::natpmp::Body::ExternalAddress(external);
            self.send(SERVER_PORT, to, crate::natpmp::Response { epoch, body }.to_vec());
        }
        if self.config.pcp {
            let op = Some(pcp::Op::Announce);
            let answer = pcp::Response { refused: None, lifetime: 0, epoch, op, options: Vec::new() };
            self.send(SERVER_PORT, to, answer.to_vec());
        }
        if self.announced < 2 {
            // SSDP is said twice (UPnP Device Architecture 1.1 §1.2.2: "more than once", but not many times).
            self.notify();
        }
        let gap = ANNOUNCE_GAP.saturating_mul(1 << self.announced.min(16));
        self.announced += 1;
        self.announce_at = (self.announced < ANNOUNCEMENTS).then(|| now + gap);
    }

    fn send(&mut self, port: u16, to: SocketAddr, data: Vec<u8>) {
        self.transmits.push_back(Transmit::Datagram { port, to, data: data.into() });
    }

    /// Whether anybody may be given a mapping at all.
    fn may_map(&self) -> Result<(), No> {
        match self.config.conduct {
            Conduct::Serve => {}
            Conduct::Silent | Conduct::NotAuthorized => return Err(No::NotAuthorized),
            Conduct::NetworkFailure => return Err(No::NetworkFailure),
            Conduct::NoResources => return Err(No::Full),
        }
        match self.told_external() {
            None => Err(No::NetworkFailure),
            Some(ip) if !self.config.maps_behind_nat && !is_public(ip) => Err(No::NetworkFailure),
            Some(_) => Ok(()),
        }
    }

    /// The lifetime that is given for the one that is asked for.
    fn lifetime(&self, asked: Duration) -> Duration {
        asked.max(self.config.min_lifetime).min(self.config.max_lifetime)
    }

    /// Asks the owner for a new mapping.
    fn ask(&mut self, mut wish: Wish, asker: Asker, now: Instant) {
        let quota = self.leases.of(wish.inside.ip()) + self.waiting(wish.inside.ip());
        let refused = if self.pending.len() >= MAX_PENDING || self.leases.len() >= self.config.capacity {
            Some(No::Full)
        } else if quota >= self.config.per_host {
            Some(No::Quota)
        } else if self.config.other_port
            && wish.exact
            && wish.port == wish.inside.port()
            && wish.inside.is_ipv4()
        {
            Some(No::Taken)
        } else {
            None
        };
        if let Some(no) = refused {
            return self.refuse(&wish, asker, no, now);
        }
        if self.config.other_port && !wish.exact && wish.inside.is_ipv4() {
            let other = loop {
                let port = self.rng.random_range(1024..=u16::MAX);
                if port != wish.port && port != wish.inside.port() {
                    break port;
                }
            };
            wish.port = other;
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let port = (wish.port != 0).then_some(wish.port);
        let Wish { proto, inside, exact, .. } = wish;
        self.requests.push_back(match wish.remote {
            None => Request::Map { id, proto, inside, port, exact },
            Some(remote) => Request::Peer { id, proto, inside, remote, port },
        });
        self.pending.insert(id, (wish, asker));
    }

    fn waiting(&self, host: IpAddr) -> usize {
        self.pending.values().filter(|(wish, _)| wish.inside.ip() == host).count()
    }

    fn answered(&mut self, id: RequestId, result: Result<SocketAddr, MapError>, now: Instant) {
        let Some((wish, asker)) = self.pending.remove(&id) else { return };
        let external = match result {
            Ok(external) => external,
            Err(error) => return self.refuse(&wish, asker, error.into(), now),
        };
        // An external endpoint has one lease: the owner gave away one that somebody had (or has just got).
        if let Some(old) = self.leases.remove_external(wish.proto, external, wish.remote) {
            let Lease { proto, inside, external, .. } = old;
            self.events.push_back(Event::Unmapped { proto, inside, external, why: "replaced" });
        }
        let mut lease = Lease::new(&wish, external);
        lease.renew(wish.lifetime, self.config.forgets_after, now);
        let lease = self.leases.add(lease);
        self.granted(&wish, &lease, false, asker, now);
    }

    /// Renews a lease that is there.
    fn renew(&mut self, index: usize, wish: &Wish, asker: Asker, now: Instant) {
        let forgets = self.config.forgets_after;
        let Some(lease) = self.leases.get_mut(index) else { return };
        lease.renew(wish.lifetime, forgets, now);
        lease.nonce = wish.nonce.or(lease.nonce);
        let lease = lease.clone();
        self.granted(wish, &lease, true, asker, now);
    }

    fn granted(&mut self, wish: &Wish, lease: &Lease, renewed: bool, asker: Asker, now: Instant) {
        self.events.push_back(Event::Mapped {
            protocol: wish.protocol,
            proto: wish.proto,
            inside: lease.inside,
            external: lease.external,
            lifetime: lease.lifetime,
            renewed,
        });
        let external = match (self.config.claimed_external, lease.external) {
            (Some(ip), SocketAddr::V4(_)) => SocketAddr::new(ip, lease.external.port()),
            (_, external) => external,
        };
        let seconds =
            lease.lifetime.map_or(0, |lifetime| u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX));
        match asker {
            Asker::NatPmp { from, internal } => {
                self.grant_natpmp(from, wish.proto, internal, external, seconds, now);
            }
            Asker::Pcp { from, op, options, .. } => self.grant_pcp(from, op, options, external, seconds, now),
            Asker::Upnp { conn, action, .. } => self.grant_upnp(conn, &action, lease, external.port()),
        }
    }

    fn refuse(&mut self, wish: &Wish, asker: Asker, no: No, now: Instant) {
        let (from, why) = match asker {
            Asker::NatPmp { from, internal } => {
                (from, self.refuse_natpmp(from, wish.proto, internal, no, now))
            }
            Asker::Pcp { from, request, .. } => (from, self.refuse_pcp(from, &request, no, now)),
            Asker::Upnp { conn, from, .. } => (from, self.refuse_upnp(conn, no)),
        };
        self.events.push_back(Event::Refused { protocol: wish.protocol, from, why });
    }

    /// Ends a lease that was taken out of the table.
    fn unmap(&mut self, lease: &Lease, why: &'static str) {
        let Lease { proto, inside, external, remote, .. } = *lease;
        self.requests.push_back(Request::Unmap { proto, inside, external, remote });
        self.events.push_back(Event::Unmapped { proto, inside, external, why });
    }
}
