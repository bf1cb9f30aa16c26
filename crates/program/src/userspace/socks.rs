//! The server's side of SOCKS 5 (RFC 1928), as far as a tunnel needs it: CONNECT, without authentication.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A request may be as long as its longest name allows (RFC 1928 §4).
const MAX: usize = 4 + 1 + 255 + 2;

/// Whom a client wants to be connected with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(IpAddr),
    /// A name: of a peer.
    Name(String),
}

/// What to answer a request with (RFC 1928 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Connected.
    Succeeded = 0,
    /// Anything else.
    Failure = 1,
    /// Nobody is reached there.
    HostUnreachable = 4,
    /// Nobody listens there.
    Refused = 5,
    /// Not CONNECT.
    CommandNotSupported = 7,
    /// An address of some other kind.
    AddressNotSupported = 8,
}

impl Reply {
    /// Its bytes. The address bound, of which no client makes use, is left open.
    #[must_use]
    pub fn encode(self) -> [u8; 10] {
        [5, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }
}

/// What the client's bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More is needed.
    More,
    /// Send these bytes.
    Say([u8; 2]),
    /// It wants to be connected with this port of that target. What the client sent beyond is in [`Handshake::rest`].
    Connect(Target, u16),
    /// Send this reply and close.
    Refuse(Reply),
    /// It does not speak SOCKS 5, or wants another authentication: send these bytes, if any, and close.
    Hangup(&'static [u8]),
}

/// The handshake with one client. Give it bytes, then ask for steps until it wants [`More`](Step::More) or is done.
#[derive(Debug, Default)]
pub struct Handshake {
    bytes: Vec<u8>,
    greeted: bool,
}

impl Handshake {
    /// Takes bytes of the client.
    pub fn feed(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// What the client sent beyond what was read.
    pub fn rest(self) -> Vec<u8> {
        self.bytes
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        let step = if self.greeted { self.request() } else { self.greeting() };
        match step {
            Some(step) => step,
            None if self.bytes.len() > MAX => Step::Hangup(&[]),
            None => Step::More,
        }
    }

    /// RFC 1928 §3: version, how many methods, the methods.
    fn greeting(&mut self) -> Option<Step> {
        if *self.bytes.first()? != 5 {
            return Some(Step::Hangup(&[]));
        }
        let end = 2 + usize::from(*self.bytes.get(1)?);
        let free = self.bytes.get(2..end)?.contains(&0);
        self.bytes.drain(..end);
        self.greeted = true;
        Some(if free { Step::Say([5, 0]) } else { Step::Hangup(&[5, 0xff]) })
    }

    /// RFC 1928 §4: version, command, reserved, kind of address, address, port.
    fn request(&mut self) -> Option<Step> {
        let &[version, command, _, kind] = self.bytes.first_chunk()?;
        if version != 5 {
            return Some(Step::Hangup(&[]));
        }
        let rest = &self.bytes[4..];
        let (target, len) = match kind {
            1 => (Target::Address(Ipv4Addr::from(*rest.first_chunk::<4>()?).into()), 4),
            4 => (Target::Address(Ipv6Addr::from(*rest.first_chunk::<16>()?).into()), 16),
            3 => {
                let len = usize::from(*rest.first()?);
                let name = rest.get(1..=len)?;
                (Target::Name(String::from_utf8_lossy(name).into_owned()), 1 + len)
            }
            _ => return Some(Step::Refuse(Reply::AddressNotSupported)),
        };
        let port = u16::from_be_bytes([*rest.get(len)?, *rest.get(len + 1)?]);
        self.bytes.drain(..4 + len + 2);
        Some(if command == 1 {
            Step::Connect(target, port)
        } else {
            Step::Refuse(Reply::CommandNotSupported)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_and_what_follows_the_request_are_read_whatever_the_pieces() {
        let bytes = [&[5, 2, 1, 0, 5, 1, 0, 3, 7][..], b"flappie", &[0, 80], b"GET /"].concat();
        for size in 1..bytes.len() {
            let (mut handshake, mut said) = (Handshake::default(), Vec::new());
            for piece in bytes.chunks(size) {
                handshake.feed(piece);
                while said.last().is_none_or(|step| !matches!(step, Step::Connect(..))) {
                    match handshake.step() {
                        Step::More => break,
                        step => said.push(step),
                    }
                }
            }
            assert_eq!(said, [Step::Say([5, 0]), Step::Connect(Target::Name("flappie".into()), 80)]);
            assert_eq!(handshake.rest(), b"GET /");
        }
    }

    #[test]
    fn who_insists_on_a_password_or_speaks_http_is_sent_away() {
        let first = |bytes: &[u8]| {
            let mut handshake = Handshake::default();
            handshake.feed(bytes);
            handshake.step()
        };
        assert_eq!(first(&[5, 1, 2]), Step::Hangup(&[5, 0xff]));
        assert_eq!(first(b"GET / HTTP/1.1\r\n"), Step::Hangup(&[]));
    }

    proptest! {
        #[test]
        fn any_bytes_lead_to_a_step_and_are_not_kept_for_ever(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        ) {
            let mut handshake = Handshake::default();
            for piece in pieces {
                handshake.feed(&piece);
                loop {
                    match handshake.step() {
                        Step::Say(_) => {}
                        Step::More => break,
                        Step::Connect(..) | Step::Refuse(_) | Step::Hangup(_) => return Ok(()),
                    }
                }
                prop_assert!(handshake.bytes.len() <= MAX);
            }
        }
    }
}
