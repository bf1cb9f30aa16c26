//! Rates: a token bucket in whole numbers.

use std::fmt;

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoliceUnit {
    /// Bits of IP packets.
    Bits,
    /// Packets.
    Packets,
}

/// So many units a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoliceRate {
    /// What is counted.
    pub unit: PoliceUnit,
    /// How many a second.
    pub per_second: u64,
}

impl fmt::Display for PoliceRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            PoliceUnit::Bits => write!(f, "{}bit/s", self.per_second),
            PoliceUnit::Packets => write!(f, "{}packets/s", self.per_second),
        }
    }
}

/// A rate that packets beyond are dropped at: a policer with one token bucket (RFC 2697 §3 with its excess bucket empty,
/// tc-police(8), the `limit rate over` of nftables).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Police {
    /// How fast the bucket fills.
    pub rate: PoliceRate,
    /// How much it holds: bytes for a rate in bits, else packets. It is full at first.
    pub burst: u64,
}

impl Police {
    /// A rate with the burst that it has when nobody gives one: what it lets pass in 100 ms, as Linux's documentation of
    /// `tbf` recommends as an upper bound of its latency, but two full packets at least.
    pub fn new(rate: PoliceRate) -> Police {
        let burst = match rate.unit {
            PoliceUnit::Bits => (rate.per_second / 80).max(2 * 1500),
            PoliceUnit::Packets => (rate.per_second / 10).max(2),
        };
        Police { rate, burst }
    }
}

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// A bucket in use. Its level is kept in units times nanoseconds, so that nothing is ever rounded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// How much is missing from a full bucket at `at`.
    missing: u128,
    at: u64,
}

impl Bucket {
    /// Takes a packet of `bytes` out at `now`, in nanoseconds. `false` if there is not enough, and then nothing is taken.
    pub(super) fn take(&mut self, police: &Police, bytes: usize, now: u64) -> bool {
        let rate = u128::from(police.rate.per_second);
        let (cost, size) = match police.rate.unit {
            PoliceUnit::Bits => (bytes as u128 * 8, u128::from(police.burst) * 8),
            PoliceUnit::Packets => (1, u128::from(police.burst)),
        };
        self.missing = self.missing.saturating_sub(u128::from(now.saturating_sub(self.at)) * rate);
        self.at = self.at.max(now);
        let after = self.missing + cost * SECOND;
        let enough = after <= size * SECOND;
        if enough {
            self.missing = after;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(per_second: u64, burst: u64) -> Police {
        Police { rate: PoliceRate { unit: PoliceUnit::Bits, per_second }, burst }
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_its_rate() {
        let police = bits(8_000, 2_000);
        let mut bucket = Bucket::default();
        assert!(bucket.take(&police, 1_000, 5));
        assert!(bucket.take(&police, 1_000, 5));
        assert!(!bucket.take(&police, 1, 5));
        // A thousand bytes a second: one byte every millisecond.
        assert!(!bucket.take(&police, 1, 1_000_004));
        assert!(bucket.take(&police, 1, 1_000_005));
        assert!(!bucket.take(&police, 1, 1_000_005));
    }

    #[test]
    fn packets_count_whatever_their_length() {
        let police = Police { rate: PoliceRate { unit: PoliceUnit::Packets, per_second: 10 }, burst: 1 };
        let mut bucket = Bucket::default();
        assert!(bucket.take(&police, 9_000, 0));
        assert!(!bucket.take(&police, 1, 99_999_999));
        assert!(bucket.take(&police, 1, 100_000_000));
    }

    proptest! {
        /// In no stretch of time does more pass than the burst and what the rate gives in it.
        #[test]
        fn no_stretch_of_time_exceeds_rate_and_burst(
            per_second in 1_u64..10_000_000,
            burst in 1_u64..10_000,
            packets in proptest::collection::vec((0_u64..50_000_000, 1_usize..2_000), 1..60),
        ) {
            let police = bits(per_second, burst);
            let mut bucket = Bucket::default();
            let mut now = 0;
            let mut passed: Vec<(u64, u128)> = Vec::new();
            for (gap, bytes) in packets {
                now += gap;
                if bucket.take(&police, bytes, now) {
                    passed.push((now, bytes as u128 * 8));
                }
            }
            for first in 0..passed.len() {
                let mut sum = 0;
                for (at, bits) in &passed[first..] {
                    sum += bits;
                    let span = u128::from(at - passed[first].0);
                    let most = u128::from(burst) * 8 * SECOND + span * u128::from(per_second);
                    prop_assert!(sum * SECOND <= most);
                }
            }
        }
    }
}
