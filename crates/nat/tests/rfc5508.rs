//! The requirements of RFC 5508 (ICMP) that a box without checksums can show, each on a NAT that obeys and, where there is
//! one, on one that does not.

mod common;

use common::{Bench, EXTERNAL, echo, ep, error, preset, udp};
use nat::{Answer, DropReason, Exhausted, NatConfig, Side, Verdict};

const HOST: &str = "192.168.1.2:77";
const SERVER: &str = "203.0.113.1:0";

#[test]
fn rfc5508_req_1_queries_pass_and_their_answers_come_back() {
    for name in ["rfc4787", "symmetric", "one-to-one", "cgn-port-block"] {
        let mut nat = Bench::preset(name);
        let seen = nat.out(echo(HOST, SERVER));
        assert_eq!(nat.back(echo(SERVER, &seen.to_string())), Ok(ep(HOST)), "{name}");
    }
}

#[test]
fn rfc5508_req_1a_identifiers_do_not_depend_on_the_destination() {
    for (name, same) in [("rfc4787", true), ("symmetric", false)] {
        let mut nat = Bench::preset(name);
        assert_eq!(nat.out(echo(HOST, SERVER)) == nat.out(echo(HOST, "203.0.113.2:0")), same, "{name}");
    }
}

#[test]
fn rfc5508_req_2_a_query_is_remembered_for_a_minute() {
    for (name, alive) in [("rfc4787", true), ("gcp-cloud-nat", false), ("pfsense", false)] {
        let mut nat = Bench::preset(name);
        let seen = nat.out(echo(HOST, SERVER));
        nat.wait(59);
        assert_eq!(nat.back(echo(SERVER, &seen.to_string())).is_ok(), alive, "{name}");
    }
}

#[test]
fn rfc5508_req_4_errors_from_outside_go_to_whom_they_concern() {
    let mut nat = Bench::preset("rfc4787");
    let mut sent = udp("192.168.1.2:4000", "203.0.113.1:9");
    nat.pass(Side::Inside, &mut sent);
    let mut about = error("203.0.113.77", EXTERNAL, &sent);
    assert_eq!(nat.pass(Side::Outside, &mut about), Verdict::Forward(Side::Inside));
    assert_eq!(*about.quoted.unwrap(), udp("192.168.1.2:4000", "203.0.113.1:9"), "REQ-4a");
    assert_eq!(about.dst, ep("192.168.1.2:0"), "REQ-4c");
    let nothing = udp("198.51.100.1:9", "203.0.113.1:9");
    assert_eq!(nat.back(error("203.0.113.77", EXTERNAL, &nothing)), Err("unknown-quote"));
}

#[test]
fn rfc5508_req_5_errors_from_inside_name_external_endpoints() {
    for name in ["rfc4787", "one-to-one"] {
        let mut nat = Bench::preset(name);
        let seen = nat.out(udp("192.168.1.2:4000", "203.0.113.1:9"));
        let mut arrived = udp("203.0.113.1:9", &seen.to_string());
        nat.pass(Side::Outside, &mut arrived);
        let mut refused = error("192.168.1.2", "203.0.113.1", &arrived);
        assert_eq!(nat.pass(Side::Inside, &mut refused), Verdict::Forward(Side::Outside), "{name}");
        assert_eq!(refused.src, ep("198.51.100.1:0"), "{name}: REQ-5c");
        assert_eq!(*refused.quoted.unwrap(), udp("203.0.113.1:9", &seen.to_string()), "{name}: REQ-5a");
    }
}

#[test]
fn rfc5508_req_6_errors_about_a_query_neither_refresh_nor_delete() {
    let mut nat = Bench::preset("rfc4787");
    let mut sent = echo(HOST, SERVER);
    nat.pass(Side::Inside, &mut sent);
    nat.wait(59);
    let mut about = error("203.0.113.77", EXTERNAL, &sent);
    assert_eq!(nat.pass(Side::Outside, &mut about), Verdict::Forward(Side::Inside));
    assert_eq!(nat.nat.conversations(), 1);
    nat.wait(1);
    assert_eq!(nat.back(echo(SERVER, &sent.src.to_string())), Err("no-binding"));
}

#[test]
fn rfc5508_req_7_queries_and_errors_are_turned_around() {
    for (name, passes) in [("cgn", true), ("cgn-no-hairpin", false)] {
        let mut nat = Bench::preset(name);
        let b = nat.out(udp("192.168.1.3:5000", "203.0.113.1:9"));
        let mut packet = udp("192.168.1.2:4000", &b.to_string());
        assert_eq!(nat.pass(Side::Inside, &mut packet) == Verdict::Forward(Side::Inside), passes, "{name}");
        if passes {
            let mut refused = error("192.168.1.3", EXTERNAL, &packet);
            assert_eq!(nat.pass(Side::Inside, &mut refused), Verdict::Forward(Side::Inside));
            assert_eq!(refused.dst, ep("192.168.1.2:0"));
        }
    }
}

#[test]
fn rfc5508_req_8_who_finds_no_room_is_told() {
    for (exhausted, told) in [(Exhausted::Icmp, true), (Exhausted::Drop, false)] {
        for (config, reason) in [
            (NatConfig { capacity: 1, exhausted, ..preset("symmetric") }, DropReason::TableFull),
            (NatConfig { host_quota: 1, exhausted, ..preset("symmetric") }, DropReason::HostQuota),
            (
                NatConfig { ports: nat::PortRange::one(5000), exhausted, ..preset("symmetric") },
                DropReason::NoFreePort,
            ),
        ] {
            let mut nat = Bench::new(config);
            nat.out(udp("192.168.1.2:4000", "203.0.113.1:9"));
            let before = udp("192.168.1.2:4000", "203.0.113.2:9");
            let mut packet = before.clone();
            let verdict = nat.pass(Side::Inside, &mut packet);
            let expected =
                if told { Verdict::Reject(reason, Answer::Prohibited) } else { Verdict::Drop(reason) };
            assert_eq!((verdict, packet), (expected, before));
        }
    }
}
