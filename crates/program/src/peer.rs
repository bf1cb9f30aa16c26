//! The peer as a program, with whoever uses its tunnel beside it.

use crate::{ConnId, ErrorKind, Input, Output, Program, nanos};
use ::peer::{Peer, Transmit, Via};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use trace::{Event, Name, Path};

/// UDP port of a peer's data socket: the default of Tailscale's `tailscaled --port`.
pub const PEER_PORT: u16 = 41641;

/// What users of a tunnel put out.
#[derive(Debug)]
pub enum UserOutput {
    /// An IP packet for the tunnel.
    Packet(Bytes),
    /// Something for the log.
    Event(Event),
    /// Something to be done outside the tunnel: on a connection of the users' own.
    Outside(Output),
}

/// Number of the first connection that users of a tunnel open outside it: those below are their peer's.
pub const FIRST_OF_USERS: ConnId = ConnId(1 << 31);

/// Who uses a tunnel: programs in the simulator; a TUN device, or sockets of other programs, on a real machine. Sans-IO, like
/// a [`Program`].
pub trait Users: 'static {
    /// An IP packet came out of the tunnel, sent by `peer`, on a way of that kind.
    fn handle_packet(&mut self, peer: &Arc<str>, data: &Bytes, via: Path, now: Instant);

    /// The tunnel has an address from now on.
    fn set_address(&mut self, address: IpAddr, now: Instant);

    /// The tunnel has no address until it gets one again: its peer has started anew.
    fn lose_address(&mut self) {}

    /// The peer has learned something of the others: names and addresses may have changed.
    fn map_changed(&mut self, _peer: &Peer) {}

    /// TCP ports outside the tunnel on which they listen when they start.
    fn tcp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    /// Something happened to one of their connections outside the tunnel: what they accepted on
    /// [`tcp_ports`](Users::tcp_ports), or opened with a number from [`FIRST_OF_USERS`].
    fn handle_outside(&mut self, _input: Input<'_>, _now: Instant) {}

    /// Time has come to, or past, the deadline. May be called early.
    fn handle_timeout(&mut self, _now: Instant) {}

    /// When they want to be called next, and what for.
    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// What they put out; called until there is no more.
    fn poll_output(&mut self) -> Option<UserOutput>;
}

impl Users for Box<dyn Users> {
    fn handle_packet(&mut self, peer: &Arc<str>, data: &Bytes, via: Path, now: Instant) {
        (**self).handle_packet(peer, data, via, now);
    }

    fn set_address(&mut self, address: IpAddr, now: Instant) {
        (**self).set_address(address, now);
    }

    fn lose_address(&mut self) {
        (**self).lose_address();
    }

    fn map_changed(&mut self, peer: &Peer) {
        (**self).map_changed(peer);
    }

    fn tcp_ports(&self) -> Vec<u16> {
        (**self).tcp_ports()
    }

    fn handle_outside(&mut self, input: Input<'_>, now: Instant) {
        (**self).handle_outside(input, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        (**self).handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        (**self).poll_timeout()
    }

    fn poll_output(&mut self) -> Option<UserOutput> {
        (**self).poll_output()
    }
}

/// A peer and the users of its tunnel.
pub struct PeerProgram<U> {
    name: Name,
    port: u16,
    peer: Peer,
    users: U,
    /// The version of the map that the users know.
    told: u64,
    out: VecDeque<Output>,
    /// Whether it asks its router for an open port.
    asks_router: bool,
}

impl<U: Users> PeerProgram<U> {
    /// Puts a peer and its users together.
    ///
    /// With a default `gateway`, that is asked to open a port.
    pub fn new(
        name: Name,
        mut peer: Peer,
        users: U,
        gateway: Option<IpAddr>,
        now: Instant,
    ) -> PeerProgram<U> {
        if gateway.is_some() {
            peer.handle(::peer::Input::Gateway(gateway), now);
        }
        let asks_router = gateway.is_some();
        PeerProgram { name, port: PEER_PORT, peer, users, told: 0, out: VecDeque::new(), asks_router }
    }

    /// Its data socket has this port in place of [`PEER_PORT`].
    #[must_use]
    pub fn with_port(self, port: u16) -> PeerProgram<U> {
        PeerProgram { port, ..self }
    }

    /// Another start of the peer on the same machine: the users of the tunnel go on once it is up again.
    pub fn again(self, peer: Peer, gateway: Option<IpAddr>, now: Instant) -> PeerProgram<U> {
        let PeerProgram { name, port, mut users, .. } = self;
        users.lose_address();
        PeerProgram::new(name, peer, users, gateway, now).with_port(port)
    }

    /// The peer.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The users of its tunnel.
    pub fn users(&self) -> &U {
        &self.users
    }

    /// Does something with the peer and the users of its tunnel, then carries on what came of it.
    pub fn with<R>(&mut self, now: Instant, f: impl FnOnce(&mut Peer, &mut U) -> R) -> R {
        let result = f(&mut self.peer, &mut self.users);
        self.pump(now);
        result
    }

    /// Carries packets between tunnel and users, and events to the log, until both are quiet.
    fn pump(&mut self, now: Instant) {
        loop {
            let mut quiet = true;
            while let Some(event) = self.peer.poll_event() {
                quiet = false;
                self.on_event(event, now);
            }
            while let Some(output) = self.users.poll_output() {
                quiet = false;
                match output {
                    UserOutput::Packet(packet) => self.peer.handle(::peer::Input::Packet(&packet), now),
                    UserOutput::Event(event) => self.out.push_back(Output::Event(Box::new(event))),
                    UserOutput::Outside(output) => self.out.push_back(output),
                }
            }
            if self.told != self.peer.map_version() {
                self.told = self.peer.map_version();
                self.users.map_changed(&self.peer);
            }
            if self.users.poll_timeout().is_some_and(|(at, _)| at <= now) {
                quiet = false;
                self.users.handle_timeout(now);
            }
            if quiet {
                return;
            }
        }
    }

    fn on_event(&mut self, event: ::peer::Event, now: Instant) {
        let host = self.name.clone();
        let event = match event {
            ::peer::Event::Packet { peer, data, via } => {
                self.users.handle_packet(&peer, &data, path(&via), now);
                return;
            }
            ::peer::Event::Registered { tunnel, .. } => {
                self.users.set_address(tunnel, now);
                Event::Registered { host, tunnel }
            }
            ::peer::Event::Remembered { tunnel, .. } => {
                self.users.set_address(tunnel, now);
                return;
            }
            ::peer::Event::Forbidden { peer, protocol, port } => {
                let at = port.map_or(String::new(), |port| format!(" to port {port}"));
                let what = format!("the access rules forbid what {peer} has sent: protocol {protocol}{at}");
                Event::Warning { node: host, what }
            }
            ::peer::Event::Waiting => {
                Event::Warning { node: host, what: "waits for an administrator to let it in".into() }
            }
            ::peer::Event::Rotated { .. } => Event::KeyRotated { host },
            ::peer::Event::Coordinator { state, address, reason } => {
                Event::Coordinator { host, state: server_state(state), address, reason }
            }
            ::peer::Event::Relay { relay, state, address, reason } => {
                Event::Relay { host, relay, state: server_state(state), address, reason }
            }
            ::peer::Event::Reflexive { server, mapped, rtt } => {
                Event::Reflexive { host, server, mapped, rtt_ns: nanos(rtt) }
            }
            ::peer::Event::NatLearned { mapping_varies, udp_blocked, candidates } => {
                Event::NatLearned { host, mapping_varies, udp_blocked, candidates }
            }
            ::peer::Event::Candidates { peer, candidates, via } => {
                Event::Candidates { host, peer, candidates, via: via.into() }
            }
            ::peer::Event::Probe { peer, to, attempt, why } => {
                Event::Probe { host, peer, to, attempt, why: why.into() }
            }
            ::peer::Event::Validated { peer, address, rtt } => {
                Event::Validated { host, peer, address, rtt_ns: nanos(rtt) }
            }
            ::peer::Event::PathChanged { peer, path: to, reason } => {
                let (address, relay) = match &to {
                    Some(Via::Relay(relay)) => (None, Some(relay.clone())),
                    Some(Via::Direct(address) | Via::Lan(address)) => (Some(*address), None),
                    None => (None, None),
                };
                let path = to.as_ref().map(path);
                Event::PathChanged { host, peer, path, address, relay, reason: reason.to_string() }
            }
            ::peer::Event::Session { peer, initiator } => Event::Session { host, peer, initiator },
            ::peer::Event::PortMapping { what, protocol, external, reason } => {
                Event::PortMapping { host, what: what.into(), protocol: protocol.into(), external, reason }
            }
            ::peer::Event::Warning { what } => Event::Warning { node: host, what },
        };
        self.out.push_back(Output::Event(Box::new(event)));
    }
}

fn path(via: &Via) -> Path {
    match via {
        Via::Relay(_) => Path::Relay,
        Via::Direct(_) => Path::Direct,
        Via::Lan(_) => Path::Lan,
    }
}

fn server_state(state: ::peer::ServerState) -> trace::ServerState {
    match state {
        ::peer::ServerState::Connecting => trace::ServerState::Connecting,
        ::peer::ServerState::Connected => trace::ServerState::Connected,
        ::peer::ServerState::Failed => trace::ServerState::Failed,
        ::peer::ServerState::Closed => trace::ServerState::Closed,
    }
}

impl<U: Users> Program for PeerProgram<U> {
    fn udp_ports(&self) -> Vec<u16> {
        // Where gateways announce themselves (RFC 6886 §3.2.1; UPnP Device Architecture 1.1 §1.1.1).
        let announced = [portmap::ANNOUNCE_PORT, portmap::upnp::SSDP.port()];
        let announced = announced.into_iter().filter(|_| self.asks_router);
        [self.port].into_iter().chain(announced).collect()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.users.tcp_ports()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        let conn = |conn: ConnId| ::peer::ConnId(conn.0 as u32);
        match input {
            Input::Accepted { conn, .. }
            | Input::Connected { conn }
            | Input::Stream { conn, .. }
            | Input::Writable { conn, .. }
            | Input::Closed { conn }
                if conn >= FIRST_OF_USERS =>
            {
                self.users.handle_outside(input, now);
            }
            Input::Addresses(ips) => {
                let addresses: Vec<SocketAddr> =
                    ips.iter().map(|ip| SocketAddr::new(*ip, self.port)).collect();
                self.peer.handle(::peer::Input::Addresses(&addresses), now);
            }
            Input::Resolver(resolver) => self.peer.handle(::peer::Input::Resolver(resolver), now),
            Input::Datagram { port, from, data } if port != self.port => {
                self.peer.handle(::peer::Input::Announcement { from, data }, now);
            }
            Input::Datagram { from, data, .. } => {
                self.peer.handle(::peer::Input::Datagram { from, data }, now);
            }
            Input::Connected { conn: id } => self.peer.handle(::peer::Input::Connected(conn(id)), now),
            Input::Stream { conn: id, data } => self.peer.handle(::peer::Input::Stream(conn(id), data), now),
            Input::Writable { conn: id, space } => {
                self.peer.handle(::peer::Input::Writable(conn(id), space), now);
            }
            Input::Closed { conn: id } => self.peer.handle(::peer::Input::Closed(conn(id)), now),
            Input::Error { to, kind: ErrorKind::TooBig { .. }, .. } => {
                self.peer.handle(::peer::Input::TooBig(to), now);
            }
            Input::Shutdown => self.peer.handle(::peer::Input::Shutdown, now),
            // A peer listens on no TCP port, and believes silence rather than an error that anybody may have sent.
            Input::Accepted { .. } | Input::Error { .. } | Input::Mapped { .. } => {}
        }
        self.pump(now);
    }

    fn is_finished(&self) -> bool {
        self.peer.is_finished()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.peer.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.peer.handle_timeout(now);
        }
        self.users.handle_timeout(now);
        self.pump(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        [self.peer.poll_timeout(), self.users.poll_timeout()].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        Some(match self.peer.poll_transmit()? {
            Transmit::Datagram { to, data } => Output::Datagram { port: self.port, to, data },
            Transmit::Connect { conn, to } => Output::Connect { conn: ConnId(conn.0.into()), to },
            Transmit::Write { conn, data } => Output::Write { conn: ConnId(conn.0.into()), data },
            Transmit::Close(conn) => Output::Close { conn: ConnId(conn.0.into()) },
        })
    }
}
