//! What firewalls leave of the ways out: which servers a host reaches over TCP, and what becomes of its UDP.

use super::oracle::Direct;
use crate::host::{COORDINATOR_PORTS, RELAY_PORTS, TLS_PORT};
use crate::scenario::{Action, ProxyLogin, Relay, Scenario};
use crate::topology::{COORDINATOR, NodeIdx, Parent, Topology};
use nat::{FirewallConfig, Portal, Proto, Rule};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What must be left of a run after a captive portal has opened, for a pair to connect in it.
const AFTER_PORTAL: Duration = Duration::from_secs(15);

/// A scenario laid out, to be asked who reaches whom over TCP.
pub(super) struct Reach<'s> {
    scenario: &'s Scenario,
    topology: Topology,
}

impl<'s> Reach<'s> {
    /// `None` for a scenario that cannot be laid out.
    pub(super) fn new(scenario: &'s Scenario) -> Option<Reach<'s>> {
        Some(Reach { scenario, topology: Topology::new(scenario).ok()? })
    }

    /// The relays that a host can use, those that are linked to each other as the first of them.
    pub(super) fn relays(&self, host: &str) -> BTreeSet<&'s str> {
        let relays = self.scenario.relays.keys().map(String::as_str);
        relays
            .filter(|relay| self.server(host, relay, &RELAY_PORTS, self.scenario.relays[*relay].tls))
            .map(|relay| self.linked(relay))
            .collect()
    }

    /// The first of the relays to which one has links.
    fn linked(&self, relay: &'s str) -> &'s str {
        let Some(mesh) = &self.scenario.relays[relay].mesh else { return relay };
        let of_mesh = |(_, other): &(&String, &Relay)| other.mesh.as_ref() == Some(mesh);
        self.scenario.relays.iter().find(of_mesh).map_or(relay, |(name, _)| name)
    }

    /// Whether a host can use the coordination server.
    pub(super) fn coordinator(&self, host: &str) -> bool {
        self.server(host, COORDINATOR, &COORDINATOR_PORTS, self.scenario.coordinator.tls)
    }

    /// `tls`: whether the server speaks it on its secure port.
    fn server(&self, host: &str, server: &str, ports: &[u16], tls: bool) -> bool {
        let (Some(node), Some(spec)) = (self.topology.find(host), self.scenario.hosts.get(host)) else {
            return false;
        };
        let reached = |from: NodeIdx, to: &str, port: u16, tls: bool| {
            self.topology.find(to).is_some_and(|to| self.tcp(from, to, port, tls))
        };
        let secure = |port: u16| tls && port == TLS_PORT;
        match &spec.proxy {
            None => ports.iter().any(|port| reached(node, server, *port, secure(*port))),
            Some(used) => {
                let Some(proxy) = self.scenario.proxies.get(&used.name) else { return false };
                let known = proxy.credentials.is_none() || used.login == ProxyLogin::Right;
                known
                    && reached(node, &used.name, proxy.port, false)
                    && ports.iter().any(|port| {
                        let connects = proxy.connect_ports.iter().any(|ports| ports.contains(*port));
                        let from = self.topology.find(&used.name);
                        connects && from.is_some_and(|from| reached(from, server, *port, secure(*port)))
                    })
            }
        }
    }

    /// Whether a connection from one node to a port of another gets through the boxes between them, at one of its addresses.
    fn tcp(&self, from: NodeIdx, to: NodeIdx, port: u16, tls: bool) -> bool {
        let mut targets = self.topology.node(to).addresses();
        targets.any(|ip| self.tcp_to(from, to, SocketAddr::new(ip, port), tls))
    }

    fn tcp_to(&self, from: NodeIdx, to: NodeIdx, target: SocketAddr, tls: bool) -> bool {
        let home = self.topology.node(to).parent;
        let own = self.topology.node(from);
        let same = own.addresses().find(|ip| ip.is_ipv4() == target.is_ipv4());
        // With IPv6 alone, through the NAT64.
        let nat64 = own.address.is_ipv6() && self.topology.resolver(own).is_some();
        let Some(mut source) = same.or(nat64.then_some(own.address)) else { return false };
        let mut at = self.topology.node(from).parent;
        while at != home {
            // Behind a router that is not on the way: nobody comes in there.
            let Parent::Router(index) = at else { return false };
            let node = self.topology.node(index);
            let Some(plan) = &node.router else { return false };
            let of_v6 = plan.ipv6.as_ref().filter(|_| source.is_ipv6());
            let firewall = match of_v6.and_then(|v6| v6.firewall.as_ref()) {
                Some(firewall) => firewall.as_ref(),
                None => plan.firewall.as_ref(),
            };
            if firewall.is_some_and(|f| !self.tcp_passes(f, &node.name, source, target, tls)) {
                return false;
            }
            if plan.nat.is_some() && (of_v6.is_none() || target.is_ipv4()) {
                source = node.address;
            }
            at = node.parent;
        }
        true
    }

    fn tcp_passes(
        &self,
        firewall: &FirewallConfig,
        router: &str,
        source: IpAddr,
        target: SocketAddr,
        tls: bool,
    ) -> bool {
        let matches = |rule: &Rule| rule.matches(Proto::Tcp, source, target);
        let inspected = !tls && firewall.tls.iter().any(|ports| ports.contains(target.port()));
        firewall.outbound.as_ref().is_none_or(|rules| rules.iter().any(matches))
            && !firewall.block.iter().any(matches)
            && !inspected
            && self.opens(firewall.portal, router)
    }

    /// Whether a captive portal opens early enough in the run.
    fn opens(&self, portal: Portal, router: &str) -> bool {
        let until = self.scenario.until;
        let in_time = |at: Duration| at.saturating_add(AFTER_PORTAL) <= until;
        match portal {
            Portal::Off => true,
            Portal::After(wait) => in_time(wait),
            Portal::UntilAccepted => self.scenario.timeline.iter().any(|timed| {
                in_time(timed.time.to)
                    && matches!(&timed.action, Action::AcceptPortal { router: r } if r == router)
            }),
        }
    }
}

/// What a firewall leaves of a direct path over UDP: everything, nothing, or something that depends on ports, addresses and
/// amounts.
pub(super) fn udp(firewall: &FirewallConfig) -> Direct {
    let about_udp = |rule: &&Rule| rule.proto.is_none_or(|proto| proto == Proto::Udp);
    let everything = |rule: &Rule| rule.ports == Rule::ALL_PORTS && rule.to.is_none() && rule.from.is_none();
    let allowed = match &firewall.outbound {
        None => Direct::Yes,
        Some(rules) => match rules.iter().filter(about_udp).map(everything).max() {
            None => Direct::No,
            Some(false) => Direct::Perhaps,
            Some(true) => Direct::Yes,
        },
    };
    let blocked = match firewall.block.iter().filter(about_udp).map(everything).max() {
        None => Direct::Yes,
        Some(false) => Direct::Perhaps,
        Some(true) => Direct::No,
    };
    let limited = firewall.udp != nat::UdpLimits::NONE;
    let limits = if limited { Direct::Perhaps } else { Direct::Yes };
    let open = if firewall.udp_blocked { Direct::No } else { Direct::Yes };
    allowed.min(blocked).min(limits).min(open)
}
