use crate::testlog::{report, two_homes};
use crate::{Cell, Matrix, PathTimeline, Report, Summary};
use trace::Path;

#[test]
fn the_markdown_report() {
    insta::assert_snapshot!(report().markdown());
}

#[test]
fn the_grid_for_a_terminal() {
    let report = report();
    insta::assert_snapshot!(report.matrix.as_ref().map(Matrix::grid).unwrap_or_default());
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = report().html();
    for forbidden in ["<script", "http:", "https:", "@import", "src=", "url(\"", "<link"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn the_page_has_every_command_and_every_link_leads_somewhere() {
    let report = report();
    let page = report.html();
    for scenario in &report.summary.scenarios {
        assert!(page.contains(&scenario.command), "{}", scenario.command);
    }
    let links: Vec<&str> = page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() >= report.summary.scenarios.len());
    for link in links {
        assert!(page.contains(&format!("id=\"{link}\"")), "{link}");
    }
}

#[test]
fn relay_figures_come_from_the_second_run_of_a_pair_that_left_the_relay() {
    let report = report();
    let pair = |scenario: &str| report.summary.scenario(scenario).unwrap().pairs[0].clone();

    let (direct, relayed) = (pair("nat/double"), pair("mission/web-only"));

    // Two pings went over the relay before the pair was direct; all forty did in the second run.
    assert_eq!(direct.paths.relay.map(|path| path.echoes), Some(2));
    assert_eq!(direct.on_relay().map(|path| path.echoes), Some(40));
    assert_eq!(relayed.relayed, None);
    assert_eq!(relayed.on_relay(), relayed.paths.relay.as_ref());
}

#[test]
fn a_pair_that_the_second_run_does_not_know_is_not_compared() {
    let mut pair = report().summary.scenario("nat/double").unwrap().pairs[0].clone();

    pair.compare(&crate::Metrics::default());

    assert_eq!(pair.relayed, None);
}

#[test]
fn a_crowd_shows_pairs_of_both_kinds() {
    let markdown = report().markdown();
    let row = |n| markdown.lines().filter(|line| line.contains("#missioncrowd")).nth(n).unwrap();
    assert!(row(2).contains("| 50.0 ms, 50.0 ms † |"), "{}", row(2));
    // Losses in the run itself are those of all forty.
    assert!(row(1).contains("| 0 % of 40, 0 % of 30 † |"), "{}", row(1));
}

#[test]
fn what_a_pair_lost_on_the_relay_it_fell_back_to_is_not_hidden_by_its_second_run() {
    let mut summary = report().summary;
    let row = |summary: &Summary| {
        let markdown = Report::build(summary, []).markdown();
        markdown.lines().filter(|line| line.contains("#natdouble")).nth(1).unwrap().to_owned()
    };
    let before = row(&summary);
    let double = summary.scenarios.iter_mut().find(|scenario| scenario.name == "nat/double").unwrap();
    double.pairs[0].paths.relay.as_mut().unwrap().lost = 2;

    let after = row(&summary);

    assert!(before.contains("| 0 % of 80 † |"), "{before}");
    assert!(after.contains("| 66.67 % of 3, 0 % of 80 † |"), "{after}");
}

#[test]
fn without_a_second_run_nothing_is_said_about_one() {
    let mut summary = report().summary;
    assert!(report().html().contains("f-cut") && report().html().contains("†"));
    for pair in summary.scenarios.iter_mut().flat_map(|scenario| &mut scenario.pairs) {
        pair.relayed = None;
    }

    let report = Report::build(&summary, []);

    assert!(!report.html().contains("†") && !report.html().contains("class=\"f-cut"));
    assert!(!report.markdown().contains('†'));
}

#[test]
fn a_summary_is_read_back_and_one_without_second_runs_is_read_as_well() {
    let summary = report().summary;
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(serde_json::from_value::<Summary>(json.clone()).unwrap(), summary);

    let mut old = json;
    for scenario in old["scenarios"].as_array_mut().unwrap() {
        for pair in scenario["pairs"].as_array_mut().unwrap() {
            pair.as_object_mut().unwrap().remove("relayed");
        }
    }

    let read: Summary = serde_json::from_value(old).unwrap();
    assert!(read.scenarios.iter().flat_map(|scenario| &scenario.pairs).all(|pair| pair.relayed.is_none()));
}

#[test]
fn tags_close_in_order() {
    let page = report().html();
    let mut open = Vec::new();
    for tag in page.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        let name: String =
            tag.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if tag.starts_with('!') || ["meta", "br"].contains(&name.as_str()) {
            continue;
        }
        match tag.starts_with('/') {
            true => assert_eq!(open.pop(), Some(name)),
            false => open.push(name),
        }
    }
    assert!(open.is_empty());
}

#[test]
fn text_from_outside_is_escaped() {
    let mut summary = report().summary;
    for scenario in &mut summary.scenarios {
        scenario.title = "<b>|&\"".into();
        scenario.name = "a|b\n<i>".into();
    }
    let report = Report::build(&summary, []);
    assert!(!report.html().contains("<b>|") && !report.html().contains("<i>"));
    assert!(report.markdown().contains("a\\|b \\<i\\>") && !report.markdown().contains("<b>"));
}

#[test]
fn the_same_report_twice_has_the_same_bytes() {
    assert_eq!(report().html(), report().html());
    assert_eq!(report().markdown(), report().markdown());
}

#[test]
fn an_empty_report_is_still_a_page() {
    let report = Report::build(&Summary::new("0.1.0", 1), []);
    assert!(report.html().contains("0 of 0"));
    assert!(report.markdown().contains("0 of 0 scenarios passed"));
}

#[test]
fn a_pair_is_direct_only_while_both_sides_are() {
    let timeline = PathTimeline::fold(&two_homes());
    let spans: Vec<_> = timeline
        .spans("takkie", "flappie")
        .iter()
        .map(|span| (span.from_ns / 1_000_000, span.to_ns / 1_000_000, span.path))
        .collect();
    let (relay, direct) = (Some(Path::Relay), Some(Path::Direct));
    assert_eq!(spans, [(0, 500, None), (500, 640, relay), (640, 6_600, direct), (6_600, 12_000, relay)]);
    assert_eq!(timeline.actions[0].what, "router home-b: reboot, off for 1s");
}

#[test]
fn a_cell_is_found_in_either_order_and_says_when_it_surprises() {
    let (a, b) = ("cone".to_owned(), "symmetric".to_owned());
    let cell = Cell { a, b, path: None, direct_ns: None, first_data_ns: None, expected: Some(Path::Relay) };
    let matrix =
        Matrix { rows: vec!["cone".into(), "symmetric".into()], cells: vec![cell], command: "run".into() };
    assert_eq!(matrix.cell("symmetric", "cone").map(Cell::words).as_deref(), Some("failed !"));
    assert_eq!(matrix.cell("cone", "cone"), None);
}

proptest::proptest! {
    /// Whatever order and times a log has, reading it ends and gives the same pages twice.
    #[test]
    fn a_scrambled_log_has_a_report(
        picks in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u64>()), 0..60),
    ) {
        let records = [two_homes(), crate::testlog::web_only()].concat();
        let scrambled: Vec<_> = picks
            .iter()
            .map(|(index, t)| trace::Record { t: *t, event: records[index.index(records.len())].event.clone() })
            .collect();
        let page = || {
            let metrics = crate::Metrics::fold(&scrambled);
            let row = crate::ScenarioSummary::new(&crate::testlog::header("a", "b"), &metrics, "punchbag run a");
            let mut summary = Summary::new("0.1.0", 1);
            summary.scenarios.push(row);
            let logs = [("a".to_owned(), metrics, PathTimeline::fold(&scrambled))];
            let report = Report::build(&summary, logs);
            let story = crate::explain(&crate::testlog::header("a", "b"), &scrambled);
            (report.html(), report.markdown(), story)
        };
        proptest::prop_assert_eq!(page(), page());
    }
}
