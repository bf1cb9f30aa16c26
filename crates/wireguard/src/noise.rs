//! The handshake itself: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` (paper §5.4), by `snow`.
//!
//! snow is given its primitives here, so that the only randomness in a handshake is the ephemeral key
//! that the caller drew, and so that a Diffie-Hellman result of zero is refused (RFC 7748 §6.1).

use crate::message::{NOISE_INITIATION_LEN, NOISE_RESPONSE_LEN};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, StatelessTransportState};
use x25519_dalek::{PublicKey, StaticSecret};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// The paper's IDENTIFIER, §5.4.
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// `psk2`: the preshared key is mixed into the second message.
const PSK_PLACE: u8 = 2;

/// A TAI64N label: 8 bytes of seconds, 4 of nanoseconds, big-endian, so labels compare as bytes.
pub(crate) type Timestamp = [u8; 12];

/// Our own key pair; the public half is computed once.
#[derive(Clone)]
pub(crate) struct Identity {
    private: [u8; 32],
    pub(crate) public: [u8; 32],
}

impl Identity {
    pub(crate) fn new(private: [u8; 32]) -> Identity {
        Identity { private, public: public_key(&private) }
    }

    fn builder<'a>(&'a self, ephemeral: [u8; 32]) -> Result<Builder<'a>, snow::Error> {
        let primitives = Primitives { identity: self.clone(), ephemeral };
        Builder::with_resolver(PATTERN.parse()?, Box::new(primitives))
            .prologue(PROLOGUE)?
            .local_private_key(&self.private)
    }
}

/// The Curve25519 public key of a private key.
#[must_use]
pub fn public_key(private_key: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*private_key)).to_bytes()
}

/// Writes the first message. The state waits for the second.
pub(crate) fn initiate(
    identity: &Identity,
    peer: &[u8; 32],
    preshared_key: &[u8; 32],
    ephemeral: [u8; 32],
    timestamp: &Timestamp,
) -> Result<(HandshakeState, [u8; NOISE_INITIATION_LEN]), snow::Error> {
    let mut state = identity
        .builder(ephemeral)?
        .remote_public_key(peer)?
        .psk(PSK_PLACE, preshared_key)?
        .build_initiator()?;
    let mut message = [0; NOISE_INITIATION_LEN];
    state.write_message(timestamp, &mut message)?;
    Ok((state, message))
}

/// A first message that was read: it names its sender and proves that the sender made it.
pub(crate) struct Initiation {
    state: HandshakeState,
    pub(crate) initiator: [u8; 32],
    pub(crate) timestamp: Timestamp,
}

impl Initiation {
    pub(crate) fn read(
        identity: &Identity,
        ephemeral: [u8; 32],
        message: &[u8],
    ) -> Result<Initiation, snow::Error> {
        let mut state = identity.builder(ephemeral)?.build_responder()?;
        let mut timestamp = [0; 12];
        state.read_message(message, &mut timestamp)?;
        let initiator =
            state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(snow::Error::Input)?;
        Ok(Initiation { state, initiator, timestamp })
    }

    /// Writes the second message and derives the transport keys.
    pub(crate) fn respond(
        mut self,
        preshared_key: &[u8; 32],
    ) -> Result<(StatelessTransportState, [u8; NOISE_RESPONSE_LEN]), snow::Error> {
        self.state.set_psk(usize::from(PSK_PLACE), preshared_key)?;
        let mut message = [0; NOISE_RESPONSE_LEN];
        self.state.write_message(&[], &mut message)?;
        Ok((self.state.into_stateless_transport_mode()?, message))
    }
}

struct Primitives {
    identity: Identity,
    ephemeral: [u8; 32],
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(Some(self.ephemeral))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| {
            Box::new(X25519 { identity: self.identity.clone(), private: [0; 32], public: [0; 32] })
                as Box<dyn Dh>
        })
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

/// The ephemeral key as a random source with exactly one draw in it.
struct OneDraw(Option<[u8; 32]>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(bytes) if bytes.len() == dest.len() => {
                dest.copy_from_slice(&bytes);
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

struct X25519 {
    identity: Identity,
    private: [u8; 32],
    public: [u8; 32],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, private: &[u8]) {
        self.private.copy_from_slice(private);
        // Every handshake sets the static key; its public half is known.
        self.public = if self.private == self.identity.private {
            self.identity.public
        } else {
            public_key(&self.private)
        };
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        random.try_fill_bytes(&mut self.private)?;
        self.public = public_key(&self.private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // snow's buffers are as long as its longest curve needs.
        let public: [u8; 32] = *public.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = StaticSecret::from(self.private).diffie_hellman(&PublicKey::from(public));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_derive_the_same_keys() {
        let (a, b) = (Identity::new([1; 32]), Identity::new([2; 32]));
        let psk = [3; 32];
        let (mut first, message) = initiate(&a, &b.public, &psk, [4; 32], &[5; 12]).unwrap();
        let initiation = Initiation::read(&b, [6; 32], &message).unwrap();
        assert_eq!(initiation.initiator, a.public);
        assert_eq!(initiation.timestamp, [5; 12]);
        let (ours, message) = initiation.respond(&psk).unwrap();
        first.read_message(&message, &mut []).unwrap();
        let theirs = first.into_stateless_transport_mode().unwrap();
        let mut sealed = [0; 20];
        theirs.write_message(9, b"ping", &mut sealed).unwrap();
        let mut opened = [0; 20];
        assert_eq!(ours.read_message(9, &sealed, &mut opened).unwrap(), 4);
        assert_eq!(&opened[..4], b"ping");
    }

    #[test]
    fn a_key_of_low_order_is_refused() {
        let a = Identity::new([1; 32]);
        assert!(initiate(&a, &[0; 32], &[0; 32], [4; 32], &[5; 12]).is_err());
    }

    #[test]
    fn an_altered_first_message_is_refused() {
        let (a, b) = (Identity::new([1; 32]), Identity::new([2; 32]));
        let (_, message) = initiate(&a, &b.public, &[0; 32], [4; 32], &[5; 12]).unwrap();
        for at in 0..message.len() {
            let mut altered = message;
            altered[at] ^= 1;
            assert!(Initiation::read(&b, [6; 32], &altered).is_err(), "byte {at}");
        }
    }
}
