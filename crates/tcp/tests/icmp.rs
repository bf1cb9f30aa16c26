//! ICMP errors: what they end, what they change, and what they must not.

use bytes::Bytes;
use std::time::{Duration, Instant};
use tcp::{Config, Connection, Event, Segment, State};

const MS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn start() -> Instant {
    Instant::now()
}

/// Two connections and the time, on a path that drops segments with more than `limit` bytes.
struct Pair {
    client: Connection,
    server: Connection,
    now: Instant,
    limit: usize,
    /// Sequence numbers of the segments that did not fit.
    refused: Vec<u32>,
    received: Vec<u8>,
    /// The longest segment that arrived.
    longest: usize,
}

impl Pair {
    fn established() -> Pair {
        let now = start();
        let mut client = Connection::connect(Config::default(), 7_000, now);
        let syn = client.poll_transmit(now).expect("a SYN");
        let server = Connection::accept(Config::default(), 90_000, &syn, now);
        let mut pair =
            Pair { client, server, now, limit: 1460, refused: vec![], received: vec![], longest: 0 };
        pair.run(10);
        assert_eq!(pair.client.state(), State::Established);
        pair
    }

    /// Plays some steps of a millisecond each, which is also the time that a segment takes.
    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.now += MS;
            let now = self.now;
            for connection in [&mut self.client, &mut self.server] {
                if connection.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    connection.handle_timeout(now);
                }
            }
            let out: Vec<Segment> = std::iter::from_fn(|| self.client.poll_transmit(now)).collect();
            for segment in out {
                if segment.wire_len() > self.limit {
                    self.refused.push(segment.seq);
                } else {
                    self.longest = self.longest.max(segment.wire_len());
                    self.server.handle(&segment, now);
                }
            }
            while let Some(data) = self.server.read() {
                self.received.extend_from_slice(&data);
            }
            while let Some(segment) = self.server.poll_transmit(now) {
                self.client.handle(&segment, now);
            }
        }
    }
}

#[test]
fn rfc1122_4_2_3_9_an_error_ends_a_connection_that_is_opening() {
    let now = start();
    let mut connection = Connection::connect(Config::default(), 7_000, now);
    let syn = connection.poll_transmit(now).expect("a SYN");

    connection.unreachable(syn.seq);

    assert_eq!(connection.poll_event(), Some(Event::Unreachable));
    assert!(connection.is_closed());
}

#[test]
fn rfc5927_6_an_error_does_not_end_an_established_connection() {
    let mut pair = Pair::established();
    pair.client.write(Bytes::from_static(b"hello"));
    let segment = pair.client.poll_transmit(pair.now).expect("data");

    pair.client.unreachable(segment.seq);

    assert_eq!(pair.client.state(), State::Established);
    pair.run(2_000);
    assert_eq!(pair.received, b"hello", "it is sent again");
}

#[test]
fn rfc5927_4_1_an_error_about_what_is_not_in_flight_is_ignored() {
    let now = start();
    let mut connection = Connection::connect(Config::default(), 7_000, now);
    let syn = connection.poll_transmit(now).expect("a SYN");
    for wrong in [syn.seq.wrapping_sub(1), syn.seq + 1, syn.seq.wrapping_add(0x8000_0000)] {
        connection.unreachable(wrong);
        assert_eq!(connection.state(), State::SynSent);
    }

    let mut pair = Pair::established();
    let before = pair.client.stats().mss;
    pair.client.path_mss(7_000, 500, pair.now);
    assert_eq!(pair.client.stats().mss, before, "nothing is in flight");
}

#[test]
fn rfc1191_what_was_too_long_is_cut_up_and_arrives_whole() {
    let mut pair = Pair::established();
    pair.limit = 1240;
    let sent: Vec<u8> = (0..60_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    let mut offered = Bytes::from(sent.clone());
    let window = pair.client.stats().cwnd;

    for _ in 0..2_000 {
        let taken = pair.client.write(offered.clone());
        offered = offered.slice(taken..);
        pair.run(1);
        for seq in std::mem::take(&mut pair.refused) {
            pair.client.path_mss(seq, 1220, pair.now);
        }
    }

    assert_eq!(pair.received.len(), sent.len());
    assert!(pair.received == sent, "the stream is in order");
    assert_eq!(pair.longest, 1240, "an MSS of 1220 and a header of twenty bytes");
    assert_eq!(pair.client.stats().timeouts, 0, "no time-out was needed");
    assert!(pair.client.stats().cwnd >= window, "RFC 1191 §6.4: nobody blames congestion");
}

#[test]
fn rfc1191_without_the_error_nothing_arrives() {
    let mut pair = Pair::established();
    pair.limit = 1240;
    pair.client.write(Bytes::from(vec![1; 10_000]));

    pair.run(5_000);

    assert!(pair.received.is_empty() || pair.received.len() < 1240, "only a short tail fits");
}

#[test]
fn a_path_that_is_wider_than_the_connection_changes_nothing() {
    let mut pair = Pair::established();
    pair.client.write(Bytes::from(vec![1; 3_000]));
    let segment = pair.client.poll_transmit(pair.now).expect("data");

    pair.client.path_mss(segment.seq, 9_000, pair.now);

    assert_eq!(pair.client.stats().mss, 1448);
    assert_eq!(pair.client.stats().retransmits, 0);
}
