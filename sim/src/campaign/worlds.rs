//! One scenario in two worlds: whether it ends alike, and how far apart the times are.

use super::{Run, RunError, Which, run_in};
use crate::scenario::Scenario;
use crate::world::{Options, Seed, turmoil};
use report::metrics::PairMetrics;
use serde::Serialize;
use std::time::Duration;
use trace::{Name, Path};

/// How many ticks of the turmoil world a time may be apart from the simulator's. Of the shipped scenarios all are within five,
/// some ten round trips (TCP, TLS, relay, map) of several turns each, but for a hundred machines that begin at once: which of
/// them comes first within a tick adds up to twenty.
pub const TICKS: u32 = 25;

/// A value in the simulator and in the turmoil world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Both<T> {
    /// In the simulator.
    pub sim: T,
    /// In the turmoil world.
    pub turmoil: T,
}

/// A pair of hosts with traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PairInBoth {
    /// One.
    pub a: Name,
    /// The other.
    pub b: Name,
    /// The paths on which they send to each other at the end: `a`'s and `b`'s.
    pub paths: Both<(Option<Path>, Option<Path>)>,
    /// From the first packet sent to the first received, ns.
    pub first_data_ns: Both<Option<u64>>,
    /// From there until both send directly, ns.
    pub direct_ns: Both<Option<u64>>,
}

/// A scenario in both worlds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InBoth {
    /// The scenario.
    pub name: String,
    /// Its pairs.
    pub pairs: Vec<PairInBoth>,
    /// Whether every expectation held, and nothing was violated.
    pub passed: Both<bool>,
    /// What did not hold in the turmoil world.
    pub failures: Vec<String>,
}

impl PairInBoth {
    fn of(sim: &PairMetrics, turmoil: Option<&PairMetrics>) -> PairInBoth {
        let both = |value: fn(&PairMetrics) -> Option<u64>| Both {
            sim: value(sim),
            turmoil: turmoil.and_then(value),
        };
        let paths = |pair: &PairMetrics| (pair.path_a, pair.path_b);
        PairInBoth {
            a: sim.a.clone(),
            b: sim.b.clone(),
            paths: Both { sim: paths(sim), turmoil: turmoil.map(paths).unwrap_or_default() },
            first_data_ns: both(|pair| pair.first_data_ns),
            direct_ns: both(|pair| pair.direct_ns),
        }
    }

    /// What differs, in words.
    pub fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.paths.sim != self.paths.turmoil {
            found.push(format!(
                "ends {} in sim and {} in turmoil",
                words(self.paths.sim),
                words(self.paths.turmoil)
            ));
        }
        for (what, times) in [("first data", self.first_data_ns), ("direct", self.direct_ns)] {
            match (times.sim, times.turmoil) {
                (Some(sim), Some(turmoil)) if ticks(sim, turmoil) > u64::from(TICKS) => {
                    found.push(format!("{what}: {} ticks apart", ticks(sim, turmoil)));
                }
                (Some(_), None) | (None, Some(_)) => found.push(format!("{what}: only in one of them")),
                _ => {}
            }
        }
        found.into_iter().map(|what| format!("{} and {}: {what}", self.a, self.b)).collect()
    }

    /// The most ticks that a time is apart.
    pub fn apart(&self) -> u64 {
        let apart = |times: Both<Option<u64>>| Some(ticks(times.sim?, times.turmoil?));
        [apart(self.first_data_ns), apart(self.direct_ns)].into_iter().flatten().max().unwrap_or(0)
    }
}

fn ticks(a: u64, b: u64) -> u64 {
    u64::try_from(Duration::from_nanos(a.abs_diff(b)).as_nanos() / turmoil::TICK.as_nanos())
        .unwrap_or(u64::MAX)
}

fn words((a, b): (Option<Path>, Option<Path>)) -> String {
    let word = |path: Option<Path>| path.map_or("without a path", Path::as_str);
    if a == b { word(a).to_owned() } else { format!("{} / {}", word(a), word(b)) }
}

impl InBoth {
    /// What differs, in words; empty where both worlds agree.
    pub fn differences(&self) -> Vec<String> {
        let mut found: Vec<_> = self.pairs.iter().flat_map(PairInBoth::differences).collect();
        if self.passed.sim && !self.passed.turmoil {
            found.extend(self.failures.iter().map(|what| format!("fails in turmoil: {what}")));
        }
        found
    }

    /// The path on which all pairs end in the simulator, in words.
    pub fn ends(&self) -> String {
        let mut ends: Vec<_> = self.pairs.iter().map(|pair| words(pair.paths.sim)).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.join(", ")
    }
}

/// Plays a scenario in both worlds.
///
/// # Errors
/// If it cannot be played in one of them.
pub fn in_both(scenario: &Scenario, seed: Seed) -> Result<InBoth, RunError> {
    let options = Options::default();
    let play = |world| run_in(world, scenario, seed, options, "punchbag worlds");
    let (sim, turmoil) = (play(Which::Sim)?, play(Which::Turmoil)?);
    let passed = |run: &Run| run.summary.passed && run.verdict.passed();
    let failures = turmoil.summary.failures.iter().chain(&turmoil.summary.violations).cloned().collect();
    let pairs = sim.metrics.pairs.iter();
    Ok(InBoth {
        name: scenario.name.clone(),
        pairs: pairs.map(|pair| PairInBoth::of(pair, turmoil.metrics.pair(&pair.a, &pair.b))).collect(),
        passed: Both { sim: passed(&sim), turmoil: passed(&turmoil) },
        failures,
    })
}
