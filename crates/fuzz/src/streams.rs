//! What comes as a stream, in pieces.

use std::net::SocketAddr;
use std::time::Instant;

/// Who speaks.
fn remote() -> SocketAddr {
    ([198, 51, 100, 1], 40_000).into()
}

/// The first byte says how the rest is cut.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (size, rest) = data.split_first().map_or((1, data), |(size, rest)| (usize::from(*size) + 1, rest));
    rest.chunks(size)
}

/// An example as one that comes whole.
fn whole(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&[255], bytes.as_ref()].concat()
}

pub(crate) mod derp_frames {
    use super::{pieces, whole};
    use derp::PublicKey;
    use derp::frame::{Decoder, Frame, HEADER_LEN, RawFrame, Role};

    pub(crate) fn run(data: &[u8]) {
        for role in [Role::Client, Role::Server] {
            let mut at_once = Decoder::new(role);
            let mut rest = data.get(1..).unwrap_or_default();
            let mut expected = Vec::new();
            let end = loop {
                match at_once.decode(&mut rest) {
                    Ok(Some(frame)) => expected.push(frame),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            let (mut decoder, mut got, mut failed) = (Decoder::new(role), Vec::new(), None);
            'all: for mut piece in pieces(data) {
                loop {
                    match decoder.decode(&mut piece) {
                        Ok(Some(frame)) => got.push(frame),
                        Ok(None) => break,
                        Err(error) => {
                            failed = Some(error);
                            break 'all;
                        }
                    }
                }
            }
            assert_eq!((&got, failed), (&expected, end), "in pieces and at once");
            got.iter().for_each(same_again);
        }
    }

    /// A frame that is understood means the same once more.
    fn same_again(raw: &RawFrame) {
        let Ok(frame) = raw.parse() else { return };
        let mut out = bytes::BytesMut::new();
        if frame.encode(&mut out).is_ok() {
            assert_eq!(Frame::parse(frame.kind(), &out[HEADER_LEN..]), Ok(frame));
        }
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let key = PublicKey([3; 32]);
        let frames = [
            Frame::KeepAlive,
            Frame::SendPacket { dst: key, packet: b"packet" },
            Frame::RecvPacket { src: key, packet: b"packet" },
            Frame::NotePreferred(true),
            Frame::Ping([1; 8]),
            Frame::Pong([1; 8]),
            Frame::Health(b"slow"),
        ];
        let mut out = bytes::BytesMut::new();
        for frame in frames {
            frame.encode(&mut out).expect("small frames");
        }
        vec![whole(out)]
    }
}

pub(crate) mod derp_server {
    use super::{pieces, remote, whole};
    use crate::{rng, start};
    use derp::{Client, ClientConfig, ConnId, PrivateKey, Server, ServerConfig};
    use std::time::Duration;

    pub(crate) fn run(data: &[u8]) {
        let now = start();
        let mut server = Server::new(ServerConfig::default(), PrivateKey::from_bytes([2; 32]), rng(), now);
        let conn = ConnId(1);
        server.accepted(conn, remote(), now);
        server.writable(conn, 1 << 16, now);
        for piece in pieces(data) {
            server.handle_stream(conn, piece, now);
        }
        let mut written = 0;
        while let Some(transmit) = server.poll_transmit() {
            if let derp::ServerTransmit::Write { data, .. } = transmit {
                written += data.len();
            }
        }
        assert!(written <= 1 << 16, "{written} bytes into 64 KiB");
        while server.poll_event().is_some() {}
        server.handle_timeout(now + Duration::from_secs(60));
        server.closed(conn, now + Duration::from_secs(61));
        assert_eq!(server.connections(), 0);
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for (web_socket, fast_start) in [(false, false), (false, true), (true, false)] {
            let key = PrivateKey::from_bytes([1; 32]);
            let server_key = Some(PrivateKey::from_bytes([2; 32]).public());
            let config = ClientConfig {
                web_socket,
                fast_start,
                server_key,
                ..ClientConfig::new(key, "relay.example")
            };
            let mut client = Client::new(config, rng(), start());
            client.connected(start());
            all.push(whole(
                std::iter::from_fn(|| client.poll_transmit(1 << 16)).collect::<Vec<_>>().concat(),
            ));
        }
        for path in ["/derp/probe", "/derp/latency-check", "/generate_204"] {
            all.push(whole(format!(
                "GET {path} HTTP/1.1\r\nHost: relay.example\r\nX-Tailscale-Challenge: abc\r\n\r\n"
            )));
        }
        all
    }
}

pub(crate) mod derp_client {
    use super::{pieces, whole};
    use crate::{rng, start};
    use derp::{Client, ClientConfig, PrivateKey};

    pub(crate) fn run(data: &[u8]) {
        let now = start();
        let mut client =
            Client::new(ClientConfig::new(PrivateKey::from_bytes([1; 32]), "relay.example"), rng(), now);
        client.connected(now);
        for piece in pieces(data) {
            if client.handle_stream(piece, now).is_err() {
                break;
            }
        }
        while client.poll_transmit(1 << 16).is_some() {}
        while client.poll_event().is_some() {}
        assert!(!client.is_ready(), "nobody can have sealed a ServerInfo for this client");
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n";
        // ServerKey (0x01): magic and key (tailscale `derp/derp.go`).
        let greeting = [&[1, 0, 0, 0, 40][..], "DERP🔑".as_bytes(), &[2; 32]].concat();
        vec![whole([&upgrade[..], &greeting].concat()), whole(upgrade)]
    }
}

pub(crate) mod coord_server {
    use super::{pieces, remote, whole};
    use crate::{rng, start};
    use coord::client::{Client, ClientConfig};
    use coord::server::{ConnId, Server, ServerConfig};

    pub(super) const KEY: [u8; 32] = [2; 32];

    pub(crate) fn run(data: &[u8]) {
        let now = start();
        let mut server = Server::new(ServerConfig::new(KEY, Vec::new()), rng(), now);
        server.accepted(ConnId(1), remote(), now);
        server.writable(ConnId(1), 1 << 16, now);
        for piece in pieces(data) {
            server.handle_stream(ConnId(1), piece, now);
        }
        while server.poll_transmit().is_some() {}
        while server.poll_event().is_some() {}
        server.closed(ConnId(1), now);
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let mut client = client();
        client.connected(start());
        vec![
            whole(std::iter::from_fn(|| client.poll_transmit(1 << 16)).collect::<Vec<_>>().concat()),
            whole(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", coord::HEALTH)),
        ]
    }

    pub(super) fn client() -> Client {
        let server_key = coord::public_key(&KEY);
        let (name, machine_key) = ("takkie".to_owned(), [1; 32]);
        let config = ClientConfig {
            machine_key,
            server_key,
            name,
            node_key: coord::KeyPair::new([3; 32]),
            disco_key: coord::KeyPair::new([4; 32]),
            host: "coord".into(),
            auth_key: Some("pbkey-1-00".into()),
        };
        Client::new(config, rng(), start())
    }
}

pub(crate) mod coord_client {
    use super::{pieces, whole};
    use crate::start;

    pub(crate) fn run(data: &[u8]) {
        let now = start();
        let mut client = super::coord_server::client();
        client.connected(now);
        for piece in pieces(data) {
            if client.handle_stream(piece, now).is_err() {
                break;
            }
        }
        assert!(!client.is_registered(), "nobody but the server can have answered");
        let _ = serde_json::from_slice::<coord::wire::ToServer>(data);
        let _ = serde_json::from_slice::<coord::wire::ToClient>(data);
        let _ = serde_json::from_slice::<coord::Access>(data);
        let _ = coord::Map::from_saved(data);
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let switch = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        vec![whole(switch), whole([&switch[..], &[0, 48], &[7; 48]].concat())]
    }
}

pub(crate) mod proxy {
    use super::{Instant, pieces, remote, whole};
    use crate::start;
    use proxy::{ConnId, Connect, Server, ServerConfig};

    pub(crate) fn run(data: &[u8]) {
        let now: Instant = start();
        let mut server = Server::new(ServerConfig::default());
        server.accepted(ConnId(0), remote(), now);
        server.writable(ConnId(0), 1 << 12);
        let mut connect = Connect::new(remote(), None);
        let mut waiting = true;
        for piece in pieces(data) {
            server.handle_stream(ConnId(0), piece, now);
            waiting = waiting && matches!(connect.handle(piece), Ok(None));
        }
        while server.poll_transmit().is_some() {}
        while server.poll_event().is_some() {}
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        vec![
            whole(Connect::new(remote(), None).request()),
            whole(b"HTTP/1.1 200 Connection established\r\n\r\nmore"),
        ]
    }
}

pub(crate) mod tls {
    use super::{pieces, whole};
    use crate::{rng, start};
    use std::sync::LazyLock;
    use std::time::Duration;
    use tls::{ClientConfig, Clock, Identity, ServerConfig, Tls};

    /// Seconds between 1970 and a day on which the certificate is good.
    const DAY: Duration = Duration::from_secs(1_700_000_000);

    static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
        Identity::self_signed([1; 32], &["relay.example"], Duration::ZERO, 2 * DAY)
            .expect("a name and two dates")
    });

    fn ends() -> [Tls; 2] {
        let now = start();
        let clock = || Clock::new(DAY, now);
        let config = ClientConfig::pinned(IDENTITY.pin());
        let client = Tls::client(&config, "relay.example", rng(), clock(), now).expect("a name");
        let config = ServerConfig::new(&IDENTITY).expect("an identity");
        [client, Tls::server(&config, rng(), clock()).expect("a server")]
    }

    pub(crate) fn run(data: &[u8]) {
        for mut end in ends() {
            for piece in pieces(data) {
                if end.feed_wire(piece, start()).is_err() {
                    break;
                }
            }
            assert_eq!(end.poll_plain(), None, "nobody can have sealed anything");
            while end.poll_wire(1 << 14).is_some() {}
        }
    }

    pub(crate) fn examples() -> Vec<Vec<u8>> {
        let [mut client, mut server] = ends();
        let hello = client.poll_wire(1 << 14).expect("a hello");
        server.feed_wire(&hello, start()).expect("a good hello");
        vec![whole(hello), whole(server.poll_wire(1 << 14).expect("an answer"))]
    }
}
