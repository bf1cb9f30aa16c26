//! Cables: presets and what a file changes in them.

use std::sync::Arc;
use std::time::Duration;

use link::trace::{DelayTrace, Trace};
use link::{Jitter, LinkConfig, Outages, Share, StepTo, Steps};

use super::axes::take;
use super::error::{Problems, suggest};
use super::file::{self, Link};
use super::links::{self, Delay, FileName, Mtu, NONE, Pmtud};
use super::model::Access;
use super::value::{Both, Either, Presets, Queue, Rate, Ratio, Sugar, Val, Word};

impl Presets for Link {
    fn words() -> Vec<&'static str> {
        link::presets::LINKS.iter().map(|preset| preset.name).collect()
    }
}

impl Presets for file::Outages {
    fn words() -> Vec<&'static str> {
        vec![NONE]
    }
}

impl Presets for file::DelaySteps {
    fn words() -> Vec<&'static str> {
        vec![NONE]
    }
}

/// The preset called `name`.
fn named(name: &str) -> Option<Access> {
    link::presets::link(name).map(|preset| Access { down: preset.down.clone(), up: preset.up.clone() })
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
    let Link {
        preset: name,
        down,
        up,
        trace,
        delay,
        jitter,
        delay_trace,
        delay_steps,
        queue,
        aqm,
        loss,
        reorder,
        late,
        duplicate,
        corrupt,
        mtu,
        pmtud,
        outages,
    } = table;
    let mut access = name.and_then(|name| preset(name, problems)).unwrap_or_else(|| base.clone());
    let (mut rated_down, mut rated_up) = (false, false);
    for (link, rate, rated) in
        [(&mut access.down, down, &mut rated_down), (&mut access.up, up, &mut rated_up)]
    {
        if let Some(Rate(rate)) = take(rate, problems) {
            link.rate_bps = rate;
            link.trace = None;
            // As in the presets: 100 ms of the rate, unless `queue` says otherwise below.
            link.queue_bytes = rate.map(|bps| bps / 80);
            *rated = rate.is_some();
        }
    }
    if let Some(Both { down, up }) = trace {
        for (link, name, rated) in [(&mut access.down, down, rated_down), (&mut access.up, up, rated_up)] {
            set_trace(link, name, rated, problems);
        }
    }
    both(&mut access, delay, problems, |link, delay| {
        link.delays = None;
        match delay {
            Delay::Constant(delay) => {
                link.delay = delay;
                if matches!(link.jitter, Jitter::Quantiles(_)) {
                    link.jitter = Jitter::None;
                }
            }
            Delay::Measured(least, quantiles) => {
                link.delay = least;
                link.jitter = Jitter::Quantiles(quantiles);
            }
        }
    });
    set_jitter(&mut access, jitter, problems);
    if let Some(Both { down, up }) = delay_trace {
        for (link, name) in [(&mut access.down, down), (&mut access.up, up)] {
            if let Some(read) = load(name, problems, DelayTrace::parse) {
                link.delays = read.map(Arc::new);
            }
        }
    }
    if let Some(spec) = delay_steps {
        let steps = table_or_none(spec, problems).map(|table| steps(table, problems));
        for link in [&mut access.down, &mut access.up] {
            link.steps = steps;
        }
    }
    both(&mut access, queue, problems, |link, Queue(bytes)| link.queue_bytes = bytes);
    both(&mut access, aqm, problems, |link, aqm| link.aqm = aqm);
    both(&mut access, loss, problems, |link, loss| link.loss = loss);
    both(&mut access, reorder, problems, |link, reorder| link.may_reorder = reorder);
    both(&mut access, late, problems, |link, late| link.late = late);
    both(&mut access, duplicate, problems, |link, share: Ratio| link.duplicate = links::of(share));
    both(&mut access, corrupt, problems, |link, share: Ratio| link.corrupt = links::of(share));
    both(&mut access, mtu, problems, |link, Mtu(bytes)| {
        // As RFC 1191 has it, unless `pmtud` says otherwise.
        link.mtu = bytes.map(|bytes| link::Mtu { bytes, tells: true });
    });
    set_pmtud(&mut access, pmtud, problems);
    if let Some(spec) = outages {
        let outages = table_or_none(spec, problems).and_then(|table| outage(table, problems));
        for link in [&mut access.down, &mut access.up] {
            link.outages = outages;
        }
    }
    access
}

/// The table of a key that may also be "none".
fn table_or_none<T>(spec: Sugar<T>, problems: &mut Problems<'_>) -> Option<T> {
    match spec.value {
        Either::Table(table) => Some(*table),
        Either::Word(word) if word == NONE => None,
        Either::Word(word) => {
            problems.add(spec.span, format!("`{word}` is no table"), "write a table, or \"none\"");
            None
        }
    }
}

/// Reads the file that a key names. `Some(None)` for "none".
fn load<T>(
    name: Option<Val<FileName>>,
    problems: &mut Problems<'_>,
    parse: fn(&str, &str) -> Result<T, link::trace::TraceError>,
) -> Option<Option<T>> {
    let span = name.as_ref().map_or(0..0, |name| name.span.clone());
    let Some(name) = take(name, problems)?.0 else { return Some(None) };
    let read = problems.read(&name).and_then(|text| parse(&name, &text).map_err(|error| error.to_string()));
    match read {
        Ok(trace) => Some(Some(trace)),
        Err(why) => {
            let help = "a trace lies beside the scenario, with one chance to send per line, in milliseconds";
            problems.add(span, format!("{name}: {why}"), help);
            None
        }
    }
}

fn set_trace(link: &mut LinkConfig, name: Option<Val<FileName>>, rated: bool, problems: &mut Problems<'_>) {
    let span = name.as_ref().map_or(0..0, |name| name.span.clone());
    match load(name, problems, Trace::parse) {
        Some(Some(_)) if rated => {
            problems.add(span, "a rate and a trace", "the trace says the rate: leave the other away");
        }
        Some(Some(trace)) => {
            link.rate_bps = None;
            // As for rates.
            link.queue_bytes = Some(trace.mean_bps() / 80);
            link.trace = Some(Arc::new(trace));
        }
        Some(None) => link.trace = None,
        None => {}
    }
}

fn set_jitter(access: &mut Access, jitter: Option<Both<Jitter>>, problems: &mut Problems<'_>) {
    let Some(Both { down, up }) = jitter else { return };
    for (link, jitter) in [(&mut access.down, down), (&mut access.up, up)] {
        let span = jitter.as_ref().map_or(0..0, |jitter| jitter.span.clone());
        match take(jitter, problems) {
            // What was measured has its variation in it.
            Some(Jitter::None) if matches!(link.jitter, Jitter::Quantiles(_)) => {}
            Some(_) if matches!(link.jitter, Jitter::Quantiles(_)) => {
                let help = "give a constant delay, or leave jitter away";
                problems.add(span, "the delay was measured, with its variation", help);
            }
            Some(jitter) => link.jitter = jitter,
            None => {}
        }
    }
}

fn set_pmtud(access: &mut Access, pmtud: Option<Both<Word<Pmtud>>>, problems: &mut Problems<'_>) {
    let Some(Both { down, up }) = pmtud else { return };
    for (link, pmtud) in [(&mut access.down, down), (&mut access.up, up)] {
        let span = pmtud.as_ref().map_or(0..0, |pmtud| pmtud.span.clone());
        let Some(Word(pmtud)) = take(pmtud, problems) else { continue };
        match &mut link.mtu {
            Some(mtu) => mtu.tells = pmtud == Pmtud::Icmp,
            None => problems.add(span, "pmtud without an MTU", "write for example mtu = 1400"),
        }
    }
}

/// Shortest time between two outages or steps.
const MIN_EVERY: Duration = Duration::from_millis(10);

/// A time of a schedule that must be long enough.
fn every(value: Option<Val<Duration>>, what: &str, problems: &mut Problems<'_>) -> Option<Duration> {
    let span = value.as_ref().map_or(0..0, |value| value.span.clone());
    let every = take(value, problems)?;
    if every < MIN_EVERY {
        problems.add(span, format!("{what} come too fast"), "at least every 10ms");
        return None;
    }
    Some(every)
}

fn outage(table: file::Outages, problems: &mut Problems<'_>) -> Option<Outages> {
    let file::Outages { every: between, lasts, first, random } = table;
    let span = lasts.span.clone();
    let every = every(Some(between), "outages", problems);
    let (lasts, first) = (take(Some(lasts), problems), take(first, problems));
    let random = take(random, problems).unwrap_or(false);
    let (every, lasts) = (every?, lasts?);
    if lasts.is_zero() || (!random && lasts >= every) {
        let help = "an outage lasts more than nothing, and is over before the next one begins";
        problems.add(span, "the outages leave nothing, or all, of the time", help);
        return None;
    }
    // By itself the first one comes when every other does.
    Some(Outages {
        every,
        lasts,
        first: first.unwrap_or(if random { Duration::ZERO } else { every }),
        random,
    })
}

fn steps(table: file::DelaySteps, problems: &mut Problems<'_>) -> Steps {
    let file::DelaySteps { every: between, first, by, to, disturbed, loss } = table;
    let every = every(Some(between), "steps", problems).unwrap_or(MIN_EVERY);
    Steps {
        every,
        first: take(first, problems).unwrap_or(every),
        by: take(Some(by), problems).unwrap_or_default(),
        to: take(to, problems).map_or(StepTo::Anywhere, |Word(to)| to),
        disturbed: take(disturbed, problems).unwrap_or_default(),
        loss: take(loss, problems).map_or(Share::NONE, links::of),
    }
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
