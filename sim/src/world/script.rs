//! What a scenario's timeline does to a world.

use super::cable::Way;
use super::net::{Inner, Router};
use super::{Entry, World, nanos};
use crate::scenario::{Access, Action};
use nat::{Firewall, Middlebox};
use std::time::Duration;
use trace::Event;

impl World {
    pub(super) fn act(&mut self, index: usize) {
        let timed = self.timeline[index].clone();
        self.log.push(self.clock.now_ns(), Event::Action { what: timed.words });
        match timed.action {
            Action::RebootRouter { router, off } => {
                let back_ns = self.clock.now_ns() + nanos(off);
                self.with_router(&router, |router| {
                    forget(router);
                    router.off = true;
                });
                // Its programs start when it passes packets again.
                if let Some(node) = self.node(&router) {
                    self.agenda.push(back_ns, Entry::RouterOn(node));
                }
                self.restart(&router, off);
            }
            Action::FlushRouter { router } => {
                let now = self.clock.now();
                self.with_router(&router, |router| {
                    // Mapped ports are rules and no conversations: they stay, as miniupnpd's do when conntrack is flushed.
                    let mapped: Vec<_> = router.nat.iter().flat_map(|nat| nat.mapped()).collect();
                    forget(router);
                    for nat::Mapped { proto, inside, external, until } in mapped {
                        if let Some(nat) = &mut router.nat {
                            // Nobody has the port: the table is empty.
                            let _ = nat.map(proto, inside, nat::Wanted::Exactly(external.port()), until, now);
                        }
                    }
                });
            }
            Action::RestartRelay { relay, off } => self.restart(&relay, off),
            Action::RestartCoordinator { off } => self.restart(crate::topology::COORDINATOR, off),
            Action::ChangeLink { node, link } => self.change_link(&node, &link),
            Action::SetLink { node, up } => {
                if let Some(node) = self.node(&node) {
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
            Action::SetFirewall { router, firewall, .. } => {
                let rng = self.seed.pcg(&format!("firewall {router} from {}", self.clock.now_ns()));
                self.with_router(&router, |router| {
                    router.firewall = firewall.map(|config| Firewall::new(config, rng));
                });
            }
        }
    }

    pub(super) fn router_on(&mut self, node: u32) {
        let site = &mut self.sites[node as usize];
        if let Inner::Router(router) = &mut site.body {
            router.off = false;
        }
        let what = format!("router {}: back", site.name);
        self.log.push(self.clock.now_ns(), Event::Action { what });
    }

    fn restart(&mut self, name: &str, off: Duration) {
        let Some(node) = self.node(name) else { return };
        let back_ns = self.clock.now_ns() + nanos(off);
        for slot in self.stop_programs(node) {
            self.agenda.push(back_ns, Entry::Start { node, slot });
        }
    }

    fn change_link(&mut self, name: &str, link: &Access) {
        if let Some(node) = self.node(name) {
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

    fn node(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }
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
