//! The host's side: keeps one UDP port mapped at its default gateway, by whatever that speaks.
//!
//! All three protocols are probed at once, PCP and NAT-PMP by questions that change nothing. The first that answers is
//! used, after a moment's grace for a better one; what fails gives way to the next. A mapping is renewed from half of its
//! lifetime on. When the gateway's epoch shows that it has begun anew, the mapping is asked for again.

mod answers;
mod epoch;
mod io;
mod upnp;

pub use io::{ClientConfig, ConnId, Event, Input, Transmit};

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng as _, RngExt as _};
use rand_chacha::ChaCha12Rng;

use crate::pcp::{self, Map, Nonce, Op};
use crate::upnp::ssdp::{Found, Search};
use crate::upnp::{IgdVersion, SSDP};
use crate::{Proto, Protocol, SERVER_PORT, is_public, natpmp};
use epoch::Epoch;
use upnp::{Control, Job, Outcome};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// First wait for NAT-PMP, which then doubles (RFC 6886 §3.1).
const NATPMP_WAIT: Duration = ms(250);
/// Requests of one kind at most (RFC 6886 §3.1: nine). RFC 6887 §8.1.1 has no end; there is none to what one can ask in vain.
const TRIES: u32 = 9;
/// First wait for PCP (RFC 6887 §8.1.1, IRT).
const PCP_WAIT: Duration = ms(3000);
/// Longest wait for PCP (RFC 6887 §8.1.1, MRT).
const PCP_LONGEST: Duration = ms(1_024_000);
/// Between two searches, and how many there are (UPnP Device Architecture 1.1 §1.3.2: more than one, over seconds).
const SEARCH_WAIT: Duration = ms(1000);
const SEARCHES: u32 = 3;
/// What a better protocol still gets once another has answered (`net/portmapper/portmapper.go`: 50 ms).
const GRACE: Duration = ms(50);
/// A mapping must have come about this long after the first request for it; twice what `net/portmapper` allows, so that one
/// repetition of PCP is in it.
const BUDGET: Duration = ms(10_000);
/// What a UPnP gateway gets to take a port back when the client ends, which nobody wants to wait for: gateways answer within
/// some ten milliseconds, and one that does not forgets the port when its lease ends.
const GIVE_BACK_WITHIN: Duration = ms(500);
/// Without a gateway that maps, it is looked for again after this (`net/portmapper`: `trustServiceStillAvailableDuration`).
const LOOK_AGAIN: Duration = ms(600_000);
/// Renewals are no closer than this (RFC 6887 §11.2.1).
const RENEWAL_GAP: Duration = ms(4000);
/// After an announcement of a new epoch clients wait for a time up to this, not to come all at once (RFC 6887 §14.1.3).
const ANNOUNCED_WAIT: u64 = 5000;
/// A permanent UPnP mapping is looked after as often as one of the recommended lifetime.
const PERMANENT: Duration = ms(7_200_000);

/// How far a protocol has been probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Asking,
    Speaks,
    /// It does not, or refuses, or has not answered.
    No,
}

/// Questions by one protocol until it answers.
#[derive(Clone, Copy, Debug)]
struct Probe {
    heard: Heard,
    tries: u32,
    next: Instant,
    wait: Duration,
}

/// A request for the mapping that is under way.
#[derive(Clone, Copy, Debug)]
struct Task {
    protocol: Protocol,
    /// When the request goes out (again).
    next: Option<Instant>,
    wait: Duration,
    tries: u32,
    /// When it has failed.
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    protocol: Protocol,
    external: SocketAddr,
    expires: Instant,
    renew: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Finding out what the gateway speaks. With a time: something answered, and a better protocol may until then.
    Probing(Option<Instant>),
    /// Getting or having a mapping.
    Using,
    /// Nothing helped.
    Waiting(Instant),
    /// Over.
    Shut,
}

/// A client. See the [module](self).
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    rng: ChaCha12Rng,
    nonce: Nonce,
    phase: Phase,
    /// In the order of [`Protocol::ALL`].
    probes: [Probe; 3],
    /// Of PCP and NAT-PMP.
    epochs: [Epoch; 2],
    /// NAT-PMP tells address and port apart.
    public: Option<IpAddr>,
    control: Option<Control>,
    location: Option<(SocketAddr, String)>,
    job: Option<Job>,
    next_conn: u32,
    task: Option<Task>,
    mapping: Option<Mapping>,
    /// External port that was given last, wanted again.
    wanted: u16,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Client {
    /// A client that begins to ask at once: its deadline has come.
    pub fn new(config: ClientConfig, mut rng: ChaCha12Rng, now: Instant) -> Client {
        let mut nonce = Nonce::default();
        rng.fill_bytes(&mut nonce);
        let wanted = config.local.port();
        let probe = Probe { heard: Heard::No, tries: 0, next: now, wait: NATPMP_WAIT };
        let mut client = Client {
            config,
            rng,
            nonce,
            phase: Phase::Probing(None),
            probes: [probe; 3],
            epochs: [Epoch::default(); 2],
            public: None,
            control: None,
            location: None,
            job: None,
            next_conn: 0,
            task: None,
            mapping: None,
            wanted,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        client.begin(now);
        client
    }

    /// What it was made from.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Where the port can be reached from outside, if it can.
    pub fn external(&self) -> Option<SocketAddr> {
        self.mapping.map(|mapping| mapping.external)
    }

    /// Takes an input. Drain [`Client::poll_transmit`] and [`Client::poll_event`] afterwards.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Datagram { from, data } if from.ip() == self.config.gateway => {
                if from.port() == SERVER_PORT {
                    self.answered(data, false, now);
                } else if let Some(found) = Found::decode(data) {
                    self.found(&found, now);
                }
            }
            Input::Announcement { from, data } if from.ip() == self.config.gateway => {
                if from.port() == SERVER_PORT {
                    self.answered(data, true, now);
                } else if let Some(found) = Found::decode_notify(data) {
                    self.notified(&found, now);
                }
            }
            // Anybody in the LAN can send; only the gateway counts.
            Input::Datagram { .. } | Input::Announcement { .. } => {}
            Input::Writable(conn, space) => {
                if let Some(job) = self.job.as_mut().filter(|job| job.conn == conn) {
                    job.writable(space, &mut self.transmits);
                }
            }
            Input::Stream(conn, data) => self.job_input(conn, |job| job.stream(data), now),
            Input::Closed(conn) => self.job_input(conn, Job::closed, now),
        }
    }

    /// Does what is due. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Shut => return self.job_timeout(now),
            Phase::Waiting(until) if until <= now => self.begin(now),
            Phase::Waiting(_) => return,
            Phase::Probing(_) | Phase::Using => {}
        }
        if matches!(self.phase, Phase::Probing(_)) {
            self.probe(now);
            self.choose(now);
        }
        if self.mapping.is_some_and(|mapping| mapping.expires <= now) {
            self.lose("its lease ran out");
            self.begin(now);
            self.probe(now);
        }
        if let Some(mapping) = self.mapping
            && mapping.renew <= now
            && self.task.is_none()
        {
            // Tried until the next renewal is due: half of what then remains.
            let half = mapping.expires.saturating_duration_since(now) / 2;
            let until = now + half.max(RENEWAL_GAP);
            self.start(mapping.protocol, now, until);
        }
        if let Some(task) = self.task {
            if task.until <= now {
                self.failed(task.protocol, "no answer", now);
            } else if task.next.is_some_and(|at| at <= now) {
                self.request(now);
            }
        }
    }

    /// When [`Client::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let job = self.job.as_ref().map(|job| (job.until, "UPnP answer"));
        match self.phase {
            Phase::Shut => return job,
            Phase::Waiting(until) => return Some((until, "look for a gateway")),
            Phase::Probing(_) | Phase::Using => {}
        }
        let mut next: Option<(Instant, &'static str)> = None;
        let mut add = |at: Option<Instant>, why| {
            next = next.into_iter().chain(at.map(|at| (at, why))).min();
        };
        if let Phase::Probing(grace) = self.phase {
            add(grace, "better port mapping protocol");
            for probe in self.probes.iter().filter(|probe| probe.heard == Heard::Asking) {
                add(Some(probe.next), "port mapping probe");
            }
        }
        if let Some(mapping) = self.mapping {
            add(Some(mapping.expires), "port mapping expires");
            add(Some(mapping.renew).filter(|_| self.task.is_none()), "port mapping renewal");
        }
        if let Some(task) = self.task {
            add(task.next, "port mapping request");
            add(Some(task.until), "port mapping gives up");
        }
        next
    }

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives the mapping back and ends. Drain [`Client::poll_transmit`]; a UPnP gateway takes a few more inputs, until the client
    /// [is finished](Client::is_finished): half a second at most.
    pub fn shutdown(&mut self, now: Instant) {
        self.drop_job();
        self.task = None;
        self.phase = Phase::Shut;
        if let Some(mapping) = self.mapping.take() {
            self.delete(mapping.protocol, mapping.external, now);
        }
        if let Some(job) = &mut self.job {
            job.until = now + GIVE_BACK_WITHIN;
        }
    }

    /// Whether nothing is left to do after [`Client::shutdown`].
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Shut && self.job.is_none()
    }

    // ---- probing -----------------------------------------------------------------------------------

    /// Asks everything from the start.
    fn begin(&mut self, now: Instant) {
        let on = [self.config.pcp, self.config.nat_pmp, self.config.upnp];
        for (i, probe) in self.probes.iter_mut().enumerate() {
            let heard = if on[i] { Heard::Asking } else { Heard::No };
            *probe = Probe { heard, tries: 0, next: now, wait: [PCP_WAIT, NATPMP_WAIT, SEARCH_WAIT][i] };
        }
        self.task = None;
        self.drop_job();
        self.phase = Phase::Probing(None);
    }

    fn probe(&mut self, now: Instant) {
        for protocol in Protocol::ALL {
            let probe = self.probes[protocol as usize];
            if probe.heard != Heard::Asking || probe.next > now {
                continue;
            }
            let most = if protocol == Protocol::Upnp { SEARCHES } else { TRIES };
            if probe.tries == most {
                self.probes[protocol as usize].heard = Heard::No;
                continue;
            }
            let wait = self.jitter(protocol, probe.wait);
            let longer = if protocol == Protocol::Upnp { probe.wait } else { probe.wait * 2 };
            let heard = Heard::Asking;
            self.probes[protocol as usize] =
                Probe { heard, tries: probe.tries + 1, next: now + wait, wait: longer.min(PCP_LONGEST) };
            let server = SocketAddr::new(self.config.gateway, SERVER_PORT);
            match protocol {
                Protocol::Pcp => {
                    let data = self.pcp(Op::Announce, 0);
                    self.send(server, data);
                }
                Protocol::NatPmp => self.send(server, natpmp::Request::ExternalAddress.to_vec()),
                Protocol::Upnp => {
                    let search = Search { target: IgdVersion::V1.device(), mx: 1 };
                    self.send(SSDP.into(), search.to_vec());
                }
            }
        }
    }

    /// RFC 6887 §8.1.1: PCP's waits vary by a tenth either way.
    fn jitter(&mut self, protocol: Protocol, wait: Duration) -> Duration {
        if protocol == Protocol::Pcp { wait * self.rng.random_range(900..=1100) / 1000 } else { wait }
    }

    /// Picks a protocol, once it is time to.
    fn choose(&mut self, now: Instant) {
        let Phase::Probing(grace) = self.phase else { return };
        let best = Protocol::ALL.into_iter().find(|p| self.probes[*p as usize].heard == Heard::Speaks);
        let asking = |p: &Protocol| self.probes[*p as usize].heard == Heard::Asking;
        let Some(best) = best else {
            if !Protocol::ALL.iter().any(asking) {
                self.phase = Phase::Waiting(now + LOOK_AGAIN);
                self.events.push_back(Event::NoGateway);
            }
            return;
        };
        let better = Protocol::ALL.iter().take_while(|p| **p != best).any(asking);
        let until = grace.unwrap_or(now + GRACE);
        if better && until > now {
            self.phase = Phase::Probing(Some(until));
            return;
        }
        self.phase = Phase::Using;
        self.start(best, now, now + BUDGET);
        self.request(now);
    }

    fn hear(&mut self, protocol: Protocol, heard: Heard, now: Instant) {
        if matches!(self.phase, Phase::Probing(_)) && self.probes[protocol as usize].heard == Heard::Asking {
            self.probes[protocol as usize].heard = heard;
            self.choose(now);
        }
    }

    fn found(&mut self, found: &Found, now: Instant) {
        let Some((address, path)) = crate::upnp::url(&found.location) else { return };
        if address.ip() != self.config.gateway || !matches!(self.phase, Phase::Probing(_)) {
            return;
        }
        self.location = Some((address, path.to_owned()));
        self.hear(Protocol::Upnp, Heard::Speaks, now);
    }

    /// A UPnP device has started, or says again that it is there. It tells no epoch: the mapping is looked after.
    fn notified(&mut self, found: &Found, now: Instant) {
        let gateway = found.target.starts_with("urn:schemas-upnp-org:device:InternetGatewayDevice:");
        if !self.config.upnp || !gateway {
            return;
        }
        self.announced(self.location.is_none(), now);
        if self.uses(Protocol::Upnp) && self.task.is_none() {
            let wait = ms(self.rng.random_range(0..ANNOUNCED_WAIT));
            self.start(Protocol::Upnp, now + wait, now + wait + BUDGET);
        }
    }

    // ---- requests ----------------------------------------------------------------------------------

    fn start(&mut self, protocol: Protocol, now: Instant, until: Instant) {
        let wait = if protocol == Protocol::Pcp { PCP_WAIT } else { NATPMP_WAIT };
        self.task = Some(Task { protocol, next: Some(now), wait, tries: 0, until });
    }

    /// Sends the request that the task is about, and plans its repetition.
    fn request(&mut self, now: Instant) {
        let Some(mut task) = self.task else { return };
        let server = SocketAddr::new(self.config.gateway, SERVER_PORT);
        let lifetime = u32::try_from(self.config.lifetime.as_secs()).unwrap_or(u32::MAX);
        match task.protocol {
            Protocol::Pcp => {
                let op = Op::Map(self.map(self.wanted));
                let data = self.pcp(op, lifetime);
                self.send(server, data);
            }
            Protocol::NatPmp => {
                // The address may be another one after a restart.
                if self.mapping.is_some() {
                    self.send(server, natpmp::Request::ExternalAddress.to_vec());
                }
                let request = natpmp::Request::Map {
                    proto: Proto::Udp,
                    internal: self.config.local.port(),
                    external: self.wanted,
                    lifetime,
                };
                self.send(server, request.to_vec());
            }
            Protocol::Upnp => {
                task.next = None;
                self.task = Some(task);
                return self.start_job(now);
            }
        }
        task.tries += 1;
        task.next = (task.tries < TRIES).then(|| now + self.jitter(task.protocol, task.wait));
        task.wait = (task.wait * 2).min(PCP_LONGEST);
        self.task = Some(task);
    }

    fn map(&self, port: u16) -> Map {
        let any = pcp::any_like(self.config.local.ip());
        let external = match self.mapping {
            Some(mapping) if port != 0 => SocketAddr::new(mapping.external.ip(), port),
            _ => SocketAddr::new(any.ip(), port),
        };
        let (nonce, internal_port) = (self.nonce, self.config.local.port());
        Map { nonce, protocol: Proto::Udp.number(), internal_port, external }
    }

    fn pcp(&self, op: Op, lifetime: u32) -> Vec<u8> {
        pcp::Request { lifetime, client: self.config.local.ip(), op, options: Vec::new() }.to_vec()
    }

    fn send(&mut self, to: SocketAddr, data: Vec<u8>) {
        self.transmits.push_back(Transmit::Datagram { to, data: data.into() });
    }

    // ---- what comes of it --------------------------------------------------------------------------

    fn mapped(&mut self, protocol: Protocol, external: SocketAddr, lifetime: Duration, now: Instant) {
        self.task = None;
        if !is_public(external.ip()) || external.port() == 0 {
            self.lose("another address was given");
            self.events.push_back(Event::Unusable { protocol, external });
            self.delete(protocol, external, now);
            // The other protocols know no other address.
            self.phase = Phase::Waiting(now + LOOK_AGAIN);
            return;
        }
        self.wanted = external.port();
        // RFC 6887 §11.2.1: the first renewal at a random time between 1/2 and 5/8 of the lifetime.
        let renew = lifetime * self.rng.random_range(4000..=5000) / 8000;
        let renew = now + renew.max(RENEWAL_GAP);
        let before = self.mapping.replace(Mapping { protocol, external, expires: now + lifetime, renew });
        if before.is_none_or(|before| before.external != external) {
            self.events.push_back(Event::Mapped { protocol, external, lifetime });
        }
    }

    fn lose(&mut self, why: &'static str) {
        if let Some(mapping) = self.mapping.take() {
            self.events.push_back(Event::Lost { external: mapping.external, why });
        }
    }

    fn refused(&mut self, protocol: Protocol, why: String, now: Instant) {
        self.events.push_back(Event::Refused { protocol, why });
        self.failed(protocol, "refused", now);
    }

    /// A request came to nothing. A mapping that is still there is renewed later; without one, the next protocol is tried.
    fn failed(&mut self, protocol: Protocol, why: &'static str, now: Instant) {
        self.task = None;
        self.drop_job();
        if let Some(mapping) = &mut self.mapping
            && why != "refused"
        {
            let left = mapping.expires.saturating_duration_since(now);
            mapping.renew = now + (left / 2).max(RENEWAL_GAP);
            return;
        }
        self.lose(why);
        self.probes[protocol as usize].heard = Heard::No;
        self.phase = Phase::Probing(None);
        self.choose(now);
    }

    /// The gateway has begun anew: the mapping is asked for again.
    fn restarted(&mut self, protocol: Protocol, announced: bool, now: Instant) {
        self.events.push_back(Event::Restarted { protocol });
        let wait = if announced { ms(self.rng.random_range(0..ANNOUNCED_WAIT)) } else { Duration::ZERO };
        self.start(protocol, now + wait, now + wait + BUDGET);
        if !announced {
            self.request(now);
        }
    }

    /// A gateway is there. If that is `news`, whoever waits need not any longer; announcements are repeated.
    fn announced(&mut self, news: bool, now: Instant) {
        if news && matches!(self.phase, Phase::Waiting(_)) {
            self.begin(now);
        }
    }

    fn delete(&mut self, protocol: Protocol, external: SocketAddr, now: Instant) {
        let server = SocketAddr::new(self.config.gateway, SERVER_PORT);
        match protocol {
            Protocol::Pcp => {
                let data = self.pcp(Op::Map(self.map(0)), 0);
                self.send(server, data);
            }
            Protocol::NatPmp => {
                let internal = self.config.local.port();
                let request = natpmp::Request::Map { proto: Proto::Udp, internal, external: 0, lifetime: 0 };
                self.send(server, request.to_vec());
            }
            Protocol::Upnp => self.start_delete(external.port(), now),
        }
    }

    fn job_input(&mut self, conn: ConnId, input: impl FnOnce(&mut Job) -> Option<Outcome>, now: Instant) {
        let Some(job) = self.job.as_mut().filter(|job| job.conn == conn) else { return };
        if let Some(outcome) = input(job) {
            self.job_done(outcome, now);
        }
    }
}
