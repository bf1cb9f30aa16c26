//! The second world: every host, server and router of a scenario as a host of [turmoil](https://docs.rs/turmoil), each with a
//! runtime and a clock of its own. Peers, relays, STUN servers, proxies and the coordination server run in the async shell that
//! real machines run, [`daemon::drive()`], on sockets of their own; routers and NATs are the models of the simulator, and a host's
//! TCP is the simulator's. What passes between two machines is an IP packet in a datagram of turmoil.
//!
//! It is there for what the simulator leaves out: tasks, wakers, cancellation, back-pressure, machines that lose power in the
//! middle of something. And it is a second opinion: another scheduler, other timers and another network come to the same
//! paths.
//!
//! # How a scenario maps to it
//! | scenario | here |
//! |---|---|
//! | host, relay, STUN server, proxy, coordination server | a host of turmoil with a shell for each program, on [`SimNet`] |
//! | router | a host of turmoil that runs the simulator's NAT and firewall over tunnelled packets; its own programs (port mapping, a NAT64's resolver) have no shell, as they need the NAT beneath them |
//! | the internet between two regions | a link of turmoil with that delay; cables add theirs at the machines at both ends |
//! | TCP between machines | the simulator's stack, whose segments cross routers as any packet does |
//! | [`Crash`](crate::scenario::Action::Crash) and its end | turmoil's crash and bounce: every task of the machine is dropped where it stands |
//! | [`Cut`](crate::scenario::Action::Cut) | turmoil's partition, which also takes what is under way, and repair |
//! | restart, kill, drain | the shell is dropped, or asked to end, and a new one starts; the machine stays |
//! | reboot, re-address, flush, another NAT or firewall | happens to the models on the router's host |
//! | move, sleep, interfaces, clocks, links | happens to the machine, as in the simulator |
//! | what an administrator does, rotation of keys | goes to the program through its shell ([`daemon::Handle`]) |
//! | nothing | turmoil's hold and release, and any of the above at any time: [`Bench::fault`], [`Bench::now`] |
//!
//! # What is otherwise than in the simulator
//! - Machines have their turn once a [tick](TICK), one after the other in a fixed order; `tokio::time` counts in milliseconds.
//!   What comes due within a tick happens in its order and at its own time, so that roundings do not add up; between machines
//!   the order within a tick is that of their turns.
//! - What it cannot tell apart is refused: see [`fits`].
//!
//! # Code of your own
//! [`Bench::bare`] is the network of a scenario with nothing on it, [`Bench::run_on`] puts async code there, and [`SimNet`] gives it
//! sockets with the methods of tokio's. `examples/echo_behind_nats.rs` runs a plain UDP echo with STUN behind two NATs:
//!
//! ```
//! use punchbag::scenario;
//! use punchbag::topology::Topology;
//! use punchbag::world::turmoil::{Bench, TICK};
//! use punchbag::world::{Options, Seed};
//! use std::cell::Cell;
//! use std::rc::Rc;
//! use std::time::Duration;
//!
//! let text = r#"
//! title = "A client behind a NAT"
//! router.home = { region = "eu-west", nat = "port-restricted-cone" }
//! host.client = { behind = "home" }
//! host.server = { region = "us-east" }
//! "#;
//! let scenario = scenario::parse("echo", "echo.toml", text)?;
//! let topology = Topology::new(&scenario)?;
//! let server = topology.find("server").map(|node| (topology.node(node).address, 7)).ok_or("no server")?;
//!
//! let mut bench = Bench::bare(&scenario, &topology, Seed(1), Options::default(), TICK)?;
//! bench.run_on("server", |net| async move {
//!     let socket = net.bind(7).expect("a free port"); // tokio: UdpSocket::bind("0.0.0.0:7").await
//!     let mut buffer = [0; 512];
//!     while let Ok((len, peer)) = socket.recv_from(&mut buffer).await {
//!         let _ = socket.send_to(&buffer[..len], peer).await;
//!     }
//! })?;
//! let heard = Rc::new(Cell::new(0));
//! let told = Rc::clone(&heard);
//! bench.run_on("client", move |net| {
//!     let told = Rc::clone(&told);
//!     async move {
//!         let socket = net.bind(0).expect("a free port");
//!         socket.send_to(b"hello", server.into()).await.expect("sent");
//!         let (len, _) = socket.recv_from(&mut [0; 512]).await.expect("the host lives");
//!         told.set(len);
//!     }
//! })?;
//! bench.run_until(Duration::from_secs(1))?;
//! assert_eq!(heard.get(), b"hello".len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod carried;
mod direct;
mod fit;
mod sockets;
mod station;
mod tunnel;

pub use direct::{DirectListener, DirectUdp, TurmoilNet};
pub use fit::{Misfit, Problem, fits, judged};
pub use sockets::{SimNet, TcpListener, TcpStream, UdpSocket};

use super::net::Parent;
use super::{Carrier, Entry, Job, Log, Options, Outcome, Seed, World, nanos};
use crate::host::Program;
use crate::scenario::{Action, Scenario};
use crate::topology::Topology;
use crate::world::BuildError;
use ::turmoil::Sim;
use futures_util::FutureExt;
use program::Secured;
use station::{Station, Town};
use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use trace::{Event, Record};

/// Datagrams of turmoil that may wait for one machine: more than any scenario has under way.
const UDP_CAPACITY: usize = 1 << 16;

/// The tick that scenarios are played with: tokio's timers go by it too.
pub const TICK: Duration = Duration::from_millis(1);

/// Why a scenario could not be played in this world.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It asks for what this world has not.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The world could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A machine's software came to an end by itself, or panicked.
    #[error("turmoil: {0}")]
    Turmoil(String),
}

/// What turmoil itself is to do between two ticks; see [`Bench::fault`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between two machines from now on, and what is under way is lost.
    Partition(String, String),
    /// The end of a partition.
    Repair(String, String),
    /// What is sent between two machines waits.
    Hold(String, String),
    /// The end of a hold: everything arrives at once.
    Release(String, String),
}

/// A scenario in this world, as it goes.
pub struct Bench {
    sim: Sim<'static>,
    town: Rc<Town>,
    until_ns: u64,
}

/// Hands programs to the shells of their machines.
struct Shells {
    stations: Vec<Rc<Station>>,
    log_timers: bool,
}

impl Carrier for Shells {
    fn carry(&mut self, node: u32, slot: u32, program: Box<dyn Program>) -> Box<dyn Program> {
        self.stations[node as usize].carry(slot, program, self.log_timers)
    }

    fn touch(&mut self, node: u32, slot: u32, job: Job) {
        self.stations[node as usize].touch(slot, job);
    }

    fn is_finished(&self, node: u32, slot: u32) -> bool {
        self.stations[node as usize].is_finished(slot)
    }

    fn kill(&mut self, node: u32, slot: u32, now: Instant) -> Option<Box<dyn Program>> {
        self.stations[node as usize].kill(slot, now)
    }
}

/// Plays a scenario to its end.
///
/// # Errors
/// If it does not fit into this world, or cannot be built.
pub fn play(
    scenario: &Scenario,
    topology: &Topology,
    seed: Seed,
    options: Options,
) -> Result<Outcome, Error> {
    let mut bench = Bench::new(scenario, topology, seed, options, TICK)?;
    bench.run_until(scenario.until)?;
    Ok(bench.finish())
}

impl Bench {
    /// A scenario with its peers and servers, at its start.
    ///
    /// # Errors
    /// If it does not fit into this world, or cannot be built.
    pub fn new(
        scenario: &Scenario,
        topology: &Topology,
        seed: Seed,
        options: Options,
        tick: Duration,
    ) -> Result<Bench, Error> {
        let notes = fits(scenario, topology)?;
        let world = World::new(scenario, topology, seed, Options { kernel_boxes: false, ..options })?;
        Ok(Bench::over(world, seed, tick, notes))
    }

    /// The network of a scenario with nothing on its hosts and servers, for code of your own: see [`run_on`](Bench::run_on).
    ///
    /// # Errors
    /// If it does not fit into this world, or cannot be built.
    pub fn bare(
        scenario: &Scenario,
        topology: &Topology,
        seed: Seed,
        options: Options,
        tick: Duration,
    ) -> Result<Bench, Error> {
        let notes = fits(scenario, topology)?;
        let world = World::bare(scenario, topology, seed, Options { kernel_boxes: false, ..options })?;
        Ok(Bench::over(world, seed, tick, notes))
    }

    fn over(mut world: World, seed: Seed, tick: Duration, notes: Vec<String>) -> Bench {
        for what in notes {
            world.log.push(0, Event::Warning { node: "turmoil".into(), what });
        }
        let mut sim = ::turmoil::Builder::new()
            .tick_duration(tick)
            .simulation_duration(Duration::MAX)
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::ZERO)
            .epoch(SystemTime::UNIX_EPOCH)
            .udp_capacity(UDP_CAPACITY)
            .rng_seed(seed.0)
            .build();
        let epoch = world.clock.epoch();
        let stations: Vec<_> = world
            .sites
            .iter()
            .enumerate()
            .map(|(node, site)| Station::new(node as u32, site.name.clone(), epoch))
            .collect();
        let until_ns = world.until_ns;
        let log_timers = world.options.timers && world.options.log;
        world.carrier = Some(Box::new(Shells { stations: stations.clone(), log_timers }));
        let delays_ns = delays(&world);
        let tick_ns = nanos(tick);
        let (world, agenda) = (RefCell::new(world), RefCell::default());
        let town = Rc::new(Town { world, stations, delays_ns, agenda, tick_ns });
        for (node, station) in (0..).zip(&town.stations) {
            station.settle_in(&town);
            if town.world.borrow().machine(node) != node {
                continue;
            }
            let software = Rc::clone(station);
            sim.host(host_name(node), move || Rc::clone(&software).run());
            station.address.set(sim.lookup(host_name(node)));
        }
        let bench = Bench { sim, town, until_ns };
        bench.set_delays();
        let mut world = bench.town.world.borrow_mut();
        // What the scenario itself starts comes before what its timeline has at the same time, as in the simulator.
        let mut set = std::mem::take(&mut world.agenda);
        while let Some((at_ns, entry)) = set.pop() {
            match entry {
                Entry::Start { .. } => bench.town.agenda.borrow_mut().push(at_ns, entry),
                entry => world.agenda.push(at_ns, entry),
            }
        }
        bench.town.route(&mut world, None);
        drop(world);
        bench
    }

    /// Tells turmoil how far apart the machines are.
    fn set_delays(&self) {
        let machines = self.machines();
        for (i, &a) in machines.iter().enumerate() {
            for &b in &machines[i + 1..] {
                let delay_ns = self.town.delays_ns[a as usize * self.town.stations.len() + b as usize];
                if delay_ns > 0 {
                    self.sim.set_link_latency(
                        self.address(a),
                        self.address(b),
                        Duration::from_nanos(delay_ns),
                    );
                }
            }
        }
    }

    fn machines(&self) -> Vec<u32> {
        let world = self.town.world.borrow();
        (0..self.town.stations.len() as u32).filter(|node| world.machine(*node) == *node).collect()
    }

    fn address(&self, node: u32) -> IpAddr {
        self.town.stations[node as usize].address.get()
    }

    fn node(&self, name: &str) -> Result<u32, BuildError> {
        let world = self.town.world.borrow();
        world.by_name.get(name).copied().ok_or_else(|| BuildError::Missing(name.to_owned()))
    }

    /// Runs async code on a host or server, from the next tick on and anew after each crash of it.
    ///
    /// # Errors
    /// If no host or server has that name.
    pub fn run_on<F: Future<Output = ()> + 'static>(
        &mut self,
        node: &str,
        code: impl Fn(SimNet) -> F + 'static,
    ) -> Result<(), BuildError> {
        let index = self.node(node)?;
        let mut world = self.town.world.borrow_mut();
        let host = world.host_mut(index).ok_or_else(|| BuildError::Missing(node.to_owned()))?;
        let slot = host.reserve();
        drop(world);
        self.town.stations[index as usize].install(slot, Box::new(move |net| code(net).boxed_local()));
        Ok(())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Goes on until a time.
    ///
    /// # Errors
    /// If a machine's software panicked.
    pub fn run_until(&mut self, time: Duration) -> Result<(), Error> {
        while self.sim.elapsed() < time && nanos(self.sim.elapsed()) <= self.until_ns {
            self.act()?;
            self.sim.step().map_err(|error| Error::Turmoil(error.to_string()))?;
        }
        Ok(())
    }

    /// What is on the agenda of no machine: the timeline, and what ends by itself.
    fn act(&mut self) -> Result<(), Error> {
        let now_ns = nanos(self.sim.elapsed());
        loop {
            let due = self.town.agenda.borrow().next_at().is_some_and(|at_ns| at_ns <= now_ns);
            let Some((at_ns, entry)) = due.then(|| self.town.agenda.borrow_mut().pop()).flatten() else {
                return Ok(());
            };
            match entry {
                Entry::Script(index, occasion) => {
                    let action = self.town.world.borrow().timeline[index as usize].action.clone();
                    let node = self.actor(&action);
                    self.in_world(at_ns, node, |world| world.act(index as usize, occasion));
                    match action {
                        Action::Crash { .. } => self.turn_off(node),
                        Action::Cut { .. } => self.set_cuts(),
                        _ => {}
                    }
                }
                Entry::Healed => {
                    self.in_world(at_ns, None, World::heal);
                    self.set_cuts();
                }
                Entry::Start { node, slot } => {
                    let machine = self.town.world.borrow().machine(node);
                    self.in_world(at_ns, Some(machine), |world| world.start(node, slot));
                }
                Entry::Relief(node) => {
                    self.in_world(at_ns, Some(node), |world| world.relieve(node));
                    if !self.town.world.borrow().sites[node as usize].has_no_power() {
                        self.turn_on(node);
                    }
                }
                entry => {
                    // Nothing else is without a machine.
                    let owner = self.town.world.borrow().owner(&entry);
                    if let Some(owner) = owner {
                        self.town.stations[owner as usize].push(now_ns, entry);
                    }
                }
            }
        }
    }

    fn in_world(&self, at_ns: u64, node: Option<u32>, f: impl FnOnce(&mut World)) {
        let turn_ns = nanos(self.sim.elapsed());
        let mut world = self.town.world.borrow_mut();
        let tick_ns = self.town.tick_ns;
        world.clock.set(match node {
            Some(node) => self.town.stations[node as usize].set_clock(turn_ns, at_ns, tick_ns),
            None => at_ns.max(turn_ns.saturating_sub(tick_ns)),
        });
        f(&mut world);
        self.town.route(&mut world, node);
    }

    /// The machine that an action is about; packets that it causes leave from there.
    fn actor(&self, action: &Action) -> Option<u32> {
        let name = match action {
            Action::RebootRouter { router, .. }
            | Action::FlushRouter { router }
            | Action::ReaddressRouter { router, .. }
            | Action::SetNat { router, .. }
            | Action::AcceptPortal { router }
            | Action::SetFirewall { router, .. }
            | Action::ChangeRules { router, .. } => router,
            Action::RestartRelay { relay, .. } | Action::SetHealth { relay, .. } => relay,
            Action::RestartCoordinator { .. }
            | Action::Revoke { .. }
            | Action::Approve { .. }
            | Action::SetAccess { .. } => crate::topology::COORDINATOR,
            Action::RestartHost { host, .. }
            | Action::Rotate { host }
            | Action::MoveHost { host, .. }
            | Action::SetInterface { host, .. }
            | Action::Sleep { host, .. }
            | Action::SetClock { host, .. } => host,
            Action::Kill { node }
            | Action::Crash { node, .. }
            | Action::BlackHole { node, .. }
            | Action::Slow { node, .. }
            | Action::ChangeLink { node, .. }
            | Action::SetLink { node, .. } => node,
            Action::Cut { .. } => return None,
        };
        let world = self.town.world.borrow();
        world.by_name.get(name).map(|node| world.machine(*node))
    }

    fn turn_off(&mut self, node: Option<u32>) {
        if let Some(node) = node {
            self.sim.crash(self.address(node));
        }
    }

    fn turn_on(&mut self, node: u32) {
        let address = self.address(node);
        if !self.sim.is_host_running(address) {
            self.sim.bounce(address);
        }
    }

    /// Cuts turmoil's internet where the scenario has cut its own, and mends the rest.
    fn set_cuts(&self) {
        let world = self.town.world.borrow();
        let outer: Vec<u32> = (0..world.sites.len() as u32)
            .filter(|node| matches!(world.sites[*node as usize].parent, Parent::Internet { .. }))
            .collect();
        for (i, &a) in outer.iter().enumerate() {
            for &b in &outer[i + 1..] {
                let (from, to) = (world.machine(a), world.machine(b));
                if from == to {
                    continue;
                }
                if world.is_cut(a, b) {
                    self.sim.partition(self.address(from), self.address(to));
                } else {
                    self.sim.repair(self.address(from), self.address(to));
                }
            }
        }
    }

    // ---- faults beyond the timeline --------------------------------------------------------------

    /// Has something of the timeline happen now, whatever the scenario says.
    ///
    /// # Errors
    /// If it names what is not there.
    pub fn now(&mut self, action: Action) -> Result<(), BuildError> {
        if let (None, false) = (self.actor(&action), matches!(action, Action::Cut { .. })) {
            return Err(BuildError::Missing(format!("{action:?}")));
        }
        let index = {
            let mut world = self.town.world.borrow_mut();
            let words = format!("{action:?}");
            let time = crate::scenario::When { from: self.sim.elapsed(), to: self.sim.elapsed() };
            world.timeline.push(crate::scenario::Timed { time, repeat: None, action, words });
            world.timeline.len() as u32 - 1
        };
        let entry = Entry::Script(index, super::script::Occasion::Once);
        self.town.agenda.borrow_mut().push(nanos(self.sim.elapsed()), entry);
        Ok(())
    }

    /// Has turmoil do something to its links, now. Both machines are on the internet, or one is behind the other.
    ///
    /// # Errors
    /// If it names what is not there.
    pub fn fault(&mut self, fault: &Fault) -> Result<(), BuildError> {
        let (Fault::Partition(a, b) | Fault::Repair(a, b) | Fault::Hold(a, b) | Fault::Release(a, b)) = fault;
        let (a, b) = (self.address(self.node(a)?), self.address(self.node(b)?));
        match fault {
            Fault::Partition(..) => self.sim.partition(a, b),
            Fault::Repair(..) => self.sim.repair(a, b),
            Fault::Hold(..) => self.sim.hold(a, b),
            Fault::Release(..) => self.sim.release(a, b),
        }
        Ok(())
    }

    // ---- what can be seen ------------------------------------------------------------------------

    /// Looks at a program on a host or server, behind its TLS if it has any; `None` if there is no such program, or it does
    /// not run.
    pub fn look<P: Program, R>(&self, node: &str, mut f: impl FnMut(&P) -> R) -> Option<R> {
        let station = &self.town.stations[self.node(node).ok()? as usize];
        station.look(|program| {
            let program: &dyn Any = program;
            let secured = program.downcast_ref::<Secured<P>>().map(Secured::program);
            secured.or_else(|| program.downcast_ref::<P>()).map(&mut f)
        })
    }

    /// Shells that exist on a host or server, running or not yet cleared away.
    pub fn shells(&self, node: &str) -> usize {
        self.node(node).map_or(0, |node| self.town.stations[node as usize].alive.get())
    }

    /// Futures that the runtime of a host or server has to run: one for each shell, and whatever a shell has left behind.
    pub fn tasks(&self, node: &str) -> usize {
        self.node(node).map_or(0, |node| self.town.stations[node as usize].tasks.get())
    }

    /// The most that was ever queued for a program on a host or server: datagrams of one socket, connections that wait to be
    /// accepted, and unread bytes of one connection.
    pub fn most_queued(&self, node: &str) -> [usize; 3] {
        self.node(node).map_or([0; 3], |node| self.town.stations[node as usize].most_queued())
    }

    /// Looks at the events so far. Those of one millisecond come machine by machine.
    pub fn events<R>(&self, f: impl FnOnce(&[Record]) -> R) -> R {
        f(self.town.world.borrow().log.records())
    }

    /// Ends the run, and every machine with it.
    pub fn finish(self) -> Outcome {
        let Bench { sim, town, until_ns } = self;
        drop(sim);
        let mut world = town.world.borrow_mut();
        world.carrier = None;
        let (log, captures) = (std::mem::take(&mut world.log), world.captures.take());
        let mut records = Log::into_records(log);
        // Each machine had its turn in a tick: in the order of the times, and of the machines where those are equal.
        records.sort_by_key(|record| record.t);
        records.push(Record { t: until_ns, event: Event::End { events: world.events } });
        Outcome { records, captures, packets: world.packets, events: world.events }
    }
}

/// Turmoil's name of a machine. By number: it takes some words for addresses.
fn host_name(node: u32) -> String {
    format!("machine-{node}")
}

/// What turmoil's links delay, in whole milliseconds: the way between two regions of the internet. Of a machine that may be in
/// several, the least: it waits the rest itself.
fn delays(world: &World) -> Vec<u64> {
    const MS: u64 = 1_000_000;
    let count = world.sites.len();
    let mut delays = vec![None::<u64>; count * count];
    let outer = |node: usize| match world.sites[node].parent {
        Parent::Internet { region } => Some(region),
        Parent::Router(_) => None,
    };
    for a in 0..count {
        for b in 0..count {
            let (from, to) = (world.machine(a as u32) as usize, world.machine(b as u32) as usize);
            let between = match (outer(a), outer(b)) {
                (Some(a), Some(b)) => world.latency_ns[(a * world.regions + b) as usize] / MS * MS,
                // Behind a router, or nothing passes.
                (None, _) if world.sites[a].parent == Parent::Router(b as u32) => 0,
                (_, None) if world.sites[b].parent == Parent::Router(a as u32) => 0,
                _ => continue,
            };
            for at in [from * count + to, to * count + from] {
                delays[at] = Some(delays[at].map_or(between, |least| least.min(between)));
            }
        }
    }
    delays.into_iter().map(Option::unwrap_or_default).collect()
}
