//! What the peer knows of its own addresses: interfaces, reflexive addresses, and whether its mapping varies.
//!
//! Every request is a transaction of its own: retransmissions under one identifier (RFC 8489 §6.2.1) could not be told
//! apart, and the round trip, by which the home relay is chosen, would be wrong by the time between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use coord::{NatFacts, RelayInfo};
use rand::{Rng, RngExt};
use stun::message::{Class, Message, TransactionId};

use crate::candidate::is_usable;
use crate::dial::Env;
use crate::io::Event;
use crate::policy::{MAX_LOCAL, MAX_REFLEXIVE};

/// Servers asked in a round that is not a full one, beside those of the home region: netcheck's incremental report asks the
/// three fastest regions.
const NEAREST: usize = 3;
/// Reflexive addresses whose preserved-port guess is offered.
const MAX_GUESSES: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Answer {
    mapped: SocketAddr,
    rtt: Duration,
    round: u64,
}

#[derive(Debug, Default)]
struct Server {
    region: Option<u16>,
    /// Requests sent in this round, if it is asked in it and has not answered.
    asking: Option<usize>,
    answer: Option<Answer>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// The candidates or the facts that others should know.
    Beliefs,
    /// A port of the router's was opened for us, or is no longer.
    Mapped,
    /// Enough is known to choose a home relay.
    Settled,
    /// Nobody has answered yet, and waiting any longer costs more than a wrong choice.
    Impatient,
}

/// Knowledge about this side of the NAT.
#[derive(Debug, Default)]
pub(crate) struct Nat {
    local: Vec<SocketAddr>,
    /// Our port as the router opened it for everybody.
    mapped: Option<SocketAddr>,
    /// Those of each family from which datagrams leave.
    preferred: [Option<SocketAddr>; 2],
    servers: BTreeMap<SocketAddr, Server>,
    pending: BTreeMap<[u8; 12], (SocketAddr, Instant)>,
    round: u64,
    began: Option<Instant>,
    full_at: Option<Instant>,
    first_answer: Option<(Instant, Duration)>,
    impatient: bool,
    settled: bool,
    /// Some round has settled, or patience ran out.
    decided: bool,
    closed: bool,
    refresh_at: Option<Instant>,
    varies: Option<bool>,
    blocked: bool,
    candidates: Vec<SocketAddr>,
    told: Option<(Option<bool>, bool, Vec<SocketAddr>)>,
    changes: BTreeSet<Change>,
}

impl Nat {
    pub(crate) fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// The addresses of the machine itself.
    pub(crate) fn local(&self) -> &[SocketAddr] {
        &self.local
    }

    pub(crate) fn is_online(&self) -> bool {
        !self.local.is_empty()
    }

    pub(crate) fn facts(&self) -> NatFacts {
        NatFacts { mapping_varies: self.varies, udp_blocked: self.blocked }
    }

    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_first()
    }

    /// Round trip to the nearest STUN server of a region, from the last answers.
    pub(crate) fn rtt(&self, region: u16) -> Option<Duration> {
        let of_region = self.servers.values().filter(|server| server.region == Some(region));
        of_region.filter_map(|server| self.current(server).map(|answer| answer.rtt)).min()
    }

    /// An answer that is not older than the round before this one.
    fn current<'a>(&self, server: &'a Server) -> Option<&'a Answer> {
        server.answer.as_ref().filter(|answer| answer.round + 1 >= self.round)
    }

    /// New interface addresses, the preferred first. `true` if one that was there is gone or no longer preferred, so that
    /// nothing learned before holds.
    pub(crate) fn set_local(&mut self, addresses: &[SocketAddr], env: &mut Env<'_>) -> bool {
        let mut local: Vec<SocketAddr> = addresses
            .iter()
            .copied()
            .filter(|&address| is_usable(address, env.policy))
            .take(MAX_LOCAL)
            .collect();
        let preferred = [true, false].map(|v4| local.iter().copied().find(|address| address.is_ipv4() == v4));
        local.sort_unstable();
        local.dedup();
        if local == self.local && preferred == self.preferred {
            return false;
        }
        // One that comes beside another family's is no reason to doubt that one.
        let other = |(old, new): (&Option<SocketAddr>, &Option<SocketAddr>)| old.is_some() && old != new;
        let moved = self.local.iter().any(|old| !local.contains(old))
            || self.preferred.iter().zip(&preferred).any(other);
        self.local = local;
        self.preferred = preferred;
        if moved {
            for server in self.servers.values_mut() {
                server.answer = None;
            }
            self.pending.clear();
            self.varies = None;
            self.blocked = false;
            self.full_at = None;
        }
        self.believe(env);
        self.refresh(env);
        moved
    }

    /// The STUN servers of the map. Asks those that are new.
    pub(crate) fn set_servers(&mut self, relays: &[RelayInfo], env: &mut Env<'_>) {
        let mut servers = BTreeMap::new();
        for relay in relays {
            for &address in &relay.stun {
                let mut server = self.servers.remove(&address).unwrap_or_default();
                server.region = Some(relay.region);
                servers.insert(address, server);
            }
        }
        let new = servers.values().any(|server| server.answer.is_none() && server.asking.is_none());
        self.servers = servers;
        let servers = &self.servers;
        self.pending.retain(|_, (server, _)| servers.contains_key(server));
        if new {
            self.full_at = None;
            self.begin(None, env);
        }
    }

    /// Asks again, unless a round has just begun. `home` is asked in any case.
    pub(crate) fn sample(&mut self, home: Option<u16>, env: &mut Env<'_>) {
        if self.began.is_none_or(|at| at + env.policy.stun_fresh <= env.now) {
            self.begin(home, env);
        }
    }

    /// Asks now.
    pub(crate) fn refresh(&mut self, env: &mut Env<'_>) {
        self.begin(None, env);
    }

    /// Asks every server now: more of them can be reached than before.
    pub(crate) fn ask_all(&mut self, env: &mut Env<'_>) {
        self.full_at = None;
        self.begin(None, env);
    }

    /// There is traffic: keep asking from time to time.
    pub(crate) fn keep_fresh(&mut self, env: &mut Env<'_>) {
        if self.refresh_at.is_none() {
            let (low, high) = env.policy.stun_refresh;
            self.refresh_at = Some(env.now + env.rng.random_range(low..=high));
        }
    }

    fn begin(&mut self, home: Option<u16>, env: &mut Env<'_>) {
        if self.local.is_empty() || self.servers.is_empty() {
            return;
        }
        let now = env.now;
        let full = self.full_at.is_none_or(|at| at + env.policy.stun_full <= now);
        let reach = env.out.reach;
        let asked = if full {
            self.full_at = Some(now);
            self.servers.keys().copied().filter(|&address| reach.reaches(address)).collect()
        } else {
            let family =
                |v4| self.nearest(home, move |address| address.is_ipv4() == v4 && reach.reaches(address));
            let mut asked = family(true);
            asked.append(&mut family(false));
            asked
        };
        self.round += 1;
        self.began = Some(now);
        self.pending.clear();
        (self.first_answer, self.impatient, self.settled, self.closed) = (None, false, false, false);
        self.refresh_at = None;
        for (address, server) in &mut self.servers {
            server.asking = asked.contains(address).then_some(0);
        }
        self.send_due(env);
    }

    /// Of some servers, the nearest and those of the home region.
    fn nearest(&self, home: Option<u16>, of: impl Fn(SocketAddr) -> bool) -> BTreeSet<SocketAddr> {
        let mut order: Vec<(Duration, SocketAddr)> = self
            .servers
            .iter()
            .filter(|(address, _)| of(**address))
            .map(|(&address, server)| (server.answer.map_or(Duration::MAX, |answer| answer.rtt), address))
            .collect();
        order.sort_unstable();
        let of_home = |address| home.is_some() && self.servers.get(address).is_some_and(|s| s.region == home);
        let ranked = order.iter().enumerate();
        let mut asked: BTreeSet<SocketAddr> = ranked
            .filter(|(rank, (_, address))| *rank < NEAREST || of_home(address))
            .map(|(_, (_, address))| *address)
            .collect();
        // Two addresses at least, or the mapping's dependence on the destination could not be seen.
        let ips: BTreeSet<IpAddr> = asked.iter().map(SocketAddr::ip).collect();
        if ips.len() < 2 {
            asked.extend(order.iter().map(|(_, address)| *address).find(|other| !ips.contains(&other.ip())));
        }
        asked
    }

    fn send_due(&mut self, env: &mut Env<'_>) {
        let Some(began) = self.began else { return };
        for (&address, server) in &mut self.servers {
            let Some(sent) = &mut server.asking else { continue };
            while env.policy.stun_schedule.get(*sent).is_some_and(|&after| began + after <= env.now) {
                *sent += 1;
                let mut id = [0; 12];
                env.rng.fill_bytes(&mut id);
                let request = Message { fingerprint: true, ..Message::binding_request(TransactionId(id)) };
                self.pending.insert(id, (address, env.now));
                env.out.datagram(address, request.to_vec().into());
            }
        }
    }

    /// Takes a STUN message. Those that answer no request of ours are ignored.
    pub(crate) fn handle(&mut self, from: SocketAddr, datagram: &[u8], env: &mut Env<'_>) {
        let Ok(message) = Message::decode(datagram) else { return };
        let Some(&(address, sent)) = self.pending.get(&message.id.0) else { return };
        if message.class != Class::Success || from != address {
            return;
        }
        self.pending.remove(&message.id.0);
        let (Some(mapped), Some(server)) = (message.mapped(), self.servers.get_mut(&address)) else { return };
        if !is_usable(mapped, env.policy) {
            return;
        }
        let rtt = env.now.saturating_duration_since(sent);
        let again = server.asking.take().is_none();
        if again && server.answer.is_some_and(|answer| answer.round == self.round && answer.rtt <= rtt) {
            return; // a slower answer to an earlier request of the same round
        }
        server.answer = Some(Answer { mapped, rtt, round: self.round });
        self.first_answer.get_or_insert((env.now, rtt));
        self.blocked = false;
        env.out.event(Event::Reflexive { server: address, mapped, rtt });
        self.judge_mapping();
        self.believe(env);
        if self.servers.values().all(|server| server.asking.is_none()) {
            self.closed = true;
            self.settle();
        }
    }

    /// Any two answers of one round that differ: the mapping varies by destination (RFC 4787 §4.1).
    fn judge_mapping(&mut self) {
        let mut seen: BTreeMap<IpAddr, SocketAddr> = BTreeMap::new();
        for (server, state) in &self.servers {
            if let Some(answer) = state.answer.filter(|answer| answer.round == self.round) {
                seen.insert(server.ip(), answer.mapped);
            }
        }
        for v4 in [true, false] {
            let mut family = seen.values().filter(|mapped| mapped.is_ipv4() == v4);
            if let (Some(first), true) = (family.next(), seen.len() >= 2) {
                let mut others = family.peekable();
                if others.peek().is_some() {
                    self.varies = Some(others.any(|mapped| mapped != first));
                    return;
                }
            }
        }
    }

    /// Are there servers that may yet tell which relay is near?
    pub(crate) fn is_undecided(&self) -> bool {
        !self.servers.is_empty() && !self.decided
    }

    fn settle(&mut self) {
        self.decided = true;
        if !std::mem::replace(&mut self.settled, true) {
            self.changes.insert(Change::Settled);
        }
    }

    /// The address at which a port of the router's is open for us. What a STUN server sees may change with it.
    pub(crate) fn set_mapped(&mut self, mapped: Option<SocketAddr>, env: &mut Env<'_>) {
        if mapped != self.mapped {
            self.mapped = mapped;
            self.believe(env);
            self.changes.insert(Change::Mapped);
        }
    }

    /// Recomputes the candidates and tells if something changed.
    fn believe(&mut self, env: &mut Env<'_>) {
        let newest = |v4: bool| {
            let of_family = self.servers.values().filter_map(|server| server.answer);
            of_family.filter(|a| a.mapped.is_ipv4() == v4).map(|a| a.round).max()
        };
        let mut answers: Vec<&Answer> = self.servers.values().filter_map(|s| self.current(s)).collect();
        if self.varies == Some(false) {
            // One mapping for all: a newer answer makes older ones void.
            answers.retain(|answer| Some(answer.round) == newest(answer.mapped.is_ipv4()));
        }
        answers.sort_unstable_by_key(|answer| (answer.rtt, answer.mapped));
        let mut candidates = self.local.clone();
        let mut add = |address: SocketAddr| {
            let new = !candidates.contains(&address);
            if new {
                candidates.push(address);
            }
            new
        };
        if let Some(mapped) = self.mapped {
            add(mapped);
        }
        let mut reflexive = 0;
        for answer in &answers {
            if reflexive < MAX_REFLEXIVE && add(answer.mapped) {
                reflexive += 1;
            }
        }
        // A port that is open needs no guess.
        if self.varies == Some(true)
            && self.mapped.is_none()
            && let Some(port) = self.local.first().map(SocketAddr::port)
        {
            let ips: BTreeSet<IpAddr> = answers.iter().map(|answer| answer.mapped.ip()).collect();
            for ip in ips.into_iter().take(MAX_GUESSES) {
                add(SocketAddr::new(ip, port));
            }
        }
        self.candidates = candidates;
        let now = (self.varies, self.blocked, self.candidates.clone());
        if self.told.as_ref() != Some(&now) {
            let (mapping_varies, udp_blocked, candidates) = now.clone();
            env.out.event(Event::NatLearned { mapping_varies, udp_blocked, candidates });
            self.told = Some(now);
            self.changes.insert(Change::Beliefs);
        }
    }

    pub(crate) fn poll_timeout(&self, policy: &crate::Policy) -> Option<(Instant, &'static str)> {
        let began = self.began?;
        let open = !self.closed;
        let sends = self.servers.values().filter_map(|server| server.asking);
        let send = sends.filter_map(|sent| policy.stun_schedule.get(sent)).min().map(|&after| began + after);
        let settle = match self.first_answer {
            _ if self.settled || !open => None,
            Some((at, rtt)) => Some(at + rtt),
            None => None,
        };
        let impatient =
            (open && self.first_answer.is_none() && !self.impatient).then(|| began + policy.home_patience);
        let close = open.then(|| began + policy.stun_timeout);
        let named = [
            (send.filter(|_| open), "stun request"),
            (settle, "stun answers"),
            (impatient, "no stun answer yet"),
            (close, "stun round"),
            (self.refresh_at, "stun refresh"),
        ];
        named.into_iter().filter_map(|(at, why)| at.map(|at| (at, why))).min()
    }

    pub(crate) fn is_refresh_due(&self, now: Instant) -> bool {
        self.refresh_at.is_some_and(|at| at <= now)
    }

    /// `active`: is there traffic, so that the mapping should stay known?
    pub(crate) fn handle_timeout(&mut self, home: Option<u16>, active: bool, env: &mut Env<'_>) {
        let Some(began) = self.began else { return };
        if !self.closed {
            self.send_due(env);
            if self.first_answer.is_some_and(|(at, rtt)| at + rtt <= env.now) {
                self.settle();
            }
            if self.first_answer.is_none() && !self.impatient && began + env.policy.home_patience <= env.now {
                self.impatient = true;
                self.decided = true;
                self.changes.insert(Change::Impatient);
            }
            if began + env.policy.stun_timeout <= env.now {
                self.closed = true;
                self.pending.clear();
                for server in self.servers.values_mut() {
                    server.asking = None;
                }
                self.blocked = self.first_answer.is_none();
                self.believe(env);
                self.settle();
            }
        }
        if self.refresh_at.is_some_and(|at| at <= env.now) {
            self.refresh_at = None;
            if active {
                self.begin(home, env);
                self.keep_fresh(env);
            }
        }
    }
}

#[cfg(test)]
mod tests;
