//! Every pair of NAT classes, played by the real peers, ends where the definitions of RFC 4787 let it.

mod common;

use common::jobs;
use punchbag::campaign::matrix::{Row, matrix};
use punchbag::world::Seed;
use std::collections::BTreeSet;
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

#[test]
fn every_classic_pair_ends_where_the_table_says() {
    let table: Vec<(&str, &str, bool)> = include_str!("data/pair_matrix.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let mut fields = line.split(',');
            let mut next = || fields.next().unwrap_or_else(|| panic!("a short line: {line}"));
            (next(), next(), next() == "1")
        })
        .collect();
    assert_eq!(table.len(), 144);
    let classes: BTreeSet<&str> = table.iter().map(|(a, ..)| *a).collect();
    let rows: Vec<Row> = classes.iter().map(|c| Row { name: (*c).to_owned(), toml: router(c) }).collect();

    let played = matrix(&rows, Seed(1), jobs(), || ()).expect("every pair can be played");

    assert_eq!(played.cells.len(), 78);
    let wrong: Vec<String> = table
        .into_iter()
        .filter_map(|(a, b, direct)| {
            let cell = played.cell(a, b).unwrap_or_else(|| panic!("{a} with {b} was not played"));
            let expected = Some(if direct { Path::Direct } else { Path::Relay });
            (cell.path != expected).then(|| format!("{a} with {b}: {:?} instead of {expected:?}", cell.path))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of 144 end elsewhere:\n{}", wrong.len(), wrong.join("\n"));
}
