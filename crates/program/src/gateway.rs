//! The port mapping gateway of a router, as a program on it. It has no NAT: what it wants of that goes to the world.

use crate::{ConnId, Input, Output, Program, nanos};
use portmap::gateway::{self, Gateway, Transmit};
use portmap::{SERVER_PORT, upnp};
use std::time::Instant;
use trace::{Event, Name};

/// A gateway.
pub struct GatewayProgram {
    name: Name,
    gateway: Gateway,
}

impl GatewayProgram {
    /// Wraps the core.
    pub fn new(name: Name, gateway: Gateway) -> GatewayProgram {
        GatewayProgram { name, gateway }
    }
}

impl Program for GatewayProgram {
    fn udp_ports(&self) -> Vec<u16> {
        vec![SERVER_PORT, upnp::SSDP.port()]
    }

    fn tcp_ports(&self) -> Vec<u16> {
        let config = self.gateway.config();
        config.upnp.map(|_| config.http_port).into_iter().collect()
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        let conn = |conn: ConnId| gateway::ConnId(conn.0);
        let input = match input {
            // A router's first address is the one inside.
            Input::Addresses(addresses) => {
                let inside = self.gateway.config().address;
                let outside = addresses.iter().find(|ip| **ip != inside && ip.is_ipv4() == inside.is_ipv4());
                gateway::Input::External(outside.copied())
            }
            Input::Datagram { port, from, data } => gateway::Input::Datagram { to: port, from, data },
            Input::Accepted { conn: id, from, .. } => gateway::Input::Accepted { conn: conn(id), from },
            Input::Stream { conn: id, data } => gateway::Input::Stream { conn: conn(id), data },
            Input::Writable { conn: id, space } => gateway::Input::Writable { conn: conn(id), space },
            Input::Closed { conn: id } => gateway::Input::Closed { conn: conn(id) },
            Input::Mapped { id, result } => gateway::Input::Answer { id, result },
            // It opens no connection, and its answers need not arrive.
            Input::Connected { .. } | Input::Error { .. } | Input::Resolver(_) | Input::Shutdown => return,
        };
        self.gateway.handle(input, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.gateway.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.gateway.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some(request) = self.gateway.poll_request() {
            return Some(Output::Map(Box::new(request)));
        }
        if let Some(event) = self.gateway.poll_event() {
            return Some(Output::Event(Box::new(words(self.name.clone(), event))));
        }
        Some(match self.gateway.poll_transmit()? {
            Transmit::Datagram { port, to, data } => Output::Datagram { port, to, data },
            Transmit::Write { conn, data } => Output::Write { conn: ConnId(conn.0), data },
            Transmit::Close { conn } => Output::Close { conn: ConnId(conn.0) },
        })
    }
}

fn words(node: Name, event: gateway::Event) -> Event {
    match event {
        gateway::Event::Mapped { protocol, inside, external, lifetime, renewed, .. } => Event::Gateway {
            node,
            what: if renewed { "renewed" } else { "opened" }.into(),
            protocol: protocol.as_str().into(),
            inside,
            external: Some(external),
            lifetime_ns: lifetime.map(nanos),
            reason: String::new(),
        },
        gateway::Event::Unmapped { inside, external, why, .. } => Event::Gateway {
            node,
            what: "closed".into(),
            protocol: "".into(),
            inside,
            external: Some(external),
            lifetime_ns: None,
            reason: why.to_owned(),
        },
        gateway::Event::Refused { protocol, from, why } => Event::Gateway {
            node,
            what: "refused".into(),
            protocol: protocol.as_str().into(),
            inside: from,
            external: None,
            lifetime_ns: None,
            reason: why,
        },
    }
}
