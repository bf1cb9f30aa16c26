//! Firewalls in whole worlds: what they say to whom, and that each shipped scenario is about its firewall.

mod common;

use common::{captures, play, read_capture, scenario, shipped, with_captures};
use punchbag::Program;
use punchbag::host::{ConnId, Input, Output};
use punchbag::packet::{Body, Packet};
use punchbag::scenario::{self as files, Action, Scenario};
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use trace::{Event, Proto};

/// The same scenario in a world without firewalls; where `kept`, with that preset in place of each.
fn without_firewall(mut scenario: Scenario, kept: Option<&str>) -> Scenario {
    let preset = kept.map(|name| nat::presets::firewall(name).expect("a preset").config.clone());
    for router in scenario.routers.values_mut() {
        router.firewall = router.firewall.take().and(preset.clone());
    }
    for timed in &mut scenario.timeline {
        match &mut timed.action {
            Action::SetFirewall { firewall, .. } => *firewall = None,
            Action::ChangeRules { change, .. } => *change = nat::RuleChange::default(),
            _ => {}
        }
    }
    scenario
}

#[test]
fn what_a_firewall_scenario_expects_does_not_come_without_its_firewall() {
    for (name, kept) in [
        ("tls-only-nothing-left", None),
        ("proxy-required", None),
        ("proxy-with-credentials", None),
        ("captive-portal-closed", None),
        ("udp-rate-limited", None),
        ("flows-throttled", None),
        ("large-packets-dropped", None),
        ("flow-used-up", None),
        ("relay-blocked", None),
        ("coordinator-blocked", None),
        ("stun-blocked", None),
        ("one-way-loss", None),
        ("rule-added", None),
        ("rule-removed", None),
        ("endpoint-independent-filter", Some("stateful")),
    ] {
        let with = shipped(&format!("firewall/{name}"));
        let run = play(&with, 1, Options::default());
        assert!(run.verdict.passed(), "{name}: {:?}", run.verdict);
        let run = play(&without_firewall(with, kept), 1, Options::default());
        assert!(run.verdict.expectations.iter().any(|e| !e.passed), "{name} passes without it as well");
    }
}

#[test]
fn a_rule_that_changes_leaves_what_the_firewall_remembers() {
    // The same rules in a firewall that begins anew: the conversation that was let out is unknown to it.
    let mut scenario = shipped("firewall/rule-removed");
    let mut rules = scenario.routers["home-a"].firewall.clone().expect("a firewall");
    for timed in &mut scenario.timeline {
        if let Action::ChangeRules { router, change } = &timed.action {
            change.apply(&mut rules);
            let (router, firewall) = (router.clone(), Some(rules.clone()));
            timed.action = Action::SetFirewall { router, firewall, name: "custom".to_owned() };
        }
    }
    let run = play(&scenario, 1, Options::default());
    assert!(run.verdict.expectations.iter().any(|e| !e.passed), "{:?}", run.verdict);
}

#[test]
fn a_portal_that_nobody_accepts_and_a_proxy_that_nobody_uses_leave_no_way() {
    let mut portal = shipped("firewall/captive-portal");
    portal.timeline.clear();
    let mut office = shipped("firewall/proxy-required");
    for host in office.hosts.values_mut() {
        host.proxy = None;
    }
    for scenario in [portal, office] {
        let run = play(&scenario, 1, Options::default());
        let pair = &run.metrics.pairs[0];
        assert_eq!((pair.first_data_ns, pair.path()), (None, None), "{}", scenario.name);
        // The oracle knows it too: nobody is blamed for a pair that cannot be connected.
        assert_eq!(run.verdict.violations, Vec::<String>::new(), "{}", scenario.name);
    }
}

#[test]
fn a_connection_that_is_cut_off_is_reset_at_both_ends() {
    let run = play(&shipped("firewall/tls-only-nothing-left"), 1, Options::default());
    let cut = run.records.iter().filter_map(|record| match &record.event {
        Event::Dropped { node, reason, src, dst, .. } if &**node == "home-a" && &**reason == "not-tls" => {
            Some((record.t, *src, *dst))
        }
        _ => None,
    });
    let cut: Vec<(u64, SocketAddr, SocketAddr)> = cut.collect();
    assert!(!cut.is_empty());
    let mut known = BTreeSet::new();
    for (t, client, server) in cut {
        // What still comes of a connection that is cut off is answered to who sent it alone.
        if !known.insert((client.min(server), client.max(server))) {
            continue;
        }
        assert_eq!(server.port(), 443);
        let said: Vec<(SocketAddr, SocketAddr)> = run
            .records
            .iter()
            .filter(|record| record.t == t)
            .filter_map(|record| match &record.event {
                Event::Sent { node, proto: Proto::Tcp, src, dst, .. } if &**node == "home-a" => {
                    Some((*src, *dst))
                }
                _ => None,
            })
            .collect();
        assert!(said.contains(&(server, client)), "the client hears nothing: {said:?}");
        assert!(said.iter().any(|(_, dst)| *dst == server), "the server hears nothing: {said:?}");
    }
}

/// Connects to an address at the start.
struct Caller {
    to: SocketAddr,
    out: Vec<Output>,
}

impl Program for Caller {
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn handle(&mut self, input: Input<'_>, _: Instant) {
        if let Input::Addresses(_) = input {
            self.out.push(Output::Connect { conn: ConnId(0), to: self.to });
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }
}

/// What the router says, and when, while somebody outside tries to connect to a machine behind it.
fn said_to_a_stranger(firewall: &str) -> Vec<(u64, Proto)> {
    let text = format!(
        "title = \"t\"\nuntil = \"20s\"\n[router.home]\nregion = \"eu-west\"\nnat = \"none\"\nfirewall = {firewall}\n\
         [host.inside]\nbehind = \"home\"\n[host.stranger]\nregion = \"eu-west\"\n"
    );
    let scenario = scenario(&text);
    let topology = Topology::new(&scenario).expect("a topology");
    let mut world = World::bare(&scenario, &topology, Seed(1), Options::default()).expect("a world");
    let inside = topology.addresses_of("inside")[0];
    let caller = Caller { to: SocketAddr::new(inside, 22), out: Vec::new() };
    world.add_program("stranger", Box::new(caller)).expect("a host");
    world.run_until(Duration::from_secs(20));
    let records = world.log().records();
    let said = records.iter().filter_map(|record| match &record.event {
        Event::Sent { node, proto, .. } if &**node == "home" => Some((record.t, *proto)),
        _ => None,
    });
    said.collect()
}

#[test]
fn strangers_are_told_at_once_or_late_or_not_at_all() {
    assert_eq!(said_to_a_stranger("\"stateful\""), []);
    let reset = said_to_a_stranger("{ answer-inbound = \"rst\" }");
    assert!(matches!(reset[..], [(t, Proto::Tcp)] if t < 1_000_000_000), "{reset:?}");
    let late = said_to_a_stranger("\"rfc6092\"");
    let first = late.first().copied();
    assert!(
        first.is_some_and(|(t, proto)| (6_000_000_000..7_000_000_000).contains(&t) && proto == Proto::Icmp),
        "{late:?}"
    );
}

#[test]
fn mistakes_in_firewalls_and_proxies_are_refused() {
    let base = "title = \"t\"\n[router.home]\nregion = \"eu-west\"\nFIREWALL\n[host.a]\nbehind = \"home\"\nHOST\n\
                [host.b]\nregion = \"eu-west\"\n[proxy.gate]\nregion = \"eu-west\"\nPROXY\n";
    let refusal = |firewall: &str, host: &str, proxy: &str| {
        let text = base.replace("FIREWALL", firewall).replace("HOST", host).replace("PROXY", proxy);
        files::parse("test", "test.toml", &text).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(
        refusal("firewall = { block = [\"relay\", \"udp 3478 to stun\"] }", "proxy = \"gate\"", ""),
        Ok(())
    );
    for (firewall, host, proxy, wanted) in [
        ("firewall = { block = [\"rely\"] }", "", "", "did you mean `relay`?"),
        ("firewall = { outbound = [\"tcp 443 relay\"] }", "", "", "is not a rule"),
        ("firewall = { udp-rate = \"0packets/s\" }", "", "", "udp = \"blocked\""),
        (
            "firewall = { udp-rate = \"9packets/s\", udp-burst = \"1kB\" }",
            "",
            "",
            "does not count what udp-rate counts",
        ),
        ("firewall = { flow-burst = \"1kB\" }", "", "", "a burst of an unlimited rate"),
        ("firewall = { portal = \"soon\" }", "", "", "until-accepted"),
        ("firewall = { flow-packets = -1 }", "", "", "is not a number of packets"),
        ("", "proxy = \"home\"", "", "`home` is a router, not a proxy"),
        ("", "proxy-login = \"wrong\"", "", "a login without a proxy"),
        ("", "", "user = \"a\"", "half of the credentials"),
        ("", "", "user = \"a:b\"\npassword = \"c\"", "a user name holds no colon"),
        ("", "", "port = 70000", "`70000` is no port"),
    ] {
        let error = refusal(firewall, host, proxy).expect_err(firewall);
        assert!(error.contains(wanted), "{firewall} {host} {proxy}: {error}");
    }
}

#[test]
fn a_relay_without_tls_is_found_on_port_80_where_only_tls_passes_on_443() {
    let ports = |scenario: &Scenario| -> Vec<u16> {
        let run = play(scenario, 1, Options::default());
        assert!(run.verdict.passed(), "{:?}", run.verdict);
        let of_takkie = run.records.iter().filter_map(|record| match &record.event {
            Event::Relay { host, state: trace::ServerState::Connected, address, .. }
                if &**host == "takkie" =>
            {
                Some(address.port())
            }
            _ => None,
        });
        of_takkie.collect()
    };
    let mut scenario = shipped("firewall/tls-only-port-80");
    assert_eq!(ports(&scenario), [80]);
    let Some(firewall) = &mut scenario.routers["home-a"].firewall else { panic!("a firewall") };
    firewall.tls = Vec::new().into();
    assert_eq!(ports(&scenario), [443]);
}

#[test]
fn what_routers_answer_to_early_checks_reaches_a_peer_that_goes_on() {
    let told = |scenario: &Scenario| {
        let run = play(scenario, 1, Options::default());
        assert!(run.verdict.passed(), "{:?}", run.verdict);
        let heard = run
            .records
            .iter()
            .filter(|record| matches!(&record.event, Event::Delivered { payload: trace::Payload::Icmp, .. }));
        heard.count()
    };
    let mut scenario = shipped("nat/answers-rst");
    assert!(told(&scenario) > 0);
    for router in scenario.routers.values_mut() {
        let Some(nat::Translation::Axes(nat)) = &mut router.nat else { panic!("axes") };
        nat.unsolicited = nat::Unsolicited::Drop;
    }
    assert_eq!(told(&scenario), 0);
}

/// What each connection to port 443 of a relay begins with, and the coordination server's likewise.
fn first_words(servers: &str) -> Vec<Vec<u8>> {
    let text = format!(
        "title = \"Two servers\"\nuntil = \"2s\"\n\
         host.takkie = {{ region = \"eu-west\", address = \"33.0.0.50\" }}\n\
         host.flappie = {{ region = \"us-east\", address = \"33.0.0.60\" }}\n{servers}"
    );
    let run = play(&scenario(&text), 1, with_captures());
    let mut first: BTreeMap<(SocketAddr, SocketAddr), Vec<u8>> = BTreeMap::new();
    for bytes in captures(run).into_values() {
        for captured in read_capture(&bytes) {
            let Some(packet) = Packet::decode(&captured.frame[14..].to_vec().into()) else { continue };
            if let Body::Tcp(segment) = packet.body
                && packet.dst.port() == 443
                && !segment.payload.is_empty()
            {
                first.entry((packet.src, packet.dst)).or_insert_with(|| segment.payload.to_vec());
            }
        }
    }
    first.into_values().collect()
}

#[test]
fn port_443_speaks_tls_unless_the_scenario_says_otherwise() {
    // A handshake record that holds a ClientHello (RFC 8446 §4 and §5.1).
    let hello = |bytes: &Vec<u8>| matches!(bytes[..], [22, 3, 1 | 3, _, _, 1, ..]);
    let secure = first_words("");
    assert_eq!(secure.len(), 4, "two hosts, relay and coordination server each");
    assert!(secure.iter().all(hello));

    let plain = first_words("relay.relay = { tls = false }\ncoordinator = { tls = false }\n");
    assert_eq!(plain.len(), 4);
    assert!(!plain.iter().any(hello));
    assert_eq!(plain.iter().filter(|bytes| bytes.starts_with(b"GET /derp HTTP/1.1\r\n")).count(), 2);
}
