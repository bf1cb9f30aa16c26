use bytes::BytesMut;
use proptest::prelude::*;
use std::collections::BTreeSet;

use super::*;
use crate::{
    QUEUE_LEN,
    client::{Client, ClientConfig, ClientEvent},
    frame::{FrameType, MAX_PACKET},
    test::{Bench, disco, private, rng, start},
};

fn raw() -> ServerConfig {
    ServerConfig { upgrade: false, ..ServerConfig::default() }
}

fn raw_client(n: u64) -> ClientConfig {
    ClientConfig { upgrade: false, ..ClientConfig::new(private(n), "relay") }
}

/// Bytes a server writes to one connection, given endless credit.
fn written(server: &mut Server, conn: ConnId, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    server.writable(conn, 1 << 20, now);
    while let Some(transmit) = server.poll_transmit() {
        if let ServerTransmit::Write { conn: to, data } = transmit {
            assert_eq!(to, conn);
            out.extend_from_slice(&data);
        }
    }
    out
}

fn encoded(frame: &Frame<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode(&mut out).unwrap();
    out
}

/// Feeds a frame as if client `conn` had written it.
fn inject(bench: &mut Bench, conn: u64, frame: &Frame<'_>) {
    let now = bench.now;
    bench.server.handle_stream(ConnId(conn), &encoded(frame), now);
    bench.run();
}

fn drops(bench: &Bench) -> Vec<DropReason> {
    let why = |event: &ServerEvent| match event {
        ServerEvent::Dropped { why, .. } => Some(*why),
        _ => None,
    };
    bench.events.iter().filter_map(why).collect()
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

#[test]
fn a_packet_reaches_its_receiver_unchanged_and_names_its_sender() {
    for upgrade in [true, false] {
        let mut bench = Bench::new(ServerConfig { upgrade, ..ServerConfig::default() });
        let config = |n| ClientConfig { upgrade, ..ClientConfig::new(private(n), "relay") };
        let (a, b) = (bench.join_with(1, config(1)), bench.join_with(2, config(2)));
        for packet in [&b""[..], b"hello", &vec![7; MAX_PACKET]] {
            bench.send(1, b, packet);
            assert_eq!(bench.packets(2), [(a, packet.to_vec())]);
        }
        assert_eq!(bench.packets(1), []);
    }
}

#[test]
fn a_client_may_send_to_itself() {
    let mut bench = Bench::new(raw());
    let a = bench.join_with(1, raw_client(1));
    bench.send(1, a, b"me");
    assert_eq!(bench.packets(1), [(a, b"me".to_vec())]);
}

#[test]
fn fast_start_gets_frames_and_no_http_response() {
    let mut bench = Bench::new(ServerConfig::default());
    let config = ClientConfig {
        fast_start: true,
        server_key: Some(bench.server.public_key()),
        ..ClientConfig::new(private(1), "relay")
    };
    bench.join_with(1, config);
    assert!(bench.client(1).is_ready());
    let wire = String::from_utf8_lossy(&bench.wire).into_owned();
    assert!(wire.contains("Derp-Fast-Start: 1") && !wire.contains("101 Switching"));
}

#[test]
fn joining_and_leaving_are_events() {
    let mut bench = Bench::new(ServerConfig::default());
    let key = bench.join(1, 1);
    let joined = bench.events.iter().any(
        |e| matches!(e, ServerEvent::ClientJoined { key: k, info, .. } if *k == key && info.version == 2),
    );
    assert!(joined && bench.server.is_connected(&key));
    let now = bench.now;
    bench.server.closed(ConnId(1), now);
    bench.clients.clear();
    bench.run();
    assert_eq!(left(&bench, 1), Some(LeaveReason::Closed));
    assert!(!bench.server.is_connected(&key));
    assert_eq!(bench.server.connections(), 0);
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn peer_not_here_answers_disco_only_three_at_once_then_one_a_second() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    bench.drain(1);
    let nobody = private(99).public();
    bench.send(1, nobody, b"data");
    assert_eq!(bench.drain(1), []);
    for _ in 0..5 {
        bench.send(1, nobody, &disco(0));
    }
    let (key, reason) = (nobody, GoneReason::NotHere);
    assert_eq!(bench.drain(1), vec![ClientEvent::PeerGone { key, reason }; 3]);
    bench.wait(Duration::from_secs(1));
    bench.send(1, nobody, &disco(0));
    bench.send(1, nobody, &disco(0));
    assert_eq!(bench.drain(1), [ClientEvent::PeerGone { key, reason }]);
    assert_eq!(drops(&bench), [DropReason::UnknownDestination; 8]);
}

#[test]
fn those_who_exchanged_packets_hear_that_a_peer_left_and_nobody_else() {
    let mut bench = Bench::new(raw());
    let key = bench.join_with(1, raw_client(1));
    let b = bench.join_with(2, raw_client(2));
    bench.join_with(3, raw_client(3));
    bench.join_with(4, raw_client(4));
    bench.send(1, b, b"out");
    bench.send(3, key, b"in");
    let now = bench.now;
    bench.server.closed(ConnId(1), now);
    bench.clients.remove(&ConnId(1));
    bench.run();
    let reason = GoneReason::Disconnected;
    let gone = ClientEvent::PeerGone { key, reason };
    assert!(bench.drain(2).contains(&gone));
    assert!(bench.drain(3).contains(&gone));
    assert!(!bench.drain(4).contains(&gone));
}

#[test]
fn of_two_connections_with_one_key_the_last_to_speak_gets_the_packets() {
    let mut bench = Bench::new(raw());
    let key = bench.join_with(1, raw_client(1));
    bench.join_with(2, raw_client(1));
    let other = bench.join_with(3, raw_client(3));
    bench.send(3, key, b"one");
    assert_eq!((bench.packets(1).len(), bench.packets(2).len()), (0, 1));
    bench.send(1, other, b"I moved back");
    bench.send(3, key, b"two");
    assert_eq!((bench.packets(1).len(), bench.packets(2).len()), (1, 0));
    let now = bench.now;
    bench.server.closed(ConnId(1), now);
    bench.clients.remove(&ConnId(1));
    bench.drain(3);
    bench.send(3, key, b"three");
    assert_eq!(bench.packets(2).len(), 1);
    assert_eq!(bench.drain(3), [], "the peer is still there");
}

#[test]
fn a_ping_is_answered_with_its_own_bytes() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    bench.drain(1);
    let now = bench.now;
    bench.client(1).ping(now);
    bench.run();
    assert_eq!(bench.drain(1), [ClientEvent::Pong { rtt: Duration::ZERO }]);
}

#[test]
fn a_long_ping_is_answered_with_its_first_eight_bytes() {
    let now = start();
    let mut server = Server::new(raw(), private(0), rng(0), now);
    server.accepted(ConnId(1), ([192, 0, 2, 1], 1).into(), now);
    let mut client = Client::new(raw_client(1), rng(1), now);
    client.connected(now);
    client.handle_stream(&written(&mut server, ConnId(1), now), now).unwrap();
    server.handle_stream(ConnId(1), &client.poll_transmit(9999).unwrap(), now);
    written(&mut server, ConnId(1), now);
    let mut ping = vec![FrameType::Ping as u8, 0, 0, 0, 20];
    ping.extend(1..=20);
    server.handle_stream(ConnId(1), &ping, now);
    let pong = written(&mut server, ConnId(1), now);
    assert_eq!(pong, encoded(&Frame::Pong([1, 2, 3, 4, 5, 6, 7, 8])));
}

#[test]
fn a_preference_is_an_event() {
    let mut bench = Bench::new(raw());
    let key = bench.join_with(1, ClientConfig { home: true, ..raw_client(1) });
    bench.client(1).set_preferred(false);
    bench.run();
    let told: Vec<_> =
        bench.events.iter().filter(|e| matches!(e, ServerEvent::Preferred { .. })).cloned().collect();
    assert_eq!(told, [true, false].map(|home| ServerEvent::Preferred { key, home }));
}

#[test]
fn unknown_frames_are_ignored() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let b = bench.join_with(2, raw_client(2));
    let now = bench.now;
    bench.server.handle_stream(ConnId(1), &[0x66, 0, 0, 0, 2, 9, 9], now);
    inject(&mut bench, 1, &Frame::KeepAlive);
    bench.send(1, b, b"still there");
    assert_eq!(bench.packets(2).len(), 1);
}

#[test]
fn mesh_frames_from_a_plain_client_end_its_connection() {
    let (key, src) = (PublicKey([1; 32]), PublicKey([2; 32]));
    for frame in
        [Frame::WatchConns, Frame::ClosePeer { key }, Frame::ForwardPacket { src, dst: key, packet: b"" }]
    {
        let mut bench = Bench::new(raw());
        bench.join_with(1, raw_client(1));
        inject(&mut bench, 1, &frame);
        assert_eq!(left(&bench, 1), Some(LeaveReason::NotMesh));
        assert_eq!(bench.closed, [ConnId(1)]);
    }
}

#[test]
fn a_frame_too_long_ends_the_connection_at_its_header() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let now = bench.now;
    bench.server.handle_stream(ConnId(1), &[4, 0, 2, 0, 0], now);
    bench.run();
    assert!(matches!(left(&bench, 1), Some(LeaveReason::Frame(_))));
    assert_eq!(bench.closed, [ConnId(1)]);
}

#[test]
fn before_the_handshake_only_a_client_info_will_do() {
    let mut bench = Bench::new(raw());
    let now = bench.now;
    bench.server.accepted(ConnId(1), ([192, 0, 2, 1], 1).into(), now);
    let dst = PublicKey([1; 32]);
    inject(&mut bench, 1, &Frame::SendPacket { dst, packet: b"x" });
    assert_eq!(left(&bench, 1), Some(LeaveReason::NoClientInfo));
}

/// What becomes of a client that claims `key` and seals with the secret that `shared` computes for the server's key.
fn claim(key: PublicKey, shared: impl Fn(PublicKey) -> crypto_box::SalsaBox) -> Option<LeaveReason> {
    let mut bench = Bench::new(raw());
    let now = bench.now;
    bench.server.accepted(ConnId(1), ([192, 0, 2, 1], 1).into(), now);
    let shared = shared(bench.server.public_key());
    let (nonce, sealed) = keys::seal(&shared, b"{\"version\":2}", &mut rng(5)).unwrap();
    let sealed = &sealed;
    inject(&mut bench, 1, &Frame::ClientInfo { key, nonce, sealed });
    left(&bench, 1)
}

#[test]
fn a_key_that_is_not_the_clients_own_is_refused() {
    let own = claim(private(1).public(), |server| private(1).shared(&server));
    assert_eq!(own, None);
    let other = claim(private(2).public(), |server| private(1).shared(&server));
    assert_eq!(other, Some(LeaveReason::BadClientInfo));
}

#[test]
fn the_zero_key_whose_secret_everyone_knows_is_refused() {
    let zero = PublicKey([0; 32]);
    let got = claim(zero, |_| private(1).shared(&zero));
    assert_eq!(got, Some(LeaveReason::BadClientInfo));
}

#[test]
fn a_client_info_above_256_kib_is_refused_at_its_header() {
    let refused = |len: usize| {
        let mut bench = Bench::new(raw());
        let now = bench.now;
        bench.server.accepted(ConnId(1), ([192, 0, 2, 1], 1).into(), now);
        let header = [&[FrameType::ClientInfo as u8][..], &(len as u32).to_be_bytes()].concat();
        bench.server.handle_stream(ConnId(1), &header, now);
        bench.run();
        matches!(left(&bench, 1), Some(LeaveReason::Frame(_)))
    };
    assert_eq!([256 << 10, (256 << 10) + 1].map(refused), [false, true]);
}

#[test]
fn a_handshake_that_takes_ten_seconds_is_cut_off() {
    for upgrade in [true, false] {
        let mut bench = Bench::new(ServerConfig { upgrade, ..ServerConfig::default() });
        let now = bench.now;
        bench.server.accepted(ConnId(1), ([192, 0, 2, 1], 1).into(), now);
        let begun = if upgrade { &b"GET"[..] } else { &[] };
        bench.server.handle_stream(ConnId(1), begun, now);
        written(&mut bench.server, ConnId(1), now);
        let deadline = (now + HANDSHAKE_TIMEOUT, "handshake deadline");
        assert_eq!(bench.server.poll_timeout(), Some(deadline));
        bench.wait(HANDSHAKE_TIMEOUT - Duration::from_nanos(1));
        assert_eq!(bench.closed, []);
        bench.wait(Duration::from_nanos(1));
        assert_eq!(left(&bench, 1), Some(LeaveReason::HandshakeTimeout));
        assert_eq!(bench.closed, [ConnId(1)]);
    }
}

#[test]
fn keep_alives_come_each_60_to_65_seconds_at_a_pace_of_their_own() {
    let now = start();
    let mut server = Server::new(raw(), private(0), rng(0), now);
    let mut firsts = BTreeSet::new();
    for n in 0..20 {
        let conn = ConnId(n);
        server.accepted(conn, ([192, 0, 2, 1], 1).into(), now);
        let mut client = Client::new(raw_client(n), rng(n), now);
        client.connected(now);
        client.handle_stream(&written(&mut server, conn, now), now).unwrap();
        server.handle_stream(conn, &client.poll_transmit(9999).unwrap(), now);
        written(&mut server, conn, now);
        server.writable(conn, 1 << 20, now);
    }
    let keep_alive = encoded(&Frame::KeepAlive).freeze();
    while let Some((at, why)) = server.poll_timeout() {
        if firsts.len() == 20 {
            break;
        }
        assert_eq!(why, "keep-alive");
        server.handle_timeout(at);
        let Some(ServerTransmit::Write { data, .. }) = server.poll_transmit() else {
            panic!("nothing was written");
        };
        assert_eq!(data, keep_alive);
        let after = at - now;
        assert!((KEEP_ALIVE..KEEP_ALIVE + KEEP_ALIVE_JITTER).contains(&after), "{after:?}");
        firsts.insert(after);
    }
    assert_eq!(firsts.len(), 20, "all different");
}

#[test]
fn a_reader_that_takes_nothing_for_two_seconds_is_cut_off() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let b = bench.join_with(2, raw_client(2));
    bench.slow.insert(ConnId(2), 10);
    bench.send(1, b, b"more than ten bytes with its frame");
    assert_eq!(
        bench.server.poll_timeout().map(|(at, why)| (at - bench.now, why)),
        Some((WRITE_TIMEOUT, "write timeout"))
    );
    bench.wait(Duration::from_millis(1_999));
    assert_eq!(bench.closed, []);
    bench.wait(Duration::from_millis(1));
    assert_eq!(left(&bench, 2), Some(LeaveReason::WriteTimeout));
    assert_eq!(bench.closed, [ConnId(2)]);
}

#[test]
fn a_reader_that_trickles_is_cut_off_too() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let b = bench.join_with(2, raw_client(2));
    bench.slow.insert(ConnId(2), 0);
    bench.send(1, b, &[0; 1000]);
    for _ in 0..19 {
        bench.wait(Duration::from_millis(100));
        bench.slow.insert(ConnId(2), 1);
        bench.run();
    }
    assert_eq!(bench.closed, []);
    bench.wait(Duration::from_millis(100));
    assert_eq!(left(&bench, 2), Some(LeaveReason::WriteTimeout));
}

#[test]
fn a_reader_that_finishes_frames_in_time_stays() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let b = bench.join_with(2, raw_client(2));
    bench.slow.insert(ConnId(2), 0);
    for _ in 0..4 {
        bench.send(1, b, &[0; 100]);
    }
    for _ in 0..4 {
        bench.wait(Duration::from_millis(1_900));
        bench.slow.insert(ConnId(2), 137);
        bench.run();
    }
    assert_eq!(bench.packets(2).len(), 4);
    assert_eq!(bench.closed, []);
}

#[test]
fn a_slow_reader_loses_its_oldest_packets_and_delays_nobody() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let slow = bench.join_with(2, raw_client(2));
    let quick = bench.join_with(3, raw_client(3));
    bench.slow.insert(ConnId(2), 0);
    for n in 0..100 {
        bench.send(1, slow, &[n]);
        bench.send(1, quick, &[n]);
        assert_eq!(bench.packets(3).len(), 1, "at once");
    }
    assert_eq!(drops(&bench), [DropReason::QueueFull; 100 - QUEUE_LEN]);
    bench.slow.clear();
    bench.run();
    let got: Vec<u8> = bench.packets(2).iter().map(|(_, p)| p[0]).collect();
    assert_eq!(got, Vec::from_iter(100 - QUEUE_LEN as u8..100));
}

#[test]
fn disco_overtakes_the_data_that_waits() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let b = bench.join_with(2, raw_client(2));
    bench.slow.insert(ConnId(2), 0);
    bench.send(1, b, b"data");
    bench.send(1, b, &disco(1));
    bench.slow.clear();
    bench.run();
    let got: Vec<Class> = bench.packets(2).iter().map(|(_, p)| Class::of(p)).collect();
    assert_eq!(got, [Class::Disco, Class::Data]);
}

#[test]
fn credit_is_never_exceeded() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let b = bench.join_with(2, raw_client(2));
    bench.slow.insert(ConnId(2), 0);
    bench.send(1, b, &[1; 500]);
    let now = bench.now;
    let mut sizes = Vec::new();
    for credit in [1, 100, 0, 400, 1000] {
        bench.server.writable(ConnId(2), credit, now);
        while let Some(ServerTransmit::Write { data, .. }) = bench.server.poll_transmit() {
            sizes.push(data.len());
        }
    }
    assert_eq!(sizes, [1, 100, 400, 36]);
}

#[test]
fn connections_take_turns() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let keys = [2, 3].map(|n| bench.join_with(n, raw_client(n)));
    let now = bench.now;
    for conn in [2, 3] {
        bench.server.writable(ConnId(conn), 0, now);
    }
    for key in keys {
        for _ in 0..3 {
            let packet = encoded(&Frame::SendPacket { dst: key, packet: b"x" });
            bench.server.handle_stream(ConnId(1), &packet, now);
        }
    }
    for conn in [2, 3] {
        bench.server.writable(ConnId(conn), 9999, now);
    }
    let to = |t| match t {
        ServerTransmit::Write { conn, .. } => conn.0,
        ServerTransmit::Close { .. } | ServerTransmit::Hold { .. } => 0,
    };
    let order: Vec<u64> = std::iter::from_fn(|| bench.server.poll_transmit()).map(to).collect();
    assert_eq!(order, [2, 3, 2, 3, 2, 3]);
}

#[test]
fn an_http_request_is_answered_then_closed() {
    let now = start();
    let mut server = Server::new(ServerConfig::default(), private(0), rng(0), now);
    server.accepted(ConnId(1), ([192, 0, 2, 1], 1).into(), now);
    server.handle_stream(ConnId(1), b"GET /nothing HTTP/1.1\r\n\r\nGET /more", now);
    assert_eq!(server.poll_transmit(), None, "no credit yet");
    server.writable(ConnId(1), 20, now);
    let Some(ServerTransmit::Write { data, .. }) = server.poll_transmit() else {
        panic!("no response");
    };
    assert_eq!(&data[..], b"HTTP/1.1 404 Not Fou");
    assert_eq!(server.poll_transmit(), None, "the rest first");
    server.writable(ConnId(1), 2000, now);
    assert!(matches!(server.poll_transmit(), Some(ServerTransmit::Write { .. })));
    assert_eq!(server.poll_transmit(), Some(ServerTransmit::Close { conn: ConnId(1) }));
    assert_eq!((server.connections(), server.poll_timeout()), (0, None));
}

#[test]
fn a_response_nobody_takes_is_given_up() {
    let now = start();
    let mut server = Server::new(ServerConfig::default(), private(0), rng(0), now);
    server.accepted(ConnId(1), ([192, 0, 2, 1], 1).into(), now);
    server.handle_stream(ConnId(1), b"GET / HTTP/1.1\r\n\r\n", now);
    server.handle_timeout(now + WRITE_TIMEOUT);
    assert_eq!(server.poll_transmit(), Some(ServerTransmit::Close { conn: ConnId(1) }));
}

#[test]
fn a_connection_that_closed_by_itself_is_not_mentioned_again() {
    let now = start();
    let mut server = Server::new(raw(), private(0), rng(0), now);
    server.accepted(ConnId(1), ([192, 0, 2, 1], 1).into(), now);
    server.writable(ConnId(1), 1 << 20, now);
    server.handle_stream(ConnId(1), &encoded(&Frame::WatchConns), now);
    server.closed(ConnId(1), now);
    assert_eq!(server.poll_transmit(), None);
    assert_eq!((server.connections(), server.poll_timeout()), (0, None));
}

#[test]
fn a_client_that_never_reads_costs_a_bounded_amount() {
    let mut bench = Bench::new(raw());
    bench.join_with(1, raw_client(1));
    let b = bench.join_with(2, raw_client(2));
    let now = bench.now;
    bench.server.writable(ConnId(2), 0, now);
    let nobody = private(77).public();
    for n in 0..3000u64 {
        for (conn, frame) in [
            (1, Frame::SendPacket { dst: b, packet: &[0; 1000] }),
            (1, Frame::SendPacket { dst: b, packet: &disco(0) }),
            (2, Frame::Ping(n.to_be_bytes())),
            (2, Frame::SendPacket { dst: nobody, packet: &disco(0) }),
        ] {
            bench.server.handle_stream(ConnId(conn), &encoded(&frame), now);
        }
    }
    let waiting = written(&mut bench.server, ConnId(2), now).len();
    let packets = QUEUE_LEN * (37 + 1000 + 37 + 66);
    assert_eq!(waiting, packets + 13 + 3 * 38, "two full queues, one pong, three times not here");
}

#[test]
fn a_shutdown_announces_the_restart_then_closes_all() {
    let mut bench = Bench::new(raw());
    let a = bench.join_with(1, raw_client(1));
    bench.join_with(2, raw_client(2));
    bench.send(2, a, b"x");
    let mut clients = std::mem::take(&mut bench.clients);
    let (now, ms) = (bench.now, Duration::from_millis);
    let grace = Duration::ZERO;
    bench.server.shutdown(Restart { reconnect_in: ms(100), spread: grace, try_for: ms(30_000), grace }, now);
    let (reconnect_in, try_for) = (ms(100), ms(30_000));
    let mut closed = Vec::new();
    while let Some(transmit) = bench.server.poll_transmit() {
        match transmit {
            ServerTransmit::Write { conn, data } => {
                let client = clients.get_mut(&conn).unwrap();
                client.handle_stream(&data, now).unwrap();
                let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
                assert_eq!(events.last(), Some(&ClientEvent::Restarting { reconnect_in, try_for }));
                assert!(!events.iter().any(|e| matches!(e, ClientEvent::PeerGone { .. })));
            }
            ServerTransmit::Close { conn } => closed.push(conn),
            hold @ ServerTransmit::Hold { .. } => panic!("{hold:?}"),
        }
    }
    assert_eq!(closed, [ConnId(1), ConnId(2)]);
    bench.server.accepted(ConnId(3), ([192, 0, 2, 1], 1).into(), now);
    assert_eq!(bench.server.poll_transmit(), Some(ServerTransmit::Close { conn: ConnId(3) }));
}

#[test]
fn a_thousand_clients_talk_in_a_ring() {
    let mut bench = Bench::new(raw());
    let n = 1000;
    let keys: Vec<PublicKey> = (0..n).map(|i| private(i).public()).collect();
    let now = bench.now;
    for i in 0..n {
        let mut client = Client::new(raw_client(i), rng(i), now);
        client.connected(now);
        let next = keys[(i as usize + 1) % keys.len()];
        client.send(next, Bytes::from(i.to_be_bytes().to_vec()), Class::Data, now);
        bench.server.accepted(ConnId(i), ([192, 0, 2, 1], 1).into(), now);
        bench.clients.insert(ConnId(i), client);
    }
    bench.run();
    // The last to join was not there yet when its neighbour sent: what counts is that all others got theirs.
    let mut reached = 0;
    for i in 0..n {
        let from = (i + n - 1) % n;
        let got = bench.packets(i);
        reached += got.len();
        assert!(got.iter().all(|p| *p == (keys[from as usize], from.to_be_bytes().to_vec())));
    }
    assert_eq!(reached + drops(&bench).len(), n as usize);
    for i in 0..n {
        let next = keys[(i as usize + 1) % keys.len()];
        bench.client(i).send(next, Bytes::from_static(b"again"), Class::Data, now);
    }
    bench.run();
    assert!((0..n).all(|i| bench.packets(i).len() == 1));
    bench.wait(Duration::from_secs(200));
    assert_eq!(bench.server.connections(), n as usize, "keep-alives and pings kept all of them");
}

fn story(seed: u64, chunk: usize) -> (Vec<u8>, Vec<ServerEvent>) {
    let mut bench = Bench::seeded(ServerConfig::default(), seed);
    bench.chunk = chunk;
    let a = bench.join(1, 1);
    let b = bench.join(2, 2);
    bench.send(1, b, b"over");
    bench.send(2, a, &disco(3));
    bench.wait(Duration::from_secs(90));
    bench.send(1, private(9).public(), &disco(4));
    (bench.wire, bench.events)
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_does_not() {
    assert!(story(1, usize::MAX) == story(1, usize::MAX));
    assert!(story(1, usize::MAX).0 != story(2, usize::MAX).0);
}

#[test]
fn bytes_in_pieces_have_the_effect_of_bytes_at_once() {
    let whole = story(1, usize::MAX);
    for chunk in [1, 2, 3, 7, 100] {
        assert!(story(1, chunk) == whole, "pieces of {chunk}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever one stream carries, in whatever phase: no panic, bounded output, and the others are served.
    #[test]
    fn any_bytes_from_one_client_leave_the_others_alone(
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        kinds in proptest::collection::vec((0u8..0x20, 0u32..90), 0..20),
        phase in 0..3,
        chunk in 1usize..60,
    ) {
        let mut bench = Bench::new(ServerConfig::default());
        bench.join(1, 1);
        let b = bench.join(2, 2);
        let conn = ConnId(3);
        let now = bench.now;
        if phase == 2 {
            bench.join(3, 3);
        } else {
            bench.server.accepted(conn, ([192, 0, 2, 3], 3).into(), now);
            if phase == 1 {
                bench.server.handle_stream(conn, b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n", now);
            }
        }
        let mut bytes = Vec::new();
        for (kind, len) in kinds {
            bytes.push(kind);
            bytes.extend(len.to_be_bytes());
            bytes.extend(noise.iter().cycle().take(if noise.is_empty() { 0 } else { len as usize }));
        }
        bytes.extend(noise);
        for piece in bytes.chunks(chunk) {
            bench.server.handle_stream(conn, piece, now);
        }
        bench.run();
        bench.wait(Duration::from_secs(70));
        bench.server.closed(conn, bench.now);
        bench.run();
        bench.packets(2);
        bench.send(1, b, b"well?");
        prop_assert_eq!(bench.packets(2).len(), 1);
        prop_assert_eq!(bench.server.connections(), 2);
    }
}
