//! The client against our gateway, in a LAN where each packet takes a millisecond.

mod common;

use common::{HOST, Lan, ROUTER, WAN, addr, ip, router, speaks, start};
use portmap::client::{Client, ClientConfig, Event, Input, Transmit};
use portmap::gateway::{Conduct, GatewayConfig};
use portmap::upnp::IgdVersion;
use portmap::{Proto, Protocol, SERVER_PORT, natpmp, pcp};
use proptest::prelude::*;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::net::SocketAddr;
use std::time::Duration;

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(ip(WAN), port)
}

fn by(events: &[Event]) -> Vec<Protocol> {
    events
        .iter()
        .filter_map(|e| if let Event::Mapped { protocol, .. } = e { Some(*protocol) } else { None })
        .collect()
}

#[test]
fn each_protocol_alone_leads_to_a_mapping() {
    for (word, protocol) in ["pcp", "nat-pmp", "upnp"].into_iter().zip(Protocol::ALL) {
        let mut lan = Lan::new(speaks(&[word]));
        lan.run(s(1));
        assert_eq!(by(&lan.events), [protocol]);
        assert_eq!(lan.client.external(), Some(at(41641)));
        assert_eq!(lan.nat.get(&(Proto::Udp, 41641)), Some(&addr(HOST)));
    }
}

#[test]
fn of_all_the_best_is_used_and_the_others_map_nothing() {
    let mut lan = Lan::new(router());
    lan.run(s(5));
    assert_eq!(by(&lan.events), [Protocol::Pcp]);
    assert_eq!(lan.gateway.mappings(), 1);
    assert!(lan.sent.iter().all(|(_, _, data)| data[..2] != [0, 1]), "no NAT-PMP mapping was asked for");
}

#[test]
fn a_better_protocol_gets_a_moment_after_a_worse_one_answered() {
    // NAT-PMP alone: it answers at once, and PCP is refused at once by the same gateway.
    let mut lan = Lan::new(speaks(&["nat-pmp"]));
    lan.run(Duration::from_millis(10));
    assert_eq!(by(&lan.events), [Protocol::NatPmp]);
    // UPnP alone: nobody says no to the other two, so that they get their 50 ms.
    let mut lan = Lan::new(speaks(&["upnp"]));
    lan.run(Duration::from_millis(40));
    assert!(lan.events.is_empty());
    lan.run(Duration::from_millis(60));
    assert_eq!(by(&lan.events), [Protocol::Upnp]);
}

#[test]
fn renews_from_half_of_the_lifetime_on_with_the_same_nonce() {
    let mut lan = Lan::new(speaks(&["pcp"]));
    lan.run(s(20_000));
    let maps: Vec<_> = lan.sent.iter().filter(|(_, _, data)| data[..2] == [2, 1]).collect();
    assert!(maps.len() >= 5, "{}", maps.len());
    for pair in maps.windows(2) {
        let gap = pair[1].0 - pair[0].0;
        assert!(gap >= s(3600) && gap <= s(4501), "RFC 6887 §11.2.1: {gap:?}");
    }
    assert!(maps.iter().all(|(_, _, data)| data[24..36] == maps[0].2[24..36]), "one nonce");
    assert_eq!(by(&lan.events).len(), 1, "a renewal is no news");
}

#[test]
fn renewals_come_closer_while_nobody_answers_and_then_the_mapping_is_lost() {
    let mut lan = Lan::new(speaks(&["nat-pmp"]));
    lan.run(s(1));
    lan.cut = true;
    lan.run(s(7300));
    assert!(matches!(lan.events[..], [Event::Mapped { .. }, Event::Lost { .. }]), "{:?}", lan.events);
    assert_eq!(lan.client.external(), None);
    let rounds = lan.sent.iter().filter(|(at, _, data)| *at > s(1) && data[..2] == [0, 1]).count();
    assert!((20..200).contains(&rounds), "{rounds}");
    lan.cut = false;
    lan.run(s(700));
    assert_eq!(lan.client.external(), Some(at(41641)), "found again");
}

#[test]
fn natpmp_is_repeated_nine_times_with_doubling_waits() {
    let mut lan = Lan::new(GatewayConfig { conduct: Conduct::Silent, ..router() });
    lan.run(s(400));
    let times: Vec<_> =
        lan.sent.iter().filter(|(_, _, data)| data[..] == [0, 0]).map(|(at, ..)| at.as_millis()).collect();
    assert_eq!(times, [0, 250, 750, 1750, 3750, 7750, 15_750, 31_750, 63_750]);
    let pcp: Vec<_> = lan.sent.iter().filter(|(_, _, data)| data[0] == 2).map(|(at, ..)| *at).collect();
    assert!(
        pcp[1] >= Duration::from_millis(2700) && pcp[1] <= Duration::from_millis(3300),
        "RFC 6887 §8.1.1"
    );
    assert!(lan.events.is_empty(), "PCP goes on to wait");
    lan.run(s(2000));
    assert_eq!(lan.events, [Event::NoGateway]);
}

#[test]
fn what_is_refused_gives_way_to_the_next() {
    let mut lan = Lan::new(GatewayConfig { conduct: Conduct::NotAuthorized, ..router() });
    lan.run(s(400));
    let refused: Vec<_> = lan
        .events
        .iter()
        .map_while(|e| if let Event::Refused { protocol, .. } = e { Some(*protocol) } else { None })
        .collect();
    assert!(
        refused.contains(&Protocol::Pcp)
            && refused.contains(&Protocol::NatPmp)
            && refused.contains(&Protocol::Upnp),
        "{:?}",
        lan.events
    );
    assert_eq!(lan.events.last(), Some(&Event::NoGateway));
    assert_eq!(lan.client.external(), None);
}

#[test]
fn another_port_is_as_good() {
    for word in ["pcp", "nat-pmp", "upnp"] {
        let mut lan = Lan::new(GatewayConfig { other_port: true, ..speaks(&[word]) });
        lan.run(s(1));
        let external = lan.client.external().unwrap();
        assert_ne!(external.port(), 41641);
        assert_eq!(lan.nat.get(&(Proto::Udp, external.port())), Some(&addr(HOST)), "{word}");
    }
}

#[test]
fn an_old_upnp_gateway_takes_some_tries() {
    let config = GatewayConfig { upnp: Some(IgdVersion::V1), permanent_only: true, ..speaks(&["upnp"]) };
    let mut lan = Lan::new(config);
    lan.taken = vec![41641];
    lan.run(s(1));
    let external = lan.client.external().unwrap();
    assert_ne!(external.port(), 41641);
    lan.run(s(100_000));
    assert_eq!(lan.client.external(), Some(external), "permanent, and looked after");
}

#[test]
fn a_private_address_is_given_back() {
    for word in ["pcp", "nat-pmp", "upnp"] {
        let client = ClientConfig::new(addr(HOST), ip(ROUTER));
        let mut lan = Lan::behind(speaks(&[word]), client, ip("10.0.0.7"));
        lan.run(s(2));
        assert!(
            matches!(lan.events[..], [Event::Unusable { external, .. }] if external == addr("10.0.0.7:41641")),
            "{word}: {:?}",
            lan.events
        );
        assert_eq!(lan.client.external(), None);
        assert!(lan.nat.is_empty(), "{word}");
    }
}

#[test]
fn a_reboot_is_noticed_by_the_announcement_and_the_port_mapped_again() {
    for word in ["pcp", "nat-pmp", "upnp"] {
        let mut lan = Lan::new(speaks(&[word]));
        lan.run(s(1000));
        lan.reboot();
        assert!(lan.nat.is_empty());
        lan.run(s(6));
        assert_eq!(lan.nat.get(&(Proto::Udp, 41641)), Some(&addr(HOST)), "{word}");
        let told = lan.events.iter().any(|e| matches!(e, Event::Restarted { .. }));
        assert_eq!(told, word != "upnp", "UPnP tells no epoch");
    }
}

#[test]
fn another_address_after_a_restart_is_told() {
    for word in ["pcp", "nat-pmp", "upnp"] {
        let mut lan = Lan::new(speaks(&[word]));
        lan.run(s(1000));
        lan.wan = ip("203.0.113.8");
        lan.reboot();
        lan.run(s(6));
        assert_eq!(lan.client.external(), Some(addr("203.0.113.8:41641")), "{word}");
        assert_eq!(by(&lan.events).len(), 2);
    }
}

#[test]
fn a_strict_gateway_that_forgot_gives_the_same_port_again() {
    let mut lan = Lan::new(GatewayConfig { forgets_after: Some(s(60)), ..speaks(&["pcp"]) });
    lan.run(s(100));
    assert!(lan.nat.is_empty(), "forgotten");
    lan.run(s(4500));
    assert_eq!(lan.client.external(), Some(at(41641)));
    let again = lan
        .log
        .iter()
        .filter(|e| matches!(e, portmap::gateway::Event::Mapped { renewed: false, .. }))
        .count();
    assert_eq!(again, 2);
}

#[test]
fn a_shutdown_gives_the_port_back() {
    for word in ["pcp", "nat-pmp", "upnp"] {
        let mut lan = Lan::new(speaks(&[word]));
        lan.run(s(10));
        lan.client.shutdown(lan.now);
        lan.run(s(60));
        assert!(lan.nat.is_empty(), "{word}");
        assert_eq!(lan.client.poll_timeout(), None);
        let sent = lan.sent.len();
        lan.run(s(100_000));
        assert_eq!(lan.sent.len(), sent, "silent from then on");
    }
}

#[test]
fn a_client_that_ends_waits_for_a_upnp_gateway_but_not_for_long() {
    let mut lan = Lan::new(speaks(&["upnp"]));
    lan.run(s(10));
    assert!(!lan.client.is_finished());
    lan.client.shutdown(lan.now);
    assert!(!lan.client.is_finished(), "the port is still the router's to take");
    lan.run(Duration::from_millis(50));
    assert!(lan.client.is_finished() && lan.nat.is_empty());

    // One that is gone.
    let mut lan = Lan::new(speaks(&["upnp"]));
    lan.run(s(10));
    lan.cut = true;
    lan.client.shutdown(lan.now);
    lan.run(Duration::from_millis(499));
    assert!(!lan.client.is_finished());
    lan.run(Duration::from_millis(1));
    assert!(lan.client.is_finished());

    // What a datagram gives back leaves nothing to wait for.
    let mut lan = Lan::new(speaks(&["pcp"]));
    lan.run(s(10));
    lan.client.shutdown(lan.now);
    assert!(lan.client.is_finished());
}

#[test]
fn only_the_gateway_is_believed() {
    let now = start();
    let mut client =
        Client::new(ClientConfig::new(addr(HOST), ip(ROUTER)), ChaCha12Rng::seed_from_u64(1), now);
    client.handle_timeout(now);
    while client.poll_transmit().is_some() {}
    let found = |location: &str| {
        format!("HTTP/1.1 200 OK\r\nST: x\r\nUSN: y\r\nLOCATION: {location}\r\n\r\n").into_bytes()
    };
    let body = natpmp::Body::ExternalAddress([203, 0, 113, 7].into());
    let pmp = natpmp::Response { epoch: 1, body }.to_vec();
    let attempts = [
        ("192.168.1.66:5351", pmp.clone()),
        ("192.168.1.1:9999", pmp),
        ("192.168.1.66:1900", found("http://192.168.1.66/x")),
        ("192.168.1.1:1900", found("http://192.168.1.66/x")),
        ("192.168.1.1:1900", found("http://evil.example/x")),
    ];
    for (from, data) in attempts {
        client.handle(Input::Datagram { from: addr(from), data: &data }, now + Duration::from_millis(1));
        client.handle_timeout(now + Duration::from_millis(200));
        let asked = std::iter::from_fn(|| client.poll_transmit()).any(
            |t| !matches!(t, Transmit::Datagram { data, .. } if data[..] == [0, 0] || data[..2] == [2, 0]),
        );
        assert!(!asked, "{from}");
    }
}

#[test]
fn an_answer_with_another_nonce_is_not_ours() {
    let mut lan = Lan::new(speaks(&["pcp"]));
    lan.run(Duration::from_micros(2500));
    let map = pcp::Map { nonce: [0; 12], protocol: 17, internal_port: 41641, external: at(9) };
    let response =
        pcp::Response { refused: None, lifetime: 60, epoch: 0, op: Some(pcp::Op::Map(map)), options: vec![] };
    let from = SocketAddr::new(ip(ROUTER), SERVER_PORT);
    lan.client.handle(Input::Datagram { from, data: &response.to_vec() }, lan.now);
    assert_eq!(lan.client.external(), None);
}

proptest! {
    /// Whatever a gateway says, the client neither fails nor asks without end.
    #[test]
    fn anything_may_be_answered(seed: u64, answers in proptest::collection::vec((prop_oneof![Just(5351_u16), Just(1900)], any::<bool>(), 0_u8..3, 127_u8..132, proptest::collection::vec(any::<u8>(), 0..80)), 0..40)) {
        let begin = start();
        let mut now = begin;
        let mut client = Client::new(ClientConfig::new(addr(HOST), ip(ROUTER)), ChaCha12Rng::seed_from_u64(seed), now);
        let mut sent = 0;
        for (port, announced, version, op, mut data) in answers {
            if data.len() > 4 {
                (data[0], data[1], data[2], data[3]) = (version, op, 0, 0);
            }
            let from = SocketAddr::new(ip(ROUTER), port);
            let input = if announced { Input::Announcement { from, data: &data } } else { Input::Datagram { from, data: &data } };
            client.handle(input, now);
            for _ in 0..3 {
                let Some((at, _)) = client.poll_timeout() else { break };
                now = now.max(at);
                client.handle_timeout(now);
                sent += std::iter::from_fn(|| client.poll_transmit()).count();
            }
            while client.poll_event().is_some() {}
        }
        prop_assert!(sent <= 40 * 3 * 8, "{}", sent);
    }

    #[test]
    fn a_deadline_that_has_come_is_done(seed: u64, conduct in 0_usize..4) {
        let conduct = [Conduct::Serve, Conduct::Silent, Conduct::NoResources, Conduct::NetworkFailure][conduct];
        let mut lan = Lan::new(GatewayConfig { conduct, ..router() });
        lan.client = Client::new(ClientConfig::new(addr(HOST), ip(ROUTER)), ChaCha12Rng::seed_from_u64(seed), lan.now);
        for _ in 0..50 {
            lan.run(s(100));
            if let Some((at, why)) = lan.client.poll_timeout() {
                prop_assert!(at > lan.now, "{}", why);
            }
        }
    }
}
