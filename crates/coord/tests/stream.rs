//! Hostile, broken, slow and silent streams.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Network, SERVER_PRIVATE, address, config, rng, start};
use coord::client::{Client, ClientConfig, Event};
use coord::server::{ConnId, LeaveReason, Limits, Server, ServerConfig, ServerEvent, ServerTransmit};
use coord::{DEAD_AFTER, Error, HANDSHAKE_WITHIN, KEEP_ALIVE, MAP_WITHIN, PROTOCOL, Update};
use proptest::prelude::*;

const CONN: ConnId = ConnId(1);
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: punchbag-coord/1\r\nConnection: Upgrade\r\n\r\n";

fn server() -> Server {
    let mut server = Server::new(ServerConfig::new(SERVER_PRIVATE, Vec::new()), rng(1), start());
    server.accepted(CONN, address("192.0.2.9:40000"), start());
    server.writable(CONN, usize::MAX, start());
    server
}

fn client(config: ClientConfig) -> Client {
    let mut client = Client::new(config, rng(2), start());
    client.connected(start());
    client
}

fn from_client(client: &mut Client) -> Vec<u8> {
    std::iter::from_fn(|| client.poll_transmit(usize::MAX)).flatten().collect()
}

fn from_server(server: &mut Server) -> Vec<u8> {
    let transmits = std::iter::from_fn(|| server.poll_transmit());
    transmits
        .filter_map(|transmit| match transmit {
            ServerTransmit::Write { data, .. } => Some(data),
            ServerTransmit::Close { .. } => None,
        })
        .flatten()
        .collect()
}

fn closes(server: &mut Server) -> bool {
    std::iter::from_fn(|| server.poll_transmit())
        .any(|transmit| transmit == ServerTransmit::Close { conn: CONN })
}

fn rejection(server: &mut Server) -> Error {
    match server.poll_event() {
        Some(ServerEvent::Rejected { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_client_recognises_another_server_key() {
    let mut client = client(ClientConfig { server_key: coord::public_key(&[9; 32]), ..config(1) });
    let mut server = server();
    server.handle_stream(CONN, &from_client(&mut client), start());
    assert_eq!(rejection(&mut server), Error::Handshake);
    assert!(closes(&mut server));
}

#[test]
fn a_man_in_the_middle_without_the_server_key_gets_nowhere() {
    // Someone with a key of his own answers in the server's place.
    let mut client = client(config(1));
    let mut impostor = Server::new(ServerConfig::new([0x66; 32], Vec::new()), rng(1), start());
    impostor.accepted(CONN, address("192.0.2.9:40000"), start());
    impostor.writable(CONN, usize::MAX, start());
    impostor.handle_stream(CONN, &from_client(&mut client), start());
    assert_eq!(rejection(&mut impostor), Error::Handshake);
    // Even a well-formed response of his does not pass.
    let forged = [SWITCH, &[0, 48], &[0x42; 48]].concat();
    assert_eq!(client.handle_stream(&forged, start()), Err(Error::Handshake));
    assert_eq!(client.poll_timeout(), None, "the stream is forgotten");
}

#[test]
fn a_wrong_service_or_version_is_recognised() {
    for (answer, error) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Error::Status(400)),
        (b"SSH-2.0-OpenSSH", Error::WrongProtocol),
        (b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: punchbag-coord/2\r\n\r\n", Error::Version),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", Error::Handshake),
    ] {
        assert_eq!(client(config(1)).handle_stream(answer, start()), Err(error));
    }
    for (opening, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 404),
        (b"GET /coord HTTP/1.1\r\nUpgrade: punchbag-coord/2\r\n\r\n", 426),
    ] {
        let mut server = server();
        server.handle_stream(CONN, opening, start());
        assert_eq!(rejection(&mut server), Error::Answered(status));
        // The answer goes out before the close, so that the other side learns of it too.
        let Some(ServerTransmit::Write { data, .. }) = server.poll_transmit() else { panic!("no answer") };
        let data = String::from_utf8_lossy(&data).into_owned();
        assert!(data.starts_with(&format!("HTTP/1.1 {status} ")), "{data}");
        assert_eq!(status == 426, data.contains(&format!("Upgrade: {PROTOCOL}\r\n")), "{data}");
        assert_eq!(server.poll_transmit(), Some(ServerTransmit::Close { conn: CONN }));
    }
    let mut server = server();
    server.handle_stream(CONN, &[0x16, 3, 1, 0, 200], start());
    assert_eq!(rejection(&mut server), Error::WrongProtocol);
}

#[test]
fn whoever_watches_the_server_is_told_that_it_runs() {
    let mut server = server();
    server.handle_stream(CONN, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", start());
    assert!(from_server(&mut server).starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(server.poll_event(), None, "nobody was rejected");
}

#[test]
fn a_head_without_an_end_is_refused_at_8_kib() {
    let mut server = server();
    for _ in 0..10 {
        server.handle_stream(CONN, &[b'G'; 1000], start());
    }
    assert_eq!(rejection(&mut server), Error::Http);
    assert!(from_server(&mut server).starts_with(b"HTTP/1.1 431 "));
}

#[test]
fn a_handshake_for_one_door_does_not_open_another() {
    let mut opening = from_client(&mut client(config(1)));
    let at = opening.windows(7).position(|part| part == b"/coord ").unwrap();
    opening.splice(at..at + 6, *b"/coord/admin");
    let mut server = server();
    server.handle_stream(CONN, &opening, start());
    assert_eq!(rejection(&mut server), Error::Handshake);
}

#[test]
fn an_altered_handshake_is_rejected() {
    // The initiation is in base64, 128 digits before the empty line: ephemeral key, static key and tag, empty payload's tag.
    for at in [0, 41, 43, 80, 107, 120] {
        let mut client = client(config(1));
        let mut opening = from_client(&mut client);
        let at = opening.len() - 4 - 128 + at;
        opening[at] = if opening[at] == b'A' { b'B' } else { b'A' };
        let mut server = server();
        server.handle_stream(CONN, &opening, start());
        assert_eq!(rejection(&mut server), Error::Handshake, "digit {at}");
    }
    for at in [0, 1, 2, 33, 49] {
        let (mut client, mut server) = (client(config(1)), server());
        server.handle_stream(CONN, &from_client(&mut client), start());
        let mut response = from_server(&mut server);
        assert!(response.starts_with(SWITCH));
        let at = response.len() - 2 - 48 + at;
        response[at] ^= 1;
        assert_eq!(client.handle_stream(&response, start()), Err(Error::Handshake), "byte {at}");
    }
}

/// A client and a server after the handshake, with the client's registration on the way.
fn opened() -> (Client, Server, Vec<u8>) {
    let (mut client, mut server) = (client(config(1)), server());
    server.handle_stream(CONN, &from_client(&mut client), start());
    client.handle_stream(&from_server(&mut server), start()).unwrap();
    let registration = from_client(&mut client);
    (client, server, registration)
}

#[test]
fn an_altered_record_closes_the_stream() {
    let (_, mut server, mut registration) = opened();
    let last = registration.len() - 1;
    registration[last] ^= 1;
    server.handle_stream(CONN, &registration, start());
    assert_eq!(rejection(&mut server), Error::Record);
    assert!(closes(&mut server));

    let (mut client, mut server, registration) = opened();
    server.handle_stream(CONN, &registration, start());
    let mut map = from_server(&mut server);
    map[20] ^= 1;
    assert_eq!(client.handle_stream(&map, start()), Err(Error::Record));
    assert_eq!(client.poll_event(), None, "nothing of it was believed");
}

#[test]
fn a_replayed_record_closes_the_stream() {
    let (_, mut server, registration) = opened();
    server.handle_stream(CONN, &registration, start());
    assert!(matches!(server.poll_event(), Some(ServerEvent::Joined { .. })));
    server.handle_stream(CONN, &registration, start());
    assert_eq!(
        server.poll_event(),
        Some(ServerEvent::Left { conn: CONN, id: 1, why: LeaveReason::Failed(Error::Record) })
    );
}

#[test]
fn a_message_longer_than_the_server_accepts_closes_the_stream() {
    for (length, too_long) in [(60_000, false), (70_000, true)] {
        let mut network = Network::new();
        let machine = network.add(ClientConfig { name: "x".repeat(length), ..config(1) });
        let conn = network.connect(machine);
        network.settle();
        let [ServerEvent::Rejected { error, .. }] = &network.server_events[..] else {
            panic!("{:?}", network.server_events)
        };
        assert_eq!(matches!(error, Error::TooLong(announced) if *announced > 70_000), too_long, "{error:?}");
        assert!(network.closed.contains(&conn));
    }
}

#[test]
fn a_replayed_handshake_registers_nobody() {
    let (_, mut first, registration) = opened();
    first.handle_stream(CONN, &registration, start());
    let recorded = from_client(&mut client(config(1)));
    let mut later = Server::new(ServerConfig::new(SERVER_PRIVATE, Vec::new()), rng(77), start());
    later.accepted(CONN, address("192.0.2.66:1"), start());
    later.handle_stream(CONN, &recorded, start());
    later.handle_stream(CONN, &registration, start());
    assert_eq!(rejection(&mut later), Error::Record);
    assert_eq!(later.nodes().count(), 0);
}

#[test]
fn single_bytes_are_as_good_as_large_pieces() {
    let (mut client, mut server) = (client(config(1)), server());
    for _ in 0..4 {
        for byte in from_client(&mut client) {
            server.handle_stream(CONN, &[byte], start());
        }
        server.writable(CONN, 7, start());
        while let Some(ServerTransmit::Write { data, .. }) = server.poll_transmit() {
            assert!(data.len() <= 7);
            for byte in data {
                client.handle_stream(&[byte], start()).unwrap();
            }
            server.writable(CONN, 7, start());
        }
    }
    assert!(client.is_registered());
}

#[test]
fn a_slow_handshake_is_given_up_on_both_sides() {
    let mut server = server();
    let (began, reason) = (start(), "coord stream check");
    server.handle_stream(CONN, b"GET /coord HTTP/1.1\r\n", began);
    let (at, why) = server.poll_timeout().unwrap();
    assert_eq!(why, reason);
    server.handle_timeout(at);
    assert_eq!(rejection(&mut server), Error::TimedOut("registration"));
    assert!(closes(&mut server));
    assert_eq!(server.poll_timeout(), None);

    let now = start();
    let mut client = Client::new(config(1), rng(2), now);
    client.connected(now);
    assert_eq!(client.poll_timeout(), Some((now + HANDSHAKE_WITHIN, "coord handshake")));
    client.handle_timeout(now + HANDSHAKE_WITHIN);
    assert_eq!(client.poll_event(), Some(Event::Failed(Error::TimedOut("coord handshake"))));
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_server_that_never_sends_a_map_is_given_up() {
    let now = start();
    let (mut client, _server, _) = opened();
    for (after, ended) in [(KEEP_ALIVE, false), (MAP_WITHIN + Duration::from_secs(1), true)] {
        client.handle_timeout(now + after);
        assert_eq!(client.poll_event(), ended.then_some(Event::Failed(Error::TimedOut("first map"))));
    }
}

#[test]
fn keep_alives_keep_an_idle_network_up() {
    let mut network = Network::new();
    (1..=3).for_each(|number| {
        network.join(number);
    });
    let generation = network.server.generation();
    network.advance(Duration::from_secs(3600));
    assert!(network.machines.iter().all(|machine| machine.client.is_registered()));
    assert_eq!(network.server.generation(), generation, "nothing changed");
}

#[test]
fn silence_is_noticed_on_both_sides() {
    let mut network = Network::new();
    (1..=2).for_each(|number| {
        network.join(number);
    });
    let began = network.now;
    // The network swallows everything of machine 1 from here on, without closing a stream.
    let conn = network.machines[1].conn.replace(ConnId(999)).unwrap();
    network.advance(DEAD_AFTER + KEEP_ALIVE);
    let why = LeaveReason::Failed(Error::TimedOut("nothing heard from the client"));
    assert!(network.server_events.contains(&ServerEvent::Left { conn, id: 2, why }));
    assert!(!network.machines[0].peers[&2].online);
    let failed = Event::Failed(Error::TimedOut("nothing heard from the server"));
    assert!(network.machines[1].events.contains(&failed));
    assert!(network.now - began >= DEAD_AFTER);
    assert!(network.machines[0].client.is_registered());
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let limits = Limits { backlog: 2_000, ..Limits::default() };
    let mut network = Network::with(limits, 1);
    (1..=2).for_each(|number| {
        network.join(number);
    });
    let slow = network.machines[1].conn.unwrap();
    network.server.writable(slow, 0, network.now);
    for port in 0..200 {
        let endpoints = vec![address(&format!("192.0.2.1:{port}"))];
        network.machines[0].client.update(Update { endpoints, ..Update::default() });
        network.pump();
        network.advance(Duration::from_secs(1));
    }
    let left = network.server_events.iter().find_map(|event| match event {
        ServerEvent::Left { conn, why: LeaveReason::Failed(Error::Backlog(bytes)), .. } if *conn == slow => {
            Some(*bytes)
        }
        _ => None,
    });
    assert!(left.is_some_and(|bytes| (2_000..2_300).contains(&bytes)), "{left:?}");
    assert!(network.closed.contains(&slow));
    assert!(network.machines[0].client.is_registered());
}

#[test]
fn writes_stay_within_the_credit() {
    let (_, mut server, registration) = opened();
    server.writable(CONN, 100, start());
    server.handle_stream(CONN, &registration, start());
    let mut total = 0;
    for credit in [100, 50, 1, 3000, 0, 3000] {
        server.writable(CONN, credit, start());
        let written = from_server(&mut server).len();
        assert!(written <= credit);
        total += written;
    }
    assert!(total > 300, "{total}");
}

#[test]
fn streams_that_have_not_registered_are_limited() {
    let limits = Limits { pending: 2, ..Limits::default() };
    let mut network = Network::with(limits, 1);
    let conns = [network.accept(), network.accept(), network.accept()];
    network.pump();
    assert!(network.closed.contains(&conns[2]) && !network.closed.contains(&conns[1]));
    network.server.closed(conns[0], network.now);
    let machine = network.join(1);
    assert!(network.machines[machine].client.is_registered());
    // A registered stream no longer counts.
    let another = network.accept();
    network.pump();
    assert!(!network.closed.contains(&another));
}

#[test]
fn one_source_does_not_keep_the_others_out() {
    let limits = Limits { pending_per_source: 2, ..Limits::default() };
    let mut network = Network::with(limits, 1);
    // One IPv6 network is one source.
    let flood = |network: &mut Network, host: u16| network.accept_from(&format!("[2001:db8::{host}]:443"));
    let conns = [1, 2, 3].map(|host| flood(&mut network, host));
    network.pump();
    assert!(network.closed.contains(&conns[2]) && !network.closed.contains(&conns[1]));
    let machine = network.join(1);
    assert!(network.machines[machine].client.is_registered(), "it comes from elsewhere");
    // What is given up makes room.
    network.advance(HANDSHAKE_WITHIN);
    let another = flood(&mut network, 4);
    network.pump();
    assert!(!network.closed.contains(&another));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_join(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8), upgraded in any::<bool>()) {
        let mut server = server();
        if upgraded {
            server.handle_stream(CONN, &from_client(&mut client(config(1))), start());
        }
        for piece in pieces {
            server.handle_stream(CONN, &piece, start());
        }
        prop_assert_eq!(server.nodes().count(), 0);
    }

    #[test]
    fn arbitrary_bytes_never_make_an_event(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8), upgraded in any::<bool>()) {
        let mut client = client(config(1));
        if upgraded {
            client.handle_stream(SWITCH, start()).unwrap();
        }
        for piece in pieces {
            if client.handle_stream(&piece, start()).is_err() {
                break;
            }
        }
        prop_assert_eq!(client.poll_event(), None);
        prop_assert!(!client.is_registered());
    }

    #[test]
    fn one_altered_byte_anywhere_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8) {
        let (_, mut server, mut registration) = opened();
        let at = at.index(registration.len());
        registration[at] ^= 1u8 << bit;
        server.handle_stream(CONN, &registration, start());
        // A longer length makes the server wait for bytes that do not come; anything else closes the stream.
        prop_assert_eq!(server.nodes().count(), 0);
    }
}
