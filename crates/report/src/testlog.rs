//! Synthetic logs for the tests of this crate: two homes that go direct, then lose the path when a router reboots.

use std::net::SocketAddr;
use trace::{Event, FlowKind, Header, Name, NodeKind, Path, Payload, Proto, Record, ServerState};

pub(crate) const MS: u64 = 1_000_000;

/// Builds a log in any order of time; [`Log::records`] sorts it, keeping the order of equal times.
#[derive(Default)]
pub(crate) struct Log {
    records: Vec<Record>,
}

pub(crate) fn name(text: &str) -> Name {
    Name::from(text)
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn header(scenario: &str, title: &str) -> Header {
    Header {
        format: trace::FORMAT,
        scenario: scenario.into(),
        title: title.into(),
        scenario_hash: "00".repeat(32),
        seed: 1,
        version: "0.1.0".into(),
        world: "sim".into(),
    }
}

impl Log {
    pub(crate) fn at(&mut self, ms: u64, event: Event) -> &mut Log {
        self.records.push(Record { t: ms * MS, event });
        self
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = self.records.clone();
        records.sort_by_key(|record| record.t);
        records
    }

    pub(crate) fn flow(&mut self, ms: u64, flow: &str, kind: FlowKind, from: &str, to: &str) -> &mut Log {
        self.at(ms, Event::FlowStart { flow: name(flow), kind, from: name(from), to: name(to) })
    }

    pub(crate) fn path(
        &mut self,
        ms: u64,
        host: &str,
        peer: &str,
        path: Option<Path>,
        why: &str,
    ) -> &mut Log {
        let address = matches!(path, Some(Path::Direct | Path::Lan)).then(|| addr("203.0.113.9:41641"));
        let relay = (path == Some(Path::Relay)).then(|| name("relay-ams"));
        let (host, peer, reason) = (name(host), name(peer), why.to_owned());
        self.at(ms, Event::PathChanged { host, peer, path, address, relay, reason })
    }

    pub(crate) fn paths(
        &mut self,
        ms: u64,
        one: &str,
        other: &str,
        path: Option<Path>,
        why: &str,
    ) -> &mut Log {
        self.path(ms, one, other, path, why).path(ms, other, one, path, why)
    }

    pub(crate) fn sent(&mut self, ms: u64, flow: &str, host: &str, seq: u64) -> &mut Log {
        self.at(ms, Event::AppSent { flow: name(flow), host: name(host), seq, bytes: 100 })
    }

    pub(crate) fn received(
        &mut self,
        ms: u64,
        flow: &str,
        host: &str,
        seq: u64,
        ms_ago: u64,
        path: Path,
    ) -> &mut Log {
        let (flow, host) = (name(flow), name(host));
        self.at(ms, Event::AppReceived { flow, host, seq, latency_ns: ms_ago * MS, path })
    }

    pub(crate) fn bulk(&mut self, ms: u64, flow: &str, host: &str, total_bytes: u64, path: Path) -> &mut Log {
        self.at(ms, Event::BulkReceived { flow: name(flow), host: name(host), total_bytes, path })
    }

    pub(crate) fn action(&mut self, ms: u64, what: &str) -> &mut Log {
        self.at(ms, Event::Action { what: what.into() })
    }

    pub(crate) fn end(&mut self, ms: u64) -> &mut Log {
        self.at(ms, Event::End { events: 1_000 })
    }

    /// A ping there and back, `one_way_ms` each way.
    pub(crate) fn ping(&mut self, ms: u64, flow: &str, seq: u64, one_way_ms: u64, path: Path) -> &mut Log {
        let rtt_ns = 2 * one_way_ms * MS;
        self.sent(ms, flow, "flappie", seq)
            .received(ms + one_way_ms, flow, "takkie", seq, one_way_ms, path)
            .sent(ms + one_way_ms, flow, "takkie", seq)
            .received(ms + 2 * one_way_ms, flow, "flappie", seq, one_way_ms, path)
            .at(ms + 2 * one_way_ms, Event::Echo { flow: name(flow), seq, rtt_ns, out: path, back: path })
    }
}

fn nodes(log: &mut Log) {
    let mut node = |node: &str, kind, behind: Option<&str>, address: &str, about: &str| {
        log.at(
            0,
            Event::Node {
                node: name(node),
                kind,
                behind: behind.map(name),
                region: name("ams"),
                address: address.parse().unwrap(),
                about: about.into(),
            },
        );
    };
    node("coordinator", NodeKind::Coordinator, None, "192.0.2.1", "");
    node("relay-ams", NodeKind::Relay, None, "192.0.2.10", "");
    node("home-a", NodeKind::Router, None, "198.51.100.7", "port-restricted-cone");
    node("home-b", NodeKind::Router, None, "203.0.113.9", "port-restricted-cone");
    node("flappie", NodeKind::Host, Some("home-a"), "192.168.1.2", "");
    node("takkie", NodeKind::Host, Some("home-b"), "192.168.1.2", "");
}

fn start(log: &mut Log, host: &str, tunnel: &str, external: &str, offset: u64) {
    let state = ServerState::Connected;
    let host = name(host);
    let address = addr("192.0.2.1:443");
    log.at(30 + offset, Event::Coordinator { host: host.clone(), state, address, reason: String::new() });
    log.at(42 + offset, Event::Registered { host: host.clone(), tunnel: tunnel.parse().unwrap() });
    for (server, at) in [("192.0.2.10:3478", 55), ("192.0.2.11:3478", 61)] {
        let event = Event::Reflexive {
            host: host.clone(),
            server: addr(server),
            mapped: addr(external),
            rtt_ns: 24 * MS,
        };
        log.at(at + offset, event);
    }
    log.at(
        61 + offset,
        Event::NatLearned {
            host: host.clone(),
            mapping_varies: Some(false),
            udp_blocked: false,
            candidates: vec![addr("192.168.1.2:41641"), addr(external)],
        },
    );
    let (relay, address) = (name("relay-ams"), addr("192.0.2.10:443"));
    log.at(90 + offset, Event::Relay { host, relay, state, address, reason: String::new() });
}

fn probe(log: &mut Log, ms: u64, host: &str, peer: &str, to: &str, attempt: u32, why: &str) {
    let (host, peer) = (name(host), name(peer));
    log.at(ms, Event::Probe { host, peer, to: addr(to), attempt, why: name(why) });
}

fn dropped(log: &mut Log, ms: u64, node: &str, id: u64, reason: &str, dst: &str, payload: Payload) {
    let (proto, src, dst) = (Proto::Udp, addr("198.51.100.7:41641"), addr(dst));
    log.at(ms, Event::Dropped { node: name(node), id, reason: name(reason), proto, src, dst, payload });
}

/// Two homes: relayed at once, direct after a quarter of a second, back on the relay when `home-b` reboots.
pub(crate) fn two_homes() -> Vec<Record> {
    let mut log = Log::default();
    nodes(&mut log);
    start(&mut log, "flappie", "100.64.0.1", "198.51.100.7:41641", 0);
    start(&mut log, "takkie", "100.64.0.2", "203.0.113.9:41641", 5);
    let flow = "ping flappie takkie";
    log.flow(500, flow, FlowKind::Ping, "flappie", "takkie");
    log.paths(500, "flappie", "takkie", Some(Path::Relay), "first traffic");
    for (host, peer, candidates) in [
        ("flappie", "takkie", ["192.168.1.2:41641", "203.0.113.9:41641"]),
        ("takkie", "flappie", ["192.168.1.2:41641", "198.51.100.7:41641"]),
    ] {
        let (host, peer, via) = (name(host), name(peer), name("relay"));
        log.at(560, Event::Candidates { host, peer, candidates: candidates.map(addr).to_vec(), via });
    }
    for attempt in 0..3 {
        let at = 561 + 33 * u64::from(attempt);
        for candidate in ["192.168.1.2:41641", "203.0.113.9:41641"] {
            probe(&mut log, at, "flappie", "takkie", candidate, attempt, "check");
        }
        probe(&mut log, at + 1, "takkie", "flappie", "198.51.100.7:41641", attempt, "check");
    }
    dropped(&mut log, 586, "home-b", 40, "filtered-port", "203.0.113.9:41641", Payload::Disco);
    dropped(&mut log, 587, "home-a", 41, "no-such-host", "192.168.1.2:41641", Payload::Disco);
    dropped(&mut log, 620, "home-a", 43, "no-such-host", "192.168.1.2:41641", Payload::Disco);
    for (host, peer, address) in
        [("flappie", "takkie", "203.0.113.9:41641"), ("takkie", "flappie", "198.51.100.7:41641")]
    {
        let (host, peer, address) = (name(host), name(peer), addr(address));
        log.at(640, Event::Validated { host: host.clone(), peer: peer.clone(), address, rtt_ns: 50 * MS });
        log.at(570, Event::Session { initiator: &*host == "flappie", host, peer });
    }
    log.paths(640, "flappie", "takkie", Some(Path::Direct), "validated");
    log.ping(500, flow, 0, 60, Path::Relay);
    for seq in 1..5 {
        log.ping(500 + seq * 1_000, flow, seq, 25, Path::Direct);
    }
    log.action(5_000, "router home-b: reboot, off for 1s");
    for seq in 5..7 {
        let at = 500 + seq * 1_000;
        log.sent(at, flow, "flappie", seq);
        dropped(&mut log, at + 20, "home-b", 90 + seq, "router-off", "203.0.113.9:41641", Payload::Tunnel);
    }
    log.path(6_600, "flappie", "takkie", Some(Path::Relay), "no answer to several probes");
    log.path(6_700, "takkie", "flappie", Some(Path::Relay), "the peer moved");
    for seq in 7..10 {
        log.ping(500 + seq * 1_000, flow, seq, 60, Path::Relay);
    }
    log.at(10_000, Event::FlowEnd { flow: name(flow), complete: true, reason: String::new() });
    log.end(12_000);
    log.records()
}

/// A bulk transfer behind two firewalls that let only the web out: relayed, slow, and it does not finish.
pub(crate) fn web_only() -> Vec<Record> {
    let mut log = Log::default();
    nodes(&mut log);
    for (host, tunnel) in [("flappie", "100.64.0.1"), ("takkie", "100.64.0.2")] {
        let host = name(host);
        log.at(42, Event::Registered { host: host.clone(), tunnel: tunnel.parse().unwrap() });
        for (id, at) in (0..7).map(|n| (n, 50 + 500 * n)) {
            dropped(&mut log, at, "home-a", id, "udp-blocked", "192.0.2.10:3478", Payload::Stun);
        }
        let (relay, address, reason) = (name("relay-ams"), addr("192.0.2.10:443"), "refused".to_owned());
        log.at(60, Event::Relay { host: host.clone(), relay, state: ServerState::Failed, address, reason });
        let (relay, address) = (name("relay-ams"), addr("192.0.2.10:80"));
        let state = ServerState::Connected;
        log.at(110, Event::Relay { host: host.clone(), relay, state, address, reason: String::new() });
        let candidates = vec![addr("192.168.1.2:41641")];
        log.at(5_000, Event::NatLearned { host, mapping_varies: None, udp_blocked: true, candidates });
    }
    let flow = "copy flappie takkie";
    log.flow(500, flow, FlowKind::Bulk, "flappie", "takkie");
    log.paths(500, "flappie", "takkie", Some(Path::Relay), "first traffic");
    for n in 1..=40u64 {
        log.bulk(600 + n * 100, flow, "takkie", n * 125_000, Path::Relay);
    }
    let reason = "connection timed out".to_owned();
    log.at(9_000, Event::FlowEnd { flow: name(flow), complete: false, reason });
    log.at(9_000, Event::Violation { invariant: name("corrupt-stream"), detail: "wrong byte".into() });
    log.end(10_000);
    log.records()
}

/// Two hosts that ping and copy, relayed first, then on `path`; one packet in `lose` is lost on the relay.
pub(crate) fn plain(relay_ms: u64, own_ms: u64, after_ms: u64, path: Path, lose: u64) -> Vec<Record> {
    let mut log = Log::default();
    nodes(&mut log);
    let (flow, copy) = ("ping", "copy");
    log.flow(100, flow, FlowKind::Ping, "flappie", "takkie").flow(
        200,
        copy,
        FlowKind::Bulk,
        "flappie",
        "takkie",
    );
    log.paths(100, "flappie", "takkie", Some(Path::Relay), "first traffic");
    log.paths(100 + after_ms, "flappie", "takkie", Some(path), "validated");
    for seq in 0..40 {
        let at = 100 + seq * 250;
        if seq % lose == lose - 1 {
            log.sent(at, flow, "flappie", seq);
        } else if at < 100 + after_ms {
            log.ping(at, flow, seq, relay_ms, Path::Relay);
        } else {
            log.ping(at, flow, seq, own_ms, path);
        }
    }
    for n in 1..=100u64 {
        let at = 200 + n * 60;
        let now = if at < 100 + after_ms { Path::Relay } else { path };
        log.bulk(at, copy, "takkie", if now == Path::Relay { n * 50_000 } else { n * 600_000 }, now);
    }
    for flow in [flow, copy] {
        log.at(10_500, Event::FlowEnd { flow: name(flow), complete: true, reason: String::new() });
    }
    let (node, proto, payload) = (name("flappie"), Proto::Udp, Payload::Tunnel);
    let (src, dst) = (addr("192.168.1.2:41641"), addr("203.0.113.9:41641"));
    for id in 0..1_234 {
        log.at(id * 9, Event::Sent { node: node.clone(), id, proto, src, dst, bytes: 128, payload });
    }
    log.end(12_000);
    log.records()
}

/// A call: 20 ms apart, relayed for a moment, then on `path`; one packet in `lose` is lost.
fn call(one_way_ms: u64, path: Path, lose: u64) -> Vec<Record> {
    let mut log = Log::default();
    let flow = "call";
    log.flow(100, flow, FlowKind::Voice, "flappie", "takkie");
    log.paths(100, "flappie", "takkie", Some(Path::Relay), "first traffic");
    log.paths(130, "flappie", "takkie", Some(path), "validated");
    for seq in 0..200 {
        let at = 100 + seq * 20;
        log.sent(at, flow, "flappie", seq);
        if seq % lose != lose - 1 {
            let way = if at < 130 { Path::Relay } else { path };
            log.received(at + one_way_ms, flow, "takkie", seq, one_way_ms, way);
        }
    }
    log.end(6_000);
    log.records()
}

/// Forty hosts that all ping one; one in four stays on the relay, or all do.
fn crowd(cut: bool) -> Vec<Record> {
    let mut log = Log::default();
    for n in 0..40 {
        let (host, flow) = (format!("laptop-{n}"), format!("ping {n}"));
        let path = if cut || n % 4 == 0 { Path::Relay } else { Path::Direct };
        log.flow(100 + n, &flow, FlowKind::Ping, &host, "nas");
        log.paths(100 + n, &host, "nas", Some(Path::Relay), "first traffic").sent(100 + n, &flow, &host, 0);
        log.paths(300 + 7 * n, &host, "nas", Some(path), "validated");
        log.received(150 + n, &flow, "nas", 0, 50, Path::Relay);
    }
    log.end(5_000);
    log.records()
}

fn matrix() -> crate::Matrix {
    let rows = [
        "open",
        "full-cone",
        "restricted-cone",
        "port-restricted-cone",
        "symmetric",
        "symmetric-random",
        "carrier-nat",
        "firewall",
        "web-only",
    ];
    let mut cells = Vec::new();
    for (x, a) in rows.iter().enumerate() {
        for (y, b) in rows.iter().enumerate().skip(x) {
            let path = match (x, y) {
                (2, 6) => None,
                (_, 8) | (4.., 4..) | (3, 4 | 5) => Some(Path::Relay),
                _ => Some(Path::Direct),
            };
            let direct_ns = (path == Some(Path::Direct)).then_some((40 + 90 * x as u64 * y as u64) * MS);
            let expected = Some(if (x, y) == (3, 4) { Path::Direct } else { path.unwrap_or(Path::Relay) });
            let first_data_ns = path.map(|_| 60 * MS);
            let (a, b) = ((*a).to_owned(), (*b).to_owned());
            cells.push(crate::Cell { a, b, path, direct_ns, first_data_ns, expected });
        }
    }
    let command = "punchbag matrix --seed 1".to_owned();
    crate::Matrix { rows: rows.map(str::to_owned).to_vec(), cells, command }
}

/// A report of all of the above, most of them with a second run that stayed on the relay.
pub(crate) fn report() -> crate::Report {
    let (relay, direct) = (Path::Relay, Path::Direct);
    let runs = [
        (
            "mission/same-lan",
            "Two machines on one LAN",
            plain(45, 1, 220, Path::Lan, 100),
            Some(plain(45, 45, 220, relay, 100)),
        ),
        ("mission/two-homes", "Two homes, and one router reboots", two_homes(), None),
        ("mission/web-only", "Only web browsing allowed", web_only(), None),
        (
            "nat/double",
            "Double NAT on one side",
            plain(60, 25, 310, direct, 100),
            Some(plain(60, 60, 310, relay, 100)),
        ),
        (
            "link/lossy",
            "A link that turns lossy",
            plain(80, 32, 1_900, direct, 9),
            Some(plain(80, 80, 1_900, relay, 40)),
        ),
        ("link/call", "A call over a bad line", call(30, direct, 25), Some(call(42, relay, 100))),
        (
            "mission/crowd",
            "Forty laptops and a file server with a rather long title that has to wrap",
            crowd(false),
            Some(crowd(true)),
        ),
    ];
    let mut summary = crate::Summary::new("0.1.0", 1);
    let mut logs = Vec::new();
    for (scenario, title, records, cut) in runs {
        let metrics = crate::Metrics::fold(&records);
        let command = format!("punchbag run scenarios/{scenario}.toml --seed 1");
        let mut row = crate::ScenarioSummary::new(&header(scenario, title), &metrics, command);
        for pair in metrics.pairs.iter().take(1) {
            let words = format!("{} and {} are direct within 500ms", pair.a, pair.b);
            let passed = pair.direct_ns.is_some_and(|ns| ns <= 500 * MS);
            let seen =
                pair.direct_ns.map_or("never direct".into(), |ns| format!("direct after {} ms", ns / MS));
            row.expect(crate::Expectation { words, passed, seen });
        }
        if let Some(cut) = cut {
            let cut = crate::Metrics::fold(&cut);
            row.pairs.iter_mut().filter(|pair| pair.left_the_relay()).for_each(|pair| pair.compare(&cut));
        }
        summary.scenarios.push(row);
        logs.push((scenario.to_owned(), metrics, crate::PathTimeline::fold(&records)));
    }
    crate::Report::build(&summary, logs).with_matrix(matrix())
}
