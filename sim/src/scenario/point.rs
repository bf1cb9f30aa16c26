//! Complaints about a scenario that could be read, shown where they stand in its file.

use super::error::{Problems, ScenarioError};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// One step into a scenario file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A key of a table.
    Name(String),
    /// An entry of a list, from 0.
    Nth(usize),
}

impl From<&str> for Key {
    fn from(name: &str) -> Key {
        Key::Name(name.to_owned())
    }
}

/// An error about the file at `path` with this text. Each complaint has ways into the file, from the outside in, a message and
/// a fix. It is shown at the first of its ways that leads somewhere, else at the deepest place that one of them comes to.
pub fn point_out(
    path: &str,
    text: &str,
    complaints: impl IntoIterator<Item = (Vec<Vec<Key>>, String, String)>,
) -> ScenarioError {
    let no_files = |_: &str| Err("no files are read here".to_owned());
    let mut problems = Problems::new(text, &no_files);
    let (root, _) = DeTable::parse_recoverable(text);
    let root = DeValue::Table(root.into_inner());
    for (ways, message, help) in complaints {
        let reached = ways.iter().map(|way| walk(&root, way));
        let best = reached
            .enumerate()
            .max_by_key(|(i, (depth, span))| (*depth, span.is_some(), std::cmp::Reverse(*i)));
        let span = best.and_then(|(_, (_, span))| span).unwrap_or(0..0);
        problems.add(span, message, help);
    }
    problems.into_error(path)
}

/// How far a way leads, and what stands there.
fn walk(root: &DeValue<'_>, way: &[Key]) -> (usize, Option<Range<usize>>) {
    let (mut value, mut reached) = (root, (0, None));
    for (depth, key) in (1..).zip(way) {
        let next = match (key, value) {
            (Key::Name(name), DeValue::Table(table)) => table
                .iter()
                .find(|(key, _)| key.get_ref() == name)
                .map(|(key, value)| (key.span().start..key.span().end.max(value.span().end), value)),
            (Key::Nth(nth), DeValue::Array(array)) => array.get(*nth).map(|value| (value.span(), value)),
            _ => None,
        };
        let Some((span, inner)) = next else { break };
        (value, reached) = (inner.get_ref(), (depth, Some(span)));
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(ways: &[&[Key]], text: &str) -> (usize, usize) {
        let ways = ways.iter().map(|way| way.to_vec()).collect();
        let error = point_out("a.toml", text, [(ways, "no".to_owned(), String::new())]);
        (error.problems[0].line, error.problems[0].column)
    }

    const TEXT: &str = "title = \"t\"\n[host.a]\ninterface.cell = { link = \"lte\" }\n[[at]]\ntime = \"1s\"\n[[at]]\nlink = 1\n";

    #[test]
    fn is_shown_at_the_key() {
        let cell: [Key; 5] = ["host", "a", "interface", "cell", "link"].map(Key::from);
        assert_eq!(place(&[&cell], TEXT), (3, 20));
        let link = ["at".into(), Key::Nth(1), "link".into()];
        assert_eq!(place(&[&["router".into()], &link], TEXT), (7, 1));
    }

    #[test]
    fn is_shown_at_the_nearest_that_is_there() {
        let way: [Key; 3] = ["host", "a", "nothing"].map(Key::from);
        assert_eq!(place(&[&way], TEXT).0, 2);
        assert_eq!(place(&[&["nothing".into()]], TEXT), (1, 1));
    }
}
