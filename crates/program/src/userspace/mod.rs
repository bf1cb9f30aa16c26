//! A tunnel without a TUN device: an IP stack of our own inside it, and connections of other programs outside that are carried
//! over: by SOCKS 5, from a forwarded port, and to a port of this machine that is exposed to the other peers.
//!
//! A connection outside and one inside make a pair. Each end is read only as fast as the other takes it.

pub mod socks;

use crate::wire::{Body, Packet};
use crate::{ConnId, FIRST_OF_USERS, Input, Output, UserOutput, Users};
use ::peer::Peer;
use bytes::{Buf, Bytes};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha12Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tcp::{Config, Connection, Segment};
use trace::Path;

use self::socks::{Handshake, Reply, Step, Target};

/// MTU inside the tunnel: the smallest that IPv6 allows (RFC 8200 §5), and what mesh VPNs use.
pub const TUNNEL_MTU: u16 = 1280;
/// Ports of connections that we open: IANA's dynamic ones (RFC 6335 §6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49152..=65535;
/// Connections at a time.
const MAX_PAIRS: usize = 4096;
/// How long a SOCKS client may take to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A port of this machine that leads to one of another peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The port here, by the number that the program's owner gives it.
    pub port: u16,
    /// The other peer.
    pub to: Target,
    /// Its port.
    pub to_port: u16,
}

/// Which connections are carried.
#[derive(Debug, Clone, Default)]
pub struct UserspaceConfig {
    /// Port of the SOCKS server, by the number that the program's owner gives it.
    pub socks: Option<u16>,
    /// Ports that lead to other peers.
    pub forwards: Vec<Forward>,
    /// Ports of the tunnel address, and where outside the tunnel they lead.
    pub expose: BTreeMap<u16, SocketAddr>,
}

type PairId = u64;

/// A connection outside and one inside.
struct Pair {
    /// The one outside, while there is one.
    outside: Option<ConnId>,
    /// What it takes now.
    space: usize,
    held: bool,
    /// What came from it and waits for the tunnel.
    inward: VecDeque<Bytes>,
    /// What came from the tunnel and waits for it.
    outward: Bytes,
    handshake: Option<(Handshake, Instant)>,
    /// A SOCKS client waits for an answer.
    asked: bool,
    inside: Option<Inside>,
    armed: Option<Instant>,
}

struct Inside {
    connection: Connection,
    local: SocketAddr,
    remote: SocketAddr,
    /// Nothing more will come from it.
    done: bool,
}

impl Pair {
    fn new(outside: ConnId) -> Pair {
        Pair {
            outside: Some(outside),
            space: 0,
            held: false,
            inward: VecDeque::new(),
            outward: Bytes::new(),
            handshake: None,
            asked: false,
            inside: None,
            armed: None,
        }
    }
}

/// The stack and its connections.
pub struct Userspace {
    config: UserspaceConfig,
    rng: ChaCha12Rng,
    address: Option<IpAddr>,
    names: BTreeMap<String, IpAddr>,
    pairs: BTreeMap<PairId, Pair>,
    next_pair: PairId,
    next_conn: ConnId,
    next_port: u16,
    of_outside: BTreeMap<ConnId, PairId>,
    of_inside: BTreeMap<(SocketAddr, SocketAddr), PairId>,
    agenda: BTreeSet<(Instant, PairId)>,
    out: VecDeque<UserOutput>,
}

impl Userspace {
    /// A stack without connections.
    pub fn new(config: UserspaceConfig, mut rng: ChaCha12Rng) -> Userspace {
        let next_port = rng.random_range(EPHEMERAL);
        Userspace {
            config,
            rng,
            address: None,
            names: BTreeMap::new(),
            pairs: BTreeMap::new(),
            next_pair: 0,
            next_conn: FIRST_OF_USERS,
            next_port,
            of_outside: BTreeMap::new(),
            of_inside: BTreeMap::new(),
            agenda: BTreeSet::new(),
            out: VecDeque::new(),
        }
    }

    /// Connections that are carried at the moment.
    pub fn connections(&self) -> usize {
        self.pairs.len()
    }

    fn outside(&mut self, output: Output) {
        self.out.push_back(UserOutput::Outside(output));
    }

    fn packet(&mut self, src: SocketAddr, dst: SocketAddr, body: Body) {
        if let Some(packet) = (Packet { src, dst, body }).encode() {
            self.out.push_back(UserOutput::Packet(packet));
        }
    }

    fn add(&mut self, pair: Pair) -> PairId {
        let id = self.next_pair;
        self.next_pair += 1;
        if let Some(conn) = pair.outside {
            self.of_outside.insert(conn, id);
        }
        self.pairs.insert(id, pair);
        id
    }

    // ---- from outside ------------------------------------------------------------------------------

    fn accepted(&mut self, conn: ConnId, port: u16, now: Instant) {
        let forward = self.config.forwards.iter().find(|forward| forward.port == port).cloned();
        if self.pairs.len() >= MAX_PAIRS || (forward.is_none() && self.config.socks != Some(port)) {
            return self.outside(Output::Close { conn });
        }
        let id = self.add(Pair::new(conn));
        match forward {
            Some(forward) => {
                if self.connect(id, &forward.to, forward.to_port, now).is_err() {
                    self.hang_up(id);
                }
            }
            None => {
                if let Some(pair) = self.pairs.get_mut(&id) {
                    pair.handshake = Some((Handshake::default(), now + HANDSHAKE));
                }
            }
        }
        self.service(id, now);
    }

    fn stream(&mut self, id: PairId, data: &Bytes, now: Instant) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let Some((handshake, _)) = &mut pair.handshake else {
            pair.inward.push_back(data.clone());
            return;
        };
        handshake.feed(data);
        loop {
            let Some((handshake, _)) = self.pairs.get_mut(&id).and_then(|pair| pair.handshake.as_mut())
            else {
                return;
            };
            match handshake.step() {
                Step::More => return,
                Step::Say(words) => self.say(id, &words),
                Step::Hangup(words) => {
                    self.say(id, words);
                    return self.hang_up(id);
                }
                Step::Refuse(reply) => {
                    self.say(id, &reply.encode());
                    return self.hang_up(id);
                }
                Step::Connect(target, port) => {
                    let Some(pair) = self.pairs.get_mut(&id) else { return };
                    let rest =
                        pair.handshake.take().map(|(handshake, _)| handshake.rest()).unwrap_or_default();
                    if !rest.is_empty() {
                        pair.inward.push_back(rest.into());
                    }
                    pair.asked = true;
                    if let Err(reply) = self.connect(id, &target, port, now) {
                        self.say(id, &reply.encode());
                        self.hang_up(id);
                    }
                    return;
                }
            }
        }
    }

    /// Says something to the connection outside. It is short, and the first that is said there: there is space.
    fn say(&mut self, id: PairId, words: &[u8]) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let Some(conn) = pair.outside.filter(|_| !words.is_empty()) else { return };
        pair.space = pair.space.saturating_sub(words.len());
        self.outside(Output::Write { conn, data: Bytes::copy_from_slice(words) });
    }

    /// Closes the connection outside.
    fn hang_up(&mut self, id: PairId) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        pair.handshake = None;
        if let Some(conn) = pair.outside.take() {
            self.of_outside.remove(&conn);
            self.outside(Output::Close { conn });
        }
    }

    // ---- in the tunnel -----------------------------------------------------------------------------

    fn connect(&mut self, id: PairId, to: &Target, port: u16, now: Instant) -> Result<(), Reply> {
        let ip = match to {
            Target::Address(ip) => *ip,
            Target::Name(name) => match name.parse() {
                Ok(ip) => ip,
                Err(_) => *self.names.get(name).ok_or(Reply::HostUnreachable)?,
            },
        };
        let own = self.address.filter(|own| own.is_ipv4() == ip.is_ipv4()).ok_or(Reply::HostUnreachable)?;
        if !self.names.values().any(|address| *address == ip) {
            return Err(Reply::HostUnreachable);
        }
        let remote = SocketAddr::new(ip, port);
        let local = EPHEMERAL
            .map(|_| {
                self.next_port =
                    if self.next_port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { self.next_port + 1 };
                SocketAddr::new(own, self.next_port)
            })
            .find(|local| !self.of_inside.contains_key(&(*local, remote)))
            .ok_or(Reply::Failure)?;
        let connection = Connection::connect(config(own), self.rng.next_u32(), now);
        self.attach(id, Inside { connection, local, remote, done: false });
        Ok(())
    }

    fn attach(&mut self, id: PairId, inside: Inside) {
        self.of_inside.insert((inside.local, inside.remote), id);
        if let Some(pair) = self.pairs.get_mut(&id) {
            pair.inside = Some(inside);
        }
    }

    fn segment(&mut self, src: SocketAddr, dst: SocketAddr, segment: &Segment, now: Instant) {
        let known = self.of_inside.get(&(dst, src)).copied();
        // A new connection may take the place of one that only waits for late segments (RFC 9293 §3.10.7.4).
        let replaced = known.filter(|id| {
            let inside = self.pairs.get(id).and_then(|pair| pair.inside.as_ref());
            inside.is_some_and(|inside| inside.connection.is_replaceable_by(segment))
        });
        if let Some(id) = replaced {
            self.remove(id);
        }
        if let Some(id) = known.filter(|_| replaced.is_none()) {
            if let Some(inside) = self.pairs.get_mut(&id).and_then(|pair| pair.inside.as_mut()) {
                inside.connection.handle(segment, now);
            }
            return self.service(id, now);
        }
        let opens = segment.flags.syn() && !segment.flags.ack() && !segment.flags.rst();
        let to = self.config.expose.get(&dst.port()).copied();
        let Some(to) = to.filter(|_| opens && self.pairs.len() < MAX_PAIRS) else {
            // RFC 9293 §3.10.7.1: a segment for a closed port is answered with a reset.
            if let Some(reset) = Segment::reset_for(segment) {
                self.packet(dst, src, Body::Tcp(reset));
            }
            return;
        };
        let conn = self.next_conn;
        // They stay apart from those that are accepted, whose numbers begin at 2^32.
        self.next_conn =
            ConnId(if conn.0 + 1 == ConnId::FIRST_ACCEPTED { FIRST_OF_USERS.0 } else { conn.0 + 1 });
        let connection = Connection::accept(config(dst.ip()), self.rng.next_u32(), segment, now);
        let id = self.add(Pair::new(conn));
        self.attach(id, Inside { connection, local: dst, remote: src, done: false });
        self.outside(Output::Connect { conn, to });
        self.service(id, now);
    }

    fn remove(&mut self, id: PairId) {
        self.hang_up(id);
        if let Some(pair) = self.pairs.remove(&id) {
            if let Some(inside) = pair.inside {
                self.of_inside.remove(&(inside.local, inside.remote));
            }
            if let Some(at) = pair.armed {
                self.agenda.remove(&(at, id));
            }
        }
    }

    /// Carries what can be carried between the two ends of a pair, and out into the tunnel.
    fn service(&mut self, id: PairId, now: Instant) {
        self.events(id);
        self.carry(id);
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let mut segments = Vec::new();
        let mut over = pair.outside.is_none();
        let mut deadline = pair.handshake.as_ref().map(|(_, by)| *by);
        if let Some(inside) = &mut pair.inside {
            while let Some(segment) = inside.connection.poll_transmit(now) {
                segments.push((inside.local, inside.remote, segment));
            }
            over &= inside.connection.is_closed();
            let due = inside.connection.poll_timeout().map(|(at, _)| at);
            deadline = deadline.into_iter().chain(due).min();
        }
        for (src, dst, segment) in segments {
            self.packet(src, dst, Body::Tcp(segment));
        }
        if over {
            return self.remove(id);
        }
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if pair.armed != deadline {
            let before = std::mem::replace(&mut pair.armed, deadline);
            if let Some(at) = before {
                self.agenda.remove(&(at, id));
            }
            self.agenda.extend(deadline.map(|at| (at, id)));
        }
    }

    /// What became of the connection inside.
    fn events(&mut self, id: PairId) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let Some(inside) = &mut pair.inside else { return };
        let mut reply = None;
        while let Some(event) = inside.connection.poll_event() {
            match event {
                tcp::Event::Connected => reply = Some(Reply::Succeeded),
                tcp::Event::Readable | tcp::Event::Writable => {}
                tcp::Event::PeerClosed | tcp::Event::Closed => inside.done = true,
                tcp::Event::Reset => {
                    inside.done = true;
                    reply.get_or_insert(Reply::Refused);
                }
                tcp::Event::TimedOut | tcp::Event::Unreachable => {
                    inside.done = true;
                    reply.get_or_insert(Reply::HostUnreachable);
                }
            }
        }
        if let Some(reply) = reply.filter(|_| std::mem::take(&mut pair.asked)) {
            self.say(id, &reply.encode());
        }
    }

    fn carry(&mut self, id: PairId) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let mut outputs = Vec::new();
        // A SOCKS client hears of the connection before it hears from it.
        if let Some(inside) = pair.inside.as_mut().filter(|_| !pair.asked) {
            while let Some(data) = pair.inward.front_mut() {
                let taken = inside.connection.write(data.clone());
                data.advance(taken);
                if !data.is_empty() {
                    break;
                }
                pair.inward.pop_front();
            }
            if let Some(conn) = pair.outside {
                while pair.space > 0 {
                    if pair.outward.is_empty() {
                        let Some(data) = inside.connection.read() else { break };
                        pair.outward = data;
                    }
                    let data = pair.outward.split_to(pair.outward.len().min(pair.space));
                    pair.space -= data.len();
                    outputs.push(Output::Write { conn, data });
                }
            }
        }
        let full = !pair.inward.is_empty();
        if let Some(conn) = pair.outside.filter(|_| pair.held != full && pair.handshake.is_none()) {
            pair.held = full;
            outputs.push(Output::Hold { conn, hold: full });
        }
        let mut finished = false;
        if let Some(inside) = &mut pair.inside {
            finished = inside.done && pair.outward.is_empty() && inside.connection.readable() == 0;
            if finished || (pair.outside.is_none() && pair.inward.is_empty()) {
                inside.connection.close();
            }
        }
        for output in outputs {
            self.outside(output);
        }
        if finished {
            self.hang_up(id);
        }
    }
}

/// Without Nagle's algorithm, as the connection outside has had its turn at that.
fn config(own: IpAddr) -> Config {
    // IP and TCP headers without options.
    let headers = if own.is_ipv4() { 40 } else { 60 };
    Config { mss: TUNNEL_MTU - headers, nodelay: true, ..Config::default() }
}

impl Users for Userspace {
    fn handle_packet(&mut self, _: &Arc<str>, data: &Bytes, _: Path, now: Instant) {
        let Some(Packet { src, dst, body }) = Packet::decode(data) else { return };
        match body {
            Body::Tcp(segment) => self.segment(src, dst, &segment, now),
            Body::Echo { reply: false, id, seq, data } => {
                self.packet(dst, src, Body::Echo { reply: true, id, seq, data });
            }
            Body::Echo { .. } => {}
        }
    }

    fn set_address(&mut self, address: IpAddr, now: Instant) {
        if self.address.replace(address).is_some_and(|before| before != address) {
            // What came from the other address is nobody's any more.
            let gone: Vec<PairId> = self.of_inside.values().copied().collect();
            for id in gone {
                if let Some(inside) = self.pairs.get_mut(&id).and_then(|pair| pair.inside.as_mut()) {
                    inside.connection.abort();
                }
                self.service(id, now);
                self.remove(id);
            }
        }
    }

    fn map_changed(&mut self, peer: &Peer) {
        self.names =
            peer.names().filter_map(|name| Some((name.to_owned(), peer.tunnel_address(name)?))).collect();
    }

    fn tcp_ports(&self) -> Vec<u16> {
        self.config.socks.into_iter().chain(self.config.forwards.iter().map(|forward| forward.port)).collect()
    }

    fn handle_outside(&mut self, input: Input<'_>, now: Instant) {
        let (Input::Accepted { conn, .. }
        | Input::Connected { conn }
        | Input::Stream { conn, .. }
        | Input::Writable { conn, .. }
        | Input::Closed { conn }) = input
        else {
            return;
        };
        if let Input::Accepted { port, .. } = input {
            return self.accepted(conn, port, now);
        }
        let Some(&id) = self.of_outside.get(&conn) else { return };
        match input {
            Input::Stream { data, .. } => self.stream(id, data, now),
            Input::Writable { space, .. } => {
                if let Some(pair) = self.pairs.get_mut(&id) {
                    pair.space = space;
                }
            }
            Input::Closed { .. } => {
                self.of_outside.remove(&conn);
                if let Some(pair) = self.pairs.get_mut(&id) {
                    pair.outside = None;
                    pair.handshake = None;
                    pair.asked = false;
                }
            }
            _ => {}
        }
        self.service(id, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.agenda.first()
            && at <= now
        {
            self.agenda.pop_first();
            if let Some(pair) = self.pairs.get_mut(&id) {
                pair.armed = None;
                if pair.handshake.as_ref().is_some_and(|(_, by)| *by <= now) {
                    self.hang_up(id);
                } else if let Some(inside) = &mut pair.inside {
                    inside.connection.handle_timeout(now);
                }
            }
            self.service(id, now);
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.agenda.first().map(|(at, _)| (*at, "TCP in the tunnel"))
    }

    fn poll_output(&mut self) -> Option<UserOutput> {
        self.out.pop_front()
    }
}

#[cfg(test)]
mod tests;
