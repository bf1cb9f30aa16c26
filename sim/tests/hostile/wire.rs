//! Packets of somebody who sees what passes, and sends what he likes from where he likes.

use crate::{SEED, Scene, assert_passed, received, seen_at};
use bytes::Bytes;
use punchbag::host::{Input, Output, PEER_PORT, Program, STUN_PORT};
use punchbag::packet::{ErrorKind, Packet};
use rand::Rng as _;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use stun::message::{Attribute, Class, Message, Method, TransactionId};
use tcp::{Flags, Options, Segment};
use trace::{Event, Payload, Record};

/// A datagram as it came in: from whom, and what.
type Seen = Rc<RefCell<Vec<(SocketAddr, Bytes)>>>;

/// A program whose datagrams somebody writes down.
struct Tapped {
    program: Box<dyn Program>,
    seen: Seen,
}

impl Program for Tapped {
    fn udp_ports(&self) -> Vec<u16> {
        self.program.udp_ports()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.program.tcp_ports()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        if let Input::Datagram { from, data, .. } = &input {
            self.seen.borrow_mut().push((*from, (*data).clone()));
        }
        self.program.handle(input, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.program.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.program.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.program.poll_output()
    }
}

/// Taps what a member receives.
fn tap(scene: &mut Scene, name: &str) -> Seen {
    let seen = Seen::default();
    let shared = Rc::clone(&seen);
    scene
        .world
        .wrap_program(name, |program| Box::new(Tapped { program, seen: shared }))
        .expect("it has a program");
    seen
}

const START: Duration = Duration::from_secs(8);
const END: Duration = Duration::from_secs(35);

/// The public endpoints of takkie and flappie.
fn endpoints(scene: &Scene) -> [SocketAddr; 2] {
    ["home-a", "home-b"].map(|home| {
        seen_at(scene.world.log().records(), "relay", STUN_PORT, scene.ip(home))
            .expect("it has asked the relay")
    })
}

/// That nothing came twice, and no packet of the tunnel went to the attacker.
fn assert_kept_to_themselves(mallory: std::net::IpAddr, records: &[Record]) {
    for to in ["takkie", "flappie"] {
        let received = received(records, to, "ping takkie flappie");
        let distinct: BTreeSet<u64> = received.iter().copied().collect();
        assert_eq!(received.len(), distinct.len(), "nothing came twice to {to}");
    }
    let astray = records.iter().find(|record| {
        matches!(&record.event, Event::Sent { dst, payload: Payload::Tunnel, .. } if dst.ip() == mallory)
    });
    assert!(astray.is_none(), "{astray:?}");
}

#[test]
fn replayed_wireguard_and_disco_packets_bring_nothing_in_and_lead_nobody_astray() {
    let mut scene = Scene::direct("");
    let seen = [tap(&mut scene, "takkie"), tap(&mut scene, "flappie")];
    let mallory = scene.at("mallory", 4000);
    scene.run_until(START, |_| {});
    let endpoints = endpoints(&scene);
    let mut rng = SEED.chacha("mallory");
    let mut sent = [0, 0];

    scene.run_until(END, |scene| {
        for (seen, to) in seen.iter().zip(endpoints) {
            let own = |(from, _): &&(SocketAddr, Bytes)| *from != mallory;
            let seen: Vec<(SocketAddr, Bytes)> = seen.borrow().iter().filter(own).cloned().collect();
            for _ in 0..10 {
                let (from, data) = seen[rng.next_u32() as usize % seen.len()].clone();
                // From where it came, or from elsewhere.
                let src = if rng.next_u32().is_multiple_of(2) { from } else { mallory };
                sent[usize::from(src == mallory)] += 1;
                scene.world.inject("mallory", Packet::udp(src, to, data)).expect("a host");
            }
        }
    });
    let (verdict, records) = scene.end();

    assert_passed(&verdict);
    assert!(sent.iter().all(|sent| *sent > 2000), "{sent:?}");
    assert_kept_to_themselves(mallory.ip(), &records);
    // Datagrams that were replayed did arrive: nothing but the members themselves refused them.
    let arrived = records.iter().filter(|record| {
        matches!(&record.event, Event::Delivered { node, src, .. } if **node == *"flappie" && *src == mallory)
    });
    assert!(arrived.count() > 1000);
}

#[test]
fn spoofed_sources_neither_end_a_conversation_nor_move_it() {
    let mut scene = Scene::direct("");
    let seen = tap(&mut scene, "flappie");
    let mallory = scene.ip("mallory");
    let (relay, stun) = (scene.at("relay", 443), scene.at("relay", STUN_PORT));
    scene.run_until(START, |_| {});
    let [takkie, flappie] = endpoints(&scene);
    let control =
        seen_at(scene.world.log().records(), "relay", 443, takkie.ip()).expect("it has a home relay");
    let mut rng = SEED.chacha("mallory");

    scene.run_until(END, |scene| {
        let mut noise = vec![0; 200];
        rng.fill_bytes(&mut noise);
        let data = Bytes::from(noise);
        // From one member to another, and from a server to a member, what they never said.
        let disco = Bytes::from([b"TS\xF0\x9F\x92\xAC", &data[..]].concat());
        let mapped = Message {
            class: Class::Success,
            method: Method::BINDING,
            id: TransactionId(data[..12].try_into().expect("twelve bytes")),
            attributes: vec![Attribute::XorMappedAddress(SocketAddr::new(mallory, 7))],
            fingerprint: false,
        };
        let mut answer = Vec::new();
        mapped.encode(&mut answer);
        let mut packets = vec![
            Packet::udp(takkie, flappie, data.clone()),
            Packet::udp(takkie, flappie, disco),
            Packet::udp(stun, takkie, answer.into()),
            // A stranger's datagram for a server, and a server's answer to nothing for a stranger.
            Packet::udp(flappie, stun, data),
        ];
        // That flappie is gone, of a datagram that takkie did send.
        let last = seen.borrow().iter().rev().find(|(from, _)| *from == takkie).map(|(_, data)| data.clone());
        let quoted = Packet::udp(takkie, flappie, last.expect("they talk directly"));
        packets.push(Packet::error(flappie.ip(), ErrorKind::PortUnreachable, quoted));
        // The end of a connection, without having seen its numbers (RFC 5961 §3).
        let reset = |seq| Segment {
            seq,
            ack: 0,
            flags: Flags::RST,
            window: 0,
            options: Options::default(),
            payload: Bytes::new(),
        };
        packets.push(Packet::tcp(relay, control, reset(rng.next_u32())));
        packets.push(Packet::tcp(control, relay, reset(rng.next_u32())));
        for packet in packets {
            scene.world.inject("mallory", packet).expect("a host");
        }
    });
    let (verdict, records) = scene.end();

    assert_passed(&verdict);
    assert_kept_to_themselves(mallory, &records);
}

/// Initiations that flappie cannot tell from a member's before it has computed (WireGuard's paper, §5.3), faster than any
/// honest crowd, from everywhere.
#[test]
fn a_flood_of_wireguard_initiations_from_everywhere_is_met_with_cookies() {
    let mut scene = Scene::direct("");
    scene.run_until(START, |_| {});
    let [_, flappie] = endpoints(&scene);
    let key = wireguard::public_key(&SEED.bytes("node key 0 of flappie"));
    let now = punchbag::world::Clock::new().now();
    let mut rng = SEED.chacha("mallory");
    let mut n = 0u32;

    scene.run_until(END, |scene| {
        for _ in 0..20 {
            n += 1;
            let mut private_key = [0; 32];
            rng.fill_bytes(&mut private_key);
            let config = wireguard::DeviceConfig { private_key, epoch: Duration::from_secs(2_000_000_000) };
            let mut device = wireguard::Device::new(config, SEED.chacha(&format!("mallory {n}")), now);
            let peer = device.add_peer(wireguard::PeerConfig {
                public_key: key,
                preshared_key: None,
                persistent_keepalive: None,
            });
            device.handshake(peer, now);
            let initiation = device.poll_transmit().expect("an initiation").data;
            let src = SocketAddr::from(([45, 0, (n >> 8) as u8, n as u8], PEER_PORT));
            scene.world.inject("mallory", Packet::udp(src, flappie, initiation)).expect("a host");
        }
    });
    let (verdict, records) = scene.end();

    assert_passed(&verdict);
    let answers = records.iter().filter(|record| {
        matches!(&record.event, Event::Sent { node, dst, .. } if **node == *"flappie" && dst.ip().to_string().starts_with("45."))
    });
    let answers = answers.count();
    // A stranger gets no response, and under load a cookie (64 bytes for 148).
    assert!(answers > 100, "{answers} of {n} were answered");
}

/// Datagrams of every shape at every door.
#[test]
fn garbage_datagrams_at_every_door_disturb_nobody() {
    let mut scene = Scene::direct("");
    let (relay, mallory) = (scene.at("relay", STUN_PORT), scene.at("mallory", 4000));
    scene.run_until(START, |_| {});
    let [takkie, flappie] = endpoints(&scene);
    let binkie = scene.at("binkie", PEER_PORT);
    let prefixes: [&[u8]; 6] = [
        b"",
        b"TS\xF0\x9F\x92\xAC",
        b"\x00\x01\x00\x08\x21\x12\xa4\x42",
        &[1, 0, 0, 0],
        &[4, 0, 0, 0],
        b"\x01\x01\xff\xff\x21\x12\xa4\x42",
    ];
    let mut rng = SEED.chacha("mallory");

    scene.run_until(END, |scene| {
        for (i, to) in [takkie, flappie, binkie, relay].into_iter().cycle().take(40).enumerate() {
            // From nothing to the most that a link takes.
            let mut bytes = vec![0; rng.next_u32() as usize % 1400];
            rng.fill_bytes(&mut bytes);
            let data = [prefixes[i % prefixes.len()], &bytes].concat();
            let src = if i.is_multiple_of(3) { relay } else { mallory };
            scene.world.inject("mallory", Packet::udp(src, to, data.into())).expect("a host");
        }
    });
    let (verdict, records) = scene.end();

    assert_passed(&verdict);
    assert_kept_to_themselves(mallory.ip(), &records);
}
