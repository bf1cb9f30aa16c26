//! Bindings and the conversations that keep them alive.

use std::net::SocketAddr;

use super::Nat;
use crate::key::{Key, bits};
use crate::{DropReason, Ended, Event, Filtering, Mapping, Proto};

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// An inside endpoint's external endpoint. It lives as long as one of its conversations, or as somebody asked for.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) proto: Proto,
    pub(super) inside: SocketAddr,
    pub(super) external: SocketAddr,
    /// Where the packet that created it went.
    pub(super) remote: SocketAddr,
    /// Which of the external addresses.
    pub(super) address: usize,
    /// How many bindings there were before it.
    pub(super) serial: u64,
    /// Until when somebody has asked for it; zero for one that packets made and packets keep.
    pub(super) lease: u64,
    /// The next older binding of the same external endpoint.
    older: u32,
    pub(super) conversations: u32,
    /// The conversation used last, so that a single one needs no look-up.
    pub(super) last: u32,
    last_remote: (u128, u16),
}

impl Binding {
    /// Whether an older binding has the same external endpoint.
    #[inline]
    pub(super) fn shares(&self) -> bool {
        self.older != NONE
    }

    /// The next older binding of the same external endpoint.
    pub(super) fn next_sharing(&self) -> Option<u32> {
        Some(self.older).filter(|older| *older != NONE)
    }
}

/// What a conversation belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) binding: u32,
    pub(super) remote: (u128, u16),
}

impl Nat {
    /// What identifies the binding of packets from `inside` to `remote`.
    #[inline]
    pub(super) fn inside_key(&self, proto: Proto, inside: SocketAddr, remote: SocketAddr) -> Key {
        match self.mapping[proto as usize] {
            Mapping::EndpointIndependent => Key::of(proto, inside),
            Mapping::AddressDependent => Key::new(proto, inside, bits(remote.ip()), 0),
            Mapping::AddressAndPortDependent => Key::pair(proto, inside, remote),
        }
    }

    /// What identifies the conversation of a binding with `remote`.
    #[inline]
    pub(super) fn remote_key(&self, proto: Proto, remote: SocketAddr) -> (u128, u16) {
        match self.filtering[proto as usize] {
            // Each TCP connection has its own state, but nothing else tells senders apart here.
            Filtering::EndpointIndependent if proto != Proto::Tcp && self.config.mapped_outbound => (0, 0),
            _ => (bits(remote.ip()), remote.port()),
        }
    }

    /// The conversation of a binding with `remote`, if there is one.
    #[inline]
    pub(super) fn find_conversation(&mut self, slot: u32, remote: (u128, u16)) -> Option<u32> {
        let binding = &mut self.bindings[slot as usize];
        if binding.last != NONE && binding.last_remote == remote {
            return Some(binding.last);
        }
        let session = *self.conversations.get(&(slot, remote.1, remote.0))?;
        binding.last = session;
        binding.last_remote = remote;
        Some(session)
    }

    pub(super) fn open_conversation(&mut self, slot: u32, remote: (u128, u16), now: u64) -> u32 {
        let binding = &mut self.bindings[slot as usize];
        let proto = binding.proto;
        let session = self.sessions.insert(Owner { binding: slot, remote }, proto, now);
        binding.conversations += 1;
        binding.last = session;
        binding.last_remote = remote;
        self.conversations.insert((slot, remote.1, remote.0), session);
        if self.filtering[proto as usize] == Filtering::AddressDependent {
            *self.contacted.entry((slot, remote.0)).or_insert(0) += 1;
        }
        session
    }

    /// Forgets a conversation that is over, and its binding with the last one.
    pub(super) fn end_conversation(&mut self, owner: Owner, at: u64, why: Ended) {
        let Owner { binding: slot, remote: (ip, port) } = owner;
        self.conversations.swap_remove(&(slot, port, ip));
        let binding = &mut self.bindings[slot as usize];
        if self.filtering[binding.proto as usize] == Filtering::AddressDependent
            && let Some(count) = self.contacted.get_mut(&(slot, ip))
        {
            *count -= 1;
            if *count == 0 {
                self.contacted.swap_remove(&(slot, ip));
            }
        }
        if binding.last_remote == owner.remote {
            binding.last = NONE;
        }
        binding.conversations -= 1;
        if binding.conversations == 0 && binding.lease == 0 {
            self.end_binding(slot, at, why);
        }
    }

    /// A new binding for packets from `inside` to `remote`.
    pub(super) fn bind(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        remote: SocketAddr,
        now: u64,
    ) -> Result<u32, DropReason> {
        if self.quota_used(inside) {
            return Err(DropReason::HostQuota);
        }
        let (address, port) = self.choose(proto, inside, remote.ip(), now)?;
        let external = SocketAddr::new(self.external[address], port);
        let slot = self.install(proto, inside, remote, address, external, now);
        self.by_inside.insert(self.inside_key(proto, inside, remote), slot);
        Ok(slot)
    }

    /// Whether an inside address has as many bindings as it may.
    pub(super) fn quota_used(&self, inside: SocketAddr) -> bool {
        let quota = self.config.host_quota;
        quota != usize::MAX && self.by_host.get(&bits(inside.ip())).copied().unwrap_or(0) >= quota
    }

    /// Writes down a new binding.
    pub(super) fn install(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        remote: SocketAddr,
        address: usize,
        external: SocketAddr,
        now: u64,
    ) -> u32 {
        let serial = self.serial;
        self.serial += 1;
        let slot = self.bindings.insert(Binding {
            proto,
            inside,
            external,
            remote,
            address,
            serial,
            lease: 0,
            older: NONE,
            conversations: 0,
            last: NONE,
            last_remote: (0, 0),
        }) as u32;
        self.enter(slot);
        if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(now)) {
            events.push_back(Event::BindingCreated { at, proto, inside, external, remote });
        }
        slot
    }

    /// Writes a binding into the tables of external endpoints and of hosts, as the newest.
    pub(super) fn enter(&mut self, slot: u32) {
        let binding = &mut self.bindings[slot as usize];
        let (proto, external) = (binding.proto, binding.external);
        binding.older = self.by_external.insert(Key::of(proto, external), slot).unwrap_or(NONE);
        self.ports.take(binding.address, proto, external.port());
        if self.config.host_quota != usize::MAX {
            *self.by_host.entry(bits(binding.inside.ip())).or_insert(0) += 1;
        }
    }

    /// Takes a binding without conversations out of the tables.
    pub(super) fn end_binding(&mut self, slot: u32, at: u64, why: Ended) {
        let binding = self.bindings.remove(slot as usize);
        let Binding { proto, inside, external, remote, older, .. } = binding;
        let key = Key::of(proto, external);
        match self.by_external.get(&key).copied() {
            Some(newest) if newest != slot => {
                let mut next = newest;
                while self.bindings[next as usize].older != slot {
                    next = self.bindings[next as usize].older;
                }
                self.bindings[next as usize].older = older;
            }
            _ if older != NONE => {
                self.by_external.insert(key, older);
            }
            _ => {
                self.by_external.swap_remove(&key);
                self.ports.release(binding.address, proto, external.port(), at, &self.config);
            }
        }
        if self.config.host_quota != usize::MAX
            && let Some(count) = self.by_host.get_mut(&bits(inside.ip()))
        {
            *count -= 1;
            if *count == 0 {
                self.by_host.swap_remove(&bits(inside.ip()));
            }
        }
        let key = self.inside_key(proto, inside, remote);
        if self.by_inside.get(&key) == Some(&slot) {
            self.by_inside.swap_remove(&key);
        }
        if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(at)) {
            events.push_back(Event::BindingExpired { at, proto, inside, external, remote, why });
        }
    }
}
