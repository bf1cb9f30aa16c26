//! What of a scenario the turmoil world can play.

use crate::scenario::{Access, Action, Scenario};
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
    /// What it asks for, each with the key that does.
    pub problems: Vec<String>,
}

/// The presets that cables have where a scenario does not say. Their rates are far above what a tunnel in this world sends.
const DEFAULTS: [&str; 2] = ["lan", "fibre"];

/// The topology as the turmoil world has it, and what it leaves out without harm.
///
/// # Errors
/// If the scenario asks for rates, bulk transfers, or packets lost, doubled or delayed one by one.
pub fn fits(scenario: &Scenario, topology: &Topology) -> Result<(Topology, Vec<String>), Misfit> {
    let mut problems = Vec::new();
    for flow in scenario.traffic.iter().filter(|flow| flow.kind == FlowKind::Bulk) {
        problems.push(format!("traffic from {} to {}: kind = \"bulk\" measures rates", flow.from, flow.to));
    }
    for timed in &scenario.timeline {
        if let Action::ChangeLink { node, link } = &timed.action {
            let Access { up, down } = &**link;
            for (config, way) in [(up, "up"), (down, "down")] {
                problems.extend(asks(config).map(|what| format!("at, link of {node}, {way}: {what}")));
            }
        }
    }
    let mut topology = topology.clone();
    let mut fast = 0;
    for node in &mut topology.nodes {
        for (config, way) in [(&mut node.up, "up"), (&mut node.down, "down")] {
            problems.extend(asks(config).map(|what| format!("link of {}, {way}: {what}", node.name)));
            if config.rate_bps.take().is_some() {
                config.queue_bytes = None;
                fast += 1;
            }
        }
    }
    problems.dedup();
    if !problems.is_empty() {
        return Err(Misfit { scenario: scenario.name.clone(), problems });
    }
    let mut notes = vec!["packets arrive at whole milliseconds".to_owned()];
    if fast > 0 {
        notes.push(format!(
            "the rates of {fast} cables of the presets {} are left out",
            DEFAULTS.join(" and ")
        ));
    }
    notes.extend(judged(scenario).1);
    Ok((topology, notes))
}

/// Expectations of round trips that are finer than this are left to the simulator: each of eight hops rounds to a tick.
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

/// What a cable is to do that it cannot here.
fn asks(config: &LinkConfig) -> impl Iterator<Item = String> {
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
    let presets = DEFAULTS.iter().filter_map(|name| ::link::presets::link(name));
    let mut usual = presets.flat_map(|preset| [preset.up.rate_bps, preset.down.rate_bps]);
    let rate = rate_bps.filter(|_| !usual.any(|usual| usual == *rate_bps));
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
    asked.into_iter()
}
