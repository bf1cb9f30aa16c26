//! From the sections of a file to a scenario: names, places, defaults.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};

use super::admission::Served;
use super::axes::{self, take};
use super::error::{Problems, suggest};
use super::filter::{self, Named};
use super::model::{Access, Attachment, Families, Host, Interface, Relay, Router, Scenario, Server};
use super::read::{Item, Sections};
use super::value::{Ordered, Val, Word};
use super::{cable, file, gateway, ipv6, prefix, regions, words};
use crate::topology::Topology;

/// Most routers, and most hosts, of a scenario.
pub const MAX_NODES: usize = 2_000;
/// Most servers of one kind.
pub const MAX_SERVERS: usize = 100;
/// Most interfaces of a host beyond its first.
const MAX_INTERFACES: usize = 7;
/// Most regions in use.
const MAX_REGIONS: usize = 64;
/// Longest run.
pub(super) const MAX_UNTIL: Duration = Duration::from_secs(24 * 3600);

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Router,
    Host,
    Interface,
    Relay,
    Stun,
    Proxy,
    Coordinator,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Router => "router",
            Kind::Host => "host",
            Kind::Interface => "interface",
            Kind::Relay => "relay",
            Kind::Stun => "STUN server",
            Kind::Proxy => "proxy",
            Kind::Coordinator => "coordination server",
        }
    }
}

/// What is known while a scenario is put together.
pub(super) struct Builder<'p, 't> {
    pub(super) problems: &'p mut Problems<'t>,
    /// Every name in use, those of counted hosts expanded.
    pub(super) names: IndexMap<String, Kind>,
    /// Base names of hosts, and the hosts each stands for.
    pub(super) groups: IndexMap<String, Vec<String>>,
    /// Regions in use, canonical, and where each is first named.
    pub(super) regions: IndexMap<String, Range<usize>>,
    /// Names in the rules of firewalls.
    pub(super) named: Named,
    /// What a node on the internet has.
    internet: Families,
    /// Names of the pre-authentication keys.
    pub(super) auth_keys: Vec<String>,
}

/// A router whose inside network is not settled yet.
struct Waiting {
    router: Router,
    /// What the file says of its inside network, and where.
    lan: Option<(IpAddr, u8)>,
    span: Range<usize>,
    v6: Option<ipv6::Wanted>,
}

/// Puts a scenario together; it is only good if no problem was noted.
pub(super) fn build(name: &str, hash: String, sections: Sections, problems: &mut Problems<'_>) -> Scenario {
    let mut builder = Builder {
        problems,
        names: IndexMap::new(),
        groups: IndexMap::new(),
        regions: IndexMap::new(),
        named: Named::new(),
        internet: Families::V4,
        auth_keys: Vec::new(),
    };
    builder.scenario(name, hash, sections)
}

impl Builder<'_, '_> {
    fn scenario(&mut self, name: &str, hash: String, sections: Sections) -> Scenario {
        let Sections {
            title,
            why,
            until,
            internet,
            routers,
            hosts,
            relays,
            stuns,
            proxies,
            coordinator,
            traffic,
            at,
            expect,
        } = sections;
        if title.is_none() && self.problems.is_empty() {
            self.problems.add(0..0, "the scenario has no title", "begin with: title = \"…\"");
        }
        let title = take(title, self.problems).unwrap_or_default();
        let why = take(why, self.problems).unwrap_or_default();
        let until = self.until(until);
        let latency = self.latency(internet);

        for item in &proxies {
            self.declare(&item.name, Kind::Proxy, &item.span);
        }
        if let Some(item) = proxies.get(MAX_SERVERS) {
            self.problems.add(item.span.clone(), format!("more than {MAX_SERVERS} proxies"), "");
        }
        self.declare_all(&routers, &hosts, &relays, &stuns);
        let mut spans = spans(&routers, &hosts, &relays, &stuns);
        spans.extend(proxies.iter().map(|item| (item.name.clone(), item.span.clone())));
        let mut coordinator = coordinator.and_then(|item| item.value).unwrap_or_default();
        if has_ipv6(&routers, &hosts, relays.iter().chain(&stuns)) || is_v6(&coordinator.ip) {
            self.internet = Families::Dual;
        }
        let membership = self.membership(&mut coordinator);
        self.auth_keys = membership.auth_keys.keys().cloned().collect();
        let routers = self.routers(routers);
        let hosts = self.hosts(hosts, &routers);
        let proxies = self.proxies(proxies);
        let first =
            self.regions.keys().next().cloned().unwrap_or_else(|| regions::REGIONS[4].name.to_owned());
        let relays = self.relays(relays, &first);
        let stuns = self.stuns(stuns, &first, relays.len());
        let coordinator = self.server(coordinator.take_server(), &first);

        let mut scenario = Scenario {
            name: name.to_owned(),
            title,
            why,
            hash,
            until,
            latency,
            routers,
            hosts,
            relays,
            stuns,
            proxies,
            coordinator,
            membership,
            traffic: Vec::new(),
            timeline: Vec::new(),
            expect: Vec::new(),
        };
        if scenario.hosts.len() < 2 && self.problems.is_empty() {
            self.problems.add(
                0..0,
                "a scenario needs two hosts",
                "write [host.NAME] with behind = \"ROUTER\", twice",
            );
        }
        self.story(&mut scenario, traffic, at, expect);
        self.check_regions(&scenario.latency);
        filter::check_names(&self.named, &self.names.keys().map(String::as_str), self.problems);
        self.check_addresses(&scenario, &spans);
        scenario
    }

    /// Addresses that collide, or do not belong where they are.
    fn check_addresses(&mut self, scenario: &Scenario, spans: &IndexMap<String, Range<usize>>) {
        if !self.problems.is_empty() {
            return;
        }
        if let Err(error) = Topology::new(scenario) {
            let node = error.node().unwrap_or_default();
            // An interface stands where its host does, wherever it moves: phone.cell@cafe; and laptop-7 where laptop does.
            let node = node.split(['@', '.']).next().unwrap_or(node);
            let base = node.rsplit_once('-').map_or(node, |(base, _)| base);
            let span = spans.get(node).or_else(|| spans.get(base)).cloned().unwrap_or(0..0);
            self.problems.add(span, error.to_string(), "change its address or lan, or leave them away");
        }
    }

    fn until(&mut self, until: Option<Val<Duration>>) -> Duration {
        let span = until.as_ref().map_or(0..0, |value| value.span.clone());
        let until = take(until, self.problems).unwrap_or(Duration::from_secs(30));
        if until.is_zero() || until > MAX_UNTIL {
            self.problems.add(
                span,
                "a run lasts more than nothing and at most a day",
                "write for example until = \"30s\"",
            );
        }
        until
    }

    /// Delays of the scenario's own, under canonical names in sorted order.
    fn latency(&mut self, internet: Option<file::Internet>) -> IndexMap<(String, String), Duration> {
        let mut latency = BTreeMap::new();
        for (a, row) in internet.map(|internet| internet.latency).unwrap_or_default() {
            for (b, delay) in row {
                let span = delay.span.clone();
                let Some(delay) = take(Some(delay), self.problems) else { continue };
                let (a, b) = (regions::canonical(&a), regions::canonical(&b));
                let key = if a <= b { (a, b) } else { (b, a) };
                let key = (key.0.to_owned(), key.1.to_owned());
                if let Some(before) = latency.insert(key, delay)
                    && before != delay
                {
                    let message = format!("the delay between `{a}` and `{b}` is given twice");
                    self.problems.add(span, message, "it holds for both directions: give it once");
                }
            }
        }
        latency.into_iter().collect()
    }

    // ---- names ------------------------------------------------------------------------------

    fn declare_all(
        &mut self,
        routers: &[Item<file::Router>],
        hosts: &[Item<file::Host>],
        relays: &[Item<file::Server>],
        stuns: &[Item<file::Server>],
    ) {
        self.names.insert("coordinator".to_owned(), Kind::Coordinator);
        for item in routers {
            self.declare(&item.name, Kind::Router, &item.span);
        }
        for item in relays {
            self.declare(&item.name, Kind::Relay, &item.span);
        }
        for item in stuns {
            self.declare(&item.name, Kind::Stun, &item.span);
        }
        let mut total = 0;
        for item in hosts {
            let count = item.value.as_ref().and_then(|host| host.count.as_ref());
            let members = match count {
                None => vec![item.name.clone()],
                Some(Val { value: Ok(count), span }) => {
                    let fitting =
                        usize::try_from(*count).ok().filter(|count| (1..=MAX_NODES).contains(count));
                    let Some(count) = fitting else {
                        self.problems.add(
                            span.clone(),
                            format!("{count} hosts"),
                            format!("write 1 to {MAX_NODES}"),
                        );
                        continue;
                    };
                    (1..=count).map(|i| format!("{}-{i}", item.name)).collect()
                }
                Some(Val { value: Err(bad), span }) => {
                    self.problems.bad(span.clone(), bad.clone());
                    continue;
                }
            };
            total += members.len();
            if total > MAX_NODES {
                self.problems.add(item.span.clone(), format!("more than {MAX_NODES} hosts"), "");
                return;
            }
            for member in &members {
                self.declare(member, Kind::Host, &item.span);
            }
            self.groups.insert(item.name.clone(), members);
        }
        for (items, what, most, span) in [
            (routers.len(), "routers", MAX_NODES, routers.last().map(|item| &item.span)),
            (relays.len(), "relays", MAX_SERVERS, relays.last().map(|item| &item.span)),
            (stuns.len(), "STUN servers", MAX_SERVERS, stuns.last().map(|item| &item.span)),
        ] {
            if let Some(span) = span
                && items > most
            {
                self.problems.add(span.clone(), format!("more than {most} {what}"), "");
            }
        }
    }

    fn declare(&mut self, name: &str, kind: Kind, span: &Range<usize>) {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 63 || name.starts_with('-') || !name.chars().all(fits) {
            let help = "use letters, digits, `-` and `_`, at most 63";
            self.problems.add(span.clone(), format!("`{}` is no name", name.escape_debug()), help);
        }
        if name == "internet" {
            self.problems.add(
                span.clone(),
                "`internet` is the name of what lies between the regions",
                "choose another",
            );
        }
        if let Some(before) = self.names.insert(name.to_owned(), kind) {
            let message = format!("`{name}` is already the name of a {}", before.as_str());
            self.problems.add(span.clone(), message, "every node needs a name of its own");
        }
    }

    /// Checks that `name` is one of the `wanted` kinds.
    pub(super) fn refer(&mut self, name: Val<String>, wanted: &[Kind]) -> Option<String> {
        let span = name.span.clone();
        let name = take(Some(name), self.problems)?;
        match self.names.get(&name) {
            Some(kind) if wanted.contains(kind) => Some(name),
            found => {
                let what: Vec<&str> = wanted.iter().map(|kind| kind.as_str()).collect();
                let known = self
                    .names
                    .iter()
                    .filter(|(_, kind)| wanted.contains(kind))
                    .map(|(name, _)| name.as_str());
                let help = suggest(&name, known);
                let message = match found {
                    Some(kind) => format!("`{name}` is a {}, not a {}", kind.as_str(), what.join(" or ")),
                    None => format!("there is no {} `{name}`", what.join(" or ")),
                };
                self.problems.add(span, message, help);
                None
            }
        }
    }

    // ---- places -----------------------------------------------------------------------------

    pub(super) fn attachment(
        &mut self,
        at: &Range<usize>,
        region: Option<Val<String>>,
        behind: Option<Val<String>>,
    ) -> Option<Attachment> {
        match (region, behind) {
            (Some(region), None) => self.region(region).map(Attachment::Region),
            (None, Some(behind)) => self.refer(behind, &[Kind::Router]).map(Attachment::Behind),
            (None, None) => {
                self.problems.add(
                    at.clone(),
                    "it is attached to nothing",
                    "write region = \"eu-west\" for the internet, or behind = \"ROUTER\"",
                );
                None
            }
            (Some(_), Some(behind)) => {
                let help = "leave region away: it follows from the router";
                self.problems.add(behind.span, "it is in a region and behind a router", help);
                None
            }
        }
    }

    fn region(&mut self, region: Val<String>) -> Option<String> {
        let span = region.span.clone();
        let region = take(Some(region), self.problems)?;
        let region = regions::canonical(&region).to_owned();
        self.regions.entry(region.clone()).or_insert(span);
        Some(region)
    }

    /// Every two regions in use must have a delay.
    fn check_regions(&mut self, latency: &IndexMap<(String, String), Duration>) {
        if let Some((_, span)) = self.regions.get_index(MAX_REGIONS) {
            self.problems.add(span.clone(), format!("more than {MAX_REGIONS} regions"), "");
            return;
        }
        for (a, span) in &self.regions {
            if regions::index(a).is_some() {
                continue;
            }
            if !latency.keys().any(|(x, y)| x == a || y == a) {
                let help = suggest(a, regions::REGIONS.iter().flat_map(|region| [region.name, region.alias]));
                self.problems.add(
                    span.clone(),
                    format!("there is no region `{a}`"),
                    format!("{help}; a region of your own needs its delays: [internet.latency] {a}.eu-west = \"40ms\""),
                );
                continue;
            }
            for b in self.regions.keys().filter(|b| *b != a) {
                let key = if a < b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
                if !latency.contains_key(&key) {
                    self.problems.add(
                        span.clone(),
                        format!("no delay is known between `{a}` and `{b}`"),
                        format!("write [internet.latency] {a}.{b} = \"40ms\""),
                    );
                }
            }
        }
    }

    fn routers(&mut self, items: Vec<Item<file::Router>>) -> IndexMap<String, Router> {
        let has_routers: IndexSet<String> = items
            .iter()
            .filter_map(|item| item.value.as_ref()?.behind.as_ref()?.value.clone().ok())
            .collect();
        let mut waiting = IndexMap::new();
        for Item { name, span, value } in items {
            let Some(mut spec) = value else { continue };
            let v6 = ipv6::Wanted::read(&mut spec, &span, &mut self.named, self.problems);
            let uplink = self.attachment(&span, spec.region, spec.behind);
            let (nat, nat_name) = axes::nat(spec.nat, self.problems);
            let (firewall, firewall_name) = filter::firewall(spec.firewall, &mut self.named, self.problems);
            let gateway = gateway::gateway(spec.gateway, self.problems);
            let link = cable::access(spec.link, &cable::uplink(), self.problems);
            let lan_span = spec.lan.as_ref().map_or(span.clone(), |lan| lan.span.clone());
            let lan = take(spec.lan, self.problems).map(|lan| lan.0);
            let address = take(spec.address, self.problems);
            let addresses = self.pool(spec.addresses);
            let Some(uplink) = uplink else { continue };
            let router = Router {
                uplink,
                address,
                addresses,
                // Settled below, when the network outside is known.
                lan: lan.unwrap_or((IpAddr::from([0, 0, 0, 0]), 0)),
                nat,
                nat_name,
                firewall,
                firewall_name,
                gateway,
                link,
                ipv6: None,
            };
            waiting.insert(name, Waiting { router, lan, span: lan_span, v6 });
        }
        self.outer_first(waiting, &has_routers)
    }

    /// How many addresses a router has.
    fn pool(&mut self, addresses: Option<Val<u64>>) -> u32 {
        let span = addresses.as_ref().map_or(0..0, |addresses| addresses.span.clone());
        match take(addresses, self.problems) {
            None => 1,
            Some(count @ 1..=256) => count as u32,
            Some(count) => {
                self.problems.add(span, format!("a router cannot have {count} addresses"), "write 1 to 256");
                1
            }
        }
    }

    /// Puts outer routers before inner ones, and settles their inside networks on the way.
    fn outer_first(
        &mut self,
        mut waiting: IndexMap<String, Waiting>,
        has_routers: &IndexSet<String>,
    ) -> IndexMap<String, Router> {
        let mut sorted: IndexMap<String, Router> = IndexMap::new();
        // Routers whose inside is part of the internet, and how many pass addresses on at all.
        let mut public: IndexSet<String> = IndexSet::new();
        let mut routed = 0;
        // Routers with IPv6.
        let mut delegated = 0;
        while !waiting.is_empty() {
            let (ready, later): (IndexMap<_, _>, IndexMap<_, _>) =
                waiting.into_iter().partition(|(_, Waiting { router, .. })| match &router.uplink {
                    Attachment::Region(_) => true,
                    Attachment::Behind(outer) => sorted.contains_key(outer),
                });
            if ready.is_empty() {
                // A loop, or behind a router that could not be read, which has been noted.
                for (name, Waiting { router, span, .. }) in &later {
                    let Attachment::Behind(outer) = &router.uplink else { continue };
                    if later.contains_key(outer) {
                        let message = format!("router `{name}` is behind `{outer}`, which leads back to it");
                        self.problems.add(span.clone(), message, "give one of them a region");
                        break;
                    }
                }
                return sorted;
            }
            for (name, Waiting { mut router, lan, span, v6 }) in ready {
                let outer = match &router.uplink {
                    Attachment::Region(_) => None,
                    Attachment::Behind(outer) => sorted.get(outer),
                };
                let below_nat64 = outer.is_some_and(Router::is_nat64);
                if below_nat64 && v6.is_none() {
                    let message = format!("router `{name}` has no IPv4 to attach to: it is behind a NAT64");
                    self.problems.add(span.clone(), message, "write ipv6 = \"clat\"");
                }
                router.ipv6 = v6.and_then(|v6| {
                    delegated += 1;
                    v6.settle(&router, outer, delegated, self.problems)
                });
                let (outside, on_internet) = match &router.uplink {
                    Attachment::Region(_) => (None, true),
                    Attachment::Behind(outer) => {
                        (sorted.get(outer).map(|outer| outer.lan), public.contains(outer))
                    }
                };
                if on_internet && router.nat.is_none() && !below_nat64 {
                    public.insert(name.clone());
                }
                let nat64 = router.ipv6.as_ref().filter(|_| router.is_nat64());
                router.lan = match (nat64.map(|v6| v6.lan), lan) {
                    (Some(lan), _) | (None, Some(lan)) => lan,
                    // A customer-side translator gives each address inside one of its own, and yet hides them.
                    _ if router.nat.is_none() && router.ipv6.as_ref().is_none_or(|v6| !v6.hides_v4()) => {
                        routed += 1;
                        if on_internet { regions::routed(routed) } else { routed_lan(outside, routed) }
                    }
                    _ => default_lan(outside, has_routers.contains(&name)),
                };
                if let Some(outside) = outside
                    && prefix::overlap(outside, router.lan)
                {
                    self.problems.add(
                        span,
                        format!("router `{name}` has the same network inside and outside"),
                        format!(
                            "{}/{} is taken by the router it is behind: choose another lan",
                            outside.0, outside.1
                        ),
                    );
                }
                sorted.insert(name, router);
            }
            waiting = later;
        }
        sorted
    }

    fn hosts(
        &mut self,
        items: Vec<Item<file::Host>>,
        routers: &IndexMap<String, Router>,
    ) -> IndexMap<String, Host> {
        // Hosts that say nothing of it ask their routers for open ports where any router knows of such things.
        let asks = routers.values().any(|router| router.gateway.is_some());
        let mut hosts = IndexMap::new();
        for Item { name, span, value } in items {
            let Some(spec) = value else { continue };
            let counted = spec.count.is_some();
            let attached = self.attachment(&span, spec.region, spec.behind);
            let link = cable::access(spec.link, &cable::lan(), self.problems);
            if let Some(address) = &spec.address
                && counted
            {
                let help = "leave the address away: each gets the next free one";
                self.problems.add(address.span.clone(), "several hosts cannot share an address", help);
            }
            let address = take(spec.address, self.problems);
            let start_span = spec.start.as_ref().map_or(span, |start| start.span.clone());
            let start = take(spec.start, self.problems).unwrap_or_default();
            if start > MAX_UNTIL {
                self.problems.add(start_span.clone(), "it never starts: a run lasts at most a day", "");
            }
            let address6 = take(spec.address6, self.problems);
            if let (true, Some(address)) = (counted, &address6) {
                let help = "leave the address away: each gets the next free one";
                self.problems.add(start_span, format!("several hosts cannot share {address}"), help);
            }
            let proxy = self.used_proxy(spec.proxy, spec.proxy_login);
            let auth_key = self.auth_key(spec.auth_key);
            let interfaces = self.interfaces(&name, spec.interface);
            let Some(attached) = attached else { continue };
            let offered = ipv6::offered(&attached, |name| routers.get(name), self.internet);
            let ip_span = spec.ip.as_ref().map_or(0..0, |ip| ip.span.clone());
            let families = take(spec.ip, self.problems).map_or(offered, |Word(families)| families);
            if !offered.includes(families) {
                let help = format!("it has {offered} there; see the `ipv6` of the router");
                self.problems.add(ip_span, format!("its network has no {families}"), help);
            }
            let (address, address6) = primary(families, address, address6);
            let port_mapping = take(spec.port_mapping, self.problems).unwrap_or(asks);
            let dont_fragment = take(spec.dont_fragment, self.problems).unwrap_or(true);
            let host = Host {
                attached,
                address,
                link,
                start,
                families,
                address6,
                proxy,
                auth_key,
                port_mapping,
                dont_fragment,
                interfaces,
            };
            for member in self.groups.get(&name).into_iter().flatten() {
                hosts.insert(member.clone(), host.clone());
            }
        }
        hosts
    }

    /// The interfaces of a host beyond its first.
    fn interfaces(&mut self, host: &str, specs: Ordered<file::Interface>) -> IndexMap<String, Interface> {
        let mut interfaces = IndexMap::new();
        let members = self.groups.get(host).cloned().unwrap_or_default();
        for (name, spec) in specs.0 {
            let (span, name) = (name.span(), name.into_inner());
            if interfaces.len() == MAX_INTERFACES {
                self.problems.add(span, format!("more than {MAX_INTERFACES} interfaces"), "");
                break;
            }
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
                let help = "use letters, digits, `-` and `_`, at most 63";
                self.problems.add(span.clone(), format!("`{}` is no name", name.escape_debug()), help);
            }
            let attached = self.attachment(&span, spec.region, spec.behind);
            let link = cable::access(spec.link, &cable::lan(), self.problems);
            if let Some(address) = &spec.address
                && members.len() > 1
            {
                let help = "leave the address away: each gets the next free one";
                self.problems.add(address.span.clone(), "several hosts cannot share an address", help);
            }
            let address = take(spec.address, self.problems);
            let up = take(spec.up, self.problems).unwrap_or(true);
            for member in &members {
                // No node's name has a dot.
                self.names.insert(words::interface(member, &name), Kind::Interface);
            }
            let Some(attached) = attached else { continue };
            interfaces.insert(name, Interface { attached, address, link, up });
        }
        interfaces
    }

    fn relays(&mut self, items: Vec<Item<file::Server>>, first: &str) -> IndexMap<String, Relay> {
        let relay = |Server { region, address, link, families, address6, tls }, mesh, members_only| Relay {
            region,
            address,
            link,
            families,
            address6,
            tls,
            mesh,
            members_only,
        };
        let mut relays = IndexMap::new();
        let mut meshes: IndexMap<String, (Range<usize>, u32)> = IndexMap::new();
        for Item { name, value, .. } in items {
            if let Some(mut spec) = value {
                let mesh = spec.mesh.take().and_then(|mesh| self.mesh(mesh, &mut meshes));
                let served = take(spec.admission.take(), self.problems);
                let members_only = served.is_some_and(|Word(served)| served == Served::Members);
                relays.insert(name, relay(self.server(spec, first), mesh, members_only));
            }
        }
        for (mesh, (span, _)) in meshes.into_iter().filter(|(_, (_, relays))| *relays == 1) {
            let help = format!("give another relay mesh = \"{mesh}\" too, or leave it away");
            self.problems.add(span, format!("this is the only relay of mesh `{mesh}`"), help);
        }
        if relays.is_empty() {
            let server = self.server(file::Server::default(), first);
            relays.insert(self.spare_name("relay", Kind::Relay), relay(server, None, false));
        }
        relays
    }

    /// The word for a mesh, counted.
    fn mesh(
        &mut self,
        word: Val<String>,
        meshes: &mut IndexMap<String, (Range<usize>, u32)>,
    ) -> Option<String> {
        let span = word.span.clone();
        let word = take(Some(word), self.problems)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if word.is_empty() || word.len() > 63 || !word.chars().all(fits) {
            let help = "use letters, digits, `-` and `_`, at most 63";
            self.problems.add(span, format!("`{}` is no name", word.escape_debug()), help);
            return None;
        }
        meshes.entry(word.clone()).or_insert((span, 0)).1 += 1;
        Some(word)
    }

    fn stuns(
        &mut self,
        items: Vec<Item<file::Server>>,
        first: &str,
        relays: usize,
    ) -> IndexMap<String, Server> {
        let mut stuns = IndexMap::new();
        for Item { name, value, .. } in items {
            if let Some(spec) = value {
                if let Some(Val { span, .. }) = &spec.tls {
                    let help = "leave it away: it is for relays and the coordinator";
                    self.problems.add(span.clone(), "a STUN server has no port for TLS", help);
                }
                stuns.insert(name, self.server(spec, first));
            }
        }
        // A peer needs two STUN servers at different addresses to tell whether its mapping varies (RFC 5780 §4.3).
        if stuns.is_empty() && relays < 2 {
            let server = self.server(file::Server::default(), first);
            stuns.insert(self.spare_name("stun", Kind::Stun), server);
        }
        stuns
    }

    /// A name for a default server: the word itself unless the scenario uses it for something else.
    fn spare_name(&mut self, word: &str, kind: Kind) -> String {
        let mut name = word.to_owned();
        while self.names.contains_key(&name) {
            name.push_str("-server");
        }
        self.names.insert(name.clone(), kind);
        name
    }

    fn server(&mut self, spec: file::Server, first: &str) -> Server {
        if let Some(Val { span, .. }) = &spec.mesh {
            self.problems.add(span.clone(), "only relays are linked to each other", "leave it away");
        }
        if let Some(Val { span, .. }) = &spec.admission {
            self.problems.add(span.clone(), "only relays are told whom to serve", "leave it away");
        }
        let region = spec.region.and_then(|region| self.region(region)).unwrap_or_else(|| first.to_owned());
        let address = take(spec.address, self.problems);
        let link: Access = cable::access(spec.link, &cable::lan(), self.problems);
        let families = take(spec.ip, self.problems).map_or(self.internet, |Word(families)| families);
        let (address, address6) = primary(families, address, take(spec.address6, self.problems));
        let tls = take(spec.tls, self.problems).unwrap_or(true);
        Server { region, address, link, families, address6, tls }
    }
}

/// The first address and the second, of those that the scenario chose: with IPv6 alone the one that there is comes first.
fn primary(
    families: Families,
    address: Option<IpAddr>,
    address6: Option<IpAddr>,
) -> (Option<IpAddr>, Option<IpAddr>) {
    if families == Families::V6 { (address6.or(address), None) } else { (address, address6) }
}

/// Whether anything in a scenario has IPv6: then the internet has it too.
fn has_ipv6<'a>(
    routers: &[Item<file::Router>],
    hosts: &[Item<file::Host>],
    mut servers: impl Iterator<Item = &'a Item<file::Server>>,
) -> bool {
    let way = |spec: &file::Router| matches!(&spec.ipv6, Some(Val { value: Ok(Word(way)), .. }) if *way != ipv6::WayWord::None);
    routers.iter().filter_map(|item| item.value.as_ref()).any(way)
        || hosts.iter().filter_map(|item| item.value.as_ref()).any(|host| is_v6(&host.ip))
        || servers.any(|item| item.value.as_ref().is_some_and(|server| is_v6(&server.ip)))
}

fn is_v6(ip: &Option<Val<Word<Families>>>) -> bool {
    matches!(ip, Some(Val { value: Ok(Word(families)), .. }) if *families != Families::V4)
}

/// Where each node is named.
fn spans(
    routers: &[Item<file::Router>],
    hosts: &[Item<file::Host>],
    relays: &[Item<file::Server>],
    stuns: &[Item<file::Server>],
) -> IndexMap<String, Range<usize>> {
    let routers = routers.iter().map(|item| (&item.name, &item.span));
    let hosts = hosts.iter().map(|item| (&item.name, &item.span));
    let servers = relays.iter().chain(stuns).map(|item| (&item.name, &item.span));
    routers.chain(hosts).chain(servers).map(|(name, span)| (name.clone(), span.clone())).collect()
}

/// The inside network of the `n`th router that names none, does not translate, and is behind one that does: its
/// addresses count outside too, so no two may be the same.
fn routed_lan(outside: Option<(IpAddr, u8)>, n: usize) -> (IpAddr, u8) {
    let [.., high, low] = n.to_be_bytes();
    match outside {
        Some((IpAddr::V4(v4), _)) if v4.octets()[0] == 10 => {
            (IpAddr::from([172, 16 + high % 16, low, 0]), 24)
        }
        _ => (IpAddr::from([10, high, low, 0]), 24),
    }
}

/// The inside network of a router that names none.
fn default_lan(outside: Option<(IpAddr, u8)>, carrier: bool) -> (IpAddr, u8) {
    // RFC 6598: the space between a carrier and its customers' routers. RFC 1918: homes.
    let shared = carrier.then_some((IpAddr::from([100, 64, 0, 0]), 10));
    let homes = (1..=u8::MAX).map(|i| (IpAddr::from([192, 168, i, 0]), 24));
    let fits = |lan: &(IpAddr, u8)| outside.is_none_or(|outside| !prefix::overlap(outside, *lan));
    shared.into_iter().chain(homes).find(fits).unwrap_or((IpAddr::from([10, 0, 0, 0]), 8))
}
