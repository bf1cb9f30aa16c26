//! Managed queues: CoDel, FQ-CoDel, RED.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use link::{
    Aqm, CoDel, DropReason, FqCoDel, Frame, Jitter, Late, Link, LinkConfig, Loss, Outages, Red, Sent, Share,
    StepTo, Steps,
};
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
struct Packet {
    bytes: usize,
    flow: u64,
    ecn: bool,
}

impl Frame for Packet {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn flow(&self) -> u64 {
        self.flow
    }

    fn ecn_capable(&self) -> bool {
        self.ecn
    }
}

const BULK: Packet = Packet { bytes: 1500, flow: 1, ecn: false };

/// A packet's way through the link.
#[derive(Clone, Copy, Debug)]
struct Passed {
    flow: u64,
    sent: Instant,
    fate: Sent,
}

impl Passed {
    fn queued(&self) -> Option<Duration> {
        if let Sent::Deliver { queued, .. } = self.fate { Some(queued) } else { None }
    }

    fn marked(&self) -> bool {
        matches!(self.fate, Sent::Deliver { marked: true, .. })
    }
}

/// Plays packets, each at its time, to the end.
fn play(config: LinkConfig, packets: &[(Instant, Packet)]) -> Vec<Passed> {
    let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(4));
    let mut waiting = BTreeMap::new();
    let mut out = Vec::new();
    let mut packets = packets.iter().peekable();
    loop {
        let due = link.poll_timeout();
        match packets.next_if(|(at, _)| due.is_none_or(|due| *at < due)) {
            Some(&(sent, packet)) => match link.send(packet, sent) {
                Sent::Queued(ticket) => {
                    let before = waiting.insert(ticket, (sent, packet.flow));
                    assert!(before.is_none(), "a ticket is given out once");
                }
                fate => out.push(Passed { flow: packet.flow, sent, fate }),
            },
            None => match due {
                Some(due) => link.handle_timeout(due),
                None => break,
            },
        }
        while let Some((ticket, fate)) = link.poll_sent() {
            let (sent, flow) = waiting.remove(&ticket).expect("a ticket that was given out");
            out.push(Passed { flow, sent, fate });
        }
    }
    assert!(waiting.is_empty(), "every ticket is answered");
    out
}

/// `packet` so many times, one every `gap`.
fn stream(packet: Packet, begin: Instant, gap: Duration, count: u32) -> Vec<(Instant, Packet)> {
    (0..count).map(|i| (begin + i * gap, packet)).collect()
}

fn merged(streams: &[Vec<(Instant, Packet)>; 2]) -> Vec<(Instant, Packet)> {
    let mut all = streams.concat();
    all.sort_by_key(|(at, _)| *at);
    all
}

/// Ten megabits per second: 1500 bytes last 1.2 ms.
fn ten(aqm: Aqm) -> LinkConfig {
    LinkConfig { rate_bps: Some(10_000_000), queue_bytes: Some(1_000_000), aqm, ..LinkConfig::default() }
}

/// The waits of what was sent after a while, sorted.
fn waits(passed: &[Passed], after: Instant) -> Vec<Duration> {
    let mut waits: Vec<_> = passed.iter().filter(|p| p.sent >= after).filter_map(Passed::queued).collect();
    waits.sort();
    waits
}

fn dropped(passed: &[Passed], reason: DropReason) -> usize {
    passed.iter().filter(|p| p.fate == Sent::Drop(reason)).count()
}

/// Five percent more than the link carries.
const OVERLOAD: Duration = Duration::from_micros(1143);

#[test]
fn codel_keeps_the_standing_delay_near_its_target_where_drop_tail_lets_it_grow() {
    let begin = start();
    let packets = stream(BULK, begin, OVERLOAD, 50_000);
    let after = begin + 30_000 * OVERLOAD;
    let tail = waits(&play(ten(Aqm::DropTail), &packets), after);
    // 666 packets of 1.2 ms.
    assert!(tail[tail.len() / 2] > 790 * MS, "{:?}", tail[tail.len() / 2]);
    let passed = play(ten(Aqm::CoDel(CoDel::DEFAULT)), &packets);
    let codel = waits(&passed, after);
    let (median, worst) = (codel[codel.len() / 2], codel[codel.len() * 99 / 100]);
    assert!(median < 10 * MS && worst < 30 * MS, "{median:?}, {worst:?}");
    // It drops what is too much and no more, and the wire is never idle.
    let share = dropped(&passed, DropReason::Aqm) as f64 / passed.len() as f64;
    assert!((0.03..0.07).contains(&share), "{share}");
    assert_eq!(dropped(&passed, DropReason::QueueFull), 0);
}

#[test]
fn codel_lets_a_burst_pass_that_is_gone_within_its_interval() {
    let begin = start();
    // 60 packets at once take 72 ms, well above the target, but not for 100 ms.
    let packets = [BULK; 60].map(|packet| (begin, packet));
    let passed = play(ten(Aqm::CoDel(CoDel::DEFAULT)), &packets);
    assert!(passed.iter().all(|p| p.queued().is_some()));
    assert_eq!(waits(&passed, begin).last(), Some(&(59 * MS * 12 / 10)));
}

#[test]
fn the_first_drops_of_codel_are_spaced_by_its_control_law() {
    let begin = start();
    // Far more than the link carries: after 100 ms above the target, drops come 100 ms / √n apart.
    let packets = stream(BULK, begin, 600 * MS / 1000, 1500);
    let mut link = Link::new(ten(Aqm::CoDel(CoDel::DEFAULT)), Pcg64Mcg::seed_from_u64(4));
    let mut drops = Vec::new();
    let mut packets = packets.into_iter().peekable();
    while let Some(due) = link.poll_timeout().or(packets.peek().map(|(at, _)| *at)) {
        if let Some((at, packet)) = packets.next_if(|(at, _)| *at <= due) {
            link.send(packet, at);
        } else {
            link.handle_timeout(due);
        }
        while let Some((_, fate)) = link.poll_sent() {
            if fate == Sent::Drop(DropReason::Aqm) {
                drops.push(due - begin);
            }
        }
    }
    let gaps: Vec<f64> = drops.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect();
    for (n, gap) in (1..).zip(&gaps[..8]) {
        // A packet of 1.2 ms may be in the way.
        let expected = 100.0 / f64::from(n).sqrt();
        assert!((gap - expected).abs() <= 1.3, "drop {n} after {gap} ms, not {expected}");
    }
}

#[test]
fn codel_marks_in_place_of_dropping_where_the_sender_understands() {
    let begin = start();
    let packets = stream(Packet { ecn: true, ..BULK }, begin, OVERLOAD, 5000);
    for ecn in [true, false] {
        let passed = play(ten(Aqm::CoDel(CoDel { ecn, ..CoDel::DEFAULT })), &packets);
        let marked = passed.iter().filter(|p| p.marked()).count();
        assert_eq!(marked > 10, ecn, "{marked}");
        assert_eq!(dropped(&passed, DropReason::Aqm) > 10, !ecn);
    }
}

#[test]
fn fq_codel_keeps_a_sparse_flow_out_of_the_queue_of_a_bulk_flow() {
    let begin = start();
    let bulk = stream(BULK, begin, OVERLOAD, 20_000);
    let voice = stream(Packet { bytes: 200, flow: 2, ecn: false }, begin, 20 * MS, 1000);
    let packets = merged(&[bulk, voice]);
    let of_voice =
        |aqm| -> Vec<Passed> { play(ten(aqm), &packets).into_iter().filter(|p| p.flow == 2).collect() };
    let fair = of_voice(Aqm::FqCoDel(FqCoDel::DEFAULT));
    assert!(fair.iter().all(|p| p.queued().is_some()), "nothing of the sparse flow is dropped");
    // It waits for the packet on the wire at most.
    let worst = *waits(&fair, begin + 20 * MS).last().expect("a thousand packets");
    assert!(worst <= 12 * MS / 10, "{worst:?}");
    let shared = waits(&of_voice(Aqm::CoDel(CoDel::DEFAULT)), begin);
    assert!(shared[shared.len() / 2] > 3 * MS, "in one queue with the bulk flow it waits");
}

#[test]
fn fq_codel_shares_a_link_alike() {
    let begin = start();
    // One sends three times what the other does, and both more than a half.
    let packets = merged(&[
        stream(BULK, begin, MS * 6 / 10, 40_000),
        stream(Packet { bytes: 750, flow: 2, ecn: false }, begin, MS * 9 / 10, 26_666),
    ]);
    let passed = play(ten(Aqm::FqCoDel(FqCoDel::DEFAULT)), &packets);
    let bytes = |flow, size| {
        let delivered = passed.iter().filter(|p| p.flow == flow && p.queued().is_some());
        delivered.count() as f64 * size
    };
    let ratio = bytes(1, 1500.0) / bytes(2, 750.0);
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
}

#[test]
fn a_full_fq_codel_takes_from_the_longest_queue() {
    let begin = start();
    let config = LinkConfig { queue_bytes: Some(30_000), ..ten(Aqm::FqCoDel(FqCoDel::DEFAULT)) };
    let packets = merged(&[
        [BULK; 40].map(|packet| (begin, packet)).to_vec(),
        [Packet { bytes: 100, flow: 2, ecn: false }; 20].map(|packet| (begin, packet)).to_vec(),
    ]);
    let passed = play(config, &packets);
    let full: Vec<_> = passed.iter().filter(|p| p.fate == Sent::Drop(DropReason::QueueFull)).collect();
    assert!(full.len() >= 20 && full.iter().all(|p| p.flow == 1), "{full:?}");
}

/// Bursts of twenty packets, 98 % of what the link carries.
fn bursts(packet: Packet, begin: Instant) -> Vec<(Instant, Packet)> {
    (0..400).flat_map(|i| std::iter::repeat_n((begin + i * 24 * MS + i * MS / 2, packet), 20)).collect()
}

const RED: Red = Red { min: 5_000, max: 60_000, probability: Share::percent(10), ecn: true };

#[test]
fn red_marks_in_place_of_dropping_where_the_sender_understands() {
    let begin = start();
    let count = |ecn, capable| {
        let passed = play(ten(Aqm::Red(Red { ecn, ..RED })), &bursts(Packet { ecn: capable, ..BULK }, begin));
        (passed.iter().filter(|p| p.marked()).count(), dropped(&passed, DropReason::Aqm))
    };
    let (marked, lost) = count(true, true);
    assert!(marked > 50 && lost == 0, "{marked} marked, {lost} dropped");
    for (ecn, capable) in [(true, false), (false, true)] {
        let (marked, lost) = count(ecn, capable);
        assert!(marked == 0 && lost > 50, "{marked} marked, {lost} dropped");
    }
}

#[test]
fn red_marks_as_many_as_its_average_asks_for() {
    let begin = start();
    let red = Red { min: 15_000, max: 45_000, ..RED };
    let mut link = Link::new(ten(Aqm::Red(red)), Pcg64Mcg::seed_from_u64(4));
    let packet = Packet { ecn: true, ..BULK };
    // Twenty packets stand in the queue, and one comes for each that leaves.
    for _ in 0..21 {
        link.send(packet, begin);
    }
    let (mut marked, mut seen) = (0, 0);
    for i in 1..200_000 {
        let Sent::Deliver { marked: mark, .. } = link.send(packet, begin + i * MS * 12 / 10) else {
            panic!("no drop")
        };
        // Once the average has come up.
        if i > 20_000 {
            seen += 1;
            marked += u32::from(mark);
        }
    }
    // 19 of them are found waiting: p_b = 10 % of 13.5 / 30, and gaps uniform from 1 to 1 / p_b: two marks in 1 / p_b.
    let expected = 2.0 * 0.1 * 13_500.0 / 30_000.0;
    let share = f64::from(marked) / f64::from(seen);
    assert!((share / expected - 1.0).abs() < 0.06, "{share}, not {expected}");
}

#[test]
fn above_its_upper_threshold_red_drops_every_packet() {
    let begin = start();
    let packets = stream(Packet { ecn: true, ..BULK }, begin, MS * 6 / 10, 20_000);
    let passed = play(ten(Aqm::Red(RED)), &packets);
    // Twice what the link carries: a half is dropped, and the average stays at the threshold.
    let share = dropped(&passed, DropReason::Aqm) as f64 / passed.len() as f64;
    assert!((0.4..0.55).contains(&share), "{share}");
    assert!(waits(&passed, begin + 5000 * MS).last().is_some_and(|worst| *worst < 80 * MS));
}

#[test]
fn what_waits_goes_first_when_the_management_ends() {
    let begin = start();
    let mut link = Link::new(ten(Aqm::FqCoDel(FqCoDel::DEFAULT)), Pcg64Mcg::seed_from_u64(4));
    let tickets = [0; 3].map(|_| link.send(BULK, begin));
    assert_eq!(tickets, [Sent::Queued(0), Sent::Queued(1), Sent::Queued(2)]);
    link.set_config(ten(Aqm::DropTail));
    assert_eq!(link.send(BULK, begin), Sent::Queued(3));
    let mut arrivals = Vec::new();
    let mut now = begin;
    loop {
        while let Some((ticket, fate)) = link.poll_sent() {
            let Sent::Deliver { at, .. } = fate else { panic!("{fate:?}") };
            arrivals.push((ticket, (at - begin).as_micros()));
        }
        let Some(due) = link.poll_timeout() else { break };
        now = due;
        link.handle_timeout(due);
    }
    assert_eq!(arrivals, [(0, 1200), (1, 2400), (2, 3600), (3, 4800)]);
    // Plain from now on.
    let Sent::Deliver { at, .. } = link.send(BULK, now) else { panic!("plain") };
    assert_eq!((at - begin).as_micros(), 6000);
}

#[test]
fn a_cut_link_loses_what_waits_in_its_managed_queue() {
    let begin = start();
    let mut link = Link::new(ten(Aqm::CoDel(CoDel::DEFAULT)), Pcg64Mcg::seed_from_u64(4));
    for _ in 0..3 {
        link.send(BULK, begin);
    }
    link.set_up(false);
    let due = link.poll_timeout().expect("two wait");
    link.handle_timeout(due);
    let fates: Vec<_> = std::iter::from_fn(|| link.poll_sent()).map(|(_, fate)| fate).collect();
    assert!(matches!(fates[0], Sent::Deliver { .. }));
    assert_eq!(fates[1..], [Sent::Drop(DropReason::Down); 2]);
    assert_eq!(link.poll_timeout(), None);
}

fn aqms() -> impl Strategy<Value = Aqm> {
    let codel = (0..20_u64, 1..200_u64, any::<bool>()).prop_map(|(target, interval, ecn)| CoDel {
        target: Duration::from_millis(target),
        interval: Duration::from_millis(interval),
        ecn,
    });
    prop_oneof![
        codel.clone().prop_map(Aqm::CoDel),
        (codel, 1..50_u16, 0..3000_u32).prop_map(|(codel, flows, quantum)| Aqm::FqCoDel(FqCoDel {
            codel,
            flows,
            quantum
        })),
    ]
}

/// Durations of any length, and those that matter.
fn durations() -> impl Strategy<Value = Duration> + Clone {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        any::<u64>().prop_map(Duration::from_secs),
        (0..2_000_000_u64).prop_map(Duration::from_micros),
    ]
}

fn shares() -> impl Strategy<Value = Share> {
    (0..=1_000_000_000_u32).prop_map(Share::per_billion)
}

/// Anything that the types allow, sense or not.
fn anything() -> impl Strategy<Value = LinkConfig> {
    let codel = (durations(), durations(), any::<bool>()).prop_map(|(target, interval, ecn)| CoDel {
        target,
        interval,
        ecn,
    });
    let aqm = prop_oneof![
        Just(Aqm::DropTail),
        codel.clone().prop_map(Aqm::CoDel),
        (codel, any::<u16>(), any::<u32>()).prop_map(|(codel, flows, quantum)| Aqm::FqCoDel(FqCoDel {
            codel,
            flows,
            quantum
        })),
        (any::<u64>(), any::<u64>(), shares(), any::<bool>())
            .prop_map(|(min, max, probability, ecn)| Aqm::Red(Red { min, max, probability, ecn })),
    ];
    let loss = prop_oneof![
        shares().prop_map(Loss::Random),
        (shares(), shares(), shares(), shares()).prop_map(|(p, r, h, k)| Loss::GilbertElliott { p, r, h, k }),
        any::<(u32, u32)>().prop_map(|(length, every)| Loss::Burst { length, every }),
    ];
    let jitter = prop_oneof![
        durations().prop_map(|plus_minus| Jitter::Uniform { plus_minus }),
        durations().prop_map(|std_dev| Jitter::Normal { std_dev }),
        durations().prop_map(|std_dev| Jitter::Pareto { std_dev }),
    ];
    let outages = (durations(), durations(), durations(), any::<bool>())
        .prop_map(|(every, lasts, first, random)| Outages { every, lasts, first, random });
    let to = prop_oneof![Just(StepTo::Anywhere), Just(StepTo::UpAndBack)];
    let steps = (durations(), durations(), durations(), to, durations(), shares())
        .prop_map(|(every, first, by, to, disturbed, loss)| Steps { every, first, by, to, disturbed, loss });
    let late = (shares(), durations()).prop_map(|(share, by)| Late { share, by });
    let rate = prop_oneof![any::<Option<u64>>(), (1..10_000_000_u64).prop_map(Some)];
    let first = (durations(), jitter, rate, any::<Option<u64>>(), loss, any::<bool>(), aqm);
    let second = (late, shares(), shares(), prop::option::of(outages), prop::option::of(steps));
    (first, second).prop_map(|(first, second)| {
        let (delay, jitter, rate_bps, queue_bytes, loss, may_reorder, aqm) = first;
        let (late, duplicate, corrupt, outages, steps) = second;
        LinkConfig {
            delay,
            jitter,
            rate_bps,
            queue_bytes,
            loss,
            may_reorder,
            aqm,
            late,
            duplicate,
            corrupt,
            outages,
            steps,
            ..LinkConfig::default()
        }
    })
}

proptest! {
    /// Absurd configurations, one after the other, neither panic nor hang, and every ticket is answered.
    #[test]
    fn nothing_overflows(
        configs in prop::collection::vec(anything(), 1..4),
        packets in prop::collection::vec((0..3_000_000_u64, any::<usize>(), 0..6_u64, any::<bool>()), 1..40),
    ) {
        let begin = start();
        let mut link = Link::new(configs[0].clone(), Pcg64Mcg::seed_from_u64(4)).anchored(begin, 9);
        let (mut now, mut open) = (begin, 0);
        let count = packets.len();
        for (i, (gap, bytes, flow, ecn)) in packets.into_iter().enumerate() {
            link.set_config(configs[i * configs.len() / count].clone());
            now += Duration::from_nanos(gap);
            while let Some(due) = link.poll_timeout().filter(|due| *due <= now) {
                link.handle_timeout(due);
            }
            // Every other packet is of a size that there is.
            let bytes = if i % 2 == 0 { bytes % 3000 } else { bytes };
            open += u32::from(matches!(link.send(Packet { bytes, flow, ecn }, now), Sent::Queued(_)));
        }
        for _ in 0..count {
            let Some(due) = link.poll_timeout() else { break };
            link.handle_timeout(due);
        }
        // Beyond what the clock can say nothing is due.
        let ended = link.poll_timeout().is_none();
        let answered = std::iter::from_fn(|| link.poll_sent()).count();
        prop_assert!(answered as u32 == open || (!ended || link.queued_bytes(now) > 0));
    }

    /// Every packet has one fate; a flow keeps its order; the rate is never exceeded, and the wire is never idle while
    /// something waits.
    #[test]
    fn a_managed_queue_keeps_its_promises(
        aqm in aqms(),
        rate in 100_000..50_000_000_u64,
        queue in prop_oneof![Just(None), (0..40_000_u64).prop_map(Some)],
        packets in prop::collection::vec((0..3_000_000_u64, 1..3000_usize, 0..6_u64, any::<bool>()), 1..300),
    ) {
        let begin = start();
        let mut now = begin;
        let packets: Vec<_> = packets
            .into_iter()
            .map(|(gap, bytes, flow, ecn)| {
                now += Duration::from_nanos(gap);
                (now, Packet { bytes, flow, ecn })
            })
            .collect();
        let config = LinkConfig { rate_bps: Some(rate), queue_bytes: queue, aqm, ..LinkConfig::default() };
        let passed = play(config, &packets);
        prop_assert_eq!(passed.len(), packets.len());
        let mut arrivals = Vec::new();
        for passed in &passed {
            if let Sent::Deliver { at, queued, .. } = passed.fate {
                prop_assert!(at >= passed.sent + queued);
                arrivals.push((passed.flow, passed.sent, at));
            }
        }
        prop_assert!(arrivals.is_sorted_by_key(|(.., at)| *at));
        for flow in 0..6 {
            prop_assert!(arrivals.iter().filter(|a| a.0 == flow).is_sorted_by_key(|(_, sent, _)| *sent));
        }
        // Back to back from the first one: the link is done no later than if everything had gone through at its rate.
        let total: u128 = packets.iter().map(|(_, packet)| packet.bytes as u128 * 8_000_000_000).sum();
        let last = arrivals.last().map(|(.., at)| (*at - begin).as_nanos());
        let latest = (now - begin).as_nanos() + total / u128::from(rate) + 1;
        prop_assert!(last.is_none_or(|last| last <= latest));
    }
}
