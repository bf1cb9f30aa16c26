//! Messages that are lost, doubled, delayed; a side that starts anew.

use crate::wire::*;
use proptest::prelude::*;
use wireguard::{Error, Kind};

/// Loses the first messages of one kind of one side.
fn lose(side: usize, lost: Kind, count: usize) -> Fate {
    Box::new(
        move |by, kind, before| {
            if by == side && kind == lost && before < count { vec![] } else { vec![20 * MS] }
        },
    )
}

#[test]
fn a_lost_initiation_or_response_costs_one_retry() {
    for (side, kind) in [(0, Kind::Initiation), (1, Kind::Response)] {
        let mut wire = Wire::new(1, 20 * MS);
        wire.fate = lose(side, kind, 1);
        wire.send(0, 1);
        wire.run_for(6 * SECOND);
        assert_eq!(wire.received(1), [1]);
        assert_eq!(wire.count(0, Kind::Initiation), 2);
    }
}

/// The responder may not send before it heard from the initiator, but it can start a handshake of its own.
#[test]
fn a_lost_confirmation_does_not_keep_the_responder_waiting() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.fate = lose(0, Kind::Data, 1);
    wire.send(0, 1);
    wire.run_for(100 * MS);
    wire.send(1, 2);
    wire.run_for(100 * MS);
    assert_eq!(wire.received(0), [2]);
}

#[test]
fn a_path_slower_than_the_retry_still_makes_a_session() {
    let mut wire = Wire::new(1, 6 * SECOND);
    wire.send(0, 1);
    wire.run_for(30 * SECOND);
    assert_eq!(wire.received(1), [1]);
    wire.send(1, 2);
    wire.run_for(30 * SECOND);
    assert_eq!(wire.received(0), [2]);
}

/// §5.1: the sender keeps its session for a while, the state at the other side is gone.
#[test]
fn a_restarted_receiver_is_found_again() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.run_for(SECOND);
    wire.restart(1, 50);
    wire.send(0, 2); // lost: nobody can read it
    wire.run_for(16 * SECOND);
    assert_eq!(wire.errors, [(1, Error::UnknownIndex)]);
    wire.send(0, 3);
    wire.run_for(SECOND);
    assert_eq!(wire.received(1), [1, 3]);
}

#[test]
fn a_restarted_sender_is_back_at_once() {
    for side in [0, 1] {
        let mut wire = Wire::new(1, 20 * MS);
        wire.send(0, 1);
        wire.run_for(2 * SECOND);
        wire.restart(side, 50);
        wire.send(side, 2);
        wire.run_for(SECOND);
        assert_eq!(wire.received(1 - side).last(), Some(&2), "side {side}");
        wire.send(1 - side, 3);
        wire.run_for(SECOND);
        assert_eq!(wire.received(side).last(), Some(&3), "the other way, side {side}");
    }
}

/// The restart comes within seconds of a handshake, in the window where crossing could be suspected.
#[test]
fn a_restart_right_after_crossing_is_not_taken_for_crossing() {
    for side in [0, 1] {
        let mut wire = Wire::new(1, 20 * MS);
        wire.send(0, 1);
        wire.send(1, 1);
        wire.run_for(SECOND);
        wire.restart(side, 50);
        wire.send(side, 2);
        wire.run_for(SECOND);
        wire.send(1 - side, 3);
        wire.run_for(SECOND);
        assert_eq!(wire.received(1 - side), [1, 2], "side {side}");
        assert_eq!(wire.received(side), [1, 3], "side {side}");
    }
}

#[test]
fn every_message_twice_is_the_same_as_once() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.fate = Box::new(|_, _, _| vec![20 * MS, 35 * MS]);
    for tag in 0..50 {
        wire.send(0, tag);
        wire.send(1, tag);
        wire.run_for(10 * MS);
    }
    wire.run_for(SECOND);
    let all: Vec<u32> = (0..50).collect();
    assert_eq!(wire.received(0), all);
    assert_eq!(wire.received(1), all);
    let replay = |error: &(usize, Error)| matches!(error.1, Error::Replay | Error::UnknownIndex);
    assert!(wire.errors.iter().all(replay), "{:?}", wire.errors);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Handshake messages and keepalives are lost at random; packets that were queued all arrive, once.
    #[test]
    fn lost_handshakes_lose_no_packet(
        losses in proptest::collection::vec(any::<bool>(), 0..14),
        delays in proptest::collection::vec(1u32..300, 1..9),
        sends in proptest::collection::vec((0usize..2, 0u32..3000), 1..12),
    ) {
        let mut wire = Wire::new(7, MS);
        let mut n = 0;
        wire.fate = Box::new(move |_, kind, _| {
            n += 1;
            let lost = kind != Kind::Data && losses.get(n).copied().unwrap_or(false);
            if lost { vec![] } else { vec![delays[n % delays.len()] * MS] }
        });
        let mut expected = [vec![], vec![]];
        for (tag, (side, wait)) in (0..).zip(sends) {
            wire.send(side, tag);
            expected[1 - side].push(tag);
            wire.run_for(wait * MS);
        }
        wire.run_for(85 * SECOND);
        for side in [0, 1] {
            let mut got = wire.received(side);
            got.sort_unstable();
            prop_assert_eq!(&got, &expected[side], "side {}", side);
        }
    }
}

/// What befalls the two sides.
#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Restart(usize),
    Wait(u32),
    /// Send an initiation out of turn, as a caller does when a path opens.
    Hurry(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..2).prop_map(Step::Send),
        1 => (0usize..2).prop_map(Step::Restart),
        1 => (0usize..2).prop_map(Step::Hurry),
        4 => prop_oneof![0u32..100, 0u32..4000, 0u32..200_000].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Safety: while datagrams are lost, doubled and delayed and sides restart, no packet arrives twice or at the
    /// wrong side. Liveness: when that stops, both directions work again within the silence timeout and one handshake.
    #[test]
    fn after_any_trouble_both_directions_work_again(
        fates in proptest::collection::vec(proptest::collection::vec(0u32..2500, 0..3), 1..30),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut wire = Wire::new(11, MS);
        let mut n = 0;
        wire.fate = Box::new(move |_, _, _| {
            n += 1;
            fates[n % fates.len()].iter().map(|ms| *ms * MS).collect()
        });
        for (tag, step) in (0..).zip(steps) {
            match step {
                // Even tags from one side, odd ones from the other.
                Step::Send(side) => wire.send(side, tag * 2 + side as u32),
                Step::Restart(side) => wire.restart(side, 100 + u64::from(tag)),
                Step::Wait(ms) => wire.run_for(ms * MS),
                Step::Hurry(side) => {
                    wire.devices[side].handshake(wire.peers[side], wire.now);
                    wire.drain(side);
                }
            }
        }
        for side in [0, 1] {
            let mut got = wire.received(side);
            prop_assert!(got.iter().all(|tag| *tag as usize % 2 == 1 - side));
            got.sort_unstable();
            prop_assert!(got.windows(2).all(|pair| pair[0] != pair[1]), "twice: {:?}", got);
        }
        wire.fate = Box::new(|_, _, _| vec![20 * MS]);
        for _ in 0..23 {
            wire.send(0, 1_000_000);
            wire.send(1, 1_000_001);
            wire.run_for(SECOND);
        }
        wire.events.clear();
        for tag in 0..10 {
            wire.send(0, tag);
            wire.send(1, tag);
            wire.run_for(SECOND);
        }
        let expected: Vec<u32> = (0..10).collect();
        prop_assert_eq!((wire.received(0), wire.received(1)), (expected.clone(), expected));
    }
}
