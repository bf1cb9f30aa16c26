//! The codec: published vectors, sizes, requirements of RFC 8489 and RFC 5780, and arbitrary input.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use proptest::prelude::*;
use stun::message::{Attribute, Class, DecodeError, Message, Method, TransactionId, is_stun};

const ID: TransactionId =
    TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn message(class: Class, attributes: Vec<Attribute>) -> Message {
    Message { class, method: Method::BINDING, id: ID, attributes, fingerprint: false }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn rfc_5769_2_2_ipv4_response() {
    let sample = bytes(
        "0101003c 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f7220
         00200008 0001a147e112a643 00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004 c07d4c96",
    );
    let read = Message::decode(&sample).unwrap();
    assert_eq!((read.class, read.method, read.id), (Class::Success, Method::BINDING, ID));
    assert_eq!(read.mapped(), Some(address("192.0.2.1:32853")));
    assert!(read.attributes.contains(&Attribute::Software("test vector".into())));
    assert!(read.fingerprint);
    assert_eq!(read.unknown_required(), [0x0008], "MESSAGE-INTEGRITY is not understood");
}

#[test]
fn rfc_5769_2_3_ipv6_response() {
    let sample = bytes(
        "01010048 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f7220
         00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
         00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 80280004 c8fb0b4c",
    );
    let read = Message::decode(&sample).unwrap();
    assert_eq!(read.mapped(), Some(address("[2001:db8:1234:5678:11:2233:4455:6677]:32853")));
}

#[test]
fn rfc_8489_14_7_an_altered_byte_breaks_the_fingerprint() {
    let request = Message { fingerprint: true, ..Message::binding_request(ID) };
    let good = Message { attributes: vec![Attribute::Software("tailnode".into())], ..request }.to_vec();
    assert_eq!(good.len(), 40, "the request of Tailscale's netcheck");
    for at in [1, 8, 19, 25, 39] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(Message::decode(&bad), Err(DecodeError::Fingerprint), "byte {at}");
    }
}

#[test]
fn rfc_8489_14_7_fingerprint_must_be_last() {
    let mut sample = Message { fingerprint: true, ..Message::binding_request(ID) }.to_vec();
    sample.extend_from_slice(&[0x80, 0x22, 0, 0]);
    sample[3] += 4;
    assert_eq!(Message::decode(&sample), Err(DecodeError::Fingerprint));
}

#[test]
fn rfc_8489_5_header_is_checked() {
    let good = Message::binding_request(ID).to_vec();
    assert_eq!(good, bytes("00010000 2112a442 b7e7a701bc34d686fa87dfae"));
    assert!(is_stun(&good));
    let altered = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        (is_stun(&bad), Message::decode(&bad))
    };
    assert_eq!(altered(0, 0x40), (false, Err(DecodeError::NotStun)));
    assert_eq!(altered(4, 0x20), (false, Err(DecodeError::NotStun)));
    assert_eq!(altered(3, 2), (false, Err(DecodeError::Length(2))));
    assert_eq!(altered(3, 4), (true, Err(DecodeError::Length(4))));
    assert_eq!(Message::decode(&good[..19]), Err(DecodeError::TooShort));
}

#[test]
fn rfc_8489_14_attributes_are_padded_to_four_bytes() {
    let one = message(Class::Success, vec![Attribute::Software("abcde".into()), Attribute::ResponsePort(7)]);
    let wire = one.to_vec();
    assert_eq!(wire[20..], bytes("80220005 6162636465000000 00270002 00070000"));
    assert_eq!(Message::decode(&wire), Ok(one));
}

#[test]
fn rfc_8489_14_8_error_code_is_class_and_number() {
    let refusal = message(Class::Error, vec![Attribute::ErrorCode { code: 438, reason: "x".into() }]);
    let wire = refusal.to_vec();
    assert_eq!(wire[20..], bytes("00090005 0000042678000000"));
    for (class, number) in [(2, 38), (7, 0), (4, 100)] {
        let mut bad = wire.clone();
        (bad[26], bad[27]) = (class, number);
        assert_eq!(Message::decode(&bad), Err(DecodeError::Malformed(0x0009)));
    }
}

#[test]
fn rfc_8489_14_only_the_first_of_a_repeated_attribute_counts() {
    let both = ["192.0.2.1:1", "192.0.2.2:2"].map(|text| Attribute::XorMappedAddress(address(text)));
    assert_eq!(message(Class::Success, both.to_vec()).mapped(), Some(address("192.0.2.1:1")));
}

#[test]
fn rfc_5780_7_2_change_request_flags() {
    for (ip, port, flags) in [(false, false, 0), (true, false, 4), (false, true, 2), (true, true, 6)] {
        let wire = message(Class::Request, vec![Attribute::ChangeRequest { ip, port }]).to_vec();
        assert_eq!(wire[20..], [0, 3, 0, 4, 0, 0, 0, flags]);
    }
}

#[test]
fn rfc_5780_7_5_response_port_may_count_its_padding() {
    let sample = bytes("00010008 2112a442 b7e7a701bc34d686fa87dfae 00270004 12670000");
    assert_eq!(Message::decode(&sample).unwrap().attributes, [Attribute::ResponsePort(4711)]);
}

#[test]
fn the_experimental_xor_mapped_address_is_read() {
    let mut wire =
        message(Class::Success, vec![Attribute::XorMappedAddress(address("192.0.2.1:32853"))]).to_vec();
    wire[20] = 0x80;
    assert_eq!(Message::decode(&wire).unwrap().mapped(), Some(address("192.0.2.1:32853")));
}

#[test]
fn mapped_address_is_the_fallback() {
    let plain = Attribute::MappedAddress(address("[2001:db8::1]:5"));
    let xored = Attribute::XorMappedAddress(address("192.0.2.1:1"));
    assert_eq!(message(Class::Success, vec![plain.clone()]).mapped(), Some(address("[2001:db8::1]:5")));
    assert_eq!(message(Class::Success, vec![plain, xored]).mapped(), Some(address("192.0.2.1:1")));
}

#[test]
fn a_cut_off_attribute_is_an_error() {
    let mut wire = message(Class::Success, vec![Attribute::Software("abcd".into())]).to_vec();
    wire[23] = 5;
    assert_eq!(Message::decode(&wire), Err(DecodeError::Truncated(0x8022)));
}

#[test]
fn what_does_not_fit_is_left_out() {
    let huge = vec![Attribute::Padding(65_000), Attribute::Padding(65_000), Attribute::ResponsePort(1)];
    let wire = Message { fingerprint: true, ..message(Class::Request, huge) }.to_vec();
    let expected = vec![Attribute::Padding(65_000), Attribute::ResponsePort(1)];
    assert_eq!(Message::decode(&wire).unwrap().attributes, expected);
    let long = message(Class::Request, vec![Attribute::Software("ä".repeat(400))]).to_vec();
    assert_eq!(Message::decode(&long).unwrap().attributes, [Attribute::Software("ä".repeat(381))]);
}

fn attributes() -> impl Strategy<Value = Attribute> {
    let known = |kind: &u16| {
        !matches!(kind, 1 | 3 | 9 | 10 | 0x20 | 0x26 | 0x27 | 0x8020 | 0x8022 | 0x8028 | 0x802b | 0x802c)
    };
    prop_oneof![
        any::<SocketAddr>().prop_map(|a| Attribute::MappedAddress(plain(a))),
        any::<SocketAddr>().prop_map(|a| Attribute::XorMappedAddress(plain(a))),
        any::<SocketAddr>().prop_map(|a| Attribute::ResponseOrigin(plain(a))),
        any::<SocketAddr>().prop_map(|a| Attribute::OtherAddress(plain(a))),
        any::<(bool, bool)>().prop_map(|(ip, port)| Attribute::ChangeRequest { ip, port }),
        any::<u16>().prop_map(Attribute::ResponsePort),
        (0u16..200).prop_map(Attribute::Padding),
        "\\PC{0,40}".prop_map(Attribute::Software),
        (300u16..700, "\\PC{0,40}").prop_map(|(code, reason)| Attribute::ErrorCode { code, reason }),
        prop::collection::vec(any::<u16>(), 0..20).prop_map(Attribute::UnknownAttributes),
        (any::<u16>().prop_filter("has a name", known), prop::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(kind, value)| Attribute::Unknown { kind, value }),
    ]
}

/// Flow label and scope do not travel.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

prop_compose! {
    fn messages()(
        class in prop_oneof![Just(Class::Request), Just(Class::Indication), Just(Class::Success), Just(Class::Error)],
        method in 0u16..0x1000,
        id in any::<[u8; 12]>(),
        attributes in prop::collection::vec(attributes(), 0..8),
        fingerprint in any::<bool>(),
    ) -> Message {
        Message { class, method: Method(method), id: TransactionId(id), attributes, fingerprint }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in messages()) {
        let wire = message.to_vec();
        prop_assert!(is_stun(&wire));
        prop_assert_eq!(Message::decode(&wire), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(input in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = is_stun(&input);
        prop_assert!(Message::decode(&input).is_err() || is_stun(&input));
    }

    #[test]
    fn arbitrary_attributes_behind_a_good_header(body in prop::collection::vec(any::<u8>(), 0..600)) {
        let body = &body[..body.len() / 4 * 4];
        let mut wire = Message::binding_request(ID).to_vec();
        wire[2..4].copy_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        wire.extend_from_slice(body);
        if let Ok(message) = Message::decode(&wire) {
            prop_assert_eq!(Message::decode(&message.to_vec()), Ok(message));
        }
    }

    #[test]
    fn an_altered_byte_never_passes_the_fingerprint(message in messages(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut wire = Message { fingerprint: true, ..message }.to_vec();
        let at = at.index(wire.len());
        wire[at] ^= 1u8 << bit;
        match Message::decode(&wire) {
            Err(_) => {}
            // The type of the fingerprint itself was hit, and no fingerprint is left to check.
            Ok(read) => prop_assert!(!read.fingerprint),
        }
    }
}
