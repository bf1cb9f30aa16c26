//! What waits to be written to one stream: control frames, then disco packets, then data packets.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

use crate::frame::Frame;

/// Packets each of the two queues holds before the oldest is dropped
/// (`defaultPerClientSendQueueDepth`, tailscale `derp/derpserver/derpserver.go`).
pub const QUEUE_LEN: usize = 32;

/// Control frames that may wait. Pings, "peer gone" and keep-alives beyond it are dropped: each is only a hint.
pub const CONTROL_LEN: usize = 1024;

/// First bytes of every disco packet, `TS💬` (tailscale `disco/disco.go`, `Magic`).
const DISCO_MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];

/// Which of the two packet queues a packet waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Path discovery: goes first, because a path found late keeps the relay busy for longer.
    Disco,
    /// Everything else.
    Data,
}

impl Class {
    /// Tells the class of a packet as the server does: by the magic and the length of magic and sender's key
    /// (`disco.LooksLikeDiscoWrapper`).
    pub fn of(packet: &[u8]) -> Self {
        if packet.len() >= DISCO_MAGIC.len() + 32 && packet.starts_with(&DISCO_MAGIC) {
            Class::Disco
        } else {
            Class::Data
        }
    }
}

/// The write side of one stream.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// A frame that left in part; its rest must follow before anything else.
    current: Bytes,
    control: VecDeque<Bytes>,
    /// One answer at a time: whoever pings faster than we can write gets fewer answers
    /// (`sendPongCh` of capacity one, tailscale `derp/derpserver/derpserver.go`).
    pong: Option<[u8; 8]>,
    disco: VecDeque<Bytes>,
    data: VecDeque<Bytes>,
}

impl Outbound {
    /// Queues raw bytes (HTTP) or a whole control frame; refused when too many wait.
    pub(crate) fn push_control(&mut self, bytes: Bytes) -> bool {
        let fits = self.control.len() < CONTROL_LEN;
        if fits {
            self.control.push_back(bytes);
        }
        fits
    }

    pub(crate) fn push_frame(&mut self, frame: &Frame<'_>) -> bool {
        let mut out = BytesMut::with_capacity(frame.encoded_len());
        frame.put(&mut out);
        self.push_control(out.freeze())
    }

    pub(crate) fn push_pong(&mut self, payload: [u8; 8]) {
        self.pong.get_or_insert(payload);
    }

    /// Queues an encoded packet frame; gives back the oldest of its class if that had to make room.
    pub(crate) fn push_packet(&mut self, class: Class, frame: Bytes) -> Option<Bytes> {
        let queue = match class {
            Class::Disco => &mut self.disco,
            Class::Data => &mut self.data,
        };
        let dropped = if queue.len() >= QUEUE_LEN { queue.pop_front() } else { None };
        queue.push_back(frame);
        dropped
    }

    /// The next at most `space` bytes of the stream. A frame is given whole if it fits, else its first part; the rest
    /// comes first next time. With `packets` false only control frames leave (before the handshake is done).
    pub(crate) fn take(&mut self, space: usize, packets: bool) -> Option<Bytes> {
        if space == 0 {
            return None;
        }
        if self.current.is_empty() {
            self.current = self.next_frame(packets)?;
        }
        Some(self.current.split_to(space.min(self.current.len())))
    }

    fn next_frame(&mut self, packets: bool) -> Option<Bytes> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if let Some(payload) = self.pong.take() {
            let mut out = BytesMut::new();
            Frame::Pong(payload).put(&mut out);
            return Some(out.freeze());
        }
        if !packets {
            return None;
        }
        self.disco.pop_front().or_else(|| self.data.pop_front())
    }

    /// Whether [`take`](Self::take) has something to give.
    pub(crate) fn is_empty(&self, packets: bool) -> bool {
        self.current.is_empty()
            && self.control.is_empty()
            && self.pong.is_none()
            && (!packets || (self.disco.is_empty() && self.data.is_empty()))
    }

    /// Whether the last byte taken ended a frame.
    pub(crate) fn at_boundary(&self) -> bool {
        self.current.is_empty()
    }

    /// Forgets the packets but not what must still be said.
    pub(crate) fn drop_packets(&mut self) {
        self.disco.clear();
        self.data.clear();
    }

    /// Forgets what belonged to the stream that ended; packets stay.
    pub(crate) fn drop_control(&mut self) {
        self.current.clear();
        self.control.clear();
        self.pong = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u8) -> Bytes {
        Bytes::copy_from_slice(&[n; 3])
    }

    #[test]
    fn disco_leaves_before_data_and_control_before_both() {
        let mut out = Outbound::default();
        out.push_packet(Class::Data, packet(1));
        out.push_packet(Class::Disco, packet(2));
        out.push_control(packet(3));
        let order: Vec<u8> = std::iter::from_fn(|| out.take(100, true)).map(|b| b[0]).collect();
        assert_eq!(order, [3, 2, 1]);
    }

    #[test]
    fn the_thirty_third_packet_pushes_out_the_first() {
        let mut out = Outbound::default();
        for n in 0..QUEUE_LEN as u8 {
            assert_eq!(out.push_packet(Class::Data, packet(n)), None);
        }
        assert_eq!(out.push_packet(Class::Data, packet(99)), Some(packet(0)));
        assert_eq!(out.take(100, true), Some(packet(1)));
    }

    #[test]
    fn the_rest_of_a_frame_goes_before_anything_more_urgent() {
        let mut out = Outbound::default();
        out.push_packet(Class::Data, packet(1));
        assert_eq!(out.take(2, true).unwrap().len(), 2);
        out.push_control(packet(2));
        assert_eq!(out.take(100, true).unwrap(), &[1][..]);
        assert_eq!(out.take(100, true), Some(packet(2)));
    }

    #[test]
    fn packets_wait_until_they_are_allowed() {
        let mut out = Outbound::default();
        out.push_packet(Class::Disco, packet(1));
        assert_eq!(out.take(100, false), None);
        assert!(out.is_empty(false) && !out.is_empty(true));
    }

    #[test]
    fn only_one_pong_waits() {
        let mut out = Outbound::default();
        out.push_pong([1; 8]);
        out.push_pong([2; 8]);
        assert_eq!(out.take(100, false).unwrap()[5..], [1; 8]);
        assert_eq!(out.take(100, false), None);
    }

    #[test]
    fn control_frames_are_bounded_too() {
        let mut out = Outbound::default();
        let taken = (0..CONTROL_LEN + 10).filter(|_| out.push_control(packet(1))).count();
        assert_eq!(taken, CONTROL_LEN);
        assert_eq!(out.control.len(), CONTROL_LEN);
    }

    #[test]
    fn a_packet_is_disco_by_its_magic_and_length() {
        let mut wrapped = DISCO_MAGIC.to_vec();
        assert_eq!(Class::of(&wrapped), Class::Data);
        wrapped.extend([0; 32]);
        assert_eq!(Class::of(&wrapped), Class::Disco);
        assert_eq!(Class::of(b""), Class::Data);
    }
}
