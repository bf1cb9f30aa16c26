//! The socket by which `status` and `ping` ask a peer that runs: one JSON object a line, in both directions.

use super::Failure;
use super::key::encode_hex;
use super::peer::Running;
use super::ping::Pong;
use peer::Via;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Longest line of a request.
const MAX_LINE: u64 = 4096;
/// Clients at a time.
const MAX_CLIENTS: usize = 16;
/// How long a ping waits for its answer.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    Status,
    Ping { peer: String },
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Status(Box<Report>),
    Pong(PongReport),
    /// It did not answer in time.
    Silent,
    Error(String),
}

/// A peer as it stands. This is what `status --json` prints.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) tunnel: Option<IpAddr>,
    pub(super) coordinated: bool,
    pub(super) home_relay: Option<String>,
    pub(super) home_relay_connected: bool,
    pub(super) mapping_varies: Option<bool>,
    pub(super) udp_blocked: bool,
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) peers: Vec<PeerReport>,
}

/// Another peer. The path is "direct", "lan" or "relay", or null before any traffic.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PeerReport {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) tunnel: IpAddr,
    pub(super) online: bool,
    #[serde(flatten)]
    pub(super) way: Way,
    pub(super) rtt_us: Option<u64>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) handshake_seconds_ago: Option<u64>,
}

/// A path.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Way {
    pub(super) path: Option<String>,
    pub(super) address: Option<SocketAddr>,
    pub(super) relay: Option<String>,
}

/// An answer to a ping.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PongReport {
    pub(super) peer: String,
    pub(super) tunnel: IpAddr,
    pub(super) rtt_us: u64,
    #[serde(flatten)]
    pub(super) way: Way,
}

impl Way {
    fn of(via: Option<&Via>) -> Way {
        let (path, address, relay) = match via {
            None => return Way::default(),
            Some(Via::Direct(address)) => ("direct", Some(*address), None),
            Some(Via::Lan(address)) => ("lan", Some(*address), None),
            Some(Via::Relay(name)) => ("relay", None, Some(name.to_string())),
        };
        Way { path: Some(path.into()), address, relay }
    }
}

/// Where the socket of a peer with that state directory is.
pub(super) fn socket_path(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// Makes the socket, for its owner alone.
pub(super) fn bind(state: &Path) -> Result<UnixListener, Failure> {
    let path = socket_path(state);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(format!(
            "another peer runs with the state directory {}: end it, or give this one a --state of its own",
            state.display()
        )
        .into());
    }
    let made = (|| {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    })();
    made.map_err(|error: io::Error| {
        format!("cannot make the socket {}: {error} (a shorter --state may help)", path.display()).into()
    })
}

/// Answers, for ever.
pub(super) async fn serve(listener: UnixListener, name: String, key: [u8; 32], peer: Running) {
    let mut clients = JoinSet::new();
    loop {
        while clients.len() >= MAX_CLIENTS {
            clients.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let (name, peer) = (name.clone(), peer.clone());
                clients.spawn_local(async move {
                    if let Err(error) = answer(stream, &name, &key, &peer).await {
                        tracing::debug!(%error, "control socket");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        while clients.try_join_next().is_some() {}
    }
}

async fn answer(stream: UnixStream, name: &str, key: &[u8; 32], peer: &Running) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        if (&mut read).take(MAX_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(Request::Status) => status(name, key, peer).await,
            Ok(Request::Ping { peer: whom }) => ping(&whom, peer).await,
            Err(error) => Answer::Error(error.to_string()),
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        write.write_all(&line).await?;
    }
}

async fn status(name: &str, key: &[u8; 32], peer: &Running) -> Answer {
    let Ok((status, now)) = peer.call(|program, now| (program.peer().status(), now)).await else {
        return Answer::Error("the peer is ending".into());
    };
    let peers = status.peers.into_iter().map(|peer| PeerReport {
        name: peer.name.to_string(),
        key: encode_hex(&peer.node_key),
        tunnel: peer.tunnel,
        online: peer.online,
        way: Way::of(peer.path.as_ref()),
        rtt_us: peer.rtt.map(micros),
        sent_bytes: peer.sent_bytes,
        received_bytes: peer.received_bytes,
        handshake_seconds_ago: peer.handshake.map(|at| now.saturating_duration_since(at).as_secs()),
    });
    let (home_relay, home_relay_connected) =
        status.home_relay.map(|(name, up)| (name.to_string(), up)).unzip();
    Answer::Status(Box::new(Report {
        name: name.to_owned(),
        key: encode_hex(key),
        tunnel: status.tunnel,
        coordinated: status.coordinated,
        home_relay,
        home_relay_connected: home_relay_connected.unwrap_or(false),
        mapping_varies: status.nat.mapping_varies,
        udp_blocked: status.nat.udp_blocked,
        candidates: status.candidates,
        peers: peers.collect(),
    }))
}

async fn ping(whom: &str, peer: &Running) -> Answer {
    let name = whom.to_owned();
    let asked = peer.call(move |program, now| {
        let to = program.peer().tunnel_address(&name).or_else(|| {
            let address: IpAddr = name.parse().ok()?;
            program.peer().name_at(address).map(|_| address)
        })?;
        let name = program.peer().name_at(to).unwrap_or(&name).to_owned();
        Some((name, to, program.with(now, |_, users| users.ping(to, now))))
    });
    let (name, to, pong) = match asked.await {
        Ok(Some(asked)) => asked,
        Ok(None) => return Answer::Error(format!("no peer {whom} is known; see: punchbag status")),
        Err(error) => return Answer::Error(error.to_string()),
    };
    let Ok(Ok(Pong { rtt, path })) = tokio::time::timeout(PING_TIMEOUT, pong).await else {
        return Answer::Silent;
    };
    // The answer says by which kind of path it came; which exactly, the peer's own path of that kind.
    let own = peer.call(move |program, _| {
        let status = program.peer().status();
        status.peers.into_iter().find(|peer| peer.tunnel == to).and_then(|peer| peer.path)
    });
    let mut way = Way::of(own.await.ok().flatten().as_ref());
    if way.path.as_deref() != Some(path.as_str()) {
        way = Way { path: Some(path.as_str().to_owned()), ..Way::default() };
    }
    Answer::Pong(PongReport { peer: name, tunnel: to, rtt_us: micros(rtt), way })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Asks the peer that runs with that state directory.
pub(super) struct Client {
    read: BufReader<tokio::net::unix::OwnedReadHalf>,
    write: tokio::net::unix::OwnedWriteHalf,
}

impl Client {
    pub(super) async fn connect(state: &Path) -> Result<Client, Failure> {
        let path = socket_path(state);
        let stream = UnixStream::connect(&path).await.map_err(|error| {
            format!(
                "no peer answers at {} ({error}): start one with `punchbag peer`, or say its --state",
                path.display()
            )
        })?;
        let (read, write) = stream.into_split();
        Ok(Client { read: BufReader::new(read), write })
    }

    pub(super) async fn ask(&mut self, request: &Request) -> Result<Answer, Failure> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.write.write_all(&line).await?;
        let mut line = String::new();
        if self.read.read_line(&mut line).await? == 0 {
            return Err("the peer has ended".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}
