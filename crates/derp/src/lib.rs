//! The relay: DERP, in version 2 of Tailscale's wire format, as two sans-IO machines.
//!
//! Peers that cannot reach each other directly send their (already encrypted) packets through a relay that both can
//! reach over TCP. A relay knows peers by their public keys and sees the sizes of packets, never their contents.
//!
//! * [`frame`]: every frame of the protocol, and a decoder that holds at most one;
//! * [`client::Client`]: one peer's end of one connection; it can be used again for the next connection;
//! * [`server::Server`]: a relay with any number of connections.
//!
//! Neither opens a socket, reads a clock or makes a random number. The caller owns the byte streams (plain TCP, or TCP
//! inside TLS), says how much it can write, and drives both alike: give input, then take what is to be written, the
//! events and the next deadline. Here a client meets a server without any network between them:
//!
//! ```
//! use derp::{ClientConfig, ClientEvent, ConnId, PrivateKey, client::Client, server::*};
//! use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
//!
//! # #[expect(clippy::disallowed_methods, reason = "a doctest needs some instant")]
//! let now = std::time::Instant::now();
//! let rng = ChaCha12Rng::seed_from_u64;
//! let mut server = Server::new(ServerConfig::default(), PrivateKey::from_bytes([1; 32]), rng(1), now);
//! let mut client = Client::new(ClientConfig::new(PrivateKey::from_bytes([2; 32]), "relay.example"), rng(2), now);
//!
//! let conn = ConnId(0);
//! server.accepted(conn, "192.0.2.1:1234".parse()?, now);
//! client.connected(now);
//! loop {
//!     server.writable(conn, 65536, now); // the stream to the client takes this much
//!     while let Some(bytes) = client.poll_transmit(65536) {
//!         server.handle_stream(conn, &bytes, now);
//!     }
//!     while let Some(transmit) = server.poll_transmit() {
//!         if let ServerTransmit::Write { data, .. } = transmit {
//!             client.handle_stream(&data, now)?;
//!         }
//!     }
//!     // Also due: `handle_timeout` of both, once their `poll_timeout` has come.
//!     if let Some(ClientEvent::Ready { .. }) = client.poll_event() {
//!         break;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//! * TLS: a filter around the byte stream, outside. Fast start therefore needs a key known beforehand
//!   ([`ClientConfig::server_key`]) where Tailscale's client learns it from a certificate.
//! * Connections between the relays of a region: their owner opens them, each a [`Client`] with the mesh key, and carries what
//!   it hears to the server ([`server::Server::mesh_present`]) and what the server forwards to it.
//!
//! # Departures from Tailscale's implementation
//! * An all-zero key is refused on both sides: the secret it shares with anyone is known to all.
//! * HTTP heads are limited to [`MAX_HEAD`], and an upgrade request may have no body.
//! * The client pings a silent server ([`ClientConfig::ping_after`]) and finds a dead connection within seconds. Tailscale's
//!   client waits [`client::READ_TIMEOUT`], two minutes.
//! * Disco packets always leave before data packets. Tailscale's server picks at random between the two queues.
//! * Beyond its rate a client's packets wait in its own two queues; Tailscale's client drops them at once. The server reads at
//!   that rate from whoever does not hold itself to it.
//! * The server sends Health, Restarting and, to a second machine with one key, a warning. Tailscale's never does.
//! * A relay that has just started may keep packets for a moment for clients that are not back yet
//!   ([`ServerConfig::hold_at_start`]).
//! * A relay remembers at most [`server::MAX_CORRESPONDENTS`] peers of a client to tell when that client leaves.

pub mod client;
mod decoder;
pub mod frame;
mod http;
mod info;
mod keys;
mod meter;
mod queue;
pub mod server;
#[cfg(test)]
mod test;
mod websocket;

pub use client::{Client, ClientConfig, ClientEvent};
pub use http::{HttpError, MAX_HEAD};
pub use info::{ClientInfo, RateLimit, ServerInfo};
pub use keys::{MeshKey, NONCE_LEN, PrivateKey, PublicKey};
pub use meter::MIN_BURST;
pub use queue::{CONTROL_LEN, Class, PRESENCE_LEN, QUEUE_BYTES, QUEUE_LEN};
pub use server::{CONFLICT, ConnId, Restart, Server, ServerConfig, ServerEvent, ServerTransmit};
pub use websocket::WebSocketError;
