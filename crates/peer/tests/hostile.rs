//! Whatever arrives, a peer neither panics nor hangs nor grows without bound.

mod net;

use net::{Nat, Net, ms};
use peer::{ConnId, Event, Input};
use proptest::prelude::*;
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
