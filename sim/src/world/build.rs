//! A scenario and its topology become a world: keys are made, programs are put on their hosts.

use super::ipv6::Ipv6;
use super::net::{Inner, Outlet, Parent, Router, Site};
use super::{Agenda, Captures, Clock, Entry, Log, Options, Seed, World, nanos};
use crate::host::{
    Apps, COORDINATOR_PORTS, CoordinatorProgram, Effects, FlowSpec, GatewayProgram, Host, MARKER,
    PeerProgram, Program, ProxyProgram, RELAY_PORTS, RelayProgram, ResolverProgram, STUN_PORT, Secured,
    Security, StunProgram, TLS_PORT,
};
use crate::icmp::Limiter;
use crate::scenario::{Action, ProxyLogin, Scenario, Timed, Traffic, UsedProxy, Way};
use crate::topology::{COORDINATOR, Node, NodeIdx, RouterPlan, Topology};
use coord::RelayInfo;
use indexmap::IndexMap;
use link::Link;
use nat::{Firewall, Middlebox, Translation, Translator};
use pref64::Pref64;
use rand::Rng as _;
use rand_chacha::ChaCha12Rng;
use std::any::Any;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use trace::{Event, Name, NodeKind};

/// Unix time at the start of every run: 2026-01-01T00:00:00Z. WireGuard's handshakes carry a wall clock (its paper, §5.1).
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

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

/// How a program is made, at the start and after a restart.
#[derive(Debug, Clone)]
pub(super) enum Recipe {
    Proxy {
        name: Name,
        port: u16,
        config: proxy::ServerConfig,
    },
    Peer {
        name: Name,
        proxy: Option<peer::Proxy>,
        coordinator: Vec<SocketAddr>,
        coordinator_key: [u8; 32],
        coordinator_tls: Option<peer::ServerTls>,
        flows: Vec<FlowSpec>,
        /// The router that it asks for an open port.
        gateway: Option<IpAddr>,
    },
    Gateway {
        name: Name,
        config: portmap::gateway::GatewayConfig,
    },
    Relay {
        name: Name,
        certificate: Option<tls::ServerConfig>,
    },
    Stun,
    Resolver {
        prefix: Pref64,
    },
    Coordinator {
        name: Name,
        certificate: Option<tls::ServerConfig>,
        relays: Vec<RelayInfo>,
    },
}

/// A program's place and recipe, how often it was started, and what a restart keeps.
pub(super) struct Starter {
    node: u32,
    slot: u32,
    recipe: Recipe,
    starts: u32,
    kept: Option<Box<dyn Program>>,
    /// How often it lost its keys.
    identity: u32,
    /// What its wall clock said at its last start, and when that was.
    started: (Duration, u64),
    /// It does not start before.
    back_ns: u64,
    /// It does not start any more.
    dead: bool,
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
        let (mut relays, mut certificates) = (Vec::new(), Vec::new());
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
                region: i as u16 + 1,
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
        for (name, certificate) in scenario.relays.keys().zip(certificates) {
            let (node, _) = address(name)?;
            self.place(node, Recipe::Relay { name: name.as_str().into(), certificate }, Duration::ZERO);
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
        let (node, coordinator) = address(COORDINATOR)?;
        let identity = match scenario.coordinator.tls {
            true => Some(self.identity("coordinator", COORDINATOR, coordinator.address)?),
            false => None,
        };
        let coordinator_tls = identity.as_ref().map(|(pin, _)| peer::ServerTls {
            ports: vec![TLS_PORT],
            name: coordinator.address.to_string(),
            trust: tls::ClientConfig::pinned(*pin),
        });
        let certificate = identity.map(|(_, config)| config);
        let recipe = Recipe::Coordinator { name: COORDINATOR.into(), certificate, relays };
        self.place(node, recipe, Duration::ZERO);
        // By IPv6 first, as peers try relays.
        let by_port = |port: &u16| endpoints(coordinator, *port).rev();
        let coordinator: Vec<_> = COORDINATOR_PORTS.iter().flat_map(by_port).collect();
        let coordinator_key = coord::public_key(&self.key("coordinator", COORDINATOR, 0));
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
            let recipe =
                Recipe::Peer { name, proxy, coordinator, coordinator_key, coordinator_tls, flows, gateway };
            self.place(node, recipe, host.start);
        }
        Ok(())
    }

    /// Starts a program of your own on a host, server or router, now, beside those that the scenario puts there. It must
    /// not claim their ports, and it outlives their restarts. On a router it hears what comes from inside for the router's
    /// addresses or for a multicast group, and from outside answers to what it has sent.
    ///
    /// # Errors
    /// If nothing has that name.
    pub fn add_program(&mut self, node: &str, program: Box<dyn Program>) -> Result<(), BuildError> {
        let missing = || BuildError::Missing(node.to_owned());
        let index = *self.by_name.get(node).ok_or_else(missing)?;
        let slot = self.host_mut(index).ok_or_else(missing)?.reserve();
        self.start_program(index, slot, program);
        Ok(())
    }

    fn start_program(&mut self, node: u32, slot: u32, program: Box<dyn Program>) {
        let Some(host) = self.sites[node as usize].body.host() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        host.start(slot, program, &self.clock, &mut effects);
        self.apply(node, effects);
        self.drain();
    }

    fn place(&mut self, node: NodeIdx, recipe: Recipe, start: Duration) {
        let Some(slot) = self.host_mut(node).map(Host::reserve) else { return };
        self.starters.push(Starter {
            node,
            slot,
            recipe,
            starts: 0,
            kept: None,
            identity: 0,
            started: (Duration::ZERO, 0),
            back_ns: nanos(start),
            dead: false,
        });
        self.agenda.push(nanos(start), Entry::Start { node, slot });
    }

    /// The private key of a node for one purpose; `start` counts for keys that are new at each start.
    /// The certificate of a server, for its address: what others know it by, and what it shows to all.
    fn identity(
        &self,
        purpose: &str,
        name: &str,
        address: IpAddr,
    ) -> Result<(tls::Pin, tls::ServerConfig), BuildError> {
        let failed = |error: tls::Error| BuildError::Certificate(name.to_owned(), error.to_string());
        let (seed, address) = (self.key(&format!("{purpose} TLS"), name, 0), address.to_string());
        // Issued a month before the run, for the 90 days that are usual (Let's Encrypt).
        let from = EPOCH - Duration::from_secs(30 * 86_400);
        let until = EPOCH + Duration::from_secs(60 * 86_400);
        let identity = tls::Identity::self_signed(seed, &[&address], from, until).map_err(failed)?;
        Ok((identity.pin(), tls::ServerConfig::new(&identity).map_err(failed)?))
    }

    fn key(&self, purpose: &str, name: &str, start: u32) -> [u8; 32] {
        self.seed.bytes(&format!("{purpose} key {start} of {name}"))
    }

    /// Starts the program of a place, unless it runs already or its host cannot now.
    pub(super) fn start(&mut self, node: u32, slot: u32) {
        let Some(i) = self.starters.iter().position(|s| s.node == node && s.slot == slot) else { return };
        let site = &mut self.sites[node as usize];
        if let Some(wakes_ns) = site.asleep_until() {
            return self.agenda.push(wakes_ns, Entry::Start { node, slot });
        }
        if self.starters[i].dead
            || self.clock.now_ns() < self.starters[i].back_ns
            || site.has_no_power()
            || site.body.host().is_none_or(|host| host.is_running(slot))
        {
            return;
        }
        let program = self.make(i);
        self.start_program(node, slot, program);
        if self.sites[node as usize].odd.is_some() {
            self.note_presence(node);
        }
    }

    /// What a peer's wall clock says when it starts. One that keeps its identity keeps the time of its last handshake too, so
    /// that a clock set back does not make its next ones look like replays (WireGuard's paper, §5.1).
    fn epoch(&self, starter: usize) -> Duration {
        let Starter { node, starts, started: (before, started_ns), .. } = self.starters[starter];
        let now_ns = self.clock.now_ns();
        let skew_ns = self.sites[node as usize].odd.as_ref().map_or(0, |odd| odd.skew_ns);
        let truth = EPOCH + Duration::from_nanos(now_ns);
        let skew = Duration::from_nanos(skew_ns.unsigned_abs());
        let wall = if skew_ns < 0 { truth.saturating_sub(skew) } else { truth + skew };
        let last = before + Duration::from_nanos(now_ns - started_ns);
        if starts > 0 { wall.max(last) } else { wall }
    }

    /// Starts every program of a node.
    pub(super) fn start_all(&mut self, node: u32) {
        let slots: Vec<u32> = self.starters.iter().filter(|s| s.node == node).map(|s| s.slot).collect();
        for slot in slots {
            self.start(node, slot);
        }
    }

    /// Starts every program of a node at a time, or later if another restart is still to end.
    pub(super) fn start_all_at(&mut self, node: u32, at_ns: u64) {
        for starter in self.starters.iter_mut().filter(|s| s.node == node) {
            starter.back_ns = starter.back_ns.max(at_ns);
            self.agenda.push(starter.back_ns, Entry::Start { node, slot: starter.slot });
        }
    }

    /// Lets no program of a node start again.
    pub(super) fn bury(&mut self, node: u32) {
        for starter in self.starters.iter_mut().filter(|s| s.node == node) {
            starter.dead = true;
        }
    }

    /// Whether the peer of a node runs; `None` if it has none.
    pub(super) fn peer_runs(&mut self, node: u32) -> Option<bool> {
        let peer = |s: &&Starter| s.node == node && matches!(s.recipe, Recipe::Peer { .. });
        let slot = self.starters.iter().find(peer)?.slot;
        self.sites[node as usize].body.host().map(|host| host.is_running(slot))
    }

    /// Does something to the coordination server, as its administrator, if it runs.
    pub(super) fn administer(&mut self, act: impl FnOnce(&mut coord::server::Server, Instant)) {
        let coordinator = |s: &&Starter| matches!(s.recipe, Recipe::Coordinator { .. });
        let Some((node, slot)) = self.starters.iter().find(coordinator).map(|s| (s.node, s.slot)) else {
            return;
        };
        let now = self.clock.now();
        let Some(host) = self.sites[node as usize].body.host() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        host.touch(slot, &self.clock, &mut effects, |program| {
            let program: &mut dyn Any = program;
            if let Some(program) = program.downcast_mut::<Secured<CoordinatorProgram>>() {
                program.program_mut().administer(|server| act(server, now), now);
            } else if let Some(program) = program.downcast_mut::<CoordinatorProgram>() {
                program.administer(|server| act(server, now), now);
            }
        });
        self.apply(node, effects);
        self.drain();
    }

    /// Ends every program of a node. With `keeps`, the coordination server's records and the
    /// peer's keys live on, as if they were on disk.
    pub(super) fn stop_programs(&mut self, node: u32, keeps: bool) {
        for i in 0..self.starters.len() {
            let starter = &self.starters[i];
            if starter.node != node {
                continue;
            }
            let slot = starter.slot;
            let silent = self.sites[node as usize].has_no_power();
            if let Some(host) = self.sites[node as usize].body.host() {
                let mut effects = std::mem::take(&mut self.effects);
                let program = host.stop(slot, &self.clock, &mut effects);
                if silent {
                    effects.packets.clear();
                }
                let starter = &mut self.starters[i];
                let stays = match starter.recipe {
                    Recipe::Coordinator { .. } => keeps,
                    // The users of the tunnel are programs of their own.
                    Recipe::Peer { .. } => true,
                    _ => false,
                };
                if program.is_some() {
                    starter.identity += u32::from(!keeps);
                    starter.kept = program.filter(|_| stays);
                }
                self.apply(node, effects);
                self.drain();
            }
        }
    }

    /// The program of a place as it starts now.
    fn make(&mut self, i: usize) -> Box<dyn Program> {
        let kept = self.starters[i].kept.take();
        let (now, epoch) = (self.clock.now(), self.epoch(i));
        self.starters[i].started = (epoch, self.clock.now_ns());
        self.starters[i].starts += 1;
        let Starter { recipe, starts, identity, .. } = &self.starters[i];
        let (start, identity) = (starts - 1, *identity);
        let rng = |what: &str, name: &str| self.seed.chacha(&format!("{what} {start} {name}"));
        match recipe {
            Recipe::Peer { name, proxy, coordinator, coordinator_key, coordinator_tls, flows, gateway } => {
                let config = peer::Config {
                    name: name.to_string(),
                    keys: peer::Keys {
                        node: self.key("node", name, identity),
                        disco: self.key("disco", name, start),
                        machine: self.key("machine", name, identity),
                    },
                    coordinator: coordinator.clone(),
                    coordinator_key: *coordinator_key,
                    coordinator_host: String::new(),
                    auth_key: None,
                    coordinator_tls: coordinator_tls.clone(),
                    authorities: None,
                    map: None,
                    epoch,
                    policy: peer::Policy {
                        learn_peer_reflexive: self.options.peer_reflexive,
                        ..peer::Policy::default()
                    },
                    proxy: proxy.clone(),
                };
                let peer = peer::Peer::new(config, rng("peer", name), now);
                let before = kept.and_then(|kept| (kept as Box<dyn Any>).downcast::<PeerProgram>().ok());
                Box::new(match before {
                    Some(before) => before.again(peer, *gateway, now),
                    None => {
                        let apps = Apps::new(name.clone(), flows.clone(), self.clock.epoch(), now);
                        PeerProgram::new(name.clone(), peer, apps, *gateway, now)
                    }
                })
            }
            Recipe::Gateway { name, config } => {
                let gateway = portmap::gateway::Gateway::new(config.clone(), rng("port mapping", name), now);
                Box::new(GatewayProgram::new(name.clone(), gateway))
            }
            Recipe::Relay { name, certificate } => {
                let key = derp::PrivateKey::from_bytes(self.key("relay", name, 0));
                let config = derp::server::ServerConfig::default();
                let server = derp::server::Server::new(config, key, rng("relay", name), now);
                let program = RelayProgram::new(name.clone(), server);
                secured(program, certificate.as_ref(), rng("relay TLS", name), epoch, now)
            }
            Recipe::Proxy { name, port, config } => {
                Box::new(ProxyProgram::new(name.clone(), *port, proxy::Server::new(config.clone())))
            }
            Recipe::Stun => Box::new(StunProgram::new()),
            Recipe::Resolver { prefix } => Box::new(ResolverProgram::new(*prefix)),
            Recipe::Coordinator { name, certificate, relays } => {
                let key = self.key("coordinator", name, 0);
                let config = coord::server::ServerConfig {
                    epoch,
                    ..coord::server::ServerConfig::new(key, relays.clone())
                };
                let before = kept.and_then(unsecured::<CoordinatorProgram>);
                let state = before.and_then(CoordinatorProgram::into_kept).unwrap_or_default();
                let server =
                    coord::server::Server::load(config, state.clone(), rng("coordinator", name), now);
                let program = CoordinatorProgram::new(name.clone(), server, Some(state));
                secured(program, certificate.as_ref(), rng("coordinator TLS", name), epoch, now)
            }
        }
    }
}

/// A server, behind TLS if it has a certificate.
fn secured(
    program: impl Program,
    certificate: Option<&tls::ServerConfig>,
    rng: ChaCha12Rng,
    unix: Duration,
    now: Instant,
) -> Box<dyn Program> {
    let Some(config) = certificate.cloned() else { return Box::new(program) };
    let clock = tls::Clock::new(unix, now);
    let security = Security { ports: vec![TLS_PORT], config, clock, rng };
    Box::new(Secured::new(program, security, now))
}

/// The server of a kind behind its TLS, if it has any.
fn unsecured<P: Program>(program: Box<dyn Program>) -> Option<P> {
    let program: Box<dyn Any> = program;
    match program.downcast::<Secured<P>>() {
        Ok(secured) => Some(secured.into_program()),
        Err(program) => program.downcast().ok().map(|program| *program),
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

/// The same for IPv6 behind a router, which every router above passes on as it is, or the outermost with another prefix.
fn network6(topology: &Topology, router: u32) -> Option<((IpAddr, u8), u32)> {
    let plan = |node| topology.node(node).router.as_ref()?.ipv6.as_ref();
    let mut via = router;
    let mut lan = plan(router)?.lan;
    loop {
        if let Way::Npt(swap) = plan(via)?.way {
            // Further in, it would be a part of that network.
            lan =
                Some((swap.outside().address().into(), swap.outside().length())).filter(|_| via == router)?;
        }
        match topology.node(via).parent {
            crate::topology::Parent::Internet => return Some((lan, via)),
            crate::topology::Parent::Router(outer) => via = outer,
        }
    }
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

/// The networks whose addresses count on the internet, narrowest first, and the router there that leads to each.
fn networks(topology: &Topology) -> Vec<((IpAddr, u8), u32)> {
    let mut networks = Vec::new();
    for (i, node) in topology.nodes.iter().enumerate() {
        let Some(lan) = node.router.as_ref().map(|plan| plan.lan) else { continue };
        let mut via = i as u32;
        let routed = loop {
            let node = topology.node(via);
            match (node.router.as_ref().is_some_and(|plan| plan.nat.is_none()), node.parent) {
                (false, _) => break false,
                (true, crate::topology::Parent::Internet) => break true,
                (true, crate::topology::Parent::Router(router)) => via = router,
            }
        };
        if routed {
            networks.push((lan, via));
        }
        networks.extend(network6(topology, i as u32));
    }
    networks.dedup();
    networks.sort_by_key(|((_, prefix), _)| std::cmp::Reverse(*prefix));
    networks
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

/// A router's translator: a model, or the kernel's.
fn translator(
    config: Translation,
    plan: &RouterPlan,
    name: &Name,
    seed: Seed,
    options: Options,
) -> Result<Translator, BuildError> {
    let rng = seed.pcg(&format!("nat {name}"));
    if !options.kernel_boxes {
        return Ok(Translator::new(config, plan.external.clone(), rng));
    }
    let outside = |ip: &IpAddr| !super::net::in_network(plan.lan, *ip);
    let host = |ip: IpAddr| (ip, if ip.is_ipv4() { 32 } else { 128 });
    let routed = plan.inside.keys().copied().filter(outside).map(host);
    let inside = std::iter::once(plan.lan).chain(routed).collect();
    kernel_box(&config, plan.external.clone(), inside, rng)
        .map_err(|why| BuildError::NoKernelBox { router: name.to_string(), why })
}

#[cfg(target_os = "linux")]
fn kernel_box(
    config: &Translation,
    external: Vec<IpAddr>,
    inside: Vec<(IpAddr, u8)>,
    rng: rand_pcg::Pcg64Mcg,
) -> Result<Translator, String> {
    let site = kernel_nat::Site { external, inside };
    let nat = kernel_nat::KernelNat::new(config, &site, rng).map_err(|error| error.to_string())?;
    Ok(Translator::Foreign(Box::new(nat)))
}

#[cfg(not(target_os = "linux"))]
fn kernel_box(
    _: &Translation,
    _: Vec<IpAddr>,
    _: Vec<(IpAddr, u8)>,
    _: rand_pcg::Pcg64Mcg,
) -> Result<Translator, String> {
    Err("only Linux has them".to_owned())
}

fn site(
    topology: &Topology,
    node: &Node,
    seed: Seed,
    options: Options,
    start: Instant,
) -> Result<Site, BuildError> {
    let name = &node.name;
    // Both directions fail together.
    let times = seed.pcg(&format!("times of the link of {name}")).next_u64();
    let cable = |config: &link::LinkConfig, way: &str| {
        Link::new(config.clone(), seed.pcg(&format!("link {name} {way}"))).anchored(start, times)
    };
    let body = match &node.router {
        Some(plan) => {
            // A NAT64 has the axes instead.
            let nat64 = plan.ipv6.as_ref().is_some_and(|v6| matches!(v6.way, Way::Nat64 { .. }));
            let mut nat = match plan.nat.clone().filter(|_| !nat64) {
                Some(config) => Some(translator(config, plan, name, seed, options)?),
                None => None,
            };
            if let Some(nat) = &mut nat {
                nat.set_events(options.log);
            }
            Inner::Router(Box::new(Router {
                nat,
                firewall: plan
                    .firewall
                    .clone()
                    .map(|config| Box::new(Firewall::new(config, seed.pcg(&format!("firewall {name}"))))),
                ipv6: plan.ipv6.as_ref().map(|v6| {
                    let rng = |what: &str| seed.pcg(&format!("{what} {name}"));
                    Box::new(Ipv6::new(plan, v6, options.log, rng))
                }),
                inside: plan.inside.clone(),
                lan: plan.lan,
                gateway: plan.gateway,
                external: plan.external.clone(),
                own: None,
                limiter: Limiter::default(),
                refused: VecDeque::new(),
                off: false,
                back_ns: 0,
                armed_ns: None,
                lan_name: format!("{name}.lan").into(),
                wan_name: format!("{name}.wan").into(),
            }))
        }
        None if let Some(of) = &node.of => Inner::Outlet(Box::new(Outlet {
            host: of.host,
            addresses: node.addresses().collect(),
            resolver: topology.resolver(node).map(|ip| SocketAddr::new(ip, pref64::DNS_PORT)),
        })),
        None => {
            let rng = seed.chacha(&format!("host {name}"));
            let mut host = Host::new(name.clone(), node.addresses().collect(), rng, options.timers);
            if let Some(resolver) = topology.resolver(node) {
                host.set_resolver(SocketAddr::new(resolver, pref64::DNS_PORT));
            }
            Inner::Host(Box::new(host))
        }
    };
    debug_assert_eq!(node.router.is_some(), node.kind == NodeKind::Router);
    Ok(Site {
        name: name.clone(),
        odd: None,
        parent: match node.parent {
            crate::topology::Parent::Internet => Parent::Internet { region: node.region },
            crate::topology::Parent::Router(router) => Parent::Router(router),
        },
        up: cable(&node.up, "up"),
        down: cable(&node.down, "down"),
        up_name: format!("{name}.up").into(),
        down_name: format!("{name}.down").into(),
        armed_ns: [None; 2],
        body,
    })
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
