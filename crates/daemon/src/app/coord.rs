//! `punchbag coord`.

use super::stored::{StoredCoordinator, write_all};
use super::{Certificate, CoordArgs, Failure, RelaySpec, admin, host, metrics};
use crate::{Handle, Options, TokioNet};
use coord::server::{Admission, Server, ServerConfig};
use coord::{Access, RelayInfo, RelayTls};
use coord_store::Store;
use program::{COORDINATOR_PORTS, CoordinatorProgram, Secured, TLS_PORT};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::task::JoinSet;

pub(super) fn main(args: CoordArgs, json_logs: bool) -> Result<u8, Failure> {
    let args = args.with_file()?;
    let mut rng = host::rng()?;
    let state = host::state(args.state.clone(), "coord")?;
    let key = host::key(&state, "coord.key", &mut rng)?.0;
    let public = coord::public_key(&key);
    let tls = if args.no_tls { Vec::new() } else { vec![TLS_PORT] };
    let given = (args.certificate.as_deref(), args.certificate_key.as_deref());
    let (security, pin) = host::security(&state, &mut rng, tls, given, None)?;
    let pin = (!args.no_tls).then_some(pin);
    if args.print_key {
        return host::print_key(&public, pin);
    }
    host::start_logs(args.log.as_deref(), json_logs)?;
    host::block_on(async {
        let mut net = TokioNet::new();
        let ports = host::listen(&mut net, &args.listen, &COORDINATOR_PORTS, COORDINATOR_PORTS[0])?;
        tracing::info!(key = super::key::encode_hex(&public), "coordination server");

        // The one place where the server's configuration comes together.
        let relays =
            (1..).zip(&args.relay).map(|(n, relay)| info(region(n, relay, &args.relay), relay)).collect();
        let admission = if args.closed { Admission::Approved } else { Admission::Anyone };
        let access: Option<Access> = args.access.as_deref().map(admin::read).transpose()?;
        if let (Some(access), Some(file)) = (&access, &args.access) {
            access.check().map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let config = ServerConfig {
            access,
            admission,
            key_lifetime: args.key_lifetime.map(|lifetime| lifetime.0),
            renewable: !args.no_renewal,
            admins: args.admin.iter().map(|admin| admin.0).collect(),
            epoch: host::unix_time(),
            ..ServerConfig::new(key, relays)
        };
        let (store, records) = Store::open(&state.join("coord.redb"))?;
        let server = Server::load(config, records, rng, Instant::now());
        let program = CoordinatorProgram::new("coord".into(), server, None).with_ports(ports);
        let (program, writes) = StoredCoordinator::new(program);
        let program = Secured::new(program, security, Instant::now());
        let (handle, inbox) = Handle::new(64);
        let mut tasks = JoinSet::new();
        tasks.spawn_local(write_all(store, writes, handle.clone()));
        if let Some(at) = args.metrics {
            let listener = metrics::bind(at).await?;
            tasks.spawn_local(metrics::serve(listener, async move || collect(&handle).await));
        }
        let options = Options { inbox: Some(inbox), on_event: host::log_events(), ..Options::default() };
        host::run(program, net, options).await
    })??;
    Ok(0)
}

/// The number of a relay's region: that of the first relay in it.
fn region(n: u16, relay: &RelaySpec, all: &[RelaySpec]) -> u16 {
    let word = |relay: &RelaySpec| relay.name.split_once('/').map(|(region, _)| region.to_owned());
    let same = |(_, other): &(u16, &RelaySpec)| word(relay).is_some() && word(other) == word(relay);
    (1..).zip(all).find(same).map_or(n, |(first, _)| first)
}

fn info(region: u16, relay: &RelaySpec) -> RelayInfo {
    let ports = vec![relay.at.port()];
    let tls = relay.known.certificate.clone().map(|certificate| match certificate {
        Certificate::Pin(pin) => RelayTls { ports: ports.clone(), pin: Some(pin), name: String::new() },
        Certificate::Host(name) => RelayTls { ports: ports.clone(), pin: None, name },
    });
    RelayInfo {
        region,
        name: relay.name.clone(),
        key: relay.known.key,
        addr: relay.at.ip(),
        addr6: None,
        derp_ports: ports,
        tls,
        stun: vec![SocketAddr::new(relay.at.ip(), relay.stun)],
    }
}

async fn collect(handle: &Handle<Secured<StoredCoordinator>>) -> Option<Registry> {
    let count = |secured: &mut Secured<StoredCoordinator>, _| {
        let nodes = secured.program().program.server().nodes();
        nodes.fold((0, 0), |(all, online), node| (all + 1, online + usize::from(node.online)))
    };
    let (nodes, online) = handle.call(count).await.ok()?;
    let mut registry = Registry::with_prefix("punchbag_coord");
    metrics::gauge(&mut registry, "nodes", "Machines that have registered", nodes);
    metrics::gauge(&mut registry, "online", "Machines that are connected", online);
    Some(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_of_one_region_have_its_number() {
        let key = "ab".repeat(32);
        let relays = ["us", "eu/ams", "ap", "eu/fra", "us"].map(|name| {
            let spec: RelaySpec = format!("{name}={key}@192.0.2.1:443/3478").parse().unwrap();
            spec
        });
        let regions = (1..).zip(&relays).map(|(n, relay)| region(n, relay, &relays));
        assert_eq!(regions.collect::<Vec<u16>>(), [1, 2, 3, 2, 5]);
    }
}
