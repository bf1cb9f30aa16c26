//! Who may depend on whom among our crates, and other things that keep the house tidy, each with its reason.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a crate may depend on, and why on nothing else.
const LAYERS: &[(&str, &[&str], &str)] = &[
    ("stun", &[], "the STUN codec and cores stand alone, so that others can use them"),
    ("disco", &[], "a wire format stands alone; who speaks to whom is the peer's business"),
    ("derp", &[], "the relay protocol carries opaque packets and must not know what is in them"),
    ("coord", &[], "coordination spreads keys and addresses and must not know what they are used for"),
    ("tls", &[], "a filter of bytes stands alone, and does not know who speaks through it"),
    ("coord-store", &["coord"], "a file of records must not know who runs the server"),
    ("portmap", &[], "a gateway asks its owner for the NAT, and a client does not know what its port is for"),
    ("wireguard", &[], "the tunnel must not know which path its packets take"),
    ("pref64", &[], "arithmetic on addresses stands alone, for hosts and for translators"),
    ("nat", &["pref64"], "a middlebox treats the code under test as a real one does: as opaque packets"),
    (
        "kernel-nat",
        &["nat"],
        "the kernel's NAT is a middlebox like the models, and knows no more of who uses it",
    ),
    ("proxy", &[], "a tunnel through a proxy must not know what goes through it"),
    ("link", &[], "a cable knows bytes and time only"),
    ("tcp", &[], "a host's TCP knows segments only"),
    ("trace", &[], "the log is read by programs that have nothing to do with the simulator"),
    (
        "report",
        &["trace"],
        "a report is made from the log alone, so that every number in it can be recomputed",
    ),
    (
        "peer",
        &["stun", "disco", "derp", "tls", "coord", "portmap", "wireguard", "pref64", "proxy"],
        "the peer is the real thing: it must not know that its network is simulated, nor write the simulator's log",
    ),
    (
        "program",
        &["tcp", "stun", "derp", "tls", "coord", "portmap", "pref64", "proxy", "trace", "peer"],
        "a program does not know whether a simulator or a machine carries what it sends",
    ),
    (
        "daemon",
        &["coord", "coord-store", "derp", "peer", "program", "tls", "trace", "wireguard"],
        "the shell carries programs on real sockets; what they run in otherwise is none of its business (the tunnel is for \
         its benchmark)",
    ),
    (
        "punchbag",
        &[
            "stun",
            "disco",
            "derp",
            "coord",
            "portmap",
            "wireguard",
            "pref64",
            "proxy",
            "nat",
            "kernel-nat",
            "link",
            "tcp",
            "trace",
            "report",
            "peer",
            "program",
            "tls",
            "daemon",
        ],
        "the simulator puts the parts together; other people's stacks stay in `interop`, out of every build",
    ),
    (
        "interop",
        &[
            "stun",
            "disco",
            "derp",
            "tls",
            "coord",
            "portmap",
            "wireguard",
            "nat",
            "link",
            "tcp",
            "trace",
            "peer",
            "program",
            "daemon",
        ],
        "interop tests hold the parts against other people's, alone and as people run them, without the simulator in between",
    ),
    (
        "fuzz",
        &[
            "stun",
            "disco",
            "derp",
            "coord",
            "portmap",
            "wireguard",
            "pref64",
            "proxy",
            "tls",
            "link",
            "trace",
            "punchbag",
        ],
        "every parser is tried there, so it knows every crate that has one, and no crate knows it",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Our crates, and which of ours each depends on; tests of a crate count as the crate.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        dependencies.iter().map(name).filter(|dependency| ours.contains(dependency)).collect()
    };
    packages.iter().map(|package| (name(package), uses(package))).collect()
}

/// Every edge that is not allowed, with its reason.
fn forbidden(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, uses) in edges {
        let Some((_, allowed, why)) = LAYERS.iter().find(|(layer, ..)| layer == name) else {
            wrong.push(format!(
                "{name} has no layer: say here what it may depend on, and why on nothing else"
            ));
            continue;
        };
        for used in uses.iter().filter(|used| !allowed.contains(&used.as_str())) {
            wrong.push(format!("{name} depends on {used}, but {why}"));
        }
    }
    wrong
}

#[test]
fn nobody_depends_on_whom_they_should_not() {
    let edges = edges();
    assert!(
        LAYERS.iter().all(|(layer, ..)| edges.contains_key(*layer)),
        "a layer without a crate: {:?}",
        edges.keys()
    );
    let wrong = forbidden(&edges);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_forbidden_edge_is_told_with_its_reason() {
    let uses = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let edges = BTreeMap::from([
        ("report".to_owned(), uses(&["trace", "peer"])),
        ("nat".to_owned(), uses(&[])),
        ("gadget".to_owned(), uses(&[])),
    ]);
    let wrong = forbidden(&edges);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].starts_with("gadget has no layer"), "{wrong:?}");
    assert!(
        wrong[1].starts_with("report depends on peer, but a report is made from the log alone"),
        "{wrong:?}"
    );
}

/// Rust files below a folder of the repository.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let (mut folders, mut files) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                files.push((path, text));
            }
        }
    }
    assert!(!files.is_empty(), "no sources in {folder}");
    files
}

#[test]
fn no_file_is_longer_than_a_thousand_lines() {
    let files = ["crates", "sim"].into_iter().flat_map(sources);
    let long: Vec<_> = files
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 1000)
        .map(|(path, lines)| format!("{}: {lines} lines; split it by what its parts know", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The library part of a source: comments, doctests and the tests at its end left out.
fn library(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    (1..).zip(code.map(|line| line.split("//").next().unwrap_or_default()))
}

#[test]
fn the_crates_read_no_clock_and_draw_no_randomness_of_their_own() {
    let is_test = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        matches!(&*name, "test.rs" | "tests.rs")
            || name.ends_with("_tests.rs")
            || !path.iter().any(|part| part == "src")
    };
    // The shell is where both come from.
    let is_shell = |path: &Path| {
        ["crates/daemon", "crates/fuzz"].iter().any(|shell| path.starts_with(root().join(shell)))
    };
    let hidden =
        ["Instant::now", "SystemTime", "thread_rng", "rand::rng()", "OsRng", "from_os_rng", "getrandom"];
    let mut wrong = Vec::new();
    for (path, text) in sources("crates").into_iter().filter(|(path, _)| !is_test(path) && !is_shell(path)) {
        for (number, line) in library(&text) {
            for word in hidden.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!(
                    "{}:{number}: {word}: time and randomness are arguments, or no run can be played again",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_search_for_clocks_sees_code_and_not_comments_or_tests() {
    let text = "let a = 1; // Instant::now\nlet b = Instant::now();\n#[cfg(test)]\nlet c = Instant::now();\n";
    let found: Vec<_> =
        library(text).filter(|(_, line)| line.contains("Instant::now")).map(|(n, _)| n).collect();
    assert_eq!(found, [2]);
}

/// Where a source chooses among futures at random: tokio's `select!` begins anywhere unless it is told to go from top to
/// bottom, and futures-util's draws from a generator of its own.
fn random_choices(text: &str) -> Vec<usize> {
    let lines: Vec<_> = text.lines().collect();
    let fixed = |number: usize| {
        let inside = lines[number..].iter().map(|line| line.trim()).filter(|line| !line.is_empty());
        inside.take(1).all(|line| line.starts_with("biased;"))
    };
    let mut found: Vec<_> = library(text)
        .filter(|(number, line)| {
            let tokio = line.contains("select! {") || line.contains("select!(");
            (tokio && (line.contains("futures_util::") || !fixed(*number)))
                || ["select_all(", "future::select(", "StreamExt::select"]
                    .iter()
                    .any(|word| line.contains(word))
        })
        .map(|(number, _)| number)
        .collect();
    // A macro that was imported under its bare name could be either.
    found.extend(
        library(text)
            .filter(|(_, line)| line.contains("use ") && line.contains("select"))
            .map(|(number, _)| number),
    );
    found
}

#[test]
fn the_shells_choose_among_futures_in_a_fixed_order() {
    let mut wrong = Vec::new();
    for folder in ["crates/daemon/src", "sim/src", "sim/examples"] {
        for (path, text) in sources(folder) {
            for number in random_choices(&text) {
                wrong.push(format!(
                    "{}:{number}: `select!` without `biased;`: one seed would give many runs",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_search_for_random_choices_sees_those_that_are_not_biased() {
    let text = "tokio::select! {\n    biased;\n}\ntokio::select! {\n    () = a => {}\n}\nuse tokio::select;\n\
                let x = future::select(a, b);\n";
    assert_eq!(random_choices(text), [4, 8, 7]);
}
