//! Bindings that somebody asks for, and NATs that change while they run.

mod common;

use common::{Bench, EXTERNAL, ep, preset, secs, tcp, udp};
use nat::{
    Ended, Event, Filtering, MapError, Mapping, Middlebox as _, NatConfig, PortRange, Proto, Side, Verdict,
    Wanted,
};

const HOST: &str = "192.168.1.2:4000";
const OTHER: &str = "192.168.1.3:4000";
const SERVER: &str = "203.0.113.1:1000";
const STRANGER: &str = "203.0.113.2:2000";

fn map(nat: &mut Bench, inside: &str, wanted: Wanted, lifetime: u64) -> Result<u16, MapError> {
    let until = Some(nat.now + secs(lifetime));
    nat.nat.map(Proto::Udp, ep(inside), wanted, until, nat.now).map(|external| external.port())
}

fn external(port: u16) -> std::net::SocketAddr {
    ep(&format!("{EXTERNAL}:{port}"))
}

#[test]
fn what_was_asked_for_lasts_its_lifetime_and_is_open_to_all() {
    for name in ["symmetric", "port-restricted-cone", "full-cone"] {
        let mut nat = Bench::preset(name);
        assert_eq!(map(&mut nat, HOST, Wanted::Prefer(7000), 7200), Ok(7000), "{name}");
        nat.wait(7199);
        assert_eq!(nat.reply(STRANGER, external(7000)), Ok(ep(HOST)), "{name}");
        nat.wait(1);
        assert_eq!(nat.reply(STRANGER, external(7000)), Err("no-binding"), "{name}");
        assert_eq!(nat.nat.mapped().count(), 0);
    }
}

#[test]
fn its_owner_sends_by_it_and_keeps_it_while_a_conversation_lives() {
    let mut nat = Bench::preset("symmetric");
    map(&mut nat, HOST, Wanted::Exactly(7000), 100).unwrap();
    assert_eq!(nat.out(udp(HOST, SERVER)), external(7000));
    assert_eq!(nat.out(udp(HOST, STRANGER)), external(7000));
    nat.wait(250);
    // Now it is a binding like others: filtered, and gone once the last conversation is.
    assert_eq!(nat.reply(SERVER, external(7000)), Ok(ep(HOST)));
    assert_eq!(nat.reply("203.0.113.7:1", external(7000)), Err("filtered-port"));
    nat.wait(300);
    assert_eq!(nat.reply(SERVER, external(7000)), Err("no-binding"));
}

#[test]
fn a_redirection_carries_answers_only() {
    for name in ["full-cone", "symmetric"] {
        let mut nat = Bench::new(NatConfig { mapped_outbound: false, ..preset(name) });
        map(&mut nat, HOST, Wanted::Exactly(7000), 7200).unwrap();
        assert_ne!(nat.out(udp(HOST, SERVER)), external(7000), "{name}");
        assert_eq!(nat.reply(STRANGER, external(7000)), Ok(ep(HOST)), "{name}");
        assert_eq!(nat.out(udp(HOST, STRANGER)), external(7000), "{name}");
        nat.wait(299);
        nat.reply(STRANGER, external(7000)).unwrap();
        nat.wait(299);
        assert_eq!(nat.out(udp(HOST, STRANGER)), external(7000), "{name}: both ways refresh");
        // An answer goes the way that the question came.
        map(&mut nat, HOST, Wanted::Exactly(7001), 7200).unwrap();
        nat.reply("203.0.113.9:9", external(7001)).unwrap();
        assert_eq!(nat.out(udp(HOST, "203.0.113.9:9")), external(7001), "{name}");
        assert_eq!(nat.out(udp(HOST, STRANGER)), external(7000), "{name}");
    }
}

#[test]
fn a_port_is_asked_for_in_three_ways() {
    let mut nat = Bench::preset("port-restricted-cone");
    assert_eq!(map(&mut nat, OTHER, Wanted::Exactly(7000), 60), Ok(7000));
    assert_eq!(map(&mut nat, HOST, Wanted::Exactly(7000), 60), Err(MapError::PortTaken));
    assert_eq!(map(&mut nat, HOST, Wanted::Exactly(0), 60), Err(MapError::PortTaken));
    assert_eq!(map(&mut nat, HOST, Wanted::Prefer(7000), 60), Ok(4000), "the next best");
    // Asked again, the same one; but for a second one by its number.
    assert_eq!(map(&mut nat, HOST, Wanted::Prefer(9000), 60), Ok(4000));
    assert_eq!(map(&mut nat, HOST, Wanted::Exactly(9000), 60), Ok(9000));
    assert_eq!(nat.nat.mapped().count(), 3);
    assert_eq!(nat.reply(SERVER, external(4000)), Ok(ep(HOST)));
    assert_eq!(nat.reply(SERVER, external(9000)), Ok(ep(HOST)));
    let no_v6 = nat.nat.map(Proto::Udp, ep("[fd00::2]:9"), Wanted::Any, None, nat.now);
    assert_eq!(no_v6, Err(MapError::NoExternalAddress));
    let ports = PortRange { low: 5000, high: 5000 };
    let mut full = Bench::new(NatConfig { ports, ..NatConfig::RFC });
    full.out(udp(OTHER, SERVER));
    assert_eq!(map(&mut full, HOST, Wanted::Any, 60), Err(MapError::NoFreePort));
}

#[test]
fn a_binding_that_packets_made_becomes_the_one_asked_for() {
    let mut nat = Bench::preset("port-restricted-cone");
    nat.out(udp(OTHER, SERVER));
    let dynamic = nat.out(udp(HOST, SERVER));
    assert_eq!(dynamic, external(4001));
    assert_eq!(map(&mut nat, HOST, Wanted::Any, 900), Ok(4001));
    assert_eq!(nat.reply(STRANGER, dynamic), Ok(ep(HOST)));
    nat.wait(600);
    assert_eq!(nat.out(udp(HOST, STRANGER)), dynamic, "its conversations ended, it did not");
    assert_eq!(nat.nat.bindings().count(), 1);
}

#[test]
fn what_was_asked_for_can_be_given_back() {
    let mut nat = Bench::preset("full-cone");
    nat.nat.set_events(true);
    map(&mut nat, HOST, Wanted::Exactly(7000), 900).unwrap();
    assert!(!nat.nat.unmap(Proto::Tcp, external(7000), nat.now));
    assert!(nat.nat.unmap(Proto::Udp, external(7000), nat.now));
    assert!(!nat.nat.unmap(Proto::Udp, external(7000), nat.now));
    assert_eq!(nat.reply(SERVER, external(7000)), Err("no-binding"));
    assert!(matches!(nat.nat.poll_event(), Some(Event::BindingCreated { .. })));
    assert!(matches!(nat.nat.poll_event(), Some(Event::BindingExpired { why: Ended::Unmapped, .. })));
    // An ordinary binding is nobody's to give back.
    let own = nat.out(udp(HOST, SERVER));
    assert!(!nat.nat.unmap(Proto::Udp, own, nat.now));
}

#[test]
fn one_without_an_end_outlives_all_but_a_reboot() {
    // One that was a rule of Linux begins anew.
    let mut nat = Bench::preset("linux");
    nat.out(udp(HOST, SERVER));
    nat.nat.set_config(preset("port-restricted-cone"));
    nat.nat.map(Proto::Tcp, ep("192.168.1.2:22"), Wanted::Prefer(2222), None, nat.now).unwrap();
    assert_eq!(nat.nat.poll_timeout(), None);
    nat.wait(100_000_000);
    assert_eq!(nat.back(tcp(STRANGER, "198.51.100.1:2222", "S")), Ok(ep("192.168.1.2:22")));
    assert_eq!(nat.out(tcp("192.168.1.2:22", STRANGER, "SA")).port(), 2222);
    nat.nat.clear();
    assert_eq!(nat.back(tcp(STRANGER, "198.51.100.1:2222", "S")), Err("no-binding"));
}

#[test]
fn a_host_with_an_address_of_its_own_has_every_port_already() {
    let mut nat = Bench::preset("one-to-one");
    assert_eq!(nat.nat.external_for(ep(HOST).ip()), Some(external(0).ip()));
    assert_eq!(map(&mut nat, HOST, Wanted::Prefer(9), 60), Ok(4000));
    assert_eq!(map(&mut nat, HOST, Wanted::Exactly(9), 60), Err(MapError::PortTaken));
    assert_eq!(map(&mut nat, OTHER, Wanted::Any, 60), Err(MapError::NoExternalAddress));
    assert_eq!(nat.reply(STRANGER, external(4000)), Ok(ep(HOST)));
}

#[test]
fn what_rests_on_a_lost_address_rests_no_more() {
    let config = NatConfig { hold_down: secs(120), ..preset("full-cone") };
    let mut nat = Bench::new(config);
    nat.out(udp(HOST, SERVER));
    nat.nat.set_external(vec!["198.51.100.9".parse().unwrap()], nat.now);
    assert_eq!(nat.out(udp(OTHER, SERVER)), ep("198.51.100.9:4000"));
}

#[test]
fn the_end_of_a_mapping_is_a_deadline() {
    let mut nat = Bench::preset("full-cone");
    map(&mut nat, HOST, Wanted::Any, 60).unwrap();
    let (at, _) = nat.nat.poll_timeout().expect("a deadline");
    assert_eq!(at, nat.now + secs(60));
    nat.nat.handle_timeout(at);
    assert_eq!(nat.nat.poll_timeout(), None);
    assert_eq!(nat.nat.external_for(ep(HOST).ip()), Some(external(0).ip()));
}

#[test]
fn another_filter_takes_over_the_bindings() {
    let mut nat = Bench::preset("full-cone");
    let seen = nat.out(udp(HOST, SERVER));
    nat.out(udp(HOST, STRANGER));
    assert_eq!(nat.reply("203.0.113.9:9", seen), Ok(ep(HOST)));
    nat.nat.set_config(preset("port-restricted-cone"));
    assert_eq!(nat.reply(SERVER, seen), Ok(ep(HOST)));
    assert_eq!(nat.reply(STRANGER, seen), Err("filtered-port"), "it had not kept whom it wrote to");
    assert_eq!(nat.out(udp(HOST, STRANGER)), seen);
    assert_eq!(nat.reply(STRANGER, seen), Ok(ep(HOST)));
    nat.nat.set_config(preset("restricted-cone"));
    assert_eq!(nat.reply("203.0.113.2:9", seen), Ok(ep(HOST)));
    nat.nat.set_config(preset("full-cone"));
    assert_eq!(nat.reply("203.0.113.9:9", seen), Ok(ep(HOST)));
    nat.wait(300);
    assert_eq!(nat.reply(SERVER, seen), Err("no-binding"));
    assert_eq!(nat.nat.conversations(), 0);
}

#[test]
fn another_mapping_goes_on_from_the_newest_binding() {
    let mut nat = Bench::preset("symmetric");
    let first = nat.out(udp(HOST, SERVER));
    let second = nat.out(udp(HOST, STRANGER));
    nat.nat.set_config(NatConfig { filtering: Filtering::EndpointIndependent, ..NatConfig::RFC });
    assert_eq!(nat.out(udp(HOST, SERVER)), second);
    assert_eq!(nat.reply("203.0.113.9:9", first), Ok(ep(HOST)), "the old one stays until it ends");
    nat.nat.set_config(NatConfig { mapping: Mapping::AddressAndPortDependent, ..NatConfig::RFC });
    assert_ne!(nat.out(udp(HOST, "203.0.113.9:9")), second);
    nat.nat.clear();
    assert_eq!(nat.nat.bindings().count(), 0);
}

#[test]
fn a_new_address_ends_what_was_bound_to_the_old_one() {
    let mut nat = Bench::preset("port-restricted-cone");
    nat.nat.set_events(true);
    let old = nat.out(udp(HOST, SERVER));
    map(&mut nat, OTHER, Wanted::Exactly(7000), 900).unwrap();
    nat.nat.set_external(vec!["198.51.100.9".parse().unwrap()], nat.now);
    assert_eq!(nat.reply(SERVER, old), Err("not-our-address"));
    assert_eq!((nat.nat.bindings().count(), nat.nat.conversations(), nat.nat.mapped().count()), (0, 0, 0));
    let events: Vec<Event> = std::iter::from_fn(|| nat.nat.poll_event()).collect();
    let lost = |event: &&Event| matches!(event, Event::BindingExpired { why: Ended::AddressLost, .. });
    assert_eq!(events.iter().filter(lost).count(), 2);
    assert_eq!(nat.out(udp(HOST, SERVER)), ep("198.51.100.9:4000"));
    // One more address beside it harms nobody.
    let both = vec!["198.51.100.8".parse().unwrap(), "198.51.100.9".parse().unwrap()];
    nat.nat.set_external(both, nat.now);
    assert_eq!(nat.reply(SERVER, ep("198.51.100.9:4000")), Ok(ep(HOST)));
    let verdict = nat.pass(Side::Inside, &mut udp("192.168.1.4:4000", SERVER));
    assert_eq!(verdict, Verdict::Forward(Side::Outside));
}

/// RFC 6887 §12: a client asks for one conversation, before it or while it lasts.
#[test]
fn a_conversation_that_is_pinned_lives_until_it_is_let_go() {
    let unlike = ["symmetric", "port-restricted-cone", "full-cone"];
    for name in unlike {
        let mut nat = Bench::preset(name);
        let (inside, remote) = (ep(HOST), ep(SERVER));
        let at = nat.nat.pin(Proto::Udp, inside, remote, nat.now).unwrap().unwrap();
        nat.wait(7200);
        assert_eq!(nat.reply(SERVER, at), Ok(inside), "{name}: without a packet from inside");
        assert_eq!(nat.out(udp(HOST, SERVER)), at, "{name}");
        nat.wait(7200);
        assert_eq!(nat.reply(SERVER, at), Ok(inside), "{name}: packets do not shorten it");
        if name != "full-cone" {
            assert_ne!(nat.reply(STRANGER, at), Ok(inside), "{name}: it is for one other end");
        }
        assert!(nat.nat.unpin(Proto::Udp, inside, remote, nat.now));
        assert!(!nat.nat.unpin(Proto::Udp, inside, remote, nat.now), "{name}: once");
        nat.wait(20);
        assert_eq!(nat.reply(SERVER, at), Ok(inside), "{name}: its time has only begun");
        nat.wait(400);
        assert_eq!(nat.reply(SERVER, at), Err("no-binding"), "{name}");
    }
}

#[test]
fn a_pin_takes_the_conversation_that_there_is() {
    let mut nat = Bench::preset("symmetric");
    let at = nat.out(udp(HOST, SERVER));
    assert_eq!(nat.nat.pin(Proto::Udp, ep(HOST), ep(SERVER), nat.now), Some(Ok(at)));
    assert_eq!(nat.nat.conversations(), 1);
    nat.wait(7200);
    assert_eq!(nat.reply(SERVER, at), Ok(ep(HOST)));
}
