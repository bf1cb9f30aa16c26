//! What connections of one kind share.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme, version::TLS13};
use webpki::{EndEntityCert, KeyUsage};

use crate::Error;
use crate::identity::{Identity, Pin, certificates};
use crate::provider::{PROVIDER, time};

/// How clients know their server. Cheap to clone: make one for all connections.
#[derive(Clone, Debug)]
pub struct ClientConfig(pub(crate) Arc<rustls::ClientConfig>);

impl ClientConfig {
    /// Takes the server with this pin and no other, whatever it is called.
    pub fn pinned(pin: Pin) -> ClientConfig {
        ClientConfig::with(Arc::new(Pinned { pin, provider: Arc::clone(&PROVIDER) }))
    }

    /// Takes servers that these authorities vouch for, under the name that is asked for. `pem` holds their certificates.
    ///
    /// # Errors
    /// Without a usable certificate in `pem`.
    pub fn with_authorities(pem: &[u8]) -> Result<ClientConfig, Error> {
        let what = "the file of certificate authorities";
        let why = |error: String| Error::File { what, why: error };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem, what)? {
            roots.add(certificate).map_err(|error| why(error.to_string()))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
        Ok(ClientConfig::with(verifier.build().map_err(|error| why(error.to_string()))?))
    }

    fn with(verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
        let mut config = rustls::ClientConfig::builder_with_details(Arc::clone(&PROVIDER), time())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        ClientConfig(Arc::new(config))
    }

    /// The same with these names for what is spoken inside (ALPN, RFC 7301), the preferred first.
    #[must_use]
    pub fn with_alpn(&self, names: &[&str]) -> ClientConfig {
        let mut config = (*self.0).clone();
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        ClientConfig(Arc::new(config))
    }
}

/// How a server shows who it is. Cheap to clone: make one for all connections.
#[derive(Clone, Debug)]
pub struct ServerConfig(pub(crate) Arc<rustls::ServerConfig>);

impl ServerConfig {
    /// Shows this certificate to all.
    ///
    /// # Errors
    /// If key and certificate do not belong together.
    pub fn new(identity: &Identity) -> Result<ServerConfig, Error> {
        let mut config = rustls::ServerConfig::builder_with_details(Arc::clone(&PROVIDER), time())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| Error::File { what: "certificate and key", why: error.to_string() })?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(ServerConfig(Arc::new(config)))
    }

    /// The same with these names for what is spoken inside (ALPN, RFC 7301), the preferred first. A client that offers only
    /// others is refused.
    #[must_use]
    pub fn with_alpn(&self, names: &[&str]) -> ServerConfig {
        let mut config = (*self.0).clone();
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        ServerConfig(Arc::new(config))
    }
}

/// Knows one server by its key or certificate.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let bad = |error: CertificateError| Err(rustls::Error::InvalidCertificate(error));
        let Ok(parsed) = EndEntityCert::try_from(certificate) else {
            return bad(CertificateError::BadEncoding);
        };
        if !self.pin.matches(certificate, &parsed.subject_public_key_info()) {
            return bad(CertificateError::ApplicationVerificationFailure);
        }
        // Without any authority the search for one must fail, but before it starts the dates are looked at.
        let algorithms = self.provider.signature_verification_algorithms.all;
        let usage = KeyUsage::server_auth();
        match parsed.verify_for_usage(algorithms, &[], &[], now, usage, None, None) {
            Err(webpki::Error::CertExpired { .. }) => bad(CertificateError::Expired),
            Err(webpki::Error::CertNotValidYet { .. }) => bad(CertificateError::NotValidYet),
            Err(webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity) => {
                Ok(ServerCertVerified::assertion())
            }
            Err(webpki::Error::RequiredEkuNotFoundContext(_)) => bad(CertificateError::InvalidPurpose),
            Ok(_) | Err(_) => bad(CertificateError::BadEncoding),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
