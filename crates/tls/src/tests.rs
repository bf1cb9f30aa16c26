use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};

use crate::*;

const NAME: &str = "relay.example";
const DAY: Duration = Duration::from_secs(86_400);
const START: Duration = Duration::from_secs(1_750_000_000);

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn identity() -> Identity {
    Identity::self_signed([7; 32], &[NAME, "192.0.2.1"], START - DAY, START + DAY).unwrap()
}

struct Pair {
    now: Instant,
    client: Tls,
    server: Tls,
    /// Bytes handed over at once.
    chunk: usize,
    wire: Vec<u8>,
}

impl Pair {
    fn new(client: &ClientConfig, name: &str, seed: u64, at: Duration) -> Pair {
        Pair::at(&identity(), client, name, seed, at)
    }

    fn at(server: &Identity, client: &ClientConfig, name: &str, seed: u64, at: Duration) -> Pair {
        let now = start();
        let clock = Clock::new(at, now);
        let rng = |n| ChaCha12Rng::seed_from_u64(seed * 2 + n);
        let server = ServerConfig::new(server).unwrap();
        Pair {
            now,
            client: Tls::client(client, name, rng(0), clock, now).unwrap(),
            server: Tls::server(&server, rng(1), clock).unwrap(),
            chunk: usize::MAX,
            wire: Vec::new(),
        }
    }

    fn pinned(seed: u64) -> Pair {
        Pair::new(&ClientConfig::pinned(identity().pin()), NAME, seed, START)
    }

    /// Moves bytes until none are left; the first error of each side.
    fn run(&mut self) -> (Option<Error>, Option<Error>) {
        let Pair { now, client, server, chunk, wire } = self;
        let mut carry = |from: &mut Tls, to: &mut Tls, error: &mut Option<Error>| {
            let Some(bytes) = from.poll_wire(usize::MAX) else { return false };
            wire.extend_from_slice(&bytes);
            for piece in bytes.chunks(*chunk) {
                if let Err(why) = to.feed_wire(piece, *now) {
                    error.get_or_insert(why);
                }
            }
            true
        };
        let (mut of_client, mut of_server) = (None, None);
        while carry(client, server, &mut of_server) || carry(server, client, &mut of_client) {}
        (of_client, of_server)
    }
}

fn read(tls: &mut Tls) -> Vec<u8> {
    std::iter::from_fn(|| tls.poll_plain()).flatten().collect()
}

/// A conversation: what each side read, and everything on the wire.
fn talk(seed: u64, chunk: usize) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut pair = Pair::pinned(seed);
    pair.chunk = chunk;
    assert_eq!(pair.client.write_plain(b"before the handshake"), 20);
    assert_eq!(pair.run(), (None, None));
    pair.server.write_plain(&[9; 40_000]);
    assert_eq!(pair.run(), (None, None));
    (read(&mut pair.server), read(&mut pair.client), pair.wire)
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_seed_others() {
    let (first, again, other) = (talk(1, usize::MAX), talk(1, usize::MAX), talk(2, usize::MAX));
    assert_eq!(first.2, again.2);
    assert_ne!(first.2, other.2);
    assert_eq!((&first.0[..], first.1.len()), (&b"before the handshake"[..], 40_000));
}

#[test]
fn the_wire_shows_none_of_the_plaintext() {
    let (.., wire) = talk(1, usize::MAX);
    assert!(!wire.windows(8).any(|bytes| bytes == [9; 8] || bytes == b"before t"));
}

#[test]
fn cut_anywhere_it_is_the_same_conversation() {
    let whole = talk(1, usize::MAX);
    for chunk in [1, 2, 5, 21, 22, 1000, 16_406] {
        assert_eq!(talk(1, chunk), whole, "pieces of {chunk}");
    }
}

#[test]
fn a_server_with_another_key_is_refused_and_told() {
    let mut pair = Pair::new(&ClientConfig::pinned(Pin([0; 32])), NAME, 1, START);
    let (of_client, of_server) = pair.run();
    assert_eq!(of_client, Some(Error::WrongPin));
    assert!(matches!(of_server, Some(Error::Alert(_))), "{of_server:?}");
    assert_eq!(pair.client.write_plain(b"secret"), 0);
}

#[test]
fn the_whole_certificate_can_be_pinned_too() {
    let of_certificate = ring::digest::digest(&ring::digest::SHA256, &identity().chain[0]);
    let pin = Pin(of_certificate.as_ref().try_into().unwrap());
    assert_eq!(Pair::new(&ClientConfig::pinned(pin), NAME, 1, START).run(), (None, None));
}

#[test]
fn a_pinned_certificate_counts_within_its_dates_only() {
    let config = ClientConfig::pinned(identity().pin());
    let at = |at| Pair::new(&config, "another.example", 1, at).run().0;
    assert_eq!(at(START), None);
    assert_eq!(at(START + 2 * DAY), Some(Error::Expired));
    assert_eq!(at(START - 2 * DAY), Some(Error::NotYetValid));
}

#[test]
fn an_authority_vouches_for_a_name_and_for_no_other() {
    let identity = identity();
    let (pem, _) = identity.to_pem().unwrap();
    let config = ClientConfig::with_authorities(pem.as_bytes()).unwrap();
    let name = |name| Pair::new(&config, name, 1, START).run().0;
    assert_eq!((name(NAME), name("192.0.2.1")), (None, None));
    assert!(matches!(name("another.example"), Some(Error::Certificate(_))));
    assert_eq!(Pair::new(&config, NAME, 1, START + 2 * DAY).run().0, Some(Error::Expired));

    let other = Identity::self_signed([8; 32], &[NAME], START - DAY, START + DAY).unwrap();
    let stranger = ClientConfig::with_authorities(other.to_pem().unwrap().0.as_bytes()).unwrap();
    let refused = Pair::new(&stranger, NAME, 1, START).run().0;
    assert!(matches!(refused, Some(Error::Certificate(_))), "{refused:?}");
}

#[test]
fn an_identity_comes_back_from_its_file() {
    let made = identity();
    let (chain, key) = made.to_pem().unwrap();
    let read = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!((read.pin(), &read.chain), (made.pin(), &made.chain));
    assert_eq!(made.pin().to_string().parse::<Pin>(), Ok(made.pin()));
    let wrong = Identity::from_pem(b"nothing", key.as_bytes()).unwrap_err();
    assert_eq!(wrong.to_string(), "the certificate file: it holds no certificate");
    assert!(Identity::from_pem(chain.as_bytes(), chain.as_bytes()).is_err());
}

#[test]
fn the_relays_key_rides_behind_the_certificate_and_harms_nobody() {
    let made = identity();
    let pin = made.pin();
    let meta = made.with_derp_key([1; 32], &"ab".repeat(32), 2, START, START + DAY).unwrap();
    assert_eq!((meta.pin(), meta.chain.len()), (pin, 2));
    assert!(meta.chain[1].windows(9).any(|bytes| bytes == b"derpkeyab"));
    let mut pair = Pair::at(&meta, &ClientConfig::pinned(pin), NAME, 1, START);
    assert_eq!(pair.run(), (None, None));
}

#[test]
fn a_close_is_heard_after_what_was_written_before() {
    let mut pair = Pair::pinned(1);
    pair.run();
    pair.client.write_plain(b"last words");
    pair.client.close();
    pair.run();
    assert_eq!((read(&mut pair.server), pair.server.peer_closed()), (b"last words".to_vec(), true));
    assert_eq!(pair.client.write_plain(b"more"), 0);
}

#[test]
fn what_is_not_taken_off_is_bounded() {
    let mut pair = Pair::pinned(1);
    pair.run();
    let taken: usize = (0..100).map(|_| pair.client.write_plain(&[0; 10_000])).sum();
    assert!((MAX_UNSENT / 2..=MAX_UNSENT).contains(&taken), "{taken}");
    let waiting: usize = std::iter::from_fn(|| pair.client.poll_wire(999)).map(|bytes| bytes.len()).sum();
    assert!(waiting <= MAX_UNSENT + 64 * 1024, "{waiting}");

    let mut pair = Pair::pinned(1);
    let mut overflow = None;
    while overflow.is_none() {
        pair.client.write_plain(&[0; 60_000]);
        overflow = pair.run().1;
    }
    assert!(matches!(overflow, Some(Error::Overflow(_))), "{overflow:?}");
}

#[test]
fn room_is_what_fits_and_no_less() {
    for space in [0, 1, 22, 23, 1500, 16_405, 16_406, 16_407, 16_430, 70_000] {
        let mut pair = Pair::pinned(1);
        pair.run();
        let fits = room(space);
        if fits > 0 {
            assert_eq!(pair.client.write_plain(&vec![0; fits]), fits);
        }
        let wire = pair.client.poll_wire(usize::MAX).map_or(0, |bytes| bytes.len());
        assert!(wire <= space, "{fits} bytes became {wire} of {space}");
        let mut pair = Pair::pinned(1);
        pair.run();
        pair.client.write_plain(&vec![0; fits + 1]);
        let wire = pair.client.poll_wire(usize::MAX).map_or(0, |bytes| bytes.len());
        assert!(wire > space, "{} bytes would fit {space}", fits + 1);
    }
}

#[test]
fn both_sides_agree_on_what_is_spoken_inside() {
    let client = ClientConfig::pinned(identity().pin()).with_alpn(&["h2", "http/1.1"]);
    let mut pair = Pair::new(&client, NAME, 1, START);
    let server = ServerConfig::new(&identity()).unwrap().with_alpn(&["http/1.1"]);
    pair.server = Tls::server(&server, ChaCha12Rng::seed_from_u64(1), Clock::new(START, pair.now)).unwrap();
    assert_eq!(pair.run(), (None, None));
    assert_eq!((pair.client.alpn(), pair.server.alpn()), (Some(&b"http/1.1"[..]), Some(&b"http/1.1"[..])));
}

#[test]
fn plain_http_on_the_secure_port_is_an_error() {
    let mut pair = Pair::pinned(1);
    let error = pair.server.feed_wire(b"GET /derp HTTP/1.1\r\n\r\n", pair.now).unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
    assert_eq!(pair.server.feed_wire(b"again", pair.now), Err(error));
}

#[test]
fn a_name_that_is_none_is_an_error() {
    let (config, now) = (ClientConfig::pinned(Pin([0; 32])), start());
    let rng = ChaCha12Rng::seed_from_u64(1);
    let made = Tls::client(&config, "not a name", rng, Clock::new(START, now), now);
    assert_eq!(made.err(), Some(Error::Name("not a name".into())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_survived_at_any_time(
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 20u8..24,
        before in 0usize..4,
    ) {
        let mut pair = Pair::pinned(1);
        for _ in 0..before {
            if let Some(bytes) = pair.client.poll_wire(700) {
                let _ = pair.server.feed_wire(&bytes, pair.now);
            }
            if let Some(bytes) = pair.server.poll_wire(700) {
                let _ = pair.client.feed_wire(&bytes, pair.now);
            }
        }
        let mut record = vec![kind, 3, 3];
        record.extend((garbage.len() as u16).to_be_bytes());
        record.extend(&garbage);
        for tls in [&mut pair.client, &mut pair.server] {
            let _ = tls.feed_wire(&record, pair.now);
            let _ = tls.feed_wire(&garbage, pair.now);
            prop_assert_eq!(read(tls), Vec::<u8>::new());
            let _: Option<Bytes> = tls.poll_wire(100);
        }
    }

    #[test]
    fn altered_bytes_are_never_plaintext(at in 0usize..1000, bit in 0u8..8) {
        let mut pair = Pair::pinned(1);
        pair.run();
        pair.client.write_plain(&[5; 900]);
        let mut bytes = pair.client.poll_wire(usize::MAX).unwrap().to_vec();
        let at = at % bytes.len();
        // The version of a record is to be ignored (RFC 8446 §5.1).
        prop_assume!(!(1..3).contains(&at));
        bytes[at] ^= 1 << bit;
        let _ = pair.server.feed_wire(&bytes, pair.now);
        prop_assert_eq!(read(&mut pair.server), Vec::<u8>::new());
    }

    #[test]
    fn any_bytes_are_a_file_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[ -~]{0,70}") {
        let _ = Identity::from_pem(&bytes, &bytes);
        let _ = ClientConfig::with_authorities(&bytes);
        let _ = text.parse::<Pin>();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        let _ = Identity::from_pem(pem.as_bytes(), pem.as_bytes());
    }
}
