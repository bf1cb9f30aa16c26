//! A packet as NATs and firewalls see it.

use super::{Body, ErrorKind, Packet};
use etherparse::{Ipv4Header, Ipv6Header};
use std::net::SocketAddr;

impl nat::Packet for Packet {
    fn proto(&self) -> nat::Proto {
        match self.body {
            Body::Udp(_) | Body::Fragment(_) => nat::Proto::Udp,
            Body::Tcp(_) => nat::Proto::Tcp,
            Body::Echo { .. } | Body::Error(_) => nat::Proto::Icmp,
        }
    }

    fn src(&self) -> SocketAddr {
        self.src
    }

    fn dst(&self) -> SocketAddr {
        self.dst
    }

    fn set_src(&mut self, src: SocketAddr) {
        if self.src.is_ipv4() != src.is_ipv4() {
            self.change_version(src.is_ipv4());
        }
        self.src = src;
    }

    fn set_dst(&mut self, dst: SocketAddr) {
        self.dst = dst;
    }

    fn tcp_seq(&self) -> Option<u32> {
        match &self.body {
            Body::Tcp(segment) => Some(segment.seq),
            _ => None,
        }
    }

    fn wire_len(&self) -> usize {
        Packet::wire_len(self)
    }

    fn payload(&self) -> &[u8] {
        Packet::payload(self)
    }

    fn tcp_flags(&self) -> Option<nat::TcpFlags> {
        match &self.body {
            Body::Tcp(segment) => {
                let f = segment.flags;
                Some(nat::TcpFlags { syn: f.syn(), ack: f.ack(), fin: f.fin(), rst: f.rst() })
            }
            _ => None,
        }
    }

    fn fragment(&self) -> Option<nat::Fragment> {
        match &self.body {
            Body::Fragment(part) => {
                Some(nat::Fragment { id: part.ident, offset: part.offset, more: part.more })
            }
            _ => None,
        }
    }

    fn quoted(&mut self) -> Option<&mut dyn nat::Packet> {
        match &mut self.body {
            Body::Error(error) => Some(&mut error.quoted),
            _ => None,
        }
    }
}

impl Packet {
    /// What changes with the version of IP beyond the addresses: the MTU of a link is told to the other side as what its own
    /// packets may have (RFC 7915 §4.2 and §5.2).
    fn change_version(&mut self, to_v4: bool) {
        let longer = (Ipv6Header::LEN - Ipv4Header::MIN_LEN) as u32;
        if let Body::Error(error) = &mut self.body
            && let ErrorKind::TooBig { mtu } = &mut error.kind
        {
            *mtu = if to_v4 { mtu.saturating_sub(longer) } else { mtu.saturating_add(longer) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use nat::Packet as _;

    #[test]
    fn the_mtu_in_an_error_is_that_of_the_version_it_is_told_in() {
        let ep = |text: &str| text.parse::<SocketAddr>().expect("an endpoint");
        let sent = Packet::udp(ep("[3001::2]:1"), ep("[64:ff9b::33.0.0.9]:7"), Bytes::new());
        let told = |packet: &Packet| match &packet.body {
            Body::Error(error) => error.kind,
            _ => panic!("an error stays one"),
        };
        let mut error = Packet::error(ep("33.0.0.254:0").ip(), ErrorKind::TooBig { mtu: 1400 }, sent);
        error.set_src(ep("[64:ff9b::33.0.0.254]:0"));
        assert_eq!(told(&error), ErrorKind::TooBig { mtu: 1420 });
        error.set_src(ep("33.0.0.254:0"));
        assert_eq!(told(&error), ErrorKind::TooBig { mtu: 1400 });
        error.set_src(ep("33.0.0.1:0"));
        assert_eq!(told(&error), ErrorKind::TooBig { mtu: 1400 });
    }
}
