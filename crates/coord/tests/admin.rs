//! The administrators' API and the relays' list, each in a stream of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;

use common::{Network, SERVER_PRIVATE, address, config, key, relay, rng, start};
use coord::admin::{Admin, Response};
use coord::relay::{Relay, RelayConfig, RelayEvent};
use coord::server::{
    Admission, ConnId, KeyView, NodeView, ROUTES, Server, ServerConfig, ServerEvent, ServerTransmit, Status,
};
use coord::{Access, Error, RelayInfo};
use proptest::prelude::*;
use serde_json::{Value, json};

const ADMIN: [u8; 32] = [0xAD; 32];
const RELAY: [u8; 32] = [0x4E; 32];
const CONN: ConnId = ConnId(1_000_000);

fn server_config() -> ServerConfig {
    let relays = vec![RelayInfo { key: coord::public_key(&RELAY), ..relay() }];
    ServerConfig {
        admission: Admission::Approved,
        admins: vec![coord::public_key(&ADMIN)],
        ..ServerConfig::new(SERVER_PRIVATE, relays)
    }
}

fn network() -> Network {
    let mut network = Network::new();
    network.server = Server::new(server_config(), rng(1), network.now);
    network
}

/// Gives a machine what is for it.
fn to_machine(network: &mut Network, transmit: ServerTransmit) {
    if let ServerTransmit::Write { conn, data } = transmit
        && let Some(machine) = network.machines.iter_mut().find(|machine| machine.conn == Some(conn))
    {
        machine.result = machine.client.handle_stream(&data, network.now);
    }
}

/// An administrator's stream to the network's server.
struct Desk {
    admin: Admin,
    wire: Vec<u8>,
}

impl Desk {
    fn open(network: &mut Network, private: &[u8; 32]) -> Desk {
        network.server.accepted(CONN, address("192.0.2.50:1"), network.now);
        network.server.writable(CONN, usize::MAX, network.now);
        let server_key = network.server.public_key();
        let admin = Admin::connected(private, &server_key, "coord.example", rng(3), network.now);
        Desk { admin, wire: Vec::new() }
    }

    fn pump(&mut self, network: &mut Network) -> Result<(), Error> {
        loop {
            let mut moved = false;
            while let Some(bytes) = self.admin.poll_transmit(usize::MAX) {
                self.wire.extend_from_slice(&bytes);
                network.server.handle_stream(CONN, &bytes, network.now);
                moved = true;
            }
            while let Some(transmit) = network.server.poll_transmit() {
                match transmit {
                    ServerTransmit::Write { conn: CONN, data } => {
                        self.wire.extend_from_slice(&data);
                        self.admin.handle_stream(&data)?;
                        moved = true;
                    }
                    other => to_machine(network, other),
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn ask(&mut self, network: &mut Network, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.admin.request(method, path, &body, network.now);
        self.pump(network).unwrap();
        let Response { status, body } = self.admin.poll_response().unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status, body)
    }
}

#[test]
fn an_administrator_lets_a_machine_in_with_a_key_made_on_the_spot() {
    let mut network = network();
    let mut desk = Desk::open(&mut network, &ADMIN);
    let (status, made) =
        desk.ask(&mut network, "POST", "/v1/keys", &json!({ "tags": ["web"], "lifetime_s": 60 }));
    let made: KeyView = serde_json::from_value(made).unwrap();
    assert_eq!((status, made.expires), (201, Some(60)));
    let auth_key = made.key.unwrap();
    let in_the_clear = String::from_utf8_lossy(&desk.wire).into_owned();
    assert!(!in_the_clear.contains(&auth_key) && !in_the_clear.contains("lifetime"), "all of it is sealed");
    let machine = network.add(coord::client::ClientConfig { auth_key: Some(auth_key), ..config(1) });
    network.connect(machine);
    network.settle();
    let (_, node) = desk.ask(&mut network, "GET", "/v1/nodes/1", &Value::Null);
    let node: NodeView = serde_json::from_value(node).unwrap();
    assert_eq!(
        (node.info.name.as_str(), &node.info.tags[..], node.auth_key),
        ("machine-1", &["web".into()][..], Some(1))
    );
    let (_, listed) = desk.ask(&mut network, "GET", "/v1/keys", &Value::Null);
    assert_eq!(
        (&listed["keys"][0]["used"], &listed["keys"][0]["key"]),
        (&json!(1), &Value::Null),
        "told once"
    );
}

#[test]
fn what_an_administrator_sets_is_in_force_and_told() {
    let mut network = network();
    let mut desk = Desk::open(&mut network, &ADMIN);
    network.join(1);
    assert_eq!(desk.ask(&mut network, "POST", "/v1/nodes/1/approve", &Value::Null).0, 204);
    network.settle();
    assert!(network.machines[0].client.is_registered());
    for (path, body) in [
        ("/v1/nodes/1/name", json!({ "name": "web" })),
        ("/v1/nodes/1/tags", json!({ "tags": ["a", "b"] })),
        ("/v1/nodes/1/key-expiry", json!({ "expires": 1000 })),
        ("/v1/access", json!({ "rules": [{ "from": ["*"], "to": ["web"] }] })),
        ("/v1/relays", json!({ "relays": [] })),
    ] {
        let (status, told) = desk.ask(&mut network, "PUT", path, &body);
        assert_eq!(status, 204, "{path}: {told}");
    }
    let (_, node) = desk.ask(&mut network, "GET", "/v1/nodes/1", &Value::Null);
    assert_eq!(
        (&node["name"], &node["tags"], &node["key_expires"]),
        (&json!("web"), &json!(["a", "b"]), &json!(1000))
    );
    let (_, access) = desk.ask(&mut network, "GET", "/v1/access", &Value::Null);
    let access: Option<Access> = serde_json::from_value(access["access"].clone()).unwrap();
    assert_eq!(access.unwrap().rules.len(), 1);
    let (_, status) = desk.ask(&mut network, "GET", "/v1/status", &Value::Null);
    let status: Status = serde_json::from_value(status).unwrap();
    assert_eq!((status.nodes, status.online, status.waiting), (1, 1, 0));
    assert_eq!(desk.ask(&mut network, "POST", "/v1/nodes/1/revoke", &Value::Null).0, 204);
    network.settle();
    assert!(network.machines[0].result.is_err());
    assert_eq!(desk.ask(&mut network, "POST", "/v1/nodes/1/approve", &Value::Null).0, 409);
    assert_eq!(desk.ask(&mut network, "DELETE", "/v1/nodes/1", &Value::Null).0, 204);
    assert_eq!(desk.ask(&mut network, "GET", "/v1/nodes/1", &Value::Null).0, 404);
}

#[test]
fn mistakes_are_told_with_the_status_that_fits() {
    let mut network = network();
    let mut desk = Desk::open(&mut network, &ADMIN);
    for (method, path, body, status, part) in [
        ("GET", "/v1/sheep", Value::Null, 404, "there is no /v1/sheep"),
        ("PATCH", "/v1/access", Value::Null, 405, "GET, PUT, DELETE"),
        ("GET", "/v1/nodes/7", Value::Null, 404, "no node 7"),
        ("GET", "/v1/nodes/x", Value::Null, 404, "there is no"),
        (
            "PUT",
            "/v1/access",
            json!({ "rules": [{ "from": ["group:x"], "to": ["*"] }] }),
            400,
            "no group `x`",
        ),
        ("PUT", "/v1/access", json!({ "rule": [] }), 400, "unknown field"),
        ("POST", "/v1/keys", json!({ "tags": [""] }), 400, "tags"),
        ("DELETE", "/v1/keys/3", Value::Null, 404, "no pre-authentication key 3"),
    ] {
        let (got, told) = desk.ask(&mut network, method, path, &body);
        assert_eq!(got, status, "{method} {path}: {told}");
        assert!(told["error"].as_str().unwrap().contains(part), "{told}");
    }
}

#[test]
fn a_stranger_does_not_get_to_the_desk() {
    let mut network = network();
    let mut desk = Desk::open(&mut network, &[0xEE; 32]);
    desk.admin.request("GET", "/v1/nodes", b"", network.now);
    let _ = desk.pump(&mut network);
    assert_eq!(desk.admin.poll_response(), None);
    let event = network.server.poll_event();
    let expected = Error::Stranger("administrator");
    assert!(matches!(&event, Some(ServerEvent::Rejected { error, .. }) if *error == expected), "{event:?}");
}

#[test]
fn an_answer_waits_until_what_it_says_is_stored() {
    let mut network = Network::new();
    network.server = Server::load(server_config(), coord::state::State::default(), rng(1), network.now);
    let mut desk = Desk::open(&mut network, &ADMIN);
    desk.admin.request("POST", "/v1/keys", b"{}", network.now);
    desk.admin.request("GET", "/v1/status", b"", network.now);
    desk.pump(&mut network).unwrap();
    assert_eq!(desk.admin.poll_response(), None);
    let write = network.server.poll_store().unwrap();
    desk.pump(&mut network).unwrap();
    assert_eq!(desk.admin.poll_response(), None);
    network.server.stored(write.id, network.now);
    desk.pump(&mut network).unwrap();
    let statuses: Vec<_> =
        std::iter::from_fn(|| desk.admin.poll_response()).map(|response| response.status).collect();
    assert_eq!(statuses, [201, 200], "in the order of the requests");
}

/// Every route is described on the page, and every route on the page exists.
#[test]
fn the_page_and_the_server_agree_about_the_routes() {
    let page = include_str!("../API.md");
    let described = page.lines().filter_map(|line| {
        let (method, path) = line.strip_prefix("### `")?.strip_suffix('`')?.split_once(' ')?;
        Some((method, path))
    });
    let described: BTreeSet<_> = described.collect();
    assert_eq!(described, ROUTES.into_iter().collect());
    let mut network = network();
    let mut desk = Desk::open(&mut network, &ADMIN);
    for (method, path) in described {
        let (status, told) = desk.ask(&mut network, method, &path.replace("{id}", "1"), &Value::Null);
        let told = told.to_string();
        assert!(
            !(told.contains("there is no /") || told.contains("not implemented")),
            "{method} {path}: {status} {told}"
        );
        assert_ne!(status, 405, "{method} {path}");
    }
}

struct Watch {
    relay: Relay,
    conn: ConnId,
}

impl Watch {
    fn pump(&mut self, network: &mut Network) -> Result<(), Error> {
        loop {
            let mut moved = false;
            while let Some(bytes) = self.relay.poll_transmit(usize::MAX) {
                network.server.handle_stream(self.conn, &bytes, network.now);
                moved = true;
            }
            while let Some(transmit) = network.server.poll_transmit() {
                match transmit {
                    ServerTransmit::Write { conn, data } if conn == self.conn => {
                        self.relay.handle_stream(&data, network.now)?;
                        moved = true;
                    }
                    other => to_machine(network, other),
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }
}

fn watch(network: &mut Network, private_key: [u8; 32]) -> Watch {
    let config = RelayConfig { private_key, server_key: network.server.public_key(), host: String::new() };
    let mut relay = Relay::new(config, rng(4));
    relay.connected(network.now);
    let conn = network.accept();
    Watch { relay, conn }
}

#[test]
fn a_relay_knows_who_may_use_it() {
    let mut network = network();
    network.join(1);
    network.join(2);
    network.server.approve(1, network.now).unwrap();
    network.settle();
    let mut watch = watch(&mut network, RELAY);
    assert_eq!(watch.relay.allows(&coord::public_key(&key(2, 1))), None, "nobody has said anything yet");
    watch.pump(&mut network).unwrap();
    assert_eq!(watch.relay.poll_event(), Some(RelayEvent::Listed));
    let allows = |watch: &Watch, number| watch.relay.allows(&coord::public_key(&key(2, number)));
    assert_eq!((allows(&watch, 1), allows(&watch, 2)), (Some(true), Some(false)), "who waits may not");
    network.server.approve(2, network.now).unwrap();
    network.server.handle_timeout(network.now + std::time::Duration::from_secs(1));
    watch.pump(&mut network).unwrap();
    assert_eq!(allows(&watch, 2), Some(true));
    network.server.revoke(1, network.now + std::time::Duration::from_secs(2)).unwrap();
    network.server.handle_timeout(network.now + std::time::Duration::from_secs(3));
    // Its own refusal ends the first machine's stream.
    network.machines[0].conn = Some(ConnId(9));
    while let Some(transmit) = network.server.poll_transmit() {
        if let ServerTransmit::Write { conn, data } = transmit
            && conn == watch.conn
        {
            watch.relay.handle_stream(&data, network.now).unwrap();
        }
    }
    assert_eq!(watch.relay.poll_event(), Some(RelayEvent::Dismissed(coord::public_key(&key(2, 1)))));
    assert_eq!(allows(&watch, 1), Some(false));
    watch.relay.closed();
    assert_eq!(allows(&watch, 2), Some(true), "while the server is away what it said last counts");
}

#[test]
fn only_a_relay_of_the_network_is_told_who_is_in_it() {
    let mut network = network();
    let mut watch = watch(&mut network, [0xEE; 32]);
    let _ = watch.pump(&mut network);
    assert_eq!(watch.relay.allows(&coord::public_key(&key(2, 1))), None);
    let event = network.server.poll_event();
    assert!(matches!(&event, Some(ServerEvent::Rejected { error: Error::Stranger(_), .. })), "{event:?}");
}

proptest! {
    #[test]
    fn any_request_is_answered(method in "[ -~]{0,8}", path in "/v1/(nodes|keys|access|relays)?[ -~]{0,20}", body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut network = network();
        let mut desk = Desk::open(&mut network, &ADMIN);
        desk.admin.request(&method, &path, &body, start());
        desk.pump(&mut network).unwrap();
        prop_assert!(desk.admin.poll_response().is_some());
    }
}
