//! One TCP connection that is wanted, through several addresses and with back-off.
//!
//! ```text
//!  idle ──start──▶ connecting ──▶ (asking) ──▶ (securing) ──▶ shaking ──ready──▶ up
//!                   ▲   │ failed     │ failed     │ failed      │ failed        │ lost
//!                   │   ▼            ▼            ▼             ▼               ▼
//!                   └─ next address; after the last, and after `up`: waiting
//! ```
//! With a proxy every connection goes to it first, and *asking* it for a tunnel to the address comes before all else. On a port
//! that speaks TLS, *securing* the connection comes before the handshake.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use proxy::Connect;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use tls::Tls;

use crate::config::{Proxy, ServerTls};
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
    Securing { conn: ConnId, deadline: Instant },
    Shaking { conn: ConnId, deadline: Instant },
    Up { conn: ConnId, since: Instant },
}

/// How a server's connections are secured, and what time it is for its certificate.
#[derive(Debug, Clone)]
pub(crate) struct Security {
    pub(crate) tls: ServerTls,
    pub(crate) clock: tls::Clock,
}

/// The server's bytes among those that came in.
#[derive(Debug)]
pub(crate) enum Data<'d> {
    AsCame(&'d [u8]),
    Decrypted(Bytes),
}

impl Deref for Data<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Data::AsCame(bytes) => bytes,
            Data::Decrypted(bytes) => bytes,
        }
    }
}

/// What came of bytes off the wire.
#[derive(Debug)]
pub(crate) struct Received<'d> {
    /// Bytes flow from now on; it took that long to get a connection.
    pub(crate) opened: Option<Duration>,
    pub(crate) data: Data<'d>,
}

impl<'d> Received<'d> {
    const NOTHING: Received<'static> = Received { opened: None, data: Data::AsCame(&[]) };
}

/// A server is away for a moment: until when it is tried again and again, so far apart, where it was.
#[derive(Debug, Clone, Copy)]
struct Back {
    until: Instant,
    every: Duration,
}

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Dial {
    server: Server,
    proxy: Option<Arc<Proxy>>,
    security: Option<Security>,
    /// The filter of the connection, on a port that speaks TLS.
    tls: Option<Tls>,
    /// How long it took until there was a connection to the server.
    took: Duration,
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
    /// The server asked not to be connected to before.
    not_before: Option<Instant>,
    /// The server announced that it will be back.
    back: Option<Back>,
    credit: usize,
}

impl Dial {
    pub(crate) fn new(
        server: Server,
        addresses: Vec<SocketAddr>,
        proxy: Option<Arc<Proxy>>,
        security: Option<Security>,
    ) -> Dial {
        Dial {
            server,
            proxy,
            security,
            tls: None,
            took: Duration::ZERO,
            tunnel: None,
            addresses,
            at: 0,
            failed: 0,
            failures: 0,
            state: State::Idle,
            began: None,
            not_before: None,
            back: None,
            credit: 0,
        }
    }

    /// The connection, in whatever state.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Connecting { conn, .. }
            | State::Asking { conn, .. }
            | State::Securing { conn, .. }
            | State::Shaking { conn, .. }
            | State::Up { conn, .. } => Some(conn),
            State::Idle | State::Waiting { .. } => None,
        }
    }

    /// The address in use, or to be tried next.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.addresses.get(self.at).copied()
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

    /// Addresses that failed one after the other, until all have.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// It takes another's place, which had failed that often.
    pub(crate) fn fail(&mut self, failures: u32) {
        self.failures = failures;
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
            if let Some(tls) = &mut self.tls {
                tls.close();
                self.write_wire(conn, env.out);
            }
            env.out.transmits.push_back(Transmit::Close(conn));
            self.report(ServerState::Closed, reason, env);
        }
        self.tls = None;
        self.state = State::Idle;
        self.failures = 0;
        self.failed = 0;
        self.back = None;
        streaming
    }

    /// The TCP connection is open. How long it took, if bytes flow from now on: if there is no proxy to be asked and nothing
    /// to be secured first.
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
        self.reached(conn, env)
    }

    /// The server is at the other end.
    fn reached(&mut self, conn: ConnId, env: &mut Env<'_>) -> Option<Duration> {
        self.took = env.now.saturating_duration_since(self.began.unwrap_or(env.now));
        let deadline = env.now + env.policy.handshake_timeout;
        let Some(security) = self.security.as_ref().filter(|_| self.is_secure()) else {
            self.state = State::Shaking { conn, deadline };
            return Some(self.took);
        };
        let mut seed = [0; 32];
        env.rng.fill_bytes(&mut seed);
        let (tls, rng) = (&security.tls, ChaCha12Rng::from_seed(seed));
        match Tls::client(&tls.trust, &tls.name, rng, security.clock, env.now) {
            Ok(tls) => {
                self.tls = Some(tls);
                self.state = State::Securing { conn, deadline };
                self.write_wire(conn, env.out);
            }
            Err(error) => self.lost(&error.to_string(), true, env),
        }
        None
    }

    /// Whether the port in use speaks TLS.
    pub(crate) fn is_secure(&self) -> bool {
        let port = self.addresses.get(self.at).map(SocketAddr::port);
        self.security
            .as_ref()
            .is_some_and(|security| port.is_some_and(|port| security.tls.ports.contains(&port)))
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

    /// Writes what TLS has for the wire, as far as the credit goes.
    fn write_wire(&mut self, conn: ConnId, out: &mut Out) {
        let Some(tls) = &mut self.tls else { return };
        while let Some(data) = tls.poll_wire(self.credit) {
            self.credit -= data.len();
            out.transmits.push_back(Transmit::Write { conn, data });
        }
    }

    /// Bytes came. An error is one of [`lost`](Self::lost)'s reasons.
    pub(crate) fn receive<'d>(&mut self, data: &'d [u8], env: &mut Env<'_>) -> Result<Received<'d>, String> {
        let Some(conn) = self.conn() else { return Ok(Received::NOTHING) };
        let (mut data, mut opened) = (data, None);
        if let (State::Asking { .. }, Some((connect, _))) = (self.state, &mut self.tunnel) {
            match connect.handle(data).map_err(|error| error.to_string())? {
                None => return Ok(Received::NOTHING),
                Some(used) => {
                    self.tunnel = None;
                    data = data.get(used..).unwrap_or_default();
                    opened = self.reached(conn, env);
                }
            }
        }
        let Some(tls) = &mut self.tls else {
            return Ok(Received { opened, data: Data::AsCame(data) });
        };
        let fed = tls.feed_wire(data, env.now);
        if let State::Securing { .. } = self.state
            && !tls.is_handshaking()
        {
            self.state = State::Shaking { conn, deadline: env.now + env.policy.handshake_timeout };
            opened = Some(self.took);
        }
        let first = tls.poll_plain().unwrap_or_default();
        let data = match tls.poll_plain() {
            None => first,
            Some(second) => {
                let mut all = BytesMut::from(first);
                all.extend_from_slice(&second);
                while let Some(more) = tls.poll_plain() {
                    all.extend_from_slice(&more);
                }
                all.freeze()
            }
        };
        // Whoever asked first writes its own bytes together with those that end the TLS handshake; an alert goes at once.
        if opened.is_none() {
            self.write_wire(conn, env.out);
        }
        fed.map_err(|error| error.to_string())?;
        Ok(Received { opened, data: Data::Decrypted(data) })
    }

    /// The handshake is done.
    pub(crate) fn ready(&mut self, env: &mut Env<'_>) {
        if let State::Shaking { conn, .. } = self.state {
            self.state = State::Up { conn, since: env.now };
            self.failed = 0;
            self.back = None;
            self.report(ServerState::Connected, "", env);
        }
    }

    /// Why a connection is gone that its other side, or the way there, has ended.
    pub(crate) fn closed_because(&self) -> &'static str {
        match self.state {
            State::Connecting { .. } => "no connection: refused, or no way there",
            _ => "closed by the other side",
        }
    }

    /// The connection is gone, or of no use. `close`: it is still to be closed on our side.
    pub(crate) fn lost(&mut self, reason: &str, close: bool, env: &mut Env<'_>) {
        let Some(conn) = self.conn() else { return };
        self.tls = None;
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
        if self.is_expected(env.now) {
            return self.wait(env);
        }
        self.at = (self.at + 1) % self.addresses.len().max(1);
        self.failed += 1;
        if self.failed < self.addresses.iter().filter(|to| self.is_reached(**to, env.out.reach)).count() {
            self.connect(env);
        } else {
            self.failures = self.failures.max(1);
            self.wait(env);
        }
    }

    /// The server asks not to be connected to before `at`, once this connection is gone, and is expected back then: until
    /// `until` it is tried again after about `every`, whatever comes of it, and none of that counts as its failure.
    pub(crate) fn hold_off(&mut self, at: Instant, until: Instant, every: Duration) {
        self.not_before = Some(at);
        self.back = Some(Back { until, every });
    }

    fn is_expected(&self, now: Instant) -> bool {
        self.back.is_some_and(|back| now < back.until)
    }

    /// Starts over at once, for instance because the machine is in another network.
    pub(crate) fn restart(&mut self, reason: &str, env: &mut Env<'_>) {
        if !self.is_idle() {
            let back = self.back;
            self.stop(reason, env);
            self.back = back;
            self.connect(env);
        }
    }

    fn wait(&mut self, env: &mut Env<'_>) {
        let policy = env.policy;
        let expected = self.back.filter(|back| env.now < back.until);
        let (low, high) = match (self.failures.checked_sub(1), expected) {
            (_, Some(Back { every, .. })) => (every / 2, every),
            (None, None) => (Duration::ZERO, policy.fast_retry),
            (Some(n), None) => {
                let wait = policy.retry_min.saturating_mul(1 << n.min(16)).min(policy.retry_max);
                (wait / 2, wait)
            }
        };
        self.failed = 0;
        self.failures = if expected.is_some() { 0 } else { self.failures + 1 };
        let until = env.now + env.rng.random_range(low..=high);
        self.state = State::Waiting { until: self.not_before.take().map_or(until, |at| at.max(until)) };
    }

    /// Connects to the next address that can be reached from here. Without one it waits for another network.
    fn connect(&mut self, env: &mut Env<'_>) {
        self.state = State::Idle;
        let count = self.addresses.len();
        let mut from_here = (0..count).map(|i| (self.at + i) % count);
        let reach = env.out.reach;
        let Some(at) = from_here.find(|at| self.is_reached(self.addresses[*at], reach)) else { return };
        let to = self.proxy.as_ref().map_or(self.addresses[at], |proxy| proxy.address);
        self.at = at;
        let conn = env.out.conn();
        self.state = State::Connecting { conn, deadline: env.now + env.policy.connect_timeout };
        self.began = Some(env.now);
        self.not_before = None;
        self.credit = 0;
        self.tunnel = None;
        self.tls = None;
        self.report(ServerState::Connecting, "", env);
        env.out.transmits.push_back(Transmit::Connect { conn, to: reach.on_wire(to) });
    }

    /// Whether a connection to that address can come about from here. A proxy has addresses of its own, of any IP version.
    fn is_reached(&self, to: SocketAddr, reach: Reach) -> bool {
        reach.reaches(self.proxy.as_ref().map_or(to, |proxy| proxy.address))
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
        if let State::Securing { conn, .. } = self.state {
            self.write_wire(conn, out);
        }
    }

    /// Writes what `pull` gives, as far as the credit goes.
    pub(crate) fn write(&mut self, mut pull: impl FnMut(usize) -> Option<Bytes>, out: &mut Out) {
        let (State::Shaking { conn, .. } | State::Up { conn, .. }) = self.state else { return };
        while self.tls.is_some() {
            // What waits first, so that what is pulled fits.
            self.write_wire(conn, out);
            let room = tls::room(self.credit).min(tls::MAX_UNSENT / 2);
            let Some(data) = (room > 0).then(|| pull(room)).flatten() else { return };
            if let Some(tls) = &mut self.tls {
                tls.write_plain(&data);
            }
        }
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
            State::Securing { deadline, .. } => Some((deadline, "TLS timeout")),
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
            State::Securing { deadline, .. } if deadline <= env.now => self.lost("TLS timeout", true, env),
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
mod tests;
