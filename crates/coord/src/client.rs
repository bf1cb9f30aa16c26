//! The client: one stream to the coordination server at a time.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;

use crate::channel::{Channel, Incoming};
use crate::wire::{ToClient, ToServer, frame, parse};
use crate::{DEAD_AFTER, Error, HANDSHAKE_WITHIN, KEEP_ALIVE, MAP_WITHIN, MapUpdate, Update};

/// Who the client is and whom it trusts.
#[derive(Clone)]
pub struct ClientConfig {
    /// This machine's private key towards the server (Curve25519).
    pub machine_key: [u8; 32],
    /// The server's public key.
    pub server_key: [u8; 32],
    /// What the owner calls this machine: 1 to 63 bytes without control characters.
    pub name: String,
    /// Its WireGuard public key.
    pub node_key: [u8; 32],
    /// Its disco public key.
    pub disco_key: [u8; 32],
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server knows us. A [`MapUpdate::Full`] follows.
    Registered {
        /// Our number.
        id: u32,
        /// Our address inside the network.
        tunnel_ip: IpAddr,
    },
    /// The network changed. Deltas never name ourselves.
    Map(MapUpdate),
    /// A deadline passed. The caller is to close the stream and may open another.
    Failed(Error),
}

/// The client core.
pub struct Client {
    config: ClientConfig,
    rng: ChaCha12Rng,
    update: Update,
    /// Whether `update` is still to be sent on this stream.
    dirty: bool,
    stream: Option<Stream>,
    events: VecDeque<Event>,
}

struct Stream {
    channel: Channel,
    opened: bool,
    /// Our number and the latest generation, once registered.
    known: Option<(u32, u64)>,
    since: Instant,
    heard: Instant,
    keep_alive_at: Instant,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.config)
            .field("connected", &self.stream.is_some())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client without a stream. `rng` makes the handshakes' ephemeral keys.
    pub fn new(config: ClientConfig, rng: ChaCha12Rng, _now: Instant) -> Client {
        Client { config, rng, update: Update::default(), dirty: false, stream: None, events: VecDeque::new() }
    }

    /// A stream to the server is up; an older one is forgotten.
    pub fn connected(&mut self, now: Instant) {
        let channel = Channel::initiator(&self.config.machine_key, &self.config.server_key, &mut self.rng);
        self.stream = Some(Stream {
            channel,
            opened: false,
            known: None,
            since: now,
            heard: now,
            keep_alive_at: now + KEEP_ALIVE,
        });
    }

    /// The stream is gone.
    pub fn closed(&mut self, _now: Instant) {
        self.stream = None;
    }

    /// Whether the server has sent its map on the present stream.
    pub fn is_registered(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.known.is_some())
    }

    /// The version of the map that was last received on the present stream.
    pub fn generation(&self) -> Option<u64> {
        self.stream.as_ref()?.known.map(|(_, generation)| generation)
    }

    /// Reports our state, now and on every later stream. Reports that have not left yet are replaced.
    pub fn update(&mut self, update: Update) {
        if self.update != update {
            self.update = update;
            self.dirty = true;
        }
    }

    /// Takes bytes from the stream.
    ///
    /// # Errors
    /// The stream is unusable, and forgotten: the caller is to close it and may open another.
    pub fn handle_stream(&mut self, bytes: &[u8], now: Instant) -> Result<(), Error> {
        let result = self.receive(bytes, now);
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    /// Sends a keep-alive or gives the stream up, if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(stream) = &mut self.stream else { return };
        let late = if now >= stream.heard + DEAD_AFTER {
            Some("nothing heard from the server")
        } else if !stream.opened && now >= stream.since + HANDSHAKE_WITHIN {
            Some("handshake")
        } else if stream.known.is_none() && now >= stream.since + MAP_WITHIN {
            Some("first map")
        } else {
            None
        };
        if let Some(what) = late {
            self.stream = None;
            self.events.push_back(Event::Failed(Error::TimedOut(what)));
        } else if now >= stream.keep_alive_at {
            stream.keep_alive_at = now + KEEP_ALIVE;
            if stream.opened && stream.channel.backlog() == 0 {
                stream.channel.push(frame(&ToServer::KeepAlive));
            }
        }
    }

    /// The next deadline and what it is for; none without a stream.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let stream = self.stream.as_ref()?;
        let mut next =
            (stream.keep_alive_at, "coord keep-alive").min((stream.heard + DEAD_AFTER, "coord silence"));
        if !stream.opened {
            next = next.min((stream.since + HANDSHAKE_WITHIN, "coord handshake"));
        }
        if stream.known.is_none() {
            next = next.min((stream.since + MAP_WITHIN, "coord first map"));
        }
        Some(next)
    }

    /// Bytes to write, never more than `space`. Call until there are none.
    pub fn poll_transmit(&mut self, space: usize) -> Option<Bytes> {
        let stream = self.stream.as_mut()?;
        if stream.opened && self.dirty && space > 0 {
            self.dirty = false;
            stream.channel.push(frame(&ToServer::Update(self.update.clone())));
        }
        stream.channel.pull(space)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let before = stream.channel.records();
        stream.channel.feed(bytes);
        while let Some(incoming) = stream.channel.next()? {
            match incoming {
                Incoming::Opened { .. } => {
                    stream.opened = true;
                    self.dirty = false;
                    stream.channel.push(frame(&ToServer::Register {
                        name: self.config.name.clone(),
                        node_key: self.config.node_key,
                        disco_key: self.config.disco_key,
                        update: self.update.clone(),
                    }));
                }
                Incoming::Message(json) => stream.message(parse(&json)?, &mut self.events)?,
            }
        }
        if stream.channel.records() > before {
            stream.heard = now;
        }
        Ok(())
    }
}

impl Stream {
    fn message(&mut self, message: ToClient, events: &mut VecDeque<Event>) -> Result<(), Error> {
        match message {
            ToClient::Full { generation, you, peers, relays } => {
                if self.known.replace((you.id, generation)).is_some() {
                    return Err(Error::Protocol("a second full map"));
                }
                events.push_back(Event::Registered { id: you.id, tunnel_ip: you.tunnel_ip });
                events.push_back(Event::Map(MapUpdate::Full { generation, you, peers, relays }));
            }
            ToClient::Delta { generation, mut upsert, remove } => {
                let Some((me, last)) = &mut self.known else {
                    return Err(Error::Protocol("a delta before the full map"));
                };
                if last.checked_add(1) != Some(generation) {
                    return Err(Error::Protocol("generations are not consecutive"));
                }
                *last = generation;
                upsert.retain(|node| node.id != *me);
                if !(upsert.is_empty() && remove.is_empty()) {
                    events.push_back(Event::Map(MapUpdate::Delta { generation, upsert, remove }));
                }
            }
            ToClient::Refused { code, reason } => return Err(Error::Refused { code, reason }),
            ToClient::KeepAlive | ToClient::Unknown => {}
        }
        Ok(())
    }
}
