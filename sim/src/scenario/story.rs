//! What runs in a scenario and what must come of it: traffic and expectations.

use std::ops::Range;
use std::time::Duration;

use trace::FlowKind;

use super::axes::take;
use super::build::{Builder, Kind};
use super::model::{Expect, Scenario, Traffic};
use super::read::Item;
use super::value::{Rate, Size, Val, Word};
use super::{file, words};

/// Most flows of a scenario, and most entries of its timeline.
pub const MAX_FLOWS: usize = 10_000;
/// Payload bytes of a ping or voice packet: enough for its number and time, and within a 1280-byte tunnel.
const SIZES: std::ops::RangeInclusive<u64> = 16..=1_200;
/// Shortest time between packets of a flow.
const MIN_INTERVAL: Duration = Duration::from_micros(100);
/// Longest bulk transfer.
const MAX_BYTES: u64 = 10_000_000_000;

impl Builder<'_, '_> {
    /// Adds traffic, timeline and expectations to the nodes of `scenario`.
    pub(super) fn story(
        &mut self,
        scenario: &mut Scenario,
        traffic: Vec<Item<file::Traffic>>,
        at: Vec<Item<file::At>>,
        expect: Vec<Item<file::Expect>>,
    ) {
        let no_traffic = traffic.is_empty();
        for item in traffic {
            if let Some(spec) = item.value {
                self.traffic(scenario, spec);
            }
        }
        self.timeline(scenario, at);
        // Where each expectation stands; one with base names is many.
        let mut spans = Vec::new();
        for Item { span, value, .. } in expect {
            if let Some(spec) = value {
                self.expect(scenario, spec, &span);
                spans.resize(scenario.expect.len(), span);
            }
        }
        if no_traffic {
            default_traffic(scenario);
        }
        self.check_expectations(scenario, &spans);
    }

    // ---- traffic ----------------------------------------------------------------------------

    fn traffic(&mut self, scenario: &mut Scenario, spec: file::Traffic) {
        let Some(Word(kind)) = take(Some(spec.kind), self.problems) else { return };
        let span = spec.from.span.clone();
        let pairs = self.pairs(spec.from, spec.to);
        let at_span = spec.at.as_ref().map_or(span.clone(), |at| at.span.clone());
        let at = take(spec.at, self.problems).unwrap_or(Duration::from_secs(1));
        if at >= scenario.until {
            self.problems.add(
                at_span,
                "the run is over before it starts",
                format!("until is {}", words::duration(scenario.until)),
            );
        }
        let stop = spec.stop.and_then(|stop| {
            let span = stop.span.clone();
            let stop = take(Some(stop), self.problems)?;
            if stop <= at {
                self.problems.add(
                    span,
                    "it stops before it starts",
                    format!("it starts at {}", words::duration(at)),
                );
            }
            Some(stop)
        });
        let (mut interval, mut size, mut bytes) = defaults(kind);
        let bulk = kind == FlowKind::Bulk;
        if let Some(value) = spec.interval {
            let span = value.span.clone();
            if bulk {
                self.problems.add(span, "a bulk transfer has no interval", "it goes as fast as it can");
            } else if let Some(value) = take(Some(value), self.problems) {
                if value < MIN_INTERVAL {
                    self.problems.add(
                        span,
                        "packets come too fast",
                        format!("at least {}", words::duration(MIN_INTERVAL)),
                    );
                }
                interval = value;
            }
        }
        if let Some(value) = spec.size {
            let span = value.span.clone();
            if bulk {
                self.problems.add(
                    span,
                    "a bulk transfer has no packet size",
                    "write bytes = \"5MB\" for how much to send",
                );
            } else if let Some(Size(value)) = take(Some(value), self.problems) {
                match u32::try_from(value) {
                    Ok(fitting) if SIZES.contains(&value) => size = fitting,
                    _ => {
                        let help =
                            format!("write {} to {}", words::size(*SIZES.start()), words::size(*SIZES.end()));
                        self.problems.add(
                            span,
                            format!("a packet cannot carry {}", words::size(value)),
                            help,
                        );
                    }
                }
            }
        }
        if let Some(value) = spec.bytes {
            let span = value.span.clone();
            if !bulk {
                self.problems.add(
                    span,
                    format!("{kind:?} has no amount").to_lowercase(),
                    "it goes on until stop",
                );
            } else if let Some(Size(value)) = take(Some(value), self.problems) {
                if !(1..=MAX_BYTES).contains(&value) {
                    self.problems.add(
                        span,
                        "not an amount to transfer",
                        format!("write 1B to {}", words::size(MAX_BYTES)),
                    );
                }
                bytes = value;
            }
        }
        for (from, to) in pairs {
            if scenario.traffic.len() == MAX_FLOWS {
                self.problems.add(span, format!("more than {MAX_FLOWS} flows"), "");
                return;
            }
            scenario.traffic.push(Traffic { kind, from, to, at, stop, interval, size, bytes });
        }
    }

    /// The hosts that a name stands for.
    fn hosts_of(&mut self, name: Val<String>) -> Option<(String, Vec<String>)> {
        if let Ok(text) = &name.value
            && let Some(group) = self.groups.get(text)
        {
            return Some((text.clone(), group.clone()));
        }
        // A base name cannot be mistaken for another node's: what is left is one host, or a mistake.
        self.refer(name, &[Kind::Host]).map(|name| (name.clone(), vec![name]))
    }

    /// The pairs of hosts between two names.
    fn pairs(&mut self, from: Val<String>, to: Val<String>) -> Vec<(String, String)> {
        let span = to.span.clone();
        let (from, to) = (self.hosts_of(from), self.hosts_of(to));
        let (Some((from_name, from)), Some((to_name, to))) = (from, to) else { return Vec::new() };
        if from_name == to_name {
            if from.len() < 2 {
                self.problems.add(
                    span,
                    format!("`{to_name}` cannot be its own partner"),
                    "name another host",
                );
                return Vec::new();
            }
            let next = from.iter().cycle().skip(1).cloned();
            // Two hosts are one pair, not two.
            let count = if from.len() == 2 { 1 } else { from.len() };
            return from.iter().cloned().zip(next).take(count).collect();
        }
        let pairs: Vec<(String, String)> = match (from.len(), to.len()) {
            (_, 1) => from.iter().map(|from| (from.clone(), to[0].clone())).collect(),
            (1, _) => to.iter().map(|to| (from[0].clone(), to.clone())).collect(),
            (a, b) if a == b => from.into_iter().zip(to).collect(),
            (a, b) => {
                let message = format!("`{from_name}` is {a} hosts and `{to_name}` is {b}");
                self.problems.add(span, message, "pair as many with as many, or all with one");
                return Vec::new();
            }
        };
        if pairs.iter().any(|(from, to)| from == to) {
            self.problems.add(span, format!("`{to_name}` is one of `{from_name}`"), "name another host");
        }
        pairs
    }

    // ---- expectations -----------------------------------------------------------------------

    fn expect(&mut self, scenario: &mut Scenario, spec: file::Expect, span: &Range<usize>) {
        let base = Expect {
            pair: None,
            path: take(spec.path, self.problems).map(|path| path.0),
            first_data_within: take(spec.first_data_within, self.problems),
            direct_within: take(spec.direct_within, self.problems),
            lost_at_most: take(spec.lost_at_most, self.problems),
            lost_at_least: take(spec.lost_at_least, self.problems),
            recovers_within: take(spec.recovers_within, self.problems),
            rtt_at_most: take(spec.rtt_at_most, self.problems),
            rtt_at_least: take(spec.rtt_at_least, self.problems),
            goodput_at_least_bps: take(spec.goodput_at_least, self.problems).and_then(|Rate(rate)| rate),
            goodput_at_most_bps: take(spec.goodput_at_most, self.problems).and_then(|Rate(rate)| rate),
            completes: take(spec.completes, self.problems),
        };
        if base == Expect::default() && self.problems.is_empty() {
            let help = "give at least one of path, first-data-within, direct-within, lost-at-most, lost-at-least, \
                        recovers-within, rtt-at-most, rtt-at-least, goodput-at-least, goodput-at-most, completes";
            self.problems.add(span.clone(), "nothing is expected", help);
        }
        let Some(pair) = spec.pair else {
            scenario.expect.push(base);
            return;
        };
        let pair_span = pair.first().map_or(span.clone(), |name| name.span.clone());
        let Ok([a, b]) = <[Val<String>; 2]>::try_from(pair) else {
            self.problems.add(pair_span, "a pair is two hosts", "write pair = [\"takkie\", \"flappie\"]");
            return;
        };
        for pair in self.pairs(a, b) {
            if scenario.expect.len() == MAX_FLOWS {
                self.problems.add(pair_span, format!("more than {MAX_FLOWS} expectations"), "");
                return;
            }
            scenario.expect.push(Expect { pair: Some(pair), ..base.clone() });
        }
    }

    /// An expectation that nothing in the run can measure would pass or fail by accident.
    fn check_expectations(&mut self, scenario: &Scenario, spans: &[Range<usize>]) {
        if !self.problems.is_empty() {
            return;
        }
        for (expect, span) in scenario.expect.iter().zip(spans) {
            let concerns = |flow: &&Traffic| match &expect.pair {
                None => true,
                Some((a, b)) => (&flow.from, &flow.to) == (a, b) || (&flow.to, &flow.from) == (a, b),
            };
            let flows: Vec<&Traffic> = scenario.traffic.iter().filter(concerns).collect();
            if flows.is_empty() {
                let (a, b) = expect.pair.clone().unwrap_or_default();
                let help = format!("add [[traffic]] with from = \"{a}\" and to = \"{b}\"");
                self.problems.add(span.clone(), format!("no traffic runs between `{a}` and `{b}`"), help);
                continue;
            }
            let any = |kinds: &[FlowKind]| flows.iter().any(|flow| kinds.contains(&flow.kind));
            for (needs, key, kinds, what) in [
                (expect.rtt_at_most.is_some(), "rtt-at-most", &[FlowKind::Ping][..], "ping"),
                (expect.rtt_at_least.is_some(), "rtt-at-least", &[FlowKind::Ping][..], "ping"),
                (
                    expect.lost_at_most.is_some(),
                    "lost-at-most",
                    &[FlowKind::Ping, FlowKind::Voice],
                    "ping or voice",
                ),
                (
                    expect.lost_at_least.is_some(),
                    "lost-at-least",
                    &[FlowKind::Ping, FlowKind::Voice],
                    "ping or voice",
                ),
                (expect.goodput_at_least_bps.is_some(), "goodput-at-least", &[FlowKind::Bulk], "bulk"),
                (expect.goodput_at_most_bps.is_some(), "goodput-at-most", &[FlowKind::Bulk], "bulk"),
                (expect.completes.is_some(), "completes", &[FlowKind::Bulk], "bulk"),
            ] {
                if needs && !any(kinds) {
                    let help = format!("add [[traffic]] with kind = \"{what}\"").replace(" or voice", "");
                    self.problems.add(span.clone(), format!("{key} needs {what} traffic"), help);
                }
            }
            if expect.recovers_within.is_some() && scenario.timeline.is_empty() {
                self.problems.add(
                    span.clone(),
                    "recovers-within needs something to recover from",
                    "add an [[at]]",
                );
            }
        }
    }
}

/// Interval, packet size and amount of a flow that gives none. Ping: as ping(8) sends them. Voice: G.711 in packets of
/// 20 ms (RFC 3551 §4.5.14), 160 bytes and 12 of RTP.
fn defaults(kind: FlowKind) -> (Duration, u32, u64) {
    match kind {
        FlowKind::Ping => (Duration::from_secs(1), 56, 0),
        FlowKind::Voice => (Duration::from_millis(20), 172, 0),
        FlowKind::Bulk => (Duration::ZERO, 0, 5_000_000),
    }
}

/// Pings between the pairs of the expectations; with none, from each host to the next.
fn default_traffic(scenario: &mut Scenario) {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in scenario.expect.iter().filter_map(|expect| expect.pair.as_ref()) {
        if !pairs.contains(pair) {
            pairs.push(pair.clone());
        }
    }
    if pairs.is_empty() {
        let hosts: Vec<&String> = scenario.hosts.keys().collect();
        pairs = hosts.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    }
    let (interval, size, bytes) = defaults(FlowKind::Ping);
    let at = Duration::from_secs(1).min(scenario.until / 2);
    scenario.traffic = pairs
        .into_iter()
        .map(|(from, to)| Traffic { kind: FlowKind::Ping, from, to, at, stop: None, interval, size, bytes })
        .collect();
}
