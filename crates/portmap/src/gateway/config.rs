//! What a gateway offers, and how it misbehaves.

use std::net::IpAddr;
use std::time::Duration;

use crate::upnp::IgdVersion;

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// They are served.
    Serve,
    /// None is answered and nothing is announced, as with a daemon that hangs or a switch in the router's pages that
    /// only hides it.
    Silent,
    /// Mappings are refused as not authorized: NAT-PMP 2, PCP 2, UPnP 606. So are they where an administrator's rules
    /// allow none (miniupnpd's `deny` lines).
    NotAuthorized,
    /// Mappings are refused for a failure of the network: NAT-PMP 3, PCP 7, UPnP 501. So does a router that has lost its
    /// uplink (RFC 6886 §3.5).
    NetworkFailure,
    /// Mappings are refused for lack of space: NAT-PMP 4, PCP 8, UPnP 728.
    NoResources,
}

/// A gateway. `GatewayConfig::new` gives what a well-behaved one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Its address on the LAN, which it names in UPnP's descriptions.
    pub address: IpAddr,
    /// Whether NAT-PMP is answered.
    pub nat_pmp: bool,
    /// Whether PCP is answered.
    pub pcp: bool,
    /// Which UPnP-IGD is spoken, if any.
    pub upnp: Option<IgdVersion>,
    /// TCP port of UPnP's descriptions and control. Default 5000, as miniupnpd's sample configuration.
    pub http_port: u16,
    /// What becomes of requests.
    pub conduct: Conduct,
    /// Whether another external port than the wanted one is given though that is free. UPnP's AddPortMapping cannot say
    /// so, and refuses the client's own port number as taken (718).
    pub other_port: bool,
    /// Says that this is the external address, whatever it is.
    pub claimed_external: Option<IpAddr>,
    /// Whether mappings are given though the external address is private, so that nobody can reach it. miniupnpd refuses
    /// (NAT-PMP 3, PCP NO_RESOURCES, UPnP 501); most do not look.
    pub maps_behind_nat: bool,
    /// A mapping is gone this long after it was made or renewed, whatever its lifetime.
    pub forgets_after: Option<Duration>,
    /// Whether a PCP mapping is renewed only with the nonce that made it (RFC 6887 §11.3.1). miniupnpd takes any nonce
    /// for a renewal, and no other for a deletion.
    pub strict_nonce: bool,
    /// Whether UPnP mappings must be permanent (725), as with many gateways of version 1.
    pub permanent_only: bool,
    /// Shortest lifetime that is given. Default 120 s (RFC 6887 §15 recommends it).
    pub min_lifetime: Duration,
    /// Longest lifetime that is given. Default 24 h (RFC 6887 §15 recommends it as the largest). A permanent UPnP mapping
    /// has none.
    pub max_lifetime: Duration,
    /// Mappings at most. Default 1024.
    pub capacity: usize,
    /// Mappings of one host at most. Default 128.
    pub per_host: usize,
}

impl GatewayConfig {
    /// A gateway at this address that speaks everything and does as it should.
    pub fn new(address: IpAddr) -> GatewayConfig {
        GatewayConfig {
            address,
            nat_pmp: true,
            pcp: true,
            upnp: Some(IgdVersion::V2),
            http_port: 5000,
            conduct: Conduct::Serve,
            other_port: false,
            claimed_external: None,
            maps_behind_nat: true,
            forgets_after: None,
            strict_nonce: true,
            permanent_only: false,
            min_lifetime: Duration::from_secs(120),
            max_lifetime: Duration::from_secs(86_400),
            capacity: 1024,
            per_host: 128,
        }
    }
}
