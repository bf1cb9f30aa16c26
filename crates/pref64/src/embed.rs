//! IPv4 addresses inside IPv6 addresses (RFC 6052).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::{BadPrefix, Ipv6Prefix};

/// A prefix behind which IPv4 addresses stand, Pref64::/n in the words of RFC 6146.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pref64(Ipv6Prefix);

impl Pref64 {
    /// The lengths that such a prefix may have (RFC 6052 §2.2).
    pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

    /// The well-known prefix 64:ff9b::/96 (RFC 6052 §2.1).
    pub const WELL_KNOWN: Pref64 =
        Pref64(Ipv6Prefix::constant(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96));

    /// A prefix of one of [these lengths](Self::LENGTHS), with a zero octet behind its first 64 bits (RFC 6052 §2.2).
    ///
    /// # Errors
    /// If it is none.
    pub fn new(prefix: Ipv6Prefix) -> Result<Pref64, BadPrefix> {
        if !Pref64::LENGTHS.contains(&prefix.length()) {
            return Err(BadPrefix::NotForIpv4(prefix.length()));
        }
        if prefix.address().octets()[RESERVED] != 0 {
            return Err(BadPrefix::ReservedOctet(prefix.address()));
        }
        Ok(Pref64(prefix))
    }

    /// The prefix.
    pub const fn prefix(self) -> Ipv6Prefix {
        self.0
    }

    /// The IPv6 address that stands for an IPv4 address (RFC 6052 §2.3).
    pub fn embed(self, v4: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.0.address().octets();
        for (at, octet) in self.places().zip(v4.octets()) {
            octets[at] = octet;
        }
        octets.into()
    }

    /// The IPv4 address that an IPv6 address stands for; `None` without this prefix, or with something in the octet that is to
    /// be zero. The bits behind it, which RFC 6052 §2.2 keeps for later, are not looked at.
    pub fn extract(self, v6: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = v6.octets();
        if !self.0.contains(v6) || octets[RESERVED] != 0 {
            return None;
        }
        let mut v4 = [0; 4];
        for (octet, at) in v4.iter_mut().zip(self.places()) {
            *octet = octets[at];
        }
        Some(v4.into())
    }

    /// Whether the prefix may stand before this address: the well-known one only before addresses that mean the same
    /// everywhere, and a translator drops packets with any other (RFC 6052 §3.1).
    pub fn may_carry(self, v4: Ipv4Addr) -> bool {
        self != Pref64::WELL_KNOWN || is_global(v4)
    }

    /// [`embed`](Self::embed) for endpoints; IPv6 endpoints stay as they are.
    pub fn embed_endpoint(self, endpoint: SocketAddr) -> SocketAddr {
        match endpoint.ip() {
            IpAddr::V4(v4) => SocketAddr::new(self.embed(v4).into(), endpoint.port()),
            IpAddr::V6(_) => endpoint,
        }
    }

    /// [`extract`](Self::extract) for endpoints.
    pub fn extract_endpoint(self, endpoint: SocketAddr) -> Option<SocketAddr> {
        match endpoint.ip() {
            IpAddr::V6(v6) => Some(SocketAddr::new(self.extract(v6)?.into(), endpoint.port())),
            IpAddr::V4(_) => None,
        }
    }

    /// Where the octets of the IPv4 address stand: behind the prefix, around the reserved octet.
    fn places(self) -> impl Iterator<Item = usize> {
        (usize::from(self.0.length() / 8)..16).filter(|at| *at != RESERVED).take(4)
    }
}

/// The octet of bits 64 to 71, "u" in the figure of RFC 6052 §2.2.
const RESERVED: usize = 8;

/// Whether an IPv4 address means the same host everywhere: not one of those that RFC 6052 §3.1 names (RFC 1918 and the list
/// of RFC 5735 §3), nor of the carriers' shared space (RFC 6598).
fn is_global(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = matches!((a, b, c), (0 | 127, ..) | (192, 0, 0) | (198, 18..=19, _) | (240.., ..));
    let shared = a == 100 && b & 0xc0 == 64;
    let documentation = matches!((a, b, c), (192, 0, 2) | (198, 51, 100) | (203, 0, 113));
    !(special || shared || documentation || v4.is_private() || v4.is_link_local() || v4.is_multicast())
}

impl fmt::Display for Pref64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Pref64 {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Pref64, BadPrefix> {
        Pref64::new(text.parse()?)
    }
}
