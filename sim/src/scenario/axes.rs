//! NATs: presets and what a file changes in them; and what firewalls share with them.

use std::ops::Range;
use std::time::Duration;

use nat::{NatConfig, Timeouts};

use super::error::{Problems, suggest};
use super::file;
use super::value::{Either, Presets, Refresh, Sugar, Val, Word};

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
) -> (Option<NatConfig>, String) {
    // Most home routers run Linux.
    let spec = spec.unwrap_or(Sugar { span: 0..0, value: Either::Word("linux".to_owned()) });
    let table = match spec.value {
        Either::Word(word) if word == NONE => return (None, NONE.to_owned()),
        Either::Word(word) => {
            let config = preset(&word, spec.span, "NAT preset", nat::presets::NATS, problems)
                .map(|p| p.config.clone());
            return (config, word);
        }
        Either::Table(table) => *table,
    };
    let base = table.preset.and_then(|name| {
        let span = name.span.clone();
        let name = take(Some(name), problems)?;
        preset(&name, span, "NAT preset", nat::presets::NATS, problems)
    });
    let mut config = base.map_or(NatConfig::RFC, |base| base.config.clone());
    set_word(&mut config.mapping, table.mapping, problems);
    set_word(&mut config.filtering, table.filtering, problems);
    set_word(&mut config.allocation, table.ports, problems);
    if let Some(ports) = take(table.port_range, problems) {
        config.ports = ports.0;
    }
    set_word(&mut config.hairpin, table.hairpin, problems);
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
    set_capacity(&mut config.capacity, table.capacity, problems);
    set_word(&mut config.conntrack, table.conntrack, problems);
    let name = base.filter(|base| base.config == config).map_or(CUSTOM, |base| base.name);
    (Some(config), name.to_owned())
}
