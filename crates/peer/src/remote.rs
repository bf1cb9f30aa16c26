//! The other peers: who they are, and for those that matter at the moment, how they are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use coord::NodeInfo;
use disco::SharedKey;
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use wireguard::PeerId;

use crate::io::Via;
use crate::paths::Paths;

type Index<K> = IndexMap<K, u32, FxBuildHasher>;

/// What exists only for a peer with whom something was exchanged: a network may have hundreds of others.
pub(crate) struct Live {
    pub(crate) wg: PeerId,
    pub(crate) shared: SharedKey,
    pub(crate) paths: Paths,
    /// The path that was last reported.
    pub(crate) told: Option<Via>,
    /// The relay over which it last sent: it is connected there.
    pub(crate) reverse: Option<u16>,
    /// It started anew, and so has forgotten the session that this side still has.
    pub(crate) renew: bool,
    pub(crate) deadline: Option<(Instant, &'static str)>,
    /// Bytes of IP packets.
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// When the last handshake was done.
    pub(crate) handshake: Option<Instant>,
}

/// Another peer.
pub(crate) struct Remote {
    pub(crate) info: NodeInfo,
    pub(crate) name: Arc<str>,
    pub(crate) live: Option<Live>,
}

/// What a new state of a peer means for what is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upsert {
    /// Nothing but its candidates, home relay or facts may have changed.
    Same,
    /// It started anew: other disco key, same node.
    Restarted,
    /// It has another node key, and is otherwise what it was.
    Rotated,
    /// Another node, or one that was not known.
    New {
        /// The tunnel of the node that had this number before.
        gone: Option<PeerId>,
    },
}

/// The map of the network.
#[derive(Default)]
pub(crate) struct Directory {
    remotes: BTreeMap<u32, Remote>,
    by_node: Index<[u8; 32]>,
    by_disco: Index<[u8; 32]>,
    by_ip: Index<IpAddr>,
    by_wg: Index<PeerId>,
    /// Deadlines of the live ones, so that none is looked at before its time.
    agenda: BTreeSet<(Instant, u32)>,
    /// Ends of node keys, in Unix seconds.
    ends: BTreeSet<(u64, u32)>,
    /// How often it has changed.
    version: u64,
}

impl Directory {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Something else has changed that is kept with the map.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Remote> {
        self.remotes.get(&id)
    }

    pub(crate) fn live_mut(&mut self, id: u32) -> Option<(&NodeInfo, &Arc<str>, &mut Live)> {
        let remote = self.remotes.get_mut(&id)?;
        Some((&remote.info, &remote.name, remote.live.as_mut()?))
    }

    pub(crate) fn infos(&self) -> impl Iterator<Item = &NodeInfo> {
        self.remotes.values().map(|remote| &remote.info)
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.remotes.keys().copied().collect()
    }

    pub(crate) fn live_ids(&self) -> Vec<u32> {
        self.by_wg.values().copied().collect()
    }

    pub(crate) fn of_node(&self, key: &[u8; 32]) -> Option<u32> {
        self.by_node.get(key).copied()
    }

    pub(crate) fn of_disco(&self, key: &[u8; 32]) -> Option<u32> {
        self.by_disco.get(key).copied()
    }

    pub(crate) fn of_tunnel(&self, ip: IpAddr) -> Option<u32> {
        self.by_ip.get(&ip).copied()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.remotes.values().map(|remote| &*remote.name)
    }

    pub(crate) fn tunnel_address(&self, name: &str) -> Option<IpAddr> {
        // A peer that lost its keys registers anew: the record of the one it was stays behind, offline.
        let named = || self.remotes.values().filter(|remote| &*remote.name == name);
        let remote = named().find(|remote| remote.info.online).or_else(|| named().next());
        remote.map(|remote| remote.info.tunnel_ip)
    }

    pub(crate) fn of_wg(&self, peer: PeerId) -> Option<u32> {
        self.by_wg.get(&peer).copied()
    }

    /// Takes the new state of a peer.
    pub(crate) fn upsert(&mut self, info: NodeInfo) -> Upsert {
        let id = info.id;
        self.version += 1;
        let result = match self.remotes.get(&id) {
            Some(old) if old.info.node_key == info.node_key => {
                if old.info.disco_key == info.disco_key {
                    Upsert::Same
                } else {
                    Upsert::Restarted
                }
            }
            Some(old) if old.info.disco_key == info.disco_key => {
                self.by_node.swap_remove(&old.info.node_key);
                Upsert::Rotated
            }
            _ => Upsert::New { gone: self.remove(id) },
        };
        // Most news is of endpoints and who is online: what it is found by stays.
        let filed = self.remotes.get(&id).is_some_and(|old| is_found_alike(&old.info, &info));
        if !filed {
            self.file(&info);
        }
        match self.remotes.get_mut(&id) {
            Some(remote) => {
                if *remote.name != *info.name {
                    remote.name = info.name.as_str().into();
                }
                remote.info = info;
            }
            None => {
                let name = info.name.as_str().into();
                self.remotes.insert(id, Remote { info, name, live: None });
            }
        }
        result
    }

    /// Makes a peer found by what is known of it now, and no more by what was.
    fn file(&mut self, info: &NodeInfo) {
        let id = info.id;
        if let Some(old) = self.remotes.get(&id) {
            self.by_disco.swap_remove(&old.info.disco_key);
            for ip in addresses(&old.info) {
                self.by_ip.swap_remove(&ip);
            }
            if let Some(end) = old.info.key_expires {
                self.ends.remove(&(end, id));
            }
        }
        if let Some(end) = info.key_expires {
            self.ends.insert((end, id));
        }
        self.by_node.insert(info.node_key, id);
        self.by_disco.insert(info.disco_key, id);
        for ip in addresses(info) {
            self.by_ip.insert(ip, id);
        }
    }

    /// Forgets a peer; gives its tunnel, if it had one.
    pub(crate) fn remove(&mut self, id: u32) -> Option<PeerId> {
        let remote = self.remotes.remove(&id)?;
        self.version += 1;
        self.by_node.swap_remove(&remote.info.node_key);
        self.by_disco.swap_remove(&remote.info.disco_key);
        for ip in addresses(&remote.info) {
            self.by_ip.swap_remove(&ip);
        }
        if let Some(end) = remote.info.key_expires {
            self.ends.remove(&(end, id));
        }
        self.unlink(id, remote.live)
    }

    /// Forgets what exists of a peer because something was exchanged with it; gives its tunnel, if it had one.
    pub(crate) fn lull(&mut self, id: u32) -> Option<PeerId> {
        let live = self.remotes.get_mut(&id)?.live.take();
        self.unlink(id, live)
    }

    fn unlink(&mut self, id: u32, live: Option<Live>) -> Option<PeerId> {
        let live = live?;
        self.by_wg.swap_remove(&live.wg);
        if let Some((at, _)) = live.deadline {
            self.agenda.remove(&(at, id));
        }
        Some(live.wg)
    }

    /// Whose keys end after `after`, and no later than `until`, in Unix seconds.
    pub(crate) fn ended(&self, after: u64, until: u64) -> Vec<u32> {
        let later = self.ends.range((after.saturating_add(1), 0)..);
        later.take_while(|(end, _)| *end <= until).map(|(_, id)| *id).collect()
    }

    /// When the first key ends after `after`.
    pub(crate) fn next_end(&self, after: u64) -> Option<u64> {
        self.ends.range((after.saturating_add(1), 0)..).next().map(|(end, _)| *end)
    }

    pub(crate) fn enliven(&mut self, id: u32, live: Live) {
        if let Some(remote) = self.remotes.get_mut(&id) {
            self.by_wg.insert(live.wg, id);
            remote.live = Some(live);
        }
    }

    /// Notes when a live peer wants to be looked at next.
    pub(crate) fn schedule(&mut self, id: u32, deadline: Option<(Instant, &'static str)>) {
        let Some(live) = self.remotes.get_mut(&id).and_then(|remote| remote.live.as_mut()) else { return };
        let old = std::mem::replace(&mut live.deadline, deadline);
        let (old, new) = (old.map(|(at, _)| at), deadline.map(|(at, _)| at));
        if old != new {
            if let Some(at) = old {
                self.agenda.remove(&(at, id));
            }
            if let Some(at) = new {
                self.agenda.insert((at, id));
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let (_, id) = self.agenda.first()?;
        self.remotes.get(id)?.live.as_ref()?.deadline
    }

    /// Those whose deadline has come.
    pub(crate) fn due(&self, now: Instant) -> Vec<u32> {
        self.agenda.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }
}

/// Whether two states of a peer are found by the same keys and addresses, and end at the same time.
fn is_found_alike(a: &NodeInfo, b: &NodeInfo) -> bool {
    a.node_key == b.node_key
        && a.disco_key == b.disco_key
        && a.key_expires == b.key_expires
        && addresses(a).eq(addresses(b))
}

/// A node's addresses inside the network.
pub(crate) fn addresses(info: &NodeInfo) -> impl Iterator<Item = IpAddr> + use<> {
    [Some(info.tunnel_ip), info.tunnel_ip6.map(IpAddr::V6)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32, node: u8, disco: u8) -> NodeInfo {
        NodeInfo {
            id,
            name: format!("host-{id}"),
            node_key: [node; 32],
            disco_key: [disco; 32],
            tunnel_ip: IpAddr::from([100, 64, 0, node]),
            tunnel_ip6: None,
            tags: Vec::new(),
            key_expires: None,
            endpoints: Vec::new(),
            home_relay: None,
            nat: None,
            online: true,
        }
    }

    #[test]
    fn a_peer_is_found_by_each_of_its_keys() {
        let mut directory = Directory::default();
        assert_eq!(directory.upsert(node(7, 1, 2)), Upsert::New { gone: None });
        assert_eq!(directory.of_node(&[1; 32]), Some(7));
        assert_eq!(directory.of_disco(&[2; 32]), Some(7));
        assert_eq!(directory.of_tunnel(IpAddr::from([100, 64, 0, 1])), Some(7));
    }

    #[test]
    fn a_restarted_peer_is_no_longer_found_by_its_old_disco_key() {
        let mut directory = Directory::default();
        directory.upsert(node(7, 1, 2));
        assert_eq!(directory.upsert(node(7, 1, 3)), Upsert::Restarted);
        assert_eq!((directory.of_disco(&[2; 32]), directory.of_disco(&[3; 32])), (None, Some(7)));
    }

    #[test]
    fn a_removed_peer_is_found_by_nothing() {
        let mut directory = Directory::default();
        directory.upsert(node(7, 1, 2));
        directory.remove(7);
        assert_eq!((directory.of_node(&[1; 32]), directory.of_disco(&[2; 32])), (None, None));
        assert!(directory.get(7).is_none());
    }
}
