//! A server and its clients joined by streams that the tests can slow down or cut.

use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, ClientConfig, ClientEvent},
    keys::{PrivateKey, PublicKey},
    queue::Class,
    server::{ConnId, Server, ServerConfig, ServerEvent, ServerTransmit},
};

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

pub(crate) fn private(n: u64) -> PrivateKey {
    let mut bytes = [0x5a; 32];
    bytes[8..16].copy_from_slice(&n.to_le_bytes()); // the ends of a Curve25519 key are clamped
    PrivateKey::from_bytes(bytes)
}

/// A packet that looks like disco.
pub(crate) fn disco(tag: u8) -> Vec<u8> {
    let mut packet = b"TS\xf0\x9f\x92\xac".to_vec();
    packet.extend([tag; 60]);
    packet
}

pub(crate) struct Bench {
    pub(crate) now: Instant,
    pub(crate) server: Server,
    pub(crate) clients: BTreeMap<ConnId, Client>,
    /// Credit the server gets for a connection; all of it, if absent.
    pub(crate) slow: BTreeMap<ConnId, usize>,
    /// Bytes of each write to a client that are handed over at once.
    pub(crate) chunk: usize,
    pub(crate) closed: Vec<ConnId>,
    /// From whom the server does not read; what they write waits in them.
    pub(crate) held: BTreeMap<ConnId, bool>,
    pub(crate) events: Vec<ServerEvent>,
    /// Everything that went over any stream.
    pub(crate) wire: Vec<u8>,
}

impl Bench {
    pub(crate) fn new(config: ServerConfig) -> Self {
        Self::seeded(config, 0)
    }

    pub(crate) fn seeded(config: ServerConfig, seed: u64) -> Self {
        let now = start();
        Self {
            now,
            server: Server::new(config, private(1 << 32), rng(seed), now),
            clients: BTreeMap::new(),
            slow: BTreeMap::new(),
            chunk: usize::MAX,
            closed: Vec::new(),
            held: BTreeMap::new(),
            events: Vec::new(),
            wire: Vec::new(),
        }
    }

    /// Connects a client with the key of number `n` on connection `conn`, and runs.
    pub(crate) fn join(&mut self, conn: u64, n: u64) -> PublicKey {
        self.join_with(conn, ClientConfig::new(private(n), "relay"))
    }

    pub(crate) fn join_with(&mut self, conn: u64, config: ClientConfig) -> PublicKey {
        let mut client = Client::new(config, rng(1000 + conn), self.now);
        let key = client.public_key();
        client.connected(self.now);
        self.server.accepted(ConnId(conn), ([192, 0, 2, 1], conn as u16).into(), self.now);
        self.clients.insert(ConnId(conn), client);
        self.run();
        key
    }

    pub(crate) fn client(&mut self, conn: u64) -> &mut Client {
        self.clients.get_mut(&ConnId(conn)).unwrap()
    }

    /// Sends from a connection to a key, and runs.
    pub(crate) fn send(&mut self, conn: u64, dst: PublicKey, packet: &[u8]) {
        let now = self.now;
        let packet = bytes::Bytes::copy_from_slice(packet);
        let class = Class::of(&packet);
        self.client(conn).send(dst, packet, class, now);
        self.run();
    }

    /// Moves bytes until none are left to move.
    pub(crate) fn run(&mut self) {
        loop {
            let mut moved = false;
            for (conn, client) in &mut self.clients {
                let credit = self.slow.get(conn).copied().unwrap_or(1 << 20);
                self.server.writable(*conn, credit, self.now);
                while let Some(bytes) =
                    (self.held.get(conn) != Some(&true)).then(|| client.poll_transmit(1 << 20)).flatten()
                {
                    moved = true;
                    self.wire.extend_from_slice(&bytes);
                    for piece in bytes.chunks(self.chunk) {
                        self.server.handle_stream(*conn, piece, self.now);
                    }
                }
            }
            while let Some(transmit) = self.server.poll_transmit() {
                moved = true;
                match transmit {
                    ServerTransmit::Write { conn, data } => {
                        self.wire.extend_from_slice(&data);
                        if let Some(slow) = self.slow.get_mut(&conn) {
                            *slow -= data.len();
                        }
                        if let Some(client) = self.clients.get_mut(&conn) {
                            for piece in data.chunks(self.chunk) {
                                client.handle_stream(piece, self.now).unwrap();
                            }
                        }
                    }
                    ServerTransmit::Hold { conn, hold } => {
                        self.held.insert(conn, hold);
                    }
                    ServerTransmit::Close { conn } => {
                        self.closed.push(conn);
                        if let Some(mut client) = self.clients.remove(&conn) {
                            client.closed(self.now);
                        }
                    }
                }
            }
            self.events.extend(std::iter::from_fn(|| self.server.poll_event()));
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass, event by event.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let server = self.server.poll_timeout();
            let clients = self.clients.values().filter_map(Client::poll_timeout);
            let next = clients.chain(server).map(|(at, _)| at).min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => {
                    self.now = end;
                    return;
                }
            }
            self.server.handle_timeout(self.now);
            for client in self.clients.values_mut() {
                client.handle_timeout(self.now);
            }
            self.run();
        }
    }

    pub(crate) fn drain(&mut self, conn: u64) -> Vec<ClientEvent> {
        let client = self.client(conn);
        std::iter::from_fn(|| client.poll_event()).collect()
    }

    /// The packets a client got since last asked, its other events dropped.
    pub(crate) fn packets(&mut self, conn: u64) -> Vec<(PublicKey, Vec<u8>)> {
        let packet = |event| match event {
            ClientEvent::Packet { src, data } => Some((src, data.to_vec())),
            _ => None,
        };
        self.drain(conn).into_iter().filter_map(packet).collect()
    }
}
