//! A host: its addresses, its sockets, and the programs that use them.

mod app;
mod reassembly;
mod tcp;

pub use app::{Apps, FlowSpec, MARKER};
pub use program::{
    COORDINATOR_PORTS, ConnId, CoordinatorProgram, GatewayProgram, Input, Output, PEER_PORT, Program,
    ProxyProgram, RELAY_PORTS, RelayProgram, ResolverProgram, STUN_PORT, Secured, Security, Sibling,
    StunProgram, TLS_PORT, Upstream,
};

/// A peer on a simulated host, whose tunnel is used by [`Apps`].
pub type PeerProgram = program::PeerProgram<Apps>;

pub(crate) use reassembly::HELD;

use self::reassembly::Reassembly;
use self::tcp::TcpStack;
use crate::icmp::{Limiter, may_answer};
use crate::packet::{Body, ErrorKind, IcmpError, Packet};
use crate::scenario::prefix;
use crate::world::Clock;
use rand_chacha::ChaCha12Rng;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use trace::{Event, Name};

/// What a deadline belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerKey {
    /// A program, by index.
    Program(u32),
    /// A TCP connection, by slot.
    Conn(u32),
}

/// What a host wants of the world after it was given something.
#[derive(Debug, Default)]
pub struct Effects {
    /// Packets for its interface, in order.
    pub packets: Vec<Packet>,
    /// For the log.
    pub events: Vec<Event>,
    /// Deadlines to be called at.
    pub timers: Vec<(u64, TimerKey)>,
    /// What programs want of a router's NAT, each with the program's index.
    pub maps: Vec<(u32, portmap::gateway::Request)>,
}

struct Slot {
    program: Option<Box<dyn Program>>,
    armed_ns: Option<u64>,
    dirty: bool,
}

/// A host with its programs.
pub struct Host {
    name: Name,
    addresses: Vec<IpAddr>,
    /// The network that the first address is for, where there are others for elsewhere.
    lan: Option<(IpAddr, u8)>,
    /// A network with an address of its own among the others.
    lan6: Option<((IpAddr, u8), IpAddr)>,
    /// The resolver of its network, where that matters.
    resolver: Option<SocketAddr>,
    slots: Vec<Slot>,
    udp: BTreeMap<u16, u32>,
    tcp: TcpStack,
    inbox: Inbox,
    limiter: Limiter,
    /// Whether its datagrams are to be dropped rather than fragmented.
    dont_fragment: bool,
    /// Fragments that wait for others, once it has got one.
    reassembly: Option<Box<Reassembly>>,
    log_timers: bool,
}

/// What happened to programs' connections and has not reached them yet.
type Inbox = VecDeque<(u32, TcpInput)>;

/// The time, and where what follows from an input goes.
struct Io<'a> {
    clock: &'a Clock,
    inbox: &'a mut Inbox,
    out: &'a mut Effects,
}

/// A TCP event on its way to a program.
#[derive(Debug)]
enum TcpInput {
    Accepted { conn: ConnId, port: u16, from: SocketAddr },
    Connected(ConnId),
    Stream(ConnId, bytes::Bytes),
    Writable(ConnId),
    Closed(ConnId),
}

/// Why a packet that reached a host reached no program.
pub type Refusal = &'static str;

impl Host {
    /// A host without programs.
    pub fn new(name: Name, addresses: Vec<IpAddr>, rng: ChaCha12Rng, log_timers: bool) -> Host {
        Host {
            name,
            addresses,
            lan: None,
            lan6: None,
            resolver: None,
            slots: Vec::new(),
            udp: BTreeMap::new(),
            tcp: TcpStack::new(rng),
            inbox: VecDeque::new(),
            limiter: Limiter::default(),
            dont_fragment: true,
            reassembly: None,
            log_timers,
        }
    }

    /// The host's addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Makes the first address the one for a network, of the address's family, and the others for everything else.
    pub fn set_lan(&mut self, lan: (IpAddr, u8)) {
        self.lan = Some(lan);
    }

    /// Makes an address the one for a network beside that of [`Host::set_lan`].
    pub fn set_lan6(&mut self, lan: (IpAddr, u8), address: IpAddr) {
        self.lan6 = Some((lan, address));
    }

    /// From now on its datagrams may be fragmented on the way, as those of a socket with `IP_PMTUDISC_DONT` (Linux).
    pub fn allow_fragments(&mut self) {
        self.dont_fragment = false;
    }

    /// Tells programs that start from now on of the network's resolver, as a router advertisement does (RFC 8106).
    pub fn set_resolver(&mut self, resolver: SocketAddr) {
        self.resolver = Some(resolver);
    }

    /// Whether a socket waits for such a packet: a bound UDP port, a listener or a connection.
    pub fn listens(&self, packet: &Packet) -> bool {
        match packet.body {
            Body::Udp(_) | Body::Fragment(_) => self.udp.contains_key(&packet.dst.port()),
            Body::Tcp(_) => self.tcp.listens(packet.dst, packet.src),
            Body::Echo { .. } | Body::Error(_) => false,
        }
    }

    /// Adds a place for a program and returns its index.
    pub fn reserve(&mut self) -> u32 {
        self.slots.push(Slot { program: None, armed_ns: None, dirty: false });
        (self.slots.len() - 1) as u32
    }

    /// Starts a program in a place.
    pub fn start(&mut self, index: u32, program: Box<dyn Program>, clock: &Clock, out: &mut Effects) {
        for port in program.udp_ports() {
            self.udp.insert(port, index);
        }
        for port in program.tcp_ports() {
            self.tcp.listen(port, index);
        }
        let slot = &mut self.slots[index as usize];
        slot.program = Some(program);
        slot.dirty = true;
        if let Some(program) = &mut slot.program {
            if let Some(resolver) = self.resolver {
                program.handle(Input::Resolver(resolver), clock.now());
            }
            program.handle(Input::Addresses(&self.addresses), clock.now());
        }
        self.settle(clock, out);
    }

    /// Ends a program as a kill does: its sockets are closed by the host. Returns it, for one whose records live on; it
    /// has then heard that its connections are gone, as it would find on its next start.
    pub fn stop(&mut self, index: u32, clock: &Clock, out: &mut Effects) -> Option<Box<dyn Program>> {
        self.udp.retain(|_, owner| *owner != index);
        let slot = &mut self.slots[index as usize];
        slot.armed_ns = None;
        let mut program = slot.program.take();
        let gone = self.tcp.close_all_of(index, &mut Io { clock, inbox: &mut self.inbox, out });
        self.inbox.retain(|(owner, _)| *owner != index);
        self.settle(clock, out);
        if let Some(program) = &mut program {
            for conn in gone {
                program.handle(Input::Closed { conn }, clock.now());
            }
            // Nobody is left to do what it wanted.
            while program.poll_output().is_some() {}
        }
        program
    }

    /// Binds a UDP port for a program that is running; 0 chooses a free one, from Linux's default range. `None` if it is
    /// taken.
    pub(crate) fn bind_udp(&mut self, index: u32, port: u16) -> Option<u16> {
        let port = match port {
            0 => tcp::EPHEMERAL.into_iter().find(|port| !self.udp.contains_key(port))?,
            port => port,
        };
        if self.udp.contains_key(&port) {
            return None;
        }
        self.udp.insert(port, index);
        Some(port)
    }

    /// Listens on a TCP port for a program that is running. False if it is taken.
    pub(crate) fn listen(&mut self, index: u32, port: u16) -> bool {
        self.tcp.listen_if_free(port, index)
    }

    /// Closes a UDP port, if it is that program's.
    pub(crate) fn close_udp(&mut self, index: u32, port: u16) {
        if self.udp.get(&port) == Some(&index) {
            self.udp.remove(&port);
        }
    }

    /// Stops listening on a TCP port, if it is that program's.
    pub(crate) fn close_tcp(&mut self, index: u32, port: u16) {
        self.tcp.close_listener(port, index);
    }

    /// A program has something to send without having been called.
    pub(crate) fn poke(&mut self, index: u32, clock: &Clock, out: &mut Effects) {
        self.slots[index as usize].dirty = true;
        self.settle(clock, out);
    }

    /// Whether a program runs in a place.
    pub fn is_running(&self, index: u32) -> bool {
        self.slots.get(index as usize).is_some_and(|slot| slot.program.is_some())
    }

    /// Does something to a program, if it runs, and what follows from it.
    pub fn touch(
        &mut self,
        index: u32,
        clock: &Clock,
        out: &mut Effects,
        act: impl FnOnce(&mut dyn Program),
    ) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(program) = &mut slot.program else { return };
        act(program.as_mut());
        slot.dirty = true;
        self.settle(clock, out);
    }

    /// A program of that type which runs here.
    pub fn program<P: Program>(&self) -> Option<&P> {
        let programs = self.slots.iter().filter_map(|slot| slot.program.as_deref());
        programs.into_iter().find_map(|program| (program as &dyn std::any::Any).downcast_ref())
    }

    /// The interfaces have these addresses from now on, the preferred first. Connections of an address that is gone are
    /// closed without a word, as Android does (`SockDiag::destroySockets` in netd), and the programs are told.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>, clock: &Clock, out: &mut Effects) {
        if addresses == self.addresses {
            return;
        }
        self.addresses = addresses;
        self.tcp.drop_others(&self.addresses, &mut self.inbox);
        for slot in &mut self.slots {
            if let Some(program) = &mut slot.program {
                slot.dirty = true;
                program.handle(Input::Addresses(&self.addresses), clock.now());
            }
        }
        self.settle(clock, out);
    }

    /// Forgets every connection, as a loss of power does.
    pub fn forget_connections(&mut self) {
        self.tcp.drop_others(&[], &mut self.inbox);
        self.inbox.clear();
    }

    /// A packet arrived on the interface. Says why, if no socket took it.
    pub fn receive(&mut self, packet: &Packet, clock: &Clock, out: &mut Effects) -> Result<(), Refusal> {
        match &packet.body {
            Body::Udp(data) => {
                let slot = self.udp.get(&packet.dst.port()).map(|owner| &mut self.slots[*owner as usize]);
                let Some((program, dirty)) = slot.and_then(|s| Some((s.program.as_mut()?, &mut s.dirty)))
                else {
                    self.no_socket(packet, clock, out);
                    return Err("no-socket");
                };
                *dirty = true;
                program
                    .handle(Input::Datagram { port: packet.dst.port(), from: packet.src, data }, clock.now());
            }
            Body::Tcp(segment) => {
                self.tcp.receive(
                    packet.src,
                    packet.dst,
                    segment,
                    &mut Io { clock, inbox: &mut self.inbox, out },
                )?;
            }
            // Hosts outside the tunnel answer echo requests as every IP stack does (RFC 1122 §3.2.2.6).
            Body::Echo { reply: false, seq, data } => {
                let body = Body::Echo { reply: true, seq: *seq, data: data.clone() };
                out.packets.push(Packet {
                    id: 0,
                    src: packet.dst,
                    dst: packet.src,
                    ttl: crate::packet::DEFAULT_TTL,
                    ecn: crate::packet::IpEcn::NotEct,
                    dont_fragment: true,
                    body,
                });
            }
            Body::Echo { reply: true, .. } => return Err("no-socket"),
            Body::Fragment(_) => {
                let whole = self.reassembly.get_or_insert_default().take(packet.clone(), clock.now_ns())?;
                return self.receive(&whole, clock, out);
            }
            Body::Error(error) => self.take_error(error, clock, out)?,
        }
        self.settle(clock, out);
        Ok(())
    }

    /// RFC 1122 §4.1.3.1: a datagram for a port without a socket is answered with port unreachable.
    fn no_socket(&mut self, packet: &Packet, clock: &Clock, out: &mut Effects) {
        let kind = ErrorKind::PortUnreachable;
        if may_answer(packet) && self.limiter.allow(packet.src.ip(), kind, clock.now_ns()) {
            out.packets.push(Packet::error(packet.dst.ip(), kind, packet.clone()));
        }
    }

    /// An ICMP error is for whoever sent what it quotes.
    fn take_error(&mut self, error: &IcmpError, clock: &Clock, out: &mut Effects) -> Result<(), Refusal> {
        let quoted = &error.quoted;
        if !self.addresses.contains(&quoted.src.ip()) {
            return Err("unknown-quote");
        }
        match &quoted.body {
            Body::Udp(_) | Body::Fragment(_) => {
                let owner = *self.udp.get(&quoted.src.port()).ok_or("no-socket")?;
                let slot = &mut self.slots[owner as usize];
                let program = slot.program.as_mut().ok_or("no-socket")?;
                slot.dirty = true;
                let (port, to, kind) = (quoted.src.port(), quoted.dst, error.kind);
                program.handle(Input::Error { port, to, kind }, clock.now());
                Ok(())
            }
            Body::Tcp(segment) => {
                let io = &mut Io { clock, inbox: &mut self.inbox, out };
                self.tcp.take_error(quoted.src, quoted.dst, segment, error.kind, io)
            }
            Body::Echo { .. } | Body::Error(_) => Err("no-socket"),
        }
    }

    /// Tells a program what came of what it wanted of the NAT.
    pub fn mapped(
        &mut self,
        index: u32,
        id: portmap::gateway::RequestId,
        result: Result<SocketAddr, portmap::gateway::MapError>,
        clock: &Clock,
        out: &mut Effects,
    ) {
        let slot = &mut self.slots[index as usize];
        let Some(program) = &mut slot.program else { return };
        slot.dirty = true;
        program.handle(Input::Mapped { id, result }, clock.now());
        self.settle(clock, out);
    }

    /// A deadline that the host asked for has come.
    pub fn handle_timer(&mut self, at_ns: u64, key: TimerKey, clock: &Clock, out: &mut Effects) {
        match key {
            TimerKey::Program(index) => {
                let slot = &mut self.slots[index as usize];
                // Superseded by an earlier one, or of a program that has gone.
                if slot.armed_ns != Some(at_ns) {
                    return;
                }
                slot.armed_ns = None;
                slot.dirty = true;
                if let Some(program) = &mut slot.program
                    && let Some((deadline, what)) = program.poll_timeout()
                    && deadline <= clock.now()
                {
                    if self.log_timers {
                        out.events.push(Event::Timer { node: self.name.clone(), what: what.into() });
                    }
                    program.handle_timeout(clock.now());
                }
            }
            TimerKey::Conn(slot) => {
                self.tcp.handle_timer(slot, at_ns, &mut Io { clock, inbox: &mut self.inbox, out });
            }
        }
        self.settle(clock, out);
    }

    /// Carries what happened to the programs, and what they want to the sockets, until all is quiet.
    fn settle(&mut self, clock: &Clock, out: &mut Effects) {
        loop {
            for index in 0..self.slots.len() {
                if self.slots[index].dirty {
                    self.drain(index as u32, clock, out);
                }
            }
            let Some((owner, input)) = self.inbox.pop_front() else { break };
            let slot = &mut self.slots[owner as usize];
            let Some(program) = &mut slot.program else { continue };
            slot.dirty = true;
            let now = clock.now();
            match input {
                TcpInput::Accepted { conn, port, from } => {
                    program.handle(Input::Accepted { conn, port, from }, now);
                }
                TcpInput::Connected(conn) => program.handle(Input::Connected { conn }, now),
                TcpInput::Stream(conn, data) => program.handle(Input::Stream { conn, data: &data }, now),
                TcpInput::Writable(conn) => {
                    // What the program wrote since this was queued has taken its share.
                    if let Some(space) = self.tcp.space(owner, conn) {
                        program.handle(Input::Writable { conn, space }, now);
                    }
                }
                TcpInput::Closed(conn) => program.handle(Input::Closed { conn }, now),
            }
        }
    }

    fn drain(&mut self, index: u32, clock: &Clock, out: &mut Effects) {
        let slot = &mut self.slots[index as usize];
        slot.dirty = false;
        let Some(program) = &mut slot.program else { return };
        while let Some(output) = program.poll_output() {
            match output {
                Output::Datagram { port, to, data } => match source(&self.addresses, self.lan, self.lan6, to)
                {
                    Some(ip) => {
                        let packet = Packet::udp(SocketAddr::new(ip, port), to, data);
                        out.packets.push(Packet { dont_fragment: self.dont_fragment, ..packet });
                    }
                    // The system call fails while there is no network, and nobody wonders.
                    None if self.addresses.is_empty() => {}
                    None => out.events.push(Event::Warning {
                        node: self.name.clone(),
                        what: format!("no address of the family of {to} to send from"),
                    }),
                },
                Output::Connect { conn, to } => match source(&self.addresses, self.lan, self.lan6, to) {
                    Some(ip) => {
                        self.tcp.connect(index, conn, ip, to, &mut Io { clock, inbox: &mut self.inbox, out });
                    }
                    None => self.inbox.push_back((index, TcpInput::Closed(conn))),
                },
                Output::Write { conn, data } => {
                    let lost =
                        self.tcp.write(index, conn, data, &mut Io { clock, inbox: &mut self.inbox, out });
                    if lost > 0 {
                        out.events.push(Event::Warning {
                            node: self.name.clone(),
                            what: format!(
                                "program wrote {lost} bytes more than its connection had space for"
                            ),
                        });
                    }
                }
                Output::Hold { conn, hold } => {
                    self.tcp.hold(index, conn, hold, &mut Io { clock, inbox: &mut self.inbox, out });
                }
                Output::Close { conn } => {
                    self.tcp.close(index, conn, &mut Io { clock, inbox: &mut self.inbox, out });
                }
                Output::Map(request) => out.maps.push((index, *request)),
                Output::Event(event) => out.events.push(*event),
            }
        }
        if let Some((deadline, _)) = program.poll_timeout() {
            let at_ns = clock.ns(deadline).max(clock.now_ns());
            // Re-arming later is lazy: the earlier entry stays, and looks again when it comes up.
            if slot.armed_ns.is_none_or(|armed| at_ns < armed) {
                slot.armed_ns = Some(at_ns);
                out.timers.push((at_ns, TimerKey::Program(index)));
            }
        }
    }
}

/// The address to reach `to` from: `lan6` is a network with an address of its own, `lan` the one that the first address is for.
fn source(
    addresses: &[IpAddr],
    lan: Option<(IpAddr, u8)>,
    lan6: Option<((IpAddr, u8), IpAddr)>,
    to: SocketAddr,
) -> Option<IpAddr> {
    let mut own = addresses.iter().copied().filter(|ip| ip.is_ipv4() == to.is_ipv4());
    match (lan, lan6) {
        (_, Some((lan, address))) if prefix::contains(lan, to.ip()) => Some(address),
        (None, _) => own.next(),
        (Some(lan), _) if prefix::contains(lan, to.ip()) || to.ip().is_multicast() => own.next(),
        // An IPv6 network has addresses that mean the same everywhere.
        (Some((IpAddr::V6(_), _)), _) => own.next(),
        (Some(lan), _) => own.clone().find(|ip| !prefix::contains(lan, *ip)).or_else(|| own.next()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Seed;
    use ::tcp::{Config, Connection};
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Instant;

    /// Listens on port 443 and notes which connections come and go.
    struct Listener(Rc<RefCell<Vec<(&'static str, ConnId)>>>);

    impl Program for Listener {
        fn udp_ports(&self) -> Vec<u16> {
            Vec::new()
        }

        fn tcp_ports(&self) -> Vec<u16> {
            vec![443]
        }

        fn handle(&mut self, input: Input<'_>, _: Instant) {
            match input {
                Input::Accepted { conn, .. } => self.0.borrow_mut().push(("accepted", conn)),
                Input::Closed { conn } => self.0.borrow_mut().push(("closed", conn)),
                _ => {}
            }
        }

        fn handle_timeout(&mut self, _: Instant) {}

        fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
            None
        }

        fn poll_output(&mut self) -> Option<Output> {
            None
        }
    }

    #[test]
    fn a_program_that_is_stopped_and_kept_knows_that_its_connections_are_gone() {
        let (clock, mut out) = (Clock::new(), Effects::default());
        let (server, client) =
            (SocketAddr::from(([33, 0, 0, 1], 443)), SocketAddr::from(([33, 0, 0, 2], 40_000)));
        let noted = Rc::default();
        let mut host = Host::new("server".into(), vec![server.ip()], Seed(1).chacha("host"), false);
        let slot = host.reserve();
        host.start(slot, Box::new(Listener(Rc::clone(&noted))), &clock, &mut out);
        let mut connection = Connection::connect(Config::default(), 1, clock.now());
        for _ in 0..2 {
            while let Some(segment) = connection.poll_transmit(clock.now()) {
                host.receive(&Packet::tcp(client, server, segment), &clock, &mut out).expect("it listens");
            }
            for packet in out.packets.drain(..) {
                if let Body::Tcp(segment) = packet.body {
                    connection.handle(&segment, clock.now());
                }
            }
        }

        let kept = host.stop(slot, &clock, &mut out);

        assert!(kept.is_some());
        let conn = ConnId(ConnId::FIRST_ACCEPTED);
        assert_eq!(*noted.borrow(), [("accepted", conn), ("closed", conn)]);
    }
}
