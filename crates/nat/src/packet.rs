//! What a middlebox sees and what it answers: packets, sides, verdicts, events.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

/// The protocols a NAT translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// ICMP or ICMPv6: an echo message, whose identifier stands in for a port, or an error that quotes a packet.
    Icmp,
}

impl Proto {
    /// Every one, in the order of their numbers here.
    pub const ALL: [Proto; 3] = [Proto::Udp, Proto::Tcp, Proto::Icmp];

    /// The word scenario files use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Proto::Udp => "udp",
            Proto::Tcp => "tcp",
            Proto::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The TCP header flags a middlebox looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// Synchronise.
    pub syn: bool,
    /// Acknowledge.
    pub ack: bool,
    /// Finish.
    pub fin: bool,
    /// Reset.
    pub rst: bool,
}

/// A packet as a middlebox sees it. The caller owns checksums: they follow from the rewritten addresses.
pub trait Packet {
    /// The transport protocol.
    fn proto(&self) -> Proto;

    /// Source address and port. The port of an ICMP echo *request* is its identifier (RFC 5508 §3); of a reply or
    /// an error it is 0.
    fn src(&self) -> SocketAddr;

    /// Destination address and port. The port of an ICMP echo *reply* is its identifier; of a request or an error
    /// it is 0.
    fn dst(&self) -> SocketAddr;

    /// Rewrites the source.
    fn set_src(&mut self, src: SocketAddr);

    /// Rewrites the destination.
    fn set_dst(&mut self, dst: SocketAddr);

    /// The flags of a TCP segment; `None` for every other protocol.
    fn tcp_flags(&self) -> Option<TcpFlags> {
        None
    }

    /// The sequence number of a TCP segment; `None` for every other protocol, and where the caller has none to show.
    fn tcp_seq(&self) -> Option<u32> {
        None
    }

    /// Length of the IP packet in bytes, headers included.
    fn wire_len(&self) -> usize;

    /// What the transport carries: the bytes of a datagram or of this segment. Empty where the caller has none to show.
    fn payload(&self) -> &[u8] {
        &[]
    }

    /// Which part it is of a fragmented packet; `None` for a whole one. Of any part, [`src`](Self::src) and
    /// [`dst`](Self::dst) give the ports of the whole packet, though only the first part has them on the wire: a box knows
    /// what it may not look at.
    fn fragment(&self) -> Option<Fragment> {
        None
    }

    /// The packet an ICMP error quotes, as it was when the sender of the error saw it; `None` for everything else.
    fn quoted(&mut self) -> Option<&mut dyn Packet> {
        None
    }
}

/// Which part of a fragmented IP packet a packet is (RFC 791 §2.3, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The identification that the parts of one packet share.
    pub id: u32,
    /// Where it begins, in bytes.
    pub offset: u16,
    /// Whether more of it follows.
    pub more: bool,
}

/// The two sides of a middlebox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the protected or private hosts are.
    Inside,
    /// Where the internet is.
    Outside,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves, rewritten, on this side. `Forward(Inside)` for a packet that came from inside is a hairpin.
    Forward(Side),
    /// Goes no further. Its addresses may already have been rewritten (a hairpin that failed on the way back in).
    Drop(DropReason),
    /// Goes no further, and its sender is told so by the box. Its addresses are as it came.
    Reject(DropReason, Answer),
}

/// What a box that refuses a packet tells its sender. The caller builds the packet, since it knows the one refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// ICMP destination unreachable, port unreachable (RFC 792 type 3 code 3, RFC 4443 type 1 code 4).
    PortUnreachable,
    /// ICMP destination unreachable, administratively prohibited (RFC 1812 type 3 code 13, RFC 4443 type 1 code 1).
    Prohibited,
    /// A TCP RST (RFC 9293 §3.5.2).
    Reset,
    /// The same, and the segment goes on to its receiver as a bare RST: same ends, same sequence number, nothing in it. It
    /// is the one that the receiver waits for next (RFC 5961 §3.2), since nothing beyond it has passed.
    ResetBoth,
}

/// An answer that a box gives by itself, some time after it dropped the packet (RFC 5382 REQ-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateAnswer {
    /// Where it leaves.
    pub side: Side,
    /// What it says; never a reset.
    pub answer: Answer,
    /// Protocol of the packet that it quotes.
    pub proto: Proto,
    /// Source of the packet that it quotes: who is told.
    pub src: SocketAddr,
    /// Destination of the packet that it quotes, and who the answer is from.
    pub dst: SocketAddr,
}

/// Why a middlebox dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Inbound to an external endpoint that no binding owns.
    NoBinding,
    /// Address-dependent filtering.
    FilteredAddress,
    /// Address-and-port-dependent filtering.
    FilteredPort,
    /// From inside to the NAT's own external address, and the NAT does not hairpin.
    NoHairpin,
    /// The table holds as many conversations as it may.
    TableFull,
    /// Every external port of the range is taken.
    NoFreePort,
    /// The inside address has as many bindings as it may.
    HostQuota,
    /// A fragment, and the box does not pass such ones.
    Fragment,
    /// No external address of the packet's family.
    NoExternalAddress,
    /// Arrived outside, but not for an external address of this NAT.
    NotOurAddress,
    /// A TCP segment other than SYN of a connection the box does not know.
    NotASyn,
    /// An ICMP error about a packet that no known conversation sent.
    UnknownQuote,
    /// The firewall lets no UDP pass.
    UdpBlocked,
    /// The firewall's outbound list does not hold this protocol and port.
    PortNotAllowed,
    /// Inbound through a stateful firewall, and nobody inside asked for it.
    Unsolicited,
    /// No address stands for this one on the other side of a translator to, from or within IPv6.
    NotTranslatable,
    /// Lost by chance, as the box was told to.
    Lost,
    /// The firewall blocks this address or service.
    Blocked,
    /// An address that has no business on the internet (RFC 6092 REC-1 to 7).
    Bogon,
    /// The captive portal has not been accepted yet.
    Portal,
    /// Longer than the firewall lets UDP packets be.
    TooLong,
    /// UDP beyond the rate that the firewall allows.
    OverRate,
    /// A conversation beyond the rate that the firewall allows each.
    FlowOverRate,
    /// A conversation that has had all the packets or bytes the firewall allows each.
    FlowUsedUp,
    /// A connection to a port for TLS alone that does not begin with a ClientHello.
    NotTls,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [DropReason; 25] = [
        DropReason::NoBinding,
        DropReason::FilteredAddress,
        DropReason::FilteredPort,
        DropReason::NoHairpin,
        DropReason::TableFull,
        DropReason::NoFreePort,
        DropReason::HostQuota,
        DropReason::Fragment,
        DropReason::NoExternalAddress,
        DropReason::NotOurAddress,
        DropReason::NotASyn,
        DropReason::UnknownQuote,
        DropReason::UdpBlocked,
        DropReason::PortNotAllowed,
        DropReason::Unsolicited,
        DropReason::NotTranslatable,
        DropReason::Lost,
        DropReason::Blocked,
        DropReason::Bogon,
        DropReason::Portal,
        DropReason::TooLong,
        DropReason::OverRate,
        DropReason::FlowOverRate,
        DropReason::FlowUsedUp,
        DropReason::NotTls,
    ];

    /// A short word for logs; it never changes.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::NoBinding => "no-binding",
            DropReason::FilteredAddress => "filtered-address",
            DropReason::FilteredPort => "filtered-port",
            DropReason::NoHairpin => "no-hairpin",
            DropReason::TableFull => "table-full",
            DropReason::NoFreePort => "no-free-port",
            DropReason::HostQuota => "host-quota",
            DropReason::Fragment => "fragment",
            DropReason::NoExternalAddress => "no-external-address",
            DropReason::NotOurAddress => "not-our-address",
            DropReason::NotASyn => "not-a-syn",
            DropReason::UnknownQuote => "unknown-quote",
            DropReason::UdpBlocked => "udp-blocked",
            DropReason::PortNotAllowed => "port-not-allowed",
            DropReason::Unsolicited => "unsolicited",
            DropReason::NotTranslatable => "not-translatable",
            DropReason::Lost => "lost",
            DropReason::Blocked => "blocked",
            DropReason::Bogon => "bogon",
            DropReason::Portal => "portal",
            DropReason::TooLong => "too-long",
            DropReason::OverRate => "over-rate",
            DropReason::FlowOverRate => "flow-over-rate",
            DropReason::FlowUsedUp => "flow-used-up",
            DropReason::NotTls => "not-tls",
        }
    }

    /// One plain sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            DropReason::NoBinding => "No machine inside has an open mapping on that external port.",
            DropReason::FilteredAddress => {
                "The machine inside has not sent anything to that address from this mapping."
            }
            DropReason::FilteredPort => {
                "The machine inside has not sent anything to exactly that address and port from this mapping."
            }
            DropReason::NoHairpin => {
                "The NAT does not turn packets for its own external address back inside."
            }
            DropReason::TableFull => "The table of conversations is full.",
            DropReason::NoFreePort => "Every external port is taken.",
            DropReason::HostQuota => "The machine inside has as many mappings as it may.",
            DropReason::Fragment => "The NAT does not translate fragments, or had not seen the first one.",
            DropReason::NoExternalAddress => "The NAT has no external address of this IP version.",
            DropReason::NotOurAddress => "The packet came from outside for an address that is not the NAT's.",
            DropReason::NotASyn => "The TCP segment belongs to no known connection and does not start one.",
            DropReason::UnknownQuote => "The ICMP error is about a packet that nobody here sent.",
            DropReason::UdpBlocked => "The firewall lets no UDP through.",
            DropReason::PortNotAllowed => "The firewall does not allow connections to that port.",
            DropReason::Unsolicited => "Nobody inside asked for this packet.",
            DropReason::NotTranslatable => "No address on the other side stands for one of the packet's.",
            DropReason::Lost => "The box lost the packet, as it was told to do with a share of them.",
            DropReason::Blocked => "The firewall blocks this address or service.",
            DropReason::Bogon => "One of the addresses has no business on the internet.",
            DropReason::Portal => "Nobody has accepted the terms of the captive portal yet.",
            DropReason::TooLong => "The UDP packet is longer than the firewall lets pass.",
            DropReason::OverRate => "More UDP came than the firewall allows.",
            DropReason::FlowOverRate => "The conversation sends more than the firewall allows each.",
            DropReason::FlowUsedUp => "The conversation has had all that the firewall allows each.",
            DropReason::NotTls => {
                "The connection does not begin as TLS does, and nothing else is allowed on that port."
            }
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What ended a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ended {
    /// The time of its last conversation, or the lifetime that was asked for, ran out.
    Expired,
    /// It had to make room for another one in a table that was full.
    Evicted,
    /// Whoever had asked for it asked for its end.
    Unmapped,
    /// The box no longer has its external address.
    AddressLost,
}

impl Ended {
    /// A short word for logs; it never changes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ended::Expired => "expired",
            Ended::Evicted => "evicted",
            Ended::Unmapped => "unmapped",
            Ended::AddressLost => "address-lost",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change in a middlebox's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An inside endpoint got an external endpoint (at a firewall both are the same).
    BindingCreated {
        /// When.
        at: Instant,
        /// Protocol.
        proto: Proto,
        /// The endpoint of the host inside.
        inside: SocketAddr,
        /// What the world sees.
        external: SocketAddr,
        /// Where the packet that created it was going. A binding of an endpoint-independent mapping serves other
        /// destinations as well.
        remote: SocketAddr,
    },
    /// A binding ended.
    BindingExpired {
        /// When its time was up, which may be before the packet that made the box notice.
        at: Instant,
        /// Protocol.
        proto: Proto,
        /// As in `BindingCreated`.
        inside: SocketAddr,
        /// As in `BindingCreated`.
        external: SocketAddr,
        /// As in `BindingCreated`.
        remote: SocketAddr,
        /// What ended it.
        why: Ended,
    },
    /// [`Middlebox::clear`] emptied the table.
    Cleared,
}

/// A box in the path of packets.
pub trait Middlebox {
    /// Judges a packet that arrived on `side`, and rewrites it where it passes.
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, now: Instant) -> Verdict;

    /// Forgets everything, as a reboot or a flush does.
    fn clear(&mut self);

    /// Whether changes of the table are reported by [`poll_event`](Self::poll_event). Off at first.
    fn set_events(&mut self, on: bool);

    /// The next change of the table.
    fn poll_event(&mut self) -> Option<Event>;

    /// The next answer that came due; to be drained after [`packet`](Self::packet) and
    /// [`handle_timeout`](Self::handle_timeout).
    fn poll_answer(&mut self) -> Option<LateAnswer> {
        None
    }

    /// When the next conversation may time out or the next answer comes due, and why that matters. No verdict depends on
    /// being called then: a box removes what has expired before it looks at a packet. It makes `BindingExpired` and
    /// late answers come on time.
    fn poll_timeout(&self) -> Option<(Instant, &'static str)>;

    /// Removes what has expired.
    fn handle_timeout(&mut self, now: Instant);
}
