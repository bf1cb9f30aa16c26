//! The translator.

mod change;
mod explicit;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use slab::Slab;

use crate::key::{Epoch, Key, Map, bits};
use crate::ports::PortSet;
use crate::session::{Direction, Sessions};
use crate::{
    DropReason, Ended, Event, Filtering, Hairpin, Mapping, Middlebox, NatConfig, Packet, PortAllocation,
    PortRange, Proto, Side, TcpFlags, Verdict,
};

pub use explicit::{MapError, Mapped, Wanted};

/// No slot.
const NONE: u32 = u32::MAX;

/// An inside endpoint's external endpoint. It lives as long as one of its conversations, or as somebody asked for.
#[derive(Debug)]
struct Binding {
    proto: Proto,
    inside: SocketAddr,
    external: SocketAddr,
    /// Where the packet that created it went.
    remote: SocketAddr,
    /// Which of the external addresses.
    address: usize,
    /// How many bindings there were before it.
    serial: u64,
    /// Until when somebody has asked for it; zero for one that packets made and packets keep.
    lease: u64,
    conversations: u32,
    /// The conversation used last, so that a single one needs no look-up.
    last: u32,
    last_remote: (u128, u16),
}

/// What a conversation belongs to.
#[derive(Clone, Copy, Debug)]
struct Owner {
    binding: u32,
    remote: (u128, u16),
}

/// A network address and port translator. See the crate's front page.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    external: Vec<IpAddr>,
    rng: Pcg64Mcg,
    epoch: Epoch,
    bindings: Slab<Binding>,
    by_inside: Map<Key, u32>,
    by_external: Map<Key, u32>,
    sessions: Sessions<Owner>,
    /// Conversations by binding and remote endpoint.
    conversations: Map<(u32, u16, u128), u32>,
    /// How many conversations a binding has with an address. Kept for address-dependent filtering only.
    contacted: Map<(u32, u128), u32>,
    /// The ports taken, by external address and protocol.
    taken: Vec<Option<PortSet>>,
    next_port: u16,
    /// Bindings made so far.
    serial: u64,
    /// The bindings that somebody asked for, by inside endpoint; the one asked for last where there are several.
    explicit: Map<Key, u32>,
    /// When they end.
    leases: BTreeSet<(u64, u32)>,
    events: Option<VecDeque<Event>>,
}

impl Nat {
    /// A NAT with these external addresses. One with none for a packet's IP version drops it.
    pub fn new(config: NatConfig, external: Vec<IpAddr>, mut rng: Pcg64Mcg) -> Nat {
        // A device that counts up has been counting before it meets us.
        let next_port = match config.allocation {
            PortAllocation::Sequential if config.ports.low <= config.ports.high => {
                rng.random_range(config.ports.low..=config.ports.high)
            }
            _ => config.ports.low,
        };
        Nat {
            epoch: Epoch::default(),
            bindings: Slab::new(),
            by_inside: Map::default(),
            by_external: Map::default(),
            sessions: Sessions::new(&config.timeouts, config.capacity),
            conversations: Map::default(),
            contacted: Map::default(),
            taken: (0..external.len() * 3).map(|_| None).collect(),
            next_port,
            serial: 0,
            explicit: Map::default(),
            leases: BTreeSet::new(),
            events: None,
            config,
            external,
            rng,
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &NatConfig {
        &self.config
    }

    /// Its external addresses.
    pub fn external(&self) -> &[IpAddr] {
        &self.external
    }

    /// How many conversations the table holds, those that expired since the last packet included.
    pub fn conversations(&self) -> usize {
        self.sessions.len()
    }

    /// The live bindings: protocol, inside, external and first remote endpoint. In no particular order, but in the
    /// same one in each run.
    pub fn bindings(&self) -> impl Iterator<Item = (Proto, SocketAddr, SocketAddr, SocketAddr)> + '_ {
        let bindings = self.bindings.iter();
        bindings.map(|(_, binding)| (binding.proto, binding.inside, binding.external, binding.remote))
    }

    /// What another kind of translator takes over from this one: randomness, and whether anybody listens.
    pub(crate) fn heirloom(&mut self) -> (Pcg64Mcg, bool) {
        (Pcg64Mcg::from_rng(&mut self.rng), self.events.is_some())
    }

    fn expire(&mut self, now: u64) {
        while let Some((owner, at)) = self.sessions.pop_expired(now) {
            self.end_conversation(owner, at);
        }
        if !self.leases.is_empty() {
            self.end_leases(now);
        }
    }

    fn end_conversation(&mut self, owner: Owner, at: u64) {
        let Owner { binding: slot, remote: (ip, port) } = owner;
        self.conversations.swap_remove(&(slot, port, ip));
        if self.config.filtering == Filtering::AddressDependent
            && let Some(count) = self.contacted.get_mut(&(slot, ip))
        {
            *count -= 1;
            if *count == 0 {
                self.contacted.swap_remove(&(slot, ip));
            }
        }
        let binding = &mut self.bindings[slot as usize];
        if binding.last_remote == owner.remote {
            binding.last = NONE;
        }
        binding.conversations -= 1;
        if binding.conversations == 0 && binding.lease == 0 {
            self.end_binding(slot, at, Ended::Expired);
        }
    }

    /// Takes a binding without conversations out of the tables.
    fn end_binding(&mut self, slot: u32, at: u64, why: Ended) {
        let binding = self.bindings.remove(slot as usize);
        let Binding { proto, inside, external, remote, .. } = binding;
        self.by_external.swap_remove(&Key::of(proto, external));
        let key = self.inside_key(proto, inside, remote);
        if self.by_inside.get(&key) == Some(&slot) {
            self.by_inside.swap_remove(&key);
        }
        if let Some(taken) = &mut self.taken[binding.address * 3 + proto as usize] {
            taken.remove(external.port());
        }
        if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(at)) {
            events.push_back(Event::BindingExpired { at, proto, inside, external, remote, why });
        }
    }

    /// What identifies the binding of packets from `inside` to `remote`.
    #[inline]
    fn inside_key(&self, proto: Proto, inside: SocketAddr, remote: SocketAddr) -> Key {
        match self.config.mapping {
            Mapping::EndpointIndependent => Key::of(proto, inside),
            Mapping::AddressDependent => Key::new(proto, inside, bits(remote.ip()), 0),
            Mapping::AddressAndPortDependent => Key::pair(proto, inside, remote),
        }
    }

    /// What identifies the conversation of a binding with `remote`.
    #[inline]
    fn remote_key(&self, proto: Proto, remote: SocketAddr) -> (u128, u16) {
        match self.config.filtering {
            // Each TCP connection has its own state, but nothing else tells senders apart here.
            Filtering::EndpointIndependent if proto != Proto::Tcp && self.config.mapped_outbound => (0, 0),
            _ => (bits(remote.ip()), remote.port()),
        }
    }

    /// The conversation of a binding with `remote`, if there is one.
    #[inline]
    fn find_conversation(&mut self, slot: u32, remote: (u128, u16)) -> Option<u32> {
        let binding = &mut self.bindings[slot as usize];
        if binding.last != NONE && binding.last_remote == remote {
            return Some(binding.last);
        }
        let session = *self.conversations.get(&(slot, remote.1, remote.0))?;
        binding.last = session;
        binding.last_remote = remote;
        Some(session)
    }

    fn open_conversation(&mut self, slot: u32, remote: (u128, u16), now: u64) -> u32 {
        let binding = &mut self.bindings[slot as usize];
        let session = self.sessions.insert(Owner { binding: slot, remote }, binding.proto, now);
        binding.conversations += 1;
        binding.last = session;
        binding.last_remote = remote;
        self.conversations.insert((slot, remote.1, remote.0), session);
        if self.config.filtering == Filtering::AddressDependent {
            *self.contacted.entry((slot, remote.0)).or_insert(0) += 1;
        }
        session
    }

    /// Translates a packet from inside: its source becomes the external endpoint.
    fn outbound(&mut self, packet: &mut dyn Packet, now: u64) -> Result<(), DropReason> {
        if packet.quoted().is_some() {
            return self.error_outbound(packet);
        }
        let (proto, inside, remote) = (packet.proto(), packet.src(), packet.dst());
        let flags = packet.tcp_flags();
        let found = self.binding_of(proto, inside, remote);
        let remote_key = self.remote_key(proto, remote);
        let conversation = found.and_then(|slot| self.find_conversation(slot, remote_key));
        let (slot, session) = match (found, conversation) {
            (Some(slot), Some(session)) => (slot, session),
            (found, _) => {
                self.may_open(flags)?;
                let slot = match found {
                    Some(slot) => slot,
                    None => self.bind(proto, inside, remote, now)?,
                };
                (slot, self.open_conversation(slot, remote_key, now))
            }
        };
        self.sessions.touch(session, Direction::Out, flags, self.config.refresh_outbound, now);
        packet.set_src(self.bindings[slot as usize].external);
        Ok(())
    }

    /// The binding of packets from `inside` to `remote`.
    #[inline]
    fn binding_of(&mut self, proto: Proto, inside: SocketAddr, remote: SocketAddr) -> Option<u32> {
        if !self.explicit.is_empty()
            && let Some(slot) = self.explicit_for(proto, inside, remote)
        {
            return Some(slot);
        }
        self.by_inside.get(&self.inside_key(proto, inside, remote)).copied()
    }

    /// Whether a packet from inside may start a conversation.
    fn may_open(&self, flags: Option<TcpFlags>) -> Result<(), DropReason> {
        if let Some(flags) = flags
            && (flags.rst || !(flags.syn || self.config.tcp_pickup))
        {
            return Err(DropReason::NotASyn);
        }
        if self.sessions.is_full() { Err(DropReason::TableFull) } else { Ok(()) }
    }

    /// Translates a packet from outside: its destination becomes the inside endpoint.
    fn inbound(&mut self, packet: &mut dyn Packet, now: u64) -> Result<(), DropReason> {
        if packet.quoted().is_some() {
            return self.error_inbound(packet);
        }
        let (proto, remote, external) = (packet.proto(), packet.src(), packet.dst());
        let flags = packet.tcp_flags();
        let slot = *self.by_external.get(&Key::of(proto, external)).ok_or(DropReason::NoBinding)?;
        let session = match self.admit(slot, proto, remote)? {
            None if self.bindings[slot as usize].lease != 0 => self.answerable(slot, proto, remote, now)?,
            session => session,
        };
        if let Some(session) = session {
            let refresh = self.config.refresh_inbound || proto == Proto::Tcp;
            self.sessions.touch(session, Direction::In, flags, refresh, now);
        }
        packet.set_dst(self.bindings[slot as usize].inside);
        Ok(())
    }

    /// The filter: whether `remote` may send to this binding, and the conversation it belongs to.
    #[inline]
    fn admit(&mut self, slot: u32, proto: Proto, remote: SocketAddr) -> Result<Option<u32>, DropReason> {
        let remote = self.remote_key(proto, remote);
        let session = self.find_conversation(slot, remote);
        match self.config.filtering {
            _ if session.is_some() => Ok(session),
            Filtering::EndpointIndependent => Ok(None),
            _ if self.bindings[slot as usize].lease != 0 => Ok(None),
            Filtering::AddressDependent if self.contacted.contains_key(&(slot, remote.0)) => Ok(None),
            Filtering::AddressDependent => Err(DropReason::FilteredAddress),
            Filtering::AddressAndPortDependent => Err(DropReason::FilteredPort),
        }
    }

    /// A new binding for packets from `inside` to `remote`.
    fn bind(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        remote: SocketAddr,
        now: u64,
    ) -> Result<u32, DropReason> {
        let address = self.address_for(inside.ip(), remote.ip()).ok_or(DropReason::NoExternalAddress)?;
        let ip = self.external[address];
        let port = self.free_port(proto, inside.port(), address);
        let external = SocketAddr::new(ip, port.ok_or(DropReason::NoFreePort)?);
        let slot = self.install(proto, inside, remote, address, external, now);
        self.by_inside.insert(self.inside_key(proto, inside, remote), slot);
        Ok(slot)
    }

    /// Writes down a new binding whose external endpoint is free.
    fn install(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        remote: SocketAddr,
        address: usize,
        external: SocketAddr,
        now: u64,
    ) -> u32 {
        let slot = self.bindings.insert(Binding {
            proto,
            inside,
            external,
            remote,
            address,
            serial: self.serial,
            lease: 0,
            conversations: 0,
            last: NONE,
            last_remote: (0, 0),
        }) as u32;
        self.serial += 1;
        let taken = &mut self.taken[address * 3 + proto as usize];
        taken.get_or_insert_with(PortSet::new).insert(external.port());
        self.by_external.insert(Key::of(proto, external), slot);
        if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(now)) {
            events.push_back(Event::BindingCreated { at, proto, inside, external, remote });
        }
        slot
    }

    /// The external address of an inside host: always the same one (RFC 4787 REQ-2, "paired" pooling), of the remote's
    /// family, which in a NAT64 is not the host's.
    fn address_for(&self, inside: IpAddr, remote: IpAddr) -> Option<usize> {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == remote.is_ipv4();
        let count = self.external.iter().filter(same_family).count();
        // Neighbours are spread evenly, as the last bits of an address differ most.
        let nth = (bits(inside) % count.max(1) as u128) as usize;
        let ip = self.external.iter().filter(same_family).nth(nth)?;
        self.external.iter().position(|other| other == ip)
    }

    /// The class of external ports for an inside port (RFC 4787 REQ-3a).
    fn class(&self, proto: Proto, inside: u16) -> PortRange {
        match proto {
            Proto::Icmp => PortRange { low: 0, high: u16::MAX },
            _ if inside < 1024 && self.config.allocation == PortAllocation::Preserving => {
                PortRange { low: 1, high: 1023 }
            }
            _ => self.config.ports,
        }
    }

    /// A port of `address` that no other binding has.
    fn free_port(&mut self, proto: Proto, inside: u16, address: usize) -> Option<u16> {
        let range = self.class(proto, inside);
        if range.low > range.high {
            return None;
        }
        let taken = self.taken[address * 3 + proto as usize].get_or_insert_with(PortSet::new);
        match self.config.allocation {
            PortAllocation::Preserving => taken.next_free(inside, range),
            PortAllocation::Sequential => {
                let port = taken.next_free(self.next_port, range)?;
                self.next_port = port.checked_add(1).unwrap_or(range.low);
                Some(port)
            }
            PortAllocation::Random => {
                // Uniform while there is room; in a range that is nearly full the neighbours of taken ports are
                // a little likelier.
                let draw = |rng: &mut Pcg64Mcg| rng.random_range(range.low..=range.high);
                let free = (0..64).map(|_| draw(&mut self.rng)).find(|port| !taken.contains(*port));
                free.or_else(|| taken.next_free(draw(&mut self.rng), range))
            }
        }
    }

    /// An ICMP error from outside about a packet of ours: back to the host that sent that packet. It neither
    /// ends nor refreshes the binding (RFC 4787 REQ-12, RFC 5508 REQ-4).
    fn error_inbound(&mut self, packet: &mut dyn Packet) -> Result<(), DropReason> {
        let quoted = packet.quoted().ok_or(DropReason::UnknownQuote)?;
        let (proto, external, remote) = (quoted.proto(), quoted.src(), quoted.dst());
        let slot = *self.by_external.get(&Key::of(proto, external)).ok_or(DropReason::UnknownQuote)?;
        self.admit(slot, proto, remote).map_err(|_| DropReason::UnknownQuote)?;
        let inside = self.bindings[slot as usize].inside;
        quoted.set_src(inside);
        packet.set_dst(SocketAddr::new(inside.ip(), 0));
        Ok(())
    }

    /// An ICMP error from inside about a packet that came in (RFC 5508 REQ-5).
    fn error_outbound(&mut self, packet: &mut dyn Packet) -> Result<(), DropReason> {
        let quoted = packet.quoted().ok_or(DropReason::UnknownQuote)?;
        let (proto, remote, inside) = (quoted.proto(), quoted.src(), quoted.dst());
        let slot = self.binding_of(proto, inside, remote).ok_or(DropReason::UnknownQuote)?;
        self.admit(slot, proto, remote).map_err(|_| DropReason::UnknownQuote)?;
        let external = self.bindings[slot as usize].external;
        quoted.set_dst(external);
        packet.set_src(SocketAddr::new(external.ip(), 0));
        Ok(())
    }
}

impl Middlebox for Nat {
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, now: Instant) -> Verdict {
        let now = self.epoch.ns(now);
        self.expire(now);
        let ours = self.external.contains(&packet.dst().ip());
        let result = match side {
            Side::Inside if !ours => self.outbound(packet, now).map(|()| Side::Outside),
            Side::Inside if self.config.hairpin == Hairpin::Off => Err(DropReason::NoHairpin),
            Side::Inside => {
                self.outbound(packet, now).and_then(|()| self.inbound(packet, now)).map(|()| Side::Inside)
            }
            Side::Outside if ours => self.inbound(packet, now).map(|()| Side::Inside),
            Side::Outside => Err(DropReason::NotOurAddress),
        };
        match result {
            Ok(side) => Verdict::Forward(side),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    fn clear(&mut self) {
        self.bindings.clear();
        self.by_inside.clear();
        self.by_external.clear();
        self.sessions.clear();
        self.conversations.clear();
        self.contacted.clear();
        self.taken.fill_with(|| None);
        self.explicit.clear();
        self.leases.clear();
        if let Some(events) = &mut self.events {
            events.push_back(Event::Cleared);
        }
    }

    fn set_events(&mut self, on: bool) {
        self.events = on.then(VecDeque::new);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.as_mut()?.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let lease = self.leases.first().map(|(at, _)| *at).filter(|at| *at != u64::MAX);
        let due = [self.sessions.next_due(), lease].into_iter().flatten().min()?;
        Some((self.epoch.instant(due)?, "a binding may expire"))
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.epoch.ns(now);
        self.expire(now);
    }
}
