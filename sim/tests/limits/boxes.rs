//! The limits of what stands between the hosts: NATs, gateways, firewalls, proxies.

use super::common::{play, scenario};
use super::{SEC, ep, limits, refused, rng, start, zeros};
use bytes::Bytes;
use nat::v6::{Clat, ClatConfig};
use nat::{
    Firewall, FirewallConfig, Mapping, Middlebox, Nat, NatConfig, Police, PoliceRate, PoliceUnit,
    PortAllocation, PortRange, Portal, Side, UdpLimits, Verdict,
};
use proxy::{Credentials, Server, ServerConfig};
use punchbag::packet::Packet;
use punchbag::scenario::Scenario;
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};
use std::borrow::Cow;
use std::net::IpAddr;
use tcp::{Flags, Segment};
use trace::Event;

limits!(
    block_used_up,
    even_other_traffic,
    pinholes_of_ipv6_alone,
    nearest_gateway,
    clat_for_a_network,
    one_quota,
    tls_type_alone,
    nothing_waits,
    portal_for_all,
    no_bans,
    connect_alone,
);

const HOST: &str = "192.168.1.2:4000";
const OTHER: &str = "192.168.1.3:4000";
const SERVER: &str = "203.0.113.1:443";

fn nat(config: NatConfig) -> Nat {
    Nat::new(config, vec!["198.51.100.1".parse().expect("an address")], rng())
}

fn udp(from: &str, to: &str) -> Packet {
    Packet::udp(ep(from), ep(to), zeros(100))
}

fn tcp(from: &str, to: &str, flags: Flags, seq: u32, payload: &[u8]) -> Packet {
    let (options, payload) = (tcp::Options::default(), Bytes::copy_from_slice(payload));
    Packet::tcp(ep(from), ep(to), Segment { seq, ack: 1, flags, window: 1000, options, payload })
}

/// Whether a box lets a packet from inside out.
fn out(of: &mut impl Middlebox, mut packet: Packet) -> bool {
    of.packet(Side::Inside, &mut packet, start()) == Verdict::Forward(Side::Outside)
}

fn block_used_up() {
    let mut nat = nat(NatConfig {
        mapping: Mapping::AddressAndPortDependent,
        allocation: PortAllocation::Random,
        block: 4,
        ..NatConfig::RFC
    });

    let passed = (1..=10).filter(|remote| out(&mut nat, udp(HOST, &format!("203.0.113.{remote}:1"))));

    // Each to another destination, where a port of the four would do again.
    assert_eq!(passed.count(), 4);
}

fn even_other_traffic() {
    let config = NatConfig {
        mapping: Mapping::AddressAndPortDependent,
        allocation: PortAllocation::Sequential,
        other_traffic: 10,
        ports: PortRange { low: 10_000, high: 60_000 },
        ..NatConfig::RFC
    };
    let mut nat = nat(config);
    let now = start();
    let ports = (1..100_u32).map(|i| {
        let mut packet = udp(HOST, &format!("203.0.113.{i}:1"));
        nat.packet(Side::Inside, &mut packet, now + i * SEC);
        packet.src.port()
    });
    let ports: Vec<u16> = ports.collect();

    // Our own port and ten of others, in each second; none of theirs is taken.
    assert!(ports.windows(2).all(|pair| pair[1] - pair[0] == 11), "{ports:?}");
    assert_eq!(nat.bindings().count(), 99);
}

/// A PCP request for a port (RFC 6887 §7.1): MAP (§11.1), or PEER (§12.1) where a remote end is given.
fn pcp(client: &str, remote: Option<&str>) -> Bytes {
    let mapped = |ip: &str| match ip.parse().expect("an address") {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut bytes = vec![2, if remote.is_some() { 2 } else { 1 }, 0, 0, 0, 0, 14, 16];
    bytes.extend(mapped(client));
    bytes.extend([7; 12]);
    bytes.extend([17, 0, 0, 0, 0x0f, 0xa0, 0, 0]);
    bytes.extend(mapped(if client.contains(':') { "::" } else { "0.0.0.0" }));
    if let Some(remote) = remote {
        bytes.extend([1, 0xbb, 0, 0]);
        bytes.extend(mapped(remote));
    }
    bytes.into()
}

/// What hosts asked of gateways, and what came of it: the router, the word, and whether it was about IPv6.
fn gateways(scenario: &Scenario) -> Vec<(String, String, bool)> {
    let records = play(scenario, 1, Options::default()).records;
    let what = records.into_iter().filter_map(|record| match record.event {
        Event::Gateway { node, what, inside, .. } => {
            Some((node.to_string(), what.to_string(), inside.is_ipv6()))
        }
        _ => None,
    });
    what.collect()
}

fn pinholes_of_ipv6_alone() {
    let homes = "router.home = { region = \"eu-west\", ipv6 = \"routed\", firewall6 = \"stateful\", gateway = \"all\" }\n\
                 host.takkie = { behind = \"home\", address = \"192.168.1.2\" }\nhost.flappie = { region = \"us-east\" }\n";
    let home = |nat: &str| {
        let homes =
            homes.replace("region = \"eu-west\",", &format!("region = \"eu-west\", nat = \"{nat}\","));
        scenario(&format!("title = \"A home with both\"\nuntil = \"10s\"\n{homes}"))
    };
    let scenario = home("port-restricted-cone");
    let asked = gateways(&scenario);
    assert!(asked.iter().any(|(_, what, v6)| what == "opened" && !v6), "{asked:?}");
    assert!(asked.iter().all(|(_, _, v6)| !v6), "{asked:?}");

    // PEER keeps a conversation of the axes' NAT, and makes a hole in a firewall; Linux's NAT knows nothing of it.
    let own = scenario_address(&scenario, "takkie");
    let ask = [
        ("port-restricted-cone", "192.168.1.1:5351".to_owned(), pcp("192.168.1.2", None)),
        ("port-restricted-cone", "192.168.1.1:5351".to_owned(), pcp("192.168.1.2", Some("203.0.113.1"))),
        ("linux", "192.168.1.1:5351".to_owned(), pcp("192.168.1.2", Some("203.0.113.1"))),
        ("port-restricted-cone", format!("[{}]:5351", own.1), pcp(&own.0, Some("2001:db8::1"))),
    ];
    let answers: Vec<_> = ask
        .into_iter()
        .map(|(nat, gateway, data)| {
            let scenario = home(nat);
            let topology = Topology::new(&scenario).expect("a sound network");
            let mut world = World::new(&scenario, &topology, Seed(1), Options::default()).expect("a world");
            let answers = super::Seen::default();
            let note = std::rc::Rc::clone(&answers);
            let ask = punchbag::host::Output::Datagram { port: super::PORT, to: ep(&gateway), data };
            let mut ask = Some(ask);
            super::run_on(&mut world, "takkie", move |input, at| {
                if let punchbag::host::Input::Datagram { data, .. } = input {
                    note.borrow_mut().push((at, (data[1], data[3] == 0)));
                }
                ask.take().into_iter().collect()
            });
            world.run_until(SEC);
            answers.take().into_iter().map(|(_, answer)| answer).collect::<Vec<_>>()
        })
        .collect();
    // The opcode with the bit of an answer (RFC 6887 §7.2), and whether it says success.
    assert_eq!(answers, [[(0x81, true)], [(0x82, true)], [(0x82, false)], [(0x82, true)]]);
}

/// The IPv6 address of a host, and that of the router above it.
fn scenario_address(scenario: &Scenario, host: &str) -> (String, String) {
    let topology = Topology::new(scenario).expect("a sound network");
    let node = topology.node(topology.find(host).expect("a host"));
    let punchbag::topology::Parent::Router(router) = node.parent else { panic!("behind a router") };
    let plan = topology.node(router).router.as_ref().and_then(|plan| plan.ipv6.as_ref());
    (node.address6.expect("IPv6").to_string(), plan.expect("IPv6").gateway.to_string())
}

fn nearest_gateway() {
    let scenario = |home: &str, more: &str| {
        scenario(&format!(
            "title = \"Gateways\"\nuntil = \"40s\"\n\
             router.carrier = {{ region = \"eu-west\", gateway = \"all\" }}\n\
             router.home = {{ {home}, gateway = \"all\" }}\n\
             host.takkie = {{ behind = \"home\" }}\nhost.flappie = {{ region = \"us-east\" }}\n{more}"
        ))
    };
    let chain = gateways(&scenario("behind = \"carrier\"", ""));
    let moved = "at = [{ time = \"10s\", move = { host = \"takkie\", to = \"carrier\" } }]\n";
    let moved = gateways(&scenario("region = \"eu-west\", lan = \"192.168.7.0/24\"", moved));

    for asked in [chain, moved] {
        assert!(asked.iter().any(|(_, what, _)| what == "opened"), "{asked:?}");
        assert!(asked.iter().all(|(router, ..)| router == "home"), "{asked:?}");
    }
}

fn clat_for_a_network() {
    let (provider, customer) = ("64:ff9b::/96", "2001:db8:1::/96");
    let mut clat = Clat::new(ClatConfig {
        provider: provider.parse().expect("a prefix"),
        customer: customer.parse().expect("a prefix"),
    });
    let outside = [HOST, OTHER].map(|host| {
        let mut packet = udp(host, "33.0.0.1:443");
        assert_eq!(clat.packet(Side::Inside, &mut packet, start()), Verdict::Forward(Side::Outside));
        packet.src
    });
    assert_ne!(outside[0].ip(), outside[1].ip());
    assert_eq!(outside.map(|host| host.port()), [4000, 4000]);
}

fn one_quota() {
    let mut limited = nat(NatConfig { host_quota: 2, ..NatConfig::RFC });
    assert!(out(&mut limited, udp(HOST, SERVER)));
    assert!(out(&mut limited, tcp(HOST, SERVER, Flags::SYN, 1, b"")));
    assert!(!out(&mut limited, udp("192.168.1.2:4001", SERVER)), "UDP and TCP are counted together");
    let mut free = nat(NatConfig::RFC);
    assert!((1..=10_000).all(|port| out(&mut free, udp(&format!("192.168.1.2:{port}"), SERVER))));
    for key in ["tcp-hold-down = \"1s\"", "udp-host-quota = 2", "mapping-rate = \"10/s\""] {
        refused(&format!("router.a = {{ region = \"eu-west\", nat = {{ {key} }} }}\n"), "unknown key");
    }
}

/// A firewall that lets answers in, but for a change.
fn wall(change: impl FnOnce(&mut FirewallConfig)) -> Firewall {
    let mut config = FirewallConfig::STATEFUL;
    change(&mut config);
    Firewall::new(config, rng())
}

fn tls_type_alone() {
    // A record (RFC 8446 §5.1) that says it holds a ClientHello; what follows is none.
    let hello = [&[22, 3, 1, 2, 0, 1][..], b"GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n"].concat();
    for (bytes, passes) in [(&hello[..], true), (&hello[6..], false)] {
        let mut wall = wall(|config| config.tls = Cow::Owned(vec![PortRange { low: 443, high: 443 }]));
        assert!(out(&mut wall, tcp(HOST, SERVER, Flags::SYN, 1, b"")));
        let mut answer = tcp(SERVER, HOST, Flags::SYN | Flags::ACK, 1, b"");
        assert_eq!(wall.packet(Side::Outside, &mut answer, start()), Verdict::Forward(Side::Inside));
        assert_eq!(out(&mut wall, tcp(HOST, SERVER, Flags::ACK, 2, bytes)), passes);
    }
    refused(
        "router.a = { region = \"eu-west\", firewall = { tls-names = [\"a.example\"] } }\n",
        "unknown key",
    );
}

fn nothing_waits() {
    let police =
        |rate, burst| Police { rate: PoliceRate { unit: PoliceUnit::Packets, per_second: rate }, burst };
    let udp_limits = UdpLimits { rate: Some(police(1, 2)), flow_rate: Some(police(1, 2)), ..UdpLimits::NONE };
    let mut wall = wall(|config| config.udp = udp_limits);
    let verdicts = [(); 3].map(|()| wall.packet(Side::Inside, &mut udp(HOST, SERVER), start()));
    // All that can become of a packet: it goes on at once, or not at all.
    let at_once = verdicts.map(|verdict| match verdict {
        Verdict::Forward(_) => true,
        Verdict::Drop(_) | Verdict::Reject(..) => false,
    });
    assert_eq!(at_once, [true, true, false]);
    // TCP is not counted.
    assert!((0..1000).all(|seq| out(
        &mut wall,
        tcp(HOST, SERVER, if seq == 0 { Flags::SYN } else { Flags::ACK }, seq, b"")
    )));
    for key in ["tcp-rate = \"1Mbit/s\"", "udp-queue = \"64KiB\""] {
        refused(&format!("router.a = {{ region = \"eu-west\", firewall = {{ {key} }} }}\n"), "unknown key");
    }
}

fn portal_for_all() {
    let mut wall = wall(|config| config.portal = Portal::UntilAccepted);
    let web = |host| tcp(host, "203.0.113.1:80", Flags::SYN, 1, b"");
    // Not even the web gets anywhere, from where it could be sent to the portal.
    assert_eq!([HOST, OTHER].map(|host| out(&mut wall, web(host))), [false, false]);
    wall.accept_portal();
    assert_eq!([HOST, OTHER].map(|host| out(&mut wall, web(host))), [true, true]);
    let accepts = "router.a = { region = \"eu-west\", firewall = \"captive-portal\" }\nhost.h = { count = 2, behind = \"a\" }\n\
                   at = [{ time = \"1s\", accept-portal = { router = \"a\", host = \"h-1\" } }]\n";
    refused(accepts, "unknown key");
}

fn no_bans() {
    let mut wall = wall(|config| config.udp.flow_packets = Some(3));
    let scan = (1..=1000).map(|port| udp(SERVER, &format!("192.168.1.2:{port}")));
    assert!(scan.into_iter().all(|mut packet| {
        !matches!(wall.packet(Side::Outside, &mut packet, start()), Verdict::Forward(_))
    }));
    assert_eq!([(); 4].map(|()| out(&mut wall, udp(HOST, SERVER))), [true, true, true, false]);

    // With the same address, in the same instant, from another port.
    assert!(out(&mut wall, udp("192.168.1.2:4001", SERVER)));
    let mut answer = udp(SERVER, "192.168.1.2:4001");
    assert_eq!(wall.packet(Side::Outside, &mut answer, start()), Verdict::Forward(Side::Inside));
}

/// What a proxy answers to the first bytes of a connection, as far as it says something at once.
fn proxied(request: &[u8]) -> String {
    let credentials = Some(Credentials::new("user", "secret").expect("credentials"));
    let mut server = Server::new(ServerConfig { credentials, ..ServerConfig::default() });
    let conn = proxy::ConnId(proxy::ConnId::FIRST_ACCEPTED);
    server.accepted(conn, ep(HOST), start());
    server.writable(conn, 10_000);
    server.handle_stream(conn, request, start());
    let said = std::iter::from_fn(|| server.poll_transmit()).map(|transmit| match transmit {
        proxy::Transmit::Write { data, .. } => String::from_utf8_lossy(&data).into_owned(),
        proxy::Transmit::Connect { to, .. } => format!("connects to {to}"),
        proxy::Transmit::Hold { .. } | proxy::Transmit::Close(_) => String::new(),
    });
    said.collect()
}

fn connect_alone() {
    let login = |target: &str| {
        // RFC 7617 §2: "user:secret".
        proxied(
            format!(
                "CONNECT {target} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n"
            )
            .as_bytes(),
        )
    };
    assert_eq!(login(SERVER), format!("connects to {SERVER}"));
    let named = login("relay.example:443");
    assert!(named.starts_with("HTTP/1.1 502"), "{named}");
    let get = proxied(b"GET http://203.0.113.1/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(get.starts_with("HTTP/1.1 405"), "{get}");
    let challenge = proxied(
        format!("CONNECT {SERVER} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Negotiate abc\r\n\r\n")
            .as_bytes(),
    );
    assert!(challenge.starts_with("HTTP/1.1 407"), "{challenge}");
    let schemes: Vec<&str> =
        challenge.lines().filter_map(|line| line.strip_prefix("Proxy-Authenticate: ")).collect();
    assert!(matches!(schemes[..], [basic] if basic.starts_with("Basic ")), "{schemes:?}");
    // SOCKS 5 (RFC 1928 §3), and TLS.
    for hello in
        [&[5, 1, 0, b'\r', b'\n', b'\r', b'\n'][..], &[22, 3, 1, 0, 5, 1, b'\r', b'\n', b'\r', b'\n']]
    {
        let said = proxied(hello);
        assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    }
    let pac = "proxy.web = { region = \"eu-west\", pac = \"http://wpad/wpad.dat\" }\n";
    refused(pac, "unknown key");
}
