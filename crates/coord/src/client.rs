//! The client: one stream to the coordination server at a time.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;

use crate::channel::{Channel, Incoming};
use crate::feed::Feed;
use crate::http::Door;
use crate::proof::{KeyPair, Use, prove};
use crate::wire::{ToClient, ToServer, frame, parse_to_client};
use crate::{Delta, Error, MapUpdate, MapVersion, NodeInfo, Update};

/// Who the client is and whom it trusts.
#[derive(Clone)]
pub struct ClientConfig {
    /// This machine's private key towards the server (Curve25519).
    pub machine_key: [u8; 32],
    /// The server's public key.
    pub server_key: [u8; 32],
    /// What the owner calls this machine: 1 to 63 bytes without control characters.
    pub name: String,
    /// Its WireGuard key.
    pub node_key: KeyPair,
    /// Its disco key.
    pub disco_key: KeyPair,
    /// What the server's HTTP `Host` field says; the stream does not depend on it.
    pub host: String,
    /// The pre-authentication key, where not everybody may join. Once the machine is in, it is not looked at any more.
    pub auth_key: Option<String>,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server knows us. The map, or what is different about the one that we have, follows.
    Registered {
        /// Our number.
        id: u32,
        /// Our address inside the network.
        tunnel_ip: IpAddr,
        /// The same in IPv6.
        tunnel_ip6: Option<Ipv6Addr>,
    },
    /// The server knows us, and an administrator has to let us in. The stream stays open for that.
    Waiting,
    /// The network changed. What is said of other nodes never names ourselves.
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
    /// The map that the caller has by now: its version, and what it says of ourselves.
    have: Option<(MapVersion, Option<NodeInfo>)>,
    events: VecDeque<Event>,
}

struct Stream {
    feed: Feed,
    /// The map has come.
    registered: bool,
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
        Client {
            config,
            rng,
            update: Update::default(),
            dirty: false,
            stream: None,
            have: None,
            events: VecDeque::new(),
        }
    }

    /// The caller has this version of the map, as from an earlier run: the server need not send it again.
    pub fn remember(&mut self, version: MapVersion) {
        self.have = Some((version, None));
    }

    /// Registers this WireGuard key in place of the one until now. It is in force when what the map says of ourselves
    /// has it; until then others know the old one.
    pub fn rotate(&mut self, node_key: KeyPair) {
        self.config.node_key = node_key;
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.registered) {
            let node_proof =
                prove(&node_key, &self.config.server_key, Use::Node, stream.feed.channel.transcript());
            stream.feed.channel.push(frame(&ToServer::Rotate { node_key: node_key.public, node_proof }));
        }
    }

    /// A stream to the server is up; an older one is forgotten.
    pub fn connected(&mut self, now: Instant) {
        let ClientConfig { machine_key, server_key, host, .. } = &self.config;
        let channel = Channel::initiator(machine_key, server_key, host, Door::Machine, &mut self.rng);
        self.stream = Some(Stream { feed: Feed::new(channel, "first map", now), registered: false });
    }

    /// The stream is gone.
    pub fn closed(&mut self, _now: Instant) {
        self.stream = None;
    }

    /// Whether the server has sent its map on the present stream.
    pub fn is_registered(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.registered)
    }

    /// The version of the map that was last received.
    pub fn version(&self) -> Option<MapVersion> {
        self.have.as_ref().map(|(version, _)| *version)
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
        if let Err(error) = stream.feed.handle_timeout(now) {
            self.stream = None;
            self.events.push_back(Event::Failed(error));
        }
    }

    /// The next deadline and what it is for; none without a stream.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.stream.as_ref()?.feed.poll_timeout()
    }

    /// Bytes to write, never more than `space`. Call until there are none.
    pub fn poll_transmit(&mut self, space: usize) -> Option<Bytes> {
        let stream = self.stream.as_mut()?;
        if stream.feed.opened && self.dirty && space > 0 {
            self.dirty = false;
            stream.feed.channel.push(frame(&ToServer::Update(self.update.clone())));
        }
        stream.feed.channel.pull(space)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        stream.feed.channel.feed(bytes);
        while let Some(incoming) = stream.feed.next(now)? {
            match incoming {
                Incoming::Opened { .. } => {
                    self.dirty = false;
                    let ClientConfig { server_key, node_key, disco_key, .. } = &self.config;
                    let transcript = stream.feed.channel.transcript();
                    let node_proof = prove(node_key, server_key, Use::Node, transcript);
                    let disco_proof = prove(disco_key, server_key, Use::Disco, transcript);
                    stream.feed.channel.push(frame(&ToServer::Register {
                        name: self.config.name.clone(),
                        node_key: node_key.public,
                        disco_key: disco_key.public,
                        node_proof,
                        disco_proof,
                        auth_key: self.config.auth_key.clone(),
                        have: self.have.as_ref().map(|(version, _)| *version),
                        update: self.update.clone(),
                    }));
                }
                Incoming::Message(json) => {
                    stream.message(parse_to_client(&json)?, &mut self.have, &mut self.events)?;
                }
                // The feed has refused it.
                Incoming::Served => {}
            }
        }
        Ok(())
    }
}

impl Stream {
    fn message(
        &mut self,
        message: ToClient,
        have: &mut Option<(MapVersion, Option<NodeInfo>)>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Error> {
        match message {
            ToClient::Full(mut map) => {
                self.registered(&map.you, events)?;
                map.peers.retain(|node| node.id != map.you.id);
                *have = Some((map.version, Some(map.you.clone())));
                events.push_back(Event::Map(MapUpdate::Full(Box::new(map))));
            }
            ToClient::Resumed { version, you, relays, access, mut added, removed } => {
                if have.as_ref().is_none_or(|(had, _)| had.run != version.run) {
                    return Err(Error::Protocol("a map resumed that we do not have"));
                }
                self.registered(&you, events)?;
                added.retain(|node| node.id != you.id);
                *have = Some((version, Some(you.clone())));
                let (changed, relays, access) = (Vec::new(), Some(relays), Some(access));
                let delta = Delta { version, you: Some(you), added, changed, removed, relays, access };
                events.push_back(Event::Map(MapUpdate::Delta(Box::new(delta))));
            }
            ToClient::Delta { generation, mut added, mut changed, removed, relays, access } => {
                let Some((version, Some(me))) = have.as_mut().filter(|_| self.registered) else {
                    return Err(Error::Protocol("a delta before the full map"));
                };
                if version.generation.checked_add(1) != Some(generation) {
                    return Err(Error::Protocol("generations are not consecutive"));
                }
                version.generation = generation;
                let (id, before) = (me.id, me.clone());
                for node in added.extract_if(.., |node| node.id == id) {
                    *me = node;
                }
                for change in changed.extract_if(.., |change| change.id == id) {
                    change.apply(me);
                }
                let you = (*me != before).then(|| me.clone());
                let (version, access) = (*version, access.map(|rules| rules.now));
                let delta = Delta { version, you, added, changed, removed, relays, access };
                events.push_back(Event::Map(MapUpdate::Delta(Box::new(delta))));
            }
            ToClient::Waiting => {
                self.feed.answered = true;
                events.push_back(Event::Waiting);
            }
            ToClient::Refused { code, reason } => return Err(Error::Refused { code, reason }),
            ToClient::Admitted { .. } | ToClient::Admission { .. } => {
                return Err(Error::Protocol("a message for relays"));
            }
            ToClient::KeepAlive | ToClient::Unknown => {}
        }
        Ok(())
    }

    fn registered(&mut self, you: &NodeInfo, events: &mut VecDeque<Event>) -> Result<(), Error> {
        if std::mem::replace(&mut self.registered, true) {
            return Err(Error::Protocol("a second full map"));
        }
        self.feed.answered = true;
        let NodeInfo { id, tunnel_ip, tunnel_ip6, .. } = *you;
        events.push_back(Event::Registered { id, tunnel_ip, tunnel_ip6 });
        Ok(())
    }
}
