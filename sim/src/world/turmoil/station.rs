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
use tokio::runtime::Handle as Runtime;
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
    /// How long one turn of a machine is.
    pub(super) tick_ns: u64,
}

/// A machine.
pub(super) struct Station {
    town: RefCell<Weak<Town>>,
    node: u32,
    pub(super) name: Name,
    epoch: Epoch,
    agenda: RefCell<Agenda<Due>>,
    /// What its clock said last, in nanoseconds: see [`Station::now`].
    last_ns: Cell<u64>,
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
    /// Futures that its runtime has to run beside that of the machine itself.
    pub(super) tasks: Cell<usize>,
}

/// What is on the agenda of a machine.
enum Due {
    /// Something to handle.
    Handle(Entry),
    /// A packet to send to another machine, where it is due at that time.
    Send(u64, u32, Step),
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
            let Some(owner) = world.owner(&entry) else {
                self.agenda.borrow_mut().push(at_ns, entry);
                continue;
            };
            match (entry, from) {
                (Entry::Packet(step), Some(from)) if from != owner => {
                    let on_the_way = self.delays_ns[from as usize * self.stations.len() + owner as usize];
                    let leaves_ns = at_ns.saturating_sub(on_the_way);
                    let station = &self.stations[from as usize];
                    if station.turn_ns().is_some_and(|turn_ns| rounded(leaves_ns) <= turn_ns) {
                        self.transmit(station, owner, at_ns, &step);
                    } else {
                        station.note(leaves_ns, Due::Send(at_ns, owner, step));
                    }
                }
                (entry, _) => self.stations[owner as usize].push(at_ns, entry),
            }
        }
    }

    fn transmit(&self, from: &Station, to: u32, at_ns: u64, step: &Step) {
        let wire = from.wire.borrow();
        if let (Some(wire), Some(bytes)) = (wire.as_ref(), tunnel::encode(at_ns, step)) {
            let address = self.stations[to as usize].address.get();
            if let Err(error) = wire.try_send_to(&bytes, (address, PORT)) {
                tracing::error!(from = %from.name, %error, "turmoil does not take a packet");
            }
        }
    }
}

/// Everything happens at whole milliseconds, tokio's unit, whichever is nearer.
pub(super) fn rounded(at_ns: u64) -> u64 {
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
            last_ns: Cell::new(0),
            changed: Notify::new(),
            wire: RefCell::new(None),
            address: Cell::new(Ipv4Addr::UNSPECIFIED.into()),
            software: RefCell::new(Vec::new()),
            shells: RefCell::new(Vec::new()),
            carried: RefCell::new(BTreeMap::new()),
            most: Cell::new([0; 3]),
            alive: Cell::new(0),
            tasks: Cell::new(0),
        })
    }

    pub(super) fn settle_in(&self, town: &Rc<Town>) {
        *self.town.borrow_mut() = Rc::downgrade(town);
    }

    /// Puts something on its agenda, from wherever.
    pub(super) fn push(&self, at_ns: u64, entry: Entry) {
        self.note(at_ns, Due::Handle(entry));
    }

    fn note(&self, at_ns: u64, due: Due) {
        self.agenda.borrow_mut().push(at_ns, due);
        self.changed.notify_one();
    }

    // ---- its clock -------------------------------------------------------------------------------

    /// What turmoil's clock says while it is this machine that runs.
    fn turn_ns(&self) -> Option<u64> {
        self.wire.borrow().as_ref()?;
        ::turmoil::sim_elapsed().map(nanos)
    }

    /// Its clock, which never goes back.
    fn now_ns(&self) -> Option<u64> {
        let (turn_ns, last_ns) = (::turmoil::sim_elapsed().map(nanos)?, self.last_ns.get());
        // What came due before this turn and was rounded to it happens now, and so does what a shell makes of it.
        Some(if rounded(last_ns) >= turn_ns { last_ns } else { turn_ns })
    }

    /// The time, for what runs on it: turmoil's, but for what turmoil cannot tell apart. Whatever comes due within a turn of it
    /// happens at the very time that it is due, so that the errors of many turns do not add up.
    pub(super) fn now(&self) -> Instant {
        self.epoch.after(Duration::from_nanos(self.now_ns().unwrap_or_default()))
    }

    /// Its clock is set for what is due at a time and happens now.
    pub(super) fn set_clock(&self, turn_ns: u64, at_ns: u64, tick_ns: u64) -> u64 {
        // What was held up for longer happens when it happens.
        let now_ns = at_ns.max(turn_ns.saturating_sub(tick_ns)).max(self.last_ns.get());
        self.last_ns.set(now_ns);
        now_ns
    }

    /// How long turmoil is to wait for a time, and that it has come.
    pub(super) fn turn_of(&self, at: Instant) -> Duration {
        let at_ns = rounded(self.epoch.ns(at));
        Duration::from_nanos(at_ns.saturating_sub(::turmoil::sim_elapsed().map(nanos).unwrap_or(at_ns)))
    }

    /// A deadline of a program on it has come.
    pub(super) fn reached(&self, at: Instant) {
        let (Some(turn_ns), Some(town)) = (self.turn_ns(), self.town.borrow().upgrade()) else { return };
        self.set_clock(turn_ns, self.epoch.ns(at), town.tick_ns);
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
        let now_ns = self.now_ns()?;
        self.enter_at(now_ns, f)
    }

    /// The same for what is due at a time.
    fn enter_at<R>(&self, at_ns: u64, f: impl FnOnce(&mut World) -> R) -> Option<R> {
        let (turn_ns, town) = (::turmoil::sim_elapsed().map(nanos)?, self.town.borrow().upgrade()?);
        let mut world = town.world.borrow_mut();
        world.clock.set(self.set_clock(turn_ns, at_ns, town.tick_ns));
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
            let Some(turn_ns) = self.turn_ns() else { return };
            if self.agenda.borrow().next_at().is_none_or(|at_ns| rounded(at_ns) > turn_ns) {
                return;
            }
            let Some((at_ns, due)) = self.agenda.borrow_mut().pop() else { return };
            match due {
                Due::Handle(entry) => _ = self.enter_at(at_ns, |world| world.handle(entry)),
                Due::Send(at_ns, owner, step) => {
                    if let Some(town) = self.town.borrow().upgrade() {
                        town.transmit(self, owner, at_ns, &step);
                    }
                }
            }
            self.measure();
        }
    }

    fn received(&self, bytes: &[u8]) {
        if let Some((at_ns, step)) = tunnel::decode(bytes.to_vec().into()) {
            self.push(at_ns, Entry::Packet(step));
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
            // Shells spawn nothing: whatever else there is has been left behind by one.
            self.tasks.set(running.len() + Runtime::current().metrics().num_alive_tasks());
            let next_ns = self.agenda.borrow().next_at();
            let turn_ns = self.turn_ns().unwrap_or(0);
            let wait_ns = next_ns.map_or(0, rounded).saturating_sub(turn_ns);
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
        self.0.tasks.set(0);
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
