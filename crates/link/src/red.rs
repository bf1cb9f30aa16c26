//! Random early detection: Floyd and Jacobson, "Random Early Detection Gateways for Congestion Avoidance", 1993.

use rand_pcg::Pcg64Mcg;

use crate::config::{Red, Share};

/// The weight of a new packet in the average is 1 / 2^9, the 0.002 of the paper (§XI).
const WEIGHT: u32 = 9;
/// Bits after the point of the average.
const FRACTION: u32 = 16;
/// The packet that an idle link could have sent, in bytes, by which the average ages (the paper's `s`, §V).
const TYPICAL_PACKET: u64 = 1000;

/// What becomes of an arriving packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Pass,
    Mark,
    Drop,
}

/// The average and what it takes to space the drops out.
#[derive(Debug, Default)]
pub(crate) struct Average {
    /// Bytes, with [`FRACTION`] bits after the point.
    average: u128,
    /// Packets since the last drop or mark, or -1 while the average is low.
    since: i64,
}

impl Average {
    /// Decides on a packet that finds `queued` bytes, at a link that has been idle for `idle` nanoseconds.
    pub(crate) fn arrive(
        &mut self,
        red: &Red,
        queued: u64,
        idle: Option<u64>,
        rate_bps: u64,
        ecn_capable: bool,
        rng: &mut Pcg64Mcg,
    ) -> Decision {
        match idle {
            Some(idle) => self.age(idle, rate_bps),
            None => {
                let queued = u128::from(queued) << FRACTION;
                self.average = self.average - (self.average >> WEIGHT) + (queued >> WEIGHT);
            }
        }
        let average = u64::try_from(self.average >> FRACTION).unwrap_or(u64::MAX);
        if average < red.min {
            self.since = -1;
            return Decision::Pass;
        }
        if average >= red.max {
            self.since = 0;
            return Decision::Drop;
        }
        self.since += 1;
        // p_b = p (average - min) / (max - min); p_a = p_b / (1 - count p_b): the gaps between drops are uniform.
        let billion = u128::from(Share::ALL.parts_per_billion());
        let above = u128::from(average - red.min);
        let base = u128::from(red.probability.parts_per_billion()) * above / u128::from(red.max - red.min);
        let spent = u128::from(self.since.unsigned_abs()) * base;
        let chance = if base + spent >= billion { billion } else { base * billion / (billion - spent) };
        if !Share::per_billion(chance as u32).hits(rng) {
            return Decision::Pass;
        }
        self.since = 0;
        if red.ecn && ecn_capable { Decision::Mark } else { Decision::Drop }
    }

    /// Lets the average fall as if small packets had found an empty queue in the meantime.
    fn age(&mut self, idle: u64, rate_bps: u64) {
        let mut packets =
            u128::from(idle) * u128::from(rate_bps) / u128::from(TYPICAL_PACKET * 8_000_000_000);
        // (1 - 2^-9)^packets by squaring, with 32 bits after the point.
        let mut factor = (1_u128 << 32) - (1 << (32 - WEIGHT));
        while packets > 0 && self.average > 0 {
            if packets & 1 == 1 {
                self.average = (self.average * factor) >> 32;
            }
            factor = (factor * factor) >> 32;
            packets >>= 1;
        }
    }
}
