//! The nodes of a topology as they stand in the network, and the networks that the internet knows.

use super::build::BuildError;
use super::ipv6::Ipv6;
use super::net::{Inner, Outlet, Parent, Router, Site};
use super::{Options, Seed};
use crate::host::Host;
use crate::icmp::Limiter;
use crate::scenario::Way;
use crate::topology::{Node, RouterPlan, Topology};
use link::Link;
use nat::{Firewall, Middlebox, Translation, Translator};
use rand::Rng as _;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use trace::{Name, NodeKind};

/// The same for IPv6 behind a router, which every router above passes on as it is, or the outermost with another prefix.
fn network6(topology: &Topology, router: u32) -> Option<((IpAddr, u8), u32)> {
    let plan = |node| topology.node(node).router.as_ref()?.ipv6.as_ref();
    let mut via = router;
    let mut lan = plan(router)?.lan;
    loop {
        if let Way::Npt(swap) = plan(via)?.way {
            // Further in, it would be a part of that network.
            lan =
                Some((swap.outside().address().into(), swap.outside().length())).filter(|_| via == router)?;
        }
        match topology.node(via).parent {
            crate::topology::Parent::Internet => return Some((lan, via)),
            crate::topology::Parent::Router(outer) => via = outer,
        }
    }
}

/// The networks whose addresses count on the internet, narrowest first, and the router there that leads to each.
pub(super) fn networks(topology: &Topology) -> Vec<((IpAddr, u8), u32)> {
    let mut networks = Vec::new();
    for (i, node) in topology.nodes.iter().enumerate() {
        let Some(lan) = node.router.as_ref().map(|plan| plan.lan) else { continue };
        let mut via = i as u32;
        let routed = loop {
            let node = topology.node(via);
            match (node.router.as_ref().is_some_and(|plan| plan.nat.is_none()), node.parent) {
                (false, _) => break false,
                (true, crate::topology::Parent::Internet) => break true,
                (true, crate::topology::Parent::Router(router)) => via = router,
            }
        };
        if routed {
            networks.push((lan, via));
        }
        networks.extend(network6(topology, i as u32));
    }
    networks.dedup();
    networks.sort_by_key(|((_, prefix), _)| std::cmp::Reverse(*prefix));
    networks
}

/// A router's translator: a model, or the kernel's.
fn translator(
    config: Translation,
    plan: &RouterPlan,
    name: &Name,
    seed: Seed,
    options: Options,
) -> Result<Translator, BuildError> {
    let rng = seed.pcg(&format!("nat {name}"));
    if !options.kernel_boxes {
        return Ok(Translator::new(config, plan.external.clone(), rng));
    }
    let outside = |ip: &IpAddr| !super::net::in_network(plan.lan, *ip);
    let host = |ip: IpAddr| (ip, if ip.is_ipv4() { 32 } else { 128 });
    let routed = plan.inside.keys().copied().filter(outside).map(host);
    let inside = std::iter::once(plan.lan).chain(routed).collect();
    kernel_box(&config, plan.external.clone(), inside, rng)
        .map_err(|why| BuildError::NoKernelBox { router: name.to_string(), why })
}

#[cfg(target_os = "linux")]
fn kernel_box(
    config: &Translation,
    external: Vec<IpAddr>,
    inside: Vec<(IpAddr, u8)>,
    rng: rand_pcg::Pcg64Mcg,
) -> Result<Translator, String> {
    let site = kernel_nat::Site { external, inside };
    let nat = kernel_nat::KernelNat::new(config, &site, rng).map_err(|error| error.to_string())?;
    Ok(Translator::Foreign(Box::new(nat)))
}

#[cfg(not(target_os = "linux"))]
fn kernel_box(
    _: &Translation,
    _: Vec<IpAddr>,
    _: Vec<(IpAddr, u8)>,
    _: rand_pcg::Pcg64Mcg,
) -> Result<Translator, String> {
    Err("only Linux has them".to_owned())
}

pub(super) fn site(
    topology: &Topology,
    node: &Node,
    seed: Seed,
    options: Options,
    start: Instant,
) -> Result<Site, BuildError> {
    let name = &node.name;
    // Both directions fail together.
    let times = seed.pcg(&format!("times of the link of {name}")).next_u64();
    let cable = |config: &link::LinkConfig, way: &str| {
        Link::new(config.clone(), seed.pcg(&format!("link {name} {way}"))).anchored(start, times)
    };
    let body = match &node.router {
        Some(plan) => {
            // A NAT64 has the axes instead.
            let nat64 = plan.ipv6.as_ref().is_some_and(|v6| matches!(v6.way, Way::Nat64 { .. }));
            let mut nat = match plan.nat.clone().filter(|_| !nat64) {
                Some(config) => Some(translator(config, plan, name, seed, options)?),
                None => None,
            };
            if let Some(nat) = &mut nat {
                nat.set_events(options.log);
            }
            Inner::Router(Box::new(Router {
                nat,
                firewall: plan
                    .firewall
                    .clone()
                    .map(|config| Box::new(Firewall::new(config, seed.pcg(&format!("firewall {name}"))))),
                ipv6: plan.ipv6.as_ref().map(|v6| {
                    let rng = |what: &str| seed.pcg(&format!("{what} {name}"));
                    Box::new(Ipv6::new(plan, v6, options.log, rng))
                }),
                inside: plan.inside.clone(),
                lan: plan.lan,
                gateway: plan.gateway,
                external: plan.external.clone(),
                own: None,
                limiter: Limiter::default(),
                refused: VecDeque::new(),
                off: false,
                back_ns: 0,
                armed_ns: None,
                lan_name: format!("{name}.lan").into(),
                wan_name: format!("{name}.wan").into(),
            }))
        }
        None if let Some(of) = &node.of => Inner::Outlet(Box::new(Outlet {
            host: of.host,
            addresses: node.addresses().collect(),
            resolver: topology.resolver(node).map(|ip| SocketAddr::new(ip, pref64::DNS_PORT)),
        })),
        None => {
            let rng = seed.chacha(&format!("host {name}"));
            let mut host = Host::new(name.clone(), node.addresses().collect(), rng, options.timers);
            if let Some(resolver) = topology.resolver(node) {
                host.set_resolver(SocketAddr::new(resolver, pref64::DNS_PORT));
            }
            Inner::Host(Box::new(host))
        }
    };
    debug_assert_eq!(node.router.is_some(), node.kind == NodeKind::Router);
    Ok(Site {
        name: name.clone(),
        odd: None,
        parent: match node.parent {
            crate::topology::Parent::Internet => Parent::Internet { region: node.region },
            crate::topology::Parent::Router(router) => Parent::Router(router),
        },
        up: cable(&node.up, "up"),
        down: cable(&node.down, "down"),
        up_name: format!("{name}.up").into(),
        down_name: format!("{name}.down").into(),
        armed_ns: [None; 2],
        body,
    })
}
