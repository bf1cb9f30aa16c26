//! Every limit on the page of limits, asserted as behaviour: whoever models one of these things makes its test fail, and so
//! finds the line to take off the page.

#[path = "../common/mod.rs"]
mod common;

mod boxes;
mod ends;
mod links;
mod network;
mod second_world;

use bytes::Bytes;
use common::scenario;
use punchbag::Program;
use punchbag::host::{Input, Output};
use punchbag::limits::LIMITS;
use punchbag::topology::Topology;
use punchbag::world::{Clock, Options, Seed, World};
use rand::SeedableRng as _;
use rand_pcg::Pcg64Mcg;
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Makes tests of functions, and a list of their names.
macro_rules! limits {
    ($($name:ident),* $(,)?) => {
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod limit {
            $(#[test]
            fn $name() {
                super::$name();
            })*
        }
    };
}
pub(crate) use limits;

#[test]
fn every_limit_has_its_test_and_every_test_its_limit() {
    let limits: BTreeSet<String> = LIMITS.iter().map(|limit| limit.id.replace('-', "_")).collect();
    assert_eq!(limits.len(), LIMITS.len(), "two limits have one name");
    let tests = [network::NAMES, boxes::NAMES, links::NAMES, ends::NAMES, second_world::NAMES].concat();
    assert_eq!(tests.len(), limits.len());

    assert_eq!(tests.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), limits);
}

pub(crate) const PORT: u16 = 4000;
pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SEC: Duration = Duration::from_secs(1);

pub(crate) fn ep(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn zeros(len: usize) -> Bytes {
    Bytes::from(vec![0; len])
}

pub(crate) fn rng() -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(1)
}

/// The start of a test that has no world, always the same.
pub(crate) fn start() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(|| Clock::new().now());
    *START
}

/// A scenario of a minute.
pub(crate) fn text(network: &str) -> String {
    format!("title = \"A limit\"\nuntil = \"60s\"\n{network}")
}

/// Asserts that a scenario is refused, with words of the message.
pub(crate) fn refused(network: &str, words: &str) {
    match punchbag::scenario::parse("test", "test.toml", &text(network)) {
        Ok(_) => panic!("accepted:\n{network}"),
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains(words), "{network}\n{error}");
        }
    }
}

/// A network without any programs of its own.
pub(crate) fn bare(network: &str) -> World {
    let scenario = scenario(&text(network));
    let topology = Topology::new(&scenario).expect("a sound network");
    World::bare(&scenario, &topology, Seed(1), Options::default()).expect("a world")
}

/// What a program saw, and when since it began.
pub(crate) type Seen<T> = Rc<RefCell<Vec<(Duration, T)>>>;

/// A program on UDP and TCP port [`PORT`] that is a function from what it is told, and when, to what it wants done.
struct Scripted<F> {
    act: F,
    began: Option<Instant>,
    out: VecDeque<Output>,
}

impl<F: FnMut(Input<'_>, Duration) -> Vec<Output> + 'static> Program for Scripted<F> {
    fn udp_ports(&self) -> Vec<u16> {
        vec![PORT]
    }

    fn tcp_ports(&self) -> Vec<u16> {
        vec![PORT]
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let out = (self.act)(input, now - began);
        self.out.extend(out);
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

/// Lets a function run as a program.
pub(crate) fn run_on(
    world: &mut World,
    host: &str,
    act: impl FnMut(Input<'_>, Duration) -> Vec<Output> + 'static,
) {
    let program = Scripted { act, began: None, out: VecDeque::new() };
    world.add_program(host, Box::new(program)).expect("a host");
}

/// Sends datagrams of some lengths from a host, and notes what comes to it: the length of a datagram, or an error's word.
pub(crate) fn talk_on(world: &mut World, host: &str, say: &[(&str, usize)]) -> Seen<String> {
    let seen = Seen::default();
    let datagram = |(to, len): &(&str, usize)| Output::Datagram { port: PORT, to: ep(to), data: zeros(*len) };
    let mut out: Vec<Output> = say.iter().map(datagram).collect();
    let note = Rc::clone(&seen);
    run_on(world, host, move |input, at| {
        match input {
            Input::Datagram { data, .. } => note.borrow_mut().push((at, data.len().to_string())),
            Input::Error { kind, .. } => note.borrow_mut().push((at, kind.as_str().to_owned())),
            _ => {}
        }
        std::mem::take(&mut out)
    });
    seen
}
