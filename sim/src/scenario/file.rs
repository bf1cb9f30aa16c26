//! A scenario file as it is written. These types are the reference of the format: their comments are what an editor
//! shows, and their keys are the only ones there are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use link::{Aqm, Jitter, Late, Loss, StepTo};
use nat::{
    Collision, Exhausted, Filtering, ForwardPolicy, Fragments, Hairpin, Inbound, InboundRefusal, InputPolicy,
    LinuxRule, Mapping, Pooling, PortAllocation, Refusal, Unsolicited, WhenFull,
};
use portmap::Protocol;
use portmap::gateway::Conduct;
use portmap::upnp::IgdVersion;
use schemars::JsonSchema;
use serde::Deserialize;
use trace::{FlowKind, Path};

use super::filter::{Burst, Filter, Most, Pace, Terms};
use super::ipv6::WayWord;
use super::links::{Delay, FileName, Mtu, Pmtud};
use super::model::{Families, ProxyLogin, When};
use super::value::{
    Both, Jump, Ordered, PerSecond, Ports, Prefix, Queue, Quota, Rate, Ratio, Refresh, Size, State, Sugar,
    Udp, Val, Word,
};
use pref64::Pref64;

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
    coordinator: Option<Server>,
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

/// A router: home router, carrier NAT, firewall, or all in one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Router {
    /// The region of the internet that its uplink goes to.
    pub(super) region: Option<Val<String>>,
    /// The router that its uplink goes to instead.
    pub(super) behind: Option<Val<String>>,
    /// Its address on the uplink. Default: the next free one.
    pub(super) address: Option<Val<IpAddr>>,
    /// How many addresses its translation gives out: the one above, and the next free ones. Default: 1.
    pub(super) addresses: Option<Val<u64>>,
    /// Its inside network. Default: 192.168.1.0/24, or 100.64.0.0/10 with routers behind it (RFC 6598), or the first of
    /// 192.168.2.0/24 … that is not the network it is attached to. Without translation: a network of public addresses
    /// on the internet, one of 10.0.0.0/8 behind another router.
    pub(super) lan: Option<Val<Prefix>>,
    /// Address translation: a preset, its axes, or "none". Default: "linux".
    pub(super) nat: Option<Sugar<Nat>>,
    /// Packet filter: a preset, its rules, or "none". Default: none beyond the NAT.
    pub(super) firewall: Option<Sugar<Firewall>>,
    /// Port mapping gateway: "all" or one protocol, or its properties, or "none". Default: none.
    pub(super) gateway: Option<Sugar<Gateway>>,
    /// Its uplink: a preset or properties.
    pub(super) link: Option<Sugar<Link>>,
    /// What it does about IPv6. "routed": its inside has global IPv6 addresses as well. "npt": unique local ones, whose prefix
    /// it swaps (RFC 6296). "nat64": its inside has IPv6 alone, and reaches IPv4 through it (RFC 6146); `nat` has the axes of
    /// that, by default those of "cgn". "clat": its uplink, behind a NAT64, has IPv6 alone, its inside both versions (RFC
    /// 6877). Default: "none". Once a scenario has IPv6, machines and servers on the internet have it too.
    pub(super) ipv6: Option<Val<Word<WayWord>>>,
    /// Its inside network of IPv6. Default: one of 3001::/16, or with "npt" of fd33::/16.
    pub(super) lan6: Option<Val<Prefix>>,
    /// Its IPv6 address on the uplink. Default: the next free one.
    pub(super) address6: Option<Val<IpAddr>>,
    /// Behind it a NAT64 takes IPv4 addresses (RFC 6052). Default: "64:ff9b::/96".
    pub(super) nat64_prefix: Option<Val<Pref64>>,
    /// Packet filter for IPv6, where it is another than `firewall`: a preset, its rules, or "none". Default: the same.
    pub(super) firewall6: Option<Sugar<Firewall>>,
}

/// A port mapping gateway on a router, and the ways in which it misbehaves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Gateway {
    /// What it speaks: "pcp" (RFC 6887), "nat-pmp" (RFC 6886), "upnp" (UPnP-IGD). Default: all.
    pub(super) protocols: Option<Vec<Val<Word<Protocol>>>>,
    /// Version of its UPnP-IGD. Default: "igd2".
    pub(super) upnp: Option<Val<Word<IgdVersion>>>,
    /// What becomes of requests. Default: "serve".
    pub(super) conduct: Option<Val<Word<Conduct>>>,
    /// Whether it gives another port than the wanted one.
    pub(super) other_port: Option<Val<bool>>,
    /// Says that this is its external address, whatever it is.
    pub(super) claims: Option<Val<IpAddr>>,
    /// Whether it gives mappings though its own external address is private. Default: true; miniupnpd does not.
    pub(super) maps_behind_nat: Option<Val<bool>>,
    /// A mapping is gone this long after it was made or renewed, whatever its lifetime.
    pub(super) forgets_after: Option<Val<Duration>>,
    /// Whether a PCP mapping is renewed only with the nonce that made it (RFC 6887 §11.3.1). Default: true.
    pub(super) strict_nonce: Option<Val<bool>>,
    /// Whether UPnP mappings must be permanent.
    pub(super) permanent_only: Option<Val<bool>>,
    /// Shortest lifetime that is given. Default: 120s (RFC 6887 §15).
    pub(super) min_lifetime: Option<Val<Duration>>,
    /// Longest lifetime that is given. Default: 24h (RFC 6887 §15).
    pub(super) max_lifetime: Option<Val<Duration>>,
    /// Mappings at most.
    pub(super) capacity: Option<Val<u64>>,
    /// Mappings of one host at most.
    pub(super) per_host: Option<Val<u64>>,
}

/// Address translation as the axes of RFC 4787, or as a rule of the Linux kernel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Nat {
    /// Where to start from; the other keys change it. Default: what RFC 4787 asks for.
    pub(super) preset: Option<Val<String>>,
    /// When an inside endpoint keeps its external endpoint (RFC 4787 §4.1).
    pub(super) mapping: Option<Val<Word<Mapping>>>,
    /// Who may send to a binding (RFC 4787 §5).
    pub(super) filtering: Option<Val<Word<Filtering>>>,
    /// The mapping for TCP. Default: the same.
    pub(super) tcp_mapping: Option<Val<Word<Mapping>>>,
    /// The filtering for TCP. Default: the same.
    pub(super) tcp_filtering: Option<Val<Word<Filtering>>>,
    /// How external ports are chosen (RFC 4787 §4.2).
    pub(super) ports: Option<Val<Word<PortAllocation>>>,
    /// What a preserving allocation does where the inside port is taken (RFC 4787 §4.2.1). Default: next-free.
    pub(super) collision: Option<Val<Word<Collision>>>,
    /// How far a sequential allocation moves on for each mapping. Default: 1.
    pub(super) step: Option<Val<u64>>,
    /// Mappings that other subscribers make, which move a sequential allocation on: "20/s". Default: "0/s".
    pub(super) other_traffic: Option<Val<PerSecond>>,
    /// Whether even inside ports get even external ones, and odd ones odd ones (RFC 4787 REQ-4). Default: false.
    pub(super) parity: Option<Val<bool>>,
    /// Ports that a machine or router behind it has to itself, all from one block (RFC 7422); 0 = the ports are
    /// everybody's. Default: 0.
    pub(super) block: Option<Val<u64>>,
    /// Which of the router's several addresses a mapping gets, or "one-to-one": an address for each machine, all ports its
    /// own (RFC 2663 §4.1.1). Default: paired.
    pub(super) pooling: Option<Val<Word<Pooling>>>,
    /// The ports that sequential and random allocation hand out.
    pub(super) port_range: Option<Val<Ports>>,
    /// Packets from inside for the router's own external address (RFC 4787 §6).
    pub(super) hairpin: Option<Val<Word<Hairpin>>>,
    /// What the router says to packets from outside that it lets not pass. Default: drop, nothing.
    pub(super) unsolicited: Option<Val<Word<Unsolicited>>>,
    /// How long a SYN from outside waits for one from inside before ICMP answers it (RFC 5382 REQ-4: 6s at least).
    /// Default: 0s, it is treated like other packets.
    pub(super) syn_hold: Option<Val<Duration>>,
    /// How long a silent UDP conversation is remembered; sets the next two.
    pub(super) udp_timeout: Option<Val<Duration>>,
    /// The same, while nothing has come back.
    pub(super) udp_unreplied_timeout: Option<Val<Duration>>,
    /// The same, once something has come back.
    pub(super) udp_replied_timeout: Option<Val<Duration>>,
    /// The age from which the timeout of answered conversations holds.
    pub(super) udp_replied_after: Option<Val<Duration>>,
    /// TCP while it opens or closes.
    pub(super) tcp_transitory_timeout: Option<Val<Duration>>,
    /// TCP once established.
    pub(super) tcp_established_timeout: Option<Val<Duration>>,
    /// ICMP echo.
    pub(super) icmp_timeout: Option<Val<Duration>>,
    /// Which packets start a conversation's time anew (RFC 4787 REQ-6).
    pub(super) refresh: Option<Val<Word<Refresh>>>,
    /// Whether a TCP segment that opens no connection makes a binding.
    pub(super) tcp_pickup: Option<Val<bool>>,
    /// Whether what a machine sends by itself leaves from a port that it asked the router to map; otherwise only answers
    /// do. Default: true.
    pub(super) mapped_outbound: Option<Val<bool>>,
    /// How long a port rests after its mapping before another may have it (RFC 6888 REQ-8: 120s). Default: 0s.
    pub(super) hold_down: Option<Val<Duration>>,
    /// How many mappings a machine or router behind it may have at a time (RFC 6888 REQ-4), or "unlimited", the default.
    pub(super) host_quota: Option<Val<Quota>>,
    /// What happens to a new conversation when the table is full. Default: refuse-new.
    pub(super) when_full: Option<Val<Word<WhenFull>>>,
    /// What a machine inside is told when there is no room for it. Default: drop, nothing.
    pub(super) exhausted: Option<Val<Word<Exhausted>>>,
    /// Which fragments of IP packets pass (RFC 4787 REQ-14). Default: any-order.
    pub(super) fragments: Option<Val<Word<Fragments>>>,
    /// How many conversations it can remember.
    pub(super) capacity: Option<Val<u64>>,
    /// Translation as the Linux kernel does it, by this rule of nftables. It goes with the keys below and with
    /// port-range, hairpin, the timeouts, tcp-pickup and capacity; the other axes follow from it.
    pub(super) rule: Option<Val<Word<LinuxRule>>>,
    /// Linux: what happens to packets for the router itself.
    pub(super) input: Option<Val<Word<InputPolicy>>>,
    /// Linux: what happens to new conversations from outside that the rule leads to a host.
    pub(super) forward: Option<Val<Word<ForwardPolicy>>>,
    /// Linux: a random port for each conversation.
    pub(super) random: Option<Val<bool>>,
    /// Linux: a host keeps its address of the router's several.
    pub(super) persistent: Option<Val<bool>>,
    /// Linux, rule "static": the hosts that the router's addresses belong to, in their order.
    pub(super) hosts: Option<Vec<Val<IpAddr>>>,
    /// Linux, rules "full-cone" and "restricted-cone": how long a host is found after its last packet.
    pub(super) map_timeout: Option<Val<Duration>>,
}

/// A packet filter between a router's inside and its uplink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Firewall {
    /// Where to start from; the other keys change it. Default: only answers come in, everything goes out.
    pub(super) preset: Option<Val<String>>,
    /// Packets from outside.
    pub(super) inbound: Option<Val<Word<Inbound>>>,
    /// "blocked" drops all UDP.
    pub(super) udp: Option<Val<Word<Udp>>>,
    /// The only things that may go out, as in "tcp 443", "udp 3478 to stun", "tcp 3128 to 192.0.2.7" or "any from laptop":
    /// protocol, ports outside, the end outside, the end inside, of which all but one may be left away. Leave the list
    /// away for everything.
    pub(super) outbound: Option<Vec<Val<Filter>>>,
    /// What passes neither out nor in, whatever else is allowed; rules as for `outbound`, or a node or address alone.
    pub(super) block: Option<Vec<Val<Filter>>>,
    /// What a sender inside hears of what a rule refuses: nothing, an ICMP error, or a RST for TCP. Default: "drop".
    pub(super) answer: Option<Val<Word<Refusal>>>,
    /// What a sender outside hears of what nobody asked for; "late-icmp" answers a TCP SYN after six seconds (RFC 6092
    /// REC-34). Default: "drop".
    pub(super) answer_inbound: Option<Val<Word<InboundRefusal>>>,
    /// Ports outside to which a TCP connection must begin with a TLS ClientHello, or is cut off, as in ["443"].
    pub(super) tls_only: Option<Vec<Val<Ports>>>,
    /// Whether IPv6 packets pass whose addresses have no business on the internet (RFC 6092 REC-1 to 7). Default: true.
    pub(super) bogons: Option<Val<bool>>,
    /// A captive portal (RFC 8952), before whose acceptance all but DNS and DHCP is refused: how long its user takes from
    /// the first packet that it refused, "until-accepted" for an [[at]] accept-portal, or "none".
    pub(super) portal: Option<Val<Terms>>,
    /// UDP packets longer than this are dropped, IP header included.
    pub(super) udp_max_size: Option<Val<Most<false>>>,
    /// UDP beyond this rate is dropped, in each direction, as in "1Mbit/s" or "100packets/s".
    pub(super) udp_rate: Option<Val<Pace>>,
    /// How much of it may come at once. Default: 100 ms of it, and at least two packets.
    pub(super) udp_burst: Option<Val<Burst>>,
    /// The same for each UDP conversation by itself.
    pub(super) flow_rate: Option<Val<Pace>>,
    /// How much of that may come at once.
    pub(super) flow_burst: Option<Val<Burst>>,
    /// Packets of a UDP conversation, both directions together, after which it passes no more.
    pub(super) flow_packets: Option<Val<Most<true>>>,
    /// Bytes of a UDP conversation, both directions together, after which it passes no more.
    pub(super) flow_bytes: Option<Val<Most<false>>>,
    /// Share of the UDP packets from outside that is lost.
    pub(super) udp_loss_in: Option<Val<Ratio>>,
    /// Share of the UDP packets from inside that is lost.
    pub(super) udp_loss_out: Option<Val<Ratio>>,
    /// How long a silent UDP conversation is remembered; sets the next two.
    pub(super) udp_timeout: Option<Val<Duration>>,
    /// The same, while nothing has come back.
    pub(super) udp_unreplied_timeout: Option<Val<Duration>>,
    /// The same, once something has come back.
    pub(super) udp_replied_timeout: Option<Val<Duration>>,
    /// The age from which the timeout of answered conversations holds.
    pub(super) udp_replied_after: Option<Val<Duration>>,
    /// TCP while it opens or closes.
    pub(super) tcp_transitory_timeout: Option<Val<Duration>>,
    /// TCP once established.
    pub(super) tcp_established_timeout: Option<Val<Duration>>,
    /// ICMP echo.
    pub(super) icmp_timeout: Option<Val<Duration>>,
    /// How many conversations it can remember.
    pub(super) capacity: Option<Val<u64>>,
}

/// A cable, both directions. All but the rates may be one value, or `{ down = …, up = … }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Link {
    /// Where to start from; the other keys change it. Default: what the node would have without `link`.
    pub(super) preset: Option<Val<String>>,
    /// Rate towards the node, or "unlimited".
    pub(super) down: Option<Val<Rate>>,
    /// Rate away from the node, or "unlimited".
    pub(super) up: Option<Val<Rate>>,
    /// A file beside the scenario with the chances to send 1500 bytes, in mahimahi's format, in place of a rate; or "none".
    pub(super) trace: Option<Both<FileName>>,
    /// One-way delay; or measured, as quantiles: "10% 20ms, 50% 35ms, 90% 80ms".
    pub(super) delay: Option<Both<Delay>>,
    /// How far the delay varies: to either side ("5ms"), or the standard deviation of "normal 5ms" or "pareto 5ms".
    pub(super) jitter: Option<Both<Jitter>>,
    /// A file beside the scenario with the delay as it changes (lines of MILLISECONDS,DELAY), in place of `delay`; or "none".
    pub(super) delay_trace: Option<Both<FileName>>,
    /// Changes of the delay at fixed times: a route that flaps, satellites that take over; or "none".
    pub(super) delay_steps: Option<Sugar<DelaySteps>>,
    /// Bytes that wait at most, or "unlimited"; what does not fit is dropped. With a new rate: 100 ms of it.
    pub(super) queue: Option<Both<Queue>>,
    /// How the queue is managed: "drop-tail", "codel" (RFC 8289), "fq-codel" (RFC 8290) or "red min 30kB max 90kB", each with
    /// its settings after it. Default: drop-tail.
    pub(super) aqm: Option<Both<Aqm>>,
    /// Packets lost: at random ("1%"), "gilbert-elliott p 1% r 10% h 30% k 99.9%", "burst 5 every 200", or "every 50".
    pub(super) loss: Option<Both<Loss>>,
    /// Whether a packet with little jitter may overtake one with much.
    pub(super) reorder: Option<Both<bool>>,
    /// Share of packets held back, so that later ones overtake them: "1% by 20ms", or "none".
    pub(super) late: Option<Both<Late>>,
    /// Share of packets that arrive twice.
    pub(super) duplicate: Option<Both<Ratio>>,
    /// Share of packets damaged on the way; their checksums show it, and they are dropped.
    pub(super) corrupt: Option<Both<Ratio>>,
    /// The largest IP packet in bytes, or "unlimited". No packet may be fragmented.
    pub(super) mtu: Option<Both<Mtu>>,
    /// Whether the sender of a larger one is told by ICMP (RFC 1191) or not: "icmp", the default, or "silent".
    pub(super) pmtud: Option<Both<Word<Pmtud>>>,
    /// Times at which nothing passes; or "none".
    pub(super) outages: Option<Sugar<Outages>>,
}

/// Times at which nothing passes, the same for both directions of a cable.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Outages {
    /// From the start of one to the start of the next; at random, the mean time from the end of one to the start of the next.
    pub(super) every: Val<Duration>,
    /// How long each lasts.
    #[serde(rename = "for")]
    pub(super) lasts: Val<Duration>,
    /// When the first one begins, or may begin. Default: as `every`; at random from the start.
    pub(super) first: Option<Val<Duration>>,
    /// Whether they come at random, drawn from the seed, rather than like clockwork. Default: false.
    pub(super) random: Option<Val<bool>>,
}

/// Changes of the delay at fixed times, the same for both directions of a cable.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DelaySteps {
    /// From one to the next.
    pub(super) every: Val<Duration>,
    /// The first one. Default: as `every`.
    pub(super) first: Option<Val<Duration>>,
    /// How far the delay moves.
    pub(super) by: Val<Duration>,
    /// "anywhere" from the delay less this to the delay plus this, drawn anew each time; or "up-and-back". Default: anywhere.
    pub(super) to: Option<Val<Word<StepTo>>>,
    /// How long after a step packets are lost. Default: 0s.
    pub(super) disturbed: Option<Val<Duration>>,
    /// Which share of them. Default: 0%.
    pub(super) loss: Option<Val<Ratio>>,
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
    /// The IP versions that it has addresses of: "ipv4", "ipv6" or "dual". Default: those of its network.
    pub(super) ip: Option<Val<Word<Families>>>,
    /// Its IPv6 address. Default: the next free one.
    pub(super) address6: Option<Val<IpAddr>>,
    /// The HTTP proxy that its TCP connections go through.
    pub(super) proxy: Option<Val<String>>,
    /// Whether it shows the proxy the right credentials. Default: "right".
    pub(super) proxy_login: Option<Val<Word<ProxyLogin>>>,
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

/// Something that happens at a time, and perhaps again: exactly one of the keys beside `time`, `every`, `times` and `until`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct At {
    /// When, since the start of the run: "15s", or "5s..20s" for a time that the seed of each run draws.
    pub(super) time: Val<When>,
    /// It happens again and again, so long after the time before; a range is drawn anew each time.
    pub(super) every: Option<Val<When>>,
    /// With every: how often it happens in all. Default: until the run is over.
    pub(super) times: Option<Val<u64>>,
    /// With every: it does not happen later than this. Default: the end of the run.
    pub(super) until: Option<Val<Duration>>,
    /// A router loses its state and passes nothing for a while.
    pub(super) reboot: Option<Reboot>,
    /// A router forgets its bindings and goes on.
    pub(super) flush: Option<Flush>,
    /// A relay, the coordination server or a host's peer stops and starts again.
    pub(super) restart: Option<Restart>,
    /// The cable of a node changes; what is not named stays as the entries before left it.
    pub(super) link: Option<LinkChange>,
    /// The cable of this node is cut.
    pub(super) down: Option<Val<String>>,
    /// The cable of this node is mended.
    pub(super) up: Option<Val<String>>,
    /// A router gets another firewall.
    pub(super) firewall: Option<FirewallChange>,
    /// The user accepts the terms of a captive portal.
    pub(super) accept_portal: Option<AcceptPortal>,
    /// A router's translation changes.
    pub(super) nat: Option<NatChange>,
    /// A router gets another address on its uplink.
    pub(super) readdress: Option<Readdress>,
    /// A host moves to another network.
    #[serde(rename = "move")]
    pub(super) moves: Option<Move>,
    /// An interface of a host goes away or comes back.
    pub(super) interface: Option<InterfaceChange>,
    /// A host sleeps and wakes.
    pub(super) sleep: Option<Sleep>,
    /// A host's wall clock jumps.
    pub(super) clock: Option<ClockJump>,
    /// The programs of this host or server are killed and do not come back; its kernel closes their connections.
    pub(super) kill: Option<Val<String>>,
    /// A host or server loses power.
    pub(super) crash: Option<Crash>,
    /// No packet reaches or leaves a host or server, though it runs on and its connections stay.
    pub(super) black_hole: Option<BlackHole>,
    /// A host or server is slow, or has more to do than it can.
    pub(super) slow: Option<Slow>,
    /// Parts of the internet do not reach each other.
    pub(super) cut: Option<Cut>,
}

/// The user accepts the terms of a captive portal, for everybody behind it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct AcceptPortal {
    /// The router that has it.
    pub(super) router: Val<String>,
}

/// A router loses its state and passes nothing for a while.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Reboot {
    /// Which.
    pub(super) router: Val<String>,
    /// For how long. Default: 20s.
    pub(super) off: Option<Val<Duration>>,
}

/// A router forgets its bindings and goes on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Flush {
    /// Which.
    pub(super) router: Val<String>,
}

/// A relay, the coordination server or a host's peer stops and starts again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Restart {
    /// Which relay.
    pub(super) relay: Option<Val<String>>,
    /// The coordination server instead.
    pub(super) coordinator: Option<Val<bool>>,
    /// The peer of this host instead.
    pub(super) host: Option<Val<String>>,
    /// For how long. Default: 2s.
    pub(super) off: Option<Val<Duration>>,
    /// Whether the coordination server still has its records, or the peer its identity, afterwards. Default: kept.
    pub(super) state: Option<Val<Word<State>>>,
}

/// The cable of a node changes; what is not named stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct LinkChange {
    /// Host, router, relay, STUN server, or "coordinator".
    pub(super) node: Val<String>,
    /// Start from this preset instead of the cable as it is.
    pub(super) preset: Option<Val<String>>,
    /// Rate towards the node, or "unlimited".
    pub(super) down: Option<Val<Rate>>,
    /// Rate away from the node, or "unlimited".
    pub(super) up: Option<Val<Rate>>,
    /// A file beside the scenario with the chances to send 1500 bytes, in mahimahi's format, in place of a rate; or "none".
    pub(super) trace: Option<Both<FileName>>,
    /// One-way delay; or measured, as quantiles: "10% 20ms, 50% 35ms, 90% 80ms".
    pub(super) delay: Option<Both<Delay>>,
    /// How far the delay varies: to either side ("5ms"), or the standard deviation of "normal 5ms" or "pareto 5ms".
    pub(super) jitter: Option<Both<Jitter>>,
    /// A file beside the scenario with the delay as it changes (lines of MILLISECONDS,DELAY), in place of `delay`; or "none".
    pub(super) delay_trace: Option<Both<FileName>>,
    /// Changes of the delay at fixed times: a route that flaps, satellites that take over; or "none".
    pub(super) delay_steps: Option<Sugar<DelaySteps>>,
    /// Bytes that wait at most, or "unlimited"; what does not fit is dropped. With a new rate: 100 ms of it.
    pub(super) queue: Option<Both<Queue>>,
    /// How the queue is managed: "drop-tail", "codel" (RFC 8289), "fq-codel" (RFC 8290) or "red min 30kB max 90kB", each with
    /// its settings after it. Default: drop-tail.
    pub(super) aqm: Option<Both<Aqm>>,
    /// Packets lost: at random ("1%"), "gilbert-elliott p 1% r 10% h 30% k 99.9%", "burst 5 every 200", or "every 50".
    pub(super) loss: Option<Both<Loss>>,
    /// Whether a packet with little jitter may overtake one with much.
    pub(super) reorder: Option<Both<bool>>,
    /// Share of packets held back, so that later ones overtake them: "1% by 20ms", or "none".
    pub(super) late: Option<Both<Late>>,
    /// Share of packets that arrive twice.
    pub(super) duplicate: Option<Both<Ratio>>,
    /// Share of packets damaged on the way; their checksums show it, and they are dropped.
    pub(super) corrupt: Option<Both<Ratio>>,
    /// The largest IP packet in bytes, or "unlimited". No packet may be fragmented.
    pub(super) mtu: Option<Both<Mtu>>,
    /// Whether the sender of a larger one is told by ICMP (RFC 1191) or not: "icmp", the default, or "silent".
    pub(super) pmtud: Option<Both<Word<Pmtud>>>,
    /// Times at which nothing passes; or "none".
    pub(super) outages: Option<Sugar<Outages>>,
}

impl LinkChange {
    /// The node, and the change as a cable description.
    pub(super) fn into_parts(self) -> (Val<String>, Link) {
        let LinkChange {
            node,
            preset,
            down,
            up,
            trace,
            delay,
            jitter,
            delay_trace,
            delay_steps,
            queue,
            aqm,
            loss,
            reorder,
            late,
            duplicate,
            corrupt,
            mtu,
            pmtud,
            outages,
        } = self;
        let link = Link {
            preset,
            down,
            up,
            trace,
            delay,
            jitter,
            delay_trace,
            delay_steps,
            queue,
            aqm,
            loss,
            reorder,
            late,
            duplicate,
            corrupt,
            mtu,
            pmtud,
            outages,
        };
        (node, link)
    }
}

/// A router gets another firewall.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct FirewallChange {
    /// Which.
    pub(super) router: Val<String>,
    /// A preset, rules, or "none".
    pub(super) rules: Sugar<Firewall>,
}

/// A router's translation changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct NatChange {
    /// Which.
    pub(super) router: Val<String>,
    /// A preset or axes.
    pub(super) to: Sugar<Nat>,
    /// Whether it still knows its bindings afterwards. Default: lost.
    pub(super) state: Option<Val<Word<State>>>,
}

/// A router gets another address on its uplink, and forgets its bindings, as after a nightly reconnection.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Readdress {
    /// Which; it must translate.
    pub(super) router: Val<String>,
    /// Its new address. Default: the next free one.
    pub(super) address: Option<Val<IpAddr>>,
    /// For how long nothing passes. Default: 0s.
    pub(super) off: Option<Val<Duration>>,
}

/// A host leaves its network, is unreachable for a while, and comes up in another with a new address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Move {
    /// Which.
    pub(super) host: Val<String>,
    /// Which of its interfaces. Default: that of the host's own section.
    pub(super) interface: Option<Val<String>>,
    /// The router that it is behind afterwards, or the region where it is on the internet.
    pub(super) to: Val<String>,
    /// Its address there. Default: the next free one; the same whenever it comes back.
    pub(super) address: Option<Val<IpAddr>>,
    /// Its cable there. Default: as it was at the start.
    pub(super) link: Option<Sugar<Link>>,
    /// For how long it is nowhere. Default: 2s.
    pub(super) dead: Option<Val<Duration>>,
}

/// An interface of a host goes away with its address, or comes back with it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct InterfaceChange {
    /// Whose.
    pub(super) host: Val<String>,
    /// Which. Default: that of the host's own section.
    pub(super) name: Option<Val<String>>,
    /// Whether it is there from now on.
    pub(super) up: Val<bool>,
}

/// A host sleeps: what is sent to it is lost, and all that it should have done meanwhile it does when it wakes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Sleep {
    /// Which.
    pub(super) host: Val<String>,
    /// For how long.
    #[serde(rename = "for")]
    pub(super) lasts: Val<Duration>,
}

/// A host's wall clock jumps; what measures durations is not affected.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ClockJump {
    /// Whose.
    pub(super) host: Val<String>,
    /// How far, forwards "+1h" or back "-1h".
    pub(super) by: Val<Jump>,
}

/// A host or server loses power: it forgets its connections without telling anyone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Crash {
    /// Host, relay, STUN server, or "coordinator".
    pub(super) node: Val<String>,
    /// For how long; what it has on disk is kept. Default: for good.
    pub(super) off: Option<Val<Duration>>,
}

/// No packet reaches or leaves a host or server, though it runs on and its connections stay.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct BlackHole {
    /// Host, relay, STUN server, or "coordinator".
    pub(super) node: Val<String>,
    /// For how long. Default: for good.
    #[serde(rename = "for")]
    pub(super) lasts: Option<Val<Duration>>,
}

/// A host or server is slow, or has more to do than it can.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Slow {
    /// Host, relay, STUN server, or "coordinator".
    pub(super) node: Val<String>,
    /// What every packet that arrives waits. Default: 0s.
    pub(super) delay: Option<Val<Duration>>,
    /// What it then takes to handle one, while the next wait their turn. Default: 0s.
    pub(super) each: Option<Val<Duration>>,
    /// Most packets that wait; what comes then is lost. Default: 1000.
    pub(super) queue: Option<Val<u64>>,
    /// For how long. Default: for good.
    #[serde(rename = "for")]
    pub(super) lasts: Option<Val<Duration>>,
}

/// Parts of the internet do not reach each other: one region and all the rest, or two groups.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Cut {
    /// A region that is cut off from all others.
    pub(super) region: Option<Val<String>>,
    /// Regions and nodes of one side. A node stands for all that is behind the same outermost router.
    pub(super) from: Option<Vec<Val<String>>>,
    /// Regions and nodes of the other side. Default: everything else.
    pub(super) to: Option<Vec<Val<String>>>,
    /// For how long. Default: for good.
    #[serde(rename = "for")]
    pub(super) lasts: Option<Val<Duration>>,
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
