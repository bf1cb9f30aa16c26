//! Behaviour discovery through NATs of every kind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use stun::client::Retransmit;
use stun::discovery::{Behaviour, Dependence, Discovery};
use stun::server::Server;

use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

const PRIMARY: &str = "198.51.100.1:3478";
const ALTERNATE: &str = "198.51.100.2:3479";

#[expect(clippy::disallowed_methods, reason = "a test starts the time somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What of a remote endpoint a mapping or filter looks at.
type Key = (Option<std::net::IpAddr>, Option<u16>);

fn key(on: Dependence, remote: SocketAddr) -> Key {
    ((on != EndpointIndependent).then(|| remote.ip()), (on == AddressAndPortDependent).then(|| remote.port()))
}

/// One inside socket behind a NAT, by the definitions of RFC 4787 §4.1 and §5.
struct Nat {
    mapping: Dependence,
    filtering: Dependence,
    external: BTreeMap<Key, SocketAddr>,
    open: BTreeSet<(SocketAddr, Key)>,
}

impl Nat {
    fn new(mapping: Dependence, filtering: Dependence) -> Nat {
        Nat { mapping, filtering, external: BTreeMap::new(), open: BTreeSet::new() }
    }

    fn outbound(&mut self, to: SocketAddr) -> SocketAddr {
        let port = 50_000 + u16::try_from(self.external.len()).unwrap();
        let new = SocketAddr::new(address("203.0.113.9:0").ip(), port);
        let external = *self.external.entry(key(self.mapping, to)).or_insert(new);
        self.open.insert((external, key(self.filtering, to)));
        external
    }

    fn lets_in(&self, external: SocketAddr, from: SocketAddr) -> bool {
        self.open.contains(&(external, key(self.filtering, from)))
    }
}

/// Runs a discovery to its end; `drop` names the requests that get lost, by number.
fn discover(server: &Server, nat: &mut Nat, lost: impl Fn(usize) -> bool) -> (Behaviour, Duration) {
    let began = start();
    let mut now = began;
    let rng = ChaCha12Rng::from_seed([9; 32]);
    let mut discovery = Discovery::new(address(PRIMARY), Retransmit::FAST, rng, now);
    let mut requests = 0;
    loop {
        while let Some((to, datagram)) = discovery.poll_transmit() {
            let external = nat.outbound(to);
            requests += 1;
            if lost(requests) {
                continue;
            }
            if let Some(response) = server.respond(to, external, &datagram)
                && nat.lets_in(external, response.from_local)
            {
                assert!(discovery.handle(response.from_local, &response.data, now));
            }
        }
        if let Some(behaviour) = discovery.poll_event() {
            assert_eq!(discovery.poll_timeout(), None);
            return (behaviour, now - began);
        }
        now = discovery.poll_timeout().expect("neither an outcome nor a deadline").0;
        discovery.handle_timeout(now);
    }
}

fn full_server() -> Server {
    Server::with_alternate(address(PRIMARY), address(ALTERNATE)).unwrap()
}

#[test]
fn rfc_5780_4_3_and_4_4_all_nine() {
    for mapping in [EndpointIndependent, AddressDependent, AddressAndPortDependent] {
        for filtering in [EndpointIndependent, AddressDependent, AddressAndPortDependent] {
            let mut nat = Nat::new(mapping, filtering);
            let (behaviour, _) = discover(&full_server(), &mut nat, |_| false);
            let expected = Behaviour {
                mapped: Some(address("203.0.113.9:50000")),
                mapping: Some(mapping),
                filtering: Some(filtering),
            };
            assert_eq!(behaviour, expected, "{} {}", mapping.as_str(), filtering.as_str());
        }
    }
}

#[test]
fn a_lost_request_does_not_change_the_outcome() {
    for lost in 1..=5 {
        let mut nat = Nat::new(AddressAndPortDependent, AddressDependent);
        let (behaviour, _) = discover(&full_server(), &mut nat, |request| request == lost);
        let found = (behaviour.mapping, behaviour.filtering);
        assert_eq!(found, (Some(AddressAndPortDependent), Some(AddressDependent)), "request {lost}");
    }
}

#[test]
fn an_open_filter_is_found_without_waiting() {
    let (_, took) =
        discover(&full_server(), &mut Nat::new(EndpointIndependent, EndpointIndependent), |_| false);
    assert_eq!(took, Duration::ZERO);
}

#[test]
fn a_closed_filter_costs_one_time_to_give_up() {
    let mut nat = Nat::new(EndpointIndependent, AddressAndPortDependent);
    let (_, took) = discover(&full_server(), &mut nat, |_| false);
    assert_eq!(took, Duration::from_millis(1500));
}

#[test]
fn a_server_without_alternate_tells_the_address_only() {
    let mut nat = Nat::new(EndpointIndependent, EndpointIndependent);
    let (behaviour, _) = discover(&Server::new(), &mut nat, |_| false);
    let mapped = Some(address("203.0.113.9:50000"));
    assert_eq!(behaviour, Behaviour { mapped, mapping: None, filtering: None });
}

#[test]
fn silence_means_no_address() {
    let mut nat = Nat::new(EndpointIndependent, EndpointIndependent);
    let (behaviour, took) = discover(&full_server(), &mut nat, |_| true);
    assert_eq!(behaviour, Behaviour { mapped: None, mapping: None, filtering: None });
    assert_eq!(took, Duration::from_millis(1500));
}

#[test]
fn the_same_seed_asks_the_same() {
    let first = |seed| {
        let rng = ChaCha12Rng::from_seed([seed; 32]);
        Discovery::new(address(PRIMARY), Retransmit::FAST, rng, start()).poll_transmit()
    };
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
}
