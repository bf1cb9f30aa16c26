//! The values of the axes, with the words scenario files use.

use std::fmt;
use std::str::FromStr;

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
        /// The inside port; where it is taken, see [`Collision`]. Ports stay in their class, 0-1023 or the rest (RFC 4787
        /// REQ-3a).
        Preserving = "preserving" / "preserve",
        /// The one after the last, or [`NatConfig::step`](crate::NatConfig::step) after it, whoever asked last.
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
        /// It comes back in with the sender's inside endpoint, so that the answer goes past the NAT and comes from
        /// somebody whom the sender never wrote to (RFC 4787 §6). Filters and bindings as with the other.
        InternalSource = "internal-source" / ,
    }
}

words! {
    /// What a preserving allocation does where the inside port is taken (RFC 4787 §4.2.1).
    Collision, "collision behaviour", {
        /// The next free port upwards.
        NextFree = "next-free" / ,
        /// A random free port.
        Random = "random" / ,
        /// The port is given out a second time, "port overloading", which RFC 4787 REQ-3 forbids. A packet from outside
        /// goes to the binding that has a conversation with its sender, else to one whose filter lets it pass; where
        /// that is so for several, to the newest of them.
        Overload = "overload" / ,
    }
}

words! {
    /// Which of several external addresses a binding gets (RFC 4787 §4.1).
    Pooling, "address pooling", {
        /// An inside address always gets the same one (RFC 4787 REQ-2, RFC 6888 REQ-2).
        Paired = "paired" / ,
        /// Each binding gets a random one.
        Arbitrary = "arbitrary" / ,
        /// Each inside address has one of its own, of which every port is its own: "Basic NAT" (RFC 2663 §4.1.1), the
        /// public address of a cloud machine. Addresses go to inside addresses in the order of their first packets, and
        /// stay; whoever comes too late gets none. There are no ports to choose, nothing to filter, nothing to expire.
        OneToOne = "one-to-one" / ,
    }
}

words! {
    /// What a NAT says to packets from outside that no binding or filter lets pass. It never answers ICMP errors
    /// (RFC 1122 §3.2.2) or echo requests.
    Unsolicited, "answer to unsolicited packets", {
        /// Nothing.
        Drop = "drop" / ,
        /// ICMP port unreachable.
        Icmp = "icmp" / ,
        /// A RST to TCP segments, which ruins a simultaneous open (RFC 5382 §4.3), ICMP port unreachable to others.
        Rst = "rst" / ,
    }
}

words! {
    /// What happens to a new conversation when the table is full.
    WhenFull, "behaviour when full", {
        /// It is refused (RFC 6888 REQ-11 D).
        RefuseNew = "refuse-new" / ,
        /// The conversation that would have been the next to expire makes room for it.
        EvictOldest = "evict-oldest" / ,
    }
}

words! {
    /// What a NAT says to a host inside when it has no room for a new binding or conversation.
    Exhausted, "answer when exhausted", {
        /// Nothing.
        Drop = "drop" / ,
        /// ICMP, administratively prohibited (RFC 5508 REQ-8).
        Icmp = "icmp" / ,
    }
}

words! {
    /// Which fragments of IP packets pass (RFC 4787 §11).
    Fragments, "fragment behaviour", {
        /// None.
        Drop = "drop" / ,
        /// Those that come after the first one, which has the ports, within 2 s (RFC 6146 §3.4).
        InOrder = "in-order" / ,
        /// All of them (RFC 4787 REQ-14). A device keeps those that come before the first one until it comes, and the
        /// model lets them pass: the packet that is put together is complete at the same time.
        AnyOrder = "any-order" / ,
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

pub(crate) use words;
