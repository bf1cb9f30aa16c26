//! What goes into a peer and what comes out.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// A TCP connection, numbered by the peer in [`Transmit::Connect`]. Numbers are not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

/// Something that happened around the peer.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Addresses of the local interfaces with the port of the UDP socket; at start and after every link change. The first
    /// is the one from which datagrams leave: with another one the machine is in another network, though the rest stay.
    Addresses(&'a [SocketAddr]),
    /// The resolver of the network, as a router advertisement (RFC 8106) or DHCPv6 (RFC 3646) tells it; before the addresses
    /// that came with it. A machine with IPv6 alone asks it for the prefix of a NAT64.
    Resolver(SocketAddr),
    /// The default gateway of the network; before the addresses that came with it. It is asked to open a port. Without this
    /// input, or with `None`, nobody is.
    Gateway(Option<IpAddr>),
    /// A datagram arrived at one of the ports to which gateways announce: 5350 (RFC 6886 §3.2.1) or SSDP's 1900.
    Announcement {
        /// Its source.
        from: SocketAddr,
        /// Its payload.
        data: &'a [u8],
    },
    /// Take another node key, drawn at random: others learn of it from the coordination server, and traffic goes on meanwhile.
    /// [`Event::Rotated`] tells when it is in force.
    Rotate,
    /// The program is about to end: what was asked of others is given back.
    Shutdown,
    /// A datagram arrived on the UDP socket.
    Datagram {
        /// Its source.
        from: SocketAddr,
        /// Its payload.
        data: &'a [u8],
    },
    /// An ICMP error says that a datagram to this address was too big for its path. Anybody may have sent it: it makes the
    /// peer measure the path.
    TooBig(SocketAddr),
    /// A connection is open.
    Connected(ConnId),
    /// Bytes arrived on a connection.
    Stream(ConnId, &'a [u8]),
    /// A connection takes that many bytes now (not in addition to what an earlier `Writable` said).
    Writable(ConnId, usize),
    /// A connection was refused, reset, timed out, or closed by the other side.
    Closed(ConnId),
    /// A program sent this IP packet into the tunnel; its destination picks the peer.
    Packet(&'a [u8]),
}

/// Something the peer wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// Send a datagram from the UDP socket.
    Datagram {
        /// Destination.
        to: SocketAddr,
        /// Payload.
        data: Bytes,
    },
    /// Open a TCP connection.
    Connect {
        /// Its number from now on.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Write to a connection; never more than the last [`Input::Writable`] said, less what was written since.
    Write {
        /// Which.
        conn: ConnId,
        /// The bytes.
        data: Bytes,
    },
    /// Close a connection, or give up opening it. Nothing more is expected of it.
    Close(ConnId),
}

/// The way of a tunnel packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Over the relay of this name.
    Relay(Arc<str>),
    /// Straight to this address of the other peer.
    Direct(SocketAddr),
    /// Straight to this address, which is private and one of the other peer's own interfaces.
    Lan(SocketAddr),
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Relay(name) => write!(f, "relay {name}"),
            Via::Direct(address) => write!(f, "direct {address}"),
            Via::Lan(address) => write!(f, "lan {address}"),
        }
    }
}

/// State of the connection to a relay or to the coordination server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerState {
    /// A TCP connection is being opened.
    Connecting,
    /// Handshake done, usable.
    Connected,
    /// The attempt failed or timed out.
    Failed,
    /// It was usable and is no longer, or an attempt was given up because nobody needs it.
    Closed,
}

/// Something the peer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An IP packet came out of the tunnel: authenticated, and with the tunnel addresses of sender and receiver.
    Packet {
        /// Who sent it.
        peer: Arc<str>,
        /// The packet.
        data: Bytes,
        /// The way it came.
        via: Via,
    },
    /// The coordination server accepted the peer.
    Registered {
        /// Its address inside the tunnel network.
        tunnel: IpAddr,
        /// The same in IPv6, where the network has such addresses.
        tunnel6: Option<Ipv6Addr>,
    },
    /// The peer has its addresses of the last start, from a map that was kept: it is of the network while the coordination server
    /// has not said otherwise.
    Remembered {
        /// Its address inside the tunnel network.
        tunnel: IpAddr,
        /// The same in IPv6, where the network has such addresses.
        tunnel6: Option<Ipv6Addr>,
    },
    /// The coordination server knows the peer, and an administrator has to let it in.
    Waiting,
    /// A new node key is in force. [`Peer::private_key`](crate::Peer::private_key) is to be kept for another start; who starts
    /// with the one before goes back to it.
    Rotated {
        /// The public key.
        node_key: [u8; 32],
    },
    /// The connection to the coordination server changed.
    Coordinator {
        /// New state.
        state: ServerState,
        /// Address tried.
        address: SocketAddr,
        /// Why; empty when there is nothing to say.
        reason: String,
    },
    /// The connection to a relay changed.
    Relay {
        /// Which.
        relay: Arc<str>,
        /// New state.
        state: ServerState,
        /// Address tried.
        address: SocketAddr,
        /// Why; empty when there is nothing to say.
        reason: String,
    },
    /// A STUN server told a reflexive address.
    Reflexive {
        /// The server.
        server: SocketAddr,
        /// The address it saw.
        mapped: SocketAddr,
        /// Round trip.
        rtt: Duration,
    },
    /// What the peer believes of its own NAT changed.
    NatLearned {
        /// Does the mapping vary by destination? `None`: cannot tell.
        mapping_varies: Option<bool>,
        /// Did no STUN server answer?
        udp_blocked: bool,
        /// The addresses that it now offers.
        candidates: Vec<SocketAddr>,
    },
    /// Candidates of another peer became known.
    Candidates {
        /// Whose.
        peer: Arc<str>,
        /// The candidates.
        candidates: Vec<SocketAddr>,
        /// "coordinator", "relay" (a call-me-maybe) or "peer-reflexive".
        via: &'static str,
    },
    /// A connectivity check went out.
    Probe {
        /// To whom.
        peer: Arc<str>,
        /// Where to.
        to: SocketAddr,
        /// How many went to this address in this round (or liveness check) before it.
        attempt: u32,
        /// "check", "triggered", "keep-alive" or "liveness".
        why: &'static str,
    },
    /// A check was answered: the path works both ways.
    Validated {
        /// With whom.
        peer: Arc<str>,
        /// Remote address.
        address: SocketAddr,
        /// Round trip.
        rtt: Duration,
    },
    /// The path on which tunnel packets go to a peer changed.
    PathChanged {
        /// To whom.
        peer: Arc<str>,
        /// The new path; `None`: there is none at the moment.
        path: Option<Via>,
        /// Why.
        reason: &'static str,
    },
    /// A tunnel session with a peer came up.
    Session {
        /// With whom.
        peer: Arc<str>,
        /// Did this side start the handshake?
        initiator: bool,
    },
    /// What came of asking the router for an open port.
    PortMapping {
        /// "mapped", "lost", "unusable", "refused", "gateway-restarted" or "no-gateway".
        what: &'static str,
        /// "pcp", "nat-pmp" or "upnp"; empty where it is about all.
        protocol: &'static str,
        /// The address outside that it is about.
        external: Option<SocketAddr>,
        /// Why; empty when there is nothing to say.
        reason: String,
    },
    /// The network's access rules forbid what another peer has sent. Told once of each kind until the rules change.
    Forbidden {
        /// Who sent it.
        peer: Arc<str>,
        /// The IP protocol number; 0 for what is no IP packet.
        protocol: u8,
        /// The port here, where the protocol has ports.
        port: Option<u16>,
    },
    /// An error that was handled.
    Warning {
        /// In words.
        what: String,
    },
}
