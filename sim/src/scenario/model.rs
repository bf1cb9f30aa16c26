//! A scenario as plain data, every default and preset written out. Nothing here moves.

use indexmap::IndexMap;
use link::LinkConfig;
use nat::{FirewallConfig, RuleChange, Translation};
use pref64::Pref64;
use std::net::IpAddr;
use std::time::Duration;
use trace::{FlowKind, Path};

/// Both directions of the cable between a node and what it is attached to.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Towards the node.
    pub down: LinkConfig,
    /// Away from the node.
    pub up: LinkConfig,
}

/// What a node hangs off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// The internet, in a region.
    Region(String),
    /// The inside of a router.
    Behind(String),
}

/// The IP versions that a node has addresses of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// One address, of IPv4 unless the scenario chose one of IPv6.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

/// How a router passes IPv6 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As it is.
    Routed,
    /// With another prefix (RFC 6296).
    Npt(nat::v6::Nptv6Config),
    /// As it is, or as IPv4 where an address stands for one of IPv4; no IPv4 inside (RFC 6146).
    Nat64 {
        /// Behind it stand the addresses of IPv4.
        prefix: Pref64,
    },
    /// As it is; IPv4 as IPv6, to a NAT64 (RFC 6877). No IPv4 on the uplink.
    Clat {
        /// The prefix of that NAT64.
        provider: Pref64,
        /// Behind it stand the IPv4 addresses inside.
        customer: Pref64,
    },
}

/// A packet filter for IPv6 alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter6 {
    /// Its rules; `None` = everything passes.
    pub rules: Option<FirewallConfig>,
    /// Preset name or "custom", for people; empty without rules.
    pub name: String,
}

/// IPv6 at a router.
#[derive(Debug, Clone, PartialEq)]
pub struct Ipv6 {
    /// How it is passed on.
    pub way: Way,
    /// The inside network.
    pub lan: (IpAddr, u8),
    /// Address on the uplink; chosen when the scenario does not say.
    pub address: Option<IpAddr>,
    /// Packet filter, where it is not the router's for both versions.
    pub firewall: Option<Filter6>,
}

/// A router: home router, carrier NAT, firewall, or all in one.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// Where its uplink goes.
    pub uplink: Attachment,
    /// Address on its uplink; chosen when the scenario does not say.
    pub address: Option<IpAddr>,
    /// How many addresses its translation gives out, its own and the next free ones; 1 at least.
    pub addresses: u32,
    /// Its inside network, e.g. 192.168.1.0/24: address of the network and prefix length. At a NAT64 the one of IPv6.
    pub lan: (IpAddr, u8),
    /// Address translation; `None` = it routes without translating.
    pub nat: Option<Translation>,
    /// Preset name or "custom", for people.
    pub nat_name: String,
    /// Packet filter towards its uplink; `None` = none beyond the NAT.
    pub firewall: Option<FirewallConfig>,
    /// Preset name or "custom", for people; empty without a firewall.
    pub firewall_name: String,
    /// Port mapping by PCP, NAT-PMP or UPnP; `None` = none. Its address is known from the topology on.
    pub gateway: Option<portmap::gateway::GatewayConfig>,
    /// Its uplink.
    pub link: Access,
    /// IPv6; `None` = nothing of it passes.
    pub ipv6: Option<Ipv6>,
}

/// A machine with a peer on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Where it is attached.
    pub attached: Attachment,
    /// Its address; chosen when the scenario does not say.
    pub address: Option<IpAddr>,
    /// Its cable.
    pub link: Access,
    /// When its peer starts.
    pub start: Duration,
    /// Whether its peer asks its router for an open port.
    pub port_mapping: bool,
    /// Whether its datagrams must not be fragmented.
    pub dont_fragment: bool,
    /// The IP versions that it has.
    pub families: Families,
    /// Its IPv6 address beside `address`; chosen when the scenario does not say.
    pub address6: Option<IpAddr>,
    /// The HTTP proxy that its TCP connections go through.
    pub proxy: Option<UsedProxy>,
    /// The pre-authentication key that it has, by its name in [`Membership::auth_keys`].
    pub auth_key: Option<String>,
    /// Its interfaces beyond the one above, by name, in the order in which it prefers them; that one it prefers to all.
    pub interfaces: IndexMap<String, Interface>,
}

/// How a host uses a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedProxy {
    /// Which.
    pub name: String,
    /// What it shows it.
    pub login: ProxyLogin,
}

/// What a host shows a proxy that wants credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyLogin {
    /// The right ones, where some are wanted.
    Right,
    /// Nothing.
    None,
    /// Wrong ones.
    Wrong,
}

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Where it is attached.
    pub attached: Attachment,
    /// Its address; chosen when the scenario does not say.
    pub address: Option<IpAddr>,
    /// Its cable.
    pub link: Access,
    /// Where it listens.
    pub port: u16,
    /// The ports that it connects to.
    pub connect_ports: Vec<nat::PortRange>,
    /// What it wants to be shown, if anything.
    pub credentials: Option<proxy::Credentials>,
}

/// One more interface of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Interface {
    /// Where it is attached.
    pub attached: Attachment,
    /// Its address; chosen when the scenario does not say.
    pub address: Option<IpAddr>,
    /// Its cable.
    pub link: Access,
    /// Whether it is there from the start.
    pub up: bool,
}

/// A relay: a DERP server with a STUN server beside it, on the internet.
#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// Region.
    pub region: String,
    /// Address; chosen when the scenario does not say.
    pub address: Option<IpAddr>,
    /// Its cable.
    pub link: Access,
    /// The IP versions that it has.
    pub families: Families,
    /// Its IPv6 address beside `address`; chosen when the scenario does not say.
    pub address6: Option<IpAddr>,
    /// Whether it speaks TLS on port 443.
    pub tls: bool,
    /// Relays with the same word here are one region and linked to each other.
    pub mesh: Option<String>,
    /// Whether it serves only the machines of the network.
    pub members_only: bool,
}

/// A STUN server or the coordination server.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Region.
    pub region: String,
    /// Address; chosen when the scenario does not say.
    pub address: Option<IpAddr>,
    /// Its cable.
    pub link: Access,
    /// The IP versions that it has.
    pub families: Families,
    /// Its IPv6 address beside `address`; chosen when the scenario does not say.
    pub address6: Option<IpAddr>,
    /// Whether it speaks TLS on port 443; a STUN server has no such port.
    pub tls: bool,
}

/// Who may join, and how long keys are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Whether a pre-authentication key or an administrator has to let a machine in.
    pub approved: bool,
    /// How long a node key is good; `None`: for ever.
    pub key_lifetime: Option<Duration>,
    /// Whether a rotated key is good for as long again.
    pub renewable: bool,
    /// Pre-authentication keys by name.
    pub auth_keys: IndexMap<String, AuthKey>,
}

/// A pre-authentication key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthKey {
    /// Whether it lets in more than one machine.
    pub reusable: bool,
    /// For how long since the start of the run it is good; `None`: for ever.
    pub lifetime: Option<Duration>,
}

/// A flow of traffic through the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Kind.
    pub kind: FlowKind,
    /// The side that starts.
    pub from: String,
    /// The other side.
    pub to: String,
    /// When it starts.
    pub at: Duration,
    /// When it stops; `None` = at the end of the run. Bulk stops when all bytes have arrived.
    pub stop: Option<Duration>,
    /// Ping and voice: time between packets (defaults 1 s and 20 ms).
    pub interval: Duration,
    /// Ping and voice: payload bytes of a packet.
    pub size: u32,
    /// Bulk: how many bytes go from `from` to `to`.
    pub bytes: u64,
}

/// What a cut on the internet is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Everything in a region.
    Region(String),
    /// A node, and all that is behind the same outermost router.
    Node(String),
}

/// What happens at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A router loses its state and passes nothing for `off`.
    RebootRouter {
        /// Which.
        router: String,
        /// For how long it is off.
        off: Duration,
    },
    /// A router forgets all bindings, but goes on.
    FlushRouter {
        /// Which.
        router: String,
    },
    /// A relay process stops and starts anew after `off`.
    RestartRelay {
        /// Which.
        relay: String,
        /// For how long it is off.
        off: Duration,
        /// Whether it is asked to end, which it announces, in place of being killed.
        drain: bool,
    },
    /// A relay tells its clients how it is.
    SetHealth {
        /// Which.
        relay: String,
        /// What is wrong with it; empty if nothing is.
        says: String,
    },
    /// The coordination server stops and starts anew after `off`.
    RestartCoordinator {
        /// For how long it is off.
        off: Duration,
        /// Whether it still knows who had registered.
        keeps: bool,
    },
    /// A host's peer is killed and starts anew after `off`, with new keys of path discovery.
    RestartHost {
        /// Which.
        host: String,
        /// For how long it is off.
        off: Duration,
        /// Whether it still has its identity: the keys of tunnel and machine, and the time of its last handshake.
        keeps: bool,
    },
    /// The programs of a host or server are killed, for good. Its kernel closes their connections.
    Kill {
        /// Host or server.
        node: String,
    },
    /// The coordination server sends a host away.
    Revoke {
        /// Which.
        host: String,
    },
    /// The coordination server lets a host in that waits for it.
    Approve {
        /// Which.
        host: String,
    },
    /// A host's peer takes another node key.
    Rotate {
        /// Which.
        host: String,
    },
    /// The coordination server spreads other access rules.
    SetAccess {
        /// The rules.
        access: coord::Access,
    },
    /// A host or server loses power: it forgets its connections without a word.
    Crash {
        /// Host or server.
        node: String,
        /// For how long it is off; `None` = for good.
        off: Option<Duration>,
    },
    /// A host or server goes on, but no packet reaches or leaves it.
    BlackHole {
        /// Host or server.
        node: String,
        /// For how long; `None` = for good.
        lasts: Option<Duration>,
    },
    /// A host or server takes time for each packet that it receives, one after the other.
    Slow {
        /// Host or server.
        node: String,
        /// Time for one packet.
        each: Duration,
        /// Time until it begins, during which others may begin too.
        delay: Duration,
        /// Most packets that wait; what comes then is lost.
        queue: u64,
        /// For how long; `None` = for good.
        lasts: Option<Duration>,
    },
    /// On the internet nothing passes between two groups of regions and nodes.
    Cut {
        /// One group.
        from: Vec<Place>,
        /// The other; empty = everything that is not in the first.
        to: Vec<Place>,
        /// For how long; `None` = for good.
        lasts: Option<Duration>,
    },
    /// A router gets another address on its uplink, and forgets its bindings.
    ReaddressRouter {
        /// Which.
        router: String,
        /// The address; chosen when the scenario does not say.
        address: Option<IpAddr>,
        /// For how long nothing passes.
        off: Duration,
    },
    /// A router's translation is replaced.
    SetNat {
        /// Which router.
        router: String,
        /// The new translation; `None` = it routes only.
        nat: Option<Translation>,
        /// Preset name or "custom".
        name: String,
        /// Whether it still knows its bindings.
        keeps: bool,
    },
    /// An interface of a host leaves its network and comes up in another one.
    MoveHost {
        /// Which.
        host: String,
        /// Which of its interfaces; empty = the first.
        interface: String,
        /// Where to.
        to: Attachment,
        /// Its address there; chosen when the scenario does not say, and the same each time.
        address: Option<IpAddr>,
        /// Its cable there.
        link: Box<Access>,
        /// For how long it is nowhere.
        dead: Duration,
    },
    /// An interface of a host goes away with its address, or comes back with it.
    SetInterface {
        /// Which.
        host: String,
        /// Which of its interfaces; empty = the first.
        interface: String,
        /// Whether it is there from now on.
        up: bool,
    },
    /// A host sleeps: packets to it are lost, and its deadlines wait until it wakes.
    Sleep {
        /// Which.
        host: String,
        /// For how long.
        lasts: Duration,
    },
    /// A host's wall clock jumps. Its monotonic clock does not.
    SetClock {
        /// Which.
        host: String,
        /// How far.
        by: Duration,
        /// Whether it jumps back.
        back: bool,
    },
    /// The cable of a node changes. `None` leaves a property as it is.
    ChangeLink {
        /// Host, router or server.
        node: String,
        /// New properties.
        link: Box<Access>,
    },
    /// The cable of a node is cut or mended.
    SetLink {
        /// Host, router or server.
        node: String,
        /// Whether it carries packets from now on.
        up: bool,
    },
    /// The user accepts the terms of a captive portal.
    AcceptPortal {
        /// The router that has it.
        router: String,
    },
    /// A router's firewall is replaced.
    SetFirewall {
        /// Which router.
        router: String,
        /// The new rules; `None` = no firewall any more.
        firewall: Option<FirewallConfig>,
        /// Preset name or "custom".
        name: String,
    },
    /// Rules are added to a router's firewall, or taken from it.
    ChangeRules {
        /// Which router.
        router: String,
        /// The rules.
        change: RuleChange,
    },
}

/// A time, or the times among which the seed of a run chooses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// The earliest.
    pub from: Duration,
    /// The latest; the same for a time that is not drawn.
    pub to: Duration,
}

/// How an action is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// From one time to the next; drawn anew for each if it is a range.
    pub every: When,
    /// How often it happens, the first time included; `None` = no limit.
    pub times: Option<u32>,
    /// It does not happen later than this; `None` = until the end of the run.
    pub until: Option<Duration>,
}

/// An action, its time, and how the scenario puts it.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// Since the start of the run.
    pub time: When,
    /// Whether it happens again.
    pub repeat: Option<Repeat>,
    /// What.
    pub action: Action,
    /// In words, for the log.
    pub words: String,
}

/// What a scenario expects of one pair of hosts. Every `Some` is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expect {
    /// The pair. `None` = every pair that has traffic.
    pub pair: Option<(String, String)>,
    /// The path both use at the end of the run; `Some(None)` if they must never exchange anything.
    pub path: Option<Option<Path>>,
    /// From the pair's first tunnelled packet sent to its first one received.
    pub first_data_within: Option<Duration>,
    /// From the pair's first tunnelled packet sent until both send on a path that is not relayed.
    pub direct_within: Option<Duration>,
    /// Most packets lost (ping and voice together) over the whole run; 0 = "no loss while switching".
    pub lost_at_most: Option<u64>,
    /// Fewest packets lost (ping and voice together) over the whole run.
    pub lost_at_least: Option<u64>,
    /// After each disturbance of the timeline: from the last packet received before the gap to the next one received.
    pub recovers_within: Option<Duration>,
    /// Median round trip of pings at most.
    pub rtt_at_most: Option<Duration>,
    /// Median round trip of pings at least.
    pub rtt_at_least: Option<Duration>,
    /// Goodput of bulk transfers at least, bits per second.
    pub goodput_at_least_bps: Option<u64>,
    /// Goodput of bulk transfers at most, bits per second.
    pub goodput_at_most_bps: Option<u64>,
    /// Whether bulk transfers must have delivered all their bytes.
    pub completes: Option<bool>,
}

/// Everything a run is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Path below the scenario folder, without ".toml": "mission/two-homes".
    pub name: String,
    /// One line.
    pub title: String,
    /// What it shows.
    pub why: String,
    /// BLAKE3 of the file, hexadecimal.
    pub hash: String,
    /// Length of the run.
    pub until: Duration,
    /// One-way delay between two regions (key sorted), beyond the built-in matrix.
    pub latency: IndexMap<(String, String), Duration>,
    /// Routers by name, outer before inner.
    pub routers: IndexMap<String, Router>,
    /// Hosts by name (`count` expanded: laptop-1 …).
    pub hosts: IndexMap<String, Host>,
    /// Relays by name; never empty.
    pub relays: IndexMap<String, Relay>,
    /// STUN servers beyond those beside the relays, by name.
    pub stuns: IndexMap<String, Server>,
    /// HTTP proxies by name.
    pub proxies: IndexMap<String, Proxy>,
    /// The coordination server.
    pub coordinator: Server,
    /// Who may join.
    pub membership: Membership,
    /// Flows.
    pub traffic: Vec<Traffic>,
    /// Sorted by earliest time.
    pub timeline: Vec<Timed>,
    /// Expectations.
    pub expect: Vec<Expect>,
}

impl Families {
    /// Whether a network that has these has those.
    pub fn includes(self, others: Families) -> bool {
        self == others || self == Families::Dual
    }
}

impl std::fmt::Display for Families {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Families::V4 => "IPv4",
            Families::V6 => "IPv6",
            Families::Dual => "IPv4 and IPv6",
        })
    }
}

impl Ipv6 {
    /// Whether the IPv4 addresses inside mean nothing outside.
    pub fn hides_v4(&self) -> bool {
        matches!(self.way, Way::Clat { .. })
    }
}

impl Router {
    /// Whether its inside has IPv6 alone.
    pub fn is_nat64(&self) -> bool {
        matches!(self.ipv6, Some(Ipv6 { way: Way::Nat64 { .. }, .. }))
    }

    /// The IP versions of its uplink.
    pub fn uplink_families(&self) -> Families {
        match &self.ipv6 {
            None => Families::V4,
            Some(Ipv6 { way: Way::Clat { .. }, .. }) => Families::V6,
            Some(_) => Families::Dual,
        }
    }
}
