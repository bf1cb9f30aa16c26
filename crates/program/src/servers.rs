//! The servers of a tunnel network as programs: relay, STUN server, coordination server.

use crate::admission::AllowList;
use crate::mesh::{Mesh, Sibling};
use crate::upstream::Upstream;
use crate::{ConnId, Input, Output, Program};
use bytes::Bytes;
use derp::Restart;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use trace::{Event, Name};

/// STUN's registered port (RFC 8489 §18.6).
pub const STUN_PORT: u16 = 3478;
/// The one of a server's ports that speaks TLS, where it has a certificate.
pub const TLS_PORT: u16 = 443;
/// Where a relay listens: 443, and 80 for networks that let out nothing else.
pub const RELAY_PORTS: [u16; 2] = [443, 80];
/// Where the coordination server listens.
pub const COORDINATOR_PORTS: [u16; 2] = [443, 80];

/// How long a relay that ends serves its clients on, beside the time over which they are spread: a client that moves to another
/// relay of the region does so within a third of what it is told, and then needs three round trips, be it across an ocean.
const GRACE: Duration = Duration::from_secs(1);
/// From the relay's end until its next process listens: what systemd waits (`RestartSec=`, systemd.service(5)).
const AWAY: Duration = Duration::from_millis(100);
/// For how long clients are asked to keep trying from then on. "Not more than a few seconds" (`RestartingMessage`, tailscale
/// `derp/derp.go`).
const TRY_FOR: Duration = Duration::from_secs(5);
/// What each client adds to the time over which they come back, and how much that is at most. A handshake costs the relay two
/// key agreements and a signature, about half of this on one core.
const SPREAD: Duration = Duration::from_millis(1);
const SPREAD_MAX: Duration = Duration::from_secs(3);

/// For how long after its start a relay keeps packets for clients that are not back yet: all that knew it try again within this
/// time, if it was not away for long. For [`ServerConfig::hold_at_start`](derp::ServerConfig::hold_at_start).
pub const RELAY_HOLD: Duration = Duration::from_secs(1);

/// What a relay with so many clients announces when it ends.
fn restart(clients: usize) -> Restart {
    let clients = u32::try_from(clients).unwrap_or(u32::MAX);
    let spread = SPREAD.saturating_mul(clients).min(SPREAD_MAX);
    let grace = GRACE + spread;
    Restart { reconnect_in: grace + AWAY, spread, try_for: TRY_FOR, grace }
}

/// A STUN server.
pub struct StunProgram {
    port: u16,
    server: stun::server::Server,
    addresses: Vec<IpAddr>,
    out: VecDeque<Output>,
}

impl StunProgram {
    /// A server without an alternate address.
    pub fn new() -> StunProgram {
        let server = stun::server::Server::new();
        StunProgram { port: STUN_PORT, server, addresses: Vec::new(), out: VecDeque::new() }
    }

    /// It answers on this port in place of [`STUN_PORT`].
    #[must_use]
    pub fn with_port(self, port: u16) -> StunProgram {
        StunProgram { port, ..self }
    }
}

impl Default for StunProgram {
    fn default() -> Self {
        StunProgram::new()
    }
}

impl Program for StunProgram {
    fn udp_ports(&self) -> Vec<u16> {
        vec![self.port]
    }

    fn handle(&mut self, input: Input<'_>, _: Instant) {
        match input {
            Input::Addresses(addresses) => self.addresses = addresses.to_vec(),
            Input::Datagram { port, from, data } => {
                let ip = self.addresses.iter().copied().find(|ip| ip.is_ipv4() == from.is_ipv4());
                let Some(ip) = ip else { return };
                if let Some(response) = self.server.respond(SocketAddr::new(ip, port), from, data) {
                    let data = Bytes::from(response.data);
                    self.out.push_back(Output::Datagram { port, to: response.to, data });
                }
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

/// The resolver of a network with a NAT64.
pub struct ResolverProgram {
    resolver: pref64::Resolver,
    out: VecDeque<Output>,
}

impl ResolverProgram {
    /// A resolver that makes addresses with this prefix.
    pub fn new(prefix: pref64::Pref64) -> ResolverProgram {
        ResolverProgram { resolver: pref64::Resolver::new(prefix), out: VecDeque::new() }
    }
}

impl Program for ResolverProgram {
    fn udp_ports(&self) -> Vec<u16> {
        vec![pref64::DNS_PORT]
    }

    fn handle(&mut self, input: Input<'_>, _: Instant) {
        if let Input::Datagram { port, from, data } = input
            && let Some(answer) = self.resolver.respond(data)
        {
            self.out.push_back(Output::Datagram { port, to: from, data: answer.into() });
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

/// A DERP server with a STUN server beside it.
pub struct RelayProgram {
    name: Name,
    derp: derp::server::Server,
    stun: StunProgram,
    ports: Vec<u16>,
    allowed: Option<AllowList>,
    mesh: Option<Mesh>,
    /// The number of the next connection that it opens.
    next: u64,
    /// When it was last called.
    now: Option<Instant>,
}

impl RelayProgram {
    /// Puts the servers together.
    pub fn new(name: Name, derp: derp::server::Server) -> RelayProgram {
        let (stun, ports) = (StunProgram::new(), RELAY_PORTS.to_vec());
        RelayProgram { name, derp, stun, ports, allowed: None, mesh: None, next: 0, now: None }
    }

    /// It serves only the machines of a network, whose coordination server tells it their keys. The stream there is encrypted
    /// and both ends are known by their keys, inside TLS where the server speaks it and without. The relay must be configured
    /// to ask ([`admission`](derp::ServerConfig::admission)).
    #[must_use]
    pub fn with_admission(
        self,
        asks: coord::relay::Relay,
        coordinator: Upstream,
        now: Instant,
    ) -> RelayProgram {
        let list = AllowList::new(self.name.clone(), asks, coordinator, now);
        RelayProgram { allowed: Some(list), ..self }
    }

    /// It keeps a link to each of the other relays of its region, and hands packets for their clients over. `key` is its own
    /// private key; `secret` must be that of its [configuration](derp::ServerConfig::mesh_key), and of theirs.
    #[must_use]
    pub fn with_mesh(
        self,
        key: &derp::PrivateKey,
        secret: &derp::MeshKey,
        siblings: Vec<Sibling>,
        now: Instant,
    ) -> RelayProgram {
        RelayProgram { mesh: Some(Mesh::new(self.name.clone(), key, secret, siblings, now)), ..self }
    }

    /// Answers the relay's questions with what the list says now.
    fn decide(&mut self) {
        let (Some(list), Some(now)) = (&mut self.allowed, self.now) else { return };
        while let Some(key) = list.poll_dismissed(now) {
            self.derp.expel(&key, now);
        }
        while let Some(conn) = list.poll_admitted() {
            self.derp.admit(conn, true, now);
        }
    }

    /// It listens on these TCP ports in place of [`RELAY_PORTS`], and answers STUN on that in place of [`STUN_PORT`].
    #[must_use]
    pub fn with_ports(self, tcp: Vec<u16>, stun: u16) -> RelayProgram {
        RelayProgram { ports: tcp, stun: self.stun.with_port(stun), ..self }
    }

    /// Tells the clients, and those to come, what is wrong with this relay; empty when it is well again. Drain the outputs then.
    pub fn set_health(&mut self, text: impl Into<String>, now: Instant) {
        self.derp.set_health(text, now);
    }

    /// The relay.
    pub fn server(&self) -> &derp::server::Server {
        &self.derp
    }
}

impl Program for RelayProgram {
    fn udp_ports(&self) -> Vec<u16> {
        self.stun.udp_ports()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.now = Some(now);
        if let Input::Connected { conn }
        | Input::Stream { conn, .. }
        | Input::Writable { conn, .. }
        | Input::Closed { conn } = input
            && conn < ConnId(ConnId::FIRST_ACCEPTED)
        {
            if self.allowed.as_mut().is_some_and(|list| list.handle(conn, &input, now)) {
                self.decide();
            } else if let Some(mesh) = &mut self.mesh {
                mesh.handle(conn, &input, &mut self.derp, now);
            }
            return;
        }
        match input {
            Input::Addresses(_) | Input::Datagram { .. } => self.stun.handle(input, now),
            Input::Accepted { conn, from, .. } => self.derp.accepted(derp::server::ConnId(conn.0), from, now),
            Input::Stream { conn, data } => self.derp.handle_stream(derp::server::ConnId(conn.0), data, now),
            Input::Writable { conn, space } => self.derp.writable(derp::server::ConnId(conn.0), space, now),
            Input::Closed { conn } => self.derp.closed(derp::server::ConnId(conn.0), now),
            Input::Shutdown => {
                self.derp.shutdown(restart(self.derp.connections()), now);
                self.mesh.iter_mut().for_each(Mesh::let_end);
                self.allowed.iter_mut().for_each(AllowList::let_end);
            }
            Input::Connected { .. } | Input::Error { .. } | Input::Mapped { .. } | Input::Resolver(_) => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
        self.derp.handle_timeout(now);
        if let Some(list) = &mut self.allowed {
            list.handle_timeout(&mut self.next, now);
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.handle_timeout(&mut self.next, &mut self.derp, now);
        }
        self.decide();
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let list = self.allowed.as_ref().and_then(AllowList::poll_timeout);
        let mesh = self.mesh.as_ref().and_then(Mesh::poll_timeout);
        self.derp.poll_timeout().into_iter().chain(list).chain(mesh).min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.stun.poll_output() {
            return Some(output);
        }
        if let Some(output) = self.allowed.as_mut().and_then(AllowList::poll_output) {
            return Some(output);
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.carry(&mut self.derp);
            if let Some(output) = mesh.poll_output() {
                return Some(output);
            }
        }
        loop {
            if let Some(transmit) = self.derp.poll_transmit() {
                return Some(match transmit {
                    derp::server::ServerTransmit::Write { conn, data } => {
                        Output::Write { conn: ConnId(conn.0), data }
                    }
                    derp::server::ServerTransmit::Hold { conn, hold } => {
                        Output::Hold { conn: ConnId(conn.0), hold }
                    }
                    derp::server::ServerTransmit::Close { conn } => Output::Close { conn: ConnId(conn.0) },
                });
            }
            let event = self.derp.poll_event()?;
            if let Some(output) = self.event(&event) {
                return Some(output);
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.derp.connections() == 0
    }
}

impl RelayProgram {
    /// What an event of the relay means for the list and for the log.
    fn event(&mut self, event: &derp::server::ServerEvent) -> Option<Output> {
        use derp::server::ServerEvent::{Admission, ClientLeft, Refused};
        let mut stranger = None;
        if let Some(list) = &mut self.allowed {
            match event {
                Admission { conn, key, .. } => list.ask(*conn, *key),
                ClientLeft { conn, .. } => drop(list.forget(*conn)),
                Refused { conn, remote, .. } => {
                    stranger = list.forget(*conn).map(|key| {
                        format!("refused {remote}: {} is no key of this relay's network", key.to_hex())
                    });
                }
                _ => {}
            }
            self.decide();
        }
        let what = stranger.or_else(|| relay_words(event))?;
        Some(Output::Event(Box::new(Event::Warning { node: self.name.clone(), what })))
    }
}

/// What of a relay's events is worth a line in the log: the rest shows in its packets.
fn relay_words(event: &derp::server::ServerEvent) -> Option<String> {
    match event {
        derp::server::ServerEvent::Dropped { bytes, why, .. } => {
            let why = match why {
                derp::server::DropReason::UnknownDestination => "its receiver is not connected here",
                derp::server::DropReason::QueueFull => "its receiver's queue is full",
            };
            Some(format!("relay dropped a packet of {bytes} bytes: {why}"))
        }
        derp::server::ServerEvent::ClientLeft { key, why: derp::server::LeaveReason::NotMesh, .. } => {
            let key = key.to_hex();
            Some(format!(
                "{key} is no relay of this region: it showed another secret than this one's, or none"
            ))
        }
        _ => None,
    }
}

/// The coordination server.
pub struct CoordinatorProgram {
    name: Name,
    server: coord::server::Server,
    ports: Vec<u16>,
    /// What it must not forget, if that is kept in memory.
    kept: Option<coord::state::State>,
    /// How long that takes.
    disk: Duration,
    /// What is being written, and when that is done.
    writing: Option<(coord::state::Write, Instant)>,
    /// What those who are connected are called.
    members: BTreeMap<coord::server::ConnId, String>,
}

impl CoordinatorProgram {
    /// Wraps the core. With `kept`, which is what the core started with, what it must not forget is kept in memory; without,
    /// the caller asks [`CoordinatorProgram::poll_store`] for it.
    pub fn new(
        name: Name,
        server: coord::server::Server,
        kept: Option<coord::state::State>,
    ) -> CoordinatorProgram {
        let (ports, members) = (COORDINATOR_PORTS.to_vec(), BTreeMap::new());
        CoordinatorProgram { name, server, ports, kept, disk: Duration::ZERO, writing: None, members }
    }

    /// What is kept in memory takes so long to be there, as on a disk. What is not there when the program is taken away is
    /// lost.
    #[must_use]
    pub fn with_disk(self, disk: Duration) -> CoordinatorProgram {
        CoordinatorProgram { disk, ..self }
    }

    /// What it had stored by the end, if that was kept in memory.
    pub fn into_kept(self) -> Option<coord::state::State> {
        self.kept
    }

    /// What is to be stored next; then [`CoordinatorProgram::stored`] is to be called. There is no other until then.
    pub fn poll_store(&mut self) -> Option<coord::state::Write> {
        self.server.poll_store()
    }

    /// A write is stored.
    pub fn stored(&mut self, id: u64, now: Instant) {
        self.server.stored(id, now);
    }

    /// Does something as an administrator.
    pub fn administer<T>(&mut self, act: impl FnOnce(&mut coord::server::Server) -> T, now: Instant) -> T {
        let done = act(&mut self.server);
        self.store(now);
        done
    }

    fn store(&mut self, now: Instant) {
        let Some(kept) = &mut self.kept else { return };
        loop {
            if self.writing.is_none() {
                self.writing = self.server.poll_store().map(|write| (write, now + self.disk));
            }
            let Some((write, _)) = self.writing.take_if(|(_, done)| *done <= now) else { return };
            kept.apply(&write);
            self.server.stored(write.id, now);
        }
    }

    /// It listens on these TCP ports in place of [`COORDINATOR_PORTS`].
    #[must_use]
    pub fn with_ports(self, ports: Vec<u16>) -> CoordinatorProgram {
        CoordinatorProgram { ports, ..self }
    }

    /// The coordination server.
    pub fn server(&self) -> &coord::server::Server {
        &self.server
    }

    /// What an event of the server means for the log.
    fn event(&mut self, event: coord::server::ServerEvent) -> Option<Event> {
        use coord::server::ServerEvent;
        let server = self.name.clone();
        match event {
            ServerEvent::Joined { conn, name, tunnel_ip, .. } => {
                self.members.insert(conn, name.clone());
                Some(Event::Member { server, name, tunnel: Some(tunnel_ip), reason: String::new() })
            }
            ServerEvent::Left { conn, why, .. } => {
                let (name, tunnel, reason) = (self.members.remove(&conn)?, None, why.to_string());
                Some(Event::Member { server, name, tunnel, reason })
            }
            ServerEvent::Waits { conn, name, .. } => {
                let what = format!("{name} waits to be let in");
                self.members.insert(conn, name);
                Some(Event::Warning { node: server, what })
            }
            ServerEvent::Rejected { remote, error, .. } => {
                Some(Event::Warning { node: server, what: format!("rejected {remote}: {error}") })
            }
        }
    }
}

impl Program for CoordinatorProgram {
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Accepted { conn, from, .. } => {
                self.server.accepted(coord::server::ConnId(conn.0), from, now);
            }
            Input::Stream { conn, data } => {
                self.server.handle_stream(coord::server::ConnId(conn.0), data, now);
            }
            Input::Writable { conn, space } => {
                self.server.writable(coord::server::ConnId(conn.0), space, now);
            }
            Input::Closed { conn } => self.server.closed(coord::server::ConnId(conn.0), now),
            Input::Addresses(_)
            | Input::Resolver(_)
            | Input::Datagram { .. }
            | Input::Error { .. }
            | Input::Connected { .. }
            | Input::Mapped { .. }
            | Input::Shutdown => {}
        }
        self.store(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
        self.store(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let disk = self.writing.as_ref().map(|(_, done)| (*done, "disk"));
        self.server.poll_timeout().into_iter().chain(disk).min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some(transmit) = self.server.poll_transmit() {
            return Some(match transmit {
                coord::server::ServerTransmit::Write { conn, data } => {
                    Output::Write { conn: ConnId(conn.0), data }
                }
                coord::server::ServerTransmit::Close { conn } => Output::Close { conn: ConnId(conn.0) },
            });
        }
        while let Some(event) = self.server.poll_event() {
            if let Some(event) = self.event(event) {
                return Some(Output::Event(Box::new(event)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_called_back_once_the_next_process_listens_the_more_the_further_apart() {
        let of = |clients| restart(clients);
        for clients in [0, 2, 100, 1000, usize::MAX] {
            let Restart { reconnect_in, grace, .. } = of(clients);
            assert_eq!(reconnect_in - grace, AWAY);
            assert!(grace < Duration::from_secs(5), "within what the daemon's shell waits");
        }
        assert_eq!([2, 100, 1000].map(|n| of(n).spread.as_millis()), [2, 100, 1000]);
        assert_eq!(of(usize::MAX).spread, SPREAD_MAX);
    }
}
