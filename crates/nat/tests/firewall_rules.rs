//! What a firewall does beyond remembering who spoke first: rules, answers, inspection, portals, limits.

mod common;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::{Pkt, echo, ep, error, secs, start, tcp, udp, walled};
use nat::{
    Answer, DropReason, Firewall, FirewallConfig, InboundRefusal, Middlebox as _, Packet, Pinhole, Police,
    PoliceRate, PoliceUnit, PortRange, Portal, Proto, Refusal, Rule, RuleChange, Side, TcpFlags, UdpLimits,
    Verdict, Who,
};
use proptest::prelude::*;

const HOST: &str = "198.51.100.9:4000";
const SERVER: &str = "203.0.113.1:443";

const IN: Side = Side::Outside;
const OUT: Side = Side::Inside;
const PASSES: [Verdict; 2] = [Verdict::Forward(Side::Outside), Verdict::Forward(Side::Inside)];

fn with(change: impl FnOnce(&mut FirewallConfig)) -> Firewall {
    let mut config = FirewallConfig::STATEFUL;
    change(&mut config);
    walled(config)
}

fn limited(udp: UdpLimits) -> Firewall {
    with(|config| config.udp = udp)
}

fn ask(wall: &mut Firewall, side: Side, packet: &dyn Clonable, now: Instant) -> Verdict {
    wall.packet(side, packet.copy().as_mut(), now)
}

/// A packet that can be asked about again.
trait Clonable {
    fn copy(&self) -> Box<dyn Packet>;
}

impl<P: Packet + Clone + 'static> Clonable for P {
    fn copy(&self) -> Box<dyn Packet> {
        Box::new(self.clone())
    }
}

/// A packet with a length, a sequence number and bytes.
#[derive(Clone)]
struct Full {
    pkt: Pkt,
    seq: u32,
    bytes: Vec<u8>,
}

impl Packet for Full {
    fn proto(&self) -> Proto {
        self.pkt.proto
    }
    fn src(&self) -> std::net::SocketAddr {
        self.pkt.src
    }
    fn dst(&self) -> std::net::SocketAddr {
        self.pkt.dst
    }
    fn set_src(&mut self, src: std::net::SocketAddr) {
        self.pkt.src = src;
    }
    fn set_dst(&mut self, dst: std::net::SocketAddr) {
        self.pkt.dst = dst;
    }
    fn tcp_flags(&self) -> Option<TcpFlags> {
        self.pkt.flags
    }
    fn tcp_seq(&self) -> Option<u32> {
        (self.pkt.proto == Proto::Tcp).then_some(self.seq)
    }
    fn wire_len(&self) -> usize {
        28 + self.bytes.len()
    }
    fn payload(&self) -> &[u8] {
        &self.bytes
    }
}

/// A datagram of `len` bytes, headers included.
fn datagram(src: &str, dst: &str, len: usize) -> Full {
    Full { pkt: udp(src, dst), seq: 0, bytes: vec![0; len - 28] }
}

fn segment(src: &str, dst: &str, flags: &str, seq: u32, bytes: &[u8]) -> Full {
    Full { pkt: tcp(src, dst, flags), seq, bytes: bytes.to_vec() }
}

// ---- rules that come and go ------------------------------------------------------------------------

const UDP: Rule = Rule::ports(Proto::Udp, Rule::ALL_PORTS);

#[test]
fn a_rule_that_is_added_blocks_what_is_going_on_until_it_is_removed() {
    let now = start();
    let mut wall = with(|_| {});
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), PASSES[0]);
    let mut change = RuleChange { block: vec![UDP], ..RuleChange::default() };
    wall.change_rules(&change);
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), Verdict::Drop(DropReason::Blocked));
    assert_eq!(ask(&mut wall, OUT, &tcp(HOST, SERVER, "S"), now), PASSES[0]);
    change.remove = true;
    wall.change_rules(&change);
    // From outside first: only a firewall that still knows the conversation lets it in.
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now), PASSES[1]);
}

#[test]
fn a_conversation_outlives_the_rule_that_let_it_out() {
    let now = start();
    let mut wall = with(|config| config.outbound = Some(vec![UDP].into()));
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), PASSES[0]);
    wall.change_rules(&RuleChange { remove: true, outbound: vec![UDP], block: vec![] });
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), PASSES[0]);
    let later = udp(HOST, "203.0.113.2:443");
    assert_eq!(ask(&mut wall, OUT, &later, now), Verdict::Drop(DropReason::PortNotAllowed));
    wall.change_rules(&RuleChange { outbound: vec![UDP], ..RuleChange::default() });
    assert_eq!(ask(&mut wall, OUT, &later, now), PASSES[0]);
}

#[test]
fn a_rule_is_in_a_list_once_and_nothing_is_added_to_everything() {
    let change = RuleChange { outbound: vec![UDP], block: vec![UDP], ..RuleChange::default() };
    let mut wall = with(|_| {});
    wall.change_rules(&change);
    wall.change_rules(&change);
    assert_eq!(wall.config().outbound, None);
    assert_eq!(wall.config().block, vec![UDP]);
    wall.change_rules(&RuleChange { remove: true, ..change });
    assert_eq!(wall.config(), &FirewallConfig::STATEFUL);
}

// ---- pinholes -----------------------------------------------------------------------------------------

#[test]
fn a_pinhole_lets_in_whom_it_is_for_and_their_conversations_outlive_it() {
    let now = start();
    let other = "203.0.113.2:443";
    for (remote, passes) in [(None, [true, true]), (Some(ep(SERVER)), [true, false])] {
        let pinhole = Pinhole { proto: Proto::Udp, inside: ep(HOST), remote };
        // Nothing may be begun from inside; the answers to what came in may go out.
        let mut wall = with(|config| config.outbound = Some(vec![].into()));
        wall.open_pinhole(pinhole);
        let seen = [SERVER, other].map(|from| ask(&mut wall, IN, &udp(from, HOST), now) == PASSES[1]);
        assert_eq!(seen, passes);
        for refused in [udp(SERVER, "198.51.100.9:4001"), tcp(SERVER, HOST, "S")] {
            assert_eq!(ask(&mut wall, IN, &refused, now), Verdict::Drop(DropReason::Unsolicited));
        }
        wall.close_pinhole(pinhole);
        assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), PASSES[0]);
        let late = udp("203.0.113.3:1", HOST);
        assert_eq!(ask(&mut wall, IN, &late, now), Verdict::Drop(DropReason::Unsolicited));
    }
}

#[test]
fn a_box_that_forgets_has_no_pinhole() {
    let mut wall = with(|_| {});
    wall.open_pinhole(Pinhole { proto: Proto::Udp, inside: ep(HOST), remote: None });
    assert_eq!(wall.pinholes().count(), 1);
    wall.clear();
    assert_eq!(wall.pinholes().count(), 0);
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), start()), Verdict::Drop(DropReason::Unsolicited));
}

// ---- rules and answers ----------------------------------------------------------------------------

#[test]
fn a_rule_may_name_either_end() {
    let now = start();
    let ip = |text: &str| Some(Who::Address(text.parse::<IpAddr>().expect("an address")));
    let rule = Rule {
        from: ip("198.51.100.9"),
        to: ip("203.0.113.1"),
        ..Rule::ports(Proto::Tcp, PortRange::one(443))
    };
    let mut wall = with(|config| config.outbound = Some(vec![rule].into()));
    assert_eq!(ask(&mut wall, OUT, &tcp(HOST, SERVER, "S"), now), PASSES[0]);
    for (src, dst) in [("198.51.100.8:4000", SERVER), (HOST, "203.0.113.2:443"), (HOST, "203.0.113.1:80")] {
        assert_eq!(ask(&mut wall, OUT, &tcp(src, dst, "S"), now), Verdict::Drop(DropReason::PortNotAllowed));
    }
}

#[test]
fn a_name_matches_once_it_is_resolved() {
    let now = start();
    let mut config =
        FirewallConfig { block: vec![Rule::to(Who::Name("relay".into()))].into(), ..FirewallConfig::OPEN };
    assert_eq!(config.names().collect::<Vec<_>>(), ["relay"]);
    assert_eq!(ask(&mut walled(config.clone()), OUT, &udp(HOST, SERVER), now), PASSES[0]);
    let addresses = ["203.0.113.1".parse().expect("an address"), "2a00::1".parse().expect("an address")];
    config.resolve(|name| if name == "relay" { addresses.to_vec() } else { Vec::new() });
    assert_eq!(config.block.len(), 2);
    let mut wall = walled(config);
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), Verdict::Drop(DropReason::Blocked));
    assert_eq!(ask(&mut wall, IN, &udp(SERVER, HOST), now), Verdict::Drop(DropReason::Blocked));
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, "203.0.113.2:443"), now), PASSES[0]);
}

#[test]
fn a_block_cuts_a_conversation_that_is_under_way() {
    let now = start();
    let block =
        Rule { to: Some(Who::Address(ep(SERVER).ip())), ..Rule::ports(Proto::Udp, PortRange::one(443)) };
    let mut wall = with(|config| config.block = vec![block].into());
    // TCP to the same place is another matter.
    assert_eq!(ask(&mut wall, OUT, &tcp(HOST, SERVER, "S"), now), PASSES[0]);
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), Verdict::Drop(DropReason::Blocked));
}

#[test]
fn refusals_are_told_as_the_firewall_is_told_to() {
    let now = start();
    let verdict = |answer, packet: &Pkt| {
        let rule = Rule::ports(Proto::Tcp, PortRange::one(443));
        let mut wall = with(|config| (config.outbound, config.answer) = (Some(vec![rule].into()), answer));
        ask(&mut wall, OUT, packet, now)
    };
    let (ssh, dns) = (tcp(HOST, "203.0.113.1:22", "S"), udp(HOST, "203.0.113.1:53"));
    let told = |answer| Verdict::Reject(DropReason::PortNotAllowed, answer);
    assert_eq!(verdict(Refusal::Drop, &ssh), Verdict::Drop(DropReason::PortNotAllowed));
    assert_eq!(verdict(Refusal::Icmp, &ssh), told(Answer::Prohibited));
    assert_eq!(verdict(Refusal::Icmp, &dns), told(Answer::Prohibited));
    assert_eq!(verdict(Refusal::Reset, &ssh), told(Answer::Reset));
    assert_eq!(verdict(Refusal::Reset, &dns), told(Answer::PortUnreachable));
    // An error is no reason for another one (RFC 1122 §3.2.2).
    let about = error("198.51.100.9", "203.0.113.1", &udp("203.0.113.1:53", HOST));
    assert_eq!(verdict(Refusal::Icmp, &about), Verdict::Drop(DropReason::UnknownQuote));
}

#[test]
fn strangers_are_told_apart_from_those_inside() {
    let now = start();
    let verdict =
        |answer, packet: &Pkt| ask(&mut with(|config| config.answer_inbound = answer), IN, packet, now);
    let told = |answer| Verdict::Reject(DropReason::Unsolicited, answer);
    assert_eq!(verdict(InboundRefusal::Drop, &udp(SERVER, HOST)), Verdict::Drop(DropReason::Unsolicited));
    assert_eq!(verdict(InboundRefusal::Icmp, &udp(SERVER, HOST)), told(Answer::Prohibited));
    assert_eq!(verdict(InboundRefusal::Reset, &udp(SERVER, HOST)), told(Answer::PortUnreachable));
    assert_eq!(verdict(InboundRefusal::Reset, &tcp(SERVER, HOST, "S")), told(Answer::Reset));
}

// ---- TLS ------------------------------------------------------------------------------------------

const HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

fn inspecting() -> Firewall {
    with(|config| config.tls = vec![PortRange::one(443)].into())
}

/// Opens a connection whose first byte will be number 101.
fn open(wall: &mut Firewall, now: Instant) {
    assert_eq!(ask(wall, OUT, &segment(HOST, SERVER, "S", 100, &[]), now), PASSES[0]);
    assert_eq!(ask(wall, IN, &segment(SERVER, HOST, "SA", 9, &[]), now), PASSES[1]);
    assert_eq!(ask(wall, OUT, &segment(HOST, SERVER, "A", 101, &[]), now), PASSES[0]);
}

#[test]
fn tls_passes_the_inspection_both_ways() {
    let (mut wall, now) = (inspecting(), start());
    open(&mut wall, now);
    assert_eq!(ask(&mut wall, OUT, &segment(HOST, SERVER, "A", 101, HELLO), now), PASSES[0]);
    assert_eq!(ask(&mut wall, IN, &segment(SERVER, HOST, "A", 10, b"anything"), now), PASSES[1]);
    assert_eq!(ask(&mut wall, OUT, &segment(HOST, SERVER, "A", 112, b"anything"), now), PASSES[0]);
}

#[test]
fn what_is_no_tls_is_cut_off_at_both_ends_and_stays_so() {
    let (mut wall, now) = (inspecting(), start());
    open(&mut wall, now);
    let cut = |answer| Verdict::Reject(DropReason::NotTls, answer);
    let http = segment(HOST, SERVER, "A", 101, b"GET /derp HTTP/1.1\r\n");
    assert_eq!(ask(&mut wall, OUT, &http, now), cut(Answer::ResetBoth));
    assert_eq!(ask(&mut wall, OUT, &http, now), cut(Answer::Reset));
    assert_eq!(ask(&mut wall, OUT, &segment(HOST, SERVER, "A", 101, HELLO), now), cut(Answer::Reset));
    assert_eq!(ask(&mut wall, IN, &segment(SERVER, HOST, "A", 10, b"x"), now), cut(Answer::Reset));
    // The reset that the receiver gets in its place passes, and so does a new connection on the same ports.
    assert_eq!(ask(&mut wall, OUT, &segment(HOST, SERVER, "R", 101, &[]), now), PASSES[0]);
    open(&mut wall, now);
    assert_eq!(ask(&mut wall, OUT, &segment(HOST, SERVER, "A", 101, HELLO), now), PASSES[0]);
}

#[test]
fn a_server_that_greets_is_cut_off() {
    let (mut wall, now) = (inspecting(), start());
    open(&mut wall, now);
    let greeting = segment(SERVER, HOST, "A", 10, b"SSH-2.0-OpenSSH_9.9\r\n");
    assert_eq!(ask(&mut wall, IN, &greeting, now), Verdict::Reject(DropReason::NotTls, Answer::ResetBoth));
}

#[test]
fn a_connection_whose_beginning_was_not_seen_is_refused() {
    let (mut wall, now) = (inspecting(), start());
    let verdict = ask(&mut wall, OUT, &segment(HOST, SERVER, "A", 5000, HELLO), now);
    assert_eq!(verdict, Verdict::Reject(DropReason::NotASyn, Answer::Reset));
    assert_eq!(wall.conversations(), 0);
}

#[test]
fn other_ports_and_protocols_are_not_inspected() {
    let (mut wall, now) = (inspecting(), start());
    let other = "203.0.113.1:80";
    assert_eq!(ask(&mut wall, OUT, &segment(HOST, other, "S", 100, &[]), now), PASSES[0]);
    assert_eq!(ask(&mut wall, OUT, &segment(HOST, other, "A", 101, b"GET / HTTP/1.1"), now), PASSES[0]);
    assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 100), now), PASSES[0]);
}

// ---- portals --------------------------------------------------------------------------------------

#[test]
fn a_portal_lets_names_and_addresses_be_had_and_nothing_else() {
    let (mut wall, now) = (with(|config| config.portal = Portal::UntilAccepted), start());
    for port in [53, 67] {
        assert_eq!(ask(&mut wall, OUT, &udp(HOST, &format!("203.0.113.1:{port}")), now), PASSES[0]);
    }
    let closed = Verdict::Drop(DropReason::Portal);
    for packet in [udp(HOST, SERVER), tcp(HOST, SERVER, "S"), echo("198.51.100.9:7", "203.0.113.1:0")] {
        assert_eq!(ask(&mut wall, OUT, &packet, now + secs(3600)), closed);
    }
    wall.accept_portal();
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), PASSES[0]);
    wall.clear();
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), now), closed);
}

#[test]
fn a_user_takes_his_time_from_the_first_refusal() {
    let (mut wall, now) = (with(|config| config.portal = Portal::After(secs(15))), start());
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, "203.0.113.1:53"), now), PASSES[0]);
    let first = now + secs(100);
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), first), Verdict::Drop(DropReason::Portal));
    let almost = first + secs(15) - Duration::from_nanos(1);
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), almost), Verdict::Drop(DropReason::Portal));
    assert_eq!(ask(&mut wall, OUT, &udp(HOST, SERVER), first + secs(15)), PASSES[0]);
}

// ---- limits ---------------------------------------------------------------------------------------

fn bits(per_second: u64, burst: u64) -> Option<Police> {
    Some(Police { rate: PoliceRate { unit: PoliceUnit::Bits, per_second }, burst })
}

#[test]
fn long_datagrams_are_lost_and_short_ones_pass() {
    let (mut wall, now) = (limited(UdpLimits { max_bytes: Some(600), ..UdpLimits::NONE }), start());
    assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 600), now), PASSES[0]);
    assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 601), now), Verdict::Drop(DropReason::TooLong));
    assert_eq!(ask(&mut wall, IN, &datagram(SERVER, HOST, 601), now), Verdict::Drop(DropReason::TooLong));
    assert_eq!(ask(&mut wall, OUT, &segment(HOST, SERVER, "S", 1, &[0; 900]), now), PASSES[0]);
}

#[test]
fn the_rate_of_all_udp_is_one_for_each_direction() {
    let (mut wall, now) = (limited(UdpLimits { rate: bits(8_000, 1_000), ..UdpLimits::NONE }), start());
    let over = Verdict::Drop(DropReason::OverRate);
    assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 600), now), PASSES[0]);
    assert_eq!(ask(&mut wall, OUT, &datagram(HOST, "203.0.113.2:9", 600), now), over);
    assert_eq!(ask(&mut wall, IN, &datagram(SERVER, HOST, 600), now), PASSES[1]);
    assert_eq!(
        ask(&mut wall, OUT, &datagram(HOST, SERVER, 600), now + Duration::from_millis(200)),
        PASSES[0]
    );
}

#[test]
fn the_rate_of_a_flow_is_its_own() {
    let (mut wall, now) = (limited(UdpLimits { flow_rate: bits(8_000, 1_000), ..UdpLimits::NONE }), start());
    assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 600), now), PASSES[0]);
    let over = Verdict::Drop(DropReason::FlowOverRate);
    assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 600), now), over);
    assert_eq!(ask(&mut wall, OUT, &datagram(HOST, "203.0.113.2:9", 600), now), PASSES[0]);
}

#[test]
fn a_flow_has_so_many_packets_and_bytes_until_it_is_forgotten() {
    let now = start();
    let used_up = Verdict::Drop(DropReason::FlowUsedUp);
    for limits in [
        UdpLimits { flow_packets: Some(2), ..UdpLimits::NONE },
        UdpLimits { flow_bytes: Some(1_000), ..UdpLimits::NONE },
    ] {
        let mut wall = limited(limits);
        assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 500), now), PASSES[0]);
        assert_eq!(ask(&mut wall, IN, &datagram(SERVER, HOST, 500), now), PASSES[1]);
        assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 500), now), used_up);
        assert_eq!(ask(&mut wall, IN, &datagram(SERVER, HOST, 500), now + secs(29)), used_up);
        // What is dropped refreshes nothing: a new conversation begins.
        assert_eq!(ask(&mut wall, OUT, &datagram(HOST, SERVER, 500), now + secs(30)), PASSES[0]);
    }
}

#[test]
fn a_share_of_udp_is_lost_in_one_direction() {
    let now = start();
    let mut wall = limited(UdpLimits { loss_out_ppb: 250_000_000, ..UdpLimits::NONE });
    let passed = (0..10_000).filter(|_| ask(&mut wall, OUT, &udp(HOST, SERVER), now) == PASSES[0]).count();
    // Three standard errors of a binomial distribution: 3 · sqrt(10000 · 0.25 · 0.75) = 130.
    assert!(passed.abs_diff(7_500) <= 130, "{passed}");
    let back = (0..1_000).filter(|_| ask(&mut wall, IN, &udp(SERVER, HOST), now) == PASSES[1]).count();
    assert_eq!(back, 1_000);
    let mut dead = limited(UdpLimits { loss_in_ppb: 1_000_000_000, ..UdpLimits::NONE });
    assert_eq!(ask(&mut dead, OUT, &udp(HOST, SERVER), now), PASSES[0]);
    assert_eq!(ask(&mut dead, IN, &udp(SERVER, HOST), now), Verdict::Drop(DropReason::Lost));
    assert_eq!(ask(&mut dead, OUT, &tcp(HOST, SERVER, "S"), now), PASSES[0]);
    assert_eq!(ask(&mut dead, IN, &tcp(SERVER, HOST, "SA"), now), PASSES[1]);
}

// ---- against a reference --------------------------------------------------------------------------

/// A step of a story: who speaks, to whom, over what, and how long after the one before.
#[derive(Clone, Debug)]
struct Step {
    inside: bool,
    udp: bool,
    host: u8,
    remote: u8,
    port: u16,
    len: usize,
    wait_ms: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        any::<bool>(),
        any::<bool>(),
        1..3_u8,
        1..4_u8,
        prop::sample::select(vec![80, 443, 3478]),
        28..900_usize,
        0..12_000_u64,
    )
        .prop_map(|(inside, udp, host, remote, port, len, wait_ms)| Step {
            inside,
            udp,
            host,
            remote,
            port,
            len,
            wait_ms,
        });
    prop::collection::vec(step, 1..120)
}

fn rule() -> impl Strategy<Value = Rule> {
    let proto = prop::sample::select(vec![None, Some(Proto::Udp), Some(Proto::Tcp)]);
    let ports =
        prop::sample::select(vec![Rule::ALL_PORTS, PortRange::one(443), PortRange { low: 80, high: 443 }]);
    let end = |net: &'static str, n: std::ops::Range<u8>| {
        prop::option::weighted(
            0.3,
            n.prop_map(move |i| Who::Address(format!("{net}.{i}").parse().expect("an address"))),
        )
    };
    (proto, ports, end("203.0.113", 1..4), end("198.51.100", 1..3))
        .prop_map(|(proto, ports, to, from)| Rule { proto, ports, to, from })
}

const TIMEOUT: Duration = Duration::from_secs(30);

proptest! {
    /// A firewall with any rules, filter, size limit and budget, against a list of everything that ever passed: what the
    /// list does not allow never gets through, whatever has run out is gone, and the table never holds more than it may.
    #[test]
    fn what_is_filtered_never_passes(
        steps in steps(),
        outbound in prop::option::of(prop::collection::vec(rule(), 0..4)),
        block in prop::collection::vec(rule(), 0..2),
        inbound in prop::sample::select(nat::Inbound::ALL.to_vec()),
        max_bytes in prop::option::of(100..900_u64),
        flow_packets in prop::option::of(1..20_u64),
        capacity in 1..8_usize,
    ) {
        let config = FirewallConfig {
            inbound,
            outbound: outbound.clone().map(Into::into),
            block: block.clone().into(),
            udp: UdpLimits { max_bytes, flow_packets, ..UdpLimits::NONE },
            timeouts: nat::Timeouts::idle(TIMEOUT),
            capacity,
            ..FirewallConfig::STATEFUL
        };
        let mut wall = walled(config);
        let mut now = start();
        // Who passed, which way, and when.
        let mut passed: Vec<(Proto, std::net::SocketAddr, std::net::SocketAddr, bool, Instant)> = Vec::new();
        for step in steps {
            now += Duration::from_millis(step.wait_ms);
            let host = ep(&format!("198.51.100.{}:{}", step.host, 4000));
            let remote = ep(&format!("203.0.113.{}:{}", step.remote, step.port));
            let proto = if step.udp { Proto::Udp } else { Proto::Tcp };
            let (side, from, to) = if step.inside { (OUT, host, remote) } else { (IN, remote, host) };
            let (from, to) = (from.to_string(), to.to_string());
            let packet = if step.udp { datagram(&from, &to, step.len) } else { segment(&from, &to, "SA", 1, &[]) };
            let verdict = ask(&mut wall, side, &packet, now);
            prop_assert!(wall.conversations() <= capacity);
            if !matches!(verdict, Verdict::Forward(_)) {
                continue;
            }
            let hits = |rule: &Rule| {
                let end = |who: &Option<Who>, ip: IpAddr| who.is_none() || *who == Some(Who::Address(ip));
                rule.proto.is_none_or(|p| p == proto)
                    && (rule.ports.low..=rule.ports.high).contains(&remote.port())
                    && end(&rule.to, remote.ip())
                    && end(&rule.from, host.ip())
            };
            prop_assert!(!block.iter().any(hits), "blocked");
            prop_assert!(!step.udp || max_bytes.is_none_or(|most| step.len as u64 <= most), "too long");
            let of = |p: &&(Proto, _, _, bool, Instant)| (p.0, p.1, p.2) == (proto, host, remote);
            // A conversation is what passed of it without a pause as long as the timeout.
            let mut at = now;
            let mut packets = 0;
            let mut first = None;
            for entry in passed.iter().rev().filter(of) {
                if at >= entry.4 + TIMEOUT {
                    break;
                }
                (at, packets, first) = (entry.4, packets + 1, Some(entry.3));
            }
            prop_assert!(!step.udp || flow_packets.is_none_or(|most| packets < most), "used up");
            match first {
                // It is the answer to something: nothing more is asked of it.
                Some(_) => {}
                None if step.inside => {
                    prop_assert!(outbound.as_ref().is_none_or(|rules| rules.iter().any(hits)), "not allowed");
                }
                None => {
                    // The inside has sent from there to somebody of whom the filter says that it opens for this one, and
                    // that conversation has not run out.
                    let live = |other: std::net::SocketAddr| {
                        let mut at = now;
                        let mut sent = false;
                        for entry in passed.iter().rev().filter(|p| (p.0, p.1, p.2) == (proto, host, other)) {
                            if at >= entry.4 + TIMEOUT {
                                break;
                            }
                            at = entry.4;
                            sent |= entry.3;
                        }
                        sent
                    };
                    let opens = passed.iter().map(|p| p.2).any(|other| match inbound {
                        nat::Inbound::Open => true,
                        nat::Inbound::EndpointIndependent => live(other),
                        nat::Inbound::AddressDependent => other.ip() == remote.ip() && live(other),
                        nat::Inbound::Stateful => false,
                    });
                    prop_assert!(inbound == nat::Inbound::Open || opens, "unsolicited");
                }
            }
            passed.push((proto, host, remote, step.inside, now));
        }
    }
}
