//! `punchbag admin`: the administrators' API of the coordination server, as a command.

use super::args::{AdminArgs, AdminCommand, CoordinatorSpec, KeysCommand, RulesCommand};
use super::{Failure, elsewhere, host};
use ::peer::ServerTls;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use coord::admin::{Admin, Response};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tls::{Clock, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Name of the file with the administrator's private key.
const KEY_FILE: &str = "admin.key";
/// How long a connection may take to open: twice what a peer gives one address (`peer::Policy::connect_timeout`).
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// A day, an hour, a minute.
const LONG: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "min")];

pub(super) fn main(args: &AdminArgs) -> Result<u8, Failure> {
    let mut rng = host::rng()?;
    let state = host::state(args.state.clone(), "admin")?;
    let private = host::key(&state, KEY_FILE, &mut rng)?;
    if matches!(args.command, AdminCommand::PrintKey) {
        return host::print_key(&coord::public_key(&private.0), None);
    }
    let server = args.coord.as_ref().ok_or(
        "say where the coordination server is: --coord KEY@HOST:PORT (KEY is what `punchbag coord --print-key` prints)",
    )?;
    let authorities = elsewhere::authorities(args.authorities.as_deref())?;
    host::block_on(async {
        let mut session = Session::open(server, authorities.as_ref(), &private.0, rng).await?;
        let answer = perform(&mut session, &args.command).await?;
        host::print(&if args.json {
            serde_json::to_string_pretty(&answer)?
        } else {
            words(&args.command, &answer)
        })?;
        Ok(0)
    })?
}

/// Does what is asked for; gives the server's answer.
async fn perform(session: &mut Session, command: &AdminCommand) -> Result<Value, Failure> {
    match command {
        AdminCommand::PrintKey => Ok(Value::Null),
        AdminCommand::Status => session.ask("GET", "/v1/status", None).await,
        AdminCommand::Nodes => session.ask("GET", "/v1/nodes", None).await,
        AdminCommand::Approve { node } => {
            let path = format!("/v1/nodes/{}/approve", session.number(node).await?);
            session.ask("POST", &path, None).await
        }
        AdminCommand::Revoke { node } => {
            let path = format!("/v1/nodes/{}/revoke", session.number(node).await?);
            session.ask("POST", &path, None).await
        }
        AdminCommand::Remove { node } => {
            let path = format!("/v1/nodes/{}", session.number(node).await?);
            session.ask("DELETE", &path, None).await
        }
        AdminCommand::Keys(KeysCommand::List) => session.ask("GET", "/v1/keys", None).await,
        AdminCommand::Keys(KeysCommand::Create { reusable, ephemeral, tag, lifetime }) => {
            let lifetime_s = lifetime.map(|time| time.0.as_secs());
            let new = json!({ "reusable": reusable, "ephemeral": ephemeral, "tags": tag, "lifetime_s": lifetime_s });
            session.ask("POST", "/v1/keys", Some(&new)).await
        }
        AdminCommand::Keys(KeysCommand::Revoke { key }) => {
            session.ask("DELETE", &format!("/v1/keys/{key}"), None).await
        }
        AdminCommand::Access(RulesCommand::Show) => session.ask("GET", "/v1/access", None).await,
        AdminCommand::Access(RulesCommand::Set { file }) => {
            session.ask("PUT", "/v1/access", Some(&read::<Value>(file)?)).await
        }
        AdminCommand::Access(RulesCommand::Clear) => session.ask("DELETE", "/v1/access", None).await,
    }
}

/// A file in TOML or, by its name, JSON.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let json = path.extension().is_some_and(|extension| extension == "json");
    let value = if json {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        toml::from_str(&text).map_err(|error| error.to_string())
    };
    value.map_err(|error| format!("{}: {error}", path.display()).into())
}

/// A stream to the server.
struct Session {
    stream: TcpStream,
    tls: Option<Box<Tls>>,
    admin: Admin,
}

impl Session {
    async fn open(
        server: &CoordinatorSpec,
        authorities: Option<&tls::ClientConfig>,
        private: &[u8; 32],
        mut rng: ChaCha12Rng,
    ) -> Result<Session, Failure> {
        let (addresses, security) = elsewhere::resolve(std::slice::from_ref(server), authorities).await?;
        let opened = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(&addresses[..])).await;
        let stream = opened
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| format!("coordination server {}: {error}", server.at))?;
        let now = Instant::now();
        let secured = |security: ServerTls| {
            let clock = Clock::new(host::unix_time(), now);
            let rng = ChaCha12Rng::from_rng(&mut rng);
            Tls::client(&security.trust, &security.name, rng, clock, now).map(Box::new)
        };
        let tls = security.map(secured).transpose()?;
        let admin = Admin::connected(private, &server.known.key, server.host(), rng, now);
        Ok(Session { stream, tls, admin })
    }

    /// The number of a node that is named by it, or by its name.
    async fn number(&mut self, node: &str) -> Result<u64, Failure> {
        if let Ok(number) = node.parse() {
            return Ok(number);
        }
        let answer = self.ask("GET", "/v1/nodes", None).await?;
        let named = rows(&answer, "nodes").filter(|known| known["name"] == node);
        let numbers: Vec<u64> = named.filter_map(|known| known["id"].as_u64()).collect();
        match numbers[..] {
            [number] => Ok(number),
            [] => Err(format!("no node is called {node}; `punchbag admin nodes` lists them").into()),
            _ => {
                Err(format!("several nodes are called {node}: say which by its number, of {numbers:?}")
                    .into())
            }
        }
    }

    /// One request and its answer.
    async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        self.admin.request(method, path, &body, Instant::now());
        loop {
            self.write().await?;
            if let Some(Response { status, body }) = self.admin.poll_response() {
                let answer = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
                return match status {
                    200..300 => Ok(answer),
                    _ => Err(answer["error"]
                        .as_str()
                        .map_or_else(|| format!("status {status}"), str::to_owned)
                        .into()),
                };
            }
            self.read().await?;
        }
    }

    async fn write(&mut self) -> Result<(), Failure> {
        let Session { stream, tls, admin } = self;
        while let Some(bytes) = admin.poll_transmit(CHUNK) {
            let Some(tls) = tls else {
                stream.write_all(&bytes).await?;
                continue;
            };
            let mut left = &bytes[..];
            while !left.is_empty() {
                let took = tls.write_plain(left);
                left = &left[took..];
                match tls.poll_wire(usize::MAX) {
                    Some(wire) => stream.write_all(&wire).await?,
                    None if took == 0 => return Err("the server's TLS takes nothing".into()),
                    None => {}
                }
            }
        }
        while let Some(wire) = tls.as_mut().and_then(|tls| tls.poll_wire(usize::MAX)) {
            stream.write_all(&wire).await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Failure> {
        const REFUSED: &str =
            "the server hung up: is this key one of its --admin keys? `punchbag admin print-key` shows it";
        let mut bytes = vec![0; CHUNK];
        let left = self.admin.poll_timeout().map(|(by, _)| by.saturating_duration_since(Instant::now()));
        let read = tokio::time::timeout(left.unwrap_or(CONNECT_WITHIN), self.stream.read(&mut bytes)).await;
        let read = match read.map_err(|_| "no answer from the server")? {
            Ok(0) | Err(_) => return Err(REFUSED.into()),
            Ok(read) => read,
        };
        match &mut self.tls {
            None => self.admin.handle_stream(&bytes[..read])?,
            Some(tls) => {
                tls.feed_wire(&bytes[..read], Instant::now())?;
                while let Some(plain) = tls.poll_plain() {
                    self.admin.handle_stream(&plain)?;
                }
            }
        }
        Ok(())
    }
}

fn rows<'a>(answer: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    answer[list].as_array().into_iter().flatten()
}

/// An answer for people.
fn words(command: &AdminCommand, answer: &Value) -> String {
    match command {
        AdminCommand::Nodes => table(
            ["id", "name", "address", "standing", "online", "key ends", "tags", "node key"],
            rows(answer, "nodes").map(|node| {
                let ends =
                    if node["expired"] == true { "ended".to_owned() } else { when(&node["key_expires"]) };
                let short = text(&node["node_key"]).chars().take(12).collect();
                let (online, tags) = (yes(&node["online"]), list(&node["tags"]));
                let (name, standing) = (text(&node["name"]), text(&node["standing"]));
                [text(&node["id"]), name, text(&node["tunnel_ip"]), standing, online, ends, tags, short]
            }),
        ),
        AdminCommand::Keys(KeysCommand::List) => table(
            ["id", "reusable", "ephemeral", "tags", "ends", "used"],
            rows(answer, "keys").map(|key| {
                let (reusable, ephemeral) = (yes(&key["reusable"]), yes(&key["ephemeral"]));
                [
                    text(&key["id"]),
                    reusable,
                    ephemeral,
                    list(&key["tags"]),
                    when(&key["expires"]),
                    text(&key["used"]),
                ]
            }),
        ),
        AdminCommand::Keys(KeysCommand::Create { .. }) => text(&answer["key"]),
        AdminCommand::Status | AdminCommand::Access(RulesCommand::Show) => {
            serde_json::to_string_pretty(answer).unwrap_or_default()
        }
        _ => "done".to_owned(),
    }
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(head);
    rows.for_each(|row| {
        table.add_row(row);
    });
    table.to_string()
}

/// What is in a field, without anything that a terminal would take for a command: names come from strangers.
fn text(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).collect()
}

fn yes(value: &Value) -> String {
    if *value == true { "yes" } else { "no" }.to_owned()
}

fn list(value: &Value) -> String {
    value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" ")
}

/// A time of the server's, from now.
fn when(unix: &Value) -> String {
    let Some(at) = unix.as_u64() else { return "never".to_owned() };
    let Some(left) = at.checked_sub(host::unix_time().as_secs()) else { return "ended".to_owned() };
    let unit = LONG.iter().find(|(seconds, _)| left >= *seconds);
    unit.map_or_else(|| format!("in {left} s"), |(seconds, unit)| format!("in {} {unit}", left / seconds))
}
