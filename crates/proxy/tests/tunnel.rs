//! The proxy as its clients and targets see it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use proxy::{ConnId, Connect, ConnectError, Credentials, Event, MAX_HEAD, Server, ServerConfig, Transmit};

const CLIENT: ConnId = ConnId(ConnId::FIRST_ACCEPTED);

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn ep(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

/// A proxy with one client, who takes whatever is written.
struct Bench {
    server: Server,
    now: Instant,
}

impl Bench {
    fn new(config: ServerConfig) -> Bench {
        let mut bench = Bench { server: Server::new(config), now: start() };
        bench.server.accepted(CLIENT, ep("192.168.1.2:40000"), bench.now);
        bench.server.writable(CLIENT, 1 << 20);
        bench
    }

    fn send(&mut self, conn: ConnId, data: &[u8]) -> Vec<Transmit> {
        self.server.handle_stream(conn, data, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.server.poll_transmit()).collect()
    }

    /// What the client reads after asking for a tunnel in its own words.
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        written(&self.send(CLIENT, request), CLIENT)
    }

    /// Opens a tunnel to 192.0.2.1:443; its upstream connection.
    fn open(&mut self) -> ConnId {
        let request = Connect::new(ep("192.0.2.1:443"), None).request();
        let sent = self.send(CLIENT, &request);
        let [Transmit::Connect { conn, to }] = sent[..] else { panic!("{sent:?}") };
        assert_eq!(to, ep("192.0.2.1:443"));
        self.server.connected(conn);
        let answer = written(&self.drain(), CLIENT);
        let mut connect = Connect::new(ep("192.0.2.1:443"), None);
        assert_eq!(connect.handle(&answer), Ok(Some(answer.len())));
        conn
    }
}

fn written(transmits: &[Transmit], to: ConnId) -> Vec<u8> {
    let parts = transmits.iter().filter_map(|transmit| match transmit {
        Transmit::Write { conn, data } if *conn == to => Some(data.to_vec()),
        _ => None,
    });
    parts.flatten().collect()
}

fn status(answer: &[u8]) -> Result<Option<usize>, ConnectError> {
    Connect::new(ep("192.0.2.1:443"), None).handle(answer)
}

#[test]
fn bytes_go_both_ways_once_the_target_is_connected() {
    let mut bench = Bench::new(ServerConfig::default());
    let upstream = bench.open();
    bench.server.writable(upstream, 1000);
    assert_eq!(written(&bench.send(CLIENT, b"hello"), upstream), b"hello");
    assert_eq!(written(&bench.send(upstream, b"welcome"), CLIENT), b"welcome");
    let target = ep("192.0.2.1:443");
    assert_eq!(bench.server.poll_event(), Some(Event::Opened { client: ep("192.168.1.2:40000"), target }));
}

#[test]
fn what_comes_with_the_request_goes_to_the_target() {
    let mut bench = Bench::new(ServerConfig::default());
    let mut request = Connect::new(ep("192.0.2.1:443"), None).request().to_vec();
    request.extend_from_slice(b"early");
    let sent = bench.send(CLIENT, &request);
    let [Transmit::Connect { conn, .. }] = sent[..] else { panic!("{sent:?}") };
    bench.server.writable(conn, 100);
    assert_eq!(bench.drain(), [], "nothing before it is connected");
    bench.server.connected(conn);
    assert_eq!(written(&bench.drain(), conn), b"early");
}

#[test]
fn credentials_are_wanted_where_there_are_some() {
    let right = Credentials::new("takkie", "woof").expect("they fit");
    let wrong = Credentials::new("takkie", "meow").expect("they fit");
    let config = ServerConfig { credentials: Some(right.clone()), ..ServerConfig::default() };
    for given in [None, Some(&wrong)] {
        let request = Connect::new(ep("192.0.2.1:443"), given).request();
        let answer = Bench::new(config.clone()).ask(&request);
        assert!(String::from_utf8_lossy(&answer).contains("\r\nProxy-Authenticate: Basic realm="));
        assert_eq!(status(&answer), Err(ConnectError::Unauthorized));
    }
    let request = Connect::new(ep("192.0.2.1:443"), Some(&right)).request();
    assert!(matches!(Bench::new(config).send(CLIENT, &request)[..], [Transmit::Connect { .. }]));
}

#[test]
fn each_wrong_request_has_its_status() {
    for (request, expected) in [
        ("CONNECT 192.0.2.1:80 HTTP/1.1\r\n\r\n", 403),
        ("GET http://192.0.2.1/ HTTP/1.1\r\n\r\n", 405),
        ("CONNECT relay.example:443 HTTP/1.1\r\n\r\n", 502),
        ("CONNECT 192.0.2.1 HTTP/1.1\r\n\r\n", 400),
        ("CONNECT :443 HTTP/1.1\r\n\r\n", 400),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", 400),
    ] {
        let mut bench = Bench::new(ServerConfig::default());
        let sent = bench.send(CLIENT, request.as_bytes());
        let answer = written(&sent, CLIENT);
        assert!(answer.starts_with(format!("HTTP/1.1 {expected} ").as_bytes()), "{request}");
        assert_eq!(sent.last(), Some(&Transmit::Close(CLIENT)));
        assert!(
            matches!(bench.server.poll_event(), Some(Event::Refused { status, .. }) if status == expected)
        );
        assert_eq!(bench.server.tunnels(), 0);
    }
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let mut bench = Bench::new(ServerConfig::default());
    let answer = bench.ask(&vec![b'x'; MAX_HEAD + 1]);
    assert!(answer.starts_with(b"HTTP/1.1 431 "));
}

#[test]
fn a_target_that_does_not_answer_is_a_bad_gateway_and_a_slow_one_a_timeout() {
    let mut bench = Bench::new(ServerConfig::default());
    let request = Connect::new(ep("192.0.2.1:443"), None).request();
    let sent = bench.send(CLIENT, &request);
    let [Transmit::Connect { conn, .. }] = sent[..] else { panic!("{sent:?}") };
    bench.server.closed(conn);
    assert_eq!(status(&written(&bench.drain(), CLIENT)), Err(ConnectError::Status(502)));

    let mut bench = Bench::new(ServerConfig::default());
    bench.send(CLIENT, &request);
    let (due, _) = bench.server.poll_timeout().expect("a deadline");
    bench.server.handle_timeout(due - Duration::from_nanos(1));
    assert_eq!(bench.drain(), []);
    bench.server.handle_timeout(due);
    assert_eq!(status(&written(&bench.drain(), CLIENT)), Err(ConnectError::Status(504)));
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn a_silent_client_is_let_go() {
    let mut bench = Bench::new(ServerConfig::default());
    let (due, _) = bench.server.poll_timeout().expect("a deadline");
    bench.server.handle_timeout(due);
    assert_eq!(bench.drain().last(), Some(&Transmit::Close(CLIENT)));
    assert_eq!(bench.server.tunnels(), 0);
}

#[test]
fn who_sends_faster_than_the_other_end_takes_is_held() {
    let mut bench = Bench::new(ServerConfig::default());
    let upstream = bench.open();
    let chunk = vec![7; 40_000];
    assert_eq!(bench.send(CLIENT, &chunk), []);
    assert_eq!(bench.send(CLIENT, &chunk), [Transmit::Hold { conn: CLIENT, hold: true }]);
    bench.server.writable(upstream, 100_000);
    let sent = bench.drain();
    assert_eq!(written(&sent, upstream).len(), 80_000);
    assert_eq!(sent.last(), Some(&Transmit::Hold { conn: CLIENT, hold: false }));
}

#[test]
fn an_end_that_goes_leaves_the_other_what_it_has_sent() {
    let mut bench = Bench::new(ServerConfig::default());
    let upstream = bench.open();
    bench.send(CLIENT, b"the last words");
    bench.server.closed(CLIENT);
    assert_eq!(bench.drain(), [], "nothing is taken yet");
    bench.server.writable(upstream, 8);
    bench.server.writable(upstream, 100);
    let sent = bench.drain();
    assert_eq!(written(&sent, upstream), b"the last words");
    assert_eq!(sent.last(), Some(&Transmit::Close(upstream)));
    assert_eq!(bench.server.tunnels(), 0);
}

#[test]
fn there_is_a_most_of_clients() {
    let mut server = Server::new(ServerConfig { max_clients: 1, ..ServerConfig::default() });
    let now = start();
    server.accepted(CLIENT, ep("192.168.1.2:1"), now);
    server.accepted(ConnId(CLIENT.0 + 1), ep("192.168.1.2:2"), now);
    assert_eq!(server.poll_transmit(), Some(Transmit::Close(ConnId(CLIENT.0 + 1))));
    assert_eq!(server.tunnels(), 1);
}

/// Bytes that look like a proxy's answers, whole or not, and anything else.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        "HTTP/1\\.[01] [1-5][0-9]{2} [a-zA-Z ]{0,9}\r\n([A-Za-z-]{1,9}: [a-z0-9]{0,9}\r\n){0,3}(\r\n)?.{0,20}".prop_map(String::into_bytes),
    ]
}

proptest! {
    /// Whatever a proxy answers, the client gives a result, the same for every way in which the bytes are cut up.
    #[test]
    fn the_answer_in_pieces_is_the_answer(bytes in answers(), cuts in proptest::collection::vec(1_usize..40, 0..20)) {
        let target = ep("192.0.2.1:443");
        let whole = Connect::new(target, None).handle(&bytes);
        let mut connect = Connect::new(target, None);
        let (mut rest, mut used, mut result) = (&bytes[..], 0, Ok(None));
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            result = connect.handle(piece);
            match result {
                Ok(None) => used += piece.len(),
                Ok(Some(n)) => {
                    used += n;
                    result = Ok(Some(used));
                    break;
                }
                Err(_) => break,
            }
            rest = after;
        }
        prop_assert_eq!(result, whole);
    }

    /// Whatever comes in, the proxy writes no more than the ends take, and ends with every client answered or waiting.
    #[test]
    fn any_bytes_in_any_order(
        inputs in proptest::collection::vec((0_u8..6, proptest::collection::vec(any::<u8>(), 0..100), 0_usize..300), 0..60),
        valid in any::<bool>(),
    ) {
        let now = start();
        let mut server = Server::new(ServerConfig::default());
        let mut space: std::collections::BTreeMap<ConnId, usize> = Default::default();
        let mut upstreams = Vec::new();
        server.accepted(CLIENT, ep("192.168.1.2:40000"), now);
        if valid {
            server.handle_stream(CLIENT, &Connect::new(ep("192.0.2.1:443"), None).request(), now);
        }
        for (kind, data, size) in inputs {
            let conn = match upstreams.last() {
                Some(conn) if size % 2 == 0 => *conn,
                _ => CLIENT,
            };
            match kind {
                0 | 1 => server.handle_stream(conn, &data, now),
                2 | 3 => {
                    space.insert(conn, size);
                    server.writable(conn, size);
                }
                4 => server.connected(conn),
                _ if size < 20 => {
                    space.remove(&conn);
                    server.closed(conn);
                }
                _ => server.handle_timeout(now + Duration::from_secs(size as u64)),
            }
            while let Some(transmit) = server.poll_transmit() {
                match transmit {
                    Transmit::Connect { conn, to } => {
                        prop_assert_eq!(to.port(), 443);
                        upstreams.push(conn);
                    }
                    Transmit::Write { conn, data } => {
                        let left = space.get(&conn).copied().unwrap_or(0).checked_sub(data.len());
                        prop_assert!(left.is_some(), "more than it takes");
                        space.insert(conn, left.unwrap_or(0));
                    }
                    Transmit::Hold { .. } => {}
                    Transmit::Close(conn) => {
                        space.remove(&conn);
                    }
                }
            }
        }
    }

    /// A request in any pieces opens the same tunnel, and what follows it arrives in order.
    #[test]
    fn a_request_in_any_pieces_opens_the_tunnel(cuts in proptest::collection::vec(1_usize..30, 0..10), body in ".{0,50}") {
        let mut bench = Bench::new(ServerConfig::default());
        let mut bytes = Connect::new(ep("192.0.2.1:443"), None).request().to_vec();
        bytes.extend_from_slice(body.as_bytes());
        let mut upstream = None;
        let mut rest = Bytes::from(bytes);
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let piece = rest.split_to(cut.min(rest.len()));
            for transmit in bench.send(CLIENT, &piece) {
                if let Transmit::Connect { conn, .. } = transmit {
                    prop_assert_eq!(upstream.replace(conn), None);
                }
            }
        }
        let upstream = upstream.expect("a connection");
        bench.server.connected(upstream);
        bench.server.writable(upstream, 1000);
        prop_assert_eq!(written(&bench.drain(), upstream), body.as_bytes());
    }
}
