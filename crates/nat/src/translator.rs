//! The translator: the ways of packets. What it knows stands in the modules beside.

mod allocate;
mod bindings;
mod change;
mod early;
mod explicit;
mod fragments;
mod one_to_one;
mod pinned;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;
use slab::Slab;

use crate::key::{Epoch, Key, Map};
use crate::session::{Direction, Sessions};
use crate::{
    DropReason, Ended, Event, Filtering, Fragments, Hairpin, LateAnswer, Mapping, Middlebox, NatConfig,
    Packet, Pooling, Proto, Side, TcpFlags, Unsolicited, Verdict, WhenFull,
};
use allocate::Ports;
use bindings::{Binding, Owner};
use early::Early;
use fragments::FirstFragments;

pub use explicit::{MapError, Mapped, Wanted};

/// A network address and port translator. See the crate's front page.
#[derive(Debug)]
#[repr(C)] // What every packet needs stands together and first: a thousand NATs stay in the cache.
pub struct Nat {
    epoch: Epoch,
    /// The mapping for each protocol.
    mapping: [Mapping; 3],
    /// The filtering for each protocol.
    filtering: [Filtering; 3],
    /// Whether there has been anything in `explicit`, `leases` or `early`.
    unusual: bool,
    external: Vec<IpAddr>,
    by_inside: Map<Key, u32>,
    /// The newest binding of an external endpoint.
    by_external: Map<Key, u32>,
    bindings: Slab<Binding>,
    sessions: Sessions<Owner>,
    config: NatConfig,
    rng: Pcg64Mcg,
    /// Conversations by binding and remote endpoint.
    conversations: Map<(u32, u16, u128), u32>,
    /// How many conversations a binding has with an address. Kept for address-dependent filtering only.
    contacted: Map<(u32, u128), u32>,
    ports: Ports,
    /// Bindings made so far.
    serial: u64,
    /// Bindings by inside address. Kept under a quota only.
    by_host: Map<u128, usize>,
    /// The bindings that somebody asked for, by inside endpoint; the one asked for last where there are several.
    explicit: Map<Key, u32>,
    /// When they end.
    leases: BTreeSet<(u64, u32)>,
    early: Early,
    first_fragments: FirstFragments,
    /// Whose each external address is. Kept for one-to-one pooling only.
    owners: Vec<Option<IpAddr>>,
    events: Option<VecDeque<Event>>,
}

impl Nat {
    /// A NAT with these external addresses. One with none for a packet's IP version drops it.
    pub fn new(config: NatConfig, external: Vec<IpAddr>, mut rng: Pcg64Mcg) -> Nat {
        Nat {
            mapping: Proto::ALL.map(|proto| config.mapping_of(proto)),
            filtering: Proto::ALL.map(|proto| config.filtering_of(proto)),
            epoch: Epoch::default(),
            unusual: false,
            bindings: Slab::new(),
            by_inside: Map::default(),
            by_external: Map::default(),
            sessions: Sessions::new(&config.timeouts, config.capacity),
            conversations: Map::default(),
            contacted: Map::default(),
            ports: Ports::new(&config, external.len(), &mut rng),
            serial: 0,
            by_host: Map::default(),
            explicit: Map::default(),
            leases: BTreeSet::new(),
            early: Early::default(),
            first_fragments: FirstFragments::default(),
            owners: vec![None; external.len()],
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
            self.end_conversation(owner, at, Ended::Expired);
        }
        if self.unusual {
            self.end_leases(now);
            self.early.expire(now);
        }
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
            _ => {
                self.may_open(flags)?;
                self.make_room(now)?;
                // Making room may have ended the binding that was found.
                let slot = match self.binding_of(proto, inside, remote) {
                    Some(slot) => slot,
                    None => self.bind(proto, inside, remote, now)?,
                };
                (slot, self.open_conversation(slot, remote_key, now))
            }
        };
        self.sessions.touch(session, Direction::Out, flags, self.config.refresh_outbound, now);
        let external = self.bindings[slot as usize].external;
        if self.unusual && flags.is_some_and(|flags| flags.syn) {
            self.early.answered(external, remote);
        }
        packet.set_src(external);
        Ok(())
    }

    /// The binding of packets from `inside` to `remote`.
    #[inline]
    fn binding_of(&mut self, proto: Proto, inside: SocketAddr, remote: SocketAddr) -> Option<u32> {
        if self.unusual
            && let Some(slot) = self.explicit_for(proto, inside, remote)
        {
            return Some(slot);
        }
        self.by_inside.get(&self.inside_key(proto, inside, remote)).copied()
    }

    /// Whether a packet from inside may start a conversation.
    fn may_open(&self, flags: Option<TcpFlags>) -> Result<(), DropReason> {
        match flags {
            Some(flags) if flags.rst || !(flags.syn || self.config.tcp_pickup) => Err(DropReason::NotASyn),
            _ => Ok(()),
        }
    }

    /// Sees to it that the table takes one more conversation.
    fn make_room(&mut self, now: u64) -> Result<(), DropReason> {
        if !self.sessions.is_full() {
            return Ok(());
        }
        if self.config.when_full == WhenFull::EvictOldest
            && let Some(owner) = self.sessions.pop_soonest()
        {
            self.end_conversation(owner, now, Ended::Evicted);
        }
        // A limit that was lowered may have left more than one too many.
        if self.sessions.is_full() { Err(DropReason::TableFull) } else { Ok(()) }
    }

    /// Translates a packet from outside: its destination becomes the inside endpoint.
    fn inbound(&mut self, packet: &mut dyn Packet, now: u64) -> Result<(), DropReason> {
        if packet.quoted().is_some() {
            return self.error_inbound(packet);
        }
        let (proto, remote, external) = (packet.proto(), packet.src(), packet.dst());
        let (slot, mut session) = self.receiver(proto, external, remote)?;
        if session.is_none() && self.bindings[slot as usize].lease != 0 {
            session = self.answerable(slot, proto, remote, now)?;
        }
        if let Some(session) = session {
            let refresh = self.config.refresh_inbound || proto == Proto::Tcp;
            self.sessions.touch(session, Direction::In, packet.tcp_flags(), refresh, now);
        }
        packet.set_dst(self.bindings[slot as usize].inside);
        Ok(())
    }

    /// Which binding of an external endpoint takes what `remote` sends there, and the conversation it belongs to.
    #[inline]
    fn receiver(
        &mut self,
        proto: Proto,
        external: SocketAddr,
        remote: SocketAddr,
    ) -> Result<(u32, Option<u32>), DropReason> {
        let newest = *self.by_external.get(&Key::of(proto, external)).ok_or(DropReason::NoBinding)?;
        if !self.bindings[newest as usize].shares() {
            return Ok((newest, self.admit(newest, proto, remote)?));
        }
        let mut best = Err(DropReason::NoBinding);
        let mut next = Some(newest);
        while let Some(slot) = next {
            match self.admit(slot, proto, remote) {
                Ok(Some(session)) => return Ok((slot, Some(session))),
                Ok(None) if best.is_err() => best = Ok((slot, None)),
                Err(reason) if best == Err(DropReason::NoBinding) => best = Err(reason),
                _ => {}
            }
            next = self.bindings[slot as usize].next_sharing();
        }
        best
    }

    /// The filter: whether `remote` may send to this binding, and the conversation it belongs to.
    #[inline]
    fn admit(&mut self, slot: u32, proto: Proto, remote: SocketAddr) -> Result<Option<u32>, DropReason> {
        let remote = self.remote_key(proto, remote);
        let session = self.find_conversation(slot, remote);
        match self.filtering[proto as usize] {
            _ if session.is_some() => Ok(session),
            Filtering::EndpointIndependent => Ok(None),
            _ if self.bindings[slot as usize].lease != 0 => Ok(None),
            Filtering::AddressDependent if self.contacted.contains_key(&(slot, remote.0)) => Ok(None),
            Filtering::AddressDependent => Err(DropReason::FilteredAddress),
            Filtering::AddressAndPortDependent => Err(DropReason::FilteredPort),
        }
    }

    /// A packet from inside for one of the NAT's own addresses.
    fn hairpin(&mut self, packet: &mut dyn Packet, now: u64) -> Verdict {
        let inside = packet.src();
        let passed = match self.config.hairpin {
            Hairpin::Off => return Verdict::Drop(DropReason::NoHairpin),
            _ => self.outbound(packet, now).and_then(|()| self.inbound(packet, now)),
        };
        match passed {
            Ok(()) => {
                if self.config.hairpin == Hairpin::InternalSource {
                    packet.set_src(inside);
                }
                Verdict::Forward(Side::Inside)
            }
            Err(reason) => {
                if self.config.unsolicited != Unsolicited::Drop {
                    packet.set_src(inside);
                }
                self.refusal(packet, reason)
            }
        }
    }

    /// An ICMP error from outside about a packet of ours: back to the host that sent that packet. It neither
    /// ends nor refreshes the binding (RFC 4787 REQ-12, RFC 5508 REQ-4).
    fn error_inbound(&mut self, packet: &mut dyn Packet) -> Result<(), DropReason> {
        let quoted = packet.quoted().ok_or(DropReason::UnknownQuote)?;
        let (proto, external, remote) = (quoted.proto(), quoted.src(), quoted.dst());
        let (slot, _) = self.receiver(proto, external, remote).map_err(|_| DropReason::UnknownQuote)?;
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
        if self.config.fragments != Fragments::AnyOrder && !self.may_pass_fragment(side, packet, now) {
            return Verdict::Drop(DropReason::Fragment);
        }
        let ours = self.external.contains(&packet.dst().ip());
        if self.config.pooling == Pooling::OneToOne {
            return self.one_to_one(side, ours, packet);
        }
        match side {
            Side::Inside if !ours => match self.outbound(packet, now) {
                Ok(()) => Verdict::Forward(Side::Outside),
                Err(reason) => self.exhausted(reason),
            },
            Side::Inside => self.hairpin(packet, now),
            Side::Outside if ours => match self.inbound(packet, now) {
                Ok(()) => Verdict::Forward(Side::Inside),
                Err(reason) => self.refuse(packet, reason, now),
            },
            Side::Outside => Verdict::Drop(DropReason::NotOurAddress),
        }
    }

    fn clear(&mut self) {
        self.bindings.clear();
        self.by_inside.clear();
        self.by_external.clear();
        self.sessions.clear();
        self.conversations.clear();
        self.contacted.clear();
        self.ports.clear();
        self.by_host.clear();
        self.explicit.clear();
        self.leases.clear();
        self.early.clear();
        self.first_fragments.clear();
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

    fn poll_answer(&mut self) -> Option<LateAnswer> {
        self.early.poll_answer()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let lease = self.leases.first().map(|(at, _)| *at).filter(|at| *at != u64::MAX);
        let binding = [self.sessions.next_due(), lease].into_iter().flatten().min();
        let (due, why) = match (binding, self.early.next_due()) {
            (Some(binding), Some(early)) if early < binding => (early, "a SYN has waited"),
            (Some(binding), _) => (binding, "a binding may expire"),
            (None, early) => (early?, "a SYN has waited"),
        };
        Some((self.epoch.instant(due)?, why))
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.epoch.ns(now);
        self.expire(now);
    }
}
