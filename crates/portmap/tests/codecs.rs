//! Messages against the figures of their RFCs, byte for byte, and there and back.

use portmap::natpmp::{self, Body};
use portmap::pcp::{self, Map, Op, Opt, Peer};
use portmap::upnp::http::{self, HttpError};
use portmap::upnp::soap::{Action, Fault};
use portmap::upnp::ssdp::{Found, Search};
use portmap::upnp::{IgdVersion, description};
use portmap::{Proto, is_public};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).expect("hexadecimal"))
        .collect()
}

// ---- RFC 6886 --------------------------------------------------------------------------------------

#[test]
fn natpmp_section_3_2_asks_for_the_external_address() {
    let request = natpmp::Request::ExternalAddress;
    assert_eq!(request.to_vec(), hex("00 00"));
    assert_eq!(natpmp::Request::decode(&hex("00 00")), Ok(request));
    let response =
        natpmp::Response { epoch: 0x0102_0304, body: Body::ExternalAddress([203, 0, 113, 7].into()) };
    let bytes = hex("00 80 0000 01020304 cb007107");
    assert_eq!(response.to_vec(), bytes);
    assert_eq!(natpmp::Response::decode(&bytes), Ok(response));
}

#[test]
fn natpmp_section_3_3_maps() {
    let request =
        natpmp::Request::Map { proto: Proto::Tcp, internal: 0x1234, external: 0x5678, lifetime: 7200 };
    let bytes = hex("00 02 0000 1234 5678 00001c20");
    assert_eq!(request.to_vec(), bytes);
    assert_eq!(natpmp::Request::decode(&bytes), Ok(request));
    let body = Body::Map { proto: Proto::Udp, internal: 0x1234, external: 0x5679, lifetime: 3600 };
    let response = natpmp::Response { epoch: 9, body };
    let bytes = hex("00 81 0000 00000009 1234 5679 00000e10");
    assert_eq!(response.to_vec(), bytes);
    assert_eq!(natpmp::Response::decode(&bytes), Ok(response));
}

#[test]
fn natpmp_section_3_5_refuses() {
    let refused =
        |opcode, internal, why| natpmp::Response { epoch: 1, body: Body::Refused { opcode, internal, why } };
    let cases = [
        (refused(0, None, natpmp::Refusal::NetworkFailure), "00 80 0003 00000001 00000000"),
        (refused(1, Some(7), natpmp::Refusal::NotAuthorized), "00 81 0002 00000001 0007 0000 00000000"),
        (refused(5, None, natpmp::Refusal::UnsupportedOpcode), "00 85 0005 00000001"),
        (refused(0, None, natpmp::Refusal::UnsupportedVersion), "00 80 0001 00000001"),
    ];
    for (response, bytes) in cases {
        assert_eq!(response.to_vec(), hex(bytes));
        assert_eq!(natpmp::Response::decode(&hex(bytes)), Ok(response));
    }
}

#[test]
fn natpmp_says_what_is_wrong() {
    use natpmp::DecodeError::{Opcode, TooShort, Version};
    assert_eq!(natpmp::Request::decode(&hex("00")), Err(TooShort(1)));
    assert_eq!(natpmp::Request::decode(&hex("00 01 0000")), Err(TooShort(4)));
    assert_eq!(natpmp::Request::decode(&hex("02 01")), Err(Version(2, 1)));
    assert_eq!(natpmp::Request::decode(&hex("00 03")), Err(Opcode(3)));
    assert_eq!(natpmp::Response::decode(&hex("00 00")), Err(Opcode(0)));
    assert_eq!(natpmp::Response::decode(&hex("00 80 0000 00000001")), Err(TooShort(8)));
}

// ---- RFC 6887 --------------------------------------------------------------------------------------

const NONCE: pcp::Nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const NONCE_HEX: &str = "0102030405060708090a0b0c";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn pcp_section_11_1_map_request() {
    let map = Map { nonce: NONCE, protocol: 17, internal_port: 0x1234, external: addr("0.0.0.0:22136") };
    let request = pcp::Request {
        lifetime: 7200,
        client: "192.168.1.2".parse().unwrap(),
        op: Op::Map(map),
        options: vec![Opt::PreferFailure],
    };
    let bytes = hex(&format!(
        "02 01 0000 00001c20 00000000000000000000ffffc0a80102
         {NONCE_HEX} 11 000000 1234 5678 00000000000000000000ffff00000000
         02 00 0000"
    ));
    assert_eq!(request.to_vec(), bytes);
    assert_eq!(pcp::Request::decode(&bytes), Ok(request));
}

#[test]
fn pcp_section_7_2_and_11_1_map_response() {
    let map = Map { nonce: NONCE, protocol: 6, internal_port: 80, external: addr("203.0.113.7:8080") };
    let response =
        pcp::Response { refused: None, lifetime: 3600, epoch: 77, op: Some(Op::Map(map)), options: vec![] };
    let bytes = hex(&format!(
        "02 81 00 00 00000e10 0000004d 000000000000000000000000
         {NONCE_HEX} 06 000000 0050 1f90 00000000000000000000ffffcb007107"
    ));
    assert_eq!(response.to_vec(), bytes);
    assert_eq!(pcp::Response::decode(&bytes), Ok(response));
}

#[test]
fn pcp_section_12_1_peer_and_13_options() {
    let map = Map { nonce: NONCE, protocol: 17, internal_port: 9, external: addr("[::]:0") };
    let request = pcp::Request {
        lifetime: 600,
        client: "2001:db8::2".parse().unwrap(),
        op: Op::Peer(Peer { map, remote: addr("[2001:db8::9]:443") }),
        options: vec![
            Opt::ThirdParty("192.168.1.3".parse().unwrap()),
            Opt::Filter { prefix: 128, remote: addr("198.51.100.1:53") },
            Opt::Unknown { code: 200, data: vec![1, 2, 3] },
        ],
    };
    let bytes = hex(&format!(
        "02 02 0000 00000258 20010db8000000000000000000000002
         {NONCE_HEX} 11 000000 0009 0000 00000000000000000000000000000000
         01bb 0000 20010db8000000000000000000000009
         01 00 0010 00000000000000000000ffffc0a80103
         03 00 0014 00 80 0035 00000000000000000000ffffc6336401
         c8 00 0003 010203 00"
    ));
    assert_eq!(request.to_vec(), bytes);
    assert_eq!(pcp::Request::decode(&bytes), Ok(request));
}

#[test]
fn pcp_section_14_1_announce() {
    let op = Some(Op::Announce);
    let response = pcp::Response { refused: None, lifetime: 0, epoch: 3, op, options: vec![] };
    let bytes = hex("02 80 00 00 00000000 00000003 000000000000000000000000");
    assert_eq!(response.to_vec(), bytes);
    assert_eq!(pcp::Response::decode(&bytes), Ok(response));
}

#[test]
fn pcp_section_8_2_checks_in_order() {
    use pcp::DecodeError::{Ignore, Refuse};
    use pcp::Refusal;
    let whole = pcp::Request {
        lifetime: 1,
        client: "192.168.1.2".parse().unwrap(),
        op: Op::Announce,
        options: vec![],
    }
    .to_vec();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        pcp::Request::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(&|b| b.truncate(1)), Ignore);
    assert_eq!(with(&|b| b[1] |= 128), Ignore, "a response");
    assert_eq!(with(&|b| b[0] = 1), Refuse(Refusal::UnsuppVersion));
    assert_eq!(with(&|b| b.truncate(20)), Refuse(Refusal::MalformedRequest));
    assert_eq!(with(&|b| b.push(0)), Refuse(Refusal::MalformedRequest));
    assert_eq!(with(&|b| b.resize(1104, 0)), Refuse(Refusal::MalformedRequest));
    assert_eq!(with(&|b| b[1] = 9), Refuse(Refusal::UnsuppOpcode));
    assert_eq!(with(&|b| b[1] = 1), Refuse(Refusal::MalformedRequest), "a MAP without its payload");
    assert_eq!(with(&|b| b.extend([2, 0, 0, 8])), Refuse(Refusal::MalformedOption));
    assert_eq!(with(&|b| b.extend([2, 0, 0, 4, 0, 0, 0, 0])), Refuse(Refusal::MalformedOption));
}

#[test]
fn pcp_section_8_2_a_refusal_repeats_the_request() {
    let request = hex("02 09 0000 00000258 00000000000000000000ffffc0a80102 aabbccdd");
    let bytes = pcp::refuse(&request, pcp::Refusal::UnsuppOpcode, 5);
    assert_eq!(bytes, hex("02 89 00 04 00000708 00000005 000000000000000000000000 aabbccdd"));
    let response = pcp::Response::decode(&bytes).unwrap();
    assert_eq!((response.refused, response.op), (Some(pcp::Refusal::UnsuppOpcode), None));
}

// ---- UPnP ------------------------------------------------------------------------------------------

#[test]
fn a_search_and_its_answer() {
    let search = Search { target: IgdVersion::V1.device(), mx: 2 };
    let text = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\n\
                ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
    assert_eq!(String::from_utf8(search.to_vec()).unwrap(), text);
    assert_eq!(Search::decode(text.as_bytes()).as_ref(), Some(&search));
    assert!(search.wants(&IgdVersion::V1.device()) && search.wants(&IgdVersion::V2.device()));
    assert!(!search.wants(&IgdVersion::V2.connection()));
    let later = Search { target: IgdVersion::V2.device(), mx: 1 };
    assert!(!later.wants(&IgdVersion::V1.device()), "an older device does not stand for a newer one");

    let found = Found {
        location: "http://192.168.1.1:5000/rootDesc.xml".into(),
        target: IgdVersion::V2.device(),
        usn: "uuid:1::urn:x".into(),
        boot: 7,
    };
    assert_eq!(Found::decode(&found.to_vec()).as_ref(), Some(&found));
    assert_eq!(Found::decode_notify(&found.to_notify()).as_ref(), Some(&found));
    assert_eq!(Found::decode(&found.to_notify()), None);
    assert_eq!(Found::decode_notify(&search.to_vec()), None);
}

#[test]
fn other_peoples_answers_to_a_search_are_read() {
    let text = "HTTP/1.1 200 OK\r\nst:upnp:rootdevice\r\nUSN:uuid:a::upnp:rootdevice\r\nEXT:\r\n\
                Location:   http://10.0.0.1:49152/gatedesc.xml  \r\n\r\n";
    let found = Found::decode(text.as_bytes()).unwrap();
    assert_eq!((found.location.as_str(), found.boot), ("http://10.0.0.1:49152/gatedesc.xml", 0));
    assert_eq!(Found::decode(b"HTTP/1.1 200 OK\r\nST: x\r\nUSN: y\r\n\r\n"), None, "no location");
}

#[test]
fn our_descriptions_name_the_services() {
    for (version, services) in [(IgdVersion::V1, 1), (IgdVersion::V2, 2)] {
        let found = description::services(description::device(version, "4d6e-<&>").as_bytes());
        assert_eq!(found.len(), services);
        assert_eq!(found[0].kind, version.connection());
        assert_eq!(found[0].control, description::CONNECTION_CONTROL);
        let actions = description::connection(version);
        assert_eq!(actions.contains("AddAnyPortMapping"), version == IgdVersion::V2);
    }
}

#[test]
fn a_description_of_another_shape_is_read() {
    let text = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><serviceList>
        <service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/l3</controlURL></service>
        <service><serviceType> urn:schemas-upnp-org:service:WANPPPConnection:1 </serviceType>
        <controlURL>http://192.168.1.1:80/ppp</controlURL></service></serviceList></device></root>"#;
    let found = description::services(text.as_bytes());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].control, "http://192.168.1.1:80/ppp");
    assert!(description::services(b"<root>").is_empty());
}

#[test]
fn actions_and_faults_there_and_back() {
    let kind = IgdVersion::V1.connection();
    let action = Action::new(
        kind.as_str(),
        "AddPortMapping",
        &[("NewRemoteHost", String::new()), ("NewPortMappingDescription", "a<b> & \"c\"".into())],
    );
    assert_eq!(Action::decode(action.to_request().as_bytes()).as_ref(), Some(&action));
    assert_eq!(action.header(), "\"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\"");
    let response = Action::decode(action.to_response().as_bytes()).unwrap();
    assert_eq!(response.name, "AddPortMappingResponse");
    let fault = Fault::of(718);
    assert_eq!(fault.text, "ConflictInMappingEntry");
    assert_eq!(Fault::decode(fault.to_body().as_bytes()).as_ref(), Some(&fault));
    assert_eq!(Fault::decode(action.to_response().as_bytes()), None);
}

#[test]
fn http_is_bounded() {
    let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(http::MAX_HEAD));
    assert_eq!(http::Request::read(long.as_bytes()).unwrap_err(), HttpError::TooLong);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert_eq!(http::Request::read(many.as_bytes()).unwrap_err(), HttpError::TooLong);
    let big = b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n";
    assert_eq!(http::Request::read(big).unwrap_err(), HttpError::TooLong);
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(http::Response::read(chunked, false).unwrap_err(), HttpError::TransferCoding);
    assert_eq!(http::Request::read(b"\0\0\0").unwrap_err(), HttpError::Malformed);
    assert_eq!(http::Request::read(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab").unwrap(), None);
}

#[test]
fn http_bodies_end_by_length_or_with_the_stream() {
    let by_length = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokmore";
    assert_eq!(http::Response::read(by_length, false).unwrap().unwrap().body, b"ok");
    let by_end = b"HTTP/1.0 200 OK\r\n\r\nall";
    assert_eq!(http::Response::read(by_end, false).unwrap(), None);
    assert_eq!(http::Response::read(by_end, true).unwrap().unwrap().body, b"all");
    assert_eq!(http::Response::read(&by_length[..37], true).unwrap_err(), HttpError::Malformed, "cut off");
}

#[test]
fn public_is_what_the_internet_routes() {
    let public = ["203.0.113.7", "8.8.8.8", "2001:db8::1"];
    let not = [
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.1.1",
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "fd00::1",
        "fe80::1",
        "::",
        "::1",
        "ff02::1",
        "::ffff:10.0.0.1",
    ];
    for (list, expected) in [(&public[..], true), (&not[..], false)] {
        for text in list {
            assert_eq!(is_public(text.parse().unwrap()), expected, "{text}");
        }
    }
}

// ---- anything --------------------------------------------------------------------------------------

fn ips() -> impl Strategy<Value = IpAddr> {
    // An IPv4-mapped IPv6 address is the IPv4 address on this wire.
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|b| IpAddr::from(b).to_canonical())
    ]
}

fn endpoints() -> impl Strategy<Value = SocketAddr> {
    (ips(), any::<u16>()).prop_map(SocketAddr::from)
}

fn ops() -> impl Strategy<Value = Op> {
    let map = (any::<[u8; 12]>(), any::<u8>(), any::<u16>(), endpoints());
    let map = map
        .prop_map(|(nonce, protocol, internal_port, external)| Map {
            nonce,
            protocol,
            internal_port,
            external,
        })
        .boxed();
    prop_oneof![
        Just(Op::Announce),
        map.clone().prop_map(Op::Map),
        (map, endpoints()).prop_map(|(map, remote)| Op::Peer(Peer { map, remote })),
    ]
}

fn options() -> impl Strategy<Value = Vec<Opt>> {
    let option = prop_oneof![
        ips().prop_map(Opt::ThirdParty),
        Just(Opt::PreferFailure),
        (any::<u8>(), endpoints()).prop_map(|(prefix, remote)| Opt::Filter { prefix, remote }),
        (4_u8.., proptest::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(code, data)| Opt::Unknown { code, data }),
    ];
    proptest::collection::vec(option, 0..8)
}

proptest! {
    #[test]
    fn pcp_requests_come_back(lifetime: u32, client in ips(), op in ops(), options in options()) {
        let request = pcp::Request { lifetime, client, op, options };
        prop_assert_eq!(pcp::Request::decode(&request.to_vec()), Ok(request));
    }

    #[test]
    fn pcp_responses_come_back(code in 0_u8..20, lifetime: u32, epoch: u32, op in ops(), options in options()) {
        let refused = pcp::Response::decode(&[&[2, 128, 0, code][..], &[0; 20]].concat()).unwrap().refused;
        let response = pcp::Response { refused, lifetime, epoch, op: Some(op), options };
        prop_assert_eq!(pcp::Response::decode(&response.to_vec()), Ok(response));
    }

    #[test]
    fn natpmp_comes_back(udp: bool, internal: u16, external: u16, lifetime: u32, epoch: u32) {
        let proto = if udp { Proto::Udp } else { Proto::Tcp };
        let request = natpmp::Request::Map { proto, internal, external, lifetime };
        prop_assert_eq!(natpmp::Request::decode(&request.to_vec()), Ok(request));
        let response = natpmp::Response { epoch, body: Body::Map { proto, internal, external, lifetime } };
        prop_assert_eq!(natpmp::Response::decode(&response.to_vec()), Ok(response));
    }

    #[test]
    fn arguments_come_back(value in "[ -~\u{e0}-\u{ff}]{0,40}") {
        let action = Action::new("urn:x:1", "A", &[("B", value.trim().to_owned())]);
        prop_assert_eq!(Action::decode(action.to_request().as_bytes()), Some(action));
    }

    #[test]
    fn no_decoder_fails_on_bytes(data in proptest::collection::vec(any::<u8>(), 0..1300), first in prop_oneof![Just(0_u8), Just(2), any::<u8>()]) {
        let mut data = data;
        if let Some(byte) = data.first_mut() { *byte = first }
        let _ = natpmp::Request::decode(&data);
        let _ = natpmp::Response::decode(&data);
        if let Ok(request) = pcp::Request::decode(&data) {
            prop_assert!(request.options.len() <= 275);
        }
        if let Err(pcp::DecodeError::Refuse(why)) = pcp::Request::decode(&data) {
            let refusal = pcp::refuse(&data, why, 1);
            prop_assert!(refusal.len() <= pcp::MAX_LEN && refusal.len().is_multiple_of(4));
        }
        let _ = pcp::Response::decode(&data);
        let _ = Search::decode(&data);
        let _ = Found::decode(&data);
        let _ = Found::decode_notify(&data);
        let _ = Action::decode(&data);
        let _ = Fault::decode(&data);
        let _ = description::services(&data);
        let _ = http::Request::read(&data);
        let _ = http::Response::read(&data, true);
    }

    #[test]
    fn no_reader_fails_on_text(text in "(<[a-zA-Z:/?!]{0,8}|>|/>|</|&[a-z#0-9]{0,5};|[a-z \"'=\r\n:]){0,60}") {
        let _ = Action::decode(text.as_bytes());
        let _ = Fault::decode(text.as_bytes());
        let _ = description::services(text.as_bytes());
        let _ = http::Response::read(text.as_bytes(), true);
    }
}
