//! Our relay against `ts_derp`, the client of Tailscale's Rust implementation, unmodified, over streams in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use derp::{
    Class, Client, ClientConfig, ClientEvent, ConnId, PrivateKey, PublicKey, Server, ServerConfig,
    ServerEvent, ServerTransmit,
};
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tls::Tls;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use ts_http_util::Client as _;
use ts_keys::{NodeKeyPair, NodePublicKey};

/// Room in each direction of a stream, and what the server is told it may write at once.
const SPACE: usize = 64 << 10;

#[expect(clippy::disallowed_methods, reason = "this end of the test runs in real time")]
fn now() -> Instant {
    Instant::now()
}

enum Input {
    Accepted(ConnId, DuplexStream, Option<Box<Tls>>),
    Bytes(ConnId, Vec<u8>),
    Closed(ConnId),
    /// The relay is to tell its clients of this.
    Health(&'static str),
}

/// A relay that serves streams in memory.
struct Relay {
    inputs: UnboundedSender<Input>,
    events: UnboundedReceiver<ServerEvent>,
    key: PublicKey,
    next: u64,
    clock: tls::Clock,
}

/// A stream's way out, and its TLS if it has any.
struct Way {
    writer: WriteHalf<DuplexStream>,
    tls: Option<Box<Tls>>,
}

impl Way {
    async fn flush(&mut self) {
        while let Some(data) = self.tls.as_mut().and_then(|tls| tls.poll_wire(SPACE)) {
            let _ = self.writer.write_all(&data).await; // a broken stream is reported by its reader
        }
    }

    async fn write(&mut self, data: &[u8]) {
        match &mut self.tls {
            Some(tls) => assert_eq!(tls.write_plain(data), data.len()),
            None => drop(self.writer.write_all(data).await), // as above
        }
        self.flush().await;
    }
}

impl Relay {
    fn start(upgrade: bool) -> Self {
        let config = ServerConfig { upgrade, ..ServerConfig::default() };
        let server =
            Server::new(config, PrivateKey::from_bytes([7; 32]), ChaCha12Rng::seed_from_u64(1), now());
        let key = server.public_key();
        let (inputs, from_outside) = unbounded_channel();
        let (to_outside, events) = unbounded_channel();
        tokio::spawn(serve(server, from_outside, inputs.clone(), to_outside));
        let clock = tls::Clock::new(Duration::from_secs(1_750_000_000), now());
        Self { inputs, events, key, next: 0, clock }
    }

    fn connect(&mut self) -> DuplexStream {
        self.connect_to(None)
    }

    /// To the port that speaks TLS.
    fn connect_securely(&mut self) -> DuplexStream {
        let config = tls::ServerConfig::new(&self.identity()).unwrap();
        let tls = Tls::server(&config, ChaCha12Rng::seed_from_u64(self.next), self.clock).unwrap();
        self.connect_to(Some(Box::new(tls)))
    }

    /// Its certificate, with that behind it by which Tailscale's clients learn of the relay's key.
    fn identity(&self) -> tls::Identity {
        let (from, until) = (Duration::from_secs(1_700_000_000), Duration::from_secs(2_000_000_000));
        let identity = tls::Identity::self_signed([4; 32], &["relay.example"], from, until).unwrap();
        identity.with_derp_key([5; 32], &self.key.to_hex(), 2, from, until).unwrap()
    }

    fn connect_to(&mut self, tls: Option<Box<Tls>>) -> DuplexStream {
        let (ours, theirs) = duplex(SPACE);
        self.inputs.send(Input::Accepted(ConnId(self.next), ours, tls)).ok().unwrap();
        self.next += 1;
        theirs
    }

    async fn event(&mut self) -> ServerEvent {
        within(self.events.recv()).await.unwrap()
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("nothing happened for ten seconds")
}

async fn read(conn: ConnId, mut stream: ReadHalf<DuplexStream>, inputs: UnboundedSender<Input>) {
    let mut buffer = vec![0; SPACE];
    loop {
        let input = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => Input::Closed(conn),
            Ok(n) => Input::Bytes(conn, buffer[..n].to_vec()),
        };
        let last = matches!(input, Input::Closed(_));
        if inputs.send(input).is_err() || last {
            return;
        }
    }
}

async fn serve(
    mut server: Server,
    mut from: UnboundedReceiver<Input>,
    inputs: UnboundedSender<Input>,
    events: UnboundedSender<ServerEvent>,
) {
    let mut streams: BTreeMap<ConnId, Way> = BTreeMap::new();
    while let Some(input) = from.recv().await {
        match input {
            Input::Accepted(conn, stream, tls) => {
                let (reader, writer) = tokio::io::split(stream);
                tokio::spawn(read(conn, reader, inputs.clone()));
                streams.insert(conn, Way { writer, tls });
                server.accepted(conn, ([192, 0, 2, 1], 1).into(), now());
            }
            Input::Bytes(conn, bytes) => match streams.get_mut(&conn) {
                Some(way @ Way { tls: Some(_), .. }) => {
                    let tls = way.tls.as_mut().unwrap();
                    tls.feed_wire(&bytes, now()).unwrap();
                    while let Some(plain) = tls.poll_plain() {
                        server.handle_stream(conn, &plain, now());
                    }
                    way.flush().await;
                }
                _ => server.handle_stream(conn, &bytes, now()),
            },
            Input::Health(text) => server.set_health(text, now()),
            Input::Closed(conn) => {
                server.closed(conn, now());
                streams.remove(&conn);
            }
        }
        for conn in streams.keys() {
            server.writable(*conn, SPACE, now());
        }
        while let Some(transmit) = server.poll_transmit() {
            match transmit {
                ServerTransmit::Write { conn, data } => {
                    if let Some(way) = streams.get_mut(&conn) {
                        way.write(&data).await;
                        server.writable(conn, SPACE, now());
                    }
                }
                ServerTransmit::Close { conn } => drop(streams.remove(&conn)),
                ServerTransmit::Hold { .. } => {} // its reader has at most one read under way
            }
        }
        while let Some(event) = server.poll_event() {
            let _ = events.send(event); // not every test listens
        }
    }
}

/// Runs our own client on a stream: it answers each packet it gets with the same bytes, reversed.
async fn run_reverser(config: ClientConfig, stream: DuplexStream) {
    run_reverser_over(config, stream, None).await;
}

/// The same, inside TLS if there is any.
async fn run_reverser_over(config: ClientConfig, stream: DuplexStream, tls: Option<Box<Tls>>) {
    let (mut stream, writer) = tokio::io::split(stream);
    let mut way = Way { writer, tls };
    way.flush().await;
    while way.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
        let mut buffer = vec![0; SPACE];
        let n = stream.read(&mut buffer).await.unwrap();
        way.tls.as_mut().unwrap().feed_wire(&buffer[..n], now()).unwrap();
        way.flush().await;
    }
    let mut client = Client::new(config, ChaCha12Rng::seed_from_u64(2), now());
    client.connected(now());
    let mut buffer = vec![0; SPACE];
    loop {
        while let Some(data) = client.poll_transmit(SPACE) {
            way.write(&data).await;
        }
        let Ok(n @ 1..) = stream.read(&mut buffer).await else {
            return;
        };
        match &mut way.tls {
            None => client.handle_stream(&buffer[..n], now()).unwrap(),
            Some(tls) => {
                tls.feed_wire(&buffer[..n], now()).unwrap();
                while let Some(plain) = tls.poll_plain() {
                    client.handle_stream(&plain, now()).unwrap();
                }
            }
        }
        while let Some(event) = client.poll_event() {
            if let ClientEvent::Packet { src, data } = event {
                let answer: Bytes = data.iter().rev().copied().collect();
                client.send(src, answer, Class::Data, now());
            }
        }
    }
}

/// A `ts_derp` client on a stream of its own, with the HTTP upgrade of `ts_http_util` if asked for.
async fn ts_client(relay: &mut Relay, keys: &NodeKeyPair, upgrade: bool) -> ts_derp::Client<Box<dyn Stream>> {
    let stream = relay.connect();
    ts_client_on(relay, Box::new(stream), keys, upgrade).await
}

/// The same over TLS, as `ts_derp` connects where nothing vouches for the server.
async fn secure_ts_client(relay: &mut Relay, keys: &NodeKeyPair) -> ts_derp::Client<Box<dyn Stream>> {
    // With two providers in the build, its own choice would be ambiguous; a second installation changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let name = "relay.example".try_into().unwrap();
    let stream = within(ts_tls_util::connect_insecure(name, relay.connect_securely())).await.unwrap();
    ts_client_on(relay, Box::new(stream), keys, true).await
}

async fn ts_client_on(
    relay: &Relay,
    stream: Box<dyn Stream>,
    keys: &NodeKeyPair,
    upgrade: bool,
) -> ts_derp::Client<Box<dyn Stream>> {
    let stream: Box<dyn Stream> = if upgrade {
        let url = url::Url::parse("http://relay.example:80/derp").unwrap();
        let request = ts_http_util::make_upgrade_req(&url, "DERP", None).unwrap();
        let http = ts_http_util::http1::connect(stream).await.unwrap();
        let response = within(http.send(request)).await.unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["derp-version"], "2");
        assert_eq!(response.headers()["derp-public-key"], relay.key.to_hex());
        let upgraded = within(ts_http_util::do_upgrade(response)).await.unwrap();
        Box::new(upgraded)
    } else {
        stream
    };
    within(ts_derp::Client::handshake(stream, keys)).await.unwrap()
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

async fn expect_packet(client: &ts_derp::Client<Box<dyn Stream>>, from: NodePublicKey, want: &[u8]) {
    let (src, packet) = within(client.recv_one()).await.unwrap();
    assert_eq!(src, from);
    assert_eq!(packet.as_ref(), want);
}

#[tokio::test]
async fn two_ts_derp_clients_exchange_packets_through_our_server() {
    for upgrade in [false, true] {
        let mut relay = Relay::start(upgrade);
        let (a_keys, b_keys) = (NodeKeyPair::random(), NodeKeyPair::random());
        let a = ts_client(&mut relay, &a_keys, upgrade).await;
        let b = ts_client(&mut relay, &b_keys, upgrade).await;
        // ts_derp counts the receiver's key into the 64 KiB of a packet.
        for size in [0, 1, 1400, (64 << 10) - 32] {
            let packet: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            within(a.send_one(b_keys.public, &packet)).await.unwrap();
            expect_packet(&b, a_keys.public, &packet).await;
            within(b.send_one(a_keys.public, &packet)).await.unwrap();
            expect_packet(&a, b_keys.public, &packet).await;
        }
    }
}

#[tokio::test]
async fn our_client_answers_a_ts_derp_client() {
    for upgrade in [false, true] {
        let mut relay = Relay::start(upgrade);
        let config = ClientConfig {
            upgrade,
            server_key: Some(relay.key),
            fast_start: upgrade,
            ..ClientConfig::new(PrivateKey::from_bytes([3; 32]), "relay.example")
        };
        let ours = NodePublicKey::from_bytes(config.key.public().0);
        let stream = relay.connect();
        tokio::spawn(run_reverser(config, stream));
        let ServerEvent::ClientJoined { .. } = relay.event().await else {
            panic!("our client did not join");
        };
        let keys = NodeKeyPair::random();
        let theirs = ts_client(&mut relay, &keys, upgrade).await;
        within(theirs.send_one(ours, b"stressed")).await.unwrap();
        expect_packet(&theirs, ours, b"desserts").await;
    }
}

#[tokio::test]
async fn a_ts_derp_client_is_understood_in_what_it_says_of_itself() {
    let mut relay = Relay::start(false);
    let keys = NodeKeyPair::random();
    let client = ts_client(&mut relay, &keys, false).await;
    let ServerEvent::ClientJoined { key, info, .. } = relay.event().await else {
        panic!("no client joined");
    };
    assert_eq!(NodePublicKey::from_bytes(key.0), keys.public);
    assert_eq!((info.version, info.can_ack_pings, info.is_prober), (2, false, false));
    within(client.send_frame(&ts_derp::frame::NotePreferred { is_home: 1 })).await.unwrap();
    assert_eq!(relay.event().await, ServerEvent::Preferred { key, home: true });
}

#[tokio::test]
async fn a_ts_derp_client_survives_a_peer_that_is_gone() {
    let mut relay = Relay::start(false);
    let (a_keys, b_keys) = (NodeKeyPair::random(), NodeKeyPair::random());
    let a = ts_client(&mut relay, &a_keys, false).await;
    let b = ts_client(&mut relay, &b_keys, false).await;
    within(b.send_one(a_keys.public, b"hello")).await.unwrap();
    expect_packet(&a, b_keys.public, b"hello").await;
    drop(b);
    while !matches!(relay.event().await, ServerEvent::ClientLeft { .. }) {}
    // A disco packet to nobody is answered "not here": the client reads that and goes on.
    let mut disco = b"TS\xf0\x9f\x92\xac".to_vec();
    disco.extend([0; 56]);
    within(a.send_one(b_keys.public, &disco)).await.unwrap();
    within(a.send_one(a_keys.public, b"to myself")).await.unwrap();
    expect_packet(&a, a_keys.public, b"to myself").await;
}

#[tokio::test]
async fn over_tls_a_ts_derp_client_talks_to_our_client_and_to_its_like() {
    let mut relay = Relay::start(true);
    let config = ClientConfig {
        server_key: Some(relay.key),
        fast_start: true,
        ..ClientConfig::new(PrivateKey::from_bytes([3; 32]), "relay.example")
    };
    let ours = NodePublicKey::from_bytes(config.key.public().0);
    let trust = tls::ClientConfig::pinned(relay.identity().pin());
    let rng = ChaCha12Rng::seed_from_u64(77);
    let tls = Tls::client(&trust, "relay.example", rng, relay.clock, now()).unwrap();
    let stream = relay.connect_securely();
    tokio::spawn(run_reverser_over(config, stream, Some(Box::new(tls))));
    let ServerEvent::ClientJoined { .. } = relay.event().await else {
        panic!("our client did not join");
    };
    let (a_keys, b_keys) = (NodeKeyPair::random(), NodeKeyPair::random());
    let a = secure_ts_client(&mut relay, &a_keys).await;
    let b = ts_client(&mut relay, &b_keys, true).await; // port 80
    within(a.send_one(ours, b"stressed")).await.unwrap();
    expect_packet(&a, ours, b"desserts").await;
    let long = vec![7; 60_000];
    within(a.send_one(b_keys.public, &long)).await.unwrap();
    expect_packet(&b, a_keys.public, &long).await;
    within(b.send_one(a_keys.public, &long)).await.unwrap();
    expect_packet(&a, b_keys.public, &long).await;
}

#[tokio::test]
async fn a_ts_derp_client_survives_what_it_does_not_expect_and_we_what_it_sends() {
    let mut relay = Relay::start(true);
    let (a_keys, b_keys) = (NodeKeyPair::random(), NodeKeyPair::random());
    let a = secure_ts_client(&mut relay, &a_keys).await;
    let b = secure_ts_client(&mut relay, &b_keys).await;
    // Health and Restarting are errors to it, and the connection goes on.
    relay.inputs.send(Input::Health("unwell")).ok().unwrap();
    assert!(within(a.recv_one()).await.is_err());
    // Frames that only a server sends are nothing to a server.
    #[expect(deprecated, reason = "it is what a server sends")]
    within(b.send_frame(&ts_derp::frame::KeepAlive)).await.unwrap();
    within(b.send_one(a_keys.public, b"still here")).await.unwrap();
    expect_packet(&a, b_keys.public, b"still here").await;
}
