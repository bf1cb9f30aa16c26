//! The coordination server as it is written, and who may join.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Link, Server};
use crate::scenario::admission::Who;
use crate::scenario::model::Families;
use crate::scenario::value::{Ordered, Sugar, Val, Word};

/// The coordination server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct Coordinator {
    /// Its region. Default: the first one in the file.
    pub(in crate::scenario) region: Option<Val<String>>,
    /// Its address. Default: the next free one.
    pub(in crate::scenario) address: Option<Val<IpAddr>>,
    /// Its cable.
    pub(in crate::scenario) link: Option<Sugar<Link>>,
    /// The IP versions that it has addresses of. Default: "dual" in a scenario with IPv6, else "ipv4".
    pub(in crate::scenario) ip: Option<Val<Word<Families>>>,
    /// Its IPv6 address. Default: the next free one.
    pub(in crate::scenario) address6: Option<Val<IpAddr>>,
    /// Whether it speaks TLS on port 443; if not, plain HTTP as on port 80. Default: true.
    pub(in crate::scenario) tls: Option<Val<bool>>,
    /// Who may join: "anyone" who knows the server, or who is "approved": let in by a pre-authentication key or an administrator.
    /// Default: "anyone".
    pub(in crate::scenario) admission: Option<Val<Word<Who>>>,
    /// How long a node key is good, in whole seconds. Peers rotate it before. Default: for ever.
    pub(in crate::scenario) key_lifetime: Option<Val<Duration>>,
    /// Whether a rotated key is good for as long again; if not, it ends when the first one would have. Default: true.
    pub(in crate::scenario) renewable: Option<Val<bool>>,
    /// Pre-authentication keys by name, such as `auth-key.office = { reusable = true }`.
    #[serde(default)]
    pub(in crate::scenario) auth_key: Ordered<AuthKey>,
}

/// What lets a machine in without an administrator at hand.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::scenario) struct AuthKey {
    /// Whether it lets in more than one machine. Default: false.
    pub(in crate::scenario) reusable: Option<Val<bool>>,
    /// For how long since the start of the run it is good, in whole seconds. Default: for ever.
    pub(in crate::scenario) lifetime: Option<Val<Duration>>,
}

impl Coordinator {
    /// The server among its keys.
    pub(in crate::scenario) fn take_server(&mut self) -> Server {
        Server {
            region: self.region.take(),
            address: self.address.take(),
            link: self.link.take(),
            ip: self.ip.take(),
            address6: self.address6.take(),
            tls: self.tls.take(),
            mesh: None,
            admission: None,
        }
    }
}
