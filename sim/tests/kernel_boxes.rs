//! Scenarios played with the kernel's NAT in place of the models end as they do with them.
#![cfg(target_os = "linux")]

mod common;

use common::{Folder, jobs, play, scenario, shipped};
use kernel_nat::{KernelNat, Site, express};
use nat::{Foreign as _, Middlebox as _, Proto, Side, Verdict, Wanted, presets};
use punchbag::campaign::in_parallel;
use punchbag::campaign::matrix::pair_scenario;
use punchbag::judge::oracle;
use punchbag::topology::Topology;
use punchbag::world::{BuildError, Options, Seed, World};
use rand_pcg::Pcg64Mcg;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const KERNEL: Options = Options {
    log: true,
    timers: false,
    capture: false,
    checks: true,
    direct: true,
    peer_reflexive: true,
    kernel_boxes: true,
    disk: Duration::ZERO,
};

/// Whether this machine has kernel boxes. A test that is skipped says so past the harness, which shows nothing of tests
/// that pass.
fn able(test: &str) -> bool {
    let site = Site {
        external: vec![IpAddr::from([198, 51, 100, 1])],
        inside: vec![(IpAddr::from([192, 168, 1, 0]), 24)],
    };
    match KernelNat::new(&nat::LinuxConfig::MASQUERADE.into(), &site, Pcg64Mcg::new(1)) {
        Ok(_) => true,
        Err(error) => {
            assert!(error.is_lack(), "{test}: {error}");
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no kernel boxes here: {error}");
            false
        }
    }
}

/// The presets that the kernel has rules for, and those that it has none for.
fn presets_by_rules() -> (Vec<&'static str>, Vec<&'static str>) {
    let external = [IpAddr::from([198, 51, 100, 1])];
    presets::NATS
        .iter()
        .map(|preset| preset.name)
        .partition(|name| presets::nat(name).is_some_and(|preset| express(&preset.config, &external).is_ok()))
}

#[test]
fn the_classic_presets_and_those_of_linux_have_rules() {
    let (with, _) = presets_by_rules();
    for name in [
        "full-cone",
        "restricted-cone",
        "port-restricted-cone",
        "symmetric",
        "symmetric-sequential",
        "linux",
        "linux-naive",
        "linux-random",
    ] {
        assert!(with.contains(&name), "{name}: {with:?}");
    }
}

#[test]
fn every_pair_of_presets_ends_alike_with_models_and_with_the_kernel() {
    if !able("every_pair_of_presets_ends_alike_with_models_and_with_the_kernel") {
        return;
    }
    let (names, _) = presets_by_rules();
    let mut pairs = Vec::new();
    for (i, a) in names.iter().enumerate() {
        pairs.extend(names[i..].iter().map(|b| (*a, *b)));
    }
    let ends = |(a, b): &(&str, &str)| {
        let nat = |name: &str| format!("nat = \"{name}\"");
        let scenario = scenario(&pair_scenario(&nat(a), &nat(b)));
        // Where luck decides, ports that the kernel draws are as good as ours.
        let certain = oracle::route(&scenario, "one", "two").and_then(|route| route.path()).is_some();
        let path = |options: Options| {
            let run = play(&scenario, 1, options);
            assert!(run.summary.violations.is_empty(), "{a} with {b}: {:?}", run.summary.violations);
            run.metrics
                .pair("one", "two")
                .filter(|pair| pair.first_data_ns.is_some())
                .and_then(|pair| pair.path())
        };
        let (models, kernel) = (path(Options { kernel_boxes: false, ..KERNEL }), path(KERNEL));
        (certain && models != kernel)
            .then(|| format!("{a} with {b}: {models:?} with models, {kernel:?} with the kernel"))
    };
    let wrong: Vec<String> = in_parallel(&pairs, jobs(), ends, |_, _| ()).into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {} end elsewhere:\n{}", wrong.len(), pairs.len(), wrong.join("\n"));
}

#[test]
fn pools_of_addresses_are_the_kernels() {
    if !able("pools_of_addresses_are_the_kernels") {
        return;
    }
    let run = play(&shipped("nat/linux-pool"), 1, KERNEL);
    assert!(run.summary.passed, "{:?}", run.summary.failures);
}

#[test]
fn a_router_without_rules_is_named() {
    if !able("a_router_without_rules_is_named") {
        return;
    }
    let scenario = scenario(&pair_scenario("nat = \"cgn\"", "nat = \"linux\""));
    let topology = Topology::new(&scenario).expect("a topology");
    let Err(error) = World::new(&scenario, &topology, Seed(1), KERNEL) else {
        panic!("random ports with one mapping")
    };
    assert!(matches!(error, BuildError::NoKernelBox { .. }));
    let text = error.to_string();
    assert!(text.starts_with("router ") && text.contains("the kernel has no rules for this NAT"), "{text}");
}

#[test]
fn the_command_plays_a_scenario_with_the_kernel() {
    if !able("the_command_plays_a_scenario_with_the_kernel") {
        return;
    }
    let folder = Folder::new("kernel-boxes");
    let file = folder.file("two-homes.toml", &pair_scenario("nat = \"linux\"", "nat = \"full-cone\""));
    let bad = folder.file("bad.toml", &pair_scenario("nat = \"cgn\"", "nat = \"linux\""));
    let run = |file: &std::path::Path| {
        std::process::Command::new(env!("CARGO_BIN_EXE_punchbag"))
            .args([
                "run".as_ref(),
                file.as_os_str(),
                "--boxes".as_ref(),
                "kernel".as_ref(),
                "--out".as_ref(),
                folder.path().as_os_str(),
            ])
            .output()
            .expect("the command runs")
    };
    let good = run(&file);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let bad = run(&bad);
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("the kernel has no rules for this NAT"));
}

#[derive(Debug)]
struct Datagram {
    src: SocketAddr,
    dst: SocketAddr,
}

impl nat::Packet for Datagram {
    fn proto(&self) -> Proto {
        Proto::Udp
    }
    fn src(&self) -> SocketAddr {
        self.src
    }
    fn dst(&self) -> SocketAddr {
        self.dst
    }
    fn set_src(&mut self, src: SocketAddr) {
        self.src = src;
    }
    fn set_dst(&mut self, dst: SocketAddr) {
        self.dst = dst;
    }
    fn wire_len(&self) -> usize {
        28
    }
}

fn ep(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

fn udp(src: &str, dst: &str) -> Datagram {
    Datagram { src: ep(src), dst: ep(dst) }
}

/// Where a packet from outside ends.
fn forward(nat: &mut KernelNat, mut packet: Datagram, now: Instant) -> Option<SocketAddr> {
    let verdict = nat.packet(Side::Outside, &mut packet, now);
    matches!(verdict, Verdict::Forward(Side::Inside)).then_some(packet.dst)
}

#[test]
fn a_port_opened_on_request_and_a_new_address_reach_the_kernel() {
    if !able("a_port_opened_on_request_and_a_new_address_reach_the_kernel") {
        return;
    }
    let site = Site {
        external: vec![IpAddr::from([198, 51, 100, 1])],
        inside: vec![(IpAddr::from([192, 168, 1, 0]), 24)],
    };
    let mut nat =
        KernelNat::new(&nat::LinuxConfig::MASQUERADE.into(), &site, Pcg64Mcg::new(1)).expect("a box");
    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    let mut time = Instant::now();
    let host = ep("192.168.1.2:4000");
    let until = Some(time + std::time::Duration::from_secs(60));
    assert_eq!(nat.map(Proto::Udp, host, Wanted::Exactly(7000), until, time), Ok(ep("198.51.100.1:7000")));
    let stranger = || udp("203.0.113.9:9", "198.51.100.1:7000");
    assert_eq!(forward(&mut nat, stranger(), time), Some(host));
    assert_eq!(forward(&mut nat, udp("203.0.113.9:9", "198.51.100.1:7001"), time), None);
    time += std::time::Duration::from_secs(60);
    assert_eq!(forward(&mut nat, stranger(), time), None);
    nat.set_external(vec![IpAddr::from([198, 51, 100, 9])], time);
    assert_eq!(nat.map(Proto::Udp, host, Wanted::Exactly(7000), None, time), Ok(ep("198.51.100.9:7000")));
    assert_eq!(forward(&mut nat, udp("203.0.113.9:9", "198.51.100.9:7000"), time), Some(host));
    assert_eq!((nat.disagreements(), nat.trouble()), ((0, None), None));
}
