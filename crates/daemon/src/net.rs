//! What [`drive`](crate::drive()) needs of a machine: sockets, a clock, its addresses.

use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};

/// A datagram with its other end: the source of one that came in, the destination of one that goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The other end.
    pub addr: SocketAddr,
    /// The payload.
    pub data: Bytes,
}

/// A machine's network. Futures need not be `Send`: a world in which each host is one thread implements it too.
pub trait Net {
    /// A bound UDP socket.
    type Udp: Udp;
    /// A listening TCP socket.
    type Listener: Listener<Stream = Self::Stream>;
    /// A TCP connection. Nagle's algorithm is off.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// The time.
    fn now(&self) -> Instant;

    /// Waits until that time. May be late.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static;

    /// Binds a UDP port on all addresses: one socket for each IP version that the machine has. At least one, or an error.
    fn udp(&mut self, port: u16) -> impl Future<Output = io::Result<Vec<Self::Udp>>>;

    /// Listens on a TCP port on all addresses. At least one listener, or an error.
    fn listen(&mut self, port: u16) -> impl Future<Output = io::Result<Vec<Self::Listener>>>;

    /// Opens a TCP connection.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + 'static;

    /// The machine's addresses, the one from which datagrams leave by default first. Asked again and again: see
    /// [`Limits::look`](crate::Limits::look).
    fn addresses(&self) -> Vec<IpAddr>;

    /// Waits until its addresses may have changed, where the system tells: then they are asked for at once.
    fn changed(&self) -> impl Future<Output = ()> + 'static {
        std::future::pending()
    }

    /// The resolver of its network, where that is known.
    fn resolver(&self) -> Option<SocketAddr> {
        None
    }
}

/// A UDP socket.
pub trait Udp: 'static {
    /// Whether it can send to that address: whether it is of that IP version.
    fn carries(&self, to: SocketAddr) -> bool;

    /// Waits until something came in and appends it, a bounded number at a time. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of the system. The caller asks again, after a moment.
    fn recv(&self, into: &mut Vec<Datagram>) -> impl Future<Output = io::Result<()>>;

    /// Sends from the front of the queue what can be sent at once, and removes that.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when the rest has to wait for [`writable`](Udp::writable); anything else is about
    /// the datagram that is at the front now.
    fn try_send(&self, queue: &mut VecDeque<Datagram>) -> io::Result<()>;

    /// Waits until it is worth trying to send again.
    ///
    /// # Errors
    /// Those of the system.
    fn writable(&self) -> impl Future<Output = io::Result<()>>;

    /// Whether an error of [`try_send`](Udp::try_send) says that the datagram is longer than the link takes.
    fn is_too_big(_error: &io::Error) -> bool {
        false
    }
}

/// A listening TCP socket.
pub trait Listener: 'static {
    /// What it accepts.
    type Stream;

    /// Waits for the next connection, and says from whom it is. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of the system, such as too many open files. The caller asks again, after a moment.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;
}
