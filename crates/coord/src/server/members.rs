//! Who is let in, under which key, and until when.

use std::time::{Duration, Instant};

use super::registry::{Registration, Terms};
use super::streams::Role;
use super::{Admission, EPHEMERAL_AFTER, LeaveReason, Server, ServerEvent, ServerTransmit, refused};
use crate::state::Standing;
use crate::{Error, NodeInfo, Refusal, Update};

impl Server {
    /// On which terms a machine registers.
    pub(super) fn terms(
        &self,
        machine: &[u8; 32],
        node_key: &[u8; 32],
        auth_key: Option<&str>,
        unix: u64,
    ) -> Result<Terms, Refusal> {
        let known = self.registry.of_machine(machine);
        let approved = known.filter(|node| node.record.standing == Standing::Approved);
        let settled = approved.is_some_and(|node| !node.expired);
        let names_matter = self.config.admission == Admission::Approved;
        // What let a machine in may be used up when it comes again.
        let key = match auth_key.filter(|_| !settled) {
            Some(text) => {
                let key = self.keys.check(text, unix)?;
                Some((key.id, key.ephemeral, key.tags.clone()))
            }
            None => None,
        };
        let kept = approved
            .filter(|node| node.record.info.node_key == *node_key || (settled && !self.config.renewable));
        let key_expires = match kept {
            Some(node) => node.record.info.key_expires,
            None => self.key_end(unix),
        };
        Ok(Terms {
            admitted: settled || !names_matter || key.is_some(),
            key,
            key_expires,
            names_matter,
            unix,
        })
    }

    pub(super) fn key_end(&self, unix: u64) -> Option<u64> {
        self.config.key_lifetime.map(|lifetime| unix.saturating_add(lifetime.as_secs()))
    }

    pub(super) fn register(&mut self, registration: Registration, now: Instant) -> Result<(), Error> {
        self.registry.check(&registration).map_err(refused)?;
        let known = self.registry.of_machine(&registration.machine).map(|node| node.record.info.id);
        if known.is_none() {
            self.make_room(registration.terms.admitted, now).map_err(refused)?;
        }
        if let Some(id) = known {
            self.note(id);
        }
        let old_key = known.and_then(|id| self.registry.get(id)).map(|node| node.record.info.node_key);
        let (conn, name, key) =
            (registration.conn, registration.name.clone(), registration.terms.key.clone());
        let rotated = old_key.is_some_and(|old| old != registration.node_key);
        let registered = self.registry.register(registration);
        let id = registered.id;
        self.note_new(id);
        if let Some((key, ..)) = key {
            self.keys.used(key);
            self.unstored.key(key);
        }
        if known.is_none() {
            self.unstored.settings();
        }
        self.unstored.node(id, registered.hard || rotated);
        if let Some(old) = registered.replaced {
            self.last_words.push_back(ServerTransmit::Close { conn: old });
            self.forget(old, LeaveReason::Replaced, now);
        }
        self.file(id);
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.role = Role::Arriving(id);
            self.pending.leave(stream.remote);
        }
        self.changes.arrivals.insert(conn);
        self.schedule_flush(now);
        if let Some(node) = self.registry.get(id) {
            let NodeInfo { tunnel_ip, .. } = node.record.info;
            self.events.push_back(match node.record.standing {
                Standing::Approved => ServerEvent::Joined { conn, id, name, tunnel_ip },
                _ => ServerEvent::Waits { conn, id, name },
            });
        }
        Ok(())
    }

    /// Forgets somebody who may go, if there is no room for a new node.
    pub(super) fn make_room(&mut self, admitted: bool, now: Instant) -> Result<(), Refusal> {
        let limits = self.config.limits;
        if !admitted && self.registry.waiting() >= limits.waiting {
            let oldest = self.registry.longest_offline(|record| record.standing == Standing::Waiting);
            self.remove(oldest.ok_or(Refusal::TooManyWaiting)?, now);
        } else if self.registry.is_full() {
            let anyone = self.config.admission == Admission::Anyone;
            let oldest = self.registry.longest_offline(|record| match record.standing {
                Standing::Revoked => false,
                Standing::Waiting => true,
                Standing::Approved => anyone || record.ephemeral,
            });
            self.remove(oldest.ok_or(Refusal::Full)?, now);
        }
        Ok(())
    }

    pub(super) fn update(&mut self, id: u32, update: Update, now: Instant) {
        self.note(id);
        if self.registry.update(id, update) {
            self.unstored.node(id, false);
            self.schedule_flush(now);
        }
    }

    pub(super) fn rotate(&mut self, id: u32, node_key: [u8; 32], now: Instant) -> Result<(), Refusal> {
        let Some(node) = self.registry.get(id) else { return Ok(()) };
        if node.record.info.node_key == node_key {
            return Ok(());
        }
        if self.registry.has_key(&node_key) {
            return Err(Refusal::NodeKeyTaken);
        }
        let expires = match self.config.renewable {
            true => self.key_end(self.unix(now)),
            false => node.record.info.key_expires,
        };
        self.note(id);
        self.registry.set_key(id, node_key, expires, false);
        self.unstored.node(id, true);
        self.file(id);
        self.schedule_flush(now);
        Ok(())
    }

    /// Forgets a node; its stream, if it has one, is closed.
    pub(super) fn remove(&mut self, id: u32, now: Instant) {
        self.note(id);
        let Some(node) = self.registry.remove(id) else { return };
        self.unstored.node(id, true);
        if let Some(conn) = node.conn {
            self.fail(conn, refused(Refusal::Removed), now);
        }
        self.schedule_flush(now);
    }

    /// Files when a node will end, if it will.
    pub(super) fn file(&mut self, id: u32) {
        let Some(node) = self.registry.get(id) else { return };
        let key = node.record.info.key_expires.and_then(|end| {
            let left = Duration::from_secs(end).saturating_sub(self.config.epoch);
            self.began.checked_add(left)
        });
        let key = key.filter(|_| !node.expired);
        let gone = node.offline_at.filter(|_| node.record.ephemeral).map(|at| at + EPHEMERAL_AFTER);
        self.ends.extend(key.into_iter().chain(gone).map(|at| (at, id)));
    }

    pub(super) fn check_end(&mut self, id: u32, now: Instant) {
        let unix = self.unix(now);
        let Some(node) = self.registry.get(id) else { return };
        if node.record.ephemeral && node.offline_at.is_some_and(|at| at + EPHEMERAL_AFTER <= now) {
            return self.remove(id, now);
        }
        let ends = node.record.info.key_expires;
        if !node.expired && ends.is_some_and(|end| end <= unix) {
            self.expire(id, now);
        }
    }

    pub(super) fn expire(&mut self, id: u32, now: Instant) {
        self.note(id);
        if let Some(node) = self.registry.edit(id) {
            node.expired = true;
            if let Some(conn) = node.conn {
                self.fail(conn, refused(Refusal::KeyExpired), now);
            }
        }
        self.schedule_flush(now);
    }
}
