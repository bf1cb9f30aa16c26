//! What a scenario's timeline does to a world.

use super::cable::Way;
use super::net::{Inner, Router};
use super::{Entry, World, nanos};
use crate::scenario::{Access, Action, Repeat, Timed, When, words};
use indexmap::IndexMap;
use nat::{Firewall, FirewallConfig, Middlebox, Translation};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::time::Duration;
use trace::Event;

/// Which of its times an entry has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The only one, as the scenario gives it.
    Once,
    /// The only one, drawn.
    Drawn,
    /// The nth of several, from 1.
    Nth(u32),
}

/// The times of an entry in a run that ends at `end`, in order.
fn times(timed: &Timed, end: Duration, rng: &mut Pcg64Mcg) -> Vec<Duration> {
    let mut at = draw(timed.time, rng);
    let mut times = vec![at];
    if let Some(Repeat { every, times: most, until }) = timed.repeat {
        let last = until.unwrap_or(end).min(end);
        while most.is_none_or(|most| times.len() < most as usize) {
            at += draw(every, rng);
            if at > last {
                break;
            }
            times.push(at);
        }
    }
    times
}

/// A time of a range, all equally likely; whole milliseconds after its beginning where it is as long, to be read easily.
fn draw(when: When, rng: &mut Pcg64Mcg) -> Duration {
    const MS: u64 = 1_000_000;
    let span = nanos(when.to.saturating_sub(when.from));
    match span {
        0 => when.from,
        1..MS => when.from + Duration::from_nanos(rng.random_range(0..=span)),
        _ => when.from + Duration::from_millis(rng.random_range(0..=span / MS)),
    }
}

impl World {
    /// Puts the scenario's timeline on the agenda. Each entry draws from a stream of its own, named by what it does, so that
    /// another entry does not shift its times.
    pub(super) fn schedule(&mut self) {
        let end = Duration::from_nanos(self.until_ns);
        let mut same: IndexMap<&str, u32> = IndexMap::new();
        let mut entries = Vec::new();
        for (i, timed) in self.timeline.iter().enumerate() {
            let count = same.entry(&timed.words).or_default();
            *count += 1;
            let mut rng = self.seed.pcg(&format!("timeline {count} {}", timed.words));
            for (n, at) in (1..).zip(times(timed, end, &mut rng)) {
                let occasion = match timed.repeat {
                    Some(_) => Occasion::Nth(n),
                    None if timed.time.from == timed.time.to => Occasion::Once,
                    None => Occasion::Drawn,
                };
                entries.push((nanos(at), Entry::Script(i as u32, occasion)));
            }
        }
        // What happens at one time happens in the order of the scenario.
        entries.sort_by_key(|(at_ns, _)| *at_ns);
        for (at_ns, entry) in entries {
            self.agenda.push(at_ns, entry);
        }
    }

    pub(super) fn act(&mut self, index: usize, occasion: Occasion) {
        let timed = self.timeline[index].clone();
        let words = timed.words.clone();
        let now = words::duration(Duration::from_nanos(self.clock.now_ns()));
        let what = match occasion {
            Occasion::Once => timed.words,
            Occasion::Drawn => {
                format!("{} (at {now}, drawn from {})", timed.words, words::when(timed.time))
            }
            Occasion::Nth(n) => format!("{} (time {n}, at {now})", timed.words),
        };
        self.log.push(self.clock.now_ns(), Event::Action { what });
        match timed.action {
            Action::RebootRouter { router, off } => {
                self.with_router(&router, forget);
                // Its programs start when it passes packets again.
                self.router_off(&router, off);
                self.restart(&router, off, true);
            }
            Action::FlushRouter { router } => {
                let now = self.clock.now();
                self.with_router(&router, |router| {
                    // Mapped ports are rules and no conversations: they stay, as miniupnpd's do when conntrack is flushed.
                    let mapped: Vec<_> = router.nat.iter().flat_map(|nat| nat.mapped()).collect();
                    let pinholes: Vec<_> = router.filter(true).iter().flat_map(|f| f.pinholes()).collect();
                    forget(router);
                    for pinhole in pinholes {
                        if let Some(firewall) = router.filter(true) {
                            firewall.open_pinhole(pinhole);
                        }
                    }
                    for nat::Mapped { proto, inside, external, until } in mapped {
                        if let Some(nat) = &mut router.nat {
                            // Nobody has the port: the table is empty.
                            let _ = nat.map(proto, inside, nat::Wanted::Exactly(external.port()), until, now);
                        }
                    }
                });
            }
            Action::RestartRelay { relay, off, drain: true } => self.drain_programs(&relay, off),
            Action::RestartRelay { relay, off, drain: false } => self.restart(&relay, off, true),
            Action::SetHealth { relay, says } => self.set_health(&relay, says),
            Action::RestartCoordinator { off, keeps } => {
                self.restart(crate::topology::COORDINATOR, off, keeps);
            }
            Action::RestartHost { host, off, keeps } => self.restart(&host, off, keeps),
            Action::Kill { node } => self.kill(&node),
            Action::Revoke { host } => self.administer(move |server, now| {
                for id in named(server, &host) {
                    // It is there: it was listed.
                    let _ = server.revoke(id, now);
                }
            }),
            Action::Approve { host } => self.administer(move |server, now| {
                for id in named(server, &host) {
                    // One that was revoked stays so.
                    let _ = server.approve(id, now);
                }
            }),
            Action::Rotate { host } => self.rotate(&host),
            Action::SetAccess { access } => self.administer(move |server, now| {
                // The scenario was checked.
                let _ = server.set_access(Some(access), now);
            }),
            Action::Crash { node, off } => self.crash(&node, off),
            Action::BlackHole { node, lasts } => self.black_hole(&node, lasts),
            Action::Slow { node, each, delay, queue, lasts } => {
                self.slow(&node, (each, delay), queue, lasts);
            }
            Action::Cut { from, to, lasts } => self.cut(&from, &to, lasts, words),
            Action::ReaddressRouter { router, off, .. } => self.readdress(&router, index, off),
            Action::SetNat { router, nat, keeps, .. } => self.set_nat(&router, nat, keeps),
            Action::MoveHost { host, interface, to, dead, .. } => {
                self.move_host(&host, &interface, &to, dead);
            }
            Action::SetInterface { host, interface, up } => self.set_interface(&host, &interface, up),
            Action::Sleep { host, lasts } => self.sleep(&host, lasts),
            Action::SetClock { host, by, back } => self.set_clock(&host, by, back),
            Action::ChangeLink { node, link } => self.change_link(&node, &link),
            Action::SetLink { node, up } => {
                if let Some(node) = self.cable_of(&node) {
                    let site = &mut self.sites[node as usize];
                    site.up.set_up(up);
                    site.down.set_up(up);
                }
            }
            Action::AcceptPortal { router } => self.with_router(&router, |router| {
                if let Some(firewall) = &mut router.firewall {
                    firewall.accept_portal();
                }
            }),
            Action::ChangeRules { router, change } => {
                let rng = self.firewall_rng(&router);
                self.with_router(&router, |router| {
                    let open = || Box::new(Firewall::new(FirewallConfig::OPEN, rng));
                    let firewall = router.firewall.get_or_insert_with(open);
                    firewall.change_rules(&change);
                });
            }
            Action::SetFirewall { router, firewall, .. } => {
                let rng = self.firewall_rng(&router);
                self.with_router(&router, |router| {
                    router.firewall = firewall.map(|config| Box::new(Firewall::new(config, rng)));
                });
            }
        }
    }

    pub(super) fn router_on(&mut self, node: u32) {
        let site = &mut self.sites[node as usize];
        if let Inner::Router(router) = &mut site.body {
            if !router.off || self.clock.now_ns() < router.back_ns {
                // It went off again meanwhile.
                return;
            }
            router.off = false;
        }
        let what = format!("router {}: back", site.name);
        self.log.push(self.clock.now_ns(), Event::Action { what });
    }

    fn router_off(&mut self, name: &str, off: Duration) {
        let back_ns = self.clock.now_ns() + nanos(off);
        self.with_router(name, |router| {
            router.off = true;
            router.back_ns = router.back_ns.max(back_ns);
        });
        if let Some(node) = self.node(name) {
            self.agenda.push(back_ns, Entry::RouterOn(node));
        }
    }

    /// Another address on the uplink: Linux forgets what was masqueraded with the old one (`masq_device_event` and
    /// `masq_inet_event`, `net/netfilter/nf_nat_masquerade.c`). A repeated change goes back to the address before.
    fn readdress(&mut self, name: &str, entry: usize, off: Duration) {
        let (Some(node), Some(&new)) = (self.node(name), self.readdressed.get(&entry)) else { return };
        let Inner::Router(router) = &mut self.sites[node as usize].body else { return };
        let Some(old) = router.external.iter_mut().find(|old| old.is_ipv4() == new.is_ipv4()) else { return };
        let before = std::mem::replace(old, new);
        forget(router);
        let external = router.external.clone();
        if let Some(nat) = &mut router.nat {
            nat.set_external(external.clone(), self.clock.now());
        }
        if before != new {
            self.readdressed.insert(entry, before);
        }
        let own = router.own.as_mut().map(|own| {
            let mut addresses = vec![router.gateway];
            addresses.extend(external);
            (&mut own.host, addresses)
        });
        if let Some((host, addresses)) = own {
            let mut effects = std::mem::take(&mut self.effects);
            host.set_addresses(addresses, &self.clock, &mut effects);
            self.apply(node, effects);
            self.drain();
        }
        self.middlebox_events(node);
        let what = format!("router {name}: has {new}");
        self.log.push(self.clock.now_ns(), Event::Action { what });
        if !off.is_zero() {
            self.router_off(name, off);
        }
    }

    fn set_nat(&mut self, name: &str, config: Option<Translation>, keeps: bool) {
        self.with_router(name, |router| {
            if let (Some(nat), Some(config)) = (&mut router.nat, config) {
                if !keeps {
                    nat.clear();
                }
                nat.set_config(config);
            }
        });
    }

    fn restart(&mut self, name: &str, off: Duration, keeps: bool) {
        let Some(node) = self.node(name) else { return };
        let back_ns = self.clock.now_ns() + nanos(off);
        self.stop_programs(node, keeps);
        self.start_all_at(node, back_ns);
        self.note_presence(node);
    }

    fn kill(&mut self, name: &str) {
        let Some(node) = self.node(name) else { return };
        self.stop_programs(node, true);
        self.bury(node);
        self.note_presence(node);
    }

    fn change_link(&mut self, name: &str, link: &Access) {
        if let Some(node) = self.cable_of(name) {
            let site = &mut self.sites[node as usize];
            site.up.set_config(link.up.clone());
            site.down.set_config(link.down.clone());
            self.drain_queue(node, Way::Up);
            self.drain_queue(node, Way::Down);
        }
    }

    fn with_router(&mut self, name: &str, change: impl FnOnce(&mut Router)) {
        if let Some(node) = self.node(name) {
            if let Inner::Router(router) = &mut self.sites[node as usize].body {
                change(router);
            }
            self.middlebox_events(node);
        }
    }

    /// The stream of a firewall that begins now.
    fn firewall_rng(&self, router: &str) -> Pcg64Mcg {
        self.seed.pcg(&format!("firewall {router} from {}", self.clock.now_ns()))
    }

    fn node(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }
}

/// The numbers of the nodes with a name.
fn named(server: &coord::server::Server, name: &str) -> Vec<u32> {
    server.node_views().filter(|node| node.info.name == name).map(|node| node.info.id).collect()
}

fn forget(router: &mut Router) {
    if let Some(nat) = &mut router.nat {
        nat.clear();
    }
    if let Some(firewall) = &mut router.firewall {
        firewall.clear();
    }
    if let Some(v6) = &mut router.ipv6 {
        v6.clear();
    }
    if let Some(own) = &mut router.own {
        own.forget();
    }
}
