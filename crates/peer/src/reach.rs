//! Which addresses this machine can send to.
//!
//! A machine with IPv6 alone reaches IPv4 through its network's NAT64, by IPv6 addresses made from IPv4 ones (RFC 6052). That is
//! done and undone here, at the edge: inside of the peer an address is what others call it.

use std::net::SocketAddr;

use pref64::Pref64;

/// What the machine's addresses and its network allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    v4: bool,
    v6: bool,
    nat64: Option<Pref64>,
}

impl Default for Reach {
    /// Everything, until the machine's addresses are known.
    fn default() -> Reach {
        Reach { v4: true, v6: true, nat64: None }
    }
}

impl Reach {
    /// What a machine with these addresses reaches, and the prefix of its NAT64, if it knows one.
    pub(crate) fn of(local: &[SocketAddr], nat64: Option<Pref64>) -> Reach {
        Reach { v4: local.iter().any(SocketAddr::is_ipv4), v6: local.iter().any(SocketAddr::is_ipv6), nat64 }
    }

    /// Whether the machine has IPv6 and no IPv4, so that a NAT64 is of use.
    pub(crate) fn is_v6_alone(self) -> bool {
        self.v6 && !self.v4
    }

    /// The prefix, where it is used.
    fn prefix(self) -> Option<Pref64> {
        self.nat64.filter(|_| self.is_v6_alone())
    }

    /// The prefix of the network's NAT64, used or not.
    pub(crate) fn nat64(self) -> Option<Pref64> {
        self.nat64
    }

    /// Whether something can be sent there at all.
    pub(crate) fn reaches(self, to: SocketAddr) -> bool {
        match to {
            SocketAddr::V4(to) => self.v4 || self.prefix().is_some_and(|prefix| prefix.may_carry(*to.ip())),
            SocketAddr::V6(_) => self.v6,
        }
    }

    /// The address to send to, for one that others know.
    pub(crate) fn on_wire(self, to: SocketAddr) -> SocketAddr {
        self.prefix().map_or(to, |prefix| prefix.embed_endpoint(to))
    }

    /// The address that others know, for one that something came from.
    pub(crate) fn meant(self, from: SocketAddr) -> SocketAddr {
        self.prefix().and_then(|prefix| prefix.extract_endpoint(from)).unwrap_or(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ep(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    const V4: &str = "33.0.0.1:443";
    const V6: &str = "[3000::1]:443";

    #[test]
    fn each_family_needs_an_address_of_its_own() {
        let reaches = |local: &[&str]| {
            let local: Vec<SocketAddr> = local.iter().map(|text| ep(text)).collect();
            let reach = Reach::of(&local, None);
            (reach.reaches(ep(V4)), reach.reaches(ep(V6)))
        };
        assert_eq!(reaches(&["192.168.1.2:1"]), (true, false));
        assert_eq!(reaches(&["[3001::2]:1"]), (false, true));
        assert_eq!(reaches(&["192.168.1.2:1", "[3001::2]:1"]), (true, true));
    }

    #[test]
    fn with_ipv6_alone_a_nat64_opens_ipv4() {
        let reach = Reach::of(&[ep("[3001::2]:1")], Some(Pref64::WELL_KNOWN));
        assert!(reach.reaches(ep(V4)) && !reach.reaches(ep("192.168.1.2:1")));
        assert_eq!(reach.on_wire(ep(V4)), ep("[64:ff9b::33.0.0.1]:443"));
        assert_eq!(reach.meant(ep("[64:ff9b::33.0.0.1]:443")), ep(V4));
        assert_eq!((reach.on_wire(ep(V6)), reach.meant(ep(V6))), (ep(V6), ep(V6)));
    }

    #[test]
    fn with_both_it_is_left_alone() {
        let reach = Reach::of(&[ep("[3001::2]:1"), ep("192.168.1.2:1")], Some(Pref64::WELL_KNOWN));
        assert_eq!(reach.on_wire(ep(V4)), ep(V4));
        assert_eq!(reach.meant(ep("[64:ff9b::33.0.0.1]:443")), ep("[64:ff9b::33.0.0.1]:443"));
    }
}
