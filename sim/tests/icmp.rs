//! ICMP errors find their way back to the program that sent what they are about, through every translator on the way.

mod common;

use bytes::Bytes;
use common::scenario;
use punchbag::Program;
use punchbag::host::{ConnId, Input, Output};
use punchbag::packet::ErrorKind;
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

const PORT: u16 = 4000;
const SEC: Duration = Duration::from_secs(1);

/// What a program heard: since it started, from or about whom, and the error, if it was one.
type Heard = Rc<RefCell<Vec<(Duration, SocketAddr, Option<ErrorKind>)>>>;

/// Sends datagrams of some sizes, some time apart, and writes down what comes back.
struct Prober {
    to: SocketAddr,
    sizes: VecDeque<usize>,
    every: Duration,
    next: Option<Instant>,
    start: Option<Instant>,
    heard: Heard,
    out: VecDeque<Output>,
}

impl Prober {
    fn boxed(to: &str, sizes: &[usize], every: Duration) -> (Box<Prober>, Heard) {
        let heard = Heard::default();
        let prober = Prober {
            to: to.parse().expect("an endpoint"),
            sizes: sizes.iter().copied().collect(),
            every,
            next: None,
            start: None,
            heard: Rc::clone(&heard),
            out: VecDeque::new(),
        };
        (Box::new(prober), heard)
    }

    fn send(&mut self, now: Instant) {
        let Some(size) = self.sizes.pop_front() else { return };
        self.next = (!self.sizes.is_empty()).then(|| now + self.every);
        self.out.push_back(Output::Datagram { port: PORT, to: self.to, data: Bytes::from(vec![0; size]) });
    }
}

impl Program for Prober {
    fn udp_ports(&self) -> Vec<u16> {
        vec![PORT]
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        let start = *self.start.get_or_insert(now);
        match input {
            Input::Addresses(_) => self.send(now),
            Input::Datagram { from, .. } => self.heard.borrow_mut().push((now - start, from, None)),
            Input::Error { port, to, kind } => {
                assert_eq!(port, PORT);
                self.heard.borrow_mut().push((now - start, to, Some(kind)));
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.next.take().is_some() {
            self.send(now);
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some((self.next?, "next datagram"))
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

/// Plays a network in which one host sends some datagrams, and says what it heard.
fn heard(
    network: &str,
    host: &str,
    to: &str,
    sizes: &[usize],
    every: Duration,
) -> Vec<(Duration, SocketAddr, Option<ErrorKind>)> {
    let scenario = scenario(&format!("title = \"A network\"\nuntil = \"60s\"\n{network}"));
    let topology = Topology::new(&scenario).expect("a sound network");
    let logged = Options::default();
    let quiet = Options { log: false, ..logged };
    // What happens does not depend on who watches.
    let [with, without] = [logged, quiet].map(|options| {
        let mut world = World::bare(&scenario, &topology, Seed(1), options).expect("a world");
        let (prober, heard) = Prober::boxed(to, sizes, every);
        world.add_program(host, prober).expect("a host");
        world.run_until(60 * SEC);
        heard.take()
    });
    assert_eq!(with, without);
    with
}

const HOME: &str = "router.home = { region = \"eu-west\", nat = \"port-restricted-cone\" }\n\
                    host.takkie = { behind = \"home\" }\nhost.flappie = { region = \"eu-west\" }\n";

#[test]
fn rfc1122_4_1_3_1_a_closed_port_is_told_through_a_nat() {
    let heard = heard(HOME, "takkie", "33.0.0.2:9", &[100], SEC);

    let [(after, to, Some(ErrorKind::PortUnreachable))] = heard[..] else { panic!("{heard:?}") };
    assert_eq!(to, "33.0.0.2:9".parse().expect("an endpoint"));
    assert!(after < SEC / 10, "{after:?}");
}

#[test]
fn rfc1812_4_3_2_8_errors_are_limited_to_six_at_once_and_one_a_second() {
    let at_once = heard(HOME, "takkie", "33.0.0.2:9", &[100; 20], Duration::ZERO);
    let steady = heard(HOME, "takkie", "33.0.0.2:9", &[100; 100], SEC / 10);

    assert_eq!(at_once.len(), 6);
    // Ten seconds: the first six, and one for each second.
    assert!((15..=16).contains(&steady.len()), "{}", steady.len());
}

#[test]
fn rfc1812_5_3_1_a_packet_that_passed_too_many_routers_is_told_through_all_their_nats() {
    let mut network = String::from("host.flappie = { region = \"eu-west\" }\n");
    network +=
        "router.r0 = { region = \"eu-west\", nat = \"port-restricted-cone\", lan = \"10.0.0.0/24\" }\n";
    for i in 1..66 {
        let up = i - 1;
        network += &format!(
            "router.r{i} = {{ behind = \"r{up}\", nat = \"port-restricted-cone\", lan = \"10.{i}.0.0/24\" }}\n"
        );
    }
    // A packet is sent with a TTL of 64: the 64th router on its way takes the last of it.
    let inner = |depth: u32| format!("{network}host.takkie = {{ behind = \"r{}\" }}\n", depth - 1);

    let enough = heard(&inner(63), "takkie", "33.0.0.2:9", &[100], SEC);
    let too_many = heard(&inner(64), "takkie", "33.0.0.2:9", &[100], SEC);

    let kinds = [&enough, &too_many].map(|heard| heard.first().and_then(|(_, _, kind)| *kind));
    assert_eq!(kinds, [Some(ErrorKind::PortUnreachable), Some(ErrorKind::TimeExceeded)]);
}

#[test]
fn rfc1812_5_2_7_1_nobody_at_an_address_is_told_when_the_router_has_asked_three_times() {
    let network = "router.site = { region = \"eu-west\", nat = \"none\", lan = \"41.0.0.0/24\" }\n\
                   host.flappie = { behind = \"site\" }\nhost.takkie = { region = \"eu-west\" }\n";

    let heard = heard(network, "takkie", "41.0.0.77:9", &[100], SEC);

    let [(after, _, Some(ErrorKind::HostUnreachable))] = heard[..] else { panic!("{heard:?}") };
    assert!(after >= 3 * SEC && after < 3 * SEC + SEC / 10, "{after:?}");
}

#[test]
fn rfc5508_4_an_error_comes_back_through_two_nats_and_a_firewall() {
    let network = "router.edge = { region = \"eu-west\", nat = \"none\", firewall = \"stateful\", lan = \"41.0.0.0/24\" }\n\
                   router.carrier = { behind = \"edge\", nat = \"cgn\" }\n\
                   router.home = { behind = \"carrier\", nat = \"linux\" }\n\
                   host.takkie = { behind = \"home\" }\nhost.flappie = { region = \"eu-west\" }\n";

    let heard = heard(network, "takkie", "33.0.0.2:9", &[100], SEC);

    let [(_, to, Some(ErrorKind::PortUnreachable))] = heard[..] else { panic!("{heard:?}") };
    assert_eq!(to, "33.0.0.2:9".parse().expect("an endpoint"), "as the program knows it");
}

/// Three layers of NAT, of which each may or may not turn packets for its own address back inside.
fn hairpinned(building: &str, carrier: &str, to: &str) -> Vec<SocketAddr> {
    let text = format!(
        "title = \"A house\"\nuntil = \"5s\"\n\
         router.carrier = {{ region = \"eu-west\", lan = \"100.64.0.0/10\", nat = {{ filtering = \"endpoint-independent\", hairpin = \"{carrier}\" }} }}\n\
         router.building = {{ behind = \"carrier\", lan = \"10.0.0.0/24\", nat = {{ filtering = \"endpoint-independent\", hairpin = \"{building}\" }} }}\n\
         router.a = {{ behind = \"building\", nat = {{ filtering = \"endpoint-independent\", hairpin = \"none\" }} }}\n\
         router.b = {{ behind = \"building\", nat = {{ filtering = \"endpoint-independent\", hairpin = \"none\" }} }}\n\
         host.takkie = {{ behind = \"a\" }}\nhost.flappie = {{ behind = \"b\" }}\nhost.server = {{ region = \"eu-west\" }}\n"
    );
    let scenario = scenario(&text);
    let topology = Topology::new(&scenario).expect("a sound network");
    let mut world = World::bare(&scenario, &topology, Seed(1), Options::default()).expect("a world");
    // What flappie sends first makes bindings that keep its port at every layer, open to anybody.
    let (flappie, heard) = Prober::boxed("33.0.0.2:9", &[1], SEC);
    world.add_program("flappie", flappie).expect("a host");
    world.run_until(SEC);
    let (takkie, _) = Prober::boxed(to, &[1], SEC);
    world.add_program("takkie", takkie).expect("a host");
    world.run_until(5 * SEC);
    heard.take().into_iter().filter(|(_, _, error)| error.is_none()).map(|(_, from, _)| from).collect()
}

#[test]
fn rfc4787_req9_each_layer_turns_back_what_is_for_its_own_address_and_no_other() {
    let source = |text: &str| vec![text.parse::<SocketAddr>().expect("an endpoint")];
    let (at_building, at_carrier) = ("100.64.0.2:4000", "33.0.0.1:4000");
    for (building, carrier) in [
        ("none", "none"),
        ("none", "external-source"),
        ("external-source", "none"),
        ("external-source", "external-source"),
    ] {
        // The sender shows the address of the layer that turned the packet, with the next port that was free there.
        let inner = if building == "none" { vec![] } else { source("100.64.0.2:4001") };
        let outer = if carrier == "none" { vec![] } else { source("33.0.0.1:4001") };
        assert_eq!(hairpinned(building, carrier, at_building), inner, "{building} inside {carrier}");
        assert_eq!(hairpinned(building, carrier, at_carrier), outer, "{building} inside {carrier}");
    }
}

/// Opens a TCP connection and writes down when it hears that there is none.
struct Dialer {
    to: SocketAddr,
    start: Option<Instant>,
    closed: Rc<RefCell<Vec<Duration>>>,
    out: VecDeque<Output>,
}

impl Program for Dialer {
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        let start = *self.start.get_or_insert(now);
        match input {
            Input::Addresses(_) => self.out.push_back(Output::Connect { conn: ConnId(0), to: self.to }),
            Input::Closed { .. } => self.closed.borrow_mut().push(now - start),
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

/// When a connection from outside to a NAT ends, with that in the NAT's table. The same with a log and without.
fn refused(nat: &str) -> Option<Duration> {
    let [with, without] = [true, false].map(|log| {
        let scenario = scenario(&format!(
            "title = \"A home\"\nuntil = \"60s\"\nrouter.home = {{ region = \"eu-west\", nat = {{ {nat} }} }}\n\
             host.takkie = {{ behind = \"home\" }}\nhost.flappie = {{ region = \"eu-west\" }}\n"
        ));
        let topology = Topology::new(&scenario).expect("a sound network");
        let mut world = World::bare(&scenario, &topology, Seed(1), Options { log, ..Options::default() })
            .expect("a world");
        let closed = Rc::default();
        let to = "33.0.0.1:443".parse().expect("an endpoint");
        let dialer = Dialer { to, start: None, closed: Rc::clone(&closed), out: VecDeque::new() };
        world.add_program("flappie", Box::new(dialer)).expect("a host");
        world.run_until(60 * SEC);
        closed.take()
    });
    assert_eq!(with, without);
    with.first().copied()
}

#[test]
fn rfc5382_req4_a_syn_from_outside_is_answered_after_six_seconds_and_ends_the_attempt() {
    let held = refused("syn-hold = \"6s\", unsolicited = \"icmp\"").expect("an answer");
    assert!(held >= 6 * SEC && held < 6 * SEC + SEC / 10, "{held:?}");
    let at_once = refused("unsolicited = \"icmp\"").expect("an answer");
    assert!(at_once < SEC / 10, "{at_once:?}");
    let reset = refused("unsolicited = \"rst\"").expect("an answer");
    assert!(reset < SEC / 10, "{reset:?}");
    assert_eq!(refused("unsolicited = \"drop\""), None, "the attempt still goes on");
}

#[test]
fn a_nat_that_answers_tells_senders_of_udp_from_outside() {
    let network = "router.home = { region = \"eu-west\", nat = { unsolicited = \"icmp\" } }\n\
                   host.takkie = { behind = \"home\" }\nhost.flappie = { region = \"eu-west\" }\n";

    let heard = heard(network, "flappie", "33.0.0.1:9", &[100], SEC);

    assert!(matches!(heard[..], [(_, _, Some(ErrorKind::PortUnreachable))]), "{heard:?}");
}

#[test]
fn rfc1191_what_is_too_long_for_a_link_is_told_through_a_nat_or_not() {
    let network = |pmtud: &str| {
        format!(
            "router.provider = {{ region = \"eu-west\", lan = \"10.0.0.0/24\", nat = \"linux\", link = {{ mtu = 1300, pmtud = \"{pmtud}\" }} }}\n\
             router.home = {{ behind = \"provider\", nat = \"linux\" }}\n\
             host.takkie = {{ behind = \"home\" }}\nhost.flappie = {{ region = \"eu-west\" }}\n"
        )
    };

    let told = heard(&network("icmp"), "takkie", "33.0.0.2:4000", &[1272, 1273, 1273], SEC);
    let silent = heard(&network("silent"), "takkie", "33.0.0.2:4000", &[1272, 1273, 1273], SEC);

    let kinds: Vec<_> = told.iter().map(|(_, _, kind)| *kind).collect();
    let too_big = Some(ErrorKind::TooBig { mtu: 1300 });
    assert_eq!(kinds, [Some(ErrorKind::PortUnreachable), too_big, too_big]);
    assert_eq!(silent.len(), 1, "only the one that fits is answered");
}
