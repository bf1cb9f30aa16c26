//! Another private key in mid-session.

use crate::wire::*;
use wireguard::{Event, Kind, public_key};

const NEW: [u8; 32] = [77; 32];

fn ups(wire: &Wire, side: usize) -> usize {
    wire.happened(side).iter().filter(|(_, event)| matches!(event, Event::SessionUp { .. })).count()
}

/// A pair with a session, of which the first side takes another key.
fn rotated() -> Wire {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.run_for(SECOND);
    let now = wire.now;
    wire.devices[0].set_private_key(NEW, now);
    wire
}

#[test]
fn a_session_outlives_the_key_that_it_was_made_with() {
    let mut wire = rotated();
    wire.send(0, 2);
    wire.send(1, 3);
    wire.run_for(SECOND);
    let handshakes = wire.sent.iter().filter(|sent| sent.kind == Kind::Initiation).count();
    assert_eq!((wire.received(0), wire.received(1), handshakes), (vec![3], vec![1, 2], 1));
}

#[test]
fn who_knows_the_old_key_only_is_answered_until_the_last_session_with_it_is_over() {
    for (after, sessions) in [(170 * SECOND, 2), (200 * SECOND, 1)] {
        let mut wire = rotated();
        wire.run_for(after);
        let (peer, now) = (wire.peers[1], wire.now);
        wire.devices[1].handshake(peer, now);
        wire.drain(1);
        wire.run_for(SECOND);
        assert_eq!(ups(&wire, 1), sessions, "{after:?}");
        let refused = wire.errors.iter().filter(|error| format!("{error:?}").contains("BadMac")).count();
        assert_eq!(refused == 0, sessions == 2);
    }
}

#[test]
fn both_sides_go_on_with_the_new_key_alone() {
    let mut wire = rotated();
    let (peer, now) = (wire.peers[1], wire.now);
    assert!(wire.devices[1].set_public_key(peer, public_key(&NEW), now));
    assert_eq!(wire.devices[1].peer(&public_key(&NEW)), Some(peer));
    wire.run_for(400 * SECOND);
    wire.send(1, 2);
    wire.run_for(SECOND);
    wire.send(0, 3);
    wire.run_for(SECOND);
    assert_eq!((wire.received(0), wire.received(1)), (vec![2], vec![1, 3]));
}

#[test]
fn a_key_that_is_only_expected_is_answered_and_not_used() {
    let mut wire = Wire::new(1, 20 * MS);
    let (peer, now) = (wire.peers[1], wire.now);
    wire.devices[0].expect_private_key(Some(NEW), now);
    wire.devices[1].set_public_key(peer, public_key(&NEW), now);
    wire.send(1, 1);
    wire.run_for(SECOND);
    assert_eq!(wire.received(0), [1]);
    let (peer, now) = (wire.peers[0], wire.now);
    wire.devices[0].handshake(peer, now);
    wire.drain(0);
    wire.run_for(SECOND);
    assert!(
        wire.errors.iter().any(|error| format!("{error:?}").contains("UnknownPeer")),
        "{:?}",
        wire.errors
    );
}
