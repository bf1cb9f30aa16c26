//! The other relays of the region: who is connected to which of them.
//!
//! Each relay is a client of each of the others, with the mesh key, and watches who comes and goes there. A packet for a peer
//! that is connected elsewhere is handed over there, once: what comes in that way goes to a client of this relay or nowhere.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_CORRESPONDENTS, Server};
use crate::{
    frame::{Frame, GoneReason},
    keys::PublicKey,
    server::ConnId,
};

/// The caller's name for its connection to another relay of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// A packet for another relay: give it to [`Client::forward`](crate::Client::forward) of that link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Which link.
    pub link: LinkId,
    /// Its sender, a client of this relay.
    pub src: PublicKey,
    /// Its receiver, a client of the other.
    pub dst: PublicKey,
    /// The packet.
    pub packet: Bytes,
}

/// Another relay names more clients than it may ([`ServerConfig::max_mesh_clients`](super::ServerConfig)): those beyond are not
/// reached through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it names more than {max} clients; the rest is not reached through it")]
pub struct MeshFull {
    /// As many as it may.
    pub max: usize,
}

#[derive(Debug, Default)]
struct Remote {
    /// Where it is connected; the last that said so gets its packets.
    links: Vec<LinkId>,
    /// Our clients that sent it something, to be told when it leaves.
    senders: BTreeSet<PublicKey>,
}

#[derive(Debug, Default)]
pub(super) struct Mesh {
    remotes: BTreeMap<PublicKey, Remote>,
    /// How many clients each link has named.
    named: BTreeMap<LinkId, usize>,
    /// Of our clients, whom they sent something to: the other direction of `Remote::senders`.
    sent: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
}

impl Mesh {
    /// The relay that a client is connected to; `src` is about to send to it.
    pub(super) fn route(&mut self, src: &PublicKey, dst: &PublicKey) -> Option<LinkId> {
        let remote = self.remotes.get_mut(dst)?;
        if remote.senders.len() < MAX_CORRESPONDENTS && !remote.senders.contains(src) {
            let sent = self.sent.entry(*src).or_default();
            if sent.len() < MAX_CORRESPONDENTS {
                sent.insert(*dst);
                remote.senders.insert(*src);
            }
        }
        remote.links.last().copied()
    }

    /// A client of ours is gone.
    pub(super) fn left(&mut self, src: &PublicKey) {
        for dst in self.sent.remove(src).unwrap_or_default() {
            if let Some(remote) = self.remotes.get_mut(&dst) {
                remote.senders.remove(src);
            }
        }
    }

    fn insert(&mut self, link: LinkId, key: PublicKey, max: usize) -> Result<(), MeshFull> {
        let has = |remote: &Remote| remote.links.contains(&link);
        let named = self.named.entry(link).or_default();
        if !self.remotes.get(&key).is_some_and(has) {
            if *named >= max {
                return Err(MeshFull { max });
            }
            *named += 1;
        }
        let remote = self.remotes.entry(key).or_default();
        remote.links.retain(|other| *other != link);
        remote.links.push(link);
        Ok(())
    }

    fn remove(&mut self, link: LinkId, key: &PublicKey) -> BTreeSet<PublicKey> {
        let Some(remote) = self.remotes.get_mut(key) else { return BTreeSet::new() };
        let before = remote.links.len();
        remote.links.retain(|other| *other != link);
        if remote.links.len() < before
            && let Some(named) = self.named.get_mut(&link)
        {
            *named -= 1;
        }
        if !remote.links.is_empty() {
            return BTreeSet::new();
        }
        let senders = self.remotes.remove(key).map(|remote| remote.senders).unwrap_or_default();
        for sender in &senders {
            if let Some(sent) = self.sent.get_mut(sender) {
                sent.remove(key);
            }
        }
        senders
    }
}

impl Server {
    /// Another relay of the region has this client. An error tells that it has too many; nothing is lost that was there.
    pub fn mesh_present(&mut self, link: LinkId, key: PublicKey) -> Result<(), MeshFull> {
        self.mesh.insert(link, key, self.config.max_mesh_clients)
    }

    /// Another relay of the region has this client no more.
    pub fn mesh_gone(&mut self, link: LinkId, key: PublicKey) {
        let senders = self.mesh.remove(link, &key);
        if self.clients.active(&key).is_some() {
            return;
        }
        let reason = GoneReason::Disconnected;
        let to: Vec<ConnId> = senders.iter().filter_map(|sender| self.clients.active(sender)).collect();
        for conn in to {
            self.control(conn, &Frame::PeerGone { key, reason });
        }
    }

    /// The connection to another relay is gone, and with it all that it said.
    pub fn mesh_down(&mut self, link: LinkId) {
        let has = |remote: &Remote| remote.links.contains(&link);
        let keys: Vec<PublicKey> =
            self.mesh.remotes.iter().filter(|(_, remote)| has(remote)).map(|(key, _)| *key).collect();
        for key in keys {
            self.mesh_gone(link, key);
        }
    }

    /// The next packet for another relay.
    pub fn poll_forward(&mut self) -> Option<Forward> {
        self.forwards.pop_front()
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
    fn each_relay_may_name_so_many_clients_and_no_more() {
        let (mut mesh, full) = (Mesh::default(), Err(MeshFull { max: 2 }));
        let (a, b) = (LinkId(0), LinkId(1));
        assert_eq!([1, 2, 3].map(|n| mesh.insert(a, key(n), 2)), [Ok(()), Ok(()), full]);
        assert_eq!(mesh.insert(a, key(1), 2), Ok(()), "that one it had");
        assert_eq!(
            [3, 4, 5].map(|n| mesh.insert(b, key(n), 2)),
            [Ok(()), Ok(()), full],
            "another's are its own"
        );
        mesh.remove(a, &key(1));
        mesh.remove(a, &key(9));
        assert_eq!([3, 5].map(|n| mesh.insert(a, key(n), 2)), [Ok(()), full]);
        assert_eq!(mesh.remotes.len(), 3);
    }

    #[test]
    fn memory_of_who_wrote_to_clients_of_other_relays_is_bounded_and_goes_with_either() {
        let (mut mesh, link, all) = (Mesh::default(), LinkId(0), MAX_CORRESPONDENTS as u16 + 5);
        for n in 1..=all {
            mesh.insert(link, key(n), usize::MAX).unwrap();
            assert_eq!(mesh.route(&key(0), &key(n)), Some(link));
            mesh.route(&key(20_000 + n), &key(1));
        }
        assert_eq!((mesh.sent[&key(0)].len(), mesh.remotes[&key(1)].senders.len()), (4096, 4096));
        mesh.remove(link, &key(2));
        assert_eq!(mesh.sent[&key(0)].len(), 4095);
        mesh.left(&key(0));
        assert!(!mesh.remotes.values().any(|remote| remote.senders.contains(&key(0))));
    }
}
