//! Packets as bytes: what is written reads back the same, with right lengths and checksums, and no bytes break the reader.

use bytes::Bytes;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use punchbag::packet::{Body, ErrorKind, IcmpError, IpEcn, Packet};
use std::net::{IpAddr, SocketAddr};
use tcp::{Flags, Options, SackBlocks, Segment, Timestamps};

fn data(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn options() -> impl Strategy<Value = Options> {
    let sack = prop::collection::vec(any::<(u32, u32)>(), 0..=2).prop_map(|blocks| {
        let mut sack = SackBlocks::default();
        for (left, right) in blocks {
            sack.push(left, right);
        }
        sack
    });
    let timestamps =
        prop::option::of(any::<(u32, u32)>().prop_map(|(value, echo)| Timestamps { value, echo }));
    let opening = (prop::option::of(any::<u16>()), prop::option::of(0_u8..15), any::<bool>());
    prop_oneof![
        (sack, timestamps.clone()).prop_map(|(sack, timestamps)| Options {
            sack,
            timestamps,
            ..Options::default()
        }),
        (opening, timestamps).prop_map(|((mss, window_scale, sack_permitted), timestamps)| Options {
            mss,
            window_scale,
            sack_permitted,
            timestamps,
            ..Options::default()
        }),
    ]
}

/// What a packet carries, with its ports.
fn body() -> impl Strategy<Value = (u16, u16, Body)> {
    let segment = (any::<u32>(), any::<u32>(), 0_u8..32, any::<u16>(), options(), data(1500)).prop_map(
        |(seq, ack, flags, window, options, payload)| Segment {
            seq,
            ack,
            flags: Flags::from_bits(flags),
            window,
            options,
            payload,
        },
    );
    prop_oneof![
        (any::<u16>(), any::<u16>(), data(1500)).prop_map(|(src, dst, data)| (src, dst, Body::Udp(data))),
        (any::<u16>(), any::<u16>(), segment).prop_map(|(src, dst, segment)| (src, dst, Body::Tcp(segment))),
        (any::<u16>(), any::<bool>(), any::<u16>(), data(1500)).prop_map(|(id, reply, seq, data)| {
            let (src, dst) = if reply { (0, id) } else { (id, 0) };
            (src, dst, Body::Echo { reply, seq, data })
        }),
    ]
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

fn ecn() -> impl Strategy<Value = IpEcn> {
    prop::sample::select(vec![IpEcn::NotEct, IpEcn::Ect0, IpEcn::Ect1, IpEcn::CongestionExperienced])
}

fn plain() -> impl Strategy<Value = Packet> {
    (addresses(), any::<u8>(), ecn(), any::<bool>(), body()).prop_map(
        |((src, dst), ttl, ecn, df, (src_port, dst_port, body))| Packet {
            id: 0,
            src: SocketAddr::new(src, src_port),
            dst: SocketAddr::new(dst, dst_port),
            ttl,
            ecn,
            // IPv6 has no such bit.
            dont_fragment: df || src.is_ipv6(),
            body,
        },
    )
}

fn kind() -> impl Strategy<Value = ErrorKind> {
    prop_oneof![
        Just(ErrorKind::NetUnreachable),
        Just(ErrorKind::HostUnreachable),
        Just(ErrorKind::PortUnreachable),
        Just(ErrorKind::Prohibited),
        Just(ErrorKind::TimeExceeded),
        (0..=u32::from(u16::MAX)).prop_map(|mtu| ErrorKind::TooBig { mtu }),
    ]
}

fn error() -> impl Strategy<Value = Packet> {
    (kind(), plain(), any::<([u8; 4], [u8; 16])>()).prop_map(|(kind, quoted, (v4, v6))| {
        let from = if quoted.src.is_ipv4() { v4.into() } else { v6.into() };
        Packet::error(from, kind, quoted)
    })
}

fn any_packet() -> impl Strategy<Value = Packet> {
    prop_oneof![3 => plain(), 2 => error()]
}

fn encode(packet: &Packet) -> Bytes {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    bytes.into()
}

/// Checks lengths and checksums of a whole packet with etherparse.
fn verify(bytes: &[u8]) {
    let sliced = SlicedPacket::from_ip(bytes).expect("an IP packet");
    let transport = sliced.transport.expect("a transport");
    match sliced.net.expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), bytes.len());
            match transport {
                TransportSlice::Udp(udp) => assert_eq!(
                    udp.checksum(),
                    udp.to_header().calc_checksum_ipv4(&header, udp.payload()).expect("a short packet")
                ),
                TransportSlice::Tcp(tcp) => assert_eq!(
                    tcp.checksum(),
                    tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).expect("a short packet")
                ),
                TransportSlice::Icmpv4(icmp) => {
                    assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
                }
                other => panic!("{other:?} in IPv4"),
            }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.payload_length) + 40, bytes.len());
            match transport {
                TransportSlice::Udp(udp) => assert_eq!(
                    udp.checksum(),
                    udp.to_header().calc_checksum_ipv6(&header, udp.payload()).expect("a short packet")
                ),
                TransportSlice::Tcp(tcp) => assert_eq!(
                    tcp.checksum(),
                    tcp.to_header().calc_checksum_ipv6(&header, tcp.payload()).expect("a short packet")
                ),
                TransportSlice::Icmpv6(icmp) => {
                    assert!(icmp.is_checksum_valid(header.source, header.destination));
                }
                other => panic!("{other:?} in IPv6"),
            }
        }
        NetSlice::Arp(_) => panic!("ARP"),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_as_long_as_it_says_and_its_checksums_verify(packet in any_packet()) {
        let bytes = encode(&packet);

        prop_assert_eq!(bytes.len(), packet.wire_len());
        verify(&bytes);
    }

    #[test]
    fn what_is_written_reads_back_the_same(packet in plain()) {
        prop_assert_eq!(Packet::decode(&encode(&packet)), Some(packet));
    }

    #[test]
    fn an_error_reads_back_with_as_much_as_it_quotes_and_is_written_the_same_again(packet in error()) {
        let bytes = encode(&packet);

        let read = Packet::decode(&bytes).expect("an error");

        let (Body::Error(sent), Body::Error(got)) = (&packet.body, &read.body) else { panic!("{read:?}") };
        prop_assert_eq!((read.src, read.dst, read.ttl), (packet.src, packet.dst, packet.ttl));
        prop_assert_eq!(got.kind, sent.kind);
        prop_assert_eq!((got.quoted.src, got.quoted.dst), (sent.quoted.src, sent.quoted.dst));
        prop_assert_eq!(got.quoted.wire_len() + got.cut, sent.quoted.wire_len());
        prop_assert!(sent.quoted.payload().starts_with(got.quoted.payload()));
        if got.cut == 0 {
            prop_assert_eq!(&got.quoted, &sent.quoted);
            prop_assert_eq!(encode(&read), bytes);
        } else {
            // All but the quoted transport's checksum, which covers what is cut away.
            prop_assert_eq!(encode(&read).len(), bytes.len());
        }
    }

    #[test]
    fn an_error_is_no_longer_than_its_rfc_allows(packet in error()) {
        // RFC 1812 §4.3.2.3 and RFC 4443 §2.4(c).
        let max = if packet.src.is_ipv4() { 576 } else { 1280 };
        prop_assert!(packet.wire_len() <= max);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(packet) = Packet::decode(&bytes.into()) {
            encode(&packet);
        }
    }

    #[test]
    fn no_damage_to_a_packet_breaks_the_reader(
        packet in any_packet(),
        damage in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..8),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&packet).to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(keep.index(bytes.len() * 4).max(1));
        if let Some(packet) = Packet::decode(&bytes.into()) {
            encode(&packet);
        }
    }
}

#[test]
fn the_least_that_an_error_may_quote_is_understood() {
    // RFC 792: the IP header and eight bytes; here of a TCP segment, with its ports and sequence number.
    let segment = Segment {
        seq: 0x0102_0304,
        ack: 9,
        flags: Flags::ACK,
        window: 1,
        options: Options::default(),
        payload: Bytes::from_static(b"0123456789"),
    };
    let (src, dst) = (SocketAddr::from(([10, 0, 0, 1], 40_000)), SocketAddr::from(([33, 0, 0, 1], 443)));
    let quoted = Packet::tcp(src, dst, segment);
    let whole = encode(&Packet::error(dst.ip(), ErrorKind::HostUnreachable, quoted));
    let mut short = whole[..20 + 8 + 20 + 8].to_vec();
    short[2..4].copy_from_slice(&56_u16.to_be_bytes());

    let read = Packet::decode(&short.into()).expect("an error");

    let Body::Error(error) = read.body else { panic!("{read:?}") };
    let IcmpError { kind, quoted, cut } = *error;
    assert_eq!((kind, quoted.src, quoted.dst), (ErrorKind::HostUnreachable, src, dst));
    assert!(matches!(quoted.body, Body::Tcp(segment) if segment.seq == 0x0102_0304));
    assert_eq!(cut, 10);
}

/// What the parts of a datagram look like on the wire: where each begins in bytes, whether more follow, and its bytes.
fn on_the_wire(part: &Packet) -> (usize, bool, Vec<u8>) {
    let mut bytes = Vec::new();
    part.encode(&mut bytes);
    assert_eq!(bytes.len(), part.wire_len());
    match etherparse::IpSlice::from_slice(&bytes).expect("an IP packet") {
        etherparse::IpSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(u32::from(header.identification()), 77);
            assert!(!header.dont_fragment());
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            let offset = usize::from(header.fragments_offset().value()) * 8;
            (offset, header.more_fragments(), ip.payload().payload.to_vec())
        }
        etherparse::IpSlice::Ipv6(ip) => {
            let payload = ip.header().payload_length();
            assert_eq!(usize::from(payload), bytes.len() - 40);
            let header = ip.extensions().clone().into_iter().find_map(|header| match header {
                etherparse::Ipv6ExtensionSlice::Fragment(fragment) => Some(fragment.to_header()),
                _ => None,
            });
            let header = header.expect("a fragment header");
            assert_eq!(header.identification, 77);
            let offset = usize::from(header.fragment_offset.value()) * 8;
            (offset, header.more_fragments, ip.payload().payload.to_vec())
        }
    }
}

proptest! {
    #[test]
    fn parts_on_the_wire_are_the_bytes_of_the_whole(
        (src, dst) in addresses(),
        len in 0_usize..5000,
        mtu in 100_usize..1600,
    ) {
        let (src, dst) = (SocketAddr::new(src, 4000), SocketAddr::new(dst, 5000));
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let packet = Packet { id: 77, dont_fragment: false, ..Packet::udp(src, dst, data.into()) };
        let mut whole = Vec::new();
        packet.encode(&mut whole);
        let parts = packet.fragments(mtu).expect("it may be fragmented");
        let mut got = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            prop_assert!(part.wire_len() <= mtu);
            let (offset, more, bytes) = on_the_wire(part);
            prop_assert_eq!((offset, more), (got.len(), i + 1 < parts.len()));
            got.extend(bytes);
        }
        let ip = if src.is_ipv4() { 20 } else { 40 };
        prop_assert_eq!(got, &whole[ip..]);
        let whole = Packet { dont_fragment: true, ..packet };
        prop_assert_eq!(whole.fragments(mtu), None);
    }
}
