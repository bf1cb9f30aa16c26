//! The whole network on loopback: every program on sockets of its own, driven as in earnest.

use bytes::Bytes;
use daemon::{Handle, Options, TokioNet, drive};
use peer::Peer;
use program::{
    COORDINATOR_PORTS, CoordinatorProgram, PeerProgram, Program, RELAY_PORTS, RelayProgram, STUN_PORT,
    UserOutput, Users,
};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use trace::Path;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Sends what it is told and hands on what arrives.
struct Pipe {
    address: watch::Sender<Option<IpAddr>>,
    arrived: mpsc::UnboundedSender<(Arc<str>, Bytes, Path)>,
    out: VecDeque<UserOutput>,
}

impl Users for Pipe {
    fn handle_packet(&mut self, peer: &Arc<str>, data: &Bytes, via: Path, _: Instant) {
        let _ = self.arrived.send((Arc::clone(peer), data.clone(), via));
    }

    fn set_address(&mut self, address: IpAddr, _: Instant) {
        self.address.send_replace(Some(address));
    }

    fn poll_output(&mut self) -> Option<UserOutput> {
        self.out.pop_front()
    }
}

/// The smallest IPv4 packet with that payload (RFC 791 §3.1); nobody on the way looks at its checksum.
fn packet(from: IpAddr, to: IpAddr, payload: &[u8]) -> Bytes {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4 here") };
    let len = u16::try_from(20 + payload.len()).expect("short");
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend(from.octets().into_iter().chain(to.octets()).chain(payload.iter().copied()));
    packet.into()
}

fn any() -> SocketAddr {
    (LOOPBACK, 0).into()
}

fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

fn run(tasks: &mut JoinSet<()>, program: impl Program, net: TokioNet, stop: &watch::Receiver<bool>) {
    run_with(tasks, program, net, Options::default(), stop);
}

fn run_with<P: Program>(
    tasks: &mut JoinSet<()>,
    program: P,
    net: TokioNet,
    options: Options<P>,
    stop: &watch::Receiver<bool>,
) {
    let mut stop = stop.clone();
    tasks.spawn_local(async move {
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        drive(program, net, options, stopped).await.expect("its ports are bound");
    });
}

fn net() -> TokioNet {
    TokioNet::new().with_addresses(vec![LOOPBACK])
}

struct Member {
    handle: Handle<PeerProgram<Pipe>>,
    address: watch::Receiver<Option<IpAddr>>,
    arrived: mpsc::UnboundedReceiver<(Arc<str>, Bytes, Path)>,
}

impl Member {
    async fn address(&mut self) -> IpAddr {
        self.address.wait_for(Option::is_some).await.expect("it runs").expect("some")
    }

    async fn send(&self, packet: Bytes) {
        self.handle
            .call(|program, now| program.with(now, |_, pipe| pipe.out.push_back(UserOutput::Packet(packet))))
            .await
            .expect("it runs");
    }
}

fn member(
    tasks: &mut JoinSet<()>,
    name: &str,
    seed: u8,
    coordinator: (SocketAddr, [u8; 32]),
    stop: &watch::Receiver<bool>,
) -> Member {
    let mut net = net();
    let port = net.bind_udp(None, any()).expect("loopback").port();
    let now = Instant::now();
    let config = peer::Config {
        name: name.into(),
        keys: peer::Keys { node: [seed; 32], disco: [seed + 1; 32], machine: [seed + 2; 32] },
        coordinator: vec![coordinator.0],
        coordinator_key: coordinator.1,
        coordinator_host: String::new(),
        auth_key: None,
        coordinator_tls: None,
        authorities: None,
        map: None,
        epoch: Duration::from_secs(1_767_225_600),
        policy: peer::Policy { loopback: true, ..peer::Policy::default() },
        proxy: None,
    };
    let (address, told) = watch::channel(None);
    let (sender, arrived) = mpsc::unbounded_channel();
    let pipe = Pipe { address, arrived: sender, out: VecDeque::new() };
    let peer = Peer::new(config, rng(seed.into()), now);
    let program = PeerProgram::new(name.into(), peer, pipe, None, now).with_port(port);
    let (handle, inbox) = Handle::new(16);
    run_with(tasks, program, net, Options { inbox: Some(inbox), ..Options::default() }, stop);
    Member { handle, address: told, arrived }
}

#[tokio::test(flavor = "local")]
async fn two_peers_talk_by_the_relay_and_then_directly_and_all_end_when_told() {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let now = Instant::now();

    let key = derp::PrivateKey::from_bytes([7; 32]);
    let mut relay_net = net();
    let relay_at = relay_net.bind_tcp(Some(RELAY_PORTS[0]), any()).unwrap();
    relay_net.bind_tcp(Some(RELAY_PORTS[1]), any()).unwrap();
    let stun_at = relay_net.bind_udp(Some(STUN_PORT), any()).unwrap();
    let relay = coord::RelayInfo {
        region: 1,
        name: "nl".into(),
        key: key.public().0,
        addr: LOOPBACK,
        addr6: None,
        derp_ports: vec![relay_at.port()],
        tls: None,
        stun: vec![stun_at],
    };
    let server = derp::server::Server::new(derp::server::ServerConfig::default(), key, rng(1), now);
    run(&mut tasks, RelayProgram::new("nl".into(), server), relay_net, &stopped);

    let mut coord_net = net();
    let coordinator = coord_net.bind_tcp(Some(COORDINATOR_PORTS[0]), any()).unwrap();
    coord_net.bind_tcp(Some(COORDINATOR_PORTS[1]), any()).unwrap();
    let server =
        coord::server::Server::new(coord::server::ServerConfig::new([9; 32], vec![relay]), rng(2), now);
    let coordinator = (coordinator, server.public_key());
    run(&mut tasks, CoordinatorProgram::new("coord".into(), server, None), coord_net, &stopped);

    let mut takkie = member(&mut tasks, "takkie", 10, coordinator, &stopped);
    let mut flappie = member(&mut tasks, "flappie", 20, coordinator, &stopped);
    let talk = async {
        let (from, to) = (takkie.address().await, flappie.address().await);
        let mut ways = Vec::new();
        for i in 0_u32.. {
            takkie.send(packet(from, to, &i.to_be_bytes())).await;
            // Before the other is known, packets go nowhere: nothing but trying again helps.
            let waited = tokio::time::timeout(Duration::from_millis(50), flappie.arrived.recv()).await;
            let Ok(Some((who, data, via))) = waited else { continue };
            assert_eq!(&*who, "takkie");
            assert_eq!(data[..20], packet(from, to, &[0; 4])[..20]);
            ways.push(via);
            if via != Path::Relay {
                break;
            }
        }
        ways
    };
    let ways = tokio::time::timeout(Duration::from_secs(60), talk).await.expect("a direct path in time");
    assert_ne!(ways.last(), Some(&Path::Relay), "{ways:?}");

    stop.send_replace(true);
    let ended = tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await;
    assert!(ended.is_ok(), "all end");
}
