//! TCP as connection tracking sees it: the state table of `nf_conntrack_proto_tcp.c`, without its window checks, as with
//! `nf_conntrack_tcp_be_liberal`.

use std::time::Duration;

use super::table::Way;
use crate::TcpFlags;
use crate::key::to_ns;

/// The states, in the kernel's order and by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    None,
    SynSent,
    SynRecv,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    SynSent2,
    /// The segment passes and changes nothing.
    Ignore,
    /// The segment belongs to no connection.
    Invalid,
}

use State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, Ignore as IG, Invalid as IV,
    LastAck as LA, SynRecv as SR, SynSent as SS, SynSent2 as S2, TimeWait as TW,
};

/// What a segment counts as: the first of these flags that it has, a SYN with ACK apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    Nothing,
}

impl Index {
    fn of(flags: TcpFlags) -> Index {
        match flags {
            TcpFlags { rst: true, .. } => Index::Rst,
            TcpFlags { syn: true, ack: true, .. } => Index::SynAck,
            TcpFlags { syn: true, .. } => Index::Syn,
            TcpFlags { fin: true, .. } => Index::Fin,
            TcpFlags { ack: true, .. } => Index::Ack,
            _ => Index::Nothing,
        }
    }
}

/// By way, kind of segment and state, the state after it (`tcp_conntracks`).
const NEXT: [[[State; 10]; 6]; 2] = [
    [
        [SS, SS, IG, IG, IG, IG, IG, SS, SS, S2],
        [IV, IV, SR, IV, IV, IV, IV, IV, IV, SR],
        [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        [ES, IV, ES, ES, CW, CW, TW, TW, CL, IV],
        [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        [IV; 10],
    ],
    [
        [IV, S2, IV, IV, IV, IV, IV, SS, IV, S2],
        [IV, SR, IG, IG, IG, IG, IG, IG, IG, SR],
        [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        [IV, IG, SR, ES, CW, CW, TW, TW, CL, IG],
        [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        [IV; 10],
    ],
];

/// What a segment does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It passes, and the connection's time starts anew.
    Pass,
    /// It passes and changes nothing.
    Ignore,
    /// It does not belong there.
    Invalid,
    /// It begins another connection: the old one is gone.
    Reopen,
    /// It passes, and ends a connection that nothing was ever heard of.
    Kill,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    state: State,
    last: (Index, Way),
    close_init: bool,
    simultaneous: bool,
    /// Ended by a RST, whatever the state.
    reset: bool,
}

impl Track {
    /// What is not TCP has one too.
    pub(super) const NONE: Track = Track {
        state: State::None,
        last: (Index::Nothing, Way::Original),
        close_init: false,
        simultaneous: false,
        reset: false,
    };

    /// The first segment; `None` for one that begins no connection.
    pub(super) fn open(flags: TcpFlags, pickup: bool) -> Option<Track> {
        let index = Index::of(flags);
        let state = NEXT[Way::Original as usize][index as usize][State::None as usize];
        let known = state < State::Ignore && (state == State::SynSent || pickup);
        known.then_some(Track { state, last: (index, Way::Original), ..Track::NONE })
    }

    /// Another segment.
    pub(super) fn step(&mut self, way: Way, flags: TcpFlags, replied: bool) -> Step {
        let index = Index::of(flags);
        let old = self.state;
        let mut new = NEXT[way as usize][index as usize][old as usize];
        match new {
            State::Invalid => return Step::Invalid,
            State::SynSent if old >= State::TimeWait => {
                if self.close_init || self.last == (Index::Rst, way) {
                    return Step::Reopen;
                }
                new = State::Ignore;
            }
            State::SynSent2 => self.simultaneous = true,
            State::SynRecv if way == Way::Reply && index == Index::Ack && self.simultaneous => {
                new = State::Established;
            }
            _ => {}
        }
        self.last = (index, way);
        if new == State::Ignore {
            return Step::Ignore;
        }
        if old != new && new == State::FinWait {
            self.close_init = true;
        }
        self.state = new;
        self.reset = index == Index::Rst;
        if self.reset && !replied { Step::Kill } else { Step::Pass }
    }

    /// How long it may be silent now, in nanoseconds.
    pub(super) fn timeout(&self, replied: bool, transitory: u64, established: u64) -> u64 {
        // Documentation/networking/nf_conntrack-sysctl, `nf_conntrack_tcp_timeout_*`.
        let at_most = |secs| transitory.min(to_ns(Duration::from_secs(secs)));
        if self.reset {
            return at_most(10);
        }
        match self.state {
            // A connection picked up in the middle, unanswered: `..._unacknowledged`.
            State::Established if !replied => established.min(to_ns(UNACKNOWLEDGED)),
            State::Established => established,
            State::SynRecv | State::CloseWait => at_most(60),
            State::LastAck => at_most(30),
            State::Close => at_most(10),
            _ => transitory,
        }
    }
}

/// `nf_conntrack_tcp_timeout_unacknowledged`.
const UNACKNOWLEDGED: Duration = Duration::from_secs(300);
