//! Every NAT type against every other.

use crate::units;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use trace::Path;

/// The grid of a matrix run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Matrix {
    /// Names of the NAT types, in the order in which they are shown.
    pub rows: Vec<String>,
    /// One for each pair; a pair of two types may be given once, in either order.
    pub cells: Vec<Cell>,
    /// The command that makes the matrix again.
    pub command: String,
}

/// Two NAT types against each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// NAT type of one side.
    pub a: String,
    /// NAT type of the other.
    pub b: String,
    /// The path at the end; `None` = no data got through.
    pub path: Option<Path>,
    /// From the start of traffic to both sides sending directly, ns.
    pub direct_ns: Option<u64>,
    /// From the start of traffic to the first packet received, ns.
    pub first_data_ns: Option<u64>,
    /// What the oracle says the path should be; `None` = it does not say.
    pub expected: Option<Path>,
}

impl Cell {
    /// Did the pair end otherwise than expected?
    pub fn is_surprise(&self) -> bool {
        self.expected.is_some() && self.expected != self.path
    }

    /// "direct 112 ms", "relay", "failed"; with an exclamation mark when that was not expected.
    pub fn words(&self) -> String {
        let mut words = match (self.path, self.direct_ns) {
            (None, _) => "failed".to_owned(),
            (Some(path @ (Path::Direct | Path::Lan)), Some(ns)) => {
                format!("{} {}", path.as_str(), units::short(ns))
            }
            (Some(path), _) => path.as_str().to_owned(),
        };
        if self.is_surprise() {
            words.push_str(" !");
        }
        words
    }
}

impl Matrix {
    /// The cell of two NAT types, in either order.
    pub fn cell(&self, one: &str, other: &str) -> Option<&Cell> {
        let exact = self.cells.iter().find(|cell| cell.a == one && cell.b == other);
        exact.or_else(|| self.cells.iter().find(|cell| cell.a == other && cell.b == one))
    }

    /// The grid as text for a terminal: one line for each row, columns aligned by spaces.
    pub fn grid(&self) -> String {
        let body = |row: &String, column: &String| self.cell(row, column).map_or("·".to_owned(), Cell::words);
        let width = |words: &str| words.chars().count();
        let first = self.rows.iter().map(|row| width(row)).max().unwrap_or(0);
        let widths: Vec<usize> = self
            .rows
            .iter()
            .map(|column| {
                let cells = self.rows.iter().map(|row| width(&body(row, column)));
                cells.max().unwrap_or(0).max(width(column))
            })
            .collect();
        let mut lines = vec![format!("{:first$}", "")];
        for (column, width) in self.rows.iter().zip(&widths) {
            _ = write!(lines[0], "  {column:width$}");
        }
        for row in &self.rows {
            let mut line = format!("{row:first$}");
            for (column, width) in self.rows.iter().zip(&widths) {
                _ = write!(line, "  {:width$}", body(row, column));
            }
            lines.push(line);
        }
        lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }
}
