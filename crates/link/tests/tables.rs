//! Exact results: tables that follow from formulas, in `data/`.

use std::time::{Duration, Instant};

use link::{DropReason, Link, LinkConfig, Loss, Sent, Share};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn link(config: LinkConfig) -> Link {
    Link::new(config, Pcg64Mcg::seed_from_u64(11))
}

/// The wait, or why not.
fn send(link: &mut Link, now: Instant) -> Result<Duration, DropReason> {
    match link.send(1500, now) {
        Sent::Deliver { queued, .. } => Ok(queued),
        Sent::Drop(reason) => Err(reason),
        Sent::Queued(_) => panic!("no managed queue"),
    }
}

/// The rows of a table, without its comment and heading.
fn rows(table: &'static str, separator: char) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().skip(2).map(move |row| row.split(separator).collect())
}

fn number(text: &str) -> f64 {
    text.parse().expect("a number")
}

#[test]
fn a_full_queue_delays_by_its_size_over_the_rate() {
    let now = start();
    for row in rows(include_str!("data/droptail_delay.csv"), ',') {
        let (kib, mbps) = (row[0].parse::<u64>().expect("KiB"), row[1].parse::<u64>().expect("Mbit/s"));
        let (rate, queue) = (mbps * 1_000_000, kib * 1024);
        let config = LinkConfig { rate_bps: Some(rate), queue_bytes: Some(queue), ..LinkConfig::default() };
        let mut link = link(config);
        let mut longest = Duration::ZERO;
        let mut passed = 0_u64;
        loop {
            match send(&mut link, now) {
                Ok(queued) => longest = queued,
                Err(reason) => break assert_eq!(reason, DropReason::QueueFull),
            }
            passed += 1;
        }
        // As many whole packets as fit, and the one on the wire.
        assert_eq!(passed, queue / 1500 + 1);
        let packet_ns = 1500 * 8 * 1_000_000_000 / rate;
        let off_ms = (longest.as_secs_f64() * 1e3 - number(row[2])).abs();
        assert!(off_ms <= packet_ns as f64 / 1e6 + 0.005, "{row:?}: {longest:?}");
        // Room comes back as packets go to the wire, one by one.
        let packet = Duration::from_nanos(packet_ns);
        assert!(send(&mut link, now + packet - Duration::from_nanos(1)).is_err());
        assert!(send(&mut link, now + packet).is_ok());
        assert!(send(&mut link, now + packet).is_err());
    }
}

#[test]
fn random_arrivals_wait_as_long_as_the_m_d_1_formula_says() {
    // 1500 bytes at 10 Mbit/s are served in 1.2 ms. The fuller the link, the longer its memory.
    let (service_ns, packets) = (1_200_000.0, [1_000_000, 2_000_000, 6_000_000, 12_000_000]);
    for (row, packets) in rows(include_str!("data/md1_wait.csv"), ',').zip(packets) {
        let (rho, table_ms) = (number(row[0]), number(row[1]));
        let config = LinkConfig { rate_bps: Some(10_000_000), ..LinkConfig::default() };
        let (mut link, mut rng) = (link(config), Pcg64Mcg::seed_from_u64(5));
        let (mut now, mut total) = (start(), Duration::ZERO);
        for _ in 0..packets {
            let uniform = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            now += Duration::from_nanos((-(1.0 - uniform).ln() * service_ns / rho) as u64);
            total += send(&mut link, now).expect("no limit");
        }
        let mean_ms = total.as_secs_f64() * 1e3 / f64::from(packets);
        assert!((mean_ms / table_ms - 1.0).abs() < 0.03, "rho {rho}: {mean_ms} ms, not {table_ms}");
    }
}

#[test]
fn bursts_of_loss_have_the_mean_of_the_gilbert_elliott_model() {
    let now = start();
    for row in rows(include_str!("data/gilbert_elliott.csv"), ';') {
        let share = |text: &str| Share::per_billion(text.parse().expect("parts per billion"));
        let (p, r, h, k) = (share(row[1]), share(row[2]), share(row[3]), share(row[4]));
        let mean = number(row[5]);
        // Bad states are rare in the second row: count until there have been some hundreds.
        let n = if p.parts_per_billion() < 1_000_000 { 40_000_000 } else { 2_000_000 };
        let mut link =
            link(LinkConfig { loss: Loss::GilbertElliott { p, r, h, k }, ..LinkConfig::default() });
        let lost = (0..n).filter(|_| send(&mut link, now) == Err(DropReason::Loss)).count();
        let measured = lost as f64 / f64::from(n);
        // Losses of one bad state come together: the state's covariance falls by q = 1 - p - r with every packet, so the sum of
        // n losses varies by n (m (1 - m) + 2 pi (1 - pi) d^2 q / (1 - q)), d being the difference of the two states' losses.
        let of = |share: Share| f64::from(share.parts_per_billion()) / 1e9;
        let (pi, q) = (of(p) / (of(p) + of(r)), 1.0 - of(p) - of(r));
        let d = of(k) - of(h);
        let variance = mean * (1.0 - mean) + 2.0 * pi * (1.0 - pi) * d * d * q / (1.0 - q);
        let error = (variance / f64::from(n)).sqrt();
        assert!(error < mean / 15.0, "{}: too few packets to tell", row[0]);
        assert!((measured - mean).abs() < 3.0 * error, "{}: {measured}, not {mean} ± {error}", row[0]);
    }
}

#[test]
fn losses_of_the_model_come_in_bursts() {
    // The tc-netem example: a bad state lasts ten packets on average and loses 70 % of them, so that a loss is followed by
    // another far more often than by chance.
    let now = start();
    let (p, r) = (Share::percent(1), Share::percent(10));
    let loss = Loss::GilbertElliott { p, r, h: Share::percent(30), k: Share::per_billion(999_000_000) };
    let mut link = link(LinkConfig { loss, ..LinkConfig::default() });
    let lost: Vec<bool> = (0..500_000).map(|_| send(&mut link, now).is_err()).collect();
    let after_loss = lost.windows(2).filter(|pair| pair[0]).count();
    let both = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
    let share = both as f64 / after_loss as f64;
    // In the bad state with 98.6 %, which stays with 90 % and loses 70 %.
    assert!((0.6..0.65).contains(&share), "{share}");
}
