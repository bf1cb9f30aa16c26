//! A scenario and its topology become a world: keys are made, programs are put on their hosts.

use super::site::{networks, site};
use super::start::{CoordinatorPlan, Recipe, SiblingPlan};
use super::{Agenda, Captures, Clock, Log, Options, Seed, World, nanos};
use crate::host::{COORDINATOR_PORTS, Effects, FlowSpec, MARKER, RELAY_PORTS, STUN_PORT, TLS_PORT};
use crate::scenario::{Action, ProxyLogin, Relay, Scenario, Timed, Traffic, UsedProxy, Way};
use crate::topology::{COORDINATOR, Node, NodeIdx, Topology};
use coord::RelayInfo;
use indexmap::IndexMap;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use trace::{Event, Name};

/// Region numbers of STUN servers that stand alone begin here; relays count from 1.
const STUN_ONLY_REGIONS: u16 = 1000;

/// Why a world could not be built from a topology.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The topology has no such host or server.
    #[error("{0} is no host, server or router of the topology")]
    Missing(String),
    /// A server's certificate could not be made.
    #[error("no certificate for {0}: {1}")]
    Certificate(String, String),
    /// A router cannot be played by the kernel.
    #[error("router {router} has no kernel box: {why}")]
    NoKernelBox {
        /// Which.
        router: String,
        /// Why not.
        why: String,
    },
}

impl World {
    /// Builds the world of a scenario.
    pub fn new(
        scenario: &Scenario,
        topology: &Topology,
        seed: Seed,
        options: Options,
    ) -> Result<World, BuildError> {
        let mut world = World::network(scenario, topology, seed, options)?;
        world.install(scenario, topology)?;
        world.schedule();
        Ok(world)
    }

    /// Builds the network of a scenario with nothing on its hosts and servers, for programs of your own: see
    /// [`add_program`](World::add_program). Routers, cables and the timeline are those of the scenario; its traffic and
    /// expectations mean nothing here.
    ///
    /// ```
    /// use punchbag::Program;
    /// use punchbag::host::{Input, Output};
    /// use punchbag::scenario::parse;
    /// use punchbag::topology::Topology;
    /// use punchbag::world::{Options, Seed, World};
    /// use std::net::SocketAddr;
    /// use std::time::{Duration, Instant};
    ///
    /// /// Asks once, if it knows whom, and says where an answer came from.
    /// struct Asker {
    ///     ask: Option<SocketAddr>,
    ///     out: Vec<Output>,
    /// }
    ///
    /// impl Program for Asker {
    ///     fn udp_ports(&self) -> Vec<u16> {
    ///         vec![4000]
    ///     }
    ///     fn handle(&mut self, input: Input<'_>, _now: Instant) {
    ///         match (input, self.ask) {
    ///             (Input::Addresses(_), Some(to)) => {
    ///                 self.out.push(Output::Datagram { port: 4000, to, data: "where am I?".into() });
    ///             }
    ///             (Input::Datagram { from, .. }, None) => {
    ///                 let data = from.to_string().into_bytes().into();
    ///                 self.out.push(Output::Datagram { port: 4000, to: from, data });
    ///             }
    ///             (Input::Datagram { data, .. }, Some(_)) => {
    ///                 assert_eq!(data.as_ref(), b"33.0.0.1:4000", "the address of the router at home");
    ///             }
    ///             _ => {}
    ///         }
    ///     }
    ///     fn handle_timeout(&mut self, _now: Instant) {}
    ///     fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
    ///         None
    ///     }
    ///     fn poll_output(&mut self) -> Option<Output> {
    ///         self.out.pop()
    ///     }
    /// }
    ///
    /// let text = r#"
    /// title = "A machine at home asks one on the internet"
    /// router.home = { region = "eu-west", nat = "port-restricted-cone" }
    /// host.takkie = { behind = "home" }
    /// host.flappie = { region = "eu-west" }
    /// "#;
    /// let scenario = parse("asked", "asked.toml", text)?;
    /// let topology = Topology::new(&scenario)?;
    /// let mut world = World::bare(&scenario, &topology, Seed(1), Options::default())?;
    /// let flappie = topology.node(topology.find("flappie").unwrap()).address;
    /// world.add_program("flappie", Box::new(Asker { ask: None, out: Vec::new() }))?;
    /// world.add_program("takkie", Box::new(Asker { ask: Some((flappie, 4000).into()), out: Vec::new() }))?;
    /// world.run_until(Duration::from_secs(1));
    /// assert_eq!(world.packets(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If a router cannot be played by the kernel, where that was asked for.
    pub fn bare(
        scenario: &Scenario,
        topology: &Topology,
        seed: Seed,
        options: Options,
    ) -> Result<World, BuildError> {
        let mut world = World::network(scenario, topology, seed, options)?;
        world.schedule();
        Ok(world)
    }

    fn network(
        scenario: &Scenario,
        topology: &Topology,
        seed: Seed,
        options: Options,
    ) -> Result<World, BuildError> {
        let clock = Clock::new();
        let regions = topology.regions.len() as u32;
        let pairs = (0..regions).flat_map(|a| (0..regions).map(move |b| (a, b)));
        let mut world = World {
            sites: topology
                .nodes
                .iter()
                .map(|node| site(topology, node, seed, options, clock.now()))
                .collect::<Result<_, _>>()?,
            by_name: topology.by_name.iter().map(|(name, node)| (name.to_string(), *node)).collect(),
            internet: topology.internet.clone(),
            networks: networks(topology),
            latency_ns: pairs.map(|(a, b)| nanos(topology.one_way(a, b))).collect(),
            regions,
            region_names: topology.regions.clone(),
            starters: Vec::new(),
            cuts: Vec::new(),
            readdressed: topology.readdressed.clone(),
            timeline: timeline(scenario, topology),
            until_ns: nanos(scenario.until),
            clock,
            agenda: Agenda::default(),
            seed,
            options,
            log: Log::new(options.log),
            captures: options.capture.then(Captures::default),
            plaintext: memchr::memmem::Finder::new(MARKER.as_slice()),
            violations: 0,
            failure: None,
            packets: 0,
            events: 0,
            steps: VecDeque::new(),
            carrier: None,
            queued: IndexMap::default(),
            effects: Effects::default(),
        };
        world.describe(topology);
        world.plug_in(topology);
        for (name, _) in scenario.hosts.iter().filter(|(_, host)| !host.dont_fragment) {
            if let Some(host) = topology.find(name).and_then(|node| world.host_mut(node)) {
                host.allow_fragments();
            }
        }
        Ok(world)
    }

    /// Writes the topology into the log.
    fn describe(&mut self, topology: &Topology) {
        for node in topology.nodes.iter().filter(|node| node.of.is_none()) {
            let behind = match node.parent {
                crate::topology::Parent::Internet => None,
                crate::topology::Parent::Router(router) => Some(topology.node(router).name.clone()),
            };
            let event = Event::Node {
                node: node.name.clone(),
                kind: node.kind,
                behind,
                region: topology.regions[node.region as usize].clone(),
                address: node.address,
                about: node.router.as_ref().map(|r| r.about.clone()).unwrap_or_default(),
            };
            self.log.push(0, event);
        }
    }

    /// Puts the programs on their hosts; servers start at once, peers when the scenario says.
    fn install(&mut self, scenario: &Scenario, topology: &Topology) -> Result<(), BuildError> {
        let address = |name: &str| {
            let node = topology.find(name).ok_or_else(|| BuildError::Missing(name.to_owned()))?;
            Ok((node, topology.node(node)))
        };
        let (mut relays, mut certificates) = (Vec::<RelayInfo>::new(), Vec::new());
        for (i, (name, spec)) in scenario.relays.iter().enumerate() {
            let (_, node) = address(name)?;
            let identity = spec.tls.then(|| self.identity("relay", name, node.address)).transpose()?;
            let tls = identity.as_ref().map(|(pin, _)| coord::RelayTls {
                ports: vec![TLS_PORT],
                pin: Some(pin.0),
                name: String::new(),
            });
            certificates.push(identity.map(|(_, config)| config));
            relays.push(RelayInfo {
                // Its own, or that of the first of its mesh.
                region: scenario.relays.values().position(|first| linked(first, spec)).unwrap_or(i) as u16
                    + 1,
                name: name.clone(),
                key: derp::PrivateKey::from_bytes(self.key("relay", name, 0)).public().0,
                addr: node.address,
                addr6: second(node),
                derp_ports: RELAY_PORTS.to_vec(),
                tls,
                stun: endpoints(node, STUN_PORT).collect(),
            });
        }
        for (i, (name, server)) in scenario.stuns.iter().enumerate() {
            let (_, node) = address(name)?;
            let stun = endpoints(node, STUN_PORT);
            // One that stands in a relay's region measures the same way; others tell of no relay.
            let beside = scenario.relays.values().position(|relay| relay.region == server.region);
            match beside {
                Some(relay) => relays[relay].stun.extend(stun),
                None => relays.push(RelayInfo {
                    region: STUN_ONLY_REGIONS + i as u16,
                    name: name.clone(),
                    key: [0; 32],
                    addr: node.address,
                    addr6: second(node),
                    derp_ports: Vec::new(),
                    tls: None,
                    stun: stun.collect(),
                }),
            }
        }
        for (i, node) in topology.nodes.iter().enumerate() {
            if let Some(config) = node.router.as_ref().and_then(|plan| plan.port_mapping.clone()) {
                let name = node.name.clone();
                self.place(i as NodeIdx, Recipe::Gateway { name, config }, Duration::ZERO);
            }
        }
        let (coordinator_node, coordinator) = address(COORDINATOR)?;
        let identity = match scenario.coordinator.tls {
            true => Some(self.identity("coordinator", COORDINATOR, coordinator.address)?),
            false => None,
        };
        let coordinator_tls = identity.as_ref().map(|(pin, _)| peer::ServerTls {
            ports: vec![TLS_PORT],
            name: coordinator.address.to_string(),
            trust: tls::ClientConfig::pinned(*pin),
        });
        // By IPv6 first, as peers try relays.
        let by_port = |port: &u16| endpoints(coordinator, *port).rev();
        let coordinator: Vec<_> = COORDINATOR_PORTS.iter().flat_map(by_port).collect();
        let coordinator_key = coord::public_key(&self.key("coordinator", COORDINATOR, 0));
        for ((name, spec), certificate) in scenario.relays.iter().zip(certificates) {
            let (node, _) = address(name)?;
            let others = scenario.relays.values().zip(&relays);
            let others = others.filter(|(other, info)| linked(other, spec) && info.name != *name);
            let plan = |info: &RelayInfo| SiblingPlan {
                name: info.name.as_str().into(),
                addresses: info
                    .derp_ports
                    .iter()
                    .flat_map(|port| {
                        let ips = info.addr6.map(IpAddr::V6).into_iter().chain([info.addr]);
                        ips.map(|ip| SocketAddr::new(ip, *port))
                    })
                    .collect(),
                tls: info.tls.as_ref().and_then(|tls| {
                    Some(peer::ServerTls {
                        ports: tls.ports.clone(),
                        name: info.addr.to_string(),
                        trust: tls::ClientConfig::pinned(tls::Pin(tls.pin?)),
                    })
                }),
            };
            let others: Vec<SiblingPlan> = others.map(|(_, info)| plan(info)).collect();
            let mesh = spec.mesh.clone().map(|word| (word, others));
            let asks = spec.members_only.then(|| CoordinatorPlan {
                addresses: coordinator.clone(),
                key: coordinator_key,
                tls: coordinator_tls.clone(),
            });
            let recipe = Recipe::Relay { name: name.as_str().into(), certificate, mesh, asks };
            self.place(node, recipe, Duration::ZERO);
        }
        for name in scenario.stuns.keys() {
            let (node, _) = address(name)?;
            self.place(node, Recipe::Stun, Duration::ZERO);
        }
        for (name, spec) in &scenario.proxies {
            let (node, _) = address(name)?;
            let config = proxy::ServerConfig {
                ports: spec.connect_ports.iter().map(|ports| ports.low..=ports.high).collect(),
                credentials: spec.credentials.clone(),
                ..proxy::ServerConfig::default()
            };
            let recipe = Recipe::Proxy { name: name.as_str().into(), port: spec.port, config };
            self.place(node, recipe, Duration::ZERO);
        }
        for (name, router) in &scenario.routers {
            let Some(Way::Nat64 { prefix }) = router.ipv6.as_ref().map(|v6| v6.way) else { continue };
            let (node, _) = address(name)?;
            self.place(node, Recipe::Resolver { prefix }, Duration::ZERO);
        }
        let certificate = identity.map(|(_, config)| config);
        let recipe = Recipe::Coordinator {
            name: COORDINATOR.into(),
            certificate,
            relays,
            membership: scenario.membership.clone(),
        };
        self.place(coordinator_node, recipe, Duration::ZERO);
        for (name, host) in &scenario.hosts {
            let (node, _) = address(name)?;
            let flows = flows_of(name, &scenario.traffic);
            let name: Name = name.as_str().into();
            let (coordinator, coordinator_tls) = (coordinator.clone(), coordinator_tls.clone());
            let proxy = match &host.proxy {
                None => None,
                Some(used) => Some(used_proxy(scenario, used, address(&used.name)?.1.address)),
            };
            let gateway = host.port_mapping.then(|| default_gateway(topology, node)).flatten();
            let auth_key = host.auth_key.as_ref().and_then(|key| {
                let number = scenario.membership.auth_keys.get_index_of(key)?;
                Some(self.auth_key(number, key))
            });
            let recipe = Recipe::Peer {
                name,
                proxy,
                coordinator,
                coordinator_key,
                coordinator_tls,
                flows,
                gateway,
                auth_key,
            };
            self.place(node, recipe, host.start);
        }
        Ok(())
    }
}

/// Where a node sends what is not for its own network: with IPv4 what it sends by that.
fn default_gateway(topology: &Topology, node: NodeIdx) -> Option<IpAddr> {
    match topology.node(node).parent {
        crate::topology::Parent::Internet => None,
        crate::topology::Parent::Router(router) => {
            let plan = topology.node(router).router.as_ref()?;
            let v6 =
                plan.ipv6.as_ref().map(|v6| v6.gateway).filter(|_| topology.node(node).address.is_ipv6());
            Some(v6.unwrap_or(plan.gateway))
        }
    }
}

/// Whether two relays, which may be the same, are of one mesh.
fn linked(a: &Relay, b: &Relay) -> bool {
    a.mesh.is_some() && a.mesh == b.mesh
}

/// A port at every address of a node.
fn endpoints(node: &Node, port: u16) -> impl DoubleEndedIterator<Item = SocketAddr> {
    node.addresses().map(move |ip| SocketAddr::new(ip, port))
}

/// The IPv6 address of a node that has one of IPv4 as well.
fn second(node: &Node) -> Option<std::net::Ipv6Addr> {
    match node.address6 {
        Some(IpAddr::V6(v6)) => Some(v6),
        _ => None,
    }
}

/// What a peer is told of the proxy at `ip` that its host uses.
fn used_proxy(scenario: &Scenario, used: &UsedProxy, ip: IpAddr) -> peer::Proxy {
    let proxy = scenario.proxies.get(&used.name);
    let credentials = proxy.and_then(|proxy| proxy.credentials.clone());
    let credentials = match used.login {
        ProxyLogin::Right => credentials,
        ProxyLogin::None => None,
        ProxyLogin::Wrong => proxy::Credentials::new("nobody", "wrong").ok(),
    };
    peer::Proxy { address: SocketAddr::new(ip, proxy.map_or(0, |proxy| proxy.port)), credentials }
}

/// The timeline, with addresses in place of names in its firewalls.
fn timeline(scenario: &Scenario, topology: &Topology) -> Vec<Timed> {
    let mut timeline = scenario.timeline.clone();
    for timed in &mut timeline {
        match &mut timed.action {
            Action::SetFirewall { firewall: Some(firewall), .. } => {
                firewall.resolve(|name| topology.addresses_of(name));
            }
            Action::ChangeRules { change, .. } => change.resolve(|name| topology.addresses_of(name)),
            _ => {}
        }
    }
    timeline
}

/// The sides of the flows that a host has. Flows between one pair carry a number from the second of a kind on.
fn flows_of(host: &str, traffic: &[Traffic]) -> Vec<FlowSpec> {
    let mut seen: IndexMap<String, u32> = IndexMap::new();
    let mut flows = Vec::new();
    for (i, t) in traffic.iter().enumerate() {
        let kind = match t.kind {
            trace::FlowKind::Ping => "ping",
            trace::FlowKind::Voice => "voice",
            trace::FlowKind::Bulk => "bulk",
        };
        let name = format!("{kind} {} {}", t.from, t.to);
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        let name: Name = if *count == 1 { name.into() } else { format!("{name} {count}").into() };
        let initiator = t.from == host;
        if !initiator && t.to != host {
            continue;
        }
        flows.push(FlowSpec {
            index: i as u32,
            name,
            kind: t.kind,
            initiator,
            other: if initiator { t.to.as_str() } else { t.from.as_str() }.into(),
            at: t.at,
            stop: t.stop,
            interval: t.interval,
            size: t.size,
            bytes: t.bytes,
        });
    }
    flows
}
