//! What is not written yet.

use std::collections::BTreeSet;

use super::ConnId;
use bytes::Bytes;

/// Changes since the last write was handed out, and those in the one that is under way. One write is under way at a time, so
/// that all that gathers meanwhile goes into the next: a store needs one flush to disk for it.
#[derive(Default)]
pub(crate) struct Unstored {
    /// There is no store at all.
    ignored: bool,
    next: u64,
    gathered: Changes,
    under_way: Option<(u64, Changes)>,
}

#[derive(Default)]
pub(crate) struct Changes {
    /// Nodes with a change that nobody may hear of before it is stored.
    pub(crate) hard: BTreeSet<u32>,
    /// Nodes with another change.
    pub(crate) soft: BTreeSet<u32>,
    pub(crate) keys: BTreeSet<u32>,
    pub(crate) settings: bool,
    /// Answers that speak of them.
    pub(crate) answers: Vec<(ConnId, Bytes)>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.hard.is_empty() && self.soft.is_empty() && self.keys.is_empty() && !self.settings
    }
}

impl Unstored {
    /// There is no store: everything counts as stored.
    pub(crate) fn ignore(&mut self) {
        self.ignored = true;
    }

    pub(crate) fn node(&mut self, id: u32, hard: bool) {
        if !self.ignored {
            let set = if hard { &mut self.gathered.hard } else { &mut self.gathered.soft };
            set.insert(id);
        }
    }

    pub(crate) fn key(&mut self, id: u32) {
        if !self.ignored {
            self.gathered.keys.insert(id);
        }
    }

    pub(crate) fn settings(&mut self) {
        self.gathered.settings |= !self.ignored;
    }

    /// Whether nobody may hear of a node's state yet.
    pub(crate) fn holds(&self, id: u32) -> bool {
        let all = self.under_way.iter().map(|(_, changes)| changes).chain([&self.gathered]);
        all.into_iter().any(|changes| changes.hard.contains(&id))
    }

    pub(crate) fn holds_settings(&self) -> bool {
        self.gathered.settings || self.under_way.as_ref().is_some_and(|(_, changes)| changes.settings)
    }

    /// Keeps an answer until what it speaks of is stored, and those before it on its stream are given; gives it back if so.
    pub(crate) fn answer(&mut self, conn: ConnId, answer: Bytes) -> Option<Bytes> {
        let all = self.under_way.iter().map(|(_, changes)| changes).chain([&self.gathered]);
        let behind = all.into_iter().flat_map(|changes| &changes.answers).any(|(other, _)| *other == conn);
        if behind || !self.gathered.is_empty() {
            self.gathered.answers.push((conn, answer));
            return None;
        }
        Some(answer)
    }

    /// The number of the next write, and what is to be in it.
    pub(crate) fn begin(&mut self) -> Option<(u64, &Changes)> {
        if self.under_way.is_some() || self.gathered.is_empty() {
            return None;
        }
        self.next += 1;
        self.under_way = Some((self.next, std::mem::take(&mut self.gathered)));
        self.under_way.as_ref().map(|(id, changes)| (*id, changes))
    }

    /// A write is done: the answers that waited for it.
    pub(crate) fn done(&mut self, id: u64) -> Option<Vec<(ConnId, Bytes)>> {
        let (_, changes) = self.under_way.take_if(|(under_way, _)| *under_way == id)?;
        let mut answers = changes.answers;
        if self.gathered.is_empty() {
            answers.append(&mut self.gathered.answers);
        }
        Some(answers)
    }
}
