//! What the network's machines know of each other.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::access::Access;

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
    /// The same in the network's unique local prefix (RFC 4193); none from servers that give no such addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_ip6: Option<Ipv6Addr>,
    /// What an administrator calls its kind; access rules speak of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// When its node key ends, in seconds of Unix time; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_expires: Option<u64>,
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
    /// How it secures its connections, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RelayTls>,
    /// STUN servers there.
    #[serde(default)]
    pub stun: Vec<SocketAddr>,
}

/// How a relay secures its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayTls {
    /// Those of its ports that speak TLS.
    pub ports: Vec<u16>,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, RFC 7469 §2.4) or of its certificate. Without it, an authority that the
    /// machine trusts must vouch for the name.
    #[serde(with = "hex_key::option", skip_serializing_if = "Option::is_none")]
    pub pin: Option<[u8; 32]>,
    /// Its host name; its address, if that is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
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

/// What became different about a node; a field that is left out stayed as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeChange {
    /// Which node.
    pub id: u32,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its WireGuard public key: it was rotated.
    #[serde(with = "hex_key::maybe", skip_serializing_if = "Option::is_none")]
    pub node_key: Option<[u8; 32]>,
    /// Its disco public key: its process was started anew.
    #[serde(with = "hex_key::maybe", skip_serializing_if = "Option::is_none")]
    pub disco_key: Option<[u8; 32]>,
    /// Where it may be reached directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<SocketAddr>>,
    /// The region of its relay; `null` when it has none any more.
    #[serde(deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    pub home_relay: Option<Option<u16>>,
    /// Its NAT; `null` when it knows nothing of it any more.
    #[serde(deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    pub nat: Option<Option<NatFacts>>,
    /// Whether its stream is up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// When its key ends; `null` for never.
    #[serde(deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    pub key_expires: Option<Option<u64>>,
}

/// A field that is there, `null` or not, as against one that is left out.
fn there<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl NodeChange {
    /// What turns `old` into `new`, which has the same number and addresses; `None` if they are equal.
    pub fn between(old: &NodeInfo, new: &NodeInfo) -> Option<NodeChange> {
        fn differs<T: PartialEq + Clone>(old: &T, new: &T) -> Option<T> {
            (old != new).then(|| new.clone())
        }
        let change = NodeChange {
            id: new.id,
            name: differs(&old.name, &new.name),
            node_key: differs(&old.node_key, &new.node_key),
            disco_key: differs(&old.disco_key, &new.disco_key),
            endpoints: differs(&old.endpoints, &new.endpoints),
            home_relay: differs(&old.home_relay, &new.home_relay),
            nat: differs(&old.nat, &new.nat),
            online: differs(&old.online, &new.online),
            tags: differs(&old.tags, &new.tags),
            key_expires: differs(&old.key_expires, &new.key_expires),
        };
        (change != NodeChange { id: new.id, ..NodeChange::default() }).then_some(change)
    }

    /// Makes it so.
    pub fn apply(self, node: &mut NodeInfo) {
        fn set<T>(to: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *to = value;
            }
        }
        set(&mut node.name, self.name);
        set(&mut node.node_key, self.node_key);
        set(&mut node.disco_key, self.disco_key);
        set(&mut node.endpoints, self.endpoints);
        set(&mut node.home_relay, self.home_relay);
        set(&mut node.nat, self.nat);
        set(&mut node.online, self.online);
        set(&mut node.tags, self.tags);
        set(&mut node.key_expires, self.key_expires);
    }
}

/// Names a state of a server's map: what a client that comes back says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapVersion {
    /// Which run of the server; generations of another one mean nothing.
    pub run: u64,
    /// How many deltas that run had sent.
    pub generation: u64,
}

/// The map of the network, or what changed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapUpdate {
    /// Everything; replaces what was known.
    Full(Box<Map>),
    /// Some nodes.
    Delta(Box<Delta>),
}

/// The whole map, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Which state this is.
    pub version: MapVersion,
    /// The receiver itself.
    pub you: NodeInfo,
    /// The relays.
    #[serde(default)]
    pub relays: Vec<RelayInfo>,
    /// Who may talk to whom; everybody to everybody without it.
    #[serde(default)]
    pub access: Option<Access>,
    /// All others, online or not.
    #[serde(default)]
    pub peers: Vec<NodeInfo>,
}

/// What changed since the version before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Which state this leads to.
    pub version: MapVersion,
    /// The receiver itself, if something about it is different.
    pub you: Option<NodeInfo>,
    /// Nodes, whole: new ones, and known ones that are to be replaced.
    pub added: Vec<NodeInfo>,
    /// What is different about others.
    pub changed: Vec<NodeChange>,
    /// Nodes that are no more.
    pub removed: Vec<u32>,
    /// The relays, if they are different.
    pub relays: Option<Vec<RelayInfo>>,
    /// The access rules, if they are different.
    pub access: Option<Option<Access>>,
}

/// Keys in JSON: 64 hexadecimal digits.
pub(crate) mod hex_key {
    /// A key that may be absent.
    pub(crate) mod option {
        use serde::{Deserialize, Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(key: &Option<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
            match key {
                Some(key) => super::serialize(key, to),
                None => to.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 32]>, D::Error> {
            #[derive(Deserialize)]
            struct Key(#[serde(with = "super")] [u8; 32]);
            Ok(Option::<Key>::deserialize(from)?.map(|key| key.0))
        }
    }

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// The same for keys that may be left out.
    pub(crate) mod maybe {
        use serde::{Deserializer, Serialize as _, Serializer};

        pub(crate) fn serialize<S: Serializer>(key: &Option<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
            match key {
                Some(key) => super::serialize(key, to),
                None => ().serialize(to),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 32]>, D::Error> {
            super::deserialize(from).map(Some)
        }
    }

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
