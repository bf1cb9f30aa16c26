//! Our port mapping gateway, on loopback sockets, against another client: `crab_nat`, by PCP and NAT-PMP.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crab_nat::{GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType};
use portmap::SERVER_PORT;
use portmap::gateway::{ConnId, Gateway, GatewayConfig, Input, MapError, Request, Transmit};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// From where the kernel sends to other addresses of the loopback interface.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// External port to inside endpoint.
type Nat = Arc<Mutex<BTreeMap<u16, SocketAddr>>>;

struct Server {
    gateway: Gateway,
    nat: Nat,
    /// By local port.
    udp: BTreeMap<u16, UdpSocket>,
    conns: BTreeMap<u64, TcpStream>,
    accepted: u64,
}

#[expect(clippy::disallowed_methods, reason = "this end of the test runs in real time")]
fn now() -> Instant {
    Instant::now()
}

/// Runs a gateway at its address; gives the NAT's table.
async fn serve(config: GatewayConfig) -> Nat {
    let (nat, ip) = (Nat::default(), config.address);
    let server = UdpSocket::bind((ip, SERVER_PORT)).await.unwrap();
    let ssdp = UdpSocket::bind((ip, 0)).await.unwrap();
    let web = TcpListener::bind((ip, config.http_port)).await.unwrap();
    let gateway = Gateway::new(config, ChaCha12Rng::seed_from_u64(1), now());
    let udp = BTreeMap::from([(SERVER_PORT, server), (1900, ssdp)]);
    let mut server = Server { gateway, nat: Arc::clone(&nat), udp, conns: BTreeMap::new(), accepted: 0 };
    server.gateway.handle(Input::External(Some(WAN.into())), now());
    tokio::spawn(async move {
        loop {
            server.step(&web).await;
        }
    });
    nat
}

impl Server {
    async fn step(&mut self, web: &TcpListener) {
        if let Ok(Ok((stream, from))) = tokio::time::timeout(Duration::from_millis(2), web.accept()).await {
            self.accepted += 1;
            let conn = ConnId(self.accepted);
            self.conns.insert(self.accepted, stream);
            self.gateway.handle(Input::Accepted { conn, from }, now());
            self.gateway.handle(Input::Writable { conn, space: 1 << 16 }, now());
        }
        let mut buffer = [0; 2048];
        for (port, socket) in &self.udp {
            while let Ok((len, from)) = socket.try_recv_from(&mut buffer) {
                self.gateway.handle(Input::Datagram { to: *port, from, data: &buffer[..len] }, now());
            }
        }
        for (id, stream) in &self.conns {
            while let Ok(len @ 1..) = stream.try_read(&mut buffer) {
                self.gateway.handle(Input::Stream { conn: ConnId(*id), data: &buffer[..len] }, now());
            }
        }
        self.gateway.handle_timeout(now());
        while let Some(request) = self.gateway.poll_request() {
            self.map(request);
        }
        while let Some(transmit) = self.gateway.poll_transmit() {
            match transmit {
                // Nobody here hears announcements.
                Transmit::Datagram { to, .. } if to.ip().is_multicast() => {}
                Transmit::Datagram { port, to, data } => {
                    self.udp[&port].send_to(&data, to).await.unwrap();
                }
                Transmit::Write { conn, data } => {
                    self.conns.get_mut(&conn.0).unwrap().write_all(&data).await.unwrap();
                }
                Transmit::Close { conn } => drop(self.conns.remove(&conn.0)),
            }
        }
    }

    fn map(&mut self, request: Request) {
        let mut nat = self.nat.lock().unwrap();
        let (id, result) = match request {
            Request::Map { id, inside, port, exact, .. } => {
                let wanted = port.unwrap_or(inside.port());
                let free = (wanted..).find(|port| !nat.contains_key(port)).unwrap();
                let result = if exact && free != wanted { Err(MapError::Taken) } else { Ok(free) };
                (id, result)
            }
            Request::Peer { id, .. } => (id, Err(MapError::Unsupported)),
            Request::Unmap { external, .. } => {
                nat.remove(&external.port());
                return;
            }
        };
        if let (Ok(port), Request::Map { inside, .. }) = (result, request) {
            nat.insert(port, inside);
        }
        drop(nat);
        let result = result.map(|port| SocketAddr::new(WAN.into(), port));
        self.gateway.handle(Input::Answer { id, result }, now());
    }
}

fn at(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 53, last).into()
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn options(external: u16) -> PortMappingOptions {
    let external_port = NonZeroU16::new(external);
    PortMappingOptions { external_port, lifetime_seconds: Some(600), timeout_config: None }
}

/// Maps, renews and deletes, by whatever the gateway speaks.
async fn lives(config: GatewayConfig) -> PortMappingType {
    let gateway = config.address;
    let nat = serve(config).await;
    let inside = SocketAddr::new(CLIENT, 41641);
    nat.lock().unwrap().insert(5000, "192.168.1.9:1".parse().unwrap());
    let wanted = PortMapping::new(gateway.into(), CLIENT, InternetProtocol::Udp, port(41641), options(5000));
    let mut mapping = wanted.await.unwrap();
    assert_eq!((mapping.external_port().get(), mapping.lifetime()), (5001, 600), "5000 was taken");
    assert_eq!(nat.lock().unwrap().get(&5001), Some(&inside));
    let kind = mapping.mapping_type();
    mapping.renew().await.unwrap();
    assert_eq!(mapping.external_port().get(), 5001);
    mapping.try_drop().await.map_err(|(why, _)| why).unwrap();
    assert_eq!(nat.lock().unwrap().len(), 1);
    kind
}

#[tokio::test]
async fn crab_nat_maps_by_pcp() {
    let kind = lives(GatewayConfig::new(at(1))).await;
    assert!(matches!(kind, PortMappingType::Pcp { external_ip, .. } if external_ip == IpAddr::from(WAN)));
}

#[tokio::test]
async fn crab_nat_falls_back_to_nat_pmp() {
    let config = GatewayConfig { pcp: false, ..GatewayConfig::new(at(2)) };
    assert!(matches!(lives(config).await, PortMappingType::NatPmp));
}

#[tokio::test]
async fn crab_nat_learns_the_address_and_what_is_refused() {
    let gateway: GatewayAddress = at(3).into();
    let config =
        GatewayConfig { conduct: portmap::gateway::Conduct::NotAuthorized, ..GatewayConfig::new(at(4)) };
    serve(GatewayConfig::new(at(3))).await;
    serve(config).await;
    assert_eq!(crab_nat::natpmp::external_address(gateway, None).await.unwrap(), WAN);
    let refused = PortMapping::new(at(4).into(), CLIENT, InternetProtocol::Udp, port(9), options(0)).await;
    let why = refused.unwrap_err().to_string();
    assert!(!why.is_empty());
    let again =
        crab_nat::natpmp::port_mapping(at(4).into(), InternetProtocol::Udp, port(9), options(0)).await;
    assert!(matches!(again.unwrap_err(), crab_nat::natpmp::Failure::NotAuthorized), "{why}");
}
