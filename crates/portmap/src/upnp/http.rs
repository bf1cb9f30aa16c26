//! As much of HTTP/1.1 (RFC 9112) as UPnP needs: one message each way, with a length or until the end of the stream.

use std::fmt::Write as _;

/// Longest head, in bytes.
pub const MAX_HEAD: usize = 8192;
/// Longest body, in bytes.
pub const MAX_BODY: usize = 65_536;
/// Most header fields.
const MAX_FIELDS: usize = 48;

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not HTTP.
    #[error("not HTTP/1")]
    Malformed,
    /// Beyond [`MAX_HEAD`] or [`MAX_BODY`].
    #[error("too long")]
    TooLong,
    /// A transfer coding: nobody is expected to use one in messages this short.
    #[error("transfer coding")]
    TransferCoding,
}

/// Header fields in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The first of that name, whatever the case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn read(headers: &[httparse::Header<'_>]) -> Fields {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Fields(headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect())
    }

    /// Bytes of the body; `None` if only the end of the stream tells.
    fn length(&self) -> Result<Option<usize>, HttpError> {
        if self.get("transfer-encoding").is_some() {
            return Err(HttpError::TransferCoding);
        }
        let Some(length) = self.get("content-length") else { return Ok(None) };
        let length: usize = length.parse().map_err(|_| HttpError::Malformed)?;
        if length > MAX_BODY { Err(HttpError::TooLong) } else { Ok(Some(length)) }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// "GET", "POST", "M-SEARCH" …
    pub method: String,
    /// The path, or "*".
    pub target: String,
    /// Header fields.
    pub fields: Fields,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200, 500 …
    pub status: u16,
    /// Header fields.
    pub fields: Fields,
    /// The body.
    pub body: Vec<u8>,
}

/// Where a head ends, or that more is to come.
fn parsed(result: httparse::Result<usize>, len: usize) -> Result<Option<usize>, HttpError> {
    match result {
        Ok(httparse::Status::Complete(head)) if head <= MAX_HEAD => Ok(Some(head)),
        Ok(httparse::Status::Partial) if len <= MAX_HEAD => Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(HttpError::TooLong),
        Err(_) => Err(HttpError::Malformed),
    }
}

impl Request {
    /// Reads a request from what has come so far; `None`: more is to come. Says how many bytes it took.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub fn read(data: &[u8]) -> Result<Option<(Request, usize)>, HttpError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Request::new(&mut headers);
        let Some(end) = parsed(head.parse(data), data.len())? else { return Ok(None) };
        let fields = Fields::read(head.headers);
        let length = fields.length()?.unwrap_or(0);
        let Some(body) = data.get(end..end + length) else { return Ok(None) };
        let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let (method, target) = (text(head.method), text(head.path));
        Ok(Some((Request { method, target, fields, body: body.to_vec() }, end + length)))
    }
}

impl Response {
    /// Reads an answer from what has come so far; `None`: more is to come. `ended`: nothing more will come.
    ///
    /// # Errors
    /// See [`HttpError`]; an answer that was cut off is malformed.
    pub fn read(data: &[u8], ended: bool) -> Result<Option<Response>, HttpError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut headers);
        let cut = if ended { Err(HttpError::Malformed) } else { Ok(None) };
        let Some(end) = parsed(head.parse(data), data.len())? else { return cut };
        let fields = Fields::read(head.headers);
        let rest = &data[end..];
        let body = match fields.length()? {
            Some(length) => match rest.get(..length) {
                Some(body) => body,
                None => return cut,
            },
            None if rest.len() > MAX_BODY => return Err(HttpError::TooLong),
            None if ended => rest,
            None => return Ok(None),
        };
        Ok(Some(Response { status: head.code.unwrap_or_default(), fields, body: body.to_vec() }))
    }
}

/// A message on a stream of its own: the first line, fields, and a body with its length.
pub fn write(first: &str, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut out = format!("{first}\r\n");
    for (name, value) in fields {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    let _ = write!(out, "Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    out.into_bytes()
}
