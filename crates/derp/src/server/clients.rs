//! The register of clients: which connections each has, and whom it exchanged packets with.

use std::collections::{BTreeMap, BTreeSet};

use super::ConnId;
use crate::keys::PublicKey;

/// Peers remembered for each client, to be told when it leaves. A client that talks to more is left without that hint
/// for the rest; the bound is ours, to keep a client's memory bounded.
pub const MAX_CORRESPONDENTS: usize = 4096;

#[derive(Debug, Default)]
struct Client {
    /// Its connections, the last active one last. More than one while a machine changes networks, or if two machines
    /// have one key; then the one that spoke last gets the packets
    /// (`lastWriterIsActive`, tailscale `derp/derpserver/derpserver.go`).
    conns: Vec<ConnId>,
    /// Symmetric: each is in the other's set, so that a client's leaving clears both.
    peers: BTreeSet<PublicKey>,
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    // Clients choose their keys, so no hash of them decides how long a lookup takes.
    by_key: BTreeMap<PublicKey, Client>,
}

impl Clients {
    /// A new connection is the active one.
    pub(super) fn insert(&mut self, key: PublicKey, conn: ConnId) {
        self.by_key.entry(key).or_default().conns.push(conn);
    }

    /// `conn` of `key` sent something. `true` if it was another connection's turn.
    pub(super) fn note_active(&mut self, key: &PublicKey, conn: ConnId) -> bool {
        let Some(client) = self.by_key.get_mut(key) else {
            return false;
        };
        if client.conns.last() != Some(&conn)
            && let Some(at) = client.conns.iter().position(|c| *c == conn)
        {
            client.conns[at..].rotate_left(1);
            return true;
        }
        false
    }

    /// All connections of `key`.
    pub(super) fn conns(&self, key: &PublicKey) -> Vec<ConnId> {
        self.by_key.get(key).map(|client| client.conns.clone()).unwrap_or_default()
    }

    /// All clients.
    pub(super) fn keys(&self) -> impl Iterator<Item = PublicKey> {
        self.by_key.keys().copied()
    }

    /// The connection that gets the packets for `key`.
    pub(super) fn active(&self, key: &PublicKey) -> Option<ConnId> {
        self.by_key.get(key)?.conns.last().copied()
    }

    /// A packet went between two clients.
    pub(super) fn note_exchange(&mut self, a: &PublicKey, b: &PublicKey) {
        let Some(first) = self.by_key.get(a) else {
            return;
        };
        if a == b || first.peers.contains(b) || first.peers.len() >= MAX_CORRESPONDENTS {
            return;
        }
        let Some(second) = self.by_key.get_mut(b) else {
            return;
        };
        if second.peers.len() >= MAX_CORRESPONDENTS {
            return;
        }
        second.peers.insert(*a);
        if let Some(first) = self.by_key.get_mut(a) {
            first.peers.insert(*b);
        }
    }

    /// `conn` of `key` is gone. If it was the last one: the active connections of all that exchanged packets with `key`.
    pub(super) fn remove(&mut self, key: &PublicKey, conn: ConnId) -> Vec<ConnId> {
        let Some(client) = self.by_key.get_mut(key) else {
            return Vec::new();
        };
        client.conns.retain(|c| *c != conn);
        if !client.conns.is_empty() {
            return Vec::new();
        }
        let peers = self.by_key.remove(key).map(|c| c.peers).unwrap_or_default();
        let tell = peers.iter().filter_map(|peer| {
            let peer = self.by_key.get_mut(peer)?;
            peer.peers.remove(key);
            peer.conns.last().copied()
        });
        tell.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u16) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        PublicKey(bytes)
    }

    #[test]
    fn the_connection_that_spoke_last_is_active() {
        let mut clients = Clients::default();
        for n in 0..3 {
            clients.insert(key(1), ConnId(n));
        }
        assert_eq!(clients.active(&key(1)), Some(ConnId(2)));
        clients.note_active(&key(1), ConnId(0));
        assert_eq!(clients.active(&key(1)), Some(ConnId(0)));
        clients.remove(&key(1), ConnId(0));
        assert_eq!(clients.active(&key(1)), Some(ConnId(2)));
    }

    #[test]
    fn only_the_last_connection_to_go_is_news() {
        let mut clients = Clients::default();
        clients.insert(key(1), ConnId(1));
        clients.insert(key(1), ConnId(2));
        clients.insert(key(9), ConnId(9));
        clients.note_exchange(&key(9), &key(1));
        assert_eq!(clients.remove(&key(1), ConnId(2)), []);
        assert_eq!(clients.remove(&key(1), ConnId(1)), [ConnId(9)]);
        assert_eq!(clients.active(&key(1)), None);
    }

    #[test]
    fn who_left_is_forgotten_by_those_who_stay() {
        let mut clients = Clients::default();
        clients.insert(key(1), ConnId(1));
        clients.insert(key(2), ConnId(2));
        clients.note_exchange(&key(1), &key(2));
        clients.remove(&key(1), ConnId(1));
        clients.insert(key(1), ConnId(3));
        assert_eq!(clients.remove(&key(2), ConnId(2)), []);
    }

    #[test]
    fn memory_of_correspondents_is_bounded_on_both_sides() {
        let mut clients = Clients::default();
        clients.insert(key(0), ConnId(0));
        for n in 1..=MAX_CORRESPONDENTS as u16 + 5 {
            clients.insert(key(n), ConnId(n.into()));
            clients.note_exchange(&key(n), &key(0));
        }
        assert_eq!(clients.by_key[&key(0)].peers.len(), MAX_CORRESPONDENTS);
        assert!(clients.by_key[&key(MAX_CORRESPONDENTS as u16 + 1)].peers.is_empty());
    }
}
