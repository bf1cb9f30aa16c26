//! Connectivity checks, and the rounds in which they are made.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;

use super::width::{Measure, Width};
use super::{Action, Best, Context, Outstanding, Paths, Round};
use crate::candidate::{Candidate, is_usable};
use crate::liveness::{Liveness, Rtt, Verdict};
use crate::policy::{MAX_OUTSTANDING, MAX_SEEN, PROBES_BESIDE_VALIDATED, SEEN_WINDOW};

impl Paths {
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
        // An answer proves that what is sent to the address arrives, wherever the answer itself comes from. RFC 8445
        // §7.2.5.2.1 wants one path both ways; where both mappings vary and a filter is open there is one each way only, and
        // both work. Tailscale takes such answers too (`handlePongConnLocked`, `wgengine/magicsock/endpoint.go`).
        let Some(index) = self.pings.iter().position(|ping| ping.tx == tx) else { return };
        let Some(Outstanding { to, at, size, .. }) = self.pings.remove(index) else { return };
        if size > 0 {
            // Its round trip is that of a long packet, and would be compared with those of short ones.
            return self.wide_enough(to, cx);
        }
        let sample = cx.now.saturating_duration_since(at);
        if from != to {
            self.trigger(from, cx);
        }
        let Some(candidate) = self.candidates.get_mut(&to) else { return };
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
            self.actions.push_back(Action::Validated { address: to, rtt: sample });
        }
        self.backoff = cx.policy.round_min;
        match &mut self.best {
            Some(best) if best.address == to => {
                best.rtt = rtt;
                best.live.answered(cx.now);
                best.width.answered(cx.now);
                self.run_width(cx);
            }
            _ => self.consider(to, rtt, cx),
        }
    }

    /// Moves to a validated address if it is better than the selected one.
    pub(super) fn consider(&mut self, address: SocketAddr, rtt: Rtt, cx: &Context<'_>) {
        let reason = match &self.best {
            None => "validated",
            Some(best) if best.live.suspect() || best.live.stale(cx.now, cx.policy) => {
                "the one before is silent"
            }
            Some(best) => {
                let (new, old) = (self.tier(address), self.tier(best.address));
                let (v6, was_v6) = (address.is_ipv6(), best.address.is_ipv6());
                let start = |has| if has { cx.policy.ipv6_gain } else { Duration::ZERO };
                let (ours, theirs) = (start(v6 && !was_v6), start(was_v6 && !v6));
                if new > old {
                    "same network"
                } else if new == old && rtt.smoothed + cx.policy.rtt_gain + theirs <= best.rtt.smoothed + ours
                {
                    if ours.is_zero() { "shorter round trip" } else { "IPv6" }
                } else {
                    return;
                }
            }
        };
        if let Some(old) = self.best.replace(Best {
            address,
            since: cx.now,
            rtt,
            live: Liveness::new(cx.now),
            width: Width::default(),
        }) && let Some(candidate) = self.candidates.get_mut(&old.address)
        {
            candidate.answered = None;
        }
        self.actions.push_back(Action::Moved { reason });
    }

    /// A check back to where one came from (RFC 8445 §7.3.1.4), within the candidate's budget.
    pub(super) fn trigger(&mut self, from: SocketAddr, cx: &mut Context<'_>) {
        if !is_usable(from, cx.policy) {
            return;
        }
        let (idle, now) = (self.round.is_none(), cx.now);
        let gap = cx.policy.round_gap;
        let new = !self.candidates.contains_key(&from);
        // With a path that works and is as good, a schedule is not renewed: the other side's checks would renew it for ever.
        let settled = self.best.as_ref().is_some_and(|best| {
            let sound = !best.live.suspect() && !best.live.stale(now, cx.policy);
            sound && self.tier(best.address) >= self.tier(from)
        });
        // Two NATs that take a new port for each destination make a new address of each check and answer, without end.
        if new && !(cx.policy.learn_peer_reflexive && self.may_see_another(now)) {
            return;
        }
        let Some(candidate) = self.candidate(from) else { return };
        candidate.origin.seen = true;
        let recent = candidate.answered.is_some_and(|at| now.saturating_duration_since(at) < gap);
        let renews = idle && !settled && candidate.next.is_none();
        if candidate.began.is_none_or(|at| renews && at + gap <= now) {
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

    /// Whether one more address may be learned from a packet that came from it.
    fn may_see_another(&mut self, now: Instant) -> bool {
        while self.seen.front().is_some_and(|&at| at + SEEN_WINDOW <= now) {
            self.seen.pop_front();
        }
        let may = self.seen.len() < MAX_SEEN;
        if may {
            self.seen.push_back(now);
        }
        may
    }

    pub(super) fn check(&mut self, to: SocketAddr, why: &'static str, cx: &mut Context<'_>) {
        if let Some(candidate) = self.candidates.get_mut(&to) {
            let attempt = candidate.check(cx.now);
            self.ping(to, attempt, why, 0, cx);
        }
    }

    pub(super) fn ping(
        &mut self,
        to: SocketAddr,
        attempt: u32,
        why: &'static str,
        size: usize,
        cx: &mut Context<'_>,
    ) {
        let mut tx = [0; 12];
        cx.rng.fill_bytes(&mut tx);
        while self.pings.front().is_some_and(|ping| {
            self.pings.len() >= MAX_OUTSTANDING || ping.at + cx.policy.ping_timeout <= cx.now
        }) {
            self.pings.pop_front();
        }
        self.pings.push_back(Outstanding { tx, to, at: cx.now, size });
        self.actions.push_back(Action::Ping { to, tx, attempt, why, size });
    }

    // ---- rounds ----------------------------------------------------------------------------------

    pub(super) fn gap_over(&self, cx: &Context<'_>) -> bool {
        self.round_at.is_none_or(|at| at + cx.policy.round_gap <= cx.now)
    }

    pub(super) fn begin_round(&mut self, cx: &mut Context<'_>) {
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

    pub(super) fn begin_new_candidates(&mut self, now: Instant) {
        for candidate in self.candidates.values_mut() {
            if candidate.began.is_none() {
                candidate.begin(now);
            }
        }
    }

    /// Once an address is validated, others are checked further only if they could still win.
    pub(super) fn worthwhile(&self, address: SocketAddr, candidate: &Candidate) -> bool {
        let Some(best) = &self.best else { return true };
        if !self.round.as_ref().is_none_or(|round| round.validated) {
            return true;
        }
        let (new, old) = (candidate.tier(address), self.tier(best.address));
        new > old || (new == old && candidate.attempt < PROBES_BESIDE_VALIDATED)
    }

    pub(super) fn run_checks(&mut self, cx: &mut Context<'_>) {
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

    pub(super) fn doubt(&mut self, now: Instant) {
        if let Some(best) = &mut self.best {
            best.live.doubt(now);
        }
    }

    /// A check of full length was answered.
    fn wide_enough(&mut self, to: SocketAddr, cx: &Context<'_>) {
        if let Some(best) = self.best.as_mut().filter(|best| best.address == to) {
            best.live.answered(cx.now);
            if best.width.proven() {
                self.actions.push_back(Action::Narrow(false));
            }
        }
    }

    pub(super) fn run_width(&mut self, cx: &mut Context<'_>) {
        let active = self.active(cx.now, cx.policy);
        while let Some(best) = &mut self.best {
            match best.width.handle_timeout(active, cx.policy.round_max, cx.now) {
                Measure::Wait => return,
                Measure::Probe { size, attempt } => {
                    let to = best.address;
                    self.ping(to, attempt, "width", size, cx);
                }
                Measure::Narrow => self.actions.push_back(Action::Narrow(true)),
            }
        }
    }

    pub(super) fn run_liveness(&mut self, cx: &mut Context<'_>) {
        let active = self.active(cx.now, cx.policy);
        while let Some(best) = &mut self.best {
            match best.live.handle_timeout(best.rtt, active, cx.policy, cx.now) {
                Verdict::Wait => return,
                Verdict::Probe { attempt, why } => {
                    let to = best.address;
                    self.ping(to, attempt, why, 0, cx);
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
}
