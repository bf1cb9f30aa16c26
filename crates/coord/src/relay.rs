//! A relay's stream to the server: which node keys may use the relay.
//!
//! The relay shows the key under which the map names it. While the server is away, the keys that were told last stay in force.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;

use crate::Error;
use crate::channel::{Channel, Incoming};
use crate::feed::Feed;
use crate::http::Door;
use crate::wire::{ToClient, parse_to_client};

/// Keys that a relay keeps: as many as a server has nodes, with room.
pub const MAX_KEYS: usize = 1 << 22;

/// Who the relay is and whom it trusts.
#[derive(Clone)]
pub struct RelayConfig {
    /// The relay's private key.
    pub private_key: [u8; 32],
    /// The server's public key.
    pub server_key: [u8; 32],
    /// What the HTTP `Host` field says.
    pub host: String,
}

impl fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConfig").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What the server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// The first list has come, or a new one on another stream: [`Relay::allows`] says who may.
    Listed,
    /// This key may no longer.
    Dismissed([u8; 32]),
    /// A deadline passed. The caller is to close the stream and may open another.
    Failed(Error),
}

/// The relay's end.
pub struct Relay {
    config: RelayConfig,
    rng: ChaCha12Rng,
    allowed: Option<BTreeSet<[u8; 32]>>,
    stream: Option<Feed>,
    events: VecDeque<RelayEvent>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("config", &self.config)
            .field("allowed", &self.allowed.as_ref().map(BTreeSet::len))
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay without a stream. `rng` makes the handshakes' ephemeral keys.
    pub fn new(config: RelayConfig, rng: ChaCha12Rng) -> Relay {
        Relay { config, rng, allowed: None, stream: None, events: VecDeque::new() }
    }

    /// Whether a node key may use the relay; `None` before the server has said anything.
    pub fn allows(&self, key: &[u8; 32]) -> Option<bool> {
        self.allowed.as_ref().map(|allowed| allowed.contains(key))
    }

    /// A stream to the server is up; an older one is forgotten.
    pub fn connected(&mut self, now: Instant) {
        let RelayConfig { private_key, server_key, host } = &self.config;
        let channel = Channel::initiator(private_key, server_key, host, Door::Relay, &mut self.rng);
        self.stream = Some(Feed::new(channel, "list of keys", now));
    }

    /// The stream is gone.
    pub fn closed(&mut self) {
        self.stream = None;
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
        if let Err(error) = stream.handle_timeout(now) {
            self.stream = None;
            self.events.push_back(RelayEvent::Failed(error));
        }
    }

    /// The next deadline and what it is for; none without a stream.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.stream.as_ref()?.poll_timeout()
    }

    /// Bytes to write, never more than `space`. Call until there are none.
    pub fn poll_transmit(&mut self, space: usize) -> Option<Bytes> {
        self.stream.as_mut()?.channel.pull(space)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<RelayEvent> {
        self.events.pop_front()
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        stream.channel.feed(bytes);
        while let Some(incoming) = stream.next(now)? {
            if let Incoming::Message(json) = incoming {
                match parse_to_client(&json)? {
                    ToClient::Admitted { keys } if keys.len() <= MAX_KEYS => {
                        stream.answered = true;
                        let new: BTreeSet<_> = keys.into_iter().map(|key| key.0).collect();
                        let old = self.allowed.replace(new).unwrap_or_default();
                        self.events.push_back(RelayEvent::Listed);
                        let gone = old
                            .into_iter()
                            .filter(|key| self.allowed.as_ref().is_some_and(|new| !new.contains(key)));
                        self.events.extend(gone.map(RelayEvent::Dismissed));
                    }
                    ToClient::Admission { admit, dismiss } => {
                        let Some(allowed) = self.allowed.as_mut().filter(|_| stream.answered) else {
                            return Err(Error::Protocol("changes to a list before the list"));
                        };
                        for key in dismiss {
                            allowed.remove(&key.0);
                            self.events.push_back(RelayEvent::Dismissed(key.0));
                        }
                        allowed.extend(admit.into_iter().map(|key| key.0));
                        if allowed.len() > MAX_KEYS {
                            return Err(Error::Protocol("more keys than there are addresses"));
                        }
                    }
                    ToClient::Refused { code, reason } => return Err(Error::Refused { code, reason }),
                    ToClient::KeepAlive | ToClient::Unknown => {}
                    _ => return Err(Error::Protocol("a message for machines")),
                }
            }
        }
        Ok(())
    }
}
