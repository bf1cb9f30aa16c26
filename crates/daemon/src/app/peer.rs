//! `punchbag peer`.

use super::ping::WithPing;
use super::tun::{self, Tun};
use super::{Failure, PeerArgs, control, elsewhere, host, metrics};
use crate::{Handle, Net as _, Options, TokioNet};
use ::peer::{Config, Keys, Peer, Policy};
use program::userspace::{Forward, Userspace, UserspaceConfig};
use program::{PEER_PORT, PeerProgram, Users};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Name of the TUN device if none is given.
const TUN: &str = "punchbag0";
/// The SOCKS server and forwarded ports are known to the program by numbers from here: no others listen.
const FIRST_LOCAL: u16 = 1;

/// File of the node key, in the state directory.
const NODE_KEY: &str = "node.key";
/// File of the last map, in the state directory.
const MAP: &str = "map.json";
/// How often it is looked whether there is another one.
const MAP_EVERY: Duration = Duration::from_secs(5);

/// A peer that is driven.
pub(super) type Running = Handle<PeerProgram<WithPing>>;

pub(super) fn main(args: PeerArgs, json_logs: bool) -> Result<u8, Failure> {
    let args = args.with_file()?;
    let mut rng = host::rng()?;
    let state = host::state(args.state.clone(), "peer")?;
    let keys = keys(&state, &mut rng)?;
    host::start_logs(args.log.as_deref(), json_logs)?;
    host::block_on(run(args, &state, keys, rng))??;
    Ok(0)
}

fn keys(state: &Path, rng: &mut ChaCha12Rng) -> Result<Keys, Failure> {
    let (node, machine) = (host::key(state, NODE_KEY, rng)?, host::key(state, "machine.key", rng)?);
    let mut disco = [0; 32];
    rng.fill_bytes(&mut disco);
    Ok(Keys { node: node.0, machine: machine.0, disco })
}

async fn run(args: PeerArgs, state: &Path, keys: Keys, mut rng: ChaCha12Rng) -> Result<(), Failure> {
    let name = args.name.clone().or_else(machine_name).ok_or("say a name: punchbag peer NAME")?;
    let mut net = if args.no_offload { TokioNet::new().without_offload() } else { TokioNet::new() };
    let (users, tun) = tunnel(&args, &mut net, &mut rng)?;
    if let Some(tun) = &args.tun.as_deref().or(tun.is_some().then_some(TUN)) {
        net = net.without_interface(*tun);
    }
    if !args.address.is_empty() {
        net = net.with_addresses(args.address.clone());
    }
    let port = bind(&args, &mut net)?;
    let loopback = net.addresses().iter().all(IpAddr::is_loopback);

    let authorities = elsewhere::authorities(args.authorities.as_deref())?;
    let (addresses, coordinator_tls) = elsewhere::resolve(&args.coord, authorities.as_ref()).await?;
    let node_key = keys.node;
    // The one place where the peer's configuration comes together.
    let config = Config {
        name: name.clone(),
        keys,
        coordinator: addresses,
        coordinator_key: elsewhere::key(&args.coord)?,
        coordinator_host: args.coord.first().map(|server| server.at.clone()).unwrap_or_default(),
        auth_key: args.auth_key.clone(),
        coordinator_tls,
        authorities,
        map: last_map(state),
        epoch: host::unix_time(),
        policy: Policy { loopback, ..Policy::default() },
        proxy: proxy(&args).await?,
    };
    let now = Instant::now();
    let peer = Peer::new(config, ChaCha12Rng::from_rng(&mut rng), now);
    let key = peer.public_key();
    tracing::info!(name, key = super::key::encode_hex(&key), port, "peer");
    let gateway = (!args.no_port_mapping && args.address.is_empty()).then(default_gateway).flatten();
    let program =
        PeerProgram::new(name.as_str().into(), peer, WithPing::new(users), gateway, now).with_port(port);

    let (handle, inbox): (Running, _) = Handle::new(256);
    let keeper = handle.clone();
    let mut tasks = JoinSet::new();
    let control = control::bind(state)?;
    tasks.spawn_local(control::serve(control, name, key, handle.clone()));
    if let Some(tun) = tun {
        tun.spawn(&mut tasks, handle.clone());
    }
    if let Some(at) = args.metrics {
        let listener = metrics::bind(at).await?;
        tasks.spawn_local(metrics::serve(listener, async move || collect(&handle).await));
    }
    let options = Options { inbox: Some(inbox), on_event: host::log_events(), ..Options::default() };
    tasks.spawn_local(keep_map(state.to_owned(), node_key, keeper));
    let result = host::run(program, net, options).await;
    // The next start makes it anew, and until then nobody waits for an answer.
    let _ = std::fs::remove_file(control::socket_path(state));
    result
}

/// Who uses the tunnel: a device, or connections that are carried.
fn tunnel(
    args: &PeerArgs,
    net: &mut TokioNet,
    rng: &mut ChaCha12Rng,
) -> Result<(Box<dyn Users>, Option<Tun>), Failure> {
    let carries = args.socks5.is_some() || !args.forward.is_empty() || !args.expose.is_empty();
    if !args.userspace && !carries {
        let (tun, users) = tun::open(args.tun.as_deref().unwrap_or(TUN), !args.no_offload)?;
        return Ok((Box::new(users), Some(tun)));
    }
    let mut config = UserspaceConfig::default();
    let mut ports = FIRST_LOCAL..;
    let mut listen = |what: &str, at: SocketAddr| -> Result<u16, Failure> {
        let port = ports.next().ok_or("too many ports")?;
        let at = net.bind_tcp(Some(port), at).map_err(|error| host::cannot_bind("TCP", at, &error))?;
        tracing::info!(address = %at, "{what}");
        Ok(port)
    };
    if let Some(at) = args.socks5 {
        config.socks = Some(listen("SOCKS 5", at)?);
    }
    for forward in &args.forward {
        let port = listen("forwarding", forward.at)?;
        config.forwards.push(Forward { port, to: forward.to.clone(), to_port: forward.port });
    }
    config.expose = args.expose.iter().map(|expose| (expose.port, expose.to)).collect();
    Ok((Box::new(Userspace::new(config, ChaCha12Rng::from_rng(rng))), None))
}

/// Binds the data socket, and says by which number it is known: its own, as others are told of it.
fn bind(args: &PeerArgs, net: &mut TokioNet) -> Result<u16, Failure> {
    let at: Vec<IpAddr> = match &args.address[..] {
        [] => vec![Ipv4Addr::UNSPECIFIED.into(), std::net::Ipv6Addr::UNSPECIFIED.into()],
        addresses => addresses.to_vec(),
    };
    let mut port = args.port.unwrap_or(PEER_PORT);
    let mut failed = None;
    let (mut bound, mut lacks) = (false, true);
    for ip in at {
        let at = SocketAddr::new(ip, port);
        match net.bind_udp(None, at) {
            Ok(at) => {
                (port, bound) = (at.port(), true);
            }
            Err(error) => {
                lacks &= !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
                failed = Some(host::cannot_bind("UDP", at, &error));
            }
        }
    }
    // A machine that lacks one IP version does with the other.
    match failed {
        Some(error) if !bound || !lacks || !args.address.is_empty() => {
            Err(format!("{error}; --port 0 lets the system choose").into())
        }
        _ => Ok(port),
    }
}

/// The map of the last start: with it the others are reached while the coordination server is away.
fn last_map(state: &Path) -> Option<Box<coord::Map>> {
    let bytes = std::fs::read(state.join(MAP)).ok()?;
    match coord::Map::from_saved(&bytes) {
        Ok(map) => Some(Box::new(map)),
        Err(error) => {
            tracing::warn!(%error, "the last map is of no use");
            None
        }
    }
}

/// Keeps the map for the next start whenever it has changed, whole or not at all, under another name first; and the node key, which
/// is rotated before it ends.
async fn keep_map(state: PathBuf, mut key: [u8; 32], peer: Running) {
    let path = state.join(MAP);
    let mut kept = None;
    loop {
        tokio::time::sleep(MAP_EVERY).await;
        let changed = move |program: &mut PeerProgram<WithPing>, _| {
            let version = Some(program.peer().map_version());
            let map = (version != kept).then(|| program.peer().map()).flatten();
            (version, map, program.peer().private_key())
        };
        let Ok((version, map, now)) = peer.call(changed).await else { return };
        // Who starts with the key before goes back to it.
        if std::mem::replace(&mut key, now) != now
            && let Err(error) = super::key::replace(&state.join(NODE_KEY), &now)
        {
            tracing::warn!(%error, "cannot keep the new node key");
        }
        if let Some(map) = map {
            let draft = path.with_extension("new");
            let written =
                std::fs::write(&draft, map.to_saved()).and_then(|()| std::fs::rename(&draft, &path));
            if let Err(error) = written {
                tracing::warn!(%error, "cannot keep the map");
            }
        }
        kept = version;
    }
}

/// The proxy that everything but UDP goes through.
async fn proxy(args: &PeerArgs) -> Result<Option<::peer::Proxy>, Failure> {
    let Some(proxy) = &args.proxy else { return Ok(None) };
    let found = tokio::net::lookup_host(&proxy.at).await;
    let address = found.map_err(|error| format!("proxy {}: {error}", proxy.at))?.next();
    let address = address.ok_or_else(|| format!("proxy {}: no address", proxy.at))?;
    Ok(Some(::peer::Proxy { address, credentials: proxy.credentials.clone() }))
}

/// What the machine calls itself.
fn machine_name() -> Option<String> {
    let name = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok())?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The default gateway, as Linux tells it: it is asked to open a port. Elsewhere nobody is.
fn default_gateway() -> Option<IpAddr> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    gateway_of(&routes)
}

/// From `/proc/net/route` (`fib_route_seq_show`, Linux `net/ipv4/fib_trie.c`): interface, destination, gateway, … in hexadecimal
/// digits of a number in the machine's byte order.
fn gateway_of(routes: &str) -> Option<IpAddr> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (destination, gateway) = (fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && gateway != 0).then(|| IpAddr::from(gateway.to_ne_bytes()))
    })
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ToPeer {
    peer: String,
}

async fn collect(handle: &Running) -> Option<Registry> {
    let status = handle.call(|program, _| program.peer().status()).await.ok()?;
    let mut registry = Registry::with_prefix("punchbag_peer");
    let of = |wanted: fn(&::peer::Via) -> bool| {
        status.peers.iter().filter(|peer| peer.path.as_ref().is_some_and(wanted)).count()
    };
    let relayed = of(|via| matches!(via, ::peer::Via::Relay(_)));
    let direct = of(|via| !matches!(via, ::peer::Via::Relay(_)));
    metrics::gauge(&mut registry, "peers", "Other machines of the network", status.peers.len());
    metrics::gauge(&mut registry, "peers_direct", "Machines reached directly", direct);
    metrics::gauge(&mut registry, "peers_relayed", "Machines reached by a relay", relayed);
    metrics::gauge(
        &mut registry,
        "coordinated",
        "Whether the coordination server is connected",
        status.coordinated.into(),
    );
    let (sent, received) = (Family::<ToPeer, Counter>::default(), Family::<ToPeer, Counter>::default());
    for peer in &status.peers {
        let label = ToPeer { peer: peer.name.to_string() };
        sent.get_or_create(&label).inc_by(peer.sent_bytes);
        received.get_or_create(&label).inc_by(peer.received_bytes);
    }
    registry.register("sent_bytes", "Bytes of IP packets sent through the tunnel", sent);
    registry.register("received_bytes", "Bytes of IP packets received through the tunnel", received);
    Some(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_gateway_is_that_of_the_route_to_everywhere() {
        let gateway = u32::from_ne_bytes([192, 168, 1, 254]);
        let routes = format!(
            "Iface\tDestination\tGateway\tFlags\neth0\t0001A8C0\t00000000\t0001\neth0\t00000000\t{gateway:08X}\t0003\n"
        );
        assert_eq!(gateway_of(&routes), Some([192, 168, 1, 254].into()));
        assert_eq!(gateway_of("Iface\nnonsense\n\neth0\t00000000\tX\n"), None);
    }
}
