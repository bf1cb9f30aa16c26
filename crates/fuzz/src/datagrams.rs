//! What comes as one datagram.

pub(crate) mod stun {
    use stun::message::{Attribute, Class, Message, TransactionId};

    pub(crate) fn run(data: &[u8]) {
        let Ok(message) = Message::decode(data) else { return };
        let mut again = Vec::new();
        message.encode(&mut again);
        if let Ok(second) = Message::decode(&again) {
            assert_eq!(second.id, message.id);
        }
        let server = stun::server::Server::new();
        let (here, from) = (([192, 0, 2, 1], 3478).into(), ([198, 51, 100, 1], 1).into());
        let _ = server.respond(here, from, data);
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let id = TransactionId([7; 12]);
        let mut request = Message::binding_request(id);
        request.fingerprint = true;
        let mut answer = Message::binding_request(id);
        answer.class = Class::Success;
        answer.attributes.push(Attribute::XorMappedAddress(([192, 0, 2, 1], 41641).into()));
        [request, answer]
            .iter()
            .map(|message| {
                let mut out = Vec::new();
                message.encode(&mut out);
                out
            })
            .collect()
    }
}

pub(crate) mod disco {
    use crypto_box::aead::Aead as _;
    use disco::{MAGIC, Message, PrivateKey, SharedKey, open, seal, source};

    const NONCE: [u8; 24] = [9; 24];

    fn shared() -> SharedKey {
        SharedKey::new(&PrivateKey::from_bytes([2; 32]), &PrivateKey::from_bytes([1; 32]).public())
    }

    pub(crate) fn run(data: &[u8]) {
        assert!(open(data, &shared()).is_err() || source(data).is_some());
        let me = PrivateKey::from_bytes([1; 32]).public();
        let theirs = crypto_box::PublicKey::from_bytes(PrivateKey::from_bytes([2; 32]).public().0);
        let sealer = crypto_box::SalsaBox::new(&theirs, &crypto_box::SecretKey::from_bytes([1; 32]));
        let Ok(body) = sealer.encrypt(&NONCE.into(), data) else { return };
        let datagram = [&MAGIC[..], &me.0, &NONCE, &body].concat();
        if let Ok(message) = open(&datagram, &shared()) {
            assert_eq!(open(&seal(&message, &me, &shared(), NONCE), &shared()), Ok(message));
        }
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let me = PrivateKey::from_bytes([1; 32]).public();
        let endpoints = vec![([192, 0, 2, 1], 41641).into()];
        let call = seal(&Message::CallMeMaybe { endpoints }, &me, &shared(), NONCE);
        // Inside the box: version 0, ping, transaction, key; then a pong; then a call (tailscale `disco/disco.go`).
        vec![
            call,
            [&[1, 0][..], &[3; 44]].concat(),
            [&[2, 0][..], &[4; 30]].concat(),
            [&[3, 0][..], &[5; 36]].concat(),
        ]
    }
}

pub(crate) mod wireguard {
    use crate::{rng, start};
    use std::time::Duration;
    use wireguard::{Device, DeviceConfig, PeerConfig, Source, public_key};

    fn device(key: u8, peer: u8) -> Device {
        let config = DeviceConfig { private_key: [key; 32], epoch: Duration::from_secs(1_700_000_000) };
        let mut device = Device::new(config, rng(), start());
        let public_key = public_key(&[peer; 32]);
        device.add_peer(PeerConfig { public_key, preshared_key: None, persistent_keepalive: None });
        device
    }

    pub(crate) fn run(data: &[u8]) {
        let now = start();
        let mut device = device(2, 1);
        let from = Source::Udp(([192, 0, 2, 1], 1).into());
        for _ in 0..2 {
            let _ = device.handle_datagram(data, from, now);
        }
        let mut answers = 0;
        while device.poll_transmit().is_some() {
            answers += 1;
        }
        assert!(answers <= 2, "{answers} answers to two datagrams");
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let mut first = device(1, 2);
        let peer = first.peer(&public_key(&[2; 32])).expect("it was added");
        first.handshake(peer, start());
        std::iter::from_fn(|| first.poll_transmit()).map(|transmit| transmit.data.to_vec()).collect()
    }
}

pub(crate) mod portmap {
    use portmap::{natpmp, pcp, upnp::ssdp};

    pub(crate) fn run(data: &[u8]) {
        let _ = natpmp::Request::decode(data);
        let _ = natpmp::Response::decode(data);
        if let Err(pcp::DecodeError::Refuse(why)) = pcp::Request::decode(data) {
            let refusal = pcp::refuse(data, why, 1);
            assert!(refusal.len() <= pcp::MAX_LEN && refusal.len().is_multiple_of(4));
        }
        let _ = pcp::Response::decode(data);
        let _ = ssdp::Search::decode(data);
        let _ = ssdp::Found::decode(data);
        let _ = ssdp::Found::decode_notify(data);
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        // NAT-PMP: external address, map UDP (RFC 6886 §3.2, §3.3). PCP: MAP with its nonce (RFC 6887 §7.1, §11.1).
        let map =
            [&[2, 1, 0, 0, 0, 0, 0x1c, 0x20][..], &[0; 10], &[0xff, 0xff, 192, 168, 1, 2], &[5; 12]].concat();
        let map = [&map[..], &[17, 0, 0, 0, 0xa2, 0xa9, 0xa2, 0xa9], &[0; 16]].concat();
        let search =
            b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\n\
                       ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
        vec![vec![0, 0], vec![0, 1, 0, 0, 0xa2, 0xa9, 0xa2, 0xa9, 0, 0, 0x1c, 0x20], map, search.to_vec()]
    }
}

pub(crate) mod pref64 {
    use pref64::{Pref64, Resolver};

    pub(crate) fn run(data: &[u8]) {
        let resolver = Resolver::new(Pref64::WELL_KNOWN);
        if let Some(answer) = resolver.respond(data) {
            let _ = resolver.respond(&answer);
        }
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        // AAAA of ipv4only.arpa (RFC 7050 §3).
        let question =
            b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08ipv4only\x04arpa\x00\x00\x1c\x00\x01";
        vec![question.to_vec()]
    }
}

pub(crate) mod packet {
    use bytes::Bytes;
    use punchbag::packet::Packet;

    pub(crate) fn run(data: &[u8]) {
        let Some(packet) = Packet::decode(&Bytes::copy_from_slice(data)) else { return };
        let mut again = Vec::new();
        packet.encode(&mut again);
        assert_eq!(Packet::decode(&again.into()).map(|second| second.dst), Some(packet.dst));
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let (src, dst) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
        let mut out = Vec::new();
        Packet::udp(src, dst, Bytes::from_static(b"hello")).encode(&mut out);
        vec![out]
    }
}
