//! What is not as usual with a host or server: several interfaces, a network that it has left, sleep, a power cut, packets that
//! vanish or wait; and an internet whose parts do not reach each other.

use super::net::{Inner, Outlet, Parent, Site};
use super::{Entry, World, nanos};
use crate::packet::Packet;
use crate::scenario::{Attachment, Place, words};
use crate::topology::Topology;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use trace::Event;

/// See the module.
#[derive(Default)]
pub(super) struct Odd {
    /// The interfaces, the preferred first; empty = the one that the node itself is.
    plugs: Vec<Plug>,
    asleep: Option<Until>,
    off: Option<Until>,
    hole: Option<Until>,
    desk: Option<Desk>,
    /// What the node itself has, where there are interfaces.
    own: Option<Outlet>,
    /// How far the wall clock is from the truth.
    pub(super) skew_ns: i64,
    /// Whether the log has it as gone.
    gone: bool,
}

/// The end of a trouble in nanoseconds of the run; the largest number for one that lasts.
type Until = u64;

/// An interface of a host.
struct Plug {
    /// Its name; empty for the first.
    name: String,
    up: bool,
    /// The node whose cable it is on.
    site: u32,
    /// The addresses there.
    addresses: Vec<IpAddr>,
    /// Nowhere, until then, when it comes up at a node.
    moving: Option<(Until, u32)>,
}

/// Packets that wait for a slow machine.
struct Desk {
    each_ns: u64,
    delay_ns: u64,
    queue: u64,
    /// When it is done with all that have come.
    free_ns: u64,
    until: Until,
}

/// Two parts of the internet that do not reach each other, by index of the nodes on it.
pub(super) struct Cut {
    from: Vec<bool>,
    /// `None` = all that is not in the first.
    to: Option<Vec<bool>>,
    until: Until,
    words: String,
}

impl Odd {
    /// The node whose cable a packet with this source takes.
    pub(super) fn way_out(&self, node: u32, source: IpAddr) -> Result<u32, &'static str> {
        if let Some(reason) = self.trouble() {
            return Err(reason);
        }
        if self.plugs.is_empty() {
            return Ok(node);
        }
        let plug = self.plugs.iter().find(|plug| plug.is_live() && plug.addresses.contains(&source));
        plug.map(|plug| plug.site).ok_or("no-interface")
    }

    /// Why no packet comes or goes now, if so.
    fn trouble(&self) -> Option<&'static str> {
        match self {
            Odd { off: Some(_), .. } => Some("no-power"),
            Odd { asleep: Some(_), .. } => Some("asleep"),
            Odd { hole: Some(_), .. } => Some("black-hole"),
            _ => None,
        }
    }

    /// Why a packet to an address does not reach a host with these, if so.
    fn loss(&self, to: IpAddr, addresses: &[IpAddr]) -> Option<&'static str> {
        self.trouble().or_else(|| {
            let elsewhere = !self.plugs.is_empty() && !to.is_multicast() && !addresses.contains(&to);
            elsewhere.then_some("no-interface")
        })
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.plugs.iter().filter(|plug| plug.is_live()).flat_map(|plug| &plug.addresses).copied().collect()
    }
}

impl Plug {
    fn is_live(&self) -> bool {
        self.up && self.moving.is_none()
    }
}

impl Cut {
    fn parts(&self, a: u32, b: u32) -> bool {
        let inside = |node: u32| self.from.get(node as usize) == Some(&true);
        let beyond = |node: u32| match &self.to {
            None => !inside(node),
            Some(to) => to.get(node as usize) == Some(&true),
        };
        (inside(a) && beyond(b)) || (inside(b) && beyond(a))
    }
}

impl Site {
    /// When a sleeping host wakes.
    pub(super) fn asleep_until(&self) -> Option<u64> {
        self.odd.as_ref().and_then(|odd| odd.asleep)
    }

    /// Whether a host lost its power and has not got it back.
    pub(super) fn has_no_power(&self) -> bool {
        self.odd.as_ref().is_some_and(|odd| odd.off.is_some())
    }

    pub(super) fn odd_mut(&mut self) -> &mut Odd {
        self.odd.get_or_insert_default()
    }
}

/// The end of something that begins now.
fn until(now_ns: u64, lasts: Option<Duration>) -> Until {
    lasts.map_or(u64::MAX, |lasts| now_ns.saturating_add(nanos(lasts)))
}

impl World {
    /// Gives the hosts with several interfaces or places theirs.
    pub(super) fn plug_in(&mut self, topology: &Topology) {
        for (site, node) in (0..).zip(&topology.nodes) {
            let Some(of) = &node.of else { continue };
            let own = topology.node(of.host);
            let resolver = topology.resolver(own).map(|ip| SocketAddr::new(ip, pref64::DNS_PORT));
            let own = Outlet { host: of.host, addresses: own.addresses().collect(), resolver };
            let odd = self.sites[of.host as usize].odd_mut();
            if odd.plugs.is_empty() {
                let (name, site) = (String::new(), of.host);
                odd.plugs.push(Plug { name, up: true, site, addresses: own.addresses.clone(), moving: None });
                odd.own = Some(own);
            }
            if of.first {
                let (name, up) = (of.interface.clone(), of.up);
                let addresses = node.addresses().collect();
                odd.plugs.push(Plug { name, up, site, addresses, moving: None });
            }
        }
        for node in 0..self.sites.len() as u32 {
            self.refresh_addresses(node);
        }
    }

    /// Tells a host the addresses of its interfaces, unless it sleeps.
    fn refresh_addresses(&mut self, node: u32) {
        let site = &mut self.sites[node as usize];
        let Some(odd) = site.odd.as_ref().filter(|odd| !odd.plugs.is_empty() && odd.asleep.is_none()) else {
            return;
        };
        let addresses = odd.addresses();
        let Inner::Host(host) = &mut site.body else { return };
        let mut effects = std::mem::take(&mut self.effects);
        host.set_addresses(addresses, &self.clock, &mut effects);
        self.apply(node, effects);
        self.drain();
        self.note_presence(node);
    }

    /// A packet for a host with which something is not as usual.
    pub(super) fn arrive_at_odd(&mut self, node: u32, packet: Box<Packet>) {
        let now_ns = self.clock.now_ns();
        let site = &mut self.sites[node as usize];
        let (Some(odd), Inner::Host(host)) = (&mut site.odd, &site.body) else { return };
        if let Some(reason) = odd.loss(packet.dst.ip(), host.addresses()) {
            return self.dropped_by(node, &packet, reason);
        }
        let Some(desk) = &mut odd.desk else { return self.take_in(node, packet) };
        let begins_ns = desk.free_ns.max(now_ns);
        if (begins_ns - now_ns).checked_div(desk.each_ns).is_some_and(|waiting| waiting >= desk.queue) {
            return self.dropped_by(node, &packet, "overloaded");
        }
        desk.free_ns = begins_ns + desk.each_ns;
        let at_ns = desk.free_ns + desk.delay_ns;
        self.agenda.push(at_ns, Entry::Served(node, packet));
    }

    /// A slow host comes to a packet that waited; it may not be able to any more.
    pub(super) fn serve(&mut self, node: u32, packet: Box<Packet>) {
        let site = &self.sites[node as usize];
        let lost = match (&site.odd, &site.body) {
            (Some(odd), Inner::Host(host)) => odd.loss(packet.dst.ip(), host.addresses()),
            _ => None,
        };
        match lost {
            Some(reason) => self.dropped_by(node, &packet, reason),
            None => self.take_in(node, packet),
        }
        self.drain();
    }

    /// Logs that a host went away or is back, as far as others can tell.
    pub(super) fn note_presence(&mut self, node: u32) {
        let Some(runs) = self.peer_runs(node) else { return };
        let site = &mut self.sites[node as usize];
        let Inner::Host(host) = &site.body else { return };
        let gone = host.addresses().is_empty() || !runs;
        let odd = site.odd_mut();
        let gone = gone || odd.asleep.is_some() || odd.off.is_some() || odd.hole.is_some();
        if std::mem::replace(&mut odd.gone, gone) != gone {
            let event = Event::Presence { host: site.name.clone(), present: !gone };
            self.log.push(self.clock.now_ns(), event);
        }
    }

    // ---- interfaces ------------------------------------------------------------------------------

    fn with_plug(&mut self, host: &str, name: &str, change: impl FnOnce(&mut Plug)) -> Option<u32> {
        let node = *self.by_name.get(host)?;
        let odd = self.sites[node as usize].odd_mut();
        if odd.plugs.is_empty() {
            let Inner::Host(own) = &self.sites[node as usize].body else { return None };
            let addresses = own.addresses().to_vec();
            let plug = Plug { name: String::new(), up: true, site: node, addresses, moving: None };
            self.sites[node as usize].odd_mut().plugs.push(plug);
        }
        change(self.sites[node as usize].odd_mut().plugs.iter_mut().find(|plug| plug.name == name)?);
        Some(node)
    }

    pub(super) fn set_interface(&mut self, host: &str, name: &str, up: bool) {
        if let Some(node) = self.with_plug(host, name, |plug| plug.up = up) {
            self.refresh_addresses(node);
        }
    }

    /// An interface leaves its network; where it comes up is a node of the topology.
    pub(super) fn move_host(&mut self, host: &str, name: &str, to: &Attachment, dead: Duration) {
        let own = words::interface(host, name);
        let (Attachment::Region(to) | Attachment::Behind(to)) = to;
        let there = self.by_name.get(&format!("{own}@{to}")).or_else(|| self.by_name.get(&own));
        let Some(&there) = there else { return };
        let until = until(self.clock.now_ns(), Some(dead));
        if let Some(node) = self.with_plug(host, name, |plug| plug.moving = Some((until, there))) {
            self.refresh_addresses(node);
            self.agenda.push(until, Entry::Relief(node));
        }
    }

    /// The node whose cable is in use under a name: that of a host is where the host is now.
    pub(super) fn cable_of(&self, name: &str) -> Option<u32> {
        let node = *self.by_name.get(name)?;
        let host =
            if let Inner::Outlet(outlet) = &self.sites[node as usize].body { outlet.host } else { node };
        let plugs = self.sites[host as usize].odd.as_ref().map_or(&[][..], |odd| &odd.plugs);
        let own = name.split_once('.').map_or("", |(_, interface)| interface);
        Some(plugs.iter().find(|plug| plug.name == own).map_or(node, |plug| plug.site))
    }

    // ---- troubles --------------------------------------------------------------------------------

    pub(super) fn sleep(&mut self, host: &str, lasts: Duration) {
        let Some(&node) = self.by_name.get(host) else { return };
        let until = until(self.clock.now_ns(), Some(lasts));
        let odd = self.sites[node as usize].odd_mut();
        odd.asleep = odd.asleep.max(Some(until));
        self.agenda.push(until, Entry::Relief(node));
        self.note_presence(node);
    }

    pub(super) fn set_clock(&mut self, host: &str, by: Duration, back: bool) {
        let Some(&node) = self.by_name.get(host) else { return };
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        let odd = self.sites[node as usize].odd_mut();
        odd.skew_ns = odd.skew_ns.saturating_add(if back { -by } else { by });
    }

    pub(super) fn crash(&mut self, name: &str, off: Option<Duration>) {
        let Some(&node) = self.by_name.get(name) else { return };
        let until = until(self.clock.now_ns(), off);
        // What the programs still wanted to send stays unsent.
        self.sites[node as usize].odd_mut().off = Some(until);
        self.stop_programs(node, true);
        if let Inner::Host(host) = &mut self.sites[node as usize].body {
            host.forget_connections();
        }
        self.agenda_if(until, Entry::Relief(node));
        self.note_presence(node);
    }

    pub(super) fn black_hole(&mut self, name: &str, lasts: Option<Duration>) {
        let Some(&node) = self.by_name.get(name) else { return };
        let until = until(self.clock.now_ns(), lasts);
        self.sites[node as usize].odd_mut().hole = Some(until);
        self.agenda_if(until, Entry::Relief(node));
        self.note_presence(node);
    }

    pub(super) fn slow(
        &mut self,
        name: &str,
        (each, delay): (Duration, Duration),
        queue: u64,
        lasts: Option<Duration>,
    ) {
        let Some(&node) = self.by_name.get(name) else { return };
        let now_ns = self.clock.now_ns();
        let until = until(now_ns, lasts);
        let odd = self.sites[node as usize].odd_mut();
        let free_ns = odd.desk.as_ref().map_or(now_ns, |desk| desk.free_ns);
        odd.desk = Some(Desk { each_ns: nanos(each), delay_ns: nanos(delay), queue, free_ns, until });
        self.agenda_if(until, Entry::Relief(node));
    }

    fn agenda_if(&mut self, at: Until, entry: Entry) {
        if at != u64::MAX {
            self.agenda.push(at, entry);
        }
    }

    /// Ends the troubles of a node whose time has come.
    pub(super) fn relieve(&mut self, node: u32) {
        let now_ns = self.clock.now_ns();
        let site = &mut self.sites[node as usize];
        let name = site.name.clone();
        let Some(odd) = &mut site.odd else { return };
        let mut over = |until: &mut Option<Until>, what: String| {
            let over = until.is_some_and(|until| until <= now_ns);
            if over {
                *until = None;
                self.log.push(now_ns, Event::Action { what });
            }
            over
        };
        let wakes = over(&mut odd.asleep, format!("host {name}: wakes"));
        over(&mut odd.hole, format!("{name}: packets pass again"));
        let power = over(&mut odd.off, format!("{name}: has power again"));
        let mut desk = odd.desk.as_ref().map(|desk| desk.until);
        if over(&mut desk, format!("{name}: no longer slow")) {
            odd.desk = None;
        }
        let own = odd.own.clone();
        let mut arrived = Vec::new();
        for plug in &mut odd.plugs {
            if let Some((_, there)) = plug.moving.filter(|(until, _)| *until <= now_ns) {
                (plug.site, plug.moving) = (there, None);
                arrived.push((there, plug.name.clone()));
            }
        }
        for (there, interface) in &arrived {
            let outlet = match (&self.sites[*there as usize].body, &own) {
                (Inner::Outlet(outlet), _) => (**outlet).clone(),
                (_, Some(own)) => own.clone(),
                _ => continue,
            };
            let now = outlet.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            if let (Inner::Host(host), Some(resolver)) =
                (&mut self.sites[node as usize].body, outlet.resolver)
            {
                host.set_resolver(resolver);
            }
            let odd = self.sites[node as usize].odd_mut();
            if let Some(plug) = odd.plugs.iter_mut().find(|plug| plug.name == *interface) {
                plug.addresses = outlet.addresses;
            }
            let what = format!("host {}: has {now}", words::interface(&name, interface));
            self.log.push(now_ns, Event::Action { what });
        }
        if wakes || !arrived.is_empty() {
            self.refresh_addresses(node);
        }
        if power {
            self.start_all(node);
        }
        self.note_presence(node);
    }

    // ---- the internet ----------------------------------------------------------------------------

    pub(super) fn is_cut(&self, a: u32, b: u32) -> bool {
        self.cuts.iter().any(|cut| cut.parts(a, b))
    }

    pub(super) fn cut(&mut self, from: &[Place], to: &[Place], lasts: Option<Duration>, words: String) {
        let until = until(self.clock.now_ns(), lasts);
        let (from, to) = (self.members(from), (!to.is_empty()).then(|| self.members(to)));
        self.cuts.push(Cut { from, to, until, words });
        self.agenda_if(until, Entry::Healed);
    }

    /// The nodes on the internet that belong to some places.
    fn members(&self, places: &[Place]) -> Vec<bool> {
        let mut members = vec![false; self.sites.len()];
        for place in places {
            match place {
                Place::Region(region) => {
                    let index = self.region_names.iter().position(|name| **name == **region);
                    for (site, member) in self.sites.iter().zip(&mut members) {
                        *member |=
                            index.is_some_and(|i| site.parent == Parent::Internet { region: i as u32 });
                    }
                }
                Place::Node(name) => {
                    let Some(&node) = self.by_name.get(name) else { continue };
                    for (i, site) in (0..).zip(&self.sites) {
                        if i == node || matches!(&site.body, Inner::Outlet(outlet) if outlet.host == node) {
                            members[self.outermost(i) as usize] = true;
                        }
                    }
                }
            }
        }
        members
    }

    /// The node on the internet that a node is behind, or itself.
    fn outermost(&self, mut node: u32) -> u32 {
        while let Parent::Router(router) = self.sites[node as usize].parent {
            node = router;
        }
        node
    }

    pub(super) fn heal(&mut self) {
        let now_ns = self.clock.now_ns();
        for cut in self.cuts.extract_if(.., |cut| cut.until <= now_ns) {
            self.log.push(now_ns, Event::Action { what: format!("over: {}", cut.words) });
        }
    }
}
