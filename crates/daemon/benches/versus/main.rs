//! Our relay beside coturn and our tunnel beside boringtun, on this machine: `cargo bench -p daemon`.
//!
//! coturn is Debian's package `coturn`; without its `turnserver` the relay is measured alone, and that is said. What is
//! measured is bounded in packets and in time, and the last lines set one against the other.
#![allow(clippy::print_stdout, reason = "a benchmark tells its results")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark runs in earnest, on real sockets, and fails by panicking"
)]

mod coturn;
mod memory;
mod relay;
mod tunnel;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::cell::RefCell;
use std::time::Duration;

/// What was measured, in packets a second; the best of all samples, since everything else on a machine only slows down.
#[derive(Default)]
struct Best(RefCell<Vec<(String, f64)>>);

impl Best {
    fn note(&self, name: &str, packets: u64, took: Duration) {
        let rate = packets as f64 / took.as_secs_f64().max(1e-9);
        let mut all = self.0.borrow_mut();
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, best)) => *best = best.max(rate),
            None => all.push((name.to_owned(), rate)),
        }
    }

    fn of(&self, name: &str) -> Option<f64> {
        self.0.borrow().iter().find(|(known, _)| known == name).map(|(_, rate)| *rate)
    }

    fn print(&self, name: &str, bytes: usize) {
        if let Some(rate) = self.of(name) {
            let megabytes = rate * bytes as f64 / 1e6;
            println!("{name:<34} {rate:>10.0} packets/s {megabytes:>9.1} MB/s");
        }
    }

    /// How much faster the first is than the second.
    fn ratio(&self, ours: &str, theirs: &str) {
        if let (Some(a), Some(b)) = (self.of(ours), self.of(theirs)) {
            println!("{ours} / {theirs} = {:.2}", a / b);
        }
    }
}

fn versus(criterion: &mut Criterion) {
    let best = Best::default();
    let mut group = criterion.benchmark_group("tunnel");
    group.throughput(Throughput::Bytes(tunnel::BYTES as u64));
    group.bench_function("ours", |bencher| {
        let mut pair = tunnel::Ours::new();
        bencher.iter_custom(|packets| timed(&best, "tunnel, ours", packets, || pair.carry(packets)));
    });
    group.bench_function("boringtun", |bencher| {
        let mut pair = tunnel::Theirs::new();
        bencher.iter_custom(|packets| timed(&best, "tunnel, boringtun", packets, || pair.carry(packets)));
    });
    group.finish();

    let turn = coturn::Server::start();
    for bytes in relay::SIZES {
        let mut group = criterion.benchmark_group(format!("relay, {bytes} bytes"));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("ours", |bencher| {
            let mut pair = relay::Pair::new(bytes);
            let name = format!("relay, ours, {bytes} bytes");
            bencher.iter_custom(|packets| timed(&best, &name, packets, || pair.carry(packets)));
        });
        if let Some(turn) = &turn {
            for tcp in [false, true] {
                let by = if tcp { "coturn by TCP" } else { "coturn by UDP" };
                group.bench_function(by, |bencher| {
                    let mut pair = coturn::Pair::new(turn, tcp, bytes);
                    let name = format!("relay, {by}, {bytes} bytes");
                    bencher.iter_custom(|packets| timed(&best, &name, packets, || pair.carry(packets)));
                });
            }
        }
        group.finish();
    }

    println!();
    for name in ["tunnel, ours", "tunnel, boringtun"] {
        best.print(name, tunnel::BYTES);
    }
    best.ratio("tunnel, ours", "tunnel, boringtun");
    for bytes in relay::SIZES {
        println!();
        let [ours, udp, tcp] =
            ["ours", "coturn by UDP", "coturn by TCP"].map(|who| format!("relay, {who}, {bytes} bytes"));
        for name in [&ours, &udp, &tcp] {
            best.print(name, bytes);
        }
        best.ratio(&ours, &udp);
        best.ratio(&ours, &tcp);
    }
    println!();
    memory::report(turn.as_ref());
}

fn timed(best: &Best, name: &str, packets: u64, carry: impl FnOnce() -> Duration) -> Duration {
    let took = carry();
    // The first rounds are a handful of packets and say nothing.
    if packets >= 100 {
        best.note(name, packets, took);
    }
    took
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = versus
}
criterion_main!(benches);
