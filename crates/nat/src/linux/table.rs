//! The table of connection tracking: entries found by the tuples of both directions, and when they end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use slab::Slab;

use super::tcp::{Step, Track};
use crate::key::{Key, Map, to_ns};
use crate::{Proto, Side, TcpFlags, Timeouts};

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Which way a packet goes, as seen from the one that began the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Original,
    Reply,
}

/// Source and destination of the packets of one way, before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
}

/// A conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) proto: Proto,
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
    /// Where it was begun.
    pub(super) from: Side,
    /// Where it leads; `None` for the router itself.
    pub(super) to: Option<Side>,
    /// Whether something came back.
    pub(super) replied: bool,
    track: Track,
    /// The kernel calls it a stream once it is this old (`stream_ts`).
    stream_after: u64,
    expires: u64,
    /// The entry of the timer heap that counts; older ones are ignored.
    armed: u64,
    generation: u32,
    /// The neighbours among the entries of one source, by age.
    older: u32,
    newer: u32,
}

/// What a packet of a known conversation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    Pass,
    Invalid,
    /// The conversation is over, and the packet begins another: the caller removes it and looks again.
    Reopened,
}

/// Every conversation the router knows.
#[derive(Debug)]
pub(super) struct Table {
    entries: Slab<Entry>,
    by_tuple: Map<Key, (u32, Way)>,
    /// The newest entry that began from an inside endpoint.
    newest: Map<Key, u32>,
    due: BinaryHeap<Reverse<(u64, u32, u32)>>,
    generation: u32,
    capacity: usize,
    udp_unreplied: u64,
    udp_replied: u64,
    udp_replied_after: u64,
    tcp_transitory: u64,
    tcp_established: u64,
    icmp: u64,
    tcp_pickup: bool,
}

impl Table {
    pub(super) fn new(timeouts: &Timeouts, capacity: usize, tcp_pickup: bool) -> Table {
        let mut table = Table {
            entries: Slab::new(),
            by_tuple: Map::default(),
            newest: Map::default(),
            due: BinaryHeap::new(),
            generation: 0,
            capacity: 0,
            udp_unreplied: 0,
            udp_replied: 0,
            udp_replied_after: 0,
            tcp_transitory: 0,
            tcp_established: 0,
            icmp: 0,
            tcp_pickup,
        };
        table.configure(timeouts, capacity, tcp_pickup);
        table
    }

    /// Sets other times, which conversations get with their next packet, and another capacity, for those to come.
    pub(super) fn configure(&mut self, timeouts: &Timeouts, capacity: usize, tcp_pickup: bool) {
        // Slots are numbered by u32.
        self.capacity = capacity.min(u32::MAX as usize);
        self.udp_unreplied = to_ns(timeouts.udp_unreplied);
        self.udp_replied = to_ns(timeouts.udp_replied);
        self.udp_replied_after = to_ns(timeouts.udp_replied_after);
        self.tcp_transitory = to_ns(timeouts.tcp_transitory);
        self.tcp_established = to_ns(timeouts.tcp_established);
        self.icmp = to_ns(timeouts.icmp);
        self.tcp_pickup = tcp_pickup;
    }

    /// The slots in use.
    pub(super) fn slots(&self) -> Vec<u32> {
        self.entries.iter().map(|(slot, _)| slot as u32).collect()
    }

    /// The router's own endpoint of a conversation, towards the outside.
    pub(super) fn router_side(entry: &Entry) -> SocketAddr {
        match entry.from {
            Side::Inside => entry.reply.dst,
            Side::Outside => entry.original.dst,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    pub(super) fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.by_tuple.clear();
        self.newest.clear();
        self.due.clear();
    }

    /// The conversation that a packet with these endpoints belongs to.
    #[inline]
    pub(super) fn find(&self, proto: Proto, tuple: Tuple) -> Option<(u32, Way)> {
        self.by_tuple.get(&Key::pair(proto, tuple.src, tuple.dst)).copied()
    }

    /// The newest conversation that began from `source` and still lives.
    pub(super) fn newest(&self, proto: Proto, source: SocketAddr) -> Option<&Entry> {
        self.newest.get(&Key::of(proto, source)).map(|slot| self.entry(*slot))
    }

    /// The conversation begun from the same source before `entry`.
    pub(super) fn older(&self, entry: &Entry) -> Option<&Entry> {
        (entry.older != NONE).then(|| self.entry(entry.older))
    }

    /// The state of a conversation that a segment begins; `None` if it cannot.
    pub(super) fn may_open(&self, flags: Option<TcpFlags>) -> Option<Track> {
        flags.map_or(Some(Track::NONE), |flags| Track::open(flags, self.tcp_pickup))
    }

    /// A new conversation. The caller has seen that both its tuples are free, and asked [`is_full`](Self::is_full).
    pub(super) fn insert(
        &mut self,
        proto: Proto,
        [original, reply]: [Tuple; 2],
        from: Side,
        to: Option<Side>,
        track: Track,
        now: u64,
    ) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let source = Key::of(proto, original.src);
        let older = match from {
            Side::Inside => self.newest.get(&source).copied().unwrap_or(NONE),
            Side::Outside => NONE,
        };
        let mut entry = Entry {
            proto,
            original,
            reply,
            from,
            to,
            replied: false,
            track,
            stream_after: now.saturating_add(self.udp_replied_after),
            expires: 0,
            armed: 0,
            generation,
            older,
            newer: NONE,
        };
        entry.expires = now.saturating_add(self.timeout(&entry, now));
        entry.armed = entry.expires;
        let slot = self.entries.insert(entry) as u32;
        self.due.push(Reverse((entry.armed, slot, generation)));
        self.by_tuple.insert(Key::pair(proto, original.src, original.dst), (slot, Way::Original));
        self.by_tuple.insert(Key::pair(proto, reply.src, reply.dst), (slot, Way::Reply));
        if from == Side::Inside {
            self.newest.insert(source, slot);
            if older != NONE {
                self.entries[older as usize].newer = slot;
            }
        }
        slot
    }

    /// A packet of this conversation.
    #[inline]
    pub(super) fn touch(&mut self, slot: u32, way: Way, flags: Option<TcpFlags>, now: u64) -> Touched {
        let entry = &mut self.entries[slot as usize];
        if let Some(flags) = flags {
            match entry.track.step(way, flags, entry.replied) {
                Step::Pass => {}
                Step::Invalid => return Touched::Invalid,
                Step::Ignore => {
                    entry.replied |= way == Way::Reply;
                    return Touched::Pass;
                }
                Step::Reopen => return Touched::Reopened,
                // The caller still needs the entry for this packet: its time is up right after it.
                Step::Kill => {
                    entry.replied |= way == Way::Reply;
                    return self.expire_at(slot, now);
                }
            }
        }
        let entry = &self.entries[slot as usize];
        let expires = now.saturating_add(self.timeout(entry, now));
        // The kernel notes the first answer only after it has chosen the time (`nf_conntrack_in`).
        self.entries[slot as usize].replied |= way == Way::Reply;
        self.expire_at(slot, expires)
    }

    fn expire_at(&mut self, slot: u32, expires: u64) -> Touched {
        let entry = &mut self.entries[slot as usize];
        entry.expires = expires;
        if expires < entry.armed {
            entry.armed = expires;
            self.due.push(Reverse((expires, slot, entry.generation)));
        }
        Touched::Pass
    }

    /// The next conversation that has ended by `now`, with the time it did.
    #[inline]
    pub(super) fn pop_expired(&mut self, now: u64) -> Option<(Entry, u64)> {
        while let Some(&Reverse((at, slot, generation))) = self.due.peek() {
            if at > now {
                return None;
            }
            self.due.pop();
            let Some(entry) = self.entries.get_mut(slot as usize) else { continue };
            if entry.generation != generation || entry.armed != at {
                continue;
            }
            let expires = entry.expires;
            if expires <= now {
                return Some((self.remove(slot), expires));
            }
            entry.armed = expires;
            self.due.push(Reverse((expires, slot, generation)));
        }
        None
    }

    /// When something may end next; never later than it really does.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Forgets a conversation.
    pub(super) fn remove(&mut self, slot: u32) -> Entry {
        let entry = self.entries.remove(slot as usize);
        let Entry { proto, original, reply, from, older, newer, .. } = entry;
        self.by_tuple.swap_remove(&Key::pair(proto, original.src, original.dst));
        self.by_tuple.swap_remove(&Key::pair(proto, reply.src, reply.dst));
        if from == Side::Inside {
            if older != NONE {
                self.entries[older as usize].newer = newer;
            }
            if newer != NONE {
                self.entries[newer as usize].older = older;
            } else if older != NONE {
                self.newest.insert(Key::of(proto, original.src), older);
            } else {
                self.newest.swap_remove(&Key::of(proto, original.src));
            }
        }
        entry
    }

    fn timeout(&self, entry: &Entry, now: u64) -> u64 {
        match entry.proto {
            Proto::Udp if entry.replied && now >= entry.stream_after => self.udp_replied,
            Proto::Udp => self.udp_unreplied,
            Proto::Tcp => entry.track.timeout(entry.replied, self.tcp_transitory, self.tcp_established),
            Proto::Icmp => self.icmp,
        }
    }
}
