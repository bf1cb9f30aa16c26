//! The nodes of the network, their addresses and their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use serde_json::value::RawValue;

use super::ConnId;
use crate::state::{NodeRecord, Standing};
use crate::{NodeInfo, Refusal, Update};

/// The shared address space (RFC 6598 §7): 100.64.0.0/10.
const BASE: u32 = Ipv4Addr::new(100, 64, 0, 0).to_bits();
/// Its last address is left out, as the first is.
const LAST_ID: u32 = (1 << 22) - 2;
/// A label of the DNS (RFC 1035 §2.3.4), so that names can become host names.
pub(crate) const MAX_NAME: usize = 63;
/// More than a machine with several interfaces, both families and a few NATs needs.
pub(crate) const MAX_ENDPOINTS: usize = 32;
/// Tags of a node.
pub(crate) const MAX_TAGS: usize = 32;

/// A machine that has registered.
pub(crate) struct Node {
    pub(crate) record: NodeRecord,
    pub(crate) conn: Option<ConnId>,
    /// Its key is past its end.
    pub(crate) expired: bool,
    /// The delta that last spoke of it.
    pub(crate) changed_at: u64,
    /// Since when nobody has heard of it.
    pub(crate) offline_at: Option<Instant>,
    /// When it went offline, as a count of such events.
    departure: u64,
    json: Option<Box<RawValue>>,
}

impl Node {
    /// What others are told of it; nothing while it is not one of the network.
    pub(crate) fn told(&self) -> Option<&NodeInfo> {
        (self.record.standing == Standing::Approved && !self.expired).then_some(&self.record.info)
    }

    /// What others are told of it as JSON, made once per change.
    pub(crate) fn json(&mut self) -> &RawValue {
        let info = &self.record.info;
        self.json.get_or_insert_with(|| to_json(info))
    }
}

pub(crate) fn to_json(info: &NodeInfo) -> Box<RawValue> {
    serde_json::value::to_raw_value(info).expect("plain data without maps serializes into memory")
}

/// All nodes, by number.
pub(crate) struct Registry {
    nodes: BTreeMap<u32, Node>,
    by_machine: BTreeMap<[u8; 32], u32>,
    by_key: BTreeMap<[u8; 32], u32>,
    by_name: BTreeMap<String, BTreeSet<u32>>,
    /// Those that went offline, the first of them first.
    offline: BTreeSet<(u64, u32)>,
    departures: u64,
    last_id: u32,
    waiting: usize,
    limit: usize,
    prefix6: [u8; 8],
}

/// What a machine says when it registers, and what was decided about it.
pub(crate) struct Registration {
    pub(crate) machine: [u8; 32],
    pub(crate) conn: ConnId,
    pub(crate) name: String,
    pub(crate) node_key: [u8; 32],
    pub(crate) disco_key: [u8; 32],
    pub(crate) update: Update,
    pub(crate) terms: Terms,
}

/// On which terms a machine is let in.
pub(crate) struct Terms {
    /// Whether it is one of the network from now on, or has to wait.
    pub(crate) admitted: bool,
    /// The pre-authentication key that lets it in, and what comes with that.
    pub(crate) key: Option<(u32, bool, Vec<String>)>,
    /// When a node key that is new now will end.
    pub(crate) key_expires: Option<u64>,
    /// Whether names are given by those who let machines in, and so are unique and stay.
    pub(crate) names_matter: bool,
    /// Unix time in seconds.
    pub(crate) unix: u64,
}

/// What a registration did.
pub(crate) struct Registered {
    pub(crate) id: u32,
    /// The stream that the node had until now.
    pub(crate) replaced: Option<ConnId>,
    /// Whether more than what the node itself reports is different.
    pub(crate) hard: bool,
}

impl Registry {
    pub(crate) fn new(limit: usize, prefix6: [u8; 8]) -> Registry {
        Registry {
            nodes: BTreeMap::new(),
            by_machine: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_name: BTreeMap::new(),
            offline: BTreeSet::new(),
            departures: 0,
            last_id: 0,
            waiting: 0,
            limit: limit.min(LAST_ID as usize),
            prefix6,
        }
    }

    /// Takes a node that was stored; `false` if its number, machine or key is another's.
    pub(crate) fn load(&mut self, mut record: NodeRecord, now: Instant) -> bool {
        let (id, machine, key) = (record.info.id, record.machine, record.info.node_key);
        if self.nodes.contains_key(&id)
            || self.by_machine.contains_key(&machine)
            || self.by_key.contains_key(&key)
        {
            return false;
        }
        record.info.online = false;
        self.put(record);
        self.went(id, now);
        true
    }

    pub(crate) fn set_last_id(&mut self, last: u32) {
        self.last_id = last.max(self.nodes.keys().next_back().copied().unwrap_or(0));
    }

    pub(crate) fn last_id(&self) -> u32 {
        self.last_id
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.nodes.len() >= self.limit
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// To change what others are not told of.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    /// To change what others are told of a node, other than its keys, name and standing.
    pub(crate) fn edit(&mut self, id: u32) -> Option<&mut Node> {
        let node = self.nodes.get_mut(&id)?;
        node.json = None;
        Some(node)
    }

    pub(crate) fn of_machine(&self, machine: &[u8; 32]) -> Option<&Node> {
        self.by_machine.get(machine).and_then(|id| self.nodes.get(id))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.values_mut()
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    /// Whether a machine may register that way.
    pub(crate) fn check(&self, new: &Registration) -> Result<(), Refusal> {
        check_name(&new.name)?;
        check(&new.update)?;
        let known = self.of_machine(&new.machine);
        if self.by_key.get(&new.node_key).is_some_and(|id| known.map(|node| node.record.info.id) != Some(*id))
        {
            return Err(Refusal::NodeKeyTaken);
        }
        match known {
            Some(node) if node.record.standing == Standing::Revoked => Err(Refusal::Revoked),
            Some(node) if node.expired && node.record.info.node_key == new.node_key => {
                Err(Refusal::KeyExpired)
            }
            _ => Ok(()),
        }
    }

    /// Takes a registration that was [checked](Registry::check); there must be room.
    pub(crate) fn register(&mut self, new: Registration) -> Registered {
        let Registration { machine, conn, name, node_key, disco_key, update, terms } = new;
        let known = self.by_machine.get(&machine).copied();
        let id = known.unwrap_or_else(|| self.insert(machine, node_key, terms.unix));
        let before = self.nodes.get(&id).map(|node| (node.record.info.name.clone(), node.record.standing));
        let (old_name, old_standing) = before.unwrap_or((String::new(), Standing::Waiting));
        let first = known.is_none();
        let joins = terms.admitted && (first || old_standing == Standing::Waiting);
        let standing = if terms.admitted { Standing::Approved } else { Standing::Waiting };
        let named = match terms.names_matter {
            true if joins => self.free_name(&name, id),
            true if standing == Standing::Approved => old_name.clone(),
            _ => name,
        };
        self.set_standing(id, standing);
        self.set_key(id, node_key, terms.key_expires, joins);
        self.rename(id, named);
        let Some(node) = self.edit(id) else { return Registered { id, replaced: None, hard: false } };
        let mut hard = first || joins || standing != old_standing || node.record.info.name != old_name;
        if let Some((key, ephemeral, tags)) = terms.key {
            node.record.auth_key = Some(key);
            node.record.ephemeral = ephemeral;
            node.record.info.tags = tags;
            hard = true;
        }
        node.record.info.disco_key = disco_key;
        node.record.info.online = true;
        node.set(update);
        node.offline_at = None;
        let (departure, replaced) = (node.departure, node.conn.replace(conn));
        self.offline.remove(&(departure, id));
        Registered { id, replaced, hard }
    }

    /// Gives a node another key, or the one it has another end. Whether that changed anything.
    ///
    /// The key must be nobody else's.
    pub(crate) fn set_key(&mut self, id: u32, key: [u8; 32], expires: Option<u64>, renew: bool) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let old = node.record.info.node_key;
        if old == key && !renew {
            return false;
        }
        node.json = None;
        node.record.info.node_key = key;
        node.record.info.key_expires = expires;
        node.expired = false;
        self.by_key.remove(&old);
        self.by_key.insert(key, id);
        true
    }

    pub(crate) fn has_key(&self, key: &[u8; 32]) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn set_standing(&mut self, id: u32, standing: Standing) {
        if let Some(node) = self.nodes.get_mut(&id) {
            let old = std::mem::replace(&mut node.record.standing, standing);
            self.waiting += usize::from(standing == Standing::Waiting);
            self.waiting -= usize::from(old == Standing::Waiting);
        }
    }

    pub(crate) fn rename(&mut self, id: u32, name: String) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.record.info.name == name {
            return;
        }
        node.json = None;
        let old = std::mem::replace(&mut node.record.info.name, name.clone());
        self.unname(&old, id);
        self.by_name.entry(name).or_default().insert(id);
    }

    /// The name, or with a number after it if it belongs to another node of the network.
    pub(crate) fn free_name(&self, wanted: &str, id: u32) -> String {
        let taken = |name: &str| {
            let held = |other: &u32| {
                *other != id && self.get(*other).is_some_and(|node| node.record.standing != Standing::Waiting)
            };
            self.by_name.get(name).is_some_and(|ids| ids.iter().any(held))
        };
        let numbered = |number: usize| {
            let suffix = format!("-{number}");
            let end = wanted.floor_char_boundary(MAX_NAME - suffix.len());
            format!("{}{suffix}", &wanted[..end])
        };
        let mut names = std::iter::once(wanted.to_owned()).chain((2..).map(numbered));
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    /// Whether that changed anything.
    pub(crate) fn update(&mut self, id: u32, update: Update) -> bool {
        self.edit(id).is_some_and(|node| {
            let info = &node.record.info;
            let same = info.endpoints == update.endpoints
                && info.home_relay == update.home_relay
                && info.nat == update.nat;
            node.set(update);
            !same
        })
    }

    /// The stream `conn` of a node has ended. Whether the node was still on it, and so is offline now.
    pub(crate) fn leave(&mut self, id: u32, conn: ConnId, now: Instant) -> bool {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.conn == Some(conn)) else { return false };
        node.conn = None;
        node.record.info.online = false;
        node.json = None;
        self.went(id, now);
        true
    }

    fn went(&mut self, id: u32, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        self.departures += 1;
        node.departure = self.departures;
        node.offline_at = Some(now);
        self.offline.insert((self.departures, id));
    }

    fn insert(&mut self, machine: [u8; 32], node_key: [u8; 32], created: u64) -> u32 {
        // Numbers go up and come back only after all have been used, so that an address is not soon another's.
        let mut id = self.last_id;
        loop {
            id = id % LAST_ID + 1;
            if !self.nodes.contains_key(&id) {
                break;
            }
        }
        self.last_id = id;
        let info = NodeInfo {
            id,
            name: String::new(),
            node_key,
            disco_key: [0; 32],
            tunnel_ip: IpAddr::V4(Ipv4Addr::from_bits(BASE + id)),
            tunnel_ip6: Some(self.address6(id)),
            tags: Vec::new(),
            key_expires: None,
            endpoints: Vec::new(),
            home_relay: None,
            nat: None,
            online: false,
        };
        let standing = Standing::Waiting;
        self.put(NodeRecord { info, machine, standing, ephemeral: false, auth_key: None, created });
        id
    }

    fn put(&mut self, record: NodeRecord) {
        let id = record.info.id;
        self.by_machine.insert(record.machine, id);
        self.by_key.insert(record.info.node_key, id);
        self.by_name.entry(record.info.name.clone()).or_default().insert(id);
        self.waiting += usize::from(record.standing == Standing::Waiting);
        let node = Node {
            record,
            conn: None,
            expired: false,
            changed_at: 0,
            offline_at: None,
            departure: 0,
            json: None,
        };
        self.nodes.insert(id, node);
    }

    /// The number in the low half of an address with the network's prefix.
    fn address6(&self, id: u32) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.prefix6);
        octets[12..].copy_from_slice(&id.to_be_bytes());
        octets.into()
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        self.by_machine.remove(&node.record.machine);
        self.by_key.remove(&node.record.info.node_key);
        self.unname(&node.record.info.name, id);
        self.offline.remove(&(node.departure, id));
        self.waiting -= usize::from(node.record.standing == Standing::Waiting);
        Some(node)
    }

    fn unname(&mut self, name: &str, id: u32) {
        if let Some(ids) = self.by_name.get_mut(name) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// The node that has been offline longest, of those that may go.
    pub(crate) fn longest_offline(&self, may_go: impl Fn(&NodeRecord) -> bool) -> Option<u32> {
        let mut ids = self.offline.iter().map(|(_, id)| *id);
        ids.find(|id| self.get(*id).is_some_and(|node| may_go(&node.record)))
    }
}

impl Node {
    fn set(&mut self, update: Update) {
        let info = &mut self.record.info;
        info.endpoints = update.endpoints;
        info.home_relay = update.home_relay;
        info.nat = update.nat;
        self.json = None;
    }
}

pub(crate) fn check(update: &Update) -> Result<(), Refusal> {
    if update.endpoints.len() > MAX_ENDPOINTS { Err(Refusal::TooManyEndpoints) } else { Ok(()) }
}

pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    let good = !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    if good { Ok(()) } else { Err(Refusal::Name) }
}
