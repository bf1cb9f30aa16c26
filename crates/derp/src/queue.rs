//! What waits to be written to one stream: control frames, then disco packets, then data packets.

use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};

use crate::frame::Frame;
use crate::keys::PublicKey;

/// Packets each of the two queues holds before the oldest is dropped
/// (`defaultPerClientSendQueueDepth`, tailscale `derp/derpserver/derpserver.go`).
pub const QUEUE_LEN: usize = 32;

/// Bytes that each of the two queues holds before the oldest is dropped: the bound on a client's memory, which the number
/// of packets alone would set at 2 MiB a queue. Ours; a full queue of Ethernet's packets stays far below it.
pub const QUEUE_BYTES: usize = 256 << 10;

/// Control frames that may wait. Pings, "peer gone" and keep-alives beyond it are dropped: each is only a hint.
pub const CONTROL_LEN: usize = 1024;

/// News of clients that may wait for another relay, of about 90 bytes each: twice what a relay has by default. Ours.
pub const PRESENCE_LEN: usize = 1 << 17;

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

/// Packets that wait.
#[derive(Debug, Default)]
struct Packets {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Packets {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    fn is_over(&self) -> bool {
        self.frames.len() > QUEUE_LEN || (self.bytes > QUEUE_BYTES && self.frames.len() > 1)
    }

    fn clear(&mut self) {
        *self = Packets::default();
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
    /// Who came and who went, for a relay that watches: of each client only the last of it.
    presence: BTreeMap<PublicKey, Bytes>,
    disco: Packets,
    data: Packets,
}

impl Outbound {
    /// Bytes that wait.
    pub(crate) fn queued(&self) -> usize {
        let small = self.control.iter().chain(self.presence.values()).map(Bytes::len).sum::<usize>();
        self.current.len() + small + self.disco.bytes + self.data.bytes
    }

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

    fn packets(&mut self, class: Class) -> &mut Packets {
        match class {
            Class::Disco => &mut self.disco,
            Class::Data => &mut self.data,
        }
    }

    /// Queues an encoded packet frame. Those that must make room for it are to be had from
    /// [`pop_excess`](Self::pop_excess) then.
    pub(crate) fn push_packet(&mut self, class: Class, frame: Bytes) {
        self.packets(class).push(frame);
    }

    /// The oldest of a class, if there are too many.
    pub(crate) fn pop_excess(&mut self, class: Class) -> Option<Bytes> {
        let packets = self.packets(class);
        if packets.is_over() { packets.pop() } else { None }
    }

    /// Queues the last word about a client; refused when there are too many, of clients that come and go.
    pub(crate) fn push_presence(&mut self, key: PublicKey, frame: &Frame<'_>) -> bool {
        if self.presence.len() >= PRESENCE_LEN && !self.presence.contains_key(&key) {
            return false;
        }
        let mut out = BytesMut::with_capacity(frame.encoded_len());
        frame.put(&mut out);
        self.presence.insert(key, out.freeze());
        true
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
        if let Some((_, frame)) = self.presence.pop_first() {
            return Some(frame);
        }
        self.disco.pop().or_else(|| self.data.pop())
    }

    /// Whether [`take`](Self::take) has something to give.
    pub(crate) fn is_empty(&self, packets: bool) -> bool {
        self.current.is_empty()
            && self.control.is_empty()
            && self.pong.is_none()
            && (!packets || !self.has_packets())
    }

    fn has_packets(&self) -> bool {
        !(self.presence.is_empty() && self.disco.frames.is_empty() && self.data.frames.is_empty())
    }

    /// Whether the last byte taken ended a frame.
    pub(crate) fn at_boundary(&self) -> bool {
        self.current.is_empty()
    }

    /// Forgets the packets but not what must still be said.
    pub(crate) fn drop_packets(&mut self) {
        self.presence.clear();
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
            out.push_packet(Class::Data, packet(n));
            assert_eq!(out.pop_excess(Class::Data), None);
        }
        out.push_packet(Class::Data, packet(99));
        assert_eq!(out.pop_excess(Class::Data), Some(packet(0)));
        assert_eq!(out.pop_excess(Class::Data), None);
        assert_eq!(out.take(100, true), Some(packet(1)));
    }

    #[test]
    fn long_packets_are_bounded_by_their_bytes() {
        let mut out = Outbound::default();
        for n in 0..20 {
            out.push_packet(Class::Disco, Bytes::from(vec![n; 60_000]));
            while out.pop_excess(Class::Disco).is_some() {}
            assert!(out.disco.bytes <= QUEUE_BYTES);
        }
        assert_eq!(out.take(1, true).unwrap()[0], 16);
        out.push_packet(Class::Data, Bytes::from(vec![0; QUEUE_BYTES + 1]));
        assert_eq!(out.pop_excess(Class::Data), None, "one packet is never too many");
    }

    #[test]
    fn of_one_client_only_the_last_news_waits() {
        let mut out = Outbound::default();
        let key = PublicKey([1; 32]);
        out.push_presence(key, &Frame::PeerPresent { key, addr: None, flags: 1 });
        let gone = Frame::PeerGone { key, reason: crate::frame::GoneReason::Disconnected };
        out.push_presence(key, &gone);
        assert_eq!(out.take(1000, true).unwrap()[0], gone.kind() as u8);
        assert_eq!(out.take(1000, true), None);
    }

    #[test]
    fn news_of_clients_are_bounded() {
        let mut out = Outbound::default();
        let mut push = |n: usize| {
            let mut key = PublicKey([0; 32]);
            key.0[..8].copy_from_slice(&n.to_be_bytes());
            out.push_presence(key, &Frame::PeerPresent { key, addr: None, flags: 1 })
        };
        assert!((0..PRESENCE_LEN).all(&mut push) && !push(PRESENCE_LEN) && push(0));
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
