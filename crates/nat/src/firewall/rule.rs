//! Rules: which packets an entry of a firewall's list is about.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::{PortRange, Proto};

/// One end of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// This address.
    Address(IpAddr),
    /// A node by its name, which matches nothing until
    /// [`FirewallConfig::resolve`](super::FirewallConfig::resolve) has put addresses in its place.
    Name(Cow<'static, str>),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Address(address) => address.fmt(f),
            Who::Name(name) => f.write_str(name),
        }
    }
}

/// A protocol, a range of ports outside, and the ends of a conversation. What is `None` may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Protocol.
    pub proto: Option<Proto>,
    /// Ports of the end outside; meaningless for ICMP.
    pub ports: PortRange,
    /// The end outside.
    pub to: Option<Who>,
    /// The end inside.
    pub from: Option<Who>,
}

impl Rule {
    /// Every port.
    pub const ALL_PORTS: PortRange = PortRange { low: 0, high: u16::MAX };

    /// A protocol and ports, with anybody.
    pub const fn ports(proto: Proto, ports: PortRange) -> Rule {
        Rule { proto: Some(proto), ports, to: None, from: None }
    }

    /// Everything with one end outside.
    pub const fn to(who: Who) -> Rule {
        Rule { proto: None, ports: Rule::ALL_PORTS, to: Some(who), from: None }
    }

    /// Whether a conversation of `inside` with `remote` is meant.
    pub fn matches(&self, proto: Proto, inside: IpAddr, remote: SocketAddr) -> bool {
        let is = |who: &Option<Who>, ip: IpAddr| match who {
            None => true,
            Some(Who::Address(address)) => *address == ip,
            Some(Who::Name(_)) => false,
        };
        self.proto.is_none_or(|mine| mine == proto)
            && (proto == Proto::Icmp || self.ports.contains(remote.port()))
            && is(&self.to, remote.ip())
            && is(&self.from, inside)
    }

    /// The names it uses.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        [&self.to, &self.from].into_iter().filter_map(|who| match who {
            Some(Who::Name(name)) => Some(name.as_ref()),
            _ => None,
        })
    }

    pub(super) fn is_named(&self) -> bool {
        self.names().next().is_some()
    }
}

impl fmt::Display for Rule {
    /// As it is written in a scenario file: "tcp 443", "udp 3478 to stun", "relay".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.proto.map_or("any", Proto::as_str))?;
        if self.proto != Some(Proto::Icmp) && self.ports != Rule::ALL_PORTS {
            write!(f, " {}", self.ports)?;
        }
        if let Some(to) = &self.to {
            write!(f, " to {to}")?;
        }
        if let Some(from) = &self.from {
            write!(f, " from {from}")?;
        }
        Ok(())
    }
}

/// The rules with each name replaced by the addresses that it stands for: one rule for each of them.
pub(super) fn resolve(rules: &[Rule], addresses: &impl Fn(&str) -> Vec<IpAddr>) -> Vec<Rule> {
    let expand = |who: &Option<Who>| -> Vec<Option<Who>> {
        match who {
            Some(Who::Name(name)) => addresses(name).into_iter().map(|ip| Some(Who::Address(ip))).collect(),
            other => vec![other.clone()],
        }
    };
    let mut out = Vec::new();
    for rule in rules {
        for to in expand(&rule.to) {
            for from in expand(&rule.from) {
                out.push(Rule { to: to.clone(), from, ..rule.clone() });
            }
        }
    }
    out
}
