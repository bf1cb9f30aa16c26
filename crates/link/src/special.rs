//! What a link does beyond delay, jitter, rate, drop-tail and random loss.

use std::collections::VecDeque;

use rand::Rng as _;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

use crate::aqm::{Item, Managed};
use crate::config::{LinkConfig, Loss, Outages, StepTo, Steps};
use crate::red::Average;
use crate::trace::Position;
use crate::{DropReason, to_ns};

/// The state of it.
#[derive(Debug)]
pub(crate) struct Special {
    /// Gilbert–Elliott's bad state.
    bad: bool,
    /// Packets counted for bursts.
    counted: u32,
    pub(crate) position: Position,
    pub(crate) red: Average,
    pub(crate) managed: Managed,
    outages: Option<OutageTimes>,
    /// What random times are drawn from.
    times: u64,
    /// The fates of packets that have left a managed queue, the first ones first.
    pub(crate) fates: VecDeque<(u64, crate::Sent)>,
    pub(crate) next_ticket: u64,
    pub(crate) scratch: Vec<Item>,
}

impl Special {
    pub(crate) fn new(times: u64) -> Special {
        Special {
            bad: false,
            counted: 0,
            position: Position::default(),
            red: Average::default(),
            managed: Managed::default(),
            outages: None,
            times,
            fates: VecDeque::new(),
            next_ticket: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether it still holds packets or their fates.
    pub(crate) fn is_busy(&self) -> bool {
        !self.managed.is_empty() || !self.fates.is_empty()
    }

    /// Whether an outage covers `at`; `now` never runs backwards.
    pub(crate) fn is_out(&mut self, config: &LinkConfig, at: u64, now: u64) -> bool {
        let Some(plan) = config.outages else { return false };
        if !plan.random {
            return clockwork(&plan, at);
        }
        let fits = |times: &OutageTimes| times.plan == plan;
        if !self.outages.as_ref().is_some_and(fits) {
            self.outages = Some(OutageTimes::new(plan, self.times));
        }
        self.outages.as_mut().is_some_and(|times| times.cover(at, now))
    }

    /// Why a packet that leaves the wire at `at` is lost on the way, if it is.
    pub(crate) fn lose(&mut self, config: &LinkConfig, at: u64, rng: &mut Pcg64Mcg) -> Option<DropReason> {
        if let Some(steps) = &config.steps
            && disturbed(steps, at)
            && steps.loss.hits(rng)
        {
            return Some(DropReason::Loss);
        }
        let lost = match config.loss {
            Loss::Random(share) => share.hits(rng),
            Loss::GilbertElliott { p, r, h, k } => {
                let (passes, turns) = if self.bad { (h, r) } else { (k, p) };
                let lost = !passes.hits(rng);
                self.bad ^= turns.hits(rng);
                lost
            }
            Loss::Burst { length, every } => {
                self.counted = (self.counted + 1) % every.max(1);
                // The last ones of every round; the counter is back at 0 with the very last.
                self.counted == 0 && length > 0 || every - self.counted < length && self.counted > 0
            }
        };
        if lost {
            return Some(DropReason::Loss);
        }
        config.corrupt.hits(rng).then_some(DropReason::Corrupted)
    }

    /// The delay of a packet that leaves the wire at `at`, without its jitter.
    pub(crate) fn delay(&self, config: &LinkConfig, at: u64) -> u64 {
        let delay = match &config.delays {
            Some(delays) => delays.at(at),
            None => to_ns(config.delay),
        };
        match &config.steps {
            Some(steps) => step(steps, self.times, delay, at),
            None => delay,
        }
    }
}

// ---- outages --------------------------------------------------------------------------------

/// Whether an outage that comes like clockwork covers `at`.
fn clockwork(plan: &Outages, at: u64) -> bool {
    let since = at.checked_sub(to_ns(plan.first));
    since.is_some_and(|since| since % to_ns(plan.every).max(1) < to_ns(plan.lasts))
}

/// Outages that come at random. Both directions of a cable draw the same ones.
#[derive(Debug)]
struct OutageTimes {
    plan: Outages,
    rng: Pcg64Mcg,
    next_start: u64,
    /// From and until when, those that are not over.
    coming: VecDeque<(u64, u64)>,
}

impl OutageTimes {
    /// Most outages that are kept for packets that leave later; beyond them a packet passes.
    const AHEAD: usize = 4096;
    /// Most outages that are gone through for one packet. A link that was silent through more catches up with later packets.
    const STEPS: usize = 1 << 16;
    /// Shortest mean time between two, in nanoseconds.
    const SHORTEST: u64 = 1_000_000;

    fn new(plan: Outages, times: u64) -> OutageTimes {
        let mut rng = Pcg64Mcg::seed_from_u64(times);
        let next_start = to_ns(plan.first).saturating_add(Self::gap(&plan, &mut rng));
        OutageTimes { plan, rng, next_start, coming: VecDeque::new() }
    }

    fn gap(plan: &Outages, rng: &mut Pcg64Mcg) -> u64 {
        exponential(to_ns(plan.every).max(Self::SHORTEST), rng.next_u64())
    }

    fn cover(&mut self, at: u64, now: u64) -> bool {
        for _ in 0..Self::STEPS {
            while self.coming.front().is_some_and(|(_, end)| *end <= now) {
                self.coming.pop_front();
            }
            if self.next_start > at || self.coming.len() == Self::AHEAD {
                break;
            }
            let end = self.next_start.saturating_add(to_ns(self.plan.lasts));
            self.coming.push_back((self.next_start, end));
            self.next_start = end.saturating_add(Self::gap(&self.plan, &mut self.rng));
        }
        self.coming.iter().any(|(start, end)| (*start..*end).contains(&at))
    }
}

/// A time of an exponential distribution with this mean: minus its logarithm to base e of `draw / 2^64`, by squaring.
fn exponential(mean: u64, draw: u64) -> u64 {
    let draw = draw.max(1);
    // -log2 of the share: whole bits, then 32 of the fraction.
    let whole = u128::from(draw.leading_zeros());
    let mut mantissa = u128::from(draw << draw.leading_zeros());
    let mut fraction = 0_u128;
    for _ in 0..32 {
        // In [1, 2) with 63 bits after the point.
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >> 64 != 0 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    // log2 is whole + 1 less the mantissa's; times ln 2, 0.693147180559945 · 2^32.
    let log2 = ((whole + 1) << 32) - fraction;
    let log_e = (log2 * 2_977_044_471) >> 32;
    u64::try_from((u128::from(mean) * log_e) >> 32).unwrap_or(u64::MAX)
}

// ---- steps ----------------------------------------------------------------------------------

/// How many changes have been by `at`.
fn changes(steps: &Steps, at: u64) -> u64 {
    let since = at.checked_sub(to_ns(steps.first));
    since.map_or(0, |since| (since / to_ns(steps.every).max(1)).saturating_add(1))
}

/// Whether the last change was just before `at`.
fn disturbed(steps: &Steps, at: u64) -> bool {
    let since = at.checked_sub(to_ns(steps.first));
    since.is_some_and(|since| since % to_ns(steps.every).max(1) < to_ns(steps.disturbed))
}

/// The delay after the changes that have been by `at`.
fn step(steps: &Steps, times: u64, delay: u64, at: u64) -> u64 {
    let by = to_ns(steps.by).min(u64::MAX / 4);
    let changes = changes(steps, at);
    match steps.to {
        StepTo::UpAndBack if changes % 2 == 1 => delay.saturating_add(by),
        StepTo::UpAndBack => delay,
        // A draw of its own for each, so that both directions see the same ones whenever they look.
        StepTo::Anywhere => {
            let draw =
                Pcg64Mcg::seed_from_u64(times ^ changes.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next_u64();
            let offset = (u128::from(draw) * u128::from(2 * by + 1)) >> 64;
            // Below 2 by + 1.
            delay.saturating_add(offset as u64).saturating_sub(by)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_times_are_logarithms() {
        // -ln(1/2), -ln(1/4), -ln(3/4) of a second.
        for (draw, expected) in [(1_u64 << 63, 693_147_180), (1 << 62, 1_386_294_361), (3 << 62, 287_682_072)]
        {
            assert!(exponential(1_000_000_000, draw).abs_diff(expected) <= 3, "{draw}");
        }
        assert_eq!(exponential(1_000_000_000, u64::MAX), 0);
    }
}
