//! The turmoil world: async shells on hosts of turmoil.

#[path = "../common/mod.rs"]
mod common;

#[path = "../../examples/echo_behind_nats.rs"]
mod echo_behind_nats;

mod crash;
mod direct;
mod errors;
mod worlds;

#[test]
fn the_example_finds_its_way_through_two_nats() {
    let found = echo_behind_nats::meet().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.len(), 2, "{found:?}");
    for (name, other) in [("takkie", "flappie"), ("flappie", "takkie")] {
        let line = found.iter().find(|line| line.starts_with(name));
        let seen = |name: &str| {
            let line = found.iter().find(|line| line.starts_with(name))?;
            line.split(' ').nth(3).map(|address| address.trim_end_matches(',').to_owned())
        };
        let (line, other) = (line.expect("a line of each"), seen(other).expect("its address"));
        assert!(line.ends_with(&format!("an echo from {other}")), "{found:?}");
        assert!(!other.starts_with("192.168."), "{found:?}");
    }
}
