//! The cables between nodes: what is put on them, what waits in their queues, and what comes out.

use super::net::{Inner, Parent, Site, Step, route};
use super::{Entry, World};
use crate::icmp::may_answer;
use crate::packet::{Body, ErrorKind, IpEcn, Packet};
use link::{DropReason, Frame, Link, Sent};
use nat::Side;
use std::net::IpAddr;
use trace::Name;

/// A direction of a node's cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// Away from the node.
    Up,
    /// Towards the node.
    Down,
}

impl Site {
    fn link(&mut self, way: Way) -> &mut Link {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

impl World {
    /// Onto the node's cable, upwards.
    pub(super) fn leave(&mut self, node: u32, packet: Box<Packet>) {
        let now = self.clock.now();
        match self.sites[node as usize].up.send(&*packet, now) {
            Sent::Deliver { at, marked: false, twice: false, .. } => {
                let at_ns = self.clock.ns(at);
                self.carried_up(node, packet, at_ns);
            }
            sent => self.sent(node, Way::Up, packet, sent),
        }
    }

    /// Onto the node's cable, downwards.
    pub(super) fn descend(&mut self, node: u32, packet: Box<Packet>) {
        let now = self.clock.now();
        match self.sites[node as usize].down.send(&*packet, now) {
            Sent::Deliver { at, marked: false, twice: false, .. } => {
                let at_ns = self.clock.ns(at);
                self.later(at_ns, Step::Arrive(node, packet));
            }
            sent => self.sent(node, Way::Down, packet, sent),
        }
    }

    /// To the upper end of the node's cable, and on to the other end of the internet.
    fn carried_up(&mut self, node: u32, packet: Box<Packet>, at_ns: u64) {
        match self.sites[node as usize].parent {
            Parent::Router(_) => self.later(at_ns, Step::Climbed(node, packet)),
            Parent::Internet { region } => match route(&self.internet, &self.networks, packet.dst.ip()) {
                Some(to) => {
                    let Parent::Internet { region: far } = self.sites[to as usize].parent else {
                        return;
                    };
                    if !self.cuts.is_empty() && self.is_cut(node, to) {
                        let internet: Name = "internet".into();
                        self.dropped(&internet, &packet, "cut-off");
                        // A carrier has cut its own internet.
                        if self.carrier.is_none() {
                            return;
                        }
                    }
                    let delay_ns = self.latency_ns[(region * self.regions + far) as usize];
                    self.later(at_ns + delay_ns, Step::Descend(to, packet));
                }
                None => self.later(at_ns, Step::Climbed(node, packet)),
            },
        }
    }

    /// What a link does with a packet beyond carrying it as it is.
    fn sent(&mut self, node: u32, way: Way, mut packet: Box<Packet>, sent: Sent) {
        match sent {
            Sent::Deliver { at, marked, twice, .. } => {
                if marked {
                    packet.ecn = IpEcn::CongestionExperienced;
                }
                let at_ns = self.clock.ns(at);
                let copy = twice.then(|| packet.clone());
                for packet in [Some(packet), copy].into_iter().flatten() {
                    match way {
                        Way::Up => self.carried_up(node, packet, at_ns),
                        Way::Down => self.later(at_ns, Step::Arrive(node, packet)),
                    }
                }
            }
            Sent::Queued(ticket) => {
                self.queued.insert((node, way, ticket), packet);
                self.drain_queue(node, way);
            }
            Sent::Drop(reason) => {
                if let DropReason::TooBig { mtu, .. } = reason
                    && packet.src.is_ipv4()
                    && let Some(parts) = packet.fragments(usize::from(mtu))
                {
                    // RFC 791 §3.2: whoever has the packet divides it.
                    for part in parts.into_iter().map(Box::new) {
                        self.steps.push_back(match way {
                            Way::Up => Step::Leave(node, part),
                            Way::Down => Step::Descend(node, part),
                        });
                    }
                    return;
                }
                self.dropped_on(node, way, &packet, reason);
                if let DropReason::TooBig { mtu, tells: true } = reason {
                    self.tell_too_big(node, way, mtu, *packet);
                }
            }
        }
    }

    fn dropped_on(&mut self, node: u32, way: Way, packet: &Packet, reason: DropReason) {
        let site = &self.sites[node as usize];
        let name = match way {
            Way::Up => site.up_name.clone(),
            Way::Down => site.down_name.clone(),
        };
        self.dropped(&name, packet, reason.as_str());
    }

    /// Tells the sender of a packet that it was too big for the cable of `node`.
    fn tell_too_big(&mut self, node: u32, way: Way, mtu: u16, packet: Packet) {
        let mtu = u32::from(mtu);
        let site = &self.sites[node as usize];
        match (way, &site.body, site.parent) {
            (Way::Up, Inner::Router(_), _) => self.too_big(node, Side::Outside, mtu, packet),
            (Way::Down, _, Parent::Router(router)) => self.too_big(router, Side::Inside, mtu, packet),
            _ if !may_answer(&packet) => {}
            // A host knows the MTU of its own cable.
            (Way::Up, Inner::Host(_) | Inner::Outlet(_), _) => {
                let error = Packet::error(packet.src.ip(), ErrorKind::TooBig { mtu }, packet);
                self.steps.push_back(Step::Arrive(node, Box::new(error)));
            }
            // The provider's router has no address here: the error comes from where the packet was to go.
            (Way::Down, _, Parent::Internet { .. }) => {
                let error = Packet::error(packet.dst.ip(), ErrorKind::TooBig { mtu }, packet);
                self.carried_up(node, Box::new(error), self.clock.now_ns());
            }
        }
    }

    /// Takes out of a managed queue what has left it, and asks to be called when the next packet does.
    pub(super) fn drain_queue(&mut self, node: u32, way: Way) {
        while let Some((ticket, sent)) = self.sites[node as usize].link(way).poll_sent() {
            if let Some(packet) = self.queued.swap_remove(&(node, way, ticket)) {
                self.sent(node, way, packet, sent);
            }
        }
        let site = &mut self.sites[node as usize];
        if let Some(deadline) = site.link(way).poll_timeout() {
            let at_ns = self.clock.ns(deadline).max(self.clock.now_ns());
            let armed = &mut site.armed_ns[way as usize];
            if armed.is_none_or(|armed| at_ns < armed) {
                *armed = Some(at_ns);
                self.agenda.push(at_ns, Entry::Queue { node, way, at_ns });
            }
        }
    }

    /// A packet leaves a managed queue.
    pub(super) fn queue_due(&mut self, node: u32, way: Way, at_ns: u64) {
        let now = self.clock.now();
        let site = &mut self.sites[node as usize];
        if site.armed_ns[way as usize] != Some(at_ns) {
            return;
        }
        site.armed_ns[way as usize] = None;
        site.link(way).handle_timeout(now);
        self.drain_queue(node, way);
        self.drain();
    }
}

impl Frame for Packet {
    fn bytes(&self) -> usize {
        self.wire_len()
    }

    /// FNV-1a over protocol, addresses and ports, of fragments without those: the same on every machine.
    fn flow(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut mix = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        mix(&[match self.body {
            Body::Udp(_) | Body::Fragment(_) => 17,
            Body::Tcp(_) => 6,
            _ => 1,
        }]);
        let part = matches!(self.body, Body::Fragment(_));
        for end in [self.src, self.dst] {
            match end.ip() {
                IpAddr::V4(ip) => mix(&ip.octets()),
                IpAddr::V6(ip) => mix(&ip.octets()),
            }
            // Fragments have no ports to look at (Linux `__skb_flow_dissect`).
            if !part {
                mix(&end.port().to_be_bytes());
            }
        }
        hash
    }

    fn ecn_capable(&self) -> bool {
        self.ecn != IpEcn::NotEct
    }
}
