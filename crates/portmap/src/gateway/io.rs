//! What goes into a gateway and what comes out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::{Proto, Protocol};

/// A connection to the gateway's HTTP port, numbered by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A request to the owner, numbered by the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something that happened around the gateway.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Its address outside, at the start and whenever it changes. With another one all mappings are gone.
    External(Option<IpAddr>),
    /// A datagram from the LAN.
    Datagram {
        /// The port that it came to: [`SERVER_PORT`](crate::SERVER_PORT), or SSDP's 1900.
        to: u16,
        /// Who sent it.
        from: SocketAddr,
        /// Its payload.
        data: &'a [u8],
    },
    /// Somebody connected to the HTTP port.
    Accepted {
        /// The connection.
        conn: ConnId,
        /// Who.
        from: SocketAddr,
    },
    /// Bytes arrived on a connection.
    Stream {
        /// Which.
        conn: ConnId,
        /// The bytes.
        data: &'a [u8],
    },
    /// A connection takes that many bytes now (not in addition to what an earlier `Writable` said).
    Writable {
        /// Which.
        conn: ConnId,
        /// Bytes.
        space: usize,
    },
    /// A connection is gone.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// What came of a request to the owner.
    Answer {
        /// Which.
        id: RequestId,
        /// The external endpoint, or why there is none.
        result: Result<SocketAddr, MapError>,
    },
}

/// Why the NAT opens no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Somebody has that port, and no other would do.
    #[error("the port is taken")]
    Taken,
    /// There is no port left, or no space for another mapping.
    #[error("no space")]
    Full,
    /// This NAT cannot do that.
    #[error("not supported")]
    Unsupported,
}

/// Something the owner is asked to do to the NAT. A mapping lives until it is ended by `Unmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Let everybody reach an inside endpoint (the endpoint-independent mapping and filtering of RFC 4787). For an IPv6
    /// endpoint: open the firewall for it, the outside endpoint being the same.
    Map {
        /// For the answer.
        id: RequestId,
        /// Transport.
        proto: Proto,
        /// The inside endpoint.
        inside: SocketAddr,
        /// The external port that it should have; `None`: any.
        port: Option<u16>,
        /// Whether no other port would do.
        exact: bool,
    },
    /// Make, or keep for as long as it is not ended, the mapping of an inside endpoint towards one other (PCP's PEER).
    Peer {
        /// For the answer.
        id: RequestId,
        /// Transport.
        proto: Proto,
        /// The inside endpoint.
        inside: SocketAddr,
        /// The other end.
        remote: SocketAddr,
        /// The external port that it should have; `None`: any.
        port: Option<u16>,
    },
    /// End a mapping. Not answered.
    Unmap {
        /// Transport.
        proto: Proto,
        /// The inside endpoint.
        inside: SocketAddr,
        /// The external endpoint.
        external: SocketAddr,
        /// The other end, if it was made by `Peer`.
        remote: Option<SocketAddr>,
    },
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A datagram into the LAN; the destination may be a multicast group.
    Datagram {
        /// The port to send it from.
        port: u16,
        /// Destination.
        to: SocketAddr,
        /// Payload.
        data: Bytes,
    },
    /// Bytes for a connection; never more than the last [`Input::Writable`] said, less what was written since.
    Write {
        /// Which.
        conn: ConnId,
        /// The bytes.
        data: Bytes,
    },
    /// Close a connection. Nothing more is expected of it.
    Close {
        /// Which.
        conn: ConnId,
    },
}

/// Something that happened to a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A port was opened, or its lease renewed.
    Mapped {
        /// By which protocol.
        protocol: Protocol,
        /// Transport.
        proto: Proto,
        /// For whom.
        inside: SocketAddr,
        /// Outside.
        external: SocketAddr,
        /// How long; `None`: for ever.
        lifetime: Option<Duration>,
        /// Whether it was there before.
        renewed: bool,
    },
    /// A port was closed.
    Unmapped {
        /// Transport.
        proto: Proto,
        /// For whom it was.
        inside: SocketAddr,
        /// Outside.
        external: SocketAddr,
        /// "deleted", "expired", "forgotten" or "address changed".
        why: &'static str,
    },
    /// A mapping was refused.
    Refused {
        /// By which protocol.
        protocol: Protocol,
        /// Who asked.
        from: SocketAddr,
        /// Why, in the protocol's words.
        why: String,
    },
}
