//! Two devices and the wire between them, in virtual time.

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wireguard::{
    Device, DeviceConfig, Error, Event, Kind, PeerConfig, PeerId, Source, To, Transmit, public_key,
};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Wall-clock time at the start of every test.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// The keys of the two sides. `KEYS[0]` has the smaller public key: `the_first_key_is_the_smaller` holds it.
pub(crate) const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

#[expect(clippy::disallowed_methods, reason = "a test has to begin somewhere")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

pub(crate) fn source(side: usize) -> Source {
    Source::Udp(SocketAddr::from(([192, 0, 2, side as u8 + 1], 51820)))
}

/// An IPv4 packet of `len` bytes that carries `tag`.
pub(crate) fn packet(tag: u32, len: usize) -> Vec<u8> {
    assert!(len >= 24);
    let mut packet = vec![0xA5; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[20..24].copy_from_slice(&tag.to_be_bytes());
    packet
}

pub(crate) fn tag(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[20..24].try_into().unwrap())
}

/// A datagram that was put on the wire.
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) by: usize,
    pub(crate) kind: Kind,
    pub(crate) data: Vec<u8>,
}

/// How long each copy of a datagram takes; no copy, no arrival. Arguments: who sends, what, how many came before it.
pub(crate) type Fate = Box<dyn FnMut(usize, Kind, usize) -> Vec<Duration>>;

pub(crate) struct Wire {
    pub(crate) devices: [Device; 2],
    pub(crate) peers: [PeerId; 2],
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) fate: Fate,
    pub(crate) sent: Vec<Sent>,
    pub(crate) events: Vec<(Duration, usize, Event)>,
    pub(crate) errors: Vec<(usize, Error)>,
    in_flight: BTreeMap<(Instant, usize), (usize, Vec<u8>)>,
    arrivals: usize,
}

impl Wire {
    pub(crate) fn new(seed: u64, delay: Duration) -> Wire {
        Wire::with(seed, delay, None, [None, None])
    }

    pub(crate) fn with(
        seed: u64,
        delay: Duration,
        preshared_key: Option<[u8; 32]>,
        keepalive: [Option<Duration>; 2],
    ) -> Wire {
        let now = start();
        let mut devices = [0, 1].map(|side| device(side, seed, EPOCH, now));
        let peers = [0, 1].map(|side| {
            devices[side].add_peer(PeerConfig {
                public_key: public_key(&KEYS[1 - side]),
                preshared_key,
                persistent_keepalive: keepalive[side],
            })
        });
        Wire {
            devices,
            peers,
            start: now,
            now,
            fate: Box::new(move |_, _, _| vec![delay]),
            sent: Vec::new(),
            events: Vec::new(),
            errors: Vec::new(),
            in_flight: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// One side loses all state but its keys; its clock goes on.
    pub(crate) fn restart(&mut self, side: usize, seed: u64) {
        let epoch = EPOCH + (self.now - self.start);
        self.devices[side] = device(side, seed, epoch, self.now);
        self.peers[side] = self.devices[side].add_peer(PeerConfig {
            public_key: public_key(&KEYS[1 - side]),
            preshared_key: None,
            persistent_keepalive: None,
        });
    }

    pub(crate) fn send(&mut self, side: usize, tag: u32) {
        self.send_bytes(side, &packet(tag, 40));
    }

    pub(crate) fn send_bytes(&mut self, side: usize, packet: &[u8]) {
        let (peer, now) = (self.peers[side], self.now);
        self.devices[side].send(peer, packet, now).unwrap();
        self.drain(side);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.in_flight.first_key_value().map(|(key, _)| key.0);
            let timers = [0, 1].map(|side| Some(self.devices[side].poll_timeout()?.0));
            let next = [arrival, timers[0], timers[1]].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = next.max(self.now);
            if arrival == Some(next) {
                let (_, (to, data)) = self.in_flight.pop_first().unwrap();
                self.deliver(to, &data);
            } else {
                let side = usize::from(timers[0] != Some(next));
                self.devices[side].handle_timeout(self.now);
                self.drain(side);
            }
        }
        self.now = end;
    }

    /// A datagram arrives, now.
    pub(crate) fn deliver(&mut self, to: usize, data: &[u8]) {
        let from = source(1 - to);
        match self.devices[to].handle_datagram(data, from, self.now) {
            Ok(_) => {}
            Err(error) => self.errors.push((to, error)),
        }
        self.drain(to);
    }

    pub(crate) fn drain(&mut self, side: usize) {
        while let Some(Transmit { to, data, kind }) = self.devices[side].poll_transmit() {
            match to {
                To::Peer(peer) => assert_eq!(peer, self.peers[side]),
                To::Reply(to) => assert_eq!(to, source(1 - side)),
            }
            assert_eq!(Kind::of(&data), Some(kind));
            let before = self.sent.iter().filter(|sent| sent.by == side && sent.kind == kind).count();
            for delay in (self.fate)(side, kind, before) {
                self.arrivals += 1;
                self.in_flight.insert((self.now + delay, self.arrivals), (1 - side, data.to_vec()));
            }
            self.sent.push(Sent { at: self.now - self.start, by: side, kind, data: data.to_vec() });
        }
        while let Some(event) = self.devices[side].poll_event() {
            self.events.push((self.now - self.start, side, event));
        }
    }

    /// Tags of the packets that arrived at a side, in order.
    pub(crate) fn received(&self, side: usize) -> Vec<u32> {
        self.packets(side).iter().map(|data| tag(data)).collect()
    }

    pub(crate) fn packets(&self, side: usize) -> Vec<Vec<u8>> {
        let events = self.events.iter().filter(|(_, at, _)| *at == side);
        events
            .filter_map(|(_, _, event)| match event {
                Event::Packet { data, .. } => Some(data.to_vec()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn count(&self, side: usize, kind: Kind) -> usize {
        let sent = self.sent.iter();
        sent.filter(|sent| sent.by == side && sent.kind == kind).count()
    }

    /// When a side sent messages of a kind.
    pub(crate) fn times(&self, side: usize, kind: Kind) -> Vec<Duration> {
        let sent = self.sent.iter();
        sent.filter(|sent| sent.by == side && sent.kind == kind).map(|sent| sent.at).collect()
    }

    /// When events that are not packets happened at a side.
    pub(crate) fn happened(&self, side: usize) -> Vec<(Duration, Event)> {
        let events = self.events.iter();
        events
            .filter(|(_, at, event)| *at == side && !matches!(event, Event::Packet { .. }))
            .map(|(at, _, event)| (*at, event.clone()))
            .collect()
    }
}

fn device(side: usize, seed: u64, epoch: Duration, now: Instant) -> Device {
    let config = DeviceConfig { private_key: KEYS[side], epoch };
    Device::new(config, rng(seed * 2 + side as u64), now)
}
