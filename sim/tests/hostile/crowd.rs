//! Many connections to the servers' ports, none of them in earnest.

use crate::{SEED, Scene, assert_passed};
use bytes::Bytes;
use punchbag::host::{ConnId, Input, Output, Program, TLS_PORT};
use rand::Rng as _;
use rand_chacha::ChaCha12Rng;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tls::{ClientConfig, Clock, Identity, Tls};

/// Connections that the attacker holds open or opens, for each port.
const CROWD: usize = 600;
/// Of those it opens so many at each tick.
const RUSH: usize = 20;
const TICK: Duration = Duration::from_millis(100);
/// When the attack ends; what it has left behind must go.
const END: Duration = Duration::from_secs(25);
/// Unix time in the simulator, nearly (2026-01-01): certificates are good for months.
const UNIX: Duration = Duration::from_secs(1_767_225_600);

/// What each connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    /// Random bytes.
    Garbage,
    /// What an honest client says, but not to its end.
    Truncated,
    /// What an honest client says, and then a frame of 4 GiB.
    Oversized,
    /// What an honest client says, and then the end: the server has computed for nothing.
    Handshake,
    /// A byte a second.
    Slow,
}

struct Target {
    at: SocketAddr,
    /// What an honest client says first.
    opening: Bytes,
    tls: Option<ClientConfig>,
}

struct Member {
    target: usize,
    tls: Option<Tls>,
    /// For the wire, not yet written.
    waiting: VecDeque<u8>,
    space: usize,
    since: Option<Instant>,
    ends: bool,
}

struct Crowd {
    conduct: Conduct,
    targets: Vec<Target>,
    members: BTreeMap<ConnId, Member>,
    next: u64,
    rng: ChaCha12Rng,
    tick_at: Option<Instant>,
    end: Option<Instant>,
    ticks: u64,
    /// Bytes that are not the servers' own handshake would be somebody's traffic: how many came in all.
    told: Rc<Tally>,
    out: VecDeque<Output>,
}

#[derive(Debug, Default)]
struct Tally {
    opened: Cell<u64>,
    heard: Cell<usize>,
    /// How long a connection lasted at most, those that nobody has ended yet included: for each target.
    longest: RefCell<BTreeMap<SocketAddr, Duration>>,
}

impl Tally {
    fn lasted(&self, at: SocketAddr, time: Duration) {
        let mut longest = self.longest.borrow_mut();
        let longest = longest.entry(at).or_default();
        *longest = time.max(*longest);
    }
}

impl Crowd {
    fn connect(&mut self, target: usize, now: Instant) {
        let conn = ConnId(self.next);
        self.next += 1;
        self.told.opened.set(self.told.opened.get() + 1);
        let Target { at, tls, .. } = &self.targets[target];
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let rng = <ChaCha12Rng as rand::SeedableRng>::from_seed(seed);
        // Half of those who talk nonsense talk it inside of TLS.
        let inside = self.conduct != Conduct::Garbage || self.next.is_multiple_of(2);
        let tls = tls.as_ref().filter(|_| inside).map(|config| {
            Tls::client(config, &at.ip().to_string(), rng, Clock::new(UNIX, now), now).expect("an address")
        });
        let member = Member { target, tls, waiting: VecDeque::new(), space: 0, since: None, ends: false };
        self.members.insert(conn, member);
        self.out.push_back(Output::Connect { conn, to: *at });
    }

    /// What a member says as soon as it is connected.
    fn speech(&mut self, target: usize) -> Vec<u8> {
        let opening = self.targets[target].opening.to_vec();
        match self.conduct {
            Conduct::Garbage => {
                let mut bytes = vec![0; 1 + self.rng.next_u32() as usize % 3000];
                self.rng.fill_bytes(&mut bytes);
                bytes
            }
            Conduct::Truncated => opening[..opening.len() - 1].to_vec(),
            Conduct::Oversized => [&opening[..], &[4, 0xff, 0xff, 0xff, 0xff], &[0xff; 4000]].concat(),
            Conduct::Handshake => opening,
            Conduct::Slow => [&opening[..20], &[b'a'; 4000]].concat(),
        }
    }

    fn connected(&mut self, conn: ConnId, now: Instant) {
        let Some(target) = self.members.get_mut(&conn).map(|member| {
            member.since = Some(now);
            member.target
        }) else {
            return;
        };
        let mut speech = self.speech(target);
        let ends = self.conduct == Conduct::Handshake;
        let Some(member) = self.members.get_mut(&conn) else { return };
        member.ends = ends;
        match &mut member.tls {
            Some(tls) => {
                // Said as soon as the handshake is done.
                tls.write_plain(&speech);
            }
            None => member.waiting.extend(speech.drain(..)),
        }
        self.flush(conn);
    }

    fn flush(&mut self, conn: ConnId) {
        let slow = self.conduct == Conduct::Slow;
        let Some(member) = self.members.get_mut(&conn) else { return };
        if let Some(tls) = &mut member.tls {
            while let Some(data) = tls.poll_wire(usize::MAX) {
                member.waiting.extend(data);
            }
        }
        let most = if slow { 1 } else { usize::MAX };
        let len = member.waiting.len().min(member.space).min(most);
        if len > 0 {
            member.space -= len;
            let data: Bytes = member.waiting.drain(..len).collect::<Vec<u8>>().into();
            self.out.push_back(Output::Write { conn, data });
        }
        let said = member.waiting.is_empty() && member.tls.as_ref().is_none_or(|tls| !tls.is_handshaking());
        if member.ends && said && member.since.is_some() {
            self.out.push_back(Output::Close { conn });
            self.members.remove(&conn);
        }
    }

    fn tick(&mut self, now: Instant) {
        for member in self.members.values() {
            let lasted = member.since.map_or(Duration::ZERO, |since| now - since);
            self.told.lasted(self.targets[member.target].at, lasted);
        }
        if self.end.is_some_and(|end| now >= end) {
            for conn in std::mem::take(&mut self.members).into_keys() {
                self.out.push_back(Output::Close { conn });
            }
            self.tick_at = None;
            return;
        }
        self.tick_at = Some(now + TICK);
        self.ticks += 1;
        let missing = (CROWD * self.targets.len()).saturating_sub(self.members.len());
        for i in 0..missing.min(RUSH) {
            self.connect((i + self.ticks as usize) % self.targets.len(), now);
        }
        if self.conduct == Conduct::Slow && self.ticks.is_multiple_of(10) {
            let all: Vec<ConnId> = self.members.keys().copied().collect();
            all.into_iter().for_each(|conn| self.flush(conn));
        }
    }
}

impl Program for Crowd {
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Addresses(_) => {
                self.end = Some(now + END);
                self.tick_at = Some(now + TICK);
            }
            Input::Connected { conn } => self.connected(conn, now),
            Input::Writable { conn, space } => {
                if let Some(member) = self.members.get_mut(&conn) {
                    member.space = space;
                }
                if self.conduct != Conduct::Slow {
                    self.flush(conn);
                }
            }
            Input::Stream { conn, data } => {
                let Some(member) = self.members.get_mut(&conn) else { return };
                match &mut member.tls {
                    Some(tls) => {
                        let _ = tls.feed_wire(data, now);
                        let heard: usize =
                            std::iter::from_fn(|| tls.poll_plain()).map(|plain| plain.len()).sum();
                        self.told.heard.set(self.told.heard.get() + heard);
                    }
                    None => self.told.heard.set(self.told.heard.get() + data.len()),
                }
                if self.conduct != Conduct::Slow {
                    self.flush(conn);
                }
            }
            Input::Closed { conn } => {
                if let Some(Member { target, since: Some(since), .. }) = self.members.remove(&conn) {
                    self.told.lasted(self.targets[target].at, now - since);
                    // An honest client would say goodbye as well.
                    self.out.push_back(Output::Close { conn });
                }
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.tick_at.is_some_and(|at| at <= now) {
            self.tick(now);
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some((self.tick_at?, "attack"))
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

/// What an honest client of the relay says first, with everything the server needs of it.
pub(crate) fn to_relay(key: [u8; 32]) -> Bytes {
    let now = start();
    let server_key = derp::PrivateKey::from_bytes(SEED.bytes("relay key 0 of relay")).public();
    let config = derp::ClientConfig {
        server_key: Some(server_key),
        fast_start: true,
        ..derp::ClientConfig::new(derp::PrivateKey::from_bytes(key), "relay")
    };
    let mut client = derp::Client::new(config, SEED.chacha("mallory's relay"), now);
    client.connected(now);
    let parts: Vec<Bytes> = std::iter::from_fn(|| client.poll_transmit(1 << 16)).collect();
    parts.concat().into()
}

/// The same for the coordination server.
fn to_coordinator() -> Bytes {
    let now = start();
    let config =
        crate::identity::machine("mallory", SEED.bytes("mallory's machine"), coord::KeyPair::new([9; 32]));
    let mut client = coord::client::Client::new(config, SEED.chacha("mallory's coordinator"), now);
    client.connected(now);
    let parts: Vec<Bytes> = std::iter::from_fn(|| client.poll_transmit(1 << 16)).collect();
    parts.concat().into()
}

/// A time to begin at, for clients whose first words do not depend on it.
fn start() -> Instant {
    punchbag::world::Clock::new().now()
}

/// How the world makes a server's certificate; who knows the server's pin may connect.
fn pinned(purpose: &str, name: &str, at: SocketAddr) -> ClientConfig {
    let seed = SEED.bytes(&format!("{purpose} TLS key 0 of {name}"));
    let day = Duration::from_secs(86_400);
    let identity = Identity::self_signed(seed, &[&at.ip().to_string()], UNIX - day, UNIX + day);
    ClientConfig::pinned(identity.expect("an address").pin())
}

fn attack(conduct: Conduct) {
    let mut scene = Scene::relayed("");
    let mut targets = Vec::new();
    for port in [TLS_PORT, 80] {
        for (purpose, name, opening) in [
            ("relay", "relay", to_relay(SEED.bytes("mallory"))),
            ("coordinator", "coordinator", to_coordinator()),
        ] {
            let at = scene.at(name, port);
            let tls = (port == TLS_PORT).then(|| pinned(purpose, name, at));
            targets.push(Target { at, opening, tls });
        }
    }
    let told = Rc::new(Tally::default());
    let crowd = Crowd {
        conduct,
        targets,
        members: BTreeMap::new(),
        next: 0,
        rng: SEED.chacha("mallory"),
        tick_at: None,
        end: None,
        ticks: 0,
        told: Rc::clone(&told),
        out: VecDeque::new(),
    };
    scene.world.add_program("mallory", Box::new(crowd)).expect("a host");

    let peak = scene.run_until(END, |_| {});
    scene.run_until(END + Duration::from_secs(12), |_| {});
    let after = scene.open();
    let (verdict, _) = scene.end();

    assert_passed(&verdict);
    assert!(told.opened.get() > 2000, "{told:?}");
    if matches!(conduct, Conduct::Truncated | Conduct::Slow) {
        assert!(peak.relay > 200 && peak.coordinator > 200, "the attack reaches them: {peak:?}");
    }
    // What one source may hold, and the members.
    assert!(peak.relay <= 1024 + 3, "{peak:?}");
    assert!(peak.coordinator <= coord::server::Limits::default().pending_per_source + 3, "{peak:?}");
    assert!(after.relay <= 3 && after.coordinator <= 3, "{after:?} are left");
    // Keys and greetings, and nobody's packets.
    assert!(told.heard.get() as u64 <= 1000 * told.opened.get(), "{told:?}");
    // Who ends his connections himself is not waited for.
    let longest = told.longest.borrow();
    assert!(longest.len() == 4 || conduct == Conduct::Handshake, "{told:?}");
    assert!(longest.values().all(|time| *time <= Duration::from_secs(11)), "{told:?}");
}

#[test]
fn garbage_on_every_port_disturbs_nobody() {
    attack(Conduct::Garbage);
}

#[test]
fn truncated_handshakes_are_given_up_and_disturb_nobody() {
    attack(Conduct::Truncated);
}

#[test]
fn oversized_frames_are_refused_and_disturb_nobody() {
    attack(Conduct::Oversized);
}

#[test]
fn a_flood_of_handshakes_keeps_nobody_out() {
    attack(Conduct::Handshake);
}

#[test]
fn slowloris_on_443_and_80_is_cut_off_and_keeps_nobody_out() {
    attack(Conduct::Slow);
}
