//! `punchbag relay`.

use super::{Failure, Rate, RelayArgs, elsewhere, host, metrics};
use crate::{Handle, Options, TokioNet};
use coord::relay::RelayConfig;
use derp::server::{Server, ServerConfig};
use derp::{MeshKey, RateLimit};
use program::{RELAY_PORTS, RelayProgram, STUN_PORT, Secured, TLS_PORT};
use prometheus_client::registry::Registry;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;
use tokio::task::JoinSet;

pub(super) fn main(args: RelayArgs, json_logs: bool) -> Result<u8, Failure> {
    let args = args.with_file()?;
    let mut rng = host::rng()?;
    let state = host::state(args.state.clone(), "relay")?;
    let private_key = host::key(&state, "relay.key", &mut rng)?.0;
    let key = derp::PrivateKey::from_bytes(private_key);
    let tls = if args.no_tls { Vec::new() } else { vec![TLS_PORT] };
    let given = (args.certificate.as_deref(), args.certificate_key.as_deref());
    let (security, pin) = host::security(&state, &mut rng, tls, given, Some(key.public()))?;
    let pin = (!args.no_tls).then_some(pin);
    if args.print_key {
        return host::print_key(&key.public().0, pin);
    }
    host::start_logs(args.log.as_deref(), json_logs)?;
    host::block_on(async move {
        let mut net = TokioNet::new();
        let ports = host::listen(&mut net, &args.listen, &RELAY_PORTS, RELAY_PORTS[0])?;
        let stun = args.stun.unwrap_or((Ipv4Addr::UNSPECIFIED, STUN_PORT).into());
        let stun =
            net.bind_udp(Some(STUN_PORT), stun).map_err(|error| host::cannot_bind("UDP", stun, &error))?;
        tracing::info!(address = %stun, "STUN");
        tracing::info!(key = super::key::encode_hex(&key.public().0), "relay");

        let name = args.name.clone().unwrap_or_else(|| "relay".into());
        // The one place where the relay's configuration comes together.
        let now = Instant::now();
        let authorities = elsewhere::authorities(args.authorities.as_deref())?;
        let secret = args.mesh_secret.as_deref().map(secret).transpose()?;
        let admission = !args.coord.is_empty();
        let config = ServerConfig { admission, mesh_key: secret.clone(), ..config(&args)? };
        let server = Server::new(config, key.clone(), ChaCha12Rng::from_rng(&mut rng), now);
        let mut program = RelayProgram::new(name.as_str().into(), server).with_ports(ports, STUN_PORT);
        if let Some(first) = args.coord.first() {
            let (addresses, tls) = elsewhere::resolve(&args.coord, authorities.as_ref()).await?;
            let (server_key, host) = (elsewhere::key(&args.coord)?, first.at.clone());
            let asks = RelayConfig { private_key, server_key, host };
            let asks = coord::relay::Relay::new(asks, ChaCha12Rng::from_rng(&mut rng));
            program = program.with_admission(asks, elsewhere::upstream(addresses, tls, &mut rng), now);
        }
        if let Some(secret) = &secret {
            let others =
                args.mesh.iter().map(|relay| elsewhere::sibling(relay, authorities.as_ref(), &mut rng));
            program = program.with_mesh(&key, secret, others.collect::<Result<_, _>>()?, now);
        }
        let program = Secured::new(program, security, Instant::now());
        let (handle, inbox) = Handle::new(64);
        let mut tasks = JoinSet::new();
        if let Some(at) = args.metrics {
            let listener = metrics::bind(at).await?;
            tasks.spawn_local(metrics::serve(listener, async move || collect(&handle).await));
        }
        let options = Options { inbox: Some(inbox), on_event: host::log_events(), ..Options::default() };
        host::run(program, net, options).await
    })??;
    Ok(0)
}

/// What the settings say of the relay itself.
fn config(args: &RelayArgs) -> Result<ServerConfig, Failure> {
    let limit = |rate: Rate| RateLimit {
        bytes_per_second: rate.0,
        burst: args.client_burst.map_or(rate.0, |burst| burst.0),
    };
    if args.client_burst.is_some() && args.client_rate.is_none() {
        return Err("client-burst goes together with client-rate: what may be sent at once beyond it".into());
    }
    let (rate_limit, hold_at_start) = (args.client_rate.map(limit), program::RELAY_HOLD);
    Ok(ServerConfig { rate_limit, hold_at_start, ..ServerConfig::default() })
}

/// The secret of the region.
fn secret(path: &Path) -> Result<MeshKey, Failure> {
    let text = String::from_utf8(host::file(path)?).map_err(|_| format!("{} is no text", path.display()))?;
    MeshKey::new(text.trim()).ok_or_else(|| format!("{} is empty", path.display()).into())
}

async fn collect(handle: &Handle<Secured<RelayProgram>>) -> Option<Registry> {
    let connections = handle.call(|secured, _| secured.program().server().connections()).await.ok()?;
    let mut registry = Registry::with_prefix("punchbag_relay");
    metrics::gauge(&mut registry, "connections", "Connections, handshakes included", connections);
    Some(registry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use derp::client::{Client, ClientConfig, ClientEvent};
    use derp::{ConnId, PrivateKey, ServerTransmit};

    #[test]
    fn the_rate_of_a_file_reaches_the_clients() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        std::fs::write(&path, "client-rate = \"16Mbit/s\"\nclient-burst = \"1MB\"\n").unwrap();
        let args = RelayArgs { config: Some(path), ..RelayArgs::default() }.with_file().unwrap();
        let (now, conn) = (Instant::now(), ConnId(1));
        let rng = ChaCha12Rng::seed_from_u64;
        let mut server = Server::new(config(&args).unwrap(), PrivateKey::from_bytes([1; 32]), rng(1), now);
        let mut client =
            Client::new(ClientConfig::new(PrivateKey::from_bytes([2; 32]), "relay"), rng(2), now);
        server.accepted(conn, ([192, 0, 2, 1], 1).into(), now);
        server.writable(conn, 1 << 16, now);
        client.connected(now);
        for _ in 0..4 {
            while let Some(data) = client.poll_transmit(1 << 16) {
                server.handle_stream(conn, &data, now);
            }
            while let Some(ServerTransmit::Write { data, .. }) = server.poll_transmit() {
                client.handle_stream(&data, now).unwrap();
            }
        }
        let told = std::iter::from_fn(|| client.poll_event()).find_map(|event| match event {
            ClientEvent::Ready { rate_limit, .. } => rate_limit,
            _ => None,
        });
        assert_eq!(told, Some(RateLimit { bytes_per_second: 2_000_000, burst: 1_000_000 }));
    }

    #[test]
    fn a_burst_without_a_rate_is_refused() {
        let args = RelayArgs { client_burst: Some("1MB".parse().unwrap()), ..RelayArgs::default() };
        assert!(config(&args).unwrap_err().to_string().contains("client-rate"));
        let args = RelayArgs { client_rate: Some("2MB/s".parse().unwrap()), ..RelayArgs::default() };
        let limit = RateLimit { bytes_per_second: 2_000_000, burst: 2_000_000 };
        assert_eq!(config(&args).unwrap().rate_limit, Some(limit));
    }
}
