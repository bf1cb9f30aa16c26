//! The scenarios that ship hold what they promise.

mod common;

use common::{jobs, play, shipped_files};
use punchbag::campaign::{self, in_parallel};
use punchbag::scenario::Scenario;
use punchbag::world::Options;

fn scenarios() -> Vec<Scenario> {
    shipped_files().iter().map(|file| campaign::load(file).unwrap_or_else(|e| panic!("{e}"))).collect()
}

/// Plays every scenario with every seed and returns what `judge` finds wrong.
fn play_all(seeds: &[u64], options: Options, wrong: fn(&campaign::Run) -> Vec<String>) -> Vec<String> {
    let scenarios = scenarios();
    let runs: Vec<_> = scenarios.iter().flat_map(|s| seeds.iter().map(move |seed| (s, *seed))).collect();
    let job = |&(scenario, seed): &(&Scenario, u64)| {
        let run = play(scenario, seed, options);
        let name = |what| format!("{} with seed {seed}: {what}", scenario.name);
        wrong(&run).into_iter().map(name).collect::<Vec<_>>()
    };
    in_parallel(&runs, jobs(), job, |_, _| ()).concat()
}

#[test]
fn every_shipped_scenario_passes() {
    let wrong = play_all(&[1], Options::default(), |run| {
        let failed = run.verdict.expectations.iter().filter(|e| !e.passed);
        let failed = failed.map(|e| format!("{}: {}", e.words, e.seen));
        failed.chain(run.verdict.violations.iter().cloned()).collect()
    });
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn with_other_seeds_no_invariant_is_violated() {
    let options = Options { timers: false, ..Options::default() };
    let wrong = play_all(&[2, 3], options, |run| run.verdict.violations.clone());
    assert!(wrong.is_empty(), "{} violated:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_shipped_scenario_says_why_and_expects_something() {
    let scenarios = scenarios();
    assert!(scenarios.len() >= 25, "only {} scenarios", scenarios.len());
    for scenario in scenarios {
        let name = &scenario.name;
        assert!(scenario.why.trim().len() > 30, "{name} does not say why it exists");
        assert!(!scenario.expect.is_empty(), "{name} expects nothing");
    }
}
