//! One test for each requirement that matters, named by where it is written.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod harness;

use bytes::Bytes;
use harness::{Cable, MS, Program, World, start};
use std::time::{Duration, Instant};
use tcp::{Buffer, Config, Connection, Event, Flags, Segment, State};

const SEC: Duration = Duration::from_secs(1);

fn drain(connection: &mut Connection, now: Instant) -> Vec<Segment> {
    std::iter::from_fn(|| connection.poll_transmit(now)).collect()
}

fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

/// Carries segments both ways, at once, until there are none.
fn settle(a: &mut Connection, b: &mut Connection, now: Instant) {
    loop {
        let (from_a, from_b) = (drain(a, now), drain(b, now));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        from_a.iter().for_each(|segment| b.handle(segment, now));
        from_b.iter().for_each(|segment| a.handle(segment, now));
    }
}

/// Two ends of an established connection, with their events drained.
fn pair_of(client: Config, server: Config, now: Instant) -> (Connection, Connection) {
    let mut a = Connection::connect(client, u32::MAX - 5, now);
    let syn = a.poll_transmit(now).unwrap();
    let mut b = Connection::accept(server, 77, &syn, now);
    settle(&mut a, &mut b, now);
    assert_eq!((events(&mut a), events(&mut b)), (vec![Event::Connected], vec![Event::Connected]));
    (a, b)
}

fn pair(now: Instant) -> (Connection, Connection) {
    pair_of(Config::default(), Config::default(), now)
}

/// Runs one connection's timers alone until it has nothing to wait for, and returns when it sent what.
fn alone(connection: &mut Connection, begin: Instant) -> Vec<(Duration, Segment)> {
    let mut now = begin;
    let mut sent = Vec::new();
    loop {
        sent.extend(drain(connection, now).into_iter().map(|segment| (now - begin, segment)));
        let Some((at, _)) = connection.poll_timeout() else { return sent };
        assert!(at >= now, "a deadline in the past");
        now = at;
        connection.handle_timeout(now);
    }
}

fn seconds(sent: &[(Duration, Segment)]) -> Vec<u64> {
    sent.iter().map(|(at, _)| at.as_secs()).collect()
}

#[test]
fn rfc9293_3_5_three_way_handshake() {
    let now = start();
    let mut a = Connection::connect(Config::default(), 100, now);
    let syn = drain(&mut a, now);
    let mut b = Connection::accept(Config::default(), 300, &syn[0], now);
    let syn_ack = drain(&mut b, now);
    a.handle(&syn_ack[0], now);
    let ack = drain(&mut a, now);
    b.handle(&ack[0], now);

    assert_eq!((syn.len(), syn[0].seq, syn[0].flags), (1, 100, Flags::SYN));
    assert_eq!((syn_ack[0].seq, syn_ack[0].ack, syn_ack[0].flags), (300, 101, Flags::SYN | Flags::ACK));
    assert_eq!((ack[0].seq, ack[0].ack, ack[0].flags), (101, 301, Flags::ACK));
    assert_eq!((a.state(), b.state()), (State::Established, State::Established));
    assert!(drain(&mut b, now).is_empty());
}

#[test]
fn rfc9293_3_5_figure_7_simultaneous_open() {
    let now = start();
    let mut a = Connection::connect(Config::default(), 100, now);
    let mut b = Connection::connect(Config::default(), 300, now);
    let (syn_a, syn_b) = (drain(&mut a, now), drain(&mut b, now));
    a.handle(&syn_b[0], now);
    b.handle(&syn_a[0], now);
    let (answer_a, answer_b) = (drain(&mut a, now), drain(&mut b, now));
    assert_eq!((answer_a[0].seq, answer_a[0].ack, answer_a[0].flags), (100, 301, Flags::SYN | Flags::ACK));
    a.handle(&answer_b[0], now);
    b.handle(&answer_a[0], now);
    settle(&mut a, &mut b, now);

    assert_eq!((a.state(), b.state()), (State::Established, State::Established));
    a.write(Bytes::from_static(b"x"));
    settle(&mut a, &mut b, now);
    assert_eq!(b.read().as_deref(), Some(&b"x"[..]));
}

#[test]
fn linux_tcp_syn_retries_gives_up_after_131_seconds() {
    let now = start();
    let mut a = Connection::connect(Config::default(), 100, now);

    let sent = alone(&mut a, now);

    assert_eq!(seconds(&sent), [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67]);
    assert!(sent.iter().all(|(_, segment)| segment.flags == Flags::SYN && segment.seq == 100));
    assert_eq!(events(&mut a), [Event::TimedOut]);
    assert!(a.is_closed());
}

#[test]
fn linux_tcp_synack_retries_gives_up_after_63_seconds() {
    let now = start();
    let syn = Connection::connect(Config::default(), 100, now).poll_transmit(now).unwrap();
    let mut b = Connection::accept(Config::default(), 300, &syn, now);

    assert_eq!(seconds(&alone(&mut b, now)), [0, 1, 3, 7, 15, 31]);
    assert_eq!(events(&mut b), [Event::TimedOut]);
}

#[test]
fn rfc9293_3_10_7_4_a_repeated_syn_is_answered_again() {
    let now = start();
    let syn = Connection::connect(Config::default(), 100, now).poll_transmit(now).unwrap();
    let mut b = Connection::accept(Config::default(), 300, &syn, now);
    let first = drain(&mut b, now);
    b.handle(&syn, now + SEC / 2);
    let again = drain(&mut b, now + SEC / 2);

    assert_eq!((again.len(), again[0].seq, again[0].flags), (1, first[0].seq, Flags::SYN | Flags::ACK));
}

#[test]
fn rfc9293_3_10_7_3_a_reset_refuses_a_connection() {
    let now = start();
    let mut a = Connection::connect(Config::default(), 100, now);
    let syn = a.poll_transmit(now).unwrap();
    a.handle(&Segment { ack: 55, ..Segment::reset_for(&syn).unwrap() }, now);
    assert_eq!(a.state(), State::SynSent, "a reset for something else");

    a.handle(&Segment::reset_for(&syn).unwrap(), now);

    assert_eq!(events(&mut a), [Event::Reset]);
    assert!(a.is_closed());
}

#[test]
fn rfc9293_3_5_1_half_open_connection_is_found_and_reset() {
    let now = start();
    let (_, mut b) = pair(now);
    // The client crashed and connects again from the same port.
    let mut a = Connection::connect(Config::default(), 5000, now);
    b.handle(&a.poll_transmit(now).unwrap(), now);
    let challenge = drain(&mut b, now);
    assert_eq!(challenge[0].flags, Flags::ACK);
    a.handle(&challenge[0], now);
    let reset = drain(&mut a, now);
    b.handle(&reset[0], now);

    assert_eq!(events(&mut b), [Event::Reset]);
    assert_eq!(a.state(), State::SynSent);
}

#[test]
fn rfc5961_3_2_only_the_exact_number_resets() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.write(Bytes::from_static(b"x"));
    let next = drain(&mut a, now)[0].seq;
    let reset = |seq| Segment { flags: Flags::RST, payload: Bytes::new(), seq, ..template(next) };
    b.handle(&reset(next.wrapping_add(10)), now);
    assert_eq!(drain(&mut b, now).len(), 1, "a challenge ACK");
    b.handle(&reset(next.wrapping_sub(10)), now);
    b.handle(&reset(next.wrapping_add(1 << 30)), now);
    assert_eq!((drain(&mut b, now).len(), b.state()), (0, State::Established));

    b.handle(&reset(next), now);

    assert_eq!(events(&mut b), [Event::Reset]);
}

fn template(seq: u32) -> Segment {
    Segment {
        seq,
        ack: 0,
        flags: Flags::ACK,
        window: 0,
        options: tcp::Options::default(),
        payload: Bytes::new(),
    }
}

#[test]
fn rfc5961_4_2_and_7_a_syn_is_challenged_at_a_bounded_rate() {
    let now = start();
    let (_, mut b) = pair(now);
    let syn = Segment { flags: Flags::SYN, ..template(123) };
    for _ in 0..5 {
        b.handle(&syn, now);
    }
    let soon = drain(&mut b, now).len();
    b.handle(&syn, now + SEC);

    assert_eq!((soon, drain(&mut b, now + SEC).len()), (1, 1));
    assert_eq!(b.state(), State::Established);
}

#[test]
fn rfc5961_5_2_data_with_an_impossible_ack_is_not_taken() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.write(Bytes::from_static(b"evil"));
    let good = drain(&mut a, now).remove(0);
    for wrong in [good.ack.wrapping_add(1), good.ack.wrapping_sub(1 << 30)] {
        b.handle(&Segment { ack: wrong, ..good.clone() }, now);
    }
    assert_eq!(b.readable(), 0);

    b.handle(&good, now);

    assert_eq!(b.readable(), 4);
}

/// Sends segments of `len` bytes one at a time from `a` to `b` until `b` no longer acknowledges each at once.
fn use_up_quick_acks(a: &mut Connection, b: &mut Connection, now: Instant) {
    for _ in 0..16 {
        a.write(Bytes::from_static(&[7; 1448]));
        settle(a, b, now);
        while b.read().is_some() {}
    }
    events(a);
    events(b);
}

#[test]
fn rfc9293_3_8_6_3_acks_wait_40_ms_but_not_for_a_second_full_segment() {
    let now = start();
    let (mut a, mut b) = pair(now);
    use_up_quick_acks(&mut a, &mut b, now);
    a.write(Bytes::from_static(&[7; 2 * 1448]));
    let segments = drain(&mut a, now);
    b.handle(&segments[0], now);
    assert!(drain(&mut b, now).is_empty());
    assert_eq!(b.poll_timeout(), Some((now + 40 * MS, "delayed acknowledgement")));

    b.handle(&segments[1], now + MS);
    let ack = drain(&mut b, now + MS);

    assert_eq!((ack.len(), ack[0].ack), (1, segments[1].seq.wrapping_add(1448)));
    assert_eq!(b.poll_timeout(), None);
}

#[test]
fn rfc1122_4_2_3_2_a_delayed_ack_goes_out_in_time() {
    let now = start();
    let (mut a, mut b) = pair(now);
    use_up_quick_acks(&mut a, &mut b, now);
    a.write(Bytes::from_static(b"x"));
    b.handle(&drain(&mut a, now)[0], now);
    b.handle_timeout(now + 40 * MS);

    assert_eq!(drain(&mut b, now + 40 * MS).len(), 1);
}

#[test]
fn rfc5681_4_2_and_rfc2018_4_out_of_order_data_is_reported_at_once() {
    let now = start();
    let (mut a, mut b) = pair(now);
    use_up_quick_acks(&mut a, &mut b, now);
    a.write(Bytes::from_static(&[7; 3 * 1448]));
    let segments = drain(&mut a, now);
    b.handle(&segments[1], now);
    let ack = drain(&mut b, now);

    let block = (segments[1].seq, segments[1].seq.wrapping_add(1448));
    assert_eq!((ack[0].ack, ack[0].options.sack.as_slice()), (segments[0].seq, &[block][..]));
    b.handle(&segments[0], now);
    let ack = drain(&mut b, now);
    assert_eq!((ack[0].ack, ack[0].options.sack.is_empty()), (segments[2].seq, true));
}

#[test]
fn rfc2883_4_1_a_duplicate_is_reported() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.write(Bytes::from_static(b"abc"));
    let segment = drain(&mut a, now).remove(0);
    b.handle(&segment, now);
    drain(&mut b, now);
    b.handle(&segment, now);
    let ack = drain(&mut b, now);

    let block = (segment.seq, segment.seq.wrapping_add(3));
    assert_eq!(ack[0].options.sack.as_slice(), [block]);
    assert_eq!(b.readable(), 3);
}

#[test]
fn rfc9293_3_7_4_nagle_holds_a_second_small_segment() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.write(Bytes::from_static(b"one"));
    let first = drain(&mut a, now);
    a.write(Bytes::from_static(b"two"));
    a.write(Bytes::from_static(b"three"));
    assert!(drain(&mut a, now).is_empty());
    b.handle(&first[0], now);
    for ack in drain(&mut b, now) {
        a.handle(&ack, now);
    }

    let second = drain(&mut a, now);

    assert_eq!((second.len(), &second[0].payload[..]), (1, &b"twothree"[..]));
}

#[test]
fn tcp_nodelay_holds_nothing() {
    let now = start();
    let config = Config { nodelay: true, ..Config::default() };
    let (mut a, _) = pair_of(config.clone(), config, now);
    a.write(Bytes::from_static(b"one"));
    let first = drain(&mut a, now);
    a.write(Bytes::from_static(b"two"));

    assert_eq!((first.len(), drain(&mut a, now).len()), (1, 1));
}

/// A connection to a peer that reads nothing and has a window of 3000 bytes, filled up.
fn filled(now: Instant) -> (Connection, Connection) {
    let small = Config { receive_buffer: Buffer { initial: 3000, max: 3000 }, ..Config::default() };
    let (mut a, mut b) = pair_of(Config::default(), small, now);
    assert_eq!(a.write(Bytes::from_static(&[7; 10_000])), 10_000);
    settle(&mut a, &mut b, now);
    b.handle_timeout(now + 40 * MS);
    settle(&mut a, &mut b, now + 40 * MS);
    (a, b)
}

#[test]
fn rfc9293_3_8_6_1_a_zero_window_is_probed_with_back_off_and_never_given_up() {
    let begin = start();
    let (mut a, mut b) = filled(begin);
    // The last 104 bytes of the window are too few to be worth a segment until the timer overrides.
    let mut now = begin + 40 * MS;
    let mut probes = Vec::new();
    while now - begin < 3 * 3600 * SEC {
        let (at, reason) = [a.poll_timeout(), b.poll_timeout()].into_iter().flatten().min().unwrap();
        now = at;
        a.handle_timeout(now);
        b.handle_timeout(now);
        let sent = drain(&mut a, now);
        if sent.iter().any(|segment| segment.payload.is_empty()) {
            assert_eq!(reason, "zero-window probe");
            probes.push(now);
        }
        sent.iter().for_each(|segment| b.handle(segment, now));
        settle(&mut a, &mut b, now);
    }

    assert_eq!((a.state(), b.readable()), (State::Established, 3000));
    let gaps: Vec<Duration> = probes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] >= pair[0]), "{gaps:?}");
    assert_eq!(gaps.last(), Some(&(120 * SEC)));
}

#[test]
fn rfc9293_3_8_6_2_2_the_window_opens_by_a_segment_or_half_the_buffer_and_transfer_goes_on() {
    let begin = start();
    let (mut a, mut b) = filled(begin);
    let now = begin + SEC;
    a.handle_timeout(now);
    settle(&mut a, &mut b, now);
    assert_eq!(a.stats().peer_window, 0);
    let read = b.read().unwrap().len();
    settle(&mut a, &mut b, now);

    assert_eq!(read, 1448);
    assert!(b.readable() > 3000 - 1448, "went on");
}

#[test]
fn rfc9293_3_8_6_1_a_lost_window_update_is_repaired_by_the_probe() {
    let begin = start();
    let (mut a, mut b) = filled(begin);
    let mut now = begin + SEC;
    a.handle_timeout(now);
    settle(&mut a, &mut b, now);
    while b.read().is_some() {}
    assert_eq!(drain(&mut b, now).len(), 1, "the window update, which is lost");
    while b.stats().bytes_received < 10_000 {
        now = [a.poll_timeout(), b.poll_timeout()].into_iter().flatten().min().unwrap().0;
        a.handle_timeout(now);
        b.handle_timeout(now);
        settle(&mut a, &mut b, now);
        while b.read().is_some() {}
    }

    assert!(now - begin < 3 * SEC, "{:?}", now - begin);
}

#[test]
fn rfc9293_3_6_closing_in_order() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.write(Bytes::from_static(b"last words"));
    a.close();
    let fin = drain(&mut a, now);
    assert_eq!((fin.len(), a.state()), (1, State::FinWait1));
    assert!(fin[0].flags.fin());
    b.handle(&fin[0], now);
    assert_eq!(events(&mut b), [Event::Readable, Event::PeerClosed]);
    settle(&mut a, &mut b, now);
    assert_eq!((a.state(), b.state()), (State::FinWait2, State::CloseWait));

    // The other direction still works.
    b.write(Bytes::from_static(b"answer"));
    settle(&mut a, &mut b, now);
    assert_eq!(a.read().as_deref(), Some(&b"answer"[..]));

    b.close();
    settle(&mut a, &mut b, now);
    assert_eq!((a.state(), b.state()), (State::TimeWait, State::Closed));
    assert_eq!(events(&mut b), [Event::Writable, Event::Closed]);
    assert_eq!(b.read().as_deref(), Some(&b"last words"[..]), "readable after the end");
    assert_eq!(
        events(&mut a),
        [Event::Readable, Event::PeerClosed, Event::Closed],
        "none after close is Writable"
    );
}

#[test]
fn rfc9293_3_6_figure_13_closing_at_once() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.close();
    b.close();
    let (fin_a, fin_b) = (drain(&mut a, now), drain(&mut b, now));
    a.handle(&fin_b[0], now);
    b.handle(&fin_a[0], now);
    assert_eq!((a.state(), b.state()), (State::Closing, State::Closing));
    settle(&mut a, &mut b, now);

    assert_eq!((a.state(), b.state()), (State::TimeWait, State::TimeWait));
}

#[test]
fn rfc9293_3_10_7_4_time_wait_answers_a_repeated_fin_and_waits_anew() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.close();
    settle(&mut a, &mut b, now);
    b.close();
    let fin = drain(&mut b, now).remove(0);
    a.handle(&fin, now);
    drain(&mut a, now);
    assert_eq!(a.poll_timeout(), Some((now + 60 * SEC, "time-wait")));

    a.handle(&fin, now + 10 * SEC);

    assert_eq!(drain(&mut a, now + 10 * SEC).len(), 1);
    assert_eq!(a.poll_timeout(), Some((now + 70 * SEC, "time-wait")));
    a.handle_timeout(now + 70 * SEC);
    assert!(a.is_closed());
}

#[test]
fn rfc6191_2_a_newer_syn_may_replace_time_wait() {
    let now = start();
    let (mut a, mut b) = pair(now);
    b.close();
    settle(&mut a, &mut b, now);
    a.close();
    settle(&mut a, &mut b, now);
    assert_eq!(b.state(), State::TimeWait);
    let syn = |seq| Segment { flags: Flags::SYN, ..template(seq) };

    assert!(b.is_replaceable_by(&syn(1000)));
    assert!(!b.is_replaceable_by(&syn(u32::MAX - 5)));
    assert!(!a.is_replaceable_by(&syn(1000)));
}

#[test]
fn rfc9293_3_10_5_abort_resets_the_peer() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.write(Bytes::from_static(&[1; 50_000]));
    a.abort();
    let reset = drain(&mut a, now);
    b.handle(&reset[0], now);

    assert_eq!((reset.len(), events(&mut a), events(&mut b)), (1, vec![Event::Closed], vec![Event::Reset]));
    assert!(a.is_closed() && b.is_closed());
    assert_eq!(a.write(Bytes::from_static(b"x")), 0);
}

#[test]
fn rfc9293_3_10_4_closing_before_the_handshake_with_nothing_to_say_is_the_end() {
    let now = start();
    let mut a = Connection::connect(Config::default(), 1, now);
    drain(&mut a, now);
    a.close();

    assert!(a.is_closed());
}

#[test]
fn rfc1122_4_2_3_5_unanswered_data_is_given_up_after_924_seconds() {
    let now = start();
    let (mut a, _) = pair(now);
    a.write(Bytes::from_static(b"anyone?"));
    let sent = alone(&mut a, now);
    let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();

    assert_eq!(events(&mut a), [Event::TimedOut]);
    assert!(gaps[2..].windows(2).all(|pair| pair[1] == (pair[0] * 2).min(120 * SEC)), "{gaps:?}");
    assert!((800..=925).contains(&sent.last().unwrap().0.as_secs()));
}

#[test]
fn linux_tcp_fin_timeout_ends_a_half_closed_connection_with_a_silent_peer() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.close();
    settle(&mut a, &mut b, now);
    assert_eq!(a.poll_timeout(), Some((now + 60 * SEC, "fin-wait-2")));
    a.handle_timeout(now + 60 * SEC);

    assert_eq!(events(&mut a), [Event::TimedOut]);
}

#[test]
fn rfc7323_5_3_data_with_an_old_timestamp_is_not_taken() {
    let begin = start();
    let (mut a, mut b) = pair(begin);
    let now = begin + SEC;
    a.write(Bytes::from_static(b"good"));
    let good = drain(&mut a, now).remove(0);
    b.handle(&good, now);
    let mut old = Segment { seq: good.seq.wrapping_add(4), payload: Bytes::from_static(b"evil"), ..good };
    old.options.timestamps.as_mut().unwrap().value -= 500;
    drain(&mut b, now);
    b.handle(&old, now);

    assert_eq!(b.readable(), 4);
    assert_eq!(drain(&mut b, now).len(), 1, "answered with an ACK");
}

#[test]
fn rfc7323_2_2_and_rfc2018_2_options_are_used_only_if_both_offer_them() {
    let now = start();
    let plain =
        Config { sack: false, timestamps: false, window_scaling: false, mss: 1200, ..Config::default() };
    let (mut a, b) = pair_of(Config::default(), plain, now);
    a.write(Bytes::from_static(&[7; 3000]));
    let segments = drain(&mut a, now);

    assert_eq!(segments[0].payload.len(), 1200);
    assert_eq!(segments[0].options, tcp::Options::default());
    assert_eq!(b.stats().mss, 1200);
}

#[test]
fn rfc9293_3_7_1_a_peer_without_the_mss_option_gets_536_bytes() {
    let now = start();
    let syn = Segment { flags: Flags::SYN, window: 60_000, ..template(9) };
    let mut b = Connection::accept(Config::default(), 300, &syn, now);
    drain(&mut b, now);
    b.handle(&Segment { ack: 301, window: 60_000, ..template(10) }, now);
    b.write(Bytes::from_static(&[7; 2000]));

    assert_eq!(drain(&mut b, now)[0].payload.len(), 536);
}

fn transfer(bytes: usize, drop_if: impl FnMut(usize, u64, &Segment) -> bool + 'static) -> World {
    let cable = Cable::clean(20 * MS);
    let programs = [Program::sender(bytes), Program::sender(0)];
    let mut world = World::new(1, [Config::default(), Config::default()], programs, [cable, cable], false);
    world.drop_if = Some(Box::new(drop_if));
    world.run(100 * SEC).and_then(|()| world.check()).unwrap();
    world
}

#[test]
fn rfc8985_7_a_lost_tail_is_found_without_a_time_out() {
    // The SYN is the first segment, the data is 2 to 11.
    let world = transfer(10 * 1448, |side, number, _| side == 0 && number == 11);
    let stats = world.hosts[0].connection.as_ref().unwrap().stats();

    assert_eq!((stats.timeouts, stats.tail_probes), (0, 1));
    // Handshake 40 ms, first ACKs after 40 ms, the probe when the time-out would have been, and on its way 20 ms.
    assert_eq!(world.hosts[1].last_data, 340 * MS);
}

#[test]
fn rfc6675_5_a_burst_of_losses_is_repaired_in_one_recovery() {
    let world =
        transfer(400 * 1448, |side, number, _| side == 0 && (100..140).contains(&number) && number % 2 == 0);
    let stats = world.hosts[0].connection.as_ref().unwrap().stats();

    assert_eq!((stats.recoveries, stats.timeouts, stats.retransmits), (1, 0, 20));
}

#[test]
fn rfc6298_5_a_lost_retransmission_of_the_only_segment_is_sent_until_it_arrives() {
    let mut drops = 0;
    let world = transfer(100, move |side, _, segment| {
        let drop = side == 0 && !segment.payload.is_empty() && drops < 3;
        drops += u32::from(drop);
        drop
    });

    assert_eq!(world.hosts[0].connection.as_ref().unwrap().stats().retransmits, 3);
}

#[test]
fn rfc6298_5_7_a_repeated_syn_starts_carefully() {
    let mut syns = 0;
    let world = transfer(20 * 1448, move |side, _, segment| {
        syns += u32::from(side == 0 && segment.flags.syn());
        side == 0 && segment.flags.syn() && syns < 3
    });

    assert!(world.hosts[1].events.iter().all(|(at, _)| *at > 2 * SEC));
    assert!(world.hosts[1].saw(Event::PeerClosed));
}

#[test]
fn rfc3522_a_delay_that_looks_like_a_loss_is_undone() {
    let begin = start();
    let (mut a, mut b) = pair(begin);
    let mut now = begin;
    // A round-trip time of 40 ms, and a window that has grown.
    for _ in 0..10 {
        a.write(Bytes::from_static(&[7; 20_000]));
        let data = drain(&mut a, now);
        now += 40 * MS;
        for segment in data {
            b.handle(&segment, now);
            for ack in drain(&mut b, now) {
                a.handle(&ack, now);
            }
        }
        settle(&mut a, &mut b, now);
        while b.read().is_some() {}
    }
    let before = a.stats();
    a.write(Bytes::from_static(&[7; 10 * 1448]));
    let delayed = drain(&mut a, now);
    while a.stats().timeouts == 0 {
        now = a.poll_timeout().unwrap().0;
        a.handle_timeout(now);
        drain(&mut a, now);
    }
    assert_eq!(a.stats().cwnd, 1);
    now += 20 * MS;
    for segment in delayed {
        b.handle(&segment, now);
        for ack in drain(&mut b, now) {
            a.handle(&ack, now);
        }
    }

    let after = a.stats();
    assert_eq!((after.undone, after.ssthresh), (1, before.ssthresh));
    assert!(after.cwnd >= before.cwnd, "{after:?}");
    assert!(drain(&mut a, now).is_empty(), "nothing is sent again");
}

#[test]
fn buffers_take_what_they_promise_and_grow_with_the_path() {
    let begin = start();
    let mut a = Connection::connect(Config::default(), 1, begin);
    let room = a.writable();
    assert_eq!(a.write(vec![0; 10 << 20].into()), room);
    assert_eq!((a.writable(), a.write(Bytes::from_static(b"x"))), (0, 0));

    let cable = Cable { rate_bps: 100_000_000, queue_bytes: 4_000_000, ..Cable::clean(20 * MS) };
    let programs = [Program::sender(40_000_000), Program::sender(0)];
    let mut world = World::new(1, [Config::default(), Config::default()], programs, [cable, cable], false);
    let mut most = 0;
    world.run(100 * SEC).unwrap();
    for host in &world.hosts {
        most = most.max(host.connection.as_ref().unwrap().stats().receive_buffer);
    }

    assert!((1_000_000..=6 << 20).contains(&most), "{most}");
    assert!(world.hosts[0].connection.as_ref().unwrap().stats().retransmits < 4000);
}

#[test]
fn a_writer_is_told_when_there_is_room_again() {
    let now = start();
    let (mut a, mut b) = pair(now);
    while a.write(Bytes::from_static(&[7; 5000])) == 5000 {}
    assert_eq!(events(&mut a), []);
    settle(&mut a, &mut b, now);

    assert_eq!(events(&mut a), [Event::Writable]);
    assert!(a.writable() > 0);
}
