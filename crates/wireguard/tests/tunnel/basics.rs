//! The tunnel between two devices, a test per requirement of the paper.

use crate::wire::*;
use std::time::Duration;

use wireguard::{Error, Event, Kind, MAX_PACKET, PeerConfig, PeerId, SendError, public_key};

#[test]
fn the_first_key_is_the_smaller() {
    assert!(public_key(&KEYS[0]) < public_key(&KEYS[1]));
}

/// §5.4.2, §5.4.3, §5.4.6: sizes, and that data follows the response at once.
#[test]
fn a_handshake_is_two_messages_then_data() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 7);
    wire.run_for(SECOND);
    let seen: Vec<_> = wire.sent.iter().map(|s| (s.at, s.by, s.kind, s.data.len())).collect();
    assert_eq!(
        seen,
        [
            (Duration::ZERO, 0, Kind::Initiation, 148),
            (20 * MS, 1, Kind::Response, 92),
            (40 * MS, 0, Kind::Data, 80), // 40 bytes padded to 48, and 32
        ]
    );
    assert_eq!(wire.received(1), [7]);
    let peer = wire.peers[0];
    assert_eq!(wire.happened(0), [(40 * MS, Event::SessionUp { peer, initiator: true })]);
    let peer = wire.peers[1];
    assert_eq!(wire.happened(1), [(60 * MS, Event::SessionUp { peer, initiator: false })]);
    assert_eq!(wire.errors, []);
}

#[test]
fn data_goes_both_ways_in_every_size() {
    let mut wire = Wire::with(1, 5 * MS, Some([9; 32]), [None, None]);
    let sizes = [24, 31, 32, 33, 47, 48, 1280, 1420, 9000, MAX_PACKET];
    for (n, size) in sizes.into_iter().enumerate() {
        wire.send_bytes(0, &packet(n as u32, size));
        wire.run_for(SECOND);
        wire.send_bytes(1, &packet(n as u32, size));
        wire.run_for(SECOND);
    }
    for side in [0, 1] {
        let expected: Vec<_> = (0..).zip(sizes).map(|(n, size)| packet(n, size)).collect();
        assert_eq!(wire.packets(side), expected);
    }
    let padded = |sent: &&Sent| sent.kind == Kind::Data;
    assert!(wire.sent.iter().filter(padded).all(|sent| sent.data.len() % 16 == 0));
}

/// What is not IP is carried as it is; what claims to be IP must be right about its length.
#[test]
fn packets_that_cannot_be_told_from_their_padding_are_refused() {
    let mut wire = Wire::new(1, MS);
    let (peer, now) = (wire.peers[0], wire.now);
    let mut lying = packet(1, 40);
    lying[3] += 1;
    let device = &mut wire.devices[0];
    assert_eq!(device.send(peer, &lying, now), Err(SendError::IpLength));
    assert_eq!(device.send(peer, &[], now), Err(SendError::Empty));
    assert_eq!(device.send(peer, &[0; MAX_PACKET + 1], now), Err(SendError::TooLong));
    assert_eq!(device.send(PeerId(9), &[0], now), Err(SendError::UnknownPeer));
    assert!(device.poll_transmit().is_none());
    for odd in [&[0x00][..], &[0x45, 1, 2], &[0x60; 39], b"not IP at all"] {
        wire.send_bytes(0, odd);
    }
    wire.run_for(SECOND);
    assert_eq!(wire.packets(1), [&[0x00][..], &[0x45, 1, 2], &[0x60; 39], b"not IP at all"]);
}

#[test]
fn same_seed_same_bytes_other_seed_other_bytes() {
    let run = |seed| {
        let mut wire = Wire::with(seed, 20 * MS, None, [Some(25 * SECOND), None]);
        wire.send(0, 1);
        wire.send(1, 2);
        wire.run_for(400 * SECOND);
        assert!(wire.sent.len() > 20);
        wire.sent.into_iter().map(|sent| (sent.at, sent.by, sent.data)).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1)[0].2, run(2)[0].2);
}

#[test]
fn different_preshared_keys_make_no_session() {
    let mut wire = Wire::with(1, MS, Some([9; 32]), [None, None]);
    wire.devices[1].add_peer(PeerConfig {
        public_key: public_key(&KEYS[0]),
        preshared_key: Some([8; 32]),
        persistent_keepalive: None,
    });
    wire.send(0, 1);
    wire.run_for(SECOND);
    assert_eq!(wire.errors, [(0, Error::Forged)]);
    assert_eq!(wire.happened(0), []);
}

#[test]
fn a_removed_peer_is_forgotten() {
    let mut wire = Wire::new(1, MS);
    wire.send(0, 1);
    wire.run_for(SECOND);
    let peer = wire.peers[1];
    assert!(!wire.devices[1].is_up(PeerId(9), wire.now));
    assert!(wire.devices[1].is_up(peer, wire.now));
    wire.devices[1].remove_peer(peer);
    wire.send(0, 2);
    wire.run_for(18 * SECOND);
    assert_eq!(wire.received(1), [1]);
    assert_eq!(wire.devices[1].poll_timeout(), None);
    assert_eq!(wire.errors, [(1, Error::UnknownIndex), (1, Error::UnknownPeer)]);
    let again = wire.devices[1].add_peer(PeerConfig {
        public_key: public_key(&KEYS[0]),
        preshared_key: None,
        persistent_keepalive: None,
    });
    assert_ne!(again, peer, "ids are not reused");
}

#[test]
fn secrets_do_not_print() {
    let config = wireguard::DeviceConfig { private_key: [77; 32], epoch: EPOCH };
    assert!(!format!("{config:?}").contains("77"));
    let config =
        PeerConfig { public_key: [1; 32], preshared_key: Some([77; 32]), persistent_keepalive: None };
    assert!(!format!("{config:?}").contains("77"));
}
