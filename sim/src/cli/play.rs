//! `punchbag run`.

use super::{FAILED, Failure, PASSED, Progress, VIOLATED, default_jobs, print, table};
use ::report::Summary;
use clap::ValueEnum;
use punchbag::campaign::{self, Found, Run, Which};
use punchbag::scenario::Scenario;
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, turmoil};
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Where results go when the user does not say.
const DEFAULT_OUT: &str = "out";

/// Play scenario files and check what they expect.
///
/// Writes DIR/summary.json, DIR/report.md and DIR/report.html, and for each scenario a folder with its run.jsonl (every
/// event) and, with --pcap, a pcapng file per interface.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  punchbag run scenarios/                              play everything that ships
  punchbag run scenarios/mission/two-homes.toml -v     one scenario, saying what happens
  punchbag run my.toml --seed 7 --pcap --out results  keep the packets
  punchbag explain out/mission/two-homes               the story of a run")]
pub(super) struct Args {
    /// Scenario files, or folders that are searched for them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Seed of all randomness. The same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the results.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_OUT)]
    out: PathBuf,
    /// Keep the packets of every interface as pcapng.
    #[arg(long)]
    pcap: bool,
    /// Play every scenario once only.
    ///
    /// Otherwise a scenario whose hosts went direct is played once more with every direct path cut, for the relayed figures
    /// that stand beside the direct ones in the report. That run is not judged and leaves no log.
    #[arg(long)]
    no_compare: bool,
    /// Scenarios played at the same time.
    #[arg(long, value_name = "N", default_value_t = default_jobs())]
    jobs: usize,
    /// What the scenarios are played in.
    #[arg(long, value_enum, default_value_t = In::Sim)]
    world: In,
    /// What translates addresses in the routers.
    #[arg(long, value_enum, default_value_t = Boxes::Models)]
    boxes: Boxes,
    /// What is printed on standard output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum In {
    /// The simulator: cores driven directly, in nanoseconds.
    Sim,
    /// Async shells on hosts of turmoil, in milliseconds: a second opinion, without rates and loss. What it has not is refused;
    /// of a folder, what it can play is played.
    Turmoil,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Boxes {
    /// Models: every run of one seed is the same.
    Models,
    /// The kernel of this machine, a network namespace for each router; Linux only. Needs root or user namespaces, and
    /// the commands nft and ip.
    Kernel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// The same as summary.json.
    Json,
    /// JUnit XML, for CI systems.
    Junit,
}

pub(super) fn main(args: &Args) -> Result<u8, Failure> {
    let mut scenarios = load_all(&args.paths)?;
    let world = match args.world {
        In::Sim => Which::Sim,
        In::Turmoil => Which::Turmoil,
    };
    if world == Which::Turmoil {
        if args.boxes == Boxes::Kernel {
            return Err("--boxes kernel: only with --world sim".into());
        }
        scenarios = playable(scenarios, &args.paths)?;
    }
    let kernel_boxes = args.boxes == Boxes::Kernel;
    if kernel_boxes {
        enter_namespace()?;
    }
    let options = Options { capture: args.pcap, kernel_boxes, ..Options::default() };
    let progress = Progress::new(scenarios.len(), "scenarios played");
    // A run is written by the thread that played it and then let go: logs of many runs are not held in memory at once.
    let played = campaign::in_parallel(
        &scenarios,
        args.jobs,
        |(found, scenario)| {
            let failure = |error| format!("{}: {error}", found.path.display());
            let seed = Seed(args.seed);
            let mut run = campaign::run_in(world, scenario, seed, options, &command(found, args.seed, world))
                .map_err(failure)?;
            if !args.no_compare && world == Which::Sim {
                campaign::compare(scenario, seed, &mut run).map_err(failure)?;
            }
            let folder = args.out.join(&scenario.name);
            let row = super::report::ScenarioReport::of(&run);
            write_run(&folder, run).map_err(|error| format!("{}: {error}", folder.display()))?;
            Ok::<_, String>(row)
        },
        |(_, scenario), _| progress.done(&scenario.name),
    );
    drop(progress);
    let rows = played.into_iter().collect::<Result<Vec<_>, String>>()?;
    let mut summary = Summary::new(env!("CARGO_PKG_VERSION"), args.seed);
    summary.scenarios = rows.iter().map(|row| row.summary.clone()).collect();
    let json = serde_json::to_string_pretty(&summary)? + "\n";
    write(&args.out.join("summary.json"), json.as_bytes())?;
    super::report::write(&args.out, "report", &summary, rows, None)?;
    match args.format {
        Format::Table => {
            let mut text = table::summary(&summary);
            text += &format!("report: {}\n", args.out.join("report.html").display());
            print::out(&text)?;
        }
        Format::Json => print::out(&json)?,
        Format::Junit => print::out(&table::junit(&summary)?)?,
    }
    let violated = summary.scenarios.iter().any(|s| !s.violations.is_empty());
    let failed = summary.scenarios.iter().any(|s| !s.passed);
    Ok(if violated {
        VIOLATED
    } else if failed {
        FAILED
    } else {
        PASSED
    })
}

/// Sees to it that network namespaces can be made. This process has but one thread so far.
#[cfg(target_os = "linux")]
fn enter_namespace() -> Result<(), Failure> {
    if kernel_nat::allowed() { Ok(()) } else { kernel_nat::enter_user_namespace().map_err(Failure::from) }
}

#[cfg(not(target_os = "linux"))]
fn enter_namespace() -> Result<(), Failure> {
    Err("--boxes kernel: only Linux has them".into())
}

/// Finds and parses all scenarios; every file that is wrong is reported, not only the first.
pub(super) fn load_all(paths: &[PathBuf]) -> Result<Vec<(Found, Scenario)>, Failure> {
    let mut scenarios: Vec<(Found, Scenario)> = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        for found in campaign::discover(path)? {
            if let Some((other, _)) =
                scenarios.iter().find(|(other, _)| other.name == found.name && other.path != found.path)
            {
                errors.push(format!(
                    "{} and {} would both write results to `{}`: give them other names",
                    other.path.display(),
                    found.path.display(),
                    found.name
                ));
            } else if !scenarios.iter().any(|(other, _)| other.path == found.path) {
                match campaign::load(&found) {
                    Ok(scenario) => scenarios.push((found, scenario)),
                    Err(error) => errors.push(error.to_string()),
                }
            }
        }
    }
    if errors.is_empty() { Ok(scenarios) } else { Err(errors.join("\n").into()) }
}

fn command(found: &Found, seed: u64, world: Which) -> String {
    let world = if world == Which::Sim { String::new() } else { format!(" --world {}", world.as_str()) };
    format!("punchbag run {} --seed {seed}{world}", found.path.display())
}

/// What the turmoil world can play: of folders what fits; a file that was asked for by name must.
pub(super) fn playable(
    scenarios: Vec<(Found, Scenario)>,
    paths: &[PathBuf],
) -> Result<Vec<(Found, Scenario)>, Failure> {
    let (mut fitting, mut left_out) = (Vec::new(), Vec::new());
    for (found, scenario) in scenarios {
        let topology = Topology::new(&scenario)?;
        match turmoil::fits(&scenario, &topology) {
            Ok(_) => fitting.push((found, scenario)),
            Err(misfit) if paths.contains(&found.path) => {
                let path = found.path.display().to_string();
                let text = fs::read_to_string(&found.path).map_err(|error| format!("{path}: {error}"))?;
                return Err(misfit.in_file(&path, &text).to_string().into());
            }
            Err(misfit) => left_out.push(misfit),
        }
    }
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(|misfit| misfit.scenario.as_str()).collect();
        print::note(&format!("left out, as they need rates or loss: {}", names.join(", ")));
    }
    Ok(fitting)
}

fn write_run(folder: &Path, run: Run) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut log = BufWriter::new(fs::File::create(folder.join("run.jsonl"))?);
    trace::write_header(&mut log, &run.header)?;
    for record in &run.records {
        trace::write_record(&mut log, record)?;
    }
    std::io::Write::flush(&mut log)?;
    match run.captures {
        Some(captures) => captures.write_to(folder),
        None => Ok(()),
    }
}

/// Writes a file, making its folder, with an error that names it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let attempt = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, bytes)
    };
    attempt().map_err(|error: std::io::Error| format!("{}: {error}", path.display()).into())
}
