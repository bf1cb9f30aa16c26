//! Addresses translated one to one, ports untouched: Basic NAT (RFC 2663 §4.1.1).

use std::net::{IpAddr, SocketAddr};

use super::Nat;
use crate::{DropReason, Hairpin, Packet, Side, Verdict};

impl Nat {
    /// Translates a packet by its addresses alone.
    pub(super) fn one_to_one(&mut self, side: Side, ours: bool, packet: &mut dyn Packet) -> Verdict {
        match (side, ours) {
            (Side::Inside, false) => match self.address_of(packet.src().ip()) {
                Some(external) => {
                    swap_source(packet, external);
                    Verdict::Forward(Side::Outside)
                }
                None => Verdict::Drop(DropReason::NoExternalAddress),
            },
            (Side::Inside, true) if self.config.hairpin == Hairpin::Off => {
                Verdict::Drop(DropReason::NoHairpin)
            }
            (Side::Inside, true) => {
                let (Some(external), Some(owner)) =
                    (self.address_of(packet.src().ip()), self.owner_of(packet.dst().ip()))
                else {
                    return Verdict::Drop(DropReason::NoBinding);
                };
                if self.config.hairpin == Hairpin::ExternalSource {
                    swap_source(packet, external);
                }
                swap_destination(packet, owner);
                Verdict::Forward(Side::Inside)
            }
            (Side::Outside, true) => match self.owner_of(packet.dst().ip()) {
                Some(owner) => {
                    swap_destination(packet, owner);
                    Verdict::Forward(Side::Inside)
                }
                None => self.refusal(packet, DropReason::NoBinding),
            },
            (Side::Outside, false) => Verdict::Drop(DropReason::NotOurAddress),
        }
    }

    /// The external address of an inside address, which gets the first that is nobody's with its first packet.
    pub(super) fn address_of(&mut self, inside: IpAddr) -> Option<IpAddr> {
        let place = self.place_of(inside)?;
        self.owners[place] = Some(inside);
        Some(self.external[place])
    }

    /// The place of its external address, or of the one that it would get.
    pub(super) fn place_of(&self, inside: IpAddr) -> Option<usize> {
        let fits = |(owner, external): (&Option<IpAddr>, &IpAddr)| {
            owner.is_none() && external.is_ipv4() == inside.is_ipv4()
        };
        let owned = self.owners.iter().position(|owner| *owner == Some(inside));
        owned.or_else(|| self.owners.iter().zip(&self.external).position(fits))
    }

    fn owner_of(&self, external: IpAddr) -> Option<IpAddr> {
        let address = self.external.iter().position(|ip| *ip == external)?;
        self.owners[address]
    }
}

/// Also in what an ICMP error quotes, which went the other way.
fn swap_source(packet: &mut dyn Packet, ip: IpAddr) {
    let src = packet.src();
    if let Some(quoted) = packet.quoted() {
        let dst = quoted.dst();
        quoted.set_dst(SocketAddr::new(ip, dst.port()));
    }
    packet.set_src(SocketAddr::new(ip, src.port()));
}

fn swap_destination(packet: &mut dyn Packet, ip: IpAddr) {
    let dst = packet.dst();
    if let Some(quoted) = packet.quoted() {
        let src = quoted.src();
        quoted.set_src(SocketAddr::new(ip, src.port()));
    }
    packet.set_dst(SocketAddr::new(ip, dst.port()));
}
