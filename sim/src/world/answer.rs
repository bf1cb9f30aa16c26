//! What routers say about packets that they do not pass on: ICMP errors and resets.

use super::World;
use super::net::{Inner, Router, Step};
use crate::icmp::may_answer;
use crate::packet::{Body, DEFAULT_TTL, ErrorKind, Packet};
use bytes::Bytes;
use nat::{Answer, LateAnswer, Middlebox, Side};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tcp::{Flags, Options, Segment};

/// From a packet for an address that nobody has, until the router gives up asking for it: three ARP requests or neighbour
/// solicitations, a second apart (Linux `mcast_solicit` and `retrans_time_ms`; RFC 4861 §10 says the same).
const RESOLUTION: Duration = Duration::from_secs(3);

/// Connection attempts from outside that a router remembers, to quote them if it refuses them later.
const REMEMBERED: usize = 256;

impl Router {
    /// The address that it speaks from about a packet that came on `side`: the one that the packet was for, if that is
    /// its own, else the one of that interface (RFC 1812 §4.3.2.4).
    fn address_on(&self, side: Side, dst: IpAddr) -> Option<IpAddr> {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == dst.is_ipv4();
        match side {
            _ if self.is_gateway(dst) || self.external.contains(&dst) => Some(dst),
            Side::Inside => self.gateway_for(dst),
            Side::Outside => self.external.iter().find(of_family).copied(),
        }
    }
}

impl World {
    /// A router refuses a packet that came on `side`, here with its addresses as it came, and tells its sender.
    pub(super) fn refuse(&mut self, node: u32, side: Side, answer: Answer, packet: Packet) {
        match answer {
            Answer::PortUnreachable => self.complain(node, side, ErrorKind::PortUnreachable, packet),
            Answer::Prohibited => self.complain(node, side, ErrorKind::Prohibited, packet),
            Answer::Reset => {
                let Body::Tcp(segment) = &packet.body else { return };
                if let Some(reset) = Segment::reset_for(segment) {
                    self.say(node, side, Packet::tcp(packet.dst, packet.src, reset));
                }
            }
            Answer::ResetBoth => {
                let onward = packet.clone();
                self.refuse(node, side, Answer::Reset, packet);
                self.reset_onward(node, side, onward);
            }
        }
    }

    /// In place of a segment that came on `side` and is refused, its receiver gets a RST.
    fn reset_onward(&mut self, node: u32, side: Side, mut packet: Packet) {
        let Body::Tcp(segment) = &mut packet.body else { return };
        let flags = if segment.flags.ack() { Flags::RST | Flags::ACK } else { Flags::RST };
        let (options, payload) = (Options::default(), Bytes::new());
        *segment = Segment { flags, window: 0, options, payload, ..*segment };
        packet.ttl = DEFAULT_TTL;
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
        if let Ok(out) = super::net::through(router, side, &mut packet, self.clock.now()) {
            self.say(node, out, packet);
        }
    }

    /// A router tells the sender of a packet that came on `side` why it goes no further.
    pub(super) fn complain(&mut self, node: u32, side: Side, kind: ErrorKind, packet: Packet) {
        let now_ns = self.clock.now_ns();
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
        if !may_answer(&packet) {
            return;
        }
        let Some(src) = router.address_on(side, packet.dst.ip()) else { return };
        if router.limiter.allow(packet.src.ip(), kind, now_ns) {
            self.say(node, side, Packet::error(src, kind, packet));
        }
    }

    /// A router sends a packet of its own out on a side.
    fn say(&mut self, node: u32, side: Side, mut packet: Packet) {
        packet.id = self.packets;
        self.packets += 1;
        self.log_sent(node, &packet);
        let packet = Box::new(packet);
        let Inner::Router(router) = &self.sites[node as usize].body else { return };
        match (side, router.inside.get(&packet.dst.ip())) {
            (Side::Outside, _) => {
                self.passed(node, side, &packet);
                self.steps.push_back(Step::Leave(node, packet));
            }
            (Side::Inside, Some(&to)) => {
                self.passed(node, side, &packet);
                self.steps.push_back(Step::Descend(to, packet));
            }
            (Side::Inside, None) => self.dropped_by(node, &packet, "no-such-host"),
        }
    }

    /// Nobody inside has the address that a packet is for. Its sender hears of it when the router has given up asking.
    pub(super) fn unresolved(&mut self, node: u32, from: Side, packet: Box<Packet>) {
        let at_ns = self.clock.now_ns() + super::nanos(RESOLUTION);
        if may_answer(&packet) {
            self.later(at_ns, Step::Unresolved(node, from, packet));
        }
    }

    /// Remembers who wants to connect from outside, for [`late_answers`](World::late_answers).
    pub(super) fn remember(&mut self, node: u32, packet: Box<Packet>) {
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
        if !matches!(&packet.body, Body::Tcp(segment) if segment.flags.syn() && !segment.flags.ack()) {
            return;
        }
        router.refused.retain(|other| (other.src, other.dst) != (packet.src, packet.dst));
        if router.refused.len() >= REMEMBERED {
            router.refused.pop_front();
        }
        router.refused.push_back(packet);
        self.middlebox_events(node);
    }

    /// Sends what a router's boxes want to say by now about packets that they dropped earlier.
    pub(super) fn late_answers(&mut self, node: u32) {
        loop {
            let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
            let nat = router.bindings();
            let has_nat = nat.is_some();
            let from_nat = nat.and_then(|nat| nat.poll_answer());
            let inner = from_nat.is_none() && has_nat;
            let late = from_nat.or_else(|| router.firewall.as_mut()?.poll_answer());
            let Some(late) = late else { return };
            // A firewall stands inside of the NAT: it knows a packet by the address that it was translated to.
            let is = |p: &Packet| p.src == late.src && (inner || p.dst == late.dst);
            let found = router.refused.iter().position(|p| is(p));
            let quoted = match found.and_then(|i| router.refused.remove(i)) {
                Some(packet) => *packet,
                // The address that it came for is forgotten.
                None if inner => continue,
                None => forgotten(&late),
            };
            self.refuse(node, late.side, late.answer, quoted);
        }
    }

    /// A packet was too big for the cable that it was to go out on, away from the router `node` or down to `child` from it.
    pub(super) fn too_big(&mut self, node: u32, out: Side, mtu: u32, packet: Packet) {
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
        if !may_answer(&packet) {
            return;
        }
        let kind = ErrorKind::TooBig { mtu };
        // The packet is translated by now. An error about it that comes in where the packet would have gone out finds the
        // way back through the same bindings.
        let Some(src) = router.address_on(out, packet.dst.ip()) else { return };
        let mut error = Packet::error(src, kind, packet);
        let back = super::net::through(router, out, &mut error, self.clock.now());
        if let Ok(side) = back {
            let Inner::Router(router) = &self.sites[node as usize].body else { return };
            let of = match side {
                Side::Inside => router.gateway_for(src),
                Side::Outside => router.external.iter().find(|ip| ip.is_ipv4() == src.is_ipv4()).copied(),
            };
            if let Some(ip) = of {
                error.src = SocketAddr::new(ip, 0);
                error.ttl = DEFAULT_TTL;
                self.say(node, side, error);
            }
        }
    }
}

/// The packet that a late answer is about, where it is not remembered any more.
fn forgotten(late: &LateAnswer) -> Packet {
    match late.proto {
        nat::Proto::Tcp => {
            let segment = Segment {
                seq: 0,
                ack: 0,
                flags: Flags::SYN,
                window: 0,
                options: Options::default(),
                payload: Bytes::new(),
            };
            Packet::tcp(late.src, late.dst, segment)
        }
        nat::Proto::Udp => Packet::udp(late.src, late.dst, Bytes::new()),
        nat::Proto::Icmp => {
            let body = Body::Echo { reply: false, seq: 0, data: Bytes::new() };
            let packet = Packet::udp(late.src, late.dst, Bytes::new());
            Packet { body, ..packet }
        }
    }
}
