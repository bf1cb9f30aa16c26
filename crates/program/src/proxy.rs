//! An HTTP proxy as a program.

use crate::{ConnId, Input, Output, Program};
use ::proxy::{Event as ProxyEvent, Server, Transmit};
use std::time::Instant;
use trace::{Event, Name};

/// A proxy on a host of its own.
pub struct ProxyProgram {
    name: Name,
    port: u16,
    server: Server,
}

impl ProxyProgram {
    /// A proxy that listens on `port`.
    pub fn new(name: Name, port: u16, server: Server) -> ProxyProgram {
        ProxyProgram { name, port, server }
    }
}

impl Program for ProxyProgram {
    fn udp_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn tcp_ports(&self) -> Vec<u16> {
        vec![self.port]
    }

    fn handle(&mut self, input: Input<'_>, now: Instant) {
        let conn = |conn: ConnId| ::proxy::ConnId(conn.0);
        match input {
            Input::Accepted { conn: id, from, .. } => self.server.accepted(conn(id), from, now),
            Input::Connected { conn: id } => self.server.connected(conn(id)),
            Input::Stream { conn: id, data } => self.server.handle_stream(conn(id), data, now),
            Input::Writable { conn: id, space } => self.server.writable(conn(id), space),
            Input::Closed { conn: id } => self.server.closed(conn(id)),
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.server.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some(transmit) = self.server.poll_transmit() {
            return Some(match transmit {
                Transmit::Connect { conn, to } => Output::Connect { conn: ConnId(conn.0), to },
                Transmit::Write { conn, data } => Output::Write { conn: ConnId(conn.0), data },
                Transmit::Hold { conn, hold } => Output::Hold { conn: ConnId(conn.0), hold },
                Transmit::Close(conn) => Output::Close { conn: ConnId(conn.0) },
            });
        }
        while let Some(event) = self.server.poll_event() {
            if let ProxyEvent::Refused { client, status, target } = event {
                let what = format!("proxy answered {client} with {status} for {target:?}");
                return Some(Output::Event(Box::new(Event::Warning { node: self.name.clone(), what })));
            }
        }
        None
    }
}
