//! What is written is there afterwards, whatever happens to the process.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a child talks to its parent"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coord::client::{Client, ClientConfig, Event};
use coord::server::{Admission, ConnId, NewKey, Server, ServerConfig, ServerTransmit};
use coord::state::State;
use coord_store::{Store, StoreError};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

const PRIVATE: [u8; 32] = [5; 32];
const DIRECTORY: &str = "COORD_STORE_TEST_DIRECTORY";

#[expect(clippy::disallowed_methods, reason = "a test starts the time somewhere")]
fn now() -> Instant {
    Instant::now()
}

fn load(state: State, seed: u64) -> Server {
    Server::load(ServerConfig::new(PRIVATE, Vec::new()), state, ChaCha12Rng::seed_from_u64(seed), now())
}

/// A machine registers over a perfect stream; gives its address once the server has said it.
fn register(server: &mut Server, store: &mut Store, conn: u64, machine_key: [u8; 32]) -> String {
    // A second for each machine: the server sends deltas in batches.
    let (conn, now) = (ConnId(conn), now() + Duration::from_secs(2 * conn));
    let config = ClientConfig {
        machine_key,
        server_key: coord::public_key(&PRIVATE),
        name: "machine".into(),
        node_key: coord::KeyPair::new(machine_key),
        disco_key: coord::KeyPair::new([1; 32]),
        host: String::new(),
        auth_key: None,
    };
    let mut client = Client::new(config, ChaCha12Rng::from_seed(machine_key), now);
    client.connected(now);
    server.accepted(conn, "192.0.2.1:1".parse().unwrap(), now);
    server.writable(conn, usize::MAX, now);
    loop {
        while let Some(bytes) = client.poll_transmit(usize::MAX) {
            server.handle_stream(conn, &bytes, now);
        }
        while let Some(write) = server.poll_store() {
            store.write(&write).unwrap();
            server.stored(write.id, now);
        }
        server.handle_timeout(now + Duration::from_secs(1));
        while let Some(transmit) = server.poll_transmit() {
            if let ServerTransmit::Write { data, conn: to } = transmit
                && to == conn
            {
                client.handle_stream(&data, now).unwrap();
            }
        }
        while let Some(event) = client.poll_event() {
            if let Event::Registered { tunnel_ip, .. } = event {
                server.closed(conn, now);
                return tunnel_ip.to_string();
            }
        }
    }
}

/// The child: registers machines for ever and says each one that was told its address.
#[test]
fn registers_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let (mut store, state) = Store::open(&Path::new(&directory).join("coord.redb")).unwrap();
    let seed = state.nodes.len() as u64;
    let (mut server, mut rng) = (load(state, seed), ChaCha12Rng::seed_from_u64(1000 + seed));
    for conn in 0.. {
        let mut machine = [0; 32];
        rng.fill_bytes(&mut machine);
        let address = register(&mut server, &mut store, conn, machine);
        let key = u64::from_be_bytes(*coord::public_key(&machine).first_chunk().unwrap());
        let mut out = std::io::stdout().lock();
        writeln!(out, "registered {key} {address}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn every_registration_that_was_told_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut told = BTreeMap::new();
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    for _ in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["registers_until_it_is_killed", "--exact", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let after = rng.random_range(0..12);
        let read = |line: std::io::Result<String>, told: &mut BTreeMap<u64, String>| {
            let line = line.unwrap();
            // The test harness may say something on the same line.
            if let Some((_, rest)) = line.split_once("registered ") {
                let (key, address) = rest.split_once(' ').unwrap();
                told.insert(key.parse().unwrap(), address.to_owned());
            }
        };
        let enough = told.len() + after;
        while told.len() < enough {
            read(lines.next().unwrap(), &mut told);
        }
        // Somewhere in the middle of what it does.
        let spins = rng.random_range(0..2_000_000u64);
        (0..spins).for_each(|spin| {
            std::hint::black_box(spin);
        });
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said by then counts, if the line is whole.
        lines.for_each(|line| read(line, &mut told));

        let (_, state) = Store::open(&directory.path().join("coord.redb")).unwrap();
        let machines = state.nodes.values().map(|node| {
            let key = u64::from_be_bytes(*node.machine.first_chunk().unwrap());
            (key, node.info.tunnel_ip.to_string())
        });
        let stored: BTreeMap<u64, String> = machines.collect();
        for (key, address) in &told {
            assert_eq!(stored.get(key), Some(address));
        }
        let addresses: BTreeSet<_> = stored.values().collect();
        assert_eq!(addresses.len(), stored.len(), "an address was given twice");
    }
    assert!(told.len() > 50, "{} registrations in all", told.len());
}

#[test]
fn keys_rules_and_numbers_are_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coord.redb");
    let (mut store, state) = Store::open(&path).unwrap();
    assert_eq!(state, State::default());
    let mut server = load(state, 1);
    register(&mut server, &mut store, 1, [9; 32]);
    let access = serde_json::from_str(r#"{"rules": [{"from": ["*"], "to": ["tag:web"]}]}"#).unwrap();
    server.set_access(Some(access), now()).unwrap();
    let (id, _) = server.create_key(NewKey { tags: vec!["web".into()], ..NewKey::default() }, now()).unwrap();
    let (unwanted, _) = server.create_key(NewKey::default(), now()).unwrap();
    while let Some(write) = server.poll_store() {
        store.write(&write).unwrap();
        server.stored(write.id, now());
    }
    server.delete_key(unwanted).unwrap();
    store.write(&server.poll_store().unwrap()).unwrap();
    drop(store);
    let (_, state) = Store::open(&path).unwrap();
    assert_eq!(state.keys.keys().collect::<Vec<_>>(), [&id]);
    assert_eq!((state.settings.last_node, state.settings.last_key), (1, unwanted));
    assert_eq!(state.settings.access.unwrap().rules.len(), 1);
    assert_eq!(state.nodes[&1].info.name, "machine");
    assert_eq!(Admission::default(), Admission::Anyone);
}

#[test]
fn a_file_of_another_version_is_told_from_a_damaged_and_a_foreign_one() {
    let directory = tempfile::tempdir().unwrap();
    let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let with = |name: &str, key: &str, value: &[u8]| {
        let path = directory.path().join(name);
        drop(Store::open(&path).unwrap());
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(table).unwrap().insert(key, value).unwrap();
        transaction.commit().unwrap();
        drop(database);
        Store::open(&path).unwrap_err()
    };
    let newer = with("newer", "schema", &99u32.to_be_bytes());
    assert!(matches!(newer, StoreError::TooNew { found: 99, .. }), "{newer}");
    assert!(newer.to_string().contains("start that version"), "{newer}");
    let older = with("older", "schema", &0u32.to_be_bytes());
    assert!(matches!(older, StoreError::TooOld { found: 0, .. }), "{older}");
    let damaged = with("damaged", "settings", b"{");
    assert!(damaged.to_string().contains("the settings is damaged"), "{damaged}");

    let path = directory.path().join("foreign");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u32, u32>::new("sheep")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let foreign = Store::open(&path).unwrap_err();
    assert!(matches!(foreign, StoreError::Foreign { .. }), "{foreign}");

    let path = directory.path().join("text");
    std::fs::write(&path, "this is no database, and longer than a header would be ".repeat(100)).unwrap();
    let told = Store::open(&path).unwrap_err().to_string();
    assert!(told.contains("text"), "{told}");
}

#[test]
fn a_store_whose_making_was_interrupted_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coord.redb");
    std::fs::write(path.with_extension("new"), b"half a file").unwrap();
    let (_, state) = Store::open(&path).unwrap();
    assert_eq!(state, State::default());
    assert!(path.exists() && !path.with_extension("new").exists());
}
