//! Every NAT preset, looked at by the behaviour discovery of RFC 5780 from a host behind it, is what its axes say.

mod common;

use common::scenario;
use nat::{Filtering, Hairpin, Mapping, Pooling, Translation};
use punchbag::Program;
use punchbag::host::{Input, Output};
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use stun::client::Retransmit;
use stun::discovery::{Behaviour, Dependence, Discovery};
use stun::server::Server;

/// The server's two ports, on each of its two addresses.
const PORTS: [u16; 2] = [3478, 3479];
const CLIENT: u16 = 40_000;
/// How often each half of the server looks whether the other has left it something to send.
const GLANCE: Duration = Duration::from_millis(10);

/// What the two halves of the server have to send: their own socket, to whom, what.
type Outbox = Rc<RefCell<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>>;

/// One address of a STUN server with two.
struct Half {
    server: Server,
    own: std::net::IpAddr,
    outbox: Outbox,
    next: Option<Instant>,
}

impl Program for Half {
    fn udp_ports(&self) -> Vec<u16> {
        PORTS.to_vec()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.next.get_or_insert(now + GLANCE);
        if let Input::Datagram { port, from, data } = input
            && let Some(answer) = self.server.respond(SocketAddr::new(self.own, port), from, data)
        {
            self.outbox.borrow_mut().push((answer.from_local, answer.to, answer.data));
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.next = Some(now + GLANCE);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some((self.next?, "the other half may have left something"))
    }

    fn poll_output(&mut self) -> Option<Output> {
        let mut outbox = self.outbox.borrow_mut();
        let mine = outbox.iter().position(|(from, ..)| from.ip() == self.own)?;
        let (from, to, data) = outbox.swap_remove(mine);
        Some(Output::Datagram { port: from.port(), to, data: data.into() })
    }
}

/// What the client has found out.
#[derive(Debug, Default)]
struct Found {
    behaviour: Option<Behaviour>,
    /// Where its packet to its own mapped address came back from (RFC 5780 §4.5).
    turned_around: Option<SocketAddr>,
}

struct Client {
    server: SocketAddr,
    /// From the first call on, which tells the time.
    discovery: Option<Discovery>,
    found: Rc<RefCell<Found>>,
    extra: VecDeque<Output>,
}

impl Client {
    fn proceed(&mut self) {
        let Some(behaviour) = self.discovery.as_mut().and_then(Discovery::poll_event) else { return };
        if let Some(to) = behaviour.mapped {
            self.extra.push_back(Output::Datagram { port: CLIENT, to, data: "around".into() });
        }
        self.found.borrow_mut().behaviour = Some(behaviour);
    }
}

impl Program for Client {
    fn udp_ports(&self) -> Vec<u16> {
        vec![CLIENT]
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        let (server, rng) = (self.server, ChaCha12Rng::seed_from_u64(7));
        let discovery =
            self.discovery.get_or_insert_with(|| Discovery::new(server, Retransmit::default(), rng, now));
        let Input::Datagram { from, data, .. } = input else { return };
        if data.as_ref() == b"around" {
            self.found.borrow_mut().turned_around = Some(from);
            return;
        }
        discovery.handle(from, data, now);
        self.proceed();
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(discovery) = &mut self.discovery {
            discovery.handle_timeout(now);
        }
        self.proceed();
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.discovery.as_ref()?.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        let datagram = self.discovery.as_mut().and_then(Discovery::poll_transmit);
        let datagram = datagram.map(|(to, data)| Output::Datagram { port: CLIENT, to, data: data.into() });
        datagram.or_else(|| self.extra.pop_front())
    }
}

/// What a client behind a router with this `nat` finds out.
fn look(nat: &str) -> Found {
    let scenario = scenario(&format!(
        "title = \"discovery\"\nuntil = \"60s\"\n\
         [router.home]\nregion = \"eu-west\"\nnat = {nat}\n\
         [host.client]\nbehind = \"home\"\n\
         [host.one]\nregion = \"eu-central\"\naddress = \"192.0.2.1\"\n\
         [host.two]\nregion = \"eu-central\"\naddress = \"192.0.2.2\"\n"
    ));
    let topology = Topology::new(&scenario).expect("a topology");
    let options = Options { log: false, ..Options::default() };
    let mut world = World::bare(&scenario, &topology, Seed(1), options).expect("a network");
    let addresses = ["one", "two"].map(|name| topology.node(topology.find(name).expect("a host")).address);
    let [primary, alternate] = [0, 1].map(|i| SocketAddr::new(addresses[i], PORTS[i]));
    let server = Server::with_alternate(primary, alternate).expect("two addresses and ports");
    let outbox = Outbox::default();
    for (name, own) in ["one", "two"].into_iter().zip(addresses) {
        let half = Half { server: server.clone(), own, outbox: outbox.clone(), next: None };
        world.add_program(name, Box::new(half)).expect("a host");
    }
    let found = Rc::new(RefCell::new(Found::default()));
    let client = Client { server: primary, discovery: None, found: found.clone(), extra: VecDeque::new() };
    world.add_program("client", Box::new(client)).expect("a host");
    world.run().expect("a run");
    found.take()
}

fn dependence(mapping: Mapping) -> Dependence {
    match mapping {
        Mapping::EndpointIndependent => Dependence::EndpointIndependent,
        Mapping::AddressDependent => Dependence::AddressDependent,
        Mapping::AddressAndPortDependent => Dependence::AddressAndPortDependent,
    }
}

/// What a translation is in the words of RFC 5780, and whether it turns packets around.
fn expected(translation: &Translation) -> (Dependence, Dependence, bool) {
    match translation {
        Translation::Axes(nat) if nat.pooling == Pooling::OneToOne => {
            (Dependence::EndpointIndependent, Dependence::EndpointIndependent, nat.hairpin != Hairpin::Off)
        }
        Translation::Axes(nat) => {
            let filtering = match nat.filtering {
                Filtering::EndpointIndependent => Dependence::EndpointIndependent,
                Filtering::AddressDependent => Dependence::AddressDependent,
                Filtering::AddressAndPortDependent => Dependence::AddressAndPortDependent,
            };
            (dependence(nat.mapping), filtering, nat.hairpin != Hairpin::Off)
        }
        // Masquerade filters by address and port, and reuses a port for every destination unless it is told to draw.
        Translation::Linux(nat) => {
            let mapping = if nat.random {
                Dependence::AddressAndPortDependent
            } else {
                Dependence::EndpointIndependent
            };
            (mapping, Dependence::AddressAndPortDependent, nat.hairpin)
        }
    }
}

#[test]
fn every_preset_is_found_to_be_what_its_axes_say() {
    for preset in nat::presets::NATS {
        let (mapping, filtering, hairpin) = expected(&preset.config);
        let Found { behaviour, turned_around } = look(&format!("\"{}\"", preset.name));
        let behaviour = behaviour.unwrap_or_else(|| panic!("{}: nothing was found out", preset.name));
        let seen = (behaviour.mapping, behaviour.filtering, turned_around.is_some());
        assert_eq!(seen, (Some(mapping), Some(filtering), hairpin), "{}", preset.name);
    }
}

#[test]
fn every_combination_of_mapping_and_filtering_is_told_apart() {
    for mapping in Mapping::ALL {
        for filtering in Filtering::ALL {
            let nat =
                format!("{{ mapping = \"{mapping}\", filtering = \"{filtering}\", ports = \"random\" }}");
            let behaviour = look(&nat).behaviour.expect("an outcome");
            let words = [behaviour.mapping, behaviour.filtering].map(|found| found.map(Dependence::as_str));
            assert_eq!(words, [Some(mapping.as_str()), Some(filtering.as_str())]);
        }
    }
}

#[test]
fn the_source_of_a_packet_turned_around_is_found() {
    let mapped = look("\"rfc4787\"");
    assert_eq!(
        mapped.turned_around,
        mapped.behaviour.and_then(|behaviour| behaviour.mapped),
        "RFC 4787 REQ-9a"
    );
    let inside = look("\"internal-source\"").turned_around.expect("a packet");
    assert_eq!(inside, SocketAddr::from(([192, 168, 1, 2], CLIENT)));
}
