use super::*;
use crate::dial::Out;
use crate::io::Transmit;
use crate::policy::Policy;
use std::collections::BTreeSet;

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
    /// Another one, at this address, and the connections to it.
    other: (IpAddr, RelayServer, BTreeSet<ConnId>),
    /// Whether they can be connected to.
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
        let clock = tls::Clock::new(Duration::ZERO, now);
        let mut bench = Bench {
            now,
            rng: ChaCha12Rng::seed_from_u64(1),
            policy: Policy::default(),
            out: Out::default(),
            relays: Relays::new([6; 32], None, None, clock),
            server: server(2, now),
            other: ([192, 0, 2, 2].into(), server(3, now), BTreeSet::new()),
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
                let transmit = self.server.poll_transmit().or_else(|| self.other.1.poll_transmit());
                let Some(transmit) = transmit else { return };
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
                    if to.ip() == self.other.0 {
                        self.other.2.insert(conn);
                    }
                    let now = self.now;
                    self.at(conn).accepted(id, to, now);
                    self.at(conn).writable(id, 1 << 20, now);
                    self.with(|relays, env| relays.writable(conn, 1 << 20, env));
                    self.with(|relays, env| relays.connected(conn, env));
                }
                Transmit::Write { conn, data } => {
                    let now = self.now;
                    self.at(conn).handle_stream(derp::ConnId(conn.0.into()), &data, now);
                    self.with(|relays, env| relays.writable(conn, 1 << 20, env));
                }
                Transmit::Close(conn) => {
                    let now = self.now;
                    self.at(conn).closed(derp::ConnId(conn.0.into()), now);
                }
                Transmit::Datagram { .. } => {}
            }
        }
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let servers = self.server.poll_timeout().into_iter().chain(self.other.1.poll_timeout());
            let next = self.relays.poll_timeout().into_iter().chain(servers);
            match next.map(|(at, _)| at).min().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => {
                    self.now = end;
                    return;
                }
            }
            self.with(|relays, env| relays.handle_timeout(env));
            self.server.handle_timeout(self.now);
            self.other.1.handle_timeout(self.now);
            self.run();
        }
    }

    /// The relay at the other end of a connection.
    fn at(&mut self, conn: ConnId) -> &mut RelayServer {
        if self.other.2.contains(&conn) { &mut self.other.1 } else { &mut self.server }
    }

    /// Both relays, in one region, of which home is the first.
    fn of_one_region(seed: u64) -> Bench {
        let mut bench = Bench::new(1);
        bench.rng = ChaCha12Rng::seed_from_u64(seed);
        let nodes: Vec<RelayInfo> =
            [1, 2].map(|n| RelayInfo { addr: [192, 0, 2, n].into(), ..info(REGION) }).into();
        bench.with(|relays, env| relays.set_map(&nodes, env));
        bench.choose(&[10]);
        bench.wait(SEC);
        bench
    }

    /// The first relay announces its restart.
    fn announce(&mut self, reconnect_in: Duration, try_for: Duration, grace: Duration) {
        let restart = derp::Restart { reconnect_in, spread: Duration::ZERO, try_for, grace };
        self.server.shutdown(restart, self.now);
        self.run();
    }

    /// The first relay says how it is; waits until its clients have done what follows.
    fn tell_health(&mut self, text: &str) {
        self.server.set_health(text, self.now);
        self.run();
        self.wait(self.policy.health_spread);
    }

    /// The other one does.
    fn tell_other_health(&mut self, text: &str) {
        self.other.1.set_health(text, self.now);
        self.run();
        self.wait(self.policy.health_spread);
    }

    /// Whether anything came that makes the peer choose its home anew.
    fn must_choose(&mut self) -> bool {
        let incoming: Vec<Incoming> = std::iter::from_fn(|| self.relays.poll_incoming()).collect();
        incoming.iter().any(|incoming| matches!(incoming, Incoming::Health | Incoming::HomeFailed))
    }
}

fn server(seed: u64, now: Instant) -> RelayServer {
    let key = PrivateKey::from_bytes([5; 32]);
    RelayServer::new(ServerConfig::default(), key, ChaCha12Rng::seed_from_u64(seed), now)
}

const SEC: Duration = Duration::from_secs(1);

#[test]
fn only_inside_tls_the_relay_is_not_waited_for() {
    let mut known = info(REGION);
    known.key = PrivateKey::from_bytes([5; 32]).public().0;
    let ask = |info: RelayInfo| {
        let mut bench = Bench::new(1);
        let security = info.tls.is_some();
        bench.with(|relays, env| relays.set_map(&[info], env));
        bench.with(|relays, env| relays.choose_home(|_| Some(SEC), false, env));
        let conn = bench.relays.relays[&REGION].dial.conn().unwrap();
        bench.with(|relays, env| relays.writable(conn, 1 << 16, env));
        bench.with(|relays, env| relays.connected(conn, env));
        let relay = bench.relays.relays.get_mut(&REGION).unwrap();
        if security {
            // The TLS handshake is not played here.
            relay.begin_stream(SEC, bench.now);
        }
        relay.client.poll_transmit(1 << 16).unwrap()
    };
    let says = |request: &[u8]| request.windows(15).any(|word| word == b"Derp-Fast-Start");
    assert!(!says(&ask(known.clone())));
    known.tls = Some(coord::RelayTls { ports: vec![443], name: String::new(), pin: Some([0; 32]) });
    assert!(says(&ask(known)));
}

#[test]
fn a_relay_that_restarts_is_left_alone_for_as_long_as_it_asked() {
    let mut bench = Bench::new(1);
    bench.choose(&[20]);
    assert!(bench.relays.is_up(REGION));
    bench.announce(2 * SEC, 30 * SEC, SEC / 2);
    assert!(bench.relays.is_up(REGION), "it serves for a moment yet");
    bench.wait(SEC);
    assert!(!bench.relays.is_up(REGION));
    bench.server = server(3, bench.now);
    bench.wait(3 * SEC);
    assert!(bench.relays.is_up(REGION));
    let again = bench.tried[1];
    assert!(bench.tried.len() == 2 && (2 * SEC..=9 * SEC / 4).contains(&again), "{:?}", bench.tried);
}

#[test]
fn a_relay_that_announced_its_restart_and_goes_on_is_connected_to_anew() {
    let mut bench = Bench::new(1);
    bench.choose(&[20]);
    bench.announce(2 * SEC, 30 * SEC, 60 * SEC);
    bench.wait(2 * SEC - SEC / 10);
    assert!((bench.relays.is_up(REGION), bench.tried.len()) == (true, 1), "the old one serves until then");
    bench.wait(SEC + SEC / 5);
    assert!(bench.tried.len() > 1);
}

#[test]
fn an_announcement_of_a_year_is_not_believed() {
    let mut bench = Bench::new(1);
    bench.choose(&[20]);
    bench.announce(365 * 86_400 * SEC, SEC, Duration::ZERO);
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
    bench.announce(2 * SEC, 30 * SEC, SEC);
    bench.wait(2 * SEC / 3);
    assert!(bench.relays.is_up(REGION) && bench.tried.len() > 1, "soon, and the old one serves");
    bench.with(|relays, env| relays.send(REGION, [9; 32], Bytes::from_static(b"x"), Class::Data, env));
    bench.run();
    let dropped = |event| matches!(event, derp::ServerEvent::Dropped { bytes: 1, .. });
    assert!(std::iter::from_fn(|| bench.server.poll_event()).any(dropped), "it came there");
    bench.only = None;
    bench.server = server(3, bench.now);
    bench.wait(2 * SEC);
    assert!(bench.relays.is_up(REGION) && bench.tried.len() > 2);
}

#[test]
fn a_relay_that_is_back_late_is_tried_in_short_order_and_has_not_failed() {
    let mut bench = Bench::new(2);
    bench.choose(&[10, 40]);
    bench.announce(SEC, 5 * SEC, SEC / 2);
    bench.is_up = false;
    bench.wait(4 * SEC);
    assert!(!bench.must_choose(), "a restart is no failure");
    let gaps = bench.tried.windows(2).skip(1).map(|pair| pair[1] - pair[0]);
    assert!(bench.tried.len() > 25 && gaps.max() <= Some(SEC / 10), "{:?}", bench.tried);
    bench.wait(20 * SEC);
    assert!(bench.must_choose(), "it is given up once the time that it asked for is over");
}

#[test]
fn who_has_another_relay_ready_goes_there_when_home_announces_its_restart() {
    let mut bench = without_udp(&[10, 40]);
    let _ = bench.must_choose();
    bench.announce(SEC, 5 * SEC, SEC / 2);
    assert!(bench.must_choose() && bench.relays.is_up(1));
    assert!(bench.choose(&[]));
    assert_eq!((bench.relays.home(), bench.relays.is_up(2)), (Some(2), true));
}

/// How many of a hundred come in the fullest tenth of the time in which they all do.
fn fullest_tenth(mut times: Vec<Duration>) -> usize {
    times.sort_unstable();
    let (first, last) = (times[0], times[times.len() - 1]);
    let tenth = (last - first) / 10;
    assert!(tenth > Duration::from_millis(5), "{first:?}..{last:?}");
    let within = |from: &Duration| times.iter().filter(|at| (*from..*from + tenth).contains(*at)).count();
    times.iter().map(within).max().unwrap_or(0)
}

#[test]
fn a_hundred_clients_come_back_spread_over_time() {
    let back = |seed| {
        let mut bench = Bench::new(1);
        bench.rng = ChaCha12Rng::seed_from_u64(seed);
        bench.choose(&[20]);
        bench.announce(SEC, 5 * SEC, SEC / 2);
        bench.wait(3 * SEC);
        bench.tried[1]
    };
    assert!(fullest_tenth((0..100).map(back).collect()) < 30);
}

#[test]
fn a_hundred_clients_move_to_the_next_relay_of_the_region_spread_over_time() {
    let moved = |seed| {
        let mut bench = Bench::of_one_region(seed);
        bench.announce(SEC, 5 * SEC, SEC / 2);
        bench.wait(SEC / 2);
        assert!(bench.relays.is_up(REGION));
        bench.tried[1]
    };
    assert!(fullest_tenth((0..100).map(moved).collect()) < 30);
}

#[test]
fn a_hundred_clients_leave_an_ill_relay_spread_over_time() {
    let left = |seed| {
        let mut bench = Bench::of_one_region(seed);
        bench.tell_health("disk full");
        bench.tried[1]
    };
    assert!(fullest_tenth((0..100).map(left).collect()) < 30);
}

#[test]
fn an_ill_home_is_left_for_a_healthy_one_and_come_back_to_when_it_is_well() {
    let mut bench = Bench::new(2);
    bench.choose(&[10, 40]);
    bench.wait(SEC);
    let _ = bench.must_choose();
    bench.tell_health("disk full");
    assert!(bench.must_choose());
    assert!(bench.choose(&[10, 40]));
    assert_eq!((bench.relays.home(), bench.relays.is_up(2)), (Some(2), true));
    bench.wait(3 * bench.policy.relay_idle);
    assert!(!bench.choose(&[10, 40]), "it is ill still");
    assert!(bench.relays.is_up(1), "who has hung up does not hear that it is well");
    bench.tell_health("");
    assert!(bench.must_choose());
    assert!(bench.choose(&[10, 40]));
    assert_eq!(bench.relays.home(), Some(1));
}

#[test]
fn others_are_told_of_a_home_once_it_is_connected_to_and_the_one_before_serves_until_then() {
    let mut bench = Bench::new(2);
    bench.choose(&[10, 40]);
    assert!(bench.relays.advertise() && bench.relays.advertised() == Some(1));
    bench.is_up = false;
    assert!(bench.choose(&[400, 40]));
    assert!(!bench.relays.advertise(), "nobody could reach us there");
    bench.is_up = true;
    bench.wait(SEC);
    assert!(bench.relays.advertise() && bench.relays.advertised() == Some(2));
    bench.is_up = false;
    assert!(bench.choose(&[10, 400]) && bench.relays.advertise(), "the connection there has stayed");
}

#[test]
fn an_ill_relay_is_home_where_no_other_can_be() {
    let mut bench = Bench::new(1);
    bench.choose(&[10]);
    bench.wait(SEC);
    bench.tell_health("disk full");
    assert!(!bench.choose(&[10]));
    assert_eq!((bench.relays.home(), bench.relays.is_up(1)), (Some(1), true));

    let mut bench = Bench::new(2);
    bench.choose(&[10, 40]);
    bench.wait(SEC);
    bench.only = Some(info(1).addr);
    bench.tell_health("disk full");
    assert!(bench.choose(&[10, 40]));
    bench.wait(2 * SEC);
    assert!(bench.must_choose(), "the healthy one cannot be reached");
    assert!(bench.choose(&[10, 40]));
    assert_eq!((bench.relays.home(), bench.relays.is_up(1)), (Some(1), true));
}

#[test]
fn a_relay_that_restarted_is_well_unless_it_says_otherwise() {
    for still in ["", "disk full"] {
        let mut bench = Bench::new(2);
        bench.choose(&[10, 40]);
        bench.wait(SEC);
        bench.tell_health("disk full");
        bench.choose(&[10, 40]);
        bench.announce(SEC, 5 * SEC, SEC / 2);
        bench.wait(SEC);
        let _ = bench.must_choose();
        bench.server = server(7, bench.now);
        bench.server.set_health(still, bench.now);
        bench.wait(SEC);
        assert_eq!((bench.relays.is_up(1), bench.must_choose()), (true, still.is_empty()));
        assert_eq!(bench.choose(&[10, 40]), still.is_empty());
    }
}

#[test]
fn of_a_region_the_healthy_relay_serves_and_nothing_else_changes() {
    let mut bench = Bench::of_one_region(1);
    let _ = bench.must_choose();
    bench.tell_health("disk full");
    bench.wait(SEC);
    assert!(!bench.must_choose());
    assert_eq!((bench.relays.is_up(REGION), bench.other.1.connections()), (true, 1));
    bench.wait(bench.policy.restart_max);
    assert_eq!(bench.server.connections(), 0, "the ill one is left in the end");
    bench.tell_other_health("disk full, too");
    bench.wait(SEC);
    assert!(bench.must_choose(), "now the region is ill");
    assert_eq!(
        (bench.relays.relays[&REGION].standing(bench.now), bench.other.1.connections()),
        (Standing::Ill, 1)
    );
    bench.server.set_health("", bench.now);
    bench.wait(bench.policy.relay_avoid);
    assert!(bench.must_choose(), "the first was asked again, and is well");
    assert_eq!(bench.relays.relays[&REGION].standing(bench.now), Standing::Fine);
    assert_eq!(bench.server.connections(), 1);
}

#[test]
fn two_machines_with_one_key_do_not_take_the_relay_for_ill() {
    let mut bench = Bench::new(2);
    bench.choose(&[10, 40]);
    bench.wait(SEC);
    let _ = bench.must_choose();
    bench.tell_health(derp::CONFLICT);
    assert!(!bench.must_choose() && !bench.choose(&[10, 40]));
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
