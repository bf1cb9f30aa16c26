//! Random bad links: lossy, reordering, duplicating, with tiny windows, buffers, queues and MSS, slow readers, both
//! directions at once, simultaneous open. No byte may be wrong and no connection stuck.

mod harness;

/// A sixth of what `cargo run --release -p tcp --example torture -- 30000` does.
#[test]
fn random_links_neither_corrupt_nor_stick() {
    let failures: Vec<String> = (0..5_000).filter_map(|seed| harness::torture::run(seed).err()).collect();

    assert!(failures.is_empty(), "{} failures: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
}

#[test]
fn the_same_seed_gives_the_same_segments() {
    for seed in 0..50 {
        let trace = || {
            let mut world = harness::torture::world(seed);
            world.trace = Some(Vec::new());
            world.run(std::time::Duration::from_secs(40_000)).unwrap();
            world.trace.unwrap()
        };

        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
