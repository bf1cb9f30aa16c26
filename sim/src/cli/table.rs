//! The result of a run for a terminal, and for CI systems.

use ::report::{PairSummary, ScenarioSummary, Summary, units};
use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::fmt::Write;

const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();

/// One row per scenario, then whatever went wrong, then a line of totals.
pub(super) fn summary(summary: &Summary) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "scenario",
        "path",
        "first data",
        "direct after",
        "RTT direct",
        "RTT relayed",
        "expectations",
    ]);
    for scenario in &summary.scenarios {
        table.add_row(row(scenario));
    }
    let mut text = format!("{table}\n");
    for scenario in summary.scenarios.iter().filter(|s| !s.passed) {
        _ = writeln!(text, "\n{RED}{}{RED:#} failed  ({})", scenario.name, scenario.command);
        for failure in scenario.failures.iter().chain(&scenario.violations) {
            _ = writeln!(text, "  {failure}");
        }
    }
    let failed = summary.scenarios.len() - summary.passed();
    let style = if failed == 0 { GREEN } else { RED };
    _ = writeln!(text, "\n{style}{} passed, {failed} failed{style:#}", summary.passed());
    text
}

fn row(scenario: &ScenarioSummary) -> Vec<String> {
    let held = scenario.expectations.iter().filter(|e| e.passed).count();
    let all = scenario.expectations.len();
    let verdict = match (scenario.passed, scenario.violations.len()) {
        (true, _) => format!("✓ {held} of {all}"),
        (false, 0) => format!("✗ {held} of {all}"),
        (false, n) => format!("✗ {held} of {all}, {}", units::plural(n as u64, "violation")),
    };
    vec![
        scenario.name.clone(),
        paths(&scenario.pairs),
        spread(&scenario.pairs, |p| p.first_data_ns),
        spread(&scenario.pairs, |p| p.direct_ns),
        spread(&scenario.pairs, |p| {
            let own = p.paths.direct.as_ref().and_then(|m| m.rtt_p50_ns);
            own.or_else(|| p.paths.lan.as_ref().and_then(|m| m.rtt_p50_ns))
        }),
        spread(&scenario.pairs, |p| p.paths.relay.as_ref().and_then(|m| m.rtt_p50_ns)),
        verdict,
    ]
}

/// "direct", or "98 direct, 2 relay".
fn paths(pairs: &[PairSummary]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for pair in pairs {
        let word = pair.path.map_or("none", trace::Path::as_str);
        match counts.iter_mut().find(|(w, _)| *w == word) {
            Some((_, n)) => *n += 1,
            None => counts.push((word, 1)),
        }
    }
    match counts.as_slice() {
        [] => "no traffic".to_owned(),
        [(word, 1)] => (*word).to_owned(),
        _ => counts.iter().map(|(word, n)| format!("{n} {word}")).collect::<Vec<_>>().join(", "),
    }
}

/// The value, or the smallest and largest.
fn spread(pairs: &[PairSummary], value: impl Fn(&PairSummary) -> Option<u64>) -> String {
    let (low, high) = (pairs.iter().filter_map(&value).min(), pairs.iter().filter_map(&value).max());
    match (low, high) {
        (Some(low), Some(high)) if low == high => units::short(low),
        (Some(low), Some(high)) => format!("{} … {}", units::short(low), units::short(high)),
        _ => "–".to_owned(),
    }
}

/// A test suite per scenario, a test case per expectation.
pub(super) fn junit(summary: &Summary) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("punchbag");
    for scenario in &summary.scenarios {
        let mut suite = TestSuite::new(scenario.name.as_str());
        for expectation in &scenario.expectations {
            let status = if expectation.passed {
                TestCaseStatus::success()
            } else {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(expectation.seen.as_str());
                status
            };
            suite.add_test_case(TestCase::new(expectation.words.as_str(), status));
        }
        for violation in &scenario.violations {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(violation.as_str());
            suite.add_test_case(TestCase::new("invariants", status));
        }
        if scenario.violations.is_empty() {
            suite.add_test_case(TestCase::new("invariants", TestCaseStatus::success()));
        }
        report.add_test_suite(suite);
    }
    report.to_string()
}
