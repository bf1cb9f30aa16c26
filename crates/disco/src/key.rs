//! Curve25519 keys.

use std::fmt;

use crypto_box::SalsaBox;

/// A disco public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    /// The first four bytes in hexadecimal: enough to tell keys apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("disco:")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A disco private key. Tailscale makes a new one at every start of the process.
#[derive(Clone)]
pub struct PrivateKey(crypto_box::SecretKey);

impl PrivateKey {
    /// The key with these bytes, clamped as Curve25519 wants it whenever it is used (RFC 7748 §5).
    pub fn from_bytes(bytes: [u8; 32]) -> PrivateKey {
        PrivateKey(crypto_box::SecretKey::from_bytes(bytes))
    }

    /// The public key. Costs a scalar multiplication.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("disco::PrivateKey(..)")
    }
}

/// The precomputed box of two peers; the same from either side.
pub struct SharedKey(pub(crate) SalsaBox);

impl SharedKey {
    /// Costs a scalar multiplication, about a hundred times the price of a message: keep it per peer.
    pub fn new(mine: &PrivateKey, theirs: &PublicKey) -> SharedKey {
        SharedKey(SalsaBox::new(&crypto_box::PublicKey::from_bytes(theirs.0), &mine.0))
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("disco::SharedKey(..)")
    }
}
