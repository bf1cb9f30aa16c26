//! Coordination: a server that tells the machines of a network who the others are, with their keys, endpoints and home
//! relays, and the client of it. It carries no traffic of the network and knows no private key of its machines.
//!
//! Both are sans-IO. The caller owns the byte stream (TCP, or TLS over it), tells a core when it is up, hands over what
//! arrives and writes what it is given:
//!
//! ```
//! use coord::KeyPair;
//! use coord::client::{Client, ClientConfig, Event};
//! use coord::server::{ConnId, Server, ServerConfig, ServerTransmit};
//! use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
//!
//! # fn run(now: std::time::Instant) {
//! let mut server = Server::new(ServerConfig::new([1; 32], Vec::new()), ChaCha12Rng::from_seed([2; 32]), now);
//! let config = ClientConfig {
//!     machine_key: [3; 32], // private
//!     server_key: server.public_key(),
//!     name: "laptop".into(),
//!     node_key: KeyPair::new([4; 32]),
//!     disco_key: KeyPair::new([5; 32]),
//!     host: "coord.example".into(),
//!     auth_key: None,
//! };
//! let mut client = Client::new(config, ChaCha12Rng::from_seed([6; 32]), now);
//! let conn = ConnId(1);
//! client.connected(now);
//! server.accepted(conn, "192.0.2.7:40000".parse().unwrap(), now);
//! loop {
//!     server.writable(conn, 64 * 1024, now); // how much the socket takes at this moment
//!     match (client.poll_transmit(64 * 1024), server.poll_transmit()) {
//!         (None, None) => break, // wait for bytes or for `poll_timeout`
//!         (to_server, to_client) => {
//!             if let Some(bytes) = to_server {
//!                 server.handle_stream(conn, &bytes, now);
//!             }
//!             if let Some(ServerTransmit::Write { data, .. }) = to_client {
//!                 client.handle_stream(&data, now).unwrap();
//!             }
//!         }
//!     }
//! }
//! assert!(matches!(client.poll_event(), Some(Event::Registered { id: 1, .. })));
//! # }
//! # #[expect(clippy::disallowed_methods)]
//! # run(std::time::Instant::now());
//! ```
//!
//! # The stream
//! 1. An HTTP/1.1 request asks for an upgrade to [`PROTOCOL`] at one of the paths of [`Door`], so that the stream passes where
//!    nothing but the web does, with TLS below it or without. It carries the first message of the handshake
//!    `Noise_IK_25519_ChaChaPoly_BLAKE2s`, whose prologue names protocol and path. The client knows the server's static key
//!    beforehand, so nobody between them, not even who can make certificates, can read, alter or inject keys; the server learns
//!    the client's machine key.
//! 2. After the `101` records follow: `u16` big-endian length, then a Noise message (Noise specification §13 asks for such a
//!    length). The server's first is the second message of the handshake.
//! 3. The plaintexts of the later records are one byte stream of messages: `u32` big-endian length and JSON ([`wire`]).
//!    A message may span records, as a Noise message is limited to 65,535 bytes, and a record may hold several messages.
//!
//! The client registers, showing that it has the private halves of the keys it names, sends its state whenever it changes, and gets one full map and then deltas with consecutive generation
//! numbers; with the map of an earlier stream it gets what is different since, as long as the server can tell. Both sides send a
//! keep-alive each [`KEEP_ALIVE`] and give a stream up that was silent for [`DEAD_AFTER`].
//! JSON fields and message types that a receiver does not know are ignored; missing new fields take defaults.
//!
//! # Who is who
//! A machine key is a node for good; its node key (WireGuard's) may be rotated, and may have an end. Who may join is
//! [`Admission`](server::Admission): anyone who knows the server's key, or whom a pre-authentication key or an administrator lets in.
//! Administrators use an HTTP API inside a stream of their own ([`admin`], `API.md`); relays ask there who may use them ([`relay`]).
//!
//! # What is kept
//! Nodes, keys and settings, through whatever store the caller has: see [`state`]. Nobody hears of a node, an address or a key before it
//! is stored.

pub mod access;
pub mod admin;
mod channel;
pub mod client;
mod error;
mod feed;
mod http;
mod proof;
pub mod relay;
mod saved;
pub mod server;
pub mod state;
mod types;
pub mod wire;

pub use access::{Access, AccessError, Grants};
pub use channel::{MAX_FROM_CLIENT, MAX_FROM_SERVER};
pub use error::{Error, Refusal};
pub use http::{Door, HEALTH, PROTOCOL};
pub use proof::KeyPair;
pub use saved::SavedError;
pub use types::{
    Delta, Map, MapUpdate, MapVersion, NatFacts, NodeChange, NodeInfo, RelayInfo, RelayTls, Update,
};

use std::time::Duration;

/// Each side sends a keep-alive this often: far below the time that a NAT must keep an idle TCP connection (RFC 5382 REQ-5:
/// 2 h 4 min), and below even the 30 s after which the most impatient of 34 measured home gateways forgot a UDP flow
/// (Hätönen et al., IMC 2010).
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A stream without a verified record for this long is dead: three keep-alives were missed.
pub const DEAD_AFTER: Duration = Duration::from_secs(60);
/// From the start of the stream to the end of the handshake on the client, and to the registration on the server.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// From the start of the stream to the first full map.
pub const MAP_WITHIN: Duration = Duration::from_secs(30);

/// The public key of a Curve25519 private key, such as a machine key or a server's key.
pub fn public_key(private: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*private)).to_bytes()
}
