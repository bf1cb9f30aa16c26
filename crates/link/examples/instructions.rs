//! A million packets through a plain link, for counting instructions:
//! `valgrind --tool=callgrind target/release/examples/instructions [delay|queue|jitter]`.

use std::time::{Duration, Instant};

use link::{Jitter, Link, LinkConfig, Loss};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

#[expect(clippy::disallowed_methods, reason = "an example has to start somewhere")]
fn main() {
    let delay = Duration::from_millis(10);
    let config = match std::env::args().nth(1).as_deref() {
        Some("queue") => LinkConfig {
            delay,
            rate_bps: Some(100_000_000),
            queue_bytes: Some(1 << 20),
            ..LinkConfig::default()
        },
        Some("jitter") => LinkConfig {
            delay,
            jitter: Jitter::Uniform { plus_minus: delay / 2 },
            loss: Loss::percent(1),
            ..LinkConfig::default()
        },
        _ => LinkConfig { delay, ..LinkConfig::default() },
    };
    let mut link = Link::new(config, Pcg64Mcg::seed_from_u64(1));
    let mut now = Instant::now();
    for _ in 0..1_000_000 {
        now += Duration::from_micros(121);
        std::hint::black_box(link.send(std::hint::black_box(1500), now));
    }
}
