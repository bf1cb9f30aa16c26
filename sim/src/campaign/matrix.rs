//! Every NAT type against every other, each pair a world of its own.

use super::{RunError, in_parallel, run};
use crate::judge::oracle;
use crate::scenario::{self, ScenarioError};
use crate::world::{Options, Seed};
use report::{Cell, Matrix};

/// Why a matrix could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The keys of a row are none of a router.
    #[error("{0}")]
    Scenario(ScenarioError),
    /// A pair could not be played.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// The scenario of one pair: two homes in two regions, and a ping from one to the other.
///
/// `a` and `b` are keys of the two routers, a line each: `nat = "linux"`.
pub fn pair_scenario(a: &str, b: &str) -> String {
    format!(
        r#"title = "pair"
why = "one cell of the matrix"
until = "20s"

[router.a]
region = "frankfurt"
{a}

[router.b]
region = "london"
{b}

[host.one]
behind = "a"

[host.two]
behind = "b"

[[traffic]]
kind = "ping"
from = "one"
to = "two"
at = "2s"
interval = "200ms"
"#
    )
}

/// Plays every preset of `rows` against every other (and itself) and compares with the oracle. Each pair is played once;
/// `done` is called as pairs finish.
pub fn matrix(rows: &[Row], seed: Seed, jobs: usize, done: impl Fn() + Sync) -> Result<Matrix, MatrixError> {
    let mut pairs = Vec::new();
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i..] {
            pairs.push((a, b));
        }
    }
    let cells = in_parallel(&pairs, jobs, |(a, b)| cell(a, b, seed), |_, _| done());
    let names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
    Ok(Matrix {
        command: format!("punchbag matrix --nats {} --seed {}", names.join(","), seed.0),
        rows: names,
        cells: cells.into_iter().collect::<Result<_, _>>()?,
    })
}

/// One kind of box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The keys of its router in a scenario.
    pub toml: String,
}

impl Row {
    /// A NAT preset, or a firewall preset in front of no NAT; `None` if neither has that name.
    pub fn preset(name: &str) -> Option<Row> {
        let toml = if nat::presets::nat(name).is_some() {
            format!("nat = {name:?}")
        } else {
            nat::presets::firewall(name)?;
            format!("nat = \"none\"\nfirewall = {name:?}")
        };
        Some(Row { name: name.to_owned(), toml })
    }
}

fn cell(a: &Row, b: &Row, seed: Seed) -> Result<Cell, MatrixError> {
    let name = format!("matrix/{}-{}", a.name, b.name);
    let text = pair_scenario(&a.toml, &b.toml);
    let scenario = scenario::parse(&name, &name, &text).map_err(MatrixError::Scenario)?;
    let played = run(&scenario, seed, Options { timers: false, ..Options::default() }, "")?;
    let pair = played.metrics.pair("one", "two");
    Ok(Cell {
        a: a.name.clone(),
        b: b.name.clone(),
        path: pair.filter(|p| p.first_data_ns.is_some()).and_then(|p| p.path()),
        direct_ns: pair.and_then(|p| p.direct_ns),
        first_data_ns: pair.and_then(|p| p.first_data_ns),
        expected: oracle::route(&scenario, "one", "two").and_then(|route| route.path()).flatten(),
    })
}
