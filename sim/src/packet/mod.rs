//! The packets of the simulated network: typed, so that a hop costs no parsing; bytes only for captures and the tunnel.

mod error;
mod fragment;
mod middlebox;

pub use error::IcmpError;
pub use fragment::Part;
pub use program::ErrorKind;

use bytes::Bytes;
pub use etherparse::IpEcn;
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, NetSlice, SlicedPacket, TcpHeaderSlice, TransportSlice,
    UdpHeader,
};
use program::wire::{tcp_header, tcp_segment};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tcp::Segment;
use trace::{Payload, Proto};

/// Time to live of a new packet: the value recommended by IANA's "IP option numbers" registry and Linux's default.
pub const DEFAULT_TTL: u8 = 64;

/// One IP packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// Number, unique in a run; stays through translations.
    pub id: u64,
    /// Source; the port of an ICMP message is its identifier, or 0.
    pub src: SocketAddr,
    /// Destination; the port of an ICMP message is its identifier, or 0.
    pub dst: SocketAddr,
    /// Time to live.
    pub ttl: u8,
    /// Explicit congestion notification (RFC 3168 §5).
    pub ecn: IpEcn,
    /// Whether it is to be dropped rather than fragmented where it is too long (RFC 791 §3.1). IPv6 packets are fragmented by
    /// their sender alone (RFC 8200 §5): there it says whether that may.
    pub dont_fragment: bool,
    /// What it carries.
    pub body: Body,
}

/// What an IP packet carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A UDP datagram.
    Udp(Bytes),
    /// A part of a UDP datagram. Boxed: it is rare.
    Fragment(Box<Part>),
    /// A TCP segment.
    Tcp(Segment),
    /// An ICMP echo request or reply (RFC 792).
    Echo {
        /// A reply rather than a request.
        reply: bool,
        /// Sequence number.
        seq: u16,
        /// What is echoed.
        data: Bytes,
    },
    /// An ICMP error about another packet. Boxed: it is rare, and packets are moved a lot.
    Error(Box<IcmpError>),
}

impl Packet {
    /// A UDP datagram.
    pub fn udp(src: SocketAddr, dst: SocketAddr, data: Bytes) -> Packet {
        Packet {
            id: 0,
            src,
            dst,
            ttl: DEFAULT_TTL,
            ecn: IpEcn::NotEct,
            dont_fragment: true,
            body: Body::Udp(data),
        }
    }

    /// A TCP segment.
    pub fn tcp(src: SocketAddr, dst: SocketAddr, segment: Segment) -> Packet {
        Packet {
            id: 0,
            src,
            dst,
            ttl: DEFAULT_TTL,
            ecn: IpEcn::NotEct,
            dont_fragment: true,
            body: Body::Tcp(segment),
        }
    }

    /// An ICMP error about a packet, from `src` to whoever sent that.
    pub fn error(src: IpAddr, kind: ErrorKind, quoted: Packet) -> Packet {
        let dst = SocketAddr::new(quoted.src.ip(), 0);
        let body = Body::Error(Box::new(IcmpError { kind, quoted, cut: 0 }));
        Packet {
            id: 0,
            src: SocketAddr::new(src, 0),
            dst,
            ttl: DEFAULT_TTL,
            ecn: IpEcn::NotEct,
            dont_fragment: true,
            body,
        }
    }

    /// Its transport.
    pub fn proto(&self) -> Proto {
        match self.body {
            Body::Udp(_) | Body::Fragment(_) => Proto::Udp,
            Body::Tcp(_) => Proto::Tcp,
            Body::Echo { .. } | Body::Error(_) => Proto::Icmp,
        }
    }

    /// Length of the IP packet in bytes, headers included.
    pub fn wire_len(&self) -> usize {
        let ip = if self.src.is_ipv4() { Ipv4Header::MIN_LEN } else { Ipv6Header::LEN };
        ip + match &self.body {
            Body::Udp(data) => UdpHeader::LEN + data.len(),
            Body::Fragment(part) => Part::header_len(self.src.is_ipv4()) + usize::from(part.len),
            Body::Tcp(segment) => segment.wire_len(),
            Body::Echo { data, .. } => error::HEADER + data.len(),
            Body::Error(error) => error::HEADER + error.quote_len(),
        }
    }

    /// The bytes a program put into it (for TCP: this segment's; for an error: none).
    pub fn payload(&self) -> &[u8] {
        match &self.body {
            Body::Udp(data) | Body::Echo { data, .. } => data,
            Body::Fragment(part) => part.payload(),
            Body::Tcp(segment) => &segment.payload,
            Body::Error(_) => &[],
        }
    }

    /// What the payload is, told from its first bytes.
    pub fn payload_kind(&self) -> Payload {
        match &self.body {
            Body::Tcp(_) => Payload::Tcp,
            Body::Echo { .. } | Body::Error(_) => Payload::Icmp,
            Body::Fragment(part) => kind_of(&part.data),
            Body::Udp(data) => kind_of(data),
        }
    }

    /// Writes the IP packet with correct lengths and checksums.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_cut(0, out);
    }

    /// Writes the packet, as one whose last `cut` bytes are missing.
    fn encode_cut(&self, cut: usize, out: &mut Vec<u8>) {
        if let Body::Fragment(part) = &self.body {
            return self.encode_part(part, out);
        }
        let transport = self.encode_transport(cut);
        let len = transport.header.len() + self.payload().len() + transport.quote.len() + cut;
        self.encode_ip(transport.number, len, None, out);
        out.extend_from_slice(&transport.header);
        out.extend_from_slice(self.payload());
        out.extend_from_slice(&transport.quote);
    }

    /// Writes a part: its bytes of the whole datagram.
    fn encode_part(&self, part: &Part, out: &mut Vec<u8>) {
        let whole = Packet { body: Body::Udp(part.data.clone()), ..self.clone() };
        let mut datagram = whole.encode_transport(0).header;
        datagram.extend_from_slice(&part.data);
        self.encode_ip(IpNumber::UDP, usize::from(part.len), Some(part), out);
        out.extend_from_slice(datagram.get(part.range()).unwrap_or_default());
    }

    /// Writes the IP header of a packet that carries `len` bytes, and the one of a fragment.
    fn encode_ip(&self, number: IpNumber, len: usize, part: Option<&Part>, out: &mut Vec<u8>) {
        let offset = part.map_or(0, |part| part.offset / 8);
        let offset = IpFragOffset::try_new(offset).unwrap_or_default();
        let more = part.is_some_and(|part| part.more);
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut ip = Ipv4Header {
                    total_len: (Ipv4Header::MIN_LEN + len) as u16,
                    identification: part.map_or(self.ident(), |part| part.ident) as u16,
                    dont_fragment: self.dont_fragment,
                    more_fragments: more,
                    fragment_offset: offset,
                    ecn: self.ecn,
                    time_to_live: self.ttl,
                    protocol: number,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Ipv4Header::default()
                };
                ip.header_checksum = ip.calc_header_checksum();
                out.extend_from_slice(&ip.to_bytes());
            }
            (src, dst) => {
                let mut ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: (len + part.map_or(0, |_| Ipv6FragmentHeader::LEN)) as u16,
                    next_header: part.map_or(number, |_| IpNumber::IPV6_FRAGMENTATION_HEADER),
                    hop_limit: self.ttl,
                    source: v6(src).octets(),
                    destination: v6(dst).octets(),
                };
                ip.set_ecn(self.ecn);
                out.extend_from_slice(&ip.to_bytes());
                if let Some(part) = part {
                    let header = Ipv6FragmentHeader::new(number, offset, more, part.ident);
                    out.extend_from_slice(&header.to_bytes());
                }
            }
        }
    }

    fn encode_transport(&self, cut: usize) -> Transport {
        let (src, dst) = (self.src.ip(), self.dst.ip());
        match &self.body {
            Body::Fragment(part) => {
                Packet { body: Body::Udp(part.data.clone()), ..self.clone() }.encode_transport(cut)
            }
            Body::Udp(data) => {
                let mut udp = UdpHeader {
                    source_port: self.src.port(),
                    destination_port: self.dst.port(),
                    length: (UdpHeader::LEN + data.len() + cut) as u16,
                    checksum: 0,
                };
                udp.checksum = match (src, dst) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => {
                        udp.calc_checksum_ipv4_raw(s.octets(), d.octets(), data)
                    }
                    _ => udp.calc_checksum_ipv6_raw(v6(src).octets(), v6(dst).octets(), data),
                }
                .unwrap_or_default();
                Transport::new(IpNumber::UDP, udp.to_bytes().to_vec())
            }
            Body::Tcp(segment) => {
                let mut tcp = tcp_header(self.src.port(), self.dst.port(), segment);
                tcp.checksum = match (src, dst) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => {
                        tcp.calc_checksum_ipv4_raw(s.octets(), d.octets(), &segment.payload)
                    }
                    _ => tcp.calc_checksum_ipv6_raw(v6(src).octets(), v6(dst).octets(), &segment.payload),
                }
                .unwrap_or_default();
                Transport::new(IpNumber::TCP, tcp.to_bytes().to_vec())
            }
            Body::Echo { reply, seq, data } => {
                let id = if *reply { self.dst.port() } else { self.src.port() };
                let echo = IcmpEchoHeader { id, seq: *seq };
                if src.is_ipv4() {
                    let kind =
                        if *reply { Icmpv4Type::EchoReply(echo) } else { Icmpv4Type::EchoRequest(echo) };
                    let header = Icmpv4Header::with_checksum(kind, data).to_bytes().to_vec();
                    Transport::new(IpNumber::ICMP, header)
                } else {
                    let kind =
                        if *reply { Icmpv6Type::EchoReply(echo) } else { Icmpv6Type::EchoRequest(echo) };
                    let header = Icmpv6Header::with_checksum(kind, v6(src).octets(), v6(dst).octets(), data)
                        .map(|h| h.to_bytes().to_vec())
                        .unwrap_or_default();
                    Transport::new(IpNumber::IPV6_ICMP, header)
                }
            }
            Body::Error(error) => error.encode(src, dst),
        }
    }

    /// Reads an IP packet; `None` for anything that is not a whole UDP, TCP or echo packet, or an ICMP error that quotes
    /// one. Checksums are not looked at.
    pub fn decode(bytes: &Bytes) -> Option<Packet> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let (src, dst, ttl, ecn, dont_fragment) = match sliced.net? {
            NetSlice::Ipv4(ip) => (
                IpAddr::V4(ip.header().source_addr()),
                IpAddr::V4(ip.header().destination_addr()),
                ip.header().ttl(),
                ip.header().ecn(),
                ip.header().dont_fragment(),
            ),
            NetSlice::Ipv6(ip) => (
                IpAddr::V6(ip.header().source_addr()),
                IpAddr::V6(ip.header().destination_addr()),
                ip.header().hop_limit(),
                ip.header().ecn(),
                true,
            ),
            NetSlice::Arp(_) => return None,
        };
        let (src_port, dst_port, body) = match sliced.transport? {
            TransportSlice::Udp(udp) => {
                (udp.source_port(), udp.destination_port(), Body::Udp(bytes.slice_ref(udp.payload())))
            }
            TransportSlice::Tcp(tcp) => {
                let header = TcpHeaderSlice::from_slice(tcp.slice()).ok()?;
                let segment = tcp_segment(&header, bytes.slice_ref(tcp.payload()));
                (tcp.source_port(), tcp.destination_port(), Body::Tcp(segment))
            }
            TransportSlice::Icmpv4(icmp) => {
                let (reply, echo) = match icmp.icmp_type() {
                    Icmpv4Type::EchoRequest(echo) => (false, echo),
                    Icmpv4Type::EchoReply(echo) => (true, echo),
                    _ => return error(src, dst, (ttl, ecn), IcmpError::read_v4(&icmp, bytes)?),
                };
                echo_body(reply, echo, bytes.slice_ref(icmp.payload()))
            }
            TransportSlice::Icmpv6(icmp) => {
                let (reply, echo) = match icmp.icmp_type() {
                    Icmpv6Type::EchoRequest(echo) => (false, echo),
                    Icmpv6Type::EchoReply(echo) => (true, echo),
                    _ => return error(src, dst, (ttl, ecn), IcmpError::read_v6(&icmp, bytes)?),
                };
                echo_body(reply, echo, bytes.slice_ref(icmp.payload()))
            }
            _ => return None,
        };
        let (src, dst) = ((src, src_port).into(), (dst, dst_port).into());
        Some(Packet { id: 0, src, dst, ttl, ecn, dont_fragment, body })
    }
}

/// What a datagram carries, told from its first bytes.
fn kind_of(data: &[u8]) -> Payload {
    match data.first() {
        Some(0 | 1) if stun::message::is_stun(data) => Payload::Stun,
        Some(b'T') if disco::looks_like_disco(data) => Payload::Disco,
        // WireGuard: type, then three zero bytes.
        Some(1..=3) if data.get(1..4) == Some(&[0, 0, 0]) => Payload::Handshake,
        Some(4) if data.get(1..4) == Some(&[0, 0, 0]) => Payload::Tunnel,
        _ => Payload::Other,
    }
}

struct Transport {
    number: IpNumber,
    header: Vec<u8>,
    /// What an ICMP error quotes; elsewhere the payload follows the header.
    quote: Vec<u8>,
}

impl Transport {
    fn new(number: IpNumber, header: Vec<u8>) -> Transport {
        Transport { number, header, quote: Vec::new() }
    }
}

/// An ICMP error as read; `None` if it is about packets of another family.
fn error(src: IpAddr, dst: IpAddr, (ttl, ecn): (u8, IpEcn), body: Body) -> Option<Packet> {
    let same = matches!(&body, Body::Error(error) if error.quoted.src.is_ipv4() == src.is_ipv4());
    same.then(|| Packet {
        id: 0,
        src: (src, 0).into(),
        dst: (dst, 0).into(),
        ttl,
        ecn,
        dont_fragment: true,
        body,
    })
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip),
        IpAddr::V6(ip) => ip,
    }
}

/// An echo's identifier stands where a port would: on the side that asked.
fn echo_body(reply: bool, echo: IcmpEchoHeader, data: Bytes) -> (u16, u16, Body) {
    let (src, dst) = if reply { (0, echo.id) } else { (echo.id, 0) };
    (src, dst, Body::Echo { reply, seq: echo.seq, data })
}
