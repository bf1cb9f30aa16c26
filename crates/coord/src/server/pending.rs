//! Streams that have not registered: how many there are, in all and from where.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Limits, Server};

/// How many streams have not registered.
#[derive(Debug, Default)]
pub(super) struct Pending {
    all: usize,
    /// By where they come from; none is zero.
    sources: BTreeMap<IpAddr, usize>,
}

/// By what streams of one source are counted: an IPv6 network is one machine's (RFC 6177 §2).
fn source(remote: SocketAddr) -> IpAddr {
    match remote.ip().to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

impl Server {
    /// Streams that are open, those included that have not registered.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }
}

impl Pending {
    /// Counts one more, if there is room for it.
    pub(super) fn enter(&mut self, remote: SocketAddr, limits: &Limits) -> bool {
        let from_there = self.sources.get(&source(remote)).copied().unwrap_or_default();
        let room = self.all < limits.pending && from_there < limits.pending_per_source;
        if room {
            self.all += 1;
            self.sources.insert(source(remote), from_there + 1);
        }
        room
    }

    /// One of those counted has registered or gone.
    pub(super) fn leave(&mut self, remote: SocketAddr) {
        self.all -= 1;
        if let Some(from_there) = self.sources.get_mut(&source(remote)) {
            *from_there -= 1;
            if *from_there == 0 {
                self.sources.remove(&source(remote));
            }
        }
    }
}
