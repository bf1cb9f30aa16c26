//! The JSON messages. `type` names the message; what a receiver does not know, it ignores.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::types::hex_key;
use crate::{Access, Error, Map, MapVersion, NodeChange, NodeInfo, Refusal, RelayInfo, Update};

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
        /// That the node key is the machine's: BLAKE2s (RFC 7693) of 32 bytes, keyed with the Diffie-Hellman secret of the node
        /// key and the server's key, over `punchbag-coord/1 node key`, the hash of the Noise handshake (Noise specification
        /// §11.2) and the public key.
        #[serde(with = "hex_key")]
        node_proof: [u8; 32],
        /// The same of the disco key, with `punchbag-coord/1 disco key`.
        #[serde(with = "hex_key")]
        disco_proof: [u8; 32],
        /// What lets it in where not everybody may join.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        auth_key: Option<String>,
        /// The map that it still has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        have: Option<MapVersion>,
        /// What is known already.
        #[serde(default)]
        update: Update,
    },
    /// The machine's new state, whole.
    Update(Update),
    /// The machine has a new WireGuard key. It is in force when the map says so.
    Rotate {
        /// The public key.
        #[serde(with = "hex_key")]
        node_key: [u8; 32],
        /// That it is the machine's, as when it registers.
        #[serde(with = "hex_key")]
        node_proof: [u8; 32],
    },
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
    /// The answer to a registration: the map. It goes in one piece to all who register at a time, so it may have the receiver
    /// among its own peers.
    Full(Map),
    /// The answer to a registration of a client that has a map: what is different by now.
    Resumed {
        /// Which state this leads to.
        version: MapVersion,
        /// The receiver.
        you: NodeInfo,
        /// The relays.
        #[serde(default)]
        relays: Vec<RelayInfo>,
        /// The access rules.
        #[serde(default)]
        access: Option<Access>,
        /// Nodes that are new or different, whole.
        #[serde(default)]
        added: Vec<NodeInfo>,
        /// Nodes that are no more.
        #[serde(default)]
        removed: Vec<u32>,
    },
    /// The answer to a registration: the machine has to wait for an administrator. A map may follow.
    Waiting,
    /// What changed since the generation before. One delta goes to all, so it may name the receiver.
    Delta {
        /// The map's version: one more than the last.
        generation: u64,
        /// New nodes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        added: Vec<NodeInfo>,
        /// New states of known nodes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<NodeChange>,
        /// Nodes that are no more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<u32>,
        /// The relays, if they are different.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relays: Option<Vec<RelayInfo>>,
        /// The access rules, if they are different.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        access: Option<Rules>,
    },
    /// To a relay: the node keys that may use it, all of them.
    Admitted {
        /// The keys.
        keys: Vec<Key>,
    },
    /// To a relay: what is different about the node keys that may use it.
    Admission {
        /// Keys that may from now on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        admit: Vec<Key>,
        /// Keys that may no longer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dismiss: Vec<Key>,
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

/// Access rules that have taken the place of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The rules; without them everybody may talk to everybody.
    #[serde(default)]
    pub now: Option<Access>,
}

/// A public key as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(#[serde(with = "hex_key")] pub [u8; 32]);

/// A message with its length in front, ready for any number of streams.
pub(crate) fn frame(message: &impl Serialize) -> Bytes {
    let mut out = BytesMut::zeroed(4).writer();
    serde_json::to_writer(&mut out, message).expect("plain data with text as keys serializes into memory");
    let mut out = out.into_inner();
    let length = u32::try_from(out.len() - 4).expect("the server's limits keep messages far below 4 GiB");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Reads one message, without its length.
pub(crate) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::Json(error.to_string()))
}

/// Reads a message from the server. A full map may be long: as our server writes it, with its type first, it is read in one go,
/// while a tagged enum is read twice.
pub(crate) fn parse_to_client(json: &[u8]) -> Result<ToClient, Error> {
    if json.starts_with(br#"{"type":"full","#) { parse(json).map(ToClient::Full) } else { parse(json) }
}
