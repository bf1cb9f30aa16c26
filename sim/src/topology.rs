//! Who is behind whom, at which address: a [`Scenario`] laid out, before anything moves.
//!
//! A realm is a set of nodes that reach each other without a router in between: the internet, or the inside of one
//! router. An address means something in one realm only, so two homes may both have a 192.168.1.2. A router without NAT
//! joins its inside to the realm of its uplink: the addresses in there count in both. So do IPv6 addresses behind a router that
//! passes them on, as they are or as their counterparts.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use indexmap::IndexMap;
use link::LinkConfig;
use nat::{FirewallConfig, Translation};
use portmap::gateway::GatewayConfig;
use rustc_hash::FxBuildHasher;
use trace::{Name, NodeKind};

use crate::scenario::{
    Access, Action, Attachment, Families, Host, Interface, Proxy, Relay, Router, Scenario, Server, Way,
    prefix, regions, words,
};

/// Name of the coordination server's node.
pub const COORDINATOR: &str = "coordinator";

/// Index of a node in [`Topology::nodes`].
pub type NodeIdx = u32;
/// Index of a region in [`Topology::regions`].
pub type RegionIdx = u32;
/// Who answers to an address: a direct child of the realm, which may be a router with the owner behind it.
pub type Table = IndexMap<IpAddr, NodeIdx, FxBuildHasher>;

/// What a node hangs off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parent {
    /// The internet.
    Internet,
    /// The inside of a router.
    Router(NodeIdx),
}

/// A host, router or server in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name, unique in the topology.
    pub name: Name,
    /// What it is.
    pub kind: NodeKind,
    /// What its cable leads to.
    pub parent: Parent,
    /// The region in which its way to the internet ends.
    pub region: RegionIdx,
    /// Its address in the realm of its parent.
    pub address: IpAddr,
    /// Its IPv6 address there, if it has one beside an IPv4 address.
    pub address6: Option<IpAddr>,
    /// Its cable, away from it.
    pub up: LinkConfig,
    /// Its cable, towards it.
    pub down: LinkConfig,
    /// What makes it a router.
    pub router: Option<RouterPlan>,
    /// What makes it no node of its own, but a place of a host that has several.
    pub of: Option<Outlet>,
}

/// A place where a host may be attached beside its own: another interface, or where one of them will move to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// Whose.
    pub host: NodeIdx,
    /// Which of its interfaces; empty = the first.
    pub interface: String,
    /// Whether it is an interface as the host section says, rather than where one moves to.
    pub first: bool,
    /// Whether it is in use from the start.
    pub up: bool,
}

/// The inside of a router and what stands before it.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterPlan {
    /// Its inside network: first address and prefix length.
    pub lan: (IpAddr, u8),
    /// Its own address in there.
    pub gateway: IpAddr,
    /// Address translation, if any.
    pub nat: Option<Translation>,
    /// Packet filter, if any, with addresses in place of names.
    pub firewall: Option<FirewallConfig>,
    /// The addresses that the NAT gives out, as far as they are of its version; its own on the uplink.
    pub external: Vec<IpAddr>,
    /// IPv6, if any of it passes.
    pub ipv6: Option<Ipv6Plan>,
    /// Who answers to an address on the inside.
    pub inside: Table,
    /// Its port mapping gateway, if it has one.
    pub port_mapping: Option<GatewayConfig>,
    /// Presets or "custom": "linux, web-only".
    pub about: String,
}

/// IPv6 at a router.
#[derive(Debug, Clone, PartialEq)]
pub struct Ipv6Plan {
    /// How it is passed on.
    pub way: Way,
    /// The inside network of IPv6: first address and prefix length.
    pub lan: (IpAddr, u8),
    /// The router's own address in there.
    pub gateway: IpAddr,
    /// Packet filter, where it is not the router's for both versions.
    pub firewall: Option<Option<FirewallConfig>>,
}

impl RouterPlan {
    /// The address by which a node with this one inside is reached on the uplink, if there is one for it alone.
    fn beyond(&self, address: IpAddr) -> Option<IpAddr> {
        match (self.ipv6.as_ref().map(|v6| &v6.way), address) {
            (Some(Way::Clat { customer, .. }), IpAddr::V4(v4)) => Some(customer.embed(v4).into()),
            (Some(Way::Npt(swap)), IpAddr::V6(v6)) => swap.to_outside(v6).map(IpAddr::V6),
            (Some(_), IpAddr::V6(_)) => Some(address),
            _ => self.nat.is_none().then_some(address),
        }
    }

    /// The networks inside, each with the router's address in it.
    fn networks(&self) -> impl Iterator<Item = ((IpAddr, u8), IpAddr)> {
        let v6 = self.ipv6.as_ref().map(|v6| (v6.lan, v6.gateway));
        std::iter::once((self.lan, self.gateway)).chain(v6)
    }
}

impl Node {
    /// Its addresses: that of IPv4 first.
    pub fn addresses(&self) -> impl DoubleEndedIterator<Item = IpAddr> {
        std::iter::once(self.address).chain(self.address6)
    }
}

/// A scenario laid out. Nothing here moves.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Every node: routers, outer before inner; then hosts, relays, STUN servers and the coordination server; then the
    /// further places of hosts.
    pub nodes: Vec<Node>,
    /// Nodes by name.
    pub by_name: IndexMap<Name, NodeIdx, FxBuildHasher>,
    /// Who answers to an address on the internet.
    pub internet: Table,
    /// The regions in use, canonical names.
    pub regions: Vec<Name>,
    /// One-way delays, row by row.
    latency: Vec<Duration>,
    /// The addresses that routers are given by the timeline, by index of its entry.
    pub readdressed: IndexMap<usize, IpAddr>,
}

/// Why a scenario cannot be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Two nodes of one realm have one address.
    #[error("{node} and {other} both have {address}")]
    AddressTaken {
        /// The later one.
        node: String,
        /// The earlier one.
        other: String,
        /// Their address.
        address: IpAddr,
    },
    /// An address that is not in the network of the router above.
    #[error("{node} has {address}, which is not a host's address in {network}/{prefix}")]
    OutsideNetwork {
        /// Whose.
        node: String,
        /// The address.
        address: IpAddr,
        /// The network.
        network: IpAddr,
        /// Its prefix length.
        prefix: u8,
    },
    /// An address that means nothing on the internet.
    #[error("{node} is on the internet with {address}, which is not a public address")]
    NotPublic {
        /// Whose.
        node: String,
        /// The address.
        address: IpAddr,
    },
    /// A network without a free address.
    #[error("no address is left for {node} in {network}")]
    Full {
        /// For whom.
        node: String,
        /// Where.
        network: String,
    },
    /// A router that would have to translate between IPv4 and IPv6.
    #[error("{node} has {address} outside and another kind of addresses inside")]
    TwoFamilies {
        /// Which.
        node: String,
        /// Its outer address.
        address: IpAddr,
    },
    /// A node behind something that is no router before it.
    #[error("{node} is behind {router}, which is no router that comes before it")]
    NoSuchRouter {
        /// Which.
        node: String,
        /// What it names.
        router: String,
    },
    /// Two regions without a known delay.
    #[error("no delay is known between {a} and {b}")]
    NoDelay {
        /// One region.
        a: String,
        /// The other.
        b: String,
    },
}

impl TopologyError {
    /// The node it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            TopologyError::AddressTaken { node, .. }
            | TopologyError::OutsideNetwork { node, .. }
            | TopologyError::NotPublic { node, .. }
            | TopologyError::Full { node, .. }
            | TopologyError::TwoFamilies { node, .. }
            | TopologyError::NoSuchRouter { node, .. } => Some(node),
            TopologyError::NoDelay { .. } => None,
        }
    }
}

/// A node on its way into the topology.
struct Draft<'s> {
    name: Cow<'s, str>,
    kind: NodeKind,
    attached: Attachment,
    families: Families,
    address: Option<IpAddr>,
    address6: Option<IpAddr>,
    link: &'s Access,
    router: Option<&'s Router>,
    /// A further place of a host: whose, which of its interfaces, whether as the host section says, and whether it is up.
    of: Option<(&'s str, &'s str, bool, bool)>,
}

impl Topology {
    /// Lays a scenario out.
    ///
    /// Nodes without an address get the next free one: from x.x.x.2 behind a router, and on the internet from a block of
    /// their region's own.
    ///
    /// # Errors
    /// Addresses that collide or do not belong where they are, and regions without a delay between them.
    pub fn new(scenario: &Scenario) -> Result<Topology, TopologyError> {
        let mut topology = Topology {
            nodes: Vec::new(),
            by_name: IndexMap::default(),
            internet: Table::default(),
            regions: Vec::new(),
            latency: Vec::new(),
            readdressed: IndexMap::new(),
        };
        let drafts = drafts(scenario);
        for draft in &drafts {
            topology.place(draft)?;
        }
        topology.measure(scenario)?;
        topology.address(&drafts)?;
        topology.pools(&drafts)?;
        topology.readdress(scenario)?;
        for i in 0..topology.nodes.len() {
            if let Some(mut firewall) =
                topology.nodes[i].router.as_mut().and_then(|plan| plan.firewall.take())
            {
                firewall.resolve(|name| topology.addresses_of(name));
                if let Some(plan) = &mut topology.nodes[i].router {
                    plan.firewall = Some(firewall);
                }
            }
            let of_v6 = |plan: &mut RouterPlan| plan.ipv6.as_mut()?.firewall.as_mut()?.take();
            if let Some(mut firewall) = topology.nodes[i].router.as_mut().and_then(of_v6) {
                firewall.resolve(|name| topology.addresses_of(name));
                if let Some(v6) = topology.nodes[i].router.as_mut().and_then(|plan| plan.ipv6.as_mut()) {
                    v6.firewall = Some(Some(firewall));
                }
            }
        }
        Ok(topology)
    }

    /// One-way delay from one region to another, the same both ways; within a region, between two of its sites.
    ///
    /// # Panics
    /// If one of them is not an index of [`Topology::regions`].
    pub fn one_way(&self, a: RegionIdx, b: RegionIdx) -> Duration {
        self.latency[a as usize * self.regions.len() + b as usize]
    }

    /// The index of a node by its name.
    pub fn find(&self, name: &str) -> Option<NodeIdx> {
        self.by_name.get(name).copied()
    }

    /// The addresses that a node has outside of itself, by its name; none if there is no such node.
    pub fn addresses_of(&self, name: &str) -> Vec<IpAddr> {
        let Some(node) = self.find(name).map(|index| self.node(index)) else { return Vec::new() };
        match &node.router {
            Some(plan) => plan.external.clone(),
            None => node.addresses().collect(),
        }
    }

    /// The resolver that tells a node of a NAT64 above it: that of the network with the NAT64.
    pub fn resolver(&self, node: &Node) -> Option<IpAddr> {
        let mut parent = node.parent;
        while let Parent::Router(router) = parent {
            let node = self.node(router);
            if let Some(v6) = node.router.as_ref().and_then(|plan| plan.ipv6.as_ref())
                && matches!(v6.way, Way::Nat64 { .. })
            {
                return Some(v6.gateway);
            }
            parent = node.parent;
        }
        None
    }

    /// The node at an index.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&self, index: NodeIdx) -> &Node {
        &self.nodes[index as usize]
    }

    /// Adds a node, still without its address.
    fn place(&mut self, draft: &Draft<'_>) -> Result<(), TopologyError> {
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

    /// Fills in the delays between the regions in use.
    fn measure(&mut self, scenario: &Scenario) -> Result<(), TopologyError> {
        for a in &self.regions {
            for b in &self.regions {
                let key = if a <= b { (a, b) } else { (b, a) };
                let own = scenario.latency.get(&(key.0.to_string(), key.1.to_string())).copied();
                let inside = (a == b).then_some(regions::INSIDE);
                let delay = own.or_else(|| regions::one_way(a, b)).or(inside);
                let delay =
                    delay.ok_or_else(|| TopologyError::NoDelay { a: a.to_string(), b: b.to_string() })?;
                self.latency.push(delay);
            }
        }
        Ok(())
    }

    /// Gives every node its address: first those that the scenario chose, then the others in order.
    fn address(&mut self, drafts: &[Draft<'_>]) -> Result<(), TopologyError> {
        for (node, draft) in drafts.iter().enumerate() {
            for (address, second) in [(draft.address, false), (draft.address6, true)] {
                if let Some(address) = address {
                    self.check(node, address)?;
                    self.settle(node, address, second)?;
                }
            }
        }
        // Where to look next: behind each router, and in each region.
        let mut behind = vec![2_u128; self.nodes.len()];
        let mut region = vec![1_u128; self.regions.len()];
        for (node, draft) in drafts.iter().enumerate() {
            if draft.address.is_some() || draft.families == Families::V6 {
                continue;
            }
            let address = match self.nodes[node].parent {
                Parent::Internet => {
                    let block = regions::block(self.nodes[node].region);
                    next_free(block, &self.internet, &mut region[self.nodes[node].region as usize])
                }
                Parent::Router(router) => self.nodes[router as usize]
                    .router
                    .as_ref()
                    .and_then(|plan| next_free(plan.lan, &plan.inside, &mut behind[router as usize])),
            };
            let address = address.ok_or_else(|| self.full(node))?;
            self.settle(node, address, false)?;
        }
        let mut behind = vec![2_u128; self.nodes.len()];
        let mut region = vec![1_u128; self.regions.len()];
        for (node, draft) in drafts.iter().enumerate() {
            let given = if draft.families == Families::V6 { draft.address } else { draft.address6 };
            if given.is_some() || draft.families == Families::V4 {
                continue;
            }
            let address = match self.nodes[node].parent {
                Parent::Internet => {
                    let block = regions::block6(self.nodes[node].region);
                    next_free(block, &self.internet, &mut region[self.nodes[node].region as usize])
                }
                Parent::Router(router) => self.nodes[router as usize].router.as_ref().and_then(|plan| {
                    next_free(plan.ipv6.as_ref()?.lan, &plan.inside, &mut behind[router as usize])
                }),
            };
            let address = address.ok_or_else(|| self.full(node))?;
            self.settle(node, address, draft.families == Families::Dual)?;
        }
        Ok(())
    }

    /// Gives routers that translate to several addresses the others, which are of IPv4.
    fn pools(&mut self, drafts: &[Draft<'_>]) -> Result<(), TopologyError> {
        for (node, draft) in drafts.iter().enumerate() {
            for _ in 1..draft.router.map_or(1, |router| router.addresses) {
                let first = self.nodes[node].address;
                let address = match self.nodes[node].parent {
                    Parent::Internet => {
                        next_free(regions::block(self.nodes[node].region), &self.internet, &mut 1)
                    }
                    Parent::Router(router) => self.nodes[router as usize]
                        .router
                        .as_ref()
                        .and_then(|plan| next_free(plan.lan, &plan.inside, &mut 2)),
                };
                self.settle(node, address.ok_or_else(|| self.full(node))?, false)?;
                self.nodes[node].address = first;
            }
        }
        Ok(())
    }

    fn full(&self, node: usize) -> TopologyError {
        TopologyError::Full {
            node: self.nodes[node].name.to_string(),
            network: match self.nodes[node].parent {
                Parent::Internet => self.regions[self.nodes[node].region as usize].to_string(),
                Parent::Router(router) => self.nodes[router as usize].name.to_string(),
            },
        }
    }

    /// Sets the addresses aside that the timeline gives to routers.
    fn readdress(&mut self, scenario: &Scenario) -> Result<(), TopologyError> {
        let mut cursors: IndexMap<(Parent, RegionIdx), u128> = IndexMap::new();
        for (entry, timed) in scenario.timeline.iter().enumerate() {
            let Action::ReaddressRouter { router, address, .. } = &timed.action else { continue };
            let Some(node) = self.find(router) else { continue };
            let Node { parent, region, address: first, .. } = *self.node(node);
            let cursor = cursors.entry((parent, region)).or_insert(match parent {
                Parent::Internet => 1,
                Parent::Router(_) => 2,
            });
            let free = match parent {
                Parent::Internet => next_free(regions::block(region), &self.internet, cursor),
                Parent::Router(outer) => {
                    let plan = self.nodes[outer as usize].router.as_ref();
                    plan.and_then(|plan| next_free(plan.lan, &plan.inside, cursor))
                }
            };
            let address = address.or(free).ok_or_else(|| self.full(node as usize))?;
            let mine = self.readdressed.iter().any(|(entry, known)| {
                *known == address
                    && matches!(&scenario.timeline[*entry].action, Action::ReaddressRouter { router: r, .. } if r == router)
            });
            if address.is_ipv4() != first.is_ipv4() {
                return Err(TopologyError::TwoFamilies { node: router.clone(), address });
            }
            if address != first && !mine {
                self.check(node as usize, address)?;
                self.route(node as usize, address)?;
            }
            self.readdressed.insert(entry, address);
        }
        Ok(())
    }

    /// Checks an address that the scenario chose.
    fn check(&self, node: usize, address: IpAddr) -> Result<(), TopologyError> {
        let name = || self.nodes[node].name.to_string();
        match self.nodes[node].parent {
            Parent::Internet => Ok(()),
            Parent::Router(router) => {
                let Some(plan) = &self.nodes[router as usize].router else { return Ok(()) };
                for ((network, length), gateway) in plan.networks() {
                    let taken = [Some(network), Some(gateway), prefix::last(network, length)];
                    if prefix::contains((network, length), address) && !taken.contains(&Some(address)) {
                        return Ok(());
                    }
                }
                let same = |((network, _), _): &((IpAddr, u8), _)| network.is_ipv4() == address.is_ipv4();
                let (network, prefix) = plan.networks().find(same).map_or(plan.lan, |(lan, _)| lan);
                Err(TopologyError::OutsideNetwork { node: name(), address, network, prefix })
            }
        }
    }

    /// Writes an address down, the first or the second of its node, in its realm and in those that it is routed to.
    fn settle(&mut self, node: usize, address: IpAddr, second: bool) -> Result<(), TopologyError> {
        if second {
            self.nodes[node].address6 = Some(address);
        } else {
            self.nodes[node].address = address;
        }
        if let Some(plan) = &mut self.nodes[node].router {
            plan.external.push(address);
            plan.external.sort_by_key(IpAddr::is_ipv6);
            if plan.ipv6.is_none() && plan.lan.0.is_ipv4() != address.is_ipv4() {
                return Err(TopologyError::TwoFamilies { node: self.nodes[node].name.to_string(), address });
            }
        }
        self.route(node, address)
    }

    /// Makes a node answer to an address, in its realm and in those that it is routed to.
    fn route(&mut self, node: usize, address: IpAddr) -> Result<(), TopologyError> {
        let mut via = index(node);
        let mut address = address;
        loop {
            let parent = self.nodes[via as usize].parent;
            let (table, onward) = match parent {
                Parent::Internet if !public(address) => {
                    return Err(TopologyError::NotPublic {
                        node: self.nodes[node].name.to_string(),
                        address,
                    });
                }
                Parent::Internet => (&mut self.internet, None),
                Parent::Router(router) => match &mut self.nodes[router as usize].router {
                    Some(plan) => {
                        let beyond = plan.beyond(address);
                        (&mut plan.inside, beyond.map(|beyond| (router, beyond)))
                    }
                    None => return Ok(()),
                },
            };
            if let Some(other) = table.insert(address, via) {
                return Err(TopologyError::AddressTaken {
                    node: self.nodes[node].name.to_string(),
                    other: self.nodes[other as usize].name.to_string(),
                    address,
                });
            }
            match onward {
                Some((router, beyond)) => (via, address) = (router, beyond),
                None => return Ok(()),
            }
        }
    }

    /// The network as a tree, for people: who is behind whom, at which address, through which NAT and cable.
    pub fn print(&self) -> String {
        let mut children: Vec<Vec<NodeIdx>> = vec![Vec::new(); self.nodes.len()];
        let mut roots: Vec<Vec<NodeIdx>> = vec![Vec::new(); self.regions.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            match node.parent {
                Parent::Internet => roots[node.region as usize].push(index(i)),
                Parent::Router(router) => children[router as usize].push(index(i)),
            }
        }
        let mut out = String::from("internet\n");
        for (region, roots) in roots.iter().enumerate() {
            let last = region + 1 == self.regions.len();
            let _ = writeln!(out, "{}{}{}", branch(last), self.regions[region], self.distances(region));
            // Depth first without recursion: a chain of routers may be as long as a scenario.
            let mut waiting: Vec<(NodeIdx, String, bool)> = Vec::new();
            let push = |waiting: &mut Vec<(NodeIdx, String, bool)>, nodes: &[NodeIdx], indent: &str| {
                for (i, node) in nodes.iter().enumerate().rev() {
                    waiting.push((*node, indent.to_owned(), i + 1 == nodes.len()));
                }
            };
            push(&mut waiting, roots, trunk(last));
            while let Some((node, indent, last)) = waiting.pop() {
                self.line(&mut out, node, &indent, last);
                push(&mut waiting, &children[node as usize], &format!("{indent}{}", trunk(last)));
            }
        }
        out
    }

    fn distances(&self, region: usize) -> String {
        let mut out = String::new();
        for (other, name) in self.regions.iter().enumerate().filter(|(other, _)| *other != region) {
            let delay = words::duration(self.latency[region * self.regions.len() + other]);
            let _ = write!(out, "{}{delay} to {name}", if out.is_empty() { "  (" } else { ", " });
        }
        if !out.is_empty() {
            out.push_str(" one way)");
        }
        out
    }

    fn line(&self, out: &mut String, node: NodeIdx, indent: &str, last: bool) {
        let node = self.node(node);
        let kind = match node.kind {
            NodeKind::Host if node.of.as_ref().is_some_and(|of| of.first) => "interface",
            NodeKind::Host if node.of.is_some() => "later place",
            NodeKind::Host => "host",
            NodeKind::Router => "router",
            NodeKind::Relay => "relay",
            NodeKind::Stun => "stun",
            NodeKind::Proxy => "proxy",
            NodeKind::Coordinator => "coordinator",
        };
        let title = if kind == &*node.name { String::new() } else { format!("  {kind}") };
        let cable = format!("down {}, up {}", words::link(&node.down), words::link(&node.up));
        let also = node.address6.map(|v6| format!(", {v6}")).unwrap_or_default();
        let _ =
            writeln!(out, "{indent}{}{}{title}  {}{also}  [{cable}]", branch(last), node.name, node.address);
        let Some(plan) = &node.router else { return };
        let indent = format!("{indent}{}", trunk(last));
        let nat = plan.nat.as_ref().map_or_else(|| "no translation".to_owned(), ToString::to_string);
        let _ = writeln!(out, "{indent}·  inside {}/{}: {} ({nat})", plan.lan.0, plan.lan.1, plan.about);
        if let Some(firewall) = &plan.firewall {
            let _ = writeln!(out, "{indent}·  firewall: {firewall}");
        }
        let Some(v6) = &plan.ipv6 else { return };
        let _ = writeln!(out, "{indent}·  inside {}/{}: {}", v6.lan.0, v6.lan.1, words_of(&v6.way));
        if let Some(firewall) = &v6.firewall {
            let firewall = firewall.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
            let _ = writeln!(out, "{indent}·  firewall of IPv6: {firewall}");
        }
    }
}

/// A router's way of IPv6, for people.
fn words_of(way: &Way) -> String {
    match way {
        Way::Routed => "IPv6 routed".to_owned(),
        Way::Npt(swap) => swap.to_string(),
        Way::Nat64 { prefix } => format!("nat64 {prefix}"),
        Way::Clat { provider, customer } => format!("clat {customer} to {provider}"),
    }
}

fn branch(last: bool) -> &'static str {
    if last { "└─ " } else { "├─ " }
}

fn trunk(last: bool) -> &'static str {
    if last { "   " } else { "│  " }
}

fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Every node of a scenario, parents before children.
fn drafts<'s>(scenario: &'s Scenario) -> Vec<Draft<'s>> {
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
    for (name, Relay { region, families, address, address6, link }) in &scenario.relays {
        server(name, NodeKind::Relay, region, *families, [*address, *address6], link);
    }
    for (name, Server { region, families, address, address6, link }) in &scenario.stuns {
        server(name, NodeKind::Stun, region, *families, [*address, *address6], link);
    }
    let Server { region, families, address, address6, link } = &scenario.coordinator;
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

/// The first address from `cursor` on that nobody has.
fn next_free((network, length): (IpAddr, u8), table: &Table, cursor: &mut u128) -> Option<IpAddr> {
    loop {
        let address = prefix::nth(network, length, *cursor)?;
        *cursor += 1;
        if prefix::last(network, length) == Some(address) {
            return None;
        }
        if !table.contains_key(&address) {
            return Some(address);
        }
    }
}

/// Whether an address may stand on the simulated internet: not private (RFC 1918, 4193), shared (RFC 6598), of the host or
/// link only (RFC 1122, 3927, 4291), or multicast. Documentation addresses (RFC 5737, 3849) may.
fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = prefix::contains((IpAddr::from([100, 64, 0, 0]), 10), address);
            let reserved = matches!(v4.octets()[0], 0 | 127 | 240..);
            !(v4.is_private() || shared || v4.is_link_local() || v4.is_multicast() || reserved)
        }
        IpAddr::V6(v6) => {
            let local = v6.is_unique_local() || v6.is_unicast_link_local();
            !(local
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some())
        }
    }
}
