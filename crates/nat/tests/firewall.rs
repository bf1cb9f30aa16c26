//! Firewalls.

mod common;

use common::{Pkt, echo, error, secs, start, tcp, udp, walled};
use nat::{DropReason, Firewall, FirewallConfig, Middlebox as _, Side, Verdict, presets};

const HOST: &str = "198.51.100.9:4000";
const SERVER: &str = "203.0.113.1:443";
const STRANGER: &str = "203.0.113.2:443";

const IN: Side = Side::Outside;
const OUT: Side = Side::Inside;

fn firewall(name: &str) -> Firewall {
    walled(presets::firewall(name).expect("a preset").config.clone())
}

fn passes() -> [Verdict; 2] {
    [Verdict::Forward(Side::Outside), Verdict::Forward(Side::Inside)]
}

/// Whether a packet passes, or why not; that it is not rewritten is checked on the way.
fn ask(firewall: &mut Firewall, side: Side, packet: &Pkt, now: std::time::Instant) -> Result<(), DropReason> {
    let mut copy = packet.clone();
    let verdict = firewall.packet(side, &mut copy, now);
    assert_eq!(copy, *packet);
    match verdict {
        Verdict::Drop(reason) => Err(reason),
        verdict => {
            assert_eq!(verdict, passes()[usize::from(side == IN)]);
            Ok(())
        }
    }
}

#[test]
fn stateful_lets_answers_in_and_nothing_else() {
    let (mut wall, now) = (firewall("stateful"), start());
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now), Err(DropReason::Unsolicited));
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), Ok(()));
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now), Ok(()));
    assert_eq!(ask(&mut wall, IN, &udp("203.0.113.1:444", HOST), now), Err(DropReason::Unsolicited));
    assert_eq!(ask(&mut wall, IN, &udp(STRANGER, HOST), now), Err(DropReason::Unsolicited));
    assert_eq!(ask(&mut wall, IN, &tcp(SERVER, HOST, "S"), now), Err(DropReason::Unsolicited));
}

#[test]
fn stateful_forgets() {
    let (mut wall, now) = (firewall("stateful"), start());
    ask(&mut wall, OUT, &udp(HOST, SERVER), now).unwrap();
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now + secs(29)), Ok(()));
    // Answered and more than two seconds old: 120 s.
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now + secs(148)), Ok(()));
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now + secs(268)), Err(DropReason::Unsolicited));
    ask(&mut wall, OUT, &udp(HOST, SERVER), now + secs(268)).unwrap();
    wall.clear();
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now + secs(268)), Err(DropReason::Unsolicited));
}

#[test]
fn open_lets_everything_pass() {
    let (mut wall, now) = (firewall("open"), start());
    for packet in [udp(SERVER, HOST), tcp(SERVER, HOST, "A"), echo("203.0.113.1:7", "198.51.100.9:0")] {
        assert_eq!(ask(&mut wall, IN, &packet, now), Ok(()));
        assert_eq!(ask(&mut wall, OUT, &packet, now), Ok(()));
    }
    assert_eq!(wall.conversations(), 0);
}

#[test]
fn udp_blocked_drops_udp_both_ways_and_lets_tcp_out() {
    let (mut wall, now) = (firewall("udp-blocked"), start());
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), Err(DropReason::UdpBlocked));
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now), Err(DropReason::UdpBlocked));
    assert_eq!(ask(&mut wall, OUT, &tcp(HOST, "203.0.113.1:9", "S"), now), Ok(()));
}

#[test]
fn web_only_lets_80_and_443_out() {
    let (mut wall, now) = (firewall("web-only"), start());
    for port in [80, 443] {
        let server = format!("203.0.113.1:{port}");
        assert_eq!(ask(&mut wall, OUT, &tcp(HOST, &server, "S"), now), Ok(()));
        assert_eq!(ask(&mut wall, IN, &tcp(&server, HOST, "SA"), now), Ok(()));
        assert_eq!(ask(&mut wall, OUT, &udp(HOST, &server), now), Err(DropReason::PortNotAllowed));
    }
    for port in [22, 79, 81, 442, 444, 8443] {
        let refused = ask(&mut wall, OUT, &tcp(HOST, &format!("203.0.113.1:{port}"), "S"), now);
        assert_eq!(refused, Err(DropReason::PortNotAllowed));
    }
    assert_eq!(
        ask(&mut wall, OUT, &echo("198.51.100.9:7", "203.0.113.1:0"), now),
        Err(DropReason::PortNotAllowed)
    );
    assert_eq!(ask(&mut wall, IN, &tcp(STRANGER, HOST, "S"), now), Err(DropReason::Unsolicited));
    let words = wall.config().to_string();
    assert!(words.starts_with("inbound stateful, outbound only tcp 80 and tcp 443, udp 30s"), "{words}");
}

#[test]
fn icmp_errors_pass_where_they_answer_something() {
    let (mut wall, now) = (firewall("stateful"), start());
    ask(&mut wall, OUT, &udp(HOST, SERVER), now).unwrap();
    let about = |quoted: &Pkt| error("203.0.113.77", "198.51.100.9", quoted);
    assert_eq!(ask(&mut wall, IN, &about(&udp(HOST, SERVER)), now), Ok(()));
    assert_eq!(ask(&mut wall, IN, &about(&udp(HOST, STRANGER)), now), Err(DropReason::UnknownQuote));
    let refused = error("198.51.100.9", "203.0.113.1", &udp(SERVER, HOST));
    assert_eq!(ask(&mut wall, OUT, &refused, now), Ok(()));
}

#[test]
fn the_table_has_a_limit() {
    let now = start();
    let mut wall = walled(FirewallConfig { capacity: 1, ..FirewallConfig::STATEFUL });
    ask(&mut wall, OUT, &udp(HOST, SERVER), now).unwrap();
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, STRANGER), now), Err(DropReason::TableFull));
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, STRANGER), now + secs(30)), Ok(()));
}

#[test]
fn events_tell_the_table() {
    let (mut wall, now) = (firewall("stateful"), start());
    wall.set_events(true);
    ask(&mut wall, OUT, &udp(HOST, SERVER), now).unwrap();
    assert!(matches!(wall.poll_event(), Some(nat::Event::BindingCreated { at, .. }) if at == now));
    let (due, _) = wall.poll_timeout().unwrap();
    wall.handle_timeout(due);
    assert!(matches!(wall.poll_event(), Some(nat::Event::BindingExpired { at, .. }) if at == now + secs(30)));
    assert_eq!(wall.poll_timeout(), None);
}
