//! Captures show what went over the wire: right addresses, ports, lengths and checksums, for every reader.

mod common;

use common::{Captured, Folder, captures, play, read_capture, scenario, shipped, with_captures};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use punchbag::packet::{ErrorKind, Packet};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use trace::{Event, Proto};

/// A packet as a reader of the capture sees it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct Seen {
    t_ns: u128,
    proto: Proto,
    src: SocketAddr,
    dst: SocketAddr,
    bytes: usize,
}

/// Reads a packet and checks every length and checksum in it.
fn dissect(packet: &Captured) -> Seen {
    let at = format!("{} at {} ns", packet.interface, packet.t_ns);
    let sliced = SlicedPacket::from_ethernet(&packet.frame).unwrap_or_else(|e| panic!("{at}: {e}"));
    let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("{at}: no IPv4") };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "{at}: IPv4 header");
    assert_eq!(usize::from(header.total_len), packet.frame.len() - 14, "{at}: total length");
    let (proto, src_port, dst_port, found, right) = match sliced.transport {
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!(usize::from(udp.length()), 8 + udp.payload().len(), "{at}: UDP length");
            let right = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).expect("a short packet");
            (Proto::Udp, udp.source_port(), udp.destination_port(), udp.checksum(), right)
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let right = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).expect("a short packet");
            (Proto::Tcp, tcp.source_port(), tcp.destination_port(), tcp.checksum(), right)
        }
        other => panic!("{at}: {other:?}"),
    };
    assert_ne!(found, 0, "{at}: a checksum of zero means none (RFC 768)");
    assert_eq!(found, right, "{at}: checksum");
    let socket = |ip: [u8; 4], port: u16| SocketAddr::from((ip, port));
    Seen {
        t_ns: packet.t_ns,
        proto,
        src: socket(header.source, src_port),
        dst: socket(header.destination, dst_port),
        bytes: usize::from(header.total_len),
    }
}

#[test]
fn every_packet_is_whole_and_stands_in_the_log() {
    for name in ["mission/two-homes", "nat/symmetric-symmetric"] {
        let run = play(&shipped(name), 1, with_captures());
        // What hosts sent and got, by the log: ports of a NAT show on both of its sides.
        let mut logged: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
        let mut sent: BTreeMap<u64, (Proto, usize)> = BTreeMap::new();
        for record in &run.records {
            let t_ns = u128::from(record.t);
            match &record.event {
                Event::Sent { node, id, proto, src, dst, bytes, .. } => {
                    let bytes = *bytes as usize;
                    sent.insert(*id, (*proto, bytes));
                    let seen = Seen { t_ns, proto: *proto, src: *src, dst: *dst, bytes };
                    logged.entry(node.to_string()).or_default().push(seen);
                }
                Event::Delivered { node, id, src, dst, .. } | Event::Dropped { node, id, src, dst, .. } => {
                    let (proto, bytes) = sent[id];
                    logged.entry(node.to_string()).or_default().push(Seen {
                        t_ns,
                        proto,
                        src: *src,
                        dst: *dst,
                        bytes,
                    });
                }
                _ => {}
            }
        }
        let files = captures(run);

        for (interface, file) in &files {
            let packets = read_capture(file);
            assert!(packets.len() >= 4, "{name}: {interface} has {} packets", packets.len());
            assert!(
                packets.iter().all(|packet| packet.interface == *interface),
                "{name}: {interface} has another name"
            );
            assert!(packets.is_sorted_by_key(|packet| packet.t_ns), "{name}: {interface} goes back in time");
            let mut seen: Vec<Seen> = packets.iter().map(dissect).collect();
            if let Some(logged) = logged.get_mut(interface) {
                seen.sort_unstable();
                logged.sort_unstable();
                assert!(seen == *logged, "{name}: capture and log of {interface} differ");
            }
        }
        let interfaces: Vec<_> = files.keys().map(String::as_str).collect();
        let hosts = [
            "coordinator",
            "flappie",
            "home-a.lan",
            "home-a.wan",
            "home-b.lan",
            "home-b.wan",
            "relay",
            "stun",
            "takkie",
        ];
        assert_eq!(interfaces, hosts, "{name}");
    }
}

#[test]
fn each_side_of_a_nat_shows_its_own_addresses() {
    let files = captures(play(&shipped("nat/symmetric-symmetric"), 1, with_captures()));
    let inside = [192, 168];
    for router in ["home-a", "home-b"] {
        let mine = |file: &str| {
            let seen = read_capture(&files[file]).iter().map(dissect).collect::<Vec<_>>();
            seen.iter()
                .filter(|p| [p.src, p.dst].iter().any(|s| s.ip().to_string().starts_with("192.168.")))
                .count()
                == seen.len()
        };
        assert!(
            mine(&format!("{router}.lan")),
            "{router}.lan shows a packet without an address of {inside:?}"
        );
        let leaked = read_capture(&files[&format!("{router}.wan")]).iter().map(dissect).any(|p| {
            [p.src, p.dst]
                .iter()
                .any(|socket| matches!(socket.ip(), std::net::IpAddr::V4(ip) if ip.octets()[..2] == inside))
        });
        // Candidates of the other home's LAN are tried only by those who live in it: none of them crosses a router.
        assert!(!leaked, "{router}.wan shows a private address");
    }
}

#[test]
fn tcpdump_reads_every_packet_and_finds_all_checksums_right() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        eprintln!(
            "SKIPPED: no tcpdump on this machine; the other tests read captures with pcap-file and etherparse"
        );
        return;
    }
    let folder = Folder::new("pcap");
    let text = "title = \"A pair\"\nuntil = \"4s\"\n\n[router.home]\nregion = \"eu-west\"\n\n[host.takkie]\nbehind = \"home\"\n\n\
                [host.flappie]\nregion = \"eu-west\"\n\n[[traffic]]\nkind = \"ping\"\nfrom = \"takkie\"\nto = \"flappie\"\n";
    for (interface, file) in captures(play(&scenario(text), 1, with_captures())) {
        let path = folder.path().join(format!("{interface}.pcapng"));
        std::fs::write(&path, &file).expect("a capture on disk");

        let output =
            Command::new("tcpdump").args(["-nn", "-vv", "-r"]).arg(&path).output().expect("tcpdump runs");

        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{interface}: {}", String::from_utf8_lossy(&output.stderr));
        let right = text.matches("(correct)").count() + text.matches("udp sum ok").count();
        assert_eq!(right, read_capture(&file).len(), "{interface}: not all of\n{text}");
        assert!(!text.contains("bad ") && !text.contains("incorrect"), "{interface}:\n{text}");
    }
}

#[test]
fn tcpdump_reads_every_icmp_error_and_what_it_quotes() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no tcpdump on this machine; sim/tests/packets.rs reads errors with etherparse");
        return;
    }
    let mut capture = trace::pcap::Capture::new(Vec::new()).expect("a vector");
    let interface = capture.interface("test").expect("a short name");
    let ends = [("10.0.0.2:4000", "33.0.0.1:53"), ("[2a00::2]:4000", "[2a01::1]:53")];
    for (src, dst) in
        ends.map(|(a, b)| (a.parse().expect("an endpoint"), b.parse::<SocketAddr>().expect("one")))
    {
        for kind in [
            ErrorKind::NetUnreachable,
            ErrorKind::HostUnreachable,
            ErrorKind::PortUnreachable,
            ErrorKind::Prohibited,
            ErrorKind::TooBig { mtu: 1280 },
            ErrorKind::TimeExceeded,
        ] {
            for size in [10, 1400] {
                let mut bytes = Vec::new();
                let quoted = Packet::udp(src, dst, vec![7; size].into());
                Packet::error(dst.ip(), kind, quoted).encode(&mut bytes);
                capture.packet(interface, 0, &bytes).expect("an IP packet");
            }
        }
    }
    let folder = Folder::new("pcap-errors");
    let path = folder.path().join("errors.pcapng");
    std::fs::write(&path, capture.into_inner()).expect("a capture on disk");

    let output =
        Command::new("tcpdump").args(["-nn", "-vv", "-r"]).arg(&path).output().expect("tcpdump runs");

    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for words in [
        "ICMP net 33.0.0.1 unreachable",
        "ICMP host 33.0.0.1 unreachable",
        "ICMP 33.0.0.1 udp port 53 unreachable",
        "ICMP host 33.0.0.1 unreachable - admin prohibited filter",
        "need to frag (mtu 1280)",
        "ICMP time exceeded in-transit",
        "unreachable route 2a01::1",
        "unreachable address 2a01::1",
        "2a01::1 udp port 53",
        "unreachable prohibited 2a01::1",
        "packet too big, mtu 1280",
        "time exceeded in-transit",
    ] {
        assert!(text.matches(words).count() >= 2, "{words} is not in\n{text}");
    }
    assert_eq!(text.matches("icmp6 sum ok").count(), 12, "{text}");
    assert!(!text.contains("wrong icmp cksum") && !text.contains("bad "), "{text}");
}
