//! What goes in and what comes out.

use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What a [`Device`](crate::Device) is made from.
#[derive(Clone)]
pub struct DeviceConfig {
    /// The Curve25519 private key. It is clamped where it is used (RFC 7748 §5).
    pub private_key: [u8; 32],
    /// Wall-clock time since 1970-01-01 UTC at the `now` that is given to [`Device::new`](crate::Device::new).
    /// It must be later than at any earlier start with the same key, or peers that remember us refuse our handshakes.
    pub epoch: Duration,
}

impl fmt::Debug for DeviceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceConfig").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// One peer.
#[derive(Clone)]
pub struct PeerConfig {
    /// Its Curve25519 public key.
    pub public_key: [u8; 32],
    /// A key that both sides know, mixed into the handshake; `None` is the all-zero key (paper §5.2).
    pub preshared_key: Option<[u8; 32]>,
    /// Send something at least this often, to keep NAT bindings open. Zero is taken as `None`.
    pub persistent_keepalive: Option<Duration>,
}

impl fmt::Debug for PeerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConfig")
            .field("public_key", &self.public_key)
            .field("preshared_key", &self.preshared_key.map(|_| "redacted"))
            .field("persistent_keepalive", &self.persistent_keepalive)
            .finish()
    }
}

/// Names a peer of one device. Never given out twice by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// Where a datagram came from; cookies are bound to it and sent back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// From this address.
    Udp(SocketAddr),
    /// Through a relay, from the node with this key.
    Relay([u8; 32]),
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To a peer, by whatever path or paths the caller has.
    Peer(PeerId),
    /// Back to where an unauthenticated datagram came from.
    Reply(Source),
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// First handshake message, 148 bytes.
    Initiation,
    /// Second handshake message, 92 bytes.
    Response,
    /// Cookie reply, 64 bytes.
    Cookie,
    /// A packet, 32 bytes longer than the padded packet.
    Data,
    /// An empty packet, 32 bytes.
    Keepalive,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: To,
    /// The datagram.
    pub data: Bytes,
    /// What it is.
    pub kind: Kind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet from a peer, without padding.
    Packet {
        /// Who sent it.
        peer: PeerId,
        /// The packet.
        data: Bytes,
    },
    /// A session was made or renewed, and is used for sending from now on.
    SessionUp {
        /// With whom.
        peer: PeerId,
        /// Whether we sent the initiation.
        initiator: bool,
    },
    /// The session used for sending expired and nothing has replaced it.
    SessionExpired {
        /// With whom.
        peer: PeerId,
    },
    /// No answer for REKEY-ATTEMPT-TIME (90 s). Queued packets were dropped; the next one starts again.
    HandshakeFailed {
        /// With whom.
        peer: PeerId,
    },
}

/// Why a datagram was not accepted. None of these changes any state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Unknown type, or a length that does not fit the type.
    #[error("not a WireGuard message")]
    Malformed,
    /// mac1 does not match: meant for another key, or altered.
    #[error("mac1 does not match")]
    BadMac,
    /// The initiation is in order, but its sender is not a peer of ours.
    #[error("handshake from an unknown peer")]
    UnknownPeer,
    /// No session or handshake of ours has this index: expired, replaced, or from before a restart.
    #[error("no session or handshake with this index")]
    UnknownIndex,
    /// Seen before, or too old to tell.
    #[error("replayed message")]
    Replay,
    /// The session is too old, or its counters are used up.
    #[error("session has expired")]
    Expired,
    /// Does not authenticate: altered, or made with other keys.
    #[error("message does not authenticate")]
    Forged,
}

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer was removed, or is of another device.
    #[error("no such peer")]
    UnknownPeer,
    /// Longer than [`MAX_PACKET`](crate::MAX_PACKET).
    #[error("packet is too long for a datagram")]
    TooLong,
    /// No bytes. For a keepalive use [`Device::keepalive`](crate::Device::keepalive).
    #[error("packet is empty")]
    Empty,
    /// It starts like an IP packet, but the length in its header is not its length.
    #[error("length in the IP header is not the packet's length")]
    IpLength,
}
