//! Which path each pair was on, when; and what the scenario did meanwhile.

use crate::fold::pair_of;
use crate::metrics::joint;
use serde::{Deserialize, Serialize};
use trace::{Event, Name, Path, Record};

/// The paths of a run over time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathTimeline {
    /// Virtual time of the last event, ns.
    pub end_ns: u64,
    /// One for each direction, sorted by host and peer.
    pub lanes: Vec<Lane>,
    /// What the scenario's timeline did, in order.
    pub actions: Vec<Action>,
}

/// The path by which one host sends to another, over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The sender.
    pub host: Name,
    /// The receiver.
    pub peer: Name,
    /// When the path changed, ns, and to what, in order. Before the first there was none.
    pub changes: Vec<(u64, Option<Path>)>,
}

/// An action of the scenario's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// When, ns.
    pub at_ns: u64,
    /// In the scenario's words.
    pub what: String,
}

/// A stretch of time on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From, ns.
    pub from_ns: u64,
    /// To, ns.
    pub to_ns: u64,
    /// The path; `None` = there was none.
    pub path: Option<Path>,
}

impl PathTimeline {
    /// Folds a whole log.
    pub fn fold(records: &[Record]) -> PathTimeline {
        let mut timeline = PathTimeline::default();
        for record in records {
            timeline.push(record);
        }
        timeline
    }

    /// Takes the next record of the log.
    pub fn push(&mut self, record: &Record) {
        self.end_ns = self.end_ns.max(record.t);
        match &record.event {
            Event::Action { what } => self.actions.push(Action { at_ns: record.t, what: what.clone() }),
            Event::PathChanged { host, peer, path, .. } => {
                let key = (host, peer);
                let at = match self.lanes.binary_search_by(|lane| (&lane.host, &lane.peer).cmp(&key)) {
                    Ok(at) => at,
                    Err(at) => {
                        let lane = Lane { host: host.clone(), peer: peer.clone(), changes: Vec::new() };
                        self.lanes.insert(at, lane);
                        at
                    }
                };
                self.lanes[at].changes.push((record.t, *path));
            }
            _ => {}
        }
    }

    /// The pairs that had a path at some time, each sorted, in order.
    pub fn pairs(&self) -> Vec<(Name, Name)> {
        let mut pairs: Vec<_> = self.lanes.iter().map(|lane| pair_of(&lane.host, &lane.peer)).collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }

    /// The path of a pair over the whole run: direct or lan only while both sides send so, none while either has none.
    pub fn spans(&self, one: &str, other: &str) -> Vec<Span> {
        let changes = |host: &str, peer: &str| {
            let key = (host, peer);
            let found = self.lanes.binary_search_by(|lane| (&*lane.host, &*lane.peer).cmp(&key));
            found.map_or(&[][..], |at| &self.lanes[at].changes)
        };
        let (there, back) = (changes(one, other), changes(other, one));
        let mut times: Vec<u64> = there.iter().chain(back).map(|change| change.0).collect();
        times.push(0);
        times.sort_unstable();
        times.dedup();
        let at = |changes: &[(u64, Option<Path>)], t: u64| {
            changes.iter().rev().find(|change| change.0 <= t).and_then(|change| change.1)
        };
        let mut spans: Vec<Span> = Vec::new();
        for (n, from_ns) in times.iter().copied().enumerate() {
            let to_ns = times.get(n + 1).copied().unwrap_or(self.end_ns).max(from_ns);
            let path = joint(at(there, from_ns), at(back, from_ns));
            match spans.last_mut() {
                Some(last) if last.path == path => last.to_ns = to_ns,
                _ => spans.push(Span { from_ns, to_ns, path }),
            }
        }
        spans.retain(|span| span.to_ns > span.from_ns);
        spans
    }
}
