use crate::metrics::Metrics;
use crate::testlog::{Log, MS, two_homes, web_only};
use crate::{Fold, ScenarioSummary};
use trace::{FlowKind, Path};

const PING: &str = "ping";

fn pair_of(log: &Log) -> crate::metrics::PairMetrics {
    Metrics::fold(&log.records()).pairs.remove(0)
}

/// A voice stream one way, 20 ms apart, 10 ms of latency; the numbers in `lost` never arrive.
fn voice(count: u64, lost: impl Fn(u64) -> bool) -> Log {
    let mut log = Log::default();
    log.flow(0, "call", FlowKind::Voice, "a", "b").paths(0, "a", "b", Some(Path::Relay), "");
    for seq in 0..count {
        log.sent(seq * 20, "call", "a", seq);
        if !lost(seq) {
            log.received(seq * 20 + 10, "call", "b", seq, 10, Path::Relay);
        }
    }
    log
}

#[test]
fn times_count_from_the_first_packet_not_from_the_announcement() {
    let mut log = Log::default();
    log.flow(100, PING, FlowKind::Ping, "flappie", "takkie");
    log.paths(300, "takkie", "flappie", Some(Path::Relay), "").ping(300, PING, 0, 60, Path::Relay);
    log.path(400, "flappie", "takkie", Some(Path::Direct), "").path(
        450,
        "takkie",
        "flappie",
        Some(Path::Lan),
        "",
    );

    let pair = pair_of(&log);

    assert_eq!((&*pair.a, &*pair.b), ("flappie", "takkie"));
    assert_eq!(
        (pair.started_ns, pair.first_data_ns, pair.direct_ns),
        (300 * MS, Some(60 * MS), Some(150 * MS))
    );
    assert_eq!((pair.path_a, pair.path_b), (Some(Path::Direct), Some(Path::Lan)));
    assert_eq!(pair.path(), Some(Path::Direct), "a LAN that only one side sees is a direct path");
}

#[test]
fn a_pair_is_relayed_while_either_side_is() {
    let mut log = Log::default();
    log.flow(100, PING, FlowKind::Ping, "flappie", "takkie").ping(100, PING, 0, 60, Path::Relay);
    log.path(100, "takkie", "flappie", Some(Path::Relay), "").path(
        400,
        "flappie",
        "takkie",
        Some(Path::Direct),
        "",
    );

    let pair = pair_of(&log);

    assert_eq!((pair.path(), pair.direct_ns), (Some(Path::Relay), None));
}

#[test]
fn loss_belongs_to_the_path_of_the_sender_at_the_time() {
    let mut log = voice(10, |seq| seq == 3 || seq == 8);
    log.paths(99, "a", "b", Some(Path::Direct), "validated").end(5_000);

    let pair = pair_of(&log);

    let of = |path| {
        let figures = pair.paths.get(path);
        (figures.sent, figures.lost, figures.loss_ppm)
    };
    assert_eq!(of(Path::Relay), (5, 1, Some(200_000)));
    assert_eq!(of(Path::Direct), (5, 1, Some(200_000)));
    assert_eq!(of(Path::Lan), (0, 0, None));
    assert_eq!(pair.loss_ppm(), Some(200_000));
    let lost: Vec<_> =
        pair.switches.iter().filter(|switch| &*switch.host == "a").map(|switch| switch.lost).collect();
    assert_eq!(lost, [2, 2], "both are within half a second of both changes");
}

#[test]
fn a_packet_in_flight_at_the_end_is_not_lost() {
    let mut log = voice(10, |seq| seq == 9);
    log.end(180 + 999);
    assert_eq!(pair_of(&log).paths.relay.lost, 0);
    log.end(180 + 1_000);
    assert_eq!(pair_of(&log).paths.relay.lost, 1);
}

#[test]
fn a_packet_without_a_path_is_counted_apart() {
    let mut log = Log::default();
    log.flow(0, "call", FlowKind::Voice, "a", "b").sent(1, "call", "a", 0).end(2_000);
    let pair = pair_of(&log);
    assert_eq!((pair.pathless_sent, pair.pathless_lost, pair.first_data_ns), (1, 1, None));
}

#[test]
fn a_gap_runs_from_when_a_packet_was_due_to_when_one_came() {
    let mut log = voice(100, |seq| (10..30).contains(&seq));
    log.end(5_000);
    let pair = pair_of(&log);
    let [gap] = &pair.gaps[..] else { panic!("{:?}", pair.gaps) };
    assert_eq!((gap.since_ns, gap.from_ns, gap.to_ns), (190 * MS, 210 * MS, 610 * MS));
    assert!(gap.resumed);
    assert_eq!(pair.longest_gap_ns, 400 * MS);
}

#[test]
fn a_pause_of_the_sender_is_no_gap() {
    let mut log = Log::default();
    log.flow(0, PING, FlowKind::Ping, "flappie", "takkie").paths(
        0,
        "flappie",
        "takkie",
        Some(Path::Direct),
        "",
    );
    log.ping(0, PING, 0, 25, Path::Direct).ping(60_000, PING, 1, 25, Path::Direct).end(70_000);
    let pair = pair_of(&log);
    assert_eq!((pair.gaps.len(), pair.longest_gap_ns), (0, 0));
}

#[test]
fn silence_at_the_end_is_a_gap_that_does_not_resume() {
    let mut log = voice(200, |seq| seq >= 50);
    log.action(995, "cable a: cut").end(4_000);
    let pair = pair_of(&log);
    let [gap] = &pair.gaps[..] else { panic!("{:?}", pair.gaps) };
    assert_eq!((gap.from_ns, gap.to_ns, gap.resumed), (1_010 * MS, 4_000 * MS, false));
    assert_eq!(pair.recoveries[0].recovery_ns, None);
    assert_eq!(pair.longest_recovery_ns(), Some(None));
}

#[test]
fn each_action_has_its_own_recovery() {
    let mut log = voice(500, |seq| (100..120).contains(&seq) || (300..310).contains(&seq));
    log.action(2_000, "first").action(5_990, "second").action(8_000, "third").end(12_000);
    let found: Vec<_> =
        pair_of(&log).recoveries.iter().map(|found| (found.recovery_ns, found.silence_ns)).collect();
    assert_eq!(
        found,
        [(Some(400 * MS), Some(420 * MS)), (Some(200 * MS), Some(220 * MS)), (Some(0), Some(0))]
    );
}

#[test]
fn a_round_trip_counts_only_if_it_kept_to_one_path() {
    let mut log = Log::default();
    log.flow(0, PING, FlowKind::Ping, "flappie", "takkie");
    for seq in 0..10 {
        log.ping(seq * 1_000, PING, seq, 10 + seq, Path::Direct);
    }
    let mixed =
        trace::Event::Echo { flow: PING.into(), seq: 10, rtt_ns: 1, out: Path::Relay, back: Path::Direct };
    log.at(20_000, mixed);
    let direct = pair_of(&log).paths.direct;
    assert_eq!(direct.echoes, 10);
    let rtt = [direct.rtt_min_ns, direct.rtt_p50_ns, direct.rtt_p90_ns];
    assert_eq!(rtt, [Some(20 * MS), Some(28 * MS), Some(36 * MS)]);
    assert_eq!(pair_of(&log).paths.relay.echoes, 0);
}

#[test]
fn goodput_leaves_out_the_start_and_the_change_of_path() {
    let mut log = Log::default();
    log.flow(0, "copy", FlowKind::Bulk, "a", "b");
    log.bulk(1_000, "copy", "b", 1_000, Path::Relay).bulk(1_100, "copy", "b", 126_000, Path::Relay);
    log.bulk(1_400, "copy", "b", 200_000, Path::Direct).bulk(1_500, "copy", "b", 1_450_000, Path::Direct);
    let pair = pair_of(&log);
    assert_eq!(pair.paths.relay.goodput_bps, Some(10_000_000));
    assert_eq!(pair.paths.direct.goodput_bps, Some(100_000_000));
    assert_eq!(pair.first_data_ns, Some(1_000 * MS));
    assert_eq!(pair.flows[0].bulk_bytes, 1_450_000);
    assert_eq!(pair.flows[0].goodput_bps, Some(1_450_000 * 8 * 10 / 15));
}

#[test]
fn a_duplicate_is_counted_once() {
    let mut log = voice(3, |_| false);
    log.received(45, "call", "b", 1, 25, Path::Relay);
    let pair = pair_of(&log);
    assert_eq!((pair.duplicates, pair.paths.relay.received), (1, 3));
}

#[test]
fn hosts_and_boxes_are_counted() {
    let metrics = Metrics::fold(&two_homes());
    assert_eq!((metrics.registered, metrics.dropped, metrics.end_ns), (2, 5, 12_000 * MS));
    let flappie = &metrics.hosts[0];
    assert_eq!((flappie.host.as_str(), flappie.probes, flappie.mapping_varies), ("flappie", 6, Some(false)));
    assert_eq!(flappie.relay.as_deref(), Some("relay-ams"));
    let home_b = &metrics.boxes[1];
    assert_eq!(
        (home_b.name.as_str(), home_b.dropped["filtered-port"], home_b.dropped["router-off"]),
        ("home-b", 1, 2)
    );
    let pair = metrics.pair("takkie", "flappie").unwrap();
    assert_eq!((pair.path(), pair.direct_ns), (Some(Path::Relay), Some(140 * MS)));
    assert_eq!((pair.paths.direct.sent, pair.paths.direct.lost), (10, 2));
}

#[test]
fn pushing_one_by_one_is_the_same_and_finishing_early_changes_nothing() {
    let records = web_only();
    let mut fold = Fold::default();
    for record in &records {
        fold.push(record);
        fold.finish();
    }
    assert_eq!(fold.finish(), Metrics::fold(&records));
}

#[test]
fn metrics_and_summary_survive_json() {
    let metrics = Metrics::fold(&two_homes());
    let text = serde_json::to_string(&metrics).unwrap();
    assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), metrics);
    let header = crate::testlog::header("mission/two-homes", "Two homes");
    let summary = ScenarioSummary::new(&header, &metrics, "punchbag run");
    let text = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<ScenarioSummary>(&text).unwrap(), summary);
    assert!(integers_only(&serde_json::from_str(&text).unwrap()));
}

fn integers_only(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => number.is_u64(),
        serde_json::Value::Array(values) => values.iter().all(integers_only),
        serde_json::Value::Object(fields) => fields.values().all(integers_only),
        _ => true,
    }
}

#[test]
fn a_log_of_nonsense_is_folded_without_complaint() {
    let mut log = Log::default();
    log.sent(1, "none", "a", 0).received(0, "none", "b", u64::MAX, 1, Path::Lan).bulk(
        5,
        "none",
        "b",
        1,
        Path::Relay,
    );
    log.flow(9, "call", FlowKind::Voice, "a", "a").received(10, "call", "a", u64::MAX, 20, Path::Lan);
    log.sent(10, "call", "a", u64::MAX).received(10, "call", "a", 0, 20, Path::Lan);
    let metrics = Metrics::fold(&log.records());
    assert_eq!(metrics.pairs.len(), 1);
}
