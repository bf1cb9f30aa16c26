//! A Linux router as plain data: which netfilter rule translates, and what its chains let in.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::config::{UnknownWord, words};
use crate::{PortRange, Timeouts};

words! {
    /// The rule that translates, in the words of nftables where it has one. All but `masquerade` and `static` take
    /// `snat to` the router's external addresses.
    LinuxRule, "translation rule", {
        /// `masquerade`: to the router's first external address (`nf_nat_masquerade.c`).
        Masquerade = "masquerade" / ,
        /// `snat to A`, or `snat to A-B` where the router has several addresses.
        Snat = "snat" / ,
        /// `snat to A : jhash ip saddr . th sport`: the port is a function of the inside endpoint.
        EndpointHash = "endpoint-hash" / ,
        /// `snat to A : jhash ip saddr . th sport . ip daddr`: one port for each destination address.
        AddressHash = "address-hash" / ,
        /// `snat to A : jhash ip saddr . th sport . ip daddr . th dport`: one port for each destination endpoint.
        EndpointsHash = "endpoints-hash" / ,
        /// `snat to A : numgen inc`: the port after the last, whoever asked last.
        Sequential = "sequential" / ,
        /// `snat to A`, and a map from the external port to the inside endpoint that got it, through which anybody
        /// may come in.
        FullCone = "full-cone" / ,
        /// The same, and a set of the addresses that the inside endpoint has sent to: only they may come in.
        RestrictedCone = "restricted-cone" / ,
        /// Each inside host has an external address to itself, and keeps its ports.
        Static = "static" / "1:1",
    }
}

impl LinuxRule {
    /// Whether inbound packets find their host through a map of ports.
    pub const fn has_map(self) -> bool {
        matches!(self, LinuxRule::FullCone | LinuxRule::RestrictedCone)
    }

    /// Whether the port is computed from the packet's endpoints.
    pub const fn is_hash(self) -> bool {
        matches!(self, LinuxRule::EndpointHash | LinuxRule::AddressHash | LinuxRule::EndpointsHash)
    }
}

words! {
    /// What the router says to packets for its own external address that no conversation knows: the policy of
    /// netfilter's INPUT chain.
    InputPolicy, "input policy", {
        /// Dropped; no trace stays.
        Drop = "drop" / ,
        /// Accepted by the router, on which nobody listens: a conntrack entry stays for the UDP timeout and occupies
        /// the tuple, so that an inside host which then sends to that peer gets another port.
        Accept = "accept" / ,
        /// Refused with an ICMP error or a RST; no trace stays.
        Reject = "reject" / ,
    }
}

words! {
    /// What the router does with new conversations from outside that a map, a static rule or their destination
    /// address leads inside: the policy of netfilter's FORWARD chain. Answers always pass.
    ForwardPolicy, "forward policy", {
        /// They pass.
        Accept = "accept" / ,
        /// They are dropped; no trace stays.
        Drop = "drop" / ,
        /// They are refused with an ICMP error or a RST; no trace stays.
        Reject = "reject" / ,
    }
}

/// What a rule that computes ports gives where it is not told otherwise: `mod` with a map of 4096 ports.
const COMPUTED_PORTS: PortRange = PortRange { low: 61_440, high: u16::MAX };

/// A Linux router that translates addresses with connection tracking. See [`LinuxNat`](crate::LinuxNat).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxConfig {
    /// What translates.
    pub rule: LinuxRule,
    /// The external ports the rule may give; `None` for the class of the inside port (`nf_nat_core.c`:
    /// 1-511, 600-1023, 1024-65535), or 61440-65535 for the rules that compute one. ICMP identifiers
    /// ignore it.
    pub ports: Option<PortRange>,
    /// The flags `random` and `fully-random`, which the kernel treats alike: a random port for each conversation.
    pub random: bool,
    /// The flag `persistent`: the address of a pool depends on the inside address alone, RFC 4787's "paired".
    pub persistent: bool,
    /// Whether packets from inside for an external address find their host through the map or the static rule, and
    /// come from the sender's external endpoint. Other rules have no way back in.
    pub hairpin: bool,
    /// Packets for the router itself.
    pub input: InputPolicy,
    /// New conversations from outside for hosts inside.
    pub forward: ForwardPolicy,
    /// For [`LinuxRule::Static`]: the hosts that the external addresses belong to, in their order.
    pub hosts: Cow<'static, [IpAddr]>,
    /// How long an entry of the map is remembered after the last packet that began from its host.
    pub map_timeout: Duration,
    /// How long a silent conversation is remembered. `tcp_transitory` is the longest of TCP's transitory states; the
    /// others have the kernel's time or this one, whichever is shorter.
    pub timeouts: Timeouts,
    /// `nf_conntrack_tcp_loose`: whether a TCP segment that is no SYN may begin a conversation.
    pub tcp_pickup: bool,
    /// `nf_conntrack_max`: how many conversations the table holds at most, whoever they belong to.
    pub capacity: usize,
}

impl LinuxConfig {
    /// `masquerade` on a router that drops what it was not asked about, with the timers of
    /// Documentation/networking/nf_conntrack-sysctl.
    pub const MASQUERADE: LinuxConfig = LinuxConfig {
        rule: LinuxRule::Masquerade,
        ports: None,
        random: false,
        persistent: false,
        hairpin: false,
        input: InputPolicy::Drop,
        forward: ForwardPolicy::Drop,
        hosts: Cow::Borrowed(&[]),
        // RFC 4787 REQ-5: five minutes or more.
        map_timeout: Duration::from_secs(300),
        timeouts: Timeouts::LINUX,
        tcp_pickup: true,
        // On a machine with more than 4 GiB (nf_conntrack-sysctl).
        capacity: 262_144,
    };

    /// The ports that a rule which computes them may give.
    pub fn computed_ports(&self) -> PortRange {
        self.ports.unwrap_or(COMPUTED_PORTS)
    }
}

impl Default for LinuxConfig {
    fn default() -> Self {
        LinuxConfig::MASQUERADE
    }
}

impl fmt::Display for LinuxConfig {
    /// In the words of a scenario file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.rule)?;
        if let Some(ports) = self.ports {
            write!(f, ", range {ports}")?;
        }
        for (flag, word) in
            [(self.random, "random"), (self.persistent, "persistent"), (self.hairpin, "hairpin")]
        {
            if flag {
                write!(f, ", {word}")?;
            }
        }
        write!(f, ", input {}, forward {}", self.input, self.forward)?;
        for (i, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if i == 0 { ", hosts " } else { " and " })?;
        }
        if self.rule.has_map() {
            write!(f, ", map {:?}", self.map_timeout)?;
        }
        write!(f, ", {}", self.timeouts)?;
        if !self.tcp_pickup {
            f.write_str(", strict tcp")?;
        }
        if self.capacity != LinuxConfig::MASQUERADE.capacity {
            write!(f, ", capacity {}", self.capacity)?;
        }
        Ok(())
    }
}
