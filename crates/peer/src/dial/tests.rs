use super::*;
use rand_chacha::rand_core::SeedableRng;

struct Bench {
    now: Instant,
    rng: ChaCha12Rng,
    policy: Policy,
    out: Out,
    dial: Dial,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn new() -> Bench {
        let addresses = vec!["192.0.2.1:443".parse().unwrap(), "192.0.2.1:80".parse().unwrap()];
        let mut bench = Bench {
            now: Instant::now(),
            rng: ChaCha12Rng::seed_from_u64(1),
            policy: Policy::default(),
            out: Out::default(),
            dial: Dial::new(Server::Coordinator, addresses, None, None),
        };
        bench.with(Dial::start);
        bench
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Dial, &mut Env<'_>) -> T) -> T {
        let Bench { now, rng, policy, out, dial } = self;
        act(dial, &mut Env { now: *now, rng, policy, out })
    }

    /// Lets the next deadline pass; how long that was.
    fn step(&mut self) -> Duration {
        let (at, _) = self.dial.poll_timeout().expect("a deadline");
        let waited = at - self.now;
        self.now = at;
        self.with(Dial::handle_timeout);
        waited
    }

    fn dialled(&mut self) -> Vec<u16> {
        let ports = self.out.transmits.iter().filter_map(|transmit| match transmit {
            Transmit::Connect { to, .. } => Some(to.port()),
            _ => None,
        });
        let ports = ports.collect();
        self.out.transmits.clear();
        ports
    }

    fn up(&mut self) {
        self.with(|dial, env| dial.connected(env));
        self.with(Dial::ready);
    }
}

#[test]
fn a_silent_port_is_followed_by_the_next_after_the_timeout() {
    let mut bench = Bench::new();
    assert_eq!(bench.step(), Duration::from_millis(1500));
    assert_eq!(bench.dialled(), [443, 80]);
}

#[test]
fn addresses_of_a_family_that_the_machine_lacks_are_passed_over() {
    let mut bench = Bench::new();
    bench.with(|dial, env| dial.stop("for the test", env));
    bench.dialled();
    let here = |text: &str| vec![text.parse().expect("an endpoint")];
    bench.out.reach = Reach::of(&here("[3001::2]:1"), None);
    bench.with(Dial::start);
    assert_eq!((bench.dialled(), bench.dial.is_idle()), (vec![], true));
    bench.out.reach = Reach::of(&here("192.168.1.2:1"), None);
    bench.with(Dial::start);
    bench.with(|dial, env| dial.lost("refused", false, env));
    assert_eq!(bench.dialled(), [443, 80]);
}

#[test]
fn a_refused_port_is_followed_by_the_next_at_once() {
    let mut bench = Bench::new();
    bench.with(|dial, env| dial.lost("refused", false, env));
    assert_eq!(bench.dialled(), [443, 80]);
}

#[test]
fn the_port_that_worked_is_tried_first_the_next_time() {
    let mut bench = Bench::new();
    bench.step();
    bench.up();
    bench.dialled();
    bench.with(|dial, env| dial.lost("reset", false, env));
    bench.step();
    assert_eq!(bench.dialled(), [80]);
}

#[test]
fn the_first_retry_is_fast_and_the_waits_grow_to_five_seconds() {
    let mut bench = Bench::new();
    bench.up();
    bench.now += Duration::from_secs(60);
    bench.with(|dial, env| dial.lost("reset", false, env));
    assert!(bench.step() <= Duration::from_millis(100));
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        bench.with(|dial, env| dial.lost("refused", false, env));
        bench.with(|dial, env| dial.lost("refused", false, env));
        longest = bench.step();
    }
    assert!(longest >= Duration::from_millis(2500) && longest <= Duration::from_secs(5));
}

#[test]
fn a_server_that_accepts_and_drops_is_not_hammered() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        bench.up();
        bench.with(|dial, env| dial.lost("reset", false, env));
        bench.step();
    }
    bench.up();
    bench.with(|dial, env| dial.lost("reset", false, env));
    assert!(bench.step() >= Duration::from_millis(2500));
}

#[test]
fn credit_that_came_before_the_connection_counts() {
    let mut bench = Bench::new();
    bench.dial.writable(7, &mut bench.out);
    bench.with(|dial, env| dial.connected(env));
    let Bench { dial, out, .. } = &mut bench;
    dial.write(|space| Some(Bytes::from(vec![0; space])), out);
    assert!(matches!(out.transmits.back(), Some(Transmit::Write { data, .. }) if data.len() == 7));
}

#[test]
fn no_more_is_written_than_there_is_credit_for() {
    let mut bench = Bench::new();
    bench.up();
    bench.dial.writable(100, &mut bench.out);
    let Bench { dial, out, .. } = &mut bench;
    dial.write(|space| Some(Bytes::from(vec![0; space.min(60)])), out);
    let written = out.transmits.iter().map(|transmit| match transmit {
        Transmit::Write { data, .. } => data.len(),
        _ => 0,
    });
    let written: usize = written.sum();
    assert_eq!(written, 100);
}

/// A bench whose connections go through a proxy, connected to it.
fn proxied(space: usize) -> Bench {
    let mut bench = Bench::new();
    let credentials = proxy::Credentials::new("takkie", "woof").ok();
    let proxy = Proxy { address: "192.168.1.3:3128".parse().unwrap(), credentials };
    bench.dial = Dial::new(Server::Coordinator, bench.dial.addresses.clone(), Some(Arc::new(proxy)), None);
    bench.out = Out::default();
    bench.with(Dial::start);
    assert_eq!(bench.dialled(), [3128]);
    bench.dial.writable(space, &mut bench.out);
    assert_eq!(bench.with(Dial::connected), None);
    bench
}

/// Bytes came in: whether the stream is open now, and what of them is the server's.
fn came(bench: &mut Bench, bytes: &[u8]) -> Result<(Option<Duration>, Vec<u8>), String> {
    bench.with(|dial, env| dial.receive(bytes, env).map(|came| (came.opened, came.data.to_vec())))
}

fn written(bench: &mut Bench) -> Vec<u8> {
    let bytes = bench.out.transmits.iter().filter_map(|transmit| match transmit {
        Transmit::Write { data, .. } => Some(data.to_vec()),
        _ => None,
    });
    let bytes = bytes.flatten().collect();
    bench.out.transmits.clear();
    bytes
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_before_the_handshake() {
    let mut bench = proxied(1000);
    let request = written(&mut bench);
    assert!(request.starts_with(b"CONNECT 192.0.2.1:443 HTTP/1.1\r\n"));
    bench.now += Duration::from_millis(40);
    assert_eq!(came(&mut bench, b"HTTP/1.1 200 Con"), Ok((None, vec![])));
    let opened = Some(Duration::from_millis(40));
    assert_eq!(came(&mut bench, b"nected\r\n\r\nhello"), Ok((opened, b"hello".to_vec())));
    bench.with(Dial::ready);
    assert!(bench.dial.is_up());
}

#[test]
fn a_request_waits_for_room() {
    let mut bench = proxied(10);
    assert_eq!(written(&mut bench), b"CONNECT 19");
    bench.dial.writable(1000, &mut bench.out);
    assert!(written(&mut bench).starts_with(b"2.0.2.1:443 "));
}

#[test]
fn a_port_that_the_proxy_forbids_is_followed_by_the_next() {
    let mut bench = proxied(1000);
    let answer = b"HTTP/1.1 403 Forbidden\r\n\r\n";
    assert_eq!(came(&mut bench, answer), Err(proxy::ConnectError::Forbidden.to_string()));
    bench.with(|dial, env| dial.lost("forbidden", true, env));
    bench.dialled();
    bench.dial.writable(1000, &mut bench.out);
    bench.with(Dial::connected);
    assert!(written(&mut bench).starts_with(b"CONNECT 192.0.2.1:80 "));
}

#[test]
fn a_proxy_leads_to_addresses_of_an_ip_version_that_the_machine_lacks() {
    for (proxy, dialled) in [("[2001:db8::3]:3128", vec![3128]), ("192.168.1.3:3128", vec![])] {
        let mut bench = Bench::new();
        let proxy = Proxy { address: proxy.parse().unwrap(), credentials: None };
        bench.dial =
            Dial::new(Server::Coordinator, bench.dial.addresses.clone(), Some(Arc::new(proxy)), None);
        bench.out = Out::default();
        bench.out.reach = Reach::of(&["[2001:db8::2]:1".parse().unwrap()], None);
        bench.with(Dial::start);
        assert_eq!(bench.dialled(), dialled);
    }
}

#[test]
fn a_proxy_that_says_nothing_is_given_up() {
    let mut bench = proxied(1000);
    assert_eq!(bench.step(), Duration::from_secs(5));
    assert_eq!(bench.dialled(), [3128], "for a tunnel to the next port");
}

/// A bench whose port 443 speaks TLS, and the server there.
fn secured(pin: impl Fn(tls::Pin) -> tls::Pin, proxied: bool) -> (Bench, Tls) {
    let mut bench = Bench::new();
    let clock = tls::Clock::new(Duration::from_secs(1_000_000), bench.now);
    let year = Duration::from_secs(365 * 86_400);
    let identity = tls::Identity::self_signed([1; 32], &["a.example"], Duration::ZERO, year).unwrap();
    let trust = tls::ClientConfig::pinned(pin(identity.pin()));
    let security = Security { tls: ServerTls { ports: vec![443], name: "a.example".into(), trust }, clock };
    let proxy = Proxy { address: "192.168.1.3:3128".parse().unwrap(), credentials: None };
    let proxy = proxied.then(|| Arc::new(proxy));
    bench.dial = Dial::new(Server::Coordinator, bench.dial.addresses.clone(), proxy, Some(security));
    bench.with(Dial::start);
    bench.dialled();
    bench.dial.writable(100_000, &mut bench.out);
    assert_eq!(bench.with(Dial::connected), None, "there is more to do");
    let config = tls::ServerConfig::new(&identity).unwrap();
    (bench, Tls::server(&config, ChaCha12Rng::seed_from_u64(9), clock).unwrap())
}

/// Carries bytes between a bench and its server until none are left; what the bench made of the last.
fn handshake(bench: &mut Bench, server: &mut Tls) -> Result<(Option<Duration>, Vec<u8>), String> {
    loop {
        let sent = written(bench);
        let _ = server.feed_wire(&sent, bench.now); // a refusal is for the other side to tell
        let mut back = Vec::new();
        while let Some(bytes) = server.poll_wire(usize::MAX) {
            back.extend_from_slice(&bytes);
        }
        bench.now += Duration::from_millis(20);
        let got = came(bench, &back)?;
        if got.0.is_some() {
            return Ok(got);
        }
    }
}

#[test]
fn a_connection_is_secured_before_the_handshake_and_its_round_trip_is_that_of_tcp() {
    let (mut bench, mut server) = secured(|pin| pin, false);
    let (opened, _) = handshake(&mut bench, &mut server).unwrap();
    assert_eq!(opened, Some(Duration::ZERO));
    let Bench { dial, out, .. } = &mut bench;
    let mut once = Some(Bytes::from_static(b"hello"));
    dial.write(|_| once.take(), out);
    let sent = written(&mut bench);
    assert!(!sent.windows(5).any(|bytes| bytes == b"hello"));
    server.feed_wire(&sent, bench.now).unwrap();
    assert_eq!(server.poll_plain().as_deref(), Some(&b"hello"[..]));
    server.write_plain(b"hello too");
    let back = server.poll_wire(1000).unwrap();
    assert_eq!(came(&mut bench, &back), Ok((None, b"hello too".to_vec())));
}

#[test]
fn on_a_secure_connection_no_more_is_written_than_there_is_credit_for() {
    let (mut bench, mut server) = secured(|pin| pin, false);
    handshake(&mut bench, &mut server).unwrap();
    for space in [0, 10, 22, 23, 100, 5000, 20_000] {
        written(&mut bench);
        bench.dial.writable(space, &mut bench.out);
        let Bench { dial, out, .. } = &mut bench;
        dial.write(|space| Some(Bytes::from(vec![0; space.min(1400)])), out);
        let sent = written(&mut bench);
        assert!(sent.len() <= space, "{} of {space}", sent.len());
        assert!(space < 100 || sent.len() * 10 > space * 9, "{} of {space}", sent.len());
        server.feed_wire(&sent, bench.now).unwrap();
    }
}

#[test]
fn a_server_with_another_certificate_is_left_for_the_next_port() {
    let (mut bench, mut server) = secured(|_| tls::Pin([3; 32]), false);
    let reason = handshake(&mut bench, &mut server).unwrap_err();
    assert_eq!(reason, tls::Error::WrongPin.to_string());
    bench.with(|dial, env| dial.lost(&reason, true, env));
    assert_eq!(bench.dialled(), [80]);
    assert_eq!(bench.with(Dial::connected), Some(Duration::ZERO), "port 80 is plain");
}

#[test]
fn inside_a_proxys_tunnel_the_connection_is_secured_too() {
    let (mut bench, mut server) = secured(|pin| pin, true);
    assert!(written(&mut bench).starts_with(b"CONNECT 192.0.2.1:443 "));
    assert_eq!(came(&mut bench, b"HTTP/1.1 200 Connected\r\n\r\n"), Ok((None, vec![])));
    let (opened, _) = handshake(&mut bench, &mut server).unwrap();
    assert!(opened.is_some());
}

#[test]
fn a_server_that_says_nothing_of_tls_is_given_up() {
    let (mut bench, _) = secured(|pin| pin, false);
    written(&mut bench);
    assert_eq!(bench.step(), Duration::from_secs(5));
    assert_eq!(bench.dialled(), [80]);
}
