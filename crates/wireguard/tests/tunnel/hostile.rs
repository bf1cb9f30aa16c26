//! Datagrams that nobody should have sent: replayed, altered, arbitrary; and too many of them.

use crate::wire::*;
use proptest::prelude::*;
use wireguard::{Error, Kind, Source, To};

fn of_kind(wire: &Wire, kind: Kind) -> Vec<u8> {
    let sent = wire.sent.iter().find(|sent| sent.kind == kind);
    sent.unwrap().data.clone()
}

/// §5.1 and §5.4.6.
#[test]
fn replayed_messages_are_refused() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.run_for(SECOND);
    let sent = wire.sent.len();
    for (to, kind) in [(1, Kind::Initiation), (0, Kind::Response), (1, Kind::Data)] {
        let datagram = of_kind(&wire, kind);
        wire.errors.clear();
        wire.deliver(to, &datagram);
        assert_eq!(wire.errors, [(to, Error::Replay)], "{kind:?}");
    }
    assert_eq!(wire.received(1), [1]);
    assert_eq!(wire.sent.len(), sent, "nothing is answered");
}

/// §5.1: after a restart the responder has forgotten the label, but a replayed initiation gets nobody in.
#[test]
fn an_initiation_replayed_to_a_restarted_side_makes_no_usable_session() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.run_for(SECOND);
    let initiation = of_kind(&wire, Kind::Initiation);
    wire.restart(1, 50);
    wire.deliver(1, &initiation);
    wire.run_for(SECOND);
    assert_eq!(wire.errors, [(0, Error::Replay)], "that handshake is long over");
    assert!(!wire.devices[1].is_up(wire.peers[1], wire.now));
    wire.send(1, 2);
    wire.run_for(SECOND);
    assert_eq!(wire.received(0), [2]);
}

#[test]
fn a_message_altered_anywhere_is_refused_and_the_true_one_still_accepted() {
    for kind in [Kind::Initiation, Kind::Response, Kind::Data] {
        let mut wire = Wire::new(1, 20 * MS);
        wire.fate = Box::new(move |_, sent, _| if sent == kind { vec![] } else { vec![20 * MS] });
        wire.send(0, 1);
        wire.run_for(SECOND);
        let to = usize::from(kind != Kind::Response);
        let datagram = of_kind(&wire, kind);
        // mac2 is not looked at unless there is load.
        let end = datagram.len() - if kind == Kind::Data { 0 } else { 16 };
        for at in 0..end {
            wire.errors.clear();
            let mut altered = datagram.clone();
            altered[at] ^= 0x10;
            wire.deliver(to, &altered);
            assert_eq!(wire.errors.len(), 1, "{kind:?} with byte {at} altered");
        }
        wire.fate = Box::new(|_, _, _| vec![20 * MS]);
        wire.errors.clear();
        wire.deliver(to, &datagram);
        wire.run_for(SECOND);
        assert_eq!(wire.errors, []);
        assert_eq!(wire.received(1), [1], "{kind:?}");
    }
}

/// §5.3, §5.4.7: under load the initiator is asked to prove its address, stores the cookie, and shows it in its retry.
#[test]
fn under_load_a_cookie_is_asked_for() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.devices[1].set_handshake_limit(0);
    wire.send(0, 1);
    wire.run_for(SECOND);
    assert_eq!(of_kind(&wire, Kind::Cookie).len(), 64);
    assert_eq!(wire.count(1, Kind::Response), 0);
    assert_eq!(wire.count(0, Kind::Initiation), 1, "the cookie waits for the retry");
    wire.run_for(5 * SECOND);
    assert_eq!(wire.received(1), [1]);
    assert_eq!(wire.count(1, Kind::Cookie), 1);
    // The proof is bound to the address.
    let again = wire.sent.iter().rfind(|sent| sent.kind == Kind::Initiation).unwrap().data.clone();
    assert_ne!(again[132..], [0; 16]);
    let elsewhere = Source::Udp(([192, 0, 2, 200], 1).into());
    assert_eq!(wire.devices[1].handle_datagram(&again, elsewhere, wire.now), Ok(None));
    let challenge = wire.devices[1].poll_transmit().unwrap();
    assert_eq!((challenge.to, challenge.kind), (To::Reply(elsewhere), Kind::Cookie));
}

/// The initiator can be under load too: then the response is challenged.
#[test]
fn a_response_can_be_challenged() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.devices[0].set_handshake_limit(0);
    wire.send(0, 1);
    wire.run_for(6 * SECOND);
    assert_eq!(wire.count(0, Kind::Cookie), 1);
    assert_eq!(wire.received(1), [1]);
}

#[test]
fn a_cookie_is_only_for_its_message() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.devices[1].set_handshake_limit(0);
    wire.fate = Box::new(|_, kind, _| if kind == Kind::Cookie { vec![] } else { vec![20 * MS] });
    wire.send(0, 1);
    wire.run_for(SECOND);
    let mut cookie = of_kind(&wire, Kind::Cookie);
    cookie[40] ^= 1;
    wire.deliver(0, &cookie);
    assert_eq!(wire.errors, [(0, Error::Forged)]);
    cookie[4] ^= 1;
    wire.deliver(0, &cookie);
    assert_eq!(wire.errors[1], (0, Error::UnknownIndex));
}

/// The limit is per second, and only messages that pass mac1 count.
#[test]
fn load_is_counted_over_a_second() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.devices[1].set_handshake_limit(3);
    wire.fate = Box::new(|_, _, _| vec![]);
    wire.send(0, 1);
    let initiation = of_kind(&wire, Kind::Initiation);
    let mut forged = initiation.clone();
    forged[120] ^= 1;
    let answers = |wire: &mut Wire, datagram: &[u8], times: usize| {
        wire.sent.clear();
        for _ in 0..times {
            wire.deliver(1, datagram);
        }
        wire.count(1, Kind::Cookie)
    };
    assert_eq!(answers(&mut wire, &forged, 10), 0);
    assert_eq!(answers(&mut wire, &initiation, 5), 2);
    wire.run_for(SECOND);
    assert_eq!(answers(&mut wire, &initiation, 3), 0);
}

/// A session made by one side of a conversation is not disturbed by anything that does not authenticate.
fn established(seed: u64) -> Wire {
    let mut wire = Wire::new(seed, 20 * MS);
    wire.send(0, 1);
    wire.send(1, 1);
    wire.run_for(SECOND);
    wire.errors.clear();
    wire
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_an_error_and_change_nothing(
        junk in proptest::collection::vec((0u8..6, proptest::collection::vec(any::<u8>(), 0..200)), 1..20),
        framed: bool,
    ) {
        let mut wire = established(1);
        for (kind, mut bytes) in junk {
            if framed {
                bytes.resize([32, 148, 92, 64, 100, 148][usize::from(kind)], kind);
                bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            let before = wire.errors.len();
            wire.deliver(1, &bytes);
            prop_assert_eq!(wire.errors.len(), before + 1);
        }
        wire.send(0, 2);
        wire.send(1, 3);
        wire.run_for(SECOND);
        prop_assert_eq!((wire.received(0), wire.received(1)), (vec![1, 3], vec![1, 2]));
    }

    /// Real messages with some bytes changed, cut short or made longer, to either side.
    #[test]
    fn mutated_messages_are_an_error(
        picks in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8.., -40i32..40), 1..20),
    ) {
        let mut wire = established(1);
        let seen = wire.sent.len();
        for (which, at, flip, longer) in picks {
            let mut data = wire.sent[which.index(seen)].data.clone();
            let len = (data.len() as i32 + longer).max(1) as usize;
            data.resize(len, 0);
            let at = at.index(len);
            data[at] ^= flip;
            for to in [0, 1] {
                let before = wire.errors.len();
                wire.deliver(to, &data);
                prop_assert_eq!(wire.errors.len(), before + 1);
            }
        }
        wire.send(0, 2);
        wire.run_for(SECOND);
        prop_assert_eq!(wire.received(1), vec![1, 2]);
    }
}
