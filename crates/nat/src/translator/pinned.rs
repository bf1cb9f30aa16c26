//! Conversations that somebody asked to keep, as by PCP's PEER (RFC 6887 §12): they live until that is taken back, whatever is sent.

use std::net::SocketAddr;
use std::time::Instant;

use super::{MapError, Nat};
use crate::{DropReason, Pooling, Proto};

impl Nat {
    /// Opens the conversation of an inside endpoint with one other end, as its first packet would, or takes the one that there is, and
    /// keeps it until [`unpin`](Self::unpin). The external endpoint is the one that those packets have or would get: another cannot
    /// be asked for.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn pin(
        &mut self,
        proto: Proto,
        inside: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Result<SocketAddr, MapError> {
        let now = self.epoch.ns(now);
        self.expire(now);
        if self.config.pooling == Pooling::OneToOne {
            // Nothing is ever forgotten.
            let ip = self.address_of(inside.ip()).ok_or(MapError::NoExternalAddress)?;
            return Ok(SocketAddr::new(ip, inside.port()));
        }
        let remote_key = self.remote_key(proto, remote);
        let found = self.binding_of(proto, inside, remote);
        let session = match found.and_then(|slot| self.find_conversation(slot, remote_key)) {
            Some(session) => session,
            None => {
                self.make_room(now).map_err(refusal)?;
                // Making room may have ended the binding that was found.
                let slot = match self.binding_of(proto, inside, remote) {
                    Some(slot) => slot,
                    None => self.bind(proto, inside, remote, now).map_err(refusal)?,
                };
                self.open_conversation(slot, remote_key, now)
            }
        };
        self.sessions.pin(session);
        let slot = self.binding_of(proto, inside, remote).ok_or(MapError::NoFreePort)?;
        Ok(self.bindings[slot as usize].external)
    }

    /// Lets a conversation that was [pinned](Self::pin) end by the rules of the others, its time starting now. False if there is none.
    pub fn unpin(&mut self, proto: Proto, inside: SocketAddr, remote: SocketAddr, now: Instant) -> bool {
        let now = self.epoch.ns(now);
        self.expire(now);
        let remote_key = self.remote_key(proto, remote);
        let found = self.binding_of(proto, inside, remote);
        let session = found.and_then(|slot| self.find_conversation(slot, remote_key));
        session.is_some_and(|session| self.sessions.unpin(session, now))
    }
}

fn refusal(reason: DropReason) -> MapError {
    match reason {
        DropReason::HostQuota => MapError::HostQuota,
        DropReason::NoExternalAddress => MapError::NoExternalAddress,
        _ => MapError::NoFreePort,
    }
}
