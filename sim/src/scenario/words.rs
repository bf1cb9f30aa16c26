//! How values and actions are put in words, for files, logs and tables.

use std::fmt::Write as _;

use link::{Jitter, LinkConfig};

use super::model::{Access, Action};
pub use super::units::{duration, rate, ratio, size};

/// An action of the timeline, as the log tells it. `before` is the cable as it was, for a change of it.
pub(super) fn action(action: &Action, before: Option<&Access>) -> String {
    match action {
        Action::RebootRouter { router, off } => {
            format!("router {router}: reboot, off for {}", duration(*off))
        }
        Action::FlushRouter { router } => format!("router {router}: forgets its bindings"),
        Action::RestartRelay { relay, off } => format!("relay {relay}: restart, off for {}", duration(*off)),
        Action::RestartCoordinator { off } => format!("coordinator: restart, off for {}", duration(*off)),
        Action::SetLink { node, up: false } => format!("link of {node}: cut"),
        Action::SetLink { node, up: true } => format!("link of {node}: mended"),
        Action::SetFirewall { router, firewall: None, .. } => format!("router {router}: no firewall"),
        Action::SetFirewall { router, firewall: Some(firewall), name } => {
            format!("router {router}: firewall {name} ({firewall})")
        }
        Action::ChangeLink { node, link } => {
            let mut out = format!("link of {node}:");
            let from = out.len();
            for (direction, now, before) in
                [("down", &link.down, before.map(|b| &b.down)), ("up", &link.up, before.map(|b| &b.up))]
            {
                let changed = changes(now, before);
                if !changed.is_empty() {
                    let comma = if out.len() > from { "," } else { "" };
                    let _ = write!(out, "{comma} {direction} {}", changed.join(" "));
                }
            }
            if out.len() == from {
                out.push_str(" stays as it is");
            }
            out
        }
    }
}

/// The properties of a link that are not as they were.
fn changes(now: &LinkConfig, before: Option<&LinkConfig>) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |changed: bool, words: String| {
        if changed {
            out.push(words);
        }
    };
    note(before.is_none_or(|b| b.rate_bps != now.rate_bps), rate(now.rate_bps));
    note(before.is_none_or(|b| b.delay != now.delay), format!("delay {}", duration(now.delay)));
    note(before.is_none_or(|b| b.jitter != now.jitter), format!("jitter {}", duration(jitter(now))));
    note(
        before.is_none_or(|b| b.queue_bytes != now.queue_bytes),
        format!("queue {}", queue(now.queue_bytes)),
    );
    note(before.is_none_or(|b| b.loss != now.loss), format!("loss {}", ratio(now.loss.parts_per_billion())));
    note(before.is_some_and(|b| b.may_reorder != now.may_reorder), format!("reorder {}", now.may_reorder));
    out
}

/// How far the delay of a link varies.
pub(super) fn jitter(link: &LinkConfig) -> std::time::Duration {
    match link.jitter {
        Jitter::None => std::time::Duration::ZERO,
        Jitter::Uniform { plus_minus } => plus_minus,
    }
}

/// The length of a queue.
pub(super) fn queue(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unlimited".to_owned(), size)
}

/// One direction of a cable in a few words: "20Mbit/s 2ms".
pub fn link(config: &LinkConfig) -> String {
    let mut out = format!("{} {}", rate(config.rate_bps), duration(config.delay));
    if !jitter(config).is_zero() {
        let _ = write!(out, "±{}", duration(jitter(config)));
    }
    if config.loss.parts_per_billion() > 0 {
        let _ = write!(out, " loss {}", ratio(config.loss.parts_per_billion()));
    }
    out
}
