//! What runs on a host. Our own peer, relay, STUN server and coordination server are programs; foreign traversal code
//! plugs in at the same place.
//!
//! A [`Program`] is sans-IO: whoever owns the sockets (the simulator's hosts, or the daemon on a real machine) gives it what
//! came in, drains what it wants done, and calls it again at its deadline:
//!
//! ```
//! use program::{Input, Output, Program, STUN_PORT, StunProgram};
//! use std::time::Instant;
//!
//! let (mut program, now) = (StunProgram::new(), Instant::now());
//! program.handle(Input::Addresses(&["192.0.2.1".parse()?]), now);
//! let (from, data) = ("198.51.100.7:4000".parse()?, "no STUN message".into());
//! program.handle(Input::Datagram { port: STUN_PORT, from, data: &data }, now);
//! assert!(program.poll_output().is_none(), "what it cannot read it does not answer");
//! assert!(program.poll_timeout().is_none());
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! It opens no socket and knows no clock; neither does anything that it is made of.

mod admission;
mod error;
mod gateway;
mod mesh;
mod peer;
mod proxy;
mod secure;
mod servers;
mod upstream;
pub mod userspace;
pub mod wire;

pub use self::error::ErrorKind;
pub use self::gateway::GatewayProgram;
pub use self::mesh::Sibling;
pub use self::peer::{FIRST_OF_USERS, PEER_PORT, PeerProgram, UserOutput, Users};
pub use self::proxy::ProxyProgram;
pub use self::secure::{Secured, Security};
pub use self::servers::{
    COORDINATOR_PORTS, CoordinatorProgram, RELAY_HOLD, RELAY_PORTS, RelayProgram, ResolverProgram, STUN_PORT,
    StunProgram, TLS_PORT,
};
pub use self::upstream::Upstream;

use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A TCP connection of one program. The program chooses the numbers of those that it opens, from 0; the host those of the
/// ones that it accepts, from [`ConnId::FIRST_ACCEPTED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl ConnId {
    /// Number of the first accepted connection.
    pub const FIRST_ACCEPTED: u64 = 1 << 32;
}

/// What a host tells a program.
#[derive(Debug)]
pub enum Input<'a> {
    /// The host's addresses, at the start and whenever they change.
    Addresses(&'a [IpAddr]),
    /// The resolver of the host's network; before the addresses. Told where the network has a NAT64.
    Resolver(SocketAddr),
    /// A datagram for one of its UDP ports.
    Datagram {
        /// The local port.
        port: u16,
        /// Who sent it, as seen here.
        from: SocketAddr,
        /// The payload.
        data: &'a Bytes,
    },
    /// Somebody connected to one of its TCP ports.
    Accepted {
        /// The new connection.
        conn: ConnId,
        /// The local port.
        port: u16,
        /// Who, as seen here.
        from: SocketAddr,
    },
    /// A connection that it opened is established.
    Connected {
        /// Which.
        conn: ConnId,
    },
    /// Bytes in order.
    Stream {
        /// Which connection.
        conn: ConnId,
        /// The bytes.
        data: &'a Bytes,
    },
    /// How many bytes the connection would take now; told whenever it has grown.
    Writable {
        /// Which connection.
        conn: ConnId,
        /// Bytes.
        space: usize,
    },
    /// An ICMP error about a datagram that one of its UDP ports had sent, or one that the host could not send itself.
    Error {
        /// The local port.
        port: u16,
        /// Where the datagram was going.
        to: SocketAddr,
        /// What is wrong, as the error says. Anybody may have sent it (RFC 5927 §2): it is a hint.
        kind: ErrorKind,
    },
    /// What came of an [`Output::Map`] of a program on a router.
    Mapped {
        /// Which.
        id: portmap::gateway::RequestId,
        /// The external endpoint, or why there is none.
        result: Result<SocketAddr, portmap::gateway::MapError>,
    },
    /// The connection is gone: refused, reset, timed out, or closed by the other side. Its number is not used again.
    Closed {
        /// Which connection.
        conn: ConnId,
    },
    /// The program is to end: what it was given by others goes back, and whoever relies on it is told. It is driven on until
    /// it [is finished](Program::is_finished), for as long as its owner has patience. A kill comes without this.
    Shutdown,
}

/// What a program asks of its host. What is rare and large is boxed: each packet is moved as one of these.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// The local port, one of [`Program::udp_ports`].
        port: u16,
        /// Destination.
        to: SocketAddr,
        /// Payload.
        data: Bytes,
    },
    /// Open a TCP connection.
    Connect {
        /// Its number, not used before.
        conn: ConnId,
        /// Destination.
        to: SocketAddr,
    },
    /// Write to a connection. What exceeds its space is an error of the program and reported as such.
    Write {
        /// Which connection.
        conn: ConnId,
        /// The bytes.
        data: Bytes,
    },
    /// Stop reading from a connection, so that its receive window closes and its sender is slowed down; or go on.
    Hold {
        /// Which connection.
        conn: ConnId,
        /// Whether to stop.
        hold: bool,
    },
    /// Close a connection after what was written has gone out.
    Close {
        /// Which connection.
        conn: ConnId,
    },
    /// Open or close a port of the NAT. Only a router has one; elsewhere nothing is opened.
    Map(Box<portmap::gateway::Request>),
    /// Something for the log.
    Event(Box<trace::Event>),
}

/// A program on a host, sans-IO: mutate, then drain [`poll_output`](Program::poll_output), then ask for the
/// deadline.
pub trait Program: std::any::Any {
    /// The UDP ports it binds when it starts.
    fn udp_ports(&self) -> Vec<u16>;

    /// The TCP ports it listens on when it starts.
    fn tcp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    /// Something came in.
    fn handle(&mut self, input: Input<'_>, now: Instant);

    /// Time has come to, or past, the deadline.
    fn handle_timeout(&mut self, now: Instant);

    /// When it wants to be called next, and what for.
    fn poll_timeout(&self) -> Option<(Instant, &'static str)>;

    /// What it wants done; called until there is no more.
    fn poll_output(&mut self) -> Option<Output>;

    /// Whether nothing is left to do after [`Input::Shutdown`], apart from sending what has been put out.
    fn is_finished(&self) -> bool {
        true
    }
}

/// Nanoseconds of a duration, for the log.
pub fn nanos(d: Duration) -> u64 {
    // 2^64 ns are 584 years.
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
