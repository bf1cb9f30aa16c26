//! Frames out of a byte stream, holding at most one of them.

use bytes::BytesMut;

use crate::frame::{
    FrameError, FrameType, HEADER_LEN, MAX_CLIENT_FRAME, MAX_CLIENT_INFO, MAX_PACKET, MAX_PING, RawFrame,
};

/// Which end reads: it decides which frames are meant for us and how long they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads what a server sends.
    Client,
    /// Reads what a client sends.
    Server,
}

enum Fate {
    /// Buffer it whole.
    Keep,
    /// Not for us or not known: let its bytes pass.
    Skip,
}

impl Role {
    fn judge(self, kind: u8, len: usize) -> Result<Fate, FrameError> {
        let known = FrameType::from_byte(kind);
        let (max, fate) = match self {
            Role::Client => (
                MAX_CLIENT_FRAME,
                match known {
                    None
                    | Some(
                        FrameType::ClientInfo
                        | FrameType::SendPacket
                        | FrameType::NotePreferred
                        | FrameType::ForwardPacket
                        | FrameType::WatchConns
                        | FrameType::ClosePeer,
                    ) => Fate::Skip,
                    Some(_) => Fate::Keep,
                },
            ),
            Role::Server => {
                let max = match known {
                    Some(FrameType::ClientInfo) => MAX_CLIENT_INFO,
                    Some(FrameType::SendPacket) => 32 + MAX_PACKET,
                    Some(FrameType::ForwardPacket) => 64 + MAX_PACKET,
                    Some(FrameType::NotePreferred) => 1,
                    Some(FrameType::WatchConns) => 0,
                    Some(FrameType::ClosePeer) => 32,
                    Some(FrameType::Ping | FrameType::Pong) => MAX_PING,
                    // Nothing is kept of it, so its length costs nothing.
                    _ => return Ok(Fate::Skip),
                };
                (max, Fate::Keep)
            }
        };
        if len > max {
            return Err(FrameError::TooLong { kind, len, max });
        }
        Ok(fate)
    }
}

/// Cuts a byte stream into frames. Frames of unknown type, and those that only the other role receives, are skipped
/// without being buffered. Memory is at most one frame (twice that while it grows), and grows only as bytes arrive.
///
/// ```
/// use derp::frame::{Decoder, Frame, Role};
/// let mut wire = bytes::BytesMut::new();
/// Frame::Ping(*b"12345678").encode(&mut wire)?;
/// let mut decoder = Decoder::new(Role::Server);
/// let mut input = &wire[..];
/// let raw = decoder.decode(&mut input)?.expect("a whole frame was given");
/// assert_eq!(raw.parse()?, Frame::Ping(*b"12345678"));
/// assert_eq!(decoder.decode(&mut input)?, None);
/// # Ok::<(), derp::frame::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    header: [u8; HEADER_LEN],
    /// How much of `header` is there.
    have: usize,
    /// The frame being collected, header included, and its full length.
    partial: Option<(FrameType, BytesMut, usize)>,
    /// Bytes still to let pass.
    skip: usize,
}

impl Decoder {
    /// At the start of a stream that `role` reads.
    pub fn new(role: Role) -> Self {
        Self { role, header: [0; HEADER_LEN], have: 0, partial: None, skip: 0 }
    }

    /// Takes bytes from the front of `input` until a frame is complete (then there may be more in `input`) or `input` is
    /// empty (then `None`). After an error the stream cannot be continued.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<RawFrame>, FrameError> {
        loop {
            if self.skip > 0 {
                self.skip -= take(input, self.skip).len();
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            if let Some((kind, mut bytes, len)) = self.partial.take() {
                bytes.extend_from_slice(take(input, len - bytes.len()));
                if bytes.len() == len {
                    return Ok(Some(RawFrame::new(kind, bytes)));
                }
                self.partial = Some((kind, bytes, len));
                return Ok(None);
            }
            let part = take(input, HEADER_LEN - self.have);
            self.header[self.have..self.have + part.len()].copy_from_slice(part);
            self.have += part.len();
            if self.have < HEADER_LEN {
                return Ok(None);
            }
            self.have = 0;
            let [kind, len @ ..] = self.header;
            let len = u32::from_be_bytes(len) as usize;
            match (self.role.judge(kind, len)?, FrameType::from_byte(kind)) {
                (Fate::Keep, Some(kind)) => {
                    let mut bytes = BytesMut::with_capacity(HEADER_LEN + len.min(input.len()));
                    bytes.extend_from_slice(&self.header);
                    self.partial = Some((kind, bytes, HEADER_LEN + len));
                }
                _ => self.skip = len,
            }
        }
    }
}

/// Splits up to `n` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(n.min(input.len()));
    *input = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use proptest::prelude::*;

    fn frames(role: Role, mut input: &[u8], decoder: &mut Decoder) -> Result<Vec<RawFrame>, FrameError> {
        assert_eq!(decoder.role, role);
        let mut out = Vec::new();
        while let Some(frame) = decoder.decode(&mut input)? {
            out.push(frame);
        }
        assert!(input.is_empty());
        Ok(out)
    }

    fn wire(all: &[Frame<'_>]) -> BytesMut {
        let mut out = BytesMut::new();
        for frame in all {
            frame.encode(&mut out).unwrap();
        }
        out
    }

    #[test]
    fn unknown_frames_pass_unseen() {
        let mut bytes = vec![0x77, 0, 0, 0, 3, 1, 2, 3];
        bytes.extend(wire(&[Frame::Ping([9; 8])]));
        for role in [Role::Client, Role::Server] {
            let got = frames(role, &bytes, &mut Decoder::new(role)).unwrap();
            assert_eq!(got.len(), 1);
            assert_eq!(got[0].parse(), Ok(Frame::Ping([9; 8])));
        }
    }

    #[test]
    fn frames_of_the_wrong_direction_pass_unseen() {
        let key = crate::PublicKey([1; 32]);
        let to_server = wire(&[Frame::SendPacket { dst: key, packet: b"x" }, Frame::WatchConns]);
        assert_eq!(frames(Role::Client, &to_server, &mut Decoder::new(Role::Client)), Ok(vec![]));
        let to_client = wire(&[Frame::RecvPacket { src: key, packet: b"x" }, Frame::KeepAlive]);
        assert_eq!(frames(Role::Server, &to_client, &mut Decoder::new(Role::Server)), Ok(vec![]));
    }

    #[test]
    fn a_packet_of_64_kib_is_taken_and_one_byte_more_is_not() {
        let header = |len: usize| {
            let mut h = vec![FrameType::SendPacket as u8];
            h.extend((len as u32).to_be_bytes());
            h
        };
        let mut decoder = Decoder::new(Role::Server);
        assert_eq!(decoder.decode(&mut &header(32 + MAX_PACKET)[..]), Ok(None));
        let mut decoder = Decoder::new(Role::Server);
        assert_eq!(
            decoder.decode(&mut &header(33 + MAX_PACKET)[..]),
            Err(FrameError::TooLong { kind: 4, len: 33 + MAX_PACKET, max: 32 + MAX_PACKET })
        );
    }

    #[test]
    fn a_client_refuses_a_frame_above_one_mebibyte_of_any_type() {
        for kind in [FrameType::Health as u8, 0x77] {
            let mut decoder = Decoder::new(Role::Client);
            let over = [kind, 0, 0x10, 0, 1];
            assert!(matches!(decoder.decode(&mut &over[..]), Err(FrameError::TooLong { .. })));
        }
    }

    #[test]
    fn a_server_lets_four_gigabytes_of_unknown_frame_pass_without_keeping_them() {
        let mut decoder = Decoder::new(Role::Server);
        let mut header = &[0x77, 0xff, 0xff, 0xff, 0xff][..];
        assert_eq!(decoder.decode(&mut header), Ok(None));
        let chunk = vec![0; 1 << 20];
        for _ in 0..4095 {
            assert_eq!(decoder.decode(&mut &chunk[..]), Ok(None));
        }
        assert_eq!(decoder.decode(&mut &chunk[1..]), Ok(None));
        assert_eq!(decoder.skip, 0);
        let mut next = &wire(&[Frame::Ping([1; 8])])[..];
        assert!(decoder.decode(&mut next).unwrap().is_some());
    }

    #[test]
    fn memory_follows_the_bytes_received_not_the_bytes_announced() {
        let mut decoder = Decoder::new(Role::Client);
        assert_eq!(decoder.decode(&mut &[FrameType::Health as u8, 0, 0x10, 0, 0][..]), Ok(None));
        let (_, buffer, _) = decoder.partial.as_ref().unwrap();
        assert!(buffer.capacity() < 1024, "{}", buffer.capacity());
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_decode_alike_and_within_bounds(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            cuts in proptest::collection::vec(1usize..50, 1..20),
            server: bool,
        ) {
            let role = if server { Role::Server } else { Role::Client };
            // Small type and length bytes, so that many inputs are frames.
            let bytes: Vec<u8> = bytes.iter().map(|b| if b % 3 == 0 { 0 } else { b % 24 }).collect();
            let whole = frames(role, &bytes, &mut Decoder::new(role));
            let mut decoder = Decoder::new(role);
            let (mut got, mut rest, mut error) = (Vec::new(), &bytes[..], None);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || error.is_some() { break }
                let part = take(&mut rest, *cut);
                let mut input = part;
                loop {
                    match decoder.decode(&mut input) {
                        Ok(Some(frame)) => got.push(frame),
                        Ok(None) => break,
                        Err(e) => { error = Some(e); break }
                    }
                }
                if let Some((_, buffer, _)) = &decoder.partial {
                    prop_assert!(buffer.len() <= HEADER_LEN + MAX_CLIENT_FRAME);
                }
            }
            match (whole, error) {
                (Ok(whole), None) => prop_assert_eq!(whole, got),
                (Err(a), Some(b)) => prop_assert_eq!(a, b),
                (whole, error) => prop_assert!(false, "{:?} against {:?}", whole, error),
            }
        }
    }
}
