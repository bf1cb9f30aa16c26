//! Random packets against a slow model of RFC 4787 that remembers everything and expires nothing until asked.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::{EXTERNAL, Pkt, ep, start, tcp, udp};
use nat::{
    DropReason, Filtering, FirewallConfig, Hairpin, InputPolicy, LinuxConfig, LinuxNat, LinuxRule, Mapping,
    Middlebox, Nat, NatConfig, PortAllocation, PortRange, Side, Timeouts, Translation, Translator, Verdict,
};
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

const TIMEOUT: Duration = Duration::from_secs(10);

/// One step: time passes, then a packet comes.
#[derive(Clone, Debug)]
struct Step {
    wait_ms: u64,
    inside: bool,
    host: u8,
    port: u16,
    remote: u8,
    remote_port: u16,
    /// For packets from outside: which of the external ports seen so far, or one never seen.
    aim: usize,
}

fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (
        prop_oneof![Just(0), Just(1), 0..3000_u64, Just(9_999), Just(10_000)],
        any::<bool>(),
        2..5_u8,
        4000..4003_u16,
        1..4_u8,
        7..9_u16,
        any::<usize>(),
    );
    let step = step.prop_map(|(wait_ms, inside, host, port, remote, remote_port, aim)| Step {
        wait_ms,
        inside,
        host,
        port,
        remote,
        remote_port,
        aim,
    });
    prop::collection::vec(step, 1..length)
}

fn configs() -> impl Strategy<Value = NatConfig> {
    let axes = (
        prop::sample::select(Mapping::ALL),
        prop::sample::select(Filtering::ALL),
        prop::sample::select(PortAllocation::ALL),
        any::<bool>(),
        prop_oneof![Just(usize::MAX), 1..20_usize],
        prop_oneof![Just(u16::MAX), 4000..4012_u16],
    );
    axes.prop_map(|(mapping, filtering, allocation, refresh_inbound, capacity, high)| NatConfig {
        mapping,
        filtering,
        allocation,
        refresh_inbound,
        capacity,
        ports: PortRange { low: 4000, high },
        hairpin: Hairpin::Off,
        timeouts: Timeouts::idle(TIMEOUT),
        ..NatConfig::RFC
    })
}

/// The rules of Linux that nobody gets in through unasked.
fn linux_configs() -> impl Strategy<Value = LinuxConfig> {
    let axes = (
        prop::sample::select(
            &[LinuxRule::Masquerade, LinuxRule::Snat, LinuxRule::Sequential, LinuxRule::AddressHash][..],
        ),
        prop::sample::select(InputPolicy::ALL),
        any::<bool>(),
        prop_oneof![Just(usize::MAX), 1..20_usize],
        prop_oneof![Just(None), (4000..4012_u16).prop_map(Some)],
    );
    axes.prop_map(|(rule, input, random, capacity, high)| LinuxConfig {
        rule,
        input,
        random,
        capacity,
        ports: high.map(|high| PortRange { low: 4000, high }),
        timeouts: Timeouts::idle(TIMEOUT),
        ..LinuxConfig::MASQUERADE
    })
}

fn make(config: NatConfig) -> Nat {
    Nat::new(config, vec![EXTERNAL.parse().expect("an address")], Pcg64Mcg::seed_from_u64(5))
}

/// The packet of a step, given the external endpoints seen so far.
fn packet(step: &Step, seen: &[SocketAddr]) -> (Side, Pkt) {
    let remote = format!("203.0.113.{}:{}", step.remote, step.remote_port);
    if step.inside {
        return (Side::Inside, udp(&format!("10.0.0.{}:{}", step.host, step.port), &remote));
    }
    let unseen = ep(&format!("{EXTERNAL}:3999"));
    let to = seen.get(step.aim % (seen.len() + 1)).copied().unwrap_or(unseen);
    (Side::Outside, udp(&remote, &to.to_string()))
}

/// Plays the steps and gives every packet as it came out, with its verdict.
fn play(nat: &mut dyn Middlebox, steps: &[Step], prompt: bool) -> Vec<(Verdict, Pkt)> {
    let (mut now, mut seen, mut out) = (start(), Vec::new(), Vec::new());
    for step in steps {
        now += Duration::from_millis(step.wait_ms);
        if prompt {
            nat.handle_timeout(now);
        }
        let (side, mut packet) = packet(step, &seen);
        let verdict = nat.packet(side, &mut packet, now);
        if verdict == Verdict::Forward(Side::Outside) && !seen.contains(&packet.src) {
            seen.push(packet.src);
        }
        out.push((verdict, packet));
    }
    out
}

/// A binding as the slow model sees it.
struct Known {
    inside: SocketAddr,
    /// When each remote endpoint was last heard or spoken to; one entry for all where the filter tells nobody apart.
    remotes: BTreeMap<SocketAddr, Instant>,
}

/// The slow model, by external endpoint.
struct Oracle {
    config: NatConfig,
    known: BTreeMap<SocketAddr, Known>,
    /// By what the mapping behaviour looks at.
    mapped: BTreeMap<(SocketAddr, Option<SocketAddr>), SocketAddr>,
}

impl Oracle {
    fn forget(&mut self, now: Instant) {
        for known in self.known.values_mut() {
            known.remotes.retain(|_, last| now < *last + TIMEOUT);
        }
        self.known.retain(|_, known| !known.remotes.is_empty());
        self.mapped.retain(|_, external| self.known.contains_key(external));
    }

    fn map_key(&self, inside: SocketAddr, remote: SocketAddr) -> (SocketAddr, Option<SocketAddr>) {
        let seen = match self.config.mapping {
            Mapping::EndpointIndependent => None,
            Mapping::AddressDependent => Some(SocketAddr::new(remote.ip(), 0)),
            Mapping::AddressAndPortDependent => Some(remote),
        };
        (inside, seen)
    }

    fn remote_key(&self, remote: SocketAddr) -> SocketAddr {
        match self.config.filtering {
            Filtering::EndpointIndependent => SocketAddr::new(EXTERNAL.parse().expect("an address"), 0),
            _ => remote,
        }
    }

    fn conversations(&self) -> usize {
        self.known.values().map(|known| known.remotes.len()).sum()
    }

    /// What should become of a packet from outside.
    fn inbound(&self, remote: SocketAddr, external: SocketAddr) -> Result<SocketAddr, DropReason> {
        let Some(known) = self.known.get(&external) else { return Err(DropReason::NoBinding) };
        let addresses: BTreeSet<_> = known.remotes.keys().map(|remote| remote.ip()).collect();
        match self.config.filtering {
            Filtering::AddressDependent if !addresses.contains(&remote.ip()) => {
                Err(DropReason::FilteredAddress)
            }
            Filtering::AddressAndPortDependent if !known.remotes.contains_key(&remote) => {
                Err(DropReason::FilteredPort)
            }
            _ => Ok(known.inside),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Translation there and back is the identity; two live bindings never share an external endpoint; what is filtered
    /// or expired never arrives, and everything else does; the capacity is a limit and the only one.
    #[test]
    fn the_nat_is_the_slow_model(config in configs(), steps in steps(120)) {
        let mut nat = make(config.clone());
        let mut oracle = Oracle { config: config.clone(), known: BTreeMap::new(), mapped: BTreeMap::new() };
        let (mut now, mut seen) = (start(), Vec::new());
        for step in steps {
            now += Duration::from_millis(step.wait_ms);
            oracle.forget(now);
            let (side, before) = packet(&step, &seen);
            let mut after = before.clone();
            let verdict = nat.packet(side, &mut after, now);
            if side == Side::Inside {
                let (inside, remote) = (before.src, before.dst);
                let key = oracle.map_key(inside, remote);
                let remote_key = oracle.remote_key(remote);
                let mapped = oracle.mapped.get(&key).copied();
                let opens = mapped.is_none_or(|external| !oracle.known[&external].remotes.contains_key(&remote_key));
                let full = oracle.conversations() >= config.capacity;
                match verdict {
                    Verdict::Forward(Side::Outside) => {
                        prop_assert!(!(opens && full));
                        prop_assert_eq!(after.dst, remote);
                        match mapped {
                            Some(external) => prop_assert_eq!(after.src, external),
                            None => prop_assert!(!oracle.known.contains_key(&after.src), "shared {}", after.src),
                        }
                        prop_assert!(config.ports.contains(after.src.port()));
                        oracle.mapped.insert(key, after.src);
                        let known = oracle.known.entry(after.src);
                        let known = known.or_insert(Known { inside, remotes: BTreeMap::new() });
                        known.remotes.insert(remote_key, now);
                        if !seen.contains(&after.src) {
                            seen.push(after.src);
                        }
                    }
                    Verdict::Drop(DropReason::TableFull) => prop_assert!(opens && full),
                    Verdict::Drop(DropReason::NoFreePort) => {
                        prop_assert!(mapped.is_none());
                        prop_assert_eq!(oracle.known.len(), usize::from(config.ports.high - config.ports.low) + 1);
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            } else {
                let (remote, external) = (before.src, before.dst);
                match oracle.inbound(remote, external) {
                    Ok(inside) => {
                        prop_assert_eq!(verdict, Verdict::Forward(Side::Inside));
                        prop_assert_eq!((after.src, after.dst), (remote, inside));
                        let key = oracle.remote_key(remote);
                        if let Some(known) = oracle.known.get_mut(&external)
                            && let Some(last) = known.remotes.get_mut(&key)
                            && config.refresh_inbound
                        {
                            *last = now;
                        }
                    }
                    Err(reason) => prop_assert_eq!(verdict, Verdict::Drop(reason)),
                }
            }
            prop_assert_eq!(nat.conversations(), oracle.conversations());
            prop_assert!(nat.conversations() <= config.capacity);
            prop_assert_eq!(nat.bindings().count(), oracle.known.len());
        }
    }

    /// The same packets meet the same fate, whether or not anybody listens or calls on time.
    #[test]
    fn watching_changes_nothing(
        axes in configs().prop_map(Translation::Axes),
        linux in linux_configs().prop_map(Translation::Linux),
        which in any::<bool>(),
        steps in steps(120),
    ) {
        let config = if which { axes } else { linux };
        let make = || {
            let external = vec![EXTERNAL.parse().expect("an address")];
            Translator::new(config.clone(), external, Pcg64Mcg::seed_from_u64(5))
        };
        let plain = play(&mut make(), &steps, false);
        let mut watched = make();
        watched.set_events(true);
        prop_assert_eq!(play(&mut watched, &steps, true), plain);
        // Every binding that the events created and did not end is still there.
        let mut alive = BTreeSet::new();
        while let Some(event) = watched.poll_event() {
            match event {
                nat::Event::BindingCreated { inside, external, remote, .. } => {
                    prop_assert!(alive.insert((inside, external, remote)));
                }
                nat::Event::BindingExpired { inside, external, remote, .. } => {
                    prop_assert!(alive.remove(&(inside, external, remote)));
                }
                nat::Event::Cleared => alive.clear(),
            }
        }
        let table: BTreeSet<_> = watched.bindings().map(|(_, inside, ext, remote)| (inside, ext, remote)).collect();
        prop_assert_eq!(table, alive);
    }

    /// Linux's tables: no two conversations share a tuple, an answer reaches who asked, and nobody else gets in.
    #[test]
    fn conntrack_gives_each_tuple_to_one(config in linux_configs(), steps in steps(120)) {
        let external = vec![EXTERNAL.parse().expect("an address")];
        let mut nat = LinuxNat::new(config.clone(), external, Pcg64Mcg::seed_from_u64(5));
        let (mut now, mut seen) = (start(), Vec::new());
        // By the tuple: who owns it, and when it was last sent from.
        let mut owners: BTreeMap<(SocketAddr, SocketAddr), (SocketAddr, Instant)> = BTreeMap::new();
        for step in steps {
            now += Duration::from_millis(step.wait_ms);
            owners.retain(|_, (_, last)| now < *last + TIMEOUT);
            let (side, before) = packet(&step, &seen);
            let mut after = before.clone();
            let verdict = nat.packet(side, &mut after, now);
            match (side, verdict) {
                (Side::Inside, Verdict::Forward(Side::Outside)) => {
                    let tuple = (after.src, before.dst);
                    let (owner, last) = owners.entry(tuple).or_insert((before.src, now));
                    prop_assert_eq!(*owner, before.src);
                    *last = now;
                    if !seen.contains(&after.src) {
                        seen.push(after.src);
                    }
                }
                (Side::Inside, verdict) => {
                    prop_assert!(matches!(verdict, Verdict::Drop(DropReason::NoFreePort | DropReason::TableFull)));
                }
                (Side::Outside, verdict) => match owners.get_mut(&(before.dst, before.src)) {
                    Some((owner, last)) => {
                        prop_assert_eq!(verdict, Verdict::Forward(Side::Inside));
                        prop_assert_eq!(after.dst, *owner);
                        *last = now;
                    }
                    None => {
                        let dropped = matches!(
                            verdict,
                            Verdict::Drop(DropReason::NoBinding) | Verdict::Reject(DropReason::NoBinding, _)
                        );
                        prop_assert!(dropped, "{:?}", verdict);
                    }
                },
            }
            prop_assert!(nat.conversations() <= config.capacity);
        }
    }

    /// A firewall lets in exactly what answers something not too old.
    #[test]
    fn a_firewall_is_its_memory(steps in steps(120)) {
        let config = FirewallConfig { timeouts: Timeouts::idle(TIMEOUT), ..FirewallConfig::STATEFUL };
        let mut wall = common::walled(config);
        let mut now = start();
        let mut memory: BTreeMap<(SocketAddr, SocketAddr), Instant> = BTreeMap::new();
        for step in steps {
            now += Duration::from_millis(step.wait_ms);
            memory.retain(|_, last| now < *last + TIMEOUT);
            let host = ep(&format!("10.0.0.{}:{}", step.host, step.port));
            let remote = ep(&format!("203.0.113.{}:{}", step.remote, step.remote_port));
            let (from, to, side) = if step.inside { (host, remote, Side::Inside) } else { (remote, host, Side::Outside) };
            let verdict = wall.packet(side, &mut udp(&from.to_string(), &to.to_string()), now);
            let passes = step.inside || memory.contains_key(&(host, remote));
            prop_assert_eq!(matches!(verdict, Verdict::Forward(_)), passes);
            if passes {
                memory.insert((host, remote), now);
            }
            prop_assert_eq!(wall.conversations(), memory.len());
        }
    }

    /// TCP flags in any order neither break the table nor let a stranger in.
    #[test]
    fn any_tcp_flags_keep_the_rules(
        packets in prop::collection::vec((any::<bool>(), "S?A?F?R?", 0..300_u64), 1..80),
    ) {
        let config = NatConfig { filtering: Filtering::AddressAndPortDependent, ..NatConfig::RFC };
        let mut nat = make(config);
        let mut now = start();
        let mut last_seen: Option<Instant> = None;
        for (inside, flags, wait) in packets {
            now += Duration::from_secs(wait);
            let external = format!("{EXTERNAL}:4000");
            let (side, mut packet) = if inside {
                (Side::Inside, tcp("10.0.0.2:4000", "203.0.113.1:7", &flags))
            } else {
                (Side::Outside, tcp("203.0.113.1:7", &external, &flags))
            };
            let verdict = nat.packet(side, &mut packet, now);
            let stranger = nat.packet(Side::Outside, &mut tcp("203.0.113.1:8", &external, &flags), now);
            prop_assert!(matches!(stranger, Verdict::Drop(_)));
            // Nothing is forgotten before the transitory time, and nothing remembered after the established one.
            if let Some(last) = last_seen {
                let silent = now - last;
                let passed = matches!(verdict, Verdict::Forward(_));
                if !inside {
                    prop_assert!(passed || silent >= Timeouts::RFC.tcp_transitory);
                    prop_assert!(!passed || silent < Timeouts::RFC.tcp_established);
                }
            }
            if matches!(verdict, Verdict::Forward(_)) {
                last_seen = Some(now);
            }
        }
    }
}
