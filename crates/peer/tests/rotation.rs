//! Node keys that are replaced, and those that end, on real cores and a small internet.

mod net;

use std::collections::BTreeSet;
use std::time::Duration;

use net::{COORDINATOR, EPOCH, Nat, Net, ms};
use peer::{Event, Input};

const HOMES: [(Nat, &[u8]); 2] = [(Nat::PortRestricted, &[2]), (Nat::PortRestricted, &[2])];
const WALLED: [(Nat, &[u8]); 2] = [(Nat::UdpBlocked, &[2]), (Nat::UdpBlocked, &[2])];

/// Both send a numbered packet each 20 ms for so many seconds, from `first` on.
fn talk(net: &mut Net, first: u32, seconds: u32) {
    for n in first..first + 50 * seconds {
        net.tunnel_send(0, 1, &n.to_be_bytes());
        net.tunnel_send(1, 0, &n.to_be_bytes());
        net.run_for(ms(20));
    }
}

/// The numbers that a host got since a time.
fn numbers(net: &Net, host: usize, since: Duration) -> BTreeSet<u32> {
    let packets = net.received(host, since);
    packets.iter().map(|(_, data, _)| u32::from_be_bytes(data[..].try_into().expect("4 bytes"))).collect()
}

/// A pair in the middle of a call.
fn pair(homes: &[(Nat, &[u8])]) -> Net {
    let mut net = Net::new(1, homes, 1);
    net.run_for(ms(5000));
    talk(&mut net, 0, 5);
    net
}

fn sessions(net: &Net, host: usize, since: Duration) -> bool {
    net.first(host, since, |event| matches!(event, Event::Session { .. })).is_some()
}

/// The other side knows the key of the first host, and sessions are made with it.
fn assert_rotated(net: &Net, before: [u8; 32], since: Duration) {
    let key = net.hosts[0].peer.public_key();
    assert_ne!(key, before);
    let known = net.hosts[1].peer.status().peers[0].node_key;
    assert!(known == key && sessions(net, 0, since) && sessions(net, 1, since));
}

#[test]
fn a_key_rotated_in_mid_session_loses_nothing_and_leaves_no_path() {
    for homes in [&HOMES, &WALLED] {
        let mut net = pair(homes);
        let (since, key) = (net.elapsed(), net.hosts[0].peer.public_key());
        net.input(0, Input::Rotate);
        talk(&mut net, 1000, 60);
        net.run_for(ms(500));
        assert_rotated(&net, key, since);
        for host in 0..2 {
            assert_eq!(numbers(&net, host, since).range(1000..).count(), 3000, "host {host}");
            let moved = net.first(host, since, |event| matches!(event, Event::PathChanged { .. }));
            assert_eq!(moved, None, "host {host}");
        }
    }
}

#[test]
fn a_key_rotated_while_the_coordination_server_is_away_is_in_force_when_it_is_back() {
    let mut net = pair(&HOMES);
    let (since, key) = (net.elapsed(), net.hosts[0].peer.public_key());
    net.set_server(COORDINATOR, false);
    net.input(0, Input::Rotate);
    talk(&mut net, 1000, 10);
    assert_eq!(net.hosts[0].peer.public_key(), key);
    net.set_server(COORDINATOR, true);
    talk(&mut net, 2000, 20);
    net.run_for(ms(500));
    assert_rotated(&net, key, since);
    for host in 0..2 {
        assert_eq!(numbers(&net, host, since).range(1000..).count(), 1500, "host {host}");
    }
}

#[test]
fn a_key_is_rotated_before_it_ends() {
    let mut net = pair(&HOMES);
    let (since, key) = (net.elapsed(), net.hosts[0].peer.public_key());
    let end = EPOCH + since.as_secs() + 100;
    net.administer(|server, now| server.set_key_expiry(1, Some(end), now).expect("it is there"));
    talk(&mut net, 1000, 120);
    net.run_for(ms(500));
    let at = net.first(0, since, |event| matches!(event, Event::Rotated { .. })).expect("rotated");
    assert!(at > ms(70_000) && at < ms(80_000), "{at:?}");
    assert_rotated(&net, key, since);
    assert_eq!(numbers(&net, 1, since).range(1000..).count(), 6000);
}

#[test]
fn a_peer_whose_key_ends_while_the_coordination_server_is_away_is_dropped_by_the_others() {
    let mut net = pair(&HOMES);
    let end = net.elapsed().as_secs() + 20;
    net.set_server(COORDINATOR, true);
    net.administer(|server, now| server.set_key_expiry(1, Some(EPOCH + end), now).expect("it is there"));
    net.run_for(ms(100));
    net.set_server(COORDINATOR, false);
    let since = net.elapsed();
    talk(&mut net, 1000, 30);
    let last = net.received(1, since).last().map(|(at, ..)| *at).expect("something");
    assert!(last > ms(end * 1000 - 100) && last < ms(end * 1000 + 100), "{last:?}, end at {end} s");
    let ended = |event: &Event| matches!(event, Event::PathChanged { path: None, reason, .. } if reason.contains("ended"));
    assert!(net.first(1, since, ended).is_some());
}

#[test]
fn a_peer_that_starts_again_with_its_map_talks_though_the_coordination_server_is_away() {
    for with_map in [true, false] {
        let mut net = pair(&HOMES);
        net.set_server(COORDINATOR, false);
        net.run_for(ms(1000));
        let since = net.elapsed();
        if with_map {
            net.restart_with_map(0);
        } else {
            net.restart(0);
        }
        net.run_for(ms(3000));
        talk(&mut net, 1000, 10);
        net.run_for(ms(500));
        let got = (0..2).map(|host| numbers(&net, host, since).range(1100..).count());
        assert_eq!(got.collect::<Vec<_>>(), if with_map { [400, 400] } else { [0, 0] });
    }
}
