//! Everything a page shows, gathered from a summary and the folds of its logs.

use crate::matrix::Matrix;
use crate::metrics::{Metrics, PathMetrics, PerPath, percentile, ratio_ppm};
use crate::summary::{PairSummary, ScenarioSummary, Summary};
use crate::timeline::PathTimeline;
use std::collections::BTreeMap;
use trace::Path;

/// A report: written as Markdown by [`Report::markdown`], as one HTML page by [`Report::html`].
///
/// ```
/// use report::{Metrics, PathTimeline, Report, Summary};
/// let mut summary = Summary::new("0.1.0", 1);
/// # let (header, records) = (trace::Header { format: 1, scenario: "nat/cone".into(), title: "Two cones".into(),
/// #     scenario_hash: String::new(), seed: 1, version: "0.1.0".into(), world: "sim".into() }, Vec::new());
/// let metrics = Metrics::fold(&records);
/// let command = "punchbag run scenarios/nat/cone.toml --seed 1";
/// summary.scenarios.push(report::ScenarioSummary::new(&header, &metrics, command));
/// let logs = [("nat/cone".to_owned(), metrics, PathTimeline::fold(&records))];
/// let report = Report::build(&summary, logs);
/// assert!(report.markdown().contains("Two cones"));
/// assert!(report.html().starts_with("<!DOCTYPE html>"));
/// ```
#[derive(Debug, Clone)]
pub struct Report {
    pub(crate) summary: Summary,
    pub(crate) runs: BTreeMap<String, (Metrics, PathTimeline)>,
    pub(crate) matrix: Option<Matrix>,
}

impl Report {
    /// Gathers a report. `logs` gives, by name of the scenario, the folds of its log; a scenario without one gets no
    /// timeline and no counts of drops.
    pub fn build(
        summary: &Summary,
        logs: impl IntoIterator<Item = (String, Metrics, PathTimeline)>,
    ) -> Report {
        let runs = logs.into_iter().map(|(name, metrics, timeline)| (name, (metrics, timeline))).collect();
        Report { summary: summary.clone(), runs, matrix: None }
    }

    /// Adds the NAT matrix.
    #[must_use]
    pub fn with_matrix(mut self, matrix: Matrix) -> Report {
        self.matrix = Some(matrix);
        self
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for scenario in &self.summary.scenarios {
            totals.passed += u64::from(scenario.passed);
            totals.failed += u64::from(!scenario.passed);
            totals.violations += scenario.violations.len() as u64;
            totals.packets = totals.packets.saturating_add(scenario.packets);
            totals.virtual_ns = totals.virtual_ns.saturating_add(scenario.duration_ns);
            for pair in &scenario.pairs {
                match pair.path {
                    Some(path) => *totals.ended.get_mut(path) += 1,
                    None => totals.unconnected += 1,
                }
            }
        }
        totals
    }
}

/// Sums over all scenarios.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) violations: u64,
    pub(crate) packets: u64,
    pub(crate) virtual_ns: u64,
    /// Pairs by the path on which they ended.
    pub(crate) ended: PerPath<u64>,
    pub(crate) unconnected: u64,
}

/// A scenario's pairs as one.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) paths: PerPath<PathFigures>,
    /// Medians over the pairs.
    pub(crate) first_data_ns: Option<u64>,
    pub(crate) direct_ns: Option<u64>,
    /// Longest silence of any pair.
    pub(crate) longest_gap_ns: u64,
    /// How the pairs ended: "direct", "3 direct, 1 relay".
    pub(crate) ended: String,
}

/// One path, over all pairs of a scenario.
#[derive(Debug, Default)]
pub(crate) struct PathFigures {
    /// Median over the pairs of their medians.
    pub(crate) rtt_ns: Option<u64>,
    /// Of all packets of all pairs.
    pub(crate) loss_ppm: Option<u64>,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// Median over the pairs.
    pub(crate) goodput_bps: Option<u64>,
}

impl Figures {
    pub(crate) fn new(scenario: &ScenarioSummary) -> Figures {
        let pairs = &scenario.pairs;
        let mut paths = PerPath::<PathFigures>::default();
        for path in [Path::Relay, Path::Direct, Path::Lan] {
            let used: Vec<&PathMetrics> =
                pairs.iter().filter_map(|pair| pair.paths.get(path).as_ref()).collect();
            let sent = used.iter().map(|path| path.sent).fold(0, u64::saturating_add);
            let lost = used.iter().map(|path| path.lost).fold(0, u64::saturating_add);
            *paths.get_mut(path) = PathFigures {
                rtt_ns: median(used.iter().filter_map(|path| path.rtt_p50_ns)),
                loss_ppm: ratio_ppm(lost, sent),
                sent,
                lost,
                goodput_bps: median(used.iter().filter_map(|path| path.goodput_bps)),
            };
        }
        Figures {
            paths,
            first_data_ns: median(pairs.iter().filter_map(|pair| pair.first_data_ns)),
            direct_ns: median(pairs.iter().filter_map(|pair| pair.direct_ns)),
            longest_gap_ns: pairs.iter().map(|pair| pair.longest_gap_ns).max().unwrap_or(0),
            ended: ended(pairs),
        }
    }
}

fn ended(pairs: &[PairSummary]) -> String {
    let count = |path| pairs.iter().filter(|pair| pair.path == path).count();
    let kinds = [Some(Path::Direct), Some(Path::Lan), Some(Path::Relay), None];
    let found: Vec<(usize, &str)> = kinds
        .into_iter()
        .map(|path| (count(path), path_words(path)))
        .filter(|(count, _)| *count > 0)
        .collect();
    match &found[..] {
        [] => "no traffic".to_owned(),
        [(1, words)] => (*words).to_owned(),
        many => many.iter().map(|(count, words)| format!("{count} {words}")).collect::<Vec<_>>().join(", "),
    }
}

/// A path, or what there is instead of one.
pub(crate) fn path_words(path: Option<Path>) -> &'static str {
    path.map_or("no path", Path::as_str)
}

/// The lower median.
fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    percentile(&values, 50)
}
