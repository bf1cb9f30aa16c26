//! The gateway alone: what it answers, and how it can misbehave.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use common::{WAN, addr, ip, router, start};
use portmap::gateway::{Conduct, ConnId, Event, Gateway, GatewayConfig, Input, MapError, Request, Transmit};
use portmap::natpmp::{self, Body};
use portmap::pcp::{self, Map, Op, Opt, Peer};
use portmap::upnp::http;
use portmap::upnp::soap::{Action, Fault};
use portmap::upnp::ssdp::{Found, Search};
use portmap::upnp::{FIREWALL, IgdVersion, description};
use portmap::{Proto, SERVER_PORT};
use proptest::prelude::*;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: &str = "192.168.1.2:40000";
const B: &str = "192.168.1.3:40000";

/// A gateway whose NAT gives what is wanted, unless a port is in `taken`.
struct Rig {
    gateway: Gateway,
    now: Instant,
    taken: Vec<u16>,
    requests: Vec<Request>,
    conns: u64,
}

impl Rig {
    fn new(config: GatewayConfig) -> Rig {
        let now = start();
        let gateway = Gateway::new(config, ChaCha12Rng::seed_from_u64(9), now);
        let mut rig = Rig { gateway, now, taken: Vec::new(), requests: Vec::new(), conns: 0 };
        rig.gateway.handle(Input::External(Some(ip(WAN))), now);
        while rig.gateway.poll_transmit().is_some() {}
        rig
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.gateway.handle_timeout(self.now);
        self.serve();
    }

    fn serve(&mut self) {
        while let Some(request) = self.gateway.poll_request() {
            self.requests.push(request);
            let (id, inside, port, exact) = match request {
                Request::Map { id, inside, port, exact, .. } => (id, inside, port, exact),
                Request::Peer { id, inside, port, .. } => (id, inside, port, false),
                Request::Unmap { .. } => continue,
            };
            let mut port = port.unwrap_or(inside.port());
            let taken = self.taken.contains(&port);
            port += u16::from(taken);
            let outside = if inside.is_ipv6() { inside.ip() } else { ip(WAN) };
            let result =
                if taken && exact { Err(MapError::Taken) } else { Ok(SocketAddr::new(outside, port)) };
            self.gateway.handle(Input::Answer { id, result }, self.now);
        }
    }

    fn answers(&mut self, to: SocketAddr) -> Vec<Vec<u8>> {
        self.serve();
        let sent = std::iter::from_fn(|| self.gateway.poll_transmit());
        sent.filter_map(|transmit| match transmit {
            Transmit::Datagram { to: there, data, .. } if there == to => Some(data.to_vec()),
            _ => None,
        })
        .collect()
    }

    fn send(&mut self, from: &str, data: &[u8]) -> Option<Vec<u8>> {
        self.gateway.handle(Input::Datagram { to: SERVER_PORT, from: addr(from), data }, self.now);
        let mut answers = self.answers(addr(from));
        assert!(answers.len() <= 1);
        answers.pop()
    }

    fn natpmp(&mut self, from: &str, request: natpmp::Request) -> Body {
        natpmp::Response::decode(&self.send(from, &request.to_vec()).unwrap()).unwrap().body
    }

    fn pmp_map(&mut self, from: &str, external: u16, lifetime: u32) -> Body {
        let internal = addr(from).port();
        self.natpmp(from, natpmp::Request::Map { proto: Proto::Udp, internal, external, lifetime })
    }

    fn pcp(&mut self, from: &str, lifetime: u32, op: Op, options: Vec<Opt>) -> pcp::Response {
        let request = pcp::Request { lifetime, client: addr(from).ip(), op, options };
        pcp::Response::decode(&self.send(from, &request.to_vec()).unwrap()).unwrap()
    }

    fn pcp_map(
        &mut self,
        from: &str,
        nonce: u8,
        port: u16,
        lifetime: u32,
    ) -> Result<(u16, u32), pcp::Refusal> {
        let external = SocketAddr::new(pcp::any_like(addr(from).ip()).ip(), port);
        let map = Map { nonce: [nonce; 12], protocol: 17, internal_port: addr(from).port(), external };
        let response = self.pcp(from, lifetime, Op::Map(map), vec![]);
        let Some(Op::Map(map)) = response.op else { panic!("{response:?}") };
        response.refused.map_or(Ok((map.external.port(), response.lifetime)), Err)
    }

    /// One HTTP exchange.
    fn web(&mut self, from: &str, data: &[u8]) -> http::Response {
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.gateway.handle(Input::Accepted { conn, from: addr(from) }, self.now);
        self.gateway.handle(Input::Writable { conn, space: 1 << 20 }, self.now);
        for part in data.chunks(100) {
            self.gateway.handle(Input::Stream { conn, data: part }, self.now);
        }
        self.serve();
        let (mut stream, mut closed) = (Vec::new(), false);
        while let Some(transmit) = self.gateway.poll_transmit() {
            match transmit {
                Transmit::Write { conn: there, data } if there == conn => stream.extend_from_slice(&data),
                Transmit::Close { conn: there } if there == conn => closed = true,
                _ => {}
            }
        }
        assert!(closed, "one exchange per connection");
        http::Response::read(&stream, true).unwrap().unwrap()
    }

    fn act_on(
        &mut self,
        path: &str,
        kind: &str,
        from: &str,
        name: &str,
        arguments: &[(&str, &str)],
    ) -> Result<Action, u16> {
        let arguments: Vec<(&str, String)> = arguments.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let action = Action::new(kind, name, &arguments);
        let header = action.header();
        let data =
            http::write(&format!("POST {path} HTTP/1.1"), &[("SOAPAction", &header)], &action.to_request());
        let response = self.web(from, &data);
        if response.status == 200 {
            Ok(Action::decode(&response.body).unwrap())
        } else {
            Err(Fault::decode(&response.body).unwrap().code)
        }
    }

    fn act(&mut self, from: &str, name: &str, arguments: &[(&str, &str)]) -> Result<Action, u16> {
        let kind = self.gateway.config().upnp.unwrap().connection();
        self.act_on(description::CONNECTION_CONTROL, &kind, from, name, arguments)
    }

    fn add(&mut self, name: &str, from: &str, port: &str, lease: &str) -> Result<Action, u16> {
        let from = addr(from);
        self.act(
            &from.to_string(),
            name,
            &[
                ("NewRemoteHost", ""),
                ("NewExternalPort", port),
                ("NewProtocol", "UDP"),
                ("NewInternalPort", &from.port().to_string()),
                ("NewInternalClient", &from.ip().to_string()),
                ("NewEnabled", "1"),
                ("NewPortMappingDescription", "takkie"),
                ("NewLeaseDuration", lease),
            ],
        )
    }

    fn unmapped(&mut self) -> Vec<&'static str> {
        let events = std::iter::from_fn(|| self.gateway.poll_event());
        events
            .filter_map(|event| if let Event::Unmapped { why, .. } = event { Some(why) } else { None })
            .collect()
    }
}

fn granted(external: u16, lifetime: u32) -> Body {
    Body::Map { proto: Proto::Udp, internal: 40000, external, lifetime }
}

fn refusal(body: Body) -> natpmp::Refusal {
    let Body::Refused { why, .. } = body else { panic!("{body:?}") };
    why
}

// ---- NAT-PMP ---------------------------------------------------------------------------------------

#[test]
fn natpmp_maps_renews_and_deletes() {
    let mut rig = Rig::new(router());
    let Body::ExternalAddress(wan) = rig.natpmp(A, natpmp::Request::ExternalAddress) else { panic!() };
    assert_eq!(wan.to_string(), WAN);
    assert_eq!(rig.pmp_map(A, 5000, 3600), granted(5000, 3600));
    rig.pass(1800);
    assert_eq!(rig.pmp_map(A, 7777, 3600), granted(5000, 3600), "a renewal keeps the port (RFC 6886 §3.3)");
    rig.pass(3599);
    assert_eq!(rig.gateway.mappings(), 1);
    assert_eq!(
        rig.pmp_map(A, 0, 0),
        Body::Map { proto: Proto::Udp, internal: 40000, external: 0, lifetime: 0 }
    );
    rig.serve();
    assert_eq!(rig.unmapped(), ["deleted"]);
    assert!(matches!(rig.requests.last(), Some(Request::Unmap { external, .. }) if external.port() == 5000));
}

#[test]
fn natpmp_gives_another_port_where_the_wanted_one_is_taken() {
    let mut rig = Rig::new(router());
    rig.taken = vec![5000];
    assert_eq!(rig.pmp_map(A, 5000, 3600), granted(5001, 3600));
}

#[test]
fn leases_end_in_time_and_lifetimes_are_bounded() {
    let mut rig = Rig::new(router());
    assert_eq!(rig.pmp_map(A, 5000, 1), granted(5000, 120), "the shortest");
    assert_eq!(rig.pmp_map(B, 5001, u32::MAX), granted(5001, 86_400), "the longest");
    rig.pass(119);
    assert_eq!(rig.gateway.mappings(), 2);
    rig.pass(1);
    assert_eq!((rig.gateway.mappings(), rig.unmapped()), (1, vec!["expired"]));
}

#[test]
fn natpmp_refuses_as_section_3_5_says() {
    let mut rig = Rig::new(GatewayConfig { pcp: false, ..router() });
    let version = rig.send(A, &[2, 0, 0, 0]).unwrap();
    assert_eq!(
        refusal(natpmp::Response::decode(&version).unwrap().body),
        natpmp::Refusal::UnsupportedVersion
    );
    let opcode = rig.send(A, &[0, 7]).unwrap();
    assert_eq!(refusal(natpmp::Response::decode(&opcode).unwrap().body), natpmp::Refusal::UnsupportedOpcode);
    assert_eq!(rig.send(A, &[0, 129, 0, 0]), None, "an answer is not answered");
    rig.gateway.handle(Input::External(None), rig.now);
    assert_eq!(refusal(rig.natpmp(A, natpmp::Request::ExternalAddress)), natpmp::Refusal::NetworkFailure);
    assert_eq!(refusal(rig.pmp_map(A, 1, 1)), natpmp::Refusal::NetworkFailure);
}

// ---- PCP -------------------------------------------------------------------------------------------

#[test]
fn pcp_maps_renews_and_deletes_with_one_nonce() {
    let mut rig = Rig::new(router());
    assert_eq!(rig.pcp_map(A, 1, 5000, 3600), Ok((5000, 3600)));
    assert_eq!(rig.pcp_map(A, 1, 0, 7200), Ok((5000, 7200)));
    assert_eq!(rig.pcp_map(A, 2, 0, 7200), Err(pcp::Refusal::NotAuthorized), "RFC 6887 §11.3.1");
    assert_eq!(rig.pcp_map(A, 2, 0, 0), Err(pcp::Refusal::NotAuthorized));
    assert_eq!(rig.pcp_map(A, 1, 0, 0), Ok((5000, 0)));
    assert_eq!(
        rig.pcp_map(A, 2, 0, 0).map(|(_, lifetime)| lifetime),
        Ok(0),
        "nothing to delete is deleted (§15)"
    );
    assert_eq!(rig.unmapped(), ["deleted"]);
}

#[test]
fn a_lax_gateway_renews_with_any_nonce_but_deletes_only_with_the_last() {
    let mut rig = Rig::new(GatewayConfig { strict_nonce: false, ..router() });
    assert_eq!(rig.pcp_map(A, 1, 5000, 3600), Ok((5000, 3600)));
    assert_eq!(rig.pcp_map(A, 2, 0, 3600), Ok((5000, 3600)));
    assert_eq!(rig.pcp_map(A, 1, 0, 0), Err(pcp::Refusal::NotAuthorized));
    assert_eq!(rig.pcp_map(A, 2, 0, 0), Ok((5000, 0)));
}

#[test]
fn pcp_deletes_all_of_a_client_s_at_once() {
    let mut rig = Rig::new(router());
    for port in 1..5 {
        rig.pcp_map(&format!("192.168.1.2:{port}"), 1, 0, 600).unwrap();
    }
    rig.pcp_map(B, 1, 0, 600).unwrap();
    let external = addr("0.0.0.0:0");
    let all = Map { nonce: [1; 12], protocol: 0, internal_port: 0, external };
    assert_eq!(rig.pcp(A, 0, Op::Map(all), vec![]).refused, None);
    assert_eq!(rig.gateway.mappings(), 1, "the other client's stays");
    let odd = Map { internal_port: 5, ..all };
    assert_eq!(rig.pcp(A, 0, Op::Map(odd), vec![]).refused, Some(pcp::Refusal::MalformedRequest));
}

#[test]
fn pcp_prefer_failure_takes_the_port_or_none() {
    let mut rig = Rig::new(router());
    rig.taken = vec![5000];
    let map = |port| Map {
        nonce: [1; 12],
        protocol: 17,
        internal_port: 40000,
        external: SocketAddr::new([0, 0, 0, 0].into(), port),
    };
    let refused = rig.pcp(A, 600, Op::Map(map(5000)), vec![Opt::PreferFailure]);
    assert_eq!(refused.refused, Some(pcp::Refusal::CannotProvideExternal));
    let granted = rig.pcp(A, 600, Op::Map(map(6000)), vec![Opt::PreferFailure]);
    assert_eq!((granted.refused, granted.options), (None, vec![Opt::PreferFailure]));
    let other = rig.pcp(A, 600, Op::Map(map(6001)), vec![Opt::PreferFailure]);
    assert_eq!(other.refused, Some(pcp::Refusal::CannotProvideExternal), "it has another one by now");
}

#[test]
fn pcp_refuses_what_it_must() {
    let mut rig = Rig::new(router());
    let map = Map { nonce: [1; 12], protocol: 17, internal_port: 40000, external: addr("0.0.0.0:0") };
    let third = rig.pcp(A, 600, Op::Map(map), vec![Opt::ThirdParty(ip("192.168.1.9"))]);
    assert_eq!(third.refused, Some(pcp::Refusal::UnsuppOption));
    let known = rig.pcp(A, 600, Op::Map(map), vec![Opt::Unknown { code: 130, data: vec![1] }]);
    assert_eq!((known.refused, known.options), (None, vec![]), "options from 128 up may be ignored (§7.3)");
    let icmp = rig.pcp(A, 600, Op::Map(Map { protocol: 1, ..map }), vec![]);
    assert_eq!(icmp.refused, Some(pcp::Refusal::UnsuppProtocol));
    let peer = Op::Peer(Peer { map, remote: addr("198.51.100.1:0") });
    assert_eq!(rig.pcp(A, 600, peer, vec![]).refused, Some(pcp::Refusal::MalformedRequest));
    assert_eq!(
        rig.pcp(A, 600, Op::Announce, vec![Opt::PreferFailure]).refused,
        Some(pcp::Refusal::MalformedOption)
    );
    let request = pcp::Request { lifetime: 1, client: ip("10.0.0.9"), op: Op::Map(map), options: vec![] };
    let answer = rig.send(A, &request.to_vec()).unwrap();
    assert_eq!(pcp::Response::decode(&answer).unwrap().refused, Some(pcp::Refusal::AddressMismatch));
}

#[test]
fn pcp_peer_asks_for_one_conversation() {
    let mut rig = Rig::new(router());
    let map = Map { nonce: [1; 12], protocol: 17, internal_port: 40000, external: addr("0.0.0.0:0") };
    let remote = addr("198.51.100.1:3478");
    let response = rig.pcp(A, 600, Op::Peer(Peer { map, remote }), vec![]);
    let Some(Op::Peer(peer)) = response.op else { panic!("{response:?}") };
    assert_eq!((response.refused, peer.map.external, peer.remote), (None, addr("203.0.113.7:40000"), remote));
    assert!(matches!(rig.requests[..], [Request::Peer { remote: there, .. }] if there == remote));
    rig.pass(600);
    assert!(
        matches!(rig.requests.last(), Some(Request::Unmap { remote: Some(there), .. }) if *there == remote)
    );
}

#[test]
fn pcp_over_ipv6_opens_pinholes() {
    let mut rig = Rig::new(GatewayConfig::new(ip("2001:db8::1")));
    let host = "[2001:db8::2]:40000";
    assert_eq!(rig.pcp_map(host, 1, 0, 600), Ok((40000, 600)));
    assert!(matches!(rig.requests[..], [Request::Map { inside, .. }] if inside == addr(host)));
}

#[test]
fn pcp_and_natpmp_answer_each_other_s_version() {
    let mut rig = Rig::new(GatewayConfig { nat_pmp: false, ..router() });
    let answer = rig.send(A, &natpmp::Request::ExternalAddress.to_vec()).unwrap();
    assert_eq!(pcp::Response::decode(&answer).unwrap().refused, Some(pcp::Refusal::UnsuppVersion));
}

// ---- UPnP ------------------------------------------------------------------------------------------

#[test]
fn a_search_is_answered_with_where_the_description_is() {
    let mut rig = Rig::new(router());
    let mut search = |target: String| {
        let data = Search { target, mx: 1 }.to_vec();
        rig.gateway.handle(Input::Datagram { to: 1900, from: addr(A), data: &data }, rig.now);
        rig.answers(addr(A)).iter().map(|data| Found::decode(data).unwrap()).collect::<Vec<_>>()
    };
    let found = search(IgdVersion::V1.device());
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].location.as_str(), found[0].target.as_str()),
        ("http://192.168.1.1:5000/rootDesc.xml", &*IgdVersion::V1.device())
    );
    assert_eq!(search("ssdp:all".into()).len(), 3);
    assert!(search("urn:x:device:Printer:1".into()).is_empty());
    let text = rig.web(A, b"GET /rootDesc.xml HTTP/1.1\r\nHost: x\r\n\r\n").body;
    assert_eq!(description::services(&text).len(), 2);
    for path in [description::CONNECTION_SCPD, description::FIREWALL_SCPD] {
        assert_eq!(rig.web(A, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).status, 200);
    }
    assert_eq!(rig.web(A, b"GET /etc/passwd HTTP/1.1\r\n\r\n").status, 404);
    assert_eq!(rig.web(A, b"\x16\x03\x01").status, 400);
}

#[test]
fn upnp_maps_lists_and_deletes() {
    let mut rig = Rig::new(router());
    assert_eq!(rig.act(A, "GetExternalIPAddress", &[]).unwrap().get("NewExternalIPAddress"), Some(WAN));
    assert_eq!(rig.act(A, "GetStatusInfo", &[]).unwrap().get("NewConnectionStatus"), Some("Connected"));
    rig.add("AddPortMapping", A, "5000", "3600").unwrap();
    assert_eq!(rig.add("AddPortMapping", B, "5000", "3600").unwrap_err(), 718);
    let any = rig.add("AddAnyPortMapping", B, "5001", "0").unwrap();
    assert_eq!(any.get("NewReservedPort"), Some("5001"));
    rig.pass(600);
    let by_port = [("NewRemoteHost", ""), ("NewExternalPort", "5000"), ("NewProtocol", "UDP")];
    let entry = rig.act(B, "GetSpecificPortMappingEntry", &by_port).unwrap();
    let fields = ["NewInternalClient", "NewInternalPort", "NewPortMappingDescription", "NewLeaseDuration"];
    assert_eq!(fields.map(|name| entry.get(name).unwrap()), ["192.168.1.2", "40000", "takkie", "3000"]);
    let generic = rig.act(A, "GetGenericPortMappingEntry", &[("NewPortMappingIndex", "1")]).unwrap();
    assert_eq!(generic.get("NewLeaseDuration"), Some("604200"), "no end is a week in version 2");
    assert_eq!(rig.act(A, "GetGenericPortMappingEntry", &[("NewPortMappingIndex", "2")]).unwrap_err(), 713);
    assert_eq!(rig.act(B, "DeletePortMapping", &by_port).unwrap_err(), 606, "another's");
    rig.act(A, "DeletePortMapping", &by_port).unwrap();
    assert_eq!(rig.act(A, "DeletePortMapping", &by_port).unwrap_err(), 714);
    assert_eq!(rig.gateway.mappings(), 1);
}

#[test]
fn upnp_points_a_port_at_another_of_the_same_host_and_renews_its_own() {
    let mut rig = Rig::new(router());
    rig.add("AddPortMapping", A, "5000", "3600").unwrap();
    rig.add("AddPortMapping", A, "5000", "7200").unwrap();
    assert_eq!(rig.requests.len(), 1);
    rig.add("AddPortMapping", "192.168.1.2:40001", "5000", "7200").unwrap();
    assert_eq!(rig.unmapped(), ["replaced"]);
    assert_eq!(rig.gateway.mappings(), 1);
}

#[test]
fn upnp_refuses_nonsense() {
    let mut rig = Rig::new(router());
    assert_eq!(rig.add("AddPortMapping", A, "0", "3600").unwrap_err(), 716);
    assert_eq!(rig.add("AddPortMapping", A, "70000", "3600").unwrap_err(), 402);
    assert_eq!(rig.add("AddPortMapping", "192.168.1.2:0", "5", "1").unwrap_err(), 732);
    assert_eq!(rig.act(A, "ForceTermination", &[]).unwrap_err(), 401);
    assert_eq!(rig.act(A, "AddPortMapping", &[]).unwrap_err(), 402);
    let for_another = [
        ("NewExternalPort", "5"),
        ("NewProtocol", "TCP"),
        ("NewInternalPort", "5"),
        ("NewInternalClient", "192.168.1.3"),
        ("NewLeaseDuration", "9"),
    ];
    assert_eq!(rig.act(A, "AddPortMapping", &for_another).unwrap_err(), 606);
    let mut old = Rig::new(GatewayConfig { upnp: Some(IgdVersion::V1), permanent_only: true, ..router() });
    assert_eq!(old.add("AddAnyPortMapping", A, "5", "0").unwrap_err(), 401, "version 1 has none");
    assert_eq!(old.add("AddPortMapping", A, "5", "60").unwrap_err(), 725);
    old.add("AddPortMapping", A, "5", "0").unwrap();
    old.pass(10_000_000);
    assert_eq!(old.gateway.mappings(), 1, "permanent");
}

#[test]
fn upnp_pinholes() {
    let mut rig = Rig::new(GatewayConfig::new(ip("2001:db8::1")));
    let host = "[2001:db8::2]:40000";
    let act = |rig: &mut Rig, name: &str, arguments: &[(&str, &str)]| {
        rig.act_on(description::FIREWALL_CONTROL, FIREWALL, host, name, arguments)
    };
    let wish = [
        ("RemoteHost", ""),
        ("RemotePort", "0"),
        ("InternalClient", "2001:db8::2"),
        ("InternalPort", "40000"),
        ("Protocol", "17"),
        ("LeaseTime", "600"),
    ];
    let id = act(&mut rig, "AddPinhole", &wish).unwrap().get("UniqueID").unwrap().to_owned();
    act(&mut rig, "UpdatePinhole", &[("UniqueID", &id), ("NewLeaseTime", "1200")]).unwrap();
    rig.pass(1000);
    assert_eq!(rig.gateway.mappings(), 1);
    act(&mut rig, "DeletePinhole", &[("UniqueID", &id)]).unwrap();
    assert_eq!(act(&mut rig, "DeletePinhole", &[("UniqueID", &id)]).unwrap_err(), 704);
    let mut other = wish;
    other[2].1 = "2001:db8::3";
    assert_eq!(act(&mut rig, "AddPinhole", &other).unwrap_err(), 606);
    assert!(matches!(rig.requests[..], [Request::Map { exact: true, .. }, Request::Unmap { .. }]));
}

// ---- limits, restarts and misbehaviour -------------------------------------------------------------

#[test]
fn quotas_hold() {
    let mut rig = Rig::new(GatewayConfig { capacity: 5, per_host: 3, ..router() });
    for port in 1..=3 {
        rig.pcp_map(&format!("192.168.1.2:{port}"), 1, 0, 600).unwrap();
    }
    assert_eq!(rig.pcp_map("192.168.1.2:4", 1, 0, 600), Err(pcp::Refusal::UserExQuota));
    assert_eq!(refusal(rig.pmp_map(A, 0, 600)), natpmp::Refusal::OutOfResources);
    assert!(rig.pcp_map("192.168.1.2:3", 1, 0, 600).is_ok(), "a renewal is none more");
    rig.pcp_map("192.168.1.3:11", 1, 0, 600).unwrap();
    rig.pcp_map("192.168.1.3:12", 1, 0, 600).unwrap();
    assert_eq!(rig.pcp_map("192.168.1.4:21", 1, 0, 600), Err(pcp::Refusal::NoResources));
}

#[test]
fn the_epoch_counts_from_the_start_and_anew_with_another_address() {
    let mut rig = Rig::new(router());
    rig.pass(100);
    let epoch = |rig: &mut Rig| rig.pcp(A, 0, Op::Announce, vec![]).epoch;
    assert_eq!(epoch(&mut rig), 100);
    rig.pcp_map(A, 1, 0, 600).unwrap();
    rig.gateway.handle(Input::External(Some(ip(WAN))), rig.now);
    assert_eq!((epoch(&mut rig), rig.gateway.mappings()), (100, 1), "the same address is no change");
    rig.gateway.handle(Input::External(Some(ip("203.0.113.8"))), rig.now);
    assert_eq!((rig.gateway.mappings(), rig.unmapped()), (0, vec!["address changed"]));
    assert_eq!(epoch(&mut rig), 0);
}

#[test]
fn a_start_is_announced_ten_times_with_doubling_gaps() {
    let now = start();
    let mut gateway = Gateway::new(router(), ChaCha12Rng::seed_from_u64(1), now);
    gateway.handle(Input::External(Some(ip(WAN))), now);
    let (mut at, mut times) = (now, Vec::new());
    loop {
        while let Some(transmit) = gateway.poll_transmit() {
            if let Transmit::Datagram { to, data, port: SERVER_PORT } = transmit
                && data[0] == 2
            {
                assert_eq!(to, addr("224.0.0.1:5350"));
                times.push((at - now).as_millis());
            }
        }
        let Some((next, _)) = gateway.poll_timeout() else { break };
        at = next;
        gateway.handle_timeout(at);
    }
    assert_eq!(times, [0, 250, 750, 1750, 3750, 7750, 15750, 31750, 63750, 127_750]);
}

#[test]
fn one_that_refuses_does_so_in_each_protocol_s_words() {
    use natpmp::Refusal as Pmp;
    use pcp::Refusal as Pcp;
    let cases = [
        (Conduct::NotAuthorized, Pmp::NotAuthorized, Pcp::NotAuthorized, 606),
        (Conduct::NetworkFailure, Pmp::NetworkFailure, Pcp::NetworkFailure, 501),
        (Conduct::NoResources, Pmp::OutOfResources, Pcp::NoResources, 728),
    ];
    for (conduct, pmp, pcp, upnp) in cases {
        let mut rig = Rig::new(GatewayConfig { conduct, ..router() });
        assert_eq!(refusal(rig.pmp_map(A, 0, 600)), pmp);
        assert_eq!(rig.pcp_map(A, 1, 0, 600), Err(pcp));
        assert_eq!(rig.add("AddPortMapping", A, "5", "60").unwrap_err(), upnp);
        assert!(rig.requests.is_empty());
    }
}

#[test]
fn one_that_is_silent_says_nothing() {
    let mut rig = Rig::new(GatewayConfig { conduct: Conduct::Silent, ..router() });
    assert_eq!(rig.send(A, &natpmp::Request::ExternalAddress.to_vec()), None);
    assert_eq!(rig.gateway.poll_timeout(), None, "no announcements");
}

#[test]
fn one_that_gives_another_port_does_so_by_all_protocols() {
    let mut rig = Rig::new(GatewayConfig { other_port: true, ..router() });
    let Body::Map { external, .. } = rig.pmp_map(A, 5000, 600) else { panic!() };
    assert_ne!(external, 5000);
    let (port, _) = rig.pcp_map(B, 1, 40000, 600).unwrap();
    assert_ne!(port, 40000);
    assert_eq!(rig.add("AddPortMapping", "192.168.1.4:5", "5", "60").unwrap_err(), 718);
    rig.add("AddPortMapping", "192.168.1.4:5", "6", "60").unwrap();
    let any = rig.add("AddAnyPortMapping", "192.168.1.4:7", "7", "60").unwrap();
    assert_ne!(any.get("NewReservedPort"), Some("7"));
}

#[test]
fn one_behind_a_nat_says_so_or_refuses_as_miniupnpd() {
    let mut lax = Rig::new(router());
    lax.gateway.handle(Input::External(Some(ip("100.64.0.9"))), lax.now);
    assert!(lax.pcp_map(A, 1, 0, 600).is_ok());
    let mut mini = Rig::new(GatewayConfig { maps_behind_nat: false, ..router() });
    mini.gateway.handle(Input::External(Some(ip("100.64.0.9"))), mini.now);
    assert_eq!(refusal(mini.natpmp(A, natpmp::Request::ExternalAddress)), natpmp::Refusal::NetworkFailure);
    assert_eq!(mini.pcp_map(A, 1, 0, 600), Err(pcp::Refusal::NoResources));
    assert_eq!(mini.act(A, "GetExternalIPAddress", &[]).unwrap_err(), 501);
    assert_eq!(mini.act(A, "GetStatusInfo", &[]).unwrap().get("NewConnectionStatus"), Some("Disconnected"));
    let mut liar = Rig::new(GatewayConfig { claimed_external: Some(ip("10.9.9.9")), ..router() });
    let Body::ExternalAddress(told) = liar.natpmp(A, natpmp::Request::ExternalAddress) else { panic!() };
    assert_eq!(told.to_string(), "10.9.9.9");
}

#[test]
fn one_that_forgets_does_not_say_so() {
    let mut rig = Rig::new(GatewayConfig { forgets_after: Some(Duration::from_secs(5)), ..router() });
    assert_eq!(rig.pcp_map(A, 1, 5000, 3600), Ok((5000, 3600)));
    rig.pass(5);
    assert_eq!(rig.unmapped(), ["forgotten"]);
    assert_eq!(rig.pcp(A, 0, Op::Announce, vec![]).epoch, 5);
}

#[test]
fn web_connections_are_bounded_in_number_and_time() {
    let mut rig = Rig::new(router());
    let closes = |rig: &mut Rig| {
        std::iter::from_fn(|| rig.gateway.poll_transmit())
            .filter(|t| matches!(t, Transmit::Close { .. }))
            .count()
    };
    for conn in 0..40 {
        rig.gateway.handle(Input::Accepted { conn: ConnId(conn), from: addr(A) }, rig.now);
    }
    assert_eq!(closes(&mut rig), 8);
    rig.pass(30);
    assert_eq!(closes(&mut rig), 32);
}

fn ports() -> impl Strategy<Value = u16> {
    prop_oneof![Just(SERVER_PORT), Just(1900), any::<u16>()]
}

proptest! {
    /// Whatever comes, table and queues stay within bounds and answers are no bigger than what they answer warrants.
    #[test]
    fn anything_may_come(inputs in proptest::collection::vec((ports(), 0_u8..3, 0_u8..4, proptest::collection::vec(any::<u8>(), 0..120)), 0..60)) {
        let mut rig = Rig::new(GatewayConfig { capacity: 8, ..router() });
        for (to, version, op, mut data) in inputs {
            if data.len() >= 2 {
                (data[0], data[1]) = (version, op);
            }
            if data.len() >= 24 && version == 2 {
                data[8..24].copy_from_slice(&"192.168.1.2".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().octets());
            }
            rig.gateway.handle(Input::Datagram { to, from: addr(A), data: &data }, rig.now);
            for answer in rig.answers(addr(A)) {
                prop_assert!(answer.len() <= pcp::MAX_LEN);
            }
            let conn = ConnId(u64::from(op));
            rig.gateway.handle(Input::Accepted { conn, from: addr(A) }, rig.now);
            rig.gateway.handle(Input::Stream { conn, data: &data }, rig.now);
            rig.pass(u64::from(op) * 20);
            prop_assert!(rig.gateway.mappings() <= 8);
        }
    }
}
