//! What all programs share: state directory, entropy, logs, signals, systemd.

use super::Failure;
use super::key::{PrivateKey, encode_hex, load_or_make};
use crate::{DriveError, Options, TokioNet, drive};
use program::{Program, Security};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tls::{Identity, Pin};
use tokio::signal::unix::{SignalKind, signal};
use trace::{Event, Path as Way, ServerState};
use tracing_subscriber::EnvFilter;

/// Other machines' clocks may be behind by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);
/// How long the certificate that tells a relay's key is good, before and after its start: 30 days, as Tailscale's; nobody checks.
const NOTICE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// A certificate lasts longer than a server runs.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A stream of randomness that begins with the machine's entropy.
pub(super) fn rng() -> Result<ChaCha12Rng, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the system gives no randomness: {error}"))?;
    Ok(ChaCha12Rng::from_seed(seed))
}

/// Unix time now.
pub(super) fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Where a program keeps its state: as told, or as systemd says (`StateDirectory=`), or as the XDG base directory
/// specification says.
pub(super) fn state_path(told: Option<PathBuf>, what: &str) -> Result<PathBuf, Failure> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || {
        let base = from("XDG_STATE_HOME").or_else(|| Some(from("HOME")?.join(".local/state")));
        base.map(|base| base.join("punchbag").join(what))
    };
    told.or_else(|| from("STATE_DIRECTORY"))
        .or_else(user)
        .ok_or_else(|| "no place for keys: say --state FOLDER, or set HOME".into())
}

/// The state directory, made for its owner alone if it is not there.
pub(super) fn state(told: Option<PathBuf>, what: &str) -> Result<PathBuf, Failure> {
    let path = state_path(told, what)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(|error| format!("cannot make the state directory {}: {error}", path.display()))?;
    Ok(path)
}

/// A key of that name in the state directory.
pub(super) fn key(state: &Path, name: &str, rng: &mut ChaCha12Rng) -> Result<PrivateKey, Failure> {
    Ok(load_or_make(&state.join(name), rng)?)
}

/// Prints a line for people or for a shell.
pub(super) fn print(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Prints what others must know of a server: its public key, and with TLS that of its certificate.
pub(super) fn print_key(key: &[u8; 32], pin: Option<Pin>) -> Result<u8, Failure> {
    let pin = pin.map(|pin| format!("+{}", encode_hex(&pin.0))).unwrap_or_default();
    print(&format!("{}{pin}", encode_hex(key))).map(|()| 0)
}

/// How a server speaks TLS on these ports: with the certificate and key that it was given as files, else with one of its own,
/// which is made anew at each start for the key that is kept in the state directory. Others know that key.
pub(super) fn security(
    state: &Path,
    rng: &mut ChaCha12Rng,
    ports: Vec<u16>,
    given: (Option<&Path>, Option<&Path>),
    relay: Option<derp::PublicKey>,
) -> Result<(Security, Pin), Failure> {
    let now = unix_time();
    let identity = match given {
        (Some(certificate), Some(key)) => Identity::from_pem(&file(certificate)?, &file(key)?)?,
        (None, None) => {
            let seed = key(state, "tls.key", rng)?.0;
            let (from, until) = (now.saturating_sub(CLOCK_SKEW), now + CERTIFICATE_LIFETIME);
            Identity::self_signed(seed, &["punchbag"], from, until)?
        }
        _ => return Err("certificate and certificate-key go together".into()),
    };
    let identity = match relay {
        None => identity,
        Some(key) => told_early(identity, key, now)?,
    };
    let config = tls::ServerConfig::new(&identity)?;
    let clock = tls::Clock::new(now, Instant::now());
    Ok((Security { ports, config, clock, rng: ChaCha12Rng::from_rng(rng) }, identity.pin()))
}

/// With a certificate that tells the relay's key: a client that reads it saves the round trip in which it would ask (fast start;
/// `metaCert`, tailscale `derp/derpserver/derpserver.go`). Nobody holds its private key, which anybody can derive.
fn told_early(identity: Identity, key: derp::PublicKey, now: Duration) -> Result<Identity, Failure> {
    let hex = super::key::encode_hex(&key.0);
    let version = u8::try_from(derp::frame::PROTOCOL_VERSION)?;
    let (from, until) = (now.saturating_sub(NOTICE_LIFETIME), now + NOTICE_LIFETIME);
    Ok(identity.with_derp_key(key.0, &hex, version, from, until)?)
}

/// What stands in a file.
pub(super) fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

/// Logs go to standard error.
pub(super) fn start_logs(filter: Option<&str>, json: bool) -> Result<(), Failure> {
    let env = std::env::var("RUST_LOG");
    let (from, text) = match (filter, &env) {
        (Some(filter), _) => ("--log", filter),
        (None, Ok(filter)) => ("RUST_LOG", &**filter),
        (None, Err(_)) => ("", "info"),
    };
    let filter = EnvFilter::try_new(text).map_err(|error| {
        format!("{from} {text}: {error}; want a level such as info or debug, for some of them as in info,daemon=debug")
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colours = std::io::stderr().is_terminal();
    if json {
        logs.json().init();
    } else {
        logs.with_ansi(colours).with_target(false).compact().init();
    }
    Ok(())
}

/// Runs a program's future on this thread. What it spawns ends with it.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}

/// Drives a program until a signal ends it, and tells systemd of its beginning and end.
pub(super) async fn run<P: Program>(program: P, net: TokioNet, options: Options<P>) -> Result<(), Failure> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stopped = async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("ending");
        notify(sd_notify::NotifyState::Stopping);
    };
    notify(sd_notify::NotifyState::Ready);
    let result: Result<P, DriveError> = drive(program, net, options, stopped).await;
    result.map(drop).map_err(|error| {
        format!("{error}; another program may have the port, and those below 1024 need rights (see --help)")
            .into()
    })
}

/// Tells systemd, if it asks to be told.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

/// Binds the TCP ports of a server, and says by which numbers the program is to know them.
pub(super) fn listen(
    net: &mut TokioNet,
    told: &[SocketAddr],
    default: &[u16],
    first: u16,
) -> Result<Vec<u16>, Failure> {
    let all: Vec<SocketAddr>;
    let at = if told.is_empty() {
        all = default.iter().map(|port| (Ipv4Addr::UNSPECIFIED, *port).into()).collect();
        &all
    } else {
        told
    };
    let mut ports = Vec::new();
    for (port, at) in (first..).zip(at) {
        let bound = net.bind_tcp(Some(port), *at).map_err(|error| cannot_bind("TCP", *at, &error))?;
        tracing::info!(address = %bound, "listening");
        ports.push(port);
    }
    Ok(ports)
}

/// Why an address could not be bound, and what to do.
pub(super) fn cannot_bind(protocol: &str, at: SocketAddr, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need rights: run as root, or give another address, or \
             run: setcap cap_net_bind_service=+ep punchbag"
        }
        std::io::ErrorKind::AddrInUse => "; another program has it",
        _ => "",
    };
    format!("cannot bind {protocol} {at}: {error}{hint}")
}

/// Writes what a program has for its log.
pub(super) fn log_events() -> Box<dyn FnMut(Event, Instant)> {
    let words = |text: String| (!text.is_empty()).then_some(text);
    Box::new(move |event, _| match event {
        Event::Warning { what, .. } => tracing::warn!("{what}"),
        Event::Member { name, tunnel: Some(tunnel), .. } => tracing::info!(name, %tunnel, "joined"),
        Event::Member { name, tunnel: None, reason, .. } => tracing::info!(name, reason, "left"),
        Event::Registered { tunnel, .. } => tracing::info!(%tunnel, "registered"),
        Event::Coordinator { state: state @ ServerState::Failed, address, reason, .. } => {
            tracing::warn!(state = state.as_str(), %address, reason = words(reason), "coordination server");
        }
        Event::Coordinator { state, address, reason, .. } => {
            tracing::info!(state = state.as_str(), %address, reason = words(reason), "coordination server");
        }
        Event::Relay { relay, state: state @ ServerState::Failed, address, reason, .. } => {
            tracing::warn!(%relay, state = state.as_str(), %address, reason = words(reason), "relay");
        }
        Event::Relay { relay, state, address, reason, .. } => {
            tracing::info!(%relay, state = state.as_str(), %address, reason = words(reason), "relay");
        }
        Event::PathChanged { peer, path, address, relay, reason, .. } => {
            let (path, relay) = (path.map_or("none", Way::as_str), relay.as_deref());
            tracing::info!(%peer, path, address = address.map(tracing::field::display), relay, reason, "path");
        }
        Event::PortMapping { what, protocol, external, reason, .. } => {
            let external = external.map(tracing::field::display);
            tracing::info!(%what, %protocol, external, reason = words(reason), "port mapping");
        }
        Event::NatLearned { mapping_varies, udp_blocked, candidates, .. } => {
            tracing::info!(mapping_varies, udp_blocked, ?candidates, "own NAT");
        }
        other => tracing::debug!(event = ?other),
    })
}
