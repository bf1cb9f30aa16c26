//! Firewalls: the words and values of their keys, the presets, and how one is written out.

use std::ops::Range;

use nat::{
    FirewallConfig, Inbound, InboundRefusal, Police, PoliceRate, PoliceUnit, PortRange, Portal, Proto,
    Refusal, Rule, Who,
};
use schemars::{Schema, json_schema};

use super::axes::{self, CUSTOM, NONE, Times, set, set_capacity, set_word, take};
use super::error::{Problems, suggest};
use super::expand::{Pairs, duration, inline, preset as preset_pair, timeouts, word};
use super::file;
use super::units::{self, Bad};
use super::value::{Either, Ports, Presets, Ratio, Sugar, Udp, Val, Value, Words};
use super::words;

/// Most rules of one list.
const MAX_RULES: usize = 1_000;
/// Most units a second, and most of a burst: what a bucket can count without ever overflowing.
const MAX_UNITS: u64 = 1_000_000_000_000;

impl Presets for file::Firewall {
    fn words() -> Vec<&'static str> {
        nat::presets::FIREWALLS.iter().map(|preset| preset.name).chain([NONE]).collect()
    }
}

// ---- kinds of values ------------------------------------------------------------------------

/// A rule: "tcp 443", "udp 3478 to stun", "icmp", or a node or address alone for everything to it.
#[derive(Debug, Clone)]
pub(super) struct Filter(pub(super) Rule);

impl Value for Filter {
    const WHAT: &'static str = "a rule";
    const EXAMPLE: &'static str = "\"tcp 443\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let malformed = || {
            Bad::new(
                format!("`{text}` is not a rule"),
                "write a protocol and ports, for example \"tcp 443\", \"udp 1024-65535\" or \"icmp\", and whom it is about, \
                 for example \"tcp 443 to relay\" or \"any from laptop\"; or a node or address alone",
            )
        };
        let mut words = text.split_whitespace().peekable();
        let first = words.next().ok_or_else(malformed)?;
        let proto = match first {
            "tcp" => Some(Proto::Tcp),
            "udp" => Some(Proto::Udp),
            "icmp" => Some(Proto::Icmp),
            "any" => None,
            _ if words.peek().is_none() => return Ok(Filter(Rule::to(who(first).ok_or_else(malformed)?))),
            _ => return Err(malformed()),
        };
        let mut rule = Rule { proto, ports: Rule::ALL_PORTS, to: None, from: None };
        if let Some(ports) = words.next_if(|next| next.starts_with(|c: char| c.is_ascii_digit())) {
            if proto == Some(Proto::Icmp) {
                return Err(Bad::new("ICMP has no ports", "write \"icmp\""));
            }
            rule.ports = Ports::text(ports)?.0;
        }
        while let Some(side) = words.next() {
            let end = match side {
                "to" => &mut rule.to,
                "from" => &mut rule.from,
                _ => return Err(malformed()),
            };
            let name = words.next().and_then(who).ok_or_else(malformed)?;
            if end.replace(name).is_some() {
                return Err(malformed());
            }
        }
        Ok(Filter(rule))
    }
}

/// A node or an address.
fn who(text: &str) -> Option<Who> {
    if let Ok(address) = text.parse() {
        return Some(Who::Address(address));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (!text.is_empty() && text.chars().all(fits)).then(|| Who::Name(text.to_owned().into()))
}

/// A number of bytes or packets; `None` = unlimited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most<const PACKETS: bool>(pub(super) Option<u64>);

impl<const PACKETS: bool> Value for Most<PACKETS> {
    const WHAT: &'static str = if PACKETS { "a number of packets" } else { "a size" };
    const EXAMPLE: &'static str = if PACKETS { "100" } else { "\"600B\"" };

    fn text(text: &str) -> Result<Self, Bad> {
        match text {
            "unlimited" => Ok(Most(None)),
            _ if PACKETS => Err(Bad::new(
                format!("`{text}` is not a number of packets"),
                "write a number without quotes, for example 100, or \"unlimited\"",
            )),
            _ => units::parse_size(text).map(|bytes| Most(Some(bytes))),
        }
    }

    fn number(number: i64) -> Result<Self, Bad> {
        match u64::try_from(number) {
            Ok(packets) if PACKETS => Ok(Most(Some(packets))),
            _ => Err(Bad::new(
                format!("`{number}` is not {}", Self::WHAT),
                format!("write for example {}", Self::EXAMPLE),
            )),
        }
    }

    fn schema() -> Schema {
        let unlimited = json_schema!({ "const": "unlimited" });
        let some = if PACKETS {
            json_schema!({ "type": "integer", "minimum": 0 })
        } else {
            json_schema!({ "type": "string", "pattern": r"^\d+(\.\d+)? ?(B|[kMG]B|[KMG]iB)$", "examples": ["600B"] })
        };
        json_schema!({ "anyOf": [some, unlimited] })
    }
}

/// A rate of bits or packets; `None` = unlimited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace(pub(super) Option<PoliceRate>);

/// What stands behind a number of packets a second.
const PACKETS: &str = "packets/s";

impl Value for Pace {
    const WHAT: &'static str = "a rate of bits or packets";
    const EXAMPLE: &'static str = "\"1Mbit/s\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let rate =
            match text.trim().strip_suffix(PACKETS) {
                None => units::parse_rate(text)?
                    .map(|per_second| PoliceRate { unit: PoliceUnit::Bits, per_second }),
                Some(number) => {
                    let per_second = number.trim().parse().ok().filter(|number| *number > 0).ok_or_else(|| {
                    Bad::new(
                        format!("`{text}` is not a rate of packets"),
                        "write for example \"100packets/s\"; to let none pass, write udp = \"blocked\"",
                    )
                })?;
                    Some(PoliceRate { unit: PoliceUnit::Packets, per_second })
                }
            };
        match rate {
            Some(rate) if rate.per_second > MAX_UNITS => {
                Err(Bad::new(format!("`{text}` is too fast"), "write \"unlimited\" for no limit"))
            }
            rate => Ok(Pace(rate)),
        }
    }

    fn schema() -> Schema {
        let pattern = r"^(unlimited|\d+(\.\d+)? ?[kMG]?bit/s|\d+ ?packets/s)$";
        json_schema!({ "type": "string", "pattern": pattern, "examples": ["1Mbit/s", "100packets/s"] })
    }
}

/// How much passes at once: bytes for a rate in bits, packets for one in packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burst(u64, PoliceUnit);

impl Value for Burst {
    const WHAT: &'static str = "a burst";
    const EXAMPLE: &'static str = "\"32KiB\"";

    fn text(text: &str) -> Result<Self, Bad> {
        let burst = match text.trim().strip_suffix("packets") {
            None => Burst(units::parse_size(text)?, PoliceUnit::Bits),
            Some(number) => match number.trim().parse() {
                Ok(packets) => Burst(packets, PoliceUnit::Packets),
                Err(_) => {
                    return Err(Bad::new(
                        format!("`{text}` is not a burst"),
                        "write for example \"32KiB\" or \"20packets\"",
                    ));
                }
            },
        };
        if !(1..=MAX_UNITS).contains(&burst.0) {
            return Err(Bad::new(
                format!("`{text}` is no burst"),
                "write one that at least a packet fits into",
            ));
        }
        Ok(burst)
    }

    fn schema() -> Schema {
        let pattern = r"^\d+(\.\d+)? ?(B|[kMG]B|[KMG]iB)$|^\d+ ?packets$";
        json_schema!({ "type": "string", "pattern": pattern, "examples": ["32KiB", "20packets"] })
    }
}

/// "none", "until-accepted", or how long the user takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms(pub(super) Portal);

/// The word for a portal that waits for an action of the timeline.
const UNTIL_ACCEPTED: &str = "until-accepted";

impl Value for Terms {
    const WHAT: &'static str = "a captive portal";
    const EXAMPLE: &'static str = "\"15s\"";

    fn text(text: &str) -> Result<Self, Bad> {
        Ok(Terms(match text {
            NONE => Portal::Off,
            UNTIL_ACCEPTED => Portal::UntilAccepted,
            _ => Portal::After(units::parse_duration(text).map_err(|bad| {
                Bad::new(bad.message, "write how long its user takes, \"until-accepted\", or \"none\"")
            })?),
        }))
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [
            { "enum": [NONE, UNTIL_ACCEPTED] },
            { "type": "string", "pattern": r"^\d+(\.\d+)? ?(ns|us|ms|s|min|h)$", "examples": ["15s"] },
        ] })
    }
}

impl Words for Refusal {
    const WHAT: &'static str = "an answer to what is refused";
    const EXAMPLE: &'static str = "\"icmp\"";

    fn all() -> Vec<(&'static str, Self)> {
        Refusal::ALL.iter().map(|value| (value.as_str(), *value)).collect()
    }
}

impl Words for InboundRefusal {
    const WHAT: &'static str = "an answer to what nobody asked for";
    const EXAMPLE: &'static str = "\"icmp\"";

    fn all() -> Vec<(&'static str, Self)> {
        InboundRefusal::ALL.iter().map(|value| (value.as_str(), *value)).collect()
    }
}

impl Words for Inbound {
    const WHAT: &'static str = "an inbound policy";
    const EXAMPLE: &'static str = "\"stateful\"";

    fn all() -> Vec<(&'static str, Self)> {
        Inbound::ALL.iter().map(|value| (value.as_str(), *value)).collect()
    }

    fn find(word: &str) -> Option<Self> {
        word.parse().ok()
    }
}

// ---- from a file ----------------------------------------------------------------------------

/// Names in rules, and where they stand: they are checked once every node is known.
pub(super) type Named = Vec<(String, Range<usize>)>;

/// The firewall that a file describes, and its name. `None` = none.
pub(super) fn firewall(
    spec: Option<Sugar<file::Firewall>>,
    named: &mut Named,
    problems: &mut Problems<'_>,
) -> (Option<FirewallConfig>, String) {
    let Some(spec) = spec else { return (None, String::new()) };
    let presets = nat::presets::FIREWALLS;
    let table = match spec.value {
        Either::Word(word) if word == NONE => return (None, String::new()),
        Either::Word(word) => {
            let found = axes::preset(&word, spec.span, "firewall preset", presets, problems);
            return (found.map(|p| p.config.clone()), word);
        }
        Either::Table(table) => *table,
    };
    let base = table.preset.and_then(|name| {
        let span = name.span.clone();
        let name = take(Some(name), problems)?;
        axes::preset(&name, span, "firewall preset", presets, problems)
    });
    let mut config = base.map_or(FirewallConfig::STATEFUL, |base| base.config.clone());
    set_word(&mut config.inbound, table.inbound, problems);
    if let Some(super::value::Word(udp)) = take(table.udp, problems) {
        config.udp_blocked = udp == Udp::Blocked;
    }
    if let Some(outbound) = table.outbound {
        config.outbound = Some(rules(outbound, named, problems).into());
    }
    if let Some(block) = table.block {
        config.block = rules(block, named, problems).into();
    }
    set_word(&mut config.answer, table.answer, problems);
    set_word(&mut config.answer_inbound, table.answer_inbound, problems);
    if let Some(ports) = table.tls_only {
        let ports: Vec<PortRange> =
            ports.into_iter().filter_map(|ports| take(Some(ports), problems)).map(|ports| ports.0).collect();
        config.tls = ports.into();
    }
    set(&mut config.bogons, table.bogons, problems);
    if let Some(Terms(portal)) = take(table.portal, problems) {
        config.portal = portal;
    }
    let udp = &mut config.udp;
    for (slot, value) in [(&mut udp.max_bytes, table.udp_max_size), (&mut udp.flow_bytes, table.flow_bytes)] {
        if let Some(Most(most)) = take(value, problems) {
            *slot = most;
        }
    }
    if let Some(Most(most)) = take(table.flow_packets, problems) {
        udp.flow_packets = most;
    }
    police(&mut udp.rate, table.udp_rate, table.udp_burst, "udp-rate", problems);
    police(&mut udp.flow_rate, table.flow_rate, table.flow_burst, "flow-rate", problems);
    for (slot, value) in
        [(&mut udp.loss_in_ppb, table.udp_loss_in), (&mut udp.loss_out_ppb, table.udp_loss_out)]
    {
        if let Some(Ratio(share)) = take(value, problems) {
            *slot = share;
        }
    }
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
    set_capacity(&mut config.capacity, table.capacity, problems);
    let name = base.filter(|base| base.config == config).map_or(CUSTOM, |base| base.name);
    (Some(config), name.to_owned())
}

/// Rules as a file lists them.
pub(super) fn rules(list: Vec<Val<Filter>>, named: &mut Named, problems: &mut Problems<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for value in list {
        let span = value.span.clone();
        let Some(Filter(rule)) = take(Some(value), problems) else { continue };
        if rules.len() == MAX_RULES {
            problems.add(span, format!("more than {MAX_RULES} rules"), "");
            break;
        }
        for who in [&rule.to, &rule.from] {
            if let Some(Who::Name(name)) = who {
                named.push((name.to_string(), span.clone()));
            }
        }
        rules.push(rule);
    }
    rules
}

/// A rate and its burst; the one that is not given stays as it is, or follows from the other.
fn police(
    slot: &mut Option<Police>,
    rate: Option<Val<Pace>>,
    burst: Option<Val<Burst>>,
    key: &str,
    problems: &mut Problems<'_>,
) {
    if let Some(Pace(rate)) = take(rate, problems) {
        *slot = match (rate, *slot) {
            (Some(rate), Some(before)) if before.rate == rate => Some(before),
            (rate, _) => rate.map(Police::new),
        };
    }
    let span = burst.as_ref().map_or(0..0, |burst| burst.span.clone());
    let Some(Burst(size, unit)) = take(burst, problems) else { return };
    match slot {
        Some(police) if police.rate.unit == unit => police.burst = size,
        Some(police) => {
            let help = match police.rate.unit {
                PoliceUnit::Bits => "write for example \"32KiB\"",
                PoliceUnit::Packets => "write for example \"20packets\"",
            };
            problems.add(span, format!("the burst does not count what {key} counts"), help);
        }
        None => problems.add(span, "a burst of an unlimited rate", format!("give {key} as well")),
    }
}

/// Notes the names in rules that no node has.
pub(super) fn check_names<'n>(
    named: &Named,
    known: &(impl Iterator<Item = &'n str> + Clone),
    problems: &mut Problems<'_>,
) {
    for (name, span) in named {
        if !known.clone().any(|known| known == name) {
            let help = suggest(name, known.clone());
            problems.add(span.clone(), format!("there is no node `{name}`"), help);
        }
    }
}

// ---- written out ----------------------------------------------------------------------------

pub(super) fn list<T: ToString>(entries: &[T]) -> String {
    let entries: Vec<String> = entries.iter().map(|entry| word(&entry.to_string())).collect();
    format!("[{}]", entries.join(", "))
}

/// A firewall with every key.
pub(super) fn table(firewall: &FirewallConfig, name: &str) -> String {
    let mut pairs: Pairs = preset_pair(name);
    pairs.push(("inbound", word(firewall.inbound.as_str())));
    pairs.push(("udp", word(if firewall.udp_blocked { "blocked" } else { "open" })));
    if let Some(rules) = &firewall.outbound {
        pairs.push(("outbound", list(rules)));
    }
    pairs.push(("block", list(&firewall.block)));
    pairs.push(("answer", word(firewall.answer.as_str())));
    pairs.push(("answer-inbound", word(firewall.answer_inbound.as_str())));
    pairs.push(("tls-only", list(&firewall.tls)));
    pairs.push(("bogons", firewall.bogons.to_string()));
    let portal = match firewall.portal {
        Portal::Off => word(NONE),
        Portal::UntilAccepted => word(UNTIL_ACCEPTED),
        Portal::After(time) => duration(time),
    };
    pairs.push(("portal", portal));
    let unlimited = || word("unlimited");
    let bytes = |most: Option<u64>| most.map_or_else(unlimited, |bytes| word(&words::size(bytes)));
    let udp = &firewall.udp;
    pairs.push(("udp-max-size", bytes(udp.max_bytes)));
    for (police, rate_key, burst_key) in
        [(udp.rate, "udp-rate", "udp-burst"), (udp.flow_rate, "flow-rate", "flow-burst")]
    {
        let Some(Police { rate, burst }) = police else {
            pairs.push((rate_key, unlimited()));
            continue;
        };
        let (rate, burst) = match rate.unit {
            PoliceUnit::Bits => (words::rate(Some(rate.per_second)), words::size(burst)),
            PoliceUnit::Packets => (format!("{}{PACKETS}", rate.per_second), format!("{burst}packets")),
        };
        pairs.extend([(rate_key, word(&rate)), (burst_key, word(&burst))]);
    }
    pairs.push(("flow-packets", udp.flow_packets.map_or_else(unlimited, |packets| packets.to_string())));
    pairs.push(("flow-bytes", bytes(udp.flow_bytes)));
    pairs.push(("udp-loss-in", word(&words::ratio(udp.loss_in_ppb))));
    pairs.push(("udp-loss-out", word(&words::ratio(udp.loss_out_ppb))));
    pairs.extend(timeouts(&firewall.timeouts));
    pairs.push(("capacity", firewall.capacity.to_string()));
    inline(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reads(text: &str) -> String {
        Filter::text(text).map_or_else(|bad| bad.message, |Filter(rule)| rule.to_string())
    }

    #[test]
    fn rules_are_read_and_written() {
        for rule in [
            "tcp 443",
            "udp 1024-65535",
            "icmp",
            "any to relay",
            "udp 3478 to stun",
            "tcp to 192.0.2.1 from laptop",
        ] {
            assert_eq!(reads(rule), rule);
        }
        assert_eq!(reads("relay"), "any to relay");
        assert_eq!(reads("2001:db8::1"), "any to 2001:db8::1");
        assert_eq!(reads("tcp 443 relay"), "`tcp 443 relay` is not a rule");
        assert_eq!(reads("icmp 8"), "ICMP has no ports");
        assert_eq!(reads("tcp to a to b"), "`tcp to a to b` is not a rule");
        assert_eq!(reads("tcp 443-80"), "`443-80` holds no ports");
    }

    proptest! {
        #[test]
        fn any_text_gives_a_value_or_an_error(text in ".{0,40}") {
            let _ = (Filter::text(&text), Pace::text(&text), Burst::text(&text), Terms::text(&text));
            let _ = (Most::<true>::text(&text), Most::<false>::text(&text));
        }

        #[test]
        fn a_rule_that_was_read_reads_back(text in "(tcp|udp|any)( [1-9][0-9]{0,3}(-[1-9][0-9]{4})?)?( to [a-z0-9-]{1,9})?( from [a-z.:0-9]{1,9})?") {
            if let Ok(Filter(rule)) = Filter::text(&text) {
                let again = Filter::text(&rule.to_string()).map(|Filter(rule)| rule);
                prop_assert_eq!(again, Ok(rule));
            }
        }
    }
}
