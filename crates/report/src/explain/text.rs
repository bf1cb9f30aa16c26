//! Headings, paragraphs and timed lines, wrapped.

use crate::units;
use std::net::SocketAddr;

const WIDTH: usize = 100;

/// Room for a time before a line: "  12.345 s  ".
const TIME: usize = 12;

/// A text that grows.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// A sentence and its time, ns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) at_ns: u64,
    /// Keeps the order of lines of one time.
    pub(super) order: usize,
    pub(super) words: String,
}

impl Text {
    pub(super) fn heading(&mut self, words: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        let rule = "─".repeat(words.chars().count());
        self.0 += &format!("{words}\n{rule}\n");
    }

    pub(super) fn paragraph(&mut self, words: &str) {
        self.wrapped("", words, 0);
    }

    pub(super) fn bullet(&mut self, words: &str) {
        self.wrapped("  · ", words, 4);
    }

    pub(super) fn line(&mut self, at_ns: u64, words: &str) {
        self.wrapped(&format!("{:>10}  ", units::moment(at_ns)), words, TIME);
    }

    pub(super) fn lines(&mut self, mut lines: Vec<Line>) {
        lines.sort();
        for line in &lines {
            self.line(line.at_ns, &line.words);
        }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    fn wrapped(&mut self, first: &str, words: &str, indent: usize) {
        let mut line = first.to_owned();
        let mut width = line.chars().count();
        let mut fresh = true;
        for word in unbreakable(words) {
            let length = word.chars().count();
            if !fresh && width + 1 + length > WIDTH {
                self.0 += line.trim_end();
                self.0.push('\n');
                (line, width, fresh) = (" ".repeat(indent), indent, true);
            }
            if !fresh {
                line.push(' ');
                width += 1;
            }
            line += &word;
            width += length;
            fresh = false;
        }
        self.0 += line.trim_end();
        self.0.push('\n');
    }
}

/// Words between which a line may break: a number keeps its unit.
fn unbreakable(words: &str) -> Vec<String> {
    const UNITS: [&str; 8] = ["s", "ms", "µs", "%", "bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
    let mut parts: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        let unit = word.trim_end_matches([',', '.', ':', ';', ')']);
        match parts.last_mut() {
            Some(last) if UNITS.contains(&unit) && last.ends_with(|end: char| end.is_ascii_digit()) => {
                last.push(' ');
                *last += word;
            }
            _ => parts.push(word.to_owned()),
        }
    }
    parts
}

/// "a", "a and b", "a, b and c".
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "nothing".to_owned(),
        [one] => one.to_string(),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(T::to_string).collect();
            format!("{} and {}", first.join(", "), last.to_string())
        }
    }
}

/// A list that stops after three: "a, b, c and 4 more".
pub(super) fn short_list(items: &[SocketAddr]) -> String {
    match items.len() {
        0..=4 => list(items),
        n => {
            let mut words: Vec<String> = items[..3].iter().map(SocketAddr::to_string).collect();
            words.push(format!("{} more", n - 3));
            list(&words)
        }
    }
}

/// The reason with a comma before it, or nothing.
pub(super) fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
