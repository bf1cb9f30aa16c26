//! What the gateway answers and announces by PCP and NAT-PMP.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Client, Event, Heard, Phase};
use crate::pcp::{self, Map, Op};
use crate::{Proto, Protocol, natpmp};

impl Client {
    pub(super) fn answered(&mut self, data: &[u8], announced: bool, now: Instant) {
        if self.phase == Phase::Shut {
            return;
        }
        if data.first() == Some(&natpmp::VERSION) {
            if let Ok(response) = natpmp::Response::decode(data) {
                self.natpmp_answered(response, announced, now);
            }
            return;
        }
        match pcp::Response::decode(data) {
            Ok(response) => self.pcp_answered(&response, announced, now),
            // PCP of another version: nothing that we speak.
            Err(pcp::DecodeError::Refuse(_)) => self.hear(Protocol::Pcp, Heard::No, now),
            Err(pcp::DecodeError::Ignore) => {}
        }
    }

    fn natpmp_answered(&mut self, response: natpmp::Response, announced: bool, now: Instant) {
        let body = response.body;
        if let natpmp::Body::Refused { why: natpmp::Refusal::UnsupportedVersion, .. } = body {
            // RFC 6887 §9 and appendix A: a gateway that has NAT-PMP only answers PCP so.
            return self.hear(Protocol::Pcp, Heard::No, now);
        }
        if !self.config.nat_pmp {
            return;
        }
        let new = self.epochs[1].is_new();
        let same = self.epochs[1].check(Protocol::NatPmp, response.epoch, now);
        match body {
            natpmp::Body::ExternalAddress(ip) => {
                let before = self.public.replace(ip.into());
                let moved = before.is_some_and(|before| before != IpAddr::V4(ip));
                if self.uses(Protocol::NatPmp) && (!same || moved) {
                    self.restarted(Protocol::NatPmp, announced, now);
                } else if announced {
                    self.announced(new || !same || moved, now);
                } else {
                    self.hear(Protocol::NatPmp, Heard::Speaks, now);
                }
            }
            natpmp::Body::Map { proto: Proto::Udp, internal, external, lifetime }
                if internal == self.config.local.port() && self.asks(Protocol::NatPmp) && lifetime != 0 =>
            {
                if let Some(ip) = self.public {
                    let lifetime = Duration::from_secs(lifetime.into());
                    self.mapped(Protocol::NatPmp, SocketAddr::new(ip, external), lifetime, now);
                }
            }
            natpmp::Body::Map { .. } => {}
            natpmp::Body::Refused { opcode: 0, why, .. } => {
                if self.probes[Protocol::NatPmp as usize].heard == Heard::Asking {
                    self.events
                        .push_back(Event::Refused { protocol: Protocol::NatPmp, why: why.to_string() });
                    self.hear(Protocol::NatPmp, Heard::No, now);
                }
            }
            natpmp::Body::Refused { why, .. } if self.asks(Protocol::NatPmp) => {
                self.refused(Protocol::NatPmp, why.to_string(), now);
            }
            natpmp::Body::Refused { .. } => {}
        }
    }

    fn pcp_answered(&mut self, response: &pcp::Response, announced: bool, now: Instant) {
        if response.refused == Some(pcp::Refusal::UnsuppVersion) {
            // What a gateway that has PCP only says to NAT-PMP.
            return self.hear(Protocol::NatPmp, Heard::No, now);
        }
        if !self.config.pcp {
            return;
        }
        let new = self.epochs[0].is_new();
        let same = self.epochs[0].check(Protocol::Pcp, response.epoch, now);
        if !same && self.uses(Protocol::Pcp) {
            self.restarted(Protocol::Pcp, announced, now);
        }
        match (&response.op, response.refused) {
            (Some(Op::Announce), None) if announced => self.announced(new || !same, now),
            (Some(Op::Announce), None) => self.hear(Protocol::Pcp, Heard::Speaks, now),
            (Some(Op::Announce) | None, Some(why))
                if self.probes[Protocol::Pcp as usize].heard == Heard::Asking =>
            {
                self.events.push_back(Event::Refused { protocol: Protocol::Pcp, why: why.to_string() });
                self.hear(Protocol::Pcp, Heard::No, now);
            }
            (Some(Op::Map(map)), refused) if self.asks(Protocol::Pcp) && self.is_ours(map) => match refused {
                Some(why) => self.refused(Protocol::Pcp, why.to_string(), now),
                None => {
                    let lifetime = Duration::from_secs(response.lifetime.into());
                    self.mapped(Protocol::Pcp, map.external, lifetime, now);
                }
            },
            _ => {}
        }
    }

    /// RFC 6887 §11.4: an answer is ours by nonce, protocol and internal port.
    fn is_ours(&self, map: &Map) -> bool {
        let ours = self.map(0);
        (map.nonce, map.protocol, map.internal_port) == (ours.nonce, ours.protocol, ours.internal_port)
    }

    /// Whether a request by this protocol is under way.
    fn asks(&self, protocol: Protocol) -> bool {
        self.task.is_some_and(|task| task.protocol == protocol)
    }

    /// Whether the mapping is by this protocol.
    pub(super) fn uses(&self, protocol: Protocol) -> bool {
        self.mapping.is_some_and(|mapping| mapping.protocol == protocol)
    }
}
