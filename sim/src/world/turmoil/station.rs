//! One machine of the scenario as a host of turmoil: its clock, its wire, and the shells that run on it.

use super::super::net::Step;
use super::super::{Agenda, Entry, Epoch, Job, World, nanos};
use super::carried::Carried;
use super::sockets::{SimNet, Sockets, State};
use super::tunnel;
use crate::host::{Host, Program};
use ::turmoil::net::UdpSocket;
use daemon::{Handle, Limits, Options};
use futures_util::future::{AbortHandle, Abortable, FutureExt, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use trace::{Event, Name};

/// Where a host of turmoil takes packets of the network that it carries.
const PORT: u16 = 9;

/// How often a shell looks whether its host has other addresses: at once, as far as this world knows the word.
const LOOK: Duration = Duration::from_millis(5);

/// Things to do with a program that may wait for its shell: those of one tick.
const JOBS: usize = 64;

/// All machines, and the world whose cables, routers and hosts they are. Each machine touches its own alone.
pub(super) struct Town {
    pub(super) world: RefCell<World>,
    pub(super) stations: Vec<Rc<Station>>,
    /// Delays that turmoil's links have, in nanoseconds, row by row.
    pub(super) delays_ns: Vec<u64>,
    /// What is not for a machine to do: the timeline, and power.
    pub(super) agenda: RefCell<Agenda<Entry>>,
}

/// A machine.
pub(super) struct Station {
    town: RefCell<Weak<Town>>,
    node: u32,
    pub(super) name: Name,
    epoch: Epoch,
    agenda: RefCell<Agenda<Entry>>,
    /// Its agenda has something new, or there is another shell.
    changed: Notify,
    /// Its way to the other machines, while it runs.
    wire: RefCell<Option<Rc<UdpSocket>>>,
    pub(super) address: Cell<IpAddr>,
    /// Code of users, which runs whenever the machine does.
    software: RefCell<Vec<(u32, Code)>>,
    /// Shells that are to run from now on.
    shells: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    /// What runs on it, by place.
    carried: RefCell<BTreeMap<u32, Running>>,
    /// The most that was ever queued: datagrams, connections to be accepted, bytes.
    most: Cell<[usize; 3]>,
    /// Shells that have begun and not ended.
    pub(super) alive: Cell<usize>,
}

/// Code of a user's own, given the network of its machine.
pub(super) type Code = Box<dyn Fn(SimNet) -> LocalBoxFuture<'static, ()>>;

struct Running {
    program: Carried,
    /// The way to it through its shell; none to code of users.
    inbox: Option<Handle<Carried>>,
    state: Rc<RefCell<State>>,
    abort: AbortHandle,
}

/// Counts a shell for as long as it exists.
struct Alive(Rc<Station>);

impl Alive {
    fn new(station: &Rc<Station>) -> Alive {
        station.alive.set(station.alive.get() + 1);
        Alive(Rc::clone(station))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

impl Town {
    /// Carries what a world has put on its agenda to the machines that it is for. `from` is the machine that did it; packets
    /// leave from there.
    pub(super) fn route(&self, world: &mut World, from: Option<u32>) {
        while let Some((at_ns, entry)) = world.agenda.pop() {
            let now_ns = world.clock.now_ns();
            let Some(owner) = world.owner(&entry) else {
                self.agenda.borrow_mut().push(at_ns, entry);
                continue;
            };
            match (entry, from) {
                (Entry::Packet(step), Some(from)) if from != owner => {
                    let on_the_way = self.delays_ns[from as usize * self.stations.len() + owner as usize];
                    let leaves_ns = rounded(at_ns.saturating_sub(on_the_way));
                    let station = &self.stations[from as usize];
                    if leaves_ns <= now_ns && station.is_here() {
                        self.transmit(station, owner, &step);
                    } else {
                        station.push(leaves_ns, Entry::Packet(step));
                    }
                }
                (Entry::Packet(step), _) => {
                    self.stations[owner as usize].push(rounded(at_ns), Entry::Packet(step));
                }
                (entry, _) => self.stations[owner as usize].push(at_ns, entry),
            }
        }
    }

    fn transmit(&self, from: &Station, to: u32, step: &Step) {
        let wire = from.wire.borrow();
        if let (Some(wire), Some(bytes)) = (wire.as_ref(), tunnel::encode(step)) {
            let address = self.stations[to as usize].address.get();
            if let Err(error) = wire.try_send_to(&bytes, (address, PORT)) {
                tracing::error!(from = %from.name, %error, "turmoil does not take a packet");
            }
        }
    }
}

/// Packets come at whole milliseconds, tokio's unit, whichever is nearer.
fn rounded(at_ns: u64) -> u64 {
    const MS: u64 = 1_000_000;
    (at_ns + MS / 2) / MS * MS
}

impl Station {
    pub(super) fn new(node: u32, name: Name, epoch: Epoch) -> Rc<Station> {
        Rc::new(Station {
            town: RefCell::new(Weak::new()),
            node,
            name,
            epoch,
            agenda: RefCell::new(Agenda::default()),
            changed: Notify::new(),
            wire: RefCell::new(None),
            address: Cell::new(Ipv4Addr::UNSPECIFIED.into()),
            software: RefCell::new(Vec::new()),
            shells: RefCell::new(Vec::new()),
            carried: RefCell::new(BTreeMap::new()),
            most: Cell::new([0; 3]),
            alive: Cell::new(0),
        })
    }

    pub(super) fn settle_in(&self, town: &Rc<Town>) {
        *self.town.borrow_mut() = Rc::downgrade(town);
    }

    /// Puts something on its agenda, from wherever.
    pub(super) fn push(&self, at_ns: u64, entry: Entry) {
        self.agenda.borrow_mut().push(at_ns, entry);
        self.changed.notify_one();
    }

    /// Whether it is this machine that runs now.
    fn is_here(&self) -> bool {
        self.wire.borrow().is_some() && ::turmoil::sim_elapsed().is_some()
    }

    // ---- its clock -------------------------------------------------------------------------------

    fn now_ns(&self) -> Option<u64> {
        ::turmoil::sim_elapsed().map(nanos)
    }

    /// The time, for what runs on it.
    pub(super) fn now(&self) -> Instant {
        self.epoch.after(::turmoil::sim_elapsed().unwrap_or_default())
    }

    /// How long it still sleeps, if it does.
    pub(super) fn asleep_for(&self) -> Option<Duration> {
        let town = self.town.borrow().upgrade()?;
        let until_ns = town.world.borrow().sites[self.node as usize].asleep_until()?;
        let rest_ns = until_ns.saturating_sub(self.now_ns()?);
        // Woken in this very millisecond: by its agenda, which comes first.
        Some(Duration::from_nanos(rest_ns.max(1_000_000)))
    }

    // ---- what it does ----------------------------------------------------------------------------

    /// Does something with its part of the world. Nothing happens once turmoil has ended.
    fn enter<R>(&self, f: impl FnOnce(&mut World) -> R) -> Option<R> {
        let (now_ns, town) = (self.now_ns()?, self.town.borrow().upgrade()?);
        let mut world = town.world.borrow_mut();
        world.clock.set(now_ns);
        let result = f(&mut world);
        town.route(&mut world, Some(self.node));
        Some(result)
    }

    pub(super) fn poke(&self, slot: u32) {
        self.enter(|world| world.poke(self.node, slot));
    }

    /// Does something with its sockets.
    pub(super) fn with_host<R>(&self, f: impl FnOnce(&mut Host) -> R) -> Option<R> {
        self.enter(|world| world.sites[self.node as usize].body.host().map(f)).flatten()
    }

    /// The same, unless these sockets are not its own any more.
    pub(super) fn with_host_of(&self, state: &Rc<RefCell<State>>, f: impl FnOnce(&mut Host)) {
        let own = |running: &Running| Rc::ptr_eq(&running.state, state);
        if self.carried.borrow().values().any(own) {
            self.with_host(f);
        }
    }

    /// Handles what has come due.
    fn work(&self) {
        loop {
            let Some(now_ns) = self.now_ns() else { return };
            if self.agenda.borrow().next_at().is_none_or(|at_ns| at_ns > now_ns) {
                return;
            }
            let Some((at_ns, entry)) = self.agenda.borrow_mut().pop() else { return };
            self.enter(|world| match entry {
                Entry::Packet(step) if world.owner_of_step(&step) == self.node => {
                    world.handle(Entry::Packet(step));
                }
                // It was to leave now; its time says when it will have arrived at the earliest.
                Entry::Packet(step) => world.agenda.push(at_ns, Entry::Packet(step)),
                entry => world.handle(entry),
            });
            self.measure();
        }
    }

    fn received(&self, bytes: &[u8]) {
        if let Some(step) = tunnel::decode(bytes.to_vec().into()) {
            self.enter(|world| world.handle(Entry::Packet(step)));
            self.measure();
        }
    }

    fn measure(&self) {
        let mut most = self.most.get();
        for running in self.carried.borrow().values() {
            for (most, now) in most.iter_mut().zip(running.state.borrow().queued()) {
                *most = (*most).max(now);
            }
        }
        self.most.set(most);
    }

    /// The most that was ever queued: datagrams of a socket, connections to be accepted, unread bytes of a connection.
    pub(super) fn most_queued(&self) -> [usize; 3] {
        self.most.get()
    }

    // ---- its shells ------------------------------------------------------------------------------

    /// Runs a program in an async shell, from the next moment on.
    pub(super) fn carry(
        self: &Rc<Station>,
        slot: u32,
        program: Box<dyn Program>,
        log_timers: bool,
    ) -> Box<dyn Program> {
        let carried = Carried::new(program, log_timers.then(|| self.name.clone()));
        let (state, net) = self.sockets(slot);
        let (abort, registration) = AbortHandle::new_pair();
        let (handle, inbox) = Handle::new(JOBS);
        let running =
            Running { program: carried.clone(), inbox: Some(handle), state: Rc::clone(&state), abort };
        self.carried.borrow_mut().insert(slot, running);
        let (station, alive) = (Rc::clone(self), Alive::new(self));
        let on_event = {
            let station = Rc::clone(self);
            move |event, _| station.log(event)
        };
        let options = Options {
            limits: Limits { look: LOOK, ..Limits::default() },
            on_event: Box::new(on_event),
            inbox: Some(inbox),
        };
        let shell = async move {
            let _alive = alive;
            if let Err(error) = daemon::drive(carried, net, options, std::future::pending()).await {
                let detail = format!("{}: {error}", station.name);
                station.log(Event::Violation { invariant: "shell".into(), detail });
            }
        };
        self.run_shell(Box::pin(async move { _ = Abortable::new(shell, registration).await }));
        Box::new(Sockets(state))
    }

    /// Sockets for what runs in a place.
    fn sockets(self: &Rc<Station>, slot: u32) -> (Rc<RefCell<State>>, SimNet) {
        let state: Rc<RefCell<State>> = Rc::default();
        let net = SimNet::new(Rc::clone(self), slot, Rc::clone(&state));
        (state, net)
    }

    /// Has code of a user's own run in a place, now and whenever the machine starts again.
    pub(super) fn install(&self, slot: u32, code: Code) {
        self.software.borrow_mut().push((slot, code));
    }

    /// Starts the code of users.
    fn boot(self: &Rc<Station>) {
        for (slot, code) in self.software.borrow().iter() {
            let slot = *slot;
            let (state, net) = self.sockets(slot);
            let (abort, registration) = AbortHandle::new_pair();
            let program = Carried::new(Box::new(Sockets(Rc::default())), None);
            let running = Running { program, inbox: None, state: Rc::clone(&state), abort };
            self.carried.borrow_mut().insert(slot, running);
            self.enter(|world| world.plug(self.node, slot, Box::new(Sockets(state))));
            let (alive, code) = (Alive::new(self), code(net));
            let shell = async move {
                let _alive = alive;
                code.await;
            };
            self.run_shell(Box::pin(async move { _ = Abortable::new(shell, registration).await }));
        }
    }

    fn run_shell(&self, shell: LocalBoxFuture<'static, ()>) {
        self.shells.borrow_mut().push(shell);
        self.changed.notify_one();
    }

    /// Has something done with a program by its shell.
    pub(super) fn touch(&self, slot: u32, job: Job) {
        let carried = self.carried.borrow();
        if let Some(handle) = carried.get(&slot).and_then(|running| running.inbox.as_ref()) {
            // There is room: nothing to wait for.
            let told = handle.tell(move |carried, now| carried.with(|program| job(program, now)));
            if told.now_or_never().is_none() {
                tracing::error!(station = %self.name, "the shell takes nothing any more");
            }
        }
    }

    /// Whether a program that was asked to end has done so.
    pub(super) fn is_finished(&self, slot: u32) -> bool {
        self.carried.borrow().get(&slot).is_none_or(|running| running.program.is_finished())
    }

    /// Ends a shell as a kill does.
    pub(super) fn kill(&self, slot: u32, now: Instant) -> Option<Box<dyn Program>> {
        let running = self.carried.borrow_mut().remove(&slot)?;
        running.state.borrow_mut().kill();
        running.abort.abort();
        running.program.take(now)
    }

    /// Looks at a program that runs on it.
    pub(super) fn look<R>(&self, mut f: impl FnMut(&dyn Program) -> Option<R>) -> Option<R> {
        self.carried.borrow().values().find_map(|running| running.program.look(&mut f).flatten())
    }

    fn log(&self, event: Event) {
        self.enter(|world| {
            let now_ns = world.clock.now_ns();
            world.log.push(now_ns, event);
        });
    }

    /// The software of the machine, from its start to its end or crash.
    pub(super) async fn run(self: Rc<Station>) -> ::turmoil::Result {
        let wire = Rc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?);
        *self.wire.borrow_mut() = Some(Rc::clone(&wire));
        let _unplug = Unplug(Rc::clone(&self));
        self.boot();
        let mut running = FuturesUnordered::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            self.work();
            running.extend(self.shells.borrow_mut().drain(..));
            let next_ns = self.agenda.borrow().next_at();
            let wait_ns = next_ns.unwrap_or(0).saturating_sub(self.now_ns().unwrap_or(0));
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_nanos(wait_ns)), if next_ns.is_some() => {}
                received = wire.recv_from(&mut buffer) => {
                    let (len, _) = received?;
                    self.received(&buffer[..len]);
                }
                () = self.changed.notified() => {}
                Some(()) = running.next(), if !running.is_empty() => {}
            }
        }
    }
}

/// Takes the machine off its wire when its software ends, however it does.
struct Unplug(Rc<Station>);

impl Drop for Unplug {
    fn drop(&mut self) {
        *self.0.wire.borrow_mut() = None;
        // Of a machine without power nothing is left.
        self.0.shells.borrow_mut().clear();
    }
}

impl World {
    /// The machine that a step of a packet is taken at.
    fn owner_of_step(&self, step: &Step) -> u32 {
        use super::super::net::Parent;
        let above = |node: u32| match self.sites[node as usize].parent {
            Parent::Router(router) => router,
            Parent::Internet { .. } => self.machine(node),
        };
        match step {
            Step::Leave(node, _) | Step::Arrive(node, _) | Step::Unresolved(node, ..) => self.machine(*node),
            Step::Climbed(node, _) | Step::Descend(node, _) => above(*node),
        }
    }

    /// The machine that a node is, or is a place of.
    pub(super) fn machine(&self, node: u32) -> u32 {
        match &self.sites[node as usize].body {
            super::super::net::Inner::Outlet(outlet) => outlet.host,
            _ => node,
        }
    }

    /// The machine that an entry of the agenda is for; `None` for what no machine does.
    pub(super) fn owner(&self, entry: &Entry) -> Option<u32> {
        use super::super::cable::Way;
        use super::super::net::Parent;
        match entry {
            Entry::Packet(step) => Some(self.owner_of_step(step)),
            Entry::Queue { node, way: Way::Down, .. } => match self.sites[*node as usize].parent {
                Parent::Router(router) => Some(router),
                Parent::Internet { .. } => Some(self.machine(*node)),
            },
            Entry::Drain { node, .. }
            | Entry::Queue { node, .. }
            | Entry::Timer { node, .. }
            | Entry::Start { node, .. } => Some(self.machine(*node)),
            Entry::Expiry { node, .. } | Entry::RouterOn(node) | Entry::Served(node, _) => Some(*node),
            // Power comes back from outside.
            Entry::Relief(node) => (!self.sites[*node as usize].has_no_power()).then_some(*node),
            Entry::Script(..) | Entry::Healed => None,
        }
    }

    /// Starts a program that is not of the scenario anew; the one before is gone without a word.
    fn plug(&mut self, node: u32, slot: u32, program: Box<dyn Program>) {
        let Some(host) = self.sites[node as usize].body.host() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        host.stop(slot, &self.clock, &mut effects);
        effects.packets.clear();
        host.start(slot, program, &self.clock, &mut effects);
        self.apply(node, effects);
        self.drain();
    }

    /// A program of a host has something to send.
    fn poke(&mut self, node: u32, slot: u32) {
        let Some(host) = self.sites[node as usize].body.host() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        host.poke(slot, &self.clock, &mut effects);
        self.apply(node, effects);
        self.drain();
    }
}
