//! Scenarios in the turmoil world, held against the simulator.

use crate::common::{log_bytes, punchbag, root, scenario, shipped, stderr};
use punchbag::campaign::worlds::in_both;
use punchbag::campaign::{Which, run_in};
use punchbag::world::{Options, Seed};

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
fn what_is_refused_is_told_with_its_key() {
    let file = root().join("scenarios/link/lossy-from-the-start.toml");
    let output = punchbag(["run", "--world", "turmoil", &file.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("loss"), "{}", stderr(&output));
}

#[test]
fn one_seed_gives_one_log_in_three_processes() {
    let name = "mission/two-homes";
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
fn bulk_transfers_are_refused() {
    let text = "title = \"t\"\nwhy = \"w\"\n[router.home]\nregion = \"eu-west\"\nnat = \"linux\"\n[host.a]\nbehind = \"home\"\n\
                [host.b]\nregion = \"eu-west\"\n[[traffic]]\nkind = \"bulk\"\nfrom = \"a\"\nto = \"b\"\nbytes = \"1MB\"\n";
    let refused = run_in(Which::Turmoil, &scenario(text), Seed(1), Options::default(), "a test");
    let error = refused.err().expect("it measures rates").to_string();
    assert!(error.contains("traffic from a to b") && error.contains("--world sim"), "{error}");
}
