//! Bindings that somebody asked for, as by NAT-PMP, PCP, UPnP-IGD or a page of the router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use super::{Binding, Nat};
use crate::key::{Key, bits};
use crate::{DropReason, Ended, Mapping, Pooling, Proto};

/// The external port that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one that the inside endpoint has already, else whichever the NAT would choose.
    Any,
    /// This one where it is free, else as `Any` (NAT-PMP, RFC 6886 §3.3; PCP, RFC 6887 §11.1).
    Prefer(u16),
    /// This one or none (PCP's PREFER_FAILURE, RFC 6887 §13.2; UPnP's AddPortMapping).
    Exactly(u16),
}

/// Why there is no binding of the kind that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The port asked for is zero, or another inside endpoint has it.
    #[error("the external port is not free")]
    PortTaken,
    /// Every external port that the inside endpoint might get is taken.
    #[error("no external port is free")]
    NoFreePort,
    /// The host inside has as many bindings as it may.
    #[error("the host has as many mappings as it may")]
    HostQuota,
    /// The NAT has no external address of that IP version.
    #[error("there is no external address of that kind")]
    NoExternalAddress,
}

/// A binding that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Protocol.
    pub proto: Proto,
    /// The endpoint of the host inside.
    pub inside: SocketAddr,
    /// What the world sees.
    pub external: SocketAddr,
    /// When it ends; `None` for one without an end.
    pub until: Option<Instant>,
}

impl Nat {
    /// Binds an external port to an inside endpoint until a time, or for ever, whatever is sent. Anybody may send to it.
    /// What the endpoint itself sends leaves from it too, unless [`NatConfig::mapped_outbound`] says otherwise.
    ///
    /// Asking again for the same endpoint sets the end anew, and gives the same port unless another one is asked for with
    /// [`Wanted::Exactly`]. When it ends, the conversations that live keep the binding, under the rules of the others.
    ///
    /// [`NatConfig::mapped_outbound`]: crate::NatConfig::mapped_outbound
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn map(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        wanted: Wanted,
        until: Option<Instant>,
        now: Instant,
    ) -> Result<SocketAddr, MapError> {
        let now = self.epoch.ns(now);
        self.expire(now);
        if self.config.pooling == Pooling::OneToOne {
            // All ports are its own already, and stay so.
            let ip = self.address_of(inside.ip()).ok_or(MapError::NoExternalAddress)?;
            let other = matches!(wanted, Wanted::Exactly(port) if port != inside.port());
            return if other { Err(MapError::PortTaken) } else { Ok(SocketAddr::new(ip, inside.port())) };
        }
        let lease = until.map_or(u64::MAX, |until| self.epoch.ns(until).clamp(1, u64::MAX - 1));
        let address = self.address_for(inside.ip(), inside.ip()).ok_or(MapError::NoExternalAddress)?;
        let holder = |nat: &Nat, port: u16| {
            let external = SocketAddr::new(nat.external[address], port);
            nat.by_external.get(&Key::of(proto, external)).copied()
        };
        let explicit = self.explicit.get(&Key::of(proto, inside)).copied();
        let own = self.own(proto, inside);
        let slot = match (wanted, explicit) {
            (Wanted::Exactly(0), _) => return Err(MapError::PortTaken),
            (Wanted::Exactly(port), _) => match holder(self, port) {
                Some(slot) if self.bindings[slot as usize].inside == inside => slot,
                None if self.ports.is_free(address, proto, port, now) => {
                    self.hold(proto, inside, address, port, now)?
                }
                _ => return Err(MapError::PortTaken),
            },
            (_, Some(slot)) => slot,
            (Wanted::Prefer(port @ 1..), None) if self.ports.is_free(address, proto, port, now) => {
                self.hold(proto, inside, address, port, now)?
            }
            (Wanted::Any | Wanted::Prefer(_), None) => match own {
                Some(slot) => slot,
                None => {
                    let port = self.free_port(proto, inside, address, now).ok_or(MapError::NoFreePort)?;
                    self.hold(proto, inside, address, port, now)?
                }
            },
        };
        self.unusual = true;
        self.explicit.insert(Key::of(proto, inside), slot);
        let before = std::mem::replace(&mut self.bindings[slot as usize].lease, lease);
        self.leases.remove(&(before, slot));
        self.leases.insert((lease, slot));
        Ok(self.bindings[slot as usize].external)
    }

    /// Ends the binding that somebody asked for on this external endpoint; conversations that live keep it under the rules
    /// of the others. False if there is none.
    pub fn unmap(&mut self, proto: Proto, external: SocketAddr, now: Instant) -> bool {
        let now = self.epoch.ns(now);
        self.expire(now);
        let slot = self.by_external.get(&Key::of(proto, external)).copied();
        let Some(slot) = slot.filter(|slot| self.bindings[*slot as usize].lease != 0) else { return false };
        self.end_lease(slot, now, Ended::Unmapped);
        true
    }

    /// The bindings that somebody asked for. In no particular order, but in the same one in each run.
    pub fn mapped(&self) -> impl Iterator<Item = Mapped> + '_ {
        self.bindings.iter().filter(|(_, binding)| binding.lease != 0).map(|(_, binding)| {
            let Binding { proto, inside, external, lease, .. } = *binding;
            let until = (lease != u64::MAX).then(|| self.epoch.instant(lease)).flatten();
            Mapped { proto, inside, external, until }
        })
    }

    /// The external address of a new binding of this inside address; `None` if there is none of its IP version.
    pub fn external_for(&self, inside: IpAddr) -> Option<IpAddr> {
        if self.config.pooling == Pooling::OneToOne {
            return self.place_of(inside).map(|address| self.external[address]);
        }
        self.address_for(inside, inside).map(|address| self.external[address])
    }

    /// The binding that packets gave to `inside`, where there is but one.
    fn own(&self, proto: Proto, inside: SocketAddr) -> Option<u32> {
        let one = self.mapping[proto as usize] == Mapping::EndpointIndependent;
        self.by_inside.get(&Key::of(proto, inside)).copied().filter(|_| one)
    }

    /// A binding on a free port that no packet asked for.
    fn hold(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        address: usize,
        port: u16,
        now: u64,
    ) -> Result<u32, MapError> {
        if self.quota_used(inside) {
            return Err(MapError::HostQuota);
        }
        let external = SocketAddr::new(self.external[address], port);
        let nobody: IpAddr = match external.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let nobody = SocketAddr::new(nobody, 0);
        Ok(self.install(proto, inside, nobody, address, external, now))
    }

    /// The binding that was asked for and that a packet from `inside` to `remote` leaves by.
    pub(super) fn explicit_for(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        remote: SocketAddr,
    ) -> Option<u32> {
        let slot = *self.explicit.get(&Key::of(proto, inside))?;
        if self.config.mapped_outbound {
            return Some(slot);
        }
        let answers =
            |nat: &mut Nat, slot| nat.find_conversation(slot, (bits(remote.ip()), remote.port())).is_some();
        if answers(self, slot) {
            return Some(slot);
        }
        // With several, the remote may have come in by another one.
        let others: Vec<u32> = self.mapped_slots(proto, inside).filter(|other| *other != slot).collect();
        others.into_iter().find(|slot| answers(self, *slot))
    }

    /// The conversation of somebody who comes in by a binding that was asked for, without having been written to: where the
    /// inside endpoint's own packets leave from elsewhere, it is remembered, so that the answers do not.
    pub(super) fn answerable(
        &mut self,
        slot: u32,
        proto: Proto,
        remote: SocketAddr,
        now: u64,
    ) -> Result<Option<u32>, DropReason> {
        if self.config.mapped_outbound {
            return Ok(None);
        }
        self.make_room(now)?;
        Ok(Some(self.open_conversation(slot, self.remote_key(proto, remote), now)))
    }

    /// Ends what was asked for until now.
    pub(super) fn end_leases(&mut self, now: u64) {
        while let Some(&(at, slot)) = self.leases.first()
            && at <= now
        {
            self.end_lease(slot, at, Ended::Expired);
        }
    }

    /// From here on the binding lives as long as its conversations.
    pub(super) fn end_lease(&mut self, slot: u32, at: u64, why: Ended) {
        let binding = &mut self.bindings[slot as usize];
        let lease = std::mem::replace(&mut binding.lease, 0);
        let Binding { proto, inside, remote, conversations, .. } = *binding;
        self.leases.remove(&(lease, slot));
        let key = Key::of(proto, inside);
        if self.explicit.get(&key) == Some(&slot) {
            let other = self.mapped_slots(proto, inside).last();
            match other {
                Some(other) => self.explicit.insert(key, other),
                None => self.explicit.swap_remove(&key),
            };
        }
        if conversations == 0 {
            self.end_binding(slot, at, why);
        } else if self.mapping[proto as usize] == Mapping::EndpointIndependent {
            let key = self.inside_key(proto, inside, remote);
            self.by_inside.entry(key).or_insert(slot);
        }
    }

    fn mapped_slots(&self, proto: Proto, inside: SocketAddr) -> impl Iterator<Item = u32> + '_ {
        let mine = move |binding: &Binding| binding.proto == proto && binding.inside == inside;
        self.leases.iter().map(|(_, slot)| *slot).filter(move |slot| mine(&self.bindings[*slot as usize]))
    }
}
