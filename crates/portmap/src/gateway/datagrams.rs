//! NAT-PMP and PCP, which share a port and tell themselves apart by their first byte.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Asker, Event, Gateway, No, Wish};
use crate::natpmp::{self, Body};
use crate::pcp::{self, Map, Op, Opt, Peer};
use crate::{Proto, Protocol, SERVER_PORT};

impl Gateway {
    pub(super) fn datagram(&mut self, from: SocketAddr, data: &[u8], now: Instant) {
        match data.first() {
            Some(&natpmp::VERSION) if self.config.nat_pmp => self.natpmp(from, data, now),
            Some(_) if self.config.pcp => self.pcp(from, data, now),
            // RFC 6886 §3.5: whatever is not version 0 is answered in version 0.
            Some(_) if self.config.nat_pmp => self.natpmp(from, data, now),
            _ => {}
        }
    }

    // ---- NAT-PMP -----------------------------------------------------------------------------------

    fn natpmp(&mut self, from: SocketAddr, data: &[u8], now: Instant) {
        let refused = |opcode, why| Body::Refused { opcode, internal: None, why };
        let body = match natpmp::Request::decode(data) {
            Ok(natpmp::Request::ExternalAddress) => match (self.may_map(), self.told_external()) {
                (Ok(()), Some(IpAddr::V4(external))) => Body::ExternalAddress(external),
                (Err(no), _) => refused(0, natpmp_refusal(no)),
                _ => refused(0, natpmp::Refusal::NetworkFailure),
            },
            Ok(natpmp::Request::Map { proto, internal, external, lifetime }) => {
                return self.natpmp_map(from, proto, internal, external, lifetime, now);
            }
            Err(natpmp::DecodeError::Version(_, opcode)) if opcode < 128 => {
                refused(opcode, natpmp::Refusal::UnsupportedVersion)
            }
            Err(natpmp::DecodeError::Opcode(opcode)) if opcode < 128 => {
                refused(opcode, natpmp::Refusal::UnsupportedOpcode)
            }
            Err(_) => return,
        };
        self.send_natpmp(from, body, now);
    }

    fn natpmp_map(
        &mut self,
        from: SocketAddr,
        proto: Proto,
        internal: u16,
        external: u16,
        lifetime: u32,
        now: Instant,
    ) {
        let inside = SocketAddr::new(from.ip(), internal);
        if lifetime == 0 {
            // §3.4: internal port 0 means all of the client's mappings of that protocol.
            let mine = |port: u16| internal == 0 || internal == port;
            let gone = self.leases.take(|lease| {
                lease.proto == proto && lease.inside.ip() == from.ip() && mine(lease.inside.port())
            });
            for lease in &gone {
                self.unmap(lease, "deleted");
            }
            let body = Body::Map { proto, internal, external: 0, lifetime: 0 };
            return self.send_natpmp(from, body, now);
        }
        let wish = Wish {
            protocol: Protocol::NatPmp,
            proto,
            inside,
            remote: None,
            port: external,
            exact: false,
            lifetime: Some(self.lifetime(Duration::from_secs(lifetime.into()))),
            nonce: None,
            text: "NAT-PMP".into(),
        };
        let asker = Asker::NatPmp { from, internal };
        let refused = match self.may_map() {
            Err(no) => Some(no),
            // A mapping of all ports is not in NAT-PMP.
            Ok(()) if internal == 0 || !from.is_ipv4() => Some(No::Unsupported),
            Ok(()) => None,
        };
        if let Some(no) = refused {
            return self.refuse(&wish, asker, no, now);
        }
        match self.leases.inside(proto, inside, None) {
            Some(index) => self.renew(index, &wish, asker, now),
            None => self.ask(wish, asker, now),
        }
    }

    pub(super) fn grant_natpmp(
        &mut self,
        from: SocketAddr,
        proto: Proto,
        internal: u16,
        external: SocketAddr,
        lifetime: u32,
        now: Instant,
    ) {
        let body = Body::Map { proto, internal, external: external.port(), lifetime };
        self.send_natpmp(from, body, now);
    }

    pub(super) fn refuse_natpmp(
        &mut self,
        from: SocketAddr,
        proto: Proto,
        internal: u16,
        no: No,
        now: Instant,
    ) -> String {
        let why = natpmp_refusal(no);
        let opcode = if proto == Proto::Udp { 1 } else { 2 };
        self.send_natpmp(from, Body::Refused { opcode, internal: Some(internal), why }, now);
        why.to_string()
    }

    fn send_natpmp(&mut self, to: SocketAddr, body: Body, now: Instant) {
        let epoch = self.epoch(now);
        self.send(SERVER_PORT, to, natpmp::Response { epoch, body }.to_vec());
    }

    // ---- PCP ---------------------------------------------------------------------------------------

    fn pcp(&mut self, from: SocketAddr, data: &[u8], now: Instant) {
        let request = match pcp::Request::decode(data) {
            Ok(request) => request,
            Err(pcp::DecodeError::Ignore) => return,
            Err(pcp::DecodeError::Refuse(why)) => return self.send_refusal(from, data, why, now),
        };
        // §8.1: a NAT between client and server shows in this.
        if request.client.to_canonical() != from.ip().to_canonical() {
            return self.send_refusal(from, data, pcp::Refusal::AddressMismatch, now);
        }
        if let Err(why) = known_options(&request) {
            return self.send_refusal(from, data, why, now);
        }
        let exact = request.options.contains(&Opt::PreferFailure);
        // Options from 128 up are left out of the answer, as they were not processed (§7.3).
        let options: Vec<Opt> = if exact { vec![Opt::PreferFailure] } else { Vec::new() };
        let (map, remote) = match request.op {
            Op::Announce => {
                let epoch = self.epoch(now);
                let op = Some(Op::Announce);
                let answer = pcp::Response { refused: None, lifetime: 0, epoch, op, options };
                return self.send(SERVER_PORT, from, answer.to_vec());
            }
            Op::Map(map) => (map, None),
            Op::Peer(Peer { map, remote }) => (map, Some(remote)),
        };
        if request.lifetime == 0 && remote.is_none() {
            return self.pcp_delete(from, data, &map, options, now);
        }
        let Some(proto) = Proto::from_number(map.protocol) else {
            return self.send_refusal(from, data, pcp::Refusal::UnsuppProtocol, now);
        };
        let malformed = map.internal_port == 0
            || remote.is_some_and(|remote| {
                remote.port() == 0 || remote.ip().is_unspecified() || remote.is_ipv4() != from.is_ipv4()
            });
        if malformed {
            return self.send_refusal(from, data, pcp::Refusal::MalformedRequest, now);
        }
        let wish = Wish {
            protocol: Protocol::Pcp,
            proto,
            inside: SocketAddr::new(from.ip(), map.internal_port),
            remote,
            port: map.external.port(),
            exact,
            lifetime: Some(self.lifetime(Duration::from_secs(request.lifetime.into()))),
            nonce: Some(map.nonce),
            text: format!("PCP {} {}", if remote.is_some() { "PEER" } else { "MAP" }, proto.as_str()),
        };
        let asker = Asker::Pcp { from, op: request.op, options, request: data.to_vec().into() };
        if let Err(no) = self.may_map() {
            return self.refuse(&wish, asker, no, now);
        }
        let Some(index) = self.leases.inside(proto, wish.inside, remote) else {
            return self.ask(wish, asker, now);
        };
        let Some(lease) = self.leases.get(index) else { return };
        let other_nonce = lease.nonce.is_some_and(|nonce| nonce != map.nonce);
        let other_port = map.external.port() != 0 && map.external.port() != lease.external.port();
        if other_nonce && self.config.strict_nonce {
            self.refuse(&wish, asker, No::NotAuthorized, now);
        } else if exact && other_port {
            self.refuse(&wish, asker, No::Taken, now);
        } else {
            self.renew(index, &wish, asker, now);
        }
    }

    /// §15: protocol 0 means all of the client's mappings, internal port 0 all of one protocol. Those of another nonce stay.
    fn pcp_delete(&mut self, from: SocketAddr, data: &[u8], map: &Map, options: Vec<Opt>, now: Instant) {
        if map.protocol == 0 && map.internal_port != 0 {
            return self.send_refusal(from, data, pcp::Refusal::MalformedRequest, now);
        }
        let all = map.protocol == 0 || map.internal_port == 0;
        let (nonce, protocol, port) = (map.nonce, map.protocol, map.internal_port);
        let named = |lease: &super::Lease| {
            lease.inside.ip() == from.ip()
                && lease.remote.is_none()
                && (protocol == 0 || lease.proto.number() == protocol)
                && (port == 0 || lease.inside.port() == port)
        };
        let gone = self.leases.take(|lease| named(lease) && lease.nonce.is_none_or(|other| other == nonce));
        for lease in &gone {
            self.unmap(lease, "deleted");
        }
        if !all && gone.is_empty() && !self.leases.has_none(named) {
            self.events.push_back(Event::Refused {
                protocol: Protocol::Pcp,
                from,
                why: "deletion with another nonce".into(),
            });
            return self.send_refusal(from, data, pcp::Refusal::NotAuthorized, now);
        }
        let external = gone.first().map_or(map.external, |lease| lease.external);
        self.grant_pcp(from, Op::Map(*map), options, external, 0, now);
    }

    pub(super) fn grant_pcp(
        &mut self,
        to: SocketAddr,
        op: Op,
        options: Vec<Opt>,
        external: SocketAddr,
        lifetime: u32,
        now: Instant,
    ) {
        let op = Some(match op {
            Op::Announce => Op::Announce,
            Op::Map(map) => Op::Map(Map { external, ..map }),
            Op::Peer(peer) => Op::Peer(Peer { map: Map { external, ..peer.map }, ..peer }),
        });
        let epoch = self.epoch(now);
        let answer = pcp::Response { refused: None, lifetime, epoch, op, options };
        self.send(SERVER_PORT, to, answer.to_vec());
    }

    pub(super) fn refuse_pcp(&mut self, to: SocketAddr, request: &[u8], no: No, now: Instant) -> String {
        // miniupnpd answers so where its own address is private.
        let private =
            !self.config.maps_behind_nat && self.told_external().is_some_and(|ip| !crate::is_public(ip));
        let why = match no {
            No::NotAuthorized => pcp::Refusal::NotAuthorized,
            No::NetworkFailure if private => pcp::Refusal::NoResources,
            No::NetworkFailure => pcp::Refusal::NetworkFailure,
            No::Full => pcp::Refusal::NoResources,
            No::Quota => pcp::Refusal::UserExQuota,
            No::Taken => pcp::Refusal::CannotProvideExternal,
            No::Unsupported => pcp::Refusal::UnsuppProtocol,
        };
        self.send_refusal(to, request, why, now);
        why.to_string()
    }

    fn send_refusal(&mut self, to: SocketAddr, request: &[u8], why: pcp::Refusal, now: Instant) {
        let data = pcp::refuse(request, why, self.epoch(now));
        self.send(SERVER_PORT, to, data);
    }
}

/// §7.3: options below 128 must be understood, and each may be there once.
fn known_options(request: &pcp::Request) -> Result<(), pcp::Refusal> {
    let mut prefers = 0;
    for option in &request.options {
        match option {
            Opt::PreferFailure => prefers += 1,
            Opt::Unknown { code: 128.., .. } => {}
            Opt::ThirdParty(_) | Opt::Filter { .. } | Opt::Unknown { .. } => {
                return Err(pcp::Refusal::UnsuppOption);
            }
        }
    }
    // §13.2: with MAP only.
    let maps = matches!(request.op, Op::Map(_));
    if prefers > 1 || (prefers == 1 && !maps) { Err(pcp::Refusal::MalformedOption) } else { Ok(()) }
}

fn natpmp_refusal(no: No) -> natpmp::Refusal {
    match no {
        No::NotAuthorized => natpmp::Refusal::NotAuthorized,
        No::NetworkFailure => natpmp::Refusal::NetworkFailure,
        No::Full | No::Quota | No::Taken => natpmp::Refusal::OutOfResources,
        No::Unsupported => natpmp::Refusal::UnsupportedOpcode,
    }
}
