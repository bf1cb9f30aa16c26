//! What peers and UDP relay servers say to each other (`disco/disco.go`).

use std::net::SocketAddr;
use std::time::Duration;

use crate::PublicKey;

/// A message, without its envelope. IPv4 addresses travel as IPv4-mapped IPv6 and come back as IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// 0x01: are you there, on this path?
    Ping {
        /// Chosen at random; the pong repeats it.
        tx: [u8; 12],
        /// The sender's WireGuard key, so that an unknown disco key can be tied to a known peer. Absent in old senders;
        /// all zeros is the same as absent.
        node_key: Option<[u8; 32]>,
        /// Zero bytes after the rest, to probe the path's MTU.
        padding: usize,
    },
    /// 0x02: yes.
    Pong {
        /// The ping's.
        tx: [u8; 12],
        /// Where the ping came from, as its receiver saw it.
        src: SocketAddr,
    },
    /// 0x03: ping me at these, I have just pinged you.
    CallMeMaybe {
        /// The sender's own endpoints. A list of another version or of a bad length is read as empty.
        endpoints: Vec<SocketAddr>,
    },
    /// 0x04: a client asks a UDP relay server to bind its address. The challenge is padding.
    BindUdpRelayEndpoint(Bind),
    /// 0x05: the server's challenge.
    BindUdpRelayEndpointChallenge(Bind),
    /// 0x06: the client's answer, which repeats the challenge.
    BindUdpRelayEndpointAnswer(Bind),
    /// 0x07: ping me through this UDP relay endpoint.
    CallMeMaybeVia(RelayEndpoint),
    /// 0x08: asks a UDP relay server for an endpoint between two clients.
    AllocateUdpRelayEndpointRequest {
        /// The two clients.
        clients: [PublicKey; 2],
        /// Repeated in the response.
        generation: u32,
    },
    /// 0x09: the endpoint that was asked for.
    AllocateUdpRelayEndpointResponse {
        /// The request's.
        generation: u32,
        /// The endpoint.
        endpoint: RelayEndpoint,
    },
}

/// The common part of the three messages of the UDP relay handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The virtual network that the server gave to this pair of clients, 24 bits.
    pub vni: u32,
    /// The handshake's number, not zero.
    pub generation: u32,
    /// The disco key of the other client.
    pub remote: PublicKey,
    /// Proof that the client receives at its address.
    pub challenge: [u8; 32],
}

/// An endpoint on a UDP relay server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayEndpoint {
    /// The server's disco key.
    pub server: PublicKey,
    /// The two clients.
    pub clients: [PublicKey; 2],
    /// Orders endpoints of one server.
    pub lamport: u64,
    /// The virtual network, 24 bits.
    pub vni: u32,
    /// How long the clients may take to bind. Nanoseconds on the wire.
    pub bind_lifetime: Duration,
    /// How long the endpoint lives without traffic. Nanoseconds on the wire.
    pub steady_lifetime: Duration,
    /// Where the server listens; at least one, or the receiver refuses the message.
    pub addresses: Vec<SocketAddr>,
}
