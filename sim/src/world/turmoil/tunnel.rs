//! How an IP packet travels between two hosts of turmoil: as a datagram, with what stands beside it in front.

use super::super::net::Step;
use crate::packet::{Body, Packet, Part};
use bytes::{Buf, BufMut, Bytes};

const CLIMBED: u8 = 0;
const DESCEND: u8 = 1;
const ARRIVE: u8 = 2;

/// Set where the packet is a part of a longer one, which then follows whole: whoever translates it needs the ports.
const PART: u8 = 0x80;
/// Set where the packet may be fragmented, and is of IPv6, which does not say so itself.
const MAY_FRAGMENT: u8 = 0x40;

/// Writes a packet, where it is and when it is due there, in nanoseconds of the run; `None` for a place that is not between two hosts.
pub(super) fn encode(at_ns: u64, step: &Step) -> Option<Vec<u8>> {
    let (place, node, packet) = match step {
        Step::Climbed(node, packet) => (CLIMBED, node, packet),
        Step::Descend(node, packet) => (DESCEND, node, packet),
        Step::Arrive(node, packet) => (ARRIVE, node, packet),
        Step::Leave(..) | Step::Unresolved(..) => return None,
    };
    let mut out = Vec::with_capacity(64 + packet.wire_len());
    let part = if let Body::Fragment(part) = &packet.body { Some(part) } else { None };
    let mark = if part.is_some() { PART } else { 0 } | if packet.dont_fragment { 0 } else { MAY_FRAGMENT };
    out.put_u8(place | mark);
    out.put_u64(at_ns);
    out.put_u32(*node);
    out.put_u64(packet.id);
    match part {
        None => packet.encode(&mut out),
        Some(part) => {
            out.put_u32(part.ident);
            out.put_u16(part.offset);
            out.put_u16(part.len);
            out.put_u8(u8::from(part.more));
            Packet { body: Body::Udp(part.data.clone()), ..(**packet).clone() }.encode(&mut out);
        }
    }
    Some(out)
}

/// Reads what [`encode`] has written.
pub(super) fn decode(mut bytes: Bytes) -> Option<(u64, Step)> {
    let mark = bytes.try_get_u8().ok()?;
    let at_ns = bytes.try_get_u64().ok()?;
    let node = bytes.try_get_u32().ok()?;
    let id = bytes.try_get_u64().ok()?;
    let part = if mark & PART == 0 {
        None
    } else {
        let ident = bytes.try_get_u32().ok()?;
        let offset = bytes.try_get_u16().ok()?;
        let len = bytes.try_get_u16().ok()?;
        let more = bytes.try_get_u8().ok()? != 0;
        Some(Part { data: Bytes::new(), ident, offset, len, more })
    };
    let mut packet = Packet::decode(&bytes)?;
    packet.id = id;
    packet.dont_fragment = mark & MAY_FRAGMENT == 0;
    if let Some(mut part) = part {
        let Body::Udp(data) = packet.body else { return None };
        part.data = data;
        packet.body = Body::Fragment(Box::new(part));
    }
    let packet = Box::new(packet);
    let step = match mark & !(PART | MAY_FRAGMENT) {
        CLIMBED => Step::Climbed(node, packet),
        DESCEND => Step::Descend(node, packet),
        ARRIVE => Step::Arrive(node, packet),
        _ => return None,
    };
    Some((at_ns, step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ErrorKind;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn through(packet: Packet) -> Packet {
        let step = Step::Arrive(7, Box::new(packet));
        match decode(encode(5, &step).expect("between two hosts").into()).expect("our own") {
            (5, Step::Arrive(7, packet)) => *packet,
            _ => panic!("another place"),
        }
    }

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        let ends = if v6 { ["[3001::1]:1", "[3001::2]:2"] } else { ["10.0.0.1:1", "33.0.0.2:2"] };
        let [a, b] = ends.map(|end| end.parse().expect("an endpoint"));
        (a, b)
    }

    #[test]
    fn packets_come_out_as_they_went_in() {
        for v6 in [false, true] {
            let (a, b) = ends(v6);
            let packet = Packet { id: 9, dont_fragment: false, ..Packet::udp(a, b, vec![1; 3000].into()) };
            assert_eq!(through(packet.clone()), packet);
            for part in packet.fragments(1400).expect("it may") {
                assert_eq!(through(part.clone()), part);
            }
            let error = Packet::error(b.ip(), ErrorKind::TooBig { mtu: 1400 }, packet);
            let Body::Error(read) = through(error).body else { panic!("an error stays one") };
            assert_eq!(
                (read.kind, read.quoted.src, read.quoted.dst),
                (ErrorKind::TooBig { mtu: 1400 }, a, b)
            );
        }
    }

    proptest! {
        #[test]
        fn reads_any_bytes_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes.into());
        }
    }
}
