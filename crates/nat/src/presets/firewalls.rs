//! Firewalls.

use std::borrow::Cow;

use super::Preset;
use crate::{FirewallConfig, PortRange, Proto, Rule};

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
];
