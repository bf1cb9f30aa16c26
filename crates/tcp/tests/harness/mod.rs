//! Two hosts and a cable between them, in virtual time: just enough to try a TCP on. Not the simulator's link.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test and example uses its part of this")]

pub mod torture;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};
use tcp::{Config, Connection, Event, Segment, State};

pub const MS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "virtual time needs some instant to count from")]
pub fn start() -> Instant {
    Instant::now()
}

/// One direction of the cable.
#[derive(Debug, Clone, Copy)]
pub struct Cable {
    pub delay: Duration,
    /// Added delay, uniform from zero: more than a packet's time reorders.
    pub jitter: Duration,
    /// Bits per second; 0 for no limit.
    pub rate_bps: u64,
    pub queue_bytes: usize,
    /// Lost, of a million.
    pub loss_ppm: u32,
    /// Delivered twice, of a million.
    pub duplicate_ppm: u32,
}

impl Cable {
    pub fn clean(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            rate_bps: 0,
            queue_bytes: usize::MAX,
            loss_ppm: 0,
            duplicate_ppm: 0,
        }
    }
}

/// What a host's program does with its connection.
#[derive(Debug, Clone)]
pub struct Program {
    /// Bytes to send, then close.
    pub send: usize,
    /// How much is written in one call.
    pub write: usize,
    /// Reads this much each `read_every`; all at once if zero.
    pub read_every: Duration,
    pub read: usize,
    /// Does not close before the peer has.
    pub close_last: bool,
}

impl Program {
    pub fn sender(bytes: usize) -> Self {
        Self { send: bytes, write: 64 << 10, read_every: Duration::ZERO, read: 0, close_last: false }
    }
}

pub struct Host {
    pub connection: Option<Connection>,
    pub config: Config,
    pub program: Program,
    pub events: Vec<(Duration, Event)>,
    pub sent: usize,
    pub received: usize,
    pub finished: Option<Duration>,
    pub last_data: Duration,
    reading_at: Option<Instant>,
    timer: Option<Instant>,
    cable: Cable,
    busy_until: Instant,
}

enum What {
    Arrive(usize, Segment),
    Wake(usize),
    Read(usize),
}

struct Entry(Instant, u64, What);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Host, number among its own, segment.
pub type DropIf = Box<dyn FnMut(usize, u64, &Segment) -> bool>;

pub struct World {
    pub hosts: [Host; 2],
    pub begin: Instant,
    pub now: Instant,
    pub segments: u64,
    /// Every segment sent, if asked for.
    pub trace: Option<Vec<(Duration, usize, Segment)>>,
    /// Drops the segments for which it returns true, before anything else does.
    pub drop_if: Option<DropIf>,
    sent_by: [u64; 2],
    agenda: BinaryHeap<Reverse<Entry>>,
    order: u64,
    rng: Pcg64Mcg,
    pattern: Bytes,
}

/// A prime, so that a misplaced segment never looks right.
const PATTERN: usize = 65_521;

impl World {
    pub fn new(
        seed: u64,
        configs: [Config; 2],
        programs: [Program; 2],
        cables: [Cable; 2],
        both_connect: bool,
    ) -> Self {
        let begin = start();
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let pattern: Vec<u8> = (0..PATTERN).map(|_| rng.random()).collect();
        let [config_a, config_b] = configs;
        let [program_a, program_b] = programs;
        let [cable_a, cable_b] = cables;
        let mut host = |config: Config, program, cable, connects: bool| Host {
            connection: connects.then(|| Connection::connect(config.clone(), rng.random(), begin)),
            config,
            program,
            events: Vec::new(),
            sent: 0,
            received: 0,
            finished: None,
            last_data: Duration::ZERO,
            reading_at: None,
            timer: None,
            cable,
            busy_until: begin,
        };
        let hosts =
            [host(config_a, program_a, cable_a, true), host(config_b, program_b, cable_b, both_connect)];
        Self {
            hosts,
            begin,
            now: begin,
            segments: 0,
            trace: None,
            drop_if: None,
            sent_by: [0; 2],
            agenda: BinaryHeap::new(),
            order: 0,
            rng,
            pattern: pattern.into(),
        }
    }

    fn at(&mut self, when: Instant, what: What) {
        self.order += 1;
        self.agenda.push(Reverse(Entry(when, self.order, what)));
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.begin
    }

    /// Runs until both connections are over or `limit` has passed. Returns why it stopped if they are not.
    pub fn run(&mut self, limit: Duration) -> Result<(), String> {
        for side in 0..2 {
            self.serve(side)?;
        }
        while !self.hosts.iter().all(Host::over) {
            let Some(Reverse(Entry(when, _, what))) = self.agenda.pop() else {
                return Err(format!("stuck at {:?}: {}", self.elapsed(), self.describe()));
            };
            if when - self.begin > limit {
                return Err(format!("not done after {limit:?}: {}", self.describe()));
            }
            self.now = when;
            let side = match what {
                What::Arrive(side, segment) => {
                    self.arrive(side, &segment);
                    side
                }
                What::Wake(side) => {
                    if self.hosts[side].timer != Some(when) {
                        continue;
                    }
                    self.hosts[side].timer = None;
                    if let Some(connection) = &mut self.hosts[side].connection {
                        connection.handle_timeout(when);
                    }
                    side
                }
                What::Read(side) => {
                    self.hosts[side].reading_at = None;
                    self.read(side)?;
                    side
                }
            };
            self.serve(side)?;
        }
        Ok(())
    }

    fn describe(&self) -> String {
        self.hosts
            .iter()
            .map(|host| {
                format!(
                    "[sent {} of {}, received {}, {:?}, {:?}, {:?}] ",
                    host.sent,
                    host.program.send,
                    host.received,
                    host.connection.as_ref().map(Connection::stats),
                    host.connection.as_ref().and_then(|connection| connection.poll_timeout().map(|it| it.1)),
                    host.events,
                )
            })
            .collect()
    }

    fn arrive(&mut self, side: usize, segment: &Segment) {
        let host = &mut self.hosts[side];
        match &mut host.connection {
            Some(connection) if !connection.is_closed() => connection.handle(segment, self.now),
            None if segment.flags.syn() && !segment.flags.ack() => {
                let iss = self.rng.random();
                host.connection = Some(Connection::accept(host.config.clone(), iss, segment, self.now));
            }
            _ => {
                if let Some(reset) = Segment::reset_for(segment) {
                    self.transmit(side, &reset);
                }
            }
        }
    }

    /// Lets a program write and read, and its connection send.
    fn serve(&mut self, side: usize) -> Result<(), String> {
        let now = self.now;
        loop {
            let at = self.elapsed();
            let host = &mut self.hosts[side];
            let Some(connection) = &mut host.connection else { return Ok(()) };
            while let Some(event) = connection.poll_event() {
                if !matches!(event, Event::Readable | Event::Writable) {
                    host.events.push((at, event));
                }
                match event {
                    Event::Reset => return Err(format!("reset at {at:?}: {}", self.describe())),
                    Event::TimedOut => return Err(format!("timed out at {at:?}: {}", self.describe())),
                    _ => {}
                }
                if event == Event::Closed {
                    host.finished.get_or_insert(at);
                }
            }
            while host.sent < host.program.send {
                let position = host.sent % PATTERN;
                let len = host.program.write.min(host.program.send - host.sent).min(PATTERN - position);
                let accepted = connection.write(self.pattern.slice(position..position + len));
                host.sent += accepted;
                if accepted < len {
                    break;
                }
            }
            let peer_closed = host.events.iter().any(|(_, event)| *event == Event::PeerClosed);
            // Closing before the handshake and with nothing to send would mean not to connect at all.
            let connects =
                host.program.send > 0 || host.events.iter().any(|(_, event)| *event == Event::Connected);
            if host.sent == host.program.send && connects && (!host.program.close_last || peer_closed) {
                connection.close();
            }
            if host.program.read_every.is_zero() {
                self.read(side)?;
            } else if host.reading_at.is_none() && connection.readable() > 0 {
                let when = now + host.program.read_every;
                host.reading_at = Some(when);
                self.at(when, What::Read(side));
            }
            let mut sent = false;
            while let Some(segment) =
                self.hosts[side].connection.as_mut().and_then(|it| it.poll_transmit(now))
            {
                self.transmit(side, &segment);
                sent = true;
            }
            if !sent {
                break;
            }
        }
        let host = &mut self.hosts[side];
        let next =
            host.connection.as_ref().and_then(|connection| connection.poll_timeout()).map(|(at, _)| at);
        if let Some(next) = next
            && host.timer != Some(next.max(now))
        {
            let next = next.max(now);
            host.timer = Some(next);
            self.at(next, What::Wake(side));
        } else if next.is_none() {
            host.timer = None;
        }
        Ok(())
    }

    fn read(&mut self, side: usize) -> Result<(), String> {
        let at = self.elapsed();
        let host = &mut self.hosts[side];
        let Some(connection) = &mut host.connection else { return Ok(()) };
        let most = if host.program.read_every.is_zero() { usize::MAX } else { host.program.read.max(1) };
        let mut read = 0;
        while read < most
            && let Some(piece) = connection.read()
        {
            read += piece.len();
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let position = host.received % PATTERN;
                let len = rest.len().min(PATTERN - position);
                if rest[..len] != self.pattern[position..position + len] {
                    return Err(format!("corrupt near byte {}", host.received));
                }
                host.received += len;
                rest = &rest[len..];
            }
            host.last_data = at;
        }
        Ok(())
    }

    fn transmit(&mut self, side: usize, segment: &Segment) {
        self.segments += 1;
        self.sent_by[side] += 1;
        if let Some(trace) = &mut self.trace {
            trace.push((self.now - self.begin, side, segment.clone()));
        }
        if let Some(drop_if) = &mut self.drop_if
            && drop_if(side, self.sent_by[side], segment)
        {
            return;
        }
        let cable = self.hosts[side].cable;
        let bytes = segment.wire_len() + 20;
        if cable.rate_bps > 0 {
            let waiting = self.hosts[side].busy_until.saturating_duration_since(self.now);
            let queued = waiting.as_nanos() * u128::from(cable.rate_bps) / 8_000_000_000;
            if queued + bytes as u128 > cable.queue_bytes as u128 {
                return;
            }
            let time = Duration::from_nanos(bytes as u64 * 8_000_000_000 / cable.rate_bps);
            self.hosts[side].busy_until = self.hosts[side].busy_until.max(self.now) + time;
        }
        let out = self.hosts[side].busy_until.max(self.now);
        if self.rng.random_range(0..1_000_000) < cable.loss_ppm {
            return;
        }
        let copies = 1 + u32::from(self.rng.random_range(0..1_000_000) < cable.duplicate_ppm);
        for _ in 0..copies {
            let jitter = cable.jitter.as_nanos() as u64;
            let jitter = Duration::from_nanos(if jitter > 0 { self.rng.random_range(0..jitter) } else { 0 });
            self.at(out + cable.delay + jitter, What::Arrive(1 - side, segment.clone()));
        }
    }

    /// Everything sent was received.
    pub fn check(&self) -> Result<(), String> {
        for side in 0..2 {
            let (sent, received) = (self.hosts[side].program.send, self.hosts[1 - side].received);
            if sent != received {
                return Err(format!("host {side} sent {sent}, the other received {received}"));
            }
        }
        Ok(())
    }
}

impl Host {
    fn over(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            matches!(connection.state(), State::TimeWait | State::Closed) && connection.readable() == 0
        })
    }

    pub fn saw(&self, event: Event) -> bool {
        self.events.iter().any(|(_, seen)| *seen == event)
    }
}
