//! Disco: the small encrypted messages by which two peers find out which of their addresses reach each other.
//!
//! The wire format is Tailscale's (`disco/disco.go`): magic, the sender's disco key, a nonce, and a NaCl box
//! (Curve25519, XSalsa20-Poly1305) around `type | version | payload`. The same datagram travels over UDP and in relay
//! frames.
//!
//! This crate is a codec. It keeps no state, makes no nonce and reads no clock; when to ping whom is the caller's matter.
//! A receiver looks at [`source`], finds or makes the [`SharedKey`] for it, and calls [`open`]:
//!
//! ```
//! use disco::{Message, PrivateKey, SharedKey, looks_like_disco, open, seal, source};
//!
//! let (alice, bob) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
//! let shared = SharedKey::new(&alice, &bob.public()); // cache it: it costs a scalar multiplication
//! let ping = Message::Ping { tx: [7; 12], node_key: None, padding: 0 };
//! let datagram = seal(&ping, &alice.public(), &shared, [9; 24]); // a fresh random nonce for each message
//!
//! assert!(looks_like_disco(&datagram));
//! let sender = source(&datagram).unwrap();
//! assert_eq!(open(&datagram, &SharedKey::new(&bob, &sender)), Ok(ping));
//! ```
//!
//! # What the caller must see to
//! - A nonce is never used twice with one pair of keys. 24 random bytes are enough.
//! - The key in the header is a claim until [`open`] succeeds, and afterwards proves only who holds that disco key: whether
//!   that key belongs to a known peer is for the caller to look up. There is no replay protection; transaction identifiers
//!   must be matched.
//! - [`Message::CallMeMaybe`] is to be believed only when it came over a relay (`disco/disco.go`).
//!
//! # Departures
//! - Go's decoder returns an empty message for a newer version of the UDP relay messages; here that is
//!   [`OpenError::Version`]. For [`Message::CallMeMaybe`] it is an empty list, as there.
//! - The Geneve header that wraps disco through a UDP relay server is not part of this crate.

mod codec;
mod key;
mod message;
mod packet;

pub use key::{PrivateKey, PublicKey, SharedKey};
pub use message::{Bind, Message, RelayEndpoint};
pub use packet::{MAGIC, MAX_PLAINTEXT, MIN_LEN, OpenError, PING_LEN, looks_like_disco, open, seal, source};
