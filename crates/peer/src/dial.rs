//! One TCP connection that is wanted, through several addresses and with back-off.
//!
//! ```text
//!  idle ──start──▶ connecting ──▶ (asking) ──▶ shaking ──ready──▶ up
//!                   ▲   │ failed     │ failed    │ failed        │ lost
//!                   │   ▼            ▼           ▼               ▼
//!                   └─ next address; after the last, and after `up`: waiting
//! ```
//! With a proxy every connection goes to it first, and *asking* it for a tunnel to the address comes before the handshake.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use proxy::Connect;
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use crate::config::Proxy;
use crate::io::{ConnId, Event, ServerState, Transmit};
use crate::policy::Policy;
use crate::reach::Reach;

/// What leaves the peer, collected until the caller drains it; and the numbers for connections.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
    /// Where anything can be sent to, and by which address.
    pub(crate) reach: Reach,
    next_conn: u32,
}

impl Out {
    pub(crate) fn datagram(&mut self, to: SocketAddr, data: Bytes) {
        self.transmits.push_back(Transmit::Datagram { to: self.reach.on_wire(to), data });
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn warn(&mut self, what: impl Into<String>) {
        self.events.push_back(Event::Warning { what: what.into() });
    }

    pub(crate) fn conn(&mut self) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn = self.next_conn.wrapping_add(1);
        conn
    }
}

/// The surroundings of every call: the time, the random stream, the timers, and where output goes.
pub(crate) struct Env<'a> {
    pub(crate) now: Instant,
    pub(crate) rng: &'a mut ChaCha12Rng,
    pub(crate) policy: &'a Policy,
    pub(crate) out: &'a mut Out,
}

/// Whose connection it is, for the events.
#[derive(Debug, Clone)]
pub(crate) enum Server {
    Coordinator,
    Relay(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Waiting { until: Instant },
    Connecting { conn: ConnId, deadline: Instant },
    Asking { conn: ConnId, deadline: Instant },
    Shaking { conn: ConnId, deadline: Instant },
    Up { conn: ConnId, since: Instant },
}

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Dial {
    server: Server,
    proxy: Option<Arc<Proxy>>,
    /// The tunnel that is asked for, and what of the request is not written yet.
    tunnel: Option<(Connect, Bytes)>,
    addresses: Vec<SocketAddr>,
    /// Index of the address in use; kept after success, as what worked once is the best guess for the next time.
    at: usize,
    /// Addresses that failed in a row in this attempt.
    failed: usize,
    /// Attempts that failed in a row, over all addresses.
    failures: u32,
    state: State,
    began: Option<Instant>,
    credit: usize,
}

impl Dial {
    pub(crate) fn new(server: Server, addresses: Vec<SocketAddr>, proxy: Option<Arc<Proxy>>) -> Dial {
        Dial {
            server,
            proxy,
            tunnel: None,
            addresses,
            at: 0,
            failed: 0,
            failures: 0,
            state: State::Idle,
            began: None,
            credit: 0,
        }
    }

    /// The connection, in whatever state.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Connecting { conn, .. }
            | State::Asking { conn, .. }
            | State::Shaking { conn, .. }
            | State::Up { conn, .. } => Some(conn),
            State::Idle | State::Waiting { .. } => None,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Attempts over all addresses that failed since it last worked.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Connects, unless it already does or waits to.
    pub(crate) fn start(&mut self, env: &mut Env<'_>) {
        if self.is_idle() {
            self.connect(env);
        }
    }

    /// Closes, and wants no connection any more. `true` if bytes could have flowed on it.
    pub(crate) fn stop(&mut self, reason: &str, env: &mut Env<'_>) -> bool {
        let streaming = matches!(self.state, State::Shaking { .. } | State::Up { .. });
        if let Some(conn) = self.conn() {
            env.out.transmits.push_back(Transmit::Close(conn));
            self.report(ServerState::Closed, reason, env);
        }
        self.state = State::Idle;
        self.failures = 0;
        self.failed = 0;
        streaming
    }

    /// The TCP connection is open; the handshake begins, if it is not a proxy that was connected. How long it took.
    pub(crate) fn connected(&mut self, env: &mut Env<'_>) -> Option<Duration> {
        let State::Connecting { conn, .. } = self.state else { return None };
        if let (Some(proxy), Some(&to)) = (&self.proxy, self.addresses.get(self.at)) {
            let connect = Connect::new(to, proxy.credentials.as_ref());
            let request = connect.request();
            self.tunnel = Some((connect, request));
            self.state = State::Asking { conn, deadline: env.now + env.policy.handshake_timeout };
            self.ask(env.out);
            return None;
        }
        Some(self.shake(conn, env))
    }

    fn shake(&mut self, conn: ConnId, env: &Env<'_>) -> Duration {
        self.state = State::Shaking { conn, deadline: env.now + env.policy.handshake_timeout };
        env.now.saturating_duration_since(self.began.unwrap_or(env.now))
    }

    /// Writes what the connection takes of the request for a tunnel.
    fn ask(&mut self, out: &mut Out) {
        let (State::Asking { conn, .. }, Some((_, request))) = (self.state, &mut self.tunnel) else { return };
        let data = request.split_to(request.remaining().min(self.credit));
        self.credit -= data.len();
        if !data.is_empty() {
            out.transmits.push_back(Transmit::Write { conn, data });
        }
    }

    /// Bytes came while a proxy is asked for a tunnel. Once that is open: how long it took, and what of them comes from the
    /// server. An error is one of [`lost`](Self::lost)'s reasons.
    pub(crate) fn tunnelled<'d>(
        &mut self,
        data: &'d [u8],
        env: &Env<'_>,
    ) -> Result<Option<(Duration, &'d [u8])>, proxy::ConnectError> {
        let (State::Asking { conn, .. }, Some((connect, _))) = (self.state, &mut self.tunnel) else {
            return Ok(None);
        };
        Ok(match connect.handle(data)? {
            None => None,
            Some(used) => {
                self.tunnel = None;
                Some((self.shake(conn, env), data.get(used..).unwrap_or_default()))
            }
        })
    }

    /// Whether a proxy is being asked for a tunnel.
    pub(crate) fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// The handshake is done.
    pub(crate) fn ready(&mut self, env: &mut Env<'_>) {
        if let State::Shaking { conn, .. } = self.state {
            self.state = State::Up { conn, since: env.now };
            self.failed = 0;
            self.report(ServerState::Connected, "", env);
        }
    }

    /// The connection is gone, or of no use. `close`: it is still to be closed on our side.
    pub(crate) fn lost(&mut self, reason: &str, close: bool, env: &mut Env<'_>) {
        let Some(conn) = self.conn() else { return };
        if close {
            env.out.transmits.push_back(Transmit::Close(conn));
        }
        if let State::Up { since, .. } = self.state {
            self.report(ServerState::Closed, reason, env);
            if since + env.policy.retry_reset <= env.now {
                self.failures = 0;
            }
            self.wait(env);
            return;
        }
        self.report(ServerState::Failed, reason, env);
        self.at = (self.at + 1) % self.addresses.len().max(1);
        self.failed += 1;
        if self.failed < self.addresses.iter().filter(|to| env.out.reach.reaches(**to)).count() {
            self.connect(env);
        } else {
            self.failures = self.failures.max(1);
            self.wait(env);
        }
    }

    /// Starts over at once, for instance because the machine is in another network.
    pub(crate) fn restart(&mut self, reason: &str, env: &mut Env<'_>) {
        if !self.is_idle() {
            self.stop(reason, env);
            self.connect(env);
        }
    }

    fn wait(&mut self, env: &mut Env<'_>) {
        let policy = env.policy;
        let (low, high) = match self.failures.checked_sub(1) {
            None => (Duration::ZERO, policy.fast_retry),
            Some(n) => {
                let wait = policy.retry_min.saturating_mul(1 << n.min(16)).min(policy.retry_max);
                (wait / 2, wait)
            }
        };
        self.failed = 0;
        self.failures += 1;
        self.state = State::Waiting { until: env.now + env.rng.random_range(low..=high) };
    }

    /// Connects to the next address that can be reached from here. Without one it waits for another network.
    fn connect(&mut self, env: &mut Env<'_>) {
        self.state = State::Idle;
        let count = self.addresses.len();
        let mut from_here = (0..count).map(|i| (self.at + i) % count);
        let Some(at) = from_here.find(|at| env.out.reach.reaches(self.addresses[*at])) else { return };
        let to = env.out.reach.on_wire(self.addresses[at]);
        self.at = at;
        let conn = env.out.conn();
        self.state = State::Connecting { conn, deadline: env.now + env.policy.connect_timeout };
        self.began = Some(env.now);
        self.credit = 0;
        self.tunnel = None;
        self.report(ServerState::Connecting, "", env);
        let to = self.proxy.as_ref().map_or(to, |proxy| proxy.address);
        env.out.transmits.push_back(Transmit::Connect { conn, to });
    }

    fn report(&self, state: ServerState, reason: &str, env: &mut Env<'_>) {
        let Some(&address) = self.addresses.get(self.at) else { return };
        let reason = reason.to_owned();
        env.out.event(match &self.server {
            Server::Coordinator => Event::Coordinator { state, address, reason },
            Server::Relay(relay) => Event::Relay { relay: relay.clone(), state, address, reason },
        });
    }

    /// The connection takes `space` bytes now.
    pub(crate) fn writable(&mut self, space: usize, out: &mut Out) {
        self.credit = space;
        self.ask(out);
    }

    /// Writes what `pull` gives, as far as the credit goes.
    pub(crate) fn write(&mut self, mut pull: impl FnMut(usize) -> Option<Bytes>, out: &mut Out) {
        let (State::Shaking { conn, .. } | State::Up { conn, .. }) = self.state else { return };
        while self.credit > 0 {
            let Some(data) = pull(self.credit) else { return };
            self.credit = self.credit.saturating_sub(data.len());
            out.transmits.push_back(Transmit::Write { conn, data });
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match self.state {
            State::Idle | State::Up { .. } => None,
            State::Waiting { until } => Some((until, "reconnect")),
            State::Connecting { deadline, .. } => Some((deadline, "connect timeout")),
            State::Asking { deadline, .. } => Some((deadline, "proxy timeout")),
            State::Shaking { deadline, .. } => Some((deadline, "handshake timeout")),
        }
    }

    /// `true` if a connection on which bytes could flow was given up.
    pub(crate) fn handle_timeout(&mut self, env: &mut Env<'_>) -> bool {
        match self.state {
            State::Waiting { until } if until <= env.now => self.connect(env),
            State::Connecting { deadline, .. } if deadline <= env.now => {
                self.lost("connect timeout", true, env);
            }
            State::Asking { deadline, .. } if deadline <= env.now => self.lost("proxy timeout", true, env),
            State::Shaking { deadline, .. } if deadline <= env.now => {
                self.lost("handshake timeout", true, env);
                return true;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
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
                dial: Dial::new(Server::Coordinator, addresses, None),
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
        bench.dial = Dial::new(Server::Coordinator, bench.dial.addresses.clone(), Some(Arc::new(proxy)));
        bench.out = Out::default();
        bench.with(Dial::start);
        assert_eq!(bench.dialled(), [3128]);
        bench.dial.writable(space, &mut bench.out);
        assert_eq!(bench.with(Dial::connected), None);
        bench
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
        let open = |dial: &mut Dial, env: &mut Env<'_>| {
            assert_eq!(dial.tunnelled(b"HTTP/1.1 200 Con", env), Ok(None));
            dial.tunnelled(b"nected\r\n\r\nhello", env)
        };
        assert_eq!(bench.with(open), Ok(Some((Duration::from_millis(40), &b"hello"[..]))));
        assert!(!bench.dial.is_asking());
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
        let result = bench.with(|dial, env| dial.tunnelled(answer, env).map(|_| ()));
        assert_eq!(result, Err(proxy::ConnectError::Forbidden));
        bench.with(|dial, env| dial.lost("forbidden", true, env));
        bench.dialled();
        bench.dial.writable(1000, &mut bench.out);
        bench.with(Dial::connected);
        assert!(written(&mut bench).starts_with(b"CONNECT 192.0.2.1:80 "));
    }

    #[test]
    fn a_proxy_that_says_nothing_is_given_up() {
        let mut bench = proxied(1000);
        assert_eq!(bench.step(), Duration::from_secs(5));
        assert!(!bench.dial.is_asking());
    }
}
