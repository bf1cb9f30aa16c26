use super::*;
use crate::{Program, RelayProgram, Secured, Security, TLS_PORT};
use bytes::Bytes;
use derp::ServerConfig;
use std::collections::BTreeMap;
use tls::{Clock, Identity};

const SECOND: Duration = Duration::from_secs(1);

/// An end of a connection: at a relay, or at one of the clients.
type End = (usize, ConnId);

/// Two relays of one region behind their TLS, and clients on their plain port.
struct Bench {
    now: Instant,
    relays: Vec<Secured<RelayProgram>>,
    clients: BTreeMap<End, Client>,
    links: BTreeMap<End, End>,
    next: u64,
    /// Whether the relays reach each other.
    open: bool,
    connects: usize,
    log: Vec<String>,
}

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

fn address(relay: usize) -> std::net::SocketAddr {
    ([192, 0, 2, relay as u8], TLS_PORT).into()
}

impl Bench {
    /// `trusted`: the keys by which each relay knows the other.
    fn new(trusted: [u8; 2]) -> Bench {
        Bench::with_secrets(trusted, ["the region's secret"; 2])
    }

    /// `secrets`: what each of them takes for the region's.
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn with_secrets(trusted: [u8; 2], secrets: [&str; 2]) -> Bench {
        let now = Instant::now();
        let clock = Clock::new(1000 * SECOND, now);
        let rng = ChaCha12Rng::seed_from_u64;
        let identity =
            |n: u8| Identity::self_signed([n; 32], &["relay"], Duration::ZERO, 2000 * SECOND).unwrap();
        let relay = |n: u8| {
            let secret = MeshKey::new(secrets[usize::from(n)]).unwrap();
            let mesh_key = Some(secret.clone());
            let config = ServerConfig { mesh_key, max_mesh_clients: 2, ..ServerConfig::default() };
            let server = Server::new(config, key(n), rng(n.into()), now);
            let other = 1 - n;
            let tls = peer::ServerTls {
                ports: vec![TLS_PORT],
                name: "relay".to_owned(),
                trust: tls::ClientConfig::pinned(identity(other).pin()),
            };
            let sibling = Sibling {
                name: format!("relay{other}").into(),
                key: key(trusted[usize::from(n)]).public(),
                at: Upstream {
                    addresses: vec![address(other.into())],
                    tls: Some(tls),
                    clock,
                    rng: rng(10 + u64::from(n)),
                },
            };
            let name: Name = format!("relay{n}").into();
            let program = RelayProgram::new(name, server).with_mesh(&key(n), &secret, vec![sibling], now);
            let config = tls::ServerConfig::new(&identity(n)).unwrap();
            let security = Security { ports: vec![TLS_PORT], config, clock, rng: rng(20 + u64::from(n)) };
            Secured::new(program, security, now)
        };
        let mut bench = Bench {
            now,
            relays: vec![relay(0), relay(1)],
            clients: BTreeMap::new(),
            links: BTreeMap::new(),
            next: ConnId::FIRST_ACCEPTED,
            open: true,
            connects: 0,
            log: Vec::new(),
        };
        bench.run();
        bench
    }

    fn accept(&mut self, relay: usize, port: u16) -> ConnId {
        let conn = ConnId(self.next);
        self.next += 1;
        let from = ([198, 51, 100, 1], 4000).into();
        self.relays[relay].handle(Input::Accepted { conn, port, from }, self.now);
        self.relays[relay].handle(Input::Writable { conn, space: 1 << 20 }, self.now);
        conn
    }

    /// A client of a relay, and its key.
    fn join(&mut self, relay: usize, n: u8) -> (End, PublicKey) {
        let conn = self.accept(relay, 80);
        let mut client =
            Client::new(ClientConfig::new(key(n), "relay"), ChaCha12Rng::seed_from_u64(n.into()), self.now);
        client.connected(self.now);
        self.clients.insert((relay, conn), client);
        self.run();
        ((relay, conn), key(n).public())
    }

    /// What a client got from whom after another sent it this.
    fn send(&mut self, from: End, to: (End, PublicKey), packet: &'static [u8]) -> Vec<(PublicKey, Bytes)> {
        let now = self.now;
        let client = self.clients.get_mut(&from).unwrap();
        client.send(to.1, Bytes::from_static(packet), Class::Data, now);
        self.run();
        let client = self.clients.get_mut(&to.0).unwrap();
        let events = std::iter::from_fn(|| client.poll_event());
        let packet = |event| match event {
            ClientEvent::Packet { src, data } => Some((src, data)),
            _ => None,
        };
        events.filter_map(packet).collect()
    }

    fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some((at, _)) = self.relays.iter().filter_map(Program::poll_timeout).min()
            && at <= until
        {
            self.now = self.now.max(at);
            self.run();
        }
        self.now = until;
        self.run();
    }

    /// Closes every connection between the relays, or none can be opened from here on.
    fn cut(&mut self) {
        for (relay, conn) in std::mem::take(&mut self.links).into_keys() {
            self.relays[relay].handle(Input::Closed { conn }, self.now);
        }
        self.run();
    }

    fn run(&mut self) {
        let mut quiet = false;
        while !std::mem::replace(&mut quiet, true) {
            for relay in 0..self.relays.len() {
                self.relays[relay].handle_timeout(self.now);
                while let Some(output) = self.relays[relay].poll_output() {
                    quiet = false;
                    self.output(relay, output);
                }
            }
            for ((relay, conn), client) in &mut self.clients {
                while let Some(data) = client.poll_transmit(1 << 20) {
                    quiet = false;
                    self.relays[*relay].handle(Input::Stream { conn: *conn, data: &data }, self.now);
                }
            }
        }
    }

    fn output(&mut self, relay: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Connect { conn, to } => {
                assert_eq!(to, address(1 - relay));
                self.connects += 1;
                if !self.open {
                    return self.relays[relay].handle(Input::Closed { conn }, now);
                }
                let other = (1 - relay, self.accept(1 - relay, TLS_PORT));
                self.links.insert((relay, conn), other);
                self.links.insert(other, (relay, conn));
                self.relays[relay].handle(Input::Connected { conn }, now);
                self.relays[relay].handle(Input::Writable { conn, space: 1 << 20 }, now);
            }
            Output::Write { conn, data } => {
                self.relays[relay].handle(Input::Writable { conn, space: 1 << 20 }, now);
                if let Some(client) = self.clients.get_mut(&(relay, conn)) {
                    client.handle_stream(&data, now).unwrap();
                } else if let Some(&(other, conn)) = self.links.get(&(relay, conn)) {
                    self.relays[other].handle(Input::Stream { conn, data: &data }, now);
                }
            }
            Output::Close { conn } => {
                if let Some(other) = self.links.remove(&(relay, conn)) {
                    self.links.remove(&other);
                    self.relays[other.0].handle(Input::Closed { conn: other.1 }, now);
                }
            }
            Output::Event(event) => {
                if let Event::Warning { what, .. } = *event {
                    self.log.push(what);
                }
            }
            output => panic!("{output:?}"),
        }
    }
}

#[test]
fn clients_of_two_relays_of_a_region_reach_each_other_over_tls() {
    let mut bench = Bench::new([1, 0]);
    let (a, b) = (bench.join(0, 7), bench.join(1, 8));
    assert_eq!(bench.send(a.0, b, b"over there"), [(a.1, Bytes::from_static(b"over there"))]);
    assert_eq!(bench.send(b.0, a, b"and back"), [(b.1, Bytes::from_static(b"and back"))]);
    assert_eq!(bench.connects, 2, "one link each way");
}

#[test]
fn a_link_that_breaks_is_opened_again_and_tells_who_is_there() {
    let mut bench = Bench::new([1, 0]);
    let (a, b) = (bench.join(0, 7), bench.join(1, 8));
    bench.open = false;
    bench.cut();
    assert_eq!(bench.send(a.0, b, b"lost"), []);
    bench.wait(20 * SECOND);
    let of_relay0 = bench.log.iter().filter(|line| line.contains("relay1: closed")).count();
    assert_eq!(of_relay0, 1, "one line for a relay that stays away: {:?}", bench.log);
    bench.open = true;
    bench.wait(crate::upstream::RETRY_MAX);
    assert_eq!(bench.send(a.0, b, b"again"), [(a.1, Bytes::from_static(b"again"))]);
}

#[test]
fn a_relay_with_another_key_is_not_told_the_secret() {
    let mut bench = Bench::new([9, 0]);
    let (a, b) = (bench.join(0, 7), bench.join(1, 8));
    assert_eq!(bench.send(a.0, b, b"x"), []);
    bench.wait(10 * SECOND);
    assert!(!bench.log.iter().any(|line| line.contains("relay1: up")), "{:?}", bench.log);
    assert!(!bench.relays[1].program().server().is_connected(&key(0).public()));
}

#[test]
fn a_relay_with_another_secret_is_told_apart_once_and_asks_ever_less_often() {
    let mut bench = Bench::with_secrets([1, 0], ["the region's secret", "a guess"]);
    let (a, b) = (bench.join(0, 7), bench.join(1, 8));
    assert_eq!(bench.send(a.0, b, b"x"), []);
    bench.wait(60 * SECOND);
    let said = |words: &str| bench.log.iter().filter(|line| line.contains(words)).count();
    assert_eq!((said("is its secret the same"), said(": up")), (2, 0), "{:?}", bench.log);
    // Waits of 1, 2, 4, 8, 16 and 32 s, or half of each, from both sides.
    assert!((10..=14).contains(&bench.connects), "{} attempts", bench.connects);
    assert!(said("no relay of this region") > 0, "{:?}", bench.log);
}

#[test]
fn a_relay_that_ends_opens_no_link_any_more() {
    let mut bench = Bench::new([1, 0]);
    bench.relays[0].handle(Input::Shutdown, bench.now);
    bench.run();
    bench.wait(2 * SECOND);
    assert!(bench.relays[0].is_finished());
    bench.cut();
    let before = bench.connects;
    bench.open = false;
    bench.wait(60 * SECOND);
    assert!(bench.connects > before, "the one that stays tries");
    let until = bench.relays[0].poll_timeout();
    assert_eq!(until, None);
}

#[test]
fn a_relay_that_names_too_many_clients_is_told_of_once_and_its_others_are_served() {
    let mut bench = Bench::new([1, 0]);
    let a = bench.join(0, 7);
    let [first, _, third, _] = [8, 9, 10, 11].map(|n| bench.join(1, n));
    assert_eq!(bench.send(a.0, first, b"x").len(), 1);
    assert_eq!(bench.send(a.0, third, b"x"), []);
    let told = bench.log.iter().filter(|line| line.contains("names more than 2 clients")).count();
    assert_eq!(told, 1, "{:?}", bench.log);
}
