//! A scenario that goes direct is played once more with direct paths cut, so that the two can be compared.

mod common;

use common::{play, shipped};
use punchbag::campaign::{compare, run};
use punchbag::world::{Options, Seed};
use trace::Event;

#[test]
fn a_direct_pair_gets_relayed_figures_of_its_own_network() {
    let scenario = shipped("mission/two-homes");
    let mut first = play(&scenario, 1, Options::default());
    assert!(first.summary.pairs[0].relayed.is_none(), "a single run compares nothing");

    compare(&scenario, Seed(1), &mut first).expect("it can be played");

    let pair = &first.summary.pairs[0];
    let relayed = pair.relayed.expect("both homes reach the relay");
    let direct = pair.paths.direct.expect("they went direct");
    assert!(relayed.echoes >= 80, "{} echoes", relayed.echoes);
    assert!(relayed.rtt_p50_ns > direct.rtt_p50_ns, "{relayed:?} against {direct:?}");
}

#[test]
fn with_direct_paths_cut_nothing_is_validated() {
    let options = Options { direct: false, ..Options::default() };

    let cut = run(&shipped("mission/two-homes"), Seed(1), options, "").expect("it can be played");

    assert!(!cut.records.iter().any(|r| matches!(r.event, Event::Validated { .. })));
    assert!(cut.metrics.pairs[0].first_data_ns.is_some());
}
