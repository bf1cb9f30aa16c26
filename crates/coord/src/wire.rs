//! The JSON messages. `type` names the message; what a receiver does not know, it ignores.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::types::hex_key;
use crate::{Error, NodeInfo, Refusal, RelayInfo, Update};

/// From client to server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToServer {
    /// Must be the first message, and comes once.
    Register {
        /// What the machine's owner calls it.
        name: String,
        /// Its WireGuard public key.
        #[serde(with = "hex_key")]
        node_key: [u8; 32],
        /// Its disco public key.
        #[serde(with = "hex_key")]
        disco_key: [u8; 32],
        /// What is known already.
        #[serde(default)]
        update: Update,
    },
    /// The machine's new state, whole.
    Update(Update),
    /// I am still here.
    KeepAlive,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// From server to client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToClient {
    /// The answer to a registration.
    Full {
        /// The map's version.
        generation: u64,
        /// The receiver.
        you: NodeInfo,
        /// All others.
        peers: Vec<NodeInfo>,
        /// The relays.
        #[serde(default)]
        relays: Vec<RelayInfo>,
    },
    /// What changed since the generation before. One delta goes to all, so it may name the receiver.
    Delta {
        /// The map's version: one more than the last.
        generation: u64,
        /// New nodes, and new states of known ones.
        #[serde(default)]
        upsert: Vec<NodeInfo>,
        /// Nodes that are no more.
        #[serde(default)]
        remove: Vec<u32>,
    },
    /// The server will close the stream.
    Refused {
        /// For programs.
        code: Refusal,
        /// For people.
        #[serde(default)]
        reason: String,
    },
    /// I am still here.
    KeepAlive,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// A message with its length in front, ready for any number of streams.
pub(crate) fn frame(message: &impl Serialize) -> Bytes {
    let mut out = BytesMut::zeroed(4).writer();
    serde_json::to_writer(&mut out, message).expect("plain data without maps serializes into memory");
    let mut out = out.into_inner();
    let length = u32::try_from(out.len() - 4).expect("the server's limits keep messages far below 4 GiB");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Reads one message, without its length.
pub(crate) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::Json(error.to_string()))
}
