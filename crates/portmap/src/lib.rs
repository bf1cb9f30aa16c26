//! Port mapping: a host asks its router to let others in. NAT-PMP (RFC 6886), PCP (RFC 6887), and the UPnP Forum's
//! Internet Gateway Device 1 and 2.
//!
//! - [`natpmp`], [`pcp`], [`upnp`]: the formats, byte for byte.
//! - [`gateway`]: the router's side, all three protocols over one table of leases; it asks its owner, who has the NAT,
//!   to open and close ports. It can misbehave as real ones do, see [`gateway::GatewayConfig`].
//! - [`client`]: the host's side, which finds out what its gateway speaks, keeps one UDP port mapped, and tells at which
//!   address.
//!
//! Both cores are sans-IO: datagrams, stream bytes and the time go in, the same and the next deadline come out.
//!
//! ```
//! use portmap::client::{self, Client, ClientConfig};
//! use portmap::gateway::{self, Gateway, GatewayConfig};
//! use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng as _};
//! use std::net::SocketAddr;
//! use std::time::Instant;
//!
//! # fn run(now: Instant) -> Result<(), Box<dyn std::error::Error>> {
//! let (host, router): (SocketAddr, _) = ("192.168.1.2:41641".parse()?, "192.168.1.1".parse()?);
//! let config = GatewayConfig { nat_pmp: false, upnp: None, ..GatewayConfig::new(router) };
//! let mut gateway = Gateway::new(config, ChaCha12Rng::seed_from_u64(1), now);
//! gateway.handle(gateway::Input::External(Some("203.0.113.7".parse()?)), now);
//! let mut client = Client::new(ClientConfig::new(host, router), ChaCha12Rng::seed_from_u64(2), now);
//! while client.poll_timeout().is_some_and(|(at, _)| at <= now) {
//!     client.handle_timeout(now);
//!     while let Some(transmit) = client.poll_transmit() {
//!         let client::Transmit::Datagram { to, data } = transmit else { continue };
//!         gateway.handle(gateway::Input::Datagram { to: to.port(), from: host, data: &data }, now);
//!         while let Some(gateway::Request::Map { id, inside, .. }) = gateway.poll_request() {
//!             let external = SocketAddr::new("203.0.113.7".parse()?, inside.port()); // the NAT's part
//!             gateway.handle(gateway::Input::Answer { id, result: Ok(external) }, now);
//!         }
//!         while let Some(transmit) = gateway.poll_transmit() {
//!             let gateway::Transmit::Datagram { port, data, .. } = transmit else { continue };
//!             client.handle(client::Input::Datagram { from: (router, port).into(), data: &data }, now);
//!         }
//!     }
//! }
//! assert_eq!(client.external(), Some("203.0.113.7:41641".parse()?));
//! # Ok(()) }
//! # #[expect(clippy::disallowed_methods, reason = "an example has to start somewhere")]
//! # run(Instant::now()).unwrap();
//! ```
//!
//! # What it does not do
//! - PCP: the options THIRD_PARTY and FILTER (refused as RFC 6887 §7.3 says), authentication (RFC 7652), mappings of all
//!   ports or all protocols. NAT-PMP and PCP over IPv6 transport are carried, but the client asks from one address only.
//! - UPnP: events (GENA), the other services of the device, mappings for one remote host, HTTP transfer codings, names in
//!   URLs. The device tells no more than a client needs.
//!
//! # Departures
//! - The client takes a description only from the gateway's own address, as anybody in the LAN can answer a search.
//! - A NAT-PMP client gives up after nine requests (RFC 6886 §3.1); this one then asks again every ten minutes, as a
//!   router may be replaced.

pub mod client;
pub mod gateway;
pub mod natpmp;
pub mod pcp;
pub mod upnp;

use std::fmt;
use std::net::IpAddr;

/// Transport of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Proto {
    /// IANA's protocol number.
    pub fn number(self) -> u8 {
        match self {
            Proto::Udp => 17,
            Proto::Tcp => 6,
        }
    }

    /// The transport of that number.
    pub fn from_number(number: u8) -> Option<Proto> {
        match number {
            17 => Some(Proto::Udp),
            6 => Some(Proto::Tcp),
            _ => None,
        }
    }

    /// UPnP's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Proto::Udp => "UDP",
            Proto::Tcp => "TCP",
        }
    }
}

/// One of the protocols by which ports are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

impl Protocol {
    /// All, best first: PCP answers with everything at once, NAT-PMP takes two questions, UPnP some connections.
    pub const ALL: [Protocol; 3] = [Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp];

    /// Its word in scenario files.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Pcp => "pcp",
            Protocol::NatPmp => "nat-pmp",
            Protocol::Upnp => "upnp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Pcp => "PCP",
            Protocol::NatPmp => "NAT-PMP",
            Protocol::Upnp => "UPnP",
        })
    }
}

/// UDP port of a gateway (RFC 6886 §3.1, RFC 6887 §19.1).
pub const SERVER_PORT: u16 = 5351;
/// UDP port to which gateways announce, at 224.0.0.1 or ff02::1 (RFC 6886 §3.2.1, RFC 6887 §14.1.3).
pub const ANNOUNCE_PORT: u16 = 5350;

/// Whether an external address can be one on the internet: not private (RFC 1918, 4193), shared (RFC 6598), link-local or
/// otherwise without meaning out there. Documentation addresses (RFC 5737) count as public.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || shared
                || matches!(a, 0 | 127 | 240..))
        }
        IpAddr::V6(v6) => {
            let local = v6.is_unique_local() || v6.is_unicast_link_local();
            !(local || v6.is_loopback() || v6.is_unspecified() || v6.is_multicast())
        }
    }
}
