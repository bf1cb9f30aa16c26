//! Other people's client and tunnel with our peer, through our relay and our coordination server, all on sockets of this machine:
//! `ts_derp`, which dials, secures, upgrades and shakes hands by itself, carries what boringtun makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use bytes::Bytes;
use coord::client::{Client as CoordClient, ClientConfig as CoordConfig, Event as CoordEvent};
use daemon::{Handle, Options, TokioNet, drive};
use program::{COORDINATOR_PORTS, RELAY_PORTS, STUN_PORT, TLS_PORT};
use program::{CoordinatorProgram, PeerProgram, Program, RelayProgram, Secured, Security, UserOutput, Users};
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use trace::Path;
use ts_derp::{DefaultClient, IpUsage, ServerConnInfo, TlsValidationConfig, frame};
use ts_http_util::Client as _;
use ts_keys::{NodeKeyPair, NodePublicKey};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OURS: [u8; 32] = [0x11; 32];
const SPACE: usize = 1 << 16;

#[expect(clippy::disallowed_methods, reason = "real sockets, in real time")]
fn now() -> Instant {
    Instant::now()
}

fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("nothing happened for half a minute")
}

/// Sends what it is told and hands on what arrives.
struct Pipe {
    address: watch::Sender<Option<IpAddr>>,
    arrived: mpsc::UnboundedSender<(Bytes, Path)>,
    out: VecDeque<UserOutput>,
}

impl Users for Pipe {
    fn handle_packet(&mut self, _: &Arc<str>, data: &Bytes, via: Path, _: Instant) {
        let _ = self.arrived.send((data.clone(), via));
    }

    fn set_address(&mut self, address: IpAddr, _: Instant) {
        self.address.send_replace(Some(address));
    }

    fn poll_output(&mut self) -> Option<UserOutput> {
        self.out.pop_front()
    }
}

/// Our network: coordination server, relay, peer, each driven as its binary drives it.
struct Net {
    tasks: JoinSet<()>,
    coordinator: (SocketAddr, [u8; 32]),
    /// TLS, plain.
    relay: [SocketAddr; 2],
    peer: Handle<PeerProgram<Pipe>>,
    address: IpAddr,
    arrived: mpsc::UnboundedReceiver<(Bytes, Path)>,
}

impl Net {
    async fn start() -> Net {
        let mut tasks = JoinSet::new();
        let any = SocketAddr::new(LOOPBACK, 0);
        let net = || TokioNet::new().with_addresses(vec![LOOPBACK]);

        let clock = tls::Clock::new(Duration::from_secs(1_750_000_000), now());
        let (from, until) = (Duration::from_secs(1_700_000_000), Duration::from_secs(2_000_000_000));
        let identity = tls::Identity::self_signed([4; 32], &["relay.example"], from, until).unwrap();
        let key = derp::PrivateKey::from_bytes([7; 32]);
        let mut relay_net = net();
        let relay = RELAY_PORTS.map(|port| relay_net.bind_tcp(Some(port), any).unwrap());
        let stun = relay_net.bind_udp(Some(STUN_PORT), any).unwrap();
        let info = coord::RelayInfo {
            region: 1,
            name: "nl".into(),
            key: key.public().0,
            addr: LOOPBACK,
            addr6: None,
            derp_ports: vec![relay[0].port()],
            tls: Some(coord::RelayTls {
                ports: vec![relay[0].port()],
                pin: Some(identity.pin().0),
                name: String::new(),
            }),
            stun: vec![stun],
        };
        let server = derp::Server::new(derp::ServerConfig::default(), key, rng(1), now());
        let config = tls::ServerConfig::new(&identity).unwrap();
        let security = Security { ports: vec![TLS_PORT], config, clock, rng: rng(2) };
        let program = Secured::new(RelayProgram::new("nl".into(), server), security, now());
        run(&mut tasks, program, relay_net, Options::default());

        let mut coord_net = net();
        let [coordinator, _] = COORDINATOR_PORTS.map(|port| coord_net.bind_tcp(Some(port), any).unwrap());
        let config = coord::server::ServerConfig::new([9; 32], vec![info]);
        let server = coord::server::Server::new(config, rng(3), now());
        let coordinator = (coordinator, server.public_key());
        run(&mut tasks, CoordinatorProgram::new("coord".into(), server, None), coord_net, Options::default());

        let mut peer_net = net();
        let port = peer_net.bind_udp(None, any).unwrap().port();
        let config = peer::Config {
            name: "takkie".into(),
            keys: peer::Keys { node: OURS, disco: [0x12; 32], machine: [0x13; 32] },
            coordinator: vec![coordinator.0],
            coordinator_key: coordinator.1,
            coordinator_host: String::new(),
            auth_key: None,
            coordinator_tls: None,
            authorities: None,
            map: None,
            epoch: clock.unix(now()),
            policy: peer::Policy { loopback: true, ..peer::Policy::default() },
            proxy: None,
        };
        let (address, mut told) = watch::channel(None);
        let (sender, arrived) = mpsc::unbounded_channel();
        let pipe = Pipe { address, arrived: sender, out: VecDeque::new() };
        let core = peer::Peer::new(config, rng(4), now());
        let program = PeerProgram::new("takkie".into(), core, pipe, None, now()).with_port(port);
        let (peer, inbox) = Handle::new(64);
        run(&mut tasks, program, peer_net, Options { inbox: Some(inbox), ..Options::default() });
        let address = within(told.wait_for(Option::is_some)).await.unwrap().unwrap();
        Net { tasks, coordinator, relay, peer, address, arrived }
    }

    async fn send(&self, packet: Bytes) {
        let job = |program: &mut PeerProgram<Pipe>, now| {
            program.with(now, |_, pipe| pipe.out.push_back(UserOutput::Packet(packet)));
        };
        self.peer.call(job).await.unwrap();
    }
}

fn run<P: Program>(tasks: &mut JoinSet<()>, program: P, net: TokioNet, options: Options<P>) {
    tasks.spawn_local(async move {
        drive(program, net, options, std::future::pending()).await.unwrap();
    });
}

/// Makes a node with that private key known in the network, and says by which address; it stays for as long as the tasks run.
async fn register(net: &mut Net, node: [u8; 32], seed: u8) -> IpAddr {
    let config = CoordConfig {
        machine_key: [seed; 32],
        server_key: net.coordinator.1,
        name: "flappie".into(),
        node_key: coord::KeyPair::new(node),
        disco_key: coord::KeyPair::new([seed + 1; 32]),
        host: String::new(),
        auth_key: None,
    };
    let mut client = CoordClient::new(config, rng(seed.into()), now());
    client.update(coord::Update { home_relay: Some(1), ..coord::Update::default() });
    let mut stream = TcpStream::connect(net.coordinator.0).await.unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    net.tasks.spawn_local(async move {
        client.connected(now());
        let mut buffer = vec![0; SPACE];
        loop {
            while let Some(data) = client.poll_transmit(SPACE) {
                stream.write_all(&data).await.unwrap();
            }
            let due = client.poll_timeout().map_or(now(), |(at, _)| at);
            match tokio::time::timeout_at(due.into(), stream.read(&mut buffer)).await {
                Err(_) => client.handle_timeout(now()),
                Ok(Ok(len @ 1..)) => client.handle_stream(&buffer[..len], now()).unwrap(),
                Ok(_) => return,
            }
            while let Some(event) = client.poll_event() {
                if let CoordEvent::Registered { tunnel_ip, .. } = event {
                    tell.take().map(|tell| tell.send(tunnel_ip));
                }
            }
        }
    });
    within(told).await.unwrap()
}

/// Connects as `ts_derp` does to a server of its relay map whose certificate nobody vouches for: TCP, TLS, HTTP upgrade.
async fn secure(relay: SocketAddr, keys: &NodeKeyPair) -> DefaultClient {
    // With two providers in the build, its own choice would be ambiguous; a second installation changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = ServerConnInfo {
        hostname: "relay.example".into(),
        ipv4: IpUsage::FixedAddr(Ipv4Addr::LOCALHOST),
        ipv6: IpUsage::Disable,
        tls_validation_config: TlsValidationConfig::InsecureForTests,
        https_port: relay.port(),
        stun_port: None,
        stun_only: false,
        supports_port_80: false,
    };
    within(DefaultClient::connect([&server], keys)).await.unwrap()
}

/// The same on port 80, without TLS.
async fn plain(relay: SocketAddr, keys: &NodeKeyPair) -> DefaultClient {
    let stream = TcpStream::connect(relay).await.unwrap();
    let url = url::Url::parse("http://relay.example/derp").unwrap();
    let request = ts_http_util::make_upgrade_req(&url, "DERP", None).unwrap();
    let http = ts_http_util::http1::connect(stream).await.unwrap();
    let response = within(http.send(request)).await.unwrap();
    let upgraded = within(ts_http_util::do_upgrade(response)).await.unwrap();
    within(DefaultClient::handshake(upgraded, keys)).await.unwrap()
}

/// The other machine: `ts_derp` below, boringtun above.
struct Other {
    derp: DefaultClient,
    tunn: Tunn,
    ours: NodePublicKey,
    address: IpAddr,
}

impl Other {
    async fn join(net: &mut Net, by_tls: bool, seed: u8) -> Other {
        let keys = NodeKeyPair::random();
        let derp = match by_tls {
            true => secure(net.relay[0], &keys).await,
            false => plain(net.relay[1], &keys).await,
        };
        let address = register(net, keys.private.to_x25519_dalek().to_bytes(), seed).await;
        let ours = wireguard::public_key(&OURS);
        let secret = StaticSecret::from(keys.private.to_x25519_dalek().to_bytes());
        let tunn = Tunn::new(secret, PublicKey::from(ours), None, None, 7, None);
        Other { derp, tunn, ours: NodePublicKey::from_bytes(ours), address }
    }

    /// Puts a packet into the tunnel.
    async fn send(&mut self, packet: &[u8]) {
        let mut buffer = vec![0; SPACE];
        if let TunnResult::WriteToNetwork(data) = self.tunn.encapsulate(packet, &mut buffer) {
            self.derp.send_one(self.ours, data).await.unwrap();
        }
    }

    /// Waits for a datagram, and for what it means to the tunnel: a packet, if it is one.
    async fn recv(&mut self) -> Option<Vec<u8>> {
        let (src, data) = self.derp.recv_one().await.unwrap();
        assert_eq!(src, self.ours);
        let mut buffer = vec![0; SPACE];
        let mut result = self.tunn.decapsulate(None, data.as_ref(), &mut buffer);
        // After an answer, boringtun wants to be asked for what it had queued.
        while let TunnResult::WriteToNetwork(answer) = result {
            self.derp.send_one(self.ours, answer).await.unwrap();
            result = self.tunn.decapsulate(None, &[], &mut buffer);
        }
        match result {
            TunnResult::WriteToTunnelV4(packet, _) => Some(packet.to_vec()),
            // A discovery message is nothing to it.
            _ => None,
        }
    }
}

/// The smallest IPv4 packet with that number in it (RFC 791 §3.1).
fn packet(from: IpAddr, to: IpAddr, tag: u32) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4 here") };
    let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 253, 0, 0];
    packet.extend(from.octets().into_iter().chain(to.octets()).chain(tag.to_be_bytes()));
    packet
}

/// Sends packets, each again and again until it arrives, both ways.
async fn talk(net: &mut Net, other: &mut Other, tags: std::ops::Range<u32>) {
    for tag in tags {
        let there = packet(net.address, other.address, tag);
        within(async {
            loop {
                // Before the map names the other, packets to it go nowhere.
                net.send(there.clone().into()).await;
                let waited = tokio::time::timeout(Duration::from_millis(300), async {
                    while other.recv().await.as_deref() != Some(&there) {}
                });
                if waited.await.is_ok() {
                    return;
                }
            }
        })
        .await;
        let back = packet(other.address, net.address, tag);
        other.send(&back).await;
        while within(net.arrived.recv()).await.unwrap() != (back.clone().into(), Path::Relay) {}
    }
}

#[tokio::test(flavor = "local")]
async fn by_its_own_connect_over_tls_ts_derp_carries_boringtun_to_our_peer_and_back() {
    let mut net = Net::start().await;
    let mut other = Other::join(&mut net, true, 0x40).await;
    talk(&mut net, &mut other, 0..50).await;
}

#[tokio::test(flavor = "local")]
async fn over_tcp_with_an_http_upgrade_it_does_too_and_begins_the_session() {
    let mut net = Net::start().await;
    let mut other = Other::join(&mut net, false, 0x40).await;
    let first = packet(other.address, net.address, 1000);
    // boringtun keeps it until the handshake is over. The peer answers nobody whom it has not been told of.
    within(async {
        other.send(&first).await;
        loop {
            let mut buffer = vec![0; SPACE];
            tokio::select! {
                arrived = net.arrived.recv() => return assert_eq!(arrived.unwrap(), (first.into(), Path::Relay)),
                got = other.recv() => assert_eq!(got, None),
                () = tokio::time::sleep(Duration::from_millis(300)) => {
                    if let TunnResult::WriteToNetwork(data) =
                        other.tunn.format_handshake_initiation(&mut buffer, true)
                    {
                        other.derp.send_one(other.ours, data).await.unwrap();
                    }
                }
            }
        }
    })
    .await;
    talk(&mut net, &mut other, 0..50).await;
}

#[tokio::test(flavor = "local")]
async fn what_either_does_not_expect_of_the_other_is_survived() {
    let mut net = Net::start().await;
    let mut other = Other::join(&mut net, true, 0x40).await;
    talk(&mut net, &mut other, 0..3).await;

    // To our peer: nothing, noise, and what looks like its protocols but is not.
    let magic = b"TS\xf0\x9f\x92\xac";
    let longest = vec![0xff; (64 << 10) - 32];
    let short_disco = [&magic[..], &[0; 20]].concat();
    let bad_disco = [&magic[..], &[7; 120]].concat();
    let bad_tunnel = [&[4, 0, 0, 0][..], &[9; 200]].concat();
    for noise in [&b""[..], b"\0", &[1, 0, 0, 0], &longest, &short_disco, &bad_disco, &bad_tunnel] {
        other.derp.send_one(other.ours, noise).await.unwrap();
    }
    // To our relay: frames that only servers send, or nobody any more.
    #[expect(deprecated, reason = "that it is deprecated is why it is not expected")]
    within(other.derp.send_frame(&frame::KeepAlive)).await.unwrap();
    within(other.derp.send_frame(&frame::Health)).await.unwrap();
    within(other.derp.send_frame(&frame::Pong { payload: [3; 8] })).await.unwrap();
    let key = other.ours;
    within(other.derp.send_frame(&frame::PeerGone { key, raw_reason: 0 })).await.unwrap();
    talk(&mut net, &mut other, 3..6).await;

    // To ts_derp: that somebody is not here, in answer to a discovery message for nobody.
    let nobody = NodeKeyPair::random().public;
    other.derp.send_one(nobody, &bad_disco).await.unwrap();
    talk(&mut net, &mut other, 6..9).await;

    // Frames of relays cost it the connection, and nothing else: it comes back.
    within(other.derp.send_frame(&frame::ClosePeer { key })).await.unwrap();
    assert!(within(other.derp.recv_one()).await.is_err());
    let mut again = Other::join(&mut net, true, 0x50).await;
    talk(&mut net, &mut again, 9..12).await;
}
