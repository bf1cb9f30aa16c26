//! IPv6: networks of every kind against the oracle, and what a scenario may say of it.

mod common;

use common::{play, scenario, shipped};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use punchbag::judge::oracle;
use punchbag::scenario::{Families, parse};
use punchbag::topology::Topology;
use punchbag::world::Options;
use std::fmt::Write;
use std::process::Command;
use trace::Event;

const NATS: [&str; 3] = ["cgn", "port-restricted-cone", "symmetric"];
const WALLS: [&str; 3] = ["none", "stateful", "udp-blocked"];
const VERSIONS: [&str; 3] = ["ipv4", "ipv6", "dual"];

/// What stands between a host and the internet.
#[derive(Debug, Clone)]
enum Access {
    /// Nothing; the versions of IP that it has.
    Public(usize),
    /// A home router with IPv4 alone.
    Old { nat: usize },
    /// One with both: its NAT, its way of IPv6, its filter of IPv6.
    Dual { nat: usize, npt: bool, wall6: usize },
    /// A carrier with IPv6 alone.
    Nat64 { nat: usize },
    /// A phone behind such a carrier; the versions that the host behind the phone has.
    Phone { nat: usize, versions: usize },
}

fn access() -> impl Strategy<Value = Access> {
    let (nat, versions, wall6) = (0..NATS.len(), 0..VERSIONS.len(), 0..WALLS.len());
    prop_oneof![
        versions.clone().prop_map(Access::Public),
        nat.clone().prop_map(|nat| Access::Old { nat }),
        (nat.clone(), any::<bool>(), wall6).prop_map(|(nat, npt, wall6)| Access::Dual { nat, npt, wall6 }),
        nat.clone().prop_map(|nat| Access::Nat64 { nat }),
        (nat, versions).prop_map(|(nat, versions)| Access::Phone { nat, versions }),
    ]
}

/// The host `name` with what it is behind. `shared`: behind the outermost box of host-a, which is of the same kind.
fn describe(text: &mut String, name: &str, access: &Access, shared: bool) {
    let outer = if shared { "box-host-a".to_owned() } else { format!("box-{name}") };
    let mut outermost = |keys: String| {
        if !shared {
            let _ = writeln!(text, "\n[router.{outer}]\nregion = \"eu-west\"\n{keys}");
        }
    };
    let (behind, ip) = match *access {
        Access::Public(versions) => (None, Some(versions)),
        Access::Old { nat } => {
            outermost(format!("nat = \"{}\"", NATS[nat]));
            (Some(outer.clone()), None)
        }
        Access::Dual { nat, npt, wall6 } => {
            let way = if npt { "npt" } else { "routed" };
            let (nat, wall6) = (NATS[nat], WALLS[wall6]);
            outermost(format!("nat = \"{nat}\"\nipv6 = \"{way}\"\nfirewall6 = \"{wall6}\""));
            (Some(outer.clone()), None)
        }
        Access::Nat64 { nat } => {
            outermost(format!("nat = \"{}\"\nipv6 = \"nat64\"", NATS[nat]));
            (Some(outer.clone()), None)
        }
        Access::Phone { nat, versions } => {
            outermost(format!("nat = \"{}\"\nipv6 = \"nat64\"", NATS[nat]));
            let phone = format!("phone-{name}");
            let _ = writeln!(text, "\n[router.{phone}]\nbehind = \"{outer}\"\nipv6 = \"clat\"");
            (Some(phone), Some(versions))
        }
    };
    let _ = writeln!(text, "\n[host.{name}]");
    let _ = match behind {
        Some(router) => writeln!(text, "behind = \"{router}\""),
        None => writeln!(text, "region = \"us-east\""),
    };
    if let Some(ip) = ip {
        let _ = writeln!(text, "ip = \"{}\"", VERSIONS[ip]);
    }
}

fn network(a: &Access, b: &Access, shared: bool) -> String {
    let mut text =
        "title = \"A random network with IPv6\"\nuntil = \"20s\"\n\n[relay.relay]\nip = \"dual\"\n"
            .to_owned();
    describe(&mut text, "host-a", a, false);
    describe(&mut text, "host-b", b, shared);
    text.push_str("\n[[traffic]]\nkind = \"ping\"\nfrom = \"host-a\"\nto = \"host-b\"\nat = \"2s\"\ninterval = \"250ms\"\n");
    text
}

/// What is wrong with a run of a network.
fn wrong(text: &str) -> Vec<String> {
    let scenario = scenario(text);
    let run = play(&scenario, 1, Options { timers: false, ..Options::default() });
    let mut wrong = run.verdict.violations.clone();
    for pair in &run.metrics.pairs {
        let route = oracle::route(&scenario, &pair.a, &pair.b);
        if let Some(expected) = route.and_then(oracle::Route::path)
            && pair.path() != expected
        {
            wrong.push(format!("ended on {:?} instead of {expected:?}", pair.path()));
        }
    }
    wrong
}

#[test]
fn in_random_networks_every_pair_ends_where_the_oracle_says_and_nothing_is_violated() {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 64;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    let networks = (access(), access(), prop::bool::weighted(0.3));
    let result = TestRunner::new(config).run(&networks, |(a, b, shared)| {
        let same = std::mem::discriminant(&a) == std::mem::discriminant(&b);
        let text = network(&a, &b, shared && same && !matches!(a, Access::Public(_)));
        let wrong = wrong(&text);
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

/// Everything that was sent, from whom to where.
fn sent(name: &str) -> Vec<(String, std::net::SocketAddr, std::net::SocketAddr)> {
    let run = play(&shipped(name), 1, Options::default());
    let sent = run.records.into_iter().filter_map(|record| match record.event {
        Event::Sent { node, src, dst, .. } => Some((node.to_string(), src, dst)),
        _ => None,
    });
    sent.collect()
}

#[test]
fn a_host_with_ipv6_alone_asks_for_the_prefix_and_writes_ipv4_addresses_behind_it() {
    let sent = sent("ipv6/nat64-with-ipv4-home");
    let mine: Vec<_> = sent.iter().filter(|(node, ..)| node == "takkie").collect();
    let asked = mine.iter().filter(|(_, _, dst)| dst.port() == 53).count();
    assert_eq!(asked, 1, "one question, which is answered");
    assert!(mine.iter().all(|(_, src, dst)| src.is_ipv6() && dst.is_ipv6()));
    let home = "[64:ff9b::33.1.0.1]:41641".parse().expect("an endpoint");
    assert!(mine.iter().any(|(_, _, dst)| *dst == home), "the home's address, as this host must write it");
}

#[test]
fn a_host_with_both_asks_for_no_prefix_and_uses_both() {
    let sent = sent("ipv6/dual-stack-homes");
    assert!(sent.iter().all(|(_, _, dst)| dst.port() != 53));
    for v4 in [true, false] {
        assert!(sent.iter().any(|(node, _, dst)| node == "takkie" && dst.is_ipv4() == v4));
    }
}

#[test]
fn without_ipv6_in_a_scenario_nothing_has_any() {
    let scenario = shipped("mission/two-homes");
    let topology = Topology::new(&scenario).expect("it is laid out");
    assert!(topology.nodes.iter().all(|node| node.addresses().all(|ip| ip.is_ipv4())));
    assert!(scenario.relays.values().all(|relay| relay.families == Families::V4));
}

#[test]
fn tcpdump_finds_the_checksums_of_translated_packets_right() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no tcpdump on this machine");
        return;
    }
    let folder = common::Folder::new("ipv6-pcap");
    for name in ["ipv6/464xlat-phone", "ipv6/nptv6-both"] {
        let mut short = shipped(name);
        short.until = std::time::Duration::from_secs(3);
        let run = play(&short, 1, Options { capture: true, ..Options::default() });
        for (interface, file) in run.captures.expect("captures").finish() {
            let path = folder.path().join(format!("{interface}.pcapng"));
            std::fs::write(&path, &file).expect("a capture on disk");
            let output =
                Command::new("tcpdump").args(["-nn", "-vv", "-r"]).arg(&path).output().expect("tcpdump runs");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{interface}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(text.contains("correct") || text.contains("sum ok"), "{interface}:\n{text}");
            assert!(!text.contains("bad ") && !text.contains("incorrect"), "{interface}:\n{text}");
        }
    }
}

/// What is said of a scenario with these routers, and a host behind `home`.
fn problem(routers: &str) -> String {
    let text = format!(
        "title = \"Wrong\"\n{routers}\n[host.takkie]\nbehind = \"home\"\n[host.flappie]\nregion = \"eu-west\"\n"
    );
    let error = parse("wrong", "wrong.toml", &text).expect_err("it is wrong");
    error.to_string()
}

#[test]
fn what_cannot_be_is_said_with_the_way_out() {
    let home = |keys: &str| format!("[router.home]\nregion = \"eu-west\"\n{keys}\n");
    let under = |outer: &str, keys: &str| {
        format!("[router.outer]\nregion = \"eu-west\"\n{outer}\n[router.home]\nbehind = \"outer\"\n{keys}\n")
    };
    let table = [
        (home("ipv6 = \"clat\""), "ipv6 = \"nat64\""),
        (home("lan6 = \"fd00::/64\""), "the router has no IPv6"),
        (home("nat64-prefix = \"64:ff9b::/96\""), "only a NAT64 has such a prefix"),
        (home("ipv6 = \"nat64\"\nnat64-prefix = \"64:ff9b::/95\""), "32, 40, 48, 56, 64 or 96"),
        (home("ipv6 = \"nat64\"\nnat = \"linux\""), "axes of RFC 4787"),
        (home("ipv6 = \"nat64\"\nlan = \"10.0.0.0/8\""), "IPv6 alone inside"),
        (home("ipv6 = \"npt\"\nlan6 = \"fd00::/96\""), "48 to 64 bits"),
        (home("ipv6 = \"routed\"\nlan6 = \"10.0.0.0/8\""), "no network for IPv6 hosts"),
        (home("ipv6 = \"router\""), "routed"),
        (under("", "ipv6 = \"routed\""), "has no IPv6 inside"),
        (under("ipv6 = \"nat64\"", ""), "write ipv6 = \"clat\""),
        (under("ipv6 = \"nat64\"", "ipv6 = \"routed\""), "customer's half of 464XLAT"),
        (under("ipv6 = \"nat64\"", "ipv6 = \"clat\"\nnat = \"cgn\""), "without bindings"),
    ];
    for (routers, expected) in table {
        let said = problem(&routers);
        assert!(said.contains(expected), "{routers}\n{said}");
    }
    let text =
        format!("{}[host.takkie]\nbehind = \"home\"\nip = \"dual\"\n[host.b]\nbehind = \"home\"\n", home(""));
    let said =
        parse("w", "w.toml", &format!("title = \"W\"\n{text}")).expect_err("no IPv6 there").to_string();
    assert!(said.contains("has no IPv4 and IPv6"), "{said}");
}

#[test]
fn addresses_may_be_chosen() {
    let text = "title = \"Chosen\"\n[router.home]\nregion = \"eu-west\"\nipv6 = \"routed\"\naddress6 = \"3000::77\"\n\
                lan6 = \"3001:5::/64\"\n[host.takkie]\nbehind = \"home\"\naddress6 = \"3001:5::99\"\n\
                [host.flappie]\nregion = \"eu-west\"\nip = \"ipv6\"\naddress = \"3000::99\"\n";
    let topology = Topology::new(&scenario(text)).expect("it is laid out");
    let of = |name: &str| {
        let node = topology.node(topology.find(name).expect("a node"));
        node.addresses().map(|ip| ip.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of("home"), ["33.0.0.1", "3000::77"]);
    assert_eq!(of("takkie"), ["192.168.1.2", "3001:5::99"]);
    assert_eq!(of("flappie"), ["3000::99"]);
}
