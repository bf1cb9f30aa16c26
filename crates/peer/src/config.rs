//! What a peer is told when it is made.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use proxy::Credentials;

use crate::policy::Policy;

/// The private keys of a peer, all Curve25519.
#[derive(Clone)]
pub struct Keys {
    /// WireGuard's key: the peer's identity towards other peers and relays.
    pub node: [u8; 32],
    /// Key of the path discovery messages. A new one for each start of the program.
    pub disco: [u8; 32],
    /// Identity towards the coordination server.
    pub machine: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// Configuration of a [`Peer`](crate::Peer).
#[derive(Debug, Clone)]
pub struct Config {
    /// The name under which it registers.
    pub name: String,
    /// Its private keys.
    pub keys: Keys,
    /// Addresses of the coordination server, tried in this order (port 443 before 80).
    pub coordinator: Vec<SocketAddr>,
    /// The coordination server's public key.
    pub coordinator_key: [u8; 32],
    /// The coordination server's name, for the HTTP `Host` field; may be empty.
    pub coordinator_host: String,
    /// The pre-authentication key, where not everybody may join.
    pub auth_key: Option<String>,
    /// Ports of the coordination server that speak TLS, and how it is known there.
    pub coordinator_tls: Option<ServerTls>,
    /// Who vouches for relays that come without a pin. Those are then not reached on their TLS ports, if this is `None`.
    pub authorities: Option<tls::ClientConfig>,
    /// Unix time at the `now` that [`Peer::new`](crate::Peer::new) gets; WireGuard's handshakes carry it.
    pub epoch: Duration,
    /// The HTTP proxy that every TCP connection goes through, where the network demands one. As a browser does, a peer that
    /// knows of a proxy uses nothing else; UDP does not go through it.
    pub proxy: Option<Proxy>,
    /// The map that the peer had when it ended, if it was kept: it counts until the coordination server says more.
    pub map: Option<Box<coord::Map>>,
    /// Timers.
    pub policy: Policy,
}

/// How connections to a server are secured.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// Those of its ports that speak TLS.
    pub ports: Vec<u16>,
    /// The host name or IP address that its certificate is for, if an authority vouches for it.
    pub name: String,
    /// By what it is known.
    pub trust: tls::ClientConfig,
}

/// An HTTP proxy for tunnels (CONNECT, RFC 9110 §9.3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it wants to be shown, if anything.
    pub credentials: Option<Credentials>,
}
