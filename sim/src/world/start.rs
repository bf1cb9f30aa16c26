//! How programs start, stop and start again, and what lives on in between.

use super::build::BuildError;
use super::net::Inner;
use super::{Entry, World, nanos};
use crate::host::{
    Apps, CoordinatorProgram, FlowSpec, GatewayProgram, Host, Input, PeerProgram, Program, ProxyProgram,
    RelayProgram, ResolverProgram, Secured, Security, Sibling, StunProgram, TLS_PORT, Upstream,
};
use crate::scenario::Membership;
use crate::topology::NodeIdx;
use coord::RelayInfo;
use pref64::Pref64;
use rand_chacha::ChaCha12Rng;
use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use trace::Name;

/// Unix time at the start of every run: 2026-01-01T00:00:00Z. WireGuard's handshakes carry a wall clock (its paper, §5.1).
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// How long a program that was asked to end is waited for: what systemd gives a service (`TimeoutStopSec`) is far more, but a
/// relay that still has a connection then has one that does not read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Where the coordination server is, and how it is known.
#[derive(Debug, Clone)]
pub(super) struct CoordinatorPlan {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) key: [u8; 32],
    pub(super) tls: Option<peer::ServerTls>,
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
        /// The pre-authentication key that it has.
        auth_key: Option<String>,
    },
    Gateway {
        name: Name,
        config: portmap::gateway::GatewayConfig,
    },
    Relay {
        name: Name,
        certificate: Option<tls::ServerConfig>,
        /// The word of its mesh, and the others of that.
        mesh: Option<(String, Vec<SiblingPlan>)>,
        /// Whom it asks for the keys that it serves; without, it serves everybody.
        asks: Option<CoordinatorPlan>,
    },
    Stun,
    Resolver {
        prefix: Pref64,
    },
    Coordinator {
        name: Name,
        certificate: Option<tls::ServerConfig>,
        relays: Vec<RelayInfo>,
        membership: Membership,
    },
}

/// Another relay of a relay's region.
#[derive(Debug, Clone)]
pub(super) struct SiblingPlan {
    pub(super) name: Name,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) tls: Option<peer::ServerTls>,
}

/// A program's place and recipe, how often it was started, and what a restart keeps.
pub(super) struct Starter {
    node: u32,
    slot: u32,
    recipe: Recipe,
    starts: u32,
    kept: Option<Box<dyn Program>>,
    /// How often it lost its keys, and whether it did so at its last end.
    identity: u32,
    lost: bool,
    /// What its wall clock said at its last start, and when that was.
    started: (Duration, u64),
    /// It does not start before.
    back_ns: u64,
    /// It does not start any more.
    dead: bool,
}

impl World {
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

    pub(super) fn start_program(&mut self, node: u32, slot: u32, program: Box<dyn Program>) {
        let program = match (&mut self.carrier, &self.sites[node as usize].body) {
            // A router's programs need its NAT.
            (Some(carrier), Inner::Host(_)) => carrier.carry(node, slot, program),
            _ => program,
        };
        let Some(host) = self.sites[node as usize].body.host() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        host.start(slot, program, &self.clock, &mut effects);
        self.apply(node, effects);
        self.drain();
    }

    pub(super) fn place(&mut self, node: NodeIdx, recipe: Recipe, start: Duration) {
        let Some(slot) = self.host_mut(node).map(Host::reserve) else { return };
        self.starters.push(Starter {
            node,
            slot,
            recipe,
            starts: 0,
            kept: None,
            identity: 0,
            lost: false,
            started: (Duration::ZERO, 0),
            back_ns: nanos(start),
            dead: false,
        });
        self.agenda.push(nanos(start), Entry::Start { node, slot });
    }

    /// The certificate of a server, for its address: what others know it by, and what it shows to all.
    pub(super) fn identity(
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

    /// The private key of a node for one purpose; `start` counts for keys that are new at each start.
    pub(super) fn key(&self, purpose: &str, name: &str, start: u32) -> [u8; 32] {
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
    pub(super) fn administer(
        &mut self,
        act: impl FnOnce(&mut coord::server::Server, Instant) + Send + 'static,
    ) {
        let coordinator = |s: &&Starter| matches!(s.recipe, Recipe::Coordinator { .. });
        let Some((node, slot)) = self.starters.iter().find(coordinator).map(|s| (s.node, s.slot)) else {
            return;
        };
        let now = self.clock.now();
        let touch = move |program: &mut dyn Program, now| {
            let program: &mut dyn Any = program;
            if let Some(program) = program.downcast_mut::<Secured<CoordinatorProgram>>() {
                program.program_mut().administer(|server| act(server, now), now);
            } else if let Some(program) = program.downcast_mut::<CoordinatorProgram>() {
                program.administer(|server| act(server, now), now);
            }
        };
        if let Some(carrier) = &mut self.carrier {
            return carrier.touch(node, slot, Box::new(touch));
        }
        let Some(host) = self.sites[node as usize].body.host() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        host.touch(slot, &self.clock, &mut effects, |program| touch(program, now));
        self.apply(node, effects);
        self.drain();
    }

    /// The peer of a host takes another node key, if it runs.
    pub(super) fn rotate(&mut self, host: &str) {
        let Some(&node) = self.by_name.get(host) else { return };
        let peer = |s: &&Starter| s.node == node && matches!(s.recipe, Recipe::Peer { .. });
        let Some(slot) = self.starters.iter().find(peer).map(|s| s.slot) else { return };
        let rotate = |program: &mut dyn Program, now| {
            let program: &mut dyn Any = program;
            if let Some(program) = program.downcast_mut::<PeerProgram>() {
                program.with(now, |peer, _| peer.handle(peer::Input::Rotate, now));
            }
        };
        match &mut self.carrier {
            Some(carrier) => carrier.touch(node, slot, Box::new(rotate)),
            None => self.touch(node, slot, rotate),
        }
    }

    /// A relay tells its clients how it is, if it runs.
    pub(super) fn set_health(&mut self, relay: &str, says: String) {
        let Some(&node) = self.by_name.get(relay) else { return };
        let recipe = |s: &&Starter| s.node == node && matches!(s.recipe, Recipe::Relay { .. });
        let Some(slot) = self.starters.iter().find(recipe).map(|s| s.slot) else { return };
        let tell = move |program: &mut dyn Program, now| {
            let program: &mut dyn Any = program;
            if let Some(program) = program.downcast_mut::<Secured<RelayProgram>>() {
                program.program_mut().set_health(says, now);
            } else if let Some(program) = program.downcast_mut::<RelayProgram>() {
                program.set_health(says, now);
            }
        };
        match &mut self.carrier {
            Some(carrier) => carrier.touch(node, slot, Box::new(tell)),
            None => self.touch(node, slot, tell),
        }
    }

    /// The text of a pre-authentication key.
    pub(super) fn auth_key(&self, number: usize, name: &str) -> String {
        coord::server::key_text(number as u32 + 1, &self.key("auth key", name, 0))
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
                let mut program = host.stop(slot, &self.clock, &mut effects);
                if let (Some(carrier), Some(_)) = (&mut self.carrier, &program) {
                    program = carrier.kill(node, slot, self.clock.now()).or(program);
                }
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
                    starter.lost = !keeps;
                    starter.kept = program.filter(|_| stays);
                }
                self.apply(node, effects);
                self.drain();
            }
        }
    }

    /// Asks the programs of a node to end, and starts them anew `off` after they have.
    pub(super) fn drain_programs(&mut self, name: &str, off: Duration) {
        let Some(&node) = self.by_name.get(name) else { return };
        for slot in self.slots_of(node) {
            let end = |program: &mut dyn Program, now| program.handle(Input::Shutdown, now);
            match &mut self.carrier {
                Some(carrier) => carrier.touch(node, slot, Box::new(end)),
                None => self.touch(node, slot, end),
            }
        }
        let until_ns = self.clock.now_ns() + nanos(PATIENCE);
        self.agenda.push(self.clock.now_ns() + nanos(LOOK), Entry::Drain { node, off, until_ns });
    }

    /// Looks whether the programs of a node have ended.
    pub(super) fn look_for_end(&mut self, node: u32, off: Duration, until_ns: u64) {
        let mut ended = true;
        for slot in self.slots_of(node) {
            match &self.carrier {
                Some(carrier) => ended &= carrier.is_finished(node, slot),
                None => self.touch(node, slot, |program, _| ended &= program.is_finished()),
            }
        }
        let now_ns = self.clock.now_ns();
        if !ended && now_ns < until_ns {
            return self.agenda.push(now_ns + nanos(LOOK), Entry::Drain { node, off, until_ns });
        }
        self.stop_programs(node, true);
        self.start_all_at(node, now_ns + nanos(off));
        self.note_presence(node);
    }

    fn slots_of(&self, node: u32) -> Vec<u32> {
        self.starters.iter().filter(|s| s.node == node).map(|s| s.slot).collect()
    }

    /// Does something with a program, if it runs.
    fn touch(&mut self, node: u32, slot: u32, act: impl FnOnce(&mut dyn Program, Instant)) {
        let now = self.clock.now();
        let Some(host) = self.sites[node as usize].body.host() else { return };
        let mut effects = std::mem::take(&mut self.effects);
        host.touch(slot, &self.clock, &mut effects, |program| act(program, now));
        self.apply(node, effects);
        self.drain();
    }

    /// The place of the first program that the scenario puts on a node, as an index and as the host's slot.
    pub(super) fn starter_of(&self, node: u32) -> Option<(usize, u32)> {
        let i = self.starters.iter().position(|starter| starter.node == node)?;
        Some((i, self.starters[i].slot))
    }

    /// The program of a place as it starts now.
    pub(super) fn make(&mut self, i: usize) -> Box<dyn Program> {
        let kept = self.starters[i].kept.take();
        let (now, epoch) = (self.clock.now(), self.epoch(i));
        self.starters[i].started = (epoch, self.clock.now_ns());
        self.starters[i].starts += 1;
        let Starter { recipe, starts, identity, lost, .. } = &self.starters[i];
        let (start, identity, lost) = (starts - 1, *identity, *lost);
        let rng = |what: &str, name: &str| self.seed.chacha(&format!("{what} {start} {name}"));
        match recipe {
            Recipe::Peer {
                name,
                proxy,
                coordinator,
                coordinator_key,
                coordinator_tls,
                flows,
                gateway,
                auth_key,
            } => {
                let before = kept.and_then(|kept| (kept as Box<dyn Any>).downcast::<PeerProgram>().ok());
                // What was on its disk.
                let disk = before.as_ref().map(|before| before.peer()).filter(|_| !lost);
                let config = peer::Config {
                    name: name.to_string(),
                    keys: peer::Keys {
                        node: disk
                            .map_or_else(|| self.key("node", name, identity), |peer| peer.private_key()),
                        disco: self.key("disco", name, start),
                        machine: self.key("machine", name, identity),
                    },
                    coordinator: coordinator.clone(),
                    coordinator_key: *coordinator_key,
                    coordinator_host: String::new(),
                    auth_key: auth_key.clone(),
                    coordinator_tls: coordinator_tls.clone(),
                    authorities: None,
                    map: disk.and_then(|peer| peer.map()).map(Box::new),
                    epoch,
                    policy: peer::Policy {
                        learn_peer_reflexive: self.options.peer_reflexive,
                        ..peer::Policy::default()
                    },
                    proxy: proxy.clone(),
                };
                let peer = peer::Peer::new(config, rng("peer", name), now);
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
            Recipe::Relay { name, certificate, mesh, asks } => {
                let key_of = |name: &str| derp::PrivateKey::from_bytes(self.key("relay", name, 0));
                let secret = mesh.as_ref().and_then(|(word, _)| {
                    derp::MeshKey::new(self.key("mesh", word, 0).map(|byte| format!("{byte:02x}")).concat())
                });
                let config = derp::ServerConfig {
                    mesh_key: secret.clone(),
                    admission: asks.is_some(),
                    hold_at_start: program::RELAY_HOLD,
                    ..derp::ServerConfig::default()
                };
                let server = derp::server::Server::new(config, key_of(name), rng("relay", name), now);
                let mut program = RelayProgram::new(name.clone(), server);
                if let (Some((_, others)), Some(secret)) = (mesh, secret) {
                    let sibling = |plan: &SiblingPlan| Sibling {
                        name: plan.name.clone(),
                        key: key_of(&plan.name).public(),
                        at: Upstream {
                            addresses: plan.addresses.clone(),
                            tls: plan.tls.clone(),
                            clock: tls::Clock::new(epoch, now),
                            rng: rng(&format!("link to {}", plan.name), name),
                        },
                    };
                    let others = others.iter().map(sibling).collect();
                    program = program.with_mesh(&key_of(name), &secret, others, now);
                }
                if let Some(CoordinatorPlan { addresses, key, tls }) = asks {
                    let asks = coord::relay::RelayConfig {
                        private_key: self.key("relay", name, 0),
                        server_key: *key,
                        host: String::new(),
                    };
                    let asks = coord::relay::Relay::new(asks, rng("relay admission", name));
                    let coordinator = Upstream {
                        addresses: addresses.clone(),
                        tls: tls.clone(),
                        clock: tls::Clock::new(epoch, now),
                        rng: rng("link to the coordinator", name),
                    };
                    program = program.with_admission(asks, coordinator, now);
                }
                secured(program, certificate.as_ref(), rng("relay TLS", name), epoch, now)
            }
            Recipe::Proxy { name, port, config } => {
                Box::new(ProxyProgram::new(name.clone(), *port, proxy::Server::new(config.clone())))
            }
            Recipe::Stun => Box::new(StunProgram::new()),
            Recipe::Resolver { prefix } => Box::new(ResolverProgram::new(*prefix)),
            Recipe::Coordinator { name, certificate, relays, membership } => {
                let key = self.key("coordinator", name, 0);
                let config = coord::server::ServerConfig {
                    admission: match membership.approved {
                        true => coord::server::Admission::Approved,
                        false => coord::server::Admission::Anyone,
                    },
                    key_lifetime: membership.key_lifetime,
                    renewable: membership.renewable,
                    epoch,
                    ..coord::server::ServerConfig::new(key, relays.clone())
                };
                let before = kept.and_then(unsecured::<CoordinatorProgram>);
                let state = before.and_then(CoordinatorProgram::into_kept);
                // Of one that lost its records, an administrator has made the same keys again.
                let state = state.unwrap_or_else(|| {
                    let keys = membership.auth_keys.iter().enumerate().map(|(i, (name, key))| {
                        let text = self.auth_key(i, name);
                        let new = coord::server::NewKey {
                            reusable: key.reusable,
                            lifetime_s: key.lifetime.map(|lifetime| lifetime.as_secs()),
                            ..coord::server::NewKey::default()
                        };
                        let id = i as u32 + 1;
                        (id, coord::server::key_record(id, &text, new, EPOCH.as_secs()))
                    });
                    coord::state::State { keys: keys.collect(), ..coord::state::State::default() }
                });
                let server =
                    coord::server::Server::load(config, state.clone(), rng("coordinator", name), now);
                let program =
                    CoordinatorProgram::new(name.clone(), server, Some(state)).with_disk(self.options.disk);
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
