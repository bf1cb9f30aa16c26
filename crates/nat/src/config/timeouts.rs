//! How long things are remembered.

use std::fmt;
use std::time::Duration;

/// How long a silent conversation is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP, while nothing has come back.
    pub udp_unreplied: Duration,
    /// UDP, once something has come back.
    pub udp_replied: Duration,
    /// The age a UDP conversation must have before `udp_replied` holds for it; zero at most devices, 2 s in Linux
    /// (`nf_conntrack_proto_udp.c`).
    pub udp_replied_after: Duration,
    /// TCP, while opening, and after a FIN from both sides or a RST (RFC 6146 §3.5.2.2).
    pub tcp_transitory: Duration,
    /// TCP, established.
    pub tcp_established: Duration,
    /// ICMP echo.
    pub icmp: Duration,
}

impl Timeouts {
    /// RFC 4787 REQ-5 (UDP 5 min), RFC 5382 REQ-5 (TCP 4 min, 2 h 4 min), RFC 5508 REQ-2 (ICMP 60 s).
    pub const RFC: Timeouts = Timeouts {
        udp_unreplied: Duration::from_secs(300),
        udp_replied: Duration::from_secs(300),
        udp_replied_after: Duration::ZERO,
        tcp_transitory: Duration::from_secs(240),
        tcp_established: Duration::from_secs(7440),
        icmp: Duration::from_secs(60),
    };

    /// Linux: `nf_conntrack_udp_timeout` 30 s, `nf_conntrack_udp_timeout_stream` 120 s after 2 s,
    /// `nf_conntrack_tcp_timeout_syn_sent` 120 s for the transitory states, `nf_conntrack_tcp_timeout_established`
    /// 5 days, `nf_conntrack_icmp_timeout` 30 s (Documentation/networking/nf_conntrack-sysctl).
    pub const LINUX: Timeouts = Timeouts {
        udp_unreplied: Duration::from_secs(30),
        udp_replied: Duration::from_secs(120),
        udp_replied_after: Duration::from_secs(2),
        tcp_transitory: Duration::from_secs(120),
        tcp_established: Duration::from_secs(432_000),
        icmp: Duration::from_secs(30),
    };

    /// The same time for everything.
    pub const fn idle(all: Duration) -> Timeouts {
        Timeouts {
            udp_unreplied: all,
            udp_replied: all,
            udp_replied_after: Duration::ZERO,
            tcp_transitory: all,
            tcp_established: all,
            icmp: all,
        }
    }
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp {:?}/{:?}", self.udp_unreplied, self.udp_replied)?;
        if !self.udp_replied_after.is_zero() {
            write!(f, " after {:?}", self.udp_replied_after)?;
        }
        write!(f, ", tcp {:?}/{:?}, icmp {:?}", self.tcp_transitory, self.tcp_established, self.icmp)
    }
}
