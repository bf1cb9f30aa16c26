//! A token bucket for bytes, counted in time and in integers (GCRA, ITU-T I.371 annex A).

use std::time::{Duration, Instant};

use crate::frame::MAX_PACKET;
use crate::info::RateLimit;

/// Smallest bucket, in bytes: a packet of the greatest length with its key must fit
/// (tailscale `derp/derpserver/derpserver.go`, `minRateLimitTokenBucketSize`).
pub const MIN_BURST: u64 = 32 + MAX_PACKET as u64;

#[derive(Debug)]
pub(crate) struct Meter {
    bytes_per_second: u64,
    burst: Duration,
    /// When the bucket is full again.
    full_at: Instant,
}

impl Meter {
    /// The server's bucket, full; `None` without a rate.
    pub(crate) fn new(limit: RateLimit, now: Instant) -> Option<Meter> {
        Meter::with(limit, limit.burst.max(MIN_BURST), now)
    }

    /// The bucket of a client that keeps to its server's limit: as it may send while it has any credit, it leaves the
    /// longest packet free.
    pub(crate) fn cautious(limit: RateLimit, now: Instant) -> Option<Meter> {
        Meter::with(limit, limit.burst.saturating_sub(MIN_BURST), now)
    }

    fn with(limit: RateLimit, burst: u64, now: Instant) -> Option<Meter> {
        let bytes_per_second = Some(limit.bytes_per_second).filter(|rate| *rate > 0)?;
        Some(Meter { bytes_per_second, burst: time_of(burst, bytes_per_second), full_at: now })
    }

    /// Takes bytes out, if need be on credit.
    pub(crate) fn spend(&mut self, bytes: usize, now: Instant) {
        self.full_at = self.full_at.max(now) + time_of(bytes as u64, self.bytes_per_second);
    }

    /// When the bucket is out of debt, if it has any.
    pub(crate) fn in_debt_until(&self, now: Instant) -> Option<Instant> {
        self.full_at.checked_sub(self.burst).filter(|at| *at > now)
    }
}

/// How long it takes to earn that much, rounded up to the nanosecond.
fn time_of(bytes: u64, bytes_per_second: u64) -> Duration {
    let ns = (u128::from(bytes) * 1_000_000_000).div_ceil(bytes_per_second.into());
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::start;

    #[test]
    fn after_the_burst_bytes_pass_at_the_rate() {
        let now = start();
        let mut meter = Meter::new(RateLimit { bytes_per_second: 1_000_000, burst: 100_000 }, now).unwrap();
        meter.spend(100_000, now);
        assert_eq!(meter.in_debt_until(now), None);
        meter.spend(1500, now);
        let free = now + Duration::from_micros(1500);
        assert_eq!(meter.in_debt_until(now), Some(free));
        assert_eq!(meter.in_debt_until(free), None);
        meter.spend(100_000, now + Duration::from_secs(100));
        assert_eq!(meter.in_debt_until(now + Duration::from_secs(100)), None, "it has filled up again");
    }

    #[test]
    fn a_bucket_always_holds_the_longest_packet() {
        let now = start();
        let mut meter = Meter::new(RateLimit { bytes_per_second: 1000, burst: 1 }, now).unwrap();
        meter.spend(MIN_BURST as usize, now);
        assert_eq!(meter.in_debt_until(now), None);
        assert!(Meter::new(RateLimit { bytes_per_second: 0, burst: 1 }, now).is_none());
    }
}
