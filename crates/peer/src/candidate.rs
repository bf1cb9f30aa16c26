//! One address at which another peer may be reached, and the checks to it.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::liveness::Rtt;
use crate::policy::{PROBE_GAPS, PROBES_PER_CANDIDATE, Policy};

/// Preference of a direct path; a greater one always wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Through the internet, or some realm wider than one LAN.
    Direct,
    /// A private address of the other peer's own interfaces.
    Lan,
}

/// Who told the address; several may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The coordination server's map.
    pub(crate) map: bool,
    /// The last call-me-maybe.
    pub(crate) call: bool,
    /// An authenticated packet came from it (peer-reflexive, RFC 8445 §4).
    pub(crate) seen: bool,
}

impl Origin {
    pub(crate) fn is_none(self) -> bool {
        self == Origin::default()
    }
}

/// An address of the other peer.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) origin: Origin,
    /// Checks sent in this round.
    pub(crate) attempt: u32,
    /// When the next check is due; `None`: not being checked.
    pub(crate) next: Option<Instant>,
    /// When the schedule last began.
    pub(crate) began: Option<Instant>,
    /// Whether a call from the other side already restarted the schedule in this round.
    pub(crate) restarted: bool,
    last_sent: Option<Instant>,
    pub(crate) rtt: Option<Rtt>,
    /// Last answer.
    pub(crate) answered: Option<Instant>,
}

impl Candidate {
    pub(crate) fn new(origin: Origin) -> Candidate {
        Candidate {
            origin,
            attempt: 0,
            next: None,
            began: None,
            restarted: false,
            last_sent: None,
            rtt: None,
            answered: None,
        }
    }

    /// Begins the schedule of checks now.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.attempt = 0;
        self.next = Some(now);
        self.began = Some(now);
    }

    /// Accounts for a check that goes out now and plans the next. Gives its number.
    pub(crate) fn check(&mut self, now: Instant) -> u32 {
        let attempt = self.attempt;
        self.attempt += 1;
        self.last_sent = Some(now);
        self.next = usize::try_from(attempt).ok().and_then(|n| PROBE_GAPS.get(n)).map(|&gap| now + gap);
        attempt
    }

    /// May a check be sent now, outside the planned times?
    pub(crate) fn has_budget(&self, now: Instant) -> bool {
        self.attempt < PROBES_PER_CANDIDATE && self.last_sent != Some(now)
    }

    /// LAN if the other peer named the address as its own and it is private.
    pub(crate) fn tier(&self, address: SocketAddr) -> Tier {
        if (self.origin.map || self.origin.call) && is_private(address.ip()) {
            Tier::Lan
        } else {
            Tier::Direct
        }
    }
}

/// Private or link-local (RFC 1918, RFC 3927, RFC 4193, RFC 4291 §2.5.6). Not 100.64.0.0/10 (RFC 6598): that realm is a
/// carrier's.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Can a packet be sent there at all, and to another peer? Loopback is another peer's only where all run on one machine.
pub(crate) fn is_usable(address: SocketAddr, policy: &Policy) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !broadcast
        && (policy.loopback || !ip.is_loopback())
}
