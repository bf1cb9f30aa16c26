//! Preamble, Noise handshake, records and the messages in them: what both ends of a stream share.

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, TransportState};

use crate::Error;

/// What each side sends first: a name and the version.
pub const PREAMBLE: [u8; 8] = *b"PBcoord\x01";
/// The longest message a server accepts, in bytes: a registration or an update with all the endpoints it may have.
pub const MAX_FROM_CLIENT: u32 = 64 * 1024;
/// The longest message a client accepts, in bytes: the full map of some fifteen thousand nodes with all the endpoints they may
/// have.
pub const MAX_FROM_SERVER: u32 = 32 * 1024 * 1024;

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const TAG: usize = 16;
/// Noise specification §3.
const MAX_NOISE: usize = 65_535;
/// `e, es, s, ss` and `e, ee, se` with empty payloads (Noise specification §7.5).
const INITIATION: usize = 32 + 32 + TAG + TAG;
const RESPONSE: usize = 32 + TAG;
/// A record is not cut below this for want of space; the rest of it then waits in sealed form.
const MIN_CHUNK: usize = 1024;

/// One end of a stream.
pub(crate) struct Channel {
    state: State,
    initiator: bool,
    max_message: u32,
    input: BytesMut,
    /// Verified plaintext that is no whole message yet.
    plain: BytesMut,
    /// Messages, or what is left of them, that are not sealed yet.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Sealed bytes to write.
    output: BytesMut,
    records: u64,
}

enum State {
    Preamble(Box<HandshakeState>),
    Handshake(Box<HandshakeState>),
    Open(Box<TransportState>),
    Broken,
}

/// What came in.
pub(crate) enum Incoming {
    /// The handshake is done; on the server with the client's machine key.
    Opened { remote: [u8; 32] },
    /// The JSON of one message.
    Message(Bytes),
}

impl Channel {
    /// The client's end.
    pub(crate) fn initiator(private: &[u8; 32], server: &[u8; 32], rng: &mut ChaCha12Rng) -> Channel {
        let mut first = [0; INITIATION];
        let handshake = builder(rng).and_then(|builder| {
            let builder = builder.local_private_key(private)?.remote_public_key(server)?;
            let mut handshake = builder.build_initiator()?;
            handshake.write_message(&[], &mut first)?;
            Ok(handshake)
        });
        let mut channel = Channel::new(handshake, true, MAX_FROM_SERVER);
        put_record(&first, &mut channel.output);
        channel
    }

    /// The server's end.
    pub(crate) fn responder(private: &[u8; 32], rng: &mut ChaCha12Rng) -> Channel {
        let handshake =
            builder(rng).and_then(|builder| builder.local_private_key(private)?.build_responder());
        Channel::new(handshake, false, MAX_FROM_CLIENT)
    }

    fn new(handshake: Result<HandshakeState, snow::Error>, initiator: bool, max_message: u32) -> Channel {
        Channel {
            state: handshake.map_or(State::Broken, |handshake| State::Preamble(Box::new(handshake))),
            initiator,
            max_message,
            input: BytesMut::new(),
            plain: BytesMut::new(),
            queue: VecDeque::new(),
            queued: 0,
            output: BytesMut::from(&PREAMBLE[..]),
            records: 0,
        }
    }

    /// Takes bytes from the stream; [`next`](Channel::next) is to be called until it has nothing more.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next thing in the bytes fed so far. After an error there is nothing more.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, Error> {
        let next = self.advance();
        if next.is_err() {
            self.state = State::Broken;
            self.input.clear();
            self.plain.clear();
        }
        next
    }

    /// How many records were verified: progress that proves the other side alive.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Queues a framed message; it is sealed when there is space to write it.
    pub(crate) fn push(&mut self, message: Bytes) {
        self.queued += message.len();
        self.queue.push_back(message);
    }

    /// Bytes that wait to be written.
    pub(crate) fn backlog(&self) -> usize {
        self.queued + self.output.len()
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty() || (matches!(self.state, State::Open(_)) && !self.queue.is_empty())
    }

    /// Up to `space` bytes to write; at most one record.
    pub(crate) fn pull(&mut self, space: usize) -> Option<Bytes> {
        if space == 0 {
            return None;
        }
        if self.output.is_empty() {
            self.seal(space);
        }
        let length = self.output.len().min(space);
        (length > 0).then(|| self.output.split_to(length).freeze())
    }

    fn advance(&mut self) -> Result<Option<Incoming>, Error> {
        loop {
            if let Some(message) = self.message()? {
                return Ok(Some(Incoming::Message(message)));
            }
            match std::mem::replace(&mut self.state, State::Broken) {
                State::Broken => return Ok(None),
                State::Preamble(handshake) => {
                    let seen = self.input.len().min(PREAMBLE.len());
                    let name = seen.min(PREAMBLE.len() - 1);
                    if self.input[..name] != PREAMBLE[..name] {
                        return Err(Error::WrongProtocol);
                    }
                    if seen < PREAMBLE.len() {
                        self.state = State::Preamble(handshake);
                        return Ok(None);
                    }
                    if self.input[..seen] != PREAMBLE {
                        return Err(Error::Version(self.input[seen - 1]));
                    }
                    self.input.advance(seen);
                    self.state = State::Handshake(handshake);
                }
                State::Handshake(mut handshake) => {
                    let expected = if self.initiator { RESPONSE } else { INITIATION };
                    let Some(record) = self.record(expected..=expected, Error::Handshake)? else {
                        self.state = State::Handshake(handshake);
                        return Ok(None);
                    };
                    handshake.read_message(&record, &mut []).map_err(|_| Error::Handshake)?;
                    if !self.initiator {
                        let mut response = [0; RESPONSE];
                        handshake.write_message(&[], &mut response).map_err(|_| Error::Handshake)?;
                        put_record(&response, &mut self.output);
                    }
                    let remote = handshake.get_remote_static().and_then(|key| key.try_into().ok());
                    let remote = remote.ok_or(Error::Handshake)?;
                    let transport = handshake.into_transport_mode().map_err(|_| Error::Handshake)?;
                    self.state = State::Open(Box::new(transport));
                    self.records += 1;
                    return Ok(Some(Incoming::Opened { remote }));
                }
                State::Open(mut transport) => {
                    let Some(record) = self.record(TAG..=MAX_NOISE, Error::Record)? else {
                        self.state = State::Open(transport);
                        return Ok(None);
                    };
                    let start = self.plain.len();
                    self.plain.resize(start + record.len() - TAG, 0);
                    transport.read_message(&record, &mut self.plain[start..]).map_err(|_| Error::Record)?;
                    self.state = State::Open(transport);
                    self.records += 1;
                }
            }
        }
    }

    /// A whole record, if it is there; an error as soon as its length is out of bounds.
    fn record(
        &mut self,
        lengths: std::ops::RangeInclusive<usize>,
        error: Error,
    ) -> Result<Option<BytesMut>, Error> {
        let Some(length) = self.input.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))
        else {
            return Ok(None);
        };
        if !lengths.contains(&length) {
            return Err(error);
        }
        if self.input.len() < 2 + length {
            return Ok(None);
        }
        self.input.advance(2);
        Ok(Some(self.input.split_to(length)))
    }

    fn message(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(length) = self.plain.first_chunk().map(|length| u32::from_be_bytes(*length)) else {
            return Ok(None);
        };
        if length > self.max_message {
            return Err(Error::TooLong(length));
        }
        let end = 4 + length as usize;
        if self.plain.len() < end {
            return Ok(None);
        }
        self.plain.advance(4);
        Ok(Some(self.plain.split_to(end - 4).freeze()))
    }

    /// Seals as much of the queue as fits one record and `space`.
    fn seal(&mut self, space: usize) {
        let State::Open(transport) = &mut self.state else { return };
        let limit = space.saturating_sub(2 + TAG).clamp(MIN_CHUNK, MAX_NOISE - TAG);
        let mut plain = BytesMut::with_capacity(self.queued.min(limit));
        while let Some(mut front) = self.queue.pop_front() {
            let part = front.split_to(front.len().min(limit - plain.len()));
            plain.extend_from_slice(&part);
            if !front.is_empty() {
                self.queue.push_front(front);
                break;
            }
        }
        if plain.is_empty() {
            return;
        }
        self.queued -= plain.len();
        let mut record = vec![0; plain.len() + TAG];
        match transport.write_message(&plain, &mut record) {
            Ok(length) => put_record(&record[..length], &mut self.output),
            // Only after 2^64 - 1 records.
            Err(_) => self.state = State::Broken,
        }
    }
}

fn put_record(noise: &[u8], output: &mut BytesMut) {
    output.put_u16(u16::try_from(noise.len()).expect("a Noise message has at most 65535 bytes"));
    output.extend_from_slice(noise);
}

fn builder<'key>(rng: &mut ChaCha12Rng) -> Result<Builder<'key>, snow::Error> {
    let params: NoiseParams = PATTERN.parse()?;
    // Each handshake draws from a stream of its own, so that what one consumes does not shift another.
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let resolver = Resolver(ChaCha12Rng::from_seed(seed));
    Builder::with_resolver(params, Box::new(resolver)).prologue(&PREAMBLE)
}

/// Ring's cipher, and randomness that was handed in.
struct Resolver(ChaCha12Rng);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

struct Seeded(ChaCha12Rng);

impl Random for Seeded {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(out);
        Ok(())
    }
}
