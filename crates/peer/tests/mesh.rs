//! Many peers at once.

mod net;

use net::{Nat, Net, ms};
use peer::{Event, Via};

#[test]
fn twenty_homes_talk_each_to_each_directly() {
    let homes: Vec<(Nat, &[u8])> = vec![(Nat::PortRestricted, &[2]); 20];
    let mut net = Net::new(1, &homes, 2);
    net.run_for(ms(5000));
    let since = net.elapsed();
    for from in 0..20 {
        for to in (0..20).filter(|to| *to != from) {
            net.tunnel_send(from, to, &[from as u8]);
        }
    }
    net.run_for(ms(2000));
    for host in 0..20 {
        assert_eq!(net.received(host, since).len(), 19);
        let direct = |event: &Event| matches!(event, Event::PathChanged { path: Some(Via::Direct(_)), .. });
        let moved = net.events.iter().filter(|(_, who, event)| *who == host && direct(event)).count();
        assert!(moved >= 19, "host {host}: {moved}");
    }
}

#[test]
fn a_peer_to_whom_nobody_talks_hears_nothing() {
    let homes: Vec<(Nat, &[u8])> = vec![(Nat::PortRestricted, &[2]); 5];
    let mut net = Net::new(2, &homes, 1);
    net.run_for(ms(5000));
    let sent = net.sent[4];
    net.tunnel_send(0, 1, b"not for you");
    net.run_for(ms(30_000));
    assert_eq!(net.sent[4], sent);
}
