//! How values and actions are put in words, for files, logs and tables.

use std::fmt::Write as _;
use std::time::Duration;

use link::{Jitter, LinkConfig, Loss};

use super::links;
use super::model::{Access, Action, Attachment, Place, When};
pub use super::units::{duration, rate, ratio, size};

/// A time, or the range that it is drawn from.
pub fn when(when: When) -> String {
    let When { from, to } = when;
    if from == to { duration(from) } else { format!("{}..{}", duration(from), duration(to)) }
}

/// An action of the timeline, as the log tells it. `before` is the cable as it was, for a change of it.
pub(super) fn action(action: &Action, before: Option<&Access>) -> String {
    match action {
        Action::RebootRouter { router, off } => {
            format!("router {router}: reboot, off for {}", duration(*off))
        }
        Action::FlushRouter { router } => format!("router {router}: forgets its bindings"),
        Action::RestartRelay { relay, off, drain } => {
            let how = if *drain { "announced restart" } else { "restart" };
            format!("relay {relay}: {how}, off for {}", duration(*off))
        }
        Action::SetHealth { relay, says } if says.is_empty() => {
            format!("relay {relay}: says that it is well")
        }
        Action::SetHealth { relay, says } => format!("relay {relay}: says that it is ill: {says}"),
        Action::RestartCoordinator { off, keeps } => {
            let lost = if *keeps { "" } else { ", its records are lost" };
            format!("coordinator: restart, off for {}{lost}", duration(*off))
        }
        Action::RestartHost { host, off, keeps } => {
            let identity = if *keeps { "as the same peer" } else { "as a new peer" };
            format!("host {host}: peer restarts {identity}, off for {}", duration(*off))
        }
        Action::Kill { node } => format!("{node}: killed"),
        Action::Revoke { host } => format!("{host}: revoked by an administrator"),
        Action::Approve { host } => format!("{host}: let in by an administrator"),
        Action::Rotate { host } => format!("{host}: takes another node key"),
        Action::SetAccess { access } => format!("coordinator: {} access rules", access.rules.len()),
        Action::Crash { node, off: None } => format!("{node}: loses power"),
        Action::Crash { node, off: Some(off) } => format!("{node}: loses power for {}", duration(*off)),
        Action::BlackHole { node, lasts } => format!("{node}: swallows all packets{}", span(*lasts)),
        Action::Slow { node, each, delay, queue, lasts } => {
            let (each, delay) = (duration(*each), duration(*delay));
            format!("{node}: slow, {delay} and {each} for each packet, queue {queue}{}", span(*lasts))
        }
        Action::Cut { from, to, lasts } if to.is_empty() => {
            format!("internet: {} cut off{}", places(from), span(*lasts))
        }
        Action::Cut { from, to, lasts } => {
            format!("internet: {} cut off from {}{}", places(from), places(to), span(*lasts))
        }
        Action::ReaddressRouter { router, off, .. } => {
            format!("router {router}: new address, off for {}", duration(*off))
        }
        Action::SetNat { router, nat: None, .. } => format!("router {router}: no translation"),
        Action::SetNat { router, nat: Some(nat), name, keeps } => {
            let lost = if *keeps { "" } else { ", bindings lost" };
            format!("router {router}: nat {name} ({nat}){lost}")
        }
        Action::MoveHost { host, interface: own, to, dead, .. } => {
            let to = match to {
                Attachment::Region(region) => format!("region {region}"),
                Attachment::Behind(router) => format!("router {router}"),
            };
            format!("host {}: moves to {to}, nowhere for {}", interface(host, own), duration(*dead))
        }
        Action::SetInterface { host, interface: own, up } => {
            format!("host {}: interface {}", interface(host, own), if *up { "comes up" } else { "goes away" })
        }
        Action::Sleep { host, lasts } => format!("host {host}: sleeps for {}", duration(*lasts)),
        Action::SetClock { host, by, back } => {
            format!("host {host}: clock jumps by {}{}", if *back { '-' } else { '+' }, duration(*by))
        }
        Action::AcceptPortal { router } => format!("router {router}: captive portal accepted"),
        Action::SetLink { node, up: false } => format!("link of {node}: cut"),
        Action::SetLink { node, up: true } => format!("link of {node}: mended"),
        Action::SetFirewall { router, firewall: None, .. } => format!("router {router}: no firewall"),
        Action::SetFirewall { router, firewall: Some(firewall), name } => {
            format!("router {router}: firewall {name} ({firewall})")
        }
        Action::ChangeRules { router, change } => format!("router {router}: firewall {change}"),
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

fn span(lasts: Option<Duration>) -> String {
    lasts.map(|lasts| format!(" for {}", duration(lasts))).unwrap_or_default()
}

fn places(places: &[Place]) -> String {
    let names: Vec<&str> =
        places.iter().map(|(Place::Region(name) | Place::Node(name))| name.as_str()).collect();
    names.join(", ")
}

/// The name of an interface of a host; that of the host for its first.
pub(crate) fn interface(host: &str, interface: &str) -> String {
    if interface.is_empty() { host.to_owned() } else { format!("{host}.{interface}") }
}

/// The properties of a link that are not as they were.
fn changes(now: &LinkConfig, before: Option<&LinkConfig>) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |changed: bool, words: String| {
        if changed {
            out.push(words);
        }
    };
    let trace = |link: &LinkConfig| link.trace.as_ref().map(|trace| trace.name().to_owned());
    let rate_now = trace(now).map_or_else(|| rate(now.rate_bps), |name| format!("rate of {name}"));
    note(before.is_none_or(|b| b.rate_bps != now.rate_bps || trace(b) != trace(now)), rate_now);
    let delay = format!("delay {}", links::delay(now));
    note(before.is_none_or(|b| links::delay(b) != links::delay(now)), delay);
    let jitter = |link: &LinkConfig| links::jitter(&link.jitter);
    note(before.is_none_or(|b| jitter(b) != jitter(now)), format!("jitter {}", jitter(now)));
    note(
        before.is_none_or(|b| b.queue_bytes != now.queue_bytes),
        format!("queue {}", queue(now.queue_bytes)),
    );
    note(before.is_none_or(|b| b.loss != now.loss), format!("loss {}", links::loss(&now.loss)));
    note(before.is_some_and(|b| b.may_reorder != now.may_reorder), format!("reorder {}", now.may_reorder));
    let (was, is) = (before.map(links::more).unwrap_or_default(), links::more(now));
    for word in &is {
        note(!was.contains(word), word.clone());
    }
    // What ended is named by its first word, unless it only changed.
    let first = |words: &String| words.split(' ').next().unwrap_or_default().to_owned();
    for word in was.iter().filter(|word| !is.iter().any(|other| first(other) == first(word))) {
        note(true, format!("no more {word}"));
    }
    out
}

/// The length of a queue.
pub(super) fn queue(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unlimited".to_owned(), size)
}

/// One direction of a cable in a few words: "20Mbit/s 2ms".
pub fn link(config: &LinkConfig) -> String {
    let rate = match &config.trace {
        Some(trace) => format!("rate of {}", trace.name()),
        None => rate(config.rate_bps),
    };
    let mut out = format!("{rate} {}", links::delay(config));
    match &config.jitter {
        Jitter::None | Jitter::Quantiles(_) => {}
        Jitter::Uniform { plus_minus } => _ = write!(out, "±{}", duration(*plus_minus)),
        shaped => _ = write!(out, " jitter {}", links::jitter(shaped)),
    }
    if config.loss != Loss::NONE {
        let _ = write!(out, " loss {}", links::loss(&config.loss));
    }
    for words in links::more(config) {
        let _ = write!(out, ", {words}");
    }
    out
}
