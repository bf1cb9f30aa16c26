//! What the turmoil world leaves out.

use crate::common::scenario;
use crate::limits;
use punchbag::campaign::{Which, run_in};
use punchbag::topology::Topology;
use punchbag::world::turmoil::{Bench, TICK, fits, judged};
use punchbag::world::{Options, Seed};
use std::time::Duration;
use trace::{Event, Proto};

limits![neither_rates_nor_loss, turns_of_a_millisecond, tcp_of_the_simulator, router_programs_bare];

const HOMES: &str = "title = \"t\"\nwhy = \"w\"\nuntil = \"3s\"\n[router.home-a]\nregion = \"eu-west\"\nnat = \"full-cone\"\n\
                     gateway = \"all\"\n[router.home-b]\nregion = \"us-east\"\n[host.a]\nbehind = \"home-a\"\n[host.b]\n\
                     behind = \"home-b\"\n[[traffic]]\nkind = \"ping\"\nfrom = \"a\"\nto = \"b\"\nat = \"1s\"\n";

fn neither_rates_nor_loss() {
    for (link, asked) in [
        ("{ loss = \"1%\" }", "up: loss"),
        ("{ up = \"2Mbit/s\" }", "up: a rate of 2000000 bit/s"),
        ("{ preset = \"fibre\", jitter = \"5ms\" }", "up: jitter"),
    ] {
        let scenario = scenario(&HOMES.replace("gateway = \"all\"", &format!("link = {link}")));
        let topology = Topology::new(&scenario).expect("a network");
        let told = fits(&scenario, &topology).expect_err(link).to_string();
        assert!(told.contains(asked), "{link}: {told}");
    }
}

fn turns_of_a_millisecond() {
    assert_eq!(TICK, Duration::from_millis(1));
    let expect = |limit| format!("{HOMES}[[expect]]\npair = [\"a\", \"b\"]\nrtt-at-most = \"{limit}\"\n");
    let (fine, left_out) = judged(&scenario(&expect("9ms")));
    assert_eq!((fine.expect[0].rtt_at_most, left_out.len()), (None, 1), "{left_out:?}");
    let (coarse, left_out) = judged(&scenario(&expect("10ms")));
    assert_eq!((coarse.expect[0].rtt_at_most, left_out.len()), (Some(Duration::from_millis(10)), 0));
}

/// Its segments are the simulator's packets: they are in the log, and routers translate them.
fn tcp_of_the_simulator() {
    let run =
        run_in(Which::Turmoil, &scenario(HOMES), Seed(1), Options::default(), "a test").expect("it fits");
    let sent = run.records.iter().find_map(|record| match &record.event {
        Event::Sent { node, proto: Proto::Tcp, id, .. } if &**node == "a" => Some(*id),
        _ => None,
    });
    let translated = |event: &Event| matches!(event, Event::Translated { id, .. } if Some(*id) == sent);
    assert!(sent.is_some() && run.records.iter().any(|record| translated(&record.event)));
}

fn router_programs_bare() {
    let scenario = scenario(HOMES);
    let topology = Topology::new(&scenario).expect("a network");
    let mut bench = Bench::new(&scenario, &topology, Seed(1), Options::default(), TICK).expect("it fits");
    bench.run_until(Duration::from_secs(2)).expect("nothing panics");
    assert_eq!((bench.shells("home-a"), bench.shells("a"), bench.shells("relay")), (0, 1, 1));
    let mapped = |event: &Event| matches!(event, Event::PortMapping { .. });
    assert!(bench.events(|events| events.iter().any(|record| mapped(&record.event))));
}
