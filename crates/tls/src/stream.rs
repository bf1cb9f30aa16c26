//! One connection.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha12Rng;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use crate::Error;
use crate::config::{ClientConfig, ServerConfig};
use crate::provider::{self, Clock};

/// Plaintext that may wait to be taken by [`Tls::poll_plain`], in bytes. It is drained after each [`Tls::feed_wire`] and the
/// bytes of one read are far fewer.
pub const MAX_UNREAD: usize = 4 << 20;
/// Bytes that may wait to be taken by [`Tls::poll_wire`]: room for a whole DERP frame of 64 KiB and its records.
pub const MAX_UNSENT: usize = 128 << 10;
/// Plaintext of one record (RFC 8446 §5.1).
const RECORD: usize = 1 << 14;
/// What a record adds: header, type and the AEAD's tag (RFC 8446 §5.2, RFC 5116 §5.1).
const OVERHEAD: usize = 5 + 1 + 16;

/// How much plaintext, written at once, fits `space` bytes of the wire.
pub fn room(space: usize) -> usize {
    let whole = space / (RECORD + OVERHEAD);
    let rest = (space % (RECORD + OVERHEAD)).saturating_sub(OVERHEAD);
    whole * RECORD + rest
}

/// One end of a TLS connection.
pub struct Tls {
    connection: Connection,
    rng: ChaCha12Rng,
    clock: Clock,
    plain: VecDeque<Bytes>,
    unread: usize,
    peer_closed: bool,
    closed: bool,
    failed: Option<Error>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("handshaking", &self.is_handshaking())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// The client's end. `name` is the server's host name or IP address.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn client(
        config: &ClientConfig,
        name: &str,
        mut rng: ChaCha12Rng,
        clock: Clock,
        now: Instant,
    ) -> Result<Tls, Error> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| Error::Name(name.to_owned()))?;
        let config = config.0.clone();
        // The first message is made here.
        let connection = provider::with(&mut rng, clock.unix(now), || ClientConnection::new(config, name))?;
        Ok(Tls::new(connection.into(), rng, clock))
    }

    /// The server's end.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn server(config: &ServerConfig, rng: ChaCha12Rng, clock: Clock) -> Result<Tls, Error> {
        Ok(Tls::new(ServerConnection::new(config.0.clone())?.into(), rng, clock))
    }

    fn new(mut connection: Connection, rng: ChaCha12Rng, clock: Clock) -> Tls {
        connection.set_buffer_limit(Some(MAX_UNSENT));
        let plain = VecDeque::new();
        Tls { connection, rng, clock, plain, unread: 0, peer_closed: false, closed: false, failed: None }
    }

    /// Whether plaintext must still wait.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the other side has said that it sends no more. A TCP connection that ends without was cut.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// What is spoken inside, if both sides named it (ALPN).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Bytes off the wire, in any pieces. What they bring is for [`poll_plain`](Self::poll_plain), the answers are for
    /// [`poll_wire`](Self::poll_wire).
    ///
    /// # Errors
    /// The connection is of no use any more; [`poll_wire`](Self::poll_wire) has an alert for the other side. The same error
    /// comes again for all further bytes.
    pub fn feed_wire(&mut self, mut data: &[u8], now: Instant) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let unix = self.clock.unix(now);
        while !data.is_empty() && !self.peer_closed {
            if let Err(error) = self.step(&mut data, unix) {
                self.failed = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    fn step(&mut self, data: &mut &[u8], unix: Duration) -> Result<(), Error> {
        let Tls { connection, rng, .. } = self;
        let read = connection.read_tls(data);
        let took = read.map_err(|error: io::Error| Error::Protocol(error.to_string()))?;
        let state = provider::with(rng, unix, || connection.process_new_packets())?;
        self.peer_closed = state.peer_has_closed() || took == 0;
        let waiting = state.plaintext_bytes_to_read();
        if waiting == 0 {
            return Ok(());
        }
        self.unread += waiting;
        if self.unread > MAX_UNREAD {
            return Err(Error::Overflow(self.unread));
        }
        let mut plain = BytesMut::with_capacity(waiting);
        let mut reader = self.connection.reader();
        while plain.len() < waiting {
            let chunk = reader.fill_buf().map_err(|error| Error::Protocol(error.to_string()))?;
            let taken = chunk.len();
            plain.extend_from_slice(chunk);
            reader.consume(taken);
        }
        self.plain.push_back(plain.freeze());
        Ok(())
    }

    /// At most `space` bytes for the wire.
    pub fn poll_wire(&mut self, space: usize) -> Option<Bytes> {
        if space == 0 || !self.connection.wants_write() {
            return None;
        }
        let mut out = Limited { bytes: BytesMut::new(), space };
        while out.space > 0 && self.connection.wants_write() {
            if self.connection.write_tls(&mut out).is_err() {
                break;
            }
        }
        (!out.bytes.is_empty()).then(|| out.bytes.freeze())
    }

    /// Whether [`poll_wire`](Self::poll_wire) has something to give.
    pub fn wants_wire(&self) -> bool {
        self.connection.wants_write()
    }

    /// Encrypts, and says how many bytes it took: all that fit below [`MAX_UNSENT`]. During the handshake they wait for its
    /// end. After an error or [`close`](Self::close) it takes none.
    pub fn write_plain(&mut self, data: &[u8]) -> usize {
        if self.closed || self.failed.is_some() {
            return 0;
        }
        self.connection.writer().write(data).unwrap_or(0)
    }

    /// The next plaintext that came in.
    pub fn poll_plain(&mut self) -> Option<Bytes> {
        let plain = self.plain.pop_front()?;
        self.unread -= plain.len();
        Some(plain)
    }

    /// Says that nothing more will be written. What was written before goes first.
    pub fn close(&mut self) {
        self.closed = true;
        self.connection.send_close_notify();
    }
}

/// Takes a number of bytes.
struct Limited {
    bytes: BytesMut,
    space: usize,
}

impl Write for Limited {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(self.space);
        self.bytes.extend_from_slice(&data[..taken]);
        self.space -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
