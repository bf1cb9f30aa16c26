//! What each host did before there was traffic: registering, learning its NAT, finding its relay.

use super::text::{Line, Text, because, list, short_list};
use super::{HOSTS_TOLD, Network, mapping};
use crate::metrics::Metrics;
use crate::units;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use trace::{Event, Name, NodeKind, Record, ServerState};

/// Failed attempts to one address, told as one.
struct Failed {
    first_ns: u64,
    last_ns: u64,
    count: u64,
    reason: String,
}

#[derive(Default)]
struct Told<'a> {
    /// What STUN servers told each host since its last belief.
    reflexive: BTreeMap<&'a Name, Vec<(SocketAddr, u64)>>,
    beliefs: BTreeMap<&'a Name, (Option<bool>, bool)>,
    failed: BTreeMap<(&'a Name, String, SocketAddr), Failed>,
    lines: Vec<Line>,
}

pub(super) fn tell(network: &Network, metrics: &Metrics, records: &[Record], text: &mut Text) {
    let hosts: Vec<&str> = metrics.hosts.iter().map(|host| host.host.as_str()).take(HOSTS_TOLD).collect();
    let mut told = Told::default();
    for (order, record) in records.iter().enumerate() {
        let host = host_of(&record.event).or_else(|| mapping::host_of(network, &record.event));
        if let Some(host) = host
            && hosts.contains(&&**host)
        {
            told.event(network, record, order);
        }
    }
    told.failures();
    if told.lines.is_empty() {
        return;
    }
    text.heading("Who learned what");
    text.lines(told.lines);
    let others = &metrics.hosts[hosts.len()..];
    if !others.is_empty() {
        let registered = others.iter().filter(|host| host.registered_ns.is_some()).count();
        let last = others.iter().filter_map(|host| host.registered_ns).max();
        let by = last.map_or(String::new(), |at| format!(", the last at {}", units::moment(at)));
        text.bullet(&format!("Of {} more hosts, {registered} registered{by}.", others.len()));
    }
}

fn host_of(event: &Event) -> Option<&Name> {
    match event {
        Event::Registered { host, .. }
        | Event::KeyRotated { host }
        | Event::Coordinator { host, .. }
        | Event::Relay { host, .. }
        | Event::Reflexive { host, .. }
        | Event::NatLearned { host, .. } => Some(host),
        _ => None,
    }
}

impl<'a> Told<'a> {
    fn line(&mut self, at_ns: u64, order: usize, words: String) {
        self.lines.push(Line { at_ns, order, words });
    }

    fn event(&mut self, network: &Network, record: &'a Record, order: usize) {
        let t = record.t;
        match &record.event {
            Event::Registered { host, tunnel } => {
                let words = format!(
                    "{host} is registered with the coordination server; in the tunnel it is {tunnel}."
                );
                self.line(t, order, words);
            }
            Event::KeyRotated { host } => self.line(t, order, format!("{host} has a new node key.")),
            Event::Coordinator { host, state, address, reason } => {
                self.server(t, order, host, "the coordination server", *state, *address, reason);
            }
            Event::Relay { host, relay, state, address, reason } => {
                self.server(t, order, host, &format!("relay {relay}"), *state, *address, reason);
            }
            Event::Reflexive { host, mapped, rtt_ns, .. } => {
                self.reflexive.entry(host).or_default().push((*mapped, *rtt_ns));
            }
            Event::NatLearned { host, mapping_varies, udp_blocked, candidates } => {
                let seen = self.reflexive.remove(host).unwrap_or_default();
                let belief = (*mapping_varies, *udp_blocked);
                let known = self.beliefs.insert(host, belief) == Some(belief);
                let offers = format!("It offers {} to others.", short_list(candidates));
                let words = match known {
                    true => format!("{host} now offers {}.", short_list(candidates)),
                    false => format!("{host} {} {offers}", learned(network, host, belief, &seen)),
                };
                self.line(t, order, words);
            }
            event => {
                if let Some(words) = mapping::words(network, event) {
                    self.line(t, order, words);
                }
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of two events that say the same of two servers"
    )]
    fn server(
        &mut self,
        t: u64,
        order: usize,
        host: &'a Name,
        server: &str,
        state: ServerState,
        address: SocketAddr,
        reason: &str,
    ) {
        match state {
            ServerState::Connecting => {}
            ServerState::Connected => {
                let words =
                    format!("{host} is connected to {server}, on {} port {}.", address.ip(), address.port());
                self.line(t, order, words);
            }
            ServerState::Closed => {
                self.line(t, order, format!("{host} lost its connection to {server}{}.", because(reason)));
            }
            ServerState::Failed => {
                let failed = self.failed.entry((host, server.to_owned(), address)).or_insert_with(|| {
                    Failed { first_ns: t, last_ns: t, count: 0, reason: reason.to_owned() }
                });
                failed.last_ns = t;
                failed.count += 1;
            }
        }
    }

    fn failures(&mut self) {
        for ((host, server, address), failed) in std::mem::take(&mut self.failed) {
            let again = match failed.count {
                1 => String::new(),
                n => format!(" It failed {n} times, the last at {}.", units::moment(failed.last_ns)),
            };
            let reason = because(&failed.reason);
            let words = format!("{host} could not reach {server} on port {}{reason}.{again}", address.port());
            self.line(failed.first_ns, 0, words);
        }
    }
}

/// What a host concluded about its NAT, in words that say what follows from it.
fn learned(
    network: &Network,
    host: &Name,
    belief: (Option<bool>, bool),
    seen: &[(SocketAddr, u64)],
) -> String {
    let mut mapped: Vec<SocketAddr> = seen.iter().map(|(mapped, _)| *mapped).collect();
    mapped.sort();
    mapped.dedup();
    let fastest = seen.iter().map(|(_, rtt_ns)| *rtt_ns).min();
    let rtt = fastest.map_or(String::new(), |ns| format!(" (answer after {})", units::duration(ns)));
    let own = network.of_kind(NodeKind::Host).find(|(name, _)| *name == host).map(|(_, node)| node.address);
    let open = own.is_some() && mapped.iter().all(|mapped| Some(mapped.ip()) == own);
    match belief {
        (_, true) => {
            "heard from no STUN server: UDP does not get out here, so only a relay can carry its traffic."
                .into()
        }
        (None, _) if mapped.is_empty() => "does not know its external address yet.".into(),
        (None, _) => format!(
            "was seen as {} by STUN{rtt}; with one answer it cannot tell whether its mapping varies.",
            list(&mapped)
        ),
        (Some(false), _) if open && !mapped.is_empty() => {
            format!("has no NAT: STUN servers see its own address, {}{rtt}.", list(&mapped))
        }
        (Some(false), _) if mapped.is_empty() => {
            "found that its NAT keeps one external port for every destination (endpoint-independent mapping)."
                .into()
        }
        (Some(false), _) => format!(
            "is seen as {} by every STUN server{rtt}: its NAT keeps one external port for every destination \
             (endpoint-independent mapping), so a peer can be told where to aim.",
            list(&mapped)
        ),
        (Some(true), _) => format!(
            "is seen as {} by different STUN servers{rtt}: its NAT takes another external port for each destination \
             (address-dependent or address-and-port-dependent mapping), so nobody can be told where to aim.",
            list(&mapped)
        ),
    }
}
