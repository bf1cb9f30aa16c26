//! What somebody does to a running NAT: other behaviour, other addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::Nat;
use super::bindings::{Binding, NONE, Owner};
use crate::key::bits;
use crate::{Ended, Filtering, NatConfig, Proto};

impl Nat {
    /// Behaves otherwise from now on, with the bindings and conversations that it has. To forget them as well, call
    /// [`clear`](crate::Middlebox::clear) first.
    ///
    /// Times hold from the next packet of each conversation on. What the new limits would not allow stays until it ends.
    /// Where a new mapping behaviour would have had one binding where there are several, the newest is the one that
    /// packets from inside use. A filter that becomes stricter than endpoint-independent knows of the remote endpoint that
    /// each binding was made for, and of no other.
    pub fn set_config(&mut self, config: NatConfig) {
        self.sessions.configure(&config.timeouts, config.capacity);
        self.mapping = Proto::ALL.map(|proto| config.mapping_of(proto));
        self.filtering = Proto::ALL.map(|proto| config.filtering_of(proto));
        self.config = config;
        self.index();
        self.recollect();
    }

    /// Has these external addresses from now on. The bindings on lost ones end, those on others stay.
    pub fn set_external(&mut self, external: Vec<IpAddr>, now: Instant) {
        let now = self.epoch.ns(now);
        self.expire(now);
        self.owners.resize(external.len(), None);
        self.external = external;
        let lost: Vec<u32> = (self.bindings.iter())
            .filter(|(_, binding)| !self.external.contains(&binding.external.ip()))
            .map(|(slot, _)| slot as u32)
            .collect();
        for slot in lost {
            self.drop_binding(slot, now, Ended::AddressLost);
        }
        // What rests does so on addresses that have another place now, or none.
        self.ports.wake();
        for (_, binding) in &mut self.bindings {
            let same = self.external.iter().position(|ip| *ip == binding.external.ip());
            binding.address = same.unwrap_or_default();
        }
        self.index();
    }

    /// Ends a binding before its time, with its conversations and whatever was asked for.
    pub(super) fn drop_binding(&mut self, slot: u32, at: u64, why: Ended) {
        let mine: Vec<(u32, u16, u128)> =
            self.conversations.keys().filter(|(binding, ..)| *binding == slot).copied().collect();
        for key in mine {
            if let Some(session) = self.conversations.swap_remove(&key) {
                self.sessions.remove(session);
            }
            self.contacted.swap_remove(&(slot, key.2));
        }
        let binding = &mut self.bindings[slot as usize];
        binding.conversations = 0;
        if binding.lease == 0 {
            self.end_binding(slot, at, why);
        } else {
            self.end_lease(slot, at, why);
        }
    }

    /// Writes the tables of bindings anew.
    fn index(&mut self) {
        self.by_inside.clear();
        self.by_external.clear();
        self.by_host.clear();
        self.ports.restart(self.external.len());
        let mut slots: Vec<(u64, u32)> =
            self.bindings.iter().map(|(slot, binding)| (binding.serial, slot as u32)).collect();
        slots.sort_unstable();
        for (_, slot) in slots {
            self.enter(slot);
            let Binding { proto, inside, remote, lease, .. } = self.bindings[slot as usize];
            // What somebody asked for, and no packet, is not found by packets.
            if remote.port() != 0 || lease == 0 {
                self.by_inside.insert(self.inside_key(proto, inside, remote), slot);
            }
        }
    }

    /// Writes the filter's memory anew.
    fn recollect(&mut self) {
        self.contacted.clear();
        let old = std::mem::take(&mut self.conversations);
        for ((slot, port, ip), session) in old {
            let binding = &mut self.bindings[slot as usize];
            binding.last = NONE;
            let mut remote = (ip, port);
            let known: SocketAddr = binding.remote;
            let filtering = self.filtering[binding.proto as usize];
            if remote == (0, 0) && filtering != Filtering::EndpointIndependent {
                remote = (bits(known.ip()), known.port());
            }
            if self.conversations.contains_key(&(slot, remote.1, remote.0)) {
                // Both were kept for the one that is left.
                binding.conversations -= 1;
                self.sessions.remove(session);
                continue;
            }
            *self.sessions.owner_mut(session) = Owner { binding: slot, remote };
            self.conversations.insert((slot, remote.1, remote.0), session);
            if filtering == Filtering::AddressDependent {
                *self.contacted.entry((slot, remote.0)).or_insert(0) += 1;
            }
        }
    }
}
