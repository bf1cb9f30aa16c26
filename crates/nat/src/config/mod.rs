//! The axes as plain data.

mod axes;
mod timeouts;

use std::fmt;
use std::time::Duration;

use crate::Proto;

pub(crate) use axes::words;
pub use axes::{
    Collision, Exhausted, Filtering, Fragments, Hairpin, Mapping, Pooling, PortAllocation, PortRange,
    UnknownWord, Unsolicited, WhenFull,
};
pub use timeouts::Timeouts;

/// A NAT, as the axes of RFC 4787.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// When an inside endpoint keeps its external endpoint.
    pub mapping: Mapping,
    /// Who may send to a binding.
    pub filtering: Filtering,
    /// The mapping for TCP; `None` = the same (RFC 5382 REQ-1 asks for endpoint-independent).
    pub tcp_mapping: Option<Mapping>,
    /// The filtering for TCP; `None` = the same.
    pub tcp_filtering: Option<Filtering>,
    /// How external ports are chosen.
    pub allocation: PortAllocation,
    /// What a preserving allocation does where the port is taken.
    pub collision: Collision,
    /// How far a sequential allocation moves on for each binding; zero counts as 1.
    pub step: u16,
    /// Bindings that other subscribers make in a second. They move a sequential allocation on, at even intervals, and
    /// occupy nothing.
    pub other_traffic: u32,
    /// Whether even inside ports get even external ones, and odd ones odd ones, while there are any (RFC 4787 REQ-4).
    pub parity: bool,
    /// Ports of the range that an inside address has to itself, all from one block of that size; zero = the range is
    /// everybody's. The block follows from the address, so that no log is needed (RFC 6888 REQ-14, RFC 7422): the range
    /// is cut into blocks, on each external address, and addresses that follow one another have different ones, until the
    /// blocks have gone round. Who has used up his block gets no more. Well-known ports and ICMP identifiers are outside.
    pub block: u16,
    /// The external ports for inside ports from 1024 up. A preserving allocation leaves the well-known inside ports
    /// in their own class; the others map them into this range too. ICMP identifiers ignore it.
    pub ports: PortRange,
    /// Which of several external addresses a binding gets.
    pub pooling: Pooling,
    /// Packets from inside for the NAT's own external address.
    pub hairpin: Hairpin,
    /// What it says to packets from outside that it does not let pass.
    pub unsolicited: Unsolicited,
    /// How long a SYN from outside that nothing lets pass waits for a SYN from inside on the same connection, before ICMP
    /// port unreachable answers it (RFC 5382 REQ-4: 6 s at least). Zero = it is treated like other packets.
    pub syn_hold: Duration,
    /// How long a silent conversation is remembered.
    pub timeouts: Timeouts,
    /// Whether a packet from inside starts the time of its conversation anew (RFC 4787 REQ-6: it must).
    pub refresh_outbound: bool,
    /// Whether a UDP or ICMP packet from outside does (RFC 4787 REQ-6a: it may). TCP is refreshed both ways.
    pub refresh_inbound: bool,
    /// Whether a TCP segment from inside that is no SYN may open a binding, as in Linux (`nf_conntrack_tcp_loose`).
    /// It lets connections survive a reboot of the NAT.
    pub tcp_pickup: bool,
    /// Whether what an inside endpoint sends by itself leaves from the port that was mapped for it
    /// ([`Nat::map`](crate::Nat::map)), as RFC 6887 §11.2 has it; otherwise only answers to those who came in by it
    /// do, as with a redirection rule in a firewall.
    pub mapped_outbound: bool,
    /// How long a port rests after its binding before another may have it (RFC 6888 REQ-8: 120 s).
    pub hold_down: Duration,
    /// How many bindings an inside address may have at a time (RFC 6888 REQ-4); `usize::MAX` = any number.
    pub host_quota: usize,
    /// What happens to a new conversation when the table is full. Who has used up his quota or block is refused in any case.
    pub when_full: WhenFull,
    /// What it says to whom it refuses.
    pub exhausted: Exhausted,
    /// Which fragments pass.
    pub fragments: Fragments,
    /// How many conversations the table holds at most. A conversation is an inside endpoint with one remote
    /// endpoint, except that endpoint-independent filtering keeps only one for each UDP or ICMP binding.
    pub capacity: usize,
}

impl NatConfig {
    /// What RFC 4787, 5382 and 5508 ask for, with the stricter of the recommended filterings (REQ-8b).
    pub const RFC: NatConfig = NatConfig {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressDependent,
        tcp_mapping: None,
        tcp_filtering: None,
        allocation: PortAllocation::Preserving,
        collision: Collision::NextFree,
        step: 1,
        other_traffic: 0,
        parity: false,
        block: 0,
        ports: PortRange::UNPRIVILEGED,
        pooling: Pooling::Paired,
        hairpin: Hairpin::ExternalSource,
        unsolicited: Unsolicited::Drop,
        syn_hold: Duration::ZERO,
        timeouts: Timeouts::RFC,
        refresh_outbound: true,
        refresh_inbound: true,
        tcp_pickup: true,
        mapped_outbound: true,
        hold_down: Duration::ZERO,
        host_quota: usize::MAX,
        when_full: WhenFull::RefuseNew,
        exhausted: Exhausted::Drop,
        fragments: Fragments::AnyOrder,
        // Linux's `nf_conntrack_max` on a machine with more than 4 GiB (nf_conntrack-sysctl).
        capacity: 262_144,
    };
}

impl NatConfig {
    /// The mapping for a protocol.
    pub fn mapping_of(&self, proto: Proto) -> Mapping {
        self.tcp_mapping.filter(|_| proto == Proto::Tcp).unwrap_or(self.mapping)
    }

    /// The filtering for a protocol.
    pub fn filtering_of(&self, proto: Proto) -> Filtering {
        self.tcp_filtering.filter(|_| proto == Proto::Tcp).unwrap_or(self.filtering)
    }
}

impl Default for NatConfig {
    fn default() -> Self {
        NatConfig::RFC
    }
}

impl fmt::Display for NatConfig {
    /// The axes in the words of a scenario file; those that are as in [`NatConfig::RFC`] and seldom otherwise are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pooling == Pooling::OneToOne {
            return write!(f, "pooling {}, hairpin {}", self.pooling, self.hairpin);
        }
        write!(
            f,
            "mapping {}, filtering {}, ports {}, hairpin {}, {}",
            self.mapping, self.filtering, self.allocation, self.hairpin, self.timeouts
        )?;
        let rfc = NatConfig::RFC;
        if let Some(mapping) = self.tcp_mapping {
            write!(f, ", tcp mapping {mapping}")?;
        }
        if let Some(filtering) = self.tcp_filtering {
            write!(f, ", tcp filtering {filtering}")?;
        }
        if self.ports != rfc.ports {
            write!(f, ", range {}", self.ports)?;
        }
        if self.collision != rfc.collision {
            write!(f, ", collision {}", self.collision)?;
        }
        if self.step != rfc.step {
            write!(f, ", step {}", self.step)?;
        }
        if self.other_traffic != rfc.other_traffic {
            write!(f, ", other traffic {}/s", self.other_traffic)?;
        }
        if self.parity {
            f.write_str(", parity kept")?;
        }
        if self.block != rfc.block {
            write!(f, ", blocks of {}", self.block)?;
        }
        if self.pooling != rfc.pooling {
            write!(f, ", pooling {}", self.pooling)?;
        }
        if self.unsolicited != rfc.unsolicited {
            write!(f, ", unsolicited {}", self.unsolicited)?;
        }
        if self.syn_hold != rfc.syn_hold {
            write!(f, ", syn held {:?}", self.syn_hold)?;
        }
        match (self.refresh_outbound, self.refresh_inbound) {
            (true, true) => {}
            (true, false) => f.write_str(", refreshed from inside only")?,
            (false, true) => f.write_str(", refreshed from outside only")?,
            (false, false) => f.write_str(", never refreshed")?,
        }
        if !self.tcp_pickup {
            f.write_str(", strict tcp")?;
        }
        if !self.mapped_outbound {
            f.write_str(", mapped ports for answers only")?;
        }
        if self.hold_down != rfc.hold_down {
            write!(f, ", hold-down {:?}", self.hold_down)?;
        }
        if self.host_quota != rfc.host_quota {
            write!(f, ", {} bindings a host", self.host_quota)?;
        }
        if self.exhausted != rfc.exhausted {
            write!(f, ", exhausted {}", self.exhausted)?;
        }
        if self.fragments != rfc.fragments {
            write!(f, ", fragments {}", self.fragments)?;
        }
        if self.capacity != rfc.capacity {
            write!(f, ", capacity {}", self.capacity)?;
        }
        if self.when_full != rfc.when_full {
            write!(f, ", {}", self.when_full)?;
        }
        Ok(())
    }
}
