//! Which external address and port a new binding gets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};

use rand::RngExt as _;
use rand_pcg::Pcg64Mcg;

use super::Nat;
use crate::key::{bits, to_ns};
use crate::ports::PortSet;
use crate::{Collision, DropReason, NatConfig, Pooling, PortAllocation, PortRange, Proto};

/// The external ports: which are taken, which rest, which is next.
#[derive(Debug)]
pub(super) struct Ports {
    /// The ports taken or resting, by external address and protocol.
    taken: Vec<Option<PortSet>>,
    /// The ports that nobody may have yet: until when, place in `taken`, port.
    resting: BinaryHeap<Reverse<(u64, usize, u16)>>,
    /// The next port of a sequential allocation.
    next: u16,
    /// How many bindings of other subscribers have moved it on.
    others: u64,
}

impl Ports {
    pub(super) fn new(config: &NatConfig, addresses: usize, rng: &mut Pcg64Mcg) -> Ports {
        // A device that counts up has been counting before it meets us.
        let next = match config.allocation {
            PortAllocation::Sequential if config.ports.low <= config.ports.high => {
                rng.random_range(config.ports.low..=config.ports.high)
            }
            _ => config.ports.low,
        };
        Ports {
            taken: (0..addresses * 3).map(|_| None).collect(),
            resting: BinaryHeap::new(),
            next,
            others: 0,
        }
    }

    /// All are free, as after a reboot.
    pub(super) fn clear(&mut self) {
        self.taken.fill_with(|| None);
        self.resting.clear();
    }

    /// All are free, but for those that rest, of so many external addresses.
    pub(super) fn restart(&mut self, addresses: usize) {
        self.taken = (0..addresses * 3).map(|_| None).collect();
        for Reverse((_, place, port)) in &self.resting {
            if let Some(taken) = self.taken.get_mut(*place) {
                taken.get_or_insert_with(PortSet::new).insert(*port);
            }
        }
    }

    /// Nothing rests any more, since the addresses are others.
    pub(super) fn wake(&mut self) {
        self.resting.clear();
    }

    pub(super) fn take(&mut self, address: usize, proto: Proto, port: u16) {
        self.of(address, proto).insert(port);
    }

    /// A port is free again, at once or after its rest.
    pub(super) fn release(&mut self, address: usize, proto: Proto, port: u16, at: u64, config: &NatConfig) {
        let place = address * 3 + proto as usize;
        if !config.hold_down.is_zero() {
            let until = at.saturating_add(to_ns(config.hold_down));
            self.resting.push(Reverse((until, place, port)));
        } else if let Some(Some(taken)) = self.taken.get_mut(place) {
            taken.remove(port);
        }
    }

    /// Ends the rest of those that have rested enough.
    fn rouse(&mut self, now: u64) {
        while let Some(&Reverse((until, place, port))) = self.resting.peek()
            && until <= now
        {
            self.resting.pop();
            if let Some(Some(taken)) = self.taken.get_mut(place) {
                taken.remove(port);
            }
        }
    }

    fn of(&mut self, address: usize, proto: Proto) -> &mut PortSet {
        self.taken[address * 3 + proto as usize].get_or_insert_with(PortSet::new)
    }

    /// Whether nobody has the port and it does not rest.
    pub(super) fn is_free(&mut self, address: usize, proto: Proto, port: u16, now: u64) -> bool {
        self.rouse(now);
        !self.of(address, proto).contains(port)
    }
}

impl Nat {
    /// The external address and port for a new binding of `inside`, towards an address of `remote`'s IP version.
    pub(super) fn choose(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        remote: IpAddr,
        now: u64,
    ) -> Result<(usize, u16), DropReason> {
        let paired = self.address_for(inside.ip(), remote).ok_or(DropReason::NoExternalAddress)?;
        let address = match self.config.pooling {
            Pooling::Arbitrary => self.any_address(remote).unwrap_or(paired),
            Pooling::Paired | Pooling::OneToOne => paired,
        };
        let port = self.free_port(proto, inside, address, now).ok_or(DropReason::NoFreePort)?;
        Ok((address, port))
    }

    /// The external address of an inside host: always the same one (RFC 4787 REQ-2, "paired" pooling), of the remote's
    /// family, which in a NAT64 is not the host's.
    pub(super) fn address_for(&self, inside: IpAddr, remote: IpAddr) -> Option<usize> {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == remote.is_ipv4();
        let count = self.external.iter().filter(same_family).count();
        // Neighbours are spread evenly, as the last bits of an address differ most.
        let nth = (bits(inside) % count.max(1) as u128) as usize;
        let ip = self.external.iter().filter(same_family).nth(nth)?;
        self.external.iter().position(|other| other == ip)
    }

    fn any_address(&mut self, remote: IpAddr) -> Option<usize> {
        let fits = |(_, ip): &(usize, &IpAddr)| ip.is_ipv4() == remote.is_ipv4();
        let count = self.external.iter().enumerate().filter(fits).count();
        let nth = if count > 1 { self.rng.random_range(0..count) } else { 0 };
        self.external.iter().enumerate().filter(fits).nth(nth).map(|(address, _)| address)
    }

    /// The class of external ports for an inside port (RFC 4787 REQ-3a), and in it the host's own block.
    fn class(&self, proto: Proto, inside: SocketAddr, address: usize) -> PortRange {
        match proto {
            Proto::Icmp => PortRange { low: 0, high: u16::MAX },
            _ if inside.port() < 1024 && self.config.allocation == PortAllocation::Preserving => {
                PortRange { low: 1, high: 1023 }
            }
            _ if self.config.block == 0 => self.config.ports,
            _ => self.block(inside.ip(), address),
        }
    }

    /// The block of ports of an inside address. What is left of the range after its last whole block is nobody's.
    fn block(&self, inside: IpAddr, address: usize) -> PortRange {
        let (PortRange { low, high }, size) = (self.config.ports, u32::from(self.config.block));
        let blocks = (u32::from(high) + 1).saturating_sub(u32::from(low)) / size;
        if blocks == 0 {
            return PortRange { low: 1, high: 0 };
        }
        // Addresses that follow one another have different external addresses first, and then different blocks.
        let family =
            self.external.iter().filter(|ip| ip.is_ipv4() == self.external[address].is_ipv4()).count();
        let nth = (bits(inside) / family.max(1) as u128 % u128::from(blocks)) as u32;
        let first = u32::from(low) + nth * size;
        PortRange { low: first as u16, high: (first + size - 1) as u16 }
    }

    /// A port of `address` for a new binding of `inside`.
    pub(super) fn free_port(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        address: usize,
        now: u64,
    ) -> Option<u16> {
        self.ports.rouse(now);
        let range = self.class(proto, inside, address);
        if range.low > range.high {
            return None;
        }
        let like = inside.port();
        match self.config.allocation {
            PortAllocation::Preserving => {
                let taken = self.ports.of(address, proto);
                match self.config.collision {
                    _ if range.contains(like) && !taken.contains(like) => Some(like),
                    Collision::Overload if range.contains(like) => Some(like),
                    Collision::Random => self.random_port(proto, like, address, range),
                    _ => self.next_port(proto, like, like, address, range),
                }
            }
            PortAllocation::Sequential => self.counted_port(proto, like, address, range, now),
            PortAllocation::Random => self.random_port(proto, like, address, range),
        }
    }

    /// The first free port from `from` on, even or odd as `like` is where the NAT cares and one is free.
    fn next_port(
        &mut self,
        proto: Proto,
        like: u16,
        from: u16,
        address: usize,
        range: PortRange,
    ) -> Option<u16> {
        let parity = self.config.parity;
        let taken = self.ports.of(address, proto);
        let alike = if parity { taken.next_free_like(like, from, range) } else { None };
        alike.or_else(|| taken.next_free(from, range))
    }

    /// Uniform while there is room; in a range that is nearly full the neighbours of taken ports are a little likelier.
    fn random_port(&mut self, proto: Proto, like: u16, address: usize, range: PortRange) -> Option<u16> {
        let parity = self.config.parity;
        let (taken, rng) = (self.ports.of(address, proto), &mut self.rng);
        let draw = |rng: &mut Pcg64Mcg| rng.random_range(range.low..=range.high);
        let fits = |port: &u16| !taken.contains(*port) && (!parity || (port ^ like) & 1 == 0);
        if let Some(port) = (0..64).map(|_| draw(rng)).find(fits) {
            return Some(port);
        }
        let from = draw(rng);
        self.next_port(proto, like, from, address, range)
    }

    /// The counter's port, or the first free one after it.
    fn counted_port(
        &mut self,
        proto: Proto,
        like: u16,
        address: usize,
        range: PortRange,
        now: u64,
    ) -> Option<u16> {
        let size = u64::from(range.high - range.low) + 1;
        let step = u64::from(self.config.step.max(1));
        let onward = |port: u16, steps: u64| {
            let offset = u64::from(port.saturating_sub(range.low)) % size;
            range.low + ((offset + steps % size * (step % size)) % size) as u16
        };
        if self.config.other_traffic != 0 {
            let total = u128::from(now) * u128::from(self.config.other_traffic) / 1_000_000_000;
            let total = u64::try_from(total).unwrap_or(u64::MAX);
            self.ports.next = onward(self.ports.next, total.saturating_sub(self.ports.others));
            self.ports.others = total;
        }
        let next = self.ports.next;
        let port = if step == 1 || !range.contains(next) {
            self.next_port(proto, like, next, address, range)?
        } else {
            let taken = self.ports.of(address, proto);
            let stepped = (0..size).map(|steps| onward(next, steps)).find(|port| !taken.contains(*port));
            // A step that divides the size of the range does not reach all of it.
            stepped.or_else(|| taken.next_free(next, range))?
        };
        self.ports.next = onward(port, 1);
        Some(port)
    }
}
