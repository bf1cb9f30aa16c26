//! The JSON of the messages: extendable, and safe against arbitrary input.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use coord::wire::{ToClient, ToServer};
use coord::{NatFacts, NodeInfo, Refusal, RelayInfo, Update};
use proptest::prelude::*;

fn keys() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn nat_facts() -> impl Strategy<Value = NatFacts> {
    any::<(Option<bool>, bool)>()
        .prop_map(|(mapping_varies, udp_blocked)| NatFacts { mapping_varies, udp_blocked })
}

fn addresses() -> impl Strategy<Value = Vec<std::net::SocketAddr>> {
    // Flow labels have no text form.
    let one = any::<std::net::SocketAddr>().prop_map(|a| std::net::SocketAddr::new(a.ip(), a.port()));
    prop::collection::vec(one, 0..4)
}

fn updates() -> impl Strategy<Value = Update> {
    (addresses(), any::<Option<u16>>(), prop::option::of(nat_facts()))
        .prop_map(|(endpoints, home_relay, nat)| Update { endpoints, home_relay, nat })
}

fn nodes() -> impl Strategy<Value = NodeInfo> {
    (any::<u32>(), ".{0,20}", keys(), keys(), any::<std::net::IpAddr>(), updates(), any::<bool>()).prop_map(
        |(id, name, node_key, disco_key, tunnel_ip, Update { endpoints, home_relay, nat }, online)| {
            NodeInfo { id, name, node_key, disco_key, tunnel_ip, endpoints, home_relay, nat, online }
        },
    )
}

fn relays() -> impl Strategy<Value = RelayInfo> {
    let ips = (any::<std::net::IpAddr>(), any::<Option<std::net::Ipv6Addr>>());
    (any::<u16>(), ".{0,20}", keys(), ips, any::<Vec<u16>>(), addresses()).prop_map(
        |(region, name, key, (addr, addr6), derp_ports, stun)| RelayInfo {
            region,
            name,
            key,
            addr,
            addr6,
            derp_ports,
            stun,
        },
    )
}

fn to_server() -> impl Strategy<Value = ToServer> {
    prop_oneof![
        (".{0,20}", keys(), keys(), updates()).prop_map(|(name, node_key, disco_key, update)| {
            ToServer::Register { name, node_key, disco_key, update }
        }),
        updates().prop_map(ToServer::Update),
        Just(ToServer::KeepAlive),
    ]
}

fn to_client() -> impl Strategy<Value = ToClient> {
    let many = || prop::collection::vec(nodes(), 0..4);
    prop_oneof![
        (any::<u64>(), nodes(), many(), prop::collection::vec(relays(), 0..3))
            .prop_map(|(generation, you, peers, relays)| ToClient::Full { generation, you, peers, relays }),
        (any::<u64>(), many(), any::<Vec<u32>>()).prop_map(|(generation, upsert, remove)| ToClient::Delta {
            generation,
            upsert,
            remove
        }),
        ".{0,20}".prop_map(|reason| ToClient::Refused { code: Refusal::Full, reason }),
        Just(ToClient::KeepAlive),
    ]
}

#[test]
fn a_registration_reads_as_documented() {
    let key = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    let json =
        format!(r#"{{"type":"register","name":"a","node_key":"{key}","disco_key":"{key}","later":[1]}}"#);
    let bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from(at % 16 * 0x11).unwrap());
    let expected =
        ToServer::Register { name: "a".into(), node_key: bytes, disco_key: bytes, update: Update::default() };
    assert_eq!(serde_json::from_str::<ToServer>(&json).unwrap(), expected);
}

#[test]
fn what_a_later_version_says_is_ignored() {
    let to_server: ToServer = serde_json::from_str(r#"{"type":"sing","song":"x"}"#).unwrap();
    assert_eq!(to_server, ToServer::Unknown);
    let to_client: ToClient = serde_json::from_str(r#"{"song":{"a":[]},"type":"sing"}"#).unwrap();
    assert_eq!(to_client, ToClient::Unknown);
    let refused: ToClient = serde_json::from_str(r#"{"type":"refused","code":"too_ugly"}"#).unwrap();
    assert_eq!(refused, ToClient::Refused { code: Refusal::Other, reason: String::new() });
    let update: ToServer = serde_json::from_str(r#"{"type":"update","nat":{"hairpin":true}}"#).unwrap();
    assert_eq!(update, ToServer::Update(Update { nat: Some(NatFacts::default()), ..Update::default() }));
}

#[test]
fn keys_of_wrong_length_or_digits_are_refused() {
    for key in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"ä".repeat(32)] {
        let json = format!(r#"{{"type":"register","name":"a","node_key":"{key}","disco_key":"{key}"}}"#);
        assert!(serde_json::from_str::<ToServer>(&json).is_err(), "{key}");
    }
}

proptest! {
    #[test]
    fn what_a_client_writes_is_read(message in to_server()) {
        let json = serde_json::to_vec(&message).unwrap();
        prop_assert_eq!(serde_json::from_slice::<ToServer>(&json).unwrap(), message);
    }

    #[test]
    fn what_a_server_writes_is_read(message in to_client()) {
        let json = serde_json::to_vec(&message).unwrap();
        prop_assert_eq!(serde_json::from_slice::<ToClient>(&json).unwrap(), message);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(json in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(serde_json::from_slice::<ToServer>(&json).is_err());
        prop_assert!(serde_json::from_slice::<ToClient>(&json).is_err());
    }

    #[test]
    fn one_altered_byte_is_read_or_refused(message in to_server(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut json = serde_json::to_vec(&message).unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(read) = serde_json::from_slice::<ToServer>(&json) {
            let again = serde_json::to_vec(&read).unwrap();
            prop_assert_eq!(serde_json::from_slice::<ToServer>(&again).unwrap(), read);
        }
    }
}
