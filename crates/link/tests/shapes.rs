//! The shapes of delays.

use std::time::{Duration, Instant};

use link::{Jitter, Link, LinkConfig, Quantiles, Sent, Share};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

const MS: Duration = Duration::from_millis(1);

/// Delays in milliseconds, sorted.
fn delays(delay: Duration, jitter: Jitter) -> Vec<f64> {
    let config = LinkConfig { delay, jitter, may_reorder: true, ..LinkConfig::default() };
    let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(3));
    let now = start();
    let mut out: Vec<f64> = (0..200_000)
        .map(|_| match link.send(100, now) {
            Sent::Deliver { at, .. } => (at - now).as_secs_f64() * 1e3,
            other => panic!("{other:?}"),
        })
        .collect();
    out.sort_by(f64::total_cmp);
    out
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[(share * (sorted.len() - 1) as f64) as usize]
}

fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt())
}

#[test]
fn normal_jitter_is_normal() {
    let delays = delays(50 * MS, Jitter::Normal { std_dev: 5 * MS });
    let (mean, deviation) = moments(&delays);
    assert!((mean - 50.0).abs() < 0.05 && (deviation - 5.0).abs() < 0.05, "{mean} ± {deviation}");
    // Shares below -3, -2, -1, 0, 1, 2 and 3 standard deviations.
    let shares = [0.001_35, 0.022_75, 0.158_66, 0.5, 0.841_34, 0.977_25, 0.998_65];
    for (share, z) in shares.into_iter().zip(-3..) {
        let at = quantile(&delays, share);
        assert!((at - (50.0 + 5.0 * f64::from(z))).abs() < 0.4, "{share}: {at}");
    }
}

#[test]
fn pareto_jitter_has_a_long_tail_above_its_mean() {
    let delays = delays(50 * MS, Jitter::Pareto { std_dev: 10 * MS });
    let (mean, _) = moments(&delays);
    assert!((mean - 50.0).abs() < 0.2, "{mean}");
    // The least is the mean less 0.5 / √0.75 standard deviations.
    assert!((delays[0] - 44.2265).abs() < 0.001, "{}", delays[0]);
    // (1 - share)^(-1/3) less 1.5, over √0.75.
    for (share, expected) in [(0.5, 47.227), (0.9, 57.556), (0.99, 86.274), (0.999, 148.149)] {
        let at = quantile(&delays, share);
        assert!((at / expected - 1.0).abs() < 0.06, "{share}: {at}, not {expected}");
    }
}

#[test]
fn measured_delays_have_their_quantiles() {
    let points = [(10, 0), (50, 18), (90, 58)].map(|(share, ms)| (Share::percent(share), ms * MS));
    let quantiles = Quantiles::new(&points).expect("points in order");
    let delays = delays(24 * MS, Jitter::Quantiles(quantiles));
    for (share, expected) in [(0.0, 24.0), (0.1, 24.0), (0.3, 33.0), (0.5, 42.0), (0.9, 82.0), (1.0, 82.0)] {
        let at = quantile(&delays, share);
        assert!((at - expected).abs() < 0.2, "{share}: {at}, not {expected}");
    }
}

#[test]
fn a_delay_never_falls_below_zero() {
    for jitter in [Jitter::Normal { std_dev: 10 * MS }, Jitter::Pareto { std_dev: 100 * MS }] {
        assert!(delays(MS, jitter).iter().all(|delay| *delay >= 0.0));
    }
    for jitter in [Jitter::Normal { std_dev: Duration::MAX }, Jitter::Pareto { std_dev: Duration::MAX }] {
        let config = LinkConfig { jitter, ..LinkConfig::default() };
        let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(3));
        for _ in 0..100 {
            link.send(100, start());
        }
    }
}
