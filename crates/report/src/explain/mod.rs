//! The story of a run in plain sentences, with times.

mod drops;
mod ending;
mod mapping;
mod pair;
mod ready;
mod text;

use crate::metrics::Metrics;
use std::collections::BTreeMap;
use std::net::IpAddr;
use text::Text;
use trace::{Event, Header, Name, NodeKind, Record};

/// Most pairs whose story is told event by event; the others get their ending only.
const PAIRS_TOLD: usize = 8;

/// Most hosts whose preparations are told one by one.
const HOSTS_TOLD: usize = 12;

/// Tells what happened in a run: what each host learned about its NAT, what each pair tried, what was dropped by which
/// box and why, and why each pair ended direct or relayed. Lines are wrapped at 100 columns.
pub fn explain(header: &Header, records: &[Record]) -> String {
    let metrics = Metrics::fold(records);
    let network = Network::new(records);
    let mut text = Text::default();

    text.heading(&header.title);
    text.paragraph(&format!(
        "Scenario {}, seed {}: {} of virtual time, {} packets sent, {} dropped.",
        header.scenario,
        header.seed,
        crate::units::moment(metrics.end_ns),
        metrics.packets,
        metrics.dropped
    ));
    network.tell(&mut text);
    ready::tell(&network, &metrics, records, &mut text);
    for pair in metrics.pairs.iter().take(PAIRS_TOLD) {
        pair::tell(pair, records, &mut text);
    }
    drops::tell(records, &mut text);
    ending::tell(&metrics, records, &mut text);
    text.finish()
}

/// Who is where, from the events at time 0.
#[derive(Default)]
struct Network {
    nodes: Vec<Name>,
    by_name: BTreeMap<Name, Node>,
}

struct Node {
    kind: NodeKind,
    behind: Option<Name>,
    address: IpAddr,
    about: String,
}

impl Network {
    fn new(records: &[Record]) -> Network {
        let mut network = Network::default();
        for record in records {
            if let Event::Node { node, kind, behind, address, about, .. } = &record.event {
                let about = about.clone();
                network.nodes.push(node.clone());
                let entry = Node { kind: *kind, behind: behind.clone(), address: *address, about };
                network.by_name.insert(node.clone(), entry);
            }
        }
        network
    }

    fn of_kind(&self, kind: NodeKind) -> impl Iterator<Item = (&Name, &Node)> {
        let known = self.nodes.iter().filter_map(|name| self.by_name.get_key_value(name));
        known.filter(move |(_, node)| node.kind == kind)
    }

    /// The routers between a node and the internet, nearest first.
    fn routers<'a>(&'a self, mut node: &'a Node) -> Vec<(&'a Name, &'a Node)> {
        let mut chain = Vec::new();
        // A log can hold a circle; a topology cannot, so its length is bounded by its nodes.
        while let Some((name, router)) =
            node.behind.as_ref().and_then(|name| self.by_name.get_key_value(name))
        {
            if chain.len() >= self.nodes.len() {
                break;
            }
            chain.push((name, router));
            node = router;
        }
        chain
    }

    fn tell(&self, text: &mut Text) {
        if self.nodes.is_empty() {
            return;
        }
        text.heading("The network");
        let hosts: Vec<_> = self.of_kind(NodeKind::Host).collect();
        for (name, host) in hosts.iter().take(HOSTS_TOLD) {
            let routers = self.routers(host);
            let chain: Vec<String> = routers
                .iter()
                .map(|(name, router)| match router.about.as_str() {
                    "" => format!("{name} at {}", router.address),
                    about => format!("{name} ({about}) at {}", router.address),
                })
                .collect();
            text.bullet(&match chain.is_empty() {
                true => format!("{name} is on the internet at {}.", host.address),
                false => format!("{name} is {}, behind {}.", host.address, chain.join(", which is behind ")),
            });
        }
        if hosts.len() > HOSTS_TOLD {
            text.bullet(&format!("… and {} more hosts.", hosts.len() - HOSTS_TOLD));
        }
        for (kind, words) in [(NodeKind::Relay, "relay"), (NodeKind::Stun, "STUN server")] {
            let names: Vec<String> =
                self.of_kind(kind).map(|(name, node)| format!("{name} ({})", node.address)).collect();
            if !names.is_empty() {
                let s = if names.len() == 1 { "" } else { "s" };
                text.bullet(&format!("{words}{s}: {}.", names.join(", ")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testlog::{self, Log};
    use proptest::prelude::*;
    use trace::{FlowKind, Path};

    #[test]
    fn the_story_of_two_homes() {
        let header = testlog::header("mission/two-homes", "Two homes, and one router reboots");
        insta::assert_snapshot!(explain(&header, &testlog::two_homes()));
    }

    #[test]
    fn the_story_of_two_firewalls() {
        let header = testlog::header("mission/web-only", "Only web browsing allowed");
        insta::assert_snapshot!(explain(&header, &testlog::web_only()));
    }

    #[test]
    fn an_empty_log_has_a_short_story() {
        let text = explain(&testlog::header("a", "Nothing"), &[]);
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn many_pairs_are_summed_up() {
        let mut log = Log::default();
        for n in 0..150 {
            log.flow(n, &format!("ping {n}"), FlowKind::Ping, &format!("h{n}"), "hub");
        }
        let text = explain(&testlog::header("crowd", "A crowd"), &log.records());
        assert!(text.contains("… and 50 more pairs."), "{text}");
        assert!(text.lines().count() < 200);
    }

    #[test]
    fn no_line_is_wider_than_promised() {
        let header = testlog::header("mission/two-homes", "Two homes");
        let text = explain(&header, &testlog::two_homes());
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    proptest! {
        #[test]
        fn any_order_of_events_has_a_story(order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60)) {
            let records = testlog::two_homes();
            let shuffled: Vec<_> = order.iter().map(|index| records[index.index(records.len())].clone()).collect();
            let text = explain(&testlog::header("a", "b"), &shuffled);
            prop_assert_eq!(text, explain(&testlog::header("a", "b"), &shuffled));
            let metrics = Metrics::fold(&shuffled);
            prop_assert!(metrics.pairs.iter().all(|pair| pair.paths.get(Path::Direct).lost <= pair.paths.direct.sent));
        }
    }
}
