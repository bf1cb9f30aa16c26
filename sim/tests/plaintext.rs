//! No plaintext of a tunnelled packet is ever on a wire, and a leak would be found.

mod common;

use bytes::Bytes;
use common::{captures, play, read_capture, scenario, shipped, with_captures};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use punchbag::Program;
use punchbag::host::{Input, MARKER, Output};
use punchbag::packet::Packet;
use punchbag::topology::Topology;
use punchbag::world::{self, Captures, Seed, World};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use tcp::{Flags, Options, Segment};
use trace::Event;

/// Source and destination of one direction of a connection.
type Direction = (IpAddr, u16, IpAddr, u16);

/// Where the marker stands in a capture: in a packet, or only in the stream that TCP segments make up.
fn leaks(file: &[u8]) -> Vec<String> {
    let finder = memchr::memmem::Finder::new(MARKER.as_slice());
    let mut found = Vec::new();
    let mut streams: BTreeMap<Direction, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
    for packet in read_capture(file) {
        if finder.find(&packet.frame).is_some() {
            found.push(format!("{} at {} ns, in one packet", packet.interface, packet.t_ns));
        }
        let sliced = SlicedPacket::from_ethernet(&packet.frame).expect("an Ethernet frame");
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (sliced.net, sliced.transport)
        else {
            continue;
        };
        let (src, dst) = (ip.header().source_addr().into(), ip.header().destination_addr().into());
        let stream = streams.entry((src, tcp.source_port(), dst, tcp.destination_port())).or_default();
        let longest = stream.entry(tcp.sequence_number()).or_default();
        if tcp.payload().len() > longest.len() {
            *longest = tcp.payload().to_vec();
        }
    }
    for ((src, src_port, dst, dst_port), segments) in streams {
        // Runs without a gap. No stream of a test is long enough for its numbers to wrap around more than once; what stands
        // before the wrap is then a run of its own.
        let mut runs: Vec<(u32, Vec<u8>)> = Vec::new();
        for (seq, payload) in segments {
            match runs.last_mut() {
                Some((start, run)) if seq - *start <= run.len() as u32 => {
                    let overlap = run.len() - (seq - *start) as usize;
                    run.extend_from_slice(payload.get(overlap..).unwrap_or_default());
                }
                _ => runs.push((seq, payload)),
            }
        }
        if runs.iter().any(|(_, run)| finder.find(run).is_some()) {
            found.push(format!("in the stream from {src}:{src_port} to {dst}:{dst_port}"));
        }
    }
    found
}

#[test]
fn no_capture_holds_plaintext() {
    // Direct, relayed over both kinds of path to the relay, a LAN, transfers both ways, and a switch in mid-conversation.
    let names = [
        "mission/two-homes",
        "mission/same-lan",
        "nat/symmetric-symmetric",
        "firewall/port-80-only",
        "link/bulk-relayed",
        "roam/nat-flush",
    ];
    for name in names {
        let run = play(&shipped(name), 5, with_captures());
        let data = run.records.iter().filter(|r| matches!(r.event, Event::AppReceived { .. })).count();
        assert!(data > 50, "{name}: only {data} packets came through the tunnel");
        let files = captures(run);
        assert!(files.len() >= 4, "{name}: {:?}", files.keys());
        for (interface, file) in files {
            assert_eq!(leaks(&file), Vec::<String>::new(), "{name}, {interface}");
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn capture(packets: &[Packet]) -> Vec<u8> {
    let mut captures = Captures::default();
    for packet in packets {
        captures.packet("eth0", 1, packet).expect("a capture in memory");
    }
    captures.finish().next().expect("one interface").1
}

#[test]
fn the_search_finds_a_marker_in_a_datagram_and_one_split_over_segments_in_any_order() {
    let (src, dst) = (address("192.168.1.2:7"), address("203.0.113.9:443"));
    let datagram = |data: &[u8]| Packet::udp(src, dst, Bytes::copy_from_slice(data));
    let segment = |seq: u32, data: &[u8]| {
        let payload = Bytes::copy_from_slice(data);
        let (ack, flags, window, options) = (1, Flags::ACK, 512, Options::default());
        Packet::tcp(src, dst, Segment { seq, ack, flags, window, options, payload })
    };
    let (head, tail) = MARKER.split_at(9);

    assert_eq!(leaks(&capture(&[datagram(&[b"before", &MARKER[..], b"after"].concat())])).len(), 1);
    assert_eq!(leaks(&capture(&[segment(100, b"x"), segment(110, tail), segment(101, head)])).len(), 1);
    // A retransmission that overlaps.
    assert_eq!(leaks(&capture(&[segment(101, head), segment(105, &MARKER[4..])])).len(), 1);
    assert_eq!(leaks(&capture(&[datagram(head), datagram(tail)])), Vec::<String>::new());
    assert_eq!(leaks(&capture(&[segment(101, head), segment(200, tail)])), Vec::<String>::new());
}

/// A program that sends a tunnel packet as it is.
struct Leaky(Option<Output>);

impl Program for Leaky {
    fn udp_ports(&self) -> Vec<u16> {
        vec![9]
    }

    fn handle(&mut self, _: Input<'_>, _: Instant) {}

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.0.take()
    }
}

/// Plays a host with a leaky program beside its peer.
fn with_leak(options: world::Options) -> world::Outcome {
    let hosts = "[host.takkie]\nregion = \"eu-west\"\n\n[host.flappie]\nregion = \"eu-west\"\n";
    let scenario = scenario(&format!("title = \"A leak\"\nuntil = \"1s\"\n\n{hosts}"));
    let topology = Topology::new(&scenario).expect("a topology");
    let mut world = World::new(&scenario, &topology, Seed(1), options).expect("a world");
    let data = Bytes::from([b"a tunnel packet ", &MARKER[..]].concat());
    let leak = Output::Datagram { port: 9, to: address("33.0.0.2:9"), data };
    world.add_program("takkie", Box::new(Leaky(Some(leak)))).expect("takkie is a host");
    world.run().expect("captures in memory")
}

#[test]
fn a_program_that_leaks_violates_the_invariant() {
    let outcome = with_leak(world::Options::default());

    let violations: Vec<_> = outcome
        .records
        .iter()
        .filter_map(|record| match &record.event {
            Event::Violation { invariant, detail } => Some((&**invariant, detail.as_str())),
            _ => None,
        })
        .collect();
    assert!(matches!(violations[..], [("plaintext", detail)] if detail.contains("takkie")), "{violations:?}");
}

#[test]
fn a_leak_that_nobody_stops_is_found_in_the_capture() {
    let outcome = with_leak(world::Options { checks: false, ..with_captures() });

    let files: BTreeMap<_, _> = outcome.captures.expect("captures").finish().collect();
    // The datagram, and flappie's ICMP error, which quotes it: nobody listens there.
    assert_eq!(leaks(&files["takkie"]).len(), 2);
}
