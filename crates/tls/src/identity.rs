//! Certificates and their keys.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519, SerialNumber};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::Error;

/// What precedes the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410 §10.3).
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// By what a server is known: the SHA-256 of its public key (SubjectPublicKeyInfo, RFC 7469 §2.4) or of its certificate.
/// Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    fn of(bytes: &[u8]) -> Pin {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Pin(hash)
    }

    /// Whether this is the pin of a certificate or of its key.
    pub(crate) fn matches(self, certificate: &CertificateDer<'_>, key: &[u8]) -> bool {
        self == Pin::of(key) || self == Pin::of(certificate)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl FromStr for Pin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pin, Error> {
        let wrong = || Error::File { what: "a pin", why: "it has 64 hexadecimal digits".into() };
        let mut pin = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        for (byte, at) in pin.iter_mut().zip((0..).step_by(2)) {
            let pair = text.get(at..at + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Pin(pin))
    }
}

/// A server's certificate, those of its authorities, and its private key.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pem: Option<(String, String)>,
    pin: Pin,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("pin", &self.pin).finish_non_exhaustive()
    }
}

fn unusable(what: &'static str) -> impl FnOnce(String) -> Error {
    move |why| Error::File { what, why }
}

impl Identity {
    /// A certificate that vouches for itself, with the Ed25519 key of `seed`: the same arguments give the same bytes.
    /// `names` are host names and IP addresses; the dates are Unix times.
    ///
    /// # Errors
    /// A name that is none, or a date beyond the year 9999.
    pub fn self_signed(
        seed: [u8; 32],
        names: &[&str],
        from: Duration,
        until: Duration,
    ) -> Result<Identity, Error> {
        let key = ed25519(seed)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let bad = |error: rcgen::Error| unusable("a certificate's names")(error.to_string());
        let common = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).map_err(bad)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = date(from)?;
        params.not_after = date(until)?;
        let certificate =
            params.self_signed(&key).map_err(|error| unusable("a certificate")(error.to_string()))?;
        let chain = vec![certificate.der().clone()];
        let pem = Some((certificate.pem(), key.serialize_pem()));
        Identity::new(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into(), pem)
    }

    /// A certificate, its authorities' after it, and its private key (PKCS #8, PKCS #1 or SEC 1), as PEM.
    ///
    /// # Errors
    /// Without a certificate or a key in them.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, Error> {
        let what = "the certificate file";
        let chain = certificates(chain, what)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| unusable("the private key file")(error.to_string()))?;
        Identity::new(chain, key, None)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        pem: Option<(String, String)>,
    ) -> Result<Identity, Error> {
        let first =
            chain.first().ok_or_else(|| unusable("the certificate file")("it is empty".to_owned()))?;
        let parsed = webpki::EndEntityCert::try_from(first)
            .map_err(|error| unusable("the certificate file")(error.to_string()))?;
        let pin = Pin::of(&parsed.subject_public_key_info());
        Ok(Identity { chain, key, pem, pin })
    }

    /// What clients know this server by: the pin of its key, which outlives a renewal of the certificate.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Certificate and private key as PEM, if this was made here: for [`from_pem`](Self::from_pem) at the next start.
    pub fn to_pem(&self) -> Option<(&str, &str)> {
        self.pem.as_ref().map(|(chain, key)| (chain.as_str(), key.as_str()))
    }

    /// Appends a certificate that says by its name which key a DERP relay has and by its number which version it speaks: from
    /// that Tailscale's client learns that it need not wait for either (`derp.metacert`, tailscale
    /// `derp/derpserver/derpserver.go`, `initMetacert`). `hex` is the relay's public key, in hexadecimal digits.
    ///
    /// # Errors
    /// If `hex` is no name, or a date beyond the year 9999.
    pub fn with_derp_key(
        mut self,
        seed: [u8; 32],
        hex: &str,
        version: u8,
        from: Duration,
        until: Duration,
    ) -> Result<Identity, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("derpkey{hex}"));
        params.serial_number = Some(SerialNumber::from(vec![version]));
        params.not_before = date(from)?;
        params.not_after = date(until)?;
        let meta = params
            .self_signed(&ed25519(seed)?)
            .map_err(|error| unusable("a relay's key")(error.to_string()))?;
        self.chain.push(meta.der().clone());
        Ok(self)
    }
}

/// The certificates of a PEM file; at least one.
pub(crate) fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| unusable(what)(error.to_string()))?;
    if all.is_empty() {
        return Err(unusable(what)("it holds no certificate".to_owned()));
    }
    Ok(all)
}

fn ed25519(seed: [u8; 32]) -> Result<KeyPair, Error> {
    let mut der = ED25519_PKCS8.to_vec();
    der.extend(seed);
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
        .map_err(|error| unusable("an Ed25519 key")(error.to_string()))
}

fn date(unix: Duration) -> Result<OffsetDateTime, Error> {
    let seconds = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|error| unusable("a certificate's dates")(error.to_string()))
}
