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

/// Where figures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// A path of the run itself.
    Path(Path),
    /// The relay, in a second run with every direct path cut.
    Cut,
}

impl Via {
    /// In the order of a page.
    pub(crate) const ALL: [Via; 4] =
        [Via::Path(Path::Relay), Via::Cut, Via::Path(Path::Direct), Via::Path(Path::Lan)];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Via::Path(path) => path.as_str(),
            Via::Cut => "relay †",
        }
    }

    /// What a second run says ends with this sign, beside the same of the run itself.
    pub(crate) fn sign(self) -> &'static str {
        if self == Via::Cut { " †" } else { "" }
    }
}

/// What "†" means.
pub(crate) const CUT: &str = "† A pair that goes direct leaves the relay after a few packets, too few to compare. What it meets \
    on the relay is measured by playing the same scenario and seed once more with every direct path cut.";

/// A pair's figures on a path; on the relay, those of the second run where there is one.
pub(crate) fn figures_of(pair: &PairSummary, path: Path) -> Option<(Via, &PathMetrics)> {
    match (path, &pair.relayed) {
        (Path::Relay, Some(cut)) => Some((Via::Cut, cut)),
        _ => Some((Via::Path(path), pair.paths.get(path).as_ref()?)),
    }
}

/// Does any pair have figures of a second run?
pub(crate) fn is_compared<'a>(scenarios: impl IntoIterator<Item = &'a ScenarioSummary>) -> bool {
    scenarios.into_iter().any(|scenario| scenario.pairs.iter().any(|pair| pair.relayed.is_some()))
}

/// A scenario's pairs as one.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Relay figures but for loss are those of pairs that have none of a second run: every pair counts once.
    paths: PerPath<PathFigures>,
    cut: PathFigures,
    /// Does any pair have no figures of a second run?
    mixed: bool,
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
    /// Median over the pairs of their medians.
    pub(crate) latency_ns: Option<u64>,
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
        let of = |via: Via| {
            let path = if let Via::Path(path) = via { path } else { Path::Relay };
            let found = pairs.iter().filter_map(|pair| figures_of(pair, path));
            let chosen: Vec<&PathMetrics> =
                found.filter(|found| found.0 == via).map(|found| found.1).collect();
            match via {
                Via::Cut => PathFigures::new(&chosen, &chosen),
                Via::Path(path) => {
                    let all = pairs.iter().filter_map(|pair| pair.paths.get(path).as_ref());
                    PathFigures::new(&chosen, &all.collect::<Vec<_>>())
                }
            }
        };
        let own = |path| of(Via::Path(path));
        Figures {
            paths: PerPath { relay: own(Path::Relay), direct: own(Path::Direct), lan: own(Path::Lan) },
            cut: of(Via::Cut),
            mixed: pairs.iter().any(|pair| pair.relayed.is_none()),
            first_data_ns: median(pairs.iter().filter_map(|pair| pair.first_data_ns)),
            direct_ns: median(pairs.iter().filter_map(|pair| pair.direct_ns)),
            longest_gap_ns: pairs.iter().map(|pair| pair.longest_gap_ns).max().unwrap_or(0),
            ended: ended(pairs),
        }
    }

    pub(crate) fn get(&self, via: Via) -> &PathFigures {
        match via {
            Via::Path(path) => self.paths.get(path),
            Via::Cut => &self.cut,
        }
    }

    /// Loss in millionths, and of how many packets. Relay losses of the run itself are those of all pairs, for a pair may fall
    /// back to the relay and lose there; the few packets before it was direct do not stand beside a second run.
    pub(crate) fn loss(&self, via: Via) -> Option<(u64, u64)> {
        let figures = self.get(via);
        let told = via == Via::Path(Path::Relay) && figures.lost == 0 && self.cut.sent > 0 && !self.mixed;
        Some((figures.loss_ppm.filter(|_| !told)?, figures.sent))
    }

    pub(crate) fn any(&self, holds: impl Fn(&PathFigures) -> bool) -> bool {
        Via::ALL.into_iter().any(|via| holds(self.get(via)))
    }

    /// Had its programs no pings that tell a round trip, only packets that nobody answers?
    pub(crate) fn is_one_way(&self) -> bool {
        self.any(|path| path.latency_ns.is_some()) && !self.any(|path| path.rtt_ns.is_some())
    }
}

impl PathFigures {
    /// Times and rates of `used`, losses of `all`.
    fn new(used: &[&PathMetrics], all: &[&PathMetrics]) -> PathFigures {
        let sent = all.iter().map(|path| path.sent).fold(0, u64::saturating_add);
        let lost = all.iter().map(|path| path.lost).fold(0, u64::saturating_add);
        PathFigures {
            rtt_ns: median(used.iter().filter_map(|path| path.rtt_p50_ns)),
            latency_ns: median(used.iter().filter_map(|path| path.latency_p50_ns)),
            loss_ppm: ratio_ppm(lost, sent),
            sent,
            lost,
            goodput_bps: median(used.iter().filter_map(|path| path.goodput_bps)),
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
