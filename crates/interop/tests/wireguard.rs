//! Our WireGuard against boringtun's, both on one virtual clock.

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use mock_instant::MockClock;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wireguard::{Device, DeviceConfig, Event, Kind, PeerConfig, PeerId, Source, To, public_key};

const SECOND: Duration = Duration::from_secs(1);
/// boringtun has no deadline to ask for: its timers are polled this often.
const STEP: Duration = Duration::from_millis(100);
const THEIR_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const OUR_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

#[derive(Clone, Copy, Default)]
struct Setup {
    preshared_key: Option<[u8; 32]>,
    our_keepalive: Option<Duration>,
    their_keepalive: Option<u16>,
    /// Handshakes a second before boringtun asks for a cookie.
    their_limit: Option<u64>,
}

/// A datagram that crossed, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crossed {
    Ours(Kind),
    Theirs(Kind),
}

/// Time on the wire. Not zero, because boringtun gives two initiations of one moment the same label, and the
/// second one is a replay then.
const DELAY: Duration = Duration::from_millis(1);

/// Our device, their tunnel, and a wire between them.
struct Pair {
    device: Device,
    peer: PeerId,
    tunn: Tunn,
    start: Instant,
    now: Instant,
    to_them: Vec<Vec<u8>>,
    to_us: Vec<Vec<u8>>,
    crossed: Vec<(Duration, Crossed)>,
    they_received: Vec<Vec<u8>>,
    we_received: Vec<Vec<u8>>,
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "a test has to begin somewhere")]
    fn new(setup: Setup) -> Pair {
        let (ours, theirs) = ([0x11; 32], [0x22; 32]);
        let now = Instant::now();
        let config = DeviceConfig { private_key: ours, epoch: Duration::from_secs(1_700_000_000) };
        let mut device = Device::new(config, ChaCha12Rng::seed_from_u64(1), now);
        let peer = device.add_peer(PeerConfig {
            public_key: public_key(&theirs),
            preshared_key: setup.preshared_key,
            persistent_keepalive: setup.our_keepalive,
        });
        let secret = StaticSecret::from(theirs);
        let public = PublicKey::from(&secret);
        assert_eq!(public.to_bytes(), public_key(&theirs));
        let limiter = setup.their_limit.map(|limit| Arc::new(RateLimiter::new(&public, limit)));
        let tunn = Tunn::new(
            secret,
            PublicKey::from(device.public_key()),
            setup.preshared_key,
            setup.their_keepalive,
            7,
            limiter,
        );
        Pair {
            device,
            peer,
            tunn,
            start: now,
            now,
            to_them: Vec::new(),
            to_us: Vec::new(),
            crossed: Vec::new(),
            they_received: Vec::new(),
            we_received: Vec::new(),
        }
    }

    fn we_send(&mut self, packet: &[u8]) {
        self.device.send(self.peer, packet, self.now).expect("a packet that can be carried");
        self.drain();
    }

    fn they_send(&mut self, packet: &[u8]) {
        let mut buffer = vec![0; 65536];
        let result = self.tunn.encapsulate(packet, &mut buffer);
        note(result, &mut self.to_us, &mut self.they_received);
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.device.poll_transmit() {
            match transmit.to {
                To::Peer(peer) => assert_eq!(peer, self.peer),
                To::Reply(source) => assert_eq!(source, Source::Udp(SocketAddr::new(THEIR_IP, 51820))),
            }
            self.to_them.push(transmit.data.to_vec());
        }
        while let Some(event) = self.device.poll_event() {
            if let Event::Packet { data, .. } = event {
                self.we_received.push(data.to_vec());
            }
        }
    }

    /// Carries everything across until nobody has more to say.
    fn exchange(&mut self) {
        self.drain();
        while !self.to_them.is_empty() || !self.to_us.is_empty() {
            let at = self.now - self.start;
            self.advance(DELAY);
            for datagram in std::mem::take(&mut self.to_them) {
                let kind = Kind::of(&datagram).expect("a WireGuard message");
                self.crossed.push((at, Crossed::Ours(kind)));
                let mut buffer = vec![0; 65536];
                let result = self.tunn.decapsulate(Some(OUR_IP), &datagram, &mut buffer);
                // After an answer, boringtun wants to be asked for what it had queued.
                if note(result, &mut self.to_us, &mut self.they_received) {
                    while note(
                        self.tunn.decapsulate(None, &[], &mut buffer),
                        &mut self.to_us,
                        &mut self.they_received,
                    ) {}
                }
            }
            for datagram in std::mem::take(&mut self.to_us) {
                let kind = Kind::of(&datagram).expect("a WireGuard message");
                self.crossed.push((at, Crossed::Theirs(kind)));
                let from = Source::Udp(SocketAddr::new(THEIR_IP, 51820));
                let taken = self.device.handle_datagram(&datagram, from, self.now);
                assert!(taken.is_ok(), "{taken:?} after {:?}", self.crossed);
                self.drain();
            }
        }
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        MockClock::advance(time);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.exchange();
        while self.now < end {
            self.advance(STEP);
            self.device.handle_timeout(self.now);
            let mut buffer = vec![0; 65536];
            let result = self.tunn.update_timers(&mut buffer);
            note(result, &mut self.to_us, &mut self.they_received);
            self.exchange();
        }
    }

    /// Seconds at which a message crossed.
    fn times(&self, what: Crossed) -> Vec<u64> {
        let crossed = self.crossed.iter().filter(|(_, crossed)| *crossed == what);
        crossed.map(|(at, _)| at.as_secs()).collect()
    }
}

/// Files a result of boringtun's; true if it was a datagram.
fn note(result: TunnResult<'_>, to_us: &mut Vec<Vec<u8>>, received: &mut Vec<Vec<u8>>) -> bool {
    match result {
        TunnResult::WriteToNetwork(datagram) => {
            to_us.push(datagram.to_vec());
            return true;
        }
        TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
            received.push(packet.to_vec());
        }
        // It sends a second initiation when handshakes cross, and takes the answer to one of them.
        TunnResult::Done | TunnResult::Err(WireGuardError::UnexpectedPacket) => {}
        TunnResult::Err(error) => panic!("boringtun: {error:?}"),
    }
    false
}

/// An IPv4 packet of a length that needs padding.
fn packet(tag: u8) -> Vec<u8> {
    let mut packet = vec![tag; 41];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&41u16.to_be_bytes());
    packet
}

#[test]
fn we_initiate_and_queued_packets_arrive_in_order() {
    let mut pair = Pair::new(Setup { preshared_key: Some([5; 32]), ..Setup::default() });
    let packets: Vec<_> = (1..20).map(packet).collect();
    for packet in &packets {
        pair.we_send(packet);
    }
    pair.exchange();
    assert_eq!(pair.they_received, packets);
    pair.they_send(&packet(99));
    pair.exchange();
    assert_eq!(pair.we_received, [packet(99)]);
    let kinds: Vec<_> = pair.crossed.iter().take(3).map(|(_, crossed)| *crossed).collect();
    assert_eq!(
        kinds,
        [Crossed::Ours(Kind::Initiation), Crossed::Theirs(Kind::Response), Crossed::Ours(Kind::Data)]
    );
}

#[test]
fn they_initiate_and_queued_packets_arrive_in_order() {
    let mut pair = Pair::new(Setup::default());
    let packets: Vec<_> = (1..20).map(packet).collect();
    for packet in &packets {
        pair.they_send(packet);
    }
    pair.exchange();
    assert_eq!(pair.we_received, packets);
    pair.we_send(&packet(99));
    pair.exchange();
    assert_eq!(pair.they_received, [packet(99)]);
    assert_eq!(pair.times(Crossed::Ours(Kind::Initiation)), []);
}

#[test]
fn an_ipv6_packet_loses_its_padding() {
    let mut pair = Pair::new(Setup::default());
    let mut packet = vec![3; 43];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&3u16.to_be_bytes());
    pair.we_send(&packet);
    pair.exchange();
    pair.they_send(&packet);
    pair.exchange();
    assert_eq!((pair.they_received, pair.we_received), (vec![packet.clone()], vec![packet]));
}

/// A packet each second and way for six minutes, and every one of them arrives.
fn talk(pair: &mut Pair) {
    for n in 0..360u32 {
        pair.we_send(&packet(n as u8));
        pair.they_send(&packet(n as u8));
        pair.run_for(SECOND);
    }
    let expected: Vec<_> = (0..360u32).map(|n| packet(n as u8)).collect();
    assert!(pair.they_received == expected && pair.we_received == expected);
}

#[test]
fn we_renew_the_session_that_we_began() {
    let mut pair = Pair::new(Setup::default());
    pair.we_send(&packet(0));
    pair.exchange();
    pair.they_received.clear();
    talk(&mut pair);
    assert_eq!(pair.times(Crossed::Ours(Kind::Initiation)), [0, 120, 240]);
    assert_eq!(pair.times(Crossed::Theirs(Kind::Initiation)), []);
}

#[test]
fn they_renew_the_session_that_they_began() {
    let mut pair = Pair::new(Setup::default());
    pair.they_send(&packet(0));
    pair.exchange();
    pair.we_received.clear();
    talk(&mut pair);
    // Its age counts from the first initiation and not from the response, hence at 120 sharp.
    assert_eq!(pair.times(Crossed::Theirs(Kind::Initiation)), [0, 120, 240, 360]);
    assert_eq!(pair.times(Crossed::Ours(Kind::Initiation)), []);
}

#[test]
fn crossing_handshakes_lose_nothing() {
    let mut pair = Pair::new(Setup::default());
    talk(&mut pair);
    let begun = |pair: &Pair| {
        (pair.times(Crossed::Ours(Kind::Initiation))[0], pair.times(Crossed::Theirs(Kind::Initiation))[0])
    };
    assert_eq!(begun(&pair), (0, 0));
}

#[test]
fn keepalives_are_understood_both_ways() {
    let mut pair = Pair::new(Setup { our_keepalive: Some(25 * SECOND), ..Setup::default() });
    pair.device.handle_timeout(pair.now);
    pair.run_for(60 * SECOND);
    assert_eq!(pair.times(Crossed::Ours(Kind::Keepalive)), [0, 25, 50]);

    let mut pair = Pair::new(Setup { their_keepalive: Some(25), ..Setup::default() });
    pair.run_for(60 * SECOND);
    let theirs = pair.times(Crossed::Theirs(Kind::Keepalive));
    assert!(theirs.len() >= 2, "{theirs:?}");

    // Data that nobody answers is acknowledged by a keepalive of the other side.
    let mut pair = Pair::new(Setup::default());
    pair.we_send(&packet(1));
    pair.run_for(2 * SECOND);
    pair.they_send(&packet(2));
    pair.run_for(30 * SECOND);
    assert_eq!(pair.times(Crossed::Ours(Kind::Keepalive)), [12]);
}

#[test]
fn we_answer_their_cookie() {
    let mut pair = Pair::new(Setup { their_limit: Some(0), ..Setup::default() });
    pair.we_send(&packet(1));
    pair.run_for(SECOND);
    assert_eq!(pair.times(Crossed::Theirs(Kind::Cookie)), [0]);
    assert!(pair.they_received.is_empty());
    pair.run_for(5 * SECOND);
    assert_eq!(pair.they_received, [packet(1)]);
}

#[test]
fn they_answer_our_cookie() {
    let mut pair = Pair::new(Setup::default());
    pair.device.set_handshake_limit(0);
    pair.they_send(&packet(1));
    pair.run_for(SECOND);
    assert_eq!(pair.times(Crossed::Ours(Kind::Cookie)), [0]);
    assert!(pair.we_received.is_empty());
    pair.run_for(5 * SECOND);
    assert_eq!(pair.we_received, [packet(1)]);
}
