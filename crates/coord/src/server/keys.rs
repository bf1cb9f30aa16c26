//! Pre-authentication keys: what lets a machine in without an administrator at hand.

use std::collections::BTreeMap;

use blake2::{Blake2s256, Digest as _};
use rand::Rng as _;
use rand_chacha::ChaCha12Rng;

use crate::Refusal;
use crate::state::KeyRecord;

/// So that people see what it is.
const PREFIX: &str = "pbkey";

/// What a new key is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewKey {
    /// Whether it lets in more than one machine.
    pub reusable: bool,
    /// Whether those that it lets in are removed when they have been offline for
    /// [`EPHEMERAL_AFTER`](super::EPHEMERAL_AFTER).
    pub ephemeral: bool,
    /// The tags that it gives them.
    pub tags: Vec<String>,
    /// For how many seconds it is good; `None`: for ever.
    pub lifetime_s: Option<u64>,
}

/// All keys, by number.
pub(crate) struct Keys {
    keys: BTreeMap<u32, KeyRecord>,
    pub(crate) last_id: u32,
}

impl Keys {
    pub(crate) fn load(keys: BTreeMap<u32, KeyRecord>, last_id: u32) -> Keys {
        let last = keys.keys().next_back().copied().unwrap_or(0);
        Keys { keys, last_id: last.max(last_id) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &KeyRecord> {
        self.keys.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&KeyRecord> {
        self.keys.get(&id)
    }

    /// Makes a key; gives its text, which is not kept.
    pub(crate) fn create(&mut self, new: NewKey, unix: u64, rng: &mut ChaCha12Rng) -> (u32, String) {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        let id = self.last_id.wrapping_add(1).max(1);
        self.last_id = id;
        let text = text_of(id, &secret);
        self.keys.insert(id, record(id, &text, new, unix));
        (id, text)
    }

    pub(crate) fn insert(&mut self, key: KeyRecord) {
        self.last_id = self.last_id.max(key.id);
        self.keys.insert(key.id, key);
    }

    pub(crate) fn remove(&mut self, id: u32) -> bool {
        self.keys.remove(&id).is_some()
    }

    /// The key of this text, if it lets somebody in at this time.
    pub(crate) fn check(&self, text: &str, unix: u64) -> Result<&KeyRecord, Refusal> {
        let id = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split_once('-'));
        let key = id.and_then(|(id, _)| self.keys.get(&id.parse().ok()?)).ok_or(Refusal::AuthKey)?;
        let good = key.hash == hash(text)
            && (key.reusable || key.used == 0)
            && key.expires.is_none_or(|expires| unix < expires);
        if good { Ok(key) } else { Err(Refusal::AuthKey) }
    }

    pub(crate) fn used(&mut self, id: u32) {
        if let Some(key) = self.keys.get_mut(&id) {
            key.used = key.used.saturating_add(1);
        }
    }
}

/// The text of the key with this number and secret.
pub fn text_of(id: u32, secret: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{PREFIX}-{id}-");
    for byte in secret {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A key as it is kept, for those who make the text themselves.
pub fn record(id: u32, text: &str, new: NewKey, unix: u64) -> KeyRecord {
    let NewKey { reusable, ephemeral, tags, lifetime_s } = new;
    let expires = lifetime_s.map(|lifetime| unix.saturating_add(lifetime));
    KeyRecord { id, hash: hash(text), reusable, ephemeral, tags, expires, created: unix, used: 0 }
}

fn hash(text: &str) -> [u8; 32] {
    Blake2s256::digest(text.as_bytes()).into()
}
