//! The limits of relays, the coordination server, peers and hosts.

use super::common::{play, scenario};
use super::{SEC, Seen, bare, limits, refused, run_on, start, talk_on};
use derp::{Client, ClientConfig, ClientEvent, PrivateKey, Server, ServerConfig, ServerTransmit};
use punchbag::Program;
use punchbag::host::{Input, Output};
use punchbag::world::{Options, World};
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use trace::{Event, Path, Record};

limits!(
    relays_unlimited,
    one_coordinator,
    paths_by_round_trip,
    black_hole_beside_a_call,
    no_port_prediction,
    programs_take_no_time,
    clocks_alike,
    clock_in_sleep,
);

const PUBLIC: &str = "host.takkie = { region = \"eu-west\", address = \"33.0.0.50\" }\n\
                      host.flappie = { region = \"us-east\", address = \"33.0.0.60\" }\n";

fn relays_unlimited() {
    // A server that limits its clients says so in its greeting.
    let rng = || ChaCha12Rng::seed_from_u64(1);
    let mut client = Client::new(ClientConfig::new(PrivateKey::from_bytes([1; 32]), "relay"), rng(), start());
    let mut server = Server::new(ServerConfig::default(), PrivateKey::from_bytes([2; 32]), rng(), start());
    let conn = derp::ConnId(1);
    server.accepted(conn, super::ep("33.0.0.50:1"), start());
    server.writable(conn, 100_000, start());
    client.connected(start());
    for _ in 0..4 {
        while let Some(data) = client.poll_transmit(100_000) {
            server.handle_stream(conn, &data, start());
        }
        while let Some(transmit) = server.poll_transmit() {
            if let ServerTransmit::Write { data, .. } = transmit {
                client.handle_stream(&data, start()).expect("sound frames");
            }
        }
    }
    let mut events = std::iter::from_fn(|| client.poll_event());
    assert!(events.any(|event| matches!(event, ClientEvent::Ready { rate_limit: None, .. })));
}

fn one_coordinator() {
    for (more, words) in [
        ("[[coordinator]]\nregion = \"eu-west\"\n[[coordinator]]\nregion = \"us-east\"\n", "coordinator"),
        ("coordinator.second = { region = \"us-east\" }\n", "unknown key"),
    ] {
        refused(&format!("{PUBLIC}{more}"), words);
    }
}

/// A transfer between two homes, and what else there is.
fn transfer(firewall: &str, more: &str) -> Vec<Record> {
    let text = format!(
        "title = \"A transfer\"\nuntil = \"20s\"\n\
         router.home-a = {{ region = \"eu-west\", firewall = {firewall} }}\n\
         router.home-b = {{ region = \"eu-central\" }}\n\
         host.takkie = {{ behind = \"home-a\" }}\nhost.flappie = {{ behind = \"home-b\" }}\n\
         [[traffic]]\nkind = \"bulk\"\nfrom = \"takkie\"\nto = \"flappie\"\nat = \"5s\"\nbytes = \"3MB\"\n{more}"
    );
    play(&scenario(&text), 1, Options::default()).records
}

/// Bytes that have arrived.
fn transferred(records: &[Record]) -> u64 {
    let bytes = records.iter().filter_map(|record| match record.event {
        Event::BulkReceived { total_bytes, .. } => Some(total_bytes),
        _ => None,
    });
    bytes.max().unwrap_or(0)
}

/// The last path of a host.
fn last_path(records: &[Record]) -> Option<Path> {
    let path = |record: &Record| match &record.event {
        Event::PathChanged { host, path, .. } if &**host == "takkie" => Some(*path),
        _ => None,
    };
    records.iter().rev().find_map(path).flatten()
}

fn paths_by_round_trip() {
    let throttled = transfer("{ flow-rate = \"500kbit/s\" }", "");
    let over_the_relay = transfer("\"udp-blocked\"", "");

    assert_eq!(
        [&throttled, &over_the_relay].map(|run| last_path(run)),
        [Some(Path::Direct), Some(Path::Relay)]
    );
    let [slow, fast] = [throttled, over_the_relay].map(|run| transferred(&run));
    assert!(
        slow < 1_000_000 && fast == 3_000_000,
        "{slow} bytes on the path that is kept, {fast} on the other"
    );
}

fn black_hole_beside_a_call() {
    let narrow = "{ udp-max-size = \"600B\" }";
    let call = "[[traffic]]\nkind = \"voice\"\nfrom = \"takkie\"\nto = \"flappie\"\nat = \"2s\"\n";

    let [alone, beside] = ["", call].map(|more| transferred(&transfer(narrow, more)));

    assert_eq!(alone, 3_000_000, "noticed, and sent over the relay");
    assert_eq!(beside, 0);
}

fn no_port_prediction() {
    let text = "title = \"Two NATs that count up\"\nuntil = \"20s\"\n\
        router.home-a = { region = \"eu-west\", nat = \"symmetric-sequential\" }\n\
        router.home-b = { region = \"us-east\", nat = \"symmetric-sequential\" }\n\
        host.takkie = { behind = \"home-a\" }\nhost.flappie = { behind = \"home-b\" }\n\
        traffic = [{ kind = \"voice\", from = \"takkie\", to = \"flappie\" }]\n";

    let records = play(&scenario(text), 1, Options::default()).records;

    assert_eq!(last_path(&records), Some(Path::Relay));
    let known = records.iter().filter_map(|record| match &record.event {
        Event::Candidates { candidates, .. } => Some(candidates),
        _ => None,
    });
    let known: BTreeSet<SocketAddr> = known.flatten().copied().collect();
    let probed = records.iter().filter_map(|record| match record.event {
        Event::Probe { to, .. } => Some(to),
        _ => None,
    });
    let probed: BTreeSet<SocketAddr> = probed.collect();
    assert!(!probed.is_empty() && probed.is_subset(&known), "{probed:?}, of {known:?}");
}

fn programs_take_no_time() {
    let mut world = bare(PUBLIC);
    run_on(&mut world, "flappie", |input, _| match input {
        Input::Datagram { port, from, data } => {
            vec![Output::Datagram { port, to: from, data: data.clone() }]
        }
        _ => Vec::new(),
    });
    let seen = talk_on(&mut world, "takkie", &[("33.0.0.60:4000", 100); 20]);

    world.run_until(SEC);

    assert_eq!(seen.borrow().len(), 20);
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for Record { t, event } in world.log().records() {
        match event {
            Event::Delivered { node, .. } if &**node == "flappie" => came.push(*t),
            Event::Sent { node, .. } if &**node == "flappie" => went.push(*t),
            _ => {}
        }
    }
    assert_eq!(came, went);
}

/// Rings once, so long after it was started.
struct Alarm {
    after: Duration,
    deadline: Option<Instant>,
    rang: Seen<()>,
}

impl Program for Alarm {
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn handle(&mut self, _: Input<'_>, now: Instant) {
        self.deadline = Some(now + self.after);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(deadline) = self.deadline.take_if(|deadline| now >= *deadline) {
            self.rang.borrow_mut().push((now - deadline, ()));
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some((self.deadline?, "alarm"))
    }

    fn poll_output(&mut self) -> Option<Output> {
        None
    }
}

/// How late an alarm rings, once it has.
fn alarm(world: &mut World, host: &str, after: Duration) -> Seen<()> {
    let rang = Seen::default();
    let alarm = Alarm { after, deadline: None, rang: Rc::clone(&rang) };
    world.add_program(host, Box::new(alarm)).expect("a host");
    rang
}

fn clocks_alike() {
    let at = "at = [{ time = \"5s\", clock = { host = \"takkie\", by = \"+1h\" } }]\n";
    let mut world = bare(&format!("{PUBLIC}{at}"));
    let alarms = ["takkie", "flappie"].map(|host| alarm(&mut world, host, 50 * SEC));

    world.run_until(50 * SEC - Duration::from_nanos(1));
    assert_eq!(alarms.each_ref().map(|rang| rang.borrow().len()), [0, 0]);
    world.run_until(50 * SEC);
    assert_eq!(alarms.map(|rang| rang.take()), [[(Duration::ZERO, ())], [(Duration::ZERO, ())]]);

    let drifts = at.replace("by = \"+1h\"", "drift = \"50ppm\"");
    refused(&format!("{PUBLIC}{drifts}"), "unknown key");
}

fn clock_in_sleep() {
    let sleeps = "at = [{ time = \"5s\", sleep = { host = \"takkie\", for = \"10s\" } }]\n";
    let mut world = bare(&format!("{PUBLIC}{sleeps}"));
    let [meanwhile, later] = [10, 20].map(|after| alarm(&mut world, "takkie", after * SEC));

    world.run_until(60 * SEC);

    // A clock that stood still for those ten seconds would ring ten seconds late both times.
    let late = [meanwhile, later].map(|rang| rang.take());
    assert_eq!(late, [[(5 * SEC, ())], [(Duration::ZERO, ())]]);
}
