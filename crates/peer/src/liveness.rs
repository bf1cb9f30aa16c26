//! Is the selected direct path alive?
//!
//! ```text
//!         tunnel packets unanswered, quiet, unconfirmed, doubted
//!   calm ───────────────────────────────────────────────────────▶ asking ──probe missed──▶ suspect ──4 missed──▶ dead
//!    ▲                                                              │                        │
//!    └──────────────────────── heard again ─────────────────────────┴────────────────────────┘
//! ```
//! *Asking*: probes are out, traffic goes on. *Suspect*: traffic is doubled over the relay. *Dead*: the path is left.
//! "Heard" is anything authenticated from the path's address, or only an answered probe when the check is strict: packets
//! that come in prove nothing about those that go out, so every now and then the path must answer. But while packets do come
//! in, the other side is content with it, and an answer may be late only because it waits in a queue behind our own traffic:
//! then a missed probe does not count until the ping itself is given up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::policy::Policy;

/// Smoothed round trip and its deviation (RFC 6298 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rtt {
    pub(crate) smoothed: Duration,
    deviation: Duration,
}

impl Rtt {
    pub(crate) fn first(sample: Duration) -> Rtt {
        Rtt { smoothed: sample, deviation: sample / 2 }
    }

    pub(crate) fn add(&mut self, sample: Duration) {
        self.deviation = (self.deviation * 3 + self.smoothed.abs_diff(sample)) / 4;
        self.smoothed = (self.smoothed * 7 + sample) / 8;
    }

    fn timeout(&self, policy: &Policy) -> Duration {
        let (low, high) = policy.liveness_timeout;
        (self.smoothed + self.deviation * 4).clamp(low, high)
    }
}

/// What a timeout asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing now.
    Wait,
    /// Send a ping.
    Probe { attempt: u32, why: &'static str },
    /// Leave the path.
    Dead,
}

#[derive(Debug)]
struct Check {
    strict: bool,
    /// There is a reason to think that it is dead, beyond the time that passed.
    urgent: bool,
    why: &'static str,
    sent: u32,
    missed: u32,
    began: Instant,
    next: Instant,
    waiting: VecDeque<Instant>,
}

/// Watches one path.
#[derive(Debug)]
pub(crate) struct Liveness {
    heard: Instant,
    answered: Instant,
    /// The first tunnel packet since something was heard.
    unanswered: Option<Instant>,
    check: Option<Check>,
}

impl Liveness {
    /// A path that has just answered.
    pub(crate) fn new(now: Instant) -> Liveness {
        Liveness { heard: now, answered: now, unanswered: None, check: None }
    }

    /// When it last answered a probe.
    pub(crate) fn answered_at(&self) -> Instant {
        self.answered
    }

    /// Something authenticated came from it.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = None;
        if self.check.as_ref().is_some_and(|check| !check.strict) {
            self.check = None;
        }
    }

    /// It answered a probe.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.check = None;
        self.answered = now;
        self.heard(now);
    }

    /// A tunnel packet went out on it.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// Must prove itself by answering, from now on.
    pub(crate) fn doubt(&mut self, now: Instant) {
        let check = self.check.get_or_insert_with(|| Check::new(true, "liveness", now));
        (check.strict, check.urgent) = (true, true);
    }

    /// As [`doubt`](Self::doubt), and suspect from this moment.
    pub(crate) fn alarm(&mut self, now: Instant) {
        self.doubt(now);
        if let Some(check) = &mut self.check {
            check.missed = check.missed.max(1);
        }
    }

    /// Was it silent for too long to be trusted alone?
    pub(crate) fn stale(&self, now: Instant, policy: &Policy) -> bool {
        now.saturating_duration_since(self.heard) > policy.trust
    }

    /// Has it missed a probe?
    pub(crate) fn suspect(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.missed > 0)
    }

    /// The next deadline. `active`: the session wants the path kept alive.
    pub(crate) fn poll_timeout(
        &self,
        rtt: Rtt,
        active: bool,
        policy: &Policy,
    ) -> Option<(Instant, &'static str)> {
        if let Some(check) = &self.check {
            let missed = check.waiting.front().map(|&at| at + rtt.timeout(policy));
            return Some(missed.map_or((check.next, "liveness probe"), |missed| {
                if missed < check.next {
                    (missed, "liveness probe missed")
                } else {
                    (check.next, "liveness probe")
                }
            }));
        }
        let silence = self.unanswered.map(|at| (at + policy.silence, "silence"));
        let beat = active.then(|| (self.heard + policy.heartbeat).min(self.answered + policy.confirm));
        silence.into_iter().chain(beat.map(|at| (at, "heartbeat"))).min()
    }

    /// Call until it says [`Verdict::Wait`] or [`Verdict::Dead`].
    pub(crate) fn handle_timeout(
        &mut self,
        rtt: Rtt,
        active: bool,
        policy: &Policy,
        now: Instant,
    ) -> Verdict {
        if self.check.is_none() {
            let silent = self.unanswered.is_some_and(|at| at + policy.silence <= now);
            let quiet = active && self.heard + policy.heartbeat <= now;
            let unconfirmed = active && self.answered + policy.confirm <= now;
            if silent {
                self.check = Some(Check::new(false, "liveness", now));
            } else if quiet || unconfirmed {
                self.check = Some(Check::new(unconfirmed, "keep-alive", now));
            }
        }
        let Some(check) = &mut self.check else { return Verdict::Wait };
        let timeout = rtt.timeout(policy);
        let lenient = check.strict
            && !check.urgent
            && now.saturating_duration_since(self.heard) < policy.silence
            && now < check.began + policy.ping_timeout;
        while check.waiting.front().is_some_and(|&at| at + timeout <= now) {
            check.waiting.pop_front();
            if lenient {
                continue;
            }
            if check.missed == 0 {
                check.why = "liveness";
                check.next = check.next.min(now);
            }
            check.missed += 1;
        }
        if check.missed >= policy.liveness_missed {
            return Verdict::Dead;
        }
        if check.next > now {
            return Verdict::Wait;
        }
        let gap = match check.missed {
            _ if lenient => policy.liveness_gap * 5,
            0 => policy.liveness_gap,
            _ => policy.liveness_gap / 2,
        };
        check.next = now + gap;
        check.waiting.push_back(now);
        check.sent += 1;
        Verdict::Probe { attempt: check.sent - 1, why: check.why }
    }
}

impl Check {
    fn new(strict: bool, why: &'static str, now: Instant) -> Check {
        Check {
            strict,
            urgent: false,
            why,
            sent: 0,
            missed: 0,
            began: now,
            next: now,
            waiting: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const RTT: Rtt = Rtt { smoothed: Duration::from_millis(50), deviation: Duration::from_millis(5) };

    /// Runs until `end`, nothing heard; times in ms since `t0` of the probes, of suspicion and of death.
    fn run(
        live: &mut Liveness,
        active: bool,
        t0: Instant,
        end: u64,
    ) -> (Vec<u128>, Option<u128>, Option<u128>) {
        let policy = Policy::default();
        let (mut probes, mut suspect) = (Vec::new(), None);
        while let Some((at, _)) = live.poll_timeout(RTT, active, &policy) {
            if at > t0 + ms(end) {
                break;
            }
            loop {
                let verdict = live.handle_timeout(RTT, active, &policy, at);
                let since = (at - t0).as_millis();
                if live.suspect() {
                    suspect.get_or_insert(since);
                }
                match verdict {
                    Verdict::Wait => break,
                    Verdict::Probe { .. } => probes.push(since),
                    Verdict::Dead => return (probes, suspect, Some(since)),
                }
            }
        }
        (probes, suspect, None)
    }

    #[test]
    fn unanswered_traffic_leaves_a_dead_path_within_a_second() {
        let t0 = start();
        let mut live = Liveness::new(t0);
        live.sent(t0);
        let (probes, suspect, dead) = run(&mut live, true, t0, 5000);
        assert_eq!(suspect, Some(450));
        assert_eq!(dead, Some(850));
        assert_eq!(probes[..4], [250, 450, 550, 650]);
    }

    #[test]
    fn any_authenticated_packet_calms_an_ordinary_check() {
        let t0 = start();
        let mut live = Liveness::new(t0);
        live.sent(t0);
        run(&mut live, true, t0, 500);
        assert!(live.suspect());
        live.heard(t0 + ms(500));
        assert!(!live.suspect());
    }

    #[test]
    fn only_an_answer_calms_a_strict_check() {
        let t0 = start();
        let mut live = Liveness::new(t0);
        live.doubt(t0);
        run(&mut live, true, t0, 300);
        live.heard(t0 + ms(300));
        assert!(live.suspect());
        live.answered(t0 + ms(301));
        assert!(!live.suspect());
    }

    #[test]
    fn late_answers_are_no_reason_to_leave_a_path_on_which_packets_come_in() {
        let t0 = start();
        let policy = Policy::default();
        let mut live = Liveness::new(t0);
        let mut doubted = None;
        for step in 1..1500 {
            let now = t0 + ms(step * 20);
            live.heard(now);
            while let Verdict::Probe { .. } = live.handle_timeout(RTT, true, &policy, now) {}
            if live.suspect() {
                doubted.get_or_insert(now - t0);
            }
        }
        assert!(doubted.is_some_and(|after| after >= policy.confirm + policy.ping_timeout), "{doubted:?}");
    }

    #[test]
    fn an_idle_path_is_left_alone() {
        let t0 = start();
        let live = Liveness::new(t0);
        assert_eq!(live.poll_timeout(RTT, false, &Policy::default()), None);
    }

    #[test]
    fn an_active_quiet_path_is_pinged_after_three_seconds() {
        let t0 = start();
        let mut live = Liveness::new(t0);
        let (probes, ..) = run(&mut live, true, t0, 3100);
        assert_eq!(probes, [3000]);
    }

    #[test]
    fn incoming_traffic_puts_the_heartbeat_off_but_not_for_ever() {
        let t0 = start();
        let policy = Policy::default();
        let mut live = Liveness::new(t0);
        for second in 1..12 {
            live.heard(t0 + ms(second * 1000));
        }
        let (at, why) = live.poll_timeout(RTT, true, &policy).expect("a deadline");
        assert_eq!((at - t0, why), (policy.confirm, "heartbeat"));
    }

    #[test]
    fn a_long_round_trip_gives_probes_more_time() {
        let policy = Policy::default();
        let mut far = Rtt::first(ms(600));
        for _ in 0..20 {
            far.add(ms(600));
        }
        assert!(far.timeout(&policy) > ms(600));
        assert_eq!(RTT.timeout(&policy), ms(200));
    }
}
