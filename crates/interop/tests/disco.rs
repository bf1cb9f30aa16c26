//! Our disco against Tailscale's Rust implementation, each opening what the other sealed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, SocketAddrV6};

use disco::{Message, OpenError, PrivateKey, SharedKey, open, seal, source};
use ts_disco_protocol::{CallMeMaybe, Packet, Ping, Plaintext, Pong, is_disco_message};
use ts_keys::{DiscoPrivateKey, Export, NodePublicKey};

const OUR_KEY: [u8; 32] = [0x11; 32];
const THEIR_KEY: [u8; 32] = [0x22; 32];
const NODE_KEY: [u8; 32] = [0x33; 32];
const NONCE: [u8; 24] = [0x44; 24];
const TX: [u8; 12] = *b"transaction!";

/// Our public key and the box we share with them.
fn us() -> (disco::PublicKey, SharedKey) {
    let key = PrivateKey::from_bytes(OUR_KEY);
    (key.public(), SharedKey::new(&key, &PrivateKey::from_bytes(THEIR_KEY).public()))
}

fn their_private(bytes: [u8; 32]) -> DiscoPrivateKey {
    Export::from_bytes(bytes).import()
}

fn sealed_by_us(message: &Message) -> Vec<u8> {
    let (public, shared) = us();
    seal(message, &public, &shared, NONCE)
}

/// Lets their implementation open `datagram` and look at it.
fn opened_by_them(mut datagram: Vec<u8>, look: impl FnOnce(&Packet<Plaintext>)) {
    assert!(is_disco_message(&datagram));
    let packet = Packet::from_encrypted_bytes_mut(&mut datagram).unwrap();
    let plain = packet.decrypt_in_place(&their_private(THEIR_KEY)).unwrap();
    assert_eq!(plain.sender_pubkey().to_crypto_box().as_bytes(), &us().0.0);
    look(plain);
}

/// Seals what `init` makes of an empty packet with room for `size` bytes of message.
fn sealed_by_them(size: usize, init: impl FnOnce(&mut [u8]) -> &mut Packet<Plaintext>) -> Vec<u8> {
    let mut datagram = vec![0; Packet::<Plaintext>::size_for_message(size)];
    let ours = their_private(OUR_KEY).public_key();
    init(&mut datagram).encrypt_in_place(&their_private(THEIR_KEY), &ours, NONCE).unwrap();
    datagram
}

#[test]
fn both_derive_the_same_public_keys() {
    let theirs = their_private(THEIR_KEY).public_key();
    assert_eq!(theirs.to_crypto_box().as_bytes(), &PrivateKey::from_bytes(THEIR_KEY).public().0);
}

#[test]
fn they_open_our_ping() {
    for padding in [0, 1, 31, 32, 1200] {
        let ping = sealed_by_us(&Message::Ping { tx: TX, node_key: Some(NODE_KEY), padding });
        assert_eq!(ping.len(), 124 + padding);
        opened_by_them(ping, |packet| {
            let ping = packet.as_msg::<Ping>().unwrap();
            assert_eq!(ping.tx_id, TX);
            assert_eq!(ping.node_key, NodePublicKey::from_bytes(NODE_KEY));
            assert_eq!(ping.padding, vec![0; padding]);
        });
    }
}

#[test]
fn they_open_our_pong() {
    for src in ["203.0.113.5:41641", "[2001:db8::5]:41641"] {
        let src: SocketAddr = src.parse().unwrap();
        opened_by_them(sealed_by_us(&Message::Pong { tx: TX, src }), |packet| {
            let pong = packet.as_msg::<Pong>().unwrap();
            assert_eq!((pong.tx_id, pong.src.socket_addr()), (TX, src));
        });
    }
}

#[test]
fn they_open_our_call_me_maybe() {
    let endpoints: Vec<SocketAddr> =
        ["203.0.113.5:1", "[2001:db8::5]:2", "192.168.1.2:65535"].map(|text| text.parse().unwrap()).to_vec();
    opened_by_them(sealed_by_us(&Message::CallMeMaybe { endpoints: endpoints.clone() }), |packet| {
        let message = packet.as_msg::<CallMeMaybe>().unwrap();
        let read: Vec<SocketAddr> = message.endpoints.iter().map(|endpoint| endpoint.socket_addr()).collect();
        assert_eq!(read, endpoints);
    });
}

#[test]
fn we_open_their_ping() {
    for padding in [0, 40] {
        let datagram = sealed_by_them(Ping::size_with_padding(padding), |bytes| {
            Packet::init_from_bytes::<Ping>(bytes, |ping| {
                ping.tx_id = TX;
                ping.node_key = NodePublicKey::from_bytes(NODE_KEY);
            })
            .unwrap()
        });
        let them = PrivateKey::from_bytes(THEIR_KEY).public();
        assert_eq!(source(&datagram), Some(them));
        let ping = Message::Ping { tx: TX, node_key: Some(NODE_KEY), padding };
        assert_eq!(open(&datagram, &us().1), Ok(ping.clone()));
        // The same content, keys and nonce make the same bytes here and there.
        assert_eq!(datagram, seal(&ping, &them, &us().1, NONCE));
    }
}

#[test]
fn we_open_their_pong() {
    let src: SocketAddr = "203.0.113.5:41641".parse().unwrap();
    let datagram = sealed_by_them(Pong::size(), |bytes| {
        Packet::init_from_bytes::<Pong>(bytes, |pong| *pong = Pong { tx_id: TX, src: src.into() }).unwrap()
    });
    assert_eq!(open(&datagram, &us().1), Ok(Message::Pong { tx: TX, src }));
}

#[test]
fn we_open_their_call_me_maybe() {
    let datagram = sealed_by_them(CallMeMaybe::size_for_endpoint_count(2), |bytes| {
        Packet::init_from_bytes::<CallMeMaybe>(bytes, |message| {
            message.endpoints[0] = "[a:b::]:80".parse::<SocketAddrV6>().unwrap().into();
            message.endpoints[1] = "192.0.2.1:8080".parse::<SocketAddr>().unwrap().into();
        })
        .unwrap()
    });
    let endpoints = vec!["[a:b::]:80".parse().unwrap(), "192.0.2.1:8080".parse().unwrap()];
    assert_eq!(open(&datagram, &us().1), Ok(Message::CallMeMaybe { endpoints }));
}

#[test]
fn neither_opens_an_altered_message() {
    let good = sealed_by_us(&Message::Ping { tx: TX, node_key: Some(NODE_KEY), padding: 0 });
    for at in [38, 62, 78, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x80;
        assert_eq!(open(&bad, &us().1), Err(OpenError::Sealed));
        let packet = Packet::from_encrypted_bytes_mut(&mut bad).unwrap();
        assert!(packet.decrypt_in_place(&their_private(THEIR_KEY)).is_err());
    }
}
