//! NAT64, the customer's half of 464XLAT, and NPTv6, against the RFCs that define them.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use common::{Pkt, echo, ep, error, secs, start, tcp, udp};
use nat::v6::{Clat, ClatConfig, Nat64, Nat64Config, Nptv6, Nptv6Config};
use nat::{DropReason, Event, Filtering, Hairpin, Middlebox, NatConfig, Side, Verdict};
use pref64::{BadPrefix, Ipv6Prefix, Pref64};
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

const DROPPED: Verdict = Verdict::Drop(DropReason::NotTranslatable);

fn pref64(text: &str) -> Pref64 {
    text.parse().expect("a prefix for IPv4 addresses")
}

fn prefix(text: &str) -> Ipv6Prefix {
    text.parse().expect("a prefix")
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

/// A NAT64 at 33.0.0.1 and a clock.
struct Bench {
    nat: Nat64,
    now: Instant,
}

impl Bench {
    fn new(config: Nat64Config) -> Bench {
        let external = vec!["33.0.0.1".parse().expect("an address")];
        Bench { nat: Nat64::new(config, external, Pcg64Mcg::seed_from_u64(7)), now: start() }
    }

    fn filtering(filtering: Filtering) -> Bench {
        Bench::new(Nat64Config { nat: NatConfig { filtering, ..NatConfig::RFC }, ..Nat64Config::RFC })
    }

    fn pass(&mut self, side: Side, mut packet: Pkt) -> (Verdict, Pkt) {
        let verdict = self.nat.packet(side, &mut packet, self.now);
        (verdict, packet)
    }

    /// Sends out; gives the packet as the internet sees it.
    fn out(&mut self, packet: Pkt) -> Pkt {
        let (verdict, packet) = self.pass(Side::Inside, packet);
        assert_eq!(verdict, Verdict::Forward(Side::Outside));
        packet
    }
}

const HOST: &str = "[3001::2]:4000";
const FLAPPIE: &str = "[64:ff9b::33.0.0.9]:7";

mod rfc6052 {
    use super::*;

    #[test]
    fn section_2_4_text_representation() {
        let table = [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ];
        for (prefix, whole) in table {
            assert_eq!(pref64(prefix).embed(v4("192.0.2.33")), v6(whole), "{prefix}");
            assert_eq!(pref64(prefix).extract(v6(whole)), Some(v4("192.0.2.33")), "{prefix}");
        }
    }

    #[test]
    fn section_2_2_prefixes_have_six_lengths_and_a_zero_octet() {
        assert_eq!("2001:db8::/52".parse::<Pref64>(), Err(BadPrefix::NotForIpv4(52)));
        let address = v6("2001:db8::100:0:0:0");
        assert_eq!("2001:db8::100:0:0:0/96".parse::<Pref64>(), Err(BadPrefix::ReservedOctet(address)));
        assert_eq!(pref64("2001:db8::/32").extract(v6("2001:db8:c000:221:ff00::")), None);
    }

    #[test]
    fn section_3_1_the_well_known_prefix_is_for_global_addresses_only() {
        for local in ["10.0.0.1", "192.168.1.2", "100.64.0.1", "169.254.0.1", "127.0.0.1", "192.0.2.1"] {
            assert!(!Pref64::WELL_KNOWN.may_carry(v4(local)), "{local}");
            assert!(pref64("2001:db8:64::/96").may_carry(v4(local)), "{local}");
        }
        assert!(Pref64::WELL_KNOWN.may_carry(v4("33.0.0.9")));
        let mut bench = Bench::new(Nat64Config::RFC);
        let packet = udp(HOST, "[64:ff9b::10.0.0.1]:7");
        assert_eq!(bench.pass(Side::Inside, packet.clone()), (DROPPED, packet));
    }

    #[test]
    fn a_prefix_is_read_or_refused_with_a_reason() {
        assert_eq!("2001:db8::/129".parse::<Ipv6Prefix>(), Err(BadPrefix::TooLong(129)));
        assert!(matches!(
            "2001:db8::1/64".parse::<Ipv6Prefix>(),
            Err(BadPrefix::HostBits { length: 64, .. })
        ));
        assert!(matches!("2001:db8::".parse::<Ipv6Prefix>(), Err(BadPrefix::Syntax(_))));
        assert_eq!(prefix("::/0").to_string(), "::/0");
        assert!(prefix("::/0").contains(v6("2001:db8::1")));
    }
}

mod rfc6146 {
    use super::*;

    #[test]
    fn section_3_5_1_a_udp_packet_gets_a_binding_that_serves_every_destination() {
        let mut bench = Bench::new(Nat64Config::RFC);
        let first = bench.out(udp(HOST, FLAPPIE));
        assert_eq!((first.src, first.dst), (ep("33.0.0.1:4000"), ep("33.0.0.9:7")));
        let second = bench.out(udp(HOST, "[64:ff9b::33.0.0.10]:8"));
        assert_eq!((second.src, second.dst), (first.src, ep("33.0.0.10:8")));
    }

    #[test]
    fn section_3_5_1_endpoint_independent_filtering_lets_strangers_in() {
        let mut bench = Bench::new(Nat64Config::RFC);
        bench.out(udp(HOST, FLAPPIE));
        let (verdict, packet) = bench.pass(Side::Outside, udp("33.0.0.77:1", "33.0.0.1:4000"));
        assert_eq!(verdict, Verdict::Forward(Side::Inside));
        assert_eq!((packet.src, packet.dst), (ep("[64:ff9b::33.0.0.77]:1"), ep(HOST)));
    }

    #[test]
    fn section_3_5_1_address_dependent_filtering_lets_in_those_that_were_spoken_to() {
        let mut bench = Bench::filtering(Filtering::AddressDependent);
        bench.out(udp(HOST, FLAPPIE));
        let stranger = udp("33.0.0.77:1", "33.0.0.1:4000");
        let refused = Verdict::Drop(DropReason::FilteredAddress);
        assert_eq!(bench.pass(Side::Outside, stranger.clone()), (refused, stranger));
        let (verdict, _) = bench.pass(Side::Outside, udp("33.0.0.9:99", "33.0.0.1:4000"));
        assert_eq!(verdict, Verdict::Forward(Side::Inside));
    }

    #[test]
    fn section_3_5_packets_that_come_back_with_a_translated_source_are_dropped() {
        let mut bench = Bench::new(Nat64Config::RFC);
        let packet = udp("[64:ff9b::33.0.0.9]:7", "[64:ff9b::33.0.0.10]:8");
        assert_eq!(bench.pass(Side::Inside, packet.clone()), (DROPPED, packet));
    }

    #[test]
    fn section_3_5_3_echo_becomes_echo_by_identifier() {
        let mut bench = Bench::new(Nat64Config::RFC);
        let request = bench.out(echo("[3001::2]:77", "[64:ff9b::33.0.0.9]:0"));
        assert_eq!(request.dst, ep("33.0.0.9:0"));
        let reply = echo("33.0.0.9:0", &request.src.to_string());
        let (verdict, reply) = bench.pass(Side::Outside, reply);
        assert_eq!(verdict, Verdict::Forward(Side::Inside));
        assert_eq!((reply.src, reply.dst), (ep("[64:ff9b::33.0.0.9]:0"), ep("[3001::2]:77")));
    }

    #[test]
    fn section_3_8_hairpinning_both_ends_see_translated_addresses() {
        let mut bench = Bench::new(Nat64Config::RFC);
        let takkie = bench.out(udp(HOST, FLAPPIE)).src;
        let flappie = bench.out(udp("[3001::3]:5000", FLAPPIE)).src;
        let to = format!("[64:ff9b::{}]:{}", flappie.ip(), flappie.port());
        let (verdict, packet) = bench.pass(Side::Inside, udp(HOST, &to));
        assert_eq!(verdict, Verdict::Forward(Side::Inside));
        let from = ep(&format!("[64:ff9b::{}]:{}", takkie.ip(), takkie.port()));
        assert_eq!((packet.src, packet.dst), (from, ep("[3001::3]:5000")));
    }

    #[test]
    fn section_3_8_without_hairpinning_the_packet_stays_as_it_was() {
        let nat = NatConfig { hairpin: Hairpin::Off, ..Nat64Config::RFC.nat };
        let mut bench = Bench::new(Nat64Config { nat, ..Nat64Config::RFC });
        let packet = udp(HOST, "[64:ff9b::33.0.0.1]:9");
        let refused = Verdict::Drop(DropReason::NoHairpin);
        assert_eq!(bench.pass(Side::Inside, packet.clone()), (refused, packet));
    }

    #[test]
    fn section_4_constants() {
        let alive = |wait: u64, packets: &[(Side, Pkt)], probe: &Pkt| {
            let mut bench = Bench::filtering(Filtering::AddressAndPortDependent);
            for (side, packet) in packets {
                bench.pass(*side, packet.clone());
            }
            bench.now += secs(wait);
            matches!(bench.pass(Side::Outside, probe.clone()).0, Verdict::Forward(_))
        };
        let answer = udp("33.0.0.9:7", "33.0.0.1:4000");
        let spoken = [(Side::Inside, udp(HOST, FLAPPIE))];
        assert!(alive(299, &spoken, &answer) && !alive(300, &spoken, &answer), "UDP_DEFAULT, 5 minutes");
        let pong = echo("33.0.0.9:0", "33.0.0.1:77");
        let pinged = [(Side::Inside, echo("[3001::2]:77", "[64:ff9b::33.0.0.9]:0"))];
        assert!(alive(59, &pinged, &pong) && !alive(60, &pinged, &pong), "ICMP_DEFAULT, 60 seconds");
        let data = tcp("33.0.0.9:7", "33.0.0.1:4000", "A");
        let syn = (Side::Inside, tcp(HOST, FLAPPIE, "S"));
        let opening = [syn.clone()];
        assert!(alive(239, &opening, &data) && !alive(240, &opening, &data), "TCP_TRANS, 4 minutes");
        let open = [syn, (Side::Outside, tcp("33.0.0.9:7", "33.0.0.1:4000", "SA"))];
        assert!(alive(7439, &open, &data) && !alive(7440, &open, &data), "TCP_EST, 2 hours 4 minutes");
    }

    #[test]
    fn errors_are_translated_with_what_they_quote() {
        let mut bench = Bench::new(Nat64Config::RFC);
        let sent = bench.out(udp(HOST, FLAPPIE));
        // A router on the way tells that the packet did not get through.
        let (verdict, told) = bench.pass(Side::Outside, error("33.0.0.254", "33.0.0.1", &sent));
        assert_eq!(verdict, Verdict::Forward(Side::Inside));
        assert_eq!((told.src, told.dst), (ep("[64:ff9b::33.0.0.254]:0"), ep("[3001::2]:0")));
        let quoted = told.quoted.expect("what it is about");
        assert_eq!((quoted.src, quoted.dst), (ep(HOST), ep(FLAPPIE)));
        // The host tells that nobody listens.
        let (_, came) = bench.pass(Side::Outside, udp("33.0.0.9:7", "33.0.0.1:4000"));
        let (verdict, told) = bench.pass(Side::Inside, error("[3001::2]", "[64:ff9b::33.0.0.9]", &came));
        assert_eq!(verdict, Verdict::Forward(Side::Outside));
        assert_eq!((told.src, told.dst), (ep("33.0.0.1:0"), ep("33.0.0.9:0")));
        let quoted = told.quoted.expect("what it is about");
        assert_eq!((quoted.src, quoted.dst), (ep("33.0.0.9:7"), ep("33.0.0.1:4000")));
    }

    #[test]
    fn an_error_about_nothing_known_is_dropped_as_it_came() {
        let mut bench = Bench::new(Nat64Config::RFC);
        let packet = error("33.0.0.254", "33.0.0.1", &udp("33.0.0.1:4000", "33.0.0.9:7"));
        let refused = Verdict::Drop(DropReason::UnknownQuote);
        assert_eq!(bench.pass(Side::Outside, packet.clone()), (refused, packet));
    }

    #[test]
    fn ipv6_for_ipv6_passes_as_it_is() {
        let mut bench = Bench::new(Nat64Config::RFC);
        let packet = udp(HOST, "[3000::9]:7");
        assert_eq!(bench.pass(Side::Inside, packet.clone()), (Verdict::Forward(Side::Outside), packet));
        let back = udp("[3000::9]:7", HOST);
        assert_eq!(bench.pass(Side::Outside, back.clone()), (Verdict::Forward(Side::Inside), back));
        assert_eq!(bench.nat.nat().conversations(), 0);
    }

    #[test]
    fn ipv4_has_no_place_inside() {
        let mut bench = Bench::new(Nat64Config::RFC);
        let packet = udp("192.168.1.2:4000", "33.0.0.9:7");
        assert_eq!(bench.pass(Side::Inside, packet.clone()), (DROPPED, packet));
    }

    #[test]
    fn bindings_are_told_of_and_cleared() {
        let mut bench = Bench::new(Nat64Config::RFC);
        bench.nat.set_events(true);
        bench.out(udp(HOST, FLAPPIE));
        let Some(Event::BindingCreated { inside, external, remote, .. }) = bench.nat.poll_event() else {
            panic!("no binding was told of");
        };
        assert_eq!((inside, external, remote), (ep(HOST), ep("33.0.0.1:4000"), ep("33.0.0.9:7")));
        bench.nat.clear();
        let (verdict, _) = bench.pass(Side::Outside, udp("33.0.0.9:7", "33.0.0.1:4000"));
        assert_eq!(verdict, Verdict::Drop(DropReason::NoBinding));
    }
}

mod rfc6877 {
    use super::*;

    fn clat() -> Clat {
        Clat::new(ClatConfig { provider: Pref64::WELL_KNOWN, customer: pref64("3001:0:0:1::/96") })
    }

    fn pass(side: Side, mut packet: Pkt) -> (Verdict, Pkt) {
        let verdict = clat().packet(side, &mut packet, start());
        (verdict, packet)
    }

    #[test]
    fn ipv4_goes_out_as_ipv6_and_back() {
        let (verdict, out) = pass(Side::Inside, udp("192.168.1.2:4000", "33.0.0.9:7"));
        assert_eq!(verdict, Verdict::Forward(Side::Outside));
        let ends = (ep("[3001:0:0:1::192.168.1.2]:4000"), ep("[64:ff9b::33.0.0.9]:7"));
        assert_eq!((out.src, out.dst), ends);
        let (verdict, back) = pass(Side::Outside, udp(&out.dst.to_string(), &out.src.to_string()));
        assert_eq!(verdict, Verdict::Forward(Side::Inside));
        assert_eq!((back.src, back.dst), (ep("33.0.0.9:7"), ep("192.168.1.2:4000")));
    }

    #[test]
    fn the_hosts_own_ipv6_passes_as_it_is() {
        let packet = udp("[3001::2]:4000", "[3000::9]:7");
        assert_eq!(pass(Side::Inside, packet.clone()), (Verdict::Forward(Side::Outside), packet));
        let packet = udp("[3000::9]:7", "[3001::2]:4000");
        assert_eq!(pass(Side::Outside, packet.clone()), (Verdict::Forward(Side::Inside), packet));
    }

    #[test]
    fn nobody_with_ipv6_alone_reaches_an_ipv4_host() {
        let packet = udp("[3000::9]:7", "[3001:0:0:1::192.168.1.2]:4000");
        assert_eq!(pass(Side::Outside, packet.clone()), (DROPPED, packet));
    }

    #[test]
    fn private_destinations_have_no_place_behind_the_well_known_prefix() {
        let packet = udp("192.168.1.2:4000", "10.0.0.1:7");
        assert_eq!(pass(Side::Inside, packet.clone()), (DROPPED, packet));
    }

    #[test]
    fn errors_of_routers_that_have_ipv6_alone_come_from_nobody() {
        let (_, sent) = pass(Side::Inside, udp("192.168.1.2:4000", "33.0.0.9:7"));
        let (verdict, told) = pass(Side::Outside, error("[3000::254]", "[3001:0:0:1::192.168.1.2]", &sent));
        assert_eq!(verdict, Verdict::Forward(Side::Inside));
        assert_eq!((told.src, told.dst), (ep("192.0.0.8:0"), ep("192.168.1.2:0")));
        let quoted = told.quoted.expect("what it is about");
        assert_eq!((quoted.src, quoted.dst), (ep("192.168.1.2:4000"), ep("33.0.0.9:7")));
    }
}

mod rfc6296 {
    use super::*;

    fn config(inside: &str, outside: &str) -> Nptv6Config {
        Nptv6Config::new(prefix(inside), prefix(outside)).expect("a pair")
    }

    fn example() -> Nptv6Config {
        config("fd01:203:405::/48", "2001:db8:1::/48")
    }

    #[test]
    fn section_3_6_the_worked_example() {
        let (inside, outside) = (v6("fd01:203:405:1::1234"), v6("2001:db8:1:d550::1234"));
        assert_eq!(example().to_outside(inside), Some(outside));
        assert_eq!(example().to_inside(outside), Some(inside));
    }

    #[test]
    fn section_3_4_the_subnet_of_all_ones_has_no_counterpart() {
        assert_eq!(example().to_outside(v6("fd01:203:405:ffff::1234")), None);
        assert_eq!(example().to_inside(v6("2001:db8:1:ffff::1234")), None);
    }

    #[test]
    fn section_3_5_longer_prefixes_balance_in_the_identifier_and_refuse_an_empty_one() {
        let config = config("fd01:203:405:6::/64", "2001:db8:1:2::/64");
        assert_eq!(config.to_outside(v6("fd01:203:405:6::")), None);
        let outside = config.to_outside(v6("fd01:203:405:6:ffff::1")).expect("a counterpart");
        // The first word is all ones and stays; the second takes what balances the sum.
        assert_eq!(outside.segments()[4], 0xffff);
        assert_ne!(outside.segments()[5], 0);
        assert_eq!(config.to_inside(outside), Some(v6("fd01:203:405:6:ffff::1")));
        assert_eq!(config.to_outside(v6("fd01:203:405:6:ffff:ffff:ffff:ffff")), None);
    }

    #[test]
    fn packets_are_swapped_both_ways_and_strangers_pass() {
        let mut npt = Nptv6::new(example());
        let mut pass = |side, mut packet: Pkt| (npt.packet(side, &mut packet, start()), packet);
        let (verdict, out) = pass(Side::Inside, udp("[fd01:203:405:1::1234]:4000", "[3000::9]:7"));
        assert_eq!(verdict, Verdict::Forward(Side::Outside));
        assert_eq!((out.src, out.dst), (ep("[2001:db8:1:d550::1234]:4000"), ep("[3000::9]:7")));
        let (verdict, back) = pass(Side::Outside, udp("[3000::9]:7", &out.src.to_string()));
        assert_eq!(verdict, Verdict::Forward(Side::Inside));
        assert_eq!((back.src, back.dst), (ep("[3000::9]:7"), ep("[fd01:203:405:1::1234]:4000")));
        let packet = udp("192.168.1.2:1", "33.0.0.9:7");
        assert_eq!(pass(Side::Inside, packet.clone()), (Verdict::Forward(Side::Outside), packet));
    }

    #[test]
    fn an_address_without_counterpart_goes_nowhere() {
        let mut npt = Nptv6::new(example());
        let mut packet = udp("[fd01:203:405:ffff::1]:4000", "[3000::9]:7");
        let before = packet.clone();
        assert_eq!(npt.packet(Side::Inside, &mut packet, start()), DROPPED);
        assert_eq!(packet, before);
    }

    #[test]
    fn hairpinning_both_ends_see_the_address_outside() {
        let mut npt = Nptv6::new(example());
        let mut packet = udp("[fd01:203:405:1::1234]:4000", "[2001:db8:1:d550::5678]:5000");
        assert_eq!(npt.packet(Side::Inside, &mut packet, start()), Verdict::Forward(Side::Inside));
        let ends = (ep("[2001:db8:1:d550::1234]:4000"), ep("[fd01:203:405:1::5678]:5000"));
        assert_eq!((packet.src, packet.dst), ends);
    }

    #[test]
    fn errors_are_swapped_with_what_they_quote() {
        let mut npt = Nptv6::new(example());
        let sent = udp("[2001:db8:1:d550::1234]:4000", "[3000::9]:7");
        let mut told = error("[3000::254]", "[2001:db8:1:d550::1234]", &sent);
        assert_eq!(npt.packet(Side::Outside, &mut told, start()), Verdict::Forward(Side::Inside));
        assert_eq!(told.dst, ep("[fd01:203:405:1::1234]:0"));
        assert_eq!(told.quoted.expect("what it is about").src, ep("[fd01:203:405:1::1234]:4000"));
    }

    #[test]
    fn prefixes_that_do_not_fit_are_refused() {
        let new = |inside, outside| Nptv6Config::new(prefix(inside), prefix(outside));
        assert_eq!(new("fd00::/48", "2001:db8::/56"), Err(BadPrefix::Unequal(48, 56)));
        assert_eq!(new("fd00::/80", "2001:db8::/80"), Err(BadPrefix::NotForSwap(80)));
    }
}

/// The one's complement sum of an address, zero in its positive form.
fn sum(address: Ipv6Addr) -> u32 {
    address.segments().into_iter().map(u32::from).sum::<u32>() % 0xffff
}

fn prefixes(lengths: impl Strategy<Value = u8>) -> impl Strategy<Value = (Ipv6Prefix, Ipv6Prefix)> {
    (lengths, any::<u128>(), any::<u128>()).prop_map(|(length, a, b)| {
        let cut = |bits: u128| Ipv6Addr::from_bits(bits & !(u128::MAX >> length));
        (
            Ipv6Prefix::new(cut(a), length).expect("a prefix"),
            Ipv6Prefix::new(cut(b), length).expect("a prefix"),
        )
    })
}

fn pref64s() -> impl Strategy<Value = Pref64> {
    let lengths = prop::sample::select(&Pref64::LENGTHS[..]);
    (lengths, any::<u128>()).prop_map(|(length, bits)| {
        // Without the octet that must be zero.
        let bits = bits & !(u128::MAX >> length) & !(0xff << 56);
        let prefix = Ipv6Prefix::new(Ipv6Addr::from_bits(bits), length).expect("a prefix");
        Pref64::new(prefix).expect("a prefix for IPv4 addresses")
    })
}

proptest! {
    #[test]
    fn what_is_embedded_is_extracted(prefix in pref64s(), address in any::<u32>()) {
        let address = Ipv4Addr::from_bits(address);
        let whole = prefix.embed(address);
        prop_assert!(prefix.prefix().contains(whole));
        prop_assert_eq!(whole.octets()[8], 0);
        prop_assert_eq!(prefix.extract(whole), Some(address));
    }

    #[test]
    fn any_text_is_a_prefix_or_none(text in "[0-9a-f:/. ]{0,24}|\\PC{0,12}") {
        if let Ok(prefix) = text.parse::<Ipv6Prefix>() {
            prop_assert_eq!(prefix.to_string().parse::<Ipv6Prefix>(), Ok(prefix));
        }
        if let Ok(prefix) = text.parse::<Pref64>() {
            prop_assert_eq!(prefix.to_string().parse::<Pref64>(), Ok(prefix));
        }
    }

    /// Swapping prefixes changes no checksum, and the way back leads to the same address.
    #[test]
    fn npt_there_and_back((inside, outside) in prefixes(0..=64_u8), host in any::<u128>(), ones in 0..4_u32) {
        // Identifiers that begin with words of all ones are rare, and where mistakes would be.
        let ones = !(u128::MAX.checked_shr(64 + 16 * ones).unwrap_or(0)) & u128::from(u64::MAX);
        let host = (host | ones) & u128::MAX.checked_shr(inside.length().into()).unwrap_or(0);
        let address = Ipv6Addr::from_bits(inside.address().to_bits() | host);
        let config = Nptv6Config::new(inside, outside).expect("a pair");
        if let Some(mapped) = config.to_outside(address) {
            prop_assert!(outside.contains(mapped));
            prop_assert_eq!(sum(mapped), sum(address));
            prop_assert_eq!(config.to_inside(mapped), Some(address));
        } else {
            let words = address.segments();
            let short = inside.length() <= 48 && words[3] == 0xffff;
            let long = inside.length() > 48 && (words[4..] == [0; 4] || words[4..] == [0xffff; 4]);
            prop_assert!(short || long);
        }
    }

    /// An answer to what went out through a NAT64 reaches who sent it, from where it was sent to; and what a CLAT made of a
    /// packet on its way to that NAT64 is undone.
    #[test]
    fn nat64_there_and_back(
        prefix in pref64s(),
        host in 2..9_u8,
        port in 1024..u16::MAX,
        remote in (1..=223_u8, any::<[u8; 3]>(), 1..u16::MAX),
        proto in 0..3_u8,
        clat in any::<bool>(),
    ) {
        let (a, [b, c, d], remote_port) = remote;
        let remote = SocketAddr::from(([a, b, c, d], remote_port));
        prop_assume!(remote.ip() != IpAddr::from([33, 0, 0, 1]));
        let mut bench = Bench::new(Nat64Config { prefix, ..Nat64Config::RFC });
        let mut customer = Clat::new(ClatConfig { provider: prefix, customer: pref64("3001:0:0:1::/96") });
        let inside = if clat {
            SocketAddr::from(([192, 168, 1, host], port))
        } else {
            SocketAddr::from((Ipv6Addr::new(0x3001, 0, 0, 0, 0, 0, 0, host.into()), port))
        };
        let to = if clat { remote } else { prefix.embed_endpoint(remote) };
        let make = |src: SocketAddr, dst: SocketAddr| {
            let (src, dst) = (src.to_string(), dst.to_string());
            match proto {
                0 => udp(&src, &dst),
                1 => tcp(&src, &dst, "S"),
                _ => echo(&src, &dst),
            }
        };
        let mut packet = make(inside, to);
        if clat {
            prop_assert_eq!(customer.packet(Side::Inside, &mut packet, bench.now), Verdict::Forward(Side::Outside));
        }
        let out = bench.out(packet);
        prop_assert_eq!(out.dst, remote);
        let (verdict, mut back) = bench.pass(Side::Outside, make(remote, out.src));
        prop_assert_eq!(verdict, Verdict::Forward(Side::Inside));
        if clat {
            prop_assert_eq!(customer.packet(Side::Outside, &mut back, bench.now), Verdict::Forward(Side::Inside));
        }
        prop_assert_eq!((back.src, back.dst), (to, inside));
    }
}
