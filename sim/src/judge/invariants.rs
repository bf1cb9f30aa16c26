//! What is never allowed to happen, and only shows in the log as a whole. What a world sees as it happens (plaintext on a
//! wire, a packet at the wrong peer, an event in the past) it logs as a violation itself.

use super::oracle::{self, Direct};
use crate::scenario::{Action, Attachment, Membership, Scenario, Timed};
use nat::{Pooling, Translation};
use report::metrics::{Gap, PairMetrics};
use report::{Metrics, units};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;
use trace::{Event, Name, Path, Record};

/// A pair with a working path must have exchanged data this long after its traffic started.
const CONNECTED_WITHIN_NS: u64 = 15_000_000_000;
/// A direct path on which nothing arrives although packets are sent must be left after this time.
const DEAD_PATH_LEFT_WITHIN_NS: u64 = 3_000_000_000;
/// Window of the probe budget.
const PROBE_WINDOW_NS: u64 = 10_000_000_000;
/// Checks that one host may send another in that window: two whole rounds (a round may be renewed once, when the other side
/// calls) to as many candidates as a peer keeps.
const PROBE_BUDGET: usize = 2 * peer::PROBES_PER_CANDIDATE as usize * peer::MAX_CANDIDATES;

pub(super) fn check(scenario: &Scenario, records: &[Record], metrics: &Metrics) -> Vec<String> {
    let mut out = Vec::new();
    let absences = Absences::of(records, metrics.end_ns);
    for pair in &metrics.pairs {
        unconnected(scenario, pair, metrics.end_ns, &absences, &mut out);
        dead_path_kept(scenario, records, pair, &absences, &mut out);
    }
    probes_over_budget(records, &mut out);
    out
}

/// When which host was away: asleep, killed, or without power or network.
struct Absences<'a>(BTreeMap<&'a str, Vec<Range<u64>>>);

impl<'a> Absences<'a> {
    fn of(records: &'a [Record], end_ns: u64) -> Absences<'a> {
        let mut absences: BTreeMap<&str, Vec<Range<u64>>> = BTreeMap::new();
        for record in records {
            let Event::Presence { host, present } = &record.event else { continue };
            let of_host = absences.entry(&**host).or_default();
            match of_host.last_mut() {
                Some(last) if *present => last.end = record.t,
                _ if *present => {}
                _ => of_host.push(record.t..end_ns),
            }
        }
        Absences(absences)
    }

    /// How long of a time a host was away.
    fn within(&self, host: &str, time: Range<u64>) -> u64 {
        let of_host = self.0.get(host).map_or(&[][..], Vec::as_slice);
        of_host.iter().map(|away| away.end.min(time.end).saturating_sub(away.start.max(time.start))).sum()
    }

    /// How much of a time two hosts were both there, at least.
    fn both_there(&self, pair: &PairMetrics, time: Range<u64>) -> u64 {
        let away = self.within(&pair.a, time.clone()) + self.within(&pair.b, time.clone());
        time.end.saturating_sub(time.start).saturating_sub(away)
    }
}

/// Whether the timeline takes away what the oracle assumes, for good or so late that a run cannot show what comes of it.
fn timeline_cuts(scenario: &Scenario) -> bool {
    let late = |timed: &Timed, lasts: Option<Duration>| {
        let time = lasts.map(|lasts| timed.time.to + lasts + Duration::from_nanos(CONNECTED_WITHIN_NS));
        timed.repeat.is_some() || time.is_none_or(|time| time > scenario.until)
    };
    let Membership { approved, key_lifetime, renewable, .. } = scenario.membership;
    let kept_out = approved || key_lifetime.is_some() && !renewable;
    kept_out
        || scenario.timeline.iter().any(|timed| match timed.action {
            Action::SetLink { up, .. } | Action::SetInterface { up, .. } => !up,
            Action::SetFirewall { .. }
            | Action::ChangeRules { .. }
            | Action::ChangeLink { .. }
            | Action::SetNat { .. }
            | Action::Revoke { .. }
            | Action::SetAccess { .. }
            | Action::Kill { .. } => true,
            Action::BlackHole { lasts, .. } | Action::Slow { lasts, .. } | Action::Cut { lasts, .. } => {
                late(timed, lasts)
            }
            Action::Crash { off, .. } => late(timed, off),
            _ => false,
        })
}

/// Everywhere that a host is attached in the course of a run.
fn places<'a>(scenario: &'a Scenario, host: &'a str) -> impl Iterator<Item = &'a Attachment> {
    let own = scenario.hosts.get(host).into_iter();
    let interfaces = own.clone().flat_map(|own| own.interfaces.values().map(|interface| &interface.attached));
    let moves = scenario.timeline.iter().filter_map(move |timed| match &timed.action {
        Action::MoveHost { host: moved, to, .. } if moved == host => Some(to),
        _ => None,
    });
    own.map(|own| &own.attached).chain(interfaces).chain(moves)
}

/// Whether a host may come to a box that translates one to one and has no address left for it: one for each place inside that
/// some host has been at, for good, and no ports to share.
fn may_come_too_late(scenario: &Scenario, host: &str) -> bool {
    let behind =
        |at: &Attachment, name: &str| oracle::routers_above(scenario, at).any(|(router, _)| router == name);
    let taken = |name: &str| -> usize {
        let of_host = |host: &String| {
            let mut seen: Vec<&Attachment> = Vec::new();
            for at in places(scenario, host).filter(|at| behind(at, name)) {
                if !seen.contains(&at) {
                    seen.push(at);
                }
            }
            seen.len()
        };
        scenario.hosts.keys().map(of_host).sum()
    };
    places(scenario, host).flat_map(|at| oracle::routers_above(scenario, at)).any(|(name, router)| {
        let nat = router.nat.as_ref().and_then(Translation::axes);
        nat.is_some_and(|nat| nat.pooling == Pooling::OneToOne) && taken(name) > router.addresses as usize
    })
}

/// Whether a pair has a path wherever its hosts are.
fn connects(scenario: &Scenario, a: &str, b: &str) -> bool {
    let mut placed = scenario.clone();
    let mut connects = |at_a: &Attachment, at_b: &Attachment| {
        for (name, at) in [(a, at_a), (b, at_b)] {
            if let Some(host) = placed.hosts.get_mut(name) {
                host.attached = at.clone();
            }
        }
        oracle::route(&placed, a, b).is_some_and(|route| route.relay || route.direct == Direct::Yes)
    };
    places(scenario, a).all(|at_a| places(scenario, b).all(|at_b| connects(at_a, at_b)))
}

fn unconnected(
    scenario: &Scenario,
    pair: &PairMetrics,
    end_ns: u64,
    absences: &Absences<'_>,
    out: &mut Vec<String>,
) {
    if timeline_cuts(scenario)
        || !connects(scenario, &pair.a, &pair.b)
        || [&pair.a, &pair.b].into_iter().any(|host| may_come_too_late(scenario, host))
    {
        return;
    }
    let ran_ns = absences.both_there(pair, pair.started_ns.min(end_ns)..end_ns);
    let who = format!("{} and {}", pair.a, pair.b);
    match pair.first_data_ns {
        None if ran_ns >= CONNECTED_WITHIN_NS => {
            out.push(format!(
                "unconnected: {who} have a working path and exchanged nothing in {}",
                units::duration(ran_ns)
            ));
        }
        _ => {}
    }
    let lasts = |gap: &&Gap| absences.both_there(pair, gap.from_ns..gap.to_ns) >= CONNECTED_WITHIN_NS;
    for gap in pair.gaps.iter().filter(|gap| !gap.resumed).filter(lasts) {
        let length = units::duration(gap.length_ns());
        out.push(format!(
            "unconnected: {} heard nothing more of {} for {length}, until the end",
            gap.host, gap.flow
        ));
    }
}

fn dead_path_kept(
    scenario: &Scenario,
    records: &[Record],
    pair: &PairMetrics,
    absences: &Absences<'_>,
    out: &mut Vec<String>,
) {
    let long = |gap: &&Gap| gap.length_ns() > DEAD_PATH_LEFT_WITHIN_NS;
    for gap in pair.gaps.iter().filter(long) {
        let (sender, receiver) = if gap.host == pair.a { (&pair.b, &pair.a) } else { (&pair.a, &pair.b) };
        let deadline = gap.from_ns + DEAD_PATH_LEFT_WITHIN_NS;
        // One that is not there sends nothing.
        if absences.within(sender, gap.from_ns..deadline) > 0 {
            continue;
        }
        // A peer that starts anew has no path, and says nothing of the one that it had; one that only slept has it still.
        let restarts = scenario.timeline.iter().filter(|timed| {
            matches!(&timed.action, Action::RestartHost { host, .. } | Action::Crash { node: host, .. } if **host == **sender)
        });
        let restarts: Vec<&str> = restarts.map(|timed| timed.words.as_str()).collect();
        // The paths on which the sender sent since the silence began.
        let mut path = None;
        let mut left = false;
        for record in records.iter().take_while(|r| r.t <= deadline) {
            if let Event::PathChanged { host, peer, path: to, .. } = &record.event
                && host == sender
                && peer == receiver
            {
                left |= record.t >= gap.from_ns;
                path = *to;
            }
            if let Event::Action { what } = &record.event
                && restarts.iter().any(|words| what.starts_with(words))
            {
                path = None;
            }
        }
        if !left && matches!(path, Some(Path::Direct | Path::Lan)) {
            out.push(format!(
                "dead-path-kept: {sender} kept sending to {receiver} on a direct path that was silent from {} on",
                units::moment(gap.from_ns)
            ));
        }
    }
}

fn probes_over_budget(records: &[Record], out: &mut Vec<String>) {
    let mut windows: BTreeMap<(Name, Name), VecDeque<u64>> = BTreeMap::new();
    let mut reported = Vec::new();
    for record in records {
        let Event::Probe { host, peer, .. } = &record.event else { continue };
        let key = (host.clone(), peer.clone());
        let window = windows.entry(key.clone()).or_default();
        window.push_back(record.t);
        while window.front().is_some_and(|t| record.t - t >= PROBE_WINDOW_NS) {
            window.pop_front();
        }
        if window.len() > PROBE_BUDGET && !reported.contains(&key) {
            out.push(format!(
                "probe-budget: {host} sent {peer} more than {PROBE_BUDGET} checks in {} before {}",
                units::duration(PROBE_WINDOW_NS),
                units::moment(record.t)
            ));
            reported.push(key);
        }
    }
}
