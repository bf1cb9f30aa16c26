//! What routers opened on request, in words.

use super::Network;
use super::text::because;
use crate::units;
use trace::{Event, Name};

/// Whom an event of a gateway is about: the host behind it with that address.
pub(super) fn host_of<'a>(network: &'a Network, event: &'a Event) -> Option<&'a Name> {
    match event {
        Event::PortMapping { host, .. } => Some(host),
        Event::Gateway { node, inside, .. } => network
            .by_name
            .iter()
            .find(|(_, other)| other.behind.as_ref() == Some(node) && other.address == inside.ip())
            .map(|(name, _)| name),
        _ => None,
    }
}

/// A sentence about an event of a gateway or of a host that asked one; `None` for what needs none.
pub(super) fn words(network: &Network, event: &Event) -> Option<String> {
    let who = host_of(network, event).map_or_else(|| "somebody".to_owned(), ToString::to_string);
    match event {
        Event::Gateway { node, what, protocol, inside, external, lifetime_ns, reason } => {
            let port = external.map_or_else(|| "a port".to_owned(), |external| format!("port {external}"));
            let by = proper(protocol);
            Some(match &**what {
                "opened" => {
                    let long =
                        lifetime_ns.map_or_else(String::new, |ns| format!(", for {}", units::duration(ns)));
                    format!(
                        "{node} opened {port} for {who}, {inside} ({by}){long}: whoever sends there reaches it."
                    )
                }
                "closed" => format!("{node} closed {port}, which was open for {who}{}.", because(reason)),
                "refused" => format!("{node} refused to open a port for {who} ({by}){}.", because(reason)),
                // It stays as it was.
                _ => return None,
            })
        }
        Event::PortMapping { host, what, external, protocol, reason } => {
            let external = external.map_or_else(String::new, |external| format!(" {external}"));
            Some(match &**what {
                "lost" => format!("{host} no longer offers{external}, its open port{}.", because(reason)),
                "unusable" => format!(
                    "{host} was given{external} by {} and gave it back: nobody on the internet reaches that address{}.",
                    proper(protocol),
                    because(reason)
                ),
                "gateway-restarted" => {
                    format!(
                        "{host} saw that its router had begun anew ({}), and asks again.",
                        proper(protocol)
                    )
                }
                "no-gateway" => format!("{host} got no open port from its router."),
                // The router's own event says it.
                _ => return None,
            })
        }
        _ => None,
    }
}

/// A protocol as people write it.
fn proper(protocol: &str) -> &str {
    match protocol {
        "pcp" => "PCP",
        "nat-pmp" => "NAT-PMP",
        "upnp" => "UPnP",
        other => other,
    }
}
