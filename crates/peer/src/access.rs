//! Who may talk to us: the network's access rules, held against what comes out of the tunnel.
//!
//! A packet is let in if a rule permits its sender to begin it, or if it answers what we have sent. What we send is remembered
//! whether there are rules or not, so that rules that come in mid-session do not break what we have begun; a TCP connection
//! counts as begun by who sends its first segment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use coord::{Access, Grants, NodeInfo};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
/// As many conversations as are remembered; beyond that those that have been quiet longest are forgotten.
const MAX_FLOWS: usize = 16_384;
/// How many different refusals are told before the rules change.
const MAX_TOLD: usize = 256;
/// RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-1; for other protocols Linux's `nf_conntrack_generic_timeout`.
const TCP_IDLE: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
const UDP_IDLE: Duration = Duration::from_secs(5 * 60);
const ICMP_IDLE: Duration = Duration::from_secs(60);
const OTHER_IDLE: Duration = Duration::from_secs(600);
/// A later fragment that begins before this would overlap the ports of the first (RFC 1858 §3): 60 bytes of IPv4 header and 20 of
/// TCP are more than any first fragment needs, in bytes of payload.
const MIN_LATER: usize = 20;

/// A conversation that we have begun. For an echo, `local` is its identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flow {
    peer: u32,
    protocol: u8,
    local: u16,
    remote: u16,
}

impl Flow {
    fn idle(self) -> Duration {
        match self.protocol {
            TCP => TCP_IDLE,
            UDP => UDP_IDLE,
            ICMP | ICMP6 => ICMP_IDLE,
            _ => OTHER_IDLE,
        }
    }
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) protocol: u8,
    pub(crate) port: Option<u16>,
    /// Whether nobody was told of the like since the rules changed.
    pub(crate) news: bool,
}

/// The rules and what they let in.
#[derive(Default)]
pub(crate) struct Gate {
    rules: Option<Access>,
    grants: BTreeMap<u32, Grants>,
    flows: IndexMap<Flow, Instant, FxBuildHasher>,
    told: BTreeSet<(u32, u8, Option<u16>)>,
}

impl Gate {
    pub(crate) fn rules(&self) -> Option<&Access> {
        self.rules.as_ref()
    }

    pub(crate) fn set_rules(&mut self, rules: Option<Access>) {
        self.rules = rules;
        self.reconsider();
    }

    /// What is known of ourselves is different.
    pub(crate) fn reconsider(&mut self) {
        self.grants.clear();
        self.told.clear();
    }

    /// What is known of a peer is different.
    pub(crate) fn reconsider_peer(&mut self, id: u32) {
        self.grants.remove(&id);
    }

    /// A packet goes to a peer.
    pub(crate) fn sent(&mut self, id: u32, packet: &[u8], now: Instant) {
        let Some(seen) = Seen::of(packet) else { return };
        let (flow, begins) = match seen.what {
            // The first fragment has said it.
            What::Later => return,
            What::Ports { from, to, begins } => {
                (Flow { peer: id, protocol: seen.protocol, local: from, remote: to }, begins)
            }
            What::Echo { id: echo, request: true } => {
                (Flow { peer: id, protocol: seen.protocol, local: echo, remote: 0 }, true)
            }
            What::Echo { .. } | What::Error(_) => return,
            What::Other => (Flow { peer: id, protocol: seen.protocol, local: 0, remote: 0 }, true),
        };
        if let Some(last) = self.flows.get_mut(&flow) {
            *last = now;
        } else if begins {
            if self.flows.len() >= MAX_FLOWS {
                self.make_room(now);
            }
            self.flows.insert(flow, now);
        }
    }

    /// Whether a packet from a peer is let in.
    pub(crate) fn admits(
        &mut self,
        from: &NodeInfo,
        own: Option<&NodeInfo>,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), Refused> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let seen = Seen::of(packet);
        let grants = self.grants.entry(from.id);
        let grants = grants.or_insert_with(|| own.map(|own| rules.grants(from, own)).unwrap_or_default());
        let flows = &self.flows;
        let known = |protocol, local, remote| {
            let flow = Flow { peer: from.id, protocol, local, remote };
            flows.get(&flow).is_some_and(|last| now.saturating_duration_since(*last) < flow.idle())
        };
        let Some(Seen { protocol, what }) = seen else { return Err(self.refuse(from.id, 0, None)) };
        let (port, admitted) = match what {
            // Of no use to who did not get the first.
            What::Later => (None, true),
            What::Ports { from, to, .. } => {
                (Some(to), grants.permit(protocol, Some(to)) || known(protocol, to, from))
            }
            What::Echo { id, request } => {
                (None, grants.permit(protocol, None) || !request && known(protocol, id, 0))
            }
            What::Error(about) => {
                let ours = about.is_some_and(|(inner, local, remote)| {
                    known(inner, local, remote) || grants.permit(inner, Some(local))
                });
                (None, grants.permit(protocol, None) || ours)
            }
            What::Other => (None, grants.permit(protocol, None) || known(protocol, 0, 0)),
        };
        if admitted { Ok(()) } else { Err(self.refuse(from.id, protocol, port)) }
    }

    fn refuse(&mut self, id: u32, protocol: u8, port: Option<u16>) -> Refused {
        let news = self.told.len() < MAX_TOLD && self.told.insert((id, protocol, port));
        Refused { protocol, port, news }
    }

    /// Forgets what is over, or else the older half.
    fn make_room(&mut self, now: Instant) {
        self.flows.retain(|flow, last| now.saturating_duration_since(*last) < flow.idle());
        if self.flows.len() >= MAX_FLOWS {
            let mut times: Vec<Instant> = self.flows.values().copied().collect();
            let (_, &mut middle, _) = times.select_nth_unstable(MAX_FLOWS / 2);
            let mut spare = MAX_FLOWS / 2;
            self.flows.retain(|_, last| {
                let old = *last <= middle && spare > 0;
                spare -= usize::from(old);
                !old
            });
        }
    }
}

/// What of a packet matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    protocol: u8,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Not the first fragment.
    Later,
    /// TCP or UDP. `begins`: this segment may begin a conversation.
    Ports {
        from: u16,
        to: u16,
        begins: bool,
    },
    Echo {
        id: u16,
        request: bool,
    },
    /// An ICMP error about a packet of this protocol that the receiver had sent from the first port to the second.
    Error(Option<(u8, u16, u16)>),
    Other,
}

impl Seen {
    /// `None` for what is cut off or made to deceive.
    fn of(packet: &[u8]) -> Option<Seen> {
        let (protocol, payload, later) = payload_of(packet)?;
        if let Some(offset) = later {
            return (offset >= MIN_LATER).then_some(Seen { protocol, what: What::Later });
        }
        let what = match protocol {
            TCP => {
                let (from, to) = ports(payload)?;
                // SYN without ACK (RFC 9293 §3.5).
                What::Ports { from, to, begins: payload.get(13)? & 0x12 == 0x02 }
            }
            UDP => {
                let (from, to) = ports(payload)?;
                What::Ports { from, to, begins: true }
            }
            ICMP | ICMP6 => {
                let id = || Some(u16::from_be_bytes(*payload.get(4..)?.first_chunk()?));
                match (protocol, *payload.first()?) {
                    (ICMP, kind @ (0 | 8)) => What::Echo { id: id()?, request: kind == 8 },
                    (ICMP6, kind @ (128 | 129)) => What::Echo { id: id()?, request: kind == 128 },
                    // RFC 792 and RFC 4443 §3.
                    (ICMP, 3 | 11 | 12) | (ICMP6, 1..=4) => What::Error(about(payload.get(8..)?)),
                    _ => What::Other,
                }
            }
            _ => What::Other,
        };
        Some(Seen { protocol, what })
    }
}

/// What an ICMP error is about.
fn about(inner: &[u8]) -> Option<(u8, u16, u16)> {
    let (protocol, payload, later) = payload_of(inner)?;
    if later.is_some() {
        return None;
    }
    match protocol {
        TCP | UDP => {
            let (from, to) = ports(payload)?;
            Some((protocol, from, to))
        }
        ICMP | ICMP6 => Some((protocol, u16::from_be_bytes(*payload.get(4..)?.first_chunk()?), 0)),
        _ => Some((protocol, 0, 0)),
    }
}

fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Protocol and payload of an IP packet, and where in its datagram a later fragment begins, in bytes (RFC 791 §3.1, RFC 8200 §4).
fn payload_of(packet: &[u8]) -> Option<(u8, &[u8], Option<usize>)> {
    let short = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let offset = usize::from(short(6)? & 0x1FFF) * 8;
            let protocol = *packet.get(9)?;
            if header < 20 {
                return None;
            }
            Some((protocol, packet.get(header..)?, (offset > 0).then_some(offset)))
        }
        6 => {
            let (mut next, mut at) = (*packet.get(6)?, 40);
            // Each step takes eight bytes at least.
            loop {
                match next {
                    // Hop-by-hop options, routing, destination options.
                    0 | 43 | 60 => {
                        next = *packet.get(at)?;
                        at += 8 + usize::from(*packet.get(at + 1)?) * 8;
                    }
                    44 => {
                        let offset = usize::from(short(at + 2)? & 0xFFF8);
                        next = *packet.get(at)?;
                        at += 8;
                        if offset > 0 {
                            return Some((next, packet.get(at..)?, Some(offset)));
                        }
                    }
                    protocol => return Some((protocol, packet.get(at..)?, None)),
                }
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SYN: u8 = 0x02;
    const SYN_ACK: u8 = 0x12;
    const ACK: u8 = 0x10;

    #[expect(clippy::disallowed_methods, reason = "a test starts the time somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn node(id: u32, name: &str) -> NodeInfo {
        NodeInfo {
            id,
            name: name.into(),
            node_key: [1; 32],
            disco_key: [2; 32],
            tunnel_ip: std::net::IpAddr::from([100, 64, 0, 1]),
            tunnel_ip6: None,
            tags: Vec::new(),
            key_expires: None,
            endpoints: Vec::new(),
            home_relay: None,
            nat: None,
            online: true,
        }
    }

    fn ip(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2]);
        packet.extend(payload);
        packet
    }

    fn ip6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend([0xfd; 32]);
        packet.extend(payload);
        packet
    }

    fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
        let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
        segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        segment
    }

    fn udp(from: u16, to: u16) -> Vec<u8> {
        [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
    }

    fn gate(rules: &str) -> Gate {
        let mut gate = Gate::default();
        gate.set_rules(Some(serde_json::from_str(rules).unwrap()));
        gate
    }

    /// A gate at `web` that lets `laptop` in at TCP 443.
    fn web() -> Gate {
        gate(r#"{"rules": [{"from": ["laptop"], "to": ["web"], "protocol": "tcp", "ports": ["443"]}]}"#)
    }

    fn admits(gate: &mut Gate, packet: &[u8], now: Instant) -> bool {
        gate.admits(&node(1, "laptop"), Some(&node(2, "web")), packet, now).is_ok()
    }

    #[test]
    fn without_rules_everything_is_let_in() {
        let mut gate = Gate::default();
        assert!(admits(&mut gate, &ip(UDP, 0, &udp(1, 2)), start()));
        assert!(admits(&mut gate, b"garbage", start()));
    }

    #[test]
    fn what_a_rule_permits_is_let_in_and_the_rest_is_not() {
        let (mut gate, now) = (web(), start());
        assert!(admits(&mut gate, &ip(TCP, 0, &tcp(5000, 443, SYN)), now));
        for packet in [
            ip(TCP, 0, &tcp(5000, 22, SYN)),
            ip(UDP, 0, &udp(5000, 443)),
            ip(ICMP, 0, &[8; 16]),
            vec![0x45; 9],
        ] {
            assert!(!admits(&mut gate, &packet, now), "{packet:?}");
        }
        let stranger =
            gate.admits(&node(3, "phone"), Some(&node(2, "web")), &ip(TCP, 0, &tcp(1, 443, SYN)), now);
        assert_eq!(stranger, Err(Refused { protocol: TCP, port: Some(443), news: true }));
    }

    #[test]
    fn answers_to_what_we_have_begun_pass_until_they_are_too_late() {
        let (mut gate, now) = (web(), start());
        gate.sent(1, &ip(UDP, 0, &udp(40_000, 53)), now);
        gate.sent(1, &ip(TCP, 0, &tcp(40_001, 80, SYN)), now);
        gate.sent(1, &ip(ICMP, 0, &[8, 0, 0, 0, 7, 7, 0, 1]), now);
        let later = now + Duration::from_secs(59);
        let answers = [
            ip(UDP, 0, &udp(53, 40_000)),
            ip(TCP, 0, &tcp(80, 40_001, SYN_ACK)),
            ip(ICMP, 0, &[0, 0, 0, 0, 7, 7, 0, 1]),
        ];
        for answer in &answers {
            assert!(admits(&mut gate, answer, later), "{answer:?}");
        }
        let too_late = now + UDP_IDLE;
        assert!(!admits(&mut gate, &answers[0], too_late) && admits(&mut gate, &answers[1], too_late));
        assert!(!admits(&mut gate, &ip(UDP, 0, &udp(54, 40_000)), later), "from another port");
        let other = gate.admits(&node(3, "phone"), Some(&node(2, "web")), &answers[0], later);
        assert!(other.is_err(), "from another peer");
    }

    #[test]
    fn answering_a_forbidden_connection_does_not_permit_it() {
        let (mut gate, now) = (web(), start());
        gate.sent(1, &ip(TCP, 0, &tcp(22, 5000, SYN_ACK)), now);
        gate.sent(1, &ip(TCP, 0, &tcp(22, 5000, ACK)), now);
        assert!(!admits(&mut gate, &ip(TCP, 0, &tcp(5000, 22, ACK)), now));
    }

    #[test]
    fn what_we_began_before_there_were_rules_goes_on() {
        let (mut gate, now) = (Gate::default(), start());
        gate.sent(1, &ip(TCP, 0, &tcp(40_001, 80, SYN)), now);
        gate.set_rules(Some(Access::default()));
        assert!(admits(&mut gate, &ip(TCP, 0, &tcp(80, 40_001, ACK)), now));
        assert!(!admits(&mut gate, &ip(TCP, 0, &tcp(80, 40_002, ACK)), now));
    }

    #[test]
    fn an_icmp_error_passes_with_what_it_is_about() {
        let (mut gate, now) = (web(), start());
        gate.sent(1, &ip(UDP, 0, &udp(40_000, 53)), now);
        let error = |inner: &[u8]| ip(ICMP, 0, &[&[3, 4, 0, 0, 0, 0, 5, 0], inner].concat());
        assert!(admits(&mut gate, &error(&ip(UDP, 0, &udp(40_000, 53))), now));
        assert!(
            admits(&mut gate, &error(&ip(TCP, 0, &tcp(443, 5000, ACK))), now),
            "about a permitted connection"
        );
        assert!(!admits(&mut gate, &error(&ip(UDP, 0, &udp(40_001, 53))), now));
    }

    #[test]
    fn ports_are_found_behind_extension_headers_and_in_no_later_fragment() {
        let (mut gate, now) = (web(), start());
        let behind = |length: u8, to| {
            let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0, TCP, length, 0, 0, 0, 0, 0, 0];
            payload.extend(vec![0; usize::from(length) * 8]);
            payload.extend(tcp(5000, to, SYN));
            ip6(0, &payload)
        };
        assert!(admits(&mut gate, &behind(2, 443), now));
        assert!(!admits(&mut gate, &behind(2, 22), now));
        assert!(admits(&mut gate, &ip(TCP, 3, &[0; 30]), now), "of no use without the first");
        assert!(!admits(&mut gate, &ip(TCP, 1, &[0; 30]), now), "it would overlap the ports");
    }

    #[test]
    fn flows_are_limited_and_the_quiet_ones_go_first() {
        let (mut gate, now) = (web(), start());
        for flow in 0..40_000u32 {
            let [_, _, high, low] = flow.to_be_bytes();
            let port = u16::from_be_bytes([high, low]);
            gate.sent(flow >> 16, &ip(UDP, 0, &udp(port, 53)), now + Duration::from_millis(flow.into()));
            assert!(gate.flows.len() <= MAX_FLOWS);
        }
        let at = now + Duration::from_secs(40);
        let newest = gate.admits(&node(0, "x"), None, &ip(UDP, 0, &udp(53, 39_999)), at);
        assert!(newest.is_ok() && gate.admits(&node(0, "x"), None, &ip(UDP, 0, &udp(53, 1)), at).is_err());
    }

    proptest! {
        #[test]
        fn any_packet_is_judged(packet in prop::collection::vec(any::<u8>(), 0..120), first in prop::sample::select(vec![0x45u8, 0x46, 0x4F, 0x60])) {
            let (mut gate, mut packet) = (web(), packet);
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            gate.sent(1, &packet, start());
            let _ = admits(&mut gate, &packet, start());
        }
    }
}
