//! The paths to one other peer: which addresses may work, which do, and which one carries the tunnel.
//!
//! Two machines run side by side.
//!
//! **The path.** Tunnel packets go
//! - *relayed* while no address is validated;
//! - *direct* on the selected address once a check to it was answered (so both directions work);
//! - *both ways* while the selected address is suspect, or was silent too long to be trusted ([`Route::Both`]);
//! - relayed again when it is dead ([`crate::liveness`]).
//!
//! A better address takes over when it answers: [`Tier`] first, then a round trip shorter by [`Policy::rtt_gain`], in which
//! IPv6 has a start of [`Policy::ipv6_gain`] over IPv4. Packets are accepted from any address at any time, so no switch loses any.
//!
//! **The round.** A round checks every candidate on the schedule of [`PROBE_GAPS`](crate::policy) and calls the other side over
//! the relay to do the same (call-me-maybe). It begins when relayed traffic wants a path, on either side, when the other calls, when a
//! path dies, and when own addresses change; it repeats ever more slowly while traffic stays relayed. The other side always
//! answers a call with its own, once a round. A call is a state, not an event: it is repeated until that side is heard from.
//! A check that comes from an address which is not validated yet triggers one back at once (RFC 8445 §7.3.1.4).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;

use crate::candidate::{Candidate, Origin, Tier, is_usable};
use crate::liveness::{Liveness, Rtt};
use crate::policy::{MAX_CANDIDATES, Policy};
use crate::reach::Reach;

/// What a call into [`Paths`] needs from around it.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) rng: &'a mut ChaCha12Rng,
    pub(crate) policy: &'a Policy,
    /// Own candidates: never checked.
    pub(crate) own: &'a [SocketAddr],
    pub(crate) reach: Reach,
}

/// What [`Paths`] wants done or known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a ping; `size`: at least that long, in bytes of UDP payload.
    Ping { to: SocketAddr, tx: [u8; 12], attempt: u32, why: &'static str, size: usize },
    /// Large packets cannot go on the selected path, or can again.
    Narrow(bool),
    /// Send a call-me-maybe over the relay.
    Call,
    /// Ask for fresh reflexive addresses, if they are old.
    Sample,
    /// A candidate was learned from a packet that came from it.
    Seen(SocketAddr),
    /// A check was answered.
    Validated { address: SocketAddr, rtt: Duration },
    /// The selected path changed.
    Moved { reason: &'static str },
}

/// Where a tunnel packet goes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Relay,
    Direct(SocketAddr),
    Both(SocketAddr),
}

mod checks;
mod width;

use width::Width;

#[derive(Debug)]
struct Best {
    address: SocketAddr,
    /// When it was selected.
    since: Instant,
    rtt: Rtt,
    live: Liveness,
    width: Width,
}

#[derive(Debug)]
struct Round {
    /// Calls sent in it.
    calls: usize,
    /// When the call is repeated.
    call_next: Option<Instant>,
    /// An address was validated in it.
    validated: bool,
}

#[derive(Debug)]
struct Outstanding {
    tx: [u8; 12],
    to: SocketAddr,
    at: Instant,
    /// Length that it was padded to, or 0.
    size: usize,
}

/// All paths to one peer.
#[derive(Debug)]
pub(crate) struct Paths {
    candidates: BTreeMap<SocketAddr, Candidate>,
    best: Option<Best>,
    round: Option<Round>,
    /// When the last round began.
    round_at: Option<Instant>,
    backoff: Duration,
    /// Last tunnel traffic of a program, either way.
    traffic: Option<Instant>,
    pings: VecDeque<Outstanding>,
    actions: VecDeque<Action>,
    /// When addresses were last learned from packets that came from them.
    seen: VecDeque<Instant>,
}

impl Paths {
    pub(crate) fn new(policy: &Policy) -> Paths {
        Paths {
            candidates: BTreeMap::new(),
            best: None,
            round: None,
            round_at: None,
            backoff: policy.round_min,
            traffic: None,
            pings: VecDeque::new(),
            actions: VecDeque::new(),
            seen: VecDeque::new(),
        }
    }

    /// The other side started anew: nothing that was learned of it holds.
    pub(crate) fn forget(&mut self, policy: &Policy) {
        *self = Paths { traffic: self.traffic, ..Paths::new(policy) };
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The selected address, and whether it is in the same LAN.
    pub(crate) fn selected(&self) -> Option<(SocketAddr, Tier)> {
        self.best.as_ref().map(|best| (best.address, self.tier(best.address)))
    }

    /// The smoothed round trip of the selected address.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.best.as_ref().map(|best| best.rtt.smoothed)
    }

    /// How an address of the peer is classed, selected or not.
    pub(crate) fn tier(&self, address: SocketAddr) -> Tier {
        self.candidates.get(&address).map_or(Tier::Direct, |candidate| candidate.tier(address))
    }

    /// Has there ever been traffic?
    pub(crate) fn had_traffic(&self) -> bool {
        self.traffic.is_some()
    }

    /// Has there been traffic lately?
    pub(crate) fn active(&self, now: Instant, policy: &Policy) -> bool {
        self.traffic.is_some_and(|at| now.saturating_duration_since(at) < policy.session_active)
    }

    // ---- traffic ---------------------------------------------------------------------------------

    /// A program sends to the peer: a better path than the relay is wanted.
    pub(crate) fn want(&mut self, cx: &mut Context<'_>) {
        self.traffic = Some(cx.now);
        let stale = self.best.as_ref().map(|best| best.live.stale(cx.now, cx.policy));
        match stale {
            Some(false) => {}
            Some(true) => {
                self.doubt(cx.now);
                if self.round.is_none() && self.gap_over(cx) {
                    self.begin_round(cx);
                }
            }
            None => {
                if self.round.is_none() && self.round_at.is_none_or(|at| at + self.backoff <= cx.now) {
                    self.begin_round(cx);
                }
            }
        }
    }

    /// Where a tunnel packet goes now. `data`: the other side need not answer it, but a living path would bring something.
    /// `size`: its length, in bytes of UDP payload.
    pub(crate) fn route(&mut self, data: bool, size: usize, now: Instant, policy: &Policy) -> Route {
        let Some(best) = &mut self.best else { return Route::Relay };
        if data && !best.width.carries(size, now) {
            return Route::Relay;
        }
        if data {
            best.live.sent(now);
        }
        if best.live.suspect() || best.live.stale(now, policy) {
            Route::Both(best.address)
        } else {
            Route::Direct(best.address)
        }
    }

    /// An authenticated tunnel packet came, from an address or over a relay. `data`: with content for a program.
    pub(crate) fn received(&mut self, from: Option<SocketAddr>, data: bool, cx: &mut Context<'_>) {
        if data {
            self.traffic = Some(cx.now);
        }
        let Some(from) = from else {
            if data {
                self.doubled(cx);
            }
            // It talks over the relay, so it wants a path, and its call may be late or lost.
            let due = self.round_at.is_none_or(|at| at + self.backoff <= cx.now);
            if self.best.is_none() && self.round.is_none() && due {
                self.begin_round(cx);
            }
            return;
        };
        match &mut self.best {
            Some(best) if best.address == from => {
                best.live.heard(cx.now);
                best.width.heard();
            }
            _ => {
                let old = self.best.as_ref().map(|best| self.tier(best.address));
                // The other side chose this address. Check it if it might be the better one.
                if old.is_none_or(|old| self.tier(from) > old) {
                    self.trigger(from, cx);
                }
            }
        }
    }

    /// A copy came over the relay, the first or the second to arrive: the other side no longer trusts the path. Perhaps it hears
    /// nothing on it, and then this side, which does, is the one whose packets get lost.
    pub(crate) fn doubled(&mut self, cx: &mut Context<'_>) {
        if let Some(best) = &mut self.best
            && best.since.max(best.live.answered_at()) + cx.policy.round_gap <= cx.now
        {
            best.live.alarm(cx.now);
            self.run_liveness(cx);
        }
    }

    /// An ICMP error says that a packet to this address was too big for the path.
    pub(crate) fn too_big(&mut self, to: SocketAddr, cx: &mut Context<'_>) {
        if let Some(best) = self.best.as_mut().filter(|best| best.address == to) {
            best.width.told(cx.now);
            self.run_width(cx);
        }
    }

    // ---- candidates ------------------------------------------------------------------------------

    /// Candidates from the map replace those of the map before.
    pub(crate) fn set_map(&mut self, addresses: &[SocketAddr], cx: &mut Context<'_>) {
        let new = self.replace(addresses, cx, |origin| &mut origin.map);
        if new {
            self.backoff = cx.policy.round_min;
            if self.round.is_some() {
                self.begin_new_candidates(cx.now);
            } else if self.best.is_none() && self.active(cx.now, cx.policy) && self.gap_over(cx) {
                self.begin_round(cx);
            }
        }
    }

    /// A call-me-maybe came over the relay: the other side has just sent to all our candidates.
    pub(crate) fn called(&mut self, addresses: &[SocketAddr], cx: &mut Context<'_>) {
        let new = self.replace(addresses, cx, |origin| &mut origin.call);
        if let Some(best) = &self.best {
            let proven = cx.now.saturating_duration_since(best.live.answered_at()) < cx.policy.round_gap;
            if proven && self.tier(best.address) == Tier::Lan {
                return;
            }
            if !proven {
                // It would not call if it were content with the path.
                self.doubt(cx.now);
            }
        }
        if new {
            self.backoff = cx.policy.round_min;
        }
        let gap_over = self.gap_over(cx);
        match &mut self.round {
            Some(round) => {
                round.call_next = None;
                let best = self.best.as_ref().map(|best| best.address);
                for (address, candidate) in &mut self.candidates {
                    let done = candidate.restarted || Some(*address) == best;
                    let fresh = candidate.answered.is_some() && candidate.next.is_none();
                    if candidate.origin.call && !done && !fresh {
                        candidate.restarted = candidate.began.is_some();
                        candidate.begin(cx.now);
                    }
                }
                self.run_checks(cx);
            }
            None if gap_over => {
                self.begin_round(cx);
                if let Some(round) = &mut self.round {
                    round.call_next = None;
                }
            }
            None => {
                self.begin_new_candidates(cx.now);
                self.run_checks(cx);
            }
        }
    }

    /// Own addresses changed: the other side must learn them. `moved`: the old ones are gone, so no path can be trusted.
    pub(crate) fn own_changed(&mut self, moved: bool, cx: &mut Context<'_>) {
        self.backoff = cx.policy.round_min;
        if moved {
            self.doubt(cx.now);
        }
        if let (Some(round), false) = (&mut self.round, moved) {
            round.calls += 1;
            self.actions.push_back(Action::Call);
        } else if self.active(cx.now, cx.policy) && (moved || self.best.is_none()) && self.gap_over(cx) {
            self.begin_round(cx);
        }
    }

    fn replace(
        &mut self,
        addresses: &[SocketAddr],
        cx: &Context<'_>,
        flag: impl Fn(&mut Origin) -> &mut bool,
    ) -> bool {
        for candidate in self.candidates.values_mut() {
            *flag(&mut candidate.origin) = false;
        }
        let mut new = false;
        for &address in addresses.iter().take(MAX_CANDIDATES) {
            if is_usable(address, cx.policy) && cx.reach.reaches(address) && !cx.own.contains(&address) {
                new |= !self.candidates.contains_key(&address);
                if let Some(candidate) = self.candidate(address) {
                    *flag(&mut candidate.origin) = true;
                }
            }
        }
        let best = self.best.as_ref().map(|best| best.address);
        self.candidates.retain(|address, candidate| !candidate.origin.is_none() || Some(*address) == best);
        new
    }

    /// The candidate at `address`, made if there is room.
    fn candidate(&mut self, address: SocketAddr) -> Option<&mut Candidate> {
        if !self.candidates.contains_key(&address) {
            if self.candidates.len() >= MAX_CANDIDATES {
                let best = self.best.as_ref().map(|best| best.address);
                let useless = self.candidates.iter().find(|(address, candidate)| {
                    !candidate.origin.map && !candidate.origin.call && Some(**address) != best
                });
                let useless = *useless?.0;
                self.candidates.remove(&useless);
            }
            self.candidates.insert(address, Candidate::new(Origin::default()));
        }
        self.candidates.get_mut(&address)
    }

    // ---- time ------------------------------------------------------------------------------------

    /// The next deadline and what it is for.
    pub(crate) fn poll_timeout(&self, now: Instant, policy: &Policy) -> Option<(Instant, &'static str)> {
        let active = self.active(now, policy);
        let checks = self.candidates.values().filter_map(|candidate| candidate.next).min();
        let call = self.round.as_ref().and_then(|round| round.call_next);
        let again = match (self.round_at, &self.round, &self.best) {
            (Some(at), None, None) if active => Some(at + self.backoff),
            _ => None,
        };
        let live = self.best.as_ref().and_then(|best| best.live.poll_timeout(best.rtt, active, policy));
        let width = self.best.as_ref().and_then(|best| best.width.poll_timeout(active, policy.round_max));
        let named =
            [(checks, "check"), (call, "call again"), (again, "next round"), (width, "width of the path")];
        named.into_iter().filter_map(|(at, why)| at.map(|at| (at, why))).chain(live).min()
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.run_liveness(cx);
        self.run_width(cx);
        self.run_checks(cx);
        let again = self.round_at.is_some_and(|at| at + self.backoff <= cx.now);
        if again && self.round.is_none() && self.best.is_none() && self.active(cx.now, cx.policy) {
            self.begin_round(cx);
        }
    }
}

#[cfg(test)]
mod tests;
