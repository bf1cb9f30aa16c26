//! The command: exit codes, formats, messages.

mod common;

use common::{Folder, command, punchbag, stderr, stdout};
use report::{Matrix, Summary};
use std::path::Path;
use std::process::Stdio;

/// Two homes that reach each other within a second of virtual time.
const GOOD: &str = r#"title = "Two homes"
why = "a test"
until = "5s"

[router.home-a]
region = "eu-west"
nat = "port-restricted-cone"

[router.home-b]
region = "eu-central"
nat = "port-restricted-cone"

[host.takkie]
behind = "home-a"

[host.flappie]
behind = "home-b"

[[traffic]]
kind = "ping"
from = "takkie"
to = "flappie"
at = "2s"
interval = "100ms"
"#;

const EXPECTS_DIRECT: &str =
    "\n[[expect]]\npair = [\"takkie\", \"flappie\"]\npath = \"direct\"\nfirst-data-within = \"1s\"\n";
const EXPECTS_RELAY: &str = "\n[[expect]]\npair = [\"takkie\", \"flappie\"]\npath = \"relay\"\n";

/// There is a path, but nobody who works in seconds can use it: the pair stays unconnected, which must never happen where
/// a path exists.
const MARS: &str = r#"title = "Too far"
until = "60s"

[internet.latency]
eu-west.mars = "180s"

[host.takkie]
region = "eu-west"

[host.rover]
region = "mars"

[[traffic]]
kind = "ping"
from = "takkie"
to = "rover"
"#;

fn run(folder: &Folder, files: &[&Path], more: &[&str]) -> std::process::Output {
    let out = folder.path().join("out");
    let mut args: Vec<_> =
        ["run".into()].into_iter().chain(files.iter().map(|f| f.as_os_str().to_owned())).collect();
    args.extend(["--out".into(), out.into_os_string()]);
    args.extend(more.iter().map(Into::into));
    punchbag(args)
}

#[test]
fn exit_code_0_when_all_expectations_hold() {
    let folder = Folder::new("cli-0");
    let file = folder.file("good.toml", &format!("{GOOD}{EXPECTS_DIRECT}"));

    let output = run(&folder, &[&file], &[]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("1 passed, 0 failed") && text.contains("direct") && text.contains("2 of 2"),
        "{text}"
    );
    for file in ["summary.json", "report.md", "report.html"] {
        assert!(folder.path().join("out").join(file).exists(), "no {file}");
    }
}

#[test]
fn exit_code_1_when_an_expectation_fails_and_the_table_says_which() {
    let folder = Folder::new("cli-1");
    let file = folder.file("wrong.toml", &format!("{GOOD}{EXPECTS_RELAY}"));

    let output = run(&folder, &[&file], &[]);

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("takkie and flappie: relay: direct") && text.contains("0 passed, 1 failed"),
        "{text}"
    );
}

#[test]
fn exit_code_2_for_a_bad_scenario_and_for_bad_usage() {
    let folder = Folder::new("cli-2");
    let bad = folder.file("bad.toml", "title = 7\n");
    let empty = folder.path().join("nothing-in-here");
    std::fs::create_dir_all(&empty).expect("a folder");

    for (output, expected) in [
        (run(&folder, &[&bad], &[]), "bad.toml:1:9"),
        (run(&folder, &[&folder.path().join("missing.toml")], &[]), "missing.toml: No such file"),
        (run(&folder, &[&empty], &[]), "no scenario (*.toml) in this folder"),
        (run(&folder, &[&bad], &["--frobnicate"]), "--frobnicate"),
        (punchbag(["explain", "no/such/run"]), "no/such/run: No such file"),
        (punchbag(["report", "no/such/folder"]), "summary.json: No such file"),
        (punchbag(["matrix", "--nats", "full-cone,marble"]), "marble"),
        (punchbag(["presets", "marble"]), "no such preset"),
        (punchbag::<&str>([]), "Usage"),
    ] {
        assert_eq!(output.status.code(), Some(2), "{expected}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{expected}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{expected}");
    }
}

#[test]
fn exit_code_3_when_an_invariant_is_violated() {
    let folder = Folder::new("cli-3");
    let mars = folder.file("mars.toml", MARS);
    let wrong = folder.file("wrong.toml", &format!("{GOOD}{EXPECTS_RELAY}"));

    // Also when an expectation fails beside it.
    let output = run(&folder, &[&mars, &wrong], &["--format", "json"]);

    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let summary: Summary = serde_json::from_str(&stdout(&output)).expect("a summary");
    let violations = &summary.scenarios[0].violations;
    assert!(
        matches!(&violations[..], [one] if one.starts_with("unconnected: rover and takkie")),
        "{violations:?}"
    );
}

#[test]
fn json_is_the_summary_of_the_folder_and_names_what_makes_it_again() {
    let folder = Folder::new("cli-json");
    let good = folder.file("good.toml", &format!("{GOOD}{EXPECTS_DIRECT}"));
    let wrong = folder.file("wrong.toml", &format!("{GOOD}{EXPECTS_RELAY}"));

    let output = run(&folder, &[&good, &wrong], &["--format", "json", "--seed", "9"]);

    let text = stdout(&output);
    let file = std::fs::read_to_string(folder.path().join("out/summary.json")).expect("summary.json");
    assert_eq!(text, file);
    let summary: Summary = serde_json::from_str(&text).expect("a summary");
    assert_eq!((summary.seed, summary.scenarios.len(), summary.passed()), (9, 2, 1));
    let [good_row, wrong_row] = &summary.scenarios[..] else { panic!("two rows") };
    assert!(
        good_row.passed && good_row.pairs[0].direct_ns.is_some() && good_row.registered == 2,
        "{good_row:?}"
    );
    assert_eq!(wrong_row.failures, ["takkie and flappie: relay: direct"]);
    assert_eq!(good_row.command, format!("punchbag run {} --seed 9", good.display()));
}

#[test]
fn junit_counts_expectations_failures_and_violations() {
    let folder = Folder::new("cli-junit");
    let good = folder.file("good.toml", &format!("{GOOD}{EXPECTS_DIRECT}"));
    let wrong = folder.file("wrong.toml", &format!("{GOOD}{EXPECTS_RELAY}"));
    let mars = folder.file("mars.toml", MARS);

    let output = run(&folder, &[&good, &wrong, &mars], &["--format", "junit"]);

    let text = stdout(&output);
    let header = text.lines().nth(1).unwrap_or_default();
    assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"), "{text}");
    // Two expectations and the invariants; one and the invariants; the invariants.
    assert_eq!(
        header, r#"<testsuites name="punchbag" tests="6" skipped="0" failures="1" errors="1">"#,
        "{text}"
    );
    assert_eq!(text.matches("<testsuite ").count(), 3, "{text}");
    assert_eq!(text.matches("<testcase ").count(), 6, "{text}");
    // Every element is closed, and nothing follows the last.
    for element in ["testsuites", "testsuite"] {
        assert_eq!(
            text.matches(&format!("<{element} ")).count(),
            text.matches(&format!("</{element}>")).count(),
            "{text}"
        );
    }
    assert!(text.trim_end().ends_with("</testsuites>"), "{text}");
}

#[test]
fn check_shows_each_mistake_with_its_place_and_a_fix() {
    let folder = Folder::new("cli-check");
    let file = folder.file(
        "bad.toml",
        "title = \"x\"\n\n[router.a]\nregion = \"eu-west\"\nnat = \"symetric\"\nfirewal = \"stateful\"\n",
    );

    let output = punchbag(["check".as_ref(), file.as_os_str()]);

    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for part in ["bad.toml:5:7", "did you mean `symmetric`?", "bad.toml:6:1", "did you mean `firewall`?"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

#[test]
fn check_prints_the_topology_and_the_expanded_scenario_parses_again() {
    let folder = Folder::new("cli-expanded");
    let file = folder.file("good.toml", GOOD);

    let tree = stdout(&punchbag(["check".as_ref(), file.as_os_str()]));
    let expanded = stdout(&punchbag(["check".as_ref(), "--expanded".as_ref(), file.as_os_str()]));
    let again = folder.file("again.toml", &expanded);
    let same = stdout(&punchbag(["check".as_ref(), "--expanded".as_ref(), again.as_os_str()]));

    assert!(tree.contains("home-a  router") && tree.contains("takkie  host  192.168.1.2"), "{tree}");
    assert!(expanded.contains("mapping = \"endpoint-independent\""), "{expanded}");
    assert_eq!(expanded, same);
}

#[test]
fn the_help_of_every_command_shows_an_example() {
    let help = stdout(&punchbag(["--help"]));
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "));
    // A command's line begins two spaces in; what wraps stands further right.
    let commands: Vec<_> = commands
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 7, "{help}");
    for name in commands.into_iter().filter(|name| *name != "help") {
        let output = punchbag([name, "--help"]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert!(text.contains("Example") && text.contains(&format!("punchbag {name}")), "{name}:\n{text}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = Folder::new("cli-pipe");
    let file = folder.file("good.toml", GOOD);
    let output = run(&folder, &[&file], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let out = folder.path().join("out");
    let played =
        std::fs::read_dir(&out).expect("results").filter_map(Result::ok).find(|entry| entry.path().is_dir());
    let played = played.expect("the folder of the run").path().join("good");

    let (played, file, out) = (played.to_string_lossy(), file.to_string_lossy(), out.to_string_lossy());
    for args in [
        vec!["explain", &*played],
        vec!["check", &*file],
        vec!["presets"],
        vec!["schema"],
        vec!["run", &*file, "--out", &*out, "--format", "json"],
        vec!["matrix", "--nats", "full-cone"],
    ] {
        let mut child =
            command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the command ends");
        assert_eq!(stderr(&output), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn explain_tells_nat_path_and_drops() {
    let folder = Folder::new("cli-explain");
    let output = run(&folder, &[Path::new("scenarios/nat/symmetric-symmetric.toml")], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let output =
        punchbag(["explain".as_ref(), folder.path().join("out/nat/symmetric-symmetric").as_os_str()]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "takkie is 192.168.1.2, behind home-a (symmetric)",
        "NAT takes another external port for each destination",
        "home-b dropped",
        "flappie and takkie ended relayed",
        "the mappings of both vary by destination",
    ] {
        assert!(text.contains(part), "no \"{part}\" in\n{text}");
    }
}

#[test]
fn the_matrix_as_json_has_a_cell_for_every_pair() {
    let output = punchbag(["matrix", "--nats", "full-cone,symmetric", "--format", "json"]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let matrix: Matrix = serde_json::from_str(&stdout(&output)).expect("a matrix");
    assert_eq!(matrix.rows, ["full-cone", "symmetric"]);
    let paths: Vec<_> =
        matrix.cells.iter().map(|c| (c.a.as_str(), c.b.as_str(), c.path.map(trace::Path::as_str))).collect();
    let expected = [
        ("full-cone", "full-cone", Some("direct")),
        ("full-cone", "symmetric", Some("direct")),
        ("symmetric", "symmetric", Some("relay")),
    ];
    assert_eq!(paths, expected);
}
