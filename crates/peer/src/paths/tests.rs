//! One behaviour of the paths each.

use super::*;
use crate::policy::{MAX_SEEN, PROBES_PER_CANDIDATE, SEEN_WINDOW};
use rand_chacha::rand_core::SeedableRng;

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

const FAR: &str = "198.51.100.2:2000";
const NEAR: &str = "192.168.1.9:41641";

struct Bench {
    t0: Instant,
    now: Instant,
    rng: ChaCha12Rng,
    policy: Policy,
    own: Vec<SocketAddr>,
    paths: Paths,
    log: Vec<(u128, Action)>,
}

impl Bench {
    fn new(candidates: &[&str]) -> Bench {
        let now = start();
        let policy = Policy::default();
        let mut bench = Bench {
            t0: now,
            now,
            rng: ChaCha12Rng::seed_from_u64(1),
            own: vec![address("192.168.1.2:41641")],
            paths: Paths::new(&policy),
            policy,
            log: Vec::new(),
        };
        let candidates: Vec<SocketAddr> = candidates.iter().map(|text| address(text)).collect();
        bench.act(|paths, cx| paths.set_map(&candidates, cx));
        bench
    }

    fn act(&mut self, act: impl FnOnce(&mut Paths, &mut Context<'_>)) {
        let Bench { now, rng, policy, own, paths, .. } = self;
        act(paths, &mut Context { now: *now, rng, policy, own, reach: Reach::default() });
        let since = (self.now - self.t0).as_millis();
        self.log.extend(std::iter::from_fn(|| self.paths.poll_action()).map(|action| (since, action)));
    }

    fn at(&mut self, since: u64, act: impl FnOnce(&mut Paths, &mut Context<'_>)) {
        self.run_to(since);
        self.act(act);
    }

    /// Lets deadlines pass up to `since` ms after the start.
    fn run_to(&mut self, since: u64) {
        let end = self.t0 + ms(since);
        while let Some((at, _)) = self.paths.poll_timeout(self.now, &self.policy).filter(|(at, _)| *at <= end)
        {
            assert!(at >= self.now || self.now == self.t0, "a deadline that stays in the past");
            self.now = self.now.max(at);
            let before = self.log.len();
            self.act(|paths, cx| paths.handle_timeout(cx));
            let next = self.paths.poll_timeout(self.now, &self.policy);
            assert!(
                self.log.len() > before || next.is_none_or(|(next, _)| next > at),
                "a deadline without end"
            );
        }
        self.now = self.now.max(end);
    }

    fn pings(&self, to: &str) -> Vec<u128> {
        let to = address(to);
        let of = |(at, action): &(u128, Action)| match action {
            Action::Ping { to: other, .. } if *other == to => Some(*at),
            _ => None,
        };
        self.log.iter().filter_map(of).collect()
    }

    fn calls(&self) -> Vec<u128> {
        self.log.iter().filter(|(_, action)| *action == Action::Call).map(|(at, _)| *at).collect()
    }

    fn has(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.log.iter().any(|(_, action)| wanted(action))
    }

    /// The last ping to an address is answered now.
    fn answer(&mut self, from: &str) {
        let from = address(from);
        let last = self.log.iter().rev().find_map(|(_, action)| match action {
            Action::Ping { to, tx, .. } if *to == from => Some(*tx),
            _ => None,
        });
        let tx = last.expect("a ping to answer");
        self.act(|paths, cx| paths.ponged(tx, from, cx));
    }

    fn route(&mut self) -> Route {
        let (now, policy) = (self.now, self.policy.clone());
        self.paths.route(true, 128, now, &policy)
    }

    /// A pair with a direct path of 50 ms round trip, validated 50 ms after the start.
    fn direct() -> Bench {
        let mut bench = Bench::new(&[FAR]);
        bench.act(Paths::want);
        bench.run_to(20);
        bench.now = bench.t0 + ms(30);
        bench.answer(FAR);
        bench
    }
}

#[test]
fn without_traffic_nothing_is_sent() {
    let mut bench = Bench::new(&[FAR]);
    bench.run_to(100_000);
    assert_eq!(bench.log, []);
}

#[test]
fn traffic_starts_checks_on_the_dense_schedule_and_a_call() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    bench.run_to(4500);
    assert_eq!(bench.pings(FAR), [0, 33, 66, 133, 266, 533, 1066, 2133, 4133]);
    assert_eq!(bench.pings(FAR).len(), PROBES_PER_CANDIDATE as usize);
}

#[test]
fn a_call_is_repeated_until_the_other_side_is_heard_from() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    bench.run_to(4500);
    assert_eq!(bench.calls(), [0, 300, 1000, 3000]);
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    bench.at(400, |paths, cx| paths.called(&[], cx));
    bench.run_to(4500);
    assert_eq!(bench.calls(), [0, 300]);
}

#[test]
fn a_fresh_sample_of_own_addresses_is_asked_for_when_a_round_begins() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    assert!(bench.has(|action| *action == Action::Sample));
}

#[test]
fn rounds_repeat_ever_more_slowly_while_traffic_goes_on() {
    let mut bench = Bench::new(&[FAR]);
    for second in 0..130 {
        bench.at(second * 1000, Paths::want);
    }
    let mut rounds = bench.pings(FAR);
    rounds.retain(|at| at % 1000 == 0);
    assert_eq!(rounds, [0, 5000, 15_000, 35_000, 75_000]);
}

#[test]
fn rounds_end_with_the_session() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    bench.run_to(45_000);
    let before = bench.log.len();
    bench.run_to(1_000_000);
    assert_eq!(bench.log.len(), before);
}

#[test]
fn an_answer_moves_the_tunnel_to_the_address() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    assert_eq!(bench.route(), Route::Relay);
    bench.now += ms(30);
    bench.answer(FAR);
    assert_eq!(bench.route(), Route::Direct(address(FAR)));
    assert!(bench.has(|action| *action == Action::Validated { address: address(FAR), rtt: ms(30) }));
    assert!(bench.has(|action| *action == Action::Moved { reason: "validated" }));
}

#[test]
fn an_answer_from_elsewhere_validates_the_address_that_was_asked() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    let Some(Action::Ping { tx, .. }) = bench
        .log
        .iter()
        .map(|(_, a)| *a)
        .find(|a| matches!(a, Action::Ping { to, .. } if *to == address(FAR)))
    else {
        panic!("no ping")
    };
    bench.act(|paths, cx| paths.ponged(tx, address("198.51.100.2:9"), cx));
    assert_eq!(bench.route(), Route::Direct(address(FAR)));
    assert_eq!(bench.pings("198.51.100.2:9"), [0], "perhaps it works both ways");
}

#[test]
fn ipv6_takes_over_unless_ipv4_is_much_nearer() {
    const FAR6: &str = "[3001::2]:41641";
    for (ms4, ms6, takes_over) in [(20, 25, true), (20, 26, false), (5, 20, false)] {
        let mut bench = Bench::new(&[FAR, FAR6]);
        bench.act(Paths::want);
        bench.now = bench.t0 + ms(ms4);
        bench.answer(FAR);
        bench.now = bench.t0 + ms(ms6);
        bench.answer(FAR6);
        let expected = if takes_over { FAR6 } else { FAR };
        assert_eq!(bench.route(), Route::Direct(address(expected)), "{ms4} ms against {ms6} ms");
    }
}

#[test]
fn an_answer_counts_once() {
    let mut bench = Bench::direct();
    let Some(Action::Ping { tx, .. }) =
        bench.log.iter().map(|(_, a)| *a).find(|a| matches!(a, Action::Ping { .. }))
    else {
        panic!("no ping")
    };
    bench.run_to(3500); // past the heartbeat, which goes unanswered
    bench.act(|paths, cx| paths.ponged(tx, address(FAR), cx));
    bench.run_to(6000);
    assert_eq!(bench.route(), Route::Relay);
}

#[test]
fn a_check_from_an_unknown_address_triggers_one_back_at_once() {
    let mut bench = Bench::new(&[]);
    bench.at(10, |paths, cx| paths.pinged(address(FAR), cx));
    assert_eq!(bench.pings(FAR), [10]);
    assert!(bench.has(|action| *action == Action::Seen(address(FAR))));
}

#[test]
fn triggered_checks_stay_within_the_budget_of_the_candidate() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    for n in 1..400 {
        bench.at(n * 10, |paths, cx| paths.pinged(address(FAR), cx));
    }
    assert_eq!(bench.pings(FAR).len(), PROBES_PER_CANDIDATE as usize);
}

#[test]
fn a_call_starts_a_round_and_is_answered_with_one() {
    let mut bench = Bench::new(&[]);
    bench.at(10, |paths, cx| paths.called(&[address(FAR)], cx));
    assert_eq!((bench.pings(FAR), bench.calls()), (vec![10], vec![10]));
    bench.at(20, |paths, cx| paths.called(&[address(FAR)], cx));
    assert_eq!(bench.calls(), [10]);
}

#[test]
fn calls_restart_the_schedule_once_a_round() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    for n in 1..80 {
        bench.at(n * 50, |paths, cx| paths.called(&[address(FAR)], cx));
    }
    assert!(bench.pings(FAR).len() <= 2 * PROBES_PER_CANDIDATE as usize);
}

#[test]
fn own_addresses_and_useless_ones_are_never_checked() {
    let mut bench =
        Bench::new(&["192.168.1.2:41641", "0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "192.0.2.1:0"]);
    bench.act(Paths::want);
    bench.run_to(5000);
    assert!(!bench.has(|action| matches!(action, Action::Ping { .. })));
}

#[test]
fn candidates_are_bounded_and_seen_ones_make_room_for_others() {
    let mut bench = Bench::new(&[]);
    for port in 1..100 {
        bench.now += ms(2000);
        bench.act(|paths, cx| paths.pinged(SocketAddr::new([198, 51, 100, 7].into(), port), cx));
    }
    assert_eq!(bench.paths.candidates.len(), MAX_CANDIDATES);
    bench.now += ms(2000);
    bench.act(|paths, cx| paths.called(&[address(FAR)], cx));
    assert_eq!(bench.pings(FAR), [200_000]);
    assert_eq!(bench.paths.candidates.len(), MAX_CANDIDATES);
}

#[test]
fn checks_that_come_from_ever_new_addresses_are_not_answered_with_ever_more() {
    let mut bench = Bench::new(&[]);
    for port in 1..10_000 {
        bench.act(|paths, cx| paths.pinged(SocketAddr::new([198, 51, 100, 7].into(), port), cx));
    }
    assert_eq!(bench.log.iter().filter(|(_, a)| matches!(a, Action::Ping { .. })).count(), MAX_SEEN);
    bench.now += SEEN_WINDOW;
    bench.act(|paths, cx| paths.pinged(address(FAR), cx));
    assert_eq!(bench.pings(FAR), [10_000]);
}

#[test]
fn who_talks_over_the_relay_is_met_without_a_call() {
    let mut bench = Bench::new(&[FAR]);
    bench.at(10, |paths, cx| paths.received(None, false, cx));
    assert_eq!((bench.pings(FAR), bench.calls()), (vec![10], vec![10]));
    bench.at(20, |paths, cx| paths.received(None, false, cx));
    assert_eq!(bench.calls(), [10]);
}

#[test]
fn the_same_network_wins_over_a_shorter_round_trip() {
    let mut bench = Bench::new(&[FAR, NEAR]);
    bench.act(Paths::want);
    bench.now += ms(10);
    bench.answer(FAR);
    bench.now += ms(10);
    bench.answer(NEAR);
    assert_eq!(bench.paths.selected(), Some((address(NEAR), Tier::Lan)));
}

#[test]
fn a_little_shorter_round_trip_is_no_reason_to_move() {
    const OTHER: &str = "203.0.113.9:9";
    let mut bench = Bench::new(&[FAR, OTHER]);
    bench.act(Paths::want);
    bench.at(20, |_, _| {});
    bench.answer(FAR);
    let rtt = bench.paths.best.as_ref().expect("a path").rtt.smoothed;
    bench.run_to(36);
    bench.now += ms(17);
    bench.answer(OTHER); // sent at 33, answered at 53: as long
    assert_eq!(rtt, ms(20));
    assert_eq!(bench.paths.selected(), Some((address(FAR), Tier::Direct)));
}

#[test]
fn a_dead_path_is_left_for_the_relay_and_searched_again() {
    let mut bench = Bench::direct();
    bench.act(Paths::want);
    bench.route();
    let since = (bench.now - bench.t0).as_millis();
    bench.run_to(470 + since as u64);
    assert_eq!(bench.route(), Route::Both(address(FAR)));
    bench.run_to(900 + since as u64);
    assert_eq!(bench.route(), Route::Relay);
    assert!(bench.calls().iter().any(|at| *at > since + 800), "{:?}", bench.calls());
}

#[test]
fn traffic_after_a_long_silence_goes_both_ways_until_the_path_answers() {
    let mut bench = Bench::direct();
    bench.run_to(20);
    for _ in 0..20 {
        // Answer heartbeats until the session is idle.
        let (at, _) =
            bench.paths.poll_timeout(bench.now, &bench.policy).unwrap_or((bench.now + ms(5000), ""));
        let since = (at - bench.t0).as_millis() as u64;
        bench.run_to(since);
        bench.answer(FAR);
    }
    bench.now += ms(60_000);
    let since = (bench.now - bench.t0).as_millis();
    bench.act(Paths::want);
    assert_eq!(bench.route(), Route::Both(address(FAR)));
    assert_eq!(bench.pings(FAR).last(), Some(&since));
    assert_eq!(bench.calls().last(), Some(&since));
    bench.now += ms(30);
    bench.answer(FAR);
    assert_eq!(bench.route(), Route::Direct(address(FAR)));
}

#[test]
fn a_tunnel_packet_from_a_new_address_makes_it_a_candidate_but_not_the_path() {
    let mut bench = Bench::new(&[]);
    bench.act(|paths, cx| paths.received(Some(address(FAR)), true, cx));
    assert_eq!(bench.pings(FAR), [0]);
    assert_eq!(bench.route(), Route::Relay);
}

#[test]
fn when_the_other_side_is_back_on_the_relay_so_are_copies_of_what_is_sent() {
    let mut bench = Bench::direct();
    bench.at(500, |paths, cx| paths.received(None, true, cx));
    // This one may have been under way since before the path was found.
    assert!(!bench.paths.best.as_ref().expect("a path").live.suspect());
    bench.at(1500, |paths, cx| paths.received(None, true, cx));
    assert_eq!(bench.route(), Route::Both(address(FAR)));
    assert_eq!(bench.pings(FAR).last(), Some(&1500));
    bench.now += ms(30);
    bench.answer(FAR);
    assert_eq!(bench.route(), Route::Direct(address(FAR)));
}

#[test]
fn a_second_copy_over_the_relay_says_as_much_as_a_first_one() {
    let mut bench = Bench::direct();
    bench.at(1500, |paths, cx| paths.received(Some(address(FAR)), true, cx));
    assert_eq!(bench.route(), Route::Direct(address(FAR)));
    bench.at(1510, Paths::doubled);
    assert_eq!(bench.route(), Route::Both(address(FAR)));
    assert_eq!(bench.pings(FAR).last(), Some(&1510));
}

#[test]
fn other_own_addresses_put_every_path_in_doubt() {
    let mut bench = Bench::direct();
    bench.at(1500, |paths, cx| paths.own_changed(true, cx));
    assert_eq!(bench.calls().last(), Some(&1500));
    assert_eq!(bench.pings(FAR).last(), Some(&1500));
}

#[test]
fn new_reflexive_addresses_are_called_within_the_round() {
    let mut bench = Bench::new(&[FAR]);
    bench.act(Paths::want);
    bench.at(50, |paths, cx| paths.own_changed(false, cx));
    assert_eq!(bench.calls(), [0, 50]);
}
