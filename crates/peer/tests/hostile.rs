//! Whatever arrives, a peer neither panics nor hangs nor grows without bound.

mod net;

use net::{Nat, Net, ms};
use peer::{ConnId, Event, Input};
use proptest::prelude::*;
use rand_chacha::rand_core::SeedableRng;
use std::net::SocketAddr;

const HOMES: [(Nat, &[u8]); 2] = [(Nat::PortRestricted, &[2]), (Nat::PortRestricted, &[2])];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let any = || proptest::collection::vec(any::<u8>(), 0..300);
    let prefixed = |prefix: &'static [u8]| any().prop_map(move |rest| [prefix, &rest[..]].concat());
    prop_oneof![
        any(),
        prefixed(b"TS\xF0\x9F\x92\xAC"),
        prefixed(b"\x01\x01\x00\x0c\x21\x12\xa4\x42"),
        prefixed(&[1, 0, 0, 0]),
        prefixed(&[4, 0, 0, 0]),
        prefixed(&[0x45, 0]),
    ]
}

#[derive(Debug, Clone)]
enum Poke {
    Datagram(u8, u16, Vec<u8>),
    Stream(u32, Vec<u8>),
    Connected(u32),
    Closed(u32),
    Writable(u32, usize),
    Packet(Vec<u8>),
    Addresses(Vec<u8>),
    Wait(u16),
    Talk,
}

fn poke() -> impl Strategy<Value = Poke> {
    prop_oneof![
        4 => (any::<u8>(), any::<u16>(), bytes()).prop_map(|(ip, port, data)| Poke::Datagram(ip, port, data)),
        2 => (0..6u32, bytes()).prop_map(|(conn, data)| Poke::Stream(conn, data)),
        1 => (0..6u32).prop_map(Poke::Connected),
        1 => (0..6u32).prop_map(Poke::Closed),
        1 => (0..6u32, 0..3000usize).prop_map(|(conn, space)| Poke::Writable(conn, space)),
        2 => bytes().prop_map(Poke::Packet),
        1 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(Poke::Addresses),
        2 => (0..5000u16).prop_map(Poke::Wait),
        2 => Just(Poke::Talk),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_inputs_never_panic(seed in any::<u64>(), pokes in proptest::collection::vec(poke(), 1..60)) {
        let mut net = Net::new(seed, &HOMES, 2);
        net.run_for(ms(1000));
        for poke in &pokes {
            match poke {
                Poke::Datagram(ip, port, data) => {
                    let from = SocketAddr::new([198, 51, 100, *ip].into(), *port);
                    net.input(0, Input::Datagram { from, data });
                }
                Poke::Stream(conn, data) => net.input(0, Input::Stream(ConnId(*conn), data)),
                Poke::Connected(conn) => net.input(0, Input::Connected(ConnId(*conn))),
                Poke::Closed(conn) => net.input(0, Input::Closed(ConnId(*conn))),
                Poke::Writable(conn, space) => net.input(0, Input::Writable(ConnId(*conn), *space)),
                Poke::Packet(data) => net.input(0, Input::Packet(data)),
                Poke::Addresses(hosts) => {
                    let addresses: Vec<SocketAddr> =
                        hosts.iter().map(|host| SocketAddr::new([10, 0, 0, *host].into(), 41641)).collect();
                    net.input(0, Input::Addresses(&addresses));
                }
                Poke::Wait(time) => net.run_for(ms(u64::from(*time))),
                Poke::Talk if net.hosts.iter().all(|host| host.tunnel.is_some()) => net.tunnel_send(1, 0, b"x"),
                Poke::Talk => {}
            }
        }
        net.run_for(ms(20_000));
        prop_assert!(net.events.len() < 5000, "{} events", net.events.len());
    }
}

#[test]
fn foreign_discovery_messages_are_not_answered() {
    let mut net = Net::new(1, &HOMES, 1);
    net.run_for(ms(3000));
    let stranger = disco::PrivateKey::from_bytes([77; 32]);
    let host = disco::PrivateKey::from_bytes([101; 32]).public();
    let shared = disco::SharedKey::new(&stranger, &host);
    let ping = disco::Message::Ping { tx: [1; 12], node_key: None, padding: 0 };
    let data = disco::seal(&ping, &stranger.public(), &shared, [3; 24]);
    let sent = net.sent[0];
    let from = "198.51.100.77:7".parse().expect("an address");
    net.input(0, Input::Datagram { from, data: &data });
    assert_eq!(net.sent[0], sent);
}

#[test]
fn a_ping_that_claims_another_node_key_is_not_answered() {
    let mut net = Net::new(1, &HOMES, 1);
    net.run_for(ms(3000));
    let other = disco::PrivateKey::from_bytes([102; 32]); // host 1's
    let host = disco::PrivateKey::from_bytes([101; 32]).public();
    let shared = disco::SharedKey::new(&other, &host);
    let from = "198.51.100.77:7".parse().expect("an address");
    let sent = net.sent[0];
    let seal = |key: Option<[u8; 32]>, n| {
        let ping = disco::Message::Ping { tx: [1; 12], node_key: key, padding: 0 };
        disco::seal(&ping, &other.public(), &shared, [n; 24])
    };
    net.input(0, Input::Datagram { from, data: &seal(Some([9; 32]), 3) });
    assert_eq!(net.sent[0], sent);
    net.input(0, Input::Datagram { from, data: &seal(None, 4) });
    assert!(net.sent[0] > sent);
}

#[test]
fn a_call_that_comes_over_udp_is_ignored() {
    let mut net = Net::new(1, &HOMES, 1);
    net.run_for(ms(3000));
    let other = disco::PrivateKey::from_bytes([102; 32]);
    let shared = disco::SharedKey::new(&other, &disco::PrivateKey::from_bytes([101; 32]).public());
    let call =
        disco::Message::CallMeMaybe { endpoints: vec!["198.51.100.66:6".parse().expect("an address")] };
    let data = disco::seal(&call, &other.public(), &shared, [3; 24]);
    let from = "198.51.100.77:7".parse().expect("an address");
    let sent = net.sent[0];
    net.input(0, Input::Datagram { from, data: &data });
    assert_eq!(net.sent[0], sent);
}

#[test]
fn a_packet_with_another_source_than_the_tunnel_address_is_not_sent() {
    let mut net = Net::new(1, &HOMES, 1);
    net.run_for(ms(3000));
    let (Some(std::net::IpAddr::V4(own)), Some(std::net::IpAddr::V4(other))) =
        (net.hosts[0].tunnel, net.hosts[1].tunnel)
    else {
        panic!("not registered")
    };
    net.input(0, Input::Packet(&net::ipv4([10, 9, 8, 7].into(), other, b"spoofed")));
    net.input(0, Input::Packet(&net::ipv4(own, [10, 9, 8, 7].into(), b"lost")));
    net.run_for(ms(1000));
    assert_eq!(net.count(|event| matches!(event, Event::Warning { .. })), 2);
    assert_eq!(net.count(|event| matches!(event, Event::Packet { .. })), 0);
}

/// Host 1's WireGuard key in other hands than a peer's: it may say what it wants, but only as itself and only to host 0.
#[test]
fn what_comes_out_of_a_tunnel_must_carry_the_addresses_of_its_two_ends() {
    use wireguard::{Device, DeviceConfig, PeerConfig, Source, public_key};

    let mut net = Net::new(1, &HOMES, 1);
    net.run_for(ms(3000));
    let (Some(std::net::IpAddr::V4(own)), Some(std::net::IpAddr::V4(other))) =
        (net.hosts[0].tunnel, net.hosts[1].tunnel)
    else {
        panic!("not registered")
    };
    net.tunnel_send(0, 1, b"so that host 0 knows host 1");
    net.run_for(ms(60_000));

    let epoch = std::time::Duration::from_secs(1_900_000_000);
    let rng = rand_chacha::ChaCha12Rng::from_seed([5; 32]);
    let mut device = Device::new(DeviceConfig { private_key: [2; 32], epoch }, rng, net.now);
    let public_key = public_key(&[1; 32]);
    let host = device.add_peer(PeerConfig { public_key, preshared_key: None, persistent_keepalive: None });
    let stranger = std::net::Ipv4Addr::new(10, 9, 8, 7);
    for (src, dst) in [(stranger, own), (other, stranger), (other, own)] {
        device.send(host, &net::ipv4(src, dst, b"x"), net.now).expect("a packet");
    }
    let from: SocketAddr = "198.51.100.77:7".parse().expect("an address");
    let since = net.elapsed();
    let written = net.wire.len();
    while let Some(transmit) = device.poll_transmit() {
        net.input(0, Input::Datagram { from, data: &transmit.data });
        // Host 0 answers by its path to host 1: a datagram, or a frame to the relay. Find the response in what it wrote.
        let wire = &net.wire[written..];
        if let Some(at) = wire.windows(4).position(|bytes| bytes == [2, 0, 0, 0])
            && let Some(response) = wire.get(at..at + 92)
        {
            let _second_time = device.handle_datagram(response, Source::Udp(from), net.now);
        }
    }
    assert_eq!(net.received(0, since).len(), 1);
    let warnings: Vec<&Event> = net
        .events
        .iter()
        .filter(|(at, who, event)| *at >= since && *who == 0 && matches!(event, Event::Warning { .. }))
        .map(|(.., event)| event)
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}
