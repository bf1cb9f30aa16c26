//! Our peer, through our coordination server and our relay, with boringtun on the other end of the tunnel. All on one virtual
//! clock; UDP gets nowhere, so that the relay carries everything.

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use bytes::Bytes;
use coord::client::{Client as CoordClient, ClientConfig as CoordConfig};
use coord::server::{Server as CoordServer, ServerConfig, ServerTransmit};
use derp::{Class, ClientEvent};
use mock_instant::MockClock;
use peer::{Config, ConnId, Event, Input, Keys, Peer, Policy, Transmit};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use wireguard::{Kind, public_key};

const SECOND: Duration = Duration::from_secs(1);
/// boringtun has no deadline to ask for: its timers are polled this often.
const STEP: Duration = Duration::from_millis(100);
const COORDINATOR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 443);
const RELAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2)), 443);
const OURS: [u8; 32] = [0x11; 32];
const THEIRS: [u8; 32] = [0x22; 32];
/// Space in a stream, all that anybody ever needs here.
const SPACE: usize = 1 << 16;
/// The streams of the other side, to either server. Those of our peer have its own numbers.
const OTHER: u64 = 1 << 40;

/// A network of two.
struct Net {
    now: Instant,
    start: Instant,
    peer: Peer,
    /// Where each of the peer's streams leads.
    conns: BTreeMap<u64, SocketAddr>,
    coordinator: CoordServer,
    relay: derp::Server,
    /// What the other side is made of.
    tunn: Tunn,
    registration: CoordClient,
    relayed: derp::Client,
    addresses: [Option<Ipv4Addr>; 2],
    we_received: Vec<Bytes>,
    they_received: Vec<Bytes>,
    /// Initiations that crossed, ours and theirs, in seconds.
    initiations: [Vec<u64>; 2],
}

fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

impl Net {
    #[expect(clippy::disallowed_methods, reason = "a test has to begin somewhere")]
    fn new() -> Net {
        let now = Instant::now();
        let relay_key = derp::PrivateKey::from_bytes([7; 32]);
        let info = coord::RelayInfo {
            region: 1,
            name: "relay".into(),
            key: relay_key.public().0,
            addr: RELAY.ip(),
            addr6: None,
            derp_ports: vec![443],
            tls: None,
            stun: Vec::new(),
        };
        let coordinator = CoordServer::new(ServerConfig::new([9; 32], vec![info]), rng(1), now);
        let config = Config {
            name: "takkie".into(),
            keys: Keys { node: OURS, disco: [0x12; 32], machine: [0x13; 32] },
            coordinator: vec![COORDINATOR],
            coordinator_key: coordinator.public_key(),
            coordinator_host: String::new(),
            auth_key: None,
            coordinator_tls: None,
            authorities: None,
            epoch: Duration::from_secs(1_800_000_000),
            proxy: None,
            map: None,
            policy: Policy::default(),
        };
        let registration = CoordConfig {
            machine_key: [0x23; 32],
            server_key: coordinator.public_key(),
            name: "flappie".into(),
            node_key: coord::KeyPair::new(THEIRS),
            disco_key: coord::KeyPair::new([0x24; 32]),
            host: String::new(),
            auth_key: None,
        };
        let client = derp::ClientConfig {
            home: true,
            ..derp::ClientConfig::new(derp::PrivateKey::from_bytes(THEIRS), "relay")
        };
        let tunn =
            Tunn::new(StaticSecret::from(THEIRS), PublicKey::from(public_key(&OURS)), None, None, 7, None);
        let mut net = Net {
            now,
            start: now,
            peer: Peer::new(config, rng(2), now),
            conns: BTreeMap::new(),
            coordinator,
            relay: derp::Server::new(derp::ServerConfig::default(), relay_key, rng(3), now),
            tunn,
            registration: CoordClient::new(registration, rng(4), now),
            relayed: derp::Client::new(client, rng(5), now),
            addresses: [None, None],
            we_received: Vec::new(),
            they_received: Vec::new(),
            initiations: [Vec::new(), Vec::new()],
        };
        net.registration.update(coord::Update { home_relay: Some(1), ..coord::Update::default() });
        net.open(OTHER, COORDINATOR);
        net.registration.connected(now);
        net.open(OTHER, RELAY);
        net.relayed.connected(now);
        let local = "192.168.1.2:41641".parse().expect("an address");
        net.peer.handle(Input::Addresses(&[local]), now);
        net.run_for(2 * SECOND);
        assert!(net.addresses.iter().all(Option::is_some), "both are registered");
        net
    }

    fn open(&mut self, conn: u64, to: SocketAddr) {
        let from = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 1).into(), 1024 + (conn % 60_000) as u16);
        if to == COORDINATOR {
            self.coordinator.accepted(coord::server::ConnId(conn), from, self.now);
            self.coordinator.writable(coord::server::ConnId(conn), SPACE, self.now);
        } else {
            self.relay.accepted(derp::ConnId(conn), from, self.now);
            self.relay.writable(derp::ConnId(conn), SPACE, self.now);
        }
    }

    fn hand_over(&mut self, conn: u64, to: SocketAddr, data: &[u8]) {
        if to == COORDINATOR {
            self.coordinator.handle_stream(coord::server::ConnId(conn), data, self.now);
        } else {
            self.relay.handle_stream(derp::ConnId(conn), data, self.now);
        }
    }

    /// Carries everything across until nobody has more to say.
    fn exchange(&mut self) {
        while self.carry_peer() | self.carry_servers() | self.carry_other() {}
    }

    fn carry_peer(&mut self) -> bool {
        let mut moved = false;
        while let Some(event) = self.peer.poll_event() {
            match event {
                Event::Registered { tunnel: IpAddr::V4(ip), .. } => self.addresses[0] = Some(ip),
                Event::Packet { data, .. } => self.we_received.push(data),
                _ => {}
            }
        }
        while let Some(transmit) = self.peer.poll_transmit() {
            moved = true;
            match transmit {
                Transmit::Datagram { .. } => {}
                Transmit::Connect { conn, to } => {
                    let key = u64::from(conn.0);
                    self.conns.insert(key, to);
                    self.open(key, to);
                    self.peer.handle(Input::Connected(conn), self.now);
                    self.peer.handle(Input::Writable(conn, SPACE), self.now);
                }
                Transmit::Write { conn, data } => {
                    let key = u64::from(conn.0);
                    self.hand_over(key, self.conns[&key], &data);
                    self.peer.handle(Input::Writable(conn, SPACE), self.now);
                }
                Transmit::Close(conn) => {
                    let key = u64::from(conn.0);
                    match self.conns.remove(&key) {
                        Some(COORDINATOR) => self.coordinator.closed(coord::server::ConnId(key), self.now),
                        _ => self.relay.closed(derp::ConnId(key), self.now),
                    }
                }
            }
        }
        moved
    }

    fn carry_servers(&mut self) -> bool {
        let mut moved = false;
        while let Some(transmit) = self.coordinator.poll_transmit() {
            moved = true;
            match transmit {
                ServerTransmit::Write { conn, data } => {
                    self.coordinator.writable(conn, SPACE, self.now);
                    if conn.0 == OTHER {
                        self.registration.handle_stream(&data, self.now).expect("a server that speaks to it");
                    } else {
                        self.peer.handle(Input::Stream(ConnId(conn.0 as u32), &data), self.now);
                    }
                }
                ServerTransmit::Close { conn } => panic!("the coordination server has closed {conn:?}"),
            }
        }
        while let Some(transmit) = self.relay.poll_transmit() {
            moved = true;
            match transmit {
                derp::ServerTransmit::Write { conn, data } => {
                    self.relay.writable(conn, SPACE, self.now);
                    if conn.0 == OTHER {
                        self.relayed.handle_stream(&data, self.now).expect("a relay that speaks to it");
                    } else {
                        self.peer.handle(Input::Stream(ConnId(conn.0 as u32), &data), self.now);
                    }
                }
                derp::ServerTransmit::Close { conn } => panic!("the relay has closed {conn:?}"),
                derp::ServerTransmit::Hold { .. } => {}
            }
        }
        while self.relay.poll_event().is_some() {}
        while self.coordinator.poll_event().is_some() {}
        moved
    }

    fn carry_other(&mut self) -> bool {
        let mut moved = false;
        while let Some(event) = self.registration.poll_event() {
            if let coord::client::Event::Registered { tunnel_ip: IpAddr::V4(ip), .. } = event {
                self.addresses[1] = Some(ip);
            }
        }
        while let Some(event) = self.relayed.poll_event() {
            let ClientEvent::Packet { data, .. } = event else { continue };
            // Discovery messages: the other side has never heard of them, and does without.
            if let Some(kind) = Kind::of(&data) {
                self.cross(0, kind);
                let mut buffer = vec![0; SPACE];
                let mut result = self.tunn.decapsulate(None, &data, &mut buffer);
                // After an answer, boringtun wants to be asked for what it had queued.
                while let TunnResult::WriteToNetwork(answer) = result {
                    let answer = Bytes::copy_from_slice(answer);
                    self.send_to_us(answer);
                    result = self.tunn.decapsulate(None, &[], &mut buffer);
                }
                match result {
                    TunnResult::WriteToTunnelV4(packet, _) => {
                        self.they_received.push(Bytes::copy_from_slice(packet));
                    }
                    TunnResult::Done | TunnResult::Err(WireGuardError::UnexpectedPacket) => {}
                    other => panic!("boringtun: {other:?}"),
                }
            }
        }
        while let Some(data) = self.registration.poll_transmit(SPACE) {
            moved = true;
            self.hand_over(OTHER, COORDINATOR, &data);
        }
        while let Some(data) = self.relayed.poll_transmit(SPACE) {
            moved = true;
            self.hand_over(OTHER, RELAY, &data);
        }
        moved
    }

    fn cross(&mut self, side: usize, kind: Kind) {
        if kind == Kind::Initiation {
            self.initiations[side].push((self.now - self.start).as_secs());
        }
    }

    fn send_to_us(&mut self, data: Bytes) {
        self.cross(1, Kind::of(&data).expect("a WireGuard message"));
        let to = derp::PublicKey(public_key(&OURS));
        self.relayed.send(to, data, Class::Data, self.now);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.exchange();
        while self.now < end {
            self.now += STEP;
            MockClock::advance(STEP);
            self.peer.handle_timeout(self.now);
            self.coordinator.handle_timeout(self.now);
            self.relay.handle_timeout(self.now);
            self.registration.handle_timeout(self.now);
            self.relayed.handle_timeout(self.now);
            let mut buffer = vec![0; SPACE];
            if let TunnResult::WriteToNetwork(data) = self.tunn.update_timers(&mut buffer) {
                let data = Bytes::copy_from_slice(data);
                self.send_to_us(data);
            }
            self.exchange();
        }
    }

    /// An IPv4 packet from one side to the other.
    fn packet(&self, from: usize, tag: u32) -> Bytes {
        let [src, dst] = [from, 1 - from].map(|side| self.addresses[side].expect("it is registered"));
        let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 253, 0, 0];
        packet.extend(src.octets().into_iter().chain(dst.octets()).chain(tag.to_be_bytes()));
        packet.into()
    }

    fn we_send(&mut self, tag: u32) {
        let packet = self.packet(0, tag);
        self.peer.handle(Input::Packet(&packet), self.now);
    }

    fn they_send(&mut self, tag: u32) {
        let packet = self.packet(1, tag);
        let mut buffer = vec![0; SPACE];
        if let TunnResult::WriteToNetwork(data) = self.tunn.encapsulate(&packet, &mut buffer) {
            let data = Bytes::copy_from_slice(data);
            self.send_to_us(data);
        }
    }

    /// A packet each second and way for five minutes, and every one of them arrives.
    fn talk(&mut self) {
        let count = 300;
        for tag in 0..count {
            self.we_send(tag);
            self.they_send(tag);
            self.run_for(SECOND);
        }
        let from = |side: usize| (0..count).map(|tag| self.packet(side, tag)).collect::<Vec<_>>();
        assert!(self.they_received == from(0), "they received {}", self.they_received.len());
        assert!(self.we_received == from(1), "we received {}", self.we_received.len());
    }
}

/// Gaps between handshakes, in seconds.
fn gaps(times: &[u64]) -> Vec<u64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn our_peer_begins_and_renews_a_session_with_boringtun() {
    let mut net = Net::new();
    net.we_send(1000);
    net.run_for(SECOND);
    assert_eq!(net.they_received, [net.packet(0, 1000)]);
    net.they_received.clear();

    net.talk();

    let [ours, theirs] = &net.initiations;
    // REKEY-AFTER-TIME (WireGuard's paper, §6.1): whoever began the session begins the next one.
    assert_eq!(gaps(ours), [120, 120]);
    assert_eq!(theirs.len(), 0, "{theirs:?}");
}

#[test]
fn boringtun_begins_and_renews_a_session_with_our_peer() {
    let mut net = Net::new();
    net.they_send(1000);
    net.run_for(SECOND);
    assert_eq!(net.we_received, [net.packet(1, 1000)]);
    net.we_received.clear();

    net.talk();

    let [ours, theirs] = &net.initiations;
    assert_eq!(gaps(theirs), [120, 120]);
    assert_eq!(ours.len(), 0, "{ours:?}");
}
