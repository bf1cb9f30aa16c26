//! Somebody attacks the network while its members talk: they go on talking, newcomers still get in, what the attacker costs
//! the servers is bounded, and nothing goes to whom it is not for.
//!
//! Every run is judged as any other is: no plaintext on a wire, no packet at the wrong peer, no panic.

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod identity;
mod relay;
mod wire;

use common::scenario;
use punchbag::host::{CoordinatorProgram, RelayProgram, Secured};
use punchbag::judge::{Verdict, judge};
use punchbag::scenario::Scenario;
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};
use report::Metrics;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use trace::{Event, Record};

const SEED: Seed = Seed(1);

/// How often the attacker acts, and the servers are looked at.
const TICK: Duration = Duration::from_millis(100);

/// A network and a place in it for an attacker: mallory, where nothing of ours ever runs.
struct Scene {
    scenario: Scenario,
    topology: Topology,
    world: World,
    elapsed: Duration,
}

/// What the servers had open at most.
#[derive(Debug, Default, Clone, Copy)]
struct Peak {
    relay: usize,
    coordinator: usize,
}

impl Scene {
    /// takkie and flappie talk over the relay: their NATs leave no other way.
    fn relayed(extra: &str) -> Scene {
        Scene::new("symmetric", "relay", extra)
    }

    /// takkie and flappie talk directly, behind NATs that let in anybody.
    fn direct(extra: &str) -> Scene {
        Scene::new("full-cone", "direct", extra)
    }

    /// Binkie joins in the middle of it all.
    fn new(nat: &str, path: &str, extra: &str) -> Scene {
        let scenario = scenario(&format!(
            r#"
title = "Under attack"
until = "40s"
router.home-a = {{ region = "eu-west", nat = "{nat}" }}
router.home-b = {{ region = "eu-west", nat = "{nat}" }}
host.takkie = {{ behind = "home-a" }}
host.flappie = {{ behind = "home-b" }}
host.binkie = {{ region = "eu-west", start = "15s" }}
host.mallory = {{ region = "eu-west", start = "23h" }}
{extra}
[[traffic]]
kind = "ping"
from = "takkie"
to = "flappie"
at = "2s"
interval = "100ms"

[[traffic]]
kind = "ping"
from = "binkie"
to = "takkie"
at = "17s"
interval = "100ms"

[[expect]]
pair = ["takkie", "flappie"]
path = "{path}"
first-data-within = "1s"
lost-at-most = 0

[[expect]]
pair = ["binkie", "takkie"]
first-data-within = "1s"
lost-at-most = 0
"#
        ));
        let topology = Topology::new(&scenario).expect("a sound network");
        let world = World::new(&scenario, &topology, SEED, Options::default()).expect("a world");
        Scene { scenario, topology, world, elapsed: Duration::ZERO }
    }

    fn ip(&self, name: &str) -> IpAddr {
        self.topology.node(self.topology.find(name).expect("it is in the network")).address
    }

    fn at(&self, name: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(name), port)
    }

    fn run_for(&mut self, time: Duration) {
        self.elapsed += time;
        self.world.run_until(self.elapsed);
    }

    fn open(&self) -> Peak {
        let relay = self.world.program::<Secured<RelayProgram>>("relay").expect("it runs");
        let coordinator = self.world.program::<Secured<CoordinatorProgram>>("coordinator").expect("it runs");
        Peak {
            relay: relay.program().server().connections(),
            coordinator: coordinator.program().server().connections(),
        }
    }

    /// Runs until a time and lets somebody act at every tick; tells what the servers had open at most.
    fn run_until(&mut self, time: Duration, mut act: impl FnMut(&mut Scene)) -> Peak {
        let mut peak = Peak::default();
        while self.elapsed < time {
            act(self);
            self.run_for(TICK);
            let open = self.open();
            peak.relay = peak.relay.max(open.relay);
            peak.coordinator = peak.coordinator.max(open.coordinator);
        }
        peak
    }

    /// Runs to the end, and judges.
    fn end(self) -> (Verdict, Vec<Record>) {
        let records = self.world.run().expect("no captures").records;
        (judge(&self.scenario, &records, &Metrics::fold(&records)), records)
    }
}

/// That everything was as it should be.
fn assert_passed(verdict: &Verdict) {
    assert!(verdict.passed(), "{verdict:#?}");
}

/// Where members were seen from outside: the source of what reached a server from them.
fn seen_at(records: &[Record], server: &str, port: u16, from: IpAddr) -> Option<SocketAddr> {
    records.iter().rev().find_map(|record| match &record.event {
        Event::Delivered { node, src, dst, .. }
            if **node == *server && dst.port() == port && src.ip() == from =>
        {
            Some(*src)
        }
        _ => None,
    })
}

/// Numbers of the packets of a flow that a host received, in order of arrival.
fn received(records: &[Record], to: &str, of: &str) -> Vec<u64> {
    let received = records.iter().filter_map(|record| match &record.event {
        Event::AppReceived { flow, host, seq, .. } if **host == *to && **flow == *of => Some(*seq),
        _ => None,
    });
    received.collect()
}
