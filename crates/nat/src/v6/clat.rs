//! The customer's half of 464XLAT (RFC 6877): IPv4 on the inside, IPv6 on the outside, no state (RFC 7915).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use pref64::Pref64;

use super::Before;
use crate::{DropReason, Event, Middlebox, Packet, Side, Verdict};

/// The two prefixes of a customer-side translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClatConfig {
    /// Behind it stand the IPv4 addresses of the internet: the prefix of the provider's NAT64.
    pub provider: Pref64,
    /// Behind it stand the IPv4 addresses inside, so that each has an IPv6 address of its own (RFC 6877 asks for a /64 set
    /// apart for it; this one is of 96 bits in there).
    pub customer: Pref64,
}

impl fmt::Display for ClatConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clat {} to {}", self.customer, self.provider)
    }
}

/// The sender of an ICMP error whose IPv6 address stands for no IPv4 address: 192.0.0.8, which answers nothing
/// (RFC 7600's dummy address, for what RFC 6791 asks of translators).
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// A customer-side translator. IPv6 packets that are not for it pass as they are: the hosts may have IPv6 as well.
#[derive(Clone, Debug)]
pub struct Clat {
    config: ClatConfig,
}

impl Clat {
    /// A translator between the prefixes of `config`.
    pub fn new(config: ClatConfig) -> Clat {
        Clat { config }
    }

    /// What it was made from.
    pub fn config(&self) -> &ClatConfig {
        &self.config
    }

    fn remote_to_v6(&self, endpoint: SocketAddr) -> Result<SocketAddr, DropReason> {
        match endpoint.ip() {
            IpAddr::V4(v4) if self.config.provider.may_carry(v4) => {
                Ok(self.config.provider.embed_endpoint(endpoint))
            }
            _ => Err(DropReason::NotTranslatable),
        }
    }

    fn remote_to_v4(&self, endpoint: SocketAddr) -> Result<SocketAddr, DropReason> {
        self.config.provider.extract_endpoint(endpoint).ok_or(DropReason::NotTranslatable)
    }

    fn host_to_v4(&self, endpoint: SocketAddr) -> Result<SocketAddr, DropReason> {
        self.config.customer.extract_endpoint(endpoint).ok_or(DropReason::NotTranslatable)
    }

    fn leave(&self, packet: &mut dyn Packet) -> Result<(), DropReason> {
        if let Some(quoted) = packet.quoted() {
            // It quotes what came in, with its sender outside.
            let (src, dst) = (self.remote_to_v6(quoted.src())?, quoted.dst());
            quoted.set_src(src);
            quoted.set_dst(self.config.customer.embed_endpoint(dst));
        }
        let dst = self.remote_to_v6(packet.dst())?;
        packet.set_src(self.config.customer.embed_endpoint(packet.src()));
        packet.set_dst(dst);
        Ok(())
    }

    fn enter(&self, packet: &mut dyn Packet) -> Result<(), DropReason> {
        let dst = self.host_to_v4(packet.dst())?;
        let mut src = self.remote_to_v4(packet.src());
        if let Some(quoted) = packet.quoted() {
            let ends = (self.host_to_v4(quoted.src())?, self.remote_to_v4(quoted.dst())?);
            quoted.set_src(ends.0);
            quoted.set_dst(ends.1);
            src = src.or(Ok(SocketAddr::new(NOBODY.into(), 0)));
        }
        packet.set_src(src?);
        packet.set_dst(dst);
        Ok(())
    }
}

impl Middlebox for Clat {
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, _: Instant) -> Verdict {
        let before = Before::of(packet);
        let result = match (side, packet.src().ip(), packet.dst().ip()) {
            (Side::Inside, IpAddr::V4(_), _) => self.leave(packet).map(|()| Side::Outside),
            (Side::Inside, ..) => Ok(Side::Outside),
            (Side::Outside, _, IpAddr::V6(dst)) if self.config.customer.extract(dst).is_some() => {
                self.enter(packet).map(|()| Side::Inside)
            }
            (Side::Outside, IpAddr::V6(_), _) => Ok(Side::Inside),
            (Side::Outside, ..) => Err(DropReason::NotTranslatable),
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
