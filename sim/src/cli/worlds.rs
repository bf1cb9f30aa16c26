//! `punchbag worlds`.

use super::play::{load_all, playable};
use super::{FAILED, Failure, PASSED, Progress, default_jobs, print};
use ::report::units;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use punchbag::campaign;
use punchbag::campaign::worlds::{self, InBoth};
use punchbag::world::Seed;
use std::fmt::Write;
use std::path::PathBuf;

/// Play scenarios in the simulator and in the turmoil world, and compare.
///
/// Each is to end on the same paths, keep its expectations in both, and come to its first packet and its direct path within a few
/// milliseconds. Scenarios that need rates or loss are left out. Exit code 1 when a scenario differs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  punchbag worlds                            everything that ships
  punchbag worlds scenarios/mission          a part of it
  punchbag worlds --format markdown          for a page
  punchbag run --world turmoil my.toml       what the other world makes of one")]
pub(super) struct Args {
    /// Scenario files, or folders that are searched for them.
    #[arg(value_name = "PATH", default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Scenarios played at the same time.
    #[arg(long, value_name = "N", default_value_t = default_jobs())]
    jobs: usize,
    /// What is printed on standard output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// The same table in Markdown.
    Markdown,
    /// JSON: every pair with its paths and times in both worlds.
    Json,
}

pub(super) fn main(args: &Args) -> Result<u8, Failure> {
    let mut scenarios = playable(load_all(&args.paths)?, &args.paths)?;
    // The long ones first, so that no core waits for the last of them: turmoil's cost grows with the pairs of machines.
    scenarios.sort_by_cached_key(|(_, scenario)| {
        let machines = scenario.hosts.len() + scenario.routers.len() + scenario.relays.len();
        std::cmp::Reverse(scenario.until.as_millis() * (machines * machines) as u128)
    });
    let progress = Progress::new(scenarios.len(), "scenarios in two worlds");
    let played = campaign::in_parallel(
        &scenarios,
        args.jobs,
        |(found, scenario)| {
            worlds::in_both(scenario, Seed(args.seed))
                .map_err(|error| format!("{}: {error}", found.path.display()))
        },
        |(_, scenario), _| progress.done(&scenario.name),
    );
    drop(progress);
    let mut rows = played.into_iter().collect::<Result<Vec<_>, String>>()?;
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let differing = rows.iter().filter(|row| !row.differences().is_empty()).count();
    match args.format {
        Format::Json => print::out(&(serde_json::to_string_pretty(&rows)? + "\n"))?,
        format => print::out(&table(&rows, format))?,
    }
    Ok(if differing == 0 { PASSED } else { FAILED })
}

fn table(rows: &[InBoth], format: Format) -> String {
    let mut table = Table::new();
    table.load_style(if format == Format::Markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table.set_header([
        "scenario",
        "ends",
        "first data: sim",
        "turmoil",
        "direct after: sim",
        "turmoil",
        "apart",
        "",
    ]);
    for row in rows {
        let widest = row.pairs.iter().max_by_key(|pair| pair.apart());
        let time = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), units::short);
        let (first, direct, apart) = match widest {
            Some(pair) => (Some(pair.first_data_ns), Some(pair.direct_ns), pair.apart()),
            None => (None, None, 0),
        };
        let differs = !row.differences().is_empty();
        table.add_row([
            row.name.clone(),
            row.ends(),
            time(first.and_then(|times| times.sim)),
            time(first.and_then(|times| times.turmoil)),
            time(direct.and_then(|times| times.sim)),
            time(direct.and_then(|times| times.turmoil)),
            units::plural(apart, "tick"),
            if differs { "✗" } else { "✓" }.to_owned(),
        ]);
    }
    let mut text = format!("{table}\n");
    let mut differing = 0;
    for row in rows {
        let differences = row.differences();
        differing += usize::from(!differences.is_empty());
        for difference in differences {
            _ = writeln!(text, "{}: {difference}", row.name);
        }
    }
    _ = writeln!(
        text,
        "\nof pairs, the one whose times are furthest apart; at most {} ticks of {:?} may be",
        worlds::TICKS,
        punchbag::world::turmoil::TICK
    );
    _ = writeln!(text, "{} alike, {differing} not", rows.len() - differing);
    text
}
