//! What people do with the tunnel: ping, talk, and copy files. Each host has one side of its flows; packets are real IP
//! packets, and the bulk transfer is a real TCP connection inside the tunnel.

use crate::packet::{Body, DEFAULT_TTL, IpEcn, Packet};
use crate::world::Epoch;
use bytes::{Bytes, BytesMut};
use peer::Peer;
use program::{UserOutput, Users};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tcp::{Config, Connection};
use trace::{Event, FlowKind, Name, Path};

/// Stands in every packet that programs send into the tunnel, so that plaintext on a wire can be recognised.
pub const MARKER: &[u8; 16] = b"~PUNCHBAG-PLAIN~";

/// MARKER, flow, direction, path of the request, two spare bytes, sequence number, time of sending.
const HEADER: usize = 16 + 4 + 1 + 1 + 2 + 8 + 8;

/// MTU inside the tunnel: the smallest that IPv6 allows (RFC 8200 §5), and what mesh VPNs use.
const TUNNEL_MTU: u16 = 1280;
/// IPv4 and TCP headers without options.
const IP_TCP_HEADERS: u16 = 40;

const VOICE_PORT: u16 = 16384;
const BULK_SERVER_PORT: u16 = 20_000;
const BULK_CLIENT_PORT: u16 = 40_000;

/// One side of a flow.
#[derive(Debug, Clone)]
pub struct FlowSpec {
    /// Number of the flow in the scenario.
    pub index: u32,
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: FlowKind,
    /// Whether this side starts it.
    pub initiator: bool,
    /// The other host.
    pub other: Name,
    /// When it starts.
    pub at: Duration,
    /// When it stops.
    pub stop: Option<Duration>,
    /// Between packets.
    pub interval: Duration,
    /// Payload bytes of a packet.
    pub size: u32,
    /// Bytes of a bulk transfer.
    pub bytes: u64,
}

struct Flow {
    spec: FlowSpec,
    announced: bool,
    /// The other's tunnel address.
    to: Option<IpAddr>,
    /// When the next packet is due; `None` = this side does not send by the clock (any more).
    next: Option<Instant>,
    seq: u64,
    bulk: Option<Bulk>,
    ended: bool,
}

struct Bulk {
    connection: Connection,
    local: SocketAddr,
    remote: SocketAddr,
    /// Bytes written (sender) or read (receiver).
    count: u64,
}

/// The programs of a host that use its tunnel.
pub struct Apps {
    host: Name,
    epoch: Epoch,
    address: Option<IpAddr>,
    flows: Vec<Flow>,
    out: VecDeque<UserOutput>,
}

impl Users for Apps {
    fn set_address(&mut self, address: IpAddr, _: Instant) {
        self.address = Some(address);
    }

    fn lose_address(&mut self) {
        self.address = None;
    }

    /// Looks up the names of the others. One that is no longer known keeps its last address, unless that is taken: a
    /// coordination server that lost its records gives addresses anew, perhaps those of others.
    fn map_changed(&mut self, peer: &Peer) {
        for flow in &mut self.flows {
            let last = flow.to.filter(|address| peer.name_at(*address).is_none());
            flow.to = peer.tunnel_address(&flow.spec.other).or(last);
        }
    }

    fn poll_output(&mut self) -> Option<UserOutput> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let up = self.address.is_some();
        let sends =
            self.flows.iter().filter(|f| !f.announced || (up && f.to.is_some())).filter_map(|f| f.next);
        let tcp =
            self.flows.iter().filter_map(|f| f.bulk.as_ref()).filter_map(|b| b.connection.poll_timeout());
        sends.map(|at| (at, "next packet of a flow")).chain(tcp).min_by_key(|(at, _)| *at)
    }

    fn handle_timeout(&mut self, now: Instant) {
        for i in 0..self.flows.len() {
            self.send_due(i, now);
            let flow = &mut self.flows[i];
            if let Some(bulk) = &mut flow.bulk
                && bulk.connection.poll_timeout().is_some_and(|(at, _)| at <= now)
            {
                bulk.connection.handle_timeout(now);
                self.service_bulk(i, now, None);
            }
        }
    }

    fn handle_packet(&mut self, from: &Arc<str>, data: &Bytes, via: Path, now: Instant) {
        let Some(packet) = Packet::decode(data) else {
            self.warn(format!("a packet of {} bytes from {from} is not IP", data.len()));
            return;
        };
        if self.address != Some(packet.dst.ip()) {
            self.wrong_peer(format!("{} got a packet for {} from {from}", self.host, packet.dst.ip()));
            return;
        }
        match packet.body {
            Body::Tcp(_) => self.handle_tcp(from, packet, via, now),
            Body::Udp(ref data) => {
                if let Some((i, message)) = self.message(from, data) {
                    self.received(i, &message, via, now);
                }
            }
            Body::Echo { reply, seq: icmp_seq, ref data } => {
                let Some((i, mut message)) = self.message(from, data) else { return };
                self.received(i, &message, via, now);
                let sent_ns = message.sent_ns;
                if !reply {
                    message.out = Some(via);
                    message.from_initiator = false;
                    message.sent_ns = self.epoch.ns(now);
                    let mut answer = BytesMut::from(&message.encode(data.len())[..]);
                    // The time of the request travels back behind the header, for the round trip.
                    answer[HEADER..HEADER + 8].copy_from_slice(&sent_ns.to_le_bytes());
                    let (src, dst) = (packet.dst.ip(), packet.src.ip());
                    let reply =
                        echo(src, dst, packet.src.port().into(), true, icmp_seq.into(), answer.freeze());
                    self.send(i, message.seq, &reply);
                } else if let Some(out) = message.out {
                    let asked_ns = data
                        .get(HEADER..HEADER + 8)
                        .and_then(|b| b.try_into().ok())
                        .map_or(0, u64::from_le_bytes);
                    let rtt_ns = self.epoch.ns(now).saturating_sub(asked_ns);
                    let flow = self.flows[i].spec.name.clone();
                    let echo = Event::Echo { flow, seq: message.seq, rtt_ns, out, back: via };
                    self.out.push_back(UserOutput::Event(echo));
                }
            }
            // What a host knows of errors inside the tunnel: nobody sends them, and nobody fragments there.
            Body::Error(_) | Body::Fragment(_) => {}
        }
    }
}

impl Apps {
    /// The programs of a host; times count from `epoch`.
    pub fn new(host: Name, specs: Vec<FlowSpec>, epoch: Epoch, now: Instant) -> Apps {
        let flows = specs
            .into_iter()
            .map(|spec| {
                let sends = spec.initiator || spec.kind == FlowKind::Voice;
                // A host that starts late starts its programs late.
                let next = sends.then(|| epoch.after(spec.at).max(now));
                Flow { spec, announced: false, to: None, next, seq: 0, bulk: None, ended: false }
            })
            .collect();
        Apps { host, epoch, address: None, flows, out: VecDeque::new() }
    }

    fn send_due(&mut self, i: usize, now: Instant) {
        let flow = &mut self.flows[i];
        let Some(mut next) = flow.next.filter(|at| *at <= now) else { return };
        if !flow.announced {
            flow.announced = true;
            if flow.spec.initiator {
                let start = Event::FlowStart {
                    flow: flow.spec.name.clone(),
                    kind: flow.spec.kind,
                    from: self.host.clone(),
                    to: flow.spec.other.clone(),
                };
                self.out.push_back(UserOutput::Event(start));
            }
        }
        let (Some(from), Some(to)) = (self.address, flow.to) else { return };
        if flow.spec.kind == FlowKind::Bulk {
            flow.next = None;
            self.start_bulk(i, from, to, now);
            return;
        }
        let stop = flow.spec.stop.map(|stop| self.epoch.after(stop));
        if stop.is_some_and(|stop| stop <= now) {
            // It was over before the name was known, or while the host slept.
            flow.next = None;
            return;
        }
        let seq = flow.seq;
        flow.seq += 1;
        next += flow.spec.interval;
        // After a wait for a name the rhythm starts anew.
        if next <= now {
            next = now + flow.spec.interval;
        }
        flow.next = stop.is_none_or(|stop| next < stop).then_some(next);
        let request = Message {
            flow: flow.spec.index,
            from_initiator: flow.spec.initiator,
            out: None,
            seq,
            sent_ns: self.epoch.ns(now),
        };
        let data = request.encode(flow.spec.size as usize);
        let packet = match flow.spec.kind {
            FlowKind::Ping => echo(from, to, flow.spec.index, false, seq, data),
            FlowKind::Voice | FlowKind::Bulk => {
                Packet::udp((from, VOICE_PORT).into(), (to, VOICE_PORT).into(), data)
            }
        };
        self.send(i, seq, &packet);
    }

    /// Sends a packet of a flow into the tunnel and logs it.
    fn send(&mut self, i: usize, seq: u64, packet: &Packet) {
        let sent = Event::AppSent {
            flow: self.flows[i].spec.name.clone(),
            host: self.host.clone(),
            seq,
            bytes: packet.wire_len() as u32,
        };
        self.out.push_back(UserOutput::Event(sent));
        self.push(packet);
    }

    fn push(&mut self, packet: &Packet) {
        let mut bytes = Vec::with_capacity(packet.wire_len());
        packet.encode(&mut bytes);
        self.out.push_back(UserOutput::Packet(bytes.into()));
    }

    /// Reads a message and finds its flow here, which must come from that flow's other side.
    fn message(&mut self, from: &str, data: &Bytes) -> Option<(usize, Message)> {
        let Some(message) = Message::decode(data) else {
            self.warn(format!("{from} sent something that no program here reads"));
            return None;
        };
        let found = self.flows.iter().position(|f| {
            f.spec.index == message.flow
                && &*f.spec.other == from
                && f.spec.initiator != message.from_initiator
        });
        if found.is_none() {
            self.wrong_peer(format!("{} got a packet of flow {} from {from}", self.host, message.flow));
        }
        Some((found?, message))
    }

    fn received(&mut self, i: usize, message: &Message, via: Path, now: Instant) {
        let received = Event::AppReceived {
            flow: self.flows[i].spec.name.clone(),
            host: self.host.clone(),
            seq: message.seq,
            latency_ns: self.epoch.ns(now).saturating_sub(message.sent_ns),
            path: via,
        };
        self.out.push_back(UserOutput::Event(received));
    }

    // ---- bulk -----------------------------------------------------------------------------------

    fn start_bulk(&mut self, i: usize, from: IpAddr, to: IpAddr, now: Instant) {
        let flow = &mut self.flows[i];
        let port = flow.spec.index as u16;
        let local = SocketAddr::new(from, BULK_CLIENT_PORT + port);
        let remote = SocketAddr::new(to, BULK_SERVER_PORT + port);
        // A fixed initial sequence number: nobody off-path can see, or guess into, this stream.
        let connection = Connection::connect(bulk_config(), flow.spec.index, now);
        flow.bulk = Some(Bulk { connection, local, remote, count: 0 });
        self.service_bulk(i, now, None);
    }

    fn handle_tcp(&mut self, from: &str, packet: Packet, via: Path, now: Instant) {
        let Body::Tcp(segment) = packet.body else { return };
        let existing = self
            .flows
            .iter()
            .position(|f| f.bulk.as_ref().is_some_and(|b| b.local == packet.dst && b.remote == packet.src));
        let i = match existing {
            Some(i) => {
                if let Some(bulk) = &mut self.flows[i].bulk {
                    bulk.connection.handle(&segment, now);
                }
                i
            }
            None => {
                let listener = self.flows.iter().position(|f| {
                    f.spec.kind == FlowKind::Bulk
                        && !f.spec.initiator
                        && BULK_SERVER_PORT + f.spec.index as u16 == packet.dst.port()
                        && &*f.spec.other == from
                });
                let Some(i) = listener.filter(|_| segment.flags.syn() && !segment.flags.ack()) else {
                    return;
                };
                let connection = Connection::accept(bulk_config(), self.flows[i].spec.index, &segment, now);
                self.flows[i].bulk =
                    Some(Bulk { connection, local: packet.dst, remote: packet.src, count: 0 });
                i
            }
        };
        self.service_bulk(i, now, Some(via));
    }

    fn service_bulk(&mut self, i: usize, now: Instant, via: Option<Path>) {
        let flow = &mut self.flows[i];
        let Some(bulk) = &mut flow.bulk else { return };
        let mut finished = None;
        let mut peer_closed = false;
        while let Some(event) = bulk.connection.poll_event() {
            match event {
                tcp::Event::Connected | tcp::Event::Writable | tcp::Event::Readable => {}
                tcp::Event::PeerClosed => {
                    bulk.connection.close();
                    peer_closed = true;
                }
                tcp::Event::Closed => {}
                tcp::Event::Reset => finished = Some((false, "connection reset")),
                tcp::Event::Unreachable => finished = Some((false, "destination unreachable")),
                tcp::Event::TimedOut => finished = Some((false, "connection timed out")),
            }
        }
        let mut read = 0;
        while let Some(data) = bulk.connection.read() {
            let in_order = data
                .iter()
                .enumerate()
                .all(|(k, byte)| *byte == MARKER[((bulk.count + k as u64) % MARKER.len() as u64) as usize]);
            if !in_order {
                self.out.push_back(UserOutput::Event(Event::Violation {
                    invariant: "corrupt-stream".into(),
                    detail: format!(
                        "{}: wrong byte in the {} bytes after {}",
                        flow.spec.name,
                        data.len(),
                        bulk.count
                    ),
                }));
            }
            bulk.count += data.len() as u64;
            read += data.len();
        }
        if read > 0
            && let Some(path) = via
        {
            self.out.push_back(UserOutput::Event(Event::BulkReceived {
                flow: flow.spec.name.clone(),
                host: self.host.clone(),
                total_bytes: bulk.count,
                path,
            }));
            if bulk.count == flow.spec.bytes {
                finished.get_or_insert((true, ""));
            }
        }
        if peer_closed && !flow.spec.initiator {
            finished.get_or_insert((false, "the sender closed early"));
        }
        if flow.spec.initiator {
            write_pattern(bulk, flow.spec.bytes);
        }
        let mut packets = Vec::new();
        while let Some(segment) = bulk.connection.poll_transmit(now) {
            packets.push(Packet::tcp(bulk.local, bulk.remote, segment));
        }
        if let Some((complete, reason)) = finished.filter(|_| !flow.ended) {
            flow.ended = true;
            let end = Event::FlowEnd { flow: flow.spec.name.clone(), complete, reason: reason.into() };
            self.out.push_back(UserOutput::Event(end));
        }
        for packet in &packets {
            self.push(packet);
        }
    }

    fn warn(&mut self, what: String) {
        self.out.push_back(UserOutput::Event(Event::Warning { node: self.host.clone(), what }));
    }

    fn wrong_peer(&mut self, detail: String) {
        self.out.push_back(UserOutput::Event(Event::Violation { invariant: "wrong-peer".into(), detail }));
    }
}

/// Keeps the send buffer full until everything is written, then closes.
fn write_pattern(bulk: &mut Bulk, total: u64) {
    const CHUNK: usize = 64 * 1024;
    while bulk.count < total {
        let len = (total - bulk.count).min(bulk.connection.writable() as u64).min(CHUNK as u64) as usize;
        if len == 0 {
            return;
        }
        let phase = (bulk.count % MARKER.len() as u64) as usize;
        let data: Bytes = MARKER.iter().copied().cycle().skip(phase).take(len).collect();
        let taken = bulk.connection.write(data);
        bulk.count += taken as u64;
        if taken == 0 {
            return;
        }
        if bulk.count == total {
            bulk.connection.close();
        }
    }
}

fn bulk_config() -> Config {
    Config { mss: TUNNEL_MTU - IP_TCP_HEADERS, ..Config::default() }
}

fn echo(from: IpAddr, to: IpAddr, id: u32, reply: bool, seq: u64, data: Bytes) -> Packet {
    let (src_port, dst_port) = if reply { (0, id as u16) } else { (id as u16, 0) };
    Packet {
        id: 0,
        src: (from, src_port).into(),
        dst: (to, dst_port).into(),
        ttl: DEFAULT_TTL,
        ecn: IpEcn::NotEct,
        dont_fragment: true,
        body: Body::Echo { reply, seq: seq as u16, data },
    }
}

/// What ping and voice packets carry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    flow: u32,
    from_initiator: bool,
    /// In a reply: the path by which the request came.
    out: Option<Path>,
    seq: u64,
    sent_ns: u64,
}

impl Message {
    /// At least header and time, padded with markers to `size`.
    fn encode(&self, size: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(size.max(HEADER + 8));
        out.extend_from_slice(MARKER);
        out.extend_from_slice(&self.flow.to_le_bytes());
        let path = match self.out {
            None => 0,
            Some(Path::Relay) => 1,
            Some(Path::Direct) => 2,
            Some(Path::Lan) => 3,
        };
        out.extend_from_slice(&[u8::from(self.from_initiator), path, 0, 0]);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.sent_ns.to_le_bytes());
        while out.len() < size.max(HEADER + 8) {
            let rest = size.max(HEADER + 8) - out.len();
            out.extend_from_slice(&MARKER[..rest.min(MARKER.len())]);
        }
        out.freeze()
    }

    fn decode(data: &[u8]) -> Option<Message> {
        let rest = data.strip_prefix(MARKER.as_slice())?;
        let out = match rest.get(5)? {
            1 => Some(Path::Relay),
            2 => Some(Path::Direct),
            3 => Some(Path::Lan),
            _ => None,
        };
        Some(Message {
            flow: u32::from_le_bytes(rest.get(..4)?.try_into().ok()?),
            from_initiator: *rest.get(4)? == 1,
            out,
            seq: u64::from_le_bytes(rest.get(8..16)?.try_into().ok()?),
            sent_ns: u64::from_le_bytes(rest.get(16..24)?.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_reads_back(flow: u32, from_initiator: bool, seq: u64, sent_ns: u64, size in 0usize..2000) {
            let message = Message { flow, from_initiator, out: Some(Path::Lan), seq, sent_ns };
            let bytes = message.encode(size);
            prop_assert_eq!(bytes.len(), size.max(HEADER + 8));
            prop_assert_eq!(Message::decode(&bytes), Some(message));
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Message::decode(&bytes);
            let _ = Packet::decode(&bytes.into());
        }
    }
}
