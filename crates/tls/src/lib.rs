//! TLS 1.3 (RFC 8446) as a sans-IO filter of bytes: `rustls`, with the time and the randomness as arguments.
//!
//! A [`Tls`] stands between a TCP connection and a protocol. Bytes off the wire go in and plaintext comes out; plaintext goes
//! in and bytes for the wire come out. It opens no socket and reads no clock, and all randomness comes from the generator it is
//! given: with the same seed, the same certificate and the same input, both ends write the same bytes. A program for real
//! networks seeds the generator from its system, a simulation from its scenario.
//!
//! ```
//! use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
//! use std::time::Duration;
//! use tls::{ClientConfig, Clock, Identity, ServerConfig, Tls};
//!
//! # #[expect(clippy::disallowed_methods, reason = "a doctest needs some instant")]
//! let now = std::time::Instant::now();
//! let clock = Clock::new(Duration::from_secs(1_700_000_000), now);
//! let year = Duration::from_secs(365 * 86_400);
//! let identity = Identity::self_signed([1; 32], &["relay.example"], clock.unix(now), clock.unix(now) + year)?;
//! let rng = ChaCha12Rng::seed_from_u64;
//! let mut server = Tls::server(&ServerConfig::new(&identity)?, rng(1), clock)?;
//! let mut client = Tls::client(&ClientConfig::pinned(identity.pin()), "relay.example", rng(2), clock, now)?;
//!
//! client.write_plain(b"hello"); // leaves once the handshake is done
//! let heard = loop {
//!     while let Some(bytes) = client.poll_wire(1500) {
//!         server.feed_wire(&bytes, now)?;
//!     }
//!     while let Some(bytes) = server.poll_wire(1500) {
//!         client.feed_wire(&bytes, now)?;
//!     }
//!     if let Some(plain) = server.poll_plain() {
//!         break plain;
//!     }
//! };
//! assert_eq!(heard, b"hello"[..]);
//! # Ok::<(), tls::Error>(())
//! ```
//!
//! # What it does not do
//! * TLS 1.2 and older, certificates of clients, session tickets, early data: a connection costs one round trip more than TCP.
//! * Revocation of certificates.
//! * Deadlines: who opens or accepts a connection gives up a handshake that takes too long.
//! * Roots of the web: a server is known by a [`Pin`], or by a certificate authority from a file.
//!
//! # Departures
//! * A pin is held against the key (SHA-256 of its SubjectPublicKeyInfo, RFC 7469 §2.4) or against the whole certificate; one
//!   match is enough. The certificate must be within its dates; its names and issuer do not matter then.
//! * The key exchange is X25519 alone (RFC 7748): its private keys come from the generator, where `ring` would ask the system.

mod config;
mod identity;
mod provider;
mod stream;
#[cfg(test)]
mod tests;

pub use config::{ClientConfig, ServerConfig};
pub use identity::{Identity, Pin};
pub use provider::Clock;
pub use stream::{MAX_UNREAD, MAX_UNSENT, Tls, room};

/// Why there is no secure connection, or no longer one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server's certificate is not the pinned one, nor is its key.
    #[error("the server's certificate does not match the pin")]
    WrongPin,
    /// The server's certificate is past its end.
    #[error("the server's certificate has expired")]
    Expired,
    /// The server's certificate begins later.
    #[error("the server's certificate is not valid yet; is the clock right?")]
    NotYetValid,
    /// The server's certificate is for other names, from another authority, or no certificate.
    #[error("the server's certificate is refused: {0}")]
    Certificate(String),
    /// The other side ended the connection with an alert (RFC 8446 §6).
    #[error("the other side refuses: {0}")]
    Alert(String),
    /// The other side does not speak TLS 1.3 as it should.
    #[error("no TLS 1.3: {0}")]
    Protocol(String),
    /// More than [`MAX_UNREAD`] bytes of plaintext wait to be taken.
    #[error("{0} bytes of plaintext wait to be read")]
    Overflow(usize),
    /// A name that is neither a host name nor an IP address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    /// A file holds no usable certificate or key.
    #[error("{what}: {why}")]
    File {
        /// What was looked for.
        what: &'static str,
        /// What was wrong.
        why: String,
    },
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        use rustls::CertificateError::{
            ApplicationVerificationFailure, Expired, ExpiredContext, NotValidYet, NotValidYetContext,
        };
        match error {
            rustls::Error::InvalidCertificate(why) => match why {
                ApplicationVerificationFailure => Error::WrongPin,
                Expired | ExpiredContext { .. } => Error::Expired,
                NotValidYet | NotValidYetContext { .. } => Error::NotYetValid,
                other => Error::Certificate(other.to_string()),
            },
            rustls::Error::AlertReceived(alert) => Error::Alert(format!("{alert:?}")),
            other => Error::Protocol(other.to_string()),
        }
    }
}
