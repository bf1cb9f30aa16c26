//! Prints goodput on the reference path and what a segment costs.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "an example that prints and measures")]

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::{Cable, MS, Program, World};
use std::time::Instant;
use tcp::{Algorithm, Config};

fn main() {
    const BYTES: usize = 20_000_000;
    let reno = Config { congestion: Algorithm::Reno, hystart: false, ..Config::default() };
    println!("20 MB, 100 Mbit/s, 20 ms each way; goodput over 20 seeds: lowest, median, highest (kbit/s)");
    for (name, config) in [("CUBIC", Config::default()), ("Reno", reno)] {
        for (queue, queue_bytes) in [("1/4 BDP", 125_000), ("1 BDP", 500_000), ("8 BDP", 4_000_000)] {
            for loss_ppm in [0, 1_000, 10_000] {
                let begin = Instant::now();
                let mut segments = 0;
                let mut undone = 0;
                let mut all: Vec<u128> = (0..20)
                    .map(|seed| {
                        let cable =
                            Cable { rate_bps: 100_000_000, queue_bytes, loss_ppm, ..Cable::clean(20 * MS) };
                        let back = Cable { loss_ppm: 0, ..cable };
                        let programs = [Program::sender(BYTES), Program::sender(0)];
                        let mut world = World::new(
                            seed,
                            [config.clone(), config.clone()],
                            programs,
                            [cable, back],
                            false,
                        );
                        world.run(MS * 1_000_000).and_then(|()| world.check()).expect("transfer");
                        segments += world.segments;
                        undone += world.hosts[0].connection.as_ref().map_or(0, |it| it.stats().undone);
                        BYTES as u128 * 8_000_000 / world.hosts[1].last_data.as_nanos()
                    })
                    .collect();
                all.sort_unstable();
                let cost = begin.elapsed().as_nanos() / u128::from(segments);
                println!(
                    "{name}, queue {queue}, loss {loss_ppm} ppm: {}, {}, {} ({undone} undone, {cost} ns a segment)",
                    all[0], all[10], all[19]
                );
            }
        }
    }
}
