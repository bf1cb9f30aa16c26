//! Says whether a run went as it should: the scenario's expectations, and what is never allowed to happen.

mod expect;
mod invariants;
pub mod oracle;
mod reach;

use crate::scenario::Scenario;
use report::{Expectation, Metrics};
use trace::Record;

/// The judgement of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Each expectation of the scenario, held or not.
    pub expectations: Vec<Expectation>,
    /// What was never allowed to happen, and did: "name: detail".
    pub violations: Vec<String>,
}

impl Verdict {
    /// Whether everything was as it should be.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.expectations.iter().all(|e| e.passed)
    }
}

/// Judges a run by its log.
pub fn judge(scenario: &Scenario, records: &[Record], metrics: &Metrics) -> Verdict {
    let expectations = scenario.expect.iter().flat_map(|expect| expect::check(expect, metrics)).collect();
    let mut violations = metrics.violations.clone();
    violations.extend(invariants::check(scenario, records, metrics));
    Verdict { expectations, violations }
}
