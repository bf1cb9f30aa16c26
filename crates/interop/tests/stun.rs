//! Our STUN against `stun-rs`, each reading what the other wrote.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use stun::message::{Attribute, Class, Message, Method, TransactionId};
use stun::server::Server;
use stun_rs::attributes::discovery::{
    ChangeRequest, ChangeRequestFlags, OtherAddress, Padding, ResponseOrigin, ResponsePort,
};
use stun_rs::attributes::stun::{
    ErrorCode, Fingerprint, MappedAddress, Software, UnknownAttributes, XorMappedAddress,
};
use stun_rs::methods::BINDING;
use stun_rs::{
    DecoderContextBuilder, MessageClass, MessageDecoder, MessageDecoderBuilder, MessageEncoderBuilder,
    StunMessage, StunMessageBuilder,
};

const ID: [u8; 12] = *b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c";
const V4: &str = "203.0.113.9:40001";
const V6: &str = "[2001:db8:1::77]:40002";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn theirs(class: MessageClass) -> StunMessageBuilder {
    StunMessageBuilder::new(BINDING, class).with_transaction_id(ID.into())
}

fn their_bytes(message: &StunMessage) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let length = MessageEncoderBuilder::default().build().encode(&mut buffer, message).unwrap();
    buffer.truncate(length);
    buffer
}

/// A decoder that verifies the fingerprint.
fn their_decoder() -> MessageDecoder {
    let context = DecoderContextBuilder::default().with_validation().build();
    MessageDecoderBuilder::default().with_context(context).build()
}

fn ours(class: Class, attributes: Vec<Attribute>) -> Message {
    Message { class, method: Method::BINDING, id: TransactionId(ID), attributes, fingerprint: true }
}

#[test]
fn their_requests_are_read_by_us() {
    for (flags, ip, port) in [
        (None, false, false),
        (Some(ChangeRequestFlags::ChangeIp.into()), true, false),
        (Some(ChangeRequestFlags::ChangePort.into()), false, true),
        (Some(ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort), true, true),
    ] {
        let request = theirs(MessageClass::Request)
            .with_attribute(Software::new("tailnode").unwrap())
            .with_attribute(ChangeRequest::new(flags))
            .with_attribute(ResponsePort::new(4711))
            .with_attribute(Padding::new("\0\0\0\0\0\0\0").unwrap())
            .with_attribute(Fingerprint::default())
            .build();
        let expected = vec![
            Attribute::Software("tailnode".into()),
            Attribute::ChangeRequest { ip, port },
            Attribute::ResponsePort(4711),
            Attribute::Padding(7),
        ];
        assert_eq!(Message::decode(&their_bytes(&request)), Ok(ours(Class::Request, expected)));
    }
}

#[test]
fn their_answers_are_read_by_us() {
    for seen in [V4, V6].map(address) {
        let answer = theirs(MessageClass::SuccessResponse)
            .with_attribute(XorMappedAddress::from(seen))
            .with_attribute(MappedAddress::from(seen))
            .with_attribute(ResponseOrigin::from(address(V4)))
            .with_attribute(OtherAddress::from(address(V6)))
            .with_attribute(Fingerprint::default())
            .build();
        let expected = vec![
            Attribute::XorMappedAddress(seen),
            Attribute::MappedAddress(seen),
            Attribute::ResponseOrigin(address(V4)),
            Attribute::OtherAddress(address(V6)),
        ];
        assert_eq!(Message::decode(&their_bytes(&answer)), Ok(ours(Class::Success, expected)));
    }
    let mut unknown = UnknownAttributes::default();
    unknown.add(3);
    unknown.add(0x7777);
    unknown.add(9);
    let refusal = theirs(MessageClass::ErrorResponse)
        .with_attribute(ErrorCode::from(stun_rs::ErrorCode::new(420, "Unknown Attribute").unwrap()))
        .with_attribute(unknown)
        .build();
    let expected = vec![
        Attribute::ErrorCode { code: 420, reason: "Unknown Attribute".into() },
        Attribute::UnknownAttributes(vec![3, 0x7777, 9]),
    ];
    let expected = Message { fingerprint: false, ..ours(Class::Error, expected) };
    assert_eq!(Message::decode(&their_bytes(&refusal)), Ok(expected));
}

#[test]
fn our_messages_equal_theirs_byte_by_byte() {
    let request = theirs(MessageClass::Request)
        .with_attribute(Software::new("tailnode").unwrap())
        .with_attribute(ChangeRequest::new(Some(ChangeRequestFlags::ChangePort.into())))
        .with_attribute(Fingerprint::default())
        .build();
    let attributes =
        vec![Attribute::Software("tailnode".into()), Attribute::ChangeRequest { ip: false, port: true }];
    assert_eq!(ours(Class::Request, attributes).to_vec(), their_bytes(&request));

    for seen in [V4, V6].map(address) {
        let answer = theirs(MessageClass::SuccessResponse)
            .with_attribute(XorMappedAddress::from(seen))
            .with_attribute(ResponseOrigin::from(address(V4)))
            .with_attribute(OtherAddress::from(address(V6)))
            .with_attribute(Fingerprint::default())
            .build();
        let attributes = vec![
            Attribute::XorMappedAddress(seen),
            Attribute::ResponseOrigin(address(V4)),
            Attribute::OtherAddress(address(V6)),
        ];
        assert_eq!(ours(Class::Success, attributes).to_vec(), their_bytes(&answer));
    }
}

#[test]
fn our_server_answers_their_client() {
    let (primary, alternate) = (address("198.51.100.1:3478"), address("198.51.100.2:3479"));
    let server = Server::with_alternate(primary, alternate).unwrap().software("punchbag");
    let request = theirs(MessageClass::Request)
        .with_attribute(ChangeRequest::new(Some(ChangeRequestFlags::ChangeIp.into())))
        .with_attribute(Fingerprint::default())
        .build();

    let response = server.respond(primary, address(V4), &their_bytes(&request)).unwrap();
    assert_eq!((response.from_local, response.to), (address("198.51.100.2:3478"), address(V4)));
    let (answer, length) = their_decoder().decode(&response.data).unwrap();
    assert_eq!(length, response.data.len());
    assert_eq!(answer.class(), MessageClass::SuccessResponse);
    assert_eq!(answer.transaction_id().as_bytes(), &ID);
    let mapped = answer.get::<XorMappedAddress>().unwrap().as_xor_mapped_address().unwrap();
    assert_eq!(mapped.socket_address(), &address(V4));
    let other = answer.get::<OtherAddress>().unwrap().as_other_address().unwrap();
    assert_eq!(other.socket_address(), &alternate);
    let origin = answer.get::<ResponseOrigin>().unwrap().as_response_origin().unwrap();
    assert_eq!(origin.socket_address(), &response.from_local);
    assert_eq!(answer.get::<Software>().unwrap().as_software().unwrap(), "punchbag");
    assert!(answer.get::<Fingerprint>().is_some());
}

#[test]
fn our_refusal_is_read_by_them() {
    let request = theirs(MessageClass::Request).with_attribute(ChangeRequest::new(None)).build();
    let response = Server::new().respond(address(V4), address(V6), &their_bytes(&request)).unwrap();
    let (answer, _) = their_decoder().decode(&response.data).unwrap();
    assert_eq!(answer.class(), MessageClass::ErrorResponse);
    let code = answer.get::<ErrorCode>().unwrap().as_error_code().unwrap();
    assert_eq!(code.error_code().error_code(), 420);
    let unknown = answer.get::<UnknownAttributes>().unwrap().as_unknown_attributes().unwrap();
    assert_eq!(unknown.attributes(), [3]);
}

#[test]
fn neither_reads_an_altered_message() {
    let good = ours(Class::Success, vec![Attribute::XorMappedAddress(address(V4))]).to_vec();
    assert!(their_decoder().decode(&good).is_ok());
    let mut bad = good;
    bad[30] ^= 1;
    assert!(their_decoder().decode(&bad).is_err());
    assert!(Message::decode(&bad).is_err());
}
