//! The report as Markdown.

use crate::matrix::{Cell, Matrix};
use crate::report::{CUT, Figures, Report, Via, figures_of, is_compared, path_words};
use crate::summary::{PairSummary, ScenarioSummary};
use crate::timeline::PathTimeline;
use crate::units;
use trace::Path;

/// Most pairs of one scenario that get a row.
pub(crate) const PAIRS_SHOWN: usize = 12;

impl Report {
    /// The report as Markdown: GitHub's tables, one chapter per scenario, each with the command that makes it again.
    pub fn markdown(&self) -> String {
        let totals = self.totals();
        let mut out = Lines::default();
        out.push("# Punchbag report");
        out.push(&format!(
            "{} of {} passed, {} failed, {}. Version {}, seed {}. {} packets in {} of virtual time.",
            totals.passed,
            units::plural(totals.passed + totals.failed, "scenario"),
            totals.failed,
            units::plural(totals.violations, "invariant violation"),
            escape(&self.summary.version),
            self.summary.seed,
            units::count(totals.packets),
            units::moment(totals.virtual_ns),
        ));
        out.push("## Direct against relayed");
        out.push("Medians over the pairs of a scenario. Round trips are those of pings inside the tunnel.");
        if is_compared(&self.summary.scenarios) {
            out.push(CUT);
        }
        out.table(
            &[
                "scenario",
                "result",
                "ended",
                "first data",
                "direct after",
                "RTT relay",
                "RTT direct",
                "RTT lan",
                "silence",
            ],
            self.summary.scenarios.iter().map(|scenario| {
                let figures = Figures::new(scenario);
                let rtt = |path| cell(path, |via| figures.get(via).rtt_ns.map(units::duration));
                vec![
                    link(scenario),
                    result(scenario.passed).to_owned(),
                    figures.ended.clone(),
                    duration(figures.first_data_ns),
                    duration(figures.direct_ns),
                    rtt(Path::Relay),
                    rtt(Path::Direct),
                    rtt(Path::Lan),
                    if figures.longest_gap_ns == 0 {
                        "–".into()
                    } else {
                        units::duration(figures.longest_gap_ns)
                    },
                ]
            }),
        );
        out.push("## Loss and goodput");
        out.table(
            &[
                "scenario",
                "loss relay",
                "loss direct",
                "loss lan",
                "goodput relay",
                "goodput direct",
                "goodput lan",
            ],
            self.summary.scenarios.iter().map(|scenario| {
                let figures = Figures::new(scenario);
                let loss = |via| {
                    let (ppm, sent) = figures.loss(via)?;
                    Some(format!("{} of {sent}", units::percent(ppm)))
                };
                let goodput = |via| figures.get(via).goodput_bps.map(units::rate);
                let mut row = vec![link(scenario)];
                row.extend(PATHS.map(|path| cell(path, loss)));
                row.extend(PATHS.map(|path| cell(path, goodput)));
                row
            }),
        );
        let one_way: Vec<_> = self
            .summary
            .scenarios
            .iter()
            .map(|scenario| (scenario, Figures::new(scenario)))
            .filter(|(_, figures)| figures.is_one_way())
            .collect();
        if !one_way.is_empty() {
            out.push("## One-way latency");
            out.push(
                "Of scenarios without pings, such as calls: from a program to the other, inside the tunnel.",
            );
            out.table(
                &["scenario", "relay", "direct", "lan"],
                one_way.iter().map(|(scenario, figures)| {
                    let mut row = vec![link(scenario)];
                    let latency = |via| figures.get(via).latency_ns.map(units::duration);
                    row.extend(PATHS.map(|path| cell(path, latency)));
                    row
                }),
            );
        }
        if let Some(matrix) = &self.matrix {
            matrix_chapter(&mut out, matrix);
        }
        out.push("## Scenarios");
        for scenario in &self.summary.scenarios {
            self.scenario_chapter(&mut out, scenario);
        }
        out.0
    }

    fn scenario_chapter(&self, out: &mut Lines, scenario: &ScenarioSummary) {
        out.push(&format!("### {}", escape(&scenario.name)));
        out.push(&format!("{}: **{}**.", escape(&scenario.title), result(scenario.passed)));
        out.push(&format!("```sh\n{}\n```", scenario.command.replace('`', "'")));
        let mut items: Vec<String> = Vec::new();
        for expectation in &scenario.expectations {
            let mark = if expectation.passed { "x" } else { " " };
            items.push(format!("- [{mark}] {}: {}", escape(&expectation.words), escape(&expectation.seen)));
        }
        for violation in &scenario.violations {
            items.push(format!("- **violated** {}", escape(violation)));
        }
        if !items.is_empty() {
            out.push(&items.join("\n"));
        }
        let header = [
            "pair",
            "ended",
            "first data",
            "direct after",
            "RTT relay",
            "RTT direct",
            "loss",
            "silence",
            "flows complete",
        ];
        out.table(&header, scenario.pairs.iter().take(PAIRS_SHOWN).map(pair_row));
        if scenario.pairs.len() > PAIRS_SHOWN {
            out.push(&format!("… and {} more pairs.", scenario.pairs.len() - PAIRS_SHOWN));
        }
        if let Some((_, timeline)) = self.runs.get(&scenario.name) {
            timeline_list(out, scenario, timeline);
        }
    }
}

const PATHS: [Path; 3] = [Path::Relay, Path::Direct, Path::Lan];

/// What a scenario's pairs met on a path; on the relay, in the run itself and in a second one.
fn cell(path: Path, words: impl Fn(Via) -> Option<String>) -> String {
    let vias: &[Via] =
        if path == Path::Relay { &[Via::Path(Path::Relay), Via::Cut] } else { &[Via::Path(path)] };
    let found: Vec<String> = vias.iter().filter_map(|via| Some(words(*via)? + via.sign())).collect();
    if found.is_empty() { "–".into() } else { found.join(", ") }
}

fn pair_row(pair: &PairSummary) -> Vec<String> {
    let rtt = |path: Path| {
        let found = figures_of(pair, path).and_then(|(via, figures)| Some((via, figures.rtt_p50_ns?)));
        found.map_or("–".into(), |(via, ns)| units::duration(ns) + via.sign())
    };
    vec![
        escape(&format!("{} – {}", pair.a, pair.b)),
        path_words(pair.path).to_owned(),
        duration(pair.first_data_ns),
        duration(pair.direct_ns),
        rtt(Path::Relay),
        rtt(if pair.path == Some(Path::Lan) { Path::Lan } else { Path::Direct }),
        pair.loss_ppm.map_or("–".into(), units::percent),
        if pair.longest_gap_ns == 0 { "–".into() } else { units::duration(pair.longest_gap_ns) },
        format!("{} of {}", pair.flows_complete, pair.flows),
    ]
}

fn timeline_list(out: &mut Lines, scenario: &ScenarioSummary, timeline: &PathTimeline) {
    let mut items: Vec<String> = timeline
        .actions
        .iter()
        .map(|action| format!("- at {}: {}", units::moment(action.at_ns), escape(&action.what)))
        .collect();
    for pair in scenario.pairs.iter().take(PAIRS_SHOWN) {
        let spans: Vec<String> = timeline
            .spans(&pair.a, &pair.b)
            .iter()
            .map(|span| format!("{} from {}", path_words(span.path), units::moment(span.from_ns)))
            .collect();
        if !spans.is_empty() {
            items.push(format!("- {} – {}: {}", escape(&pair.a), escape(&pair.b), spans.join(", ")));
        }
    }
    if !items.is_empty() {
        out.push(&items.join("\n"));
    }
}

fn matrix_chapter(out: &mut Lines, matrix: &Matrix) {
    out.push("## Every NAT type against every other");
    out.push(
        "The path at the end, and the time to it from the first packet. **!** = not what the oracle says.",
    );
    out.push(&format!("```sh\n{}\n```", matrix.command.replace('`', "'")));
    let mut header = vec![""];
    header.extend(matrix.rows.iter().map(String::as_str));
    out.table(
        &header,
        matrix.rows.iter().map(|row| {
            let mut cells = vec![format!("**{}**", escape(row))];
            cells.extend(
                matrix.rows.iter().map(|column| matrix.cell(row, column).map_or("–".to_owned(), Cell::words)),
            );
            cells
        }),
    );
}

fn result(passed: bool) -> &'static str {
    if passed { "passed" } else { "failed" }
}

fn duration(ns: Option<u64>) -> String {
    ns.map_or("–".to_owned(), units::duration)
}

/// A link to the chapter of a scenario, by the anchor that GitHub gives its heading.
fn link(scenario: &ScenarioSummary) -> String {
    let kept = scenario.name.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    let anchor: String =
        kept.map(|letter| if letter == ' ' { '-' } else { letter.to_ascii_lowercase() }).collect();
    format!("[{}](#{anchor})", escape(&scenario.name))
}

/// Keeps a text from the outside inside its cell.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '\\' | '#' => escaped.extend(['\\', letter]),
            '\n' | '\r' => escaped.push(' '),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// Blocks with an empty line between them.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn push(&mut self, block: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0 += block;
        self.0.push('\n');
    }

    fn table(&mut self, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let header: Vec<String> = header.iter().map(|cell| escape(cell)).collect();
        let rule: Vec<String> = header
            .iter()
            .enumerate()
            .map(|(n, _)| if n == 0 { "---".into() } else { "---:".into() })
            .collect();
        let mut lines = vec![line(&header), line(&rule)];
        lines.extend(rows.map(|cells| line(&cells)));
        if lines.len() > 2 {
            self.push(&lines.join("\n"));
        }
    }
}
