//! Which translations a set of nftables rules does.

use std::net::IpAddr;

use nat::{
    Filtering, ForwardPolicy, Hairpin, InputPolicy, LinuxConfig, LinuxRule, Mapping, NatConfig, Pooling,
    PortAllocation, PortRange, Translation,
};

/// Why no set of rules does what a configuration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel has no rules for this NAT: {0}")]
pub struct NotExpressible(pub String);

/// As many ports as a map of a rule that computes them may list.
const COMPUTED_AT_MOST: u32 = 4096;

/// The kernel's rules for a translation on a router with these external addresses.
///
/// Axes become the rules that behave as they say: an endpoint-independent filter is a map from external ports to hosts,
/// an address-dependent one has a set of addresses beside it, and the strictest is what connection tracking does by
/// itself. What the axes do on a collision of ports differs: the kernel shares the port, or draws another.
///
/// # Errors
/// Where no rules do it, or not on this router.
pub fn express(translation: &Translation, external: &[IpAddr]) -> Result<LinuxConfig, NotExpressible> {
    let config = match translation {
        Translation::Linux(config) => config.clone(),
        Translation::Axes(axes) => axes_as_rules(axes)?,
        #[allow(unreachable_patterns, reason = "there may be more kinds of translation than these two")]
        other => return refuse(format!("it is no translation between two IPv4 networks ({other})")),
    };
    let mut addresses = Vec::new();
    for ip in external {
        match ip {
            IpAddr::V4(ip) => addresses.push(ip.to_bits()),
            IpAddr::V6(ip) => return refuse(format!("its external address {ip} is no IPv4 address")),
        }
    }
    if addresses.is_empty() {
        return refuse("it has no external address".to_owned());
    }
    if addresses.windows(2).any(|pair| pair[0].checked_add(1) != Some(pair[1]))
        && config.rule != LinuxRule::Static
    {
        return refuse("a pool is a range of addresses in a row".to_owned());
    }
    if config.rule.is_hash() || config.rule == LinuxRule::Sequential {
        let PortRange { low, high } = config.computed_ports();
        if low > high || u32::from(high - low) >= COMPUTED_AT_MOST {
            return refuse(format!("rule {} lists at most {COMPUTED_AT_MOST} ports", config.rule));
        }
        if config.random || config.persistent {
            return refuse(format!(
                "rule {} computes the port, so nothing is random or persistent",
                config.rule
            ));
        }
    }
    if config.hosts.iter().any(IpAddr::is_ipv6) {
        return refuse("a host has an IPv6 address".to_owned());
    }
    Ok(config)
}

fn refuse<T>(why: String) -> Result<T, NotExpressible> {
    Err(NotExpressible(why))
}

fn axes_as_rules(axes: &NatConfig) -> Result<LinuxConfig, NotExpressible> {
    let NatConfig { mapping, filtering, allocation, .. } = *axes;
    // What differs only in conditions that no rule is needed for: full tables, taken ports, ports opened on request.
    let known = NatConfig {
        mapping,
        filtering,
        allocation,
        collision: axes.collision,
        ports: axes.ports,
        pooling: axes.pooling,
        hairpin: axes.hairpin,
        timeouts: axes.timeouts,
        refresh_outbound: axes.refresh_outbound,
        refresh_inbound: axes.refresh_inbound,
        tcp_pickup: axes.tcp_pickup,
        mapped_outbound: axes.mapped_outbound,
        when_full: axes.when_full,
        exhausted: axes.exhausted,
        fragments: axes.fragments,
        capacity: axes.capacity,
        ..NatConfig::RFC
    };
    let foreign = [
        ("tcp-mapping", axes.tcp_mapping.is_some()),
        ("tcp-filtering", axes.tcp_filtering.is_some()),
        ("step", axes.step != known.step),
        ("other-traffic", axes.other_traffic != known.other_traffic),
        ("parity", axes.parity != known.parity),
        ("block", axes.block != known.block),
        ("unsolicited", axes.unsolicited != known.unsolicited),
        ("syn-hold", axes.syn_hold != known.syn_hold),
        ("hold-down", axes.hold_down != known.hold_down),
        ("host-quota", axes.host_quota != known.host_quota),
    ];
    let foreign: Vec<&str> = foreign.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if !foreign.is_empty() {
        return refuse(format!("netfilter's NAT has nothing like {}", foreign.join(", ")));
    }
    if *axes != known {
        return refuse("an axis that netfilter's NAT has nothing like is not as the RFCs ask".to_owned());
    }
    if axes.pooling == Pooling::OneToOne {
        // A map of ports would let in only those who come to a port that has been used.
        return refuse("pooling one-to-one; the rule \"static\" does it for hosts that it names".to_owned());
    }
    let hairpin = axes.hairpin == Hairpin::ExternalSource;
    let hairpins = hairpin || axes.hairpin == Hairpin::Off;
    if !hairpins {
        return refuse(format!("hairpin {}", axes.hairpin));
    }
    let ports = Some(axes.ports).filter(|ports| *ports != PortRange::UNPRIVILEGED);
    let rule = match (mapping, filtering) {
        (Mapping::EndpointIndependent, Filtering::EndpointIndependent) => LinuxRule::FullCone,
        (Mapping::EndpointIndependent, Filtering::AddressDependent) if hairpin => {
            return refuse("an address-dependent filter that hairpins".to_owned());
        }
        (Mapping::EndpointIndependent, Filtering::AddressDependent) => LinuxRule::RestrictedCone,
        (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent) => LinuxRule::Snat,
        (Mapping::AddressDependent, Filtering::AddressAndPortDependent) => LinuxRule::AddressHash,
        (Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent) => match allocation {
            PortAllocation::Sequential => LinuxRule::Sequential,
            _ => LinuxRule::Snat,
        },
        _ => return refuse(format!("mapping {mapping} with filtering {filtering}")),
    };
    if hairpin && rule != LinuxRule::FullCone {
        return refuse("hairpinning without a map from ports to hosts".to_owned());
    }
    let random = match (mapping, allocation) {
        (Mapping::AddressAndPortDependent, PortAllocation::Random) => true,
        (Mapping::AddressAndPortDependent, PortAllocation::Sequential) | (Mapping::AddressDependent, _) => {
            false
        }
        (Mapping::AddressAndPortDependent, other) => {
            return refuse(format!("mapping {mapping} with ports {other}"));
        }
        (_, PortAllocation::Preserving) => false,
        (_, other) => return refuse(format!("mapping {mapping} with ports {other}")),
    };
    if !(axes.refresh_inbound && axes.refresh_outbound) {
        return refuse("packets of one direction that refresh nothing".to_owned());
    }
    let computed = matches!(rule, LinuxRule::AddressHash | LinuxRule::Sequential);
    Ok(LinuxConfig {
        rule,
        ports,
        random,
        persistent: !computed && axes.pooling == Pooling::Paired,
        hairpin,
        input: InputPolicy::Drop,
        forward: if rule.has_map() { ForwardPolicy::Accept } else { ForwardPolicy::Drop },
        map_timeout: axes.timeouts.udp_replied,
        timeouts: axes.timeouts,
        tcp_pickup: axes.tcp_pickup,
        capacity: axes.capacity,
        ..LinuxConfig::MASQUERADE
    })
}
