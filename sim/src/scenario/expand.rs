//! A scenario written out in full, so that it reads back to the same scenario.

use std::fmt::Write as _;

use link::LinkConfig;
use nat::{Hairpin, LinuxConfig, NatConfig, Timeouts, Translation};
use trace::FlowKind;

use super::model::{
    Access, Action, Attachment, AuthKey, Expect, Families, Ipv6, Membership, Place, ProxyLogin, Repeat,
    Scenario, Server, Traffic, UsedProxy, Way,
};
use super::value::{Refresh, Words as _};
use super::{filter, gateway, links, words};

/// The scenario as TOML with every default and preset written out.
///
/// Reading it again gives the same scenario, but for the hash of its text.
pub fn expanded(scenario: &Scenario) -> String {
    let mut out = String::new();
    key(&mut out, "title", &text(&scenario.title));
    if !scenario.why.is_empty() {
        key(&mut out, "why", &text(&scenario.why));
    }
    key(&mut out, "until", &duration(scenario.until));
    if !scenario.latency.is_empty() {
        out.push_str("\n[internet.latency]\n");
        for ((a, b), delay) in &scenario.latency {
            key(&mut out, &format!("{}.{}", name(a), name(b)), &duration(*delay));
        }
    }
    for (router, spec) in &scenario.routers {
        let _ = write!(out, "\n[router.{}]\n", name(router));
        attachment(&mut out, &spec.uplink);
        address(&mut out, spec.address);
        if spec.addresses != 1 {
            key(&mut out, "addresses", &spec.addresses.to_string());
        }
        if !spec.is_nat64() {
            key(&mut out, "lan", &format!("\"{}/{}\"", spec.lan.0, spec.lan.1));
        }
        key(
            &mut out,
            "nat",
            &spec.nat.as_ref().map_or_else(|| text("none"), |nat| nat_table(nat, &spec.nat_name)),
        );
        let filter = spec.firewall.as_ref();
        key(
            &mut out,
            "firewall",
            &filter.map_or_else(|| text("none"), |f| filter::table(f, &spec.firewall_name)),
        );
        key(&mut out, "gateway", &gateway::table(spec.gateway.as_ref()));
        key(&mut out, "link", &inline(&access(&spec.link)));
        if let Some(v6) = &spec.ipv6 {
            ipv6(&mut out, v6);
        }
    }
    for (host, spec) in &scenario.hosts {
        let _ = write!(out, "\n[host.{}]\n", name(host));
        attachment(&mut out, &spec.attached);
        address(&mut out, spec.address);
        key(&mut out, "link", &inline(&access(&spec.link)));
        key(&mut out, "start", &duration(spec.start));
        if let Some(UsedProxy { name, login }) = &spec.proxy {
            key(&mut out, "proxy", &text(name));
            let login = ProxyLogin::all().into_iter().find(|(_, known)| known == login);
            key(&mut out, "proxy-login", &word(login.map_or("right", |(word, _)| word)));
        }
        if let Some(auth_key) = &spec.auth_key {
            key(&mut out, "auth-key", &text(auth_key));
        }
        families(&mut out, spec.families, spec.address6);
        key(&mut out, "port-mapping", &spec.port_mapping.to_string());
        key(&mut out, "dont-fragment", &spec.dont_fragment.to_string());
        for (own, spec) in &spec.interfaces {
            let _ = write!(out, "\n[host.{}.interface.{}]\n", name(host), name(own));
            attachment(&mut out, &spec.attached);
            address(&mut out, spec.address);
            key(&mut out, "link", &inline(&access(&spec.link)));
            key(&mut out, "up", &spec.up.to_string());
        }
    }
    for (relay, spec) in &scenario.relays {
        let _ = write!(out, "\n[relay.{}]\n", name(relay));
        server(
            &mut out,
            &Server {
                region: spec.region.clone(),
                address: spec.address,
                link: spec.link.clone(),
                families: spec.families,
                address6: spec.address6,
                tls: spec.tls,
            },
        );
        key(&mut out, "tls", &spec.tls.to_string());
        if let Some(mesh) = &spec.mesh {
            key(&mut out, "mesh", &text(mesh));
        }
        key(&mut out, "admission", &word(if spec.members_only { "members" } else { "anyone" }));
    }
    for (stun, spec) in &scenario.stuns {
        let _ = write!(out, "\n[stun.{}]\n", name(stun));
        server(&mut out, spec);
    }
    for (proxy, spec) in &scenario.proxies {
        let _ = write!(out, "\n[proxy.{}]\n", name(proxy));
        attachment(&mut out, &spec.attached);
        address(&mut out, spec.address);
        key(&mut out, "link", &inline(&access(&spec.link)));
        key(&mut out, "port", &spec.port.to_string());
        let ports: Vec<String> = spec.connect_ports.iter().map(|ports| word(&ports.to_string())).collect();
        key(&mut out, "connect-ports", &format!("[{}]", ports.join(", ")));
        if let Some(credentials) = &spec.credentials {
            key(&mut out, "user", &text(credentials.user()));
            key(&mut out, "password", &text(credentials.password()));
        }
    }
    out.push_str("\n[coordinator]\n");
    server(&mut out, &scenario.coordinator);
    key(&mut out, "tls", &scenario.coordinator.tls.to_string());
    membership(&mut out, &scenario.membership);
    for flow in &scenario.traffic {
        out.push_str("\n[[traffic]]\n");
        traffic(&mut out, flow);
    }
    for timed in &scenario.timeline {
        out.push_str("\n[[at]]\n");
        key(&mut out, "time", &word(&words::when(timed.time)));
        if let Some(Repeat { every, times, until }) = timed.repeat {
            key(&mut out, "every", &word(&words::when(every)));
            if let Some(times) = times {
                key(&mut out, "times", &times.to_string());
            }
            if let Some(until) = until {
                key(&mut out, "until", &duration(until));
            }
        }
        action(&mut out, &timed.action);
    }
    for expect in &scenario.expect {
        out.push_str("\n[[expect]]\n");
        expectation(&mut out, expect);
    }
    out
}

fn key(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key} = {value}");
}

/// A TOML string.
fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A TOML key: names are bare keys already, regions of the scenario's own may be anything.
fn name(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { name.to_owned() } else { quoted(name) }
}

/// A key that is not bare: a basic string on one line.
fn quoted(name: &str) -> String {
    let mut out = String::from('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub(super) fn duration(value: std::time::Duration) -> String {
    format!("\"{}\"", words::duration(value))
}

fn attachment(out: &mut String, attachment: &Attachment) {
    match attachment {
        Attachment::Region(region) => key(out, "region", &text(region)),
        Attachment::Behind(router) => key(out, "behind", &text(router)),
    }
}

fn address(out: &mut String, address: Option<std::net::IpAddr>) {
    if let Some(address) = address {
        key(out, "address", &format!("\"{address}\""));
    }
}

fn membership(out: &mut String, membership: &Membership) {
    key(out, "admission", &text(if membership.approved { "approved" } else { "anyone" }));
    if let Some(lifetime) = membership.key_lifetime {
        key(out, "key-lifetime", &duration(lifetime));
    }
    key(out, "renewable", &membership.renewable.to_string());
    for (own, AuthKey { reusable, lifetime }) in &membership.auth_keys {
        let lifetime =
            lifetime.map_or_else(String::new, |lifetime| format!(", lifetime = {}", duration(lifetime)));
        key(out, &format!("auth-key.{}", name(own)), &format!("{{ reusable = {reusable}{lifetime} }}"));
    }
}

fn server(out: &mut String, server: &Server) {
    key(out, "region", &text(&server.region));
    address(out, server.address);
    key(out, "link", &inline(&access(&server.link)));
    families(out, server.families, server.address6);
}

/// The IP versions of a node; a scenario without IPv6 says nothing of them.
fn families(out: &mut String, families: Families, address6: Option<std::net::IpAddr>) {
    let word =
        Families::all().into_iter().find(|(_, known)| *known == families).map_or("ipv4", |(word, _)| word);
    key(out, "ip", &text(word));
    if let Some(address) = address6 {
        key(out, "address6", &format!("\"{address}\""));
    }
}

fn ipv6(out: &mut String, v6: &Ipv6) {
    let (way, prefix) = match v6.way {
        Way::Routed => ("routed", None),
        Way::Npt(_) => ("npt", None),
        Way::Nat64 { prefix } => ("nat64", Some(prefix)),
        Way::Clat { .. } => ("clat", None),
    };
    key(out, "ipv6", &text(way));
    key(out, "lan6", &format!("\"{}/{}\"", v6.lan.0, v6.lan.1));
    if let Some(address) = v6.address {
        key(out, "address6", &format!("\"{address}\""));
    }
    if let Some(prefix) = prefix {
        key(out, "nat64-prefix", &format!("\"{prefix}\""));
    }
    if let Some(filter6) = &v6.firewall {
        let rules = filter6.rules.as_ref();
        let rules = rules.map_or_else(|| text("none"), |rules| filter::table(rules, &filter6.name));
        key(out, "firewall6", &rules);
    }
}

pub(super) type Pairs = Vec<(&'static str, String)>;

pub(super) fn inline(pairs: &Pairs) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// The keys of a cable; those that no node has by itself only where they are given.
fn access(access: &Access) -> Pairs {
    let plain = LinkConfig::default();
    let mut pairs = every_key(access);
    let kept = |key: &str| {
        let given = |link: &LinkConfig| match key {
            "trace" => link.trace.is_some(),
            "delay-trace" => link.delays.is_some(),
            "delay-steps" => link.steps.is_some(),
            "aqm" => link.aqm != plain.aqm,
            "late" => link.late != plain.late,
            "duplicate" => link.duplicate != plain.duplicate,
            "corrupt" => link.corrupt != plain.corrupt,
            "mtu" => link.mtu.is_some(),
            "outages" => link.outages.is_some(),
            _ => true,
        };
        given(&access.down) || given(&access.up)
    };
    pairs.retain(|(key, _)| kept(key));
    pairs
}

/// Every key of a cable.
fn every_key(access: &Access) -> Pairs {
    let Access { down, up } = access;
    let each = |value: &dyn Fn(&LinkConfig) -> String| {
        let (down, up) = (value(down), value(up));
        if down == up { down } else { format!("{{ down = {down}, up = {up} }}") }
    };
    let file = |name: Option<&str>| text(name.unwrap_or(links::NONE));
    let share = |share: link::Share| word(&words::ratio(share.parts_per_billion()));
    let mut pairs = vec![
        ("down", word(&words::rate(down.rate_bps))),
        ("up", word(&words::rate(up.rate_bps))),
        ("trace", each(&|link| file(link.trace.as_ref().map(|trace| trace.name())))),
        ("delay", each(&|link| word(&links::delay(link)))),
        ("jitter", each(&|link| word(&links::jitter(&link.jitter)))),
        ("delay-trace", each(&|link| file(link.delays.as_ref().map(|delays| delays.name())))),
        ("delay-steps", links::steps(down.steps.as_ref())),
        ("queue", each(&|link| word(&words::queue(link.queue_bytes)))),
        ("aqm", each(&|link| word(&links::aqm(&link.aqm)))),
        ("loss", each(&|link| word(&links::loss(&link.loss)))),
        ("reorder", each(&|link| link.may_reorder.to_string())),
        ("late", each(&|link| word(&links::late(&link.late)))),
        ("duplicate", each(&|link| share(link.duplicate))),
        ("corrupt", each(&|link| share(link.corrupt))),
        ("mtu", each(&links::mtu)),
    ];
    // Only where there is an MTU.
    match (down.mtu, up.mtu) {
        (Some(_), Some(_)) => pairs.push(("pmtud", each(&|link| word(links::pmtud(link))))),
        (Some(_), None) => pairs.push(("pmtud", format!("{{ down = {} }}", word(links::pmtud(down))))),
        (None, Some(_)) => pairs.push(("pmtud", format!("{{ up = {} }}", word(links::pmtud(up))))),
        (None, None) => {}
    }
    pairs.push(("outages", links::outages(down.outages.as_ref())));
    pairs
}

/// A preset's name comes first: it says the same as the keys after it, and keeps the name.
pub(super) fn preset(name: &str) -> Pairs {
    if name == super::axes::CUSTOM { Vec::new() } else { vec![("preset", text(name))] }
}

pub(super) fn timeouts(timeouts: &Timeouts) -> Pairs {
    vec![
        ("udp-unreplied-timeout", duration(timeouts.udp_unreplied)),
        ("udp-replied-timeout", duration(timeouts.udp_replied)),
        ("udp-replied-after", duration(timeouts.udp_replied_after)),
        ("tcp-transitory-timeout", duration(timeouts.tcp_transitory)),
        ("tcp-established-timeout", duration(timeouts.tcp_established)),
        ("icmp-timeout", duration(timeouts.icmp)),
    ]
}

pub(super) fn word(word: &str) -> String {
    format!("\"{word}\"")
}

fn nat_table(nat: &Translation, name: &str) -> String {
    match nat {
        Translation::Axes(nat) => axes_table(nat, name),
        Translation::Linux(nat) => linux_table(nat, name),
    }
}

fn linux_table(nat: &LinuxConfig, name: &str) -> String {
    let mut pairs = preset(name);
    pairs.push(("rule", word(nat.rule.as_str())));
    if let Some(ports) = nat.ports {
        pairs.push(("port-range", word(&ports.to_string())));
    }
    let hairpin = if nat.hairpin { Hairpin::ExternalSource } else { Hairpin::Off };
    pairs.extend([
        ("random", nat.random.to_string()),
        ("persistent", nat.persistent.to_string()),
        ("hairpin", word(hairpin.as_str())),
        ("input", word(nat.input.as_str())),
        ("forward", word(nat.forward.as_str())),
    ]);
    if !nat.hosts.is_empty() {
        let hosts: Vec<String> = nat.hosts.iter().map(|host| word(&host.to_string())).collect();
        pairs.push(("hosts", format!("[{}]", hosts.join(", "))));
    }
    pairs.push(("map-timeout", duration(nat.map_timeout)));
    pairs.extend(timeouts(&nat.timeouts));
    pairs.extend([("tcp-pickup", nat.tcp_pickup.to_string()), ("capacity", nat.capacity.to_string())]);
    inline(&pairs)
}

fn axes_table(nat: &NatConfig, name: &str) -> String {
    let refresh = Refresh { outbound: nat.refresh_outbound, inbound: nat.refresh_inbound };
    let refresh =
        Refresh::all().into_iter().find(|(_, known)| *known == refresh).map_or("both", |(word, _)| word);
    let quota = match nat.host_quota {
        usize::MAX => text("unlimited"),
        quota => quota.to_string(),
    };
    let mut pairs = preset(name);
    pairs.extend([("mapping", word(nat.mapping.as_str())), ("filtering", word(nat.filtering.as_str()))]);
    pairs.extend(nat.tcp_mapping.map(|mapping| ("tcp-mapping", word(mapping.as_str()))));
    pairs.extend(nat.tcp_filtering.map(|filtering| ("tcp-filtering", word(filtering.as_str()))));
    pairs.extend([
        ("ports", word(nat.allocation.as_str())),
        ("collision", word(nat.collision.as_str())),
        ("step", nat.step.max(1).to_string()),
        ("other-traffic", format!("\"{}/s\"", nat.other_traffic)),
        ("parity", nat.parity.to_string()),
        ("block", nat.block.to_string()),
        ("port-range", word(&nat.ports.to_string())),
        ("pooling", word(nat.pooling.as_str())),
        ("hairpin", word(nat.hairpin.as_str())),
        ("unsolicited", word(nat.unsolicited.as_str())),
        ("syn-hold", duration(nat.syn_hold)),
    ]);
    pairs.extend(timeouts(&nat.timeouts));
    pairs.extend([
        ("refresh", word(refresh)),
        ("tcp-pickup", nat.tcp_pickup.to_string()),
        ("mapped-outbound", nat.mapped_outbound.to_string()),
        ("hold-down", duration(nat.hold_down)),
        ("host-quota", quota),
        ("exhausted", word(nat.exhausted.as_str())),
        ("fragments", word(nat.fragments.as_str())),
        ("capacity", nat.capacity.to_string()),
        ("when-full", word(nat.when_full.as_str())),
    ]);
    inline(&pairs)
}

fn traffic(out: &mut String, flow: &Traffic) {
    let kind = trace::FlowKind::all()
        .into_iter()
        .find(|(_, kind)| *kind == flow.kind)
        .map_or("ping", |(word, _)| word);
    key(out, "kind", &word(kind));
    key(out, "from", &text(&flow.from));
    key(out, "to", &text(&flow.to));
    key(out, "at", &duration(flow.at));
    if let Some(stop) = flow.stop {
        key(out, "stop", &duration(stop));
    }
    if flow.kind == FlowKind::Bulk {
        key(out, "bytes", &word(&words::size(flow.bytes)));
    } else {
        key(out, "interval", &duration(flow.interval));
        key(out, "size", &word(&words::size(u64::from(flow.size))));
    }
}

fn action(out: &mut String, action: &Action) {
    let (verb, pairs) = match action {
        Action::RebootRouter { router, off } => {
            ("reboot", vec![("router", text(router)), ("off", duration(*off))])
        }
        Action::FlushRouter { router } => ("flush", vec![("router", text(router))]),
        Action::RestartRelay { relay, off, drain } => {
            let drain = ("drain", drain.to_string());
            ("restart", vec![("relay", text(relay)), ("off", duration(*off)), drain])
        }
        Action::SetHealth { relay, says } => ("health", vec![("relay", text(relay)), ("says", text(says))]),
        Action::RestartCoordinator { off, keeps } => {
            let coordinator = ("coordinator", "true".to_owned());
            ("restart", vec![coordinator, ("off", duration(*off)), ("state", state(*keeps))])
        }
        Action::RestartHost { host, off, keeps } => {
            ("restart", vec![("host", text(host)), ("off", duration(*off)), ("state", state(*keeps))])
        }
        Action::Kill { node } => return key(out, "kill", &text(node)),
        Action::Revoke { host } => return key(out, "revoke", &text(host)),
        Action::Approve { host } => return key(out, "approve", &text(host)),
        Action::Rotate { host } => return key(out, "rotate", &text(host)),
        Action::SetAccess { access } => {
            let list = |words: Vec<String>| {
                let words: Vec<String> = words.iter().map(|word| text(word)).collect();
                format!("[{}]", words.join(", "))
            };
            let rules = access.rules.iter().map(|rule| {
                let names =
                    |side: &[coord::access::Selector]| list(side.iter().map(ToString::to_string).collect());
                let protocol = match rule.protocol {
                    coord::access::Protocol::Any => "any",
                    coord::access::Protocol::Tcp => "tcp",
                    coord::access::Protocol::Udp => "udp",
                    coord::access::Protocol::Icmp => "icmp",
                };
                let ports = match rule.ports.is_empty() {
                    true => String::new(),
                    false => {
                        format!(", ports = {}", list(rule.ports.iter().map(ToString::to_string).collect()))
                    }
                };
                let (from, to) = (names(&rule.from), names(&rule.to));
                format!("{{ from = {from}, to = {to}, protocol = {}{ports} }}", text(protocol))
            });
            let rules: Vec<String> = rules.collect();
            return key(out, "access", &format!("[{}]", rules.join(", ")));
        }
        Action::Crash { node, off } => ("crash", with("off", *off, vec![("node", text(node))])),
        Action::BlackHole { node, lasts } => ("black-hole", with("for", *lasts, vec![("node", text(node))])),
        Action::Slow { node, each, delay, queue, lasts } => {
            let delays = [("delay", duration(*delay)), ("each", duration(*each))];
            let mut pairs = vec![("node", text(node))];
            pairs.extend(delays);
            pairs.push(("queue", queue.to_string()));
            ("slow", with("for", *lasts, pairs))
        }
        Action::Cut { from, to, lasts } => {
            let mut pairs = vec![("from", places(from))];
            if !to.is_empty() {
                pairs.push(("to", places(to)));
            }
            ("cut", with("for", *lasts, pairs))
        }
        Action::ReaddressRouter { router, address, off } => {
            let mut pairs = vec![("router", text(router)), ("off", duration(*off))];
            pairs.extend(address.map(|address| ("address", format!("\"{address}\""))));
            ("readdress", pairs)
        }
        Action::SetNat { router, nat, name, keeps } => {
            let to = nat.as_ref().map_or_else(|| text("none"), |nat| nat_table(nat, name));
            ("nat", vec![("router", text(router)), ("to", to), ("state", state(*keeps))])
        }
        Action::MoveHost { host, interface, to, address, link, dead } => {
            let mut pairs = vec![("host", text(host))];
            if !interface.is_empty() {
                pairs.push(("interface", text(interface)));
            }
            let (Attachment::Region(to) | Attachment::Behind(to)) = to;
            pairs.push(("to", text(to)));
            pairs.extend(address.map(|address| ("address", format!("\"{address}\""))));
            pairs.extend([("link", inline(&access(link))), ("dead", duration(*dead))]);
            ("move", pairs)
        }
        Action::SetInterface { host, interface, up } => {
            let mut pairs = vec![("host", text(host))];
            if !interface.is_empty() {
                pairs.push(("name", text(interface)));
            }
            pairs.push(("up", up.to_string()));
            ("interface", pairs)
        }
        Action::Sleep { host, lasts } => ("sleep", vec![("host", text(host)), ("for", duration(*lasts))]),
        Action::SetClock { host, by, back } => {
            let by = format!("{}{}", if *back { '-' } else { '+' }, words::duration(*by));
            ("clock", vec![("host", text(host)), ("by", word(&by))])
        }
        Action::ChangeLink { node, link } => {
            let mut pairs = vec![("node", text(node))];
            pairs.extend(every_key(link));
            ("link", pairs)
        }
        Action::AcceptPortal { router } => ("accept-portal", vec![("router", text(router))]),
        Action::SetLink { node, up } => return key(out, if *up { "up" } else { "down" }, &text(node)),
        Action::SetFirewall { router, firewall, name } => {
            let rules =
                firewall.as_ref().map_or_else(|| text("none"), |firewall| filter::table(firewall, name));
            ("firewall", vec![("router", text(router)), ("rules", rules)])
        }
        Action::ChangeRules { router, change } => {
            let mut pairs = vec![("router", text(router))];
            for (list, rules) in [("outbound", &change.outbound), ("block", &change.block)] {
                if !rules.is_empty() {
                    pairs.push((list, filter::list(rules)));
                }
            }
            (if change.remove { "remove-rule" } else { "add-rule" }, pairs)
        }
    };
    key(out, verb, &inline(&pairs));
}

fn state(keeps: bool) -> String {
    word(if keeps { "kept" } else { "lost" })
}

fn with(key: &'static str, lasts: Option<std::time::Duration>, mut pairs: Pairs) -> Pairs {
    pairs.extend(lasts.map(|lasts| (key, duration(lasts))));
    pairs
}

fn places(places: &[Place]) -> String {
    let names: Vec<String> =
        places.iter().map(|(Place::Region(name) | Place::Node(name))| text(name)).collect();
    format!("[{}]", names.join(", "))
}

fn expectation(out: &mut String, expect: &Expect) {
    let Expect {
        pair,
        path,
        first_data_within,
        direct_within,
        lost_at_most,
        lost_at_least,
        recovers_within,
        rtt_at_most,
        rtt_at_least,
        goodput_at_least_bps,
        goodput_at_most_bps,
        completes,
    } = expect;
    let pairs = [
        ("pair", pair.as_ref().map(|(a, b)| format!("[{}, {}]", text(a), text(b)))),
        ("path", path.map(|path| word(path.map_or("none", trace::Path::as_str)))),
        ("first-data-within", first_data_within.map(duration)),
        ("direct-within", direct_within.map(duration)),
        ("lost-at-most", lost_at_most.map(|lost| lost.to_string())),
        ("lost-at-least", lost_at_least.map(|lost| lost.to_string())),
        ("recovers-within", recovers_within.map(duration)),
        ("rtt-at-most", rtt_at_most.map(duration)),
        ("rtt-at-least", rtt_at_least.map(duration)),
        ("goodput-at-least", goodput_at_least_bps.map(|rate| word(&words::rate(Some(rate))))),
        ("goodput-at-most", goodput_at_most_bps.map(|rate| word(&words::rate(Some(rate))))),
        ("completes", completes.map(|completes| completes.to_string())),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            key(out, name, &value);
        }
    }
}
