//! The server against RFC 8489 §6.3.1 and RFC 5780 §6.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use proptest::prelude::*;
use stun::message::{Attribute, Class, Message, Method, TransactionId};
use stun::server::{AlternateError, PLAIN_LIMIT, Response, Server};

const CLIENT: &str = "203.0.113.9:40001";
const PRIMARY: &str = "198.51.100.1:3478";
const ALTERNATE: &str = "198.51.100.2:3479";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server() -> Server {
    Server::with_alternate(address(PRIMARY), address(ALTERNATE)).unwrap()
}

fn request(attributes: Vec<Attribute>) -> Vec<u8> {
    let request = Message { fingerprint: true, ..Message::binding_request(TransactionId([1; 12])) };
    Message { attributes, ..request }.to_vec()
}

fn ask(server: &Server, attributes: Vec<Attribute>) -> (Response, Message) {
    let response = server.respond(address(PRIMARY), address(CLIENT), &request(attributes)).unwrap();
    let answer = Message::decode(&response.data).unwrap();
    (response, answer)
}

#[test]
fn a_plain_answer_is_small() {
    let tailscale = request(vec![Attribute::Software("tailnode".into())]);
    for (client, alternate, length) in [
        (CLIENT, false, 40),
        ("[2001:db8::7]:1", false, 52),
        (CLIENT, true, 64),
        ("[2001:db8::7]:1", true, 52),
    ] {
        let v6 = client.starts_with('[');
        let (primary, other) =
            if v6 { ("[2001:db8::1]:3478", "[2001:db8::2]:3479") } else { (PRIMARY, ALTERNATE) };
        let server = match alternate {
            true => Server::with_alternate(address(primary), address(other)).unwrap(),
            false => Server::new(),
        };
        let server = server.software("a server with quite a long name");
        let response = server.respond(address(primary), address(client), &tailscale).unwrap();
        assert_eq!(response.data.len(), length);
        assert!(length <= PLAIN_LIMIT);
        let answer = Message::decode(&response.data).unwrap();
        assert_eq!((answer.class, answer.mapped()), (Class::Success, Some(address(client))));
        assert_eq!((response.from_local, response.to), (address(primary), address(client)));
    }
}

#[test]
fn rfc_5780_6_1_change_request_chooses_the_socket() {
    for (local, ip, port, expected) in [
        (PRIMARY, false, false, PRIMARY),
        (PRIMARY, true, false, "198.51.100.2:3478"),
        (PRIMARY, false, true, "198.51.100.1:3479"),
        (PRIMARY, true, true, ALTERNATE),
        (ALTERNATE, true, true, PRIMARY),
        (ALTERNATE, true, false, "198.51.100.1:3479"),
        ("198.51.100.2:3478", true, false, PRIMARY),
        ("198.51.100.2:3478", false, true, ALTERNATE),
    ] {
        let datagram = request(vec![Attribute::ChangeRequest { ip, port }]);
        let response = server().respond(address(local), address(CLIENT), &datagram).unwrap();
        assert_eq!(response.from_local, address(expected), "{local} {ip} {port}");
        let answer = Message::decode(&response.data).unwrap();
        assert!(answer.attributes.contains(&Attribute::ResponseOrigin(address(expected))));
        // OTHER-ADDRESS differs in both from where the request came in.
        let other = answer.other_address().unwrap();
        assert!(other.ip() != address(local).ip() && other.port() != address(local).port());
    }
}

#[test]
fn rfc_5780_6_1_change_request_without_alternate_is_refused() {
    let (_, answer) = ask(&Server::new(), vec![Attribute::ChangeRequest { ip: true, port: true }]);
    assert_eq!((answer.class, answer.error_code()), (Class::Error, Some(420)));
    assert!(answer.attributes.contains(&Attribute::UnknownAttributes(vec![0x0003])));
}

#[test]
fn rfc_8489_6_3_1_unknown_required_attributes_are_named() {
    let unknown = |kind| Attribute::Unknown { kind, value: vec![1, 2, 3] };
    let (_, answer) =
        ask(&server(), vec![unknown(0x7001), unknown(0x8001), unknown(0x0006), unknown(0x7001)]);
    assert_eq!((answer.class, answer.error_code()), (Class::Error, Some(420)));
    assert!(answer.attributes.contains(&Attribute::UnknownAttributes(vec![0x7001, 0x0006])));
}

#[test]
fn rfc_5780_7_5_response_port_redirects_the_answer() {
    let (response, answer) = ask(&server(), vec![Attribute::ResponsePort(50_000)]);
    assert_eq!(response.to, address("203.0.113.9:50000"));
    assert_eq!(answer.mapped(), Some(address(CLIENT)), "what was seen, not where it goes");
    let (_, answer) = ask(&server(), vec![Attribute::ResponsePort(0)]);
    assert_eq!(answer.error_code(), Some(400));
}

#[test]
fn rfc_5780_7_5_response_port_with_padding_is_refused() {
    let (response, answer) = ask(&server(), vec![Attribute::ResponsePort(50_000), Attribute::Padding(100)]);
    assert_eq!((answer.error_code(), response.to), (Some(400), address(CLIENT)));
}

#[test]
fn rfc_5780_7_6_padding_is_answered_in_kind() {
    let (response, answer) = ask(&server(), vec![Attribute::Padding(1400)]);
    assert!(answer.attributes.contains(&Attribute::Padding(1400)));
    assert!(response.data.len() > 1400);
}

#[test]
fn only_binding_requests_are_answered() {
    let server = server();
    let respond = |datagram: &[u8]| server.respond(address(PRIMARY), address(CLIENT), datagram);
    let good = Message::binding_request(TransactionId([1; 12]));
    assert!(respond(&good.to_vec()).is_some());
    for class in [Class::Success, Class::Error, Class::Indication] {
        assert_eq!(
            respond(&Message { class, ..good.clone() }.to_vec()),
            None,
            "two servers would talk forever"
        );
    }
    assert_eq!(respond(&Message { method: Method(3), ..good.clone() }.to_vec()), None);
    assert_eq!(respond(b"GET / HTTP/1.1\r\n\r\n"), None);
    assert_eq!(server.respond(address(PRIMARY), address("203.0.113.9:0"), &good.to_vec()), None);
}

#[test]
fn a_mapped_source_is_reported_as_ipv4() {
    let response = Server::new()
        .respond(address("[::]:3478"), address("[::ffff:203.0.113.9]:40001"), &request(vec![]))
        .unwrap();
    assert_eq!(Message::decode(&response.data).unwrap().mapped(), Some(address(CLIENT)));
}

#[test]
fn the_fingerprint_is_mirrored() {
    let plain = Message::binding_request(TransactionId([1; 12])).to_vec();
    let response = Server::new().respond(address(PRIMARY), address(CLIENT), &plain).unwrap();
    assert!(!Message::decode(&response.data).unwrap().fingerprint);
    let response = Server::new().respond(address(PRIMARY), address(CLIENT), &request(vec![])).unwrap();
    assert!(Message::decode(&response.data).unwrap().fingerprint);
}

#[test]
fn alternates_must_differ_in_both_and_be_of_one_family() {
    let with = |other| Server::with_alternate(address(PRIMARY), address(other)).map(|_| ());
    assert_eq!(with("198.51.100.1:3479"), Err(AlternateError::Same));
    assert_eq!(with("198.51.100.2:3478"), Err(AlternateError::Same));
    assert_eq!(with("[2001:db8::2]:3479"), Err(AlternateError::Family));
    assert_eq!(
        server().sockets(),
        [PRIMARY, "198.51.100.1:3479", "198.51.100.2:3478", ALTERNATE].map(address)
    );
}

proptest! {
    #[test]
    fn an_answer_is_never_much_longer_than_its_question(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let body = &body[..body.len() / 4 * 4];
        let mut datagram = Message::binding_request(TransactionId([1; 12])).to_vec();
        datagram[2..4].copy_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        datagram.extend_from_slice(body);
        if let Some(response) = server().respond(address(PRIMARY), address(CLIENT), &datagram) {
            prop_assert!(Message::decode(&response.data).is_ok());
            prop_assert!(response.data.len() <= datagram.len() + PLAIN_LIMIT);
        }
    }
}
