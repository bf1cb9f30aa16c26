//! Reading and writing `run.jsonl`.

use crate::Event;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

/// Version of the log format; a reader refuses another.
pub const FORMAT: u32 = 1;

/// The first line of a log: enough to make the rest again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the scenario: its path below the scenario folder, without ".toml".
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// BLAKE3 of the scenario file's bytes, hexadecimal.
    pub scenario_hash: String,
    /// The seed.
    pub seed: u64,
    /// Version of the program that wrote it.
    pub version: String,
    /// "sim".
    pub world: String,
}

/// One line of a log after the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Virtual time, nanoseconds since the start of the run.
    pub t: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file ended before its first line.
    #[error("the log is empty")]
    Empty,
    /// A line is not what it should be.
    #[error("line {line}: {source}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Written in another format.
    #[error("log format {0}, this program reads {FORMAT}")]
    Format(u32),
    /// The bytes could not be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Writes the first line.
pub fn write_header(out: &mut impl Write, header: &Header) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, header)?;
    out.write_all(b"\n")
}

/// Writes one event.
pub fn write_record(out: &mut impl Write, record: &Record) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

/// Reads a whole log, checking its format.
pub fn read(input: impl BufRead) -> Result<(Header, Vec<Record>), LogError> {
    let mut lines = input.lines();
    let first = lines.next().ok_or(LogError::Empty)??;
    let header: Header = serde_json::from_str(&first).map_err(|source| LogError::Line { line: 1, source })?;
    if header.format != FORMAT {
        return Err(LogError::Format(header.format));
    }
    let mut records = Vec::new();
    for (n, line) in lines.enumerate() {
        let line = line?;
        records.push(serde_json::from_str(&line).map_err(|source| LogError::Line { line: n + 2, source })?);
    }
    Ok((header, records))
}
