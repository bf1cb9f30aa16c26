//! The simulated world: an agenda of what is still to happen, and what it happens to.
//!
//! One entry of the agenda is handled and everything that it causes in the same instant is drained before the next one.
//! One world is one thread.

mod agenda;
mod answer;
mod build;
mod cable;
mod clock;
mod ipv6;
mod log;
mod meddle;
mod net;
mod odd;
mod own;
mod rng;
mod script;
mod site;
mod start;
pub mod turmoil;

pub use agenda::Agenda;
pub use build::BuildError;
pub use clock::{Clock, Epoch};
pub use log::{Captures, Log};
pub use program::nanos;
pub use rng::Seed;

use crate::host::{Effects, Program, TimerKey};
use crate::packet::Packet;
use crate::scenario::Timed;
use cable::Way;
use indexmap::IndexMap;
use net::{Site, Step};
use rustc_hash::FxBuildHasher;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use trace::{Event, Name};

/// What a run is to keep and to check.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Keep the events.
    pub log: bool,
    /// Log every timer of a core with its reason.
    pub timers: bool,
    /// Keep the packets of every interface.
    pub capture: bool,
    /// Look for plaintext of the tunnel in every packet on a wire.
    pub checks: bool,
    /// Let peers find each other directly. Without it no host gets a discovery message onto its wire (one that goes by a relay
    /// is no datagram), so that no direct path is ever validated and all else stays as it is.
    pub direct: bool,
    /// Let peers learn addresses from checks that came from them (RFC 8445 §7.3.1.4).
    pub peer_reflexive: bool,
    /// Let the kernel of this machine translate in place of the models. Such a run is not deterministic where the kernel
    /// draws ports.
    pub kernel_boxes: bool,
    /// How long the coordination server's disk takes for what it must not forget. What is not there when the server loses its
    /// power is lost.
    pub disk: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            log: true,
            timers: true,
            capture: false,
            checks: true,
            direct: true,
            peer_reflexive: true,
            kernel_boxes: false,
            disk: Duration::ZERO,
        }
    }
}

/// Entries a run may process before it is stopped as runaway: the shipped scenarios need less than a hundredth of it.
pub const MAX_EVENTS: u64 = 1_000_000_000;

enum Entry {
    /// A packet goes on.
    Packet(Step),
    /// A core on a host wanted to be called.
    Timer { node: u32, key: TimerKey, at_ns: u64 },
    /// A binding of a router may have expired.
    Expiry { node: u32, at_ns: u64 },
    /// A packet may leave the managed queue of a cable.
    Queue { node: u32, way: Way, at_ns: u64 },
    /// An entry of the scenario's timeline, and how it came by its time.
    Script(u32, script::Occasion),
    /// A host's peer starts, or a stopped program starts again.
    Start { node: u32, slot: u32 },
    /// A rebooting router is back.
    RouterOn(u32),
    /// Is a node done that was asked to end? It is off for a while then.
    Drain { node: u32, off: Duration, until_ns: u64 },
    /// Something that a host or server suffers from may be over.
    Relief(u32),
    /// A cut of the internet may be over.
    Healed,
    /// A slow host has come to a packet.
    Served(u32, Box<Packet>),
}

/// Something to do with a program that runs.
type Job = Box<dyn FnOnce(&mut dyn Program, Instant) + Send>;

/// What runs programs in place of the simulator: then each node is a machine of its own, and what goes from one to another
/// always goes by the agenda, for the carrier to see.
trait Carrier {
    /// A program starts; what is returned stands for it on the host.
    fn carry(&mut self, node: u32, slot: u32, program: Box<dyn Program>) -> Box<dyn Program>;

    /// Has something done with a program while it runs, as its administrator would.
    fn touch(&mut self, node: u32, slot: u32, job: Job);

    /// Whether a program that was asked to end has done so.
    fn is_finished(&self, node: u32, slot: u32) -> bool;

    /// It was killed; returns it as it was then, for one whose records live on.
    fn kill(&mut self, node: u32, slot: u32, now: Instant) -> Option<Box<dyn Program>>;
}

/// A running world.
pub struct World {
    clock: Clock,
    agenda: Agenda<Entry>,
    sites: Vec<Site>,
    by_name: IndexMap<String, u32, FxBuildHasher>,
    /// Who is where on the internet.
    internet: IndexMap<IpAddr, u32, FxBuildHasher>,
    /// Networks on the internet, of routers that do not translate.
    networks: Vec<((IpAddr, u8), u32)>,
    /// One-way delay from region to region, row by row.
    latency_ns: Vec<u64>,
    regions: u32,
    region_names: Vec<Name>,
    starters: Vec<start::Starter>,
    /// Parts of the internet that do not reach each other.
    cuts: Vec<odd::Cut>,
    /// The addresses that routers are given by the timeline, by index of its entry.
    readdressed: IndexMap<usize, IpAddr>,
    timeline: Vec<Timed>,
    until_ns: u64,
    seed: Seed,
    options: Options,
    log: Log,
    captures: Option<Captures>,
    plaintext: memchr::memmem::Finder<'static>,
    violations: u64,
    failure: Option<std::io::Error>,
    packets: u64,
    events: u64,
    steps: VecDeque<Step>,
    /// What programs run in, where that is not the simulator itself.
    carrier: Option<Box<dyn Carrier>>,
    /// Packets in managed queues, by their tickets.
    queued: IndexMap<(u32, Way, u64), Box<Packet>, FxBuildHasher>,
    effects: Effects,
}

/// What a world leaves behind.
pub struct Outcome {
    /// Its events.
    pub records: Vec<trace::Record>,
    /// Its packets, if they were kept.
    pub captures: Option<Captures>,
    /// Packets sent by hosts and servers, and by routers of their own accord.
    pub packets: u64,
    /// Entries of the agenda that were processed.
    pub events: u64,
}

impl World {
    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Packets that hosts have sent so far, and routers of their own accord.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Entries of the agenda that were processed so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The events so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Handles the next entry of the agenda and all that it causes in the same instant. False when the run is over.
    pub fn step(&mut self) -> bool {
        if self.agenda.next_at().is_none_or(|at| at > self.until_ns) || self.events >= MAX_EVENTS {
            return false;
        }
        let Some((at_ns, entry)) = self.agenda.pop() else { return false };
        if !self.clock.advance_to(at_ns) {
            let detail = format!("an entry for {at_ns} ns came up at {} ns", self.clock.now_ns());
            self.violation("event-in-the-past", detail);
        }
        self.handle(entry);
        true
    }

    /// Handles an entry of the agenda whose time has come.
    fn handle(&mut self, entry: Entry) {
        self.events += 1;
        match entry {
            Entry::Packet(step) => self.travel(step),
            Entry::Timer { node, key, at_ns } => {
                if let Some(wakes_ns) = self.sites[node as usize].asleep_until() {
                    // Late: after the waking.
                    self.agenda.push(wakes_ns, Entry::Timer { node, key, at_ns });
                } else if let Some(host) = self.sites[node as usize].body.host() {
                    let mut effects = std::mem::take(&mut self.effects);
                    host.handle_timer(at_ns, key, &self.clock, &mut effects);
                    self.apply(node, effects);
                    self.drain();
                }
            }
            Entry::Expiry { node, at_ns } => self.expire(node, at_ns),
            Entry::Queue { node, way, at_ns } => self.queue_due(node, way, at_ns),
            Entry::Script(index, occasion) => self.act(index as usize, occasion),
            Entry::Start { node, slot } => self.start(node, slot),
            Entry::RouterOn(node) => self.router_on(node),
            Entry::Drain { node, off, until_ns } => self.look_for_end(node, off, until_ns),
            Entry::Relief(node) => self.relieve(node),
            Entry::Healed => self.heal(),
            Entry::Served(node, packet) => self.serve(node, packet),
        }
    }

    /// Runs to the end of the scenario.
    pub fn run(mut self) -> Result<Outcome, std::io::Error> {
        while self.step() {}
        if self.events >= MAX_EVENTS {
            self.violation("runaway", format!("stopped after {MAX_EVENTS} events"));
        }
        for detail in self.troubles() {
            self.violation("kernel-box", detail);
        }
        self.clock.advance_to(self.until_ns);
        self.log.push(self.clock.now_ns(), Event::End { events: self.events });
        if let Some(error) = self.failure {
            return Err(error);
        }
        Ok(Outcome {
            records: self.log.into_records(),
            captures: self.captures,
            packets: self.packets,
            events: self.events,
        })
    }

    /// Runs until a time, for those who look into a world as it goes.
    pub fn run_until(&mut self, time: Duration) {
        let until_ns = nanos(time).min(self.until_ns);
        while self.agenda.next_at().is_some_and(|at| at <= until_ns) && self.step() {}
        self.clock.advance_to(until_ns);
    }

    /// What went wrong with boxes that are no models.
    fn troubles(&self) -> Vec<String> {
        let trouble = |site: &net::Site| match &site.body {
            net::Inner::Router(router) => {
                router.nat.as_ref()?.trouble().map(|what| format!("{}: {what}", site.name))
            }
            net::Inner::Host(_) | net::Inner::Outlet(_) => None,
        };
        self.sites.iter().filter_map(trouble).collect()
    }

    fn violation(&mut self, invariant: &'static str, detail: String) {
        self.violations += 1;
        tracing::error!(invariant, detail, "invariant violated");
        self.log.push(self.clock.now_ns(), Event::Violation { invariant: invariant.into(), detail });
    }
}
