//! Who gets which address, and who answers to it.

use std::net::IpAddr;

use indexmap::IndexMap;

use super::draft::Draft;
use super::{Node, Parent, RegionIdx, Table, Topology, TopologyError, index};
use crate::scenario::{Action, Families, Scenario, prefix, regions};

impl Topology {
    /// Gives every node its address: first those that the scenario chose, then the others in order.
    pub(super) fn address(&mut self, drafts: &[Draft<'_>]) -> Result<(), TopologyError> {
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
    pub(super) fn pools(&mut self, drafts: &[Draft<'_>]) -> Result<(), TopologyError> {
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
    pub(super) fn readdress(&mut self, scenario: &Scenario) -> Result<(), TopologyError> {
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
