//! A configuration as the text that `nft -f` reads.

use std::fmt::Write as _;
use std::net::IpAddr;

use nat::{ForwardPolicy, HASH_SEED, InputPolicy, LinuxConfig, LinuxRule};

/// The rules of a router with these external addresses, for devices called `lan` and `wan`.
///
/// Whatever the policies, answers pass, what connection tracking calls invalid does not, and the inside may not talk to
/// the router's external addresses unless the rule hairpins.
pub fn ruleset(config: &LinuxConfig, external: &[IpAddr]) -> String {
    let mut out = String::from("table ip box {\n");
    let chain = |out: &mut String, name: &str, hook: &str, rules: &[String]| {
        let _ = writeln!(out, "  chain {name} {{\n    type {hook}");
        for rule in rules {
            let _ = writeln!(out, "    {rule}");
        }
        out.push_str("  }\n");
    };
    // What `KernelNat::map` fills.
    out.push_str(
        "  map redirections { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }\n  \
         set redirected { type inet_proto . ipv4_addr . inet_service; }\n",
    );
    if config.rule.has_map() {
        out.push_str(
            "  map hosts { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; size 65535; \
             flags dynamic; }\n  set contacted { type inet_proto . ipv4_addr . inet_service . ipv4_addr; \
             size 65535; flags dynamic; }\n",
        );
    }
    let known = ["ct state invalid drop".to_owned(), "ct state established,related accept".to_owned()];
    let reject = ["meta l4proto tcp reject with tcp reset", "reject with icmp type port-unreachable"];
    let mut input = known.to_vec();
    input.push("iifname \"lan\" drop".to_owned());
    match config.input {
        InputPolicy::Drop => {}
        InputPolicy::Accept => input.push("accept".to_owned()),
        InputPolicy::Reject => input.extend(reject.map(str::to_owned)),
    }
    chain(&mut out, "input", "filter hook input priority 0; policy drop;", &input);

    let mut forward = known.to_vec();
    if config.rule == LinuxRule::Static {
        let hosts: Vec<String> = config.hosts.iter().take(external.len()).map(IpAddr::to_string).collect();
        match hosts.is_empty() {
            true => forward.push("iifname \"lan\" drop".to_owned()),
            false => forward.push(format!("iifname \"lan\" ip saddr != {{ {} }} drop", hosts.join(", "))),
        }
    }
    forward.push("iifname \"lan\" accept".to_owned());
    forward.push("ct mark 1 accept".to_owned());
    match config.forward {
        ForwardPolicy::Drop => {}
        ForwardPolicy::Accept => forward.push("accept".to_owned()),
        ForwardPolicy::Reject => forward.extend(reject.map(str::to_owned)),
    }
    chain(&mut out, "forward", "filter hook forward priority 0; policy drop;", &forward);
    chain(&mut out, "before", "nat hook prerouting priority dstnat;", &destination(config, external));
    chain(&mut out, "after", "nat hook postrouting priority srcnat;", &source(config, external));
    if config.rule.has_map() {
        let endpoint = "meta l4proto . ct reply ip daddr . ct reply proto-dst";
        let host = "ct original ip saddr . ct original proto-src";
        let learn = format!(
            "iifname \"lan\" ct direction original ct status snat meta l4proto {{ tcp, udp }} \
             update @hosts {{ {endpoint} : {host} }} update @contacted {{ {endpoint} . ct reply ip saddr }}"
        );
        chain(&mut out, "learn", "filter hook postrouting priority 101;", &[learn]);
    }
    out.push_str("}\n");
    out
}

/// The rules of destination NAT.
fn destination(config: &LinuxConfig, external: &[IpAddr]) -> Vec<String> {
    let from = if config.hairpin { "" } else { "iifname \"wan\" " };
    let redirected = format!(
        "{from}meta l4proto {{ tcp, udp }} meta l4proto . ip daddr . th dport @redirected ct mark set 1 \
         dnat to meta l4proto . ip daddr . th dport map @redirections"
    );
    let rule = match config.rule {
        LinuxRule::FullCone => {
            "meta l4proto { tcp, udp } dnat to meta l4proto . ip daddr . th dport map @hosts".to_owned()
        }
        LinuxRule::RestrictedCone => {
            "meta l4proto { tcp, udp } meta l4proto . ip daddr . th dport . ip saddr @contacted \
             dnat to meta l4proto . ip daddr . th dport map @hosts"
                .to_owned()
        }
        LinuxRule::Static => match pairs(config, external, |host, external| format!("{external} : {host}")) {
            pairs if pairs.is_empty() => return vec![redirected],
            pairs => format!("dnat to ip daddr map {{ {pairs} }}"),
        },
        _ => return vec![redirected],
    };
    vec![redirected, format!("{from}{rule}")]
}

/// The rules of source NAT.
fn source(config: &LinuxConfig, external: &[IpAddr]) -> Vec<String> {
    let [first, .., last] = external else {
        return external.first().map_or_else(Vec::new, |only| sources(config, external, &only.to_string()));
    };
    let pool = match config.rule {
        LinuxRule::Masquerade => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    sources(config, external, &pool)
}

fn sources(config: &LinuxConfig, external: &[IpAddr], pool: &str) -> Vec<String> {
    let flags: Vec<&str> = [(config.random, "random"), (config.persistent, "persistent")]
        .into_iter()
        .filter_map(|(on, word)| on.then_some(word))
        .collect();
    let flags = flags.join(",");
    let target = |ports: &str| match (config.rule, ports) {
        (LinuxRule::Masquerade, "") => format!("masquerade {flags}"),
        (LinuxRule::Masquerade, ports) => format!("masquerade to :{ports} {flags}"),
        (_, "") => format!("snat to {pool} {flags}"),
        (_, ports) => format!("snat to {pool}:{ports} {flags}"),
    };
    let mut rules = Vec::new();
    if config.rule == LinuxRule::Static {
        let pairs = pairs(config, external, |host, external| format!("{host} : {external}"));
        if !pairs.is_empty() {
            rules.push(format!("snat to ip saddr map {{ {pairs} }}"));
        }
    } else {
        if let Some(port) = computed(config) {
            rules.push(format!("meta l4proto {{ tcp, udp }} snat to {pool} : {port}"));
        } else if let Some(ports) = config.ports {
            rules.push(format!("meta l4proto {{ tcp, udp }} {}", target(&ports.to_string())));
        }
        rules.push(target(""));
    }
    // Back inside goes only what destination NAT has turned around; there is nothing to masquerade as.
    let turned = rules.iter().filter(|_| config.hairpin && config.rule != LinuxRule::Masquerade);
    let turned: Vec<String> =
        turned.map(|rule| format!("iifname \"lan\" oifname \"lan\" ct status dnat {rule}")).collect();
    rules.into_iter().map(|rule| format!("iifname \"lan\" oifname \"wan\" {rule}")).chain(turned).collect()
}

/// The expression of the rules that compute a port. It goes through a map since the hash and the counter are in the
/// machine's byte order and ports are not.
fn computed(config: &LinuxConfig) -> Option<String> {
    let ports = config.computed_ports();
    let size = u32::from(ports.high.checked_sub(ports.low)?) + 1;
    let what = match config.rule {
        LinuxRule::EndpointHash => "ip saddr . th sport",
        LinuxRule::AddressHash => "ip saddr . th sport . ip daddr",
        LinuxRule::EndpointsHash => "ip saddr . th sport . ip daddr . th dport",
        LinuxRule::Sequential => "",
        _ => return None,
    };
    let number = match config.rule {
        LinuxRule::Sequential => format!("numgen inc mod {size}"),
        _ => format!("jhash {what} mod {size} seed {HASH_SEED:#x}"),
    };
    let elements: Vec<String> =
        (ports.low..=ports.high).enumerate().map(|(i, port)| format!("{i} : {port}")).collect();
    Some(format!("{number} map {{ {} }}", elements.join(", ")))
}

fn pairs(config: &LinuxConfig, external: &[IpAddr], pair: impl Fn(&IpAddr, &IpAddr) -> String) -> String {
    let pairs: Vec<String> =
        config.hosts.iter().zip(external).map(|(host, external)| pair(host, external)).collect();
    pairs.join(", ")
}
