//! Addresses that have no business on the internet (RFC 6092 §3.1).

use std::net::{IpAddr, Ipv6Addr};

/// Scope of a multicast address up to which it stays inside: organization-local (RFC 6092 REC-2, RFC 7346 §2).
const ORGANIZATION_LOCAL: u8 = 8;

/// Whether a packet with these addresses is kept from going out or in. IPv4 is not judged.
pub(super) fn is_bogon(src: IpAddr, dst: IpAddr) -> bool {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (src, dst) else { return false };
    // REC-1: nobody is a multicast source. REC-2: groups of narrow scope stay where they are.
    src.is_multicast()
        || (dst.is_multicast() && dst.octets()[1] & 0x0f <= ORGANIZATION_LOCAL)
        || [src, dst].into_iter().any(is_forbidden)
}

/// REC-3: IPv4-mapped and IPv4-compatible addresses (the unspecified and the loopback address are of the latter form),
/// site-local addresses (RFC 3879), ORCHIDs (RFC 4843). REC-7: unique local addresses.
fn is_forbidden(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    let mapped = ip.to_ipv4_mapped().is_some();
    let compatible = ip.segments()[..6] == [0; 6];
    let site_local = first & 0xffc0 == 0xfec0;
    let orchid = first == 0x2001 && second & 0xfff0 == 0x0010;
    mapped || compatible || site_local || orchid || ip.is_unique_local()
}
