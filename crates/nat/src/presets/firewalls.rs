//! Firewalls.

use std::borrow::Cow;
use std::time::Duration;

use super::Preset;
use crate::{FirewallConfig, Inbound, InboundRefusal, PortRange, Portal, Proto, Refusal, Rule, Timeouts};

/// Plain web browsing.
const WEB: &[Rule] =
    &[Rule::ports(Proto::Tcp, PortRange::one(80)), Rule::ports(Proto::Tcp, PortRange::one(443))];

/// The firewalls.
pub const FIREWALLS: &[Preset<FirewallConfig>] = &[
    Preset {
        name: "open",
        about: "lets everything pass",
        source: "a host with a public address and no filter",
        config: FirewallConfig::OPEN,
    },
    Preset {
        name: "stateful",
        about: "lets only answers in",
        source: "netfilter's `ct state established,related accept; drop`; timers from \
                 Documentation/networking/nf_conntrack-sysctl",
        config: FirewallConfig::STATEFUL,
    },
    Preset {
        name: "udp-blocked",
        about: "lets only answers in, and no UDP in or out",
        source: "RFC 9308 section 2: 3 to 5 % of networks block all UDP",
        config: FirewallConfig { udp_blocked: true, ..FirewallConfig::STATEFUL },
    },
    Preset {
        name: "web-only",
        about: "lets TCP to ports 80 and 443 out, answers in, and nothing else",
        source: "the ports of http and https, RFC 9110 section 4.2",
        config: FirewallConfig { outbound: Some(Cow::Borrowed(WEB)), ..FirewallConfig::STATEFUL },
    },
    Preset {
        name: "tls-only",
        about: "as web-only, and what is no TLS on port 443 is cut off",
        source: "RFC 8446 section 4.1.2: a TLS connection begins with a ClientHello",
        config: FirewallConfig {
            outbound: Some(Cow::Borrowed(WEB)),
            tls: Cow::Borrowed(&[PortRange::one(443)]),
            answer: Refusal::Reset,
            ..FirewallConfig::STATEFUL
        },
    },
    Preset {
        name: "captive-portal",
        about: "lets nothing out but DNS and DHCP until its user has accepted its terms, 15 s after the first packet",
        source: "RFC 8952 section 2; the time is one that people need",
        config: FirewallConfig {
            portal: Portal::After(Duration::from_secs(15)),
            answer: Refusal::Reset,
            ..FirewallConfig::STATEFUL
        },
    },
    Preset {
        name: "rfc6092",
        about: "an IPv6 home router with simple security: whoever is spoken to by nobody is reached by nobody",
        source: "RFC 6092: REC-17 and 33 endpoint-independent filtering, REC-14 UDP 5 min, REC-35 TCP 2 h 4 min and 4 min, \
                 REC-34 ICMP after six seconds, REC-1 to 7 no bogons; RFC 5508 REQ-2 ICMP 60 s",
        config: FirewallConfig {
            inbound: Inbound::EndpointIndependent,
            answer_inbound: InboundRefusal::Late,
            bogons: false,
            timeouts: Timeouts::RFC,
            ..FirewallConfig::STATEFUL
        },
    },
];
