//! The requirements of RFC 5382 (TCP), each on a NAT that obeys and on one that does not.

mod common;

use common::{Bench, EXTERNAL, ep, error, preset, secs, tcp, udp};
use nat::{
    Answer, Collision, DropReason, Filtering, Hairpin, LateAnswer, Mapping, Middlebox as _, NatConfig, Proto,
    Side, Unsolicited, Verdict,
};

const HOST: &str = "192.168.1.2:4000";
const OTHER: &str = "192.168.1.3:4000";
const SERVER: &str = "203.0.113.1:1000";
const STRANGER: &str = "203.0.113.2:1000";

/// The deadlines of a NAT come to pass until a time, and what it says by itself.
fn answers(nat: &mut Bench, seconds: u64) -> Vec<LateAnswer> {
    let until = nat.now + secs(seconds);
    let mut answers = Vec::new();
    while let Some((at, _)) = nat.nat.poll_timeout().filter(|(at, _)| *at <= until) {
        nat.now = at;
        nat.nat.handle_timeout(at);
        answers.extend(std::iter::from_fn(|| nat.nat.poll_answer()));
    }
    nat.now = until;
    answers
}

#[test]
fn rfc5382_req_1_mapping_is_endpoint_independent() {
    let strays = NatConfig { tcp_mapping: Some(Mapping::AddressAndPortDependent), ..NatConfig::RFC };
    for (config, same) in [(NatConfig::RFC, true), (strays, false)] {
        let mut nat = Bench::new(config);
        assert_eq!(nat.out(tcp(HOST, SERVER, "S")) == nat.out(tcp(HOST, STRANGER, "S")), same);
        assert_eq!(nat.out(udp(HOST, SERVER)), nat.out(udp(HOST, STRANGER)), "UDP is another matter");
    }
}

#[test]
fn rfc5382_req_2a_connections_open_in_three_steps_from_either_side() {
    let mut nat = Bench::preset("full-cone");
    let external = nat.out(tcp(HOST, SERVER, "S")).to_string();
    assert_eq!(nat.back(tcp(SERVER, &external, "SA")), Ok(ep(HOST)));
    nat.out(tcp(HOST, SERVER, "A"));
    // From outside, where the filter permits.
    assert_eq!(nat.back(tcp(STRANGER, &external, "S")), Ok(ep(HOST)));
    assert_eq!(nat.out(tcp(HOST, STRANGER, "SA")).to_string(), external);
    assert_eq!(nat.back(tcp(STRANGER, &external, "A")), Ok(ep(HOST)));
    nat.wait(7439);
    assert_eq!(nat.back(tcp(STRANGER, &external, "A")), Ok(ep(HOST)), "established");
    let mut strict = Bench::preset("port-restricted-cone");
    let external = strict.out(tcp(HOST, SERVER, "S")).to_string();
    assert_eq!(strict.back(tcp(STRANGER, &external, "S")), Err("filtered-port"));
}

#[test]
fn rfc5382_req_2b_both_may_open_at_the_same_time() {
    for (name, refused) in [("port-restricted-cone", false), ("answers-rst", true)] {
        // The other side's SYN comes first, then ours goes out, then theirs comes again.
        let mut nat = Bench::preset(name);
        let external = nat.out(tcp(HOST, SERVER, "S")).to_string();
        let verdict = nat.pass(Side::Outside, &mut tcp(STRANGER, &external, "S"));
        assert_eq!(matches!(verdict, Verdict::Reject(_, Answer::Reset)), refused, "{name}");
        assert_eq!(nat.out(tcp(HOST, STRANGER, "S")).to_string(), external);
        assert_eq!(nat.back(tcp(STRANGER, &external, "S")), Ok(ep(HOST)), "{name}");
        nat.out(tcp(HOST, STRANGER, "SA"));
        nat.wait(7439);
        assert_eq!(nat.back(tcp(STRANGER, &external, "A")), Ok(ep(HOST)), "{name}");
    }
}

#[test]
fn rfc5382_req_3_filtering() {
    for (filtering, passes) in [
        (Filtering::EndpointIndependent, [true, true]),
        (Filtering::AddressDependent, [true, false]),
        (Filtering::AddressAndPortDependent, [false, false]),
    ] {
        let mut nat = Bench::new(NatConfig { filtering, ..NatConfig::RFC });
        let external = nat.out(tcp(HOST, SERVER, "S")).to_string();
        let reached = ["203.0.113.1:2000", STRANGER].map(|from| nat.back(tcp(from, &external, "S")).is_ok());
        assert_eq!(reached, passes);
    }
}

#[test]
fn rfc5382_req_3b_filtering_may_be_independent_of_that_for_udp() {
    let config = NatConfig { tcp_filtering: Some(Filtering::AddressAndPortDependent), ..preset("full-cone") };
    let mut nat = Bench::new(config);
    let (over_tcp, over_udp) = (nat.out(tcp(HOST, SERVER, "S")), nat.out(udp(HOST, SERVER)));
    assert_eq!(nat.back(tcp(STRANGER, &over_tcp.to_string(), "S")), Err("filtered-port"));
    assert_eq!(nat.reply(STRANGER, over_udp), Ok(ep(HOST)));
}

#[test]
fn rfc5382_req_4_a_syn_waits_six_seconds_for_its_answer() {
    let mut nat = Bench::preset("rfc5382");
    let external = nat.out(tcp(HOST, SERVER, "S"));
    let verdict = nat.pass(Side::Outside, &mut tcp(STRANGER, &external.to_string(), "S"));
    assert_eq!(verdict, Verdict::Drop(DropReason::FilteredAddress));
    assert_eq!(answers(&mut nat, 5), []);
    // The same SYN again does not start the time anew.
    nat.pass(Side::Outside, &mut tcp(STRANGER, &external.to_string(), "S"));
    let expected = LateAnswer {
        side: Side::Outside,
        answer: Answer::PortUnreachable,
        proto: Proto::Tcp,
        src: ep(STRANGER),
        dst: external,
    };
    assert_eq!(answers(&mut nat, 1), [expected]);
    assert_eq!(answers(&mut nat, 60), []);
    // Nobody's port is answered too.
    nat.pass(Side::Outside, &mut tcp(STRANGER, "198.51.100.1:9", "S"));
    assert_eq!(answers(&mut nat, 6).len(), 1);

    let mut hasty = Bench::preset("answers-rst");
    let verdict = hasty.pass(Side::Outside, &mut tcp(STRANGER, "198.51.100.1:9", "S"));
    assert_eq!(verdict, Verdict::Reject(DropReason::NoBinding, Answer::Reset));
    let mut deaf = Bench::preset("port-restricted-cone");
    deaf.pass(Side::Outside, &mut tcp(STRANGER, "198.51.100.1:9", "S"));
    assert_eq!(answers(&mut deaf, 60), [], "REQ-4a: a policy may be to say nothing");
}

#[test]
fn rfc5382_req_4_a_syn_is_forgotten_when_its_counterpart_leaves() {
    let mut nat = Bench::preset("rfc5382");
    let external = nat.out(tcp(HOST, SERVER, "S"));
    nat.pass(Side::Outside, &mut tcp(STRANGER, &external.to_string(), "S"));
    nat.wait(5);
    nat.out(tcp(HOST, STRANGER, "S"));
    assert_eq!(answers(&mut nat, 60), []);
    // Only the counterpart counts: the same remote, another port of ours.
    nat.pass(Side::Outside, &mut tcp("203.0.113.9:9", &external.to_string(), "S"));
    nat.out(tcp("192.168.1.2:4001", "203.0.113.9:9", "S"));
    assert_eq!(answers(&mut nat, 60).len(), 1);
    // And it has to be a SYN.
    nat.pass(Side::Outside, &mut tcp("203.0.113.8:9", &external.to_string(), "S"));
    nat.out(tcp(HOST, "203.0.113.8:9", "A"));
    assert_eq!(answers(&mut nat, 60).len(), 1);
}

#[test]
fn rfc5382_req_4_other_segments_and_a_flood_do_not_wait() {
    let mut nat = Bench::preset("rfc5382");
    for flags in ["SA", "A", "R", "FA"] {
        nat.pass(Side::Outside, &mut tcp(STRANGER, "198.51.100.1:9", flags));
    }
    assert_eq!(answers(&mut nat, 60), []);
    for i in 0..20_000_u32 {
        let from = format!("203.0.{}.{}:{}", i >> 8 & 255, i & 255, 1 + (i >> 16));
        nat.pass(Side::Outside, &mut tcp(&from, "198.51.100.1:9", "S"));
    }
    assert!(answers(&mut nat, 60).len() < 20_000, "memory has a bound");
}

#[test]
fn rfc5382_req_5_idle_times() {
    for (name, established, transitory) in
        [("rfc5382", true, true), ("cisco-ios", true, false), ("gcp-cloud-nat", false, false)]
    {
        let mut nat = Bench::preset(name);
        let half_open = nat.out(tcp(HOST, SERVER, "S")).to_string();
        nat.wait(239);
        assert_eq!(nat.back(tcp(SERVER, &half_open, "SA")).is_ok(), transitory, "{name}: 4 minutes");
        let mut nat = Bench::preset(name);
        let open = nat.out(tcp(HOST, SERVER, "S")).to_string();
        nat.back(tcp(SERVER, &open, "SA")).unwrap();
        nat.out(tcp(HOST, SERVER, "A"));
        nat.wait(7439);
        assert_eq!(nat.back(tcp(SERVER, &open, "A")).is_ok(), established, "{name}: 2 hours 4 minutes");
    }
}

#[test]
fn rfc5382_req_7_no_port_is_overloaded() {
    for (name, shared) in [("rfc5382", false), ("overloading", true)] {
        let mut nat = Bench::preset(name);
        let (a, b) = (nat.out(tcp(HOST, SERVER, "S")), nat.out(tcp(OTHER, STRANGER, "S")));
        assert_eq!(a == b, shared, "{name}");
    }
}

#[test]
fn rfc5382_req_8_hairpinning() {
    for (name, passes) in [("rfc5382", true), ("answers-rst", false)] {
        let mut nat = Bench::preset(name);
        let (a, b) = (nat.out(tcp(HOST, SERVER, "S")), nat.out(tcp("192.168.1.3:5000", SERVER, "S")));
        nat.pass(Side::Inside, &mut tcp("192.168.1.3:5000", &a.to_string(), "S"));
        let mut packet = tcp(HOST, &b.to_string(), "S");
        assert_eq!(nat.pass(Side::Inside, &mut packet) == Verdict::Forward(Side::Inside), passes, "{name}");
        if passes {
            assert_eq!((packet.src, packet.dst), (a, ep("192.168.1.3:5000")), "REQ-8a: external source");
        }
    }
    let mut nat = Bench::new(NatConfig {
        hairpin: Hairpin::InternalSource,
        filtering: Filtering::EndpointIndependent,
        ..NatConfig::RFC
    });
    let b = nat.out(tcp("192.168.1.3:5000", SERVER, "S"));
    let mut packet = tcp(HOST, &b.to_string(), "S");
    assert_eq!(nat.pass(Side::Inside, &mut packet), Verdict::Forward(Side::Inside));
    assert_eq!(packet.src, ep(HOST), "REQ-8a broken: internal source");
}

#[test]
fn rfc5382_req_9_icmp_unreachable_is_translated() {
    for (name, passes) in [("rfc5382", true), ("one-to-one", true)] {
        let mut nat = Bench::preset(name);
        let mut sent = tcp(HOST, SERVER, "S");
        nat.pass(Side::Inside, &mut sent);
        let mut refused = error("203.0.113.77", EXTERNAL, &sent);
        assert_eq!(nat.pass(Side::Outside, &mut refused) == Verdict::Forward(Side::Inside), passes, "{name}");
        assert_eq!(refused.dst, ep("192.168.1.2:0"), "{name}");
        assert_eq!(*refused.quoted.unwrap(), tcp(HOST, SERVER, "S"), "{name}");
    }
}

#[test]
fn rfc5382_req_10_icmp_ends_no_connection() {
    for name in ["rfc5382", "overloading", "symmetric"] {
        let mut nat = Bench::preset(name);
        let mut sent = tcp(HOST, SERVER, "S");
        nat.pass(Side::Inside, &mut sent);
        nat.pass(Side::Outside, &mut error("203.0.113.77", EXTERNAL, &sent));
        assert_eq!(nat.back(tcp(SERVER, &sent.src.to_string(), "SA")), Ok(ep(HOST)), "{name}");
    }
}

#[test]
fn an_answering_nat_spares_what_must_not_be_answered() {
    let config = |unsolicited| NatConfig { unsolicited, ..preset("port-restricted-cone") };
    let nobody = "198.51.100.1:9";
    for (unsolicited, to_syn, to_udp) in [
        (Unsolicited::Drop, None, None),
        (Unsolicited::Icmp, Some(Answer::PortUnreachable), Some(Answer::PortUnreachable)),
        (Unsolicited::Rst, Some(Answer::Reset), Some(Answer::PortUnreachable)),
    ] {
        let mut nat = Bench::new(config(unsolicited));
        let mut answer = |mut packet| match nat.pass(Side::Outside, &mut packet) {
            Verdict::Reject(_, answer) => Some(answer),
            _ => None,
        };
        assert_eq!(answer(tcp(STRANGER, nobody, "S")), to_syn);
        assert_eq!(answer(udp(STRANGER, nobody)), to_udp);
        assert_eq!(answer(tcp(STRANGER, nobody, "R")), None);
        assert_eq!(answer(error("203.0.113.77", EXTERNAL, &udp(nobody, SERVER))), None);
        assert_eq!(answer(udp(STRANGER, "198.51.100.77:9")), None, "not our address");
    }
}

#[test]
fn a_failed_hairpin_is_answered_with_the_addresses_as_they_came() {
    let mut nat = Bench::new(NatConfig {
        unsolicited: Unsolicited::Icmp,
        collision: Collision::Random,
        ..NatConfig::RFC
    });
    let before = udp(HOST, "198.51.100.1:9");
    let mut packet = before.clone();
    let verdict = nat.pass(Side::Inside, &mut packet);
    assert_eq!(verdict, Verdict::Reject(DropReason::NoBinding, Answer::PortUnreachable));
    assert_eq!(packet, before);
}
