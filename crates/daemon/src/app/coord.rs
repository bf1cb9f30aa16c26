//! `punchbag coord`.

use super::stored::StoredCoordinator;
use super::{Certificate, CoordArgs, Failure, RelaySpec, host, metrics};
use crate::{Handle, Options, TokioNet};
use coord::server::{Admission, Server, ServerConfig};
use coord::{RelayInfo, RelayTls};
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
    let (security, pin) = host::security(&state, &mut rng, tls, given)?;
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
        let relays = (1..).zip(&args.relay).map(|(region, relay)| info(region, relay)).collect();
        let admission = if args.closed { Admission::Approved } else { Admission::Anyone };
        let config = ServerConfig {
            admission,
            admins: args.admin.iter().map(|admin| admin.0).collect(),
            epoch: host::unix_time(),
            ..ServerConfig::new(key, relays)
        };
        let (store, records) = Store::open(&state.join("coord.redb"))?;
        let server = Server::load(config, records, rng, Instant::now());
        let program = CoordinatorProgram::new("coord".into(), server, None).with_ports(ports);
        let program = Secured::new(StoredCoordinator::new(program, store), security, Instant::now());
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
