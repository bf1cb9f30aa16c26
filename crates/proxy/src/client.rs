//! The client's end: one CONNECT request and the answer to it.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::{Credentials, MAX_FIELDS, MAX_HEAD, head_end};

/// Why there is no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The head of the answer is longer than [`MAX_HEAD`], or has too many fields.
    #[error("the proxy's answer is too long")]
    TooLarge,
    /// The answer is no HTTP/1 response.
    #[error("the proxy's answer is not HTTP")]
    Malformed,
    /// Status 407 (RFC 9110 §15.5.8).
    #[error("the proxy wants credentials, or other ones (status 407)")]
    Unauthorized,
    /// Status 403: the proxy connects nobody there.
    #[error("the proxy does not connect to that port (status 403)")]
    Forbidden,
    /// Any other status outside 2xx.
    #[error("the proxy answered with status {0}")]
    Status(u16),
}

/// A tunnel that is asked for.
#[derive(Debug, Clone)]
pub struct Connect {
    request: Bytes,
    head: Vec<u8>,
    done: bool,
}

impl Connect {
    /// Asks for a tunnel to `target`.
    #[must_use]
    pub fn new(target: SocketAddr, credentials: Option<&Credentials>) -> Connect {
        let authorization =
            credentials.map(|c| format!("Proxy-Authorization: {}\r\n", c.header())).unwrap_or_default();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        Connect { request: request.into(), head: Vec::new(), done: false }
    }

    /// What to write first, in full.
    #[must_use]
    pub fn request(&self) -> Bytes {
        self.request.clone()
    }

    /// Takes bytes of the answer. `Some(n)` once the tunnel is open: the first `n` of these bytes were the answer's, and
    /// what follows comes from the target.
    ///
    /// # Errors
    /// There is no tunnel; the connection is of no further use.
    pub fn handle(&mut self, input: &[u8]) -> Result<Option<usize>, ConnectError> {
        if self.done {
            return Ok(Some(0));
        }
        let had = self.head.len();
        let room = input.len().min(MAX_HEAD - had);
        self.head.extend_from_slice(&input[..room]);
        // A status line alone tells what is no HTTP, so that nobody waits for the end of it.
        let Some(end) = head_end(&self.head, had) else {
            if self.head.len() == MAX_HEAD {
                return Err(ConnectError::TooLarge);
            }
            return parse(&self.head).map(|_| None);
        };
        self.head.truncate(end);
        match parse(&self.head)? {
            // RFC 9110 §15.2: a final answer follows.
            Some(100..=199) => {
                self.head.clear();
                let used = end - had;
                Ok(self.handle(&input[used..])?.map(|more| used + more))
            }
            Some(200..=299) => {
                self.done = true;
                self.head = Vec::new();
                Ok(Some(end - had))
            }
            Some(407) => Err(ConnectError::Unauthorized),
            Some(403) => Err(ConnectError::Forbidden),
            Some(status) => Err(ConnectError::Status(status)),
            None => Err(ConnectError::Malformed),
        }
    }
}

/// The status of a response head; `None` while it is incomplete.
fn parse(head: &[u8]) -> Result<Option<u16>, ConnectError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => Ok(response.code),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(ConnectError::TooLarge),
        Err(_) => Err(ConnectError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect() -> Connect {
        Connect::new("192.0.2.1:443".parse().expect("an address"), None)
    }

    #[test]
    fn the_request_is_that_of_the_rfc() {
        let request = connect().request();
        assert_eq!(&request[..], b"CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\r\n");
        let v6 = Connect::new("[2001:db8::1]:443".parse().expect("an address"), None).request();
        assert!(v6.starts_with(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n"));
    }

    #[test]
    fn each_refusal_has_its_error() {
        for (status, error) in [
            ("407 Proxy Authentication Required", ConnectError::Unauthorized),
            ("403 Forbidden", ConnectError::Forbidden),
            ("502 Bad Gateway", ConnectError::Status(502)),
            ("301 Moved", ConnectError::Status(301)),
        ] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(connect().handle(answer.as_bytes()), Err(error));
        }
        assert_eq!(connect().handle(b"SSH-2.0-OpenSSH_9.9\r\n"), Err(ConnectError::Malformed));
    }

    #[test]
    fn an_interim_answer_is_passed_over() {
        let mut connect = connect();
        assert_eq!(connect.handle(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc"), Ok(Some(44)));
        assert_eq!(connect.handle(b"def"), Ok(Some(0)));
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let mut connect = connect();
        connect.handle(b"HTTP/1.1 200 OK\r\n").expect("so far so good");
        let result = (0..MAX_HEAD).find_map(|_| connect.handle(b"X: y\r\n").err());
        assert_eq!(result, Some(ConnectError::TooLarge));
    }
}
