//! Flags and configuration files. A file holds the same settings under the same names; flags override it.

use super::Failure;
use super::key::decode_hex;
use super::rate::{Rate, Size};
use ::peer::Credentials;
use clap::{Args, Subcommand};
use program::userspace::socks::Target;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Run the coordination server: it tells the machines of a network who the others are and where.
///
/// Its key is made on the first start and kept in the state directory; peers must know the public part, which is printed.
#[derive(Debug, Default, Args, Deserialize)]
#[command(
    after_help = "Example:\n  punchbag coord --listen 0.0.0.0:443 --relay nl=KEY@203.0.113.9:443/3478\n\
    where KEY is what `punchbag relay --print-key` prints. A file given by --config holds the same settings:\n  \
    listen = [\"0.0.0.0:443\"]\n  relay = [\"nl=KEY@203.0.113.9:443/3478\"]"
)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CoordArgs {
    /// Where peers connect, the first by TLS; 0.0.0.0:443 and 0.0.0.0:80 if not given.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<SocketAddr>,
    /// A relay of the network, as NAME=KEY@ADDRESS:PORT/STUNPORT. Regions are numbered in this order, from 1. KEY+HOST for a
    /// relay whose certificate for that host name is vouched for by an authority.
    /// Relays named REGION/NAME with the same REGION are one region: those that know each other by `punchbag relay --mesh`.
    #[arg(long, value_name = "RELAY")]
    pub relay: Vec<RelaySpec>,
    /// Let nobody in without a pre-authentication key or the approval of an administrator.
    #[arg(long)]
    pub closed: bool,
    /// The public key of an administrator, in hexadecimal digits: it opens the HTTP API.
    #[arg(long, value_name = "KEY")]
    pub admin: Vec<PublicKey>,
    /// After what time a node key ends, such as 180d or 12h; a running peer makes itself a new one before that. For ever if not given.
    #[arg(long, value_name = "TIME")]
    pub key_lifetime: Option<Lifetime>,
    /// A peer's new key ends when the one before would have ended: only an administrator lengthens that.
    #[arg(long)]
    pub no_renewal: bool,
    /// Who may talk to whom, as long as no administrator says otherwise: a file as for `punchbag admin access set`.
    #[arg(long, value_name = "FILE")]
    pub access: Option<PathBuf>,
    /// Where keys and records are kept.
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// Speak plain HTTP on the first address, too, where otherwise TLS is spoken.
    #[arg(long)]
    pub no_tls: bool,
    /// A certificate of one's own and those above it, in PEM; with --certificate-key. Otherwise one is made, known by its pin.
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    pub certificate: Option<PathBuf>,
    /// The private key of --certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub certificate_key: Option<PathBuf>,
    /// Print what others must know, KEY or with TLS KEY+PIN, and end.
    #[arg(long)]
    #[serde(skip)]
    pub print_key: bool,
    /// A file with settings, in TOML.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Serve Prometheus metrics there, on loopback.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// What to log, as in RUST_LOG, which it overrides.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Run a relay: it carries the encrypted packets of peers that cannot reach each other, and answers STUN.
///
/// Its key is made on the first start and kept in the state directory; the coordination server tells it to the peers.
#[derive(Debug, Default, Args, Deserialize)]
#[command(after_help = "Example:\n  punchbag relay --name nl\n\
    As a user without the right to ports below 1024:\n  punchbag relay --listen 0.0.0.0:8443 --stun 0.0.0.0:3478\n\
    With at most 16 Mbit/s from each client:\n  punchbag relay --client-rate 16Mbit/s")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RelayArgs {
    /// Its name, for the log.
    #[arg(long)]
    pub name: Option<String>,
    /// Where peers connect, the first by TLS; 0.0.0.0:443 and 0.0.0.0:80 if not given.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<SocketAddr>,
    /// Serve only the machines of the network of this coordination server, as KEY@HOST:PORT; it must know this relay. Without, the
    /// relay serves everybody.
    #[arg(long, value_name = "SERVER")]
    pub coord: Vec<CoordinatorSpec>,
    /// Another relay of the same region, as NAME=KEY@ADDRESS:PORT: packets for its clients are handed over. With --mesh-secret.
    #[arg(long, value_name = "RELAY", requires = "mesh_secret")]
    pub mesh: Vec<RelaySpec>,
    /// A file with the secret that all relays of the region share: any text, such as 64 random hexadecimal digits.
    #[arg(long, value_name = "FILE")]
    pub mesh_secret: Option<PathBuf>,
    /// What each client may send, as 2MB/s or 16Mbit/s; it is told, and what exceeds that waits at its end. No limit if not given.
    #[arg(long, value_name = "RATE")]
    pub client_rate: Option<Rate>,
    /// What it may send at once beyond that, as 1MB; a second's worth if not given, and never less than the longest packet.
    #[arg(long, value_name = "SIZE", requires = "client_rate")]
    pub client_burst: Option<Size>,
    /// Certificates of the authorities, in PEM, that vouch for servers which are given without a pin.
    #[arg(long, value_name = "FILE")]
    pub authorities: Option<PathBuf>,
    /// Where STUN is answered; 0.0.0.0:3478 if not given.
    #[arg(long, value_name = "ADDRESS")]
    pub stun: Option<SocketAddr>,
    /// Where keys are kept.
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// Speak plain HTTP on the first address, too, where otherwise TLS is spoken.
    #[arg(long)]
    pub no_tls: bool,
    /// A certificate of one's own and those above it, in PEM; with --certificate-key. Otherwise one is made, known by its pin.
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    pub certificate: Option<PathBuf>,
    /// The private key of --certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub certificate_key: Option<PathBuf>,
    /// Print what others must know, KEY or with TLS KEY+PIN, and end.
    #[arg(long)]
    #[serde(skip)]
    pub print_key: bool,
    /// A file with settings, in TOML.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Serve Prometheus metrics there, on loopback.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// What to log, as in RUST_LOG, which it overrides.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Run a peer: this machine becomes one of the network, and reaches the others directly where that can be.
///
/// As root it opens a TUN device, and every program reaches the others by their addresses in 100.64.0.0/10. Without (or with
/// --socks5, --forward or --expose) connections of other programs are carried by the peer itself, which needs no rights.
#[derive(Debug, Default, Args, Deserialize)]
#[command(after_help = "Examples:\n  punchbag peer flappie --coord KEY@coord.example.org:443\n  \
    punchbag peer takkie --coord KEY@coord.example.org:443 --socks5 127.0.0.1:1080 --expose 8000\n  \
    curl --socks5-hostname 127.0.0.1:1080 http://flappie:8000/\n\
    where KEY is what `punchbag coord --print-key` prints. See also `punchbag status` and `punchbag ping`.")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PeerArgs {
    /// Its name, by which others find it; the machine's if not given.
    pub name: Option<String>,
    /// The coordination server, as KEY@HOST:PORT. More than once: other addresses of it, tried in this order.
    #[arg(long, value_name = "SERVER")]
    pub coord: Vec<CoordinatorSpec>,
    /// The pre-authentication key, where the network is closed.
    #[arg(long, value_name = "KEY")]
    pub auth_key: Option<String>,
    /// UDP port for everything between peers; 0 lets the system choose. 41641 if not given.
    #[arg(long)]
    pub port: Option<u16>,
    /// Use this address of the machine only. More than once: these.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<IpAddr>,
    /// Name of the TUN device; punchbag0 if not given.
    #[arg(long, value_name = "NAME")]
    pub tun: Option<String>,
    /// Do without a TUN device, even where there could be one.
    #[arg(long)]
    pub userspace: bool,
    /// Carry packets one by one, where the kernel or a card gets many at once (GSO, GRO) wrong.
    #[arg(long)]
    pub no_offload: bool,
    /// Serve SOCKS 5 there, which knows the other peers by name. Implies --userspace.
    #[arg(long, value_name = "ADDRESS")]
    pub socks5: Option<SocketAddr>,
    /// Forward a local port to a port of a peer, as PORT=PEER:PORT or ADDRESS:PORT=PEER:PORT. Implies --userspace.
    #[arg(long, value_name = "FORWARD")]
    pub forward: Vec<ForwardSpec>,
    /// Let peers connect to this port of this machine, as PORT or PORT=ADDRESS:PORT. Implies --userspace.
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<Expose>,
    /// Go through this HTTP proxy (CONNECT) with everything but UDP, as HOST:PORT or USER:PASSWORD@HOST:PORT.
    #[arg(long, value_name = "PROXY")]
    pub proxy: Option<ProxySpec>,
    /// Certificates of the authorities, in PEM, that vouch for servers which are given without a pin.
    #[arg(long, value_name = "FILE")]
    pub authorities: Option<PathBuf>,
    /// Do not ask the router to open a port.
    #[arg(long)]
    pub no_port_mapping: bool,
    /// Where keys are kept, and the socket by which `status` and `ping` ask.
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// A file with settings, in TOML.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Serve Prometheus metrics there, on loopback.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// What to log, as in RUST_LOG, which it overrides.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Show the other peers, and the path on which each is reached.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: punchbag status --json | jq '.peers[] | select(.path == \"direct\") | .name'"
)]
pub struct StatusArgs {
    /// State directory of the peer that runs here.
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// One JSON object, for programs.
    #[arg(long)]
    pub json: bool,
}

/// Ask a peer for an answer through the tunnel, and show the path that it took.
///
/// It goes on until the path is direct, as the first packets go by a relay.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  $ punchbag ping flappie\n  \
    pong from flappie (100.64.0.2) via relay nl in 31 ms\n  \
    pong from flappie (100.64.0.2) via 198.51.100.7:41641 in 12 ms\n\
    Exit codes: 0 answered, 1 no answer, 2 no such peer or no peer running here.")]
pub struct PingArgs {
    /// Its name, or its address inside the network.
    pub peer: String,
    /// How often at most.
    #[arg(short, long, default_value_t = 10)]
    pub count: u32,
    /// Go on when the path is direct.
    #[arg(long)]
    pub all: bool,
    /// State directory of the peer that runs here.
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
}

/// Administer a network: who may join it, who is in it, who may talk to whom.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  punchbag admin print-key            # give it to the server: punchbag coord --admin KEY\n  \
    punchbag admin --coord KEY@HOST:PORT keys create --reusable\n  \
    punchbag admin --coord KEY@HOST:PORT nodes\n  \
    punchbag admin --coord KEY@HOST:PORT approve flappie\n\
    Exit codes: 0 done, 2 not."
)]
pub struct AdminArgs {
    /// The coordination server, as KEY@HOST:PORT.
    #[arg(long, global = true, value_name = "SERVER")]
    pub coord: Option<CoordinatorSpec>,
    /// Certificates of the authorities, in PEM, that vouch for a server which is given without a pin.
    #[arg(long, global = true, value_name = "FILE")]
    pub authorities: Option<PathBuf>,
    /// Where the administrator's key is kept; made on the first use.
    #[arg(long, global = true, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// The server's answer in JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// What an administrator does.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Print the administrator's public key, for `punchbag coord --admin`.
    PrintKey,
    /// The server at a glance.
    Status,
    /// All machines, of any standing.
    Nodes,
    /// Let a machine in that waits, or begin the lifetime of its key anew.
    Approve {
        /// Its number or name.
        node: String,
    },
    /// Send a machine away for good.
    Revoke {
        /// Its number or name.
        node: String,
    },
    /// Forget a machine; it may come again as any other.
    Remove {
        /// Its number or name.
        node: String,
    },
    /// Pre-authentication keys, which let machines in without an administrator at hand.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Who may talk to whom.
    #[command(subcommand)]
    Access(RulesCommand),
}

/// What is done with pre-authentication keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// All of them, without their text.
    List,
    /// Make one and print its text, which is not kept.
    Create {
        /// It lets in more than one machine.
        #[arg(long)]
        reusable: bool,
        /// The machines that it lets in are removed when they were offline for half an hour.
        #[arg(long)]
        ephemeral: bool,
        /// A tag that it gives them. More than once: all of these.
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
        /// For how long it is good, such as 1h or 7d; without it, for ever.
        #[arg(long, value_name = "TIME")]
        lifetime: Option<Lifetime>,
    },
    /// Let it let nobody in any more.
    Revoke {
        /// Its number.
        key: u32,
    },
}

/// What is done with the access rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// The rules in force.
    Show,
    /// Put the rules of a file in force, in TOML or, if its name ends in `.json`, JSON: `groups` and `rules`.
    Set {
        /// The file.
        file: PathBuf,
    },
    /// Back to the rules of the server's configuration.
    Clear,
}

/// A time that is told in words, such as `90d` or `1h 30min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Lifetime(pub Duration);

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Lifetime, String> {
        match humantime::parse_duration(text) {
            Ok(time) if time >= Duration::from_secs(1) => Ok(Lifetime(time)),
            Ok(_) => Err("less than a second is no lifetime; write it as 180d, 12h or 30min".to_owned()),
            Err(error) => Err(format!("{error}; write it as 180d, 12h or 30min")),
        }
    }
}

/// A public key: 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicKey(pub [u8; 32]);

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<PublicKey, String> {
        Ok(PublicKey(decode_hex(text)?))
    }
}

/// By what a server is known, as its `--print-key` prints it: `KEY`, or with TLS `KEY+PIN`; or `KEY+HOST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerKey {
    /// Its public key.
    pub key: [u8; 32],
    /// How its certificate is known, if it speaks TLS.
    pub certificate: Option<Certificate>,
}

/// How a certificate is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// SHA-256 of its public key (RFC 7469 §2.4).
    Pin([u8; 32]),
    /// An authority vouches for it and this host name.
    Host(String),
}

impl FromStr for ServerKey {
    type Err = String;

    fn from_str(text: &str) -> Result<ServerKey, String> {
        let (key, certificate) = text.split_once('+').map_or((text, None), |(key, rest)| (key, Some(rest)));
        let certificate = match certificate {
            None => None,
            // No host name is without a dot, or anything but hexadecimal digits.
            Some(text) if text.contains('.') => Some(Certificate::Host(text.to_owned())),
            Some(text) => Some(Certificate::Pin(decode_hex(text)?)),
        };
        Ok(ServerKey { key: decode_hex(key)?, certificate })
    }
}

/// A relay as it is told to the coordination server: `nl=KEY@203.0.113.9:443/3478`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RelaySpec {
    /// Its name.
    pub name: String,
    /// Its public keys.
    pub known: ServerKey,
    /// Where peers connect.
    pub at: SocketAddr,
    /// Port of STUN.
    pub stun: u16,
}

impl FromStr for RelaySpec {
    type Err = String;

    fn from_str(text: &str) -> Result<RelaySpec, String> {
        const FORM: &str = "want NAME=KEY@ADDRESS:PORT/STUNPORT";
        let (name, rest) = text.split_once('=').ok_or(FORM)?;
        let (key, at) = rest.split_once('@').ok_or(FORM)?;
        let (at, stun) = at.rsplit_once('/').unwrap_or((at, "3478"));
        Ok(RelaySpec {
            name: name.to_owned(),
            known: key.parse()?,
            at: at.parse().map_err(|_| format!("{at} is no ADDRESS:PORT ({FORM})"))?,
            stun: stun.parse().map_err(|_| format!("{stun} is no port ({FORM})"))?,
        })
    }
}

/// A coordination server as it is told to peers: `KEY@HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CoordinatorSpec {
    /// Its public keys.
    pub known: ServerKey,
    /// Its host, by name or address, and port.
    pub at: String,
}

impl CoordinatorSpec {
    /// Its host without the port.
    pub(super) fn host(&self) -> &str {
        let host = self.at.rsplit_once(':').map_or(&*self.at, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl FromStr for CoordinatorSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<CoordinatorSpec, String> {
        let (key, at) = text.split_once('@').ok_or("want KEY@HOST:PORT")?;
        let at = if at.rsplit_once(':').is_some() { at.to_owned() } else { format!("{at}:443") };
        Ok(CoordinatorSpec { known: key.parse()?, at })
    }
}

/// A port here that leads to one of a peer: `[ADDRESS:]PORT=PEER:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ForwardSpec {
    /// Where it listens.
    pub at: SocketAddr,
    /// The peer.
    pub to: Target,
    /// The peer's port.
    pub port: u16,
}

impl FromStr for ForwardSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<ForwardSpec, String> {
        const FORM: &str = "want [ADDRESS:]PORT=PEER:PORT";
        let (at, to) = text.split_once('=').ok_or(FORM)?;
        let (peer, port) = to.rsplit_once(':').ok_or(FORM)?;
        let peer = peer.trim_start_matches('[').trim_end_matches(']');
        Ok(ForwardSpec {
            at: local(at).ok_or_else(|| format!("{at} is no port and no ADDRESS:PORT ({FORM})"))?,
            to: peer.parse().map_or_else(|_| Target::Name(peer.to_owned()), Target::Address),
            port: port.parse().map_err(|_| format!("{port} is no port ({FORM})"))?,
        })
    }
}

/// A port that peers may connect to: `PORT` or `PORT=ADDRESS:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Expose {
    /// The port inside the tunnel.
    pub port: u16,
    /// Where it leads.
    pub to: SocketAddr,
}

impl FromStr for Expose {
    type Err = String;

    fn from_str(text: &str) -> Result<Expose, String> {
        const FORM: &str = "want PORT or PORT=ADDRESS:PORT";
        let (port, to) = text.split_once('=').unwrap_or((text, text));
        Ok(Expose {
            port: port.parse().map_err(|_| format!("{port} is no port ({FORM})"))?,
            to: local(to).ok_or_else(|| format!("{to} is no port and no ADDRESS:PORT ({FORM})"))?,
        })
    }
}

/// A port stands for one on loopback.
fn local(text: &str) -> Option<SocketAddr> {
    let port = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, text.parse().ok()?)));
    text.parse().ok().or_else(port)
}

/// An HTTP proxy: `[USER:PASSWORD@]HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProxySpec {
    /// Its host, by name or address, and port.
    pub at: String,
    /// What it wants to be shown, if anything.
    pub credentials: Option<Credentials>,
}

impl FromStr for ProxySpec {
    type Err = String;

    fn from_str(text: &str) -> Result<ProxySpec, String> {
        const FORM: &str = "want [USER:PASSWORD@]HOST:PORT";
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (user, at) = text.rsplit_once('@').map_or((None, text), |(user, at)| (Some(user), at));
        if at.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(format!("{at} is no HOST:PORT ({FORM})"));
        }
        let credentials = user.map(|user| {
            let (user, password) = user.split_once(':').ok_or(FORM)?;
            Credentials::new(user, password).map_err(|error| error.to_string())
        });
        Ok(ProxySpec { at: at.to_owned(), credentials: credentials.transpose()? })
    }
}

macro_rules! from_string {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<$name, String> {
                text.parse()
            }
        }
    )*};
}
from_string!(Lifetime, Rate, Size, PublicKey, RelaySpec, CoordinatorSpec, ForwardSpec, Expose, ProxySpec);

/// What a flag says, or else the file.
trait Or {
    fn or(self, file: Self) -> Self;
}

impl<T> Or for Option<T> {
    fn or(self, file: Self) -> Self {
        Option::or(self, file)
    }
}

impl<T> Or for Vec<T> {
    fn or(self, file: Self) -> Self {
        if self.is_empty() { file } else { self }
    }
}

impl Or for bool {
    fn or(self, file: Self) -> Self {
        self || file
    }
}

macro_rules! with_file {
    ($name:ident: $($field:ident),*; $($flag_only:ident),*) => {
        impl $name {
            /// Takes what the flags do not say from the file that they name.
            pub(super) fn with_file(self) -> Result<$name, Failure> {
                let file: $name = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
                Ok($name {
                    $($field: Or::or(self.$field, file.$field),)*
                    $($flag_only: self.$flag_only,)*
                })
            }
        }
    };
}
with_file!(CoordArgs: listen, relay, closed, admin, key_lifetime, no_renewal, access, no_tls, certificate, certificate_key, state, metrics, log; print_key, config);
with_file!(RelayArgs: name, listen, coord, mesh, mesh_secret, client_rate, client_burst, authorities, stun, no_tls, certificate, certificate_key, state, metrics, log; print_key, config);
with_file!(PeerArgs: name, coord, auth_key, port, address, tun, userspace, no_offload, socks5, forward, expose, proxy, authorities, no_port_mapping, state, metrics, log; config);

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_file_which_may_hold_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.toml");
        let key = "0f".repeat(32);
        let text = format!(
            "name = \"takkie\"\ncoord = [\"{key}@coord.example.org\"]\nsocks5 = \"127.0.0.1:1080\"\n\
             forward = [\"8022=flappie:22\"]\nexpose = [\"80=8080\"]\nno-port-mapping = true\n"
        );
        std::fs::write(&path, text).unwrap();
        let flags =
            PeerArgs { name: Some("karel".into()), config: Some(path.clone()), ..PeerArgs::default() };
        let args = flags.with_file().unwrap();
        assert_eq!(args.name.as_deref(), Some("karel"));
        assert_eq!(
            args.coord,
            [CoordinatorSpec {
                known: ServerKey { key: [15; 32], certificate: None },
                at: "coord.example.org:443".into()
            }]
        );
        let forward =
            ForwardSpec { at: ([127, 0, 0, 1], 8022).into(), to: Target::Name("flappie".into()), port: 22 };
        assert_eq!(args.forward, [forward]);
        assert_eq!(args.expose, [Expose { port: 80, to: ([127, 0, 0, 1], 8080).into() }]);
        assert!(args.no_port_mapping);

        std::fs::write(&path, "naam = \"takkie\"\n").unwrap();
        let flags = PeerArgs { config: Some(path), ..PeerArgs::default() };
        let error = flags.with_file().unwrap_err().to_string();
        assert!(error.contains("naam") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn a_lifetime_is_told_in_words_and_what_is_wrong_with_it_is_said() {
        assert_eq!("180d".parse(), Ok(Lifetime(Duration::from_secs(180 * 86_400))));
        assert_eq!("1h 30min".parse(), Ok(Lifetime(Duration::from_secs(5_400))));
        for text in ["", "180", "12 parsecs", "-1h", "10ms"] {
            let error = text.parse::<Lifetime>().unwrap_err();
            assert!(error.contains("12h"), "{text}: {error}");
        }
    }

    #[test]
    fn a_proxy_is_told_in_one_word_and_what_is_wrong_with_it_is_said() {
        let proxy: ProxySpec = "http://takkie:geheim@proxy.example.org:3128/".parse().unwrap();
        assert_eq!(proxy.at, "proxy.example.org:3128");
        assert_eq!(proxy.credentials, Some(Credentials::new("takkie", "geheim").unwrap()));
        assert_eq!("[::1]:3128".parse::<ProxySpec>().unwrap().credentials, None);
        for (text, what) in
            [("proxy", "HOST:PORT"), (":1", "HOST:PORT"), ("me@proxy:1", "PASSWORD"), ("p:99999", "p:99999")]
        {
            let error = text.parse::<ProxySpec>().unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn a_relay_is_told_in_one_word_and_what_is_wrong_with_it_is_said() {
        let key = "ab".repeat(32);
        let relay: RelaySpec = format!("nl={key}+{key}@[2001:db8::9]:8443/8478").parse().unwrap();
        assert_eq!((relay.at.port(), relay.stun), (8443, 8478));
        assert_eq!(relay.known.certificate, Some(Certificate::Pin([0xab; 32])));
        let relay: RelaySpec = format!("nl={key}+relay.example.org@192.0.2.1:443").parse().unwrap();
        assert_eq!(relay.known.certificate, Some(Certificate::Host("relay.example.org".into())));
        for (text, what) in [("nl", "NAME=KEY@"), ("nl=12@1.2.3.4:1", "64"), ("nl=KEY", "NAME=KEY@")] {
            let error = text.parse::<RelaySpec>().unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
