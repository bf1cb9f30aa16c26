//! The front door: peers by key and by index, the gate, and what waits to be polled.

use crate::mac::{Admission, Gate};
use crate::message::{self, Message};
use crate::noise::{Identity, Initiation, Timestamp};
use crate::peer::Peer;
use crate::session::REJECT_AFTER_TIME;
use crate::{
    DeviceConfig, Error, Event, Kind, MAX_PACKET, PeerConfig, PeerId, SendError, Source, To, Transmit,
};
use bytes::Bytes;
use indexmap::IndexMap;
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// Handshake messages a second above which senders must show a cookie.
/// One costs about half a millisecond of Diffie-Hellman, so this is a few percent of one core.
const DEFAULT_HANDSHAKE_LIMIT: u32 = 100;

/// One private key and its peers. See the [crate's front page](crate) for how it is driven.
pub struct Device {
    shared: Shared,
    gate: Gate,
    handshake_limit: u32,
    /// The key that comes, if any, and the one that was.
    coming: Option<Box<OtherKey>>,
    former: Option<Box<OtherKey>>,
    peers: BTreeMap<PeerId, Peer>,
    by_key: BTreeMap<[u8; 32], PeerId>,
    /// Deadlines, and the entry of each peer in it.
    agenda: BTreeSet<(Instant, PeerId)>,
    scheduled: BTreeMap<PeerId, Instant>,
    next_id: u32,
    /// The newest time seen.
    now: Instant,
}

impl fmt::Debug for Device {
    /// Without keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("peers", &self.peers.len())
            .field("timeout", &self.poll_timeout().map(|(_, why)| why))
            .finish_non_exhaustive()
    }
}

/// A key of ours that handshakes may be addressed to, beside the one that we make them with.
struct OtherKey {
    identity: Identity,
    gate: Gate,
    /// When it is forgotten; `None`: not by itself.
    until: Option<Instant>,
}

/// Which of our keys a handshake message is for.
#[derive(Clone, Copy)]
enum Addressed {
    Own,
    Coming,
    Former,
}

/// What all peers use.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) events: VecDeque<Event>,
    pub(crate) scratch: Vec<u8>,
    transmits: VecDeque<Transmit>,
    indices: IndexMap<u32, PeerId, FxBuildHasher>,
    start: Instant,
    epoch: Duration,
    last_label: Duration,
}

impl Device {
    /// A device without peers.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the private key changes hands")]
    pub fn new(config: DeviceConfig, rng: ChaCha12Rng, now: Instant) -> Device {
        let DeviceConfig { private_key, epoch } = config;
        let identity = Identity::new(private_key);
        Device {
            gate: Gate::new(&identity.public, DEFAULT_HANDSHAKE_LIMIT, now),
            handshake_limit: DEFAULT_HANDSHAKE_LIMIT,
            coming: None,
            former: None,
            shared: Shared {
                identity,
                rng,
                events: VecDeque::new(),
                scratch: Vec::new(),
                transmits: VecDeque::new(),
                indices: IndexMap::default(),
                start: now,
                epoch,
                last_label: Duration::ZERO,
            },
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            agenda: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            next_id: 0,
            now,
        }
    }

    /// Our public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.shared.identity.public
    }

    /// Above this many handshake messages in a second, further ones must carry a cookie that proves their
    /// source (paper §5.3). 100 unless set; 0 asks always.
    pub fn set_handshake_limit(&mut self, per_second: u32) {
        self.handshake_limit = per_second;
        self.gate.set_limit(per_second);
        for other in self.coming.iter_mut().chain(&mut self.former) {
            other.gate.set_limit(per_second);
        }
    }

    /// From now on takes handshakes to this private key as well: some peers hear of a new key before we may use it. `None` takes
    /// that back.
    pub fn expect_private_key(&mut self, private_key: Option<[u8; 32]>, now: Instant) {
        self.coming = private_key.map(|private| {
            let identity = Identity::new(private);
            let gate = Gate::new(&identity.public, self.handshake_limit, now);
            Box::new(OtherKey { identity, gate, until: None })
        });
    }

    /// Makes handshakes with this private key from now on. Sessions stay, as they do not depend on it; handshakes under way begin
    /// anew. Those of peers who know the old key only are answered for as long as a session with it may last (REJECT-AFTER-TIME,
    /// paper §6.1).
    pub fn set_private_key(&mut self, private_key: [u8; 32], now: Instant) {
        let identity = Identity::new(private_key);
        self.coming = None;
        if identity.public == self.shared.identity.public {
            return;
        }
        let gate = Gate::new(&identity.public, self.handshake_limit, now);
        self.former = Some(Box::new(OtherKey {
            identity: std::mem::replace(&mut self.shared.identity, identity),
            gate: std::mem::replace(&mut self.gate, gate),
            until: now.checked_add(REJECT_AFTER_TIME),
        }));
        let own = self.shared.identity.public;
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.with(id, now, |peer, shared| peer.keys_changed(&own, None, now, shared));
        }
    }

    /// The peer has another public key from now on. Its sessions stay; a handshake under way begins anew. `false` if the peer is
    /// unknown, or another one has the key.
    pub fn set_public_key(&mut self, id: PeerId, public_key: [u8; 32], now: Instant) -> bool {
        let Some(before) = self.peers.get(&id).map(|peer| *peer.public_key()) else { return false };
        if before == public_key {
            return true;
        }
        if self.by_key.contains_key(&public_key) {
            return false;
        }
        self.by_key.remove(&before);
        self.by_key.insert(public_key, id);
        let own = self.shared.identity.public;
        self.with(id, now, |peer, shared| peer.keys_changed(&own, Some(public_key), now, shared));
        true
    }

    /// Adds a peer, or gives one with the same key a new preshared key and keepalive interval; it keeps its
    /// id and sessions. With a persistent keepalive the first handshake is due at once.
    pub fn add_peer(&mut self, config: PeerConfig) -> PeerId {
        let known = self.by_key.get(&config.public_key).copied();
        if let Some((id, peer)) = known.and_then(|id| Some((id, self.peers.get_mut(&id)?))) {
            peer.reconfigure(config, self.now);
            self.reschedule(id);
            return id;
        }
        let id = PeerId(self.next_id);
        self.next_id += 1;
        self.by_key.insert(config.public_key, id);
        let peer = Peer::new(id, config, &self.shared.identity.public, self.now);
        self.peers.insert(id, peer);
        self.reschedule(id);
        id
    }

    /// Forgets a peer, its keys and whatever waits to be sent to it.
    pub fn remove_peer(&mut self, id: PeerId) {
        if let Some(mut peer) = self.peers.remove(&id) {
            peer.release(&mut self.shared);
            self.by_key.remove(peer.public_key());
            self.shared.transmits.retain(|transmit| transmit.to != To::Peer(id));
            self.reschedule(id);
        }
    }

    /// The peer with this public key.
    #[must_use]
    pub fn peer(&self, public_key: &[u8; 32]) -> Option<PeerId> {
        self.by_key.get(public_key).copied()
    }

    /// Whether a packet to the peer would leave at once, without a handshake.
    #[must_use]
    pub fn is_up(&self, peer: PeerId, now: Instant) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.is_up(now))
    }

    /// How many packets to the peer were dropped because a handshake failed or more than 128 waited for it.
    #[must_use]
    pub fn dropped(&self, peer: PeerId) -> u64 {
        self.peers.get(&peer).map_or(0, Peer::dropped)
    }

    /// Encrypts a packet, or queues it and starts a handshake. Of more than 128 queued packets the oldest goes.
    ///
    /// # Errors
    /// The packet cannot be carried, or the peer is unknown; see [`SendError`].
    pub fn send(&mut self, peer: PeerId, packet: &[u8], now: Instant) -> Result<(), SendError> {
        if packet.is_empty() {
            return Err(SendError::Empty);
        }
        if packet.len() > MAX_PACKET {
            return Err(SendError::TooLong);
        }
        if message::ip_len(packet).is_some_and(|len| len != packet.len()) {
            return Err(SendError::IpLength);
        }
        self.with(peer, now, |peer, shared| peer.send(packet, now, shared)).ok_or(SendError::UnknownPeer)
    }

    /// Sends an empty packet now, so that the peer roams to the path it takes; without a session, starts a handshake.
    /// Does nothing for an unknown peer.
    pub fn keepalive(&mut self, peer: PeerId, now: Instant) {
        self.with(peer, now, |peer, shared| peer.keepalive(now, shared));
    }

    /// Sends an initiation now instead of at the next retry (5 s), because a path has opened, say. At most one in
    /// 20 ms. Packets go on using the session there is. Does nothing for an unknown peer.
    pub fn handshake(&mut self, peer: PeerId, now: Instant) {
        self.with(peer, now, |peer, shared| peer.handshake(now, shared));
    }

    /// Takes a datagram. `Ok(Some(peer))`: the peer made it and it is new. `Ok(None)`: handled, but it proves
    /// nothing about its sender's address (a cookie reply, or a handshake that was answered by a cookie).
    ///
    /// # Errors
    /// The datagram was not accepted, and nothing has changed; see [`enum@Error`].
    pub fn handle_datagram(
        &mut self,
        data: &[u8],
        from: Source,
        now: Instant,
    ) -> Result<Option<PeerId>, Error> {
        self.now = self.now.max(now);
        match Message::parse(data).ok_or(Error::Malformed)? {
            Message::Initiation { sender, noise, macs } => {
                let Some(addressed) = self.admit(&macs, sender, from, now)? else { return Ok(None) };
                let ephemeral = self.shared.draw();
                let other = match addressed {
                    Addressed::Own => None,
                    Addressed::Coming => self.coming.as_ref(),
                    Addressed::Former => self.former.as_ref(),
                };
                let identity = other.map_or(&self.shared.identity, |other| &other.identity);
                let initiation = Initiation::read(identity, ephemeral, noise).map_err(|_| Error::Forged)?;
                let id = self.peer(&initiation.initiator).ok_or(Error::UnknownPeer)?;
                self.handle(id, now, |peer, shared| peer.handle_initiation(initiation, sender, now, shared))
            }
            Message::Response { sender, receiver, noise, macs } => {
                if self.admit(&macs, sender, from, now)?.is_none() {
                    return Ok(None);
                }
                let id = self.shared.owner(receiver)?;
                self.handle(id, now, |peer, shared| {
                    peer.handle_response((receiver, sender), noise, now, shared)
                })
            }
            Message::CookieReply { receiver, nonce, sealed } => {
                let id = self.shared.owner(receiver)?;
                self.handle(id, now, |peer, _| peer.handle_cookie(receiver, nonce, sealed, now))?;
                Ok(None)
            }
            Message::Data { receiver, counter, sealed } => {
                let id = self.shared.owner(receiver)?;
                self.handle(id, now, |peer, shared| peer.handle_data(receiver, counter, sealed, now, shared))
            }
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// When [`Device::handle_timeout`] is due next, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let peer = self.agenda.first().and_then(|(_, id)| self.peers.get(id)?.deadline());
        let former = self.former.as_ref().and_then(|former| Some((former.until?, "former key ends")));
        peer.into_iter().chain(former).min_by_key(|(at, _)| *at)
    }

    /// Does what is due at `now`. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.former = self.former.take().filter(|former| former.until.is_none_or(|until| now < until));
        let due: Vec<PeerId> =
            self.agenda.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in due {
            self.with(id, now, |peer, shared| peer.handle_timeout(now, shared));
        }
    }

    /// Runs `act` on a peer and updates its deadline.
    fn with<T>(
        &mut self,
        id: PeerId,
        now: Instant,
        act: impl FnOnce(&mut Peer, &mut Shared) -> T,
    ) -> Option<T> {
        self.now = self.now.max(now);
        let result = act(self.peers.get_mut(&id)?, &mut self.shared);
        self.reschedule(id);
        Some(result)
    }

    fn handle(
        &mut self,
        id: PeerId,
        now: Instant,
        act: impl FnOnce(&mut Peer, &mut Shared) -> Result<(), Error>,
    ) -> Result<Option<PeerId>, Error> {
        self.with(id, now, act).ok_or(Error::UnknownPeer)??;
        Ok(Some(id))
    }

    fn reschedule(&mut self, id: PeerId) {
        let next = self.peers.get(&id).and_then(Peer::deadline).map(|(at, _)| at);
        if self.scheduled.get(&id).copied() == next {
            return;
        }
        let before = match next {
            Some(at) => {
                self.agenda.insert((at, id));
                self.scheduled.insert(id, at)
            }
            None => self.scheduled.remove(&id),
        };
        if let Some(at) = before {
            self.agenda.remove(&(at, id));
        }
    }

    /// To which of our keys a handshake message is, if it may go on to the expensive part; `None` if it was answered by a cookie.
    fn admit(
        &mut self,
        macs: &message::Macs<'_>,
        sender: u32,
        from: Source,
        now: Instant,
    ) -> Result<Option<Addressed>, Error> {
        let rng = &mut self.shared.rng;
        let others = [(Addressed::Coming, &mut self.coming), (Addressed::Former, &mut self.former)];
        let others = others.into_iter().filter_map(|(key, other)| Some((key, &mut other.as_mut()?.gate)));
        for (key, gate) in std::iter::once((Addressed::Own, &mut self.gate)).chain(others) {
            match gate.admit(macs, &from, now, |bytes| rng.fill_bytes(bytes)) {
                Admission::Admitted => return Ok(Some(key)),
                Admission::BadMac1 => {}
                Admission::Challenge(nonce, sealed) => {
                    self.shared.transmits.push_back(Transmit {
                        to: To::Reply(from),
                        data: message::cookie_reply(sender, &nonce, &sealed).into(),
                        kind: Kind::Cookie,
                    });
                    return Ok(None);
                }
            }
        }
        Err(Error::BadMac)
    }

    #[cfg(test)]
    pub(crate) fn indices_in_use(&self) -> usize {
        self.shared.indices.len()
    }

    #[cfg(test)]
    pub(crate) fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id)
    }
}

impl Shared {
    pub(crate) fn transmit(&mut self, peer: PeerId, data: Bytes, kind: Kind) {
        self.transmits.push_back(Transmit { to: To::Peer(peer), data, kind });
    }

    pub(crate) fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A free index for a session or handshake of this peer (paper §5.4.2: random, so that they tell nothing).
    pub(crate) fn new_index(&mut self, peer: PeerId) -> u32 {
        loop {
            let index = self.rng.next_u32();
            if !self.indices.contains_key(&index) {
                self.indices.insert(index, peer);
                return index;
            }
        }
    }

    pub(crate) fn free_index(&mut self, index: u32) {
        self.indices.swap_remove(&index);
    }

    fn owner(&self, index: u32) -> Result<PeerId, Error> {
        self.indices.get(&index).copied().ok_or(Error::UnknownIndex)
    }

    /// The time as a TAI64N label, later than every one before. TAI64 counts from 2^62 and is ten seconds ahead
    /// of UTC at the Unix epoch (cr.yp.to/libtai/tai64.html); like Linux, leap seconds since are not counted.
    pub(crate) fn label(&mut self, now: Instant) -> Timestamp {
        let exact = self.epoch.saturating_add(now.saturating_duration_since(self.start));
        let unix = exact.max(self.last_label.saturating_add(Duration::from_nanos(1)));
        self.last_label = unix;
        let mut label = [0; 12];
        label[..8].copy_from_slice(&unix.as_secs().saturating_add((1 << 62) + 10).to_be_bytes());
        label[8..].copy_from_slice(&unix.subsec_nanos().to_be_bytes());
        label
    }
}
