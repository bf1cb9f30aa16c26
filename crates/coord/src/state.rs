//! What the server must not forget, and how it is told to a store.
//!
//! The core keeps no files. It says what to write ([`Server::poll_store`](crate::server::Server::poll_store)), is told what is
//! written, and starts from a [`State`] that is read back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::hex_key;
use crate::{Access, NodeInfo, RelayInfo};

/// The version of what these types look like when written; another one cannot be read.
pub const SCHEMA: u32 = 1;

/// Everything a server starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The nodes, by number.
    pub nodes: BTreeMap<u32, NodeRecord>,
    /// The pre-authentication keys, by number.
    pub keys: BTreeMap<u32, KeyRecord>,
    /// The rest.
    pub settings: Settings,
}

/// A node as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What others are told of it. It is not online while nobody has heard of it.
    pub info: NodeInfo,
    /// Its machine's public key: its identity.
    #[serde(with = "hex_key")]
    pub machine: [u8; 32],
    /// Whether it is one of the network.
    pub standing: Standing,
    /// Whether it goes when it is offline.
    #[serde(default)]
    pub ephemeral: bool,
    /// The pre-authentication key that let it in.
    #[serde(default)]
    pub auth_key: Option<u32>,
    /// When it registered first, in seconds of Unix time.
    #[serde(default)]
    pub created: u64,
}

/// Whether a node is one of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It waits for an administrator.
    Waiting,
    /// It is.
    Approved,
    /// It was, and its machine never will be again.
    Revoked,
}

/// A pre-authentication key as it is kept: what it opens, not the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its number, from 1.
    pub id: u32,
    /// BLAKE2s of its text.
    #[serde(with = "hex_key")]
    pub hash: [u8; 32],
    /// Whether it lets in more than one machine.
    #[serde(default)]
    pub reusable: bool,
    /// Whether those that it lets in go when they are offline.
    #[serde(default)]
    pub ephemeral: bool,
    /// The tags that it gives them.
    #[serde(default)]
    pub tags: Vec<String>,
    /// When it ends, in seconds of Unix time; `None`: never.
    #[serde(default)]
    pub expires: Option<u64>,
    /// When it was made, in seconds of Unix time.
    #[serde(default)]
    pub created: u64,
    /// How many machines it has let in.
    #[serde(default)]
    pub used: u32,
}

/// What there is one of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The number that was given to a node last.
    pub last_node: u32,
    /// The number that was given to a key last.
    pub last_key: u32,
    /// The relays that an administrator set; without them, those of the configuration.
    pub relays: Option<Vec<RelayInfo>>,
    /// The access rules that an administrator set; without them, those of the configuration.
    pub access: Option<Access>,
}

/// Some changes that are to be stored together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What [`Server::stored`](crate::server::Server::stored) is to be told.
    pub id: u64,
    /// The changes, in any order.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node is new or different.
    Node(Box<NodeRecord>),
    /// A node is no more.
    NodeGone(u32),
    /// A key is new or different.
    Key(KeyRecord),
    /// A key is no more.
    KeyGone(u32),
    /// The settings are different.
    Settings(Settings),
}

impl State {
    /// What the state is after a write.
    pub fn apply(&mut self, write: &Write) {
        for change in &write.changes {
            match change {
                Change::Node(node) => {
                    self.nodes.insert(node.info.id, (**node).clone());
                }
                Change::NodeGone(id) => {
                    self.nodes.remove(id);
                }
                Change::Key(key) => {
                    self.keys.insert(key.id, key.clone());
                }
                Change::KeyGone(id) => {
                    self.keys.remove(id);
                }
                Change::Settings(settings) => self.settings = settings.clone(),
            }
        }
    }
}
