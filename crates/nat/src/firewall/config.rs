//! A firewall as plain data, with the words scenario files use.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::config::{UnknownWord, words};
use crate::{NatConfig, PortRange, Proto, Timeouts};

/// An outbound protocol and range of destination ports that a firewall lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Protocol.
    pub proto: Proto,
    /// Destination ports; meaningless for ICMP.
    pub ports: PortRange,
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.proto == Proto::Icmp { write!(f, "icmp") } else { write!(f, "{} {}", self.proto, self.ports) }
    }
}

words! {
    /// What a firewall does with packets from outside that nobody asked for.
    Inbound, "inbound policy", {
        /// They pass.
        Open = "open" / ,
        /// They are dropped; only answers pass, by address and port.
        Stateful = "stateful" / ,
    }
}

/// A firewall without translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallConfig {
    /// Packets from outside.
    pub inbound: Inbound,
    /// Drops all UDP, both ways.
    pub udp_blocked: bool,
    /// What may go out; `None` for anything. ICMP errors about a known conversation always may.
    pub outbound: Option<Cow<'static, [Allow]>>,
    /// How long a silent conversation is remembered.
    pub timeouts: Timeouts,
    /// How many conversations the table holds at most.
    pub capacity: usize,
}

impl FirewallConfig {
    /// Lets everything pass.
    pub const OPEN: FirewallConfig = FirewallConfig {
        inbound: Inbound::Open,
        udp_blocked: false,
        outbound: None,
        timeouts: Timeouts::LINUX,
        capacity: NatConfig::RFC.capacity,
    };

    /// Lets only answers in, as `ct state established,related accept` does.
    pub const STATEFUL: FirewallConfig =
        FirewallConfig { inbound: Inbound::Stateful, ..FirewallConfig::OPEN };
}

impl Default for FirewallConfig {
    fn default() -> Self {
        FirewallConfig::STATEFUL
    }
}

impl fmt::Display for FirewallConfig {
    /// In the words of a scenario file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inbound {}", self.inbound)?;
        if self.udp_blocked {
            f.write_str(", udp blocked")?;
        }
        if let Some(allowed) = &self.outbound {
            f.write_str(", outbound only ")?;
            for (i, allow) in allowed.iter().enumerate() {
                write!(f, "{}{allow}", if i == 0 { "" } else { " and " })?;
            }
        }
        if self.inbound == Inbound::Stateful { write!(f, ", {}", self.timeouts) } else { Ok(()) }
    }
}
