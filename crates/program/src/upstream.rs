//! A connection that a server keeps to another server: by several addresses, with back-off, inside TLS where that speaks it.

use crate::{ConnId, Input, Output};
use bytes::{Bytes, BytesMut};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tls::Tls;

/// A connection that is not open after this, or not secured that long after it opened, is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait once no address has worked; it doubles with each time, up to the other. The second half of each wait is
/// drawn, so that those whom one failure hit do not come back in one burst.
pub(crate) const RETRY_MIN: Duration = Duration::from_secs(1);
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(32);

/// Another server, to which a program keeps a connection.
#[derive(Debug)]
pub struct Upstream {
    /// Where it is; tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// Which of its ports speak TLS, and by what it is known there. Without, none do.
    pub tls: Option<peer::ServerTls>,
    /// What time it is, for its certificate.
    pub clock: tls::Clock,
    /// For the keys of connections, and for how long to wait between two.
    pub rng: ChaCha12Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down { until: Instant },
    Connecting { conn: ConnId, until: Instant },
    Securing { conn: ConnId, until: Instant },
    Up { conn: ConnId },
    Stopped,
}

/// What an input meant for whoever speaks through the connection, in this order.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Bytes can flow from now on.
    pub(crate) opened: bool,
    /// Bytes of the server.
    pub(crate) data: Bytes,
    /// There is no connection any more, or none came about: why.
    pub(crate) lost: Option<String>,
}

/// The connection.
pub(crate) struct Dialer {
    to: Upstream,
    state: State,
    /// The address in use.
    at: usize,
    /// Addresses that failed one after the other.
    failed: usize,
    /// How often all of them did.
    rounds: u32,
    /// No attempt before.
    not_before: Option<Instant>,
    /// No attempt any more.
    last: bool,
    tls: Option<Tls>,
    credit: usize,
    out: VecDeque<Output>,
}

impl Dialer {
    pub(crate) fn new(to: Upstream, now: Instant) -> Dialer {
        Dialer {
            state: if to.addresses.is_empty() { State::Stopped } else { State::Down { until: now } },
            to,
            at: 0,
            failed: 0,
            rounds: 0,
            not_before: None,
            last: false,
            tls: None,
            credit: 0,
            out: VecDeque::new(),
        }
    }

    /// Whether a connection is this one.
    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.conn() == Some(conn)
    }

    fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Connecting { conn, .. } | State::Securing { conn, .. } | State::Up { conn } => Some(conn),
            State::Down { .. } | State::Stopped => None,
        }
    }

    /// Something happened on the connection.
    pub(crate) fn handle(&mut self, input: &Input<'_>, now: Instant) -> Told {
        match *input {
            Input::Connected { conn } => self.connected(conn, now),
            Input::Writable { space, .. } => {
                self.credit = space;
                self.write_wire();
                Told::default()
            }
            Input::Stream { data, .. } => self.receive(data, now),
            Input::Closed { .. } => match self.state {
                State::Connecting { .. } => self.lost("no connection: refused, or no way there", now),
                _ => self.lost("closed by the other side", now),
            },
            _ => Told::default(),
        }
    }

    fn connected(&mut self, conn: ConnId, now: Instant) -> Told {
        let port = self.to.addresses.get(self.at).map(SocketAddr::port);
        let secure = |tls: &&peer::ServerTls| port.is_some_and(|port| tls.ports.contains(&port));
        let Some(with) = self.to.tls.as_ref().filter(secure) else {
            self.state = State::Up { conn };
            return Told { opened: true, ..Told::default() };
        };
        let mut seed = [0; 32];
        self.to.rng.fill_bytes(&mut seed);
        match Tls::client(&with.trust, &with.name, ChaCha12Rng::from_seed(seed), self.to.clock, now) {
            Ok(tls) => {
                self.tls = Some(tls);
                self.state = State::Securing { conn, until: now + CONNECT_WITHIN };
                self.write_wire();
                Told::default()
            }
            Err(error) => self.hang_up(&error.to_string(), now),
        }
    }

    fn receive(&mut self, data: &Bytes, now: Instant) -> Told {
        let Some(tls) = &mut self.tls else { return Told { data: data.clone(), ..Told::default() } };
        let fed = tls.feed_wire(data, now);
        let mut told = Told::default();
        if let State::Securing { conn, .. } = self.state
            && !tls.is_handshaking()
        {
            self.state = State::Up { conn };
            told.opened = true;
        }
        let mut plain = BytesMut::new();
        while let Some(more) = tls.poll_plain() {
            plain.extend_from_slice(&more);
        }
        told.data = plain.freeze();
        let over = match fed {
            Err(error) => Some(error.to_string()),
            Ok(()) => tls.peer_closed().then(|| "closed by the other side".to_owned()),
        };
        self.write_wire();
        if let Some(why) = over {
            told.lost = self.hang_up(&why, now).lost;
        }
        told
    }

    /// Connects when it is time, with the next number for a connection, and gives up what takes too long.
    pub(crate) fn handle_timeout(&mut self, next: &mut u64, now: Instant) -> Told {
        match self.state {
            State::Down { until } if until <= now => self.connect(next, now),
            State::Connecting { until, .. } if until <= now => return self.hang_up("connect timeout", now),
            State::Securing { until, .. } if until <= now => return self.hang_up("TLS timeout", now),
            _ => {}
        }
        Told::default()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match self.state {
            State::Down { until } => Some((until, "upstream retry")),
            State::Connecting { until, .. } => Some((until, "upstream connect")),
            State::Securing { until, .. } => Some((until, "upstream TLS")),
            State::Up { .. } | State::Stopped => None,
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn connect(&mut self, next: &mut u64, now: Instant) {
        let Some(&to) = self.to.addresses.get(self.at) else { return };
        let conn = ConnId(*next);
        *next += 1;
        (self.credit, self.tls, self.not_before) = (0, None, None);
        self.state = State::Connecting { conn, until: now + CONNECT_WITHIN };
        self.out.push_back(Output::Connect { conn, to });
    }

    /// The connection is of no use: it is closed, and tried anew in time.
    pub(crate) fn hang_up(&mut self, why: &str, now: Instant) -> Told {
        let Some(conn) = self.conn() else { return Told::default() };
        if let Some(tls) = &mut self.tls {
            tls.close();
        }
        self.write_wire();
        self.out.push_back(Output::Close { conn });
        self.lost(why, now)
    }

    fn lost(&mut self, why: &str, now: Instant) -> Told {
        self.tls = None;
        let was_up = matches!(self.state, State::Up { .. });
        if !was_up {
            self.at = (self.at + 1) % self.to.addresses.len().max(1);
            self.failed += 1;
        }
        let until = if !was_up && self.failed < self.to.addresses.len() {
            now
        } else {
            let wait = RETRY_MIN.saturating_mul(1 << self.rounds.min(16)).min(RETRY_MAX);
            self.failed = 0;
            self.rounds += 1;
            now + self.to.rng.random_range(wait / 2..=wait)
        };
        let until = self.not_before.map_or(until, |at| at.max(until));
        self.state = if self.last { State::Stopped } else { State::Down { until } };
        Told { lost: Some(why.to_owned()), ..Told::default() }
    }

    /// The server does what it is there for: the next attempts begin with the short wait again.
    pub(crate) fn works(&mut self) {
        (self.rounds, self.failed) = (0, 0);
    }

    /// The server asks not to be connected to before that, once this connection is gone.
    pub(crate) fn hold_off(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// What there is stays; nothing is tried any more.
    pub(crate) fn let_end(&mut self) {
        self.last = true;
        if self.conn().is_none() {
            self.state = State::Stopped;
        }
    }

    /// Writes what TLS has for the wire, as far as the credit goes.
    fn write_wire(&mut self) {
        let (Some(conn), Some(tls)) = (self.conn(), &mut self.tls) else { return };
        while let Some(data) = tls.poll_wire(self.credit) {
            self.credit -= data.len();
            self.out.push_back(Output::Write { conn, data });
        }
    }

    /// Writes what `pull` gives, as far as the credit goes.
    pub(crate) fn write(&mut self, mut pull: impl FnMut(usize) -> Option<Bytes>) {
        let State::Up { conn } = self.state else { return };
        while self.tls.is_some() {
            // What waits first, so that what is pulled fits.
            self.write_wire();
            let room = tls::room(self.credit).min(tls::MAX_UNSENT / 2);
            let Some(data) = (room > 0).then(|| pull(room)).flatten() else { return };
            if let Some(tls) = &mut self.tls {
                tls.write_plain(&data);
            }
        }
        while let Some(data) = (self.credit > 0).then(|| pull(self.credit)).flatten() {
            self.credit = self.credit.saturating_sub(data.len());
            self.out.push_back(Output::Write { conn, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn dialer(addresses: u8) -> (Dialer, Instant) {
        let now = Instant::now();
        let to = Upstream {
            addresses: (1..=addresses).map(|n| ([192, 0, 2, n], 443).into()).collect(),
            tls: None,
            clock: tls::Clock::new(Duration::ZERO, now),
            rng: ChaCha12Rng::seed_from_u64(1),
        };
        (Dialer::new(to, now), now)
    }

    /// When it connects and where, if every attempt is refused at once.
    fn attempts(dialer: &mut Dialer, now: Instant, count: usize) -> Vec<(Duration, u8)> {
        let (mut next, mut tried) = (0, Vec::new());
        while tried.len() < count {
            let (at, _) = dialer.poll_timeout().expect("it tries on");
            dialer.handle_timeout(&mut next, at);
            while let Some(output) = dialer.poll_output() {
                let Output::Connect { conn, to } = output else { panic!("{output:?}") };
                assert!(dialer.owns(conn));
                let SocketAddr::V4(to) = to else { panic!("{to}") };
                tried.push((at - now, to.ip().octets()[3]));
                dialer.handle(&Input::Closed { conn }, at);
            }
        }
        tried
    }

    #[test]
    fn all_addresses_are_tried_and_then_waited_for_ever_longer() {
        let (mut dialer, now) = dialer(2);
        let tried = attempts(&mut dialer, now, 30);
        assert_eq!(tried[..2], [(Duration::ZERO, 1), (Duration::ZERO, 2)]);
        let waits: Vec<Duration> = tried.chunks(2).map(|pair| pair[0].0).collect();
        for (n, pair) in waits.windows(2).enumerate() {
            let most = RETRY_MIN.saturating_mul(1 << n.min(10)).min(RETRY_MAX);
            let wait = pair[1] - pair[0];
            assert!(wait >= most / 2 && wait <= most, "wait {n} is {wait:?}");
        }
    }

    #[test]
    fn a_connection_that_neither_opens_nor_fails_is_given_up() {
        let (mut dialer, now) = dialer(1);
        dialer.handle_timeout(&mut 0, now);
        assert!(matches!(dialer.poll_output(), Some(Output::Connect { .. })));
        let told = dialer.handle_timeout(&mut 1, now + CONNECT_WITHIN);
        assert_eq!(told.lost.as_deref(), Some("connect timeout"));
        assert!(matches!(dialer.poll_output(), Some(Output::Close { conn: ConnId(0) })));
    }

    #[test]
    fn a_server_that_restarts_is_waited_for_as_long_as_it_asked() {
        let (mut dialer, now) = dialer(1);
        dialer.handle_timeout(&mut 0, now);
        let conn = ConnId(0);
        assert!(dialer.handle(&Input::Connected { conn }, now).opened);
        dialer.hold_off(now + 20 * SECOND);
        dialer.handle(&Input::Closed { conn }, now);
        assert_eq!(dialer.poll_timeout(), Some((now + 20 * SECOND, "upstream retry")));
    }

    #[test]
    fn after_the_end_was_announced_nothing_is_tried() {
        let (mut dialer, _) = dialer(1);
        dialer.let_end();
        assert_eq!(dialer.poll_timeout(), None);
    }
}
