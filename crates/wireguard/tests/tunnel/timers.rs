//! Paper §6: when what is sent although nobody asked.

use crate::wire::*;
use std::time::Duration;
use wireguard::{Error, Event, Kind};

fn seconds(times: &[Duration]) -> Vec<u64> {
    times.iter().map(Duration::as_secs).collect()
}

/// A packet each second and way, all of which must arrive.
fn chat(wire: &mut Wire, seconds: u32, sides: &[usize]) {
    for tag in 0..seconds {
        for side in sides {
            wire.send(*side, tag);
        }
        wire.run_for(SECOND);
    }
    for side in sides {
        let expected: Vec<u32> = (0..seconds).collect();
        assert_eq!(wire.received(1 - side), expected, "sent by {side}");
    }
}

/// §6.2: REKEY-AFTER-TIME, by the initiator, without losing a packet.
#[test]
fn the_initiator_renews_after_120_seconds() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 99);
    wire.run_for(SECOND);
    wire.events.clear();
    chat(&mut wire, 300, &[0, 1]);
    assert_eq!(seconds(&wire.times(0, Kind::Initiation)), [0, 121, 242]);
    assert_eq!(wire.count(1, Kind::Initiation), 0);
    assert_eq!(wire.errors, []);
}

/// §6.2: an initiator that only answers with keepalives renews too, before the keys are refused.
#[test]
fn a_receiving_initiator_renews() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 99);
    wire.run_for(SECOND);
    chat(&mut wire, 400, &[1]);
    assert_eq!(wire.count(1, Kind::Initiation), 0);
    let renewals = seconds(&wire.times(0, Kind::Initiation));
    assert!(renewals.windows(2).all(|pair| (120..=165).contains(&(pair[1] - pair[0]))), "{renewals:?}");
    assert_eq!(renewals.len(), 4);
}

/// Our addition: when the initiator's renewals do not get through, the responder's does.
#[test]
fn the_responder_renews_after_165_seconds() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 99);
    wire.run_for(SECOND);
    wire.fate = Box::new(|by, kind, _| match (by, kind) {
        (0, Kind::Initiation) => vec![],
        _ => vec![20 * MS],
    });
    wire.events.clear();
    chat(&mut wire, 300, &[0, 1]);
    assert_eq!(seconds(&wire.times(1, Kind::Initiation)), [166, 287]);
}

/// §6.2: REJECT-AFTER-TIME. Keys are gone on both sides, and nothing is left to wait for.
#[test]
fn a_session_expires_after_180_seconds() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.run_for(200 * SECOND);
    let ends = |side: usize| {
        let peer = wire.peers[side];
        let expired = Event::SessionExpired { peer };
        wire.happened(side)
            .into_iter()
            .filter(|(_, event)| *event == expired)
            .map(|(at, _)| at)
            .collect::<Vec<_>>()
    };
    assert_eq!(ends(0), [180 * SECOND + 40 * MS]);
    assert_eq!(ends(1), [180 * SECOND + 20 * MS]);
    assert_eq!([0, 1].map(|side| wire.devices[side].poll_timeout()), [None, None]);
    let data = wire.sent.iter().find(|sent| sent.kind == Kind::Data).unwrap().data.clone();
    wire.deliver(1, &data);
    assert_eq!(wire.errors, [(1, Error::UnknownIndex)]);
    wire.send(0, 2);
    wire.run_for(SECOND);
    assert_eq!(wire.received(1), [1, 2], "and the next packet makes a new one");
}

/// §6.5: KEEPALIVE-TIMEOUT after data that was not answered; a keepalive is not answered.
#[test]
fn data_is_answered_by_one_keepalive_after_10_seconds() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.run_for(100 * SECOND);
    assert_eq!(wire.times(1, Kind::Keepalive), [10 * SECOND + 60 * MS]);
    assert_eq!(wire.count(0, Kind::Keepalive), 0);
    assert_eq!(wire.count(0, Kind::Initiation), 1);
}

#[test]
fn data_that_was_answered_needs_no_keepalive() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.run_for(5 * SECOND);
    wire.send(1, 2);
    wire.run_for(9 * SECOND);
    assert_eq!(wire.count(1, Kind::Keepalive), 0);
    wire.run_for(SECOND + 20 * MS);
    assert_eq!(wire.times(0, Kind::Keepalive), [15 * SECOND + 20 * MS]);
}

/// §6.5: KEEPALIVE-TIMEOUT + REKEY-TIMEOUT without any answer; then REKEY-TIMEOUT and jitter (§6.4);
/// then REKEY-ATTEMPT-TIME.
#[test]
fn silence_starts_a_handshake_which_is_retried_and_given_up() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.run_for(20 * SECOND);
    wire.sent.clear();
    wire.fate = Box::new(|_, _, _| vec![]);
    wire.send(0, 2);
    wire.run_for(150 * SECOND);
    let tries = wire.times(0, Kind::Initiation);
    let first = tries[0] - 20 * SECOND;
    assert!((15 * SECOND..=15 * SECOND + 333 * MS).contains(&first), "{first:?}");
    let gaps: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (5 * SECOND..=5 * SECOND + 333 * MS).contains(gap)), "{gaps:?}");
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "jitter: {gaps:?}");
    assert!((17..=18).contains(&tries.len()), "{}", tries.len());
    let peer = wire.peers[0];
    assert!(wire.happened(0).contains(&(tries[0] + 90 * SECOND, Event::HandshakeFailed { peer })));
}

/// §6.4: a packet that is queued restarts the 90 seconds; giving up drops the queue; the next packet tries again.
#[test]
fn an_attempt_lasts_90_seconds_from_the_last_queued_packet() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.fate = Box::new(|_, _, _| vec![]);
    wire.send(0, 1);
    wire.run_for(50 * SECOND);
    wire.send(0, 2);
    wire.run_for(89 * SECOND);
    assert_eq!(wire.happened(0), []);
    wire.run_for(SECOND);
    let peer = wire.peers[0];
    assert_eq!(wire.happened(0), [(140 * SECOND, Event::HandshakeFailed { peer })]);
    assert_eq!(wire.devices[0].dropped(peer), 2);
    wire.run_for(60 * SECOND);
    assert_eq!(wire.devices[0].poll_timeout(), None);
    wire.fate = Box::new(|_, _, _| vec![20 * MS]);
    wire.send(0, 3);
    wire.run_for(SECOND);
    assert_eq!(wire.received(1), [3]);
}

#[test]
fn the_queue_keeps_the_newest_128_packets() {
    let mut wire = Wire::new(1, 20 * MS);
    for tag in 0..200 {
        wire.send(0, tag);
    }
    wire.run_for(SECOND);
    assert_eq!(wire.received(1), (72..200).collect::<Vec<u32>>());
    assert_eq!(wire.devices[0].dropped(wire.peers[0]), 72);
}

/// §6.5: the interval runs from the last authenticated packet of either direction.
#[test]
fn persistent_keepalives_keep_coming_and_hold_the_session() {
    let mut wire = Wire::with(1, 20 * MS, None, [Some(25 * SECOND), None]);
    wire.run_for(1000 * SECOND);
    let mut all: Vec<_> = wire.sent.iter().map(|sent| sent.at).collect();
    all.dedup();
    let quiet = all.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(quiet <= Some(25 * SECOND), "{quiet:?}");
    assert!(wire.count(0, Kind::Keepalive) >= 1000 / 25);
    assert!(wire.devices[1].is_up(wire.peers[1], wire.now));
    assert!(wire.happened(0).iter().all(|(_, event)| matches!(event, Event::SessionUp { .. })));
    assert_eq!(wire.count(1, Kind::Initiation), 0);
}

/// Both asked by the caller: a keepalive on a new path, an initiation before its retry is due.
#[test]
fn the_caller_can_hurry() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.fate = Box::new(|_, _, before| if before == 0 { vec![] } else { vec![20 * MS] });
    wire.send(0, 1);
    for _ in 0..3 {
        wire.run_for(7 * MS);
        wire.devices[0].handshake(wire.peers[0], wire.now);
        wire.drain(0);
    }
    assert_eq!(wire.times(0, Kind::Initiation), [Duration::ZERO, 21 * MS]);
    wire.run_for(SECOND);
    wire.fate = Box::new(|_, _, _| vec![20 * MS]);
    assert!(!wire.devices[0].is_up(wire.peers[0], wire.now), "the first response was lost");
    wire.devices[0].handshake(wire.peers[0], wire.now);
    wire.drain(0);
    wire.run_for(SECOND);
    assert_eq!(wire.received(1), [1]);
    wire.devices[1].keepalive(wire.peers[1], wire.now);
    wire.drain(1);
    assert_eq!(wire.times(1, Kind::Keepalive), [2 * SECOND + 21 * MS]);
}
