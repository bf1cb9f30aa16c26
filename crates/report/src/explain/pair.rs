//! How one pair of hosts found its path.

use super::text::{Line, Text, because, list, short_list};
use crate::metrics::PairMetrics;
use crate::units;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use trace::{Event, FlowKind, Name, Path, Record};

/// Checks further apart than this are told apart: ns. The checks of one round end within seconds.
const ROUND_NS: u64 = 2_000_000_000;

/// The same for checks that only keep a path open, which come every few seconds for as long as it lasts.
const KEEP_ALIVE_NS: u64 = 60_000_000_000;

/// Checks of one host in one go.
struct Round {
    first_ns: u64,
    last_ns: u64,
    order: usize,
    count: u64,
    to: Vec<SocketAddr>,
}

#[derive(Default)]
struct Story<'a> {
    lines: Vec<Line>,
    rounds: BTreeMap<(&'a Name, &'a Name), Round>,
    candidates: BTreeMap<&'a Name, &'a [SocketAddr]>,
    validated: BTreeMap<&'a Name, SocketAddr>,
    paths: BTreeMap<&'a Name, Option<Path>>,
    session: bool,
}

pub(super) fn tell(pair: &PairMetrics, records: &[Record], text: &mut Text) {
    let mut story = Story::default();
    let ours = |host: &Name, peer: &Name| {
        (*host == pair.a && *peer == pair.b) || (*host == pair.b && *peer == pair.a)
    };
    let flow_of_ours = |flow: &Name| pair.flows.iter().find(|ours| ours.name == *flow);
    for (order, record) in records.iter().enumerate() {
        match &record.event {
            Event::Action { what } => story.line(record.t, order, format!("*** {what}")),
            Event::FlowStart { flow, .. } => {
                if let Some(flow) = flow_of_ours(flow) {
                    let what = match flow.kind {
                        FlowKind::Ping => "pings",
                        FlowKind::Voice => "talks to",
                        FlowKind::Bulk => "sends a file to",
                    };
                    let words = format!("{} {what} {} (flow \"{}\").", flow.from, flow.to, flow.name);
                    story.line(record.t, order, words);
                }
            }
            Event::FlowEnd { flow, complete, reason } => {
                let how = if *complete { "is complete" } else { "ended early" };
                if flow_of_ours(flow).is_some() {
                    story.line(record.t, order, format!("Flow \"{flow}\" {how}{}.", because(reason)));
                }
            }
            Event::Candidates { host, peer, .. }
            | Event::Probe { host, peer, .. }
            | Event::Validated { host, peer, .. }
            | Event::PathChanged { host, peer, .. }
            | Event::Session { host, peer, .. }
                if ours(host, peer) =>
            {
                story.event(record, order);
            }
            _ => {}
        }
    }
    for (key, round) in std::mem::take(&mut story.rounds) {
        story.end_round(key, &round);
    }
    if let Some(first_data_ns) = pair.first_data_ns {
        let at_ns = pair.started_ns.saturating_add(first_data_ns);
        let after = units::duration(first_data_ns);
        story.line(
            at_ns,
            usize::MAX,
            format!("The first data arrives, {after} after it was sent for the first time."),
        );
    }
    for gap in &pair.gaps {
        let length = units::duration(gap.length_ns());
        let words = match gap.resumed {
            true => format!("Silence: {} waits {length} for the next packet of \"{}\".", gap.host, gap.flow),
            false => format!("Silence: {} gets nothing more of \"{}\".", gap.host, gap.flow),
        };
        story.line(gap.from_ns, usize::MAX, words);
    }
    text.heading(&format!("{} and {}", pair.a, pair.b));
    text.lines(story.lines);
}

impl<'a> Story<'a> {
    fn line(&mut self, at_ns: u64, order: usize, words: String) {
        self.lines.push(Line { at_ns, order, words });
    }

    fn event(&mut self, record: &'a Record, order: usize) {
        let t = record.t;
        match &record.event {
            Event::Candidates { host, peer, candidates, via } => {
                let news = self.candidates.insert(host, candidates) != Some(candidates);
                if news && !candidates.is_empty() {
                    let via = match &**via {
                        "relay" => "over the relay".to_owned(),
                        "coordinator" => "from the coordination server".to_owned(),
                        "peer-reflexive" => "from where its checks come".to_owned(),
                        other => format!("by {other}"),
                    };
                    let offered = short_list(candidates);
                    self.line(t, order, format!("{host} learns {via} that {peer} may be at {offered}."));
                }
            }
            Event::Probe { host, to, why, .. } => self.probe(t, order, (host, why), *to),
            Event::Validated { host, peer, address, rtt_ns } => {
                let news = self.validated.insert(host, *address) != Some(*address);
                if news {
                    let rtt = units::duration(*rtt_ns);
                    let words = format!(
                        "{peer} answers {host}'s check at {address} after {rtt}: that path works both ways."
                    );
                    self.line(t, order, words);
                }
            }
            Event::PathChanged { host, peer, path, address, relay, reason } => {
                let before = self.paths.insert(host, *path).flatten();
                if !matches!(path, Some(Path::Direct | Path::Lan)) {
                    self.validated.remove(host);
                }
                let to = match (path, address, relay) {
                    (None, ..) => "has no way any more to".to_owned(),
                    (Some(Path::Relay), _, Some(relay)) => format!("sends over {relay} to"),
                    (Some(Path::Relay), ..) => "sends over a relay to".to_owned(),
                    (Some(Path::Direct), Some(address), _) => format!("sends directly, by {address}, to"),
                    (Some(Path::Direct), ..) => "sends directly to".to_owned(),
                    (Some(Path::Lan), Some(address), _) => format!("sends inside the LAN, by {address}, to"),
                    (Some(Path::Lan), ..) => "sends inside the LAN to".to_owned(),
                };
                let now = if before.is_some() { "now " } else { "" };
                self.line(t, order, format!("{host} {now}{to} {peer}{}.", because(reason)));
            }
            Event::Session { host, peer, initiator } if !self.session => {
                self.session = true;
                let starter = if *initiator { host } else { peer };
                self.line(t, order, format!("The tunnel is up; {starter} started the handshake."));
            }
            _ => {}
        }
    }

    fn probe(&mut self, t: u64, order: usize, key: (&'a Name, &'a Name), to: SocketAddr) {
        let apart = if &**key.1 == "keep-alive" { KEEP_ALIVE_NS } else { ROUND_NS };
        if let Some(round) = self.rounds.get_mut(&key)
            && t.saturating_sub(round.last_ns) <= apart
        {
            round.last_ns = t;
            round.count += 1;
            if !round.to.contains(&to) {
                round.to.push(to);
            }
            return;
        }
        let round = Round { first_ns: t, last_ns: t, order, count: 1, to: vec![to] };
        if let Some(ended) = self.rounds.insert(key, round) {
            self.end_round(key, &ended);
        }
    }

    fn end_round(&mut self, (host, why): (&Name, &Name), round: &Round) {
        let checks = units::plural(round.count, "check");
        let what = match &**why {
            "check" => checks,
            "triggered" => format!("{checks} in answer to the other's"),
            "keep-alive" => format!("{checks} to keep the path open"),
            "liveness" => format!("{checks} to see whether the path still works"),
            "width" => format!("{checks} as long as the packets that bring nothing back"),
            other => format!("{checks} ({other})"),
        };
        let to = match &round.to[..] {
            few @ [_] | few @ [_, _] => list(few),
            many => format!("{} addresses ({})", many.len(), short_list(many)),
        };
        let until = match round.first_ns == round.last_ns {
            true => String::new(),
            false => format!(" until {}", units::moment(round.last_ns)),
        };
        self.line(round.first_ns, round.order, format!("{host} sends {what} to {to}{until}."));
    }
}
