//! The last map on a disk, so that a peer finds the others while the server is away.

use serde::{Deserialize, Serialize};

use crate::{MAX_FROM_SERVER, Map};

/// The version of the format.
const VERSION: u32 = 1;

/// Why a saved map cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// Not a map, or cut off.
    #[error("not a saved map, or a damaged one: {0}; delete it, the server will send a new one")]
    Damaged(String),
    /// Of another version of the program.
    #[error(
        "a saved map of version {0}, where this program knows {VERSION}; delete it, the server will send a new one"
    )]
    Version(u32),
    /// Longer than a server may send.
    #[error("a saved map of {0} bytes is too long; delete it, the server will send a new one")]
    TooLong(usize),
}

impl Map {
    /// As bytes that [`Map::from_saved`] reads.
    pub fn to_saved(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Saved<'a> {
            saved_map: u32,
            map: &'a Map,
        }
        let saved = Saved { saved_map: VERSION, map: self };
        serde_json::to_vec(&saved).expect("plain data with text as keys serializes into memory")
    }

    /// Reads what [`Map::to_saved`] wrote.
    ///
    /// # Errors
    /// Bytes that are no map, or one of another version.
    pub fn from_saved(bytes: &[u8]) -> Result<Map, SavedError> {
        #[derive(Deserialize)]
        struct Version {
            saved_map: u32,
        }
        #[derive(Deserialize)]
        struct Saved {
            map: Map,
        }
        if bytes.len() > MAX_FROM_SERVER as usize {
            return Err(SavedError::TooLong(bytes.len()));
        }
        let damaged = |error: serde_json::Error| SavedError::Damaged(error.to_string());
        let Version { saved_map } = serde_json::from_slice(bytes).map_err(damaged)?;
        if saved_map != VERSION {
            return Err(SavedError::Version(saved_map));
        }
        let Saved { mut map } = serde_json::from_slice(bytes).map_err(damaged)?;
        if let Some(access) = &map.access {
            access.check().map_err(|error| SavedError::Damaged(error.to_string()))?;
        }
        let own = map.you.id;
        map.peers.retain(|node| node.id != own);
        Ok(map)
    }
}
