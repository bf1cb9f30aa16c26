//! Both sides start at once: the rule on the crate's front page.

use crate::wire::*;
use proptest::prelude::*;
use wireguard::Kind;

/// Which session a side sends on, named by who initiated it, seen from the peer's events.
fn renewals(wire: &mut Wire) -> [usize; 2] {
    wire.sent.clear();
    for tag in 1000..1150 {
        wire.send(0, tag);
        wire.send(1, tag);
        wire.run_for(SECOND);
    }
    [0, 1].map(|side| wire.count(side, Kind::Initiation))
}

#[test]
fn crossing_handshakes_settle_on_the_smaller_key() {
    let mut wire = Wire::new(1, 20 * MS);
    wire.send(0, 1);
    wire.send(1, 2);
    wire.run_for(SECOND);
    assert_eq!((wire.received(0), wire.received(1)), (vec![2], vec![1]));
    // One round trip for the handshake and half a one for the packet: nobody waited for anybody.
    let first: Vec<_> = [0, 1].map(|side| wire.times(side, Kind::Data)[0]).into();
    assert_eq!(first, [40 * MS, 40 * MS]);
    assert_eq!([0, 1].map(|side| wire.count(side, Kind::Initiation)), [1, 1]);
    // From then on there is one session, so one side renews it.
    assert_eq!(renewals(&mut wire), [1, 0]);
    assert_eq!(wire.errors, []);
}

/// Into closed NATs: the first initiation of one side is lost, in turn.
#[test]
fn either_handshake_alone_is_enough() {
    for side in [0, 1] {
        let mut wire = Wire::new(1, 20 * MS);
        wire.fate = Box::new(move |by, kind, before| {
            if by == side && kind == Kind::Initiation && before == 0 { vec![] } else { vec![20 * MS] }
        });
        wire.send(0, 1);
        wire.send(1, 2);
        wire.run_for(80 * MS);
        assert_eq!((wire.received(0), wire.received(1)), (vec![2], vec![1]), "lost by {side}");
        wire.run_for(10 * SECOND);
        assert_eq!(wire.count(side, Kind::Initiation), 1, "no retry of what is not needed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A path in each direction with its own delay, and an initiation at any moment: one session is left.
    #[test]
    fn on_paths_that_keep_the_order_one_session_is_left(
        delays in (1u32..400, 1u32..400),
        offset in 0u32..900,
        first in 0usize..2,
    ) {
        let mut wire = Wire::new(3, MS);
        wire.fate = Box::new(move |by, _, _| vec![if by == 0 { delays.0 } else { delays.1 } * MS]);
        wire.send(first, 1);
        wire.run_for(offset * MS);
        wire.send(1 - first, 1);
        wire.run_for(3 * SECOND);
        prop_assert_eq!((wire.received(0), wire.received(1)), (vec![1], vec![1]));
        prop_assert_eq!(renewals(&mut wire).iter().sum::<usize>(), 1);
        prop_assert_eq!(wire.received(0).len(), 151);
        prop_assert_eq!(wire.received(1).len(), 151);
    }

    /// Two paths at once, each datagram on one or both of them, in any order: every packet arrives, exactly once.
    #[test]
    fn in_any_order_no_packet_is_lost_or_doubled(
        fates in proptest::collection::vec(proptest::collection::vec(0u32..1500, 1..3), 1..40),
        sends in proptest::collection::vec((0usize..2, 0u32..400), 2..40),
        seed in 0u64..1000,
    ) {
        let mut wire = Wire::new(seed, MS);
        let mut n = 0;
        wire.fate = Box::new(move |_, _, _| {
            n += 1;
            fates[n % fates.len()].iter().map(|ms| *ms * MS).collect()
        });
        let mut expected = [vec![], vec![]];
        for (tag, (side, wait)) in (0..).zip(sends) {
            wire.send(side, tag);
            expected[1 - side].push(tag);
            wire.run_for(wait * MS);
        }
        wire.run_for(60 * SECOND);
        for side in [0, 1] {
            let mut got = wire.received(side);
            got.sort_unstable();
            prop_assert_eq!(&got, &expected[side], "side {}", side);
        }
        // And whatever they settled on lasts through the renewals.
        let _ = renewals(&mut wire);
        wire.run_for(5 * SECOND);
        prop_assert_eq!(wire.received(0).len(), expected[0].len() + 150);
        prop_assert_eq!(wire.received(1).len(), expected[1].len() + 150);
    }
}
