//! Scenario files: TOML in, plain data out, mistakes shown where they stand.
//!
//! A file names routers and hosts, what runs between them, what happens when, and what must come of it:
//!
//! ```
//! let text = r#"
//! title = "Two homes"
//!
//! [router.home-a]
//! region = "eu-west"
//!
//! [router.home-b]
//! region = "us-east"
//!
//! [host.takkie]
//! behind = "home-a"
//!
//! [host.flappie]
//! behind = "home-b"
//!
//! [[expect]]
//! pair = ["takkie", "flappie"]
//! path = "direct"
//! "#;
//! let scenario = punchbag::scenario::parse("two-homes", "two-homes.toml", text)?;
//! assert_eq!(scenario.hosts.len(), 2);
//! # Ok::<(), punchbag::scenario::ScenarioError>(())
//! ```
//!
//! Every value carries its unit and is read exactly. A preset stands for what could be said in full, and [`expanded`]
//! writes a scenario with everything said in full. [`schema`] describes the format to editors.
//!
//! What it does not do: variables, templates, loops, ranges. What needs logic is Rust.

mod admission;
mod axes;
mod build;
mod cable;
mod error;
mod expand;
mod file;
mod filter;
mod gateway;
mod ipv6;
mod links;
mod model;
mod point;
pub(crate) mod prefix;
mod proxies;
mod read;
pub mod regions;
mod story;
mod timeline;
mod units;
mod value;
pub mod words;

pub use build::{MAX_NODES, MAX_SERVERS};
pub use error::{Files, Problem, ScenarioError};
pub use expand::expanded;
pub use file::SECTIONS;
pub use model::*;
pub use point::{Key, point_out};
pub use story::MAX_FLOWS;

use error::Problems;

/// Longest scenario file, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Longest file that a scenario names, in bytes.
pub const MAX_TRACE_BYTES: usize = 8 << 20;

/// Reads the scenario called `name` from `text`, which is the file at `path`. It names no files beside it.
///
/// # Errors
/// Everything that is wrong with the file, each with its line and how to put it right.
pub fn parse(name: &str, path: &str, text: &str) -> Result<Scenario, ScenarioError> {
    parse_with(name, path, text, &|_| Err("no files can be read here".to_owned()))
}

/// The same for a scenario that may name files beside it, which `files` reads.
///
/// # Errors
/// Everything that is wrong with the file, each with its line and how to put it right.
pub fn parse_with(name: &str, path: &str, text: &str, files: &Files<'_>) -> Result<Scenario, ScenarioError> {
    if text.len() > MAX_FILE_BYTES {
        let mut problems = Problems::new("", files);
        problems.add(
            0..0,
            "the file is too long",
            format!("a scenario has at most {}", words::size(MAX_FILE_BYTES as u64)),
        );
        return Err(problems.into_error(path));
    }
    let mut problems = Problems::new(text, files);
    let sections = read::sections(text, &mut problems);
    if problems.is_syntax() {
        return Err(problems.into_error(path));
    }
    let mut scenario = build::build(name, String::new(), sections, &mut problems);
    scenario.hash = problems.hash();
    if problems.is_empty() { Ok(scenario) } else { Err(problems.into_error(path)) }
}

/// The JSON schema of a scenario file, for editors.
pub fn schema() -> String {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let without_null =
        schemars::transform::RecursiveTransform(|schema: &mut schemars::Schema| value::forget_null(schema));
    let schema = settings.with_transform(without_null).into_generator().into_root_schema_for::<file::File>();
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}
