//! Does a connection begin with a TLS ClientHello?

/// The record header and the type of the handshake message in it.
const PREFIX: usize = 6;
/// Content type of a handshake record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// Major version of every record layer since SSL 3.0 (RFC 8446 §5.1, `legacy_record_version`).
const MAJOR: u8 = 3;
/// Longest fragment of a record (RFC 8446 §5.1); a handshake record is not empty.
const MAX_FRAGMENT: u16 = 1 << 14;
/// Type of a ClientHello (RFC 8446 §4).
const CLIENT_HELLO: u8 = 1;

/// What is known of the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not enough yet.
    Open,
    /// It is a ClientHello: the box looks no further.
    Tls,
    /// It is something else: the connection is cut off.
    Cut,
}

/// Watches the bytes of one connection, whatever segments they come in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inspection {
    state: State,
    /// Sequence number of the client's first byte; `None` where segments carry no numbers, and come in order.
    first: Option<u32>,
    bytes: [u8; PREFIX],
    /// Which of them are there, a bit for each.
    seen: u8,
}

impl Inspection {
    /// A connection whose SYN had this sequence number.
    pub(super) fn new(syn: Option<u32>) -> Inspection {
        Inspection {
            state: State::Open,
            first: syn.map(|seq| seq.wrapping_add(1)),
            bytes: [0; PREFIX],
            seen: 0,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Bytes of the client, with the sequence number of the first of them (of a SYN: of the SYN itself).
    pub(super) fn client(&mut self, seq: Option<u32>, syn: bool, payload: &[u8]) -> State {
        if self.state != State::Open || payload.is_empty() {
            return self.state;
        }
        let start = match (self.first, seq) {
            // What lies before the first byte is far ahead in this arithmetic, and not looked at.
            (Some(first), Some(seq)) => seq.wrapping_add(u32::from(syn)).wrapping_sub(first) as usize,
            _ => self.seen.count_ones() as usize,
        };
        for (at, byte) in (start..PREFIX).zip(payload) {
            // The first copy of a byte counts: the server may have it already.
            if self.seen & 1 << at == 0 {
                self.bytes[at] = *byte;
                self.seen |= 1 << at;
            }
        }
        self.state = self.judge();
        self.state
    }

    /// Bytes of the server: it never speaks first (RFC 8446 §2).
    pub(super) fn server(&mut self, payload: &[u8]) -> State {
        if self.state == State::Open && !payload.is_empty() {
            self.state = State::Cut;
        }
        self.state
    }

    fn judge(&self) -> State {
        let has = |at: usize| self.seen & 1 << at != 0;
        let is = |at: usize, wanted: u8| !has(at) || self.bytes[at] == wanted;
        let length = u16::from_be_bytes([self.bytes[3], self.bytes[4]]);
        let fits = !(has(3) && has(4)) || (1..=MAX_FRAGMENT).contains(&length);
        if !(is(0, HANDSHAKE) && is(1, MAJOR) && is(5, CLIENT_HELLO) && fits) {
            State::Cut
        } else if self.seen.count_ones() as usize == PREFIX {
            State::Tls
        } else {
            State::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The beginning of a ClientHello as every client sends it: record version 3.1, length 512.
    const HELLO: [u8; 12] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7];

    fn run(bytes: &[u8]) -> State {
        Inspection::new(Some(7)).client(Some(8), false, bytes)
    }

    #[test]
    fn a_client_hello_is_known_by_its_first_six_bytes() {
        assert_eq!(run(&HELLO), State::Tls);
        assert_eq!(run(&HELLO[..6]), State::Tls);
        assert_eq!(run(&HELLO[..5]), State::Open);
    }

    #[test]
    fn everything_else_is_cut() {
        assert_eq!(run(b"GET /derp HTTP/1.1"), State::Cut);
        assert_eq!(run(b"SSH-2.0"), State::Cut);
        for (at, wrong) in [(0, 23), (1, 2), (5, 2), (3, 0x41)] {
            let mut hello = HELLO;
            hello[at] = wrong;
            assert_eq!(run(&hello), State::Cut, "byte {at}");
        }
        let mut empty = HELLO;
        (empty[3], empty[4]) = (0, 0);
        assert_eq!(run(&empty), State::Cut);
    }

    #[test]
    fn a_server_that_speaks_first_is_no_tls_server() {
        let mut inspection = Inspection::new(Some(7));
        assert_eq!(inspection.server(&[]), State::Open);
        assert_eq!(inspection.server(b"220 mail ESMTP"), State::Cut);
        let mut after = Inspection::new(Some(7));
        after.client(Some(8), false, &HELLO);
        assert_eq!(after.server(b"\x16\x03\x03"), State::Tls);
    }

    /// Segments that cover `bytes`, in any order, some of them twice.
    fn segments(len: usize) -> impl Strategy<Value = Vec<(usize, usize)>> {
        let cuts = proptest::collection::btree_set(1..len, 0..len);
        let order = proptest::collection::vec(any::<proptest::sample::Index>(), 0..8);
        (cuts, order, any::<u64>()).prop_map(move |(cuts, again, seed)| {
            let edges: Vec<usize> = std::iter::once(0).chain(cuts).chain([len]).collect();
            let mut parts: Vec<(usize, usize)> = edges.windows(2).map(|w| (w[0], w[1])).collect();
            let copies: Vec<_> = again.iter().map(|i| parts[i.index(parts.len())]).collect();
            parts.extend(copies);
            let mut state = seed | 1;
            for i in (1..parts.len()).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                parts.swap(i, (state >> 33) as usize % (i + 1));
            }
            parts
        })
    }

    proptest! {
        /// However a ClientHello is cut into segments, and in whatever order they come, it is never cut off, and known
        /// once all is there.
        #[test]
        fn a_client_hello_in_any_segments_passes(syn in any::<u32>(), parts in segments(HELLO.len())) {
            let mut inspection = Inspection::new(Some(syn));
            for (from, to) in &parts {
                let seq = syn.wrapping_add(1).wrapping_add(*from as u32);
                prop_assert_ne!(inspection.client(Some(seq), false, &HELLO[*from..*to]), State::Cut);
            }
            prop_assert_eq!(inspection.state(), State::Tls);
        }

        /// In any segments the answer is the one for all the bytes at once, and it never changes once given.
        #[test]
        fn segments_do_not_change_the_answer(
            mut bytes in proptest::collection::vec(any::<u8>(), 12),
            keep in 0_usize..6,
            parts in segments(12),
            syn in any::<u32>(),
        ) {
            bytes[..keep].copy_from_slice(&HELLO[..keep]);
            let whole = Inspection::new(Some(syn)).client(Some(syn.wrapping_add(1)), false, &bytes);
            let mut inspection = Inspection::new(Some(syn));
            let mut said = State::Open;
            for (from, to) in &parts {
                let seq = syn.wrapping_add(1).wrapping_add(*from as u32);
                let state = inspection.client(Some(seq), false, &bytes[*from..*to]);
                prop_assert!(said == State::Open || said == state);
                said = state;
            }
            prop_assert_eq!(said, whole);
        }
    }
}
