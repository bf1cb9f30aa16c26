//! What a relay is told when it is made, and what it tells.

use bytes::Bytes;
use std::{net::SocketAddr, time::Duration};

use crate::{
    frame::FrameError,
    info::{ClientInfo, RateLimit},
    keys::{MeshKey, PublicKey},
    queue::Class,
    websocket::WebSocketError,
};

#[cfg(doc)]
use super::{HANDSHAKE_TIMEOUT, HELD_BYTES, Server, WRITE_TIMEOUT};

/// The caller's name for a connection. Must not be used again for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Whether connections begin with the HTTP/1.1 upgrade. If not, frames come at once.
    pub upgrade: bool,
    /// Path of the upgrade.
    pub path: String,
    /// What each client may send, in bytes of the stream. Beyond it the server stops to read from the client
    /// ([`ServerTransmit::Hold`]), whose TCP then waits. The server tells clients of it.
    pub rate_limit: Option<RateLimit>,
    /// The secret of the relays of this region. A client that shows it is a relay and may use the frames of the mesh.
    pub mesh_key: Option<MeshKey>,
    /// Whether clients must be admitted: see [`ServerEvent::Admission`].
    pub admission: bool,
    /// For how long after the start of the server packets for clients that are not connected wait for them, at most
    /// [`HELD_BYTES`] in all: after a restart they all come back, but not all at once.
    pub hold_at_start: Duration,
    /// Connections at most, handshakes included.
    pub max_connections: usize,
    /// Clients that each of the other relays of the region may name, at most.
    pub max_mesh_clients: usize,
    /// Connections from one address at most; IPv6 addresses count by their network of 64 bits, which one machine has whole
    /// (RFC 8981). A carrier's NAT may have many subscribers on one address.
    pub max_per_source: usize,
}

impl Default for ServerConfig {
    /// Upgrade at `/derp`, for everybody, no rate limit, nothing held, 65,536 connections, 1,024 from one address, 65,536
    /// clients at each of the other relays.
    fn default() -> Self {
        Self {
            upgrade: true,
            path: "/derp".into(),
            rate_limit: None,
            mesh_key: None,
            admission: false,
            hold_at_start: Duration::ZERO,
            max_connections: 1 << 16,
            max_mesh_clients: 1 << 16,
            max_per_source: 1024,
        }
    }
}

/// How a relay restarts: see [`Server::shutdown`]. On the wire times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// When clients should connect anew, from now.
    pub reconnect_in: Duration,
    /// Each of them is told a time of its own, up to this much later, so that they do not come back in one burst
    /// (`RestartingMessage`, tailscale `derp/derp.go`, leaves that to the server).
    pub spread: Duration,
    /// For how long they should keep trying from then on before they take the relay for gone; a few seconds.
    pub try_for: Duration,
    /// For how long they are still served.
    pub grace: Duration,
}

/// What to do with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTransmit {
    /// Append to the stream. Never more than the credit given by [`Server::writable`].
    Write {
        /// Which stream.
        conn: ConnId,
        /// Never empty.
        data: Bytes,
    },
    /// Stop reading from the stream, or go on. What was read before is still to be given.
    Hold {
        /// Which stream.
        conn: ConnId,
        /// Whether to stop.
        hold: bool,
    },
    /// Write what was given before, then close. The server has forgotten the connection.
    Close {
        /// Which stream.
        conn: ConnId,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaveReason {
    /// The caller said that the stream is closed.
    #[error("connection closed")]
    Closed,
    /// The client did not finish its handshake within [`HANDSHAKE_TIMEOUT`].
    #[error("handshake took too long")]
    HandshakeTimeout,
    /// The client did not take a frame within [`WRITE_TIMEOUT`].
    #[error("client reads too slowly")]
    WriteTimeout,
    /// The client sent something that is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The first frame was not a ClientInfo.
    #[error("no client info where one was due")]
    NoClientInfo,
    /// The ClientInfo was not sealed by the key it names, or held no JSON object.
    #[error("client info does not open")]
    BadClientInfo,
    /// What came in is no WebSocket's, where one was opened.
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    /// The server's owner did not admit the client, or no longer does.
    #[error("not admitted")]
    NotAdmitted,
    /// A relay of the region asked for the client to be disconnected.
    #[error("closed by another relay of the region")]
    ClosedByMesh,
    /// The server has as many connections as it takes, or as many from this address.
    #[error("too many connections")]
    TooMany,
    /// The client used a frame that is reserved for servers of one mesh.
    #[error("mesh frame from a client outside the mesh")]
    NotMesh,
    /// An HTTP request that is complete with its response: no upgrade.
    #[error("HTTP request answered")]
    Http,
    /// The server shuts down.
    #[error("server shuts down")]
    Shutdown,
}

/// Why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The receiver is not connected here.
    UnknownDestination,
    /// Newer packets of the same class filled the receiver's queue.
    QueueFull,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// May this client use the relay? Answer with [`Server::admit`](super::Server::admit); until then, and for as long as a
    /// handshake may take, it waits. Asked only if [`ServerConfig::admission`] says so, and not about relays of the mesh.
    Admission {
        /// Its connection.
        conn: ConnId,
        /// Its key, proven.
        key: PublicKey,
        /// Where it connects from.
        remote: SocketAddr,
    },
    /// A client finished its handshake.
    ClientJoined {
        /// Its connection.
        conn: ConnId,
        /// Its key.
        key: PublicKey,
        /// Where it connects from.
        remote: SocketAddr,
        /// What it says of itself. The mesh key is left out.
        info: ClientInfo,
    },
    /// The connection of a client ended. The client may have others.
    ClientLeft {
        /// Its connection.
        conn: ConnId,
        /// Its key.
        key: PublicKey,
        /// Why.
        why: LeaveReason,
    },
    /// A connection ended before its handshake did.
    Refused {
        /// The connection.
        conn: ConnId,
        /// Where it came from.
        remote: SocketAddr,
        /// Why.
        why: LeaveReason,
    },
    /// A client says whether this is its home relay.
    Preferred {
        /// The client.
        key: PublicKey,
        /// Whether it is.
        home: bool,
    },
    /// A packet was not delivered.
    Dropped {
        /// Its sender.
        src: PublicKey,
        /// Its receiver.
        dst: PublicKey,
        /// Its length.
        bytes: usize,
        /// Which queue it was for.
        class: Class,
        /// Why.
        why: DropReason,
    },
}
