//! The limits of the network, of ICMP and of the real kernel as a box.

use super::common::{play, scenario};
use super::{MS, PORT, SEC, Seen, bare, ep, limits, refused, run_on, start, talk_on, zeros};
use nat::{LinuxConfig, LinuxNat, Middlebox as _, Side, Verdict};
use peer::{Config, Keys, Peer, Policy};
use punchbag::host::{Input, Output};
use punchbag::packet::{ErrorKind, Packet};
use punchbag::world::Options;
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tcp::{Flags, Segment};
use trace::{Event, Payload, Record};

limits!(
    no_neighbour_discovery,
    no_dns,
    one_interface,
    constant_internet,
    few_fragments,
    linux_tcp_windows,
    linux_full_table,
    kernel_boxes,
    silent_internet,
    icmp_kinds,
    icmp_in_the_tunnel,
    errors_not_believed,
    provider_without_address,
);

/// Two machines on the internet, in two regions.
const PUBLIC: &str = "host.takkie = { region = \"here\", address = \"33.0.0.50\" }\n\
                      host.flappie = { region = \"there\", address = \"33.0.0.60\" }\n\
                      internet.latency.here.there = \"25ms\"\n";

fn no_neighbour_discovery() {
    let mut world = bare(
        "router.home = { region = \"eu-west\", ipv6 = \"routed\" }\nhost.takkie = { behind = \"home\" }\nhost.flappie = { behind = \"home\" }\n",
    );
    let told: Seen<Vec<IpAddr>> = Seen::default();
    let note = Rc::clone(&told);
    run_on(&mut world, "takkie", move |input, at| {
        if let Input::Addresses(addresses) = input {
            note.borrow_mut().push((at, addresses.to_vec()));
        }
        Vec::new()
    });

    world.run_until(60 * SEC);

    let told = told.borrow();
    let [(Duration::ZERO, addresses)] = &told[..] else { panic!("{told:?}") };
    let v6: Vec<_> = addresses.iter().filter(|ip| ip.is_ipv6()).collect();
    assert!(matches!(v6[..], [IpAddr::V6(ip)] if !ip.is_unicast_link_local()), "one, and no other: {v6:?}");
    assert_eq!(world.packets(), 0, "no router advertises itself, nobody asks for a neighbour");
}

/// A question for the IPv6 addresses of a name (RFC 1035 §4.1).
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 28, 0, 1]);
    bytes
}

fn no_dns() {
    for section in ["relay.relay", "stun.stun", "coordinator"] {
        let named = format!("{section} = {{ region = \"eu-west\", address = \"a.example\" }}\n{PUBLIC}");
        refused(&named, "IP address");
    }
    let resolver = pref64::Resolver::new("64:ff9b::/96".parse().expect("a prefix"));
    // The answer's code (RFC 1035 §4.1.1): 5 = refused.
    let code = |name: &str| resolver.respond(&question(name)).expect("an answer")[3] & 0xf;
    assert_eq!(["ipv4only.arpa", "relay.example"].map(code), [0, 5]);
}

fn one_interface() {
    let scenario = scenario(
        "title = \"Two interfaces\"\nuntil = \"5s\"\n\
         host.takkie = { region = \"eu-west\", address = \"33.0.0.50\", interface.cell = { region = \"eu-west\", address = \"33.0.0.51\" } }\n\
         host.flappie = { region = \"eu-west\" }\n\
         traffic = [{ kind = \"ping\", from = \"takkie\", to = \"flappie\" }]\n",
    );

    let run = play(&scenario, 1, Options::default());

    let from = run.records.iter().filter_map(|record| match &record.event {
        Event::Sent { node, src, .. } if &**node == "takkie" => Some(src.ip().to_string()),
        _ => None,
    });
    let from: Vec<_> = from.collect();
    assert!(from.len() > 20 && from.iter().all(|ip| ip == "33.0.0.50"), "{from:?}");
}

fn constant_internet() {
    let quick = "link = { down = \"unlimited\", up = \"unlimited\", delay = \"0ms\" }";
    let text = format!(
        "title = \"Two regions\"\nuntil = \"10s\"\ninternet.latency.here.there = \"25ms\"\n\
         host.takkie = {{ region = \"here\", address = \"33.0.0.50\", {quick} }}\n\
         host.flappie = {{ region = \"there\", address = \"33.0.0.60\", {quick} }}\n\
         traffic = [{{ kind = \"ping\", from = \"takkie\", to = \"flappie\", interval = \"50ms\" }}]\n"
    );

    let run = play(&scenario(&text), 1, Options::default());

    let mut both = [0, 0];
    for Record { t: sent, event } in &run.records {
        let Event::Sent { id, src, dst, .. } = event else { continue };
        let hosts = ["33.0.0.50:41641", "33.0.0.60:41641"].map(ep);
        let Some(way) = hosts.iter().position(|host| host == src && hosts.contains(dst)) else { continue };
        let arrived = run.records.iter().find_map(|record| match &record.event {
            Event::Delivered { id: same, .. } if same == id => Some(record.t),
            _ => None,
        });
        if let Some(arrived) = arrived {
            assert_eq!(Duration::from_nanos(arrived - sent), 25 * MS);
            both[way] += 1;
        }
    }
    assert!(both.iter().all(|count| *count > 100), "{both:?}");
    refused(&format!("{PUBLIC}internet.latency.there.here = \"30ms\"\n"), "there.here");
}

fn few_fragments() {
    let mut bytes = Vec::new();
    Packet::udp(ep("10.0.0.1:1"), ep("10.0.0.2:1"), zeros(3000)).encode(&mut bytes);
    // RFC 791 §3.1: DF alone of the flags, and no offset.
    assert_eq!(bytes[6..8], [0x40, 0]);
    let narrow = PUBLIC.replace("60\" }", "60\", link = { mtu = 1280, pmtud = \"silent\" } }");
    let free = narrow.replace("50\" }", "50\", dont-fragment = false }");
    let v6 = "host.takkie = { region = \"here\", address6 = \"3001::50\", ip = \"dual\", dont-fragment = false }\n\
              host.flappie = { region = \"there\", address6 = \"3001::60\", ip = \"dual\", link = { mtu = 1280, pmtud = \"icmp\" } }\n\
              router.other = { region = \"here\", ipv6 = \"routed\" }\n\
              internet.latency.here.there = \"25ms\"\n";
    for (network, to, fits, got) in [
        (narrow.as_str(), "33.0.0.60:4000", 1252, vec!["1252"]),
        (free.as_str(), "33.0.0.60:4000", 1252, vec!["1252", "1253"]),
        (v6, "[3001::60]:4000", 1232, vec!["1232"]),
    ] {
        let mut world = bare(network);
        let seen = talk_on(&mut world, "flappie", &[]);
        let told = talk_on(&mut world, "takkie", &[(to, 1253), (to, fits)]);
        world.run_until(40 * SEC);
        let mut seen: Vec<String> = seen.take().into_iter().map(|(_, what)| what).collect();
        seen.sort();
        assert_eq!(seen, got, "{to}: {told:?}");
    }
}

fn segment(flags: Flags, seq: u32, ack: u32) -> Segment {
    Segment { seq, ack, flags, window: 1000, options: tcp::Options::default(), payload: zeros(0) }
}

fn linux(config: LinuxConfig) -> LinuxNat {
    LinuxNat::new(config, vec!["198.51.100.1".parse().expect("an address")], super::rng())
}

fn linux_tcp_windows() {
    let mut nat = linux(LinuxConfig::MASQUERADE);
    let now = start();
    let (host, outside, server) = (ep("192.168.1.2:4000"), ep("198.51.100.1:4000"), ep("203.0.113.1:443"));
    let out = Verdict::Forward(Side::Outside);
    let send = |flags, seq, ack| Packet::tcp(host, server, segment(flags, seq, ack));
    assert_eq!(nat.packet(Side::Inside, &mut send(Flags::SYN, 1000, 0), now), out);
    let mut answer = Packet::tcp(server, outside, segment(Flags::SYN | Flags::ACK, 5000, 1001));
    assert_eq!(nat.packet(Side::Outside, &mut answer, now), Verdict::Forward(Side::Inside));
    assert_eq!(nat.packet(Side::Inside, &mut send(Flags::ACK, 1001, 5001), now), out);

    // A gigabyte beyond a window of a kilobyte.
    let mut far = Packet::tcp(server, outside, segment(Flags::ACK, 5001 + (1 << 30), 1001));

    assert_eq!(nat.packet(Side::Outside, &mut far, now), Verdict::Forward(Side::Inside));
}

fn linux_full_table() {
    let mut nat = linux(LinuxConfig { capacity: 2, ..LinuxConfig::MASQUERADE });
    let now = start();
    let mut open = |port: u16| {
        let from = format!("192.168.1.2:{port}");
        let mut syn = Packet::tcp(ep(&from), ep("203.0.113.1:443"), segment(Flags::SYN, 1, 0));
        matches!(nat.packet(Side::Inside, &mut syn, now), Verdict::Forward(_))
    };
    // None is answered, so that the kernel would forget one for the third.
    assert_eq!([1, 2, 3].map(&mut open), [true, true, false]);
}

fn kernel_boxes() {
    #[cfg(target_os = "linux")]
    {
        let config = LinuxConfig { capacity: 2, timeouts: nat::Timeouts::RFC, ..LinuxConfig::MASQUERADE };
        let rules = |config| kernel_nat::ruleset(config, &["198.51.100.1".parse().expect("an address")]);
        assert_eq!(rules(&config), rules(&LinuxConfig::MASQUERADE), "the kernel hears of neither");
        assert!(!rules(&config).contains("timeout"));
        let pool = |last: &str| {
            let pool = ["198.51.100.1", last].map(|ip| ip.parse().expect("an address"));
            kernel_nat::express(&nat::Translation::Linux(config.clone()), &pool).is_ok()
        };
        assert_eq!(["198.51.100.2", "198.51.100.3"].map(pool), [true, false]);
    }
    // Nothing of this needs a kernel, or the rights to make a namespace in it.
    let walls = "title = \"Walls\"\nuntil = \"5s\"\n\
        router.a = { region = \"eu-west\", nat = \"none\", firewall = \"stateful\" }\n\
        router.b = { region = \"eu-west\", nat = \"none\", ipv6 = \"npt\" }\n\
        host.takkie = { behind = \"a\" }\nhost.flappie = { behind = \"b\" }\n\
        traffic = [{ kind = \"ping\", from = \"takkie\", to = \"flappie\" }]\n";
    let walls = scenario(walls);
    let [models, kernel] = [false, true]
        .map(|kernel_boxes| play(&walls, 1, Options { kernel_boxes, ..Options::default() }).records);
    assert_eq!(models, kernel);
}

fn silent_internet() {
    let mut world = bare(
        "router.home = { region = \"eu-west\" }\nhost.takkie = { behind = \"home\" }\nhost.flappie = { region = \"eu-west\" }\n",
    );
    let nobody = [("33.0.0.200:9", 1), ("10.9.9.9:9", 1), ("192.168.1.77:9", 1)];
    let seen = talk_on(&mut world, "takkie", &nobody);

    world.run_until(60 * SEC);

    assert_eq!(world.packets(), 3);
    assert_eq!(*seen.borrow(), []);
}

fn icmp_kinds() {
    let quoted = Packet::udp(ep("10.0.0.1:1"), ep("10.0.0.2:1"), zeros(8));
    let mut bytes = Vec::new();
    Packet::error(ep("10.0.0.2:0").ip(), ErrorKind::PortUnreachable, quoted).encode(&mut bytes);
    assert!(Packet::decode(&bytes.clone().into()).is_some());
    // RFC 792: source quench, redirect, parameter problem, timestamp.
    for kind in [4, 5, 12, 13] {
        bytes[20..22].copy_from_slice(&[kind, 0]);
        assert_eq!(Packet::decode(&bytes.clone().into()), None, "type {kind}");
    }
    // All that a program says of a datagram: no TTL.
    let Output::Datagram { port: PORT, to: _, data: _ } =
        (Output::Datagram { port: PORT, to: ep("10.0.0.2:1"), data: zeros(0) })
    else {
        panic!("a datagram")
    };
}

fn icmp_in_the_tunnel() {
    let keys = Keys { node: [1; 32], disco: [2; 32], machine: [3; 32] };
    let config = Config {
        name: "takkie".into(),
        keys,
        coordinator: vec![ep("33.0.0.1:443")],
        coordinator_key: [4; 32],
        coordinator_host: String::new(),
        auth_key: None,
        coordinator_tls: None,
        authorities: None,
        map: None,
        epoch: Duration::ZERO,
        proxy: None,
        policy: Policy::default(),
    };
    let mut peer = Peer::new(config, ChaCha12Rng::seed_from_u64(1), start());
    peer.handle(peer::Input::Addresses(&[ep("192.168.1.2:41641")]), start());
    let mut packet = Vec::new();
    Packet::udp(ep("100.64.0.1:1"), ep("100.64.0.99:1"), zeros(8)).encode(&mut packet);

    // For nobody in the network: a system's own WireGuard would answer with ICMP host unreachable.
    peer.handle(peer::Input::Packet(&packet), start());

    let events: Vec<_> = std::iter::from_fn(|| peer.poll_event()).collect();
    assert!(!events.iter().any(|event| matches!(event, peer::Event::Packet { .. })), "{events:?}");
}

fn errors_not_believed() {
    let run = |answer: &str| {
        let text = format!(
            "title = \"UDP is refused later\"\nuntil = \"30s\"\n\
             router.home = {{ region = \"eu-west\", nat = \"full-cone\" }}\n\
             host.takkie = {{ behind = \"home\" }}\nhost.flappie = {{ region = \"us-east\" }}\n\
             traffic = [{{ kind = \"voice\", from = \"takkie\", to = \"flappie\" }}]\n\
             at = [{{ time = \"10s\", firewall = {{ router = \"home\", rules = {{ outbound = [\"tcp\"], answer = \"{answer}\" }} }} }}]\n"
        );
        let records = play(&scenario(&text), 1, Options::default()).records;
        let errors = |record: &&Record| matches!(&record.event, Event::Delivered { node, payload: Payload::Icmp, .. } if &**node == "takkie");
        let told = records.iter().filter(errors).count();
        let acts = |record: &Record| matches!(record.event, Event::PathChanged { .. } | Event::Probe { .. });
        (told, records.into_iter().filter(acts).collect::<Vec<_>>())
    };

    let ((silent, as_ever), (told, not_sooner)) = (run("drop"), run("icmp"));

    assert_eq!(silent, 0);
    assert!(told > 3, "{told} errors");
    let left =
        |record: &Record| record.t > 10_000_000_000 && matches!(record.event, Event::PathChanged { .. });
    assert!(as_ever.iter().any(left), "the path is left");
    assert_eq!(as_ever, not_sooner);
}

fn provider_without_address() {
    let mut world = bare(&PUBLIC.replace("60\" }", "60\", link = { mtu = { down = 1280 } } }"));
    let seen = talk_on(&mut world, "takkie", &[("33.0.0.60:4000", 1400)]);

    world.run_until(SEC);

    assert!(matches!(&seen.borrow()[..], [(_, what)] if what == "too-big"));
    let from = world.log().records().iter().find_map(|record| match &record.event {
        Event::Delivered { node, src, payload: Payload::Icmp, .. } if &**node == "takkie" => Some(src.ip()),
        _ => None,
    });
    assert_eq!(from, Some(ep("33.0.0.60:0").ip()));
}
