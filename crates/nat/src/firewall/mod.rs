//! A firewall that translates nothing.

mod bogon;
mod bucket;
mod change;
mod config;
mod late;
mod pinhole;
mod rule;
mod tls;

pub use bucket::{Police, PoliceRate, PoliceUnit};
pub use change::RuleChange;
pub use config::{FirewallConfig, Inbound, InboundRefusal, Portal, Refusal, UdpLimits};
pub use pinhole::Pinhole;
pub use rule::{Rule, Who};

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use rand::RngExt as _;
use rand_pcg::Pcg64Mcg;

use self::bucket::Bucket;
use self::late::Late;
use self::tls::Inspection;
use crate::key::{Epoch, Key, Map, bits, to_ns};
use crate::session::{Direction, Sessions};
use crate::{Answer, DropReason, Event, LateAnswer, Middlebox, Packet, Proto, Side, TcpFlags, Verdict};

/// Parts in a whole, for shares.
const BILLION: u32 = 1_000_000_000;
/// What a captive portal lets pass before it is accepted: DNS and DHCP, for IPv4 and IPv6 (RFC 8952 §2.1, §3).
const PORTAL_PORTS: [u16; 5] = [53, 67, 68, 546, 547];

/// A conversation of an endpoint inside with one outside.
#[derive(Debug)]
struct Flow {
    proto: Proto,
    inside: SocketAddr,
    remote: SocketAddr,
    /// Whether the inside has sent: only then does it open a filter that looks at less than both ends.
    opener: bool,
    /// What is counted or looked at, if something is.
    watch: Option<Box<Watch>>,
}

/// What a firewall that counts or looks into conversations knows of one.
#[derive(Debug, Default)]
struct Watch {
    packets: u64,
    bytes: u64,
    /// Out, in.
    buckets: [Bucket; 2],
    tls: Option<Inspection>,
}

/// Where a captive portal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// Nothing has been refused yet.
    Closed,
    /// Opens by itself at this time.
    Opens(u64),
    Open,
}

/// Why a packet goes no further, and what its sender hears.
type Refused = (DropReason, Option<Answer>);

/// A stateful packet filter. See the crate's front page.
#[derive(Debug)]
pub struct Firewall {
    config: FirewallConfig,
    stateless: bool,
    /// Whether packets are looked at before their conversation is.
    door: bool,
    /// Whether conversations are counted or looked into.
    watching: bool,
    epoch: Epoch,
    rng: Pcg64Mcg,
    gate: Gate,
    /// Of all UDP: out, in.
    buckets: [Bucket; 2],
    sessions: Sessions<Flow>,
    by_endpoints: Map<Key, u32>,
    /// With a lax filter: how many conversations open it, by what the filter looks at.
    openers: Map<Key, u32>,
    pinholes: Map<Key, Pinhole>,
    late: Late,
    events: Option<VecDeque<Event>>,
}

impl Firewall {
    /// A firewall. `rng` draws which packets are lost, where some are.
    pub fn new(config: FirewallConfig, rng: Pcg64Mcg) -> Firewall {
        Firewall {
            stateless: config.is_stateless(),
            door: config.has_door(),
            watching: !config.tls.is_empty() || config.udp.per_flow(),
            sessions: Sessions::new(&config.timeouts, config.capacity),
            gate: if config.portal == Portal::Off { Gate::Open } else { Gate::Closed },
            config,
            epoch: Epoch::default(),
            rng,
            buckets: [Bucket::default(); 2],
            by_endpoints: Map::default(),
            openers: Map::default(),
            pinholes: Map::default(),
            late: Late::default(),
            events: None,
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &FirewallConfig {
        &self.config
    }

    /// How many conversations the table holds, those that expired since the last packet included.
    pub fn conversations(&self) -> usize {
        self.sessions.len()
    }

    /// The user has accepted the terms: the captive portal is open until the box forgets.
    pub fn accept_portal(&mut self) {
        self.gate = Gate::Open;
    }

    /// Adds rules or takes some away. Conversations, counters and the captive portal stay as they are.
    pub fn change_rules(&mut self, change: &RuleChange) {
        change.apply(&mut self.config);
        // Of what is worked out from the configuration, the lists decide this alone: one of what may go out stays a list.
        self.door = self.config.has_door();
    }

    /// When the next answer to a refused connection comes due.
    pub fn next_answer(&self) -> Option<Instant> {
        self.epoch.instant(self.late.next_due()?)
    }

    fn expire(&mut self, now: u64) {
        while let Some((flow, at)) = self.sessions.pop_expired(now) {
            let Flow { proto, inside, remote, opener, .. } = flow;
            self.by_endpoints.swap_remove(&Key::pair(proto, inside, remote));
            if opener {
                self.close_filter(proto, inside, remote);
            }
            if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(at)) {
                events.push_back(Event::BindingExpired {
                    at,
                    proto,
                    inside,
                    external: inside,
                    remote,
                    why: crate::Ended::Expired,
                });
            }
        }
        if self.late.is_due(now) {
            let known = &self.by_endpoints;
            self.late
                .expire(now, |inside, remote| known.contains_key(&Key::pair(Proto::Tcp, inside, remote)));
        }
    }

    // ---- rules -------------------------------------------------------------------------------------

    fn allowed_out(&self, proto: Proto, inside: SocketAddr, remote: SocketAddr) -> bool {
        let Some(allowed) = &self.config.outbound else { return true };
        allowed.iter().any(|rule| rule.matches(proto, inside.ip(), remote))
    }

    /// What the sender of a packet that a rule refuses is told.
    fn refuse(&self, reason: DropReason, side: Side, proto: Proto) -> Refused {
        let reset = if proto == Proto::Tcp { Answer::Reset } else { Answer::PortUnreachable };
        let answer = match side {
            Side::Inside => match self.config.answer {
                Refusal::Drop => None,
                Refusal::Icmp => Some(Answer::Prohibited),
                Refusal::Reset => Some(reset),
            },
            Side::Outside => match self.config.answer_inbound {
                InboundRefusal::Drop | InboundRefusal::Late => None,
                InboundRefusal::Icmp => Some(Answer::Prohibited),
                InboundRefusal::Reset => Some(reset),
            },
        };
        (reason, answer)
    }

    /// What may stop a packet whatever its conversation.
    fn at_the_door(
        &mut self,
        side: Side,
        packet: &dyn Packet,
        (inside, remote): (SocketAddr, SocketAddr),
        now: u64,
    ) -> Result<(), Refused> {
        let proto = packet.proto();
        if !self.config.bogons && bogon::is_bogon(packet.src().ip(), packet.dst().ip()) {
            return Err((DropReason::Bogon, None));
        }
        if self.config.block.iter().any(|rule| rule.matches(proto, inside.ip(), remote)) {
            return Err(self.refuse(DropReason::Blocked, side, proto));
        }
        let offered = proto != Proto::Icmp && PORTAL_PORTS.contains(&remote.port());
        if !offered && !self.gate_open(now) {
            if let (Gate::Closed, Portal::After(wait)) = (self.gate, self.config.portal) {
                self.gate = Gate::Opens(now.saturating_add(to_ns(wait)));
            }
            return Err(self.refuse(DropReason::Portal, side, proto));
        }
        if proto == Proto::Udp {
            let limits = &self.config.udp;
            let share = match side {
                Side::Inside => limits.loss_out_ppb,
                Side::Outside => limits.loss_in_ppb,
            };
            if share > 0 && self.rng.random_range(0..BILLION) < share {
                return Err((DropReason::Lost, None));
            }
            if limits.max_bytes.is_some_and(|most| packet.wire_len() as u64 > most) {
                return Err((DropReason::TooLong, None));
            }
            let bucket = &mut self.buckets[usize::from(side == Side::Outside)];
            if limits.rate.is_some_and(|police| !bucket.take(&police, packet.wire_len(), now)) {
                return Err((DropReason::OverRate, None));
            }
        }
        Ok(())
    }

    fn gate_open(&mut self, now: u64) -> bool {
        if let Gate::Opens(at) = self.gate
            && at <= now
        {
            self.gate = Gate::Open;
        }
        self.gate == Gate::Open
    }

    // ---- conversations -----------------------------------------------------------------------------

    /// What a lax filter knows a conversation by; `None` for a filter that looks at both ends.
    fn opening(&self, proto: Proto, inside: SocketAddr, remote: SocketAddr) -> Option<Key> {
        match self.config.inbound {
            Inbound::EndpointIndependent => Some(Key::of(proto, inside)),
            Inbound::AddressDependent => Some(Key::new(proto, inside, bits(remote.ip()), 0)),
            Inbound::Open | Inbound::Stateful => None,
        }
    }

    fn open_filter(&mut self, slot: u32) {
        if matches!(self.config.inbound, Inbound::Open | Inbound::Stateful) {
            return;
        }
        let flow = self.sessions.owner_mut(slot);
        if std::mem::replace(&mut flow.opener, true) {
            return;
        }
        let (proto, inside, remote) = (flow.proto, flow.inside, flow.remote);
        if let Some(key) = self.opening(proto, inside, remote) {
            *self.openers.entry(key).or_default() += 1;
        }
    }

    fn close_filter(&mut self, proto: Proto, inside: SocketAddr, remote: SocketAddr) {
        let Some(key) = self.opening(proto, inside, remote) else { return };
        if let Some(count) = self.openers.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.openers.swap_remove(&key);
            }
        }
    }

    /// Whether a packet of an unknown conversation comes in.
    fn lets_in(&self, proto: Proto, inside: SocketAddr, remote: SocketAddr) -> bool {
        match self.config.inbound {
            Inbound::Open => true,
            Inbound::Stateful => false,
            Inbound::EndpointIndependent | Inbound::AddressDependent => {
                self.opening(proto, inside, remote).is_some_and(|key| self.openers.contains_key(&key))
            }
        }
    }

    /// Counts a packet of a conversation and looks into it.
    fn watch(&mut self, slot: u32, side: Side, packet: &dyn Packet, now: u64) -> Result<(), Refused> {
        let flow = self.sessions.owner_mut(slot);
        let proto = flow.proto;
        let Some(watch) = &mut flow.watch else { return Ok(()) };
        if let (Some(inspection), Some(flags)) = (&mut watch.tls, packet.tcp_flags()) {
            return inspect(inspection, side, packet, flags);
        }
        if proto != Proto::Udp {
            return Ok(());
        }
        let (limits, bytes) = (&self.config.udp, packet.wire_len());
        let (packets, sum) = (watch.packets + 1, watch.bytes.saturating_add(bytes as u64));
        if limits.flow_packets.is_some_and(|most| packets > most)
            || limits.flow_bytes.is_some_and(|most| sum > most)
        {
            return Err((DropReason::FlowUsedUp, None));
        }
        let bucket = &mut watch.buckets[usize::from(side == Side::Outside)];
        if limits.flow_rate.is_some_and(|police| !bucket.take(&police, bytes, now)) {
            return Err((DropReason::FlowOverRate, None));
        }
        (watch.packets, watch.bytes) = (packets, sum);
        Ok(())
    }

    /// What is to be watched of a new conversation.
    fn new_watch(&self, side: Side, packet: &dyn Packet, remote: SocketAddr) -> Option<Box<Watch>> {
        if !self.watching {
            return None;
        }
        let inspected = side == Side::Inside
            && packet.proto() == Proto::Tcp
            && self.config.tls.iter().any(|ports| ports.contains(remote.port()));
        let tls = inspected.then(|| Inspection::new(packet.tcp_seq()));
        (tls.is_some() || packet.proto() == Proto::Udp).then(|| Box::new(Watch { tls, ..Watch::default() }))
    }

    fn judge(&mut self, side: Side, packet: &mut dyn Packet, now: u64) -> Result<(), Refused> {
        if let Some(quoted) = packet.quoted() {
            // An error answers what it quotes, so the quoted packet went the other way.
            let (proto, src, dst) = (quoted.proto(), quoted.src(), quoted.dst());
            let (inside, remote) = if side == Side::Outside { (src, dst) } else { (dst, src) };
            if self.door {
                self.at_the_door(side, packet, (inside, remote), now)?;
            }
            let known = self.stateless || self.by_endpoints.contains_key(&Key::pair(proto, inside, remote));
            return if known { Ok(()) } else { Err((DropReason::UnknownQuote, None)) };
        }
        let (proto, src, dst, flags) = (packet.proto(), packet.src(), packet.dst(), packet.tcp_flags());
        let (direction, inside, remote) = match side {
            Side::Inside => (Direction::Out, src, dst),
            Side::Outside => (Direction::In, dst, src),
        };
        if self.door {
            self.at_the_door(side, packet, (inside, remote), now)?;
        }
        if proto == Proto::Udp && self.config.udp_blocked {
            return Err(self.refuse(DropReason::UdpBlocked, side, proto));
        }
        if self.stateless {
            return Ok(());
        }
        let key = Key::pair(proto, inside, remote);
        if let Some(&session) = self.by_endpoints.get(&key) {
            if self.watching {
                self.watch(session, side, packet, now)?;
            }
            self.sessions.touch(session, direction, flags, true, now);
            if direction == Direction::Out {
                self.open_filter(session);
            }
            return Ok(());
        }
        match side {
            Side::Inside if !self.allowed_out(proto, inside, remote) => {
                return Err(self.refuse(DropReason::PortNotAllowed, side, proto));
            }
            Side::Outside
                if !self.lets_in(proto, inside, remote) && !self.has_pinhole(proto, inside, remote) =>
            {
                if self.config.answer_inbound == InboundRefusal::Late
                    && flags.is_some_and(|flags| flags.syn && !flags.ack && !flags.rst)
                {
                    self.late.refused(inside, remote, now);
                }
                return Err(self.refuse(DropReason::Unsolicited, side, proto));
            }
            _ => {}
        }
        if flags.is_some_and(|flags| flags.rst) {
            return Err((DropReason::NotASyn, None));
        }
        if self.sessions.is_full() {
            return Err((DropReason::TableFull, None));
        }
        let watch = self.new_watch(side, packet, remote);
        if watch.as_ref().is_some_and(|watch| watch.tls.is_some()) && flags.is_none_or(|flags| !flags.syn) {
            // Its beginning was not seen, so nobody can say that it was TLS.
            return Err((DropReason::NotASyn, Some(Answer::Reset)));
        }
        let flow = Flow { proto, inside, remote, opener: false, watch };
        let session = self.sessions.insert(flow, proto, now);
        self.by_endpoints.insert(key, session);
        if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(now)) {
            events.push_back(Event::BindingCreated { at, proto, inside, external: inside, remote });
        }
        if self.watching {
            self.watch(session, side, packet, now)?;
        }
        self.sessions.touch(session, direction, flags, true, now);
        if direction == Direction::Out {
            self.open_filter(session);
        }
        Ok(())
    }
}

/// Whether a segment of an inspected connection goes on.
fn inspect(
    inspection: &mut Inspection,
    side: Side,
    packet: &dyn Packet,
    flags: TcpFlags,
) -> Result<(), Refused> {
    // Whoever gives up may say so.
    if flags.rst {
        return Ok(());
    }
    // A new connection on the ports of an old one.
    if side == Side::Inside && flags.syn && inspection.state() != tls::State::Open {
        *inspection = Inspection::new(packet.tcp_seq());
    }
    let before = inspection.state();
    let state = match side {
        Side::Inside => inspection.client(packet.tcp_seq(), flags.syn, packet.payload()),
        Side::Outside => inspection.server(packet.payload()),
    };
    match (before, state) {
        (_, tls::State::Open | tls::State::Tls) => Ok(()),
        (tls::State::Cut, _) => Err((DropReason::NotTls, Some(Answer::Reset))),
        _ => Err((DropReason::NotTls, Some(Answer::ResetBoth))),
    }
}

impl Middlebox for Firewall {
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, now: Instant) -> Verdict {
        let now = self.epoch.ns(now);
        self.expire(now);
        match (self.judge(side, packet, now), side) {
            (Ok(()), Side::Inside) => Verdict::Forward(Side::Outside),
            (Ok(()), Side::Outside) => Verdict::Forward(Side::Inside),
            (Err((reason, None)), _) => Verdict::Drop(reason),
            (Err((reason, Some(answer))), _) => Verdict::Reject(reason, answer),
        }
    }

    fn clear(&mut self) {
        self.sessions.clear();
        self.by_endpoints.clear();
        self.openers.clear();
        self.pinholes.clear();
        self.late.clear();
        self.buckets = [Bucket::default(); 2];
        if self.config.portal != Portal::Off {
            self.gate = Gate::Closed;
        }
        if let Some(events) = &mut self.events {
            events.push_back(Event::Cleared);
        }
    }

    fn set_events(&mut self, on: bool) {
        self.events = on.then(VecDeque::new);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.as_mut()?.pop_front()
    }

    fn poll_answer(&mut self) -> Option<LateAnswer> {
        self.late.poll()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let expiry = self.sessions.next_due().map(|due| (due, "a conversation may expire"));
        let answer = self.late.next_due().map(|due| (due, "a refused connection is answered"));
        let (due, why) = expiry.into_iter().chain(answer).min()?;
        Some((self.epoch.instant(due)?, why))
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.epoch.ns(now);
        self.expire(now);
    }
}
