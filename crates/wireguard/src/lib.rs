//! The encrypted tunnel: WireGuard (Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", the
//! *paper* below) as a sans-IO core that talks to any other implementation.
//!
//! A [`Device`] is one private key and its peers. It takes packets to send, datagrams that arrived and
//! the time, and gives datagrams to send, packets that arrived and its next deadline. Time, wall clock and
//! randomness are arguments, so one seed and one sequence of calls give the same bytes every time.
//!
//! It does **not** open sockets, choose paths, keep endpoints or look into packets for routing: a
//! [`Transmit`] names the peer, and the caller knows the ways to it. A datagram that [`Device::handle_datagram`]
//! answers with `Ok(Some(peer))` was made by that peer, just now: the moment to roam or to refresh trust in a path.
//!
//! # Driving it
//! ```
//! use rand::SeedableRng;
//! use std::time::{Duration, Instant};
//! use wireguard::{Device, DeviceConfig, Event, PeerConfig, Source, public_key};
//!
//! # #[allow(clippy::disallowed_methods)]
//! # fn clock() -> Instant { Instant::now() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (now, epoch) = (clock(), Duration::from_secs(1_700_000_000));
//! let device = |private_key, seed| {
//!     Device::new(DeviceConfig { private_key, epoch }, rand_chacha::ChaCha12Rng::seed_from_u64(seed), now)
//! };
//! let (mut alice, mut bob) = (device([1; 32], 1), device([2; 32], 2));
//! let peer = |key: [u8; 32]| PeerConfig { public_key: public_key(&key), preshared_key: None, persistent_keepalive: None };
//! let to_bob = alice.add_peer(peer([2; 32]));
//! bob.add_peer(peer([1; 32]));
//!
//! alice.send(to_bob, b"hello", now)?; // no session yet: queued, a handshake starts
//! let from = Source::Udp("192.0.2.1:51820".parse()?);
//! loop {
//!     // A real loop sleeps until `poll_timeout` and calls `handle_timeout`; on this wire nothing takes time.
//!     let (a, b) = (alice.poll_transmit(), bob.poll_transmit());
//!     if a.is_none() && b.is_none() { break }
//!     if let Some(transmit) = a { bob.handle_datagram(&transmit.data, from, now)?; }
//!     if let Some(transmit) = b { alice.handle_datagram(&transmit.data, from, now)?; }
//! }
//! let packets: Vec<_> = std::iter::from_fn(|| bob.poll_event())
//!     .filter_map(|event| match event { Event::Packet { data, .. } => Some(data), _ => None })
//!     .collect();
//! assert_eq!(packets, [&b"hello"[..]]);
//! # Ok(())
//! # }
//! ```
//!
//! # When both sides start at once
//! Hole punching makes both sides send an initiation before either has one, so the rule for crossing
//! handshakes is part of the design and not an accident of timing:
//!
//! 1. **Both handshakes run to their end.** A side answers an initiation although its own is on its way, and keeps
//!    its own. Either of them alone is enough, so losing one (the first packet into a NAT that is not open yet) costs nothing.
//! 2. **Keys are in place before they are used against us.** The responder installs a session before it sends the
//!    response, the initiator when it reads it, and a session stays readable until it expires, whichever session
//!    is used for sending. Nothing that the other side can have encrypted is unreadable.
//! 3. **One session is sent on.** When both handshakes have ended, each side prefers the one that was *initiated by the side
//!    with the smaller public key*. Both know both keys, so they agree without a further message. Two sessions
//!    are taken as crossing only if the peer's initiation arrived while ours was unanswered; otherwise the newer one is used,
//!    which is what a peer that lost its state needs.
//! 4. **A confirmed session ends an attempt.** If the peer's session is confirmed before our initiation is answered, ours is given up.
//!
//! When datagrams overtake each other by more than a round trip, the sides may settle on different sessions. Both stay
//! readable, so that is a matter of two sessions instead of one, never of a lost packet.
//!
//! # Two paths at once
//! Every datagram may arrive twice, late and in any order. Counters and TAI64N labels make second copies [`Error::Replay`],
//! and a response is accepted for any of the last three initiations of an attempt, so that a path slower
//! than the retry interval still completes a handshake (the paper keeps only the newest).
//!
//! # Departures from the paper and from the Linux driver
//! - The responder also renews a session, 165 s after it was made, if it sends; the paper leaves that to the initiator alone (§6.2).
//! - Up to four sessions per peer instead of three, for the crossing twin.
//! - Session keys are dropped at REJECT-AFTER-TIME (180 s), when they cannot be used any more, not at three times that (§6.3).
//!   Handshake keys go with the attempt, after 90 s at most, cookies after 120 s. Dropped memory is freed, not overwritten.
//! - Packets that do not start like IPv4 or IPv6 are carried too. Padding can only be taken off by a length in the
//!   packet, so they are not padded; and a packet that looks like IP must state its own length correctly.
//! - Padding ignores the MTU: an inner MTU that is a multiple of 16 is never exceeded.
//! - TAI64N labels are exact and strictly increasing; Linux rounds them to 16.8 ms.
//! - Under load there is no further rate limit per address after a correct mac2 (§5.3).
//! - A clock that was set back makes a peer refuse our initiations until it has caught up (§5.1).

mod device;
mod mac;
mod message;
mod noise;
mod peer;
mod replay;
mod session;
mod types;

pub use device::Device;
pub use noise::public_key;
pub use types::{DeviceConfig, Error, Event, Kind, PeerConfig, PeerId, SendError, Source, To, Transmit};

/// The largest UDP payload over IPv4: 65,535 bytes (RFC 791 §3.1) less its header and UDP's (RFC 768).
const MAX_DATAGRAM: usize = 65_535 - 20 - 8;
/// The longest packet that [`Device::send`] takes, in bytes.
pub const MAX_PACKET: usize = (MAX_DATAGRAM - message::DATA_OVERHEAD) / PAD * PAD;
/// Packets are padded to a multiple of this, paper §5.4.6.
const PAD: usize = 16;

/// Zero bytes to put behind a packet.
fn ip_padding(packet: &[u8]) -> usize {
    match message::ip_len(packet) {
        Some(_) => packet.len().next_multiple_of(PAD) - packet.len(),
        None => 0,
    }
}
