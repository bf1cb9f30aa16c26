//! The wire format of `disco/disco.go`: sizes, offsets, lenience, and arbitrary input.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use disco::{
    Bind, MAGIC, MIN_LEN, Message, OpenError, PING_LEN, PrivateKey, PublicKey, RelayEndpoint, SharedKey,
    looks_like_disco, open, seal, source,
};
use proptest::prelude::*;

const NONCE: [u8; 24] = [7; 24];

fn alice() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}

fn bob() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}

fn shared() -> SharedKey {
    SharedKey::new(&alice(), &bob().public())
}

fn sealed(message: &Message) -> Vec<u8> {
    seal(message, &alice().public(), &shared(), NONCE)
}

/// Seals plaintext bytes that `seal` would not write, with the box of an independent call.
fn sealed_raw(plain: &[u8]) -> Vec<u8> {
    use crypto_box::aead::Aead as _;
    let public = crypto_box::PublicKey::from_bytes(bob().public().0);
    let key = crypto_box::SalsaBox::new(&public, &crypto_box::SecretKey::from_bytes([1; 32]));
    let body = key.encrypt(&NONCE.into(), plain).unwrap();
    [&MAGIC[..], &alice().public().0, &NONCE, &body].concat()
}

fn opened(datagram: &[u8]) -> Result<Message, OpenError> {
    open(datagram, &SharedKey::new(&bob(), &alice().public()))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn bind() -> Bind {
    Bind { vni: 0x00AB_CDEF, generation: 3, remote: PublicKey([4; 32]), challenge: [5; 32] }
}

fn endpoint() -> RelayEndpoint {
    RelayEndpoint {
        server: PublicKey([1; 32]),
        clients: [PublicKey([2; 32]), PublicKey([3; 32])],
        lamport: 0x0102_0304_0506_0708,
        vni: 9,
        bind_lifetime: Duration::from_secs(30),
        steady_lifetime: Duration::from_secs(300),
        addresses: vec![address("192.0.2.1:7777"), address("[2001:db8::1]:7777")],
    }
}

/// One of each type, with the length of its payload.
fn samples() -> Vec<(u8, usize, Message)> {
    let endpoints = vec![address("192.0.2.1:1"), address("[2001:db8::1]:2")];
    let clients = [PublicKey([2; 32]), PublicKey([3; 32])];
    vec![
        (1, 44, Message::Ping { tx: [1; 12], node_key: Some([2; 32]), padding: 0 }),
        (2, 30, Message::Pong { tx: [1; 12], src: address("203.0.113.9:41641") }),
        (3, 36, Message::CallMeMaybe { endpoints }),
        (4, 72, Message::BindUdpRelayEndpoint(bind())),
        (5, 72, Message::BindUdpRelayEndpointChallenge(bind())),
        (6, 72, Message::BindUdpRelayEndpointAnswer(bind())),
        (7, 124 + 2 * 18, Message::CallMeMaybeVia(endpoint())),
        (8, 68, Message::AllocateUdpRelayEndpointRequest { clients, generation: 6 }),
        (
            9,
            4 + 124 + 2 * 18,
            Message::AllocateUdpRelayEndpointResponse { generation: 6, endpoint: endpoint() },
        ),
    ]
}

#[test]
fn every_type_has_its_size_and_comes_back() {
    for (kind, length, message) in samples() {
        let datagram = sealed(&message);
        assert_eq!(datagram.len(), 6 + 32 + 24 + 16 + 2 + length, "type {kind}");
        assert_eq!(opened(&datagram), Ok(message), "type {kind}");
    }
}

#[test]
fn a_ping_is_124_bytes() {
    let ping = |node_key, padding| sealed(&Message::Ping { tx: [1; 12], node_key, padding }).len();
    assert_eq!((ping(Some([2; 32]), 0), PING_LEN), (124, 124));
    assert_eq!(ping(None, 0), 92);
    assert_eq!(ping(Some([2; 32]), 1156), 1280);
}

#[test]
fn the_envelope_is_magic_key_nonce_box() {
    let datagram = sealed(&Message::Pong { tx: *b"abcdefghijkl", src: address("1.2.3.4:258") });
    assert_eq!(datagram[..6], [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac]);
    assert_eq!(datagram[6..38], alice().public().0);
    assert_eq!(datagram[38..62], NONCE);
    let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4, 1, 2];
    let plain = [&[2, 0][..], b"abcdefghijkl", &address].concat();
    assert_eq!(datagram, sealed_raw(&plain));
}

#[test]
fn relay_endpoint_fields_lie_where_they_should() {
    let plain = [
        &[7, 0][..],
        &[1; 32],
        &[2; 32],
        &[3; 32],
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &[0, 0, 0, 9],
        &30_000_000_000u64.to_be_bytes(),
        &300_000_000_000u64.to_be_bytes(),
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0x1e, 0x61],
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1e, 0x61],
    ];
    assert_eq!(sealed(&Message::CallMeMaybeVia(endpoint())), sealed_raw(&plain.concat()));
    let bind_plain = [&[6, 0, 0, 0xab, 0xcd, 0xef, 0, 0, 0, 3][..], &[4; 32], &[5; 32]].concat();
    assert_eq!(sealed(&Message::BindUdpRelayEndpointAnswer(bind())), sealed_raw(&bind_plain));
}

#[test]
fn trailing_bytes_are_ignored() {
    for (kind, length, message) in samples() {
        // In these the tail has a meaning.
        if matches!(kind, 1 | 3 | 7 | 9) {
            continue;
        }
        let mut plain = vec![kind, 0];
        plain.extend(plaintext_of(&message));
        assert_eq!(plain.len(), 2 + length);
        plain.extend_from_slice(b"of a later version");
        assert_eq!(opened(&sealed_raw(&plain)), Ok(message));
    }
}

/// The payload, read back out of a sealed message with an independent call.
fn plaintext_of(message: &Message) -> Vec<u8> {
    use crypto_box::aead::Aead as _;
    let public = crypto_box::PublicKey::from_bytes(alice().public().0);
    let key = crypto_box::SalsaBox::new(&public, &crypto_box::SecretKey::from_bytes([2; 32]));
    key.decrypt(&NONCE.into(), &sealed(message)[62..]).unwrap()[2..].to_vec()
}

#[test]
fn a_short_payload_is_an_error() {
    for (kind, length, message) in samples() {
        if kind == 3 {
            continue;
        }
        let payload = plaintext_of(&message);
        // A ping does not need its key, and an endpoint one address only.
        let needed = match kind {
            1 => 12,
            7 | 9 => length - 18,
            _ => length,
        };
        let short = [&[kind, 0][..], &payload[..needed - 1]].concat();
        assert_eq!(opened(&sealed_raw(&short)), Err(OpenError::Length(kind)), "type {kind}");
        let enough = [&[kind, 0][..], &payload[..needed]].concat();
        assert!(opened(&sealed_raw(&enough)).is_ok(), "type {kind}");
    }
}

#[test]
fn a_call_me_maybe_of_bad_length_or_version_is_an_empty_list() {
    let empty = Ok(Message::CallMeMaybe { endpoints: Vec::new() });
    for length in [0, 1, 17, 19, 35] {
        let plain = [&[3, 0][..], &vec![1; length]].concat();
        assert_eq!(opened(&sealed_raw(&plain)), empty, "{length} bytes");
    }
    assert_eq!(opened(&sealed_raw(&[&[3, 1][..], &[1; 18]].concat())), empty);
}

#[test]
fn an_endpoint_without_address_or_with_half_of_one_is_an_error() {
    for addresses in [0, 17, 19] {
        let plain = [&[7, 0][..], &[1; 124], &vec![1; addresses]].concat();
        assert_eq!(opened(&sealed_raw(&plain)), Err(OpenError::Length(7)));
    }
}

#[test]
fn a_ping_without_key_is_understood() {
    for padding in [0, 5, 31, 32, 100] {
        let ping = Message::Ping { tx: [1; 12], node_key: None, padding };
        assert_eq!(opened(&sealed(&ping)), Ok(ping));
    }
}

#[test]
fn unknown_types_and_versions_are_told_apart() {
    assert_eq!(opened(&sealed_raw(&[10, 0, 1, 2, 3])), Err(OpenError::Type(10)));
    assert_eq!(opened(&sealed_raw(&[0, 0])), Err(OpenError::Type(0)));
    let later = [&[4, 1][..], &[0; 72]].concat();
    assert_eq!(opened(&sealed_raw(&later)), Err(OpenError::Version { kind: 4, version: 1 }));
    // Ping and pong grow at their end only, so their version does not matter.
    let later = [&[1, 9][..], &[1; 44]].concat();
    assert_eq!(
        opened(&sealed_raw(&later)),
        Ok(Message::Ping { tx: [1; 12], node_key: Some([1; 32]), padding: 0 })
    );
}

#[test]
fn the_classifier_wants_magic_and_a_key() {
    let datagram = sealed(&Message::CallMeMaybe { endpoints: Vec::new() });
    assert_eq!(datagram.len(), MIN_LEN);
    assert!(looks_like_disco(&datagram[..38]));
    assert!(!looks_like_disco(&datagram[..37]));
    assert_eq!(source(&datagram), Some(alice().public()));
    assert_eq!(opened(&datagram[..MIN_LEN - 1]), Err(OpenError::NotDisco));
    let mut other = datagram;
    other[0] = b't';
    assert!(!looks_like_disco(&other));
    assert_eq!(opened(&other), Err(OpenError::NotDisco));
}

#[test]
fn another_key_does_not_open_it() {
    let datagram = sealed(&Message::CallMeMaybe { endpoints: Vec::new() });
    let eve = PrivateKey::from_bytes([3; 32]);
    assert_eq!(open(&datagram, &SharedKey::new(&eve, &alice().public())), Err(OpenError::Sealed));
}

#[test]
fn what_does_not_fit_a_datagram_is_cut() {
    let ping = sealed(&Message::Ping { tx: [1; 12], node_key: None, padding: usize::MAX });
    assert_eq!(ping.len(), 65_507);
    let many = sealed(&Message::CallMeMaybe { endpoints: vec![address("192.0.2.1:1"); 10_000] });
    assert!(many.len() <= 65_507);
    assert!(matches!(opened(&many), Ok(Message::CallMeMaybe { endpoints }) if endpoints.len() > 3_000));
}

#[test]
fn keys_do_not_show_in_logs() {
    let shown = format!("{:?} {:?}", alice(), shared());
    assert_eq!(shown, "disco::PrivateKey(..) disco::SharedKey(..)");
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    // As they come back: no flow label, and no IPv4 in IPv6's clothes.
    any::<SocketAddr>().prop_map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn keys() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(PublicKey)
}

prop_compose! {
    fn endpoints()(
        server in keys(),
        clients in [keys(), keys()],
        lamport in any::<u64>(),
        vni in any::<u32>(),
        lifetimes in any::<[u64; 2]>(),
        addresses in prop::collection::vec(addresses(), 1..5),
    ) -> RelayEndpoint {
        let [bind_lifetime, steady_lifetime] = lifetimes.map(Duration::from_nanos);
        RelayEndpoint { server, clients, lamport, vni, bind_lifetime, steady_lifetime, addresses }
    }
}

fn messages() -> impl Strategy<Value = Message> {
    let binds = || {
        (any::<u32>(), any::<u32>(), keys(), any::<[u8; 32]>())
            .prop_map(|(vni, generation, remote, challenge)| Bind { vni, generation, remote, challenge })
    };
    let key = any::<[u8; 32]>().prop_filter("zeros are no key", |key| *key != [0; 32]);
    prop_oneof![
        (any::<[u8; 12]>(), prop::option::of(key), 0usize..1500)
            .prop_map(|(tx, node_key, padding)| Message::Ping { tx, node_key, padding }),
        (any::<[u8; 12]>(), addresses()).prop_map(|(tx, src)| Message::Pong { tx, src }),
        prop::collection::vec(addresses(), 0..20).prop_map(|endpoints| Message::CallMeMaybe { endpoints }),
        binds().prop_map(Message::BindUdpRelayEndpoint),
        binds().prop_map(Message::BindUdpRelayEndpointChallenge),
        binds().prop_map(Message::BindUdpRelayEndpointAnswer),
        endpoints().prop_map(Message::CallMeMaybeVia),
        ([keys(), keys()], any::<u32>()).prop_map(|(clients, generation)| {
            Message::AllocateUdpRelayEndpointRequest { clients, generation }
        }),
        (any::<u32>(), endpoints()).prop_map(|(generation, endpoint)| {
            Message::AllocateUdpRelayEndpointResponse { generation, endpoint }
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(message in messages(), nonce in any::<[u8; 24]>()) {
        let datagram = seal(&message, &alice().public(), &shared(), nonce);
        prop_assert_eq!(opened(&datagram), Ok(message));
    }

    #[test]
    fn an_altered_byte_does_not_open(message in messages(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut datagram = sealed(&message);
        // Behind the sender's key, which picks the box and is covered by it only in so far.
        let at = 38 + at.index(datagram.len() - 38);
        datagram[at] ^= 1u8 << bit;
        prop_assert_eq!(opened(&datagram), Err(OpenError::Sealed));
    }

    #[test]
    fn arbitrary_plaintext_is_read_or_refused(plain in prop::collection::vec(any::<u8>(), 2..300), kind in 0u8..12) {
        let mut plain = plain;
        plain[0] = kind;
        if let Ok(message) = opened(&sealed_raw(&plain)) {
            prop_assert_eq!(opened(&sealed(&message)), Ok(message));
        }
    }

    #[test]
    fn arbitrary_datagrams_are_refused(tail in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let datagram = if magic { [&MAGIC[..], &tail].concat() } else { tail };
        prop_assert!(opened(&datagram).is_err());
        prop_assert_eq!(looks_like_disco(&datagram), source(&datagram).is_some());
    }
}
