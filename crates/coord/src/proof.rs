//! Proof that a machine has the private half of a key that it registers.
//!
//! Without it a machine could register the public key of another that has not come yet, and keep it out of the network, or
//! have its traffic at a relay charged to it. The server is the only one who is to be convinced, so no signature is needed: both
//! sides know the Diffie-Hellman secret of that key and the server's, and the client shows a keyed hash of this very stream
//! under it.

use std::fmt;

use blake2::Blake2sMac256;
use blake2::digest::Mac as _;
use x25519_dalek::{PublicKey, StaticSecret};

/// Both halves of a Curve25519 key of this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPair {
    /// What others are told.
    pub public: [u8; 32],
    /// What shows that it is ours.
    pub private: [u8; 32],
}

impl KeyPair {
    /// The key of this private half.
    pub fn new(private: [u8; 32]) -> KeyPair {
        KeyPair { public: crate::public_key(&private), private }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// What a key is for: a proof for one use is none for another.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    Node,
    Disco,
}

impl Use {
    fn label(self) -> &'static [u8] {
        match self {
            Use::Node => b"punchbag-coord/1 node key",
            Use::Disco => b"punchbag-coord/1 disco key",
        }
    }
}

/// The client's side: `public` is said to belong to `private`.
pub(crate) fn prove(keys: &KeyPair, server: &[u8; 32], of: Use, transcript: &[u8; 32]) -> [u8; 32] {
    mac(&keys.private, server, &keys.public, of, transcript)
        .map_or([0; 32], |mac| mac.finalize().into_bytes().into())
}

/// The server's side: whether whoever is at the other end of this stream has the private half of `public`.
pub(crate) fn holds(
    public: &[u8; 32],
    server_private: &[u8; 32],
    of: Use,
    transcript: &[u8; 32],
    proof: &[u8; 32],
) -> bool {
    mac(server_private, public, public, of, transcript).is_some_and(|mac| mac.verify_slice(proof).is_ok())
}

/// `None` for a key of low order, whose secret everybody knows (RFC 7748 §6.1).
fn mac(
    private: &[u8; 32],
    other: &[u8; 32],
    proven: &[u8; 32],
    of: Use,
    transcript: &[u8; 32],
) -> Option<Blake2sMac256> {
    let shared = StaticSecret::from(*private).diffie_hellman(&PublicKey::from(*other));
    if !shared.was_contributory() {
        return None;
    }
    let mut mac = <Blake2sMac256 as blake2::digest::Mac>::new_from_slice(shared.as_bytes()).ok()?;
    mac.update(of.label());
    mac.update(transcript);
    mac.update(proven);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: [u8; 32] = [5; 32];
    const STREAM: [u8; 32] = [9; 32];

    fn proof(keys: &KeyPair) -> [u8; 32] {
        prove(keys, &crate::public_key(&SERVER), Use::Node, &STREAM)
    }

    #[test]
    fn a_key_is_proven_on_one_stream_for_one_use_to_one_server() {
        let keys = KeyPair::new([7; 32]);
        let proof = proof(&keys);
        assert!(holds(&keys.public, &SERVER, Use::Node, &STREAM, &proof));
        assert!(!holds(&keys.public, &SERVER, Use::Node, &[8; 32], &proof));
        assert!(!holds(&keys.public, &SERVER, Use::Disco, &STREAM, &proof));
        assert!(!holds(&keys.public, &[6; 32], Use::Node, &STREAM, &proof));
    }

    #[test]
    fn the_key_of_another_is_not_proven() {
        let theirs = crate::public_key(&[8; 32]);
        let claimed = KeyPair { public: theirs, private: [7; 32] };
        assert!(!holds(&theirs, &SERVER, Use::Node, &STREAM, &proof(&claimed)));
    }

    #[test]
    fn a_key_of_low_order_belongs_to_nobody() {
        let claimed = KeyPair { public: [0; 32], private: [7; 32] };
        assert!(!holds(&[0; 32], &SERVER, Use::Node, &STREAM, &proof(&claimed)));
        assert!(!holds(&[0; 32], &SERVER, Use::Node, &STREAM, &[0; 32]));
    }
}
