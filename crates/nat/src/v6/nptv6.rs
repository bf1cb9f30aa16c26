//! Network prefix translation (RFC 6296).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use pref64::{BadPrefix, Ipv6Prefix};

use super::Before;
use crate::{DropReason, Event, Middlebox, Packet, Side, Verdict};

/// A pair of prefixes that stand for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nptv6Config {
    inside: Ipv6Prefix,
    outside: Ipv6Prefix,
}

impl Nptv6Config {
    /// Prefixes of one length, at most 64 bits: a shorter one is extended by zeros first, by the caller.
    ///
    /// # Errors
    /// If their lengths differ, or are more than 64.
    pub fn new(inside: Ipv6Prefix, outside: Ipv6Prefix) -> Result<Nptv6Config, BadPrefix> {
        if inside.length() != outside.length() {
            return Err(BadPrefix::Unequal(inside.length(), outside.length()));
        }
        if inside.length() > 64 {
            return Err(BadPrefix::NotForSwap(inside.length()));
        }
        Ok(Nptv6Config { inside, outside })
    }

    /// The prefix of the hosts.
    pub const fn inside(&self) -> Ipv6Prefix {
        self.inside
    }

    /// The prefix that the internet sees.
    pub const fn outside(&self) -> Ipv6Prefix {
        self.outside
    }

    /// The address outside that stands for one inside; `None` for an address without the prefix inside, or one of the few
    /// that have no counterpart.
    pub fn to_outside(&self, inside: Ipv6Addr) -> Option<Ipv6Addr> {
        swap(self.inside, self.outside, inside)
    }

    /// The way back.
    pub fn to_inside(&self, outside: Ipv6Addr) -> Option<Ipv6Addr> {
        swap(self.outside, self.inside, outside)
    }
}

impl fmt::Display for Nptv6Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "npt {} to {}", self.inside, self.outside)
    }
}

/// Swaps prefixes and balances the one's complement sum of the address, so that no checksum over it changes: in the fourth
/// word of addresses with a prefix of up to 48 bits (RFC 6296 §3.4), else in the first word of the interface identifier that
/// is not 0xFFFF (§3.5). Zero has two forms in one's complement; that a result is never 0xFFFF makes the way back unique.
fn swap(from: Ipv6Prefix, to: Ipv6Prefix, address: Ipv6Addr) -> Option<Ipv6Addr> {
    if !from.contains(address) {
        return None;
    }
    let before = address.segments();
    let at = if from.length() <= 48 {
        Some(3).filter(|at| before[*at] != 0xffff)
    } else if before[4..] == [0; 4] {
        // RFC 6296 §3.5: such a datagram is dropped.
        None
    } else {
        (4..8).find(|at| before[*at] != 0xffff)
    }?;
    let mut after = to.put_before(address).segments();
    let adjustment = sum(from.address()) + u32::from(!fold(sum(to.address())));
    after[at] = match fold(u32::from(before[at]) + adjustment) {
        0xffff => 0,
        word => word,
    };
    Some(after.into())
}

/// The sum of an address's words, not yet folded.
fn sum(address: Ipv6Addr) -> u32 {
    address.segments().into_iter().map(u32::from).sum()
}

/// One's complement addition's end-around carry (RFC 1071 §2).
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A network prefix translator. It has no state; what it does not translate, IPv4 included, is none of its business and
/// passes as it is, except that nothing leaves with an address from inside that has no counterpart, or comes in for one that
/// has none.
#[derive(Clone, Debug)]
pub struct Nptv6 {
    config: Nptv6Config,
}

impl Nptv6 {
    /// A translator between the prefixes of `config`.
    pub fn new(config: Nptv6Config) -> Nptv6 {
        Nptv6 { config }
    }

    /// What it was made from.
    pub fn config(&self) -> &Nptv6Config {
        &self.config
    }

    fn outward(&self, endpoint: SocketAddr) -> Result<SocketAddr, DropReason> {
        mapped(endpoint, self.config.inside, |v6| self.config.to_outside(v6))
    }

    fn inward(&self, endpoint: SocketAddr) -> Result<SocketAddr, DropReason> {
        mapped(endpoint, self.config.outside, |v6| self.config.to_inside(v6))
    }

    /// Outwards: the sender of the packet, who is the receiver of the one that it quotes.
    fn leave(&self, packet: &mut dyn Packet) -> Result<(), DropReason> {
        if let Some(quoted) = packet.quoted() {
            quoted.set_dst(self.outward(quoted.dst())?);
        }
        packet.set_src(self.outward(packet.src())?);
        Ok(())
    }

    fn enter(&self, packet: &mut dyn Packet) -> Result<(), DropReason> {
        if let Some(quoted) = packet.quoted() {
            quoted.set_src(self.inward(quoted.src())?);
        }
        packet.set_dst(self.inward(packet.dst())?);
        Ok(())
    }
}

/// `endpoint` translated, if it has the prefix.
fn mapped(
    endpoint: SocketAddr,
    prefix: Ipv6Prefix,
    map: impl Fn(Ipv6Addr) -> Option<Ipv6Addr>,
) -> Result<SocketAddr, DropReason> {
    match endpoint.ip() {
        IpAddr::V6(v6) if prefix.contains(v6) => {
            let mapped = map(v6).ok_or(DropReason::NotTranslatable)?;
            Ok(SocketAddr::new(mapped.into(), endpoint.port()))
        }
        _ => Ok(endpoint),
    }
}

impl Middlebox for Nptv6 {
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, _: Instant) -> Verdict {
        let before = Before::of(packet);
        let own = matches!(packet.dst().ip(), IpAddr::V6(v6) if self.config.outside.contains(v6));
        let result = match side {
            // Hairpinning (RFC 4787 REQ-9, which RFC 6296 §4 asks for): both ends are seen by the address that stands outside.
            Side::Inside if own => {
                self.leave(packet).and_then(|()| self.enter(packet)).map(|()| Side::Inside)
            }
            Side::Inside => self.leave(packet).map(|()| Side::Outside),
            Side::Outside => self.enter(packet).map(|()| Side::Inside),
        };
        match result {
            Ok(side) => Verdict::Forward(side),
            Err(reason) => {
                before.restore(packet);
                Verdict::Drop(reason)
            }
        }
    }

    fn clear(&mut self) {}

    fn set_events(&mut self, _: bool) {}

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn handle_timeout(&mut self, _: Instant) {}
}
