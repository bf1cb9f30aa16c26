//! What is wrong with a scenario file: where, why, and what would do.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::units::Bad;

/// So many problems are shown; the rest is counted.
const SHOWN: usize = 20;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// How to put it right; empty when the message says it all.
    pub help: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the file that it is about.
    pub span: Range<usize>,
}

/// A scenario file that cannot be used, with everything found wrong in it.
///
/// `Display` gives plain text for people: file, line and column, the line with a caret under the spot, and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioError {
    /// The file as it was named.
    pub path: String,
    /// At most twenty problems, in the order of the file.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
    /// The text of the file.
    source: String,
}

impl std::error::Error for ScenarioError {}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl ScenarioError {
    /// The problems as text, with terminal colours if `styled`.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            let snippet = Snippet::source(self.source.as_str())
                .path(self.path.as_str())
                .annotation(AnnotationKind::Primary.span(problem.span.clone()));
            let mut group = Level::ERROR.primary_title(problem.message.as_str()).element(snippet);
            if !problem.help.is_empty() {
                group = group.element(Level::HELP.message(problem.help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        if self.more > 0 {
            out.push_str(&format!("and {} more\n\n", self.more));
        }
        out.truncate(out.trim_end().len());
        out
    }
}

/// Files beside a scenario, by their names: their text, or why it cannot be had.
pub type Files<'f> = dyn Fn(&str) -> Result<String, String> + 'f;

/// Gathers problems while a file is read, and the files that it names.
pub(super) struct Problems<'t> {
    text: &'t str,
    files: &'t Files<'t>,
    read: BTreeMap<String, String>,
    found: Vec<(Range<usize>, Bad)>,
    more: usize,
    syntax: bool,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str, files: &'t Files<'t>) -> Problems<'t> {
        Problems { text, files, read: BTreeMap::new(), found: Vec::new(), more: 0, syntax: false }
    }

    /// The text of a file beside the scenario.
    pub(super) fn read(&mut self, name: &str) -> Result<String, String> {
        if let Some(text) = self.read.get(name) {
            return Ok(text.clone());
        }
        let text = (self.files)(name)?;
        self.read.insert(name.to_owned(), text.clone());
        Ok(text)
    }

    /// BLAKE3 of the scenario and of the files that it names.
    pub(super) fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.text.as_bytes());
        for (name, text) in &self.read {
            hasher.update(blake3::hash(name.as_bytes()).as_bytes());
            hasher.update(blake3::hash(text.as_bytes()).as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Notes a problem about the bytes `span` of the file.
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.bad(span, Bad::new(message, help));
    }

    /// Notes an unusable value.
    pub(super) fn bad(&mut self, span: Range<usize>, bad: Bad) {
        let problem = (span, bad);
        if self.found.contains(&problem) {
            return;
        }
        if self.found.len() < SHOWN {
            self.found.push(problem);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Notes text that is no TOML.
    pub(super) fn syntax(&mut self, span: Range<usize>, message: &str) {
        self.syntax = true;
        self.add(span, message.trim(), "");
    }

    /// Whether the text is no TOML, so that what it says cannot be judged.
    pub(super) fn is_syntax(&self) -> bool {
        self.syntax
    }

    /// The error to hand out, for the file named `path`.
    pub(super) fn into_error(mut self, path: &str) -> ScenarioError {
        self.found.sort_by_key(|(span, _)| span.start);
        let text = self.text;
        let problems = self
            .found
            .into_iter()
            .map(|(span, Bad { message, help })| {
                let start = text.floor_char_boundary(span.start.min(text.len()));
                let end = text.ceil_char_boundary(span.end.min(text.len())).max(start);
                // A section is best shown by its first line.
                let end = text[start..end].find('\n').map_or(end, |length| start + length);
                let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
                Problem {
                    message,
                    help,
                    line: text[..start].matches('\n').count() + 1,
                    column: text[line_start..start].chars().count() + 1,
                    span: start..end,
                }
            })
            .collect();
        ScenarioError { path: path.to_owned(), problems, more: self.more, source: text.to_owned() }
    }
}

/// "did you mean …" for a word that is none of `known`, or the list of them.
pub(super) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = word.to_lowercase();
    let length = lower.chars().count();
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= (length / 3).max(1) && *distance < length)
        .min();
    match nearest {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None if known.is_empty() => String::new(),
        None if known.len() > 24 => format!("known are {}, …", known[..24].join(", ")),
        None => format!("known are {}", known.join(", ")),
    }
}
