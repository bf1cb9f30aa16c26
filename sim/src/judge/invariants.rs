//! What is never allowed to happen, and only shows in the log as a whole. What a world sees as it happens (plaintext on a
//! wire, a packet at the wrong peer, an event in the past) it logs as a violation itself.

use super::oracle::{self, Direct};
use crate::scenario::{Action, Scenario};
use report::metrics::{Gap, PairMetrics};
use report::{Metrics, units};
use std::collections::{BTreeMap, VecDeque};
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
    for pair in &metrics.pairs {
        unconnected(scenario, pair, metrics.end_ns, &mut out);
        dead_path_kept(records, pair, &mut out);
    }
    probes_over_budget(records, &mut out);
    out
}

/// Whether the timeline takes away what the oracle assumes, for good.
fn timeline_cuts(scenario: &Scenario) -> bool {
    scenario.timeline.iter().any(|timed| {
        matches!(
            timed.action,
            Action::SetLink { up: false, .. } | Action::SetFirewall { .. } | Action::ChangeLink { .. }
        )
    })
}

fn unconnected(scenario: &Scenario, pair: &PairMetrics, end_ns: u64, out: &mut Vec<String>) {
    let works = oracle::route(scenario, &pair.a, &pair.b).is_some_and(|r| r.relay || r.direct == Direct::Yes);
    if !works || timeline_cuts(scenario) {
        return;
    }
    let ran_ns = end_ns.saturating_sub(pair.started_ns);
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
    for gap in pair.gaps.iter().filter(|g| !g.resumed && g.length_ns() >= CONNECTED_WITHIN_NS) {
        let length = units::duration(gap.length_ns());
        out.push(format!(
            "unconnected: {} heard nothing more of {} for {length}, until the end",
            gap.host, gap.flow
        ));
    }
}

fn dead_path_kept(records: &[Record], pair: &PairMetrics, out: &mut Vec<String>) {
    let long = |gap: &&Gap| gap.length_ns() > DEAD_PATH_LEFT_WITHIN_NS;
    for gap in pair.gaps.iter().filter(long) {
        let (sender, receiver) = if gap.host == pair.a { (&pair.b, &pair.a) } else { (&pair.a, &pair.b) };
        let deadline = gap.from_ns + DEAD_PATH_LEFT_WITHIN_NS;
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
