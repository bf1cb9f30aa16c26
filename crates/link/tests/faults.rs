//! What goes wrong on the way, and when.

use std::time::{Duration, Instant};

use link::{DropReason, Late, Link, LinkConfig, Loss, Mtu, Outages, Sent, Share, StepTo, Steps};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn link(config: LinkConfig, begin: Instant) -> Link {
    Link::new(config, Pcg64Mcg::seed_from_u64(11)).anchored(begin, 7)
}

fn reason(sent: Sent) -> Option<DropReason> {
    if let Sent::Drop(reason) = sent { Some(reason) } else { None }
}

#[test]
fn a_burst_takes_so_many_in_a_row_every_so_often() {
    let begin = start();
    let mut link =
        link(LinkConfig { loss: Loss::Burst { length: 3, every: 10 }, ..LinkConfig::default() }, begin);
    let lost: Vec<u32> = (1..=40).filter(|_| reason(link.send(100, begin)).is_some()).collect();
    assert_eq!(lost, [8, 9, 10, 18, 19, 20, 28, 29, 30, 38, 39, 40]);
}

#[test]
fn every_nth_packet_is_lost() {
    let begin = start();
    let mut link = link(LinkConfig { loss: Loss::every(7), ..LinkConfig::default() }, begin);
    let lost: Vec<u32> =
        (1..=30).filter(|_| reason(link.send(100, begin)) == Some(DropReason::Loss)).collect();
    assert_eq!(lost, [7, 14, 21, 28]);
}

#[test]
fn shares_of_duplicated_damaged_and_late_packets_are_as_asked() {
    let begin = start();
    let config = LinkConfig {
        delay: 10 * MS,
        duplicate: Share::percent(3),
        corrupt: Share::percent(2),
        late: Late { share: Share::percent(5), by: 20 * MS },
        ..LinkConfig::default()
    };
    let mut link = link(config, begin);
    let n = 400_000;
    let (mut twice_n, mut corrupted, mut late) = (0, 0, 0);
    for i in 0..n {
        let now = begin + i * MS;
        match link.send(100, now) {
            Sent::Deliver { at, twice, .. } => {
                twice_n += u32::from(twice);
                late += u32::from(at == now + 30 * MS);
                assert!(at == now + 10 * MS || at == now + 30 * MS);
            }
            Sent::Drop(DropReason::Corrupted) => corrupted += 1,
            other => panic!("{other:?}"),
        }
    }
    let arrived = n - corrupted;
    for (count, of, share) in [(twice_n, arrived, 0.03), (corrupted, n, 0.02), (late, arrived, 0.05)] {
        let error = (share * (1.0 - share) / f64::from(of)).sqrt();
        let measured = f64::from(count) / f64::from(of);
        assert!((measured - share).abs() < 3.0 * error, "{measured} instead of {share}");
    }
}

#[test]
fn a_late_packet_is_overtaken_and_the_others_keep_their_order() {
    let begin = start();
    let late = Late { share: Share::percent(10), by: 35 * MS };
    let mut link = link(LinkConfig { delay: 10 * MS, late, ..LinkConfig::default() }, begin);
    let arrivals: Vec<Duration> = (0..1000)
        .map(|i| match link.send(100, begin + i * 10 * MS) {
            Sent::Deliver { at, .. } => at - begin - i * 10 * MS,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(arrivals.iter().all(|delay| [10 * MS, 45 * MS].contains(delay)));
    assert!(arrivals.contains(&(45 * MS)) && arrivals.contains(&(10 * MS)));
}

#[test]
fn only_larger_packets_than_the_mtu_are_dropped() {
    let begin = start();
    for tells in [true, false] {
        let mtu = Some(Mtu { bytes: 1400, tells });
        let mut link = link(LinkConfig { mtu, rate_bps: Some(8000), ..LinkConfig::default() }, begin);
        assert_eq!(reason(link.send(1401, begin)), Some(DropReason::TooBig { mtu: 1400, tells }));
        // It has not used the wire.
        let Sent::Deliver { queued, .. } = link.send(1400, begin) else { panic!("it fits") };
        assert_eq!(queued, Duration::ZERO);
    }
}

#[test]
fn outages_come_like_clockwork() {
    let begin = start();
    let outages = Outages { every: 10 * SECOND, lasts: 500 * MS, first: 4 * SECOND, random: false };
    let mut link = link(LinkConfig { outages: Some(outages), ..LinkConfig::default() }, begin);
    let ns = Duration::from_nanos(1);
    let out = [4 * SECOND, 4 * SECOND + 500 * MS - ns, 14 * SECOND, 104 * SECOND + 499 * MS];
    let up = [Duration::ZERO, 4 * SECOND - ns, 4 * SECOND + 500 * MS, 14 * SECOND - ns, 105 * SECOND];
    let mut times: Vec<_> =
        out.iter().map(|at| (*at, Some(DropReason::Outage))).chain(up.iter().map(|at| (*at, None))).collect();
    times.sort();
    for (at, expected) in times {
        assert_eq!(reason(link.send(100, begin + at)), expected, "{at:?}");
    }
}

#[test]
fn a_packet_that_leaves_the_wire_in_an_outage_is_lost() {
    let begin = start();
    let outages = Outages { every: 10 * SECOND, lasts: SECOND, first: SECOND, random: false };
    let config = LinkConfig { outages: Some(outages), rate_bps: Some(8000), ..LinkConfig::default() };
    let mut link = link(config, begin);
    // Each lasts 600 ms: the first ends at 1.1 s, the second at 1.7 s, the third at 2.3 s.
    let sent = [0; 3].map(|_| reason(link.send(600, begin + 500 * MS)));
    assert_eq!(sent, [Some(DropReason::Outage), Some(DropReason::Outage), None]);
}

#[test]
fn random_outages_are_as_frequent_as_asked_and_alike_in_both_directions() {
    let begin = start();
    let outages = Outages { every: 9 * SECOND, lasts: SECOND, first: Duration::ZERO, random: true };
    let config = LinkConfig { outages: Some(outages), ..LinkConfig::default() };
    let mut up = link(config.clone(), begin);
    let mut down = Link::new(config, Pcg64Mcg::seed_from_u64(12)).anchored(begin, 7);
    let n = 400_000;
    let mut out = 0;
    for i in 0..n {
        let now = begin + i * 100 * MS;
        let fate = reason(up.send(100, now));
        out += u32::from(fate.is_some());
        // The other direction is not asked as often.
        if i % 7 == 0 {
            assert_eq!(reason(down.send(100, now)), fate);
        }
    }
    // A tenth of the time; 4000 outages, whose number varies by their gaps: 3 standard errors are 4.3 %.
    let share = f64::from(out) / f64::from(n);
    assert!((share - 0.1).abs() < 0.0043, "{share}");
}

#[test]
fn a_route_flaps_between_two_delays() {
    let begin = start();
    let steps = Steps {
        every: 10 * SECOND,
        first: 10 * SECOND,
        by: 7 * MS,
        to: StepTo::UpAndBack,
        disturbed: Duration::ZERO,
        loss: Share::NONE,
    };
    let mut link = link(LinkConfig { delay: 20 * MS, steps: Some(steps), ..LinkConfig::default() }, begin);
    for (second, ms) in [(0, 20), (9, 20), (10, 27), (19, 27), (20, 20), (35, 27)] {
        let now = begin + second * SECOND;
        let Sent::Deliver { at, .. } = link.send(100, now) else { panic!("it arrives") };
        assert_eq!(at - now, ms * MS, "{second} s");
    }
}

#[test]
fn satellites_take_over_with_another_delay_and_a_moment_of_loss() {
    let begin = start();
    let steps = Steps {
        every: 15 * SECOND,
        first: 15 * SECOND,
        by: 10 * MS,
        to: StepTo::Anywhere,
        disturbed: 100 * MS,
        loss: Share::percent(50),
    };
    let config = LinkConfig { delay: 25 * MS, steps: Some(steps), ..LinkConfig::default() };
    let mut up = link(config.clone(), begin);
    let mut down = Link::new(config, Pcg64Mcg::seed_from_u64(12)).anchored(begin, 7);
    let (mut lost, mut offered) = (0, 0);
    let mut delays = Vec::new();
    for slot in 0..400 {
        let from = begin + slot * 15 * SECOND;
        // In the first 100 ms after a change a half is lost, later nothing.
        for i in 0..100 {
            let sent = up.send(100, from + i * MS);
            if slot > 0 {
                offered += 1;
                lost += u32::from(reason(sent).is_some());
            }
        }
        let now = from + 5 * SECOND;
        let [one, other] = [&mut up, &mut down].map(|link| match link.send(100, now) {
            Sent::Deliver { at, .. } => at - now,
            other => panic!("{other:?}"),
        });
        assert_eq!(one, other, "both directions move together");
        assert!((15 * MS..=35 * MS).contains(&one));
        delays.push(one);
    }
    let share = f64::from(lost) / f64::from(offered);
    assert!((share - 0.5).abs() < 3.0 * (0.25 / f64::from(offered)).sqrt(), "{share}");
    delays.sort();
    delays.dedup();
    assert!(delays.len() > 390, "a delay of its own for every slot");
    // Uniform between 15 and 35 ms.
    let mean = delays.iter().sum::<Duration>().as_secs_f64() * 1e3 / delays.len() as f64;
    assert!((mean - 25.0).abs() < 0.9, "{mean}");
}
