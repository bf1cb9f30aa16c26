//! Who is behind whom, at which address: a [`Scenario`] laid out, before anything moves.
//!
//! A realm is a set of nodes that reach each other without a router in between: the internet, or the inside of one
//! router. An address means something in one realm only, so two homes may both have a 192.168.1.2. A router without NAT
//! joins its inside to the realm of its uplink: the addresses in there count in both. So do IPv6 addresses behind a router that
//! passes them on, as they are or as their counterparts.

use std::net::IpAddr;
use std::time::Duration;

use indexmap::IndexMap;
use link::LinkConfig;
use nat::{FirewallConfig, Translation};
use portmap::gateway::GatewayConfig;
use rustc_hash::FxBuildHasher;
use trace::{Name, NodeKind};

use crate::scenario::{Scenario, Way, regions};

mod address;
mod draft;
mod print;

pub use draft::place;

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
        let drafts = draft::drafts(scenario);
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
}

fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
