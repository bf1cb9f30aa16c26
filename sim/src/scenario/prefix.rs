//! Arithmetic on networks, the same for IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address as a number in the low bits.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// How many bits of an address in `address/length` number hosts; `None` for an impossible length.
pub(crate) fn host_bits(address: IpAddr, length: u8) -> Option<u32> {
    let width: u32 = if address.is_ipv4() { 32 } else { 128 };
    width.checked_sub(u32::from(length))
}

fn mask(host_bits: u32) -> u128 {
    u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

/// The first address of `address/length`; `None` for an impossible length.
pub(crate) fn network(address: IpAddr, length: u8) -> Option<IpAddr> {
    let host = host_bits(address, length)?;
    Some(from_bits(address, bits(address) & mask(host)))
}

/// The last address of `address/length`: the broadcast address in IPv4.
pub(crate) fn last(address: IpAddr, length: u8) -> Option<IpAddr> {
    let host = host_bits(address, length)?;
    Some(from_bits(address, bits(address) | !mask(host)))
}

/// The `n`th address after the first of `network/length`, if it is inside.
pub(crate) fn nth(network: IpAddr, length: u8, n: u128) -> Option<IpAddr> {
    let host = host_bits(network, length)?;
    if n & mask(host) != 0 {
        return None;
    }
    bits(network).checked_add(n).map(|sum| from_bits(network, sum))
}

/// Whether `address` is in `network/length`.
pub(crate) fn contains((network, length): (IpAddr, u8), address: IpAddr) -> bool {
    network.is_ipv4() == address.is_ipv4()
        && host_bits(network, length).is_some_and(|host| (bits(network) ^ bits(address)) & mask(host) == 0)
}

/// Whether two networks share addresses.
pub(crate) fn overlap(a: (IpAddr, u8), b: (IpAddr, u8)) -> bool {
    contains((a.0, a.1.min(b.1)), b.0)
}

fn from_bits(family: IpAddr, bits: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => {
            IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits & u128::from(u32::MAX)).unwrap_or(0)))
        }
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn networks() {
        assert_eq!(network(ip("192.168.1.77"), 24), Some(ip("192.168.1.0")));
        assert_eq!(last(ip("192.168.1.0"), 24), Some(ip("192.168.1.255")));
        assert_eq!(nth(ip("192.168.1.0"), 24, 255), Some(ip("192.168.1.255")));
        assert_eq!(nth(ip("192.168.1.0"), 24, 256), None);
        assert_eq!(network(ip("2001:db8::1"), 0), Some(ip("::")));
        assert_eq!(nth(ip("2001:db8::"), 64, 2), Some(ip("2001:db8::2")));
        assert_eq!(network(ip("10.0.0.0"), 33), None);
        assert!(contains((ip("100.64.0.0"), 10), ip("100.127.255.255")));
        assert!(!contains((ip("100.64.0.0"), 10), ip("100.128.0.0")));
        assert!(!contains((ip("::"), 0), ip("100.128.0.0")));
        assert!(overlap((ip("10.0.0.0"), 8), (ip("10.9.0.0"), 16)));
        assert!(!overlap((ip("10.0.0.0"), 16), (ip("10.9.0.0"), 16)));
    }
}
