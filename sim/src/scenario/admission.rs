//! Who may join, and how long keys are good.

use std::time::Duration;

use indexmap::IndexMap;

use super::axes::take;
use super::build::Builder;
use super::file;
use super::model::{AuthKey, Membership};
use super::value::{Val, Words};

/// Who may join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Anyone,
    Approved,
}

impl Words for Who {
    const WHAT: &'static str = "who may join";
    const EXAMPLE: &'static str = "\"approved\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("anyone", Who::Anyone), ("approved", Who::Approved)]
    }
}

/// Whom a relay serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    Anyone,
    Members,
}

impl Words for Served {
    const WHAT: &'static str = "whom a relay serves";
    const EXAMPLE: &'static str = "\"members\"";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("anyone", Served::Anyone), ("members", Served::Members)]
    }
}

impl Builder<'_, '_> {
    pub(super) fn membership(&mut self, spec: &mut file::Coordinator) -> Membership {
        let who = take(spec.admission.take(), self.problems).map_or(Who::Anyone, |who| who.0);
        let key_lifetime = self.whole_seconds(spec.key_lifetime.take());
        let renewable = take(spec.renewable.take(), self.problems).unwrap_or(true);
        let mut auth_keys = IndexMap::new();
        for (name, spec) in std::mem::take(&mut spec.auth_key).0 {
            let (span, name) = (name.span(), name.into_inner());
            if who == Who::Anyone {
                let help = "say admission = \"approved\" in [coordinator], or leave the keys away";
                self.problems.add(span, "a pre-authentication key where anyone may join", help);
            }
            let reusable = take(spec.reusable, self.problems).unwrap_or(false);
            let lifetime = self.whole_seconds(spec.lifetime);
            auth_keys.insert(name, AuthKey { reusable, lifetime });
        }
        Membership { approved: who == Who::Approved, key_lifetime, renewable, auth_keys }
    }

    /// The name of the pre-authentication key that a host has.
    pub(super) fn auth_key(&mut self, name: Option<Val<String>>) -> Option<String> {
        let span = name.as_ref()?.span.clone();
        let name = take(name, self.problems)?;
        if !self.auth_keys.contains(&name) {
            let help =
                format!("write auth-key.{name} = {{}} in [coordinator], with admission = \"approved\"");
            self.problems.add(span, format!("there is no pre-authentication key `{name}`"), help);
        }
        Some(name)
    }

    /// The server counts in seconds.
    fn whole_seconds(&mut self, value: Option<Val<Duration>>) -> Option<Duration> {
        let span = value.as_ref()?.span.clone();
        let value = take(value, self.problems)?;
        if value.is_zero() || value.subsec_nanos() != 0 {
            self.problems.add(span, "not a whole number of seconds from 1", "such as \"30s\"");
        }
        Some(value)
    }
}
