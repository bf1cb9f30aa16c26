//! A relay that does with its clients' packets what it likes.

use crate::{Scene, received};
use bytes::{Bytes, BytesMut};
use punchbag::host::{ConnId, Input, Output, Program};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Type of the frame with a packet from a client (`FrameSendPacket`, tailscale `derp/derp.go`).
const SEND_PACKET: u8 = 4;
/// Type and length of a frame.
const HEADER: usize = 5;
/// The key of the receiver.
const KEY: usize = 32;

/// A relay inside of which frames of clients are altered before they are handled. It speaks no TLS.
struct Altering {
    relay: Box<dyn Program>,
    streams: BTreeMap<ConnId, Stream>,
    /// Receivers that were seen.
    keys: Vec<Bytes>,
    packets: usize,
}

#[derive(Default)]
struct Stream {
    upgraded: bool,
    bytes: BytesMut,
}

impl Altering {
    fn alter(&mut self, conn: ConnId, data: &[u8]) -> Bytes {
        let stream = self.streams.entry(conn).or_default();
        stream.bytes.extend_from_slice(data);
        let mut out = BytesMut::new();
        if !stream.upgraded {
            let Some(end) = memchr::memmem::find(&stream.bytes, b"\r\n\r\n") else { return Bytes::new() };
            stream.upgraded = true;
            out.extend_from_slice(&stream.bytes.split_to(end + 4));
        }
        while stream.bytes.len() >= HEADER {
            let len =
                u32::from_be_bytes([stream.bytes[1], stream.bytes[2], stream.bytes[3], stream.bytes[4]]);
            if stream.bytes.len() < HEADER + len as usize {
                break;
            }
            let mut frame = stream.bytes.split_to(HEADER + len as usize);
            if frame[0] != SEND_PACKET {
                out.extend_from_slice(&frame);
                continue;
            }
            let to = Bytes::copy_from_slice(&frame[HEADER..HEADER + KEY]);
            if !self.keys.contains(&to) {
                self.keys.push(to.clone());
            }
            self.packets += 1;
            match self.packets % 11 {
                // A bit, everywhere in turn.
                1 | 9 => {
                    let at = HEADER + KEY + self.packets % (frame.len() - HEADER - KEY);
                    frame[at] ^= 1 << (self.packets % 8);
                }
                // Cut short.
                3 => {
                    frame.truncate(frame.len() - 1 - self.packets % 16);
                    let len = (frame.len() - HEADER) as u32;
                    frame[1..HEADER].copy_from_slice(&len.to_be_bytes());
                }
                // Twice.
                5 => out.extend_from_slice(&frame),
                // To somebody else, if need be to its sender.
                7 => {
                    if let Some(other) = self.keys.iter().find(|key| **key != to) {
                        frame[HEADER..HEADER + KEY].copy_from_slice(other);
                    }
                }
                _ => {}
            }
            out.extend_from_slice(&frame);
        }
        out.freeze()
    }
}

impl Program for Altering {
    fn udp_ports(&self) -> Vec<u16> {
        self.relay.udp_ports()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.relay.tcp_ports()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Stream { conn, data } => {
                let data = self.alter(conn, data);
                self.relay.handle(Input::Stream { conn, data: &data }, now);
            }
            Input::Closed { conn } => {
                self.streams.remove(&conn);
                self.relay.handle(input, now);
            }
            _ => self.relay.handle(input, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.relay.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.relay.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.relay.poll_output()
    }
}

#[test]
fn a_relay_that_alters_packets_can_lose_them_and_nothing_else() {
    let mut scene = Scene::relayed("relay.relay = { region = \"eu-west\", tls = false }");
    let wrap = |relay| -> Box<dyn Program> {
        Box::new(Altering { relay, streams: BTreeMap::new(), keys: Vec::new(), packets: 0 })
    };
    scene.world.wrap_program("relay", wrap).expect("it has a program");

    let (verdict, records) = scene.end();

    assert_eq!(verdict.violations, Vec::<String>::new());
    for to in ["takkie", "flappie"] {
        let received = received(&records, to, "ping takkie flappie");
        let distinct: BTreeSet<u64> = received.iter().copied().collect();
        assert!(received.len() > 40, "{to} received {}", received.len());
        assert_eq!(received.len(), distinct.len(), "nothing came twice to {to}");
        // 380 were sent.
        assert!(received.len() < 340, "{to} received {}: was anything altered?", received.len());
    }
}
