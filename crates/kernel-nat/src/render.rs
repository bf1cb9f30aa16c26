//! Packets as bytes, and back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, TcpHeader, UdpHeader};
use nat::{Packet, Proto, TcpFlags};

/// What is told apart of a packet: headers, and the headers of the packet that it quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) proto: Proto,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) flags: Option<TcpFlags>,
    pub(crate) quoted: Option<Box<Shape>>,
}

impl Shape {
    pub(crate) fn of(packet: &mut dyn Packet) -> Shape {
        let quoted = packet.quoted().map(|quoted| Box::new(Shape::of(quoted)));
        Shape {
            proto: packet.proto(),
            src: packet.src(),
            dst: packet.dst(),
            flags: packet.tcp_flags(),
            quoted,
        }
    }

    /// Gives `packet` these addresses.
    pub(crate) fn onto(&self, packet: &mut dyn Packet) {
        packet.set_src(self.src);
        packet.set_dst(self.dst);
        if let (Some(quoted), Some(shape)) = (packet.quoted(), &self.quoted) {
            shape.onto(quoted);
        }
    }
}

impl Packet for Shape {
    fn proto(&self) -> Proto {
        self.proto
    }
    fn src(&self) -> SocketAddr {
        self.src
    }
    fn dst(&self) -> SocketAddr {
        self.dst
    }
    fn set_src(&mut self, src: SocketAddr) {
        self.src = src;
    }
    fn set_dst(&mut self, dst: SocketAddr) {
        self.dst = dst;
    }
    fn tcp_flags(&self) -> Option<TcpFlags> {
        self.flags
    }
    fn wire_len(&self) -> usize {
        28
    }
    fn quoted(&mut self) -> Option<&mut dyn Packet> {
        self.quoted.as_deref_mut().map(|quoted| quoted as &mut dyn Packet)
    }
}

/// ICMP types (RFC 792).
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
/// Destination unreachable: port unreachable.
const PORT: u8 = 3;
/// Sequence and acknowledgement number of every segment. The kernel looks at them only to tell resets apart.
const SEQUENCE: u32 = 1;

fn v4(ip: IpAddr) -> io::Result<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{ip} is no IPv4 address")))
        }
    }
}

/// The bytes of a packet, `id` being the identification of its IP header and of the one that it quotes.
pub(crate) fn bytes(shape: &Shape, id: u16) -> io::Result<Vec<u8>> {
    let (src, dst) = (v4(shape.src.ip())?, v4(shape.dst.ip())?);
    let (number, body) = match shape.proto {
        Proto::Udp => {
            let header = UdpHeader::with_ipv4_checksum(
                shape.src.port(),
                shape.dst.port(),
                &Ipv4Header { source: src.octets(), destination: dst.octets(), ..Ipv4Header::default() },
                &[],
            );
            (IpNumber::UDP, header.map_err(io::Error::other)?.to_bytes().to_vec())
        }
        Proto::Tcp => {
            let flags = shape.flags.unwrap_or_default();
            let mut header = TcpHeader::new(shape.src.port(), shape.dst.port(), SEQUENCE, u16::MAX);
            header.acknowledgment_number = if flags.ack { SEQUENCE } else { 0 };
            (header.syn, header.ack, header.fin, header.rst) = (flags.syn, flags.ack, flags.fin, flags.rst);
            let sum = header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &[]);
            header.checksum = sum.map_err(io::Error::other)?;
            (IpNumber::TCP, header.to_bytes().to_vec())
        }
        Proto::Icmp => {
            let mut body = match &shape.quoted {
                Some(quoted) => {
                    let mut body = vec![UNREACHABLE, PORT, 0, 0, 0, 0, 0, 0];
                    body.extend(bytes(quoted, id)?);
                    body
                }
                None => {
                    let request = shape.dst.port() == 0;
                    let number = if request { shape.src.port() } else { shape.dst.port() };
                    let [high, low] = number.to_be_bytes();
                    vec![if request { ECHO } else { ECHO_REPLY }, 0, 0, 0, high, low, 0, 1]
                }
            };
            let sum = checksum(&body);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            (IpNumber::ICMP, body)
        }
    };
    let length = u16::try_from(body.len()).map_err(io::Error::other)?;
    let mut header =
        Ipv4Header::new(length, 64, number, src.octets(), dst.octets()).map_err(io::Error::other)?;
    header.identification = id;
    header.header_checksum = header.calc_header_checksum();
    let mut out = header.to_bytes().to_vec();
    out.extend(body);
    Ok(out)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// A packet that came out, with the identification of its IP header; `None` for what is none of ours.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Shape, u16)> {
    let (header, rest) = Ipv4Header::from_slice(bytes).ok()?;
    let (src, dst) = (IpAddr::from(header.source), IpAddr::from(header.destination));
    let port = |at: usize| Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
    let ends = |from: u16, to: u16| (SocketAddr::new(src, from), SocketAddr::new(dst, to));
    let mut flags = None;
    let mut quoted = None;
    let (proto, (src, dst)) = match header.protocol {
        IpNumber::UDP => (Proto::Udp, ends(port(0)?, port(2)?)),
        IpNumber::TCP => {
            // What an error quotes may end before the flags.
            let bits = rest.get(13).copied().unwrap_or(0);
            let has = |bit: u8| bits & bit != 0;
            flags = Some(TcpFlags { fin: has(1), syn: has(2), rst: has(4), ack: has(16) });
            (Proto::Tcp, ends(port(0)?, port(2)?))
        }
        IpNumber::ICMP => match *rest.first()? {
            ECHO => (Proto::Icmp, ends(port(4)?, 0)),
            ECHO_REPLY => (Proto::Icmp, ends(0, port(4)?)),
            UNREACHABLE => {
                quoted = Some(Box::new(parse(rest.get(8..)?)?.0));
                (Proto::Icmp, ends(0, 0))
            }
            _ => return None,
        },
        _ => return None,
    };
    Some((Shape { proto, src, dst, flags, quoted }, header.identification))
}
