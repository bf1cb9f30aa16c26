//! Pairs of hosts, each behind a NAT of its own, that pass one datagram to and fro: the event loop, the cables and the
//! NATs, and nothing else.

use bytes::Bytes;
use link::LinkConfig;
use punchbag::Program;
use punchbag::host::{Input, Output};
use punchbag::scenario::{self, Access, Scenario};
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PORT: u16 = 41641;
const BALL: &[u8] = &[0; 96];
/// What the other side sends once, to open its own NAT; nobody answers it.
const KNOCK: &[u8] = &[0];

/// Nothing is kept and nothing is looked for.
pub(crate) const QUIET: Options = Options {
    log: false,
    timers: false,
    capture: false,
    checks: false,
    direct: true,
    peer_reflexive: true,
    kernel_boxes: false,
    disk: Duration::ZERO,
};

/// The cables of a world.
#[derive(Clone, Copy)]
pub(crate) enum Cables {
    /// Pure delay, and none inside the homes: a datagram takes two entries of the agenda. As few as a path through two
    /// NATs can have while both directions of an uplink exist.
    Delay,
    /// Those that a scenario gets without a word: a gigabit in the home and fibre outside, with their rates and
    /// queues. A datagram takes four entries.
    Default,
}

/// A world of pairs that play, warmed up.
pub(crate) fn world(pairs: usize, cables: Cables) -> World {
    let scenario = scenario(pairs, cables);
    let topology = Topology::new(&scenario).expect("the networks do not collide");
    let mut world = World::bare(&scenario, &topology, Seed(1), QUIET).expect("a world");
    // Home routers keep ports, so the other side's external endpoint is known beforehand.
    let outside = |router: &str| {
        let node = topology.find(router).expect("in the scenario");
        SocketAddr::new(topology.node(node).address, PORT)
    };
    for i in 0..pairs {
        for (me, other, first) in [("a", "b", BALL), ("b", "a", KNOCK)] {
            let player = Player { other: outside(&format!("home-{other}{i}")), first, out: None };
            world.add_program(&format!("{me}{i}"), Box::new(player)).expect("in the scenario");
        }
    }
    let warm = world.packets() + 20 * pairs as u64;
    play(&mut world, warm);
    world
}

/// Plays until so many datagrams have been sent since the start.
pub(crate) fn play(world: &mut World, until_packets: u64) {
    while world.packets() < until_packets {
        assert!(world.step(), "a ball was lost");
    }
}

fn scenario(pairs: usize, cables: Cables) -> Scenario {
    let mut text = String::from("title = \"Ping-pong\"\nuntil = \"1h\"\n");
    for i in 0..pairs {
        for (side, region) in [("a", "eu-west"), ("b", "us-east")] {
            let _ = writeln!(
                text,
                "[router.home-{side}{i}]\nregion = \"{region}\"\nnat = \"port-restricted-cone\"\n\
                 [host.{side}{i}]\nbehind = \"home-{side}{i}\""
            );
        }
    }
    let mut scenario = scenario::parse("ping-pong", "ping-pong.toml", &text).expect("a sound scenario");
    scenario.until = Duration::MAX;
    if let Cables::Delay = cables {
        let both = |config: LinkConfig| Access { down: config.clone(), up: config };
        for router in scenario.routers.values_mut() {
            router.link = both(LinkConfig { delay: Duration::from_millis(2), ..LinkConfig::default() });
        }
        for host in scenario.hosts.values_mut() {
            host.link = both(LinkConfig::default());
        }
    }
    scenario
}

/// Sends one datagram at the start, and back every ball that comes.
struct Player {
    other: SocketAddr,
    first: &'static [u8],
    out: Option<Output>,
}

impl Program for Player {
    fn udp_ports(&self) -> Vec<u16> {
        vec![PORT]
    }

    fn handle(&mut self, input: Input<'_>, _now: Instant) {
        match input {
            Input::Addresses(_) => {
                let data = Bytes::from_static(self.first);
                self.out = Some(Output::Datagram { port: PORT, to: self.other, data });
            }
            Input::Datagram { port, from, data } if data.len() == BALL.len() => {
                self.out = Some(Output::Datagram { port, to: from, data: data.clone() });
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.take()
    }
}
