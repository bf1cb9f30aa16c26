//! The network as people read it.

use std::fmt::Write as _;

use trace::NodeKind;

use super::{NodeIdx, Parent, Topology, index};
use crate::scenario::{Way, words};

impl Topology {
    /// The network as a tree, for people: who is behind whom, at which address, through which NAT and cable.
    pub fn print(&self) -> String {
        let mut children: Vec<Vec<NodeIdx>> = vec![Vec::new(); self.nodes.len()];
        let mut roots: Vec<Vec<NodeIdx>> = vec![Vec::new(); self.regions.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            match node.parent {
                Parent::Internet => roots[node.region as usize].push(index(i)),
                Parent::Router(router) => children[router as usize].push(index(i)),
            }
        }
        let mut out = String::from("internet\n");
        for (region, roots) in roots.iter().enumerate() {
            let last = region + 1 == self.regions.len();
            let _ = writeln!(out, "{}{}{}", branch(last), self.regions[region], self.distances(region));
            // Depth first without recursion: a chain of routers may be as long as a scenario.
            let mut waiting: Vec<(NodeIdx, String, bool)> = Vec::new();
            let push = |waiting: &mut Vec<(NodeIdx, String, bool)>, nodes: &[NodeIdx], indent: &str| {
                for (i, node) in nodes.iter().enumerate().rev() {
                    waiting.push((*node, indent.to_owned(), i + 1 == nodes.len()));
                }
            };
            push(&mut waiting, roots, trunk(last));
            while let Some((node, indent, last)) = waiting.pop() {
                self.line(&mut out, node, &indent, last);
                push(&mut waiting, &children[node as usize], &format!("{indent}{}", trunk(last)));
            }
        }
        out
    }

    fn distances(&self, region: usize) -> String {
        let mut out = String::new();
        for (other, name) in self.regions.iter().enumerate().filter(|(other, _)| *other != region) {
            let delay = words::duration(self.latency[region * self.regions.len() + other]);
            let _ = write!(out, "{}{delay} to {name}", if out.is_empty() { "  (" } else { ", " });
        }
        if !out.is_empty() {
            out.push_str(" one way)");
        }
        out
    }

    fn line(&self, out: &mut String, node: NodeIdx, indent: &str, last: bool) {
        let node = self.node(node);
        let kind = match node.kind {
            NodeKind::Host if node.of.as_ref().is_some_and(|of| of.first) => "interface",
            NodeKind::Host if node.of.is_some() => "later place",
            NodeKind::Host => "host",
            NodeKind::Router => "router",
            NodeKind::Relay => "relay",
            NodeKind::Stun => "stun",
            NodeKind::Proxy => "proxy",
            NodeKind::Coordinator => "coordinator",
        };
        let title = if kind == &*node.name { String::new() } else { format!("  {kind}") };
        let cable = format!("down {}, up {}", words::link(&node.down), words::link(&node.up));
        let also = node.address6.map(|v6| format!(", {v6}")).unwrap_or_default();
        let _ =
            writeln!(out, "{indent}{}{}{title}  {}{also}  [{cable}]", branch(last), node.name, node.address);
        let Some(plan) = &node.router else { return };
        let indent = format!("{indent}{}", trunk(last));
        let nat = plan.nat.as_ref().map_or_else(|| "no translation".to_owned(), ToString::to_string);
        let _ = writeln!(out, "{indent}·  inside {}/{}: {} ({nat})", plan.lan.0, plan.lan.1, plan.about);
        if let Some(firewall) = &plan.firewall {
            let _ = writeln!(out, "{indent}·  firewall: {firewall}");
        }
        let Some(v6) = &plan.ipv6 else { return };
        let _ = writeln!(out, "{indent}·  inside {}/{}: {}", v6.lan.0, v6.lan.1, words_of(&v6.way));
        if let Some(firewall) = &v6.firewall {
            let firewall = firewall.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
            let _ = writeln!(out, "{indent}·  firewall of IPv6: {firewall}");
        }
    }
}

/// A router's way of IPv6, for people.
fn words_of(way: &Way) -> String {
    match way {
        Way::Routed => "IPv6 routed".to_owned(),
        Way::Npt(swap) => swap.to_string(),
        Way::Nat64 { prefix } => format!("nat64 {prefix}"),
        Way::Clat { provider, customer } => format!("clat {customer} to {provider}"),
    }
}

fn branch(last: bool) -> &'static str {
    if last { "└─ " } else { "├─ " }
}

fn trunk(last: bool) -> &'static str {
    if last { "   " } else { "│  " }
}
