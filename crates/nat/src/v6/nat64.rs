//! Stateful translation from IPv6 to IPv4 (RFC 6146).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use pref64::Pref64;
use rand_pcg::Pcg64Mcg;

use super::Before;
use crate::{DropReason, Event, Filtering, LateAnswer, Middlebox, Nat, NatConfig, Packet, Side, Verdict};

/// A NAT64: a prefix, and the axes of a NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat64Config {
    /// Behind it stand the IPv4 addresses of the internet.
    pub prefix: Pref64,
    /// How it keeps its Binding Information Bases and sessions (RFC 6146 §3.1): they are a NAT's bindings and
    /// conversations, with an IPv6 endpoint inside.
    pub nat: NatConfig,
}

impl Nat64Config {
    /// The well-known prefix, and what RFC 6146 asks for: endpoint-independent mapping, hairpinning (§3.8), the timers of
    /// §4, which are those of RFC 4787, 5382 and 5508; and the more transparent of the two filterings that §3.5 lets one
    /// choose from.
    pub const RFC: Nat64Config = Nat64Config {
        prefix: Pref64::WELL_KNOWN,
        nat: NatConfig { filtering: Filtering::EndpointIndependent, ..NatConfig::RFC },
    };
}

impl Default for Nat64Config {
    fn default() -> Self {
        Nat64Config::RFC
    }
}

impl fmt::Display for Nat64Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nat64 {}, {}", self.prefix, self.nat)
    }
}

/// A stateful translator with IPv6 inside and both versions outside. IPv6 packets to an address that does not stand for an
/// IPv4 address pass as they are: it is a router as well.
///
/// A [`Nat`] does the work: bindings map IPv6 endpoints to IPv4 ones, everything beyond it is in IPv4. Around it, remote
/// addresses are written into the prefix and read from it, in packets and in what ICMP errors quote.
#[derive(Debug)]
pub struct Nat64 {
    prefix: Pref64,
    nat: Nat,
}

impl Nat64 {
    /// A translator with these IPv4 addresses; an IPv6 address among them is of no use to it.
    pub fn new(config: Nat64Config, external: Vec<IpAddr>, rng: Pcg64Mcg) -> Nat64 {
        let external = external.into_iter().filter(IpAddr::is_ipv4).collect();
        Nat64 { prefix: config.prefix, nat: Nat::new(config.nat, external, rng) }
    }

    /// What it was made from.
    pub fn config(&self) -> Nat64Config {
        Nat64Config { prefix: self.prefix, nat: self.nat.config().clone() }
    }

    /// The bindings and conversations.
    pub fn nat(&self) -> &Nat {
        &self.nat
    }

    /// The bindings and conversations, to change their rules.
    pub fn nat_mut(&mut self) -> &mut Nat {
        &mut self.nat
    }

    /// An IPv4 endpoint as hosts inside see it.
    fn seen_inside(&self, endpoint: SocketAddr) -> Result<SocketAddr, DropReason> {
        match endpoint.ip() {
            IpAddr::V4(v4) if !self.prefix.may_carry(v4) => Err(DropReason::NotTranslatable),
            _ => Ok(self.prefix.embed_endpoint(endpoint)),
        }
    }

    /// The IPv4 endpoint that an endpoint stands for.
    fn meant(&self, endpoint: SocketAddr) -> Result<SocketAddr, DropReason> {
        let v4 = self.prefix.extract_endpoint(endpoint);
        let carried = v4.filter(|v4| matches!(v4.ip(), IpAddr::V4(v4) if self.prefix.may_carry(v4)));
        carried.ok_or(DropReason::NotTranslatable)
    }

    fn came_from_inside(&mut self, packet: &mut dyn Packet, now: Instant) -> Verdict {
        let (src, dst) = (packet.src(), packet.dst());
        match (src.ip(), dst.ip()) {
            // A packet that has been through here comes back: it would go round for ever (RFC 6146 §3.5).
            (IpAddr::V6(src), _) if self.prefix.prefix().contains(src) => {
                return Verdict::Drop(DropReason::NotTranslatable);
            }
            (IpAddr::V6(_), IpAddr::V6(dst)) if !self.prefix.prefix().contains(dst) => {
                return Verdict::Forward(Side::Outside);
            }
            (IpAddr::V4(_), _) => return Verdict::Drop(DropReason::NotTranslatable),
            _ => {}
        }
        let result = self.meant(dst).and_then(|dst| {
            if let Some(quoted) = packet.quoted() {
                quoted.set_src(self.meant(quoted.src())?);
            }
            packet.set_dst(dst);
            Ok(())
        });
        match result {
            Ok(()) => self.nat.packet(Side::Inside, packet, now),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// The last step of a packet on its way in, whose destination is translated already.
    fn enter(&self, packet: &mut dyn Packet) -> Result<(), DropReason> {
        if let Some(quoted) = packet.quoted() {
            quoted.set_dst(self.seen_inside(quoted.dst())?);
        }
        packet.set_src(self.seen_inside(packet.src())?);
        Ok(())
    }
}

impl Middlebox for Nat64 {
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, now: Instant) -> Verdict {
        let before = Before::of(packet);
        let verdict = match side {
            Side::Inside => self.came_from_inside(packet, now),
            Side::Outside if packet.dst().is_ipv6() => return Verdict::Forward(Side::Inside),
            Side::Outside => self.nat.packet(Side::Outside, packet, now),
        };
        let verdict = match verdict {
            Verdict::Forward(Side::Inside) => match self.enter(packet) {
                Ok(()) => verdict,
                Err(reason) => Verdict::Drop(reason),
            },
            verdict => verdict,
        };
        if !matches!(verdict, Verdict::Forward(_)) {
            before.restore(packet);
        }
        verdict
    }

    fn clear(&mut self) {
        self.nat.clear();
    }

    fn set_events(&mut self, on: bool) {
        self.nat.set_events(on);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.nat.poll_event()
    }

    fn poll_answer(&mut self) -> Option<LateAnswer> {
        let answer = self.nat.poll_answer()?;
        Some(match answer.side {
            Side::Outside => answer,
            Side::Inside => LateAnswer {
                src: self.prefix.embed_endpoint(answer.src),
                dst: self.prefix.embed_endpoint(answer.dst),
                ..answer
            },
        })
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.nat.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.nat.handle_timeout(now);
    }
}
