//! What happens in a scenario, and when.

use std::ops::Range;
use std::time::Duration;

use indexmap::IndexMap;
use nat::{FirewallConfig, Rule, RuleChange};

use super::axes::{self, take};
use super::build::{Builder, Kind};
use super::error::suggest;
use super::model::{Access, Action, Attachment, Place, Repeat, Scenario, Timed, When};
use super::read::Item;
use super::story::MAX_FLOWS;
use super::value::{Jump, State, Val, Word};
use super::{cable, file, filter, regions, words};

/// Most times that one entry may happen.
const MAX_TIMES: u64 = 10_000;

impl Builder<'_, '_> {
    pub(super) fn timeline(&mut self, scenario: &mut Scenario, items: Vec<Item<file::At>>) {
        let mut entries = Vec::new();
        for Item { span, value, .. } in items {
            let Some(mut spec) = value else { continue };
            let Some((time, repeat)) = self.when(&mut spec, scenario.until) else { continue };
            if entries.len() == MAX_FLOWS {
                self.problems.add(span, format!("more than {MAX_FLOWS} entries"), "");
                break;
            }
            entries.push((time, repeat, span, spec));
        }
        // Changes of a cable build on each other, so they are taken in the order of time.
        entries.sort_by_key(|(time, ..)| time.from);
        let mut cables = cables(scenario);
        for (time, repeat, span, spec) in entries {
            if let Some((action, words)) = self.action(scenario, &mut cables, spec, &span) {
                scenario.timeline.push(Timed { time, repeat, action, words });
            }
        }
    }

    /// When an entry happens, in a run that ends at `end`.
    fn when(&mut self, spec: &mut file::At, end: Duration) -> Option<(When, Option<Repeat>)> {
        let span = spec.time.span.clone();
        let time = take(Some(spec.time.clone()), self.problems)?;
        if time.to >= end {
            self.problems.add(span, "the run is over by then", format!("until is {}", words::duration(end)));
        }
        let (times, until) = (spec.times.take(), spec.until.take());
        let Some(every) = spec.every.take() else {
            for span in [times.map(|times| times.span), until.map(|until| until.span)].into_iter().flatten() {
                self.problems.add(span, "it is not repeated", "write every = \"10s\" too");
            }
            return Some((time, None));
        };
        let every_span = every.span.clone();
        let every = take(Some(every), self.problems)?;
        if every.to.is_zero() {
            let help = "write for example every = \"10s\"";
            self.problems.add(every_span, "no time passes between its repeats", help);
            return None;
        }
        let times = times.and_then(|value| {
            let span = value.span.clone();
            let times = take(Some(value), self.problems)?;
            if !(1..=MAX_TIMES).contains(&times) {
                let help = format!("write 1 to {MAX_TIMES}");
                self.problems.add(span, format!("it cannot happen {times} times"), help);
            }
            u32::try_from(times).ok()
        });
        let until = until.and_then(|value| {
            let span = value.span.clone();
            let until = take(Some(value), self.problems)?;
            if until < time.to {
                let help = format!("its first time is {}", words::when(time));
                self.problems.add(span, "its repeats end before it happens", help);
            }
            Some(until)
        });
        let last = until.unwrap_or(end).min(end);
        let fits = last.saturating_sub(time.from).as_nanos().checked_div(every.from.as_nanos());
        let most = fits.unwrap_or(u128::MAX).min(times.map_or(u128::MAX, u128::from));
        if most > u128::from(MAX_TIMES) {
            let help = format!("give times, or a longer every: at most {MAX_TIMES} times");
            self.problems.add(every_span, "it happens too often", help);
        }
        Some((time, Some(Repeat { every, times, until })))
    }

    fn action(
        &mut self,
        scenario: &Scenario,
        cables: &mut IndexMap<String, Access>,
        spec: file::At,
        span: &Range<usize>,
    ) -> Option<(Action, String)> {
        let mut asked = asked(spec).into_iter();
        let (first, second) = (asked.next(), asked.next());
        if first.is_none() && !self.problems.is_empty() {
            // A key that is misspelt has been told already.
            return None;
        }
        let (Some(asked), None) = (first, second) else {
            let message = "an entry of the timeline is one thing that happens";
            self.problems.add(span.clone(), message, format!("beside time, give one of {WHAT}"));
            return None;
        };
        let mut before = None;
        let action = match asked {
            Asked::Reboot(file::Reboot { router, off }) => {
                let router = self.refer(router, &[Kind::Router])?;
                Action::RebootRouter { router, off: self.lasts(off, Duration::from_secs(20)) }
            }
            Asked::Flush(file::Flush { router }) => {
                Action::FlushRouter { router: self.refer(router, &[Kind::Router])? }
            }
            Asked::Restart(restart) => self.restart(restart, span)?,
            Asked::Health(file::Health { relay, says }) => self.health(relay, says)?,
            Asked::Link(change) => {
                let (node, change) = (*change).into_parts();
                let node = self.refer(node, CABLED)?;
                let cable = cables.get_mut(&node)?;
                let link = cable::change(change, cable, self.problems);
                before = Some(std::mem::replace(cable, link.clone()));
                Action::ChangeLink { node, link: Box::new(link) }
            }
            Asked::SetLink(node, up) => Action::SetLink { node: self.refer(node, CABLED)?, up },
            Asked::Firewall(file::FirewallChange { router, rules }) => {
                let router = self.refer(router, &[Kind::Router])?;
                let (firewall, name) = filter::firewall(Some(rules), &mut self.named, self.problems);
                Action::SetFirewall { router, firewall, name }
            }
            Asked::Rules(change, remove) => self.rules(scenario, change, remove, span)?,
            Asked::Nat(file::NatChange { router, to, state }) => {
                let router = self.refer(router, &[Kind::Router])?;
                let (nat, name) = axes::nat(Some(to), self.problems);
                let translates = scenario.routers.get(&router)?.nat.is_some();
                if nat.is_some() != translates && self.problems.is_empty() {
                    // The addresses behind it would have to be others.
                    let help = "a router translates all the time or never";
                    self.problems.add(span.clone(), format!("`{router}` cannot change that"), help);
                }
                let keeps = take(state, self.problems).is_some_and(|Word(state)| state == State::Kept);
                Action::SetNat { router, nat, name, keeps }
            }
            Asked::Readdress(readdress) => self.readdress(scenario, readdress)?,
            Asked::Move(spec) => self.moves(scenario, cables, spec)?,
            Asked::Interface(file::InterfaceChange { host, name, up }) => {
                let (host, interface) = self.interface(scenario, host, name)?;
                Action::SetInterface { host, interface, up: take(Some(up), self.problems)? }
            }
            Asked::Sleep(file::Sleep { host, lasts }) => {
                let host = self.refer(host, &[Kind::Host])?;
                Action::Sleep { host, lasts: take(Some(lasts), self.problems)? }
            }
            Asked::Clock(file::ClockJump { host, by }) => {
                let host = self.refer(host, &[Kind::Host])?;
                let Jump { by, back } = take(Some(by), self.problems)?;
                Action::SetClock { host, by, back }
            }
            Asked::Kill(node) => Action::Kill { node: self.refer(node, MACHINES)? },
            Asked::Revoke(host) => Action::Revoke { host: self.refer(host, &[Kind::Host])? },
            Asked::Approve(host) => Action::Approve { host: self.refer(host, &[Kind::Host])? },
            Asked::Rotate(host) => Action::Rotate { host: self.refer(host, &[Kind::Host])? },
            Asked::Access(rules) => Action::SetAccess { access: self.access_rules(rules)? },
            Asked::Crash(file::Crash { node, off }) => {
                Action::Crash { node: self.refer(node, MACHINES)?, off: take(off, self.problems) }
            }
            Asked::BlackHole(file::BlackHole { node, lasts }) => {
                Action::BlackHole { node: self.refer(node, MACHINES)?, lasts: take(lasts, self.problems) }
            }
            Asked::Slow(slow) => self.slow(slow, span)?,
            Asked::Cut(cut) => self.cut(cut, span)?,
            Asked::AcceptPortal(file::AcceptPortal { router }) => {
                Action::AcceptPortal { router: self.refer(router, &[Kind::Router])? }
            }
        };
        let words = words::action(&action, before.as_ref());
        Some((action, words))
    }

    fn lasts(&mut self, value: Option<Val<Duration>>, default: Duration) -> Duration {
        take(value, self.problems).unwrap_or(default)
    }

    fn restart(&mut self, restart: file::Restart, span: &Range<usize>) -> Option<Action> {
        let file::Restart { relay, coordinator, host, off, drain, state } = restart;
        let off = self.lasts(off, Duration::from_secs(2));
        let coordinator = take(coordinator, self.problems).unwrap_or(false);
        let state_span = state.as_ref().map(|state| state.span.clone());
        let keeps = take(state, self.problems).is_none_or(|Word(state)| state == State::Kept);
        let drain_span = drain.as_ref().filter(|_| relay.is_none()).map(|drain| drain.span.clone());
        let drain = take(drain, self.problems).unwrap_or(false);
        if let Some(span) = drain_span {
            let help = "leave drain away: others are killed, as they rely on nobody's connection to them";
            self.problems.add(span, "only a relay announces that it ends", help);
        }
        match (relay, coordinator, host) {
            (Some(relay), false, None) => {
                if let Some(span) = state_span {
                    self.problems.add(span, "a relay keeps nothing over a restart", "leave state away");
                }
                Some(Action::RestartRelay { relay: self.refer(relay, &[Kind::Relay])?, off, drain })
            }
            (None, true, None) => Some(Action::RestartCoordinator { off, keeps }),
            (None, false, Some(host)) => {
                Some(Action::RestartHost { host: self.refer(host, &[Kind::Host])?, off, keeps })
            }
            _ => {
                let help =
                    "write restart = { relay = \"NAME\" }, { coordinator = true } or { host = \"NAME\" }";
                self.problems.add(span.clone(), "restart is about one server or host", help);
                None
            }
        }
    }

    fn health(&mut self, relay: Val<String>, says: Val<String>) -> Option<Action> {
        let span = says.span.clone();
        let (relay, says) = (self.refer(relay, &[Kind::Relay])?, take(Some(says), self.problems)?);
        if says.chars().count() > MAX_SAYS || says.chars().any(char::is_control) {
            let help =
                format!("at most {MAX_SAYS} characters, without line breaks; \"\" when it is well again");
            self.problems.add(span, "what a relay says of itself is one short line", help);
        }
        Some(Action::SetHealth { relay, says })
    }

    fn rules(
        &mut self,
        scenario: &Scenario,
        spec: file::RuleChange,
        remove: bool,
        span: &Range<usize>,
    ) -> Option<Action> {
        let router = self.refer(spec.router, &[Kind::Router])?;
        let mut rules = |list: Option<Vec<Val<filter::Filter>>>| {
            filter::rules(list.unwrap_or_default(), &mut self.named, self.problems)
        };
        let change = RuleChange { remove, outbound: rules(spec.outbound), block: rules(spec.block) };
        let before = firewall_by_now(scenario, &router);
        let strange = |rules: &[Rule], list: Option<&[Rule]>| {
            let has = |rule: &&Rule| list.is_some_and(|list| list.contains(rule));
            rules.iter().find(|rule| remove && !has(rule)).map(Rule::to_string)
        };
        let problem = if change.is_empty() {
            let help = "write block = [\"udp\"], outbound = [\"tcp 443\"], or both";
            Some(("no rule is given".to_owned(), help.to_owned()))
        } else if before.outbound.is_none() && !change.outbound.is_empty() {
            let help = "change what it blocks, or give its firewall a list of what may go out";
            Some((format!("`{router}` lets everything out by then"), help.to_owned()))
        } else {
            let outbound = strange(&change.outbound, before.outbound.as_deref());
            let missing = outbound.or_else(|| strange(&change.block, Some(&before.block)));
            missing.map(|rule| {
                (format!("`{router}` has no rule \"{rule}\" by then"), format!("it is: {before}"))
            })
        };
        if let Some((message, help)) = problem
            && self.problems.is_empty()
        {
            self.problems.add(span.clone(), message, help);
        }
        Some(Action::ChangeRules { router, change })
    }

    fn readdress(&mut self, scenario: &Scenario, spec: file::Readdress) -> Option<Action> {
        let span = spec.router.span.clone();
        let router = self.refer(spec.router, &[Kind::Router])?;
        if scenario.routers.get(&router)?.nat.is_none() {
            let help = "give it a nat, or move the hosts";
            self.problems.add(span, format!("`{router}` does not translate: nobody uses its address"), help);
        }
        let address = take(spec.address, self.problems);
        Some(Action::ReaddressRouter { router, address, off: self.lasts(spec.off, Duration::ZERO) })
    }

    /// A host and one of its interfaces; "" is the one of its own section.
    fn interface(
        &mut self,
        scenario: &Scenario,
        host: Val<String>,
        name: Option<Val<String>>,
    ) -> Option<(String, String)> {
        let host = self.refer(host, &[Kind::Host])?;
        let Some(name) = name else { return Some((host, String::new())) };
        let span = name.span.clone();
        let name = take(Some(name), self.problems)?;
        let interfaces = &scenario.hosts.get(&host)?.interfaces;
        if interfaces.contains_key(&name) {
            return Some((host, name));
        }
        let help = suggest(&name, interfaces.keys().map(String::as_str));
        self.problems.add(span, format!("`{host}` has no interface `{name}`"), help);
        None
    }

    fn moves(
        &mut self,
        scenario: &Scenario,
        cables: &mut IndexMap<String, Access>,
        spec: file::Move,
    ) -> Option<Action> {
        let to_span = spec.to.span.clone();
        let (host, interface) = self.interface(scenario, spec.host, spec.interface)?;
        let own = scenario.hosts.get(&host)?;
        let (attached, before, start) = match own.interfaces.get(&interface) {
            None => (&own.attached, own.address, &own.link),
            Some(interface) => (&interface.attached, interface.address, &interface.link),
        };
        // Nobody else need be in the region.
        if let Ok(text) = &spec.to.value
            && !self.names.contains_key(text)
            && regions::index(text).is_some()
        {
            self.regions.entry(regions::canonical(text).to_owned()).or_insert(to_span.clone());
        }
        let to = self.place(spec.to)?;
        let to = match to {
            Place::Region(region) => Attachment::Region(region),
            Place::Node(name) if scenario.routers.contains_key(&name) => Attachment::Behind(name),
            Place::Node(name) => {
                self.problems.add(
                    to_span,
                    format!("`{name}` is no router and no region"),
                    "name one to move to",
                );
                return None;
            }
        };
        let address = take(spec.address, self.problems);
        let own_link = spec.link.is_some();
        let link = cable::access(spec.link, start, self.problems);
        let dead = self.lasts(spec.dead, Duration::from_secs(2));
        // What it has at a place it has there each time.
        let same = |action: &Action| match action {
            Action::MoveHost { host: h, interface: i, to: t, address, link, .. } => {
                ((h, i, t) == (&host, &interface, &to)).then(|| (*address, link.as_ref().clone()))
            }
            _ => None,
        };
        let begins = (*attached == to).then(|| (before, start.clone()));
        let known = begins.or_else(|| scenario.timeline.iter().find_map(|timed| same(&timed.action)));
        if let Some((known, cable)) = known {
            if (address.is_some() && address != known) || (own_link && cable != link) {
                let help = "leave address and link away: it has there what it had before";
                self.problems.add(to_span, format!("`{host}` has been there with others"), help);
            }
            cables.insert(words::interface(&host, &interface), cable.clone());
            return Some(Action::MoveHost {
                host,
                interface,
                to,
                address: known,
                link: Box::new(cable),
                dead,
            });
        }
        cables.insert(words::interface(&host, &interface), link.clone());
        Some(Action::MoveHost { host, interface, to, address, link: Box::new(link), dead })
    }

    fn slow(&mut self, spec: file::Slow, span: &Range<usize>) -> Option<Action> {
        let node = self.refer(spec.node, MACHINES)?;
        let each = self.lasts(spec.each, Duration::ZERO);
        let delay = self.lasts(spec.delay, Duration::ZERO);
        if each.is_zero() && delay.is_zero() && self.problems.is_empty() {
            let help = "write delay = \"200ms\", each = \"5ms\", or both";
            self.problems.add(span.clone(), format!("`{node}` is not slow"), help);
        }
        let queue = take(spec.queue, self.problems).unwrap_or(1000);
        Some(Action::Slow { node, each, delay, queue, lasts: take(spec.lasts, self.problems) })
    }

    fn cut(&mut self, spec: file::Cut, span: &Range<usize>) -> Option<Action> {
        let file::Cut { region, from, to, lasts } = spec;
        let (from, to) = match (region, from) {
            (Some(region), None) if to.is_none() => (vec![region], Vec::new()),
            (None, Some(from)) if !from.is_empty() => (from, to.unwrap_or_default()),
            _ => {
                let help = "write cut = { region = \"us-east\" }, or cut = { from = [\"us-east\"], to = [\"relay\"] }";
                self.problems.add(span.clone(), "a cut is around one region, or between two groups", help);
                return None;
            }
        };
        let places = |builder: &mut Self, names: Vec<Val<String>>| -> Option<Vec<Place>> {
            names.into_iter().map(|name| builder.place(name)).collect()
        };
        let (from, to) = (places(self, from)?, places(self, to)?);
        // A node within the region that it is cut off from would be on both sides.
        if from.iter().any(|place| to.contains(place)) {
            self.problems.add(
                span.clone(),
                "both sides of the cut name the same",
                "nothing is cut off from itself",
            );
        }
        Some(Action::Cut { from, to, lasts: take(lasts, self.problems) })
    }

    /// A node or a region in use.
    fn place(&mut self, name: Val<String>) -> Option<Place> {
        if let Ok(text) = &name.value {
            let region = regions::canonical(text);
            if !self.names.contains_key(text) && self.regions.contains_key(region) {
                return Some(Place::Region(region.to_owned()));
            }
        }
        let nodes = [Kind::Router, Kind::Host, Kind::Relay, Kind::Stun, Kind::Proxy, Kind::Coordinator];
        self.refer(name, &nodes).map(Place::Node)
    }
}

impl Builder<'_, '_> {
    /// Access rules, if they are sound.
    fn access_rules(&mut self, rules: Vec<file::AccessRule>) -> Option<coord::Access> {
        let mut sound = true;
        let mut read = |spec: file::AccessRule| {
            let file::AccessRule { from, to, protocol, ports } = spec;
            let mut side = |names: Vec<Val<String>>| {
                let hosts = names.into_iter().map(|name| match name.value.as_deref() {
                    Ok("*") => Some(coord::access::Selector::All),
                    _ => self.refer(name, &[Kind::Host]).map(coord::access::Selector::Node),
                });
                hosts.collect::<Option<Vec<_>>>()
            };
            let (from, to) = (side(from)?, side(to)?);
            let protocol = match protocol {
                None => coord::access::Protocol::Any,
                Some(word) => {
                    let span = word.span.clone();
                    match take(Some(word), self.problems)?.as_str() {
                        "any" => coord::access::Protocol::Any,
                        "tcp" => coord::access::Protocol::Tcp,
                        "udp" => coord::access::Protocol::Udp,
                        "icmp" => coord::access::Protocol::Icmp,
                        _ => {
                            let help = "write \"any\", \"tcp\", \"udp\" or \"icmp\"";
                            self.problems.add(span, "no such protocol", help);
                            return None;
                        }
                    }
                }
            };
            let mut ranges = Vec::new();
            for range in ports.unwrap_or_default() {
                let span = range.span.clone();
                match take(Some(range), self.problems)?.parse::<coord::access::Ports>() {
                    Ok(range) => ranges.push(range),
                    Err(error) => {
                        self.problems.add(span, error.to_string(), "");
                        return None;
                    }
                }
            }
            if protocol == coord::access::Protocol::Icmp && !ranges.is_empty() {
                self.problems.add(0..0, "an access rule for ICMP has ports", "leave ports away");
                return None;
            }
            Some(coord::access::Rule { from, to, protocol, ports: ranges })
        };
        let mut sound_rules = Vec::new();
        for rule in rules {
            match read(rule) {
                Some(rule) => sound_rules.push(rule),
                None => sound = false,
            }
        }
        sound.then(|| coord::Access { rules: sound_rules, ..coord::Access::default() })
    }
}

/// The keys of an entry beside its time.
const WHAT: &str = "reboot, flush, restart, health, link, down, up, firewall, add-rule, remove-rule, nat, readdress, move, interface, \
                    sleep, clock, kill, revoke, approve, rotate, access, crash, black-hole, slow, cut, accept-portal";

/// Characters in what a relay says of itself: it is one line of a log.
const MAX_SAYS: usize = 200;

/// What an entry asks for.
enum Asked {
    Reboot(file::Reboot),
    Flush(file::Flush),
    Restart(file::Restart),
    Health(file::Health),
    Link(Box<file::LinkChange>),
    SetLink(Val<String>, bool),
    Firewall(file::FirewallChange),
    Rules(file::RuleChange, bool),
    Nat(file::NatChange),
    Readdress(file::Readdress),
    Move(file::Move),
    Interface(file::InterfaceChange),
    Sleep(file::Sleep),
    Clock(file::ClockJump),
    Kill(Val<String>),
    Revoke(Val<String>),
    Approve(Val<String>),
    Rotate(Val<String>),
    Access(Vec<file::AccessRule>),
    Crash(file::Crash),
    BlackHole(file::BlackHole),
    Slow(file::Slow),
    Cut(file::Cut),
    AcceptPortal(file::AcceptPortal),
}

/// Everything that an entry asks for: one thing, if it is sound.
fn asked(spec: file::At) -> Vec<Asked> {
    let file::At {
        time: _,
        every: _,
        times: _,
        until: _,
        reboot,
        flush,
        restart,
        health,
        link,
        down,
        up,
        firewall,
        nat,
        readdress,
        moves,
        interface,
        sleep,
        clock,
        kill,
        revoke,
        approve,
        rotate,
        access,
        crash,
        black_hole,
        slow,
        cut,
        add_rule,
        remove_rule,
        accept_portal,
    } = spec;
    let all = [
        reboot.map(Asked::Reboot),
        flush.map(Asked::Flush),
        restart.map(Asked::Restart),
        health.map(Asked::Health),
        link.map(|link| Asked::Link(Box::new(link))),
        down.map(|node| Asked::SetLink(node, false)),
        up.map(|node| Asked::SetLink(node, true)),
        firewall.map(Asked::Firewall),
        add_rule.map(|change| Asked::Rules(change, false)),
        remove_rule.map(|change| Asked::Rules(change, true)),
        nat.map(Asked::Nat),
        readdress.map(Asked::Readdress),
        moves.map(Asked::Move),
        interface.map(Asked::Interface),
        sleep.map(Asked::Sleep),
        clock.map(Asked::Clock),
        kill.map(Asked::Kill),
        revoke.map(Asked::Revoke),
        approve.map(Asked::Approve),
        rotate.map(Asked::Rotate),
        access.map(Asked::Access),
        crash.map(Asked::Crash),
        black_hole.map(Asked::BlackHole),
        slow.map(Asked::Slow),
        cut.map(Asked::Cut),
        accept_portal.map(Asked::AcceptPortal),
    ];
    all.into_iter().flatten().collect()
}

/// A router's firewall after the entries so far; one that lets everything pass if it has none.
fn firewall_by_now(scenario: &Scenario, router: &str) -> FirewallConfig {
    let at_first = scenario.routers.get(router).and_then(|router| router.firewall.clone());
    let mut now = at_first.unwrap_or(FirewallConfig::OPEN);
    for timed in &scenario.timeline {
        match &timed.action {
            Action::SetFirewall { router: changed, firewall, .. } if changed == router => {
                now = firewall.clone().unwrap_or(FirewallConfig::OPEN);
            }
            Action::ChangeRules { router: changed, change } if changed == router => change.apply(&mut now),
            _ => {}
        }
    }
    now
}

/// What has a cable.
const CABLED: &[Kind] =
    &[Kind::Host, Kind::Interface, Kind::Router, Kind::Relay, Kind::Stun, Kind::Proxy, Kind::Coordinator];
/// What programs run on.
const MACHINES: &[Kind] = &[Kind::Host, Kind::Relay, Kind::Stun, Kind::Proxy, Kind::Coordinator];

/// The cable of every node as it is at the start.
fn cables(scenario: &Scenario) -> IndexMap<String, Access> {
    let routers = scenario.routers.iter().map(|(name, router)| (name, &router.link));
    let hosts = scenario.hosts.iter().map(|(name, host)| (name, &host.link));
    let interfaces = scenario.hosts.iter().flat_map(|(name, host)| {
        host.interfaces
            .iter()
            .map(move |(own, interface)| (words::interface(name, own), interface.link.clone()))
    });
    let relays = scenario.relays.iter().map(|(name, relay)| (name, &relay.link));
    let stuns = scenario.stuns.iter().map(|(name, stun)| (name, &stun.link));
    let proxies = scenario.proxies.iter().map(|(name, proxy)| (name, &proxy.link));
    let nodes = routers.chain(hosts).chain(relays).chain(stuns).chain(proxies);
    let mut cables: IndexMap<String, Access> =
        nodes.map(|(name, link)| (name.clone(), link.clone())).collect();
    cables.extend(interfaces);
    cables.insert("coordinator".to_owned(), scenario.coordinator.link.clone());
    cables
}
