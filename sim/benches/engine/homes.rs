//! Two homes find their direct path: real peers, relay, STUN and coordination servers, and real cryptography, with a ping
//! every 100 ms, for two seconds.

use punchbag::scenario::{self, Scenario};
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};

use crate::ping_pong::QUIET;

pub(crate) fn scenario() -> Scenario {
    let text = r#"
title = "Two homes"
until = "2s"
router.home-a = { region = "eu-west", nat = "port-restricted-cone" }
router.home-b = { region = "us-east", nat = "port-restricted-cone" }
host.takkie = { behind = "home-a" }
host.flappie = { behind = "home-b" }

[[traffic]]
kind = "ping"
from = "takkie"
to = "flappie"
at = "500ms"
interval = "100ms"

[[expect]]
pair = ["takkie", "flappie"]
path = "direct"
"#;
    let scenario = scenario::parse("two-homes", "two-homes.toml", text).expect("a sound scenario");
    let run = punchbag::campaign::run(&scenario, Seed(1), Options::default(), "").expect("a sound world");
    assert!(run.verdict.passed(), "the two homes find their direct path");
    scenario
}

/// Lays the network out and makes the world: tables, random streams, the servers' keys. The peers' own are made when they
/// start.
pub(crate) fn build(scenario: &Scenario, seed: u64) -> World {
    let topology = Topology::new(scenario).expect("the networks do not collide");
    World::new(scenario, &topology, Seed(seed), QUIET).expect("everybody has a place")
}

/// Runs it to its end; returns how many packets were sent.
pub(crate) fn run(world: World) -> u64 {
    world.run().expect("no captures that could fail").packets
}

/// The same in the turmoil world, to its end.
pub(crate) fn turmoil(scenario: &Scenario, seed: u64) -> u64 {
    let topology = Topology::new(scenario).expect("two homes fit together");
    let outcome = punchbag::world::turmoil::play(scenario, &topology, Seed(seed), QUIET);
    outcome.expect("two homes need neither rates nor loss").packets
}
