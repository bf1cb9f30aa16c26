//! Scenarios in the turmoil world, held against the simulator.

use crate::common::{log_bytes, punchbag, root, scenario, shipped, stderr};
use crate::errors;
use punchbag::campaign::worlds::in_both;
use punchbag::campaign::{Which, run_in};
use punchbag::world::{Options, Seed};
use trace::Event;

/// One of each kind; the whole set is `punchbag worlds`.
#[track_caller]
fn agree(name: &str) {
    let both = in_both(&shipped(name), Seed(1)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let differences = both.differences();
    assert!(differences.is_empty(), "{name}:\n{}", differences.join("\n"));
    assert!(both.passed.turmoil, "{name}: {:?}", both.failures);
}

#[test]
fn two_homes_with_one_address_plan_go_direct_in_both_worlds() {
    agree("mission/two-homes");
}

#[test]
fn what_an_administrator_does_is_done_in_both_worlds() {
    for name in ["let-in-later", "revoked", "access-rules", "keys-ended", "keys-that-let-nobody-in"] {
        agree(&format!("mission/{name}"));
    }
}

#[test]
fn a_key_is_changed_in_both_worlds() {
    agree("mission/keys-rotated");
}

#[test]
fn a_relay_that_announces_its_end_is_left_in_both_worlds() {
    agree("relay/announced-restart");
}

#[test]
fn a_transfer_whose_rate_nobody_judges_completes_in_both_worlds() {
    agree("link/mtu-told-transfer");
    agree("firewall/web-only-both");
}

#[test]
fn rates_far_above_what_is_sent_are_played_and_noted() {
    let name = "link/phone";
    agree(name);
    let run = run_in(Which::Turmoil, &shipped(name), Seed(1), Options::default(), "a test");
    let records = run.unwrap_or_else(|error| panic!("{error}")).records;
    let noted = records.iter().any(|record| match &record.event {
        Event::Warning { what, .. } => what.contains("cables only delay packets"),
        _ => false,
    });
    assert!(noted, "{:?}", records.iter().take(5).collect::<Vec<_>>());
}

/// A relay that is slow to read, and a transfer: whoever writes waits, and nothing that was written is lost on the way to the
/// socket.
#[test]
fn a_program_that_reads_and_writes_at_once_never_exceeds_its_space() {
    let errors = errors::watch();
    let run = run_in(Which::Turmoil, &shipped("relay/overloaded"), Seed(1), Options::default(), "a test");
    let run = run.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(errors.found(), [""; 0]);
    assert!(run.verdict.passed(), "{:?}", run.summary.failures);
}

/// What is wrong with a shipped scenario in the turmoil world.
#[track_caller]
fn refused(name: &str) -> String {
    let file = root().join(format!("scenarios/{name}.toml"));
    let output = punchbag(["run", "--world", "turmoil", &file.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn what_is_refused_is_told_with_its_line_and_what_would_do() {
    for (name, line, what) in [
        ("link/lossy-from-the-start", "link = \"wifi-bad\"", "link of home-a, up: loss"),
        ("roam/wifi-to-cellular", "link = \"wifi-good\"", "link of phone, up: jitter"),
        ("link/turns-lossy", "link = { node = \"home-b\", loss = \"5%\" }", "at, link of home-b"),
        ("firewall/flows-throttled", "goodput-at-most = \"1Mbit/s\"", "goodput-at-most measures a rate"),
    ] {
        let told = refused(name);
        assert!(told.contains(line) && told.contains(what) && told.contains("--world sim"), "{name}: {told}");
        let text = std::fs::read_to_string(root().join(format!("scenarios/{name}.toml"))).expect("shipped");
        let number = 1 + text.lines().position(|found| found.contains(line)).expect("the line");
        assert!(told.contains(&format!("{name}.toml:{number}:")), "{name}, line {number}: {told}");
    }
}

#[test]
fn one_seed_gives_one_log_in_three_processes() {
    one_log_in_three_processes("mission/two-homes");
}

/// Power that goes and comes back, and everything over TCP through a relay.
#[test]
fn one_seed_gives_one_log_in_three_processes_with_crashes_and_a_relay() {
    one_log_in_three_processes("relay/loses-power");
}

#[track_caller]
fn one_log_in_three_processes(name: &str) {
    let file = root().join(format!("scenarios/{name}.toml"));
    let here = run_in(Which::Turmoil, &shipped(name), Seed(7), Options::default(), "a test");
    let here = log_bytes(&here.unwrap_or_else(|error| panic!("{error}")));
    for process in 0..2 {
        let out = std::env::temp_dir().join(format!("punchbag-turmoil-{}-{process}", std::process::id()));
        let (file, folder) = (file.to_string_lossy().into_owned(), out.to_string_lossy().into_owned());
        let output = punchbag(["run", "--world", "turmoil", "--seed", "7", &file, "--out", &folder]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let there = std::fs::read(out.join(name).join("run.jsonl")).expect("the log of the run");
        std::fs::remove_dir_all(&out).expect("our own folder");
        assert!(here == there, "process {process} wrote another log");
    }
}

#[test]
fn a_transfer_whose_rate_is_judged_or_limited_is_refused() {
    let text = "title = \"t\"\nwhy = \"w\"\n[router.home]\nregion = \"eu-west\"\nnat = \"linux\"\n[host.a]\nbehind = \"home\"\n\
                [host.b]\nregion = \"eu-west\"\n[[traffic]]\nkind = \"bulk\"\nfrom = \"a\"\nto = \"b\"\nbytes = \"1MB\"\n";
    let judged = format!("{text}[[expect]]\npair = [\"a\", \"b\"]\ngoodput-at-least = \"1Mbit/s\"\n");
    let limited = text.replace("nat = \"linux\"", "nat = \"linux\"\nfirewall = { flow-rate = \"1Mbit/s\" }");
    let slow = text.replace("nat = \"linux\"", "nat = \"linux\"\nlink = { up = \"30Mbit/s\" }");
    for (text, what) in [
        (judged, "goodput-at-least measures a rate"),
        (limited, "the firewall of home limits a transfer"),
        (slow, "link of home, up: a rate of 30000000 bit/s"),
    ] {
        let refused = run_in(Which::Turmoil, &scenario(&text), Seed(1), Options::default(), "a test");
        let error = refused.err().unwrap_or_else(|| panic!("it was played: {text}")).to_string();
        assert!(error.contains(what) && error.contains("--world sim"), "{error}");
    }
}
