//! The HTTP/1.1 request that becomes a stream, and what other requests are told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::Error;

/// Name and version of what a connection is upgraded to (RFC 9110 §7.8).
pub const PROTOCOL: &str = "punchbag-coord/1";
/// Longest head in bytes: nginx's `large_client_header_buffers`.
pub(crate) const MAX_HEAD: usize = 8 << 10;
const MAX_FIELDS: usize = 64;
/// `e, es, s, ss` with empty payloads (Noise specification §7.5).
pub(crate) const INITIATION: usize = 32 + 32 + 16 + 16;
const HANDSHAKE: &str = "Coord-Handshake";

/// What a stream is for: each has a path, and the handshake speaks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// A machine of the network.
    Machine,
    /// An administrator's API.
    Admin,
    /// A relay that asks who may use it.
    Relay,
}

impl Door {
    /// All of them.
    pub const ALL: [Door; 3] = [Door::Machine, Door::Admin, Door::Relay];

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Door::Machine => "/coord",
            Door::Admin => "/coord/admin",
            Door::Relay => "/coord/relay",
        }
    }

    /// What both ends of a handshake must agree about (Noise specification §6).
    pub(crate) fn prologue(self) -> String {
        format!("{PROTOCOL} {}", self.path())
    }
}

/// Where a server says that it runs.
pub const HEALTH: &str = "/health";

/// What a server makes of a request.
pub(crate) enum Asked {
    Upgrade { door: Door, initiation: [u8; INITIATION] },
    Answer { status: u16, response: Bytes },
}

/// The request for a stream. Characters that would end a field are left out of `host`.
pub(crate) fn request(host: &str, door: Door, initiation: &[u8; INITIATION]) -> String {
    let host: String = host.chars().filter(char::is_ascii_graphic).collect();
    format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: {PROTOCOL}\r\nConnection: Upgrade\r\n{HANDSHAKE}: {}\r\n\r\n",
        door.path(),
        STANDARD.encode(initiation)
    )
}

pub(crate) fn switching_protocols() -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: {PROTOCOL}\r\nConnection: Upgrade\r\n\r\n")
}

/// Where a head ends; bytes before `scanned` were looked at before.
///
/// # Errors
/// It is longer than a head may be.
pub(crate) fn end_of_head(bytes: &[u8], scanned: usize) -> Result<Option<usize>, Error> {
    let from = scanned.saturating_sub(3);
    let end = bytes[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
    if end.unwrap_or(bytes.len()) > MAX_HEAD { Err(Error::Http) } else { Ok(end) }
}

/// Decides on a request's head.
pub(crate) fn asked(head: &[u8]) -> Asked {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return too_large(),
        _ => return reply(400, "", "malformed request\n"),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let path = path_of(target);
    let door = Door::ALL.into_iter().find(|door| door.path() == path);
    match (method, door) {
        ("GET" | "HEAD", None) if path == HEALTH => reply(200, "", "ok\n"),
        (_, None) => reply(404, "", "not found\n"),
        ("GET", Some(door)) => {
            let field = |name: &str| {
                let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
                field.map(|field| field.value.trim_ascii())
            };
            let upgrade = field("Upgrade").unwrap_or_default();
            if !upgrade.eq_ignore_ascii_case(PROTOCOL.as_bytes()) {
                let offer = format!("Upgrade: {PROTOCOL}\r\nConnection: Upgrade\r\n");
                return reply(426, &offer, &format!("this path is for {PROTOCOL}\n"));
            }
            let has_body = field("Transfer-Encoding").is_some()
                || field("Content-Length").is_some_and(|length| length != b"0");
            let initiation = field(HANDSHAKE).and_then(|text| STANDARD.decode(text).ok());
            match initiation.and_then(|bytes| bytes.try_into().ok()) {
                Some(initiation) if !has_body => Asked::Upgrade { door, initiation },
                _ => reply(400, "", "malformed upgrade\n"),
            }
        }
        (_, Some(_)) => reply(405, "Allow: GET\r\n", ""),
    }
}

/// Path of an origin-form or absolute-form target (RFC 9112 §3.2), without its query.
pub(crate) fn path_of(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    path.split('?').next().unwrap_or(path)
}

/// For a head that does not end.
pub(crate) fn too_large() -> Asked {
    reply(431, "", "")
}

/// For a handshake that was made for another server, or altered.
pub(crate) fn forbidden() -> Bytes {
    response(403, "", "the handshake failed\n")
}

fn reply(status: u16, fields: &str, body: &str) -> Asked {
    Asked::Answer { status, response: response(status, fields, body) }
}

fn response(status: u16, fields: &str, body: &str) -> Bytes {
    let (reason, length) = (reason(status), body.len());
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n{fields}Connection: close\r\n\r\n{body}"
    )
    .into()
}

/// The words of a status (RFC 9110 §15).
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        _ => "Error",
    }
}

/// Whether a response's head opens the stream.
pub(crate) fn switched(head: &[u8]) -> Result<(), Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        _ => return Err(Error::Http),
    }
    match response.code {
        Some(101) => Ok(()),
        Some(403) => Err(Error::Handshake),
        Some(426) => Err(Error::Version),
        code => Err(code.map_or(Error::Http, Error::Status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(request: &str) -> u16 {
        match asked(request.as_bytes()) {
            Asked::Upgrade { .. } => 101,
            Asked::Answer { status, response } => {
                assert!(response.starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
                status
            }
        }
    }

    #[test]
    fn our_own_request_is_upgraded_at_each_door_whatever_the_host_is_called() {
        for door in Door::ALL {
            let bytes = request("a\r\nX: y", door, &[7; INITIATION]);
            assert!(!bytes.contains("\r\nX:"));
            let Asked::Upgrade { door: seen, initiation } = asked(bytes.as_bytes()) else {
                panic!("{bytes}")
            };
            assert_eq!((seen, initiation), (door, [7; INITIATION]));
        }
        assert_eq!(switched(switching_protocols().as_bytes()), Ok(()));
    }

    #[test]
    fn other_requests_are_told_what_is_wrong() {
        let upgrade = request("x", Door::Machine, &[7; INITIATION]);
        for (request, expected) in [
            ("GET /health HTTP/1.1\r\n\r\n".to_owned(), 200),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 404),
            ("GET http://x/coord?a HTTP/1.1\r\n\r\n".to_owned(), 426),
            (upgrade.replace("coord/1", "coord/2"), 426),
            (upgrade.replace("GET", "POST"), 405),
            (upgrade.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n"), 400),
            (upgrade.replace("BwcH", "B"), 400),
            ("nonsense\r\n\r\n".to_owned(), 400),
            (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)), 431),
        ] {
            assert_eq!(status(&request), expected, "{request}");
        }
    }

    #[test]
    fn an_endless_head_is_refused_at_8_kib() {
        assert_eq!(end_of_head(&[b'a'; MAX_HEAD], 0), Ok(None));
        assert_eq!(end_of_head(&[b'a'; MAX_HEAD + 1], 0), Err(Error::Http));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\n\r\nmore", 17), Ok(Some(18)));
    }

    proptest! {
        #[test]
        fn any_head_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), line in "(GET|POST) /(coord)?[ -~]{0,30} HTTP/1.1\r\n") {
            let _ = asked(&bytes);
            let _ = switched(&bytes);
            let mut head = line.into_bytes();
            head.extend(bytes);
            head.extend(b"\r\n\r\n");
            let _ = asked(&head);
        }
    }
}
