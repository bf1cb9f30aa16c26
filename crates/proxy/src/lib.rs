//! HTTP proxies that open tunnels (CONNECT, RFC 9110 §9.3.6), both ends, sans-IO: the only way out of many an office.
//!
//! The client's end is [`Connect`]: one request, and the answer to it, before a stream carries something else. The proxy is
//! [`Server`]: bytes and the time go in, bytes and connections come out.
//!
//! ```
//! use proxy::{Connect, ConnectError, Credentials};
//!
//! let credentials = Credentials::new("takkie", "woof")?;
//! let mut connect = Connect::new("192.0.2.1:443".parse()?, Some(&credentials));
//! assert!(connect.request().starts_with(b"CONNECT 192.0.2.1:443 HTTP/1.1\r\n"));
//! // The answer comes in pieces; what follows it belongs to whoever wanted the tunnel.
//! assert_eq!(connect.handle(b"HTTP/1.1 200 OK\r\n"), Ok(None));
//! assert_eq!(connect.handle(b"\r\nhello"), Ok(Some(2)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//! - Nothing but CONNECT: a proxy that also fetches pages answers them with 405 here.
//! - Targets are addresses, since nothing here resolves names: a name is answered with 502.
//! - Of the authentication schemes, Basic alone (RFC 7617), with credentials sent unasked. No scheme with a challenge.
//! - The connection to the proxy is plain HTTP/1.1.

mod client;
mod server;

pub use client::{Connect, ConnectError};
pub use server::{ConnId, Event, Server, ServerConfig, Transmit};

use std::fmt;

/// Longest head of a request or response, in bytes: nginx's `large_client_header_buffers` holds as much in one.
pub const MAX_HEAD: usize = 8 << 10;
/// Most header fields in one head.
const MAX_FIELDS: usize = 64;

/// A name and a password for the Basic scheme (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

/// A user name or password that Basic authentication cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCredentials {
    /// RFC 7617 §2: the first colon ends the user name.
    #[error("a user name holds no colon")]
    Colon,
    /// RFC 7617 §2.
    #[error("credentials hold no control characters")]
    Control,
    /// They have to fit into a head.
    #[error("credentials are at most 255 bytes each")]
    TooLong,
}

impl Credentials {
    /// Checks and takes them.
    ///
    /// # Errors
    /// What the scheme cannot carry.
    pub fn new(user: &str, password: &str) -> Result<Credentials, BadCredentials> {
        if user.contains(':') {
            return Err(BadCredentials::Colon);
        }
        if user.chars().chain(password.chars()).any(char::is_control) {
            return Err(BadCredentials::Control);
        }
        if user.len().max(password.len()) > 255 {
            return Err(BadCredentials::TooLong);
        }
        Ok(Credentials { user: user.to_owned(), password: password.to_owned() })
    }

    /// The user name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// "Basic …", as it stands in `Proxy-Authorization`.
    fn header(&self) -> String {
        format!("Basic {}", base64(format!("{}:{}", self.user, self.password).as_bytes()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Base 64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().enumerate().fold(0, |group, (i, byte)| group | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// Where a head ends, empty line included, if it has come whole. `from`: where to look, since what comes before was
/// looked at.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(3);
    bytes[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 §10.
    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    /// RFC 7617 §2.
    #[test]
    fn credentials_are_written_as_in_the_rfc() {
        let credentials = Credentials::new("Aladdin", "open sesame").expect("they fit");
        assert_eq!(credentials.header(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(Credentials::new("a:b", "c"), Err(BadCredentials::Colon));
        assert_eq!(Credentials::new("a", "c\r\nX: y"), Err(BadCredentials::Control));
        assert_eq!(Credentials::new("a", &"c".repeat(256)), Err(BadCredentials::TooLong));
    }
}
