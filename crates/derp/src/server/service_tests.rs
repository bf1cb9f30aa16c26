//! What a relay does beyond relaying: who may use it and how much, the other relays of its region, and its own end.

use super::*;
use crate::{
    MIN_BURST,
    client::{Client, ClientConfig, ClientEvent},
    info::RateLimit,
    keys::MeshKey,
    test::{Bench, disco, private},
    websocket::WebSocketError,
};

fn secret() -> Option<MeshKey> {
    MeshKey::new("the region's secret")
}

fn left(bench: &Bench, of: u64) -> Option<LeaveReason> {
    bench.events.iter().find_map(|event| match event {
        ServerEvent::ClientLeft { conn, why, .. } | ServerEvent::Refused { conn, why, .. }
            if *conn == ConnId(of) =>
        {
            Some(why.clone())
        }
        _ => None,
    })
}

fn healths(bench: &mut Bench, conn: u64) -> Vec<String> {
    let text = |event| match event {
        ClientEvent::Health { text } => Some(text),
        _ => None,
    };
    bench.drain(conn).into_iter().filter_map(text).collect()
}

// Admission.

#[test]
fn a_client_waits_until_it_is_admitted() {
    let mut bench = Bench::new(ServerConfig { admission: true, ..ServerConfig::default() });
    let a = bench.join(1, 1);
    assert!(!bench.client(1).is_ready());
    let asked = ServerEvent::Admission { conn: ConnId(1), key: a, remote: ([192, 0, 2, 1], 1).into() };
    assert_eq!(bench.events, [asked]);
    let now = bench.now;
    bench.server.admit(ConnId(1), true, now);
    bench.run();
    assert!(bench.client(1).is_ready());
    bench.server.admit(ConnId(1), false, now); // answered already
    bench.run();
    assert!(bench.server.is_connected(&a));
}

#[test]
fn who_is_not_admitted_is_disconnected_and_gets_nothing() {
    let mut bench = Bench::new(ServerConfig { admission: true, ..ServerConfig::default() });
    let a = bench.join(1, 1);
    let now = bench.now;
    bench.server.admit(ConnId(1), false, now);
    bench.run();
    assert_eq!((left(&bench, 1), &bench.closed[..]), (Some(LeaveReason::NotAdmitted), &[ConnId(1)][..]));
    assert!(!bench.server.is_connected(&a));
}

#[test]
fn a_question_that_nobody_answers_ends_with_the_handshake() {
    let mut bench = Bench::new(ServerConfig { admission: true, ..ServerConfig::default() });
    bench.join(1, 1);
    bench.wait(HANDSHAKE_TIMEOUT);
    assert_eq!(left(&bench, 1), Some(LeaveReason::HandshakeTimeout));
}

#[test]
fn who_is_expelled_loses_every_connection() {
    let mut bench = Bench::new(ServerConfig::default());
    let a = bench.join(1, 1);
    bench.join(2, 1);
    bench.join(3, 3);
    let now = bench.now;
    bench.server.expel(&a, now);
    bench.run();
    assert_eq!(bench.closed, [ConnId(2), ConnId(1)]);
    assert_eq!(bench.server.connections(), 1);
}

// Limits.

#[test]
fn connections_are_limited_in_all_and_by_source() {
    let mut server =
        Bench::new(ServerConfig { max_connections: 5, max_per_source: 3, ..ServerConfig::default() });
    let now = server.now;
    let refused = |bench: &mut Bench, conn: u64, from: &str| {
        bench.server.accepted(ConnId(conn), from.parse().unwrap(), now);
        let events: Vec<_> = std::iter::from_fn(|| bench.server.poll_event()).collect();
        while bench.server.poll_transmit().is_some() {}
        matches!(events[..], [ServerEvent::Refused { why: LeaveReason::TooMany, .. }])
    };
    let flood = ["[2001:db8::1]:1", "[2001:db8::ffff]:2", "[2001:db8::1:2:3:4]:3", "[2001:db8::9]:4"];
    let taken: Vec<bool> = (0..).zip(flood).map(|(n, from)| refused(&mut server, n, from)).collect();
    assert_eq!(taken, [false, false, false, true], "a network of 64 bits is one source");
    assert!(!refused(&mut server, 10, "[2001:db8:0:1::1]:1"));
    server.server.closed(ConnId(0), now);
    assert!(!refused(&mut server, 11, "[2001:db8::1]:9"), "one of its connections has gone");
    assert!(!refused(&mut server, 12, "192.0.2.1:1"));
    assert!(refused(&mut server, 13, "192.0.2.2:1"), "the sixth of five");
}

#[test]
fn a_flood_of_handshakes_goes_after_ten_seconds() {
    let mut bench = Bench::new(ServerConfig::default());
    let now = bench.now;
    for n in 0..1000 {
        bench.server.accepted(ConnId(n), ([192, 0, 2, 1], 1).into(), now);
        bench.server.handle_stream(ConnId(n), b"GET /derp HTTP/1.1\r\nX: ", now);
    }
    assert_eq!(bench.server.connections(), 1000);
    bench.wait(HANDSHAKE_TIMEOUT);
    assert_eq!((bench.server.connections(), bench.server.sources.len()), (0, 0));
}

// Rate.

fn limited(burst: u64) -> ServerConfig {
    let rate_limit = Some(RateLimit { bytes_per_second: 100_000, burst });
    ServerConfig { rate_limit, ..ServerConfig::default() }
}

#[test]
fn a_client_that_is_told_its_rate_keeps_to_it_with_discovery_first() {
    let mut bench = Bench::new(limited(2 * MIN_BURST));
    let (a, _) = (bench.join(1, 1), bench.join(2, 2));
    assert!(
        bench.drain(2).iter().any(|event| matches!(event, ClientEvent::Ready { rate_limit: Some(_), .. }))
    );
    for _ in 0..100 {
        bench.send(2, a, &[0; 1000]);
    }
    bench.send(2, a, &disco(1));
    let at_once = bench.packets(1).len();
    assert!((63..68).contains(&at_once), "{at_once} of the burst");
    bench.wait(Duration::from_millis(1));
    bench.wait(Duration::from_millis(99));
    let later = bench.packets(1);
    assert_eq!(later[0].1, disco(1), "it overtook the data");
    assert!((8..12).contains(&later.len()), "{} in a tenth of a second", later.len());
    assert_eq!(bench.held, BTreeMap::new(), "there was no need to stop it");
}

#[test]
fn a_client_that_ignores_its_rate_is_read_at_that_rate_and_delays_nobody() {
    let mut bench = Bench::new(limited(MIN_BURST));
    let (a, b) = (bench.join(1, 1), bench.join(2, 2));
    bench.join(3, 3);
    let mut frame = bytes::BytesMut::new();
    Frame::SendPacket { dst: a, packet: &[0; 60_000] }.encode(&mut frame).unwrap();
    let now = bench.now;
    bench.server.handle_stream(ConnId(2), &frame, now);
    bench.run();
    assert_eq!(bench.held, BTreeMap::new());
    bench.server.handle_stream(ConnId(2), &frame, now);
    bench.run();
    assert_eq!(bench.held, BTreeMap::from([(ConnId(2), true)]));
    assert_eq!(bench.packets(1).len(), 2, "what was read before is delivered");
    bench.send(3, b, b"in the meantime");
    assert_eq!(bench.packets(2).len(), 1);
    bench.wait(Duration::from_millis(500));
    assert!(bench.held[&ConnId(2)]);
    bench.wait(Duration::from_millis(100));
    assert!(!bench.held[&ConnId(2)]);
}

// Health and restart.

#[test]
fn ill_health_is_told_to_all_and_to_who_comes_later() {
    let mut bench = Bench::new(ServerConfig::default());
    bench.join(1, 1);
    let now = bench.now;
    bench.server.set_health("disk full", now);
    bench.run();
    bench.join(2, 2);
    assert_eq!(
        (healths(&mut bench, 1), healths(&mut bench, 2)),
        (vec!["disk full".into()], vec!["disk full".into()])
    );
    bench.server.set_health("", now);
    bench.run();
    bench.join(3, 3);
    assert_eq!((healths(&mut bench, 1), healths(&mut bench, 3)), (vec![String::new()], vec![]));
}

#[test]
fn two_machines_with_one_key_are_told_until_one_leaves() {
    let mut bench = Bench::new(ServerConfig::default());
    let a = bench.join(1, 1);
    bench.join(2, 1);
    bench.send(2, a, b"the new one");
    assert_eq!(healths(&mut bench, 1), Vec::<String>::new(), "a machine may change networks");
    bench.send(1, a, b"the old one speaks again");
    bench.send(2, a, b"and the new one");
    assert_eq!(
        (healths(&mut bench, 1), healths(&mut bench, 2)),
        (vec![CONFLICT.into()], vec![CONFLICT.into()])
    );
    let now = bench.now;
    bench.server.closed(ConnId(2), now);
    bench.run();
    assert_eq!(healths(&mut bench, 1), [String::new()]);
}

#[test]
fn a_relay_that_restarts_serves_its_clients_until_its_grace_is_over() {
    let mut bench = Bench::new(ServerConfig::default());
    let (a, b) = (bench.join(1, 1), bench.join(2, 2));
    let second = Duration::from_secs(1);
    let now = bench.now;
    let spread = Duration::ZERO;
    bench
        .server
        .shutdown(Restart { reconnect_in: second, spread, try_for: 60 * second, grace: 3 * second }, now);
    bench.send(1, b, b"still");
    let restarting = ClientEvent::Restarting { reconnect_in: second, try_for: 60 * second };
    let heard = bench.drain(2);
    assert!(heard.contains(&restarting));
    assert!(heard.iter().any(|event| matches!(event, ClientEvent::Packet { src, .. } if *src == a)));
    bench.join(3, 3);
    assert_eq!(bench.closed, [ConnId(3)], "it takes no new ones");
    bench.wait(3 * second);
    assert_eq!((bench.closed.len(), bench.server.connections()), (3, 0));
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn a_hundred_clients_are_told_a_hundred_times_to_come_back() {
    let mut bench = Bench::new(ServerConfig::default());
    for n in 0..100 {
        bench.join(n, n);
    }
    let (second, now) = (Duration::from_secs(1), bench.now);
    let restart = Restart { reconnect_in: second, spread: second, try_for: second, grace: second };
    bench.server.shutdown(restart, now);
    bench.run();
    let told = |bench: &mut Bench, n| {
        let heard = bench.drain(n);
        let mut told = heard.iter().filter_map(|event| match event {
            ClientEvent::Restarting { reconnect_in, .. } => Some(*reconnect_in),
            _ => None,
        });
        told.next().expect("it is told")
    };
    let mut times: Vec<Duration> = (0..100).map(|n| told(&mut bench, n)).collect();
    times.sort_unstable();
    assert!(times[0] >= second && times[99] <= 2 * second);
    let tenth = second / 10;
    let fullest =
        times.iter().map(|from| times.iter().filter(|at| (*from..*from + tenth).contains(*at)).count());
    assert!(fullest.max() < Some(30), "{times:?}");
}

#[test]
fn packets_for_clients_that_are_not_back_yet_wait_for_them_for_a_moment() {
    let hold_at_start = Duration::from_secs(1);
    let mut bench = Bench::new(ServerConfig { hold_at_start, ..ServerConfig::default() });
    let (a, b) = (bench.join(1, 1), private(2).public());
    bench.send(1, b, b"first");
    bench.send(1, b, &disco(1));
    bench.wait(hold_at_start / 2);
    bench.join(2, 2);
    assert_eq!(bench.packets(2), [(a, disco(1)), (a, b"first".to_vec())]);
    bench.send(1, private(3).public(), b"in vain");
    bench.wait(hold_at_start / 2);
    bench.join(3, 3);
    assert_eq!(bench.packets(3), []);
    let dropped = |event: &ServerEvent| matches!(event, ServerEvent::Dropped { bytes: 7, .. });
    assert!(bench.events.iter().any(dropped));
    bench.send(1, private(4).public(), b"too late");
    bench.join(4, 4);
    assert_eq!(bench.packets(4), []);
}

#[test]
fn what_is_held_at_the_start_is_bounded_for_each_client_and_in_all() {
    let hold_at_start = Duration::from_secs(1);
    let mut bench = Bench::new(ServerConfig { hold_at_start, ..ServerConfig::default() });
    bench.join(1, 1);
    for _ in 0..2 * crate::QUEUE_LEN {
        bench.send(1, private(2).public(), b"x");
    }
    bench.join(2, 2);
    assert_eq!(bench.packets(2).len(), crate::QUEUE_LEN);
    for n in 100..100 + 40 {
        bench.send(1, private(n).public(), &[0; 60_000]);
    }
    let dropped = |event: &&ServerEvent| matches!(event, ServerEvent::Dropped { bytes: 60_000, .. });
    assert_eq!(bench.events.iter().filter(dropped).count(), 40 - HELD_BYTES / 60_037);
}

// The mesh.

/// Two relays of one region, each with a connection (of number 99) to the other.
struct Region {
    relays: [Bench; 2],
}

const LINK: LinkId = LinkId(0);

impl Region {
    fn new() -> Region {
        let relay = |n: u64| {
            let mut bench = Bench::seeded(ServerConfig { mesh_key: secret(), ..ServerConfig::default() }, n);
            let config = ClientConfig { mesh_key: secret(), ..ClientConfig::new(private(1000 + n), "relay") };
            bench.join_with(99, config);
            bench
        };
        let mut region = Region { relays: [relay(0), relay(1)] };
        region.run();
        region
    }

    /// The client that relay `n` is at the other one, which therefore lives there.
    fn link(&mut self, n: usize) -> &mut Client {
        self.relays[1 - n].client(99)
    }

    fn run(&mut self) {
        for _ in 0..4 {
            for n in 0..2 {
                self.relays[n].run();
                for event in self.relays[1 - n].drain(99) {
                    let server = &mut self.relays[n].server;
                    match event {
                        ClientEvent::PeerPresent { key, .. } => server.mesh_present(LINK, key).unwrap(),
                        ClientEvent::PeerGone { key, .. } => server.mesh_gone(LINK, key),
                        _ => {}
                    }
                }
                while let Some(Forward { src, dst, packet, .. }) = self.relays[n].server.poll_forward() {
                    self.link(n).forward(src, dst, &packet, Class::of(&packet));
                }
            }
        }
    }
}

#[test]
fn clients_of_two_relays_of_a_region_reach_each_other() {
    let mut region = Region::new();
    let (a, b) = (region.relays[0].join(1, 1), region.relays[1].join(1, 2));
    region.run();
    region.relays[0].send(1, b, b"over there");
    region.run();
    assert_eq!(region.relays[1].packets(1), [(a, b"over there".to_vec())]);
    region.relays[1].send(1, a, &disco(3));
    region.run();
    assert_eq!(region.relays[0].packets(1), [(b, disco(3))]);
}

#[test]
fn who_wrote_to_a_client_of_another_relay_hears_that_it_left() {
    let mut region = Region::new();
    let b = region.relays[1].join(1, 2);
    region.relays[0].join(1, 1);
    region.relays[0].join(2, 3);
    region.run();
    region.relays[0].send(1, b, b"x");
    region.run();
    let now = region.relays[1].now;
    region.relays[1].server.closed(ConnId(1), now);
    region.relays[1].clients.remove(&ConnId(1));
    region.run();
    let gone = ClientEvent::PeerGone { key: b, reason: GoneReason::Disconnected };
    assert!(region.relays[0].drain(1).contains(&gone));
    assert!(!region.relays[0].drain(2).contains(&gone));
    region.relays[0].send(1, b, &disco(1));
    region.run();
    let nowhere = ClientEvent::PeerGone { key: b, reason: GoneReason::NotHere };
    assert!(region.relays[0].drain(1).contains(&nowhere));
}

#[test]
fn what_was_forwarded_once_is_not_forwarded_again() {
    let mut region = Region::new();
    let (a, b) = (region.relays[0].join(1, 1), private(7).public());
    region.run();
    region.relays[1].server.mesh_present(LINK, b).unwrap(); // each believes that the other has it
    region.relays[0].server.mesh_present(LINK, b).unwrap();
    region.relays[0].send(1, b, b"x");
    region.run();
    let why = DropReason::UnknownDestination;
    let dropped = ServerEvent::Dropped { src: a, dst: b, bytes: 1, class: Class::Data, why };
    assert!(region.relays[1].events.contains(&dropped));
}

#[test]
fn a_relay_that_is_cut_off_takes_its_clients_with_it() {
    let mut region = Region::new();
    let b = region.relays[1].join(1, 2);
    region.relays[0].join(1, 1);
    region.run();
    region.relays[0].send(1, b, b"x");
    region.relays[0].server.mesh_down(LINK);
    region.relays[0].run();
    let gone = ClientEvent::PeerGone { key: b, reason: GoneReason::Disconnected };
    assert!(region.relays[0].drain(1).contains(&gone));
}

#[test]
fn a_relay_may_close_a_client_of_another() {
    let mut region = Region::new();
    let b = region.relays[1].join(1, 2);
    region.link(0).close_peer(b);
    region.run();
    assert_eq!(left(&region.relays[1], 1), Some(LeaveReason::ClosedByMesh));
}

#[test]
fn a_wrong_secret_makes_a_plain_client() {
    let mut bench = Bench::new(ServerConfig { mesh_key: secret(), ..ServerConfig::default() });
    let mesh_key = MeshKey::new("the region's secreT");
    bench.join_with(1, ClientConfig { mesh_key, ..ClientConfig::new(private(1), "relay") });
    assert_eq!(left(&bench, 1), Some(LeaveReason::NotMesh), "it asked to watch");
}

#[test]
fn one_who_watches_hears_of_all_who_are_there_and_of_none_twice() {
    let mut bench = Bench::new(ServerConfig { mesh_key: secret(), ..ServerConfig::default() });
    let n = crate::CONTROL_LEN as u64 + 100;
    for conn in 0..n {
        bench.server.config.max_per_source = usize::MAX;
        bench.join(conn, conn);
    }
    bench.join_with(9999, ClientConfig { mesh_key: secret(), ..ClientConfig::new(private(9999), "relay") });
    let present =
        |event: &ClientEvent| matches!(event, ClientEvent::PeerPresent { flags: 1, addr: Some(_), .. });
    assert_eq!(bench.drain(9999).iter().filter(|event| present(event)).count(), n as usize);
    bench.join(n + 1, 0); // a second connection of the first client is no news
    assert_eq!(bench.drain(9999), []);
}

#[test]
fn one_who_watches_is_told_who_is_a_relay_and_who_would_rather_be_elsewhere() {
    let mut bench = Bench::new(ServerConfig { mesh_key: secret(), ..ServerConfig::default() });
    bench.join_with(1, ClientConfig { mesh_key: secret(), ..ClientConfig::new(private(1), "relay") });
    bench.join(2, 2);
    bench.join_with(3, ClientConfig { mesh_key: secret(), ..ClientConfig::new(private(3), "relay") });
    bench.join_with(
        4,
        ClientConfig { ideal_node: Some("1a".into()), ..ClientConfig::new(private(4), "relay") },
    );
    let flags = |event: ClientEvent| match event {
        ClientEvent::PeerPresent { flags, .. } => Some(flags),
        _ => None,
    };
    let told: Vec<u8> = bench.drain(1).into_iter().filter_map(flags).collect();
    assert_eq!(told, [1, 2, 9]);
    let prober = ClientInfo { is_prober: true, ..ClientInfo::default() };
    assert_eq!(presence_flags(false, &prober, false), 4);
}

#[test]
fn another_relay_of_the_region_has_half_a_minute_to_read_and_no_rate() {
    let mut bench = Bench::new(ServerConfig { mesh_key: secret(), ..limited(MIN_BURST) });
    let mesh = ClientConfig { mesh_key: secret(), ..ClientConfig::new(private(1), "relay") };
    let (link, a) = (bench.join_with(1, mesh), bench.join(2, 2));
    let mut frame = bytes::BytesMut::new();
    Frame::SendPacket { dst: a, packet: &[0; 60_000] }.encode(&mut frame).unwrap();
    let now = bench.now;
    for _ in 0..4 {
        bench.server.handle_stream(ConnId(1), &frame, now);
    }
    bench.run();
    assert_eq!(bench.held, BTreeMap::new(), "it carries what many have sent");

    bench.slow.insert(ConnId(1), 0);
    bench.server.writable(ConnId(1), 0, now);
    bench.send(2, link, b"x");
    bench.wait(MESH_WRITE_TIMEOUT - Duration::from_millis(1));
    assert_eq!(left(&bench, 1), None);
    bench.wait(Duration::from_millis(1));
    assert_eq!(left(&bench, 1), Some(LeaveReason::WriteTimeout));
}

// WebSocket.

#[test]
fn packets_pass_between_a_web_socket_and_a_plain_connection() {
    for chunk in [usize::MAX, 1, 7] {
        let mut bench = Bench::new(ServerConfig::default());
        bench.chunk = chunk;
        let in_socket = ClientConfig { web_socket: true, ..ClientConfig::new(private(1), "relay") };
        let (a, b) = (bench.join_with(1, in_socket), bench.join(2, 2));
        assert!(bench.client(1).is_ready());
        bench.send(1, b, &[7; 7000]);
        bench.send(2, a, b"back");
        assert_eq!(bench.packets(2), [(a, vec![7; 7000])]);
        assert_eq!(bench.packets(1), [(b, b"back".to_vec())]);
    }
}

#[test]
fn a_web_socket_never_exceeds_its_credit_and_waits_where_not_even_a_header_fits() {
    let mut bench = Bench::new(ServerConfig::default());
    let in_socket = ClientConfig { web_socket: true, ..ClientConfig::new(private(1), "relay") };
    let a = bench.join_with(1, in_socket);
    bench.join(2, 2);
    bench.slow.insert(ConnId(1), 0);
    bench.send(2, a, &[1; 500]);
    let now = bench.now;
    for space in [5, 10, 11, 100, 10, 1000] {
        bench.server.writable(ConnId(1), space, now);
        let mut written = 0;
        while let Some(transmit) = bench.server.poll_transmit() {
            let ServerTransmit::Write { conn, data } = transmit else { panic!("{transmit:?}") };
            assert_eq!(conn, ConnId(1));
            written += data.len();
            bench.client(1).handle_stream(&data, now).unwrap();
        }
        assert!(written <= space && (written > 0) == (space > 10), "{written} of {space}");
    }
    assert_eq!(bench.packets(1).len(), 1);
}

#[test]
fn a_web_socket_that_breaks_its_rules_is_closed() {
    let mut bench = Bench::new(ServerConfig::default());
    let in_socket = ClientConfig { web_socket: true, ..ClientConfig::new(private(1), "relay") };
    bench.join_with(1, in_socket);
    let now = bench.now;
    bench.server.handle_stream(ConnId(1), b"\x82\x01x", now);
    bench.run();
    assert_eq!(left(&bench, 1), Some(LeaveReason::WebSocket(WebSocketError::Mask)));
}
