//! WebSocket (RFC 6455) as a byte stream: binary messages carry the bytes that plain TCP would, and where one message ends
//! means nothing (tailscale `derp/derpserver/websocket_server.go`, subprotocol `derp`, no compression).

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use sha1::{Digest, Sha1};

use crate::frame::Role;

/// The subprotocol's name.
pub(crate) const PROTOCOL: &str = "derp";
/// Appended to the client's key for the answer (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;
/// Longest header of a frame that a server writes: without a mask (RFC 6455 §5.2).
pub(crate) const SERVER_HEADER: usize = 10;
/// Longest header of a frame that a client writes.
pub(crate) const CLIENT_HEADER: usize = 14;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What is wrong with what came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A server's frame is masked, or a client's is not (RFC 6455 §5.1).
    #[error("WebSocket frame masked the wrong way")]
    Mask,
    /// A frame with reserved bits, of an unknown type, of text, or a control frame that is long or in pieces.
    #[error("WebSocket frame {0:#04x} is not for a stream of bytes")]
    Frame(u8),
    /// The other side closed the WebSocket.
    #[error("WebSocket closed")]
    Closed,
}

/// The server's proof that it read the client's key.
pub(crate) fn accept(key: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// A client's key.
pub(crate) fn key(random: [u8; 16]) -> String {
    BASE64_STANDARD.encode(random)
}

/// A frame of the stream; a client masks it.
pub(crate) fn binary(data: &[u8], mask: Option<[u8; 4]>) -> Bytes {
    frame(BINARY, data, mask)
}

fn frame(kind: u8, data: &[u8], mask: Option<[u8; 4]>) -> Bytes {
    let mut out = BytesMut::with_capacity(CLIENT_HEADER + data.len());
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.put_u8(0x80 | kind);
    match (u8::try_from(data.len()), u16::try_from(data.len())) {
        (Ok(len @ 0..=125), _) => out.put_u8(masked | len),
        (_, Ok(len)) => {
            out.put_u8(masked | 126);
            out.put_u16(len);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(data.len() as u64);
        }
    }
    let mask = mask.inspect(|mask| out.put_slice(mask)).unwrap_or_default();
    out.extend(data.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out.freeze()
}

/// The payload that is being read.
#[derive(Debug)]
struct Payload {
    kind: u8,
    left: u64,
    mask: [u8; 4],
    /// Position in the mask.
    at: usize,
}

/// The read side of one WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    role: Role,
    header: Vec<u8>,
    payload: Option<Payload>,
    control: Vec<u8>,
}

impl Socket {
    /// At the first frame.
    pub(crate) fn new(role: Role) -> Socket {
        Socket { role, header: Vec::new(), payload: None, control: Vec::new() }
    }

    /// Reads bytes in any pieces: what they carry, and an answer to the last ping among them, not yet masked.
    pub(crate) fn read(&mut self, mut input: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), WebSocketError> {
        let (mut out, mut ping) = (Vec::new(), None);
        while let Some(&byte) = input.first() {
            let Some(payload) = &mut self.payload else {
                input = &input[1..];
                self.header.push(byte);
                self.payload = self.parse_header()?;
                if self.payload.as_ref().is_some_and(|payload| payload.left == 0) {
                    self.end(&mut ping)?;
                }
                continue;
            };
            let len = usize::try_from(payload.left).unwrap_or(usize::MAX).min(input.len());
            let (now, rest) = input.split_at(len);
            input = rest;
            let clear = now.iter().zip(payload.mask.iter().cycle().skip(payload.at)).map(|(b, m)| b ^ m);
            match payload.kind {
                BINARY | CONTINUATION => out.extend(clear),
                _ => self.control.extend(clear),
            }
            payload.at = (payload.at + len) % 4;
            payload.left -= len as u64;
            if payload.left == 0 {
                self.end(&mut ping)?;
            }
        }
        Ok((out, ping))
    }

    /// A frame is complete.
    fn end(&mut self, ping: &mut Option<Vec<u8>>) -> Result<(), WebSocketError> {
        let control = std::mem::take(&mut self.control);
        match self.payload.take().map(|payload| payload.kind) {
            Some(PING) => *ping = Some(control),
            Some(CLOSE) => return Err(WebSocketError::Closed),
            _ => {}
        }
        Ok(())
    }

    /// The header, once it is there.
    fn parse_header(&mut self) -> Result<Option<Payload>, WebSocketError> {
        let [first, second, rest @ ..] = &self.header[..] else { return Ok(None) };
        let (kind, fin) = (first & 0x0f, first & 0x80 != 0);
        let is_control = kind >= CLOSE;
        let known = matches!(kind, CONTINUATION | BINARY | CLOSE | PING | PONG);
        if first & 0x70 != 0 || !known || (is_control && !fin) {
            return Err(WebSocketError::Frame(*first));
        }
        let masked = second & 0x80 != 0;
        if masked != (self.role == Role::Server) {
            return Err(WebSocketError::Mask);
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((number, rest)) = rest.split_at_checked(extended) else { return Ok(None) };
        let left = match number {
            [] => u64::from(second & 0x7f),
            bytes => bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        if is_control && left > MAX_CONTROL as u64 {
            return Err(WebSocketError::Frame(*first));
        }
        let mask = match (masked, rest.first_chunk()) {
            (false, _) => [0; 4],
            (true, Some(mask)) => *mask,
            (true, None) => return Ok(None),
        };
        self.header.clear();
        Ok(Some(Payload { kind, left, mask, at: 0 }))
    }
}

/// The answer to a ping (RFC 6455 §5.5.3).
pub(crate) fn pong(ping: &[u8], mask: Option<[u8; 4]>) -> Bytes {
    frame(PONG, ping, mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn read(socket: &mut Socket, bytes: &[u8]) -> Result<Vec<u8>, WebSocketError> {
        socket.read(bytes).map(|(out, _)| out)
    }

    #[test]
    fn the_answer_is_that_of_the_rfcs_example() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); // RFC 6455 §1.3
    }

    #[test]
    fn the_rfcs_frames_are_read() {
        // RFC 6455 §5.7, with binary in place of text.
        let mut server = Socket::new(Role::Server);
        let masked = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(read(&mut server, &masked), Ok(b"Hello".to_vec()));
        assert_eq!(binary(b"Hello", Some(MASK)), &masked[..]);
        let mut client = Socket::new(Role::Client);
        let in_pieces = [0x02, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
        assert_eq!(read(&mut client, &in_pieces), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn a_ping_between_two_pieces_is_answered_and_changes_nothing() {
        let mut server = Socket::new(Role::Server);
        let mut bytes = frame(BINARY, b"Hel", Some(MASK)).to_vec();
        bytes[0] = BINARY;
        bytes.extend(frame(PING, b"you?", Some(MASK)));
        bytes.extend(frame(CONTINUATION, b"lo", Some(MASK)));
        assert_eq!(server.read(&bytes), Ok((b"Hello".to_vec(), Some(b"you?".to_vec()))));
        assert_eq!(pong(b"you?", None), &b"\x8a\x04you?"[..]);
    }

    #[test]
    fn what_is_no_stream_of_bytes_is_refused() {
        let refused = |role, bytes: &[u8]| read(&mut Socket::new(role), bytes).err();
        assert_eq!(refused(Role::Server, &binary(b"x", None)), Some(WebSocketError::Mask));
        assert_eq!(refused(Role::Client, &binary(b"x", Some(MASK))), Some(WebSocketError::Mask));
        assert_eq!(refused(Role::Client, b"\x81\x00"), Some(WebSocketError::Frame(0x81)), "text");
        assert_eq!(refused(Role::Client, b"\xc2\x00"), Some(WebSocketError::Frame(0xc2)), "compressed");
        assert_eq!(
            refused(Role::Client, b"\x89\x7e\x01\x00"),
            Some(WebSocketError::Frame(0x89)),
            "long ping"
        );
        assert_eq!(refused(Role::Client, b"\x09\x00"), Some(WebSocketError::Frame(0x09)), "ping in pieces");
        assert_eq!(refused(Role::Client, b"\x88\x00"), Some(WebSocketError::Closed));
    }

    proptest! {
        #[test]
        fn any_stream_in_any_pieces_comes_through(
            parts in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>()), 0..8),
            cut in 1usize..400,
            masked: bool,
        ) {
            let role = if masked { Role::Server } else { Role::Client };
            let wire: Vec<u8> =
                parts.iter().flat_map(|(data, mask)| binary(data, masked.then_some(*mask))).collect();
            let mut socket = Socket::new(role);
            let mut got = Vec::new();
            for piece in wire.chunks(cut) {
                got.extend(read(&mut socket, piece).unwrap());
            }
            let want: Vec<u8> = parts.into_iter().flat_map(|(data, _)| data).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn any_bytes_are_read_or_refused_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..600), server: bool) {
            let mut socket = Socket::new(if server { Role::Server } else { Role::Client });
            if let Ok((out, ping)) = socket.read(&bytes) {
                prop_assert!(out.len() <= bytes.len());
                prop_assert!(ping.is_none_or(|ping| ping.len() <= MAX_CONTROL));
            }
            prop_assert!(socket.header.len() <= CLIENT_HEADER && socket.control.len() <= MAX_CONTROL);
        }
    }
}
