//! A port of the router's that is open to everybody, asked for by PCP, NAT-PMP or UPnP.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use portmap::client::{Client, ClientConfig, Event as Told, Input, Transmit as Sent};
use portmap::{SERVER_PORT, upnp::SSDP};
use rand::Rng as _;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::dial::Env;
use crate::io::{ConnId, Event, Transmit};

/// The client, while there is a gateway, and which of the peer's connections are its own.
#[derive(Debug, Default)]
pub(crate) struct PortMap {
    gateway: Option<IpAddr>,
    client: Option<Client>,
    conn: Option<(portmap::client::ConnId, ConnId)>,
    /// The peer ends: nothing is asked for any more.
    shut: bool,
}

impl PortMap {
    pub(crate) fn set_gateway(&mut self, gateway: Option<IpAddr>) {
        self.gateway = gateway;
    }

    /// These are our own addresses now. Another one, or another gateway, is another network, where nothing is mapped.
    pub(crate) fn set_local(&mut self, local: &[SocketAddr], env: &mut Env<'_>) {
        let of_family =
            |gateway: &IpAddr| local.iter().copied().find(|address| address.is_ipv4() == gateway.is_ipv4());
        let wanted = self.gateway.and_then(|gateway| Some((of_family(&gateway)?, gateway)));
        let has = self.client.as_ref().map(|client| (client.config().local, client.config().gateway));
        if wanted == has || self.shut {
            return;
        }
        if let Some((_, conn)) = self.conn.take() {
            env.out.transmits.push_back(Transmit::Close(conn));
        }
        self.client = wanted.map(|(local, gateway)| {
            let mut seed = [0; 32];
            env.rng.fill_bytes(&mut seed);
            Client::new(ClientConfig::new(local, gateway), ChaCha12Rng::from_seed(seed), env.now)
        });
        self.handle_timeout(env);
    }

    /// Where the port is open, if it is.
    pub(crate) fn external(&self) -> Option<SocketAddr> {
        self.client.as_ref().and_then(Client::external)
    }

    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.conn.is_some_and(|(_, ours)| ours == conn)
    }

    /// Takes a datagram of the data socket, if it is the gateway's.
    pub(crate) fn datagram(&mut self, from: SocketAddr, data: &[u8], env: &mut Env<'_>) -> bool {
        let served = from.port() == SERVER_PORT || from.port() == SSDP.port();
        let Some(client) = &mut self.client else { return false };
        if !served || client.config().gateway != from.ip() {
            return false;
        }
        client.handle(Input::Datagram { from, data }, env.now);
        self.pump(env);
        true
    }

    /// A datagram to the group to which gateways announce.
    pub(crate) fn announcement(&mut self, from: SocketAddr, data: &[u8], env: &mut Env<'_>) {
        if let Some(client) = &mut self.client {
            client.handle(Input::Announcement { from, data }, env.now);
            self.pump(env);
        }
    }

    pub(crate) fn stream(&mut self, data: &[u8], env: &mut Env<'_>) {
        if let (Some(client), Some((theirs, _))) = (&mut self.client, self.conn) {
            client.handle(Input::Stream(theirs, data), env.now);
            self.pump(env);
        }
    }

    pub(crate) fn writable(&mut self, space: usize, env: &mut Env<'_>) {
        if let (Some(client), Some((theirs, _))) = (&mut self.client, self.conn) {
            client.handle(Input::Writable(theirs, space), env.now);
            self.pump(env);
        }
    }

    pub(crate) fn closed(&mut self, env: &mut Env<'_>) {
        if let (Some(client), Some((theirs, _))) = (&mut self.client, self.conn.take()) {
            client.handle(Input::Closed(theirs), env.now);
            self.pump(env);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.client.as_ref().and_then(Client::poll_timeout)
    }

    pub(crate) fn handle_timeout(&mut self, env: &mut Env<'_>) {
        let Some(client) = &mut self.client else { return };
        if client.poll_timeout().is_some_and(|(at, _)| at <= env.now) {
            client.handle_timeout(env.now);
            self.pump(env);
        }
    }

    /// Gives the port back.
    pub(crate) fn shutdown(&mut self, env: &mut Env<'_>) {
        self.shut = true;
        if let Some(client) = &mut self.client {
            client.shutdown(env.now);
            self.pump(env);
        }
    }

    /// Whether the port is given back, or there was none.
    pub(crate) fn is_finished(&self) -> bool {
        self.client.as_ref().is_none_or(Client::is_finished)
    }

    /// Carries what the client wants to where it belongs.
    fn pump(&mut self, env: &mut Env<'_>) {
        let Some(client) = &mut self.client else { return };
        while let Some(sent) = client.poll_transmit() {
            match sent {
                // To the LAN, whatever stands between us and the internet.
                Sent::Datagram { to, data } => env.out.transmits.push_back(Transmit::Datagram { to, data }),
                Sent::Connect { conn, to } => {
                    let ours = env.out.conn();
                    self.conn = Some((conn, ours));
                    env.out.transmits.push_back(Transmit::Connect { conn: ours, to });
                }
                Sent::Write { conn, data } => {
                    if let Some((_, ours)) = self.conn.filter(|(theirs, _)| *theirs == conn) {
                        env.out.transmits.push_back(Transmit::Write { conn: ours, data });
                    }
                }
                Sent::Close(conn) => {
                    if let Some((_, ours)) = self.conn.take_if(|(theirs, _)| *theirs == conn) {
                        env.out.transmits.push_back(Transmit::Close(ours));
                    }
                }
            }
        }
        while let Some(told) = client.poll_event() {
            env.out.event(event(told));
        }
    }
}

fn event(told: Told) -> Event {
    let (what, protocol, external, reason) = match told {
        Told::Mapped { protocol, external, .. } => {
            ("mapped", protocol.as_str(), Some(external), String::new())
        }
        Told::Lost { external, why } => ("lost", "", Some(external), why.to_owned()),
        Told::Unusable { protocol, external } => {
            let reason = "the gateway is itself behind a NAT".to_owned();
            ("unusable", protocol.as_str(), Some(external), reason)
        }
        Told::Refused { protocol, why } => ("refused", protocol.as_str(), None, why),
        Told::Restarted { protocol } => ("gateway-restarted", protocol.as_str(), None, String::new()),
        Told::NoGateway => ("no-gateway", "", None, String::new()),
    };
    Event::PortMapping { what, protocol, external, reason }
}
