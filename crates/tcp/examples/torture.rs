//! Runs a number of random bad links: `cargo run --release -p tcp --example torture -- 30000 [first seed]`.
#![allow(clippy::print_stdout, reason = "an example that prints")]

#[path = "../tests/harness/mod.rs"]
mod harness;

fn main() -> std::process::ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let count = numbers.next().unwrap_or(30_000);
    let first = numbers.next().unwrap_or(0);
    let (mut segments, mut failures) = (0, 0);
    for seed in first..first + count {
        match harness::torture::run(seed) {
            Ok(sent) => segments += sent,
            Err(why) => {
                failures += 1;
                println!("{why}");
            }
        }
    }
    println!("{count} links, {segments} segments, {failures} corrupt or stuck");
    if failures == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
