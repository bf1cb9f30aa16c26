//! Linux's allocation rule, as measured on kernels 6.18 and 6.1 with masquerade rules.

mod common;

use common::{Bench, ep, secs, tcp, udp};
use nat::{LinuxConfig, LinuxRule, MapError, PortRange, Proto, Side, Verdict, Wanted};

const HOST: &str = "192.168.1.2:4000";
const OTHER: &str = "192.168.1.3:4000";
const SERVER: &str = "203.0.113.1:1000";
const PEER: &str = "203.0.113.2:1000";

#[test]
fn two_hosts_share_a_port_towards_different_destinations_only() {
    let mut nat = Bench::preset("linux");
    assert_eq!(nat.out(udp(HOST, SERVER)).port(), 4000);
    let collided = nat.out(udp(OTHER, SERVER));
    assert_ne!(collided.port(), 4000);
    assert!(collided.port() >= 1024);
    // The second host stays on the port it got: its newest mapping is reused.
    assert_eq!(nat.out(udp(OTHER, PEER)), collided);
    assert_eq!(nat.reply(SERVER, collided), Ok(ep(OTHER)));
    assert_eq!(nat.reply(SERVER, ep("198.51.100.1:4000")), Ok(ep(HOST)));
}

#[test]
fn whoever_speaks_first_after_expiry_takes_the_port() {
    let mut nat = Bench::preset("linux");
    let (first, second) = (nat.out(udp(HOST, SERVER)), nat.out(udp(OTHER, SERVER)));
    nat.wait(30);
    assert_eq!(nat.out(udp(OTHER, SERVER)), first);
    assert_ne!(nat.out(udp(HOST, SERVER)), first);
    assert_ne!(first, second);
}

#[test]
fn the_newest_live_mapping_is_tried_and_only_this_one() {
    let mut nat = Bench::preset("linux");
    let own = nat.out(udp(HOST, SERVER));
    // The other host holds the preserved tuple towards PEER, so HOST gets a random one there.
    nat.out(udp(OTHER, PEER));
    let random = nat.out(udp(HOST, PEER));
    assert_ne!(random, own);
    assert_eq!(nat.out(udp(HOST, "203.0.113.3:1")), random);
    // With the newest two gone, the oldest is the newest.
    for _ in 0..3 {
        nat.wait(15);
        nat.out(udp(HOST, SERVER));
    }
    assert_eq!(nat.out(udp(HOST, "203.0.113.3:1")), own);
}

#[test]
fn an_early_packet_moves_the_port_where_the_router_accepts_it() {
    for (name, moved) in [("linux", false), ("linux-naive", true)] {
        let mut nat = Bench::preset(name);
        let learned = nat.out(udp(HOST, SERVER));
        assert_eq!(nat.reply(PEER, learned), Err("no-binding"));
        let towards_peer = nat.out(udp(HOST, PEER));
        assert_eq!(towards_peer != learned, moved, "{name}");
        assert_eq!(
            nat.reply(PEER, learned).is_err(),
            moved,
            "{name}: the peer still sends to the learned endpoint"
        );
        assert_eq!(nat.nat.bindings().count(), 2, "{name}: the router's own entry is no binding");
    }
}

#[test]
fn silence_repairs_a_clash_and_probing_keeps_it() {
    let mut nat = Bench::preset("linux-naive");
    let learned = nat.out(udp(HOST, SERVER));
    nat.reply(PEER, learned).unwrap_err();
    nat.wait(29);
    nat.reply(PEER, learned).unwrap_err();
    nat.wait(29);
    assert_ne!(nat.out(udp(HOST, PEER)).port(), 4000);
    nat.wait(30);
    assert_eq!(nat.out(udp(HOST, PEER)).port(), 4000);
}

#[test]
fn an_early_syn_leaves_no_trace() {
    let mut nat = Bench::preset("linux-naive");
    let learned = nat.out(tcp(HOST, SERVER, "S"));
    nat.back(tcp(PEER, &learned.to_string(), "S")).unwrap_err();
    assert_eq!(nat.out(tcp(HOST, PEER, "S")), learned);
}

#[test]
fn a_stream_is_one_that_is_answered_and_two_seconds_old() {
    // A reply within two seconds: still 30 s.
    let mut nat = Bench::preset("linux");
    let external = nat.out(udp(HOST, SERVER));
    nat.now += std::time::Duration::from_millis(1900);
    nat.reply(SERVER, external).unwrap();
    nat.wait(30);
    assert_eq!(nat.reply(SERVER, external), Err("no-binding"));
    // Any packet later than that, with a reply seen: 120 s.
    let external = nat.out(udp(HOST, SERVER));
    nat.reply(SERVER, external).unwrap();
    nat.wait(2);
    nat.out(udp(HOST, SERVER));
    nat.wait(119);
    assert_eq!(nat.reply(SERVER, external), Ok(ep(HOST)));
    // Outbound only: 30 s for ever.
    let mut nat = Bench::preset("linux");
    for _ in 0..10 {
        nat.out(udp(HOST, SERVER));
        nat.wait(29);
    }
    nat.wait(1);
    assert_eq!(nat.reply(SERVER, external), Err("no-binding"));
}

#[test]
fn a_short_range_serves_each_destination_anew() {
    let mut nat = Bench::new(LinuxConfig {
        ports: Some(PortRange { low: 50000, high: 50007 }),
        ..common::linux("linux")
    });
    for remote in [SERVER, PEER] {
        let passed = (0..20)
            .filter(|i| {
                let mut packet = udp(&format!("192.168.1.2:{}", 4000 + i), remote);
                nat.pass(Side::Inside, &mut packet) == Verdict::Forward(Side::Outside)
            })
            .count();
        assert_eq!(passed, 8);
    }
}

#[test]
fn a_low_port_collides_into_its_own_class() {
    for (port, class) in [(500, 1..=511), (700, 600..=1023)] {
        let mut nat = Bench::preset("linux");
        assert_eq!(nat.out(udp(&format!("192.168.1.2:{port}"), SERVER)).port(), port);
        for host in 3..100 {
            let drawn = nat.out(udp(&format!("192.168.1.{host}:{port}"), SERVER)).port();
            assert!(class.contains(&drawn) && drawn != port, "{drawn}");
        }
    }
}

#[test]
fn no_two_conversations_share_a_tuple() {
    let mut nat = Bench::preset("linux");
    for i in 0..2000_u32 {
        let (host, remote) = (2 + i % 7, 1 + i % 5);
        let from = format!("192.168.1.{host}:{}", 4000 + i % 11);
        nat.pass(Side::Inside, &mut udp(&from, &format!("203.0.113.{remote}:{}", i % 3)));
        nat.now += secs(u64::from(i % 3));
        let mut tuples: Vec<_> =
            nat.nat.bindings().map(|(proto, _, ext, remote)| (proto, ext, remote)).collect();
        let count = tuples.len();
        tuples.sort_unstable();
        tuples.dedup();
        assert_eq!(tuples.len(), count);
        assert!(tuples.iter().all(|(proto, ..)| *proto == Proto::Udp));
    }
}

#[test]
fn a_redirection_is_open_to_all_and_carries_answers_only() {
    let mut nat = Bench::preset("linux");
    let until = Some(nat.now + secs(60));
    let mut map = |inside: &str, wanted| nat.nat.map(Proto::Udp, ep(inside), wanted, until, nat.now);
    assert_eq!(map(HOST, Wanted::Prefer(7000)), Ok(ep("198.51.100.1:7000")));
    assert_eq!(map(OTHER, Wanted::Exactly(7000)), Err(MapError::PortTaken));
    assert_eq!(map(OTHER, Wanted::Prefer(7000)), Ok(ep("198.51.100.1:7001")));
    assert_eq!(map(HOST, Wanted::Any), Ok(ep("198.51.100.1:7000")));
    // What the mapped socket sends by itself leaves from another port.
    assert_eq!(nat.out(udp(HOST, SERVER)).port(), 4000);
    assert_eq!(nat.reply(PEER, ep("198.51.100.1:7000")), Ok(ep(HOST)));
    assert_eq!(nat.out(udp(HOST, PEER)).port(), 7000);
    nat.wait(59);
    assert_eq!(nat.reply(PEER, ep("198.51.100.1:7000")), Ok(ep(HOST)));
    // The conversation outlives the redirection, and nobody else comes in any more.
    nat.wait(1);
    assert_eq!(nat.reply(PEER, ep("198.51.100.1:7000")), Ok(ep(HOST)));
    assert_eq!(nat.reply(SERVER, ep("198.51.100.1:7000")), Err("no-binding"));
    assert_eq!(nat.nat.mapped().count(), 0);
}

#[test]
fn masquerade_forgets_with_its_address_and_snat_does_not() {
    for (rule, left) in [(LinuxRule::Masquerade, 0), (LinuxRule::Snat, 1)] {
        let mut nat = Bench::new(LinuxConfig { rule, ..LinuxConfig::MASQUERADE });
        nat.out(udp(HOST, SERVER));
        nat.nat.set_external(vec![ep("198.51.100.9:0").ip()], nat.now);
        assert_eq!(nat.nat.conversations(), left, "{rule}");
        assert_eq!(nat.out(udp(HOST, PEER)), ep("198.51.100.9:4000"));
    }
}
