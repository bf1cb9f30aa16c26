//! The requirements of RFC 6888 (carrier NATs) that a model of one box can show, each on a NAT that obeys and on one that
//! does not. Not here: REQ-5 (memory), 6 (exempt destinations), 9 (PCP, see `portmap`), 10 and 12 (management, logs).

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use common::{Bench, EXTERNAL, ep, preset, tcp, udp};
use nat::{
    DropReason, Ended, Event, Exhausted, Filtering, Mapping, Middlebox as _, NatConfig, Pooling,
    PortAllocation, PortRange, Side, Translator, Verdict, WhenFull,
};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng as _;

const HOST: &str = "100.64.0.2:4000";
const OTHER: &str = "100.64.0.3:4000";
const SERVER: &str = "203.0.113.1:1000";
const STRANGER: &str = "203.0.113.2:1000";

/// A NAT with several addresses, the first of which is `EXTERNAL`.
fn pool(config: NatConfig, addresses: u8) -> Bench {
    let external = (1..=addresses).map(|i| IpAddr::from([198, 51, 100, i])).collect();
    Bench { nat: Translator::new(config.into(), external, Pcg64Mcg::seed_from_u64(3)), now: common::start() }
}

fn towards(nat: &mut Bench, host: &str, count: u8) -> Vec<SocketAddr> {
    (1..=count).map(|i| nat.out(udp(host, &format!("203.0.113.{i}:9")))).collect()
}

fn refused(nat: &mut Bench, host: &str, remote: &str) -> Option<DropReason> {
    match nat.pass(Side::Inside, &mut udp(host, remote)) {
        Verdict::Drop(reason) | Verdict::Reject(reason, _) => Some(reason),
        Verdict::Forward(_) => None,
    }
}

#[test]
fn rfc6888_req_1_each_transport_follows_its_own_rfc() {
    for (name, follows) in [("cgn", true), ("cgn-cellular", false)] {
        let mut nat = Bench::preset(name);
        assert_eq!(nat.out(udp(HOST, SERVER)) == nat.out(udp(HOST, STRANGER)), follows, "RFC 4787 REQ-1");
        assert_eq!(
            nat.out(tcp(HOST, SERVER, "S")) == nat.out(tcp(HOST, STRANGER, "S")),
            follows,
            "RFC 5382 REQ-1"
        );
    }
}

#[test]
fn rfc6888_req_2_pooling_is_paired() {
    for (pooling, paired) in [(Pooling::Paired, true), (Pooling::Arbitrary, false)] {
        let mut nat = pool(NatConfig { pooling, ..preset("symmetric") }, 4);
        let addresses: BTreeSet<IpAddr> = towards(&mut nat, HOST, 50).iter().map(SocketAddr::ip).collect();
        assert_eq!(addresses.len() == 1, paired, "{pooling}: {addresses:?}");
        assert!(paired || addresses.len() == 4, "all of them are used");
        // Answers come back by whichever it was.
        let seen = nat.out(udp(OTHER, SERVER));
        assert_eq!(nat.reply(SERVER, seen), Ok(ep(OTHER)));
    }
}

#[test]
fn rfc6888_req_3_the_pool_has_any_size_and_shape() {
    let external: Vec<IpAddr> =
        ["198.51.100.1", "192.0.2.7", "203.0.113.200"].map(|ip| ip.parse().unwrap()).to_vec();
    let rng = Pcg64Mcg::seed_from_u64(3);
    let nat = Translator::new(preset("cgn").into(), external.clone(), rng);
    let mut nat = Bench { nat, now: common::start() };
    let used: BTreeSet<IpAddr> =
        (2..50).map(|host| nat.out(udp(&format!("100.64.0.{host}:9"), SERVER)).ip()).collect();
    assert_eq!(used, external.into_iter().collect());
}

#[test]
fn rfc6888_req_4_a_subscriber_has_a_limit() {
    let mut nat = Bench::new(NatConfig { host_quota: 10, ..preset("symmetric") });
    towards(&mut nat, HOST, 10);
    assert_eq!(refused(&mut nat, HOST, "203.0.113.77:9"), Some(DropReason::HostQuota));
    towards(&mut nat, OTHER, 10);
    nat.wait(300);
    assert_eq!(refused(&mut nat, HOST, "203.0.113.77:9"), None, "what expired counts no more");
    let mut unlimited = Bench::preset("symmetric");
    towards(&mut unlimited, HOST, 200);
}

#[test]
fn rfc6888_req_4_blocks_divide_the_ports_of_an_address() {
    // 64512 unprivileged ports for so many subscribers of an address.
    for (ratio, ports) in [(16, 4032), (32, 2016), (64, 1008), (128, 504), (256, 252), (512, 126), (1024, 63)]
    {
        assert_eq!(64_512 / ratio, ports);
        let mut nat = Bench::new(NatConfig { block: ports as u16, ..preset("symmetric") });
        let mut blocks = BTreeSet::new();
        for host in 0..ratio.min(40) {
            let seen = nat.out(udp(&format!("100.64.1.{host}:4000"), SERVER));
            assert!(blocks.insert((seen.port() - 1024) / ports as u16), "each has another block");
        }
        // Subscribers beyond the ratio share, but never a port.
        let first = nat.out(udp("100.64.1.0:4001", SERVER));
        assert!(blocks.contains(&((first.port() - 1024) / ports as u16)));
    }
    let mut nat = Bench::preset("cgn-port-block");
    let ports: BTreeSet<u16> =
        (1..=504).map(|port| nat.out(udp(&format!("100.64.0.2:{}", 4000 + port), SERVER)).port()).collect();
    assert_eq!((ports.len(), ports.last().unwrap() - ports.first().unwrap()), (504, 503));
    assert_eq!(refused(&mut nat, "100.64.0.2:3000", SERVER), Some(DropReason::NoFreePort));
    assert_eq!(refused(&mut nat, OTHER, SERVER), None);
}

#[test]
fn blocks_of_a_pool_go_to_addresses_first() {
    let config = NatConfig { block: 1000, ports: PortRange { low: 10_000, high: 12_999 }, ..preset("cgn") };
    let mut nat = pool(config, 2);
    let mut places = BTreeSet::new();
    for host in 0..6 {
        let seen = nat.out(udp(&format!("100.64.0.{host}:4000"), SERVER));
        assert!((10_000..13_000).contains(&seen.port()));
        assert!(places.insert((seen.ip(), seen.port() / 1000)), "{seen}");
    }
    let again = nat.out(udp("100.64.0.6:4000", SERVER));
    assert!(!places.insert((again.ip(), again.port() / 1000)), "the blocks have gone round");
    let none = NatConfig { block: 5000, ports: PortRange { low: 10_000, high: 12_999 }, ..preset("cgn") };
    assert_eq!(refused(&mut Bench::new(none), HOST, SERVER), Some(DropReason::NoFreePort));
}

#[test]
fn rfc6888_req_7_filtering_is_endpoint_independent() {
    for (name, open) in
        [("cgn", true), ("cgn-port-block", true), ("cgn-cellular", false), ("gcp-cloud-nat", false)]
    {
        let mut nat = Bench::preset(name);
        let seen = nat.out(udp(HOST, SERVER));
        assert_eq!(nat.reply(STRANGER, seen).is_ok(), open, "{name}");
    }
}

#[test]
fn rfc6888_req_8_a_port_rests_before_another_gets_it() {
    let ports = PortRange::one(5000);
    for (hold_down, early) in [(120, false), (0, true)] {
        let hold_down = common::secs(hold_down);
        let mut nat = Bench::new(NatConfig { hold_down, ports, ..preset("cgn") });
        nat.out(udp(HOST, SERVER));
        nat.wait(300 + 119);
        assert_eq!(refused(&mut nat, OTHER, SERVER).is_none(), early);
        nat.wait(1);
        assert_eq!(refused(&mut nat, OTHER, SERVER), None);
    }
    // Its last owner does not get it either, so a preserving NAT moves on.
    let mut nat = Bench::preset("rfc5382");
    assert_eq!(nat.out(udp(HOST, SERVER)).port(), 4000);
    nat.wait(300);
    assert_eq!(nat.out(udp(HOST, SERVER)).port(), 4002, "the next of the same parity");
    nat.nat.clear();
    assert_eq!(nat.out(udp(HOST, SERVER)).port(), 4000, "a reboot forgets that too");
}

#[test]
fn a_resting_port_stays_so_through_a_change_of_behaviour() {
    let config = NatConfig { hold_down: common::secs(120), ports: PortRange::one(5000), ..preset("cgn") };
    let mut nat = Bench::new(config.clone());
    nat.out(udp(HOST, SERVER));
    nat.wait(300);
    nat.nat.handle_timeout(nat.now);
    nat.nat.set_config(NatConfig { filtering: Filtering::AddressDependent, ..config });
    assert_eq!(refused(&mut nat, OTHER, SERVER), Some(DropReason::NoFreePort));
    nat.wait(120);
    assert_eq!(refused(&mut nat, OTHER, SERVER), None);
}

#[test]
fn rfc6888_req_11_without_room_the_new_packet_is_dropped_and_nothing_else() {
    for (when_full, obeys) in [(WhenFull::RefuseNew, true), (WhenFull::EvictOldest, false)] {
        let exhausted = Exhausted::Icmp;
        let mut nat = Bench::new(NatConfig { capacity: 3, when_full, exhausted, ..preset("symmetric") });
        nat.nat.set_events(true);
        let seen = towards(&mut nat, HOST, 3);
        nat.wait(1);
        nat.reply("203.0.113.1:9", seen[0]).unwrap();
        let mut packet = udp(OTHER, SERVER);
        let verdict = nat.pass(Side::Inside, &mut packet);
        assert_eq!(matches!(verdict, Verdict::Reject(DropReason::TableFull, _)), obeys, "REQ-11 A, B");
        assert_eq!(nat.nat.conversations(), 3);
        let alive = [0, 1, 2].map(|i| nat.reply(&format!("203.0.113.{}:9", i + 1), seen[i]).is_ok());
        // Of those that had been silent longest, the one that came first.
        assert_eq!(alive, [true, obeys, true], "REQ-11 D");
        let events: Vec<Event> = std::iter::from_fn(|| nat.nat.poll_event()).collect();
        let evicted = events.iter().any(|e| matches!(e, Event::BindingExpired { why: Ended::Evicted, .. }));
        assert_eq!(evicted, !obeys);
    }
}

#[test]
fn eviction_may_take_the_very_binding_that_is_used() {
    // One conversation: towards another destination the same inside endpoint evicts its own binding.
    for name in ["port-restricted-cone", "symmetric", "full-cone"] {
        let config = NatConfig { capacity: 1, when_full: WhenFull::EvictOldest, ..preset(name) };
        let mut nat = Bench::new(config);
        for i in 1..5 {
            let remote = format!("203.0.113.{i}:9");
            let seen = nat.out(udp(HOST, &remote));
            assert_eq!(nat.reply(&remote, seen), Ok(ep(HOST)), "{name}");
            assert_eq!((nat.nat.conversations(), nat.nat.bindings().count()), (1, 1), "{name}");
        }
    }
    let none = NatConfig { capacity: 0, when_full: WhenFull::EvictOldest, ..preset("symmetric") };
    assert_eq!(refused(&mut Bench::new(none), HOST, SERVER), Some(DropReason::TableFull));
}

#[test]
fn rfc6888_req_13_every_port_of_the_pool_is_used_before_anybody_is_refused() {
    for allocation in PortAllocation::ALL {
        let ports = PortRange { low: 5000, high: 5063 };
        let config = NatConfig { allocation: *allocation, ports, ..preset("cgn") };
        let mut nat = Bench::new(config.clone());
        for port in 0..64 {
            nat.out(udp(&format!("100.64.0.2:{}", 4000 + port), SERVER));
        }
        assert_eq!(refused(&mut nat, OTHER, SERVER), Some(DropReason::NoFreePort), "{allocation}");
        // A block leaves others' ports unused.
        let mut blocks = Bench::new(NatConfig { block: 16, ..config });
        for port in 0..16 {
            blocks.out(udp(&format!("100.64.0.2:{}", 4000 + port), SERVER));
        }
        let one_more = refused(&mut blocks, "100.64.0.2:9000", SERVER);
        assert_eq!(one_more, Some(DropReason::NoFreePort), "{allocation}");
    }
}

#[test]
fn rfc6888_req_14_a_block_tells_the_subscriber_without_a_log() {
    let of = |name: &str, seed| {
        let rng = Pcg64Mcg::seed_from_u64(seed);
        let nat = Translator::new(preset(name).into(), vec![EXTERNAL.parse().unwrap()], rng);
        let mut nat = Bench { nat, now: common::start() };
        (nat.out(udp(HOST, SERVER)).port() - 1024) / 504
    };
    assert!((1..20).all(|seed| of("cgn-port-block", seed) == of("cgn-port-block", 0)));
    assert!((1..20).any(|seed| of("cgn", seed) != of("cgn", 0)));
}

#[test]
fn rfc6888_req_15_ports_are_hard_to_guess() {
    let differences = |name: &str| {
        let mut nat = Bench::preset(name);
        let ports: Vec<u16> = towards(&mut nat, HOST, 30).iter().map(SocketAddr::port).collect();
        ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect::<BTreeSet<u16>>().len()
    };
    assert!(differences("cgn-cellular") > 20);
    assert_eq!(differences("symmetric-sequential"), 1);
    let config = NatConfig { mapping: Mapping::AddressAndPortDependent, ..preset("cgn-port-block") };
    let mut nat = Bench::new(config);
    let ports: BTreeSet<u16> = towards(&mut nat, HOST, 30).iter().map(SocketAddr::port).collect();
    assert!(ports.len() == 30 && ports.last().unwrap() - ports.first().unwrap() > 30, "random in its block");
}
