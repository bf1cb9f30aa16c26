//! NATs.

use std::time::Duration;

use super::Preset;
use crate::{
    Filtering, Hairpin, InputPolicy, LinuxConfig, Mapping, NatConfig, PortAllocation, Timeouts, Translation,
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
];
