//! A scenario file as it is written. These types are the reference of the format: their comments are what an editor
//! shows, and their keys are the only ones there are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use trace::{FlowKind, Path};

use super::admission::Served;
use super::model::{Families, ProxyLogin};
use super::value::{Ordered, Ports, Rate, Size, Sugar, Val, Word};

mod admission;
mod at;
mod boxes;

pub(super) use admission::*;
pub(super) use at::*;
pub(super) use boxes::*;

/// A network, what happens in it, and what must come of it.
#[derive(JsonSchema)]
#[schemars(rename = "Scenario", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "read section by section, so that each mistake is found; this is its schema")]
pub(super) struct File {
    /// One line.
    title: Val<String>,
    /// What it shows: the RFC, the device, the everyday event.
    why: Option<Val<String>>,
    /// Length of the run. Default 30s.
    until: Option<Val<Duration>>,
    /// The internet between the regions.
    internet: Option<Internet>,
    /// Routers by name.
    router: Option<BTreeMap<String, Router>>,
    /// Machines with a peer, by name.
    host: Option<BTreeMap<String, Host>>,
    /// Relays by name. Default: one named "relay" in the first region.
    relay: Option<BTreeMap<String, Server>>,
    /// STUN servers beyond those beside the relays, by name. Default: one named "stun" while there is only one relay.
    stun: Option<BTreeMap<String, Server>>,
    /// HTTP proxies by name.
    proxy: Option<BTreeMap<String, Proxy>>,
    /// The coordination server. Default: in the first region.
    coordinator: Option<Coordinator>,
    /// Flows through the tunnel. Default: pings between the pairs of the expectations.
    traffic: Option<Vec<Traffic>>,
    /// What happens when.
    at: Option<Vec<At>>,
    /// What must come of it.
    expect: Option<Vec<Expect>>,
}

/// The sections of a file.
pub const SECTIONS: [&str; 13] = [
    "title",
    "why",
    "until",
    "internet",
    "router",
    "host",
    "relay",
    "stun",
    "proxy",
    "coordinator",
    "traffic",
    "at",
    "expect",
];

/// The internet between the regions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Internet {
    /// One-way delay between two regions, as in `eu-west.moon = "1300ms"`. It goes before the built-in matrix, and
    /// must give every pair of a region that is not in the matrix.
    #[serde(default)]
    pub(super) latency: BTreeMap<String, BTreeMap<String, Val<Duration>>>,
}

/// A machine with a peer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Host {
    /// The region of the internet, for a machine with a public address.
    pub(super) region: Option<Val<String>>,
    /// The router that it is behind.
    pub(super) behind: Option<Val<String>>,
    /// Its address. Default: the next free one.
    pub(super) address: Option<Val<IpAddr>>,
    /// That many alike: laptop-1, laptop-2 …
    pub(super) count: Option<Val<u64>>,
    /// Its cable.
    pub(super) link: Option<Sugar<Link>>,
    /// When its peer starts. Default: 0s.
    pub(super) start: Option<Val<Duration>>,
    /// Whether its peer asks its router for an open port. Default: when any router of the scenario has a `gateway`.
    pub(super) port_mapping: Option<Val<bool>>,
    /// Whether its UDP datagrams must not be fragmented. With false it fragments what is too long for its own cable, and routers
    /// fragment what it sends over IPv4 where it is too long for theirs (RFC 791 §3.2). Default: true.
    pub(super) dont_fragment: Option<Val<bool>>,
    /// The IP versions that it has addresses of: "ipv4", "ipv6" or "dual". Default: those of its network.
    pub(super) ip: Option<Val<Word<Families>>>,
    /// Its IPv6 address. Default: the next free one.
    pub(super) address6: Option<Val<IpAddr>>,
    /// The HTTP proxy that its TCP connections go through.
    pub(super) proxy: Option<Val<String>>,
    /// Whether it shows the proxy the right credentials. Default: "right".
    pub(super) proxy_login: Option<Val<Word<ProxyLogin>>>,
    /// The pre-authentication key that its peer shows the coordination server, by its name there.
    pub(super) auth_key: Option<Val<String>>,
    /// More interfaces by name, such as `interface.cell = { behind = "carrier", link = "lte" }`. The host sends over the first one
    /// that is up: its own above, then these in the order of the file.
    #[serde(default)]
    pub(super) interface: Ordered<Interface>,
}

/// An HTTP proxy that opens tunnels (CONNECT, RFC 9110 §9.3.6). Only hosts that name it use it; what forces them to is a
/// firewall.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Proxy {
    /// The region of the internet that it is in.
    pub(super) region: Option<Val<String>>,
    /// The router that it is behind instead.
    pub(super) behind: Option<Val<String>>,
    /// Its address. Default: the next free one.
    pub(super) address: Option<Val<IpAddr>>,
    /// Its cable.
    pub(super) link: Option<Sugar<Link>>,
    /// Where it listens. Default: 3128.
    pub(super) port: Option<Val<u64>>,
    /// The ports that it connects to. Default: ["443"].
    pub(super) connect_ports: Option<Vec<Val<Ports>>>,
    /// The user that it lets in (Basic, RFC 7617). Default: everybody.
    pub(super) user: Option<Val<String>>,
    /// That user's password.
    pub(super) password: Option<Val<String>>,
}

/// One more interface of a host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Interface {
    /// The region of the internet, for a public address.
    pub(super) region: Option<Val<String>>,
    /// The router that it is behind.
    pub(super) behind: Option<Val<String>>,
    /// Its address. Default: the next free one.
    pub(super) address: Option<Val<IpAddr>>,
    /// Its cable.
    pub(super) link: Option<Sugar<Link>>,
    /// Whether it is there from the start. Default: true.
    pub(super) up: Option<Val<bool>>,
}

/// A server with a public address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Server {
    /// Its region. Default: the first one in the file.
    pub(super) region: Option<Val<String>>,
    /// Its address. Default: the next free one.
    pub(super) address: Option<Val<IpAddr>>,
    /// Its cable.
    pub(super) link: Option<Sugar<Link>>,
    /// The IP versions that it has addresses of. Default: "dual" in a scenario with IPv6, else "ipv4".
    pub(super) ip: Option<Val<Word<Families>>>,
    /// Its IPv6 address. Default: the next free one.
    pub(super) address6: Option<Val<IpAddr>>,
    /// Whether a relay speaks TLS on port 443; if not, plain HTTP as on port 80. Default: true.
    pub(super) tls: Option<Val<bool>>,
    /// A word. Relays with the same word are one region of the map that peers get: they keep links to each other and pass on what
    /// is for each other's clients, so that a peer needs to reach only one of them. Default: none, a region of its own.
    pub(super) mesh: Option<Val<String>>,
    /// Whom a relay serves: "anyone", or "members": the machines of the network, whose keys the coordination server tells it.
    /// Default: "anyone".
    pub(super) admission: Option<Val<Word<Served>>>,
}

/// A flow through the tunnel. With the base names of hosts with `count`, one flow per pair: each to the next and the
/// last to the first when both names are the same, else first to first, second to second …, or all to the one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Traffic {
    /// ping: echo request and reply. voice: a constant stream both ways. bulk: a TCP transfer.
    pub(super) kind: Val<Word<FlowKind>>,
    /// The side that starts.
    pub(super) from: Val<String>,
    /// The other side.
    pub(super) to: Val<String>,
    /// When it starts. Default: 1s.
    pub(super) at: Option<Val<Duration>>,
    /// When it stops. Default: at the end; bulk when all has arrived.
    pub(super) stop: Option<Val<Duration>>,
    /// Ping and voice: time between packets. Default: 1s for ping, 20ms for voice.
    pub(super) interval: Option<Val<Duration>>,
    /// Ping and voice: bytes in a packet. Default: 56B for ping, 172B for voice.
    pub(super) size: Option<Val<Size>>,
    /// Bulk: how much to transfer. Default: 5MB.
    pub(super) bytes: Option<Val<Size>>,
}

/// What must come of it, for one pair of hosts or for every pair that has traffic. Every key given is checked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Expect {
    /// Two hosts, or base names as in traffic. Default: every pair that has traffic.
    pub(super) pair: Option<Vec<Val<String>>>,
    /// The path that both use at the end; "none" if they must never exchange anything.
    pub(super) path: Option<Val<Word<Option<Path>>>>,
    /// From the first packet sent to the first received.
    pub(super) first_data_within: Option<Val<Duration>>,
    /// From the first packet sent until both sides send on a path that is not relayed.
    pub(super) direct_within: Option<Val<Duration>>,
    /// Most packets of ping and voice lost over the whole run.
    pub(super) lost_at_most: Option<Val<u64>>,
    /// Fewest packets of ping and voice lost over the whole run, for a network that has to hurt.
    pub(super) lost_at_least: Option<Val<u64>>,
    /// After each disturbance: from the last packet received before the gap to the next one received.
    pub(super) recovers_within: Option<Val<Duration>>,
    /// Median round trip of pings.
    pub(super) rtt_at_most: Option<Val<Duration>>,
    /// The same from below, for a network that has to hurt.
    pub(super) rtt_at_least: Option<Val<Duration>>,
    /// Rate at which bulk transfers deliver.
    pub(super) goodput_at_least: Option<Val<Rate>>,
    /// Rate above which no bulk transfer delivers, for what must be slow.
    pub(super) goodput_at_most: Option<Val<Rate>>,
    /// Whether bulk transfers must deliver everything.
    pub(super) completes: Option<Val<bool>>,
}
