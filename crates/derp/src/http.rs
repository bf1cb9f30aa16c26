//! The HTTP/1.1 prelude: what a client asks, what a server answers, before the stream carries frames.

use bytes::Bytes;

use crate::{keys::PublicKey, websocket};

/// Longest request or response head, in bytes (as nginx `large_client_header_buffers`; Go's default of 1 MiB is more
/// than any client of ours needs).
pub const MAX_HEAD: usize = 8 << 10;
/// Most header fields in one head.
const MAX_FIELDS: usize = 64;
/// Longest challenge that is answered (tailscale `derp/derpserver/handler.go`, `ServeNoContent`).
const MAX_CHALLENGE: usize = 64;
const UPGRADE: &str = "DERP";

/// What is wrong with an HTTP head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Longer than [`MAX_HEAD`] or with too many fields.
    #[error("HTTP head too large")]
    TooLarge,
    /// Not HTTP/1.
    #[error("malformed HTTP head")]
    Malformed,
    /// The server did not switch protocols.
    #[error("HTTP status {0} in place of 101")]
    Status(u16),
    /// The server's answer is not to the WebSocket that was asked for.
    #[error("the server did not open a WebSocket")]
    NoWebSocket,
}

/// Collects a head out of the stream.
#[derive(Debug, Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// Takes bytes off the front of `input` up to and including the empty line; then gives the head.
    pub(crate) fn read(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, HttpError> {
        let had = self.bytes.len();
        let room = input.len().min(MAX_HEAD - had);
        self.bytes.extend_from_slice(&input[..room]);
        let from = had.saturating_sub(3);
        let found = self.bytes[from..].windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(at) = found {
            let end = from + at + 4;
            *input = &input[end - had..];
            self.bytes.truncate(end);
            return Ok(Some(std::mem::take(&mut self.bytes)));
        }
        *input = &input[room..];
        if self.bytes.len() == MAX_HEAD {
            return Err(HttpError::TooLarge);
        }
        Ok(None)
    }
}

/// The relay of the region where a client would rather be (`IdealNodeHeader`, tailscale `derp/derp.go`).
const IDEAL_NODE: &str = "Ideal-Node";

fn field<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let found = headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
    found.map(|h| h.value.trim_ascii())
}

/// What a server does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Frames follow. With fast start the client wants no HTTP response: it knew all that is in it. `not_ideal`: it would
    /// rather be at another relay of the region.
    Upgrade { fast_start: bool, not_ideal: bool },
    /// Frames follow, inside a WebSocket. What proves that the client's key was read.
    WebSocket { accept: String },
    /// Write this, then close.
    Close(Bytes),
}

/// Decides on a request head. `path` is where DERP is served.
pub(crate) fn answer(head: &[u8], path: &str) -> Answer {
    match try_answer(head, path) {
        Ok(answer) => answer,
        Err(HttpError::TooLarge) => too_large(),
        Err(_) => reply("400 Bad Request", "", "malformed request\n"),
    }
}

/// The response to a head that exceeds [`MAX_HEAD`].
pub(crate) fn too_large() -> Answer {
    reply("431 Request Header Fields Too Large", "", "")
}

fn try_answer(head: &[u8], derp_path: &str) -> Result<Answer, HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooLarge),
        _ => return Err(HttpError::Malformed),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(HttpError::Malformed);
    };
    let headers = &*request.headers;
    let get = method == "GET" || method == "HEAD";
    let wrong_method = || reply("405 Method Not Allowed", "", "");
    Ok(match path_of(target) {
        path if path == derp_path => {
            let upgrade = field(headers, "Upgrade").unwrap_or_default();
            if upgrade.eq_ignore_ascii_case(b"websocket") && get {
                return Ok(web_socket(headers).unwrap_or_else(upgrade_required));
            }
            if !upgrade.eq_ignore_ascii_case(UPGRADE.as_bytes()) {
                return Ok(upgrade_required());
            }
            // Clients differ: tailscale's sends GET, ts_http_util POST. A body would be read as frames.
            let body = field(headers, "Transfer-Encoding").is_some()
                || field(headers, "Content-Length").is_some_and(|len| len != b"0");
            if body || !(method == "GET" || method == "POST") {
                return Err(HttpError::Malformed);
            }
            let fast_start = field(headers, "Derp-Fast-Start") == Some(b"1");
            let not_ideal = field(headers, IDEAL_NODE).is_some_and(|name| !name.is_empty());
            Answer::Upgrade { fast_start, not_ideal }
        }
        "/derp/probe" | "/derp/latency-check" if get => {
            reply("200 OK", "Access-Control-Allow-Origin: *\r\n", "")
        }
        "/generate_204" if get => no_content(field(headers, "X-Tailscale-Challenge")),
        "/derp/probe" | "/derp/latency-check" | "/generate_204" => wrong_method(),
        _ => reply("404 Not Found", "", "not found\n"),
    })
}

fn upgrade_required() -> Answer {
    reply("426 Upgrade Required", "Upgrade: DERP\r\n", "DERP requires connection upgrade\n")
}

/// A WebSocket for DERP, if that is what is asked for (RFC 6455 §4.2.1).
fn web_socket(headers: &[httparse::Header<'_>]) -> Option<Answer> {
    let offered = field(headers, "Sec-WebSocket-Protocol")?.split(|byte| *byte == b',');
    let derp = offered.map(<[u8]>::trim_ascii).any(|name| name == websocket::PROTOCOL.as_bytes());
    let version = field(headers, "Sec-WebSocket-Version") == Some(b"13");
    let key = field(headers, "Sec-WebSocket-Key").filter(|key| !key.is_empty())?;
    (derp && version).then(|| Answer::WebSocket { accept: websocket::accept(key) })
}

/// Path of an origin-form (`/derp?x`) or absolute-form (`http://host/derp`) target (RFC 9112 §3.2).
fn path_of(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    path.split('?').next().unwrap_or(path)
}

fn reply(status: &str, fields: &str, body: &str) -> Answer {
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len}\r\n{fields}Connection: close\r\n\r\n{body}"
    );
    Answer::Close(head.into())
}

/// The captive-portal check: only a server that answers the challenge is the one that was asked.
fn no_content(challenge: Option<&[u8]>) -> Answer {
    let good = |c: &&[u8]| {
        c.len() <= MAX_CHALLENGE && c.iter().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(b))
    };
    let challenge = challenge.filter(good).and_then(|c| std::str::from_utf8(c).ok());
    let response = challenge.map_or(String::new(), |c| format!("X-Tailscale-Response: response {c}\r\n"));
    let head = format!(
        "HTTP/1.1 204 No Content\r\nCache-Control: no-cache, no-store, must-revalidate, no-transform, max-age=0\r\n{response}Connection: close\r\n\r\n"
    );
    Answer::Close(head.into())
}

/// The 101 response.
pub(crate) fn switching_protocols(key: &PublicKey) -> Bytes {
    let version = crate::frame::PROTOCOL_VERSION;
    let key = key.to_hex();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {UPGRADE}\r\nConnection: Upgrade\r\nDerp-Version: {version}\r\nDerp-Public-Key: {key}\r\n\r\n"
    )
    .into()
}

/// The 101 response that opens a WebSocket.
pub(crate) fn web_socket_response(accept: &str) -> Bytes {
    let protocol = websocket::PROTOCOL;
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    .into()
}

/// The request for a WebSocket (RFC 6455 §4.1).
pub(crate) fn web_socket_request(host: &str, path: &str, key: &str) -> Bytes {
    let protocol = websocket::PROTOCOL;
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
        clean(path),
        clean(host)
    )
    .into()
}

fn clean(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}

/// The upgrade request. Characters that would end a field or the request line are left out of `host` and `path`.
pub(crate) fn request(host: &str, path: &str, fast_start: bool, ideal_node: Option<&str>) -> Bytes {
    let ideal_node = ideal_node.map(|name| format!("{IDEAL_NODE}: {}\r\n", clean(name))).unwrap_or_default();
    let fast_start = if fast_start { "Derp-Fast-Start: 1\r\n" } else { "" };
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: {UPGRADE}\r\nConnection: Upgrade\r\n{fast_start}{ideal_node}\r\n",
        clean(path),
        clean(host)
    )
    .into()
}

/// Whether a response head switches to DERP; or, where the key of a WebSocket was sent, to that.
pub(crate) fn check_response(head: &[u8], key: Option<&str>) -> Result<(), HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooLarge),
        _ => return Err(HttpError::Malformed),
    }
    let accept = field(response.headers, "Sec-WebSocket-Accept");
    match response.code {
        Some(101) if key.is_some_and(|key| accept != Some(websocket::accept(key.as_bytes()).as_bytes())) => {
            Err(HttpError::NoWebSocket)
        }
        Some(101) => Ok(()),
        Some(code) => Err(HttpError::Status(code)),
        None => Err(HttpError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(request: &str) -> String {
        match answer(request.as_bytes(), "/derp") {
            Answer::Upgrade { fast_start, not_ideal } => {
                format!("upgrade fast={fast_start}{}", if not_ideal { " not ideal" } else { "" })
            }
            Answer::WebSocket { accept } => format!("websocket {accept}"),
            Answer::Close(bytes) => String::from_utf8_lossy(&bytes[9..12]).into_owned(),
        }
    }

    fn text(request: &str) -> String {
        match answer(request.as_bytes(), "/derp") {
            Answer::Close(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            upgrade => panic!("{upgrade:?}"),
        }
    }

    #[test]
    fn get_and_post_in_origin_and_absolute_form_are_upgraded() {
        for line in ["GET /derp", "POST /derp", "POST http://relay.example:443/derp", "GET /derp?x=1"] {
            let request =
                format!("{line} HTTP/1.1\r\nHost: x\r\nupgrade: derp\r\nConnection: Upgrade\r\n\r\n");
            assert_eq!(status(&request), "upgrade fast=false", "{line}");
        }
    }

    #[test]
    fn fast_start_is_heard() {
        let request = "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";
        assert_eq!(status(request), "upgrade fast=true");
    }

    #[test]
    fn who_would_rather_be_elsewhere_says_so() {
        let request = "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nIdeal-Node: 1a\r\n\r\n";
        assert_eq!(status(request), "upgrade fast=false not ideal");
    }

    #[test]
    fn without_upgrade_derp_answers_426() {
        assert_eq!(status("GET /derp HTTP/1.1\r\nHost: x\r\n\r\n"), "426");
        assert_eq!(status("GET /derp HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"), "426");
    }

    #[test]
    fn a_request_with_a_body_is_not_upgraded() {
        let head = "POST /derp HTTP/1.1\r\nUpgrade: DERP\r\n";
        assert_eq!(status(&format!("{head}Content-Length: 5\r\n\r\n")), "400");
        assert_eq!(status(&format!("{head}Transfer-Encoding: chunked\r\n\r\n")), "400");
        assert_eq!(status(&format!("{head}Content-Length: 0\r\n\r\n")), "upgrade fast=false");
    }

    #[test]
    fn probes_are_answered_for_any_origin() {
        for path in ["/derp/probe", "/derp/latency-check"] {
            let got = text(&format!("GET {path} HTTP/1.1\r\n\r\n"));
            assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
            assert!(got.contains("Access-Control-Allow-Origin: *\r\n"), "{got}");
            assert_eq!(status(&format!("HEAD {path} HTTP/1.1\r\n\r\n")), "200");
            assert_eq!(status(&format!("PUT {path} HTTP/1.1\r\n\r\n")), "405");
        }
    }

    #[test]
    fn generate_204_repeats_a_good_challenge_only() {
        let ask =
            |c: &str| text(&format!("GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: {c}\r\n\r\n"));
        assert!(ask("ts_a.B-9:").contains("X-Tailscale-Response: response ts_a.B-9:\r\n"));
        assert!(!ask("a b").contains("X-Tailscale-Response"));
        assert!(!ask(&"a".repeat(65)).contains("X-Tailscale-Response"));
        assert!(ask("").starts_with("HTTP/1.1 204") && ask("").contains("Cache-Control: no-cache, no-store"));
    }

    #[test]
    fn other_paths_are_not_found() {
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(status("GET http://relay HTTP/1.1\r\n\r\n"), "404");
    }

    #[test]
    fn nonsense_is_a_bad_request() {
        assert_eq!(status("\x16\x03\x01 hello\r\n\r\n"), "400");
        let many = format!("GET /derp HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(status(&many), "431");
    }

    #[test]
    fn our_own_request_is_upgraded_whatever_the_names_hold() {
        let bytes = request("relay\r\nX: y", "/derp", true, Some("n1\r\nX: y"));
        assert_eq!(answer(&bytes, "/derp"), Answer::Upgrade { fast_start: true, not_ideal: true });
        assert!(!bytes.windows(4).any(|w| w == b"\r\nX:"));
    }

    #[test]
    fn our_own_response_is_accepted() {
        let bytes = switching_protocols(&PublicKey([0xa5; 32]));
        assert_eq!(check_response(&bytes, None), Ok(()));
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("Derp-Version: 2\r\n"));
        assert!(text.contains(&format!("Derp-Public-Key: {}\r\n", "a5".repeat(32))));
    }

    #[test]
    fn a_web_socket_is_opened_for_derp_only() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let request = web_socket_request("relay", "/derp", key);
        let Answer::WebSocket { accept } = answer(&request, "/derp") else { panic!("no WebSocket") };
        let response = web_socket_response(&accept);
        assert_eq!(check_response(&response, Some(key)), Ok(()));
        assert_eq!(check_response(&response, Some("another")), Err(HttpError::NoWebSocket));
        let chat = String::from_utf8_lossy(&request).replace("Protocol: derp", "Protocol: chat");
        assert_eq!(status(&chat), "426");
    }

    #[test]
    fn a_response_other_than_101_is_an_error() {
        assert_eq!(check_response(b"HTTP/1.1 404 Not Found\r\n\r\n", None), Err(HttpError::Status(404)));
        assert_eq!(check_response(b"SSH-2.0-x\r\n\r\n", None), Err(HttpError::Malformed));
    }

    #[test]
    fn a_head_ends_where_its_empty_line_does() {
        let mut input = &b"GET / HTTP/1.1\r\n\r\nframes"[..];
        let head = Head::default().read(&mut input).unwrap();
        assert_eq!(head.as_deref(), Some(&b"GET / HTTP/1.1\r\n\r\n"[..]));
        assert_eq!(input, b"frames");
    }

    #[test]
    fn an_endless_head_is_refused_at_8_kib() {
        let mut head = Head::default();
        let bytes = vec![b'a'; MAX_HEAD - 1];
        assert_eq!(head.read(&mut &bytes[..]), Ok(None));
        assert_eq!(head.read(&mut &b"aaaa"[..]), Err(HttpError::TooLarge));
        assert!(head.bytes.len() <= MAX_HEAD);
    }

    proptest! {
        #[test]
        fn any_head_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), line in "(GET|POST|HEAD) [ -~]{0,30} HTTP/1.1\r\n") {
            let _ = answer(&bytes, "/derp");
            let _ = check_response(&bytes, None);
            let mut head = line.into_bytes();
            head.extend(bytes);
            head.extend(b"\r\n\r\n");
            let _ = answer(&head, "/derp");
        }

        #[test]
        fn a_head_in_pieces_is_the_head(name in "[a-z\r\n]{0,40}", rest in "[a-z\r\n]{0,20}", cut in 1usize..9) {
            let all = format!("{name}\r\n\r\n{rest}");
            let mut whole = all.as_bytes();
            let want = Head::default().read(&mut whole).unwrap();
            let (mut head, mut left, mut got) = (Head::default(), all.as_bytes(), None);
            while got.is_none() && !left.is_empty() {
                let (mut piece, tail) = left.split_at(cut.min(left.len()));
                got = head.read(&mut piece).unwrap();
                left = &left[left.len() - tail.len() - piece.len()..];
            }
            prop_assert_eq!(got, want);
            prop_assert_eq!(left, whole);
        }
    }
}
