//! What `rustls` asks its surroundings for: the time, random bytes, and a key exchange.
//!
//! `rustls` takes these as `'static` objects, without a word for whose connection they are. So the objects here look at what
//! the connection that is being driven has put down for them, in this thread and for the time of the call.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rustls::NamedGroup;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use x25519_dalek::{PublicKey, StaticSecret};

/// What time it is in the world, from an [`Instant`]: certificates have dates.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    at: Instant,
    unix: Duration,
}

impl Clock {
    /// A clock that shows `unix`, the time since 1970, at `at`.
    pub fn new(unix: Duration, at: Instant) -> Clock {
        Clock { at, unix }
    }

    /// The Unix time at `now`.
    pub fn unix(&self, now: Instant) -> Duration {
        let before = self.at.saturating_duration_since(now);
        (self.unix + now.saturating_duration_since(self.at)).saturating_sub(before)
    }
}

/// What the connection that is being driven has put down.
struct Surroundings {
    rng: ChaCha12Rng,
    unix: Duration,
}

thread_local! {
    static CURRENT: RefCell<Option<Surroundings>> = const { RefCell::new(None) };
}

/// Runs `act` with this generator and this time.
pub(crate) fn with<T>(rng: &mut ChaCha12Rng, unix: Duration, act: impl FnOnce() -> T) -> T {
    /// Takes the generator back, whatever happens in between.
    struct Back<'a>(&'a mut ChaCha12Rng);
    impl Drop for Back<'_> {
        fn drop(&mut self) {
            if let Some(mine) = CURRENT.take() {
                *self.0 = mine.rng;
            }
        }
    }
    CURRENT.set(Some(Surroundings { rng: rng.clone(), unix }));
    let _back = Back(rng);
    act()
}

fn fill(bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
    CURRENT.with_borrow_mut(|current| {
        current.as_mut().map(|mine| mine.rng.fill_bytes(bytes)).ok_or(GetRandomFailed)
    })
}

#[derive(Debug)]
struct Injected;

impl SecureRandom for Injected {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(bytes)
    }
}

impl TimeProvider for Injected {
    fn current_time(&self) -> Option<UnixTime> {
        CURRENT.with_borrow(|current| Some(UnixTime::since_unix_epoch(current.as_ref()?.unix)))
    }
}

#[derive(Debug)]
struct X25519;

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        let mut secret = [0; 32];
        fill(&mut secret)?;
        let secret = StaticSecret::from(secret);
        Ok(Box::new(Exchange { public: PublicKey::from(&secret), secret }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let invalid = || rustls::Error::from(rustls::PeerMisbehaved::InvalidKeyShare);
        let peer: [u8; 32] = peer.try_into().map_err(|_| invalid())?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        // RFC 8446 §7.4.2: an all-zero result must be refused.
        if !shared.was_contributory() {
            return Err(invalid());
        }
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// One for all connections: it holds nothing of any of them.
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let ring = rustls::crypto::ring::default_provider();
    Arc::new(CryptoProvider { kx_groups: vec![&X25519], secure_random: &Injected, ..ring })
});

pub(crate) fn time() -> Arc<dyn TimeProvider> {
    Arc::new(Injected)
}
