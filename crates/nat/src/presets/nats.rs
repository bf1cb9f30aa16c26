//! NATs.

use std::time::Duration;

use super::Preset;
use crate::{
    Collision, Filtering, Hairpin, InputPolicy, LinuxConfig, Mapping, NatConfig, Pooling, PortAllocation,
    Timeouts, Translation, Unsolicited, WhenFull,
};

/// The types of RFC 3489 §5 differ in two axes only; the rest is what RFC 4787 asks for, except that hairpinning is
/// rare: 24 % of 335 NATs in Ford, Srisuresh and Kegel, USENIX 2005, Table 1.
const CLASSIC: NatConfig = NatConfig { hairpin: Hairpin::Off, ..NatConfig::RFC };

const SYMMETRIC: NatConfig = NatConfig {
    mapping: Mapping::AddressAndPortDependent,
    filtering: Filtering::AddressAndPortDependent,
    allocation: PortAllocation::Random,
    ..CLASSIC
};

const LINUX: LinuxConfig = LinuxConfig::MASQUERADE;

const CGN: NatConfig = NatConfig {
    filtering: Filtering::EndpointIndependent,
    allocation: PortAllocation::Random,
    ..NatConfig::RFC
};

/// The NATs.
pub const NATS: &[Preset<Translation>] = &[
    Preset {
        name: "rfc4787",
        about: "what the RFCs ask of a NAT: endpoint-independent mapping, address-dependent filtering, hairpinning",
        source: "RFC 4787 REQ-1, 5, 6, 8, 9; RFC 5382 REQ-5; RFC 5508 REQ-2",
        config: Translation::Axes(NatConfig::RFC),
    },
    Preset {
        name: "full-cone",
        about: "one external endpoint for each inside endpoint, open to everybody",
        source: "RFC 3489 section 5, in the terms of RFC 4787; timers of RFC 4787 REQ-5 and RFC 5382 REQ-5",
        config: Translation::Axes(NatConfig { filtering: Filtering::EndpointIndependent, ..CLASSIC }),
    },
    Preset {
        name: "restricted-cone",
        about: "one external endpoint for each inside endpoint, open to the addresses it has sent to",
        source: "RFC 3489 section 5, in the terms of RFC 4787; timers of RFC 4787 REQ-5 and RFC 5382 REQ-5",
        config: Translation::Axes(NatConfig { filtering: Filtering::AddressDependent, ..CLASSIC }),
    },
    Preset {
        name: "port-restricted-cone",
        about: "one external endpoint for each inside endpoint, open to the addresses and ports it has sent to",
        source: "RFC 3489 section 5, in the terms of RFC 4787; timers of RFC 4787 REQ-5 and RFC 5382 REQ-5",
        config: Translation::Axes(NatConfig { filtering: Filtering::AddressAndPortDependent, ..CLASSIC }),
    },
    Preset {
        name: "symmetric",
        about: "a new external endpoint for each destination, with a random port",
        source: "RFC 3489 section 5, in the terms of RFC 4787; timers of RFC 4787 REQ-5 and RFC 5382 REQ-5",
        config: Translation::Axes(SYMMETRIC),
    },
    Preset {
        name: "symmetric-sequential",
        about: "a new external endpoint for each destination, with the next port",
        source: "RFC 3489 section 5, in the terms of RFC 4787; RFC 5128 section 3.3 on predictable ports",
        config: Translation::Axes(NatConfig { allocation: PortAllocation::Sequential, ..SYMMETRIC }),
    },
    Preset {
        name: "linux",
        about: "netfilter masquerade behind an INPUT chain that drops: keeps ports, shares them between hosts",
        source: "Linux nf_nat_core.c (get_unique_tuple), nf_conntrack_proto_udp.c; timers from \
                 Documentation/networking/nf_conntrack-sysctl",
        config: Translation::Linux(LINUX),
    },
    Preset {
        name: "linux-naive",
        about: "the same behind an INPUT chain that accepts: a peer's early packet makes it change the port",
        source: "Linux nf_nat_core.c (get_unique_tuple), nf_conntrack_core.c; timers from \
                 Documentation/networking/nf_conntrack-sysctl",
        config: Translation::Linux(LinuxConfig { input: InputPolicy::Accept, ..LINUX }),
    },
    Preset {
        name: "linux-random",
        about: "netfilter masquerade with `random` or `fully-random`: another port for each destination",
        source: "Linux nf_nat_core.c (NF_NAT_RANGE_PROTO_RANDOM_ALL); timers from \
                 Documentation/networking/nf_conntrack-sysctl",
        config: Translation::Linux(LinuxConfig { random: true, ..LINUX }),
    },
    Preset {
        name: "cgn",
        about: "a carrier's NAT as the IETF wants it: open to everybody, hairpinning, ports hard to guess",
        source: "RFC 6888 REQ-1, 2, 7, 15; hairpinning through RFC 4787 REQ-9",
        config: Translation::Axes(CGN),
    },
    Preset {
        name: "cgn-no-hairpin",
        about: "the same, but its customers cannot reach each other through it",
        source: "RFC 6888 REQ-1, 2, 7, 15, without the hairpinning of RFC 4787 REQ-9",
        config: Translation::Axes(NatConfig { hairpin: Hairpin::Off, ..CGN }),
    },
    Preset {
        name: "pfsense",
        about: "pf with its default outbound rule: every source port is rewritten, for each destination anew",
        source: "pfSense documentation, Outbound NAT, static port; timers of pf \"normal\" in pfvar.h: UDP single 30 s \
                 and multiple 60 s, TCP opening 30 s, established 86400 s; icmp.first 20 s",
        config: Translation::Axes(NatConfig {
            timeouts: Timeouts {
                udp_unreplied: Duration::from_secs(30),
                udp_replied: Duration::from_secs(60),
                udp_replied_after: Duration::ZERO,
                tcp_transitory: Duration::from_secs(30),
                tcp_established: Duration::from_secs(86_400),
                icmp: Duration::from_secs(20),
            },
            tcp_pickup: false,
            ..SYMMETRIC
        }),
    },
    Preset {
        name: "aws-nat-gateway",
        about: "Amazon's NAT gateway: symmetric, and everything idle for 350 s is forgotten",
        source: "AWS VPC user guide, NAT gateways, troubleshooting: idle timeout of 350 seconds; the guide does not \
                 state mapping and filtering, taken as address and port dependent",
        config: Translation::Axes(NatConfig {
            timeouts: Timeouts::idle(Duration::from_secs(350)),
            tcp_pickup: false,
            ..SYMMETRIC
        }),
    },
    Preset {
        name: "azure-nat-gateway",
        about: "Microsoft's NAT gateway: symmetric, 4 minutes, used ports rest, unknown TCP is answered with a RST",
        source: "Microsoft Learn, Azure NAT Gateway resource: random ports; UDP and (by default) TCP idle timeout 4 \
                 minutes; port reuse 65 s after UDP; TCP reset for flows that do not exist. Mapping and filtering are not \
                 stated, taken as address and port dependent; ports are not given out twice here",
        config: Translation::Axes(NatConfig {
            timeouts: Timeouts::idle(Duration::from_secs(240)),
            hold_down: Duration::from_secs(65),
            unsolicited: Unsolicited::Rst,
            tcp_pickup: false,
            ..SYMMETRIC
        }),
    },
    Preset {
        name: "gcp-cloud-nat",
        about: "Google's Cloud NAT with endpoint-independent mapping switched on: 64 ports for each machine",
        source: "Google Cloud API reference, RouterNat: enableEndpointIndependentMapping, minPortsPerVm 64; UDP and ICMP \
                 idle timeout 30 s, TCP established 1200 s, transitory 30 s. Filtering is endpoint-dependent, taken as \
                 address and port dependent",
        config: Translation::Axes(NatConfig {
            filtering: Filtering::AddressAndPortDependent,
            allocation: PortAllocation::Random,
            block: 64,
            timeouts: Timeouts {
                tcp_transitory: Duration::from_secs(30),
                tcp_established: Duration::from_secs(1200),
                ..Timeouts::idle(Duration::from_secs(30))
            },
            tcp_pickup: false,
            ..CLASSIC
        }),
    },
    Preset {
        name: "cisco-ios",
        about: "a router's `ip nat inside source … overload`: keeps ports, else the first free one",
        source: "Cisco, ip nat translation: UDP 300 s, TCP 86400 s, SYN and FIN/RST 60 s, ICMP 60 s; port groups and \
                 preservation from the description of PAT. Mapping and filtering are not stated, taken as \
                 endpoint-independent, and as address and port dependent",
        config: Translation::Axes(NatConfig {
            filtering: Filtering::AddressAndPortDependent,
            timeouts: Timeouts {
                tcp_transitory: Duration::from_secs(60),
                tcp_established: Duration::from_secs(86_400),
                ..Timeouts::RFC
            },
            ..CLASSIC
        }),
    },
    Preset {
        name: "routeros",
        about: "MikroTik's masquerade: netfilter with timers of its own",
        source: "Linux nf_nat_core.c; /ip firewall connection tracking of RouterOS: udp-timeout 10 s, udp-stream-timeout \
                 180 s, tcp-established-timeout 1 day",
        config: Translation::Linux(LinuxConfig {
            timeouts: Timeouts {
                udp_unreplied: Duration::from_secs(10),
                udp_replied: Duration::from_secs(180),
                tcp_established: Duration::from_secs(86_400),
                ..Timeouts::LINUX
            },
            ..LINUX
        }),
    },
    Preset {
        name: "one-to-one",
        about: "an external address for each machine, all its ports open: a cloud machine's public address",
        source: "RFC 2663 section 4.1.1, Basic NAT",
        config: Translation::Axes(NatConfig {
            pooling: Pooling::OneToOne,
            filtering: Filtering::EndpointIndependent,
            ..NatConfig::RFC
        }),
    },
    Preset {
        name: "rfc5382",
        about: "what the RFCs ask of a NAT for TCP as well: an early SYN waits six seconds for its counterpart",
        source: "RFC 5382 REQ-1 to 10; RFC 4787 REQ-1, 4, 8; RFC 6888 REQ-8",
        config: Translation::Axes(NatConfig {
            parity: true,
            syn_hold: Duration::from_secs(6),
            hold_down: Duration::from_secs(120),
            ..NatConfig::RFC
        }),
    },
    Preset {
        name: "cgn-port-block",
        about: "a carrier's NAT that gives each of 128 customers of an address 504 ports, and rests used ones",
        source: "RFC 6888 REQ-1, 2, 4, 7, 8, 14; RFC 7422; 64512 ports / 128",
        config: Translation::Axes(NatConfig { block: 504, hold_down: Duration::from_secs(120), ..CGN }),
    },
    Preset {
        name: "cgn-cellular",
        about: "a mobile carrier's NAT of the stricter kind: symmetric, forgets after 65 s",
        source: "Richter et al., IMC 2016, section 6: 40 % of cellular carrier NATs are symmetric at their most \
                 permissive; median UDP timeout 65 s",
        config: Translation::Axes(NatConfig {
            timeouts: Timeouts {
                udp_unreplied: Duration::from_secs(65),
                udp_replied: Duration::from_secs(65),
                ..Timeouts::RFC
            },
            ..SYMMETRIC
        }),
    },
    Preset {
        name: "overloading",
        about: "keeps every port, even one that another machine has: both get what either is sent",
        source: "RFC 4787 section 4.2.1, port overloading, and REQ-3, which forbids it",
        config: Translation::Axes(NatConfig {
            collision: Collision::Overload,
            filtering: Filtering::AddressAndPortDependent,
            ..CLASSIC
        }),
    },
    Preset {
        name: "answers-rst",
        about: "answers what it does not let pass: RST to TCP, ICMP to UDP",
        source: "Guha and Francis, IMC 2005, on NATs that answer unsolicited SYNs with a RST; RFC 5382 section 4.3",
        config: Translation::Axes(NatConfig {
            filtering: Filtering::AddressAndPortDependent,
            unsolicited: Unsolicited::Rst,
            ..CLASSIC
        }),
    },
    Preset {
        name: "internal-source",
        about: "turns packets around with the sender's private address, so that the answer takes another way",
        source: "RFC 4787 section 6, hairpinning with internal source address and port, against REQ-9a",
        config: Translation::Axes(NatConfig { hairpin: Hairpin::InternalSource, ..NatConfig::RFC }),
    },
    Preset {
        name: "arbitrary-pool",
        about: "gives each mapping any of its addresses, and a port that depends on the destination",
        source: "RFC 4787 section 4.1, arbitrary pooling, and REQ-2, which advises against it",
        config: Translation::Axes(NatConfig { pooling: Pooling::Arbitrary, ..SYMMETRIC }),
    },
    Preset {
        name: "small-table",
        about: "an old home router: 1024 conversations, of which the oldest goes when another comes",
        source: "RFC 6888 REQ-11 D, which forbids it; RFC 7857 section 2 on resources",
        config: Translation::Axes(NatConfig {
            filtering: Filtering::AddressAndPortDependent,
            capacity: 1024,
            when_full: WhenFull::EvictOldest,
            ..CLASSIC
        }),
    },
];
