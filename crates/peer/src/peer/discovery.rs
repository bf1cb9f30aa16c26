//! Path discovery: the peer's side of what `paths` wants, and the discovery messages.

use std::time::Instant;

use bytes::Bytes;
use derp::Class;
use disco::{Message, SharedKey};
use rand::Rng;
use wireguard::{PeerConfig, PeerId};

use super::{Arrival, Peer};
use crate::dial::Env;
use crate::io::Event;
use crate::paths::{Action, Context, Paths};
use crate::remote::Live;

impl Peer {
    /// Makes what is needed to exchange anything with a peer. Gives its tunnel.
    pub(super) fn enliven(&mut self, id: u32, now: Instant) -> Option<PeerId> {
        let remote = self.directory.get(id)?;
        if let Some(live) = &remote.live {
            return Some(live.wg);
        }
        if self.has_ended(remote.info.key_expires, now) {
            return None;
        }
        let (candidates, peer) = (remote.info.endpoints.clone(), remote.name.clone());
        let shared = SharedKey::new(&self.disco_key, &disco::PublicKey(remote.info.disco_key));
        let public_key = remote.info.node_key;
        let wg =
            self.device.add_peer(PeerConfig { public_key, preshared_key: None, persistent_keepalive: None });
        let paths = Paths::new(&self.policy);
        let live = Live {
            wg,
            shared,
            paths,
            told: None,
            reverse: None,
            renew: false,
            deadline: None,
            sent_bytes: 0,
            received_bytes: 0,
            handshake: None,
        };
        self.directory.enliven(id, live);
        if !candidates.is_empty() {
            self.out.event(Event::Candidates { peer, candidates: candidates.clone(), via: "coordinator" });
            self.with_paths(id, now, |paths, cx| paths.set_map(&candidates, cx));
        }
        Some(wg)
    }

    /// Lets the paths of a live peer act, and does what they want.
    pub(super) fn with_paths(
        &mut self,
        id: u32,
        now: Instant,
        act: impl FnOnce(&mut Paths, &mut Context<'_>),
    ) {
        let Some((_, _, live)) = self.directory.live_mut(id) else { return };
        let (own, reach) = (self.nat.candidates(), self.out.reach);
        act(&mut live.paths, &mut Context { now, rng: &mut self.rng, policy: &self.policy, own, reach });
        let deadline = live.paths.poll_timeout(now, &self.policy);
        let actions: Vec<Action> = std::iter::from_fn(|| live.paths.poll_action()).collect();
        self.directory.schedule(id, deadline);
        for action in actions {
            self.perform(id, action, now);
        }
    }

    pub(super) fn perform(&mut self, id: u32, action: Action, now: Instant) {
        let Some(remote) = self.directory.get(id) else { return };
        let peer = remote.name.clone();
        match action {
            Action::Ping { to, tx, attempt, why, size } => {
                let padding = size.saturating_sub(disco::PING_LEN);
                let ping = Message::Ping { tx, node_key: Some(self.node_key), padding };
                if let Some(data) = self.seal(id, &ping) {
                    self.out.event(Event::Probe { peer, to, attempt, why });
                    self.out.datagram(to, data);
                }
            }
            Action::Call => {
                let endpoints = self.nat.candidates().to_vec();
                if let Some(data) = self.seal(id, &Message::CallMeMaybe { endpoints }) {
                    self.send_relayed(id, data, Class::Disco, now);
                }
            }
            Action::Sample => self.nat.sample(self.relays.home(), env!(self, now)),
            Action::Seen(address) => {
                self.out.event(Event::Candidates { peer, candidates: vec![address], via: "peer-reflexive" });
            }
            Action::Validated { address, rtt } => self.out.event(Event::Validated { peer, address, rtt }),
            Action::Narrow(narrow) => {
                let what = if narrow {
                    "the direct path loses large packets, which go over the relay"
                } else {
                    "the direct path carries large packets again"
                };
                self.out.warn(format!("{what}: {peer}"));
            }
            Action::Moved { reason } => {
                self.tell_path(id, reason);
                if self.relay_of(id).is_none_or(|region| !self.relays.is_up(region)) {
                    self.hasten(id, now);
                }
            }
        }
    }

    /// Starts a handshake that may have got lost on another path, if one is wanted.
    pub(super) fn hasten(&mut self, id: u32, now: Instant) {
        if let Some(live) = self.directory.get(id).and_then(|remote| remote.live.as_ref())
            && live.paths.active(now, &self.policy)
            && (live.renew || !self.device.is_up(live.wg, now))
        {
            self.device.handshake(live.wg, now);
        }
    }

    pub(super) fn seal(&mut self, id: u32, message: &Message) -> Option<Bytes> {
        let (_, _, live) = self.directory.live_mut(id)?;
        let mut nonce = [0; 24];
        self.rng.fill_bytes(&mut nonce);
        Some(disco::seal(message, &self.disco_public, &live.shared, nonce).into())
    }

    /// A discovery message. What does not come from a peer of the map, or does not open, is ignored: anyone may send
    /// anything to an open port.
    pub(super) fn disco(&mut self, data: &[u8], arrival: Arrival, now: Instant) {
        let id = disco::source(data).and_then(|key| self.directory.of_disco(&key.0));
        let Some(id) = id else { return };
        // A relay names the sender's node key: it must be the one that the map ties to the disco key.
        let Some(remote) = self.directory.get(id) else { return };
        if matches!(arrival, Arrival::Relay { src, .. } if src != remote.info.node_key) {
            return;
        }
        let (peer, key) = (remote.name.clone(), remote.info.node_key);
        if self.enliven(id, now).is_none() {
            return;
        }
        let Some((_, _, live)) = self.directory.live_mut(id) else { return };
        let Ok(message) = disco::open(data, &live.shared) else { return };
        match (message, arrival) {
            (Message::Ping { tx, node_key, .. }, Arrival::Udp(from)) => {
                if node_key.is_some_and(|claimed| claimed != key) {
                    return;
                }
                if let Some(pong) = self.seal(id, &Message::Pong { tx, src: from }) {
                    self.out.datagram(from, pong);
                }
                self.with_paths(id, now, |paths, cx| paths.pinged(from, cx));
            }
            (Message::Pong { tx, .. }, Arrival::Udp(from)) => {
                self.with_paths(id, now, |paths, cx| paths.ponged(tx, from, cx));
            }
            (Message::CallMeMaybe { endpoints }, Arrival::Relay { region, .. }) => {
                live.reverse = Some(region);
                self.out.event(Event::Candidates { peer, candidates: endpoints.clone(), via: "relay" });
                self.with_paths(id, now, |paths, cx| paths.called(&endpoints, cx));
            }
            _ => {}
        }
    }
}
