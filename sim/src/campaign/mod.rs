//! Many worlds: each on one thread, in parallel, with results in the order in which they were asked for.

mod files;
pub mod matrix;
pub mod worlds;

pub use files::{Found, LoadError, discover, load};

use crate::judge::{Verdict, judge, oracle};
use crate::scenario::Scenario;
use crate::topology::{Topology, TopologyError};
use crate::world::{BuildError, Captures, Options, Seed, World, turmoil};
use rayon::prelude::*;
use report::{Metrics, PairSummary, ScenarioSummary};
use trace::{FORMAT, Header, Record};

/// A scenario played once.
pub struct Run {
    /// First line of its log.
    pub header: Header,
    /// Its events. What the judge found stands in `verdict`.
    pub records: Vec<Record>,
    /// Its numbers.
    pub metrics: Metrics,
    /// The judgement.
    pub verdict: Verdict,
    /// Its row in `summary.json`.
    pub summary: ScenarioSummary,
    /// Its packets, if they were kept.
    pub captures: Option<Captures>,
}

/// Why a scenario could not be played.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its topology contradicts itself.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The world could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The turmoil world could not play it.
    #[error(transparent)]
    Turmoil(#[from] turmoil::Error),
    /// A capture could not be written.
    #[error("packet capture: {0}")]
    Capture(#[from] std::io::Error),
}

/// What a scenario is played in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    /// The simulator: [`World`].
    #[default]
    Sim,
    /// The async shells: [`crate::world::turmoil`].
    Turmoil,
}

impl Which {
    /// Its name in logs and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Which::Sim => "sim",
            Which::Turmoil => "turmoil",
        }
    }
}

/// Plays a scenario in the simulator. `command` is how a person would do the same.
pub fn run(scenario: &Scenario, seed: Seed, options: Options, command: &str) -> Result<Run, RunError> {
    run_in(Which::Sim, scenario, seed, options, command)
}

/// Plays a scenario. `command` is how a person would do the same.
pub fn run_in(
    world: Which,
    scenario: &Scenario,
    seed: Seed,
    options: Options,
    command: &str,
) -> Result<Run, RunError> {
    let span = tracing::info_span!("run", scenario = %scenario.name, seed = seed.0, world = world.as_str());
    let _entered = span.enter();
    let topology = Topology::new(scenario)?;
    let outcome = match world {
        Which::Sim => World::new(scenario, &topology, seed, options)?.run()?,
        Which::Turmoil => turmoil::play(scenario, &topology, seed, options)?,
    };
    let header = Header {
        format: FORMAT,
        scenario: scenario.name.clone(),
        title: scenario.title.clone(),
        scenario_hash: scenario.hash.clone(),
        seed: seed.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        world: world.as_str().to_owned(),
    };
    let records = outcome.records;
    let metrics = Metrics::fold(&records);
    let verdict = match world {
        Which::Sim => judge(scenario, &records, &metrics),
        Which::Turmoil => judge(&turmoil::judged(scenario).0, &records, &metrics),
    };
    let mut summary = ScenarioSummary::new(&header, &metrics, command);
    summary.violations.clone_from(&verdict.violations);
    summary.passed = verdict.violations.is_empty();
    for expectation in &verdict.expectations {
        summary.expect(expectation.clone());
    }
    tracing::info!(events = outcome.events, packets = outcome.packets, passed = verdict.passed(), "done");
    Ok(Run { header, records, metrics, verdict, summary, captures: outcome.captures })
}

/// Plays the scenario of `run` once more with every direct path cut, and puts what the pairs met on the relay into its summary:
/// a pair that went direct has left the relay after a few packets, too few to hold one path against the other. Nothing else
/// of `run` changes, and nobody judges the second run.
///
/// Nothing is played if no pair went direct, or none of those can reach a relay.
pub fn compare(scenario: &Scenario, seed: Seed, run: &mut Run) -> Result<(), RunError> {
    let comparable = |pair: &&mut PairSummary| {
        pair.left_the_relay() && oracle::route(scenario, &pair.a, &pair.b).is_some_and(|route| route.relay)
    };
    let mut pairs: Vec<_> = run.summary.pairs.iter_mut().filter(comparable).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let span = tracing::info_span!("compare", scenario = %scenario.name, seed = seed.0);
    let _entered = span.enter();
    let topology = Topology::new(scenario)?;
    let options = Options { timers: false, checks: false, direct: false, ..Options::default() };
    let metrics = Metrics::fold(&World::new(scenario, &topology, seed, options)?.run()?.records);
    for pair in &mut pairs {
        pair.compare(&metrics);
    }
    tracing::info!(pairs = pairs.len(), "done");
    Ok(())
}

/// Applies `job` to every item on `jobs` threads and returns the results in the items' order. `done` is called as items
/// finish, in whatever order they do.
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    job: impl Fn(&T) -> R + Sync,
    done: impl Fn(&T, &R) + Sync,
) -> Vec<R> {
    let work = || {
        items
            .par_iter()
            .with_max_len(1)
            .map(|item| {
                let result = job(item);
                done(item, &result);
                result
            })
            .collect()
    };
    match rayon::ThreadPoolBuilder::new().num_threads(jobs).build() {
        Ok(pool) => pool.install(work),
        Err(error) => {
            tracing::warn!(%error, "no thread pool of its own");
            work()
        }
    }
}
