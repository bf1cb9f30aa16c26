//! A tiny packet and the questions tests ask of a box.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nat::{
    Firewall, FirewallConfig, Fragment, LinuxConfig, Middlebox, NatConfig, Packet, Proto, Side, TcpFlags,
    Translation, Translator, Verdict,
};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

pub(crate) const EXTERNAL: &str = "198.51.100.1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pkt {
    pub(crate) proto: Proto,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) flags: Option<TcpFlags>,
    pub(crate) quoted: Option<Box<Pkt>>,
    pub(crate) fragment: Option<Fragment>,
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
    fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }
    fn quoted(&mut self) -> Option<&mut dyn Packet> {
        self.quoted.as_deref_mut().map(|quoted| quoted as &mut dyn Packet)
    }
}

pub(crate) fn ep(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

pub(crate) fn udp(src: &str, dst: &str) -> Pkt {
    Pkt { proto: Proto::Udp, src: ep(src), dst: ep(dst), flags: None, quoted: None, fragment: None }
}

pub(crate) fn echo(src: &str, dst: &str) -> Pkt {
    Pkt { proto: Proto::Icmp, ..udp(src, dst) }
}

/// A segment with the flags whose letters are in `flags`: S, A, F, R.
pub(crate) fn tcp(src: &str, dst: &str, flags: &str) -> Pkt {
    let has = |letter| flags.contains(letter);
    let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
    Pkt { proto: Proto::Tcp, flags: Some(flags), ..udp(src, dst) }
}

/// An ICMP error from `src` to `dst` about `quoted`.
pub(crate) fn error(src: &str, dst: &str, quoted: &Pkt) -> Pkt {
    let (src, dst) = (format!("{src}:0"), format!("{dst}:0"));
    Pkt { proto: Proto::Icmp, quoted: Some(Box::new(quoted.clone())), ..udp(&src, &dst) }
}

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn translation(name: &str) -> Translation {
    nat::presets::nat(name).expect("a preset").config.clone()
}

/// A preset that is described by axes.
pub(crate) fn preset(name: &str) -> NatConfig {
    translation(name).axes().expect("axes").clone()
}

/// A preset that is a rule of the Linux kernel.
pub(crate) fn linux(name: &str) -> LinuxConfig {
    translation(name).linux().expect("a rule").clone()
}

pub(crate) fn walled(config: FirewallConfig) -> Firewall {
    Firewall::new(config, Pcg64Mcg::seed_from_u64(11))
}

/// A NAT at `EXTERNAL`, and a clock that the test moves.
pub(crate) struct Bench {
    pub(crate) nat: Translator,
    pub(crate) now: Instant,
}

impl Bench {
    pub(crate) fn new(config: impl Into<Translation>) -> Bench {
        let external = vec![EXTERNAL.parse().expect("an address")];
        Bench { nat: Translator::new(config.into(), external, Pcg64Mcg::seed_from_u64(7)), now: start() }
    }

    pub(crate) fn preset(name: &str) -> Bench {
        Bench::new(translation(name))
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += secs(seconds);
    }

    pub(crate) fn pass(&mut self, side: Side, packet: &mut Pkt) -> Verdict {
        self.nat.packet(side, packet, self.now)
    }

    /// Sends out and gives the source the world sees.
    pub(crate) fn out(&mut self, mut packet: Pkt) -> SocketAddr {
        assert_eq!(self.pass(Side::Inside, &mut packet), Verdict::Forward(Side::Outside));
        packet.src
    }

    /// Sends in and gives the inside endpoint it reaches, or the word for why it does not.
    pub(crate) fn back(&mut self, mut packet: Pkt) -> Result<SocketAddr, &'static str> {
        match self.pass(Side::Outside, &mut packet) {
            Verdict::Forward(_) => Ok(packet.dst),
            Verdict::Drop(reason) | Verdict::Reject(reason, _) => Err(reason.as_str()),
        }
    }

    /// A UDP packet from outside to `external`.
    pub(crate) fn reply(&mut self, from: &str, external: SocketAddr) -> Result<SocketAddr, &'static str> {
        self.back(udp(from, &external.to_string()))
    }
}
