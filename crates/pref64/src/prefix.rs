//! IPv6 prefixes.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Why a text or a pair of numbers is no prefix of the kind that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    /// Not an IPv6 address, a slash and a number.
    #[error("`{0}` is no IPv6 prefix: write for example 2001:db8::/64")]
    Syntax(String),
    /// Longer than an address.
    #[error("an IPv6 prefix has at most 128 bits, not {0}")]
    TooLong(u8),
    /// Bits behind the prefix are set.
    #[error("{address}/{length} has bits set behind its first {length}")]
    HostBits {
        /// The address.
        address: Ipv6Addr,
        /// The length that it goes beyond.
        length: u8,
    },
    /// A length that RFC 6052 §2.2 does not know.
    #[error("IPv4 addresses stand behind 32, 40, 48, 56, 64 or 96 bits (RFC 6052), not {0}")]
    NotForIpv4(u8),
    /// Bits 64 to 71, which RFC 6052 §2.2 wants to be zero, are not.
    #[error("bits 64 to 71 of a prefix for IPv4 addresses are zero (RFC 6052), those of {0} are not")]
    ReservedOctet(Ipv6Addr),
    /// Prefixes that are to be swapped differ in length.
    #[error("the prefixes inside and outside are of one length, not /{0} and /{1}")]
    Unequal(u8, u8),
    /// A prefix that reaches into the interface identifier, where the checksum is balanced.
    #[error("a prefix that is swapped has at most 64 bits, not {0}")]
    NotForSwap(u8),
}

/// The first bits of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6Prefix {
    address: Ipv6Addr,
    length: u8,
}

impl Ipv6Prefix {
    /// The first `length` bits of `address`, whose other bits are zero.
    ///
    /// # Errors
    /// If `length` is more than 128, or another bit is set.
    pub fn new(address: Ipv6Addr, length: u8) -> Result<Ipv6Prefix, BadPrefix> {
        if length > 128 {
            return Err(BadPrefix::TooLong(length));
        }
        if address.to_bits() & host_mask(length) != 0 {
            return Err(BadPrefix::HostBits { address, length });
        }
        Ok(Ipv6Prefix { address, length })
    }

    /// Its bits, the rest zero.
    pub const fn address(self) -> Ipv6Addr {
        self.address
    }

    /// How many bits it has.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether `address` begins with it.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & !host_mask(self.length) == 0
    }

    /// `address` with this prefix in place of its own.
    pub fn put_before(self, address: Ipv6Addr) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() | address.to_bits() & host_mask(self.length))
    }

    /// The same bits where the reader knows them to be a prefix.
    pub(crate) const fn constant(address: Ipv6Addr, length: u8) -> Ipv6Prefix {
        Ipv6Prefix { address, length }
    }
}

/// The bits behind the first `length` ones.
fn host_mask(length: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Ipv6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Ipv6Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Ipv6Prefix, BadPrefix> {
        let parts = text
            .split_once('/')
            .and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
        let (address, length) = parts.ok_or_else(|| BadPrefix::Syntax(text.to_owned()))?;
        Ipv6Prefix::new(address, length)
    }
}
