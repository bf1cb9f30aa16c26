//! The map as it is told: what changed since the last delta, and the whole of it for those who arrive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;

use super::registry::to_json;
use super::{ConnId, Role, Server};
use crate::wire::{Key, Rules, ToClient, frame};
use crate::{Access, Error, MapVersion, NodeChange, NodeInfo, RelayInfo};

/// What gathers between two deltas.
#[derive(Default)]
pub(super) struct Changes {
    /// How many deltas were sent.
    pub(super) generation: u64,
    /// What the last delta left others believing of nodes that may be different now.
    before: BTreeMap<u32, Option<NodeInfo>>,
    relays: bool,
    access: bool,
    /// Streams of nodes that have no map yet.
    pub(super) arrivals: BTreeSet<ConnId>,
    pub(super) flush_at: Option<Instant>,
    flushed: Option<Instant>,
    /// Nodes that are no more, and the delta that said so; none is missing since `horizon`.
    removals: VecDeque<(u64, u32)>,
    horizon: u64,
}

impl Changes {
    /// Whether something was left for want of a store.
    pub(super) fn is_waiting(&self) -> bool {
        !self.before.is_empty() || !self.arrivals.is_empty() || self.relays || self.access
    }
}

impl Server {
    /// Remembers what others believe of a node, before it changes.
    pub(super) fn note(&mut self, id: u32) {
        let registry = &self.registry;
        let told = || registry.get(id).and_then(|node| node.told()).cloned();
        self.changes.before.entry(id).or_insert_with(told);
    }

    /// Remembers that others know nothing of a node that has just come.
    pub(super) fn note_new(&mut self, id: u32) {
        self.changes.before.entry(id).or_insert(None);
    }

    pub(super) fn note_relays(&mut self, now: Instant) {
        self.changes.relays = true;
        self.schedule_flush(now);
    }

    pub(super) fn note_access(&mut self, now: Instant) {
        self.changes.access = true;
        self.schedule_flush(now);
    }

    pub(super) fn relay_map(&self) -> &[RelayInfo] {
        self.relays.as_ref().unwrap_or(&self.config.relays)
    }

    pub(super) fn access_rules(&self) -> Option<&Access> {
        self.access.as_ref().or(self.config.access.as_ref())
    }

    pub(super) fn schedule_flush(&mut self, now: Instant) {
        let batch = self.config.limits.batch;
        let earliest = self.changes.flushed.map_or(now, |flushed| now.max(flushed + batch));
        self.changes.flush_at.get_or_insert(earliest);
    }

    pub(super) fn flush_if_due(&mut self, now: Instant) {
        if self.changes.flush_at.is_none_or(|at| now < at) {
            return;
        }
        self.changes.flush_at = None;
        let told = self.tell_members(now);
        let welcomed = self.welcome_arrivals();
        if told || welcomed {
            self.changes.flushed = Some(now);
        }
    }

    /// Sends what changed and is stored to all who have the map. Whether there was anything.
    fn tell_members(&mut self, now: Instant) -> bool {
        let next = self.changes.generation + 1;
        let ready: Vec<u32> =
            self.changes.before.keys().copied().filter(|id| !self.unstored.holds(*id)).collect();
        let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut admit, mut dismiss) = (Vec::new(), Vec::new());
        for id in ready {
            let before = self.changes.before.remove(&id).flatten();
            let new = self.registry.get(id).and_then(|node| node.told());
            match (before, new) {
                (None, None) => continue,
                (None, Some(new)) => {
                    admit.push(Key(new.node_key));
                    added.push(id);
                }
                (Some(old), None) => {
                    dismiss.push(Key(old.node_key));
                    removed.push(id);
                    self.changes.removals.push_back((next, id));
                }
                (Some(old), Some(new)) => {
                    let Some(change) = NodeChange::between(&old, new) else { continue };
                    if let Some(key) = change.node_key {
                        dismiss.push(Key(old.node_key));
                        admit.push(Key(key));
                    }
                    changed.push(change);
                }
            }
            if let Some(node) = self.registry.get_mut(id) {
                node.changed_at = next;
            }
        }
        while self.changes.removals.len() > self.config.limits.removals {
            if let Some((generation, _)) = self.changes.removals.pop_front() {
                self.changes.horizon = generation;
            }
        }
        let settings = !self.unstored.holds_settings();
        let relays = settings && std::mem::take(&mut self.changes.relays);
        let access = settings && std::mem::take(&mut self.changes.access);
        if added.is_empty() && changed.is_empty() && removed.is_empty() && !relays && !access {
            return false;
        }
        self.changes.generation = next;
        let delta = self.delta(&added, &changed, &removed, relays, access);
        self.broadcast(&delta, |role| matches!(role, Role::Member(_)), now);
        if !(admit.is_empty() && dismiss.is_empty()) {
            let admission = frame(&ToClient::Admission { admit, dismiss });
            self.broadcast(&admission, |role| role == Role::Relay, now);
        }
        true
    }

    fn delta(
        &mut self,
        added: &[u32],
        changed: &[NodeChange],
        removed: &[u32],
        relays: bool,
        access: bool,
    ) -> Bytes {
        #[derive(Serialize)]
        struct Delta<'a> {
            r#type: &'static str,
            generation: u64,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            added: Vec<Box<RawValue>>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            changed: &'a [NodeChange],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            removed: &'a [u32],
            #[serde(skip_serializing_if = "Option::is_none")]
            relays: Option<&'a [RelayInfo]>,
            #[serde(skip_serializing_if = "Option::is_none")]
            access: Option<Rules>,
        }
        let added =
            added.iter().filter_map(|id| self.registry.get_mut(*id).map(|node| node.json().to_owned()));
        let added = added.collect();
        let relays = relays.then(|| self.relay_map());
        let access = access.then(|| Rules { now: self.access_rules().cloned() });
        let generation = self.changes.generation;
        frame(&Delta { r#type: "delta", generation, added, changed, removed, relays, access })
    }

    fn broadcast(&mut self, message: &Bytes, meant: impl Fn(Role) -> bool, now: Instant) {
        let receivers = self.conns.iter().filter(|(_, stream)| meant(stream.role)).map(|(conn, _)| *conn);
        for conn in receivers.collect::<Vec<_>>() {
            let Some(stream) = self.conns.get_mut(&conn) else { continue };
            let backlog = stream.channel.backlog();
            if backlog > self.config.limits.backlog {
                self.fail(conn, Error::Backlog(backlog), now);
            } else {
                self.push(conn, message.clone());
            }
        }
    }

    /// Sends the map to those who have registered, and whose registration is stored. Whether there was anybody.
    fn welcome_arrivals(&mut self) -> bool {
        let mut whole = None;
        let mut any = false;
        for conn in self.changes.arrivals.iter().copied().collect::<Vec<_>>() {
            let Some(stream) = self.conns.get(&conn) else { continue };
            let (Some(id), have) = (stream.role.node(), stream.have) else { continue };
            if self.unstored.holds(id) {
                continue;
            }
            any = true;
            self.changes.arrivals.remove(&conn);
            let waits = self.registry.get(id).is_none_or(|node| node.told().is_none());
            let Some(stream) = self.conns.get_mut(&conn) else { continue };
            if waits {
                if !std::mem::replace(&mut stream.told_to_wait, true) {
                    self.push(conn, frame(&ToClient::Waiting));
                }
                continue;
            }
            stream.role = Role::Member(id);
            match have.filter(|have| self.can_resume(*have)) {
                Some(have) => {
                    let resumed = self.resumed(id, have.generation);
                    self.push(conn, resumed);
                }
                None => {
                    let peers = match &whole {
                        Some(peers) => Bytes::clone(peers),
                        None => whole.insert(self.peers()).clone(),
                    };
                    let head = self.full_head(id, peers.len());
                    self.push(conn, head);
                    self.push(conn, peers);
                }
            }
        }
        any
    }

    fn version(&self) -> MapVersion {
        MapVersion { run: self.run, generation: self.changes.generation }
    }

    fn can_resume(&self, have: MapVersion) -> bool {
        have.run == self.run && (self.changes.horizon..=self.changes.generation).contains(&have.generation)
    }

    /// What is different from the map of that generation.
    fn resumed(&mut self, id: u32, generation: u64) -> Bytes {
        let added = self.registry.iter().filter(|node| node.changed_at > generation);
        let added: Vec<NodeInfo> =
            added.filter_map(|node| self.as_told(node.record.info.id)).cloned().collect();
        let removals = self.changes.removals.iter().filter(|(at, _)| *at > generation);
        let removed = removals.map(|(_, id)| *id).filter(|id| added.iter().all(|node| node.id != *id));
        let (removed, version) = (removed.collect(), self.version());
        let (relays, access) = (self.relay_map().to_vec(), self.access_rules().cloned());
        match self.as_told(id).cloned() {
            Some(you) => frame(&ToClient::Resumed { version, you, relays, access, added, removed }),
            None => frame(&ToClient::KeepAlive),
        }
    }

    /// What others know of a node by now, stored or not.
    fn as_told(&self, id: u32) -> Option<&NodeInfo> {
        match self.changes.before.get(&id).filter(|_| self.unstored.holds(id)) {
            Some(before) => before.as_ref(),
            None => self.registry.get(id)?.told(),
        }
    }

    /// The keys of the nodes that others know of.
    pub(super) fn admitted(&self) -> Bytes {
        let known = self.registry.iter().filter_map(|node| self.as_told(node.record.info.id));
        frame(&ToClient::Admitted { keys: known.map(|node| Key(node.node_key)).collect() })
    }

    /// A full map up to its peers, with the length of all of it in front.
    fn full_head(&mut self, id: u32, peers: usize) -> Bytes {
        #[derive(Serialize)]
        struct Head<'a> {
            r#type: &'static str,
            version: MapVersion,
            you: Option<&'a NodeInfo>,
            relays: &'a [RelayInfo],
            access: Option<&'a Access>,
        }
        let (version, you) = (self.version(), self.as_told(id));
        let (relays, access) = (self.relay_map(), self.access_rules());
        let head = frame(&Head { r#type: "full", version, you, relays, access });
        // Without the closing brace, which ends the peers.
        let mut head = BytesMut::from(&head[..head.len() - 1]);
        let length =
            u32::try_from(head.len() - 4 + peers).expect("the server's limits keep messages below 4 GiB");
        head[..4].copy_from_slice(&length.to_be_bytes());
        head.freeze()
    }

    /// The rest of it, which is the same for all: nobody minds to be among the peers.
    fn peers(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(400 * self.registry.len() + 16);
        out.put_slice(b",\"peers\":[");
        let mut first = true;
        for id in self.registry.ids() {
            let json = match self.changes.before.get(&id).filter(|_| self.unstored.holds(id)) {
                Some(before) => before.as_ref().map(to_json),
                None => match self.registry.get_mut(id) {
                    Some(node) if node.told().is_some() => Some(node.json().to_owned()),
                    _ => None,
                },
            };
            if let Some(json) = json {
                if !std::mem::take(&mut first) {
                    out.put_u8(b',');
                }
                out.put_slice(json.get().as_bytes());
            }
        }
        out.put_slice(b"]}");
        out.freeze()
    }
}
