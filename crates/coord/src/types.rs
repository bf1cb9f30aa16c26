//! What the network's machines know of each other.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// One machine, as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The server's number for it, from 1.
    pub id: u32,
    /// What its owner calls it; need not be unique.
    pub name: String,
    /// Its WireGuard public key.
    #[serde(with = "hex_key")]
    pub node_key: [u8; 32],
    /// Its disco public key; new at each start of the machine's process.
    #[serde(with = "hex_key")]
    pub disco_key: [u8; 32],
    /// Its address inside the network: 100.64.0.0/10 (RFC 6598) plus `id`.
    pub tunnel_ip: IpAddr,
    /// Where it may be reached directly.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// The region of the relay it listens to.
    #[serde(default)]
    pub home_relay: Option<u16>,
    /// What it found out about its NAT.
    #[serde(default)]
    pub nat: Option<NatFacts>,
    /// Whether its stream to the coordination server is up.
    #[serde(default)]
    pub online: bool,
}

/// What a machine found out about the NAT in front of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NatFacts {
    /// Whether its mapping depends on the destination; unknown with fewer than two answers.
    pub mapping_varies: Option<bool>,
    /// No STUN server answered at all.
    pub udp_blocked: bool,
}

/// A relay and the STUN servers beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Its number in the network.
    pub region: u16,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// The relay's public key.
    #[serde(with = "hex_key")]
    pub key: [u8; 32],
    /// Where it is.
    pub addr: IpAddr,
    /// Its IPv6 address beside, where it has one of each version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr6: Option<Ipv6Addr>,
    /// TCP ports of the relay, best first.
    #[serde(default)]
    pub derp_ports: Vec<u16>,
    /// STUN servers there.
    #[serde(default)]
    pub stun: Vec<SocketAddr>,
}

/// The state a client reports; each report replaces the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Update {
    /// Where the machine may be reached directly.
    pub endpoints: Vec<SocketAddr>,
    /// The region of its home relay.
    pub home_relay: Option<u16>,
    /// Its NAT.
    pub nat: Option<NatFacts>,
}

/// What changed in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapUpdate {
    /// Everything; replaces what was known. The first on each stream.
    Full {
        /// The map's version.
        generation: u64,
        /// The receiver itself.
        you: NodeInfo,
        /// All others, online or not.
        peers: Vec<NodeInfo>,
        /// The relays.
        relays: Vec<RelayInfo>,
    },
    /// Some other nodes.
    Delta {
        /// The map's version.
        generation: u64,
        /// New nodes, and new states of known ones.
        upsert: Vec<NodeInfo>,
        /// Nodes that are no more.
        remove: Vec<u32>,
    },
}

/// Keys in JSON: 64 hexadecimal digits.
pub(crate) mod hex_key {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(key: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        to.serialize_str(
            &key.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect::<String>(),
        )
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut key = [0; 32];
        if text.len() != 64 {
            return Err(D::Error::custom("a key has 64 hexadecimal digits"));
        }
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Err(D::Error::custom("a key has hexadecimal digits only")),
            }
        }
        Ok(key)
    }
}
