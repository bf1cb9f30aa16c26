//! Somebody says that he is somebody else.

use crate::crowd::to_relay;
use crate::{SEED, Scene, assert_passed, received};
use bytes::Bytes;
use punchbag::host::{ConnId, Input, Output, Program};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use trace::Event;

/// Who a machine says it is to the coordination server.
pub(crate) fn machine(
    name: &str,
    machine_key: [u8; 32],
    node_key: coord::KeyPair,
) -> coord::client::ClientConfig {
    coord::client::ClientConfig {
        machine_key,
        server_key: coord::public_key(&SEED.bytes("coordinator key 0 of coordinator")),
        name: name.to_owned(),
        node_key,
        disco_key: coord::KeyPair::new([8; 32]),
        host: String::new(),
        auth_key: None,
    }
}

/// What came of the attempts.
#[derive(Debug, Default)]
struct Heard {
    connected: u32,
    closed: u32,
    bytes: Vec<u8>,
    registered: bool,
}

/// Says something on a connection, again and again, and writes down what comes back.
struct Impostor {
    to: SocketAddr,
    /// At the relay: what is said. At the coordination server it depends on the answers.
    speech: Option<Bytes>,
    client: Option<coord::client::Client>,
    heard: Rc<RefCell<Heard>>,
    conn: u64,
    at: Option<Instant>,
    out: VecDeque<Output>,
}

impl Impostor {
    fn pump(&mut self, conn: ConnId) {
        while let Some(data) = self.client.as_mut().and_then(|client| client.poll_transmit(1 << 16)) {
            self.out.push_back(Output::Write { conn, data });
        }
        while let Some(event) = self.client.as_mut().and_then(coord::client::Client::poll_event) {
            self.heard.borrow_mut().registered |= !matches!(event, coord::client::Event::Failed(_));
        }
    }
}

impl Program for Impostor {
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Addresses(_) => self.at = Some(now + Duration::from_secs(5)),
            Input::Connected { conn } => {
                self.heard.borrow_mut().connected += 1;
                if let Some(data) = self.speech.clone() {
                    self.out.push_back(Output::Write { conn, data });
                }
                if let Some(client) = &mut self.client {
                    client.connected(now);
                }
                self.pump(conn);
            }
            Input::Stream { conn, data } => {
                self.heard.borrow_mut().bytes.extend_from_slice(data);
                if let Some(client) = &mut self.client {
                    // An answer that ends it is followed by the end.
                    let _ = client.handle_stream(data, now);
                }
                self.pump(conn);
            }
            Input::Closed { conn } => {
                self.heard.borrow_mut().closed += 1;
                self.out.push_back(Output::Close { conn });
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.at.is_some_and(|at| at <= now) {
            self.at = Some(now + Duration::from_millis(500));
            self.out.push_back(Output::Connect { conn: ConnId(self.conn), to: self.to });
            self.conn += 1;
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some((self.at?, "another attempt"))
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
}

fn impostor(
    scene: &mut Scene,
    server: &str,
    speech: Option<Bytes>,
    client: Option<coord::client::Client>,
) -> Rc<RefCell<Heard>> {
    let heard = Rc::default();
    let to = scene.at(server, 80);
    let program =
        Impostor { to, speech, client, heard: Rc::clone(&heard), conn: 0, at: None, out: VecDeque::new() };
    scene.world.add_program("mallory", Box::new(program)).expect("a host");
    heard
}

/// The relay's clients prove their keys: it seals for the key that is claimed, and opens what must have been sealed by it.
#[test]
fn a_client_of_the_relay_that_claims_anothers_key_gets_none_of_its_packets() {
    let mut scene = Scene::relayed("");
    let own = derp::PrivateKey::from_bytes(SEED.bytes("mallory")).public().0;
    let takkie = derp::PrivateKey::from_bytes(SEED.bytes("node key 0 of takkie")).public().0;
    let mut speech = to_relay(SEED.bytes("mallory")).to_vec();
    let at = memchr::memmem::find(&speech, &own).expect("its key is in its first frame");
    speech[at..at + 32].copy_from_slice(&takkie);
    let heard = impostor(&mut scene, "relay", Some(speech.into()), None);

    let (verdict, records) = scene.end();

    assert_passed(&verdict);
    let heard = heard.borrow();
    assert!(heard.connected > 50 && heard.closed == heard.connected, "{heard:?}");
    // Each attempt hears the relay's key (a frame of 5 and 40 bytes) and nothing else.
    assert!(heard.bytes.len() <= 64 * heard.connected as usize, "{} bytes", heard.bytes.len());
    assert!(received(&records, "takkie", "ping takkie flappie").len() > 300, "its own packets reach takkie");
}

/// A node key belongs to the machine that has its private half, whether it is there yet or not.
#[test]
fn a_machine_that_claims_anothers_node_key_is_turned_away_by_the_coordination_server() {
    let mut scene = Scene::relayed("");
    let public = wireguard::public_key(&SEED.bytes("node key 0 of takkie"));
    let takkie = coord::KeyPair { public, private: SEED.bytes("mallory's node key") };
    let config = machine("takkie", SEED.bytes("mallory's machine"), takkie);
    let now = punchbag::world::Clock::new().now();
    let client = coord::client::Client::new(config, SEED.chacha("mallory"), now);
    let heard = impostor(&mut scene, "coordinator", None, Some(client));

    let (verdict, records) = scene.end();

    assert_passed(&verdict);
    let heard = heard.borrow();
    assert!(heard.connected > 50 && !heard.registered, "{heard:?}");
    let rejected = records.iter().filter(|record| {
        matches!(&record.event, Event::Warning { node, what } if **node == *"coordinator" && what.starts_with("rejected"))
    });
    assert_eq!(rejected.count() as u32, heard.connected);
}
