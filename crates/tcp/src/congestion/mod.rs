//! The congestion window, in segments as Linux counts it.

mod cubic;
mod hystart;
mod reno;

use crate::config::{Algorithm, Config};
use cubic::Cubic;
use hystart::{CSS_GROWTH_DIVISOR, HyStart, Pace};
use reno::Reno;
use std::time::{Duration, Instant};

/// RFC 9406 §4.2: how many segments one ACK may add in slow start without pacing.
const MAX_SLOW_START_STEP: u32 = 8;

#[derive(Debug)]
enum Avoidance {
    Reno(Reno),
    Cubic(Cubic),
}

/// An ACK as congestion control sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acked {
    /// Segments newly delivered.
    pub(crate) segments: u32,
    /// A measurement of this ACK, and the smoothed one.
    pub(crate) rtt: Option<Duration>,
    pub(crate) smoothed: Duration,
    /// Everything before this offset has arrived.
    pub(crate) una: u64,
    /// The next offset to be sent.
    pub(crate) next: u64,
    /// The window was what held the sender back.
    pub(crate) limited: bool,
}

#[derive(Debug)]
pub(crate) struct Congestion {
    window: u32,
    threshold: u32,
    avoidance: Avoidance,
    /// Only until the first loss (RFC 9406 §4.2).
    hystart: Option<HyStart>,
    slow_credit: u32,
    initial: u32,
}

impl Congestion {
    pub(crate) fn new(config: &Config) -> Self {
        let initial = config.initial_window.max(1);
        Self {
            window: initial,
            threshold: u32::MAX,
            avoidance: match config.congestion {
                Algorithm::Reno => Avoidance::Reno(Reno::default()),
                Algorithm::Cubic => Avoidance::Cubic(Cubic::default()),
            },
            hystart: config.hystart.then(HyStart::default),
            slow_credit: 0,
            initial,
        }
    }

    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    pub(crate) fn set_window(&mut self, window: u32) {
        self.window = window.max(1);
    }

    pub(crate) fn threshold(&self) -> u32 {
        self.threshold
    }

    pub(crate) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Grows the window for an ACK outside fast recovery.
    pub(crate) fn on_ack(&mut self, ack: Acked, now: Instant) {
        let mut acked = ack.segments;
        if self.in_slow_start() {
            let pace = self
                .hystart
                .as_mut()
                .map_or(Pace::Fast, |hystart| hystart.on_ack(ack.rtt, ack.una, ack.next));
            if pace == Pace::Leave {
                self.hystart = None;
                self.threshold = self.window;
            } else if ack.limited {
                let mut step = acked.min(MAX_SLOW_START_STEP);
                if pace == Pace::Conservative {
                    self.slow_credit += step;
                    step = self.slow_credit / CSS_GROWTH_DIVISOR;
                    self.slow_credit %= CSS_GROWTH_DIVISOR;
                }
                let room = self.threshold - self.window;
                self.window += step.min(room);
                if step <= room {
                    return;
                }
                acked = step - room;
            }
        }
        if acked == 0 || !ack.limited {
            return;
        }
        self.window = match &mut self.avoidance {
            Avoidance::Reno(reno) => reno.on_ack(self.window, acked),
            Avoidance::Cubic(cubic) => cubic.on_ack(self.window, acked, ack.smoothed, now),
        };
    }

    /// Sets the threshold for a congestion event; the window follows as the recovery sees fit.
    pub(crate) fn on_congestion(&mut self) {
        self.hystart = None;
        self.threshold = match &mut self.avoidance {
            Avoidance::Reno(reno) => reno.after_loss(self.window),
            Avoidance::Cubic(cubic) => cubic.after_loss(self.window),
        };
    }

    /// The congestion event was none: takes back what it did (RFC 4015, in Linux's form).
    pub(crate) fn undo(&mut self, window: u32, threshold: u32) {
        self.window = self.window.max(window);
        self.threshold = self.threshold.max(threshold);
    }

    /// Sending resumes after nothing was in flight for `idle`. The window halves for each time-out of it, but not
    /// below the initial one (RFC 5681 §4.1 in Linux's form, `tcp_slow_start_after_idle`).
    pub(crate) fn on_idle(&mut self, idle: Duration, timeout: Duration, now: Instant) {
        if let Avoidance::Cubic(cubic) = &mut self.avoidance {
            cubic.idled(idle, now);
        }
        let floor = self.initial.min(self.window);
        if idle > timeout {
            // Remembers what was reached (RFC 2861 §3.2).
            self.threshold = self.threshold.max(self.window / 4 * 3);
        }
        let mut left = idle;
        while left > timeout && self.window > floor {
            left -= timeout;
            self.window = (self.window / 2).max(floor);
        }
    }

    /// The handshake is done: forgets what it did to the window.
    pub(crate) fn restart(&mut self, cautiously: bool) {
        self.window = if cautiously { 1 } else { self.initial };
        self.threshold = u32::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ack(segments: u32, limited: bool) -> Acked {
        Acked { segments, rtt: None, smoothed: Duration::from_millis(40), una: 0, next: 1, limited }
    }

    fn reno() -> Congestion {
        Congestion::new(&Config { congestion: Algorithm::Reno, hystart: false, ..Config::default() })
    }

    #[test]
    fn rfc6928_2_starts_with_ten_segments() {
        assert_eq!(reno().window(), 10);
    }

    #[test]
    fn rfc5681_3_1_slow_start_doubles_each_round() {
        let mut congestion = reno();
        for _ in 0..5 {
            congestion.on_ack(ack(2, true), start());
        }

        assert_eq!(congestion.window(), 20);
    }

    #[test]
    fn rfc5681_3_1_avoidance_adds_one_each_round() {
        let mut congestion = reno();
        congestion.set_window(20);
        congestion.on_congestion();
        congestion.set_window(congestion.threshold());
        for _ in 0..10 {
            congestion.on_ack(ack(1, true), start());
        }

        assert_eq!(congestion.window(), 11);
    }

    #[test]
    fn rfc7661_a_window_that_is_not_used_does_not_grow() {
        let mut congestion = reno();
        congestion.on_ack(ack(5, false), start());

        assert_eq!(congestion.window(), 10);
    }

    #[test]
    fn rfc5681_4_1_idle_time_returns_to_the_initial_window() {
        let mut congestion = reno();
        congestion.set_window(100);
        congestion.on_idle(Duration::from_secs(1), Duration::from_millis(240), start());
        assert_eq!(congestion.window(), 10);
        assert_eq!(congestion.threshold(), u32::MAX);
    }
}
