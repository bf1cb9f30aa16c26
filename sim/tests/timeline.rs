//! What happens in a scenario and when (`[[at]]`): the times, what is understood and refused, and what each entry does.

mod common;

use common::{play, scenario};
use punchbag::campaign::Run;
use punchbag::scenario::{self, Scenario};
use punchbag::world::Options;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use trace::{Event, Payload, Record, ServerState};

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

/// Two homes that go direct.
const HOMES: &str = r#"
title = "Two homes"
until = "30s"
[router.home-a]
region = "eu-west"
nat = { preset = "port-restricted-cone", ports = "random" }
[router.home-b]
region = "us-east"
[host.takkie]
behind = "home-a"
[host.flappie]
behind = "home-b"
[[traffic]]
kind = "ping"
from = "takkie"
to = "flappie"
at = "2s"
interval = "200ms"
"#;

/// Two homes that have nothing but a relay.
fn relayed() -> String {
    HOMES
        .replace("region = \"us-east\"", "region = \"us-east\"\nnat = \"symmetric\"")
        .replace("nat = { preset = \"port-restricted-cone\", ports = \"random\" }", "nat = \"symmetric\"")
}

fn with(text: &str, entries: &[&str]) -> String {
    let mut text = text.to_owned();
    for entry in entries {
        text = text + "[[at]]\n" + entry + "\n";
    }
    text
}

/// The log of a run.
struct Log(Vec<Record>);

impl Log {
    fn of(text: &str, entries: &[&str]) -> Log {
        Log::seeded(text, entries, 1)
    }

    #[track_caller]
    fn seeded(text: &str, entries: &[&str], seed: u64) -> Log {
        let Run { records, verdict, .. } = play(&scenario(&with(text, entries)), seed, Options::default());
        assert_eq!(verdict.violations, Vec::<String>::new());
        Log(records)
    }

    /// What `pick` makes of the events of a time.
    fn during<T>(&self, time: Range<u64>, mut pick: impl FnMut(&Event) -> Option<T>) -> Vec<T> {
        self.0.iter().filter(|record| time.contains(&record.t)).filter_map(|r| pick(&r.event)).collect()
    }

    /// When and how often something happened.
    fn times(&self, mut what: impl FnMut(&Event) -> bool) -> Vec<u64> {
        self.0.iter().filter(|record| what(&record.event)).map(|record| record.t).collect()
    }

    fn actions(&self) -> Vec<(u64, &str)> {
        let action = |record| match record {
            &Record { t, event: Event::Action { ref what } } => Some((t, what.as_str())),
            _ => None,
        };
        self.0.iter().filter_map(action).collect()
    }

    /// What a node put on its wire: from where, and what.
    fn sent(&self, node: &str, time: Range<u64>) -> Vec<(IpAddr, Payload)> {
        self.during(time, |event| match event {
            Event::Sent { node: from, src, payload, .. } if **from == *node => Some((src.ip(), *payload)),
            _ => None,
        })
    }

    /// How many packets were lost at a place for a reason.
    fn lost(&self, at: &str, why: &str, time: Range<u64>) -> usize {
        let lost = self.during(time, |event| match event {
            Event::Dropped { node, reason, .. } => (**node == *at && **reason == *why).then_some(()),
            _ => None,
        });
        lost.len()
    }

    /// How many packets of the tunnel reached programs on a host.
    fn received(&self, host: &str, time: Range<u64>) -> usize {
        let received = self.during(time, |event| match event {
            Event::AppReceived { host: at, .. } => (**at == *host).then_some(()),
            _ => None,
        });
        received.len()
    }

    /// When a host registered, and as whom.
    fn registered(&self, host: &str) -> Vec<(u64, IpAddr)> {
        let registered = |record: &Record| match &record.event {
            Event::Registered { host: who, tunnel } if **who == *host => Some((record.t, *tunnel)),
            _ => None,
        };
        self.0.iter().filter_map(registered).collect()
    }

    /// Round trips of the pings, in ms.
    fn round_trips(&self, time: Range<u64>) -> Vec<u64> {
        self.during(time, |event| match event {
            Event::Echo { rtt_ns, .. } => Some(rtt_ns / MS),
            _ => None,
        })
    }

    /// What became of a host's connection to a server in a time.
    fn states(&self, host: &str, time: Range<u64>) -> Vec<ServerState> {
        self.during(time, |event| match event {
            Event::Relay { host: who, state, .. } if **who == *host => Some(*state),
            _ => None,
        })
    }

    /// The addresses from which packets came to a host.
    fn senders(&self, host: &str, time: Range<u64>) -> BTreeSet<IpAddr> {
        let senders = self.during(time, |event| match event {
            Event::Delivered { node, src, payload: Payload::Tunnel | Payload::Disco, .. } => {
                (**node == *host).then_some(src.ip())
            }
            _ => None,
        });
        senders.into_iter().collect()
    }
}

// ---- when ----------------------------------------------------------------------------------------

/// The times at which the router forgot its bindings.
fn flushes(entries: &[&str], seed: u64) -> Vec<u64> {
    let text = HOMES.replace("30s", "12s");
    let log = Log::seeded(&text, entries, seed);
    log.actions().iter().filter(|(_, what)| what.contains("forgets")).map(|(t, _)| *t).collect()
}

const DRAWN: &str = "time = \"3s..9s\"\nflush = { router = \"home-a\" }";

#[test]
fn a_drawn_time_lies_in_its_range_and_the_seeds_spread_over_it() {
    let times: Vec<u64> = (1..=24).flat_map(|seed| flushes(&[DRAWN], seed)).collect();
    assert_eq!(times.len(), 24);
    assert!(times.iter().all(|t| (3 * S..=9 * S).contains(t)), "{times:?}");
    assert!(times.iter().collect::<BTreeSet<_>>().len() > 20, "{times:?}");
    for third in [3 * S..5 * S, 5 * S..7 * S, 7 * S..9 * S] {
        assert!(times.iter().any(|t| third.contains(t)), "{times:?}");
    }
}

#[test]
fn equal_seeds_draw_equal_times() {
    assert_eq!(flushes(&[DRAWN], 5), flushes(&[DRAWN], 5));
}

#[test]
fn another_entry_does_not_shift_a_drawn_time() {
    let other = "time = \"1s..2s\"\nevery = \"1s..2s\"\ntimes = 3\nflush = { router = \"home-b\" }";
    let of_a = |entries: &[&str]| {
        let log = Log::seeded(&HOMES.replace("30s", "12s"), entries, 3);
        let times = log.actions().into_iter().filter(|(_, what)| what.contains("home-a")).map(|(t, _)| t);
        times.collect::<Vec<_>>()
    };
    let alone = of_a(&[DRAWN]);
    assert_eq!(alone.len(), 1);
    assert_eq!(of_a(&[other, DRAWN]), alone);
    assert_eq!(of_a(&[DRAWN, other]), alone);
}

#[test]
fn two_entries_alike_draw_each_their_own_time() {
    let times = flushes(&[DRAWN, DRAWN], 1);
    assert_eq!(times.len(), 2);
    assert_ne!(times[0], times[1]);
}

#[test]
fn it_happens_as_often_as_said() {
    let entry = |more: &str| format!("time = \"1s\"\n{more}\nflush = {{ router = \"home-a\" }}");
    for (more, expected) in [
        ("", &[1][..]),
        ("every = \"2s\"\ntimes = 3", &[1, 3, 5]),
        ("every = \"2s\"\ntimes = 1", &[1]),
        ("every = \"2s\"\nuntil = \"7s\"", &[1, 3, 5, 7]),
        ("every = \"2s\"\nuntil = \"6999ms\"", &[1, 3, 5]),
        ("every = \"2s\"\nuntil = \"7s\"\ntimes = 2", &[1, 3]),
        // To the end of the run, and not beyond.
        ("every = \"4s\"", &[1, 5, 9]),
        ("every = \"4s\"\ntimes = 99", &[1, 5, 9]),
    ] {
        let expected: Vec<u64> = expected.iter().map(|s| s * S).collect();
        assert_eq!(flushes(&[&entry(more)], 1), expected, "{more}");
    }
}

#[test]
fn each_repeat_is_drawn_anew() {
    let times = flushes(&["time = \"1s\"\nevery = \"200ms..900ms\"\nflush = { router = \"home-a\" }"], 1);
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() >= 10, "{times:?}");
    assert!(gaps.iter().all(|gap| (200 * MS..=900 * MS).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().collect::<BTreeSet<_>>().len() > gaps.len() / 2, "{gaps:?}");
    assert!(times.last() > Some(&(11 * S)), "{times:?}");
}

#[test]
fn the_log_tells_which_time_it_is_and_from_what_it_was_drawn() {
    let repeated = "time = \"1s\"\nevery = \"2s\"\ntimes = 2\ndown = \"home-b\"";
    let log = Log::of(&HOMES.replace("30s", "12s"), &[repeated, DRAWN]);
    let actions: Vec<&str> = log.actions().into_iter().map(|(_, what)| what).collect();
    assert!(actions.contains(&"link of home-b: cut (time 2, at 3s)"), "{actions:?}");
    assert!(actions.iter().any(|what| what.ends_with(", drawn from 3s..9s)")), "{actions:?}");
}

#[test]
fn what_happens_at_one_time_happens_in_the_order_of_the_file() {
    let (down, up) = ("time = \"9s\"\ndown = \"home-b\"", "time = \"9s\"\nup = \"home-b\"");
    let ends_cut = |entries: &[&str]| Log::of(HOMES, entries).received("flappie", 10 * S..30 * S) == 0;
    assert!(ends_cut(&[up, down]));
    assert!(!ends_cut(&[down, up]));
}

// ---- what is understood, and refused -------------------------------------------------------------

/// What a host needs to move, and servers to name.
const MORE: &str = r#"
[router.cafe]
region = "eu-west"
nat = "cgn"
[router.carrier]
region = "eu-west"
nat = "cgn"
[relay.near]
region = "eu-west"
[stun.near-stun]
region = "eu-west"
[proxy.office]
region = "us-east"
[host.phone]
behind = "home-a"
interface.cell = { behind = "carrier", up = false }
"#;

const EVERY_KEY: [&str; 37] = [
    "time = \"1s..2s\"\nevery = \"1s..3s\"\ntimes = 4\nuntil = \"20s\"\nflush = { router = \"home-a\" }",
    "time = \"1s\"\nevery = \"5s\"\nflush = { router = \"home-a\" }",
    "time = \"1s\"\nreboot = { router = \"home-a\" }",
    "time = \"1s\"\nreboot = { router = \"home-a\", off = \"3s\" }",
    "time = \"1s\"\nrestart = { relay = \"near\", off = \"3s\" }",
    "time = \"1s\"\nrestart = { coordinator = true }",
    "time = \"1s\"\nrestart = { coordinator = true, off = \"3s\", state = \"lost\" }",
    "time = \"1s\"\nrestart = { host = \"takkie\" }",
    "time = \"1s\"\nrestart = { host = \"takkie\", off = \"0s\", state = \"lost\" }",
    "time = \"1s\"\nlink = { node = \"phone.cell\", preset = \"lte\", loss = \"1%\" }",
    "time = \"1s\"\ndown = \"phone.cell\"",
    "time = \"1s\"\nup = \"near-stun\"",
    "time = \"1s\"\nfirewall = { router = \"home-a\", rules = \"udp-blocked\" }",
    "time = \"1s\"\nfirewall = { router = \"home-a\", rules = \"none\" }",
    "time = \"1s\"\naccept-portal = { router = \"home-a\" }",
    "time = \"1s\"\nnat = { router = \"home-a\", to = \"symmetric\" }",
    "time = \"1s\"\nnat = { router = \"home-a\", to = { preset = \"full-cone\", hold-down = \"9s\" }, state = \"kept\" }",
    "time = \"1s\"\nreaddress = { router = \"home-a\" }",
    "time = \"1s\"\nreaddress = { router = \"home-b\", address = \"198.51.100.7\", off = \"3s\" }",
    "time = \"1s\"\nmove = { host = \"takkie\", to = \"cafe\" }",
    "time = \"1s\"\nmove = { host = \"takkie\", to = \"us-east\", dead = \"0s\", link = \"lte\" }",
    "time = \"1s\"\nmove = { host = \"phone\", interface = \"cell\", to = \"cafe\", address = \"192.168.1.77\" }",
    "time = \"1s\"\nmove = { host = \"flappie\", to = \"ap-northeast\" }",
    "time = \"1s\"\ninterface = { host = \"phone\", up = false }",
    "time = \"1s\"\ninterface = { host = \"phone\", name = \"cell\", up = true }",
    "time = \"1s\"\nsleep = { host = \"takkie\", for = \"2min\" }",
    "time = \"1s\"\nclock = { host = \"takkie\", by = \"+1h\" }",
    "time = \"1s\"\nclock = { host = \"takkie\", by = \"-90s\" }",
    "time = \"1s\"\nkill = \"office\"",
    "time = \"1s\"\ncrash = { node = \"coordinator\" }",
    "time = \"1s\"\ncrash = { node = \"takkie\", off = \"9s\" }",
    "time = \"1s\"\nblack-hole = { node = \"near\" }",
    "time = \"1s\"\nblack-hole = { node = \"near-stun\", for = \"9s\" }",
    "time = \"1s\"\nslow = { node = \"near\", delay = \"9ms\" }",
    "time = \"1s\"\nslow = { node = \"coordinator\", each = \"2ms\", delay = \"9ms\", queue = 7, for = \"5s\" }",
    "time = \"1s\"\ncut = { region = \"us-east\", for = \"5s\" }",
    "time = \"1s\"\ncut = { from = [\"us-east\", \"takkie\"], to = [\"near\", \"eu-west\"] }",
];

fn again(scenario: &Scenario) -> Scenario {
    let expanded = scenario::expanded(scenario);
    let mut again =
        scenario::parse("test", "test.toml", &expanded).unwrap_or_else(|error| panic!("{expanded}\n{error}"));
    again.hash.clone_from(&scenario.hash);
    again
}

#[test]
fn every_key_is_understood_and_expanded_reads_back_to_the_same() {
    let base = HOMES.to_owned() + MORE;
    for entry in EVERY_KEY {
        let scenario = scenario(&with(&base, &[entry]));
        assert_eq!(scenario.timeline.len(), 1, "{entry}");
        assert_eq!(again(&scenario), scenario, "{entry}");
    }
}

#[test]
fn each_kind_of_entry_has_words_of_its_own() {
    let base = HOMES.to_owned() + MORE;
    let words: BTreeSet<String> = EVERY_KEY
        .iter()
        .flat_map(|entry| scenario(&with(&base, &[entry])).timeline)
        .map(|timed| timed.words)
        .collect();
    // The first two differ in their times alone.
    assert_eq!(words.len(), EVERY_KEY.len() - 1, "{words:#?}");
}

#[test]
fn mistakes_are_refused_where_they_stand() {
    let base = HOMES.to_owned() + MORE;
    let mut wrong = Vec::new();
    let begins = base.lines().count() + 1;
    for (entry, line, expected) in [
        ("sleep = { host = \"takkie\", for = \"1s\" }", 1, "missing key `time`"),
        ("time = \"1s\"", 1, "an entry of the timeline is one thing that happens"),
        ("time = \"1s\"\nkill = \"takkie\"\ndown = \"home-a\"", 1, "one thing that happens"),
        ("time = \"1s\"\nkil = \"takkie\"", 3, "did you mean `kill`?"),
        ("time = 15\nkill = \"takkie\"", 2, "write a time in quotes"),
        ("time = \"9s..5s\"\nkill = \"takkie\"", 2, "`9s..5s` ends before it begins"),
        ("time = \"5s..\"\nkill = \"takkie\"", 2, "is not a duration"),
        ("time = \"5s..30s\"\nkill = \"takkie\"", 2, "the run is over by then"),
        ("time = \"1s\"\nevery = \"0s\"\nkill = \"takkie\"", 3, "no time passes between its repeats"),
        (
            "time = \"1s\"\nevery = \"0s\"\ntimes = 5\nkill = \"takkie\"",
            3,
            "no time passes between its repeats",
        ),
        ("time = \"1s\"\nevery = \"1ms\"\nkill = \"takkie\"", 3, "it happens too often"),
        ("time = \"1s\"\nevery = \"0s..1s\"\nkill = \"takkie\"", 3, "it happens too often"),
        ("time = \"1s\"\nevery = \"1s\"\ntimes = 0\nkill = \"takkie\"", 4, "it cannot happen 0 times"),
        ("time = \"1s\"\nevery = \"1s\"\ntimes = 10001\nkill = \"takkie\"", 4, "write 1 to 10000"),
        ("time = \"1s\"\ntimes = 3\nkill = \"takkie\"", 3, "it is not repeated"),
        ("time = \"1s\"\nuntil = \"9s\"\nkill = \"takkie\"", 3, "write every = \"10s\" too"),
        (
            "time = \"5s\"\nevery = \"1s\"\nuntil = \"4s\"\nkill = \"takkie\"",
            4,
            "its repeats end before it happens",
        ),
        ("time = \"1s\"\nkill = \"takie\"", 3, "did you mean `takkie`?"),
        ("time = \"1s\"\nkill = \"home-a\"", 3, "`home-a` is a router, not a host"),
        ("time = \"1s\"\nflush = { router = \"takkie\" }", 3, "`takkie` is a host, not a router"),
        ("time = \"1s\"\nsleep = { host = \"takkie\" }", 3, "missing key `for`"),
        ("time = \"1s\"\nsleep = { host = \"near\", for = \"1s\" }", 3, "`near` is a relay, not a host"),
        ("time = \"1s\"\nclock = { host = \"takkie\", by = \"1h\" }", 3, "`1h` does not say which way"),
        ("time = \"1s\"\ndown = \"phone.cel\"", 3, "there is no host or"),
        ("time = \"1s\"\nrestart = { off = \"1s\" }", 1, "restart is about one server or host"),
        (
            "time = \"1s\"\nrestart = { relay = \"near\", host = \"takkie\" }",
            1,
            "restart is about one server or host",
        ),
        ("time = \"1s\"\nrestart = { relay = \"near\", state = \"lost\" }", 3, "a relay keeps nothing"),
        ("time = \"1s\"\nnat = { router = \"home-a\", to = \"none\" }", 1, "`home-a` cannot change that"),
        ("time = \"1s\"\nnat = { router = \"home-a\", to = \"symetric\" }", 3, "did you mean `symmetric`?"),
        ("time = \"1s\"\nmove = { host = \"takkie\", to = \"caffe\" }", 3, "did you mean `cafe`?"),
        (
            "time = \"1s\"\nmove = { host = \"takkie\", to = \"near\" }",
            3,
            "`near` is no router and no region",
        ),
        (
            "time = \"1s\"\nmove = { host = \"phone\", interface = \"cel\", to = \"cafe\" }",
            3,
            "did you mean `cell`?",
        ),
        (
            "time = \"1s\"\ninterface = { host = \"takkie\", name = \"cell\", up = false }",
            3,
            "has no interface `cell`",
        ),
        (
            "time = \"1s\"\nmove = { host = \"takkie\", to = \"home-a\", link = \"geo\" }",
            3,
            "`takkie` has been there with others",
        ),
        ("time = \"1s\"\nadd-rule = { router = \"home-a\" }", 1, "no rule is given"),
        (
            "time = \"1s\"\nadd-rule = { router = \"home-a\", outbound = [\"udp\"] }",
            1,
            "`home-a` lets everything out by then",
        ),
        (
            "time = \"1s\"\nremove-rule = { router = \"home-a\", block = [\"udp\"] }",
            1,
            "`home-a` has no rule \"udp\" by then",
        ),
        ("time = \"1s\"\nadd-rule = { router = \"home-a\", block = [\"udp to neer\"] }", 3, "`neer`"),
        ("time = \"1s\"\nslow = { node = \"near\" }", 1, "`near` is not slow"),
        ("time = \"1s\"\ncut = { for = \"1s\" }", 1, "a cut is around one region, or between two groups"),
        ("time = \"1s\"\ncut = { from = [\"near\"], region = \"us-east\" }", 1, "a cut is around one region"),
        (
            "time = \"1s\"\ncut = { from = [\"near\"], to = [\"near\"] }",
            1,
            "both sides of the cut name the same",
        ),
        ("time = \"1s\"\ncut = { region = \"us-west-1\" }", 3, "there is no"),
    ] {
        let error = scenario::parse("test", "test.toml", &with(&base, &[entry])).expect_err(entry);
        let text = error.to_string();
        let lines: Vec<usize> = error.problems.iter().map(|problem| problem.line).collect();
        if !text.contains(expected) || lines != [begins + line - 1] {
            wrong.push(format!("{entry} gives:\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// ---- what each entry does ------------------------------------------------------------------------

const MOVE: &str = "time = \"10s\"\nmove = { host = \"takkie\", to = \"cafe\", dead = \"3s\" }";
const CAFE: &str = "\n[router.cafe]\nregion = \"eu-west\"\nlan = \"10.9.8.0/24\"\nnat = \"cgn\"\n";

#[test]
fn a_host_that_moves_is_nowhere_for_the_dead_time() {
    let log = Log::of(&(HOMES.to_owned() + CAFE), &[MOVE]);
    assert!(log.received("takkie", 9 * S..10 * S) > 0);
    assert_eq!(log.sent("takkie", 10 * S..13 * S), []);
    assert_eq!(log.received("takkie", 10 * S..13 * S), 0);
    assert!(log.lost("takkie", "no-interface", 10 * S..13 * S) > 0, "what comes for it is lost");
}

#[test]
fn a_host_that_has_moved_has_another_address_and_connections_of_its_own() {
    let log = Log::of(&(HOMES.to_owned() + CAFE), &[MOVE]);
    let there: IpAddr = "10.9.8.2".parse().expect("an address");
    let sent = log.sent("takkie", 13 * S..30 * S);
    assert!(!sent.is_empty() && sent.iter().all(|(src, _)| *src == there), "nothing of the old address");
    let states = log.states("takkie", 10 * S..30 * S);
    assert_eq!(states.first(), Some(&ServerState::Closed), "{states:?}");
    assert_eq!(states.last(), Some(&ServerState::Connected), "{states:?}");
    assert!(log.received("takkie", 20 * S..30 * S) > 40);
    // The other side has learned of it.
    let (before, after) = (log.senders("flappie", 5 * S..10 * S), log.senders("flappie", 20 * S..30 * S));
    assert!(!before.is_empty() && !after.is_empty() && before.is_disjoint(&after), "{before:?} {after:?}");
}

#[test]
fn a_router_readdressed_again_and_again_goes_to_and_fro() {
    let entry = "time = \"10s\"\nevery = \"8s\"\ntimes = 2\nreaddress = { router = \"home-a\" }";
    let log = Log::of(HOMES, &[entry]);
    let from = |from, to| log.senders("flappie", from * S..to * S);
    let (first, second, third) = (from(5, 10), from(13, 18), from(22, 30));
    assert_eq!((first.len(), second.len()), (1, 1), "{first:?} {second:?}");
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
    assert_eq!(third, first);
}

#[test]
fn a_router_gets_the_address_that_is_said_and_is_off_as_long_as_said() {
    let entry =
        "time = \"10s\"\nreaddress = { router = \"home-a\", address = \"198.51.100.7\", off = \"2s\" }";
    let log = Log::of(HOMES, &[entry]);
    assert_eq!(log.received("takkie", 10_100 * MS..12 * S), 0);
    let said: IpAddr = "198.51.100.7".parse().expect("an address");
    assert_eq!(log.senders("flappie", 20 * S..30 * S), BTreeSet::from([said]));
}

#[test]
fn a_nat_that_is_replaced_keeps_its_bindings_or_loses_them() {
    let made = |state: &str| {
        let to = "{ preset = \"port-restricted-cone\", ports = \"random\" }";
        let entry = format!("time = \"10s\"\nnat = {{ router = \"home-a\", to = {to}{state} }}");
        let log = Log::of(HOMES, &[&entry]);
        log.during(10 * S..12 * S, |event| match event {
            Event::Binding { node, .. } if **node == *"home-a" => Some(()),
            _ => None,
        })
    };
    assert_eq!(made(", state = \"kept\"").len(), 0);
    assert_ne!(made(", state = \"lost\"").len(), 0);
    assert_ne!(made("").len(), 0, "lost is the default");
}

#[test]
fn an_interface_that_goes_away_leaves_the_traffic_to_the_other_and_gets_it_back() {
    let text = HOMES
        .replace("behind = \"home-a\"", "behind = \"home-a\"\ninterface.cell = { behind = \"cafe\" }")
        + CAFE;
    let log = Log::of(
        &text,
        &[
            "time = \"10s\"\ninterface = { host = \"takkie\", up = false }",
            "time = \"18s\"\ninterface = { host = \"takkie\", up = true }",
        ],
    );
    let cell: IpAddr = "10.9.8.2".parse().expect("an address");
    let tunnelled = |from, to| {
        let sent = log.sent("takkie", from * S..to * S).into_iter();
        sent.filter(|(_, payload)| *payload == Payload::Tunnel).map(|(src, _)| src).collect::<BTreeSet<_>>()
    };
    assert!(!tunnelled(5, 10).contains(&cell));
    assert!(log.sent("takkie", 10 * S..18 * S).iter().all(|(src, _)| *src == cell));
    assert_eq!(tunnelled(13, 18), BTreeSet::from([cell]));
    assert!(log.received("takkie", 13 * S..18 * S) > 20);
    assert!(log.sent("takkie", 18 * S..30 * S).iter().any(|(src, _)| *src != cell));
    assert!(log.received("takkie", 22 * S..30 * S) > 30);
}

#[test]
fn a_sleeping_host_handles_nothing_and_its_timers_are_late() {
    let log = Log::of(HOMES, &["time = \"10s\"\nsleep = { host = \"takkie\", for = \"5s\" }"]);
    let handled = log.during(10 * S + 1..15 * S, |event| match event {
        Event::Timer { node: host, .. }
        | Event::Sent { node: host, .. }
        | Event::Delivered { node: host, .. }
        | Event::AppSent { host, .. } => (**host == *"takkie").then(|| event.clone()),
        _ => None,
    });
    assert_eq!(handled, []);
    assert!(log.lost("takkie", "asleep", 10 * S..15 * S) > 0);
    let late = log.times(|event| matches!(event, Event::Timer { node, .. } if **node == *"takkie"));
    assert!(late.contains(&(15 * S)), "what was due is done on waking");
    assert!(log.received("takkie", 20 * S..30 * S) > 40);
}

#[test]
fn a_peer_restarted_in_its_sleep_is_silent_until_the_host_wakes() {
    let entries = [
        "time = \"10s\"\nsleep = { host = \"takkie\", for = \"5s\" }",
        "time = \"11s\"\nrestart = { host = \"takkie\", off = \"1s\" }",
    ];
    let log = Log::of(HOMES, &entries);
    let registered = log.registered("takkie");
    assert_eq!(registered.len(), 2, "{registered:?}");
    assert!(registered[1].0 >= 15 * S, "{registered:?}");
    // Not even that its connections are closed leaves it.
    let takkie = log.sent("takkie", 0..10 * S)[0].0;
    let outbound = log.during(10_200 * MS..15 * S, |event| match event {
        Event::Translated { node, dst, .. } if **node == *"home-a" && dst.ip() != takkie => Some(*dst),
        _ => None,
    });
    assert_eq!(outbound, []);
}

#[test]
fn a_peer_whose_clock_was_set_back_is_let_in_again() {
    // The silence is so long that the other side does not speak first.
    let text =
        HOMES.replace("30s", "130s").replace("interval = \"200ms\"", "interval = \"200ms\"\nstop = \"8s\"")
            + "[[traffic]]\nkind = \"ping\"\nfrom = \"takkie\"\nto = \"flappie\"\nat = \"120s\"\n";
    let entries = [
        "time = \"9s\"\nclock = { host = \"takkie\", by = \"-1h\" }",
        "time = \"100s\"\nrestart = { host = \"takkie\" }",
    ];
    let log = Log::of(&text, &entries);
    let session = |host: &str, initiator: bool| {
        log.during(120 * S..122 * S, |event| match event {
            Event::Session { host: who, initiator: first, .. } => {
                (**who == *host && *first == initiator).then_some(())
            }
            _ => None,
        })
    };
    assert_ne!(session("takkie", true).len(), 0);
    assert_ne!(session("flappie", false).len(), 0, "the handshake is no replay");
}

#[test]
fn a_restarted_peer_is_the_same_or_another() {
    let registered = |state: &str| {
        let entry =
            format!("time = \"10s\"\nrestart = {{ host = \"takkie\", off = \"3s\", state = \"{state}\" }}");
        let registered = Log::of(HOMES, &[&entry]).registered("takkie");
        assert_eq!(registered.len(), 2, "{registered:?}");
        assert!((13 * S..15 * S).contains(&registered[1].0), "{registered:?}");
        registered[0].1 == registered[1].1
    };
    assert!(registered("kept"));
    assert!(!registered("lost"));
}

#[test]
fn a_peer_whose_owner_asks_for_it_has_another_key_at_once_and_the_traffic_goes_on() {
    let log = Log::of(HOMES, &["time = \"10s\"\nrotate = \"takkie\""]);
    let rotated =
        |host: &str| log.times(|event| matches!(event, Event::KeyRotated { host: who } if **who == *host));
    let times = rotated("takkie");
    assert!(matches!(*times, [at] if (10 * S..12 * S).contains(&at)), "{times:?}");
    assert!(rotated("flappie").is_empty());
    // Long after the sessions under the old key were replaced (WireGuard renews them each 120 s; the new key does so at once).
    assert_eq!(log.round_trips(12 * S..29 * S).len(), 17 * 5);
}

#[test]
fn a_restart_during_another_ends_with_the_later_one() {
    let entries = [
        "time = \"10s\"\nrestart = { host = \"takkie\", off = \"5s\" }",
        "time = \"14s\"\nrestart = { host = \"takkie\", off = \"6s\" }",
    ];
    let registered = Log::of(HOMES, &entries).registered("takkie");
    assert_eq!(registered.len(), 2, "{registered:?}");
    assert!(registered[1].0 >= 20 * S, "{registered:?}");
}

#[test]
fn a_router_that_reboots_while_it_is_off_is_off_for_longer() {
    let log = Log::of(
        HOMES,
        &["time = \"8s\"\nevery = \"4s\"\ntimes = 2\nreboot = { router = \"home-a\", off = \"5s\" }"],
    );
    assert_eq!(log.received("takkie", 8_100 * MS..17 * S), 0);
    assert!(log.received("takkie", 20 * S..30 * S) > 30);
    let back: Vec<u64> =
        log.actions().iter().filter(|(_, what)| *what == "router home-a: back").map(|(t, _)| *t).collect();
    assert_eq!(back, [17 * S]);
}

#[test]
fn nothing_more_comes_from_a_killed_peer() {
    let entries = ["time = \"10s\"\nkill = \"takkie\"", "time = \"15s\"\nrestart = { host = \"takkie\" }"];
    let log = Log::of(HOMES, &entries);
    // Its kernel goes on: it closes the connections, and says that nobody listens.
    let sent = log.sent("takkie", 10 * S + 1..30 * S);
    assert!(sent.iter().all(|(_, payload)| matches!(payload, Payload::Tcp | Payload::Icmp)), "{sent:?}");
    assert_eq!(log.registered("takkie").len(), 1);
    assert_eq!(log.received("flappie", 11 * S..30 * S), 0);
    let presence = log.during(0..30 * S, |event| match event {
        Event::Presence { present, .. } => Some(*present),
        _ => None,
    });
    assert_eq!(presence, [false]);
}

#[test]
fn the_clients_of_a_killed_relay_hear_of_it_and_those_of_one_without_power_do_not() {
    let states = |entry: &str| {
        let text = HOMES.to_owned() + "[relay.near]\nregion = \"eu-west\"\n";
        Log::of(&text, &[entry]).states("takkie", 10 * S..11 * S)
    };
    assert_eq!(states("time = \"10s\"\nkill = \"near\"").first(), Some(&ServerState::Closed));
    assert_eq!(states("time = \"10s\"\ncrash = { node = \"near\" }"), []);
}

#[test]
fn a_host_without_power_is_silent_and_comes_back_as_itself() {
    let log = Log::of(HOMES, &["time = \"10s\"\ncrash = { node = \"takkie\", off = \"5s\" }"]);
    assert_eq!(log.sent("takkie", 10 * S..15 * S), []);
    assert!(log.lost("takkie", "no-power", 10 * S..15 * S) > 0);
    let registered = log.registered("takkie");
    assert_eq!(registered.len(), 2, "{registered:?}");
    assert!((15 * S..17 * S).contains(&registered[1].0), "{registered:?}");
    assert_eq!(registered[0].1, registered[1].1);
    assert!(log.received("takkie", 20 * S..30 * S) > 30);
}

#[test]
fn a_relay_without_power_for_good_never_comes_back() {
    let log = Log::of(&relayed(), &["time = \"10s\"\ncrash = { node = \"relay\" }"]);
    assert!(log.received("takkie", 8 * S..10 * S) > 0);
    assert_eq!(log.sent("relay", 10 * S..30 * S), []);
    assert_eq!(log.received("takkie", 11 * S..30 * S), 0);
}

#[test]
fn connections_outlive_a_short_black_hole() {
    let log = Log::of(&relayed(), &["time = \"10s\"\nblack-hole = { node = \"relay\", for = \"500ms\" }"]);
    assert_eq!(log.received("takkie", 10_150 * MS..10_500 * MS), 0);
    assert!(log.lost("relay", "black-hole", 10 * S..10_500 * MS) > 0);
    assert_eq!(log.states("takkie", 10 * S..30 * S), [], "the connection is the same");
    assert!(log.received("takkie", 20 * S..30 * S) > 40);
    assert!(log.actions().contains(&(10_500 * MS, "relay: packets pass again")));
}

#[test]
fn each_packet_waits_at_a_slow_relay_and_no_longer_than_said() {
    let log = Log::of(
        &relayed(),
        &["time = \"10s\"\nslow = { node = \"relay\", delay = \"150ms\", for = \"8s\" }"],
    );
    let typical = |from, to| {
        let mut trips = log.round_trips(from * S..to * S);
        trips.sort_unstable();
        trips[trips.len() / 2]
    };
    let (before, slow, after) = (typical(7, 10), typical(12, 18), typical(25, 30));
    // Request and answer pass it once each.
    assert!((before + 300..before + 310).contains(&slow), "{before} ms, then {slow} ms");
    assert!(after.abs_diff(before) <= 2, "{before} ms, at last {after} ms");
}

#[test]
fn an_overloaded_relay_drops_what_does_not_fit_in_its_queue() {
    let slow = |queue: u64| {
        let entry =
            format!("time = \"10s\"\nslow = {{ node = \"relay\", each = \"100ms\", queue = {queue} }}");
        Log::of(&relayed(), &[&entry]).lost("relay", "overloaded", 10 * S..30 * S)
    };
    assert_ne!(slow(2), 0);
    assert_eq!(slow(10_000), 0);
}

#[test]
fn what_waited_at_a_slow_relay_is_lost_with_its_power() {
    let entries = [
        "time = \"10s\"\nslow = { node = \"relay\", delay = \"500ms\" }",
        "time = \"12s\"\ncrash = { node = \"relay\" }",
    ];
    let log = Log::of(&relayed(), &entries);
    assert!(!log.sent("relay", 11 * S..12 * S).is_empty());
    assert_eq!(log.sent("relay", 12 * S..30 * S), []);
}

const LATE: &str = "\n[host.late]\nregion = \"us-east\"\nstart = \"10s\"\n";

#[test]
fn who_starts_while_the_coordination_server_is_away_is_in_once_it_is_back() {
    let text = HOMES.to_owned() + LATE;
    let prompt = Log::of(&text, &[]).registered("late")[0].0;
    assert!(prompt < 11 * S);
    for (entry, back) in [
        ("crash = { node = \"coordinator\", off = \"6s\" }", 15),
        ("black-hole = { node = \"coordinator\", for = \"6s\" }", 15),
        ("restart = { coordinator = true, off = \"6s\" }", 15),
    ] {
        let log = Log::of(&text, &[&format!("time = \"9s\"\n{entry}")]);
        let registered = log.registered("late");
        assert!(registered.first().is_some_and(|(t, _)| *t >= back * S), "{entry}: {registered:?}");
        // Who is connected to each other already goes on.
        assert!(log.received("takkie", 9 * S..15 * S) >= 29, "{entry}");
    }
    let entry = "time = \"9s\"\nslow = { node = \"coordinator\", delay = \"200ms\" }";
    let slowly = Log::of(&text, &[entry]).registered("late")[0].0;
    assert!(slowly >= prompt + 400 * MS, "{prompt} ns, {slowly} ns");
}

/// Two homes and a host in a third region.
fn three_regions() -> String {
    HOMES.to_owned()
        + "[host.third]\nregion = \"ca-east\"\n[[traffic]]\nkind = \"ping\"\nfrom = \"third\"\nto = \"flappie\"\n\
           at = \"2s\"\ninterval = \"200ms\"\n[relay.middle]\nregion = \"ca-east\"\n"
}

#[test]
fn a_region_that_is_cut_off_reaches_nobody_and_is_back_when_said() {
    let log = Log::of(&three_regions(), &["time = \"10s\"\ncut = { region = \"us-east\", for = \"5s\" }"]);
    assert_eq!(log.received("flappie", 10_200 * MS..15 * S), 0);
    assert!(log.lost("internet", "cut-off", 10 * S..15 * S) > 0);
    assert_eq!(log.lost("internet", "cut-off", 15 * S..30 * S), 0);
    assert!(log.actions().iter().any(|(t, what)| *t == 15 * S && what.starts_with("over: internet")));
    assert!(log.received("flappie", 22 * S..30 * S) > 60);
}

#[test]
fn two_regions_cut_from_each_other_still_reach_the_third() {
    let cut = "time = \"10s\"\ncut = { from = [\"us-east\"], to = [\"eu-west\"], for = \"10s\" }";
    let log = Log::of(&three_regions(), &[cut]);
    let arrived = |flow: &str, time: Range<u64>| {
        log.during(time, |event| match event {
            Event::AppReceived { flow: name, host, path, .. } => {
                (**name == *flow && **host == *"flappie").then_some(*path)
            }
            _ => None,
        })
    };
    assert!(arrived("ping third flappie", 10 * S..20 * S).len() >= 49);
    let between = arrived("ping takkie flappie", 10_200 * MS..20 * S);
    assert!(between.len() > 10 && between.iter().all(|path| *path == trace::Path::Relay), "{between:?}");
    assert_eq!(arrived("ping takkie flappie", 25 * S..30 * S).last(), Some(&trace::Path::Direct));
}

#[test]
fn a_cable_that_is_cut_carries_nothing_until_it_is_mended() {
    let log = Log::of(HOMES, &["time = \"10s\"\ndown = \"takkie\"", "time = \"13s\"\nup = \"takkie\""]);
    assert_eq!(log.received("takkie", 10_100 * MS..13 * S), 0);
    assert!(log.received("takkie", 20 * S..30 * S) > 40);
}
