//! Arguments, logs and exit codes.

mod check;
mod explain;
mod matrix;
mod play;
mod presets;
mod print;
mod report;
mod table;
mod worlds;

use clap::{Parser, Subcommand, ValueEnum};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Play networks that break connections, and see what traversal and relay code makes of them.
///
/// Punchbag simulates hosts, NAT routers, double NAT and firewalls around real traversal and relay code. A network is a
/// file; the same file and seed give the same run to the last byte.
#[derive(Debug, Parser)]
#[command(name = "punchbag", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 all passed, 1 an expectation failed, 2 bad scenario or usage, 3 an invariant was violated."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more on standard error: -v each run, -vv what peers learn and do, -vvv every packet and timer.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// How those messages are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(play::Args),
    Check(check::Args),
    Explain(explain::Args),
    Matrix(matrix::Args),
    Worlds(worlds::Args),
    Report(report::Args),
    Presets(presets::Args),
    #[cfg(unix)]
    #[command(flatten)]
    Daemon(daemon::app::Command),
    /// Print what is not modelled, as Markdown.
    #[command(after_help = "Example: punchbag limits > limits.md")]
    Limits,
    /// Print the JSON Schema of scenario files, for editors.
    #[command(after_help = "Example: punchbag schema > scenario.schema.json")]
    Schema,
}

impl Command {
    /// Whether it writes logs of its own for as long as it runs.
    fn has_own_logs(&self) -> bool {
        match self {
            #[cfg(unix)]
            Command::Daemon(_) => true,
            _ => false,
        }
    }
}

/// All passed.
const PASSED: u8 = 0;
/// An expectation failed.
const FAILED: u8 = 1;
/// Bad scenario or usage.
const USAGE: u8 = 2;
/// An invariant was violated.
const VIOLATED: u8 = 3;

/// Something that ends the command before it has a result: always exit code 2.
type Failure = Box<dyn std::error::Error>;

/// Runs the command.
pub(crate) fn main() -> ExitCode {
    let Cli { command, verbose, log_format } = Cli::parse();
    if !command.has_own_logs() {
        start_logs(verbose, log_format);
    }
    let result = match command {
        Command::Run(args) => play::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Explain(args) => explain::main(&args),
        Command::Matrix(args) => matrix::main(&args),
        Command::Worlds(args) => worlds::main(&args),
        Command::Report(args) => report::main(&args),
        Command::Presets(args) => presets::main(&args),
        Command::Limits => print::out(&punchbag::limits::page()).map(|()| PASSED).map_err(Failure::from),
        Command::Schema => print::out(&punchbag::scenario::schema()).map(|()| PASSED).map_err(Failure::from),
        #[cfg(unix)]
        Command::Daemon(command) => daemon::app::main(command, matches!(log_format, LogFormat::Json)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has seen enough: `punchbag explain … | head` is no failure.
        Err(failure) if print::is_broken_pipe(&*failure) => ExitCode::SUCCESS,
        Err(failure) => {
            print::error(&failure.to_string());
            ExitCode::from(USAGE)
        }
    }
}

fn start_logs(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let colours = std::io::stderr().is_terminal();
    let logs =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(colours).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.compact().init(),
        LogFormat::Json => logs.json().init(),
    }
}

/// Threads to use when the user does not say.
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A progress bar on standard error, if that is a terminal.
fn progress(total: usize, what: &'static str) -> indicatif::ProgressBar {
    let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}");
    let bar = indicatif::ProgressBar::new(total as u64).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A line of progress for those who read a log in place of a terminal, at most so often.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Progress of long work: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: indicatif::ProgressBar,
    what: &'static str,
    lines: AtomicU64,
}

impl Progress {
    fn new(total: usize, what: &'static str) -> Progress {
        Progress { bar: progress(total, what), what, lines: AtomicU64::new(0) }
    }

    /// One more is done.
    fn done(&self, name: &str) {
        self.bar.set_message(name.to_owned());
        self.bar.inc(1);
        let elapsed = self.bar.elapsed();
        let line = elapsed.as_secs() / LINE_EVERY.as_secs();
        if !std::io::stderr().is_terminal() && self.lines.fetch_max(line, Ordering::Relaxed) < line {
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or_default());
            print::note(&format!("{} of {total} {} after {} s", done, self.what, elapsed.as_secs()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
