//! A router is a host too: programs run on it, such as a port mapping gateway or a resolver.

use super::World;
use super::ipv6::Translator;
use super::net::{Inner, Step};
use crate::host::Host;
use crate::packet::Packet;
use indexmap::IndexSet;
use nat::Pinhole;
use portmap::gateway::{MapError, Request, RequestId};
use rustc_hash::FxBuildHasher;
use std::net::{IpAddr, SocketAddr};
use trace::Proto;

/// What came of a request that is answered.
type Answer = Option<(RequestId, Result<SocketAddr, MapError>)>;

/// A router as a host: its sockets are open to its inside; from outside only answers get in.
pub(super) struct Own {
    pub(super) host: Host,
    /// Whom it has asked outside, from which port.
    asked: IndexSet<(Proto, u16, SocketAddr), FxBuildHasher>,
}

impl Own {
    fn new(host: Host) -> Own {
        Own { host, asked: IndexSet::default() }
    }

    /// Whether a packet from inside is for the router itself: for its address inside, for a group, or for a socket of it
    /// at an address outside.
    pub(super) fn takes_from_inside(&self, packet: &Packet) -> bool {
        let to = packet.dst.ip();
        to.is_multicast()
            || self.host.addresses().first() == Some(&to)
            || (self.host.addresses().contains(&to) && self.host.listens(packet))
    }

    /// Whether a packet from outside answers one of the router's own.
    pub(super) fn takes_from_outside(&self, packet: &Packet) -> bool {
        self.asked.contains(&(packet.proto(), packet.dst.port(), packet.src))
            && self.host.addresses().contains(&packet.dst.ip())
    }

    /// Forgets whom it has asked, as a reboot does.
    pub(super) fn forget(&mut self) {
        self.asked.clear();
    }
}

impl World {
    /// The host of a node; a router becomes one when it is first asked for.
    pub(super) fn host_mut(&mut self, node: u32) -> Option<&mut Host> {
        let site = self.sites.get_mut(node as usize)?;
        if let Inner::Router(router) = &mut site.body
            && router.own.is_none()
        {
            let mut addresses = vec![router.gateway];
            addresses.extend(&router.external);
            addresses.extend(router.ipv6.iter().map(|v6| v6.gateway).filter(|ip| *ip != router.gateway));
            let rng = self.seed.chacha(&format!("host {}", site.name));
            let mut host = Host::new(site.name.clone(), addresses, rng, self.options.timers);
            host.set_lan(router.lan);
            if let Some(v6) = router.ipv6.as_ref().filter(|v6| v6.gateway != router.gateway) {
                host.set_lan6(v6.lan, v6.gateway);
            }
            router.own = Some(Box::new(Own::new(host)));
        }
        site.body.host()
    }

    /// Opens and closes ports of a router's NAT for programs on it, and tells them what came of it.
    pub(super) fn map(&mut self, node: u32, requests: Vec<(u32, Request)>) {
        for (slot, request) in requests {
            let now = self.clock.now();
            if let Some(answer) = self.pinhole(node, request) {
                self.tell(node, slot, answer);
                continue;
            }
            let nat = match &mut self.sites[node as usize].body {
                Inner::Router(router) => router.nat.as_mut(),
                Inner::Host(_) | Inner::Outlet(_) => None,
            };
            let answer = match request {
                Request::Map { id, proto, inside, port, exact } => {
                    let wanted = match port {
                        None => nat::Wanted::Any,
                        Some(port) if exact => nat::Wanted::Exactly(port),
                        Some(port) => nat::Wanted::Prefer(port),
                    };
                    // The gateway ends what it has asked for.
                    let result = nat.map(|nat| nat.map(transport(proto), inside, wanted, None, now));
                    Some((id, result.unwrap_or(Err(nat::MapError::NoExternalAddress)).map_err(refusal)))
                }
                Request::Peer { id, proto, inside, remote, .. } => {
                    let result = nat.and_then(|nat| nat.pin(transport(proto), inside, remote, now));
                    Some((id, result.unwrap_or(Err(nat::MapError::NoExternalAddress)).map_err(refusal)))
                }
                Request::Unmap { proto, inside, external, remote } => {
                    match (nat, remote) {
                        (Some(nat), Some(remote)) => drop(nat.unpin(transport(proto), inside, remote, now)),
                        (Some(nat), None) => drop(nat.unmap(transport(proto), external, now)),
                        (None, _) => {}
                    }
                    None
                }
            };
            self.middlebox_events(node);
            self.tell(node, slot, answer);
        }
    }

    /// Tells a program of a router's own what came of what it wanted.
    fn tell(&mut self, node: u32, slot: u32, answer: Answer) {
        if let (Some((id, result)), Some(host)) = (answer, self.sites[node as usize].body.host()) {
            let mut effects = std::mem::take(&mut self.effects);
            host.mapped(slot, id, result, &self.clock, &mut effects);
            self.apply(node, effects);
        }
    }

    /// Opens or closes the firewall for an IPv6 endpoint inside, which has no NAT; `None` if the request is about another.
    fn pinhole(&mut self, node: u32, request: Request) -> Option<Answer> {
        let (id, proto, inside, remote) = match request {
            Request::Map { id, proto, inside, .. } => (Some(id), proto, inside, None),
            Request::Peer { id, proto, inside, remote, .. } => (Some(id), proto, inside, Some(remote)),
            Request::Unmap { proto, inside, remote, .. } => (None, proto, inside, remote),
        };
        let IpAddr::V6(ip) = inside.ip() else { return None };
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return None };
        let outside = router.ipv6.as_ref().and_then(|v6| match &v6.translator {
            None => Some(ip),
            Some(Translator::Npt(swap)) => swap.config().to_outside(ip),
            Some(Translator::Nat64(_) | Translator::Clat(_)) => None,
        });
        let pinhole = Pinhole { proto: transport(proto), inside, remote };
        if let (Some(_), Some(firewall)) = (outside, router.filter(true)) {
            if id.is_some() {
                firewall.open_pinhole(pinhole);
            } else {
                firewall.close_pinhole(pinhole);
            }
        }
        let external = outside.map(|ip| SocketAddr::new(ip.into(), inside.port()));
        Some(id.map(|id| (id, external.ok_or(MapError::Unsupported))))
    }

    /// A packet of a router's own goes to whichever side its destination is on; one for a group to everybody inside.
    pub(super) fn emit_from_router(&mut self, node: u32, packet: Box<Packet>) {
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
        if router.off {
            return self.dropped_by(node, &packet, "router-off");
        }
        let to = packet.dst.ip();
        if let Some(&to) = router.inside.get(&to) {
            self.passed(node, nat::Side::Inside, &packet);
            return self.steps.push_back(Step::Descend(to, packet));
        }
        if to.is_multicast() {
            let mut members: Vec<u32> = router.inside.values().copied().collect();
            members.sort_unstable();
            members.dedup();
            self.passed(node, nat::Side::Inside, &packet);
            self.steps.extend(members.into_iter().map(|to| Step::Descend(to, packet.clone())));
            return;
        }
        if router.is_inside(to) {
            return self.dropped_by(node, &packet, "no-such-host");
        }
        if let Some(own) = &mut router.own {
            own.asked.insert((packet.proto(), packet.src.port(), packet.dst));
        }
        self.passed(node, nat::Side::Outside, &packet);
        self.steps.push_back(Step::Leave(node, packet));
    }
}

fn transport(proto: portmap::Proto) -> nat::Proto {
    match proto {
        portmap::Proto::Udp => nat::Proto::Udp,
        portmap::Proto::Tcp => nat::Proto::Tcp,
    }
}

fn refusal(error: nat::MapError) -> MapError {
    match error {
        nat::MapError::PortTaken => MapError::Taken,
        nat::MapError::NoFreePort | nat::MapError::HostQuota => MapError::Full,
        nat::MapError::NoExternalAddress => MapError::Unsupported,
    }
}
