//! What comes before anybody inside has asked for it: what the NAT says to it, and SYNs that wait.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::Nat;
use crate::key::{Key, Map, to_ns};
use crate::{Answer, DropReason, Exhausted, LateAnswer, Packet, Proto, Side, Unsolicited, Verdict};

/// SYNs that wait at a time; more are dropped like others, so that a flood of them costs no more than this.
const MAX_WAITING: usize = 4096;

/// SYNs from outside that wait for one from inside (RFC 5382 REQ-4).
#[derive(Debug, Default)]
pub(super) struct Early {
    /// When each has waited long enough, by its two endpoints.
    waiting: Map<Key, u64>,
    /// The same in the order of time, with those that no longer wait.
    order: VecDeque<(u64, SocketAddr, SocketAddr)>,
    answers: VecDeque<LateAnswer>,
}

impl Early {
    /// A SYN from `remote` waits, if none of the same connection does.
    fn wait(&mut self, external: SocketAddr, remote: SocketAddr, until: u64) {
        let key = Key::pair(Proto::Tcp, external, remote);
        if self.order.len() < MAX_WAITING && !self.waiting.contains_key(&key) {
            self.waiting.insert(key, until);
            // The time to wait may have been changed to a shorter one.
            let after = self.order.partition_point(|(other, ..)| *other <= until);
            self.order.insert(after, (until, external, remote));
        }
    }

    /// A SYN of the same connection left: the one that waits was half of a simultaneous open, and is forgotten.
    pub(super) fn answered(&mut self, external: SocketAddr, remote: SocketAddr) {
        self.waiting.swap_remove(&Key::pair(Proto::Tcp, external, remote));
    }

    /// Answers those that have waited long enough.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some(&(until, external, remote)) = self.order.front()
            && until <= now
        {
            self.order.pop_front();
            let key = Key::pair(Proto::Tcp, external, remote);
            if self.waiting.get(&key) == Some(&until) {
                self.waiting.swap_remove(&key);
                self.answers.push_back(LateAnswer {
                    side: Side::Outside,
                    answer: Answer::PortUnreachable,
                    proto: Proto::Tcp,
                    src: remote,
                    dst: external,
                });
            }
        }
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.order.front().map(|(until, ..)| *until)
    }

    pub(super) fn poll_answer(&mut self) -> Option<LateAnswer> {
        self.answers.pop_front()
    }

    pub(super) fn clear(&mut self) {
        *self = Early::default();
    }
}

impl Nat {
    /// What becomes of a packet from outside that nothing lets pass.
    #[cold]
    pub(super) fn refuse(&mut self, packet: &mut dyn Packet, reason: DropReason, now: u64) -> Verdict {
        let opens = packet.tcp_flags().is_some_and(|flags| flags.syn && !flags.ack && !flags.rst);
        if opens && !self.config.syn_hold.is_zero() && is_unsolicited(reason) {
            let until = now.saturating_add(to_ns(self.config.syn_hold));
            self.unusual = true;
            self.early.wait(packet.dst(), packet.src(), until);
            return Verdict::Drop(reason);
        }
        self.refusal(packet, reason)
    }

    /// Drops a packet from inside, and says so where the NAT does and the reason is that it has no room.
    pub(super) fn exhausted(&self, reason: DropReason) -> Verdict {
        let full = matches!(reason, DropReason::TableFull | DropReason::NoFreePort | DropReason::HostQuota);
        match self.config.exhausted {
            Exhausted::Icmp if full => Verdict::Reject(reason, Answer::Prohibited),
            _ => Verdict::Drop(reason),
        }
    }

    /// Drops a packet, and says so where the NAT does.
    pub(super) fn refusal(&self, packet: &mut dyn Packet, reason: DropReason) -> Verdict {
        let answer = match (self.config.unsolicited, packet.proto()) {
            (Unsolicited::Drop, _) | (_, Proto::Icmp) => None,
            // Nothing answers a RST (RFC 9293 §3.5.2).
            (_, Proto::Tcp) if packet.tcp_flags().is_some_and(|flags| flags.rst) => None,
            (Unsolicited::Rst, Proto::Tcp) => Some(Answer::Reset),
            (Unsolicited::Icmp | Unsolicited::Rst, _) => Some(Answer::PortUnreachable),
        };
        match answer.filter(|_| is_unsolicited(reason)) {
            Some(answer) => Verdict::Reject(reason, answer),
            None => Verdict::Drop(reason),
        }
    }
}

/// Whether a reason means that nobody asked for the packet.
fn is_unsolicited(reason: DropReason) -> bool {
    matches!(reason, DropReason::NoBinding | DropReason::FilteredAddress | DropReason::FilteredPort)
}
