//! One endpoint of the mesh: it registers with the coordination server, learns its NAT, finds, keeps and leaves paths to
//! the other peers, and carries a WireGuard tunnel over them.
//!
//! A [`Peer`] is sans-IO. It has one UDP socket, on which STUN, path discovery and the tunnel share a port so that what is
//! learned about one holds for the others, and as many TCP connections as it asks for. The caller owns the sockets, the
//! clock and the tunnel device:
//!
//! ```
//! use peer::{Config, Event, Input, Keys, Peer, Policy, Transmit};
//! use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
//! use std::time::Duration;
//!
//! # #[expect(clippy::disallowed_methods, reason = "a doctest needs some instant")]
//! let now = std::time::Instant::now();
//! let config = Config {
//!     name: "takkie".into(),
//!     keys: Keys { node: [1; 32], disco: [2; 32], machine: [3; 32] },
//!     coordinator: vec!["192.0.2.1:443".parse()?, "192.0.2.1:80".parse()?],
//!     coordinator_key: coord::public_key(&[4; 32]),
//!     coordinator_host: String::new(),
//!     auth_key: None,
//!     coordinator_tls: None,
//!     authorities: None,
//!     epoch: Duration::from_secs(1_800_000_000),
//!     proxy: None,
//!     map: None,
//!     policy: Policy::default(),
//! };
//! let mut peer = Peer::new(config, ChaCha12Rng::seed_from_u64(5), now);
//! peer.handle(Input::Addresses(&["192.168.1.2:41641".parse()?]), now); // or what happened since
//! while let Some(transmit) = peer.poll_transmit() {
//!     match transmit {
//!         Transmit::Connect { conn, to } => assert_eq!((conn.0, to.port()), (0, 443)), // then Input::Connected, or Closed
//!         Transmit::Datagram { .. } | Transmit::Write { .. } | Transmit::Close(_) => {}
//!     }
//! }
//! while let Some(event) = peer.poll_event() {
//!     if let Event::Packet { data, .. } = event { /* goes to the tunnel device */ drop(data) }
//! }
//! let (deadline, _why) = peer.poll_timeout().expect("the connection attempt ends"); // sleep, then handle_timeout
//! assert_eq!(deadline - now, Duration::from_millis(1500));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a path is found
//! Traffic for a peer leaves at once over the relay where that peer is at home. At the same time both sides check every
//! address at which the other may be reached, on a dense schedule, so that their NATs open towards each other in the same
//! moment; they call each other over the relay. The first address that answers takes the traffic over, without losing a packet;
//! a better one replaces it. When the path falls silent, traffic goes both ways for some hundred milliseconds, and then
//! over the relay again, while the search starts anew. The rules stand in `paths.rs` and `liveness.rs`, every timer in [`Policy`].
//!
//! # IPv4 and IPv6
//! A machine with both offers addresses of both and checks those of both. Among direct paths the nearer wins, where IPv6
//! counts as nearer by [`Policy::ipv6_gain`]: no translator stands in it that forgets. Servers are tried by IPv6 first
//! (RFC 6724 §2.1, RFC 8305 §4). A machine with IPv6 alone asks its network's resolver for the prefix of a NAT64 (RFC 7050,
//! [`Input::Resolver`]), and with it reaches the IPv4 addresses of servers and peers, and learns an IPv4 address of its own from
//! STUN servers.
//!
//! # Who may talk to it
//! The coordination server's access rules are held against what comes out of the tunnel; answers to what went in pass. The
//! last map, rules included, stays in force while the server is away, over a restart too if the caller keeps
//! [`Peer::map`] for the next [`Config::map`].
//!
//! # Departures from Tailscale's magicsock, whose messages it speaks
//! - Checks are retransmitted and trigger checks back (RFC 8445 §7.3.1.4); a call-me-maybe is answered with one, once a round.
//! - A ping from a disco key that the map does not tie to its node key is ignored, instead of learned.
//! - An answer counts only from the address that was asked.
//! - Liveness is judged by what arrives and by probes 200 ms apart, not by pongs within 6.5 s.
//!
//! # What it does not do
//! Port prediction and birthday probing against mappings that vary by destination (such a pair stays relayed), path MTU discovery, several sockets, TLS around its TCP streams.

mod access;
mod candidate;
mod config;
mod demux;
mod dial;
mod io;
mod liveness;
mod nat;
mod paths;
mod peer;
mod policy;
mod portmap;
mod reach;
mod relays;
mod remote;
mod signalling;

pub use config::{Config, Keys, Proxy, ServerTls};
pub use io::{ConnId, Event, Input, ServerState, Transmit, Via};
pub use peer::Peer;
pub use peer::status::{PeerStatus, Status};
pub use policy::{MAX_CANDIDATES, MAX_LOCAL, MAX_REFLEXIVE, PROBES_PER_CANDIDATE, Policy};
pub use proxy::Credentials;
