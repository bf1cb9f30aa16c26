//! What the model leaves out. Written here, beside the code, so that the page of limits cannot be forgotten.

use std::fmt::Write;

/// One thing that real networks do and the simulator does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Its name, which stays the same however it is worded: that of the test that asserts it.
    pub id: &'static str,
    /// Part of the model.
    pub area: &'static str,
    /// What is left out.
    pub what: &'static str,
    /// What follows for somebody who reads a result.
    pub so: &'static str,
}

const fn limit(id: &'static str, area: &'static str, what: &'static str, so: &'static str) -> Limit {
    Limit { id, area, what, so }
}

/// All of them, each asserted by a test in `tests/limits` that has its name.
pub const LIMITS: &[Limit] = &[
    limit(
        "no-neighbour-discovery",
        "network",
        "no neighbour discovery, router advertisements, temporary or link-local IPv6 addresses: hosts know their address and resolver",
        "IPv6 is there from the start or not at all, and addresses do not change with time (RFC 8981).",
    ),
    limit(
        "no-dns",
        "network",
        "no DNS but the question for a NAT64's prefix (RFC 7050): programs know addresses of servers",
        "A network that blocks or falsifies DNS cannot be written down.",
    ),
    limit(
        "one-interface",
        "network",
        "a host sends everything over its first interface that is up, and a peer has one socket",
        "Paths over two interfaces at once are not played.",
    ),
    limit(
        "constant-internet",
        "network",
        "the internet's delay between two regions is constant and symmetric",
        "Route changes and congestion in the core do not happen; cuts and links have to play them.",
    ),
    limit(
        "few-fragments",
        "network",
        "only UDP of hosts with `dont-fragment = false` is fragmented; over IPv6 a host minds the MTU of its own cable alone, and \
         nobody is told of fragments that waited in vain (RFC 792 type 11 code 1)",
        "A long datagram over an IPv6 path that is narrower further on never comes, though a host would remember what it was told.",
    ),
    limit(
        "linux-tcp-windows",
        "Linux",
        "the translator of Linux does not check TCP's windows",
        "A segment out of window passes that the kernel would call invalid.",
    ),
    limit(
        "linux-full-table",
        "Linux",
        "the translator of Linux evicts nothing from a full table (early_drop)",
        "A flood of half-open connections does not make room for itself.",
    ),
    limit(
        "kernel-boxes",
        "Linux",
        "with --boxes kernel the timers and the size of the table are still the model's, packets carry no payload, a router's several \
         addresses must be in a row, and firewalls and routers that do not translate IPv4 stay models",
        "A kernel whose timers differ is not noticed, and runs repeat exactly only where the kernel draws no port at random.",
    ),
    limit(
        "silent-internet",
        "ICMP",
        "the internet is silent about addresses that nobody has; a host's own network knows no ARP",
        "A packet to a private address across the internet, or to a machine that has left the home, vanishes untold.",
    ),
    limit(
        "icmp-kinds",
        "ICMP",
        "no redirects, source quench, parameter problems or timestamps, and no program that sets a TTL",
        "Traceroute cannot be played.",
    ),
    limit(
        "icmp-in-the-tunnel",
        "ICMP",
        "no errors inside the tunnel",
        "A program in the tunnel is not told that its packet was dropped.",
    ),
    limit(
        "errors-not-believed",
        "ICMP",
        "a peer acts on no error but \"too big\", which makes it measure its path: anybody may forge one (RFC 5927)",
        "A closed port is noticed by silence, as late as a filtered one.",
    ),
    limit(
        "provider-without-address",
        "ICMP",
        "a provider's router has no address: what it says of a packet too big for a line comes from where that was to go",
        "A host that minds who tells it of a smaller MTU would believe too easily.",
    ),
    limit(
        "block-used-up",
        "NAT",
        "a NAT gives a host no ports beyond its block (RFC 7422's overflow), and never one twice where its block is used up",
        "Google's and Microsoft's NATs hold out longer than here, since they reuse a port towards other destinations.",
    ),
    limit(
        "even-other-traffic",
        "NAT",
        "other subscribers move a sequential allocation on at an even rate, and occupy no ports",
        "Ports are next to each other more or less often than where others come in bursts.",
    ),
    limit(
        "pinholes-of-ipv6-alone",
        "NAT",
        "a peer with IPv4 asks for its IPv4 port alone, for a pinhole only by PCP; Linux's NAT makes no PCP PEER mappings",
        "Behind an IPv6 firewall the port of a host with both versions stays closed, whatever the router could open.",
    ),
    limit(
        "nearest-gateway",
        "NAT",
        "a peer asks the router nearest to it to open a port, and none beyond; after a move, that of its first network",
        "Behind two NATs a port that both could open stays closed, and port mapping after a move looks worse than it is.",
    ),
    limit(
        "clat-for-a-network",
        "NAT",
        "a customer-side translator (464XLAT) has a prefix for all its hosts; none shares one address by a NAT of its own",
        "A phone that is given a single IPv6 address, and translates IPv4 for itself alone, has to be written as a router.",
    ),
    limit(
        "one-quota",
        "NAT",
        "hold-down, quota and parity are the same for every protocol; no limit on the rate of new mappings",
        "RFC 6888 REQ-4 B and C, and the exemption of REQ-8 A, are not played.",
    ),
    limit(
        "tls-type-alone",
        "firewall",
        "a look into TLS ends with the type of the first message: no server names, certificates or fingerprints",
        "A firewall that lets only some web sites pass, or knows a tunnel by how it looks, cannot be written down.",
    ),
    limit(
        "nothing-waits",
        "firewall",
        "nothing waits: what exceeds a rate is dropped, and a rate counts UDP, all of it or each conversation",
        "A shaper that delays is a link with that rate; a provider that throttles TCP cannot be written down.",
    ),
    limit(
        "portal-for-all",
        "firewall",
        "a captive portal is open or closed for everybody behind it, redirects nobody and has no API (RFC 8908)",
        "Software that looks for a portal finds a closed network.",
    ),
    limit(
        "no-bans",
        "firewall",
        "no quota for a conversation outlives it, and nothing is blocked for what it did before",
        "A box that bans an address for a while after a scan cannot be written down.",
    ),
    limit(
        "connect-alone",
        "proxy",
        "CONNECT alone, over plain TCP, to addresses; Basic is its only authentication; no PAC files, SOCKS or MASQUE",
        "An office whose proxy wants NTLM or Kerberos, or that is found by itself, cannot be written down.",
    ),
    limit(
        "jitter-without-memory",
        "link",
        "each packet's jitter is drawn for itself, whatever its predecessor's was",
        "Delays that rise and fall slowly are a trace's to tell.",
    ),
    limit(
        "directions-apart",
        "link",
        "both directions are apart, and nobody else uses them: no shared airtime, no layer that sends again",
        "Wi-Fi and cellular links show their delays and losses, not how these come about.",
    ),
    limit(
        "ip-bytes-alone",
        "link",
        "queues count bytes of IP packets, without framing of the link below",
        "A rate is that of IP; take the overhead of DSL or Ethernet off it.",
    ),
    limit(
        "no-5g",
        "link",
        "no preset for 5G, whose published figures were not found with a source to name",
        "Write the properties of such a link down, or a trace.",
    ),
    limit(
        "three-aqms",
        "link",
        "no other AQM than CoDel, FQ-CoDel and RED: no PIE, CAKE or L4S",
        "DOCSIS 3.1 modems, which run PIE, are nearest to CoDel.",
    ),
    limit(
        "plain-tcp",
        "TCP",
        "no ECN (nobody asks for it, so that no queue has a packet to mark), pacing, BBR or fast open; a smaller MTU is learned by ICMP alone (no RFC 4821)",
        "Goodput is that of CUBIC without pacing.",
    ),
    limit(
        "programs-read-at-once",
        "TCP",
        "programs read at once, but for a proxy that waits for its other end",
        "No receiver closes its window because its program is slow.",
    ),
    limit(
        "relays-unlimited",
        "relay",
        "no limit on a client's rate",
        "A relayed path is as fast as the cables of its relays are.",
    ),
    limit(
        "one-coordinator",
        "coordination",
        "one server",
        "No scenario shows a second server that takes over; while the one is away, peers go on with the map they have.",
    ),
    limit(
        "paths-by-round-trip",
        "peer",
        "paths are chosen by round trip: nobody measures what rate a path has",
        "A throttled direct path is kept, though the relay would be faster (`firewall/flows-throttled`).",
    ),
    limit(
        "black-hole-beside-a-call",
        "peer",
        "a path that loses large packets alone is noticed while nothing else comes back from the tunnel, or by an ICMP error",
        "A transfer in silence beside a lively call over the same path stays in the black hole.",
    ),
    limit(
        "no-port-prediction",
        "peer",
        "no port prediction and no birthday search",
        "Pairs that other software connects after hundreds of probes stay relayed here.",
    ),
    limit(
        "programs-take-no-time",
        "host",
        "programs take no time, but where the timeline makes their host slow: a packet is handled in the instant it arrives",
        "CPU cost does not show in latency or goodput.",
    ),
    limit(
        "clocks-alike",
        "host",
        "wall clocks jump where the timeline says so, and all clocks run alike",
        "Clocks that drift are not played.",
    ),
    limit(
        "clock-in-sleep",
        "host",
        "the monotonic clock goes on in sleep, as CLOCK_BOOTTIME",
        "A program that counts with CLOCK_MONOTONIC would not see how long it has slept.",
    ),
    limit(
        "neither-rates-nor-loss",
        "the turmoil world",
        "no rates, jitter, loss, queues or traces of cables, no transfer whose rate is judged or limited: such scenarios are refused \
         with the line; rates far above what is sent only delay packets, and are noted",
        "Nothing is measured there: it says where a scenario ends and what its shells do on the way.",
    ),
    limit(
        "turns-of-a-millisecond",
        "the turmoil world",
        "machines have their turn once a millisecond, one after the other; expectations of round trips below 10 ms are noted, not judged",
        "Of what two machines do within a millisecond either may come first, and a time may be a few milliseconds late.",
    ),
    limit(
        "tcp-of-the-simulator",
        "the turmoil world",
        "TCP is the simulator's own stack, whose segments cross routers as tunnelled packets; turmoil's own TCP and its delays by chance \
         are used nowhere",
        "Another opinion about tasks, timers and sockets, not about TCP.",
    ),
    limit(
        "router-programs-bare",
        "the turmoil world",
        "programs on routers (port mapping, a NAT64's resolver) are driven by the NAT beneath them, without a shell",
        "A gateway's software that crashes by itself is not played.",
    ),
];

/// The page of limits, as Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# What is not modelled\n\nA result of Punchbag says what would happen in the network that the model describes. \
         What follows is outside it.\nThis page is printed by `punchbag limits`.\n",
    );
    let mut area = "";
    for limit in LIMITS {
        if limit.area != area {
            area = limit.area;
            _ = write!(page, "\n## {area}\n\n| not modelled | so |\n|---|---|\n");
        }
        _ = writeln!(page, "| {} | {} |", limit.what, limit.so);
    }
    page
}
