//! IPv6 at a running router.

use super::net::{Router, in_network};
use crate::packet::Packet;
use crate::scenario::Way;
use crate::topology::{Ipv6Plan, RouterPlan};
use nat::v6::{Clat, ClatConfig, Nat64, Nat64Config, Nptv6};
use nat::{Firewall, Middlebox, Side, Verdict};
use rand_pcg::Pcg64Mcg;
use std::net::IpAddr;
use std::time::Instant;

/// What a router with IPv6 has beside one without.
pub(super) struct Ipv6 {
    pub(super) lan: (IpAddr, u8),
    pub(super) gateway: IpAddr,
    pub(super) translator: Option<Translator>,
    /// The filter of IPv6, where it is not the one for both versions.
    pub(super) firewall: Option<Option<Firewall>>,
}

/// What stands in the way of IPv6 packets, or makes them of others.
pub(super) enum Translator {
    Npt(Nptv6),
    Nat64(Box<Nat64>),
    Clat(Clat),
}

impl Ipv6 {
    /// The running parts of a plan; `rng` gives each its random numbers.
    pub(super) fn new(
        router: &RouterPlan,
        plan: &Ipv6Plan,
        events: bool,
        rng: impl Fn(&str) -> Pcg64Mcg,
    ) -> Ipv6 {
        let translator = match plan.way {
            Way::Routed => None,
            Way::Npt(swap) => Some(Translator::Npt(Nptv6::new(swap))),
            Way::Clat { provider, customer } => {
                Some(Translator::Clat(Clat::new(ClatConfig { provider, customer })))
            }
            Way::Nat64 { prefix } => {
                let axes = router.nat.as_ref().and_then(nat::Translation::axes);
                let nat = axes.cloned().unwrap_or_default();
                let mut nat64 = Nat64::new(Nat64Config { prefix, nat }, router.external.clone(), rng("nat"));
                nat64.set_events(events);
                Some(Translator::Nat64(Box::new(nat64)))
            }
        };
        let firewall = |config: nat::FirewallConfig| Firewall::new(config, rng("firewall of IPv6"));
        Ipv6 {
            lan: plan.lan,
            gateway: plan.gateway,
            translator,
            firewall: plan.firewall.clone().map(|config| config.map(firewall)),
        }
    }

    /// Forgets everything, as a reboot does.
    pub(super) fn clear(&mut self) {
        if let Some(Translator::Nat64(nat64)) = &mut self.translator {
            nat64.clear();
        }
        if let Some(Some(firewall)) = &mut self.firewall {
            firewall.clear();
        }
    }
}

impl Router {
    /// The box that keeps bindings: a NAT of IPv4 or a NAT64.
    pub(super) fn bindings(&mut self) -> Option<&mut dyn Middlebox> {
        match self.ipv6.as_mut().and_then(|v6| v6.translator.as_mut()) {
            Some(Translator::Nat64(nat64)) => Some(nat64.as_mut()),
            _ => self.nat.as_mut().map(|nat| nat as &mut dyn Middlebox),
        }
    }

    /// The filter that packets of IPv6, or of IPv4, have to pass.
    #[inline]
    pub(super) fn filter(&mut self, is_v6: bool) -> Option<&mut Firewall> {
        if let Some(v6) = &mut self.ipv6
            && let Some(firewall) = &mut v6.firewall
            && is_v6
        {
            return firewall.as_mut();
        }
        self.firewall.as_deref_mut()
    }

    /// Sends a packet through the translators that stand in its way. The IPv4 NAT of a router with both versions never sees
    /// IPv6.
    #[inline]
    pub(super) fn translate(&mut self, from: Side, packet: &mut Packet, now: Instant) -> Verdict {
        let beyond = match from {
            Side::Inside => Side::Outside,
            Side::Outside => Side::Inside,
        };
        if let Some(v6) = &mut self.ipv6 {
            return match &mut v6.translator {
                Some(Translator::Nat64(nat64)) => nat64.packet(from, packet, now),
                Some(Translator::Clat(clat)) => clat.packet(from, packet, now),
                Some(Translator::Npt(npt)) if packet.src.is_ipv6() => npt.packet(from, packet, now),
                None if packet.src.is_ipv6() => Verdict::Forward(beyond),
                _ => match &mut self.nat {
                    Some(nat) => nat.packet(from, packet, now),
                    None => Verdict::Forward(beyond),
                },
            };
        }
        match &mut self.nat {
            Some(nat) => nat.packet(from, packet, now),
            None => Verdict::Forward(beyond),
        }
    }

    /// Whether an address is of the inside, whoever may have it.
    pub(super) fn is_inside(&self, ip: IpAddr) -> bool {
        in_network(self.lan, ip) || self.ipv6.as_ref().is_some_and(|v6| in_network(v6.lan, ip))
    }

    /// Whether an address is the router's own on its inside.
    pub(super) fn is_gateway(&self, ip: IpAddr) -> bool {
        self.gateway == ip || self.ipv6.as_ref().is_some_and(|v6| v6.gateway == ip)
    }

    /// Its own address inside, of the version of another one.
    pub(super) fn gateway_for(&self, other: IpAddr) -> Option<IpAddr> {
        let v6 = self.ipv6.as_ref().map(|v6| v6.gateway);
        std::iter::once(self.gateway).chain(v6).find(|ip| ip.is_ipv4() == other.is_ipv4())
    }
}
