//! What is concluded from STUN's answers.

use super::*;
use crate::Policy;
use crate::dial::Out;
use crate::io::Transmit;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use stun::message::{Attribute, Method};

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const LOCAL: &str = "192.168.1.2:41641";

struct Bench {
    t0: Instant,
    now: Instant,
    rng: ChaCha12Rng,
    policy: Policy,
    out: Out,
    nat: Nat,
    /// Requests that wait for an answer.
    asked: Vec<(Duration, SocketAddr, TransactionId)>,
}

impl Bench {
    /// With one STUN server in each of `regions` regions.
    fn new(regions: u16) -> Bench {
        let now = start();
        let mut bench = Bench {
            t0: now,
            now,
            rng: ChaCha12Rng::seed_from_u64(1),
            policy: Policy::default(),
            out: Out::default(),
            nat: Nat::default(),
            asked: Vec::new(),
        };
        let relays: Vec<RelayInfo> = (1..=regions)
            .map(|region| RelayInfo {
                region,
                name: String::new(),
                key: [0; 32],
                addr: [203, 0, 113, region as u8].into(),
                addr6: None,
                derp_ports: vec![443],
                tls: None,
                stun: vec![server(region)],
            })
            .collect();
        bench.act(|nat, env| nat.set_local(&[LOCAL.parse().expect("an address")], env));
        bench.act(|nat, env| nat.set_servers(&relays, env));
        bench
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Nat, &mut Env<'_>) -> T) -> T {
        let Bench { now, rng, policy, out, nat, .. } = self;
        let result = act(nat, &mut Env { now: *now, rng, policy, out });
        for transmit in self.out.transmits.drain(..) {
            if let Transmit::Datagram { to, data } = transmit {
                let id = Message::decode(&data).expect("a request").id;
                self.asked.push((self.now - self.t0, to, id));
            }
        }
        result
    }

    fn run_to(&mut self, since: u64, active: bool) {
        let end = self.t0 + ms(since);
        while let Some((at, _)) = self.nat.poll_timeout(&self.policy).filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.act(|nat, env| nat.handle_timeout(None, active, env));
            let next = self.nat.poll_timeout(&self.policy);
            assert!(next.is_none_or(|(next, _)| next > at), "a deadline without end: {next:?}");
        }
        self.now = self.now.max(end);
    }

    /// The server of a region answers its last request now.
    fn answer(&mut self, region: u16, mapped: &str) {
        let request = self.asked.iter().rev().find(|(_, to, _)| *to == server(region));
        let id = request.expect("a request").2;
        let answer = Message {
            class: Class::Success,
            method: Method::BINDING,
            id,
            attributes: vec![Attribute::XorMappedAddress(mapped.parse().expect("an address"))],
            fingerprint: false,
        };
        self.act(|nat, env| nat.handle(server(region), &answer.to_vec(), env));
    }

    fn times(&self, region: u16) -> Vec<u128> {
        let of = |(at, to, _): &(Duration, SocketAddr, _)| (*to == server(region)).then_some(at.as_millis());
        self.asked.iter().filter_map(of).collect()
    }
}

fn server(region: u16) -> SocketAddr {
    SocketAddr::new([203, 0, 113, region as u8].into(), 3478)
}

fn candidates(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn a_silent_server_is_asked_fast_and_then_slowly() {
    let mut bench = Bench::new(1);
    bench.run_to(10_000, false);
    assert_eq!(bench.times(1), [0, 100, 200, 500, 1500]);
}

#[test]
fn no_answer_within_three_seconds_means_udp_is_blocked() {
    let mut bench = Bench::new(2);
    bench.run_to(2999, false);
    assert!(!bench.nat.facts().udp_blocked);
    bench.run_to(3000, false);
    assert!(bench.nat.facts().udp_blocked);
}

#[test]
fn equal_answers_mean_one_mapping_for_all() {
    let mut bench = Bench::new(2);
    bench.now += ms(40);
    bench.answer(1, "198.51.100.1:7000");
    assert_eq!(bench.nat.facts().mapping_varies, None);
    bench.answer(2, "198.51.100.1:7000");
    assert_eq!(bench.nat.facts().mapping_varies, Some(false));
    assert_eq!(bench.nat.candidates(), candidates(&[LOCAL, "198.51.100.1:7000"]));
}

#[test]
fn different_answers_mean_a_mapping_that_varies_and_a_guess_is_offered() {
    let mut bench = Bench::new(2);
    bench.answer(1, "198.51.100.1:7000");
    bench.answer(2, "198.51.100.1:7001");
    assert_eq!(bench.nat.facts().mapping_varies, Some(true));
    let all = [LOCAL, "198.51.100.1:7000", "198.51.100.1:7001", "198.51.100.1:41641"];
    assert_eq!(bench.nat.candidates(), candidates(&all));
}

#[test]
fn the_round_trip_is_that_of_the_request_which_was_answered() {
    let mut bench = Bench::new(1);
    bench.run_to(150, false);
    bench.answer(1, "198.51.100.1:7000"); // the request of 100 ms
    assert_eq!(bench.nat.rtt(1), Some(ms(50)));
}

#[test]
fn enough_is_known_when_all_have_answered_or_as_long_again_as_the_first_took() {
    let mut bench = Bench::new(2);
    bench.run_to(40, false);
    while bench.nat.poll_change().is_some() {}
    bench.answer(1, "198.51.100.1:7000");
    bench.run_to(79, false);
    let changes: Vec<Change> = std::iter::from_fn(|| bench.nat.poll_change()).collect();
    assert!(!changes.contains(&Change::Settled));
    bench.run_to(80, false);
    assert_eq!(bench.nat.poll_change(), Some(Change::Settled));
}

#[test]
fn patience_ends_after_a_quarter_of_a_second() {
    let mut bench = Bench::new(1);
    while bench.nat.poll_change().is_some() {}
    bench.run_to(249, false);
    assert!(bench.nat.is_undecided());
    bench.run_to(250, false);
    assert_eq!(bench.nat.poll_change(), Some(Change::Impatient));
    assert!(!bench.nat.is_undecided());
}

#[test]
fn an_answer_to_nobody_or_from_elsewhere_is_ignored() {
    let mut bench = Bench::new(1);
    let id = bench.asked[0].2;
    let mut forged = Message { class: Class::Success, ..Message::binding_request(id) };
    forged.attributes.push(Attribute::XorMappedAddress("6.6.6.6:6".parse().expect("an address")));
    bench.act(|nat, env| nat.handle(server(9), &forged.to_vec(), env));
    forged.id = TransactionId([9; 12]);
    bench.act(|nat, env| nat.handle(server(1), &forged.to_vec(), env));
    assert_eq!(bench.nat.candidates(), candidates(&[LOCAL]));
}

#[test]
fn a_mapping_is_asked_anew_while_there_is_traffic_only() {
    let mut bench = Bench::new(1);
    bench.answer(1, "198.51.100.1:7000");
    bench.act(Nat::keep_fresh);
    bench.run_to(100_000, true);
    let rounds = bench.times(1).iter().filter(|at| **at > 0).count() / 5;
    assert!((3..=5).contains(&rounds), "{:?}", bench.times(1));
    let asked = bench.asked.len();
    bench.run_to(200_000, false);
    assert!(bench.asked.len() <= asked + 5);
}

#[test]
fn a_new_mapping_voids_the_old_one() {
    let mut bench = Bench::new(2);
    bench.answer(1, "198.51.100.1:7000");
    bench.answer(2, "198.51.100.1:7000");
    bench.run_to(5000, false);
    bench.act(|nat, env| nat.sample(None, env));
    bench.answer(1, "198.51.100.1:8000");
    assert_eq!(bench.nat.candidates(), candidates(&[LOCAL, "198.51.100.1:8000"]));
    bench.answer(2, "198.51.100.1:8000");
    assert_eq!(bench.nat.facts().mapping_varies, Some(false));
}

#[test]
fn a_fresh_sample_is_not_taken_again() {
    let mut bench = Bench::new(1);
    bench.answer(1, "198.51.100.1:7000");
    let asked = bench.asked.len();
    bench.now += ms(1500);
    bench.act(|nat, env| nat.sample(None, env));
    assert_eq!(bench.asked.len(), asked);
}

#[test]
fn later_rounds_ask_the_nearest_few_and_the_home_region() {
    let mut bench = Bench::new(6);
    for region in 1..=6 {
        bench.now += ms(10);
        bench.answer(region, "198.51.100.1:7000");
    }
    bench.run_to(5000, false);
    let before = bench.asked.len();
    bench.act(|nat, env| nat.sample(Some(6), env));
    let asked: Vec<SocketAddr> = bench.asked[before..].iter().map(|(_, to, _)| *to).collect();
    assert_eq!(asked, [1, 2, 3, 6].map(server));
}

#[test]
fn another_network_voids_what_was_learned() {
    let mut bench = Bench::new(2);
    bench.answer(1, "198.51.100.1:7000");
    bench.answer(2, "198.51.100.1:7001");
    let moved = bench.act(|nat, env| nat.set_local(&candidates(&["10.0.0.7:41641"]), env));
    assert!(moved);
    assert_eq!(bench.nat.facts().mapping_varies, None);
    assert_eq!(bench.nat.candidates(), candidates(&["10.0.0.7:41641"]));
}
