//! The axes as plain data, with the words scenario files use.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A word that names no value of an axis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no {axis}: expected one of {expected}")]
pub struct UnknownWord {
    /// The axis, such as "mapping behaviour".
    pub axis: &'static str,
    /// What was found.
    pub word: String,
    /// The words that would do, separated by commas.
    pub expected: &'static str,
}

/// Declares an enum whose values are words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $axis:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal / $($alias:literal)|*),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word scenario files use.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word $(| $alias)* => Ok($name::$variant),)+
                    _ => Err(UnknownWord { axis: $axis, word: word.to_owned(), expected: words!(@list $($word),+) }),
                }
            }
        }
    };
    (@list $first:literal $(, $rest:literal)*) => { concat!($first $(, ", ", $rest)*) };
}

words! {
    /// When an inside endpoint keeps its external endpoint (RFC 4787 §4.1).
    Mapping, "mapping behaviour", {
        /// For every destination.
        EndpointIndependent = "endpoint-independent" / "eim",
        /// For every port of one destination address.
        AddressDependent = "address-dependent" / "adm",
        /// For one destination address and port only.
        AddressAndPortDependent = "address-and-port-dependent" / "apdm",
    }
}

words! {
    /// Who may send to a binding (RFC 4787 §5).
    Filtering, "filtering behaviour", {
        /// Anybody.
        EndpointIndependent = "endpoint-independent" / "eif",
        /// Addresses the inside endpoint has sent to from this binding.
        AddressDependent = "address-dependent" / "adf",
        /// Addresses and ports the inside endpoint has sent to from this binding.
        AddressAndPortDependent = "address-and-port-dependent" / "apdf",
    }
}

words! {
    /// How the external port of a new binding is chosen (RFC 4787 §4.2).
    PortAllocation, "port allocation", {
        /// The inside port; where it is taken, the next free one upwards in the same class of ports (0-1023 or
        /// the rest, RFC 4787 REQ-3a). RFC 4787 leaves the choice open, and does not ask for it to keep the parity.
        Preserving = "preserving" / "preserve",
        /// The one after the last, whoever asked last.
        Sequential = "sequential" / ,
        /// Uniform over the free ports of the range.
        Random = "random" / ,
    }
}

words! {
    /// What happens to a packet from inside for the NAT's own external address (RFC 4787 §6).
    Hairpin, "hairpin behaviour", {
        /// It is dropped.
        Off = "none" / "off",
        /// It comes back in, from the sender's external endpoint (RFC 4787 REQ-9a).
        ExternalSource = "external-source" / ,
    }
}

/// Ports from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub low: u16,
    /// The highest; a range whose `high` is below its `low` is empty.
    pub high: u16,
}

impl PortRange {
    /// Everything but the well-known ports.
    pub const UNPRIVILEGED: PortRange = PortRange { low: 1024, high: u16::MAX };

    /// Just one port.
    pub const fn one(port: u16) -> PortRange {
        PortRange { low: port, high: port }
    }

    /// Whether `port` is in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            write!(f, "{}", self.low)
        } else {
            write!(f, "{}-{}", self.low, self.high)
        }
    }
}

/// How long a silent conversation is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP, while nothing has come back.
    pub udp_unreplied: Duration,
    /// UDP, once something has come back.
    pub udp_replied: Duration,
    /// The age a UDP conversation must have before `udp_replied` holds for it; zero at most devices, 2 s in Linux
    /// (`nf_conntrack_proto_udp.c`).
    pub udp_replied_after: Duration,
    /// TCP, while opening, and after a FIN from both sides or a RST (RFC 6146 §3.5.2.2).
    pub tcp_transitory: Duration,
    /// TCP, established.
    pub tcp_established: Duration,
    /// ICMP echo.
    pub icmp: Duration,
}

impl Timeouts {
    /// RFC 4787 REQ-5 (UDP 5 min), RFC 5382 REQ-5 (TCP 4 min, 2 h 4 min), RFC 5508 REQ-2 (ICMP 60 s).
    pub const RFC: Timeouts = Timeouts {
        udp_unreplied: Duration::from_secs(300),
        udp_replied: Duration::from_secs(300),
        udp_replied_after: Duration::ZERO,
        tcp_transitory: Duration::from_secs(240),
        tcp_established: Duration::from_secs(7440),
        icmp: Duration::from_secs(60),
    };

    /// Linux: `nf_conntrack_udp_timeout` 30 s, `nf_conntrack_udp_timeout_stream` 120 s after 2 s,
    /// `nf_conntrack_tcp_timeout_syn_sent` 120 s for the transitory states, `nf_conntrack_tcp_timeout_established`
    /// 5 days, `nf_conntrack_icmp_timeout` 30 s (Documentation/networking/nf_conntrack-sysctl).
    pub const LINUX: Timeouts = Timeouts {
        udp_unreplied: Duration::from_secs(30),
        udp_replied: Duration::from_secs(120),
        udp_replied_after: Duration::from_secs(2),
        tcp_transitory: Duration::from_secs(120),
        tcp_established: Duration::from_secs(432_000),
        icmp: Duration::from_secs(30),
    };

    /// The same time for everything.
    pub const fn idle(all: Duration) -> Timeouts {
        Timeouts {
            udp_unreplied: all,
            udp_replied: all,
            udp_replied_after: Duration::ZERO,
            tcp_transitory: all,
            tcp_established: all,
            icmp: all,
        }
    }
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp {:?}/{:?}", self.udp_unreplied, self.udp_replied)?;
        if !self.udp_replied_after.is_zero() {
            write!(f, " after {:?}", self.udp_replied_after)?;
        }
        write!(f, ", tcp {:?}/{:?}, icmp {:?}", self.tcp_transitory, self.tcp_established, self.icmp)
    }
}

/// A NAT, as the axes of RFC 4787.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// When an inside endpoint keeps its external endpoint.
    pub mapping: Mapping,
    /// Who may send to a binding.
    pub filtering: Filtering,
    /// How external ports are chosen.
    pub allocation: PortAllocation,
    /// The external ports for inside ports from 1024 up. A preserving allocation leaves the well-known inside ports
    /// in their own class; the others map them into this range too. ICMP identifiers ignore it.
    pub ports: PortRange,
    /// Packets from inside for the NAT's own external address.
    pub hairpin: Hairpin,
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
    /// How many conversations the table holds at most. A conversation is an inside endpoint with one remote
    /// endpoint, except that endpoint-independent filtering keeps only one for each UDP or ICMP binding.
    pub capacity: usize,
}

impl NatConfig {
    /// What RFC 4787, 5382 and 5508 ask for, with the stricter of the recommended filterings (REQ-8b).
    pub const RFC: NatConfig = NatConfig {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressDependent,
        allocation: PortAllocation::Preserving,
        ports: PortRange::UNPRIVILEGED,
        hairpin: Hairpin::ExternalSource,
        timeouts: Timeouts::RFC,
        refresh_outbound: true,
        refresh_inbound: true,
        tcp_pickup: true,
        mapped_outbound: true,
        // Linux's `nf_conntrack_max` on a machine with more than 4 GiB (nf_conntrack-sysctl).
        capacity: 262_144,
    };
}

impl Default for NatConfig {
    fn default() -> Self {
        NatConfig::RFC
    }
}

impl fmt::Display for NatConfig {
    /// The axes in the words of a scenario file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mapping {}, filtering {}, ports {}, hairpin {}, {}",
            self.mapping, self.filtering, self.allocation, self.hairpin, self.timeouts
        )?;
        if self.ports != PortRange::UNPRIVILEGED {
            write!(f, ", range {}", self.ports)?;
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
        if self.capacity != NatConfig::RFC.capacity {
            write!(f, ", capacity {}", self.capacity)?;
        }
        Ok(())
    }
}

pub(crate) use words;
