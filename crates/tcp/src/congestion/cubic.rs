//! CUBIC's congestion avoidance (RFC 9438) in integers: segments, milliseconds, and windows with 16 binary places.

use std::time::{Duration, Instant};

/// Binary places of a window.
const PLACES: u32 = 16;
/// RFC 9438 §4.6: the window is cut to 0.7.
const BETA: (u64, u64) = (7, 10);
/// §5.1: C = 0.4 segments/s³.
const C: (u128, u128) = (4, 10);
/// §4.3: alpha = 3 (1 - beta) / (1 + beta) = 9/17 while Reno would still be below the last maximum.
const ALPHA: (u64, u64) = (9, 17);
/// Bounds (t - K), so that its cube keeps its place in 128 bits: three hours.
const MAX_MS: u64 = 3 * 3600 * 1000;

#[derive(Debug, Default)]
pub(crate) struct Cubic {
    /// The window at the last loss, in segments.
    maximum: u32,
    epoch: Option<Epoch>,
}

/// The time since congestion avoidance began after a loss.
#[derive(Debug)]
struct Epoch {
    start: Instant,
    /// Where the curve is flat, in segments.
    origin: u32,
    /// When it gets there (K), in milliseconds after `start`.
    k_ms: u64,
    /// The window just before the loss, up to which Reno's share grows by alpha.
    prior: u64,
    /// What Reno would have (W_est).
    reno: u64,
    /// What we have, with its fraction.
    window: u64,
}

impl Cubic {
    pub(crate) fn on_ack(&mut self, window: u32, acked: u32, rtt: Duration, now: Instant) -> u32 {
        let maximum = self.maximum;
        let epoch = self.epoch.get_or_insert_with(|| Epoch::new(window, maximum, now));
        // Slow start or a recovery may have moved the window meanwhile.
        if epoch.window >> PLACES != u64::from(window) {
            epoch.window = u64::from(window) << PLACES;
        }
        let elapsed = now.saturating_duration_since(epoch.start);
        let acked = u64::from(acked);
        let (numerator, denominator) = if epoch.reno < epoch.prior { ALPHA } else { (1, 1) };
        epoch.reno += ((acked * numerator) << (2 * PLACES)) / denominator / epoch.window;
        if epoch.at(elapsed) < epoch.reno {
            epoch.window = epoch.window.max(epoch.reno);
        } else {
            // §4.2: where the curve will be one round-trip time from now, but no more than half as much again.
            let target = epoch.at(elapsed + rtt).clamp(epoch.window, epoch.window + epoch.window / 2);
            epoch.window += ((target - epoch.window) << PLACES) / epoch.window * acked;
        }
        u32::try_from(epoch.window >> PLACES).unwrap_or(u32::MAX)
    }

    /// The slow-start threshold after a loss (§4.6), with fast convergence (§4.7).
    pub(crate) fn after_loss(&mut self, window: u32) -> u32 {
        self.epoch = None;
        let (numerator, denominator) = BETA;
        let scaled = |numerator: u64, denominator: u64| {
            u32::try_from(u64::from(window) * numerator / denominator).unwrap_or(u32::MAX)
        };
        self.maximum =
            if window < self.maximum { scaled(denominator + numerator, 2 * denominator) } else { window };
        scaled(numerator, denominator).max(2)
    }

    /// Nothing was sent for a while: the curve waits as well (§5.8; Linux does the same when sending resumes).
    pub(crate) fn idled(&mut self, idle: Duration, now: Instant) {
        if let Some(epoch) = &mut self.epoch {
            epoch.start = (epoch.start + idle).min(now);
        }
    }
}

impl Epoch {
    fn new(window: u32, maximum: u32, now: Instant) -> Self {
        let (numerator, denominator) = C;
        let below = maximum.saturating_sub(window);
        // K³ = (W_max - cwnd) / C in s³, so times 10⁹ in ms³.
        let k_ms = cube_root(u128::from(below) * denominator * 1_000_000_000 / numerator);
        Self {
            start: now,
            origin: window.max(maximum),
            k_ms,
            prior: u64::from(maximum) << PLACES,
            reno: u64::from(window) << PLACES,
            window: u64::from(window) << PLACES,
        }
    }

    /// The curve: W(t) = C (t - K)³ + origin.
    fn at(&self, elapsed: Duration) -> u64 {
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let distance = u128::from(ms.abs_diff(self.k_ms).min(MAX_MS));
        let (numerator, denominator) = C;
        let rise = (distance.pow(3) << PLACES) * numerator / (denominator * 1_000_000_000);
        let rise = u64::try_from(rise).unwrap_or(u64::MAX);
        let origin = u64::from(self.origin) << PLACES;
        if ms < self.k_ms { origin.saturating_sub(rise) } else { origin.saturating_add(rise) }
    }
}

/// The integer part of the cube root.
fn cube_root(value: u128) -> u64 {
    let mut root = 0u64;
    // W_max - cwnd is below 2³², so K³ is below 2⁶⁴ and K below 2²².
    for bit in (0..22).rev() {
        let candidate = root | 1 << bit;
        if u128::from(candidate).pow(3) <= value {
            root = candidate;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Drives one window of ACKs for each round-trip time and returns the windows.
    fn rounds(cubic: &mut Cubic, mut window: u32, count: u32) -> Vec<u32> {
        let begin = start();
        (0..count)
            .map(|round| {
                let acks = window;
                for _ in 0..acks {
                    window = cubic.on_ack(window, 1, RTT, begin + RTT * round);
                }
                window
            })
            .collect()
    }

    #[test]
    fn cube_roots_are_exact() {
        assert_eq!(cube_root(0), 0);
        for root in [1u64, 2, 99, 2000, 3_000_000] {
            let cube = u128::from(root).pow(3);
            assert_eq!(cube_root(cube), root);
            assert_eq!(cube_root(cube + 1), root);
            assert_eq!(cube_root(cube - 1), root - 1);
        }
    }

    #[test]
    fn rfc9438_4_6_cuts_to_seven_tenths() {
        assert_eq!(Cubic::default().after_loss(1000), 700);
        assert_eq!(Cubic::default().after_loss(1), 2);
    }

    #[test]
    fn rfc9438_4_7_a_second_loss_below_the_maximum_lowers_it_further() {
        let mut cubic = Cubic::default();
        cubic.after_loss(1000);
        cubic.after_loss(900);

        assert_eq!(cubic.maximum, 765);
    }

    #[test]
    fn rfc9438_4_2_returns_to_the_maximum_in_k_and_is_flat_there() {
        let mut cubic = Cubic::default();
        let window = cubic.after_loss(1000);
        // K = cbrt(300 / 0.4) = 9.086 s: 227 rounds of 40 ms.
        let windows = rounds(&mut cubic, window, 300);

        assert!((980..=1001).contains(&windows[227]), "{} at K", windows[227]);
        assert!(windows[227] - windows[177] < 20, "flat before K");
        assert!(windows[25] - window > 60, "steep at first");
    }

    #[test]
    fn rfc9438_4_3_is_no_slower_than_reno_with_small_windows() {
        let mut cubic = Cubic::default();
        let window = cubic.after_loss(20);
        let windows = rounds(&mut cubic, window, 60);

        // 14 + 9/17 each round until 20, then one each round.
        assert!(windows[11] >= 19, "{}", windows[11]);
        assert!(windows[59] >= 60, "{}", windows[59]);
    }
}
