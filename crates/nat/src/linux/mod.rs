//! The translator of the Linux kernel: netfilter's connection tracking with one rule for source addresses.
//!
//! An entry has two tuples, one for each direction, and an external port is free towards a destination if no entry has
//! the tuple that the answers would have. So hosts share a port towards different destinations, and an entry of the
//! router's own, made by a packet that nobody inside asked for, occupies it as any other.
//!
//! The rules of `nf_nat_core.c` (`get_unique_tuple`), in this order: the external endpoint of the newest living
//! conversation from the same inside endpoint; the inside port itself; a random port of its class. The first two only
//! without `random`, each only where the answers' tuple is free.

mod change;
mod config;
mod ports;
mod table;
mod tcp;

pub use config::{ForwardPolicy, InputPolicy, LinuxConfig, LinuxRule};
pub use ports::HASH_SEED;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use crate::key::{Epoch, Key, Map};
use crate::session::{Direction, Sessions};
use crate::{
    Answer, DropReason, Ended, Event, Middlebox, Packet, PortRange, Proto, Side, TcpFlags, Timeouts, Verdict,
};
use change::Redirection;
use table::{Entry, Table, Touched, Tuple, Way};
use tcp::Track;

/// Why a packet goes no further, and what its sender is told.
type Refusal = (DropReason, Option<Answer>);

/// A Linux router with source NAT. See [`LinuxConfig`].
#[derive(Debug)]
pub struct LinuxNat {
    config: LinuxConfig,
    external: Vec<IpAddr>,
    rng: Pcg64Mcg,
    epoch: Epoch,
    table: Table,
    maps: Maps,
    /// What somebody asked for, by external endpoint.
    redirections: Map<Key, Redirection>,
    /// `numgen inc` of the sequential rule.
    counter: u16,
    suggested: Option<u16>,
    forgotten: Option<VecDeque<Forgotten>>,
    fault: Option<Fault>,
    events: Option<VecDeque<Event>>,
}

/// Something whose time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// A conversation, the router's own included.
    Conversation {
        /// Protocol.
        proto: Proto,
        /// Source of the packet that began it.
        src: SocketAddr,
        /// Its destination.
        dst: SocketAddr,
    },
    /// An entry of the map of hosts.
    Host {
        /// Protocol.
        proto: Proto,
        /// The external endpoint by which the host was found.
        external: SocketAddr,
    },
    /// An entry of the set of addresses that may come in.
    Contact {
        /// Protocol.
        proto: Proto,
        /// The external endpoint.
        external: SocketAddr,
        /// The address that might send to it.
        remote: IpAddr,
    },
    /// What somebody asked for with [`LinuxNat::map`].
    Redirection {
        /// Protocol.
        proto: Proto,
        /// The external endpoint.
        external: SocketAddr,
    },
}

/// Mistakes that the model can be told to make, to show that a comparison with the kernel finds them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Ignores the newest conversation of an inside endpoint.
    ForgetsNewest,
    /// Takes a port for free that an entry of the router's own occupies.
    OverlooksOwn,
    /// Never shares a port between hosts.
    NeverShares,
    /// Leaves an entry behind a packet that INPUT dropped.
    KeepsDropped,
    /// Leaves no entry behind a packet that INPUT accepted.
    DropsAccepted,
    /// Draws low ports from all of them.
    OneClass,
    /// Lets ICMP errors about unknown packets in.
    AnyError,
    /// Does not translate what an ICMP error quotes.
    BareQuote,
    /// Chooses addresses of a pool by the source alone.
    AlwaysPaired,
    /// Lets the newer host take an element of the map over.
    MapOverwrites,
    /// Takes a SYN from outside for an answer in any state.
    AnySyn,
    /// Forgets conversations a second too late.
    Lingers,
}

/// What nftables remembers for the rules with a map.
#[derive(Debug)]
struct Maps {
    /// By external endpoint: the inside endpoint that got it first, and when that is forgotten.
    hosts: Map<Key, (SocketAddr, u32)>,
    /// By external endpoint and remote address.
    contacted: Map<Key, u32>,
    timers: Sessions<Element>,
}

/// An element of one of the two.
#[derive(Clone, Copy, Debug)]
enum Element {
    Host(Proto, SocketAddr),
    Contacted(Proto, SocketAddr, IpAddr),
}

impl Maps {
    fn new(config: &LinuxConfig) -> Maps {
        let timeouts = Timeouts::idle(config.map_timeout);
        Maps {
            hosts: Map::default(),
            contacted: Map::default(),
            timers: Sessions::new(&timeouts, usize::MAX),
        }
    }

    /// Other times, which elements get when they are refreshed.
    fn configure(&mut self, config: &LinuxConfig) {
        self.timers.configure(&Timeouts::idle(config.map_timeout), usize::MAX);
    }

    fn expire(&mut self, now: u64, forgotten: &mut Option<VecDeque<Forgotten>>) {
        while let Some((element, _)) = self.timers.pop_expired(now) {
            let gone = match element {
                Element::Host(proto, external) => {
                    self.hosts.swap_remove(&Key::of(proto, external));
                    Forgotten::Host { proto, external }
                }
                Element::Contacted(proto, external, remote) => {
                    self.contacted.swap_remove(&contact(proto, external, remote));
                    Forgotten::Contact { proto, external, remote }
                }
            };
            if let Some(forgotten) = forgotten {
                forgotten.push_back(gone);
            }
        }
    }

    /// A packet of a conversation begun by `inside` leaves from `external` for `remote`. An element that is there keeps
    /// its host, whoever refreshes it (`nft_dynset.c`).
    fn learn(
        &mut self,
        proto: Proto,
        [inside, external]: [SocketAddr; 2],
        remote: IpAddr,
        overwrite: bool,
        now: u64,
    ) {
        let key = Key::of(proto, external);
        match self.hosts.get_mut(&key) {
            Some((host, _)) if overwrite && *host != inside => *host = inside,
            Some((_, slot)) => self.timers.touch(*slot, Direction::Out, None, true, now),
            None => {
                let slot = self.timers.insert(Element::Host(proto, external), Proto::Udp, now);
                self.hosts.insert(key, (inside, slot));
            }
        }
        let key = contact(proto, external, remote);
        match self.contacted.get(&key) {
            Some(slot) => self.timers.touch(*slot, Direction::Out, None, true, now),
            None => {
                let slot = self.timers.insert(Element::Contacted(proto, external, remote), Proto::Udp, now);
                self.contacted.insert(key, slot);
            }
        }
    }

    fn clear(&mut self) {
        self.hosts.clear();
        self.contacted.clear();
        self.timers.clear();
    }
}

fn contact(proto: Proto, external: SocketAddr, remote: IpAddr) -> Key {
    Key::pair(proto, external, SocketAddr::new(remote, 0))
}

impl LinuxNat {
    /// A router with these external addresses. One with none for a packet's IP version drops it.
    pub fn new(config: LinuxConfig, external: Vec<IpAddr>, rng: Pcg64Mcg) -> LinuxNat {
        LinuxNat {
            epoch: Epoch::default(),
            table: Table::new(&config.timeouts, config.capacity, config.tcp_pickup),
            maps: Maps::new(&config),
            redirections: Map::default(),
            counter: 0,
            suggested: None,
            forgotten: None,
            fault: None,
            events: None,
            config,
            external,
            rng,
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &LinuxConfig {
        &self.config
    }

    /// Its external addresses.
    pub fn external(&self) -> &[IpAddr] {
        &self.external
    }

    /// How many conversations the table holds, the router's own and those that expired since the last packet included.
    pub fn conversations(&self) -> usize {
        self.table.len()
    }

    /// The conversations between inside and outside: protocol, inside, external and remote endpoint. In no particular
    /// order, but in the same one in each run.
    pub fn bindings(&self) -> impl Iterator<Item = (Proto, SocketAddr, SocketAddr, SocketAddr)> + '_ {
        self.table.iter().filter_map(binding)
    }

    /// The port to take the next time one is drawn at random, if the rule may draw it: what a kernel drew that this
    /// model is held against.
    pub fn suggest_port(&mut self, port: Option<u16>) {
        self.suggested = port;
    }

    /// Whether [`poll_forgotten`](Self::poll_forgotten) tells whose time ran out. Off at first.
    pub fn set_forgotten(&mut self, on: bool) {
        self.forgotten = on.then(VecDeque::new);
    }

    /// What was forgotten next, for somebody who keeps another table in step with this one.
    pub fn poll_forgotten(&mut self) -> Option<Forgotten> {
        self.forgotten.as_mut()?.pop_front()
    }

    /// Makes a mistake from now on.
    #[doc(hidden)]
    pub fn set_fault(&mut self, fault: Option<Fault>) {
        self.fault = fault;
    }

    /// What another kind of translator takes over from this one: randomness, and whether anybody listens.
    pub(crate) fn heirloom(&mut self) -> (Pcg64Mcg, bool) {
        (Pcg64Mcg::from_rng(&mut self.rng), self.events.is_some())
    }

    fn expire(&mut self, now: u64) {
        let late = if self.fault == Some(Fault::Lingers) { 1_000_000_000 } else { 0 };
        let now = now.saturating_sub(late);
        while let Some((entry, at)) = self.table.pop_expired(now) {
            self.ended(&entry, at, Ended::Expired);
            if let Some(forgotten) = &mut self.forgotten {
                let Tuple { src, dst } = entry.original;
                forgotten.push_back(Forgotten::Conversation { proto: entry.proto, src, dst });
            }
        }
        self.maps.expire(now, &mut self.forgotten);
        if !self.redirections.is_empty() {
            self.end_redirections(now);
        }
    }

    fn ended(&mut self, entry: &Entry, at: u64, why: Ended) {
        if let Some(events) = &mut self.events
            && let Some((proto, inside, external, remote)) = binding(entry)
            && let Some(at) = self.epoch.instant(at)
        {
            events.push_back(Event::BindingExpired { at, proto, inside, external, remote, why });
        }
    }

    fn ours(&self, ip: IpAddr) -> bool {
        self.external.contains(&ip)
    }

    fn judge(&mut self, side: Side, packet: &mut dyn Packet, now: u64) -> Result<Side, Refusal> {
        if packet.quoted().is_some() {
            return self.error(packet).map_err(|reason| (reason, None));
        }
        let tuple = Tuple { src: packet.src(), dst: packet.dst() };
        let (proto, flags) = (packet.proto(), packet.tcp_flags());
        let Some((slot, way)) = self.table.find(proto, tuple) else {
            return self.open(side, packet, now);
        };
        let flags = match flags {
            Some(flags) if self.fault == Some(Fault::AnySyn) && way == Way::Reply && flags.syn => {
                Some(TcpFlags { ack: true, ..flags })
            }
            flags => flags,
        };
        match self.table.touch(slot, way, flags, now) {
            Touched::Pass => {}
            Touched::Invalid => return Err((DropReason::NotASyn, None)),
            Touched::Reopened => {
                let entry = self.table.remove(slot);
                self.ended(&entry, now, Ended::Expired);
                return self.open(side, packet, now);
            }
        }
        let entry = self.table.entry(slot);
        let (other, to) = match way {
            Way::Original => (entry.reply, entry.to),
            Way::Reply => (entry.original, Some(entry.from)),
        };
        let Some(to) = to else {
            // Nobody listens on the router, and it does not answer echo requests.
            let answer = answer(proto, flags).filter(|_| proto != Proto::Icmp && way == Way::Original);
            return Err((DropReason::NoBinding, answer));
        };
        if way == Way::Original && entry.from == Side::Inside && self.config.rule.has_map() {
            let (inside, external) = (entry.original.src, entry.reply.dst);
            let overwrite = self.fault == Some(Fault::MapOverwrites);
            self.maps.learn(proto, [inside, external], entry.reply.src.ip(), overwrite, now);
        }
        packet.set_src(other.dst);
        packet.set_dst(other.src);
        Ok(to)
    }

    /// A packet that belongs to no conversation.
    fn open(&mut self, side: Side, packet: &mut dyn Packet, now: u64) -> Result<Side, Refusal> {
        let original = Tuple { src: packet.src(), dst: packet.dst() };
        let (proto, flags) = (packet.proto(), packet.tcp_flags());
        let ours = self.ours(original.dst.ip());
        let unknown = match side {
            Side::Outside if ours => DropReason::NoBinding,
            Side::Outside => DropReason::NotOurAddress,
            Side::Inside => DropReason::NotASyn,
        };
        let track = self.table.may_open(flags).ok_or((unknown, None))?;
        // Of ICMP's messages only questions begin something (`nf_conntrack_icmp_packet`), and those have no number there.
        if proto == Proto::Icmp && original.dst.port() != 0 {
            return Err((if side == Side::Inside { DropReason::NoBinding } else { unknown }, None));
        }
        if self.table.is_full() {
            return Err((if side == Side::Inside { DropReason::TableFull } else { unknown }, None));
        }
        let target = if ours { self.target(side, proto, original) } else { None };
        let (to, dst) = match (side, target) {
            (Side::Inside, None) if ours => return Err((DropReason::NoHairpin, None)),
            (Side::Inside, None) => (Side::Outside, original.dst),
            (Side::Outside, None) if ours => return Err(self.input(proto, flags, original, track, now)),
            (Side::Outside, None) => (Side::Inside, original.dst),
            (_, Some(host)) => (Side::Inside, host),
        };
        let redirected = ours && self.redirections.contains_key(&Key::of(proto, original.dst));
        if side == Side::Outside && !redirected {
            let reason = if ours { DropReason::FilteredPort } else { DropReason::NotOurAddress };
            match self.config.forward {
                ForwardPolicy::Accept => {}
                ForwardPolicy::Drop => return Err((reason, None)),
                ForwardPolicy::Reject => return Err((reason, answer(proto, flags))),
            }
        }
        let external = match side {
            Side::Inside => self.source(proto, original, dst),
            // No rule matches, so the source is only moved out of the way (`nf_nat_alloc_null_binding`).
            Side::Outside => {
                let own = Candidate { keep: true, range: ports::class(proto, original.src.port()) };
                self.choose(proto, original.src, original.src.ip(), dst, own)
                    .map(|port| SocketAddr::new(original.src.ip(), port))
            }
        };
        let src = external.map_err(|reason| (reason, None))?;
        let reply = Tuple { src: dst, dst: src };
        self.table.insert(proto, [original, reply], side, Some(to), track, now);
        if side == Side::Inside && self.config.rule.has_map() {
            let overwrite = self.fault == Some(Fault::MapOverwrites);
            self.maps.learn(proto, [original.src, src], dst.ip(), overwrite, now);
        }
        if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(now)) {
            let (inside, external, remote) = sides(side, original, reply);
            events.push_back(Event::BindingCreated { at, proto, inside, external, remote });
        }
        packet.set_src(src);
        packet.set_dst(dst);
        Ok(to)
    }

    /// Where destination NAT leads a packet for an external address.
    fn target(&self, side: Side, proto: Proto, tuple: Tuple) -> Option<SocketAddr> {
        if side == Side::Inside && !self.config.hairpin {
            return None;
        }
        if let Some(found) = self.redirections.get(&Key::of(proto, tuple.dst)) {
            return Some(found.inside);
        }
        match self.config.rule {
            LinuxRule::Static => {
                let index = self.external.iter().position(|ip| *ip == tuple.dst.ip());
                let host = index.and_then(|index| self.config.hosts.get(index));
                host.map(|host| SocketAddr::new(*host, tuple.dst.port()))
            }
            // Echo requests have no port to be found by.
            LinuxRule::FullCone | LinuxRule::RestrictedCone if proto != Proto::Icmp => {
                let (host, _) = self.maps.hosts.get(&Key::of(proto, tuple.dst))?;
                let contact = contact(proto, tuple.dst, tuple.src.ip());
                let known =
                    self.config.rule == LinuxRule::FullCone || self.maps.contacted.contains_key(&contact);
                known.then_some(*host)
            }
            _ => None,
        }
    }

    /// A packet for the router itself, which an accepting INPUT chain takes for its own: the entry that leaves occupies
    /// the tuple. A SYN leaves none, as the RST that answers it ends the conversation.
    fn input(
        &mut self,
        proto: Proto,
        flags: Option<TcpFlags>,
        original: Tuple,
        track: Track,
        now: u64,
    ) -> Refusal {
        let reason = DropReason::NoBinding;
        let answers = answer(proto, flags).filter(|_| proto != Proto::Icmp);
        match self.config.input {
            InputPolicy::Drop if self.fault != Some(Fault::KeepsDropped) => (reason, None),
            InputPolicy::Reject => (reason, answer(proto, flags)),
            InputPolicy::Accept if self.fault == Some(Fault::DropsAccepted) => (reason, answers),
            _ => {
                let reply = Tuple { src: original.dst, dst: original.src };
                if proto != Proto::Tcp && self.table.find(proto, reply).is_none() {
                    self.table.insert(proto, [original, reply], Side::Outside, None, track, now);
                }
                (reason, answers.filter(|_| self.config.input == InputPolicy::Accept))
            }
        }
    }

    /// The source that a new conversation from inside gets on its way to `dst`.
    fn source(&mut self, proto: Proto, original: Tuple, dst: SocketAddr) -> Result<SocketAddr, DropReason> {
        let inside = original.src;
        let ip = self.address_for(inside.ip(), original.dst.ip()).ok_or(DropReason::NoExternalAddress)?;
        let range = match self.config.ports {
            Some(range) if proto != Proto::Icmp => range,
            _ if self.fault == Some(Fault::OneClass) && proto != Proto::Icmp => PortRange::UNPRIVILEGED,
            _ => ports::class(proto, inside.port()),
        };
        if range.low > range.high {
            return Err(DropReason::NoFreePort);
        }
        if proto != Proto::Icmp && (self.config.rule.is_hash() || self.config.rule == LinuxRule::Sequential) {
            let port = self.computed_port(original);
            let tuple = Tuple { src: dst, dst: SocketAddr::new(ip, port) };
            // The kernel notices that the tuple is taken only when it confirms the entry, and drops the packet.
            let free = self.table.find(proto, tuple).is_none();
            return if free { Ok(tuple.dst) } else { Err(DropReason::NoFreePort) };
        }
        if !self.config.random
            && self.fault != Some(Fault::ForgetsNewest)
            && let Some(newest) = self.newest_in_range(proto, inside)
            && self.table.find(proto, Tuple { src: dst, dst: newest }).is_none()
        {
            return Ok(newest);
        }
        let candidate = Candidate { keep: !self.config.random, range };
        let port = self.choose(proto, inside, ip, dst, candidate)?;
        Ok(SocketAddr::new(ip, port))
    }

    /// The external endpoint of the newest conversation from `inside` that the rule might have given
    /// (`find_appropriate_src`).
    fn newest_in_range(&self, proto: Proto, inside: SocketAddr) -> Option<SocketAddr> {
        let mut entry = self.table.newest(proto, inside);
        while let Some(found) = entry {
            let external = found.reply.dst;
            let in_range =
                proto == Proto::Icmp || self.config.ports.is_none_or(|range| range.contains(external.port()));
            if in_range && self.ours(external.ip()) {
                return Some(external);
            }
            entry = self.table.older(found);
        }
        None
    }

    /// The external address for a conversation.
    fn address_for(&self, inside: IpAddr, remote: IpAddr) -> Option<IpAddr> {
        let family = || self.external.iter().filter(|ip| ip.is_ipv4() == inside.is_ipv4());
        let index = match self.config.rule {
            LinuxRule::Masquerade => 0,
            LinuxRule::Static => {
                let index = self.config.hosts.iter().position(|host| *host == inside)?;
                return self.external.get(index).copied();
            }
            _ => {
                let count = family().count() as u32;
                let paired = self.config.persistent || self.fault == Some(Fault::AlwaysPaired);
                if count > 1 { ports::pool_index(inside, remote, paired, count) } else { 0 }
            }
        };
        family().nth(index as usize).copied()
    }

    /// The port of the rules that compute one.
    fn computed_port(&mut self, original: Tuple) -> u16 {
        let range = self.config.computed_ports();
        let (src, dst) = (ports::words(original.src.ip())[0], ports::words(original.dst.ip())[0]);
        let words = [src, ports::port_word(original.src.port()), dst, ports::port_word(original.dst.port())];
        match self.config.rule {
            LinuxRule::EndpointHash => ports::hashed_port(&words[..2], range),
            LinuxRule::AddressHash => ports::hashed_port(&words[..3], range),
            LinuxRule::EndpointsHash => ports::hashed_port(&words, range),
            _ => {
                let size = u32::from(range.high - range.low) + 1;
                let port = range.low + (u32::from(self.counter) % size) as u16;
                self.counter = ((u32::from(self.counter) + 1) % size) as u16;
                port
            }
        }
    }

    /// A port of `ip` from which the answers of `dst` have a tuple to themselves: the one of `source`, else a random one.
    fn choose(
        &mut self,
        proto: Proto,
        source: SocketAddr,
        ip: IpAddr,
        dst: SocketAddr,
        candidate: Candidate,
    ) -> Result<u16, DropReason> {
        let Candidate { keep, range } = candidate;
        let fault = self.fault;
        let free = |table: &Table, port: u16| {
            let external = SocketAddr::new(ip, port);
            match (fault, table.find(proto, Tuple { src: dst, dst: external })) {
                (Some(Fault::OverlooksOwn), Some((slot, _))) => table.entry(slot).to.is_none(),
                (Some(Fault::NeverShares), None) => table
                    .iter()
                    .all(|other| other.reply.dst != external || other.original.src.ip() == source.ip()),
                (_, found) => found.is_none(),
            }
        };
        let may_keep = self.config.ports.is_none_or(|_| range.contains(source.port()));
        if keep && may_keep && free(&self.table, source.port()) {
            return Ok(source.port());
        }
        if let Some(port) = self.suggested.take()
            && range.contains(port)
            && free(&self.table, port)
        {
            return Ok(port);
        }
        // The kernel looks at 128 ports from a random one upwards, then at 64 from another, and so on down to 8.
        let size = u32::from(range.high - range.low) + 1;
        let mut attempts = size.min(128);
        loop {
            let first = self.rng.random_range(0..size);
            let mut candidates = (0..attempts).map(|i| range.low + ((first + i) % size) as u16);
            if let Some(port) = candidates.find(|port| free(&self.table, *port)) {
                return Ok(port);
            }
            if attempts >= size || attempts < 16 {
                return Err(DropReason::NoFreePort);
            }
            attempts /= 2;
        }
    }

    /// An ICMP error: to whoever sent the packet that it quotes. It neither ends nor refreshes the conversation
    /// (`nf_conntrack_inet_error`, `nf_nat_icmp_reply_translation`).
    fn error(&self, packet: &mut dyn Packet) -> Result<Side, DropReason> {
        if self.fault == Some(Fault::AnyError) {
            return Ok(Side::Inside);
        }
        let quoted = packet.quoted().ok_or(DropReason::UnknownQuote)?;
        // What answers the quoted packet belongs to the same conversation, the same way as this error.
        let answer = Tuple { src: quoted.dst(), dst: quoted.src() };
        let (slot, way) = self.table.find(quoted.proto(), answer).ok_or(DropReason::UnknownQuote)?;
        let entry = self.table.entry(slot);
        let (near, far, to) = match way {
            Way::Original => (entry.original, entry.reply, entry.to),
            Way::Reply => (entry.reply, entry.original, Some(entry.from)),
        };
        let to = to.ok_or(DropReason::UnknownQuote)?;
        if self.fault != Some(Fault::BareQuote) {
            quoted.set_src(far.src);
            quoted.set_dst(far.dst);
        }
        let (src_changes, dst_changes) = (near.src != far.dst, near.dst != far.src);
        if dst_changes {
            packet.set_dst(SocketAddr::new(far.src.ip(), 0));
        }
        if src_changes {
            packet.set_src(SocketAddr::new(far.dst.ip(), 0));
        }
        Ok(to)
    }
}

/// The ports to choose from, and whether the own one comes first.
#[derive(Clone, Copy)]
struct Candidate {
    keep: bool,
    range: PortRange,
}

/// What is said to the sender of a refused packet.
fn answer(proto: Proto, flags: Option<TcpFlags>) -> Option<Answer> {
    match flags {
        Some(TcpFlags { rst: true, .. }) => None,
        _ if proto == Proto::Tcp => Some(Answer::Reset),
        _ => Some(Answer::PortUnreachable),
    }
}

/// Inside, external and remote endpoint.
fn sides(from: Side, original: Tuple, reply: Tuple) -> (SocketAddr, SocketAddr, SocketAddr) {
    match from {
        Side::Inside => (original.src, reply.dst, original.dst),
        Side::Outside => (reply.src, original.dst, original.src),
    }
}

fn binding(entry: &Entry) -> Option<(Proto, SocketAddr, SocketAddr, SocketAddr)> {
    entry.to?;
    let (inside, external, remote) = sides(entry.from, entry.original, entry.reply);
    Some((entry.proto, inside, external, remote))
}

impl Middlebox for LinuxNat {
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, now: Instant) -> Verdict {
        let now = self.epoch.ns(now);
        self.expire(now);
        match self.judge(side, packet, now) {
            Ok(side) => Verdict::Forward(side),
            Err((reason, None)) => Verdict::Drop(reason),
            Err((reason, Some(answer))) => Verdict::Reject(reason, answer),
        }
    }

    fn clear(&mut self) {
        self.table.clear();
        self.maps.clear();
        self.redirections.clear();
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
        let due = [self.table.next_due(), self.next_redirection_due()].into_iter().flatten().min()?;
        Some((self.epoch.instant(due)?, "a binding may expire"))
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.epoch.ns(now);
        self.expire(now);
    }
}
