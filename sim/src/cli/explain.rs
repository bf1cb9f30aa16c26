//! `punchbag explain`.

use super::{Failure, PASSED, print};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Tell the story of a run in plain sentences: what each peer learned about its NAT, what was tried, which packet was
/// dropped by which box and why, and why it ended direct or relayed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: punchbag run scenarios/mission/two-homes.toml && punchbag explain out/mission/two-homes"
)]
pub(super) struct Args {
    /// A run.jsonl, or the folder that it is in.
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

pub(super) fn main(args: &Args) -> Result<u8, Failure> {
    let (header, records) = read_log(&args.run)?;
    print::out(&::report::explain::explain(&header, &records))?;
    Ok(PASSED)
}

/// Reads a log, given as file or folder.
pub(super) fn read_log(path: &Path) -> Result<(trace::Header, Vec<trace::Record>), Failure> {
    let file = if path.is_dir() { path.join("run.jsonl") } else { path.to_owned() };
    let read = || -> Result<_, trace::LogError> { trace::read(BufReader::new(File::open(&file)?)) };
    read().map_err(|error| format!("{}: {error}", file.display()).into())
}
