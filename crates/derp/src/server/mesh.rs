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
}

impl Mesh {
    /// The relay that a client is connected to; `src` is about to send to it.
    pub(super) fn route(&mut self, src: &PublicKey, dst: &PublicKey) -> Option<LinkId> {
        let remote = self.remotes.get_mut(dst)?;
        if remote.senders.len() < MAX_CORRESPONDENTS {
            remote.senders.insert(*src);
        }
        remote.links.last().copied()
    }

    fn remove(&mut self, link: LinkId, key: &PublicKey) -> BTreeSet<PublicKey> {
        let Some(remote) = self.remotes.get_mut(key) else { return BTreeSet::new() };
        remote.links.retain(|other| *other != link);
        if !remote.links.is_empty() {
            return BTreeSet::new();
        }
        self.remotes.remove(key).map(|remote| remote.senders).unwrap_or_default()
    }
}

impl Server {
    /// Another relay of the region has this client.
    pub fn mesh_present(&mut self, link: LinkId, key: PublicKey) {
        let remote = self.mesh.remotes.entry(key).or_default();
        remote.links.retain(|other| *other != link);
        remote.links.push(link);
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
