//! What can go wrong on a stream.

use serde::{Deserialize, Serialize};

/// Why a stream was given up. None of these can be recovered from on the same stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The other side does not speak this protocol.
    #[error("the other side is no coordination service")]
    WrongProtocol,
    /// The other side speaks another version.
    #[error("the other side does not speak {}", crate::PROTOCOL)]
    Version,
    /// What came before the stream is no HTTP/1.1, or too long.
    #[error("malformed HTTP")]
    Http,
    /// The other side answered with something else than a stream.
    #[error("HTTP status {0} in place of 101")]
    Status(u16),
    /// A request that is no upgrade, and was answered with an error.
    #[error("HTTP request answered with status {0}")]
    Answered(u16),
    /// The key that the other side has shown opens no such stream.
    #[error("the key is that of no {0}")]
    Stranger(&'static str),
    /// The handshake failed: another server key, or altered bytes.
    #[error("the handshake failed: wrong server key or altered bytes")]
    Handshake,
    /// A record was altered, or is too short to be one.
    #[error("a record does not verify")]
    Record,
    /// A message is announced longer than the receiver accepts.
    #[error("a message of {0} bytes is too long")]
    TooLong(u32),
    /// A message is not the JSON that was expected.
    #[error("malformed message: {0}")]
    Json(String),
    /// A well-formed message came at the wrong time or with impossible content.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
    /// A deadline passed; the text says which.
    #[error("timed out: {0}")]
    TimedOut(&'static str),
    /// The server does not want this client.
    #[error("refused ({code:?}): {reason}")]
    Refused {
        /// For programs.
        code: Refusal,
        /// For people.
        reason: String,
    },
    /// The server has as many unregistered streams as it allows.
    #[error("too many streams that have not registered")]
    TooManyPending,
    /// The client does not read fast enough.
    #[error("{0} bytes wait for a client that does not read them")]
    Backlog(usize),
}

/// Why the server refuses a registration or an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// The name is empty, too long or has control characters.
    #[error("the name is empty, too long or has control characters")]
    Name,
    /// The node key was registered by another machine key.
    #[error("the node key belongs to another machine")]
    NodeKeyTaken,
    /// The machine has not shown that it has the private half of a key that it names.
    #[error("the private half of the node key or the disco key was not shown")]
    KeyNotProven,
    /// More endpoints than the server keeps.
    #[error("too many endpoints")]
    TooManyEndpoints,
    /// All addresses, or as many nodes as allowed, are in use.
    #[error("the network is full")]
    Full,
    /// The pre-authentication key is not known, used up or past its end.
    #[error("the pre-authentication key is not known, used up or past its end")]
    AuthKey,
    /// An administrator has sent this machine away.
    #[error("the machine was revoked")]
    Revoked,
    /// The node key is past its end.
    #[error("the node key is past its end: make a new one")]
    KeyExpired,
    /// An administrator has removed this node: it may register anew.
    #[error("the node was removed")]
    Removed,
    /// More machines wait for an administrator than are remembered.
    #[error("too many machines wait for approval")]
    TooManyWaiting,
    /// A reason that this version does not know.
    #[error("another reason")]
    #[serde(other)]
    Other,
}
