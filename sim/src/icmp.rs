//! Which packets are answered with an ICMP error, and how often: the same for hosts and routers.

use crate::packet::{Body, ErrorKind, Packet};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use std::net::IpAddr;

/// Between two errors to one destination: Linux `net.ipv4.icmp_ratelimit`, in ns.
const INTERVAL_NS: u64 = 1_000_000_000;
/// Errors to one destination at once: Linux `XRLIM_BURST_FACTOR` (net/ipv4/inetpeer.c).
const BURST: u64 = 6;
/// Between two errors to anybody: Linux `net.ipv4.icmp_msgs_per_sec`, 1000.
const TOTAL_INTERVAL_NS: u64 = 1_000_000;
/// Errors to anybody at once: Linux `net.ipv4.icmp_msgs_burst`.
const TOTAL_BURST: u64 = 50;
/// Destinations that are remembered before those whose time is up are looked for.
const REMEMBERED: usize = 1024;

/// Tokens, counted in the time that they take to come back.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level_ns: u64,
    at_ns: u64,
}

impl Bucket {
    fn full(interval_ns: u64, burst: u64) -> Bucket {
        Bucket { level_ns: interval_ns * burst, at_ns: 0 }
    }

    fn take(&mut self, interval_ns: u64, burst: u64, now_ns: u64) -> bool {
        let more = now_ns.saturating_sub(self.at_ns);
        self.level_ns = self.level_ns.saturating_add(more).min(interval_ns * burst);
        self.at_ns = now_ns;
        let allowed = self.level_ns >= interval_ns;
        if allowed {
            self.level_ns -= interval_ns;
        }
        allowed
    }
}

/// How often a machine sends ICMP errors, as Linux does (RFC 1812 §4.3.2.8 asks for some limit). The first six to a
/// destination go out at once, then one a second; all together fifty at once and a thousand a second. What is too big for
/// a link is always told (`icmpv4_mask_allow`). RFC 4443 §2.4(f) asks the same for IPv6.
#[derive(Debug)]
pub(crate) struct Limiter {
    each: IndexMap<IpAddr, Bucket, FxBuildHasher>,
    total: Bucket,
}

impl Default for Limiter {
    fn default() -> Self {
        Limiter { each: IndexMap::default(), total: Bucket::full(TOTAL_INTERVAL_NS, TOTAL_BURST) }
    }
}

impl Limiter {
    /// Whether an error may go to `to` now; counts it if so.
    pub(crate) fn allow(&mut self, to: IpAddr, kind: ErrorKind, now_ns: u64) -> bool {
        if matches!(kind, ErrorKind::TooBig { .. }) {
            return true;
        }
        if !self.total.take(TOTAL_INTERVAL_NS, TOTAL_BURST, now_ns) {
            return false;
        }
        if self.each.len() >= REMEMBERED && !self.each.contains_key(&to) {
            self.each.retain(|_, bucket| bucket.at_ns + INTERVAL_NS * BURST > now_ns);
        }
        let bucket = self.each.entry(to).or_insert_with(|| Bucket::full(INTERVAL_NS, BURST));
        bucket.take(INTERVAL_NS, BURST, now_ns)
    }
}

/// Whether a packet may be answered with an ICMP error at all: not an error, no fragment but a first one, and
/// nothing sent to or by many (RFC 1122 §3.2.2, RFC 4443 §2.4(e)).
pub(crate) fn may_answer(packet: &Packet) -> bool {
    let (src, dst) = (packet.src.ip(), packet.dst.ip());
    let one = |ip: IpAddr| !ip.is_multicast() && !ip.is_unspecified() && !is_broadcast(ip);
    let about = match &packet.body {
        Body::Error(_) => false,
        Body::Fragment(part) => part.offset == 0,
        _ => true,
    };
    about && one(src) && one(dst)
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn to(last: u8) -> IpAddr {
        [33, 0, 0, last].into()
    }

    #[test]
    fn six_errors_go_to_a_destination_at_once_and_then_one_a_second() {
        let mut limiter = Limiter::default();

        let at_once = (0..10).filter(|_| limiter.allow(to(1), ErrorKind::PortUnreachable, 0)).count();
        let later =
            (1..=50).filter(|i| limiter.allow(to(1), ErrorKind::PortUnreachable, i * 100 * MS)).count();

        assert_eq!((at_once, later), (6, 5));
        assert!(limiter.allow(to(2), ErrorKind::PortUnreachable, 5_000 * MS), "another destination");
    }

    #[test]
    fn fifty_errors_go_out_at_once_to_everybody_together() {
        let mut limiter = Limiter::default();

        let sent = (0..=255).filter(|last| limiter.allow(to(*last), ErrorKind::HostUnreachable, 0)).count();

        assert_eq!(sent, 50);
    }

    #[test]
    fn what_is_too_big_is_always_told() {
        let mut limiter = Limiter::default();

        let sent = (0..1000).filter(|_| limiter.allow(to(1), ErrorKind::TooBig { mtu: 1280 }, 0)).count();

        assert_eq!(sent, 1000);
    }

    #[test]
    fn memory_is_bounded_by_those_whose_time_is_not_up() {
        let mut limiter = Limiter::default();

        for i in 0..100_000_u32 {
            limiter.allow(IpAddr::from(i.to_be_bytes()), ErrorKind::PortUnreachable, u64::from(i) * 10 * MS);
        }

        assert!(limiter.each.len() <= REMEMBERED, "{} entries", limiter.each.len());
    }

    #[test]
    fn rfc1122_3_2_2_errors_and_what_goes_to_many_are_not_answered() {
        let udp =
            |src: [u8; 4], dst: [u8; 4]| Packet::udp((src, 1).into(), (dst, 2).into(), bytes::Bytes::new());
        let host = udp([10, 0, 0, 1], [33, 0, 0, 1]);
        let error = Packet::error(to(1), ErrorKind::TimeExceeded, host.clone());

        assert!(may_answer(&host));
        assert!(!may_answer(&error));
        assert!(!may_answer(&udp([10, 0, 0, 1], [239, 255, 255, 250])));
        assert!(!may_answer(&udp([10, 0, 0, 1], [255, 255, 255, 255])));
        assert!(!may_answer(&udp([0, 0, 0, 0], [33, 0, 0, 1])));
    }
}
