//! How the properties of a link are written: read from a file here, written back by the same words.

use std::time::Duration;

use link::{
    Aqm, CoDel, FqCoDel, Jitter, Late, LinkConfig, Loss, Outages, Quantiles, Red, Share, StepTo, Steps,
};
use schemars::{Schema, json_schema};

use super::error::suggest;
use super::units::{self, Bad, duration, ratio, size};
use super::value::{Ratio, Size, Value, Words};

/// The word for going without.
pub(super) const NONE: &str = "none";

/// The words after the first, as pairs of a name and its value.
fn settings<'t>(
    words: &[&'t str],
    known: &[&str],
    what: &str,
    example: &str,
) -> Result<Vec<(&'t str, &'t str)>, Bad> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in words.chunks(2) {
        let name = pair[0];
        if !known.contains(&name) {
            return Err(Bad::new(
                format!("`{name}` is no setting of {what}"),
                suggest(name, known.iter().copied()),
            ));
        }
        let Some(value) = pair.get(1) else {
            return Err(Bad::new(format!("`{name}` has no value"), format!("write for example {example}")));
        };
        if pairs.iter().any(|(before, _)| *before == name) {
            return Err(Bad::new(format!("`{name}` is given twice"), "give it once"));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn share(text: &str) -> Result<Share, Bad> {
    units::parse_ratio(text).map(Share::per_billion)
}

fn count(text: &str) -> Result<u32, Bad> {
    text.parse()
        .map_err(|_| Bad::new(format!("`{text}` is not a number"), "write a whole number, for example 5"))
}

fn switch(text: &str) -> Result<bool, Bad> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Bad::new(format!("`{text}` is neither on nor off"), suggest(text, ["on", "off"]))),
    }
}

fn on(switch: bool) -> &'static str {
    if switch { "on" } else { "off" }
}

// ---- delay ----------------------------------------------------------------------------------

/// A delay, constant or measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delay {
    Constant(Duration),
    /// The shortest, and what comes on top of it.
    Measured(Duration, Quantiles),
}

impl Value for Delay {
    const WHAT: &'static str = "a delay";
    const EXAMPLE: &'static str = "\"20ms\"";

    fn text(text: &str) -> Result<Self, Bad> {
        if !text.contains('%') {
            return units::parse_duration(text).map(Delay::Constant);
        }
        let help = "write shares and their delays, for example \"10% 20ms, 50% 35ms, 90% 80ms\"";
        let mut points: Vec<(Share, Duration)> = Vec::new();
        for point in text.split(',') {
            let Some((part, delay)) = point.trim().split_once(' ') else {
                return Err(Bad::new(format!("`{}` is not a share and its delay", point.trim()), help));
            };
            points.push((share(part)?, units::parse_duration(delay.trim())?));
        }
        let least = points.first().map_or(Duration::ZERO, |(_, delay)| *delay);
        let more: Vec<(Share, Duration)> =
            points.iter().map(|(part, delay)| (*part, delay.saturating_sub(least))).collect();
        let quantiles = Quantiles::new(&more).map_err(|error| Bad::new(error.to_string(), help))?;
        if points.iter().any(|(_, delay)| *delay < least) {
            return Err(Bad::new("a higher quantile has a shorter delay", help));
        }
        Ok(Delay::Measured(least, quantiles))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "examples": ["20ms", "10% 20ms, 50% 35ms, 90% 80ms"] })
    }
}

/// The delay of a link as a file has it.
pub(super) fn delay(link: &LinkConfig) -> String {
    let Jitter::Quantiles(quantiles) = &link.jitter else { return duration(link.delay) };
    let point = |(part, more): &(Share, Duration)| {
        format!("{} {}", ratio(part.parts_per_billion()), duration(link.delay.saturating_add(*more)))
    };
    quantiles.points().iter().map(point).collect::<Vec<_>>().join(", ")
}

impl Value for Jitter {
    const WHAT: &'static str = "a variation";
    const EXAMPLE: &'static str = "\"5ms\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let (shape, width) = text.trim().split_once(' ').unwrap_or(("uniform", text));
        let known = ["uniform", "normal", "pareto"];
        // "5 ms" is a duration, too.
        let (shape, width) =
            if shape.starts_with(|c: char| c.is_ascii_digit()) { ("uniform", text) } else { (shape, width) };
        let width = if known.contains(&shape) { units::parse_duration(width)? } else { Duration::ZERO };
        match shape {
            "uniform" if width.is_zero() => Ok(Jitter::None),
            "uniform" => Ok(Jitter::Uniform { plus_minus: width }),
            "normal" => Ok(Jitter::Normal { std_dev: width }),
            "pareto" => Ok(Jitter::Pareto { std_dev: width }),
            _ => Err(Bad::new(format!("`{shape}` is no shape of a variation"), suggest(shape, known))),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "examples": ["5ms", "normal 5ms", "pareto 5ms"] })
    }
}

/// A variation as a file has it; what was measured stands with the delay.
pub(super) fn jitter(jitter: &Jitter) -> String {
    match jitter {
        Jitter::None | Jitter::Quantiles(_) => duration(Duration::ZERO),
        Jitter::Uniform { plus_minus } => duration(*plus_minus),
        Jitter::Normal { std_dev } => format!("normal {}", duration(*std_dev)),
        Jitter::Pareto { std_dev } => format!("pareto {}", duration(*std_dev)),
    }
}

impl Value for Late {
    const WHAT: &'static str = "a share that is held back";
    const EXAMPLE: &'static str = "\"1% by 20ms\"";

    fn text(text: &str) -> Result<Self, Bad> {
        if text == NONE {
            return Ok(Late::default());
        }
        let Some((part, by)) = text.split_once(" by ") else {
            return Err(Bad::new(
                format!("`{text}` is not {}", Self::WHAT),
                format!("write a share and a time, for example {}", Self::EXAMPLE),
            ));
        };
        Ok(Late { share: share(part)?, by: units::parse_duration(by)? })
    }
}

pub(super) fn late(late: &Late) -> String {
    if *late == Late::default() {
        return NONE.to_owned();
    }
    format!("{} by {}", ratio(late.share.parts_per_billion()), duration(late.by))
}

// ---- loss -----------------------------------------------------------------------------------

impl Value for Loss {
    const WHAT: &'static str = "a loss";
    const EXAMPLE: &'static str = "\"0.1%\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["gilbert-elliott", rest @ ..] => gilbert_elliott(rest),
            ["burst", length, "every", every] => burst(count(length)?, count(every)?),
            ["every", every] => burst(1, count(every)?),
            _ if text.trim_start().starts_with(|c: char| c.is_ascii_digit()) => share(text).map(Loss::Random),
            _ => Err(Bad::new(
                format!("`{text}` is not {}", Self::WHAT),
                "write a share such as \"1%\", \"gilbert-elliott p 1% r 10% h 30% k 99.9%\", \"burst 5 every 200\" or \
                 \"every 50\"",
            )),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "examples": [
            "0.1%", "gilbert-elliott p 1% r 10% h 30% k 99.9%", "burst 5 every 200", "every 50",
        ] })
    }
}

fn gilbert_elliott(words: &[&str]) -> Result<Loss, Bad> {
    let example = "\"gilbert-elliott p 1% r 10% h 30% k 99.9%\"";
    let (mut p, mut r, mut h, mut k) = (None, None, Share::NONE, Share::ALL);
    for (name, value) in settings(words, &["p", "r", "h", "k"], "gilbert-elliott", example)? {
        let value = share(value)?;
        match name {
            "p" => p = Some(value),
            "r" => r = Some(value),
            "h" => h = value,
            _ => k = value,
        }
    }
    let (Some(p), Some(r)) = (p, r) else {
        return Err(Bad::new(
            "gilbert-elliott needs p and r",
            format!("p: from good to bad, r: from bad to good, for example {example}"),
        ));
    };
    if p == Share::NONE && r == Share::NONE {
        return Err(Bad::new(
            "with p and r both 0% the state never changes",
            "for loss without bursts write a share, for example loss = \"1%\"",
        ));
    }
    Ok(Loss::GilbertElliott { p, r, h, k })
}

fn burst(length: u32, every: u32) -> Result<Loss, Bad> {
    if length == 0 || length >= every {
        return Err(Bad::new(
            format!("{length} of every {every} packets"),
            "lose at least one packet and fewer than all, for example \"burst 5 every 200\"",
        ));
    }
    Ok(Loss::Burst { length, every })
}

pub(super) fn loss(loss: &Loss) -> String {
    let word = |share: &Share| ratio(share.parts_per_billion());
    match loss {
        Loss::Random(share) => word(share),
        Loss::GilbertElliott { p, r, h, k } => {
            format!("gilbert-elliott p {} r {} h {} k {}", word(p), word(r), word(h), word(k))
        }
        Loss::Burst { length: 1, every } => format!("every {every}"),
        Loss::Burst { length, every } => format!("burst {length} every {every}"),
    }
}

// ---- queue ----------------------------------------------------------------------------------

/// Smallest part of a queue that FQ-CoDel sends at once.
const MIN_QUANTUM: u64 = 256;
/// Largest thresholds of RED.
const MAX_RED: u64 = 1 << 40;

impl Value for Aqm {
    const WHAT: &'static str = "a management of queues";
    const EXAMPLE: &'static str = "\"fq-codel\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["drop-tail"] => Ok(Aqm::DropTail),
            ["codel", rest @ ..] => {
                let mut codel = CoDel::DEFAULT;
                for (name, value) in settings(rest, &CODEL, "codel", "\"codel target 5ms\"")? {
                    set_codel(&mut codel, name, value)?;
                }
                Ok(Aqm::CoDel(codel))
            }
            ["fq-codel", rest @ ..] => fq_codel(rest).map(Aqm::FqCoDel),
            ["red", rest @ ..] => red(rest).map(Aqm::Red),
            _ => {
                let word = words.first().copied().unwrap_or_default();
                let help = suggest(word, ["drop-tail", "codel", "fq-codel", "red"]);
                Err(Bad::new(format!("`{text}` is not {}", Self::WHAT), help))
            }
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "examples": [
            "drop-tail",
            "codel",
            "fq-codel",
            "fq-codel target 5ms interval 100ms ecn on flows 1024 quantum 1514B",
            "red min 30kB max 90kB probability 10% ecn on",
        ] })
    }
}

const CODEL: [&str; 3] = ["target", "interval", "ecn"];

fn set_codel(codel: &mut CoDel, name: &str, value: &str) -> Result<(), Bad> {
    match name {
        "target" => codel.target = units::parse_duration(value)?,
        "interval" => {
            codel.interval = units::parse_duration(value)?;
            if codel.interval.is_zero() {
                return Err(Bad::new("an interval of nothing", "write a round trip, for example 100ms"));
            }
        }
        _ => codel.ecn = switch(value)?,
    }
    Ok(())
}

fn fq_codel(words: &[&str]) -> Result<FqCoDel, Bad> {
    let mut fair = FqCoDel::DEFAULT;
    let known = ["target", "interval", "ecn", "flows", "quantum"];
    for (name, value) in settings(words, &known, "fq-codel", "\"fq-codel flows 1024\"")? {
        match name {
            "flows" => {
                let flows = count(value)?;
                fair.flows = u16::try_from(flows)
                    .ok()
                    .filter(|flows| *flows > 0)
                    .ok_or_else(|| Bad::new(format!("{flows} queues"), format!("write 1 to {}", u16::MAX)))?;
            }
            "quantum" => {
                let bytes = units::parse_size(value)?;
                fair.quantum =
                    u32::try_from(bytes).ok().filter(|_| bytes >= MIN_QUANTUM).ok_or_else(|| {
                        Bad::new(
                            format!("a quantum of {}", size(bytes)),
                            format!("write {MIN_QUANTUM}B or more, for example 1514B"),
                        )
                    })?;
            }
            _ => set_codel(&mut fair.codel, name, value)?,
        }
    }
    Ok(fair)
}

fn red(words: &[&str]) -> Result<Red, Bad> {
    let example = "\"red min 30kB max 90kB probability 10% ecn on\"";
    let (mut min, mut max) = (None, None);
    // The largest probability that Floyd recommends (www.icir.org/floyd/REDparameters.txt, 1997).
    let mut red = Red { min: 0, max: 0, probability: Share::percent(10), ecn: false };
    for (name, value) in settings(words, &["min", "max", "probability", "ecn"], "red", example)? {
        match name {
            "min" => min = Some(units::parse_size(value)?),
            "max" => max = Some(units::parse_size(value)?),
            "probability" => red.probability = share(value)?,
            _ => red.ecn = switch(value)?,
        }
    }
    let (Some(min), Some(max)) = (min, max) else {
        return Err(Bad::new("red needs min and max", format!("write for example {example}")));
    };
    if min >= max || max > MAX_RED {
        return Err(Bad::new(
            format!("red drops from {} to {}", size(min), size(max)),
            format!("min must be below max, for example {example}"),
        ));
    }
    Ok(Red { min, max, ..red })
}

pub(super) fn aqm(aqm: &Aqm) -> String {
    let codel = |codel: &CoDel| {
        let CoDel { target, interval, ecn } = codel;
        format!("target {} interval {} ecn {}", duration(*target), duration(*interval), on(*ecn))
    };
    match aqm {
        Aqm::DropTail => "drop-tail".to_owned(),
        Aqm::CoDel(c) => format!("codel {}", codel(c)),
        Aqm::FqCoDel(FqCoDel { codel: c, flows, quantum }) => {
            format!("fq-codel {} flows {flows} quantum {}", codel(c), size(u64::from(*quantum)))
        }
        Aqm::Red(Red { min, max, probability, ecn }) => {
            let probability = ratio(probability.parts_per_billion());
            format!("red min {} max {} probability {probability} ecn {}", size(*min), size(*max), on(*ecn))
        }
    }
}

// ---- size -----------------------------------------------------------------------------------

/// Largest packet; `None` = any.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mtu(pub(super) Option<u16>);

/// RFC 791 §3.2: every link of the internet carries 68 bytes.
const MIN_MTU: u16 = 68;

impl Mtu {
    fn of(bytes: u64) -> Result<Mtu, Bad> {
        match u16::try_from(bytes) {
            Ok(bytes @ MIN_MTU..) => Ok(Mtu(Some(bytes))),
            _ => Err(Bad::new(
                format!("an MTU of {bytes} bytes"),
                format!("write {MIN_MTU} to {}, or \"unlimited\"", u16::MAX),
            )),
        }
    }
}

impl Value for Mtu {
    const WHAT: &'static str = "an MTU";
    const EXAMPLE: &'static str = "1400";

    fn text(text: &str) -> Result<Self, Bad> {
        if text == "unlimited" {
            Ok(Mtu(None))
        } else {
            Size::text(text).and_then(|Size(bytes)| Mtu::of(bytes))
        }
    }

    fn number(number: i64) -> Result<Self, Bad> {
        u64::try_from(number).map_err(|_| Bad::new(format!("`{number}` is negative"), "")).and_then(Mtu::of)
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": MIN_MTU, "maximum": u16::MAX },
            { "enum": ["unlimited"] },
        ] })
    }
}

/// Whether the sender of a packet that is too large is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pmtud {
    Icmp,
    Silent,
}

impl Words for Pmtud {
    const WHAT: &'static str = "an answer to large packets";
    const EXAMPLE: &'static str = "\"icmp\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("icmp", Pmtud::Icmp), ("silent", Pmtud::Silent)]
    }
}

pub(super) fn mtu(link: &LinkConfig) -> String {
    link.mtu.map_or_else(|| "\"unlimited\"".to_owned(), |mtu| mtu.bytes.to_string())
}

pub(super) fn pmtud(link: &LinkConfig) -> &'static str {
    if link.mtu.is_some_and(|mtu| !mtu.tells) { "silent" } else { "icmp" }
}

// ---- times ----------------------------------------------------------------------------------

/// The name of a file beside the scenario; `None` = none.
#[derive(Debug, Clone)]
pub(super) struct FileName(pub(super) Option<String>);

impl Value for FileName {
    const WHAT: &'static str = "a trace";
    const EXAMPLE: &'static str = "\"3g-drive.trace\"";

    fn text(text: &str) -> Result<Self, Bad> {
        Ok(FileName((text != NONE).then(|| text.to_owned())))
    }
}

impl Words for StepTo {
    const WHAT: &'static str = "a step of a delay";
    const EXAMPLE: &'static str = "\"anywhere\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("anywhere", StepTo::Anywhere), ("up-and-back", StepTo::UpAndBack)]
    }
}

/// A table on one line, or "none".
pub(super) fn outages(outages: Option<&Outages>) -> String {
    let Some(Outages { every, lasts, first, random }) = outages else { return format!("\"{NONE}\"") };
    format!(
        "{{ every = \"{}\", for = \"{}\", first = \"{}\", random = {random} }}",
        duration(*every),
        duration(*lasts),
        duration(*first)
    )
}

/// A table on one line, or "none".
pub(super) fn steps(steps: Option<&Steps>) -> String {
    let Some(Steps { every, first, by, to, disturbed, loss }) = steps else { return format!("\"{NONE}\"") };
    let to = StepTo::all().into_iter().find(|(_, known)| known == to).map_or("anywhere", |(word, _)| word);
    format!(
        "{{ every = \"{}\", first = \"{}\", by = \"{}\", to = \"{to}\", disturbed = \"{}\", loss = \"{}\" }}",
        duration(*every),
        duration(*first),
        duration(*by),
        duration(*disturbed),
        ratio(loss.parts_per_billion())
    )
}

/// The properties beyond rate, delay, variation and loss, each in a few words.
pub(super) fn more(link: &LinkConfig) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |given: bool, words: String| {
        if given {
            out.push(words);
        }
    };
    note(link.aqm != Aqm::DropTail, aqm(&link.aqm));
    if let Some(trace) = &link.delays {
        note(true, format!("delays of {}", trace.name()));
    }
    note(link.late != Late::default(), format!("late {}", late(&link.late)));
    for (name, share) in [("duplicate", link.duplicate), ("corrupt", link.corrupt)] {
        note(share != Share::NONE, format!("{name} {}", ratio(share.parts_per_billion())));
    }
    if let Some(known) = &link.mtu {
        note(true, format!("mtu {} {}", known.bytes, pmtud(link)));
    }
    if let Some(Outages { every, lasts, random, .. }) = &link.outages {
        let about = if *random { "about " } else { "" };
        note(true, format!("out for {} every {about}{}", duration(*lasts), duration(*every)));
    }
    if let Some(Steps { every, by, to, disturbed, loss, .. }) = &link.steps {
        let to = match to {
            StepTo::Anywhere => "±",
            StepTo::UpAndBack => "+",
        };
        let mut words = format!("delay steps {to}{} every {}", duration(*by), duration(*every));
        if !disturbed.is_zero() && *loss != Share::NONE {
            words += &format!(", then {} lost for {}", ratio(loss.parts_per_billion()), duration(*disturbed));
        }
        note(true, words);
    }
    out
}

/// A share of packets.
pub(super) fn of(Ratio(parts): Ratio) -> Share {
    Share::per_billion(parts)
}
