//! Upgrade, Noise handshake, records and the messages in them: what both ends of a stream share.

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
use crate::http::{self, Asked, Door, INITIATION};

/// The longest message a server accepts, in bytes: a registration or an update with all the endpoints it may have.
pub const MAX_FROM_CLIENT: u32 = 64 * 1024;
/// The longest message a client accepts, in bytes: the full map of some fifteen thousand nodes with all the endpoints they may
/// have.
pub const MAX_FROM_SERVER: u32 = 32 * 1024 * 1024;

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const TAG: usize = 16;
/// Noise specification §3.
const MAX_NOISE: usize = 65_535;
/// `e, ee, se` with an empty payload (Noise specification §7.5).
const RESPONSE: usize = 32 + TAG;
/// A record is not cut below this for want of space; the rest of it then waits in sealed form.
const MIN_CHUNK: usize = 1024;

/// One end of a stream.
pub(crate) struct Channel {
    state: State,
    max_message: u32,
    input: BytesMut,
    /// Bytes of the input in which no head ends.
    scanned: usize,
    /// Verified plaintext that is no whole message yet.
    plain: BytesMut,
    /// Messages, or what is left of them, that are not sealed yet.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Sealed bytes to write.
    output: BytesMut,
    records: u64,
    /// The handshake's hash: no other stream has the same.
    transcript: [u8; 32],
}

enum State {
    /// The server's end, before the request.
    Asked(Box<([u8; 32], ChaCha12Rng)>),
    /// The client's end, before the response.
    Answered(Box<HandshakeState>),
    /// The client's end, before the handshake's second message.
    Handshake(Box<HandshakeState>),
    Open(Box<TransportState>),
    Broken,
}

/// What came in.
pub(crate) enum Incoming {
    /// The handshake is done; on the server with the client's key.
    Opened { remote: [u8; 32], door: Door },
    /// A request that is not about a stream; the answer waits to be written.
    Served,
    /// The JSON of one message.
    Message(Bytes),
}

impl Channel {
    /// The client's end.
    pub(crate) fn initiator(
        private: &[u8; 32],
        server: &[u8; 32],
        host: &str,
        door: Door,
        rng: &mut ChaCha12Rng,
    ) -> Channel {
        let mut first = [0; INITIATION];
        let prologue = door.prologue();
        let handshake = builder(fork(rng), prologue.as_bytes()).and_then(|builder| {
            let builder = builder.local_private_key(private)?.remote_public_key(server)?;
            let mut handshake = builder.build_initiator()?;
            handshake.write_message(&[], &mut first)?;
            Ok(handshake)
        });
        let state = handshake.map_or(State::Broken, |handshake| State::Answered(Box::new(handshake)));
        let mut channel = Channel::new(state, MAX_FROM_SERVER);
        channel.output.extend_from_slice(http::request(host, door, &first).as_bytes());
        channel
    }

    /// The server's end.
    pub(crate) fn responder(private: &[u8; 32], rng: &mut ChaCha12Rng) -> Channel {
        Channel::new(State::Asked(Box::new((*private, fork(rng)))), MAX_FROM_CLIENT)
    }

    fn new(state: State, max_message: u32) -> Channel {
        Channel {
            state,
            max_message,
            input: BytesMut::new(),
            scanned: 0,
            plain: BytesMut::new(),
            queue: VecDeque::new(),
            queued: 0,
            output: BytesMut::new(),
            records: 0,
            transcript: [0; 32],
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

    /// What names this stream and no other (Noise specification §11.2); zeros before the handshake is done.
    pub(crate) fn transcript(&self) -> &[u8; 32] {
        &self.transcript
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
                State::Asked(ours) => {
                    // Whoever speaks something else than HTTP need not be heard to the end.
                    if self.input.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
                        return Err(Error::WrongProtocol);
                    }
                    let head = match self.head() {
                        Ok(Some(head)) => head,
                        Ok(None) => {
                            self.state = State::Asked(ours);
                            return Ok(None);
                        }
                        Err(error) => {
                            if let Asked::Answer { response, .. } = http::too_large() {
                                self.output.extend_from_slice(&response);
                            }
                            return Err(error);
                        }
                    };
                    match http::asked(&head) {
                        Asked::Upgrade { door, initiation } => {
                            return self.respond(&ours.0, ours.1, door, &initiation).map(Some);
                        }
                        Asked::Answer { status, response } => {
                            self.output.extend_from_slice(&response);
                            self.input.clear();
                            return if status == 200 {
                                Ok(Some(Incoming::Served))
                            } else {
                                Err(Error::Answered(status))
                            };
                        }
                    }
                }
                State::Answered(handshake) => {
                    const START: &[u8] = b"HTTP/1.";
                    let seen = self.input.len().min(START.len());
                    if self.input[..seen] != START[..seen] {
                        return Err(Error::WrongProtocol);
                    }
                    let Some(head) = self.head()? else {
                        self.state = State::Answered(handshake);
                        return Ok(None);
                    };
                    http::switched(&head)?;
                    self.state = State::Handshake(handshake);
                }
                State::Handshake(mut handshake) => {
                    let Some(record) = self.record(RESPONSE..=RESPONSE, Error::Handshake)? else {
                        self.state = State::Handshake(handshake);
                        return Ok(None);
                    };
                    handshake.read_message(&record, &mut []).map_err(|_| Error::Handshake)?;
                    // What a client knows of the door it has said itself.
                    return self.open(*handshake, Door::Machine).map(Some);
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

    /// The head of the request or response, if it is there whole.
    fn head(&mut self) -> Result<Option<BytesMut>, Error> {
        let end = http::end_of_head(&self.input, self.scanned)?;
        self.scanned = self.input.len();
        Ok(end.map(|end| self.input.split_to(end)))
    }

    /// Answers a client's handshake.
    fn respond(
        &mut self,
        private: &[u8; 32],
        rng: ChaCha12Rng,
        door: Door,
        initiation: &[u8; INITIATION],
    ) -> Result<Incoming, Error> {
        let mut response = [0; RESPONSE];
        let prologue = door.prologue();
        let handshake = builder(rng, prologue.as_bytes()).and_then(|builder| {
            let mut handshake = builder.local_private_key(private)?.build_responder()?;
            handshake.read_message(initiation, &mut [])?;
            handshake.write_message(&[], &mut response)?;
            Ok(handshake)
        });
        let Ok(handshake) = handshake else {
            self.output.extend_from_slice(&http::forbidden());
            return Err(Error::Handshake);
        };
        self.output.extend_from_slice(http::switching_protocols().as_bytes());
        put_record(&response, &mut self.output);
        self.open(handshake, door)
    }

    fn open(&mut self, handshake: HandshakeState, door: Door) -> Result<Incoming, Error> {
        let remote = handshake.get_remote_static().and_then(|key| key.try_into().ok());
        let remote = remote.ok_or(Error::Handshake)?;
        self.transcript.copy_from_slice(handshake.get_handshake_hash());
        let transport = handshake.into_transport_mode().map_err(|_| Error::Handshake)?;
        self.state = State::Open(Box::new(transport));
        self.records += 1;
        Ok(Incoming::Opened { remote, door })
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

/// Each handshake draws from a stream of its own, so that what one consumes does not shift another.
fn fork(rng: &mut ChaCha12Rng) -> ChaCha12Rng {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    ChaCha12Rng::from_seed(seed)
}

fn builder(rng: ChaCha12Rng, prologue: &[u8]) -> Result<Builder<'_>, snow::Error> {
    let params: NoiseParams = PATTERN.parse()?;
    Builder::with_resolver(params, Box::new(Resolver(rng))).prologue(prologue)
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
