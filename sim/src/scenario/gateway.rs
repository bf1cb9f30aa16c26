//! Port mapping gateways: the words and values of their keys, and how one is written out.

use std::net::{IpAddr, Ipv4Addr};

use portmap::Protocol;
use portmap::gateway::{Conduct, GatewayConfig};
use portmap::upnp::IgdVersion;

use super::axes::{NONE, set, set_word, take};
use super::error::{Problems, suggest};
use super::expand::{duration, inline};
use super::file;
use super::value::{Either, Presets, Sugar, Words};

/// The word for all protocols.
const ALL: &str = "all";

impl Presets for file::Gateway {
    fn words() -> Vec<&'static str> {
        [ALL]
            .into_iter()
            .chain(Protocol::ALL.iter().map(|protocol| protocol.as_str()))
            .chain([NONE])
            .collect()
    }
}

impl Words for Protocol {
    const WHAT: &'static str = "a port mapping protocol";
    const EXAMPLE: &'static str = "\"pcp\"";

    fn all() -> Vec<(&'static str, Self)> {
        Protocol::ALL.iter().map(|protocol| (protocol.as_str(), *protocol)).collect()
    }
}

impl Words for IgdVersion {
    const WHAT: &'static str = "a version of UPnP-IGD";
    const EXAMPLE: &'static str = "\"igd2\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("igd1", IgdVersion::V1), ("igd2", IgdVersion::V2)]
    }
}

impl Words for Conduct {
    const WHAT: &'static str = "a conduct of a gateway";
    const EXAMPLE: &'static str = "\"not-authorized\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![
            ("serve", Conduct::Serve),
            ("silent", Conduct::Silent),
            ("not-authorized", Conduct::NotAuthorized),
            ("network-failure", Conduct::NetworkFailure),
            ("no-resources", Conduct::NoResources),
        ]
    }
}

/// A gateway that speaks these. Its address is that of the router inside, which the topology knows.
fn speaking(protocols: &[Protocol]) -> GatewayConfig {
    GatewayConfig {
        pcp: protocols.contains(&Protocol::Pcp),
        nat_pmp: protocols.contains(&Protocol::NatPmp),
        upnp: protocols.contains(&Protocol::Upnp).then_some(IgdVersion::V2),
        ..GatewayConfig::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// The gateway that a file describes.
pub(super) fn gateway(
    spec: Option<Sugar<file::Gateway>>,
    problems: &mut Problems<'_>,
) -> Option<GatewayConfig> {
    let Sugar { span, value } = spec?;
    let table = match value {
        Either::Table(table) => *table,
        Either::Word(word) if word == NONE => return None,
        Either::Word(word) if word == ALL => return Some(speaking(&Protocol::ALL)),
        Either::Word(word) => {
            let protocol = Protocol::find(&word);
            if protocol.is_none() {
                problems.add(
                    span,
                    format!("`{word}` is no port mapping gateway"),
                    suggest(&word, file::Gateway::words()),
                );
            }
            return protocol.map(|protocol| speaking(&[protocol]));
        }
    };
    let protocols = match table.protocols {
        None => Protocol::ALL.to_vec(),
        Some(words) => words.into_iter().filter_map(|word| Some(take(Some(word), problems)?.0)).collect(),
    };
    if protocols.is_empty() {
        problems.add(span.clone(), "it speaks no protocol", "name one, or write gateway = \"none\"");
    }
    let mut config = speaking(&protocols);
    if let Some(version) = &mut config.upnp {
        set_word(version, table.upnp, problems);
    }
    set_word(&mut config.conduct, table.conduct, problems);
    set(&mut config.other_port, table.other_port, problems);
    config.claimed_external = take(table.claims, problems);
    set(&mut config.maps_behind_nat, table.maps_behind_nat, problems);
    config.forgets_after = take(table.forgets_after, problems);
    set(&mut config.strict_nonce, table.strict_nonce, problems);
    set(&mut config.permanent_only, table.permanent_only, problems);
    set(&mut config.min_lifetime, table.min_lifetime, problems);
    set(&mut config.max_lifetime, table.max_lifetime, problems);
    if config.min_lifetime > config.max_lifetime {
        problems.add(
            span,
            "its shortest lifetime is longer than its longest",
            "swap min-lifetime and max-lifetime",
        );
    }
    for (slot, value) in [(&mut config.capacity, table.capacity), (&mut config.per_host, table.per_host)] {
        if let Some(value) = take(value, problems) {
            *slot = usize::try_from(value).unwrap_or(usize::MAX);
        }
    }
    Some(config)
}

/// A gateway written out.
pub(super) fn table(config: Option<&GatewayConfig>) -> String {
    let Some(config) = config else { return format!("\"{NONE}\"") };
    let on = [config.pcp, config.nat_pmp, config.upnp.is_some()];
    let protocols = Protocol::ALL.iter().zip(on).filter(|(_, on)| *on);
    let protocols: Vec<String> = protocols
        .map(|(protocol, _)| format!("\"{protocol_word}\"", protocol_word = protocol.as_str()))
        .collect();
    let mut pairs = vec![("protocols", format!("[{}]", protocols.join(", ")))];
    if let Some(version) = config.upnp {
        pairs.push(("upnp", word(version)));
    }
    pairs.push(("conduct", word(config.conduct)));
    pairs.push(("other-port", config.other_port.to_string()));
    if let Some(claims) = config.claimed_external {
        pairs.push(("claims", format!("\"{claims}\"")));
    }
    pairs.push(("maps-behind-nat", config.maps_behind_nat.to_string()));
    if let Some(after) = config.forgets_after {
        pairs.push(("forgets-after", duration(after)));
    }
    pairs.push(("strict-nonce", config.strict_nonce.to_string()));
    pairs.push(("permanent-only", config.permanent_only.to_string()));
    pairs.push(("min-lifetime", duration(config.min_lifetime)));
    pairs.push(("max-lifetime", duration(config.max_lifetime)));
    pairs.push(("capacity", config.capacity.to_string()));
    pairs.push(("per-host", config.per_host.to_string()));
    inline(&pairs)
}

fn word<T: Words + PartialEq>(value: T) -> String {
    let found = T::all().into_iter().find(|(_, known)| *known == value);
    format!("\"{}\"", found.map_or("", |(word, _)| word))
}
