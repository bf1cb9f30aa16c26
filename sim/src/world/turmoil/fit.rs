//! What of a scenario the turmoil world can play.

use crate::scenario::{Access, Action, Key, Scenario, ScenarioError, point_out};
use crate::topology::Topology;
use ::link::{Aqm, Jitter, Late, LinkConfig, Loss, Share};
use std::time::Duration;
use trace::FlowKind;

/// A scenario asks for what the turmoil world has not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{scenario} does not fit into the turmoil world, which has neither rates nor loss:\n{}\nplay it with --world sim",
    .problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
)]
pub struct Misfit {
    /// The scenario.
    pub scenario: String,
    /// What it asks for.
    pub problems: Vec<Problem>,
}

impl Misfit {
    /// The same, with each problem where it stands in the scenario's file.
    pub fn in_file(&self, path: &str, text: &str) -> ScenarioError {
        let spot = |problem: &Problem| {
            let message = format!("the turmoil world has neither rates nor loss: {}", problem.what);
            (problem.keys.clone(), message, problem.help.to_owned())
        };
        point_out(path, text, self.problems.iter().map(spot))
    }
}

/// One thing that a scenario asks for and the turmoil world has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, and whose.
    pub what: String,
    /// How to put it right.
    pub help: &'static str,
    /// Where it may stand in the file: each a way from the outside in, the first that is there counts.
    pub keys: Vec<Vec<Key>>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

/// The presets that cables have where a scenario does not say. Their rates are far above what a tunnel in this world sends.
const DEFAULTS: [&str; 2] = ["lan", "fibre"];

/// The least rate that does no harm where nothing is transferred: a packet of 1,500 bytes then takes two ticks, as little as
/// the ticks themselves make uncertain, and a call fills a sixtieth of it.
const FAST_BPS: u64 = 6_000_000;

const OTHER_LINK: &str = "leave it out, or play it with --world sim";
const OTHER_WORLD: &str = "play it with --world sim";

/// Whether the turmoil world can play a scenario, and what is to be noted of that.
///
/// # Errors
/// If the scenario asks for rates, or packets lost, doubled or delayed one by one.
pub fn fits(scenario: &Scenario, topology: &Topology) -> Result<Vec<String>, Misfit> {
    let mut problems = Vec::new();
    let transfers = scenario.traffic.iter().any(|flow| flow.kind == FlowKind::Bulk);
    for (i, expect) in scenario.expect.iter().enumerate() {
        let goodput = [
            (expect.goodput_at_least_bps, "goodput-at-least"),
            (expect.goodput_at_most_bps, "goodput-at-most"),
        ];
        for (_, key) in goodput.iter().filter(|(asked, _)| asked.is_some()) {
            let keys = vec![vec!["expect".into(), Key::Nth(i), (*key).into()]];
            problems.push(Problem { what: format!("{key} measures a rate"), help: OTHER_WORLD, keys });
        }
    }
    for (name, router) in scenario.routers.iter().filter(|_| transfers) {
        let Some(firewall) = &router.firewall else { continue };
        if firewall.udp.rate.is_some() || firewall.udp.flow_rate.is_some() {
            let keys = vec![vec!["router".into(), name.as_str().into(), "firewall".into()]];
            let what = format!("the firewall of {name} limits a transfer to a rate");
            problems.push(Problem { what, help: OTHER_WORLD, keys });
        }
    }
    for (i, timed) in scenario.timeline.iter().enumerate() {
        if let Action::ChangeLink { node, link } = &timed.action {
            let Access { up, down } = &**link;
            for (config, way) in [(up, "up"), (down, "down")] {
                for what in asks(config, transfers) {
                    let what = format!("at, link of {node}, {way}: {what}");
                    problems.push(Problem { what, help: OTHER_LINK, keys: change_of(scenario, i) });
                }
            }
        }
    }
    let mut rates = 0;
    for node in &topology.nodes {
        for (config, way) in [(&node.up, "up"), (&node.down, "down")] {
            for what in asks(config, transfers) {
                let what = format!("link of {}, {way}: {what}", node.name);
                problems.push(Problem { what, help: OTHER_LINK, keys: link_of(&node.name) });
            }
            rates += usize::from(config.rate_bps.is_some());
        }
    }
    problems.dedup();
    if !problems.is_empty() {
        return Err(Misfit { scenario: scenario.name.clone(), problems });
    }
    let mut notes = vec!["machines have their turn once a millisecond".to_owned()];
    if rates > 0 {
        notes.push(format!(
            "the rates of {rates} cables only delay packets: they are far above what is sent here"
        ));
    }
    notes.extend(judged(scenario).1);
    Ok(notes)
}

/// Where the cable of a node may be described: at the node, or at one of its interfaces; where several machines are told of
/// at once, at their common name.
fn link_of(node: &str) -> Vec<Vec<Key>> {
    let (machine, interface) = node.split_once('.').map_or((node, None), |(host, name)| (host, Some(name)));
    let common = machine.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
    let mut ways = Vec::new();
    for name in [machine, common] {
        for section in ["router", "host", "relay", "stun", "proxy"] {
            let mut way: Vec<Key> = vec![section.into(), name.into()];
            if let Some(interface) = interface {
                way.extend(["interface".into(), interface.into()]);
            }
            way.push("link".into());
            ways.push(way);
        }
    }
    ways.push(vec!["coordinator".into(), "link".into()]);
    ways
}

/// Where the nth entry of the timeline, which is sorted, may stand in the file.
fn change_of(scenario: &Scenario, nth: usize) -> Vec<Vec<Key>> {
    let nth = std::iter::once(nth);
    let any = 0..scenario.timeline.len();
    nth.chain(any).map(|i| vec!["at".into(), Key::Nth(i), "link".into()]).collect()
}

/// Expectations of round trips that are finer than this are left to the simulator: each of eight hops takes a turn.
const FINEST: Duration = Duration::from_millis(10);

/// The scenario with the expectations that this world can be judged by, and in words those that are left out.
pub fn judged(scenario: &Scenario) -> (Scenario, Vec<String>) {
    let (mut scenario, mut left_out) = (scenario.clone(), Vec::new());
    for expect in &mut scenario.expect {
        if let Some(limit) = expect.rtt_at_most.take_if(|limit| *limit < FINEST) {
            left_out.push(format!(
                "not judged: rtt-at-most = {limit:?} is finer than ticks of {:?}",
                super::TICK
            ));
        }
    }
    (scenario, left_out)
}

/// Whether a rate is one that cables have where a scenario does not say.
fn is_usual(rate_bps: u64) -> bool {
    let presets = DEFAULTS.iter().filter_map(|name| ::link::presets::link(name));
    let mut rates = presets.flat_map(|preset| [preset.up.rate_bps, preset.down.rate_bps]);
    rates.any(|usual| usual == Some(rate_bps))
}

/// What a cable is to do that it cannot here.
fn asks(config: &LinkConfig, transfers: bool) -> Vec<String> {
    let LinkConfig {
        delay: _,
        jitter,
        rate_bps,
        queue_bytes: _,
        loss,
        may_reorder: _,
        aqm,
        trace,
        delays,
        late,
        duplicate,
        corrupt,
        mtu: _,
        outages: _,
        steps,
    } = config;
    let harmless = |bps: &u64| is_usual(*bps) || (!transfers && *bps >= FAST_BPS);
    let rate = rate_bps.filter(|bps| !harmless(bps));
    let mut asked = Vec::new();
    asked.extend(rate.map(|bps| format!("a rate of {bps} bit/s")));
    let others = [
        (*jitter != Jitter::None, "jitter"),
        (*loss != Loss::NONE, "loss"),
        (*aqm != Aqm::DropTail, "aqm"),
        (trace.is_some(), "trace"),
        (delays.is_some(), "delay-trace"),
        (*late != Late::default(), "late"),
        (*duplicate != Share::NONE, "duplicate"),
        (*corrupt != Share::NONE, "corrupt"),
        (steps.is_some(), "steps"),
    ];
    asked.extend(others.iter().filter(|(there, _)| *there).map(|(_, what)| (*what).to_owned()));
    asked
}
