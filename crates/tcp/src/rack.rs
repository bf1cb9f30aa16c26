//! RACK: loss detection by time (RFC 8985 §6). What was sent well before something already delivered is lost.

use std::time::{Duration, Instant};

/// RFC 8985 §6.2 step 4: recoveries for which a widened reordering window persists.
const PERSIST_RECOVERIES: u32 = 16;
/// The most quarters of the minimum round-trip time in the window; it is bounded by SRTT as well.
const MAX_QUARTERS: u32 = 255;

/// A transmission as RACK orders them: its time, and its number among all transmissions of the connection. RFC 8985 breaks
/// ties of a coarse clock by sequence number; the number says which really went first.
pub(crate) type Sent = (Instant, u64);

#[derive(Debug)]
pub(crate) struct Rack {
    /// The latest transmission known to be delivered.
    newest: Option<Sent>,
    /// Its round-trip time.
    rtt: Duration,
    /// The highest offset delivered (`RACK.fack`).
    highest: u64,
    reordering_seen: bool,
    quarters: u32,
    persist: u32,
    /// DSACKs before this offset belong to the round already counted.
    dsack_round: Option<u64>,
}

impl Rack {
    pub(crate) fn new() -> Self {
        Self {
            newest: None,
            rtt: Duration::ZERO,
            highest: 0,
            reordering_seen: false,
            quarters: 1,
            persist: 0,
            dsack_round: None,
        }
    }

    /// A segment that ends at `end` was delivered (steps 2 and 3). `ambiguous`: this may be the ACK of an earlier
    /// transmission of it.
    pub(crate) fn delivered(
        &mut self,
        sent: Sent,
        end: u64,
        retransmitted: bool,
        ambiguous: bool,
        now: Instant,
    ) {
        if end > self.highest {
            self.highest = end;
        } else if end < self.highest && !retransmitted {
            self.reordering_seen = true;
        }
        if !ambiguous && self.newest.is_none_or(|newest| sent > newest) {
            self.newest = Some(sent);
            self.rtt = now.saturating_duration_since(sent.0);
        }
    }

    /// A DSACK arrived: something was retransmitted in vain, so the window is too narrow (step 4).
    pub(crate) fn duplicate_reported(&mut self, acked: u64, next: u64) {
        if self.dsack_round.is_none_or(|round| acked >= round) {
            self.dsack_round = Some(next);
            self.quarters = (self.quarters + 1).min(MAX_QUARTERS);
            self.persist = PERSIST_RECOVERIES;
        }
    }

    /// A recovery ended.
    pub(crate) fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }

    /// How long to wait for something overtaken. `eager`: recovery has begun, or three segments were SACKed.
    pub(crate) fn reordering_window(
        &self,
        eager: bool,
        minimum: Option<Duration>,
        smoothed: Option<Duration>,
    ) -> Duration {
        if !self.reordering_seen && eager {
            return Duration::ZERO;
        }
        let window = minimum.unwrap_or_default() * self.quarters / 4;
        smoothed.map_or(window, |smoothed| window.min(smoothed))
    }

    /// When a transmission counts as lost, if it was sent before the newest delivered one (step 5).
    pub(crate) fn deadline(&self, sent: Sent, window: Duration) -> Option<Instant> {
        (self.newest? > sent).then(|| sent.0 + self.rtt + window)
    }

    /// When a transmission counts as lost after a time-out, whatever was delivered (§6.3).
    pub(crate) fn deadline_after_timeout(&self, sent: Sent, window: Duration) -> Instant {
        sent.0 + self.rtt + window
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
    fn rfc8985_6_2_sent_before_a_delivered_one_is_lost_after_the_window() {
        let now = start();
        let mut rack = Rack::new();
        rack.delivered((now + MS, 3), 3000, false, false, now + 41 * MS);

        assert_eq!(rack.deadline((now, 1), 10 * MS), Some(now + 50 * MS));
        assert_eq!(rack.deadline((now + MS, 2), Duration::ZERO), Some(now + 41 * MS));
        assert_eq!(rack.deadline((now + MS, 4), Duration::ZERO), None);
        assert_eq!(rack.deadline((now + 2 * MS, 5), Duration::ZERO), None);
    }

    #[test]
    fn rfc8985_6_2_window_closes_on_three_until_reordering_is_seen() {
        let now = start();
        let mut rack = Rack::new();
        let (minimum, smoothed) = (Some(40 * MS), Some(50 * MS));
        assert_eq!(rack.reordering_window(true, minimum, smoothed), Duration::ZERO);
        assert_eq!(rack.reordering_window(false, minimum, smoothed), 10 * MS);

        rack.delivered((now, 3), 3000, false, false, now + 40 * MS);
        rack.delivered((now, 1), 1000, false, false, now + 40 * MS);

        assert_eq!(rack.reordering_window(true, minimum, smoothed), 10 * MS);
    }

    #[test]
    fn rfc8985_6_2_dsack_widens_the_window_once_a_round_and_for_sixteen_recoveries() {
        let mut rack = Rack::new();
        let window = |rack: &Rack| rack.reordering_window(false, Some(40 * MS), Some(100 * MS));
        rack.duplicate_reported(100, 1000);
        rack.duplicate_reported(200, 1000);
        assert_eq!(window(&rack), 20 * MS);
        rack.duplicate_reported(1000, 2000);
        assert_eq!(window(&rack), 30 * MS);

        for _ in 0..16 {
            rack.recovered();
        }

        assert_eq!(window(&rack), 10 * MS);
    }
}
