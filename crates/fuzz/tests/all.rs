//! Every target with its examples, with examples cut, altered, doubled and spliced, and with noise.

use fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::sample::Index;

/// One change to a message.
#[derive(Debug, Clone)]
enum Change {
    Cut(Index),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    /// A length or count in front of what it counts.
    Number(Index, u32),
    /// The end of another example.
    Splice(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        at().prop_map(Change::Cut),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), prop::collection::vec(any::<u8>(), 1..60)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1..40_u8).prop_map(|(at, bytes)| Change::Remove(at, bytes)),
        (at(), prop_oneof![Just(0), Just(1), Just(0xffff), Just(0x7fff_ffff), Just(u32::MAX), any::<u32>()])
            .prop_map(|(at, number)| Change::Number(at, number)),
        (at(), at()).prop_map(|(at, other)| Change::Splice(at, other)),
    ]
}

fn changed(mut data: Vec<u8>, examples: &[Vec<u8>], changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let end = data.len();
        match change {
            Change::Cut(at) => data.truncate(at.index(end + 1)),
            Change::Insert(at, bytes) => {
                drop(data.splice(at.index(end + 1)..at.index(end + 1), bytes.iter().copied()));
            }
            Change::Splice(at, other) => {
                data.truncate(at.index(end + 1));
                let other = other.get(examples);
                data.extend(&other[at.index(other.len() + 1)..]);
            }
            _ if end == 0 => {}
            Change::Set(at, byte) => data[at.index(end)] = *byte,
            Change::Remove(at, bytes) => {
                drop(data.drain(at.index(end)..(at.index(end) + usize::from(*bytes)).min(end)));
            }
            Change::Number(at, number) => {
                let at = at.index(end);
                data.iter_mut().skip(at).zip(number.to_be_bytes()).for_each(|(byte, new)| *byte = new);
            }
        }
    }
    data
}

#[test]
fn every_target_reads_its_examples() {
    for Target { name, run, examples } in TARGETS {
        let examples = examples();
        assert!(!examples.is_empty(), "{name} has none");
        examples.iter().for_each(|example| run(example));
    }
}

#[test]
fn every_target_is_one_of_libfuzzers() {
    let manifest = include_str!("../libfuzzer/Cargo.toml");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/libfuzzer/fuzz_targets");
    for Target { name, .. } in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in libfuzzer/Cargo.toml");
        let text = std::fs::read_to_string(format!("{folder}/{name}.rs")).expect(name);
        assert!(text.contains(&format!("fuzz::{name}(")), "{name}.rs runs something else");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_comes_every_target_comes_back(
        which in any::<Index>(),
        changes in prop::collection::vec(change(), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        for Target { run, examples, .. } in TARGETS {
            let examples = examples();
            run(&changed(which.get(&examples).clone(), &examples, &changes));
            run(&noise);
        }
    }
}
