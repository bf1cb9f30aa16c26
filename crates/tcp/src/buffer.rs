//! A queue of bytes that shares large pieces and gathers small ones.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Pieces below this are copied together: a reference-counted slice of one byte costs far more than the byte.
const SMALL: usize = 512;
/// Room for small pieces taken at a time.
const GATHER: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    pieces: VecDeque<Bytes>,
    /// Small pieces behind `pieces`.
    tail: BytesMut,
    len: usize,
}

impl ByteQueue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.is_empty() {
        } else if piece.len() < SMALL && !(self.tail.is_empty() && self.pieces.is_empty()) {
            if self.tail.is_empty() {
                self.tail.reserve(GATHER);
            }
            self.tail.extend_from_slice(&piece);
            if self.tail.len() >= GATHER {
                self.flush();
            }
        } else {
            self.flush();
            self.pieces.push_back(piece);
        }
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// The next piece, whole.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.flush();
        }
        let piece = self.pieces.pop_front()?;
        self.len -= piece.len();
        Some(piece)
    }

    /// The next `want` bytes (fewer if there are not so many): shared if they lie in one piece, else copied.
    pub(crate) fn take(&mut self, want: usize) -> Bytes {
        let want = want.min(self.len);
        if self.pieces.is_empty() {
            self.flush();
        }
        if let Some(front) = self.pieces.front_mut()
            && front.len() > want
        {
            self.len -= want;
            return front.split_to(want);
        }
        if self.pieces.front().is_some_and(|front| front.len() == want) {
            return self.pop().unwrap_or_default();
        }
        let mut gathered = BytesMut::with_capacity(want);
        while gathered.len() < want {
            if self.pieces.is_empty() {
                self.flush();
            }
            let Some(front) = self.pieces.front_mut() else { break };
            let part = front.len().min(want - gathered.len());
            gathered.extend_from_slice(&front[..part]);
            front.advance(part);
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.len -= gathered.len();
        gathered.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            steps in proptest::collection::vec((0usize..2000, 0usize..2000, any::<bool>()), 0..60),
        ) {
            let mut queue = ByteQueue::default();
            let (mut written, mut read) = (Vec::new(), Vec::new());
            let mut counter = 0u8;
            for (push, take, whole) in steps {
                let piece: Vec<u8> = (0..push).map(|_| { counter = counter.wrapping_add(1); counter }).collect();
                written.extend_from_slice(&piece);
                queue.push(piece.into());
                if whole { read.extend_from_slice(&queue.pop().unwrap_or_default()) }
                else { read.extend_from_slice(&queue.take(take)) }
                prop_assert_eq!(queue.len(), written.len() - read.len());
            }
            while let Some(piece) = queue.pop() { read.extend_from_slice(&piece) }
            prop_assert_eq!(read, written);
        }
    }

    #[test]
    fn single_bytes_are_gathered() {
        let mut queue = ByteQueue::default();
        for _ in 0..10_000 {
            queue.push(Bytes::from_static(b"x"));
        }

        assert!(queue.pieces.len() < 5, "{} pieces", queue.pieces.len());
    }
}
