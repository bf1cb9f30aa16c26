//! How fast two ordinary homes get a direct path: 25 ms apart, 60 ms over the relay, one way.
//!
//! The clock starts when takkie, whose traffic starts, has flappie's candidates: its first `Candidates` event about
//! flappie, which comes with its first packet, as the coordination server has told it all before. Flappie learns of the
//! punch 60 ms later over the relay; so no order of packets can validate a path on both sides before the relay's one way
//! and twice the direct one. The clock stops when both have validated a path.

mod common;

use common::{jobs, play, scenario};
use punchbag::campaign::in_parallel;
use punchbag::scenario::Scenario;
use punchbag::world::Options;
use std::time::Duration;
use trace::{Event, Record};

const DIRECT_ONE_WAY: Duration = Duration::from_millis(25);
const RELAY_ONE_WAY: Duration = Duration::from_millis(60);

/// Both homes port-restricted, every cable without delay, so that all of it lies between the regions. The traffic starts
/// after 10 s, by when both are connected to the relay whatever was lost. The cable of home a loses packets both ways, from
/// the start or from `later` on.
fn homes(loss: &str, later: &str) -> Scenario {
    scenario(&format!(
        r#"title = "Two homes"
until = "14s"

[internet.latency]
here.there = "25ms"
here.middle = "30ms"
there.middle = "30ms"

[router.home-a]
region = "here"
nat = "port-restricted-cone"
link = {{ down = "unlimited", up = "unlimited", delay = "0ms", loss = "{loss}" }}

[router.home-b]
region = "there"
nat = "port-restricted-cone"
link = {{ down = "unlimited", up = "unlimited", delay = "0ms" }}

[host.takkie]
behind = "home-a"
link = {{ down = "unlimited", up = "unlimited", delay = "0ms" }}

[host.flappie]
behind = "home-b"
link = {{ down = "unlimited", up = "unlimited", delay = "0ms" }}

[relay.relay]
region = "middle"
link = {{ down = "unlimited", up = "unlimited", delay = "0ms" }}

[coordinator]
region = "middle"

[[traffic]]
kind = "ping"
from = "takkie"
to = "flappie"
at = "10s"
interval = "50ms"
{later}"#
    ))
}

/// From the candidates being known to both sides having validated a path; `None` = never.
fn until_validated(records: &[Record]) -> Option<Duration> {
    let known = records.iter().find_map(|record| match &record.event {
        Event::Candidates { host, peer, .. } if &**host == "takkie" && &**peer == "flappie" => Some(record.t),
        _ => None,
    })?;
    let validated = |name: &str| {
        records.iter().find_map(|record| match &record.event {
            Event::Validated { host, .. } if &**host == name => Some(record.t),
            _ => None,
        })
    };
    let both = validated("takkie")?.max(validated("flappie")?);
    Some(Duration::from_nanos(both - known))
}

fn options() -> Options {
    Options { timers: false, ..Options::default() }
}

#[test]
fn without_loss_both_sides_validate_in_little_more_than_the_least_possible_time() {
    let run = play(&homes("0%", ""), 1, options());

    let took = until_validated(&run.records).expect("both sides validated a path");
    let least = RELAY_ONE_WAY + 2 * DIRECT_ONE_WAY;
    assert!(took * 100 <= least * 115, "{took:?}, more than 1.15 times {least:?}");
    assert!(took >= least, "{took:?}: sooner than packets can travel");
}

/// What 1,000 seeds take, sorted, with the seed.
#[expect(clippy::print_stdout, reason = "`--nocapture` shows the whole distribution, not only that it holds")]
fn thousand(scenario: &Scenario) -> Vec<(Duration, u64)> {
    let seeds: Vec<u64> = (1..=1000).collect();
    let job = |seed: &u64| {
        let run = play(scenario, *seed, options());
        assert_eq!(run.verdict.violations, Vec::<String>::new(), "seed {seed}");
        (until_validated(&run.records).unwrap_or(Duration::MAX), *seed)
    };
    let mut took = in_parallel(&seeds, jobs(), job, |_, _| ());
    took.sort_unstable();
    println!("(time, seed): {}", percentiles(&took));
    took
}

fn percentiles(took: &[(Duration, u64)]) -> String {
    let [p50, p90, p95, p99, worst] = [500, 900, 950, 990, 1000].map(|rank| took[rank - 1]);
    format!("p50 {p50:?}, p90 {p90:?}, p95 {p95:?}, p99 {p99:?}, worst {worst:?}")
}

/// Of the checks and answers on the direct path, 5 % are lost in each direction; the call over the relay gets through, as
/// it leaves a millisecond before the loss begins. (The first check does too, and is filtered at the other end.)
#[test]
fn with_five_percent_loss_99_of_100_pairs_are_direct_within_a_quarter_of_a_second() {
    let took =
        thousand(&homes("0%", "\n[[at]]\ntime = \"10001ms\"\nlink = { node = \"home-a\", loss = \"5%\" }\n"));

    assert!(took[989].0 <= Duration::from_millis(250), "(time, seed): {}", percentiles(&took));
}

/// The same when every packet of home a may be lost, also those of the TCP connection to the relay. The call is one
/// segment of it; where it is lost, the tunnel's handshake in the segment before tells flappie as much.
#[test]
fn with_five_percent_loss_on_the_way_to_the_relay_too() {
    let took = thousand(&homes("5%", ""));

    assert!(took[989].0 <= Duration::from_millis(250), "(time, seed): {}", percentiles(&took));
    assert!(took[999].0 <= Duration::from_secs(2), "(time, seed): {}", percentiles(&took));
}
