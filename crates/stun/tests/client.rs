//! The client transaction against RFC 8489 §6.2 and §6.3.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun::client::{Client, Event, Failure, Retransmit};
use stun::message::{Attribute, Class, Message, Method, TransactionId};

const ID: TransactionId = TransactionId([5; 12]);
const SERVER: &str = "198.51.100.1:3478";
const MAPPED: &str = "203.0.113.9:40001";

#[expect(clippy::disallowed_methods, reason = "a test starts the time somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client(config: Retransmit, now: Instant) -> Client {
    Client::binding(address(SERVER), ID, config, now)
}

fn answer(class: Class, id: TransactionId, attributes: Vec<Attribute>) -> Vec<u8> {
    Message { class, method: Method::BINDING, id, attributes, fingerprint: false }.to_vec()
}

fn success() -> Vec<u8> {
    answer(Class::Success, ID, vec![Attribute::XorMappedAddress(address(MAPPED))])
}

/// Milliseconds of each request and of the failure, when nobody answers.
fn schedule(config: Retransmit) -> (Vec<u128>, u128) {
    let began = start();
    let mut client = client(config, began);
    let mut now = began;
    let mut sent = Vec::new();
    loop {
        while let Some((to, datagram)) = client.poll_transmit() {
            assert_eq!(to, address(SERVER));
            assert_eq!(Message::decode(&datagram).unwrap().id, ID);
            sent.push((now - began).as_millis());
        }
        let Some((at, _)) = client.poll_timeout() else { break };
        assert!(at > now, "a deadline in the past would spin");
        // Too early does nothing.
        client.handle_timeout(at - Duration::from_nanos(1));
        assert_eq!((client.poll_transmit(), client.poll_event()), (None, None));
        now = at;
        client.handle_timeout(now);
    }
    assert_eq!(client.poll_event(), Some(Event::Failed { server: address(SERVER) }));
    assert_eq!(client.failure(), Some(Failure::TimedOut));
    (sent, (now - began).as_millis())
}

#[test]
fn rfc_8489_6_2_1_retransmission_schedule() {
    let expected = (vec![0, 500, 1500, 3500, 7500, 15500, 31500], 39500);
    assert_eq!(schedule(Retransmit::default()), expected);
}

#[test]
fn a_faster_schedule_is_followed() {
    assert_eq!(schedule(Retransmit::FAST), (vec![0, 100, 300, 700], 1500));
    let once = Retransmit { rto: Duration::from_millis(30), requests: 1, last_wait: 1 };
    assert_eq!(schedule(once), (vec![0], 30));
}

#[test]
fn an_answer_ends_the_transaction() {
    let now = start();
    let mut client = client(Retransmit::default(), now);
    assert!(client.poll_transmit().is_some());
    assert!(client.handle(address(SERVER), &success(), now + Duration::from_millis(42)));
    assert_eq!(
        client.poll_event(),
        Some(Event::Mapped {
            server: address(SERVER),
            mapped: address(MAPPED),
            rtt: Duration::from_millis(42),
            other: None
        })
    );
    assert_eq!((client.poll_event(), client.poll_timeout(), client.poll_transmit()), (None, None, None));
    assert!(!client.handle(address(SERVER), &success(), now), "a second answer is none of it");
}

#[test]
fn the_round_trip_counts_from_the_latest_request() {
    let now = start();
    let mut client = client(Retransmit::default(), now);
    client.handle_timeout(now + Duration::from_millis(500));
    client.handle(address(SERVER), &success(), now + Duration::from_millis(530));
    assert_eq!(client.requests_sent(), 2);
    assert!(
        matches!(client.poll_event(), Some(Event::Mapped { rtt, .. }) if rtt == Duration::from_millis(30))
    );
}

#[test]
fn what_is_no_answer_is_left_alone() {
    let now = start();
    let mut client = client(Retransmit::default(), now);
    let other_id =
        answer(Class::Success, TransactionId([6; 12]), vec![Attribute::MappedAddress(address(MAPPED))]);
    let request = answer(Class::Request, ID, vec![]);
    let indication = answer(Class::Indication, ID, vec![]);
    for datagram in [&other_id[..], &request, &indication, b"", b"not stun at all, but long enough"] {
        assert!(!client.handle(address(SERVER), datagram, now));
    }
    for stranger in ["198.51.100.2:3478", "198.51.100.1:3479"] {
        assert!(!client.handle(address(stranger), &success(), now));
    }
    assert_eq!(client.poll_event(), None);
    assert!(
        client.handle(address("[::ffff:198.51.100.1]:3478"), &success(), now),
        "a dual-stack socket says so"
    );
}

#[test]
fn rfc_8489_6_3_3_unknown_required_attribute_fails_the_transaction() {
    let now = start();
    let mut client = client(Retransmit::default(), now);
    let unknown = Attribute::Unknown { kind: 0x7000, value: vec![] };
    let datagram = answer(Class::Success, ID, vec![Attribute::XorMappedAddress(address(MAPPED)), unknown]);
    assert!(client.handle(address(SERVER), &datagram, now));
    assert_eq!(client.poll_event(), Some(Event::Failed { server: address(SERVER) }));
    assert_eq!(client.failure(), Some(Failure::Unusable));
}

#[test]
fn an_error_fails_the_transaction_at_once() {
    let now = start();
    let mut client = client(Retransmit::default(), now);
    let refusal = vec![Attribute::ErrorCode { code: 420, reason: String::new() }];
    assert!(client.handle(address(SERVER), &answer(Class::Error, ID, refusal), now));
    assert_eq!(client.failure(), Some(Failure::Refused(420)));
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn rfc_5780_7_2_a_changed_answer_must_come_from_there() {
    let now = start();
    for (ip, port, from) in [
        (true, false, "198.51.100.2:3478"),
        (false, true, "198.51.100.1:3479"),
        (true, true, "198.51.100.2:3479"),
        (false, false, SERVER),
    ] {
        let mut request = Message::binding_request(ID);
        request.attributes.push(Attribute::ChangeRequest { ip, port });
        for candidate in ["198.51.100.2:3478", "198.51.100.1:3479", "198.51.100.2:3479", SERVER] {
            let mut client = Client::request(address(SERVER), &request, Retransmit::default(), now);
            assert_eq!(client.handle(address(candidate), &success(), now), candidate == from, "{ip} {port}");
        }
    }
}
