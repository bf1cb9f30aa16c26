//! One TCP connection of a driven program: what is to be written, whether it reads, how it ends.

use bytes::{Buf, Bytes, BytesMut};
use program::ConnId;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at a time. A TLS record is at most as long (RFC 8446 §5.2), and so is no frame of a busy relay.
const READ: usize = 16 * 1024;

/// A timer of the network that a connection is on.
pub(crate) type Timer = Pin<Box<dyn Future<Output = ()>>>;

/// A connection, shared between the driver, which writes, and the future that waits for the socket.
pub(crate) struct Conn<S> {
    stream: S,
    buffer: BytesMut,
    out: VecDeque<Bytes>,
    queued: usize,
    /// Bytes that may wait to be written.
    limit: usize,
    /// What the program believes it may still write.
    credit: usize,
    held: bool,
    /// The program has closed it: what is queued still goes out, for as long as this timer runs.
    closing: Option<Timer>,
    shut: bool,
    waker: Option<Waker>,
}

/// What came of waiting for a connection. Several may come true at once.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    /// Bytes arrived.
    pub(crate) read: Option<Bytes>,
    /// The program may write more than it believes: see [`Conn::credit`].
    pub(crate) space: bool,
    /// It is over, and the socket of no more use.
    pub(crate) over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    pub(crate) fn new(stream: S, limit: usize) -> Rc<RefCell<Conn<S>>> {
        Rc::new(RefCell::new(Conn {
            stream,
            buffer: BytesMut::new(),
            out: VecDeque::new(),
            queued: 0,
            limit,
            credit: 0,
            held: false,
            closing: None,
            shut: false,
            waker: None,
        }))
    }

    /// Queues bytes; those beyond the space that the program was told of are not taken, and their number is returned.
    pub(crate) fn write(&mut self, mut data: Bytes) -> usize {
        let lost = data.len().saturating_sub(self.credit);
        data.truncate(self.credit);
        self.credit -= data.len();
        self.queued += data.len();
        if !data.is_empty() {
            self.out.push_back(data);
            self.wake();
        }
        lost
    }

    /// Stops or resumes reading.
    pub(crate) fn hold(&mut self, hold: bool) {
        self.held = hold;
        self.wake();
    }

    /// Ends it once what is queued has gone out and the other side has closed too, or when the timer ends.
    pub(crate) fn close(&mut self, timer: Timer) {
        self.closing = Some(timer);
        self.wake();
    }

    /// What the program may still write.
    pub(crate) fn credit(&self) -> usize {
        self.credit
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.queued == 0
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        let mut happened = Happened::default();
        if self.poll_write(cx).is_err() {
            happened.over = true;
            return Poll::Ready(happened);
        }
        if self.closing.is_some() {
            ready!(self.poll_end(cx));
            happened.over = true;
            return Poll::Ready(happened);
        }
        let space = self.limit - self.queued;
        if space > self.credit {
            self.credit = space;
            happened.space = true;
        }
        if !self.held {
            match self.poll_read(cx) {
                Poll::Ready(Ok(data)) if data.is_empty() => happened.over = true,
                Poll::Ready(Ok(data)) => happened.read = Some(data),
                Poll::Ready(Err(_)) => happened.over = true,
                Poll::Pending => {}
            }
        }
        if happened.read.is_none() && !happened.space && !happened.over {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(happened)
    }

    /// Writes what goes now.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        while let Some(data) = self.out.front_mut() {
            let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, data) else { break };
            let written = written?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.queued -= written;
            data.advance(written);
            if data.is_empty() {
                self.out.pop_front();
            }
        }
        // What was written may wait in the stream itself, where that has a buffer.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<Bytes>> {
        self.buffer.resize(READ, 0);
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let len = buffer.filled().len();
        // A short read does not keep the whole buffer alive for its few bytes.
        Poll::Ready(Ok(if len * 4 < READ {
            Bytes::copy_from_slice(&self.buffer[..len])
        } else {
            let mut data = self.buffer.split_to(READ);
            data.truncate(len);
            data.freeze()
        }))
    }

    /// Closes: first our direction, then waits for the other side to have read it all, as a socket that is closed with unread
    /// bytes is reset and takes with it what has not arrived (RFC 1122 §4.2.2.13).
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.closing.as_mut().map(|timer| timer.as_mut().poll(cx));
        if timer.is_none_or(|timer| timer.is_ready()) {
            return Poll::Ready(());
        }
        self.waker = Some(cx.waker().clone());
        if !self.out.is_empty() {
            return Poll::Pending;
        }
        if !self.shut {
            let result = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
            self.shut = true;
            if result.is_err() {
                return Poll::Ready(());
            }
        }
        loop {
            match ready!(self.poll_read(cx)) {
                Ok(data) if !data.is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

/// Waits until there is something to tell of a connection.
pub(crate) async fn wait<S: AsyncRead + AsyncWrite + Unpin>(
    id: ConnId,
    conn: Rc<RefCell<Conn<S>>>,
) -> (ConnId, Happened) {
    let happened = poll_fn(|cx| conn.borrow_mut().poll(cx)).await;
    (id, happened)
}
