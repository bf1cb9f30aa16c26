//! Coordination: a server that tells the machines of a network who the others are, with their keys, endpoints and home
//! relays, and the client of it. It carries no traffic of the network and knows no private key of its machines.
//!
//! Both are sans-IO. The caller owns the byte stream (TCP, or TLS over it), tells a core when it is up, hands over what
//! arrives and writes what it is given:
//!
//! ```
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
//!     node_key: [4; 32],
//!     disco_key: [5; 32],
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
//! 1. Each side sends the eight bytes of [`PREAMBLE`] at once: a name and a version, so that a wrong server or a wrong port is
//!    recognised.
//! 2. Records follow: `u16` big-endian length, then a Noise message (Noise specification §13 asks for such a length). The
//!    first in each direction are the handshake `Noise_IK_25519_ChaChaPoly_BLAKE2s` with the preamble as prologue. The client knows
//!    the server's static key beforehand, so nobody between them can read, alter or inject keys; the server learns the
//!    client's machine key.
//! 3. The plaintexts of the later records are one byte stream of messages: `u32` big-endian length and JSON ([`wire`]).
//!    A message may span records, as a Noise message is limited to 65,535 bytes, and a record may hold several messages.
//!
//! The client registers, sends its state whenever it changes, and gets one full map and then deltas with consecutive generation
//! numbers. Both sides send a keep-alive each [`KEEP_ALIVE`] and give a stream up that was silent for [`DEAD_AFTER`].
//! JSON fields and message types that a receiver does not know are ignored; missing new fields take defaults.
//!
//! # What it does not do yet
//! - Anyone who knows the server's public key may register; there is no approval, no pre-authentication key. A node key belongs
//!   to the machine key that registered it first.
//! - The server keeps its records in memory: addresses are stable for as long as it runs.
//! - No HTTP and no TLS around the stream, no access rules, no names to look up.
//! - The client does not reconnect by itself: the caller opens a stream and says [`connected`](client::Client::connected).

mod channel;
pub mod client;
mod error;
pub mod server;
mod types;
pub mod wire;

pub use channel::{MAX_FROM_CLIENT, MAX_FROM_SERVER, PREAMBLE};
pub use error::{Error, Refusal};
pub use types::{MapUpdate, NatFacts, NodeInfo, RelayInfo, Update};

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
