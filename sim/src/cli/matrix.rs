//! `punchbag matrix`.

use super::{FAILED, Failure, PASSED, default_jobs, print, progress};
use clap::ValueEnum;
use punchbag::campaign::matrix::{Row, matrix};
use punchbag::world::Seed;
use std::path::PathBuf;

/// Play every NAT type against every other and print the grid: the path a pair ends on, and how long it took to be direct.
///
/// Exit code 1 when a pair ends otherwise than the route oracle says; such cells carry a "!".
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: punchbag matrix --nats full-cone,symmetric,linux,udp-blocked")]
pub(super) struct Args {
    /// NAT and firewall presets to play. Default: every preset (see `punchbag presets`).
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    nats: Vec<String>,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pairs played at the same time.
    #[arg(long, value_name = "N", default_value_t = default_jobs())]
    jobs: usize,
    /// What is printed on standard output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Also write the grid as JSON to this file, for `punchbag report --matrix`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A grid for people.
    Table,
    /// JSON.
    Json,
}

pub(super) fn main(args: &Args) -> Result<u8, Failure> {
    let nats = nat::presets::NATS.iter().map(|p| p.name);
    let known: Vec<&str> = nats.chain(nat::presets::FIREWALLS.iter().map(|p| p.name)).collect();
    let names: Vec<&str> = if args.nats.is_empty() {
        known.iter().copied().filter(|name| *name != "open").collect()
    } else {
        args.nats.iter().map(String::as_str).collect()
    };
    let row = |name: &&str| {
        let unknown = || format!("`{name}` is no NAT or firewall preset; there are: {}", known.join(", "));
        Row::preset(name).ok_or_else(unknown)
    };
    let rows: Vec<Row> = names.iter().map(row).collect::<Result<_, _>>()?;
    let bar = progress(rows.len() * (rows.len() + 1) / 2, "pairs");
    let mut matrix = matrix(&rows, Seed(args.seed), args.jobs, || bar.inc(1))?;
    bar.finish_and_clear();
    if args.nats.is_empty() {
        matrix.command = format!("punchbag matrix --seed {}", args.seed);
    }
    let json = serde_json::to_string_pretty(&matrix)? + "\n";
    if let Some(file) = &args.out {
        super::play::write(file, json.as_bytes())?;
    }
    let surprises = matrix.cells.iter().filter(|cell| cell.is_surprise()).count();
    match args.format {
        Format::Table => print::out(&matrix.grid())?,
        Format::Json => print::out(&json)?,
    }
    Ok(if surprises == 0 { PASSED } else { FAILED })
}
