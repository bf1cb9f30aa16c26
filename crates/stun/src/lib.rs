//! STUN: what is my address on the other side of this NAT, and how does that NAT behave?
//!
//! - [`message`]: the codec of RFC 8489, with the attributes of RFC 5780.
//! - [`client`]: one Binding transaction over UDP with the retransmissions of RFC 8489 §6.2.1.
//! - [`discovery`]: mapping and filtering behaviour by the tests of RFC 5780 §4.3 and §4.4.
//! - [`server`]: a stateless Binding server with alternate address and port.
//!
//! Nothing here opens a socket or reads a clock: datagrams and the time go in, datagrams, events and the next
//! deadline come out.
//!
//! ```
//! use std::time::Instant;
//! use stun::{client::{Client, Event, Retransmit}, message::TransactionId, server::Server};
//!
//! # fn run(now: Instant) {
//! let ours = "203.0.113.7:40000".parse().unwrap();
//! let server_address = "198.51.100.1:3478".parse().unwrap();
//! let server = Server::new();
//! let mut client = Client::binding(server_address, TransactionId([7; 12]), Retransmit::default(), now);
//! while let Some((to, datagram)) = client.poll_transmit() {
//!     if let Some(answer) = server.respond(to, ours, &datagram) {
//!         client.handle(answer.from_local, &answer.data, now);
//!     }
//! }
//! assert!(matches!(client.poll_event(), Some(Event::Mapped { mapped, .. }) if mapped == ours));
//! assert_eq!(client.poll_timeout(), None); // otherwise: wait until then and call `handle_timeout`
//! # }
//! # #[expect(clippy::disallowed_methods)]
//! # run(Instant::now());
//! ```
//!
//! # What it does not do
//! - No authentication: MESSAGE-INTEGRITY, USERNAME, REALM and their kin are decoded as [`Attribute::Unknown`]. A public
//!   Binding service needs none (RFC 8489 §9), and the addresses learned are verified end to end by the user's own probes.
//! - No STUN over TCP or TLS, no TURN, no ICE attributes, no RFC 3489 messages without a magic cookie.
//! - No binding-lifetime, hairpin or fragment discovery (RFC 5780 §4.5 to §4.7); the server supports them.
//!
//! # Departures
//! - RFC 5780 §6.1 wants RESPONSE-ORIGIN and OTHER-ADDRESS in every answer. Deployed clients read into 64-byte buffers,
//!   so a plain answer carries them only where it stays within [`server::PLAIN_LIMIT`] (IPv4: exactly); a request with
//!   any RFC 5780 attribute, such as a CHANGE-REQUEST with no flag set, always gets them.
//! - RFC 5780 §6.1 wants an answer padded to the interface's MTU. The server pads with as many bytes as the
//!   request carried, so that a spoofed source address gains an attacker nothing.
//!
//! [`Attribute::Unknown`]: message::Attribute::Unknown

pub mod client;
mod codec;
pub mod discovery;
pub mod message;
pub mod server;
