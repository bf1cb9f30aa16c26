//! Answers to refused connections that are given late (RFC 6092 REC-34).

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::key::{Key, Map};
use crate::{Answer, LateAnswer, Proto, Side};

/// How long the inside has to open the connection from its end: RFC 6092 REC-34, as RFC 5382 REQ-4 has it for NATs.
const WAIT_NS: u64 = 6_000_000_000;
/// Connections that wait for their answer at most; those beyond hear nothing. It bounds what a flood of SYNs costs.
const MOST: usize = 1_024;

/// Refused connections, in the order in which their answers come due.
#[derive(Debug, Default)]
pub(super) struct Late {
    waiting: VecDeque<(u64, SocketAddr, SocketAddr)>,
    known: Map<Key, ()>,
    due: VecDeque<LateAnswer>,
}

impl Late {
    /// Notes a SYN of `remote` to `inside`; one that is repeated has its answer on the way.
    pub(super) fn refused(&mut self, inside: SocketAddr, remote: SocketAddr, now: u64) {
        let key = Key::pair(Proto::Tcp, inside, remote);
        if self.waiting.len() < MOST && self.known.insert(key, ()).is_none() {
            self.waiting.push_back((now.saturating_add(WAIT_NS), inside, remote));
        }
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.waiting.front().map(|(at, ..)| *at)
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        self.next_due().is_some_and(|at| at <= now)
    }

    /// Makes the answers that are due by `now`, but for connections that `opened` knows.
    pub(super) fn expire(&mut self, now: u64, opened: impl Fn(SocketAddr, SocketAddr) -> bool) {
        while self.is_due(now) {
            let Some((_, inside, remote)) = self.waiting.pop_front() else { return };
            self.known.swap_remove(&Key::pair(Proto::Tcp, inside, remote));
            if !opened(inside, remote) {
                self.due.push_back(LateAnswer {
                    side: Side::Outside,
                    answer: Answer::Prohibited,
                    proto: Proto::Tcp,
                    src: remote,
                    dst: inside,
                });
            }
        }
    }

    pub(super) fn poll(&mut self) -> Option<LateAnswer> {
        self.due.pop_front()
    }

    pub(super) fn clear(&mut self) {
        *self = Late::default();
    }
}
