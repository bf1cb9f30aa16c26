//! What goes into a client and what comes out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::Protocol;

/// A connection that the client opens, numbered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

/// What a client is told when it is made. Another network is another client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Our address on the LAN, and the UDP port that is to be mapped.
    pub local: SocketAddr,
    /// The default gateway.
    pub gateway: IpAddr,
    /// Whether PCP is tried.
    pub pcp: bool,
    /// Whether NAT-PMP is tried.
    pub nat_pmp: bool,
    /// Whether UPnP is tried.
    pub upnp: bool,
    /// The lifetime that is asked for. Default 7200 s (RFC 6886 §3.3).
    pub lifetime: Duration,
    /// What UPnP's mapping is called.
    pub text: String,
}

impl ClientConfig {
    /// All protocols, the recommended lifetime. A gateway of IPv6 is asked by PCP alone: NAT-PMP is about IPv4 (RFC 6886
    /// §1.1), and the search for UPnP goes to a group of IPv4.
    pub fn new(local: SocketAddr, gateway: IpAddr) -> ClientConfig {
        ClientConfig {
            local,
            gateway,
            pcp: true,
            nat_pmp: gateway.is_ipv4(),
            upnp: gateway.is_ipv4(),
            lifetime: Duration::from_secs(7200),
            text: "punchbag".into(),
        }
    }
}

/// Something that happened around the client.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram on the socket from which the client's datagrams are sent, from the gateway's port 5351 or 1900.
    Datagram {
        /// Who sent it.
        from: SocketAddr,
        /// Its payload.
        data: &'a [u8],
    },
    /// A datagram on port 5350, to which gateways announce (RFC 6886 §3.2.1), or on SSDP's 1900.
    Announcement {
        /// Who sent it.
        from: SocketAddr,
        /// Its payload.
        data: &'a [u8],
    },
    /// A connection takes that many bytes now. At the latest then it is open.
    Writable(ConnId, usize),
    /// Bytes arrived on a connection.
    Stream(ConnId, &'a [u8]),
    /// A connection was refused, reset, or closed by the other side.
    Closed(ConnId),
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A datagram; the destination may be SSDP's multicast group.
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
    /// Write to a connection; never more than [`Input::Writable`] said, less what was written since.
    Write {
        /// Which.
        conn: ConnId,
        /// The bytes.
        data: Bytes,
    },
    /// Close a connection. Nothing more is expected of it.
    Close(ConnId),
}

/// Something to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The port is mapped, or is mapped elsewhere than before.
    Mapped {
        /// By which protocol.
        protocol: Protocol,
        /// At this address outside.
        external: SocketAddr,
        /// For how long at first; it is renewed.
        lifetime: Duration,
    },
    /// The port is mapped no longer.
    Lost {
        /// Where it was.
        external: SocketAddr,
        /// Why.
        why: &'static str,
    },
    /// The gateway gave a mapping on an address that cannot be reached from the internet; it was given back.
    Unusable {
        /// By which protocol.
        protocol: Protocol,
        /// The address.
        external: SocketAddr,
    },
    /// The gateway speaks a protocol, but refuses.
    Refused {
        /// Which.
        protocol: Protocol,
        /// Why, in its words.
        why: String,
    },
    /// The gateway has lost its mappings: its epoch began anew.
    Restarted {
        /// By which protocol it was seen.
        protocol: Protocol,
    },
    /// No protocol led to a mapping; it will be tried again.
    NoGateway,
}
