//! The mappings that a gateway gave, in the order in which it did.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Wish;
use crate::Proto;
use crate::pcp::Nonce;

/// One mapping.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) proto: Proto,
    pub(super) inside: SocketAddr,
    pub(super) external: SocketAddr,
    /// The one other end that it is for (PCP's PEER).
    pub(super) remote: Option<SocketAddr>,
    /// `None`: for ever.
    pub(super) lifetime: Option<Duration>,
    pub(super) expires: Option<Instant>,
    forgotten: Option<Instant>,
    /// `None`: not made by PCP.
    pub(super) nonce: Option<Nonce>,
    /// What its owner called it.
    pub(super) text: String,
    /// UPnP's number of a pinhole.
    pub(super) id: u16,
}

impl Lease {
    pub(super) fn new(wish: &Wish, external: SocketAddr) -> Lease {
        Lease {
            proto: wish.proto,
            inside: wish.inside,
            external,
            remote: wish.remote,
            lifetime: None,
            expires: None,
            forgotten: None,
            nonce: wish.nonce,
            text: wish.text.clone(),
            id: 0,
        }
    }

    /// Starts its time anew.
    pub(super) fn renew(&mut self, lifetime: Option<Duration>, forgets: Option<Duration>, now: Instant) {
        self.lifetime = lifetime;
        self.expires = lifetime.and_then(|lifetime| now.checked_add(lifetime));
        self.forgotten = forgets.and_then(|after| now.checked_add(after));
    }

    fn due(&self) -> Option<(Instant, &'static str)> {
        let ends = [(self.forgotten, "forgotten"), (self.expires, "expired")];
        ends.into_iter().filter_map(|(at, why)| Some((at?, why))).min()
    }

    /// Seconds that are left; 0 if there is no end.
    pub(super) fn left(&self, now: Instant) -> u64 {
        self.expires.map_or(0, |at| at.saturating_duration_since(now).as_secs())
    }
}

/// All of them; few enough to be looked through.
#[derive(Debug, Default)]
pub(super) struct Leases {
    list: Vec<Lease>,
    last_id: u16,
}

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// How many a host has.
    pub(super) fn of(&self, host: IpAddr) -> usize {
        self.list.iter().filter(|lease| lease.inside.ip() == host).count()
    }

    /// Takes a lease, which gets a number.
    pub(super) fn add(&mut self, mut lease: Lease) -> Lease {
        // The table holds far fewer than there are numbers.
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.list.iter().all(|other| other.id != self.last_id) {
                break;
            }
        }
        lease.id = self.last_id;
        self.list.push(lease.clone());
        lease
    }

    pub(super) fn get(&self, index: usize) -> Option<&Lease> {
        self.list.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Lease> {
        self.list.get_mut(index)
    }

    /// By the inside endpoint.
    pub(super) fn inside(
        &self,
        proto: Proto,
        inside: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> Option<usize> {
        self.list
            .iter()
            .position(|lease| lease.proto == proto && lease.inside == inside && lease.remote == remote)
    }

    /// By the external port, of a mapping for all.
    pub(super) fn port(&self, proto: Proto, port: u16) -> Option<usize> {
        let here = |lease: &Lease| {
            lease.proto == proto
                && lease.external.port() == port
                && lease.remote.is_none()
                && lease.external.is_ipv4()
        };
        self.list.iter().position(here)
    }

    /// By UPnP's number.
    pub(super) fn id(&self, id: u16) -> Option<usize> {
        self.list.iter().position(|lease| lease.id == id)
    }

    pub(super) fn remove(&mut self, index: usize) -> Lease {
        self.list.remove(index)
    }

    pub(super) fn remove_external(
        &mut self,
        proto: Proto,
        external: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> Option<Lease> {
        let same =
            |lease: &Lease| lease.proto == proto && lease.external == external && lease.remote == remote;
        Some(self.list.remove(self.list.iter().position(same)?))
    }

    /// Those that `which` picks.
    pub(super) fn take(&mut self, which: impl Fn(&Lease) -> bool) -> Vec<Lease> {
        self.list.extract_if(.., |lease| which(lease)).collect()
    }

    /// Whether none is such.
    pub(super) fn has_none(&self, which: impl Fn(&Lease) -> bool) -> bool {
        !self.list.iter().any(which)
    }

    pub(super) fn take_all(&mut self) -> Vec<Lease> {
        std::mem::take(&mut self.list)
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Lease, &'static str)> {
        let due = |lease: &Lease| lease.due().filter(|(at, _)| *at <= now);
        let taken = self.list.extract_if(.., |lease| due(lease).is_some());
        taken
            .map(|lease| (lease.due().map_or("expired", |(_, why)| why), lease))
            .map(|(why, lease)| (lease, why))
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.list.iter().filter_map(|lease| lease.due().map(|(at, _)| at)).min()
    }
}
