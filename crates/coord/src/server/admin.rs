//! What administrators do, and their HTTP API.

use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::keys::NewKey;
use super::registry::{MAX_TAGS, check_name};
use super::{ConnId, Server, refused};
use crate::access::{Access, AccessError};
use crate::admin::{message, request};
use crate::http::reason;
use crate::state::{KeyRecord, NodeRecord, Standing};
use crate::types::hex_key;
use crate::{NodeInfo, Refusal, RelayInfo};

/// More relays than a network has.
const MAX_RELAYS: usize = 1_000;

/// Every route of the API: method and path, in which `{id}` is a number.
pub const ROUTES: [(&str, &str); 19] = [
    ("GET", "/v1/status"),
    ("GET", "/v1/nodes"),
    ("GET", "/v1/nodes/{id}"),
    ("DELETE", "/v1/nodes/{id}"),
    ("POST", "/v1/nodes/{id}/approve"),
    ("POST", "/v1/nodes/{id}/revoke"),
    ("PUT", "/v1/nodes/{id}/name"),
    ("PUT", "/v1/nodes/{id}/tags"),
    ("PUT", "/v1/nodes/{id}/key-expiry"),
    ("GET", "/v1/keys"),
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys/{id}"),
    ("DELETE", "/v1/keys/{id}"),
    ("GET", "/v1/access"),
    ("PUT", "/v1/access"),
    ("DELETE", "/v1/access"),
    ("GET", "/v1/relays"),
    ("PUT", "/v1/relays"),
    ("DELETE", "/v1/relays"),
];

/// Why something cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// There is no such node.
    #[error("there is no node {0}")]
    NoNode(u32),
    /// There is no such key.
    #[error("there is no pre-authentication key {0}")]
    NoKey(u32),
    /// A revoked node stays so: remove it, and its machine may register anew.
    #[error("node {0} was revoked; remove it, and its machine may register anew")]
    Revoked(u32),
    /// Another node has this name.
    #[error("another node is called `{0}`")]
    NameTaken(String),
    /// As many as there may be.
    #[error("there are {0} pre-authentication keys already; delete some")]
    TooManyKeys(usize),
    /// The access rules are wrong.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A value is out of bounds.
    #[error("{0}")]
    Bad(String),
}

/// A node as administrators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// What others are told of it.
    #[serde(flatten)]
    pub info: NodeInfo,
    /// Its machine's public key.
    #[serde(with = "hex_key")]
    pub machine_key: [u8; 32],
    /// Whether it is one of the network.
    pub standing: Standing,
    /// Whether its node key is past its end.
    pub expired: bool,
    /// Whether it goes when it is offline.
    pub ephemeral: bool,
    /// The pre-authentication key that let it in.
    pub auth_key: Option<u32>,
    /// When it registered first, in seconds of Unix time.
    pub created: u64,
}

/// A pre-authentication key as administrators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its number.
    pub id: u32,
    /// What a machine has to show; told once, when the key is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it lets in more than one machine.
    pub reusable: bool,
    /// Whether those that it lets in go when they are offline.
    pub ephemeral: bool,
    /// The tags that it gives them.
    pub tags: Vec<String>,
    /// When it ends, in seconds of Unix time.
    pub expires: Option<u64>,
    /// When it was made.
    pub created: u64,
    /// How many machines it has let in.
    pub used: u32,
}

/// The server at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How many deltas were sent.
    pub generation: u64,
    /// Unix time in seconds.
    pub time: u64,
    /// Nodes of any standing.
    pub nodes: usize,
    /// Those that are online.
    pub online: usize,
    /// Those that wait for an administrator.
    pub waiting: usize,
    /// Streams of any kind.
    pub streams: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tags {
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyExpiry {
    /// Seconds of Unix time, or `null` for never.
    expires: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Relays {
    relays: Vec<RelayInfo>,
}

impl Server {
    /// All nodes of any standing, as administrators see them.
    pub fn node_views(&self) -> impl Iterator<Item = NodeView> {
        self.registry.iter().map(|node| view(&node.record, node.expired))
    }

    /// Lets a waiting node in, or renews the end of the key of one that is in. In a network whose names matter it gets a number
    /// after its name if that is taken.
    ///
    /// # Errors
    /// There is no such node, or it was revoked.
    pub fn approve(&mut self, id: u32, now: Instant) -> Result<(), AdminError> {
        let node = self.registry.get(id).ok_or(AdminError::NoNode(id))?;
        let (standing, key, conn) = (node.record.standing, node.record.info.node_key, node.conn);
        if standing == Standing::Revoked {
            return Err(AdminError::Revoked(id));
        }
        let name = node.record.info.name.clone();
        self.note(id);
        if standing == Standing::Waiting && self.config.admission == super::Admission::Approved {
            let name = self.registry.free_name(&name, id);
            self.registry.rename(id, name);
        }
        let expires = self.key_end(self.unix(now));
        self.registry.set_standing(id, Standing::Approved);
        self.registry.set_key(id, key, expires, true);
        self.changes.arrivals.extend(conn.filter(|_| standing == Standing::Waiting));
        self.hard(id, now);
        Ok(())
    }

    /// Sends a node away for good: its stream ends, the others forget it, and its machine cannot register again.
    ///
    /// # Errors
    /// There is no such node.
    pub fn revoke(&mut self, id: u32, now: Instant) -> Result<(), AdminError> {
        let conn = self.registry.get(id).ok_or(AdminError::NoNode(id))?.conn;
        self.note(id);
        self.registry.set_standing(id, Standing::Revoked);
        if let Some(conn) = conn {
            self.fail(conn, refused(Refusal::Revoked), now);
        }
        self.hard(id, now);
        Ok(())
    }

    /// Forgets a node and frees its address. Its machine may register anew, as any other.
    ///
    /// # Errors
    /// There is no such node.
    pub fn remove_node(&mut self, id: u32, now: Instant) -> Result<(), AdminError> {
        self.registry.get(id).ok_or(AdminError::NoNode(id))?;
        self.remove(id, now);
        Ok(())
    }

    /// Gives a node another name. Where anyone may join, it lasts until the machine registers again.
    ///
    /// # Errors
    /// There is no such node, or the name is another's or none at all.
    pub fn set_name(&mut self, id: u32, name: &str, now: Instant) -> Result<(), AdminError> {
        self.registry.get(id).ok_or(AdminError::NoNode(id))?;
        check_name(name).map_err(|refusal| AdminError::Bad(refusal.to_string()))?;
        if self.registry.free_name(name, id) != name {
            return Err(AdminError::NameTaken(name.to_owned()));
        }
        self.note(id);
        self.registry.rename(id, name.to_owned());
        self.hard(id, now);
        Ok(())
    }

    /// Gives a node other tags.
    ///
    /// # Errors
    /// There is no such node, or there are too many tags, or they are no names.
    pub fn set_tags(&mut self, id: u32, tags: Vec<String>, now: Instant) -> Result<(), AdminError> {
        check_tags(&tags)?;
        self.registry.get(id).ok_or(AdminError::NoNode(id))?;
        self.note(id);
        if let Some(node) = self.registry.edit(id) {
            node.record.info.tags = tags;
        }
        self.hard(id, now);
        Ok(())
    }

    /// Sets when a node's key ends, in seconds of Unix time; with a time that is past, at once.
    ///
    /// # Errors
    /// There is no such node.
    pub fn set_key_expiry(&mut self, id: u32, expires: Option<u64>, now: Instant) -> Result<(), AdminError> {
        self.registry.get(id).ok_or(AdminError::NoNode(id))?;
        let unix = self.unix(now);
        self.note(id);
        if let Some(node) = self.registry.edit(id) {
            node.record.info.key_expires = expires;
            node.expired = false;
        }
        if expires.is_some_and(|end| end <= unix) {
            self.expire(id, now);
        }
        self.hard(id, now);
        Ok(())
    }

    /// Makes a pre-authentication key; gives its number and its text, which is not kept.
    ///
    /// # Errors
    /// There are too many keys, or its tags are wrong.
    pub fn create_key(&mut self, new: NewKey, now: Instant) -> Result<(u32, String), AdminError> {
        check_tags(&new.tags)?;
        let unix = self.unix(now);
        if self.keys.len() >= self.config.limits.keys {
            return Err(AdminError::TooManyKeys(self.keys.len()));
        }
        let made = self.keys.create(new, unix, &mut self.rng);
        self.unstored.key(made.0);
        self.unstored.settings();
        Ok(made)
    }

    /// Takes a key whose text was made elsewhere ([`key_record`](super::key_record)); one of the same number is replaced.
    pub fn insert_key(&mut self, key: KeyRecord) {
        self.unstored.key(key.id);
        self.keys.insert(key);
    }

    /// Makes a pre-authentication key useless. Those that it has let in stay.
    ///
    /// # Errors
    /// There is no such key.
    pub fn delete_key(&mut self, id: u32) -> Result<(), AdminError> {
        if !self.keys.remove(id) {
            return Err(AdminError::NoKey(id));
        }
        self.unstored.key(id);
        Ok(())
    }

    /// Sets the access rules; `None`: those of the configuration.
    ///
    /// # Errors
    /// They are wrong.
    pub fn set_access(&mut self, access: Option<Access>, now: Instant) -> Result<(), AdminError> {
        access.as_ref().map_or(Ok(()), Access::check)?;
        self.access = access;
        self.unstored.settings();
        self.note_access(now);
        Ok(())
    }

    /// Sets the relays; `None`: those of the configuration.
    ///
    /// # Errors
    /// There are too many, or two of one region at one address.
    pub fn set_relays(&mut self, relays: Option<Vec<RelayInfo>>, now: Instant) -> Result<(), AdminError> {
        let places = relays.iter().flatten().map(|relay| (relay.region, relay.addr));
        let different: std::collections::BTreeSet<_> = places.collect();
        let count = relays.as_ref().map_or(0, Vec::len);
        if count > MAX_RELAYS || different.len() < count {
            return Err(AdminError::Bad(format!(
                "at most {MAX_RELAYS} relays, those of one region at addresses of their own"
            )));
        }
        self.relays = relays;
        self.unstored.settings();
        self.note_relays(now);
        Ok(())
    }

    /// A node is different in what administrators say of it.
    fn hard(&mut self, id: u32, now: Instant) {
        self.unstored.node(id, true);
        self.file(id);
        self.schedule_flush(now);
    }

    /// Answers a request that came on an administrator's stream.
    pub(super) fn administer(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let (status, body) = match request(bytes) {
            Ok((method, path, body)) => self.route(method, path, body, now),
            Err(error) => (400, json!({ "error": error.to_string() })),
        };
        let body = if status == 204 { String::new() } else { body.to_string() };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            reason(status),
            body.len()
        );
        let answer = message(head.as_bytes(), body.as_bytes());
        if let Some(answer) = self.unstored.answer(conn, answer) {
            self.push(conn, answer);
        }
    }

    /// Status and body of the answer to a request.
    fn route(&mut self, method: &str, path: &str, body: &[u8], now: Instant) -> (u16, Value) {
        let matching =
            ROUTES.iter().filter_map(|(method, pattern)| Some((method, pattern, matches(pattern, path)?)));
        let matching: Vec<_> = matching.collect();
        let Some((_, pattern, id)) = matching.iter().find(|(allowed, ..)| **allowed == method) else {
            return if matching.is_empty() {
                (404, json!({ "error": format!("there is no {path}") }))
            } else {
                let allowed: Vec<_> = matching.iter().map(|(method, ..)| *method).collect();
                (
                    405,
                    json!({ "error": format!("{path} takes {}", allowed.iter().map(|m| **m).collect::<Vec<_>>().join(", ")) }),
                )
            };
        };
        let answer = self.answer((method, pattern), *id, body, now);
        answer.unwrap_or_else(|error| {
            let status = match &error {
                AdminError::NoNode(_) | AdminError::NoKey(_) => 404,
                AdminError::Revoked(_) | AdminError::NameTaken(_) | AdminError::TooManyKeys(_) => 409,
                AdminError::Access(_) | AdminError::Bad(_) => 400,
            };
            (status, json!({ "error": error.to_string() }))
        })
    }

    fn answer(
        &mut self,
        route: (&str, &str),
        id: u32,
        body: &[u8],
        now: Instant,
    ) -> Result<(u16, Value), AdminError> {
        let done = |()| (204, Value::Null);
        match route {
            ("GET", "/v1/status") => {
                let online = self.registry.iter().filter(|node| node.record.info.online).count();
                let status = Status {
                    generation: self.generation(),
                    time: self.unix(now),
                    nodes: self.registry.len(),
                    online,
                    waiting: self.registry.waiting(),
                    streams: self.conns.len(),
                };
                Ok((200, json!(status)))
            }
            ("GET", "/v1/nodes") => Ok((200, json!({ "nodes": self.node_views().collect::<Vec<_>>() }))),
            ("GET", "/v1/nodes/{id}") => {
                let node = self.registry.get(id).ok_or(AdminError::NoNode(id))?;
                Ok((200, json!(view(&node.record, node.expired))))
            }
            ("DELETE", "/v1/nodes/{id}") => self.remove_node(id, now).map(done),
            ("POST", "/v1/nodes/{id}/approve") => self.approve(id, now).map(done),
            ("POST", "/v1/nodes/{id}/revoke") => self.revoke(id, now).map(done),
            ("PUT", "/v1/nodes/{id}/name") => self.set_name(id, &read::<Name>(body)?.name, now).map(done),
            ("PUT", "/v1/nodes/{id}/tags") => self.set_tags(id, read::<Tags>(body)?.tags, now).map(done),
            ("PUT", "/v1/nodes/{id}/key-expiry") => {
                self.set_key_expiry(id, read::<KeyExpiry>(body)?.expires, now).map(done)
            }
            ("GET", "/v1/keys") => {
                let keys: Vec<_> = self.keys.iter().map(|key| key_view(key, None)).collect();
                Ok((200, json!({ "keys": keys })))
            }
            ("POST", "/v1/keys") => {
                let (id, text) = self.create_key(read(body)?, now)?;
                let key = self.keys.get(id).ok_or(AdminError::NoKey(id))?;
                Ok((201, json!(key_view(key, Some(text)))))
            }
            ("GET", "/v1/keys/{id}") => {
                let key = self.keys.get(id).ok_or(AdminError::NoKey(id))?;
                Ok((200, json!(key_view(key, None))))
            }
            ("DELETE", "/v1/keys/{id}") => self.delete_key(id).map(done),
            ("GET", "/v1/access") => Ok((200, json!({ "access": self.access_rules() }))),
            ("PUT", "/v1/access") => self.set_access(Some(read(body)?), now).map(done),
            ("DELETE", "/v1/access") => self.set_access(None, now).map(done),
            ("GET", "/v1/relays") => Ok((200, json!({ "relays": self.relay_map() }))),
            ("PUT", "/v1/relays") => self.set_relays(Some(read::<Relays>(body)?.relays), now).map(done),
            ("DELETE", "/v1/relays") => self.set_relays(None, now).map(done),
            // A route of the table that is not above: a test looks for that.
            _ => Err(AdminError::Bad("not implemented".into())),
        }
    }
}

/// Whether a path is of a pattern, and the number in it; 0 where it has none.
fn matches(pattern: &str, path: &str) -> Option<u32> {
    let (mut pattern, mut path, mut id) = (pattern.split('/'), path.split('/'), 0);
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(id),
            (Some("{id}"), Some(number)) => id = number.parse().ok()?,
            (Some(expected), Some(part)) if expected == part => {}
            _ => return None,
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(body).map_err(|error| AdminError::Bad(error.to_string()))
}

fn check_tags(tags: &[String]) -> Result<(), AdminError> {
    let good = |tag: &String| check_name(tag).is_ok();
    if tags.len() <= MAX_TAGS && tags.iter().all(good) {
        Ok(())
    } else {
        Err(AdminError::Bad(format!(
            "at most {MAX_TAGS} tags, each of 1 to 63 bytes without control characters"
        )))
    }
}

fn view(record: &NodeRecord, expired: bool) -> NodeView {
    NodeView {
        info: record.info.clone(),
        machine_key: record.machine,
        standing: record.standing,
        expired,
        ephemeral: record.ephemeral,
        auth_key: record.auth_key,
        created: record.created,
    }
}

fn key_view(key: &KeyRecord, text: Option<String>) -> KeyView {
    KeyView {
        id: key.id,
        key: text,
        reusable: key.reusable,
        ephemeral: key.ephemeral,
        tags: key.tags.clone(),
        expires: key.expires,
        created: key.created,
        used: key.used,
    }
}
