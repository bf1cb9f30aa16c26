//! The connection to the coordination server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use coord::client::{Client, ClientConfig, Event};
use coord::{KeyPair, Update};

use crate::config::Proxy;
use crate::dial::{Dial, Env, Security, Server};
use crate::io::ConnId;

/// One client, reconnecting for ever. While the server is away the last map stays in force.
#[derive(Debug)]
pub(crate) struct Signalling {
    dial: Dial,
    client: Client,
    streaming: bool,
    /// The node key that was, while the server has not taken the next one.
    rotates_from: Option<KeyPair>,
    rotation_refused: bool,
}

impl Signalling {
    pub(crate) fn new(
        config: ClientConfig,
        addresses: Vec<SocketAddr>,
        proxy: Option<Arc<Proxy>>,
        security: Option<Security>,
        rng: rand_chacha::ChaCha12Rng,
        now: Instant,
    ) -> Signalling {
        let dial = Dial::new(Server::Coordinator, addresses, proxy, security);
        Signalling {
            dial,
            client: Client::new(config, rng, now),
            streaming: false,
            rotates_from: None,
            rotation_refused: false,
        }
    }

    /// The version of the map that was last told.
    pub(crate) fn version(&self) -> Option<coord::MapVersion> {
        self.client.version()
    }

    /// The map of this version is known from an earlier run.
    pub(crate) fn remember(&mut self, version: coord::MapVersion) {
        self.client.remember(version);
    }

    /// Registers this node key in place of the one `from`.
    pub(crate) fn rotate(&mut self, node_key: KeyPair, from: KeyPair) {
        self.rotates_from = Some(from);
        self.client.rotate(node_key);
    }

    /// The server has taken the new node key.
    pub(crate) fn rotated(&mut self) {
        self.rotates_from = None;
    }

    /// Whether the server refused the last rotation; the key before counts again.
    pub(crate) fn take_rotation_refused(&mut self) -> bool {
        std::mem::take(&mut self.rotation_refused)
    }

    pub(crate) fn start(&mut self, env: &mut Env<'_>) {
        self.dial.start(env);
    }

    /// The machine is in another network.
    pub(crate) fn restart(&mut self, reason: &str, env: &mut Env<'_>) {
        self.end_stream(env.now);
        self.dial.restart(reason, env);
    }

    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.dial.conn() == Some(conn)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.dial.is_up()
    }

    pub(crate) fn update(&mut self, update: Update) {
        self.client.update(update);
    }

    pub(crate) fn connected(&mut self, env: &mut Env<'_>) {
        if self.dial.connected(env).is_some() {
            self.begin_stream(env.now);
        }
    }

    fn begin_stream(&mut self, now: Instant) {
        self.streaming = true;
        self.client.connected(now);
    }

    pub(crate) fn writable(&mut self, space: usize, env: &mut Env<'_>) {
        self.dial.writable(space, env.out);
    }

    pub(crate) fn stream(&mut self, data: &[u8], env: &mut Env<'_>) {
        let received = match self.dial.receive(data, env) {
            Ok(received) => received,
            Err(reason) => return self.lost(&reason, true, env),
        };
        if received.opened.is_some() {
            self.begin_stream(env.now);
        }
        if !self.streaming || received.data.is_empty() {
            return;
        }
        if let Err(error) = self.client.handle_stream(&received.data, env.now) {
            if let coord::Error::Refused { code: coord::Refusal::NodeKeyTaken, .. } = error
                && let Some(before) = self.rotates_from.take()
            {
                self.client.rotate(before);
                self.rotation_refused = true;
            }
            self.lost(&error.to_string(), true, env);
        }
    }

    pub(crate) fn lost(&mut self, reason: &str, close: bool, env: &mut Env<'_>) {
        self.end_stream(env.now);
        self.dial.lost(reason, close, env);
    }

    /// The connection is gone, by no doing of ours.
    pub(crate) fn closed(&mut self, env: &mut Env<'_>) {
        let why = self.dial.closed_because();
        self.lost(why, false, env);
    }

    fn end_stream(&mut self, now: Instant) {
        if std::mem::take(&mut self.streaming) {
            self.client.closed(now);
        }
    }

    /// Registration and map updates; failures are dealt with here.
    pub(crate) fn poll_event(&mut self, env: &mut Env<'_>) -> Option<Event> {
        loop {
            match self.client.poll_event()? {
                Event::Failed(error) => self.lost(&error.to_string(), true, env),
                event => {
                    if matches!(event, Event::Registered { .. }) {
                        self.dial.ready(env);
                    }
                    return Some(event);
                }
            }
        }
    }

    pub(crate) fn flush(&mut self, env: &mut Env<'_>) {
        if self.streaming {
            let client = &mut self.client;
            self.dial.write(|space| client.poll_transmit(space), env.out);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.dial.poll_timeout().into_iter().chain(self.client.poll_timeout()).min()
    }

    pub(crate) fn handle_timeout(&mut self, env: &mut Env<'_>) {
        self.client.handle_timeout(env.now);
        if self.dial.handle_timeout(env) {
            self.end_stream(env.now);
        }
    }
}
