//! An administrator's end: requests to the server's HTTP API, which `API.md` describes.
//!
//! The requests travel inside a stream that both sides' keys protect, so that neither who can make certificates nor who runs
//! the proxy in between can read a pre-authentication key or let a machine in.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use rand_chacha::ChaCha12Rng;

use crate::channel::{Channel, Incoming};
use crate::http::Door;
use crate::{Error, HANDSHAKE_WITHIN};

/// The server stores what it answers for: a disk may take its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const MAX_FIELDS: usize = 32;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// JSON.
    pub body: Bytes,
}

/// One stream of an administrator, from when it is up until it is closed.
pub struct Admin {
    channel: Channel,
    opened: bool,
    /// Requests without a response.
    open: usize,
    by: Instant,
    responses: VecDeque<Response>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("opened", &self.opened)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Admin {
    /// A stream to the server is up.
    pub fn connected(
        private_key: &[u8; 32],
        server_key: &[u8; 32],
        host: &str,
        mut rng: ChaCha12Rng,
        now: Instant,
    ) -> Admin {
        let channel = Channel::initiator(private_key, server_key, host, Door::Admin, &mut rng);
        Admin { channel, opened: false, open: 0, by: now + HANDSHAKE_WITHIN, responses: VecDeque::new() }
    }

    /// Asks for something; responses come in the order of requests. Characters that would end the request line are left out
    /// of method and path.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8], now: Instant) {
        let clean = |text: &str| text.chars().filter(char::is_ascii_graphic).collect::<String>();
        let head = format!(
            "{} {} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            clean(method),
            clean(path),
            body.len()
        );
        self.channel.push(message(head.as_bytes(), body));
        self.open += 1;
        self.by = self.by.max(now + ANSWER_WITHIN);
    }

    /// Takes bytes from the stream.
    ///
    /// # Errors
    /// The stream is unusable.
    pub fn handle_stream(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.channel.feed(bytes);
        while let Some(incoming) = self.channel.next()? {
            match incoming {
                Incoming::Opened { .. } => self.opened = true,
                Incoming::Served => return Err(Error::Http),
                Incoming::Message(message) => {
                    self.open =
                        self.open.checked_sub(1).ok_or(Error::Protocol("a response without a request"))?;
                    self.responses.push_back(response(&message)?);
                }
            }
        }
        Ok(())
    }

    /// Bytes to write, never more than `space`. Call until there are none.
    pub fn poll_transmit(&mut self, space: usize) -> Option<Bytes> {
        self.channel.pull(space)
    }

    /// The next response.
    pub fn poll_response(&mut self) -> Option<Response> {
        self.responses.pop_front()
    }

    /// When to give up, if nothing has come by then.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match (self.opened, self.open) {
            (false, _) => Some((self.by, "coord handshake")),
            (true, 0) => None,
            (true, _) => Some((self.by, "coord answer")),
        }
    }
}

/// A head and a body as one message of the stream.
pub(crate) fn message(head: &[u8], body: &[u8]) -> Bytes {
    let length = head.len() + body.len();
    let mut out = BytesMut::with_capacity(4 + length);
    // What is longer than any limit is refused by the other side.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.put_slice(head);
    out.put_slice(body);
    out.freeze()
}

/// A request in a message: its method, path and body.
pub(crate) fn request(message: &[u8]) -> Result<(&str, &str, &[u8]), Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = request.parse(message) else { return Err(Error::Http) };
    let (Some(method), Some(target)) = (request.method, request.path) else { return Err(Error::Http) };
    Ok((method, crate::http::path_of(target), &message[head..]))
}

fn response(message: &Bytes) -> Result<Response, Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = response.parse(message) else { return Err(Error::Http) };
    let status = response.code.ok_or(Error::Http)?;
    Ok(Response { status, body: message.slice(head..) })
}
