//! What a server is told when it is made.

use std::fmt;
use std::time::Duration;

use crate::{Access, RelayInfo};

/// The server's key, who may join, what it tells them, and its bounds.
#[derive(Clone)]
pub struct ServerConfig {
    /// The server's private key (Curve25519).
    pub private_key: [u8; 32],
    /// The relays of the network, while no administrator has set others.
    pub relays: Vec<RelayInfo>,
    /// Who may talk to whom, while no administrator has set other rules; everybody to everybody without them.
    pub access: Option<Access>,
    /// Who may join.
    pub admission: Admission,
    /// The public keys that open the administrators' API.
    pub admins: Vec<[u8; 32]>,
    /// How long a node key is good; without it for ever.
    pub key_lifetime: Option<Duration>,
    /// Whether a key that a machine puts in the place of one which has not ended is good for as long again. If not, it ends when that
    /// would have, and an administrator or a pre-authentication key has to let the machine in again.
    pub renewable: bool,
    /// Unix time at the `now` that the server is made with.
    pub epoch: Duration,
    /// Bounds.
    pub limits: Limits,
}

/// Who may join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Whoever knows the server's public key. Names are what machines say they are.
    #[default]
    Anyone,
    /// Who has a pre-authentication key or was approved by an administrator. Names are unique, and a node keeps the one it was
    /// let in with, so that access rules can speak of them.
    Approved,
}

/// What the server lets others cost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes to remember. Beyond it the one that is offline longest is forgotten, where anyone may join, or the ephemeral or
    /// waiting one that is; if there is none, new ones are refused.
    pub nodes: usize,
    /// Of those, how many may wait for an administrator.
    pub waiting: usize,
    /// Streams that have not registered yet. Further ones are closed at once.
    pub pending: usize,
    /// Of those, how many may come from one address, or from one IPv6 network of 64 bits, so that nobody keeps the others out.
    /// As many machines behind one NAT may join at once.
    pub pending_per_source: usize,
    /// Streams of administrators, and as many of relays.
    pub admins: usize,
    /// Pre-authentication keys.
    pub keys: usize,
    /// Bytes that may wait for a client before another message is queued; a client that reads less is closed. Most of such
    /// bytes exist once for all clients.
    pub backlog: usize,
    /// At most one delta in this time: the first change goes out at once, those that follow it closely go out together.
    pub batch: Duration,
    /// How many removed nodes are remembered, so that a client that has an old map can be told of them.
    pub removals: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            nodes: 10_000,
            waiting: 1_000,
            pending: 1_000,
            pending_per_source: 256,
            admins: 64,
            keys: 10_000,
            backlog: 32 * 1024 * 1024,
            batch: Duration::from_millis(10),
            removals: 10_000,
        }
    }
}

impl ServerConfig {
    /// A network that anyone may join, without access rules, with default limits, in 1970.
    pub fn new(private_key: [u8; 32], relays: Vec<RelayInfo>) -> ServerConfig {
        ServerConfig {
            private_key,
            relays,
            access: None,
            admission: Admission::Anyone,
            admins: Vec::new(),
            key_lifetime: None,
            renewable: true,
            epoch: Duration::ZERO,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("relays", &self.relays)
            .field("access", &self.access)
            .field("admission", &self.admission)
            .field("key_lifetime", &self.key_lifetime)
            .field("renewable", &self.renewable)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
