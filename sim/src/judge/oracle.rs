//! The route oracle: what path a pair can have, from the scenario alone and without running anything.
//!
//! Rules: behaviours compose along a chain of boxes to the worst of each axis; two sides meet in the innermost realm that
//! holds the outer end of both chains. With STUN, simultaneous opens and peer-reflexive learning (RFC 8445 §7.3.1.3), but
//! over whichever version of IP both have, a NAT64 counting as a NAT of IPv4, and without port prediction, a pair of classes
//! connects exactly where RFC 4787's definitions let it.

use super::reach::{self, Reach};
use crate::scenario::{Attachment, Families, Host, Router, Scenario, Way};
use nat::{
    Collision, Filtering, ForwardPolicy, Hairpin, Inbound, InputPolicy, LinuxConfig, LinuxRule, Mapping,
    NatConfig, Pooling, PortAllocation, Translation,
};
use portmap::gateway::Conduct;
use std::net::IpAddr;
use trace::Path;

/// Whether a direct path exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direct {
    /// No sequence of packets opens one.
    No,
    /// It depends on a port that a NAT happens to choose, or on whose packet comes first.
    Perhaps,
    /// Simultaneous opening makes one.
    Yes,
}

/// What the oracle says of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Whether they can talk directly.
    pub direct: Direct,
    /// Whether a direct path would stay inside one LAN and be known as such, by its private addresses.
    pub lan: bool,
    /// Whether both can reach the coordination server and the same relay over TCP.
    pub relay: bool,
}

impl Route {
    /// The path the pair should end on; `None` where luck decides.
    pub fn path(self) -> Option<Option<Path>> {
        match (self.direct, self.relay) {
            (Direct::Yes, _) if self.lan => Some(Some(Path::Lan)),
            (Direct::Yes, _) => Some(Some(Path::Direct)),
            (Direct::No, true) => Some(Some(Path::Relay)),
            (Direct::No, false) => Some(None),
            (Direct::Perhaps, _) => None,
        }
    }
}

/// The composed behaviour of the boxes between a host and a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    mapping: Mapping,
    filtering: Filtering,
    /// The part of the filtering that is done for each mapping apart, at or beyond the first box whose mapping varies.
    per_mapping: Filtering,
    /// A mapping that varies, but whose port may be guessed: it keeps or counts.
    guessable: bool,
    /// A packet of the other side that comes first can take the tuple that ours needs (Linux, whose router accepts it).
    poisoned: bool,
    /// A mapping that varies in its address too, so that even a filter by address may keep out what comes from it.
    wanders: bool,
    /// What becomes of it depends on who else is there: an address or port that several want or share.
    uncertain: bool,
    /// What firewalls leave of UDP.
    udp: Direct,
}

impl Class {
    const OPEN: Class = Class {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::EndpointIndependent,
        per_mapping: Filtering::EndpointIndependent,
        guessable: false,
        poisoned: false,
        wanders: false,
        uncertain: false,
        udp: Direct::Yes,
    };

    /// One more router on the way out, with so many hosts behind it.
    fn through(self, router: &Router, hosts: impl Fn() -> usize) -> Class {
        let mut class = self;
        // A router's firewall stands inside of its NAT.
        let wall = router.firewall.as_ref().map_or(Filtering::EndpointIndependent, |f| match f.inbound {
            Inbound::Open | Inbound::EndpointIndependent => Filtering::EndpointIndependent,
            Inbound::AddressDependent => Filtering::AddressDependent,
            Inbound::Stateful => Filtering::AddressAndPortDependent,
        });
        if class.varies() {
            class.per_mapping = class.per_mapping.max(wall);
        }
        if let Some(nat) = &router.nat {
            let Axes { mapping, filtering, guessable, poisoned, scattered, uncertain } = Axes::of(nat, hosts);
            class.mapping = class.mapping.max(mapping);
            class.filtering = class.filtering.max(filtering);
            if class.varies() {
                class.per_mapping = class.per_mapping.max(filtering);
            }
            class.poisoned |= poisoned;
            class.guessable |= guessable;
            class.wanders |= scattered && router.addresses > 1 && class.varies();
            class.uncertain |= uncertain;
        }
        if let Some(firewall) = &router.firewall {
            class.filtering = class.filtering.max(wall);
            class.udp = class.udp.min(reach::udp(firewall));
        }
        class
    }

    fn varies(self) -> bool {
        self.mapping != Mapping::EndpointIndependent
    }

    /// One mapping after another, but behind a filter that knows nothing of them: what one of them opened is open to all, so
    /// it is laxer than one box with the same words.
    fn lax(self) -> bool {
        self.varies() && self.per_mapping < self.filtering
    }
}

/// What counts of one translator.
struct Axes {
    mapping: Mapping,
    filtering: Filtering,
    guessable: bool,
    poisoned: bool,
    /// Each binding gets another external address.
    scattered: bool,
    uncertain: bool,
}

/// Mappings, ports or conversations that a limit must leave to each machine for it not to matter: a peer needs a few for
/// each other peer, relay and STUN server.
const PLENTY: usize = 64;

impl Axes {
    /// Of a router with so many hosts inside.
    fn of(nat: &Translation, hosts: impl Fn() -> usize) -> Axes {
        match nat {
            Translation::Axes(nat) if nat.pooling == Pooling::OneToOne => Axes {
                mapping: Mapping::EndpointIndependent,
                filtering: Filtering::EndpointIndependent,
                guessable: false,
                poisoned: false,
                scattered: false,
                uncertain: false,
            },
            Translation::Axes(nat) => Axes {
                mapping: nat.mapping,
                filtering: nat.filtering,
                guessable: nat.mapping != Mapping::EndpointIndependent
                    && nat.allocation != PortAllocation::Random,
                poisoned: false,
                scattered: nat.pooling == Pooling::Arbitrary,
                uncertain: nat.allocation == PortAllocation::Preserving
                    && nat.collision == Collision::Overload
                    && hosts() > 1,
            },
            Translation::Linux(nat) => Axes::of_linux(nat),
        }
    }

    fn of_linux(nat: &LinuxConfig) -> Axes {
        let mapping = match nat.rule {
            LinuxRule::AddressHash => Mapping::AddressDependent,
            LinuxRule::EndpointsHash | LinuxRule::Sequential => Mapping::AddressAndPortDependent,
            LinuxRule::EndpointHash => Mapping::EndpointIndependent,
            _ if nat.random => Mapping::AddressAndPortDependent,
            _ => Mapping::EndpointIndependent,
        };
        let filtering = match nat.rule {
            LinuxRule::FullCone | LinuxRule::Static if nat.forward == ForwardPolicy::Accept => {
                Filtering::EndpointIndependent
            }
            LinuxRule::RestrictedCone if nat.forward == ForwardPolicy::Accept => Filtering::AddressDependent,
            // The tables of Linux filter by address and port whatever else they do.
            _ => Filtering::AddressAndPortDependent,
        };
        let poisoned = nat.input == InputPolicy::Accept && filtering != Filtering::EndpointIndependent;
        Axes {
            mapping,
            filtering,
            guessable: nat.rule == LinuxRule::Sequential,
            poisoned,
            scattered: false,
            uncertain: false,
        }
    }
}

/// Whether one of its limits may be met, with so many addresses outside and hosts inside.
fn limited(nat: &NatConfig, addresses: usize, hosts: usize) -> bool {
    if nat.pooling == Pooling::OneToOne {
        // Who comes too late gets no address.
        return hosts > addresses;
    }
    let range = usize::from(nat.ports.high).saturating_sub(nat.ports.low.into()) + 1;
    let block = if nat.block == 0 { range } else { nat.block.into() };
    nat.host_quota.min(range).min(block).min(nat.capacity / 16) < PLENTY
}

/// Whether a translator turns packets for its own addresses back inside.
fn hairpins(nat: &Translation) -> bool {
    match nat {
        Translation::Axes(nat) => nat.hairpin != Hairpin::Off,
        Translation::Linux(nat) => nat.hairpin && (nat.rule.has_map() || nat.rule == LinuxRule::Static),
    }
}

/// Whether it does so with the sender's inside address.
fn tells_inside(nat: &Translation) -> bool {
    nat.axes().is_some_and(|nat| nat.hairpin == Hairpin::InternalSource)
}

/// Whether two classes that know each other's reflexive addresses connect.
fn connects(a: Class, b: Class) -> Direct {
    let udp = a.udp.min(b.udp);
    if udp == Direct::No {
        return Direct::No;
    }
    if a.uncertain || b.uncertain {
        return Direct::Perhaps;
    }
    let strictness = |c: Class| c.filtering as u8;
    let sure = match (a.varies(), b.varies()) {
        (false, false) => true,
        // The easy side's packet to the hard side's address opens an address-dependent filter, whatever the port.
        (true, false) => b.filtering != Filtering::AddressAndPortDependent,
        (false, true) => a.filtering != Filtering::AddressAndPortDependent,
        (true, true) => strictness(a) + strictness(b) <= 1,
    };
    let followed = |c: Class, other: Class| !c.wanders || other.filtering == Filtering::EndpointIndependent;
    if sure && !a.poisoned && !b.poisoned && followed(a, b) && followed(b, a) {
        udp
    } else if sure || a.guessable || b.guessable || a.lax() || b.lax() {
        Direct::Perhaps
    } else {
        Direct::No
    }
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// The routers between a host and the internet, innermost first, each as it treats one version of IP; `None` if the host has
/// no part in that version.
fn chain<'a>(scenario: &'a Scenario, host: &Host, family: Family) -> Option<Vec<(&'a str, Router)>> {
    let mut routers = Vec::new();
    let mut at = &host.attached;
    while let Attachment::Behind(name) = at {
        let Some((name, router)) = scenario.routers.get_key_value(name) else { break };
        routers.push((name.as_str(), seen_by(router, family)?));
        at = &router.uplink;
    }
    // IPv4 addresses can be written by a host with IPv6 alone, where a NAT64 reads them.
    let nat64 = || routers.iter().any(|(_, router)| router.is_nat64());
    let has = match (family, host.families) {
        (Family::V4, Families::V6) => nat64(),
        (Family::V6, Families::V4) => false,
        _ => true,
    };
    has.then_some(routers)
}

/// A router as one version of IP meets it, in the words for the other one; `None` if it lets none of it pass.
fn seen_by(router: &Router, family: Family) -> Option<Router> {
    // One address for another, without bindings.
    let one_to_one = || {
        let axes = nat::NatConfig { filtering: Filtering::EndpointIndependent, ..nat::NatConfig::RFC };
        Some(Translation::Axes(axes))
    };
    let mut seen = router.clone();
    match (family, &router.ipv6) {
        (Family::V4, None) => {}
        (Family::V4, Some(v6)) => {
            if v6.hides_v4() {
                seen.nat = one_to_one();
            }
        }
        (Family::V6, None) => return None,
        (Family::V6, Some(v6)) => {
            seen.nat = if matches!(v6.way, Way::Npt(_)) { one_to_one() } else { None };
            seen.lan = v6.lan;
            if let Some(firewall) = &v6.firewall {
                seen.firewall = firewall.rules.clone();
            }
        }
    }
    Some(seen)
}

/// The routers above a place, innermost first.
pub(super) fn routers_above<'s>(
    scenario: &'s Scenario,
    at: &'s Attachment,
) -> impl Iterator<Item = (&'s str, &'s Router)> {
    let router = |at: &'s Attachment| match at {
        Attachment::Behind(name) => Some((name.as_str(), scenario.routers.get(name)?)),
        Attachment::Region(_) => None,
    };
    std::iter::successors(router(at), move |(_, inner)| router(&inner.uplink))
}

/// The routers that a host is behind, innermost first.
fn above<'s>(scenario: &'s Scenario, host: &'s Host) -> impl Iterator<Item = (&'s str, &'s Router)> {
    routers_above(scenario, &host.attached)
}

/// Whether a host is behind a router, however far.
fn is_behind(scenario: &Scenario, host: &Host, router: &str) -> bool {
    above(scenario, host).any(|(name, _)| name == router)
}

/// Whether a router that a host is behind may run out of what it has for it.
fn is_limited(scenario: &Scenario, host: &Host) -> bool {
    above(scenario, host).any(|(name, router)| {
        let hosts = || scenario.hosts.values().filter(|host| is_behind(scenario, host, name)).count();
        let nat = router.nat.as_ref().and_then(Translation::axes);
        nat.is_some_and(|nat| limited(nat, router.addresses as usize, hosts()))
    })
}

/// Whether the addresses of a network show that it is a LAN: private (RFC 1918, RFC 4193) or link-local, which a carrier's
/// 100.64.0.0/10 (RFC 6598) and public addresses behind a firewall are not.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// What path `a` and `b` can have; `None` if either is no host of the scenario.
pub fn route(scenario: &Scenario, a: &str, b: &str) -> Option<Route> {
    let reach = Reach::new(scenario)?;
    if !reach.coordinator(a) || !reach.coordinator(b) {
        // They never hear of each other.
        return Some(Route { direct: Direct::No, lan: false, relay: false });
    }
    if [a, b].into_iter().filter_map(|name| scenario.hosts.get(name)).any(|host| is_limited(scenario, host)) {
        // Even the way to a relay may be what there was no room for.
        return Some(Route { direct: Direct::Perhaps, lan: false, relay: false });
    }
    let relay = !reach.relays(a).is_disjoint(&reach.relays(b));
    let asks = [a, b].map(|name| scenario.hosts.get(name).is_some_and(|host| host.port_mapping));
    let (a, b) = (scenario.hosts.get(a)?, scenario.hosts.get(b)?);
    let by = [Family::V4, Family::V6].into_iter().filter_map(|family| {
        // Ports are opened for IPv4 only.
        let asks = asks.map(|asks| asks && family == Family::V4);
        Some(by_family(scenario, &chain(scenario, a, family)?, &chain(scenario, b, family)?, asks))
    });
    let (direct, lan) =
        by.fold((Direct::No, false), |(best, lan), (direct, same)| (best.max(direct), lan | same));
    Some(Route { direct, lan, relay })
}

/// Whether two hosts connect by one version of IP, and whether it stays inside one LAN. `asks`: which of them ask their routers
/// to open a port.
fn by_family(
    scenario: &Scenario,
    a: &[(&str, Router)],
    b: &[(&str, Router)],
    asks: [bool; 2],
) -> (Direct, bool) {
    let shared = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x.0 == y.0).count();
    let (inner_a, inner_b) = (&a[..a.len() - shared], &b[..b.len() - shared]);
    let class = |boxes: &[(&str, Router)]| {
        let hosts = |router| scenario.hosts.values().filter(|host| is_behind(scenario, host, router)).count();
        boxes.iter().fold(Class::OPEN, |class, (name, router)| class.through(router, || hosts(name)))
    };
    if shared == 0 {
        let (plain_a, plain_b) = (class(a), class(b));
        let plain = connects(plain_a, plain_b);
        let opened = [(a, plain_a, asks[0]), (b, plain_b, asks[1])]
            .map(|(chain, plain, asks)| opened(chain, plain).filter(|_| asks));
        let direct = match opened {
            [None, None] => plain,
            [a, b] => {
                let sure = [&a, &b].into_iter().flatten().all(|(_, sure)| *sure);
                let with =
                    connects(a.map_or(plain_a, |(class, _)| class), b.map_or(plain_b, |(class, _)| class));
                if sure || with == plain { plain.max(with) } else { Direct::Perhaps }
            }
        };
        return (direct, false);
    }
    let local = inside(a, b, shared, [class(inner_a), class(inner_b)]);
    // Otherwise each knows only the other's outermost address, and the box that has it must turn packets around. What
    // stands further out they need not pass, only the questions to the STUN servers.
    let turning = a.iter().rposition(|(_, router)| router.nat.is_some()).filter(|i| *i >= inner_a.len());
    let hairpin = turning.filter(|i| a[*i].1.nat.as_ref().is_some_and(hairpins));
    let around = hairpin.filter(|_| class(a).udp.min(class(b).udp) != Direct::No).map_or(Direct::No, |i| {
        let beyond = a.len() - 1 - i;
        let around = connects(class(&a[..=i]), class(&b[..b.len() - beyond]));
        // With the sender's inside address, answers take another way, which other filters and a LAN decide about.
        if a[i].1.nat.as_ref().is_some_and(tells_inside) { around.min(Direct::Perhaps) } else { around }
    });
    let lans =
        [inner_a, inner_b].map(|inner| inner.first().map_or(&a[inner_a.len()].1, |(_, router)| router).lan.0);
    let named = [inner_a, inner_b].iter().all(|inner| !translates(inner));
    let lan = local == Direct::Yes && named && lans.into_iter().all(is_private);
    (local.max(around), lan)
}

/// What a host's router makes of it that opens a port on request: `plain`, but with one port for all that all may send to.
/// With whether it stays open. `None` if it gives none, or none that the internet reaches: a host asks its own router only.
fn opened(chain: &[(&str, Router)], plain: Class) -> Option<(Class, bool)> {
    let ((_, own), outer) = chain.split_first()?;
    let gateway = own.gateway.as_ref().filter(|_| own.nat.is_some() && !translates(outer))?;
    let gives = gateway.conduct == Conduct::Serve && gateway.capacity.min(gateway.per_host) > 0;
    let believed = gateway.claimed_external.is_none_or(portmap::is_public);
    if !gives || !believed {
        return None;
    }
    let walls = |router: &Router| Router { nat: None, ..router.clone() };
    let class = chain.iter().fold(Class::OPEN, |class, (_, router)| class.through(&walls(router), || 1));
    let sure = gateway.forgets_after.is_none() && gateway.claimed_external.is_none();
    Some((Class { udp: plain.udp, ..class }, sure))
}

fn translates(boxes: &[(&str, Router)]) -> bool {
    boxes.iter().any(|(_, router)| router.nat.is_some())
}

/// Whether two hosts meet inside the routers that both are behind, of which there are `shared`, the last ones of both chains.
/// `classes` are those of the routers before.
///
/// A side without translation before the meeting point is known there by its own address. One with it is known there only if
/// nothing translates further out, so that the STUN servers see the address that the meeting point sees.
fn inside(
    a: &[(&str, Router)],
    b: &[(&str, Router)],
    shared: usize,
    [class_a, class_b]: [Class; 2],
) -> Direct {
    let ((inner_a, outer), inner_b) = (a.split_at(a.len() - shared), &b[..b.len() - shared]);
    let seen =
        !translates(outer) && outer.iter().all(|(_, r)| Class::OPEN.through(r, || 1).udp != Direct::No);
    match (translates(inner_a), translates(inner_b)) {
        (false, false) => connects(class_a, class_b),
        (true, true) if seen => connects(class_a, class_b),
        (true, true) => Direct::No,
        (translates_a, _) => {
            let (near, near_class, far) =
                if translates_a { (inner_b, class_b, inner_a) } else { (inner_a, class_a, inner_b) };
            // Packets to an address of the own network do not leave it.
            let lan = near.first().map_or(&outer[0].1, |(_, router)| router).lan;
            let overlaps = far.iter().any(|(_, router)| router.lan == lan);
            // A filter before the near side opens only from inside, towards an address that it must know.
            let open = near_class.filtering == Filtering::EndpointIndependent;
            if !overlaps && (open || seen) { connects(class_a, class_b) } else { Direct::No }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(word: &str) -> Class {
        let (mapping, filtering) = match word {
            "PUBLIC" => return Class::OPEN,
            "FW-APDF" => return Class { filtering: Filtering::AddressAndPortDependent, ..Class::OPEN },
            "UDP-BLOCKED" => return Class { udp: Direct::No, ..Class::OPEN },
            _ => word.split_once('+').expect("MAPPING+FILTERING"),
        };
        let filtering = filtering.to_lowercase().parse().expect("a filtering");
        let mapping = mapping.to_lowercase().parse().expect("a mapping");
        Class { mapping, filtering, per_mapping: filtering, ..Class::OPEN }
    }

    /// The table was computed from the definitions of RFC 4787 by playing the packets of both sides.
    #[test]
    fn agrees_with_the_whole_pair_matrix() {
        let mut cells = 0;
        for line in include_str!("../../tests/data/pair_matrix.csv").lines().skip(1) {
            let mut fields = line.split(',');
            let (Some(a), Some(b), Some(direct)) = (fields.next(), fields.next(), fields.next()) else {
                panic!("short line: {line}");
            };
            let expected = if direct == "1" { Direct::Yes } else { Direct::No };
            assert_eq!(connects(class(a), class(b)), expected, "{a} with {b}");
            cells += 1;
        }
        assert_eq!(cells, 144);
    }
}
