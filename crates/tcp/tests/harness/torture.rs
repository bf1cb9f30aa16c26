//! A random pair of hosts on a random, bad cable, drawn from a seed.

use super::{Cable, MS, Program, World};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::time::Duration;
use tcp::{Algorithm, Buffer, Config};

/// Between one and `most`, each order of magnitude as likely as the others.
fn scaled(rng: &mut Pcg64Mcg, most: u32) -> usize {
    let bits = rng.random_range(0..=most.ilog2());
    rng.random_range(1u32..=(2 << bits).min(most.max(2))) as usize
}

fn one_in(rng: &mut Pcg64Mcg, n: u32) -> bool {
    rng.random_range(0..n) == 0
}

fn config(rng: &mut Pcg64Mcg) -> Config {
    let mut buffer = || if one_in(rng, 3) { scaled(rng, 1 << 20) } else { rng.random_range(2_000..300_000) };
    let (receive, send) = (buffer(), buffer());
    Config {
        mss: if one_in(rng, 3) { rng.random_range(1..=1460) } else { 1460 },
        congestion: if one_in(rng, 2) { Algorithm::Reno } else { Algorithm::Cubic },
        hystart: !one_in(rng, 3),
        initial_window: if one_in(rng, 4) { 1 } else { 10 },
        sack: !one_in(rng, 5),
        timestamps: !one_in(rng, 4),
        window_scaling: !one_in(rng, 5),
        nodelay: one_in(rng, 2),
        send_buffer: Buffer { initial: send, max: send.max(scaled(rng, 1 << 20)) },
        receive_buffer: Buffer { initial: receive, max: receive.max(scaled(rng, 1 << 20)) },
        delayed_ack: MS * rng.random_range(0..200),
        // So that twenty lost SYNs or FINs in a row do not end a connection that could still work.
        rto_max: Duration::from_secs(10),
        syn_retries: 40,
        synack_retries: 40,
        time_wait: Duration::from_secs(3600),
        ..Config::default()
    }
}

fn cable(rng: &mut Pcg64Mcg) -> Cable {
    let rate_bps = if one_in(rng, 3) { 0 } else { 100 * scaled(rng, 10_000_000) as u64 + 20_000 };
    Cable {
        delay: Duration::from_micros(scaled(rng, 200_000) as u64),
        jitter: if one_in(rng, 2) {
            Duration::ZERO
        } else {
            Duration::from_micros(scaled(rng, 100_000) as u64)
        },
        rate_bps,
        queue_bytes: 1600 + scaled(rng, 500_000),
        loss_ppm: if one_in(rng, 3) { 0 } else { scaled(rng, 200_000) as u32 },
        duplicate_ppm: if one_in(rng, 3) { scaled(rng, 100_000) as u32 } else { 0 },
    }
}

fn program(rng: &mut Pcg64Mcg, window: usize) -> Program {
    let slow = one_in(rng, 4);
    // A tiny window takes a round trip for every few bytes.
    let most = (window * 64).clamp(64, 400_000);
    let send = match rng.random_range(0..5) {
        0 => 0,
        1 | 2 => scaled(rng, most as u32),
        _ => rng.random_range(1..=most),
    };
    Program {
        send,
        write: (send / 2000).max(scaled(rng, 1 << 16)),
        read_every: if slow { MS * rng.random_range(1..3000) } else { Duration::ZERO },
        read: 0,
        close_last: false,
    }
}

/// The world of a seed.
pub fn world(seed: u64) -> World {
    let mut rng = Pcg64Mcg::seed_from_u64(seed ^ 0x7031_7472);
    let configs = [config(&mut rng), config(&mut rng)];
    let window =
        configs.iter().map(|config| config.receive_buffer.initial.min(config.send_buffer.initial)).min();
    let mut programs = [0, 1].map(|_| program(&mut rng, window.unwrap_or(1)));
    for side in 0..2 {
        // A slow reader takes at most some hundred reads.
        programs[side].read = (programs[1 - side].send / 200).max(scaled(&mut rng, 1 << 16));
    }
    if one_in(&mut rng, 4) {
        programs[usize::from(one_in(&mut rng, 2))].close_last = true;
    }
    let cables = [cable(&mut rng), cable(&mut rng)];
    let both_connect = one_in(&mut rng, 6);
    World::new(seed, configs, programs, cables, both_connect)
}

/// Runs it; the number of segments, or what went wrong.
pub fn run(seed: u64) -> Result<u64, String> {
    let mut world = world(seed);
    world
        .run(Duration::from_secs(40_000))
        .and_then(|()| world.check())
        .map_err(|why| format!("seed {seed}: {why}"))?;
    Ok(world.segments)
}
