//! ICMP errors: what they say, and the packet that they quote.

use super::{Body, IpEcn, Packet, Transport, echo_body, tcp_segment, v6};
use bytes::Bytes;
use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode as TimeExceededV4};
use etherparse::icmpv6::{DestUnreachableCode, TimeExceededCode as TimeExceededV6};
use etherparse::{
    Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type, IpNumber, Ipv4Header,
    Ipv4HeaderSlice, Ipv6Header, Ipv6HeaderSlice, TcpHeader, TcpHeaderSlice, UdpHeader, UdpHeaderSlice,
};
use program::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use tcp::{Flags, Options, Segment};

/// Header of an ICMP message.
pub(super) const HEADER: usize = 8;

/// Longest ICMP error over IPv4 (RFC 1812 §4.3.2.3).
const MAX_V4: usize = 576;
/// Longest ICMPv6 error: the smallest MTU of IPv6 (RFC 4443 §2.4(c)).
const MAX_V6: usize = 1280;

fn kind_to_v4(kind: ErrorKind) -> Icmpv4Type {
    use DestUnreachableHeader as Unreachable;
    Icmpv4Type::DestinationUnreachable(match kind {
        ErrorKind::NetUnreachable => Unreachable::Network,
        ErrorKind::HostUnreachable => Unreachable::Host,
        ErrorKind::PortUnreachable => Unreachable::Port,
        ErrorKind::Prohibited => Unreachable::FilterProhibited,
        ErrorKind::TooBig { mtu } => {
            Unreachable::FragmentationNeeded { next_hop_mtu: mtu.try_into().unwrap_or(u16::MAX) }
        }
        ErrorKind::TimeExceeded => {
            return Icmpv4Type::TimeExceeded(TimeExceededV4::TtlExceededInTransit);
        }
    })
}

fn kind_of_v4(icmp: &Icmpv4Type) -> Option<ErrorKind> {
    use DestUnreachableHeader as Unreachable;
    Some(match icmp {
        Icmpv4Type::DestinationUnreachable(unreachable) => match unreachable {
            Unreachable::Network => ErrorKind::NetUnreachable,
            Unreachable::Host => ErrorKind::HostUnreachable,
            Unreachable::Port => ErrorKind::PortUnreachable,
            // RFC 1812 §5.2.7.1: the older codes for one network or host mean the same to a sender.
            Unreachable::FilterProhibited | Unreachable::NetworkProhibited | Unreachable::HostProhibited => {
                ErrorKind::Prohibited
            }
            Unreachable::FragmentationNeeded { next_hop_mtu } => {
                ErrorKind::TooBig { mtu: u32::from(*next_hop_mtu) }
            }
            _ => return None,
        },
        Icmpv4Type::TimeExceeded(TimeExceededV4::TtlExceededInTransit) => ErrorKind::TimeExceeded,
        _ => return None,
    })
}

fn kind_to_v6(kind: ErrorKind) -> Icmpv6Type {
    Icmpv6Type::DestinationUnreachable(match kind {
        ErrorKind::NetUnreachable => DestUnreachableCode::NoRoute,
        ErrorKind::HostUnreachable => DestUnreachableCode::Address,
        ErrorKind::PortUnreachable => DestUnreachableCode::Port,
        ErrorKind::Prohibited => DestUnreachableCode::Prohibited,
        ErrorKind::TooBig { mtu } => return Icmpv6Type::PacketTooBig { mtu },
        ErrorKind::TimeExceeded => return Icmpv6Type::TimeExceeded(TimeExceededV6::HopLimitExceeded),
    })
}

fn kind_of_v6(icmp: &Icmpv6Type) -> Option<ErrorKind> {
    Some(match icmp {
        Icmpv6Type::DestinationUnreachable(code) => match code {
            DestUnreachableCode::NoRoute => ErrorKind::NetUnreachable,
            DestUnreachableCode::Address => ErrorKind::HostUnreachable,
            DestUnreachableCode::Port => ErrorKind::PortUnreachable,
            DestUnreachableCode::Prohibited => ErrorKind::Prohibited,
            _ => return None,
        },
        Icmpv6Type::PacketTooBig { mtu } => ErrorKind::TooBig { mtu: *mtu },
        Icmpv6Type::TimeExceeded(TimeExceededV6::HopLimitExceeded) => ErrorKind::TimeExceeded,
        _ => return None,
    })
}

/// An ICMP error.
#[derive(Debug, Clone, PartialEq)]
pub struct IcmpError {
    /// What it says.
    pub kind: ErrorKind,
    /// The packet that it is about. Held whole; on the wire an error carries as much of it as its length allows.
    pub quoted: Packet,
    /// Bytes at the end of the quoted packet that are not here, since this error was read from a wire.
    pub cut: usize,
}

impl IcmpError {
    /// How many bytes of the quoted packet stand on the wire.
    pub(super) fn quote_len(&self) -> usize {
        let max =
            if self.quoted.src.is_ipv4() { MAX_V4 - Ipv4Header::MIN_LEN } else { MAX_V6 - Ipv6Header::LEN };
        self.quoted.wire_len().min(max - HEADER)
    }

    /// The message with its checksum, from `src` to `dst`.
    pub(super) fn encode(&self, src: IpAddr, dst: IpAddr) -> Transport {
        let mut quote = Vec::with_capacity(self.quoted.wire_len());
        self.quoted.encode_cut(self.cut, &mut quote);
        quote.truncate(self.quote_len());
        let (number, header) = if src.is_ipv4() {
            let header = Icmpv4Header::with_checksum(kind_to_v4(self.kind), &quote);
            (IpNumber::ICMP, header.to_bytes().to_vec())
        } else {
            let header = Icmpv6Header::with_checksum(
                kind_to_v6(self.kind),
                v6(src).octets(),
                v6(dst).octets(),
                &quote,
            );
            (IpNumber::IPV6_ICMP, header.map(|h| h.to_bytes().to_vec()).unwrap_or_default())
        };
        Transport { number, header, quote }
    }

    pub(super) fn read_v4(icmp: &Icmpv4Slice<'_>, bytes: &Bytes) -> Option<Body> {
        let kind = kind_of_v4(&icmp.icmp_type())?;
        IcmpError::read(kind, &bytes.slice_ref(icmp.payload()))
    }

    pub(super) fn read_v6(icmp: &Icmpv6Slice<'_>, bytes: &Bytes) -> Option<Body> {
        let kind = kind_of_v6(&icmp.icmp_type())?;
        IcmpError::read(kind, &bytes.slice_ref(icmp.payload()))
    }

    fn read(kind: ErrorKind, quote: &Bytes) -> Option<Body> {
        let (quoted, cut) = read_quote(quote)?;
        Some(Body::Error(Box::new(IcmpError { kind, quoted, cut })))
    }
}

/// Reads as much of a packet as an error quotes, and how much of it is missing. RFC 792 guarantees the IP header and eight
/// bytes, which hold the ports and no more of TCP than the sequence number.
fn read_quote(quote: &Bytes) -> Option<(Packet, usize)> {
    let (src, dst, hop, number, header, total) = match quote.first()? >> 4 {
        4 => {
            let ip = Ipv4HeaderSlice::from_slice(quote).ok()?;
            if ip.fragments_offset().value() != 0 {
                return None;
            }
            let (src, dst) = (ip.source_addr().into(), ip.destination_addr().into());
            (
                src,
                dst,
                (ip.ttl(), ip.ecn(), ip.dont_fragment()),
                ip.protocol(),
                ip.slice().len(),
                usize::from(ip.total_len()),
            )
        }
        6 => {
            let ip = Ipv6HeaderSlice::from_slice(quote).ok()?;
            let (src, dst): (IpAddr, IpAddr) = (ip.source_addr().into(), ip.destination_addr().into());
            let total = Ipv6Header::LEN + usize::from(ip.payload_length());
            (src, dst, (ip.hop_limit(), ip.ecn(), true), ip.next_header(), Ipv6Header::LEN, total)
        }
        _ => return None,
    };
    // A quote may be followed by extensions (RFC 4884), which are no part of the packet.
    let end = total.min(quote.len());
    let rest = quote.get(header..end).map(|rest| quote.slice_ref(rest))?;
    let (src_port, dst_port, body) = match number {
        IpNumber::UDP => {
            let udp = UdpHeaderSlice::from_slice(&rest).ok()?;
            (udp.source_port(), udp.destination_port(), Body::Udp(rest.slice(UdpHeader::LEN..)))
        }
        IpNumber::TCP => match TcpHeaderSlice::from_slice(&rest) {
            Ok(tcp) => {
                let segment = tcp_segment(&tcp, rest.slice(tcp.slice().len()..));
                (tcp.source_port(), tcp.destination_port(), Body::Tcp(segment))
            }
            Err(_) => {
                let word = |i: usize| Some(u16::from_be_bytes([*rest.get(i)?, *rest.get(i + 1)?]));
                let segment = Segment {
                    seq: u32::from(word(4)?) << 16 | u32::from(word(6)?),
                    ack: 0,
                    flags: Flags::NONE,
                    window: 0,
                    options: Options::default(),
                    payload: Bytes::new(),
                };
                let ports = (word(0)?, word(2)?);
                // What is missing then begins at the end of a header without options.
                let cut = total.saturating_sub(header + TcpHeader::MIN_LEN);
                return Some((packet(src, dst, hop, ports.0, ports.1, Body::Tcp(segment)), cut));
            }
        },
        IpNumber::ICMP if src.is_ipv4() => {
            let icmp = Icmpv4Slice::from_slice(&rest).ok()?;
            let (reply, echo) = match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(echo) => (false, echo),
                Icmpv4Type::EchoReply(echo) => (true, echo),
                _ => return None,
            };
            echo_body(reply, echo, rest.slice(HEADER..))
        }
        IpNumber::IPV6_ICMP if src.is_ipv6() => {
            let icmp = Icmpv6Slice::from_slice(&rest).ok()?;
            let (reply, echo) = match icmp.icmp_type() {
                Icmpv6Type::EchoRequest(echo) => (false, echo),
                Icmpv6Type::EchoReply(echo) => (true, echo),
                _ => return None,
            };
            echo_body(reply, echo, rest.slice(HEADER..))
        }
        _ => return None,
    };
    Some((packet(src, dst, hop, src_port, dst_port, body), total - end))
}

/// `hop`: time to live, ECN field and DF.
fn packet(
    src: IpAddr,
    dst: IpAddr,
    hop: (u8, IpEcn, bool),
    src_port: u16,
    dst_port: u16,
    body: Body,
) -> Packet {
    let (src, dst) = (SocketAddr::new(src, src_port), SocketAddr::new(dst, dst_port));
    let (ttl, ecn, dont_fragment) = hop;
    Packet { id: 0, src, dst, ttl, ecn, dont_fragment, body }
}
