//! Who can reach whom: STUN, then both sides send at once and answer whatever reaches them.

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::{Pkt, translation, udp};
use nat::{
    Filtering, FirewallConfig, Mapping, Middlebox, NatConfig, PortAllocation, Side, Translation, Translator,
    Verdict, presets,
};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

const STUN: &str = "203.0.113.1:3478";

/// A host and the box in front of it.
struct Site {
    host: SocketAddr,
    public: IpAddr,
    middlebox: Option<Box<dyn Middlebox>>,
    /// Where it sends its probes.
    targets: BTreeSet<SocketAddr>,
    /// Who has reached it.
    heard: bool,
}

impl Site {
    /// The box called `name` in the matrix, or a preset.
    fn new(name: &str, public: &str, allocation: PortAllocation) -> Site {
        let public: IpAddr = public.parse().expect("an address");
        let private = "10.0.0.2".parse().expect("an address");
        let nat = |config| -> Option<Box<dyn Middlebox>> {
            Some(Box::new(Translator::new(config, vec![public], Pcg64Mcg::seed_from_u64(3))))
        };
        let firewall = |config| -> Option<Box<dyn Middlebox>> { Some(Box::new(common::walled(config))) };
        let (host, middlebox) = match name {
            "PUBLIC" => (public, None),
            "FW-APDF" => (public, firewall(FirewallConfig::STATEFUL)),
            "UDP-BLOCKED" => {
                (public, firewall(presets::firewall("udp-blocked").expect("a preset").config.clone()))
            }
            name => {
                let config = match name.split_once('+') {
                    None => translation(name),
                    Some((mapping, filtering)) => Translation::Axes(NatConfig {
                        mapping: mapping.to_lowercase().parse().expect("a mapping"),
                        filtering: filtering.to_lowercase().parse().expect("a filtering"),
                        allocation,
                        ..NatConfig::RFC
                    }),
                };
                (private, nat(config))
            }
        };
        Site { host: SocketAddr::new(host, 5000), public, middlebox, targets: BTreeSet::new(), heard: false }
    }

    fn pass(&mut self, side: Side, packet: &mut Pkt, now: Instant) -> bool {
        let Some(middlebox) = &mut self.middlebox else { return true };
        matches!(middlebox.packet(side, packet, now), Verdict::Forward(to) if to != side)
    }

    /// Sends to `to` and gives the packet as the internet sees it.
    fn send(&mut self, to: SocketAddr, now: Instant) -> Option<Pkt> {
        let mut packet = udp(&self.host.to_string(), &to.to_string());
        self.pass(Side::Inside, &mut packet, now).then_some(packet)
    }

    /// A packet from the internet; gives the sender if it reaches the host.
    fn receive(&mut self, mut packet: Pkt, now: Instant) -> Option<SocketAddr> {
        let arrives = packet.dst.ip() == self.public
            && self.pass(Side::Outside, &mut packet, now)
            && packet.dst == self.host;
        arrives.then_some(packet.src)
    }

    /// What a STUN server says; the host's own address where it says nothing.
    fn candidate(&mut self, now: Instant) -> SocketAddr {
        let own = self.host;
        let Some(request) = self.send(STUN.parse().expect("an endpoint"), now) else { return own };
        let answer = udp(STUN, &request.src.to_string());
        self.receive(answer, now).map_or(own, |_| request.src)
    }
}

/// Whether both hear from each other.
fn punch(a: &str, b: &str, allocation: PortAllocation, answers: bool) -> bool {
    let mut now = common::start();
    let mut sites = [Site::new(a, "198.51.100.1", allocation), Site::new(b, "198.51.100.2", allocation)];
    let [a, b] = [0, 1].map(|i: usize| sites[i].candidate(now));
    sites[0].targets.insert(b);
    sites[1].targets.insert(a);
    for _ in 0..5 {
        now += Duration::from_millis(33);
        // Both send before either hears.
        let sent = [0, 1].map(|i: usize| {
            let site = &mut sites[i];
            site.targets.clone().into_iter().filter_map(|to| site.send(to, now)).collect::<Vec<_>>()
        });
        for (from, packets) in sent.into_iter().enumerate() {
            let site = &mut sites[1 - from];
            for packet in packets {
                if let Some(sender) = site.receive(packet, now) {
                    site.heard = true;
                    if answers {
                        site.targets.insert(sender);
                    }
                }
            }
        }
    }
    sites.iter().all(|site| site.heard)
}

/// The rows of the matrix: both boxes, and whether it works with and without answers to the observed source.
fn matrix() -> impl Iterator<Item = (&'static str, &'static str, bool, bool)> {
    let rows = include_str!("data/pair_matrix.csv").lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        (cells[0], cells[1], cells[2] == "1", cells[3] == "1")
    })
}

#[test]
fn every_pair_ends_as_the_definitions_say() {
    let mut wrong = Vec::new();
    for allocation in PortAllocation::ALL {
        for (a, b, with, without) in matrix() {
            for (answers, expected) in [(true, with), (false, without)] {
                if punch(a, b, *allocation, answers) != expected {
                    wrong.push(format!("{a} x {b}, {allocation}, answers {answers}: should be {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 144 * 6, wrong.join("\n"));
}

#[test]
fn the_matrix_is_the_published_one() {
    assert_eq!(matrix().count(), 144);
    let nine: Vec<_> = matrix().filter(|(a, b, ..)| a.contains('+') && b.contains('+')).collect();
    assert_eq!((nine.len(), nine.iter().filter(|row| row.2).count()), (81, 45));
    assert_eq!(matrix().filter(|row| row.2 && !row.3).count(), 32);
    let words = (Mapping::ALL.len() * Filtering::ALL.len()).pow(2);
    assert_eq!(nine.len(), words);
}

#[test]
fn thirteen_of_the_sixteen_classic_pairs_connect() {
    let types = ["full-cone", "restricted-cone", "port-restricted-cone", "symmetric"];
    let mut failing = Vec::new();
    for a in types {
        for b in types {
            if !punch(a, b, PortAllocation::Random, true) {
                failing.push((a, b));
            }
        }
    }
    let expected = [
        ("port-restricted-cone", "symmetric"),
        ("symmetric", "port-restricted-cone"),
        ("symmetric", "symmetric"),
    ];
    assert_eq!(failing, expected);
}

#[test]
fn linux_punches_unless_its_router_accepts_early_packets() {
    // Simultaneous sends cross on the way, so no packet is early: both kinds punch.
    assert!(punch("linux", "linux", PortAllocation::Preserving, true));
    assert!(punch("linux-naive", "linux", PortAllocation::Preserving, true));
    assert!(!punch("linux-random", "linux", PortAllocation::Preserving, true));
    // One that is early spoils it.
    let now = common::start();
    for (name, spoilt) in [("linux", false), ("linux-naive", true)] {
        let mut site = Site::new(name, "198.51.100.1", PortAllocation::Preserving);
        let candidate = site.candidate(now);
        let peer = "198.51.100.2:5000";
        assert_eq!(site.receive(udp(peer, &candidate.to_string()), now), None);
        let sent = site.send(peer.parse().unwrap(), now).unwrap();
        assert_eq!(sent.src != candidate, spoilt, "{name}");
    }
}
