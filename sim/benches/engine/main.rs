//! What a world and a packet cost: `cargo bench -p punchbag`.
//!
//! criterion measures each row by itself; after it, a table of all rows measured in turns, with their ratios. Everything
//! is processor time of one thread.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod cpu;
mod exchange;
mod homes;
mod ping_pong;

use cpu::CpuTime;
use criterion::{BatchSize, Criterion, Throughput};
use ping_pong::Cables;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

const PAIRS: [usize; 4] = [1, 10, 100, 1000];
/// Each row of the table is the median of so many measurements.
const ROUNDS: usize = 9;

fn worlds(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("two-homes");
    group.throughput(Throughput::Elements(1));
    let scenario = homes::scenario();
    let mut seed = 0;
    let mut next = move || {
        seed += 1;
        seed
    };
    group.bench_function("build and run", |b| b.iter(|| homes::run(homes::build(&scenario, next()))));
    group.bench_function("run, built beforehand", |b| {
        b.iter_batched(|| homes::build(&scenario, next()), homes::run, BatchSize::PerIteration);
    });
    group.bench_function("build", |b| b.iter_with_large_drop(|| homes::build(&scenario, next())));
    group.bench_function("build and run in turmoil", |b| b.iter(|| homes::turmoil(&scenario, next())));
    group.finish();

    let mut group = criterion.benchmark_group("exchange without cryptography");
    group.throughput(Throughput::Elements(1));
    let scenario = exchange::scenario();
    group.bench_function("punchbag, two NATs", |b| b.iter(|| exchange::simulated(&scenario, next())));
    group.bench_function("turmoil, no NAT", |b| b.iter(|| exchange::turmoil(next())));
    group.finish();
}

fn packets(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("packets through two NATs");
    group.throughput(Throughput::Elements(1));
    for (name, cables) in [("pure delay", Cables::Delay), ("default cables", Cables::Default)] {
        for pairs in PAIRS {
            let mut world = None;
            group.bench_function(format!("{name}/{pairs} pairs"), |b| {
                let world = world.get_or_insert_with(|| ping_pong::world(pairs, cables));
                b.iter(|| {
                    let one_more = world.packets() + 1;
                    ping_pong::play(world, one_more);
                });
            });
        }
    }
    group.finish();
}

/// A row of the table.
struct Row {
    name: String,
    /// Units of work of one measurement.
    units: u64,
    /// Does them and says how long it took.
    work: Box<dyn FnMut() -> Duration>,
    /// Units per second of processor time, round by round.
    rates: Vec<f64>,
}

impl Row {
    /// `unit` does one unit, and is told how many were done before.
    fn new(name: impl Into<String>, units: u64, unit: impl FnMut(u64) + 'static) -> Row {
        Row::prepared(name, units, |n| n, unit)
    }

    /// The same for a unit that needs something made beforehand, which is not measured.
    fn prepared<T>(
        name: impl Into<String>,
        units: u64,
        mut prepare: impl FnMut(u64) -> T + 'static,
        mut unit: impl FnMut(T) + 'static,
    ) -> Row {
        let mut done = 0;
        let work = move || {
            let prepared: Vec<T> = (done..done + units).map(&mut prepare).collect();
            done += units;
            let before = cpu::used();
            prepared.into_iter().for_each(&mut unit);
            cpu::used() - before
        };
        Row { name: name.into(), units, work: Box::new(work), rates: Vec::new() }
    }

    fn measure(&mut self) {
        let time = (self.work)();
        self.rates.push(self.units as f64 / time.as_secs_f64());
    }

    fn median(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}

/// The rows of the table in groups; within a group, each is compared with the first.
fn rows() -> Vec<(&'static str, Vec<Row>)> {
    let homes = Rc::new(homes::scenario());
    let build = || {
        let homes = Rc::clone(&homes);
        move |seed| homes::build(&homes, seed)
    };
    let (both, beforehand, alone) = (build(), build(), build());
    let other = Rc::clone(&homes);
    let exchange = exchange::scenario();
    let players = |cables| {
        PAIRS.map(|pairs| {
            let mut world = ping_pong::world(pairs, cables);
            Row::new(format!("pairs: {pairs}"), 200_000, move |_| {
                let one_more = world.packets() + 1;
                ping_pong::play(&mut world, one_more);
            })
        })
    };
    vec![
        (
            "Two homes with handshakes and tunnel, 2 s, worlds per second",
            vec![
                Row::new("build, keys included, and run", 20, move |seed| {
                    black_box(homes::run(both(seed)));
                }),
                Row::prepared("run, built beforehand", 20, beforehand, |world| {
                    black_box(homes::run(world));
                }),
                Row::new("build", 400, move |seed| drop(black_box(alone(seed)))),
                Row::new("build and run, turmoil world", 4, move |seed| {
                    black_box(homes::turmoil(&other, seed));
                }),
            ],
        ),
        (
            "Exchange of 122 datagrams without cryptography, 2 s, worlds per second",
            vec![
                Row::new("turmoil, no NAT, ticks of 1 ms", 10, |seed| {
                    black_box(exchange::turmoil(seed));
                }),
                Row::new("punchbag, two NATs", 1000, move |seed| {
                    black_box(exchange::simulated(&exchange, seed));
                }),
            ],
        ),
        ("Through two NATs, cables of pure delay, packets per second", players(Cables::Delay).into()),
        (
            "Through two NATs, cables with rates and queues, packets per second",
            players(Cables::Default).into(),
        ),
    ]
}

/// Measures all rows in turns, so that a machine that gets slower on the way does so for all of them, and prints their
/// medians.
fn table() {
    let mut groups = rows();
    for _ in 0..ROUNDS {
        for row in groups.iter_mut().flat_map(|(_, rows)| rows) {
            row.measure();
        }
    }
    println!(
        "\nBy processor time of one thread, median of {ROUNDS} rounds in turns, and ratio to the first row:"
    );
    for (title, rows) in &groups {
        println!("\n{title}");
        let first = rows[0].median();
        for row in rows {
            println!("  {:<32}{:>12.0}{:>10.3} x", row.name, row.median(), row.median() / first);
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().with_measurement(CpuTime).configure_from_args();
    worlds(&mut criterion);
    packets(&mut criterion);
    criterion.final_summary();
    // Not when tests are run or benchmarks were chosen by name.
    if std::env::args().skip(1).eq(["--bench"]) {
        table();
    }
}
