//! IP packets that carry a TCP segment or an ICMP echo, for whoever has an IP stack of his own inside the tunnel.

use bytes::Bytes;
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6FlowLabel,
    Ipv6Header, NetSlice, SlicedPacket, TcpHeader, TcpHeaderSlice, TcpOptionElement, TransportSlice,
};
use std::net::{IpAddr, SocketAddr};
use tcp::{Flags, Options, SackBlocks, Segment, Timestamps};

/// Hops of a packet that we send (the recommended default of RFC 1700, Linux's `net.ipv4.ip_default_ttl`).
const TTL: u8 = 64;

/// Room for TCP options in bytes (RFC 9293 §3.1: a header of fifteen words, five of them fixed).
const MAX_TCP_OPTIONS: usize = 40;

/// What a packet carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A TCP segment.
    Tcp(Segment),
    /// An ICMP echo request or reply.
    Echo {
        /// Whether it is the reply.
        reply: bool,
        /// Identifier.
        id: u16,
        /// Sequence number.
        seq: u16,
        /// Payload.
        data: Bytes,
    },
}

/// A whole IP packet. An echo has the ports 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// Source.
    pub src: SocketAddr,
    /// Destination, of the same IP version.
    pub dst: SocketAddr,
    /// What it carries.
    pub body: Body,
}

impl Packet {
    /// The packet with its checksums; `None` if source and destination are of different IP versions.
    pub fn encode(&self) -> Option<Bytes> {
        let (number, header, payload) = self.transport()?;
        let len = header.len() + payload.len();
        let mut out = Vec::with_capacity(Ipv6Header::LEN + len);
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut ip =
                    Ipv4Header::new(u16::try_from(len).ok()?, TTL, number, src.octets(), dst.octets())
                        .ok()?;
                ip.dont_fragment = true;
                ip.header_checksum = ip.calc_header_checksum();
                out.extend_from_slice(&ip.to_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: u16::try_from(len).ok()?,
                    next_header: number,
                    hop_limit: TTL,
                    source: src.octets(),
                    destination: dst.octets(),
                };
                out.extend_from_slice(&ip.to_bytes());
            }
            _ => return None,
        }
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
        Some(out.into())
    }

    fn transport(&self) -> Option<(IpNumber, Vec<u8>, &Bytes)> {
        Some(match (&self.body, self.src.ip(), self.dst.ip()) {
            (Body::Tcp(segment), src, dst) => {
                let mut tcp = tcp_header(self.src.port(), self.dst.port(), segment);
                tcp.checksum = match (src, dst) {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => {
                        tcp.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &segment.payload).ok()?
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        tcp.calc_checksum_ipv6_raw(src.octets(), dst.octets(), &segment.payload).ok()?
                    }
                    _ => return None,
                };
                (IpNumber::TCP, tcp.to_bytes().to_vec(), &segment.payload)
            }
            (Body::Echo { reply, id, seq, data }, IpAddr::V6(src), IpAddr::V6(dst)) => {
                let echo = IcmpEchoHeader { id: *id, seq: *seq };
                let kind = if *reply { Icmpv6Type::EchoReply(echo) } else { Icmpv6Type::EchoRequest(echo) };
                let header = Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), data).ok()?;
                (IpNumber::IPV6_ICMP, header.to_bytes().to_vec(), data)
            }
            (Body::Echo { reply, id, seq, data }, ..) => {
                let echo = IcmpEchoHeader { id: *id, seq: *seq };
                let kind = if *reply { Icmpv4Type::EchoReply(echo) } else { Icmpv4Type::EchoRequest(echo) };
                (IpNumber::ICMP, Icmpv4Header::with_checksum(kind, data).to_bytes().to_vec(), data)
            }
        })
    }

    /// Reads a packet; `None` for anything else, fragments included. Checksums are not looked at: what comes out of a tunnel is
    /// authenticated.
    pub fn decode(bytes: &Bytes) -> Option<Packet> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let (src, dst) = match sliced.net? {
            NetSlice::Ipv4(ip) => {
                (IpAddr::V4(ip.header().source_addr()), IpAddr::V4(ip.header().destination_addr()))
            }
            NetSlice::Ipv6(ip) => {
                (IpAddr::V6(ip.header().source_addr()), IpAddr::V6(ip.header().destination_addr()))
            }
            NetSlice::Arp(_) => return None,
        };
        let echo = |reply, echo: IcmpEchoHeader, data: &[u8]| {
            (0, 0, Body::Echo { reply, id: echo.id, seq: echo.seq, data: bytes.slice_ref(data) })
        };
        let (src_port, dst_port, body) = match sliced.transport? {
            TransportSlice::Tcp(tcp) => {
                let header = TcpHeaderSlice::from_slice(tcp.slice()).ok()?;
                let segment = tcp_segment(&header, bytes.slice_ref(tcp.payload()));
                (tcp.source_port(), tcp.destination_port(), Body::Tcp(segment))
            }
            TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(header) => echo(false, header, icmp.payload()),
                Icmpv4Type::EchoReply(header) => echo(true, header, icmp.payload()),
                _ => return None,
            },
            TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
                Icmpv6Type::EchoRequest(header) => echo(false, header, icmp.payload()),
                Icmpv6Type::EchoReply(header) => echo(true, header, icmp.payload()),
                _ => return None,
            },
            _ => return None,
        };
        Some(Packet { src: (src, src_port).into(), dst: (dst, dst_port).into(), body })
    }
}

/// A segment as it was read, with these bytes behind its header.
pub fn tcp_segment(tcp: &TcpHeaderSlice<'_>, payload: Bytes) -> Segment {
    Segment {
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        // The control bits stand in the 14th byte of the header (RFC 9293 §3.1).
        flags: Flags::from_bits(tcp.slice()[13]),
        window: tcp.window_size(),
        options: read_options(tcp.options_iterator()),
        payload,
    }
}

/// The header of a segment, without its checksum.
pub fn tcp_header(src_port: u16, dst_port: u16, segment: &Segment) -> TcpHeader {
    let mut tcp = TcpHeader::new(src_port, dst_port, segment.seq, segment.window);
    tcp.acknowledgment_number = segment.ack;
    tcp.syn = segment.flags.syn();
    tcp.ack = segment.flags.ack();
    tcp.fin = segment.flags.fin();
    tcp.rst = segment.flags.rst();
    tcp.psh = segment.flags.contains(Flags::PSH);
    let mut raw = Vec::with_capacity(40);
    segment.options.encode(&mut raw);
    tcp.set_options_raw(&raw).expect("options fit into 40 bytes by construction");
    tcp
}

fn read_options(elements: etherparse::TcpOptionsIterator<'_>) -> Options {
    let mut options = Options::default();
    for element in elements.map_while(Result::ok) {
        match element {
            TcpOptionElement::MaximumSegmentSize(mss) => options.mss = Some(mss),
            TcpOptionElement::WindowScale(shift) => options.window_scale = Some(shift),
            TcpOptionElement::SelectiveAcknowledgementPermitted => options.sack_permitted = true,
            TcpOptionElement::SelectiveAcknowledgement(first, rest) => {
                for block in std::iter::once(first).chain(rest.into_iter().flatten()) {
                    options.sack.push(block.0, block.1);
                }
            }
            TcpOptionElement::Timestamp(value, echo) => options.timestamps = Some(Timestamps { value, echo }),
            TcpOptionElement::Noop => {}
        }
    }
    // Blocks that stood there without padding need not fit in again with it.
    if options.wire_len() > MAX_TCP_OPTIONS {
        options.sack = SackBlocks::default();
    }
    options
}
