//! mac1, mac2 and cookies: what keeps a flood of forged handshakes cheap (paper §5.3 and §5.4.4 to §5.4.7).

use crate::Source;
use crate::message::{MAC_LEN, Macs};
use blake2::digest::consts::U16;
use blake2::digest::{Digest, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, Payload};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a cookie, and the secret it is made from, is good for: paper §5.4.7.
pub(crate) const COOKIE_LIFETIME: Duration = Duration::from_secs(120);
const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";
/// Over how long handshake messages are counted.
const LOAD_WINDOW: Duration = Duration::from_secs(1);

pub(crate) type Cookie = [u8; 16];
pub(crate) type Mac1 = [u8; MAC_LEN];

/// The two keys that follow from a receiver's public key (paper §5.4.4, §5.4.7).
#[derive(Clone)]
pub(crate) struct ReceiverKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl ReceiverKeys {
    pub(crate) fn new(public_key: &[u8; 32]) -> ReceiverKeys {
        let derive = |label: &[u8]| {
            let mut hash = Blake2s256::new();
            Digest::update(&mut hash, label);
            Digest::update(&mut hash, public_key);
            hash.finalize().into()
        };
        ReceiverKeys { mac1: derive(LABEL_MAC1), cookie: derive(LABEL_COOKIE) }
    }

    /// Ends a handshake message with mac1 and mac2; mac2 is zero without a cookie. Returns mac1, which a
    /// cookie reply to this message is bound to.
    pub(crate) fn sign(&self, message: &mut Vec<u8>, cookie: Option<&Cookie>) -> Mac1 {
        let mac1 = tag(&self.mac1, message);
        message.extend_from_slice(&mac1);
        let mac2 = cookie.map_or([0; MAC_LEN], |cookie| tag(cookie, message));
        message.extend_from_slice(&mac2);
        mac1
    }

    /// Opens the cookie that the receiver sent in answer to a message with this mac1.
    pub(crate) fn open_cookie(&self, nonce: &[u8; 24], sealed: &[u8; 32], mac1: &Mac1) -> Option<Cookie> {
        let payload = Payload { msg: sealed, aad: mac1 };
        let opened = XChaCha20Poly1305::new(&self.cookie.into()).decrypt(nonce.into(), payload);
        opened.ok()?.try_into().ok()
    }

    fn seal_cookie(&self, nonce: &[u8; 24], cookie: &Cookie, mac1: &Mac1) -> Option<[u8; 32]> {
        let payload = Payload { msg: cookie, aad: mac1 };
        let sealed = XChaCha20Poly1305::new(&self.cookie.into()).encrypt(nonce.into(), payload);
        sealed.ok()?.try_into().ok()
    }
}

/// The receiver's side: which handshake messages get as far as the expensive part.
pub(crate) struct Gate {
    keys: ReceiverKeys,
    limit: u32,
    window_start: Instant,
    counted: u32,
    /// The changing secret R of the paper, and when it was drawn.
    secret: Option<([u8; 32], Instant)>,
}

/// What the gate says about a handshake message.
pub(crate) enum Admission {
    Admitted,
    /// mac1 is wrong: the sender does not know our public key, or bytes were altered.
    BadMac1,
    /// Under load, and the sender has not proved that it receives at its address: the nonce and sealed cookie to send it.
    Challenge([u8; 24], [u8; 32]),
}

impl Gate {
    pub(crate) fn new(public_key: &[u8; 32], limit: u32, now: Instant) -> Gate {
        Gate { keys: ReceiverKeys::new(public_key), limit, window_start: now, counted: 0, secret: None }
    }

    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// `draw` gives randomness; it is only asked when a cookie is made.
    pub(crate) fn admit(
        &mut self,
        macs: &Macs<'_>,
        from: &Source,
        now: Instant,
        mut draw: impl FnMut(&mut [u8]),
    ) -> Admission {
        if !verify(&self.keys.mac1, macs.under_mac1, macs.mac1) {
            return Admission::BadMac1;
        }
        if !self.count(now) {
            return Admission::Admitted;
        }
        let cookie = self.cookie(from, now, &mut draw);
        if verify(&cookie, macs.under_mac2, macs.mac2) {
            return Admission::Admitted;
        }
        let mut nonce = [0; 24];
        draw(&mut nonce);
        match self.keys.seal_cookie(&nonce, &cookie, macs.mac1) {
            Some(sealed) => Admission::Challenge(nonce, sealed),
            None => Admission::BadMac1,
        }
    }

    /// Counts a message and says whether we are under load.
    fn count(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.window_start) >= LOAD_WINDOW {
            self.window_start = now;
            self.counted = 0;
        }
        self.counted = self.counted.saturating_add(1);
        self.counted > self.limit
    }

    fn cookie(&mut self, from: &Source, now: Instant, draw: &mut impl FnMut(&mut [u8])) -> Cookie {
        let secret = match self.secret {
            Some((secret, drawn)) if now.saturating_duration_since(drawn) < COOKIE_LIFETIME => secret,
            _ => {
                let mut secret = [0; 32];
                draw(&mut secret);
                self.secret = Some((secret, now));
                secret
            }
        };
        // The three kinds of source differ in length, so one cannot be taken for another.
        match from {
            Source::Udp(address) => tag(&secret, &address_bytes(*address)),
            Source::Relay(key) => tag(&secret, key),
        }
    }
}

/// Address and port, as the paper's §5.4.7 asks.
fn address_bytes(address: SocketAddr) -> Vec<u8> {
    let mut out = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    out.extend_from_slice(&address.port().to_be_bytes());
    out
}

fn keyed(key: &[u8], data: &[u8]) -> Blake2sMac<U16> {
    // BLAKE2s takes keys of up to 32 bytes (RFC 7693 §2.9); ours have 16 or 32.
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("a key of 16 or 32 bytes");
    Mac::update(&mut mac, data);
    mac
}

fn tag(key: &[u8], data: &[u8]) -> [u8; MAC_LEN] {
    keyed(key, data).finalize().into_bytes().into()
}

/// In constant time.
fn verify(key: &[u8], data: &[u8], expected: &[u8; MAC_LEN]) -> bool {
    keyed(key, data).verify(expected.into()).is_ok()
}
