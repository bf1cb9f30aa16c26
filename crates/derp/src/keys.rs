//! Curve25519 keys that name the two ends of a relay connection, and the box between them.

use crypto_box::{
    SalsaBox, SecretKey,
    aead::{Aead, generic_array::GenericArray},
};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use std::fmt;

/// Bytes of a nonce of the NaCl box (XSalsa20-Poly1305).
pub const NONCE_LEN: usize = 24;

/// A Curve25519 public key: how clients and servers are named on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// 64 lower-case hexadecimal digits, as in the `Derp-Public-Key` header.
    pub fn to_hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut s, b| {
            let _ = write!(s, "{b:02x}"); // writing to a String cannot fail
            s
        })
    }

    /// The all-zero key names nobody: everybody knows the secret it shares with anyone.
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == [0; 32]
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}…)", &self.to_hex()[..10])
    }
}

/// A Curve25519 private key. Never printed; wiped when dropped.
#[derive(Clone)]
pub struct PrivateKey(SecretKey);

impl PrivateKey {
    /// Takes the 32 bytes as they are; clamping happens when the key is used.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SecretKey::from_bytes(bytes))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.public_key().as_bytes())
    }

    /// The box shared with `other`. Costs one Curve25519 multiplication.
    pub(crate) fn shared(&self, other: &PublicKey) -> SalsaBox {
        SalsaBox::new(&crypto_box::PublicKey::from_bytes(other.0), &self.0)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// Seals `plain` under a fresh nonce. `None` only if `plain` exceeds the cipher's limit, far beyond any message here.
pub(crate) fn seal(
    shared: &SalsaBox,
    plain: &[u8],
    rng: &mut ChaCha12Rng,
) -> Option<([u8; NONCE_LEN], Vec<u8>)> {
    let mut nonce = [0; NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    let sealed = shared.encrypt(GenericArray::from_slice(&nonce), plain).ok()?;
    Some((nonce, sealed))
}

/// The secret by which the relays of one region know each other. It does not print itself.
#[derive(Clone)]
pub struct MeshKey(String);

impl MeshKey {
    /// From text; Tailscale's relays use 64 hexadecimal digits (tailscale `cmd/derper/derper.go`, `-mesh-psk-file`). `None`
    /// if it is empty: that would be everybody's.
    pub fn new(secret: impl Into<String>) -> Option<Self> {
        Some(Self(secret.into())).filter(|key| !key.0.is_empty())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Compares without telling by its duration where the difference is.
    pub(crate) fn is(&self, shown: &str) -> bool {
        let differences =
            self.0.bytes().zip(shown.bytes()).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        self.0.len() == shown.len() && differences == 0
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey(..)")
    }
}

/// Opens what [`seal`] made; `None` if it was not sealed by the other key of `shared`.
pub(crate) fn open(shared: &SalsaBox, nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
    shared.decrypt(GenericArray::from_slice(nonce), sealed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn a_box_opens_only_for_the_other_end() {
        let (a, b, c) = (
            PrivateKey::from_bytes([1; 32]),
            PrivateKey::from_bytes([2; 32]),
            PrivateKey::from_bytes([3; 32]),
        );
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (nonce, sealed) = seal(&a.shared(&b.public()), b"hello", &mut rng).unwrap();
        assert_eq!(open(&b.shared(&a.public()), &nonce, &sealed).as_deref(), Some(&b"hello"[..]));
        assert_eq!(open(&c.shared(&a.public()), &nonce, &sealed), None);
    }

    #[test]
    fn a_private_key_does_not_print_itself() {
        let key = PrivateKey::from_bytes([0xab; 32]);
        assert!(!format!("{key:?}").contains("ab"));
    }
}
