//! Packets through a tunnel on one core: sealed by one end, opened by the other.

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use std::time::{Duration, Instant};
use wireguard::{Device, DeviceConfig, Event, PeerConfig, PeerId, Source, public_key};

/// Length of each packet.
pub(crate) const BYTES: usize = 1400;

/// An IPv4 packet of that length.
fn packet() -> Vec<u8> {
    let mut packet = vec![0; BYTES];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(BYTES as u16).to_be_bytes());
    packet
}

/// Two of our devices.
pub(crate) struct Ours {
    devices: [Device; 2],
    peers: [PeerId; 2],
    now: Instant,
    packet: Vec<u8>,
}

impl Ours {
    pub(crate) fn new() -> Ours {
        let now = Instant::now();
        let keys = [[1; 32], [2; 32]];
        let mut devices = [0, 1].map(|i| {
            let config = DeviceConfig { private_key: keys[i], epoch: Duration::from_secs(1_700_000_000) };
            Device::new(config, ChaCha12Rng::seed_from_u64(i as u64), now)
        });
        let peers = [0, 1].map(|i| {
            let public_key = public_key(&keys[1 - i]);
            devices[i].add_peer(PeerConfig { public_key, preshared_key: None, persistent_keepalive: None })
        });
        let mut ours = Ours { devices, peers, now, packet: packet() };
        ours.devices[0].send(ours.peers[0], &ours.packet, now).unwrap();
        while ours.exchange() {}
        ours
    }

    /// Moves what there is, both ways.
    fn exchange(&mut self) -> bool {
        let mut moved = false;
        for i in [0, 1] {
            while let Some(transmit) = self.devices[i].poll_transmit() {
                let from = Source::Relay([i as u8; 32]);
                self.devices[1 - i].handle_datagram(&transmit.data, from, self.now).unwrap();
                moved = true;
            }
            while self.devices[i].poll_event().is_some() {}
        }
        moved
    }

    pub(crate) fn carry(&mut self, packets: u64) -> Duration {
        let start = Instant::now();
        let [a, b] = &mut self.devices;
        for _ in 0..packets {
            a.send(self.peers[0], &self.packet, self.now).unwrap();
            let transmit = a.poll_transmit().unwrap();
            b.handle_datagram(&transmit.data, Source::Relay([0; 32]), self.now).unwrap();
            let arrived = matches!(b.poll_event(), Some(Event::Packet { data, .. }) if data.len() == BYTES);
            assert!(arrived);
        }
        start.elapsed()
    }
}

/// Two of boringtun's.
pub(crate) struct Theirs {
    tunnels: [Tunn; 2],
    packet: Vec<u8>,
    sealed: Vec<u8>,
    opened: Vec<u8>,
}

impl Theirs {
    pub(crate) fn new() -> Theirs {
        let secrets = [[1; 32], [2; 32]].map(StaticSecret::from);
        let publics = [PublicKey::from(&secrets[0]), PublicKey::from(&secrets[1])];
        let tunnels =
            [0, 1].map(|i| Tunn::new(secrets[i].clone(), publics[1 - i], None, None, i as u32, None));
        let (sealed, opened) = (vec![0; 2 * BYTES], vec![0; 2 * BYTES]);
        let mut theirs = Theirs { tunnels, packet: packet(), sealed, opened };
        let mut datagram = theirs.tunnels[0].format_handshake_initiation(&mut theirs.sealed, false);
        let mut to = 1;
        while let TunnResult::WriteToNetwork(data) = datagram {
            let data = data.to_vec();
            datagram = theirs.tunnels[to].decapsulate(None, &data, &mut theirs.sealed);
            to = 1 - to;
        }
        theirs
    }

    pub(crate) fn carry(&mut self, packets: u64) -> Duration {
        let start = Instant::now();
        let [a, b] = &mut self.tunnels;
        for _ in 0..packets {
            let TunnResult::WriteToNetwork(data) = a.encapsulate(&self.packet, &mut self.sealed) else {
                panic!("a session");
            };
            let opened = b.decapsulate(None, data, &mut self.opened);
            assert!(matches!(opened, TunnResult::WriteToTunnelV4(data, _) if data.len() == BYTES));
        }
        start.elapsed()
    }
}
