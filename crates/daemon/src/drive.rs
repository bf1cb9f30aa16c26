//! The driver: one future that carries a program on a network.

use crate::conn::{Conn, Happened, Timer, wait};
use crate::net::{Datagram, Listener, Net, Udp};
use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, LocalBoxFuture};
use futures_util::stream::FuturesUnordered;
use program::{ConnId, ErrorKind, Input, Output, Program};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use trace::Event;

/// What a program may cost its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that may wait to be written to one TCP connection: the space that its program is told of.
    pub write_buffer: usize,
    /// Datagrams that may wait for one UDP socket; beyond it the oldest is dropped.
    pub datagrams: usize,
    /// TCP connections at a time, those that are being opened included. Further ones that come in are closed at once.
    pub connections: usize,
    /// How long what was written to a connection may take to go out after the program has closed it.
    pub linger: Duration,
    /// How long a program may take to end after [`Input::Shutdown`].
    pub grace: Duration,
    /// How often the machine's addresses are looked up, whether or not the system tells of changes.
    pub look: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            write_buffer: 256 * 1024,
            datagrams: 1024,
            connections: 16 * 1024,
            linger: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            look: Duration::from_secs(2),
        }
    }
}

/// How long to wait before a socket that failed is asked again, so that a failure that lasts (too many open files) does not
/// turn into a loop.
const PAUSE: Duration = Duration::from_millis(100);

/// What the driver does for a program besides the network.
pub struct Options<P> {
    /// Bounds.
    pub limits: Limits,
    /// Gets everything that the program has for its log, with the time.
    pub on_event: Box<dyn FnMut(Event, Instant)>,
    /// What others want done with the program: see [`Handle`].
    pub inbox: Option<mpsc::Receiver<Job<P>>>,
}

impl<P> Default for Options<P> {
    /// Default limits, no log, nobody else.
    fn default() -> Options<P> {
        Options { limits: Limits::default(), on_event: Box::new(|_, _| {}), inbox: None }
    }
}

/// Something to do with a program between two of its inputs.
pub type Job<P> = Box<dyn FnOnce(&mut P, Instant) + Send>;

/// Why a program could not be driven.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} port {port}: {source}")]
pub struct DriveError {
    what: &'static str,
    port: u16,
    source: io::Error,
}

/// A way to a program that is being driven, for the rest of the process. Whoever waits for an answer hears when it ends.
pub struct Handle<P>(mpsc::Sender<Job<P>>);

impl<P> Clone for Handle<P> {
    fn clone(&self) -> Handle<P> {
        Handle(self.0.clone())
    }
}

/// The program is not driven any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the program has ended")]
pub struct Ended;

impl<P: 'static> Handle<P> {
    /// A handle and the inbox for [`Options`]. At most `jobs` wait; who brings more waits himself.
    pub fn new(jobs: usize) -> (Handle<P>, mpsc::Receiver<Job<P>>) {
        let (sender, inbox) = mpsc::channel(jobs);
        (Handle(sender), inbox)
    }

    /// Does something with the program and returns what came of it.
    ///
    /// # Errors
    /// If the program has ended.
    pub async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut P, Instant) -> R + Send + 'static,
    ) -> Result<R, Ended> {
        let (answer, answered) = oneshot::channel();
        self.tell(move |program, now| {
            // Whoever asked may have gone.
            let _ = answer.send(job(program, now));
        })
        .await?;
        answered.await.map_err(|_| Ended)
    }

    /// Does something with the program, later.
    ///
    /// # Errors
    /// If the program has ended.
    pub async fn tell(&self, job: impl FnOnce(&mut P, Instant) + Send + 'static) -> Result<(), Ended> {
        self.0.send(Box::new(job)).await.map_err(|_| Ended)
    }
}

/// Carries a program on a network until `shutdown` is ready, then lets it end (see [`Limits::grace`]) and returns it.
///
/// It binds what [`Program::udp_ports`] and [`Program::tcp_ports`] say. The first of each must be had; that another is taken
/// is told in the log, and the program does without.
///
/// # Errors
/// If the first UDP or the first TCP port cannot be bound.
pub async fn drive<P: Program, N: Net + 'static>(
    program: P,
    net: N,
    options: Options<P>,
    shutdown: impl Future<Output = ()>,
) -> Result<P, DriveError> {
    let mut driver = Driver::bind(program, net, options).await?;
    driver.run(pin!(shutdown)).await;
    Ok(driver.program)
}

type Stream<N> = <N as Net>::Stream;
type Shared<N> = Rc<RefCell<Conn<Stream<N>>>>;

/// What a source says when it is ready. Each takes its socket along, to be asked again.
enum Ready<N: Net> {
    Received(usize, Vec<Datagram>, io::Result<()>),
    Writable(usize),
    Accepted(usize, io::Result<(Stream<N>, SocketAddr)>),
    Opened(ConnId, Option<io::Result<Stream<N>>>),
    Conn(ConnId, Happened, Shared<N>),
}

/// What woke the driver.
enum Wake<N: Net, P> {
    Shutdown,
    Timer,
    Look,
    GraceOver,
    Job(Job<P>),
    Ready(Ready<N>),
}

struct Socket<U> {
    port: u16,
    udp: Rc<U>,
    queue: VecDeque<Datagram>,
    /// It waits until it can send again.
    full: bool,
    dropped: u64,
}

struct Door<L> {
    port: u16,
    listener: Rc<L>,
}

struct Driver<P, N: Net> {
    program: P,
    net: N,
    limits: Limits,
    on_event: Box<dyn FnMut(Event, Instant)>,
    inbox: Option<mpsc::Receiver<Job<P>>>,
    /// Whether others had their turn after the network did.
    jobs_first: bool,
    sockets: Vec<Socket<N::Udp>>,
    doors: Vec<Door<N::Listener>>,
    sources: FuturesUnordered<LocalBoxFuture<'static, Ready<N>>>,
    /// The connections that the program knows.
    conns: BTreeMap<ConnId, Shared<N>>,
    opening: BTreeMap<ConnId, AbortHandle>,
    /// Connections that the program has closed and that are not flushed yet.
    ending: usize,
    accepted: u64,
    timer: Option<(Instant, Timer)>,
    look: Timer,
    changed: Timer,
    addresses: Vec<IpAddr>,
    grace: Option<Timer>,
}

impl<P: Program, N: Net + 'static> Driver<P, N> {
    async fn bind(program: P, mut net: N, options: Options<P>) -> Result<Driver<P, N>, DriveError> {
        let (mut sockets, mut doors) = (Vec::new(), Vec::new());
        for (i, port) in program.udp_ports().into_iter().enumerate() {
            match net.udp(port).await {
                Ok(bound) => sockets.extend(bound.into_iter().map(|udp| {
                    let udp = Rc::new(udp);
                    Socket { port, udp, queue: VecDeque::new(), full: false, dropped: 0 }
                })),
                Err(source) if i == 0 => return Err(DriveError { what: "bind UDP", port, source }),
                Err(error) => tracing::warn!(port, %error, "cannot bind UDP port; going on without"),
            }
        }
        for (i, port) in program.tcp_ports().into_iter().enumerate() {
            match net.listen(port).await {
                Ok(bound) => {
                    doors
                        .extend(bound.into_iter().map(|listener| Door { port, listener: Rc::new(listener) }));
                }
                Err(source) if i == 0 => return Err(DriveError { what: "listen on TCP", port, source }),
                Err(error) => tracing::warn!(port, %error, "cannot listen on TCP port; going on without"),
            }
        }
        let look = Box::pin(net.sleep_until(net.now() + options.limits.look));
        let changed = Box::pin(net.changed());
        let driver = Driver {
            program,
            limits: options.limits,
            on_event: options.on_event,
            inbox: options.inbox,
            jobs_first: false,
            sources: FuturesUnordered::new(),
            conns: BTreeMap::new(),
            opening: BTreeMap::new(),
            ending: 0,
            accepted: 0,
            timer: None,
            look,
            changed,
            addresses: Vec::new(),
            grace: None,
            sockets,
            doors,
            net,
        };
        for i in 0..driver.sockets.len() {
            driver.receive(i, Vec::new(), false);
        }
        for i in 0..driver.doors.len() {
            driver.accept(i, false);
        }
        Ok(driver)
    }

    async fn run(&mut self, mut shutdown: std::pin::Pin<&mut impl Future<Output = ()>>) {
        if let Some(resolver) = self.net.resolver() {
            self.input(Input::Resolver(resolver));
        }
        self.look();
        loop {
            self.settle();
            if self.grace.is_some() && self.is_finished() {
                return;
            }
            let stopping = self.grace.is_some();
            let wake = poll_fn(|cx| {
                if !stopping && shutdown.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Wake::Shutdown);
                }
                self.poll_wake(cx)
            });
            match wake.await {
                Wake::Shutdown => {
                    let until = self.net.now() + self.limits.grace;
                    self.grace = Some(Box::pin(self.net.sleep_until(until)));
                    self.input(Input::Shutdown);
                }
                Wake::GraceOver => {
                    tracing::warn!(grace = ?self.limits.grace, "did not end in time");
                    return;
                }
                Wake::Timer => self.timeout(),
                Wake::Look => {
                    self.look = Box::pin(self.net.sleep_until(self.net.now() + self.limits.look));
                    self.look();
                }
                Wake::Job(job) => {
                    job(&mut self.program, self.net.now());
                    self.drain();
                }
                Wake::Ready(ready) => self.ready(ready),
            }
        }
    }

    /// In a fixed order: what the clock says first, then the network and the others in turn, so that neither starves.
    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake<N, P>> {
        if let Some(grace) = &mut self.grace
            && grace.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Wake::GraceOver);
        }
        if let Some((_, timer)) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Wake::Timer);
        }
        if self.look.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Wake::Look);
        }
        if self.changed.as_mut().poll(cx).is_ready() {
            self.changed = Box::pin(self.net.changed());
            return Poll::Ready(Wake::Look);
        }
        for jobs in [self.jobs_first, !self.jobs_first] {
            if !jobs {
                if let Poll::Ready(Some(ready)) = self.sources.poll_next_unpin(cx) {
                    self.jobs_first = true;
                    return Poll::Ready(Wake::Ready(ready));
                }
            } else if let Some(inbox) = &mut self.inbox {
                match inbox.poll_recv(cx) {
                    Poll::Ready(Some(job)) => {
                        self.jobs_first = false;
                        return Poll::Ready(Wake::Job(job));
                    }
                    Poll::Ready(None) => self.inbox = None,
                    Poll::Pending => {}
                }
            }
        }
        Poll::Pending
    }

    fn is_finished(&self) -> bool {
        self.program.is_finished()
            && self.ending == 0
            && self.sockets.iter().all(|socket| socket.queue.is_empty())
            && self.conns.values().all(|conn| conn.borrow().is_flushed())
    }

    // ---- what comes in -----------------------------------------------------------------------------

    /// Hands the program an input and carries what came of it to the sockets' queues.
    fn input(&mut self, input: Input<'_>) {
        self.program.handle(input, self.net.now());
        self.drain();
    }

    fn timeout(&mut self) {
        self.timer = None;
        let now = self.net.now();
        // Armed for a deadline that has moved since.
        if self.program.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.program.handle_timeout(now);
            self.drain();
        }
    }

    fn look(&mut self) {
        let addresses = self.net.addresses();
        if addresses != self.addresses {
            tracing::debug!(?addresses, "addresses of this machine");
            self.addresses = addresses;
            self.program.handle(Input::Addresses(&self.addresses), self.net.now());
            self.drain();
        }
    }

    fn ready(&mut self, ready: Ready<N>) {
        match ready {
            Ready::Received(i, mut datagrams, result) => {
                let port = self.sockets[i].port;
                for Datagram { addr: from, data } in datagrams.drain(..) {
                    self.input(Input::Datagram { port, from, data: &data });
                }
                if let Err(error) = &result {
                    tracing::debug!(port, %error, "receiving");
                }
                self.receive(i, datagrams, result.is_err());
            }
            Ready::Writable(i) => self.sockets[i].full = false,
            Ready::Accepted(i, result) => {
                let port = self.doors[i].port;
                self.accept(i, result.is_err());
                match result {
                    Ok((stream, from)) if self.conns.len() + self.opening.len() < self.limits.connections => {
                        let id = ConnId(ConnId::FIRST_ACCEPTED + self.accepted);
                        self.accepted += 1;
                        self.open(id, stream);
                        self.input(Input::Accepted { conn: id, port, from });
                    }
                    Ok((_, from)) => tracing::warn!(%from, port, "too many connections: closed at once"),
                    Err(error) => tracing::warn!(port, %error, "accepting"),
                }
            }
            Ready::Opened(id, result) => {
                // Given up meanwhile.
                if self.opening.remove(&id).is_none() {
                    return;
                }
                match result {
                    Some(Ok(stream)) => {
                        self.open(id, stream);
                        self.input(Input::Connected { conn: id });
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "connecting");
                        self.input(Input::Closed { conn: id });
                    }
                    None => {}
                }
            }
            Ready::Conn(id, happened, conn) => self.conn(id, &happened, conn),
        }
    }

    fn conn(&mut self, id: ConnId, happened: &Happened, conn: Shared<N>) {
        let known = self.conns.contains_key(&id);
        if !known {
            // Only its end was awaited.
            self.ending -= 1;
            return;
        }
        if let Some(data) = &happened.read {
            self.input(Input::Stream { conn: id, data });
        }
        if happened.space && self.conns.contains_key(&id) {
            // What it wrote upon what it has just read has taken its share.
            let space = conn.borrow().credit();
            self.input(Input::Writable { conn: id, space });
        }
        if happened.over && self.conns.remove(&id).is_some() {
            // What had been written before still goes out, if it can.
            let flushed = conn.borrow().is_flushed();
            if !flushed {
                self.end(&conn);
                self.sources.push(Self::watch(id, conn));
            }
            self.input(Input::Closed { conn: id });
        } else {
            self.sources.push(Self::watch(id, conn));
        }
    }

    // ---- what goes out -----------------------------------------------------------------------------

    /// Carries what the program wants done to where it belongs.
    fn drain(&mut self) {
        while let Some(output) = self.program.poll_output() {
            match output {
                Output::Datagram { port, to, data } => self.datagram(port, Datagram { addr: to, data }),
                Output::Connect { conn, to } => {
                    let (handle, registration) = AbortHandle::new_pair();
                    self.opening.insert(conn, handle);
                    let opening = Abortable::new(self.net.connect(to), registration);
                    self.sources.push(Box::pin(async move { Ready::Opened(conn, opening.await.ok()) }));
                }
                Output::Write { conn, data } => {
                    if let Some(shared) = self.conns.get(&conn) {
                        let lost = shared.borrow_mut().write(data);
                        if lost > 0 {
                            tracing::error!(
                                conn = conn.0,
                                lost,
                                "wrote more than the connection had space for"
                            );
                        }
                    }
                }
                Output::Hold { conn, hold } => {
                    if let Some(shared) = self.conns.get(&conn) {
                        shared.borrow_mut().hold(hold);
                    }
                }
                Output::Close { conn } => {
                    if let Some(opening) = self.opening.remove(&conn) {
                        opening.abort();
                    }
                    if let Some(shared) = self.conns.remove(&conn) {
                        self.end(&shared);
                    }
                }
                Output::Map(_) => tracing::error!("a program asked for a port of a NAT that is not here"),
                Output::Event(event) => (self.on_event)(*event, self.net.now()),
            }
        }
    }

    /// Sends what waits, and arms the timer.
    fn settle(&mut self) {
        for i in 0..self.sockets.len() {
            self.flush(i);
        }
        match self.program.poll_timeout() {
            // Re-arming later is lazy: the earlier one stays, and looks again when it comes up.
            Some((at, _)) if self.timer.as_ref().is_none_or(|(armed, _)| at < *armed) => {
                self.timer = Some((at, Box::pin(self.net.sleep_until(at))));
            }
            _ => {}
        }
    }

    fn datagram(&mut self, port: u16, datagram: Datagram) {
        let socket =
            self.sockets.iter_mut().find(|socket| socket.port == port && socket.udp.carries(datagram.addr));
        let Some(socket) = socket else {
            tracing::debug!(port, to = %datagram.addr, "no socket to send from");
            return;
        };
        if socket.queue.len() >= self.limits.datagrams {
            socket.queue.pop_front();
            socket.dropped += 1;
            tracing::debug!(
                port,
                dropped = socket.dropped,
                "the network does not take datagrams fast enough"
            );
        }
        socket.queue.push_back(datagram);
    }

    fn flush(&mut self, i: usize) {
        while !self.sockets[i].full && !self.sockets[i].queue.is_empty() {
            let socket = &mut self.sockets[i];
            match socket.udp.try_send(&mut socket.queue) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.full = true;
                    let (udp, pause) = (Rc::clone(&socket.udp), self.pause());
                    self.sources.push(Box::pin(async move {
                        if udp.writable().await.is_err() {
                            pause.await;
                        }
                        Ready::Writable(i)
                    }));
                }
                Err(error) => {
                    let port = socket.port;
                    let Some(datagram) = socket.queue.pop_front() else { return };
                    let to = datagram.addr;
                    tracing::debug!(port, %to, %error, "sending");
                    if N::Udp::is_too_big(&error) {
                        // RFC 1191 §3: 0 is what those say who do not know how much would fit.
                        self.input(Input::Error { port, to, kind: ErrorKind::TooBig { mtu: 0 } });
                    }
                }
            }
        }
    }

    // ---- sources -----------------------------------------------------------------------------------

    fn pause(&self) -> Timer {
        Box::pin(self.net.sleep_until(self.net.now() + PAUSE))
    }

    fn receive(&self, i: usize, mut into: Vec<Datagram>, failed: bool) {
        let (udp, pause) = (Rc::clone(&self.sockets[i].udp), failed.then(|| self.pause()));
        self.sources.push(Box::pin(async move {
            if let Some(pause) = pause {
                pause.await;
            }
            let result = udp.recv(&mut into).await;
            Ready::Received(i, into, result)
        }));
    }

    fn accept(&self, i: usize, failed: bool) {
        let (listener, pause) = (Rc::clone(&self.doors[i].listener), failed.then(|| self.pause()));
        self.sources.push(Box::pin(async move {
            if let Some(pause) = pause {
                pause.await;
            }
            Ready::Accepted(i, listener.accept().await)
        }));
    }

    fn open(&mut self, id: ConnId, stream: Stream<N>) {
        let conn = Conn::new(stream, self.limits.write_buffer);
        self.conns.insert(id, Rc::clone(&conn));
        self.sources.push(Self::watch(id, conn));
    }

    fn watch(id: ConnId, conn: Shared<N>) -> LocalBoxFuture<'static, Ready<N>> {
        Box::pin(async move {
            let (id, happened) = wait(id, Rc::clone(&conn)).await;
            Ready::Conn(id, happened, conn)
        })
    }

    fn end(&mut self, conn: &Shared<N>) {
        self.ending += 1;
        let timer = self.net.sleep_until(self.net.now() + self.limits.linger);
        conn.borrow_mut().close(Box::pin(timer));
    }
}
