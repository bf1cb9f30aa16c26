//! Whatever a peer sends, whatever the program does, in whatever order: no panic, no queue without bound.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod harness;

use bytes::Bytes;
use harness::{MS, start};
use proptest::prelude::*;
use tcp::{Buffer, Config, Connection, Flags, Options, SackBlocks, Segment, State, Timestamps};

/// A segment whose numbers are near those in use, so that it gets far, or anywhere.
#[derive(Debug, Clone)]
struct Odd {
    seq: i64,
    ack: i64,
    flags: u8,
    window: u16,
    len: usize,
    options: OddOptions,
}

#[derive(Debug, Clone)]
struct OddOptions {
    mss: Option<u16>,
    window_scale: Option<u8>,
    sack_permitted: bool,
    sack: Vec<(i64, i64)>,
    timestamps: Option<(i64, i64)>,
}

#[derive(Debug, Clone)]
enum Step {
    Segment(Odd),
    /// What the other end of a real pair sends.
    Honest,
    Write(usize),
    Read,
    Close,
    Abort,
    Wait(u64),
    Deadline,
}

fn near() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -3i64..4, 3 => -4000i64..4000, 1 => -100_000i64..100_000, 1 => any::<i32>().prop_map(i64::from)]
}

fn odd() -> impl Strategy<Value = Odd> {
    let flags = prop_oneof![6 => Just(0x10u8), 2 => Just(0x11), 1 => Just(0x12), 1 => Just(0x02), 1 => Just(0x04), 1 => any::<u8>()];
    let options = (
        any::<Option<u16>>(),
        any::<Option<u8>>(),
        any::<bool>(),
        proptest::collection::vec((near(), near()), 0..5),
        proptest::option::of((near(), near())),
    )
        .prop_map(|(mss, window_scale, sack_permitted, sack, timestamps)| OddOptions {
            mss,
            window_scale,
            sack_permitted,
            sack,
            timestamps,
        });
    (near(), near(), flags, any::<u16>(), prop_oneof![Just(0usize), 1usize..3, 0usize..3000], options)
        .prop_map(|(seq, ack, flags, window, len, options)| Odd { seq, ack, flags, window, len, options })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => odd().prop_map(Step::Segment),
        6 => Just(Step::Honest),
        3 => (1usize..30_000).prop_map(Step::Write),
        1 => Just(Step::Read),
        1 => Just(Step::Close),
        1 => (0u32..20).prop_map(|n| if n == 0 { Step::Abort } else { Step::Deadline }),
        1 => (0u64..200_000).prop_map(Step::Wait),
        3 => Just(Step::Deadline),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Start {
    SynSent,
    SynReceived,
    Established,
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers wrap")]
fn moved(number: u32, by: i64) -> u32 {
    number.wrapping_add(by as u32)
}

fn build(odd: &Odd, peer_next: u32, peer_acked: u32, clock: u32, echo: u32) -> Segment {
    let mut sack = SackBlocks::default();
    for (left, right) in &odd.options.sack {
        sack.push(moved(peer_acked, *left), moved(peer_acked, *right));
    }
    Segment {
        seq: moved(peer_next, odd.seq),
        ack: moved(peer_acked, odd.ack),
        flags: Flags::from_bits(odd.flags),
        window: odd.window,
        options: Options {
            mss: odd.options.mss,
            window_scale: odd.options.window_scale,
            sack_permitted: odd.options.sack_permitted,
            sack,
            timestamps: odd
                .options
                .timestamps
                .map(|(value, back)| Timestamps { value: moved(clock, value), echo: moved(echo, back) }),
        },
        payload: Bytes::from(vec![9; odd.len]),
    }
}

fn run(begin_in: Start, sack: bool, steps: &[Step]) -> Result<Vec<Segment>, TestCaseError> {
    let mut now = start();
    let config = Config {
        sack,
        send_buffer: Buffer { initial: 10_000, max: 100_000 },
        receive_buffer: Buffer { initial: 10_000, max: 100_000 },
        ..Config::default()
    };
    let mut peer = Connection::connect(config.clone(), 5, now);
    let mut tested = match begin_in {
        Start::SynSent => Connection::connect(config, 9, now),
        Start::SynReceived | Start::Established => {
            let syn = peer.poll_transmit(now).unwrap();
            Connection::accept(config, 9, &syn, now)
        }
    };
    if matches!(begin_in, Start::Established) {
        let syn_ack = tested.poll_transmit(now).unwrap();
        peer.handle(&syn_ack, now);
        tested.handle(&peer.poll_transmit(now).unwrap(), now);
        prop_assert_eq!(tested.state(), State::Established);
    }
    let mut sent = Vec::new();
    let (mut next, mut acked, mut clock, mut echo) = (6u32, 9u32, 0, 0);
    for step in steps {
        match step {
            Step::Segment(odd) => tested.handle(&build(odd, next, acked, clock, echo), now),
            Step::Honest => {
                peer.write(Bytes::from_static(&[9; 2000]));
                while let Some(segment) = peer.poll_transmit(now) {
                    tested.handle(&segment, now);
                }
                while peer.read().is_some() {}
            }
            Step::Write(len) => prop_assert!(tested.write(vec![9; *len].into()) <= *len),
            Step::Read => while tested.read().is_some() {},
            Step::Close => tested.close(),
            Step::Abort => tested.abort(),
            Step::Wait(micros) => now += std::time::Duration::from_micros(*micros),
            Step::Deadline => {
                if let Some((at, _)) = tested.poll_timeout() {
                    now = now.max(at);
                    tested.handle_timeout(now);
                }
            }
        }
        let mut burst = 0;
        while let Some(segment) = tested.poll_transmit(now) {
            burst += 1;
            prop_assert!(burst < 5000, "sends without end");
            prop_assert!(segment.options.wire_len() <= 40 && segment.payload.len() <= 1460);
            if segment.flags.ack() {
                next = segment.ack;
            }
            acked = segment.seq;
            if let Some(timestamps) = segment.options.timestamps {
                (clock, echo) = (timestamps.echo, timestamps.value);
            }
            peer.handle(&segment, now);
            sent.push(segment);
        }
        let mut events = 0;
        while tested.poll_event().is_some() {
            events += 1;
        }
        prop_assert!(events <= 7);
        let stats = tested.stats();
        prop_assert!(stats.receive_queue <= 100_000 + 3000, "{stats:?}");
        prop_assert!(stats.send_queue <= 100_000 + 2, "{stats:?}");
        if let Some((at, _)) = tested.poll_timeout() {
            prop_assert!(at + MS * 200_000 > now, "a deadline long past: {stats:?}");
        }
        tested.handle_timeout(now);
    }
    Ok(sent)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_nothing_grows_without_bound(
        begin_in in prop_oneof![1 => Just(Start::SynSent), 1 => Just(Start::SynReceived), 4 => Just(Start::Established)],
        sack in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let first = run(begin_in, sack, &steps)?;

        prop_assert_eq!(first, run(begin_in, sack, &steps)?, "the same input gives the same output");
    }
}
