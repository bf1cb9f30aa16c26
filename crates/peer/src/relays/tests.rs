use super::*;
use crate::dial::Out;
use crate::io::Transmit;
use crate::policy::Policy;
use derp::{Server as RelayServer, ServerConfig, ServerTransmit};

const REGION: u16 = 1;

/// The relays of one peer, and one real relay server at the other end of its connections.
struct Bench {
    now: Instant,
    rng: ChaCha12Rng,
    policy: Policy,
    out: Out,
    relays: Relays,
    server: RelayServer,
    /// Whether it can be connected to.
    is_up: bool,
    /// The only address that answers, if not all do.
    only: Option<IpAddr>,
    /// Since the start, when each connection was tried.
    tried: Vec<Duration>,
    start: Instant,
}

fn info(region: u16) -> RelayInfo {
    RelayInfo {
        region,
        name: String::new(),
        key: [0; 32],
        addr: [192, 0, 2, region as u8].into(),
        addr6: None,
        derp_ports: vec![443],
        tls: None,
        stun: Vec::new(),
    }
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn new(regions: u16) -> Bench {
        let now = Instant::now();
        let key = PrivateKey::from_bytes([5; 32]);
        let clock = tls::Clock::new(Duration::ZERO, now);
        let mut bench = Bench {
            now,
            rng: ChaCha12Rng::seed_from_u64(1),
            policy: Policy::default(),
            out: Out::default(),
            relays: Relays::new([6; 32], None, None, clock),
            server: RelayServer::new(ServerConfig::default(), key, ChaCha12Rng::seed_from_u64(2), now),
            is_up: true,
            only: None,
            tried: Vec::new(),
            start: now,
        };
        let infos: Vec<RelayInfo> = (1..=regions).map(info).collect();
        bench.with(|relays, env| relays.set_map(&infos, env));
        bench
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Relays, &mut Env<'_>) -> T) -> T {
        let Bench { now, rng, policy, out, relays, .. } = self;
        act(relays, &mut Env { now: *now, rng, policy, out })
    }

    /// Chooses a home by these round trips in ms, or without UDP if there are none, and runs.
    fn choose(&mut self, rtts: &[u64]) -> bool {
        let rtt = |region: u16| {
            let ms = rtts.get(usize::from(region) - 1).copied();
            ms.map(Duration::from_millis)
        };
        let blocked = rtts.is_empty();
        let changed = self.with(|relays, env| relays.choose_home(rtt, blocked, env));
        self.run();
        changed
    }

    fn run(&mut self) {
        loop {
            self.with(|relays, env| relays.flush(env));
            let Some(transmit) = self.out.transmits.pop_front() else {
                let Some(transmit) = self.server.poll_transmit() else { return };
                match transmit {
                    ServerTransmit::Write { conn, data } => {
                        self.with(|relays, env| relays.stream(ConnId(conn.0 as u32), &data, env));
                    }
                    ServerTransmit::Close { conn } => {
                        self.with(|relays, env| relays.closed(ConnId(conn.0 as u32), env));
                    }
                    ServerTransmit::Hold { .. } => {}
                }
                continue;
            };
            match transmit {
                Transmit::Connect { conn, to } => {
                    self.tried.push(self.now - self.start);
                    if !self.is_up || self.only.is_some_and(|only| only != to.ip()) {
                        self.with(|relays, env| relays.closed(conn, env));
                        continue;
                    }
                    let id = derp::ConnId(conn.0.into());
                    self.server.accepted(id, to, self.now);
                    self.server.writable(id, 1 << 20, self.now);
                    self.with(|relays, env| relays.writable(conn, 1 << 20, env));
                    self.with(|relays, env| relays.connected(conn, env));
                }
                Transmit::Write { conn, data } => {
                    self.server.handle_stream(derp::ConnId(conn.0.into()), &data, self.now);
                    self.with(|relays, env| relays.writable(conn, 1 << 20, env));
                }
                Transmit::Close(conn) => self.server.closed(derp::ConnId(conn.0.into()), self.now),
                Transmit::Datagram { .. } => {}
            }
        }
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let next = self.relays.poll_timeout().into_iter().chain(self.server.poll_timeout());
            match next.map(|(at, _)| at).min().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => {
                    self.now = end;
                    return;
                }
            }
            self.with(|relays, env| relays.handle_timeout(env));
            self.server.handle_timeout(self.now);
            self.run();
        }
    }
}

const SEC: Duration = Duration::from_secs(1);

#[test]
fn a_relay_that_restarts_is_left_alone_for_as_long_as_it_asked() {
    let mut bench = Bench::new(1);
    bench.choose(&[20]);
    assert!(bench.relays.is_up(REGION));
    let now = bench.now;
    bench.server.shutdown(2 * SEC, 30 * SEC, SEC / 2, now);
    bench.run();
    assert!(bench.relays.is_up(REGION), "it serves for a moment yet");
    bench.wait(SEC);
    assert!(!bench.relays.is_up(REGION));
    let key = PrivateKey::from_bytes([5; 32]);
    bench.server = RelayServer::new(ServerConfig::default(), key, ChaCha12Rng::seed_from_u64(3), bench.now);
    bench.wait(3 * SEC);
    assert!(bench.relays.is_up(REGION));
    let again = bench.tried[1];
    assert!(bench.tried.len() == 2 && (2 * SEC..=3 * SEC).contains(&again), "{:?}", bench.tried);
}

#[test]
fn a_relay_that_announced_its_restart_and_goes_on_is_connected_to_anew() {
    let mut bench = Bench::new(1);
    bench.choose(&[20]);
    let now = bench.now;
    bench.server.shutdown(2 * SEC, 30 * SEC, 60 * SEC, now);
    bench.run();
    bench.wait(2 * SEC - SEC / 10);
    assert!((bench.relays.is_up(REGION), bench.tried.len()) == (true, 1), "the old one serves until then");
    bench.wait(SEC + SEC / 5);
    assert!(bench.tried.len() > 1);
}

#[test]
fn an_announcement_of_a_year_is_not_believed() {
    let mut bench = Bench::new(1);
    bench.choose(&[20]);
    let now = bench.now;
    bench.server.shutdown(365 * 86_400 * SEC, SEC, Duration::ZERO, now);
    bench.run();
    bench.wait(50 * SEC);
    assert!(bench.tried.len() > 1, "{:?}", bench.tried);
}

#[test]
fn home_is_the_nearest_and_changes_only_for_one_that_is_much_nearer() {
    let mut bench = Bench::new(2);
    assert!(bench.choose(&[40, 30]));
    assert_eq!(bench.relays.home(), Some(2));
    assert!(!bench.choose(&[25, 30]), "five milliseconds");
    assert!(!bench.choose(&[21, 30]), "nine milliseconds, less than the least gain");
    assert!(!bench.choose(&[80, 100]), "not down to two thirds");
    assert!(bench.choose(&[60, 100]));
    assert_eq!(bench.relays.home(), Some(1));
}

#[test]
fn a_home_whose_tcp_fails_is_left_though_it_is_the_nearest_by_stun() {
    let mut bench = Bench::new(2);
    bench.is_up = false;
    bench.choose(&[10, 40]);
    assert_eq!(bench.relays.home(), Some(1));
    bench.wait(2 * SEC);
    let failed = std::iter::from_fn(|| bench.relays.poll_incoming());
    assert!(failed.into_iter().any(|incoming| matches!(incoming, Incoming::HomeFailed)));
    bench.is_up = true;
    assert!(bench.choose(&[10, 40]));
    assert_eq!(bench.relays.home(), Some(2));
    assert!(bench.relays.is_up(2));
    bench.wait(bench.policy.relay_avoid);
    assert!(bench.choose(&[10, 40]), "it is given another chance");
    assert_eq!(bench.relays.home(), Some(1));
}

#[test]
fn the_relays_of_a_region_are_tried_in_turn_and_one_of_them_is_enough() {
    let mut bench = Bench::new(1);
    let nodes: Vec<RelayInfo> =
        [1, 11].map(|n| RelayInfo { addr: [192, 0, 2, n].into(), ..info(REGION) }).into();
    bench.with(|relays, env| relays.set_map(&nodes, env));
    bench.only = Some(nodes[1].addr);
    bench.choose(&[10]);
    assert_eq!((bench.relays.is_up(REGION), bench.tried.len()), (true, 2), "without a wait");
    let incoming: Vec<Incoming> = std::iter::from_fn(|| bench.relays.poll_incoming()).collect();
    assert!(!incoming.iter().any(|incoming| matches!(incoming, Incoming::HomeFailed)), "{incoming:?}");
}

#[test]
fn a_region_of_which_no_relay_answers_is_waited_for_ever_longer() {
    let mut bench = Bench::new(1);
    let nodes: Vec<RelayInfo> =
        [1, 11].map(|n| RelayInfo { addr: [192, 0, 2, n].into(), ..info(REGION) }).into();
    bench.with(|relays, env| relays.set_map(&nodes, env));
    bench.is_up = false;
    bench.choose(&[10]);
    bench.wait(300 * SEC);
    // Rounds of two attempts; from the seventh on they are half of `retry_max` apart or more.
    let rounds = 8 + (300 * SEC).as_secs() / (bench.policy.retry_max / 2).as_secs();
    assert!(bench.tried.len() as u64 <= 2 * rounds, "{:?}", bench.tried);
    let failed = std::iter::from_fn(|| bench.relays.poll_incoming());
    assert!(failed.into_iter().any(|incoming| matches!(incoming, Incoming::HomeFailed)));
}

#[test]
fn the_next_relay_of_a_region_is_connected_to_while_the_one_that_restarts_serves() {
    let mut bench = Bench::new(1);
    let nodes: Vec<RelayInfo> =
        [1, 11].map(|n| RelayInfo { addr: [192, 0, 2, n].into(), ..info(REGION) }).into();
    bench.with(|relays, env| relays.set_map(&nodes, env));
    bench.only = Some(nodes[0].addr);
    bench.choose(&[10]);
    let now = bench.now;
    bench.server.shutdown(2 * SEC, 30 * SEC, SEC, now);
    bench.run();
    assert_eq!((bench.relays.is_up(REGION), bench.tried.len()), (true, 2), "at once, and the old one serves");
    bench.with(|relays, env| relays.send(REGION, [9; 32], Bytes::from_static(b"x"), Class::Data, env));
    bench.run();
    let dropped = |event| matches!(event, derp::ServerEvent::Dropped { bytes: 1, .. });
    assert!(std::iter::from_fn(|| bench.server.poll_event()).any(dropped), "it came there");
    bench.only = None;
    bench.server = RelayServer::new(
        ServerConfig::default(),
        PrivateKey::from_bytes([5; 32]),
        ChaCha12Rng::seed_from_u64(3),
        now,
    );
    bench.wait(2 * SEC);
    assert!(bench.relays.is_up(REGION) && bench.tried.len() > 2);
}

/// The relays without UDP, their TCP round trips in ms as given.
fn without_udp(rtts: &[u64]) -> Bench {
    let mut bench = Bench::new(rtts.len() as u16);
    bench.choose(&[]);
    for (relay, ms) in bench.relays.relays.values_mut().zip(rtts) {
        relay.tcp_rtt = Some(Duration::from_millis(*ms));
    }
    bench.choose(&[]);
    bench
}

#[test]
fn where_udp_is_blocked_home_is_the_nearest_by_tcp_and_the_next_stays_connected() {
    let mut bench = without_udp(&[300, 40, 20, 90]);
    assert_eq!((bench.relays.home(), bench.relays.standby), (Some(3), Some(2)));
    assert!((1..=4).all(|region| bench.relays.is_up(region)), "each was measured");
    let measured = std::iter::from_fn(|| bench.relays.poll_incoming());
    assert!(measured.into_iter().any(|incoming| matches!(incoming, Incoming::Measured)));
    bench.wait(2 * bench.policy.relay_idle);
    let up: Vec<u16> = (1..=4).filter(|region| bench.relays.is_up(*region)).collect();
    assert_eq!(up, [2, 3]);
}

#[test]
fn no_more_relays_are_measured_than_the_policy_says() {
    let bench = without_udp(&[50; 9]);
    assert_eq!((1..=9).filter(|region| bench.relays.is_up(*region)).count(), 5);
}

#[test]
fn where_stun_answers_no_relay_is_connected_to_beside_home() {
    let mut bench = Bench::new(3);
    bench.choose(&[10, 20, 30]);
    assert_eq!((1..=3).filter(|region| bench.relays.is_up(*region)).count(), 1);
    assert_eq!(bench.relays.standby, None);
}
