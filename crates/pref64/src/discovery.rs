//! Asking for the prefix (RFC 7050).

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng, RngExt as _};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::{ADDRESSES, Ipv6Prefix, NAME, Pref64};

/// The first wait for an answer; each one after is twice as long, as RFC 1536 §1 asks of resolvers.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait. A network may begin to answer at any time.
const LONGEST_WAIT: Duration = Duration::from_secs(32);

/// What the network says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its NAT64 takes IPv4 addresses behind this prefix.
    Found(Pref64),
    /// It has no NAT64, or none that its resolver knows of.
    Nothing,
}

/// The question for one network's prefix, repeated until it is answered.
#[derive(Debug)]
pub struct Discovery {
    resolver: SocketAddr,
    id: u16,
    wait: Duration,
    /// When to ask again; `None` once there is an answer.
    next: Option<Instant>,
    to_send: bool,
    outcome: Option<Outcome>,
}

impl Discovery {
    /// Begins to ask a resolver, now.
    pub fn new(resolver: SocketAddr, rng: &mut impl Rng, now: Instant) -> Discovery {
        let (id, wait) = (rng.random(), FIRST_WAIT);
        Discovery { resolver, id, wait, next: now.checked_add(wait), to_send: true, outcome: None }
    }

    /// Takes a datagram; `false` if it is no answer to the question.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        if from != self.resolver || self.next.is_none() {
            return false;
        }
        let Ok(answer) = Packet::parse(datagram) else { return false };
        if answer.id() != self.id || !answer.has_flags(PacketFlag::RESPONSE) {
            return false;
        }
        let outcome = match answer.rcode() {
            RCODE::NoError | RCODE::NameError => prefix_of(&answer).map_or(Outcome::Nothing, Outcome::Found),
            // The server has trouble of its own, which may pass.
            _ => return true,
        };
        self.next = None;
        self.to_send = false;
        self.outcome = Some(outcome);
        true
    }

    /// Asks again, if it is time to.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_some_and(|at| at <= now) {
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
            self.next = now.checked_add(self.wait);
            self.to_send = true;
        }
    }

    /// When it asks again, and what that is for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some((self.next?, "ask for the NAT64 prefix again"))
    }

    /// The next datagram and where it goes.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.to_send).then(|| (self.resolver, question(self.id)))
    }

    /// The outcome, once.
    pub fn poll_event(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }
}

/// The query for IPv6 addresses of the name that has none.
fn question(id: u16) -> Vec<u8> {
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(TYPE::AAAA), QCLASS::CLASS(CLASS::IN));
    query.questions.push(Question::new(Name::new_unchecked(NAME), kind, class, false));
    query.build_bytes_vec().unwrap_or_default()
}

/// The prefix of the first answer that has one of the known addresses at one of the places of RFC 6052 (RFC 7050 §3).
fn prefix_of(answer: &Packet<'_>) -> Option<Pref64> {
    answer.answers.iter().find_map(|record| match &record.rdata {
        RData::AAAA(aaaa) => prefix_in(Ipv6Addr::from_bits(aaaa.address)),
        _ => None,
    })
}

fn prefix_in(address: Ipv6Addr) -> Option<Pref64> {
    // From the longest down: only there may zeros follow that look like an address in the middle.
    Pref64::LENGTHS.iter().rev().find_map(|&length| {
        let bits = address.to_bits() & !(u128::MAX >> length);
        let prefix = Pref64::new(Ipv6Prefix::new(bits.into(), length).ok()?).ok()?;
        let known = prefix.extract(address).is_some_and(|v4| ADDRESSES.contains(&v4));
        (known && prefix.embed(prefix.extract(address)?) == address).then_some(prefix)
    })
}
