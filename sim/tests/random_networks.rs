//! Networks nobody thought of: up to three boxes deep, hosts anywhere in them. No invariant is violated in any, and each
//! pair ends on the path that the route oracle is sure of. Nor is one where things happen meanwhile: boxes reboot, forget and
//! get other addresses, hosts move, sleep and are restarted, servers go away and come back.
//!
//! A failure prints its scenario as a file for `scenarios/found/`. Without `PROPTEST_RNG_SEED` the same networks are tried
//! each time; `PROPTEST_CASES=5000 PROPTEST_RNG_SEED=7` goes hunting.

mod common;

use common::{play, scenario};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use punchbag::judge::oracle;
use punchbag::world::Options;
use std::fmt::Write;

const REGIONS: [&str; 3] = ["eu-west", "eu-central", "us-east"];
const MAPPINGS: [&str; 3] = ["endpoint-independent", "address-dependent", "address-and-port-dependent"];
const PORTS: [&str; 3] = ["preserving", "sequential", "random"];
const HAIRPINS: [&str; 3] = ["none", "external-source", "internal-source"];
/// What else a NAT may be. Most are as most are.
const EXTRAS: [&str; 20] = [
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    ", collision = \"overload\"",
    ", collision = \"random\", parity = true",
    ", tcp-mapping = \"address-and-port-dependent\", tcp-filtering = \"address-and-port-dependent\"",
    ", step = 3, other-traffic = \"40/s\"",
    ", block = 512, hold-down = \"120s\"",
    ", pooling = \"arbitrary\"",
    ", pooling = \"one-to-one\"",
    ", unsolicited = \"icmp\"",
    ", unsolicited = \"rst\", syn-hold = \"6s\"",
    ", host-quota = 5, exhausted = \"icmp\"",
    ", capacity = 6, when-full = \"evict-oldest\"",
    ", fragments = \"drop\"",
];
const FIREWALLS: [&str; 3] = ["stateful", "udp-blocked", "web-only"];
/// Boxes between a host and the internet at most.
const MAX_DEPTH: usize = 3;

/// Where something is attached: a number that chooses among the boxes there are and the regions.
type Place = prop::sample::Index;

#[derive(Debug, Clone)]
struct Router {
    place: Place,
    /// Mapping, filtering, ports, hairpin, and what else; `None` = it only routes.
    nat: Option<(usize, usize, usize, usize, usize)>,
    /// Addresses outside.
    addresses: u8,
    firewall: Option<usize>,
}

#[derive(Debug, Clone)]
struct Network {
    routers: Vec<Router>,
    hosts: Vec<Place>,
}

/// What may happen, to a box and a host of which numbers, how many seconds it lasts.
const HAPPENINGS: [fn(usize, usize, u64) -> String; 13] = [
    |router, _, _| format!("flush = {{ router = \"box-{router}\" }}"),
    |router, _, s| format!("reboot = {{ router = \"box-{router}\", off = \"{s}s\" }}"),
    |router, host, s| format!("move = {{ host = \"host-{host}\", to = \"box-{router}\", dead = \"{s}s\" }}"),
    |_, host, s| format!("sleep = {{ host = \"host-{host}\", for = \"{s}s\" }}"),
    |_, host, s| format!("restart = {{ host = \"host-{host}\", off = \"{s}s\" }}"),
    |_, host, s| format!("restart = {{ host = \"host-{host}\", off = \"{s}s\", state = \"lost\" }}"),
    |_, host, s| format!("crash = {{ node = \"host-{host}\", off = \"{s}s\" }}"),
    |_, _, s| format!("restart = {{ relay = \"relay\", off = \"{s}s\" }}"),
    |_, _, s| format!("restart = {{ coordinator = true, off = \"{s}s\" }}"),
    |_, _, s| format!("restart = {{ coordinator = true, off = \"{s}s\", state = \"lost\" }}"),
    |_, _, s| format!("black-hole = {{ node = \"relay\", for = \"{s}s\" }}"),
    |router, _, s| format!("cut = {{ from = [\"box-{router}\"], to = [\"relay\"], for = \"{s}s\" }}"),
    |_, host, s| format!("clock = {{ host = \"host-{host}\", by = \"-{s}min\" }}"),
];

/// When something happens, in milliseconds after the start; what; to which box, to which host; how many seconds it lasts.
type Happening = (u64, usize, Place, Place, u64);

/// The last of it is over long before the end, so that a run shows what came of it.
fn timeline() -> impl Strategy<Value = Vec<Happening>> {
    let happening = (1_000..30_000_u64, 0..HAPPENINGS.len(), any::<Place>(), any::<Place>(), 1..=6_u64);
    prop::collection::vec(happening, 1..=4)
}

fn network() -> impl Strategy<Value = Network> {
    let nat = (0..MAPPINGS.len(), 0..MAPPINGS.len(), 0..PORTS.len(), 0..HAIRPINS.len(), 0..EXTRAS.len());
    let nat = prop::option::weighted(0.85, nat);
    let firewall = prop::option::weighted(0.25, 0..FIREWALLS.len());
    let router = (any::<Place>(), nat, 1..=3_u8, firewall)
        .prop_map(|(place, nat, addresses, firewall)| Router { place, nat, addresses, firewall });
    let routers = prop::collection::vec(router, 1..=5);
    (routers, prop::collection::vec(any::<Place>(), 2..=3))
        .prop_map(|(routers, hosts)| Network { routers, hosts })
}

impl Network {
    /// The network as a scenario file, where this happens.
    fn toml(&self, timeline: &[Happening]) -> String {
        let until = if timeline.is_empty() { 20 } else { 60 };
        let mut text = format!(
            "title = \"A random network\"\nwhy = \"Found by tests/random_networks.rs.\"\nuntil = \"{until}s\"\n"
        );
        let mut depths: Vec<usize> = Vec::new();
        // Behind one of the boxes so far that still takes something behind it, or in one of the regions.
        let attach = |text: &mut String, place: &Place, depths: &[usize], limit: usize| {
            let open: Vec<usize> = (0..depths.len()).filter(|i| depths[*i] < limit).collect();
            // Boxes are likelier than regions, or few chains would be long.
            let choice = place.index(2 * open.len() + REGIONS.len());
            match open.get(choice / 2) {
                Some(router) => {
                    let _ = writeln!(text, "behind = \"box-{router}\"");
                    depths[*router] + 1
                }
                None => {
                    let _ = writeln!(text, "region = \"{}\"", REGIONS[choice - 2 * open.len()]);
                    1
                }
            }
        };
        for (i, router) in self.routers.iter().enumerate() {
            let _ = writeln!(text, "\n[router.box-{i}]");
            let depth = attach(&mut text, &router.place, &depths, MAX_DEPTH);
            depths.push(depth);
            let _ = match router.nat {
                None => writeln!(text, "nat = \"none\""),
                Some((mapping, filtering, ports, hairpin, extra)) => writeln!(
                    text,
                    "addresses = {}\nnat = {{ mapping = \"{}\", filtering = \"{}\", ports = \"{}\", hairpin = \"{}\"{} }}",
                    router.addresses,
                    MAPPINGS[mapping],
                    MAPPINGS[filtering],
                    PORTS[ports],
                    HAIRPINS[hairpin],
                    EXTRAS[extra]
                ),
            };
            if let Some(firewall) = router.firewall {
                let _ = writeln!(text, "firewall = \"{}\"", FIREWALLS[firewall]);
            }
        }
        for (i, place) in self.hosts.iter().enumerate() {
            let _ = writeln!(text, "\n[host.host-{i}]");
            attach(&mut text, place, &depths, MAX_DEPTH + 1);
        }
        for b in 1..self.hosts.len() {
            for a in 0..b {
                let _ = writeln!(
                    text,
                    "\n[[traffic]]\nkind = \"ping\"\nfrom = \"host-{a}\"\nto = \"host-{b}\"\nat = \"2s\"\ninterval = \"250ms\""
                );
            }
        }
        for (at, what, router, host, seconds) in timeline {
            let what =
                HAPPENINGS[*what](router.index(self.routers.len()), host.index(self.hosts.len()), *seconds);
            let _ = writeln!(text, "\n[[at]]\ntime = \"{at}ms\"\n{what}");
        }
        text
    }
}

/// What is wrong with a run of a network.
fn wrong(text: &str) -> Vec<String> {
    let scenario = scenario(text);
    let run = play(&scenario, 1, Options { timers: false, ..Options::default() });
    let mut wrong = run.verdict.violations.clone();
    if !scenario.timeline.is_empty() {
        // The oracle speaks of the places and boxes at the start.
        return wrong;
    }
    for pair in &run.metrics.pairs {
        let route = oracle::route(&scenario, &pair.a, &pair.b);
        if let Some(expected) = route.and_then(oracle::Route::path)
            && pair.path() != expected
        {
            wrong.push(format!(
                "{} and {} ended on {:?} instead of {expected:?}",
                pair.a,
                pair.b,
                pair.path()
            ));
        }
    }
    wrong
}

/// Tries networks with what happens in them, so many unless the environment says how many.
fn holds(cases: u32, networks: &impl Strategy<Value = (Network, Vec<Happening>)>) {
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 2000,
        max_shrink_time: 20_000,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    let result = TestRunner::new(config).run(networks, |(network, timeline)| {
        let text = network.toml(&timeline);
        let wrong = std::panic::catch_unwind(|| wrong(&text)).unwrap_or_else(|_| vec!["it panics".into()]);
        prop_assert!(
            wrong.is_empty(),
            "{}\n---- scenarios/found/NAME.toml ----\n{text}----",
            wrong.join("\n")
        );
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn in_random_networks_every_pair_ends_where_the_oracle_says_and_nothing_is_violated() {
    holds(64, &network().prop_map(|network| (network, Vec::new())));
}

#[test]
fn whatever_happens_in_random_networks_nothing_is_violated() {
    holds(32, &(network(), timeline()));
}

/// Found by the test above: a host that moves from one network to another under a box with an address for each of two hosts
/// comes as a third one. That it gets no further is what such a box does; with one address more it must.
#[test]
fn a_host_that_comes_too_late_for_an_address_of_its_own_is_no_violation_and_one_that_gets_it_talks_on() {
    let text = |addresses: u8| {
        format!(
            r#"
title = "An address for each"
until = "40s"
router.box-0 = {{ region = "eu-west", addresses = {addresses}, nat = {{ mapping = "endpoint-independent", filtering = "endpoint-independent", ports = "preserving", hairpin = "none", pooling = "one-to-one" }} }}
router.box-1 = {{ behind = "box-0", nat = "none" }}
router.box-2 = {{ behind = "box-0", nat = "none" }}
host.host-0 = {{ behind = "box-0" }}
host.host-1 = {{ behind = "box-2" }}
host.host-2 = {{ region = "us-east" }}
traffic = [
    {{ kind = "ping", from = "host-0", to = "host-2", at = "2s", interval = "250ms" }},
    {{ kind = "ping", from = "host-1", to = "host-2", at = "2s", interval = "250ms" }},
]
at = [{{ time = "10s", move = {{ host = "host-1", to = "box-1", dead = "1s" }} }}]
"#
        )
    };
    for (addresses, talks) in [(2, false), (3, true)] {
        let run = play(&scenario(&text(addresses)), 1, Options::default());

        assert_eq!(run.verdict.violations, Vec::<String>::new(), "{addresses} addresses");
        let moved =
            run.metrics.pairs.iter().find(|pair| [&pair.a, &pair.b].iter().any(|host| &***host == "host-1"));
        let silent = moved.expect("they talk").gaps.iter().any(|gap| !gap.resumed);
        assert_eq!(silent, !talks, "{addresses} addresses");
    }
}

/// The generator reaches what the property is about: chains, shared boxes, and sure as well as unsure pairs.
#[test]
fn the_networks_are_of_many_kinds() {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(2), ..Config::default() });
    let (mut direct, mut lan, mut relay, mut unsure, mut deep) = (0, 0, 0, 0, 0);
    for _ in 0..300 {
        let tree = network().new_tree(&mut runner).expect("a network");
        let scenario = scenario(&proptest::strategy::ValueTree::current(&tree).toml(&[]));
        let depth = |name: &str| {
            let mut at = &scenario.hosts[name].attached;
            let mut depth = 0;
            while let punchbag::scenario::Attachment::Behind(router) = at {
                depth += 1;
                at = &scenario.routers[router].uplink;
            }
            depth
        };
        deep += usize::from(depth("host-0") == MAX_DEPTH);
        match oracle::route(&scenario, "host-0", "host-1").and_then(oracle::Route::path) {
            Some(Some(trace::Path::Direct)) => direct += 1,
            Some(Some(trace::Path::Lan)) => lan += 1,
            Some(Some(trace::Path::Relay)) => relay += 1,
            Some(None) | None => unsure += 1,
        }
    }
    let counts = [direct, lan, relay, unsure, deep];
    assert!(counts.iter().all(|count| *count >= 5), "direct, lan, relay, unsure, deep: {counts:?}");
}
