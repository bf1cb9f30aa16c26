//! Another node key, while everything goes on; and keys that end.
//!
//! ```text
//!  rotate ──▶ relay with the next key ──up, or too late──▶ asked ──the map has it──▶ in force
//! ```
//! Sessions do not depend on the node key: they carry the traffic until handshakes with the new key have replaced them. The
//! relay is the one who needs the key to know where packets go, so there is a connection under either key for a while.

use std::time::{Duration, Instant};

use coord::KeyPair;
use rand::Rng;

use super::Peer;
use crate::dial::Env;
use crate::io::{Event, ServerState};
use crate::relays::{Incoming, Relays};

/// The key that comes.
struct Next {
    key: [u8; 32],
    public: [u8; 32],
    relays: Relays,
    /// When the coordination server is asked at the latest; `None` once it was.
    ask_at: Option<Instant>,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Rotation {
    next: Option<Box<Next>>,
    /// Relay connections under the key before, for those who have not heard yet, and until when.
    former: Option<Box<(Relays, Instant)>>,
    /// The end of the own key, and when it is replaced before that; `None` if that was tried.
    own_end: Option<(u64, Option<Instant>)>,
    /// All keys of others that end no later than this were dealt with, since the coordination server is away.
    ended: u64,
}

/// Runs `act` on relay connections beside those that are told of.
fn quietly(relays: &mut Relays, env: &mut Env<'_>, act: impl FnOnce(&mut Relays, &mut Env<'_>)) {
    let before = env.out.events.len();
    act(relays, env);
    let told = env.out.events.split_off(before);
    env.out.events.extend(told.into_iter().filter(|event| !matches!(event, Event::Relay { .. })));
}

impl Rotation {
    fn all(&mut self) -> impl Iterator<Item = &mut Relays> {
        let next = self.next.as_mut().map(|next| &mut next.relays);
        next.into_iter().chain(self.former.as_mut().map(|former| &mut former.0))
    }

    /// Writes what the connections take.
    pub(super) fn flush(&mut self, env: &mut Env<'_>) {
        for relays in self.all() {
            quietly(relays, env, Relays::flush);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let next = self.next.as_ref();
        let former = self.former.as_ref();
        [
            next.and_then(|next| next.relays.poll_timeout()),
            next.and_then(|next| Some((next.ask_at?, "relay with the next key"))),
            former.and_then(|former| former.0.poll_timeout()),
            former.map(|former| (former.1, "relay with the former key")),
            self.own_end.and_then(|(_, at)| Some((at?, "key rotation"))),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}

impl Peer {
    /// The private key of the tunnel: another one after each [`Event::Rotated`]. It is to be kept for another start.
    #[must_use]
    pub fn private_key(&self) -> [u8; 32] {
        self.private_key
    }

    /// Begins to replace the node key.
    pub(super) fn rotate(&mut self, now: Instant) {
        self.cancel_rotation(now);
        let mut key = [0; 32];
        self.rng.fill_bytes(&mut key);
        let public = wireguard::public_key(&key);
        self.device.expect_private_key(Some(key), now);
        let mut relays = self.relays.with_key(key);
        let home = self.relays.home().filter(|home| self.relays.is_up(*home));
        let infos = &self.relay_map;
        quietly(&mut relays, env!(self, now), |relays, env| {
            relays.set_map(infos, env);
            if let Some(home) = home {
                relays.begin_at(home, env);
            }
        });
        let wait = home.map_or(Duration::ZERO, |_| self.policy.rotate_wait);
        self.rotation.next = Some(Box::new(Next { key, public, relays, ask_at: Some(now + wait) }));
        self.ask_for_key(now);
    }

    /// Tells the coordination server the next key, if it is time.
    fn ask_for_key(&mut self, now: Instant) {
        let Some(next) = &mut self.rotation.next else { return };
        let ready = next.relays.home().is_some_and(|home| next.relays.is_up(home));
        if next.ask_at.is_some_and(|at| ready || at <= now) {
            next.ask_at = None;
            let before = KeyPair { public: self.node_key, private: self.private_key };
            self.signalling.rotate(KeyPair { public: next.public, private: next.key }, before);
        }
    }

    fn cancel_rotation(&mut self, now: Instant) {
        if let Some(mut next) = self.rotation.next.take() {
            self.device.expect_private_key(None, now);
            quietly(&mut next.relays, env!(self, now), |relays, env| relays.stop("the key is not used", env));
        }
    }

    /// The connections under other keys than the present one. `false` if the connection is none of theirs.
    pub(super) fn beside(
        &mut self,
        conn: crate::io::ConnId,
        now: Instant,
        act: impl FnOnce(&mut Relays, &mut Env<'_>),
    ) -> bool {
        let owner = self.rotation.all().find(|relays| relays.owns(conn));
        let Some(relays) = owner else { return false };
        quietly(relays, env!(self, now), act);
        true
    }

    /// The machine is in another network, or has slept.
    pub(super) fn restart_rotation(&mut self, reason: &str, now: Instant) {
        if let Some(mut former) = self.rotation.former.take() {
            quietly(&mut former.0, env!(self, now), |relays, env| relays.stop(reason, env));
        }
        if let Some(next) = &mut self.rotation.next {
            quietly(&mut next.relays, env!(self, now), |relays, env| relays.restart(reason, env));
        }
    }

    /// What came over connections under other keys; `false` if nothing did.
    pub(super) fn settle_rotation(&mut self, now: Instant) -> bool {
        if self.signalling.is_up() {
            self.rotation.ended = 0;
        }
        if self.signalling.take_rotation_refused() {
            self.cancel_rotation(now);
            self.out.warn("the coordination server refuses the new node key: the old one stays");
        }
        let Some(incoming) = self.rotation.all().find_map(Relays::poll_incoming) else { return false };
        match incoming {
            Incoming::Packet { .. } => self.relayed(incoming, now),
            Incoming::Up { .. } => self.ask_for_key(now),
            _ => {}
        }
        true
    }

    pub(super) fn rotation_timeout(&mut self, now: Instant) {
        for relays in self.rotation.all() {
            quietly(relays, env!(self, now), Relays::handle_timeout);
        }
        self.ask_for_key(now);
        if let Some(mut former) = self.rotation.former.take_if(|former| former.1 <= now) {
            quietly(&mut former.0, env!(self, now), |relays, env| relays.stop("another key", env));
        }
        if let Some((_, at)) = &mut self.rotation.own_end
            && at.take_if(|at| *at <= now).is_some()
        {
            self.rotate(now);
        }
        self.end_keys(now);
    }

    /// What the map says of ourselves.
    pub(super) fn own_key(&mut self, node_key: [u8; 32], ends: Option<u64>, now: Instant) {
        if let Some(next) = self.rotation.next.take_if(|next| next.public == node_key) {
            self.key_in_force(*next, now);
        }
        let known = self.rotation.own_end.map(|(end, _)| end);
        if known != ends {
            self.rotation.own_end = ends.map(|end| {
                let left = Duration::from_secs(end).saturating_sub(self.unix(now));
                let lead = self.policy.rotate_before.min(left / 4);
                (end, (!left.is_zero()).then(|| now.checked_add(left - lead)).flatten())
            });
        }
    }

    fn key_in_force(&mut self, next: Next, now: Instant) {
        let Next { key, public, mut relays, .. } = next;
        self.device.set_private_key(key, now);
        self.signalling.rotated();
        (self.private_key, self.node_key) = (key, public);
        // What the others were told stays.
        if let Some(home) = self.relays.home() {
            quietly(&mut relays, env!(self, now), |relays, env| relays.begin_at(home, env));
        }
        let cut_off = self.relays.home().filter(|home| self.relays.is_up(*home) && !relays.is_up(*home));
        let old = std::mem::replace(&mut self.relays, relays);
        if let Some((relay, address)) = cut_off.and_then(|home| old.address(home)) {
            let reason = "the node key was rotated".to_owned();
            self.out.event(Event::Relay { relay, state: ServerState::Closed, address, reason });
        }
        if let Some(mut stale) = self.rotation.former.take() {
            quietly(&mut stale.0, env!(self, now), |relays, env| relays.stop("another key", env));
        }
        self.rotation.former = Some(Box::new((old, now + self.policy.rotate_linger)));
        // So that who keeps the map keeps that of the new key.
        self.directory.touch();
        self.out.event(Event::Rotated { node_key: public });
        for id in self.directory.live_ids() {
            if let Some((_, _, live)) = self.directory.live_mut(id) {
                live.renew = true;
            }
            self.hasten(id, now);
        }
    }

    // ---- keys that end -----------------------------------------------------------------------------

    pub(super) fn unix(&self, now: Instant) -> Duration {
        self.epoch.saturating_add(now.saturating_duration_since(self.began))
    }

    /// While the coordination server is there, it says whose key has ended; while it is away, each peer looks by itself.
    pub(super) fn has_ended(&self, ends: Option<u64>, now: Instant) -> bool {
        !self.signalling.is_up() && ends.is_some_and(|end| end <= self.unix(now).as_secs())
    }

    /// When the next key of another peer ends.
    pub(super) fn next_end(&self) -> Option<(Instant, &'static str)> {
        if self.signalling.is_up() {
            return None;
        }
        let end = self.directory.next_end(self.rotation.ended)?;
        let at = self.began.checked_add(Duration::from_secs(end).saturating_sub(self.epoch))?;
        Some((at, "end of a peer's key"))
    }

    fn end_keys(&mut self, now: Instant) {
        if self.signalling.is_up() {
            return;
        }
        let unix = self.unix(now).as_secs();
        for id in self.directory.ended(self.rotation.ended, unix) {
            self.silence(id, "its key has ended");
        }
        self.rotation.ended = unix;
    }

    /// Nothing goes to the peer or comes from it any more, though it is known.
    pub(super) fn silence(&mut self, id: u32, reason: &'static str) {
        if let Some((_, name, live)) = self.directory.live_mut(id)
            && live.told.is_some()
        {
            let peer = name.clone();
            self.out.event(Event::PathChanged { peer, path: None, reason });
        }
        if let Some(wg) = self.directory.lull(id) {
            self.device.remove_peer(wg);
        }
    }
}
