//! Who may talk to whom.
//!
//! The rules go to every node, and each one judges what comes in from the tunnel: a packet is let in if a rule permits its
//! sender to reach this node with its protocol and port, or if it answers what this node has sent. Without rules everybody may
//! talk to everybody; with rules, what none of them permits is forbidden.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::NodeInfo;

/// More rules than people can oversee.
pub const MAX_RULES: usize = 1_000;
/// As many groups as there may be.
pub const MAX_GROUPS: usize = 250;
/// Members of a group, and each side of a rule.
pub const MAX_SELECTORS: usize = 1_000;
/// Port ranges of a rule.
pub const MAX_PORTS: usize = 100;

/// The access rules of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Names for several nodes or tags, without the `group:` in front.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Vec<Selector>>,
    /// What is permitted.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Something that is permitted. A field that a reader does not know makes the whole unreadable: to ignore it might permit more
/// than was meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Who may begin.
    pub from: Vec<Selector>,
    /// Whom they may reach.
    pub to: Vec<Selector>,
    /// With what.
    #[serde(default)]
    pub protocol: Protocol,
    /// At which ports of theirs; without any, all of them. Only TCP and UDP have ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Ports>,
}

/// The protocol inside an IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// All; with ports, TCP and UDP.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// IANA's protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// Some nodes: `*`, `tag:NAME`, `group:NAME`, or the name of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// Every node.
    All,
    /// The nodes with a tag.
    Tag(String),
    /// The members of a group.
    Group(String),
    /// The node of a name.
    Node(String),
}

/// Ports from the first to the last: `443` or `8000-8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    /// The first.
    pub low: u16,
    /// The last.
    pub high: u16,
}

/// What is wrong with access rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Not a port or a range of them.
    #[error("`{0}` is no port; write \"443\" or \"8000-8080\"")]
    Ports(String),
    /// A selector or a group without a name, or with one that is too long.
    #[error(
        "`{0}` names nobody; write \"*\", \"tag:NAME\", \"group:NAME\" or a node's name, of 1 to 63 bytes"
    )]
    Selector(String),
    /// A rule speaks of a group that is not there.
    #[error("there is no group `{0}`; add it to `groups`")]
    UnknownGroup(String),
    /// Groups have nodes and tags in them.
    #[error("group `{0}` has a group in it; write its members instead")]
    NestedGroup(String),
    /// Ports where the protocol has none.
    #[error("rule {0} has ports, but ICMP has none; leave them away")]
    PortsOfIcmp(usize),
    /// More than is kept.
    #[error("too many {what}: at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
}

impl Access {
    /// Looks for mistakes.
    ///
    /// # Errors
    /// The first one found.
    pub fn check(&self) -> Result<(), AccessError> {
        let few = |what, count: usize, most| {
            if count > most { Err(AccessError::TooMany { what, most }) } else { Ok(()) }
        };
        few("rules", self.rules.len(), MAX_RULES)?;
        few("groups", self.groups.len(), MAX_GROUPS)?;
        for (name, members) in &self.groups {
            named(name, name)?;
            few("members in a group", members.len(), MAX_SELECTORS)?;
            if members.iter().any(|member| matches!(member, Selector::Group(_))) {
                return Err(AccessError::NestedGroup(name.clone()));
            }
        }
        for (index, rule) in self.rules.iter().enumerate() {
            few("ports in a rule", rule.ports.len(), MAX_PORTS)?;
            for side in [&rule.from, &rule.to] {
                few("names on a side of a rule", side.len(), MAX_SELECTORS)?;
                for selector in side {
                    if let Selector::Group(group) = selector
                        && !self.groups.contains_key(group)
                    {
                        return Err(AccessError::UnknownGroup(group.clone()));
                    }
                }
            }
            if rule.protocol == Protocol::Icmp && !rule.ports.is_empty() {
                return Err(AccessError::PortsOfIcmp(index + 1));
            }
        }
        Ok(())
    }

    /// What `from` may begin with `to`.
    pub fn grants(&self, from: &NodeInfo, to: &NodeInfo) -> Grants {
        let meant = |side: &[Selector], node| side.iter().any(|selector| self.selects(selector, node));
        let rules = self.rules.iter().filter(|rule| meant(&rule.from, from) && meant(&rule.to, to));
        Grants(rules.map(|rule| (rule.protocol, rule.ports.clone())).collect())
    }

    fn selects(&self, selector: &Selector, node: &NodeInfo) -> bool {
        match selector {
            Selector::All => true,
            Selector::Tag(tag) => node.tags.contains(tag),
            Selector::Node(name) => node.name == *name,
            Selector::Group(group) => self.groups.get(group).is_some_and(|members| {
                // A group in a group is refused where rules are set; were it here, it would have no members.
                let members = members.iter().filter(|member| !matches!(member, Selector::Group(_)));
                members.into_iter().any(|member| self.selects(member, node))
            }),
        }
    }
}

/// What one node may begin with another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<(Protocol, Vec<Ports>)>);

impl Grants {
    /// Whether a packet of this IP protocol number, to this port where the protocol has ports, is permitted.
    pub fn permit(&self, protocol: u8, port: Option<u16>) -> bool {
        self.0.iter().any(|(granted, ports)| {
            let meant = match granted {
                Protocol::Any => ports.is_empty() || matches!(protocol, TCP | UDP),
                Protocol::Tcp => protocol == TCP,
                Protocol::Udp => protocol == UDP,
                Protocol::Icmp => matches!(protocol, ICMP | ICMP6),
            };
            let at = |port| ports.iter().any(|ports| (ports.low..=ports.high).contains(&port));
            meant && (ports.is_empty() || port.is_some_and(at))
        })
    }
}

fn named(name: &str, whole: &str) -> Result<String, AccessError> {
    let good = (1..=63).contains(&name.len()) && !name.chars().any(char::is_control);
    if good { Ok(name.to_owned()) } else { Err(AccessError::Selector(whole.to_owned())) }
}

impl FromStr for Selector {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Selector, AccessError> {
        Ok(match text.split_once(':') {
            _ if text == "*" => Selector::All,
            Some(("tag", tag)) => Selector::Tag(named(tag, text)?),
            Some(("group", group)) => Selector::Group(named(group, text)?),
            _ => Selector::Node(named(text, text)?),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::All => f.write_str("*"),
            Selector::Tag(tag) => write!(f, "tag:{tag}"),
            Selector::Group(group) => write!(f, "group:{group}"),
            Selector::Node(name) => f.write_str(name),
        }
    }
}

impl FromStr for Ports {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Ports, AccessError> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let (low, high) = (low.trim().parse(), high.trim().parse());
        match (low, high) {
            (Ok(low), Ok(high)) if low <= high => Ok(Ports { low, high }),
            _ => Err(AccessError::Ports(text.to_owned())),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            write!(f, "{}", self.low)
        } else {
            write!(f, "{}-{}", self.low, self.high)
        }
    }
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = AccessError;

            fn try_from(text: String) -> Result<$type, AccessError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}

as_text!(Selector, Ports);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, tags: &[&str]) -> NodeInfo {
        NodeInfo {
            id: 1,
            name: name.into(),
            node_key: [1; 32],
            disco_key: [2; 32],
            tunnel_ip: std::net::IpAddr::from([100, 64, 0, 1]),
            tunnel_ip6: None,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            key_expires: None,
            endpoints: Vec::new(),
            home_relay: None,
            nat: None,
            online: true,
        }
    }

    fn access(json: &str) -> Access {
        let access: Access = serde_json::from_str(json).unwrap();
        access.check().unwrap();
        access
    }

    #[test]
    fn what_no_rule_permits_is_forbidden() {
        let rules = access(
            r#"{"rules": [{"from": ["laptop"], "to": ["tag:web"], "protocol": "tcp", "ports": ["443"]}]}"#,
        );
        let (laptop, web) = (node("laptop", &[]), node("one", &["web"]));
        let there = rules.grants(&laptop, &web);
        assert!(there.permit(TCP, Some(443)));
        assert!(!there.permit(TCP, Some(80)) && !there.permit(UDP, Some(443)) && !there.permit(ICMP, None));
        assert_eq!(rules.grants(&web, &laptop), Grants::default());
        assert!(!access("{}").grants(&laptop, &web).permit(TCP, Some(443)), "closed by default");
    }

    #[test]
    fn groups_hold_nodes_and_tags() {
        let rules = access(
            r#"{"groups": {"ours": ["laptop", "tag:phone"]}, "rules": [{"from": ["group:ours"], "to": ["*"], "ports": ["8000-8080"]}]}"#,
        );
        for (from, permitted) in
            [(node("laptop", &[]), true), (node("x", &["phone"]), true), (node("x", &[]), false)]
        {
            let grants = rules.grants(&from, &node("y", &[]));
            assert_eq!(grants.permit(UDP, Some(8080)), permitted, "{}", from.name);
            assert!(!grants.permit(ICMP, None), "ports speak of TCP and UDP");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_tag_is_nobody() {
        let rules = access(r#"{"rules": [{"from": ["tag:admin"], "to": ["*"]}]}"#);
        assert_eq!(rules.grants(&node("tag:admin", &[]), &node("y", &[])), Grants::default());
    }

    #[test]
    fn mistakes_are_told_with_the_fix() {
        let wrong = |json: &str| match serde_json::from_str::<Access>(json) {
            Ok(access) => access.check().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        for (json, part) in [
            (r#"{"rules": [{"from": ["group:x"], "to": ["*"]}]}"#, "no group `x`"),
            (r#"{"groups": {"a": ["group:b"], "b": []}}"#, "group `a` has a group in it"),
            (
                r#"{"rules": [{"from": ["*"], "to": ["*"], "protocol": "icmp", "ports": ["1"]}]}"#,
                "rule 1 has ports",
            ),
            (r#"{"rules": [{"from": ["tag:"], "to": ["*"]}]}"#, "names nobody"),
            (r#"{"rules": [{"from": ["*"], "to": ["*"], "ports": ["9-1"]}]}"#, "is no port"),
            (r#"{"rules": [{"from": ["*"], "to": ["*"], "till": "noon"}]}"#, "unknown field `till`"),
        ] {
            let told = wrong(json);
            assert!(told.contains(part), "{json}: {told}");
        }
        let many = Access {
            rules: vec![Rule { from: vec![], to: vec![], protocol: Protocol::Any, ports: vec![] }; 1001],
            ..Access::default()
        };
        assert_eq!(many.check(), Err(AccessError::TooMany { what: "rules", most: 1000 }));
    }

    proptest! {
        #[test]
        fn selectors_and_ports_are_written_as_they_are_read(text in ".{0,70}", low in any::<u16>(), high in any::<u16>()) {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string(), text.clone());
            }
            let _ = text.parse::<Ports>();
            let ports = Ports { low: low.min(high), high: low.max(high) };
            prop_assert_eq!(ports.to_string().parse::<Ports>(), Ok(ports));
        }
    }
}
