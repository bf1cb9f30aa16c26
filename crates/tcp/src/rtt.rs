//! Round-trip time and the retransmission time-out (RFC 6298, with Linux's floor).

use crate::config::Config;
use std::time::{Duration, Instant};

/// How long a minimum stays believed (Linux `tcp_min_rtt_wlen`).
const MIN_RTT_WINDOW: Duration = Duration::from_secs(300);

/// RFC 6298 §5.7: what the time-out becomes when the handshake gave no measurement.
const RTO_AFTER_LOST_SYN: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    base: Duration,
    backoff: u32,
    floor: Duration,
    ceiling: Duration,
    /// The minimum of this window and of the one before.
    minimum: Option<Duration>,
    previous_minimum: Option<Duration>,
    window_start: Instant,
}

impl RttEstimator {
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            base: config.rto_initial,
            backoff: 0,
            floor: config.rto_min,
            ceiling: config.rto_max,
            minimum: None,
            previous_minimum: None,
            window_start: now,
        }
    }

    /// Takes a measurement (RFC 6298 §2.2, §2.3). Ends the back-off (§5.7 and Karn's algorithm).
    pub(crate) fn sample(&mut self, rtt: Duration, now: Instant) {
        // A clock of whole nanoseconds never measures nothing.
        let rtt = rtt.max(Duration::from_nanos(1));
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
        if now.saturating_duration_since(self.window_start) > MIN_RTT_WINDOW {
            self.previous_minimum = self.minimum.take();
            self.window_start = now;
        }
        self.minimum = Some(self.minimum.map_or(rtt, |minimum| minimum.min(rtt)));
        let smoothed = self.smoothed.unwrap_or(rtt);
        self.base = (smoothed + (self.variation * 4).max(self.floor)).min(self.ceiling);
        self.backoff = 0;
    }

    /// RFC 6298 §5.7: the handshake was retransmitted and gave no measurement.
    pub(crate) fn after_unmeasured_handshake(&mut self) {
        self.backoff = 0;
        if self.smoothed.is_none() {
            self.base = self.base.max(RTO_AFTER_LOST_SYN);
        }
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(crate) fn minimum(&self) -> Option<Duration> {
        match (self.minimum, self.previous_minimum) {
            (Some(current), Some(previous)) => Some(current.min(previous)),
            (current, previous) => current.or(previous),
        }
    }

    /// The time-out with its back-off.
    pub(crate) fn timeout(&self) -> Duration {
        self.backed_off(self.backoff)
    }

    /// The time-out as backed off `shift` times, whatever the back-off is.
    pub(crate) fn backed_off(&self, shift: u32) -> Duration {
        self.base.saturating_mul(1 << shift.min(20)).min(self.ceiling)
    }

    /// RFC 6298 §5.5.
    pub(crate) fn back_off(&mut self) {
        self.backoff += 1;
    }

    pub(crate) fn set_backoff(&mut self, backoff: u32) {
        self.backoff = backoff;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn rfc6298_2_2_first_measurement() {
        let now = start();
        let mut rtt = RttEstimator::new(&Config::default(), now);
        assert_eq!(rtt.timeout(), Duration::from_secs(1));

        rtt.sample(400 * MS, now);

        assert_eq!(rtt.smoothed(), Some(400 * MS));
        assert_eq!(rtt.timeout(), 1200 * MS);
    }

    #[test]
    fn a_steady_path_times_out_200_ms_after_its_round_trip() {
        let now = start();
        let mut rtt = RttEstimator::new(&Config::default(), now);
        for _ in 0..100 {
            rtt.sample(40 * MS, now);
        }

        assert_eq!(rtt.timeout().as_millis(), 240);
    }

    #[test]
    fn rfc6298_5_5_backs_off_up_to_the_ceiling_and_a_measurement_ends_it() {
        let now = start();
        let mut rtt = RttEstimator::new(&Config::default(), now);
        for _ in 0..50 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), Duration::from_secs(120));

        rtt.sample(10 * MS, now);

        assert_eq!(rtt.timeout(), 210 * MS);
    }

    #[test]
    fn the_minimum_is_forgotten_in_time() {
        let now = start();
        let mut rtt = RttEstimator::new(&Config::default(), now);
        rtt.sample(10 * MS, now);
        for minutes in 1..20 {
            rtt.sample(50 * MS, now + Duration::from_secs(60 * minutes));
        }

        assert_eq!(rtt.minimum(), Some(50 * MS));
    }
}
