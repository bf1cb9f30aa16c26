//! Routers that open ports on request: what the oracle expects of them, and what the log tells.

mod common;

use common::{play, scenario, shipped};
use punchbag::judge::oracle::{Direct, route};
use punchbag::world::Options;
use trace::Event;

/// Two symmetric homes, with something said of the first one's gateway and something of its host.
fn homes(gateway: &str, host: &str) -> String {
    format!(
        "title = \"Two homes\"\nrouter.home-a = {{ region = \"eu-west\", nat = \"symmetric\"{gateway} }}\n\
         router.home-b = {{ region = \"us-east\", nat = \"symmetric\" }}\n\
         host.takkie = {{ behind = \"home-a\"{host} }}\nhost.flappie = {{ behind = \"home-b\" }}\n\
         [[traffic]]\nkind = \"ping\"\nfrom = \"takkie\"\nto = \"flappie\"\n"
    )
}

fn direct(text: &str) -> Direct {
    route(&scenario(text), "takkie", "flappie").expect("both are there").direct
}

#[test]
fn the_oracle_counts_a_port_that_is_open_and_stays_so() {
    let cases = [
        ("", "", Direct::No),
        (", gateway = \"pcp\"", "", Direct::Yes),
        (", gateway = \"upnp\"", "", Direct::Yes),
        (", gateway = \"none\"", "", Direct::No),
        (", gateway = \"all\"", ", port-mapping = false", Direct::No),
        (", gateway = { conduct = \"silent\" }", "", Direct::No),
        (", gateway = { conduct = \"no-resources\" }", "", Direct::No),
        (", gateway = { per-host = 0 }", "", Direct::No),
        (", gateway = { claims = \"10.0.0.1\" }", "", Direct::No),
        (", gateway = { other-port = true }", "", Direct::Yes),
        (", gateway = { forgets-after = \"5s\" }", "", Direct::Perhaps),
        (", gateway = \"all\", firewall = { inbound = \"stateful\" }", "", Direct::No),
    ];
    for (gateway, host, expected) in cases {
        assert_eq!(direct(&homes(gateway, host)), expected, "{gateway}{host}");
    }
}

#[test]
fn a_router_behind_another_nat_opens_nothing_that_counts() {
    let text = homes(", gateway = \"all\"", "").replace(
        "router.home-a = { region = \"eu-west\"",
        "router.carrier = { region = \"eu-west\", nat = \"symmetric\" }\nrouter.home-a = { behind = \"carrier\"",
    );
    assert_eq!(direct(&text), Direct::No);
}

#[test]
fn the_log_tells_what_was_opened_and_for_whom() {
    let run = play(&shipped("gateway/symmetric-both-pcp"), 1, Options::default());
    let opened = run.records.iter().find_map(|record| match &record.event {
        Event::Gateway { node, what, protocol, external, .. } if &**what == "opened" => {
            Some((node.to_string(), protocol.to_string(), *external))
        }
        _ => None,
    });
    let (node, protocol, external) = opened.expect("a port is opened");
    assert_eq!((node.as_str(), protocol.as_str()), ("home-a", "pcp"));
    let mapped = run.records.iter().any(|record| {
        matches!(&record.event, Event::PortMapping { host, what, external: at, .. }
            if &**host == "takkie" && &**what == "mapped" && *at == external)
    });
    assert!(mapped, "and its host knows");
}

#[test]
fn without_a_gateway_nobody_asks_for_ports() {
    let run = play(&scenario(&homes("", "")), 1, Options::default());
    let asked = run.records.iter().any(|record| match &record.event {
        Event::Sent { dst, .. } => [portmap::SERVER_PORT, portmap::upnp::SSDP.port()].contains(&dst.port()),
        Event::Gateway { .. } | Event::PortMapping { .. } => true,
        _ => false,
    });
    assert!(!asked);
}

#[test]
fn a_host_told_to_asks_though_its_router_has_no_gateway_and_lives_without() {
    let run = play(&scenario(&homes("", ", port-mapping = true")), 1, Options::default());
    let asked = |port| {
        run.records
            .iter()
            .any(|record| matches!(&record.event, Event::Sent { dst, .. } if dst.port() == port))
    };
    assert!(asked(portmap::SERVER_PORT) && asked(portmap::upnp::SSDP.port()));
    assert!(run.records.iter().all(|record| !matches!(record.event, Event::Violation { .. })));
}

#[test]
fn without_the_pinhole_nobody_comes_through_a_closed_ipv6_firewall() {
    let mut scenario = shipped("gateway/ipv6-pinhole");
    let run = play(&scenario, 1, Options::default());
    assert!(run.verdict.passed(), "{:?}", run.verdict);
    let opened = run.records.iter().any(|record| {
        matches!(&record.event, Event::Gateway { what, inside, external, .. }
            if &**what == "opened" && inside.is_ipv6() && *external == Some(*inside))
    });
    assert!(opened, "the hole is no translation");
    scenario.routers["home-a"].gateway = None;
    let run = play(&scenario, 1, Options::default());
    assert!(run.verdict.expectations.iter().all(|expectation| !expectation.passed), "{:?}", run.verdict);
}
