//! A server and its clients over perfect in-memory streams.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coord::client::{Client, ClientConfig, Event};
use coord::server::{ConnId, Limits, Server, ServerConfig, ServerEvent, ServerTransmit};
use coord::{Error, KeyPair, MapUpdate, NodeInfo, RelayInfo};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

pub(crate) const SERVER_PRIVATE: [u8; 32] = [0x51; 32];

#[expect(clippy::disallowed_methods, reason = "a test starts the time somewhere")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// 32 bytes that differ for each number.
pub(crate) fn key(kind: u8, number: u64) -> [u8; 32] {
    let mut key = [kind; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn config(number: u64) -> ClientConfig {
    ClientConfig {
        machine_key: key(1, number),
        server_key: coord::public_key(&SERVER_PRIVATE),
        name: format!("machine-{number}"),
        node_key: KeyPair::new(key(2, number)),
        disco_key: KeyPair::new(key(3, number)),
        host: "coord.example".into(),
        auth_key: None,
    }
}

pub(crate) fn relay() -> RelayInfo {
    RelayInfo {
        region: 7,
        name: "seven".into(),
        key: [7; 32],
        addr: "192.0.2.7".parse().unwrap(),
        addr6: None,
        derp_ports: vec![443, 80],
        tls: None,
        stun: vec![address("192.0.2.7:3478")],
    }
}

/// A client and what it made of its events.
pub(crate) struct Machine {
    pub(crate) client: Client,
    pub(crate) conn: Option<ConnId>,
    pub(crate) result: Result<(), Error>,
    pub(crate) events: Vec<Event>,
    pub(crate) peers: BTreeMap<u32, NodeInfo>,
}

pub(crate) struct Network {
    pub(crate) now: Instant,
    pub(crate) server: Server,
    pub(crate) machines: Vec<Machine>,
    pub(crate) server_events: Vec<ServerEvent>,
    pub(crate) closed: BTreeSet<ConnId>,
    /// Bytes in both directions, as they were written.
    pub(crate) wire: Vec<u8>,
    pub(crate) to_clients: BTreeMap<ConnId, usize>,
    /// Machines whose maps are counted and not read; and those streams on which one has begun.
    pub(crate) unread: BTreeSet<usize>,
    cut: BTreeSet<ConnId>,
    next_conn: u64,
}

impl Network {
    pub(crate) fn new() -> Network {
        Network::with(Limits::default(), 1)
    }

    pub(crate) fn with(limits: Limits, seed: u64) -> Network {
        let now = start();
        let config = ServerConfig { limits, ..ServerConfig::new(SERVER_PRIVATE, vec![relay()]) };
        Network {
            now,
            server: Server::new(config, rng(seed), now),
            machines: Vec::new(),
            server_events: Vec::new(),
            closed: BTreeSet::new(),
            wire: Vec::new(),
            to_clients: BTreeMap::new(),
            unread: BTreeSet::new(),
            cut: BTreeSet::new(),
            next_conn: 0,
        }
    }

    /// Adds a machine without a stream.
    pub(crate) fn add(&mut self, config: ClientConfig) -> usize {
        let client = Client::new(config, rng(100 + self.machines.len() as u64), self.now);
        let (events, peers) = (Vec::new(), BTreeMap::new());
        self.machines.push(Machine { client, conn: None, result: Ok(()), events, peers });
        self.machines.len() - 1
    }

    pub(crate) fn connect(&mut self, machine: usize) -> ConnId {
        // Each is at home elsewhere: a source is limited.
        let conn = self.accept_from(&format!("10.0.{}.{}:40000", machine >> 8, machine & 0xff));
        self.machines[machine].conn = Some(conn);
        self.machines[machine].client.connected(self.now);
        conn
    }

    /// A stream of a client that is not one of ours.
    pub(crate) fn accept(&mut self) -> ConnId {
        self.accept_from("192.0.2.99:40000")
    }

    pub(crate) fn accept_from(&mut self, remote: &str) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.server.accepted(conn, address(remote), self.now);
        self.server.writable(conn, usize::MAX, self.now);
        conn
    }

    /// Adds a machine, connects it and lets things settle.
    pub(crate) fn join(&mut self, number: u64) -> usize {
        let machine = self.add(config(number));
        self.connect(machine);
        self.settle();
        machine
    }

    /// The stream ends on both sides.
    pub(crate) fn disconnect(&mut self, machine: usize) {
        let conn = self.machines[machine].conn.take().unwrap();
        self.machines[machine].client.closed(self.now);
        self.server.closed(conn, self.now);
    }

    /// Moves bytes until nobody has any.
    pub(crate) fn pump(&mut self) {
        loop {
            let mut moved = false;
            for index in 0..self.machines.len() {
                while let Some(bytes) = self.machines[index].client.poll_transmit(70_000) {
                    assert!(bytes.len() <= 70_000);
                    self.wire.extend_from_slice(&bytes);
                    let conn = self.machines[index].conn.expect("bytes without a stream");
                    self.server.handle_stream(conn, &bytes, self.now);
                    moved = true;
                }
            }
            while let Some(transmit) = self.server.poll_transmit() {
                moved = true;
                match transmit {
                    ServerTransmit::Write { conn, data } => {
                        *self.to_clients.entry(conn).or_default() += data.len();
                        if self.cut.contains(&conn) {
                            continue;
                        }
                        let owner = self.machines.iter().position(|machine| machine.conn == Some(conn));
                        // What the handshake needs is shorter.
                        if owner.is_some_and(|owner| self.unread.contains(&owner)) && data.len() > 1000 {
                            self.cut.insert(conn);
                            continue;
                        }
                        self.wire.extend_from_slice(&data);
                        if let Some(machine) = owner.map(|owner| &mut self.machines[owner])
                            && machine.result.is_ok()
                        {
                            machine.result = machine.client.handle_stream(&data, self.now);
                        }
                    }
                    ServerTransmit::Close { conn } => {
                        self.closed.insert(conn);
                        for machine in self.machines.iter_mut().filter(|machine| machine.conn == Some(conn)) {
                            machine.conn = None;
                            machine.client.closed(self.now);
                        }
                    }
                }
            }
            if !moved {
                break;
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.server_events.push(event);
        }
        for machine in &mut self.machines {
            machine.take_events();
        }
    }

    /// Pumps, and lets the batched deltas go out.
    pub(crate) fn settle(&mut self) {
        self.pump();
        self.advance(Duration::from_millis(20));
    }

    /// Lets time pass, with every deadline in it.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let deadlines = self.machines.iter().filter_map(|machine| machine.client.poll_timeout());
            let next = deadlines.chain(self.server.poll_timeout()).map(|(at, _)| at).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            assert!(next >= self.now, "a deadline lies in the past");
            self.now = next;
            for machine in &mut self.machines {
                machine.client.handle_timeout(self.now);
            }
            self.server.handle_timeout(self.now);
            self.pump();
        }
        self.now = end;
    }

    /// Every registered machine knows of every other node exactly what the server knows.
    pub(crate) fn assert_agreement(&self) {
        for machine in self.machines.iter().filter(|machine| machine.client.is_registered()) {
            let me = machine.id();
            let expected: BTreeMap<u32, NodeInfo> = self
                .server
                .nodes()
                .filter(|node| node.id != me)
                .map(|node| (node.id, node.clone()))
                .collect();
            assert_eq!(machine.peers, expected, "machine {me}");
            let version = machine.client.version().expect("a registered machine has a map");
            assert_eq!(version.generation, self.server.generation());
        }
    }
}

impl Machine {
    pub(crate) fn id(&self) -> u32 {
        let registered = self.events.iter().rev().find_map(|event| match event {
            Event::Registered { id, .. } => Some(*id),
            _ => None,
        });
        registered.expect("not registered")
    }

    pub(crate) fn maps(&self) -> impl Iterator<Item = &MapUpdate> {
        self.events.iter().filter_map(|event| match event {
            Event::Map(map) => Some(map),
            _ => None,
        })
    }

    fn take_events(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match &event {
                Event::Map(MapUpdate::Full(map)) => {
                    self.peers = map.peers.iter().map(|node| (node.id, node.clone())).collect();
                }
                Event::Map(MapUpdate::Delta(delta)) => {
                    delta.removed.iter().for_each(|id| {
                        self.peers.remove(id);
                    });
                    self.peers.extend(delta.added.iter().map(|node| (node.id, node.clone())));
                    for change in &delta.changed {
                        change
                            .clone()
                            .apply(self.peers.get_mut(&change.id).expect("a change of a known node"));
                    }
                }
                _ => {}
            }
            self.events.push(event);
        }
    }
}
