//! The limits of links, and of TCP over them.

use super::{MS, PORT, SEC, Seen, bare, ep, limits, refused, rng, run_on, start, talk_on, zeros};
use link::presets::LINKS;
use link::{Jitter, Link, LinkConfig, Sent};
use punchbag::host::{ConnId, Input, Output};
use punchbag::packet::{IpEcn, Packet};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tcp::{Algorithm, Config, Connection, Flags, Segment};
use trace::Event;

limits!(
    jitter_without_memory,
    directions_apart,
    ip_bytes_alone,
    no_5g,
    three_aqms,
    plain_tcp,
    programs_read_at_once,
);

/// How long a packet of a thousand bytes takes through a link.
fn took(link: &mut Link, now: Instant) -> Duration {
    match link.send(1000, now) {
        Sent::Deliver { at, .. } => at - now,
        other => panic!("{other:?}"),
    }
}

/// A host's cable.
fn cable(keys: &str) -> String {
    format!("router.a = {{ region = \"eu-west\", link = {{ {keys} }} }}\n")
}

fn jitter_without_memory() {
    let jitter = Jitter::Uniform { plus_minus: 10 * MS };
    let mut link = Link::new(LinkConfig { delay: 20 * MS, jitter, ..LinkConfig::default() }, rng());
    let late: Vec<bool> = (0..10_000).map(|i| took(&mut link, start() + i * SEC) > 20 * MS).collect();

    // Like its predecessor as often as not: 5 standard deviations are 250.
    let alike = late.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(alike.abs_diff(5000) < 250, "{alike}");
    refused(&cable("jitter-correlation = \"25%\""), "unknown key");
}

fn directions_apart() {
    const MANY: [usize; 50] = [1000; 50];
    let arrivals = |answers: usize| {
        let cable = "link = { down = \"1Mbit/s\", up = \"1Mbit/s\", queue = \"unlimited\" }";
        let mut world = bare(&format!(
            "host.takkie = {{ region = \"eu-west\", address = \"33.0.0.50\", {cable} }}\n\
             host.flappie = {{ region = \"eu-west\", address = \"33.0.0.60\", {cable} }}\n"
        ));
        talk_on(&mut world, "takkie", &MANY.map(|len| ("33.0.0.60:4000", len)));
        let seen = talk_on(&mut world, "flappie", &MANY.map(|len| ("33.0.0.50:4000", len))[..answers]);
        world.run_until(60 * SEC);
        seen.take()
    };

    let alone = arrivals(0);

    assert_eq!(alone.len(), MANY.len());
    assert_eq!(alone, arrivals(MANY.len()), "with as many packets in the other direction");
}

fn ip_bytes_alone() {
    let mut link = Link::new(LinkConfig { rate_bps: Some(1_000_000), ..LinkConfig::default() }, rng());
    assert_eq!(took(&mut link, start()), 8 * MS);
    refused(&cable("overhead = \"38B\""), "unknown key");
}

fn no_5g() {
    let names: Vec<&str> = LINKS.iter().map(|preset| preset.name).collect();
    assert!(names.contains(&"lte") && !names.iter().any(|name| name.contains("5g")), "{names:?}");
    refused("router.a = { region = \"eu-west\", link = \"5g\" }\n", "is no link preset");
}

fn three_aqms() {
    for aqm in ["pie", "cake", "l4s", "dualpi2", "sfq"] {
        refused(&cable(&format!("aqm = \"{aqm}\"")), "known are drop-tail, codel, fq-codel, red");
    }
}

fn sent(connection: &mut Connection, now: Instant) -> Vec<Segment> {
    std::iter::from_fn(|| connection.poll_transmit(now)).collect()
}

fn plain_tcp() {
    let mut now = start();
    let mut client = Connection::connect(Config::default(), 1, now);
    client.write(zeros(16_000));
    let syn = sent(&mut client, now);
    assert!(matches!(&syn[..], [syn] if syn.payload.is_empty()), "fast open: {syn:?}");
    let mut server = Connection::accept(Config::default(), 1, &syn[0], now);
    now += 50 * MS;
    sent(&mut server, now).iter().for_each(|segment| client.handle(segment, now));

    // RFC 6928: ten full segments, all in one instant; a stack that paces spreads them over the round trip.
    let full = |segment: &&Segment| segment.payload.len() == 1448;
    assert_eq!(sent(&mut client, now).iter().filter(full).count(), 10);

    // The path has become narrower and tells nobody: RFC 4821 would try smaller segments.
    let mut again = Vec::new();
    while again.len() < 8 {
        let (at, _) = client.poll_timeout().expect("data is not acknowledged");
        now = at;
        client.handle_timeout(now);
        again.extend(sent(&mut client, now));
    }
    assert!(again.iter().all(|segment| full(&segment)), "{again:?}");

    // The bits of ECN (RFC 3168 §6.1) are none of a segment's, and no packet says that its ends know it.
    assert_eq!(Flags::from_bits(0xff).bits(), 0x1f);
    assert_eq!(Packet::tcp(ep("10.0.0.1:1"), ep("10.0.0.2:1"), syn[0].clone()).ecn, IpEcn::NotEct);
    match Config::default().congestion {
        Algorithm::Cubic => {}
        Algorithm::Reno => panic!("another default"),
    }
}

fn programs_read_at_once() {
    let mut world = bare(
        "host.takkie = { region = \"eu-west\" }\nhost.flappie = { region = \"us-east\", address = \"33.0.0.60\" }\n",
    );
    let read: Seen<usize> = Seen::default();
    let note = Rc::clone(&read);
    run_on(&mut world, "flappie", move |input, at| {
        if let Input::Stream { data, .. } = input {
            note.borrow_mut().push((at, data.len()));
        }
        Vec::new()
    });
    run_on(&mut world, "takkie", |input, _| match input {
        Input::Addresses(_) => {
            vec![Output::Connect { conn: ConnId(0), to: ep(&format!("33.0.0.60:{PORT}")) }]
        }
        Input::Writable { conn, space } => vec![Output::Write { conn, data: zeros(space) }],
        _ => Vec::new(),
    });

    world.run_until(10 * SEC);

    let delivered = world.log().records().iter().filter_map(|record| match &record.event {
        Event::Delivered { node, .. } if &**node == "flappie" => Some(Duration::from_nanos(record.t)),
        _ => None,
    });
    let delivered: BTreeSet<Duration> = delivered.collect();
    let read = read.take();
    assert!(read.iter().map(|(_, len)| len).sum::<usize>() > 1_000_000);
    assert!(read.iter().all(|(at, _)| delivered.contains(at)), "read when its last byte came");
}
