//! NATs: presets and what a file changes in them; and what firewalls share with them.

use std::ops::Range;
use std::time::Duration;

use nat::{Hairpin, LinuxConfig, NatConfig, Timeouts, Translation};

use super::error::{Problems, suggest};
use super::file;
use super::value::{Either, PerSecond, Presets, Quota, Refresh, Sugar, Val, Word};

/// The name of a configuration that is no preset.
pub(super) const CUSTOM: &str = "custom";
/// The word for going without.
pub(super) const NONE: &str = "none";

impl Presets for file::Nat {
    fn words() -> Vec<&'static str> {
        nat::presets::NATS.iter().map(|preset| preset.name).chain([NONE]).collect()
    }
}

/// Takes a value, noting what is wrong with it.
pub(super) fn take<T>(value: Option<Val<T>>, problems: &mut Problems<'_>) -> Option<T> {
    let Val { span, value } = value?;
    value.map_err(|bad| problems.bad(span, bad)).ok()
}

/// Sets `slot` to a value that is given and readable.
pub(super) fn set<T>(slot: &mut T, value: Option<Val<T>>, problems: &mut Problems<'_>) {
    if let Some(value) = take(value, problems) {
        *slot = value;
    }
}

/// The same for values that are words.
pub(super) fn set_word<T>(slot: &mut T, value: Option<Val<Word<T>>>, problems: &mut Problems<'_>) {
    if let Some(Word(value)) = take(value, problems) {
        *slot = value;
    }
}

/// The same for a word that need not be there.
fn set_some<T>(slot: &mut Option<T>, value: Option<Val<Word<T>>>, problems: &mut Problems<'_>) {
    if let Some(Word(value)) = take(value, problems) {
        *slot = Some(value);
    }
}

/// The same for a number within limits.
fn set_number(
    slot: &mut u16,
    value: Option<Val<u64>>,
    limits: std::ops::RangeInclusive<u16>,
    what: &str,
    problems: &mut Problems<'_>,
) {
    let span = value.as_ref().map_or(0..0, |value| value.span.clone());
    let Some(value) = take(value, problems) else { return };
    match u16::try_from(value) {
        Ok(value) if limits.contains(&value) => *slot = value,
        _ => problems.add(
            span,
            format!("{what} of {value} ports is none"),
            format!("write {} to {}", limits.start(), limits.end()),
        ),
    }
}

/// Finds a preset by name among `presets`.
pub(super) fn preset<'p, C>(
    name: &str,
    span: Range<usize>,
    what: &str,
    presets: &'p [nat::presets::Preset<C>],
    problems: &mut Problems<'_>,
) -> Option<&'p nat::presets::Preset<C>> {
    let found = presets.iter().find(|preset| preset.name == name);
    if found.is_none() {
        let known = presets.iter().map(|preset| preset.name).chain([NONE]);
        problems.add(span, format!("`{name}` is no {what}"), suggest(name, known));
    }
    found
}

/// The keys of timeouts, which NATs and firewalls share.
pub(super) struct Times {
    pub(super) udp: Option<Val<Duration>>,
    pub(super) udp_unreplied: Option<Val<Duration>>,
    pub(super) udp_replied: Option<Val<Duration>>,
    pub(super) udp_replied_after: Option<Val<Duration>>,
    pub(super) tcp_transitory: Option<Val<Duration>>,
    pub(super) tcp_established: Option<Val<Duration>>,
    pub(super) icmp: Option<Val<Duration>>,
}

impl Times {
    pub(super) fn apply(self, timeouts: &mut Timeouts, problems: &mut Problems<'_>) {
        if let Some(udp) = take(self.udp, problems) {
            timeouts.udp_unreplied = udp;
            timeouts.udp_replied = udp;
        }
        set(&mut timeouts.udp_unreplied, self.udp_unreplied, problems);
        set(&mut timeouts.udp_replied, self.udp_replied, problems);
        set(&mut timeouts.udp_replied_after, self.udp_replied_after, problems);
        set(&mut timeouts.tcp_transitory, self.tcp_transitory, problems);
        set(&mut timeouts.tcp_established, self.tcp_established, problems);
        set(&mut timeouts.icmp, self.icmp, problems);
    }
}

pub(super) fn set_capacity(slot: &mut usize, value: Option<Val<u64>>, problems: &mut Problems<'_>) {
    let span = value.as_ref().map_or(0..0, |value| value.span.clone());
    let Some(value) = take(value, problems) else { return };
    match usize::try_from(value) {
        Ok(value @ 1..=1_000_000) => *slot = value,
        _ => problems.add(span, format!("a table cannot hold {value} conversations"), "write 1 to 1000000"),
    }
}

/// The NAT that a file describes, and its name. `None` = no translation.
pub(super) fn nat(
    spec: Option<Sugar<file::Nat>>,
    problems: &mut Problems<'_>,
) -> (Option<Translation>, String) {
    // Most home routers run Linux.
    let spec = spec.unwrap_or(Sugar { span: 0..0, value: Either::Word("linux".to_owned()) });
    let mut table = match spec.value {
        Either::Word(word) if word == NONE => return (None, NONE.to_owned()),
        Either::Word(word) => {
            let config = preset(&word, spec.span, "NAT preset", nat::presets::NATS, problems)
                .map(|p| p.config.clone());
            return (config, word);
        }
        Either::Table(table) => *table,
    };
    let base = table.preset.take().and_then(|name| {
        let span = name.span.clone();
        let name = take(Some(name), problems)?;
        preset(&name, span, "NAT preset", nat::presets::NATS, problems)
    });
    let start = base.map(|base| base.config.clone());
    let config = match start {
        Some(Translation::Linux(config)) => Translation::Linux(linux(config, table, problems)),
        None if table.rule.is_some() => Translation::Linux(linux(LinuxConfig::MASQUERADE, table, problems)),
        Some(Translation::Axes(config)) => Translation::Axes(axes(config, table, problems)),
        None => Translation::Axes(axes(NatConfig::RFC, table, problems)),
    };
    let name = base.filter(|base| base.config == config).map_or(CUSTOM, |base| base.name);
    (Some(config), name.to_owned())
}

/// Where keys stand that do not go together with the others of their table.
fn misplaced<const N: usize>(
    keys: [(&'static str, Option<Range<usize>>); N],
    why: &str,
    help: &str,
    problems: &mut Problems<'_>,
) {
    for (key, span) in keys {
        if let Some(span) = span {
            problems.add(span, format!("`{key}` {why}"), help);
        }
    }
}

fn span<T>(value: Option<&Val<T>>) -> Option<Range<usize>> {
    value.map(|value| value.span.clone())
}

/// A rule of the Linux kernel, changed by the keys of a table.
fn linux(mut config: LinuxConfig, table: file::Nat, problems: &mut Problems<'_>) -> LinuxConfig {
    misplaced(
        [
            ("mapping", span(table.mapping.as_ref())),
            ("filtering", span(table.filtering.as_ref())),
            ("ports", span(table.ports.as_ref())),
            ("tcp-mapping", span(table.tcp_mapping.as_ref())),
            ("tcp-filtering", span(table.tcp_filtering.as_ref())),
            ("collision", span(table.collision.as_ref())),
            ("step", span(table.step.as_ref())),
            ("other-traffic", span(table.other_traffic.as_ref())),
            ("parity", span(table.parity.as_ref())),
            ("block", span(table.block.as_ref())),
            ("pooling", span(table.pooling.as_ref())),
            ("unsolicited", span(table.unsolicited.as_ref())),
            ("syn-hold", span(table.syn_hold.as_ref())),
            ("refresh", span(table.refresh.as_ref())),
            ("mapped-outbound", span(table.mapped_outbound.as_ref())),
            ("hold-down", span(table.hold_down.as_ref())),
            ("host-quota", span(table.host_quota.as_ref())),
            ("when-full", span(table.when_full.as_ref())),
            ("exhausted", span(table.exhausted.as_ref())),
            ("fragments", span(table.fragments.as_ref())),
        ],
        "follows from the rule of the Linux kernel",
        "leave it away, choose another `rule`, or describe the NAT by its axes alone",
        problems,
    );
    set_word(&mut config.rule, table.rule, problems);
    if let Some(ports) = take(table.port_range, problems) {
        config.ports = Some(ports.0);
    }
    set(&mut config.random, table.random, problems);
    set(&mut config.persistent, table.persistent, problems);
    if let Some(Word(hairpin)) = take(table.hairpin, problems) {
        config.hairpin = hairpin != Hairpin::Off;
    }
    set_word(&mut config.input, table.input, problems);
    set_word(&mut config.forward, table.forward, problems);
    if let Some(hosts) = table.hosts {
        config.hosts = hosts.into_iter().filter_map(|host| take(Some(host), problems)).collect();
    }
    set(&mut config.map_timeout, table.map_timeout, problems);
    Times {
        udp: table.udp_timeout,
        udp_unreplied: table.udp_unreplied_timeout,
        udp_replied: table.udp_replied_timeout,
        udp_replied_after: table.udp_replied_after,
        tcp_transitory: table.tcp_transitory_timeout,
        tcp_established: table.tcp_established_timeout,
        icmp: table.icmp_timeout,
    }
    .apply(&mut config.timeouts, problems);
    set(&mut config.tcp_pickup, table.tcp_pickup, problems);
    set_capacity(&mut config.capacity, table.capacity, problems);
    config
}

/// The axes of RFC 4787, changed by the keys of a table.
fn axes(mut config: NatConfig, table: file::Nat, problems: &mut Problems<'_>) -> NatConfig {
    misplaced(
        [
            ("rule", span(table.rule.as_ref())),
            ("input", span(table.input.as_ref())),
            ("forward", span(table.forward.as_ref())),
            ("random", span(table.random.as_ref())),
            ("persistent", span(table.persistent.as_ref())),
            ("hosts", table.hosts.as_ref().and_then(|hosts| span(hosts.first()))),
            ("map-timeout", span(table.map_timeout.as_ref())),
        ],
        "belongs to a rule of the Linux kernel, and this NAT is described by its axes",
        "leave it away, or start from `rule = \"masquerade\"` without axes",
        problems,
    );
    set_word(&mut config.mapping, table.mapping, problems);
    set_word(&mut config.filtering, table.filtering, problems);
    set_some(&mut config.tcp_mapping, table.tcp_mapping, problems);
    set_some(&mut config.tcp_filtering, table.tcp_filtering, problems);
    set_word(&mut config.allocation, table.ports, problems);
    set_word(&mut config.collision, table.collision, problems);
    set_number(&mut config.step, table.step, 1..=u16::MAX, "a step", problems);
    if let Some(PerSecond(rate)) = take(table.other_traffic, problems) {
        config.other_traffic = rate;
    }
    set(&mut config.parity, table.parity, problems);
    set_number(&mut config.block, table.block, 0..=u16::MAX, "a block", problems);
    set_word(&mut config.pooling, table.pooling, problems);
    if let Some(ports) = take(table.port_range, problems) {
        config.ports = ports.0;
    }
    set_word(&mut config.hairpin, table.hairpin, problems);
    set_word(&mut config.unsolicited, table.unsolicited, problems);
    set(&mut config.syn_hold, table.syn_hold, problems);
    Times {
        udp: table.udp_timeout,
        udp_unreplied: table.udp_unreplied_timeout,
        udp_replied: table.udp_replied_timeout,
        udp_replied_after: table.udp_replied_after,
        tcp_transitory: table.tcp_transitory_timeout,
        tcp_established: table.tcp_established_timeout,
        icmp: table.icmp_timeout,
    }
    .apply(&mut config.timeouts, problems);
    if let Some(Word(Refresh { outbound, inbound })) = take(table.refresh, problems) {
        config.refresh_outbound = outbound;
        config.refresh_inbound = inbound;
    }
    set(&mut config.tcp_pickup, table.tcp_pickup, problems);
    set(&mut config.mapped_outbound, table.mapped_outbound, problems);
    set(&mut config.hold_down, table.hold_down, problems);
    if let Some(Quota(quota)) = take(table.host_quota, problems) {
        config.host_quota = quota;
    }
    set_word(&mut config.when_full, table.when_full, problems);
    set_word(&mut config.exhausted, table.exhausted, problems);
    set_word(&mut config.fragments, table.fragments, problems);
    set_capacity(&mut config.capacity, table.capacity, problems);
    config
}
