//! Cables: presets and what a file changes in them.

use std::time::Duration;

use link::{Jitter, LinkConfig, Loss};

use super::axes::take;
use super::error::{Problems, suggest};
use super::file::Link;
use super::model::Access;
use super::value::{Both, Either, Presets, Queue, Rate, Ratio, Sugar, Val};

impl Presets for Link {
    fn words() -> Vec<&'static str> {
        link::presets::LINKS.iter().map(|preset| preset.name).collect()
    }
}

/// The preset called `name`.
fn named(name: &str) -> Option<Access> {
    link::presets::link(name).map(|preset| Access { down: preset.down, up: preset.up })
}

/// The uplink of a router that names none: fibre to the home.
pub(super) fn uplink() -> Access {
    named("fibre").unwrap_or_else(lan)
}

/// The cable of any other node that names none: a gigabit, as good as nothing in the way.
pub(super) fn lan() -> Access {
    named("lan").unwrap_or(Access { down: LinkConfig::default(), up: LinkConfig::default() })
}

/// The cable that a file describes, starting from `base`.
pub(super) fn access(spec: Option<Sugar<Link>>, base: &Access, problems: &mut Problems<'_>) -> Access {
    let Some(spec) = spec else { return base.clone() };
    match spec.value {
        Either::Word(word) => {
            preset(Val { span: spec.span, value: Ok(word) }, problems).unwrap_or_else(|| base.clone())
        }
        Either::Table(table) => change(*table, base, problems),
    }
}

fn preset(name: Val<String>, problems: &mut Problems<'_>) -> Option<Access> {
    let span = name.span.clone();
    let name = take(Some(name), problems)?;
    let found = named(&name);
    if found.is_none() {
        problems.add(span, format!("`{name}` is no link preset"), suggest(&name, Link::words()));
    }
    found
}

/// `base` with what `table` says.
pub(super) fn change(table: Link, base: &Access, problems: &mut Problems<'_>) -> Access {
    let Link { preset: name, down, up, delay, jitter, queue, loss, reorder } = table;
    let mut access = name.and_then(|name| preset(name, problems)).unwrap_or_else(|| base.clone());
    for (link, rate) in [(&mut access.down, down), (&mut access.up, up)] {
        if let Some(Rate(rate)) = take(rate, problems) {
            link.rate_bps = rate;
            // As in the presets: 100 ms of the rate, unless `queue` says otherwise below.
            link.queue_bytes = rate.map(|bps| bps / 80);
        }
    }
    both(&mut access, delay, problems, |link, delay: Duration| link.delay = delay);
    both(&mut access, jitter, problems, |link, jitter: Duration| {
        link.jitter = if jitter.is_zero() { Jitter::None } else { Jitter::Uniform { plus_minus: jitter } };
    });
    both(&mut access, queue, problems, |link, Queue(bytes)| link.queue_bytes = bytes);
    both(&mut access, loss, problems, |link, Ratio(ppb)| link.loss = Loss::per_billion(ppb));
    both(&mut access, reorder, problems, |link, reorder| link.may_reorder = reorder);
    access
}

/// Sets a property of both directions.
fn both<T>(
    access: &mut Access,
    value: Option<Both<T>>,
    problems: &mut Problems<'_>,
    set: impl Fn(&mut LinkConfig, T),
) {
    let Some(Both { down, up }) = value else { return };
    if let Some(down) = take(down, problems) {
        set(&mut access.down, down);
    }
    if let Some(up) = take(up, problems) {
        set(&mut access.up, up);
    }
}
