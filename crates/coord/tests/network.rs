//! Registration, maps, deltas and their order, over perfect streams.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Network, address, config, key, relay};
use coord::client::Event;
use coord::server::{LeaveReason, Limits, ServerEvent};
use coord::{Error, KeyPair, MapUpdate, NatFacts, Refusal, Update};

fn update(port: u16) -> Update {
    Update {
        endpoints: vec![address(&format!("192.168.1.2:{port}")), address(&format!("[2001:db8::2]:{port}"))],
        home_relay: Some(7),
        nat: Some(NatFacts { mapping_varies: Some(true), udp_blocked: false }),
    }
}

#[test]
fn the_first_machine_gets_the_first_address_and_a_full_map() {
    let mut network = Network::new();
    network.join(1);
    let machine = &network.machines[0];
    let tunnel_ip = "100.64.0.1".parse().unwrap();
    let Event::Registered { id: 1, tunnel_ip: seen, tunnel_ip6: Some(tunnel_ip6) } = machine.events[0] else {
        panic!("{:?}", machine.events)
    };
    assert_eq!(seen, tunnel_ip);
    assert!(tunnel_ip6.is_unique_local() && tunnel_ip6.octets()[12..] == [0, 0, 0, 1], "{tunnel_ip6}");
    let Some(MapUpdate::Full(map)) = machine.maps().next() else { panic!("{:?}", machine.events) };
    let coord::Map { you, peers, relays, .. } = &**map;
    assert_eq!((you.id, you.name.as_str(), you.tunnel_ip, you.online), (1, "machine-1", tunnel_ip, true));
    assert_eq!((you.node_key, you.disco_key), (coord::public_key(&key(2, 1)), coord::public_key(&key(3, 1))));
    assert_eq!((peers.len(), relays.as_slice()), (0, &[relay()][..]));
    let joined = &network.server_events[0];
    assert!(matches!(joined, ServerEvent::Joined { id: 1, name, .. } if name == "machine-1"), "{joined:?}");
}

#[test]
fn each_learns_of_the_others_by_delta() {
    let mut network = Network::new();
    for number in 1..=5 {
        network.join(number);
    }
    network.assert_agreement();
    // The first saw the four others come one by one, each in a delta of its own.
    let deltas: Vec<_> = network.machines[0].maps().skip(1).collect();
    let expected: Vec<Vec<u32>> = vec![vec![2], vec![3], vec![4], vec![5]];
    let seen: Vec<Vec<u32>> = deltas
        .iter()
        .map(|map| match map {
            MapUpdate::Delta(delta) => delta.added.iter().map(|node| node.id).collect(),
            MapUpdate::Full(_) => panic!("a second full map"),
        })
        .collect();
    assert_eq!(seen, expected);
    // The last got them all at once.
    assert!(matches!(network.machines[4].maps().next(), Some(MapUpdate::Full(map)) if map.peers.len() == 4));
}

#[test]
fn updates_reach_all_others() {
    let mut network = Network::new();
    (1..=3).for_each(|number| {
        network.join(number);
    });
    network.machines[1].client.update(update(41641));
    network.settle();
    network.assert_agreement();
    let node = &network.machines[0].peers[&2];
    assert_eq!(
        (&node.endpoints, node.home_relay, node.nat),
        (&update(41641).endpoints, Some(7), update(0).nat)
    );
    assert_eq!(node.tunnel_ip, "100.64.0.2".parse::<std::net::IpAddr>().unwrap());
}

#[test]
fn an_update_before_the_stream_travels_with_the_registration() {
    let mut network = Network::new();
    network.join(1);
    let early = network.add(config(2));
    network.machines[early].client.update(update(5));
    network.connect(early);
    network.settle();
    assert_eq!(network.machines[0].peers[&2].endpoints, update(5).endpoints);
    assert_eq!(network.machines[0].maps().count(), 2, "one delta for both");
    network.assert_agreement();
}

#[test]
fn only_the_latest_of_several_updates_is_sent() {
    let mut network = Network::new();
    (1..=2).for_each(|number| {
        network.join(number);
    });
    let before = network.server.generation();
    (0..50).for_each(|port| network.machines[0].client.update(update(port)));
    network.settle();
    network.machines[0].client.update(update(49)); // nothing new
    network.settle();
    assert_eq!(network.server.generation(), before + 1);
    assert_eq!(network.machines[1].peers[&1].endpoints, update(49).endpoints);
}

#[test]
fn a_node_whose_stream_ends_is_offline_and_keeps_its_address() {
    let mut network = Network::new();
    (1..=2).for_each(|number| {
        network.join(number);
    });
    network.disconnect(1);
    network.settle();
    assert!(!network.machines[0].peers[&2].online);
    assert!(
        network
            .server_events
            .iter()
            .any(|event| { matches!(event, ServerEvent::Left { id: 2, why: LeaveReason::Closed, .. }) })
    );
    network.join(3);
    network.connect(1);
    network.settle();
    assert_eq!(network.machines[1].id(), 2);
    assert!(network.machines[0].peers[&2].online);
    assert_eq!(network.machines[2].id(), 3);
    network.assert_agreement();
}

#[test]
fn a_node_that_comes_back_replaces_its_old_stream() {
    let mut network = Network::new();
    (1..=2).for_each(|number| {
        network.join(number);
    });
    let old = network.machines[1].conn.unwrap();
    // The network took the old stream away without a word; the process started anew with another disco key.
    let again = network.add(coord::client::ClientConfig { disco_key: KeyPair::new([0xD1; 32]), ..config(2) });
    let new = network.connect(again);
    network.settle();
    assert!(network.closed.contains(&old) && !network.closed.contains(&new));
    let left: Vec<_> =
        network.server_events.iter().filter(|event| matches!(event, ServerEvent::Left { .. })).collect();
    assert_eq!(left, [&ServerEvent::Left { conn: old, id: 2, why: LeaveReason::Replaced }]);
    // The late word of the old stream's end changes nothing.
    network.server.closed(old, network.now);
    network.settle();
    let seen = &network.machines[0].peers[&2];
    assert_eq!((seen.online, seen.disco_key), (true, coord::public_key(&[0xD1; 32])));
    assert!(!network.machines[0].maps().any(|map| {
        matches!(map, MapUpdate::Delta(delta) if delta.changed.iter().any(|change| change.online == Some(false)))
    }));
    network.assert_agreement();
}

#[test]
fn another_machine_cannot_take_a_node_key() {
    let mut network = Network::new();
    network.join(1);
    let thief = network.add(coord::client::ClientConfig { node_key: KeyPair::new(key(2, 1)), ..config(9) });
    let conn = network.connect(thief);
    network.settle();
    let refused = &network.machines[thief].result;
    assert!(matches!(refused, Err(Error::Refused { code: Refusal::NodeKeyTaken, .. })), "{refused:?}");
    assert!(network.closed.contains(&conn));
    assert!(network.machines[0].client.is_registered());
    assert_eq!(network.server.nodes().count(), 1);
}

#[test]
fn a_key_whose_private_half_is_not_shown_is_nobodys() {
    let mut network = Network::new();
    let of_another = |public| KeyPair { public, private: [0x66; 32] };
    let honest = config(9);
    let liars = [
        coord::client::ClientConfig { node_key: of_another(config(1).node_key.public), ..honest.clone() },
        coord::client::ClientConfig { disco_key: of_another(config(1).disco_key.public), ..honest.clone() },
    ];
    for config in liars {
        let liar = network.add(config);
        network.connect(liar);
        network.settle();
        let refused = &network.machines[liar].result;
        assert!(matches!(refused, Err(Error::Refused { code: Refusal::KeyNotProven, .. })), "{refused:?}");
    }
    assert_eq!(network.server.nodes().count(), 0);

    // Nor does a machine that is in get such a key.
    let liar = network.add(honest);
    network.connect(liar);
    network.settle();
    network.machines[liar].client.rotate(of_another(config(1).node_key.public));
    network.settle();
    let refused = &network.machines[liar].result;
    assert!(matches!(refused, Err(Error::Refused { code: Refusal::KeyNotProven, .. })), "{refused:?}");
    assert_eq!(network.server.nodes().next().map(|node| node.node_key), Some(config(9).node_key.public));
}

#[test]
fn a_bad_name_or_too_many_endpoints_are_refused() {
    let mut network = Network::new();
    for (number, name) in [(1, String::new()), (2, "x".repeat(64)), (3, "a\nb".into())] {
        let machine = network.add(coord::client::ClientConfig { name, ..config(number) });
        network.connect(machine);
        network.settle();
        let result = &network.machines[machine].result;
        assert!(matches!(result, Err(Error::Refused { code: Refusal::Name, .. })), "{result:?}");
    }
    let machine = network.join(4);
    let endpoints = vec![address("192.0.2.1:1"); 33];
    network.machines[machine].client.update(Update { endpoints, ..Update::default() });
    network.settle();
    let result = &network.machines[machine].result;
    assert!(matches!(result, Err(Error::Refused { code: Refusal::TooManyEndpoints, .. })), "{result:?}");
    assert!(!network.server.nodes().any(|node| node.online), "and the node is offline");
}

#[test]
fn a_full_network_forgets_who_is_offline_longest() {
    let limits = Limits { nodes: 3, ..Limits::default() };
    let mut network = Network::with(limits, 1);
    (1..=3).for_each(|number| {
        network.join(number);
    });
    let late = network.join(4);
    let result = &network.machines[late].result;
    assert!(matches!(result, Err(Error::Refused { code: Refusal::Full, .. })), "{result:?}");
    network.disconnect(1);
    network.disconnect(0);
    network.settle();
    let new = network.join(5);
    assert_eq!(network.machines[new].id(), 4, "numbers are not soon used again");
    let ids: Vec<u32> = network.server.nodes().map(|node| node.id).collect();
    assert_eq!(ids, [1, 3, 4]);
    network.assert_agreement();
    let removed = |map: &MapUpdate| matches!(map, MapUpdate::Delta(delta) if delta.removed == [2]);
    assert!(network.machines[2].maps().any(removed));
}

#[test]
fn a_hundred_join_at_once() {
    let mut network = Network::new();
    for number in 0..100 {
        let machine = network.add(config(number));
        network.connect(machine);
    }
    network.settle();
    assert!(network.machines.iter().all(|machine| machine.client.is_registered()));
    network.assert_agreement();
    let mut addresses: Vec<_> = network.server.nodes().map(|node| node.tunnel_ip).collect();
    addresses.dedup();
    assert_eq!(addresses.len(), 100);
    assert!(network.server.generation() <= 3, "{} deltas", network.server.generation());
}

/// Everybody has to hear of everybody once, which is a map for each; what must not come on top is a delta for each registration.
#[test]
fn a_thousand_that_join_at_once_get_little_more_than_a_map_each() {
    let bytes_each = |machines: u64| {
        let mut network = Network::new();
        for number in 0..machines {
            let machine = network.add(config(number));
            network.connect(machine);
            // Most maps are alike: a sample is read.
            if number % 25 != 0 {
                network.unread.insert(machine);
            }
        }
        network.settle();
        let online = network.server.nodes().filter(|node| node.online).count() as u64;
        assert_eq!((online, network.closed.len()), (machines, 0));
        assert!(network.server.generation() <= 3, "{} deltas", network.server.generation());
        let read: Vec<_> = network.machines.iter().filter(|machine| machine.client.is_registered()).collect();
        assert_eq!(read.len() as u64, machines / 25);
        network.assert_agreement();
        network.to_clients.values().sum::<usize>() / network.machines.len()
    };
    let (hundred, thousand) = (bytes_each(100), bytes_each(1000));
    // Some 310 bytes for each other machine.
    assert!(hundred < 100 * 400 && thousand < 1000 * 400, "{hundred} and {thousand} bytes");
}

#[test]
fn changes_that_follow_closely_go_out_together() {
    let mut network = Network::new();
    (1..=10).for_each(|number| {
        network.join(number);
    });
    network.advance(Duration::from_secs(1));
    let before = network.server.generation();
    for machine in 0..10 {
        network.machines[machine].client.update(update(9));
    }
    network.pump();
    assert_eq!(network.server.generation(), before + 1, "the first goes out at once");
    network.advance(Duration::from_millis(10));
    assert_eq!(network.server.generation(), before + 2, "and the nine others together");
    network.assert_agreement();
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut network = Network::with(Limits::default(), seed);
        (1..=4).for_each(|number| {
            network.join(number);
        });
        network.machines[2].client.update(update(3));
        network.settle();
        network.disconnect(1);
        network.advance(Duration::from_secs(50));
        network.wire
    };
    let first = run(1);
    assert!(first == run(1));
    assert!(first != run(2));
    let text = String::from_utf8_lossy(&first);
    assert!(!text.contains("machine-1") && !text.contains("endpoints"), "nothing travels in the clear");
}

#[test]
fn a_map_longer_than_a_noise_message_arrives() {
    let mut network = Network::new();
    for number in 0..120 {
        let machine = network.add(config(number));
        network.machines[machine].client.update(Update {
            endpoints: (1..=32)
                .map(|port| address(&format!("[2001:db8:1234:5678:9abc:def0:1234:5678]:{port}")))
                .collect(),
            ..Update::default()
        });
        network.connect(machine);
    }
    network.settle();
    let last = network.join(1000);
    let conn = network.machines[last].conn.unwrap();
    assert!(network.to_clients[&conn] > 3 * 65_535, "{}", network.to_clients[&conn]);
    network.assert_agreement();
}
