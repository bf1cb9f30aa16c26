//! How packets move: cables, routers, and the internet between them.

use super::ipv6::Ipv6;
use super::odd::Odd;
use super::own::Own;
use super::{Entry, World};
use crate::host::{Effects, HELD, Host};
use crate::icmp::Limiter;
use crate::packet::{ErrorKind, Packet};
use indexmap::IndexMap;
use link::Link;
use nat::{Answer, DropReason, Firewall, Middlebox, Side, Translator, Verdict};
use rustc_hash::FxBuildHasher;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use trace::{Event, Name, Payload};

/// A node of the topology, running.
#[repr(C)] // What every packet needs stands first.
pub(super) struct Site {
    pub(super) body: Inner,
    pub(super) parent: Parent,
    /// What is not as usual with a host.
    pub(super) odd: Option<Box<Odd>>,
    pub(super) up: Link,
    pub(super) down: Link,
    pub(super) name: Name,
    /// Names for the log: "takkie.up", "takkie.down".
    pub(super) up_name: Name,
    pub(super) down_name: Name,
    /// When the agenda calls the managed queues of both, up and down.
    pub(super) armed_ns: [Option<u64>; 2],
}

/// What a node hangs off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// The internet, in a region.
    Internet { region: u32 },
    /// A router's inside.
    Router(u32),
}

/// What a node is made of.
pub(super) enum Inner {
    Host(Box<Host>),
    Router(Box<Router>),
    /// A further interface or place of a host.
    Outlet(Box<Outlet>),
}

impl Inner {
    /// The sockets of a host, or those of a router with programs on it.
    pub(super) fn host(&mut self) -> Option<&mut Host> {
        match self {
            Inner::Host(host) => Some(host),
            Inner::Router(router) => router.own.as_mut().map(|own| &mut own.host),
            Inner::Outlet(_) => None,
        }
    }
}

/// A further interface or place of a host.
#[derive(Clone)]
pub(super) struct Outlet {
    /// The node of the host.
    pub(super) host: u32,
    pub(super) addresses: Vec<IpAddr>,
    /// What tells of a NAT64 there.
    pub(super) resolver: Option<SocketAddr>,
}

/// A router, running.
pub(super) struct Router {
    pub(super) nat: Option<Translator>,
    pub(super) firewall: Option<Box<Firewall>>,
    /// IPv6, if any of it passes.
    pub(super) ipv6: Option<Box<Ipv6>>,
    /// Who is where on the inside.
    pub(super) inside: IndexMap<IpAddr, u32, FxBuildHasher>,
    pub(super) lan: (IpAddr, u8),
    pub(super) gateway: IpAddr,
    /// Its addresses on the uplink.
    pub(super) external: Vec<IpAddr>,
    /// The router as a host, once a program runs on it.
    pub(super) own: Option<Box<Own>>,
    /// How often it sends ICMP errors.
    pub(super) limiter: Limiter,
    /// Connection attempts from outside that were dropped.
    pub(super) refused: VecDeque<Box<Packet>>,
    pub(super) off: bool,
    /// When it is on again, if it is off.
    pub(super) back_ns: u64,
    pub(super) armed_ns: Option<u64>,
    pub(super) lan_name: Name,
    pub(super) wan_name: Name,
}

/// A packet at a place, still to be handled in this instant. Boxed, since it is moved from queue to queue: one allocation
/// costs less than the copies.
pub(super) enum Step {
    /// At the lower end of a node's cable, on the way up.
    Leave(u32, Box<Packet>),
    /// At the upper end of a node's cable, coming up.
    Climbed(u32, Box<Packet>),
    /// At the upper end of a node's cable, on the way down.
    Descend(u32, Box<Packet>),
    /// At the lower end of a node's cable: it has arrived at the node.
    Arrive(u32, Box<Packet>),
    /// At a router that has found nobody at its destination. It came from that side.
    Unresolved(u32, Side, Box<Packet>),
}

impl World {
    /// Carries a packet on until it waits in a cable, arrives or is lost.
    pub(super) fn travel(&mut self, step: Step) {
        self.steps.push_back(step);
        self.drain();
    }

    /// Carries on everything that is under way in this instant.
    pub(super) fn drain(&mut self) {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Leave(node, packet) => self.leave(node, packet),
                Step::Climbed(node, packet) => self.climbed(node, packet),
                Step::Descend(node, packet) => self.descend(node, packet),
                Step::Arrive(node, packet) => self.arrive(node, packet),
                Step::Unresolved(node, side, packet) => {
                    self.complain(node, side, ErrorKind::HostUnreachable, *packet);
                }
            }
        }
    }

    /// Out of the upper end of the cable of `child`: at the inside of its router, or in an internet with no route.
    fn climbed(&mut self, child: u32, packet: Box<Packet>) {
        let Parent::Router(node) = self.sites[child as usize].parent else {
            let internet: Name = "internet".into();
            self.dropped(&internet, &packet, "no-route");
            return;
        };
        self.came_from_inside(node, packet);
    }

    /// A step without delay is taken at once, without a way through the agenda.
    pub(super) fn later(&mut self, at_ns: u64, step: Step) {
        if at_ns <= self.clock.now_ns() && self.carrier.is_none() {
            self.steps.push_back(step);
        } else {
            self.agenda.push(at_ns, Entry::Packet(step));
        }
    }

    fn arrive(&mut self, node: u32, packet: Box<Packet>) {
        let clock = &self.clock;
        let site = &mut self.sites[node as usize];
        if let Inner::Router(_) = site.body {
            return self.came_from_outside(node, packet);
        }
        if let Some(captures) = &mut self.captures {
            note(&mut self.failure, captures.packet(&site.name, clock.now_ns(), &packet));
        }
        let node = if let Inner::Outlet(outlet) = &site.body { outlet.host } else { node };
        if self.sites[node as usize].odd.is_some() {
            return self.arrive_at_odd(node, packet);
        }
        self.take_in(node, packet);
    }

    /// A packet has reached the sockets of a host, or of a router as a host.
    pub(super) fn take_in(&mut self, node: u32, packet: Box<Packet>) {
        let clock = &self.clock;
        let site = &mut self.sites[node as usize];
        let Some(host) = site.body.host() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        let received = host.receive(&packet, clock, &mut effects);
        // Without a log nobody listens: a refused packet has had its answer, if any, by now.
        if self.log.enabled() {
            let name = site.name.clone();
            let Stub { id, src, dst, payload, .. } = Stub::of(&packet);
            let event = match received {
                Ok(()) => Some(Event::Delivered { node: name, id, src, dst, payload }),
                Err(HELD) => None,
                Err(reason) => Some(Stub::of(&packet).dropped(name, reason)),
            };
            if let Some(event) = event {
                self.log.push(self.clock.now_ns(), event);
            }
        }
        drop(packet);
        self.apply(node, effects);
    }

    /// Does what a host asked for.
    pub(super) fn apply(&mut self, node: u32, mut effects: Effects) {
        for event in effects.events.drain(..) {
            self.log.push(self.clock.now_ns(), event);
        }
        for (at_ns, key) in effects.timers.drain(..) {
            self.agenda.push(at_ns, Entry::Timer { node, key, at_ns });
        }
        for packet in effects.packets.drain(..) {
            let mut packet = Box::new(packet);
            packet.id = self.packets;
            self.packets += 1;
            self.emit(node, packet);
        }
        let maps = std::mem::take(&mut effects.maps);
        self.effects = effects;
        if !maps.is_empty() {
            self.map(node, maps);
        }
    }

    /// A host's packet goes onto its wire.
    fn emit(&mut self, node: u32, packet: Box<Packet>) {
        let site = &self.sites[node as usize];
        if self.options.checks && self.plaintext.find(packet.payload()).is_some() {
            let detail = format!(
                "{} sent packet {} with plaintext of the tunnel to {}",
                site.name, packet.id, packet.dst
            );
            self.violation("plaintext", detail);
            return;
        }
        self.log_sent(node, &packet);
        let site = &self.sites[node as usize];
        if !self.options.direct && packet.payload_kind() == Payload::Disco {
            let name = site.name.clone();
            return self.dropped(&name, &packet, "direct-cut");
        }
        if let Inner::Router(_) = site.body {
            return self.emit_from_router(node, packet);
        }
        let node = match &site.odd {
            None => node,
            Some(odd) => match odd.way_out(node, packet.src.ip()) {
                Ok(way_out) => way_out,
                Err(reason) => return self.dropped_by(node, &packet, reason),
            },
        };
        if !packet.dont_fragment {
            return self.leave_in_parts(node, packet);
        }
        self.put_on_wire(node, packet);
    }

    fn put_on_wire(&mut self, node: u32, packet: Box<Packet>) {
        if let Some(captures) = &mut self.captures {
            let name = &self.sites[node as usize].name;
            note(&mut self.failure, captures.packet(name, self.clock.now_ns(), &packet));
        }
        self.steps.push_back(Step::Leave(node, packet));
    }

    /// A host fragments what its own cable does not take whole, of both versions of IP.
    fn leave_in_parts(&mut self, node: u32, packet: Box<Packet>) {
        let mtu = self.sites[node as usize].up.config().mtu.map(|mtu| usize::from(mtu.bytes));
        match mtu.filter(|mtu| packet.wire_len() > *mtu).and_then(|mtu| packet.fragments(mtu)) {
            Some(parts) => parts.into_iter().for_each(|part| self.put_on_wire(node, Box::new(part))),
            None => self.put_on_wire(node, packet),
        }
    }

    pub(super) fn log_sent(&mut self, node: u32, packet: &Packet) {
        if self.log.enabled() {
            let sent = Event::Sent {
                node: self.sites[node as usize].name.clone(),
                id: packet.id,
                proto: packet.proto(),
                src: packet.src,
                dst: packet.dst,
                bytes: packet.wire_len() as u32,
                payload: packet.payload_kind(),
            };
            self.log.push(self.clock.now_ns(), sent);
        }
    }

    /// A router got a packet from one of its hosts.
    fn came_from_inside(&mut self, node: u32, mut packet: Box<Packet>) {
        self.passed(node, Side::Inside, &packet);
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
        if router.off {
            return self.dropped_by(node, &packet, "router-off");
        }
        // Inside one network the router is but a switch.
        let to = packet.dst.ip();
        if let Some(&to) = router.inside.get(&to) {
            return self.steps.push_back(Step::Descend(to, packet));
        }
        if let Some(own) = &router.own
            && own.takes_from_inside(&packet)
        {
            return self.take_in(node, packet);
        }
        // A home router forwards no multicast.
        if router.is_gateway(to) || router.is_inside(to) || to.is_multicast() {
            return self.dropped_by(node, &packet, "no-such-host");
        }
        if packet.ttl <= 1 {
            self.dropped_by(node, &packet, "ttl-expired");
            return self.complain(node, Side::Inside, ErrorKind::TimeExceeded, *packet);
        }
        packet.ttl -= 1;
        let before = (packet.src, packet.dst);
        let verdict = through(router, Side::Inside, &mut packet, self.clock.now());
        self.middlebox_events(node);
        match verdict {
            Ok(Side::Outside) => {
                self.translated(node, before, &packet);
                self.passed(node, Side::Outside, &packet);
                self.steps.push_back(Step::Leave(node, packet));
            }
            Ok(Side::Inside) => {
                self.translated(node, before, &packet);
                self.deliver_inside(node, Side::Inside, before, packet);
            }
            Err(refusal) => self.stopped(node, Side::Inside, refusal, before, packet),
        }
    }

    /// A router got a packet from its uplink.
    fn came_from_outside(&mut self, node: u32, mut packet: Box<Packet>) {
        self.passed(node, Side::Outside, &packet);
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
        if router.off {
            return self.dropped_by(node, &packet, "router-off");
        }
        if let Some(own) = &router.own
            && own.takes_from_outside(&packet)
        {
            return self.take_in(node, packet);
        }
        if packet.ttl <= 1 {
            self.dropped_by(node, &packet, "ttl-expired");
            return self.complain(node, Side::Outside, ErrorKind::TimeExceeded, *packet);
        }
        packet.ttl -= 1;
        let before = (packet.src, packet.dst);
        let verdict = through(router, Side::Outside, &mut packet, self.clock.now());
        self.middlebox_events(node);
        match verdict {
            Ok(Side::Inside) => {
                self.translated(node, before, &packet);
                self.deliver_inside(node, Side::Outside, before, packet);
            }
            Ok(Side::Outside) => {
                self.dropped_by(node, &packet, "no-route");
                self.complain(node, Side::Outside, ErrorKind::NetUnreachable, *packet);
            }
            Err(refusal) => self.stopped(node, Side::Outside, refusal, before, packet),
        }
    }

    /// A packet from `side` went no further than the router's boxes.
    fn stopped(
        &mut self,
        node: u32,
        side: Side,
        (reason, answer): (DropReason, Option<Answer>),
        before: (SocketAddr, SocketAddr),
        mut packet: Box<Packet>,
    ) {
        self.dropped_by(node, &packet, reason.as_str());
        (packet.src, packet.dst) = before;
        match answer {
            Some(answer) => self.refuse(node, side, answer, *packet),
            None if side == Side::Outside => self.remember(node, packet),
            None => {}
        }
    }

    fn deliver_inside(
        &mut self,
        node: u32,
        from: Side,
        before: (SocketAddr, SocketAddr),
        mut packet: Box<Packet>,
    ) {
        let Inner::Router(router) = &self.sites[node as usize].body else { return };
        let Some(&to) = router.inside.get(&packet.dst.ip()) else {
            self.dropped_by(node, &packet, "no-such-host");
            (packet.src, packet.dst) = before;
            return self.unresolved(node, from, packet);
        };
        self.passed(node, Side::Inside, &packet);
        self.steps.push_back(Step::Descend(to, packet));
    }

    /// Captures a packet at a router's interface on one side.
    pub(super) fn passed(&mut self, node: u32, side: Side, packet: &Packet) {
        let Some(captures) = &mut self.captures else { return };
        let Inner::Router(router) = &self.sites[node as usize].body else { return };
        let interface = match side {
            Side::Inside => &router.lan_name,
            Side::Outside => &router.wan_name,
        };
        note(&mut self.failure, captures.packet(interface, self.clock.now_ns(), packet));
    }

    fn translated(&mut self, node: u32, before: (SocketAddr, SocketAddr), packet: &Packet) {
        if self.log.enabled() && before != (packet.src, packet.dst) {
            let node = self.sites[node as usize].name.clone();
            let event = Event::Translated { node, id: packet.id, src: packet.src, dst: packet.dst };
            self.log.push(self.clock.now_ns(), event);
        }
    }

    /// Logs that a node dropped a packet.
    pub(super) fn dropped_by(&mut self, node: u32, packet: &Packet, reason: &'static str) {
        if self.log.enabled() {
            let name = self.sites[node as usize].name.clone();
            self.dropped(&name, packet, reason);
        }
    }

    pub(super) fn dropped(&mut self, name: &Name, packet: &Packet, reason: &'static str) {
        if self.log.enabled() {
            self.log.push(self.clock.now_ns(), Stub::of(packet).dropped(name.clone(), reason));
        }
    }

    /// Writes down what changed in a router's tables, lets it say what it has to, and asks to be called when the next entry
    /// expires.
    pub(super) fn middlebox_events(&mut self, node: u32) {
        let Inner::Router(router) = &self.sites[node as usize].body else { return };
        // Without a log nobody needs to know when a binding expires; a refusal that comes late needs its time.
        let waiting = !router.refused.is_empty();
        if !waiting && !self.log.enabled() {
            return;
        }
        if waiting {
            self.late_answers(node);
        }
        let now_ns = self.clock.now_ns();
        let site = &mut self.sites[node as usize];
        let Inner::Router(router) = &mut site.body else { return };
        let name = &site.name;
        let mut expiry = None;
        if let Some(nat) = router.bindings() {
            while let Some(event) = nat.poll_event() {
                if let Some(event) = binding_event(name, &event) {
                    self.log.push(now_ns, event);
                }
            }
            expiry = nat.poll_timeout().map(|(at, _)| at);
        }
        // Nobody is told of a firewall's conversations, so of its deadlines only those of its answers matter.
        let answer = router.firewall.as_ref().and_then(|firewall| firewall.next_answer());
        if let Some(deadline) = expiry.into_iter().chain(answer).min() {
            let at_ns = self.clock.ns(deadline).max(now_ns);
            if router.armed_ns.is_none_or(|armed| at_ns < armed) {
                router.armed_ns = Some(at_ns);
                self.agenda.push(at_ns, Entry::Expiry { node, at_ns });
            }
        }
    }

    pub(super) fn expire(&mut self, node: u32, at_ns: u64) {
        let now = self.clock.now();
        if let Inner::Router(router) = &mut self.sites[node as usize].body {
            if router.armed_ns != Some(at_ns) {
                return;
            }
            router.armed_ns = None;
            if let Some(nat) = router.bindings() {
                nat.handle_timeout(now);
            }
            if let Some(firewall) = &mut router.firewall
                && firewall.next_answer().is_some()
            {
                firewall.handle_timeout(now);
            }
        }
        self.middlebox_events(node);
        // An answer that came due is on its way.
        self.drain();
    }
}

/// Who on the internet takes packets for an address: its owner, else the router of the network that it would be in.
pub(super) fn route(
    internet: &IndexMap<IpAddr, u32, FxBuildHasher>,
    networks: &[((IpAddr, u8), u32)],
    to: IpAddr,
) -> Option<u32> {
    internet
        .get(&to)
        .copied()
        .or_else(|| networks.iter().find(|(network, _)| in_network(*network, to)).map(|(_, router)| *router))
}

/// The firewall stands inside of the NAT, as in Linux's FORWARD chain: it sees inside addresses both ways.
pub(super) fn through(
    router: &mut Router,
    from: Side,
    packet: &mut Packet,
    now: Instant,
) -> Result<Side, (DropReason, Option<Answer>)> {
    if from == Side::Inside
        && let Some(firewall) = router.filter(packet.src.is_ipv6())
    {
        passes(firewall.packet(from, packet, now))?;
    }
    let to = passes(router.translate(from, packet, now))?;
    if to == Side::Inside
        && let Some(firewall) = router.filter(packet.src.is_ipv6())
    {
        passes(firewall.packet(Side::Outside, packet, now))?;
    }
    Ok(to)
}

fn passes(verdict: Verdict) -> Result<Side, (DropReason, Option<Answer>)> {
    match verdict {
        Verdict::Forward(side) => Ok(side),
        Verdict::Drop(reason) => Err((reason, None)),
        Verdict::Reject(reason, answer) => Err((reason, Some(answer))),
    }
}

pub(super) fn in_network((network, prefix): (IpAddr, u8), ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let shift = 32 - u32::from(prefix.min(32));
            shift == 32 || network.to_bits() >> shift == ip.to_bits() >> shift
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let shift = 128 - u32::from(prefix.min(128));
            shift == 128 || network.to_bits() >> shift == ip.to_bits() >> shift
        }
        _ => false,
    }
}

fn proto(proto: nat::Proto) -> trace::Proto {
    match proto {
        nat::Proto::Udp => trace::Proto::Udp,
        nat::Proto::Tcp => trace::Proto::Tcp,
        nat::Proto::Icmp => trace::Proto::Icmp,
    }
}

fn binding_event(name: &Name, event: &nat::Event) -> Option<Event> {
    match *event {
        nat::Event::BindingCreated { proto: p, inside, external, remote, .. } => {
            Some(Event::Binding { node: name.clone(), proto: proto(p), inside, external, remote })
        }
        nat::Event::BindingExpired { proto: p, inside, external, why, .. } => Some(Event::Unbound {
            node: name.clone(),
            proto: proto(p),
            inside,
            external,
            reason: why.as_str().into(),
        }),
        nat::Event::Cleared => None,
    }
}

/// Keeps the first failure to write a capture; the run reports it at its end.
fn note(failure: &mut Option<std::io::Error>, result: std::io::Result<()>) {
    if let Err(error) = result {
        failure.get_or_insert(error);
    }
}

/// What of a packet goes into the log.
struct Stub {
    id: u64,
    proto: trace::Proto,
    src: SocketAddr,
    dst: SocketAddr,
    payload: trace::Payload,
}

impl Stub {
    fn of(packet: &Packet) -> Stub {
        Stub {
            id: packet.id,
            proto: packet.proto(),
            src: packet.src,
            dst: packet.dst,
            payload: packet.payload_kind(),
        }
    }

    fn dropped(self, node: Name, reason: &'static str) -> Event {
        let Stub { id, proto, src, dst, payload } = self;
        Event::Dropped { node, id, reason: reason.into(), proto, src, dst, payload }
    }
}
