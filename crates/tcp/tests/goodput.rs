//! Goodput on the path that the real Linux TCP was measured on.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod harness;

use harness::{Cable, MS, Program, World};
use tcp::{Algorithm, Config};

const BYTES: usize = 20_000_000;

/// 100 Mbit/s, 20 ms each way, a drop-tail queue of one bandwidth-delay product. Kilobits per second of payload, from
/// the start of the handshake to the last byte read.
fn goodput_kbps(config: &Config, loss_ppm: u32, seed: u64) -> u64 {
    let back = Cable { rate_bps: 100_000_000, queue_bytes: 500_000, ..Cable::clean(20 * MS) };
    let cable = Cable { loss_ppm, ..back };
    let mut world = World::new(
        seed,
        [config.clone(), config.clone()],
        [Program::sender(BYTES), Program::sender(0)],
        [cable, back],
        false,
    );
    world.run(MS * 1_000_000).unwrap();
    world.check().unwrap();
    (BYTES as u128 * 8 * 1_000_000 / world.hosts[1].last_data.as_nanos()).try_into().unwrap()
}

fn median(config: &Config, loss_ppm: u32) -> u64 {
    let mut all: Vec<u64> = (0..20).map(|seed| goodput_kbps(config, loss_ppm, seed)).collect();
    all.sort_unstable();
    println!("{:?} {loss_ppm} ppm: {} to {}, median {} kbit/s", config.congestion, all[0], all[19], all[10]);
    all[10]
}

#[test]
fn cubic_is_held_against_linux() {
    let config = Config::default();

    let clean = goodput_kbps(&config, 0, 0);
    println!("Cubic no loss: {clean} kbit/s (Linux 84100)");
    assert!(clean >= 75_000, "{clean}");
    let light = median(&config, 1_000);
    assert!((10_000..=26_000).contains(&light), "{light}");
    let heavy = median(&config, 10_000);
    assert!((2_500..=5_500).contains(&heavy), "{heavy}");
}

#[test]
fn reno_is_held_against_linux() {
    let config = Config { congestion: Algorithm::Reno, hystart: false, ..Config::default() };

    let clean = goodput_kbps(&config, 0, 0);
    println!("Reno no loss: {clean} kbit/s (Linux 83600)");
    assert!(clean >= 75_000, "{clean}");
    let light = median(&config, 1_000);
    assert!((10_000..=26_000).contains(&light), "{light}");
    let heavy = median(&config, 10_000);
    assert!((2_500..=5_500).contains(&heavy), "{heavy}");
}
