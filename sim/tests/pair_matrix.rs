//! Every pair of NAT classes, played by the real peers, ends where the definitions of RFC 4787 let it.

mod common;

use common::{jobs, play, scenario};
use punchbag::campaign::in_parallel;
use punchbag::campaign::matrix::pair_scenario;
use punchbag::world::Options;
use trace::Path;

/// The router that stands for a class of the table. Ports are random: a symmetric NAT that keeps or counts its ports can
/// be guessed, which the table leaves out.
fn router(class: &str) -> String {
    match class {
        "PUBLIC" => "nat = \"none\"".to_owned(),
        "FW-APDF" => "nat = \"none\"\nfirewall = \"stateful\"".to_owned(),
        "UDP-BLOCKED" => "nat = \"none\"\nfirewall = \"udp-blocked\"".to_owned(),
        axes => {
            let (mapping, filtering) = axes.split_once('+').expect("MAPPING+FILTERING");
            let (mapping, filtering) = (mapping.to_lowercase(), filtering.to_lowercase());
            format!(
                "nat = {{ mapping = \"{mapping}\", filtering = \"{filtering}\", ports = \"random\", hairpin = \"none\" }}"
            )
        }
    }
}

/// A cell of the table: two classes, and whether they reach each other directly with and without peer-reflexive addresses.
type Cell = (&'static str, &'static str, [bool; 2]);

fn table() -> Vec<Cell> {
    let lines = include_str!("data/pair_matrix.csv").lines().skip(1);
    let cells: Vec<Cell> = lines
        .map(|line| {
            let mut fields = line.split(',');
            let mut next = || fields.next().unwrap_or_else(|| panic!("a short line: {line}"));
            (next(), next(), [next() == "1", next() == "1"])
        })
        .collect();
    assert_eq!(cells.len(), 144);
    cells
}

/// Plays every cell with its hosts in that order, and names those that end elsewhere.
fn wrong(peer_reflexive: bool) -> Vec<String> {
    let play = |(a, b, direct): &Cell| {
        let expected = Some(if direct[usize::from(!peer_reflexive)] { Path::Direct } else { Path::Relay });
        let scenario = scenario(&pair_scenario(&router(a), &router(b)));
        let run = play(&scenario, 1, Options { timers: false, peer_reflexive, ..Options::default() });
        let path =
            run.metrics.pair("one", "two").filter(|pair| pair.first_data_ns.is_some()).and_then(|p| p.path());
        (path != expected).then(|| format!("{a} with {b}: {path:?} instead of {expected:?}"))
    };
    in_parallel(&table(), jobs(), play, |_, _| ()).into_iter().flatten().collect()
}

#[test]
fn every_classic_pair_ends_where_the_table_says() {
    let wrong = wrong(true);
    assert!(wrong.is_empty(), "{} of 144 end elsewhere:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_classic_pair_of_peers_that_learn_no_peer_reflexive_address_ends_where_the_table_says() {
    let wrong = wrong(false);
    assert!(wrong.is_empty(), "{} of 144 end elsewhere:\n{}", wrong.len(), wrong.join("\n"));
}
