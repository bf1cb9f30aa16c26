//! Discovery against the resolver, and both against whatever may come.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pref64::{Discovery, Ipv6Prefix, Outcome, Pref64, Resolver};
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

const RESOLVER: &str = "[3001::1]:53";

fn resolver_at() -> SocketAddr {
    RESOLVER.parse().expect("an endpoint")
}

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn discovery(now: Instant) -> (Discovery, Vec<u8>) {
    let mut discovery = Discovery::new(resolver_at(), &mut Pcg64Mcg::seed_from_u64(1), now);
    let (to, query) = discovery.poll_transmit().expect("it asks at once");
    assert_eq!(to, resolver_at());
    (discovery, query)
}

#[test]
fn the_query_is_for_the_ipv6_addresses_of_ipv4only_arpa() {
    let (_, query) = discovery(start());
    // RFC 1035 §4.1.2: length-prefixed labels, then type 28 (RFC 3596 §2.1) and class 1.
    assert_eq!(&query[12..], b"\x08ipv4only\x04arpa\0\0\x1c\0\x01");
}

#[test]
fn without_an_answer_it_asks_again_ever_more_slowly() {
    let start = start();
    let (mut discovery, _) = discovery(start);
    let mut waits = Vec::new();
    let mut last = start;
    for _ in 0..8 {
        let (at, _) = discovery.poll_timeout().expect("it goes on");
        discovery.handle_timeout(at - Duration::from_nanos(1));
        assert_eq!(discovery.poll_transmit(), None);
        discovery.handle_timeout(at);
        assert!(discovery.poll_transmit().is_some());
        waits.push((at - last).as_secs());
        last = at;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
}

#[test]
fn a_network_without_nat64_says_so() {
    let (mut discovery, query) = discovery(start());
    // A resolver without DNS64: no error, no addresses. The flags stand in the third octet.
    let mut answer = query;
    answer[2] |= 0x80;
    assert!(discovery.handle(resolver_at(), &answer));
    assert_eq!(discovery.poll_event(), Some(Outcome::Nothing));
    assert_eq!(discovery.poll_timeout(), None);
}

#[test]
fn answers_of_others_and_to_others_are_ignored() {
    let (mut discovery, query) = discovery(start());
    let answer = Resolver::new(Pref64::WELL_KNOWN).respond(&query).expect("a question");
    assert!(!discovery.handle("[3001::66]:53".parse().expect("an endpoint"), &answer));
    let mut other = answer.clone();
    other[1] ^= 1;
    assert!(!discovery.handle(resolver_at(), &other));
    assert!(!discovery.handle(resolver_at(), &query));
    assert_eq!(discovery.poll_event(), None);
    assert!(discovery.handle(resolver_at(), &answer));
    assert_eq!(discovery.poll_event(), Some(Outcome::Found(Pref64::WELL_KNOWN)));
}

#[test]
fn a_resolver_in_trouble_is_asked_again() {
    let (mut discovery, query) = discovery(start());
    let mut answer = query;
    answer[2] |= 0x80;
    answer[3] |= 2; // SERVFAIL
    assert!(discovery.handle(resolver_at(), &answer));
    assert_eq!(discovery.poll_event(), None);
    assert!(discovery.poll_timeout().is_some());
}

#[test]
fn the_resolver_refuses_other_names_and_answers_no_answers() {
    let (_, mut query) = discovery(start());
    let resolver = Resolver::new(Pref64::WELL_KNOWN);
    let answer = resolver.respond(&query).expect("a question");
    assert_eq!((answer[3] & 15, answer[7]), (0, 2), "no error, two answers");
    assert_eq!(resolver.respond(&answer), None);
    query[13] = b'x';
    let answer = resolver.respond(&query).expect("a question");
    assert_eq!((answer[3] & 15, answer[7]), (5, 0), "refused");
}

proptest! {
    #[test]
    fn whatever_the_prefix_it_is_found(length in prop::sample::select(&Pref64::LENGTHS[..]), bits in any::<u128>()) {
        let bits = bits & !(u128::MAX >> length) & !(0xff << 56);
        let prefix = Pref64::new(Ipv6Prefix::new(bits.into(), length).expect("a prefix")).expect("one for IPv4");
        let (mut discovery, query) = discovery(start());
        let answer = Resolver::new(prefix).respond(&query).expect("a question");
        prop_assert!(discovery.handle(resolver_at(), &answer));
        prop_assert_eq!(discovery.poll_event(), Some(Outcome::Found(prefix)));
    }

    #[test]
    fn whatever_comes_nothing_breaks(
        noise in prop::collection::vec(any::<u8>(), 0..80),
        at in 0..60_usize,
        with in any::<u8>(),
    ) {
        let resolver = Resolver::new(Pref64::WELL_KNOWN);
        let (mut discovery, query) = discovery(start());
        resolver.respond(&noise);
        discovery.handle(resolver_at(), &noise);
        let mut answer = resolver.respond(&query).expect("a question");
        if let Some(byte) = answer.get_mut(at) {
            *byte = with;
        }
        resolver.respond(&answer);
        discovery.handle(resolver_at(), &answer);
    }
}
