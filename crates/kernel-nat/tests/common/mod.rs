//! Boxes to hold against each other, and random packets.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use kernel_nat::{Ends, Error, KernelNat, Site};
use nat::{
    Fault, ForwardPolicy, InputPolicy, LinuxConfig, LinuxNat, LinuxRule, Middlebox as _, Packet, PortRange,
    Proto, Side, TcpFlags, Verdict,
};
use rand::RngExt as _;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pkt {
    pub(crate) proto: Proto,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) flags: Option<TcpFlags>,
    pub(crate) quoted: Option<Box<Pkt>>,
}

impl Packet for Pkt {
    fn proto(&self) -> Proto {
        self.proto
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
    fn tcp_flags(&self) -> Option<TcpFlags> {
        self.flags
    }
    fn wire_len(&self) -> usize {
        28
    }
    fn quoted(&mut self) -> Option<&mut dyn Packet> {
        self.quoted.as_deref_mut().map(|quoted| quoted as &mut dyn Packet)
    }
}

pub(crate) fn ep(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// Whether this process may make boxes with these ends. Where it may not, the test runs again in a user namespace of its own; where that
/// is not possible either, it says so, and `false` ends the test.
pub(crate) fn able(test: &str, ends: Ends) -> bool {
    const AGAIN: &str = "KERNEL_NAT_TEST_IN_USER_NAMESPACE";
    let error = match masquerade(ends) {
        Ok(_) => return true,
        Err(error) => error,
    };
    if matches!(error, Error::NoRights(_)) && std::env::var_os(AGAIN).is_none() {
        let again = Command::new("unshare")
            .args(["--user", "--map-root-user"])
            .arg(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(AGAIN, "1")
            .status();
        if let Ok(status) = again {
            assert!(status.success(), "{test} failed in a user namespace");
            return false;
        }
    }
    assert!(error.is_lack(), "{test}: {error}");
    // Past the test harness, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no kernel boxes here: {error}");
    false
}

/// A box that masquerades.
pub(crate) fn masquerade(ends: Ends) -> Result<KernelNat, Error> {
    KernelNat::with_ends(&LinuxConfig::MASQUERADE.into(), &site(1), Pcg64Mcg::seed_from_u64(1), ends)
}

pub(crate) fn site(addresses: u8) -> Site {
    Site {
        external: (1..=addresses).map(|last| IpAddr::from([198, 51, 100, last])).collect(),
        inside: vec![(IpAddr::from([192, 168, 1, 0]), 24)],
    }
}

/// A kind of rule under test.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: LinuxConfig,
    pub(crate) addresses: u8,
}

/// Every kind of rule, with the policies of both chains.
pub(crate) fn cases() -> Vec<Case> {
    const BASE: LinuxConfig = LinuxConfig::MASQUERADE;
    let range = Some(PortRange { low: 50_000, high: 50_039 });
    let small = Some(PortRange { low: 61_440, high: 61_503 });
    let of = |rule| LinuxConfig { rule, ..BASE };
    let map = |rule| LinuxConfig {
        rule,
        forward: ForwardPolicy::Accept,
        map_timeout: Duration::from_secs(60),
        ..BASE
    };
    let hosts: Cow<'static, [IpAddr]> =
        Cow::Owned(vec![IpAddr::from([192, 168, 1, 2]), IpAddr::from([192, 168, 1, 3])]);
    let kinds = [
        ("masquerade", BASE, 1),
        ("masquerade with ports", LinuxConfig { ports: range, ..BASE }, 1),
        ("masquerade random", LinuxConfig { random: true, ..BASE }, 1),
        ("masquerade random with ports", LinuxConfig { random: true, ports: range, ..BASE }, 1),
        ("snat", of(LinuxRule::Snat), 1),
        ("snat persistent", LinuxConfig { persistent: true, ..of(LinuxRule::Snat) }, 1),
        ("snat random", LinuxConfig { random: true, ..of(LinuxRule::Snat) }, 1),
        ("snat with ports", LinuxConfig { ports: range, ..of(LinuxRule::Snat) }, 1),
        ("snat to a pool", of(LinuxRule::Snat), 4),
        ("snat to a pool, persistent", LinuxConfig { persistent: true, ..of(LinuxRule::Snat) }, 4),
        ("snat to a pool with ports", LinuxConfig { ports: range, ..of(LinuxRule::Snat) }, 4),
        ("endpoint-hash", LinuxConfig { ports: small, ..of(LinuxRule::EndpointHash) }, 1),
        ("address-hash", LinuxConfig { ports: small, ..of(LinuxRule::AddressHash) }, 1),
        ("endpoints-hash", LinuxConfig { ports: small, ..of(LinuxRule::EndpointsHash) }, 1),
        ("sequential", LinuxConfig { ports: small, ..of(LinuxRule::Sequential) }, 1),
        ("full-cone", map(LinuxRule::FullCone), 1),
        ("full-cone that hairpins", LinuxConfig { hairpin: true, ..map(LinuxRule::FullCone) }, 1),
        (
            "full-cone behind a strict FORWARD",
            LinuxConfig { forward: ForwardPolicy::Drop, ..map(LinuxRule::FullCone) },
            1,
        ),
        ("restricted-cone", map(LinuxRule::RestrictedCone), 1),
        (
            "static",
            LinuxConfig { hosts: hosts.clone(), forward: ForwardPolicy::Accept, ..of(LinuxRule::Static) },
            2,
        ),
        (
            "static that hairpins",
            LinuxConfig {
                hosts: hosts.clone(),
                hairpin: true,
                forward: ForwardPolicy::Accept,
                ..of(LinuxRule::Static)
            },
            2,
        ),
        (
            "static behind a strict FORWARD",
            LinuxConfig { hosts, forward: ForwardPolicy::Reject, ..of(LinuxRule::Static) },
            2,
        ),
        ("masquerade with an open FORWARD", LinuxConfig { forward: ForwardPolicy::Accept, ..BASE }, 1),
        ("masquerade with a rejecting FORWARD", LinuxConfig { forward: ForwardPolicy::Reject, ..BASE }, 1),
        ("strict TCP", LinuxConfig { tcp_pickup: false, ..of(LinuxRule::Snat) }, 1),
    ];
    let mut cases = Vec::new();
    for (name, config, addresses) in kinds {
        for input in InputPolicy::ALL {
            let config = LinuxConfig { input: *input, ..config.clone() };
            cases.push(Case { name: format!("{name}, input {input}"), config, addresses });
        }
    }
    cases
}

/// The kernel and a model, side by side.
pub(crate) struct Pair {
    pub(crate) kernel: KernelNat,
    pub(crate) model: LinuxNat,
    rng: Pcg64Mcg,
    now: Instant,
    addresses: u8,
    /// External and remote endpoints of packets that went out.
    seen: Vec<Pkt>,
    /// Packets as they came in.
    came: Vec<Pkt>,
}

impl Pair {
    pub(crate) fn new(case: &Case, seed: u64, fault: Option<Fault>, ends: Ends) -> Pair {
        let site = site(case.addresses);
        let rng = Pcg64Mcg::seed_from_u64(2);
        let kernel = KernelNat::with_ends(&case.config.clone().into(), &site, rng, ends);
        let mut model = LinuxNat::new(case.config.clone(), site.external, Pcg64Mcg::seed_from_u64(2));
        model.set_fault(fault);
        Pair {
            kernel: kernel.unwrap_or_else(|error| panic!("{}: {error}", case.name)),
            model,
            rng: Pcg64Mcg::seed_from_u64(seed),
            now: start(),
            addresses: case.addresses,
            seen: Vec::new(),
            came: Vec::new(),
        }
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())].clone()
    }

    fn flags(&mut self) -> TcpFlags {
        let flags = self.pick(&["S", "S", "S", "SA", "SA", "A", "A", "A", "FA", "R", "RA"]);
        let has = |letter| flags.contains(letter);
        TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') }
    }

    fn packet(&mut self, proto: Proto, src: SocketAddr, dst: SocketAddr) -> Pkt {
        let flags = (proto == Proto::Tcp).then(|| self.flags());
        // An echo request has its number in the source, a reply in the destination.
        let (src, dst) = match proto {
            Proto::Icmp if src.port() != 0 && dst.port() != 0 => (src, SocketAddr::new(dst.ip(), 0)),
            _ => (src, dst),
        };
        Pkt { proto, src, dst, flags, quoted: None }
    }

    fn inside(&mut self) -> SocketAddr {
        let port = self.pick(&[4000_u16, 4000, 4001, 500, 700, 50_003]);
        SocketAddr::from(([192, 168, 1, self.rng.random_range(2..5)], port))
    }

    fn remote(&mut self) -> SocketAddr {
        let port = self.pick(&[1000_u16, 2000]);
        SocketAddr::from(([203, 0, 113, self.rng.random_range(1..4)], port))
    }

    fn external(&mut self) -> SocketAddr {
        let port = self.pick(&[4000_u16, 4001, 500, 9]);
        SocketAddr::from(([198, 51, 100, self.rng.random_range(1..=self.addresses)], port))
    }

    fn proto(&mut self) -> Proto {
        self.pick(&[Proto::Udp, Proto::Udp, Proto::Udp, Proto::Tcp, Proto::Tcp, Proto::Icmp])
    }

    /// The next packet, and the side it comes from.
    fn next(&mut self) -> (Side, Pkt) {
        let kind = self.rng.random_range(0..100_u32);
        let proto = self.proto();
        match kind {
            // Out, to somebody new or old.
            0..40 => {
                let (src, dst) = (self.inside(), self.remote());
                (Side::Inside, self.packet(proto, src, dst))
            }
            // For an external address, from inside.
            40..45 => {
                let (src, dst) = match self.seen.is_empty() {
                    true => (self.inside(), self.external()),
                    false => {
                        let seen = self.pick(&self.seen.clone());
                        (self.inside(), seen.src)
                    }
                };
                (Side::Inside, self.packet(proto, src, dst))
            }
            // An answer to something that went out.
            45..65 if !self.seen.is_empty() => {
                let sent = self.pick(&self.seen.clone());
                (Side::Outside, self.packet(sent.proto, sent.dst, sent.src))
            }
            // From somebody else to the same endpoint: before its time, or off the path.
            65..78 if !self.seen.is_empty() => {
                let sent = self.pick(&self.seen.clone());
                let src = self.remote();
                (Side::Outside, self.packet(sent.proto, src, sent.src))
            }
            // Answers from inside to what came in.
            78..84 if !self.came.is_empty() => {
                let came = self.pick(&self.came.clone());
                (Side::Inside, self.packet(came.proto, came.dst, came.src))
            }
            // ICMP errors about packets that went out, or never did.
            84..90 if !self.seen.is_empty() => {
                let mut quoted = self.pick(&self.seen.clone());
                if self.rng.random_range(0..3) == 0 {
                    quoted.dst = self.remote();
                }
                if quoted.proto == Proto::Icmp {
                    quoted.dst.set_port(0);
                }
                let dst = SocketAddr::new(quoted.src.ip(), 0);
                let src =
                    ep(if self.rng.random_range(0..2) == 0 { "203.0.113.77:0" } else { "203.0.113.1:0" });
                let quoted = Some(Box::new(quoted));
                (Side::Outside, Pkt { proto: Proto::Icmp, src, dst, flags: None, quoted })
            }
            // The same from inside.
            90..94 if !self.came.is_empty() => {
                let quoted = self.pick(&self.came.clone());
                let (src, dst) = (SocketAddr::new(quoted.dst.ip(), 0), SocketAddr::new(quoted.src.ip(), 0));
                let quoted = Some(Box::new(quoted));
                (Side::Inside, Pkt { proto: Proto::Icmp, src, dst, flags: None, quoted })
            }
            // For an inside address, from outside.
            94..96 => {
                let (src, dst) = (self.remote(), self.inside());
                (Side::Outside, self.packet(proto, src, dst))
            }
            _ => {
                let (src, dst) = (self.remote(), self.external());
                (Side::Outside, self.packet(proto, src, dst))
            }
        }
    }

    /// Plays so many packets; the first that both judge differently ends it.
    pub(crate) fn play(&mut self, packets: u32) -> Result<(), String> {
        for number in 0..packets {
            let step = self.pick(&[0, 0, 0, 0, 0, 1, 50, 900, 2000, 2001, 9999, 29_999, 30_000, 61_000]);
            let rarely = self.rng.random_range(0..60) == 0;
            let step = if rarely {
                self.pick(&[120_000, 121_000, 300_000])
            } else if step > 2001 && number % 4 != 0 {
                3
            } else {
                step
            };
            self.now += Duration::from_millis(step);
            let (side, before) = self.next();
            // Inside one network no router is passed.
            let local = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 192);
            if side == Side::Inside && local(before.dst.ip()) {
                continue;
            }
            let (mut real, mut modelled) = (before.clone(), before.clone());
            let verdict = self.kernel.packet(side, &mut real, self.now);
            if let Some(error) = self.kernel.failure() {
                return Err(format!("packet {number}: the kernel refused: {error}"));
            }
            let forwarded = matches!(verdict, Verdict::Forward(_));
            self.model.suggest_port((forwarded && before.quoted.is_none()).then(|| real.src.port()));
            let expected = self.model.packet(side, &mut modelled, self.now);
            let same = match (verdict, expected) {
                (Verdict::Forward(a), Verdict::Forward(b)) => a == b && real == modelled,
                (Verdict::Drop(_), Verdict::Drop(_)) => true,
                (Verdict::Reject(_, a), Verdict::Reject(_, b)) => a == b,
                _ => false,
            };
            if !same {
                return Err(format!(
                    "packet {number} from {side:?} {before:?}:\n kernel {verdict:?} {real:?}\n model {expected:?} {modelled:?}"
                ));
            }
            if before.quoted.is_none()
                && let Verdict::Forward(to) = verdict
            {
                let list = if to == Side::Outside { &mut self.seen } else { &mut self.came };
                list.push(real);
                if list.len() > 40 {
                    list.remove(0);
                }
            }
        }
        Ok(())
    }
}
