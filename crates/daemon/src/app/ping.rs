//! Echo requests of our own among the users of a tunnel.

use bytes::Bytes;
use peer::Peer;
use program::wire::{Body, Packet};
use program::{Input, UserOutput, Users};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use trace::Path;

/// Identifier of our echo requests ("pb"). Their sequence numbers tell them apart; other programs draw theirs at random.
const ID: u16 = 0x7062;
/// Length of an echo's payload: that of Linux's `ping`.
const PAYLOAD: usize = 56;

/// An answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pong {
    pub(super) rtt: Duration,
    pub(super) path: Path,
}

/// Users of a tunnel, with echo requests and packets from a device beside them.
pub(super) struct WithPing {
    users: Box<dyn Users>,
    address: Option<IpAddr>,
    seq: u16,
    waiting: BTreeMap<(IpAddr, u16), (Instant, oneshot::Sender<Pong>)>,
    out: VecDeque<UserOutput>,
}

impl WithPing {
    pub(super) fn new(users: Box<dyn Users>) -> WithPing {
        WithPing { users, address: None, seq: 0, waiting: BTreeMap::new(), out: VecDeque::new() }
    }

    /// Puts packets into the tunnel.
    pub(super) fn send(&mut self, packets: Vec<Bytes>) {
        self.out.extend(packets.into_iter().map(UserOutput::Packet));
    }

    /// Asks for an answer. The receiver ends without one if there is no tunnel yet.
    pub(super) fn ping(&mut self, to: IpAddr, now: Instant) -> oneshot::Receiver<Pong> {
        let (sender, receiver) = oneshot::channel();
        // Who does not wait any more is forgotten.
        self.waiting.retain(|_, (_, sender)| !sender.is_closed());
        self.seq = self.seq.wrapping_add(1);
        let data = Bytes::from_static(&[0; PAYLOAD]);
        let body = Body::Echo { reply: false, id: ID, seq: self.seq, data };
        let packet = self.address.map(|own| Packet { src: (own, 0).into(), dst: (to, 0).into(), body });
        if let Some(packet) = packet.and_then(|packet| packet.encode()) {
            self.waiting.insert((to, self.seq), (now, sender));
            self.out.push_back(UserOutput::Packet(packet));
        }
        receiver
    }

    fn answered(&mut self, data: &Bytes, path: Path, now: Instant) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let Some(Packet { src, body: Body::Echo { reply: true, id: ID, seq, .. }, .. }) =
            Packet::decode(data)
        else {
            return false;
        };
        let Some((sent, sender)) = self.waiting.remove(&(src.ip(), seq)) else { return false };
        // Whoever asked may have gone.
        let _ = sender.send(Pong { rtt: now.saturating_duration_since(sent), path });
        true
    }
}

impl Users for WithPing {
    fn handle_packet(&mut self, peer: &Arc<str>, data: &Bytes, via: Path, now: Instant) {
        if !self.answered(data, via, now) {
            self.users.handle_packet(peer, data, via, now);
        }
    }

    fn set_address(&mut self, address: IpAddr, now: Instant) {
        self.address = Some(address);
        self.users.set_address(address, now);
    }

    fn lose_address(&mut self) {
        self.address = None;
        self.users.lose_address();
    }

    fn map_changed(&mut self, peer: &Peer) {
        self.users.map_changed(peer);
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.users.tcp_ports()
    }

    fn handle_outside(&mut self, input: Input<'_>, now: Instant) {
        self.users.handle_outside(input, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.users.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.users.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<UserOutput> {
        self.out.pop_front().or_else(|| self.users.poll_output())
    }
}
