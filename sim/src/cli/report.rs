//! `punchbag report`, and the pages that every run writes.

use super::{Failure, PASSED, print};
use ::report::{Matrix, Metrics, PathTimeline, Report, ScenarioSummary, Summary};
use punchbag::campaign::Run;
use std::fs;
use std::path::{Path, PathBuf};

/// Write a report of runs: Markdown and one self-contained HTML page.
///
/// Everything in it is computed from the summary and the logs that `punchbag run` left, and from nothing else: the same runs
/// give the same bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  punchbag run scenarios/ --out out
  punchbag matrix --out out/matrix.json
  punchbag report out --matrix out/matrix.json --out reports --name shipped")]
pub(super) struct Args {
    /// Folder that `punchbag run --out` wrote.
    #[arg(value_name = "DIR")]
    runs: PathBuf,
    /// A grid that `punchbag matrix --out` wrote, to be shown as a heat map.
    #[arg(long, value_name = "FILE")]
    matrix: Option<PathBuf>,
    /// Where the pages go. Default: the folder of the runs.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Name of the pages: NAME.md and NAME.html.
    #[arg(long, default_value = "report")]
    name: String,
}

/// What the pages need of one run.
pub(super) struct ScenarioReport {
    pub(super) summary: ScenarioSummary,
    metrics: Metrics,
    timeline: PathTimeline,
}

impl ScenarioReport {
    pub(super) fn of(run: &Run) -> ScenarioReport {
        ScenarioReport {
            summary: run.summary.clone(),
            metrics: run.metrics.clone(),
            timeline: PathTimeline::fold(&run.records),
        }
    }
}

pub(super) fn main(args: &Args) -> Result<u8, Failure> {
    let summary: Summary = read_json(&args.runs.join("summary.json"))?;
    if summary.format != ::report::summary::FORMAT {
        let (found, known) = (summary.format, ::report::summary::FORMAT);
        return Err(
            format!("{}: summary format {found}, this program reads {known}", args.runs.display()).into()
        );
    }
    let mut rows = Vec::new();
    for scenario in &summary.scenarios {
        let (_, records) = super::explain::read_log(&args.runs.join(&scenario.name))?;
        rows.push(ScenarioReport {
            summary: scenario.clone(),
            metrics: Metrics::fold(&records),
            timeline: PathTimeline::fold(&records),
        });
    }
    let matrix: Option<Matrix> = args.matrix.as_deref().map(read_json).transpose()?;
    let out = args.out.as_ref().unwrap_or(&args.runs);
    write(out, &args.name, &summary, rows, matrix)?;
    for ending in ["md", "html"] {
        print::out(&out.join(format!("{}.{ending}", args.name)).display().to_string())?;
    }
    Ok(PASSED)
}

/// Writes NAME.md and NAME.html into a folder.
pub(super) fn write(
    folder: &Path,
    name: &str,
    summary: &Summary,
    rows: Vec<ScenarioReport>,
    matrix: Option<Matrix>,
) -> Result<(), Failure> {
    let logs = rows.into_iter().map(|row| (row.summary.name, row.metrics, row.timeline));
    let mut report = Report::build(summary, logs);
    if let Some(matrix) = matrix {
        report = report.with_matrix(matrix);
    }
    super::play::write(&folder.join(format!("{name}.md")), report.markdown().as_bytes())?;
    super::play::write(&folder.join(format!("{name}.html")), report.html().as_bytes())
}

fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, Failure> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", file.display()).into())
}
