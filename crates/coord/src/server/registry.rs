//! The nodes of the network and their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde_json::value::RawValue;

use super::ConnId;
use crate::{NodeInfo, Refusal, Update};

/// The shared address space (RFC 6598 §7): 100.64.0.0/10.
const BASE: u32 = Ipv4Addr::new(100, 64, 0, 0).to_bits();
/// Its last address is left out, as the first is.
const LAST_ID: u32 = (1 << 22) - 2;
/// A label of the DNS (RFC 1035 §2.3.4), so that names can become host names.
pub(crate) const MAX_NAME: usize = 63;
/// More than a machine with several interfaces, both families and a few NATs needs.
pub(crate) const MAX_ENDPOINTS: usize = 32;

/// A registered machine.
pub(crate) struct Node {
    pub(crate) info: NodeInfo,
    machine: [u8; 32],
    pub(crate) conn: Option<ConnId>,
    /// When it went offline, as a count of such events.
    offline_since: u64,
    json: Option<Box<RawValue>>,
}

impl Node {
    /// The node as JSON, made once per change.
    pub(crate) fn json(&mut self) -> &RawValue {
        let info = &self.info;
        self.json.get_or_insert_with(|| {
            serde_json::value::to_raw_value(info).expect("plain data without maps serializes into memory")
        })
    }
}

/// All nodes, by number.
pub(crate) struct Registry {
    nodes: BTreeMap<u32, Node>,
    by_key: BTreeMap<[u8; 32], u32>,
    offline: BTreeSet<(u64, u32)>,
    departures: u64,
    last_id: u32,
    limit: usize,
}

/// What a machine says when it registers.
pub(crate) struct Registration {
    pub(crate) machine: [u8; 32],
    pub(crate) conn: ConnId,
    pub(crate) name: String,
    pub(crate) node_key: [u8; 32],
    pub(crate) disco_key: [u8; 32],
    pub(crate) update: Update,
}

/// What a registration did.
pub(crate) struct Registered {
    pub(crate) id: u32,
    /// The stream that the node had until now.
    pub(crate) replaced: Option<ConnId>,
    /// The node that was forgotten to make room.
    pub(crate) evicted: Option<u32>,
}

impl Registry {
    pub(crate) fn new(limit: usize) -> Registry {
        Registry {
            nodes: BTreeMap::new(),
            by_key: BTreeMap::new(),
            offline: BTreeSet::new(),
            departures: 0,
            last_id: 0,
            limit: limit.min(LAST_ID as usize),
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All nodes and their JSON, in order of number.
    pub(crate) fn json(&mut self) -> impl Iterator<Item = (u32, &RawValue)> {
        self.nodes.iter_mut().map(|(id, node)| (*id, node.json()))
    }

    /// The JSON of the nodes `ids`, as far as they exist.
    pub(crate) fn json_of(&mut self, ids: &BTreeSet<u32>) -> Vec<&RawValue> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Vec::new() };
        let span = self.nodes.range_mut(first..=last).filter(|(id, _)| ids.contains(id));
        span.map(|(_, node)| node.json()).collect()
    }

    pub(crate) fn register(&mut self, new: Registration) -> Result<Registered, Refusal> {
        if new.name.is_empty() || new.name.len() > MAX_NAME || new.name.chars().any(char::is_control) {
            return Err(Refusal::Name);
        }
        check(&new.update)?;
        let mut evicted = None;
        let id = match self.by_key.get(&new.node_key) {
            Some(id) => *id,
            None => {
                if self.nodes.len() >= self.limit {
                    evicted = Some(self.evict().ok_or(Refusal::Full)?);
                }
                self.insert(&new)
            }
        };
        let node = self.nodes.get_mut(&id).ok_or(Refusal::Other)?;
        if node.machine != new.machine {
            return Err(Refusal::NodeKeyTaken);
        }
        self.offline.remove(&(node.offline_since, id));
        node.info.name = new.name;
        node.info.disco_key = new.disco_key;
        node.info.online = true;
        node.set(new.update);
        node.json = None;
        Ok(Registered { id, replaced: node.conn.replace(new.conn), evicted })
    }

    /// Whether that changed anything.
    pub(crate) fn update(&mut self, id: u32, update: Update) -> Result<bool, Refusal> {
        check(&update)?;
        Ok(self.nodes.get_mut(&id).is_some_and(|node| {
            let same = node.info.endpoints == update.endpoints
                && node.info.home_relay == update.home_relay
                && node.info.nat == update.nat;
            node.set(update);
            !same
        }))
    }

    /// The stream `conn` of a node has ended. Whether the node was still on it, and so is offline now.
    pub(crate) fn leave(&mut self, id: u32, conn: ConnId) -> bool {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.conn == Some(conn)) else { return false };
        self.departures += 1;
        node.conn = None;
        node.info.online = false;
        node.json = None;
        node.offline_since = self.departures;
        self.offline.insert((self.departures, id));
        true
    }

    fn insert(&mut self, new: &Registration) -> u32 {
        // Numbers go up and come back only after all have been used, so that an address is not soon another's.
        let mut id = self.last_id;
        loop {
            id = id % LAST_ID + 1;
            if !self.nodes.contains_key(&id) {
                break;
            }
        }
        self.last_id = id;
        self.by_key.insert(new.node_key, id);
        let info = NodeInfo {
            id,
            name: String::new(),
            node_key: new.node_key,
            disco_key: new.disco_key,
            tunnel_ip: IpAddr::V4(Ipv4Addr::from_bits(BASE + id)),
            endpoints: Vec::new(),
            home_relay: None,
            nat: None,
            online: false,
        };
        self.nodes.insert(id, Node { info, machine: new.machine, conn: None, offline_since: 0, json: None });
        id
    }

    /// Forgets the node that has been offline longest.
    fn evict(&mut self) -> Option<u32> {
        let (_, id) = self.offline.pop_first()?;
        let node = self.nodes.remove(&id)?;
        self.by_key.remove(&node.info.node_key);
        Some(id)
    }
}

impl Node {
    fn set(&mut self, update: Update) {
        self.info.endpoints = update.endpoints;
        self.info.home_relay = update.home_relay;
        self.info.nat = update.nat;
        self.json = None;
    }
}

fn check(update: &Update) -> Result<(), Refusal> {
    if update.endpoints.len() > MAX_ENDPOINTS { Err(Refusal::TooManyEndpoints) } else { Ok(()) }
}
