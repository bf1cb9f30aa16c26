//! What stands between the hosts: routers with their translation, packet filter and port mapping gateway, and cables.

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
use pref64::Pref64;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::scenario::filter::{Burst, Filter, Most, Pace, Terms};
use crate::scenario::ipv6::WayWord;
use crate::scenario::links::{Delay, FileName, Mtu, Pmtud};
use crate::scenario::value::{
    Both, PerSecond, Ports, Prefix, Queue, Quota, Rate, Ratio, Refresh, Sugar, Udp, Val, Word,
};

/// A router: home router, carrier NAT, firewall, or all in one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Router {
    /// The region of the internet that its uplink goes to.
    pub(in crate::scenario) region: Option<Val<String>>,
    /// The router that its uplink goes to instead.
    pub(in crate::scenario) behind: Option<Val<String>>,
    /// Its address on the uplink. Default: the next free one.
    pub(in crate::scenario) address: Option<Val<IpAddr>>,
    /// How many addresses its translation gives out: the one above, and the next free ones. Default: 1.
    pub(in crate::scenario) addresses: Option<Val<u64>>,
    /// Its inside network. Default: 192.168.1.0/24, or 100.64.0.0/10 with routers behind it (RFC 6598), or the first of
    /// 192.168.2.0/24 … that is not the network it is attached to. Without translation: a network of public addresses
    /// on the internet, one of 10.0.0.0/8 behind another router.
    pub(in crate::scenario) lan: Option<Val<Prefix>>,
    /// Address translation: a preset, its axes, or "none". Default: "linux".
    pub(in crate::scenario) nat: Option<Sugar<Nat>>,
    /// Packet filter: a preset, its rules, or "none". Default: none beyond the NAT.
    pub(in crate::scenario) firewall: Option<Sugar<Firewall>>,
    /// Port mapping gateway: "all" or one protocol, or its properties, or "none". Default: none.
    pub(in crate::scenario) gateway: Option<Sugar<Gateway>>,
    /// Its uplink: a preset or properties.
    pub(in crate::scenario) link: Option<Sugar<Link>>,
    /// What it does about IPv6. "routed": its inside has global IPv6 addresses as well. "npt": unique local ones, whose prefix
    /// it swaps (RFC 6296). "nat64": its inside has IPv6 alone, and reaches IPv4 through it (RFC 6146); `nat` has the axes of
    /// that, by default those of "cgn". "clat": its uplink, behind a NAT64, has IPv6 alone, its inside both versions (RFC
    /// 6877). Default: "none". Once a scenario has IPv6, machines and servers on the internet have it too.
    pub(in crate::scenario) ipv6: Option<Val<Word<WayWord>>>,
    /// Its inside network of IPv6. Default: one of 3001::/16, or with "npt" of fd33::/16.
    pub(in crate::scenario) lan6: Option<Val<Prefix>>,
    /// Its IPv6 address on the uplink. Default: the next free one.
    pub(in crate::scenario) address6: Option<Val<IpAddr>>,
    /// Behind it a NAT64 takes IPv4 addresses (RFC 6052). Default: "64:ff9b::/96".
    pub(in crate::scenario) nat64_prefix: Option<Val<Pref64>>,
    /// Packet filter for IPv6, where it is another than `firewall`: a preset, its rules, or "none". Default: the same.
    pub(in crate::scenario) firewall6: Option<Sugar<Firewall>>,
}

/// A port mapping gateway on a router, and the ways in which it misbehaves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Gateway {
    /// What it speaks: "pcp" (RFC 6887), "nat-pmp" (RFC 6886), "upnp" (UPnP-IGD). Default: all.
    pub(in crate::scenario) protocols: Option<Vec<Val<Word<Protocol>>>>,
    /// Version of its UPnP-IGD. Default: "igd2".
    pub(in crate::scenario) upnp: Option<Val<Word<IgdVersion>>>,
    /// What becomes of requests. Default: "serve".
    pub(in crate::scenario) conduct: Option<Val<Word<Conduct>>>,
    /// Whether it gives another port than the wanted one.
    pub(in crate::scenario) other_port: Option<Val<bool>>,
    /// Says that this is its external address, whatever it is.
    pub(in crate::scenario) claims: Option<Val<IpAddr>>,
    /// Whether it gives mappings though its own external address is private. Default: true; miniupnpd does not.
    pub(in crate::scenario) maps_behind_nat: Option<Val<bool>>,
    /// A mapping is gone this long after it was made or renewed, whatever its lifetime.
    pub(in crate::scenario) forgets_after: Option<Val<Duration>>,
    /// Whether a PCP mapping is renewed only with the nonce that made it (RFC 6887 §11.3.1). Default: true.
    pub(in crate::scenario) strict_nonce: Option<Val<bool>>,
    /// Whether UPnP mappings must be permanent.
    pub(in crate::scenario) permanent_only: Option<Val<bool>>,
    /// Shortest lifetime that is given. Default: 120s (RFC 6887 §15).
    pub(in crate::scenario) min_lifetime: Option<Val<Duration>>,
    /// Longest lifetime that is given. Default: 24h (RFC 6887 §15).
    pub(in crate::scenario) max_lifetime: Option<Val<Duration>>,
    /// Mappings at most.
    pub(in crate::scenario) capacity: Option<Val<u64>>,
    /// Mappings of one host at most.
    pub(in crate::scenario) per_host: Option<Val<u64>>,
}

/// Address translation as the axes of RFC 4787, or as a rule of the Linux kernel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Nat {
    /// Where to start from; the other keys change it. Default: what RFC 4787 asks for.
    pub(in crate::scenario) preset: Option<Val<String>>,
    /// When an inside endpoint keeps its external endpoint (RFC 4787 §4.1).
    pub(in crate::scenario) mapping: Option<Val<Word<Mapping>>>,
    /// Who may send to a binding (RFC 4787 §5).
    pub(in crate::scenario) filtering: Option<Val<Word<Filtering>>>,
    /// The mapping for TCP. Default: the same.
    pub(in crate::scenario) tcp_mapping: Option<Val<Word<Mapping>>>,
    /// The filtering for TCP. Default: the same.
    pub(in crate::scenario) tcp_filtering: Option<Val<Word<Filtering>>>,
    /// How external ports are chosen (RFC 4787 §4.2).
    pub(in crate::scenario) ports: Option<Val<Word<PortAllocation>>>,
    /// What a preserving allocation does where the inside port is taken (RFC 4787 §4.2.1). Default: next-free.
    pub(in crate::scenario) collision: Option<Val<Word<Collision>>>,
    /// How far a sequential allocation moves on for each mapping. Default: 1.
    pub(in crate::scenario) step: Option<Val<u64>>,
    /// Mappings that other subscribers make, which move a sequential allocation on: "20/s". Default: "0/s".
    pub(in crate::scenario) other_traffic: Option<Val<PerSecond>>,
    /// Whether even inside ports get even external ones, and odd ones odd ones (RFC 4787 REQ-4). Default: false.
    pub(in crate::scenario) parity: Option<Val<bool>>,
    /// Ports that a machine or router behind it has to itself, all from one block (RFC 7422); 0 = the ports are
    /// everybody's. Default: 0.
    pub(in crate::scenario) block: Option<Val<u64>>,
    /// Which of the router's several addresses a mapping gets, or "one-to-one": an address for each machine, all ports its
    /// own (RFC 2663 §4.1.1). Default: paired.
    pub(in crate::scenario) pooling: Option<Val<Word<Pooling>>>,
    /// The ports that sequential and random allocation hand out.
    pub(in crate::scenario) port_range: Option<Val<Ports>>,
    /// Packets from inside for the router's own external address (RFC 4787 §6).
    pub(in crate::scenario) hairpin: Option<Val<Word<Hairpin>>>,
    /// What the router says to packets from outside that it lets not pass. Default: drop, nothing.
    pub(in crate::scenario) unsolicited: Option<Val<Word<Unsolicited>>>,
    /// How long a SYN from outside waits for one from inside before ICMP answers it (RFC 5382 REQ-4: 6s at least).
    /// Default: 0s, it is treated like other packets.
    pub(in crate::scenario) syn_hold: Option<Val<Duration>>,
    /// How long a silent UDP conversation is remembered; sets the next two.
    pub(in crate::scenario) udp_timeout: Option<Val<Duration>>,
    /// The same, while nothing has come back.
    pub(in crate::scenario) udp_unreplied_timeout: Option<Val<Duration>>,
    /// The same, once something has come back.
    pub(in crate::scenario) udp_replied_timeout: Option<Val<Duration>>,
    /// The age from which the timeout of answered conversations holds.
    pub(in crate::scenario) udp_replied_after: Option<Val<Duration>>,
    /// TCP while it opens or closes.
    pub(in crate::scenario) tcp_transitory_timeout: Option<Val<Duration>>,
    /// TCP once established.
    pub(in crate::scenario) tcp_established_timeout: Option<Val<Duration>>,
    /// ICMP echo.
    pub(in crate::scenario) icmp_timeout: Option<Val<Duration>>,
    /// Which packets start a conversation's time anew (RFC 4787 REQ-6).
    pub(in crate::scenario) refresh: Option<Val<Word<Refresh>>>,
    /// Whether a TCP segment that opens no connection makes a binding.
    pub(in crate::scenario) tcp_pickup: Option<Val<bool>>,
    /// Whether what a machine sends by itself leaves from a port that it asked the router to map; otherwise only answers
    /// do. Default: true.
    pub(in crate::scenario) mapped_outbound: Option<Val<bool>>,
    /// How long a port rests after its mapping before another may have it (RFC 6888 REQ-8: 120s). Default: 0s.
    pub(in crate::scenario) hold_down: Option<Val<Duration>>,
    /// How many mappings a machine or router behind it may have at a time (RFC 6888 REQ-4), or "unlimited", the default.
    pub(in crate::scenario) host_quota: Option<Val<Quota>>,
    /// What happens to a new conversation when the table is full. Default: refuse-new.
    pub(in crate::scenario) when_full: Option<Val<Word<WhenFull>>>,
    /// What a machine inside is told when there is no room for it. Default: drop, nothing.
    pub(in crate::scenario) exhausted: Option<Val<Word<Exhausted>>>,
    /// Which fragments of IP packets pass (RFC 4787 REQ-14). Default: any-order.
    pub(in crate::scenario) fragments: Option<Val<Word<Fragments>>>,
    /// How many conversations it can remember.
    pub(in crate::scenario) capacity: Option<Val<u64>>,
    /// Translation as the Linux kernel does it, by this rule of nftables. It goes with the keys below and with
    /// port-range, hairpin, the timeouts, tcp-pickup and capacity; the other axes follow from it.
    pub(in crate::scenario) rule: Option<Val<Word<LinuxRule>>>,
    /// Linux: what happens to packets for the router itself.
    pub(in crate::scenario) input: Option<Val<Word<InputPolicy>>>,
    /// Linux: what happens to new conversations from outside that the rule leads to a host.
    pub(in crate::scenario) forward: Option<Val<Word<ForwardPolicy>>>,
    /// Linux: a random port for each conversation.
    pub(in crate::scenario) random: Option<Val<bool>>,
    /// Linux: a host keeps its address of the router's several.
    pub(in crate::scenario) persistent: Option<Val<bool>>,
    /// Linux, rule "static": the hosts that the router's addresses belong to, in their order.
    pub(in crate::scenario) hosts: Option<Vec<Val<IpAddr>>>,
    /// Linux, rules "full-cone" and "restricted-cone": how long a host is found after its last packet.
    pub(in crate::scenario) map_timeout: Option<Val<Duration>>,
}

/// A packet filter between a router's inside and its uplink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Firewall {
    /// Where to start from; the other keys change it. Default: only answers come in, everything goes out.
    pub(in crate::scenario) preset: Option<Val<String>>,
    /// Packets from outside.
    pub(in crate::scenario) inbound: Option<Val<Word<Inbound>>>,
    /// "blocked" drops all UDP.
    pub(in crate::scenario) udp: Option<Val<Word<Udp>>>,
    /// The only things that may go out, as in "tcp 443", "udp 3478 to stun", "tcp 3128 to 192.0.2.7" or "any from laptop":
    /// protocol, ports outside, the end outside, the end inside, of which all but one may be left away. Leave the list
    /// away for everything.
    pub(in crate::scenario) outbound: Option<Vec<Val<Filter>>>,
    /// What passes neither out nor in, whatever else is allowed; rules as for `outbound`, or a node or address alone.
    pub(in crate::scenario) block: Option<Vec<Val<Filter>>>,
    /// What a sender inside hears of what a rule refuses: nothing, an ICMP error, or a RST for TCP. Default: "drop".
    pub(in crate::scenario) answer: Option<Val<Word<Refusal>>>,
    /// What a sender outside hears of what nobody asked for; "late-icmp" answers a TCP SYN after six seconds (RFC 6092
    /// REC-34). Default: "drop".
    pub(in crate::scenario) answer_inbound: Option<Val<Word<InboundRefusal>>>,
    /// Ports outside to which a TCP connection must begin with a TLS ClientHello, or is cut off, as in ["443"].
    pub(in crate::scenario) tls_only: Option<Vec<Val<Ports>>>,
    /// Whether IPv6 packets pass whose addresses have no business on the internet (RFC 6092 REC-1 to 7). Default: true.
    pub(in crate::scenario) bogons: Option<Val<bool>>,
    /// A captive portal (RFC 8952), before whose acceptance all but DNS and DHCP is refused: how long its user takes from
    /// the first packet that it refused, "until-accepted" for an [[at]] accept-portal, or "none".
    pub(in crate::scenario) portal: Option<Val<Terms>>,
    /// UDP packets longer than this are dropped, IP header included.
    pub(in crate::scenario) udp_max_size: Option<Val<Most<false>>>,
    /// UDP beyond this rate is dropped, in each direction, as in "1Mbit/s" or "100packets/s".
    pub(in crate::scenario) udp_rate: Option<Val<Pace>>,
    /// How much of it may come at once. Default: 100 ms of it, and at least two packets.
    pub(in crate::scenario) udp_burst: Option<Val<Burst>>,
    /// The same for each UDP conversation by itself.
    pub(in crate::scenario) flow_rate: Option<Val<Pace>>,
    /// How much of that may come at once.
    pub(in crate::scenario) flow_burst: Option<Val<Burst>>,
    /// Packets of a UDP conversation, both directions together, after which it passes no more.
    pub(in crate::scenario) flow_packets: Option<Val<Most<true>>>,
    /// Bytes of a UDP conversation, both directions together, after which it passes no more.
    pub(in crate::scenario) flow_bytes: Option<Val<Most<false>>>,
    /// Share of the UDP packets from outside that is lost.
    pub(in crate::scenario) udp_loss_in: Option<Val<Ratio>>,
    /// Share of the UDP packets from inside that is lost.
    pub(in crate::scenario) udp_loss_out: Option<Val<Ratio>>,
    /// How long a silent UDP conversation is remembered; sets the next two.
    pub(in crate::scenario) udp_timeout: Option<Val<Duration>>,
    /// The same, while nothing has come back.
    pub(in crate::scenario) udp_unreplied_timeout: Option<Val<Duration>>,
    /// The same, once something has come back.
    pub(in crate::scenario) udp_replied_timeout: Option<Val<Duration>>,
    /// The age from which the timeout of answered conversations holds.
    pub(in crate::scenario) udp_replied_after: Option<Val<Duration>>,
    /// TCP while it opens or closes.
    pub(in crate::scenario) tcp_transitory_timeout: Option<Val<Duration>>,
    /// TCP once established.
    pub(in crate::scenario) tcp_established_timeout: Option<Val<Duration>>,
    /// ICMP echo.
    pub(in crate::scenario) icmp_timeout: Option<Val<Duration>>,
    /// How many conversations it can remember.
    pub(in crate::scenario) capacity: Option<Val<u64>>,
}

/// A cable, both directions. All but the rates may be one value, or `{ down = …, up = … }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Link {
    /// Where to start from; the other keys change it. Default: what the node would have without `link`.
    pub(in crate::scenario) preset: Option<Val<String>>,
    /// Rate towards the node, or "unlimited".
    pub(in crate::scenario) down: Option<Val<Rate>>,
    /// Rate away from the node, or "unlimited".
    pub(in crate::scenario) up: Option<Val<Rate>>,
    /// A file beside the scenario with the chances to send 1500 bytes, in mahimahi's format, in place of a rate; or "none".
    pub(in crate::scenario) trace: Option<Both<FileName>>,
    /// One-way delay; or measured, as quantiles: "10% 20ms, 50% 35ms, 90% 80ms".
    pub(in crate::scenario) delay: Option<Both<Delay>>,
    /// How far the delay varies: to either side ("5ms"), or the standard deviation of "normal 5ms" or "pareto 5ms".
    pub(in crate::scenario) jitter: Option<Both<Jitter>>,
    /// A file beside the scenario with the delay as it changes (lines of MILLISECONDS,DELAY), in place of `delay`; or "none".
    pub(in crate::scenario) delay_trace: Option<Both<FileName>>,
    /// Changes of the delay at fixed times: a route that flaps, satellites that take over; or "none".
    pub(in crate::scenario) delay_steps: Option<Sugar<DelaySteps>>,
    /// Bytes that wait at most, or "unlimited"; what does not fit is dropped. With a new rate: 100 ms of it.
    pub(in crate::scenario) queue: Option<Both<Queue>>,
    /// How the queue is managed: "drop-tail", "codel" (RFC 8289), "fq-codel" (RFC 8290) or "red min 30kB max 90kB", each with
    /// its settings after it. Default: drop-tail.
    pub(in crate::scenario) aqm: Option<Both<Aqm>>,
    /// Packets lost: at random ("1%"), "gilbert-elliott p 1% r 10% h 30% k 99.9%", "burst 5 every 200", or "every 50".
    pub(in crate::scenario) loss: Option<Both<Loss>>,
    /// Whether a packet with little jitter may overtake one with much.
    pub(in crate::scenario) reorder: Option<Both<bool>>,
    /// Share of packets held back, so that later ones overtake them: "1% by 20ms", or "none".
    pub(in crate::scenario) late: Option<Both<Late>>,
    /// Share of packets that arrive twice.
    pub(in crate::scenario) duplicate: Option<Both<Ratio>>,
    /// Share of packets damaged on the way; their checksums show it, and they are dropped.
    pub(in crate::scenario) corrupt: Option<Both<Ratio>>,
    /// The largest IP packet in bytes, or "unlimited". No packet may be fragmented but those of hosts with `dont-fragment = false`.
    pub(in crate::scenario) mtu: Option<Both<Mtu>>,
    /// Whether the sender of a larger one is told by ICMP (RFC 1191) or not: "icmp", the default, or "silent".
    pub(in crate::scenario) pmtud: Option<Both<Word<Pmtud>>>,
    /// Times at which nothing passes; or "none".
    pub(in crate::scenario) outages: Option<Sugar<Outages>>,
}

/// Times at which nothing passes, the same for both directions of a cable.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Outages {
    /// From the start of one to the start of the next; at random, the mean time from the end of one to the start of the next.
    pub(in crate::scenario) every: Val<Duration>,
    /// How long each lasts.
    #[serde(rename = "for")]
    pub(in crate::scenario) lasts: Val<Duration>,
    /// When the first one begins, or may begin. Default: as `every`; at random from the start.
    pub(in crate::scenario) first: Option<Val<Duration>>,
    /// Whether they come at random, drawn from the seed, rather than like clockwork. Default: false.
    pub(in crate::scenario) random: Option<Val<bool>>,
}

/// Changes of the delay at fixed times, the same for both directions of a cable.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct DelaySteps {
    /// From one to the next.
    pub(in crate::scenario) every: Val<Duration>,
    /// The first one. Default: as `every`.
    pub(in crate::scenario) first: Option<Val<Duration>>,
    /// How far the delay moves.
    pub(in crate::scenario) by: Val<Duration>,
    /// "anywhere" from the delay less this to the delay plus this, drawn anew each time; or "up-and-back". Default: anywhere.
    pub(in crate::scenario) to: Option<Val<Word<StepTo>>>,
    /// How long after a step packets are lost. Default: 0s.
    pub(in crate::scenario) disturbed: Option<Val<Duration>>,
    /// Which share of them. Default: 0%.
    pub(in crate::scenario) loss: Option<Val<Ratio>>,
}
