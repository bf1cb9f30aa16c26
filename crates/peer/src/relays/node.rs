//! Which relay of a region is used, and what those say of themselves: that they are ill, or will restart.
//!
//! A region is one to its clients, so another of its relays is as good as home, and nearer than another region. Nothing is lost
//! on the way to it, as the one that is left serves until the other does. What a relay says it says to all of its clients: each
//! waits for a time of its own before it moves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use derp::{Client, ClientEvent};
use rand::RngExt;

use super::{Incoming, Relay, Relays};
use crate::dial::{Dial, Env};
use crate::io::ConnId;

/// A connection that will end soon, while that to the region's next relay comes about: what arrives on it counts, and what is
/// sent takes it until the next is usable.
pub(super) struct Old {
    pub(super) dial: Dial,
    pub(super) client: Client,
    /// When it is given up.
    pub(super) until: Instant,
}

/// What a relay's word asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It restarts: the region's next relay serves.
    Restart,
    /// It is ill, or well again.
    Health,
}

impl Turn {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Turn::Restart => "relay restarts",
            Turn::Health => "relay health",
        }
    }
}

/// What the relays of a region say of themselves.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The last word of the one in use.
    told_ill: bool,
    /// Whether the region counts as ill, because every relay of it said so.
    ill: bool,
    /// Whether the one in use may still have something to say: it does so before it answers the first ping.
    expected: bool,
    /// Those that said that they are ill, and until when they are not connected to again for that.
    known_ill: BTreeMap<usize, Instant>,
}

impl Health {
    pub(super) fn is_ill(&self) -> bool {
        self.ill
    }

    /// A connection begins.
    pub(super) fn begins(&mut self) {
        (self.told_ill, self.expected) = (false, true);
    }

    /// The relay in use answered a ping: it is well if it has not said otherwise. `true` if that is news.
    pub(super) fn answered(&mut self, node: usize) -> bool {
        let is_well = std::mem::take(&mut self.expected) && !self.told_ill;
        is_well && self.is_well(node)
    }

    fn is_well(&mut self, node: usize) -> bool {
        self.known_ill.remove(&node);
        std::mem::take(&mut self.ill)
    }
}

impl Relay {
    /// The relay says what is wrong with it, or with the connection; nothing if all is well.
    pub(super) fn told_health(&mut self, text: &str, env: &mut Env<'_>) {
        if !text.is_empty() {
            env.out.warn(format!("relay {}: {text}", self.name));
        }
        if text == derp::CONFLICT {
            // That is about our key, and would be so anywhere.
            return;
        }
        self.health.told_ill = !text.is_empty();
        // Who is told right at the start is alone with that.
        let spread = if self.health.expected { Duration::ZERO } else { env.policy.health_spread };
        let at = env.now + env.rng.random_range(Duration::ZERO..=spread);
        if self.turn.is_none_or(|(_, turn)| turn == Turn::Health) {
            self.turn = Some((at, Turn::Health));
        }
    }

    /// The next of the region's relays, rather one that is not known to be ill.
    fn sibling(&self, now: Instant) -> Option<usize> {
        let others = (1..self.nodes.len()).map(|i| (self.node + i) % self.nodes.len());
        let is_ill = |node: &usize| self.health.known_ill.get(node).is_some_and(|until| *until > now);
        others.clone().find(|node| !is_ill(node)).or_else(|| others.clone().next())
    }

    /// When another relay of a region all of whose relays said that they are ill is asked again.
    pub(super) fn second_chance(&self) -> Option<Instant> {
        if !self.health.ill || self.turn.is_some() || self.old.is_some() || !self.dial.is_up() {
            return None;
        }
        let others = self.health.known_ill.iter().filter(|(node, _)| **node != self.node);
        others.map(|(_, until)| *until).min()
    }

    /// The relay comes back after `reconnect_in`, for which its clients wait somewhat longer, at random, so that they do not
    /// come in one burst (the server may have spread them, too); the connection there is serves until it ends or they do.
    /// From then on it is tried again and again for `try_for`.
    fn returns_in(&mut self, reconnect_in: Duration, try_for: Duration, env: &mut Env<'_>) {
        let wait = reconnect_in.min(env.policy.restart_max);
        let at = env.now + wait + env.rng.random_range(Duration::ZERO..=wait / 8);
        // The longer it announces, the more clients it spreads.
        let (least, most) = env.policy.restart_retry;
        let every = (wait / 10).clamp(least, most);
        self.restart_at = Some(at);
        self.dial.hold_off(at, at + try_for.min(env.policy.restart_max), every);
    }
}

impl Relays {
    /// The relay announces its restart.
    pub(super) fn restarts(
        &mut self,
        region: u16,
        reconnect_in: Duration,
        try_for: Duration,
        env: &mut Env<'_>,
    ) {
        let is_replaced = self.home == Some(region) && self.is_standby_ready(region);
        let Some(relay) = self.relays.get_mut(&region) else { return };
        if relay.nodes.len() > 1 {
            // A third leaves time for the handshakes before the relay ends, which is before it wants to be connected to again.
            let most = reconnect_in.min(env.policy.restart_max) / 3;
            let at = env.now + env.rng.random_range(Duration::ZERO..=most);
            relay.turn = Some((at, Turn::Restart));
            return;
        }
        relay.returns_in(reconnect_in, try_for, env);
        if is_replaced {
            relay.avoid_until = Some(env.now + env.policy.relay_avoid);
            self.incoming.push_back(Incoming::HomeFailed);
        }
    }

    /// Does what the relay's word asks for, if its time has come.
    pub(super) fn take_turn(&mut self, region: u16, env: &mut Env<'_>) {
        let Some(relay) = self.relays.get_mut(&region) else { return };
        match relay.turn.take_if(|(at, _)| *at <= env.now).map(|(_, turn)| turn) {
            Some(Turn::Restart) => _ = self.move_on(region, env),
            Some(Turn::Health) if relay.health.told_ill => self.is_ill(region, env),
            Some(Turn::Health) if relay.health.is_well(relay.node) => {
                self.incoming.push_back(Incoming::Health);
            }
            None if relay.second_chance().is_some_and(|at| at <= env.now) => _ = self.move_on(region, env),
            Some(Turn::Health) | None => {}
        }
    }

    /// The relay in use is ill: another of the region serves, unless all are.
    fn is_ill(&mut self, region: u16, env: &mut Env<'_>) {
        let Some(relay) = self.relays.get_mut(&region) else { return };
        relay.health.known_ill.insert(relay.node, env.now + env.policy.relay_avoid);
        let is_ill = |node: usize| relay.health.known_ill.get(&node).is_some_and(|until| *until > env.now);
        if relay.nodes.len() > 1 && !(0..relay.nodes.len()).all(is_ill) {
            self.move_on(region, env);
        } else if !std::mem::replace(&mut relay.health.ill, true) {
            self.incoming.push_back(Incoming::Health);
        }
    }

    /// Connects to the region's next relay while the one in use still serves. `false` if there is no other.
    pub(super) fn move_on(&mut self, region: u16, env: &mut Env<'_>) -> bool {
        let Some(relay) = self.relays.get(&region) else { return false };
        let Some(node) = relay.sibling(env.now) else { return false };
        let (name, dial, client) = self.endpoint(&relay.nodes, node, env);
        let Some(relay) = self.relays.get_mut(&region) else { return false };
        relay.leave_old("another relay of the region serves", env);
        let mut old = Old {
            dial: std::mem::replace(&mut relay.dial, dial),
            client: std::mem::replace(&mut relay.client, client),
            until: env.now + env.policy.restart_max,
        };
        if old.dial.is_up() {
            old.client.set_preferred(false);
            relay.old = Some(old);
        } else {
            old.dial.stop("another relay of the region", env);
        }
        (relay.node, relay.name, relay.tried) = (node, name, 1);
        (relay.streaming, relay.restart_at, relay.turn) = (false, None, None);
        relay.dial.start(env);
        true
    }

    pub(super) fn old_by_conn(&mut self, conn: ConnId) -> Option<(u16, &mut Relay)> {
        let uses = |relay: &Relay| relay.old.as_ref().is_some_and(|old| old.dial.conn() == Some(conn));
        let (&region, relay) = self.relays.iter_mut().find(|(_, relay)| uses(relay))?;
        Some((region, relay))
    }

    /// Bytes on the connection to a relay that is being left; `false` if it is none.
    pub(super) fn old_stream(&mut self, conn: ConnId, data: &[u8], env: &mut Env<'_>) -> bool {
        let Some((region, relay)) = self.old_by_conn(conn) else { return false };
        let mut packets = Vec::new();
        if let Some(Old { dial, client, .. }) = &mut relay.old {
            relay.heard = env.now;
            let sound = match dial.receive(data, env) {
                Ok(received) => client.handle_stream(&received.data, env.now).is_ok(),
                Err(_) => false,
            };
            while let Some(event) = client.poll_event() {
                if let ClientEvent::Packet { src, data } = event {
                    relay.used = env.now;
                    packets.push(Incoming::Packet { region, src: src.0, data });
                }
            }
            if !sound {
                relay.leave_old("no DERP", env);
            }
        }
        self.incoming.extend(packets);
        true
    }

    /// Goes on with the next relay of a region, if there is one that was not tried since one last worked. `false` once all
    /// were: then the last of them waits, and they begin anew.
    pub(super) fn next_node(&mut self, region: u16, env: &mut Env<'_>) -> bool {
        let Some(relay) = self.relays.get(&region).filter(|relay| relay.nodes.len() > 1) else {
            return false;
        };
        let node = (relay.node + 1) % relay.nodes.len();
        let (name, mut dial, client) = self.endpoint(&relay.nodes, node, env);
        let Some(relay) = self.relays.get_mut(&region) else { return false };
        relay.tried += 1;
        if relay.tried >= relay.nodes.len() {
            relay.tried = 0;
            return false;
        }
        // What all of them did counts once.
        dial.fail(relay.dial.failures().saturating_sub(1));
        relay.dial.stop("the region's next relay", env);
        (relay.node, relay.name, relay.dial, relay.client) = (node, name, dial, client);
        relay.restart_at = None;
        relay.dial.start(env);
        true
    }
}
