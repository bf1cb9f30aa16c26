//! A small exchange without cryptography: two hosts tell a server that they are there, learn each other's address from it,
//! and send each other a datagram every 30 ms for two seconds, 122 datagrams in all. Here, and in turmoil.

use crate::ping_pong::QUIET;
use bytes::Bytes;
use punchbag::Program;
use punchbag::host::{Input, Output};
use punchbag::scenario::{self, Scenario};
use punchbag::topology::Topology;
use punchbag::world::{Seed, World};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Datagrams that are sent in an exchange: two registrations, two answers, and what the two hosts send each other.
pub(crate) const DATAGRAMS: u64 = 4 + 2 * EACH as u64;

const EACH: u32 = 59;
const INTERVAL: Duration = Duration::from_millis(30);
const PORT: u16 = 41641;
const SERVER_PORT: u16 = 3478;
const HELLO: &[u8] = b"here I am";
const DATA: &[u8] = &[0; 96];
/// Of turmoil's messages, one way, in whole ticks: what the regions of the scenario are apart.
const TURMOIL_LATENCY: Duration = Duration::from_millis(38);

/// The network: the server near one of two homes with a NAT each.
pub(crate) fn scenario() -> Scenario {
    let text = r#"
title = "Exchange"
until = "2s"
router.home-a = { region = "eu-west", nat = "port-restricted-cone" }
router.home-b = { region = "us-east", nat = "port-restricted-cone" }
host.takkie = { behind = "home-a" }
host.flappie = { behind = "home-b" }
host.server = { region = "eu-west" }
"#;
    scenario::parse("exchange", "exchange.toml", text).expect("a sound scenario")
}

/// Builds the world and plays the exchange through both NATs. Returns how many of the hosts' own datagrams arrived.
pub(crate) fn simulated(scenario: &Scenario, seed: u64) -> u32 {
    let topology = Topology::new(scenario).expect("the networks do not collide");
    let mut world = World::bare(scenario, &topology, Seed(seed), QUIET).expect("a world");
    let server = topology.node(topology.find("server").expect("in the scenario")).address;
    let received = Rc::new(Cell::new(0));
    world.add_program("server", Box::<Server>::default()).expect("in the scenario");
    for name in ["takkie", "flappie"] {
        let friend = Friend::new(SocketAddr::new(server, SERVER_PORT), Rc::clone(&received));
        world.add_program(name, Box::new(friend)).expect("in the scenario");
    }
    while world.step() {}
    assert_eq!(world.packets(), DATAGRAMS);
    received.get()
}

/// The same in turmoil. It cannot rewrite addresses, so there are no NATs; every host has its own runtime, and time goes
/// in ticks of a millisecond, its default.
pub(crate) fn turmoil(seed: u64) -> u32 {
    let received = Rc::new(Cell::new(0));
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(5))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(TURMOIL_LATENCY)
        .max_message_latency(TURMOIL_LATENCY)
        .rng_seed(seed)
        .build();
    sim.host("server", || async {
        let socket = turmoil::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT)).await?;
        let mut buffer = [0; 128];
        let (_, first) = socket.recv_from(&mut buffer).await?;
        let (_, second) = socket.recv_from(&mut buffer).await?;
        socket.send_to(second.to_string().as_bytes(), first).await?;
        socket.send_to(first.to_string().as_bytes(), second).await?;
        Ok(())
    });
    for name in ["takkie", "flappie"] {
        sim.client(name, friend_in_turmoil(Rc::clone(&received)));
    }
    sim.run().expect("both hosts finish");
    received.get()
}

async fn friend_in_turmoil(received: Rc<Cell<u32>>) -> turmoil::Result {
    let socket = turmoil::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    socket.send_to(HELLO, ("server", SERVER_PORT)).await?;
    let mut buffer = [0; 128];
    let (len, _) = socket.recv_from(&mut buffer).await?;
    let other = address(&buffer[..len]).ok_or("no address from the server")?;
    let mut next = tokio::time::Instant::now();
    for _ in 0..EACH {
        socket.send_to(DATA, other).await?;
        next += INTERVAL;
        while tokio::time::timeout_at(next, socket.recv_from(&mut buffer)).await.is_ok() {
            received.set(received.get() + 1);
        }
    }
    // What is still on its way.
    next += TURMOIL_LATENCY;
    while tokio::time::timeout_at(next, socket.recv_from(&mut buffer)).await.is_ok() {
        received.set(received.get() + 1);
    }
    Ok(())
}

fn address(text: &[u8]) -> Option<SocketAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Tells the first two who ask where the other one is.
#[derive(Default)]
struct Server {
    first: Option<SocketAddr>,
    out: VecDeque<Output>,
}

impl Program for Server {
    fn udp_ports(&self) -> Vec<u16> {
        vec![SERVER_PORT]
    }

    fn handle(&mut self, input: Input<'_>, _now: Instant) {
        let Input::Datagram { port, from: second, .. } = input else { return };
        let Some(first) = self.first.take() else {
            self.first = Some(second);
            return;
        };
        let mut tell = |to, other: SocketAddr| {
            self.out.push_back(Output::Datagram { port, to, data: other.to_string().into_bytes().into() });
        };
        tell(first, second);
        tell(second, first);
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

struct Friend {
    server: SocketAddr,
    other: Option<SocketAddr>,
    /// When the next datagram goes out.
    next: Option<Instant>,
    sent: u32,
    received: Rc<Cell<u32>>,
    out: Option<Output>,
}

impl Friend {
    fn new(server: SocketAddr, received: Rc<Cell<u32>>) -> Friend {
        Friend { server, other: None, next: None, sent: 0, received, out: None }
    }

    fn send(&mut self, to: SocketAddr, data: &'static [u8]) {
        self.out = Some(Output::Datagram { port: PORT, to, data: Bytes::from_static(data) });
    }

    fn send_next(&mut self, now: Instant) {
        if let Some(other) = self.other {
            self.send(other, DATA);
            self.sent += 1;
            self.next = (self.sent < EACH).then(|| now + INTERVAL);
        }
    }
}

impl Program for Friend {
    fn udp_ports(&self) -> Vec<u16> {
        vec![PORT]
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Addresses(_) => self.send(self.server, HELLO),
            Input::Datagram { from, data, .. } if from == self.server => {
                self.other = address(data);
                self.send_next(now);
            }
            Input::Datagram { .. } => self.received.set(self.received.get() + 1),
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.send_next(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some((self.next?, "next datagram"))
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.take()
    }
}
