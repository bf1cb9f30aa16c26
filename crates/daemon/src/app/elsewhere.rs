//! Other servers, as they were told: where they are and by what they are known.

use super::{Certificate, CoordinatorSpec, Failure, RelaySpec, host};
use ::peer::ServerTls;
use program::{Sibling, Upstream};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

/// The authorities of a file, if there is one.
pub(super) fn authorities(path: Option<&Path>) -> Result<Option<tls::ClientConfig>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let read = tls::ClientConfig::with_authorities(&host::file(path)?);
    Ok(Some(read.map_err(|error| format!("{}: {error}", path.display()))?))
}

/// How a certificate is checked, and the name that it is to be for.
fn trust(
    certificate: &Certificate,
    host: &str,
    authorities: Option<&tls::ClientConfig>,
) -> Result<(tls::ClientConfig, String), Failure> {
    match certificate {
        Certificate::Pin(pin) => Ok((tls::ClientConfig::pinned(tls::Pin(*pin)), host.to_owned())),
        Certificate::Host(name) => {
            let authorities =
                authorities.ok_or("a server known by its host name needs --authorities FILE")?;
            Ok((authorities.clone(), name.clone()))
        }
    }
}

/// A connection that is kept to another server.
pub(super) fn upstream(
    addresses: Vec<SocketAddr>,
    tls: Option<ServerTls>,
    rng: &mut ChaCha12Rng,
) -> Upstream {
    let clock = tls::Clock::new(host::unix_time(), Instant::now());
    Upstream { addresses, tls, clock, rng: ChaCha12Rng::from_rng(rng) }
}

/// Another relay of the region.
pub(super) fn sibling(
    relay: &RelaySpec,
    authorities: Option<&tls::ClientConfig>,
    rng: &mut ChaCha12Rng,
) -> Result<Sibling, Failure> {
    let host = relay.at.ip().to_string();
    let tls = relay.known.certificate.as_ref().map(|known| trust(known, &host, authorities)).transpose()?;
    let tls = tls.map(|(trust, name)| ServerTls { ports: vec![relay.at.port()], name, trust });
    let key = derp::PublicKey(relay.known.key);
    Ok(Sibling { name: relay.name.as_str().into(), key, at: upstream(vec![relay.at], tls, rng) })
}

/// Where the coordination server is, and which of its ports speak TLS.
pub(super) async fn resolve(
    servers: &[CoordinatorSpec],
    authorities: Option<&tls::ClientConfig>,
) -> Result<(Vec<SocketAddr>, Option<ServerTls>), Failure> {
    let (mut addresses, mut tls) = (Vec::new(), None);
    for server in servers {
        let known = server.known.certificate.as_ref();
        let trusted = known.map(|known| trust(known, server.host(), authorities)).transpose()?;
        let found = tokio::net::lookup_host(&server.at).await;
        let found = found.map_err(|error| format!("coordination server {}: {error}", server.at))?;
        for at in found {
            if let Some((trust, name)) = &trusted {
                let fresh = || ServerTls { ports: Vec::new(), name: name.clone(), trust: trust.clone() };
                let tls: &mut ServerTls = tls.get_or_insert_with(fresh);
                tls.ports.push(at.port());
            }
            addresses.push(at);
        }
    }
    Ok((addresses, tls))
}

/// The key of the coordination server, which has one whatever its addresses.
pub(super) fn key(servers: &[CoordinatorSpec]) -> Result<[u8; 32], Failure> {
    let Some(first) = servers.first() else {
        return Err("say where the coordination server is: --coord KEY@HOST:PORT (KEY is what `punchbag coord --print-key` prints)".into());
    };
    if servers.iter().any(|server| server.known.key != first.known.key) {
        return Err("all addresses given by --coord are those of one server, with one key".into());
    }
    Ok(first.known.key)
}
