//! The documented schema of `summary.json`: a row per scenario, a row per pair of hosts in it.
//!
//! ```json
//! { "format": 1, "version": "0.1.0", "seed": 1,
//!   "scenarios": [ {
//!     "name": "mission/two-homes", "title": "Two homes", "passed": true,
//!     "failures": [], "violations": [],
//!     "pairs": [ { "a": "flappie", "b": "takkie", "path": "direct",
//!                  "first_data_ns": 61000000, "direct_ns": 112000000,
//!                  "paths": { "relay": { "sent": 3, "rtt_p50_ns": 121000000, … }, "direct": { … }, "lan": null },
//!                  "relayed": { "sent": 188, "rtt_p50_ns": 120000000, … }, … } ],
//!     "expectations": [ { "words": "takkie and flappie are direct within 2s", "passed": true, "seen": "direct after 112.0 ms" } ],
//!     "registered": 2, "packets": 412, "events": 1733, "duration_ns": 20000000000,
//!     "command": "punchbag run scenarios/mission/two-homes.toml --seed 1" } ] }
//! ```
//!
//! Times are nanoseconds (`_ns`), rates bits per second (`_bps`), shares millionths (`_ppm`); all are integers. What was
//! not measured is `null`.

use crate::metrics::{Metrics, PairMetrics, PathMetrics, PerPath, Recovery};
use serde::{Deserialize, Serialize};
use trace::{Header, Name, Path};

/// Version of the schema.
pub const FORMAT: u32 = 1;

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// The seed of every run in it.
    pub seed: u64,
    /// One for each scenario, in the order in which they were given.
    pub scenarios: Vec<ScenarioSummary>,
}

/// One scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioSummary {
    /// Its path below the scenario folder, without ".toml".
    pub name: String,
    /// Its title.
    pub title: String,
    /// Did every expectation hold, and was no invariant violated?
    pub passed: bool,
    /// What did not hold, in words.
    pub failures: Vec<String>,
    /// Violated invariants, "name: detail".
    pub violations: Vec<String>,
    /// Each pair of hosts with traffic, sorted.
    pub pairs: Vec<PairSummary>,
    /// Each expectation of the scenario and what was seen.
    pub expectations: Vec<Expectation>,
    /// Hosts that the coordination server accepted.
    pub registered: u64,
    /// Packets put on an interface.
    pub packets: u64,
    /// Events the world processed.
    pub events: u64,
    /// Virtual time of the run, ns.
    pub duration_ns: u64,
    /// The command that makes this row again.
    pub command: String,
}

/// A pair of hosts with traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairSummary {
    /// One host; sorts before `b`.
    pub a: Name,
    /// The other.
    pub b: Name,
    /// The path at the end: `null` if either side has none, "relay" if either side uses one.
    pub path: Option<Path>,
    /// From the start of the pair's first flow to the first packet or byte received, ns.
    pub first_data_ns: Option<u64>,
    /// From there to both sides sending on a path that is not a relay, ns.
    pub direct_ns: Option<u64>,
    /// Figures of each path; `null` for one that carried nothing.
    pub paths: PerPath<Option<PathMetrics>>,
    /// The relay figures of this pair when the same scenario and seed is played once more with every direct path cut; `null`
    /// where the pair was relayed anyway (see `paths.relay`), no relay can be reached, or nobody asked for it.
    #[serde(default)]
    pub relayed: Option<PathMetrics>,
    /// Loss over all paths, millionths.
    pub loss_ppm: Option<u64>,
    /// The longest silence in traffic that was being sent, ns.
    pub longest_gap_ns: u64,
    /// How long traffic was silent after each action of the timeline.
    pub recoveries: Vec<Recovery>,
    /// Flows that finished what they set out to do.
    pub flows_complete: u64,
    /// Flows in all.
    pub flows: u64,
}

/// An expectation of a scenario, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// What was expected.
    pub words: String,
    /// Did it hold?
    pub passed: bool,
    /// What was seen.
    pub seen: String,
}

impl Summary {
    /// A summary without scenarios.
    pub fn new(version: impl Into<String>, seed: u64) -> Summary {
        Summary { format: FORMAT, version: version.into(), seed, scenarios: Vec::new() }
    }

    /// How many scenarios passed.
    pub fn passed(&self) -> usize {
        self.scenarios.iter().filter(|scenario| scenario.passed).count()
    }

    /// The scenario of that name.
    pub fn scenario(&self, name: &str) -> Option<&ScenarioSummary> {
        self.scenarios.iter().find(|scenario| scenario.name == name)
    }
}

impl ScenarioSummary {
    /// The measured part of a row. Violations in the log fail it; the judge adds expectations by [`Self::expect`].
    pub fn new(header: &Header, metrics: &Metrics, command: impl Into<String>) -> ScenarioSummary {
        ScenarioSummary {
            name: header.scenario.clone(),
            title: header.title.clone(),
            passed: metrics.violations.is_empty(),
            failures: Vec::new(),
            violations: metrics.violations.clone(),
            pairs: metrics.pairs.iter().map(PairSummary::from).collect(),
            expectations: Vec::new(),
            registered: metrics.registered,
            packets: metrics.packets,
            events: metrics.events,
            duration_ns: metrics.end_ns,
            command: command.into(),
        }
    }

    /// Adds a judged expectation; one that did not hold becomes a failure.
    pub fn expect(&mut self, expectation: Expectation) {
        if !expectation.passed {
            self.passed = false;
            self.failures.push(format!("{}: {}", expectation.words, expectation.seen));
        }
        self.expectations.push(expectation);
    }
}

impl PairSummary {
    /// Did any of its traffic go by another path than a relay?
    pub fn left_the_relay(&self) -> bool {
        self.direct_ns.is_some() || self.paths.direct.is_some() || self.paths.lan.is_some()
    }

    /// Its figures on a relay, to be held against those of a direct path: `relayed` where there is one, since a pair leaves
    /// the relay after a few packets, and those tell little.
    pub fn on_relay(&self) -> Option<&PathMetrics> {
        self.relayed.as_ref().or(self.paths.relay.as_ref())
    }

    /// Takes the relay figures of the same pair from a run with every direct path cut.
    pub fn compare(&mut self, cut: &Metrics) {
        self.relayed = cut.pair(&self.a, &self.b).and_then(|pair| used(&pair.paths.relay));
    }
}

/// The figures of a path that carried something.
fn used(figures: &PathMetrics) -> Option<PathMetrics> {
    (*figures != PathMetrics::default()).then_some(*figures)
}

impl From<&PairMetrics> for PairSummary {
    fn from(pair: &PairMetrics) -> PairSummary {
        PairSummary {
            a: pair.a.clone(),
            b: pair.b.clone(),
            path: pair.path(),
            first_data_ns: pair.first_data_ns,
            direct_ns: pair.direct_ns,
            paths: PerPath {
                relay: used(&pair.paths.relay),
                direct: used(&pair.paths.direct),
                lan: used(&pair.paths.lan),
            },
            relayed: None,
            loss_ppm: pair.loss_ppm(),
            longest_gap_ns: pair.longest_gap_ns,
            recoveries: pair.recoveries.clone(),
            flows_complete: pair.flows.iter().filter(|flow| flow.complete == Some(true)).count() as u64,
            flows: pair.flows.len() as u64,
        }
    }
}
