//! Who is let in, for how long, and what is stored before anybody hears of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Network, SERVER_PRIVATE, config, key, relay, rng, start};
use coord::client::{ClientConfig, Event};
use coord::server::{
    Admission, EPHEMERAL_AFTER, Limits, NewKey, Server, ServerConfig, ServerEvent, key_record, key_text,
};
use coord::state::{Standing, State};
use coord::{Access, Error, KeyPair, MapUpdate, MapVersion, Refusal, Update};

/// A network that not everybody may join, with the keys 1 (single-use), 2 (reusable, ephemeral, tagged) and 3 (ends in a minute).
fn closed() -> Network {
    let mut network = Network::new();
    let config =
        ServerConfig { admission: Admission::Approved, ..ServerConfig::new(SERVER_PRIVATE, vec![relay()]) };
    network.server = Server::new(config, rng(1), network.now);
    let keys = [
        NewKey::default(),
        NewKey { reusable: true, ephemeral: true, tags: vec!["runner".into()], lifetime_s: None },
        NewKey { reusable: true, lifetime_s: Some(60), ..NewKey::default() },
    ];
    for (id, new) in (1..).zip(keys) {
        network.server.insert_key(key_record(id, &text(id), new, 0));
    }
    network
}

fn text(id: u32) -> String {
    key_text(id, &[id.to_le_bytes()[0]; 32])
}

fn with_key(number: u64, auth_key: &str) -> ClientConfig {
    ClientConfig { auth_key: Some(auth_key.into()), ..config(number) }
}

fn join(network: &mut Network, config: ClientConfig) -> usize {
    let machine = network.add(config);
    network.connect(machine);
    network.settle();
    machine
}

fn refusal(network: &Network, machine: usize) -> Option<Refusal> {
    match network.machines[machine].result {
        Err(Error::Refused { code, .. }) => Some(code),
        _ => None,
    }
}

#[test]
fn a_single_use_key_lets_one_machine_in_as_often_as_it_comes() {
    let mut network = closed();
    let first = join(&mut network, with_key(1, &text(1)));
    assert!(network.machines[first].client.is_registered());
    let second = join(&mut network, with_key(2, &text(1)));
    assert_eq!(refusal(&network, second), Some(Refusal::AuthKey));
    network.disconnect(first);
    network.connect(first);
    network.settle();
    assert!(network.machines[first].client.is_registered(), "its own key was used up by itself");
}

#[test]
fn a_key_is_refused_when_it_is_wrong_or_past_its_end() {
    let mut network = closed();
    let wrong = key_text(1, &[9; 32]);
    for (number, auth_key) in [(1, wrong.as_str()), (2, "pbkey-77-00"), (3, "")] {
        let machine = join(&mut network, with_key(number, auth_key));
        assert_eq!(refusal(&network, machine), Some(Refusal::AuthKey), "{auth_key}");
    }
    let early = join(&mut network, with_key(4, &text(3)));
    network.advance(Duration::from_secs(60));
    let late = join(&mut network, with_key(5, &text(3)));
    assert_eq!((refusal(&network, early), refusal(&network, late)), (None, Some(Refusal::AuthKey)));
    assert_eq!(network.server.nodes().count(), 1, "nothing is kept of the others");
}

#[test]
fn an_ephemeral_node_goes_half_an_hour_after_it_was_last_heard_of() {
    let mut network = closed();
    let watcher = join(&mut network, with_key(1, &text(1)));
    let runner = join(&mut network, with_key(2, &text(2)));
    assert_eq!(network.machines[watcher].peers[&2].tags, ["runner"]);
    network.disconnect(runner);
    network.advance(EPHEMERAL_AFTER - Duration::from_secs(1));
    assert!(network.machines[watcher].peers.contains_key(&2));
    network.advance(Duration::from_secs(2));
    assert!(!network.machines[watcher].peers.contains_key(&2));
    assert_eq!(network.server.node_views().count(), 1);
}

#[test]
fn without_a_key_a_machine_waits_until_it_is_approved() {
    let mut network = closed();
    let inside = join(&mut network, with_key(1, &text(1)));
    let outside = join(&mut network, config(2));
    assert_eq!(network.machines[outside].events, [Event::Waiting]);
    assert!(network.machines[inside].peers.is_empty(), "nobody hears of it");
    network.advance(Duration::from_secs(600));
    assert!(network.machines[outside].conn.is_some(), "it may wait for long");
    network.server.approve(2, network.now).unwrap();
    network.settle();
    assert!(network.machines[outside].client.is_registered());
    network.assert_agreement();
    assert_eq!(network.machines[inside].peers[&2].name, "machine-2");
}

#[test]
fn names_are_unique_where_somebody_lets_machines_in() {
    let mut network = closed();
    let named = |number, name: &str| ClientConfig { name: name.into(), ..with_key(number, &text(2)) };
    join(&mut network, named(1, "web"));
    let second = join(&mut network, named(2, "web"));
    let names: Vec<_> = network.server.nodes().map(|node| node.name.clone()).collect();
    assert_eq!(names, ["web", "web-2"]);
    // And nobody takes another name by asking for it.
    network.disconnect(second);
    join(&mut network, named(2, "database"));
    assert_eq!(network.server.nodes().nth(1).unwrap().name, "web-2");
}

#[test]
fn a_revoked_node_is_forgotten_by_all_and_does_not_come_back() {
    let mut network = closed();
    let watcher = join(&mut network, with_key(1, &text(1)));
    let gone = join(&mut network, with_key(2, &text(2)));
    network.server.revoke(2, network.now).unwrap();
    network.settle();
    assert_eq!(refusal(&network, gone), Some(Refusal::Revoked));
    assert!(network.machines[watcher].peers.is_empty());
    let again =
        join(&mut network, ClientConfig { node_key: KeyPair::new([77; 32]), ..with_key(2, &text(2)) });
    assert_eq!(refusal(&network, again), Some(Refusal::Revoked), "not even with another node key");
}

#[test]
fn a_rotated_key_reaches_all_and_the_old_one_is_free() {
    let mut network = Network::new();
    (1..=2).for_each(|number| {
        network.join(number);
    });
    network.machines[0].client.rotate(KeyPair::new(key(9, 1)));
    network.settle();
    assert_eq!(network.machines[1].peers[&1].node_key, coord::public_key(&key(9, 1)));
    let told = network.machines[0].maps().filter_map(|map| match map {
        MapUpdate::Delta(delta) => delta.you.as_ref().map(|you| you.node_key),
        MapUpdate::Full(_) => None,
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [coord::public_key(&key(9, 1))],
        "the node itself learns that it is in force"
    );
    network.assert_agreement();
    // The other cannot take a key that is in use.
    network.machines[1].client.rotate(KeyPair::new(key(9, 1)));
    network.settle();
    assert_eq!(refusal(&network, 1), Some(Refusal::NodeKeyTaken));
}

#[test]
fn a_node_key_ends_when_it_ends_and_a_new_one_goes_on() {
    let mut network = Network::new();
    let lifetime = Some(Duration::from_secs(3600));
    let config0 = ServerConfig { key_lifetime: lifetime, ..ServerConfig::new(SERVER_PRIVATE, vec![relay()]) };
    network.server = Server::new(config0, rng(1), network.now);
    (1..=2).for_each(|number| {
        network.join(number);
    });
    network.advance(Duration::from_secs(1800));
    network.machines[1].client.rotate(KeyPair::new(key(9, 2)));
    network.advance(Duration::from_secs(1801));
    assert_eq!(refusal(&network, 0), Some(Refusal::KeyExpired));
    assert!(network.machines[1].client.is_registered() && network.machines[1].peers.is_empty());
    let again = network.join(1);
    assert_eq!(refusal(&network, again), Some(Refusal::KeyExpired), "the same key stays at its end");
    let fresh = join(&mut network, ClientConfig { node_key: KeyPair::new(key(9, 1)), ..config(1) });
    assert_eq!(network.machines[fresh].id(), 1, "the same node, with the same address");
    network.assert_agreement();
}

#[test]
fn where_keys_cannot_be_renewed_a_rotated_one_ends_when_the_first_would_have() {
    let mut network = Network::new();
    let lifetime = Some(Duration::from_secs(3600));
    let config0 = ServerConfig {
        key_lifetime: lifetime,
        renewable: false,
        ..ServerConfig::new(SERVER_PRIVATE, vec![relay()])
    };
    network.server = Server::new(config0, rng(1), network.now);
    (1..=2).for_each(|number| {
        network.join(number);
    });
    network.advance(Duration::from_secs(1800));
    network.machines[1].client.rotate(KeyPair::new(key(9, 2)));
    network.disconnect(0);
    network.machines[0].client.rotate(KeyPair::new(key(9, 1)));
    network.settle();
    network.connect(0);
    network.settle();
    network.advance(Duration::from_secs(1799));
    assert!((0..2).all(|machine| network.machines[machine].client.is_registered()));
    network.advance(Duration::from_secs(2));
    assert_eq!(
        (0..2).map(|machine| refusal(&network, machine)).collect::<Vec<_>>(),
        [Some(Refusal::KeyExpired); 2]
    );
}

#[test]
fn a_client_that_comes_back_is_told_what_it_missed() {
    let mut network = Network::new();
    (1..=30).for_each(|number| {
        network.join(number);
    });
    network.disconnect(0);
    network.settle();
    network.machines[7].client.update(Update { home_relay: Some(3), ..Update::default() });
    network.settle();
    network.server.remove_node(9, network.now).unwrap();
    network.settle();
    let conn = network.connect(0);
    network.settle();
    network.assert_agreement();
    let Some(MapUpdate::Delta(delta)) = network.machines[0].maps().last() else { panic!("a full map") };
    let added: Vec<_> = delta.added.iter().map(|node| node.id).collect();
    assert_eq!((added, &delta.removed), (vec![8], &vec![9]));
    assert!(network.to_clients[&conn] < 2000, "{} bytes", network.to_clients[&conn]);
}

#[test]
fn a_map_that_the_server_cannot_continue_is_sent_whole() {
    let limits = Limits { removals: 1, ..Limits::default() };
    let mut network = Network::with(limits, 1);
    (1..=4).for_each(|number| {
        network.join(number);
    });
    network.disconnect(0);
    for id in [2, 3] {
        network.server.remove_node(id, network.now).unwrap();
        network.settle();
    }
    network.connect(0);
    network.settle();
    assert!(matches!(network.machines[0].maps().last(), Some(MapUpdate::Full(_))), "too long ago");
    network.assert_agreement();
    // Another run of the server, as after a restart.
    let stranger = network.add(config(9));
    network.machines[stranger].client.remember(MapVersion { run: 1, generation: 1 });
    network.connect(stranger);
    network.settle();
    assert!(matches!(network.machines[stranger].maps().last(), Some(MapUpdate::Full(_))));
}

#[test]
fn access_rules_and_relays_reach_everybody_when_they_change() {
    let mut network = Network::new();
    (1..=2).for_each(|number| {
        network.join(number);
    });
    let access: Access =
        serde_json::from_str(r#"{"rules": [{"from": ["machine-1"], "to": ["*"]}]}"#).unwrap();
    network.server.set_access(Some(access.clone()), network.now).unwrap();
    network.server.set_relays(Some(Vec::new()), network.now).unwrap();
    network.settle();
    let Some(MapUpdate::Delta(delta)) = network.machines[1].maps().last() else { panic!("no delta") };
    assert_eq!((&delta.access, &delta.relays), (&Some(Some(access.clone())), &Some(Vec::new())));
    let late = network.join(3);
    let Some(MapUpdate::Full(map)) = network.machines[late].maps().next() else { panic!("no map") };
    assert_eq!((&map.access, map.relays.len()), (&Some(access), 0));
}

#[test]
fn nobody_hears_of_what_is_not_stored() {
    let mut network = Network::new();
    network.server =
        Server::load(ServerConfig::new(SERVER_PRIVATE, vec![relay()]), State::default(), rng(1), start());
    let mut disk = State::default();
    network.join(1);
    assert!(!network.machines[0].client.is_registered());
    let write = network.server.poll_store().unwrap();
    assert_eq!(network.server.poll_store(), None, "one at a time");
    let second = network.add(config(2));
    network.connect(second);
    network.settle();
    disk.apply(&write);
    network.server.stored(write.id, network.now);
    network.settle();
    assert!(network.machines[0].client.is_registered() && !network.machines[1].client.is_registered());
    assert!(network.machines[0].peers.is_empty(), "the second is not stored yet");
    let write = network.server.poll_store().unwrap();
    disk.apply(&write);
    network.server.stored(write.id, network.now);
    network.settle();
    assert!(network.machines[1].client.is_registered());
    network.assert_agreement();
    // What was stored by now is enough to go on with: numbers, addresses, keys and what nodes had reported.
    let again = Server::load(ServerConfig::new(SERVER_PRIVATE, vec![relay()]), disk, rng(2), network.now);
    let known =
        |server: &Server| server.nodes().map(|node| (node.tunnel_ip, node.disco_key)).collect::<Vec<_>>();
    assert_eq!(known(&again), known(&network.server));
    network.server = again;
    network.machines.iter_mut().for_each(|machine| machine.conn = None);
    let third = network.add(config(3));
    network.connect(third);
    network.settle();
    let write = network.server.poll_store().unwrap();
    network.server.stored(write.id, network.now);
    network.settle();
    assert_eq!(network.machines[third].id(), 3, "no address is given twice");
}

#[test]
fn numbers_are_not_soon_given_again_even_over_a_restart() {
    let mut server =
        Server::load(ServerConfig::new(SERVER_PRIVATE, vec![]), State::default(), rng(1), start());
    let mut disk = State::default();
    let mut network = Network::new();
    std::mem::swap(&mut network.server, &mut server);
    network.join(1);
    let write = network.server.poll_store().unwrap();
    disk.apply(&write);
    network.server.stored(write.id, network.now);
    network.server.remove_node(1, network.now).unwrap();
    disk.apply(&network.server.poll_store().unwrap());
    assert!(disk.nodes.is_empty());
    network.server = Server::load(ServerConfig::new(SERVER_PRIVATE, vec![]), disk, rng(2), network.now);
    network.join(2);
    assert_eq!(network.server.node_views().next().unwrap().info.id, 2);
}

#[test]
fn those_who_wait_are_limited() {
    let mut network = closed();
    let config0 = ServerConfig {
        admission: Admission::Approved,
        limits: Limits { waiting: 2, ..Limits::default() },
        ..ServerConfig::new(SERVER_PRIVATE, vec![])
    };
    network.server = Server::new(config0, rng(1), network.now);
    let machines: Vec<_> = (1..=3).map(|number| join(&mut network, config(number))).collect();
    assert_eq!(refusal(&network, machines[2]), Some(Refusal::TooManyWaiting));
    // Who has gone makes room.
    network.disconnect(machines[0]);
    let another = join(&mut network, config(4));
    assert_eq!(network.machines[another].events, [Event::Waiting]);
    assert!(network.server.node_views().all(|node| node.standing == Standing::Waiting));
}

#[test]
fn a_flood_of_updates_costs_the_others_two_a_second() {
    let mut network = Network::new();
    (1..=2).for_each(|number| {
        network.join(number);
    });
    let before = network.server.generation();
    for port in 0..1000u16 {
        let endpoints = vec![format!("192.0.2.1:{port}").parse().unwrap()];
        network.machines[0].client.update(Update { endpoints, ..Update::default() });
        network.pump();
        network.advance(Duration::from_millis(20));
    }
    network.advance(Duration::from_secs(1));
    let deltas = network.server.generation() - before;
    assert!((60..80).contains(&deltas), "{deltas} in twenty seconds");
    assert_eq!(network.machines[1].peers[&1].endpoints[0].port(), 999, "the last counts");
}

#[test]
fn a_machine_that_waits_is_told_in_the_servers_events() {
    let mut network = closed();
    join(&mut network, config(1));
    assert!(
        matches!(&network.server_events[..], [ServerEvent::Waits { id: 1, name, .. }] if name == "machine-1")
    );
}
