//! The tunnel between two devices, a test per requirement of the paper.

use crate::wire::*;

use wireguard::{Event, Kind, MAX_PACKET, public_key};

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
            (0 * MS, 0, Kind::Initiation, 148),
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
