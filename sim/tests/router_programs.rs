//! A router is a host too: programs run on it, open to its inside and closed to the rest.

mod common;

use bytes::Bytes;
use common::scenario;
use punchbag::Program;
use punchbag::host::{Input, Output};
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use trace::Event;

const PORT: u16 = 5351;

type Heard = Rc<RefCell<Vec<(SocketAddr, Bytes)>>>;

/// Says something at the start, and answers whatever is no answer.
struct Talker {
    say: Vec<SocketAddr>,
    heard: Heard,
    out: Vec<Output>,
}

impl Talker {
    fn boxed(say: &[&str]) -> (Box<Talker>, Heard) {
        let heard = Heard::default();
        let say = say.iter().map(|to| to.parse().expect("an endpoint")).collect();
        (Box::new(Talker { say, heard: Rc::clone(&heard), out: Vec::new() }), heard)
    }
}

impl Program for Talker {
    fn udp_ports(&self) -> Vec<u16> {
        vec![PORT]
    }

    fn handle(&mut self, input: Input<'_>, _: Instant) {
        match input {
            Input::Addresses(_) => {
                for to in std::mem::take(&mut self.say) {
                    self.out.push(Output::Datagram { port: PORT, to, data: Bytes::from_static(b"ask") });
                }
            }
            Input::Datagram { from, data, .. } => {
                self.heard.borrow_mut().push((from, data.clone()));
                if data.as_ref() == b"ask" {
                    self.out.push(Output::Datagram {
                        port: PORT,
                        to: from,
                        data: Bytes::from_static(b"answer"),
                    });
                }
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }
}

fn world() -> World {
    let scenario = scenario(
        "title = \"A home\"\nrouter.home = { region = \"eu-west\", nat = \"full-cone\" }\n\
         host.takkie = { behind = \"home\" }\nhost.binkie = { behind = \"home\" }\nhost.flappie = { region = \"eu-west\" }",
    );
    let topology = Topology::new(&scenario).expect("a sound network");
    World::bare(&scenario, &topology, Seed(1), Options::default()).expect("a world")
}

fn run(world: &mut World) -> Vec<(String, String)> {
    world.run_until(Duration::from_secs(1));
    let dropped = world.log().records().iter().filter_map(|record| match &record.event {
        Event::Dropped { node, reason, .. } => Some((node.to_string(), reason.to_string())),
        _ => None,
    });
    dropped.collect()
}

fn heard(heard: &Heard) -> Vec<(String, String)> {
    let text = |data: &Bytes| String::from_utf8_lossy(data).into_owned();
    heard.borrow().iter().map(|(from, data)| (from.to_string(), text(data))).collect()
}

fn words(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_program_on_a_router_answers_those_inside_at_its_address_and_at_a_group() {
    let mut world = world();
    let (gateway, asked) = Talker::boxed(&[]);
    let (takkie, answers) = Talker::boxed(&["192.168.1.1:5351", "239.255.255.250:5351"]);
    world.add_program("home", gateway).expect("a router");
    world.add_program("takkie", takkie).expect("a host");

    let dropped = run(&mut world);

    assert_eq!(dropped, []);
    assert_eq!(heard(&asked), words(&[("192.168.1.2:5351", "ask"), ("192.168.1.2:5351", "ask")]));
    assert_eq!(heard(&answers), words(&[("192.168.1.1:5351", "answer"), ("192.168.1.1:5351", "answer")]));
}

#[test]
fn a_program_on_a_router_is_heard_by_everybody_inside_when_it_speaks_to_a_group() {
    let mut world = world();
    let (gateway, _) = Talker::boxed(&["224.0.0.1:5351"]);
    let (takkie, first) = Talker::boxed(&[]);
    let (binkie, second) = Talker::boxed(&[]);
    world.add_program("takkie", takkie).expect("a host");
    world.add_program("binkie", binkie).expect("a host");
    world.add_program("home", gateway).expect("a router");

    assert_eq!(run(&mut world), []);

    assert_eq!(heard(&first), words(&[("192.168.1.1:5351", "ask")]));
    assert_eq!(heard(&second), words(&[("192.168.1.1:5351", "ask")]));
}

#[test]
fn a_program_on_a_router_is_closed_to_those_outside_whom_it_has_not_asked() {
    let mut world = world();
    let (gateway, asked) = Talker::boxed(&[]);
    let (flappie, answers) = Talker::boxed(&["33.0.0.1:5351"]);
    world.add_program("home", gateway).expect("a router");
    world.add_program("flappie", flappie).expect("a host");

    let dropped = run(&mut world);

    assert_eq!(dropped, words(&[("home", "no-binding")]));
    assert!(asked.borrow().is_empty() && answers.borrow().is_empty());
}

#[test]
fn a_program_on_a_router_asks_outside_from_the_routers_address_there_and_hears_the_answer() {
    let mut world = world();
    let (flappie, asked) = Talker::boxed(&[]);
    let (gateway, answers) = Talker::boxed(&["33.0.0.2:5351"]);
    world.add_program("flappie", flappie).expect("a host");
    world.add_program("home", gateway).expect("a router");

    assert_eq!(run(&mut world), []);

    assert_eq!(heard(&asked), words(&[("33.0.0.1:5351", "ask")]));
    assert_eq!(heard(&answers), words(&[("33.0.0.2:5351", "answer")]));
}
