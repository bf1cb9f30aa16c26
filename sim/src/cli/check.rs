//! `punchbag check`.

use super::{Failure, PASSED, print};
use punchbag::scenario;
use punchbag::topology::Topology;
use std::path::PathBuf;

/// Validate scenario files and print their topology.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  punchbag check scenarios/mission/double-nat.toml             who is behind whom, with addresses
  punchbag check scenarios/mission/double-nat.toml --expanded  the scenario with every default written out")]
pub(super) struct Args {
    /// Scenario files, or folders that are searched for them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print the scenario with every default and preset written out, as a scenario file.
    #[arg(long)]
    expanded: bool,
    /// Print nothing but errors.
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn main(args: &Args) -> Result<u8, Failure> {
    for (found, scenario) in super::play::load_all(&args.paths)? {
        let topology =
            Topology::new(&scenario).map_err(|error| format!("{}: {error}", found.path.display()))?;
        if args.quiet {
            continue;
        }
        if args.expanded {
            print::out(&scenario::expanded(&scenario))?;
        } else {
            print::out(&format!("{}: {}\n{}", found.path.display(), scenario.title, topology.print()))?;
        }
    }
    Ok(PASSED)
}
