//! One test for each recommendation of RFC 6092 that a packet filter can keep, over the preset that keeps them and a
//! firewall that does not. Those about software updates, embedded servers, IPsec, mobility, SCTP, DCCP and Shim6 have no
//! test: nothing here speaks them.

mod common;

use std::time::{Duration, Instant};

use common::{Pkt, error, secs, start, tcp, udp, walled};
use nat::{
    Answer, DropReason, Firewall, FirewallConfig, Inbound, InboundRefusal, Middlebox as _, Side, Timeouts,
    Verdict, presets,
};

const HOST: &str = "[2a00:1::9]:4000";
const PEER: &str = "[2a00:2::1]:7000";
const STRANGER: &str = "[2a00:3::1]:9";

const IN: Side = Side::Outside;
const OUT: Side = Side::Inside;

/// The firewall that keeps the recommendations.
fn good() -> Firewall {
    walled(presets::firewall("rfc6092").expect("a preset").config.clone())
}

/// One that does not: a filter by both ends that forgets soon, and lets any address pass.
fn bad() -> Firewall {
    walled(FirewallConfig { timeouts: Timeouts::idle(secs(30)), ..FirewallConfig::STATEFUL })
}

fn ask(wall: &mut Firewall, side: Side, packet: &Pkt, now: Instant) -> Result<(), DropReason> {
    match wall.packet(side, &mut packet.clone(), now) {
        Verdict::Forward(_) => Ok(()),
        Verdict::Drop(reason) | Verdict::Reject(reason, _) => Err(reason),
    }
}

/// Whether a packet that nobody asked for, but whose addresses are as given, goes out.
fn goes_out(wall: &mut Firewall, src: &str, dst: &str) -> bool {
    ask(wall, OUT, &udp(src, dst), start()).is_ok()
}

#[test]
fn rec_1_no_multicast_sources() {
    let from = "[ff02::1]:5";
    assert!(!goes_out(&mut good(), from, PEER));
    assert_eq!(ask(&mut good(), IN, &udp(from, HOST), start()), Err(DropReason::Bogon));
    assert!(goes_out(&mut bad(), from, PEER));
}

#[test]
fn rec_2_no_groups_of_narrow_scope() {
    for group in ["[ff02::fb]:5353", "[ff05::2]:5", "[ff08::2]:5"] {
        assert!(!goes_out(&mut good(), HOST, group), "{group}");
        assert!(goes_out(&mut bad(), HOST, group), "{group}");
    }
    assert!(goes_out(&mut good(), HOST, "[ff0e::2]:5"), "global scope");
}

#[test]
fn rec_3_no_forbidden_addresses() {
    for forbidden in ["[::ffff:192.0.2.1]:5", "[::1]:5", "[::192.0.2.1]:5", "[fec0::1]:5", "[2001:10::1]:5"] {
        assert!(!goes_out(&mut good(), HOST, forbidden), "{forbidden}");
        assert!(!goes_out(&mut good(), forbidden, PEER), "{forbidden}");
        assert!(goes_out(&mut bad(), HOST, forbidden), "{forbidden}");
    }
}

#[test]
fn rec_7_no_unique_local_addresses() {
    assert!(!goes_out(&mut good(), "[fd00::9]:5", PEER));
    assert_eq!(ask(&mut good(), IN, &udp("[fc00::9]:5", HOST), start()), Err(DropReason::Bogon));
    assert!(goes_out(&mut bad(), "[fd00::9]:5", PEER));
}

#[test]
fn rec_10_errors_about_what_nobody_sent_do_not_pass() {
    let now = start();
    let about = |dst: &str| error("[2a00:9::9]", "[2a00:1::9]", &udp(HOST, dst));
    let mut wall = good();
    ask(&mut wall, OUT, &udp(HOST, PEER), now).unwrap();
    assert_eq!(ask(&mut wall, IN, &about(STRANGER), now), Err(DropReason::UnknownQuote));
    let mut open = walled(FirewallConfig::OPEN);
    assert_eq!(ask(&mut open, IN, &about(STRANGER), now), Ok(()));
}

#[test]
fn rec_14_udp_lives_for_two_minutes_and_by_default_for_five() {
    let alive_after = |mut wall: Firewall, idle: Duration| {
        let now = start();
        ask(&mut wall, OUT, &udp(HOST, PEER), now).unwrap();
        ask(&mut wall, IN, &udp(PEER, HOST), now + idle).is_ok()
    };
    assert!(alive_after(good(), secs(120)));
    assert!(alive_after(good(), secs(300) - Duration::from_nanos(1)));
    assert!(!alive_after(good(), secs(300)));
    assert!(!alive_after(bad(), secs(30)));
}

#[test]
fn rec_16_what_goes_out_refreshes() {
    let alive = |mut wall: Firewall, step: u64| {
        let now = start();
        for i in 0..3 {
            ask(&mut wall, OUT, &udp(HOST, PEER), now + secs(i * step)).unwrap();
        }
        ask(&mut wall, IN, &udp(PEER, HOST), now + secs(3 * step - 1)).is_ok()
    };
    assert!(alive(good(), 200));
    assert!(!alive(bad(), 200), "it has forgotten by then");
}

#[test]
fn rec_17_udp_is_filtered_by_endpoint_alone() {
    let now = start();
    let reached = |config: FirewallConfig, from: &str| {
        let mut wall = walled(config);
        ask(&mut wall, OUT, &udp(HOST, PEER), now).unwrap();
        ask(&mut wall, IN, &udp(from, HOST), now).is_ok()
    };
    let with = |inbound| FirewallConfig { inbound, ..FirewallConfig::STATEFUL };
    let (other_port, config) = ("[2a00:2::1]:9", good().config().clone());
    assert!(reached(config.clone(), STRANGER) && reached(config, other_port));
    // The more stringent filter of the recommendation, and one that is more stringent than it says.
    assert!(reached(with(Inbound::AddressDependent), other_port));
    assert!(!reached(with(Inbound::AddressDependent), STRANGER));
    assert!(!reached(with(Inbound::Stateful), other_port));
    // A port that nobody has opened stays closed to all.
    let mut wall = good();
    ask(&mut wall, OUT, &udp(HOST, PEER), now).unwrap();
    let closed = udp(STRANGER, "[2a00:1::9]:4001");
    assert_eq!(ask(&mut wall, IN, &closed, now), Err(DropReason::Unsolicited));
}

#[test]
fn rec_17_strangers_do_not_keep_an_endpoint_open() {
    let now = start();
    let mut wall = good();
    ask(&mut wall, OUT, &udp(HOST, PEER), now).unwrap();
    for i in 0..10 {
        let from = format!("[2a00:3::{i:x}]:9");
        let passes = ask(&mut wall, IN, &udp(&from, HOST), now + secs(i * 60)).is_ok();
        assert_eq!(passes, i < 5, "after {i} minutes");
    }
}

#[test]
fn rec_18_errors_about_udp_pass() {
    let now = start();
    let about = error("[2a00:9::9]", "[2a00:1::9]", &udp(HOST, PEER));
    let mut wall = good();
    ask(&mut wall, OUT, &udp(HOST, PEER), now).unwrap();
    assert_eq!(ask(&mut wall, IN, &about, now), Ok(()));
    // One that has forgotten the conversation keeps them out.
    let mut forgetful = bad();
    ask(&mut forgetful, OUT, &udp(HOST, PEER), now).unwrap();
    assert_eq!(ask(&mut forgetful, IN, &about, now + secs(60)), Err(DropReason::UnknownQuote));
}

#[test]
fn rec_19_and_37_errors_end_nothing() {
    let now = start();
    for opening in [udp(HOST, PEER), tcp(HOST, PEER, "S")] {
        let mut wall = good();
        ask(&mut wall, OUT, &opening, now).unwrap();
        ask(&mut wall, IN, &error("[2a00:9::9]", "[2a00:1::9]", &opening), now).unwrap();
        let answer = Pkt { src: opening.dst, dst: opening.src, ..opening.clone() };
        assert_eq!(ask(&mut wall, IN, &answer, now), Ok(()));
        // A box that does forget then, as after a reboot, would not let the answer in.
        wall.clear();
        assert_eq!(ask(&mut wall, IN, &answer, now), Err(DropReason::Unsolicited));
    }
}

#[test]
fn rec_31_the_handshake_and_the_simultaneous_open_pass() {
    let now = start();
    let mut wall = good();
    for (side, packet) in [
        (OUT, tcp(HOST, PEER, "S")),
        (IN, tcp(PEER, HOST, "SA")),
        (OUT, tcp(HOST, PEER, "A")),
        (IN, tcp(PEER, HOST, "FA")),
    ] {
        assert_eq!(ask(&mut wall, side, &packet, now), Ok(()));
    }
    let mut both = good();
    for (side, packet) in [
        (OUT, tcp(HOST, STRANGER, "S")),
        (IN, tcp(STRANGER, HOST, "S")),
        (OUT, tcp(HOST, STRANGER, "SA")),
        (IN, tcp(STRANGER, HOST, "SA")),
    ] {
        assert_eq!(ask(&mut both, side, &packet, now), Ok(()));
    }
    // One that lets nothing out to that port keeps neither.
    let rule = nat::Rule::ports(nat::Proto::Tcp, nat::PortRange::one(443));
    let mut web = walled(FirewallConfig { outbound: Some(vec![rule].into()), ..FirewallConfig::STATEFUL });
    assert_eq!(ask(&mut web, OUT, &tcp(HOST, STRANGER, "S"), now), Err(DropReason::PortNotAllowed));
}

#[test]
fn rec_33_tcp_is_filtered_by_endpoint_alone() {
    let now = start();
    let reached = |mut wall: Firewall| {
        ask(&mut wall, OUT, &tcp(HOST, PEER, "S"), now).unwrap();
        ask(&mut wall, IN, &tcp(STRANGER, HOST, "S"), now).is_ok()
    };
    assert!(reached(good()));
    assert!(!reached(bad()));
}

/// What a firewall says by itself until `end`.
fn says(wall: &mut Firewall, end: Instant) -> Vec<(Instant, nat::LateAnswer)> {
    let mut said = Vec::new();
    while let Some((at, _)) = wall.poll_timeout().filter(|(at, _)| *at <= end) {
        wall.handle_timeout(at);
        said.extend(std::iter::from_fn(|| wall.poll_answer()).map(|answer| (at, answer)));
    }
    said
}

#[test]
fn rec_34_an_unsolicited_syn_is_answered_after_six_seconds() {
    let now = start();
    let mut wall = good();
    let mut syn = tcp(STRANGER, HOST, "S");
    for again in [0, 1, 3] {
        assert_eq!(
            wall.packet(IN, &mut syn.clone(), now + secs(again)),
            Verdict::Drop(DropReason::Unsolicited)
        );
    }
    let said = says(&mut wall, now + secs(60));
    let [(at, answer)] = said[..] else { panic!("{said:?}") };
    assert_eq!(at, now + secs(6));
    assert_eq!((answer.answer, answer.side), (Answer::Prohibited, IN));
    assert_eq!((answer.src, answer.dst), (syn.src, syn.dst));
    // One that answers at once would end a simultaneous open.
    let hasty = FirewallConfig { answer_inbound: InboundRefusal::Reset, ..FirewallConfig::STATEFUL };
    let verdict = walled(hasty).packet(IN, &mut syn, now);
    assert_eq!(verdict, Verdict::Reject(DropReason::Unsolicited, Answer::Reset));
}

#[test]
fn rec_34_a_connection_that_is_opened_from_inside_in_time_is_not_answered() {
    let now = start();
    let mut wall = good();
    ask(&mut wall, IN, &tcp(STRANGER, HOST, "S"), now).unwrap_err();
    ask(&mut wall, OUT, &tcp(HOST, STRANGER, "S"), now + secs(5)).unwrap();
    assert_eq!(ask(&mut wall, IN, &tcp(STRANGER, HOST, "S"), now + secs(5)), Ok(()));
    assert_eq!(says(&mut wall, now + secs(60)), []);
}

#[test]
fn rec_34_nothing_but_a_syn_is_answered_and_not_more_than_so_many() {
    let now = start();
    let mut wall = good();
    for packet in
        [udp(STRANGER, HOST), tcp(STRANGER, HOST, "SA"), tcp(STRANGER, HOST, "A"), tcp(STRANGER, HOST, "R")]
    {
        ask(&mut wall, IN, &packet, now).unwrap_err();
    }
    assert_eq!(says(&mut wall, now + secs(60)), []);
    for port in 1..=3000 {
        ask(&mut wall, IN, &tcp(&format!("[2a00:3::1]:{port}"), HOST, "S"), now).unwrap_err();
    }
    assert_eq!(says(&mut wall, now + secs(60)).len(), 1024);
}

#[test]
fn rec_35_tcp_lives_for_two_hours_and_four_minutes_and_four_minutes_while_it_opens() {
    let alive = |mut wall: Firewall, open: bool, idle: u64| {
        let now = start();
        ask(&mut wall, OUT, &tcp(HOST, PEER, "S"), now).unwrap();
        if open {
            ask(&mut wall, IN, &tcp(PEER, HOST, "SA"), now).unwrap();
        }
        ask(&mut wall, IN, &tcp(PEER, HOST, "A"), now + secs(idle)).is_ok()
    };
    assert!(alive(good(), true, 2 * 3600 + 4 * 60 - 1));
    assert!(!alive(good(), true, 2 * 3600 + 4 * 60));
    assert!(alive(good(), false, 239) && !alive(good(), false, 240));
    assert!(!alive(bad(), true, 30) && !alive(bad(), false, 30));
}

#[test]
fn rec_36_errors_about_tcp_pass() {
    let now = start();
    let about = error("[2a00:9::9]", "[2a00:1::9]", &tcp(HOST, PEER, "S"));
    let mut wall = good();
    ask(&mut wall, OUT, &tcp(HOST, PEER, "S"), now).unwrap();
    assert_eq!(ask(&mut wall, IN, &about, now), Ok(()));
    let mut forgetful = bad();
    ask(&mut forgetful, OUT, &tcp(HOST, PEER, "S"), now).unwrap();
    assert_eq!(ask(&mut forgetful, IN, &about, now + secs(60)), Err(DropReason::UnknownQuote));
}

#[test]
fn rec_49_there_is_a_transparent_mode() {
    let now = start();
    let mut open = walled(presets::firewall("open").expect("a preset").config.clone());
    assert_eq!(ask(&mut open, IN, &udp(STRANGER, HOST), now), Ok(()));
    assert_eq!(ask(&mut open, IN, &tcp(STRANGER, HOST, "S"), now), Ok(()));
    assert_eq!(ask(&mut good(), IN, &udp(STRANGER, HOST), now), Err(DropReason::Unsolicited));
}
