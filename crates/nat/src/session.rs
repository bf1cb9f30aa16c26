//! Conversations: their state, and when they end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

use crate::key::to_ns;
use crate::{Proto, TcpFlags, Timeouts};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Out,
    In,
}

const SYN_OUT: u8 = 1;
const SYN_IN: u8 = 2;
const ESTABLISHED: u8 = 4;
const FIN_OUT: u8 = 8;
const FIN_IN: u8 = 16;
const RESET: u8 = 32;

/// One conversation, which belongs to an `owner`.
#[derive(Debug)]
pub(crate) struct Session<T> {
    owner: T,
    proto: Proto,
    /// UDP and ICMP: whether something came back. TCP: the flags above.
    state: u8,
    /// Whether it lives until somebody takes that back.
    pinned: bool,
    created: u64,
    /// Dead from this nanosecond on.
    expires: u64,
    /// The entry of the timer heap that counts; older ones are ignored.
    armed: u64,
    generation: u32,
}

/// A table of conversations that knows which one ends next.
///
/// A refresh only writes `expires`; the heap is touched again when the old time comes, so each conversation costs one
/// heap operation per timeout and not one per packet.
#[derive(Debug)]
#[repr(C)] // What every packet needs stands together.
pub(crate) struct Sessions<T> {
    /// No later than the first of `due`, so that nobody need look there before.
    first_due: u64,
    slab: Slab<Session<T>>,
    udp_unreplied: u64,
    udp_replied: u64,
    udp_replied_after: u64,
    tcp_transitory: u64,
    tcp_established: u64,
    icmp: u64,
    due: BinaryHeap<Reverse<(u64, u32, u32)>>,
    generation: u32,
    capacity: usize,
}

impl<T> Sessions<T> {
    pub(crate) fn new(timeouts: &Timeouts, capacity: usize) -> Self {
        let mut sessions = Sessions {
            first_due: u64::MAX,
            slab: Slab::new(),
            due: BinaryHeap::new(),
            generation: 0,
            capacity: 0,
            udp_unreplied: 0,
            udp_replied: 0,
            udp_replied_after: 0,
            tcp_transitory: 0,
            tcp_established: 0,
            icmp: 0,
        };
        sessions.configure(timeouts, capacity);
        sessions
    }

    /// Sets other times, which conversations get with their next packet, and another capacity, for those to come.
    pub(crate) fn configure(&mut self, timeouts: &Timeouts, capacity: usize) {
        // Slots are numbered by u32.
        self.capacity = capacity.min(u32::MAX as usize);
        self.udp_unreplied = to_ns(timeouts.udp_unreplied);
        self.udp_replied = to_ns(timeouts.udp_replied);
        self.udp_replied_after = to_ns(timeouts.udp_replied_after);
        self.tcp_transitory = to_ns(timeouts.tcp_transitory);
        self.tcp_established = to_ns(timeouts.tcp_established);
        self.icmp = to_ns(timeouts.icmp);
    }

    /// What a conversation belongs to.
    pub(crate) fn owner_mut(&mut self, slot: u32) -> &mut T {
        &mut self.slab[slot as usize].owner
    }

    /// Ends a conversation before its time.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.slab.remove(slot as usize);
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slab.len() >= self.capacity
    }

    pub(crate) fn clear(&mut self) {
        self.slab.clear();
        self.due.clear();
        self.first_due = u64::MAX;
    }

    /// A new conversation, whose first packet is still to be [touched](Self::touch) in. The caller has asked
    /// [`is_full`](Self::is_full).
    pub(crate) fn insert(&mut self, owner: T, proto: Proto, now: u64) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let (state, created) = (0, now);
        let mut session =
            Session { owner, proto, state, pinned: false, created, expires: 0, armed: 0, generation };
        session.expires = now.saturating_add(self.timeout(&session, now));
        session.armed = session.expires;
        let armed = session.armed;
        let slot = self.slab.insert(session) as u32;
        self.push_due(armed, slot, generation);
        slot
    }

    /// A packet of this conversation passes. With `refresh` its time starts anew; a change of TCP's state counts
    /// in any case.
    #[inline]
    pub(crate) fn touch(
        &mut self,
        slot: u32,
        direction: Direction,
        flags: Option<TcpFlags>,
        refresh: bool,
        now: u64,
    ) {
        let before = self.slab[slot as usize].state;
        let after = match flags {
            Some(flags) => tcp_next(before, direction, flags),
            None => before | u8::from(direction == Direction::In),
        };
        let session = &mut self.slab[slot as usize];
        session.state = after;
        if session.pinned {
            return;
        }
        if !refresh && (flags.is_none() || before == after) {
            return;
        }
        let expires = now.saturating_add(self.timeout(&self.slab[slot as usize], now));
        let session = &mut self.slab[slot as usize];
        session.expires = expires;
        if expires < session.armed {
            session.armed = expires;
            let generation = session.generation;
            self.push_due(expires, slot, generation);
        }
    }

    /// A conversation that does not end by itself from now on.
    pub(crate) fn pin(&mut self, slot: u32) {
        let session = &mut self.slab[slot as usize];
        (session.pinned, session.expires) = (true, u64::MAX);
    }

    /// The way back. False if it was not pinned.
    pub(crate) fn unpin(&mut self, slot: u32, now: u64) -> bool {
        let expires = now.saturating_add(self.timeout(&self.slab[slot as usize], now));
        let session = &mut self.slab[slot as usize];
        if !std::mem::replace(&mut session.pinned, false) {
            return false;
        }
        session.expires = expires;
        if expires < session.armed {
            session.armed = expires;
            let generation = session.generation;
            self.push_due(expires, slot, generation);
        }
        true
    }

    /// The next conversation that has ended by `now`, with the time it did.
    #[inline]
    pub(crate) fn pop_expired(&mut self, now: u64) -> Option<(T, u64)> {
        if now < self.first_due { None } else { self.pop_due(now) }
    }

    fn pop_due(&mut self, now: u64) -> Option<(T, u64)> {
        while let Some(&Reverse((at, slot, generation))) = self.due.peek() {
            self.first_due = at;
            if at > now {
                return None;
            }
            self.due.pop();
            let Some(session) = self.slab.get_mut(slot as usize) else { continue };
            if session.generation != generation || session.armed != at {
                continue;
            }
            if session.expires <= now {
                let session = self.slab.remove(slot as usize);
                return Some((session.owner, session.expires));
            }
            session.armed = session.expires;
            self.due.push(Reverse((session.expires, slot, generation)));
        }
        self.first_due = u64::MAX;
        None
    }

    fn push_due(&mut self, at: u64, slot: u32, generation: u32) {
        self.first_due = self.first_due.min(at);
        self.due.push(Reverse((at, slot, generation)));
    }

    /// Ends the conversation that would be the next to end, of several the one whose turn came first.
    pub(crate) fn pop_soonest(&mut self) -> Option<T> {
        loop {
            let Reverse((at, slot, generation)) = self.due.pop()?;
            let Some(session) = self.slab.get_mut(slot as usize) else { continue };
            if session.generation != generation || session.armed != at {
                continue;
            }
            if session.expires <= at {
                return Some(self.slab.remove(slot as usize).owner);
            }
            session.armed = session.expires;
            self.due.push(Reverse((session.expires, slot, generation)));
        }
    }

    /// When something may end next; never later than it really does.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    fn timeout(&self, session: &Session<T>, now: u64) -> u64 {
        match session.proto {
            Proto::Udp if session.state != 0 && now - session.created >= self.udp_replied_after => {
                self.udp_replied
            }
            Proto::Udp => self.udp_unreplied,
            Proto::Tcp if session.state & ESTABLISHED == 0 => self.tcp_transitory,
            Proto::Tcp if closing(session.state) => self.tcp_transitory,
            Proto::Tcp => self.tcp_established,
            Proto::Icmp => self.icmp,
        }
    }
}

/// Whether a FIN has come from both sides, or a RST from either.
fn closing(state: u8) -> bool {
    state & RESET != 0 || state & (FIN_OUT | FIN_IN) == FIN_OUT | FIN_IN
}

/// TCP's states as a NAT sees them, after RFC 6146 §3.5.2.2: established once both sides have sent a SYN (or, when
/// picked up in the middle, once both sides have spoken), closing after two FINs or a RST, and alive again when
/// something else follows a RST, which may have been forged. A SYN on a closing connection starts a new one.
fn tcp_next(state: u8, direction: Direction, flags: TcpFlags) -> u8 {
    let (syn, fin) = match direction {
        Direction::Out => (SYN_OUT, FIN_OUT),
        Direction::In => (SYN_IN, FIN_IN),
    };
    if flags.rst {
        return state | RESET;
    }
    if flags.syn && closing(state) {
        return syn;
    }
    let mut state = state & !RESET | syn;
    if state & (SYN_OUT | SYN_IN) == SYN_OUT | SYN_IN {
        state |= ESTABLISHED;
    }
    if flags.fin {
        state |= fin;
    }
    state
}
