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
//! A better address takes over when it answers: [`Tier`] first, then a round trip shorter by [`Policy::rtt_gain`]. Packets are
//! accepted from any address at any time, so no switch loses any.
//!
//! **The round.** A round checks every candidate on the schedule of [`PROBE_GAPS`](crate::policy) and calls the other side over
//! the relay to do the same (call-me-maybe). It begins when relayed traffic wants a path, when the other side calls, when a
//! path dies, and when own addresses change; it repeats ever more slowly while traffic stays relayed. The other side always
//! answers a call with its own, once a round. A call is a state, not an event: it is repeated until that side is heard from.
//! A check that comes from an address which is not validated yet triggers one back at once (RFC 8445 §7.3.1.4).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::ChaCha12Rng;

use crate::candidate::{Candidate, Origin, Tier, is_usable};
use crate::liveness::{Liveness, Rtt, Verdict};
use crate::policy::{MAX_CANDIDATES, MAX_OUTSTANDING, PROBES_BESIDE_VALIDATED, Policy};

/// What a call into [`Paths`] needs from around it.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) rng: &'a mut ChaCha12Rng,
    pub(crate) policy: &'a Policy,
    /// Own candidates: never checked.
    pub(crate) own: &'a [SocketAddr],
}

/// What [`Paths`] wants done or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a ping.
    Ping { to: SocketAddr, tx: [u8; 12], attempt: u32, why: &'static str },
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

#[derive(Debug)]
struct Best {
    address: SocketAddr,
    rtt: Rtt,
    live: Liveness,
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
    pub(crate) fn route(&mut self, data: bool, now: Instant, policy: &Policy) -> Route {
        let Some(best) = &mut self.best else { return Route::Relay };
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
        let Some(from) = from else { return };
        match &mut self.best {
            Some(best) if best.address == from => best.live.heard(cx.now),
            _ => {
                let old = self.best.as_ref().map(|best| self.tier(best.address));
                // The other side chose this address. Check it if it might be the better one.
                if old.is_none_or(|old| self.tier(from) > old) {
                    self.trigger(from, cx);
                }
            }
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
            if is_usable(address) && !cx.own.contains(&address) {
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

    // ---- checks ----------------------------------------------------------------------------------

    /// An authenticated ping came from `from`. The caller answers it.
    pub(crate) fn pinged(&mut self, from: SocketAddr, cx: &mut Context<'_>) {
        if let Some(round) = &mut self.round {
            round.call_next = None;
        }
        match &mut self.best {
            Some(best) if best.address == from => best.live.heard(cx.now),
            _ => self.trigger(from, cx),
        }
    }

    /// A pong with transaction `tx` came from `from`.
    pub(crate) fn ponged(&mut self, tx: [u8; 12], from: SocketAddr, cx: &mut Context<'_>) {
        // A path is symmetric (RFC 8445 §7.2.5.2.1): an answer from elsewhere validates nothing.
        let Some(index) = self.pings.iter().position(|ping| ping.tx == tx && ping.to == from) else { return };
        let Some(ping) = self.pings.remove(index) else { return };
        let sample = cx.now.saturating_duration_since(ping.at);
        let Some(candidate) = self.candidates.get_mut(&from) else { return };
        let first = candidate.answered.is_none();
        let rtt = match &mut candidate.rtt {
            Some(rtt) if !first => {
                rtt.add(sample);
                *rtt
            }
            rtt => *rtt.insert(Rtt::first(sample)),
        };
        candidate.answered = Some(cx.now);
        candidate.next = None;
        if let Some(round) = &mut self.round {
            round.call_next = None;
            round.validated = true;
        }
        if first {
            self.actions.push_back(Action::Validated { address: from, rtt: sample });
        }
        self.backoff = cx.policy.round_min;
        match &mut self.best {
            Some(best) if best.address == from => {
                best.rtt = rtt;
                best.live.answered(cx.now);
            }
            _ => self.consider(from, rtt, cx),
        }
    }

    /// Moves to a validated address if it is better than the selected one.
    fn consider(&mut self, address: SocketAddr, rtt: Rtt, cx: &Context<'_>) {
        let reason = match &self.best {
            None => "validated",
            Some(best) if best.live.suspect() || best.live.stale(cx.now, cx.policy) => {
                "the one before is silent"
            }
            Some(best) => {
                let (new, old) = (self.tier(address), self.tier(best.address));
                if new > old {
                    "same network"
                } else if new == old && rtt.smoothed + cx.policy.rtt_gain <= best.rtt.smoothed {
                    "shorter round trip"
                } else {
                    return;
                }
            }
        };
        if let Some(old) = self.best.replace(Best { address, rtt, live: Liveness::new(cx.now) })
            && let Some(candidate) = self.candidates.get_mut(&old.address)
        {
            candidate.answered = None;
        }
        self.actions.push_back(Action::Moved { reason });
    }

    /// A check back to where one came from (RFC 8445 §7.3.1.4), within the candidate's budget.
    fn trigger(&mut self, from: SocketAddr, cx: &mut Context<'_>) {
        if !is_usable(from) {
            return;
        }
        let (idle, now) = (self.round.is_none(), cx.now);
        let gap = cx.policy.round_gap;
        let new = !self.candidates.contains_key(&from);
        let Some(candidate) = self.candidate(from) else { return };
        candidate.origin.seen = true;
        let recent = candidate.answered.is_some_and(|at| now.saturating_duration_since(at) < gap);
        if candidate.began.is_none_or(|at| idle && candidate.next.is_none() && at + gap <= now) {
            candidate.begin(now);
        }
        let due = !recent && candidate.has_budget(now);
        if new {
            self.actions.push_back(Action::Seen(from));
        }
        if due {
            self.check(from, "triggered", cx);
        }
    }

    fn check(&mut self, to: SocketAddr, why: &'static str, cx: &mut Context<'_>) {
        if let Some(candidate) = self.candidates.get_mut(&to) {
            let attempt = candidate.check(cx.now);
            self.ping(to, attempt, why, cx);
        }
    }

    fn ping(&mut self, to: SocketAddr, attempt: u32, why: &'static str, cx: &mut Context<'_>) {
        let mut tx = [0; 12];
        cx.rng.fill_bytes(&mut tx);
        while self.pings.front().is_some_and(|ping| {
            self.pings.len() >= MAX_OUTSTANDING || ping.at + cx.policy.ping_timeout <= cx.now
        }) {
            self.pings.pop_front();
        }
        self.pings.push_back(Outstanding { tx, to, at: cx.now });
        self.actions.push_back(Action::Ping { to, tx, attempt, why });
    }

    // ---- rounds ----------------------------------------------------------------------------------

    fn gap_over(&self, cx: &Context<'_>) -> bool {
        self.round_at.is_none_or(|at| at + cx.policy.round_gap <= cx.now)
    }

    fn begin_round(&mut self, cx: &mut Context<'_>) {
        self.actions.push_back(Action::Sample);
        let best = self.best.as_ref().map(|best| best.address);
        let long_ago = cx.policy.session_active;
        // Peer-reflexive addresses nobody else named are worth another round, not a life-time.
        self.candidates.retain(|address, candidate| {
            let named = candidate.origin.map || candidate.origin.call || Some(*address) == best;
            named || candidate.began.is_some_and(|at| cx.now.saturating_duration_since(at) < long_ago)
        });
        for (address, candidate) in &mut self.candidates {
            candidate.restarted = false;
            if Some(*address) == best {
                candidate.next = None; // the liveness check sees to it
            } else {
                candidate.answered = None;
                candidate.begin(cx.now);
            }
        }
        if self.round_at.is_some_and(|at| at + self.backoff <= cx.now) {
            self.backoff = (self.backoff * 2).min(cx.policy.round_max);
        }
        self.round_at = Some(cx.now);
        let call_next = cx.policy.call_again.first().map(|&wait| cx.now + wait);
        self.round = Some(Round { calls: 1, call_next, validated: false });
        self.run_checks(cx);
        self.actions.push_back(Action::Call);
        self.run_liveness(cx);
    }

    fn begin_new_candidates(&mut self, now: Instant) {
        for candidate in self.candidates.values_mut() {
            if candidate.began.is_none() {
                candidate.begin(now);
            }
        }
    }

    /// Once an address is validated, others are checked further only if they could still win.
    fn worthwhile(&self, address: SocketAddr, candidate: &Candidate) -> bool {
        let Some(best) = &self.best else { return true };
        if !self.round.as_ref().is_none_or(|round| round.validated) {
            return true;
        }
        let (new, old) = (candidate.tier(address), self.tier(best.address));
        new > old || (new == old && candidate.attempt < PROBES_BESIDE_VALIDATED)
    }

    fn run_checks(&mut self, cx: &mut Context<'_>) {
        let due: Vec<(SocketAddr, bool)> = self
            .candidates
            .iter()
            .filter(|(_, candidate)| candidate.next.is_some_and(|at| at <= cx.now))
            .map(|(&address, candidate)| (address, self.worthwhile(address, candidate)))
            .collect();
        for (address, worthwhile) in due {
            if worthwhile {
                self.check(address, "check", cx);
            } else if let Some(candidate) = self.candidates.get_mut(&address) {
                candidate.next = None;
            }
        }
        if let Some(round) = &mut self.round {
            if round.call_next.is_some_and(|at| at <= cx.now) {
                let wait = cx.policy.call_again.get(round.calls).copied();
                let before = cx.policy.call_again.get(round.calls - 1).copied().unwrap_or_default();
                round.call_next = wait.map(|wait| cx.now + wait.saturating_sub(before));
                round.calls += 1;
                self.actions.push_back(Action::Call);
            }
            let checking = self.candidates.values().any(|candidate| candidate.next.is_some());
            if !checking && self.round.as_ref().is_some_and(|round| round.call_next.is_none()) {
                self.round = None;
            }
        }
    }

    fn doubt(&mut self, now: Instant) {
        if let Some(best) = &mut self.best {
            best.live.doubt(now);
        }
    }

    fn run_liveness(&mut self, cx: &mut Context<'_>) {
        let active = self.active(cx.now, cx.policy);
        while let Some(best) = &mut self.best {
            match best.live.handle_timeout(best.rtt, active, cx.policy, cx.now) {
                Verdict::Wait => return,
                Verdict::Probe { attempt, why } => {
                    let to = best.address;
                    self.ping(to, attempt, why, cx);
                }
                Verdict::Dead => {
                    if let Some(candidate) = self.candidates.get_mut(&best.address) {
                        candidate.answered = None;
                        if self.round.is_some() {
                            candidate.begin(cx.now);
                        }
                    }
                    self.best = None;
                    self.actions.push_back(Action::Moved { reason: "no answer to several probes" });
                    self.backoff = cx.policy.round_min;
                    if active && self.round.is_none() {
                        self.begin_round(cx);
                    }
                }
            }
        }
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
        let named = [(checks, "check"), (call, "call again"), (again, "next round")];
        named.into_iter().filter_map(|(at, why)| at.map(|at| (at, why))).chain(live).min()
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.run_liveness(cx);
        self.run_checks(cx);
        let again = self.round_at.is_some_and(|at| at + self.backoff <= cx.now);
        if again && self.round.is_none() && self.best.is_none() && self.active(cx.now, cx.policy) {
            self.begin_round(cx);
        }
    }
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
