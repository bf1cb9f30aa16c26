//! A thousand machines that join at once.

use punchbag::host::PeerProgram;
use punchbag::judge::judge;
use punchbag::scenario::parse;
use punchbag::topology::Topology;
use punchbag::world::{Options, Seed, World};
use report::metrics::Metrics;
use std::collections::BTreeSet;
use std::time::Duration;

/// A hundred homes with ten machines each.
const HOMES: usize = 100;
const EACH: usize = 10;

fn text() -> String {
    let mut text = String::from("title = \"a thousand\"\nwhy = \"a test\"\nuntil = \"8s\"\n");
    let nats = ["linux", "port-restricted-cone", "full-cone", "rfc4787"];
    let regions = ["eu-west", "us-east", "eu-central"];
    for home in 0..HOMES {
        let (nat, region) = (nats[home % nats.len()], regions[home % regions.len()]);
        text += &format!("[router.home-{home}]\nregion = \"{region}\"\nnat = \"{nat}\"\n");
        text += &format!("[host.h{home}]\nbehind = \"home-{home}\"\ncount = {EACH}\n");
    }
    for home in (0..HOMES).step_by(20) {
        let next = home + 1;
        text += &format!(
            "[[traffic]]\nkind = \"ping\"\nfrom = \"h{home}\"\nto = \"h{next}\"\nat = \"6s\"\ninterval = \"200ms\"\n"
        );
        text +=
            &format!("[[expect]]\npair = [\"h{home}\", \"h{next}\"]\npath = \"direct\"\nlost-at-most = 0\n");
    }
    text
}

#[test]
fn a_thousand_that_join_at_once_know_each_other_within_six_seconds() {
    let scenario = parse("thousand", "thousand.toml", &text()).unwrap_or_else(|error| panic!("{error}"));
    let topology = Topology::new(&scenario).expect("a sound network");
    let mut world = World::new(&scenario, &topology, Seed(1), Options::default()).expect("a world");
    world.run_until(Duration::from_secs(6));

    let mut addresses = BTreeSet::new();
    for name in scenario.hosts.keys() {
        let peer = world.program::<PeerProgram>(name).expect("it runs").peer();
        let status = peer.status();
        assert!(status.coordinated, "{name} has no coordination server");
        assert!(status.home_relay.is_some_and(|(_, up)| up), "{name} has no relay");
        let online = status.peers.iter().filter(|peer| peer.online).count();
        assert_eq!(online, HOMES * EACH - 1, "{name}");
        addresses.insert(status.tunnel.expect("it has registered"));
    }
    assert_eq!(addresses.len(), HOMES * EACH, "each has an address of its own");

    let records = world.run().expect("no captures").records;
    let verdict = judge(&scenario, &records, &Metrics::fold(&records));
    assert!(verdict.passed(), "{verdict:?}");
}
