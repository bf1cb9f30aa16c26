//! From text to the sections of a file. A mistake in one section does not hide those in the next.

use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::error::{Problems, suggest};
use super::file;
use super::value::Val;

/// A named section, or one of a list.
#[derive(Debug)]
pub(super) struct Item<T> {
    /// Its name; empty in lists.
    pub(super) name: String,
    /// Where its name or its first line stands.
    pub(super) span: Range<usize>,
    /// What it says; `None` if that could not be read.
    pub(super) value: Option<T>,
}

/// What a file says, section by section, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) title: Option<Val<String>>,
    pub(super) why: Option<Val<String>>,
    pub(super) until: Option<Val<std::time::Duration>>,
    pub(super) internet: Option<file::Internet>,
    pub(super) routers: Vec<Item<file::Router>>,
    pub(super) hosts: Vec<Item<file::Host>>,
    pub(super) relays: Vec<Item<file::Server>>,
    pub(super) stuns: Vec<Item<file::Server>>,
    pub(super) proxies: Vec<Item<file::Proxy>>,
    pub(super) coordinator: Option<Item<file::Coordinator>>,
    pub(super) traffic: Vec<Item<file::Traffic>>,
    pub(super) at: Vec<Item<file::At>>,
    pub(super) expect: Vec<Item<file::Expect>>,
}

/// Reads the sections of `text`.
pub(super) fn sections(text: &str, problems: &mut Problems<'_>) -> Sections {
    let mut sections = Sections::default();
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What follows a syntax error may be misread: no use in judging it.
        for error in errors {
            problems.syntax(error.span().unwrap_or(0..0), error.message());
        }
        return sections;
    }
    for (key, value) in root.into_inner() {
        let (span, key) = (key.span(), key.into_inner());
        match &*key {
            "title" => sections.title = section(value, problems),
            "why" => sections.why = section(value, problems),
            "until" => sections.until = section(value, problems),
            "internet" => sections.internet = section(value, problems),
            "router" => sections.routers = named(&key, value, problems),
            "host" => sections.hosts = named(&key, value, problems),
            "relay" => sections.relays = named(&key, value, problems),
            "stun" => sections.stuns = named(&key, value, problems),
            "proxy" => sections.proxies = named(&key, value, problems),
            "coordinator" => {
                let value = section(value, problems);
                sections.coordinator = Some(Item { name: key.into_owned(), span, value });
            }
            "traffic" => sections.traffic = list(&key, value, problems),
            "at" => sections.at = list(&key, value, problems),
            "expect" => sections.expect = list(&key, value, problems),
            unknown => {
                problems.add(span, format!("unknown key `{unknown}`"), suggest(unknown, file::SECTIONS));
            }
        }
    }
    sections
}

/// The sections `[key.NAME]`.
fn named<T: DeserializeOwned>(
    key: &str,
    value: Spanned<DeValue<'_>>,
    problems: &mut Problems<'_>,
) -> Vec<Item<T>> {
    let span = value.span();
    let DeValue::Table(table) = value.into_inner() else {
        problems.add(
            span,
            format!("`{key}` holds sections"),
            format!("write [{key}.NAME] above the keys of each"),
        );
        return Vec::new();
    };
    let mut items = Vec::new();
    for (name, value) in table {
        let (span, name) = (name.span(), name.into_inner().into_owned());
        if !value.get_ref().is_table() {
            problems.add(
                span,
                format!("`{name}` is no section of `{key}`"),
                format!("give the {key} a name: write [{key}.NAME] above its keys"),
            );
            continue;
        }
        items.push(Item { name, span, value: section(value, problems) });
    }
    items
}

/// The sections `[[key]]`.
fn list<T: DeserializeOwned>(
    key: &str,
    value: Spanned<DeValue<'_>>,
    problems: &mut Problems<'_>,
) -> Vec<Item<T>> {
    let span = value.span();
    let DeValue::Array(array) = value.into_inner() else {
        problems.add(
            span,
            format!("`{key}` is a list of sections"),
            format!("write [[{key}]] with two brackets"),
        );
        return Vec::new();
    };
    let item = |value: Spanned<DeValue<'_>>| {
        let span = value.span();
        Item { name: String::new(), span, value: section(value, problems) }
    };
    array.into_iter().map(item).collect()
}

/// Reads one section, noting every unknown key in it.
fn section<T: DeserializeOwned>(mut value: Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<T> {
    loop {
        let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(section) => return Some(section),
            Err(error) => error,
        };
        let span = error.span().unwrap_or_else(|| value.span());
        let message = error.message();
        // serde's words (`serde::de::Error::unknown_field`); a test holds them.
        let Some(rest) = message.strip_prefix("unknown field `") else {
            problems.add(span, message.replace("missing field", "missing key"), "");
            return None;
        };
        let (key, known) = rest.split_once('`').unwrap_or((rest, ""));
        let known = known.split('`').skip(1).step_by(2);
        problems.add(span.clone(), format!("unknown key `{key}`"), suggest(key, known));
        if !remove(value.get_mut(), key, &span) {
            return None;
        }
    }
}

/// Takes the key `key` at `span` out of a tree.
fn remove(value: &mut DeValue<'_>, key: &str, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => {
            let found = table.keys().find(|known| known.get_ref() == key && known.span() == *span).cloned();
            match found {
                Some(found) => table.remove(&found).is_some(),
                None => table.iter_mut().any(|(_, value)| remove(value.get_mut(), key, span)),
            }
        }
        DeValue::Array(array) => array.iter_mut().any(|value| remove(value.get_mut(), key, span)),
        _ => false,
    }
}
