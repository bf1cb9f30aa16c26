//! What the tests of the simulator share.

#![allow(dead_code, reason = "every test crate uses another part of this")]

use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use punchbag::campaign::{self, Found, Run};
use punchbag::scenario::{self, Scenario};
use punchbag::world::{Options, Seed};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Threads for many worlds.
pub(crate) fn jobs() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The scenario files that ship.
pub(crate) fn shipped_files() -> Vec<Found> {
    campaign::discover(&root().join("scenarios")).expect("scenarios that ship")
}

/// One scenario that ships, by its name.
pub(crate) fn shipped(name: &str) -> Scenario {
    let file = shipped_files().into_iter().find(|file| file.name == name);
    campaign::load(&file.unwrap_or_else(|| panic!("no scenario {name}"))).unwrap_or_else(|e| panic!("{e}"))
}

/// A scenario from its text.
pub(crate) fn scenario(text: &str) -> Scenario {
    scenario::parse("test", "test.toml", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Plays a scenario once.
pub(crate) fn play(scenario: &Scenario, seed: u64, options: Options) -> Run {
    campaign::run(scenario, Seed(seed), options, "a test")
        .unwrap_or_else(|e| panic!("{}: {e}", scenario.name))
}

/// Keeps the packets.
pub(crate) fn with_captures() -> Options {
    Options { capture: true, ..Options::default() }
}

/// The bytes of a run's `run.jsonl`.
pub(crate) fn log_bytes(run: &Run) -> Vec<u8> {
    let mut bytes = Vec::new();
    trace::write_header(&mut bytes, &run.header).expect("a vector takes everything");
    for record in &run.records {
        trace::write_record(&mut bytes, record).expect("a vector takes everything");
    }
    bytes
}

/// A run's pcapng files by interface.
pub(crate) fn captures(run: Run) -> BTreeMap<String, Vec<u8>> {
    run.captures.expect("a run with captures").finish().collect()
}

/// A captured packet.
pub(crate) struct Captured {
    pub(crate) interface: String,
    pub(crate) t_ns: u128,
    /// The Ethernet frame.
    pub(crate) frame: Vec<u8>,
}

/// Reads a pcapng file.
pub(crate) fn read_capture(bytes: &[u8]) -> Vec<Captured> {
    let mut reader = PcapNgReader::new(bytes).expect("a pcapng file");
    let (mut names, mut packets) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block") {
            Block::InterfaceDescription(block) => {
                let name = block.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                names.push(name.expect("an interface with a name"));
            }
            Block::EnhancedPacket(block) => packets.push(Captured {
                interface: names[block.interface_id as usize].clone(),
                t_ns: block.timestamp.as_nanos(),
                frame: block.data.into_owned(),
            }),
            _ => {}
        }
    }
    packets
}

/// A folder that goes away with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("punchbag-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it and returns where it is.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file in a temporary folder");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The command, without colours, in the root of the repository.
pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_punchbag"));
    command
        .args(args)
        .current_dir(root())
        .env("NO_COLOR", "1")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("RUST_LOG");
    command
}

/// Runs the command to its end.
pub(crate) fn punchbag<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    command(args).output().expect("the command starts")
}

/// What a command wrote on standard output.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8 on standard output")
}

/// What a command wrote on standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8 on standard error")
}
