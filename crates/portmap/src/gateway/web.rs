//! UPnP: the answers to searches, and a small HTTP server for descriptions and control.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Asker, ConnId, Gateway, Lease, No, Transmit, Wish};
use crate::upnp::http::{self, Request};
use crate::upnp::soap::{Action, Fault};
use crate::upnp::ssdp::{Found, MAX_LEN, Search};
use crate::upnp::{FIREWALL, IgdVersion, description};
use crate::{Proto, Protocol, is_public};

/// Connections at a time; more are closed at once.
const MAX_CONNS: usize = 32;
/// A connection that takes longer is closed: one exchange over a LAN takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest lease of version 2, which also stands for "no end" there (WANIPConnection:2, §2.3.6).
const WEEK: Duration = Duration::from_secs(604_800);
/// Longest description of a mapping that is kept, in bytes.
const MAX_TEXT: usize = 64;

#[derive(Debug)]
struct Conn {
    from: SocketAddr,
    inbox: Vec<u8>,
    outbox: Bytes,
    space: usize,
    /// The request was read; what comes now is not looked at.
    asked: bool,
    /// The answer is in `outbox`.
    answered: bool,
    until: Instant,
}

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Web {
    conns: BTreeMap<ConnId, Conn>,
}

impl Web {
    pub(super) fn accepted(
        &mut self,
        conn: ConnId,
        from: SocketAddr,
        now: Instant,
        out: &mut VecDeque<Transmit>,
    ) {
        if self.conns.len() >= MAX_CONNS {
            return out.push_back(Transmit::Close { conn });
        }
        let until = now + PATIENCE;
        let outbox = Bytes::new();
        self.conns.insert(
            conn,
            Conn { from, inbox: Vec::new(), outbox, space: 0, asked: false, answered: false, until },
        );
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    pub(super) fn writable(&mut self, id: ConnId, space: usize, out: &mut VecDeque<Transmit>) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.space = space;
            self.flush(id, out);
        }
    }

    /// Takes bytes; gives the request once it is whole.
    fn stream(&mut self, id: ConnId, data: &[u8]) -> Option<Result<(SocketAddr, Request), http::HttpError>> {
        let conn = self.conns.get_mut(&id).filter(|conn| !conn.asked)?;
        conn.inbox.extend_from_slice(data);
        let read = Request::read(&conn.inbox).transpose()?;
        conn.asked = true;
        conn.inbox = Vec::new();
        Some(read.map(|(request, _)| (conn.from, request)))
    }

    fn answer(&mut self, id: ConnId, data: Vec<u8>, out: &mut VecDeque<Transmit>) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.outbox = data.into();
            conn.answered = true;
            self.flush(id, out);
        }
    }

    fn flush(&mut self, id: ConnId, out: &mut VecDeque<Transmit>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let data = conn.outbox.split_to(conn.outbox.len().min(conn.space));
        conn.space -= data.len();
        if !data.is_empty() {
            out.push_back(Transmit::Write { conn: id, data });
        }
        if conn.answered && conn.outbox.is_empty() {
            self.conns.remove(&id);
            out.push_back(Transmit::Close { conn: id });
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        let late: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.until <= now).map(|(id, _)| *id).collect();
        for conn in late {
            self.conns.remove(&conn);
            out.push_back(Transmit::Close { conn });
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.conns.values().map(|conn| (conn.until, "UPnP connection")).min()
    }
}

/// An answer with a document in it.
fn document(xml: &str) -> Vec<u8> {
    http::write("HTTP/1.1 200 OK", &[("Content-Type", "text/xml; charset=\"utf-8\"")], xml)
}

fn status(first: &str) -> Vec<u8> {
    http::write(first, &[], "")
}

impl Gateway {
    // ---- discovery ---------------------------------------------------------------------------------

    /// What the gateway is found as, the device first.
    fn found(&self) -> Vec<Found> {
        let Some(version) = self.config.upnp else { return Vec::new() };
        let location = format!(
            "http://{}{}",
            SocketAddr::new(self.config.address, self.config.http_port),
            description::ROOT
        );
        let found = |number: u8, target: String| Found {
            location: location.clone(),
            usn: format!("uuid:{}{number}::{target}", self.uuid),
            target,
            boot: 1,
        };
        let mut all = vec![found(0, version.device()), found(2, version.connection())];
        if version == IgdVersion::V2 {
            all.push(found(2, FIREWALL.to_owned()));
        }
        all
    }

    pub(super) fn search(&mut self, from: SocketAddr, data: &[u8]) {
        let Some(search) = data.get(..data.len().min(MAX_LEN)).and_then(Search::decode) else { return };
        for mut found in self.found() {
            if search.wants(&found.target) {
                // §1.3.3: the answer names what was asked for, where that was one type.
                if search.target != "ssdp:all" {
                    found.target.clone_from(&search.target);
                }
                self.send(crate::upnp::SSDP.port(), from, found.to_vec());
            }
        }
    }

    /// Says that the device is there.
    pub(super) fn notify(&mut self) {
        for found in self.found() {
            self.send(crate::upnp::SSDP.port(), crate::upnp::SSDP.into(), found.to_notify());
        }
    }

    // ---- HTTP --------------------------------------------------------------------------------------

    pub(super) fn web_stream(&mut self, conn: ConnId, data: &[u8], now: Instant) {
        let Some(read) = self.web.stream(conn, data) else { return };
        let answer = match (read, self.config.upnp) {
            (Err(_), _) => Some(status("HTTP/1.1 400 Bad Request")),
            (Ok(_), None) => Some(status("HTTP/1.1 404 Not Found")),
            (Ok((from, request)), Some(version)) => {
                match (request.method.as_str(), request.target.as_str()) {
                    ("GET", description::ROOT) => Some(document(&description::device(version, &self.uuid))),
                    ("GET", description::CONNECTION_SCPD) => {
                        Some(document(&description::connection(version)))
                    }
                    ("GET", description::FIREWALL_SCPD) if version == IgdVersion::V2 => {
                        Some(document(&description::firewall()))
                    }
                    ("POST", description::CONNECTION_CONTROL) => {
                        return self.control(conn, from, &request, false, version, now);
                    }
                    ("POST", description::FIREWALL_CONTROL) if version == IgdVersion::V2 => {
                        return self.control(conn, from, &request, true, version, now);
                    }
                    _ => Some(status("HTTP/1.1 404 Not Found")),
                }
            }
        };
        if let Some(answer) = answer {
            self.web.answer(conn, answer, &mut self.transmits);
        }
    }

    fn control(
        &mut self,
        conn: ConnId,
        from: SocketAddr,
        request: &Request,
        firewall: bool,
        version: IgdVersion,
        now: Instant,
    ) {
        let Some(action) = Action::decode(&request.body) else { return self.fault(conn, 402) };
        let outcome = if firewall {
            self.pinhole(conn, from, &action, now)
        } else if !description::has_action(version, &action.name) {
            Err(401)
        } else {
            self.connection(conn, from, &action, version, now)
        };
        match outcome {
            Ok(Some(results)) => self.reply(conn, &action, &results),
            Ok(None) => {}
            Err(code) => self.fault(conn, code),
        }
    }

    /// An action of WANIPConnection. `None`: the answer comes later, or has gone.
    fn connection(
        &mut self,
        conn: ConnId,
        from: SocketAddr,
        action: &Action,
        version: IgdVersion,
        now: Instant,
    ) -> Result<Option<Results>, u16> {
        match action.name.as_str() {
            "GetConnectionTypeInfo" => Ok(Some(vec![
                ("NewConnectionType", "IP_Routed".into()),
                ("NewPossibleConnectionTypes", "IP_Routed".into()),
            ])),
            "GetStatusInfo" => {
                let up = if self.connected() { "Connected" } else { "Disconnected" };
                Ok(Some(vec![
                    ("NewConnectionStatus", up.into()),
                    ("NewLastConnectionError", "ERROR_NONE".into()),
                    ("NewUptime", self.epoch(now).to_string()),
                ]))
            }
            "GetExternalIPAddress" => {
                let external = self.told_external().filter(|_| self.connected()).ok_or(501_u16)?;
                Ok(Some(vec![("NewExternalIPAddress", external.to_string())]))
            }
            "AddPortMapping" | "AddAnyPortMapping" => self.add(conn, from, action, version, now),
            "DeletePortMapping" => {
                let index = self.named(action)?;
                if self.leases.get(index).is_none_or(|lease| lease.inside.ip() != from.ip()) {
                    return Err(606);
                }
                let lease = self.leases.remove(index);
                self.unmap(&lease, "deleted");
                Ok(Some(Vec::new()))
            }
            "GetSpecificPortMappingEntry" => {
                let index = self.named(action)?;
                let lease = self.leases.get(index).ok_or(714_u16)?;
                Ok(Some(entry(lease, now)))
            }
            "GetGenericPortMappingEntry" => {
                let index: usize = number(action, "NewPortMappingIndex")?;
                let lease = self.leases.get(index).ok_or(713_u16)?;
                let mut results = vec![
                    ("NewRemoteHost", String::new()),
                    ("NewExternalPort", lease.external.port().to_string()),
                    ("NewProtocol", lease.proto.as_str().to_owned()),
                ];
                results.extend(entry(lease, now));
                Ok(Some(results))
            }
            _ => Err(401),
        }
    }

    fn connected(&self) -> bool {
        self.told_external().is_some_and(|ip| self.config.maps_behind_nat || is_public(ip))
    }

    /// The mapping that an action names by its external port.
    fn named(&self, action: &Action) -> Result<usize, u16> {
        self.leases.port(proto(action, "NewProtocol")?, number(action, "NewExternalPort")?).ok_or(714)
    }

    fn add(
        &mut self,
        conn: ConnId,
        from: SocketAddr,
        action: &Action,
        version: IgdVersion,
        now: Instant,
    ) -> Result<Option<Results>, u16> {
        let any = action.name == "AddAnyPortMapping";
        let proto = proto(action, "NewProtocol")?;
        let (port, internal): (u16, u16) =
            (number(action, "NewExternalPort")?, number(action, "NewInternalPort")?);
        let client: IpAddr = action.get("NewInternalClient").and_then(|ip| ip.parse().ok()).ok_or(402_u16)?;
        let lease: u32 = number(action, "NewLeaseDuration")?;
        if action.get("NewRemoteHost").is_some_and(|host| !host.is_empty()) {
            return Err(726);
        }
        if internal == 0 {
            return Err(732);
        }
        if port == 0 && !any {
            return Err(716);
        }
        // What miniupnpd's "secure mode" does, and WANIPConnection:2 §2.5.16 recommends: only for oneself.
        if client != from.ip() {
            return Err(606);
        }
        if self.config.permanent_only && lease != 0 {
            return Err(725);
        }
        let lifetime = match (version, lease) {
            (IgdVersion::V1, 0) => None,
            (IgdVersion::V2, 0) => Some(WEEK),
            // No shortest lifetime here: miniupnpd grants three seconds to who asks for them.
            (_, seconds) => Some(Duration::from_secs(seconds.into()).min(WEEK).min(self.config.max_lifetime)),
        };
        let text: String = action.get("NewPortMappingDescription").unwrap_or_default().to_owned();
        let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned();
        let inside = SocketAddr::new(client, internal);
        let wish = Wish {
            protocol: Protocol::Upnp,
            proto,
            inside,
            remote: None,
            port,
            exact: !any,
            lifetime,
            nonce: None,
            text,
        };
        let asker = Asker::Upnp { conn, from, action: action.clone() };
        if let Err(no) = self.may_map() {
            self.refuse(&wish, asker, no, now);
            return Ok(None);
        }
        let there = self.leases.port(proto, port);
        let holder = there.and_then(|index| self.leases.get(index)).map(|lease| lease.inside);
        match (there, holder) {
            (Some(index), Some(holder)) if holder == inside => self.renew(index, &wish, asker, now),
            // WANIPConnection:1 §2.4.16: a client may point its port at another of its own.
            (Some(index), Some(holder)) if holder.ip() == client && !any => {
                let lease = self.leases.remove(index);
                self.unmap(&lease, "replaced");
                self.ask(wish, asker, now);
            }
            (Some(_), Some(_)) if !any => self.refuse(&wish, asker, No::Taken, now),
            _ => self.ask(wish, asker, now),
        }
        Ok(None)
    }

    /// An action of WANIPv6FirewallControl.
    fn pinhole(
        &mut self,
        conn: ConnId,
        from: SocketAddr,
        action: &Action,
        now: Instant,
    ) -> Result<Option<Results>, u16> {
        let lease = |name| {
            // §2.4.2: from a second to a day.
            number::<u32>(action, name)
                .and_then(|s| if (1..=86_400).contains(&s) { Ok(s) } else { Err(402_u16) })
        };
        let mine = |gateway: &Gateway| {
            let index = gateway.leases.id(number(action, "UniqueID")?).ok_or(704_u16)?;
            let lease = gateway.leases.get(index).filter(|lease| lease.inside.is_ipv6()).ok_or(704_u16)?;
            if lease.inside.ip() == from.ip() { Ok(index) } else { Err(606_u16) }
        };
        match action.name.as_str() {
            "GetFirewallStatus" => Ok(Some(vec![
                ("FirewallEnabled", "1".into()),
                ("InboundPinholeAllowed", u8::from(self.may_map().is_ok()).to_string()),
            ])),
            "AddPinhole" => {
                let proto = Proto::from_number(number(action, "Protocol")?).ok_or(705_u16)?;
                let client: IpAddr =
                    action.get("InternalClient").and_then(|ip| ip.parse().ok()).ok_or(402_u16)?;
                let internal: u16 = number(action, "InternalPort")?;
                let seconds = lease("LeaseTime")?;
                let open = action.get("RemoteHost").unwrap_or_default().is_empty()
                    && number::<u16>(action, "RemotePort")? == 0;
                if client != from.ip() || !client.is_ipv6() {
                    return Err(606);
                }
                // A pinhole for one other end only would be more than this filter can hold.
                if !open || internal == 0 {
                    return Err(if open { 706 } else { 708 });
                }
                let wish = Wish {
                    protocol: Protocol::Upnp,
                    proto,
                    inside: SocketAddr::new(client, internal),
                    remote: None,
                    port: internal,
                    exact: true,
                    lifetime: Some(Duration::from_secs(seconds.into())),
                    nonce: None,
                    text: "pinhole".into(),
                };
                let asker = Asker::Upnp { conn, from, action: action.clone() };
                match (self.may_map(), self.leases.inside(proto, wish.inside, None)) {
                    (Err(no), _) => self.refuse(&wish, asker, no, now),
                    (Ok(()), Some(index)) => self.renew(index, &wish, asker, now),
                    (Ok(()), None) => self.ask(wish, asker, now),
                }
                Ok(None)
            }
            "UpdatePinhole" => {
                let (index, seconds) = (mine(self)?, lease("NewLeaseTime")?);
                let forgets = self.config.forgets_after;
                if let Some(lease) = self.leases.get_mut(index) {
                    lease.renew(Some(Duration::from_secs(seconds.into())), forgets, now);
                }
                Ok(Some(Vec::new()))
            }
            "DeletePinhole" => {
                let index = mine(self)?;
                let lease = self.leases.remove(index);
                self.unmap(&lease, "deleted");
                Ok(Some(Vec::new()))
            }
            _ => Err(401),
        }
    }

    pub(super) fn grant_upnp(&mut self, conn: ConnId, action: &Action, lease: &Lease, port: u16) {
        let results: Results = match action.name.as_str() {
            "AddAnyPortMapping" => vec![("NewReservedPort", port.to_string())],
            "AddPinhole" => vec![("UniqueID", lease.id.to_string())],
            _ => Vec::new(),
        };
        self.reply(conn, action, &results);
    }

    pub(super) fn refuse_upnp(&mut self, conn: ConnId, no: No) -> String {
        let code = match no {
            No::NotAuthorized => 606,
            No::NetworkFailure | No::Unsupported => 501,
            No::Full | No::Quota => 728,
            No::Taken => 718,
        };
        self.fault(conn, code);
        Fault::of(code).to_string()
    }

    fn reply(&mut self, conn: ConnId, action: &Action, results: &[(&str, String)]) {
        let answer = Action::new(action.service.as_str(), &action.name, results).to_response();
        self.web.answer(conn, document(&answer), &mut self.transmits);
    }

    fn fault(&mut self, conn: ConnId, code: u16) {
        let body = Fault::of(code).to_body();
        let fields = [("Content-Type", "text/xml; charset=\"utf-8\"")];
        let answer = http::write("HTTP/1.1 500 Internal Server Error", &fields, &body);
        self.web.answer(conn, answer, &mut self.transmits);
    }
}

type Results = Vec<(&'static str, String)>;

fn entry(lease: &Lease, now: Instant) -> Results {
    vec![
        ("NewInternalPort", lease.inside.port().to_string()),
        ("NewInternalClient", lease.inside.ip().to_string()),
        ("NewEnabled", "1".into()),
        ("NewPortMappingDescription", lease.text.clone()),
        ("NewLeaseDuration", lease.left(now).to_string()),
    ]
}

fn number<T: std::str::FromStr>(action: &Action, name: &str) -> Result<T, u16> {
    action.get(name).and_then(|text| text.parse().ok()).ok_or(402)
}

fn proto(action: &Action, name: &str) -> Result<Proto, u16> {
    match action.get(name) {
        Some("UDP") => Ok(Proto::Udp),
        Some("TCP") => Ok(Proto::Tcp),
        _ => Err(402),
    }
}
