//! `punchbag worlds`.

use super::play::{load_all, playable};
use super::{FAILED, Failure, PASSED, default_jobs, print, progress};
use ::report::units;
use comfy_table::{Table, presets};
use punchbag::campaign::{self, worlds};
use punchbag::world::Seed;
use std::fmt::Write;
use std::path::PathBuf;

/// Play scenarios in the simulator and in the turmoil world, and compare.
///
/// Each is to end on the same paths, keep its expectations in both, and come to its first packet and its direct path within a few
/// milliseconds. Scenarios that need rates or loss are left out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  punchbag worlds                            everything that ships
  punchbag worlds scenarios/mission          a part of it
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
}

pub(super) fn main(args: &Args) -> Result<u8, Failure> {
    let scenarios = playable(load_all(&args.paths)?, &args.paths)?;
    let bar = progress(scenarios.len(), "in two worlds");
    let played = campaign::in_parallel(
        &scenarios,
        args.jobs,
        |(found, scenario)| {
            worlds::in_both(scenario, Seed(args.seed))
                .map_err(|error| format!("{}: {error}", found.path.display()))
        },
        |_, _| bar.inc(1),
    );
    bar.finish_and_clear();
    let rows = played.into_iter().collect::<Result<Vec<_>, String>>()?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
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
    for row in &rows {
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
    for row in &rows {
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
    print::out(&text)?;
    Ok(if differing == 0 { PASSED } else { FAILED })
}
