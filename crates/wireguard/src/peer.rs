//! One peer: its sessions, its handshake attempt, its queue and its timers (paper §6).

use crate::device::Shared;
use crate::mac::{COOKIE_LIFETIME, Cookie, Mac1, ReceiverKeys};
use crate::message;
use crate::noise::{self, Initiation, Timestamp};
use crate::session::{Origin, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME, Session};
use crate::{Error, Event, Kind, PeerConfig, PeerId};
use bytes::Bytes;
use rand::RngExt;
use snow::HandshakeState;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// REKEY-TIMEOUT, paper §6.1: initiations are at least this far apart.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Up to this is added to the retry interval, paper §6.4.
const MAX_JITTER: Duration = Duration::from_millis(333);
/// REKEY-ATTEMPT-TIME, paper §6.1.
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// KEEPALIVE-TIMEOUT, paper §6.1.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Paper §6.2: an initiator that only receives renews this late, so that the last keepalive still has keys.
const REKEY_LATE: Duration =
    Duration::from_secs(REJECT_AFTER_TIME.as_secs() - KEEPALIVE_TIMEOUT.as_secs() - REKEY_TIMEOUT.as_secs());
/// Paper §6.5: data was sent, and nothing at all came back for this long.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(KEEPALIVE_TIMEOUT.as_secs() + REKEY_TIMEOUT.as_secs());
/// Linux refuses initiations of one peer that come faster (`INITIATIONS_PER_SECOND` = 50), so neither do we send them.
const MIN_INITIATION_INTERVAL: Duration = Duration::from_millis(20);
/// Packets that wait for a handshake; then the oldest goes. Linux: `MAX_STAGED_PACKETS`.
const MAX_QUEUED: usize = 128;
/// Current, previous, next (paper §6.3), and the twin of a crossing handshake.
const MAX_SESSIONS: usize = 4;
/// Unanswered initiations of one attempt whose response is still taken.
const MAX_OUTSTANDING: usize = 3;

/// An initiation that waits for its response.
struct Outstanding {
    local: u32,
    mac1: Mac1,
    state: Box<HandshakeState>,
}

/// From the first initiation to a session, with all retries.
struct Attempt {
    number: u64,
    retry: Instant,
    give_up: Instant,
    /// Oldest first.
    outstanding: Vec<Outstanding>,
}

pub(crate) struct Peer {
    id: PeerId,
    config: PeerConfig,
    keys: ReceiverKeys,
    /// Whether sessions that we initiate win over crossing ones.
    ours_wins: bool,
    /// Oldest first.
    sessions: Vec<Session>,
    /// Local index of the session that is sent on.
    current: Option<u32>,
    sessions_made: u64,
    attempt: Option<Attempt>,
    attempts_made: u64,
    last_initiation: Option<Instant>,
    /// The newest label received: an initiation must be newer (paper §5.1).
    newest_label: Option<Timestamp>,
    queue: VecDeque<Bytes>,
    dropped: u64,
    cookie: Option<(Cookie, Instant)>,
    /// Data came in and nothing went out since.
    keepalive_at: Option<Instant>,
    /// Data went out and nothing came in since.
    silence_at: Option<Instant>,
    persistent_at: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(id: PeerId, config: PeerConfig, our_key: &[u8; 32], now: Instant) -> Peer {
        let mut peer = Peer {
            id,
            keys: ReceiverKeys::new(&config.public_key),
            ours_wins: *our_key < config.public_key,
            sessions: Vec::new(),
            current: None,
            sessions_made: 0,
            attempt: None,
            attempts_made: 0,
            last_initiation: None,
            newest_label: None,
            queue: VecDeque::new(),
            dropped: 0,
            cookie: None,
            keepalive_at: None,
            silence_at: None,
            persistent_at: None,
            config,
        };
        peer.start_persistent(now);
        peer
    }

    pub(crate) fn public_key(&self) -> &[u8; 32] {
        &self.config.public_key
    }

    /// Takes a new preshared key and keepalive interval; sessions stay.
    pub(crate) fn reconfigure(&mut self, config: PeerConfig, now: Instant) {
        self.config = config;
        self.start_persistent(now);
    }

    /// Our key, or that of the peer, is another one: a handshake under way was made with the wrong one.
    pub(crate) fn keys_changed(
        &mut self,
        our_key: &[u8; 32],
        public_key: Option<[u8; 32]>,
        now: Instant,
        shared: &mut Shared,
    ) {
        if let Some(public_key) = public_key {
            self.config.public_key = public_key;
            self.keys = ReceiverKeys::new(&public_key);
            // Its labels and cookies were bound to the key before.
            self.newest_label = None;
            self.cookie = None;
        }
        self.ours_wins = *our_key < self.config.public_key;
        if self.attempt.is_some() {
            self.drop_attempt(shared);
            self.handshake(now, shared);
        }
    }

    fn start_persistent(&mut self, now: Instant) {
        self.config.persistent_keepalive = self.config.persistent_keepalive.filter(|every| !every.is_zero());
        // As Linux does, the first one goes out at once.
        self.persistent_at = self.config.persistent_keepalive.map(|_| now);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a packet would leave at once.
    pub(crate) fn is_up(&self, now: Instant) -> bool {
        self.current().is_some_and(|session| session.can_send(now))
    }

    pub(crate) fn send(&mut self, packet: &[u8], now: Instant, shared: &mut Shared) {
        if self.is_up(now) {
            self.seal(packet, now, shared);
            return;
        }
        if self.queue.len() == MAX_QUEUED {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back(Bytes::copy_from_slice(packet));
        match &mut self.attempt {
            // Paper §6.4: a packet that is queued restarts the time to give up.
            Some(attempt) => attempt.give_up = now + REKEY_ATTEMPT_TIME,
            None => self.begin(now, shared),
        }
    }

    pub(crate) fn keepalive(&mut self, now: Instant, shared: &mut Shared) {
        if self.is_up(now) {
            self.seal(&[], now, shared);
        } else {
            self.begin(now, shared);
        }
    }

    /// Sends an initiation now, within the limit that peers put on their rate.
    pub(crate) fn handshake(&mut self, now: Instant, shared: &mut Shared) {
        let too_soon = self.last_initiation.is_some_and(|at| now < at + MIN_INITIATION_INTERVAL);
        self.begin(now, shared);
        if !too_soon && self.last_initiation != Some(now) {
            self.initiate(now, shared);
        }
    }

    /// Gives all indices back.
    pub(crate) fn release(&mut self, shared: &mut Shared) {
        self.drop_attempt(shared);
        for session in self.sessions.drain(..) {
            shared.free_index(session.local);
        }
    }

    // Handshakes

    /// Starts an attempt unless one is on its way.
    fn begin(&mut self, now: Instant, shared: &mut Shared) {
        if self.attempt.is_some() {
            return;
        }
        let earliest = self.last_initiation.map_or(now, |at| now.max(at + REKEY_TIMEOUT));
        self.attempts_made += 1;
        self.attempt = Some(Attempt {
            number: self.attempts_made,
            retry: earliest,
            give_up: now + REKEY_ATTEMPT_TIME,
            outstanding: Vec::new(),
        });
        if earliest == now {
            self.initiate(now, shared);
        }
    }

    fn initiate(&mut self, now: Instant, shared: &mut Shared) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let label = shared.label(now);
        let psk = self.config.preshared_key.unwrap_or_default();
        let ephemeral = shared.draw();
        let made = noise::initiate(&shared.identity, &self.config.public_key, &psk, ephemeral, &label);
        // The one way to fail is a public key of low order: no handshake can ever succeed.
        let Ok((state, noise)) = made else {
            self.fail(shared);
            return;
        };
        if attempt.outstanding.len() == MAX_OUTSTANDING {
            shared.free_index(attempt.outstanding.remove(0).local);
        }
        let local = shared.new_index(self.id);
        let mut datagram = message::initiation(local, &noise);
        let cookie = self.cookie.filter(|(_, until)| now < *until);
        let mac1 = self.keys.sign(&mut datagram, cookie.as_ref().map(|(cookie, _)| cookie));
        attempt.outstanding.push(Outstanding { local, mac1, state: Box::new(state) });
        attempt.retry = now + REKEY_TIMEOUT + shared.jitter(MAX_JITTER);
        self.last_initiation = Some(now);
        shared.transmit(self.id, datagram.into(), Kind::Initiation);
        self.note_sent(now);
    }

    fn drop_attempt(&mut self, shared: &mut Shared) {
        for outstanding in self.attempt.take().into_iter().flat_map(|a| a.outstanding) {
            shared.free_index(outstanding.local);
        }
    }

    fn fail(&mut self, shared: &mut Shared) {
        self.drop_attempt(shared);
        self.dropped += self.queue.len() as u64;
        self.queue.clear();
        shared.events.push_back(Event::HandshakeFailed { peer: self.id });
    }

    /// A first message that is authentic; the label decides whether it is new.
    pub(crate) fn handle_initiation(
        &mut self,
        initiation: Initiation,
        remote: u32,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let label = initiation.timestamp;
        if self.newest_label.is_some_and(|newest| label <= newest) {
            return Err(Error::Replay);
        }
        let psk = self.config.preshared_key.unwrap_or_default();
        let (transport, noise) = initiation.respond(&psk).map_err(|_| Error::Forged)?;
        self.newest_label = Some(label);
        let crossed = match &self.attempt {
            Some(attempt) if !attempt.outstanding.is_empty() => Some(attempt.number),
            _ => None,
        };
        let local = shared.new_index(self.id);
        let mut datagram = message::response(local, remote, &noise);
        let cookie = self.cookie.filter(|(_, until)| now < *until);
        let mac1 = self.keys.sign(&mut datagram, cookie.as_ref().map(|(cookie, _)| cookie));
        self.install(
            |serial| {
                let origin = Origin::Theirs { crossed };
                Session::new((local, remote), origin, serial, transport, Some(mac1), now)
            },
            shared,
        );
        self.note_received(now, false);
        shared.transmit(self.id, datagram.into(), Kind::Response);
        self.note_sent(now);
        Ok(())
    }

    pub(crate) fn handle_response(
        &mut self,
        (local, remote): (u32, u32),
        noise: &[u8],
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        if self.session(local).is_some() {
            return Err(Error::Replay);
        }
        let attempt = self.attempt.as_mut().ok_or(Error::UnknownIndex)?;
        let at = attempt
            .outstanding
            .iter()
            .position(|outstanding| outstanding.local == local)
            .ok_or(Error::UnknownIndex)?;
        attempt.outstanding[at].state.read_message(noise, &mut []).map_err(|_| Error::Forged)?;
        let answered = attempt.outstanding.remove(at);
        let number = attempt.number;
        let transport = answered.state.into_stateless_transport_mode().map_err(|_| Error::Forged)?;
        self.drop_attempt(shared);
        self.install(
            |serial| {
                let origin = Origin::Ours { attempt: number };
                Session::new((local, remote), origin, serial, transport, None, now)
            },
            shared,
        );
        self.note_received(now, false);
        self.usable(local, now, shared);
        Ok(())
    }

    /// Paper §5.4.7: the cookie is kept for the next retry; the retry does not come sooner.
    pub(crate) fn handle_cookie(
        &mut self,
        local: u32,
        nonce: &[u8; 24],
        sealed: &[u8; 32],
        now: Instant,
    ) -> Result<(), Error> {
        let outstanding = self.attempt.iter().flat_map(|attempt| &attempt.outstanding);
        let mac1 = outstanding
            .filter(|outstanding| outstanding.local == local)
            .map(|outstanding| outstanding.mac1)
            .next()
            .or_else(|| self.session(local).and_then(|session| session.mac1))
            .ok_or(Error::UnknownIndex)?;
        let cookie = self.keys.open_cookie(nonce, sealed, &mac1).ok_or(Error::Forged)?;
        self.cookie = Some((cookie, now + COOKIE_LIFETIME));
        Ok(())
    }

    // Sessions

    fn session(&self, local: u32) -> Option<&Session> {
        self.sessions.iter().find(|session| session.local == local)
    }

    fn current(&self) -> Option<&Session> {
        self.session(self.current?)
    }

    fn install(&mut self, make: impl FnOnce(u64) -> Session, shared: &mut Shared) {
        if self.sessions.len() == MAX_SESSIONS {
            let oldest = self.sessions.iter().position(|session| Some(session.local) != self.current);
            if let Some(oldest) = oldest {
                shared.free_index(self.sessions.remove(oldest).local);
            }
        }
        self.sessions_made += 1;
        self.sessions.push(make(self.sessions_made));
    }

    /// The session can be sent on from now on: decide whether it is, and send what waits.
    fn usable(&mut self, local: u32, now: Instant, shared: &mut Shared) {
        let Some(new) = self.session(local) else {
            return;
        };
        let initiator = new.is_ours();
        let replaces = match self.current() {
            Some(current) if current.can_send(now) => self.prefers(new, current),
            _ => true,
        };
        if replaces {
            self.current = Some(local);
            let peer = self.id;
            shared.events.push_back(Event::SessionUp { peer, initiator });
            self.drop_attempt(shared);
        }
        let waiting = std::mem::take(&mut self.queue);
        if waiting.is_empty() && replaces && initiator {
            // Only a packet from us lets the responder send (paper §5.4.5).
            self.seal(&[], now, shared);
        }
        for packet in waiting {
            self.seal(&packet, now, shared);
        }
    }

    /// The rule of the crate's front page.
    fn prefers(&self, new: &Session, current: &Session) -> bool {
        match (new.origin, current.origin) {
            (Origin::Ours { attempt }, Origin::Theirs { crossed }) if crossed == Some(attempt) => {
                self.ours_wins
            }
            (Origin::Theirs { crossed }, Origin::Ours { attempt }) if crossed == Some(attempt) => {
                !self.ours_wins
            }
            _ => new.serial > current.serial,
        }
    }

    /// Encrypts on the current session.
    fn seal(&mut self, packet: &[u8], now: Instant, shared: &mut Shared) {
        let current = self.current;
        let session = self.sessions.iter_mut().find(|session| Some(session.local) == current);
        let Some(session) = session else {
            return;
        };
        let Ok(datagram) = session.seal(packet, &mut shared.scratch) else {
            return;
        };
        let age = now.saturating_duration_since(session.created);
        // The initiator renews first; the responder only if that did not happen.
        let renew_after = if session.is_ours() { REKEY_AFTER_TIME } else { REKEY_LATE };
        let renew = session.sent() >= REKEY_AFTER_MESSAGES || age >= renew_after;
        let kind = if packet.is_empty() { Kind::Keepalive } else { Kind::Data };
        shared.transmit(self.id, datagram, kind);
        if kind == Kind::Data && self.silence_at.is_none() {
            self.silence_at = Some(now + SILENCE_TIMEOUT + shared.jitter(MAX_JITTER));
        }
        self.note_sent(now);
        if renew {
            self.begin(now, shared);
        }
    }

    pub(crate) fn handle_data(
        &mut self,
        local: u32,
        counter: u64,
        sealed: &[u8],
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let session =
            self.sessions.iter_mut().find(|session| session.local == local).ok_or(Error::UnknownIndex)?;
        let mut packet = session.open(counter, sealed, now)?;
        if !session.confirmed {
            session.confirmed = true;
            self.usable(local, now, shared);
        }
        self.note_received(now, !packet.is_empty());
        let late = self.current().is_some_and(|current| {
            current.is_ours() && now.saturating_duration_since(current.created) >= REKEY_LATE
        });
        if late {
            self.begin(now, shared);
        }
        let len = message::ip_len(&packet).unwrap_or(packet.len());
        // An IP packet that claims to be longer than it is was made by no sender of ours.
        if !packet.is_empty() && len <= packet.len() {
            packet.truncate(len);
            shared.events.push_back(Event::Packet { peer: self.id, data: packet.into() });
        }
        Ok(())
    }

    // Timers

    /// Something authenticated went out.
    fn note_sent(&mut self, now: Instant) {
        self.keepalive_at = None;
        self.rearm_persistent(now);
    }

    /// Something authenticated came in.
    fn note_received(&mut self, now: Instant, is_data: bool) {
        self.silence_at = None;
        self.rearm_persistent(now);
        if is_data && self.keepalive_at.is_none() {
            self.keepalive_at = Some(now + KEEPALIVE_TIMEOUT);
        }
    }

    fn rearm_persistent(&mut self, now: Instant) {
        let every = self.config.persistent_keepalive;
        self.persistent_at = every.and_then(|every| now.checked_add(every));
    }

    pub(crate) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let attempt = self.attempt.as_ref();
        let expiry = self.sessions.iter().map(Session::expires).min();
        [
            (expiry, "session expires"),
            (attempt.map(|a| a.give_up), "handshake gives up"),
            (attempt.map(|a| a.retry), "handshake retry"),
            (self.silence_at, "no answer to data"),
            (self.keepalive_at, "keepalive"),
            (self.persistent_at, "persistent keepalive"),
            (self.cookie.map(|(_, until)| until), "cookie expires"),
        ]
        .into_iter()
        .filter_map(|(at, why)| Some((at?, why)))
        .min_by_key(|(at, _)| *at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.cookie = self.cookie.filter(|(_, until)| now < *until);
        self.expire(now, shared);
        if let Some(attempt) = &self.attempt {
            if attempt.give_up <= now {
                self.fail(shared);
            } else if attempt.retry <= now {
                self.initiate(now, shared);
            }
        }
        if due(self.silence_at) {
            self.silence_at = None;
            self.begin(now, shared);
        }
        if due(self.keepalive_at) {
            self.keepalive_at = None;
            if self.is_up(now) {
                self.seal(&[], now, shared);
            }
        }
        if due(self.persistent_at) {
            self.rearm_persistent(now);
            self.keepalive(now, shared);
        }
    }

    fn expire(&mut self, now: Instant, shared: &mut Shared) {
        self.sessions.retain(|session| {
            let live = now < session.expires();
            if !live {
                shared.free_index(session.local);
            }
            live
        });
        if self.current.is_none() || self.current().is_some() {
            return;
        }
        let newest = self.sessions.iter().rfind(|session| session.confirmed);
        self.current = newest.map(|session| session.local);
        if self.current.is_none() {
            shared.events.push_back(Event::SessionExpired { peer: self.id });
        }
    }

    #[cfg(test)]
    pub(crate) fn current_mut(&mut self) -> Option<&mut Session> {
        let current = self.current?;
        self.sessions.iter_mut().find(|session| session.local == current)
    }
}

impl Shared {
    /// Uniform in 0..=`max`.
    fn jitter(&mut self, max: Duration) -> Duration {
        Duration::from_nanos(self.rng.random_range(0..=max.as_nanos() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::REJECT_AFTER_MESSAGES;
    use crate::{Device, DeviceConfig, Source, public_key};
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    #[expect(clippy::disallowed_methods, reason = "a test has to begin somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn device(key: u8, peer: u8, now: Instant) -> (Device, PeerId) {
        let config = DeviceConfig { private_key: [key; 32], epoch: Duration::from_secs(1_700_000_000) };
        let mut device = Device::new(config, ChaCha12Rng::seed_from_u64(key.into()), now);
        let id = device.add_peer(PeerConfig {
            public_key: public_key(&[peer; 32]),
            preshared_key: None,
            persistent_keepalive: None,
        });
        (device, id)
    }

    /// Everything that waits goes across, at once. Returns the kinds that went from the first device.
    fn exchange(a: &mut Device, b: &mut Device, now: Instant) -> Vec<Kind> {
        let from = Source::Relay([0; 32]);
        let mut kinds = Vec::new();
        loop {
            let (x, y) = (a.poll_transmit(), b.poll_transmit());
            if x.is_none() && y.is_none() {
                return kinds;
            }
            if let Some(x) = x {
                kinds.push(x.kind);
                b.handle_datagram(&x.data, from, now).unwrap();
            }
            if let Some(y) = y {
                a.handle_datagram(&y.data, from, now).unwrap();
            }
        }
    }

    /// Paper §6.2: REKEY-AFTER-MESSAGES and REJECT-AFTER-MESSAGES.
    #[test]
    fn counters_renew_a_session_and_end_it() {
        let now = start();
        let ((mut a, to_b), (mut b, _)) = (device(1, 2, now), device(2, 1, now));
        a.send(to_b, b"first", now).unwrap();
        exchange(&mut a, &mut b, now);

        let later = now + Duration::from_secs(10);
        let session = a.peer_mut(to_b).and_then(Peer::current_mut).unwrap();
        session.skip_to(REKEY_AFTER_MESSAGES - 1);
        a.send(to_b, b"renews", later).unwrap();
        assert_eq!(exchange(&mut a, &mut b, later), [Kind::Data, Kind::Initiation, Kind::Keepalive]);

        let later = later + Duration::from_secs(10);
        let session = a.peer_mut(to_b).and_then(Peer::current_mut).unwrap();
        session.skip_to(REJECT_AFTER_MESSAGES);
        assert!(!a.is_up(to_b, later));
        a.send(to_b, b"waits", later).unwrap();
        assert_eq!(exchange(&mut a, &mut b, later), [Kind::Initiation, Kind::Data]);
        let packets = std::iter::from_fn(|| b.poll_event());
        let packets: Vec<_> = packets
            .filter_map(|event| match event {
                Event::Packet { data, .. } => Some(data),
                _ => None,
            })
            .collect();
        assert_eq!(packets, [&b"first"[..], b"renews", b"waits"]);
    }

    /// Retries, sessions and peers come and go; indices must not pile up.
    #[test]
    fn indices_are_given_back() {
        let mut now = start();
        let ((mut a, to_b), (mut b, to_a)) = (device(1, 2, now), device(2, 1, now));
        for _ in 0..200 {
            now += Duration::from_secs(1);
            a.handshake(to_b, now);
            b.handshake(to_a, now);
            exchange(&mut a, &mut b, now);
            assert!(a.indices_in_use() <= MAX_SESSIONS + MAX_OUTSTANDING);
        }
        a.remove_peer(to_b);
        assert_eq!(a.indices_in_use(), 0);
        b.handle_timeout(now + REJECT_AFTER_TIME);
        assert_eq!(b.indices_in_use(), 0);
    }

    /// Paper §6.3: nothing that a key could be made from is left once it is of no use.
    #[test]
    fn no_key_outlives_its_use() {
        let now = start();
        let ((mut a, to_b), (mut b, _)) = (device(1, 2, now), device(2, 1, now));
        a.send(to_b, b"first", now).unwrap();
        exchange(&mut a, &mut b, now);
        assert_eq!(a.peer_mut(to_b).unwrap().sessions.len(), 1);
        let mut end = now;
        while let Some((at, _)) = a.poll_timeout() {
            end = at;
            a.handle_timeout(at);
        }
        let peer = a.peer_mut(to_b).unwrap();
        assert!(peer.sessions.is_empty() && peer.attempt.is_none() && peer.cookie.is_none());
        assert!(end - now <= REJECT_AFTER_TIME * 3);
    }

    #[test]
    fn a_peer_whose_key_is_of_low_order_fails_at_once() {
        let now = start();
        let (mut a, _) = device(1, 2, now);
        let peer = a.add_peer(PeerConfig {
            public_key: [0; 32],
            preshared_key: None,
            persistent_keepalive: Some(Duration::MAX),
        });
        a.send(peer, b"x", now).unwrap();
        assert_eq!(a.poll_event(), Some(Event::HandshakeFailed { peer }));
        a.handle_timeout(now);
        assert_eq!(a.poll_timeout(), None);
    }
}
