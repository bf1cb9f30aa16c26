//! The requirements of RFC 4787 (and their TCP and ICMP kin), each on a NAT that obeys and on one that does not.

mod common;

use common::{Bench, EXTERNAL, echo, ep, error, preset, secs, tcp, udp};
use nat::{
    Filtering, Mapping, Middlebox as _, NatConfig, PortAllocation, PortRange, Side, Timeouts, Translation,
    Verdict,
};

const HOST: &str = "192.168.1.2:4000";
const OTHER: &str = "192.168.1.3:4000";
const SERVER: &str = "203.0.113.1:1000";
const SAME_ADDRESS: &str = "203.0.113.1:2000";
const STRANGER: &str = "203.0.113.2:1000";

/// The external endpoints towards one server, another port of it, and another server.
fn three_mappings(nat: &mut Bench) -> [std::net::SocketAddr; 3] {
    [SERVER, SAME_ADDRESS, STRANGER].map(|remote| nat.out(udp(HOST, remote)))
}

#[test]
fn req_1_endpoint_independent_mapping_reuses_the_external_endpoint() {
    for name in ["rfc4787", "full-cone", "restricted-cone", "port-restricted-cone", "cgn", "linux"] {
        let [a, b, c] = three_mappings(&mut Bench::preset(name));
        assert!(a == b && b == c, "{name}: {a} {b} {c}");
    }
    for name in ["symmetric", "symmetric-sequential", "pfsense", "linux-random"] {
        let [a, b, c] = three_mappings(&mut Bench::preset(name));
        assert!(a != b && b != c && a != c, "{name}: {a} {b} {c}");
    }
}

#[test]
fn req_1_address_dependent_mapping_lies_between() {
    let config = NatConfig { mapping: Mapping::AddressDependent, ..NatConfig::RFC };
    let [a, b, c] = three_mappings(&mut Bench::new(config));
    assert_eq!(a, b);
    assert_ne!(b, c);
}

#[test]
fn req_1_of_rfc_5382_holds_for_tcp() {
    for (name, same) in [("rfc4787", true), ("symmetric", false)] {
        let mut nat = Bench::preset(name);
        assert_eq!(nat.out(tcp(HOST, SERVER, "S")) == nat.out(tcp(HOST, STRANGER, "S")), same, "{name}");
    }
}

#[test]
fn req_2_pooling_is_paired() {
    let pool = ["198.51.100.1", "198.51.100.2", "198.51.100.3"].map(|ip| ip.parse().unwrap());
    let rng = <rand_pcg::Pcg64Mcg as rand_pcg::rand_core::SeedableRng>::seed_from_u64(1);
    let mut nat = Bench {
        nat: nat::Translator::new(preset("symmetric").into(), pool.to_vec(), rng),
        now: common::start(),
    };
    let mut used = std::collections::BTreeSet::new();
    for host in 2..20 {
        let addresses: std::collections::BTreeSet<_> = (1..20)
            .map(|server| nat.out(udp(&format!("10.0.0.{host}:9"), &format!("203.0.113.{server}:9"))).ip())
            .collect();
        assert_eq!(addresses.len(), 1);
        used.extend(addresses);
    }
    assert_eq!(used.len(), 3);
}

#[test]
fn req_3_no_port_is_overloaded() {
    let mut nat = Bench::preset("port-restricted-cone");
    let first = nat.out(udp(HOST, SERVER));
    assert_eq!(first, ep(&format!("{EXTERNAL}:4000")));
    // The next free port, as the preserved one is taken.
    assert_eq!(nat.out(udp(OTHER, STRANGER)), ep(&format!("{EXTERNAL}:4001")));
    // Linux does share it, as long as the destinations differ.
    let mut linux = Bench::preset("linux");
    assert_eq!(linux.out(udp(HOST, SERVER)), linux.out(udp(OTHER, STRANGER)));
}

#[test]
fn rfc4787_req_3_overloading_breaks_it_and_the_sender_decides_who_is_meant() {
    let mut nat = Bench::preset("overloading");
    let shared = nat.out(udp(HOST, SERVER));
    assert_eq!(nat.out(udp(OTHER, STRANGER)), shared);
    assert_eq!(nat.reply(SERVER, shared), Ok(ep(HOST)));
    assert_eq!(nat.reply(STRANGER, shared), Ok(ep(OTHER)));
    assert_eq!(nat.reply(SAME_ADDRESS, shared), Err("filtered-port"));
    // Where both wrote to the sender, the newest binding has it, until it ends.
    nat.out(udp(OTHER, SERVER));
    assert_eq!(nat.reply(SERVER, shared), Ok(ep(OTHER)));
    for _ in 0..2 {
        nat.wait(200);
        nat.out(udp(HOST, SERVER));
    }
    assert_eq!(nat.reply(SERVER, shared), Ok(ep(HOST)));
    nat.wait(100);
    assert_eq!(nat.nat.bindings().count(), 1, "each has its own end");
    nat.wait(300);
    assert_eq!(nat.reply(SERVER, shared), Err("no-binding"));
    assert_eq!(nat.out(udp(OTHER, SERVER)), shared);
}

#[test]
fn rfc4787_req_3_an_open_filter_leaves_overloading_nothing_to_decide_by() {
    let config = NatConfig { filtering: Filtering::EndpointIndependent, ..preset("overloading") };
    let mut nat = Bench::new(config);
    let shared = nat.out(udp(HOST, SERVER));
    assert_eq!(nat.out(udp(OTHER, STRANGER)), shared);
    assert_eq!(nat.reply(SERVER, shared), Ok(ep(OTHER)), "the newest");
}

#[test]
fn rfc4787_req_4_parity_is_kept() {
    for (parity, kept) in [(true, true), (false, false)] {
        for allocation in PortAllocation::ALL {
            let config = NatConfig { parity, allocation: *allocation, ..NatConfig::RFC };
            let mut nat = Bench::new(config);
            let same = (0..60_u16).all(|i| {
                // The third of each three collides with the first.
                let inside = format!("192.168.1.{}:{}", 2 + i, 4000 + i % 3);
                nat.out(udp(&inside, SERVER)).port() % 2 == (4000 + i % 3) % 2
            });
            assert_eq!(same, kept, "{allocation}");
        }
    }
    // While there are any: a range of one port has but one parity.
    let mut nat = Bench::new(NatConfig { parity: true, ports: PortRange::one(5001), ..NatConfig::RFC });
    assert_eq!(nat.out(udp(HOST, SERVER)).port(), 5001);
}

#[test]
fn rfc4787_req_5c_the_default_is_five_minutes() {
    for (name, default) in [("rfc4787", true), ("cisco-ios", true), ("azure-nat-gateway", false)] {
        let mut nat = Bench::preset(name);
        let external = nat.out(udp(HOST, SERVER));
        nat.wait(299);
        assert_eq!(nat.reply(SERVER, external).is_ok(), default, "{name}");
    }
}

#[test]
fn rfc4787_req_7_an_outside_host_may_have_an_inside_host_s_address() {
    // The second way that REQ-7 names: what is outside is translated and forwarded whatever its number.
    let mut nat = Bench::preset("rfc4787");
    let external = nat.out(udp(HOST, "192.168.1.3:9"));
    assert_eq!(nat.reply("192.168.1.3:9", external), Ok(ep(HOST)));
    let mut loose = Bench::preset("one-to-one");
    assert_eq!(loose.back(udp("192.168.1.3:9", "198.51.100.1:9")), Err("no-binding"));
    let external = loose.out(udp(HOST, "192.168.1.3:9"));
    assert_eq!(loose.reply("192.168.1.3:9", external), Ok(ep(HOST)));
}

#[test]
fn rfc4787_req_9a_the_source_may_be_internal_against_the_rule() {
    let mut nat = Bench::preset("internal-source");
    let (a, b) = (nat.out(udp(HOST, SERVER)), nat.out(udp("192.168.1.3:5000", SERVER)));
    let mut packet = udp("192.168.1.3:5000", &a.to_string());
    assert_eq!(nat.pass(Side::Inside, &mut packet), Verdict::Drop(nat::DropReason::FilteredAddress));
    let mut packet = udp(HOST, &b.to_string());
    assert_eq!(nat.pass(Side::Inside, &mut packet), Verdict::Forward(Side::Inside), "filters are as ever");
    assert_eq!((packet.src, packet.dst), (ep(HOST), ep("192.168.1.3:5000")));
}

#[test]
fn rfc4787_req_12a_an_icmp_error_may_come_from_anywhere() {
    for name in ["rfc4787", "port-restricted-cone", "symmetric", "one-to-one"] {
        let mut nat = Bench::preset(name);
        let mut sent = udp(HOST, SERVER);
        nat.pass(Side::Inside, &mut sent);
        let mut about = error("192.0.2.99", EXTERNAL, &sent);
        assert_eq!(nat.pass(Side::Outside, &mut about), Verdict::Forward(Side::Inside), "{name}");
    }
}

/// A part of a packet from HOST to SERVER.
fn part(id: u32, offset: u16, more: bool) -> common::Pkt {
    common::Pkt { fragment: Some(nat::Fragment { id, offset, more }), ..udp(HOST, SERVER) }
}

#[test]
fn rfc4787_req_14_fragments_pass_in_any_order() {
    for (fragments, in_order, any_order) in [
        (nat::Fragments::AnyOrder, true, true),
        (nat::Fragments::InOrder, true, false),
        (nat::Fragments::Drop, false, false),
    ] {
        let mut nat = Bench::new(NatConfig { fragments, ..NatConfig::RFC });
        let mut passes = |mut packet| matches!(nat.pass(Side::Inside, &mut packet), Verdict::Forward(_));
        assert_eq!([passes(part(1, 0, true)), passes(part(1, 1480, false))], [in_order; 2], "{fragments}");
        assert_eq!(passes(part(2, 1480, false)), any_order, "{fragments}");
        assert!(passes(udp(HOST, SERVER)), "{fragments}: whole packets always do");
        // The first one is remembered for two seconds.
        nat.pass(Side::Inside, &mut part(3, 0, true));
        nat.wait(2);
        let late = nat.pass(Side::Inside, &mut part(3, 1480, false));
        assert_eq!(matches!(late, Verdict::Forward(_)), any_order, "{fragments}");
    }
}

#[test]
fn rfc4787_req_14a_a_flood_of_fragments_harms_nothing_else() {
    let mut nat = Bench::new(NatConfig { fragments: nat::Fragments::InOrder, ..NatConfig::RFC });
    for id in 0..100_000 {
        nat.pass(Side::Inside, &mut part(id, 1480, true));
        nat.pass(Side::Inside, &mut part(id, 0, true));
    }
    assert_eq!(nat.pass(Side::Inside, &mut part(99_999, 1480, false)), Verdict::Forward(Side::Outside));
    assert_eq!(nat.pass(Side::Inside, &mut part(0, 1480, false)), Verdict::Drop(nat::DropReason::Fragment));
    nat.out(udp(HOST, SERVER));
}

#[test]
fn rfc4787_req_2_one_to_one_gives_each_host_an_address_of_its_own() {
    let pool = ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().unwrap());
    let rng = <rand_pcg::Pcg64Mcg as rand_pcg::rand_core::SeedableRng>::seed_from_u64(1);
    let nat = nat::Translator::new(preset("one-to-one").into(), pool.to_vec(), rng);
    let mut nat = Bench { nat, now: common::start() };
    assert_eq!(nat.out(udp("192.168.1.9:80", SERVER)), ep("198.51.100.1:80"));
    assert_eq!(nat.out(tcp(OTHER, SERVER, "A")), ep("198.51.100.2:4000"));
    assert_eq!(nat.reply(STRANGER, ep("198.51.100.1:7")), Ok(ep("192.168.1.9:7")), "every port is open");
    let verdict = nat.pass(Side::Inside, &mut udp(HOST, SERVER));
    assert_eq!(verdict, Verdict::Drop(nat::DropReason::NoExternalAddress), "who comes too late");
    let mut packet = udp("192.168.1.9:80", "198.51.100.2:22");
    assert_eq!(nat.pass(Side::Inside, &mut packet), Verdict::Forward(Side::Inside));
    assert_eq!((packet.src, packet.dst), (ep("198.51.100.1:80"), ep("192.168.1.3:22")));
    nat.nat.clear();
    nat.wait(1_000_000);
    assert_eq!(nat.out(udp(OTHER, SERVER)), ep("198.51.100.2:4000"), "a reboot changes nothing");
}

#[test]
fn collisions_are_settled_as_configured() {
    let ports = |collision| {
        let mut nat = Bench::new(NatConfig { collision, ..NatConfig::RFC });
        (2..12).map(|host| nat.out(udp(&format!("192.168.1.{host}:4000"), SERVER)).port()).collect::<Vec<_>>()
    };
    assert_eq!(ports(nat::Collision::NextFree), (4000..4010).collect::<Vec<_>>());
    assert_eq!(ports(nat::Collision::Overload), [4000; 10]);
    let random = ports(nat::Collision::Random);
    assert!(random[0] == 4000 && random[1..].iter().all(|port| !(4000..4010).contains(port)), "{random:?}");
}

#[test]
fn a_counter_goes_on_by_its_step_and_by_what_others_do() {
    let config = NatConfig { step: 2, other_traffic: 50, ..preset("symmetric-sequential") };
    let mut nat = Bench::new(config);
    let next = |nat: &mut Bench, i: u32| nat.out(udp(HOST, &format!("203.0.113.{i}:9"))).port();
    let first = next(&mut nat, 1);
    let after = |ports: u32| (1024 + (u32::from(first) - 1024 + ports) % 64_512) as u16;
    assert_eq!(next(&mut nat, 2), after(2));
    nat.wait(10);
    // 500 bindings of others, two ports each, and the one before.
    assert_eq!(next(&mut nat, 3), after(2 + 2 + 1000));
    nat.now += std::time::Duration::from_millis(19);
    assert_eq!(next(&mut nat, 4), after(2 + 2 + 2 + 1000), "none has come in between");
    nat.now += std::time::Duration::from_millis(1);
    assert_eq!(next(&mut nat, 5), after(2 + 2 + 2 + 2 + 1002));
}

#[test]
fn req_3a_a_well_known_port_stays_well_known() {
    let mut nat = Bench::preset("rfc4787");
    assert_eq!(nat.out(udp("192.168.1.2:1023", SERVER)).port(), 1023);
    let collided = nat.out(udp("192.168.1.3:1023", SERVER)).port();
    assert!((1..1023).contains(&collided), "{collided}");
    assert!(nat.out(udp("192.168.1.3:65535", SERVER)).port() == 65535);
    assert!(nat.out(udp("192.168.1.4:65535", SERVER)).port() == 1024);
    assert!(Bench::preset("symmetric").out(udp("192.168.1.2:80", SERVER)).port() >= 1024);
}

#[test]
fn req_5_a_mapping_lives_two_minutes_at_least() {
    for (name, alive) in [("rfc4787", true), ("aws-nat-gateway", true), ("linux", false), ("pfsense", false)]
    {
        let mut nat = Bench::preset(name);
        let external = nat.out(udp(HOST, SERVER));
        nat.wait(120);
        assert_eq!(nat.reply(SERVER, external).is_ok(), alive, "{name}");
    }
}

#[test]
fn req_5_the_timer_ends_exactly() {
    let mut nat = Bench::preset("rfc4787");
    let external = nat.out(udp(HOST, SERVER));
    nat.now += secs(300) - std::time::Duration::from_nanos(1);
    let mut late = udp(SERVER, &external.to_string());
    assert_eq!(nat.pass(Side::Outside, &mut late), Verdict::Forward(Side::Inside));
    let mut nat = Bench::preset("rfc4787");
    let external = nat.out(udp(HOST, SERVER));
    nat.wait(300);
    assert_eq!(nat.reply(SERVER, external), Err("no-binding"));
}

#[test]
fn req_5_of_rfc_5382_transitory_and_established_tcp() {
    for (name, transitory, established) in
        [("rfc4787", 240, 7440), ("linux", 120, 432_000), ("pfsense", 30, 86_400)]
    {
        let mut nat = Bench::preset(name);
        let half_open = nat.out(tcp(HOST, SERVER, "S"));
        nat.wait(transitory);
        assert_eq!(nat.back(tcp(SERVER, &half_open.to_string(), "SA")), Err("no-binding"), "{name}");

        let open = nat.out(tcp(HOST, SERVER, "S"));
        assert_eq!(nat.back(tcp(SERVER, &open.to_string(), "SA")), Ok(ep(HOST)), "{name}");
        assert_eq!(nat.out(tcp(HOST, SERVER, "A")), open);
        nat.wait(established - 1);
        assert_eq!(nat.back(tcp(SERVER, &open.to_string(), "A")), Ok(ep(HOST)), "{name}");
        nat.wait(established);
        assert_eq!(nat.back(tcp(SERVER, &open.to_string(), "A")), Err("no-binding"), "{name}");
    }
}

/// An established connection through a fresh NAT.
fn established() -> (Bench, String) {
    let mut nat = Bench::preset("rfc4787");
    let external = nat.out(tcp(HOST, SERVER, "S")).to_string();
    assert_eq!(nat.back(tcp(SERVER, &external, "SA")), Ok(ep(HOST)));
    nat.out(tcp(HOST, SERVER, "A"));
    (nat, external)
}

#[test]
fn tcp_closes_after_two_fins_and_not_after_one() {
    let (mut nat, external) = established();
    nat.out(tcp(HOST, SERVER, "FA"));
    nat.wait(300);
    assert_eq!(nat.back(tcp(SERVER, &external, "FA")), Ok(ep(HOST)));
    nat.wait(239);
    nat.out(tcp(HOST, SERVER, "A"));
    nat.wait(240);
    assert_eq!(nat.back(tcp(SERVER, &external, "A")), Err("no-binding"));
}

#[test]
fn tcp_closes_after_a_reset_unless_life_goes_on() {
    let (mut nat, external) = established();
    nat.back(tcp(SERVER, &external, "R")).unwrap();
    nat.wait(240);
    assert_eq!(nat.back(tcp(SERVER, &external, "A")), Err("no-binding"));

    let (mut nat, external) = established();
    nat.back(tcp(SERVER, &external, "R")).unwrap();
    nat.out(tcp(HOST, SERVER, "A"));
    nat.wait(241);
    assert_eq!(nat.back(tcp(SERVER, &external, "A")), Ok(ep(HOST)));
}

#[test]
fn tcp_simultaneous_open_passes() {
    // RFC 5382 REQ-2b.
    let mut nat = Bench::preset("port-restricted-cone");
    let external = nat.out(tcp(HOST, SERVER, "S")).to_string();
    assert_eq!(nat.back(tcp(SERVER, &external, "S")), Ok(ep(HOST)));
    nat.out(tcp(HOST, SERVER, "SA"));
    nat.wait(7439);
    assert_eq!(nat.back(tcp(SERVER, &external, "A")), Ok(ep(HOST)));
}

#[test]
fn tcp_in_the_middle_is_picked_up_by_some() {
    let mut nat = Bench::preset("linux");
    nat.out(tcp(HOST, SERVER, "A"));
    let mut strict = Bench::preset("pfsense");
    let verdict = strict.pass(Side::Inside, &mut tcp(HOST, SERVER, "A"));
    assert_eq!(verdict, Verdict::Drop(nat::DropReason::NotASyn));
    let verdict = nat.pass(Side::Inside, &mut tcp(HOST, STRANGER, "R"));
    assert_eq!(verdict, Verdict::Drop(nat::DropReason::NotASyn));
}

#[test]
fn req_6_outbound_packets_refresh() {
    for (refresh_outbound, alive) in [(true, true), (false, false)] {
        let mut nat = Bench::new(NatConfig { refresh_outbound, ..NatConfig::RFC });
        let external = nat.out(udp(HOST, SERVER));
        nat.wait(200);
        nat.out(udp(HOST, SERVER));
        nat.wait(200);
        assert_eq!(nat.reply(SERVER, external).is_ok(), alive);
    }
}

#[test]
fn req_6a_inbound_packets_may_refresh() {
    for (refresh_inbound, alive) in [(true, true), (false, false)] {
        let mut nat = Bench::new(NatConfig { refresh_inbound, ..NatConfig::RFC });
        let external = nat.out(udp(HOST, SERVER));
        nat.wait(200);
        nat.reply(SERVER, external).unwrap();
        nat.wait(200);
        assert_eq!(nat.reply(SERVER, external).is_ok(), alive);
    }
}

#[test]
fn req_8_filtering() {
    let ok = Ok(ep(HOST));
    let cases = [
        ("full-cone", ok, ok),
        ("cgn", ok, ok),
        ("rfc4787", ok, Err("filtered-address")),
        ("restricted-cone", ok, Err("filtered-address")),
        ("port-restricted-cone", Err("filtered-port"), Err("filtered-port")),
        ("symmetric", Err("filtered-port"), Err("filtered-port")),
        ("linux", Err("no-binding"), Err("no-binding")),
    ];
    for (name, same_address, stranger) in cases {
        let mut nat = Bench::preset(name);
        let external = nat.out(udp(HOST, SERVER));
        assert_eq!(nat.reply(SERVER, external), ok, "{name}");
        assert_eq!(nat.reply(SAME_ADDRESS, external), same_address, "{name}");
        assert_eq!(nat.reply(STRANGER, external), stranger, "{name}");
        assert_eq!(nat.reply(SERVER, ep("198.51.100.1:9")), Err("no-binding"), "{name}");
    }
}

#[test]
fn the_filter_forgets_each_remote_endpoint_by_itself() {
    for filtering in [Filtering::AddressDependent, Filtering::AddressAndPortDependent] {
        let mut nat = Bench::new(NatConfig { filtering, ..NatConfig::RFC });
        let external = nat.out(udp(HOST, SERVER));
        nat.wait(200);
        nat.out(udp(HOST, STRANGER));
        nat.wait(200);
        assert!(nat.reply(SERVER, external).unwrap_err().starts_with("filtered"));
        assert_eq!(nat.reply(STRANGER, external), Ok(ep(HOST)));
        assert_eq!(nat.out(udp(HOST, SERVER)), external, "the binding outlives its first conversation");
    }
}

#[test]
fn a_conversation_that_ended_is_not_the_one_used_last() {
    let mut nat = Bench::new(NatConfig { refresh_inbound: false, ..preset("port-restricted-cone") });
    let external = nat.out(udp(HOST, SERVER));
    nat.wait(200);
    nat.out(udp(HOST, STRANGER));
    // Used last, but not refreshed.
    nat.reply(SERVER, external).unwrap();
    nat.wait(100);
    assert_eq!(nat.reply(SERVER, external), Err("filtered-port"));
    assert_eq!(nat.reply(STRANGER, external), Ok(ep(HOST)));
    assert_eq!(nat.out(udp(HOST, SERVER)), external);
    assert_eq!(nat.reply(SERVER, external), Ok(ep(HOST)));
}

#[test]
fn req_9_hairpinning() {
    for (name, hairpins) in [("rfc4787", true), ("cgn", true), ("cgn-no-hairpin", false), ("linux", false)] {
        let mut nat = Bench::preset(name);
        let (a, b) = (nat.out(udp(HOST, SERVER)), nat.out(udp("192.168.1.3:5000", SERVER)));
        // Both send, as the filter asks for it.
        nat.pass(Side::Inside, &mut udp("192.168.1.3:5000", &a.to_string()));
        let mut packet = udp(HOST, &b.to_string());
        let verdict = nat.pass(Side::Inside, &mut packet);
        if hairpins {
            assert_eq!(verdict, Verdict::Forward(Side::Inside), "{name}");
            assert_eq!(packet.dst, ep("192.168.1.3:5000"));
            assert_eq!(packet.src, a, "REQ-9a: the source is the external endpoint");
        } else {
            assert_eq!(verdict, Verdict::Drop(nat::DropReason::NoHairpin), "{name}");
        }
    }
}

#[test]
fn req_9_a_hairpin_is_filtered_like_anything_from_outside() {
    let mut nat = Bench::preset("rfc4787");
    let b = nat.out(udp("192.168.1.3:5000", SERVER));
    let verdict = nat.pass(Side::Inside, &mut udp(HOST, &b.to_string()));
    assert_eq!(verdict, Verdict::Drop(nat::DropReason::FilteredAddress));
}

#[test]
fn req_11_the_same_packets_meet_the_same_fate() {
    // A preserving NAT under collisions is where implementations stray.
    let run = || {
        let mut nat = Bench::preset("rfc4787");
        (2..200).map(|host| nat.out(udp(&format!("10.0.0.{host}:4000"), SERVER))).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn req_12_icmp_errors_come_back_and_end_nothing() {
    for name in ["rfc4787", "symmetric", "linux"] {
        let mut nat = Bench::preset(name);
        let mut sent = udp(HOST, SERVER);
        nat.pass(Side::Inside, &mut sent);
        let mut unreachable = error("203.0.113.77", EXTERNAL, &sent);
        assert_eq!(nat.pass(Side::Outside, &mut unreachable), Verdict::Forward(Side::Inside), "{name}");
        assert_eq!(unreachable.dst, ep("192.168.1.2:0"));
        assert_eq!(*unreachable.quoted.unwrap(), udp(HOST, SERVER));
        assert_eq!(nat.reply(SERVER, sent.src), Ok(ep(HOST)), "{name}");
    }
}

#[test]
fn req_12_an_icmp_error_does_not_refresh() {
    let mut nat = Bench::preset("rfc4787");
    let mut sent = udp(HOST, SERVER);
    nat.pass(Side::Inside, &mut sent);
    nat.wait(200);
    nat.pass(Side::Outside, &mut error("203.0.113.77", EXTERNAL, &sent));
    nat.wait(100);
    assert_eq!(nat.reply(SERVER, sent.src), Err("no-binding"));
}

#[test]
fn an_icmp_error_about_nothing_goes_nowhere() {
    for name in ["rfc4787", "linux"] {
        let mut nat = Bench::preset(name);
        nat.out(udp(HOST, SERVER));
        for quoted in [udp("198.51.100.1:9", SERVER), udp("198.51.100.1:4000", STRANGER)] {
            assert_eq!(nat.back(error("203.0.113.77", EXTERNAL, &quoted)), Err("unknown-quote"), "{name}");
        }
    }
}

#[test]
fn an_icmp_error_from_inside_names_the_external_endpoint() {
    // RFC 5508 REQ-5.
    let mut nat = Bench::preset("rfc4787");
    let external = nat.out(udp(HOST, SERVER));
    let mut arrived = udp(SERVER, &external.to_string());
    nat.pass(Side::Outside, &mut arrived);
    let mut refused = error("192.168.1.2", "203.0.113.1", &arrived);
    assert_eq!(nat.pass(Side::Inside, &mut refused), Verdict::Forward(Side::Outside));
    assert_eq!(refused.src, ep("198.51.100.1:0"));
    assert_eq!(*refused.quoted.unwrap(), udp(SERVER, &external.to_string()));
    let unknown = udp(STRANGER, HOST);
    let verdict = nat.pass(Side::Inside, &mut error("192.168.1.2", "203.0.113.2", &unknown));
    assert_eq!(verdict, Verdict::Drop(nat::DropReason::UnknownQuote));
}

#[test]
fn req_9_an_icmp_error_finds_its_way_through_a_hairpin() {
    let mut nat = Bench::preset("cgn");
    let b = nat.out(udp("192.168.1.3:5000", SERVER));
    let mut packet = udp(HOST, &b.to_string());
    assert_eq!(nat.pass(Side::Inside, &mut packet), Verdict::Forward(Side::Inside));
    let mut refused = error("192.168.1.3", EXTERNAL, &packet);
    assert_eq!(nat.pass(Side::Inside, &mut refused), Verdict::Forward(Side::Inside));
    assert_eq!(refused.dst, ep("192.168.1.2:0"));
    assert_eq!(*refused.quoted.unwrap(), udp(HOST, &b.to_string()));
}

#[test]
fn icmp_echo_is_translated_by_its_identifier() {
    for (name, timeout) in [("rfc4787", 60), ("linux", 30)] {
        let mut nat = Bench::preset(name);
        let one = nat.out(echo("192.168.1.2:77", "203.0.113.1:0"));
        let two = nat.out(echo("192.168.1.3:77", "203.0.113.1:0"));
        assert_ne!(one, two);
        nat.wait(timeout - 1);
        assert_eq!(nat.back(echo("203.0.113.1:0", &two.to_string())), Ok(ep("192.168.1.3:77")), "{name}");
        nat.wait(1);
        assert_eq!(nat.back(echo("203.0.113.1:0", &one.to_string())), Err("no-binding"), "{name}");
    }
}

#[test]
fn allocation_sequential_counts_up_and_skips() {
    let ports = PortRange { low: 2000, high: 2003 };
    let config = NatConfig { ports, allocation: PortAllocation::Sequential, ..preset("symmetric") };
    let mut nat = Bench::new(config);
    let ports: Vec<u16> = (1..5).map(|i| nat.out(udp(HOST, &format!("203.0.113.{i}:9"))).port()).collect();
    for pair in ports.windows(2) {
        assert_eq!(pair[1], if pair[0] == 2003 { 2000 } else { pair[0] + 1 });
    }
    let verdict = nat.pass(Side::Inside, &mut udp(HOST, "203.0.113.5:9"));
    assert_eq!(verdict, Verdict::Drop(nat::DropReason::NoFreePort));
    nat.wait(300);
    nat.out(udp(HOST, "203.0.113.5:9"));
}

#[test]
fn allocation_random_fills_its_range_evenly() {
    let ports = PortRange { low: 3000, high: 3099 };
    let mut counts = [0_u32; 100];
    let mut nat = Bench::new(NatConfig { ports, ..preset("symmetric") });
    for _ in 0..200 {
        for i in 0..50 {
            counts[usize::from(nat.out(udp(HOST, &format!("203.0.113.{i}:9"))).port() - 3000)] += 1;
        }
        nat.nat.clear();
    }
    // 200 rounds, half of the range in each: 100 a port, and a standard deviation of sqrt(200 / 4).
    assert!(counts.iter().all(|count| (65..=135).contains(count)), "{counts:?}");
}

#[test]
fn the_table_has_a_limit_and_frees_it() {
    for name in ["rfc4787", "full-cone", "symmetric", "linux"] {
        let mut config = common::translation(name);
        match &mut config {
            Translation::Axes(config) => config.capacity = 3,
            Translation::Linux(config) => config.capacity = 3,
        }
        let mut nat = Bench::new(config);
        for host in 2..5 {
            nat.out(udp(&format!("192.168.1.{host}:4000"), SERVER));
        }
        let verdict = nat.pass(Side::Inside, &mut udp("192.168.1.9:4000", SERVER));
        assert_eq!(verdict, Verdict::Drop(nat::DropReason::TableFull), "{name}");
        nat.out(udp(HOST, SERVER));
        nat.wait(300);
        nat.out(udp("192.168.1.9:4000", SERVER));
        assert_eq!(nat.nat.conversations(), 1);
    }
}

#[test]
fn a_reboot_forgets() {
    for name in ["rfc4787", "symmetric", "linux"] {
        let mut nat = Bench::preset(name);
        let external = nat.out(udp(HOST, SERVER));
        nat.nat.clear();
        assert_eq!(nat.reply(SERVER, external), Err("no-binding"), "{name}");
        assert_eq!(nat.nat.bindings().count(), 0);
        let again = nat.out(udp(HOST, SERVER));
        assert_eq!(again == external, name != "symmetric", "{name}");
    }
}

#[test]
fn packets_for_somebody_else_are_not_ours() {
    let mut nat = Bench::preset("full-cone");
    nat.out(udp(HOST, SERVER));
    assert_eq!(nat.back(udp(SERVER, HOST)), Err("not-our-address"));
    let verdict = nat.pass(Side::Inside, &mut udp("[fd00::2]:4000", "[2001:db8::1]:9"));
    assert_eq!(verdict, Verdict::Drop(nat::DropReason::NoExternalAddress));
}

#[test]
fn ipv6_is_translated_the_same_way() {
    let external = vec![EXTERNAL.parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let rng = <rand_pcg::Pcg64Mcg as rand_pcg::rand_core::SeedableRng>::seed_from_u64(1);
    let mut nat =
        Bench { nat: nat::Translator::new(NatConfig::RFC.into(), external, rng), now: common::start() };
    let seen = nat.out(udp("[fd00::2]:4000", "[2001:db8:1::9]:9"));
    assert_eq!(seen, ep("[2001:db8::1]:4000"));
    assert_eq!(nat.reply("[2001:db8:1::9]:9", seen), Ok(ep("[fd00::2]:4000")));
    assert_eq!(nat.out(udp(HOST, SERVER)), ep("198.51.100.1:4000"));
}

#[test]
fn events_tell_the_table() {
    let mut nat = Bench::new(NatConfig { timeouts: Timeouts::idle(secs(10)), ..NatConfig::RFC });
    nat.nat.set_events(true);
    let begin = nat.now;
    let external = nat.out(udp(HOST, SERVER));
    nat.wait(5);
    nat.out(udp(HOST, STRANGER));
    let (proto, inside, remote) = (nat::Proto::Udp, ep(HOST), ep(SERVER));
    let created = nat::Event::BindingCreated { at: begin, proto, inside, external, remote };
    assert_eq!(nat.nat.poll_event(), Some(created));
    assert_eq!(nat.nat.poll_event(), None);
    // Each deadline comes in its turn, and the last one is the end.
    let mut last = begin;
    while let Some((at, _)) = nat.nat.poll_timeout() {
        assert!(at > last);
        last = at;
        nat.nat.handle_timeout(at);
    }
    assert_eq!(last, begin + secs(15));
    let expired =
        nat::Event::BindingExpired { at: last, proto, inside, external, remote, why: nat::Ended::Expired };
    assert_eq!(nat.nat.poll_event(), Some(expired));
    nat.nat.clear();
    assert_eq!(nat.nat.poll_event(), Some(nat::Event::Cleared));
}

#[test]
fn words_and_values_belong_together() {
    for mapping in Mapping::ALL {
        assert_eq!(mapping.as_str().parse(), Ok(*mapping));
    }
    assert_eq!("apdf".parse(), Ok(Filtering::AddressAndPortDependent));
    let error = "symmetric".parse::<Mapping>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`symmetric` is no mapping behaviour: expected one of endpoint-independent, address-dependent, \
         address-and-port-dependent"
    );
    assert_eq!(
        common::translation("linux").to_string(),
        "rule masquerade, input drop, forward drop, udp 30s/120s after 2s, tcp 120s/432000s, icmp 30s"
    );
}

#[test]
fn presets_have_names_and_reasons_of_their_own() {
    let nats: std::collections::BTreeSet<_> = nat::presets::NATS.iter().map(|preset| preset.name).collect();
    assert_eq!(nats.len(), nat::presets::NATS.len());
    let reasons: std::collections::BTreeSet<_> =
        nat::DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(reasons.len(), nat::DropReason::ALL.len());
}
