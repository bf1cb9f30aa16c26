//! The tunnel: packets in and out, over whichever path there is.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use derp::Class;
use wireguard::{Kind, Source, To};

use super::{Arrival, Peer};
use crate::access::Refused;
use crate::candidate::Tier;
use crate::dial::Env;
use crate::io::{Event, Via};
use crate::paths::Route;

impl Peer {
    pub(super) fn tunnelled(&mut self, data: &[u8], arrival: Arrival, now: Instant) {
        let (source, from) = match arrival {
            Arrival::Udp(from) => (Source::Udp(from), Some(from)),
            Arrival::Relay { src, .. } => {
                if let Some(id) = self.directory.of_node(&src) {
                    self.enliven(id, now);
                }
                (Source::Relay(src), None)
            }
        };
        let sender = match self.device.handle_datagram(data, source, now) {
            Ok(Some(sender)) => sender,
            Ok(None) => return,
            // Of a session that this side has given up or lost.
            Err(wireguard::Error::UnknownIndex) => return self.lost_session(arrival, now),
            // The second copy of what went both ways.
            Err(wireguard::Error::Replay) => {
                if let Arrival::Relay { src, .. } = arrival
                    && let Some(id) = self.directory.of_node(&src)
                {
                    self.with_paths(id, now, |paths, cx| paths.doubled(cx));
                }
                return;
            }
            // Of a session that one side has given up.
            Err(wireguard::Error::Expired) => return,
            Err(error) => {
                let from = match arrival {
                    Arrival::Udp(from) => from.to_string(),
                    Arrival::Relay { region, .. } => format!("relay region {region}"),
                };
                return self.out.warn(format!("datagram from {from}: {error}"));
            }
        };
        let Some(id) = self.directory.of_wg(sender) else { return };
        let mut content = false;
        while let Some(event) = self.device.poll_event() {
            content |= matches!(event, wireguard::Event::Packet { .. });
            self.tunnel_event(event, Some(arrival));
        }
        if let (Arrival::Relay { region, .. }, Some((_, _, live))) = (arrival, self.directory.live_mut(id)) {
            live.reverse = Some(region);
        }
        if content {
            self.nat.keep_fresh(env!(self, now));
        }
        self.with_paths(id, now, |paths, cx| paths.received(from, content, cx));
    }

    /// Whether that is our address inside the network.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        self.tunnel == Some(ip) || self.tunnel6.is_some_and(|own| IpAddr::V6(own) == ip)
    }

    /// A peer that has come by this way still uses a session that this side does not know, as after a coordination server that
    /// lost its records had it forgotten: it would take 15 s to notice (WireGuard whitepaper §6.5), so this side asks for a new
    /// one. A forger gains no more than a handshake with the real peer, and none while there is a session.
    fn lost_session(&mut self, arrival: Arrival, now: Instant) {
        let id = match arrival {
            Arrival::Relay { src, .. } => self.directory.of_node(&src),
            Arrival::Udp(from) => self.directory.live_ids().into_iter().find(|id| {
                let live = self.directory.get(*id).and_then(|remote| remote.live.as_ref());
                live.and_then(|live| live.paths.selected()).is_some_and(|(address, _)| address == from)
            }),
        };
        if let Some((_, _, live)) = id.and_then(|id| self.directory.live_mut(id))
            && !self.device.is_up(live.wg, now)
        {
            // Without a session that is a handshake, unless one is under way.
            self.device.keepalive(live.wg, now);
        }
    }

    pub(super) fn tunnel_event(&mut self, event: wireguard::Event, arrival: Option<Arrival>) {
        match event {
            wireguard::Event::Packet { peer, data } => {
                let remote = self.directory.of_wg(peer).and_then(|id| self.directory.get(id));
                let (Some(remote), Some(arrival)) = (remote, arrival) else { return };
                let Some((source, destination)) = addresses_of(&data) else {
                    return self.out.warn(format!("not an IP packet, from {}", remote.name));
                };
                if !crate::remote::addresses(&remote.info).any(|own| own == source) {
                    return self.out.warn(format!("packet from {}, sent by {}", source, remote.name));
                }
                if !self.is_own(destination) {
                    return self
                        .out
                        .warn(format!("packet for {}, sent to us by {}", destination, remote.name));
                }
                if let Err(refused) = self.gate.admits(&remote.info, self.own.as_ref(), &data, self.called) {
                    if refused.news {
                        let (peer, Refused { protocol, port, .. }) = (remote.name.clone(), refused);
                        self.out.event(Event::Forbidden { peer, protocol, port });
                    }
                    return;
                }
                let Some(live) = &remote.live else { return };
                let via = match arrival {
                    Arrival::Udp(from) => direct(live.paths.tier(from), from),
                    Arrival::Relay { region, .. } => {
                        Via::Relay(self.relays.name(region).cloned().unwrap_or_else(|| "relay".into()))
                    }
                };
                let (peer, id) = (remote.name.clone(), remote.info.id);
                if let Some((_, _, live)) = self.directory.live_mut(id) {
                    live.received_bytes += data.len() as u64;
                }
                self.out.event(Event::Packet { peer, data, via });
            }
            wireguard::Event::SessionUp { peer, initiator } => {
                let id = self.directory.of_wg(peer);
                if let Some((_, name, live)) = id.and_then(|id| self.directory.live_mut(id)) {
                    live.renew = false;
                    live.handshake = Some(self.called);
                    let peer = name.clone();
                    self.out.event(Event::Session { peer, initiator });
                }
            }
            wireguard::Event::HandshakeFailed { peer } => {
                if let Some(remote) = self.directory.of_wg(peer).and_then(|id| self.directory.get(id)) {
                    self.out.warn(format!("no answer to handshakes from {}", remote.name));
                }
            }
            wireguard::Event::SessionExpired { .. } => {}
        }
    }

    /// Sends what the tunnel has produced.
    pub(super) fn flush_tunnel(&mut self, now: Instant) {
        while let Some(event) = self.device.poll_event() {
            self.tunnel_event(event, None);
        }
        while let Some(transmit) = self.device.poll_transmit() {
            match transmit.to {
                To::Peer(peer) => {
                    if let Some(id) = self.directory.of_wg(peer) {
                        self.send_tunnel(id, transmit.data, transmit.kind, now);
                    }
                }
                To::Reply(Source::Udp(to)) => self.out.datagram(to, transmit.data),
                To::Reply(Source::Relay(key)) => {
                    if let Some(id) = self.directory.of_node(&key) {
                        self.send_relayed(id, transmit.data, Class::Data, now);
                    }
                }
            }
        }
    }

    /// An ICMP error says that a datagram was too big.
    pub(super) fn too_big(&mut self, to: SocketAddr, now: Instant) {
        let to = self.out.reach.meant(to);
        for id in self.directory.live_ids() {
            self.with_paths(id, now, |paths, cx| paths.too_big(to, cx));
        }
    }

    pub(super) fn send_tunnel(&mut self, id: u32, data: Bytes, kind: Kind, now: Instant) {
        let Some((_, _, live)) = self.directory.live_mut(id) else { return };
        let route = live.paths.route(kind == Kind::Data, data.len(), now, &self.policy);
        let deadline = live.paths.poll_timeout(now, &self.policy);
        self.directory.schedule(id, deadline);
        match route {
            Route::Direct(to) => self.out.datagram(to, data),
            Route::Both(to) => {
                self.out.datagram(to, data.clone());
                self.send_relayed(id, data, Class::Data, now);
            }
            Route::Relay => self.send_relayed(id, data, Class::Data, now),
        }
    }

    // ---- relays ------------------------------------------------------------------------------------

    /// The relay to reach a peer by: where it is at home, or where it last was heard if only that is connected.
    pub(super) fn relay_of(&self, id: u32) -> Option<u16> {
        let remote = self.directory.get(id)?;
        let home = remote.info.home_relay.filter(|&region| self.relays.knows(region));
        let reverse = remote.live.as_ref().and_then(|live| live.reverse);
        let connected = home.into_iter().chain(reverse).find(|&region| self.relays.is_up(region));
        connected.or(home).or(reverse).or(self.relays.home())
    }

    pub(super) fn send_relayed(&mut self, id: u32, data: Bytes, class: Class, now: Instant) {
        let region = self.relay_of(id);
        let key = self.directory.get(id).map(|remote| remote.info.node_key);
        if let (Some(region), Some(key)) = (region, key) {
            self.relays.send(region, key, data, class, env!(self, now));
        }
    }

    /// Reports the path to a peer if it is another one than was last reported.
    pub(super) fn tell_path(&mut self, id: u32, reason: &'static str) {
        let Some(remote) = self.directory.get(id) else { return };
        let Some(live) = &remote.live else { return };
        let path = match live.paths.selected() {
            Some((address, tier)) => Some(direct(tier, address)),
            None if live.paths.had_traffic() => {
                let up = self.relay_of(id).filter(|&region| self.relays.is_up(region));
                up.and_then(|region| self.relays.name(region)).cloned().map(Via::Relay)
            }
            None => None,
        };
        let peer = remote.name.clone();
        let Some((_, _, live)) = self.directory.live_mut(id) else { return };
        if live.told != path {
            live.told = path.clone();
            self.out.event(Event::PathChanged { peer, path, reason });
        }
    }
}
fn direct(tier: Tier, address: SocketAddr) -> Via {
    match tier {
        Tier::Lan => Via::Lan(address),
        Tier::Direct => Via::Direct(address),
    }
}

/// Source and destination of an IP packet (RFC 791 §3.1, RFC 8200 §3).
pub(super) fn addresses_of(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn at<const N: usize>(packet: &[u8], offset: usize) -> Option<[u8; N]> {
        packet.get(offset..)?.first_chunk().copied()
    }
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => Some((at::<4>(packet, 12)?.into(), at::<4>(packet, 16)?.into())),
        6 if packet.len() >= 40 => Some((at::<16>(packet, 8)?.into(), at::<16>(packet, 24)?.into())),
        _ => None,
    }
}
