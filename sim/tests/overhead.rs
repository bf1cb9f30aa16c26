//! What the tunnel adds to a packet on the wire, to the byte.

mod common;

use common::{play, scenario};
use punchbag::world::Options;
use trace::{Event, Payload};

/// Encapsulation, bytes that it adds, and the largest packet that fits into 1500 bytes with it.
fn table() -> Vec<(&'static str, u32, u32)> {
    let lines = include_str!("data/overhead.csv").lines().skip(2);
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(';').collect();
            let number = |i: usize| fields[i].parse().unwrap_or_else(|_| panic!("no number in {line}"));
            (fields[0], number(1), number(2))
        })
        .collect()
}

/// Lengths on the wire of tunnelled packets that carry IP packets of `inner` bytes.
fn on_the_wire(addresses: [&str; 4], inner: u32) -> Vec<u32> {
    let [takkie, flappie, relay, coordinator] = addresses;
    // IPv4 and UDP in the tunnel.
    let size = inner - 28;
    let scenario = scenario(&format!(
        "title = \"Lengths\"\nuntil = \"4s\"\n\
         host.takkie = {{ region = \"eu-west\", address = \"{takkie}\" }}\n\
         host.flappie = {{ region = \"eu-west\", address = \"{flappie}\" }}\n\
         relay.relay = {{ region = \"eu-west\", address = \"{relay}\" }}\n\
         coordinator = {{ region = \"eu-west\", address = \"{coordinator}\" }}\n\
         traffic = [{{ kind = \"voice\", from = \"takkie\", to = \"flappie\", size = \"{size}B\" }}]\n"
    ));
    let run = play(&scenario, 1, Options::default());
    let sent = run.records.iter().filter_map(|record| match &record.event {
        Event::AppSent { bytes, .. } => {
            assert_eq!(*bytes, inner);
            None
        }
        // The smallest are keep-alives, which carry nothing.
        Event::Sent { payload: Payload::Tunnel, bytes, .. } if *bytes > inner => Some(*bytes),
        _ => None,
    });
    sent.collect()
}

/// The table's rows of TURN (RFC 8656) are for relays of another kind than these, which carry packets over TCP.
#[test]
fn wireguard_adds_what_its_paper_says_over_ipv4_and_ipv6() {
    let v4 = ["33.0.0.11", "33.0.0.12", "33.0.0.13", "33.0.0.14"];
    let v6 = ["2a00:1::11", "2a00:1::12", "2a00:1::13", "2a00:1::14"];
    for (name, adds, most) in table() {
        let addresses = match name {
            "WireGuard data, IPv4 outer" => v4,
            "WireGuard data, IPv6 outer" => v6,
            _ => continue,
        };
        // Payloads are padded to sixteen bytes (WireGuard paper, section 5.4.6): these need none. The tunnel itself carries
        // no more than 1280 bytes, which leaves room on any path that takes the most there could be.
        assert!(most + adds == 1500 && most > 1280, "{name}");
        for inner in [208, 1216] {
            let lengths = on_the_wire(addresses, inner);

            assert!(lengths.len() > 100, "{name}: {} packets", lengths.len());
            assert!(lengths.iter().all(|bytes| *bytes == inner + adds), "{name}, {inner} bytes: {lengths:?}");
        }
    }
}
