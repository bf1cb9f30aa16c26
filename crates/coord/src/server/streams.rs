//! What comes over one stream, and when it ends.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::registry::{self, Registration};
use super::{ConnId, LeaveReason, Server, ServerEvent, ServerTransmit, UPDATE_BURST, UPDATE_EVERY, refused};
use crate::channel::Channel;
use crate::http::Door;
use crate::proof::{Use, holds};
use crate::wire::{ToClient, ToServer, frame};
use crate::{DEAD_AFTER, Error, HANDSHAKE_WITHIN, KEEP_ALIVE, Refusal, Update};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nobody knows yet.
    Unknown,
    /// A machine's that may register.
    Machine,
    /// A node's that waits for the map, or for an administrator.
    Arriving(u32),
    /// A node's that has the map.
    Member(u32),
    Admin,
    Relay,
}

impl Role {
    pub(super) fn node(self) -> Option<u32> {
        match self {
            Role::Arriving(id) | Role::Member(id) => Some(id),
            _ => None,
        }
    }

    pub(super) fn is_pending(self) -> bool {
        matches!(self, Role::Unknown | Role::Machine)
    }
}

pub(super) struct Conn {
    pub(super) channel: Channel,
    pub(super) remote: SocketAddr,
    pub(super) machine: [u8; 32],
    pub(super) role: Role,
    /// The map that the client says it has.
    pub(super) have: Option<crate::MapVersion>,
    /// Whether it was told to wait.
    pub(super) told_to_wait: bool,
    /// How many reports are taken at once now, and since when that is so.
    pub(super) allowance: (u32, Instant),
    /// A report that came too soon.
    pub(super) held: Option<Update>,
    pub(super) credit: usize,
    pub(super) queued: bool,
    pub(super) since: Instant,
    pub(super) heard: Instant,
    pub(super) keep_alive_at: Instant,
    pub(super) check_at: Instant,
}

impl Server {
    pub(super) fn opened(&mut self, conn: ConnId, remote: [u8; 32], door: Door) -> Result<(), Error> {
        let count = |role| self.conns.values().filter(|stream| stream.role == role).count();
        let role = match door {
            Door::Machine => Role::Machine,
            Door::Admin if !self.config.admins.contains(&remote) => {
                return Err(Error::Stranger("administrator"));
            }
            Door::Relay if !self.relay_map().iter().any(|relay| relay.key == remote) => {
                return Err(Error::Stranger("relay of the network"));
            }
            Door::Admin if count(Role::Admin) >= self.config.limits.admins => {
                return Err(Error::TooManyPending);
            }
            Door::Relay if count(Role::Relay) >= self.config.limits.admins => {
                return Err(Error::TooManyPending);
            }
            Door::Admin => Role::Admin,
            Door::Relay => Role::Relay,
        };
        let admitted = (role == Role::Relay).then(|| self.admitted());
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.machine = remote;
            stream.role = role;
            if !role.is_pending() {
                self.pending.leave(stream.remote);
            }
        }
        if let Some(admitted) = admitted {
            self.push(conn, admitted);
        }
        Ok(())
    }

    pub(super) fn message(&mut self, conn: ConnId, message: ToServer, now: Instant) -> Result<(), Error> {
        let Some(stream) = self.conns.get_mut(&conn) else { return Ok(()) };
        match (message, stream.role) {
            (
                ToServer::Register {
                    name,
                    node_key,
                    disco_key,
                    node_proof,
                    disco_proof,
                    auth_key,
                    have,
                    update,
                },
                Role::Machine,
            ) => {
                let (private, transcript) = (&self.config.private_key, stream.channel.transcript());
                if !holds(&node_key, private, Use::Node, transcript, &node_proof)
                    || !holds(&disco_key, private, Use::Disco, transcript, &disco_proof)
                {
                    return Err(refused(Refusal::KeyNotProven));
                }
                let (machine, unix) = (stream.machine, self.unix(now));
                if let Some(stream) = self.conns.get_mut(&conn) {
                    stream.have = have;
                }
                let terms = self.terms(&machine, &node_key, auth_key.as_deref(), unix).map_err(refused)?;
                self.register(Registration { machine, conn, name, node_key, disco_key, update, terms }, now)
            }
            (ToServer::Register { .. }, _) => Err(Error::Protocol("registered twice, or at another door")),
            (ToServer::Update(update), Role::Arriving(id) | Role::Member(id)) => {
                registry::check(&update).map_err(refused)?;
                let spent =
                    now.saturating_duration_since(stream.allowance.1).as_millis() / UPDATE_EVERY.as_millis();
                let earned = u32::try_from(spent).unwrap_or(u32::MAX);
                let (left, since) = &mut stream.allowance;
                if earned > 0 {
                    (*left, *since) = (left.saturating_add(earned).min(UPDATE_BURST), now);
                }
                if *left == 0 {
                    stream.held = Some(update);
                    let at = *since + UPDATE_EVERY;
                    self.check_by(conn, at);
                } else {
                    *left -= 1;
                    stream.held = None;
                    self.update(id, update, now);
                }
                Ok(())
            }
            (ToServer::Rotate { node_key, node_proof }, Role::Arriving(id) | Role::Member(id)) => {
                let (private, transcript) = (&self.config.private_key, stream.channel.transcript());
                if !holds(&node_key, private, Use::Node, transcript, &node_proof) {
                    return Err(refused(Refusal::KeyNotProven));
                }
                self.rotate(id, node_key, now).map_err(refused)
            }
            (ToServer::Update(_) | ToServer::Rotate { .. }, _) => {
                Err(Error::Protocol("an update before the registration"))
            }
            (ToServer::KeepAlive | ToServer::Unknown, _) => Ok(()),
        }
    }

    pub(super) fn check(&mut self, conn: ConnId, now: Instant) {
        let Some(stream) = self.conns.get_mut(&conn) else { return };
        let late = if stream.role.is_pending() && now >= stream.since + HANDSHAKE_WITHIN {
            Some("registration")
        } else if now >= stream.heard + DEAD_AFTER {
            Some("nothing heard from the client")
        } else {
            None
        };
        if let Some(what) = late {
            return self.fail(conn, Error::TimedOut(what), now);
        }
        if now >= stream.keep_alive_at {
            stream.keep_alive_at = now + KEEP_ALIVE;
            // A client with a backlog has enough to read, and an administrator's stream has answers only.
            if stream.channel.backlog() == 0 && stream.role != Role::Admin {
                stream.channel.push(frame(&ToClient::KeepAlive));
            }
        }
        stream.check_at = stream.keep_alive_at.min(stream.heard + DEAD_AFTER);
        if stream.role.is_pending() {
            stream.check_at = stream.check_at.min(stream.since + HANDSHAKE_WITHIN);
        }
        let held_until = stream.allowance.1 + UPDATE_EVERY;
        if stream.held.is_some() && now < held_until {
            stream.check_at = stream.check_at.min(held_until);
        }
        self.checks.insert((stream.check_at, conn));
        if now >= held_until
            && let (Some(update), Some(id)) = (stream.held.take(), stream.role.node())
        {
            stream.allowance = (0, now);
            self.update(id, update, now);
        }
        self.wake(conn);
    }

    /// Looks at a stream no later than that.
    pub(super) fn check_by(&mut self, conn: ConnId, at: Instant) {
        if let Some(stream) = self.conns.get_mut(&conn)
            && at < stream.check_at
        {
            self.checks.remove(&(stream.check_at, conn));
            stream.check_at = at;
            self.checks.insert((at, conn));
        }
    }

    pub(super) fn push(&mut self, conn: ConnId, message: Bytes) {
        if let Some(stream) = self.conns.get_mut(&conn) {
            stream.channel.push(message);
            self.wake(conn);
        }
    }

    pub(super) fn wake(&mut self, conn: ConnId) {
        if let Some(stream) = self.conns.get_mut(&conn)
            && stream.credit > 0
            && !stream.queued
            && stream.channel.has_output()
        {
            stream.queued = true;
            self.ready.push_back(conn);
        }
    }

    /// Closes a stream for a reason, which the client is told if there is credit to say it.
    pub(super) fn fail(&mut self, conn: ConnId, error: Error, now: Instant) {
        if let Some(stream) = self.conns.get_mut(&conn)
            && let Error::Refused { code, reason } = &error
        {
            stream.channel.push(frame(&ToClient::Refused { code: *code, reason: reason.clone() }));
        }
        self.end(conn, LeaveReason::Failed(error), now);
    }

    /// Closes a stream after what there is credit for.
    pub(super) fn end(&mut self, conn: ConnId, why: LeaveReason, now: Instant) {
        if let Some(stream) = self.conns.get_mut(&conn) {
            while let Some(data) = stream.channel.pull(stream.credit) {
                stream.credit -= data.len();
                self.last_words.push_back(ServerTransmit::Write { conn, data });
            }
            self.last_words.push_back(ServerTransmit::Close { conn });
            self.forget(conn, why, now);
        }
    }

    pub(super) fn forget(&mut self, conn: ConnId, why: LeaveReason, now: Instant) {
        let Some(stream) = self.conns.remove(&conn) else { return };
        self.checks.remove(&(stream.check_at, conn));
        self.changes.arrivals.remove(&conn);
        if stream.role.is_pending() {
            self.pending.leave(stream.remote);
        }
        if let Some(id) = stream.role.node() {
            self.note(id);
            if self.registry.leave(id, conn, now) {
                self.file(id);
                self.schedule_flush(now);
            }
            self.events.push_back(ServerEvent::Left { conn, id, why });
        } else if let LeaveReason::Failed(error) = why {
            self.events.push_back(ServerEvent::Rejected { conn, remote: stream.remote, error });
        }
    }
}
