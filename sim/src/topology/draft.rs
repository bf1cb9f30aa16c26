//! The nodes of a scenario, parents before children, and their places.

use std::borrow::Cow;
use std::net::IpAddr;

use portmap::gateway::GatewayConfig;
use trace::{Name, NodeKind};

use super::{
    COORDINATOR, Ipv6Plan, Node, Outlet, Parent, RegionIdx, RouterPlan, Table, Topology, TopologyError, index,
};
use crate::scenario::{
    Access, Action, Attachment, Families, Host, Interface, Proxy, Relay, Router, Scenario, Server, Way,
    prefix, regions, words,
};

/// A node on its way into the topology.
pub(super) struct Draft<'s> {
    pub(super) name: Cow<'s, str>,
    pub(super) kind: NodeKind,
    pub(super) attached: Attachment,
    pub(super) families: Families,
    pub(super) address: Option<IpAddr>,
    pub(super) address6: Option<IpAddr>,
    pub(super) link: &'s Access,
    pub(super) router: Option<&'s Router>,
    /// A further place of a host: whose, which of its interfaces, whether as the host section says, and whether it is up.
    pub(super) of: Option<(&'s str, &'s str, bool, bool)>,
}

impl Topology {
    /// Adds a node, still without its address.
    pub(super) fn place(&mut self, draft: &Draft<'_>) -> Result<(), TopologyError> {
        let (parent, region) = match &draft.attached {
            Attachment::Region(region) => (Parent::Internet, self.region(region)),
            Attachment::Behind(router) => {
                let found = self.find(router).filter(|index| self.node(*index).router.is_some());
                let index = found.ok_or_else(|| TopologyError::NoSuchRouter {
                    node: draft.name.to_string(),
                    router: router.clone(),
                })?;
                (Parent::Router(index), self.node(index).region)
            }
        };
        let router = draft.router.map(|router| RouterPlan {
            lan: router.lan,
            gateway: prefix::nth(router.lan.0, router.lan.1, 1).unwrap_or(router.lan.0),
            nat: router.nat.clone(),
            firewall: router.firewall.clone(),
            port_mapping: router.gateway.clone().map(|config| GatewayConfig {
                address: prefix::nth(router.lan.0, router.lan.1, 1).unwrap_or(router.lan.0),
                ..config
            }),
            external: Vec::new(),
            ipv6: router.ipv6.as_ref().map(|v6| Ipv6Plan {
                way: v6.way,
                lan: v6.lan,
                gateway: prefix::nth(v6.lan.0, v6.lan.1, 1).unwrap_or(v6.lan.0),
                firewall: v6.firewall.as_ref().map(|firewall| firewall.rules.clone()),
            }),
            inside: Table::default(),
            about: about(router),
        });
        let name: Name = (*draft.name).into();
        let of = draft.of.and_then(|(host, interface, first, up)| {
            Some(Outlet { host: self.find(host)?, interface: interface.to_owned(), first, up })
        });
        self.by_name.insert(name.clone(), index(self.nodes.len()));
        self.nodes.push(Node {
            name,
            kind: draft.kind,
            parent,
            region,
            address: IpAddr::from([0, 0, 0, 0]),
            address6: None,
            up: draft.link.up.clone(),
            down: draft.link.down.clone(),
            router,
            of,
        });
        Ok(())
    }

    fn region(&mut self, region: &str) -> RegionIdx {
        let region = regions::canonical(region);
        let known = self.regions.iter().position(|known| **known == *region);
        index(known.unwrap_or_else(|| {
            self.regions.push(region.into());
            self.regions.len() - 1
        }))
    }
}

/// Every node of a scenario, parents before children.
pub(super) fn drafts<'s>(scenario: &'s Scenario) -> Vec<Draft<'s>> {
    let mut drafts = Vec::new();
    for (name, router) in &scenario.routers {
        let families = router.uplink_families();
        let address6 = router.ipv6.as_ref().and_then(|v6| v6.address);
        let (address, address6) = if families == Families::V6 {
            (address6.or(router.address), None)
        } else {
            (router.address, address6)
        };
        drafts.push(Draft {
            name: name.into(),
            kind: NodeKind::Router,
            attached: router.uplink.clone(),
            families,
            address,
            address6,
            link: &router.link,
            router: Some(router),
            of: None,
        });
    }
    for (name, Host { attached, families, address, address6, link, .. }) in &scenario.hosts {
        drafts.push(Draft {
            name: name.into(),
            kind: NodeKind::Host,
            attached: attached.clone(),
            families: *families,
            address: *address,
            address6: *address6,
            link,
            router: None,
            of: None,
        });
    }
    for (name, Proxy { attached, address, link, .. }) in &scenario.proxies {
        let v6 = matches!(attached, Attachment::Behind(router)
            if scenario.routers.get(router).is_some_and(Router::is_nat64));
        drafts.push(Draft {
            name: name.into(),
            kind: NodeKind::Proxy,
            attached: attached.clone(),
            families: if v6 { Families::V6 } else { Families::V4 },
            address: *address,
            address6: None,
            link,
            router: None,
            of: None,
        });
    }
    let mut server =
        |name: &'s str, kind, region: &String, families, addresses: [Option<IpAddr>; 2], link| {
            let ([address, address6], attached) = (addresses, Attachment::Region(region.clone()));
            let name = name.into();
            drafts.push(Draft {
                name,
                kind,
                attached,
                families,
                address,
                address6,
                link,
                router: None,
                of: None,
            });
        };
    for (name, Relay { region, families, address, address6, link, .. }) in &scenario.relays {
        server(name, NodeKind::Relay, region, *families, [*address, *address6], link);
    }
    for (name, Server { region, families, address, address6, link, .. }) in &scenario.stuns {
        server(name, NodeKind::Stun, region, *families, [*address, *address6], link);
    }
    let Server { region, families, address, address6, link, .. } = &scenario.coordinator;
    server(COORDINATOR, NodeKind::Coordinator, region, *families, [*address, *address6], link);
    let mut place_of =
        |name: String, to: &Attachment, address: Option<IpAddr>, link, of: (&'s str, &'s str, bool, bool)| {
            let families = families_at(scenario, of.0, to);
            let second = families == Families::Dual && address.is_some_and(|address| address.is_ipv6());
            let (address, address6) = if second { (None, address) } else { (address, None) };
            let (name, kind, attached) = (name.into(), NodeKind::Host, to.clone());
            drafts.push(Draft {
                name,
                kind,
                attached,
                families,
                address,
                address6,
                link,
                router: None,
                of: Some(of),
            });
        };
    for (name, host) in &scenario.hosts {
        for (own, Interface { attached, address, link, up }) in &host.interfaces {
            place_of(words::interface(name, own), attached, *address, link, (name, own, true, *up));
        }
    }
    let mut places: Vec<String> = Vec::new();
    for timed in &scenario.timeline {
        let Action::MoveHost { host, interface, to, address, link, .. } = &timed.action else { continue };
        let name = place(scenario, host, interface, to);
        let known = !name.contains('@') || places.contains(&name);
        if known {
            continue;
        }
        place_of(name.clone(), to, *address, link, (host, interface, false, false));
        places.push(name);
    }
    drafts
}

/// The IP versions that a host has at one of its further places: those of the network, but IPv6 beside IPv4 only if it has both
/// at its own place too.
fn families_at(scenario: &Scenario, host: &str, at: &Attachment) -> Families {
    let own = scenario.hosts.get(host).map_or(Families::V4, |host| host.families);
    let beside = if own == Families::V4 { Families::V4 } else { Families::Dual };
    match at {
        Attachment::Region(_) => beside,
        Attachment::Behind(router) => {
            match scenario.routers.get(router).and_then(|router| router.ipv6.as_ref()).map(|v6| &v6.way) {
                None => Families::V4,
                Some(Way::Nat64 { .. }) => Families::V6,
                Some(_) => beside,
            }
        }
    }
}

/// The name of the node where an interface of a host is when it is attached to `to`: its own where it was at the start.
pub fn place(scenario: &Scenario, host: &str, interface: &str, to: &Attachment) -> String {
    let name = words::interface(host, interface);
    let own = scenario.hosts.get(host);
    let start = own.map(|own| own.interfaces.get(interface).map_or(&own.attached, |own| &own.attached));
    match to {
        _ if start == Some(to) => name,
        Attachment::Region(to) | Attachment::Behind(to) => format!("{name}@{to}"),
    }
}

/// What people call a router's NAT and firewall.
fn about(router: &Router) -> String {
    let about = about_v4(router);
    match router.ipv6.as_ref().map(|v6| v6.way) {
        None => about,
        Some(Way::Routed) => format!("{about}, IPv6"),
        Some(Way::Npt(_)) => format!("{about}, NPTv6"),
        Some(Way::Nat64 { .. }) => format!("NAT64 {about}"),
        Some(Way::Clat { .. }) if about == "none" => "464XLAT".to_owned(),
        Some(Way::Clat { .. }) => format!("464XLAT, {about}"),
    }
}

fn about_v4(router: &Router) -> String {
    match (router.nat_name.as_str(), router.firewall_name.as_str()) {
        (nat, "") => nat.to_owned(),
        ("none", firewall) => firewall.to_owned(),
        (nat, firewall) => format!("{nat}, {firewall}"),
    }
}
