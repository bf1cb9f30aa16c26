//! The envelope: magic, sender, nonce, box.

use crypto_box::aead::AeadInPlace as _;

use crate::{Message, PublicKey, SharedKey};

/// "TS" and the speech balloon U+1F4AC in UTF-8 (`disco/disco.go`, `Magic`).
pub const MAGIC: [u8; 6] = *b"TS\xF0\x9F\x92\xAC";
const KEY_END: usize = MAGIC.len() + 32;
const NONCE_END: usize = KEY_END + 24;
const TAG_END: usize = NONCE_END + 16;
/// The shortest envelope: an empty message still has its type and version.
pub const MIN_LEN: usize = TAG_END + 2;
/// The longest plaintext that is sealed, in bytes: what a UDP datagram over IPv4 can carry less the envelope.
pub const MAX_PLAINTEXT: usize = 65_507 - TAG_END;
/// A ping with node key and without padding, in bytes.
pub const PING_LEN: usize = MIN_LEN + 12 + 32;

/// Why a datagram is no message from that sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No magic, or too short.
    #[error("not a disco message")]
    NotDisco,
    /// Sealed with another key, or altered.
    #[error("the box does not open")]
    Sealed,
    /// A message type that `disco/disco.go` did not have when this was written.
    #[error("unknown message type {0:#04x}")]
    Type(u8),
    /// A version whose layout is not known.
    #[error("message type {kind:#04x} in unknown version {version}")]
    Version {
        /// The message's type.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// The payload has no room for its fields, or no whole number of addresses.
    #[error("message type {0:#04x} has the wrong length")]
    Length(u8),
}

/// Whether a datagram is disco rather than WireGuard: it starts with the magic and has room for a key.
pub fn looks_like_disco(datagram: &[u8]) -> bool {
    source(datagram).is_some()
}

/// The disco key in the header. Anyone can write any key there: it is proved by [`open`].
pub fn source(datagram: &[u8]) -> Option<PublicKey> {
    let key = datagram.strip_prefix(&MAGIC)?.first_chunk()?;
    Some(PublicKey(*key))
}

/// Seals a message from `me`. `nonce` must be new for this pair of keys. Padding and endpoint lists beyond
/// [`MAX_PLAINTEXT`] are cut, so that the result always fits a datagram.
pub fn seal(message: &Message, me: &PublicKey, shared: &SharedKey, nonce: [u8; 24]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PING_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&me.0);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&[0; TAG_END - NONCE_END]);
    message.encode(&mut out);
    let (head, body) = out.split_at_mut(TAG_END);
    let tag = shared
        .0
        .encrypt_in_place_detached(&nonce.into(), b"", body)
        .expect("a NaCl box takes any length and no associated data");
    head[NONCE_END..].copy_from_slice(&tag);
    out
}

/// Opens a message from the sender whose key made `shared`. Bytes after the last field are ignored.
///
/// # Errors
/// See [`OpenError`]; nothing of the content is looked at before the box is verified.
pub fn open(datagram: &[u8], shared: &SharedKey) -> Result<Message, OpenError> {
    if datagram.len() < MIN_LEN || !looks_like_disco(datagram) {
        return Err(OpenError::NotDisco);
    }
    let (head, body) = datagram.split_at(TAG_END);
    let nonce: [u8; 24] = head[KEY_END..NONCE_END].try_into().map_err(|_| OpenError::NotDisco)?;
    let tag: [u8; 16] = head[NONCE_END..].try_into().map_err(|_| OpenError::NotDisco)?;
    let mut plain = body.to_vec();
    shared
        .0
        .decrypt_in_place_detached(&nonce.into(), b"", &mut plain, &tag.into())
        .map_err(|_| OpenError::Sealed)?;
    Message::decode(&plain)
}
