//! UPnP: a description is fetched, then the address asked, then the port. Each step is a connection of its own.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt as _;

use super::{BUDGET, Client, ConnId, PERMANENT, Phase, Transmit};
use crate::Protocol;
use crate::upnp::http::{self, MAX_BODY, MAX_HEAD, Response};
use crate::upnp::soap::{Action, Fault};
use crate::upnp::{WAN_IP, WAN_PPP, description, url};

/// Ports that are tried on a gateway of version 1, whose AddPortMapping takes one port or refuses.
const PORTS_TRIED: u32 = 4;

/// Where and as what the gateway is controlled.
#[derive(Clone, Debug)]
pub(super) struct Control {
    kind: String,
    address: SocketAddr,
    path: String,
    /// Only permanent mappings (725, and what gateways say instead of it).
    permanent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Describe,
    Address,
    Add { ip: IpAddr, port: u16, tries: u32 },
    Delete,
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) conn: ConnId,
    pub(super) until: Instant,
    step: Step,
    outbox: Bytes,
    inbox: Vec<u8>,
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Response),
    Broken,
}

impl Job {
    pub(super) fn writable(&mut self, space: usize, out: &mut VecDeque<Transmit>) {
        let data = self.outbox.split_to(self.outbox.len().min(space));
        if !data.is_empty() {
            out.push_back(Transmit::Write { conn: self.conn, data });
        }
    }

    pub(super) fn stream(&mut self, data: &[u8]) -> Option<Outcome> {
        let room = (MAX_HEAD + MAX_BODY + 1).saturating_sub(self.inbox.len());
        self.inbox.extend_from_slice(&data[..data.len().min(room)]);
        self.read(false)
    }

    pub(super) fn closed(&mut self) -> Option<Outcome> {
        self.read(true)
    }

    fn read(&self, ended: bool) -> Option<Outcome> {
        match Response::read(&self.inbox, ended) {
            Ok(None) => None,
            Ok(Some(response)) => Some(Outcome::Answer(response)),
            Err(_) => Some(Outcome::Broken),
        }
    }
}

impl Client {
    /// The exchange that comes first with what is known.
    pub(super) fn start_job(&mut self, now: Instant) {
        match (&self.control, &self.location) {
            (Some(_), _) => self.act(Step::Address, now),
            (None, Some((address, path))) => {
                let host = address.to_string();
                let data = http::write(&format!("GET {path} HTTP/1.1"), &[("Host", &host)], "");
                self.connect(*address, Step::Describe, data, now);
            }
            (None, None) => self.failed(Protocol::Upnp, "no description", now),
        }
    }

    /// Ends a mapping; nobody waits for the answer.
    pub(super) fn start_delete(&mut self, port: u16, now: Instant) {
        self.wanted = port;
        if self.control.is_some() {
            self.act(Step::Delete, now);
        }
    }

    fn connect(&mut self, to: SocketAddr, step: Step, data: Vec<u8>, now: Instant) {
        self.drop_job();
        let conn = ConnId(self.next_conn);
        self.next_conn = self.next_conn.wrapping_add(1);
        self.job = Some(Job { conn, until: now + BUDGET, step, outbox: data.into(), inbox: Vec::new() });
        self.transmits.push_back(Transmit::Connect { conn, to });
    }

    pub(super) fn drop_job(&mut self) {
        if let Some(job) = self.job.take() {
            self.transmits.push_back(Transmit::Close(job.conn));
        }
    }

    /// Only of use to a deletion: other exchanges end with the task that wants them.
    pub(super) fn job_timeout(&mut self, now: Instant) {
        if self.job.as_ref().is_some_and(|job| job.until <= now) {
            self.drop_job();
        }
    }

    /// Calls an action.
    fn act(&mut self, step: Step, now: Instant) {
        let Some(control) = self.control.clone() else { return };
        let local = self.config.local;
        let lease = if control.permanent { 0 } else { self.config.lifetime.as_secs() };
        let text = |text: &str| text.to_owned();
        let (name, arguments) = match step {
            Step::Describe | Step::Address => ("GetExternalIPAddress", Vec::new()),
            Step::Add { port, .. } => {
                let name = if control.any() { "AddAnyPortMapping" } else { "AddPortMapping" };
                let arguments = vec![
                    ("NewRemoteHost", String::new()),
                    ("NewExternalPort", port.to_string()),
                    ("NewProtocol", text("UDP")),
                    ("NewInternalPort", local.port().to_string()),
                    ("NewInternalClient", local.ip().to_string()),
                    ("NewEnabled", text("1")),
                    ("NewPortMappingDescription", self.config.text.clone()),
                    ("NewLeaseDuration", lease.to_string()),
                ];
                (name, arguments)
            }
            Step::Delete => {
                let arguments = vec![
                    ("NewRemoteHost", String::new()),
                    ("NewExternalPort", self.wanted.to_string()),
                    ("NewProtocol", text("UDP")),
                ];
                ("DeletePortMapping", arguments)
            }
        };
        let action = Action::new(control.kind.as_str(), name, &arguments);
        let (host, header) = (control.address.to_string(), action.header());
        let fields = [
            ("Host", host.as_str()),
            ("Content-Type", "text/xml; charset=\"utf-8\""),
            ("SOAPAction", &header),
        ];
        let data = http::write(&format!("POST {} HTTP/1.1", control.path), &fields, &action.to_request());
        self.connect(control.address, step, data, now);
    }

    pub(super) fn job_done(&mut self, outcome: Outcome, now: Instant) {
        let Some(job) = self.job.take() else { return };
        self.transmits.push_back(Transmit::Close(job.conn));
        if job.step == Step::Delete || self.phase == Phase::Shut {
            return;
        }
        let result = match outcome {
            Outcome::Broken => Err(None),
            Outcome::Answer(response) if response.status == 200 => Ok(response.body),
            Outcome::Answer(response) => Err(Fault::decode(&response.body)),
        };
        let body = match result {
            Ok(body) => body,
            Err(fault) => return self.faulted(job.step, fault, now),
        };
        match job.step {
            Step::Describe => match self.control_in(&body) {
                Some(control) => {
                    self.control = Some(control);
                    self.act(Step::Address, now);
                }
                None => self.refused(Protocol::Upnp, "no service that maps ports".into(), now),
            },
            Step::Address => {
                let action = Action::decode(&body);
                let ip = action.as_ref().and_then(|action| action.get("NewExternalIPAddress"));
                match ip.and_then(|ip| ip.parse().ok()) {
                    Some(ip) => self.act(Step::Add { ip, port: self.wanted, tries: 1 }, now),
                    None => self.refused(Protocol::Upnp, "no external address".into(), now),
                }
            }
            Step::Add { ip, port, .. } => {
                let given = Action::decode(&body);
                let given = given.as_ref().and_then(|action| action.get("NewReservedPort"));
                let port = given.and_then(|port| port.parse().ok()).unwrap_or(port);
                let permanent = self.control.as_ref().is_some_and(|control| control.permanent);
                let lifetime = if permanent { PERMANENT } else { self.config.lifetime };
                self.mapped(
                    Protocol::Upnp,
                    SocketAddr::new(ip, port),
                    lifetime.max(Duration::from_secs(1)),
                    now,
                );
            }
            Step::Delete => {}
        }
    }

    fn faulted(&mut self, step: Step, fault: Option<Fault>, now: Instant) {
        match (step, fault.as_ref().map(|fault| fault.code)) {
            // ConflictInMappingEntry: somebody has the port; there are others.
            (Step::Add { ip, tries, .. }, Some(718)) if tries < PORTS_TRIED => {
                let port = self.rng.random_range(1024..=u16::MAX);
                self.act(Step::Add { ip, port, tries: tries + 1 }, now);
            }
            // OnlyPermanentLeasesSupported, and the "Invalid Args" of gateways that do not know the number.
            (Step::Add { .. }, Some(402 | 725)) if self.control.as_ref().is_some_and(|c| !c.permanent) => {
                if let Some(control) = &mut self.control {
                    control.permanent = true;
                }
                self.act(step, now);
            }
            (_, Some(_)) => {
                let why = fault.map_or_else(String::new, |fault| fault.to_string());
                self.refused(Protocol::Upnp, why, now);
            }
            (_, None) => {
                // The description may be another one by now.
                self.control = None;
                self.failed(Protocol::Upnp, "no answer", now);
            }
        }
    }

    /// The first service that maps ports, controlled at the gateway's own address.
    fn control_in(&self, document: &[u8]) -> Option<Control> {
        let (base, _) = self.location.as_ref()?;
        let services = description::services(document);
        let mut connections = services
            .into_iter()
            .filter(|service| service.kind.starts_with(WAN_IP) || service.kind.starts_with(WAN_PPP));
        connections.find_map(|service| {
            let (address, path) = match url(&service.control) {
                Some((address, path)) => (address, path.to_owned()),
                None if service.control.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    (*base, format!("/{}", service.control.trim_start_matches('/')))
                }
                None => return None,
            };
            let ours = address.ip() == self.config.gateway;
            ours.then_some(Control { kind: service.kind, address, path, permanent: false })
        })
    }
}

impl Control {
    /// Whether it can give any port: WANIPConnection from version 2 on.
    fn any(&self) -> bool {
        let version = self.kind.strip_prefix(WAN_IP).and_then(|version| version.parse::<u8>().ok());
        version.is_some_and(|version| version >= 2)
    }
}
