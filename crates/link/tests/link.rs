//! What must hold for any link.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use link::{DropReason, Jitter, Link, LinkConfig, Loss, Sent, presets};
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn link(config: LinkConfig) -> Link {
    Link::new(config, Pcg64Mcg::seed_from_u64(11))
}

/// Arrival and wait, or why not.
fn send(link: &mut Link, bytes: usize, now: Instant) -> Result<(Instant, Duration), DropReason> {
    match link.send(bytes, now) {
        Sent::Deliver { at, queued, .. } => Ok((at, queued)),
        Sent::Drop(reason) => Err(reason),
        Sent::Queued(_) => panic!("no managed queue"),
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn loss_is_as_frequent_as_asked() {
    let now = start();
    for loss in [Loss::per_billion(1_000_000), Loss::percent(2), Loss::percent(50), Loss::percent(99)] {
        let mut link = link(LinkConfig { loss, ..LinkConfig::default() });
        let n = 400_000;
        let lost = (0..n).filter(|_| send(&mut link, 100, now) == Err(DropReason::Loss)).count();
        let Loss::Random(share) = loss else { panic!("random loss") };
        let p = f64::from(share.parts_per_billion()) / 1e9;
        let error = (p * (1.0 - p) / f64::from(n)).sqrt();
        let measured = lost as f64 / f64::from(n);
        assert!((measured - p).abs() < 3.0 * error, "{measured} instead of {p}");
    }
    let mut none = link(LinkConfig::default());
    let mut all = link(LinkConfig { loss: Loss::ALL, ..LinkConfig::default() });
    for _ in 0..1000 {
        assert!(send(&mut none, 100, now).is_ok());
        assert_eq!(send(&mut all, 100, now), Err(DropReason::Loss));
    }
}

#[test]
fn jitter_is_uniform_and_stays_inside() {
    let now = start();
    let jitter = Jitter::Uniform { plus_minus: 5 * MS };
    let mut link = link(LinkConfig { delay: 20 * MS, jitter, may_reorder: true, ..LinkConfig::default() });
    let mut bins = BTreeMap::new();
    for _ in 0..100_000 {
        let travel = send(&mut link, 100, now).unwrap().0 - now;
        assert!((15 * MS..=25 * MS).contains(&travel));
        *bins.entry((travel - 15 * MS).as_millis().min(9)).or_insert(0_u32) += 1;
    }
    // 10,000 in each bin, and a standard deviation of 95.
    assert!(bins.len() == 10 && bins.values().all(|count| (9600..=10_400).contains(count)), "{bins:?}");
}

#[test]
fn jitter_beyond_the_delay_stops_at_zero() {
    let now = start();
    let jitter = Jitter::Uniform { plus_minus: Duration::MAX };
    let mut link = link(LinkConfig { delay: MS, jitter, may_reorder: true, ..LinkConfig::default() });
    let early = (0..1000).filter(|_| send(&mut link, 100, now).is_ok_and(|(at, _)| at == now)).count();
    assert!((400..600).contains(&early), "{early}");
}

#[test]
fn order_is_kept_unless_overtaking_is_allowed() {
    let now = start();
    for (may_reorder, kept) in [(false, true), (true, false)] {
        let jitter = Jitter::Uniform { plus_minus: 10 * MS };
        let mut link = link(LinkConfig { delay: 20 * MS, jitter, may_reorder, ..LinkConfig::default() });
        let arrivals: Vec<_> = (0..1000).map(|i| send(&mut link, 100, now + i * MS).unwrap().0).collect();
        assert_eq!(arrivals.is_sorted(), kept);
    }
}

#[test]
fn fractions_of_a_nanosecond_add_up() {
    // 3 bytes at 7 bit/s last 24/7 s; after seven of them not a nanosecond is gained or lost.
    let now = start();
    let mut slow = link(LinkConfig { rate_bps: Some(7), ..LinkConfig::default() });
    let last = (0..7).map(|_| send(&mut slow, 3, now).unwrap().0).last();
    assert_eq!(last, Some(now + Duration::from_secs(24)));
    // A million packets of 1200 ns and 1/3: the sum is exact.
    let mut fast = link(LinkConfig { rate_bps: Some(3_000_000_000), ..LinkConfig::default() });
    let last = (0..3_000_000).map(|_| send(&mut fast, 1, now).unwrap().0).last();
    assert_eq!(last, Some(now + 8 * MS));
}

#[test]
fn a_change_counts_for_later_packets() {
    let now = start();
    let slow = LinkConfig { delay: 50 * MS, rate_bps: Some(12_000_000), ..LinkConfig::default() };
    let mut link = link(slow.clone());
    // 1500 bytes last 1 ms.
    let sent = [0, 1].map(|_| send(&mut link, 1500, now).unwrap().0);
    assert_eq!(sent, [now + 51 * MS, now + 52 * MS]);
    link.set_config(LinkConfig { delay: MS, rate_bps: Some(120_000_000), may_reorder: true, ..slow.clone() });
    // The two before it still take their 2 ms of the wire; then 0.1 ms and the new delay.
    let (at, queued) = send(&mut link, 1500, now).unwrap();
    assert_eq!((at, queued), (now + 3 * MS + MS / 10, 2 * MS));
    link.set_config(LinkConfig { rate_bps: None, ..slow });
    let (at, _) = send(&mut link, 1500, now).unwrap();
    assert_eq!(at, now + 52 * MS + MS / 10);
}

#[test]
fn a_link_that_is_down_drops() {
    let now = start();
    let mut cable = link(LinkConfig { delay: MS, ..LinkConfig::default() });
    cable.set_up(false);
    assert_eq!(send(&mut cable, 1500, now), Err(DropReason::Down));
    cable.set_up(true);
    assert_eq!(send(&mut cable, 1500, now), Ok((now + MS, Duration::ZERO)));
    let mut dead = link(LinkConfig { rate_bps: Some(0), ..LinkConfig::default() });
    assert_eq!(send(&mut dead, 1500, now), Err(DropReason::Down));
}

#[test]
fn a_queue_of_nothing_still_lets_one_packet_pass_at_a_time() {
    let now = start();
    let mut link =
        link(LinkConfig { rate_bps: Some(12_000_000), queue_bytes: Some(0), ..LinkConfig::default() });
    assert!(send(&mut link, 1500, now).is_ok());
    assert_eq!(send(&mut link, 1500, now), Err(DropReason::QueueFull));
    assert_eq!(send(&mut link, 1500, now + MS), Ok((now + 2 * MS, Duration::ZERO)));
}

#[test]
fn the_queue_can_be_read() {
    let now = start();
    let mut link = link(LinkConfig { rate_bps: Some(12_000_000), ..LinkConfig::default() });
    assert_eq!(link.queued_bytes(now), 0);
    for _ in 0..4 {
        send(&mut link, 1500, now).unwrap();
    }
    assert_eq!([0, 1, 2, 3].map(|ms| link.queued_bytes(now + ms * MS)), [4500, 3000, 1500, 0]);
}

#[test]
fn presets_have_names_of_their_own_and_pass_packets() {
    let now = start();
    let names: std::collections::BTreeSet<_> = presets::LINKS.iter().map(|preset| preset.name).collect();
    assert_eq!(names.len(), presets::LINKS.len());
    for preset in presets::LINKS.iter() {
        for config in [&preset.up, &preset.down] {
            // Even the smallest queue holds a packet.
            let config = LinkConfig { loss: Loss::NONE, steps: None, outages: None, ..config.clone() };
            let mut link = link(config);
            assert!(
                send(&mut link, 1500, now).is_ok() && send(&mut link, 1500, now).is_ok(),
                "{}",
                preset.name
            );
        }
    }
    let cable = presets::link("cable").expect("a preset");
    assert_eq!((cable.down.rate_bps, cable.up.rate_bps), (Some(5_000_000), Some(1_000_000)));
    assert_eq!(cable.down.queue_bytes, Some(62_500));
}

fn configs() -> impl Strategy<Value = LinkConfig> {
    let rate = prop_oneof![Just(None), (1..2_000_000_000_u64).prop_map(Some), (1..100_u64).prop_map(Some)];
    let queue = prop_oneof![Just(None), (0..100_000_u64).prop_map(Some)];
    let jitter = prop_oneof![
        Just(Jitter::None),
        (0..50_000_000_u64).prop_map(|ns| Jitter::Uniform { plus_minus: Duration::from_nanos(ns) })
    ];
    (0..100_000_000_u64, jitter, rate, queue, 0..1_000_000_000_u32, any::<bool>()).prop_map(
        |(delay, jitter, rate_bps, queue_bytes, loss, may_reorder)| LinkConfig {
            delay: Duration::from_nanos(delay),
            jitter,
            rate_bps,
            queue_bytes,
            loss: Loss::per_billion(loss),
            may_reorder,
            ..LinkConfig::default()
        },
    )
}

proptest! {
    /// Never above the rate, never more in the queue than it holds, never early, and in order where order is asked for.
    #[test]
    fn a_link_keeps_its_promises(
        config in configs(),
        packets in prop::collection::vec((0..5_000_000_u64, 0..3000_usize), 1..150),
    ) {
        let config = LinkConfig { jitter: Jitter::None, loss: Loss::NONE, ..config };
        let mut link = link(config.clone());
        let begin = start();
        let (mut now, mut last) = (begin, begin);
        // The exact time the transmitter is free, in units of 1 / rate nanoseconds since the beginning.
        let mut free = 0_u128;
        let mut starts: Vec<(u128, u64)> = Vec::new();
        for (wait, bytes) in packets {
            now += Duration::from_nanos(wait);
            let now_ns = (now - begin).as_nanos();
            let waiting: u64 = starts.iter().filter(|(start, _)| *start > now_ns).map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(link.queued_bytes(now), waiting);
            let rate = config.rate_bps.map(u128::from);
            let idle = rate.is_none_or(|rate| free <= now_ns * rate);
            let fits = idle || config.queue_bytes.is_none_or(|limit| waiting + bytes as u64 <= limit);
            match send(&mut link, bytes, now) {
                Ok((at, queued)) => {
                    prop_assert!(fits);
                    let (begins, ends) = match rate {
                        None => (now_ns, now_ns),
                        Some(rate) => {
                            let from = free.max(now_ns * rate);
                            free = from + bytes as u128 * 8_000_000_000;
                            (from.div_ceil(rate), free.div_ceil(rate))
                        }
                    };
                    starts.push((begins, bytes as u64));
                    prop_assert_eq!(queued.as_nanos(), begins - now_ns);
                    prop_assert_eq!((at - begin).as_nanos(), ends + config.delay.as_nanos());
                    prop_assert!(at >= last);
                    last = at;
                }
                Err(reason) => {
                    prop_assert_eq!(reason, DropReason::QueueFull);
                    prop_assert!(!fits);
                }
            }
        }
    }

    /// The same seed, the same fate; order and the least travel time hold under jitter and loss.
    #[test]
    fn the_fate_follows_from_the_seed(
        configs in prop::collection::vec(configs(), 1..4),
        packets in prop::collection::vec((0..5_000_000_u64, 0..3000_usize), 1..150),
    ) {
        let begin = start();
        let play = || {
            let mut link = link(configs[0].clone());
            let mut now = begin;
            let fates = packets.iter().enumerate().map(|(i, (wait, bytes))| {
                let config = configs[i * configs.len() / packets.len()].clone();
                link.set_config(config.clone());
                now += Duration::from_nanos(*wait);
                (now, config, link.send(*bytes, now))
            });
            fates.collect::<Vec<_>>()
        };
        let fates = play();
        prop_assert_eq!(&fates, &play());
        let mut last = begin;
        for (sent, config, fate) in fates {
            let Sent::Deliver { at, queued, .. } = fate else { continue };
            let early = config.jitter.early_by();
            prop_assert!(at >= sent + queued + config.delay.saturating_sub(early));
            prop_assert!(config.may_reorder || at >= last);
            last = last.max(at);
        }
    }

    /// Absurd values neither panic nor hang.
    #[test]
    fn nothing_overflows(
        delay in any::<u64>(),
        rate in any::<Option<u64>>(),
        queue in any::<Option<u64>>(),
        sizes in prop::collection::vec(any::<usize>(), 1..20),
    ) {
        let mut link = link(LinkConfig {
            delay: Duration::from_secs(delay),
            jitter: Jitter::Uniform { plus_minus: Duration::from_secs(delay) },
            rate_bps: rate,
            queue_bytes: queue,
            ..LinkConfig::default()
        });
        let now = start();
        let mut delivered = 0;
        for bytes in sizes.iter() {
            delivered += usize::from(send(&mut link, *bytes, now).is_ok());
        }
        // The first one always finds the wire free; without a rate, or with none, the rest is known too.
        prop_assert!(rate != Some(0) || delivered == 0);
        prop_assert!(rate.is_some() || delivered == 0 || delivered == sizes.len());
    }
}
