//! How each pair ended, and why so.

use super::text::{Text, list};
use crate::fold::pair_of;
use crate::metrics::{HostMetrics, Metrics, PairMetrics};
use crate::units;
use std::collections::BTreeMap;
use trace::{Event, Name, Path, Record};

/// Most pairs whose ending is told.
const PAIRS: usize = 100;

/// What a pair's checks came to.
#[derive(Default)]
struct Checks<'a> {
    sent: u64,
    answered: Vec<&'a Name>,
    left: Option<(u64, &'a Name, &'a str)>,
}

pub(super) fn tell(metrics: &Metrics, records: &[Record], text: &mut Text) {
    if metrics.pairs.is_empty() && metrics.violations.is_empty() {
        return;
    }
    text.heading("How it ended");
    let mut checks: BTreeMap<(Name, Name), Checks<'_>> = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::Probe { host, peer, .. } => checks.entry(pair_of(host, peer)).or_default().sent += 1,
            Event::Validated { host, peer, .. } => {
                let checks = checks.entry(pair_of(host, peer)).or_default();
                if !checks.answered.contains(&host) {
                    checks.answered.push(host);
                }
            }
            Event::PathChanged { host, peer, path, reason, .. } => {
                let checks = checks.entry(pair_of(host, peer)).or_default();
                match path {
                    Some(Path::Direct | Path::Lan) => checks.left = None,
                    Some(Path::Relay) | None if checks.answered.contains(&host) && checks.left.is_none() => {
                        checks.left = Some((record.t, host, reason));
                    }
                    Some(Path::Relay) | None => {}
                }
            }
            _ => {}
        }
    }
    let none = Checks::default();
    for pair in metrics.pairs.iter().take(PAIRS) {
        let checks = checks.get(&(pair.a.clone(), pair.b.clone())).unwrap_or(&none);
        text.bullet(&format!("{} {}", ending(pair, metrics, checks), figures(pair)));
    }
    if metrics.pairs.len() > PAIRS {
        text.bullet(&format!("… and {} more pairs.", metrics.pairs.len() - PAIRS));
    }
    for violation in &metrics.violations {
        text.bullet(&format!("Never allowed, and it happened: {violation}."));
    }
}

fn ending(pair: &PairMetrics, metrics: &Metrics, checks: &Checks<'_>) -> String {
    let PairMetrics { a, b, path_a, path_b, .. } = pair;
    let after = pair
        .direct_ns
        .map_or(String::new(), |ns| format!(", since {} after the first packet", units::duration(ns)));
    match (path_a, path_b) {
        (Some(Path::Lan), Some(Path::Lan)) => {
            format!("{a} and {b} ended direct inside their LAN{after}: each answered the other's check.")
        }
        (Some(Path::Direct), Some(Path::Direct)) => {
            format!("{a} and {b} ended direct{after}: each answered the other's check.")
        }
        (Some(Path::Relay), Some(Path::Relay)) => {
            format!("{a} and {b} ended relayed: {}.", why_relayed(pair, metrics, checks))
        }
        (None, None) => format!("{a} and {b} ended without any path."),
        (to_b, to_a) => {
            let word = |path: &Option<Path>| path.map_or("by no path", Path::as_str);
            format!("{a} and {b} ended with two ways: {a} sends {}, {b} sends {}.", word(to_b), word(to_a))
        }
    }
}

fn why_relayed(pair: &PairMetrics, metrics: &Metrics, checks: &Checks<'_>) -> String {
    let host = |name: &Name| metrics.hosts.iter().find(|host| host.host == **name);
    let which = |test: &dyn Fn(&HostMetrics) -> bool| -> Vec<&Name> {
        [&pair.a, &pair.b].into_iter().filter(|name| host(name).is_some_and(test)).collect()
    };
    let blocked = which(&|host| host.udp_blocked == Some(true));
    let varies = which(&|host| host.mapping_varies == Some(true));
    if !blocked.is_empty() {
        let (verb, whose) = if blocked.len() == 1 { ("gets", "its") } else { ("get", "their") };
        return format!(
            "{} {verb} no UDP through {whose} network, and without UDP there is no hole to punch",
            list(&blocked)
        );
    }
    if let Some((at_ns, host, reason)) = checks.left {
        let at = units::moment(at_ns);
        return format!(
            "they had been direct, but {host} left that path at {at} ({reason}), and no check after that brought them back"
        );
    }
    if checks.sent == 0 {
        return "no check was ever sent".into();
    }
    let sent = units::plural(checks.sent, "check");
    let guess = match varies.len() {
        2 => format!(
            "; the mappings of both vary by destination, so neither could tell the other which port to aim at ({})",
            list(&varies)
        ),
        1 => format!(
            "; {}'s mapping varies by destination, so the other aimed at a port that was never open to it",
            varies[0]
        ),
        _ => String::new(),
    };
    match &checks.answered[..] {
        [] => format!("{sent} went out and none was answered{guess}"),
        [one] => format!("{sent} went out and only {one} got an answer{guess}"),
        _ => format!("{sent} went out and both sides got answers, but neither moved{guess}"),
    }
}

fn figures(pair: &PairMetrics) -> String {
    let mut words = Vec::new();
    for (path, figures) in pair.paths.iter() {
        let mut parts = Vec::new();
        if let Some(ppm) = figures.loss_ppm {
            let sent = units::plural(figures.sent, "packet");
            parts.push(format!("{sent}, {} lost ({})", figures.lost, units::percent(ppm)));
        }
        if let Some(ns) = figures.rtt_p50_ns {
            parts.push(format!("round trip {}", units::duration(ns)));
        }
        if let Some(bps) = figures.goodput_bps {
            parts.push(format!("goodput {}", units::rate(bps)));
        }
        if !parts.is_empty() {
            words.push(format!("{}: {}.", upper(path.as_str()), parts.join(", ")));
        }
    }
    if pair.pathless_sent > 0 {
        let sent = units::plural(pair.pathless_sent, "packet");
        words.push(format!("While there was no path: {sent}, {} lost.", pair.pathless_lost));
    }
    words.join(" ")
}

fn upper(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
