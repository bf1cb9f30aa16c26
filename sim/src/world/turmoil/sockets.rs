//! The sockets of a simulated host: a program to the host, a network to whatever runs on it.

use super::station::Station;
use crate::host::{ConnId, Input, Output, Program};
use crate::packet::ErrorKind;
use bytes::{Buf, Bytes};
use daemon::Datagram;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Datagrams that wait to be read on one UDP socket; what comes then is lost.
const MOST_DATAGRAMS: usize = 1024;
/// Bytes that wait to be read on one connection, from which on its window closes.
const MOST_BYTES: usize = 256 * 1024;
/// Connections that wait to be accepted: Linux's `SOMAXCONN`.
const BACKLOG: usize = 4096;
/// Destinations whose path MTU is remembered.
const MOST_PATHS: usize = 256;
/// No path is believed to be narrower: Linux's `net.ipv4.route.min_pmtu`.
const LEAST_PATH: u32 = 552;

#[derive(Default)]
struct Udp {
    queue: VecDeque<Datagram>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Door {
    queue: VecDeque<(ConnId, SocketAddr)>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Conn {
    read: VecDeque<Bytes>,
    unread: usize,
    held: bool,
    space: usize,
    open: bool,
    over: bool,
    shut: bool,
    waker: Option<Waker>,
}

/// What the sockets of one program hold.
#[derive(Default)]
pub(super) struct State {
    addresses: Vec<IpAddr>,
    resolver: Option<SocketAddr>,
    udp: BTreeMap<u16, Udp>,
    doors: BTreeMap<u16, Door>,
    conns: BTreeMap<ConnId, Conn>,
    connects: u64,
    out: VecDeque<Output>,
    /// The longest IP packet that reaches a destination, as routers say.
    paths: BTreeMap<SocketAddr, u32>,
    /// Its program was killed.
    dead: bool,
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl State {
    /// How much is queued: datagrams, connections that wait to be accepted, and unread bytes.
    pub(super) fn queued(&self) -> [usize; 3] {
        [
            self.udp.values().map(|udp| udp.queue.len()).max().unwrap_or(0),
            self.doors.values().map(|door| door.queue.len()).max().unwrap_or(0),
            self.conns.values().map(|conn| conn.unread).max().unwrap_or(0),
        ]
    }

    /// Ends it: whoever still waits is told that everything is over.
    pub(super) fn kill(&mut self) {
        self.dead = true;
        self.out.clear();
        self.udp.values_mut().for_each(|udp| wake(&mut udp.waker));
        self.doors.values_mut().for_each(|door| wake(&mut door.waker));
        for conn in self.conns.values_mut() {
            conn.over = true;
            wake(&mut conn.waker);
        }
    }

    fn input(&mut self, input: &Input<'_>) {
        match *input {
            Input::Addresses(addresses) => self.addresses = addresses.to_vec(),
            Input::Resolver(resolver) => self.resolver = Some(resolver),
            Input::Datagram { port, from, data } => {
                if let Some(udp) = self.udp.get_mut(&port)
                    && udp.queue.len() < MOST_DATAGRAMS
                {
                    udp.queue.push_back(Datagram { addr: from, data: data.clone() });
                    wake(&mut udp.waker);
                }
            }
            Input::Accepted { conn, port, from } => match self.doors.get_mut(&port) {
                Some(door) if door.queue.len() < BACKLOG => {
                    self.conns.insert(conn, Conn { open: true, ..Conn::default() });
                    door.queue.push_back((conn, from));
                    wake(&mut door.waker);
                }
                _ => self.out.push_back(Output::Close { conn }),
            },
            Input::Connected { conn } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.open = true;
                    wake(&mut conn.waker);
                }
            }
            Input::Stream { conn: id, data } => {
                let Some(conn) = self.conns.get_mut(&id) else { return };
                conn.unread += data.len();
                conn.read.push_back(data.clone());
                if conn.unread >= MOST_BYTES && !conn.held {
                    conn.held = true;
                    self.out.push_back(Output::Hold { conn: id, hold: true });
                }
                wake(&mut conn.waker);
            }
            Input::Writable { conn, space } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.space = space;
                    wake(&mut conn.waker);
                }
            }
            Input::Closed { conn } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.over = true;
                    wake(&mut conn.waker);
                }
            }
            // Linux remembers how much fits, and refuses what does not (`ip(7)`, `IP_MTU_DISCOVER`). It tells of no other
            // error on a socket that is not connected.
            Input::Error { to, kind: ErrorKind::TooBig { mtu }, .. } => {
                if self.paths.len() < MOST_PATHS {
                    self.paths.insert(to, mtu.max(LEAST_PATH));
                }
            }
            Input::Error { .. } | Input::Mapped { .. } | Input::Shutdown => {}
        }
    }
}

/// What the host knows of a program that runs elsewhere.
pub(super) struct Sockets(pub(super) Rc<RefCell<State>>);

impl Program for Sockets {
    /// They are bound one by one.
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn handle(&mut self, input: Input<'_>, _: Instant) {
        self.0.borrow_mut().input(&input);
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.0.borrow_mut().out.pop_front()
    }
}

/// The network of a simulated host, for whatever async code runs on it: [`daemon::drive()`] by [`daemon::Net`], and code of your
/// own by [`SimNet::bind`], [`SimNet::listen_on`] and [`SimNet::connect_to`], which take the place of tokio's sockets.
///
/// Its clock is the host's. `tokio::time` runs by the same clock.
#[derive(Clone)]
pub struct SimNet {
    station: Rc<Station>,
    slot: u32,
    state: Rc<RefCell<State>>,
}

impl SimNet {
    pub(super) fn new(station: Rc<Station>, slot: u32, state: Rc<RefCell<State>>) -> SimNet {
        SimNet { station, slot, state }
    }

    /// Binds a UDP port on all addresses; 0 chooses a free one.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn bind(&self, port: u16) -> io::Result<UdpSocket> {
        let slot = self.slot;
        let port = self.station.with_host(|host| host.bind_udp(slot, port)).flatten();
        let port = port.ok_or(io::ErrorKind::AddrInUse)?;
        self.state.borrow_mut().udp.insert(port, Udp::default());
        Ok(UdpSocket { net: self.clone(), port })
    }

    /// Listens on a TCP port on all addresses.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn listen_on(&self, port: u16) -> io::Result<TcpListener> {
        let slot = self.slot;
        if self.station.with_host(|host| host.listen(slot, port)) != Some(true) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.state.borrow_mut().doors.insert(port, Door::default());
        Ok(TcpListener { net: self.clone(), port })
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    /// If it is refused, or nobody answers.
    pub async fn connect_to(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let conn = {
            let mut state = self.state.borrow_mut();
            let conn = ConnId(state.connects);
            state.connects += 1;
            state.conns.insert(conn, Conn::default());
            state.out.push_back(Output::Connect { conn, to });
            conn
        };
        let stream = TcpStream { net: self.clone(), conn };
        self.poke();
        poll_fn(|cx| {
            stream.with(|conn| {
                if conn.over {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused)));
                }
                if conn.open {
                    return Poll::Ready(Ok(()));
                }
                conn.waker = Some(cx.waker().clone());
                Poll::Pending
            })
        })
        .await?;
        Ok(stream)
    }

    /// The host's addresses, the one from which it sends by default first.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        self.state.borrow().addresses.clone()
    }

    /// Has the host see what its sockets want.
    fn poke(&self) {
        self.station.poke(self.slot);
    }
}

impl daemon::Net for SimNet {
    type Udp = UdpSocket;
    type Listener = TcpListener;
    type Stream = TcpStream;

    fn now(&self) -> Instant {
        self.station.now()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static {
        let station = Rc::clone(&self.station);
        async move {
            loop {
                let wait = station.turn_of(at);
                if wait > Duration::ZERO {
                    tokio::time::sleep(wait).await;
                }
                // The deadlines of a machine that sleeps wait until it wakes.
                match station.asleep_for() {
                    None if station.turn_of(at).is_zero() => return station.reached(at),
                    None => {}
                    Some(rest) => tokio::time::sleep(rest).await,
                }
            }
        }
    }

    async fn udp(&mut self, port: u16) -> io::Result<Vec<UdpSocket>> {
        Ok(vec![self.bind(port)?])
    }

    async fn listen(&mut self, port: u16) -> io::Result<Vec<TcpListener>> {
        Ok(vec![self.listen_on(port)?])
    }

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + 'static {
        let net = self.clone();
        async move { net.connect_to(to).await }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.own_addresses()
    }

    fn resolver(&self) -> Option<SocketAddr> {
        self.state.borrow().resolver
    }
}

/// A UDP socket of a simulated host, with the methods of tokio's that most code uses.
pub struct UdpSocket {
    net: SimNet,
    port: u16,
}

impl UdpSocket {
    /// The address that it is bound to.
    ///
    /// # Errors
    /// None; tokio's may fail.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port))
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// If it is longer than the path takes, as far as that is known.
    pub async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send(Datagram { addr: to, data: Bytes::copy_from_slice(data) })?;
        Ok(data.len())
    }

    /// Waits for a datagram; what is longer than the buffer is cut.
    ///
    /// # Errors
    /// If the host was crashed.
    pub async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut one = Vec::new();
        self.receive(&mut one, 1).await?;
        let datagram = one.pop().ok_or(io::ErrorKind::Interrupted)?;
        let len = datagram.data.len().min(into.len());
        into[..len].copy_from_slice(&datagram.data[..len]);
        Ok((len, datagram.addr))
    }

    async fn receive(&self, into: &mut Vec<Datagram>, most: usize) -> io::Result<()> {
        poll_fn(|cx| {
            let mut state = self.net.state.borrow_mut();
            if state.dead {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
            let Some(udp) = state.udp.get_mut(&self.port) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if udp.queue.is_empty() {
                udp.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let count = udp.queue.len().min(most);
            into.extend(udp.queue.drain(..count));
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn send(&self, datagram: Datagram) -> io::Result<()> {
        {
            let mut state = self.net.state.borrow_mut();
            // Headers of IP and UDP (RFC 791 §3.1, RFC 8200 §3, RFC 768).
            let headers = if datagram.addr.is_ipv4() { 28 } else { 48 };
            let fits =
                |mtu: &u32| datagram.data.len() + headers <= usize::try_from(*mtu).unwrap_or(usize::MAX);
            if !state.paths.get(&datagram.addr).is_none_or(fits) {
                return Err(too_big());
            }
            if state.dead {
                return Err(io::ErrorKind::NotConnected.into());
            }
            let Datagram { addr: to, data } = datagram;
            state.out.push_back(Output::Datagram { port: self.port, to, data });
        }
        self.net.poke();
        Ok(())
    }
}

/// What a socket says to a datagram that is longer than the path takes.
fn too_big() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "message too long")
}

impl daemon::Udp for UdpSocket {
    fn carries(&self, _: SocketAddr) -> bool {
        true
    }

    async fn recv(&self, into: &mut Vec<Datagram>) -> io::Result<()> {
        self.receive(into, 64).await
    }

    fn try_send(&self, queue: &mut VecDeque<Datagram>) -> io::Result<()> {
        while let Some(datagram) = queue.front() {
            self.send(datagram.clone())?;
            queue.pop_front();
        }
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_too_big(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::InvalidInput
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.net.state.borrow_mut().udp.remove(&self.port);
        let (slot, port) = (self.net.slot, self.port);
        self.net.station.with_host_of(&self.net.state, |host| host.close_udp(slot, port));
    }
}

/// A listening TCP socket of a simulated host.
pub struct TcpListener {
    net: SimNet,
    port: u16,
}

impl TcpListener {
    /// Waits for the next connection.
    ///
    /// # Errors
    /// If the host was crashed.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (conn, from) = poll_fn(|cx| {
            let mut state = self.net.state.borrow_mut();
            if state.dead {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::NotConnected)));
            }
            let Some(door) = state.doors.get_mut(&self.port) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            match door.queue.pop_front() {
                Some(next) => Poll::Ready(Ok(next)),
                None => {
                    door.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await?;
        Ok((TcpStream { net: self.net.clone(), conn }, from))
    }
}

impl daemon::Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let door = self.net.state.borrow_mut().doors.remove(&self.port);
        let (slot, port) = (self.net.slot, self.port);
        self.net.station.with_host_of(&self.net.state, |host| host.close_tcp(slot, port));
        // Nobody will accept them any more.
        for (conn, _) in door.into_iter().flat_map(|door| door.queue) {
            drop(TcpStream { net: self.net.clone(), conn });
        }
    }
}

/// A TCP connection of a simulated host.
pub struct TcpStream {
    net: SimNet,
    conn: ConnId,
}

impl TcpStream {
    fn with<R>(&self, f: impl FnOnce(&mut Conn) -> R) -> R {
        let mut state = self.net.state.borrow_mut();
        let dead = state.dead;
        let conn = state.conns.entry(self.conn).or_default();
        conn.over |= dead;
        f(conn)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let resume = self.with(|conn| {
            let Some(data) = conn.read.front_mut() else {
                if conn.over || conn.shut {
                    return Poll::Ready(false);
                }
                conn.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let len = data.len().min(into.remaining());
            into.put_slice(&data[..len]);
            data.advance(len);
            if data.is_empty() {
                conn.read.pop_front();
            }
            conn.unread -= len;
            let resume = conn.held && conn.unread < MOST_BYTES / 2;
            conn.held &= !resume;
            Poll::Ready(resume)
        });
        match resume {
            Poll::Pending => Poll::Pending,
            Poll::Ready(resume) => {
                if resume {
                    let hold = Output::Hold { conn: self.conn, hold: false };
                    self.net.state.borrow_mut().out.push_back(hold);
                    self.net.poke();
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let len = self.with(|conn| {
            if conn.over || conn.shut {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe)));
            }
            if conn.space == 0 && !data.is_empty() {
                conn.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let len = data.len().min(conn.space);
            conn.space -= len;
            Poll::Ready(Ok(len))
        });
        if let Poll::Ready(Ok(len)) = len {
            let data = Bytes::copy_from_slice(&data[..len]);
            self.net.state.borrow_mut().out.push_back(Output::Write { conn: self.conn, data });
            self.net.poke();
        }
        len
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nothing is read after it either: nobody here keeps a half-closed connection.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let first = self.with(|conn| !std::mem::replace(&mut conn.shut, true) && !conn.over);
        if first {
            self.net.state.borrow_mut().out.push_back(Output::Close { conn: self.conn });
            self.net.poke();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let mut state = self.net.state.borrow_mut();
        let conn = state.conns.remove(&self.conn);
        if state.dead || conn.is_none_or(|conn| conn.shut || conn.over) {
            return;
        }
        state.out.push_back(Output::Close { conn: self.conn });
        drop(state);
        self.net.poke();
    }
}
