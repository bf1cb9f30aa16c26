//! Compact keys and times for the tables.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::Proto;

/// A map whose order of iteration does not depend on the process.
pub(crate) type Map<K, V> = IndexMap<K, V, FxBuildHasher>;

/// Two endpoints and a protocol, for hashing: 40 bytes whatever the IP version. IPv4 addresses are in the IPv4-mapped
/// form of RFC 4291 §2.5.5.2, which never appears on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    a: u128,
    b: u128,
    tail: u64,
}

impl Key {
    /// `a` and its port, with an address and port beside it that may be left zero.
    pub(crate) fn new(proto: Proto, a: SocketAddr, b: u128, b_port: u16) -> Key {
        let tail = u64::from(a.port()) << 24 | u64::from(b_port) << 8 | proto as u64;
        Key { a: bits(a.ip()), b, tail }
    }

    /// `a` alone.
    pub(crate) fn of(proto: Proto, a: SocketAddr) -> Key {
        Key::new(proto, a, 0, 0)
    }

    /// Both endpoints.
    pub(crate) fn pair(proto: Proto, a: SocketAddr, b: SocketAddr) -> Key {
        Key::new(proto, a, bits(b.ip()), b.port())
    }
}

/// An address as 128 bits.
pub(crate) fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => 0xffff_0000_0000 | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Turns `Instant`s into nanoseconds since the first one seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Epoch(Option<Instant>);

impl Epoch {
    /// Nanoseconds; a time before the first one counts as the first one.
    pub(crate) fn ns(&mut self, now: Instant) -> u64 {
        to_ns(now.saturating_duration_since(*self.0.get_or_insert(now)))
    }

    /// The way back, for times that [`ns`](Self::ns) was asked about, and later ones.
    pub(crate) fn instant(&self, ns: u64) -> Option<Instant> {
        self.0?.checked_add(Duration::from_nanos(ns))
    }
}

/// Nanoseconds, at most 584 years of them.
pub(crate) fn to_ns(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}
