//! Traces in mahimahi's format, and of delays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use link::trace::{DelayTrace, MAX_LINES, Trace, TraceErrorKind};
use link::{DropReason, Link, LinkConfig, Sent};
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

const MS: Duration = Duration::from_millis(1);

fn traced(text: &str, queue_bytes: Option<u64>, begin: Instant) -> Link {
    let trace = Some(Arc::new(Trace::parse("t", text).expect("a trace")));
    let config = LinkConfig { trace, queue_bytes, ..LinkConfig::default() };
    Link::new(config, Pcg64Mcg::seed_from_u64(1)).anchored(begin, 0)
}

fn arrival(link: &mut Link, bytes: usize, begin: Instant, ms: u32) -> Result<u128, DropReason> {
    match link.send(bytes, begin + ms * MS) {
        Sent::Deliver { at, .. } => Ok((at - begin).as_millis()),
        Sent::Drop(reason) => Err(reason),
        Sent::Queued(_) => panic!("no managed queue"),
    }
}

#[test]
fn packets_arrive_at_the_listed_times_and_the_trace_starts_again() {
    let begin = start();
    let mut link = traced("2\n5\n5\n9\n", None, begin);
    let arrivals = [0; 10].map(|_| arrival(&mut link, 1500, begin, 0).expect("no limit"));
    assert_eq!(arrivals, [2, 5, 5, 9, 11, 14, 14, 18, 20, 23]);
}

#[test]
fn small_packets_share_a_chance_and_large_ones_take_two() {
    let begin = start();
    let mut link = traced("10\n20\n30\n", None, begin);
    let sizes = [500, 500, 500, 1600, 1300, 200];
    assert_eq!(sizes.map(|bytes| arrival(&mut link, bytes, begin, 0)), [10, 10, 10, 30, 30, 40].map(Ok));
}

#[test]
fn a_chance_with_nothing_to_send_is_gone() {
    let begin = start();
    let mut link = traced("10\n20\n30\n", None, begin);
    assert_eq!(arrival(&mut link, 500, begin, 0), Ok(10));
    // The rest of the first chance is gone, and so is a chance in the instant of the arrival.
    assert_eq!(arrival(&mut link, 500, begin, 10), Ok(20));
    assert_eq!(arrival(&mut link, 500, begin, 30), Ok(40));
    assert_eq!(arrival(&mut link, 500, begin, 1005), Ok(1010));
}

#[test]
fn what_waits_for_a_chance_counts_against_the_queue() {
    let begin = start();
    let mut link = traced("10\n20\n", Some(3000), begin);
    let sent = [0; 4].map(|_| arrival(&mut link, 1500, begin, 0));
    assert_eq!(sent, [Ok(10), Ok(20), Err(DropReason::QueueFull), Err(DropReason::QueueFull)]);
    assert_eq!(arrival(&mut link, 1500, begin, 10), Ok(30));
}

#[test]
fn a_trace_of_twelve_packets_a_millisecond_is_a_constant_rate() {
    let trace = Trace::parse("t", &"1\n".repeat(12)).expect("a trace");
    assert_eq!((trace.mean_bps(), trace.length()), (144_000_000, MS));
}

#[test]
fn a_delay_follows_its_trace_and_stays_at_the_last() {
    let begin = start();
    let delays = DelayTrace::parse("d", "0,20\n1000,35.5\n2000,5.000001\n").expect("a trace of delays");
    let config = LinkConfig { delays: Some(Arc::new(delays)), may_reorder: true, ..LinkConfig::default() };
    let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(1)).anchored(begin, 0);
    for (ms, expected_ns) in [(0, 20_000_000), (999, 20_000_000), (1000, 35_500_000), (9000, 5_000_001)] {
        let now = begin + ms * MS;
        let Sent::Deliver { at, .. } = link.send(100, now) else { panic!("it arrives") };
        assert_eq!((at - now).as_nanos(), expected_ns, "{ms} ms");
    }
}

#[test]
fn what_is_wrong_with_a_trace_is_said_with_its_line() {
    use TraceErrorKind::{Backwards, Empty, LateStart, NoDelay, NoLength, NoTime, TooLong};
    let wrong = |text: &str| Trace::parse("t", text).map_err(|error| (error.line, error.kind));
    assert_eq!(wrong("").err(), Some((0, Empty)));
    assert_eq!(wrong("1\n\n2").err(), Some((2, NoTime)));
    assert_eq!(wrong("1\n2.5").err(), Some((2, NoTime)));
    assert_eq!(wrong("+1").err(), Some((1, NoTime)));
    assert_eq!(wrong("86400001").err(), Some((1, NoTime)));
    assert_eq!(wrong("5\n4").err(), Some((2, Backwards)));
    assert_eq!(wrong("0\n0").err(), Some((2, NoLength)));
    assert_eq!(wrong(&"1\n".repeat(MAX_LINES + 1)).err(), Some((0, TooLong)));
    let wrong = |text: &str| DelayTrace::parse("d", text).map_err(|error| (error.line, error.kind));
    assert_eq!(wrong("1,5").err(), Some((1, LateStart)));
    assert_eq!(wrong("0,5\n0,6").err(), Some((2, Backwards)));
    assert_eq!(wrong("0,5\n9").err(), Some((2, NoDelay)));
    assert_eq!(wrong("0,5\n9,1.0000001").err(), Some((2, NoDelay)));
    assert_eq!(wrong("x,5").err(), Some((1, NoTime)));
}

proptest! {
    /// Any bytes give a trace or an error, and a link plays any trace.
    #[test]
    fn any_text_gives_a_trace_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        digits in "[0-9,.\n -]{0,60}",
        sizes in prop::collection::vec(any::<usize>(), 1..5),
    ) {
        let begin = start();
        for text in [String::from_utf8_lossy(&bytes).into_owned(), digits] {
            let _ = DelayTrace::parse("d", &text);
            if let Ok(trace) = Trace::parse("t", &text) {
                let trace = Some(Arc::new(trace));
                let config = LinkConfig { trace, ..LinkConfig::default() };
                let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(1)).anchored(begin, 0);
                for bytes in &sizes {
                    link.send(*bytes, begin);
                }
            }
        }
    }

    /// Never more than the trace allows, and every packet at a time that the trace has.
    #[test]
    fn no_chance_is_used_twice(
        gaps in prop::collection::vec(0..20_u32, 1..30),
        packets in prop::collection::vec((0..30_u32, 1..1500_usize), 1..80),
    ) {
        let begin = start();
        let mut at = 0;
        let times: Vec<u32> = gaps.iter().map(|gap| { at += gap; at }).collect();
        prop_assume!(at > 0);
        let text: String = times.iter().map(|ms| format!("{ms}\n")).collect();
        let mut link = traced(&text, None, begin);
        let (mut now, mut last) = (0, 0);
        let mut used = std::collections::BTreeMap::new();
        for (wait, bytes) in packets {
            now += wait;
            let ms = arrival(&mut link, bytes, begin, now).expect("no limit");
            prop_assert!(ms > u128::from(now) && ms >= last);
            last = ms;
            *used.entry(ms).or_insert(0) += bytes;
            let length = u128::from(at);
            let listed = times.iter().filter(|time| u128::from(**time) % length == ms % length).count();
            prop_assert!(listed > 0, "{ms} is not in the trace");
            // A packet may have begun in the chance before.
            prop_assert!(used[&ms] <= listed * 1500 + 1500);
        }
    }
}

#[expect(dead_code, reason = "its `main` is for the command line")]
#[path = "../examples/make_trace.rs"]
mod make_trace;

#[test]
fn the_trace_that_ships_is_what_its_maker_makes() {
    let shipped = include_str!("../../../scenarios/link/3g-drive.trace");
    assert_eq!(shipped, make_trace::trace());
    let trace = Trace::parse("3g-drive.trace", shipped).expect("a trace");
    assert!((500_000..3_000_000).contains(&trace.mean_bps()), "{}", trace.mean_bps());
}
