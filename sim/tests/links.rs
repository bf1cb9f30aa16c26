//! Links in scenario files: what is understood, what is refused, and the files beside a scenario.

mod common;

use common::{Folder, play, scenario, shipped};
use link::{Aqm, CoDel, FqCoDel, Jitter, LinkConfig, Loss, Red, Share, StepTo};
use proptest::prelude::*;
use punchbag::campaign;
use punchbag::scenario::{self, Scenario};
use punchbag::world::Options;
use std::time::Duration;
use trace::Event;

const MS: Duration = Duration::from_millis(1);

fn text(link: &str) -> String {
    format!(
        "title = \"t\"\nuntil = \"10s\"\n[router.r]\nregion = \"tokyo\"\nlink = {link}\n[host.h]\ncount = 2\nbehind = \"r\"\n"
    )
}

/// What the files beside the scenario are.
fn beside(name: &str) -> Result<String, String> {
    match name {
        "a.trace" => Ok("1\n2\n4\n".to_owned()),
        "b.trace" => Ok("10\n".to_owned()),
        "bad.trace" => Ok("1\nx\n".to_owned()),
        "a.delays" => Ok("0,20\n100,30.5\n".to_owned()),
        _ => Err("no such file".to_owned()),
    }
}

fn read(text: &str) -> Result<Scenario, String> {
    scenario::parse_with("test", "test.toml", text, &beside).map_err(|error| error.to_string())
}

/// The uplink's two directions, down first.
fn links(link: &str) -> [LinkConfig; 2] {
    let scenario = read(&text(link)).unwrap_or_else(|error| panic!("{error}"));
    let access = scenario.routers["r"].link.clone();
    [access.down, access.up]
}

#[test]
fn queues_are_understood() {
    let aqm = |words: &str| links(&format!("{{ aqm = \"{words}\" }}"))[1].aqm;
    assert_eq!(aqm("drop-tail"), Aqm::DropTail);
    assert_eq!(aqm("codel"), Aqm::CoDel(CoDel::DEFAULT));
    let codel = CoDel { target: 10 * MS, interval: 200 * MS, ecn: true };
    assert_eq!(aqm("codel target 10ms interval 200ms ecn on"), Aqm::CoDel(codel));
    assert_eq!(aqm("fq-codel"), Aqm::FqCoDel(FqCoDel::DEFAULT));
    let fair = FqCoDel { codel: CoDel::DEFAULT, flows: 8, quantum: 300 };
    assert_eq!(aqm("fq-codel flows 8 ecn off quantum 300B"), Aqm::FqCoDel(fair));
    let red = Red { min: 30_000, max: 90_000, probability: Share::percent(2), ecn: true };
    assert_eq!(aqm("red min 30kB max 90kB probability 2% ecn on"), Aqm::Red(red));
    let [down, up] = links("{ aqm = { up = \"fq-codel\" } }");
    assert_eq!((down.aqm, up.aqm), (Aqm::DropTail, Aqm::FqCoDel(FqCoDel::DEFAULT)));
}

#[test]
fn losses_are_understood() {
    let loss = |words: &str| links(&format!("{{ loss = \"{words}\" }}"))[0].loss;
    assert_eq!(loss("1%"), Loss::percent(1));
    assert_eq!(loss("every 50"), Loss::every(50));
    assert_eq!(loss("burst 5 every 200"), Loss::Burst { length: 5, every: 200 });
    let (p, r) = (Share::percent(1), Share::percent(10));
    let simple = Loss::GilbertElliott { p, r, h: Share::NONE, k: Share::ALL };
    assert_eq!(loss("gilbert-elliott p 1% r 10%"), simple);
    let full = Loss::GilbertElliott { p, r, h: Share::percent(30), k: Share::per_billion(999_000_000) };
    assert_eq!(loss("gilbert-elliott r 10% p 1% k 99.9% h 30%"), full);
}

#[test]
fn delays_are_understood() {
    let [down, _] = links("{ delay = \"20ms\", jitter = \"normal 5ms\" }");
    assert_eq!((down.delay, down.jitter), (20 * MS, Jitter::Normal { std_dev: 5 * MS }));
    let [down, _] = links("{ jitter = \"5 ms\" }");
    assert_eq!(down.jitter, Jitter::Uniform { plus_minus: 5 * MS });
    let [down, _] = links("{ delay = \"10% 20ms, 50% 35ms, 90% 80ms\" }");
    let Jitter::Quantiles(quantiles) = &down.jitter else { panic!("measured") };
    let points = [(10, 0), (50, 15), (90, 60)].map(|(share, ms)| (Share::percent(share), ms * MS));
    assert_eq!((down.delay, quantiles.points()), (20 * MS, points.as_slice()));
    let [down, _] = links("{ delay-steps = { every = \"15s\", by = \"10ms\", to = \"up-and-back\" } }");
    let steps = down.steps.expect("steps");
    assert_eq!((steps.first, steps.by, steps.to), (15_000 * MS, 10 * MS, StepTo::UpAndBack));
}

#[test]
fn outages_and_mtu_are_understood() {
    let [down, up] = links("{ outages = { every = \"60s\", for = \"500ms\" }, mtu = { up = 1400 } }");
    let outages = down.outages.expect("outages");
    assert_eq!((outages.every, outages.lasts, outages.first), (60_000 * MS, 500 * MS, 60_000 * MS));
    assert_eq!((up.outages, down.mtu), (down.outages, None));
    assert_eq!(up.mtu, Some(link::Mtu { bytes: 1400, tells: true }));
    let [down, _] = links("{ mtu = \"1400B\", pmtud = \"silent\" }");
    assert_eq!(down.mtu, Some(link::Mtu { bytes: 1400, tells: false }));
    let [down, _] = links("{ outages = { every = \"9s\", for = \"1s\", random = true } }");
    assert_eq!(down.outages.map(|o| (o.first, o.random)), Some((Duration::ZERO, true)));
}

#[test]
fn a_trace_takes_the_place_of_a_rate() {
    let [down, up] = links("{ trace = { down = \"a.trace\" }, delay-trace = \"a.delays\" }");
    let trace = down.trace.expect("a trace");
    assert_eq!((trace.name(), trace.chances_ms()), ("a.trace", [1, 2, 4].as_slice()));
    assert_eq!((down.rate_bps, down.queue_bytes), (None, Some(9_000_000 / 80)));
    assert_eq!((up.rate_bps, up.trace), (Some(5_000_000), None));
    assert_eq!(up.delays.map(|delays| delays.name().to_owned()), Some("a.delays".to_owned()));
}

const EVERYTHING: &str = "{ down = \"5Mbit/s\", trace = { up = \"b.trace\" }, delay = \"0% 10ms, 100% 30ms\", \
    delay-steps = { every = \"15s\", by = \"10ms\", disturbed = \"1s\", loss = \"50%\" }, queue = \"64KiB\", \
    aqm = { down = \"fq-codel\", up = \"red min 1kB max 9kB\" }, loss = { up = \"burst 2 every 9\", down = \"every 3\" }, \
    reorder = true, late = { down = \"1% by 20ms\" }, duplicate = \"1%\", corrupt = { up = \"0.1%\" }, \
    mtu = { down = 1280 }, pmtud = { down = \"silent\" }, \
    outages = { every = \"20s\", for = \"1s\", first = \"3s\", random = true } }";

#[test]
fn expanded_reads_back_to_the_same() {
    let change = "[[at]]\ntime = \"1s\"\nlink = { node = \"r\", preset = \"leo\" }\n[[at]]\ntime = \"2s\"\n\
                  link = { node = \"r\", delay-trace = \"a.delays\", jitter = \"pareto 3ms\", delay-steps = \"none\", mtu = 1300 }\n";
    for text in [text(EVERYTHING), text(EVERYTHING) + change, text("\"g1050-h\"") + change] {
        let scenario = read(&text).unwrap_or_else(|error| panic!("{error}"));
        let expanded = scenario::expanded(&scenario);
        let mut again = read(&expanded).unwrap_or_else(|error| panic!("{expanded}\n{error}"));
        again.hash.clone_from(&scenario.hash);
        assert_eq!(again, scenario, "{expanded}");
    }
}

#[test]
fn what_changes_is_said_and_what_ends() {
    let change = "[[at]]\ntime = \"1s\"\nlink = { node = \"r\", aqm = \"codel\", loss = \"every 9\" }\n\
                  [[at]]\ntime = \"2s\"\nlink = { node = \"r\", aqm = \"drop-tail\" }\n";
    let scenario = read(&(text("\"fibre\"") + change)).unwrap_or_else(|error| panic!("{error}"));
    let words: Vec<&str> = scenario.timeline.iter().map(|timed| timed.words.as_str()).collect();
    let codel = "codel target 5ms interval 100ms ecn off";
    assert_eq!(
        words,
        [
            format!("link of r: down loss every 9 {codel}, up loss every 9 {codel}"),
            format!("link of r: down no more {codel}, up no more {codel}")
        ]
    );
}

#[test]
fn the_hash_covers_the_files_that_a_scenario_names() {
    let named = text("{ trace = \"x.trace\" }");
    let with = |trace: &'static str| {
        scenario::parse_with("t", "t.toml", &named, &|_| Ok(trace.to_owned())).expect("a scenario").hash
    };
    assert_ne!(with("1\n"), with("2\n"));
    assert_eq!(with("1\n"), with("1\n"));
    // Without such files it is that of the text, as ever.
    let plain = text("\"fibre\"");
    assert_eq!(scenario(&plain).hash, blake3::hash(plain.as_bytes()).to_hex().to_string());
}

#[test]
fn mistakes_are_refused() {
    for (link, expected) in [
        ("{ aqm = \"fq_codel\" }", "did you mean `fq-codel`?"),
        ("{ aqm = \"codel traget 5ms\" }", "did you mean `target`?"),
        ("{ aqm = \"codel target\" }", "`target` has no value"),
        ("{ aqm = \"codel target 5ms target 6ms\" }", "given twice"),
        ("{ aqm = \"codel interval 0s\" }", "an interval of nothing"),
        ("{ aqm = \"fq-codel flows 0\" }", "0 queues"),
        ("{ aqm = \"fq-codel quantum 1B\" }", "a quantum of 1B"),
        ("{ aqm = \"red\" }", "red needs min and max"),
        ("{ aqm = \"red min 9kB max 9kB\" }", "min must be below max"),
        ("{ loss = \"gilbert-elliott p 1%\" }", "needs p and r"),
        ("{ loss = \"gilbert-elliott p 0% r 0%\" }", "the state never changes"),
        ("{ loss = \"burst 5 every 5\" }", "5 of every 5 packets"),
        ("{ loss = \"sometimes\" }", "is not a loss"),
        ("{ loss = 1 }", "write a loss in quotes"),
        ("{ jitter = \"gauss 5ms\" }", "is no shape of a variation"),
        ("{ delay = \"10% 20ms\" }", "2 to 1000 points"),
        ("{ delay = \"50% 20ms, 10% 30ms\" }", "does not lie above"),
        ("{ delay = \"10% 30ms, 50% 20ms\" }", "shorter"),
        ("{ delay = \"10% 20ms, 50% 30ms\", jitter = \"5ms\" }", "the delay was measured"),
        ("{ late = \"1%\" }", "write a share and a time"),
        ("{ mtu = 60 }", "an MTU of 60 bytes"),
        ("{ mtu = 70000 }", "write 68 to 65535"),
        ("{ pmtud = \"silent\" }", "pmtud without an MTU"),
        ("{ mtu = 1400, pmtud = \"loud\" }", "known are icmp, silent"),
        ("{ outages = { every = \"1s\", for = \"1s\" } }", "or all, of the time"),
        ("{ outages = { every = \"1s\" } }", "missing key `for`"),
        ("{ outages = { every = \"1ms\", for = \"1us\" } }", "outages come too fast"),
        ("{ outages = \"never\" }", "write a table, or \"none\""),
        ("{ delay-steps = { every = \"1s\", by = \"1ms\", too = \"anywhere\" } }", "did you mean `to`?"),
        ("{ trace = \"c.trace\" }", "c.trace: no such file"),
        ("{ trace = \"bad.trace\" }", "bad.trace: line 2: not a whole number"),
        ("{ trace = { up = \"a.trace\" }, up = \"1Mbit/s\" }", "a rate and a trace"),
        ("{ delay-trace = \"a.trace\" }", "line 1: no delay"),
        ("\"5g\"", "is no link preset"),
    ] {
        let error = read(&text(link)).expect_err(link);
        assert!(error.contains(expected), "{link} gives:\n{error}");
    }
    let error = scenario::parse("t", "t.toml", &text("{ trace = \"a.trace\" }")).expect_err("no files here");
    assert!(error.to_string().contains("no files can be read here"));
}

#[test]
fn files_are_read_beside_the_scenario_and_nowhere_else() {
    let folder = Folder::new("links");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path
    };
    write("outside.trace", "1\n");
    write("in/a.trace", "1\n");
    write("in/more/a.trace", "1\n");
    let load = |name: &str| {
        let path = write("in/x.toml", &text(&format!("{{ trace = \"{name}\" }}")));
        let found = campaign::discover(&path).expect("a file").remove(0);
        campaign::load(&found).map_err(|error| error.to_string())
    };
    assert!(load("a.trace").is_ok());
    assert!(load("more/a.trace").is_ok());
    let absolute = folder.path().join("outside.trace").display().to_string();
    for escape in ["../outside.trace", "more/../../outside.trace", absolute.as_str(), ""] {
        let error = load(escape).expect_err(escape);
        assert!(error.contains("not in the folder of the scenario"), "{error}");
    }
    assert!(load("b.trace").expect_err("not there").contains("b.trace: "));
    assert!(load("more").expect_err("a folder").contains("not a file"));
    write("in/large.trace", &"1".repeat(scenario::MAX_TRACE_BYTES + 1));
    assert!(load("large.trace").expect_err("too large").contains("a trace has at most"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../outside.trace", folder.path().join("in/link.trace")).expect("a link");
        assert!(load("link.trace").expect_err("a way out").contains("not in the folder"));
    }
}

/// How often each packet arrived at a host.
fn arrivals(link: &str) -> std::collections::BTreeMap<u64, u32> {
    let text = format!(
        "title = \"t\"\nuntil = \"5s\"\n[host.a]\nregion = \"tokyo\"\n[host.b]\nregion = \"tokyo\"\nlink = {link}\n\
         [[traffic]]\nkind = \"voice\"\nfrom = \"a\"\nto = \"b\"\nat = \"1s\"\n"
    );
    let mut arrivals = std::collections::BTreeMap::new();
    for record in play(&scenario(&text), 1, Options::default()).records {
        if let Event::Delivered { node, id, .. } = record.event
            && &*node == "b"
        {
            *arrivals.entry(id).or_insert(0) += 1;
        }
    }
    arrivals
}

#[test]
fn a_duplicated_packet_arrives_twice() {
    let twice = arrivals("{ duplicate = { down = \"100%\" } }");
    assert!(twice.len() > 100 && twice.values().all(|count| *count == 2));
    let once = arrivals("\"lan\"");
    assert!(once.len() > 100 && once.values().all(|count| *count == 1));
}

#[test]
fn a_managed_queue_carries_every_packet_that_it_does_not_drop() {
    let link =
        |aqm: &str| format!("{{ down = \"1Mbit/s\", up = \"1Mbit/s\", queue = \"1MB\", aqm = \"{aqm}\" }}");
    let plain = arrivals(&link("drop-tail"));
    // Far from full: all goes through, at the same times and with the same numbers.
    assert_eq!(arrivals(&link("codel")), plain);
    // Flows that meet in the queue leave in another order, which is all that changes.
    let fair = arrivals(&link("fq-codel"));
    assert!(fair.values().all(|count| *count == 1) && fair.len().abs_diff(plain.len()) <= 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any words give a link that reads back the same, or an error.
    #[test]
    fn any_words_give_a_link_or_an_error(
        key in prop::sample::select(vec!["aqm", "loss", "delay", "jitter", "late", "mtu", "trace", "outages"]),
        words in "(codel|fq-codel|red|gilbert-elliott|burst|every|p|r|target|min|max|by|normal|[0-9]{1,3}(ms|%|kB|)|,| ){0,8}",
    ) {
        match read(&text(&format!("{{ {key} = \"{words}\" }}"))) {
            Ok(scenario) => {
                let mut again = read(&scenario::expanded(&scenario)).expect("what is expanded can be read");
                again.hash.clone_from(&scenario.hash);
                prop_assert_eq!(again, scenario);
            }
            Err(error) => prop_assert!(error.contains("test.toml")),
        }
    }
}

#[test]
fn large_packets_pass_as_fragments_where_those_pass_and_hosts_allow_them() {
    let failed = |scenario: &Scenario| {
        let run = play(scenario, 1, Options::default());
        run.verdict.expectations.iter().any(|expectation| !expectation.passed)
    };
    let mut pass = shipped("nat/fragments-pass");
    let mut dropped = shipped("nat/fragments-dropped");
    assert!(!failed(&pass) && !failed(&dropped));
    pass.hosts["takkie"].dont_fragment = true;
    assert!(failed(&pass), "DF changes nothing");
    let Some(nat::Translation::Axes(nat)) = &mut dropped.routers["home-b"].nat else { panic!("axes") };
    nat.fragments = nat::Fragments::InOrder;
    assert!(failed(&dropped), "its NAT changes nothing");
}
