//! What a peer knows, for people to look at.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord::NatFacts;

use super::Peer;
use crate::io::Via;

/// A peer as it stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its address inside the tunnel network, once it has one.
    pub tunnel: Option<IpAddr>,
    /// Whether the coordination server is connected.
    pub coordinated: bool,
    /// Name of the relay where it is at home, and whether that is connected.
    pub home_relay: Option<(Arc<str>, bool)>,
    /// What it believes of its own NAT.
    pub nat: NatFacts,
    /// The addresses that it offers.
    pub candidates: Vec<SocketAddr>,
    /// All others, in the order in which they registered.
    pub peers: Vec<PeerStatus>,
}

/// Another peer, as this one sees it.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its WireGuard public key.
    pub node_key: [u8; 32],
    /// Its address inside the tunnel network.
    pub tunnel: IpAddr,
    /// Whether the coordination server is connected with it.
    pub online: bool,
    /// The way on which packets go to it, if there was any traffic.
    pub path: Option<Via>,
    /// Smoothed round trip of a direct path.
    pub rtt: Option<Duration>,
    /// Bytes of IP packets sent to it, and received from it.
    pub sent_bytes: u64,
    /// See [`sent_bytes`](PeerStatus::sent_bytes).
    pub received_bytes: u64,
    /// When the last handshake with it was done.
    pub handshake: Option<Instant>,
}

impl Peer {
    /// What it knows now.
    #[must_use]
    pub fn status(&self) -> Status {
        let peers = self.directory.ids().into_iter().filter_map(|id| self.directory.get(id));
        let peers = peers.map(|remote| {
            let live = remote.live.as_ref();
            PeerStatus {
                name: remote.name.clone(),
                node_key: remote.info.node_key,
                tunnel: remote.info.tunnel_ip,
                online: remote.info.online,
                path: live.and_then(|live| live.told.clone()),
                rtt: live.and_then(|live| live.paths.rtt()),
                sent_bytes: live.map_or(0, |live| live.sent_bytes),
                received_bytes: live.map_or(0, |live| live.received_bytes),
                handshake: live.and_then(|live| live.handshake),
            }
        });
        let home = self.relays.home();
        let home =
            home.and_then(|region| Some((self.relays.name(region)?.clone(), self.relays.is_up(region))));
        Status {
            tunnel: self.tunnel,
            coordinated: self.signalling.is_up(),
            home_relay: home,
            nat: self.nat.facts(),
            candidates: self.nat.candidates().to_vec(),
            peers: peers.collect(),
        }
    }
}
