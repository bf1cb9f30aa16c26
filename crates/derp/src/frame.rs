//! Frames: `type u8 | length u32 big-endian | payload` (tailscale `derp/derp.go`).

use bytes::{BufMut, Bytes, BytesMut};
use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::keys::{NONCE_LEN, PublicKey};

pub use crate::decoder::{Decoder, Role};

/// Version of the protocol spoken here (`ProtocolVersion`, tailscale `derp/derp.go`).
pub const PROTOCOL_VERSION: u64 = 2;
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 5;
/// Longest packet that is relayed, in bytes (`MaxPacketSize`, tailscale `derp/derp.go`).
pub const MAX_PACKET: usize = 64 << 10;
/// Longest frame a client accepts, in bytes of payload (tailscale `derp/derp_client.go`).
pub const MAX_CLIENT_FRAME: usize = 1 << 20;
/// Longest ClientInfo a server accepts, in bytes of payload (tailscale `derp/derpserver/derpserver.go`).
pub const MAX_CLIENT_INFO: usize = 256 << 10;
/// Longest ping a server accepts, in bytes of payload; eight are echoed (tailscale `derp/derpserver/derpserver.go`).
pub const MAX_PING: usize = 1000;

const KEY_LEN: usize = 32;
/// `DERP🔑` (`Magic`, tailscale `derp/derp.go`).
const MAGIC: [u8; 8] = [0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91];

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header announces more payload than this side takes.
    #[error("frame type {kind:#04x} announces {len} bytes, more than {max}")]
    TooLong {
        /// Type byte.
        kind: u8,
        /// Bytes announced.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The payload is shorter than the fixed part of its type.
    #[error("{kind:?} frame of {len} bytes is too short")]
    TooShort {
        /// Frame type.
        kind: FrameType,
        /// Bytes of payload.
        len: usize,
    },
    /// A ServerKey frame without the protocol's magic: not a DERP server.
    #[error("server key frame without the DERP magic")]
    BadMagic,
}

/// Type byte of a frame.
#[expect(missing_docs, reason = "each is documented at its `Frame`")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FrameType {
    ServerKey = 0x01,
    ClientInfo = 0x02,
    ServerInfo = 0x03,
    SendPacket = 0x04,
    RecvPacket = 0x05,
    KeepAlive = 0x06,
    NotePreferred = 0x07,
    PeerGone = 0x08,
    PeerPresent = 0x09,
    ForwardPacket = 0x0a,
    WatchConns = 0x10,
    ClosePeer = 0x11,
    Ping = 0x12,
    Pong = 0x13,
    Health = 0x14,
    Restarting = 0x15,
}

impl FrameType {
    const ALL: [Self; 16] = [
        Self::ServerKey,
        Self::ClientInfo,
        Self::ServerInfo,
        Self::SendPacket,
        Self::RecvPacket,
        Self::KeepAlive,
        Self::NotePreferred,
        Self::PeerGone,
        Self::PeerPresent,
        Self::ForwardPacket,
        Self::WatchConns,
        Self::ClosePeer,
        Self::Ping,
        Self::Pong,
        Self::Health,
        Self::Restarting,
    ];

    /// The type with this byte, if it is known.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|t| *t as u8 == byte)
    }
}

/// Why a peer cannot be reached through this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneReason {
    /// It was connected here and left (0x00; also what a frame without the reason byte means).
    Disconnected,
    /// It is not connected here (0x01).
    NotHere,
    /// Some other reason.
    Other(u8),
}

impl GoneReason {
    fn byte(self) -> u8 {
        match self {
            Self::Disconnected => 0,
            Self::NotHere => 1,
            Self::Other(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }
}

/// A frame, borrowing its variable part. C>S is client to server, S>C the other way; M is between the servers of a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// S>C, first frame of a connection.
    ServerKey {
        /// Key the client seals its answer for.
        key: PublicKey,
    },
    /// C>S, the answer: JSON in a box, which proves that the client owns `key`.
    ClientInfo {
        /// The client's name on this relay.
        key: PublicKey,
        /// Nonce of the box.
        nonce: [u8; NONCE_LEN],
        /// The box.
        sealed: &'a [u8],
    },
    /// S>C, ends the handshake: JSON in a box, which proves that the server owns its key.
    ServerInfo {
        /// Nonce of the box.
        nonce: [u8; NONCE_LEN],
        /// The box.
        sealed: &'a [u8],
    },
    /// C>S: deliver to `dst`.
    SendPacket {
        /// Receiver.
        dst: PublicKey,
        /// Up to [`MAX_PACKET`] bytes.
        packet: &'a [u8],
    },
    /// S>C: delivered from `src`.
    RecvPacket {
        /// Sender.
        src: PublicKey,
        /// Up to [`MAX_PACKET`] bytes.
        packet: &'a [u8],
    },
    /// S>C, once a minute.
    KeepAlive,
    /// C>S: whether this relay is the client's home.
    NotePreferred(bool),
    /// S>C: a peer cannot be reached here.
    PeerGone {
        /// The peer.
        key: PublicKey,
        /// Why.
        reason: GoneReason,
    },
    /// S>C to mesh servers: a client is connected.
    PeerPresent {
        /// The client.
        key: PublicKey,
        /// Where it connects from, if told.
        addr: Option<SocketAddr>,
        /// 1 regular, 2 mesh server, 4 prober, 8 not its ideal server; 0 if not told.
        flags: u8,
    },
    /// M: a packet that came in at another server.
    ForwardPacket {
        /// Sender.
        src: PublicKey,
        /// Receiver.
        dst: PublicKey,
        /// Up to [`MAX_PACKET`] bytes.
        packet: &'a [u8],
    },
    /// M: send me `PeerPresent` and `PeerGone` for all.
    WatchConns,
    /// M: close this client's connections.
    ClosePeer {
        /// The client.
        key: PublicKey,
    },
    /// Both ways: answer with the same eight bytes.
    Ping([u8; 8]),
    /// Both ways: the answer.
    Pong([u8; 8]),
    /// S>C: what is wrong with this connection, in words (UTF-8 by custom); empty when it is well again.
    Health(&'a [u8]),
    /// S>C: the server is about to restart. Durations in whole milliseconds.
    Restarting {
        /// Wait this long before the next attempt.
        reconnect_in: Duration,
        /// Keep trying for this long.
        try_for: Duration,
    },
}

fn split_key(bytes: &[u8]) -> Option<(PublicKey, &[u8])> {
    let (key, rest) = bytes.split_first_chunk::<KEY_LEN>()?;
    Some((PublicKey(*key), rest))
}

fn split_socket(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest) = bytes.split_first_chunk::<16>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let ip = Ipv6Addr::from(*ip).to_canonical();
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl<'a> Frame<'a> {
    /// Reads the payload of a frame of type `kind`. Bytes after the known part are ignored: later versions may add some.
    pub fn parse(kind: FrameType, payload: &'a [u8]) -> Result<Self, FrameError> {
        let short = FrameError::TooShort { kind, len: payload.len() };
        if kind == FrameType::ServerKey && payload.len() >= MAGIC.len() && !payload.starts_with(&MAGIC) {
            return Err(FrameError::BadMagic);
        }
        Self::parse_inner(kind, payload).ok_or(short)
    }

    fn parse_inner(kind: FrameType, p: &'a [u8]) -> Option<Self> {
        Some(match kind {
            FrameType::ServerKey => Frame::ServerKey { key: split_key(p.get(MAGIC.len()..)?)?.0 },
            FrameType::ClientInfo => {
                let (key, rest) = split_key(p)?;
                let (nonce, sealed) = rest.split_first_chunk()?;
                Frame::ClientInfo { key, nonce: *nonce, sealed }
            }
            FrameType::ServerInfo => {
                let (nonce, sealed) = p.split_first_chunk()?;
                Frame::ServerInfo { nonce: *nonce, sealed }
            }
            FrameType::SendPacket => {
                let (dst, packet) = split_key(p)?;
                Frame::SendPacket { dst, packet }
            }
            FrameType::RecvPacket => {
                let (src, packet) = split_key(p)?;
                Frame::RecvPacket { src, packet }
            }
            FrameType::KeepAlive => Frame::KeepAlive,
            FrameType::NotePreferred => Frame::NotePreferred(*p.first()? != 0),
            FrameType::PeerGone => {
                let (key, rest) = split_key(p)?;
                let reason = GoneReason::from_byte(rest.first().copied().unwrap_or(0));
                Frame::PeerGone { key, reason }
            }
            FrameType::PeerPresent => {
                let (key, rest) = split_key(p)?;
                let (addr, rest) = match split_socket(rest) {
                    Some((addr, rest)) => (Some(addr), rest),
                    None => (None, &[][..]),
                };
                let flags = rest.first().copied().unwrap_or(0);
                Frame::PeerPresent { key, addr, flags }
            }
            FrameType::ForwardPacket => {
                let (src, rest) = split_key(p)?;
                let (dst, packet) = split_key(rest)?;
                Frame::ForwardPacket { src, dst, packet }
            }
            FrameType::WatchConns => Frame::WatchConns,
            FrameType::ClosePeer => Frame::ClosePeer { key: split_key(p)?.0 },
            FrameType::Ping => Frame::Ping(*p.first_chunk()?),
            FrameType::Pong => Frame::Pong(*p.first_chunk()?),
            FrameType::Health => Frame::Health(p),
            FrameType::Restarting => {
                let (reconnect_in, rest) = p.split_first_chunk()?;
                let try_for = rest.first_chunk()?;
                Frame::Restarting {
                    reconnect_in: Duration::from_millis(u32::from_be_bytes(*reconnect_in).into()),
                    try_for: Duration::from_millis(u32::from_be_bytes(*try_for).into()),
                }
            }
        })
    }

    /// Type of this frame.
    pub fn kind(&self) -> FrameType {
        match self {
            Frame::ServerKey { .. } => FrameType::ServerKey,
            Frame::ClientInfo { .. } => FrameType::ClientInfo,
            Frame::ServerInfo { .. } => FrameType::ServerInfo,
            Frame::SendPacket { .. } => FrameType::SendPacket,
            Frame::RecvPacket { .. } => FrameType::RecvPacket,
            Frame::KeepAlive => FrameType::KeepAlive,
            Frame::NotePreferred(_) => FrameType::NotePreferred,
            Frame::PeerGone { .. } => FrameType::PeerGone,
            Frame::PeerPresent { .. } => FrameType::PeerPresent,
            Frame::ForwardPacket { .. } => FrameType::ForwardPacket,
            Frame::WatchConns => FrameType::WatchConns,
            Frame::ClosePeer { .. } => FrameType::ClosePeer,
            Frame::Ping(_) => FrameType::Ping,
            Frame::Pong(_) => FrameType::Pong,
            Frame::Health(_) => FrameType::Health,
            Frame::Restarting { .. } => FrameType::Restarting,
        }
    }

    fn payload_len(&self) -> usize {
        match self {
            Frame::ServerKey { .. } => MAGIC.len() + KEY_LEN,
            Frame::ClientInfo { sealed, .. } => KEY_LEN + NONCE_LEN + sealed.len(),
            Frame::ServerInfo { sealed, .. } => NONCE_LEN + sealed.len(),
            Frame::SendPacket { packet, .. } | Frame::RecvPacket { packet, .. } => KEY_LEN + packet.len(),
            Frame::KeepAlive | Frame::WatchConns => 0,
            Frame::NotePreferred(_) => 1,
            Frame::PeerGone { .. } => KEY_LEN + 1,
            // Without an address there is no room for flags either.
            Frame::PeerPresent { addr: None, .. } => KEY_LEN,
            Frame::PeerPresent { .. } => KEY_LEN + 16 + 2 + 1,
            Frame::ForwardPacket { packet, .. } => 2 * KEY_LEN + packet.len(),
            Frame::ClosePeer { .. } => KEY_LEN,
            Frame::Ping(_) | Frame::Pong(_) => 8,
            Frame::Health(text) => text.len(),
            Frame::Restarting { .. } => 8,
        }
    }

    /// Bytes of the whole frame on the wire.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.payload_len()
    }

    /// Appends the frame to `out`. Fails, writing nothing, if no receiver would take it: it is longer than
    /// [`MAX_CLIENT_FRAME`], or its packet than [`MAX_PACKET`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        let (len, max) = match self {
            Frame::SendPacket { packet, .. }
            | Frame::RecvPacket { packet, .. }
            | Frame::ForwardPacket { packet, .. } => (packet.len(), MAX_PACKET),
            Frame::ClientInfo { .. } => (self.payload_len(), MAX_CLIENT_INFO),
            _ => (self.payload_len(), MAX_CLIENT_FRAME),
        };
        if len > max {
            let kind = self.kind() as u8;
            return Err(FrameError::TooLong { kind, len, max });
        }
        self.put(out);
        Ok(())
    }

    /// [`encode`](Self::encode) for frames whose length is known to be in bounds.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        let len = self.payload_len();
        debug_assert!(len <= MAX_CLIENT_FRAME);
        out.reserve(HEADER_LEN + len);
        out.put_u8(self.kind() as u8);
        out.put_u32(len as u32);
        match self {
            Frame::ServerKey { key } => {
                out.put_slice(&MAGIC);
                out.put_slice(&key.0);
            }
            Frame::ClientInfo { key, nonce, sealed } => {
                out.put_slice(&key.0);
                out.put_slice(nonce);
                out.put_slice(sealed);
            }
            Frame::ServerInfo { nonce, sealed } => {
                out.put_slice(nonce);
                out.put_slice(sealed);
            }
            Frame::SendPacket { dst: key, packet } | Frame::RecvPacket { src: key, packet } => {
                out.put_slice(&key.0);
                out.put_slice(packet);
            }
            Frame::KeepAlive | Frame::WatchConns => {}
            Frame::NotePreferred(home) => out.put_u8((*home).into()),
            Frame::PeerGone { key, reason } => {
                out.put_slice(&key.0);
                out.put_u8(reason.byte());
            }
            Frame::PeerPresent { key, addr, flags } => {
                out.put_slice(&key.0);
                if let Some(addr) = addr {
                    let ip = match addr {
                        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
                        SocketAddr::V6(v6) => *v6.ip(),
                    };
                    out.put_slice(&ip.octets());
                    out.put_u16(addr.port());
                    out.put_u8(*flags);
                }
            }
            Frame::ForwardPacket { src, dst, packet } => {
                out.put_slice(&src.0);
                out.put_slice(&dst.0);
                out.put_slice(packet);
            }
            Frame::ClosePeer { key } => out.put_slice(&key.0),
            Frame::Ping(payload) | Frame::Pong(payload) => out.put_slice(payload),
            Frame::Health(text) => out.put_slice(text),
            Frame::Restarting { reconnect_in, try_for } => {
                out.put_u32(millis(*reconnect_in));
                out.put_u32(millis(*try_for));
            }
        }
    }
}

/// A whole frame off the wire, in one buffer of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    kind: FrameType,
    bytes: BytesMut,
}

impl RawFrame {
    /// `bytes` holds header and payload.
    pub(crate) fn new(kind: FrameType, bytes: BytesMut) -> Self {
        debug_assert!(bytes.len() >= HEADER_LEN);
        Self { kind, bytes }
    }

    /// The frame's meaning.
    pub fn parse(&self) -> Result<Frame<'_>, FrameError> {
        Frame::parse(self.kind, &self.bytes[HEADER_LEN..])
    }

    /// The packet of a parsed SendPacket or RecvPacket, without copying it.
    pub(crate) fn into_packet(self) -> Bytes {
        self.bytes.freeze().split_off(HEADER_LEN + KEY_LEN)
    }

    /// Makes a parsed SendPacket into the RecvPacket of the same packet. Both have one length and one layout, so that the
    /// bytes that came in are the bytes that go out: only the type and the key change.
    pub(crate) fn into_recv_packet(mut self, src: &PublicKey) -> Bytes {
        debug_assert_eq!(self.kind, FrameType::SendPacket);
        self.bytes[0] = FrameType::RecvPacket as u8;
        self.bytes[HEADER_LEN..HEADER_LEN + KEY_LEN].copy_from_slice(&src.0);
        self.bytes.freeze()
    }
}

impl RawFrame {
    /// Makes a parsed ForwardPacket into the RecvPacket that its receiver gets: the receiver's key is taken out.
    pub(crate) fn forward_into_recv_packet(mut self, src: &PublicKey) -> Bytes {
        debug_assert_eq!(self.kind, FrameType::ForwardPacket);
        // Header and sender move up to the packet.
        let mut frame = self.bytes.split_off(KEY_LEN);
        let len = (frame.len() - HEADER_LEN) as u32;
        frame[0] = FrameType::RecvPacket as u8;
        frame[1..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        frame[HEADER_LEN..HEADER_LEN + KEY_LEN].copy_from_slice(&src.0);
        frame.freeze()
    }
}

/// Sender and packet length of an encoded RecvPacket that this crate made.
pub(crate) fn recv_packet_parts(frame: &[u8]) -> Option<(PublicKey, usize)> {
    let (src, packet) = split_key(frame.get(HEADER_LEN..)?)?;
    Some((src, packet.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_send_packet_has_the_layout_of_the_protocol() {
        let mut out = BytesMut::new();
        let dst = PublicKey([7; 32]);
        Frame::SendPacket { dst, packet: b"ab" }.encode(&mut out).unwrap();
        assert_eq!(out[..5], [4, 0, 0, 0, 34]);
        assert_eq!(out[5..37], [7; 32]);
        assert_eq!(out[37..], *b"ab");
    }

    #[test]
    fn every_frame_has_the_number_and_the_layout_of_the_protocol() {
        let (key, other) = (PublicKey([7; 32]), PublicKey([8; 32]));
        let (nonce, keys, box_) = ([9; 24], [[7; 32], [8; 32]].concat(), b"box".as_slice());
        let ms = Duration::from_millis;
        let addr = Some("192.0.2.1:258".parse().unwrap());
        let v4 = [&[0; 10][..], &[255, 255, 192, 0, 2, 1, 1, 2, 8]].concat();
        let key_then = |rest: &[u8]| [&[7; 32], rest].concat();
        let cases: [(u8, Frame<'_>, Vec<u8>); 16] = [
            (0x01, Frame::ServerKey { key }, ["DERP🔑".as_bytes(), &[7; 32]].concat()),
            (0x02, Frame::ClientInfo { key, nonce, sealed: box_ }, key_then(&[&[9; 24], box_].concat())),
            (0x03, Frame::ServerInfo { nonce, sealed: box_ }, [&[9; 24], box_].concat()),
            (0x04, Frame::SendPacket { dst: key, packet: b"p" }, key_then(b"p")),
            (0x05, Frame::RecvPacket { src: key, packet: b"p" }, key_then(b"p")),
            (0x06, Frame::KeepAlive, Vec::new()),
            (0x07, Frame::NotePreferred(true), vec![1]),
            (0x08, Frame::PeerGone { key, reason: GoneReason::NotHere }, key_then(&[1])),
            (0x09, Frame::PeerPresent { key, addr, flags: 8 }, key_then(&v4)),
            (0x0a, Frame::ForwardPacket { src: key, dst: other, packet: b"p" }, [&keys[..], b"p"].concat()),
            (0x10, Frame::WatchConns, Vec::new()),
            (0x11, Frame::ClosePeer { key }, key_then(&[])),
            (0x12, Frame::Ping(*b"12345678"), b"12345678".to_vec()),
            (0x13, Frame::Pong(*b"12345678"), b"12345678".to_vec()),
            (0x14, Frame::Health(b"ill"), b"ill".to_vec()),
            (0x15, Frame::Restarting { reconnect_in: ms(258), try_for: ms(3) }, vec![0, 0, 1, 2, 0, 0, 0, 3]),
        ];
        for (number, frame, payload) in cases {
            let mut out = BytesMut::new();
            frame.encode(&mut out).unwrap();
            assert_eq!((out[0], &out[HEADER_LEN..]), (number, &payload[..]), "{frame:?}");
        }
    }

    #[test]
    fn a_send_packet_becomes_a_recv_packet_in_place() {
        let mut out = BytesMut::new();
        let (dst, src) = (PublicKey([7; 32]), PublicKey([8; 32]));
        Frame::SendPacket { dst, packet: b"ab" }.encode(&mut out).unwrap();
        let before = out.as_ptr();
        let sent = RawFrame::new(FrameType::SendPacket, out).into_recv_packet(&src);
        assert_eq!(sent.as_ptr(), before);
        let want = Frame::RecvPacket { src, packet: b"ab" };
        assert_eq!(Frame::parse(FrameType::RecvPacket, &sent[HEADER_LEN..]), Ok(want));
        assert_eq!(sent[0], FrameType::RecvPacket as u8);
        assert_eq!(recv_packet_parts(&sent), Some((src, 2)));
    }

    #[test]
    fn a_server_key_without_magic_is_refused() {
        assert_eq!(Frame::parse(FrameType::ServerKey, &[0; 40]), Err(FrameError::BadMagic));
        let short = FrameError::TooShort { kind: FrameType::ServerKey, len: 39 };
        let mut payload = MAGIC.to_vec();
        payload.extend([1; 31]);
        assert_eq!(Frame::parse(FrameType::ServerKey, &payload), Err(short));
        payload.extend([1; 9]);
        let want = Frame::ServerKey { key: PublicKey([1; 32]) };
        assert_eq!(Frame::parse(FrameType::ServerKey, &payload), Ok(want));
    }

    #[test]
    fn peer_gone_without_a_reason_means_disconnected() {
        let got = Frame::parse(FrameType::PeerGone, &[3; 32]);
        let key = PublicKey([3; 32]);
        assert_eq!(got, Ok(Frame::PeerGone { key, reason: GoneReason::Disconnected }));
    }

    #[test]
    fn peer_present_is_51_bytes_and_shorter_ones_are_read() {
        let key = PublicKey([3; 32]);
        let addr = Some(SocketAddr::from(([192, 0, 2, 1], 443)));
        let mut out = BytesMut::new();
        Frame::PeerPresent { key, addr, flags: 4 }.encode(&mut out).unwrap();
        assert_eq!(out.len() - HEADER_LEN, 51);
        let p = &out[HEADER_LEN..];
        let parse = |p| Frame::parse(FrameType::PeerPresent, p);
        assert_eq!(parse(p), Ok(Frame::PeerPresent { key, addr, flags: 4 }));
        assert_eq!(parse(&p[..50]), Ok(Frame::PeerPresent { key, addr, flags: 0 }));
        assert_eq!(parse(&p[..41]), Ok(Frame::PeerPresent { key, addr: None, flags: 0 }));
        assert!(parse(&p[..31]).is_err());
    }

    #[test]
    fn a_packet_too_long_for_any_receiver_is_not_encoded() {
        let packet = vec![0; MAX_PACKET + 1];
        let mut out = BytesMut::new();
        let frame = Frame::SendPacket { dst: PublicKey([1; 32]), packet: &packet };
        let (kind, len, max) = (4, MAX_PACKET + 1, MAX_PACKET);
        assert_eq!(frame.encode(&mut out), Err(FrameError::TooLong { kind, len, max }));
        assert!(out.is_empty());
    }

    fn frame(seed: &[u8], pick: u8) -> Frame<'_> {
        let byte = |i: usize| seed.get(i).copied().unwrap_or(0);
        let key = PublicKey(std::array::from_fn(byte));
        let nonce = std::array::from_fn(|i| byte(i + 32));
        let eight = std::array::from_fn(|i| byte(i + 8));
        let addr = SocketAddr::from(([byte(0), byte(1), byte(2), byte(3)], 9));
        let ms = |i| Duration::from_millis(u64::from(byte(i)) * 77_777);
        match pick % 16 {
            0 => Frame::ServerKey { key },
            1 => Frame::ClientInfo { key, nonce, sealed: seed },
            2 => Frame::ServerInfo { nonce, sealed: seed },
            3 => Frame::SendPacket { dst: key, packet: seed },
            4 => Frame::RecvPacket { src: key, packet: seed },
            5 => Frame::KeepAlive,
            6 => Frame::NotePreferred(byte(0) > 9),
            7 => Frame::PeerGone { key, reason: GoneReason::from_byte(byte(5)) },
            8 => Frame::PeerPresent { key, addr: Some(addr), flags: byte(6) },
            9 => Frame::ForwardPacket { src: key, dst: PublicKey(nonce_key(nonce)), packet: seed },
            10 => Frame::WatchConns,
            11 => Frame::ClosePeer { key },
            12 => Frame::Ping(eight),
            13 => Frame::Pong(eight),
            14 => Frame::Health(seed),
            _ => Frame::Restarting { reconnect_in: ms(1), try_for: ms(2) },
        }
    }

    fn nonce_key(nonce: [u8; NONCE_LEN]) -> [u8; 32] {
        std::array::from_fn(|i| nonce[i % NONCE_LEN])
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses_to_the_same(seed in proptest::collection::vec(any::<u8>(), 0..200), pick: u8) {
            let frame = frame(&seed, pick);
            let mut out = BytesMut::new();
            frame.encode(&mut out).unwrap();
            prop_assert_eq!(out.len(), frame.encoded_len());
            prop_assert_eq!(out[0], frame.kind() as u8);
            prop_assert_eq!(out[1..5].to_vec(), ((out.len() - 5) as u32).to_be_bytes().to_vec());
            prop_assert_eq!(Frame::parse(frame.kind(), &out[HEADER_LEN..]), Ok(frame));
        }

        #[test]
        fn any_payload_parses_or_is_refused(payload in proptest::collection::vec(any::<u8>(), 0..120), kind: u8) {
            if let Some(kind) = FrameType::from_byte(kind % 24) {
                let _ = Frame::parse(kind, &payload);
            }
        }
    }
}
