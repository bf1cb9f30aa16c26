//! A host's TCP connections: which segment belongs to which, and what their programs hear of it.

use super::{ConnId, Inbox, Io, Refusal, TcpInput, TimerKey};
use crate::packet::{ErrorKind, Packet};
use ::tcp::{Config, Connection, Event, Segment};
use bytes::Bytes;
use indexmap::IndexMap;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha12Rng;
use rustc_hash::FxBuildHasher;
use slab::Slab;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Linux's default `net.ipv4.ip_local_port_range`.
pub(super) const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

struct Conn {
    connection: Connection,
    local: SocketAddr,
    remote: SocketAddr,
    owner: u32,
    id: ConnId,
    /// The program has heard of it and not yet of its end.
    known: bool,
    /// Its program does not want to read at the moment.
    held: bool,
    /// The handshake is done. Before that no program hears of space to write to: it has yet to hear of the connection.
    open: bool,
    /// What the program believes it may still write.
    credit: usize,
    armed_ns: Option<u64>,
}

/// All connections of a host.
pub(super) struct TcpStack {
    listeners: BTreeMap<u16, u32>,
    conns: Slab<Conn>,
    by_tuple: IndexMap<(SocketAddr, SocketAddr), u32, FxBuildHasher>,
    by_id: IndexMap<(u32, ConnId), u32, FxBuildHasher>,
    accepted: u64,
    rng: ChaCha12Rng,
}

impl TcpStack {
    pub(super) fn new(rng: ChaCha12Rng) -> TcpStack {
        TcpStack {
            listeners: BTreeMap::new(),
            conns: Slab::new(),
            by_tuple: IndexMap::default(),
            by_id: IndexMap::default(),
            accepted: 0,
            rng,
        }
    }

    pub(super) fn listen(&mut self, port: u16, owner: u32) {
        self.listeners.insert(port, owner);
    }

    pub(super) fn listen_if_free(&mut self, port: u16, owner: u32) -> bool {
        let free = !self.listeners.contains_key(&port);
        if free {
            self.listeners.insert(port, owner);
        }
        free
    }

    pub(super) fn close_listener(&mut self, port: u16, owner: u32) {
        if self.listeners.get(&port) == Some(&owner) {
            self.listeners.remove(&port);
        }
    }

    /// Whether a segment from `remote` to `local` would find a connection or a listener.
    pub(super) fn listens(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.listeners.contains_key(&local.port()) || self.by_tuple.contains_key(&(local, remote))
    }

    /// Closes the listeners and connections of a program that has ended; says which connections it knew of.
    pub(super) fn close_all_of(&mut self, owner: u32, io: &mut Io<'_>) -> Vec<ConnId> {
        self.listeners.retain(|_, o| *o != owner);
        let slots: Vec<u32> =
            self.by_id.iter().filter(|((o, _), _)| *o == owner).map(|(_, slot)| *slot).collect();
        self.by_id.retain(|(o, _), _| *o != owner);
        let mut known = Vec::new();
        for slot in slots {
            let conn = &mut self.conns[slot as usize];
            if std::mem::take(&mut conn.known) {
                known.push(conn.id);
            }
            conn.connection.close();
            self.service(slot, io);
        }
        known
    }

    pub(super) fn connect(&mut self, owner: u32, id: ConnId, ip: IpAddr, to: SocketAddr, io: &mut Io<'_>) {
        // RFC 6056 §3.3.1: a random start, then the next port that is free towards this destination.
        let span = u32::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
        let start = self.rng.random_range(0..span);
        let free = (0..span)
            .map(|i| SocketAddr::new(ip, EPHEMERAL.start() + ((start + i) % span) as u16))
            .find(|local| !self.by_tuple.contains_key(&(*local, to)));
        let Some(local) = free else {
            io.inbox.push_back((owner, TcpInput::Closed(id)));
            return;
        };
        let connection = Connection::connect(config(), self.rng.next_u32(), io.clock.now());
        let slot = self.insert(Conn {
            connection,
            local,
            remote: to,
            owner,
            id,
            known: true,
            held: false,
            open: false,
            credit: 0,
            armed_ns: None,
        });
        self.service(slot, io);
    }

    fn insert(&mut self, conn: Conn) -> u32 {
        let tuple = (conn.local, conn.remote);
        let key = (conn.owner, conn.id);
        let slot = self.conns.insert(conn) as u32;
        self.by_tuple.insert(tuple, slot);
        self.by_id.insert(key, slot);
        slot
    }

    pub(super) fn receive(
        &mut self,
        src: SocketAddr,
        dst: SocketAddr,
        segment: &Segment,
        io: &mut Io<'_>,
    ) -> Result<(), Refusal> {
        let existing = self.by_tuple.get(&(dst, src)).copied();
        // A new connection may take the place of one that only waits for late segments (RFC 9293 §3.10.7.4).
        let replaced =
            existing.filter(|slot| self.conns[*slot as usize].connection.is_replaceable_by(segment));
        if let Some(slot) = replaced {
            self.remove(slot);
        }
        let slot = match existing.filter(|_| replaced.is_none()) {
            Some(slot) => slot,
            None => {
                let listener = self.listeners.get(&dst.port()).copied();
                let Some(owner) = listener.filter(|_| opens(segment)) else {
                    // RFC 9293 §3.10.7.1: a segment for a closed port is answered with a reset.
                    if let Some(reset) = Segment::reset_for(segment) {
                        io.out.packets.push(Packet::tcp(dst, src, reset));
                    }
                    return Err("connection-refused");
                };
                let id = ConnId(ConnId::FIRST_ACCEPTED + self.accepted);
                self.accepted += 1;
                let connection = Connection::accept(config(), self.rng.next_u32(), segment, io.clock.now());
                let conn = Conn {
                    connection,
                    local: dst,
                    remote: src,
                    owner,
                    id,
                    known: false,
                    held: false,
                    open: false,
                    credit: 0,
                    armed_ns: None,
                };
                let slot = self.insert(conn);
                self.service(slot, io);
                return Ok(());
            }
        };
        self.conns[slot as usize].connection.handle(segment, io.clock.now());
        self.service(slot, io);
        Ok(())
    }

    /// An ICMP error quotes a segment that went from `local` to `remote`.
    pub(super) fn take_error(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        segment: &Segment,
        kind: ErrorKind,
        io: &mut Io<'_>,
    ) -> Result<(), Refusal> {
        let slot = *self.by_tuple.get(&(local, remote)).ok_or("no-socket")?;
        let connection = &mut self.conns[slot as usize].connection;
        match kind {
            ErrorKind::TooBig { mtu } => {
                // RFC 1191 §3 and RFC 8201 §4: no path is narrower than its IP version allows.
                let (least, headers) = if local.is_ipv4() { (68, 40) } else { (1280, 60) };
                if mtu >= least {
                    let mss = u16::try_from(mtu - headers).unwrap_or(u16::MAX);
                    connection.path_mss(segment.seq, mss, io.clock.now());
                }
            }
            _ => connection.unreachable(segment.seq),
        }
        self.service(slot, io);
        Ok(())
    }

    /// How much a connection takes now; its program is told and counts on it.
    pub(super) fn space(&mut self, owner: u32, id: ConnId) -> Option<usize> {
        let conn = &mut self.conns[*self.by_id.get(&(owner, id))? as usize];
        conn.credit = conn.connection.writable();
        Some(conn.credit)
    }

    /// Returns how many bytes did not fit.
    pub(super) fn write(&mut self, owner: u32, id: ConnId, data: Bytes, io: &mut Io<'_>) -> usize {
        // A connection that has just ended: the program will hear of it.
        let Some(&slot) = self.by_id.get(&(owner, id)) else { return 0 };
        let conn = &mut self.conns[slot as usize];
        let len = data.len();
        let taken = conn.connection.write(data);
        conn.credit = conn.credit.saturating_sub(len);
        self.service(slot, io);
        len - taken
    }

    /// Stops or resumes reading.
    pub(super) fn hold(&mut self, owner: u32, id: ConnId, hold: bool, io: &mut Io<'_>) {
        let Some(&slot) = self.by_id.get(&(owner, id)) else { return };
        let conn = &mut self.conns[slot as usize];
        conn.held = hold;
        if !hold {
            read_all(conn, io.inbox);
            self.service(slot, io);
        }
    }

    pub(super) fn close(&mut self, owner: u32, id: ConnId, io: &mut Io<'_>) {
        let Some(slot) = self.by_id.swap_remove(&(owner, id)) else { return };
        let conn = &mut self.conns[slot as usize];
        conn.known = false;
        conn.connection.close();
        self.service(slot, io);
    }

    /// Drops the connections of addresses other than these.
    pub(super) fn drop_others(&mut self, addresses: &[IpAddr], inbox: &mut Inbox) {
        let gone = |conn: &Conn| !addresses.contains(&conn.local.ip());
        let slots: Vec<usize> =
            self.conns.iter().filter(|(_, conn)| gone(conn)).map(|(slot, _)| slot).collect();
        for slot in slots {
            tell_closed(&mut self.conns[slot], inbox);
            self.remove(slot as u32);
        }
    }

    pub(super) fn handle_timer(&mut self, slot: u32, at_ns: u64, io: &mut Io<'_>) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.armed_ns != Some(at_ns) {
            return;
        }
        conn.armed_ns = None;
        if conn.connection.poll_timeout().is_some_and(|(deadline, _)| deadline <= io.clock.now()) {
            conn.connection.handle_timeout(io.clock.now());
        }
        self.service(slot, io);
    }

    fn remove(&mut self, slot: u32) {
        let conn = self.conns.remove(slot as usize);
        self.by_tuple.swap_remove(&(conn.local, conn.remote));
        // A connection that its program let go lives on until it has ended, and a program that was started anew counts from
        // the beginning: the number may be that of another by now.
        if self.by_id.get(&(conn.owner, conn.id)) == Some(&slot) {
            self.by_id.swap_remove(&(conn.owner, conn.id));
        }
    }

    /// Takes out of a connection whatever it has to say and to send.
    fn service(&mut self, slot: u32, io: &mut Io<'_>) {
        let conn = &mut self.conns[slot as usize];
        let (owner, id) = (conn.owner, conn.id);
        while let Some(event) = conn.connection.poll_event() {
            match event {
                Event::Connected => {
                    conn.open = true;
                    if id.0 >= ConnId::FIRST_ACCEPTED {
                        if self.by_id.contains_key(&(owner, id)) {
                            conn.known = true;
                            let input =
                                TcpInput::Accepted { conn: id, port: conn.local.port(), from: conn.remote };
                            io.inbox.push_back((owner, input));
                        }
                    } else if conn.known {
                        io.inbox.push_back((owner, TcpInput::Connected(id)));
                    }
                }
                Event::Readable if conn.held => {}
                Event::Readable => read_all(conn, io.inbox),
                Event::Writable => {}
                // Nobody here keeps a half-closed connection: close our side as well.
                Event::PeerClosed => {
                    // What came before is still to be had.
                    read_all(conn, io.inbox);
                    conn.connection.close();
                    tell_closed(conn, io.inbox);
                }
                Event::Closed | Event::Reset | Event::TimedOut | Event::Unreachable => {
                    tell_closed(conn, io.inbox);
                }
            }
        }
        let space = conn.connection.writable();
        if conn.known && conn.open && space > conn.credit {
            conn.credit = space;
            io.inbox.push_back((owner, TcpInput::Writable(id)));
        }
        while let Some(segment) = conn.connection.poll_transmit(io.clock.now()) {
            io.out.packets.push(Packet::tcp(conn.local, conn.remote, segment));
        }
        if conn.connection.is_closed() {
            return self.remove(slot);
        }
        if let Some((deadline, _)) = conn.connection.poll_timeout() {
            let at_ns = io.clock.ns(deadline).max(io.clock.now_ns());
            if conn.armed_ns.is_none_or(|armed| at_ns < armed) {
                conn.armed_ns = Some(at_ns);
                io.out.timers.push((at_ns, TimerKey::Conn(slot)));
            }
        }
    }
}

/// Without Nagle's algorithm, as Go's and most servers' sockets: a small frame does not wait for the one before it.
fn config() -> Config {
    Config { nodelay: true, ..Config::default() }
}

/// A SYN that asks a listener for a connection.
fn opens(segment: &Segment) -> bool {
    segment.flags.syn() && !segment.flags.ack() && !segment.flags.rst()
}

/// Hands a program everything that has arrived.
fn read_all(conn: &mut Conn, inbox: &mut Inbox) {
    while let Some(data) = conn.connection.read() {
        if conn.known {
            inbox.push_back((conn.owner, TcpInput::Stream(conn.id, data)));
        }
    }
}

fn tell_closed(conn: &mut Conn, inbox: &mut Inbox) {
    if conn.known {
        conn.known = false;
        inbox.push_back((conn.owner, TcpInput::Closed(conn.id)));
    }
}
