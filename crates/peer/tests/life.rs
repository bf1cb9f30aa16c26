//! What happens to a pair of peers in the course of its life, on real cores and a small internet.

mod net;

use std::collections::BTreeSet;
use std::time::Duration;

use net::{Nat, Net, RELAYS, ms};
use peer::{Event, MAX_CANDIDATES, PROBES_PER_CANDIDATE, ServerState, Via};

const HOMES: [(Nat, &[u8]); 2] = [(Nat::PortRestricted, &[2]), (Nat::PortRestricted, &[2])];

/// A voice-like stream: a numbered packet each 20 ms, for `packets` packets.
fn talk(net: &mut Net, from: usize, to: usize, first: u32, packets: u32) {
    for n in first..first + packets {
        net.tunnel_send(from, to, &n.to_be_bytes());
        net.run_for(ms(20));
    }
}

fn numbers(net: &Net, host: usize, since: Duration) -> BTreeSet<u32> {
    let packets = net.received(host, since);
    packets.iter().map(|(_, data, _)| u32::from_be_bytes(data[..].try_into().expect("4 bytes"))).collect()
}

/// Two homes with a direct path, in the middle of a call.
fn direct_pair(seed: u64) -> Net {
    let mut net = Net::new(seed, &HOMES, 1);
    net.run_for(ms(3000));
    talk(&mut net, 0, 1, 0, 100);
    assert!(matches!(net.path(0), Some(Via::Direct(_))), "{:?}", net.path(0));
    assert!(matches!(net.path(1), Some(Via::Direct(_))), "{:?}", net.path(1));
    net
}

#[test]
fn moving_from_relay_to_direct_loses_and_doubles_nothing() {
    let mut net = direct_pair(1);
    net.run_for(ms(500));
    let packets = net.received(1, Duration::ZERO);
    assert_eq!(packets.len(), 100);
    assert_eq!(numbers(&net, 1, Duration::ZERO).len(), 100);
}

#[test]
fn a_dead_direct_path_is_left_within_a_second_of_one_way_traffic() {
    let mut net = direct_pair(2);
    net.routers[1].dark = true;
    let since = net.elapsed();
    talk(&mut net, 0, 1, 1000, 100);
    let relayed = net.received(1, since).into_iter().find(|(.., via)| matches!(via, Via::Relay(_)));
    let (at, ..) = relayed.expect("a relayed packet");
    assert!(at - since < ms(1000), "{:?}", at - since);
    assert!(matches!(net.path(0), Some(Via::Relay(_))));
    // From the moment of suspicion nothing is lost any more.
    net.run_for(ms(200));
    let got = numbers(&net, 1, since);
    assert!((1030..1100).all(|n| got.contains(&n)));
}

#[test]
fn a_path_that_dies_in_one_direction_is_left_by_both_sides() {
    for mute in [0, 1] {
        let mut net = direct_pair(19);
        net.routers[mute].mute = true;
        let since = net.elapsed();
        for n in 0..100 {
            net.tunnel_send(0, 1, &(1000 + n as u32).to_be_bytes());
            net.tunnel_send(1, 0, &(1000 + n as u32).to_be_bytes());
            net.run_for(ms(20));
        }
        net.run_for(ms(200));
        for host in 0..2 {
            assert!(matches!(net.path(host), Some(Via::Relay(_))), "host {host}: {:?}", net.path(host));
            let got = numbers(&net, host, since);
            assert!((1050..1100).all(|n| got.contains(&n)), "mute {mute}, host {host}: {got:?}");
        }
    }
}

#[test]
fn a_dead_path_is_found_again_once_it_lives() {
    let mut net = direct_pair(3);
    net.routers[1].dark = true;
    talk(&mut net, 0, 1, 1000, 100);
    net.routers[1].dark = false;
    let since = net.elapsed();
    talk(&mut net, 0, 1, 2000, 400);
    let moved = |event: &Event| matches!(event, Event::PathChanged { path: Some(Via::Direct(_)), .. });
    let took = net.first(0, since, moved).expect("direct again");
    assert!(took < ms(6000), "{took:?}");
    net.run_for(ms(200));
    let got = numbers(&net, 1, since);
    assert!((2000..2400).all(|n| got.contains(&n)));
}

#[test]
fn a_router_that_reboots_in_mid_conversation_costs_about_a_second() {
    let mut net = direct_pair(4);
    net.routers[0].reboot();
    net.routers[1].reboot();
    let since = net.elapsed();
    talk(&mut net, 0, 1, 1000, 150);
    assert!(matches!(net.path(0), Some(Via::Direct(_))), "{:?}", net.path(0));
    assert!(matches!(net.path(1), Some(Via::Direct(_))), "{:?}", net.path(1));
    let got = numbers(&net, 1, since);
    assert!(got.len() > 100, "{}", got.len());
}

#[test]
fn five_percent_loss_does_not_throw_a_one_way_flow_off_its_path() {
    let mut net = direct_pair(5);
    net.loss = 50;
    let before = net.count(|event| matches!(event, Event::PathChanged { .. }));
    talk(&mut net, 0, 1, 1000, 3000);
    let after = net.count(|event| matches!(event, Event::PathChanged { .. }));
    assert_eq!(before, after);
}

#[test]
fn an_idle_pair_is_silent() {
    let mut net = direct_pair(6);
    net.run_for(ms(60_000));
    let sent = net.sent.clone();
    net.run_for(ms(120_000));
    assert_eq!(net.sent, sent);
}

#[test]
fn traffic_after_a_mapping_expired_arrives_and_becomes_direct_again() {
    let mut net = direct_pair(7);
    net.run_for(ms(120_000));
    net.routers[0].reboot();
    net.routers[1].reboot();
    let since = net.elapsed();
    talk(&mut net, 0, 1, 1000, 150);
    net.run_for(ms(500));
    assert_eq!(numbers(&net, 1, since).len(), 150);
    assert!(matches!(net.path(0), Some(Via::Direct(_))), "{:?}", net.path(0));
}

#[test]
fn an_active_but_quiet_path_is_kept_open() {
    let mut net = direct_pair(8);
    let since = net.elapsed();
    net.run_for(ms(40_000));
    let probes: Vec<Duration> = net
        .events
        .iter()
        .filter(|(at, _, event)| *at > since && matches!(event, Event::Probe { .. }))
        .map(|(at, ..)| *at)
        .collect();
    let gaps = probes.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max().expect("probes") < ms(15_000));
    assert!(probes.len() < 40, "{}", probes.len());
}

#[test]
fn a_mapping_that_varies_stays_relayed_within_the_budget_of_probes() {
    let mut net = Net::new(9, &[(Nat::Symmetric, &[2]), (Nat::PortRestricted, &[2])], 1);
    net.run_for(ms(3000));
    talk(&mut net, 0, 1, 0, 3000);
    net.run_for(ms(500));
    assert_eq!(numbers(&net, 1, Duration::ZERO).len(), 3000);
    assert!(matches!(net.path(0), Some(Via::Relay(_))));
    let learned = |event: &Event| matches!(event, Event::NatLearned { mapping_varies: Some(true), .. });
    assert!(net.first(0, Duration::ZERO, learned).is_some());
    // Rounds at 0, 5, 15, 35 s, and as many that the other side began.
    let probes = net.count(|event| matches!(event, Event::Probe { .. }));
    let budget = 2 * 8 * MAX_CANDIDATES * PROBES_PER_CANDIDATE as usize;
    assert!(probes < budget / 2, "{probes} of {budget}");
}

#[test]
fn where_udp_is_blocked_and_only_port_80_answers_traffic_is_relayed() {
    let mut net = Net::new(10, &[(Nat::UdpBlocked, &[2]), (Nat::PortRestricted, &[2])], 1);
    net.silent_ports = BTreeSet::from([443]);
    net.run_for(ms(10_000));
    let since = net.elapsed();
    talk(&mut net, 0, 1, 0, 50);
    net.run_for(ms(500));
    assert_eq!(numbers(&net, 1, since).len(), 50);
    let learned = |event: &Event| matches!(event, Event::NatLearned { udp_blocked: true, .. });
    assert!(net.first(0, Duration::ZERO, learned).is_some());
}

#[test]
fn machines_in_one_network_talk_directly_in_it() {
    let mut net = Net::new(11, &[(Nat::PortRestricted, &[2, 3])], 1);
    net.run_for(ms(3000));
    talk(&mut net, 0, 1, 0, 50);
    assert!(matches!(net.path(0), Some(Via::Lan(_))), "{:?}", net.path(0));
    assert!(matches!(net.path(1), Some(Via::Lan(_))), "{:?}", net.path(1));
}

#[test]
fn a_direct_path_survives_the_death_of_the_relay_and_the_coordination_server() {
    let mut net = direct_pair(12);
    net.set_server(RELAYS[0], false);
    net.set_server(net::COORDINATOR, false);
    let since = net.elapsed();
    talk(&mut net, 0, 1, 1000, 1000);
    net.run_for(ms(100));
    let got = numbers(&net, 1, since);
    assert!((1000..2000).all(|n| got.contains(&n)));
    assert!(matches!(net.path(0), Some(Via::Direct(_))));
}

#[test]
fn relayed_traffic_resumes_when_the_relay_is_back() {
    let mut net = Net::new(13, &[(Nat::Symmetric, &[2]), (Nat::Symmetric, &[2])], 1);
    net.run_for(ms(3000));
    talk(&mut net, 0, 1, 0, 50);
    net.set_server(RELAYS[0], false);
    talk(&mut net, 0, 1, 1000, 100);
    assert_eq!(net.path(0), None);
    net.set_server(RELAYS[0], true);
    let since = net.elapsed();
    talk(&mut net, 0, 1, 2000, 400);
    let first = net.received(1, since).first().expect("traffic").0 - since;
    assert!(first < ms(6000), "{first:?}");
}

#[test]
fn when_the_home_relay_dies_another_becomes_home() {
    let mut net = Net::new(14, &[(Nat::Symmetric, &[2]), (Nat::Symmetric, &[2])], 2);
    net.run_for(ms(3000));
    talk(&mut net, 0, 1, 0, 50);
    let Some(Via::Relay(old)) = net.path(0) else { panic!("{:?}", net.path(0)) };
    let dead = if &*old == "relay-0" { RELAYS[0] } else { RELAYS[1] };
    net.set_server(dead, false);
    let since = net.elapsed();
    talk(&mut net, 0, 1, 1000, 200);
    let Some(Via::Relay(new)) = net.path(0) else { panic!("{:?}", net.path(0)) };
    assert_ne!(old, new);
    let first = net.received(1, since).into_iter().find(|(.., via)| *via == Via::Relay(new.clone()));
    let took = first.expect("traffic").0 - since;
    assert!(took < ms(2000), "{took:?}");
}

/// Two homes behind symmetric NATs, each with a relay of its own nearby.
fn two_relays(seed: u64) -> Net {
    let mut net = Net::new(seed, &[(Nat::Symmetric, &[2]), (Nat::Symmetric, &[2])], 2);
    net.far.insert((0, RELAYS[1]), ms(100));
    net.far.insert((1, RELAYS[0]), ms(100));
    net.run_for(ms(3000));
    net
}

fn relay_event(relay: &str, state: ServerState, reason: &str) -> impl Fn(&Event) -> bool {
    move |event: &Event| matches!(event, Event::Relay { relay: r, state: s, reason: why, .. } if &**r == relay && *s == state && why == reason)
}

#[test]
fn the_nearest_relay_is_home_and_that_of_the_other_is_used_while_needed() {
    let mut net = two_relays(20);
    let connected = |net: &Net, host, relay| {
        net.first(host, Duration::ZERO, relay_event(relay, ServerState::Connected, "")).is_some()
    };
    assert!(connected(&net, 0, "relay-0") && !connected(&net, 0, "relay-1"));
    assert!(connected(&net, 1, "relay-1") && !connected(&net, 1, "relay-0"));
    let since = net.elapsed();
    talk(&mut net, 0, 1, 0, 50);
    net.run_for(ms(500));
    assert_eq!(numbers(&net, 1, since).len(), 50);
    assert!(connected(&net, 0, "relay-1"));
    // The other side answered over the relay at which it had heard the call, where this side was connected by then.
    assert!(!connected(&net, 1, "relay-0"));
    let idle = relay_event("relay-1", ServerState::Closed, "idle");
    net.run_for(ms(130_000));
    let closed = net.first(0, since, idle).expect("closed for want of traffic");
    assert!(closed > ms(60_000), "{closed:?}");
}

#[test]
fn the_first_packet_to_a_peer_at_another_relay_takes_one_connection() {
    let mut net = two_relays(21);
    let since = net.elapsed();
    net.tunnel_send(0, 1, &0u32.to_be_bytes());
    net.run_for(ms(3000));
    let took = net.received(1, since)[0].0 - since;
    // TCP, the answer to the upgrade, which plain HTTP is made to wait for, and the relay's handshake, 200 ms each; and three
    // crossings of 130 ms.
    assert_eq!(took, ms(3 * 200 + 3 * 130));
}

#[test]
fn a_black_hole_in_place_of_the_relay_is_noticed_within_seconds_of_traffic() {
    let mut net = Net::new(22, &[(Nat::Symmetric, &[2]), (Nat::Symmetric, &[2])], 1);
    net.run_for(ms(3000));
    talk(&mut net, 0, 1, 0, 50);
    let since = net.elapsed();
    net.far.insert((0, RELAYS[0]), ms(3_600_000));
    talk(&mut net, 0, 1, 1000, 300);
    let lost = relay_event("relay-0", ServerState::Closed, "no answer");
    let took = net.first(0, since, lost).expect("noticed");
    assert!(took < ms(4000), "{took:?}");
}

#[test]
fn in_another_network_everything_is_connected_and_found_anew() {
    let mut net = direct_pair(23);
    let since = net.elapsed();
    net.routers[0].reboot();
    net.relocate(0, 77);
    talk(&mut net, 0, 1, 1000, 150);
    let connected = |event: &Event| matches!(event, Event::Coordinator { state: ServerState::Connected, .. });
    assert!(net.first(0, since, connected).expect("registered") < ms(500));
    let relayed = relay_event("relay-0", ServerState::Connected, "");
    assert!(net.first(0, since, relayed).expect("connected") < ms(500));
    for host in 0..2 {
        assert!(matches!(net.path(host), Some(Via::Direct(_))), "{:?}", net.path(host));
    }
    let got = numbers(&net, 1, since);
    assert!((1050..1140).all(|n| got.contains(&n)), "{got:?}");
}

#[test]
fn a_peer_that_starts_anew_is_reached_again() {
    let mut net = direct_pair(24);
    net.restart(1);
    net.run_for(ms(3000));
    let since = net.elapsed();
    talk(&mut net, 0, 1, 1000, 150);
    net.run_for(ms(200));
    let got = numbers(&net, 1, since);
    assert!((1010..1150).all(|n| got.contains(&n)), "{got:?}");
    assert!(matches!(net.path(0), Some(Via::Direct(_))), "{:?}", net.path(0));
}

#[test]
fn the_coordination_server_is_found_again_on_the_port_that_answers() {
    let mut net = Net::new(15, &HOMES, 1);
    net.silent_ports = BTreeSet::from([443]);
    net.run_for(ms(5000));
    let connected = |event: &Event| matches!(event, Event::Coordinator { state: ServerState::Connected, address, .. } if address.port() == 80);
    assert!(net.first(0, Duration::ZERO, connected).is_some());
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_does_not() {
    let wire = |seed| {
        let mut net = direct_pair(seed);
        net.run_for(ms(30_000));
        net.wire
    };
    let first = wire(16);
    assert!(first == wire(16));
    assert!(first != wire(17));
}

#[test]
fn nothing_is_worth_a_warning_in_an_ordinary_life() {
    let mut net = direct_pair(18);
    net.routers[1].dark = true;
    talk(&mut net, 0, 1, 1000, 100);
    net.routers[1].dark = false;
    talk(&mut net, 0, 1, 2000, 500);
    let warnings: Vec<_> =
        net.events.iter().filter(|(.., event)| matches!(event, Event::Warning { .. })).collect();
    assert!(warnings.is_empty(), "{warnings:?}");
}
