//! Fragments of IP packets, of which only the first has ports.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::Nat;
use crate::{Fragments, Packet, Proto, Side};

/// First fragments remembered at a time, so that a flood of them costs no more than this (RFC 4787 REQ-14a).
const MAX_FIRST: usize = 256;

/// How long one is remembered: FRAGMENT_MIN of RFC 6146 §4, 2 s.
const FIRST_NS: u64 = 2_000_000_000;

/// What the fragments of one packet have in common.
type Whole = (Side, Proto, IpAddr, IpAddr, u32);

/// The first fragments that passed lately, oldest first.
#[derive(Debug, Default)]
pub(super) struct FirstFragments(VecDeque<(u64, Whole)>);

impl FirstFragments {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Nat {
    /// Whether a packet is none of the fragments that this NAT does not pass.
    pub(super) fn may_pass_fragment(&mut self, side: Side, packet: &mut dyn Packet, now: u64) -> bool {
        let Some(fragment) = packet.fragment() else { return true };
        if self.config.fragments == Fragments::Drop {
            return false;
        }
        let whole = (side, packet.proto(), packet.src().ip(), packet.dst().ip(), fragment.id);
        let known = &mut self.first_fragments.0;
        while known.len() >= MAX_FIRST || known.front().is_some_and(|(until, _)| *until <= now) {
            known.pop_front();
        }
        if fragment.offset == 0 {
            known.push_back((now.saturating_add(FIRST_NS), whole));
            return true;
        }
        known.iter().any(|(_, first)| *first == whole)
    }
}
