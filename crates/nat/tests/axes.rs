//! Random packets through NATs of random axes, against a reference that only remembers who talked to whom and when.

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::{Pkt, start, tcp, udp};
use nat::{
    Collision, DropReason, Event, Filtering, Mapping, Middlebox as _, Nat, NatConfig, Pooling,
    PortAllocation, PortRange, Proto, Side, Timeouts, Verdict, WhenFull,
};
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Step {
    wait_ms: u64,
    inside: bool,
    tcp: bool,
    host: u8,
    port: u16,
    remote: u8,
    remote_port: u16,
    /// For packets from outside: which of the external endpoints seen so far.
    aim: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![Just(0), Just(1), 0..4000_u64, Just(9_999), Just(10_000)];
    let step =
        (wait, any::<bool>(), any::<bool>(), 2..5_u8, 4000..4003_u16, 1..4_u8, 7..9_u16, any::<usize>());
    let step = step.prop_map(|(wait_ms, inside, tcp, host, port, remote, remote_port, aim)| Step {
        wait_ms,
        inside,
        tcp,
        host,
        port,
        remote,
        remote_port,
        aim,
    });
    prop::collection::vec(step, 1..120)
}

fn configs() -> impl Strategy<Value = NatConfig> {
    let filters = (
        prop::sample::select(Mapping::ALL),
        prop::sample::select(Filtering::ALL),
        prop::option::of(prop::sample::select(Mapping::ALL)),
        prop::option::of(prop::sample::select(Filtering::ALL)),
        any::<bool>(),
    );
    let ports = (
        prop::sample::select(PortAllocation::ALL),
        prop::sample::select(Collision::ALL),
        1..4_u16,
        prop_oneof![Just(0), 1..2000_u32],
        any::<bool>(),
        prop_oneof![Just(0), 1..8_u16],
        prop_oneof![Just(u16::MAX), 4000..4016_u16],
        prop::sample::select(vec![Pooling::Paired, Pooling::Arbitrary]),
    );
    let limits = (
        prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(7))],
        prop_oneof![Just(usize::MAX), 1..5_usize],
        prop::sample::select(WhenFull::ALL),
        prop_oneof![Just(usize::MAX), 1..12_usize],
    );
    (filters, ports, limits).prop_map(|(filters, ports, limits)| {
        let (mapping, filtering, tcp_mapping, tcp_filtering, refresh_inbound) = filters;
        let (allocation, collision, step, other_traffic, parity, block, high, pooling) = ports;
        let (hold_down, host_quota, when_full, capacity) = limits;
        NatConfig {
            mapping,
            filtering,
            tcp_mapping,
            tcp_filtering,
            refresh_inbound,
            allocation,
            collision,
            step,
            other_traffic,
            parity,
            block,
            ports: PortRange { low: 4000, high },
            pooling,
            hold_down,
            host_quota,
            when_full,
            capacity,
            timeouts: Timeouts::idle(TIMEOUT),
            ..NatConfig::RFC
        }
    })
}

/// Who talked to whom by which external endpoint, and when last. `None` where the filter tells nobody apart.
type Talks = BTreeMap<(Proto, SocketAddr, SocketAddr, Option<SocketAddr>), Instant>;

/// The reference.
struct Reference {
    config: NatConfig,
    talks: Talks,
}

impl Reference {
    fn with(&self, proto: Proto, remote: SocketAddr) -> Option<SocketAddr> {
        let open = self.config.filtering_of(proto) == Filtering::EndpointIndependent;
        (!open || proto == Proto::Tcp).then_some(remote)
    }

    /// The hosts that `remote` may reach at `external`.
    fn reached(&self, proto: Proto, external: SocketAddr, remote: SocketAddr) -> Vec<SocketAddr> {
        let admits = |with: &Option<SocketAddr>| match self.config.filtering_of(proto) {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => with.is_some_and(|with| with.ip() == remote.ip()),
            Filtering::AddressAndPortDependent => *with == Some(remote),
        };
        let talks = self.talks.keys();
        let mine = talks.filter(|(p, _, at, with)| *p == proto && *at == external && admits(with));
        mine.map(|(_, inside, ..)| *inside).collect()
    }

    fn seen_inside(&mut self, packet: &Pkt, external: SocketAddr, now: Instant) {
        let with = self.with(packet.proto, packet.dst);
        self.talks.insert((packet.proto, packet.src, external, with), now);
    }

    fn seen_outside(&mut self, packet: &Pkt, inside: SocketAddr, now: Instant) {
        let key = (packet.proto, inside, packet.dst, self.with(packet.proto, packet.src));
        let refresh = self.config.refresh_inbound || packet.proto == Proto::Tcp;
        if let Some(last) = self.talks.get_mut(&key).filter(|_| refresh) {
            *last = now;
        }
    }
}

fn packet(step: &Step, seen: &[(Proto, SocketAddr)]) -> Option<(Side, Pkt)> {
    let remote = format!("203.0.113.{}:{}", step.remote, step.remote_port);
    if step.inside {
        let inside = format!("10.0.0.{}:{}", step.host, step.port);
        return Some((
            Side::Inside,
            if step.tcp { tcp(&inside, &remote, "S") } else { udp(&inside, &remote) },
        ));
    }
    let (proto, external) = *seen.get(step.aim % seen.len().max(1))?;
    let external = external.to_string();
    Some((
        Side::Outside,
        if proto == Proto::Tcp { tcp(&remote, &external, "A") } else { udp(&remote, &external) },
    ))
}

/// Never two live bindings on one external endpoint, unless ports are overloaded; nobody has more of them than he may, nor
/// any that rests or is in another's block.
fn table_is_sound(nat: &Nat, config: &NatConfig) -> Result<(), TestCaseError> {
    let mut externals = Vec::new();
    let mut of_host: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut blocks: BTreeMap<(IpAddr, IpAddr), u16> = BTreeMap::new();
    for (proto, inside, external, _) in nat.bindings() {
        externals.push((proto, external));
        *of_host.entry(inside.ip()).or_default() += 1;
        prop_assert!(config.ports.contains(external.port()));
        if let Some(block) = (external.port() - config.ports.low).checked_div(config.block) {
            prop_assert_eq!(*blocks.entry((inside.ip(), external.ip())).or_insert(block), block);
        }
    }
    let count = externals.len();
    externals.sort_unstable();
    externals.dedup();
    let overloads =
        config.allocation == PortAllocation::Preserving && config.collision == Collision::Overload;
    prop_assert!(overloads || externals.len() == count);
    prop_assert!(of_host.values().all(|count| *count <= config.host_quota));
    prop_assert!(nat.conversations() <= config.capacity);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_axes_keep_the_rules(config in configs(), steps in steps()) {
        let external = ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().expect("an address"));
        let mut nat = Nat::new(config.clone(), external.to_vec(), Pcg64Mcg::seed_from_u64(5));
        nat.set_events(true);
        let mut reference = Reference { config: config.clone(), talks: Talks::new() };
        let (mut now, mut seen, mut ended) = (start(), Vec::new(), BTreeMap::new());
        let overloads =
            config.allocation == PortAllocation::Preserving && config.collision == Collision::Overload;
        for step in steps {
            now += Duration::from_millis(step.wait_ms);
            reference.talks.retain(|_, last| now < *last + TIMEOUT);
            let Some((side, before)) = packet(&step, &seen) else { continue };
            let mut after = before.clone();
            match (side, nat.packet(side, &mut after, now)) {
                (Side::Inside, Verdict::Forward(Side::Outside)) => {
                    prop_assert_eq!(after.dst, before.dst);
                    reference.seen_inside(&before, after.src, now);
                    if !seen.contains(&(before.proto, after.src)) {
                        seen.push((before.proto, after.src));
                    }
                    // There and back is the identity; who shares a port may find that another was meant.
                    let mut reply = Pkt { src: after.dst, dst: after.src, ..before.clone() };
                    let verdict = nat.packet(Side::Outside, &mut reply, now);
                    prop_assert_eq!(verdict, Verdict::Forward(Side::Inside));
                    prop_assert!(overloads || reply.dst == before.src);
                    prop_assert!(reference.reached(before.proto, after.src, before.dst).contains(&reply.dst));
                }
                (Side::Inside, Verdict::Drop(reason)) => {
                    let limits =
                        [DropReason::TableFull, DropReason::NoFreePort, DropReason::HostQuota];
                    prop_assert!(limits.contains(&reason), "{:?}", reason);
                    prop_assert!(reason != DropReason::TableFull || config.when_full == WhenFull::RefuseNew);
                }
                (Side::Outside, Verdict::Forward(Side::Inside)) => {
                    let reached = reference.reached(before.proto, before.dst, before.src);
                    prop_assert!(reached.contains(&after.dst), "{} got what is not for it", after.dst);
                    prop_assert_eq!(after.src, before.src);
                    reference.seen_outside(&before, after.dst, now);
                }
                (Side::Outside, Verdict::Drop(_)) => {
                    // What the reference lets pass is dropped only where something was evicted.
                    let reached = reference.reached(before.proto, before.dst, before.src);
                    prop_assert!(reached.is_empty() || config.when_full == WhenFull::EvictOldest);
                }
                (_, other) => prop_assert!(false, "{:?}", other),
            }
            table_is_sound(&nat, &config)?;
            while let Some(event) = nat.poll_event() {
                match event {
                    Event::BindingExpired { at, proto, external, .. } => {
                        ended.insert((proto, external), at);
                    }
                    Event::BindingCreated { at, proto, external, .. } if !overloads => {
                        let rested = ended.get(&(proto, external));
                        prop_assert!(rested.is_none_or(|ended| at >= *ended + config.hold_down));
                    }
                    _ => {}
                }
            }
        }
    }

    /// A NAT whose behaviour and addresses change while it runs stays sound, and forgets nothing that it may keep.
    #[test]
    fn changes_keep_the_rules(
        configs in prop::collection::vec(configs(), 2..5),
        pools in prop::collection::vec(1..4_u8, 2..5),
        steps in steps(),
    ) {
        let open = |config: NatConfig| NatConfig { host_quota: usize::MAX, block: 0, capacity: usize::MAX, ports: PortRange::UNPRIVILEGED, collision: Collision::Random, ..config };
        let pool = |size: u8| (1..=size).map(|i| IpAddr::from([198, 51, 100, i])).collect::<Vec<_>>();
        let mut nat = Nat::new(open(configs[0].clone()), pool(pools[0]), Pcg64Mcg::seed_from_u64(5));
        let (mut now, mut seen) = (start(), Vec::new());
        for (i, step) in steps.iter().enumerate() {
            now += Duration::from_millis(step.wait_ms);
            if i % 17 == 16 {
                let before = nat.bindings().count();
                nat.set_config(open(configs[i / 17 % configs.len()].clone()));
                prop_assert_eq!(nat.bindings().count(), before);
            }
            if i % 29 == 28 {
                let pool = pool(pools[i / 29 % pools.len()]);
                nat.set_external(pool.clone(), now);
                prop_assert!(nat.bindings().all(|(_, _, external, _)| pool.contains(&external.ip())));
            }
            let Some((side, mut packet)) = packet(step, &seen) else { continue };
            let (proto, verdict) = (packet.proto, nat.packet(side, &mut packet, now));
            if verdict == Verdict::Forward(Side::Outside) {
                seen.push((proto, packet.src));
            }
            let mut externals: Vec<_> = nat.bindings().map(|(proto, _, external, _)| (proto, external)).collect();
            let count = externals.len();
            externals.sort_unstable();
            externals.dedup();
            prop_assert_eq!(externals.len(), count);
        }
        now += TIMEOUT;
        nat.handle_timeout(now);
        prop_assert_eq!((nat.bindings().count(), nat.conversations()), (0, 0), "everything ends");
    }
}
