//! The report as one HTML page: no scripts, nothing fetched, light and dark.

use crate::markdown::PAIRS_SHOWN;
use crate::matrix::{Cell, Matrix};
use crate::metrics::PathMetrics;
use crate::plot::{self, Axis, Mark};
use crate::report::{CUT, Figures, PathFigures, Report, Via, figures_of, is_compared, path_words};
use crate::summary::ScenarioSummary;
use crate::units;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use trace::Path;

const STYLE: &str = include_str!("style.css");

const PATHS: [Path; 3] = [Path::Relay, Path::Direct, Path::Lan];

impl Report {
    /// The report as one self-contained HTML page.
    pub fn html(&self) -> String {
        let scenarios: Vec<(&ScenarioSummary, Figures)> =
            self.summary.scenarios.iter().map(|scenario| (scenario, Figures::new(scenario))).collect();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    title { "Punchbag report" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    (plot::hatch())
                    main {
                        (self.top())
                        (overview(&scenarios))
                        @if is_compared(&self.summary.scenarios) { p."small dim" { (CUT) } }
                        (round_trips(&scenarios))
                        (latencies(&scenarios))
                        (times(&scenarios))
                        (goodput(&scenarios))
                        (loss(&scenarios))
                        @if let Some(matrix) = &self.matrix { (heat_map(matrix)) }
                        h2 { "Scenarios" }
                        (timeline_legend())
                        @for (scenario, figures) in &scenarios { (self.card(scenario, figures)) }
                        footer {
                            "Every number on this page can be computed again from the logs of the runs, and every log can be made "
                            "again, byte for byte, by the command beside it."
                            @if is_compared(&self.summary.scenarios) {
                                " The runs behind figures with † leave no log; the command plays them again as well."
                            }
                        }
                    }
                }
            }
        };
        page.into_string()
    }

    fn top(&self) -> Markup {
        let totals = self.totals();
        let tile = |number: String, words: &str, class: &str| {
            html! { div.tile { b class=[(!class.is_empty()).then_some(class)] { (number) } span { (words) } } }
        };
        let all = totals.passed + totals.failed;
        html! {
            h1 { "Punchbag report" }
            p.dim { "Direct against relayed, over simulated networks. Version " (self.summary.version) ", seed " (self.summary.seed) "." }
            div.tiles {
                (tile(format!("{} of {all}", totals.passed), "scenarios passed", if totals.failed == 0 { "pass" } else { "" }))
                (tile(totals.failed.to_string(), "failed", if totals.failed > 0 { "fail" } else { "" }))
                (tile((totals.ended.direct + totals.ended.lan).to_string(), "pairs ended direct or in a LAN", ""))
                (tile(totals.ended.relay.to_string(), "pairs ended relayed", ""))
                @if totals.unconnected > 0 { (tile(totals.unconnected.to_string(), "pairs without a path", "")) }
                @if totals.violations > 0 { (tile(totals.violations.to_string(), "invariant violations", "fail")) }
                (tile(units::count(totals.packets), "packets sent", ""))
                (tile(units::short(totals.virtual_ns), "of virtual time", ""))
            }
        }
    }

    fn card(&self, scenario: &ScenarioSummary, figures: &Figures) -> Markup {
        html! {
            section.card id=(anchor(&scenario.name)) {
                header {
                    h3 { (scenario.title) }
                    span."dim small" { (scenario.name) }
                    (badge(scenario.passed))
                }
                code.cmd { (scenario.command) }
                ul.checks {
                    @for expectation in &scenario.expectations {
                        li {
                            @if expectation.passed { b.pass { "✓" } } @else { b.fail { "✗" } }
                            (expectation.words) span.dim { " — " (expectation.seen) }
                        }
                    }
                    @for violation in &scenario.violations { li { b.fail { "✗" } "violated: " (violation) } }
                }
                (self.timeline(scenario))
                (pair_table(scenario, figures))
                (self.drops(scenario))
            }
        }
    }

    fn timeline(&self, scenario: &ScenarioSummary) -> Markup {
        let Some((metrics, timeline)) = self.runs.get(&scenario.name) else { return html! {} };
        let axis = Axis::time(timeline.end_ns);
        let actions = &timeline.actions;
        let lanes: Vec<_> = scenario.pairs.iter().take(PAIRS_SHOWN).collect();
        if lanes.is_empty() {
            return html! {};
        }
        html! {
            div {
                @if !actions.is_empty() {
                    div."row two axis" { div.name {} (plot::action_numbers(&axis, actions)) }
                }
                @for pair in &lanes {
                    @let spans = timeline.spans(&pair.a, &pair.b);
                    @let gaps = metrics.pair(&pair.a, &pair.b).map_or(&[][..], |pair| &pair.gaps);
                    @let words = format!("path between {} and {} over time", pair.a, pair.b);
                    div."row two lane" {
                        div."name small" { (pair.a) " – " (pair.b) }
                        (plot::strip(&axis, &spans, gaps, actions, &words))
                    }
                }
                div."row two axis" { div.name {} (plot::scale(&axis, units::short)) }
            }
            @if !actions.is_empty() {
                ol.acts { @for action in actions { li { (units::moment(action.at_ns)) ": " (action.what) } } }
            }
        }
    }

    fn drops(&self, scenario: &ScenarioSummary) -> Markup {
        let Some((metrics, _)) = self.runs.get(&scenario.name) else { return html! {} };
        let boxes: Vec<String> = metrics
            .boxes
            .iter()
            .filter(|found| !found.dropped.is_empty())
            .take(PAIRS_SHOWN)
            .map(|found| {
                let reasons: Vec<String> = found
                    .dropped
                    .iter()
                    .map(|(reason, count)| format!("{} {reason}", units::count(*count)))
                    .collect();
                format!("{}: {}", found.name, reasons.join(", "))
            })
            .collect();
        html! { @if !boxes.is_empty() { p."small dim" { "Dropped: " (boxes.join("; ")) "." } } }
    }
}

type Scenarios<'a, 'b> = &'a [(&'b ScenarioSummary, Figures)];

fn overview(scenarios: Scenarios<'_, '_>) -> Markup {
    html! {
        h2 { "Results" }
        div."card scroll" {
            table {
                thead { tr {
                    th { "Scenario" } th.left { "Result" } th.left { "Ended" } th { "First data" } th { "Direct after" } th { "Longest silence" } th { "Packets" }
                } }
                tbody {
                    @for (scenario, figures) in scenarios {
                        tr {
                            td { a href=(format!("#{}", anchor(&scenario.name))) { (scenario.title) } }
                            td.left { (result(scenario.passed)) }
                            td.left { (ended(scenario, figures)) }
                            td { (duration(figures.first_data_ns)) }
                            td { (duration(figures.direct_ns)) }
                            td { (duration((figures.longest_gap_ns > 0).then_some(figures.longest_gap_ns))) }
                            td { (units::count(scenario.packets)) }
                        }
                    }
                }
            }
        }
    }
}

/// The path on which a scenario's pairs ended, with the colour of that path if they agree.
fn ended(scenario: &ScenarioSummary, figures: &Figures) -> Markup {
    let first = scenario.pairs.first().map(|pair| pair.path);
    let same = first.filter(|first| scenario.pairs.iter().all(|pair| pair.path == *first));
    html! {
        span.chip {
            @if let Some(path) = same { span class=(format!("key k-{}", path.map_or("none", Path::as_str))) {} }
            (figures.ended)
        }
    }
}

fn round_trips(scenarios: Scenarios<'_, '_>) -> Markup {
    let note = "Median of the pings inside the tunnel that went out and came back on one path; median over the pairs of a scenario. The scale is logarithmic.";
    let words = ("Round trip, direct against relayed", note);
    path_plot(scenarios, words, |figures, via| figures.get(via).rtt_ns, DOTS, units::duration)
}

fn latencies(scenarios: Scenarios<'_, '_>) -> Markup {
    let note = "Of the scenarios without pings, such as calls: median of the packets received by one path; median over the pairs. The scale is logarithmic.";
    let words = ("One-way latency, direct against relayed", note);
    let of = |figures: &Figures, via| figures.get(via).latency_ns.filter(|_| figures.is_one_way());
    path_plot(scenarios, words, of, DOTS, units::duration)
}

fn times(scenarios: Scenarios<'_, '_>) -> Markup {
    let rows: Vec<_> = scenarios
        .iter()
        .map(|(scenario, figures)| {
            let first = figures.first_data_ns.map(|ns| (Mark::FirstData, ns));
            let direct = figures.direct_ns.map(|ns| (Mark::Via(Via::Path(Path::Direct)), ns));
            (*scenario, first.into_iter().chain(direct).collect::<Vec<_>>())
        })
        .filter(|row| !row.1.is_empty())
        .collect();
    let all = || rows.iter().flat_map(|row| &row.1).map(|mark| mark.1).filter(|ns| *ns > 0);
    let axis = Axis::log(all().min().unwrap_or(1_000_000).max(1_000_000), all().max().unwrap_or(0));
    html! {
        @if !rows.is_empty() {
            h2 { "Time to first data and to direct" }
            p.dim { "From a pair's first packet into the tunnel. The scale is logarithmic; what was there before the first packet stands at its left end." }
            ul.legend {
                li { (plot::key(Mark::FirstData)) "first data received" }
                li { (plot::key(Mark::Via(Via::Path(Path::Direct)))) "both sides send directly" }
            }
            div."card rows" {
                @for (scenario, marks) in &rows {
                    div.row {
                        (name(scenario))
                        (plot::dots(&axis, marks, &format!("times of {}", scenario.title)))
                        (values(marks, units::duration))
                    }
                }
                div."row axis" { div.name {} (plot::scale(&axis, units::short)) div.val {} }
            }
        }
    }
}

fn goodput(scenarios: Scenarios<'_, '_>) -> Markup {
    let note =
        "Bytes of bulk transfers that the reading program got, over the time in which they came by one path.";
    let words = ("Goodput, direct against relayed", note);
    path_plot(scenarios, words, |figures, via| figures.get(via).goodput_bps, BARS, units::rate)
}

const LOSSY: fn(&PathFigures) -> bool = |path| path.lost > 0;

fn loss(scenarios: Scenarios<'_, '_>) -> Markup {
    let lossy: Vec<usize> =
        scenarios.iter().enumerate().filter(|(_, (_, figures))| figures.any(LOSSY)).map(|(n, _)| n).collect();
    let silent =
        scenarios.iter().filter(|(_, figures)| figures.any(|path| path.sent > 0)).count() - lossy.len();
    let note = format!(
        "Share of the ping and voice packets sent on a path that never arrived; a pair that falls back to the relay may lose there. {} lost nothing and {} not shown.",
        units::plural(silent as u64, "scenario"),
        if silent == 1 { "is" } else { "are" }
    );
    let of =
        |figures: &Figures, via: Via| figures.loss(via).filter(|_| figures.any(LOSSY)).map(|loss| loss.0);
    path_plot(scenarios, ("Loss, direct against relayed", &note), of, BARS, units::percent)
}

/// The axis from the smallest value to the largest, and how a row is drawn.
type Look = (fn(u64, u64) -> Axis, fn(&Axis, &[(Mark, u64)], &str) -> Markup);

/// Times from a LAN's to a satellite's.
const DOTS: Look = (Axis::log, plot::dots);
const BARS: Look = (|_, max| Axis::linear(max), plot::bars);

/// One row per scenario that has a value for any path.
fn path_plot(
    scenarios: Scenarios<'_, '_>,
    (title, note): (&str, &str),
    value: impl Fn(&Figures, Via) -> Option<u64>,
    (axis, draw): Look,
    words: fn(u64) -> String,
) -> Markup {
    let rows: Vec<(&ScenarioSummary, Vec<(Mark, u64)>)> = scenarios
        .iter()
        .map(|(scenario, figures)| {
            let found = Via::ALL.into_iter().filter_map(|via| Some((Mark::Via(via), value(figures, via)?)));
            (*scenario, found.collect())
        })
        .filter(|(_, marks): &(_, Vec<_>)| !marks.is_empty())
        .collect();
    let all = || rows.iter().flat_map(|(_, marks)| marks);
    let numbers = || all().map(|mark| mark.1);
    let axis = axis(numbers().min().unwrap_or(0), numbers().max().unwrap_or(0));
    html! {
        @if !rows.is_empty() {
            h2 { (title) }
            p.dim { (note) }
            ul.legend {
                @for via in Via::ALL.into_iter().filter(|via| all().any(|mark| mark.0 == Mark::Via(*via))) {
                    li { (plot::key(Mark::Via(via))) (via.words()) @if via == Via::Cut { ", direct paths cut" } }
                }
            }
            div."card rows" {
                @for (scenario, marks) in &rows {
                    div.row {
                        (name(scenario))
                        (draw(&axis, marks, &format!("{title} of {}", scenario.title)))
                        (values(marks, words))
                    }
                }
                div."row axis" { div.name {} (plot::scale(&axis, words)) div.val {} }
            }
        }
    }
}

fn heat_map(matrix: &Matrix) -> Markup {
    // Letters stand for the columns: names would not fit.
    let letter = |n: usize| match u8::try_from(n) {
        Ok(n @ 0..26) => char::from(b'A' + n).to_string(),
        _ => n.to_string(),
    };
    let surprises = matrix.cells.iter().filter(|cell| cell.is_surprise()).count();
    html! {
        h2 { "Every NAT type against every other" }
        p.dim {
            "How the pair ended, and for a direct path the time to it from the first packet. "
            @match surprises {
                0 => "Every pair ended as the oracle says.",
                n => { (units::plural(n as u64, "pair")) " ended otherwise than the oracle says (framed, with an exclamation mark)." },
            }
        }
        div.card {
            code.cmd { (matrix.command) }
            div.scroll {
                // Eleven columns of full width would not fit the page.
                table class=(if matrix.rows.len() > 10 { "heat dense" } else { "heat" }) {
                    thead { tr {
                        th {}
                        @for n in 0..matrix.rows.len() { th.col { (letter(n)) } }
                    } }
                    tbody {
                        @for (n, row) in matrix.rows.iter().enumerate() {
                            tr {
                                th.rowname { i { (letter(n)) } (row) }
                                @for column in &matrix.rows { (heat_cell(row, column, matrix.cell(row, column))) }
                            }
                        }
                    }
                }
            }
            ul.legend {
                @for (class, words) in HEAT { li { span class=(format!("key {class}")) {} (words) } }
            }
        }
    }
}

/// Classes of the heat map and what they mean; a cell's number says the rest.
const HEAT: [(&str, &str); 8] = [
    ("c1", "direct within 100 ms"),
    ("c2", "250 ms"),
    ("c3", "500 ms"),
    ("c4", "2 s"),
    ("c5", "later"),
    ("cl", "LAN"),
    ("cr", "relayed"),
    ("cf", "no data"),
];

fn heat_cell(row: &str, column: &str, cell: Option<&Cell>) -> Markup {
    let Some(cell) = cell else { return html! { td."c c0" { "·" } } };
    let class = match (cell.path, cell.direct_ns) {
        (None, _) => "cf",
        (Some(Path::Relay), _) => "cr",
        (Some(Path::Lan), _) => "cl",
        (Some(Path::Direct), None | Some(0..=100_000_000)) => "c1",
        (Some(Path::Direct), Some(..=250_000_000)) => "c2",
        (Some(Path::Direct), Some(..=500_000_000)) => "c3",
        (Some(Path::Direct), Some(..=2_000_000_000)) => "c4",
        (Some(Path::Direct), Some(_)) => "c5",
    };
    let words = match (cell.path, cell.direct_ns) {
        (None, _) => "failed".to_owned(),
        (Some(Path::Direct | Path::Lan), Some(ns)) => units::short(ns),
        (Some(path), _) => path.as_str().to_owned(),
    };
    let mut title = format!("{row} against {column}: {}", path_words(cell.path));
    if cell.is_surprise() {
        title += &format!(", expected {}", path_words(cell.expected));
    }
    let odd = if cell.is_surprise() { " odd" } else { "" };
    html! { td class=(format!("c {class}{odd}")) title=(title) { (words) @if cell.is_surprise() { " !" } } }
}

/// A figure of a path, in words.
type Words = fn(&PathMetrics) -> Option<String>;

const FIGURES: [(&str, Words); 3] = [
    ("RTT", |path| path.rtt_p50_ns.map(units::duration)),
    ("Goodput", |path| path.goodput_bps.map(units::rate)),
    ("Loss", |path| path.loss_ppm.map(units::percent)),
];

const LATENCY: (&str, Words) = ("Latency", |path| path.latency_p50_ns.map(units::duration));

/// The figures of paths that tell something about a scenario: those that any of its pairs has.
fn columns(scenario: &ScenarioSummary, one_way: bool) -> Vec<(&'static str, Words, Path)> {
    let has = |words: Words, path| {
        scenario.pairs.iter().filter_map(|pair| figures_of(pair, path)).any(|found| words(found.1).is_some())
    };
    let each = |(name, words): (&'static str, Words)| PATHS.map(|path| (name, words, path));
    one_way
        .then_some(LATENCY)
        .into_iter()
        .chain(FIGURES)
        .flat_map(each)
        .filter(|(_, words, path)| has(*words, *path))
        .collect()
}

fn pair_table(scenario: &ScenarioSummary, figures: &Figures) -> Markup {
    let columns = columns(scenario, figures.is_one_way());
    html! {
        @if !scenario.pairs.is_empty() {
            div.scroll {
                table {
                    thead { tr {
                        th { "Pair" } th.left { "Ended" } th { "First data" } th { "Direct after" }
                        @for (name, _, path) in &columns { th { (name) " " (path.as_str()) } }
                        th { "Loss of all" } th { "Silence" } th { "Flows done" }
                    } }
                    tbody {
                        @for pair in scenario.pairs.iter().take(PAIRS_SHOWN) {
                            tr {
                                td { (pair.a) " – " (pair.b) }
                                td.left { span.chip { span class=(format!("key k-{}", pair.path.map_or("none", Path::as_str))) {} (path_words(pair.path)) } }
                                td { (duration(pair.first_data_ns)) }
                                td { (duration(pair.direct_ns)) }
                                @for (_, words, path) in &columns {
                                    @let found = figures_of(pair, *path).and_then(|(via, figures)| Some(words(figures)? + via.sign()));
                                    td { (found.unwrap_or("–".to_owned())) }
                                }
                                td { (pair.loss_ppm.map_or("–".to_owned(), units::percent)) }
                                td { (duration((pair.longest_gap_ns > 0).then_some(pair.longest_gap_ns))) }
                                td { (pair.flows_complete) " of " (pair.flows) }
                            }
                        }
                    }
                }
            }
            @if scenario.pairs.len() > PAIRS_SHOWN {
                p."small dim" { "… and " (scenario.pairs.len() - PAIRS_SHOWN) " more pairs, counted in the tables above." }
            }
        }
    }
}

fn timeline_legend() -> Markup {
    html! {
        ul.legend {
            @for path in PATHS { li { span class=(format!("key k-{}", path.as_str())) {} (path.as_str()) } }
            li { span."key k-none" {} "no path" }
            li { (plot::silence_key()) "silence: packets were due and none came" }
            li { span."key k-act" {} "action of the scenario" }
        }
    }
}

fn name(scenario: &ScenarioSummary) -> Markup {
    html! {
        div.name {
            a href=(format!("#{}", anchor(&scenario.name))) { (scenario.title) }
            code.cmd { (scenario.command) }
        }
    }
}

fn values(marks: &[(Mark, u64)], words: impl Fn(u64) -> String) -> Markup {
    let label = |mark: Mark| match mark {
        Mark::Via(via) => via.words(),
        Mark::FirstData => "first data",
    };
    html! { div.val { @for (mark, value) in marks { div { span.dim { (label(*mark)) " " } (words(*value)) } } } }
}

fn badge(passed: bool) -> Markup {
    html! { span class=(if passed { "badge pass" } else { "badge fail" }) { (if passed { "✓ passed" } else { "✗ failed" }) } }
}

fn result(passed: bool) -> Markup {
    html! { span class=(if passed { "pass" } else { "fail" }) { (if passed { "✓ passed" } else { "✗ failed" }) } }
}

fn duration(ns: Option<u64>) -> String {
    ns.map_or("–".to_owned(), units::duration)
}

/// An identifier that a link can name.
fn anchor(name: &str) -> String {
    let letters = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
    format!("s-{}", letters.collect::<String>())
}
