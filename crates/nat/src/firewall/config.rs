//! A firewall as plain data, with the words scenario files use.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::bucket::{Police, PoliceUnit};
use super::rule::Rule;
use crate::config::{UnknownWord, words};
use crate::{NatConfig, PortRange, Timeouts};

words! {
    /// What a firewall does with packets from outside that nobody asked for: the filtering behaviours of RFC 4787 §5 and
    /// RFC 6092 REC-17 and REC-33, and none at all.
    Inbound, "inbound policy", {
        /// They pass.
        Open = "open" / ,
        /// They pass to an endpoint inside that has a conversation of its own making with anybody.
        EndpointIndependent = "endpoint-independent" / "eif",
        /// They pass to an endpoint inside that has a conversation of its own making with the sender's address.
        AddressDependent = "address-dependent" / "adf",
        /// They are dropped; only answers pass, by address and port.
        Stateful = "stateful" / "address-and-port-dependent" | "apdf",
    }
}

words! {
    /// What a sender inside hears of a packet that a rule of the firewall refuses.
    Refusal, "refusal", {
        /// Nothing.
        Drop = "drop" / ,
        /// ICMP destination unreachable, administratively prohibited (RFC 1812 §5.2.7.1).
        Icmp = "icmp" / ,
        /// A RST for TCP, ICMP port unreachable for UDP (the `reject` of OpenWrt's fw4 and of ufw).
        Reset = "rst" / "reset",
    }
}

words! {
    /// What a sender outside hears of a packet that nobody inside asked for.
    InboundRefusal, "inbound refusal", {
        /// Nothing.
        Drop = "drop" / ,
        /// ICMP destination unreachable, administratively prohibited.
        Icmp = "icmp" / ,
        /// A RST for TCP, ICMP port unreachable for UDP.
        Reset = "rst" / "reset",
        /// To a SYN the same as `icmp`, but only after six seconds in which nobody inside opened the connection from the
        /// other end; to everything else nothing (RFC 6092 REC-34).
        Late = "late-icmp" / ,
    }
}

/// A network that lets nothing through before its user has accepted its terms (RFC 8952).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portal {
    /// Nothing to accept.
    Off,
    /// Closed until somebody calls [`Firewall::accept_portal`](super::Firewall::accept_portal).
    UntilAccepted,
    /// Accepted by a user who needs this long from the first packet that was refused.
    After(Duration),
}

/// What a firewall does to UDP packets beyond letting them pass or not. Lengths are of the IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpLimits {
    /// Longer packets are dropped.
    pub max_bytes: Option<u64>,
    /// All UDP of one direction together.
    pub rate: Option<Police>,
    /// Each conversation, each direction.
    pub flow_rate: Option<Police>,
    /// Packets of a conversation, both directions together, after which it passes no more.
    pub flow_packets: Option<u64>,
    /// Bytes of a conversation, both directions together, after which it passes no more.
    pub flow_bytes: Option<u64>,
    /// Share of the packets from outside that is lost, in parts per billion.
    pub loss_in_ppb: u32,
    /// Share of the packets from inside that is lost, in parts per billion.
    pub loss_out_ppb: u32,
}

impl UdpLimits {
    /// None.
    pub const NONE: UdpLimits = UdpLimits {
        max_bytes: None,
        rate: None,
        flow_rate: None,
        flow_packets: None,
        flow_bytes: None,
        loss_in_ppb: 0,
        loss_out_ppb: 0,
    };

    /// Whether something is counted for each conversation.
    pub(super) fn per_flow(&self) -> bool {
        self.flow_rate.is_some() || self.flow_packets.is_some() || self.flow_bytes.is_some()
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
    pub outbound: Option<Cow<'static, [Rule]>>,
    /// What passes neither out nor in, whatever else is allowed. The ports are those of the end outside.
    pub block: Cow<'static, [Rule]>,
    /// What a sender inside hears of a packet that a rule refuses.
    pub answer: Refusal,
    /// What a sender outside hears of a packet that nobody asked for.
    pub answer_inbound: InboundRefusal,
    /// Ports outside to which a connection must begin with a TLS ClientHello, or is cut off.
    pub tls: Cow<'static, [PortRange]>,
    /// Whether IPv6 packets with addresses that have no business on the internet pass (RFC 6092 REC-1, 3 and 7). The
    /// documentation prefix passes: simulated internets are made of it.
    pub bogons: bool,
    /// Whether terms must be accepted first.
    pub portal: Portal,
    /// Limits of UDP.
    pub udp: UdpLimits,
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
        block: Cow::Borrowed(&[]),
        answer: Refusal::Drop,
        answer_inbound: InboundRefusal::Drop,
        tls: Cow::Borrowed(&[]),
        bogons: true,
        portal: Portal::Off,
        udp: UdpLimits::NONE,
        timeouts: Timeouts::LINUX,
        capacity: NatConfig::RFC.capacity,
    };

    /// Lets only answers in, as `ct state established,related accept` does.
    pub const STATEFUL: FirewallConfig =
        FirewallConfig { inbound: Inbound::Stateful, ..FirewallConfig::OPEN };

    /// Replaces the names in its rules by the addresses that `addresses` knows for them; a name without any matches
    /// nothing.
    pub fn resolve(&mut self, addresses: impl Fn(&str) -> Vec<IpAddr>) {
        if self.block.iter().any(Rule::is_named) {
            self.block = super::rule::resolve(&self.block, &addresses).into();
        }
        if let Some(outbound) = &mut self.outbound
            && outbound.iter().any(Rule::is_named)
        {
            *outbound = super::rule::resolve(outbound, &addresses).into();
        }
    }

    /// The names that its rules use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.block.iter().chain(self.outbound.iter().flat_map(|rules| rules.iter())).flat_map(Rule::names)
    }

    /// Whether it needs no memory of conversations.
    pub(super) fn is_stateless(&self) -> bool {
        self.inbound == Inbound::Open
            && self.outbound.is_none()
            && self.tls.is_empty()
            && !self.udp.per_flow()
    }

    /// Whether something may stop a packet before its conversation is looked at, beyond `udp_blocked`.
    pub(super) fn has_door(&self) -> bool {
        !self.block.is_empty()
            || !self.bogons
            || self.portal != Portal::Off
            || self.udp.max_bytes.is_some()
            || self.udp.rate.is_some()
            || self.udp.loss_in_ppb > 0
            || self.udp.loss_out_ppb > 0
    }
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
            list(f, allowed)?;
        }
        if !self.block.is_empty() {
            f.write_str(", blocked ")?;
            list(f, &self.block)?;
        }
        if self.answer != Refusal::Drop {
            write!(f, ", answers {}", self.answer)?;
        }
        if self.answer_inbound != InboundRefusal::Drop {
            write!(f, ", answers from outside {}", self.answer_inbound)?;
        }
        if !self.tls.is_empty() {
            f.write_str(", only TLS on ")?;
            list(f, &self.tls)?;
        }
        if !self.bogons {
            f.write_str(", no bogons")?;
        }
        match self.portal {
            Portal::Off => {}
            Portal::UntilAccepted => f.write_str(", portal until accepted")?,
            Portal::After(time) => write!(f, ", portal for {time:?}")?,
        }
        let UdpLimits { max_bytes, rate, flow_rate, flow_packets, flow_bytes, loss_in_ppb, loss_out_ppb } =
            self.udp;
        if let Some(bytes) = max_bytes {
            write!(f, ", udp packets to {bytes} B")?;
        }
        for (what, police) in [("udp", rate), ("each udp flow", flow_rate)] {
            if let Some(Police { rate, burst }) = police {
                let unit = match rate.unit {
                    PoliceUnit::Bits => "B",
                    PoliceUnit::Packets => "packets",
                };
                write!(f, ", {what} {rate} in bursts of {burst} {unit}")?;
            }
        }
        if let Some(packets) = flow_packets {
            write!(f, ", each udp flow {packets} packets")?;
        }
        if let Some(bytes) = flow_bytes {
            write!(f, ", each udp flow {bytes} B")?;
        }
        for (way, ppb) in [("in", loss_in_ppb), ("out", loss_out_ppb)] {
            if ppb > 0 {
                write!(f, ", udp loss {way} {}", Percent(ppb))?;
            }
        }
        if self.is_stateless() { Ok(()) } else { write!(f, ", {}", self.timeouts) }
    }
}

/// Entries with "and" between them.
pub(super) fn list(f: &mut fmt::Formatter<'_>, entries: &[impl fmt::Display]) -> fmt::Result {
    for (i, entry) in entries.iter().enumerate() {
        write!(f, "{}{entry}", if i == 0 { "" } else { " and " })?;
    }
    Ok(())
}

/// Parts per billion as a percentage, exactly.
struct Percent(u32);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000_000, self.0 % 10_000_000);
        let digits = format!("{rest:07}");
        match digits.trim_end_matches('0') {
            "" => write!(f, "{whole}%"),
            digits => write!(f, "{whole}.{digits}%"),
        }
    }
}
