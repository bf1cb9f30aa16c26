//! A firewall that translates nothing.

mod config;

pub use config::{Allow, FirewallConfig, Inbound};

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use crate::key::{Epoch, Key, Map};
use crate::session::{Direction, Sessions};
use crate::{DropReason, Event, Middlebox, Packet, Proto, Side, Verdict};

/// A stateful packet filter. See the crate's front page.
#[derive(Debug)]
pub struct Firewall {
    config: FirewallConfig,
    epoch: Epoch,
    sessions: Sessions<(Proto, SocketAddr, SocketAddr)>,
    by_endpoints: Map<Key, u32>,
    events: Option<VecDeque<Event>>,
}

impl Firewall {
    /// A firewall.
    pub fn new(config: FirewallConfig) -> Firewall {
        Firewall {
            sessions: Sessions::new(&config.timeouts, config.capacity),
            config,
            epoch: Epoch::default(),
            by_endpoints: Map::default(),
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

    fn expire(&mut self, now: u64) {
        while let Some(((proto, inside, remote), at)) = self.sessions.pop_expired(now) {
            self.by_endpoints.swap_remove(&Key::pair(proto, inside, remote));
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
    }

    fn allowed_out(&self, proto: Proto, port: u16) -> bool {
        let Some(allowed) = &self.config.outbound else { return true };
        allowed
            .iter()
            .any(|allow| allow.proto == proto && (proto == Proto::Icmp || allow.ports.contains(port)))
    }

    fn judge(&mut self, side: Side, packet: &mut dyn Packet, now: u64) -> Result<(), DropReason> {
        let stateless = self.config.inbound == Inbound::Open && self.config.outbound.is_none();
        if let Some(quoted) = packet.quoted() {
            // An error answers what it quotes, so the quoted packet went the other way.
            let (proto, src, dst) = (quoted.proto(), quoted.src(), quoted.dst());
            let key =
                if side == Side::Outside { Key::pair(proto, src, dst) } else { Key::pair(proto, dst, src) };
            let known = stateless || self.by_endpoints.contains_key(&key);
            return if known { Ok(()) } else { Err(DropReason::UnknownQuote) };
        }
        let (proto, src, dst, flags) = (packet.proto(), packet.src(), packet.dst(), packet.tcp_flags());
        if proto == Proto::Udp && self.config.udp_blocked {
            return Err(DropReason::UdpBlocked);
        }
        if stateless {
            return Ok(());
        }
        let (direction, inside, remote) = match side {
            Side::Inside => (Direction::Out, src, dst),
            Side::Outside => (Direction::In, dst, src),
        };
        let key = Key::pair(proto, inside, remote);
        if let Some(&session) = self.by_endpoints.get(&key) {
            self.sessions.touch(session, direction, flags, true, now);
            return Ok(());
        }
        match side {
            Side::Inside if !self.allowed_out(proto, dst.port()) => return Err(DropReason::PortNotAllowed),
            Side::Outside if self.config.inbound == Inbound::Stateful => return Err(DropReason::Unsolicited),
            _ => {}
        }
        if flags.is_some_and(|flags| flags.rst) {
            return Err(DropReason::NotASyn);
        }
        if self.sessions.is_full() {
            return Err(DropReason::TableFull);
        }
        let session = self.sessions.insert((proto, inside, remote), proto, now);
        self.sessions.touch(session, direction, flags, true, now);
        self.by_endpoints.insert(key, session);
        if let (Some(events), Some(at)) = (&mut self.events, self.epoch.instant(now)) {
            events.push_back(Event::BindingCreated { at, proto, inside, external: inside, remote });
        }
        Ok(())
    }
}

impl Middlebox for Firewall {
    fn packet(&mut self, side: Side, packet: &mut dyn Packet, now: Instant) -> Verdict {
        let now = self.epoch.ns(now);
        self.expire(now);
        match (self.judge(side, packet, now), side) {
            (Ok(()), Side::Inside) => Verdict::Forward(Side::Outside),
            (Ok(()), Side::Outside) => Verdict::Forward(Side::Inside),
            (Err(reason), _) => Verdict::Drop(reason),
        }
    }

    fn clear(&mut self) {
        self.sessions.clear();
        self.by_endpoints.clear();
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

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let due = self.sessions.next_due()?;
        Some((self.epoch.instant(due)?, "a conversation may expire"))
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.epoch.ns(now);
        self.expire(now);
    }
}
