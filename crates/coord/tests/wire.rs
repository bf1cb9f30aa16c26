//! The JSON of the messages: extendable, and safe against arbitrary input.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use coord::wire::{ToClient, ToServer};
use coord::{Map, MapVersion, NatFacts, NodeChange, NodeInfo, Refusal, RelayInfo, Update};
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
    let addresses = (any::<std::net::IpAddr>(), any::<Option<std::net::Ipv6Addr>>());
    let admin = (prop::collection::vec("[a-z]{1,5}", 0..3), any::<Option<u64>>());
    (any::<u32>(), ".{0,20}", (keys(), keys()), addresses, admin, updates(), any::<bool>()).prop_map(
        |(id, name, (node_key, disco_key), (tunnel_ip, tunnel_ip6), (tags, key_expires), update, online)| {
            let Update { endpoints, home_relay, nat } = update;
            NodeInfo {
                id,
                name,
                node_key,
                disco_key,
                tunnel_ip,
                tunnel_ip6,
                tags,
                key_expires,
                endpoints,
                home_relay,
                nat,
                online,
            }
        },
    )
}

fn versions() -> impl Strategy<Value = MapVersion> {
    any::<(u64, u64)>().prop_map(|(run, generation)| MapVersion { run, generation })
}

fn maps() -> impl Strategy<Value = Map> {
    (versions(), nodes(), prop::collection::vec(nodes(), 0..4), prop::collection::vec(relays(), 0..3))
        .prop_map(|(version, you, peers, relays)| Map { version, you, relays, access: None, peers })
}

fn relays() -> impl Strategy<Value = RelayInfo> {
    let ips = (any::<std::net::IpAddr>(), any::<Option<std::net::Ipv6Addr>>());
    let tls = (any::<Vec<u16>>(), proptest::option::of(keys()), "[a-z.]{0,20}")
        .prop_map(|(ports, pin, name)| coord::RelayTls { ports, pin, name });
    let ports = (any::<Vec<u16>>(), proptest::option::of(tls));
    (any::<u16>(), ".{0,20}", keys(), ips, ports, addresses()).prop_map(
        |(region, name, key, (addr, addr6), (derp_ports, tls), stun)| RelayInfo {
            region,
            name,
            key,
            addr,
            addr6,
            derp_ports,
            tls,
            stun,
        },
    )
}

fn to_server() -> impl Strategy<Value = ToServer> {
    prop_oneof![
        (".{0,20}", [keys(), keys(), keys(), keys()], updates()).prop_map(|(name, keys, update)| {
            let [node_key, disco_key, node_proof, disco_proof] = keys;
            let (auth_key, have) = (None, None);
            ToServer::Register { name, node_key, disco_key, node_proof, disco_proof, auth_key, have, update }
        }),
        (".{0,20}", keys(), ".{0,20}", versions()).prop_map(|(name, node_key, auth_key, have)| {
            let (auth_key, have, update) = (Some(auth_key), Some(have), Update::default());
            let (disco_key, node_proof, disco_proof) = (node_key, node_key, node_key);
            ToServer::Register { name, node_key, disco_key, node_proof, disco_proof, auth_key, have, update }
        }),
        (keys(), keys()).prop_map(|(node_key, node_proof)| ToServer::Rotate { node_key, node_proof }),
        updates().prop_map(ToServer::Update),
        Just(ToServer::KeepAlive),
    ]
}

fn to_client() -> impl Strategy<Value = ToClient> {
    let many = || prop::collection::vec(nodes(), 0..4);
    prop_oneof![
        maps().prop_map(ToClient::Full),
        (versions(), nodes(), many(), any::<Vec<u32>>()).prop_map(|(version, you, added, removed)| {
            ToClient::Resumed { version, you, relays: Vec::new(), access: None, added, removed }
        }),
        (any::<u64>(), many(), many(), any::<Vec<u32>>()).prop_map(|(generation, added, pairs, removed)| {
            let changed =
                pairs.windows(2).filter_map(|pair| NodeChange::between(&pair[0], &pair[1])).collect();
            ToClient::Delta { generation, added, changed, removed, relays: None, access: None }
        }),
        ".{0,20}".prop_map(|reason| ToClient::Refused { code: Refusal::Full, reason }),
        Just(ToClient::KeepAlive),
    ]
}

#[test]
fn a_registration_reads_as_documented() {
    let key = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    let proofs = format!(r#""node_proof":"{key}","disco_proof":"{key}""#);
    let json = format!(
        r#"{{"type":"register","name":"a","node_key":"{key}","disco_key":"{key}",{proofs},"later":[1]}}"#
    );
    let bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from(at % 16 * 0x11).unwrap());
    let (auth_key, have, update) = (None, None, Update::default());
    let expected = ToServer::Register {
        name: "a".into(),
        node_key: bytes,
        disco_key: bytes,
        node_proof: bytes,
        disco_proof: bytes,
        auth_key,
        have,
        update,
    };
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
fn a_saved_map_of_another_version_is_refused() {
    let told = Map::from_saved(br#"{"saved_map":2,"map":"who knows"}"#).unwrap_err();
    assert_eq!(told, coord::SavedError::Version(2));
    assert!(told.to_string().contains("delete it"), "{told}");
}

#[test]
fn keys_of_wrong_length_or_digits_are_refused() {
    let good = "0".repeat(64);
    let message = |key: &str| {
        let proofs = format!(r#""node_proof":"{good}","disco_proof":"{good}""#);
        format!(r#"{{"type":"register","name":"a","node_key":"{key}","disco_key":"{good}",{proofs}}}"#)
    };
    assert!(serde_json::from_str::<ToServer>(&message(&good)).is_ok());
    for key in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"ä".repeat(32)] {
        assert!(serde_json::from_str::<ToServer>(&message(key)).is_err(), "{key}");
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
    fn a_change_turns_the_old_state_into_the_new(old in nodes(), new in nodes()) {
        // Number and addresses are a node's for good.
        let NodeInfo { id, tunnel_ip, tunnel_ip6, .. } = old;
        let new = NodeInfo { id, tunnel_ip, tunnel_ip6, ..new };
        let mut node = old.clone();
        if let Some(change) = NodeChange::between(&old, &new) {
            let json = serde_json::to_vec(&change).unwrap();
            serde_json::from_slice::<NodeChange>(&json).unwrap().apply(&mut node);
        }
        prop_assert_eq!(node, new);
        prop_assert_eq!(NodeChange::between(&old, &old), None);
    }

    #[test]
    fn a_saved_map_is_read_as_it_was(map in maps()) {
        let mut expected = map.clone();
        expected.peers.retain(|node| node.id != map.you.id);
        prop_assert_eq!(Map::from_saved(&map.to_saved()).unwrap(), expected);
    }

    #[test]
    fn a_damaged_saved_map_is_read_or_refused(map in maps(), at in any::<prop::sample::Index>(), byte in any::<u8>(), garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Map::from_saved(&garbage).is_err());
        let mut bytes = map.to_saved();
        let at = at.index(bytes.len());
        prop_assert!(Map::from_saved(&bytes[..at]).is_err(), "cut off");
        bytes[at] = byte;
        let _ = Map::from_saved(&bytes);
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
