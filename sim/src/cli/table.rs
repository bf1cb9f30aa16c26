//! The result of a run for a terminal, and for CI systems.

use ::report::metrics::PathMetrics;
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
        "expected",
        "ended",
        "first data",
        "direct after",
        "direct",
        "relayed",
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
    if summary.scenarios.iter().any(|s| s.pairs.iter().any(|pair| pair.relayed.is_some())) {
        text += "\ndirect and relayed: round trip, or one way where nobody answers; share lost in the whole run, if any; goodput of transfers\n\
                 † played once more with direct paths cut\n";
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
    let pairs = || scenario.pairs.iter();
    let direct: Vec<_> =
        pairs().flat_map(|p| [&p.paths.direct, &p.paths.lan]).filter_map(Option::as_ref).collect();
    let relayed: Vec<_> = pairs().filter_map(PairSummary::on_relay).collect();
    // What a pair that may go direct loses while it falls back to the relay is the price of its own run.
    let own: Vec<_> = pairs()
        .filter(|pair| pair.left_the_relay())
        .flat_map(|p| p.paths.iter().filter_map(|(_, m)| m.as_ref()).collect::<Vec<_>>())
        .collect();
    let has_pings = direct.iter().chain(&relayed).any(|m| m.rtt_p50_ns.is_some());
    let dagger = if pairs().any(|pair| pair.relayed.is_some()) { " †" } else { "" };
    vec![
        scenario.name.clone(),
        expected(scenario),
        paths(&scenario.pairs),
        spread(&scenario.pairs, |p| p.first_data_ns),
        spread(&scenario.pairs, |p| p.direct_ns),
        figures(&direct, &own, has_pings),
        figures(&relayed, &relayed, has_pings) + dagger,
        verdict,
    ]
}

/// What traffic met: "84 ms", "42 ms one way, 3.75 % lost", "29 ms, 43.0 Mbit/s".
/// Times and rates of `found`, losses of `all`. A round trip says more than a latency, so the latter is for scenarios without pings.
fn figures(found: &[&PathMetrics], all: &[&PathMetrics], has_pings: bool) -> String {
    let sum = |value: fn(&PathMetrics) -> u64| all.iter().map(|m| value(m)).fold(0, u64::saturating_add);
    let mut words = Vec::new();
    if has_pings {
        words.extend(range(found.iter().filter_map(|m| m.rtt_p50_ns), units::short));
    } else if let Some(latency) = range(found.iter().filter_map(|m| m.latency_p50_ns), units::short) {
        words.push(format!("{latency} one way"));
    }
    let (sent, lost) = (sum(|m| m.sent), sum(|m| m.lost));
    if lost > 0 {
        let ppm = u128::from(lost) * 1_000_000 / u128::from(sent.max(lost));
        words.push(format!("{} lost", units::percent(u64::try_from(ppm).unwrap_or(1_000_000))));
    }
    words.extend(range(found.iter().filter_map(|m| m.goodput_bps), units::rate));
    if words.is_empty() { "–".to_owned() } else { words.join(", ") }
}

/// The paths that the scenario expects; an expectation reads "WHO: WHAT".
fn expected(scenario: &ScenarioSummary) -> String {
    let mut words = Vec::new();
    for expectation in &scenario.expectations {
        let what = expectation.words.rsplit(": ").next().unwrap_or_default();
        if ["relay", "direct", "lan", "no path"].contains(&what) && !words.contains(&what) {
            words.push(what);
        }
    }
    if words.is_empty() { "any path".to_owned() } else { words.join(", ") }
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

fn spread(pairs: &[PairSummary], value: impl Fn(&PairSummary) -> Option<u64>) -> String {
    range(pairs.iter().filter_map(value), units::short).unwrap_or_else(|| "–".to_owned())
}

/// The value, or the smallest and largest.
fn range(values: impl Iterator<Item = u64>, words: fn(u64) -> String) -> Option<String> {
    let values: Vec<u64> = values.collect();
    let (low, high) = (words(*values.iter().min()?), words(*values.iter().max()?));
    Some(if low == high { low } else { format!("{low} … {high}") })
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
