//! Deleting entries of the kernel's connection tracking, by netlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

use std::io;
use std::net::{IpAddr, SocketAddr};

use nat::Proto;
use netlink_sys::constants::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const CT_DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 1 | 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
const AF_INET: u8 = 2;
const HEADER: usize = 20;

/// A netlink socket of one namespace.
#[derive(Debug)]
pub(crate) struct Conntrack {
    socket: Socket,
    sequence: u32,
}

impl Conntrack {
    /// In the namespace of this thread.
    pub(crate) fn new() -> io::Result<Conntrack> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        Ok(Conntrack { socket, sequence: 0 })
    }

    /// Forgets every conversation.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.request(&[]).map(|_| ())
    }

    /// Forgets the conversation that a packet from `src` to `dst` began. False if there is none.
    pub(crate) fn delete(&mut self, proto: Proto, src: SocketAddr, dst: SocketAddr) -> io::Result<bool> {
        let ip = |kind: u16, ip: IpAddr| match ip {
            IpAddr::V4(ip) => attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => attribute(kind + 2, &ip.octets()),
        };
        // CTA_IP_V4_SRC, CTA_IP_V4_DST
        let addresses = [ip(1, src.ip()), ip(2, dst.ip())].concat();
        // CTA_PROTO_NUM, then the ports, or ICMP's identifier, type and code.
        let mut ports = attribute(
            1,
            &[match proto {
                Proto::Icmp => 1,
                Proto::Tcp => 6,
                Proto::Udp => 17,
            }],
        );
        if proto == Proto::Icmp {
            let (id, kind) = if dst.port() == 0 { (src.port(), 8) } else { (dst.port(), 0) };
            ports.extend(attribute(4, &id.to_be_bytes()));
            ports.extend(attribute(5, &[kind]));
            ports.extend(attribute(6, &[0]));
        } else {
            ports.extend(attribute(2, &src.port().to_be_bytes()));
            ports.extend(attribute(3, &dst.port().to_be_bytes()));
        }
        // CTA_TUPLE_IP and CTA_TUPLE_PROTO in CTA_TUPLE_ORIG
        let tuple = [attribute(1 | NESTED, &addresses), attribute(2 | NESTED, &ports)].concat();
        self.request(&attribute(1 | NESTED, &tuple))
    }

    /// Whether there was something to delete.
    fn request(&mut self, attributes: &[u8]) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = (HEADER + attributes.len()) as u32;
        let mut message = Vec::with_capacity(length as usize);
        message.extend(length.to_ne_bytes());
        message.extend(CT_DELETE.to_ne_bytes());
        message.extend(REQUEST_ACK.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend([AF_INET, 0, 0, 0]);
        message.extend(attributes);
        self.socket.send(&message, 0)?;
        let mut answer = Vec::with_capacity(4096);
        self.socket.recv(&mut answer, 0)?;
        let Some(code) = answer.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes)
        else {
            return Err(io::Error::other("netlink gave no answer"));
        };
        match -code {
            0 => Ok(true),
            // ENOENT
            2 => Ok(false),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// A netlink attribute, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut out = Vec::with_capacity(length.next_multiple_of(4));
    out.extend((length as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(length.next_multiple_of(4), 0);
    out
}
