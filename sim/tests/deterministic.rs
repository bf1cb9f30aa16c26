//! A run is its scenario and its seed, to the last byte of log and captures.

mod common;

use common::{
    Folder, captures, log_bytes, play, punchbag, read_capture, root, scenario, shipped, stderr, with_captures,
};
use std::collections::BTreeMap;
use std::path::Path;
use trace::{Event, Proto, Record};

/// One with a direct path, one full of chance, one whose transfer fills queues, one that restarts programs.
const SCENARIOS: [&str; 4] = [
    "mission/two-homes",
    "link/lossy-from-the-start",
    "nat/symmetric-symmetric",
    "relay/coordinator-restart",
];

/// Log and captures by the name of their file.
type Files = BTreeMap<String, Vec<u8>>;

fn in_this_process(name: &str, seed: u64) -> Files {
    let run = play(&shipped(name), seed, with_captures());
    let log = ("run.jsonl".to_owned(), log_bytes(&run));
    captures(run).into_iter().map(|(name, bytes)| (format!("{name}.pcapng"), bytes)).chain([log]).collect()
}

fn in_a_fresh_process(name: &str, seed: u64, out: &Path) -> Files {
    let file = root().join(format!("scenarios/{name}.toml"));
    let args = [
        "run",
        &file.to_string_lossy(),
        "--pcap",
        "--seed",
        &seed.to_string(),
        "--out",
        &out.to_string_lossy(),
    ];
    let output = punchbag(args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let files = std::fs::read_dir(out.join(name)).expect("the folder of the run");
    files
        .map(|file| {
            let file = file.expect("a file of the run");
            (
                file.file_name().to_string_lossy().into_owned(),
                std::fs::read(file.path()).expect("a file of the run"),
            )
        })
        .collect()
}

/// Names the files that differ instead of printing megabytes.
#[track_caller]
fn assert_same(one: &Files, other: &Files, what: &str) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "{what}: other files");
    let differing: Vec<_> =
        one.iter().filter(|(name, bytes)| other[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differing.is_empty(), "{what}: {differing:?} differ");
}

#[test]
fn the_same_seed_gives_the_same_bytes_twice_and_in_fresh_processes() {
    let folder = Folder::new("deterministic");
    for name in SCENARIOS {
        let first = in_this_process(name, 7);
        assert!(first.len() >= 6, "{name}: log and a capture for each host, server and side of a router");
        assert_same(&first, &in_this_process(name, 7), name);
        for attempt in ["one", "two"] {
            let fresh = in_a_fresh_process(name, 7, &folder.path().join(attempt));
            assert_same(&first, &fresh, &format!("{name} in process {attempt}"));
        }
    }
}

#[test]
fn another_seed_gives_another_log_and_other_packets() {
    for name in SCENARIOS {
        let (one, other) = (in_this_process(name, 7), in_this_process(name, 8));
        // The header of a log names the seed: compare what follows.
        let events = |files: &Files| {
            let log = &files["run.jsonl"];
            let end = log.iter().position(|byte| *byte == b'\n').expect("a first line");
            log[end..].to_vec()
        };
        assert!(events(&one) != events(&other), "{name}: two seeds, one log");
        let same: Vec<_> = one
            .iter()
            .filter(|(file, bytes)| other.get(*file) == Some(bytes))
            .map(|(file, _)| file)
            .collect();
        assert!(same.is_empty(), "{name}: two seeds gave the same {same:?}");
    }
}

const PAIR: &str = r#"title = "A pair"
until = "6s"

[router.home-a]
region = "eu-west"
nat = "symmetric"

[router.home-b]
region = "eu-central"
nat = "symmetric"

[host.takkie]
behind = "home-a"

[host.flappie]
behind = "home-b"

[[traffic]]
kind = "ping"
from = "takkie"
to = "flappie"
at = "2s"
interval = "200ms"
"#;

const THIRD: &str = r#"
[router.far-away]
region = "us-east"
nat = "symmetric"

[host.muis]
behind = "far-away"
"#;

/// What the pair drew at random.
#[derive(Debug, PartialEq, Eq)]
struct Drawn {
    /// External ports that a NAT chose, in order.
    home_a: Vec<u16>,
    home_b: Vec<u16>,
    /// Local ports of the TCP connections of takkie, in order.
    tcp: Vec<u16>,
    /// Public keys by which takkie's discovery messages name it: 32 bytes behind the magic of 6.
    keys: Vec<Vec<u8>>,
}

fn drawn(text: &str, seed: u64) -> Drawn {
    let run = play(&scenario(text), seed, with_captures());
    let ports = |router: &str| {
        let port = |record: &Record| match &record.event {
            Event::Binding { node, external, .. } if &**node == router => Some(external.port()),
            _ => None,
        };
        run.records.iter().filter_map(port).collect::<Vec<_>>()
    };
    let mut tcp = Vec::new();
    for record in &run.records {
        if let Event::Sent { node, proto: Proto::Tcp, src, .. } = &record.event
            && &**node == "takkie"
            && !tcp.contains(&src.port())
        {
            tcp.push(src.port());
        }
    }
    let (home_a, home_b) = (ports("home-a"), ports("home-b"));
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for packet in read_capture(&captures(run)["takkie"]) {
        // Behind the headers of Ethernet, IPv4 and UDP.
        let payload = packet.frame.get(14 + 20 + 8..).unwrap_or_default();
        let sent = packet.frame[26..30] == [192, 168, 1, 2];
        if sent && disco::looks_like_disco(payload) && !keys.iter().any(|key| key == &payload[6..38]) {
            keys.push(payload[6..38].to_vec());
        }
    }
    Drawn { home_a, home_b, tcp, keys }
}

#[test]
fn a_host_more_changes_no_random_number_of_its_neighbours() {
    let alone = drawn(PAIR, 3);
    let beside = drawn(&format!("{PAIR}{THIRD}"), 3);

    assert!(
        alone.home_a.len() >= 5 && alone.home_b.len() >= 5 && alone.tcp.len() >= 2 && alone.keys.len() == 1,
        "{alone:?}"
    );
    assert_eq!(alone, beside);
    let other = drawn(PAIR, 4);
    assert!(
        other.home_a != alone.home_a && other.tcp != alone.tcp && other.keys != alone.keys,
        "another seed drew the same"
    );
}
