use proptest::prelude::*;

use super::*;
use crate::{
    server::ServerConfig,
    test::{Bench, private, rng, start},
};

fn raw(n: u64) -> ClientConfig {
    ClientConfig { upgrade: false, ..ClientConfig::new(private(n), "relay") }
}

fn raw_bench() -> Bench {
    Bench::new(ServerConfig { upgrade: false, ..ServerConfig::default() })
}

fn encoded(frame: &Frame<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode(&mut out).unwrap();
    out
}

/// A client past its handshake, and the wire bytes of a server that answers nothing from now on.
fn ready(config: ClientConfig) -> (Client, Instant) {
    let mut bench = raw_bench();
    bench.join_with(1, config);
    let mut client = bench.clients.pop_first().unwrap().1;
    assert!(client.is_ready());
    while client.poll_event().is_some() {}
    (client, bench.now)
}

fn server_key_frame(n: u64) -> BytesMut {
    encoded(&Frame::ServerKey { key: private(n).public() })
}

/// The client's first flight is read and answered with this JSON.
fn server_info_frame(server: u64, client: &Client, json: &[u8]) -> BytesMut {
    let shared = private(server).shared(&client.public_key());
    let (nonce, sealed) = keys::seal(&shared, json, &mut rng(7)).unwrap();
    encoded(&Frame::ServerInfo { nonce, sealed: &sealed })
}

fn waiting_for_info() -> (Client, Instant) {
    let now = start();
    let mut client = Client::new(raw(1), rng(1), now);
    client.connected(now);
    client.handle_stream(&server_key_frame(5), now).unwrap();
    (client, now)
}

#[test]
fn ready_names_the_server_and_its_rate_limit() {
    let (mut client, now) = waiting_for_info();
    let json = br#"{"version":2,"TokenBucketBytesPerSecond":1000,"TokenBucketBytesBurst":70000}"#;
    let info = server_info_frame(5, &client, json);
    client.handle_stream(&info, now).unwrap();
    let rate_limit = Some(RateLimit { bytes_per_second: 1000, burst: 70_000 });
    let server_key = private(5).public();
    assert_eq!(client.poll_event(), Some(ClientEvent::Ready { server_key, rate_limit }));
}

#[test]
fn a_server_of_another_version_is_refused() {
    let (mut client, now) = waiting_for_info();
    let info = server_info_frame(5, &client, br#"{"version":3}"#);
    assert_eq!(client.handle_stream(&info, now), Err(Error::Version(3)));
}

#[test]
fn a_server_that_does_not_own_its_key_is_refused() {
    let (mut client, now) = waiting_for_info();
    let info = server_info_frame(6, &client, br#"{"version":2}"#);
    assert_eq!(client.handle_stream(&info, now), Err(Error::BadServerInfo));
    assert!(!client.is_ready());
}

#[test]
fn a_server_with_the_zero_key_is_refused() {
    let now = start();
    let mut client = Client::new(raw(1), rng(1), now);
    client.connected(now);
    let zero = PublicKey([0; 32]);
    let got = client.handle_stream(&encoded(&Frame::ServerKey { key: zero }), now);
    assert_eq!(got, Err(Error::WrongServerKey(zero)));
}

#[test]
fn a_server_with_another_key_than_the_configured_is_refused() {
    let now = start();
    for fast_start in [true, false] {
        let config = ClientConfig { server_key: Some(private(5).public()), fast_start, ..raw(1) };
        let mut client = Client::new(config, rng(1), now);
        client.connected(now);
        let got = client.handle_stream(&server_key_frame(6), now);
        assert_eq!(got, Err(Error::WrongServerKey(private(6).public())));
        assert_eq!(client.poll_transmit(9999), None, "nothing more is written");
    }
}

#[test]
fn fast_start_speaks_before_the_server_does() {
    let now = start();
    let config = ClientConfig { server_key: Some(private(5).public()), fast_start: true, ..raw(1) };
    let mut client = Client::new(config, rng(1), now);
    client.connected(now);
    assert_eq!(client.poll_transmit(9999).unwrap()[0], 2, "a ClientInfo");
    let info = server_info_frame(5, &client, br#"{"version":2}"#);
    client.handle_stream(&server_key_frame(5), now).unwrap();
    client.handle_stream(&info, now).unwrap();
    assert!(client.is_ready());
}

#[test]
fn a_refused_upgrade_is_an_error() {
    let now = start();
    let mut client = Client::new(ClientConfig::new(private(1), "relay"), rng(1), now);
    client.connected(now);
    let got = client.handle_stream(b"HTTP/1.1 403 Forbidden\r\n\r\n", now);
    assert_eq!(got, Err(Error::Http(HttpError::Status(403))));
}

#[test]
fn packets_given_before_the_handshake_leave_after_it() {
    let mut bench = raw_bench();
    let receiver = bench.join_with(2, raw(2));
    let mut client = Client::new(raw(1), rng(1), bench.now);
    client.send(receiver, Bytes::from_static(b"early"), Class::Data, bench.now);
    assert_eq!(client.poll_transmit(9999), None);
    client.connected(bench.now);
    assert_eq!(client.poll_transmit(9999), None, "not before the server's key");
    let now = bench.now;
    bench.server.accepted(crate::ConnId(1), ([192, 0, 2, 1], 1).into(), now);
    bench.clients.insert(crate::ConnId(1), client);
    bench.run();
    assert_eq!(bench.packets(2)[0].1, b"early");
}

#[test]
fn a_packet_above_64_kib_is_not_taken() {
    let (mut client, now) = ready(raw(1));
    let long = Bytes::from(vec![0; MAX_PACKET + 1]);
    let got = client.send(PublicKey([1; 32]), long, Class::Data, now);
    assert_eq!(got, Queued::TooLong);
    assert_eq!(client.poll_transmit(1 << 20), None);
}

#[test]
fn the_oldest_packet_makes_room_for_the_thirty_third() {
    let (mut client, now) = ready(raw(1));
    let mut send = |n: u8| client.send(PublicKey([1; 32]), Bytes::from(vec![n]), Class::Data, now);
    assert!((0..32).all(|n| send(n) == Queued::Accepted));
    assert_eq!(send(32), Queued::DroppedOldest);
    assert_eq!(client.poll_transmit(9999).unwrap().last(), Some(&1));
}

#[test]
fn never_more_than_the_space_is_given() {
    let (mut client, now) = ready(raw(1));
    client.send(PublicKey([1; 32]), Bytes::from(vec![9; 63]), Class::Data, now);
    assert_eq!(client.poll_transmit(0), None);
    let sizes: Vec<usize> = std::iter::from_fn(|| client.poll_transmit(30)).map(|b| b.len()).collect();
    assert_eq!(sizes, [30, 30, 30, 10]);
}

#[test]
fn a_ping_of_the_server_is_answered() {
    let (mut client, now) = ready(raw(1));
    client.handle_stream(&encoded(&Frame::Ping([4; 8])), now).unwrap();
    assert_eq!(client.poll_transmit(99).unwrap(), encoded(&Frame::Pong([4; 8])));
}

#[test]
fn what_the_server_announces_is_an_event() {
    let (mut client, now) = ready(raw(1));
    let key = PublicKey([3; 32]);
    let ms = Duration::from_millis;
    let (reconnect_in, try_for) = (ms(10), ms(20));
    let reason = GoneReason::NotHere;
    for frame in [
        Frame::Health(b"duplicate"),
        Frame::PeerGone { key, reason },
        Frame::KeepAlive,
        Frame::Restarting { reconnect_in, try_for },
    ] {
        client.handle_stream(&encoded(&frame), now).unwrap();
    }
    client.handle_stream(&[0x55, 0, 0, 0, 1, 0], now).unwrap();
    let events: Vec<ClientEvent> = std::iter::from_fn(|| client.poll_event()).collect();
    let text = "duplicate".into();
    assert_eq!(
        events,
        [
            ClientEvent::Health { text },
            ClientEvent::PeerGone { key, reason },
            ClientEvent::Restarting { reconnect_in, try_for },
        ]
    );
}

#[test]
fn a_handshake_is_given_up_after_ten_seconds() {
    let (mut client, now) = waiting_for_info();
    client.handle_timeout(now + HANDSHAKE_TIMEOUT - Duration::from_nanos(1));
    assert_eq!(client.poll_event(), None);
    client.handle_timeout(now + HANDSHAKE_TIMEOUT);
    let why = DeadReason::HandshakeTimeout;
    assert_eq!(client.poll_event(), Some(ClientEvent::Dead { why }));
    assert_eq!((client.poll_timeout(), client.poll_transmit(9999)), (None, None));
}

#[test]
fn fifteen_seconds_of_silence_bring_a_ping_and_five_more_the_end() {
    let (mut client, now) = ready(raw(1));
    assert_eq!(client.poll_timeout(), Some((now + PING_AFTER, "ping")));
    client.handle_timeout(now + PING_AFTER);
    assert_eq!(client.poll_transmit(99).unwrap()[0], 0x12);
    let end = now + PING_AFTER + PING_TIMEOUT_MAX;
    assert_eq!(client.poll_timeout(), Some((end, "ping timeout")));
    client.handle_timeout(end);
    let why = DeadReason::PingTimeout;
    assert_eq!(client.poll_event(), Some(ClientEvent::Dead { why }));
}

/// A ping at `now` that is answered `rtt` later; the time of the answer.
fn measure(client: &mut Client, now: Instant, rtt: Duration) -> Instant {
    client.ping(now);
    let ping = client.poll_transmit(99).unwrap();
    let payload = ping[5..].try_into().unwrap();
    client.handle_stream(&encoded(&Frame::Pong(payload)), now + rtt).unwrap();
    assert_eq!(client.poll_event(), Some(ClientEvent::Pong { rtt }));
    now + rtt
}

#[test]
fn a_known_round_trip_shortens_the_wait_to_three_of_it_within_bounds() {
    for (rtt, wait) in [(10, 500), (200, 600), (4000, 5000)] {
        let (mut client, now) = ready(raw(1));
        let now = measure(&mut client, now, Duration::from_millis(rtt));
        assert_eq!(client.rtt(), Some(Duration::from_millis(rtt)));
        client.ping(now);
        let end = now + Duration::from_millis(wait);
        assert_eq!(client.poll_timeout(), Some((end, "ping timeout")));
    }
}

#[test]
fn anything_heard_is_a_sign_of_life() {
    let (mut client, now) = ready(raw(1));
    client.ping(now);
    client.handle_stream(&encoded(&Frame::KeepAlive), now).unwrap();
    assert_eq!(client.poll_timeout(), Some((now + PING_AFTER, "ping")));
}

#[test]
fn pinging_again_does_not_put_off_the_end() {
    let (mut client, now) = ready(raw(1));
    client.ping(now);
    client.ping(now + Duration::from_secs(3));
    assert_eq!(client.poll_timeout(), Some((now + PING_TIMEOUT_MAX, "ping timeout")));
}

#[test]
fn a_pong_that_was_not_asked_for_is_ignored() {
    let (mut client, now) = ready(raw(1));
    client.handle_stream(&encoded(&Frame::Pong([1; 8])), now).unwrap();
    assert_eq!(client.poll_event(), None);
}

#[test]
fn without_pings_two_minutes_of_silence_are_the_end() {
    let config = ClientConfig { ping_after: None, ..raw(1) };
    let (mut client, now) = ready(config);
    assert_eq!(client.poll_timeout(), Some((now + READ_TIMEOUT, "read timeout")));
    client.handle_timeout(now + READ_TIMEOUT);
    let why = DeadReason::ReadTimeout;
    assert_eq!(client.poll_event(), Some(ClientEvent::Dead { why }));
}

#[test]
fn the_same_client_connects_again() {
    let mut bench = raw_bench();
    let other = bench.join_with(2, raw(2));
    let key = bench.join_with(1, raw(1));
    let now = bench.now;
    let mut client = bench.clients.remove(&crate::ConnId(1)).unwrap();
    bench.server.closed(crate::ConnId(1), now);
    client.handle_stream(&[5, 0, 0, 0, 40, 1], now).unwrap(); // a frame cut short
    client.send(other, Bytes::from_static(b"stale"), Class::Data, now);
    client.closed(now);
    assert!(!client.is_ready() && client.poll_timeout().is_none());
    client.connected(now);
    bench.server.accepted(crate::ConnId(7), ([192, 0, 2, 1], 7).into(), now);
    bench.clients.insert(crate::ConnId(7), client);
    bench.run();
    bench.send(7, other, b"fresh");
    assert_eq!(bench.packets(2), [(key, b"fresh".to_vec())]);
}

#[test]
fn a_failed_client_takes_and_gives_nothing() {
    let (mut client, now) = ready(raw(1));
    assert!(client.handle_stream(&[8, 0, 0, 0, 1, 0], now).is_err());
    assert_eq!(client.handle_stream(b"whatever", now), Ok(()));
    assert_eq!(client.poll_transmit(9999), None);
    assert_eq!(client.poll_timeout(), None);
}

proptest! {
    #[test]
    fn any_bytes_in_any_state_are_taken_or_refused(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        kinds in proptest::collection::vec((0u8..0x20, 0u32..90), 0..12),
        state in 0..4,
        chunk in 1usize..50,
    ) {
        let (mut client, now) = match state {
            0 => {
                let now = start();
                let mut client = Client::new(ClientConfig::new(private(1), "relay"), rng(1), now);
                client.connected(now);
                (client, now)
            }
            1 => {
                let now = start();
                let mut client = Client::new(raw(1), rng(1), now);
                client.connected(now);
                (client, now)
            }
            2 => waiting_for_info(),
            _ => ready(raw(1)),
        };
        let mut bytes = Vec::new();
        for (kind, len) in kinds {
            bytes.push(kind);
            bytes.extend(len.to_be_bytes());
            bytes.extend(noise.iter().cycle().take(if noise.is_empty() { 0 } else { len as usize }));
        }
        bytes.extend(&noise);
        let mut failed = false;
        for piece in bytes.chunks(chunk) {
            let result = client.handle_stream(piece, now);
            prop_assert!(!(failed && result.is_err()), "an error is told once");
            failed |= result.is_err();
            let written: usize = std::iter::from_fn(|| client.poll_transmit(4096)).map(|b| b.len()).sum();
            prop_assert!(written <= 4096);
            while client.poll_event().is_some() {}
        }
        client.handle_timeout(now + READ_TIMEOUT);
        client.closed(now);
        prop_assert_eq!(client.poll_timeout(), None);
    }
}
